"""From ledger rows to seconds: each row is a kernel of a class, of a shape, on a device; a pass is their sum.

Time to first token (TTFT) is the prefill of the prompts; time per output token (TPOT) the mean of the decode steps from a
context of prompt + 1 to prompt + output - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from sympy import Expr

from costmodel.architecture import Architecture
from costmodel.calibration.fit import Fit, guessed
from costmodel.calibration.store import Calibration, read_calibration
from costmodel.catalog import Device, Source, as_accelerator, as_architecture, calibration_file, calibrations
from costmodel.cost import Cost, Weight
from costmodel.errors import CostModelError, shown
from costmodel.evaluate import evaluate, evaluate_arrays, walk
from costmodel.formula import bound_values
from costmodel.frames import frame
from costmodel.hardware import Accelerator
from costmodel.kernels import Peaks, bound_by, kernel_class, pnorm
from costmodel.memory import Capacity, capacity
from costmodel.quantities import Row
from costmodel.symbols import B, S, T
from costmodel.units import whole
from costmodel.workload import Checked, Options, Phase, Precision

if TYPE_CHECKING:
    import os

    import pandas as pd

Array = NDArray[np.float64]
DECODE_POINTS = 9
"""Contexts at which decode steps are timed; between them time is taken as straight."""
MINOR = 0.05
"""Share of a pass below which a guessed class leaves the whole calibrated."""
LENDER = "h100-sxm"
"""Whose fractions of the datasheet an accelerator takes that nobody measured."""
OVERLAP = 4.0
"""How sharply the slower of device and host decides (pnorm)."""
BOUNDS = ("compute", "memory", "latency", "link")


class Parallel(Checked):
    """How the devices of a replica share a model: `tp` ranks share each layer; experts are spread over `ep` of them.

    >>> Parallel(tp=8, ep=4).ep
    4
    """

    tp: Annotated[int, Field(strict=True, ge=1, le=1024)] = 1
    ep: Annotated[int, Field(strict=True, ge=1, le=1024)] = 1

    @model_validator(mode="after")
    def _divides(self) -> Parallel:
        if self.tp % self.ep:
            raise ValueError(f"ep {self.ep} does not divide tp {self.tp}: experts are spread over ranks of the same group")
        return self


@dataclass(frozen=True)
class Launch:
    """One ledger row as a device runs it: a class, and an array for each size (an entry a context)."""

    row: Row
    kernel: str
    dtype: str
    sizes: dict[str, Array]
    times: int
    share: float = 1.0
    """Its part of a kernel that does the work of several rows."""


@dataclass(frozen=True)
class PassTime:
    """One pass: seconds with the interval that is meant to hold 90 %, and a dict a ledger row, which sum to `device_s`."""

    seconds: float
    low_s: float
    high_s: float
    device_s: float
    host_s: float
    bound_by: str
    calibrated: bool
    ops: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Sweep:
    """One pass at several batches: an array entry each of its seconds, and a rank's FLOPs and bytes.

    `dtypes` are the formats that its products multiply in.
    """

    batches: Array
    seconds: Array
    flops: Array
    bytes: Array
    calibrated: bool
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class Estimate:
    """What a workload takes on some devices. `memory` is the replica's, as `capacity` tells it.

    `state` is `calibrated` where measured classes make up all but a twentieth of the time, else `datasheet`: off by a factor
    of 2 at times. `interval` holds 90 % by the classes' errors on points not fitted.
    """

    model: str
    accelerator: str
    devices: int
    parallel: Parallel
    batch: int
    prompt: int
    output: int
    memory: Capacity
    prefill: PassTime
    decode: PassTime | None

    @property
    def ttft_s(self) -> float:
        """Seconds of the prefill of the prompts together, without a queue."""
        return self.prefill.seconds

    @property
    def tpot_s(self) -> float | None:
        """Mean seconds of a decode step; None where the output is a single token."""
        return self.decode.seconds if self.decode else None

    @property
    def output_tokens_per_s_per_device(self) -> float:
        """Tokens of output over all the time of a batch, prefill included, for each device."""
        steps = (self.tpot_s or 0.0) * (self.output - 1)
        return self.batch * self.output / (self.ttft_s + steps) / self.parallel.tp

    @property
    def bound_by(self) -> str:
        """What takes most of a decode step (of the prefill, where there is none): compute, memory, latency, link or host."""
        return (self.decode or self.prefill).bound_by

    @property
    def interval(self) -> dict[str, tuple[float, float]]:
        """Seconds between which 90 % should lie."""
        passes = {"ttft_s": self.prefill, "tpot_s": self.decode}
        return {name: (timed.low_s, timed.high_s) for name, timed in passes.items() if timed}

    @property
    def state(self) -> str:
        """`calibrated` or `datasheet`."""
        return "calibrated" if all(timed.calibrated for timed in (self.prefill, self.decode) if timed) else "datasheet"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know: guessed classes, shapes beyond what was measured."""
        return tuple(dict.fromkeys((*self.prefill.notes, *(self.decode.notes if self.decode else ()))))

    @property
    def ops_rows(self) -> list[dict[str, Any]]:
        """`ops` as plain dicts."""
        passes = {"prefill": self.prefill, "decode": self.decode}
        return [{"pass": name, **op} for name, timed in passes.items() if timed for op in timed.ops]

    @property
    def ops(self) -> pd.DataFrame:
        """A row for each ledger row and pass: its kernel class, seconds over all its layers, share, and what bounds it."""
        return frame(self.ops_rows)


