"""From ledger rows to seconds: each row is a kernel of a class, of a shape, on a device; a pass is their sum.

A clock times passes of one model on one device over arrays of points: batches, contexts and layouts at once. What is the same at
many points (a product knows no context, an expert no data-parallel group) is timed once.
"""

from __future__ import annotations

import os
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr

from costmodel.architecture import Architecture
from costmodel.calibration.fit import Fit, guessed
from costmodel.calibration.store import Calibration, read_calibration
from costmodel.catalog import calibration_file, calibrations
from costmodel.cost import THEORY, Cost, Kept, Weight
from costmodel.errors import CostModelError
from costmodel.evaluate import evaluate, walk_floats
from costmodel.footprint import dispatch_bytes
from costmodel.formula import bound_values
from costmodel.hardware import Accelerator
from costmodel.kernels import ON_LINKS, PARAMETERS, Peaks, bound_by, kernel_class, pnorm
from costmodel.ops import Op
from costmodel.overlapping import ATTENTION, COMBINE, DISPATCH, Stretch, overlapped
from costmodel.parallelism import Parallel
from costmodel.quantities import Row
from costmodel.symbols import B, S, T
from costmodel.workload import Options, Phase, Precision

Array = NDArray[np.float64]
MINOR = 0.05
"""Share of a pass below which a guessed class leaves the whole calibrated."""
LENDER = "h100-sxm"
"""Whose fractions of the datasheet an accelerator takes that nobody measured."""
OVERLAP = 4.0
"""How sharply the slower of device and host decides (pnorm)."""
DECODE_FORMS = ("absorbed", "recurrent")
"""Algorithms that decode takes, where a few tokens are checked at once."""
UNITS_LEFT = 108 / 132
"""Share of a device's units that compute beside the messages of prompts: kernels on 24 of a Hopper's 132 forward them (the
setting of DeepEP's first version, and of SGLang with it). Those of single tokens, which the network moves alone, take none."""
BOUNDS = ("compute", "memory", "latency", "link")
NARROW = ("fp8", "int8")
"""Formats that activations are quantised to before a product."""
LETTERS = {"batch": B, "tokens": T, "context": S}


@dataclass(frozen=True, eq=False)
class Points:
    """Passes to be timed, an entry each: what one rank sees of them, and its layout.

    `batch` sequences of its data-parallel group, `tokens` new ones of each (all of them 1, or none), `context` after the pass.
    """

    batch: Array
    tokens: Array
    context: Array
    tp: Array
    dp: Array
    cp: Array
    pp: Array
    ep: Array
    imbalance: Array
    contexts: tuple[Array, Array] | None = None
    """Contexts and their weights: each point is the mean over them, and its own context counts for nothing."""
    verify: bool = False
    """Whether the new tokens are guesses that a pass checks: few, in the forms that decode takes, with logits for each."""
    _found: dict[frozenset[str], tuple[Points, Any]] = field(default_factory=dict)

    NAMES = ("batch", "tokens", "context", "tp", "dp", "cp", "pp", "ep", "imbalance")

    @classmethod
    def of(cls, layout: Parallel, batch: Any, tokens: Any, context: Any) -> Points:
        """Points of one layout: numbers and arrays broadcast."""
        given = (batch, tokens, context, *(getattr(layout, name) for name in cls.NAMES[3:]))
        return cls.stacked(*given)

    @classmethod
    def stacked(cls, *columns: Any) -> Points:
        """Points from numbers and arrays in the order of `NAMES`."""
        arrays: list[Any] = [np.array(column, dtype=np.float64) for column in np.broadcast_arrays(*map(np.atleast_1d, columns))]
        return cls(*arrays)

    def __len__(self) -> int:
        return len(self.batch)

    @cached_property
    def single(self) -> bool:
        """Whether each sequence has one new token, or few that a pass checks: decode, whose tokens stay together."""
        return self.verify or bool((self.tokens == 1).all())

    @property
    def rows(self) -> Array:
        """Tokens that pass through a rank's matrices: a prompt's are spread over context-parallel ranks, a single one is not."""
        return self.batch * self.tokens if self.single else self.batch * np.ceil(self.tokens / self.cp)

    @property
    def ranks(self) -> Array:
        """Devices of a stage."""
        return self.tp * self.dp * self.cp

    @property
    def together(self) -> Array:
        """Ranks that have the same tokens: those of a group, over which a prompt's are spread where it has context ranks."""
        return self.tp * (self.cp if self.single else 1.0)

    def distinct(self, names: frozenset[str]) -> tuple[Points, Any]:
        """The points that differ in some columns, and which of them each point is (None: all do)."""
        if len(self) == 1:
            return self, None
        if names not in self._found:
            self._found[names] = self._distinct(names)
        return self._found[names]

    def _distinct(self, names: frozenset[str]) -> tuple[Points, Any]:
        code, every = np.zeros(len(self), dtype=np.int64), 1
        for name in sorted(names):
            column = getattr(self, name)
            if (column == column[0]).all():
                continue
            values, places = np.unique(column, return_inverse=True)
            code, every = code * len(values) + places, every * len(values)
            if every > 1 << 40:  # codes stay far from wrapping
                values, code = np.unique(code, return_inverse=True)
                every = len(values)
        _, first, index = np.unique(code, return_index=True, return_inverse=True)
        if len(first) == len(self):
            return self, None
        columns: dict[str, Any] = {name: getattr(self, name)[first] for name in self.NAMES}
        return Points(**columns, contexts=self.contexts, verify=self.verify), index

    def over(self, contexts: Array, weights: Array) -> Points:
        """The same passes, each as the mean over contexts of these weights."""
        return replace(self, contexts=(contexts, weights), _found={})

    def expanded(self) -> Points:
        """Each point once for each of the contexts that it is the mean over."""
        assert self.contexts is not None
        contexts = self.contexts[0]
        columns: dict[str, Any] = {name: np.repeat(getattr(self, name), len(contexts)) for name in self.NAMES}
        return Points(**(columns | {"context": np.tile(contexts, len(self))}), verify=self.verify)


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


