"""Candidates of a plan: layouts x batch of one accelerator and precision, priced by closed forms over arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from costmodel.architecture import Architecture
from costmodel.errors import shown
from costmodel.footprint import PASS_TOKENS, RESERVE, Demand, head_counts, most_experts, rank_letters
from costmodel.hardware import Accelerator
from costmodel.parallelism import Parallel
from costmodel.serving.engines import CROWDED, Engine, Layouts, Mode, Speculation, Traffic, with_room
from costmodel.serving.queueing import Queue, queue
from costmodel.workload import Checked, View

Array = NDArray[np.float64]
Places = NDArray[np.int64]
Objective = Literal["usd", "devices", "latency"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
BATCHES = np.unique(np.round(np.concatenate([np.arange(1, 8), 2 ** (np.arange(24, 81) / 8)])))
"""Sequences on a rank that are looked at: every one up to 8, then eight to an octave up to 1,024."""
LARGEST = 64
"""Devices of the largest replica that is looked at, unless limits or layouts say otherwise."""
LONG = 32_768
"""Tokens of context from which context-parallel layouts are looked at."""
MOST_REPLICAS = 1 << 20
MOST_SERVERS = 4096
"""Servers of a queue that is solved: more are waited for even less."""


class Limits(Checked):
    """What must hold: seconds to the first token for a share `level` of requests, seconds between tokens, devices, nodes, cost.

    Raises CostModelError for limits that are not positive.

    >>> Limits(ttft_s=2, tpot_s=0.05).level
    0.9
    """

    ttft_s: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    tpot_s: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    level: Annotated[float, Field(ge=0.5, le=0.999, allow_inf_nan=False)] = 0.9
    devices: Annotated[int, Field(strict=True, ge=1, le=MOST_REPLICAS)] | None = None
    nodes: Annotated[int, Field(strict=True, ge=1, le=MOST_REPLICAS)] | None = None
    usd_per_hour: Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)] | None = None

    @field_validator("ttft_s", "tpot_s", "level", "usd_per_hour", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        if isinstance(value, (bool, str)):
            raise ValueError(f"got {shown(value)}; give a number")
        return value

    @property
    def prompt_level(self) -> float:
        """The share of requests whose prompt must be in time: of those that may be late, `CROWDED` wait for a place in a batch."""
        return 1 - (1 - CROWDED) * (1 - self.level)

    def most_devices(self, device: Accelerator) -> int:
        """Devices that the limits allow of one accelerator."""
        within = self.nodes * device.link_devices if self.nodes else MOST_REPLICAS
        return min(self.devices or MOST_REPLICAS, within)


@dataclass(frozen=True, eq=False)
class Pool:
    """One accelerator with one precision: its layouts, and everything that does not depend on the batch."""

    engine: Engine
    layouts: tuple[Parallel, ...]
    usd_per_hour: float | None
    precision: tuple[str, str]
    """Formats of weights and cache."""

    @cached_property
    def columns(self) -> Layouts:
        """The layouts as arrays."""
        return Layouts.of(self.engine.model, self.layouts)

    @cached_property
    def devices(self) -> Array:
        """Devices of a replica."""
        return np.array([layout.devices for layout in self.layouts], dtype=np.float64)

    @cached_property
    def node_shares(self) -> Array:
        """The part of a node that a replica takes, with what nothing fits beside it; whole nodes for a larger one."""
        size = self.engine.device.link_devices
        return np.where(self.devices <= size, 1 / np.maximum(size // self.devices, 1), np.ceil(self.devices / size))

    @cached_property
    def pieces(self) -> tuple[Array, Array]:
        """Seconds of prompts in pieces [layouts, prompts], and pieces of each prompt."""
        return self.engine.pieces_s(self.columns)

    @cached_property
    def prompts(self) -> Array:
        """Seconds of whole prompts [layouts, prompts]."""
        return self.engine.prompt_s(self.columns)

    @cached_property
    def empty_s(self) -> Array:
        """Seconds that a step takes for its weights alone."""
        return self.engine.weights_s(self.columns)

    def used_bytes(self, places: Places, batch: Array, context: int) -> Array:
        """Bytes of the device that holds most, for layouts at `places` and sequences on a rank."""
        demand = Demand(
            self.engine.model, self.engine.formats,
            View(engine=True, speculative=self.engine.speculation.tokens if self.engine.speculation else 0), self.engine.mtp,
            self.engine.draft,
        )  # fmt: skip
        total, columns = np.zeros(len(places)), self.columns[places]
        letters = rank_letters(columns, batch * columns.groups, np.full(len(places), float(context)), PASS_TOKENS)
        for stages in np.unique(columns.pp):
            here = columns.pp == stages
            rows = demand.rows(int(stages), {name: values[here] for name, values in letters.items()})
            total[here] = np.sum(list(rows.values()), axis=0)
        return np.asarray(total + np.ceil(RESERVE * self.engine.device.memory_bytes))


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidates of one pool and mode, an entry each: layout, sequences on a rank, and what they give.

    `slots` are the sequences that memory has room for, `used_bytes` what a device then holds, `step_s` the seconds of a step of
    `batch`. `rate` is the requests a second that a replica can take; `replicas` the fewest for the traffic, before any queue.
    `prefill` is the layout of the pool that computes prompts, -1 where engines do both; `apart` its replicas.
    """

    pool: Pool
    mode: Mode
    places: Places
    batch: Array
    slots: Array
    used_bytes: Array
    step_s: Array
    tpot_s: Array
    rate: Array
    service_s: Array
    replicas: Array
    prefill: NDArray[np.int64]
    apart: Array
    fits: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.places)

    def take(self, places: Any) -> Candidates:
        """Some of them."""
        arrays = {name: value[places] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **arrays)

    @property
    def devices(self) -> Array:
        """Devices in all."""
        apart = self.apart * self.pool.devices[self.prefill] * (self.prefill >= 0)
        return np.asarray(self.replicas * self.pool.devices[self.places] + apart)

    @property
    def usd_per_hour(self) -> Array:
        """Dollars an hour in all; infinite without a price."""
        return np.asarray(self.devices * (np.inf if self.pool.usd_per_hour is None else self.pool.usd_per_hour))

    @property
    def nodes(self) -> Array:
        """Nodes in all: replicas that fit side by side into one share it, and none lies across two without need."""
        shares = self.replicas * self.pool.node_shares[self.places]
        apart = self.apart * self.pool.node_shares[self.prefill] * (self.prefill >= 0)
        return np.asarray(np.ceil((shares + apart) * (1 - 1e-12)), dtype=np.float64)

    @property
    def per_device(self) -> Array:
        """Output tokens a second for each device, all engines at full use."""
        with np.errstate(divide="ignore"):
            decode = self.pool.devices[self.places] / self.rate
        if self.mode == "disaggregated":
            columns, weights = self.pool.columns, self.pool.engine.traffic.prompts[2]
            seconds = (self.pool.prompts @ weights / columns.groups * self.pool.devices)[self.prefill]
            decode = decode + seconds
        return np.asarray(self.pool.engine.traffic.output.mean / decode, dtype=np.float64)


