"""The planner beside a twin that prices one candidate at a time, beside brute force, and beside what must hold of any plan."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import costmodel as cm
from costmodel.cli import main
from costmodel.planning.candidates import BATCHES, candidates, within
from costmodel.planning.deployments import _first_tokens, deployment
from costmodel.planning.plans import Plan
from costmodel.serving.engines import CROWDED, FEW, Layouts, Speculation, Traffic
from costmodel.serving.queueing import queue
from costmodel.timing.estimating import formats_of
from tests.simulation import simulate_engines
from tests.simulation import traffic as arrivals
from tests.test_serving import stepper

LAYOUTS = [cm.Parallel(), cm.Parallel(tp=2), cm.Parallel(tp=2, pp=2), cm.Parallel(tp=8)]
GRID = [1, 2, 12, 40, 90, 260]
PAIRS = [("bf16", "bf16"), ("fp8", "bf16")]
TRAFFIC = Traffic(requests_per_s=6, prompt=3000, output=300)
LIMITS = cm.Limits(ttft_s=1.2, tpot_s=0.04)
CHUNK = 2048


def small(limits: cm.Limits = LIMITS, traffic: Traffic = TRAFFIC, **others: Any) -> Plan:
    given = {"layouts": LAYOUTS, "batches": GRID, "precisions": PAIRS} | others
    return cm.plan("llama-3.1-8b", ["h100-sxm", "a100-80gb"], traffic, limits, **given)


# a twin in plain numbers


@cache
def seconds(device: str, pair: tuple[str, str], layout: cm.Parallel, batch: int, new: int, context: int) -> float:
    return cm.time_pass("llama-3.1-8b", device, batch, new, context, formats_of(*pair), layout).seconds


@cache
def step_of(device: str, pair: tuple[str, str], layout: cm.Parallel, batch: int) -> float:
    sequences = batch * layout.dp * layout.pp
    found = cm.estimate("llama-3.1-8b", device, None, layout, sequences, 3000, 300, pair[0], pair[1]).tpot_s
    assert found is not None
    return found


@cache
def held(device: str, pair: tuple[str, str], layout: cm.Parallel, sequences: int) -> int:
    return cm.device_memory("llama-3.1-8b", device, layout, sequences, 3300, *pair).used_bytes


def rate_of(batch: int, step: float, service: float, pieces: int, steps: int) -> float:
    """The rate at which a stream's batch is full, by halving: rate x steps x time between steps sequences decode in the mean."""

    def between(rate: float) -> float:
        return max(1 / (rate * pieces + (1 - rate * service) / step), step)

    low, high = 0.0, 1 / service
    if high * steps * between(high) <= batch - 1:
        return high
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * steps * between(middle) < batch - 1 else (low, middle)
    return low


def late(rate: float, service: float, servers: int, limit: float, step: float) -> bool:
    return float(queue(rate, service, servers=servers).share_beyond(limit, step)) > (1 - CROWDED) * (1 - LIMITS.level)


def twin(device: str, pair: tuple[str, str], mode: str, layout: cm.Parallel, batch: int) -> dict[str, Any] | None:
    """One candidate, or None where it does not fit or keep the limits."""
    about = cm.accelerator(device)
    price, groups, arrivals_ = about.price.usd_per_hour, layout.dp * layout.pp, TRAFFIC.requests_per_s
    step, alone = step_of(device, pair, layout, batch), seconds(device, pair, layout, int(FEW), 1, 1)
    if batch == 1:
        return None
    if mode == "colocated":
        new = [CHUNK, 3000 - CHUNK]
        passes = [seconds(device, pair, layout, 1, *piece) for piece in ((new[0], new[0]), (new[1], 3000))]
        service = sum(passes) + 2 * max(step - alone, 0.0)
        rate = rate_of(batch, step, service, 2, 299)
        between = max(1 / (rate * 2 + (1 - rate * service) / step), step)
        fewest = replicas = math.ceil(arrivals_ / (rate * groups) - 1e-9)
        if late(1e-12, service, 1, LIMITS.ttft_s, step):
            return None
        while late(arrivals_, service, replicas * groups, LIMITS.ttft_s, step):
            replicas += 1
        apart, prefill = 0, None
    else:
        between = step
        fewest = replicas = max(math.ceil(arrivals_ * 299 * step / (batch - 1) / groups - 1e-9), 1)
        found = [pool for other in LAYOUTS if (pool := prefill_pool(device, pair, other, layout)) is not None]
        if not found:
            return None
        apart, _, prefill = min(found, key=lambda pool: pool[:2])
    decoding, growth = arrivals_ * 299 * between, max(between / alone, 1.0)
    z, shape = NormalDist().inv_cdf(1 - CROWDED * (1 - LIMITS.level)), decoding / growth
    room = decoding * max(1 - 1 / (9 * shape) + z / (3 * math.sqrt(shape)), 1.0) ** 3
    slots = max(batch, math.ceil((room + 1) / (fewest * groups)))
    if held(device, pair, layout, slots * groups) > about.memory_bytes or between > LIMITS.tpot_s:
        return None
    devices = replicas * layout.devices + apart
    return {
        "key": (devices * price, devices, between), "batch": batch * groups, "slots": slots * groups, "replicas": replicas,
        "prefill": prefill, "devices": devices, "tpot_s": between,
    }  # fmt: skip


