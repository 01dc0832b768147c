"""Memory of each device: every matrix and kept tensor placed on ranks one by one, and what must hold of any layout."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import costmodel as cm
from costmodel.footprint import LADDER, NAMES, Demand, DeviceMemory, check_layout, head_counts, most_experts, rank_letters
from costmodel.quantities import Row
from costmodel.workload import Options, Phase, View
from tests.families import BLOCKS, architectures, model
from tests.test_bad_input import HUGE, INF, NAN, command_refuses, refused

PRESETS = (
    "llama-3.1-8b", "deepseek-v3", "deepseek-v3.2", "qwen3-next-80b-a3b", "gemma-3-27b", "gemma-3-1b", "zamba2-2.7b",
    "jamba-1.5-large", "nemotron-h-8b", "falcon-h1-7b", "gpt-oss-20b", "hunyuan-large", "llama-4-scout", "gpt2", "mamba2-2.7b",
    "kimi-linear-48b-a3b", "xlstm-7b", "rwkv7-0.4b",
)  # fmt: skip
BIG = 10**15


def device(memory_bytes: int = BIG) -> cm.Accelerator:
    return cm.Accelerator(name="plain", title="Plain", maker="Me", memory_bytes=memory_bytes, source="invented")


# the same placed one by one

WHOLE = (
    "norm", "final_norm", "embedding_norm", "input_norm", "feed_forward_norm", "kv_a_norm", "q_a_norm", "q_norm", "k_norm",
    "dt_norm", "b_norm", "c_norm", "index_k_norm", "hidden_norm", "head_norm", "multihead_norm", "group_norm", "projector_norm",
    "pre_norm", "post_norm", "router", "shared.gate", "kv_a_proj", "q_a_proj", "index_q_proj", "index_k_proj", "index_weights",
    "embed_positions", "eh_proj", "halting_head", "patch_embedding", "projector", "projector_1", "projector_2",
)  # fmt: skip
"""What every tensor-parallel rank has whole."""


def stage_of(layer: int, depth: int, stages: int) -> int:
    """Equal numbers in a row; what is left over goes to the stages before the last, from the back."""
    each, left = divmod(depth, stages)
    sizes = [each] * stages
    for place in range(left):
        sizes[(stages - 2 - place) % stages] += 1
    ends = np.cumsum(sizes)
    return int(np.searchsorted(ends, layer, side="right"))


def placed_rows(architecture: cm.Architecture, stages: int, mtp: int) -> Iterator[tuple[int, Row, int, int]]:
    """(stage, row, times used, times stored) for each layer by itself; shared layers stored where they are met first in a stage."""
    rows = architecture._rows(Options(mtp=mtp), Phase.PREFILL)
    order = architecture.layer_order
    groups = {group.name: group for group in architecture.layers}
    met: dict[tuple[str, int], set[int]] = {}
    seen = dict.fromkeys(groups, 0)
    for layer, name in enumerate(order):
        stage, here = stage_of(layer, len(order), stages), seen[name]
        seen[name] += 1
        shared = groups[name].shared
        twin = here % shared if shared else here
        first = twin not in met.setdefault((name, stage), set())
        met[name, stage].add(twin)
        for row in rows:
            if row.group == name:
                each = row.times // row.layers
                yield stage, row, each, each if first or row.op.own else 0
    ends = {"embedding": 0, "vision": 0, "head": stages - 1, "mtp": stages - 1}
    for row in rows:
        if row.group in ends:
            yield ends[row.group], row, row.times, row.copies


def number(row: Row, expr: Any, letters: dict[Any, Any] | None = None) -> Fraction:
    value = expr.xreplace(row.binding).xreplace(letters or {})
    return Fraction(int(value.p), int(value.q))


def heads_on(rank: int, heads: int, ranks: int) -> int:
    """Heads in a row on each rank, as many as fit on one; where ranks are more than heads, each has a copy of one."""
    each = math.ceil(heads / ranks)
    return len([head for head in range(heads) if head // each == rank]) if ranks <= heads else 1


def stored_on(row: Row, layout: cm.Parallel, formats: cm.Precision, rank: tuple[int, int, int]) -> Fraction:
    """Bytes of a row's matrices on one rank (tp, dp, cp)."""
    size = number(row, row.op.cost.weight_bytes(formats))
    if not size:
        return Fraction(0)
    if row.op.name.startswith("experts."):
        experts = int(number(row, row.op.cost.weights[0].copies))
        place = (rank[0] + layout.tp * (rank[1] + layout.dp * rank[2])) % layout.ep
        own = len([expert for expert in range(experts) if expert % layout.ep == place])
        return size * own / experts / (layout.ranks // layout.ep)
    if row.op.name.removeprefix("ssm.") in WHOLE:
        return size
    if row.op.name in ("k_proj", "v_proj") and row.op.heads is not None:
        heads = int(number(row, row.op.heads))
        return size * heads_on(rank[0], heads, layout.tp) / heads
    return size / layout.tp


def weights_placed(architecture: cm.Architecture, layout: cm.Parallel, precision: str = "bf16", mtp: int = 0) -> list[Fraction]:
    """Bytes of weights by stage, of the rank that has most."""
    ranks = [(tp, dp, cp) for cp in range(layout.cp) for dp in range(layout.dp) for tp in range(layout.tp)]
    each = [[Fraction(0)] * layout.pp for _ in ranks]
    known: dict[tuple[int, int], Fraction] = {}
    formats = cm.Precision.named(precision)
    for stage, row, _, stored in placed_rows(architecture, layout.pp, mtp):
        for place, rank in enumerate(ranks if stored else []):
            if (id(row), place) not in known:
                known[id(row), place] = stored_on(row, layout, formats, rank)
            each[place][stage] += stored * known[id(row), place]
    if layout.pp > 1 and (architecture.tie_word_embeddings or mtp):  # the last stage reads the table too
        table = Fraction(2 * architecture.vocab_size * architecture.hidden_size)
        for place in range(len(ranks)):
            each[place][-1] += table / layout.tp
    return [max(rank[stage] for rank in each) for stage in range(layout.pp)]


def kept_placed(
    architecture: cm.Architecture, layout: cm.Parallel, view: View, batch: int, context: int, *, state: bool, mtp: int = 0
) -> list[Fraction]:
    """Bytes kept by stage on the rank with most: sequences dealt out to groups, pages (or tokens) to context ranks, heads to tp."""
    sequences = len([each for each in range(batch) if each % layout.dp == 0])
    found = [Fraction(0)] * layout.pp
    known: dict[int, Fraction] = {}
    for stage, row, times, _ in placed_rows(architecture, layout.pp, mtp):
        if id(row) not in known:
            total = Fraction(0)
            for kept in row.op.cost.kept:
                if kept.borrowed or kept.per_token == state:
                    continue
                heads = int(number(row, kept.heads))
                own = max(heads_on(rank, heads, layout.tp) for rank in range(layout.tp)) if kept.split else heads
                size = number(row, kept.unit_bytes(cm.Precision(), kept.heads)) / heads
                if state:
                    slots = 1 + view.speculative if view.engine else 1
                elif view.engine:
                    pages = range(0, context, view.block)
                    slots = view.block * len([page for page in range(len(pages)) if page % layout.cp == 0])
                else:
                    reach = context if kept.reach is None else int(number(row, kept.reach))
                    slots = len([token for token in range(min(reach, context)) if token % layout.cp == 0])
                total += slots * size * own
            known[id(row)] = total * sequences
        found[stage] += times * known[id(row)]
    return found


def by_stage(held: DeviceMemory, name: str) -> list[float]:
    """What the library says of each stage."""
    letters = rank_letters(held.layout, np.array([held.batch]), np.array([held.context]), held.pass_tokens)
    return [float(held.demand._stage(held.layout.pp, stage, letters)[name][0]) for stage in range(held.layout.pp)]


def agree(ours: list[float], placed: list[Fraction]) -> None:
    """To a byte, as whole bytes are told."""
    for one, other in zip(ours, placed, strict=True):
        assert one == pytest.approx(float(other), rel=1e-12, abs=1)


def check_placed(architecture: cm.Architecture, layout: cm.Parallel, batch: int, context: int, **asked: Any) -> None:
    for view, precision in (("theory", "bf16"), ("engine", "fp8")):
        held = cm.device_memory(architecture, device(), layout, batch, context, precision, view=view, **asked)
        mtp = asked.get("mtp", 0)
        agree(by_stage(held, "weights"), weights_placed(architecture, layout, precision, mtp))
        agree(by_stage(held, "cache"), kept_placed(architecture, layout, held.demand.view, batch, context, state=False, mtp=mtp))
        agree(by_stage(held, "state"), kept_placed(architecture, layout, held.demand.view, batch, context, state=True, mtp=mtp))


LAYOUTS: tuple[dict[str, int], ...] = (
    {}, {"tp": 2}, {"tp": 4}, {"tp": 8}, {"pp": 2}, {"pp": 3, "tp": 2}, {"dp": 3}, {"cp": 4}, {"tp": 2, "dp": 2, "ep": 4},
    {"dp": 6, "ep": 6, "pp": 2}, {"tp": 2, "dp": 2, "cp": 2, "ep": 2}, {"tp": 2, "dp": 2, "cp": 2, "pp": 2, "ep": 8},
)  # fmt: skip


def layouts_of(architecture: cm.Architecture) -> list[cm.Parallel]:
    """Those of `LAYOUTS` that it allows; expert ranks left out where it has no experts."""
    found = []
    for degrees in LAYOUTS:
        layout = cm.Parallel(**(degrees if most_experts(architecture) else degrees | {"ep": 1}))
        try:
            check_layout(architecture, layout)
        except cm.CostModelError:
            continue
        found.append(layout)
    return found


@pytest.mark.parametrize("name", PRESETS)
def test_presets_placed_one_by_one(name: str) -> None:
    architecture = cm.load(name)
    layouts = layouts_of(architecture)
    assert len(layouts) >= 4
    for layout in layouts:
        check_placed(architecture, layout, 5, 2_100, speculative=2)


@pytest.mark.parametrize("kind", BLOCKS)
def test_small_architectures_placed_one_by_one(kind: str) -> None:
    @settings(max_examples=8)
    @given(architectures(kind), st.sampled_from(LAYOUTS), st.integers(1, 7), st.integers(1, 70))
    def check(architecture: cm.Architecture, degrees: dict[str, int], batch: int, context: int) -> None:
        layout = cm.Parallel(**(degrees if most_experts(architecture) else degrees | {"ep": 1}))
        try:
            check_layout(architecture, layout)
        except cm.CostModelError:
            layout = cm.Parallel(dp=2, cp=2, pp=min(2, architecture.depth))
        check_placed(architecture, layout, batch, context)

    check()


def test_modules_that_guess_stand_in_the_last_stage() -> None:
    """With the token table, which they read."""
    for layout in (cm.Parallel(), cm.Parallel(tp=2, dp=2, ep=4, pp=2), cm.Parallel(pp=4, tp=4)):
        check_placed(cm.load("deepseek-v3"), layout, 3, 100, mtp=1)


def test_a_draft_stands_whole_in_the_last_stage() -> None:
    small = cm.load("llama-3.1-8b")
    alone = cm.device_memory(small, device(), cm.Parallel(tp=4), 8, 4096)
    held = cm.device_memory("llama-3.1-70b", device(), cm.Parallel(tp=4, pp=2), 8, 4096, draft=small, speculative=3)
    assert held.rows["draft weights"] == alone.rows["weights"]
    assert held.rows["draft cache"] == alone.rows["cache"]
    assert held.weight_bytes == held.rows["weights"] + held.rows["draft weights"]


def test_many_unlike_stages() -> None:
    """More than numpy chooses from at once."""
    groups = [cm.LayerGroup(name=f"l{i}", count=1, feed_forward=cm.MLP(intermediate_size=8 + i)) for i in range(80)]
    held = cm.device_memory(model(*groups), device(), cm.Parallel(pp=80))
    assert held.rows["weights"] == max(weights_placed(model(*groups), cm.Parallel(pp=80)))


# activations, logits, messages, by loops


@pytest.mark.parametrize("name", ["llama-3.1-8b", "deepseek-v3", "gemma-3-1b", "qwen3-next-80b-a3b"])
def test_peak_rows(name: str) -> None:
    architecture = cm.load(name)
    for layout in layouts_of(architecture):
        held = cm.device_memory(architecture, device(), layout, 5, 2_100, pass_tokens=1_024, speculative=1)
        tokens = math.ceil(1_024 / layout.cp)
        rows = architecture.ledger_rows(new_tokens=tokens, context=tokens, batch=1)
        widest = [Fraction(0)] * layout.pp
        of_row = {(row.group, row.block, row.op.name): row for row in architecture._rows(Options(), Phase.PREFILL)}
        stages = {(stage, row.path) for stage, row, _, _ in placed_rows(architecture, layout.pp, 0)}
        for row in rows:
            path = (row["group"], row["block"], row["op"])
            if row["kind"] == "vector" or row["group"] in ("vision", "head"):
                continue
            own = Fraction(row["activation_bytes"]) / of_row[path].times
            own = own if path[2] in (*WHOLE, "embed_tokens") else own / layout.tp
            for stage in range(layout.pp):
                widest[stage] = max(widest[stage], own if (stage, path) in stages else Fraction(0))
        stream = 2 * tokens * architecture.hidden_size * 2
        agree(by_stage(held, "activations"), [stream + own for own in widest])
        logits = sum(4 * architecture.vocab_size for _ in range(math.ceil(5 / layout.dp)) for _ in range(2))
        assert by_stage(held, "logits") == [0] * (layout.pp - 1) + [logits]
        used = max((int(weight.active) for weight in architecture.experts.values()), default=0)
        sent = sum(
            (2 * (layout.tp > 1) + Fraction(2 * used * (layout.dp * layout.cp > 1), layout.tp)) * architecture.hidden_size * 2
            for _ in range(tokens)
        )
        agree(by_stage(held, "messages"), [Fraction(sent)] * layout.pp)


def test_tokens_to_experts_travel_in_the_format_of_the_experts() -> None:
    held = (cm.device_memory("deepseek-v3", device(), cm.Parallel(dp=8, ep=8), 8, 4096, formats) for formats in ("bf16", "fp8"))
    wide, narrow = (each.rows["messages"] for each in held)
    assert wide == 4096 * 8 * 7168 * (2 + 2)  # a group has one sequence
    assert narrow == 4096 * 8 * 7168 * (1 + 2)


# what must hold


@st.composite
def asked(draw: st.DrawFn) -> tuple[cm.Architecture, cm.Parallel, int, int]:
    """A preset or small architecture with a layout it allows, sequences and a context."""
    architecture = draw(st.sampled_from(PRESETS).map(cm.load) | st.sampled_from(list(BLOCKS)).flatmap(architectures))
    heads = math.gcd(*head_counts(architecture)) or 8
    experts = most_experts(architecture)
    tp = draw(st.sampled_from([each for each in (1, 2, 4, 8) if heads % each == 0]))
    pp = draw(st.integers(1, min(4, architecture.depth)))
    dp, cp = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2, 4]))
    ranks = tp * dp * cp
    ep = draw(st.sampled_from([each for each in range(1, ranks + 1) if ranks % each == 0 and each <= max(experts, 1)]))
    return architecture, cm.Parallel(tp=tp, pp=pp, dp=dp, cp=cp, ep=ep), draw(st.integers(1, 300)), draw(st.integers(1, 300_000))