def possible_layouts(
    model: Architecture, device: Accelerator, traffic: Traffic, limits: Limits, imbalance: float = 1.0
) -> Iterator[Parallel]:
    """Layouts of one replica that heads, layers, experts and limits allow.

    Tensor parallelism within a node's links; stages in powers of two; context parallelism for long contexts; data-parallel
    attention with experts spread over all ranks, or cut over them, for mixtures of experts.

    >>> from costmodel.catalog import accelerator, load
    >>> traffic = Traffic(requests_per_s=1)
    >>> [each.name for each in possible_layouts(load("gpt2"), accelerator("h100-sxm"), traffic, Limits(devices=2))]
    ['TP1', 'PP2', 'TP2']
    """
    most = min(limits.most_devices(device), LARGEST)
    experts = most_experts(model)
    linked = device.link_bytes_per_s is not None
    heads = np.gcd.reduce([*head_counts(model)] or [1 << 20])
    widths = [tp for tp in range(1, min(device.link_devices, most) + 1) if heads % tp == 0] if linked else [1]
    powers = [1 << power for power in range(17)]
    for tp in widths:
        for pp in (1, 2, 4, 8, 16) if linked else (1,):
            for cp in (1, 2, 4, 8) if traffic.longest >= LONG and linked else (1,):
                for dp in powers if experts and linked else (1,):
                    ranks = tp * cp * dp
                    if (
                        ranks * pp > most
                        or pp > model.depth
                        or (ranks * pp > device.link_devices and not device.network_bytes_per_s)
                    ):
                        continue
                    for ep in sorted({1, ranks} if 1 < ranks <= experts else {1}):
                        plain = Parallel(tp=tp, pp=pp, cp=cp, dp=dp, ep=ep, imbalance=imbalance if ep > 1 else 1.0)
                        yield plain
                        if dp > 1:
                            yield plain.model_copy(update={"overlap": "two_batches"})


