"""What a report says, as frozen data: every format is written from it, and nothing is worked out while it is written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from costmodel.errors import CostModelError, shown
from costmodel.formula import Formula
from costmodel.printing import as_python
from costmodel.tables import Table

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["model", "comparison", "plan", "calibration"]
State = Literal["published", "derived", "measured", "assumed"]
STATES: dict[State, str] = {
    "published": "read from a source that is named",
    "derived": "follows from the architecture by formulas shown here",
    "measured": "fitted to measured kernels, with errors on points not fitted",
    "assumed": "chosen by the reader, or a figure that no source gives",
}
"""How sure a figure is."""
EPOCH = date(1980, 1, 1)
"""The day of a document whose subject has none."""


@dataclass(frozen=True)
class Chart:
    """A figure: a plain plotly dict, words for those who do not see it, and the data of its live sliders where it has them."""

    name: str
    title: str
    words: str
    figure: dict[str, Any]
    live: dict[str, Any] | None = None


@dataclass(frozen=True)
class Assumption:
    """What a report's numbers rest on: a figure, its value in words, how sure it is, and where it comes from."""

    what: str
    value: str
    state: State
    source: str

    @property
    def row(self) -> dict[str, Any]:
        """As a plain dict."""
        return {"what": self.what, "value": self.value, "state": self.state, "source": self.source}


@dataclass(frozen=True, eq=False)
class Worked:
    """A formula of the appendix: whose it is, the numbers of its letters, and the line of Python that gives its value."""

    name: str
    owner: str
    formula: Formula
    inputs: dict[str, int]
    python: str

    @cached_property
    def value(self) -> int | float:
        """Its value."""
        return self.formula(**self.inputs)  # type: ignore[no-any-return]  # a call gives a number or an array; here a number

    @property
    def row(self) -> dict[str, Any]:
        """As a plain dict, exact."""
        return {
            "model": self.owner, "quantity": self.name, "value": self.value, "unit": self.formula.unit,
            "formula": as_python(self.formula.expr), "status": self.formula.status, "source": self.formula.source,
            "python": self.python,
        }  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A line that gives the same digits: a link of the dashboard, a command, Python."""

    what: str
    language: str
    text: str


Cells = Mapping[tuple[str, int, str], Formula]
"""Cells of tables that are formulas: by the table's name, the row's place and the column."""


@dataclass(frozen=True, eq=False)
class Report:
    """A report before it has a format: `report` writes it, a notebook shows it.

    `data` is all of it as JSON, exact and in base units. `cells` are the formulas behind cells of `tables`, `inputs` the letters
    that they are evaluated at; `files` are further files for a folder; `day` dates documents.

    >>> import costmodel as cm
    >>> found = cm.Report.of("gpt2", context=1024)
    >>> found.kind, found.name, [chart.name for chart in found.charts][:2]
    ('model', 'gpt2', ['layers', 'parameters'])
    """

    kind: Kind
    name: str
    title: str
    verdict: str
    about: tuple[str, ...]
    remarks: tuple[str, ...]
    inputs: dict[str, int]
    charts: tuple[Chart, ...]
    tables: tuple[Table, ...]
    assumptions: tuple[Assumption, ...]
    formulas: tuple[Worked, ...]
    conventions: dict[str, str]
    commands: tuple[Command, ...]
    data: dict[str, Any]
    cells: Cells = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    subject_day: date | None = None
    units: str = "GiB"

    @classmethod
    def of(cls, subject: Any, context: int = 131_072, batch: int = 1, **choices: Any) -> Report:
        """The report of a model, several, a plan, a calibration or a scenario; `choices` as `costmodel.report` takes them.

        Raises CostModelError for what no report is written about.
        """
        from costmodel.reporting.writing import made

        return made(subject, context, batch, **choices)

    def write(self, format: str, path: str | PathLike[str] | None = None, *, pdf: bool = True) -> Any:
        """The report in a format, as a text or as bytes; written to `path` where one is given.

        >>> import costmodel as cm
        >>> cm.Report.of("gpt2", context=1024).write("md").splitlines()[0]
        '# GPT-2'
        """
        from costmodel.reporting.writing import written

        return written(self, format, path, pdf=pdf)

    @property
    def day(self) -> date:
        """The day that documents bear: that of SOURCE_DATE_EPOCH, else the subject's own."""
        return fixed_day() or self.subject_day or EPOCH

    @property
    def told(self) -> tuple[Table, ...]:
        """All tables, those of assumptions, formulas and conventions among them."""
        rows = [each.row for each in self.assumptions]
        ends = [
            Table("assumptions", "Assumptions", rows, remarks=tuple(f"{state}: {words}" for state, words in STATES.items())),
            Table("formulas", "Formulas", [each.row for each in self.formulas], vertical=True),
            Table("conventions", "Conventions", [{"number": name, "counts": words} for name, words in self.conventions.items()]),
        ]
        return (*self.tables, *(table for table in ends if table.rows))

    @property
    def terminal(self) -> str:
        """The report as Markdown whose figures are words."""
        from costmodel.reporting.markdown import without_figures

        return without_figures(self)

    def frames(self) -> dict[str, pd.DataFrame]:
        """Every table as a DataFrame, by name.

        >>> import costmodel as cm
        >>> list(cm.Report.of("gpt2", context=1024).frames()["cache"]["theory_bytes"])
        [37748736]
        """
        from costmodel.frames import frame

        return {table.name: frame(list(table.rows)) for table in self.told}

    def __repr__(self) -> str:
        return f"<report of {self.name}: {len(self.charts)} figures, {len(self.told)} tables; write('html', path) writes it>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the report without its scripts."""
        from costmodel.reporting.page import as_fragment

        return as_fragment(self)

    def _repr_markdown_(self) -> str:
        from costmodel.reporting.markdown import as_text

        return as_text(self)


def fixed_day() -> date | None:
    """The day of SOURCE_DATE_EPOCH, which says when something is built reproducibly. Raises CostModelError for no number."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC).date()
    except (ValueError, OverflowError, OSError):
        raise CostModelError(f"SOURCE_DATE_EPOCH is {shown(text)}; give seconds since 1970, or unset it") from None


def pairs(values: Mapping[str, Any], name: str, value: str) -> list[dict[str, Any]]:
    """A dict as rows."""
    return [{name: key, value: number} for key, number in values.items()]


def latest(days: Sequence[date | None]) -> date | None:
    """The last of some days."""
    return max((day for day in days if day), default=None)
