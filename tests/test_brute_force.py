"""A short loop beside each closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sympy import Integer

import costmodel as cm
from costmodel.blocks import GQA, MLA, GatedDeltaNet, MoE
from costmodel.cost import Kept
from costmodel.evaluate import distinct_experts, evaluate
from costmodel.layers import LayerGroup
from costmodel.ops import chunk_powers, visible_pairs
from costmodel.symbols import B, S, T, W
from costmodel.workload import FORMATS, Phase, Precision, View
from tests.families import model

sizes = st.integers(1, 40)


@given(context=sizes, data=st.data(), window=st.integers(1, 50), windowed=st.booleans())
def test_visible_pairs(context: int, data: st.DataObject, window: int, windowed: bool) -> None:
    new = data.draw(st.integers(1, context))
    loop = sum(
        1 for query in range(context - new, context) for key in range(query + 1) if not windowed or query - key < window
    )  # query and key positions from 0; a query sees itself
    formula = visible_pairs("causal", Phase.PREFILL, W if windowed else None)
    assert evaluate(formula, {S: context, T: new, W: window}) == loop
    assert evaluate(visible_pairs("full", Phase.PREFILL, W), {S: context, T: new}) == new * context


@given(tokens=st.integers(1, 200), chunk=st.integers(1, 70), power=st.sampled_from([1, 2, 3]))
def test_chunk_powers(tokens: int, chunk: int, power: int) -> None:
    lengths = [len(range(start, min(start + chunk, tokens))) for start in range(0, tokens, chunk)]
    assert chunk_powers(Integer(tokens), Integer(chunk), power) == sum(length**power for length in lengths)


def matmul(m: int, k: int, n: int) -> int:
    """Multiply-adds of [m, k] @ [k, n], two FLOPs each, counted one by one."""
    return sum(2 for _ in range(m) for _ in range(n) for _ in range(k))


@given(tokens=st.integers(1, 11), chunk=st.integers(1, 5), d_k=st.integers(1, 3), d_v=st.integers(1, 3))
def test_chunked_delta_rule(tokens: int, chunk: int, d_k: int, d_v: int) -> None:
    """Every matmul of the published chunked form, chunk by chunk, with the last chunk at its real length."""
    flops = 0
    for start in range(0, tokens, chunk):
        c = min(chunk, tokens - start)
        flops += matmul(c, d_k, c)  # keys on keys, for the triangular factor
        flops += matmul(c, c, d_v)  # the factor on values
        flops += matmul(c, c, d_k)  # the factor on decayed keys
        flops += matmul(c, d_k, c)  # queries on keys
        flops += matmul(c, d_k, d_v)  # what the state holds for the keys, subtracted from the values
        flops += matmul(c, d_k, d_v)  # queries on the state
        flops += matmul(c, c, d_v)  # scores on the new values
        flops += matmul(d_k, c, d_v)  # the new state
    assert _delta_rule(tokens, chunk, d_k, d_v, "chunked") == flops


@given(tokens=st.integers(1, 11), d_k=st.integers(1, 3), d_v=st.integers(1, 3))
def test_recurrent_delta_rule(tokens: int, d_k: int, d_v: int) -> None:
    """One step retrieves (k S), writes (k outer the correction) and reads (q S)."""
    steps = sum(matmul(1, d_k, d_v) + matmul(d_k, 1, d_v) + matmul(1, d_k, d_v) for _ in range(tokens))
    assert _delta_rule(tokens, 64, d_k, d_v, "recurrent") == steps


def _delta_rule(tokens: int, chunk: int, d_k: int, d_v: int, algorithm: str) -> int:
    block = GatedDeltaNet(
        linear_num_key_heads=1, linear_num_value_heads=1, linear_key_head_dim=d_k, linear_value_head_dim=d_v,
        linear_conv_kernel_dim=4, chunk_size=chunk,
    )  # fmt: skip
    architecture = model(LayerGroup(name="only", count=1, mixer=block))
    part = architecture.flops.having(algorithm=algorithm).parts["only"].parts["gated_deltanet"].parts["delta_rule"]
    return int(part(new_tokens=tokens, context=tokens))


@pytest.mark.parametrize(("tokens", "chunk", "d_k", "d_v"), [(150, 64, 7, 5), (64, 64, 3, 4), (1, 64, 5, 5), (65, 16, 4, 6)])
def test_chunked_form_computes_the_recurrence(tokens: int, chunk: int, d_k: int, d_v: int) -> None:
    """The matmuls counted above are the whole algorithm: run on numbers, both forms give the same outputs."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(tokens, d)) for d in (d_k, d_k, d_v))
    k /= np.linalg.norm(k, axis=1, keepdims=True)
    decay, beta = rng.uniform(0.8, 1, tokens), rng.uniform(0, 1, tokens)

    state, outputs = np.zeros((d_k, d_v)), []
    for t in range(tokens):
        state = state * decay[t]
        state = state + np.outer(k[t], beta[t] * (v[t] - k[t] @ state))
        outputs.append(q[t] @ state)

    state, chunked = np.zeros((d_k, d_v)), []
    for start in range(0, tokens, chunk):
        part = slice(start, min(start + chunk, tokens))
        qc, kc, vc, bc, g = q[part], k[part], v[part], beta[part], np.cumprod(decay[part])
        ratio = np.tril(g[:, None] / g[None, :])
        below = np.tril(bc[:, None] * (kc @ kc.T) * ratio, -1)
        factor = np.linalg.inv(np.eye(len(g)) + below)
        values = factor @ (bc[:, None] * vc) - (factor @ ((bc * g)[:, None] * kc)) @ state
        chunked.append((g[:, None] * qc) @ state + (np.tril(qc @ kc.T) * ratio) @ values)
        state = g[-1] * state + ((g[-1] / g)[:, None] * kc).T @ values
    np.testing.assert_allclose(np.concatenate(chunked), outputs, rtol=1e-9, atol=1e-9)