def estimate(
    model: Source,
    accelerator: Device,
    devices: int = 1,
    parallel: Parallel | None = None,
    batch: int = 1,
    prompt: int = 4096,
    output: int = 1024,
    precision: str | Precision = "bf16",
    cache_precision: str = "bf16",
    calibration: str | os.PathLike[str] | Calibration | None = None,
    launch_s: float = 0.0,
    device_factor: float = 1.0,
    message_bytes: float = 1e18,
    sequence_s: float = 0.0,
) -> Estimate:
    """Seconds to the first token and for each further one: `batch` sequences a replica, `prompt` and `output` tokens each.

    `parallel` is tensor parallel over all devices unless given; more devices than one replica takes are further replicas.
    `calibration` is a name or file (default: the shipped one of this accelerator, if any). `launch_s` is what the host
    takes for each kernel where they are not captured in graphs, `sequence_s` for each sequence of a pass; `device_factor`
    stretches the device's own time; an all-reduce of `message_bytes` takes twice what the calibration says, as in servers
    whose collectives slow down with size.

    Raises CostModelError for an unknown model or device, a calibration of another device, or an impossible number.

    >>> e = estimate("llama-3.1-8b", "h100-sxm", batch=8, prompt=1024, output=128)
    >>> e.bound_by, e.state, e.memory.fits
    ('memory', 'calibrated', True)
    """
    chosen, device = as_architecture(model), as_accelerator(accelerator)
    devices, batch, prompt, output = (
        whole("devices", devices),
        whole("batch", batch),
        whole("prompt", prompt),
        whole("output", output),
    )
    layout = parallel or Parallel(tp=devices)
    if not isinstance(layout, Parallel) or devices % layout.tp:
        raise CostModelError(f"parallel got {shown(parallel)} on {devices} devices; give a Parallel whose tp divides them")
    formats = precision if isinstance(precision, Precision) else _formats(precision, cache_precision)
    host = _host(launch_s, device_factor, message_bytes, sequence_s)
    timer = _Timer(chosen, device, layout, formats, _calibration(calibration, device), host)
    memory = capacity(chosen, device, layout.tp, prompt + output, batch, precision, cache_precision)
    steps = timer.decode(batch, prompt + 1, prompt + output - 1) if output > 1 else None
    return Estimate(
        chosen.name, device.name, devices, layout, batch, prompt, output, memory, timer.prefill(batch, prompt), steps
    )  # fmt: skip


def time_pass(
    model: Source, accelerator: Device, batch: int, tokens: int, context: int, precision: str | Precision = "bf16",
    parallel: Parallel | None = None, calibration: str | os.PathLike[str] | Calibration | None = None,
) -> PassTime:  # fmt: skip
    """One forward pass over `tokens` new tokens of each of `batch` sequences, which are the last of `context`.

    Raises CostModelError as `estimate` does.

    >>> 0.004 < time_pass("llama-3.1-8b", "h100-sxm", 8, 1, 4096).seconds < 0.009
    True
    """
    device, formats = as_accelerator(accelerator), precision if isinstance(precision, Precision) else _formats(precision, "bf16")
    batch, tokens, context = whole("batch", batch), whole("tokens", tokens), whole("context", context)
    if context < tokens:
        raise CostModelError(f"context got {context:,} for {tokens:,} new tokens; give at least as many")
    timer = _Timer(as_architecture(model), device, parallel or Parallel(), formats, _calibration(calibration, device), _Host())
    return timer.decode(batch, context, context) if tokens == 1 else timer.prefill(batch, tokens, context - tokens)


