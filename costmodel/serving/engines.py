"""Serving: what engines of a layout promise under traffic. Time to first token with its queue, time per token, tokens a second.

Two ways: `colocated` engines prefill prompts in pieces beside decoding (continuous batching); `disaggregated` pools prefill and
decode apart. Everything takes arrays of layouts and batches, so that the planner asks once for all its candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from statistics import NormalDist
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from costmodel.architecture import Architecture
from costmodel.catalog import Device, Source, as_accelerator, as_architecture
from costmodel.errors import CostModelError, shown
from costmodel.footprint import DeviceMemory, check_layout, device_memory
from costmodel.hardware import Accelerator
from costmodel.parallelism import Parallel
from costmodel.serving.batching import Steady, interleaved, steady_batch
from costmodel.serving.lengths import Lengths
from costmodel.serving.queueing import queue
from costmodel.timing.estimating import STOPS, check_works, formats_of, layout_of, pipelined, stage_balance, stops
from costmodel.timing.points import Points
from costmodel.timing.roofline import Clock, Host, clock
from costmodel.units import binary_bytes, whole
from costmodel.workload import Checked, Precision

Array = NDArray[np.float64]
Mode = Literal["colocated", "disaggregated"]
MODES: tuple[Mode, ...] = ("colocated", "disaggregated")
LEVELS = (0.5, 0.9, 0.99)
"""Of requests: the share that a stated time holds for."""
CHUNK = 2048
"""Tokens of a prompt that ride on one step of a colocated engine, unless told otherwise. An assumption."""
PROMPTS, OUTPUTS = 8, 4
"""Lengths that stand for a distribution of prompts, and of outputs."""
FEW = 32.0
"""Sequences whose step tells what its weights take."""
CROWDED = 0.02
"""Of the requests that may be late, the part that may find every place of a batch taken. An assumption."""
FULL = 0.9
"""Memory is sized for sequences as long as this share of them is at most, prompt and output each."""


class Traffic(Checked):
    """Requests that come in, and how long they are; a number, text such as `p50=900,p90=4000`, or `Lengths`.

    `cached_fraction` of each prompt is found in the prefix cache and not computed again.

    >>> Traffic(requests_per_s=10, prompt=4096, output="p50=200,p99=2000").prompt.mean
    4096.0
    """

    requests_per_s: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
    prompt: Lengths = Lengths.of(4096)
    output: Lengths = Lengths.of(1024)
    cached_fraction: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0

    @field_validator("requests_per_s", "cached_fraction", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        if isinstance(value, (bool, str)):
            raise ValueError(f"got {shown(value)}; give a number")
        return value

    @field_validator("prompt", "output", mode="before")
    @classmethod
    def _lengths(cls, value: object) -> object:
        return Lengths.of(value)

    @property
    def steps(self) -> float:
        """Decode steps of a request in the mean: the first token comes from the prefill."""
        return self.output.mean - 1

    @property
    def longest(self) -> int:
        """Tokens that memory is sized for: prompt and output of nine requests in ten at most, each."""
        return int(np.ceil(self.prompt.at(FULL))) + int(np.ceil(self.output.at(FULL)))

    @property
    def contexts(self) -> tuple[Array, Array]:
        """Contexts of decode steps and their weights: the mean over all steps of all requests."""
        return _contexts(self.prompt, self.output)

    @property
    def prompts(self) -> tuple[Array, Array, Array]:
        """Prompt lengths that stand for all, the tokens of each that must be computed, and their weights."""
        tokens, weights = self.prompt.points(PROMPTS)
        tokens = np.round(tokens)
        return tokens, np.maximum(np.ceil(tokens * (1 - self.cached_fraction)), 1.0), weights


@lru_cache(maxsize=256)
def _contexts(prompts: Lengths, outputs: Lengths) -> tuple[Array, Array]:
    total = np.zeros(len(STOPS))
    for prompt, share in zip(*prompts.points(PROMPTS), strict=True):
        for output, part in zip(*outputs.points(OUTPUTS), strict=True):
            first, last = round(prompt) + 1, round(prompt) + max(round(output) - 1, 1)
            found, weights = stops(first, last)
            total[np.searchsorted(STOPS, found)] += weights * share * part * max(output - 1, 1e-9)
    used = np.flatnonzero(total)
    return STOPS[used], total[used] / total.sum()


class Speculation(Checked):
    """`tokens` are guessed and checked in one pass; each is right with probability `acceptance` if those before it are.

    They come from the model's own multi-token-prediction modules (`draft="mtp"`), or from a smaller model.

    >>> Speculation(tokens=1, acceptance=0.8).tokens_per_step
    1.8
    """

    tokens: Annotated[int, Field(strict=True, ge=1, le=64)]
    acceptance: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    draft: str = "mtp"

    @field_validator("acceptance", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        if isinstance(value, (bool, str)):
            raise ValueError(f"got {shown(value)}; give a number")
        return value

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a step brings in expectation: 1 + a + a^2 ... + a^tokens (Leviathan et al. 2023, arXiv 2211.17192)."""
        return sum(self.acceptance**power for power in range(self.tokens + 1))


