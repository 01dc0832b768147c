"""From ledger rows to seconds: each row is a kernel of a class, of a shape, on a device; a pass is their sum.

A clock times passes of one model on one device over arrays of points: batches, contexts and layouts at once. What is the same at
many points (a product knows no context, an expert no data-parallel group) is timed once.
"""

from __future__ import annotations

import os
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.architecture import Architecture
from costmodel.calibration.fit import Fit, guessed
from costmodel.calibration.store import Calibration, read_calibration
from costmodel.catalog import calibration_file, calibrations
from costmodel.errors import CostModelError
from costmodel.hardware import Accelerator
from costmodel.kernels import ON_LINKS, PARAMETERS, Peaks, bound_by, kernel_class, pnorm
from costmodel.timing.launches import NARROW, Launch, Numbers, RowKernel, by_rows, merged, works
from costmodel.timing.messages import messages
from costmodel.timing.overlapping import ATTENTION, Stretch, overlapped
from costmodel.timing.points import Points
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
    ops: tuple[dict[str, Any], ...] = field(repr=False)
    notes: tuple[str, ...] = field(repr=False)


PRODUCTS = ("gemm", "moe")
"""Classes of kernels whose format is a model's."""


@dataclass(frozen=True, eq=False)
class Totals:
    """Passes at several points, an array entry each: a rank's seconds (kernels, messages), kernels launched, FLOPs and bytes.

    `guessed_s` of the seconds are of classes that nobody measured here; `dtypes` are the formats that products multiply in.
    """

    dtypes: tuple[str, ...]
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
    _ledgers: dict[str, tuple[RowKernel, ...]] = field(default_factory=dict)
    _narrowest: dict[tuple[str, str], str] = field(default_factory=dict)

    def totals(self, points: Points) -> Totals:
        """Seconds, FLOPs and bytes of a pass at every point."""
        sums = {name: _Sum() for name in ("compute", "link", "guessed", "calls", "flops", "bytes")}
        formats: dict[str, None] = {}
        for kernels in self._kernels(points):
            side = "link" if kernels.fit.kernel.name in ON_LINKS else "compute"
            for launch, seconds, flops, moved in kernels.timed:
                share = launch.times * kernels.share(launch)
                if launch.kernel in PRODUCTS:
                    formats[launch.dtype] = None
                sums[side].add(seconds * share, launch)
                sums["calls"].add(share * np.ones_like(seconds), launch)
                sums["flops"].add(flops * share, launch)
                if kernels.state == "datasheet":
                    sums["guessed"].add(seconds * share, launch)
                if side == "compute":
                    sums["bytes"].add(moved * share, launch)
        return Totals(tuple(formats), *(found.at(len(points)) for found in sums.values()))

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

    # rows as kernels

    def _ledger(self, points: Points) -> tuple[RowKernel, ...]:
        kind = "verify" if points.verify else Phase.DECODE if points.single else Phase.PREFILL
        if kind not in self._ledgers:
            options = Options(precision=self.formats, mtp=self.mtp)
            if points.verify:
                options = options.model_copy(update={"logits": "all", "algorithm": DECODE_FORMS})
            bindings: dict[tuple[Any, ...], int] = {}
            rows = self.model._rows(options, Phase.PREFILL if points.verify else Phase(kind))
            self._ledgers[kind] = tuple(
                RowKernel.of(row, place, bindings.setdefault(tuple(row.binding.items()), len(bindings)))
                for place, row in enumerate(rows)
                if works(row.op.cost)
            )
        return self._ledgers[kind]

    def _kernels(self, points: Points) -> list[_Kernels]:
        found: dict[tuple[str, str], list[Launch]] = {}
        for launch in self._launches(points):
            found.setdefault((launch.kernel, launch.dtype), []).append(launch)
        return [_Kernels(self._fit(*key), launches, self.host.message_bytes) for key, launches in found.items()]

    def _launches(self, points: Points) -> Iterator[Launch]:
        numbers = Numbers(points, self.formats, self.device)
        launches = [launch for row in self._ledger(points) if (launch := numbers.launch(row)) is not None]
        for launch in merged(launches, numbers, self.model.hidden_size):
            for narrowed in by_rows(launch, self._known("gemv", launch.dtype) == "gemv"):
                kernel = self._known(narrowed.kernel, launch.dtype)
                yield narrowed if kernel == narrowed.kernel else replace(narrowed, kernel=kernel)
        yield from messages(launches, numbers, self.model.hidden_size)

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
