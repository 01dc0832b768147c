"""Why a plan is what it is: what binds it, what comes next, and what 10 % of each assumption changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costmodel.planning.candidates import BATCHES, Limits, Pool, Wanted, candidates
from costmodel.planning.deployments import Deployment


@dataclass(frozen=True)
class Why:
    """What binds the best plan, what comes next, and what 10 % more and less of each assumption changes in the cost of a token.

    `sensitivity` rows: assumption, and the change as a fraction of the cost of output (prompts included) at full use, or of the
    devices where there is no price; layout and precision stay, the batch is chosen anew.
    """

    binding: str
    following: str
    sensitivity: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        swings = sorted(self.sensitivity, key=lambda row: -max(abs(row["minus_10_percent"]), abs(row["plus_10_percent"])))
        told = "; ".join(
            f"{row['assumption']} {row['minus_10_percent']:+.1%} / {row['plus_10_percent']:+.1%}" for row in swings[:3]
        )
        return f"{self.binding} {self.following}" + (f" 10 % less / more of: {told}." if told else "")

    @classmethod
    def of(cls, wanted: Wanted, deployments: Sequence[Deployment], nearest: Deployment | None, misses: Sequence[str]) -> Why:
        """The reasons of a plan: its deployments, best first, or the nearest miss and what it misses."""
        if not deployments:
            whom = f" Nearest: {_said(nearest)}." if nearest else ""
            told = f"Nothing meets the limits: {'; '.join(misses)}."
            return cls(told, f"Relax what is missed, or allow other accelerators.{whom}", ())
        best, bound = deployments[0], deployments[0].estimate.bound_by
        after = f"The next best: {_said(deployments[1])}." if len(deployments) > 1 else "No other layout meets the limits."
        return cls(f"{BINDING[best.binds]} A decode step is bound by {bound}.", after, tuple(_sensitivity(wanted, best)))


BINDING = {
    "memory": "Memory binds: a larger batch does not fit.",
    "time per token": "The time per token binds: a larger batch is slower than the limit.",
    "first token": "The time to the first token binds: it takes replicas beyond what the tokens need.",
    "traffic": "One replica serves the traffic: a larger batch saves nothing.",
    "largest batch": "Larger batches, as far as any was looked at, need as many replicas.",
    "devices": "What may be rented binds: a smaller batch is faster, and takes more devices.",
    "smallest batch": "It decodes as few sequences at a time as can be.",
}


def _said(deployment: Deployment) -> str:
    price = "" if deployment.usd_per_hour is None else f", {deployment.usd_per_hour:.2f} dollars an hour"
    stored = f"{deployment.precision}/{deployment.cache_precision}"
    return f"{deployment.devices} x {deployment.accelerator}, {deployment.layout.name}, {stored}, {deployment.mode}{price}"


def _sensitivity(asked: Wanted, best: Deployment) -> Iterator[dict[str, Any]]:
    """What 10 % of each assumption changes in the best layout's cost at full use."""
    pool = next(
        pool for pool in asked.pools
        if pool.engine.device.name == best.accelerator and pool.precision == (best.precision, best.cache_precision)
    )  # fmt: skip
    chosen = tuple(dict.fromkeys(layout for layout in (best.layout, best.prefill_layout) if layout is not None))
    pool = replace(pool, layouts=chosen)
    base = _cost(pool, asked.limits, best)
    for name, change in _assumptions(asked, pool).items():
        changed = [change(factor, pool) for factor in (0.9, 1.1)]
        costs = [_cost(other, limits, best) for other, limits in changed]
        less, more = (cost / base - 1 if np.isfinite(cost) else np.inf for cost in costs)
        yield {"assumption": name, "minus_10_percent": float(less), "plus_10_percent": float(more)}


def _assumptions(asked: Wanted, pool: Pool) -> dict[str, Any]:
    """How to change each assumption by a factor: a pool and limits in, a pool and limits out."""
    limits, traffic, device = asked.limits, asked.traffic, pool.engine.device

    def engine(pool: Pool, **changes: Any) -> Pool:
        return replace(pool, engine=replace(pool.engine, **changes))

    def scaled(name: str) -> Any:
        def change(factor: float, pool: Pool) -> tuple[Pool, Limits]:
            value = getattr(device, name)
            new = {key: round(rate * factor) for key, rate in value.items()} if isinstance(value, dict) else round(value * factor)
            return engine(pool, device=device.model_copy(update={name: new})), limits

        return change

    def longer(name: str) -> Any:
        def change(factor: float, pool: Pool) -> tuple[Pool, Limits]:
            lengths = getattr(traffic, name)
            scaled_ = type(lengths)(quantiles=[(level, max(tokens * factor, 1.0)) for level, tokens in lengths.quantiles])
            return engine(pool, traffic=traffic.model_copy(update={name: scaled_})), limits

        return change

    def looser(name: str) -> Any:
        return lambda factor, pool: (pool, limits.model_copy(update={name: getattr(limits, name) * factor}))

    found: dict[str, Any] = {
        "memory bandwidth": scaled("memory_bytes_per_s"), "peak FLOP/s": scaled("peak_flops_per_s"),
        "memory": scaled("memory_bytes"), "prompt length": longer("prompt"), "output length": longer("output"),
    }  # fmt: skip
    if device.link_bytes_per_s:
        found["links"] = scaled("link_bytes_per_s")
    if device.network_bytes_per_s:
        found["network"] = scaled("network_bytes_per_s")
    if pool.usd_per_hour is not None:
        found["price"] = lambda factor, pool: (replace(pool, usd_per_hour=pool.usd_per_hour * factor), limits)
    if asked.speculation:
        guesses = asked.speculation
        found["acceptance"] = lambda factor, pool: (
            engine(pool, speculation=guesses.model_copy(update={"acceptance": min(guesses.acceptance * factor, 1.0)})), limits
        )  # fmt: skip
    if limits.tpot_s is not None:
        found["tpot_s limit"] = looser("tpot_s")
    return found


def _cost(pool: Pool, limits: Limits, best: Deployment) -> float:
    """Dollars (or device-seconds) an output token at full use, of the best batch of a layout; infinite where none is left."""
    places = [place for place, layout in enumerate(pool.layouts) if layout == best.layout]
    found = next(iter(candidates(pool, BATCHES, (best.mode,), limits)))
    kept = np.isin(found.places, places) & found.fits
    if limits.tpot_s is not None:
        kept &= found.tpot_s <= limits.tpot_s
    price, rates = 1.0 if pool.usd_per_hour is None else pool.usd_per_hour, found.per_device[kept]
    return float(price / rates.max()) if len(rates) and rates.max() > 0 else np.inf