def lasting(held: DeviceMemory) -> int:
    """Weights, cache and state of the device that holds most of them."""
    return max(map(int, np.sum([by_stage(held, name) for name in ("weights", "cache", "state")], axis=0)))


@given(asked(), st.sampled_from(["tp", "dp", "cp", "pp"]), st.booleans())
@settings(max_examples=40)
def test_more_devices_never_need_more_each(
    question: tuple[cm.Architecture, cm.Parallel, int, int], degree: str, spread: bool
) -> None:
    """Weights, cache and state of the same batch. Doubling stages copies tables and shared layers; see the test below."""
    architecture, layout, batch, context = question
    more = layout.model_dump() | {degree: 2 * getattr(layout, degree)}
    more |= {"ep": 2 * layout.ep} if spread and degree != "pp" and 2 * layout.ep <= most_experts(architecture) else {}
    wider = cm.Parallel(**more)
    try:
        check_layout(architecture, wider)
    except cm.CostModelError:
        assume(False)
    view = View(engine=True)
    demand = Demand(architecture, cm.Precision(), view)
    few, many = (DeviceMemory(demand, device(), each, batch, context, 8192, 0.1) for each in (layout, wider))
    table = 2 * architecture.vocab_size * architecture.hidden_size if degree == "pp" and architecture.tie_word_embeddings else 0
    assert lasting(many) <= lasting(few) + table + 1


