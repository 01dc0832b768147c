"""Reports: their numbers are the library's, hostile text comes out inert, and a file is replaced whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import re
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

import costmodel as cm
from costmodel.answers.summary import summary_tables
from costmodel.reporting import CONTEXTS, report_data
from costmodel.reporting.rows import model_data
from costmodel.scenario import Scenario
from costmodel.tables import as_csv, as_json, as_markdown, print_tables

HOSTILE = {
    "html": "<script>alert(1)</script><img src=x onerror=y> &lt;b&gt;",
    "markdown": "**bold** | cell | `code` [link](http://example.org) ![i](x) $\\alpha$ # ~~x~~ \\",
    "formula": "=cmd|' /C calc'!A0",
    "lines": "one\ntwo\r\nthree\u2028four\u2029five\x85six\x0bseven",
    "control": "a\x1b[31mred\x07\x00\x9b2J\x7f",
    "bidi": "a\u202eb\u2066c\u2069d\u200fe\ufefff",
    "long": "x" * 10_000,
}
INERT = re.compile(r"(?<!\\)[<|`\[!$]")
"""A character that Markdown or HTML would take for markup: no backslash in front of it."""


def no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} in JSON")


def hostile(text: str) -> cm.Architecture:
    """GPT-2 with the text wherever an architecture holds free text."""
    model = cm.load("gpt2")
    row = model.reference[0].model_copy(update={"convention": text, "source": text})
    return model.model_copy(update={"title": text, "maker": text, "source": text, "notes": (text,), "reference": (row,)})


# numbers


@pytest.mark.parametrize("name", cm.presets())
def test_json_has_the_librarys_numbers(name: str) -> None:
    model, at = cm.load(name), {"context": 2048, "batch": 2}
    data: dict[str, Any] = json.loads(json.dumps(model_data(model, Scenario(models=(name,), **at), []), allow_nan=False))
    assert {key: data["params"][key] for key in model.params.NAMES} == model.params.as_dict()
    assert sum(data["params"]["by_part"].values()) == model.params.total
    assert data["weight_bytes"]["fp8"] == model.weight_bytes(precision="fp8")
    assert sum(data["prefill_flops_by_part"].values()) == model.prefill_flops(**at)
    assert sum(data["decode_flops_by_part"].values()) == model.decode_flops(**at)
    assert sum(data["bytes_moved_by_part"].values()) == pytest.approx(model.bytes_moved(new_tokens=1, **at), rel=1e-12)
    for cache, flops in zip(data["cache"], data["flops"], strict=True):
        there = {"context": cache["context"], "batch": 2}
        assert cache["theory_bytes"] == model.cache_bytes(**there)
        assert cache["engine_bytes"] == model.cache_bytes(**there, view="engine")
        assert flops["prefill_flops"] == model.prefill_flops(**there)
        assert flops["decode_flops"] == model.decode_flops(**there)
    lengths = [row["context"] for row in data["cache"]]
    assert lengths == sorted(set(lengths))
    assert 2048 in lengths
    assert len(data["references"]) == len(model.reference)
    assert all(row["reproduced"] for row in data["references"])
    fits = next(row for row in data["capacity"] if row["accelerator"] == "h200")
    assert fits["longest_context"] == cm.capacity(model, "h200", 16, **at).longest_context


WHOLE = ("deepseek-v3", "gemma-3-27b", "qwen3-next-80b-a3b", "trm-arc", "gpt2", "llada-8b")
"""Models whose whole reports are read: one of each kind."""


@pytest.mark.parametrize("name", WHOLE)
def test_markdown_is_a_whole_document(name: str) -> None:
    text, model = cm.report(name), cm.load(name)
    assert text.startswith(f"# {model.title}\n")
    assert text.endswith("\n")
    assert f"costmodel report {name} --context 131072" in text
    assert "(off)" not in text
    assert not re.search(r"\bnan\b", text)
    prose = [line for line in text.splitlines() if not re.match(r"\[[a-z]+\]: data:image/svg", line)]
    for line in prose:
        assert len(line) < 6_000
    widths = {
        len(re.split(r"(?<!\\)\|", line)) for line in text.split("### Layers\n\n|")[1].split("###")[0].splitlines()[1:] if line
    }
    assert len(widths) == 1


def test_context_beyond_the_limit_is_listed_and_remarked() -> None:
    data = report_data(cm.load("gpt2"), 2048)
    assert [row["context"] for row in data["cache"]] == [2048]
    assert data["remarks"] == ["context 2,048 is beyond the published limit of 1,024 tokens"]
    assert [row["context"] for row in report_data(cm.load("llama-3.1-8b"), 4096)["cache"]] == list(CONTEXTS[:3])


def test_equal_reports_for_equal_inputs() -> None:
    model = cm.load("gpt2")
    assert cm.report("gpt2") == cm.report(model) == cm.report("gpt2", "md", None, 131_072, 1)
    for number in (np.int64(512), np.int8(64), 512.0, np.float32(512)):
        assert cm.report("gpt2", "json", context=number) == cm.report("gpt2", "json", context=int(number))  # type: ignore[arg-type]


# hostile text


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_inert_in_markdown(text: str) -> None:
    plain, report = cm.report(hostile("plain"), context=512), cm.report(hostile(text), context=512)
    assert all(line.isprintable() for line in report.split("\n"))
    assert report.count("\n") == plain.count("\n")
    quoted = report.replace("```math", "").replace("```", "")
    for line in quoted.split("\n"):
        if line.startswith(("# ", "> ")):
            assert not INERT.search(line)
    header = next(line for line in report.split("\n") if line.startswith("| quantity"))
    row = next(line for line in report.split("\n") if line.startswith("| params.total"))
    assert len(re.split(r"(?<!\\)\|", row)) == len(re.split(r"(?<!\\)\|", header))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_kept_in_json_and_reaches_no_terminal(text: str) -> None:
    report = cm.report(hostile(text), "json", context=512)
    assert json.loads(report)["title"] == text
    assert report.isascii()
    assert all(line.isprintable() for line in report.split("\n"))


@pytest.mark.parametrize("text", [*HOSTILE.values(), "=1+1", "+1", "-1", "@x", "\t=1", " \u202e=1"])
def test_hostile_text_is_inert_in_tables(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = hostile(text)
    tables = summary_tables(model, 512, 1, "bf16", "bf16")
    rows = [{"text": text, "number": -5}]
    tables.append(type(tables[0])("texts", text, rows))
    print_tables(tables)
    assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))
    sheet = as_csv(tables)
    for row in csv.reader(StringIO(sheet)):
        assert all(cell.isprintable() for cell in row)
        assert all(cell == "-5" or not cell.lstrip().startswith(("=", "+", "-", "@")) for cell in row)
    assert not any(INERT.search(line) for line in as_markdown(tables).split("\n") if not line.startswith("|"))
    assert json.loads(as_json(rows)) == rows


# files


@pytest.mark.parametrize("form", ["md", "json"])
def test_file_holds_what_is_returned(tmp_path: Path, form: str) -> None:
    path = tmp_path / "report"
    path.write_text("old")
    text = cm.report("gpt2", form, path)
    assert path.read_bytes() == text.encode()
    assert cm.report("gpt2", form, str(path)) == text
    assert cm.report("gpt2", form, os.fsencode(path).decode()) == text
    assert [file.name for file in tmp_path.iterdir()] == ["report"]


def test_longest_name_and_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / ("n" * 255), tmp_path / "link"
    link.symlink_to(path.name)
    text = cm.report("gpt2", path=link)
    assert link.is_symlink()
    assert path.read_text() == text


def fail(*arguments: object, **named: object) -> NoReturn:
    raise OSError(28, "No space left on device")


def interrupt(*arguments: object, **named: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", [(os, "fsync"), (os, "replace"), (Path, "chmod")], ids=["fsync", "replace", "chmod"])
@pytest.mark.parametrize("trouble", [fail, interrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str], trouble: Any
) -> None:
    path = tmp_path / "report.md"
    path.write_text("old")
    monkeypatch.setattr(*step, trouble)
    with pytest.raises(cm.CostModelError if trouble is fail else KeyboardInterrupt) as raised:
        cm.report("gpt2", path=path)
    monkeypatch.undo()
    if trouble is fail:
        assert "cannot be written: No space left on device" in str(raised.value)
        assert str(raised.value).isprintable()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.md"]


def test_a_write_that_fails_halfway_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.md"
    path.write_text("old")
    make = tempfile.NamedTemporaryFile

    def full(*arguments: Any, **named: Any) -> Any:
        file = make(*arguments, **named)
        monkeypatch.setattr(file, "flush", fail)
        return file

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    with pytest.raises(cm.CostModelError, match="No space left"):
        cm.report("gpt2", path=path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.md"]


def test_only_ordinary_files_are_replaced(tmp_path: Path) -> None:
    pipe, loop = tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to("loop")
    for path in (
        tmp_path,
        pipe,
        loop,
        tmp_path / "missing" / "report.md",
        tmp_path / "nul\0",
        tmp_path / ("n" * 256),
        tmp_path / "\ud800",
    ):
        with pytest.raises(cm.CostModelError) as raised:
            cm.report("gpt2", path=path)
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) < 400
    assert pipe.is_fifo()
    assert loop.is_symlink()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["loop", "pipe"]
