"""Estimates: seconds to the first token and for each further one, on some devices, with what bounds them and how sure they are.

Time to first token (TTFT) is the prefill of the prompts; time per output token (TPOT) the mean of the decode steps from a
context of prompt + 1 to prompt + output - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from costmodel.architecture import Architecture
from costmodel.calibration.store import Calibration
from costmodel.catalog import Device, Source, as_accelerator, as_architecture
from costmodel.errors import CostModelError, shown
from costmodel.footprint import DeviceMemory, check_layout, device_memory, tensor_parallel
from costmodel.frames import facts, frame
from costmodel.hardware import Accelerator
from costmodel.parallelism import Parallel, stage_layers
from costmodel.timing.launches import NARROW
from costmodel.timing.points import Points
from costmodel.timing.roofline import MINOR, Clock, Host, PassTime, clock, shipped_or
from costmodel.units import binary_bytes, seconds, whole
from costmodel.workload import Precision

if TYPE_CHECKING:
    import os

    import pandas as pd

Array = NDArray[np.float64]
STOPS = np.unique(np.round(2.0 ** (np.arange(0, 41 * 4) / 4)))
"""Contexts at which decode steps are timed, four to an octave; between two of them time is taken as straight."""


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
    """What a workload takes on some devices. `memory` is what each device of a replica holds, as `device_memory` tells it.

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
    memory: DeviceMemory
    prefill: PassTime
    decode: PassTime | None
    widened: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """In a line: the rows behind it are in `ops`."""
        told = f"TTFT {self.ttft_s:.4g} s" + (f", TPOT {self.tpot_s:.4g} s" if self.tpot_s is not None else "")
        return f"<estimate of {self.model} on {self.devices:,} x {self.accelerator}, {self.parallel.name}: {told}, {self.state}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        first, last = self.interval["ttft_s"], self.interval.get("tpot_s")
        return facts(
            f"{self.model} on {self.devices:,} x {self.accelerator}, {self.parallel.name}",
            {
                "TTFT": f"{seconds(self.ttft_s)} ({seconds(first[0])} to {seconds(first[1])})",
                "TPOT": None if self.tpot_s is None or last is None
                else f"{seconds(self.tpot_s)} ({seconds(last[0])} to {seconds(last[1])})",
                "output tokens a second and device": self.output_tokens_per_s_per_device, "bound by": self.bound_by,
                "state": self.state, "fits": self.memory.fits,
            },
        )  # fmt: skip

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
        return self.batch * self.output / (self.ttft_s + steps) / self.parallel.devices

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
        """What a reader should know: what does not fit, formats without units, guessed classes, shapes beyond what was measured."""
        aside = (*_too_large(self.memory), *self.widened)
        return tuple(dict.fromkeys((*aside, *self.prefill.notes, *(self.decode.notes if self.decode else ()))))

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
    devices: int | None = None,
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

    `parallel` is tensor parallel over as many of the devices as the heads and a node's links allow, unless given; more devices
    than one replica takes are further replicas.
    `calibration` is a name or file (default: the shipped one of this accelerator, if any). `launch_s` is what the host
    takes for each kernel where they are not captured in graphs, `sequence_s` for each sequence of a pass; `device_factor`
    stretches the device's own time; an all-reduce of `message_bytes` takes twice what the calibration says, as in servers
    whose collectives slow down with size.

    Raises CostModelError for an unknown model or device, a model that does not write token after token, a calibration of another
    device, a layout that the model does not allow, or an impossible number.

    >>> e = estimate("llama-3.1-8b", "h100-sxm", batch=8, prompt=1024, output=128)
    >>> e.bound_by, e.state, e.memory.fits
    ('memory', 'calibrated', True)
    """
    chosen, device = as_architecture(model), as_accelerator(accelerator)
    check_works(chosen)
    batch, prompt, output = whole("batch", batch), whole("prompt", prompt), whole("output", output)
    layout, devices = layout_of(chosen, parallel, devices, device.link_devices)
    formats = precision if isinstance(precision, Precision) else formats_of(precision, cache_precision)
    timer = _clock(chosen, device, formats, calibration, _host(launch_s, device_factor, message_bytes, sequence_s))
    memory = device_memory(chosen, device, layout, batch, prompt + output, formats)
    steps = decode_pass(timer, layout, batch, prompt + 1, prompt + output - 1) if output > 1 else None
    first = prefill_pass(timer, layout, batch, prompt)
    notes = widened(device, formats)
    return Estimate(chosen.name, device.name, devices, layout, batch, prompt, output, memory, first, steps, notes)


def _too_large(memory: DeviceMemory) -> tuple[str, ...]:
    """A note where the devices have no room: the seconds are those of devices that had."""
    if memory.fits:
        return ()
    held, has = binary_bytes(memory.used_bytes), binary_bytes(memory.memory_bytes)
    return (f"does not fit: {held} for a device of {has}; the times are those of devices that had room",)


def widened(device: Accelerator, formats: Precision) -> tuple[str, ...]:
    """A note where weights are stored in a narrow format that the device has no units for.

    >>> from costmodel.catalog import accelerator
    >>> widened(accelerator("a100-80gb"), formats_of("fp8", "bf16"))
    ('a100-80gb has no fp8 units: products of fp8 weights run at the speed of bf16',)
    """
    stored = dict.fromkeys(formats.matrix(role).name for role in ("weights", "experts"))
    return tuple(
        f"{device.name} has no {name} units: products of {name} weights run at the speed of bf16"
        for name in stored
        if name in NARROW and name not in device.peak_flops_per_s
    )


def layout_of(model: Architecture, parallel: Parallel | None, devices: int | None, node: int = 1) -> tuple[Parallel, int]:
    """The layout, and how many devices: one replica's unless more are given. Of `node` devices each reaches the others by links.

    Raises CostModelError where replicas do not fill the devices, or the model does not allow the layout.
    """
    if parallel is not None and not isinstance(parallel, Parallel):
        raise CostModelError(f"parallel got {shown(parallel)}; give a Parallel, such as Parallel(tp=8)")
    number = whole("devices", (parallel.devices if parallel else 1) if devices is None else devices)
    layout = parallel or tensor_parallel(model, gcd(number, node) if node > 1 else number)
    if number % layout.devices:
        raise CostModelError(f"a replica of {layout.name} takes {layout.devices} devices; devices got {number}, no multiple of it")
    check_layout(model, layout)
    return layout, number


def time_pass(
    model: Source, accelerator: Device, batch: int, tokens: int, context: int, precision: str | Precision = "bf16",
    parallel: Parallel | None = None, calibration: str | os.PathLike[str] | Calibration | None = None,
) -> PassTime:  # fmt: skip
    """One forward pass over `tokens` new tokens of each of `batch` sequences, which are the last of `context`.

    Raises CostModelError as `estimate` does.

    >>> 0.004 < time_pass("llama-3.1-8b", "h100-sxm", 8, 1, 4096).seconds < 0.009
    True
    """
    device, formats = as_accelerator(accelerator), precision if isinstance(precision, Precision) else formats_of(precision, "bf16")
    batch, tokens, context = whole("batch", batch), whole("tokens", tokens), whole("context", context)
    if context < tokens:
        raise CostModelError(f"context got {context:,} for {tokens:,} new tokens; give at least as many")
    timer = _clock(as_architecture(model), device, formats, calibration, Host())
    return timer.detail(Points.of(parallel or Parallel(), batch, tokens, context))


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
    formats = precision if isinstance(precision, Precision) else formats_of(precision, cache_precision)
    timer = clock(as_architecture(model), device, formats)
    every = np.array([whole("batch", batch) for batch in batches])
    points = Points.of(parallel or Parallel(), every, whole("tokens", tokens), whole("context", context))
    found = timer.totals(points)
    calibrated = bool((found.guessed_s <= MINOR * found.device_s).all())
    seconds = np.asarray(timer.host.total(found.device_s, found.calls, points.batch))
    return Sweep(every, seconds, found.flops, found.bytes, calibrated, found.dtypes)


def prefill_pass(timer: Clock, layout: Parallel, batch: int, tokens: int, prefix: int = 0) -> PassTime:
    """The prompts of `batch` sequences in one pass, `tokens` new ones each after a `prefix`, through all stages."""
    points = Points.of(layout, -(-batch // layout.dp), tokens, prefix + tokens)
    return timer.detail(points, layout.overlap, pipelined(layout) * stage_balance(timer.model, layout.pp))


def pipelined(layout: Parallel) -> float:
    """What a prompt takes in pieces that follow each other through the stages, over what it takes whole; 1 in one piece.

    >>> pipelined(Parallel(pp=4, microbatches=4))
    0.4375
    """
    return (layout.microbatches + layout.pp - 1) / (layout.microbatches * layout.pp)


def decode_pass(timer: Clock, layout: Parallel, batch: int, first: int, last: int) -> PassTime:
    """The mean decode step at contexts `first` to `last`; each stage of a pipeline works on a part of the batch of its own."""
    points = Points.of(layout, rank_batch(layout, batch), 1, last).over(*stops(first, last))
    return timer.detail(points, layout.overlap, stage_balance(timer.model, layout.pp))


def stage_balance(model: Architecture, stages: int) -> float:
    """What a pipeline takes over one of equal stages: every stage waits for the one with the most layers (by their number).

    >>> import costmodel as cm
    >>> stage_balance(cm.load("deepseek-v3"), 4) == 4 * 16 / 61
    True
    """
    return stages * max(sum(layers.values()) for layers in stage_layers(model.layer_order, stages)) / model.depth


def rank_batch(layout: Parallel, batch: Any) -> Any:
    """Sequences of a batch that one rank's pass has: those of its group, and of the part that its stage works on.

    >>> rank_batch(Parallel(dp=4, pp=2), 100)
    13
    """
    return -(-batch // (layout.dp * layout.pp))


def stops(first: int, last: int) -> tuple[Array, Array]:
    """The `STOPS` around contexts `first` to `last`, and what each counts in the mean over all of them (straight between stops).

    >>> contexts, weights = stops(1000, 1048)
    >>> contexts.tolist(), round(float(contexts @ weights), 6)
    ([861.0, 1024.0, 1218.0], 1024.0)
    """
    low = max(int(np.searchsorted(STOPS, first, side="right")) - 1, 0)
    high = min(int(np.searchsorted(STOPS, last, side="left")), len(STOPS) - 1)
    contexts = STOPS[low : max(high, low) + 1]
    return contexts, weights_of_stops(contexts, np.array([float(first)]), np.array([float(last)]))[0]


def weights_of_stops(contexts: Array, first: Array, last: Array) -> Array:
    """What each of some stops counts in the mean over all contexts from `first` to `last` [n]: weights [n, stops].

    >>> weights_of_stops(np.array([8.0, 16.0]), np.array([10.0]), np.array([14.0])).tolist()
    [[0.5, 0.5]]
    """
    total = sums_of_stops(contexts, last) - sums_of_stops(contexts, first - 1)
    return np.asarray(total / (last - first + 1)[:, None])


def sums_of_stops(contexts: Array, last: Array) -> Array:
    """Sums of each stop's hat function over whole contexts after the first stop and up to `last` (negative before it)."""
    if len(contexts) == 1:
        return last[:, None]
    gaps, least = np.diff(contexts), np.zeros(len(contexts) - 1)
    least[0] = -1.0
    inside = np.clip(last[:, None] - contexts[:-1], least, gaps)
    rising = inside * (inside + 1) / 2 / gaps
    sums = np.zeros((len(last), len(contexts)))
    sums[:, 1:] += rising
    sums[:, :-1] += inside - rising
    return sums


