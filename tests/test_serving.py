"""What a deployment promises under traffic, beside scalars, loops and a discrete-event simulation."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import costmodel as cm
from costmodel.serving.engines import FEW, Engine, Layouts, Speculation, Traffic, with_room
from costmodel.serving.queueing import queue
from costmodel.serving.services import serve
from costmodel.timing.estimating import formats_of
from tests.simulation import simulate_engines
from tests.simulation import traffic as arrivals

TRAFFIC = Traffic(requests_per_s=4, prompt=3000, output=300)
LLAMA = cm.load("llama-3.1-8b")
FP8 = formats_of("fp8", "bf16")


def engine(traffic: Traffic = TRAFFIC, model: str = "llama-3.1-8b", device: str = "h100-sxm", **others: Any) -> Engine:
    return Engine(cm.load(model), cm.accelerator(device), FP8, traffic, **others)


# traffic


def test_contexts_are_the_mean_over_steps() -> None:
    contexts, weights = TRAFFIC.contexts
    steps = np.arange(3001, 3300)
    assert weights.sum() == pytest.approx(1)
    assert contexts @ weights == pytest.approx(steps.mean(), rel=1e-9)
    mixed = Traffic(requests_per_s=1, prompt="p50=900,p90=4000,max=16k", output="p50=200,max=2k")
    rng = np.random.default_rng(1)
    prompts, outputs = mixed.prompt.draw(rng.random(200_000)), mixed.output.draw(rng.random(200_000))
    brute = ((prompts + outputs / 2) * (outputs - 1)).sum() / (outputs - 1).sum()
    assert mixed.contexts[0] @ mixed.contexts[1] == pytest.approx(brute, rel=0.02)


def test_what_is_left_of_a_prompt() -> None:
    for cached, prompt, left in ((0.0, 4096, 4096), (0.5, 4095, 2048), (0.999, 10, 1), (0.25, 1, 1)):
        tokens, new, weights = Traffic(requests_per_s=1, prompt=prompt, cached_fraction=cached).prompts
        assert (tokens.tolist(), new.tolist(), weights.tolist()) == ([prompt], [left], [1.0])
    assert Traffic(requests_per_s=1, prompt=100, output="min=1,max=101").longest == 100 + 91


# an engine's seconds


@pytest.mark.parametrize(
    "layout", [cm.Parallel(), cm.Parallel(tp=4), cm.Parallel(tp=2, pp=2), cm.Parallel(pp=3), cm.Parallel(dp=2, tp=2)]
)
def test_seconds_are_those_of_single_passes(layout: cm.Parallel) -> None:
    found, columns = engine(), Layouts.of(LLAMA, [layout])
    whole = cm.estimate("llama-3.1-8b", "h100-sxm", None, layout, 24 * layout.dp * layout.pp, 3000, 300, "fp8")
    assert found.step_s(columns, np.array([24.0]))[0] == pytest.approx(whole.tpot_s, rel=1e-9)
    alone = cm.estimate("llama-3.1-8b", "h100-sxm", None, layout, layout.dp, 3000, 300, "fp8")
    assert found.prompt_s(columns)[0, 0] == pytest.approx(alone.ttft_s, rel=1e-9)
    balance = alone.ttft_s / cm.time_pass("llama-3.1-8b", "h100-sxm", 1, 3000, 3000, FP8, layout).seconds
    few = cm.time_pass("llama-3.1-8b", "h100-sxm", int(FEW), 1, 1, FP8, layout).seconds
    assert found.weights_s(columns)[0] == pytest.approx(few * balance, rel=1e-9)


@pytest.mark.parametrize(
    ("prompt", "cached", "chunk"), [(3000, 0.0, 2048), (5000, 0.5, 1000), (2000, 0.0, 2048), (4096, 0.0, 2048)]
)
def test_pieces_are_their_passes(prompt: int, cached: float, chunk: int) -> None:
    found = engine(Traffic(requests_per_s=1, prompt=prompt, cached_fraction=cached), chunk=chunk)
    seconds, count = found.pieces_s(Layouts.of(LLAMA, [cm.Parallel()]))
    new = int(np.ceil(prompt * (1 - cached)))
    edges = [*range(0, new, chunk), new]
    passes = [(after - before, prompt - new + after) for before, after in pairwise(edges)]
    brute = [cm.time_pass("llama-3.1-8b", "h100-sxm", 1, tokens, context, FP8).seconds for tokens, context in passes]
    assert count.tolist() == [len(passes)]
    assert seconds[0, 0] == pytest.approx(sum(brute), rel=0.01)  # all but the last at their mean context


def test_the_move_of_a_cache_goes_over_the_fewer_links() -> None:
    found = engine()
    kept = LLAMA.cache_bytes(context=3000, precision=FP8)
    network = cm.accelerator("h100-sxm").network_bytes_per_s
    assert network is not None
    narrow, wide = (Layouts.of(LLAMA, [cm.Parallel(tp=tp)]) for tp in (2, 8))
    for one, other in ((narrow, wide), (wide, narrow)):
        assert found.transfer_s(one, other)[0] == pytest.approx(kept / 2 / network, rel=1e-12)


# guesses


@given(st.integers(1, 8), st.floats(0, 1))
def test_tokens_of_a_step_are_those_of_a_loop(tokens: int, acceptance: float) -> None:
    rng = np.random.default_rng(tokens)
    right = rng.random((20_000, tokens)) < acceptance
    brought = 1 + np.cumprod(right, axis=1).sum(axis=1)  # the first wrong guess ends a step, with one token of the model's own
    assert Speculation(tokens=tokens, acceptance=acceptance).tokens_per_step == pytest.approx(brought.mean(), abs=0.05)


def test_a_step_with_guesses_is_a_pass_that_checks_them() -> None:
    plain, guessing = engine(), engine(speculation=Speculation(tokens=3, acceptance=0.7, draft="llama-3.1-8b"))
    columns, batch = Layouts.of(LLAMA, [cm.Parallel(pp=2)]), np.array([16.0])
    drafts = 3 * 2 * plain.step_s(Layouts.of(LLAMA, [cm.Parallel()]), batch)  # of the same model, on the last of two stages
    checked = guessing.step_s(columns, batch) - drafts
    assert plain.step_s(columns, batch) < checked < 4 * plain.step_s(columns, batch)
    assert guessing.prompt_s(columns)[0, 0] == pytest.approx(
        plain.prompt_s(columns)[0, 0] + 2 * plain.prompt_s(Layouts.of(LLAMA, [cm.Parallel()]))[0, 0]
    )


def test_memory_of_guesses() -> None:
    hybrid = Traffic(requests_per_s=1, prompt=1000, output=100)
    layout, tokens = cm.Parallel(), 3
    plain = engine(hybrid, "qwen3-next-80b-a3b", "b200").memory(layout, 8).rows
    drafted = engine(
        hybrid, "qwen3-next-80b-a3b", "b200", speculation=Speculation(tokens=tokens, acceptance=0.7, draft="qwen3-0.6b")
    ).memory(layout, 8)
    assert drafted.rows["state"] == plain["state"] * (1 + tokens)
    assert drafted.rows["draft weights"] == cm.load("qwen3-0.6b").weight_bytes(precision=FP8)
    assert drafted.rows["draft cache"] == cm.load("qwen3-0.6b").cache_bytes(context=1100, batch=8, view="engine")
    assert drafted.used_bytes > sum(plain.values()) + drafted.rows["draft weights"]
    own = engine(hybrid, "deepseek-v3", "b200", speculation=Speculation(tokens=1, acceptance=0.8)).memory(layout, 8).rows
    without = engine(hybrid, "deepseek-v3", "b200").memory(layout, 8).rows
    assert own["weights"] > without["weights"]
    assert own["cache"] > without["cache"]


def test_guesses_that_a_model_cannot_make() -> None:
    with pytest.raises(cm.CostModelError, match="has 1 multi-token-prediction modules, not 2"):
        engine(model="deepseek-v3", speculation=Speculation(tokens=2, acceptance=0.8))
    with pytest.raises(cm.CostModelError, match="has 0 multi-token-prediction modules"):
        engine(speculation=Speculation(tokens=1, acceptance=0.8))
    with pytest.raises(cm.CostModelError, match="did you mean"):
        engine(speculation=Speculation(tokens=1, acceptance=0.8, draft="llama-3.1-8c")).draft  # noqa: B018 - looked up when asked
    guesses = Speculation(tokens=1, acceptance=0.8, draft="gpt2")
    with pytest.raises(cm.CostModelError, match="tp 8 does not divide the 12 heads"):
        serve("llama-3.1-70b", "h100-sxm", TRAFFIC, cm.Parallel(tp=8), speculation=guesses)


# promises beside a simulation


def stepper(served: Engine, layout: cm.Parallel, most: int) -> Any:
    """Seconds of an engine's step as the simulation asks for them: a prompt's piece, and what sequences beside it add."""
    columns = Layouts.of(served.model, [layout])
    batches = np.unique(np.round(np.geomspace(1, most, 48)))
    table = np.interp(np.arange(most + 1), batches, served.step_s(columns[np.zeros(len(batches), dtype=int)], batches))
    weights, known = float(served.weights_s(columns)[0]), {}

    def seconds(batch: int, new: int, context: int) -> float:
        if not new:
            return float(table[batch])
        if (new, context) not in known:
            known[new, context] = float(served.pass_s(columns, float(new), float(context))[0])
        return known[new, context] + (max(float(table[batch]) - weights, 0.0) if batch else 0.0)

    return seconds


CASES = {
    "steady": ("llama-3.1-8b", "h100-sxm", Traffic(requests_per_s=10, prompt=2048, output=256), cm.Parallel(), 1, 80),
    "several": ("llama-3.1-8b", "l40s", Traffic(requests_per_s=5, prompt=2048, output=512), cm.Parallel(), 3, 120),
    "few places": ("llama-3.1-8b", "h100-sxm", Traffic(requests_per_s=3, prompt=2048, output=256), cm.Parallel(), 1, 8),
    "one place each": ("llama-3.1-8b", "h100-sxm", Traffic(requests_per_s=1, prompt=2048, output=256), cm.Parallel(), 4, 1),
    "places and tails": (
        "llama-3.1-8b", "h100-sxm", Traffic(requests_per_s=4, prompt="p50=900,p90=4000,max=16k", output="p50=200,p90=500,max=2k"),
        cm.Parallel(), 1, 16,
    ),
    "tails": (
        "llama-3.1-8b", "l40s",
        Traffic(requests_per_s=8, prompt="p50=900,p90=4000,max=16k", output="p50=200,p90=500,max=2k"), cm.Parallel(), 4, 120,
    ),
    "mixture": ("qwen3-30b-a3b", "h100-sxm", Traffic(requests_per_s=10, prompt=2048, output=512), cm.Parallel(dp=2, ep=2), 1, 400),
    "recurrent": ("mamba-2.8b", "l4", Traffic(requests_per_s=10, prompt=1000, output=200), cm.Parallel(), 3, 100),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_service_is_what_a_simulation_sees(case: Any, request: pytest.FixtureRequest) -> None:
    model, device, traffic, layout, replicas, batch = case
    found = serve(model, device, traffic, layout, replicas, batch, FP8)
    served = engine(traffic, model, device)
    streams, most = replicas * layout.dp * layout.pp, found.places // (layout.dp * layout.pp)
    count = 8000 if traffic.prompt.constant else 4000  # every length has seconds of its own
    requests = arrivals(traffic.requests_per_s, count, traffic.prompt, traffic.output, 1)
    run = simulate_engines(requests, stepper(served, layout, most), most, served.chunk, streams)
    assert (run.prefilled, run.decoded) == (sum(r.prompt for r in requests), sum(r.output for r in requests))
    assert not found.saturated
    assert found.fits
    assert found.places <= batch
    scarce = "place" in request.node.callspec.id
    assert any("wait for a place" in note for note in found.notes) == scarce
    assert found.tpot_s == pytest.approx(run.tpot, rel=0.05)
    assert found.prefill_utilisation == pytest.approx(run.busy_s / run.ended_s / streams, abs=0.06)
    assert found.batch == pytest.approx(run.in_flight / run.ended_s / streams * layout.dp * layout.pp, rel=0.12)
    for level, seconds, share in zip((0.5, 0.9, 0.99), run.ttft([0.5, 0.9, 0.99]), (0.25, 0.2, 0.25), strict=True):
        assert found.ttft_s[level] == pytest.approx(seconds, rel=0.4 if scarce else share, abs=0.02)
    seconds = requests[-1].arrived_s
    tokens = found.output_tokens_per_s_per_device * found.devices
    assert tokens == pytest.approx(sum(r.output for r in requests) / seconds, rel=0.02)


def test_a_simulation_with_guesses() -> None:
    """A guessed step takes its own time and brings several tokens; the simulation's steps stand for steps."""
    guesses = Speculation(tokens=2, acceptance=0.7, draft="qwen3-0.6b")
    traffic = Traffic(requests_per_s=6, prompt=1500, output=440)
    found = serve("qwen3-8b", "h100-sxm", traffic, None, 1, 120, FP8, speculation=guesses)
    served, steps = engine(traffic, "qwen3-8b", speculation=guesses), round(1 + 439 / guesses.tokens_per_step)
    requests = arrivals(6, 6000, traffic.prompt, cm.Lengths.of(steps), 1)
    run = simulate_engines(requests, stepper(served, cm.Parallel(), 120), 120, served.chunk)
    assert found.tpot_s == pytest.approx(run.tpot / guesses.tokens_per_step, rel=0.05)
    assert found.ttft_s[0.9] == pytest.approx(run.ttft([0.9])[0], rel=0.15)


