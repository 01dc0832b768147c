"""Rows as a pandas DataFrame that keeps exact integers exact. pandas is imported here alone, and only when called."""

from __future__ import annotations

from collections.abc import Sequence
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


def _exact(values: list[Any]) -> Any:
    import pandas as pd

    wide = all(type(value) is int for value in values) and sum(map(abs, values)) >= INT64_END
    return pd.array(values, dtype=object) if wide else values
