"""The queue model beside exact answers, brute force, and a discrete-event simulation."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import costmodel as cm
from costmodel.serving.batching import interleaved, steady_batch
from costmodel.serving.queueing import _first_residual, erlang_c, queue
from tests.simulation import Run, simulate_engines, simulate_servers, traffic

LENGTHS = {
    "constant": cm.Lengths.of(2000),
    "uniform": cm.Lengths.of("min=500,max=3000"),
    "typical": cm.Lengths.of("p50=900,p90=4000,p99=16000"),
}
LEVELS = [0.5, 0.9, 0.99]
SECOND = 1e-3
"""Seconds a prompt token takes in the plain queue."""


def step_s(batch: Any, new: Any, context: Any) -> Any:
    """An engine's step: a fixed part, the sequences that decode, the prompt's tokens, and their attention."""
    return 0.01 + 2e-5 * batch + 2e-5 * new + 1e-9 * new * context


# closed forms


@pytest.mark.parametrize("servers", [1, 2, 5, 40])
@pytest.mark.parametrize("rho", [0.05, 0.5, 0.95])
def test_erlang_c_is_its_sum(servers: int, rho: float) -> None:
    load = servers * rho
    last = load**servers / math.factorial(servers) / (1 - rho)
    assert erlang_c(servers, rho) == pytest.approx(last / (sum(load**k / math.factorial(k) for k in range(servers)) + last))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=list(LENGTHS))
@pytest.mark.parametrize("rho", [0.1, 0.6, 0.95])
def test_one_server_is_pollaczek_khinchine(lengths: cm.Lengths, rho: float) -> None:
    values, weights = lengths.points(256)
    solved = queue(rho / lengths.mean, values, weights)
    assert solved.utilisation == pytest.approx(rho)
    assert solved.mean_wait_s == pytest.approx(rho / lengths.mean * lengths.second_moment / 2 / (1 - rho), rel=1e-3)
    assert solved.mean_waiting == pytest.approx(rho / lengths.mean * solved.mean_wait_s)


def exponential(n: int = 4000) -> tuple[Any, Any]:
    """Means of n equal shares of the exponential distribution of mean 1."""
    cuts = np.append(-np.log1p(-np.arange(n) / n), np.inf)
    below = np.append((cuts[:-1] + 1) * np.exp(-cuts[:-1]), 0.0)
    return -np.diff(below) * n, np.full(n, 1 / n)


@pytest.mark.parametrize("servers", [1, 3, 8])
def test_exponential_services_are_erlang(servers: int) -> None:
    solved = queue(0.8 * servers, *exponential(), servers)
    assert solved.mean_wait_s == pytest.approx(erlang_c(servers, 0.8) / (servers * 0.2), rel=1e-3)
    for level in (0.9, 0.99):
        exact = math.log(erlang_c(servers, 0.8) / (1 - level)) / (servers * 0.2)
        assert solved.wait_s(level) == pytest.approx(exact, rel=2e-3)
    assert queue(0.8, *exponential()).response_s(0.9) == pytest.approx(math.log(10) / 0.2, rel=3e-3)  # M/M/1: exponential


@pytest.mark.parametrize("servers", [1, 2, 8])
def test_the_first_of_several_residuals(servers: int) -> None:
    service, weights = np.array([1.0, 1.0, 2.5, 7.0]), np.array([0.3, 0.2, 0.4, 0.1])
    t = (np.arange(700_000) + 0.5) * 1e-5
    left = sum(w * np.maximum(s - t, 0) for s, w in zip(service, weights, strict=True)) / (service @ weights)
    mean, square = _first_residual(service, weights, np.array(float(servers)))
    assert float(mean) == pytest.approx((left**servers).sum() * 1e-5, rel=1e-4)
    assert float(square) == pytest.approx((2 * t * left**servers).sum() * 1e-5, rel=1e-4)


@cache
def exact_response(name: str, rho: float) -> tuple[float, ...]:
    """Quantiles of M/G/1's wait and service, in mean services: a geometric sum of residual services, by Fourier series."""
    lengths, cells = LENGTHS[name], 2**16
    services = np.sort(lengths.at((np.arange(100_000) + 0.5) / 100_000) / lengths.mean)
    width = services[-1] / 400
    own = np.bincount(np.rint(services / width).astype(int), minlength=cells) / len(services)
    residual = 1 - np.searchsorted(services, (np.arange(cells) + 0.5) * width, side="right") / len(services)
    half = np.exp(-1j * np.pi * np.fft.rfftfreq(cells))  # a cell's residual stands at its middle
    series = np.fft.rfft(residual / residual.sum()) * half
    below = np.cumsum(np.fft.irfft((1 - rho) / (1 - rho * series) * np.fft.rfft(own), cells))
    return tuple(float(np.searchsorted(below, level) * width) for level in LEVELS)


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("rho", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
def test_one_server_beside_its_exact_distribution(name: str, rho: float) -> None:
    values, weights = LENGTHS[name].points()
    solved = queue(rho, values / LENGTHS[name].mean, weights)
    for level, exact in zip(LEVELS, exact_response(name, rho), strict=True):
        assert solved.response_s(level) == pytest.approx(exact, rel=0.06), level


# beside the simulation


@cache
def simulated(name: str, servers: int, rho: float) -> Run:
    rate, count = rho * servers / LENGTHS[name].mean / SECOND, 60_000 if rho > 0.8 else 20_000
    requests = traffic(rate, count, LENGTHS[name], cm.Lengths.of(1), seed=5)
    return simulate_servers(requests, lambda prompt: prompt * SECOND, servers)


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("servers", [1, 2, 4, 8])
@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
def test_servers_beside_the_simulation(name: str, servers: int, rho: float) -> None:
    run, (values, weights) = simulated(name, servers, rho), LENGTHS[name].points()
    mean = LENGTHS[name].mean * SECOND
    solved = queue(rho * servers / mean, values * SECOND, weights, servers)
    assert run.busy_s / servers / run.ended_s == pytest.approx(solved.utilisation, rel=2e-3)
    waits = [request.started_s - request.arrived_s for request in run.counted]
    assert solved.mean_wait_s == pytest.approx(np.mean(waits), rel=0.1, abs=0.03 * mean)
    for level, seen in zip(LEVELS, run.ttft(LEVELS), strict=True):
        assert solved.response_s(level) == pytest.approx(seen, rel=0.12), level


@cache
def engines(name: str, chunk: int | None, rho: float, count: int) -> tuple[Run, Any]:
    prompt, output = LENGTHS[name], cm.Lengths.of("min=10,max=190")
    alone = interleaved(1e-3, 99, prompt.points(), step_s, 512, chunk)
    rate = rho / alone.prefill.utilisation * 1e-3 * count
    requests = 40_000 if name == "typical" else 20_000
    run = simulate_engines(traffic(rate, requests, prompt, output, seed=7), step_s, 512, chunk, count)
    return run, interleaved(rate, output.mean - 1, prompt.points(), step_s, 512, chunk, count)


@pytest.mark.parametrize("name", ["constant", "typical"])
@pytest.mark.parametrize("chunk", [None, 512, 2048])
@pytest.mark.parametrize(("rho", "count"), [(0.3, 1), (0.6, 1), (0.7, 4)])
def test_engines_beside_the_simulation(name: str, chunk: int | None, rho: float, count: int) -> None:
    run, model = engines(name, chunk, rho, count)
    assert run.busy_s / count / run.ended_s == pytest.approx(model.prefill.utilisation, rel=0.02)
    assert run.tpot == pytest.approx(model.decode.step_s, rel=0.04)
    assert run.in_flight / count / run.ended_s == pytest.approx(model.decode.in_flight, rel=0.04)
    for level, seen in zip(LEVELS, run.ttft(LEVELS), strict=True):
        assert model.ttft_s(level) == pytest.approx(seen, rel=0.12, abs=0.35 * model.prefill.mean_service_s), level


def whole_and_in_order(run: Run) -> None:
    """Tokens in are tokens served, every request once, in the order they came."""
    assert run.prefilled == sum(request.prompt for request in run.requests)
    assert run.decoded == sum(request.output for request in run.requests)
    assert all((request.prefilled, request.produced) == (request.prompt, request.output) for request in run.requests)
    assert all(request.arrived_s <= request.started_s < request.first_s <= request.done_s for request in run.requests)
    assert run.starts == list(range(len(run.requests)))


lengths = st.lists(st.integers(1, 3000), min_size=1, max_size=5).map(cm.Lengths.sample)


@settings(deadline=None, max_examples=40)
@given(
    lengths,
    lengths,
    st.floats(0.1, 300),
    st.integers(1, 4),
    st.integers(1, 20),
    st.sampled_from([None, 1000, 64]),
    st.integers(0, 99),
)
def test_the_simulation_loses_nothing(
    prompt: cm.Lengths, output: cm.Lengths, rate: float, count: int, maximum: int, chunk: int | None, seed: int
) -> None:
    short = cm.Lengths.of(max(1, int(output.mean) % 50))
    whole_and_in_order(simulate_engines(traffic(rate, 60, prompt, short, seed), step_s, maximum, chunk, count))
    whole_and_in_order(simulate_servers(traffic(rate, 60, prompt, cm.Lengths.of(1), seed), lambda tokens: tokens * 1e-3, count))


# decoding


def product_form(rate: float, steps: float, seconds: Any, upto: int) -> float:
    """Mean sequences in flight of a shared processor (Cohen 1979): p(n) proportional to the product of rate steps t(j) / j."""
    logs = np.cumsum([math.log(rate * steps * seconds(j) / j) for j in range(1, upto)])
    weights = np.exp(np.insert(logs, 0, 0.0) - logs.max())
    return float(np.arange(upto) @ weights / weights.sum())


@given(st.floats(0.01, 3), st.floats(1, 1000), st.floats(0.001, 0.1), st.floats(0, 1e-3))
def test_a_straight_step_time_settles_exactly(rate: float, steps: float, fixed: float, each: float) -> None:
    found = steady_batch(rate, steps, lambda batch: fixed + each * batch, 100_000)
    growth = 1 - rate * steps * each
    assert found.saturated == (growth <= 0 or rate * steps * (fixed + each * 100_000) > 99_999)
    if not found.saturated:
        assert found.in_flight == pytest.approx(rate * steps * (fixed + each) / growth, rel=1e-6)
        assert found.in_flight == pytest.approx(rate * steps * found.step_s, rel=1e-6)


@pytest.mark.parametrize("rate", [0.1, 2.0, 8.0, 15.0])
def test_a_bent_step_time_settles_near_the_product_form(rate: float) -> None:
    def seconds(batch: Any) -> Any:
        return np.maximum(0.01, 0.0002 * batch) + 0.0001 * batch**0.5

    found = steady_batch(rate, 200, seconds, 4096)
    assert found.in_flight == pytest.approx(product_form(rate, 200, seconds, 2000), rel=0.03)


def test_a_table_is_a_function() -> None:
    batches = np.arange(1, 65)
    rates = np.array([0.5, 3.0, 6.0, 40.0])
    table = steady_batch(rates, 255, 0.02 + 0.0003 * batches, 64)
    function = steady_batch(rates, 255, lambda batch: 0.02 + 0.0003 * batch, 64)
    rows = steady_batch(rates, 255, np.tile(0.02 + 0.0003 * batches, (4, 1)), [64] * 4)
    for name in ("batch", "in_flight", "step_s", "saturated"):
        assert getattr(table, name).tolist() == getattr(function, name).tolist() == getattr(rows, name).tolist()
    assert table.saturated.tolist() == [False, False, False, True]
    for i, rate in enumerate(rates):
        enough = [n for n in batches if n - 1 >= rate * 255 * (0.02 + 0.0003 * n)]
        assert not enough if table.saturated[i] else enough[0] - 1 <= table.batch[i] <= enough[0]


# the shape of answers

rates = st.floats(0.01, 2)
services = st.lists(st.floats(0.01, 5), min_size=1, max_size=6).map(sorted)


@settings(deadline=None)
@given(rates, services, st.integers(1, 6), st.floats(0.02, 0.995))
def test_quantiles_and_shares_agree(rate: float, service: list[float], servers: int, level: float) -> None:
    weights = np.full(len(service), 1 / len(service))
    solved = queue(rate, service, weights, servers)
    if solved.utilisation >= 1:
        assert (solved.response_s(level), solved.wait_s(level), solved.mean_wait_s) == (math.inf,) * 3
        assert solved.share_beyond(1.0) == 1
        return
    found = solved.response_s(level)
    assert solved.share_beyond(found * (1 + 1e-6)) - 1e-6 <= 1 - level <= solved.share_beyond(found * (1 - 1e-6)) + 1e-6
    assert solved.response_s(level, step_s=0.5) >= found * 0.98
    assert solved.wait_s(level) <= found * (1 + 1e-6)
    more = queue(min(rate * 1.1, rate / solved.utilisation * 0.999), service, weights, servers)
    assert more.mean_wait_s >= solved.mean_wait_s * (1 - 1e-9)
    assert queue(rate, service, weights, servers + 1).mean_wait_s <= solved.mean_wait_s * (1 + 1e-9)


def test_arrays_are_their_candidates() -> None:
    rng = np.random.default_rng(3)
    values, weights = LENGTHS["typical"].points(16)
    rate, servers, scale = rng.uniform(0.1, 1.2, 3000), rng.integers(1, 5, 3000), rng.uniform(0.5, 2, 3000)
    many = queue(rate * servers, scale[:, None] * values / 2000, weights, servers)
    limits, tails = many.share_beyond(2.0, 0.1), many.response_s(0.99, 0.1)
    for i in range(0, 3000, 301):
        one = queue(rate[i] * servers[i], scale[i] * values / 2000, weights, int(servers[i]))
        assert one.response_s(0.99, 0.1) == pytest.approx(tails[i], rel=1e-6)
        assert one.share_beyond(2.0, 0.1) == pytest.approx(limits[i], rel=1e-9)
        assert one.mean_wait_s == pytest.approx(many.mean_wait_s[i], rel=1e-12)
    assert ((tails <= 2.0) == (limits <= 0.01)).all()
    assert np.isinf(tails).sum() == (many.utilisation >= 1).sum() > 0
    batch = interleaved(np.array([1.0, 5.0, 500.0]), 99, LENGTHS["typical"].points(), step_s, [64, 64, 64], 512)
    assert batch.saturated.tolist() == [False, False, True]
    assert batch.ttft_s(0.9)[1] == pytest.approx(interleaved(5.0, 99, LENGTHS["typical"].points(), step_s, 64, 512).ttft_s(0.9))
    assert (batch.late(1.0)[2], batch.ttft_s(0.5)[2]) == (1, math.inf)


def test_a_prompt_within_a_chunk_passes_whole() -> None:
    prompt = LENGTHS["uniform"].points()
    chunked, longer = (interleaved(2.0, 99, prompt, step_s, 64, chunk) for chunk in (4096, 100_000))
    assert chunked.ttft_s(0.9) == longer.ttft_s(0.9)
    assert interleaved(2.0, 99, prompt, step_s, 64, 256).decode.step_s < chunked.decode.step_s


def test_a_hundred_points_are_what_thirty_two_say() -> None:
    solved = [queue(0.7, points / 2272, weights) for points, weights in map(LENGTHS["typical"].points, (32, 512))]
    for level in LEVELS:
        assert solved[0].response_s(level) == pytest.approx(solved[1].response_s(level), rel=0.01)


WRONG: tuple[Any, ...] = (0, -1.0, float("nan"), True, "4", None, [], [1.0, float("nan")], 1j, [[1], [1, 2]], {})


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_mistakes_are_one_line(wrong: Any) -> None:
    calls = [
        lambda: queue(wrong, 1.0), lambda: queue(1.0, wrong), lambda: erlang_c(wrong, 0.5), lambda: queue(1.0, 1.0, servers=wrong),
        lambda: queue(1.0, 1.0).share_beyond(wrong), lambda: steady_batch(wrong, 10, lambda batch: batch, 8),
        lambda: steady_batch(1, wrong, lambda batch: batch, 8), lambda: steady_batch(1, 1, lambda batch: batch, wrong),
        lambda: steady_batch(1, 1, wrong, 8), lambda: steady_batch(1, 1, lambda batch: wrong, 8),
        lambda: interleaved(wrong, 9, LENGTHS["uniform"].points(), step_s, 8),
        lambda: queue(1.0, [1.0, 2.0], 2 if wrong is None else wrong),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(cm.CostModelError) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("level", [0, 1, -1, float("nan"), True, "0.5", None, 99])
def test_what_is_no_level(level: Any) -> None:
    with pytest.raises(cm.CostModelError, match="level"):
        queue(0.5, 1.0).response_s(level)
    with pytest.raises(cm.CostModelError, match="level"):
        queue(0.5, 1.0).wait_s(level)


def test_more_mistakes() -> None:
    for call, told in (
        (lambda: queue(1.0, [2.0, 1.0], [0.5, 0.5]), "rising"),
        (lambda: queue(1.0, [1.0, 2.0], [0.5, 0.6]), "sum to 1"),
        (lambda: queue(1.0, [1.0, 2.0], [1.0]), "last axes"),
        (lambda: queue([1.0, 2.0], [1.0, 2.0, 3.0]), "broadcast"),
        (lambda: queue(1.0, 1.0, servers=1.5), "whole"),
        (lambda: queue(1.0, 1.0, servers=10**9), "whole"),
        (lambda: queue(0.5, 1.0).response_s(0.5, step_s=-1), "step_s"),
        (lambda: steady_batch(1, 1, [0.1, 0.2], 3), "entry for each batch"),
        (lambda: interleaved(1, 9, LENGTHS["uniform"].points(), step_s, 8, chunk=0), "chunk"),
        (lambda: interleaved(1, 9, LENGTHS["uniform"].points(), step_s, 8, chunk=True), "chunk"),
    ):
        with pytest.raises(cm.CostModelError, match=told):
            call()
