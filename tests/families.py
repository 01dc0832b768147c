"""Random blocks and small architectures of every family, for the invariants. A new family needs one line here."""

from __future__ import annotations

from datetime import date
from typing import Any

from hypothesis import strategies as st

from costmodel.architecture import Architecture
from costmodel.blocks import (
    DSA,
    FAMILIES,
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
from costmodel.layers import LayerGroup

small = st.integers(1, 24)
flags = st.booleans()


REACHES: list[dict[str, Any]] = [
    {}, {"sliding_window": 1}, {"sliding_window": 7}, {"attention_chunk_size": 1}, {"attention_chunk_size": 5},
    {"bidirectional": True}, {"shares_kv": True}, {"shares_kv": True, "qk_norm": "head", "own_key_norm": True},
]  # fmt: skip
"""How far a query sees, and whose keys."""


@st.composite
def gqa(draw: st.DrawFn, reach: dict[str, Any] | None = None, **fixed: Any) -> GQA:
    """Grouped-query attention with any of its options."""
    n_kv, head_dim = draw(small), draw(small)
    fields = {
        "num_attention_heads": n_kv * draw(st.integers(1, 4)),
        "num_key_value_heads": n_kv,
        "head_dim": head_dim,
        "v_head_dim": draw(st.none() | small),
        "rotary_dim": draw(st.none() | st.integers(0, head_dim)),
        "qk_norm": draw(st.sampled_from([None, "head", "full"])),
        **{name: draw(flags) for name in ("qkv_bias", "o_bias", "output_gate", "sinks")},
        **(draw(st.sampled_from(REACHES)) if reach is None else reach),
    }
    return GQA(**(fields | fixed))


mla = st.builds(
    MLA, num_attention_heads=small, q_lora_rank=st.none() | small, kv_lora_rank=small, qk_nope_head_dim=small,
    qk_rope_head_dim=small, v_head_dim=small, attention_bias=flags,
)  # fmt: skip


dsa = st.builds(
    DSA, num_attention_heads=small, q_lora_rank=small, kv_lora_rank=small, qk_nope_head_dim=small, qk_rope_head_dim=small,
    v_head_dim=small, index_n_heads=small, index_head_dim=small, index_topk=small, attention_bias=flags, shares_topk=flags,
)  # fmt: skip


@st.composite
def gated_deltanet(draw: st.DrawFn) -> GatedDeltaNet:
    """Gated DeltaNet with short chunks, so that small contexts cross them."""
    keys = draw(small)
    return GatedDeltaNet(
        linear_num_key_heads=keys, linear_num_value_heads=keys * draw(st.integers(1, 4)), linear_key_head_dim=draw(small),
        linear_value_head_dim=draw(small), linear_conv_kernel_dim=draw(st.integers(1, 6)), chunk_size=draw(st.integers(1, 9)),
    )  # fmt: skip


token_mixing = st.builds(TokenMixing, positions=small, token_intermediate_size=small)
mamba = st.builds(
    Mamba, d_inner=small, ssm_state_size=small, time_step_rank=small, conv_kernel=st.integers(1, 6), conv_bias=flags,
    proj_bias=flags, step_norms=flags,
)  # fmt: skip


@st.composite
def mamba2(draw: st.DrawFn) -> Mamba2:
    """Mamba-2 with short chunks, so that small contexts cross them."""
    groups = draw(small)
    return Mamba2(
        mamba_num_heads=groups * draw(st.integers(1, 4)), mamba_head_dim=draw(small), ssm_state_size=draw(small), n_groups=groups,
        conv_kernel=draw(st.integers(1, 6)), chunk_size=draw(st.integers(1, 9)),
        **{name: draw(flags) for name in ("conv_bias", "in_proj_bias", "out_proj_bias", "gated_norm")},
    )  # fmt: skip


mlstm = st.builds(
    MLSTM, num_heads=small, qk_head_dim=small, v_head_dim=small, chunk_size=st.integers(1, 9), use_bias=flags,
)  # fmt: skip
rwkv7 = st.builds(
    RWKV7, num_heads=small, head_dim=small, decay_low_rank_dim=small, a_low_rank_dim=small, gate_low_rank_dim=small,
    v_low_rank_dim=st.none() | small, chunk_size=st.integers(1, 9),
)  # fmt: skip
activations = st.sampled_from(["silu", "gelu", "gelu_tanh", "relu", "relu2"])
mlp = st.builds(MLP, intermediate_size=small, gated=flags, activation=activations, bias=flags)


@st.composite
def moe(draw: st.DrawFn) -> MoE:
    """A mixture of experts with any of its options."""
    experts, shared = draw(small), draw(st.integers(0, 3))
    return MoE(
        num_experts=experts, num_experts_per_tok=draw(st.integers(1, experts)), moe_intermediate_size=draw(small),
        num_shared_experts=shared, shared_expert_intermediate_size=draw(st.none() | small) if shared else None,
        shared_expert_gate=draw(flags) if shared else False, activation=draw(activations),
        **{name: draw(flags) for name in ("gated", "router_bias", "score_correction_bias", "expert_bias")},
    )  # fmt: skip


kda = st.builds(
    KDA, linear_num_heads=small, linear_head_dim=small, linear_conv_kernel_dim=st.integers(1, 6), chunk_size=st.integers(1, 9)
)
lightning_attention = st.builds(
    LightningAttention, num_attention_heads=small, head_dim=small, block_size=st.integers(1, 9), activation=activations
)


@st.composite
def parallel_hybrid(draw: st.DrawFn) -> ParallelHybrid:
    """Attention and Mamba-2 heads with any of their options."""
    state_space = draw(mamba2())
    n_kv = draw(small)
    return ParallelHybrid(
        num_attention_heads=n_kv * draw(st.integers(1, 4)), num_key_value_heads=n_kv, head_dim=draw(small), qkv_bias=draw(flags),
        o_bias=draw(flags), **state_space.model_dump(exclude={"kind"}),
    )  # fmt: skip


shared_transformer = st.integers(1, 9).flatmap(
    lambda n_kv: st.builds(
        SharedTransformer, num_attention_heads=st.integers(1, 3).map(lambda times: times * n_kv), num_key_value_heads=st.just(n_kv),
        head_dim=small, intermediate_size=small, adapter_rank=small, attention_adapter=flags, rope=flags, mlp_bias=flags,
    )
)  # fmt: skip


BLOCKS: dict[str, st.SearchStrategy[Any]] = {
    "kda": kda,
    "lightning_attention": lightning_attention,
    "parallel_hybrid": parallel_hybrid(),
    "shared_transformer": shared_transformer,
    "gqa": gqa(),
    "mla": mla,
    "dsa": dsa,
    "token_mixing": token_mixing,
    "gated_deltanet": gated_deltanet(),
    "mlp": mlp,
    "moe": moe(),
    "mamba": mamba,
    "mamba2": mamba2(),
    "mlstm": mlstm,
    "rwkv7": rwkv7,
    "rwkv_channel_mix": st.builds(RWKVChannelMix, intermediate_size=small),
    "short_conv": st.builds(ShortConv, conv_L_cache=st.integers(1, 6), conv_bias=flags),
}  # fmt: skip
"""A strategy for every family: a test checks that none is missing."""

MIXERS = [name for name, family in FAMILIES.items() if issubclass(family, Mixer)]
FEED_FORWARDS = [name for name, family in FAMILIES.items() if issubclass(family, FeedForward)]

norms = st.builds(
    Norm,
    kind=st.sampled_from(["rmsnorm", "layernorm"]),
    placement=st.sampled_from(["pre", "post", "sandwich", "none"]),
    weight=flags,
    bias=flags,
    final=flags,
)


def model(*groups: LayerGroup, **fields: Any) -> Architecture:
    """A small architecture around layer groups."""
    about = {"name": "small", "title": "Small", "maker": "tests", "released": date(2026, 1, 1), "source": "tests"}
    sizes = {"hidden_size": 16, "vocab_size": 40, "tie_word_embeddings": False}
    return Architecture(**(about | sizes | fields), layers=groups)


@st.composite
def architectures(draw: st.DrawFn, kind: str) -> Architecture:
    """An architecture with one or two groups, the first of which holds a block of `kind`."""
    own = draw(BLOCKS[kind])
    first = {"mixer": own, "feed_forward": draw(mlp)} if kind in MIXERS else {"mixer": draw(gqa()), "feed_forward": own}
    groups = [LayerGroup(name="first", count=draw(st.integers(1, 4)), **first)]
    if draw(flags):
        groups.append(LayerGroup(name="second", count=draw(st.integers(1, 4)), mixer=draw(gqa()), feed_forward=draw(moe())))
    return model(
        *groups, hidden_size=draw(small), vocab_size=draw(small), tie_word_embeddings=draw(flags), norm=draw(norms),
        embedding_norm=draw(flags), position_embeddings=draw(st.none() | small),
    )  # fmt: skip
