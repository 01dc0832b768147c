"""The mLSTM, one step after another and in chunks, with every multiply-add on its memory counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.blocks import MLSTM
from costmodel.layers import LayerGroup
from tests.families import model

Numbers = np.ndarray
EPSILON = 1e-6


class Counted:
    """Matrix products whose multiply-adds are counted, two FLOPs each."""

    def __init__(self) -> None:
        self.flops = 0

    def times(self, a: Numbers, b: Numbers) -> Numbers:
        self.flops += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b


def drawn(tokens: int, d_k: int, d_v: int) -> dict[str, Numbers]:
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=(tokens, width)) for name, width in (("q", d_k), ("k", d_k), ("v", d_v))}
    return {**vectors, "i": rng.normal(size=tokens), "f": -np.logaddexp(0, -rng.normal(2, 2, size=tokens))}


def normalized(read: Numbers, largest: Numbers) -> Numbers:
    """What was read for the values, by what was read for a value of 1."""
    return read[:, :-1] / (np.maximum(np.abs(read[:, -1:]), np.exp(-largest)) + EPSILON)


def recurrent(q: Numbers, k: Numbers, v: Numbers, i: Numbers, f: Numbers) -> tuple[Numbers, Numbers, int]:
    """The stabilised equations of the mLSTM; the normaliser is the memory's last column, of a value of 1."""
    memory, largest, outputs, count = np.zeros((q.shape[1], v.shape[1] + 1)), 0.0, [], Counted()
    for t in range(len(q)):
        before, largest = largest, max(f[t] + largest, i[t])
        written = count.times(k[t][:, None], np.append(v[t], 1)[None])
        memory = np.exp(f[t] + before - largest) * memory + np.exp(i[t] - largest) * written
        outputs.append(normalized(count.times(q[t][None], memory), np.array(largest))[0])
    return np.array(outputs), memory, count.flops


def chunked(q: Numbers, k: Numbers, v: Numbers, i: Numbers, f: Numbers, chunk: int) -> tuple[Numbers, Numbers, int]:
    """The same in chunks: scores within a chunk, the memory for what came before it."""
    memory, largest, outputs, count = np.zeros((q.shape[1], v.shape[1] + 1)), 0.0, [], Counted()
    for start in range(0, len(q), chunk):
        part = slice(start, start + chunk)
        values = np.hstack([v[part], np.ones((len(q[part]), 1))])
        faded = np.cumsum(f[part])
        within = np.where(np.tri(len(faded)) > 0, faded[:, None] - faded[None] + i[part][None], -np.inf)
        most = np.maximum(faded + largest, within.max(axis=1))[:, None]
        scores = count.times(q[part], k[part].T) * np.exp(within - most)
        from_memory = np.exp(faded[:, None] + largest - most) * q[part]
        outputs.append(normalized(count.times(from_memory, memory) + count.times(scores, values), most))
        gates = faded[-1] - faded + i[part]
        before, largest = largest, max(faded[-1] + largest, gates.max())
        memory = np.exp(faded[-1] + before - largest) * memory
        memory = memory + count.times((np.exp(gates - largest)[:, None] * k[part]).T, values)
    return np.concatenate(outputs), memory, count.flops


def ours(tokens: int, d_k: int, d_v: int, chunk: int, algorithm: str) -> int:
    block = MLSTM(num_heads=1, qk_head_dim=d_k, v_head_dim=d_v, chunk_size=chunk)
    architecture = model(LayerGroup(name="only", count=1, mixer=block))
    part = architecture.flops.having(algorithm=algorithm).parts["only"].parts["mlstm"].parts["memory"]
    return int(part(new_tokens=tokens, context=tokens))


@given(tokens=st.integers(1, 12), d_k=st.integers(1, 4), d_v=st.integers(1, 4), chunk=st.integers(1, 6))
def test_every_product_is_counted(tokens: int, d_k: int, d_v: int, chunk: int) -> None:
    numbers = drawn(tokens, d_k, d_v)
    assert ours(tokens, d_k, d_v, chunk, "recurrent") == recurrent(**numbers)[2]
    assert ours(tokens, d_k, d_v, chunk, "chunked") == chunked(**numbers, chunk=chunk)[2]


@pytest.mark.parametrize(("tokens", "chunk", "d_k", "d_v"), [(150, 64, 7, 5), (64, 64, 3, 4), (1, 64, 5, 5), (65, 16, 4, 6)])
def test_chunked_form_computes_the_recurrence(tokens: int, chunk: int, d_k: int, d_v: int) -> None:
    numbers = drawn(tokens, d_k, d_v)
    for one, other in zip(recurrent(**numbers)[:2], chunked(**numbers, chunk=chunk)[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_a_state_is_memory_normalizer_and_maximum() -> None:
    block = MLSTM(num_heads=3, qk_head_dim=5, v_head_dim=7)
    memory = recurrent(**drawn(4, 5, 7))[1]
    architecture = model(LayerGroup(name="only", count=2, mixer=block))
    assert architecture.cache_bytes(context=4) == 2 * 3 * (memory.size + 1) * 2
    assert architecture.cache_bytes(context=4) == architecture.cache_bytes(context=400_000)