@dataclass(frozen=True)
class PassTime:
    """One pass: seconds with the interval that is meant to hold 90 %, and a dict a ledger row, which sum to `device_s`.

    `link_s` of the device's seconds are messages between ranks; they hide behind the rest where two batches overlap.
    """

    seconds: float
    low_s: float
    high_s: float
    device_s: float
    link_s: float
    host_s: float
    bound_by: str
    calibrated: bool
    ops: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Totals:
    """Passes at several points, an array entry each: a rank's seconds (kernels, messages), kernels launched, FLOPs and bytes.

    `guessed_s` of the seconds are of classes that nobody measured here.
    """

    compute_s: Array
    link_s: Array
    guessed_s: Array
    calls: Array
    flops: Array
    bytes: Array

    @property
    def device_s(self) -> Array:
        """All of a rank's seconds, one kernel or message after another."""
        return self.compute_s + self.link_s


@dataclass(frozen=True)
class Host:
    """What a server adds to its device's time.

    `launch_s` for each kernel that no graph captures, `sequence_s` for each sequence of a pass; `device_factor` stretches the
    device's own time; an all-reduce of `message_bytes` takes twice what the calibration says.
    """

    launch_s: float = 0.0
    device_factor: float = 1.0
    message_bytes: float = 1e18
    sequence_s: float = 0.0

    def total(self, device_s: Any, calls: Any, batch: Any) -> Any:
        """Seconds of a pass: the slower of device and host, nearly."""
        host_s, stretched = self.host_s(calls, batch), self.device_factor * device_s
        return np.where(host_s > 0, pnorm(np.asarray(stretched), np.maximum(host_s, 1e-12), OVERLAP), stretched)

    def host_s(self, calls: Any, batch: Any) -> Any:
        """The host's own seconds."""
        return self.launch_s * calls + self.sequence_s * batch


def shipped_or(source: str | os.PathLike[str] | Calibration | None, device: Accelerator) -> Calibration | None:
    """The calibration asked for, else the one that is shipped for this device, else none.

    Raises CostModelError for a calibration of another device.
    """
    if source is None:
        return _shipped(device.name) if device.name in calibrations() else None
    found = source if isinstance(source, Calibration) else read_calibration(calibration_file(source))
    if found.accelerator != device.name:
        raise CostModelError(f"calibration {found.name} was measured on {found.accelerator}, not on {device.name}")
    return found


@lru_cache(maxsize=64)
def _shipped(name: str) -> Calibration:
    return read_calibration(calibration_file(name))


