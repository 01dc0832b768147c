"""Layouts: messages that simulated ranks send, one by one; times of many points at once; what a Parallel refuses."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import costmodel as cm
from costmodel.footprint import check_layout
from costmodel.kernels import ON_LINKS
from costmodel.parallelism import stage_layers
from costmodel.timing.launches import Launch
from costmodel.timing.points import Points
from costmodel.timing.roofline import Clock, clock
from tests.test_bad_input import HUGE, INF, NAN, command_refuses, refused

NODE = cm.Accelerator(
    name="node", title="Node", maker="Me", memory_bytes=10**15, source="invented", peak_flops_per_s={"bf16": 10**15},
    memory_bytes_per_s=3 * 10**12, link_bytes_per_s=450 * 10**9, network_bytes_per_s=50 * 10**9, link_devices=8,
)  # fmt: skip
MODELS = (
    "llama-3.1-8b",
    "deepseek-v3",
    "gemma-3-27b",
    "qwen3-next-80b-a3b",
    "zamba2-2.7b",
    "jamba-1.5-large",
    "gpt-oss-20b",
    "gpt2",
)
LAYOUTS = (
    cm.Parallel(), cm.Parallel(tp=2), cm.Parallel(tp=4), cm.Parallel(cp=2), cm.Parallel(dp=2), cm.Parallel(pp=2),
    cm.Parallel(tp=2, cp=2, dp=2, pp=2), cm.Parallel(tp=2, dp=4, ep=8), cm.Parallel(tp=2, dp=2, ep=2), cm.Parallel(dp=16, ep=16),
    cm.Parallel(dp=4, ep=4, imbalance=1.5), cm.Parallel(tp=4, cp=2, ep=8),
)  # fmt: skip


def timer(name: str, formats: str = "bf16") -> Clock:
    return clock(cm.load(name), NODE, cm.Precision.named(formats))


def messages(name: str, layout: cm.Parallel, batch: int, tokens: int, context: int, **formats: str) -> dict[str, list[Launch]]:
    """What a rank sends, by name: kernels of one point."""
    points = Points.of(layout, batch, tokens, context)
    found: dict[str, list[Launch]] = {}
    for kernels in timer(name, **formats)._kernels(points):
        for launch in kernels.launches if kernels.fit.kernel.name in ON_LINKS else []:
            if np.any(launch.share):
                found.setdefault(launch.row.op.name, []).append(launch)
    return found


def sent_bytes(launch: Launch) -> float:
    """Bytes that a rank sends."""
    size = float(launch.sizes["bytes"][0])
    ranks = float(launch.sizes["ranks"][0])
    return 2 * size * (ranks - 1) / ranks if launch.kernel == "allreduce" else size


# messages, by loops


def ring_all_reduce(ranks: int, chunks: list[int]) -> int:
    """Elements that a rank sends, the most of any: chunks travel round to be summed, then round again to be told."""
    sent = [0] * ranks
    for _ in ("sum", "tell"):
        for step in range(ranks - 1):
            for rank in range(ranks):
                sent[rank] += chunks[(rank - step) % ranks]
    return max(sent)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_all_reduce_is_a_ring(ranks: int) -> None:
    """Two a layer and one for the token table; each of the tokens' activations."""
    found = messages("llama-3.1-8b", cm.Parallel(tp=ranks), 3, 64, 64)
    assert set(found) == {"all_reduce"}
    assert sum(launch.times for launch in found["all_reduce"]) == 2 * 32 + 1
    elements = 3 * 64 * 4096
    for launch in found["all_reduce"]:
        assert sent_bytes(launch) == 2 * ring_all_reduce(ranks, [elements // ranks] * ranks)


def routed(layout: cm.Parallel, experts: int, used: int, tokens: int, single: bool) -> float:
    """Copies of tokens that a rank sends to others, in the mean, for each token that passes through its group.

    A single token goes out for each of its experts, one of a prompt once to a rank. Ranks side by side have the same tokens and
    send a part each; an expert is cut over neighbours. Where experts are not spread, a token goes to every rank once.
    """
    rng, sent = random.Random(7), 0  # noqa: S311 - no secret
    together = layout.tp * (layout.cp if single else 1)
    cut = layout.ranks // layout.ep
    for group in range(layout.ranks // together):
        here = set(range(group * together, (group + 1) * together))
        for _ in range(tokens):
            places = [expert % layout.ep for expert in rng.sample(range(experts), used)]
            met = [set(range(place * cut, (place + 1) * cut)) - here for place in places]
            each = single and layout.ep > 1
            sent += sum(map(len, met)) if each else len(set().union(*met))
    return sent / layout.ranks / tokens


@pytest.mark.parametrize(
    "layout",
    [
        cm.Parallel(dp=8, ep=8), cm.Parallel(dp=4, ep=4), cm.Parallel(tp=2, dp=4, ep=8), cm.Parallel(tp=2, dp=4, ep=4),
        cm.Parallel(dp=8, ep=2), cm.Parallel(tp=2, dp=2, cp=2, ep=8), cm.Parallel(dp=8, ep=1), cm.Parallel(tp=4, dp=2, ep=1),
    ],
    ids=lambda layout: layout.name,
)  # fmt: skip
@pytest.mark.parametrize("tokens", [1, 64])
def test_tokens_go_to_their_experts(layout: cm.Parallel, tokens: int) -> None:
    """Each to every rank that has a part of one of its experts, sent by those that hold it; routing at random against the mean."""
    found = messages("deepseek-v3", layout, 4, tokens, 64, formats="fp8")
    passing = 4 * (1 if tokens == 1 else tokens // layout.cp)
    copies = routed(layout, 256, 8, 4_000, single=tokens == 1)
    (dispatch,), (combine,) = found["dispatch"], found["combine"]
    assert dispatch.times == combine.times == 58
    assert sent_bytes(dispatch) == pytest.approx(passing * copies * 7168 * 1, rel=0.01)
    assert sent_bytes(combine) == pytest.approx(passing * copies * 7168 * 2, rel=0.01)


def test_a_hot_rank_is_sent_more_where_experts_are_spread() -> None:
    for layout, factor in ((cm.Parallel(dp=8, ep=8), 1.5), (cm.Parallel(dp=8, ep=1), 1.0)):
        even, hot = (
            messages("deepseek-v3", layout.model_copy(update={"imbalance": imbalance}), 4, 1, 64)["dispatch"][0]
            for imbalance in (1.0, 1.5)
        )
        assert sent_bytes(hot) == pytest.approx(factor * sent_bytes(even))


def test_between_nodes_only_what_leaves_one_counts() -> None:
    """16 ranks in two nodes: half of all copies leave; at the network's rate."""
    (dispatch,) = messages("deepseek-v3", cm.Parallel(dp=16, ep=16), 4, 1, 64, formats="fp8")["dispatch"]
    assert sent_bytes(dispatch) == 4 * 8 * 0.5 * 7168
    assert dispatch.sizes["slower"][0] == 9


def test_a_prompt_crosses_the_network_once_for_each_node() -> None:
    """32 ranks in four nodes: a token crosses once for each other node that has an expert of it."""
    (dispatch,) = messages("deepseek-v3", cm.Parallel(dp=32, ep=32), 1, 64, 64, formats="fp8")["dispatch"]
    rng = random.Random(7)  # noqa: S311 - no secret
    crossed = [len({expert % 32 // 8 for expert in rng.sample(range(256), 8)} - {0}) for _ in range(20_000)]
    assert sent_bytes(dispatch) == pytest.approx(64 * np.mean(crossed) * 7168, rel=0.01)
    assert dispatch.sizes["slower"][0] == 9


def ring(ranks: int, tokens: list[int]) -> int:
    """Tokens whose keys a rank sends on: each rank's part passes by all the others."""
    held, sent = list(tokens), [0] * ranks
    for _ in range(ranks - 1):
        sent = [before + part for before, part in zip(sent, held, strict=True)]
        held = [held[-1], *held[:-1]]
    return max(sent)


@pytest.mark.parametrize("ranks", [2, 4])
def test_keys_pass_by_every_context_rank(ranks: int) -> None:
    """All heads that a rank has of them; of windows what they see; a latent whole."""
    layout, passed = cm.Parallel(cp=ranks, tp=2), ring(ranks, [4096 // ranks] * ranks)
    (llama,) = messages("llama-3.1-8b", layout, 1, 4096, 4096)["ring"]
    assert (llama.times, sent_bytes(llama)) == (32, passed * 2 * (8 // 2) * 128 * 2)
    latent = messages("deepseek-v3", layout, 1, 4096, 4096)["ring"]
    assert {sent_bytes(each) for each in latent} == {passed * 576 * 2}
    assert sum(each.times for each in latent) == 61
    gemma = {each.times: sent_bytes(each) for each in messages("gemma-3-27b", layout, 1, 4096, 4096)["ring"]}
    assert gemma == {52: passed / 4 * 2 * 8 * 128 * 2, 10: passed * 2 * 8 * 128 * 2}
    copied = messages("gemma-3-1b", cm.Parallel(cp=ranks, tp=4), 1, 4096, 4096)["ring"]  # one head, on each of four ranks
    assert max(map(sent_bytes, copied)) == passed * 2 * 256 * 2


def test_partial_outputs_are_merged() -> None:
    """Of a single token, those of a rank's heads; in the latent where attention is there."""
    layout = cm.Parallel(cp=4, tp=2)
    (llama,) = messages("llama-3.1-8b", layout, 3, 1, 4096)["merge"]
    assert sent_bytes(llama) == 2 * ring_all_reduce(4, [3 * 16 * 128 // 4] * 4)
    latent = messages("deepseek-v3", layout, 3, 1, 4096)["merge"]
    assert {sent_bytes(each) for each in latent} == {2 * ring_all_reduce(4, [3 * 64 * 512 // 4] * 4)}


@pytest.mark.parametrize(("stages", "tp"), [(2, 1), (4, 2)])
def test_activations_are_handed_over(stages: int, tp: int) -> None:
    """From each stage to the next, a part by each tensor-parallel rank."""
    (hand_over,) = messages("llama-3.1-8b", cm.Parallel(pp=stages, tp=tp), 3, 64, 64)["hand_over"]
    moved = 0
    for stage in range(stages - 1):
        for rank in range(tp):
            moved += len(range(rank, 3 * 64 * 4096, tp)) if stage < stages - 1 and rank == 0 else 0
    assert float(np.max(hand_over.share)) * sent_bytes(hand_over) == moved * 2


def test_no_messages_of_one_rank() -> None:
    assert messages("deepseek-v3", cm.Parallel(), 3, 1, 64) == {}
    assert set(messages("deepseek-v3", cm.Parallel(tp=8, ep=8), 3, 1, 64)) == {"all_reduce"}  # all ranks have the tokens


# stages


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=70), st.integers(1, 70))
def test_stages_are_equal_and_in_a_row(order: list[str], stages: int) -> None:
    if stages > len(order):
        refused(lambda: stage_layers(tuple(order), stages), f"pp {stages} exceeds")
        return
    found = stage_layers(tuple(order), stages)
    sizes = [sum(layers.values()) for layers in found]
    assert (len(found), sum(sizes), max(sizes) - min(sizes) <= 1) == (stages, len(order), True)
    rest = iter(order)
    for layers, size in zip(found, sizes, strict=True):
        here = [next(rest) for _ in range(size)]
        assert layers == {name: here.count(name) for name in here}
    assert sizes[-1] == min(sizes)


# times


def allowed(name: str) -> Iterator[cm.Parallel]:
    for layout in LAYOUTS:
        try:
            check_layout(cm.load(name), layout)
        except cm.CostModelError:
            continue
        yield layout


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tokens", [1, 512])
def test_many_points_are_each_alone(name: str, tokens: int) -> None:
    """Layouts, batches and contexts mixed in one array against one by one, in detail too."""
    rng = np.random.default_rng(3)
    asked = [
        (layout, int(batch), int(context)) for layout in allowed(name) for batch, context in rng.integers(1, [65, 20_000], (3, 2))
    ]
    asked = [(layout, batch, max(context, tokens)) for layout, batch, context in asked]
    columns = [
        (batch, tokens, context, *(getattr(layout, degree) for degree in Points.NAMES[3:])) for layout, batch, context in asked
    ]
    stacked = Points.stacked(*np.array(columns, dtype=float).T)
    clocked = timer(name, "fp8")
    totals, seconds = clocked.totals(stacked), clocked.seconds(stacked)
    overlapped = clocked.seconds(stacked, "two_batches")
    assert (overlapped <= seconds * (1 + 1e-12)).all()
    for place, (layout, batch, context) in enumerate(asked):
        point = Points.of(layout, batch, tokens, context)
        detail, alone = clocked.detail(point), clocked.totals(point)
        assert totals.device_s[place] == pytest.approx(detail.device_s, rel=1e-9)
        assert totals.link_s[place] == pytest.approx(detail.link_s, rel=1e-9, abs=1e-18)
        assert sum(op["seconds"] for op in detail.ops) == pytest.approx(detail.device_s, rel=1e-9)
        for column in ("compute_s", "link_s", "calls", "flops", "bytes"):
            assert getattr(totals, column)[place] == pytest.approx(getattr(alone, column)[0], rel=1e-9), (layout.name, column)
        assert seconds[place] == pytest.approx(detail.seconds, rel=1e-9)
        assert overlapped[place] == pytest.approx(clocked.detail(point, "two_batches").seconds, rel=1e-9)


@given(st.sampled_from(MODELS), st.integers(1, 256), st.integers(1, 100_000), st.booleans())
@settings(max_examples=40)
def test_more_ranks_compute_less_each(name: str, batch: int, context: int, prefill: bool) -> None:
    """Tensor parallelism never adds to a rank's own seconds or FLOPs; nor do context ranks."""
    tokens = min(context, 2048) if prefill else 1
    for degree in ("tp", "cp"):
        layouts = [layout for layout in (cm.Parallel(**{degree: ranks}) for ranks in (1, 2, 4)) if layout in [*allowed_tp(name)]]
        found = [timer(name).totals(Points.of(layout, batch, tokens, context)) for layout in layouts]
        assert len(found) == len(layouts) > 1
        for few, many in pairwise(found):
            assert many.compute_s[0] <= few.compute_s[0] * (1 + 1e-9)
            assert many.flops[0] <= few.flops[0] * (1 + 1e-9)


def allowed_tp(name: str) -> Iterator[cm.Parallel]:
    for layout in (cm.Parallel(), *(cm.Parallel(**{degree: ranks}) for degree in ("tp", "cp") for ranks in (2, 4))):
        try:
            check_layout(cm.load(name), layout)
        except cm.CostModelError:
            continue
        yield layout


@given(st.sampled_from(MODELS[:4]), st.integers(1, 256), st.integers(64, 8_000))
@settings(max_examples=25)
def test_overlap_is_never_slower(name: str, batch: int, prompt: int) -> None:
    layout = cm.Parallel(dp=4, ep=4 if cm.load(name).experts else 1)
    for tokens in (1, prompt):
        points = Points.of(layout, batch, tokens, prompt)
        plain, overlapped = (float(timer(name).seconds(points, overlap)[0]) for overlap in ("none", "two_batches"))
        assert plain / 2 * (1 - 1e-9) <= overlapped <= plain


def test_stages_wait_for_the_slowest_and_for_pieces() -> None:
    one = cm.estimate("llama-3.1-8b", NODE, parallel=cm.Parallel(), batch=8, prompt=2048, output=1)
    whole = cm.estimate("llama-3.1-8b", NODE, parallel=cm.Parallel(pp=4), batch=8, prompt=2048, output=1)
    pieces = cm.estimate("llama-3.1-8b", NODE, parallel=cm.Parallel(pp=4, microbatches=8), batch=8, prompt=2048, output=1)
    assert one.ttft_s < whole.ttft_s < one.ttft_s * 1.01
    assert pieces.ttft_s == pytest.approx(whole.ttft_s * (8 + 3) / (8 * 4))


# the published speed limit of expert parallelism


@pytest.mark.parametrize(
    ("asked", "ms"),
    [
        ({"hidden_size": 7_000, "layers": 61}, (14.76, 0.82)),
        ({"model": "deepseek-v3"}, (14.37, 0.80)),
        ({"model": "deepseek-v3", "layers": 61, "hidden_size": 7_000}, (14.76, 0.82)),
    ],
)
def test_speed_limit_of_expert_parallelism(asked: dict[str, Any], ms: tuple[float, float]) -> None:
    """ISCA 2025: 32 tokens to 9 devices, 1 + 2 bytes an element, two micro-batches; InfiniBand and NVL72."""
    found = [cm.expert_parallel_limit(**asked, bytes_per_s=rate) for rate in (50e9, 900e9)]
    assert tuple(round(1e3 * each.seconds, 2) for each in found) == ms
    width, layers = asked.get("hidden_size", 7168), asked.get("layers", 58)
    sent = sum((1 + 2) * width for _ in range(32) for _ in range(9))
    assert found[0].seconds == pytest.approx(sum(sent / 50e9 for _ in range(layers) for _ in range(2)))
    assert found[0].tokens_per_s == 1 / found[0].seconds


def test_the_limit_refuses() -> None:
    paper = {"hidden_size": 7_000, "layers": 61}
    for name in ("tokens", "destinations", "micro_batches", "hidden_size", "layers"):
        for value in (0, -1, 1.5, NAN, INF, True, "8", HUGE):
            refused(lambda name=name, value=value: cm.expert_parallel_limit(**(paper | {name: value})), f"{name} got")  # type: ignore[misc]
    for name in ("dispatch_bytes", "combine_bytes", "bytes_per_s"):
        for value in (0, -1, NAN, INF, True, "8", None):
            refused(lambda name=name, value=value: cm.expert_parallel_limit(**(paper | {name: value})), f"{name} got")  # type: ignore[misc]
    refused(lambda: cm.expert_parallel_limit(layers=61), "hidden_size is missing")
    refused(lambda: cm.expert_parallel_limit(hidden_size=7_000), "layers is missing")
    refused(lambda: cm.expert_parallel_limit("llama-3.1-8b"), "has no layers with experts")
    refused(lambda: cm.expert_parallel_limit("deepsek-v3"), "did you mean deepseek-v3?")


# bad layouts


def test_bad_layouts(capsys: pytest.CaptureFixture[str]) -> None:
    for degree in ("tp", "pp", "dp", "cp", "ep", "microbatches"):
        for value in (0, -1, 1.5, 2.0, NAN, INF, True, None, "2", HUGE):
            refused(lambda degree=degree, value=value: cm.Parallel(**{degree: value}), "Parallel: ", degree)  # type: ignore[misc]
    for value in (0.5, -1, NAN, INF, None, 1001, "x"):
        refused(lambda value=value: cm.Parallel(imbalance=value), "Parallel: imbalance")  # type: ignore[misc]
    for value in ("three_batches", None, True, 2):
        refused(lambda value=value: cm.Parallel(overlap=value), "Parallel: overlap")  # type: ignore[misc]
    refused(lambda: cm.Parallel(ttp=2), "ttp", "did you mean tp?")  # type: ignore[call-arg]
    refused(lambda: cm.Parallel(tp=4, dp=2, ep=3), "ep 3 does not divide the 8 ranks of a stage")
    refused(lambda: cm.Parallel(ep=2), "ep 2 does not divide tp 1")
    refused(lambda: cm.Parallel(tp=256, dp=256, pp=2), "131,072 devices")
    with pytest.raises(ValueError, match="frozen"):
        cm.Parallel().tp = 2  # type: ignore[misc]
    for layout, part in (
        (cm.Parallel(tp=3), "tp 3 does not divide the 128 heads"), (cm.Parallel(pp=62), "pp 62 exceeds the 61 layers"),
        (cm.Parallel(dp=512, ep=512), "ep 512 exceeds the 256 experts"),
    ):  # fmt: skip
        refused(lambda layout=layout: cm.estimate("deepseek-v3", "h100-sxm", parallel=layout), part)  # type: ignore[misc]
        refused(lambda layout=layout: cm.device_memory("deepseek-v3", "h100-sxm", layout), part)  # type: ignore[misc]
    refused(lambda: cm.estimate("llama-3.1-8b", "h100-sxm", parallel=cm.Parallel(tp=2, ep=2)), "llama-3.1-8b has none")
    no_links = replace_links(NODE)
    refused(lambda: cm.estimate("llama-3.1-8b", no_links, parallel=cm.Parallel(tp=2)), "link_bytes_per_s")
    for flags in ("--tp 3", "--ep 3 --tp 8", "--pp 62", "--dp 512 --ep 512", "--cp 0", "--tp nan", "--tp 1e9"):
        command_refuses(capsys, "memory", "deepseek-v3", "--on", "h200", *flags.split())


def replace_links(device: cm.Accelerator) -> cm.Accelerator:
    return device.model_copy(update={"link_bytes_per_s": None})


def test_names() -> None:
    assert cm.Parallel(tp=16, pp=11).name == "TP16 PP11"
    assert replace(Points.of(cm.Parallel(), 1, 1, 1), verify=True).single
