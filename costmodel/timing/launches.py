"""Ledger rows as kernels: each of a class, with an array for each of its sizes at the points that differ for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr

from costmodel.cost import Cost, Weight
from costmodel.errors import CostModelError
from costmodel.evaluate import evaluate, walk_floats
from costmodel.formula import bound_values
from costmodel.hardware import Accelerator
from costmodel.ops import Op
from costmodel.quantities import Row
from costmodel.symbols import B, S, T
from costmodel.timing.points import Points
from costmodel.workload import Precision

Array = NDArray[np.float64]
NARROW = ("fp8", "int8")
"""Formats that activations are quantised to before a product."""
LETTERS = {"batch": B, "tokens": T, "context": S}


@dataclass(frozen=True, eq=False)
class Launch:
    """One ledger row as a device runs it: a class, and an array for each size at the points that differ for it.

    `index` says which of these each point of the pass is; `share` is its part of a kernel that does the work of several rows,
    and 0 at points that have no such kernel.
    """

    row: Row
    kernel: str
    dtype: str
    sizes: dict[str, Array]
    times: int
    index: Any = None
    share: Any = 1.0
    weights: Array | None = None
    """Of contexts that the sizes have a row each of, at every point."""
    place: float = float("inf")
    """Where its row stands in the ledger."""
    at: float | None = None
    """Where among the rows of its layer a message is sent."""

    def mean(self, values: Array) -> Array:
        """Values of its sizes, over the contexts that each point is the mean over."""
        return values if self.weights is None else values.reshape(-1, len(self.weights)) @ self.weights


def works(cost: Cost) -> bool:
    """Whether there is anything to do: a tower that sees no images only stores weights."""
    return bool(cost.kept) or any(part != 0 for part in (cost.flops, cost.vector_flops, cost.activations))


@dataclass(frozen=True, eq=False)
class RowKernel:
    """A ledger row as a kernel to be: its class, the columns of points that it depends on, and what tells it from others.

    Rows of equal ops and letters are `same`: their sizes are worked out once.
    """

    row: Row
    place: int
    kernel: str
    columns: frozenset[str]
    binding: int
    same: tuple[int, int]

    @classmethod
    def of(cls, row: Row, place: int, binding: int) -> RowKernel:
        """Raises CostModelError where no class fits."""
        kernel = row.op.kernel or {"scan": "scan", "attend": "scan", "conv": "conv", "gather": "gather"}.get(row.op.kind, "memory")
        if kernel not in SHAPES:
            raise CostModelError(f"no kernel class for row {'/'.join(row.path)} of kind {row.op.kind}")
        return cls(row, place, kernel, _columns(row.op, kernel, tuple(row.binding.items())), binding, (id(row.op), binding))


@dataclass(frozen=True, eq=False)
class Numbers:
    """Numbers for letters at some points; for each row, at those of them that differ for it."""

    points: Points
    formats: Precision
    device: Accelerator
    _kept: dict[int, dict[Any, Any]] = field(default_factory=dict)
    """For each binding of letters its numbers, with those of all expressions of them."""
    _parts: dict[frozenset[str], tuple[Numbers, Any, Array | None]] = field(default_factory=dict)
    _shaped: dict[Any, Any] = field(default_factory=dict)
    """Sizes of rows, and of products merged, that other rows have too."""

    def launch(self, kernel: RowKernel) -> Launch | None:
        """A row as a kernel; None for what is fused into its neighbour and moves nothing."""
        here, index, weights = self.part(kernel.columns)
        if kernel.same not in self._shaped:
            self._shaped[kernel.same] = here._sizes(kernel)
        name, dtype, sizes = self._shaped[kernel.same]
        return (
            None if sizes is None else Launch(kernel.row, name, dtype, sizes, kernel.row.times, index, 1.0, weights, kernel.place)
        )

    def _sizes(self, kernel: RowKernel) -> tuple[str, str, dict[str, Array] | None]:
        name, sizes = SHAPES[kernel.kernel](self, kernel.row)
        if not next(iter(sizes.values())).all() or (kernel.kernel == "attention" and not self.moved(kernel.row).all()):
            return name, "", None  # a tower without images
        return name, self._dtype(kernel.row, name), sizes

    def part(self, columns: frozenset[str]) -> tuple[Numbers, Any, Array | None]:
        """The same at the points that differ in some columns, which of them each point is, and weights of contexts in each."""
        if columns not in self._parts:
            self._parts[columns] = self._part(columns)
        return self._parts[columns]

    def _part(self, columns: frozenset[str]) -> tuple[Numbers, Any, Array | None]:
        if self.points.contexts is None:
            points, index = self.points.distinct(columns)
            return self if points is self.points else Numbers(points, self.formats, self.device), index, None
        points, index = self.points.distinct(columns - {"context"})
        if "context" in columns:
            return Numbers(points.expanded(), self.formats, self.device), index, self.points.contexts[1]
        return self if points is self.points else Numbers(points, self.formats, self.device), index, None

    def value(self, row: Row, expr: Expr) -> Array:
        """An expression of a row at every point."""
        single = len(self.points) == 1
        if single and (fixed := _fixed(expr, _Bound(row.binding))) is not None:
            return fixed
        kept = self._kept.get(id(row.binding))
        if kept is None:
            kept = self._kept[id(row.binding)] = self._letters(row)
        found = walk_floats(expr, kept)
        return np.asarray(found) if isinstance(found, np.ndarray) else np.full(len(self.points), float(found))

    def _letters(self, row: Row) -> dict[Any, Any]:
        """What is the same at every point is a number."""
        known: dict[Any, Any] = {}
        for name, letter in LETTERS.items():
            values = getattr(self.points, name)
            known[letter] = float(values[0]) if (values == values[0]).all() else values
        plain = {letter: int(value) for letter, value in known.items() if not isinstance(value, np.ndarray)}
        bound = {letter: float(value) for letter, value in bound_values(row.binding, plain).items()}
        for letter, expr in row.binding.items():  # a letter that stands for an expression of the workload's
            if letter not in bound:
                known[letter] = walk_floats(expr, known)
        return known | bound

    def shape(self, row: Row) -> dict[str, Array]:
        """The sizes that an op gives itself."""
        return {name: self.value(row, expr) for name, expr in row.op.shape}

    def stored(self, row: Row) -> Array:
        """Bytes an element of the row's matrices, as they are kept."""
        return self.value(row, _bytes_an_element(row.op.cost.weights[0], self.formats))

    def moved(self, row: Row) -> Array:
        """Bytes a rank moves of a row in one layer."""
        return self.value(row, _bytes_moved(row.op.cost, self.formats)) / self.shared(row)

    def shared(self, row: Row) -> Array:
        """How many ranks do a row's work together: those of tensor parallelism, and those that have a part of a prompt each."""
        together = np.ones(len(self.points)) if row.op.split in ("none", "vocabulary") else self.points.tp
        return together if self.points.single else together * self.points.cp

    def _dtype(self, row: Row, kernel: str) -> str:
        """The format that the device multiplies in: that of the weights where it has a peak for it, else the activations'."""
        wide = "fp32" if self.formats.activations == "fp32" else "bf16"
        if kernel not in ("gemm", "moe"):
            return wide
        stored = self.formats.matrix(row.op.cost.weights[0].role).name
        return stored if stored in NARROW and stored in self.device.peak_flops_per_s else wide