@dataclass(frozen=True, eq=False)
class Clock:
    """Times passes of one model, stored in some formats, on one device."""

    model: Architecture
    device: Accelerator
    formats: Precision
    calibration: Calibration | None
    host: Host = Host()
    mtp: int = 0
    units_left: float = 1.0
    """Share of the device's units that kernels have: the rest moves messages meanwhile."""
    _fits: dict[tuple[str, str], Fit] = field(default_factory=dict)
    _ledgers: dict[str, tuple[_Kernel, ...]] = field(default_factory=dict)
    _narrowest: dict[tuple[str, str], str] = field(default_factory=dict)

    def totals(self, points: Points) -> Totals:
        """Seconds, FLOPs and bytes of a pass at every point."""
        sums = {name: _Sum() for name in ("compute", "link", "guessed", "calls", "flops", "bytes")}
        for kernels in self._kernels(points):
            side = "link" if kernels.fit.kernel.name in ON_LINKS else "compute"
            for launch, seconds, flops, moved in kernels.timed:
                share = launch.times * kernels.share(launch)
                sums[side].add(seconds * share, launch)
                sums["calls"].add(share * np.ones_like(seconds), launch)
                sums["flops"].add(flops * share, launch)
                if kernels.state == "datasheet":
                    sums["guessed"].add(seconds * share, launch)
                if side == "compute":
                    sums["bytes"].add(moved * share, launch)
        return Totals(*(found.at(len(points)) for found in sums.values()))

    def seconds(self, points: Points, overlap: str = "none") -> Array:
        """Seconds of a pass at every point; of `two_batches`, one half computes while the other's messages travel."""
        found = self.totals(points)
        alone = self.host.total(found.device_s, found.calls, points.batch)
        if overlap == "none":
            return np.asarray(alone)
        halves = replace(points, batch=np.ceil(points.batch / 2), _found={})
        device_s, calls = (self if points.single else self._beside_messages)._halved(halves)
        both = self.host.total(device_s, calls, points.batch)
        return np.asarray(np.where((points.batch > 1) & (both < alone), both, alone))

    @cached_property
    def _beside_messages(self) -> Clock:
        """The same where messages take their share of the device's units."""
        return replace(self, units_left=UNITS_LEFT, _fits={})

    def _halved(self, half: Points) -> tuple[Array, Array]:
        """Seconds of two halves at once, layer by layer, and the kernels that both launch."""
        kernels = self._kernels(half)
        layers = _stretches([launch for each in kernels for launch in each.launches])
        sums: dict[tuple[str, int], _Sum] = {}
        calls = _Sum()
        for each in kernels:
            for launch, seconds, _, _ in each.timed:
                share, group = launch.times * each.share(launch), launch.row.group
                sums.setdefault((group, _stretch(launch, layers[group])), _Sum()).add(seconds * share, launch)
                calls.add(2 * share * np.ones_like(seconds), launch)
        device_s = np.zeros(len(half))
        for group, cuts in layers.items():
            parts = {number: found.at(len(half)) for (owner, number), found in sums.items() if owner == group}
            device_s += overlapped(_layer(cuts, parts), half.single)
        return device_s, calls.at(len(half))

    def detail(self, points: Points, overlap: str = "none", pieces: float = 1.0) -> PassTime:
        """A single point, with every row's share, what bounds it and how sure it is; `pieces` scales its seconds."""
        kernels = self._kernels(points)
        ops = [op for group in kernels for op in group.ops(pieces)]
        device_s = sum(op["seconds"] for op in ops)
        link_s = sum(op["seconds"] for op in ops if op["kernel"] in ON_LINKS)
        calls = sum(op["calls"] for op in ops)
        host_s = float(self.host.host_s(calls, points.batch[0] * pieces))
        seconds = float(self.host.total(device_s, calls, points.batch[0] * pieces))
        if overlap != "none":
            seconds = float(self.seconds(points, overlap)[0]) * pieces
        width = np.sqrt(sum((group.part(ops, device_s) * np.log(group.fit.spread)) ** 2 for group in kernels))
        bound = "host" if host_s > device_s else max(BOUNDS, key=lambda b: sum(op["seconds"] for op in ops if op["bound_by"] == b))
        from_datasheet = sum(op["seconds"] for op in ops if op["state"] == "datasheet") / device_s
        ops.sort(key=lambda op: op.pop("_place"))
        for op in ops:
            op["share"] = op["seconds"] / device_s
        notes = tuple(dict.fromkeys(note for group in kernels for note in group.notes()))
        off = float(np.exp(width))
        return PassTime(
            seconds, seconds / off, seconds * off, device_s, link_s, host_s, bound, from_datasheet <= MINOR, tuple(ops), notes
        )

    def dtypes(self, points: Points) -> tuple[str, ...]:
        """The formats that products multiply in."""
        found = (launch.dtype for group in self._kernels(points) for launch in group.launches if launch.kernel in ("gemm", "moe"))
        return tuple(dict.fromkeys(found))

    # rows as kernels

    def _ledger(self, points: Points) -> tuple[_Kernel, ...]:
        kind = "verify" if points.verify else Phase.DECODE if points.single else Phase.PREFILL
        if kind not in self._ledgers:
            options = Options(precision=self.formats, mtp=self.mtp)
            if points.verify:
                options = options.model_copy(update={"logits": "all", "algorithm": DECODE_FORMS})
            bindings: dict[tuple[Any, ...], int] = {}
            rows = self.model._rows(options, Phase.PREFILL if points.verify else Phase(kind))
            self._ledgers[kind] = tuple(
                _Kernel.of(row, place, bindings.setdefault(tuple(row.binding.items()), len(bindings)))
                for place, row in enumerate(rows)
                if _works(row.op.cost)
            )
        return self._ledgers[kind]

    def _kernels(self, points: Points) -> list[_Kernels]:
        found: dict[tuple[str, str], list[Launch]] = {}
        for launch in self._launches(points):
            found.setdefault((launch.kernel, launch.dtype), []).append(launch)
        return [_Kernels(self._fit(*key), launches, self.host.message_bytes) for key, launches in found.items()]

    def _launches(self, points: Points) -> Iterator[Launch]:
        numbers = _Numbers(points, self.formats, self.device)
        launches = [launch for row in self._ledger(points) if (launch := numbers.launch(row)) is not None]
        for launch in _merged(launches, numbers, self.model.hidden_size):
            for narrowed in _by_rows(launch, self._known("gemv", launch.dtype) == "gemv"):
                kernel = self._known(narrowed.kernel, launch.dtype)
                yield narrowed if kernel == narrowed.kernel else replace(narrowed, kernel=kernel)
        yield from _messages(launches, numbers, self.model.hidden_size)

    def _known(self, kernel: str, dtype: str) -> str:
        """The narrowest class that was measured on this device."""
        if (kernel, dtype) not in self._narrowest:
            wider = kernel_class(kernel).instead
            measured = self.calibration.classes if self.calibration else ()
            here = any((known.kernel, known.dtype) == (kernel, dtype) for known in measured)
            self._narrowest[kernel, dtype] = kernel if here or not wider else self._known(wider, dtype)
        return self._narrowest[kernel, dtype]

    def _fit(self, kernel: str, dtype: str) -> Fit:
        """The class as it was measured on this device, cold; else with fractions of another format or device, or a guess."""
        if (kernel, dtype) not in self._fits:
            found = self._found(kernel, dtype)
            self._fits[kernel, dtype] = found if self.units_left == 1 else replace(found, peaks=found.peaks.part(self.units_left))
        return self._fits[kernel, dtype]

    def _found(self, kernel: str, dtype: str) -> Fit:
        own = self.calibration.classes if self.calibration else ()
        if self.calibration and any((known.kernel, known.dtype) == (kernel, dtype) for known in own):
            return _measured(self.calibration, kernel, dtype, self.device)
        known = [measured for measured in (*own, *_shipped(LENDER).classes) if measured.kernel == kernel]
        known.sort(key=lambda measured: measured.dtype != dtype)  # stable: this device's first
        parameters = dict(known[0].parameters) if known else None
        if parameters and kernel == "moe" and dtype in NARROW and known[0].dtype != dtype:
            parameters["quantise"] = self._fit("gemm", dtype).parameters.get("quantise", PARAMETERS["quantise"].start)
        return guessed(kernel_class(kernel), Peaks.of(self.device, dtype), parameters).cold()


