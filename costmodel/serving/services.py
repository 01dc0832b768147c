"""What engines of a layout promise under traffic: time to the first token with its waits, time per token, tokens a second.

Two ways: colocated engines prefill prompts in pieces beside decoding (continuous batching); disaggregated pools prefill and decode
apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from costmodel.catalog import Device, Source, as_accelerator, as_architecture
from costmodel.errors import CostModelError, shown
from costmodel.footprint import DeviceMemory, check_layout
from costmodel.frames import facts
from costmodel.parallelism import Parallel
from costmodel.serving.batching import Interleaved, Steady, interleaved, steady_batch
from costmodel.serving.engines import (
    CHUNK,
    FULL,
    MODES,
    OUTPUTS,
    PROMPTS,
    Array,
    Engine,
    Layouts,
    Mode,
    Speculation,
    Traffic,
    with_room,
)
from costmodel.serving.queueing import Places, queue
from costmodel.timing.estimating import formats_of, layout_of, widened
from costmodel.units import binary_bytes, seconds, whole
from costmodel.workload import Precision

LEVELS = (0.5, 0.9, 0.99)
"""Of requests: the share that a stated time holds for."""
WAITING = 0.005
"""Share of requests that wait for a place in a batch from which a note says so."""


@dataclass(frozen=True)
class Service:
    """What a deployment promises: seconds by level (the share of requests they hold for), tokens a second, use of its engines.

    `tpot_s` is the mean time between tokens, pauses for prompts included; `batch` the sequences that decode in a replica in the
    mean, of `places` at most. `requests_per_s` is the highest rate that these engines keep up with: where `saturated`, the
    traffic exceeds it, requests pile up and times are infinite. Where it does not fit (`fits`) that is 0.
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
    places: int
    requests_per_s: float
    prefill_utilisation: float
    saturated: bool
    memory: DeviceMemory = field(repr=False)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """In a line."""
        first = ", ".join(f"p{100 * level:g} {seconds:.4g} s" for level, seconds in self.ttft_s.items())
        full = ", saturated" if self.saturated else ""
        replicas = f"{self.replicas:,} replica" + ("s" if self.replicas > 1 else "")
        return f"<service of {replicas}, {self.mode}: TTFT {first}; TPOT {self.tpot_s:.4g} s{full}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        first = {f"TTFT of {level:.0%}": seconds(found) if found < np.inf else None for level, found in self.ttft_s.items()}
        rest = {
            "TPOT": seconds(self.tpot_s) if self.tpot_s < np.inf else None, "sequences that decode in a replica": self.batch,
            "places": self.places, "most requests a second": self.requests_per_s, "saturated": self.saturated, "fits": self.fits,
        }  # fmt: skip
        return facts(f"{self.devices:,} x {self.memory.accelerator.name}, {self.mode}", first | rest)

    @property
    def tokens_per_s_per_user(self) -> float:
        """Tokens that a user reads a second."""
        return 1 / self.tpot_s

    @property
    def fits(self) -> bool:
        """Whether the devices have room for the weights and a sequence."""
        return self.memory.fits

    @property
    def served_per_s(self) -> float:
        """Requests a second that are served: all that come, or as many as these engines keep up with."""
        return min(self.traffic.requests_per_s, self.requests_per_s) if self.saturated else self.traffic.requests_per_s

    @property
    def output_tokens_per_s_per_device(self) -> float:
        """Tokens of output a second over all devices."""
        return self.served_per_s * self.traffic.output.mean / self.devices

    @property
    def input_tokens_per_s_per_device(self) -> float:
        """Tokens of prompts a second over all devices, those found in the prefix cache included."""
        return self.served_per_s * self.traffic.prompt.mean / self.devices


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
    """What `replicas` of a layout promise under traffic, at most `batch` sequences decoding in each (fewer where memory is short).

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
    if prefill_replicas != 1 and mode == "colocated":
        raise CostModelError("prefill_replicas are of a pool of its own; add mode='disaggregated', or leave it out")
    formats = precision if isinstance(precision, Precision) else formats_of(precision, cache_precision)
    engine = Engine(chosen, device, formats, traffic, speculation, chunk=whole("chunk", chunk))
    layout, _ = layout_of(chosen, parallel, None)
    apart, _ = layout_of(chosen, layout if prefill is None else prefill, None)
    for each in (layout, apart):
        check_layout(engine.draft or chosen, Parallel(tp=each.tp))
    replicas, batch, prefills = whole("replicas", replicas), whole("batch", batch), whole("prefill_replicas", prefill_replicas)
    pools = (layout, apart) if mode == "disaggregated" else (layout,)
    for each, tokens in zip(pools, (traffic.longest, int(np.ceil(traffic.prompt.at(FULL)))), strict=False):
        if not (least := engine.memory(each, 1, tokens)).fits:
            return _nothing(engine, least, replicas, prefills, pools)
    memory = engine.memory(layout, batch)
    room = batch if memory.fits else memory.most_sequences or 1
    fewer = () if room == batch else (
        f"each replica has room for {room:,} sequences of {traffic.longest:,} tokens, not {batch:,}: at most {room:,} decode in it",
    )  # fmt: skip
    groups = layout.dp * layout.pp
    pool = _Pool(engine, layout, replicas, -(-batch // groups) if room == batch else max(room // groups, 1))
    memory = engine.memory(layout, room)
    found = _colocated(pool, memory) if mode == "colocated" else _disaggregated(pool, memory, apart, prefills)
    return replace(found, notes=(*fewer, *found.notes, *widened(device, formats)))


def _nothing(engine: Engine, memory: DeviceMemory, replicas: int, prefills: int, pools: tuple[Parallel, ...]) -> Service:
    """Of devices that have no room for the weights and a single sequence: they promise nothing."""
    held, has, never = binary_bytes(memory.used_bytes), binary_bytes(memory.memory_bytes), np.inf
    devices = sum(number * layout.devices for number, layout in zip((replicas, prefills), pools, strict=False))
    apart = len(pools) > 1
    return Service(
        mode="disaggregated" if apart else "colocated", traffic=engine.traffic, replicas=replicas,
        prefill_replicas=prefills if apart else 0, devices=devices, ttft_s=dict.fromkeys(LEVELS, never), tpot_s=never,
        prefill_s=never, step_s=never, transfer_s=never, batch=0.0, places=0, requests_per_s=0.0, prefill_utilisation=never,
        saturated=True, memory=memory,
        notes=(f"does not fit: {held} with one sequence, for a device of {has}; spread it over more ranks, or store it smaller",),
    )  # fmt: skip


@dataclass(frozen=True)
class _Pool:
    """Engines that decode: replicas of a layout with `most` places on a rank, and the seconds of a step of 1, 2, ... sequences."""

    engine: Engine
    layout: Parallel
    replicas: int
    most: int

    @property
    def groups(self) -> int:
        """Streams of sequences in a replica."""
        return self.layout.dp * self.layout.pp

    @property
    def streams(self) -> int:
        """Streams of sequences in all replicas."""
        return self.replicas * self.groups

    @cached_property
    def columns(self) -> Layouts:
        return Layouts.of(self.engine.model, [self.layout])

    @cached_property
    def table(self) -> Array:
        """Seconds of a step of 1 to `most` sequences on a rank, without prompts."""
        batches = np.unique(np.round(np.geomspace(1, self.most, 64)))
        found = self.engine.step_s(self.columns[np.zeros(len(batches), dtype=int)], batches)
        return np.interp(np.arange(1, self.most + 1), batches, found)

    @cached_property
    def empty_s(self) -> float:
        """What a step's weights take."""
        return float(self.engine.weights_s(self.columns)[0])

    @property
    def steps(self) -> float:
        """Decode steps of a request in the mean, for a division."""
        return max(self.engine.steps, 1e-9)

    def needed(self, steady: Steady) -> int:
        """Places on a rank at which requests seldom wait for one: `with_room`."""
        decoding, growth = float(steady.in_flight) * self.streams, float(steady.step_s) / self.empty_s
        return int(np.ceil((float(with_room(decoding, growth, LEVELS[-1])) + 1) / self.streams))

    def places(self, steady: Steady) -> Places | None:
        """The wait for a place in a batch; None where there are places enough."""
        if steady.saturated or self.engine.steps == 0 or self.needed(steady) <= self.most:
            return None
        settled = np.interp(float(steady.batch), np.arange(1, self.most + 1), self.table)
        tokens, weights = self.engine.traffic.output.points(OUTPUTS * PROMPTS)
        steps = np.maximum(tokens - 1, 1e-9) * self.engine.steps / self.engine.traffic.steps
        pace = self.table * float(steady.step_s) / settled
        return Places.of(self.engine.traffic.requests_per_s, steps, weights, pace, self.streams)

    def notes(self, steady: Steady, places: Places | None, late_prompts: bool, most_rate: float) -> tuple[str, ...]:
        """Why requests pile up, or that they wait for a place in a batch at times."""
        if late_prompts or steady.saturated:
            more = "" if late_prompts else ", or room for more sequences (batch)"
            kept_up = f"these engines keep up with {most_rate:.3g} requests a second at most"
            return (f"requests pile up: {kept_up}; give more replicas{more}",)
        if places is None or places.wait_probability < WAITING:
            return ()
        return (
            f"{places.wait_probability:.2g} of the requests wait for a place in a batch, which ttft_s counts; with room for "
            f"{self.needed(steady):,} sequences on a rank, not {self.most:,}, or more replicas, hardly any would",
        )