def test_pools_apart_are_two_queues() -> None:
    apart = cm.Parallel(tp=2)
    found = serve("llama-3.1-8b", "h100-sxm", TRAFFIC, None, 2, 64, FP8, mode="disaggregated", prefill=apart, prefill_replicas=2)
    prefill = cm.estimate("llama-3.1-8b", "h100-sxm", None, apart, 1, 3000, 1, FP8).ttft_s
    waiting = queue(4.0, prefill, servers=2)
    assert found.prefill_s == pytest.approx(prefill, rel=1e-9)
    assert found.ttft_s[0.99] == pytest.approx(waiting.response_s(0.99) + found.transfer_s, rel=1e-6)
    assert found.prefill_utilisation == pytest.approx(waiting.utilisation, rel=1e-9)
    assert found.devices == 2 + 2 * 2
    assert found.batch * 2 == pytest.approx(4 * 299 * found.tpot_s, rel=1e-6)  # Little's law


def test_batches_that_fill_up_are_told() -> None:
    tight = serve("llama-3.1-8b", "h100-sxm", Traffic(requests_per_s=10, prompt=2048, output=256), batch=40, precision=FP8)
    assert not tight.saturated
    assert "room for" in tight.notes[0]
    piled = serve("llama-3.1-8b", "h100-sxm", Traffic(requests_per_s=100, prompt=2048, output=256), batch=32, precision=FP8)
    assert piled.saturated
    assert set(piled.ttft_s.values()) == {np.inf}
    assert 1 < piled.requests_per_s < 100
    assert piled.output_tokens_per_s_per_device == pytest.approx(256 * piled.requests_per_s)
    assert "keep up with" in piled.notes[0]