@dataclass(frozen=True, eq=False)
class _Sum:
    """A sum over launches, kept for each set of points that differ until it is asked for at every point."""

    parts: dict[int, tuple[Array, Any]] = field(default_factory=dict)

    def add(self, values: Array, launch: Launch) -> None:
        """Values at a launch's sizes."""
        values, key = launch.mean(values), id(launch.index)
        self.parts[key] = (self.parts[key][0] + values if key in self.parts else values, launch.index)

    def at(self, points: int) -> Array:
        """The sum at so many points."""
        found = np.zeros(points)
        for values, index in self.parts.values():
            found += values if index is None else values[index]
        return found


Cuts = list[tuple[float, str]]


def _stretches(launches: Sequence[Launch]) -> dict[str, Cuts]:
    """For each group of layers the places that cut its rows into stretches: its messages by name, and where attention begins."""
    found: dict[str, set[tuple[float, str]]] = {launch.row.group: set() for launch in launches}
    for launch in launches:
        if launch.at is not None:
            found[launch.row.group].add((launch.at, launch.row.op.name))
    for group, cuts in found.items():
        attends = [launch.place for launch in launches if launch.row.group == group and launch.row.op.kind in ("attend", "scan")]
        if cuts and attends:
            cuts.add((min(attends) - 0.25, ATTENTION))
    return {group: sorted(cuts) for group, cuts in found.items()}


def _stretch(launch: Launch, cuts: Cuts) -> int:
    """The number of a launch's stretch: kernels between cuts have even ones, messages odd ones."""
    if launch.at is not None:
        return 2 * cuts.index((launch.at, launch.row.op.name)) + 1
    return 2 * bisect(cuts, (launch.place, ""))