def candidates(pool: Pool, batches: Array, modes: Sequence[Mode], limits: Limits) -> Iterator[Candidates]:
    """All candidates of a pool: those that do not fit the memory are kept as such, untimed."""
    traffic, engine = pool.engine.traffic, pool.engine
    places, batch = np.repeat(np.arange(len(pool.layouts)), len(batches)), np.tile(batches, len(pool.layouts))
    used = pool.used_bytes(places, batch, traffic.longest)
    fits = used <= engine.device.memory_bytes
    step = np.full(len(places), np.inf)
    if fits.any():
        step[fits] = engine.step_s(pool.columns[places[fits]], batch[fits])
    fits &= ~_needless(pool, places, step)
    for mode in modes:
        make = _colocated if mode == "colocated" else _disaggregated
        yield make(pool, places, batch, used, fits, step, limits)


def _needless(pool: Pool, places: NDArray[np.int64], step: Array) -> NDArray[np.bool_]:
    """Overlapping halves that are no faster than the same layout without."""
    twins = {layout: place for place, layout in enumerate(pool.layouts)}
    plain = np.array([twins.get(layout.model_copy(update={"overlap": "none"}), place) for layout, place in twins.items()])
    size = len(step) // len(pool.layouts)
    same = step.reshape(len(pool.layouts), size)
    return np.asarray((plain[:, None] != np.arange(len(plain))[:, None]) & (same >= same[plain] * (1 - 1e-6))).ravel()


def _colocated(
    pool: Pool, places: Places, batch: Array, used: Array, fits: NDArray[np.bool_], step: Array, limits: Limits
) -> Candidates:
    """Engines that do both: of a group's time, pieces of prompts take r S, and the rest is decode steps of its own.

    With pieces c of a prompt, each of which carries a step too, the time between steps is u with 1 / u = r c + (1 - r S) / t.
    A request of n steps has n u to go: by Little's law f = r n u are in flight, and a sequence sees itself beside them
    (`batching.steady_batch`). A full batch is f + 1, and takes r = (f / t) / (n + f (S / t - c)).
    """
    engine, traffic = pool.engine, pool.engine.traffic
    weights, steps = traffic.prompts[2], engine.steps
    passes, count = pool.pieces
    with np.errstate(invalid="ignore", divide="ignore"):
        beside = np.maximum(step - pool.empty_s[places], 0.0)
        service = np.where(fits, passes[places] @ weights + beside * (count @ weights), np.inf)
        others = batch - 1 if steps > 0 else batch
        needed = steps + others * (service / step - count @ weights)
        rate = np.minimum(np.where(needed > 0, others / step / needed, np.inf), 1 / service)
        rate = np.where(fits, rate, 0.0)
        busy = np.minimum(rate * service, 1.0)
        between = np.maximum(1 / (rate * (count @ weights) + (1 - busy) / step), step) if steps > 0 else step
        tpot = between / engine.tokens_per_step
        rate = rate * pool.columns.groups[places]
        replicas = np.ceil(traffic.requests_per_s / rate)
    slots, used = _slots(pool, places, batch, used, between, replicas, limits)
    fits, nothing = fits & (used <= engine.device.memory_bytes), np.full(len(places), -1)
    return Candidates(
        pool, "colocated", places, batch, slots, used, step, tpot, rate, service, replicas, nothing, np.zeros(len(places)), fits
    )


