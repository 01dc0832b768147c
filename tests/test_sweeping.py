"""Sweeps: the Formula's values at every point, the same bytes on any executor, nothing lost or doubled by a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import costmodel as cm
from costmodel.sweeping.clusters import DaskExecutor
from costmodel.sweeping.grids import BLOCK_POINTS
from costmodel.sweeping.questions import asked
from costmodel.sweeping.sweeps import Cancelled
from costmodel.sweeping.tasks import FORMULAS, QUANTITIES, evaluate_block
from costmodel.variants import edited
from tests import sweep_worker
from tests.sweep_worker import LINES, command, rows_of, run_python

WORKER = Path(sweep_worker.__file__)
SAME = "import sys; from tests.sweep_worker import *; cm.sweep('gpt2', 'cache_bytes', LINES, path=sys.argv[1])"


def point_by_point(model: str, quantity: str, grid: dict[str, Any]) -> list[float]:
    """The loop that a sweep stands for."""
    values = []
    for chosen in product(*grid.values()):
        inputs = dict(zip(grid, chosen, strict=True))
        fields = {name: inputs.pop(name) for name in list(inputs) if "/" in name or name == "hidden_size"}
        try:
            own = edited(cm.load(str(inputs.pop("model", model))), fields) if fields else cm.load(str(inputs.pop("model", model)))
            count_of = quantity.removeprefix("params.")
            formula = getattr(own, quantity) if count_of == quantity else own.params.formula(count_of)
            values.append(float(formula(**{name: value for name, value in inputs.items() if name in QUANTITIES[quantity].inputs})))
        except cm.CostModelError:
            values.append(np.nan)
    return values


# values

NUMBERS = {"batch": st.integers(1, 10**6), "context": st.integers(1, 2_000_000), "new_tokens": st.integers(1, 4_096)}
CHOICES = {
    "precision": st.sampled_from(["bf16", "fp8", "int8", "fp32"]),
    "view": st.sampled_from(["theory", "engine"]),
    "tp": st.sampled_from([1, 2, 16]),
    "attention": st.sampled_from(["causal", "full"]),
    "logits": st.sampled_from(["last", "all"]),
}
FIELDS = {
    "gemma-3-27b": {"local/mixer/sliding_window": st.sampled_from([512, 1024, None]), "local/count": st.sampled_from([10, 52])},
    "deepseek-v3": {"moe/feed_forward/num_experts": st.sampled_from([4, 256]), "hidden_size": st.sampled_from([512, 7168])},
    "llama-3.1-8b": {"layers/mixer/num_key_value_heads": st.sampled_from([1, 3, 8, 32])},
}


def fields_of(model: str) -> dict[str, st.SearchStrategy[Any]]:
    """The strategies for a model's fields, by the names of its own groups."""
    groups = [group.name for group in cm.load(model).layers]
    known = {path: values for path, values in FIELDS[model].items() if "/" not in path or path.split("/")[0] in groups}
    return known or {f"{groups[0]}/mixer/num_key_value_heads": next(iter(FIELDS[model].values()))}


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    model = draw(st.sampled_from(sorted(FIELDS)))
    quantity = draw(st.sampled_from(["cache_bytes", "flops", "decode_flops", "bytes_moved", "weight_bytes", "params.active"]))
    takes = QUANTITIES[quantity].inputs
    known = {name: values for name, values in {**NUMBERS, **CHOICES}.items() if name in takes} | fields_of(model)
    names = draw(st.lists(st.sampled_from(sorted(known)), unique=True, min_size=1, max_size=4))
    names += [name for name in ("context",) if name in takes and name not in names]
    return model, quantity, {name: draw(st.lists(known[name], unique=True, min_size=1, max_size=3)) for name in names}


@given(questions())
@settings(max_examples=60)
def test_values_are_those_of_the_formula_point_by_point(question: tuple[str, str, dict[str, Any]]) -> None:
    model, quantity, grid = question
    expected = point_by_point(model, quantity, grid)
    try:
        found = cm.sweep(model, quantity, grid)
    except cm.CostModelError:
        assert np.isnan(expected).all()  # what is impossible everywhere is refused
        return
    np.testing.assert_allclose(found.frame[quantity], expected, rtol=1e-12)
    assert found.points == len(expected)
    assert found.refused == int(np.isnan(expected).sum())
    assert (found.frame["why"].notna() == np.isnan(expected)).all()
    assert rows_of(found.frame[list(grid)]) == [dict(zip(grid, chosen, strict=True)) for chosen in product(*grid.values())]