def check_works(model: Architecture) -> None:
    """Raises CostModelError for a model that does not write token after token: its passes are no prefill and no decode."""
    if model.diffusion or model.recursion:
        kind = "denoises whole blocks" if model.diffusion else "solves puzzles and writes no text"
        ask = "generation_flops and time_pass" if model.diffusion else "solve_flops and time_pass"
        raise CostModelError(f"{model.name} {kind}: it has no time per output token; ask for {ask}")


def formats_of(precision: str, cache_precision: str) -> Precision:
    """What a name means for a device: weights of fp32 are multiplied in fp32, as everything beside them is."""
    formats = Precision.named(precision, cache=cache_precision)
    rest = dict.fromkeys(("embeddings", "others", "activations"), "fp32") if formats.weights == "fp32" else {}
    return formats.model_copy(update=rest)


def _clock(
    model: Architecture, device: Accelerator, formats: Precision, source: str | os.PathLike[str] | Calibration | None, host: Host
) -> Clock:
    if source is None:
        return clock(model, device, formats, host)
    return Clock(model, device, formats, shipped_or(source, device), host)


def _host(launch_s: float, device_factor: float, message_bytes: float, sequence_s: float) -> Host:
    for name, value, least, most in (
        ("launch_s", launch_s, 0.0, 100.0), ("device_factor", device_factor, 0.01, 100.0),
        ("message_bytes", message_bytes, 1.0, 1e18), ("sequence_s", sequence_s, 0.0, 100.0),
    ):  # fmt: skip
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
            raise CostModelError(f"{name} got {shown(value)}; give a number from {least:g} to {most:g}")
    return Host(float(launch_s), float(device_factor), float(message_bytes), float(sequence_s))
