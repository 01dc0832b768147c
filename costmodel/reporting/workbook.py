"""A report as a workbook (XLSX): sheets of exact numbers, with our own formulas live in their cells.

Letters stand on the sheet Inputs: another context there, and every sheet follows. Each live cell carries the value that Python
gave too. Texts are written as texts: none becomes a formula or a link.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from typing import Any

from costmodel.errors import CostModelError
from costmodel.formula import Formula
from costmodel.printing import as_excel
from costmodel.reporting.contents import Report
from costmodel.symbols import LETTERS
from costmodel.tables import Table, clean, unit_of

MOST_CHARACTERS = 32_000
"""Of a cell; Excel takes 32,767."""
MOST_FORMULA = 8_000
"""Characters of a formula; Excel takes 8,192. A longer one is written as its value."""
NUMBERS = {"share": "0.0%", "s": "0.000000", "FLOP/s": "0.000E+00", "tokens/s": "#,##0.0"}
"""How numbers of a unit look; every other one has separators."""
LINE, LONG = 15, 24
"""The height of a line of text, and the characters from which a cell's text is wrapped."""
INPUTS, FIRST = "Inputs", 3
"""The sheet of the letters, and the row of the first of them, from 1."""


def as_xlsx(report: Report) -> bytes:
    """A report as a workbook. Raises CostModelError where xlsxwriter is not installed."""
    if find_spec("xlsxwriter") is None:
        raise CostModelError("a workbook needs xlsxwriter, which is not installed; run: pip install 'costmodel[report]'")
    content = BytesIO()
    book = import_module("xlsxwriter").Workbook(
        content, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    )
    day = datetime(*report.day.timetuple()[:3], tzinfo=UTC).replace(tzinfo=None)
    book.set_properties({"title": _plain(report.title)[:200], "comments": "written by costmodel", "created": day})
    book.set_calc_mode("auto")
    _Book(book, report).write()
    book.close()
    return content.getvalue()


