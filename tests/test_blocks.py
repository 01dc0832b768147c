"""What kernels of each block touch, tensor by tensor: the shapes that go in and come out, and the work on each element.

A row of `TOUCHED` is counted by hand from what the layer does: operations an element, the elements they are done on, and all
elements read and written. Matmuls and what is kept are counted in the other files of brute force.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import pytest

from costmodel.blocks import (
    DSA,
    GQA,
    KDA,
    MLA,
    MLP,
    MLSTM,
    RWKV7,
    FeedForward,
    GatedDeltaNet,
    LightningAttention,
    Mamba,
    Mamba2,
    Mixer,
    MoE,
    Norm,
    ParallelHybrid,
    RWKVChannelMix,
    SharedTransformer,
    ShortConv,
    TokenMixing,
)
from costmodel.blocks.norm import residual
from costmodel.evaluate import evaluate
from costmodel.ops import Op
from costmodel.symbols import B, S, T, d_model, n_kv
from costmodel.workload import Pass, Phase

SEQUENCES, NEW, CONTEXT, WIDTH = 2, 5, 9, 11
TOKENS = SEQUENCES * NEW
SEEN = sum(range(CONTEXT - NEW + 1, CONTEXT + 1))
"""Pairs of one sequence and head: the five new tokens at places 5 to 9, each seeing itself and what is before it."""
CHUNKS = (3, 2)
"""What chunks of three make of five tokens."""
SQUARES = sum(length**2 for length in CHUNKS)

Row = tuple[int, int]
"""Vector operations, and elements in and out."""


def row(operations: int, elements: int, *touched: int) -> Row:
    """By default an element is read and an element is written."""
    return operations * elements, sum(touched) if touched else 2 * elements


def tokens(*shape: int) -> int:
    """Elements of a tensor of so much a token."""
    return TOKENS * prod(shape)


def substitutions(length: int) -> int:
    """Multiply-adds, two each, of solving with a unit lower triangle of `length` rows for the triangle's inverse."""
    return sum(2 for at in range(length) for before in range(at) for _ in range(before + 1))


def three(width: int) -> tuple[int, int, int]:
    """Two tensors in, one out."""
    return (tokens(width),) * 3


RECURRENT, CHUNKED = Pass(algorithms=("recurrent",)), Pass(algorithms=("chunked",))
HEADS = {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 5}
LATENT = {
    "num_attention_heads": 6,
    "q_lora_rank": 7,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 5,
    "qk_rope_head_dim": 2,
    "v_head_dim": 4,
}
STATE = {"mamba_num_heads": 4, "mamba_head_dim": 3, "ssm_state_size": 5, "n_groups": 2, "conv_kernel": 4, "chunk_size": 3}
DELTA = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 3, "linear_value_head_dim": 5,
    "linear_conv_kernel_dim": 4, "chunk_size": 3,
}  # fmt: skip
RANKS = {"decay_low_rank_dim": 6, "a_low_rank_dim": 7, "gate_low_rank_dim": 8, "v_low_rank_dim": 9}
RWKV = RWKV7(num_heads=3, head_dim=4, chunk_size=3, **RANKS)
MEMORY = MLSTM(num_heads=3, qk_head_dim=4, v_head_dim=5, chunk_size=3)
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 7}

SEQUENCE_ROWS = {  # of a Mamba-2 layer, by its two algorithms: 12 channels, states of 12 x 5, two groups
    "conv1d": (0, 2 * tokens(12 + 2 * 2 * 5)),
    "conv_silu": row(4, tokens(12 + 2 * 2 * 5)),
    "step_and_decay": row(6, tokens(4), tokens(4), tokens(4), tokens(4)),  # a step in, a step and a decay out
    "skip": row(2, tokens(12), *three(12)),
    "output_gate": row(5, tokens(12), *three(12)),
}
SCANNED = tokens(12) * 2 + tokens(2, 5) * 2 + tokens(4)  # x in, y out; B and C; the step