@given(asked())
@settings(max_examples=40)
def test_one_rank_holds_all(question: tuple[cm.Architecture, cm.Parallel, int, int]) -> None:
    architecture, _, batch, context = question
    held = cm.device_memory(architecture, device(), None, batch, context, view="theory")
    assert held.rows["weights"] == pytest.approx(architecture.weight_bytes(), rel=1e-15)
    kept = architecture.cache_bytes(batch=batch, context=context)
    assert held.cache_bytes == pytest.approx(kept, rel=1e-15) == held.theory_bytes
    paged = cm.device_memory(architecture, device(), None, batch, context, speculative=2)
    assert paged.cache_bytes == pytest.approx(
        architecture.cache_bytes(batch=batch, context=context, view="engine", speculative=2), rel=1e-15
    )
    assert paged.theory_bytes == held.cache_bytes <= paged.cache_bytes


@given(asked())
@settings(max_examples=40)
def test_views_and_sums_over_ranks(question: tuple[cm.Architecture, cm.Parallel, int, int]) -> None:
    architecture, layout, batch, context = question
    held = cm.device_memory(architecture, device(), layout, batch, context)
    plain = cm.device_memory(architecture, device(), layout, batch, context, view="theory")
    assert lasting(plain) <= lasting(held)
    assert held.theory_bytes <= held.engine_bytes == held.cache_bytes
    assert plain.theory_bytes == plain.cache_bytes
    assert held.rows["weights"] == by_stage(held, "weights")[held.stage]
    kept = [one + other for one, other in zip(by_stage(plain, "cache"), by_stage(plain, "state"), strict=True)]
    assert layout.ranks * sum(kept) >= architecture.cache_bytes(batch=batch, context=context) * (1 - 1e-12)
    only_tp = cm.device_memory(architecture, device(), cm.Parallel(tp=layout.tp), batch, context)
    engine = architecture.cache_bytes(batch=batch, context=context, view="engine", tp=layout.tp)
    assert layout.tp * only_tp.cache_bytes == pytest.approx(engine, rel=1e-12, abs=2 * layout.tp)