@dataclass(frozen=True)
class _Bound:
    """A binding that is told from others as an object: those of ledgers that clocks keep stay what they are."""

    letters: dict[Any, Expr] = field(hash=False)

    def __hash__(self) -> int:
        return id(self.letters)


@lru_cache(maxsize=32_768)
def _fixed(expr: Expr, bound: _Bound) -> Array | None:
    """What a row's expression is where it knows nothing of the workload, as an array of one; else None."""
    letters = _letters_of(expr)
    numbers = {letter: bound.letters[letter] for letter in letters if letter in bound.letters}
    if len(numbers) < len(letters) or any(not number.is_Integer for number in numbers.values()):
        return None
    found = np.array([float(evaluate(expr, {letter: int(number) for letter, number in numbers.items()}))])
    found.setflags(write=False)
    return found


@lru_cache(maxsize=8192)
def _letters_of(expr: Expr) -> frozenset[Any]:
    return frozenset(expr.free_symbols)


@lru_cache(maxsize=8192)
def _columns(op: Op, kernel: str, binding: tuple[tuple[Any, Expr], ...]) -> frozenset[str]:
    """The columns of points that a row's kernel depends on."""
    exprs: list[Expr] = [op.cost.flops, op.cost.activations, *(expr for _, expr in op.shape), *(expr for _, expr in binding)]
    letters = frozenset().union(*map(_letters_of, exprs))
    if kernel in ("attention", "scan") or any(kept.per_token for kept in op.cost.kept):
        letters |= {S}
    if op.cost.kept:
        letters |= {B}
    named = {name for name, letter in LETTERS.items() if letter in letters}
    return frozenset({*named, "tp", "cp", *(("dp", "ep", "imbalance") if kernel == "moe" else ())})