def sweep_batches(
    model: Source, accelerator: Device, batches: Sequence[int], tokens: int, context: int, precision: str | Precision = "bf16",
    cache_precision: str = "bf16", parallel: Parallel | None = None,
) -> Sweep:  # fmt: skip
    """One pass over `tokens` new tokens a sequence at each of several batches: what `time_pass` gives, all at once.

    >>> found = sweep_batches("llama-3.1-8b", "h100-sxm", [1, 64], 1, 4096)
    >>> [round(work / moved) for work, moved in zip(found.flops, found.bytes)]
    [1, 25]
    """
    device = as_accelerator(accelerator)
    formats = precision if isinstance(precision, Precision) else _formats(precision, cache_precision)
    timer = _Timer(as_architecture(model), device, parallel or Parallel(), formats, _calibration(None, device), _Host())
    every = [whole("batch", batch) for batch in batches]
    return timer.sweep(np.array(every), whole("tokens", tokens), whole("context", context))


def _formats(precision: str, cache_precision: str) -> Precision:
    """What a name means for a device: weights of fp32 are multiplied in fp32, as everything beside them is."""
    formats = Precision.named(precision, cache=cache_precision)
    rest = dict.fromkeys(("embeddings", "others", "activations"), "fp32") if formats.weights == "fp32" else {}
    return formats.model_copy(update=rest)


@dataclass(frozen=True)
class _Host:
    """What a server adds to its device's time."""

    launch_s: float = 0.0
    device_factor: float = 1.0
    message_bytes: float = 1e18
    sequence_s: float = 0.0


def _host(launch_s: float, device_factor: float, message_bytes: float, sequence_s: float) -> _Host:
    for name, value, least, most in (
        ("launch_s", launch_s, 0.0, 100.0), ("device_factor", device_factor, 0.01, 100.0),
        ("message_bytes", message_bytes, 1.0, 1e18), ("sequence_s", sequence_s, 0.0, 100.0),
    ):  # fmt: skip
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
            raise CostModelError(f"{name} got {shown(value)}; give a number from {least:g} to {most:g}")
    return _Host(float(launch_s), float(device_factor), float(message_bytes), float(sequence_s))


