"""Small real models, run: their cache tensors element for element, and their FLOPs under torch's counter.

Each model of the reference implementation stands beside the same architecture in our words, and both see the same
passes. What the implementation does differently is added in `kept_otherwise` and `counted_otherwise`, exactly.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

import costmodel as cm

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when transformers is imported: these tests never ask the network
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from torch.utils._pytree import tree_leaves  # noqa: E402 (torch may be missing)
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

pytestmark = pytest.mark.torch

BATCH, WINDOW, KERNEL, CHUNK = 3, 7, 4, 64
RUNS = {"short prompt": (5, 1, 1, 8, 1), "long prompt": (12, 1, 3), "two chunks": (70, 1, 66)}
"""New tokens of each pass over one cache: contexts below, at and beyond the window; decode, and prefixes already cached."""

# the small architectures: sizes of their own, so that a wrong one shows
WIDTH, VOCAB, HEADS, KV_HEADS, HEAD = 48, 97, 6, 2, 10
COMMON = {"hidden_size": WIDTH, "vocab_size": VOCAB, "num_attention_heads": HEADS, "max_position_embeddings": 160}
COMMON |= {"bos_token_id": None, "eos_token_id": None}  # the defaults are beyond this vocabulary
GROUPED = {**COMMON, "num_key_value_heads": KV_HEADS, "head_dim": HEAD}
DENSE = {**GROUPED, "intermediate_size": 72, "num_hidden_layers": 3}
LATENT = {
    **COMMON, "kv_lora_rank": 14, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 9, "intermediate_size": 72,
    "num_hidden_layers": 3, "first_k_dense_replace": 1, "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 22,
    "n_shared_experts": 2, "n_group": 2, "topk_group": 1, "num_key_value_heads": HEADS,
}  # fmt: skip
HYBRID = {
    **GROUPED, "num_hidden_layers": 6, "layer_types": 2 * ["linear_attention", "linear_attention", "full_attention"],
    "partial_rotary_factor": 0.4, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 6,
    "linear_value_head_dim": 13, "linear_conv_kernel_dim": KERNEL, "num_experts": 8, "num_experts_per_tok": 3,
    "moe_intermediate_size": 22, "shared_expert_intermediate_size": 26,
}  # fmt: skip
VISION = {
    "hidden_size": 40, "intermediate_size": 52, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 24, "patch_size": 4,
    "num_channels": 3, "vision_use_head": False, "model_type": "siglip_vision_model",
}  # fmt: skip
TOKENS_PER_IMAGE, IMAGE_TOKEN = 9, VOCAB - 1
LOCAL_GLOBAL = {**DENSE, "num_hidden_layers": 5, "sliding_window": WINDOW, "sliding_window_pattern": 2}


def gqa(**changes: Any) -> cm.GQA:
    return cm.GQA(**{"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD, **changes})


def mla(**changes: Any) -> cm.MLA:
    return cm.MLA(num_attention_heads=HEADS, kv_lora_rank=14, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=9, **changes)


def moe(**changes: Any) -> cm.MoE:
    return cm.MoE(num_experts=8, num_experts_per_tok=3, moe_intermediate_size=22, **changes)


def group(name: str, count: int, mixer: Any, feed_forward: Any) -> cm.LayerGroup:
    return cm.LayerGroup(name=name, count=count, mixer=mixer, feed_forward=feed_forward)


def architecture(*layers: cm.LayerGroup, tied: bool = False, **changes: Any) -> cm.Architecture:
    return cm.Architecture(
        name="small", title="Small", maker="nobody", source="this test", hidden_size=WIDTH, vocab_size=VOCAB,
        tie_word_embeddings=tied, layers=layers, **changes,
    )  # fmt: skip


MLP = cm.MLP(intermediate_size=72)
SHARED = {"num_shared_experts": 2, "score_correction_bias": True}
GATED_SHARED = moe(num_shared_experts=1, shared_expert_intermediate_size=26, shared_expert_gate=True)
DELTANET = cm.GatedDeltaNet(
    linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=6, linear_value_head_dim=13, linear_conv_kernel_dim=KERNEL
)
GEMMA: dict[str, Any] = {"tied": True, "norm": cm.Norm(placement="sandwich"), "pattern": ("local", "global")}
GEMMA_LAYERS = (
    group("local", 3, gqa(qk_norm="head", sliding_window=WINDOW), MLP),
    group("global", 2, gqa(qk_norm="head"), MLP),
)


@dataclass(frozen=True)
class Pair:
    """A class of the reference implementation with its config, and the same model in our words."""

    reference: str
    config: dict[str, Any]
    ours: cm.Architecture


PAIRS = {
    "llama": Pair("LlamaForCausalLM", DENSE, architecture(group("dense", 3, gqa(), MLP))),
    "llama with biases": Pair(
        "LlamaForCausalLM",
        {**DENSE, "attention_bias": True, "mlp_bias": True},
        architecture(group("dense", 3, gqa(qkv_bias=True, o_bias=True), cm.MLP(intermediate_size=72, bias=True))),
    ),
    "mistral": Pair(
        "MistralForCausalLM",
        {**DENSE, "sliding_window": WINDOW},
        architecture(group("dense", 3, gqa(sliding_window=WINDOW), MLP)),
    ),
    "gpt2": Pair(
        "GPT2LMHeadModel",
        {"n_embd": WIDTH, "n_head": HEADS, "n_layer": 3, "n_positions": 160, "vocab_size": VOCAB},
        architecture(
            group(
                "dense", 3,
                gqa(num_key_value_heads=HEADS, head_dim=WIDTH // HEADS, rotary_dim=0, qkv_bias=True, o_bias=True),
                cm.MLP(intermediate_size=4 * WIDTH, gated=False, bias=True),
            ),
            tied=True, position_embeddings=160, norm=cm.Norm(kind="layernorm", bias=True),
        ),
    ),
    "gemma3": Pair("Gemma3ForCausalLM", LOCAL_GLOBAL, architecture(*GEMMA_LAYERS, **GEMMA)),
    "qwen3": Pair("Qwen3ForCausalLM", DENSE, architecture(group("dense", 3, gqa(qk_norm="head"), MLP))),
    "qwen3_moe": Pair(
        "Qwen3MoeForCausalLM",
        {**DENSE, "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 22, "mlp_only_layers": [1]},
        architecture(
            group("moe", 2, gqa(qk_norm="head"), moe()), group("dense", 1, gqa(qk_norm="head"), MLP), pattern=("moe", "dense"),
        ),
    ),
    "mixtral": Pair(
        "MixtralForCausalLM",
        {**DENSE, "intermediate_size": 22, "num_local_experts": 8, "num_experts_per_tok": 3},
        architecture(group("moe", 3, gqa(), moe())),
    ),
    "deepseek_v3": Pair(
        "DeepseekV3ForCausalLM",
        {**LATENT, "q_lora_rank": 18, "attention_bias": True},
        architecture(
            group("dense", 1, mla(q_lora_rank=18, attention_bias=True), MLP),
            group("moe", 2, mla(q_lora_rank=18, attention_bias=True), moe(**SHARED)),
        ),
    ),
    "deepseek_v3 without query latent": Pair(
        "DeepseekV3ForCausalLM",
        {**LATENT, "q_lora_rank": None},
        architecture(group("dense", 1, mla(), MLP), group("moe", 2, mla(), moe(**SHARED))),
    ),
    "qwen3_next": Pair(
        "Qwen3NextForCausalLM",
        HYBRID,
        architecture(
            group("deltanet", 4, DELTANET, GATED_SHARED),
            group("attention", 2, gqa(rotary_dim=4, qk_norm="head", output_gate=True), GATED_SHARED),
            pattern=("deltanet", "deltanet", "attention"),
        ),
    ),
    "gemma3 with images": Pair(
        "Gemma3ForConditionalGeneration",
        {"text_config": LOCAL_GLOBAL, "vision_config": VISION, "mm_tokens_per_image": TOKENS_PER_IMAGE, "image_token_index": IMAGE_TOKEN},
        architecture(
            *GEMMA_LAYERS,
            vision=cm.VisionTower(
                image_size=24, patch_size=4, hidden_size=40, num_hidden_layers=2, tokens_per_image=TOKENS_PER_IMAGE,
                mixer=gqa(num_attention_heads=4, num_key_value_heads=4, head_dim=10, rotary_dim=0, qkv_bias=True, o_bias=True),
                feed_forward=cm.MLP(intermediate_size=52, gated=False, bias=True),
            ),
            **GEMMA,
        ),
    ),
}  # fmt: skip


@cache
def reference(name: str) -> Any:
    """The real model in bf16. Attention and experts run as plain matrix products, all of which the counter sees."""
    pair = PAIRS[name]
    model = getattr(transformers, pair.reference)
    torch.manual_seed(0)
    config = model.config_class.from_dict(dict(pair.config))
    return model._from_config(config, attn_implementation="eager", experts_implementation="batched_mm", dtype=torch.bfloat16).eval()


@dataclass(frozen=True)
class Seen:
    """One pass of `new` tokens that ends at `context`: FLOPs counted in it, and what is kept after it, by layer group."""

    new: int
    context: int
    flops: Counter[str]
    elements: Counter[str]
    bytes: Counter[str]


@cache
def passes(name: str, run: str) -> list[Seen]:
    """The passes of a run, counted and measured."""
    ours = PAIRS[name].ours
    kept, context, seen = None, 0, []
    for new in RUNS[run]:
        context += new
        ids = torch.randint(0, IMAGE_TOKEN, (BATCH, new))
        flops, kept = counted(name, input_ids=ids, past_key_values=kept)
        seen.append(Seen(new, context, flops, *measured(kept, ours)))
    return seen


def counted(name: str, **inputs: Any) -> tuple[Counter[str], Any]:
    """FLOPs of one forward pass by layer group, tower and head; and its cache."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        kept = reference(name)(use_cache=True, **inputs).past_key_values
    flops: Counter[str] = Counter()
    for module, ops in counter.get_flop_counts().items():
        if PART.fullmatch(module):
            flops[group_of(module, PAIRS[name].ours)] += sum(ops.values())
    assert flops.total() == counter.get_total_flops(), "work outside layers, tower and head"
    return flops, kept