def test_absorbed_and_expanded_attention_are_one_function() -> None:
    """Both algorithms of latent attention, written out with their matmuls counted, agree in value and in our FLOPs."""
    rng = np.random.default_rng(1)
    heads, d_c, d_h, d_r, d_v, context, new = 3, 6, 5, 2, 4, 9, 4
    latent, rope = rng.normal(size=(context, d_c)), rng.normal(size=(context, d_r))
    query, query_rope = rng.normal(size=(heads, new, d_h)), rng.normal(size=(heads, new, d_r))
    to_key, to_value = rng.normal(size=(heads, d_c, d_h)), rng.normal(size=(heads, d_c, d_v))
    seen = np.tril(np.ones((new, context)), context - new) > 0
    counted = {"expanded": 0, "absorbed": 0}

    def times(form: str, a: Any, b: Any) -> Any:
        counted[form] += heads * 2 * a.shape[-2] * a.shape[-1] * b.shape[-1]
        return a @ b

    def softmax(scores: Any) -> Any:
        raised = np.where(seen, np.exp(scores), 0)
        return raised / raised.sum(-1, keepdims=True)

    keys, values = times("expanded", latent[None], to_key), times("expanded", latent[None], to_value)
    whole = np.concatenate([keys, np.broadcast_to(rope, (heads, context, d_r))], -1)
    scores = times("expanded", np.concatenate([query, query_rope], -1), whole.swapaxes(1, 2))
    expanded = times("expanded", softmax(scores), values)

    inner = times("absorbed", query, to_key.swapaxes(1, 2))
    kept = np.broadcast_to(np.concatenate([latent, rope], -1), (heads, context, d_c + d_r))
    scores = times("absorbed", np.concatenate([inner, query_rope], -1), kept.swapaxes(1, 2))
    absorbed = times("absorbed", times("absorbed", softmax(scores), kept[..., :d_c]), to_value)
    np.testing.assert_allclose(absorbed, expanded)

    block = MLA(num_attention_heads=heads, kv_lora_rank=d_c, qk_nope_head_dim=d_h, qk_rope_head_dim=d_r, v_head_dim=d_v)
    architecture = model(LayerGroup(name="only", count=1, mixer=block))
    for form, flops in counted.items():
        parts = architecture.flops.having(algorithm=form, attention="full").parts["only"].parts["mla"].parts
        assert sum(parts[op](new_tokens=new, context=context) for op in ("kv_b_proj", "attention")) == flops


@given(experts=st.integers(1, 6), data=st.data(), tokens=st.integers(1, 3))
def test_distinct_experts_by_enumeration(experts: int, data: st.DataObject, tokens: int) -> None:
    """Linearity of expectation: each expert is missed by a token with probability 1 - k/E."""
    from itertools import combinations, product

    used = data.draw(st.integers(1, min(experts, 3)))
    choices = list(combinations(range(experts), used))
    picks = list(product(choices, repeat=tokens))
    mean = sum(len(set().union(*map(set, pick))) for pick in picks) / len(picks)
    assert evaluate(distinct_experts(Integer(experts), Integer(used), Integer(tokens)), {}) == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("letter", ["num_experts", "num_experts_per_tok", "new_tokens"])
def test_slopes_of_distinct_experts(letter: str) -> None:
    """Against central differences of the closed form."""
    values = {"num_experts": 64.0, "num_experts_per_tok": 6.0, "new_tokens": 9.0}

    def touched(num_experts: float, num_experts_per_tok: float, new_tokens: float) -> float:
        return num_experts * (1 - (1 - num_experts_per_tok / num_experts) ** new_tokens)

    step = 1e-4
    up, down = (touched(**{**values, letter: values[letter] + sign * step}) for sign in (1, -1))
    moved = cm.family("moe", gated=False, num_shared_experts=0).bytes_moved.parts["experts.up_proj"]
    traffic = moved.having(precision=cm.Precision(experts=1, activations=1e-9)).derivative(letter)
    slope = traffic(d_model=1, d_e=1, E=64, k=6, new_tokens=9, context=9)
    assert slope == pytest.approx((up - down) / (2 * step), rel=1e-4)