def _calibration(source: str | os.PathLike[str] | Calibration | None, device: Accelerator) -> Calibration | None:
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
class _Timer:
    """Times passes of one model on one device."""

    model: Architecture
    device: Accelerator
    layout: Parallel
    formats: Precision
    calibration: Calibration | None
    host: _Host

    def prefill(self, batch: int, tokens: int, prefix: int = 0) -> PassTime:
        """One pass over `tokens` new tokens a sequence."""
        return self._timed(np.array([batch]), tokens, np.array([prefix + tokens]))

    def decode(self, batch: int, first: int, last: int) -> PassTime:
        """The mean of single-token passes at contexts `first` to `last`."""
        contexts = np.unique(np.round(np.linspace(first, last, DECODE_POINTS)))
        return self._timed(np.full(len(contexts), batch), 1, contexts, _mean_weights(contexts))

    def sweep(self, batches: Array, tokens: int, context: int) -> Sweep:
        """A pass of each batch at one context."""
        launches, timed = self._kernels(batches, tokens, np.full(len(batches), context))
        seconds, flops, moved = (np.sum([kernels.totals[place] for kernels in timed], axis=0) for place in range(3))
        guessed_s = np.sum([kernels.totals[0] for kernels in timed if kernels.state == "datasheet"], axis=0) * np.ones(len(batches))
        dtypes = tuple(dict.fromkeys(launch.dtype for launch in launches if launch.kernel in ("gemm", "moe")))
        return Sweep(batches, seconds, flops, moved, bool((guessed_s <= MINOR * seconds).all()), dtypes)

    def _timed(self, batches: Array, tokens: int, contexts: Array, weights: Array | None = None) -> PassTime:
        """The mean over points of these weights."""
        return self._summed(*self._kernels(batches, tokens, contexts), np.ones(1) if weights is None else weights, int(batches[0]))

    def _kernels(self, batches: Array, tokens: int, contexts: Array) -> tuple[list[Launch], list[_Kernels]]:
        launches = list(self._launches(batches, tokens, contexts))
        return launches, [_Kernels(self._fit(*key), list(group), self.host.message_bytes) for key, group in _by_class(launches)]

    def _summed(self, launches: list[Launch], timed: list[_Kernels], weights: Array, batch: int) -> PassTime:
        ops = [op for kernels in timed for op in kernels.ops(weights)]
        device_s = sum(op["seconds"] for op in ops)
        host_s = self.host.launch_s * sum(op["calls"] for op in ops) + self.host.sequence_s * batch
        stretched_s = self.host.device_factor * device_s
        seconds = float(pnorm(np.array(stretched_s), np.array(host_s), OVERLAP)) if host_s else stretched_s
        width = np.sqrt(sum((kernels.share(ops, device_s) * np.log(kernels.fit.spread)) ** 2 for kernels in timed))
        bound = "host" if host_s > device_s else max(BOUNDS, key=lambda b: sum(op["seconds"] for op in ops if op["bound_by"] == b))
        from_datasheet = sum(op["seconds"] for op in ops if op["state"] == "datasheet") / device_s
        order = {id(launch.row.op): place for place, launch in enumerate(launches)}
        ops.sort(key=lambda op: order[op.pop("_key")])
        for op in ops:
            op["share"] = op["seconds"] / device_s
        notes = tuple(dict.fromkeys(note for kernels in timed for note in kernels.notes()))
        return PassTime(
            seconds, seconds / float(np.exp(width)), seconds * float(np.exp(width)), device_s, host_s, bound,
            from_datasheet <= MINOR, tuple(ops), notes,
        )  # fmt: skip

    # rows as kernels

    def _launches(self, batches: Array, tokens: int, contexts: Array) -> Iterator[Launch]:
        options = Options(precision=self.formats)
        rows = self.model._rows(options, Phase.DECODE if tokens == 1 else Phase.PREFILL)
        numbers = _Numbers(batches, tokens, contexts, self.formats, self.layout, self.device)
        launches = [launch for row in rows if (launch := numbers.launch(row)) is not None]
        for launch in _merged(launches):
            kernel = self._known(_narrowest(launch), launch.dtype)
            yield launch if kernel == launch.kernel else replace(launch, kernel=kernel)
        if self.layout.tp > 1:
            yield from _all_reduces(launches, numbers, self.model.hidden_size)

    def _known(self, kernel: str, dtype: str) -> str:
        """The narrowest class that was measured on this device."""
        wider = kernel_class(kernel).instead
        measured = self.calibration.classes if self.calibration else ()
        here = any((known.kernel, known.dtype) == (kernel, dtype) for known in measured)
        return kernel if here or not wider else self._known(wider, dtype)

    def _fit(self, kernel: str, dtype: str) -> Fit:
        """The class as it was measured on this device, cold; else with fractions of another format or device, or a guess."""
        own = self.calibration.classes if self.calibration else ()
        if self.calibration and any((known.kernel, known.dtype) == (kernel, dtype) for known in own):
            return _measured(self.calibration, kernel, dtype, self.device)
        known = [measured for measured in (*own, *_shipped(LENDER).classes) if measured.kernel == kernel]
        known.sort(key=lambda measured: measured.dtype != dtype)  # stable: this device's first
        return guessed(kernel_class(kernel), Peaks.of(self.device, dtype), known[0].parameters if known else None).cold()


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
class _Numbers:
    """Numbers for letters: one number of new tokens, and a batch and a context for each of several points."""

    batches: Array
    tokens: int
    contexts: Array
    formats: Precision
    layout: Parallel
    device: Accelerator
    _kept: dict[int, tuple[dict[Any, Any], dict[Any, Array]]] = field(default_factory=dict)
    """For each binding of letters the plain numbers, with those of all expressions of them, and the arrays."""

    def launch(self, row: Row) -> Launch | None:
        """A row as a kernel; None for what is fused into its neighbour and moves nothing. Raises where no class fits."""
        kernel = row.op.kernel or {"scan": "scan", "attend": "scan", "conv": "conv", "gather": "gather"}.get(row.op.kind, "memory")
        if kernel not in SHAPES:
            raise CostModelError(f"no kernel class for row {'/'.join(row.path)} of kind {row.op.kind}")
        name, sizes = SHAPES[kernel](self, row)
        if not next(iter(sizes.values())).all() or (kernel == "attention" and not self.moved(row).all()):
            return None  # a tower without images
        return Launch(row, name, self._dtype(row, name), sizes, row.times)

    def value(self, row: Row, expr: Expr) -> Array:
        """An expression of a row at every context."""
        kept = self._kept.get(id(row.binding))
        plain, arrays = kept or self._kept.setdefault(id(row.binding), self._letters(row))
        if arrays and not (letters := _letters_of(expr)).isdisjoint(arrays):
            return evaluate_arrays(expr, {letter: plain[letter] for letter in letters - arrays.keys()} | arrays)
        return np.full(len(self.contexts), float(walk(expr, plain)))

    def _letters(self, row: Row) -> tuple[dict[Any, Any], dict[Any, Array]]:
        """What is the same at every point is a number."""
        places = {B: self.batches, S: self.contexts}
        arrays = {letter: values for letter, values in places.items() if (values != values[0]).any()}
        plain: dict[Any, Any] = {letter: int(values[0]) for letter, values in places.items() if letter not in arrays}
        plain[T] = self.tokens
        return plain | bound_values(row.binding, {letter: plain[letter] for letter in (B, T) if letter in plain}), arrays

    def shape(self, row: Row) -> dict[str, Array]:
        return {name: self.value(row, expr) for name, expr in row.op.shape}

    def stored(self, row: Row) -> Array:
        """Bytes an element of the row's matrices, as they are kept."""
        return self.value(row, _bytes_an_element(row.op.cost.weights[0], self.formats))

    def moved(self, row: Row) -> Array:
        """Bytes a rank moves of a row in one layer."""
        moved = self.value(row, _bytes_moved(row.op.cost, self.formats))
        return moved / (1 if row.op.split == "none" else self.layout.tp)

    def _dtype(self, row: Row, kernel: str) -> str:
        """The format that the device multiplies in: that of the weights where it has a peak for it, else the activations'."""
        wide = "fp32" if self.formats.activations == "fp32" else "bf16"
        if kernel not in ("gemm", "moe"):
            return wide
        stored = self.formats.matrix(row.op.cost.weights[0].role).name
        return stored if stored in ("fp8", "int8") and stored in self.device.peak_flops_per_s else wide