PART = re.compile(
    r"\w+\.(lm_head|model\.(vision_tower|multi_modal_projector)|(model|transformer)(\.language_model)?\.(layers|h)\.\d+)"
)
"""Modules that make up a model without overlap: its layers, tower, projector and head."""


def group_of(module: str, ours: cm.Architecture) -> str:
    """Our name for one of those parts."""
    layer = re.search(r"\.(?:layers|h)\.(\d+)", module)
    if layer:
        return ours.layer_order[int(layer[1])]
    return "head" if module.endswith("lm_head") else "vision"


def measured(kept: Any, ours: cm.Architecture) -> tuple[Counter[str], Counter[str]]:
    """Elements and bytes of every tensor in a cache, by layer group."""
    elements: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for name, layer in zip(ours.layer_order, kept.layers, strict=True):
        for tensor in tree_leaves(vars(layer)):
            if torch.is_tensor(tensor) and tensor.ndim:  # a scalar is the layer's own note of its window
                elements[name] += tensor.numel()
                size[name] += tensor.nbytes
    return elements, size


# what the implementation does differently


def kept_otherwise(group: cm.LayerGroup, context: int) -> int:
    """Elements it keeps beside ours: a window without the next token's place, and `kernel` columns of convolution, not one less."""
    mixer = group.mixer
    if isinstance(mixer, cm.GQA) and mixer.sliding_window:
        tokens = min(context, WINDOW - 1) - min(context, WINDOW)
        return group.count * BATCH * 2 * KV_HEADS * HEAD * tokens
    if isinstance(mixer, cm.GatedDeltaNet):
        return group.count * BATCH * channels(mixer)
    return 0


