"""Deployments: candidates that meet the limits, ranked, with their queues solved; the Pareto front; the nearest miss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from costmodel.frames import facts
from costmodel.parallelism import Parallel
from costmodel.planning.candidates import MOST_REPLICAS, Array, Candidates, Places, Wanted, candidates, enough, prompt_queue, within
from costmodel.serving.engines import Mode
from costmodel.serving.services import Service, serve
from costmodel.timing.estimating import Estimate, estimate, formats_of

Ranked = tuple[Candidates, int, float]
"""Candidates, the place of one of them, and the replicas that it takes."""
SHOWN = 50
"""Deployments in the table."""
TRIED = 256
"""Candidates whose queue is solved together."""
MOST_TRIED = 4096
"""Candidates whose queue is solved for a table that has its best already."""
NEAR = 64
"""Candidates whose queue is solved together where nothing meets the limits."""
REFINED = 3
"""Layouts whose batches are looked at one by one, between those of the grid."""


@dataclass(frozen=True)
class Deployment:
    """One answer: what to rent, how to lay it out, and what it promises.

    `batch` sequences decode in a replica when it takes all that it can, and memory has room for `slots`, as their number varies.
    `step_s` is a decode step of that batch (what `estimate` of the layout calls `tpot_s`, where nothing is guessed), `tpot_s`
    the time between tokens with pauses for prompts; `usd_per_mtok_in` and `usd_per_mtok_out` what a million tokens of prompts
    and of outputs cost, each the part of the devices' time that it takes.
    """

    model: str
    accelerator: str
    precision: str
    cache_precision: str
    mode: Mode
    layout: Parallel
    batch: int
    slots: int
    replicas: int
    prefill_layout: Parallel | None
    prefill_replicas: int
    devices: int
    nodes: int
    ttft_s: float
    level: float
    tpot_s: float
    step_s: float
    prefill_s: float
    utilisation: float
    memory_bytes: int
    free_bytes: int
    output_tokens_per_s_per_device: float
    usd_per_hour: float | None
    usd_per_mtok_in: float | None
    usd_per_mtok_out: float | None
    watts: float | None
    kwh_per_mtok_out: float | None
    binds: str
    _asked: Any = field(repr=False, compare=False, default=None)

    def __repr__(self) -> str:
        """In a line: all of it is in `row`."""
        what = f"{self.model} on {self.devices:,} x {self.accelerator}, {self.mode}, {self.layout.name} x {self.replicas:,}"
        price = "" if self.usd_per_hour is None else f", {self.usd_per_hour:,.2f} dollars an hour"
        return f"<deployment of {what}: TTFT {self.ttft_s:.4g} s, TPOT {self.tpot_s:.4g} s{price}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return facts(self.model, self.row)

    @property
    def tokens_per_s_per_user(self) -> float:
        """Tokens that a user reads a second."""
        return 1 / self.tpot_s

    @property
    def row(self) -> dict[str, Any]:
        """As a plain dict."""
        return {
            "accelerator": self.accelerator, "precision": self.precision, "cache_precision": self.cache_precision,
            "mode": self.mode, "layout": self.layout.name, "batch": self.batch, "slots": self.slots,
            "replicas": self.replicas,
            "prefill_layout": self.prefill_layout.name if self.prefill_layout else None,
            "prefill_replicas": self.prefill_replicas, "devices": self.devices, "nodes": self.nodes,
            "usd_per_hour": self.usd_per_hour, "usd_per_mtok_in": self.usd_per_mtok_in,
            "usd_per_mtok_out": self.usd_per_mtok_out, "ttft_s": self.ttft_s, "tpot_s": self.tpot_s, "step_s": self.step_s,
            "prefill_s": self.prefill_s, "tokens_per_s_per_user": self.tokens_per_s_per_user,
            "output_tokens_per_s_per_device": self.output_tokens_per_s_per_device, "utilisation": self.utilisation,
            "memory_bytes": self.memory_bytes, "free_bytes": self.free_bytes, "watts": self.watts,
            "kwh_per_mtok_out": self.kwh_per_mtok_out, "binds": self.binds,
        }  # fmt: skip

    @cached_property
    def estimate(self) -> Estimate:
        """The estimate of its layout with full batches: every kernel's share, and the interval."""
        asked: Wanted = self._asked
        return estimate(
            asked.model, asked.accelerator(self.accelerator), None, self.layout, self.batch, round(asked.traffic.prompt.mean),
            max(round(asked.traffic.output.mean), 1), formats_of(self.precision, self.cache_precision),
        )  # fmt: skip

    @cached_property
    def service(self) -> Service:
        """What it promises under the traffic as it comes: quantiles of the first token, and batches as they fill."""
        asked: Wanted = self._asked
        return serve(
            asked.model, asked.accelerator(self.accelerator), asked.traffic, self.layout, self.replicas, self.slots,
            formats_of(self.precision, self.cache_precision), mode=self.mode, prefill=self.prefill_layout,
            prefill_replicas=max(self.prefill_replicas, 1), chunk=asked.chunk, speculation=asked.speculation,
        )  # fmt: skip


