"""What must hold for every family, over random architectures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.architecture import Architecture
from costmodel.blocks import FAMILIES, GQA, GatedDeltaNet, Mixer
from costmodel.blocks.base import ops_of
from costmodel.catalog import QUANTITIES, load, presets
from costmodel.evaluate import evaluate
from costmodel.layers import LayerGroup
from costmodel.symbols import B, S, T
from costmodel.workload import Pass, Phase
from tests.families import BLOCKS, architectures, gqa, mlp, model

contexts = st.integers(1, 60)
KINDS = sorted(FAMILIES)
ONE_ALGORITHM = ("absorbed", "recurrent")
"""The forms in which each token's work depends on what came before it alone: their decode steps sum to prefill."""


def inputs_of(formula: Any, new: int, context: int, batch: int) -> dict[str, int]:
    """The letters a quantity takes."""
    given_ = {"batch": batch, "new_tokens": new, "context": context}
    return {name: value for name, value in given_.items() if name in formula.inputs}


def test_every_family_has_a_strategy() -> None:
    assert set(BLOCKS) == set(FAMILIES)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_active_is_at_most_total(kind: str, data: st.DataObject) -> None:
    params = data.draw(architectures(kind)).params
    assert 0 < params.active <= params.total
    assert params.active <= params.active_with_embedding
    assert params.routed_experts <= params.total


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(data=st.data(), context=contexts, batch=st.integers(1, 4))
def test_parts_sum_to_the_whole(kind: str, data: st.DataObject, context: int, batch: int) -> None:
    architecture, new = data.draw(architectures(kind)), data.draw(st.integers(1, context))
    for name in (*QUANTITIES, *(f"params.{count}" for count in architecture.params.NAMES)):
        formula = architecture.params.formula(name[7:]) if name.startswith("params.") else getattr(architecture, name)
        at = inputs_of(formula, new, context, batch)
        whole = formula(**at)
        groups = formula.parts.values()
        assert sum(part(**at) for part in groups) == pytest.approx(whole, rel=1e-12)
        assert sum(op(**at) for part in groups for block in part.parts.values() for op in block.parts.values()) == pytest.approx(
            whole, rel=1e-12
        )


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), context=contexts, batch=st.integers(1, 4))
def test_ledger_sums_to_the_quantities(kind: str, data: st.DataObject, context: int, batch: int) -> None:
    architecture, new = data.draw(architectures(kind)), data.draw(st.integers(1, context))
    rows = architecture.ledger_rows(new, context, batch)
    assert sum(row["params"] for row in rows) == architecture.params.total
    assert sum(row["flops"] for row in rows) == architecture.flops(new_tokens=new, context=context, batch=batch)
    assert sum(row["weight_bytes"] for row in rows) == architecture.weight_bytes()
    assert sum(row["cache_bytes"] for row in rows) == architecture.cache_bytes(context=context, batch=batch)
    moved = architecture.bytes_moved(new_tokens=new, context=context, batch=batch)
    assert sum(row["bytes_moved"] for row in rows) == pytest.approx(moved, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), context=contexts)
def test_expression_equals_the_exact_walk(kind: str, data: st.DataObject, context: int) -> None:
    """The bound expression on arrays, and the letters walked with numbers, are two ways to one value."""
    architecture = data.draw(architectures(kind))
    new = np.array([1, *data.draw(st.lists(st.integers(1, context), max_size=4))])
    for formula in (architecture.flops, architecture.bytes_moved):
        values = formula(new_tokens=new, context=context, batch=2)
        assert values.tolist() == pytest.approx([formula(new_tokens=int(n), context=context, batch=2) for n in new], rel=1e-12)
    lengths = np.arange(1, context + 1)
    for formula in (architecture.cache_bytes, architecture.prefill_flops, architecture.decode_flops, architecture.training_flops):
        assert formula(context=lengths).tolist() == [formula(context=int(length)) for length in lengths]


def looks_ahead(architecture: Architecture) -> bool:
    """Whether a token's work depends on what comes after it."""
    return any(group.mixer is not None and group.mixer.looks_ahead for group in architecture.layers)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "token_mixing"])
@given(data=st.data(), context=contexts)
def test_decode_steps_sum_to_prefill(kind: str, data: st.DataObject, context: int) -> None:
    architecture = data.draw(architectures(kind).filter(lambda drawn: not looks_ahead(drawn)))
    options = {"logits": "all", "algorithm": ONE_ALGORITHM}
    steps = sum(architecture.decode_flops(context=length, **options) for length in range(1, context + 1))
    assert steps == architecture.prefill_flops(context=context, **options)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "token_mixing"])
@given(data=st.data(), context=st.integers(2, 60))
def test_passes_in_pieces_sum_to_prefill(kind: str, data: st.DataObject, context: int) -> None:
    """A cached prefix: any split of the prompt costs the same in the one algorithm."""
    architecture = data.draw(architectures(kind).filter(lambda drawn: not looks_ahead(drawn)))
    cut = data.draw(st.integers(1, context - 1))
    options = {"logits": "all", "algorithm": ONE_ALGORITHM}
    first = architecture.flops(new_tokens=cut, context=cut, **options)
    second = architecture.flops(new_tokens=context - cut, context=context, **options)
    assert first + second == architecture.prefill_flops(context=context, **options)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), context=contexts)