@pytest.mark.parametrize("mode", ["colocated", "disaggregated"])
@pytest.mark.parametrize("batch", [1, 2, 16, 400])
def test_the_most_requests_are_where_they_begin_to_pile_up(mode: Any, batch: int) -> None:
    most = serve("llama-3.1-8b", "h100-sxm", TRAFFIC, batch=batch, precision=FP8, mode=mode).requests_per_s
    for share, piled in ((0.99, False), (1.01, True)):
        asked = TRAFFIC.model_copy(update={"requests_per_s": share * most})
        found = serve("llama-3.1-8b", "h100-sxm", asked, batch=batch, precision=FP8, mode=mode)
        assert found.saturated == piled
        assert found.requests_per_s == pytest.approx(most, rel=1e-3)


def test_a_place_is_seldom_waited_for_where_there_are_enough() -> None:
    """Room for more sequences shortens the wait for it until none is left, without a step where it is no longer worked out."""
    asked = Traffic(requests_per_s=2, prompt=2048, output=256)
    waits = [serve("llama-3.1-8b", "h100-sxm", asked, batch=batch, precision=FP8).ttft_s[0.99] for batch in range(3, 20)]
    assert all(later <= sooner * 1.001 for sooner, later in pairwise(waits))
    assert waits[0] > 5 * waits[-1]
    assert waits[-2] == pytest.approx(waits[-1], rel=1e-3)