def prefill_pool(device: str, pair: tuple[str, str], layout: cm.Parallel, decode: cm.Parallel) -> Any:
    """Devices, seconds and layout of the smallest pool that keeps the first token in time."""
    about, streams = cm.accelerator(device), layout.dp * layout.pp
    if held(device, pair, layout, streams) > about.memory_bytes:
        return None
    service, kept = seconds(device, pair, layout, 1, 3000, 3000), cm.load("llama-3.1-8b").cache_bytes(context=3000)
    limit = LIMITS.ttft_s - kept / min(layout.devices, decode.devices) / about.network_bytes_per_s
    if late(1e-12, service, 1, limit, 0.0):
        return None
    number = max(math.ceil(TRAFFIC.requests_per_s * service / streams * 1.0001), 1)
    while late(TRAFFIC.requests_per_s, service, number * streams, limit, 0.0):
        number += 1
    return number * layout.devices, service, layout


def test_the_plan_is_its_twins() -> None:
    found = small()
    assert found.considered == 2 * 2 * 2 * len(LAYOUTS) * len(GRID)
    expected = {}
    for device, pair, mode, layout in product(("h100-sxm", "a100-80gb"), PAIRS, ("colocated", "disaggregated"), LAYOUTS):
        every = [one for batch in GRID if (one := twin(device, pair, mode, layout, batch)) is not None]
        if every:
            expected[device, pair, mode, layout] = min(every, key=lambda one: one["key"])
    given = {(one.accelerator, (one.precision, one.cache_precision), one.mode, one.layout): one for one in found.deployments}
    assert len(expected) > 10
    assert given.keys() == expected.keys()
    for key, one in given.items():
        other = expected[key]
        assert (one.batch, one.slots, one.replicas, one.devices) == tuple(
            other[name] for name in ("batch", "slots", "replicas", "devices")
        )
        assert one.prefill_layout == other["prefill"]
        assert one.tpot_s == pytest.approx(other["tpot_s"], rel=1e-6)
    keys = [(one.usd_per_hour, one.devices, one.tpot_s) for one in found.deployments]
    assert keys == sorted(keys)
    assert keys[0] == pytest.approx(min(one["key"] for one in expected.values()), rel=1e-6)


def test_the_front_is_what_nobody_beats() -> None:
    found = small()
    points = [
        (1 / some.tpot_s[place], some.per_device[place])
        for some in found._found
        for place in np.flatnonzero(some.fits & (some.rate > 0))
    ]
    best = {one for one in points if not any(a >= one[0] and b >= one[1] and (a, b) != one for a, b in points)}
    given = [(row["tokens_per_s_per_user"], row["output_tokens_per_s_per_device"]) for row in found.front]
    assert sorted(given) == sorted(best)
    assert all(a[0] > b[0] and a[1] < b[1] for a, b in pairwise(given))
    assert list(found.pareto.columns) == list(found.front[0])


# what must hold of any plan

speeds = st.sampled_from([None, 0.02, 0.05, 0.2, 1.0, 5.0])
requests = st.floats(0.1, 60)


def cost(found: Plan) -> float:
    return math.inf if found.best is None else float(found.best.usd_per_hour or 0)


@settings(deadline=None, max_examples=12)
@given(requests, st.floats(0.05, 5), st.floats(0.008, 0.2), st.floats(1, 3), st.integers(1, 30), st.booleans())
def test_a_looser_limit_never_costs_more(rate: float, ttft: float, tpot: float, factor: float, devices: int, fine: bool) -> None:
    traffic = Traffic(requests_per_s=rate, prompt=2000, output=200)
    options: dict[str, Any] = {} if fine else {"layouts": LAYOUTS, "batches": GRID}

    def costs(**limits: Any) -> float:
        return cost(cm.plan("llama-3.1-8b", "h100-sxm", traffic, cm.Limits(**limits), precisions=["fp8"], **options))

    tight = costs(ttft_s=ttft, tpot_s=tpot, devices=devices, level=0.9)
    for looser in (
        {"ttft_s": ttft * factor}, {"tpot_s": tpot * factor}, {"devices": devices + 8}, {"level": 0.6}, {"ttft_s": None},
        {"devices": None}, {"ttft_s": ttft * factor, "tpot_s": tpot * factor, "devices": devices + 1},
    ):  # fmt: skip
        assert costs(**{"ttft_s": ttft, "tpot_s": tpot, "devices": devices, "level": 0.9} | looser) <= tight + 1e-9


