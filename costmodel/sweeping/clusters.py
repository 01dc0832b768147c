"""Blocks on a Dask cluster. Dask is imported here alone, and only when a scheduler is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from costmodel.errors import CostModelError, shown

CONNECT_S = 5
"""Seconds that a scheduler has to answer, and to have a worker."""
ADDRESS = re.compile(r"(?:(?:tcp|tls|wss?)://)?(?:[^\s:/@\[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}")


class DaskExecutor(Executor):
    """An executor on a Dask client whose futures always end: also when the scheduler is gone, where Dask's own leave one waiting.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> DaskExecutor.of(ThreadPoolExecutor()) is None  # not Dask's
    True
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    def of(cls, executor: Executor) -> DaskExecutor | None:
        """The same client's, for an executor that `client.get_executor()` has given; None for any other."""
        client = getattr(executor, "_client", None)
        return cls(client) if type(executor).__module__.startswith("distributed") and client is not None else None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Sends a call to the cluster."""
        told: Future[Any] = Future()
        told.set_running_or_notify_cancel()
        self._client.submit(fn, *args, **kwargs, pure=False).add_done_callback(lambda sent: _pass_on(sent, told))
        return told


def _pass_on(sent: Any, told: Future[Any]) -> None:
    """What became of a call of Dask's, in any way."""
    try:
        result = sent.result()
    except BaseException as error:  # a cancelled one raises no Exception of Python's
        told.set_exception(error)
    else:
        told.set_result(result)


@contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """The executor of a Dask cluster. Raises CostModelError where no scheduler answers, or it has no workers.

    >>> with dask_executor("tcp://10.0.0.1:8786") as executor:  # doctest: +SKIP
    ...     sweep("llama-3.1-8b", "cache_bytes", {"context": range(1, 10_000_000)}, executor, "sweep.parquet")
    """
    try:
        connect: Any = import_module("distributed").Client
    except ImportError:
        raise CostModelError("a scheduler needs Dask, which is not installed; run: pip install 'costmodel[sweep]'") from None
    client: Any = None
    try:
        if not ADDRESS.fullmatch(address):
            raise ValueError
        client = connect(address, timeout=CONNECT_S, set_as_default=False)
        client.wait_for_workers(1, timeout=CONNECT_S)
    except Exception:  # whatever can be wrong about an address
        missing = "no Dask scheduler answers" if client is None else "no worker has come to the scheduler"
        if client is not None:
            client.close(timeout=1)
        raise CostModelError(f"{missing} at {shown(address)}; give an address such as tcp://host:8786, or leave it out") from None
    try:
        yield DaskExecutor(client)
    finally:
        client.close(timeout=CONNECT_S)