def counted_otherwise(group: cm.LayerGroup, new: int, context: int, ours: cm.Architecture) -> int:
    """FLOPs the counter sees beside ours, `attention="full"`.

    * A sliding layer attends to the tokens it kept and the new ones, not to the whole context.
    * A convolution gives `kernel - 1` columns more than it has inputs, and its inputs begin with the `kernel` columns
      kept; a single step is convolved without padding, over kernel + 1 columns.
    * The chunked delta rule fills the last chunk with zeros, and applies the triangular factor to keys and values by a
      solve, which the counter does not see. One step is element-wise: not seen either.
    """
    mixer, layers = group.mixer, group.count * BATCH
    if isinstance(mixer, cm.GQA) and mixer.sliding_window:
        in_sight = min(context, WINDOW - 1 + new)
        return layers * HEADS * 4 * HEAD * new * (in_sight - context)
    if isinstance(mixer, cm.GatedDeltaNet):
        columns = KERNEL - 1 if new == context else 1 if new == 1 else 2 * KERNEL - 1
        convolution = layers * 2 * KERNEL * channels(mixer) * columns
        rule = ours.flops.parts[group.name].parts["gated_deltanet"].parts["delta_rule"]
        padded = 0 if new == 1 else CHUNK * -(-new // CHUNK)
        seen = rule(batch=BATCH, new_tokens=padded, context=padded) if padded else 0
        solve = (
            2 * CHUNK * (mixer.linear_key_head_dim + mixer.linear_value_head_dim) * padded * layers * mixer.linear_num_value_heads
        )
        return convolution + int(seen) - solve - int(rule(batch=BATCH, new_tokens=new, context=context))
    return 0


def channels(mixer: cm.GatedDeltaNet) -> int:
    """Channels of a DeltaNet layer's convolution: queries, keys and values."""
    keys = mixer.linear_num_key_heads * mixer.linear_key_head_dim
    return 2 * keys + mixer.linear_num_value_heads * mixer.linear_value_head_dim


# the tests

each_model = pytest.mark.parametrize("name", PAIRS)
each_run = pytest.mark.parametrize("run", RUNS)


@each_model
def test_both_are_the_same_model(name: str) -> None:
    model = reference(name)
    biases = [buffer.numel() for key, buffer in model.named_buffers() if key.endswith("e_score_correction_bias")]
    assert PAIRS[name].ours.params.total == sum(parameter.numel() for parameter in model.parameters()) + sum(biases)


@each_model
@each_run
def test_every_cache_tensor_has_our_elements(name: str, run: str) -> None:
    ours = PAIRS[name].ours
    elements = ours.cache_bytes.having(precision=cm.Precision(cache=1, state=1, activations=1)).parts
    for seen in passes(name, run):
        expected = {
            group.name: elements[group.name](batch=BATCH, context=seen.context) + kept_otherwise(group, seen.context)
            for group in ours.layers
        }
        assert seen.elements == expected, f"{seen.new} new tokens of {seen.context}"


@each_model
@each_run
def test_every_cache_tensor_has_our_bytes(name: str, run: str) -> None:
    """In bf16, with recurrent state in its own fp32: the default precision."""
    ours = PAIRS[name].ours
    for seen in passes(name, run):
        expected = {
            group.name: ours.cache_bytes.parts[group.name](batch=BATCH, context=seen.context)
            + 2 * kept_otherwise(group, seen.context)
            for group in ours.layers
        }
        assert seen.bytes == expected, f"{seen.new} new tokens of {seen.context}"


@each_model
@each_run
def test_every_pass_has_our_flops(name: str, run: str) -> None:
    ours = PAIRS[name].ours
    flops = ours.flops.having(attention="full", logits="all", algorithm="expanded").parts
    for seen in passes(name, run):
        expected = {part: formula(batch=BATCH, new_tokens=seen.new, context=seen.context) for part, formula in flops.items()}
        for group in ours.layers:
            expected[group.name] += counted_otherwise(group, seen.new, seen.context, ours)
        assert seen.flops == expected, f"{seen.new} new tokens of {seen.context}"


@pytest.mark.parametrize("images", [1, 2])
def test_a_pass_that_sees_images_has_our_flops(images: int) -> None:
    """Tower and projector beside the language model; images in the context are tokens like others."""
    name = "gemma3 with images"
    words = torch.randint(0, IMAGE_TOKEN, (BATCH, 4))
    ids = torch.cat([words, torch.full((BATCH, images * TOKENS_PER_IMAGE), IMAGE_TOKEN)], dim=1)
    pixels = torch.zeros(BATCH * images, 3, VISION["image_size"], VISION["image_size"], dtype=torch.bfloat16)
    flops, _ = counted(name, input_ids=ids, pixel_values=pixels)
    context = ids.shape[1]
    ours = PAIRS[name].ours.flops.having(attention="full", logits="all", images=images).parts
    assert flops == {part: formula(batch=BATCH, new_tokens=context, context=context) for part, formula in ours.items()}