@lru_cache(maxsize=8192)
def _letters_of(expr: Expr) -> frozenset[Any]:
    return frozenset(expr.free_symbols)


@lru_cache(maxsize=4096)
def _bytes_moved(cost: Cost, formats: Precision) -> Expr:
    return cost.bytes_moved(formats)


@lru_cache(maxsize=4096)
def _bytes_an_element(weight: Weight, formats: Precision) -> Expr:
    return weight.bytes(formats) / weight.elements


Shaped = tuple[str, dict[str, Array]]


def _gemm(numbers: _Numbers, row: Row) -> Shaped:
    sizes, tp = numbers.shape(row), numbers.layout.tp
    shared = {"columns": "n", "rows": "k"}.get(row.op.split)
    if shared:
        sizes[shared] = np.maximum(sizes[shared] / tp, 1)
    return "gemm", {**sizes, "stored": numbers.stored(row)}


def _moe(numbers: _Numbers, row: Row) -> Shaped:
    """A third of the class, which is three products: each has the class's FLOPs and bytes over three."""
    sizes, layout = numbers.shape(row), numbers.layout
    wide, narrow = np.maximum(sizes["hidden"], sizes["inter"]), np.minimum(sizes["hidden"], sizes["inter"])
    one = np.ones_like(wide)
    rest = {
        "tp": layout.tp / layout.ep * one,
        "ep": float(layout.ep) * one,
        "skew": np.zeros_like(one),
        "stored": numbers.stored(row),
    }
    return "moe", {**sizes, "hidden": wide, "inter": narrow, **rest}