@pytest.mark.parametrize("quantity", FORMULAS)
def test_every_formula_can_be_swept(quantity: str) -> None:
    grid = {name: [64, 4_096] for name, one in QUANTITIES[quantity].inputs.items() if one.varies} or {"hidden_size": [2560, 5120]}
    found = cm.sweep("gemma-3-27b", quantity, grid)
    np.testing.assert_allclose(found.frame[quantity], point_by_point("gemma-3-27b", quantity, grid), rtol=1e-12)
    assert found.quantities == {quantity: QUANTITIES[quantity].unit}


def test_blocks_join_without_a_seam() -> None:
    """Long arrays over many blocks, with slow and fast axes, beside numpy alone."""
    found = cm.sweep("deepseek-v3", "cache_bytes", {"batch": [1, 3, 7], "context": range(1, 50_002)})
    batch, context = np.meshgrid([1, 3, 7], np.arange(1, 50_002), indexing="ij")
    assert found.points == 150_003 > 9 * BLOCK_POINTS
    assert np.array_equal(found.frame["cache_bytes"], (70_272 * batch * context).ravel())
    assert np.array_equal(found.frame["context"], context.ravel())


def test_a_million_points_are_quick() -> None:
    cm.sweep("deepseek-v3", "cache_bytes", {"context": [1, 2, 3, 4, 5]})
    grid = {"batch": range(1, 11), "context": range(1, 100_001)}
    best = min(_cpu_seconds(lambda: cm.sweep("deepseek-v3", "cache_bytes", grid)) for _ in range(3))
    assert best < 1.0, best  # 0.1 s on the machine it was written on


def _cpu_seconds(call: Callable[[], Any]) -> float:
    before = time.process_time()
    call()
    return time.process_time() - before


def test_models_and_several_quantities_in_one_sweep() -> None:
    found = cm.sweep(
        None, ["cache_bytes", "params.total"], {"model": ["llama-3.1-8b", "deepseek-v3"], "S": [4096]}, precision="fp8"
    )
    assert found.frame["model"].tolist() == ["llama-3.1-8b", "deepseek-v3"]
    assert found.frame["cache_bytes"].tolist() == [
        cm.load(name).cache_bytes(context=4096, precision="fp8") for name in found.frame["model"]
    ]
    assert found.frame["params.total"].tolist() == [cm.load(name).params.total for name in found.frame["model"]]


def test_a_star_means_every_group_that_has_the_field() -> None:
    found = cm.sweep("gemma-3-27b", "cache_bytes", {"*/mixer/num_key_value_heads": [8, 16]}, context=8192)
    half, whole = found.frame["cache_bytes"]
    assert whole == 2 * half == cm.load("gemma-3-27b").cache_bytes(context=8192)


def test_impossible_points_are_rows_with_a_reason() -> None:
    grid = {"layers/mixer/num_key_value_heads": [8, 3], "new_tokens": [1, 100], "context": [10, 1000]}
    name = f"{cm.load('llama-3.1-8b').layers[0].name}/mixer/num_key_value_heads"
    found = cm.sweep("llama-3.1-8b", "flops", {name: grid.pop("layers/mixer/num_key_value_heads"), **grid})
    why = [row["why"] for row in rows_of(found.frame)]
    assert [reason and "does not divide" in reason for reason in why[4:]] == [True] * 4
    assert why[:4] == [None, None, "new_tokens exceeds context", None]
    assert found.refused == 5
    assert found.remarks[0].startswith("5 of 8 points have no value (the column why says why; first: new_tokens exceeds context")


def test_numpy_pandas_and_generators_are_axes() -> None:
    for values in (
        np.array([1, 5]),
        pd.Series([1, 5]),
        (value for value in (1, 5)),
        np.array([1.0, 5.0]),
        (1, np.int64(5)),
        {1: 0, 5: 0}.keys(),
    ):
        assert cm.sweep("gpt2", "cache_bytes", {"context": values}).frame["context"].tolist() == [1, 5]