def _layer(cuts: Cuts, seconds: dict[int, Array]) -> list[Stretch]:
    """A layer in its order, of seconds by the numbers of stretches."""
    layer = [Stretch("", False, seconds.get(0, 0.0))]
    for number, (_, name) in enumerate(cuts):
        begins = name == ATTENTION
        if not begins:
            layer.append(Stretch(name, True, seconds.get(2 * number + 1, 0.0)))
        layer.append(Stretch(name if begins else "", False, seconds.get(2 * number + 2, 0.0)))
    return layer


@lru_cache(maxsize=256)
def clock(model: Architecture, device: Accelerator, formats: Precision, host: Host = Host(), mtp: int = 0) -> Clock:
    """The clock of a shipped calibration, kept: ledgers and fits are made once."""
    return Clock(model, device, formats, shipped_or(None, device), host, mtp)


@lru_cache(maxsize=256)
def _measured_of(name: str, kernel: str, dtype: str, device: Accelerator) -> Fit:
    return _as_in_a_model(_shipped(name), kernel, dtype, device)


def _measured(calibration: Calibration, kernel: str, dtype: str, device: Accelerator) -> Fit:
    """Kept for the calibrations that are shipped: a process on residuals is inverted once."""
    if calibration.name in calibrations() and calibration is _shipped(calibration.name):
        return _measured_of(calibration.name, kernel, dtype, device)
    return _as_in_a_model(calibration, kernel, dtype, device)


def _as_in_a_model(calibration: Calibration, kernel: str, dtype: str, device: Accelerator) -> Fit:
    """Our own measurements have cold what a model has cold; tables repeat a kernel on the same buffers."""
    found = calibration.fit(kernel, dtype, device)
    return found if calibration.machine else found.cold()


def _works(cost: Cost) -> bool:
    """Whether there is anything to do: a tower that sees no images only stores weights."""
    return bool(cost.kept) or any(part != 0 for part in (cost.flops, cost.vector_flops, cost.activations))


@dataclass(frozen=True, eq=False)
class _Kernel:
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
    def of(cls, row: Row, place: int, binding: int) -> _Kernel:
        """Raises CostModelError where no class fits."""
        kernel = row.op.kernel or {"scan": "scan", "attend": "scan", "conv": "conv", "gather": "gather"}.get(row.op.kind, "memory")
        if kernel not in SHAPES:
            raise CostModelError(f"no kernel class for row {'/'.join(row.path)} of kind {row.op.kind}")
        return cls(row, place, kernel, _columns(row.op, kernel, tuple(row.binding.items())), binding, (id(row.op), binding))


@dataclass(frozen=True, eq=False)
class _Numbers:
    """Numbers for letters at some points; for each row, at those of them that differ for it."""

    points: Points
    formats: Precision
    device: Accelerator
    _kept: dict[int, dict[Any, Any]] = field(default_factory=dict)
    """For each binding of letters its numbers, with those of all expressions of them."""
    _parts: dict[frozenset[str], tuple[_Numbers, Any, Array | None]] = field(default_factory=dict)
    _shaped: dict[Any, Any] = field(default_factory=dict)
    """Sizes of rows, and of products merged, that other rows have too."""

    def launch(self, kernel: _Kernel) -> Launch | None:
        """A row as a kernel; None for what is fused into its neighbour and moves nothing."""
        here, index, weights = self.part(kernel.columns)
        if kernel.same not in self._shaped:
            self._shaped[kernel.same] = here._sizes(kernel)
        name, dtype, sizes = self._shaped[kernel.same]
        return (
            None if sizes is None else Launch(kernel.row, name, dtype, sizes, kernel.row.times, index, 1.0, weights, kernel.place)
        )

    def _sizes(self, kernel: _Kernel) -> tuple[str, str, dict[str, Array] | None]:
        name, sizes = SHAPES[kernel.kernel](self, kernel.row)
        if not next(iter(sizes.values())).all() or (kernel.kernel == "attention" and not self.moved(kernel.row).all()):
            return name, "", None  # a tower without images
        return name, self._dtype(kernel.row, name), sizes

    def part(self, columns: frozenset[str]) -> tuple[_Numbers, Any, Array | None]:
        """The same at the points that differ in some columns, which of them each point is, and weights of contexts in each."""
        if columns not in self._parts:
            self._parts[columns] = self._part(columns)
        return self._parts[columns]

    def _part(self, columns: frozenset[str]) -> tuple[_Numbers, Any, Array | None]:
        if self.points.contexts is None:
            points, index = self.points.distinct(columns)
            return self if points is self.points else _Numbers(points, self.formats, self.device), index, None
        points, index = self.points.distinct(columns - {"context"})
        if "context" in columns:
            return _Numbers(points.expanded(), self.formats, self.device), index, self.points.contexts[1]
        return self if points is self.points else _Numbers(points, self.formats, self.device), index, None

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


