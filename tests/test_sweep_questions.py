"""Questions to a sweep: axes as text, the command line, and one line for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import costmodel as cm
from costmodel import tables
from costmodel.sweeping import grids, tasks
from costmodel.sweeping.clusters import dask_executor
from costmodel.sweeping.grids import read_grid
from costmodel.sweeping.sweeps import Cancelled, sweep_table
from costmodel.sweeping.tasks import QUANTITIES
from tests.sweep_worker import LINES, command, environment, rows_of, run_python

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown quantity": ({"quantity": "cache_byte"}, "no quantity 'cache_byte' to sweep; did you mean cache_bytes?"),
    "no quantity": ({"quantity": []}, "quantity got no value; give from 1 to 10,000,000"),
    "quantity twice": ({"quantity": ["flops", "flops"]}, "flops is asked for twice; give each quantity once"),
    "quantity a number": ({"quantity": 5}, "quantity got 5; give a list of values"),
    "unknown key": ({"grid": {"contxt": [1]}}, "cache_bytes takes no 'contxt'; did you mean context?"),
    "bare field": ({"grid": {"sliding_window": [1]}}, "did you mean */mixer/sliding_window?"),
    "unknown path": ({"grid": {"local/mixer/window": [1]}}, "cache_bytes takes no 'local/mixer/window'; did you mean local/mixer/"),
    "kind": ({"grid": {"local/mixer/kind": ["mla"]}}, "cache_bytes takes no 'local/mixer/kind'"),
    "key no text": ({"grid": {5: [1]}}, "cache_bytes takes no 5"),
    "no grid": ({"grid": {}}, "grid got a dict; give inputs and their values"),
    "grid a list": ({"grid": [1]}, "grid got a list; give inputs and their values"),
    "no model": ({"model": None}, "sweep got no model; give one, or models in the grid"),
    "unknown model": ({"model": "gema-3-27b"}, "no preset 'gema-3-27b'; did you mean gemma-3"),
    "unknown model in grid": ({"grid": {"model": ["gpt3"], "context": [1]}}, "no preset 'gpt3'"),
    "model not among": ({"grid": {"model": ["gpt2"], "context": [1]}}, "the grid names models without gemma-3-27b"),
    "models twice": ({"model": None, "grid": {"model": ["gpt2", "gpt2"], "context": [1]}}, "model has 'gpt2' more than once"),
    "empty": ({"grid": {"context": []}}, "context got no value; give from 1 to 10,000,000"),
    "scalar": ({"grid": {"context": 4096}}, "context got 4096; give a list of values, such as [4096]"),
    "text": ({"grid": {"context": "4096"}}, "context got '4096'; give a list of values"),
    "nan": ({"grid": {"context": [1, float("nan")]}}, "context got nan; give whole numbers from 1 to 1000000000000"),
    "inf": ({"grid": {"context": np.array([1, np.inf])}}, "context got inf; give whole numbers"),
    "bool": ({"grid": {"context": [True]}}, "context got True; give whole numbers"),
    "bools": ({"grid": {"context": np.array([True, False])}}, "context got True; give whole numbers"),
    "negative": ({"grid": {"batch": [-1], "context": [1]}}, "batch got -1; give whole numbers"),
    "zero": ({"grid": {"context": range(3)}}, "context got 0; give whole numbers"),
    "half": ({"grid": {"context": [1.5]}}, "context got 1.5; give whole numbers"),
    "huge": ({"grid": {"context": [10**30]}}, "context got 1000000000000000000000000000000; give whole numbers"),
    "none": ({"grid": {"context": [None]}}, "context got None; give whole numbers"),
    "a list in a list": ({"grid": {"context": [[1]]}}, "context got a list; give whole numbers"),
    "two dimensions": (
        {"grid": {"context": np.ones((2, 2))}},
        "context got an array of shape [2, 2]; give one of a single dimension",
    ),
    "twice": ({"grid": {"context": [1, 2, 1]}}, "context has 1 more than once; give each value once"),
    "option twice": ({"grid": {"context": [1], "precision": ["fp8", "fp8"]}}, "precision has 'fp8' more than once"),
    "endless": ({"grid": {"context": count(1)}}, "context got more than 10,000,000 values"),
    "long range": ({"grid": {"context": range(1, 10**15)}}, "context got more than 10,000,000 values"),
    "too many": ({"grid": {"context": range(1, 10**6), "batch": range(1, 2_000)}}, "the grid has 999,999 context x 1,999 batch ="),
    "too many for memory": ({"grid": {"context": range(1, 10**6), "batch": range(1, 200)}}, "are too many for memory; give a path"),
    "unknown precision": (
        {"grid": {"context": [1], "precision": ["bf16", "fp9"]}},
        "cache cannot be stored as 'fp9'; did you mean fp8?",
    ),
    "precision no text": ({"grid": {"context": [1], "precision": [8]}}, "precision got 8; it should be a valid string"),
    "unknown view": ({"grid": {"context": [1], "view": ["engin"]}}, "view got 'engin'; it should be 'theory' or 'engine'"),
    "tp zero": ({"grid": {"context": [1], "tp": [0]}}, "tp got 0; it should be greater than or equal to 1"),
    "heads zero": (
        {"grid": {"context": [1], "local/mixer/num_key_value_heads": [0]}},
        "local/mixer/num_key_value_heads got 0; it should",
    ),
    "heads nan": ({"grid": {"context": [1], "hidden_size": [float("nan")]}}, "hidden_size got nan; it should be a valid integer"),
    "heads bool": ({"grid": {"context": [1], "hidden_size": [True]}}, "hidden_size got True; it should be a valid integer"),
    "count": ({"grid": {"context": [1], "local/count": [-1]}}, "local/count got -1; it should be greater than or equal to 1"),
    "part": ({"grid": {"context": [1], "local/mixer": ["nowhere/at"]}}, "no preset 'nowhere' to take layers from"),
    "needs": ({"grid": {"batch": [1]}}, "cache_bytes needs context; add it to the grid, or give context=..."),
    "given twice": ({"fixed": {"context": 5}}, "context is given twice; leave it in the grid, or give its one value"),
    "letter twice": ({"grid": {"context": [1], "S": [2]}}, "context is given twice; give context or S"),
    "fixed nan": ({"fixed": {"batch": float("nan")}}, "batch got nan; give whole numbers"),
    "fixed unknown": ({"fixed": {"bach": 4}}, "cache_bytes takes no 'bach'; did you mean batch?"),
    "impossible everywhere": ({"fixed": {"tp": 4}}, "tp belongs to the engine view; add view='engine'"),
    "executor": ({"executor": 5}, "executor got 5; give an Executor of concurrent.futures"),
    "progress": ({"progress": 5}, "progress got 5; give a function of (done, total)"),
    "cancel": ({"cancel": 5}, "cancel got 5; give a function, or an Event of threading"),
    "path no parquet": (
        {"path": "sweep.csv"},
        "a sweep is written as Parquet, not to 'sweep.csv'; give a path that ends in .parquet",
    ),
    "path a number": ({"path": 5}, "a sweep is written as Parquet, not to 5"),
    "path nowhere": (
        {"path": "/nowhere/at/all/sweep.parquet"},
        "'/nowhere/at/all/sweep.parquet' cannot be written: No such file or directory",
    ),
    "path a null": ({"path": "a\0b.parquet"}, "a sweep is written as Parquet, not to"),
    "path too long": ({"path": f"/tmp/{'x' * 300}.parquet"}, "cannot be written: File name too long"),  # noqa: S108 - nothing is written
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str) -> None:
    changes, told = BAD[case]
    question = {"model": "gemma-3-27b", "quantity": "cache_bytes", "grid": {"context": [4096]}, **changes}
    fixed = question.pop("fixed", {})
    with pytest.raises(cm.CostModelError) as error:
        cm.sweep(**question, **fixed)
    assert told in str(error.value)
    assert str(error.value).isprintable()


def test_the_place_of_another_question_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sweep.parquet"
    cm.sweep("gpt2", "cache_bytes", LINES, path=path)
    with pytest.raises(cm.CostModelError, match="has the answer to another question; choose another path, or delete it"):
        cm.sweep("gpt2", "cache_bytes", {"context": [1]}, path=path)
    other = tmp_path / "other.parquet"
    with pytest.raises(Cancelled):
        cm.sweep("gpt2", "cache_bytes", LINES, path=other, cancel=lambda: True)
    for changed, question in {"model": ("llama-3.1-8b", "cache_bytes"), "quantities": ("gpt2", "prefill_flops")}.items():
        with pytest.raises(cm.CostModelError, match=rf"holds another sweep \(of other {changed}\)"):
            cm.sweep(*question, LINES, path=other)
    with pytest.raises(cm.CostModelError, match=r"holds another sweep \(of other grid\)"):
        cm.sweep("gpt2", "cache_bytes", {**LINES, "batch": [4, 1]}, path=other)
    with pytest.raises(cm.CostModelError, match=r"holds another sweep \(of other fixed\)"):
        cm.sweep("gpt2", "cache_bytes", LINES, path=other, precision="fp8")
    with pytest.raises(cm.CostModelError, match=r"holds another sweep \(of other order\)"):
        cm.sweep("gpt2", "cache_bytes", dict(reversed(LINES.items())), path=other)


def test_what_stands_in_the_way_is_left_alone(tmp_path: Path) -> None:
    for name, content in {"text.parquet": b"hello", "plain.parquet": None}.items():
        path = tmp_path / name
        path.write_bytes(content) if content else pq.write_table(pa.table({"x": [1]}), path)
        before = path.read_bytes()
        with pytest.raises(cm.CostModelError, match="is there and is no sweep; choose another path, or delete it"):
            cm.sweep("gpt2", "cache_bytes", LINES, path=path)
        assert path.read_bytes() == before
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(cm.CostModelError, match="is no ordinary file"):
        cm.sweep("gpt2", "cache_bytes", LINES, path=tmp_path / "folder.parquet")
    taken = tmp_path / "taken.parquet.parts"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    with pytest.raises(cm.CostModelError, match="holds other files; choose another path, or delete that folder"):
        cm.sweep("gpt2", "cache_bytes", LINES, path=tmp_path / "taken.parquet")
    assert (taken / "mine.txt").read_text() == "mine"
    (tmp_path / "file.parquet.parts").write_text("")
    with pytest.raises(cm.CostModelError, match="cannot be written: File exists"):
        cm.sweep("gpt2", "cache_bytes", LINES, path=tmp_path / "file.parquet")


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(cm.CostModelError, match="cannot be written: No space left on device; choose another place"):
        cm.sweep("gpt2", "cache_bytes", LINES, path=tmp_path / "sweep.parquet")


@pytest.mark.parametrize(("missing", "ask"), [
    ("pyarrow", lambda path: cm.sweep("gpt2", "cache_bytes", LINES, path=path)),
    ("distributed", lambda path: dask_executor("tcp://127.0.0.1:1").__enter__()),
])  # fmt: skip
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, ask: Callable[[Path], Any]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(cm.CostModelError, match=r"which is not installed; run: pip install 'costmodel\[sweep\]'$"):
        ask(tmp_path / "sweep.parquet")


def test_neither_the_package_nor_a_sweep_in_memory_needs_the_extra() -> None:
    script = (
        "import sys, costmodel as cm\n"
        "cm.sweep('gpt2', 'cache_bytes', {'context': [1, 2]})\n"
        "print(sorted({'pyarrow', 'dask', 'distributed', 'pandas'} & set(sys.modules)))"
    )
    ran = run_python("-c", script)
    assert ran.stdout == "[]\n"


# text and the command line


AXES: dict[str, list[Any]] = {
    "batch=1,2,4": [1, 2, 4],
    "batch=3..7": [3, 4, 5, 6, 7],
    "context=1k..4k:1k": [1024, 2048, 3072, 4096],
    "context=1k..1M:log:3": [1024, 32_768, 1_048_576],
    "context=1..4:log:50": [1, 2, 3, 4],
    "context=10..20:lin:3": [10, 15, 20],
    "context=7..7:log:1": [7],
    "local/mixer/sliding_window=512,none": [512, None],
    "evict_windows=yes,no": [True, False],
    "precision=bf16,fp8": ["bf16", "fp8"],
    "rate=0.5,1e3": [0.5, 1000],
    "rate=0.25..0.75:lin:3": [0.25, 0.5, 0.75],
    "context=-4": [-4],
    "context=1k, 2k": [1024, 2048],
}


@pytest.mark.parametrize("text", AXES)
def test_axes_as_text(text: str) -> None:
    (values,) = read_grid([text]).values()
    assert values == AXES[text]
    assert [type(value) for value in values] == [type(value) for value in AXES[text]]


@pytest.mark.parametrize(("text", "told"), {
    "context": "'context' is no axis; give a name and values, such as batch=1,2,4",
    "=1": "'=1' is no axis",
    "context=": "'context=' is no axis",
    "context=1,,2": "context has an empty value",
    "context=4..1": "context got '4..1'; give A..B, A..B:STEP, A..B:log:N or A..B:lin:N with A at most B",
    "context=1..4:log:0": "context got '1..4:log:0'; give A..B",
    "context=1..4:log:x": "context got '1..4:log:x'; give A..B",
    "context=1..4:exp:5": "context got '1..4:exp:5'; give A..B",
    "context=0..4:log:5": "context got '0..4:log:5'; give A..B",
    "context=1..4:0": "context got '1..4:0'; give A..B",
    "context=1..2.5": "context got '1..2.5'; give A..B",
    "context=1..900000000000": "context got '1..900000000000', 900,000,000,000 values; give at most 10,000,000",
}.items())  # fmt: skip
def test_axes_that_are_none(text: str, told: str) -> None:
    with pytest.raises(cm.CostModelError) as error:
        read_grid([text])
    assert told in str(error.value)


@pytest.mark.parametrize("form", tables.FORMATS)
def test_the_command_prints_every_format(capsys: pytest.CaptureFixture[str], form: str) -> None:
    grid = ("--grid", "local/mixer/sliding_window=512,none", "-g", "context=1k,128k")
    status, out, err = command(
        capsys, "sweep", "gemma-3-27b", "cache_bytes,params.total", *grid, "--workers", "2", "--format", form
    )
    assert (status, err) == (0, "")
    if form == "json":
        rows = json.loads(out)
        total = cm.load("gemma-3-27b").params.total
        assert list(rows[1].values()) == [512, 131_072, 10_955_522_048, total]
        assert list(rows[1]) == ["local/mixer/sliding_window", "context", "cache_bytes", "params.total"]
        assert rows[2]["local/mixer/sliding_window"] is None
    else:
        assert {"csv": "10955522048", "table": "10.2 GiB", "md": "10.2 GiB"}[form] in out


def test_impossible_points_are_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    grid = ("--grid", "local/mixer/num_key_value_heads=16,3", "-g", "context=1k")
    status, out, err = command(capsys, "sweep", "gemma-3-27b", "cache_bytes", *grid, "--format", "csv")
    assert status == 0
    assert out.splitlines()[2].startswith("3,1024,,gemma-3-27b with changes: ")
    assert err.startswith("note: 1 of 2 points have no value (the column why says why; first: ")


def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sweep.parquet"
    status, out, err = command(capsys, "sweep", "gpt2", "cache_bytes", "-g", "context=1..40000", "-g", "batch=1,4", "-o", str(path))
    assert (status, out) == (0, "")
    assert err.startswith("wrote ")
    assert err.endswith(": 80,000 points\n")
    filed = path.read_bytes()
    path.unlink()
    cm.sweep("gpt2", "cache_bytes", LINES, path=path)
    assert path.read_bytes() == filed


@pytest.mark.parametrize(("arguments", "told"), [
    (["-g", "context=1k", "-g", "context=2k"], "context is given twice; give all its values in one list"),
    (["-g", "context=1..1000000"], "1,000,000 rows are too many to print; write them with --out FILE.parquet, or ask for less"),
    (["-g", "context=nan"], "context got 'nan'; give whole numbers"),
    (["-g", "context=1k", "--workers", "-1"], "workers got -1; give a whole number from 1 to 1024"),
    (["-g", "context=1k", "--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], "give --scheduler or --workers, not both"),
    (["-g", "context=1k", "--out", "sweep.csv"], "a sweep is written as Parquet, not to "),
    ([], "Missing option '--grid'"),
])  # fmt: skip
def test_the_command_refuses_in_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    status, out, err = command(capsys, "sweep", "gpt2", "cache_bytes", *arguments)
    assert (status, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a process")
@pytest.mark.slow
def test_an_interrupt_leaves_what_is_done_and_says_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "sweep.parquet"
    arguments = [
        "sweep",
        "gemma-3-27b",
        "cache_bytes,prefill_flops,decode_flops",
        "-g",
        "batch=1..48",
        "-g",
        "context=1..50000",
        "-o",
        str(path),
    ]
    started = [sys.executable, "-m", "costmodel", *arguments]
    running = subprocess.Popen(started, stderr=subprocess.PIPE, text=True, env=environment())  # noqa: S603
    while not list(tmp_path.glob("*.parts/part-*")) and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted: what is done is kept in ")
    assert err.endswith("; run the same command to go on\n")
    assert "Traceback" not in err
    ended = run_python("-m", "costmodel", *arguments)
    assert ended.returncode == 0
    assert pq.read_metadata(path).num_rows == 2_400_000


def test_texts_start_no_formula_in_a_spreadsheet() -> None:
    axis = grids.Axis("algorithm", grids.Kind.CHOICE, ("=1+1",), ("=1+1",))
    assert axis.column().tolist() == ["=1+1"]
    table = tables.Table("sweep", "Sweep", [{"algorithm": axis.column()[0], "cache_bytes": 1}])
    assert tables.as_csv([table]).splitlines()[1] == "'=1+1,1"


def test_new_quantities_are_rows_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a time or a price needs: numbers that need not be whole, names, and points without a value."""

    def block(model: cm.Architecture, given: dict[str, Any]) -> Any:
        rate = np.asarray(given["rate"], np.float64)
        if given.get("on", "h200") == "cpu":
            raise cm.CostModelError("no such rate on a cpu")
        return np.where(rate < 1, rate * model.hidden_size, np.nan)

    inputs = {"rate": tasks.Input(whole=False), "on": tasks.Input("h200", varies=False)}
    monkeypatch.setitem(QUANTITIES, "made", tasks.Quantity("made", "s", inputs, block, "the rate is too high"))
    found = cm.sweep("gpt2", "made", {"on": ["h200", "cpu"], "rate": [0.25, 0, 1.5]})
    assert found.frame["made"].tolist()[:2] == [192.0, 0.0]
    assert rows_of(found.frame)[2]["why"] == "the rate is too high"
    assert [row["why"] for row in rows_of(found.frame)[3:]] == ["no such rate on a cpu"] * 3
    for value in (-1, float("nan"), float("inf"), "x", True):
        with pytest.raises(cm.CostModelError, match=r"^rate got .*; give numbers from 0 to 1000000000000$"):
            cm.sweep("gpt2", "made", {"rate": [value]})
    assert sweep_table(found).rows[2] == {"on": "h200", "rate": 1.5, "made": None, "why": "the rate is too high"}
