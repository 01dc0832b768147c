"""RWKV-7: one step after another and in chunks, every multiply-add counted; and the totals that its paper tells."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import costmodel as cm
from costmodel.blocks import RWKV7, RWKVChannelMix
from costmodel.layers import LayerGroup
from tests.families import model

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch

LAYER_NORM = cm.Norm(kind="layernorm", bias=True)
RANKS = {"decay_low_rank_dim": 3, "a_low_rank_dim": 3, "gate_low_rank_dim": 3, "v_low_rank_dim": 3}


def drawn(tokens: int, head: int) -> Any:
    """r, log w, k, v, a and b of one head as the layer makes them, and a state."""
    torch.manual_seed(0)
    r, decay, k, v, a, rate = torch.randn(6, 1, 1, tokens, head, dtype=torch.float64)
    a = torch.nn.functional.normalize(a, dim=-1)
    vectors = (r, -0.606531 * decay.sigmoid(), k, v, -a, a * rate.sigmoid())
    return vectors, torch.randn(1, 1, head, head, dtype=torch.float64)


def counted(algorithm: str, tokens: int, head: int, chunk: int) -> int:
    """FLOPs of the matrix products of one algorithm."""
    from torch.utils.flop_counter import FlopCounterMode

    from tests.goose import in_chunks, stepwise

    vectors, state = drawn(tokens, head)
    with FlopCounterMode(display=False) as counter:
        stepwise(vectors, state) if algorithm == "recurrent" else in_chunks(vectors, state, chunk)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("algorithm", ["recurrent", "chunked"])
@given(tokens=st.integers(1, 12), head=st.integers(1, 5), chunk=st.integers(1, 6))
def test_every_product_is_counted(algorithm: str, tokens: int, head: int, chunk: int) -> None:
    block = RWKV7(num_heads=1, head_dim=head, chunk_size=chunk, **RANKS)
    architecture = model(LayerGroup(name="only", count=1, mixer=block))
    part = architecture.flops.having(algorithm=algorithm).parts["only"].parts["rwkv7"].parts["delta_rule"]
    assert part(new_tokens=tokens, context=tokens) == counted(algorithm, tokens, head, chunk)


@pytest.mark.parametrize(("tokens", "chunk", "head"), [(150, 16, 7), (64, 16, 64), (1, 16, 5), (65, 8, 6), (5, 16, 3)])
def test_chunked_form_computes_the_recurrence(tokens: int, chunk: int, head: int) -> None:
    from tests.goose import in_chunks, stepwise

    for one, other in zip(stepwise(*drawn(tokens, head)), in_chunks(*drawn(tokens, head), chunk), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_step_is_the_formula_of_the_paper() -> None:
    """S' = S (diag(w) + a^T b) + v^T k with rows of values; r reads its transpose."""
    from tests.goose import step

    vectors, state = drawn(1, 6)
    r, log_w, k, v, a, b = (part[0, 0] for part in vectors)
    after = state[0, 0].T @ (torch.diag(log_w.exp()[0]) + a.T @ b) + v.T @ k
    output, kept = step(vectors, state)
    torch.testing.assert_close(kept[0, 0], after.T)
    torch.testing.assert_close(output[0, 0], r @ after.T)


def test_a_prefix_and_a_step_are_one_pass() -> None:
    """What the layers keep is enough: logits of a prompt in pieces are those of the whole."""
    from tests.goose import RWKV7ForCausalLM

    torch.manual_seed(0)
    ranks = {"decay_low_rank_dim": 4, "a_low_rank_dim": 5, "gate_low_rank_dim": 6, "v_low_rank_dim": 3}
    config = {**ranks, "hidden_size": 24, "vocab_size": 11, "num_hidden_layers": 3, "head_dim": 6, "intermediate_size": 32}
    real, ids = RWKV7ForCausalLM(config).eval(), torch.randint(0, 11, (2, 39))
    with torch.no_grad():
        whole, kept, pieces = real(ids)["logits"], None, []
        for piece in ids.split([20, 1, 17, 1], dim=1):
            out = real(piece, kept)
            kept = out["past_key_values"]
            pieces.append(out["logits"])
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layers", "width", "ranks", "total"),
    [(12, 768, (64, 64, 32, 128), 191_034_624), (24, 1024, (64, 64, 32, 128), 450_767_872),
     (24, 2048, (96, 96, 64, 256), 1_527_404_544), (32, 2560, (96, 96, 64, 320), 2_947_735_040)],
)  # fmt: skip
def test_totals_of_the_published_models(layers: int, width: int, ranks: tuple[int, int, int, int], total: int) -> None:
    """Also by the paper's formula: 2 D V + 4 D + L D (12 D + 2 (d_w + d_a + d_v + d_g) + 19) - (2 D d_v + D)."""
    decay, rate, values, gate = ranks
    sizes = {
        "num_heads": width // 64,
        "head_dim": 64,
        "decay_low_rank_dim": decay,
        "a_low_rank_dim": rate,
        "gate_low_rank_dim": gate,
    }
    mix = RWKVChannelMix(intermediate_size=4 * width)
    goose = model(
        LayerGroup(name="first", count=1, mixer=RWKV7(**sizes), feed_forward=mix),
        LayerGroup(name="rest", count=layers - 1, mixer=RWKV7(**sizes, v_low_rank_dim=values), feed_forward=mix),
        hidden_size=width, vocab_size=65_536, norm=LAYER_NORM, embedding_norm=True,
    )  # fmt: skip
    by_paper = 2 * width * 65_536 + 4 * width + layers * width * (12 * width + 2 * sum(ranks) + 19) - (2 * width * values + width)
    assert goose.params.total == by_paper == total
    state = layers * width * 64 * 4
    assert goose.cache_bytes(context=7) == state + 2 * layers * width * 2