def _keys(found: Candidates, objective: str) -> tuple[Array, Array, Array]:
    """What candidates are ranked by, in order."""
    money = found.usd_per_hour if found.pool.usd_per_hour is not None else found.devices
    if objective == "latency":
        return found.tpot_s, money, found.devices
    return (money, found.devices, found.tpot_s) if objective == "usd" else (found.devices, money, found.tpot_s)


def ranked(asked: Wanted, found: Sequence[Candidates]) -> list[Ranked]:
    """The best candidates in order, one for each layout of each pool and mode, with the replicas that keep the first token in time.

    A candidate's fewest replicas bound its price from below: the queue is solved in the order of the bounds, until none of the
    rest can be better than what is found.
    """
    limits, places = asked.limits, []
    for number, some in enumerate(found):
        kept = np.flatnonzero(within(some, limits))
        keys = [key[kept] for key in _keys(some, asked.objective)]
        places.append(np.column_stack([*keys, np.full(len(kept), number), kept]) if len(kept) else np.zeros((0, 5)))
    queueing = np.concatenate(places) if places else np.zeros((0, 5))
    queueing = queueing[np.lexsort(queueing[:, 2::-1].T)] if len(queueing) else queueing
    best: dict[Any, tuple[tuple[float, ...], Candidates, int, float]] = {}
    for start in range(0, len(queueing), TRIED):
        block = queueing[start : start + TRIED]
        worst = sorted(entry[0] for entry in best.values())
        if len(worst) >= SHOWN and worst[SHOWN - 1] < tuple(block[0, :3]):
            break
        if start >= MOST_TRIED and best and min(worst) <= tuple(block[0, :3]):
            break  # the best is certain; the table would grow by what is worse
        for number in np.unique(block[:, 3]).astype(int):
            _solve(asked, found[number], block[block[:, 3] == number][:, 4].astype(int), best)
    return [(some, place, replicas) for _, some, place, replicas in sorted(best.values(), key=lambda entry: entry[0])][:SHOWN]


def refined(asked: Wanted, best: Sequence[Ranked], batches: Array) -> Iterator[Candidates]:
    """The best layouts again, at every whole batch between the neighbours of theirs in the grid of batches."""
    for found, place, _ in best[:REFINED]:
        at = int(np.searchsorted(batches, found.batch[place]))
        low, high = batches[max(at - 1, 0)], batches[min(at + 1, len(batches) - 1)]
        layouts = [found.pool.layouts[found.places[place]]]
        if found.mode == "disaggregated":
            layouts.append(found.pool.layouts[found.prefill[place]])
        pool = replace(found.pool, layouts=tuple(dict.fromkeys(layouts)))
        yield from candidates(pool, np.union1d(batches, np.arange(low, high + 1)), (found.mode,), asked.limits)


def _solve(asked: Wanted, found: Candidates, places: Places, best: dict[Any, Any]) -> None:
    """Solves the queues of some candidates, and keeps the best of each layout."""
    limits, replicas = asked.limits, found.replicas[places]
    if limits.ttft_s is not None and found.mode == "colocated":
        streams, service, step = _queues(found, places)
        replicas = enough(service, asked.traffic, streams, replicas, np.full(len(places), limits.ttft_s), limits.prompt_level, step)
    solved = replace(found.take(places), replicas=replicas)
    kept = within(solved, limits)
    if limits.ttft_s is not None and found.mode == "disaggregated":
        kept &= _first_tokens(asked, found, places, replicas)[0] <= limits.ttft_s
    keys = np.column_stack(_keys(solved, asked.objective))
    for row in np.flatnonzero(kept):
        layout = found.pool.layouts[found.places[places[row]]]
        key, entry = (found.pool.engine.device.name, found.pool.precision, found.mode, layout), tuple(keys[row])
        if key not in best or entry < best[key][0]:
            best[key] = (entry, found, int(places[row]), float(replicas[row]))


