"""Every format of a report: equal bytes, well formed, hostile text inert, live cells that compute, files whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import cache
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

import pytest

import costmodel as cm
from costmodel import files
from costmodel.calibration.store import read_calibration
from costmodel.catalog import calibration_file, parse
from costmodel.cli import main
from costmodel.reporting import FORMATS, WRITERS, Report
from costmodel.reporting.contents import STATES
from costmodel.reporting.many import report_each
from costmodel.reporting.mathml import as_mathml
from costmodel.reporting.svg import as_svg
from costmodel.reporting.workbook import cells_values
from costmodel.scenario import Scenario

from .test_report import HOSTILE, fail, hostile, interrupt

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
TEXTS = {**HOSTILE, "typst": '#panic("x") $x$ *b* _i_ @cite <label> #sys.inputs \\ #[a] `r` //c /*', "quotes": "\"'`${x}#{y}"}
TYPESETTER = pytest.importorskip("typst", reason="needs the extra report")
pytest.importorskip("xlsxwriter", reason="needs the extra report")


@cache
def reports() -> dict[str, Report]:
    """One of each kind."""
    traffic, limits = cm.Traffic(requests_per_s=2, prompt=2048, output=256), cm.Limits(ttft_s=2, tpot_s=0.05)
    return {
        "model": Report.of("gemma-3-1b", context=4096, batch=2),
        "window, experts, latent": Report.of("deepseek-v2-lite", context=5_000, cache_precision="fp8", view="engine"),
        "comparison": Report.of(["gemma-3-1b", "deepseek-v2-lite"], context=4096, precision="fp8"),
        "recursive": Report.of("trm-arc", context=900),
        "beyond": Report.of("gpt2", context=10**12, accelerator="rtx-4090", devices=4, units="GB"),
        "plan": Report.of(cm.plan("gemma-3-1b", ["h100-sxm", "l4"], traffic, limits, batches=[1, 8, 64])),
        "no plan": Report.of(cm.plan("gpt2", "l4", traffic, cm.Limits(ttft_s=1e-6, devices=2), batches=[1])),
        "calibration": Report.of(read_calibration(calibration_file("cpu"))),
    }


KINDS = list(range(8))
"""Places of the reports: they are made when a test runs, not when it is found."""


def report_at(place: int) -> Report:
    return list(reports().values())[place]


# what they say


@pytest.mark.parametrize("place", KINDS)
def test_a_report_says_what_it_rests_on_and_how_to_ask_again(place: int) -> None:
    found = report_at(place)
    assert found.verdict.endswith(".")
    assert {each.state for each in found.assumptions} <= STATES.keys()
    assert all(each.what and each.value and each.source for each in found.assumptions)
    assert {"sh", "python"} <= {each.language for each in found.commands}
    assert all(chart.words.endswith(".") for chart in found.charts)
    json.dumps(found.data, allow_nan=False)
    assert len({table.name for table in found.told}) == len(found.told)


def test_all_contents_are_there() -> None:
    names = {table.name for table in reports()["model"].told}
    assert names >= {
        "layers", "params", "parts", "weights", "cache", "flops", "work", "moved", "roofline", "capacity", "price", "references",
        "assumptions", "formulas", "conventions",
    }  # fmt: skip
    assert {chart.name for chart in reports()["model"].charts} == {"layers", "parameters", "cache", "flops", "roofline"}
    assert "walk" in {chart.name for chart in reports()["comparison"].charts}
    assert {each.state for each in reports()["plan"].assumptions} == set(STATES)
    assert "No roofline" in " ".join(reports()["beyond"].about)


def test_a_report_in_a_notebook() -> None:
    found = reports()["model"]
    assert "<script" not in found._repr_html_()
    assert found._repr_html_().startswith("<h1>Gemma 3 1B</h1>")
    assert found._repr_markdown_() == found.write("md")
    assert len(repr(found)) < 120
    frames = found.frames()
    assert frames["cache"]["theory_bytes"].tolist() == [row["theory_bytes"] for row in found.data["cache"]]
    assert "data:" not in found.terminal


def test_answers_print_in_a_line() -> None:
    """Nothing that is asked for fills a screen when it is printed."""
    plan = cm.plan("gpt2", "l4", cm.Traffic(requests_per_s=1.0, prompt=128, output=64), batches=[1, 8])
    none = cm.plan("gpt2", "l4", cm.Traffic(requests_per_s=1.0), cm.Limits(ttft_s=1e-6, devices=1), batches=[1])
    estimate = cm.estimate("gpt2", "l4", output=1)
    model, designs = cm.load("gpt2"), cm.design("gemma-3-1b")
    held, run = cm.device_memory(model, "l4"), cm.train(model, "l4", 8, 1e9)
    service, swept = cm.serve(model, "l4", cm.Traffic(requests_per_s=1.0)), cm.sweep(model, "cache_bytes", {"context": [1, 2]})
    answers = (plan, none, estimate, model, model.cache_bytes, model.params, reports()["model"], designs, held, run, service, swept)
    for each in answers:
        assert len(repr(each)) < 300
        assert "\n" not in repr(each)
    assert "TPOT" in repr(cm.estimate("gpt2", "l4"))
    shown = (plan.best, estimate, held, run, service, swept, cm.capacity(model, "l4"), cm.accelerator("l4"))
    for each in shown:
        Tree(f"<div>{each._repr_html_()}</div>")
    assert "<table" in plan._repr_html_()
    assert "<table" in designs._repr_html_()
    assert "<table" in model._repr_html_()
    assert "<script" not in model.model_copy(update={"title": "<script>"})._repr_html_()
    assert "<table" not in none._repr_html_()
    assert cm.load("gpt2").cache_bytes._repr_latex_().startswith("$")


# equal bytes


SEEDED = """
import hashlib
import costmodel as cm
from costmodel.calibration.store import read_calibration
from costmodel.catalog import calibration_file
from costmodel.reporting import WRITERS
traffic = cm.Traffic(requests_per_s=2, prompt=2048, output=256)
planned, measured = cm.plan("gpt2", "l4", traffic, batches=[1, 8]), read_calibration(calibration_file("cpu"))
subjects = ["gemma-3-1b", ["gpt2", "deepseek-v2-lite"], planned, measured]
for subject in subjects:
    found = cm.Report.of(subject)
    for form, write in WRITERS.items():
        content = write(found)
        print(form, hashlib.sha256(content if isinstance(content, bytes) else content.encode()).hexdigest())