def _slots(
    pool: Pool, places: Places, batch: Array, used: Array, between: Array, replicas: Array, limits: Limits
) -> tuple[Array, Array]:
    """Sequences on a rank that memory must have room for, and the bytes used then: as many as decode at almost all times.

    By Little's law rate x steps x time between steps decode in the mean, in all replicas together; see `with_room`.
    """
    traffic, steps = pool.engine.traffic, pool.engine.steps
    if steps == 0:
        return batch, used
    decoding, streams = traffic.requests_per_s * steps * between, replicas * pool.columns.groups[places]
    known = np.isfinite(decoding) & np.isfinite(streams)
    slots, used = batch.copy(), used.copy()
    growth = between[known] / pool.empty_s[places[known]]
    slots[known] = np.maximum(batch[known], np.ceil((with_room(decoding[known], growth, limits.level) + 1) / streams[known]))
    more = np.flatnonzero(slots > batch)
    used[more] = pool.used_bytes(places[more], slots[more], traffic.longest)
    return slots, used


def _disaggregated(
    pool: Pool, places: NDArray[np.int64], batch: Array, used: Array, fits: NDArray[np.bool_], step: Array, limits: Limits
) -> Candidates:
    """Pools of their own: decode engines at full batches, and the layout for prompts that takes fewest devices."""
    engine, traffic = pool.engine, pool.engine.traffic
    per_token = step / engine.tokens_per_step
    with np.errstate(invalid="ignore", divide="ignore"):
        others = batch - 1 if engine.steps > 0 else batch
        rate = np.where(fits, others / step / max(engine.steps, 1e-9), 0.0) * pool.columns.groups[places]
        replicas = np.maximum(np.ceil(traffic.requests_per_s / rate), 1)
    slots, used = _slots(pool, places, batch, used, step, replicas, limits)
    fits = fits & (used <= engine.device.memory_bytes)
    prefill, apart = _prefill_pools(pool, limits)
    prefill, apart = prefill[places], apart[places]
    service = np.where(prefill >= 0, (pool.prompts @ traffic.prompts[2])[prefill], np.inf)
    return Candidates(
        pool,
        "disaggregated",
        places,
        batch,
        slots,
        used,
        step,
        per_token,
        rate,
        service,
        replicas,
        np.maximum(prefill, 0),
        apart,
        fits & (prefill >= 0),
    )


def _prefill_pools(pool: Pool, limits: Limits) -> tuple[Places, Array]:
    """For each layout that decodes, the one that computes its prompts, and how many replicas of it; -1 where none fits.

    Of those that keep the first token within its limit, the one of fewest devices. What the cache takes to move depends on both.
    """
    every, columns = np.arange(len(pool.layouts)), pool.columns
    chosen, number = np.full(len(every), -1), np.zeros(len(every))
    fit = pool.used_bytes(every, np.ones(len(every)), pool.engine.traffic.longest) <= pool.engine.device.memory_bytes
    if not pool.engine.device.network_bytes_per_s or not fit.any():
        return chosen, number
    first = np.unique(columns.holders, return_index=True)[1]
    moved = np.stack([pool.engine.transfer_s(columns[place : place + 1], columns) for place in first])
    for place, replicas in zip(first, _prefill_replicas(pool, limits, moved), strict=True):
        here = columns.holders == columns.holders[place]
        chosen[here], number[here] = _cheapest(pool, fit, replicas)
    return chosen, number


def _prefill_replicas(pool: Pool, limits: Limits, moved: Array) -> Array:
    """Replicas of each layout that keep the first token in time, where caches take `moved` seconds to move: both [n, layouts]."""
    traffic, (several, _) = pool.engine.traffic, moved.shape
    limit = np.full(moved.shape, np.inf) if limits.ttft_s is None else limits.ttft_s - moved
    columns = np.tile(pool.columns.groups, several), np.tile(_fewest(pool), several), limit.ravel()
    found = enough(np.tile(pool.prompts, (several, 1)), traffic, *columns, limits.prompt_level, np.zeros(moved.size))
    return found.reshape(moved.shape)