def _ttft_s(places: Places | None, late: Callable[[float | Array], Any], alone: Callable[[float], Any]) -> dict[float, float]:
    """Quantiles of the time to the first token, the wait for a place in a batch included.

    `late` gives the share of requests whose prompt takes longer than given seconds, `alone` quantiles of that.
    """
    if places is None:
        return {level: float(alone(level)) for level in LEVELS}
    return dict(zip(LEVELS, map(float, places.before(late, np.array(LEVELS))), strict=True))


def _most_rate(saturated: Callable[[Array], Any], bound: float) -> float:
    """The highest rate at which requests do not pile up, to a thousandth; `bound` is what none of its parts exceeds alone.

    Two parts that each keep up with `bound` alone keep up with half of it together.
    """
    low, high = bound / 4, bound
    for _ in range(3):
        rates = np.linspace(low, high, 13)[1:]
        piled = np.flatnonzero(np.asarray(saturated(rates)))
        first = int(piled[0]) if len(piled) else len(rates) - 1
        low, high = (rates[first - 1] if first else low), rates[first]
    return float(low)


def _colocated(pool: _Pool, memory: DeviceMemory) -> Service:
    engine, traffic, layout = pool.engine, pool.engine.traffic, pool.layout
    tokens, new, weights = traffic.prompts
    known: dict[tuple[bytes, bytes], Array] = {}

    def alone_s(piece: Array, context: Array) -> Array:
        key = piece.tobytes(), context.tobytes()
        if key not in known:
            known[key] = engine.pass_s(pool.columns, piece, np.round(context + tokens - new))
        return known[key]

    def step_seconds(beside: Array, piece: Array, context: Array) -> Array:
        """A pass of prompt tokens reads the weights anyway: sequences beside it add what they take beyond them."""
        shape = np.broadcast_shapes(beside.shape, piece.shape)
        decoding = np.interp(np.maximum(beside, 1), np.arange(1, pool.most + 1), pool.table)
        if not piece.any():
            return np.broadcast_to(decoding, shape)
        return np.broadcast_to(alone_s(piece, context) + np.where(beside > 0, np.maximum(decoding - pool.empty_s, 0.0), 0.0), shape)

    def at(rate: float | Array) -> Interleaved:
        return interleaved(rate, pool.steps, (new, weights), step_seconds, pool.most, engine.chunk, pool.streams)

    found = at(traffic.requests_per_s)
    places = pool.places(found.decode)
    alone = float((engine.pieces_s(pool.columns)[0] @ weights)[0])
    bound = min(pool.streams / alone, pool.streams * pool.most / pool.steps / float(pool.table[-1]))
    most_rate = _most_rate(lambda rates: at(rates).saturated, bound)
    return Service(
        mode="colocated", traffic=traffic, replicas=pool.replicas, prefill_replicas=0, devices=pool.replicas * layout.devices,
        ttft_s=dict.fromkeys(LEVELS, np.inf) if found.saturated else _ttft_s(places, found.late, found.ttft_s),
        tpot_s=np.inf if found.saturated else float(found.decode.step_s) / engine.tokens_per_step,
        prefill_s=alone, step_s=float(pool.table[-1]), transfer_s=0.0,
        batch=float(found.decode.in_flight) * pool.groups, places=pool.most * pool.groups, requests_per_s=most_rate,
        prefill_utilisation=float(found.prefill.utilisation), saturated=bool(found.saturated), memory=memory,
        notes=pool.notes(found.decode, places, float(found.prefill.utilisation) >= 1, most_rate),
    )  # fmt: skip


