"""Attention in chunks, and on another layer's keys and values: loops, numbers, and a real model whose last layers share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import costmodel as cm
from costmodel.blocks import GQA
from costmodel.blocks.base import Keeping, ops_of
from costmodel.evaluate import evaluate
from costmodel.layers import LayerGroup
from costmodel.ops import visible_pairs
from costmodel.symbols import C_a, S, T
from costmodel.workload import Pass, Phase
from tests.families import gqa, model

sizes = st.integers(1, 40)


# in chunks


@given(context=sizes, data=st.data(), chunk=st.integers(1, 50))
def test_visible_pairs_in_chunks(context: int, data: st.DataObject, chunk: int) -> None:
    new = data.draw(st.integers(1, context))
    loop = sum(1 for query in range(context - new, context) for key in range(query + 1) if query // chunk == key // chunk)
    at = {S: context, T: new, C_a: chunk}
    assert evaluate(visible_pairs("causal", Phase.PREFILL, chunk=C_a), at) == loop
    if new == 1:
        assert evaluate(visible_pairs("causal", Phase.DECODE, chunk=C_a), at) == loop


@given(context=sizes, chunk=st.integers(1, 50))
def test_a_chunk_keeps_no_more_than_its_tokens(context: int, chunk: int) -> None:
    """A token takes the place of the one a chunk before it."""
    block = GQA(num_attention_heads=6, num_key_value_heads=2, head_dim=5, v_head_dim=3, attention_chunk_size=chunk)
    places = {token % chunk: token for token in range(context)}
    cache = model(LayerGroup(name="only", count=1, mixer=block)).cache_bytes
    assert cache(context=context, precision=cm.Precision(cache=1)) == len(places) * 2 * (5 + 3)


# on another layer's keys and values


def layers(block: GQA, **changes: Any) -> cm.Architecture:
    return model(LayerGroup(name="only", count=1, mixer=block.model_copy(update=changes)))


def parts(quantity: cm.Formula, **at: Any) -> dict[str, int | float]:
    return {name: part(**at) for name, part in quantity.parts["only"].parts["gqa"].parts.items()}


@given(block=gqa(), data=st.data(), context=sizes)
def test_a_layer_that_shares_differs_by_its_keys_and_values_alone(block: GQA, data: st.DataObject, context: int) -> None:
    new = data.draw(st.integers(1, context))
    at = {"new_tokens": new, "context": context, "batch": 2}
    kept, alone = {"shares_kv": True, "own_key_norm": False}, {"shares_kv": False, "own_key_norm": False}
    shared, own = layers(block, **kept), layers(block, **alone)
    with_values = block.num_key_value_heads * (block.head_dim + (block.v_head_dim or block.head_dim))
    weights = with_values * (16 + block.qkv_bias)
    norm = {"head": block.head_dim, "full": block.num_key_value_heads * block.head_dim}.get(block.qk_norm or "", 0)
    assert own.params.total - shared.params.total == weights + norm

    flops, others = parts(own.flops, **at), parts(shared.flops, **at)
    assert flops.pop("k_proj") + flops.pop("v_proj") == 2 * 2 * new * 16 * with_values
    assert flops == others  # attention over the same pairs


@given(block=gqa(), data=st.data(), context=sizes)
def test_a_layer_that_shares_reads_the_other_layers_cache_and_writes_none(block: GQA, data: st.DataObject, context: int) -> None:
    new = data.draw(st.integers(1, context))
    shared, own = (layers(block, shares_kv=shares, own_key_norm=False) for shares in (True, False))
    assert shared.cache_bytes(context=context) == 0
    assert shared.cache_bytes(context=context, view="engine", tp=3, block=4) == 0
    at = {"new_tokens": new, "context": context, "batch": 2}
    written = 2 * own.cache_bytes(context=1) * new  # 2 sequences
    read = {name: parts(one.bytes_moved, **at)["attention"] for name, one in (("own", own), ("shared", shared))}
    assert read["own"] - read["shared"] == written


def test_a_layer_that_shares_says_so() -> None:
    block = GQA(num_attention_heads=4, num_key_value_heads=2, head_dim=8, shares_kv=True)
    assert block.keeping is Keeping.SHARED
    assert block.keeps == "keep nothing of their own and read what another layer keeps"


def test_a_norm_of_shared_keys_may_be_applied_to_queries() -> None:
    """A layer's own weights of the norm of keys that another layer keeps: on the keys, or on its queries."""
    rng = np.random.default_rng(0)
    query, key, weight, eps = rng.normal(size=(3, 8)), rng.normal(size=(5, 8)), rng.normal(size=8), 1e-6
    normed = key / np.sqrt((key**2).mean(-1, keepdims=True) + eps)
    np.testing.assert_allclose(query @ (weight * normed).T, (query * weight) @ normed.T)
    block = GQA(num_attention_heads=4, num_key_value_heads=2, head_dim=8, qk_norm="head", shares_kv=True, own_key_norm=True)
    plain = block.model_copy(update={"own_key_norm": False})
    assert layers(block).params.total - layers(plain).params.total == 8
    row = next(op for op in ops_of(block, Pass()) if op.name == "k_norm")
    assert evaluate(row.cost.vector_flops.xreplace(block.binding()), {cm.symbols.B: 1, T: 3}) == 3 * 4 * 8


