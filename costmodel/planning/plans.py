"""The capacity planner: layouts x devices x batch x precision, over several accelerators at once, for a traffic and its limits.

Every candidate is priced by closed forms over arrays: seconds of a step and of a prompt from the time model, memory from
`footprint`, rates from Little's law; the queue is solved for the cheapest ones, in order, until no cheaper one is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from itertools import product
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from costmodel.architecture import Architecture
from costmodel.catalog import Device, Source, as_accelerator, as_architecture
from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.footprint import check_layout, head_counts
from costmodel.frames import frame
from costmodel.hardware import Accelerator
from costmodel.parallelism import Parallel
from costmodel.planning.candidates import (
    BATCHES,
    OBJECTIVES,
    Candidates,
    Limits,
    Objective,
    Pool,
    Wanted,
    candidates,
    possible_layouts,
)
from costmodel.planning.deployments import Deployment, Ranked, deployment, front, nearest, ranked, refined
from costmodel.planning.reasons import Why
from costmodel.serving.engines import CHUNK, MODES, Engine, Mode, Speculation, Traffic
from costmodel.timing.estimating import formats_of
from costmodel.units import whole

if TYPE_CHECKING:
    import pandas as pd

PRECISIONS = (("bf16", "bf16"), ("fp8", "bf16"), ("fp8", "fp8"))
"""Formats (weights, cache) that are looked at, unless told otherwise; those that a device cannot multiply in are left out."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The answer of `plan`: `best` (None where nothing meets the limits), a ranked `table`, the `pareto` front, and `why`.

    `nearest` is the nearest miss where there is no best: what comes closest to the limits, with `why` telling which to relax.
    """

    wanted: Wanted
    nearest: Deployment | None
    misses: tuple[str, ...]
    _found: tuple[Candidates, ...]
    _ranked: tuple[Ranked, ...]

    @property
    def considered(self) -> int:
        """How many candidates were looked at."""
        return sum(map(len, self._found))

    @cached_property
    def best(self) -> Deployment | None:
        """The first of the table."""
        return deployment(self.wanted, *self._ranked[0]) if self._ranked else None

    @cached_property
    def deployments(self) -> tuple[Deployment, ...]:
        """The best of each accelerator, precision, mode and layout, best first."""
        return (self.best, *(deployment(self.wanted, *each) for each in self._ranked[1:])) if self.best else ()

    @cached_property
    def front(self) -> tuple[dict[str, Any], ...]:
        """`pareto` as plain dicts."""
        return tuple(front(self.wanted, self._found))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """`table` as plain dicts."""
        return [each.row for each in self.deployments]

    @property
    def table(self) -> pd.DataFrame:
        """The best layouts, best first: a row for each accelerator, precision, mode and layout, at its best batch."""
        return frame(self.rows)

    @property
    def pareto(self) -> pd.DataFrame:
        """What no other candidate beats in both tokens a second for a user and output tokens a second for a device."""
        return frame(list(self.front))

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the best: guessed classes of kernels, shapes beyond what was measured."""
        return self.best.estimate.notes if self.best else ()

    def __repr__(self) -> str:
        """In a line: a plan holds every candidate it looked at."""
        best = self.best
        told = f"{best.devices:,} x {best.accelerator}, {best.layout.name}" if best else "nothing meets the limits"
        return f"<plan of {self.wanted.model.name}: {told}; {self.considered:,} candidates>"

    def _repr_html_(self) -> str:
        """What a notebook shows: why, and the best layouts."""
        return f"<p>{escape(str(self.why))}</p>\n{self.table.to_html(index=False) if self.best else ''}"

    @cached_property
    def why(self) -> Why:
        """What binds the best, what comes next, and what 10 % of each assumption changes."""
        return Why.of(self.wanted, self.deployments, self.nearest, self.misses)