def _attention(numbers: _Numbers, row: Row) -> Shaped:
    """Of single tokens or of many; where fewer pairs are seen than causally, as after a shorter (or negative) prefix."""
    sizes, tp = numbers.shape(row), numbers.layout.tp
    batch, tokens = numbers.value(row, B), numbers.value(row, T)
    heads, kv_heads = np.maximum(sizes["heads"] / tp, 1), np.maximum(sizes["kv_heads"] / tp, 1)
    seen = sizes["pairs"] / np.maximum(tokens, 1)
    cache = np.full(len(batch), float(evaluate(numbers.formats.element("cache"), {}))) if _plain_cache(numbers) else None
    kept = {"stored": cache} if cache is not None else {}
    if row.op.algorithm == "absorbed":
        rope = sizes["d_qk"] - sizes["d_v"]
        return "mla_decode", {
            "batch": batch, "context": seen, "heads": heads * tokens, "latent": sizes["d_v"], "rope": rope, **kept
        }  # fmt: skip
    width = (sizes["d_qk"] + sizes["d_v"]) / 2
    common = {"batch": batch, "heads": heads, "kv_heads": kv_heads, "head_dim": width}
    if tokens[0] == 1:
        return "decode_attention", {**common, "context": seen, **kept}
    return "prefill_attention", {**common, "tokens": tokens, "prefix": seen - (tokens + 1) / 2}


def _plain_cache(numbers: _Numbers) -> bool:
    return numbers.formats.cache != "fp8_ds_mla"


def _scan(numbers: _Numbers, row: Row) -> Shaped:
    """A recurrence in steps over many tokens is no kernel of one step."""
    flops = numbers.value(row, row.op.cost.flops) / numbers.layout.tp
    kernel = row.op.kernel or "scan"
    return "scan" if numbers.tokens > 1 and kernel.endswith("_step") else kernel, {
        "bytes": numbers.moved(row),
        "flops": flops,
        "tokens": np.full(len(flops), float(numbers.tokens)),
    }


def _memory(numbers: _Numbers, row: Row) -> Shaped:
    return row.op.kernel or "memory", {"bytes": numbers.moved(row)}


SHAPES: dict[str, Callable[[_Numbers, Row], Shaped]] = {
    "gemm": _gemm, "moe": _moe, "attention": _attention,
    **dict.fromkeys(("scan", "gdn_chunked", "gdn_step", "ssd_chunked", "ssd_step"), _scan),
    **dict.fromkeys(("memory", "norm", "gate", "rope", "gather", "conv"), _memory),
}  # fmt: skip
"""How the numbers of a row become the sizes of its class."""


def _merged(launches: Sequence[Launch]) -> Iterator[Launch]:
    """Products one after another that read the same input run as one, side by side: each has its share of the columns."""

    def together(launch: Launch) -> Any:
        if launch.kernel != "gemm":
            return id(launch)
        return (launch.row.group, launch.row.block, launch.dtype, float(launch.sizes["m"][0]), float(launch.sizes["k"][0]))

    for _, group in groupby(launches, together):
        side_by_side = list(group)
        if len(side_by_side) == 1:
            yield side_by_side[0]
            continue
        columns = np.sum([launch.sizes["n"] for launch in side_by_side], axis=0)
        for launch in side_by_side:
            yield replace(launch, share=float((launch.sizes["n"] / columns)[0]), sizes={**launch.sizes, "n": columns})


def _narrowest(launch: Launch) -> str:
    """A product of one row is a class of its own."""
    return "gemv" if launch.kernel == "gemm" and (launch.sizes["m"] == 1).all() else launch.kernel


def _all_reduces(launches: Sequence[Launch], numbers: _Numbers, width: int) -> Iterator[Launch]:
    """One for each block and layer whose last product leaves a sum in parts."""
    numbers.device.given("link_bytes_per_s")
    last = {(launch.row.group, launch.row.block): launch for launch in launches if launch.row.op.split == "rows"}
    size = numbers.batches * float(numbers.tokens * width) * float(evaluate(numbers.formats.element("activations"), {}))
    for launch in last.values():
        op = replace(launch.row.op, name="all_reduce", kind="collective")
        sizes = {"ranks": np.full(len(numbers.contexts), float(numbers.layout.tp)), "bytes": size}
        yield Launch(replace(launch.row, op=op), "allreduce", "bf16", sizes, launch.times)


