"""Answers in a notebook: rows as a pandas DataFrame that keeps exact integers exact, facts as a small table.

pandas is imported here alone, and only when called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

INT64_END = 1 << 63


def frame(rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A DataFrame; a column of ints whose sum could leave 64 bits holds Python ints, which do not wrap.

    >>> int(frame([{"flops": 1 << 62}, {"flops": 1 << 62}])["flops"].sum()) == 1 << 63
    True
    """
    import pandas as pd

    names = list(columns or dict.fromkeys(name for row in rows for name in row))
    return pd.DataFrame({name: pd.Series(_exact([row.get(name) for row in rows])) for name in names}, columns=names)


def facts(title: str, values: Mapping[str, Any]) -> str:
    """A title and named values as the HTML table that a notebook shows; no text is taken for HTML.

    >>> facts("<gpt2>", {"parameters": 124_439_808, "fits": True})
    '<table><caption>&lt;gpt2&gt;</caption><tr><th>parameters</th><td>124,439,808</td></tr><tr><th>fits</th><td>yes</td></tr></table>'
    """
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(_told(value))}</td></tr>" for name, value in values.items())
    return f"<table><caption>{escape(title)}</caption>{rows}</table>"


def _told(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if isinstance(value, float) else str(value)


def _exact(values: list[Any]) -> Any:
    import pandas as pd

    wide = all(type(value) is int for value in values) and sum(map(abs, values)) >= INT64_END
    return pd.array(values, dtype=object) if wide else values
