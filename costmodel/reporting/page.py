"""A report as one offline web page: words, figures with live sliders, and tables in a single file that loads nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from costmodel.figures.live import asset
from costmodel.reporting.contents import Chart, Report, Worked
from costmodel.reporting.mathml import as_mathml
from costmodel.reporting.svg import as_svg
from costmodel.tables import Table, clean, readable_rows

STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --page: #ffffff; --rule: #d0d7de; --soft: #57606a; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --page: #0d1117; --rule: #30363d; --soft: #9da7b1; } }
body { margin: 0 auto; max-width: 1080px; padding: 1.5rem 1rem 4rem; }
h1, h2, p, pre, summary, td { overflow-wrap: anywhere; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; } .soft { color: var(--soft); font-size: 0.9rem; }
.verdict { font-size: 1.1rem; font-weight: 600; }
figure { margin: 0; overflow-x: auto; }
figure > svg, figure > div > svg { color: var(--text); width: 100%; min-width: 560px; height: auto; }
figcaption { color: var(--soft); font-size: 0.9rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { border-bottom: 1px solid var(--rule); padding: 0.3rem 0.7rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; } .words { text-align: left; }
td { max-width: 32rem; } td.long { min-width: 14rem; }
pre { overflow-x: auto; border: 1px solid var(--rule); padding: 0.7rem; white-space: pre-wrap; }
math { overflow-x: auto; overflow-y: hidden; padding: 0.5rem 0; } mtd { text-align: left; }
details { border-bottom: 1px solid var(--rule); padding: 0.4rem 0; } summary { cursor: pointer; }
@media print { .live-sliders, script { display: none; } details > * { display: block; } }
"""
LONG = 40
"""Characters from which a column of words gets room."""


def as_page(report: Report) -> str:
    """A report as HTML. Texts are escaped; sliders move formulas whose code is printed by us.

    >>> import costmodel as cm
    >>> as_page(cm.Report.of("gpt2", context=1024)).startswith("<!DOCTYPE html>")
    True
    """
    live = [chart for chart in report.charts if chart.live]
    starts = "\n".join(f'liveChart(document.getElementById("live-{chart.name}"), {_data(chart.live)});' for chart in live)
    script = f"<script>\n{asset('live.js')}\n{starts}\n</script>" if live else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(report.title)}</title>\n<style>{STYLE}{asset('live.css')}</style>\n</head>\n<body>\n"
        + "\n".join(_body(report, sliders=True))
        + f"\n{script}\n</body>\n</html>\n"
    )


def as_fragment(report: Report) -> str:
    """A report as HTML within another page: a notebook's. It has no sliders and no script."""
    return "\n".join(_body(report, sliders=False))


def _body(report: Report, *, sliders: bool) -> Iterator[str]:
    tables = [table for table in report.told if table.name not in ("formulas",)]
    yield f'<h1>{_text(report.title)}</h1>\n<p class="verdict">{_text(report.verdict)}</p>'
    yield from (f"<p>{_text(words)}</p>" for words in report.about)
    yield from (f'<p class="soft">{_text(remark)}</p>' for remark in report.remarks)
    yield from (_figure(chart, sliders) for chart in report.charts)
    yield from (_table(table, report.units) for table in tables)
    if report.formulas:
        yield "<h2>Formulas</h2>"
        yield from (_formula(each) for each in report.formulas)
    yield "<h2>The same digits</h2>"
    yield from (f'<p class="soft">{_text(each.what)}</p><pre>{_lines(each.text)}</pre>' for each in report.commands)


def _figure(chart: Chart, sliders: bool) -> str:
    drawn = as_svg(chart.figure, chart.words, own_file=False)
    if chart.live and sliders:
        drawn = f'<div id="live-{chart.name}">{drawn}</div>'
    return f"<h2>{_text(chart.title)}</h2>\n<figure>{drawn}<figcaption>{_text(chart.words)}</figcaption></figure>"


def _formula(each: Worked) -> str:
    told = f"{each.owner}: {each.name} = {each.value:,} {each.formula.unit}"
    source = f'<p class="soft">{_text(each.formula.status)}; {_text(each.formula.source or "sums of stored tensors")}</p>'
    code = f"{as_mathml(each.formula.expr)}\n<pre>{_lines(each.python)}</pre>"
    return f"<details><summary>{_text(told)}</summary>\n{code}{source}</details>"


def _text(text: str) -> str:
    return escape(clean(text))


def _lines(text: str) -> str:
    return "\n".join(_text(line) for line in text.split("\n"))


def _data(chart: dict[str, Any] | None) -> str:
    """A chart's data as JSON that cannot end the script it stands in."""
    return json.dumps(chart).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _table(table: Table, units: str) -> str:
    rows = readable_rows(table, units)
    if not rows:
        return ""
    sides = [_side(table, place) for place in range(len(rows[0]))]
    head = "".join(f"<th{side}>{_text(name)}</th>" for name, side in zip(rows[0], sides, strict=True))
    cells = [[f"<td{side}>{_text(cell)}</td>" for cell, side in zip(row.values(), sides, strict=True)] for row in rows]
    lines = "\n".join(f"<tr>{''.join(line)}</tr>" for line in cells)
    remarks = "".join(f'<p class="soft">{_text(remark)}</p>' for remark in table.remarks)
    return f'<h2>{_text(table.title)}</h2>\n<div class="wide"><table>\n<tr>{head}</tr>\n{lines}\n</table></div>\n{remarks}'


def _side(table: Table, place: int) -> str:
    """How a column stands: numbers to the right, words to the left, long ones with room."""
    columns = list(dict.fromkeys(name for row in table.rows for name in row))
    values = [row.get(columns[place]) for row in table.rows]
    if any(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return ""
    return ' class="words long"' if any(isinstance(value, str) and len(value) > LONG for value in values) else ' class="words"'