def _fewest(pool: Pool) -> Array:
    """The fewest replicas of each layout that keep up with the prompts."""
    traffic = pool.engine.traffic
    busy = traffic.requests_per_s * (pool.prompts @ traffic.prompts[2]) / pool.columns.groups
    return np.maximum(np.ceil(busy * 1.0001), 1)


def _cheapest(pool: Pool, fit: NDArray[np.bool_], replicas: Array) -> tuple[int, float]:
    """The layout whose replicas are fewest devices, and how many; where none keeps the limit, the fastest: a miss is told then."""
    seconds, cost = pool.prompts @ pool.engine.traffic.prompts[2], np.where(fit, replicas * pool.devices, np.inf)
    if not np.isfinite(cost).any():
        replicas, cost = _fewest(pool), np.where(fit, seconds, np.inf)
    best = int(np.lexsort((seconds, cost))[0])
    return best, float(replicas[best])


def enough(service: Array, traffic: Traffic, streams: Array, fewest: Array, limit: Array, level: float, step: Array) -> Array:
    """The fewest replicas whose queue keeps the first token within `limit` for a share `level`; infinite where none does.

    `service` [candidates, prompts] seconds of a prompt on one of a replica's `streams`.
    """
    weights = traffic.prompts[2]
    if not len(service):
        return fewest
    never = _late(service, weights, 1e-12, np.ones(len(service)), limit, step) > 1 - level  # where nobody waits
    low, high = fewest - 1, fewest
    late = _late(service, weights, traffic.requests_per_s, high * streams, limit, step) > 1 - level
    grow = late & ~never
    while grow.any() and (high[grow] < MOST_REPLICAS).all():
        low, high = np.where(grow, high, low), np.where(grow, high * 2, high)
        late[grow] = (
            _late(service[grow], weights, traffic.requests_per_s, (high * streams)[grow], limit[grow], step[grow]) > 1 - level
        )
        grow = late & ~never
    while (open_ := ~never & (high - low > 1)).any():
        middle = np.floor((low + high) / 2)
        fails = np.zeros(len(low), dtype=bool)
        fails[open_] = (
            _late(service[open_], weights, traffic.requests_per_s, (middle * streams)[open_], limit[open_], step[open_]) > 1 - level
        )
        low, high = np.where(open_ & fails, middle, low), np.where(open_ & ~fails, middle, high)
    return np.where(never, np.inf, high)


def prompt_queue(service: Array, weights: Array, rate: float, servers: Array) -> Queue:
    """Prompts before engines [candidates]. Very many servers count as `MOST_SERVERS`, equally busy."""
    counted = np.minimum(servers, MOST_SERVERS)
    return queue(rate * counted / servers, service, weights, counted)


def _late(service: Array, weights: Array, rate: float, servers: Array, limit: Array, step: Array) -> Array:
    """The share of first tokens that come after the limit."""
    waiting = prompt_queue(service, weights, rate, servers)
    return np.where(limit > 0, waiting.share_beyond(np.clip(limit, 1e-9, 1e9), step), 1.0)


def within(found: Candidates, limits: Limits) -> NDArray[np.bool_]:
    """Which candidates keep every limit but the first token's."""
    kept = found.fits & np.isfinite(found.replicas)
    kept &= found.devices <= limits.most_devices(found.pool.engine.device)
    if limits.nodes is not None:
        kept &= found.nodes <= limits.nodes
    if limits.tpot_s is not None:
        kept &= found.tpot_s <= limits.tpot_s
    if limits.usd_per_hour is not None:
        kept &= found.usd_per_hour <= limits.usd_per_hour
    return kept


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a plan is asked: the model, the accelerators, the traffic, the limits, and what counts."""

    model: Architecture
    devices: tuple[Accelerator, ...]
    traffic: Traffic
    limits: Limits
    objective: Objective
    chunk: int
    speculation: Speculation | None
    pools: tuple[Pool, ...]

    def accelerator(self, name: str) -> Accelerator:
        """One of the accelerators asked for."""
        return next(device for device in self.devices if device.name == name)
