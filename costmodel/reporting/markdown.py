"""A report as Markdown: its figures as SVG, in the text itself or as files beside it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator

from costmodel.reporting.contents import Chart, Report
from costmodel.reporting.svg import as_svg
from costmodel.tables import as_markdown, clean, escape_markdown

Where = Callable[[Chart], str]
"""Where a chart's figure is found."""


def as_text(report: Report) -> str:
    """A report as one Markdown text: figures stand at its end, as data that no browser has to load."""
    return _document(report, inlined) + "".join(f"\n[{chart.name}]: {inlined(chart)}\n" for chart in report.charts)


def as_linked_text(report: Report) -> str:
    """A report as Markdown for a folder, with its figures in files of `figures`."""
    return _document(report, figure_path, linked=True)


def without_figures(report: Report) -> str:
    """A report as Markdown for a terminal: figures in words."""
    return _document(report, None)


def figure_path(chart: Chart) -> str:
    """The file of a chart's figure within a folder."""
    return f"figures/{chart.name}.svg"


def inlined(chart: Chart) -> str:
    """A chart's figure as an address that holds it."""
    return f"data:image/svg+xml;base64,{b64encode(as_svg(chart.figure, chart.words).encode()).decode()}"


def _document(report: Report, where: Where | None, *, linked: bool = False) -> str:
    tables = {table.name: table for table in report.told}
    formulas, conventions = tables.pop("formulas", None), tables.pop("conventions", None)
    parts = [
        f"# {escape_markdown(report.title)}\n\n{escape_markdown(report.verdict)}\n",
        *(f"{escape_markdown(words)}\n" for words in report.about),
        *(f"> {escape_markdown(remark)}\n" for remark in report.remarks),
        *(_figure(chart, where, linked) for chart in report.charts),
        as_markdown(list(tables.values())),
    ]
    if formulas is not None:
        parts += ["### Formulas\n", *_formulas(report)]
    if conventions is not None:
        parts += [
            "### Conventions\n",
            *(f"- {escape_markdown(row['number'])}: {escape_markdown(row['counts'])}" for row in conventions.rows),
        ]
    parts += ["\n### The same digits\n", *_commands(report)]
    return "\n".join(parts)


def _figure(chart: Chart, where: Where | None, linked: bool) -> str:
    words = escape_markdown(chart.words)
    if where is None:
        return f"{escape_markdown(chart.title)}: {words}\n"
    shown = f"![{words}]({where(chart)})" if linked else f"![{words}][{chart.name}]"
    return f"### {escape_markdown(chart.title)}\n\n{shown}\n"


def _formulas(report: Report) -> Iterator[str]:
    for each in report.formulas:
        value = f"{each.value:,} {each.formula.unit}"
        yield f"{escape_markdown(f'{each.owner}: {each.name}')} = {escape_markdown(value)}\n"
        yield f"```math\n{each.formula.latex}\n```\n"
        yield _code(each.python, "python")


def _commands(report: Report) -> Iterator[str]:
    for each in report.commands:
        yield _code(each.text, each.language)


def _code(text: str, language: str) -> str:
    """A block that no text of its own can end."""
    lines = "\n".join(clean(line) for line in text.split("\n"))
    fence = "`" * (3 + lines.count("`"))
    return f"{fence}{language}\n{lines}\n{fence}\n"