def _gemm(numbers: _Numbers, row: Row) -> Shaped:
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


def _moe(numbers: _Numbers, row: Row) -> Shaped:
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


def _attention(numbers: _Numbers, row: Row) -> Shaped:
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


def _plain_cache(numbers: _Numbers) -> bool:
    return numbers.formats.cache != "fp8_ds_mla"


def _scan(numbers: _Numbers, row: Row) -> Shaped:
    """A recurrence in steps over many tokens is no kernel of one step."""
    flops = numbers.value(row, row.op.cost.flops) / numbers.shared(row)
    kernel = row.op.kernel or "scan"
    single = numbers.points.single
    return "scan" if not single and kernel.endswith("_step") else kernel, {
        "bytes": numbers.moved(row),
        "flops": flops,
        "tokens": numbers.points.tokens,
    }


def _memory(numbers: _Numbers, row: Row) -> Shaped:
    return row.op.kernel or "memory", {"bytes": numbers.moved(row)}


SHAPES: dict[str, Callable[[_Numbers, Row], Shaped]] = {
    "gemm": _gemm, "moe": _moe, "attention": _attention,
    **dict.fromkeys(("scan", "gdn_chunked", "gdn_step", "ssd_chunked", "ssd_step"), _scan),
    **dict.fromkeys(("memory", "norm", "gate", "rope", "gather", "conv"), _memory),
}  # fmt: skip
"""How the numbers of a row become the sizes of its class."""


def _merged(launches: Sequence[Launch], numbers: _Numbers, width: int) -> Iterator[Launch]:
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


def _together(side_by_side: list[Launch], numbers: _Numbers) -> Iterator[Launch]:
    if len(side_by_side) == 1:
        yield side_by_side[0]
        return
    key = tuple(id(launch.sizes) for launch in side_by_side)
    if key not in numbers._shaped:
        numbers._shaped[key] = {**side_by_side[0].sizes, "n": np.sum([launch.sizes["n"] for launch in side_by_side], axis=0)}
    together = numbers._shaped[key]
    for launch in side_by_side:
        yield replace(launch, share=launch.sizes["n"] / together["n"], sizes=together)


def _by_rows(launch: Launch, apart: bool) -> Iterator[Launch]:
    """A product of one row is a class of its own, where a device has it measured `apart`."""
    one = launch.sizes["m"] == 1 if launch.kernel == "gemm" and apart else np.zeros(1, dtype=bool)
    if one.all():
        yield replace(launch, kernel="gemv")
    elif one.any():
        yield replace(launch, share=launch.share * ~one)
        yield replace(launch, kernel="gemv", share=launch.share * one)
    else:
        yield launch


# messages between ranks


def _messages(launches: Sequence[Launch], numbers: _Numbers, width: int) -> Iterator[Launch]:
    """What ranks send each other in a pass, as kernels of links: see `_all_reduces`, `_dispatches`, `_rings` and `_handovers`."""
    points = numbers.points
    if (points.tp > 1).any():
        yield from _all_reduces(launches, numbers, width)
    if (points.dp * points.cp > 1).any():
        yield from _dispatches(launches, numbers, width)
    if (points.cp > 1).any():
        yield from _rings(launches, numbers)
    if (points.pp > 1).any():
        yield from _handovers(launches, numbers, width)


def _sent(
    launch: Launch, part: tuple[_Numbers, Any, Any], name: str, kernel: str, ranks: Array, size: Array, span: Array, times: int,
    after: float = 0.5,
) -> Launch:  # fmt: skip
    """A message of `size` bytes of each rank among some ranks, which span so many neighbouring devices, `after` a launch.

    Messages of one name and size are one kernel, whichever layer sends them.
    """
    numbers, index, _ = part
    device = numbers.device
    device.given("link_bytes_per_s")
    op = replace(launch.row.op, name=name, kind="collective")
    key = (name, ranks.tobytes(), size.tobytes(), span.tobytes())
    if key not in numbers._shaped:
        beyond, slower = span > device.link_devices, np.ones(len(size))
        if beyond.any():
            network = float(device.given("network_bytes_per_s"))
            slower = np.where(beyond, float(device.given("link_bytes_per_s")) / network, 1.0)
        numbers._shaped[key] = {"ranks": np.maximum(ranks, 2.0), "bytes": size, "slower": slower}
    row, sizes = replace(launch.row, op=op), numbers._shaped[key]
    return Launch(row, kernel, "bf16", sizes, times, index, (ranks > 1) * 1.0, at=launch.place + after)


def _activation(numbers: _Numbers) -> float:
    return float(evaluate(numbers.formats.element("activations"), {}))


