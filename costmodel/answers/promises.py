"""Sentences about what hardware can promise and what it costs: verdicts, alternative texts, inverse answers."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from costmodel.answers.offers import Offer
from costmodel.formula import MAX_INPUT
from costmodel.hardware import Accelerator
from costmodel.planning.deployments import Deployment
from costmodel.scenario import Scenario
from costmodel.units import quantity, tokens

BINDS = {
    "memory": "memory binds: a larger batch does not fit",
    "time per token": "the time per token binds: a larger batch is too slow",
    "first token": "the first token binds: it takes replicas beyond what the tokens need",
    "traffic": "one replica serves the traffic: a larger batch saves nothing",
    "largest batch": "larger batches, as far as any was looked at, need as many replicas",
    "devices": "what may be rented binds: a smaller batch is faster, and takes more devices",
    "smallest batch": "it decodes as few sequences at a time as can be",
}
"""What keeps a deployment from being cheaper, in words."""


def traffic_words(scenario: Scenario) -> str:
    """The traffic.

    >>> traffic_words(Scenario())
    '2 requests a second of 4k tokens in and 1k out'
    """
    rate = f"{scenario.requests_per_s:g} request{'' if scenario.requests_per_s == 1 else 's'} a second"
    return f"{rate} of {tokens(scenario.prompt)} tokens in and {tokens(scenario.output)} out"


def usd(value: float) -> str:
    """Dollars in three digits and more.

    >>> usd(0.0779), usd(28.72), usd(1234.5)
    ('$0.0779', '$28.7', '$1,234')
    """
    return f"${value:,.0f}" if value >= 1000 else f"${value:.3g}"


def laid_out(shown: Deployment, device: Accelerator) -> str:
    """A deployment: devices, replicas, layouts."""
    replicas = f"{shown.replicas} replica{'' if shown.replicas == 1 else 's'} of {shown.layout.name}, batch {shown.batch:,}"
    if shown.prefill_layout is not None:
        replicas += f", and {shown.prefill_replicas} of {shown.prefill_layout.name} for prompts"
    return f"{shown.devices:,} x {device.title} ({replicas})"


def serve_sentence(found: Offer, scenario: Scenario) -> str:
    """The verdict: what can be promised, with what, at what price, and what binds; or what is missed and what to relax."""
    device = found.wanted.devices[0]
    if found.best is None:
        near = f" Nearest is {laid_out(found.nearest, device)}." if found.nearest else ""
        return (
            f"No layout of at most {scenario.devices:,} x {device.title} serves {traffic_words(scenario)} of {found.model.title} "
            f"within the limits: {'; '.join(found.misses)}.{near} Relax what is missed, store coarser, or choose other devices."
        )
    best = found.best
    price = "" if best.usd_per_hour is None else f", {usd(best.usd_per_hour)} an hour"
    return (
        f"{laid_out(best, device)} can promise {found.model.title} at {traffic_words(scenario)}: the first token within "
        f"{quantity(best.ttft_s, 's')} for {best.level:.0%}, then {best.tokens_per_s_per_user:.3g} tokens a second{price}; "
        f"{BINDS[best.binds]}."
    )


def waits(found: Offer) -> str:
    """The first token's quantiles, and how much was looked at."""
    told = ", ".join(f"{quantity(value, 's')} for {level:.0%}" for level, value in found.first_token_s.items())
    first = f"First token of the best with its queue: within {told}. " if told else ""
    return f"{first}{found.considered:,} candidates were looked at."


def front_words(found: Offer, scenario: Scenario) -> str:
    """What the chart of the front shows, for those who do not see it."""
    if not found.front:
        return f"No layout holds {found.model.title}."
    fast, dense = found.front[0], found.front[-1]
    return (
        f"Tokens a second for a user against output tokens a second for a device, both axes logarithmic, {len(found.front)} "
        f"points that none beats: from {_point(fast)} to {_point(dense)}. "
        + (
            f"Within the limits: from {_point(found.kept[0])} to {_point(found.kept[-1])}."
            if found.kept
            else "None keeps the limits."
        )
    )


