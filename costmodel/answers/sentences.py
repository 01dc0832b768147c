"""Sentences made from the data: under charts, as their alternative text, and at the top of each page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costmodel.answers.landscape import BATCHES, frontier, touched_rows
from costmodel.architecture import Architecture
from costmodel.blocks.base import Keeping
from costmodel.calibration.store import ClassScores
from costmodel.errors import CostModelError
from costmodel.hardware import Accelerator
from costmodel.scenario import YARDSTICK, Scenario
from costmodel.units import BYTES, quantity, tokens, workload


def why(model: Architecture) -> str:
    """Why a model's cache is what it is: what its layers keep, those that save first.

    >>> import costmodel as cm
    >>> why(cm.load("gemma-3-27b"))
    '52 of its 62 layers keep only 1,024 tokens'
    """
    if model.recursion:
        return "it computes its whole grid anew in every step and keeps nothing"
    groups: dict[tuple[Keeping, str], int] = {}
    for group in model.layers:
        if group.mixer is not None:
            said = (group.mixer.keeping, group.mixer.keeps)
            groups[said] = groups.get(said, 0) + group.count
    mixing, those = sum(groups.values()), "layers" if all(group.mixer for group in model.layers) else "layers that mix tokens"
    saving = {said: layers for said, layers in groups.items() if said[0] is not Keeping.FULL} or groups
    return " and ".join(f"{_of_all(layers, mixing, those)} {keeps}" for (_, keeps), layers in saving.items()) or "it keeps nothing"


def _of_all(layers: int, depth: int, those: str) -> str:
    return f"all of its {depth} {those}" if layers == depth else f"{layers} of its {depth} {those}"


def cache_sentence(models: Sequence[Architecture], scenario: Scenario, yardstick: Architecture | None = None) -> str:
    """The chart of caches in one sentence: the model with the least, against the yardstick or the most, and why."""
    if not models:
        return "No model is chosen."
    at = f"At {scenario.context:,} tokens" + (f" and {scenario.batch:,} sequences" if scenario.batch > 1 else "")
    sizes = {model: scenario.kept(model)(**scenario.at) for model in models}
    least = min(models, key=lambda model: sizes[model])
    other = yardstick or max(models, key=lambda model: sizes[model])
    against = scenario.kept(other)(**scenario.at)
    called = f"the yardstick, {other.title}" if yardstick and yardstick.name == YARDSTICK else other.title
    if least is other or not sizes[least]:
        return f"{at} {least.title} keeps {BYTES[scenario.units](sizes[least])}, because {why(least)}."
    link = ", because" if against >= sizes[least] else ";"
    return f"{at} {least.title} needs {times(against / sizes[least])} cache than {called}{link} {why(least)}."


def times(ratio: float) -> str:
    """A ratio of two costs as people say it.

    >>> times(3.84), times(0.5), times(1)
    ('3.8x less', '2.0x more', 'no less')
    """
    return "no less" if ratio == 1 else f"{ratio:.1f}x less" if ratio > 1 else f"{1 / ratio:.1f}x more"


def chart_words(models: Sequence[Architecture], scenario: Scenario) -> str:
    """What the chart of caches shows, for those who do not see it."""
    told = [f"{model.title} {BYTES[scenario.units](scenario.kept(model)(**scenario.at))}" for model in models]
    at = f"{workload(scenario.batch, scenario.context)} ({scenario.view})"
    return f"Cache against context from 1k to 1M tokens, both axes logarithmic. {at}: {', '.join(told)}."


def usual_lines(models: Sequence[Architecture], scenario: Scenario) -> str:
    """What the usual formula, 2 L H d for every layer alike, would say, and how far off it is."""
    return (
        "The usual formula 2 L H d (layers, KV heads, head width) would say: "
        + "; ".join(f"{model.title} {_usual(model, scenario)}" for model in models)
        + "."
    )


def _usual(model: Architecture, scenario: Scenario) -> str:
    try:
        usual = model.cache_bytes(**scenario.at, precision=scenario.cache, method="2lhd")
    except CostModelError:
        return "nothing, it has no attention"
    kept = model.cache_bytes(**scenario.at, precision=scenario.cache)
    if not kept:
        return f"{BYTES[scenario.units](usual)} (it keeps nothing)"
    ratio = usual / kept
    error = "right" if ratio == 1 else f"{ratio:.3g}x too much" if ratio > 1 else f"{1 / ratio:.3g}x too little"
    return f"{BYTES[scenario.units](usual)} ({error})"


def verdict(models: Sequence[Architecture], scenario: Scenario, device: Accelerator) -> str:
    """One sentence for the whole scenario: what fits on the hardware, and with how much room."""
    if not models:
        return "Choose one to four models."
    shown = BYTES[scenario.units]
    free = [(scenario.room(model).free_bytes, model.title) for model in models]
    misses = [f"{title} ({shown(-left)} short)" for left, title in free if left < 0]
    least, tightest = min((left, title) for left, title in free if left >= 0) if len(misses) < len(free) else (0, "")
    load = f"{workload(scenario.batch, scenario.context)}, {scenario.weights} weights and {scenario.cache} cache"
    said = []
    if len(misses) < len(free):
        fits = [title for left, title in free if left >= 0]
        named = f"all {len(free)} fit" if len(fits) == len(free) > 1 else f"{', '.join(fits)} fit"
        said.append(
            f"{fits[0]} fits with {shown(least)} free" if len(fits) == 1 else f"{named}, {tightest} with {shown(least)} free"
        )
    if misses:
        said.append(f"{', '.join(misses)} does not fit" if len(misses) == 1 else f"{', '.join(misses)} do not fit")
    return f"{scenario.devices:,} x {device.title} with {load}: {'; '.join(said)}."


def landscape_sentence(rows: Sequence[dict[str, Any]], against: str, scenario: Scenario) -> str:
    """Whether bigger is dearer, in words: the rank correlation over all models, and who is on the frontier."""
    best = frontier(rows, against)
    named = ", ".join(row["title"] for row in best)
    dearer = sum(one["params_total"] > other["params_total"] and one[against] > other[against] for one in rows for other in rows)
    cheaper = sum(one["params_total"] > other["params_total"] and one[against] < other[against] for one in rows for other in rows)
    share = cheaper / (cheaper + dearer) if cheaper + dearer else 0.0
    return (
        f"At {tokens(scenario.context)} tokens, of two models the larger one is the cheaper in {share:.0%} of all pairs; "
        f"no larger model undercuts {named}."
    )


def walk_sentence(
    start: dict[str, Any], steps: Sequence[dict[str, Any]], end: dict[str, Any], name: str, unit: str, units: str
) -> str:
    """The walk from A to B in words: the two ends and the change that moves most."""
    ends = f"{start['change']}: {quantity(start[name], unit, units)}; {end['change']}: {quantity(end[name], unit, units)}"
    if not any(step[name] for step in steps):
        return f"{ends}. No change between them moves this quantity."
    most = max(steps, key=lambda step: abs(step[name]))
    word = "adds" if most[name] > 0 else "saves"
    return f"{ends}. What moves most: {most['change']}, which {word} {quantity(abs(most[name]), unit, units)}."


def experts_sentence(models: Sequence[Architecture]) -> str:
    """How much of each model works on one token, and on a batch."""
    rows = touched_rows(models)
    if not rows:
        return "None of the chosen models has routed experts: all their parameters work on every token."
    half = [
        (row, next((n for n, hit in zip(BATCHES, row["touched"], strict=True) if hit >= row["experts"] / 2), None)) for row in rows
    ]
    told = [
        f"{row['title']} uses {row['used']} of {row['experts']} experts for a token"
        + (f" and reads half of them from {tokens(batch)} tokens on" if batch else "")
        for row, batch in half
    ]
    return "; ".join(told) + "."


def roofline_sentence(rows: Sequence[dict[str, Any]], device: Accelerator) -> str:
    """Where a model's decode leaves the memory's slope, and how its prefill stands; of the first model."""
    if not rows:
        return "Choose one to four models in the sidebar."
    first = [row for row in rows if row["model"] == rows[0]["model"]]
    steps, prefill = [row for row in first if row["phase"] == "decode"], next(row for row in first if row["phase"] == "prefill")
    form = next((form for form in steps[0]["formats"] if form in device.peak_flops_per_s), "bf16")
    ridge = float(device.peak(form)) / float(device.given("memory_bytes_per_s"))
    past = next((row["batch"] for row in steps if row["flops_per_byte"] >= ridge), None)
    if past:
        turn = f"has enough work for each byte from {past:,} sequence{'s' if past > 1 else ''} on"
    else:
        turn = f"stays bound by memory up to {steps[-1]['batch']:,} sequences"
    share = prefill["flops_per_s"] / float(device.peak(form))
    return (
        f"On {device.title}, where {ridge:,.0f} FLOPs a byte keep {form} units busy, decode of {steps[0]['title']} {turn}; "
        f"its prefill reaches {share:.0%} of the peak."
    )


def calibration_sentence(kernels: str, scores: ClassScores, roofline: ClassScores, title: str) -> str:
    """How far off a class is on points that were not fitted, beside the pure roofline."""
    return (
        f"On {title}, {kernels} is off by {scores.median:.1%} in the median and {scores.p90:.1%} at the 90th percentile, on "
        f"{scores.n:,} points that were not fitted; the pure roofline by {roofline.median:.0%} and {roofline.p90:.0%}."
    )
