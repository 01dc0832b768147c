"""What the entries of model types are made of: how layers are told apart, how blocks are read, and what is taken for granted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from costmodel.importers.fields import Fields, Source, flag, optional, size

Block = Mapping[str, Any]
FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
CHUNKED = "chunked_attention"
DENSE, SPARSE, NONE = "dense", "moe", "none"
ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu",
    "relu2": "relu2",
}  # fmt: skip


# which mixer, and which feed-forward layer, each layer has

Kinds = Callable[[Fields, int], Sequence[str]]
"""The kind of mixer, or of feed-forward layer, that each of so many layers has; NONE where it has none."""


def full(fields: Fields, depth: int) -> list[str]:
    """Full attention in every layer."""
    return [FULL] * depth


def windowed(fields: Fields, depth: int) -> list[str]:
    """A sliding window in every layer, or in none."""
    return [SLIDING if fields.optional("sliding_window") else FULL] * depth


def by_type(otherwise: Kinds, *kinds: str) -> Kinds:
    """`layer_types` where the config has it."""
    known = {kind: kind for kind in kinds}
    return lambda fields, depth: (
        fields.choices("layer_types", known, depth) if fields.given("layer_types") else otherwise(fields, depth)
    )


def interval(kind: str, period: str | int, full_at: int = -1) -> Kinds:
    """`kind` in every layer but one of each `period`, a number or the field that states it; that one is the last or the first."""

    def mixers(fields: Fields, depth: int) -> list[str]:
        length = fields.size(period) if isinstance(period, str) else period
        return [FULL if place % length == full_at % length else kind for place in range(depth)]

    return by_type(mixers, FULL, kind)


def last_windowed(fields: Fields, depth: int) -> list[str]:
    """A window from layer `max_window_layers` on, where one is switched on."""
    if _switched_window(fields) is None:
        return [FULL] * depth
    first = fields.size("max_window_layers", 0)
    return [SLIDING if place >= first else FULL for place in range(depth)]


def _switched_window(fields: Fields) -> int | None:
    return fields.optional("sliding_window") if fields.flag("use_sliding_window") else None


def dense(fields: Fields, depth: int) -> list[str]:
    """Every layer dense."""
    return [DENSE] * depth


def always(fields: Fields, depth: int) -> list[str]:
    """Every layer a mixture."""
    return [SPARSE] * depth


def nothing(fields: Fields, depth: int) -> list[str]:
    """No feed-forward layer anywhere."""
    return [NONE] * depth


def after_dense(fields: Fields, depth: int) -> list[str]:
    """Mixtures after the first `first_k_dense_replace` layers."""
    first = fields.size("first_k_dense_replace", 0)
    return [SPARSE if place >= first else DENSE for place in range(depth)]


def by_feed_types(otherwise: Kinds) -> Kinds:
    """`mlp_layer_types` where the config has it."""
    known = {"dense": DENSE, "sparse": SPARSE}
    return lambda fields, depth: (
        fields.choices("mlp_layer_types", known, depth) if fields.given("mlp_layer_types") else otherwise(fields, depth)
    )


def every_step(fields: Fields, depth: int) -> list[str]:
    """A mixture in every `decoder_sparse_step`-th layer, but not in `mlp_only_layers`."""
    step, without = fields.size("decoder_sparse_step"), fields.places("mlp_only_layers")
    return [SPARSE if (place + 1) % step == 0 and place not in without else DENSE for place in range(depth)]


def by_flags(name: str) -> Kinds:
    """A mixture in the layers whose entry in a list of 0 and 1 is 1."""
    return lambda fields, depth: [SPARSE if value else DENSE for value in fields.bits(name, depth)]


# blocks

WINDOW = optional("sliding_window")


def activation(fields: Fields) -> str:
    """Our name of `hidden_act`."""
    return fields.choice("hidden_act", ACTIVATIONS)


def rotary(fields: Fields) -> int | None:
    """Elements of a head that rope turns, None for all of them."""
    share = fields.fraction("partial_rotary_factor")
    return None if share == 1 else int(fields.size("head_dim") * share)


def gqa(**others: Any) -> Block:
    """Grouped-query attention."""
    sizes = ("num_attention_heads", "num_key_value_heads", "head_dim")
    return {"kind": "gqa"} | {name: size(name) for name in sizes} | others


def biased(**others: Any) -> Block:
    """Grouped-query attention whose `attention_bias` means all four matrices."""
    return gqa(qkv_bias=flag("attention_bias"), o_bias=flag("attention_bias"), **others)


def both_ways(**others: Any) -> Block:
    """Grouped-query attention in which a token also sees those after it."""
    return gqa(bidirectional=True, **others)


def normed_by(name: str) -> Source:
    """Norms of queries and keys where a switch of this name is on."""
    return lambda fields: "head" if fields.flag(name) else None


def mlp(**others: Any) -> Block:
    """A gated feed-forward layer."""
    return {"kind": "mlp", "intermediate_size": size("intermediate_size"), "activation": activation} | others


def moe(width: str = "moe_intermediate_size", **others: Any) -> Block:
    """A mixture of gated experts."""
    sizes = {"num_experts": size("num_experts"), "num_experts_per_tok": size("num_experts_per_tok")}
    return {"kind": "moe"} | sizes | {"moe_intermediate_size": size(width), "activation": activation} | others


MLA: Block = {
    "kind": "mla", "q_lora_rank": optional("q_lora_rank"), "attention_bias": flag("attention_bias"),
    **{name: size(name) for name in ("num_attention_heads", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")},
}  # fmt: skip
KDA: Block = {"kind": "kda"} | {name: size(name) for name in ("linear_num_heads", "linear_head_dim", "linear_conv_kernel_dim")}
LIGHTNING: Block = {
    "kind": "lightning_attention", "activation": activation,
    **{name: size(name) for name in ("num_attention_heads", "head_dim", "block_size")},
}  # fmt: skip
DSA: dict[str, Any] = {
    **MLA, "kind": "dsa", "q_lora_rank": size("q_lora_rank"),
    **{name: size(name) for name in ("index_n_heads", "index_head_dim", "index_topk")},
}  # fmt: skip
_DELTANET = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim", "conv_kernel_dim")
DELTANET: Block = {"kind": "gated_deltanet"} | {f"linear_{name}": size(f"linear_{name}") for name in _DELTANET}


# defaults, and values that must be as they are


def heads(fields: Fields) -> int:
    """A key/value head for each query head."""
    return fields.size("num_attention_heads")


def rounded_up(width: int, multiple: int) -> int:
    """The next multiple, or the width itself where it is one."""
    return -(-width // multiple) * multiple


def shared_out(fields: Fields) -> int:
    """The model's width shared out to the heads."""
    width, count = fields.size("hidden_size"), fields.size("num_attention_heads")
    if width % count:
        fields.wrong("num_attention_heads", count, f"a divisor of the width {width:,}, or head_dim")
    return width // count