def test_a_cached_prefix_is_attended_to() -> None:
    """Half of a long prompt in the cache saves less than half of it: its keys are still read."""
    long = Traffic(requests_per_s=0.1, prompt=100_000, output=100)
    half = Traffic(requests_per_s=0.1, prompt=100_000, output=100, cached_fraction=0.5)
    whole, left = (serve("llama-3.1-8b", "h100-sxm", each, batch=8, precision=FP8) for each in (long, half))
    short = serve("llama-3.1-8b", "h100-sxm", Traffic(requests_per_s=0.1, prompt=50_000, output=100), batch=8, precision=FP8)
    assert short.ttft_s[0.5] * 1.1 < left.ttft_s[0.5] < whole.ttft_s[0.5]


@settings(deadline=None, max_examples=25)
@given(st.floats(0.5, 500), st.floats(1, 10), st.sampled_from([0.5, 0.9, 0.99]))
def test_room_for_a_shared_processor(decoding: float, growth: float, level: float) -> None:
    """Beside the product form of a step time a + b n, whose numbers are negative binomial: variance mean / (1 - rho)."""
    room = float(with_room(decoding, growth, level))
    rho = 1 - 1 / growth
    shape = decoding * (1 - rho) / rho if rho > 1e-9 else None
    rng = np.random.default_rng(0)
    drawn = rng.poisson(rng.gamma(shape, rho / (1 - rho), 200_000) if shape else np.full(200_000, decoding))
    assert (drawn > room).mean() <= (1 - level) * (0.15 if decoding > 20 else 1)
    assert room >= float(with_room(decoding, 1.0, level)) >= decoding