@settings(deadline=None, max_examples=8)
@given(requests, st.floats(0, 0.9), st.floats(0, 0.1), st.floats(0.1, 0.9), st.floats(0, 0.3), st.floats(0.2, 1))
def test_what_helps_never_costs_more(
    rate: float, cached: float, more: float, acceptance: float, better: float, cheaper: float
) -> None:
    def traffic(cached: float) -> Traffic:
        return Traffic(requests_per_s=rate, prompt=3000, output=300, cached_fraction=cached)

    assert cost(small(traffic=traffic(cached + more * 0.99))) <= cost(small(traffic=traffic(cached))) + 1e-9

    def guessed(acceptance: float) -> Plan:
        guesses = Speculation(tokens=2, acceptance=min(acceptance, 1.0), draft="llama-3.1-8b")
        return small(traffic=traffic(cached), speculation=guesses, modes=["colocated"])

    assert cost(guessed(acceptance + better)) <= cost(guessed(acceptance)) + 1e-9
    assert cost(small(prices={"a100-80gb": 1.39 * cheaper})) <= cost(small()) + 1e-9


@settings(deadline=None, max_examples=15)
@given(requests, st.sampled_from(["usd", "devices", "latency"]), st.floats(0.3, 5), st.floats(0.01, 0.2), st.integers(8, 200))
def test_every_deployment_keeps_every_limit(rate: float, objective: Any, ttft: float, tpot: float, devices: int) -> None:
    limits = cm.Limits(ttft_s=ttft, tpot_s=tpot, devices=devices, nodes=max(devices // 5, 1), usd_per_hour=devices * 2.5)
    found = small(limits, Traffic(requests_per_s=rate, prompt=3000, output=300), objective=objective)
    for one in found.deployments:
        about = cm.accelerator(one.accelerator)
        assert one.ttft_s <= ttft * (1 + 1e-6)
        assert one.tpot_s <= tpot
        assert one.devices <= devices
        assert one.nodes <= limits.nodes
        assert one.usd_per_hour == pytest.approx(one.devices * about.price.usd_per_hour)
        assert one.usd_per_hour <= limits.usd_per_hour
        assert one.memory_bytes + one.free_bytes == about.memory_bytes
        assert one.free_bytes >= 0
        assert one.slots >= one.batch
        assert one.replicas * one.batch >= rate * 299 * one.step_s * (1 - 1e-9)  # Little's law
        assert one.usd_per_mtok_in * rate * 3000 + one.usd_per_mtok_out * rate * 300 == pytest.approx(one.usd_per_hour / 3600 * 1e6)
        assert one.watts == one.devices * about.power_w
    order = [(one.usd_per_hour, one.devices, one.tpot_s) for one in found.deployments]
    if objective != "usd":
        order = [(devices, usd, tpot) if objective == "devices" else (tpot, usd, devices) for usd, devices, tpot in order]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("model", "device", "rate"),
    [
        ("llama-3.1-8b", "h100-sxm", 10), ("qwen3-30b-a3b", "h200", 20), ("deepseek-v3", "b200", 5), ("gemma-3-27b", "mi300x", 3),
        ("mamba-2.8b", "l4", 5), ("qwen3-next-80b-a3b", "h200", 10), ("llama-3.1-8b", "tpu-v6e", 10),
        ("zamba2-2.7b", "rtx-4090", 3),
    ],
)  # fmt: skip
def test_its_numbers_are_those_of_its_layout(model: str, device: str, rate: float) -> None:
    traffic = Traffic(requests_per_s=rate, prompt=2000, output=400)
    found = cm.plan(model, device, traffic, cm.Limits(ttft_s=4, tpot_s=0.2))
    assert found.best is not None
    assert {one.mode for one in found.deployments} >= {"colocated"}
    for one in found.deployments[:6]:
        stored = (one.precision, one.cache_precision)
        assert one.step_s == pytest.approx(one.estimate.tpot_s, rel=1e-9)
        assert one.memory_bytes == cm.device_memory(model, device, one.layout, one.slots, 2400, *stored).used_bytes
        if one.prefill_layout is not None:
            alone = cm.estimate(model, device, None, one.prefill_layout, one.prefill_layout.dp, 2000, 1, *stored)
            assert one.prefill_s == pytest.approx(alone.ttft_s, rel=1e-9)
    single = cm.accelerator(device).link_bytes_per_s is None
    assert not single or all(one.layout.devices == 1 for one in found.deployments)


def test_no_smaller_prefill_pool_keeps_the_limit() -> None:
    found, level = small(modes=["disaggregated"]), 1 - (1 - CROWDED) * 0.1  # a place in a batch may be waited for too
    for one in found.deployments:
        pool = next(p for p in found.wanted.pools if (p.engine.device.name, p.precision[0]) == (one.accelerator, one.precision))
        moved = pool.engine.transfer_s(*(Layouts.of(found.wanted.model, [layout]) for layout in (one.layout, one.prefill_layout)))
        layout, servers = one.prefill_layout, one.prefill_replicas * one.prefill_layout.dp * one.prefill_layout.pp
        assert queue(6.0, one.prefill_s, servers=servers).response_s(level) + moved[0] == pytest.approx(one.ttft_s, rel=1e-6)
        if one.prefill_replicas > 1:
            fewer = queue(6.0, one.prefill_s, servers=servers - layout.dp * layout.pp)
            assert fewer.response_s(level) + moved[0] > LIMITS.ttft_s


def test_replicas_do_not_lie_across_nodes() -> None:
    """Of 8 devices, 48 heads can take 6: such replicas lie alone in a node, those of 4 in pairs."""
    traffic = Traffic(requests_per_s=20, prompt=2000, output=200)
    found = cm.plan("cwm-32b", "h100-sxm", traffic, cm.Limits(tpot_s=0.05), layouts=[cm.Parallel(tp=6), cm.Parallel(tp=4)])
    for one in found.deployments:
        each = 8 // one.layout.devices
        apart = 0 if one.prefill_layout is None else one.prefill_replicas / (8 // one.prefill_layout.devices)
        assert one.nodes == math.ceil(one.replicas / each + apart - 1e-9)


# promises

TOLD = {
    "chunked": ("llama-3.1-8b", "h100-sxm", Traffic(requests_per_s=20, prompt=3000, output=256), 0.9),
    "strict": ("llama-3.1-8b", "h100-sxm", Traffic(requests_per_s=60, prompt=1000, output=200), 0.99),
    "memory": ("llama-3.1-8b", "l40s", Traffic(requests_per_s=5, prompt=2048, output=512), 0.9),
    "two streams": ("llama-3.1-70b", "h100-sxm", Traffic(requests_per_s=4, prompt=2048, output=400), 0.9),
}


@pytest.mark.parametrize("case", TOLD.values(), ids=list(TOLD))
def test_a_simulation_keeps_what_is_promised(case: Any) -> None:
    """The engines of the best colocated plan, with as many places as it has slots for: what it promises is kept, to a tenth."""
    model, device, traffic, level = case
    found = cm.plan(model, device, traffic, cm.Limits(ttft_s=2, tpot_s=0.05, level=level), modes=["colocated"])
    best = found.best
    assert best is not None
    served = next(pool.engine for pool in found.wanted.pools if pool.precision == (best.precision, best.cache_precision))
    streams, most = best.replicas * best.layout.dp * best.layout.pp, best.slots // (best.layout.dp * best.layout.pp)
    asked = arrivals(traffic.requests_per_s, 10_000, traffic.prompt, traffic.output, 1)
    run = simulate_engines(asked, stepper(served, best.layout, most), most, CHUNK, streams)
    assert run.prefilled == 10_000 * traffic.prompt.mean
    assert run.decoded == 10_000 * traffic.output.mean
    assert run.ttft([level])[0] <= best.ttft_s * 1.15
    assert run.tpot <= best.tpot_s * 1.03
    assert run.tpot == pytest.approx(best.service.tpot_s, rel=0.05)
    assert run.busy_s / run.ended_s / streams == pytest.approx(best.service.prefill_utilisation, abs=0.06)
    for at, seconds_ in zip((0.5, level), run.ttft([0.5, level]), strict=True):
        assert best.service.ttft_s[at] == pytest.approx(seconds_, rel=0.25)


@settings(deadline=None, max_examples=15)
@given(requests, st.floats(0.5, 5), st.floats(0.02, 0.2), st.sampled_from([0.5, 0.9, 0.99]), st.sampled_from(PAIRS))
def test_the_service_of_the_best_keeps_the_limits(rate: float, ttft: float, tpot: float, level: float, pair: Any) -> None:
    """What is promised at full use bounds what comes with the traffic; the time between tokens to 3 %."""
    limits = cm.Limits(ttft_s=ttft, tpot_s=tpot, level=level)
    best = small(limits, Traffic(requests_per_s=rate, prompt=3000, output=300), precisions=[pair]).best
    if best is not None:
        assert not best.service.saturated
        assert best.service.ttft_s[level] <= best.ttft_s * 1.001 <= ttft * 1.001
        assert best.service.tpot_s <= best.tpot_s * 1.03
        assert best.service.memory.used_bytes == best.memory_bytes
        assert best.service.devices == best.devices
        assert best.service.batch <= best.slots


# no plan


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"ttft_s": 0.02, "tpot_s": 0.05}, ["ttft_s is"]),
        ({"ttft_s": 2.0, "tpot_s": 0.001}, ["tpot_s is"]),
        ({"ttft_s": 0.5, "tpot_s": 0.05, "devices": 2}, ["2"]),
        ({"ttft_s": 0.3, "tpot_s": 0.02, "usd_per_hour": 5.0}, ["dollars an hour, not 5"]),
        ({"ttft_s": 0.08, "tpot_s": 0.05, "devices": 2}, []),
    ],
)
def test_the_nearest_miss_is_the_smallest_factor(limits: dict[str, Any], told: list[str]) -> None:
    asked, traffic = cm.Limits(**limits), Traffic(requests_per_s=25, prompt=3000, output=300)
    found = small(asked, traffic, modes=["colocated"], batches=[12, 40, 90])
    assert found.best is None
    assert found.deployments == ()
    assert found.front
    least = math.inf
    for some in found._found:
        for place in np.flatnonzero(some.fits & np.isfinite(some.replicas)):
            for more in range(60):
                replicas = float(some.replicas[place]) + more
                one = deployment(found.wanted, some, int(place), replicas)
                factors = [one.devices / (asked.devices or 1e6), one.tpot_s / (asked.tpot_s or 1), one.ttft_s / (asked.ttft_s or 1)]
                factors.append(one.usd_per_hour / (asked.usd_per_hour or 1e9))
                least = min(least, max(factors))
    near = found.nearest
    assert near is not None
    given = max(
        near.devices / (asked.devices or 1e6), near.tpot_s / (asked.tpot_s or 1), near.ttft_s / (asked.ttft_s or 1),
        near.usd_per_hour / (asked.usd_per_hour or 1e9),
    )  # fmt: skip
    assert 1 < given <= least * 1.02
    assert all(any(word in miss for miss in found.misses) for word in told)
    for name in ("ttft_s", "tpot_s"):
        missed = getattr(near, name) > limits.get(name, math.inf)
        assert missed == any(miss.startswith(name) for miss in found.misses)
    assert "Nothing meets the limits" in str(found.why)


