"""Designs that a search found: an architecture with a few changes, what it costs, and the front of those that no other beats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from costmodel.architecture import Architecture
from costmodel.catalog import as_toml
from costmodel.designing.moves import Costs
from costmodel.errors import CostModelError
from costmodel.errors import shown as quoted
from costmodel.frames import frame
from costmodel.tables import Table
from costmodel.units import binary_bytes

if TYPE_CHECKING:
    import pandas as pd

TITLES = {
    "cache_bytes": "cache", "decode_flops": "decode FLOPs", "prefill_flops": "prefill FLOPs", "params_total": "parameters",
    "params_active": "active parameters",
}  # fmt: skip
TOLD = (
    "design",
    "best",
    "what",
    "cache_bytes",
    "decode_flops",
    "decode_flops_ratio",
    "params_total",
    "params_total_ratio",
    "distance",
)
MOST_TOLD = 30
"""Columns and rows that people see; data formats have all."""


@dataclass(frozen=True)
class Design:
    """An architecture with a few changes, and what it costs at the context and batch of the search.

    `edits` are paths as `variants.edited` takes them (`local/mixer/sliding_window=2048`), `moves` the changes in words,
    `changes` their number; `held`, widths that hold FLOPs or parameters, are none. `loss` is the relative change of parameters
    plus that of a decode step's FLOPs. `distance`, how big the change is, is `changes` + loss / (1 + loss): first the number
    of changes, then the loss. Bytes, FLOP and parameters are exact.
    """

    edits: tuple[str, ...]
    moves: tuple[str, ...]
    cache_precision: str
    cache_bytes: int
    decode_flops: int
    prefill_flops: int
    params_total: int
    params_active: int
    changes: int
    held: tuple[str, ...]
    base: Costs = field(repr=False)
    model: Architecture = field(repr=False, compare=False)

    @property
    def costs(self) -> Costs:
        """Its costs together."""
        return Costs(*(getattr(self, name) for name in Costs._fields))

    @property
    def ratios(self) -> dict[str, float | None]:
        """Each cost as a multiple of the base's; None where the base has none of it."""
        return {name: cost / now if now else None for name, cost, now in zip(Costs._fields, self.costs, self.base, strict=True)}

    @property
    def loss(self) -> float:
        """Relative change of parameters plus relative change of decode FLOPs, in either direction."""
        return loss_of(self.costs, self.base)

    @property
    def distance(self) -> float:
        """How big the change is: the number of changes, then the loss."""
        return self.changes + self.loss / (1 + self.loss)

    @property
    def what(self) -> str:
        """The changes, and what holds FLOPs or parameters equal, in words."""
        held = f" (held by {', '.join(self.held)})" if self.held else ""
        return ("; ".join(self.moves) or "no change") + held

    @property
    def why(self) -> str:
        """What it changes and what that does, in one sentence."""
        told = {name: _share(ratio) for name, ratio in self.ratios.items() if ratio is not None}
        shares = ", ".join(f"{TITLES[name]} {told[name]}" for name in ("decode_flops", "prefill_flops", "params_total"))
        less = f", {told['cache_bytes']}" if "cache_bytes" in told else ""
        return f"{self.what}: {binary_bytes(self.cache_bytes)} of cache{less}; {shares}"

    @property
    def toml(self) -> str:
        """The architecture as a TOML file, which loads to the same numbers; its notes say what was changed.

        The cache's format is no part of the file.
        """
        if not self.edits:
            return as_toml(self.model)
        changed = f"changed from {self.model.name}: {' '.join(self.edits)} (cache in {self.cache_precision})"
        about = {"name": f"{self.model.name[:70]}-changed", "title": f"{self.model.title}, changed"}
        return as_toml(self.model.model_copy(update={**about, "notes": (*self.model.notes, changed)}))

    def row(self) -> dict[str, Any]:
        """Its numbers by name."""
        ratios = {f"{name}_ratio": ratio for name, ratio in self.ratios.items()}
        return {
            "changes": self.changes, **self.costs._asdict(), **ratios, "loss": self.loss, "distance": self.distance,
            "cache_precision": self.cache_precision, "what": self.what, "edits": " ".join(self.edits),
        }  # fmt: skip


@dataclass(frozen=True)
class Designs:
    """What a search found: the Pareto front of the designs that meet the limits, smallest change first.

    `best` answers the question: with a limit of cache, the smallest `distance` that fits (ties: the least cache); without, the
    least of the first objective. Where nothing meets the limits the front is empty, `best` is None, and `nearest` is the
    design that misses them by the least; it is None otherwise. `looked` designs were priced, `fitting` of them meet the limits;
    `impossible` combinations were left out, because no architecture may be so.
    """

    base: Design
    front: tuple[Design, ...]
    best: Design | None
    nearest: Design | None
    objective: tuple[str, ...]
    looked: int
    fitting: int
    impossible: int
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        """In a line: all of them are in `table`."""
        best = self.best.what if self.best else "nothing meets the limits"
        return f"<designs from {self.base.model.name}: {len(self.front):,} on the front of {self.looked:,}; best: {best}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return str(self.table.to_html(index=False))

    @property
    def shown(self) -> tuple[Design, ...]:
        """The front, or the nearest miss where nothing meets the limits."""
        return self.front or tuple(design for design in (self.nearest,) if design)

    @property
    def why(self) -> tuple[str, ...]:
        """One sentence for each of `shown`."""
        return tuple(design.why for design in self.shown)

    @property
    def table(self) -> pd.DataFrame:
        """One row a design of `shown`: its costs, their ratios to the base, the distance and the edits."""
        return frame([design.row() for design in self.shown])

    def numbered(self, number: int) -> Design:
        """A design of `shown` by its number in the table, from 1. Raises CostModelError for a number that is not there."""
        if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= len(self.shown):
            return self.shown[number - 1]
        raise CostModelError(f"no design {quoted(number)}; give a number from 1 to {len(self.shown)}")

    def table_for(self, *, people: bool) -> Table:
        """The rows as a table; for people the columns that fit a screen."""
        rows = [{"design": place, "best": design == self.best} | design.row() for place, design in enumerate(self.shown, 1)]
        told = [{name: row[name] for name in TOLD} | {"distance": round(row["distance"], 3)} for row in rows]
        short = [row for place, row in enumerate(told) if place < MOST_TOLD or row["best"]]
        more = (f"{len(told) - len(short)} more designs are on the front: --format csv or json lists all",)
        notes = (*self.notes, *(more if people and len(short) < len(told) else ()))
        units = {"cache_bytes": "bytes", "decode_flops": "FLOP", "prefill_flops": "FLOP", "params_total": "parameters"}
        ratios = {f"{name}_ratio": "share" for name in Costs._fields}
        return Table("design", f"Designs from {self.base.model.title}", short if people else rows, units | ratios, notes)


def _share(ratio: float) -> str:
    """A multiple of the base's in words.

    >>> _share(1.0), _share(0.996), _share(0.0004883), _share(5.7)
    ('as now', '99.6% of now', '0.04883% of now', '570% of now')
    """
    return "as now" if ratio == 1 else f"{100 * ratio:.4g}% of now"


def loss_of(costs: Costs, base: Costs) -> float:
    """Relative change of parameters plus that of decode FLOPs, in either direction."""
    pairs = ((costs.params_total, base.params_total), (costs.decode_flops, base.decode_flops))
    return float(sum(abs(cost - now) / now for cost, now in pairs if now))