def plan(
    model: Source,
    accelerators: Sequence[Device] | Device,
    traffic: Traffic,
    limits: Limits | None = None,
    objective: Objective = "usd",
    precisions: Sequence[tuple[str, str] | str] | None = None,
    modes: Sequence[Mode] = MODES,
    layouts: Sequence[Parallel] | None = None,
    batches: Sequence[int] | None = None,
    prices: Mapping[str, float] | None = None,
    speculation: Speculation | None = None,
    chunk: int = CHUNK,
    imbalance: float = 1.0,
) -> Plan:
    """The cheapest way (or that of fewest devices, or of least latency) to serve a model under a traffic within limits.

    All `layouts` (those that heads, layers and experts allow, unless given) x accelerators x `batches` (sequences on a rank) x
    `precisions` (pairs of weights and cache) x `modes` are looked at. `prices` are dollars an hour of a device, by accelerator,
    in place of the listed ones; `imbalance` is the load of the busiest rank of experts over the mean. No feasible plan is an
    answer: see `Plan`.

    Raises CostModelError for what is unknown, impossible or contradictory, and for a price that nobody knows.

    >>> traffic = Traffic(requests_per_s=10, prompt=4096, output=512)
    >>> found = plan("llama-3.1-8b", ["h100-sxm", "l40s"], traffic, Limits(ttft_s=2, tpot_s=0.05))
    >>> found.best.accelerator, found.best.mode, found.best.devices <= 12
    ('l40s', 'colocated', True)
    """
    chosen = as_architecture(model)
    given: Any = [accelerators] if isinstance(accelerators, (str, PathLike, Accelerator)) else accelerators
    devices = tuple(as_accelerator(device) for device in _listed("accelerators", given, "['h100-sxm']"))
    limits, layouts = limits if limits is not None else Limits(), None if layouts is None else _layouts(chosen, layouts)
    every = BATCHES if batches is None else _batches(batches)
    _check(devices, traffic, limits, objective, modes, speculation, imbalance)
    prices = _prices({} if prices is None else prices, devices, objective, limits)
    pools = [
        Pool(
            Engine(chosen, device, formats_of(*pair), traffic, speculation, chunk=whole("chunk", chunk)),
            layouts if layouts is not None else tuple(possible_layouts(chosen, device, traffic, limits, imbalance)),
            prices.get(device.name), pair,
        )
        for device, pair in product(devices, _pairs(precisions))
        if precisions is not None or _multiplies(device, pair[0])
    ]  # fmt: skip
    pools = [_drafted(pool, strict=layouts is not None) for pool in pools]
    wanted = Wanted(chosen, devices, traffic, limits, objective, chunk, speculation, tuple(pools))
    found = [each for pool in pools if pool.layouts for each in candidates(pool, every, modes, limits)]
    best = tuple(ranked(wanted, found))
    if batches is None and best:
        found += refined(wanted, best, every)
        best = tuple(ranked(wanted, found))
    miss, misses = (None, ()) if best else nearest(wanted, found)
    return Plan(wanted, miss, misses, tuple(found), best)


def _listed(name: str, given: Any, example: str) -> tuple[Any, ...]:
    """Some items. Raises CostModelError for what is no list, and for an empty one."""
    if not isinstance(given, (list, tuple)):
        raise CostModelError(f"{name} got {shown(given)}; give a list, such as {example}")
    if not given:
        raise CostModelError(f"{name} got none; give one or more, such as {example}")
    return tuple(given)


def _layouts(model: Architecture, given: Any) -> tuple[Parallel, ...]:
    """The layouts asked for, each once. Raises CostModelError for what is none, and for one that the model does not allow."""
    found = _listed("layouts", given, "[Parallel(tp=8)]")
    for layout in found:
        if not isinstance(layout, Parallel):
            raise CostModelError(f"layouts holds {shown(layout)}; give each as a Parallel, such as Parallel(tp=8)")
        check_layout(model, layout)
    return tuple(dict.fromkeys(found))


def _batches(given: Any) -> NDArray[np.float64]:
    """The batches asked for, in rising order."""
    listed = given.tolist() if isinstance(given, np.ndarray) else list(given) if isinstance(given, range) else given
    return np.unique([float(whole("batch", batch)) for batch in _listed("batches", listed, "[16, 64]")])