TOUCHED: list[tuple[Mixer | FeedForward | Norm, Pass, dict[str, Row]]] = [
    (
        GQA(**HEADS, v_head_dim=4, rotary_dim=2, qk_norm="head", output_gate=True, sinks=True),
        Pass(),
        {
            "q_norm": row(4, tokens(6, 5)),
            "k_norm": row(4, tokens(3, 5)),
            "rope": row(3, tokens(6 + 3, 2)),
            "attention": (0, tokens(6, 5) + tokens(6, 4)),  # queries in, outputs out; keys and values are the cache's
            "softmax": (5 * SEQUENCES * 6 * SEEN, 0),
            "sinks": row(2, tokens(6), 6),
            "output_gate": row(4, tokens(6, 4), *three(24)),
        },
    ),
    (GQA(**HEADS), Pass(), {"rope": row(3, tokens(6 + 3, 5))}),
    (GQA(**HEADS, rotary_dim=1), Pass(), {"rope": row(3, tokens(6 + 3, 1))}),
    (GQA(**HEADS, shares_kv=True), Pass(), {"rope": row(3, tokens(6, 5))}),
    (GQA(**HEADS, shares_kv=True, qk_norm="head", own_key_norm=True), Pass(), {"k_norm": (tokens(6, 5), 0)}),
    (
        MLA(**LATENT),
        Pass(algorithms=("absorbed",)),
        {
            "q_a_norm": row(4, tokens(7)),
            "kv_a_norm": row(4, tokens(8)),
            "rope": row(3, tokens(6 + 1, 2)),
            "kv_b_proj": (0, tokens(6, 5) + 2 * tokens(6, 8) + tokens(6, 4)),  # queries to latents, latents to values
            "attention": (0, tokens(6, 8 + 2) + tokens(6, 8)),
            "softmax": (5 * SEQUENCES * 6 * SEEN, 0),
        },
    ),
    (
        MLA(**LATENT),
        Pass(algorithms=("expanded",)),
        {
            "kv_b_proj": (0, SEQUENCES * CONTEXT * 6 * (5 + 4)),  # written; latents are read from the cache, in the next row
            "attention": (0, tokens(6, 5 + 2) + tokens(6, 4) + SEQUENCES * CONTEXT * 6 * (5 + 4)),
        },
    ),
    (
        DSA(**LATENT, index_n_heads=3, index_head_dim=4, index_topk=6),
        Pass(),
        {
            "index_k_norm": row(7, tokens(4)),
            "index_rope": row(3, tokens(3 + 1, 2)),
            "index_scores": (0, tokens(3, 4) + tokens(3) + tokens(6)),  # queries, their weights, and what is picked
            "index_relu": (2 * SEQUENCES * 3 * SEEN, 0),
            "index_topk": (SEQUENCES * SEEN, 0),
        },
    ),
    (
        GatedDeltaNet(**DELTA),
        RECURRENT,
        {
            "conv1d": (0, 2 * tokens(2 * 2 * 3 + 4 * 5)),
            "conv_silu": row(4, tokens(2 * 2 * 3 + 4 * 5)),
            "decay_and_beta": row(9, tokens(4), *[tokens(4)] * 4),  # two in, two out
            "qk_l2norm": row(4, tokens(2, 2, 3)),
            "delta_rule": (0, 2 * tokens(2, 3) + 2 * tokens(4, 5)),  # queries and keys; values in and out
            "decay_state": (tokens(4, 3, 5), 0),
            "norm": row(4, tokens(4, 5)),
            "output_gate": row(5, tokens(4, 5), *three(20)),
        },
    ),
    (
        GatedDeltaNet(**DELTA),
        CHUNKED,
        {
            "delta_rule": (0, 2 * tokens(2, 3) + 2 * tokens(4, 5)),
            "triangular_solve": (SEQUENCES * 4 * sum(map(substitutions, CHUNKS)), 0),
        },
    ),
    (
        KDA(linear_num_heads=3, linear_head_dim=4, linear_conv_kernel_dim=4, chunk_size=3),
        CHUNKED,
        {
            "conv1d": (0, 2 * tokens(3, 12)),
            "conv_silu": row(4, tokens(3, 12)),
            "decay": row(5, tokens(12)),
            "beta": row(4, tokens(3)),
            "qk_l2norm": row(4, tokens(2, 12)),
            "delta_rule": (0, 4 * tokens(12)),
            "triangular_solve": (SEQUENCES * 3 * sum(map(substitutions, CHUNKS)), 0),
            "norm": row(4, tokens(12)),
            "output_gate": row(5, tokens(12), *three(12)),
        },
    ),
    (
        Mamba2(**STATE),
        RECURRENT,
        SEQUENCE_ROWS | {"selective_scan": (0, SCANNED), "decay_state": (tokens(12, 5), 0), "norm": row(4, tokens(12))},
    ),
    (
        Mamba2(**STATE),
        CHUNKED,
        SEQUENCE_ROWS
        | {
            "selective_scan": (0, SCANNED + 2 * SEQUENCES * 2 * SQUARES),  # a group's scores written and read
            "decay_mask": (3 * SEQUENCES * 4 * SQUARES, 0),
            "state_passing": row(2, SEQUENCES * len(CHUNKS) * 12 * 5, *[SEQUENCES * len(CHUNKS) * 12 * 5] * 4),
        },
    ),
    (
        Mamba(d_inner=6, ssm_state_size=5, time_step_rank=3, conv_kernel=4, step_norms=True),
        RECURRENT,
        {
            "conv1d": (0, 2 * tokens(6)),
            "conv_silu": row(4, tokens(6)),
            "dt_norm": row(4, tokens(3)),
            "b_norm": row(4, tokens(5)),
            "step": row(3, tokens(6)),
            "selective_scan": (0, 3 * tokens(6) + 2 * tokens(5)),  # x, step and y; B and C
            "decay_state": (3 * tokens(6, 5), 0),
            "skip": row(2, tokens(6), *three(6)),
            "output_gate": row(5, tokens(6), *three(6)),
        },
    ),
    (
        LightningAttention(num_attention_heads=3, head_dim=4, block_size=3),
        RECURRENT,
        {
            "qkv_activation": row(4, tokens(3, 12)),
            "attention": (0, 4 * tokens(12)),
            "decay": (tokens(3, 4, 4), 0),
            "norm": row(4, tokens(12)),
            "apply_gate": row(5, tokens(12), *three(12)),
        },
    ),
    (
        LightningAttention(num_attention_heads=3, head_dim=4, block_size=3),
        CHUNKED,  # scores masked, queries and keys scaled, a state for each chunk
        {"decay": (SEQUENCES * 3 * (SQUARES + 2 * NEW * 4 + len(CHUNKS) * 4 * 4), 0)},
    ),
    (
        MEMORY,
        RECURRENT,
        {
            "gates": row(15, tokens(3), *[tokens(3)] * 5),
            "memory": (0, 2 * tokens(3, 4) + 2 * tokens(3, 5)),
            "decay_state": (tokens(3, 4, 5 + 1), 0),
            "normalize": (tokens(15), 0),
            "multihead_norm": row(7, tokens(15)),
            "output_gate": row(5, tokens(15), *three(15)),
        },
    ),
    (MEMORY, CHUNKED, {"decay_scores": (6 * SEQUENCES * 3 * SQUARES, 0)}),
    (
        RWKV,
        RECURRENT,
        {
            "token_shift": row(1 + 2 * 6, tokens(WIDTH), *[tokens(WIDTH)] * 7),
            "decay_activation": row(4, tokens(6)),
            "gate_activation": row(4, tokens(8)),
            "share_first_values": row(7, tokens(12), *[tokens(12)] * 4),
            "keys_and_rates": row(19, tokens(12), *[tokens(12)] * 7),
            "delta_rule": (0, 7 * tokens(12)),
            "decay_state": (tokens(12, 4), 0),
            "group_norm": row(7, tokens(12)),
            "bonus_and_gate": row(6, tokens(12), *[tokens(12)] * 6),
        },
    ),
    (
        RWKV,
        CHUNKED,
        {
            "decay_vectors": (2 * 4 * tokens(12), 0),
            "triangular_inverse": (SEQUENCES * 3 * sum(map(substitutions, CHUNKS)), 0),
        },
    ),
    (
        RWKVChannelMix(intermediate_size=13),
        Pass(),
        {"token_shift": row(1 + 2, tokens(WIDTH), tokens(WIDTH), tokens(WIDTH)), "activation": row(2, tokens(13))},
    ),
    (
        ShortConv(conv_L_cache=3),
        Pass(),
        {"input_gate": row(1, tokens(WIDTH), *three(WIDTH)), "output_gate": row(1, tokens(WIDTH), *three(WIDTH))},
    ),
    (
        TokenMixing(positions=7, token_intermediate_size=3),
        Pass(),
        {"activation": row(4 + 1, SEQUENCES * WIDTH * 3, *[SEQUENCES * WIDTH * 3] * 3)},
    ),
    (MLP(intermediate_size=13), Pass(), {"activation": row(4 + 1, tokens(13), *three(13))}),
    (MLP(intermediate_size=13, gated=False, activation="gelu"), Pass(), {"activation": row(5, tokens(13))}),
    (MLP(intermediate_size=13, gated=False, activation="relu"), Pass(), {"activation": row(1, tokens(13))}),
    (MLP(intermediate_size=13, activation="gelu_tanh"), Pass(), {"activation": row(8 + 1, tokens(13), *three(13))}),
    (
        MoE(**EXPERTS, num_shared_experts=2, shared_expert_intermediate_size=9, shared_expert_gate=True),
        Pass(),
        {
            "routing": row(5, tokens(8), tokens(8), tokens(3), tokens(3)),  # scores in; which, and how much, out
            "experts.up_proj": (0, tokens(3, WIDTH) + tokens(3, 7)),
            "experts.activation": row(4 + 1, tokens(3, 7), *three(3 * 7)),
            "combine": row(2, tokens(3, WIDTH), tokens(3, WIDTH), tokens(WIDTH)),
            "shared.activation": row(4 + 1, tokens(2 * 9), *three(2 * 9)),
            "shared.apply_gate": row(1, tokens(WIDTH), tokens(WIDTH), tokens(WIDTH), tokens(1)),
            "shared.add": row(1, tokens(WIDTH), *three(WIDTH)),
        },
    ),
    (MoE(**EXPERTS, num_shared_experts=2), Pass(), {"shared.activation": row(4 + 1, tokens(2 * 7), *three(2 * 7))}),
    (
        SharedTransformer(**HEADS, intermediate_size=13, adapter_rank=2, attention_adapter=True, rope=True),
        Pass(),
        {
            "input_norm": row(4, tokens(2 * WIDTH)),  # the stream beside the embeddings
            "feed_forward_norm": row(4, tokens(WIDTH)),
            "q_adapter_add": row(1, tokens(6, 5), *three(30)),
            "k_adapter_add": row(1, tokens(3, 5), *three(15)),
            "rope": row(3, tokens(6 + 3, 5)),
            "softmax": (5 * SEQUENCES * 6 * SEEN, 0),
            "gate_up_adapter_add": row(1, tokens(2, 13), *three(26)),
            "activation": row(5 + 1, tokens(13), *three(13)),
        },
    ),
    (
        ParallelHybrid(**HEADS, **STATE),
        RECURRENT,
        {"add": row(1, tokens(WIDTH), *three(WIDTH)), "ssm.decay_state": (tokens(12, 5), 0)},
    ),
    (Norm(), Pass(), {"norm": row(4, tokens(WIDTH))}),
    (Norm(kind="layernorm"), Pass(), {"norm": row(7, tokens(WIDTH))}),
]  # fmt: skip