def test_no_room_says_what_comes_nearest() -> None:
    found = cm.plan("deepseek-v3", "l4", TRAFFIC, cm.Limits(devices=2))
    assert (found.best, found.nearest, found.front, found.rows) == (None, None, (), [])
    assert "times what a device has" in str(found.why)
    assert found.notes == ()
    assert len(found.table) == len(found.pareto) == 0


def test_a_wait_that_no_replica_helps_is_no_search_without_end() -> None:
    traffic = Traffic(requests_per_s=500, prompt="p50=900,p90=4000,max=16k", output=100)
    for ttft in (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3):
        found = small(cm.Limits(ttft_s=ttft), traffic, batches=[40])
        assert found.best is None or found.best.ttft_s <= ttft * (1 + 1e-6)
    huge = small(cm.Limits(ttft_s=1), Traffic(requests_per_s=1e9))
    assert huge.best is None


# why


def test_sensitivity_is_that_of_a_plan_with_the_change() -> None:
    found = small(batches=None, modes=["colocated"], layouts=[cm.Parallel(tp=2)], precisions=[("fp8", "bf16")])
    best = found.best
    assert best is not None
    device, rows = cm.accelerator(best.accelerator), {row["assumption"]: row for row in found.why.sensitivity}

    def output_usd(device: cm.Accelerator, traffic: Traffic = TRAFFIC, limits: cm.Limits = LIMITS) -> float:
        again = cm.plan(
            "llama-3.1-8b", device, traffic, limits, modes=["colocated"], layouts=[best.layout],
            precisions=[(best.precision, best.cache_precision)], batches=[int(batch) for batch in BATCHES],
        )  # fmt: skip
        (some,) = again._found
        kept = some.fits & (some.tpot_s <= limits.tpot_s)
        return device.price.usd_per_hour / some.per_device[kept].max() if kept.any() else math.inf

    base = output_usd(device)
    changed = {
        "memory bandwidth": {"memory_bytes_per_s": round(device.memory_bytes_per_s * 1.1)},
        "memory": {"memory_bytes": round(device.memory_bytes * 1.1)},
        "peak FLOP/s": {"peak_flops_per_s": {name: round(rate * 1.1) for name, rate in device.peak_flops_per_s.items()}},
        "links": {"link_bytes_per_s": round(device.link_bytes_per_s * 1.1)},
    }
    for name, update in changed.items():
        assert output_usd(device.model_copy(update=update)) / base - 1 == pytest.approx(rows[name]["plus_10_percent"], abs=1e-9)
    longer = Traffic(requests_per_s=6, prompt=3300, output=300)
    assert output_usd(device, longer) / base - 1 == pytest.approx(rows["prompt length"]["plus_10_percent"], abs=1e-9)
    looser = LIMITS.model_copy(update={"tpot_s": 0.036})
    assert output_usd(device, limits=looser) / base - 1 == pytest.approx(rows["tpot_s limit"]["minus_10_percent"], abs=1e-9)
    assert rows["price"] == {"assumption": "price", "minus_10_percent": pytest.approx(-0.1), "plus_10_percent": pytest.approx(0.1)}
    assert rows["memory bandwidth"]["plus_10_percent"] <= 0 <= rows["prompt length"]["plus_10_percent"]