"""


def test_equal_input_gives_equal_bytes_whatever_the_hash_seed_and_the_clock() -> None:
    seen = [
        subprocess.run(  # noqa: S603
            [sys.executable, "-c", SEEDED], env={"PYTHONHASHSEED": seed, "TZ": zone}, capture_output=True, text=True, check=True
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    ]
    assert seen[0] == seen[1]
    assert len(seen[0].splitlines()) == 4 * len(WRITERS)


def test_documents_bear_a_fixed_day(monkeypatch: pytest.MonkeyPatch) -> None:
    found = reports()["model"]
    assert found.day == cm.load("gemma-3-1b").released
    own = {form: WRITERS[form](found) for form in ("pdf", "xlsx", "html")}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert found.day == date(1970, 1, 2)
    assert b"D:19700102" in WRITERS["pdf"](found)
    assert b"1970-01-02T00:00:00Z" in parts(WRITERS["xlsx"](found))["docProps/core.xml"]
    assert WRITERS["html"](found) == own["html"]
    assert WRITERS["pdf"](found) != own["pdf"]
    WRITERS["zip"](found)  # a ZIP knows no day before 1980
    for wrong in ("soon", "9" * 30):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", wrong)
        with pytest.raises(cm.CostModelError, match=r"\ASOURCE_DATE_EPOCH is [^\n]+\Z"):
            WRITERS["pdf"](found)


# well formed


VOID = {"meta", "br", "img", "input", "hr"}


class Tree(HTMLParser):
    """Elements of a page, which must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.names: set[str] = set()
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.names |= {name for name, _ in attrs}
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "action", "data", "poster")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", cm.presets())
def test_formulas_are_drawn_with_all_their_letters(name: str) -> None:
    for formula in (cm.load(name).cache_bytes, cm.load(name).cache_bytes.having(view="engine"), cm.load(name).bytes_moved):
        drawn = as_mathml(formula.expr)
        root = ElementTree.fromstring(drawn)  # noqa: S314 - our own text
        words = {"".join(node.itertext()) for node in root.iter() if node.tag in ("mi", "msub")}
        assert {str(letter).replace("_", "") for letter in formula.expr.free_symbols} <= words
        assert drawn.isprintable()