def numbers(block: Any) -> dict[Any, int]:
    """The letters of a block and of the pass, as numbers."""
    return {**block.binding(), B: SEQUENCES, T: NEW, S: CONTEXT, d_model: WIDTH}


def counted(block: Any, forward: Pass) -> Iterator[tuple[str, Op, dict[Any, int]]]:
    values = numbers(block)
    yield from ((op.name, op, values) for op in block.ops(forward))


@pytest.mark.parametrize(("block", "forward", "rows"), TOUCHED, ids=lambda each: getattr(each, "kind", ""))
def test_rows_touch_what_they_read_and_write(block: Any, forward: Pass, rows: dict[str, Row]) -> None:
    found = {
        name: (evaluate(op.cost.vector_flops, values), evaluate(op.cost.activations, values))
        for name, op, values in counted(block, forward)
        if name in rows
    }
    assert found == rows


def test_no_row_of_work_on_elements_is_forgotten() -> None:
    """Every vector row and scan of every block stands in the table above in one of its forms."""
    held = ("parallel_hybrid", "dsa")  # theirs are those of GQA, Mamba2 and MLA, but for what is listed
    listed = {(block.kind, name) for block, _, rows in TOUCHED for name in rows}
    every = {
        (block.kind, op.name)
        for block, forward, _ in TOUCHED
        for op in block.ops(forward)
        if op.kind in ("vector", "scan") and block.kind not in held
    }
    assert every - listed == {("mamba", "c_norm"), ("shared_transformer", "v_adapter_add")}  # as the rows beside them


