"""A report as PDF, set by typst: a fixed template, and all words as data that it shows and never evaluates."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from costmodel.errors import CostModelError, excerpt
from costmodel.reporting.contents import Report, Worked
from costmodel.reporting.mathml import as_tree
from costmodel.reporting.svg import as_svg
from costmodel.tables import Table, clean, readable_rows

TEMPLATE = Path(__file__).with_suffix(".typ")
LINE = 120
"""Characters of a formula that a line of the page has room for, as mathematics; longer ones are set as text, which breaks."""
MOST_CHARACTERS = 2_000
"""Of a cell or a formula: what no page should be filled with."""
WIDE = 9
"""Columns from which a table is turned: its rows side by side."""
BREAKS = "_/.,+*-=:"
"""Characters behind which a long word may break."""


def as_pdf(report: Report) -> bytes:
    """A report as PDF. Raises CostModelError where typst is not installed.

    Fonts are those that typst brings, so that equal reports give equal bytes on every machine.
    """
    if find_spec("typst") is None:
        raise CostModelError("a PDF needs typst, which is not installed; run: pip install 'costmodel[report]'")
    typst = import_module("typst")
    day = datetime(*report.day.timetuple()[:3], tzinfo=UTC)
    words = json.dumps(_data(report))
    try:
        made: bytes = typst.compile(
            TEMPLATE.read_bytes(),
            ignore_system_fonts=True,
            sys_inputs={"report": words},
            timestamp=int(day.timestamp()),
            format="pdf",
        )
    except RuntimeError as error:
        raise CostModelError(f"typst cannot set this report: {excerpt(str(error))}; choose html or md") from None
    return made


def _data(report: Report) -> dict[str, Any]:
    tables = [table for table in report.told if table.name != "formulas" and table.rows]
    return {
        "title": _word(report.title), "verdict": _word(report.verdict), "about": list(map(_word, report.about)),
        "remarks": list(map(_word, report.remarks)), "day": list(report.day.timetuple()[:3]),
        "footer": _word(f"{report.title[:60]}, by costmodel"),
        "charts": [
            {"title": chart.title, "words": _word(chart.words), "svg": as_svg(chart.figure, chart.words)} for chart in report.charts
        ],
        "tables": [_table(table, report.units) for table in tables],
        "formulas": list(map(_formula, report.formulas)),
        "commands": [{"text": _lines(each.text), "language": each.language} for each in report.commands],
    }  # fmt: skip


def _table(table: Table, units: str) -> dict[str, Any]:
    """A table as people read it; one that is too wide for a page, a row's cells one below the other."""
    rows = readable_rows(table, units)
    names, turned = list(rows[0]), len(rows[0]) > WIDE
    if turned:
        most = max(6, 90 // (len(rows) + 2))
        cells = [[_word(name), *(_word(row[name], most) for row in rows)] for name in names]
        names, align = ["", *(str(place) for place in range(1, len(rows) + 1))], ["l"] + ["r"] * len(rows)
    else:
        cells, align = [[_word(row[name]) for name in names] for row in rows], _sides(table)
    return {
        "title": _word(table.title), "columns": list(map(_word, names)), "rows": cells, "remarks": list(map(_word, table.remarks)),
        "align": align,
    }  # fmt: skip


def _sides(table: Table) -> list[str]:
    """Numbers to the right, but for the first column."""
    columns = list(dict.fromkeys(name for row in table.rows for name in row))
    numeric = [any(isinstance(row.get(name), (int, float)) for row in table.rows) for name in columns]
    return ["r" if number and place else "l" for place, number in enumerate(numeric)]


def _formula(each: Worked) -> dict[str, Any]:
    told = f"{each.owner}: {each.name} = {each.value:,} {each.formula.unit}"
    source = f"{each.formula.status}; {each.formula.source or 'sums of stored tensors'}"
    text = str(each.formula.expr)
    return {
        "title": _word(told), "text": _word(text), "math": as_tree(each.formula.expr) if len(text) <= LINE else None,
        "python": clean(each.python), "source": _word(source),
    }  # fmt: skip


def _word(text: str, most: int = 24) -> str:
    """A text as it is shown: cut, and with places where a word may break that is longer than `most`."""
    told = clean(text)
    told = told if len(told) <= MOST_CHARACTERS else told[:MOST_CHARACTERS] + "…"
    return " ".join(_broken(word, most) if len(word) > min(most, 18) else word for word in told.split(" "))


def _broken(word: str, most: int) -> str:
    """A long word with places to break: behind marks, and wherever none comes for long."""
    pieces, run = [], 0
    for character in word:
        pieces.append(character)
        run += 1
        if character in BREAKS or run >= most:
            pieces.append("\u200b")
            run = 0
    return "".join(pieces)


def _lines(text: str) -> str:
    return "\n".join(clean(line) for line in text.split("\n"))