def test_nothing_is_copied_where_degrees_divide() -> None:
    for name, tp in (("llama-3.1-8b", 8), ("gemma-3-27b", 16), ("gpt2", 4)):
        held = cm.device_memory(name, device(), cm.Parallel(tp=tp, dp=2, cp=2), 8, 4096, view="theory")
        assert 4 * tp * held.rows["cache"] == cm.load(name).cache_bytes(batch=8, context=4096)
    state = cm.device_memory("mamba2-2.7b", device(), cm.Parallel(dp=2, cp=2), 8, 4096, view="theory")
    assert 2 * state.rows["state"] == cm.load("mamba2-2.7b").cache_bytes(batch=8, context=4096)  # whole on each context rank
    latent = cm.device_memory("deepseek-v3", device(), cm.Parallel(tp=8), 8, 4096, view="theory")
    assert latent.rows["cache"] == cm.load("deepseek-v3").cache_bytes(batch=8, context=4096)


@given(asked())
@settings(max_examples=40)
def test_stages_hold_the_model_once(question: tuple[cm.Architecture, cm.Parallel, int, int]) -> None:
    architecture, layout, *_ = question
    assume(not any(group.shared for group in architecture.layers))
    held = cm.device_memory(architecture, device(), cm.Parallel(pp=layout.pp), 1, 1)
    copied = 2 * architecture.vocab_size * architecture.hidden_size * (architecture.tie_word_embeddings and layout.pp > 1)
    assert sum(by_stage(held, "weights")) == pytest.approx(architecture.weight_bytes() + copied, rel=1e-12)