@lru_cache(maxsize=4096)
def _bytes_moved(cost: Cost, formats: Precision) -> Expr:
    return cost.bytes_moved(formats)


@lru_cache(maxsize=4096)
def _bytes_an_element(weight: Weight, formats: Precision) -> Expr:
    return weight.bytes(formats) / weight.elements


Shaped = tuple[str, dict[str, Array]]


def _gemm(numbers: Numbers, row: Row) -> Shaped:
    sizes, points = numbers.shape(row), numbers.points
    tp = points.tp
    if not points.single and row.group != "head":
        sizes["m"] = np.ceil(sizes["m"] / points.cp)
    if row.op.heads is not None:
        heads = numbers.value(row, row.op.heads)
        sizes["n"] = sizes["n"] * np.ceil(heads / tp) / heads
    elif shared := {"columns": "n", "rows": "k"}.get(row.op.split):
        sizes[shared] = np.maximum(sizes[shared] / tp, 1)
    return "gemm", {**sizes, "stored": numbers.stored(row)}


def _moe(numbers: Numbers, row: Row) -> Shaped:
    """A third of the class, which is three products: each has the class's FLOPs and bytes over three.

    The tokens of all data-parallel groups meet at the experts, which are spread over ep ranks and cut over the others.
    """
    sizes, points = numbers.shape(row), numbers.points
    wide, narrow = np.maximum(sizes["hidden"], sizes["inter"]), np.minimum(sizes["hidden"], sizes["inter"])
    rest = {
        "tokens": sizes["tokens"] * points.dp,
        "tp": points.tp * points.dp * points.cp / points.ep,
        "ep": points.ep,
        "skew": np.zeros(len(points)),
        "busiest": points.imbalance,
        "stored": numbers.stored(row),
    }
    return "moe", {**sizes, "hidden": wide, "inter": narrow, **rest}


def _attention(numbers: Numbers, row: Row) -> Shaped:
    """Of single tokens or of many; where fewer pairs are seen than causally, as after a shorter (or negative) prefix.

    Context-parallel ranks have a part each of the keys of a single token, or of a prompt's queries.
    """
    sizes, points = numbers.shape(row), numbers.points
    batch, tokens = numbers.value(row, B), numbers.value(row, T)
    heads, kv_heads = np.maximum(sizes["heads"] / points.tp, 1), np.ceil(sizes["kv_heads"] / points.tp)
    kv_heads = np.where(kv_heads > heads, heads, kv_heads)
    seen = sizes["pairs"] / np.maximum(tokens, 1)
    cache = np.full(len(batch), float(evaluate(numbers.formats.element("cache"), {}))) if _plain_cache(numbers) else None
    kept = {"stored": cache} if cache is not None else {}
    if points.single:
        seen, heads = np.maximum(seen / points.cp, 1), heads * (tokens if row.op.algorithm != "absorbed" else 1)
    else:
        tokens = np.ceil(tokens / points.cp)
    if row.op.algorithm == "absorbed":
        rope = sizes["d_qk"] - sizes["d_v"]
        return "mla_decode", {
            "batch": batch, "context": seen, "heads": heads * tokens, "latent": sizes["d_v"], "rope": rope, **kept
        }  # fmt: skip
    width = (sizes["d_qk"] + sizes["d_v"]) / 2
    common = {"batch": batch, "heads": heads, "kv_heads": kv_heads, "head_dim": width}
    if points.single:
        return "decode_attention", {**common, "context": seen, **kept}
    return "prefill_attention", {**common, "tokens": tokens, "prefix": seen - (tokens + 1) / 2}