@pytest.mark.parametrize("fields", [{"qk_norm": "head"}, {"shares_kv": True}, {"shares_kv": True, "qk_norm": "full"}])
def test_an_own_norm_of_keys_needs_shared_keys(fields: dict[str, Any]) -> None:
    with pytest.raises(cm.CostModelError, match="own_key_norm"):
        GQA(num_attention_heads=4, num_key_value_heads=2, head_dim=8, own_key_norm=True, **fields)


# the last layers read what the last of their kind before them keeps, as in Gemma 3n

HEADS: dict[str, Any] = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "qk_norm": "head"}
ORDER = ("local", "local", "global", "local", "global-shared", "local-shared")


def last_layers_share() -> cm.Architecture:
    """Six layers, local and global; the last two keep nothing."""
    groups = []
    for name in dict.fromkeys(ORDER):
        window = 7 if name.startswith("local") else None
        mixer = GQA(**HEADS, sliding_window=window, shares_kv=name.endswith("shared"))
        groups.append(LayerGroup(name=name, count=ORDER.count(name), mixer=mixer, feed_forward=cm.MLP(intermediate_size=72)))
    return model(*groups, pattern=ORDER, hidden_size=48, vocab_size=97, tie_word_embeddings=True)


def test_layers_at_the_end_keep_nothing() -> None:
    ours = last_layers_share()
    kept = ours.cache_bytes.having(precision=cm.Precision(cache=1)).parts
    assert {name: part(context=100) for name, part in kept.items()} == {
        "local": 3 * 2 * 2 * 10 * 7, "global": 2 * 2 * 10 * 100,
    }  # fmt: skip


@pytest.mark.torch
def test_a_real_model_whose_last_layers_share() -> None:
    """Gemma 3n's attention layers: parameters of each, keys and values of a prompt, and FLOPs under the counter."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    types = {"local": "sliding_attention", "global": "full_attention"}
    config = transformers.Gemma3nTextConfig(
        hidden_size=48, vocab_size=97, vocab_size_per_layer_input=97, hidden_size_per_layer_input=4, num_attention_heads=6,
        num_key_value_heads=2, head_dim=10, intermediate_size=72, num_hidden_layers=6, sliding_window=7, laurel_rank=3,
        layer_types=[types[name.split("-")[0]] for name in ORDER], num_kv_shared_layers=2, activation_sparsity_pattern=[0.0] * 6,
    )  # fmt: skip
    reference = transformers.Gemma3nForCausalLM._from_config(config, attn_implementation="eager").eval()
    ours, prompt = last_layers_share(), 20
    for name, layer in zip(ours.layer_order, reference.model.layers, strict=True):
        mixer = ours.params.formula("total").parts[name].parts["gqa"]() // ORDER.count(name)
        assert sum(tensor.numel() for tensor in layer.self_attn.parameters()) == mixer, name

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        kept = reference(input_ids=torch.zeros(1, prompt, dtype=torch.long), use_cache=True).past_key_values
    of_layer = counter.get_flop_counts()
    for place, name in enumerate(ours.layer_order):
        part = ours.flops.having(attention="full").parts[name].parts["gqa"]
        counted = sum(of_layer[f"Gemma3nForCausalLM.model.layers.{place}.self_attn"].values())
        assert part(new_tokens=prompt, context=prompt) == counted * ORDER.count(name), name
    elements = [0 if layer.keys is None else layer.keys.numel() + layer.values.numel() for layer in kept.layers]
    window = 6  # the implementation keeps W - 1 tokens
    tokens = {"local": window, "global": prompt, "global-shared": 0, "local-shared": 0}
    assert elements == [2 * 2 * 10 * tokens[name] for name in ORDER]