def test_what_training_keeps() -> None:
    """What goes in, where a gradient needs it: both halves of a gate, a norm's input; nothing of a rotation or a sum."""
    kept = {
        (block.kind, name): evaluate(op.saved, values)
        for block, forward, _ in TOUCHED[::-1]
        for name, op, values in counted(block, forward)
    }
    assert kept["mlp", "activation"] == 2 * tokens(13)
    assert kept["mlp", "down_proj"] == tokens(13)
    assert kept["rmsnorm", "norm"] == tokens(WIDTH)
    assert kept["gqa", "rope"] == kept["gqa", "softmax"] == kept["moe", "shared.add"] == 0
    assert evaluate(residual().saved, numbers(Norm())) == 0
    assert kept["gqa", "attention"] == tokens(6, 5) + tokens(3, 5) + tokens(3, 4)
    assert kept["moe", "experts.down_proj"] == tokens(3, 7)
    assert kept["moe", "combine"] == tokens(3, WIDTH)
    assert kept["gated_deltanet", "conv1d"] == tokens(2 * 2 * 3 + 4 * 5)


def test_one_step_is_recurrent_and_a_prompt_goes_in_chunks() -> None:
    for block in [block for block, forward, _ in TOUCHED if forward == CHUNKED]:
        assert block.algorithm(Pass(phase=Phase.DECODE)) == "recurrent"
        assert block.algorithm(Pass()) == "chunked"