@pytest.mark.parametrize(
    ("binds", "limits", "rate", "objective"),
    [
        ("time per token", {"tpot_s": 0.012}, 40, "usd"), ("memory", {"tpot_s": 0.5}, 40, "usd"), ("traffic", {}, 0.5, "usd"),
        ("first token", {"ttft_s": 0.1, "tpot_s": 0.5}, 30, "usd"), ("devices", {"devices": 6}, 10, "latency"),
    ],
)  # fmt: skip
def test_what_binds_is_what_stops_the_next_batch(binds: str, limits: dict[str, Any], rate: float, objective: Any) -> None:
    traffic = Traffic(requests_per_s=rate, prompt=3000, output=300)
    found = cm.plan(
        "llama-3.1-8b", "h100-sxm", traffic, cm.Limits(**limits), objective, [("bf16", "bf16")], ["colocated"], [cm.Parallel()]
    )
    best = found.best
    assert best is not None
    assert best.binds == binds
    (pool,) = found.wanted.pools
    (dense,) = candidates(pool, np.arange(1.0, 1025.0), ["colocated"], found.wanted.limits)
    at = best.batch - 1
    if binds == "memory":
        after = np.flatnonzero(dense.used_bytes > pool.engine.device.memory_bytes)
        assert len(after)
        assert (dense.replicas[at : after[0]] >= best.replicas).all()
    if binds == "time per token":
        assert dense.tpot_s[dense.replicas < best.replicas].min() > 0.012
    if binds == "first token":
        kept = within(dense, found.wanted.limits) & (dense.replicas < best.replicas)
        places = np.flatnonzero(kept)
        assert len(places)
        assert (_first_tokens(found.wanted, dense, places, dense.replicas[places])[0] > 0.1).all()
    if binds == "traffic":
        assert best.replicas == 1
    if binds == "devices":
        assert dense.replicas[at - 1] > 6
    assert str(found.why).startswith(found.why.binding)