def _plain_cache(numbers: Numbers) -> bool:
    return numbers.formats.cache != "fp8_ds_mla"


def _scan(numbers: Numbers, row: Row) -> Shaped:
    """A recurrence in steps over many tokens is no kernel of one step."""
    flops = numbers.value(row, row.op.cost.flops) / numbers.shared(row)
    kernel = row.op.kernel or "scan"
    single = numbers.points.single
    return "scan" if not single and kernel.endswith("_step") else kernel, {
        "bytes": numbers.moved(row),
        "flops": flops,
        "tokens": numbers.points.tokens,
    }


def _memory(numbers: Numbers, row: Row) -> Shaped:
    return row.op.kernel or "memory", {"bytes": numbers.moved(row)}


SHAPES: dict[str, Callable[[Numbers, Row], Shaped]] = {
    "gemm": _gemm, "moe": _moe, "attention": _attention,
    **dict.fromkeys(("scan", "gdn_chunked", "gdn_step", "ssd_chunked", "ssd_step"), _scan),
    **dict.fromkeys(("memory", "norm", "gate", "rope", "gather", "conv"), _memory),
}  # fmt: skip
"""How the numbers of a row become the sizes of its class."""


def merged(launches: Sequence[Launch], numbers: Numbers, width: int) -> Iterator[Launch]:
    """Products that read the same input run as one, side by side: each has its share of the columns.

    These are products of a size one after another, and those of a layer's input (`width` wide) before it attends, whatever
    stands between them: latent attention's two projections down run as one.
    """
    attending = {(launch.row.group, launch.row.block): launch.place for launch in launches if launch.row.op.kind == "attend"}
    found: dict[Any, list[Launch]] = {}
    last: Any = None
    for launch in launches:
        if launch.kernel != "gemm":
            last = None
            key: Any = launch.place
        else:
            block, m, k = (launch.row.group, launch.row.block), launch.sizes["m"], launch.sizes["k"]
            alike = (*block, launch.dtype, id(launch.index), len(m), m[0], m[-1], k[0], k[-1])
            early = k[0] == width and launch.place < attending.get(block, -1)
            if last is None or last[0] != alike:
                last = (alike, launch.place)
            key = (alike, None) if early else last
        found.setdefault(key, []).append(launch)
    for side_by_side in found.values():
        yield from _together(side_by_side, numbers)


def _together(side_by_side: list[Launch], numbers: Numbers) -> Iterator[Launch]:
    if len(side_by_side) == 1:
        yield side_by_side[0]
        return
    key = tuple(id(launch.sizes) for launch in side_by_side)
    if key not in numbers._shaped:
        numbers._shaped[key] = {**side_by_side[0].sizes, "n": np.sum([launch.sizes["n"] for launch in side_by_side], axis=0)}
    together = numbers._shaped[key]
    for launch in side_by_side:
        yield replace(launch, share=launch.sizes["n"] / together["n"], sizes=together)


def by_rows(launch: Launch, apart: bool) -> Iterator[Launch]:
    """A product of one row is a class of its own, where a device has it measured `apart`."""
    one = launch.sizes["m"] == 1 if launch.kernel == "gemm" and apart else np.zeros(1, dtype=bool)
    if one.all():
        yield replace(launch, kernel="gemv")
    elif one.any():
        yield replace(launch, share=launch.share * ~one)
        yield replace(launch, kernel="gemv", share=launch.share * one)
    else:
        yield launch