@pytest.mark.parametrize("place", KINDS)
def test_pages_and_figures_are_well_formed_and_load_nothing(place: int) -> None:
    found = report_at(place)
    page = found.write("html")
    tree = Tree(page)
    assert tree.links == []
    assert not [name for name in tree.names if name.startswith("on")]
    assert not re.search(
        r"url\(|@import|https?://",
        re.sub(r'xmlns="http://www.w3.org/2000/svg"|"http://www.w3.org/2000/svg"', "", page.split("<body>")[0]),
    )
    Tree(f"<div>{found._repr_html_()}</div>")
    for chart in found.charts:
        svg = as_svg(chart.figure, chart.words)
        root = ElementTree.fromstring(svg)  # noqa: S314 - our own text
        assert "nan" not in svg
        assert "inf" not in re.sub(r">[^<]*<", "><", svg).replace("aria-label", "")
        assert len(list(root.iter())) > 5
        assert root.get("aria-label")
        assert not [node for node in root.iter() if any(name.endswith("href") for name in node.attrib)]


@pytest.mark.parametrize("place", KINDS)
def test_a_pdf_has_pages_of_text(place: int) -> None:
    content = report_at(place).write("pdf")
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    if shutil.which("pdftotext"):
        done = subprocess.run(["pdftotext", "-", "-"], input=content, capture_output=True, check=True)  # noqa: S607
        assert "The same digits" in done.stdout.decode()


# hostile text


class Same:
    """A text that hurts nobody, as long as the hostile one it stands for."""

    @staticmethod
    def of(text: str) -> str:
        return "word " * max(1, len(text.split())) if len(text) < 5_000 else "x" * len(text)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_hostile_text_adds_no_element_to_a_page(text: str) -> None:
    plain, foul = (Report.of(hostile(each), context=512) for each in ("plain", text))
    assert Tree(foul.write("html")).elements == Tree(plain.write("html")).elements
    assert all(line.isprintable() for line in foul.write("html").replace("\t", "").split("\n"))
    for chart in foul.charts:
        ElementTree.fromstring(as_svg(chart.figure, text))  # noqa: S314 - our own text


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_hostile_text_is_text_to_markdown(text: str) -> None:
    from markdown_it import MarkdownIt

    def kinds(report: Report) -> list[str]:
        tokens = MarkdownIt("commonmark").enable("table").parse(report.write("md"))
        inner = [child.type for token in tokens for child in token.children or ()]
        return [token.type for token in tokens] + [kind for kind in inner if kind not in ("text", "text_special", "softbreak")]

    plain, foul = (Report.of(hostile(each), context=512) for each in ("plain", text))
    assert kinds(foul) == kinds(plain)
    assert "html_inline" not in kinds(foul)


@pytest.mark.parametrize("text", [*TEXTS.values(), "=1+1", "+1", "-1", "@x", "\t=1", " \u202e=1", '=HYPERLINK("http://x")'])
def test_hostile_text_is_text_to_a_spreadsheet(text: str) -> None:
    plain, foul = (Report.of(hostile(each), context=512).write("xlsx") for each in ("plain", text))
    told = [ours for _, ours, _ in formulas_of(foul)]
    assert told == [ours for _, ours, _ in formulas_of(plain)]
    assert "hyperlink" not in " ".join(parts(foul)).lower()
    assert all(b"<hyperlink" not in content for content in parts(foul).values())
    for name, content in parts(foul).items():
        if name.endswith((".xml", ".rels")):
            ElementTree.fromstring(content)  # noqa: S314 - our own text


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_hostile_text_is_never_evaluated_by_typst(text: str) -> None:
    found = Report.of(hostile(text), context=512)
    content = found.write("pdf")
    assert content.startswith(b"%PDF-")
    if shutil.which("pdftotext") and text == TEXTS["typst"]:
        done = subprocess.run(["pdftotext", "-", "-"], input=content, capture_output=True, check=True)  # noqa: S607
        assert '#panic("x") $x$ *b* _i_ @cite' in done.stdout.decode().replace("\u200b", "")


def test_a_hostile_name_reaches_no_shell_and_no_python() -> None:
    model = cm.load("gpt2").model_copy(update={"name": "x'; rm -rf ~ #\"", "title": "x"})
    found = Report.of(model, context=512)
    texts = {each.what: each.text for each in found.commands}
    assert "link" not in texts
    assert shlex.split(texts["shell"])[2] == f"{model.name}.toml"
    compile(texts["python"], "line", "exec")
    assert f"{model.name}.toml" in found.files


# live cells