class _Book:
    """Writes the sheets of one report."""

    def __init__(self, book: Any, report: Report) -> None:
        self.book, self.report = book, report
        self.bold = book.add_format({"bold": True, "text_wrap": True, "valign": "top"})
        self.words = book.add_format({"text_wrap": True, "valign": "top"})
        self.given = book.add_format({"num_format": "#,##0", "bg_color": "#FFF2CC"})
        self.looks = {unit: book.add_format({"num_format": look, "valign": "top"}) for unit, look in NUMBERS.items()}
        self.whole, self.other = (
            book.add_format({"num_format": "#,##0", "valign": "top"}),
            book.add_format({"num_format": "#,##0.######", "valign": "top"}),
        )

    def write(self) -> None:
        """All sheets: what it is about, the letters, the formulas, and a sheet for each table."""
        self.front(self.sheet("Report"))
        if self.report.inputs:
            self.letters(self.sheet(INPUTS))
        taken = {"report", INPUTS.lower()}
        for table in self.report.told:
            if table.name != "formulas":
                self.table(self.sheet(_name(table, taken)), table)

    def sheet(self, name: str) -> Any:
        """A new sheet."""
        found = self.book.add_worksheet(name)
        found.set_column(0, 0, 28)
        found.set_column(1, 20, 20)
        return found

    def front(self, sheet: Any) -> None:
        """Title, verdict and lines that give the same digits."""
        sheet.set_column(0, 0, 110)
        report = self.report
        sheet.write_string(0, 0, _plain(report.title), self.bold)
        lines = [report.verdict, *report.about, *report.remarks, "The same digits:", *(each.text for each in report.commands)]
        if report.inputs:
            lines.append(f"Numbers on other sheets follow the yellow cells of the sheet {INPUTS}.")
        for row, line in enumerate(lines, 2):
            told = list(map(_plain, line.split("\n")))
            sheet.write_string(row, 0, "\n".join(told), self.words)
            sheet.set_row(row, LINE * sum(-(-len(text) // 100) or 1 for text in told))

    def letters(self, sheet: Any) -> None:
        """The letters' cells, then each formula of the appendix, live."""
        sheet.write_row(0, 0, ["input", "value", "meaning"], self.bold)
        sheet.write_string(1, 0, "change these", self.words)
        cells = self.cells()
        for row, (field, value) in enumerate(cells_values(self.report).items(), FIRST - 1):
            sheet.write_string(row, 0, field)
            sheet.write_number(row, 1, value, self.given)
            sheet.write_string(row, 2, next(letter.meaning for letter in LETTERS.values() if letter.field == field))
        start = FIRST + len(cells) + 1
        sheet.write_row(start, 0, ["quantity", "value", "unit", "model", "status", "source", "Python"], self.bold)
        for row, each in enumerate(self.report.formulas, start + 1):
            sheet.write_string(row, 0, each.name)
            self.live(sheet, row, 1, each.formula, each.value, cells, each.formula.unit)
            words = (each.formula.unit, each.owner, each.formula.status, each.formula.source, each.python)
            for column, text in enumerate(words, 2):
                sheet.write_string(row, column, _plain(text))

    def cells(self) -> dict[str, str]:
        """Where each letter stands."""
        return {field: f"{INPUTS}!$B${row}" for row, field in enumerate(cells_values(self.report), FIRST)}

    def live(self, sheet: Any, row: int, column: int, formula: Formula, value: Any, cells: dict[str, str], unit: str) -> None:
        """A formula and the value that Python gives; a letter without a cell, or a formula too long for one, leaves the value."""
        needs = {LETTERS[symbol.name].field for symbol in formula.symbols}
        printed = as_excel(formula.expr, cells) if needs <= cells.keys() else ""
        if printed and needs and len(printed) < MOST_FORMULA:
            sheet.write_formula(row, column, f"={printed}", self.look(value, unit), value)
        else:
            sheet.write_number(row, column, value, self.look(value, unit))

    def table(self, sheet: Any, table: Table) -> None:
        """A table with its units in the heads of its columns, and its formulas live."""
        columns = list(dict.fromkeys(name for row in table.rows for name in row)) + (["unit"] if table.row_units else [])
        sheet.write_string(0, 0, _plain(table.title), self.bold)
        for column, name in enumerate(columns):
            unit = table.units.get(name)
            sheet.write_string(2, column, _plain(f"{name} [{unit}]" if unit else name), self.bold)
        for place, row in enumerate(table.rows):
            longest = max(len(value) if isinstance(value, str) else 0 for value in row.values())
            sheet.set_row(3 + place, LINE * min(-(-longest // 20), 20) if longest > LONG else LINE)
            for column, name in enumerate(columns):
                self.cell(sheet, table, place, columns, column, row.get(name) if name != "unit" or not table.row_units else None)
        for down, remark in enumerate(table.remarks, len(table.rows) + 4):
            sheet.write_string(down, 0, _plain(remark))

    def cell(self, sheet: Any, table: Table, place: int, columns: list[str], column: int, value: Any) -> None:
        """One cell: a formula of ours, a number, or a text."""
        name, row, line = columns[column], 3 + place, table.rows[place]
        formula = self.report.cells.get((table.name, place, name))
        unit = unit_of(table, line, name)
        if table.row_units and name == "unit":
            sheet.write_string(row, column, table.row_units.get(str(next(iter(line.values()))), ""))
        elif formula is not None:
            in_row = {
                field: f"${_letter(at)}{row + 1}"
                for at, field in enumerate(columns)
                if field in self.cells() and not table.row_units
            }
            self.live(sheet, row, column, formula, value, self.cells() | in_row, unit)
        elif isinstance(value, bool) or value is None:
            sheet.write_string(row, column, {None: "", True: "yes", False: "no"}[value])
        elif isinstance(value, (int, float)):
            sheet.write_number(row, column, value, self.look(value, unit))
        else:
            sheet.write_string(row, column, _plain(str(value)), self.words if len(str(value)) > LONG else None)

    def look(self, value: Any, unit: str) -> Any:
        """How a number is shown."""
        return self.looks.get(unit) or (self.whole if isinstance(value, int) or unit == "bytes" else self.other)


def cells_values(report: Report) -> dict[str, int]:
    """The letters of a report, with the new tokens that a decode step has."""
    return {**report.inputs, "new_tokens": 1}


def _letter(column: int) -> str:
    return chr(ord("A") + column)


def _plain(text: str) -> str:
    return clean(text)[:MOST_CHARACTERS]


def _name(table: Table, taken: set[str]) -> str:
    """A sheet's name: 31 characters, none that Excel refuses, none twice."""
    plain = "".join(character if character.isalnum() or character in " -_." else " " for character in table.name)[:28].strip()
    name = next(name for name in _numbered(plain or "table") if name.lower() not in taken)
    taken.add(name.lower())
    return name


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name[:26]} {place}" for place in range(2, 1000))