def _drafted(pool: Pool, strict: bool) -> Pool:
    """A pool without the layouts that a draft model's heads do not allow. Raises CostModelError for one that was asked for."""
    draft = pool.engine.draft
    if draft is None:
        return pool
    if strict:
        for layout in pool.layouts:
            check_layout(draft, Parallel(tp=layout.tp))
    heads = head_counts(draft)
    return replace(pool, layouts=tuple(layout for layout in pool.layouts if not any(number % layout.tp for number in heads)))


def _multiplies(device: Accelerator, weights: str) -> bool:
    """Whether a device multiplies in a format, where that is what the format is for."""
    return weights not in ("fp8", "int8") or weights in device.peak_flops_per_s


def _pairs(precisions: Sequence[tuple[str, str] | str] | None) -> tuple[tuple[str, str], ...]:
    """Pairs of (weights, cache); a bare name goes with a bf16 cache."""
    given: Any = PRECISIONS if precisions is None else [precisions] if isinstance(precisions, str) else precisions
    listed = _listed("precisions", given, "[('fp8', 'bf16')]")
    pairs = [(pair, "bf16") if isinstance(pair, str) else pair for pair in listed]
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(each, str) for each in pair):
            raise CostModelError(f"precisions holds {shown(pair)}; give pairs of weights and cache, such as ('fp8', 'bf16')")
    return tuple(dict.fromkeys((weights.lower(), cache.lower()) for weights, cache in pairs))


def _check(
    devices: Sequence[Accelerator], traffic: Traffic, limits: Limits, objective: str, modes: Sequence[str], speculation: object,
    imbalance: float,
) -> None:  # fmt: skip
    """Raises CostModelError for what is of no use."""
    if isinstance(imbalance, (bool, str)):
        raise CostModelError(f"imbalance got {shown(imbalance)}; give a number from 1 on")
    Parallel(imbalance=imbalance)
    if len({device.name for device in devices}) < len(devices):
        raise CostModelError("accelerators names one twice; give each once")
    for name, value, kind in (("traffic", traffic, Traffic), ("limits", limits, Limits)):
        if not isinstance(value, kind):
            raise CostModelError(f"{name} got {shown(value)}; give a {kind.__name__}")
    if objective not in OBJECTIVES:
        raise CostModelError(f"objective got {shown(objective)}; {did_you_mean(str(objective), OBJECTIVES)}")
    for mode in _listed("modes", modes, "['colocated']"):
        if mode not in MODES:
            raise CostModelError(f"modes holds {shown(mode)}; give some of {', '.join(MODES)}")
    if speculation is not None and not isinstance(speculation, Speculation):
        raise CostModelError(
            f"speculation got {shown(speculation)}; give a Speculation, such as Speculation(tokens=1, acceptance=0.8)"
        )
    if limits.tpot_s is not None and traffic.output.max <= 1:
        raise CostModelError("limits contradict the traffic: tpot_s is asked of outputs of a single token; leave it out")
    if limits.nodes and limits.devices and limits.nodes > limits.devices:
        raise CostModelError(f"limits contradict: {limits.nodes} nodes need more than {limits.devices} devices; raise devices")


def _prices(given: Mapping[str, float], devices: Sequence[Accelerator], objective: str, limits: Limits) -> dict[str, float]:
    """Dollars an hour of each device: those given, else those listed. Raises CostModelError for one that is needed and missing."""
    names = [device.name for device in devices]
    if not isinstance(given, Mapping):
        raise CostModelError(f"prices got {shown(given)}; give dollars an hour by accelerator, such as {{{names[0]!r}: 2.0}}")
    for name, value in given.items():
        if name not in names:
            raise CostModelError(
                f"prices names {shown(name)}, which is not among the accelerators; {did_you_mean(str(name), names)}"
            )
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
            raise CostModelError(f"the price of {name} got {shown(value)}; give dollars an hour, more than 0")
    listed = {device.name: device.price.usd_per_hour for device in devices if device.price}
    found = listed | {name: float(value) for name, value in given.items()}
    missing = next((name for name in names if name not in found), None)
    if missing and (objective == "usd" or limits.usd_per_hour):
        raise CostModelError(
            f"{missing} has no listed price; give prices={{{missing!r}: dollars an hour}}, or the objective devices"
        )
    return found