def parts(book: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(book)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sheets(book: bytes) -> dict[str, ElementTree.Element]:
    """Each sheet by its name."""
    inside = parts(book)
    names = [node.attrib["name"] for node in ElementTree.fromstring(inside["xl/workbook.xml"]).iter(f"{MAIN}sheet")]  # noqa: S314
    return {
        name: ElementTree.fromstring(inside[f"xl/worksheets/sheet{place}.xml"])  # noqa: S314 - our own text
        for place, name in enumerate(names, 1)
    }


def formulas_of(book: bytes) -> list[tuple[str, str, float]]:
    """Sheet and cell, formula, and the value that came with it."""
    return [
        (f"{name}!{cell.attrib['r']}", str(cell.findtext(f"{MAIN}f")), float(str(cell.findtext(f"{MAIN}v"))))
        for name, sheet in sheets(book).items()
        for cell in sheet.iter(f"{MAIN}c")
        if cell.find(f"{MAIN}f") is not None
    ]


def numbers_of(book: bytes) -> dict[str, float]:
    """Every number that is typed or was computed, by sheet and cell."""
    return {
        f"{name}!{cell.attrib['r']}".upper(): float(str(cell.findtext(f"{MAIN}v")))
        for name, sheet in sheets(book).items()
        for cell in sheet.iter(f"{MAIN}c")
        if cell.attrib.get("t", "n") == "n" and cell.findtext(f"{MAIN}v")
    }


LIVE = ("model", "window, experts, latent", "comparison", "recursive")


@pytest.mark.parametrize("kind", LIVE)
def test_live_cells_compute_what_stands_in_them(kind: str) -> None:
    """By another evaluator of spreadsheets than those that people use."""
    book = reports()[kind].write("xlsx")
    typed, found = numbers_of(book), formulas_of(book)
    assert len(found) > 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the evaluator's own
        parser = pytest.importorskip("formulas").Parser()
        for where, text, value in found:
            called = parser.ast(f"={text}")[1].compile()
            sheet = where.split("!")[0]
            asked = [typed[(cell if "!" in cell else f"{sheet}!{cell}").replace("'", "").upper()] for cell in called.inputs]
            assert float(called(*asked)) == pytest.approx(value, rel=1e-12), (where, text)


def test_cells_hold_pythons_values() -> None:
    found = reports()["comparison"]
    book = numbers_of(found.write("xlsx"))
    values = {each.value for each in found.formulas} | {row["cache_bytes"] for row in found.data["models"]}
    assert {float(value) for value in values} <= set(book.values())


@pytest.mark.skipif(shutil.which("soffice") is None, reason="needs LibreOffice")
@pytest.mark.slow
@pytest.mark.parametrize("kind", LIVE)
def test_libreoffice_computes_pythons_numbers(kind: str, tmp_path: Path) -> None:
    """With other letters in the yellow cells, and without the values that came along."""
    found, changed = reports()[kind], {"context": 3_001, "batch": 3, "new_tokens": 1}
    source = tmp_path / "report.xlsx"
    source.write_bytes(rewritten(found.write("xlsx"), found, changed))
    profile = f"-env:UserInstallation=file://{tmp_path}/profile"
    command = [
        "soffice",
        profile,
        "--headless",
        "--convert-to",
        "xlsx:Calc MS Excel 2007 XML",
        "--outdir",
        str(tmp_path / "out"),
        str(source),
    ]
    subprocess.run(command, capture_output=True, check=True, timeout=120)  # noqa: S603
    computed = numbers_of((tmp_path / "out" / "report.xlsx").read_bytes())
    start = 3 + len(cells_values(found)) + 3
    for row, each in enumerate(found.formulas, start):
        expected = each.formula(**{name: changed[name] for name in each.inputs})
        assert computed[f"INPUTS!B{row}"] == pytest.approx(expected, rel=1e-14), each.name
    tables = {table.name: table for table in found.told}
    for (name, row, column), formula in found.cells.items():
        table = tables[name]
        columns = list(dict.fromkeys(key for line in table.rows for key in line))
        own = {key: table.rows[row][key] for key in ("context",) if key in columns and not table.row_units}
        expected = formula(**{key: (changed | own)[key] for key in formula.inputs})
        cell = f"{name.upper()}!{chr(ord('A') + columns.index(column))}{row + 4}"
        assert computed[cell] == pytest.approx(expected, rel=1e-14), cell


def rewritten(book: bytes, found: Report, changed: dict[str, int]) -> bytes:
    """The workbook with other inputs, and formulas without values."""
    inside = parts(book)
    for name, content in inside.items():
        if name.startswith("xl/worksheets/"):
            text = re.sub(r"(</f>)<v>[^<]*</v>", r"\1", content.decode())
            if name.endswith("sheet2.xml"):
                for row, field in enumerate(cells_values(found), 3):
                    text = re.sub(rf'(<c r="B{row}"[^>]*><v>)[^<]*', rf"\g<1>{changed[field]}", text)
            inside[name] = text.encode()
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in inside.items():
            archive.writestr(name, content)
    return out.getvalue()


# files


def tree_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folder_holds_all_formats(tmp_path: Path) -> None:
    found, folder = reports()["model"], tmp_path / "out"
    names = found.write("folder", folder)
    assert set(tree_of(folder)) == set(names)
    assert {f"report.{form}" for form in FORMATS if form != "folder"} <= set(names)
    for form in ("html", "xlsx", "pdf", "json"):
        content = WRITERS[form](found)
        assert (folder / f"report.{form}").read_bytes() == (content if isinstance(content, bytes) else content.encode())
    linked = re.findall(r"\]\((figures/[a-z]+\.svg)\)", (folder / "report.md").read_text())
    assert sorted(linked) == sorted(name for name in names if name.startswith("figures/"))
    again = parse((folder / "gemma-3-1b.toml").read_text(), "gemma-3-1b.toml")
    assert again == cm.load("gemma-3-1b")
    (folder / "mine.txt").write_text("mine")
    assert found.write("folder", folder, pdf=False) == tuple(name for name in names if name != "report.pdf")
    assert (folder / "mine.txt").read_text() == "mine"
    with zipfile.ZipFile(BytesIO(WRITERS["zip"](found))) as archive:
        assert archive.testzip() is None
        assert {name.partition("/")[2] for name in archive.namelist()} == set(names)


STEPS = [(os, "fsync"), (Path, "rename"), (Path, "mkdir"), (Path, "chmod")]


@pytest.mark.parametrize("trouble", [fail, interrupt])
@pytest.mark.parametrize("step", STEPS, ids=[name for _, name in STEPS])
@pytest.mark.parametrize("there", [False, True], ids=["new", "old"])
def test_a_failure_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str], trouble: Any, there: bool
) -> None:
    folder, contents = tmp_path / "out", {"a.txt": b"new", "in/b.txt": b"new"}
    if there:
        files.write_folder(folder, {"a.txt": b"old", "in/b.txt": b"old"})
        (folder / "mine").write_bytes(b"mine")
    before = tree_of(tmp_path)
    if there and step[1] == "rename":
        return  # only a new folder is renamed into place
    monkeypatch.setattr(*step, trouble)
    with pytest.raises(cm.CostModelError if trouble is fail else KeyboardInterrupt):
        files.write_folder(folder, contents)
    monkeypatch.undo()
    assert tree_of(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if there else [])


