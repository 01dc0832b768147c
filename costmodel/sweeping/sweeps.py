"""A quantity over a grid of inputs: block by block, on threads or any executor, in memory or to a Parquet file."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from costmodel.catalog import Source
from costmodel.errors import CostModelError, excerpt, shown
from costmodel.frames import facts
from costmodel.sweeping.clusters import DaskExecutor, dask_executor
from costmodel.sweeping.grids import Grid
from costmodel.sweeping.parts import Parts
from costmodel.sweeping.questions import Question, asked
from costmodel.sweeping.tasks import VERSION, Outcome, Task, Values, evaluate_block
from costmodel.tables import Table

if TYPE_CHECKING:
    import pandas as pd

MAX_IN_MEMORY = 10**7
"""Points of a sweep without a path."""
IN_FLIGHT = 32
"""Blocks sent to an executor that does not say how many workers it has."""
TRIES = 3
"""How often a block is sent again when its worker is lost; then it is evaluated here."""
MAX_WORKERS = 1_024
POLL_S = 0.2
Follow = Callable[[int, int], Any]


class Cancelled(CostModelError):
    """A sweep that its `cancel` has stopped; with a path, what is done is kept."""


def sweep(
    model: Source | None, quantity: str | Sequence[str], grid: Mapping[str, Any], executor: Executor | None = None,
    path: str | os.PathLike[str] | None = None, progress: Follow | None = None, cancel: Any = None, **fixed: Any,
) -> SweepResult:  # fmt: skip
    """The values of one or several quantities at every point of a grid, the last axis fastest.

    `quantity` names quantities of `costmodel.sweeping.tasks.QUANTITIES`. The keys of `grid` are their inputs (context, batch,
    new_tokens, precision, view ...), fields of the architecture by path as in `costmodel.variants` (`hidden_size`,
    `local/mixer/sliding_window`, `local/count`; `*/mixer/head_dim` means every group that has one), or `model`; the values are
    lists, ranges or arrays. `fixed` gives inputs that stay the same.

    Blocks of 16,384 points run on `executor` (any of concurrent.futures, or a Dask client's `get_executor()`), by default a
    thread a processor. A block whose worker is lost is sent again. With `path` the rows go to a Parquet file, block by block:
    the same call after a kill goes on where it was, to the same bytes. Without, they stay in memory (at most ten million).
    `progress(done, total)` hears of points; the sweep stops when `cancel()` is true or `cancel.is_set()`.

    A combination that cannot be (heads that do not divide, more new tokens than context) is a row whose value is NaN; its
    column `why` says so. Raises CostModelError for what is wrong with every point, and Cancelled.

    >>> import costmodel as cm
    >>> found = cm.sweep("gemma-3-27b", "cache_bytes", {"local/mixer/sliding_window": [512, 1024], "context": [4096, 131_072]})
    >>> found.points, found.frame["cache_bytes"].tolist()
    (4, [553648128.0, 10955522048.0, 771751936.0, 11173625856.0])
    """
    question = asked(model, quantity, grid, fixed)
    stopped = _cancel(cancel)
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise CostModelError(f"executor got {shown(executor)}; give an Executor of concurrent.futures, or client.get_executor()")
    if progress is not None and not callable(progress):
        raise CostModelError(f"progress got {shown(progress)}; give a function of (done, total)")
    if path is not None:
        return _to_file(question, Parts(path, question.grid, question.names, question.data()), executor, progress, stopped)
    if question.grid.points > MAX_IN_MEMORY:
        raise CostModelError(f"{question.grid.points:,} points are too many for memory; give a path, or at most {MAX_IN_MEMORY:,}")
    return _in_memory(question, executor, progress, stopped)


def _cancel(cancel: Any) -> Callable[[], bool]:
    if cancel is None:
        return lambda: False
    ask = getattr(cancel, "is_set", cancel)
    if not callable(ask):
        raise CostModelError(f"cancel got {shown(cancel)}; give a function, or an Event of threading")
    return lambda: bool(ask())


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What a sweep has found: `points` in all, `quantities` with their units, the file at `path` or the rows in memory.

    `refused` points have no value for some quantity; `reason` is the first of their reasons. `notes` say what went wrong on the
    way and was made good.
    """

    points: int
    quantities: dict[str, str]
    refused: int
    reason: str = ""
    notes: tuple[str, ...] = ()
    path: Path | None = None
    _rows: Callable[[], pd.DataFrame] = field(default=lambda: None, repr=False)  # type: ignore[assignment]  # always given

    def _repr_html_(self) -> str:
        """What a notebook shows: the rows where they are in memory, else where they lie."""
        if self.path is None:
            return str(self.frame.to_html(max_rows=20))
        return facts(str(self.path), {"points": self.points, "refused": self.refused})

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All rows as a DataFrame: a column for each axis and quantity, and `why`; read from the file where there is one."""
        return self._rows()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know."""
        if not self.refused:
            return self.notes
        return (
            f"{self.refused:,} of {self.points:,} points have no value (the column why says why; first: {self.reason})",
            *self.notes,
        )


def _to_file(
    question: Question, parts: Parts, executor: Executor | None, progress: Follow | None, stopped: Callable[[], bool]
) -> SweepResult:
    with parts:
        notes: list[str] = []
        if not parts.finished:
            todo = [block for block in range(question.grid.blocks) if block not in parts.done]
            done = question.grid.points - sum(stop - start for start, stop in map(question.grid.span, todo))
            kept = f"what is done is kept in {shown(str(parts.folder))}; run the same again to go on"
            for outcome in _followed(question, todo, done, executor, progress, stopped, notes, kept):
                parts.add(outcome.block, outcome.values, outcome.why, tuple(outcome.reasons))
            parts.finish()
        refused, reason = parts.refused()
    return SweepResult(question.grid.points, question.units, refused, reason, tuple(notes), parts.path, parts.frame)


def _in_memory(question: Question, executor: Executor | None, progress: Follow | None, stopped: Callable[[], bool]) -> SweepResult:
    grid, notes, reasons = question.grid, list[str](), dict[str, int]()
    values: dict[str, Values] = {name: np.empty(grid.points) for name in question.names}
    why = np.full(grid.points, -1, np.int32)
    found: dict[int, Outcome] = {}
    for outcome in _followed(question, range(grid.blocks), 0, executor, progress, stopped, notes, "nothing was kept"):
        found[outcome.block] = outcome
    for block in range(grid.blocks):  # in their order, so that reasons have theirs
        outcome, (start, stop) = found.pop(block), grid.span(block)
        for name in question.names:
            values[name][start:stop] = outcome.values[name]
        codes = np.array([reasons.setdefault(reason, len(reasons)) for reason in outcome.reasons] + [-1], np.int32)
        why[start:stop] = codes[outcome.why]
    refused = int((why >= 0).sum())
    return SweepResult(
        grid.points,
        question.units,
        refused,
        next(iter(reasons), ""),
        tuple(notes),
        None,
        partial(_frame, grid, values, why, reasons),
    )


def _frame(grid: Grid, values: dict[str, Values], why: NDArray[np.int32], reasons: Iterable[str]) -> pd.DataFrame:
    import pandas as pd

    text = pd.Index([""]).dtype  # what this pandas takes texts for
    columns: dict[str, Any] = {}
    for axis in grid.axes:
        codes = grid.code(axis, 0, grid.points)
        if axis.is_text:
            columns[axis.name] = pd.Categorical.from_codes(codes, categories=pd.Index(axis.told, dtype=text))
        else:
            columns[axis.name] = pd.Series(axis.column(), dtype="Int64" if axis.holes else None).array.take(codes)
    columns |= values
    return pd.DataFrame(columns | {"why": pd.Categorical.from_codes(why, categories=pd.Index(list(reasons), dtype=text))})


def _followed(
    question: Question, blocks: Iterable[int], done: int, executor: Executor | None, progress: Follow | None,
    stopped: Callable[[], bool], notes: list[str], kept: str,
) -> Iterator[Outcome]:  # fmt: skip
    """The outcomes of blocks as they come, on an executor or on threads of our own."""
    own = None if executor else ThreadPoolExecutor(os.cpu_count() or 1)
    crew = (DaskExecutor.of(executor) or executor) if executor else own
    assert crew is not None
    if progress:
        progress(done, question.grid.points)
    try:
        with closing(_outcomes((question.task(block) for block in blocks), crew, stopped, notes, kept)) as outcomes:
            for outcome in outcomes:
                yield outcome
                done += len(outcome.why)
                if progress:
                    progress(done, question.grid.points)
    finally:
        if own:
            own.shutdown(cancel_futures=True)


def _outcomes(
    tasks: Iterator[Task], executor: Executor, stopped: Callable[[], bool], notes: list[str], kept: str
) -> Generator[Outcome]:
    """Outcomes as they come; a bounded number of blocks is under way, and a lost one is sent again."""
    most = 2 * getattr(executor, "_max_workers", IN_FLIGHT // 2)
    running: dict[Future[Outcome], Task] = {}
    again: deque[Task] = deque()
    losses: list[str] = []
    try:
        while True:
            while len(running) < most and (task := again.popleft() if again else next(tasks, None)) is not None:
                if stopped():
                    raise Cancelled(f"the sweep was cancelled; {kept}")
                if task.tries > TRIES:
                    yield evaluate_block(task)
                elif (future := _sent(executor, task, losses)) is not None:
                    running[future] = task
                else:
                    again.append(replace(task, tries=task.tries + 1))
            if not running:
                break
            for future in wait(running, POLL_S, FIRST_COMPLETED).done:
                task = running.pop(future)
                outcome = _received(future, losses)
                if outcome is not None:
                    yield outcome
                else:
                    again.append(replace(task, tries=task.tries + 1))
            if stopped():
                raise Cancelled(f"the sweep was cancelled; {kept}")
    finally:
        for future in running:
            future.cancel()
    if losses:
        notes.append(
            f"{len(losses):,} times a block was lost with its worker and evaluated again ({', '.join(dict.fromkeys(losses))})"
        )


def _sent(executor: Executor, task: Task, losses: list[str]) -> Future[Outcome] | None:
    """A block under way, or None where the executor takes no more."""
    try:
        return executor.submit(evaluate_block, task)
    except Exception as error:  # what an executor raises that has broken or was shut down is its own
        losses.append(type(error).__name__)
        return None


def _received(future: Future[Outcome], losses: list[str]) -> Outcome | None:
    """A block's outcome, or None where it was lost with its worker. Raises CostModelError for any other failure."""
    try:
        outcome = future.result()
    except CostModelError:
        raise
    except Exception as error:
        if not _is_loss(error):
            told = excerpt(f"{type(error).__name__}: {error}")
            raise CostModelError(f"a worker failed ({told}); is costmodel {VERSION} installed there?") from error
        losses.append(type(error).__name__)
        return None
    if outcome.version != VERSION:
        raise CostModelError(f"a worker has costmodel {outcome.version}, and here is {VERSION}; install the same on both")
    return outcome


def _is_loss(error: Exception) -> bool:
    """Whether a worker or its connection is gone, rather than the block being wrong."""
    return isinstance(error, (BrokenExecutor, CancelledError, OSError)) or type(error).__module__.startswith("distributed")


@contextmanager
def executor_of(scheduler: str = "", workers: int = 0) -> Iterator[Executor | None]:
    """The executor that a command line names: a scheduler's, or so many threads, or none of its own."""
    if scheduler and workers:
        raise CostModelError("a scheduler has workers of its own; give --scheduler or --workers, not both")
    if not 0 <= workers <= MAX_WORKERS:
        raise CostModelError(f"workers got {shown(workers)}; give a whole number from 1 to {MAX_WORKERS}")
    if scheduler:
        with dask_executor(scheduler) as executor:
            yield executor
    elif workers:
        with ThreadPoolExecutor(workers) as threads:
            yield threads
    else:
        yield None


MAX_PRINTED = 100_000


def check_printed(grid: Mapping[str, Any]) -> None:
    """Raises CostModelError for a grid of more rows than a terminal is for."""
    points = prod(len(values) for values in grid.values())
    if points > MAX_PRINTED:
        raise CostModelError(f"{points:,} rows are too many to print; write them with --out FILE.parquet, or ask for less")


def sweep_table(found: SweepResult) -> Table:
    """The rows of a sweep as a table; whole numbers are ints, and where there is no value there is none."""
    columns: dict[Any, list[Any]] = {name: found.frame[name].astype(object).tolist() for name in found.frame}
    if not found.refused:
        del columns["why"]
    rows = [dict(zip(columns, map(_cell, row), strict=True)) for row in zip(*columns.values(), strict=True)]
    return Table("sweep", "Sweep", rows, found.quantities, found.remarks)


def _cell(value: Any) -> Any:
    """A whole number as an int, and none where there is no value."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return value if isinstance(value, (str, bool)) else None
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return int(value) if value == int(value) else value