def fourfold(fields: Fields) -> int:
    """Four times the model's width."""
    return 4 * fields.size("hidden_size")


def one_per_head(fields: Fields) -> tuple[int | None, ...]:
    """Latent attention has no key/value heads of its own: configs repeat the number of heads."""
    return (fields.size("num_attention_heads"), None)


@dataclass(frozen=True)
class Recipe:
    """How the configs of one `model_type` are read.

    `mixers` and `feeds` say what each layer has: `attention` (with `window` where it slides) or one of `others` by the kind's
    name; `dense`, `experts`, or nothing. `groups` holds what a layer group has beside its blocks, by the kind of its mixer.
    `only` holds values without which we would count wrongly; `idle` fields that a config may state and nothing may need.
    """

    implementation: str
    """The class that the config must name, where it names one."""
    attention: Block = field(default_factory=dict)
    mixers: Kinds = full
    window: Source = WINDOW
    others: Mapping[str, Block] = field(default_factory=dict)
    feeds: Kinds = dense
    dense: Block = field(default_factory=mlp)
    experts: Block = field(default_factory=dict)
    groups: Mapping[str, Block] = field(default_factory=dict)
    norm: Block = field(default_factory=dict)
    embedding_norm: Source | None = None
    inside: tuple[str, ...] = ()
    """Objects within the config, whose fields are read as `object.field`."""
    positions: Source | None = None
    diffusion: Block | None = None
    mtp: Source | int = 0
    defaults: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, Any] = field(default_factory=dict)
    idle: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tower:
    """How a `vision_config` is read: the blocks, what stands beside them, and the tokens an image becomes.

    `tokens` reads the tower's fields and those around it; `ends_at` is the field that must be the language model's width.
    """

    sizes: Block
    attention: Block
    feed_forward: Block
    tokens: Callable[[Fields, Fields], int]
    projector: Block = field(default_factory=dict)
    ends_at: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, Any] = field(default_factory=dict)
    idle: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Nested:
    """A language model in `text_config` beside a vision tower in `vision_config`."""

    implementation: str
    text: str
    tower: Tower
    defaults: Mapping[str, Any]


UNTIED = {"tie_word_embeddings": False}
TIED = {"tie_word_embeddings": True}
PLAIN = UNTIED | {"max_position_embeddings": None, "head_dim": shared_out, "hidden_act": "silu"}
UNBIASED = {"attention_bias": False}
NO_BIAS = {"attention_bias": (False,)}
OWN_HEADS: dict[str, Any] = {
    "head_dim": lambda fields: (shared_out(fields),),
    "num_key_value_heads": lambda fields: (heads(fields),),
}
"""An implementation that reads neither field: they may repeat what it makes of the others."""
NO_WINDOW = {"use_sliding_window": (False,), "layer_types": (None,)}
STEPS = {"decoder_sparse_step": 1, "mlp_only_layers": None}
SWITCHED = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
NO_DENSE = {"intermediate_size": "no layer is dense"}
NO_SLIDING = dict.fromkeys(("sliding_window", "max_window_layers"), "no layer has a window")
TYPED = dict.fromkeys(("sliding_window_pattern", "full_attention_interval"), "layer_types says it")
LOCAL_EXPERTS = {"num_local_experts": "num_experts"}
ROUTED = {"n_routed_experts": "num_experts", **LOCAL_EXPERTS, "num_mtp_layers": "num_nextn_predict_layers"}
LATENT = {"head_dim": "the implementation takes qk_rope_head_dim", "qk_head_dim": "the sum of the two parts of a key"}
GATED_SHARED: dict[str, Any] = {
    "num_shared_experts": 1, "shared_expert_intermediate_size": size("shared_expert_intermediate_size"), "shared_expert_gate": True,
}  # fmt: skip
