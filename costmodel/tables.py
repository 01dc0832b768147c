"""Rows of plain values as text: a terminal table, Markdown, CSV or JSON.

Data formats (json, csv) carry exact base units; the others carry units that read well. Text that came from a file
is made inert: control and bidirectional characters go, Markdown is escaped, a CSV cell never begins a formula.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any, Literal

from costmodel.units import quantity

Rows = Sequence[dict[str, Any]]

FORMATS = ("table", "json", "csv", "md")
NARROW, GAP = 20, 3
"""Characters that a column of texts has on a terminal at least, and those between two columns."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~!&$])")


@dataclass(frozen=True)
class Table:
    """Rows under one heading. `units` gives the unit of a column; `row_units` of a row, by its first cell.

    `remarks` are for people: they go to stderr beside data, and below the table in Markdown.
    """

    name: str
    title: str
    rows: Rows
    units: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    vertical: bool = False
    """Rows too wide for a line: people see one value a line."""
    row_units: dict[str, str] = field(default_factory=dict)


def clean(text: str) -> str:
    """Text without control, format (bidirectional) and line-separating characters.

    >>> clean("a\\x1b[31m b\\u202ec\\n")
    'a[31m bc'
    """
    return "".join(
        character
        for character in text
        if unicodedata.category(character)[0] != "C" and unicodedata.category(character) not in ("Zl", "Zp")
    )


def escape_markdown(text: str) -> str:
    r"""Text that Markdown and HTML leave as it is.

    >>> escape_markdown("<b>|*")
    '\\<b\\>\\|\\*'
    """
    return _MARKDOWN.sub(r"\\\1", clean(text))


def as_json(data: Any) -> str:
    """JSON with a stable order and a final newline; all ASCII, so that a control character reaches no terminal."""
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def as_csv(tables: Sequence[Table]) -> str:
    """One table's rows as CSV; several have their name in the first column and all their columns in one header."""
    several = len(tables) > 1
    rows = [({"table": table.name} if several else {}) | row for table in tables for row in table.rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_cell(row.get(name, "")) for name in columns] for row in rows])
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A CSV cell; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    text = clean(value)
    return "'" + text if text.lstrip().startswith(("=", "+", "-", "@")) else text


def as_markdown(tables: Sequence[Table]) -> str:
    """Each table under its title, with units that read well."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    if table.vertical:
        entries = []
        for row in table.rows:
            (_, heading), *others = row.items()
            told = {escape_markdown(name): readable(value, unit_of(table, row, name)) for name, value in others}
            entries += [f"#### {escape_markdown(str(heading))}", "", *(f"- {name}: `{text}`" for name, text in told.items()), ""]
        remarks = [f"{escape_markdown(remark)}\n" for remark in table.remarks]
        return "\n".join([f"### {escape_markdown(table.title)}", "", *entries, *remarks])
    header, *body = _cells(table)
    lines = [f"### {escape_markdown(table.title)}", ""]
    lines += [_line(header), "|" + "|".join(" --- " if place == 0 else " ---: " for place in range(len(header))) + "|"]
    lines += [_line(row) for row in body]
    lines += [""] + [f"{escape_markdown(remark)}\n" for remark in table.remarks]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"


def _cells(table: Table, bytes_as: str = "GiB") -> list[list[str]]:
    columns = list(dict.fromkeys(name for row in table.rows for name in row))
    body = [[readable(row.get(name, ""), unit_of(table, row, name), bytes_as) for name in columns] for row in table.rows]
    return [columns if table.row_units else [name.replace("_", " ") for name in columns], *body]


def unit_of(table: Table, row: dict[str, Any], column: str) -> str:
    """The unit of a cell: its column's, or its row's."""
    return table.units.get(column) or table.row_units.get(str(next(iter(row.values()))), "")


def readable(value: Any, unit: str = "", bytes_as: str = "GiB") -> str:
    """A value for people: with its unit where it has one, else whole numbers with separators.

    >>> readable(70_272, "bytes"), readable(61), readable("mla"), readable(True), readable(None)
    ('68.62 KiB', '61', 'mla', 'yes', 'none')
    """
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, (int, float)):
        return quantity(value, unit, bytes_as) if unit else f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
    return clean(str(value))


def readable_rows(table: Table, bytes_as: str = "GiB") -> list[dict[str, str]]:
    """A table's cells as people read them, for a page; bytes in powers of 1,024 (`GiB`) or of 1,000 (`GB`)."""
    header, *body = _cells(table, bytes_as)
    return [dict(zip(header, cells, strict=True)) for cells in body]


def print_tables(tables: Sequence[Table]) -> None:
    """Tables on the terminal; piped, they are as wide as they need to be."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 10_000
    for table in tables:
        if table.vertical:
            console.print(Text(clean(table.title)), end="\n\n")
            for row in table.rows:
                width = max(map(len, row))
                lines = (f"{name:>{width}}  {readable(value, unit_of(table, row, name))}" for name, value in row.items())
                console.print(Text("\n".join(lines)), end="\n\n")
            continue
        header, *body = _cells(table)
        numeric = _numeric(table)
        console.print(Text(clean(table.title)))
        for columns, numbered in _parts(console.width, header, body, numeric):
            grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
            if numbered:
                grid.add_column(Text("#"), justify="right")
            for column in columns:
                justify: Literal["left", "right"] = "right" if column.place in numeric else "left"
                grid.add_column(Text(column.heading), justify=justify, overflow="fold", no_wrap=not column.wraps)
            for number, cells in enumerate(body, 1):
                grid.add_row(*([str(number)] if numbered else []), *(Text(cells[column.place]) for column in columns))
            console.print(grid)


def _numeric(table: Table) -> set[int]:
    """The places of columns that hold numbers."""
    columns = dict.fromkeys(name for row in table.rows for name in row)
    return {place for place, name in enumerate(columns) if any(isinstance(row.get(name), (int, float)) for row in table.rows)}


@dataclass(frozen=True)
class _Column:
    """A column on a terminal: its heading, over several lines where its cells are narrower, and whether its texts wrap."""

    place: int
    heading: str
    wraps: bool
    least: int


def _parts(width: int, header: Sequence[str], body: Sequence[Sequence[str]], numeric: set[int]) -> list[tuple[list[_Column], bool]]:
    """The columns in as many parts as a width asks for: the first column in each, or the rows' numbers where it does not tell them.

    Numbers and the first column stay on a line; texts wrap between words, not below `NARROW` characters.
    """
    every = []
    for place, name in enumerate(header):
        cells = max((len(line[place]) for line in body), default=0)
        wraps = place > 0 and place not in numeric and cells > NARROW
        room = max(NARROW if wraps else cells, *map(len, name.split() or [""]))
        every.append(_Column(place, "\n".join(wrap(name, room, break_long_words=False) or [name]), wraps, room))
    widest = [max(len(line[place]) for line in [header, *body]) for place in range(len(header))]
    if sum(each + GAP for each in widest) <= width:
        return [([_Column(place, name, False, widest[place]) for place, name in enumerate(header)], False)]
    if sum(column.least + GAP for column in every) <= width or len(every) < 2:
        return [(every, False)]
    numbered = len({line[0] for line in body}) < len(body)
    first, others = ([], every) if numbered else (every[:1], every[1:])
    taken = GAP + len(str(len(body))) if numbered else first[0].least + GAP
    parts: list[list[_Column]] = [[]]
    for column in others:
        if parts[-1] and taken + sum(each.least + GAP for each in [*parts[-1], column]) > width:
            parts.append([])
        parts[-1].append(column)
    return [([*first, *part], numbered) for part in parts]
