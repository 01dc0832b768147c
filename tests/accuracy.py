"""The tables of docs/accuracy.md, made from presets and published figures: `python -m tests.accuracy` writes them.

What is written by hand stands around them; a test compares the page with what this makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import costmodel as cm
from costmodel.calibration.store import read_calibration
from costmodel.catalog import calibration_file, calibrations

from . import throughput
from .test_published import FIGURES, MISSES, NOT_REPRODUCED, ROWS

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table: the first column is words, numbers stand right where a head ends with a colon."""
    names = " | ".join(name.rstrip(":") for name in head)
    rule = " | ".join("---:" if name.endswith(":") else "---" for name in head)
    return "\n".join([f"| {names} |", f"| {rule} |", *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").strip()


def counts() -> str:
    """Exact counts of every preset, and what its total was compared with."""
    rows = []
    for name in cm.presets():
        model = cm.load(name)
        params = model.params
        exact = next((row for row in model.reference if row.quantity == "params.total" and row.tolerance == 0), None)
        rows.append(
            (
                f"`{name}`", f"{params.total:,}", f"{params.active:,}", f"{params.routed_experts:,}", f"{params.vision:,}",
                f"{model.cache_bytes(context=1):,}", f"{model.cache_bytes(context=131_072):,}",
                exact.source if exact and exact.value == params.total else "published totals alone; see its notes",
            )
        )  # fmt: skip
    head = ("Preset", "Total:", "Active:", "Routed experts:", "Vision:", "Cache, 1 token, B:", "Cache, 128k, B:", "Total equals")
    return table(head, rows)


def reproduced() -> str:
    """Every published figure that comes out, with ours."""
    rows = []
    for name, ours in FIGURES.items():
        row, value = ROWS[name], ours()
        error = value / row["value"] - 1
        told = "exact" if abs(error) < 1e-9 else f"{error:+.2%}"
        rows.append((row["model"], row["quantity"], _number(row["value"]), _number(value), row["unit"], told, row["source"]))
    return table(("Model", "Figure", "Published:", "Here:", "Unit", "Error:", "Source"), rows)


def missed() -> str:
    """Every published figure that does not come out, with ours and the reason."""
    rows = []
    for name, row in MISSES.items():
        ours = NOT_REPRODUCED[name]
        value = "" if ours is None else _number(ours())
        rows.append((row["model"], row["quantity"], _number(row["value"]), value, row["unit"], row["reason"], row["source"]))
    return table(("Model", "Figure", "Published:", "Here:", "Unit", "Why", "Source"), rows)


def kernels() -> str:
    """Errors of every shipped calibration on points that were not fitted."""
    rows = []
    for name in calibrations():
        for measured in read_calibration(calibration_file(name)).classes:
            scores, roof = measured.held_out, measured.roofline
            rows.append(
                (
                    f"`{name}`", measured.kernel, measured.dtype, f"{len(measured.seconds)}", f"{scores.n:,}",
                    f"{scores.median:.1%} / {scores.p90:.1%}", f"{scores.bias:+.1%}", f"{scores.coverage or 0:.1%}",
                    f"{roof.median:.0%} / {roof.p90:.0%}", measured.source,
                )
            )  # fmt: skip
    head = (
        "Calibration", "Kernels", "Format", "Fitted:", "Scored:", "Error, median / p90:", "Bias:", "In the interval:",
        "Pure roofline:", "Measured by",
    )  # fmt: skip
    return table(head, rows)


def published_throughput() -> str:
    """Every deployment whose throughput is published, with ours and where it operated."""
    rows = []
    for row in throughput.rows():
        ours = row.ours()
        bound = f"{row.within[0]:g} to {row.within[1]:g}" if row.within else "shown"
        rows.append(
            (
                row.title, _rate(row.published), _rate(ours), row.unit, f"{ours / row.published:.2f}", bound,
                row.point, row.why, row.source,
            )
        )  # fmt: skip
    head = ("Deployment", "Published:", "Predicted:", "Unit", "Ratio:", "Tested", "Operating point", "Remarks", "Source")
    return table(head, rows)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 1e6 else f"{value:.4e}"


TABLES = {"counts": counts, "reproduced": reproduced, "missed": missed, "kernels": kernels, "throughput": published_throughput}
MARKED = re.compile(r"(<!-- (\w+): made by tests/accuracy.py -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str) -> str:
    """The page with its tables made anew."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text)


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