@dataclass(frozen=True, eq=False)
class Layouts:
    """Layouts as arrays, an entry each."""

    tp: Array
    dp: Array
    cp: Array
    pp: Array
    ep: Array
    imbalance: Array
    overlapped: Array
    pieces: Array
    """What a prompt takes in pieces through the stages, over what it takes whole."""
    balance: Array
    """What a pipeline waits for its slowest stage."""

    @classmethod
    def of(cls, model: Architecture, layouts: Sequence[Parallel]) -> Layouts:
        """From a list."""
        columns = [[float(getattr(layout, name)) for layout in layouts] for name in ("tp", "dp", "cp", "pp", "ep", "imbalance")]
        overlapped = [float(layout.overlap != "none") for layout in layouts]
        pieces = [pipelined(layout) for layout in layouts]
        balance = [stage_balance(model, layout.pp) for layout in layouts]
        return cls(*(np.array(column) for column in (*columns, overlapped, pieces, balance)))

    def __len__(self) -> int:
        return len(self.tp)

    def __getitem__(self, places: Any) -> Layouts:
        return Layouts(*(getattr(self, each.name)[places] for each in fields(self)))

    @property
    def groups(self) -> Array:
        """Streams of sequences in a replica, each with passes of its own: dp groups times pp stages."""
        return self.dp * self.pp

    @property
    def drafting(self) -> Layouts:
        """As a draft model sees them: it stands in the last stage, whole but for tensor parallelism. The others wait meanwhile."""
        return replace(self, pp=np.ones_like(self.pp), ep=np.ones_like(self.ep))

    @property
    def holders(self) -> Array:
        """Ranks that hold a part each of a sequence's cache."""
        return self.tp * self.cp * self.pp

    def points(self, batch: Any, tokens: Any, context: Any) -> Points:
        """Passes of these layouts; everything broadcasts."""
        return Points.stacked(batch, tokens, context, self.tp, self.dp, self.cp, self.pp, self.ep, self.imbalance)