def test_recurrences_work_on_their_state() -> None:
    """FLOPs on the state, one token after the other: matmuls of one row each, a head at a time."""
    work = {
        ("gated_deltanet", "delta_rule"): 4 * (2 * 3 * 5 * 3),  # retrieve, write, read
        ("kda", "delta_rule"): 3 * (2 * 4 * 4 * 3),
        ("rwkv7", "delta_rule"): 3 * (2 * 4 * 4 * 4),  # retrieve, correct, write, read
        ("mamba2", "selective_scan"): 4 * (2 * 3 * 5 * 2),  # write, read
        ("mamba", "selective_scan"): 2 * 6 * 5 * 2,
        ("lightning_attention", "attention"): 3 * (2 * 4 * 4 * 2),
        ("mlstm", "memory"): 3 * (2 * 4 * (5 + 1) * 2),  # the normaliser is one more column
    }
    found = {
        (block.kind, name): evaluate(op.cost.flops, values)
        for block, _, _ in TOUCHED
        if isinstance(block, Mixer)
        for name, op, values in counted(block, RECURRENT)
        if (block.kind, name) in work
    }
    assert found == {key: TOKENS * flops for key, flops in work.items()}


def test_chunks_add_matmuls_within_them() -> None:
    """What a chunk of c tokens computes beside its work on the state, each product a [c, c] matmul of a head or group."""
    within = {
        ("gated_deltanet", "delta_rule"): 4 * 2 * (3 * 3 + 2 * 5),
        ("kda", "delta_rule"): 3 * 2 * (3 * 4 + 2 * 4),
        ("mamba2", "selective_scan"): 2 * (2 * 5) + 2 * 12,  # scores a group, then on each head's channels
        ("lightning_attention", "attention"): 3 * 2 * (4 + 4),
        ("mlstm", "memory"): 3 * 2 * (4 + 5 + 1),
    }
    found = {}
    for block, forward, _ in TOUCHED:
        if forward != CHUNKED or block.kind == "rwkv7":
            continue
        for name, op, values in counted(block, CHUNKED):
            if (block.kind, name) in within:
                (same,) = (step for step in block.ops(RECURRENT) if step.name == name)
                found[block.kind, name] = evaluate(op.cost.flops - same.cost.flops, values)
    assert found == {key: SEQUENCES * SQUARES * flops for key, flops in within.items()}