@given(asked(), st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300_000)), min_size=1, max_size=5))
@settings(max_examples=40)
def test_arrays_are_the_points(question: tuple[cm.Architecture, cm.Parallel, int, int], points: list[tuple[int, int]]) -> None:
    architecture, layout, *_ = question
    batches, contexts = (np.array(values) for values in zip(*points, strict=True))
    demand = Demand(architecture, cm.Precision(), View(engine=True))
    rows = demand.rows(layout.pp, rank_letters(layout, batches, contexts, 8192))
    for place, (batch, context) in enumerate(points):
        held = cm.device_memory(architecture, device(), layout, batch, context)
        assert held.used_bytes == sum(held.rows.values())
        assert {name: rows[name][place] for name in NAMES if rows[name][place]} == {
            name: size for name, size in held.rows.items() if name != "reserve"
        }


def test_every_row_is_a_formula() -> None:
    layout = cm.Parallel(tp=2, dp=2, cp=2, pp=2, ep=8)
    held = cm.device_memory("deepseek-v3", device(), layout, 6, 4096)
    ranks = {"tp_ranks": 2, "dp_ranks": 2, "cp_ranks": 2, "ep_ranks": 8}
    everything = {"batch": 6, "context": 4096, "new_tokens": 8192, **ranks}
    for name in NAMES:
        formula = held.formula(name)
        asked = {given: everything[given] for given in formula.inputs}
        assert math.ceil(formula(**asked)) == held.rows.get(name, 0), name
        assert formula.unit == "bytes"
        assert formula.latex
        assert sum(part(**asked) for part in formula.parts.values()) == pytest.approx(formula(**asked))
    refused(lambda: held.formula("reserve"), "no memory row 'reserve'", "weights")