@dataclass(frozen=True, eq=False)
class Engine:
    """One model stored in some formats on one device, under some traffic: seconds of its steps and prompts."""

    model: Architecture
    device: Accelerator
    formats: Precision
    traffic: Traffic
    speculation: Speculation | None = None
    host: Host = field(default_factory=Host)
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        check_works(self.model)
        if self.draft is not None:
            check_works(self.draft)
        if self.speculation and self.speculation.draft == "mtp" and self.mtp > self.model._mtp_modules():
            raise CostModelError(
                f"{self.model.name} has {self.model._mtp_modules()} multi-token-prediction modules, not {self.mtp}; "
                "guess fewer tokens, or name a draft model"
            )

    @property
    def mtp(self) -> int:
        """Multi-token-prediction modules that guess."""
        return self.speculation.tokens if self.speculation and self.speculation.draft == "mtp" else 0

    @cached_property
    def draft(self) -> Architecture | None:
        """The model that guesses, where it is another."""
        guesses = self.speculation
        return as_architecture(guesses.draft) if guesses and guesses.draft != "mtp" else None

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a decode step brings to a sequence in expectation."""
        return self.speculation.tokens_per_step if self.speculation else 1.0

    @cached_property
    def _decode(self) -> Clock:
        return clock(self.model, self.device, self.formats, self.host, self.mtp)

    @cached_property
    def _guess(self) -> Clock | None:
        return None if self.draft is None else clock(self.draft, self.device, self.formats, self.host)

    @cached_property
    def _prefill(self) -> Clock:
        return clock(self.model, self.device, self.formats, self.host, self.mtp)

    @property
    def steps(self) -> float:
        """Decode steps of a request in the mean."""
        return self.traffic.steps / self.tokens_per_step

    def weights_s(self, layouts: Layouts) -> Array:
        """Seconds that a step takes for its weights alone: of `FEW` sequences with a single token of context.

        So many meet most experts, and are too few to be bound by their products.
        """
        return self._steps_s(layouts, FEW, np.ones(1), np.ones(1))

    def step_s(self, layouts: Layouts, batch: Any) -> Array:
        """Seconds of one decode step of so many sequences on a rank, at the mean over contexts; with guesses, their check too."""
        return self._steps_s(layouts, batch, *self.traffic.contexts)

    def _steps_s(self, layouts: Layouts, batch: Any, contexts: Array, weights: Array) -> Array:
        guesses = self.speculation.tokens if self.speculation else 0
        points = replace(layouts.points(batch, 1 + guesses, 1), verify=guesses > 0, _found={}).over(contexts, weights)
        seconds = _timed(self._decode, points, layouts) * layouts.balance
        if self._guess is not None:
            guessing = layouts.drafting.points(batch, 1, 1).over(contexts, weights)
            seconds = seconds + layouts.pp * guesses * self._guess.seconds(guessing)
        return np.asarray(seconds)

    def pass_s(self, layouts: Layouts, new: Any, context: Any) -> Array:
        """Seconds of a pass over so many new tokens of one prompt on a rank, the last of a context; a draft reads them too."""
        seconds = _single_or_many(self._prefill, layouts.points(1.0, new, context)) * layouts.balance
        if self._guess is not None:
            seconds = seconds + layouts.pp * _single_or_many(self._guess, layouts.drafting.points(1.0, new, context))
        return np.asarray(seconds)

    def prompt_s(self, layouts: Layouts) -> Array:
        """Seconds of whole prompts alone [layouts, prompts]: what `Traffic.prompts` leaves to compute of each."""
        tokens, new, _ = self.traffic.prompts
        size = (len(layouts), len(tokens))
        every = layouts[np.repeat(np.arange(len(layouts)), len(tokens))]
        seconds = self.pass_s(every, np.tile(new, len(layouts)), np.tile(tokens, len(layouts))) * every.pieces
        return np.asarray(seconds.reshape(size))

    def pieces_s(self, layouts: Layouts) -> tuple[Array, Array]:
        """Seconds of prompts in pieces of `chunk` tokens [layouts, prompts], and the number of pieces [prompts].

        All but the last piece are priced at their mean context.
        """
        tokens, new, _ = self.traffic.prompts
        count = np.ceil(new / self.chunk)
        last = new - (count - 1) * self.chunk
        size, every = (len(layouts), len(tokens)), layouts[np.repeat(np.arange(len(layouts)), len(tokens))]

        def passes(piece: Array, context: Array) -> Array:
            return self.pass_s(every, np.tile(piece, len(layouts)), np.tile(np.round(context), len(layouts))).reshape(size)

        if (count == 1).all():
            return passes(last, tokens), count
        whole = np.full(len(new), float(self.chunk))
        mean = np.maximum(tokens - last - (new - last - self.chunk) / 2, self.chunk)
        return (count - 1) * passes(whole, mean) + passes(last, tokens), count

    def transfer_s(self, layouts: Layouts, apart: Layouts) -> Array:
        """Seconds that the cache of a mean prompt takes from a pool that is laid out `apart` to one that decodes.

        Each rank's part goes over its own network link, so the side with fewer of them decides.
        """
        kept = float(self.model.cache_bytes(context=max(round(self.traffic.prompt.mean), 1), precision=self.formats))
        return np.asarray(kept / np.minimum(layouts.holders, apart.holders) / float(self.device.given("network_bytes_per_s")))

    def memory(self, layout: Parallel, batch: int, context: int | None = None) -> DeviceMemory:
        """What each device holds of `batch` sequences a replica."""
        return device_memory(
            self.model, self.device, layout, batch, context or self.traffic.longest, self.formats, mtp=self.mtp,
            speculative=self.speculation.tokens if self.speculation else 0, draft=self.draft,
        )  # fmt: skip


def _timed(timer: Clock, points: Points, layouts: Layouts) -> Array:
    """Seconds of each point, in two overlapping halves where its layout says so."""
    overlapped = np.broadcast_to(layouts.overlapped > 0, points.batch.shape)
    if not overlapped.any():
        return timer.seconds(points)
    halved = timer.seconds(points, "two_batches")
    return halved if overlapped.all() else np.where(overlapped, halved, timer.seconds(points))


def _single_or_many(timer: Clock, points: Points) -> Array:
    """Seconds of prompts of which some have a single token left to compute: those are decode steps."""
    one = points.tokens == 1
    if one.all() or not one.any():
        return timer.seconds(points)
    single, many = (replace(points, tokens=tokens, _found={}) for tokens in (np.ones(len(points)), np.maximum(points.tokens, 2)))
    return np.where(one, timer.seconds(single), timer.seconds(many))


@dataclass(frozen=True)
class Service:
    """What a deployment promises: seconds by level (the share of requests they hold for), tokens a second, use of its engines.

    `tpot_s` is the mean time between tokens, pauses for prompts included; `batch` the sequences that decode in a replica in the
    mean. Where `saturated`, requests pile up and times are infinite.
    """

    mode: Mode
    traffic: Traffic
    replicas: int
    prefill_replicas: int
    devices: int
    ttft_s: dict[float, float]
    tpot_s: float
    prefill_s: float
    step_s: float
    transfer_s: float
    batch: float
    prefill_utilisation: float
    saturated: bool
    memory: DeviceMemory = field(repr=False)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """In a line."""
        first = ", ".join(f"p{100 * level:g} {seconds:.4g} s" for level, seconds in self.ttft_s.items())
        full = ", saturated" if self.saturated else ""
        return f"<service of {self.replicas:,} replicas, {self.mode}: TTFT {first}; TPOT {self.tpot_s:.4g} s{full}>"

    @property
    def tokens_per_s_per_user(self) -> float:
        """Tokens that a user reads a second."""
        return 1 / self.tpot_s

    @property
    def output_tokens_per_s_per_device(self) -> float:
        """Tokens of output a second over all devices; none where requests pile up."""
        return 0.0 if self.saturated else self.traffic.requests_per_s * self.traffic.output.mean / self.devices

    @property
    def input_tokens_per_s_per_device(self) -> float:
        """Tokens of prompts a second over all devices, those found in the prefix cache included."""
        return 0.0 if self.saturated else self.traffic.requests_per_s * self.traffic.prompt.mean / self.devices


def serve(
    model: Source,
    accelerator: Device,
    traffic: Traffic,
    parallel: Parallel | None = None,
    replicas: int = 1,
    batch: int = 64,
    precision: str | Precision = "bf16",
    cache_precision: str = "bf16",
    mode: Mode = "colocated",
    prefill: Parallel | None = None,
    prefill_replicas: int = 1,
    chunk: int = CHUNK,
    speculation: Speculation | None = None,
) -> Service:
    """What `replicas` of a layout promise under traffic, at most `batch` sequences decoding in each.

    Colocated engines take prompts in pieces of `chunk` tokens beside the sequences that decode. Disaggregated, `prefill` is the
    layout of the pool that computes prompts (the same unless given), of `prefill_replicas`. Queues: see `queueing`.

    Raises CostModelError for what is unknown or impossible.

    >>> traffic = Traffic(requests_per_s=2, prompt=2048, output=256)
    >>> found = serve("llama-3.1-8b", "h100-sxm", traffic, batch=128)
    >>> found.saturated, 0.05 < found.ttft_s[0.5] < 0.2, 0.005 < found.tpot_s < 0.02
    (False, True, True)
    """
    if not isinstance(traffic, Traffic):
        raise CostModelError(f"traffic got {shown(traffic)}; give a Traffic, such as Traffic(requests_per_s=10)")
    if mode not in MODES:
        raise CostModelError(f"mode got {shown(mode)}; give colocated or disaggregated")
    if speculation is not None and not isinstance(speculation, Speculation):
        raise CostModelError(
            f"speculation got {shown(speculation)}; give a Speculation, such as Speculation(tokens=1, acceptance=0.8)"
        )
    chosen, device = as_architecture(model), as_accelerator(accelerator)
    if prefill is not None and mode == "colocated":
        raise CostModelError("prefill is the layout of a pool of its own; add mode='disaggregated', or leave it out")
    formats = precision if isinstance(precision, Precision) else formats_of(precision, cache_precision)
    engine = Engine(chosen, device, formats, traffic, speculation, chunk=whole("chunk", chunk))
    layout, _ = layout_of(chosen, parallel, None)
    apart, _ = layout_of(chosen, layout if prefill is None else prefill, None)
    for each in (layout, apart):
        check_layout(engine.draft or chosen, Parallel(tp=each.tp))
    replicas, batch, prefills = whole("replicas", replicas), whole("batch", batch), whole("prefill_replicas", prefill_replicas)
    if mode == "colocated":
        found = _colocated(engine, layout, replicas, batch)
    else:
        found = _disaggregated(engine, layout, replicas, batch, apart, prefills)
    return found if found.memory.fits else replace(found, notes=(_too_much(found.memory), *found.notes))


def _too_much(memory: DeviceMemory) -> str:
    """A note where a device has no room for what it should hold: nothing that is promised then holds."""
    held, room = binary_bytes(memory.used_bytes), binary_bytes(memory.memory_bytes)
    return f"does not fit: {held} for a device of {room}; spread it over more ranks, take smaller formats or a smaller batch"


def with_room(decoding: Any, growth: Any, level: float) -> Array:
    """The places in batches that `decoding` sequences in the mean need, so that a request seldom finds all of them taken.

    Their number varies as a shared processor's does: where a step's time grows as the batch to the power e, with a variance of
    about decoding / (1 - e) (the product form of Cohen, Acta Informatica 12, 1979); `growth`, the time between steps over what
    weights take alone, stands for 1 / (1 - e). All places are taken for `CROWDED` of the requests that may be late by `level`:
    the quantile of a gamma distribution of this mean and variance (Wilson and Hilferty, PNAS 17, 1931).

    >>> round(float(with_room(100.0, 1.0, 0.9)), 1)
    131.2
    """
    scale, deviations = np.maximum(growth, 1.0), NormalDist().inv_cdf(1 - CROWDED * (1 - level))
    shape = decoding / scale
    return np.asarray(decoding * np.maximum(1 - 1 / (9 * shape) + deviations / (3 * np.sqrt(shape)), 1.0) ** 3)


def _crowded(engine: Engine, steady: Steady, most: int, empty: float, streams: int) -> tuple[str, ...]:
    """A note where requests wait for a place in a batch, which `ttft_s` leaves out."""
    needed = np.ceil((float(with_room(float(steady.in_flight) * streams, float(steady.step_s) / empty, FULL)) + 1) / streams)
    if steady.saturated or engine.steps == 0 or needed <= 1.05 * most:
        return ()
    return (
        f"batches fill up at times, and ttft_s leaves out the wait for a place in them; give room for {needed:.0f} sequences "
        f"on a rank, not {most}, or more replicas",
    )


def _steps(engine: Engine, layout: Layouts, most: int) -> Array:
    """Seconds of a step of 1 to `most` sequences on a rank, without prompts: a table."""
    whole_batches = np.unique(np.round(np.geomspace(1, most, 64)))
    found = engine.step_s(layout[np.zeros(len(whole_batches), dtype=int)], whole_batches)
    return np.interp(np.arange(1, most + 1), whole_batches, found)


def _colocated(engine: Engine, layout: Parallel, replicas: int, batch: int) -> Service:
    traffic, columns = engine.traffic, Layouts.of(engine.model, [layout])
    most = max(1, -(-batch // (layout.dp * layout.pp)))
    table, streams = _steps(engine, columns, most), replicas * layout.dp * layout.pp
    empty = float(engine.weights_s(columns)[0])
    tokens, new, weights = traffic.prompts

    def step_seconds(beside: Array, piece: Array, context: Array) -> Array:
        """A pass of prompt tokens reads the weights anyway: sequences beside it add what they take beyond them."""
        shape = np.broadcast_shapes(beside.shape, piece.shape)
        decoding = np.interp(np.maximum(beside, 1), np.arange(1, most + 1), table)
        if not piece.any():
            return np.broadcast_to(decoding, shape)
        alone = engine.pass_s(columns, piece, np.round(context + tokens - new))
        return np.broadcast_to(alone + np.where(beside > 0, np.maximum(decoding - empty, 0.0), 0.0), shape)

    found = interleaved(traffic.requests_per_s, max(engine.steps, 1e-9), (new, weights), step_seconds, most, engine.chunk, streams)
    alone, _ = engine.pieces_s(columns)
    return Service(
        mode="colocated", traffic=traffic, replicas=replicas, prefill_replicas=0, devices=replicas * layout.devices,
        ttft_s={level: float(found.ttft_s(level)) for level in LEVELS},
        tpot_s=np.inf if found.saturated else float(found.decode.step_s) / engine.tokens_per_step,
        prefill_s=float(alone[0] @ weights), step_s=float(table[-1]), transfer_s=0.0,
        batch=float(found.decode.in_flight) * layout.dp * layout.pp, prefill_utilisation=float(found.prefill.utilisation),
        saturated=bool(found.saturated), memory=engine.memory(layout, batch),
        notes=_crowded(engine, found.decode, most, empty, streams),
    )  # fmt: skip


def _disaggregated(engine: Engine, layout: Parallel, replicas: int, batch: int, apart: Parallel, prefills: int) -> Service:
    traffic, columns = engine.traffic, Layouts.of(engine.model, [layout])
    before = Layouts.of(engine.model, [apart])
    prompts, (_, _, weights) = engine.prompt_s(before), traffic.prompts
    waiting = queue(traffic.requests_per_s, prompts[0], weights, prefills * apart.dp * apart.pp)
    most = max(1, -(-batch // (layout.dp * layout.pp)))
    table = _steps(engine, columns, most)
    streams = replicas * layout.dp * layout.pp
    steady = steady_batch(traffic.requests_per_s / streams, max(engine.steps, 1e-9), table, most)
    moved = float(engine.transfer_s(columns, before)[0])
    saturated = bool(steady.saturated) or float(waiting.utilisation) >= 1
    return Service(
        mode="disaggregated", traffic=traffic, replicas=replicas, prefill_replicas=prefills,
        devices=replicas * layout.devices + prefills * apart.devices,
        ttft_s={level: np.inf if saturated else float(waiting.response_s(level)) + moved for level in LEVELS},
        tpot_s=np.inf if saturated else float(steady.step_s) / engine.tokens_per_step, prefill_s=float(prompts[0] @ weights),
        step_s=float(table[-1]), transfer_s=moved,
        batch=float(steady.in_flight) * layout.dp * layout.pp, prefill_utilisation=float(waiting.utilisation),
        saturated=saturated, memory=engine.memory(layout, batch),
        notes=_crowded(engine, steady, most, float(engine.weights_s(columns)[0]), streams),
    )  # fmt: skip