WRONG: tuple[Any, ...] = (0, -1, float("nan"), float("inf"), True, "four", None, [], {}, 1j, 10**30, object())
CALLS: dict[str, Any] = {
    "rate": lambda wrong: Traffic(requests_per_s=wrong),
    "prompt": lambda wrong: Traffic(requests_per_s=1, prompt=wrong),
    "output": lambda wrong: Traffic(requests_per_s=1, output=wrong),
    "cached": lambda wrong: Traffic(requests_per_s=1, cached_fraction=1.0 if wrong == 0 else wrong),
    "tokens": lambda wrong: Speculation(tokens=wrong, acceptance=0.5),
    "acceptance": lambda wrong: Speculation(tokens=1, acceptance=1.5 if wrong == 0 and wrong is not True else wrong),
    "traffic": lambda wrong: serve("llama-3.1-8b", "h100-sxm", wrong),
    "model": lambda wrong: serve(wrong, "h100-sxm", TRAFFIC),
    "accelerator": lambda wrong: serve("llama-3.1-8b", wrong, TRAFFIC),
    "mode": lambda wrong: serve("llama-3.1-8b", "h100-sxm", TRAFFIC, mode=wrong),
    **{
        name: lambda wrong, name=name: serve("llama-3.1-8b", "h100-sxm", TRAFFIC, **{name: wrong})
        for name in ("replicas", "batch", "precision", "cache_precision", "prefill_replicas", "chunk")
    },
    **{
        name: lambda wrong, name=name: serve("llama-3.1-8b", "h100-sxm", TRAFFIC, **{name: [1] if wrong is None else wrong})
        for name in ("parallel", "prefill", "speculation")
    },
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: type(wrong).__name__ + repr(wrong)[:6])
def test_mistakes_are_one_line(call: Any, wrong: Any) -> None:
    with pytest.raises(cm.CostModelError) as error:
        call(wrong)
    assert "\n" not in str(error.value)