# inverse answers


@lru_cache(maxsize=8)
def tiny(name: str) -> cm.Architecture:
    attention = cm.GQA(num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=40 if name == "windows" else None)
    state = cm.GatedDeltaNet(
        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8, linear_conv_kernel_dim=4
    )
    mixer = state if name == "state" else attention
    experts = cm.MoE(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=16)
    return model(
        cm.LayerGroup(name="first", count=3, mixer=mixer, feed_forward=experts),
        cm.LayerGroup(name="second", count=2, mixer=mixer, feed_forward=cm.MLP(intermediate_size=64)),
    )


@given(
    st.sampled_from(["plain", "windows", "state"]), st.sampled_from(LAYOUTS[:3] + LAYOUTS[4:9]), st.integers(1, 9),
    st.integers(1, 99), st.integers(50_000, 400_000),
)  # fmt: skip
@settings(max_examples=15)
def test_inverse_answers_are_those_of_a_search(name: str, degrees: dict[str, int], batch: int, context: int, memory: int) -> None:
    held = cm.device_memory(tiny(name), device(memory), cm.Parallel(**degrees), batch, context, pass_tokens=64)

    def largest(numbers: range, field: str) -> int | None:
        return max((number for number in numbers if replace(held, **{field: number}).fits), default=None)

    for answer, field in ((held.longest_context, "context"), (held.most_sequences, "batch")):
        if answer is None or answer < 200:
            assert answer == largest(range(1, 205), field)
        else:
            assert replace(held, **{field: answer}).fits
            assert answer == 10**12 or not replace(held, **{field: answer + 1}).fits

    def fits(layout: cm.Parallel, *formats: str) -> bool:
        return cm.device_memory(tiny(name), device(memory), layout, batch, context, *formats, pass_tokens=64).fits

    if name != "state":  # where heads limit nothing, any number may do
        assert held.fewest_devices == min((tp for tp in (1, 2, 4) if fits(cm.Parallel(tp=tp))), default=None)
    assert held.loosest == next((pair for pair in LADDER if fits(held.layout, *pair)), None)