def test_distinct_experts_is_exact_where_a_power_is_not() -> None:
    """One token touches k experts, many touch all; a huge pass takes no longer than a small one."""
    moe = MoE(num_experts=256, num_experts_per_tok=8, moe_intermediate_size=4)
    architecture = model(LayerGroup(name="only", count=1, feed_forward=moe))
    rows = {row["op"]: row for row in architecture.ledger_rows(new_tokens=1, context=1)}
    assert rows["experts.up_proj"]["weight_bytes_moved"] == pytest.approx(8 * 16 * 4 * 2, rel=1e-14)
    rows = {row["op"]: row for row in architecture.ledger_rows(new_tokens=10**9, context=10**9)}
    assert rows["experts.up_proj"]["weight_bytes_moved"] == 256 * 16 * 4 * 2


@given(context=sizes, block=st.integers(1, 20), window=st.integers(1, 50), tp=st.integers(1, 6), heads=st.integers(1, 8))
def test_engine_view_page_by_page(context: int, block: int, window: int, tp: int, heads: int) -> None:
    pages = len(range(0, context, block))
    per_rank = max(1, math.ceil(heads / tp))
    keys = Kept("keys", Integer(heads), Integer(3), reach=Integer(window))
    plain = Precision(cache=1)
    for evict in (False, True):
        held = min(pages, len(range(0, window, block)) + 1) if evict else pages
        view = View(True, block, evict, tp)
        assert evaluate(keys.bytes(plain, view), {S: context, B: 2}) == 2 * held * block * per_rank * tp * 3
    latent = Kept("latent", Integer(1), Integer(5), split=False)
    assert evaluate(latent.bytes(plain, View(True, block, False, tp)), {S: context, B: 1}) == pages * block * tp * 5
    state = Kept("state", Integer(heads), Integer(7), per_token=False, role="state", own=Integer(4))
    assert evaluate(state.bytes(plain, View(True, block, False, tp, speculative=2)), {B: 1}) == 3 * per_rank * tp * 7 * 4


@pytest.mark.parametrize("name", sorted(FORMATS))
@given(d_in=st.integers(1, 600), d_out=st.integers(1, 300))
def test_format_bytes(name: str, d_in: int, d_out: int) -> None:
    """Bytes of a matrix, block by block."""

    def blocks(width: int, length: int) -> int:
        return len(range(0, length, width))

    elements = d_in * d_out
    expected = {
        "fp32": 4 * elements, "fp16": 2 * elements, "bf16": 2 * elements,
        "fp8": elements + 4 * blocks(128, d_in) * blocks(128, d_out),
        "int8": elements + 2 * d_out,
        "int4": sum(blocks(2, d_in) + 2 * blocks(128, d_in) for _ in range(d_out)),
        "mxfp4": sum(blocks(2, d_in) + blocks(32, d_in) for _ in range(d_out)),
        "nvfp4": sum(blocks(2, d_in) + blocks(16, d_in) for _ in range(d_out)),
        "q8_0": sum((32 + 2) * blocks(32, d_in) for _ in range(d_out)),
        "q6_K": sum((128 + 64 + 16 + 2) * blocks(256, d_in) for _ in range(d_out)),
        "q5_K": sum((128 + 32 + 12 + 4) * blocks(256, d_in) for _ in range(d_out)),
        "q4_K": sum((128 + 12 + 4) * blocks(256, d_in) for _ in range(d_out)),
    }  # fmt: skip
    assert FORMATS[name].bytes(Integer(d_in), Integer(d_out)) == expected[name]


def test_fp8_scales_of_deepseek_v3() -> None:
    """41,540,496 scales with the multi-token-prediction module; all but those scales and the bf16 parts is one byte."""
    deepseek = cm.load("deepseek-v3")
    matrices = [
        weight
        for row in deepseek.ledger_rows(precision="fp8", mtp=1)
        for weight in [(row["params"], row["weight_bytes"])]
    ]  # fmt: skip
    scales = sum((size - count) // 4 for count, size in matrices if count < size < 2 * count)
    assert scales == 41_540_496


@given(context=sizes, heads=st.integers(1, 4), window=st.none() | st.integers(1, 50))
def test_attention_flops_pair_by_pair(context: int, heads: int, window: int | None) -> None:
    block = GQA(num_attention_heads=2 * heads, num_key_value_heads=heads, head_dim=5, v_head_dim=3, sliding_window=window)
    architecture = model(LayerGroup(name="only", count=1, mixer=block))
    loop = sum(
        2 * (5 + 3) for query in range(context) for key in range(query + 1) if window is None or query - key < window
    ) * 2 * heads  # fmt: skip
    part = architecture.prefill_flops.parts["only"].parts["gqa"].parts["attention"]
    assert part(context=context) == loop
