"""What the chosen hardware can promise of a model, and at what price: plans of a scenario, kept without their candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from costmodel.architecture import Architecture
from costmodel.catalog import accelerator, accelerators
from costmodel.errors import CostModelError
from costmodel.footprint import DeviceMemory, device_memory
from costmodel.planning.candidates import Limits, Wanted, within
from costmodel.planning.deployments import Deployment, _first_token, deployment, front
from costmodel.planning.plans import Plan, plan
from costmodel.planning.reasons import Why
from costmodel.scenario import Scenario
from costmodel.serving.engines import Traffic
from costmodel.serving.services import LEVELS
from costmodel.timing.estimating import check_works, formats_of

SHOWN = 10
"""Layouts that an offer keeps."""


@dataclass(frozen=True, eq=False)
class Offer:
    """A plan's answer for one model on one accelerator: its best layouts, the Pareto front, or the nearest miss and what it misses.

    `considered` counts the candidates that were looked at.
    """

    model: Architecture
    wanted: Wanted
    deployments: tuple[Deployment, ...]
    nearest: Deployment | None
    misses: tuple[str, ...]
    front: tuple[dict[str, Any], ...]
    kept: tuple[dict[str, Any], ...]
    """The front of those that keep the limits of time per token, devices and dollars."""
    considered: int
    first_token_s: dict[float, float]
    """Seconds to the best's first token, by the share of requests that they hold for."""

    @property
    def best(self) -> Deployment | None:
        """The best layout that meets the limits."""
        return self.deployments[0] if self.deployments else None

    @cached_property
    def why(self) -> Why:
        """What binds, what comes next, and what 10 % of each assumption changes."""
        return Why.of(self.wanted, self.deployments, self.nearest, self.misses)

    @cached_property
    def memory(self) -> DeviceMemory | None:
        """What a device of the best layout, or of the nearest miss, holds of sequences as long as the traffic's."""
        shown = self.best or self.nearest
        if shown is None:
            return None
        device, formats = self.wanted.accelerator(shown.accelerator), formats_of(shown.precision, shown.cache_precision)
        return device_memory(self.model, device, shown.layout, shown.slots, self.wanted.traffic.longest, formats)


Asked = tuple[str, int, str, str, float, int, int, float, float, str, float]
"""What an offer depends on: the accelerator, its number, the formats, the traffic, its limits, what counts, and the price."""


def offer(model: Architecture, scenario: Scenario, device: str = "") -> Offer:
    """The plan of a scenario's traffic on at most its devices, stored in its formats; on another `device`, at its listed price.

    Offers are kept: whatever else of the scenario changes, its context among it, they stay.

    Raises CostModelError for a model that does not write token after token, and without a price where dollars are what counts.

    >>> from costmodel.catalog import load
    >>> found = offer(load("llama-3.1-8b"), Scenario(accelerator="h100-sxm", devices=4))
    >>> found.best.devices, len(found.front) > 10
    (1, True)
    """
    return _offer(model, _asked(scenario, device))


def _asked(scenario: Scenario, device: str = "") -> Asked:
    name = device or scenario.accelerator
    return (
        name, scenario.devices, scenario.weights, scenario.cache, scenario.requests_per_s, scenario.prompt, scenario.output,
        scenario.ttft_s, scenario.tpot_s, scenario.objective, scenario.usd_per_hour if name == scenario.accelerator else 0.0,
    )  # fmt: skip


@lru_cache(maxsize=128)
def _offer(model: Architecture, asked: Asked) -> Offer:
    name, devices, weights, cache, rate, prompt, output, ttft_s, tpot_s, objective, usd = asked
    check_works(model)
    device = accelerator(name)
    if objective == "usd" and not usd and device.price is None:
        raise CostModelError(f"{device.title} has no listed price; give dollars an hour, or the objective devices or latency")
    found = plan(
        model, device, Traffic(requests_per_s=rate, prompt=prompt, output=output),
        Limits(ttft_s=ttft_s or None, tpot_s=tpot_s or None, devices=devices), objective,  # type: ignore[arg-type]
        precisions=[(weights, cache)], prices={name: usd} if usd else None,
    )  # fmt: skip
    best = tuple(deployment(found.wanted, *each) for each in found._ranked[:SHOWN])
    within_limits = [some.take(within(some, found.wanted.limits)) for some in found._found]
    return Offer(
        model, found.wanted, best, found.nearest, found.misses, found.front, tuple(front(found.wanted, within_limits)),
        found.considered, _first_tokens(found),
    )  # fmt: skip