def _by_class(launches: Sequence[Launch]) -> list[tuple[tuple[str, str], list[Launch]]]:
    found: dict[tuple[str, str], list[Launch]] = {}
    for launch in launches:
        found.setdefault((launch.kernel, launch.dtype), []).append(launch)
    return list(found.items())


def _mean_weights(contexts: Array) -> Array:
    """What each context counts in the mean over all between the first and the last (straight between)."""
    if len(contexts) == 1:
        return np.ones(1)
    gaps = np.diff(contexts)
    weights: Array = (np.concatenate([gaps, [0.0]]) + np.concatenate([[0.0], gaps])) / 2
    return np.asarray(weights / weights.sum())


@dataclass(frozen=True, eq=False)
class _Kernels:
    """All launches of one class in a pass, timed together."""

    fit: Fit
    launches: list[Launch]
    message_bytes: float

    @cached_property
    def _sizes(self) -> dict[str, Array]:
        names = self.launches[0].sizes
        return {name: np.concatenate([launch.sizes[name] for launch in self.launches]) for name in names}

    def ops(self, weights: Array) -> list[dict[str, Any]]:
        """A dict a launch; `_key` tells which."""
        seconds, flops, moved = (each @ weights for each in self._points)
        return [self._op(launch, *figures) for launch, *figures in zip(self.launches, seconds, flops, moved, strict=True)]

    @property
    def state(self) -> str:
        """`calibrated`, or `datasheet` where the class was not measured on this device."""
        return "datasheet" if np.isinf(self.fit.lowest).any() else "calibrated"

    @cached_property
    def totals(self) -> tuple[Array, Array, Array]:
        """Seconds, FLOPs and bytes of all launches together, at each point; what crosses links is no memory's."""
        times = np.array([launch.times * _share(launch) for launch in self.launches])
        seconds, flops, moved = (times @ each for each in self._points)
        return seconds, flops, moved * (self.fit.kernel.name != "allreduce")

    @cached_property
    def _points(self) -> tuple[Array, Array, Array]:
        """Seconds, FLOPs and bytes of each launch at each point."""
        work = self.fit.kernel.work(self._sizes, self.fit.peaks)
        seconds = self.fit.predict(self._sizes)
        if self.fit.kernel.name == "allreduce":
            seconds = seconds * (1 + self._sizes["bytes"] / self.message_bytes)
        every = seconds, work.flops, work.moved
        seconds, flops, moved = (each.reshape(len(self.launches), -1) for each in every)
        return seconds, flops, moved

    def _op(self, launch: Launch, seconds: float, flops: float, moved: float) -> dict[str, Any]:
        row, times, peaks = launch.row, launch.times * _share(launch), self.fit.peaks
        bound = bound_by(launch.kernel, float(seconds), float(flops / peaks.flops_per_s), float(moved / peaks.memory_bytes_per_s))
        return {
            "group": row.group, "layers": row.layers, "block": row.block, "op": row.op.name, "kind": row.op.kind,
            "kernel": launch.kernel, "dtype": launch.dtype, "calls": times, "seconds": float(seconds) * times,
            "flops": float(flops) * times, "bytes": 0.0 if bound == "link" else float(moved) * times,
            "bound_by": bound, "state": self.state, "_key": id(row.op),
        }  # fmt: skip

    def share(self, ops: Sequence[dict[str, Any]], whole_s: float) -> float:
        """This class's share of a pass."""
        key = (self.launches[0].kernel, self.launches[0].dtype)
        return float(sum(op["seconds"] for op in ops if (op["kernel"], op["dtype"]) == key) / whole_s)

    def notes(self) -> Iterator[str]:
        """What is guessed here, or beyond what was measured."""
        name = f"{self.fit.kernel.name} in {self.launches[0].dtype}"
        if np.isinf(self.fit.lowest).any():
            yield f"{name}: not measured on this accelerator; its time is a guess from the datasheet, off by a factor of 2 at times"
        elif self.fit.beyond(self._sizes).any():
            yield f"{name}: some shapes lie outside the measured range"


def _share(launch: Launch) -> float:
    """Its part of the class's kernel: routed experts are a third of it each."""
    return launch.share / (3 if launch.kernel == "moe" else 1)