def _all_reduces(launches: Sequence[Launch], numbers: _Numbers, width: int) -> Iterator[Launch]:
    """One for each block and layer whose last product leaves a sum in parts, and one for a token table cut into parts."""
    part = numbers.part(frozenset({"batch", "tokens", "tp", "cp"}))
    points = part[0].points
    parts = ("rows", "experts", "vocabulary")
    last = {(launch.row.group, launch.row.block): launch for launch in launches if launch.row.op.split in parts}
    size = points.rows * width * _activation(numbers)
    for launch in last.values():
        yield _sent(launch, part, "all_reduce", "allreduce", points.tp, size, points.tp, launch.times)


def _dispatches(launches: Sequence[Launch], numbers: _Numbers, width: int) -> Iterator[Launch]:
    """Tokens on their way to experts on other ranks, and back: the ranks that hold the same tokens send a part each."""
    part = numbers.part(frozenset({"batch", "tokens", "tp", "dp", "cp", "ep", "imbalance"}))
    points, size = part[0].points, _activation(numbers)
    routed: dict[tuple[str, str], list[Launch]] = {}
    for launch in launches:
        if launch.row.op.split == "experts":
            routed.setdefault((launch.row.group, launch.row.block), []).append(launch)
    spread = np.where(points.dp * points.cp > 1, points.ranks, 1.0)
    busiest = np.where(points.ep > 1, points.imbalance, 1.0)
    for first, *rest in routed.values():
        used = part[0].value(first.row, dict(first.row.op.shape)["topk"])
        copies, span = _copies(points, used, numbers.device)
        for name, each, launch, after in (
            (DISPATCH, float(dispatch_bytes(numbers.formats)), first, -0.5), (COMBINE, size, [first, *rest][-1], 0.4),
        ):  # fmt: skip
            moved = points.rows / points.together * copies * busiest * width * each
            yield _sent(launch, part, name, "sent", spread, moved, span, launch.times, after)


def _copies(points: Points, used: Array, device: Accelerator) -> tuple[Array, Array]:
    """How many copies of a token cross the slowest of the links it takes, and how many neighbouring devices these span.

    A single token goes out for each of its experts (DeepEP's low-latency kernels), and to all ranks that an expert is cut over.
    One of a prompt crosses the network once for each other node and is passed on there, once to each rank that has a part of
    its experts (the normal kernels); so goes any token where experts are not spread. Experts are taken to lie anywhere: a
    router that is held to few nodes sends less. Between nodes, what stays within one goes beside what leaves it.
    """
    ranks, linked, once = points.ranks, float(device.link_devices), (not points.single) | (points.ep <= 1)
    beyond = ranks > linked
    nodes = np.maximum(ranks / linked, 1)
    here = np.maximum(points.together, np.where(beyond & ~once, linked, 1.0))
    met = np.where(once, _met(1 / points.ep, used), used / points.ep)
    near, far = np.maximum(ranks - here, 0) * met, (nodes - 1) * _met(np.maximum(1 / nodes, 1 / points.ep), used)
    slower = float(device.link_bytes_per_s or 0) / float(device.network_bytes_per_s or np.inf)
    passed = once & (far * slower <= near)
    return np.where(once & beyond & ~passed, far, near), np.where(beyond & passed, 1.0, ranks)


def _met(share: Array, used: Array) -> Array:
    """How likely one of a token's experts lies in a place that has this share of them.

    >>> _met(np.array([1.0, 0.5]), np.array([8.0, 1.0])).tolist()
    [1.0, 0.5]
    """
    return np.asarray(1 - (1 - share) ** used)


def _rings(launches: Sequence[Launch], numbers: _Numbers) -> Iterator[Launch]:
    """Keys and values of a prompt pass by every context-parallel rank, all heads that a rank has of them, a latent whole.

    Of a single token, the partial outputs of a rank's heads are added up.
    """
    single = numbers.points.single
    part = numbers.part(frozenset({"batch", "tokens", "tp", "cp", *(() if single else ("context",))}))
    points = part[0].points
    for launch in launches:
        kept = [item for item in launch.row.op.cost.kept if item.per_token]
        if launch.row.op.kind != "attend" or not kept:
            continue
        if single:
            shape, kernel = dict(launch.row.op.shape), "allreduce"
            outputs = part[0].value(launch.row, shape["heads"] * shape["d_v"]) / points.tp
            size = points.rows * outputs * _activation(numbers)
        else:
            each, kernel = sum(_passed_on(part[0], launch.row, item) for item in kept), "sent"
            size = points.batch * each * (points.cp - 1) / points.cp
        name, after = ("merge", 0.5) if single else ("ring", -0.5)
        yield _sent(launch, part, name, kernel, points.cp, size, points.tp * points.cp, launch.times, after)