KILLED = """
import os, pathlib, signal, sys
from costmodel import files
step, path = sys.argv[1:]
def stop(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(*{"fsync": (os, "fsync"), "replace": (pathlib.Path, "replace")}[step].__add__((stop,)))
if path.endswith("out"):
    files.write_folder(pathlib.Path(path), {"a.txt": b"new" * 100_000})
else:
    files.write_bytes(pathlib.Path(path), b"new" * 100_000)
"""


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("name", ["report.html", "out"])
def test_a_kill_leaves_the_old_one(tmp_path: Path, step: str, name: str) -> None:
    path = tmp_path / name
    if name == "out":
        files.write_folder(path, {"a.txt": b"old"})
    else:
        path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, step, str(path)], capture_output=True, check=False)  # noqa: S603
    assert done.returncode == -9
    assert (path / "a.txt" if name == "out" else path).read_bytes() == b"old"


def test_several_at_once(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    names = ("gpt2", "gemma-3-1b")
    with ThreadPoolExecutor(2) as pool:
        places = report_each(names, "json", tmp_path / "out", pool, lambda done, of: seen.append((done, of)), context=1024)
    assert [place.name for place in places] == ["gpt2.json", "gemma-3-1b.json"]
    assert places[0].read_text() == cm.report("gpt2", "json", context=1024)
    assert seen == [(1, 2), (2, 2)]
    report_each(names[:1], "csv", tmp_path / "out", context=1024)
    assert (tmp_path / "out" / "gpt2.csv").read_text() == cm.report("gpt2", "csv", context=1024)
    with ThreadPoolExecutor(1) as pool, pytest.raises(cm.CostModelError, match="gpt3: no preset"):
        report_each(["gpt3"], "csv", tmp_path / "out", pool)


# what cannot be


def refused(*arguments: Any, **named: Any) -> str:
    with pytest.raises(cm.CostModelError) as raised:
        cm.report(*arguments, **named)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400
    return str(raised.value)


def test_bad_input_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    assert "did you mean html?" in refused("gpt2", "htm")
    assert "a folder needs a place" in refused("gpt2", "folder")
    assert "is a file" in refused("gpt2", "folder", file)
    assert "is no ordinary file" in refused("gpt2", "html", tmp_path)
    assert "cannot be written" in refused("gpt2", "folder", tmp_path / "no" / "where")
    assert "got no model" in refused([], "md")
    assert "at most 12 models" in refused(["gpt2"] * 13, "md")
    assert "did you mean devices?" in refused("gpt2", "md", device=3)
    assert "devices" in refused("gpt2", "md", devices=0)
    assert "view" in refused("gpt2", "md", view="thery")
    assert "did you mean" in refused("gpt2", "md", precision="fp88")
    assert "no accelerator" in refused("gpt2", "md", accelerator="h2000")
    assert "takes no context" in refused(read_calibration(calibration_file("cpu")), "md", context=3)
    assert "report got" in refused(5, "md") or "load got" in refused(5, "md")
    with pytest.raises(cm.CostModelError, match="is a file; several reports need a folder"):
        report_each(["gpt2"], "md", file)
    assert file.read_text() == "old"
    for form, package in (("xlsx", "xlsxwriter"), ("pdf", "typst")):
        module = {"xlsx": "workbook", "pdf": "document"}[form]
        monkeypatch.setattr(f"costmodel.reporting.{module}.find_spec", lambda name: None)
        assert f"needs {package}, which is not installed; run: pip install 'costmodel[report]'" in refused(
            "gpt2", form, context=512
        )


def test_a_pdf_that_cannot_be_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **named: object) -> NoReturn:
        raise RuntimeError("unexpected\nargument")

    monkeypatch.setattr(TYPESETTER, "compile", broken)
    with pytest.raises(cm.CostModelError, match=r"\Atypst cannot set this report: unexpected; choose html or md\Z"):
        reports()["model"].write("pdf")


