"""Mamba's scans beside loops: every multiply-add counted, and the chunked form run on numbers against the recurrence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.blocks import Mamba, Mamba2
from costmodel.layers import LayerGroup
from tests.families import model

heads = st.tuples(st.integers(1, 3), st.integers(1, 3)).map(lambda pair: (pair[0] * pair[1], pair[0]))
"""Heads, and groups that share them out evenly."""


class Counted:
    """Matrix products that add up their FLOPs: two for each multiply-add."""

    def __init__(self) -> None:
        self.flops = 0

    def times(self, a: Any, b: Any) -> Any:
        self.flops += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b


def selective_scan(block: Any, tokens: int, algorithm: str = "auto") -> int:
    """Our FLOPs of the scan of one layer and sequence."""
    architecture = model(LayerGroup(name="only", count=1, mixer=block))
    part = architecture.flops.having(algorithm=algorithm).parts["only"].parts[block.kind].parts["selective_scan"]
    return int(part(new_tokens=tokens, context=tokens))


def mamba2(count: int, groups: int, width: int, state: int, chunk: int) -> Mamba2:
    return Mamba2(
        mamba_num_heads=count, n_groups=groups, mamba_head_dim=width, ssm_state_size=state, conv_kernel=4, chunk_size=chunk
    )


@given(tokens=st.integers(1, 9), channels=st.integers(1, 6), state=st.integers(1, 6))
def test_mamba_step_by_step(tokens: int, channels: int, state: int) -> None:
    """Each token's x B^T, and the state read by C, product by product: the same in one pass and in single steps."""
    rng, counted = np.random.default_rng(tokens), Counted()
    held = np.zeros((channels, state))
    for _ in range(tokens):
        x, b, c = rng.normal(size=(channels, 1)), rng.normal(size=(1, state)), rng.normal(size=(state, 1))
        held = rng.uniform(0.7, 1, held.shape) * held + counted.times(x, b)
        counted.times(held, c)
    block = Mamba(d_inner=channels, ssm_state_size=state, time_step_rank=3, conv_kernel=4)
    assert selective_scan(block, tokens) == counted.flops == tokens * selective_scan(block, 1)


@given(tokens=st.integers(1, 13), chunk=st.integers(1, 5), shape=heads, width=st.integers(1, 4), state=st.integers(1, 4))
def test_mamba2_in_chunks_is_its_recurrence(
    tokens: int, chunk: int, shape: tuple[int, int], width: int, state: int
) -> None:  # fmt: skip
    """The published kernel's matrix products, each counted as it is run: they are ours, and compute what single steps do."""
    count, groups = shape
    rng = np.random.default_rng(tokens * 100 + chunk)
    x = rng.normal(size=(tokens, count, width))
    b, c = rng.normal(size=(2, tokens, groups, state))
    decay = rng.uniform(0.7, 1, (tokens, count))
    steps, chunks = Counted(), Counted()
    one_by_one = np.concatenate([_steps(steps, x[:, [h]], b, c, decay[:, h], h * groups // count) for h in range(count)], 1)
    np.testing.assert_allclose(_in_chunks(chunks, x, b, c, decay, chunk), one_by_one, rtol=1e-9, atol=1e-9)
    block = mamba2(count, groups, width, state, chunk)
    assert selective_scan(block, tokens, "recurrent") == steps.flops
    assert selective_scan(block, tokens, "chunked") == chunks.flops


def _steps(counted: Counted, x: Any, b: Any, c: Any, decay: Any, group: int) -> Any:
    """One head, token by token: the state decays, takes x B^T in, and is read by C."""
    held, outputs = np.zeros((x.shape[2], b.shape[2])), []
    for t in range(len(x)):
        held = decay[t] * held + counted.times(x[t].T, b[t, [group]])
        outputs.append(counted.times(held, c[t, [group]].T).T)
    return np.stack(outputs)


def _in_chunks(counted: Counted, x: Any, b: Any, c: Any, decay: Any, chunk: int) -> Any:
    """All heads, chunk by chunk; a group's scores are made once for its heads."""
    tokens, count, width = x.shape
    groups, state = b.shape[1:]
    held, outputs = np.zeros((count, width, state)), np.zeros_like(x)
    for start in range(0, tokens, chunk):
        part = slice(start, min(start + chunk, tokens))
        scores = [counted.times(c[part, g], b[part, g].T) for g in range(groups)]
        for h in range(count):
            g, passed = h * groups // count, np.cumprod(decay[part, h])
            mask = np.tril(passed[:, None] / passed[None, :])
            within = counted.times(scores[g] * mask, x[part, h])
            before = counted.times(passed[:, None] * c[part, g], held[h].T)
            own = counted.times(x[part, h].T, (passed[-1] / passed)[:, None] * b[part, g])
            outputs[part, h] = within + before
            held[h] = passed[-1] * held[h] + own
    return outputs


@pytest.mark.parametrize(("tokens", "chunk"), [(1, 256), (255, 256), (256, 256), (600, 256)])
def test_mamba2_passes_one_state_a_chunk(tokens: int, chunk: int) -> None:
    block = mamba2(6, 2, 4, 5, chunk)
    rows = {row["op"]: row for row in model(LayerGroup(name="only", count=1, mixer=block)).ledger_rows(
        new_tokens=tokens, context=tokens, algorithm="chunked")}  # fmt: skip
    lengths = [len(range(start, min(start + chunk, tokens))) for start in range(0, tokens, chunk)]
    assert rows["state_passing"]["vector_flops"] == 2 * len(lengths) * 6 * 4 * 5
    assert rows["decay_mask"]["vector_flops"] == sum(3 * 6 * length**2 for length in lengths)
