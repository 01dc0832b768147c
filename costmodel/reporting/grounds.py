"""What a report's numbers rest on, and how to ask for them again: assumptions, formulas, the link, the command and Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from shlex import quote

from costmodel.answers.promises import price_line, traffic_words
from costmodel.architecture import Architecture
from costmodel.calibration.store import read_calibration
from costmodel.catalog import accelerator, calibration_file, calibrations, preset, presets
from costmodel.footprint import RESERVE
from costmodel.reporting.contents import Assumption, Command, Worked
from costmodel.reporting.figures import peak_of
from costmodel.reporting.rows import sequences
from costmodel.scenario import MAX_MODELS, Scenario
from costmodel.units import quantity
from costmodel.workload import Precision

MODEL_DEFAULTS = Scenario()
CHOSEN = {
    "context": "context", "batch": "batch", "precision": "weights", "cache_precision": "cache", "view": "view",
    "accelerator": "accelerator", "devices": "devices", "units": "units",
}  # fmt: skip
"""What a report may be asked for, and the field of a scenario that it is."""
TRAFFIC = ("requests_per_s", "prompt", "output", "ttft_s", "tpot_s", "usd_per_hour", "objective")


def about(scenario: Scenario, models: Sequence[Architecture]) -> Scenario:
    """The scenario of a report: about these models, whatever else a page shows."""
    kept = {name: getattr(scenario, name) for name in (*CHOSEN.values(), *TRAFFIC)}
    return Scenario(**kept, models=tuple(model.name for model in models[:MAX_MODELS]))


def worked_formulas(models: Sequence[Architecture], scenario: Scenario) -> tuple[Worked, ...]:
    """The formulas of the appendix."""
    return tuple(each for model in models for each in _worked(model, scenario))


def _worked(model: Architecture, scenario: Scenario) -> Iterator[Worked]:
    kept, stored = scenario.kept(model), Precision.named(scenario.weights, cache=scenario.cache)
    named = f'cm.Precision.named("{scenario.weights}", cache="{scenario.cache}")'
    for name, formula, options in (
        ("params_total", model.params.formula("total"), 'params.formula("total")'),
        ("params_active", model.params.formula("active"), 'params.formula("active")'),
        (
            "weight_bytes",
            model.weight_bytes.having(precision=scenario.weights),
            f'weight_bytes.having(precision="{scenario.weights}")',
        ),
        ("cache_bytes", kept.having(view="theory"), f'cache_bytes.having(precision="{scenario.cache}", view="theory")'),
        ("cache_bytes_engine", kept.having(view="engine"), f'cache_bytes.having(precision="{scenario.cache}", view="engine")'),
        ("prefill_flops", model.prefill_flops, "prefill_flops"),
        ("decode_flops", model.decode_flops, "decode_flops"),
        ("bytes_moved", model.bytes_moved.having(precision=stored), f"bytes_moved.having(precision={named})"),
    ):
        inputs = scenario.inputs(formula)
        told = ", ".join(f"{letter}={value}" for letter, value in inputs.items())
        yield Worked(name, model.name, formula, inputs, f"cm.load({loaded(model)!r}).{options}({told})")  # fmt: skip


def assumptions(models: Sequence[Architecture], scenario: Scenario) -> Iterator[Assumption]:
    """Everything that the numbers rest on, with its state."""
    device = accelerator(scenario.accelerator)
    for model in models:
        yield Assumption(
            f"dimensions of {model.title}", f"{model.depth} layers, width {model.hidden_size:,}", "published", model.source
        )
        sources = model.cache_bytes.source or "sums of tensors"
        yield Assumption(f"parameters, cache and FLOPs of {model.title}", "exact, by formulas", "derived", sources)
    chosen = f"weights in {scenario.weights}, cache in {scenario.cache}"
    yield Assumption("formats", chosen, "assumed", "chosen; state, norms, routers and embeddings keep their own")
    yield Assumption("workload", f"{sequences(scenario.batch)} of {scenario.context:,} tokens", "assumed", "chosen")
    yield Assumption("pages of an engine's cache", "16 tokens, windows in full", "assumed", "what common servers do by default")
    memory = quantity(device.memory_bytes, "bytes", scenario.units)
    for what, value, fields in (
        (f"memory of {device.title}", memory, ("memory_bytes",)),
        (f"rates of {device.title}", peak_of(device), ("memory_bytes_per_s", "peak_flops_per_s")),
    ):
        guessed = any(name in device.assumed for name in fields)
        yield Assumption(what, value, "assumed" if guessed else "published", device.source)
    yield timed(scenario.accelerator)
    yield Assumption("memory kept free for the runtime", f"{RESERVE:.0%}", "assumed", "what common servers leave free by default")
    yield Assumption("traffic", traffic_words(scenario), "assumed", f"chosen; limits: {_limits(scenario)}")
    priced = "chosen" if scenario.usd_per_hour else device.price.source if device.price else "none"
    yield Assumption(f"price of {device.title}", price_line(device, scenario), "assumed", priced)


def timed(name: str) -> Assumption:
    """How seconds on an accelerator come about."""
    title = f"seconds on {accelerator(name).title}"
    if name not in calibrations():
        return Assumption(
            title, "the datasheet's peaks, with efficiencies of other devices' kernels", "assumed",
            f"kernels measured on {', '.join(calibrations())}",
        )  # fmt: skip
    stored = read_calibration(calibration_file(name))
    worst = max(each.held_out.p90 for each in stored.classes)
    classes = f"{len(stored.classes)} classes of kernels; nine in ten points not fitted are within {worst:.0%} in the worst"
    return Assumption(title, classes, "measured", f"`costmodel report --calibration {name}` has points and sources")


def _limits(scenario: Scenario) -> str:
    limits = (("first token", scenario.ttft_s), ("each further one", scenario.tpot_s))
    return ", ".join(f"{what} within {value:g} s" for what, value in limits if value) or "none"


def commands(models: Sequence[Architecture], scenario: Scenario) -> tuple[Command, ...]:
    """The link, the command line and the Python that give the same digits."""
    names = [loaded(model) for model in models]
    link = scenario.link("report")
    flags = (
        f"--context {scenario.context} --batch {scenario.batch} --precision {quote(scenario.weights)} --cache-precision "
        f"{quote(scenario.cache)} --view {scenario.view} --on {quote(scenario.accelerator)} --devices {scenario.devices} "
        f"--units {scenario.units}"
    )
    default = all(getattr(scenario, name) == getattr(MODEL_DEFAULTS, name) for name in TRAFFIC)
    shell = f"costmodel report {' '.join(map(quote, names))} {flags}" if default else f"costmodel report --link {quote(link)}"
    known = all(model.name in presets() and preset(model.name) == model for model in models) and len(models) <= MAX_MODELS
    return (
        *([Command("link", "text", link)] if known else []),
        Command("shell", "sh", shell),
        Command("python", "python", _python(names, scenario, default)),
    )


def _python(names: Sequence[str], scenario: Scenario, default: bool) -> str:
    subject = repr(names[0]) if len(names) == 1 else repr(list(names))
    chosen = ", ".join(f"{name}={getattr(scenario, field)!r}" for name, field in CHOSEN.items())
    traffic = "" if default else "".join(f", {name}={getattr(scenario, name)!r}" for name in TRAFFIC)
    return f'import costmodel as cm\ncm.report({subject}, "json", {chosen}{traffic})'


def loaded(model: Architecture) -> str:
    """How a model is loaded: by its preset's name, or from the file that a folder of all formats holds."""
    known = model.name in presets() and preset(model.name) == model
    return model.name if known else f"{model.name}.toml"