# models and devices of all kinds


@pytest.mark.parametrize(
    ("model", "told"),
    [("llada-8b", "denoises"), ("dream-7b", "denoises"), ("trm-maze", "writes no text"), ("hrm-arc", "writes no text")],
)
def test_models_without_tokens_after_tokens_are_refused(model: str, told: str) -> None:
    with pytest.raises(cm.CostModelError, match=told):
        cm.plan(model, "h100-sxm", TRAFFIC)


def test_one_token_and_no_cache() -> None:
    single = cm.plan("llama-3.1-8b", "h100-sxm", Traffic(requests_per_s=50, prompt=2000, output=1), cm.Limits(ttft_s=1))
    assert single.best is not None
    assert single.best.ttft_s <= 1
    short = cm.plan("llama-3.1-8b", "h100-sxm", Traffic(requests_per_s=5, prompt=1, output=50), cm.Limits(ttft_s=1, tpot_s=0.05))
    assert short.best is not None
    recurrent = cm.plan("mamba-2.8b", "rtx-4090", Traffic(requests_per_s=5, prompt=1000, output=100), cm.Limits(tpot_s=0.05))
    assert recurrent.best is not None
    assert (recurrent.best.mode, recurrent.best.layout) == ("colocated", cm.Parallel())


def test_guesses_of_its_own_and_of_a_draft() -> None:
    traffic = Traffic(requests_per_s=3, prompt=2000, output=300)
    own = cm.plan("deepseek-v3", "h200", traffic, cm.Limits(tpot_s=0.05), speculation=Speculation(tokens=1, acceptance=0.85))
    assert own.best is not None
    held_ = own.best.service.memory
    assert held_.demand.mtp == 1
    assert own.best.memory_bytes == held_.used_bytes
    assert any(row["assumption"] == "acceptance" for row in own.why.sensitivity)
    draft = cm.plan(
        "llama-3.1-70b", "h100-sxm", traffic, cm.Limits(tpot_s=0.05), precisions=["fp8"],
        speculation=Speculation(tokens=3, acceptance=0.7, draft="gpt2"),
    )  # fmt: skip
    assert draft.best is not None
    assert all(12 % one.layout.tp == 0 for one in draft.deployments)
    assert "draft weights" in draft.best.service.memory.rows


# mistakes

