"""A long run of training: FLOPs, hours, dollars and each device's memory, from tokens, devices and a stated utilisation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import Any

from costmodel.architecture import Architecture
from costmodel.catalog import Device, Source, as_accelerator, as_architecture
from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.evaluate import evaluate
from costmodel.footprint import Held
from costmodel.formula import Formula
from costmodel.frames import facts
from costmodel.hardware import Accelerator, positive
from costmodel.parallelism import stage_layers
from costmodel.training.held import NAMES, OPTIMIZERS, OUTSIDE, RECOMPUTE, TrainingState
from costmodel.units import whole
from costmodel.workload import ELEMENT_BYTES, Precision, View

MAX_TOKENS = 10**18
HOUR, DAY = 3600.0, 86_400.0
METHODS = ("exact", "6nd")


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of the fullest device, stage `stage` of the pipeline (from 0), as training goes; `formula` has each row in letters.

    `activation_bytes` are those of the chosen recomputation, one of the three that stand beside. What a runtime, its messages and
    fragmentation take comes on top.
    """

    state: TrainingState
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activations: tuple[int, int, int]
    memory_bytes: int

    @property
    def stage(self) -> int:
        """The fullest stage."""
        return self.state.stage

    @property
    def activation_bytes(self) -> int:
        """Activations under the chosen recomputation."""
        return self.activations[RECOMPUTE.index(self.state.recompute)]

    @property
    def total_bytes(self) -> int:
        """All four rows."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.activation_bytes

    @property
    def free_bytes(self) -> int:
        """What is left of the device; negative where it does not fit."""
        return self.memory_bytes - self.total_bytes

    @property
    def fits(self) -> bool:
        """Whether the rows fit into the device."""
        return self.free_bytes >= 0

    def formula(self, name: str) -> Formula:
        """The Formula of a row: weights, gradients, optimizer or activations, over ranks, sequences and their length."""
        if not isinstance(name, str) or name not in NAMES:
            raise CostModelError(f"no row of training memory is called {shown(name)}; {did_you_mean(name, NAMES)}")
        return self.state.formula(name)


@dataclass(frozen=True)
class Training:
    """What a run of training costs. `flops` are the model's, without what recomputation repeats: MFU counts those alone.

    `further` are device hours that were told, not computed; they are in the totals. `batch` None: no step is timed.
    """

    model: str
    accelerator: str
    devices: int
    layout: str
    tokens: int
    sequence: int
    batch: int | None
    mfu: float
    method: str
    peak_flops_per_s: float
    flops_per_token: float
    recomputed: float
    further: tuple[tuple[str, float], ...]
    usd_per_hour: float | None
    memory: TrainingMemory
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        """In a line."""
        run = f"{self.tokens:.4g} tokens on {self.devices:,} x {self.accelerator}, {self.layout}"
        return f"<training of {self.model}: {run}: {self.device_hours:,.0f} device hours, {self.days:,.1f} days>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return facts(
            f"{self.model} on {self.devices:,} x {self.accelerator}, {self.layout}",
            {
                "tokens": self.tokens, "FLOP": self.flops, "MFU": self.mfu, "device hours": self.total_device_hours,
                "days": self.days, "dollars": self.usd, "bytes of the fullest device": self.memory.total_bytes,
                "fits": self.memory.fits,
            },
        )  # fmt: skip

    @property
    def flops(self) -> float:
        """FLOP of the whole run."""
        return self.flops_per_token * self.tokens

    @property
    def hardware_flops(self) -> float:
        """FLOP with what recomputation repeats."""
        return self.flops * self.recomputed

    @property
    def hfu(self) -> float:
        """Hardware FLOP utilisation: that of all FLOP, repeated ones too."""
        return self.mfu * self.recomputed

    @property
    def tokens_per_s_per_device(self) -> float:
        """Tokens a second of each device."""
        return self.peak_flops_per_s * self.mfu / self.flops_per_token

    @property
    def device_hours(self) -> float:
        """Hours of devices that the tokens take at this utilisation."""
        return self.tokens / self.tokens_per_s_per_device / HOUR

    @property
    def total_device_hours(self) -> float:
        """The same with the further hours."""
        return self.device_hours + sum(hours for _, hours in self.further)

    @property
    def days(self) -> float:
        """Days on all devices, without the further hours."""
        return self.device_hours * HOUR / self.devices / DAY

    @property
    def usd(self) -> float | None:
        """Dollars of all device hours; None where no price is known."""
        return None if self.usd_per_hour is None else self.total_device_hours * self.usd_per_hour

    @property
    def steps(self) -> float | None:
        """Optimiser steps, where the batch is given."""
        return None if self.batch is None else self.tokens / (self.batch * self.sequence)

    @property
    def step_s(self) -> float | None:
        """Seconds of one step."""
        rate = self.tokens_per_s_per_device * self.devices
        return None if self.batch is None else self.batch * self.sequence / rate

    def utilisation(self, device_hours: float) -> float:
        """The MFU at which the tokens would take so many device hours.

        >>> run = train("deepseek-v3", "h800", devices=2048, tokens=14.8e12)
        >>> round(run.utilisation(2_664_000), 3)
        0.391
        """
        return self.flops / (positive("device_hours", device_hours) * HOUR * self.peak_flops_per_s)


def train(
    model: Source,
    accelerator: Device,
    devices: int,
    tokens: float,
    sequence: int = 4096,
    batch: int | None = None,
    mfu: float = 0.4,
    *,
    method: str = "exact",
    recompute: str = "none",
    tp: int = 1,
    pp: int = 1,
    ep: int = 1,
    zero: int = 1,
    sequence_parallel: bool = False,
    microbatch: int = 1,
    precision: str | Precision = "bf16",
    gradients: str = "bf16",
    optimizer: str = "adamw",
    dropout: bool = False,
    dtype: str = "bf16",
    usd_per_hour: float | None = None,
    further: Mapping[str, float] | None = None,
) -> Training:
    """Training on `tokens` in sequences of `sequence`, `batch` sequences a step, on `devices` accelerators at `mfu` of the peak.

    FLOPs: forward and twice that backward, or 6 x active parameters x tokens (`method="6nd"`). `dtype` is the format whose peak
    `mfu` refers to. Memory: `precision` stores the weights, `gradients` the gradients, `optimizer` is one of `OPTIMIZERS`;
    devices = `tp` tensor-parallel x `pp` stages x data-parallel ranks, of which each `ep` share the experts and over
    which `zero` 1, 2, 3 cuts the optimiser, gradients and weights too; a microbatch has `microbatch` sequences, and the stages
    run one forward, one backward. `further`: device hours of other parts, by name, as published. Dollars at the accelerator's
    listed price unless told otherwise.

    Raises CostModelError for an unknown name, an impossible number, or a layout that does not divide.

    >>> run = train("deepseek-v3", "h800", devices=2048, tokens=14.8e12, mfu=0.3894, tp=1, pp=16, ep=64, batch=15_360,
    ...             optimizer="adamw-bf16", gradients="fp32", further={"context extension": 119_000, "post-training": 5_000})
    >>> round(run.device_hours), round(run.days, 1), round(run.usd / 1e6, 2)
    (2672546, 54.4, 5.59)
    """
    found, device = as_architecture(model), as_accelerator(accelerator)
    if found.recursion:
        raise CostModelError(f"{found.name} is a recursive reasoner, which no run over tokens trains; ask for its training_flops")
    length, seen = whole("sequence", sequence), _tokens(tokens)
    grid = _Grid.of(found, whole("devices", devices), tp, pp, ep, whole("microbatch", microbatch), batch)
    formats = precision if isinstance(precision, Precision) else Precision.named(precision)
    state = TrainingState(
        found, formats, _one_of("optimizer", optimizer, OPTIMIZERS), _one_of("gradients", gradients, ELEMENT_BYTES),
        _zero(zero), sequence_parallel is True, _one_of("recompute", recompute, RECOMPUTE), dropout is True, grid.pp,
    )  # fmt: skip
    for name, value in (("sequence_parallel", sequence_parallel), ("dropout", dropout)):
        if not isinstance(value, bool):
            raise CostModelError(f"{name} got {shown(value)}; give True or False")
    step = found.training_flops.having(method=_one_of("method", method, METHODS))
    exact = found.training_flops
    price = device.price.usd_per_hour if usd_per_hour is None and device.price else usd_per_hour
    return Training(
        found.name, device.name, grid.devices, grid.name(state.zero), seen, length, grid.batch,
        positive("mfu", mfu, most=1), method, float(device.peak(dtype)), step(context=length) / length,
        exact(context=length, recompute=recompute) / exact(context=length),
        _further(further), None if price is None else positive("usd_per_hour", price),
        _fullest(state, grid, length, device), (*_notes(found, device, state, length), *found.remarks(length)),
    )  # fmt: skip


@dataclass(frozen=True)
class _Grid:
    """How devices divide: dp x tp x pp, checked."""

    devices: int
    tp: int
    pp: int
    dp: int
    ep: int
    microbatch: int
    batch: int | None

    @classmethod
    def of(cls, model: Architecture, devices: int, tp: int, pp: int, ep: int, microbatch: int, batch: int | None) -> _Grid:
        tp, pp, ep = whole("tp", tp), whole("pp", pp), whole("ep", ep)
        if devices % (tp * pp):
            raise CostModelError(f"tp {tp} x pp {pp} does not divide {devices:,} devices")
        dp = devices // (tp * pp)
        experts = min((int(weight.copies) for weight in model.experts.values()), default=1)
        if dp % ep or ep > experts:
            raise CostModelError(f"ep {ep} must divide the {dp:,} data-parallel ranks and not exceed the experts ({experts:,})")
        _check_heads(model, tp)
        sequences = None if batch is None else whole("batch", batch)
        if sequences is not None and sequences % (dp * microbatch):
            each = f"{dp:,} data-parallel ranks x {microbatch} a microbatch"
            raise CostModelError(f"batch {sequences:,} is no multiple of {each}; give one that is, or more tp or pp")
        return cls(devices, tp, pp, dp, ep, microbatch, sequences)

    def in_flight(self, stage: int) -> int:
        """Microbatches that wait for their backward pass in a stage: one forward, one backward."""
        waiting = self.pp - stage
        return waiting if self.batch is None else min(waiting, self.batch // (self.dp * self.microbatch))

    def name(self, zero: int) -> str:
        """The degrees, as people write them."""
        experts, cut = f" EP{self.ep}" if self.ep > 1 else "", f", ZeRO {zero}" if zero else ""
        return f"TP{self.tp} PP{self.pp} DP{self.dp}{experts}{cut}"


def _check_heads(model: Architecture, tp: int) -> None:
    for row in Held(model, Precision(), View())._rows:
        heads = dict(row.op.shape).get("heads")
        number = 0 if heads is None or row.group == "vision" else int(evaluate(heads.xreplace(row.binding), {}))
        if number % tp:
            raise CostModelError(f"tp {tp} does not divide the {number} attention heads of group {row.group}")


def _fullest(state: TrainingState, grid: _Grid, sequence: int, device: Accelerator) -> TrainingMemory:
    """The memory of the stage that holds most. Of equal stages the first has most microbatches in flight."""
    order = stage_layers(state.model.layer_order, grid.pp)
    seen = {(place == 0, place == grid.pp - 1, tuple(here.items())): place for place, here in reversed(list(enumerate(order)))}
    held = [
        _memory(replace(state, stage=place, in_flight=grid.in_flight(place)), grid, sequence, device.memory_bytes)
        for place in seen.values()
    ]
    return max(held, key=lambda memory: memory.total_bytes)


@lru_cache(maxsize=1024)
def _memory(state: TrainingState, grid: _Grid, sequence: int, memory_bytes: int) -> TrainingMemory:
    ranks = {"tp_ranks": grid.tp, "dp_ranks": grid.dp, "ep_ranks": grid.ep}
    weights, gradients, optimizer = (ceil(state.formula(name)(**ranks)) for name in NAMES[:3])
    at = {"batch": grid.microbatch, "context": sequence, "tp_ranks": grid.tp}
    none, selective, full = (ceil(replace(state, recompute=kept).formula("activations")(**at)) for kept in RECOMPUTE)
    return TrainingMemory(state, weights, gradients, optimizer, (none, selective, full), memory_bytes)


def _tokens(value: Any) -> int:
    """Tokens of a run: a whole number from 1 to 10^18."""
    number = positive("tokens", value, most=MAX_TOKENS)
    if number < 1 or number != int(number):
        raise CostModelError(f"tokens got {shown(value)}; give a whole number from 1 to {MAX_TOKENS}")
    return int(value)


def _zero(value: Any) -> int:
    number = whole("zero", value, least=0)
    if number > 3:
        raise CostModelError(f"zero got {shown(value)}; give a stage from 0 to 3")
    return number


def _one_of(name: str, value: Any, known: Any) -> Any:
    if not isinstance(value, str) or value not in known:
        raise CostModelError(f"{name} got {shown(value)}; {did_you_mean(value, known)}")
    return value


def _further(told: Mapping[str, float] | None) -> tuple[tuple[str, float], ...]:
    """Device hours by name."""
    if told is not None and not isinstance(told, Mapping):
        raise CostModelError(f"further got {shown(told)}; give device hours by name, such as {{'post-training': 5_000}}")
    hours = []
    for name, value in (told or {}).items():
        if not isinstance(name, str) or not name:
            raise CostModelError(f"further has the name {shown(name)}; give a text such as 'post-training'")
        hours.append((name, positive(f"further {shown(name)}", value)))
    return tuple(hours)


def read_hours(texts: Iterable[str]) -> dict[str, float]:
    """Further device hours as people write them. Raises CostModelError for anything but NAME=HOURS.

    >>> read_hours(["context extension=119000"])
    {'context extension': 119000.0}
    """
    hours = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            hours[name.strip()] = float(number)
        except ValueError:
            raise CostModelError(f"further hours got {shown(text)}; give NAME=HOURS, such as post-training=5000") from None
    return hours


def _notes(model: Architecture, device: Accelerator, state: TrainingState, sequence: int) -> tuple[str, ...]:
    """What the numbers leave out, for this model and this way to train."""
    kinds = {row.op.kind for row in state.rows if row.group not in OUTSIDE}
    told = ["hours are those of the model's FLOPs at the stated MFU; what recomputation repeats is in hardware_flops alone"]
    if state.recompute == "full":
        told.append("full recomputation: one layer's own activations come on top while it is repeated")
    if state.recompute == "none":
        told.append("activations keep the scores of all pairs; a fused attention kernel keeps what selective recomputation keeps")
    if "scan" in kinds:
        told.append(
            "recurrent layers save what they read and write, and matrices of one block that read equally wide inputs are taken "
            "to read one tensor: sums of the ledger, not of a paper"
        )
    if "expert_linear" in kinds:
        told.append("experts' rows are spread evenly over their ranks")
    if any(row.op.kind == "attend" and not row.op.shape for row in state.rows):
        told.append("the indexer's own scores are not among the activations")
    if model.vision:
        told.append("text alone: the vision tower's weights are trained, its FLOPs and activations are not counted")
    if device.price is None:
        told.append(f"{device.name} has no listed price")
    return tuple(told)