def _first_tokens(found: Plan) -> dict[float, float]:
    """Seconds to the first token of the best, by the share of requests that they hold for."""
    if not found._ranked:
        return {}
    wanted = found.wanted
    at = [replace(wanted, limits=wanted.limits.model_copy(update={"level": level})) for level in LEVELS]
    return {asked.limits.level: _first_token(asked, *found._ranked[0])[0] for asked in at}


def cost_rows(models: Sequence[Architecture], scenario: Scenario) -> list[dict[str, Any]]:
    """What a million tokens cost of each model, prompts and outputs apart: a row each, with the reason where there is no price."""
    return [_cost(model, scenario, scenario.accelerator, model.title) for model in models]


def accelerator_rows(model: Architecture, scenario: Scenario) -> list[dict[str, Any]]:
    """The same of one model on every accelerator with a price, cheapest output first; those that cannot serve it come last."""
    names = [name for name in accelerators() if accelerator(name).price or name == scenario.accelerator]
    rows = [_cost(model, scenario, name, accelerator(name).title) for name in names]
    return sorted(rows, key=lambda row: (row["usd_per_mtok_out"] is None, row["usd_per_mtok_out"]))


def _cost(model: Architecture, scenario: Scenario, device: str, title: str) -> dict[str, Any]:
    row: dict[str, Any] = {"title": title, "model": model.name, "accelerator": device}
    try:
        found = offer(model, scenario, device)
    except CostModelError as error:
        return row | dict.fromkeys(COSTS) | {"note": str(error)}
    if found.best is None:
        return row | dict.fromkeys(COSTS) | {"note": f"nothing meets the limits: {'; '.join(found.misses)}"}
    best = found.best.row
    note = "no price is known" if best["usd_per_hour"] is None else ""
    return row | {name: best[name] for name in COSTS} | {"note": note}


COSTS = ("usd_per_mtok_in", "usd_per_mtok_out", "usd_per_hour", "devices", "layout", "mode", "kwh_per_mtok_out", "binds")
"""What a row of costs takes from the best layout."""


def layout_rows(found: Offer) -> Iterator[dict[str, Any]]:
    """The best layouts, a row each; the nearest miss where none meets the limits."""
    for each in found.deployments or ([found.nearest] if found.nearest else []):
        row = each.row
        yield {name: row[name] for name in LAYOUT if name in row}


LAYOUT = (
    "layout", "mode", "devices", "batch", "binds", "ttft_s", "tpot_s", "tokens_per_s_per_user", "usd_per_hour",
    "output_tokens_per_s_per_device", "replicas", "prefill_layout", "prefill_replicas", "usd_per_mtok_in", "usd_per_mtok_out",
    "free_bytes", "utilisation",
)  # fmt: skip
"""What a row of layouts takes from a deployment."""


def python_line(model: Architecture, scenario: Scenario) -> str:
    """The line of Python that gives the same plan."""
    limits = ", ".join(f"{name}={value!r}" for name in ("ttft_s", "tpot_s") if (value := getattr(scenario, name)))
    prices = f", prices={{{scenario.accelerator!r}: {scenario.usd_per_hour!r}}}" if scenario.usd_per_hour else ""
    return (
        f'costmodel.plan("{model.name}", "{scenario.accelerator}", costmodel.Traffic(requests_per_s={scenario.requests_per_s!r}, '
        f"prompt={scenario.prompt}, output={scenario.output}), costmodel.Limits({limits}{', ' if limits else ''}"
        f'devices={scenario.devices}), "{scenario.objective}", [("{scenario.weights}", "{scenario.cache}")]{prices})'
    )
