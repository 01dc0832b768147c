"""Runs a model of the reference implementation under torch's FLOP counter, and says what it does otherwise than we count.

torch and transformers are imported where they are used: this file is also read where they are missing.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from typing import Any

import costmodel as cm

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when transformers is imported: these tests never ask the network

PART = re.compile(
    r"\w+\.((language_model\.)?lm_head|(model\.)?(vision_tower|visual|vision_model|multi_modal_projector)"
    r"|(language_model\.)?(model|transformer|backbone)(\.language_model)?\.(layers|h|blocks)\.\d+)"
)
"""Modules that make up a model without overlap: its layers, tower, projector and head."""
STORED_AS_BUFFER = ("e_score_correction_bias", "expert_bias")
"""A router's correction bias is trained and in the checkpoint; the implementation registers it as a buffer."""


def _llada(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    names = {
        "d_model": "hidden_size", "n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads",
        "n_layers": "num_hidden_layers", "mlp_hidden_size": "intermediate_size", "max_sequence_length": "max_position_embeddings",
        "weight_tying": "tie_word_embeddings",
    }  # fmt: skip
    called = {names.get(name, name): value for name, value in config.items()}
    return "Qwen2ForCausalLM" if config.get("include_qkv_bias") else "LlamaForCausalLM", called


def _llada_moe(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    names = {"expert_intermediate_size": "moe_intermediate_size", "dense_intermediate_size": "intermediate_size"}
    head = config["hidden_size"] // config["num_attention_heads"]
    dense = [layer for layer, mixed in enumerate(config["moe_layer_freq"]) if not mixed]
    called = {names.get(name, name): value for name, value in config.items()}
    return "Qwen3MoeForCausalLM", called | {"head_dim": head, "mlp_only_layers": dense}


def _hunyuan(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    head = config["hidden_size"] // config["num_attention_heads"]
    called = {"head_dim": config.get("attention_head_dim", head), **config}
    return "HunYuanMoEV1ForCausalLM" if config["num_experts"] > 1 else "HunYuanDenseV1ForCausalLM", called


STAND_INS: dict[str, Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]] = {
    "LLaDAModelLM": _llada,
    "LLaDAMoEModelLM": _llada_moe,
    "DreamModel": lambda config: ("Qwen2ForCausalLM", config),
    "HunYuanForCausalLM": _hunyuan,
}
"""For each class that the library lacks, one of the same shape and its config.

A mask has no parameters, and the counter sees all pairs whether causal or not. Where a shape does differ, see `AS_IMPLEMENTED`.
"""


def without_sharing(ours: cm.Architecture) -> cm.Architecture:
    """Hunyuan's stand-in gives each layer keys and values of its own, kept apart, and norms for queries and keys."""
    alone = {"shares_kv": False, "own_key_norm": False, "qk_norm": "head"}
    return ours.model_copy(
        update={
            "layers": tuple(
                group.model_copy(update={"mixer": group.mixer.model_copy(update=alone)}) for group in ours.layers if group.mixer
            )
        }
    )


def as_counted(class_name: str, ours: cm.Architecture) -> cm.Architecture:
    """What the counter sees of a class: Llama 4's takes every token through all experts, and adds those it was sent to."""
    if not class_name.startswith("Llama4"):
        return ours
    layers = tuple(
        group.model_copy(
            update={"feed_forward": group.feed_forward.model_copy(update={"num_experts_per_tok": group.feed_forward.num_experts})}
        )
        if isinstance(group.feed_forward, cm.MoE)
        else group
        for group in ours.layers
    )
    return ours.model_copy(update={"layers": layers})


AS_IMPLEMENTED: dict[str, Callable[[cm.Architecture], cm.Architecture]] = {"HunYuanForCausalLM": without_sharing}
"""By the class of a stand-in that is built differently from the model: ours, built as it is."""


def as_implemented(class_name: str, ours: cm.Architecture) -> cm.Architecture:
    """What a class of the reference implementation, or its stand-in, is to be compared with."""
    return AS_IMPLEMENTED.get(class_name, lambda same: same)(ours)


def build(class_name: str, config: dict[str, Any]) -> Any:
    """The model in bf16. Attention and experts run as plain matrix products, k experts a token, all of which the counter sees.

    RWKV-7 has no class there: it is built from the paper's equations.
    """
    import torch
    import transformers

    if class_name in STAND_INS:
        class_name, config = STAND_INS[class_name](config)
        config = {name: value for name, value in config.items() if name not in ("architectures", "model_type")}
    if class_name == "RWKV7ForCausalLM":
        from .goose import RWKV7ForCausalLM

        return RWKV7ForCausalLM(config).to(torch.bfloat16).eval()
    config = {name: value for name, value in config.items() if name != "rope_scaling" or value is not None}
    chosen = getattr(transformers, class_name).config_class.from_dict(dict(config))
    how = {"attn_implementation": "eager", "experts_implementation": "batched_mm", "dtype": torch.bfloat16}
    return getattr(transformers, class_name)._from_config(chosen, **how).eval()


def trained(model: Any) -> dict[str, Any]:
    """Trained tensors by name, a tied one once."""
    biases = {name: buffer for name, buffer in model.named_buffers() if name.endswith(STORED_AS_BUFFER)}
    return {**dict(model.named_parameters()), **biases}


def run(model: Any, ours: cm.Architecture, past_key_values: Any = None, **inputs: Any) -> tuple[Counter[str], Any]:
    """FLOPs of one forward pass by layer group, tower and head; and its cache."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    name = "cache_params" if "cache_params" in signature(model.forward).parameters else "past_key_values"
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        kept = model(use_cache=True, **inputs, **{name: past_key_values})[name]
    flops: Counter[str] = Counter()
    for module, ops in counter.get_flop_counts().items():
        if PART.fullmatch(module):
            flops[_group_of(module, ours)] += sum(ops.values())
    assert flops.total() == counter.get_total_flops(), "work outside layers, tower and head"
    return flops, kept


def _group_of(module: str, ours: cm.Architecture) -> str:
    if layer := re.search(r"\.(?:layers|h|blocks)\.(\d+)", module):
        return names_by_layer(ours)[int(layer[1])]
    return "head" if module.endswith("lm_head") else "vision"


HYBRID = "layers"


def names_by_layer(ours: cm.Architecture) -> tuple[str, ...]:
    """Our group of each of the implementation's layers.

    There a shared block is a part of the Mamba layer behind it, one layer for our two: all of them go by one name.
    """
    shared = {group.name for group in ours.layers if group.mixer is not None and group.mixer.kind == "shared_transformer"}
    return tuple(HYBRID for name in ours.layer_order if name not in shared) if shared else ours.layer_order


def _by_name(ours: cm.Architecture, values: dict[str, int]) -> dict[str, int]:
    """Values of our groups under the names that `names_by_layer` gives."""
    if HYBRID not in names_by_layer(ours):
        return values
    groups = {group.name for group in ours.layers}
    return {HYBRID: sum(values[name] for name in groups & values.keys())} | {
        name: value for name, value in values.items() if name not in groups
    }


def measured(kept: Any, ours: cm.Architecture) -> tuple[Counter[str], Counter[str]]:
    """Elements and bytes of every tensor in a cache, by layer group."""
    elements: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for group, layer in zip(names_by_layer(ours), _layers_kept(kept, len(names_by_layer(ours))), strict=True):
        for tensor in _tensors(layer):
            elements[group] += tensor.numel()
            size[group] += tensor.nbytes
    return elements, size


def _layers_kept(kept: Any, depth: int) -> list[Any]:
    """What holds each layer's tensors; MiniMax keeps its states in a list beside the layers."""
    if not hasattr(kept, "layers"):
        return list(kept.rnn_state.values())
    layers: list[Any] = [vars(layer) for layer in kept.layers]
    states = getattr(kept, "linear_cache", None)
    if states is None:
        return layers
    layers, states = ([*held, *[[]] * (depth - len(held))] for held in (layers, states))
    return [[layer, state] for layer, state in zip(layers, states, strict=True)]


def _tensors(held: Any) -> Iterator[Any]:
    """The tensors in nested containers; not scalars, a layer's own note of its window."""
    if getattr(held, "ndim", 0):
        yield held
    elif isinstance(held, (dict, list, tuple)):
        for one in held.values() if isinstance(held, dict) else held:
            yield from _tensors(one)


# what it does otherwise, exactly


@dataclass(frozen=True)
class Otherwise:
    """What the reference implementation does otherwise than we count, for the mixers of a family.

    `kept(mixer, context)`: elements one layer keeps of a sequence beside ours, and `columns(mixer)` columns of the residual
    stream's width. `counted(mixer, new, context, ours)`: FLOPs of one
    layer and sequence that the counter sees beside ours with `attention="full"`; `ours(op, new, context)` are ours of an op.
    """

    kept: Callable[[Any, int], int] = lambda mixer, context: 0
    counted: Callable[[Any, int, int, Callable[[str, int, int], int]], int] = lambda mixer, new, context, ours: 0
    columns: Callable[[Any], int] = lambda mixer: 0


def window_kept(mixer: cm.GQA, context: int) -> int:
    """A sliding layer keeps W - 1 tokens, ours W: the next query brings its own. A layer in chunks does the same with C."""
    reach = mixer.sliding_window or mixer.attention_chunk_size
    if not reach:
        return 0
    tokens = min(context, reach - 1) - min(context, reach)
    return mixer.num_key_value_heads * _both_widths(mixer) * tokens


def window_counted(mixer: cm.GQA, new: int, context: int, ours: Callable[[str, int, int], int]) -> int:
    """A sliding layer attends to the W - 1 tokens it kept and the new ones, not to the whole context."""
    reach = mixer.sliding_window or mixer.attention_chunk_size
    if not reach:
        return 0
    in_sight = min(context, reach - 1 + new)
    return mixer.num_attention_heads * 2 * _both_widths(mixer) * new * (in_sight - context)


def _both_widths(mixer: cm.GQA) -> int:
    """The widths of a key and of a value."""
    return mixer.head_dim + (mixer.v_head_dim or mixer.head_dim)


def convolved_columns(kernel: int, new: int, context: int) -> int:
    """Columns a causal convolution gives beside its inputs; prompts here are no shorter than the kernel.

    A convolution of kernel K gives K - 1 columns beyond its inputs, and after a prefix its inputs begin with the K columns
    kept; a single step is convolved without padding, over K + 1 columns.
    """
    return kernel - 1 if new == context else 1 if new == 1 else 2 * kernel - 1


def deltanet_counted(mixer: cm.GatedDeltaNet, new: int, context: int, ours: Callable[[str, int, int], int]) -> int:
    """The chunked delta rule fills its last chunk with zeros, and applies the triangular factor to keys and values by a solve.

    The counter does not see a solve. A single step is element-wise: not seen either.
    """
    kernel, chunk = mixer.linear_conv_kernel_dim, mixer.chunk_size
    seen = 0
    if new > 1:
        padded = chunk * -(-new // chunk)
        unseen = 2 * chunk * (mixer.linear_key_head_dim + mixer.linear_value_head_dim)
        seen = ours("delta_rule", padded, padded) - padded * mixer.linear_num_value_heads * unseen
    convolved = 2 * kernel * _channels(mixer) * convolved_columns(kernel, new, context)
    return convolved + seen - ours("delta_rule", new, context)


def mlstm_counted(mixer: cm.MLSTM, new: int, context: int, ours: Callable[[str, int, int], int]) -> int:
    """The rest of a prompt after its last whole chunk goes step by step.

    The normaliser is written, and the scores are summed for it, without a matrix product: the counter does not see that.
    """
    keys, values, chunk = mixer.qk_head_dim, mixer.v_head_dim, mixer.chunk_size
    chunked = new - new % chunk if new > 1 else 0
    seen = new * (4 * keys * values + 2 * keys) + chunked * 2 * chunk * (keys + values)
    return mixer.num_heads * seen - ours("memory", new, context)


def short_conv_counted(mixer: cm.ShortConv, new: int, context: int, ours: Callable[[str, int, int], int]) -> int:
    """The convolution gives more columns than its inputs have."""
    return ours("conv", 1, 1) * convolved_columns(mixer.conv_L_cache, new, context)


def _channels(mixer: cm.GatedDeltaNet) -> int:
    """Channels of the convolution: queries, keys and values. It keeps K columns of them, ours K - 1."""
    keys = mixer.linear_num_key_heads * mixer.linear_key_head_dim
    return 2 * keys + mixer.linear_num_value_heads * mixer.linear_value_head_dim


def mamba_counted(mixer: cm.Mamba, new: int, context: int, ours: Callable[[str, int, int], int]) -> int:
    """Of each token's scan the counter sees the read, a matrix product, and not the write, which is element-wise."""
    convolved = 2 * mixer.conv_kernel * mixer.d_inner * convolved_columns(mixer.conv_kernel, new, context)
    return convolved + 2 * new * mixer.d_inner * mixer.ssm_state_size - ours("selective_scan", new, context)


def mamba2_counted(mixer: cm.Mamba2, new: int, context: int, ours: Callable[[str, int, int], int]) -> int:
    """A single step's write is element-wise: not seen. Many tokens go in chunks, the last one filled up.

    There each head makes its group's scores for itself, and states are passed on by a triangle of products: each chunk's
    start from all chunks before it.
    """
    state = mixer.mamba_num_heads * mixer.mamba_head_dim * mixer.ssm_state_size
    seen = 2 * state
    if new > 1:
        chunks = -(-new // mixer.chunk_size)
        padded = chunks * mixer.chunk_size
        squares = 2 * padded * mixer.chunk_size * mixer.mamba_num_heads * (mixer.ssm_state_size + mixer.mamba_head_dim)
        seen = squares + 4 * padded * state + 2 * (chunks + 1) ** 2 * state
    convolved = 2 * mixer.conv_kernel * _mamba2_channels(mixer) * convolved_columns(mixer.conv_kernel, new, context)
    return convolved + seen - ours("selective_scan", new, context)


def _mamba2_channels(mixer: cm.Mamba2) -> int:
    """Channels of the convolution: x, and each group's B and C. It keeps K columns of them, ours K - 1."""
    return mixer.mamba_num_heads * mixer.mamba_head_dim + 2 * mixer.n_groups * mixer.ssm_state_size


def kda_counted(mixer: cm.KDA, new: int, context: int, ours: Callable[[str, int, int], int]) -> int:
    """Like the delta rule above; products of keys with keys, and of queries with keys, are element-wise: 4 C d a token unseen."""
    kernel, chunk = mixer.linear_conv_kernel_dim, mixer.chunk_size
    width = mixer.linear_num_heads * mixer.linear_head_dim
    seen = 0
    if new > 1:
        padded = chunk * -(-new // chunk)
        seen = ours("delta_rule", padded, padded) - padded * 4 * chunk * width
    return 2 * kernel * 3 * width * convolved_columns(kernel, new, context) + seen - ours("delta_rule", new, context)


def lightning_counted(mixer: cm.LightningAttention, new: int, context: int, ours: Callable[[str, int, int], int]) -> int:
    """New tokens after a prefix are taken one by one."""
    return 0 if new in (1, context) else new * ours("attention", 1, 1) - ours("attention", new, context)


OTHERWISE: dict[str, Otherwise] = {
    "gqa": Otherwise(window_kept, window_counted),
    "gated_deltanet": Otherwise(lambda mixer, context: _channels(mixer), deltanet_counted),
    "mamba": Otherwise(lambda mixer, context: mixer.d_inner, mamba_counted),
    "mamba2": Otherwise(lambda mixer, context: _mamba2_channels(mixer), mamba2_counted),
    "parallel_hybrid": Otherwise(
        lambda mixer, context: _mamba2_channels(mixer),
        lambda mixer, new, context, ours: mamba2_counted(mixer, new, context, lambda op, n, c: ours(f"ssm.{op}", n, c)),
    ),
    "kda": Otherwise(lambda mixer, context: 3 * mixer.linear_num_heads * mixer.linear_head_dim, kda_counted),
    "lightning_attention": Otherwise(counted=lightning_counted),
    "mlstm": Otherwise(counted=mlstm_counted),
    "short_conv": Otherwise(columns=lambda mixer: 1, counted=short_conv_counted),
}
"""By the kind of mixer. Families without an entry are implemented as we count."""


def kept_otherwise(ours: cm.Architecture, group: cm.LayerGroup, batch: int, context: int) -> int:
    """Elements a group's layers keep beside ours."""
    mixer = group.mixer
    if mixer is None:
        return 0
    otherwise = OTHERWISE.get(mixer.kind, Otherwise())
    return group.count * batch * (otherwise.kept(mixer, context) + otherwise.columns(mixer) * ours.hidden_size)


def counted_otherwise(ours: cm.Architecture, group: cm.LayerGroup, batch: int, new: int, context: int) -> int:
    """FLOPs the counter sees in a group's layers beside ours with `attention="full"`."""
    mixer = group.mixer
    if mixer is None:
        return 0

    def of_one_layer(op: str, new: int, context: int) -> int:
        part = ours.flops.having(attention="full").parts[group.name].parts[mixer.kind].parts[op]
        return int(part(new_tokens=new, context=context)) // group.count

    return group.count * batch * OTHERWISE.get(mixer.kind, Otherwise()).counted(mixer, new, context, of_one_layer)


# what we expect of it


def expected_cache(ours: cm.Architecture, batch: int, context: int, *, in_bytes: bool) -> dict[str, int]:
    """Our elements by layer group, or our bytes in bf16 with recurrent state in its own fp32, and what it keeps otherwise."""
    precision = "bf16" if in_bytes else cm.Precision(cache=1, state=1, activations=1)
    parts = ours.cache_bytes.having(precision=precision).parts
    each = 2 if in_bytes else 1  # bytes of what is kept otherwise: all of it is in the model's format
    kept = {
        group.name: parts[group.name](batch=batch, context=context) + each * kept_otherwise(ours, group, batch, context)
        for group in ours.layers
        if group.mixer is not None
    }
    return _by_name(ours, kept)


def expected_flops(ours: cm.Architecture, batch: int, new: int, context: int, images: int = 0) -> dict[str, int]:
    """Our FLOPs by layer group, tower and head, and what the counter sees otherwise. Its latents are always expanded."""
    formula = ours.flops.having(attention="full", logits="all", algorithm="expanded", images=images)
    expected = {name: part(batch=batch, new_tokens=new, context=context) for name, part in formula.parts.items()}
    for group in ours.layers:
        expected[group.name] += counted_otherwise(ours, group, batch, new, context)
    return _by_name(ours, expected)
