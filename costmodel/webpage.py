"""One offline web page: words, tables and live charts in a single file that loads nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from costmodel.live import asset
from costmodel.tables import Table, clean, readable_rows

STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --page: #ffffff; --rule: #d0d7de; --soft: #57606a; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --page: #0d1117; --rule: #30363d; --soft: #9da7b1; } }
body { margin: 0 auto; max-width: 1080px; padding: 1.5rem 1rem 4rem; }
h1, p, pre { overflow-wrap: anywhere; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; } .soft { color: var(--soft); font-size: 0.9rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { border-bottom: 1px solid var(--rule); padding: 0.3rem 0.7rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
pre { overflow-x: auto; border: 1px solid var(--rule); padding: 0.7rem; white-space: pre-wrap; }
"""


def as_html(
    title: str,
    paragraphs: Sequence[str],
    charts: Sequence[dict[str, Any]] = (),
    tables: Sequence[Table] = (),
    code: Sequence[str] = (),
    units: str = "GiB",
) -> str:
    """A page as HTML. Texts are escaped; charts come as the data of `live.live_chart`, whose code is printed by us.

    >>> "&lt;b&gt;" in as_html("<b>", [])
    True
    """
    body = [f"<h1>{_text(title)}</h1>", *(f"<p>{_text(words)}</p>" for words in paragraphs)]
    for place, chart in enumerate(charts):
        body += [f"<h2>{_text(chart['title'])}</h2>", f'<div id="live-{place}">{_text(chart["words"])}</div>']
    body += [_table(table, units) for table in tables]
    body += [f"<pre>{_text(text)}</pre>" for text in code]
    script = ""
    if charts:
        starts = "\n".join(f'liveChart(document.getElementById("live-{n}"), {_data(chart)});' for n, chart in enumerate(charts))
        script = f"<script>\n{asset('live.js')}\n{starts}\n</script>"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}{asset('live.css')}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f"\n{script}\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    return escape(clean(text))


def _data(chart: dict[str, Any]) -> str:
    """A chart's data as JSON that cannot end the script it stands in."""
    return json.dumps(chart).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _table(table: Table, units: str) -> str:
    rows = readable_rows(table, units)
    if not rows:
        return ""
    head = "".join(f"<th>{_text(name)}</th>" for name in rows[0])
    lines = "\n".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row.values()) + "</tr>" for row in rows)
    remarks = "".join(f'<p class="soft">{_text(remark)}</p>' for remark in table.remarks)
    return f'<h2>{_text(table.title)}</h2>\n<div class="wide"><table>\n<tr>{head}</tr>\n{lines}\n</table></div>\n{remarks}'