def _queues(found: Candidates, places: Places) -> tuple[Array, Array, Array]:
    """Streams of a replica, seconds of each prompt on one [candidates, prompts], and of a running step, of colocated engines."""
    pool = found.pool
    passes, count = pool.pieces
    layouts = found.places[places]
    beside = np.maximum(found.step_s[places] - pool.empty_s[layouts], 0.0)
    return pool.columns.groups[layouts], passes[layouts] + beside[:, None] * count, found.step_s[places]


def _first_tokens(asked: Wanted, found: Candidates, places: Places, replicas: Array) -> tuple[Array, Array]:
    """Seconds to the first token at the limits' level [candidates], and the use of what computes prompts."""
    level, weights, pool = asked.limits.prompt_level, asked.traffic.prompts[2], found.pool
    rate = asked.traffic.requests_per_s
    if found.mode == "disaggregated":
        rows = found.prefill[places]
        waiting = prompt_queue(pool.prompts[rows], weights, rate, found.apart[places] * pool.columns.groups[rows])
        moved = pool.engine.transfer_s(pool.columns[found.places[places]], pool.columns[rows])
        return np.asarray(waiting.response_s(level)) + moved, np.asarray(waiting.utilisation)
    streams, service, step = _queues(found, places)
    waiting = prompt_queue(service, weights, rate, replicas * streams)
    return np.asarray(waiting.response_s(level, step)), np.asarray(waiting.utilisation)


def _first_token(asked: Wanted, found: Candidates, place: int, replicas: float) -> tuple[float, float]:
    """The same of one candidate."""
    seconds, used = _first_tokens(asked, found, np.array([place]), np.array([replicas]))
    return float(seconds[0]), float(used[0])


def deployment(asked: Wanted, found: Candidates, place: int, replicas: float) -> Deployment:
    """A candidate with so many replicas, in full."""
    pool, engine, traffic = found.pool, found.pool.engine, asked.traffic
    layout, device = pool.layouts[found.places[place]], engine.device
    one = replace(found.take(np.array([place])), replicas=np.array([replicas]))
    ttft, utilisation = _first_token(asked, found, place, replicas)
    devices, usd = int(one.devices[0]), float(one.usd_per_hour[0]) if pool.usd_per_hour is not None else None
    apart = pool.layouts[found.prefill[place]] if found.prefill[place] >= 0 and found.mode == "disaggregated" else None
    part = _prompt_part(found, place, one)
    inputs, outputs = (
        traffic.requests_per_s * traffic.prompt.mean * 3600 / 1e6,
        traffic.requests_per_s * traffic.output.mean * 3600 / 1e6,
    )
    watts = None if device.power_w is None else float(devices * device.power_w)
    used = int(found.used_bytes[place])
    weights = traffic.prompts[2]
    prefill_s = float((pool.prompts[found.prefill[place]] if apart else pool.pieces[0][found.places[place]]) @ weights)
    return Deployment(
        model=asked.model.name, accelerator=device.name, precision=pool.precision[0], cache_precision=pool.precision[1],
        mode=found.mode, layout=layout, batch=int(found.batch[place] * layout.dp * layout.pp),
        slots=int(found.slots[place] * layout.dp * layout.pp), replicas=int(replicas),
        prefill_layout=apart, prefill_replicas=int(found.apart[place]) if apart else 0, devices=devices, nodes=int(one.nodes[0]),
        ttft_s=ttft, level=asked.limits.level, tpot_s=float(found.tpot_s[place]), step_s=float(found.step_s[place]),
        prefill_s=prefill_s, utilisation=utilisation, memory_bytes=used, free_bytes=device.memory_bytes - used,
        output_tokens_per_s_per_device=float(one.per_device[0]), usd_per_hour=usd,
        usd_per_mtok_in=None if usd is None else usd * part / inputs,
        usd_per_mtok_out=None if usd is None else usd * (1 - part) / outputs, watts=watts,
        kwh_per_mtok_out=None if watts is None else watts * (1 - part) / 1000 / outputs,
        binds=_binds(asked, found, place, replicas), _asked=asked,
    )  # fmt: skip


def _prompt_part(found: Candidates, place: int, one: Candidates) -> float:
    """The part of the devices' time that prompts take: a pool's own, or that of their passes when colocated engines are full.

    What sequences add that decode beside a prompt is theirs.
    """
    if found.mode == "disaggregated":
        return float(one.apart[0] * found.pool.devices[found.prefill[place]] / one.devices[0])
    layout, weights = found.places[place], found.pool.engine.traffic.prompts[2]
    return float(min(found.rate[place] / found.pool.columns.groups[layout] * (found.pool.pieces[0][layout] @ weights), 1.0))