def test_more_mistakes() -> None:
    for call, told in (
        (lambda: serve("llama-3.1-8b", "h100-sxm", TRAFFIC, cm.Parallel(tp=3)), "tp 3 does not divide the 32 heads"),
        (lambda: serve("llama-3.1-8c", "h100-sxm", TRAFFIC), "did you mean llama-3.1-8b"),
        (lambda: serve("llama-3.1-8b", "h100-sxn", TRAFFIC), "did you mean h100-sxm"),
        (lambda: serve("llama-3.1-8b", "rtx-4090", TRAFFIC, cm.Parallel(tp=2)), "link_bytes_per_s"),
        (lambda: serve("llama-3.1-8b", "l4", TRAFFIC, mode="disaggregated"), "network_bytes_per_s"),
        (lambda: serve("llada-8b", "h100-sxm", TRAFFIC), "denoises whole blocks"),
        (lambda: serve("trm-sudoku", "h100-sxm", TRAFFIC), "writes no text"),
        (lambda: serve("llama-3.1-8b", "h100-sxm", TRAFFIC, prefill=cm.Parallel()), "disaggregated"),
        (lambda: serve("llama-3.1-8b", "h100-sxm", TRAFFIC, prefill_replicas=2), "disaggregated"),
        (lambda: Traffic(requests_per_s=1, promt=3), "did you mean prompt"),
    ):
        with pytest.raises(cm.CostModelError, match=told):
            call()


def test_single_tokens() -> None:
    """A prompt of one token, an output of one: no decode step is taken."""
    for traffic in (Traffic(requests_per_s=5, prompt=1, output=10), Traffic(requests_per_s=5, prompt=2048, output=1)):
        found = serve("llama-3.1-8b", "h100-sxm", traffic, precision=FP8)
        assert not found.saturated
        assert 0 < found.ttft_s[0.5] < found.ttft_s[0.99] < 1
    assert found.batch == pytest.approx(0, abs=1e-6)


def test_what_does_not_fit_is_told() -> None:
    """No promise of a deployment whose weights no device has room for; places as many as there is room for."""
    for mode in ("colocated", "disaggregated"):
        asked: Any = {"mode": mode}
        fits, heavy = (serve(name, "h100-sxm", Traffic(requests_per_s=0.01), **asked) for name in ("llama-3.1-8b", "llama-3.1-70b"))
        assert fits.fits
        assert not [note for note in fits.notes if "fit" in note]
        assert (heavy.fits, heavy.places, heavy.requests_per_s, heavy.output_tokens_per_s_per_device) == (False, 0, 0, 0)
        assert {*heavy.ttft_s.values(), heavy.tpot_s, heavy.prefill_s} == {np.inf}
        assert heavy.notes[0].startswith("does not fit: ")
    apart = serve(
        "llama-3.1-70b", "h100-sxm", Traffic(requests_per_s=0.01), cm.Parallel(tp=4), mode="disaggregated", prefill=cm.Parallel()
    )
    assert (apart.fits, apart.devices) == (False, 5)  # what computes prompts has no room for the weights
    spread = serve("llama-3.1-8b", "h100-sxm", Traffic(requests_per_s=0.01, prompt=65_536), cm.Parallel(tp=2, pp=2), batch=4096)
    assert spread.places <= spread.memory.most_sequences
    for mode in ("colocated", "disaggregated"):
        asked = {"mode": mode}
        few = serve("llama-3.1-8b", "h100-sxm", Traffic(requests_per_s=0.01, prompt=65_536), **asked)
        assert (few.fits, few.places) == (True, few.memory.most_sequences)
        assert few.places < 64
        assert few.notes[0].startswith(f"each replica has room for {few.places} sequences of 66,560 tokens, not 64")