WRONG: tuple[Any, ...] = (0, -1, float("nan"), float("inf"), True, "four", [], {}, 1j, 10**30, object())


def wrong_plan(**given: Any) -> Plan:
    asked = {"model": "llama-3.1-8b", "accelerators": "h100-sxm", "traffic": TRAFFIC} | given
    return cm.plan(**asked)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: type(wrong).__name__ + repr(wrong)[:6])
@pytest.mark.parametrize(
    "name",
    ["model", "accelerators", "traffic", "limits", "objective", "precisions", "modes", "layouts", "batches", "prices",
     "speculation", "chunk", "imbalance"],
)  # fmt: skip
def test_mistakes_are_one_line(name: str, wrong: Any) -> None:
    if (name, wrong) == ("prices", {}):
        return
    for value in (wrong, [wrong]):
        with pytest.raises(cm.CostModelError) as error:
            wrong_plan(**{name: value})
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [*WRONG, None], ids=lambda wrong: type(wrong).__name__ + repr(wrong)[:6])
@pytest.mark.parametrize("name", ["ttft_s", "tpot_s", "level", "devices", "nodes", "usd_per_hour"])
def test_limits_that_are_none(name: str, wrong: Any) -> None:
    if wrong is None and name != "level":
        assert getattr(cm.Limits(**{name: None}), name) is None
        return
    with pytest.raises(cm.CostModelError) as error:
        cm.Limits(**{name: wrong})
    assert "\n" not in str(error.value)


def test_more_mistakes() -> None:
    for asked, told in (
        ({"model": "llama-3.1-8c"}, "did you mean llama-3.1-8b"),
        ({"accelerators": ["h100-sxm", "h20O"]}, "did you mean h20"),
        ({"accelerators": ["h100-sxm", "h100-sxm"]}, "names one twice"),
        ({"accelerators": ["h20"]}, "no listed price; give prices"),
        ({"prices": {"h200": 3.0}}, "not among the accelerators"),
        ({"prices": {"h100-sxn": 3.0}}, "did you mean h100-sxm"),
        ({"prices": {"h100-sxm": float("nan")}}, "more than 0"),
        ({"objective": "dollars"}, "known: usd, devices, latency"),
        ({"objective": "latencies"}, "did you mean latency"),
        ({"layouts": [cm.Parallel(tp=3)]}, "tp 3 does not divide the 32 heads"),
        ({"layouts": [cm.Parallel(ep=2, tp=2)]}, "has none; leave ep at 1"),
        ({"precisions": ["fp9"]}, "did you mean fp8"),
        ({"precisions": [("fp8", "int3")]}, "cache cannot be stored as"),
        ({"traffic": Traffic(requests_per_s=1, output=1), "limits": cm.Limits(tpot_s=0.05)}, "outputs of a single token"),
        ({"limits": cm.Limits(nodes=9, devices=8)}, "9 nodes need more than 8 devices"),
        ({"accelerators": "h20", "limits": cm.Limits(usd_per_hour=5.0), "objective": "devices"}, "no listed price"),
        ({"accelerators": "rtx-4090", "layouts": [cm.Parallel(tp=2)]}, "link_bytes_per_s"),
    ):
        with pytest.raises(cm.CostModelError, match=told):
            wrong_plan(**asked)
    found = wrong_plan(accelerators="h20", objective="devices", limits=cm.Limits(ttft_s=5))
    assert found.best is not None
    assert found.best.usd_per_hour is None
    assert found.best.usd_per_mtok_out is None
    assert wrong_plan(accelerators="h20", prices={"h20": 1.2}).best.usd_per_hour > 0