def _binds(asked: Wanted, found: Candidates, place: int, replicas: float) -> str:
    """What keeps a deployment from being better: the reason against the batches beyond its own, or the first token's queue."""
    if found.mode == "colocated" and replicas > found.replicas[place]:
        return "first token"
    if asked.objective == "latency":
        return _binds_below(asked, found, place)
    if replicas == 1:
        return "traffic"
    for bigger in _beyond(found, place, 1):
        if found.used_bytes[bigger] > found.pool.engine.device.memory_bytes:
            return "memory"
        if asked.limits.tpot_s is not None and found.tpot_s[bigger] > asked.limits.tpot_s:
            return "time per token"
        if found.fits[bigger] and found.replicas[bigger] < found.replicas[place]:
            return "first token"
    return "largest batch"


def _binds_below(asked: Wanted, found: Candidates, place: int) -> str:
    """The same where latency counts: smaller batches are faster, and take more replicas."""
    for smaller in _beyond(found, place, -1):
        if found.rate[smaller] > 0:
            return "first token" if within(found.take(np.array([smaller])), asked.limits)[0] else "devices"
    return "smallest batch"


def _beyond(found: Candidates, place: int, direction: int) -> Places:
    """Candidates of the same layout with larger batches (or smaller ones), the next first."""
    same = np.flatnonzero((found.places == found.places[place]) & (direction * (found.batch - found.batch[place]) > 0))
    return same[np.argsort(direction * found.batch[same])]


def front(asked: Wanted, found: Sequence[Candidates]) -> Iterator[dict[str, Any]]:
    """Candidates that none beats in tokens a second for a user and for a device, fastest for the user first."""
    columns = []
    for number, some in enumerate(found):
        fits = np.flatnonzero(some.fits & (some.rate > 0))
        if len(fits):
            fitting = some.take(fits)
            columns.append(np.column_stack([1 / fitting.tpot_s, fitting.per_device, np.full(len(fits), number), fits]))
    if not columns:
        return
    every = np.concatenate(columns)
    every = every[np.lexsort((-every[:, 1], -every[:, 0]))]
    best = np.maximum.accumulate(every[:, 1])
    first = np.concatenate([[True], every[1:, 1] > best[:-1]])
    for user, each, number, place in every[first]:
        some, row = found[int(number)], int(place)
        layout = some.pool.layouts[some.places[row]]
        yield {
            "accelerator": some.pool.engine.device.name, "precision": some.pool.precision[0],
            "cache_precision": some.pool.precision[1], "mode": some.mode, "layout": layout.name,
            "batch": int(some.batch[row] * layout.dp * layout.pp), "tokens_per_s_per_user": float(user),
            "output_tokens_per_s_per_device": float(each), "tpot_s": float(some.tpot_s[row]),
            "within_limits": bool(within(some.take(np.array([row])), asked.limits)[0]),
        }  # fmt: skip


def nearest(asked: Wanted, found: Sequence[Candidates]) -> tuple[Deployment | None, tuple[str, ...]]:
    """The candidate that misses the limits by the smallest factor, and each limit that it misses.

    Colocated, with the replicas that make its factor smallest: more of them bring the first token, and cost.
    """
    limits = asked.limits
    best: tuple[float, Candidates, int, float, float] | None = None
    for some in found:
        factor = np.max([values for values, _ in _misses(asked, some)], axis=0)
        if limits.ttft_s:
            factor = np.maximum(factor, _alone(asked, some) / limits.ttft_s)
        order = np.argsort(factor, kind="stable")
        order = order[np.isfinite(factor[order])]
        for start in range(0, len(order), NEAR):
            places = order[start : start + NEAR]
            if best is not None and factor[places[0]] >= best[0]:
                break  # no candidate of the rest misses by less
            replicas, ttft, total = _closest(asked, some, places)
            near = int(np.argmin(total))
            if np.isfinite(total[near]) and (best is None or total[near] < best[0]):
                best = (float(total[near]), some, int(places[near]), float(replicas[near]), float(ttft[near]))
    if best is None:
        return None, _no_room(asked, found)
    _, some, place, replicas_, late = best
    one = replace(some.take(np.array([place])), replicas=np.array([replicas_]))
    told = [text(0) for values, text in _misses(asked, one) if values[0] > 1]
    if limits.ttft_s and late > limits.ttft_s:
        told.append(f"ttft_s is {late:.3g} s, not {limits.ttft_s:g} s")
    return deployment(asked, some, place, replicas_), tuple(told)


