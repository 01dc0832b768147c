"""Linear attention: every product of both forms counted, and both run on numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import costmodel as cm
from tests.families import model


class Counted:
    """Products of matrices, and the multiply-adds they take at two FLOPs each."""

    def __init__(self) -> None:
        self.flops = self.decays = 0

    def decayed(self, array: Any, factor: Any) -> Any:
        """An array times a factor for each of its elements."""
        self.decays += array.size
        return array * factor

    def __call__(self, a: Any, b: Any) -> Any:
        self.flops += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b


def asked(block: Any, op: str, tokens: int, algorithm: str) -> int:
    ours = model(cm.LayerGroup(name="only", count=1, mixer=block))
    part = ours.flops.having(algorithm=algorithm).parts["only"].parts[block.kind].parts[op]
    return int(part(new_tokens=tokens, context=tokens))


def kda(tokens: int, chunk: int, width: int, *, chunked: bool) -> tuple[Any, int]:
    """Outputs of the gated delta rule with a decay for each channel, and the FLOPs of its products."""
    rng, times = np.random.default_rng(0), Counted()
    q, k, v = (rng.normal(size=(tokens, width)) for _ in range(3))
    k /= np.linalg.norm(k, axis=1, keepdims=True)
    decay, beta = rng.uniform(0.8, 1, (tokens, width)), rng.uniform(0, 1, tokens)
    state, outputs = np.zeros((width, width)), []
    if not chunked:
        for t in range(tokens):
            state = state * decay[t][:, None]
            correction = beta[t] * (v[t : t + 1] - times(k[t : t + 1], state))
            state = state + times(k[t : t + 1].T, correction)
            outputs.append(times(q[t : t + 1], state))
        return np.concatenate(outputs), times.flops
    for start in range(0, tokens, chunk):
        part = slice(start, min(start + chunk, tokens))
        qc, kc, vc, bc, g = q[part], k[part], v[part], beta[part], np.cumprod(decay[part], axis=0)
        below = np.tril(bc[:, None] * times(kc * g, (kc / g).T), -1)
        factor = np.linalg.inv(np.eye(len(g)) + below)  # the triangular solve, a row of its own
        values = times(factor, bc[:, None] * vc) - times(times(factor, bc[:, None] * kc * g), state)
        outputs.append(times(qc * g, state) + times(np.tril(times(qc * g, (kc / g).T)), values))
        state = g[-1][:, None] * state + times((kc * (g[-1] / g)).T, values)
    return np.concatenate(outputs), times.flops


@pytest.mark.parametrize(("tokens", "chunk", "width"), [(150, 64, 7), (64, 64, 3), (1, 64, 5), (65, 16, 4)])
def test_kimi_delta_attention(tokens: int, chunk: int, width: int) -> None:
    (stepwise, steps), (chunks, together) = (kda(tokens, chunk, width, chunked=chunked) for chunked in (False, True))
    np.testing.assert_allclose(chunks, stepwise, rtol=1e-8, atol=1e-8)
    block = cm.KDA(linear_num_heads=1, linear_head_dim=width, linear_conv_kernel_dim=4, chunk_size=chunk)
    assert asked(block, "delta_rule", tokens, "recurrent") == steps
    assert asked(block, "delta_rule", tokens, "chunked") == together


def lightning(tokens: int, chunk: int, width: int, *, chunked: bool) -> tuple[Any, int, int]:
    """Outputs of linear attention with one decay, the FLOPs of its products, and the elements it decays."""
    rng, times, decay = np.random.default_rng(1), Counted(), 0.93
    q, k, v = (rng.normal(size=(tokens, width)) for _ in range(3))
    state, outputs = np.zeros((width, width)), []
    if not chunked:
        for t in range(tokens):
            state = times.decayed(state, decay) + times(k[t : t + 1].T, v[t : t + 1])
            outputs.append(times(q[t : t + 1], state))
        return np.concatenate(outputs), times.flops, times.decays
    for start in range(0, tokens, chunk):
        part = slice(start, min(start + chunk, tokens))
        qc, kc, vc = q[part], k[part], v[part]
        place = np.arange(1, len(qc) + 1)
        ratio = np.tril(decay ** (place[:, None] - place[None, :]))
        scores = times.decayed(times(qc, kc.T), ratio)
        outputs.append(times(times.decayed(qc, decay ** place[:, None]), state) + times(scores, vc))
        added = times(times.decayed(kc, decay ** (len(qc) - place)[:, None]).T, vc)
        state = times.decayed(state, decay ** len(qc)) + added
    return np.concatenate(outputs), times.flops, times.decays


@given(tokens=st.integers(1, 40), chunk=st.integers(1, 17), width=st.integers(1, 5))
def test_lightning_attention(tokens: int, chunk: int, width: int) -> None:
    (stepwise, steps, each), (chunks, together, masked) = (
        lightning(tokens, chunk, width, chunked=chunked) for chunked in (False, True)
    )
    np.testing.assert_allclose(chunks, stepwise, rtol=1e-8, atol=1e-8)
    block = cm.LightningAttention(num_attention_heads=1, head_dim=width, block_size=chunk)
    assert asked(block, "attention", tokens, "recurrent") == steps
    assert asked(block, "attention", tokens, "chunked") == together
    ours = model(cm.LayerGroup(name="only", count=1, mixer=block))
    for algorithm, decays in (("recurrent", each), ("chunked", masked)):
        rows = ours.ledger_rows(new_tokens=tokens, context=tokens, algorithm=algorithm)
        assert [row["vector_flops"] for row in rows if row["op"] == "decay"] == [decays]


def test_states_have_the_published_sizes() -> None:
    """Kimi Linear: 32 heads [128, 128] in fp32 and three tails of 3 columns in bf16; MiniMax-Text: 64 heads in 16 bits."""
    kimi, minimax = cm.load("kimi-linear-48b-a3b"), cm.load("minimax-text-01")
    states = [part(context=1) for name, part in kimi.cache_bytes.parts.items() if name.startswith("kda")]
    assert sum(states) == 20 * (32 * 128 * 128 * 4 + 3 * 32 * 128 * 3 * 2)
    assert minimax.cache_bytes.parts["lightning"](context=1) == 70 * 64 * 128 * 128 * 2