def test_rwkv7_within_chunks() -> None:
    """Scores of a and r on k and b (4), what they apply to (4): eight [c, c] x d_h; the inverse on the scores: [c, c] x c."""
    per_head = sum(8 * 2 * length * length * 4 + 2 * length**3 for length in CHUNKS)
    chunked, step = (
        next(evaluate(op.cost.flops, values) for name, op, values in counted(RWKV, forward) if name == "delta_rule")
        for forward in (CHUNKED, RECURRENT)
    )
    assert chunked - step == SEQUENCES * 3 * per_head


def test_convolutions_keep_all_columns_but_one() -> None:
    kept = {
        (block.kind, each.name): evaluate(each.heads * each.width, numbers(block))
        for block, _, _ in TOUCHED
        if isinstance(block, Mixer)
        for each in block.kept()
    }
    assert kept["gated_deltanet", "conv_tail_qk"] == 2 * 2 * 3 * 3
    assert kept["gated_deltanet", "conv_tail_v"] == 4 * 5 * 3
    assert kept["kda", "conv_tail"] == 3 * 12 * 3
    assert kept["mamba2", "conv_tail_x"] == 12 * 3
    assert kept["mamba2", "conv_tail_bc"] == 2 * 2 * 5 * 3
    assert kept["mamba", "conv_tail"] == 6 * 3
    assert kept["short_conv", "conv_tail"] == WIDTH * 2


def test_ranks_share_matrices_but_for_those_that_each_has_whole() -> None:
    splits = {op.name: op.split for op in (*MLA(**LATENT).ops(Pass()), *MoE(**EXPERTS).ops(Pass()))}
    assert splits["q_a_proj"] == splits["kv_a_proj"] == splits["router"] == "none"
    assert splits["q_b_proj"] == splits["kv_b_proj"] == "columns"
    assert splits["o_proj"] == "rows"
    assert splits["experts.up_proj"] == "experts"
    norms = {op.name: op.split for op in (*GQA(**HEADS, qk_norm="head").ops(Pass()), *MLA(**LATENT).ops(Pass()))}
    assert norms["q_norm"] == norms["k_norm"] == "columns"
    assert norms["kv_a_norm"] == "none"
    shared = SharedTransformer(**HEADS, intermediate_size=13, adapter_rank=2)
    assert {op.name: op.heads for op in shared.ops(Pass()) if op.name in ("q_proj", "k_proj", "v_proj")} == {
        "q_proj": None, "k_proj": n_kv, "v_proj": n_kv,
    }  # fmt: skip


def test_usual_heads_are_what_a_config_lets_guess() -> None:
    """MLA's configs give no head width: d_model / n_h, here 24 / 6."""
    heads, width = MLA(**LATENT).usual_heads
    assert evaluate(heads * width, numbers(MLA(**LATENT)) | {d_model: 24}) == 6 * 4


def test_packed_tokens_hold_a_scale_for_each_128_elements() -> None:
    """A byte an element, four bytes a scale; the rope key in two bytes each."""
    wide = DSA(**LATENT | {"kv_lora_rank": 300}, index_n_heads=3, index_head_dim=200, index_topk=6)
    packed = {each.name: evaluate(each.packed, numbers(wide)) for each in wide.kept() if each.packed is not None}
    assert packed == {"latent": 300 + 4 * 3 + 2 * 2, "index_keys": 200 + 4 * 2}