def _passed_on(numbers: _Numbers, row: Row, kept: Kept) -> Array:
    """Bytes that a rank's heads have of a sequence's tokens in sight."""
    heads = numbers.value(row, kept.heads)
    here = np.ceil(heads / numbers.points.tp) / heads if kept.split else 1.0
    return np.asarray(numbers.value(row, kept.slots(THEORY) * kept.unit_bytes(numbers.formats, kept.heads)) * here)


def _handovers(launches: Sequence[Launch], numbers: _Numbers, width: int) -> Iterator[Launch]:
    """Activations from each stage to the next, one rank's to one rank."""
    part = numbers.part(frozenset({"batch", "tokens", "tp", "dp", "cp", "pp"}))
    points = part[0].points
    size = points.rows * width * _activation(numbers) / points.tp
    ranks = points.tp * points.dp * points.cp
    stages = _sent(launches[-1], part, "hand_over", "sent", points.pp, size, ranks * points.pp, 1)
    yield replace(stages, share=np.maximum(points.pp - 1, 0))


@dataclass(frozen=True, eq=False)
class _Kernels:
    """All launches of one class in a pass, timed together."""

    fit: Fit
    launches: list[Launch]
    message_bytes: float

    @cached_property
    def _shapes(self) -> dict[int, dict[str, Array]]:
        """The shapes that differ."""
        return {id(launch.sizes): launch.sizes for launch in self.launches}

    @cached_property
    def _sizes(self) -> dict[str, Array]:
        shapes = list(self._shapes.values())
        return {name: np.concatenate([sizes[name] for sizes in shapes]) for name in shapes[0]}

    @cached_property
    def timed(self) -> list[tuple[Launch, Array, Array, Array]]:
        """Each launch with its seconds, FLOPs and bytes at the points that differ for it."""
        work = self.fit.kernel.work(self._sizes, self.fit.peaks)
        seconds = self.fit.predict(self._sizes)
        if self.fit.kernel.name == "allreduce":
            seconds = seconds * (1 + self._sizes["bytes"] / self.message_bytes)
        moved = np.broadcast_to(work.moved, seconds.shape)
        found, start = {}, 0
        for key, sizes in self._shapes.items():
            here = slice(start, start := start + len(next(iter(sizes.values()))))
            found[key] = (seconds[here], work.flops[here], moved[here])
        return [(launch, *found[id(launch.sizes)]) for launch in self.launches]

    @property
    def state(self) -> str:
        """`calibrated`, or `datasheet` where the class was not measured on this device."""
        return "datasheet" if np.isinf(self.fit.lowest).any() else "calibrated"

    def share(self, launch: Launch) -> Any:
        """A launch's part of its kernel: routed experts are a third of theirs each."""
        return launch.share / 3 if launch.kernel == "moe" else launch.share

    def ops(self, pieces: float) -> Iterator[dict[str, Any]]:
        """A dict a launch of a single point; one that the point has not is left out."""
        for launch, seconds, flops, moved in self.timed:
            share = self.share(launch) * np.ones_like(seconds)
            if share.any():
                figures = (float(launch.mean(each)[0]) for each in (share, seconds * share, flops * share, moved * share))
                yield self._op(launch, *(figure * pieces for figure in figures))

    def _op(self, launch: Launch, share: float, seconds: float, flops: float, moved: float) -> dict[str, Any]:
        row, times, peaks = launch.row, launch.times, self.fit.peaks
        bound = bound_by(launch.kernel, seconds, flops / peaks.flops_per_s, moved / peaks.memory_bytes_per_s)
        return {
            "group": row.group, "layers": row.layers, "block": row.block, "op": row.op.name, "kind": row.op.kind,
            "kernel": launch.kernel, "dtype": launch.dtype, "calls": times * share, "seconds": seconds * times,
            "flops": flops * times, "bytes": 0.0 if bound == "link" else moved * times,
            "bound_by": bound, "state": self.state, "_place": launch.place,
        }  # fmt: skip

    def part(self, ops: Iterable[dict[str, Any]], whole_s: float) -> float:
        """This class's share of a pass."""
        key = (self.launches[0].kernel, self.launches[0].dtype)
        return float(sum(op["seconds"] for op in ops if (op["kernel"], op["dtype"]) == key) / whole_s)

    def notes(self) -> Iterator[str]:
        """What is guessed here, or beyond what was measured."""
        name = f"{self.fit.kernel.name} in {self.launches[0].dtype}"
        if not any(np.any(launch.share) for launch in self.launches):
            return
        if np.isinf(self.fit.lowest).any():
            yield f"{name}: not measured on this accelerator; its time is a guess from the datasheet, off by a factor of 2 at times"
        elif self.fit.beyond(self._sizes).any():
            yield f"{name}: some shapes lie outside the measured range"
