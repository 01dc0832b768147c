"""Sparse attention: every pair of the indexer and of attention, counted one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import costmodel as cm
from costmodel.blocks import DSA, MLA
from tests.families import model

SHAPE: dict[str, Any] = {
    "num_attention_heads": 3, "q_lora_rank": 11, "kv_lora_rank": 6, "qk_nope_head_dim": 5, "qk_rope_head_dim": 2, "v_head_dim": 4,
}  # fmt: skip
V32 = cm.load("deepseek-v3.2")


def one_layer(block: Any) -> cm.Architecture:
    return model(cm.LayerGroup(name="only", count=1, mixer=block))


@given(context=st.integers(1, 40), data=st.data(), heads=st.integers(1, 4), width=st.integers(1, 5), topk=st.integers(1, 50))
def test_each_query_meets_every_index_key_and_few_latents(
    context: int, data: st.DataObject, heads: int, width: int, topk: int
) -> None:
    new = data.draw(st.integers(1, context))
    scores = attended = 0
    for query in range(context - new, context):
        visible = range(query + 1)
        for _ in visible:
            scores += sum(2 * width + 2 for _ in range(heads))  # the product with the key, and the head's weight
        attended += len(visible[:topk])
    ours = one_layer(DSA(**SHAPE, index_n_heads=heads, index_head_dim=width, index_topk=topk))
    parts = ours.flops.having(algorithm="absorbed").parts["only"].parts["dsa"].parts
    at = {"new_tokens": new, "context": context}
    assert parts["index_scores"](**at) == scores
    assert parts["attention"](**at) == 2 * 3 * attended * (6 + 2 + 6)
    whole = ours.flops.having(attention="full").parts["only"].parts["dsa"].parts
    assert whole["index_scores"](**at) == new * context * heads * (2 * width + 2)


@given(context=st.integers(1, 60), topk=st.integers(1, 50))
def test_a_step_reads_every_index_key_and_the_latents_it_picks(context: int, topk: int) -> None:
    ours = one_layer(DSA(**SHAPE, index_n_heads=2, index_head_dim=7, index_topk=topk))
    rows = {row["op"]: row for row in ours.ledger_rows(new_tokens=1, context=context)}
    assert rows["index_scores"]["cache_bytes_moved"] == 2 * 7 * (context + 1)
    assert rows["attention"]["cache_bytes_moved"] == 2 * (6 + 2) * (min(context, topk) + 1)


@given(topk=st.integers(20, 50), context=st.integers(1, 20))
def test_more_picks_than_tokens_is_latent_attention_and_the_indexer(topk: int, context: int) -> None:
    sparse = one_layer(DSA(**SHAPE, index_n_heads=2, index_head_dim=7, index_topk=topk))
    dense = one_layer(MLA(**SHAPE))
    indexer = ("index_q_proj", "index_k_proj", "index_weights", "index_scores")
    parts = sparse.prefill_flops.parts["only"].parts["dsa"].parts
    extra = sum(parts[name](context=context) for name in indexer)
    assert sparse.prefill_flops(context=context) == dense.prefill_flops(context=context) + extra


def test_the_indexer_grows_with_the_square_and_attention_does_not_beyond_what_it_picks() -> None:
    parts = V32.prefill_flops.parts["moe"].parts["dsa"].parts
    at = [{"context": 131_072 * times} for times in (1, 2, 4)]
    index, attention = ([parts[name](**where) for where in at] for name in ("index_scores", "attention"))
    assert [round(value / index[0]) for value in index] == [1, 4, 16]
    np.testing.assert_allclose([value / attention[0] for value in attention], [1, 2, 4], rtol=0.01)
    step = V32.decode_flops.parts["moe"].parts["dsa"].parts["attention"]
    assert step(context=2048) == step(context=1_000_000) == 2048 * step(context=1)


def test_packed_forms_have_the_published_bytes() -> None:
    """A token and layer: 656 bytes of latent and rope key, 132 of index key. FlashMLA; DeepSeek-V3.2 report."""
    latent, keys = V32.layers[0].mixer.kept()
    precision = cm.Precision(cache="fp8_ds_mla")
    binding = V32.layers[0].mixer.binding()
    assert [int(kept.unit_bytes(precision, kept.heads).xreplace(binding)) for kept in (latent, keys)] == [656, 132]
    assert V32.cache_bytes(context=1, precision="fp8_ds_mla") == 61 * (656 + 132)
    assert V32.cache_bytes(context=1, precision="fp8") == 61 * (576 + 128)
    assert V32.cache_bytes(context=1) == 61 * 2 * (576 + 128)


def test_the_published_checkpoint_has_as_many_scales() -> None:
    """41,591,584 scales of 4 bytes: those of DeepSeek-V3, and 768 + 56 of the indexer in each of 62 layers."""
    fp8 = cm.Precision(weights="fp8", experts="fp8")
    for name, scales in (("deepseek-v3", 41_540_496), ("deepseek-v3.2", 41_591_584)):
        ours = cm.load(name)
        rows = ours.ledger_rows(mtp=1)
        stored = {row["op"] for row in rows if row["weight_bytes"] and row["kind"] in ("linear", "expert_linear")}
        plain = {"lm_head", "router", "eh_proj", "index_weights"} & stored
        quantised = sum(row["params"] for row in rows if row["kind"] in ("linear", "expert_linear") and row["op"] not in plain)
        others = ours.params.total + ours.params.mtp - quantised
        assert ours.weight_bytes(precision=fp8, mtp=1) == quantised + 2 * others + 4 * scales
    assert 41_591_584 - 41_540_496 == 62 * (64 * 12 + 56)