def lines() -> Iterator[str]:
    for found in reports().values():
        yield from (each.text for each in found.commands if each.language == "python")


def test_the_lines_of_python_run() -> None:
    """Those of plans and calibrations too; what they give is held against the report elsewhere."""
    for text in lines():
        *setup, last = text.split("\n")
        space: dict[str, Any] = {}
        exec("\n".join(setup), space)  # noqa: S102 - our own text
        if "cm.plan" not in last:
            assert json.loads(eval(last, space))["verdict" if "calibration" in last else "scenario"]  # noqa: S307 - our own text
    plan = reports()["plan"]
    space = {}
    text = next(each.text for each in plan.commands if each.language == "python")
    exec("\n".join(text.split("\n")[:-1]), space)  # noqa: S102 - our own text
    again = eval(text.split("\n")[-1], space)  # noqa: S307 - our own text
    assert again.best.row.keys() == plan.data["best"].keys()
    assert again.best.usd_per_hour <= plan.data["best"]["usd_per_hour"]  # it tries every batch, the report's plan three


def test_scenarios_come_as_they_are() -> None:
    scenario = Scenario(models=("gpt2",), context=512, requests_per_s=3.0, usd_per_hour=1.5)
    found = Report.of(scenario)
    assert found.data["scenario"]["requests_per_s"] == 3.0
    assert next(each.text for each in found.commands if each.what == "shell").startswith("costmodel report --link 'report?v=3")


PAGE = (Path(__file__).parents[1] / "docs" / "reports.md").read_text(encoding="utf-8")


def test_the_page_about_reports_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands and its Python run; what they write is there."""
    monkeypatch.chdir(tmp_path)
    commands = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    for command in commands:
        with pytest.raises(SystemExit) as end:
            main(shlex.split(command)[1:])
        assert end.value.code == 0, command
        assert capsys.readouterr().err.count("wrote") == ("--link" not in command)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "reports.md", "exec"), {})  # noqa: S102 - our own page
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"gemma.html", "gemma.xlsx", "both.pdf", "gpt2-report", "cpu.html", "plan.html", "plan.xlsx"}
    assert all(f"`{form}`" in PAGE for form in FORMATS)
    assert all(f"*{state}*" in PAGE for state in STATES)