def _point(point: dict[str, Any]) -> str:
    return (
        f"{point['tokens_per_s_per_user']:.3g} and {point['output_tokens_per_s_per_device']:,.3g} "
        f"({point['layout']}, {point['mode']}, batch {point['batch']:,})"
    )


def held_line(found: Offer) -> str:
    """Inverse answers for the best layout, or the nearest miss: everything else stays as it is."""
    held, shown = found.memory, found.best or found.nearest
    if held is None or shown is None:
        return "No layout holds it: allow more devices, or store coarser."
    fewest = "no number of devices holds it" if held.fewest_devices is None else f"it fits on {held.fewest_devices:,} ranks of TP"
    loosest = "no format fits" if held.loosest is None else f"the least coarse formats that fit are {'/'.join(held.loosest)}"
    return (
        f"In a replica of {shown.layout.name} the longest context is {most(held.longest_context)} tokens at batch {held.batch:,}, "
        f"the most sequences {most(held.most_sequences)} of {held.context:,} tokens; {fewest} at the least, and {loosest}."
    )


def most(number: int | None) -> str:
    """An inverse answer.

    >>> most(None), most(131_072), most(10**12)
    ('none', '131,072', 'without limit')
    """
    return "none" if number is None else "without limit" if number >= MAX_INPUT else f"{number:,}"


def price_line(device: Accelerator, scenario: Scenario) -> str:
    """Whose price it is."""
    if scenario.usd_per_hour:
        return f"{device.title}: {usd(scenario.usd_per_hour)} an hour of one device, as you say."
    if device.price is None:
        return f"{device.title} has no listed price: give one under More."
    day = f" on {device.price.date}" if device.price.date else ""
    return f"{device.title}: {usd(device.price.usd_per_hour)} an hour of one device, listed{day} ({device.price.source})."


def cost_sentence(rows: Sequence[dict[str, Any]], scenario: Scenario, device: Accelerator) -> str:
    """What a million tokens cost, prompts and outputs apart, and which of several is the cheapest."""
    priced = sorted((row for row in rows if row["usd_per_mtok_out"] is not None), key=lambda row: row["usd_per_mtok_out"])
    if not priced:
        return f"None of the chosen models has a price per token on {device.title} at {traffic_words(scenario)}."
    told = "; ".join(f"{row['title']} {usd(row['usd_per_mtok_in'])} in and {usd(row['usd_per_mtok_out'])} out" for row in priced)
    return f"A million tokens on {device.title}, at {traffic_words(scenario)}: {told}."


def accelerators_sentence(rows: Sequence[dict[str, Any]], title: str) -> str:
    """Where a model's output is cheapest, and where it is dearest."""
    priced = [row for row in rows if row["usd_per_mtok_out"] is not None]
    if not priced:
        return f"No accelerator with a price serves {title} within the limits."
    first, last = priced[0], priced[-1]
    dearest = f", and most on {last['title']}, {usd(last['usd_per_mtok_out'])}" if len(priced) > 1 else ""
    return f"A million tokens of {title}'s output cost least on {first['title']}, {usd(first['usd_per_mtok_out'])}{dearest}."


def tornado_sentence(sensitivity: Sequence[dict[str, Any]], title: str) -> str:
    """What moves the cost of a token most, and what breaks the plan."""
    if not sensitivity:
        return f"There is no plan of {title} to change."
    broken = [
        f"10 % {word} {row['assumption']}"
        for row in sensitivity
        for word, key in (("less", "minus_10_percent"), ("more", "plus_10_percent"))
        if not isfinite(row[key])
    ]
    moved = max(sensitivity, key=swing)
    words = (
        f"What moves the cost of {title}'s output most is {moved['assumption']}: 10 % less of it changes the cost by "
        f"{_change(moved['minus_10_percent'])}, 10 % more by {_change(moved['plus_10_percent'])}."
    )
    return words + (f" Nothing meets the limits with {', or '.join(broken)}." if broken else "")


def swing(row: dict[str, Any]) -> float:
    """The larger of an assumption's two changes, those that leave a plan."""
    return max((abs(row[key]) for key in ("minus_10_percent", "plus_10_percent") if isfinite(row[key])), default=0.0)


def _change(value: float) -> str:
    return f"{value:+.1%}" if isfinite(value) else "more than any"