# executors


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of an undisturbed sweep."""
    path = tmp_path_factory.mktemp("whole") / "sweep.parquet"
    sweep_worker.sweep(path)
    return path.read_bytes()


def test_threads_and_processes_write_the_same_bytes(tmp_path: Path, whole: bytes) -> None:
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(7) as seven, ProcessPoolExecutor(2, _fresh_processes()) as processes:
        for number, executor in enumerate((one, seven, processes)):
            sweep_worker.sweep(tmp_path / f"{number}.parquet", executor=executor)
            assert (tmp_path / f"{number}.parquet").read_bytes() == whole


def _fresh_processes() -> Any:
    from multiprocessing import get_context

    return get_context("spawn")


class Losing(Executor):
    """Loses calls: at submission, or after it, as executors do whose workers die."""

    def __init__(self, lost: Callable[[int], bool], error: Exception, at_once: bool = False) -> None:
        self.lost, self.error, self.at_once, self.calls = lost, error, at_once, count()
        self.under_way = 0

    def submit(self, fn: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        lost = self.lost(next(self.calls))
        if lost and self.at_once:
            raise self.error
        future: Future[Any] = Future()
        if lost:
            future.set_exception(self.error)
        else:
            future.set_result(fn(*given, **named))
        return future


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("error", [BrokenProcessPool("gone"), CancelledError(), ConnectionResetError("gone")], ids=repr)
@pytest.mark.parametrize(
    "lost", [lambda call: call % 3 == 1, lambda call: True, lambda call: call > 4], ids=["some", "all", "late"]
)
def test_lost_workers_lose_no_block(
    tmp_path: Path, whole: bytes, lost: Callable[[int], bool], error: Exception, at_once: bool
) -> None:
    found = sweep_worker.sweep(tmp_path / "sweep.parquet", executor=Losing(lost, error, at_once))
    assert (tmp_path / "sweep.parquet").read_bytes() == whole
    assert type(error).__name__ in found.notes[0]


def test_a_wrong_block_is_no_lost_worker() -> None:
    with pytest.raises(cm.CostModelError, match=r"^a worker failed \(ModuleNotFoundError: no costmodel\); is costmodel"):
        cm.sweep("gpt2", "cache_bytes", {"context": [1]}, Losing(lambda call: True, ModuleNotFoundError("no costmodel")))


def test_another_version_on_a_worker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
            future: Future[Any] = Future()
            outcome = fn(*given, **named)
            outcome.version = "0.0.1"
            future.set_result(outcome)
            return future

    with Older(1) as executor, pytest.raises(cm.CostModelError, match=r"a worker has costmodel 0\.0\.1, and here is"):
        cm.sweep("gpt2", "cache_bytes", {"context": [1]}, executor)


def test_few_blocks_are_under_way_at_once() -> None:
    class Counting(ThreadPoolExecutor):
        waiting, most = 0, 0

        def submit(self, fn: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
            future = super().submit(fn, *given, **named)
            Counting.waiting += 1
            Counting.most = max(Counting.most, Counting.waiting)
            return future

    def follow(done: int, total: int) -> None:
        Counting.waiting -= done > 0

    with Counting(3) as executor:
        cm.sweep("gpt2", "cache_bytes", {"context": range(1, 40 * BLOCK_POINTS)}, executor, progress=follow)
    assert 1 < Counting.most <= 6


def test_tasks_are_small_whatever_the_axes() -> None:
    import pickle

    question = asked("deepseek-v3", "cache_bytes", {"batch": range(1, 1001), "context": range(1, 1_000_001)}, {})
    assert question.grid.points == 10**9
    sizes = [len(pickle.dumps(question.task(block))) for block in (0, 500, question.grid.blocks - 1)]
    assert max(sizes) < 200_000
    last = evaluate_block(pickle.loads(pickle.dumps(question.task(question.grid.blocks - 1))))  # noqa: S301 - our own
    assert last.values["cache_bytes"][-1] == 70_272 * 1000 * 1_000_000


# Dask, for real

DASK = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore:.*distributed.*", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    ) as cluster:
        yield cluster


@pytest.mark.slow
@DASK
def test_two_dask_workers_write_the_same_bytes(tmp_path: Path, whole: bytes, cluster: Any) -> None:
    from distributed import Client

    with Client(cluster, set_as_default=False) as client:
        found = sweep_worker.sweep(tmp_path / "sweep.parquet", executor=client.get_executor())
        assert len(client.run(os.getpid)) == 2
    assert (tmp_path / "sweep.parquet").read_bytes() == whole
    assert found.notes == ()


@pytest.mark.slow
@DASK
def test_the_command_takes_a_scheduler(tmp_path: Path, cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sweep.parquet"
    grid = ["--grid", "batch=1,4", "--grid", "context=1..40000"]
    assert (
        command(capsys, "sweep", "gpt2", "cache_bytes", *grid, "--scheduler", cluster.scheduler_address, "--out", str(path))[0] == 0
    )
    there = path.read_bytes()
    path.unlink()
    assert command(capsys, "sweep", "gpt2", "cache_bytes", *grid, "--out", str(path))[0] == 0
    assert path.read_bytes() == there


@pytest.mark.slow
@DASK
def test_a_killed_dask_worker_loses_nothing(tmp_path: Path, whole: bytes, cluster: Any) -> None:
    from distributed import Client

    with Client(cluster, set_as_default=False) as client:
        victim, killed = next(iter(client.run(os.getpid).values())), []

        def kill(done: int, total: int) -> None:
            if done > BLOCK_POINTS and not killed:
                killed.append(victim)
                os.kill(victim, signal.SIGKILL)

        sweep_worker.sweep(tmp_path / "sweep.parquet", executor=client.get_executor(), progress=kill)
    assert killed
    assert (tmp_path / "sweep.parquet").read_bytes() == whole


@pytest.mark.slow
@DASK
def test_a_scheduler_that_goes_leaves_the_rest_to_us(tmp_path: Path, whole: bytes) -> None:
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1")
    client, gone = Client(cluster, set_as_default=False), []

    def close(done: int, total: int) -> None:
        if done > BLOCK_POINTS and not gone:
            gone.append(done)
            cluster.close()

    found = sweep_worker.sweep(tmp_path / "sweep.parquet", executor=client.get_executor(), progress=close)
    client.close(timeout=1)
    assert (tmp_path / "sweep.parquet").read_bytes() == whole
    assert all("evaluated again" in note for note in found.notes)  # none where the worker had done all before it went


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "foo bar", "nowhere", "tcp://127.0.0.1:", "smoke://127.0.0.1:8786"])
@DASK
def test_a_dead_scheduler_is_one_line(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    status, out, err = command(capsys, "sweep", "gpt2", "cache_bytes", "--grid", "context=1k", "--scheduler", address)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: no Dask scheduler answers at '{address}'")
    assert err.count("\n") == 1
    assert time.monotonic() - begun < 20


def test_other_executors_are_not_taken_for_dasks() -> None:
    with ThreadPoolExecutor(1) as threads:
        assert DaskExecutor.of(threads) is None


# kills


def killed_at(path: Path, call: str, number: int) -> None:
    ended = run_python(str(WORKER), str(path), call, str(number))
    assert ended.returncode == -signal.SIGKILL


KILLS = [
    ("block", 1), ("block", 2), ("block", 6), ("fsync", 1), ("fsync", 2), ("fsync", 7), ("replace", 5), ("fsync", 12),
    ("replace", 12), ("unlink", 1), ("unlink", 5), ("rmdir", 1),
]  # fmt: skip
"""The question is written first, then ten parts, then the file: its own is the twelfth name."""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.slow
@pytest.mark.parametrize(("call", "number"), KILLS)
def test_a_kill_at_any_moment_loses_and_doubles_nothing(tmp_path: Path, whole: bytes, call: str, number: int) -> None:
    path = tmp_path / "sweep.parquet"
    killed_at(path, call, number)
    (parts,) = (*tmp_path.glob("*.parts"), None)[:1]
    kept = len(list(parts.glob("part-*"))) if parts else 0
    heard: list[int] = []
    sweep_worker.sweep(path, progress=lambda done, total: heard.append(done))
    assert path.read_bytes() == whole
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    if heard and kept:  # what was done is not done again
        assert heard[0] >= (kept - 1) * BLOCK_POINTS


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.slow
def test_a_sweep_killed_again_and_again_comes_to_its_end(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "sweep.parquet"
    for run in range(3):
        killed_at(path, "block", 4)  # each run keeps three blocks more
        assert len(list(tmp_path.glob("*.parts/part-*"))) == 3 * (run + 1)
    sweep_worker.sweep(path)
    assert path.read_bytes() == whole


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_kill_from_outside(tmp_path: Path, whole: bytes, after: int) -> None:
    path = tmp_path / "sweep.parquet"
    running = subprocess.Popen([sys.executable, str(WORKER), str(path), "block", "999"], env=sweep_worker.environment())  # noqa: S603
    while len(list(tmp_path.glob("*.parts/part-*"))) < after and running.poll() is None:
        time.sleep(0.001)
    running.kill()
    running.wait()
    sweep_worker.sweep(path)
    assert path.read_bytes() == whole


def test_half_written_and_spoilt_parts_are_made_again(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "sweep.parquet"
    stop = threading.Event()
    with pytest.raises(Cancelled):
        sweep_worker.sweep(
            path, executor=ThreadPoolExecutor(1), cancel=stop, progress=lambda done, total: stop.set() if done > 70_000 else None
        )
    parts = sorted(tmp_path.glob("*.parts/part-*"))
    parts[0].write_bytes(parts[0].read_bytes()[:100])  # as a power cut leaves it
    parts[1].with_name(f".{parts[1].name}").write_bytes(b"PAR1half")
    sweep_worker.sweep(path)
    assert path.read_bytes() == whole


def test_a_finished_sweep_is_not_done_again(tmp_path: Path) -> None:
    path = tmp_path / "sweep.parquet"
    first = cm.sweep("gpt2", "cache_bytes", LINES, path=path)
    before = path.stat().st_mtime_ns
    again = cm.sweep("gpt2", "cache_bytes", LINES, Losing(lambda call: True, AssertionError("evaluated again")), path)
    assert path.stat().st_mtime_ns == before
    assert again.frame.equals(first.frame)


def test_two_sweeps_do_not_share_a_path(tmp_path: Path) -> None:
    path, refused = tmp_path / "sweep.parquet", []

    def second(done: int, total: int) -> None:
        if not refused:
            with pytest.raises(cm.CostModelError, match="another sweep is at work in") as error:
                cm.sweep("gpt2", "cache_bytes", LINES, path=path)
            refused.append(error)
            other = run_python("-c", SAME, str(path))
            assert "another sweep is at work in" in other.stderr

    cm.sweep("gpt2", "cache_bytes", LINES, path=path, progress=second)
    assert refused
    assert pq.read_table(path).num_rows == 80_000


# files


def test_the_file_has_the_rows_of_memory(tmp_path: Path) -> None:
    grid = {
        "local/mixer/sliding_window": [512, None],
        "view": ["theory", "engine"],
        "evict_windows": [False, True],
        "context": [5, 5_000],
    }
    held = cm.sweep("gemma-3-27b", "cache_bytes", grid)
    filed = cm.sweep("gemma-3-27b", "cache_bytes", grid, path=tmp_path / "sweep.parquet")
    pd.testing.assert_frame_equal(held.frame, filed.frame)
    assert (held.refused, held.reason, held.remarks) == (filed.refused, filed.reason, filed.remarks)
    assert held.refused == 4  # evict_windows belongs to the engine view
    table = pq.read_table(tmp_path / "sweep.parquet")
    assert table.schema.types == [pa.int64(), pa.string(), pa.bool_(), pa.int64(), pa.float64(), pa.string()]
    assert json.loads(table.schema.metadata[b"costmodel"])["units"] == {"cache_bytes": "bytes"}


@pytest.mark.slow
def test_memory_does_not_grow_with_points(tmp_path: Path) -> None:
    script = (
        "import sys, resource, costmodel as cm\n"
        "cm.sweep('gemma-3-27b', ['cache_bytes', 'decode_flops'],"
        " {'batch': range(1, int(sys.argv[1]) + 1), 'context': range(1, 100_001)}, path=sys.argv[2])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )

    def peak(batches: int) -> float:
        """MiB at the most, of a process that sweeps so many hundred thousand points."""
        place = str(tmp_path / f"{batches}.parquet")
        ran = run_python("-c", script, str(batches), place)
        return int(ran.stdout) / 1024

    few, many = peak(10), peak(40)
    assert many < few + 48, (few, many)


def test_cancelling_keeps_what_is_done(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "sweep.parquet"
    seen: list[int] = []
    with pytest.raises(Cancelled, match=r"the sweep was cancelled; what is done is kept in '.*'; run the same again to go on"):
        sweep_worker.sweep(path, progress=lambda done, total: seen.append(done), cancel=lambda: len(seen) > 3)
    assert not path.exists()
    heard: list[tuple[int, int]] = []
    sweep_worker.sweep(path, progress=lambda done, total: heard.append((done, total)))
    assert heard[0][0] >= 3 * BLOCK_POINTS - 1
    assert heard[-1] == (160_000, 160_000)
    assert heard == sorted(heard)
    assert path.read_bytes() == whole


def test_cancelling_in_memory_keeps_nothing() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled, match="the sweep was cancelled; nothing was kept"):
        cm.sweep("gpt2", "cache_bytes", LINES, cancel=stop)