def _disaggregated(pool: _Pool, memory: DeviceMemory, apart: Parallel, prefills: int) -> Service:
    engine, traffic, before = pool.engine, pool.engine.traffic, Layouts.of(pool.engine.model, [apart])
    prompts, (_, _, weights) = engine.prompt_s(before), traffic.prompts
    servers = prefills * apart.dp * apart.pp
    waiting = queue(traffic.requests_per_s, prompts[0], weights, servers)
    steady = steady_batch(traffic.requests_per_s / pool.streams, pool.steps, pool.table, pool.most)
    places, moved = pool.places(steady), float(engine.transfer_s(pool.columns, before)[0])
    late_prompts = float(waiting.utilisation) >= 1
    saturated, mean = bool(steady.saturated) or late_prompts, float(prompts[0] @ weights)
    most_rate = min(servers / mean, pool.streams * pool.most / pool.steps / float(pool.table[-1]))

    def late(limit: float | Array) -> Array:
        left = np.asarray(limit) - moved
        return np.where(left > 0, waiting.share_beyond(np.where(left > 0, left, 1.0)), 1.0)

    return Service(
        mode="disaggregated", traffic=traffic, replicas=pool.replicas, prefill_replicas=prefills,
        devices=pool.replicas * pool.layout.devices + prefills * apart.devices,
        ttft_s=dict.fromkeys(LEVELS, np.inf) if saturated
        else _ttft_s(places, late, lambda level: float(waiting.response_s(level)) + moved),
        tpot_s=np.inf if saturated else float(steady.step_s) / engine.tokens_per_step, prefill_s=mean,
        step_s=float(pool.table[-1]), transfer_s=moved,
        batch=float(steady.in_flight) * pool.groups, places=pool.most * pool.groups, requests_per_s=most_rate,
        prefill_utilisation=float(waiting.utilisation), saturated=saturated, memory=memory,
        notes=pool.notes(steady, places, late_prompts, most_rate),
    )  # fmt: skip