def test_decode_branch_is_prefill_at_one_token(kind: str, data: st.DataObject, context: int) -> None:
    """Rows of one algorithm have one formula, written two ways at most."""
    block = data.draw(BLOCKS[kind])
    algorithms = tuple(name for name in ONE_ALGORITHM if name in block.algorithms)
    architecture = model(LayerGroup(name="only", count=1, **{"mixer" if isinstance(block, Mixer) else "feed_forward": block}))
    decode, prefill = (ops_of(block, Pass(phase, "causal", algorithms)) for phase in (Phase.DECODE, Phase.PREFILL))
    assert [op.name for op in decode] == [op.name for op in prefill]
    for term in architecture.flops.having(algorithm=ONE_ALGORITHM).terms:
        values = [evaluate(branch.xreplace(dict(term.binding)), {B: 1, T: 1, S: context}) for branch in (term.decode, term.prefill)]
        assert values[0] == values[1], term.path


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), context=contexts)
def test_costs_grow_with_context(kind: str, data: st.DataObject, context: int) -> None:
    architecture = data.draw(architectures(kind))
    for formula in (architecture.cache_bytes, architecture.prefill_flops, architecture.training_flops):
        assert formula(context=context) <= formula(context=context + 1)
    if all(getattr(group.mixer, "attention_chunk_size", None) is None for group in architecture.layers):  # a new chunk begins empty
        assert architecture.decode_flops(context=context) <= architecture.decode_flops(context=context + 1)
    for view in ({"view": "theory"}, {"view": "engine"}, {"view": "engine", "evict_windows": True, "block": 4}):
        assert architecture.cache_bytes(context=context, **view) <= architecture.cache_bytes(context=context + 1, **view)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), context=contexts, batch=st.integers(1, 5))
def test_batch_multiplies(kind: str, data: st.DataObject, context: int, batch: int) -> None:
    architecture = data.draw(architectures(kind))
    for formula in (architecture.cache_bytes, architecture.flops, architecture.prefill_flops, architecture.decode_flops):
        assert formula(context=context, batch=batch) == batch * formula(context=context)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), context=contexts, block=st.integers(1, 32), tp=st.sampled_from([1, 2, 3, 8]), evict=st.booleans())
def test_theory_is_at_most_engine(kind: str, data: st.DataObject, context: int, block: int, tp: int, evict: bool) -> None:
    cache = data.draw(architectures(kind)).cache_bytes
    theory = cache(context=context)
    engine = cache(context=context, view="engine", block=block, tp=tp, evict_windows=evict)
    assert theory <= engine
    assert engine <= cache(context=context, view="engine", block=block, tp=tp, evict_windows=evict, hybrid_pages=True)
    assert engine <= cache(context=context, view="engine", block=block, tp=tp)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), context=contexts)
def test_causal_is_at_most_full(kind: str, data: st.DataObject, context: int) -> None:
    architecture, new = data.draw(architectures(kind)), data.draw(st.integers(1, context))
    at = {"new_tokens": new, "context": context}
    assert architecture.flops(**at, attention="causal") <= architecture.flops(**at, attention="full")
    assert architecture.flops(**at, logits="last") <= architecture.flops(**at, logits="all")


@given(block=gqa(reach={}), ff=mlp, context=contexts, wider=st.integers(0, 5))
def test_a_window_beyond_the_context_changes_nothing(block: GQA, ff: Any, context: int, wider: int) -> None:
    windowed = block.model_copy(update={"sliding_window": context + wider})
    plain, other = (model(LayerGroup(name="only", count=2, mixer=mixer, feed_forward=ff)) for mixer in (block, windowed))
    for quantity in QUANTITIES:
        formula, same = getattr(plain, quantity), getattr(other, quantity)
        at = inputs_of(formula, context, context, 2)
        assert formula(**at) == same(**at)


@given(data=st.data(), context=contexts)
def test_as_many_kv_heads_as_heads_is_mha(data: st.DataObject, context: int) -> None:
    import costmodel as cm

    block = data.draw(gqa(reach={}, v_head_dim=None, rotary_dim=0, qk_norm=None, output_gate=False))
    block = block.model_copy(
        update={"num_key_value_heads": block.num_attention_heads, "qkv_bias": False, "o_bias": False, "sinks": False}
    )
    architecture = model(LayerGroup(name="only", count=1, mixer=block))
    letters = {"n_h": block.num_attention_heads, "d_h": block.head_dim}
    assert cm.family("mha").cache_bytes(context=context, **letters) == architecture.cache_bytes(context=context)
    mixer = architecture.decode_flops.parts["only"].parts["gqa"]
    assert cm.family("mha").decode_flops(context=context, d_model=16, **letters) == mixer(context=context)


@given(data=st.data())
def test_a_chunk_of_one_token_is_no_cheaper_than_the_recurrence(data: st.DataObject) -> None:
    block: GatedDeltaNet = data.draw(BLOCKS["gated_deltanet"])
    architecture = model(LayerGroup(name="only", count=1, mixer=block))
    at = {"new_tokens": 7, "context": 9}
    assert architecture.flops(**at, algorithm="recurrent") < architecture.flops(**at, algorithm="chunked")


@pytest.mark.parametrize("name", presets())
def test_presets_keep_the_invariants(name: str) -> None:
    architecture: Architecture = load(name)
    assert architecture.params.active <= architecture.params.total
    for context in (1, 17, 4_096, 131_072):
        assert architecture.cache_bytes(context=context) <= architecture.cache_bytes(context=context, view="engine")
    if looks_ahead(architecture):
        return
    options = {"logits": "all", "algorithm": ONE_ALGORITHM}
    steps = sum(architecture.decode_flops(context=length, **options) for length in range(1, 9))
    assert steps == architecture.prefill_flops(context=8, **options)