def test_where_nothing_binds() -> None:
    held = cm.device_memory("mamba2-2.7b", "h100-sxm", batch=4)
    assert held.longest_context == 10**12
    assert (held.most_sequences or 0) > 100
    never = cm.device_memory("deepseek-v3", "rtx-4090", cm.Parallel(tp=2))
    assert (never.fits, never.longest_context, never.most_sequences, never.loosest) == (False, None, None, None)
    assert never.free_bytes < 0


# bad input


def test_bad_requests(capsys: pytest.CaptureFixture[str]) -> None:
    def ask(**changes: Any) -> DeviceMemory:
        return cm.device_memory(**({"model": "gpt2", "accelerator": "h100-sxm"} | changes))

    for name in ("batch", "context", "pass_tokens"):
        for value in (0, -1, 1.5, NAN, INF, True, None, "8", HUGE):
            refused(lambda name=name, value=value: ask(**{name: value}), f"{name} got")  # type: ignore[misc]
    for name in ("mtp", "speculative"):
        for value in (-1, 0.5, NAN, True, None, "1", HUGE):
            refused(lambda name=name, value=value: ask(**{name: value}), f"{name} got")  # type: ignore[misc]
    for value in (-0.1, 1, 1.0, 2, NAN, INF, True, None, "0.1", HUGE):
        refused(lambda value=value: ask(reserve=value), "reserve got", "at least 0 and less than 1")  # type: ignore[misc]
    for value in ("engin", "", None, 1, ["engine"]):
        refused(lambda value=value: ask(view=value), "view got", "theory or engine")  # type: ignore[misc]
    for value in (8, "tp8", {"tp": 8}):
        refused(lambda value=value: ask(parallel=value), "parallel got")  # type: ignore[misc]
    refused(lambda: ask(precision="fp9"), "fp9")
    refused(lambda: ask(cache_precision="int3"), "int3")
    refused(lambda: ask(model="gpt3"), "gpt3")
    refused(lambda: ask(accelerator="h1000"), "h1000")
    refused(lambda: ask(mtp=1), "gpt2 has 0 modules that guess")
    refused(lambda: ask(model="deepseek-v3", mtp=2), "has 1 modules", "mtp=1")
    refused(lambda: ask(model="deepseek-v3", mtp=1, draft="gpt2"), "give one of them")
    refused(lambda: ask(draft="gpt9"), "gpt9")
    refused(lambda: ask(parallel=cm.Parallel(tp=5)), "tp 5 does not divide the 12 heads")
    refused(lambda: ask(parallel=cm.Parallel(pp=13)), "pp 13 exceeds the 12 layers")
    refused(lambda: ask(parallel=cm.Parallel(tp=2, ep=2)), "ep 2 spreads experts, and gpt2 has none")
    refused(lambda: ask(model="mixtral-8x7b", parallel=cm.Parallel(dp=16, ep=16)), "ep 16 exceeds the 8 experts")
    for arguments in (
        ["gpt2"], ["gpt2", "--on", "h1000"], ["gpt2", "--on", "l4", "--tp", "5"], ["gpt2", "--on", "l4", "--tp", "0"],
        ["gpt2", "--on", "l4", "--pp", "13"], ["gpt2", "--on", "l4", "--ep", "2"], ["gpt2", "--on", "l4", "--tp", "2", "--ep", "2"],
        ["gpt2", "--on", "l4", "--batch", "0"], ["gpt2", "--on", "l4", "--context", "0"], ["gpt2", "--on", "l4", "--view", "both"],
        ["gpt2", "--on", "l4", "--reserve", "1"], ["gpt2", "--on", "l4", "--reserve", "nan"], ["gpt2", "--on", "l4", "--mtp", "1"],
        ["gpt2", "--on", "l4", "--pass-tokens", "none"], ["nothing", "--on", "l4"], ["gpt2", "--on", "l4", "--draft", "nothing"],
    ):  # fmt: skip
        command_refuses(capsys, "memory", *arguments)
