"""The report of a plan, and of a calibration."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from math import log10
from shlex import quote
from typing import Any

from costmodel.answers.promises import tornado_sentence
from costmodel.answers.sentences import calibration_sentence
from costmodel.calibration.report import class_name, point_rows, scores_tables, summary_table
from costmodel.calibration.store import CalibratedClass, Calibration, as_json
from costmodel.catalog import accelerator, as_toml, calibrations
from costmodel.figures.charts import predicted_measured
from costmodel.figures.drawing import Figure, as_figure, laid_out, log_axis
from costmodel.figures.palette import GREY, SYMBOLS, colour
from costmodel.figures.servecharts import steps, tornado
from costmodel.hardware import Accelerator
from costmodel.planning.plans import Plan
from costmodel.planning.tables import plan_tables, traffic_words
from costmodel.reporting.contents import Assumption, Chart, Command, Report, latest
from costmodel.reporting.figures import peak_of
from costmodel.reporting.grounds import loaded, timed
from costmodel.tables import Table
from costmodel.units import quantity

MOST_POINTS = 300
PLAN_CONVENTIONS = {
    "time to the first token": "the queue, and the prefill of the prompt; holds for the share of requests that the limits say",
    "time per token": "the mean between an answer's tokens, pauses for others' prompts included, at full batches",
    "dollars": "of the devices' hours, shared by the time that prompts and outputs take; engines that wait are paid for too",
    "memory": "of the device that holds most, for requests as long as nine in ten of the traffic; 10 % kept free for the runtime",
}
CALIBRATION_CONVENTIONS = {
    "error": "predicted over measured seconds less one, absolute; bias: of the logarithm, with its sign",
    "points": "those that were fitted, and those that were not, which alone say how far off it is",
}


# a plan


def plan_report(found: Plan) -> Report:
    """A plan: the best deployment or the nearest miss, the best layouts, the front, and what 10 % of each assumption changes."""
    wanted, why = found.wanted, found.why
    changes = tornado_sentence(why.sensitivity, wanted.model.title)
    charts = (
        [Chart("front", "Speed for a user against work of a device", _front_words(found), _front(found))] if found.front else []
    )
    if why.sensitivity:
        charts.append(Chart("assumptions", "What 10 % of each assumption changes", changes, tornado(why.sensitivity)))
    tables = plan_tables(found, by_quantity=True)
    every = [Table(table.name, table.title, table.rows, table.units, (), table.vertical, table.row_units) for table in tables]
    return Report(
        kind="plan",
        name=f"{wanted.model.name}-plan",
        title=f"{wanted.model.title}: {traffic_words(wanted.traffic)}",
        verdict=_plan_verdict(found),
        about=(str(why), *([changes] if why.sensitivity else [])),
        remarks=found.notes,
        inputs={},
        charts=tuple(charts),
        tables=tuple(table for table in every if table.rows),
        assumptions=tuple(_plan_assumptions(found)),
        formulas=(),
        conventions=PLAN_CONVENTIONS,
        commands=_plan_commands(found),
        data=_plan_data(found),
        files={f"{wanted.model.name}.toml": as_toml(wanted.model)},
        subject_day=latest([wanted.model.released, *(device.price.date for device in wanted.devices if device.price)]),
    )


def _plan_verdict(found: Plan) -> str:
    wanted, best = found.wanted, found.best
    names = " or ".join(device.title for device in wanted.devices)
    if best is None:
        return f"Nothing of {found.considered:,} candidates on {names} meets the limits: {'; '.join(found.misses)}."
    price = "" if best.usd_per_hour is None else f", {best.usd_per_hour:,.2f} dollars an hour"
    return (
        f"{best.devices:,} x {wanted.accelerator(best.accelerator).title} ({best.replicas} x {best.layout.name}, "
        f"batch {best.batch:,}, "
        f"{best.precision}/{best.cache_precision}, {best.mode}{price}): the first token within {quantity(best.ttft_s, 's')} for "
        f"{best.level:.0%} of requests, then {best.tokens_per_s_per_user:.3g} tokens a second."
    )


def _plan_data(found: Plan) -> dict[str, Any]:
    wanted = found.wanted
    changes = [{name: value if abs(_real(value)) < 1e300 else None for name, value in row.items()} for row in found.why.sensitivity]
    return {
        "name": wanted.model.name, "title": wanted.model.title, "verdict": _plan_verdict(found),
        "traffic": wanted.traffic.model_dump(mode="json"), "limits": wanted.limits.model_dump(mode="json"),
        "objective": wanted.objective, "considered": found.considered, "best": found.best.row if found.best else None,
        "nearest": found.nearest.row if found.nearest else None, "misses": list(found.misses), "table": found.rows,
        "front": list(found.front), "why": {"binding": found.why.binding, "following": found.why.following, "sensitivity": changes},
        "notes": list(found.notes), "assumptions": [each.row for each in _plan_assumptions(found)], "conventions": PLAN_CONVENTIONS,
        "commands": {each.what: each.text for each in _plan_commands(found)},
    }  # fmt: skip


def _real(value: Any) -> float:
    return value if isinstance(value, float) else 0.0


def _front(found: Plan) -> Figure:
    """Tokens a second for a user against output tokens a second for a device, log-log; the star is the best."""
    every = found.front[:: -(-len(found.front) // MOST_POINTS) or 1]
    traces = []
    for place, (within, name, drawn) in enumerate(((False, "beyond the limits", GREY), (True, "within the limits", colour(0)))):
        points = [row for row in every if row["within_limits"] == within]
        if points:
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": name, "x": [row["tokens_per_s_per_user"] for row in points],
                    "y": [row["output_tokens_per_s_per_device"] for row in points],
                    "marker": {"color": drawn, "symbol": SYMBOLS[place], "size": 7},
                }
            )  # fmt: skip
    if found.best:
        best = found.best
        traces.append(
            {
                "type": "scatter", "mode": "markers+text", "name": "the best", "x": [best.tokens_per_s_per_user],
                "y": [best.output_tokens_per_s_per_device], "text": [f"{best.layout.name} on {best.accelerator}"],
                "marker": {"color": colour(2), "symbol": "star", "size": 16},
            }
        )  # fmt: skip
    axes = {}
    for axis, whom in (("x", "user"), ("y", "device")):
        values = [value for trace in traces for value in trace[axis]]
        low, high = min(values) / 1.3, max(values) * 1.3
        shown = log_axis(f"output tokens a second for a {whom}", steps(low, high), lambda value: f"{value:,g}")
        axes[f"{axis}axis"] = shown | {"range": [log10(low), log10(high)]}
    return as_figure(traces, laid_out("front", **axes))


def _front_words(found: Plan) -> str:
    first, last = found.front[0], found.front[-1]
    ends = " to ".join(
        f"{row['tokens_per_s_per_user']:.3g} and {row['output_tokens_per_s_per_device']:,.3g} ({row['layout']})"
        for row in (first, last)
    )
    return f"Tokens a second for a user against those of a device, both logarithmic; none beats these in both: {ends}."


def _plan_assumptions(found: Plan) -> Iterator[Assumption]:
    wanted = found.wanted
    yield Assumption(f"dimensions of {wanted.model.title}", f"{wanted.model.depth} layers", "published", wanted.model.source)
    yield Assumption("memory, FLOPs and bytes", "by formulas", "derived", wanted.model.cache_bytes.source or "sums of tensors")
    yield Assumption("traffic", traffic_words(wanted.traffic), "assumed", "chosen; requests come at random")
    for device in wanted.devices:
        yield Assumption(f"rates of {device.title}", peak_of(device), "assumed" if _guessed(device) else "published", device.source)
        yield timed(device.name)
    for pool in {pool.engine.device.name: pool for pool in wanted.pools}.values():
        price = "none" if pool.usd_per_hour is None else f"{pool.usd_per_hour:g} dollars an hour"
        source = pool.engine.device.price.source if pool.engine.device.price else "chosen"
        yield Assumption(f"price of {pool.engine.device.title}", price, "assumed", source)
    yield Assumption("a step's share of prompts", f"{wanted.chunk:,} tokens", "assumed", "chosen, or what servers do by default")


def _guessed(device: Accelerator) -> bool:
    return any(name in device.assumed for name in ("memory_bytes_per_s", "peak_flops_per_s"))


def _plan_commands(found: Plan) -> tuple[Command, ...]:
    """The lines that ask for the same plan, among all layouts."""
    wanted, name = found.wanted, loaded(found.wanted.model)
    traffic, limits = wanted.traffic, {key: value for key, value in wanted.limits.model_dump().items() if value is not None}
    pairs = list(dict.fromkeys(pool.precision for pool in wanted.pools))
    prices = {pool.engine.device.name: pool.usd_per_hour for pool in wanted.pools if pool.usd_per_hour is not None}
    modes = tuple(dict.fromkeys(some.mode for some in found._found))
    flags = [f"--on {quote(device.name)}" for device in wanted.devices]
    flags += [
        f"--rate {traffic.requests_per_s!r}",
        f"--prompt {traffic.prompt}",
        f"--output {traffic.output}",
        f"--cached {traffic.cached_fraction!r}",
    ]
    flags += [f"--{LIMITS[key]} {value!r}" for key, value in limits.items()]
    flags += [
        f"--objective {wanted.objective}",
        *(f"--precision {'/'.join(pair)}" for pair in pairs),
        *(f"--mode {mode}" for mode in modes),
    ]
    flags += [f"--price {quote(device)}={value!r}" for device, value in prices.items()] + [f"--chunk {wanted.chunk}"]
    asked = (
        f'requests_per_s={traffic.requests_per_s!r}, prompt="{traffic.prompt}", output="{traffic.output}", '
        f"cached_fraction={traffic.cached_fraction!r}"
    )
    python = (
        f"import costmodel as cm\ncm.plan({name!r}, {[device.name for device in wanted.devices]!r}, cm.Traffic({asked}), "
        f"cm.Limits({', '.join(f'{key}={value!r}' for key, value in limits.items())}), {wanted.objective!r}, {pairs!r}, {modes!r}, "
        f"prices={prices!r}, chunk={wanted.chunk})"
    )
    if wanted.speculation:
        told = wanted.speculation
        flags.append(f"--speculate {told.tokens}:{told.acceptance!r}" + (f":{quote(told.draft)}" if told.draft != "mtp" else ""))
        guesses = f"cm.Speculation(tokens={told.tokens}, acceptance={told.acceptance!r}, draft={told.draft!r})"
        python = f"{python[:-1]}, speculation={guesses})"
    return Command("shell", "sh", f"costmodel plan {quote(name)} {' '.join(flags)}"), Command("python", "python", python)


LIMITS = {
    "ttft_s": "ttft", "tpot_s": "tpot", "level": "level", "devices": "devices", "nodes": "nodes", "usd_per_hour": "budget",
}  # fmt: skip
"""Limits, and what the command line calls them."""


# a calibration


def calibration_report(found: Calibration) -> Report:
    """A calibration: each class's points, predicted and measured, its errors on points not fitted, and its parameters."""
    device, best = accelerator(found.accelerator), max(found.classes, key=lambda each: len(each.seconds))
    words = calibration_sentence(class_name(best), best.held_out, best.roofline, device.title)
    sources = "; ".join(dict.fromkeys(each.source for each in found.classes))
    where = found.name if found.name in calibrations() else f"{found.name}.json"
    return Report(
        kind="calibration",
        name=f"{found.name}-calibration",
        title=f"Calibration of {device.title}",
        verdict=words,
        about=(sources,),
        remarks=found.notes,
        inputs={},
        charts=tuple(_class_chart(found, each, device) for each in found.classes),
        tables=(summary_table(found), *scores_tables(found)),
        assumptions=tuple(_calibration_assumptions(found, device)),
        formulas=(),
        conventions=CALIBRATION_CONVENTIONS,
        commands=(
            Command("shell", "sh", f"costmodel report --calibration {quote(where)}"),
            Command("python", "python", _opened(where)),
        ),
        data={
            "name": found.name, "verdict": words, "calibration": found.model_dump(mode="json", exclude_none=True),
            "assumptions": [each.row for each in _calibration_assumptions(found, device)], "conventions": CALIBRATION_CONVENTIONS,
            "classes": list(summary_table(found).rows),
        },
        files={f"{found.name}.json": as_json(found)},
        subject_day=date.fromisoformat(found.machine.date[:10]) if found.machine else device.released,
    )  # fmt: skip


def _opened(where: str) -> str:
    return (
        "import costmodel as cm\nfrom costmodel.calibration.store import read_calibration\n"
        "from costmodel.catalog import calibration_file\n"
        f'cm.report(read_calibration(calibration_file({where!r})), "json")'
    )


def _class_chart(found: Calibration, each: CalibratedClass, device: Accelerator) -> Chart:
    name, words = class_name(each), calibration_sentence(class_name(each), each.held_out, each.roofline, device.title)
    figure = predicted_measured(point_rows(found, name, device), each.spread)
    return Chart(name.replace(" ", "-"), f"{name}: predicted against measured seconds", words, figure)


def _calibration_assumptions(found: Calibration, device: Accelerator) -> Iterator[Assumption]:
    yield Assumption(f"rates of {device.title}", peak_of(device), "assumed" if _guessed(device) else "published", device.source)
    for each in found.classes:
        value = f"{len(each.seconds)} points fitted, {each.held_out.n:,} scored; p90 error {each.held_out.p90:.1%}"
        yield Assumption(class_name(each), value, "measured", each.source)