def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "planning.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "planning.md", "exec"), {})  # noqa: S102 - our own page
    assert "The next best" in capsys.readouterr().out
    commands = re.findall(r"^    costmodel (.*)$", page, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["plan", "serve"]
    for command in commands:
        ran(command, capsys)


# the command line

PLAN = "plan llama-3.1-8b --on h100-sxm --on a100-80gb --rate 6 --prompt 3000 --output 300 --ttft 1.2 --tpot 0.04 --precision fp8"


def ran(command: str, capsys: pytest.CaptureFixture[str], status: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as end:
        main(command.split())
    out = capsys.readouterr()
    assert end.value.code == status, out.err
    return out.out, out.err


@pytest.mark.parametrize("form", ["table", "json", "csv", "md"])
def test_plans_in_every_form(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = ran(f"{PLAN} -f {form}", capsys)
    best = cm.plan("llama-3.1-8b", ["h100-sxm", "a100-80gb"], TRAFFIC, LIMITS, precisions=["fp8"])
    assert best.best is not None
    if form == "json":
        data = json.loads(out)
        assert list(data) == ["best", "table", "front", "why"]
        assert data["best"] == json.loads(json.dumps([best.best.row]))
        assert len(data["table"]) == len(best.rows)
    else:
        assert best.best.layout.name in out
        assert f"{best.best.batch:,}" in out
    assert str(best.why) in err


def test_a_plan_with_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = ran(
        "plan deepseek-v3 --on h20 --price h20=1.2 --rate 2 --prompt p50=900,p90=4k,max=16k --output 500 --cached 0.5 --level 0.5 "
        "--objective devices --precision fp8/fp8 --mode colocated --speculate 1:0.8 --budget 500 --devices 64 --nodes 8 "
        "--chunk 1024 --imbalance 1.2 -f json",
        capsys,
    )
    found = json.loads(out)
    assert found["best"][0]["devices"] <= 64
    assert {row["mode"] for row in found["table"]} == {"colocated"}


def test_no_plan_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = ran("plan llama-3.1-70b --on h100-sxm --rate 50 --devices 2 -f json", capsys)
    assert list(json.loads(out)) == ["nearest", "front", "why"]
    assert "Nothing meets the limits: it takes" in err
    out, err = ran("plan deepseek-v3 --on l4 --rate 5 --devices 2", capsys)
    assert "candidates that fit" in out
    assert "times what a device has" in err


@pytest.mark.parametrize("form", ["table", "json", "csv", "md"])
def test_services_in_every_form(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = ran(f"serve llama-3.1-70b --on h100-sxm --tp 4 --rate 2 --precision fp8 --replicas 2 -f {form}", capsys)
    found = cm.serve(
        "llama-3.1-70b", "h100-sxm", Traffic(requests_per_s=2), cm.Parallel(tp=4), 2, 64, "fp8"
    )  # fmt: skip
    if form == "json":
        data = json.loads(out)
        assert data["service"][0]["ttft_p90_s"] == found.ttft_s[0.9]
        assert {row["row"]: row["bytes"] for row in data["memory"]} == found.memory.rows
    assert "ttft" in out
    assert "hold for that share" in err
    out, err = ran("serve llama-3.1-70b --on h100-sxm --tp 4 --rate 200 --precision fp8 -f json", capsys)
    assert json.loads(out)["service"][0]["ttft_p50_s"] is None
    assert "requests pile up" in err
    out, _ = ran(
        "serve llama-3.1-8b --on h100-sxm --rate 2 --mode disaggregated --prefill-tp 2 --prefill-replicas 2 --speculate "
        "2:0.7:qwen3-0.6b -f json",
        capsys,
    )
    assert json.loads(out)["service"][0]["devices"] == 5


@pytest.mark.parametrize(
    "command",
    [
        "plan llama-3.1-8b --on h100-sxm --rate nan", "plan llama-3.1-8b --on h100-sxm --rate 0", "plan llama-3.1-8b --rate 1",
        "plan llama-3.1-8b --on h100-sxm", "plan llama-3.1-8b --on h100-sxn --rate 1", "plan llama-3.1-8c --on h100-sxm --rate 1",
        "plan llama-3.1-8b --on h100-sxm --rate 1 --price h100-sxm", "plan llama-3.1-8b --on h100-sxm --rate 1 --price h100-sxm=-1",
        "plan llama-3.1-8b --on h100-sxm --rate 1 --price a=1", "plan llama-3.1-8b --on h100-sxm --rate 1 --speculate 1",
        "plan llama-3.1-8b --on h100-sxm --rate 1 --speculate 1:0.8",
        "plan llama-3.1-8b --on h100-sxm --rate 1 --speculate 1.5:0.8",
        "plan llama-3.1-8b --on h100-sxm --rate 1 --mode both", "plan llama-3.1-8b --on h100-sxm --rate 1 --cached 1.0",
        "plan llama-3.1-8b --on h100-sxm --rate 1 --output 1 --tpot 0.05", "plan llama-3.1-8b --on h100-sxm --rate 1 --prompt many",
        "plan llama-3.1-8b --on h100-sxm --rate 1 --precision fp9", "plan llama-3.1-8b --on h100-sxm --rate 1 --level 1",
        "plan llama-3.1-8b --on h100-sxm --rate 1 --nodes 3 --devices 2", "plan llada-8b --on h100-sxm --rate 1",
        "plan llama-3.1-8b --on h100-sxm --rate 1 --ttft inf", "serve llama-3.1-8b --on h100-sxm --rate 1 --tp 3",
        "serve llama-3.1-8b --on h100-sxm --rate 1 --mode apart", "serve llama-3.1-8b --on h100-sxm --rate -1",
        "serve llama-3.1-8b --on h100-sxm --rate 1 --prefill-tp 2", "serve llama-3.1-8b --on h100-sxm --rate 1 --replicas 0",
        "serve llama-3.1-8b --on h100-sxm --rate 1 --chunk 0", "serve trm-maze --on h100-sxm --rate 1",
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = ran(command, capsys, 2)
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