def _closest(asked: Wanted, found: Candidates, places: Places) -> tuple[Array, Array, Array]:
    """Replicas of some candidates that miss the limits by the smallest factor, seconds to the first token then, and the factor."""
    fewest, limit = found.replicas[places], asked.limits.ttft_s

    def tried(replicas: Array) -> tuple[Array, Array, Array]:
        others = np.max([values for values, _ in _misses(asked, replace(found.take(places), replicas=replicas))], axis=0)
        ttft = _first_tokens(asked, found, places, replicas)[0] if limit else np.zeros(len(places))
        return replicas, ttft, np.maximum(others, ttft / limit if limit else 0.0)

    if limit is None or found.mode == "disaggregated":
        return tried(fewest)
    streams, service, step = _queues(found, places)
    enough_ = enough(service, asked.traffic, streams, fewest, np.full(len(places), limit), asked.limits.prompt_level, step)
    low, high = fewest, np.where(np.isfinite(enough_), enough_, 4 * fewest)
    while (high - low > 2).any():  # the first token falls and the others rise: one valley
        left, right = low + np.floor((high - low) / 3), high - np.floor((high - low) / 3)
        falls = tried(left)[2] > tried(right)[2]
        low, high = np.where(falls, left, low), np.where(falls, high, right)
    every = [tried(np.minimum(low + more, high)) for more in range(3)]
    least = np.argmin([total for _, _, total in every], axis=0)
    replicas, ttft, total = (np.choose(least, columns) for columns in zip(*every, strict=True))
    return replicas, ttft, total


def _alone(asked: Wanted, found: Candidates) -> Array:
    """Seconds to the first token at the limits' level where nobody waits: what no number of replicas can undercut."""
    level, together = asked.limits.prompt_level, np.cumsum(asked.traffic.prompts[2])
    if found.mode == "disaggregated":
        service, step = found.pool.prompts[found.prefill], np.zeros(len(found))
    else:
        _, service, step = _queues(found, np.arange(len(found)))
    place = min(int(np.searchsorted(together, level - 1e-9)), service.shape[1] - 1)
    return np.asarray(service[:, place] + (level * step if service.shape[1] == 1 else 0.0))


def _misses(asked: Wanted, found: Candidates) -> list[tuple[Array, Any]]:
    """Each limit but the first token's: by what factor candidates miss it, and the words for it. What does not fit is out."""
    limits, ok = asked.limits, found.fits & np.isfinite(found.replicas)
    devices, nodes, usd, most = found.devices, found.nodes, found.usd_per_hour, limits.devices or MOST_REPLICAS
    told: list[tuple[Array, Any]] = [(devices / most, lambda place: f"it takes {devices[place]:.0f} devices, not {most:,}")]
    if limits.nodes is not None:
        told.append((nodes / limits.nodes, lambda place: f"it takes {nodes[place]:.0f} nodes, not {limits.nodes}"))
    if limits.tpot_s is not None:
        told.append((found.tpot_s / limits.tpot_s, lambda place: f"tpot_s is {found.tpot_s[place]:.3g} s, not {limits.tpot_s:g} s"))
    if limits.usd_per_hour is not None:
        told.append((usd / limits.usd_per_hour,
                     lambda place: f"it costs {usd[place]:.4g} dollars an hour, not {limits.usd_per_hour:g}"))  # fmt: skip
    return [(np.where(ok, values, np.inf), text) for values, text in told]


def _no_room(asked: Wanted, found: Sequence[Candidates]) -> tuple[str, ...]:
    """Why no layout holds even the model: the least that a device would have to hold."""
    if not found:
        return ("no layout has room: allow more devices, or another accelerator",)
    least = min(found, key=lambda each: float((each.used_bytes / each.pool.engine.device.memory_bytes).min()))
    share = least.used_bytes / least.pool.engine.device.memory_bytes
    place = int(share.argmin())
    layout = least.pool.layouts[least.places[place]]
    return (
        f"memory: {layout.name} on {least.pool.engine.device.name} in {least.pool.precision[0]} comes nearest, and asks for "
        f"{share[place]:.2f} times what a device has; allow more devices or nodes, coarser formats, or shorter contexts",
    )
