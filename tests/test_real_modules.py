"""Small real models, run on the CPU: cache tensors element for element, and FLOPs under torch's counter.

Each model of the reference implementation stands beside the same architecture in our words, and both see the same
passes: prompts, single steps, and new tokens after a cached prefix.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

import costmodel as cm

from .real_modules import as_implemented, build, expected_cache, expected_flops, measured, run, trained

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.torch

BATCH, WINDOW, KERNEL = 3, 7, 4
RUNS = {"short prompt": (5, 1, 1, 8, 1), "long prompt": (12, 1, 3), "two chunks": (70, 1, 66)}
"""New tokens of each pass over one cache: contexts below, at and beyond the window; decode, and prefixes already cached."""

# the small architectures: sizes of their own, so that a wrong one shows
WIDTH, VOCAB, HEADS, KV_HEADS, HEAD = 48, 97, 6, 2, 10
NO_ENDS = {"bos_token_id": None, "eos_token_id": None}  # the classes' own are beyond this vocabulary
COMMON = {**NO_ENDS, "hidden_size": WIDTH, "vocab_size": VOCAB, "num_attention_heads": HEADS, "max_position_embeddings": 160}
GROUPED = {**COMMON, "num_key_value_heads": KV_HEADS, "head_dim": HEAD}
DENSE = {**GROUPED, "intermediate_size": 72, "num_hidden_layers": 3}
LATENT = {
    **COMMON, "kv_lora_rank": 14, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 9, "intermediate_size": 72,
    "num_key_value_heads": HEADS, "num_hidden_layers": 3, "first_k_dense_replace": 1, "n_routed_experts": 8,
    "num_experts_per_tok": 3, "moe_intermediate_size": 22, "n_shared_experts": 2, "n_group": 2, "topk_group": 1,
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

SELECTIVE = cm.Mamba(d_inner=2 * WIDTH, ssm_state_size=5, time_step_rank=7, conv_kernel=KERNEL)
HEADED = cm.Mamba2(mamba_num_heads=6, mamba_head_dim=16, ssm_state_size=5, n_groups=2, conv_kernel=KERNEL, chunk_size=16)
GRANITE_ORDER = ("mamba2", "attention", "mamba2")
GRANITE_SHARED = moe(num_shared_experts=1, shared_expert_intermediate_size=26)
GRANITE_LAYERS = (("mamba2", 4, HEADED), ("attention", 2, gqa(rotary_dim=0)))
GRANITE = {
    **GROUPED, "num_hidden_layers": 6, "layer_types": 2 * ["mamba", "attention", "mamba"], "intermediate_size": 22,
    "shared_intermediate_size": 26, "mamba_n_heads": 6, "mamba_d_state": 5, "mamba_n_groups": 2, "mamba_chunk_size": 16,
}  # fmt: skip
NO_TOKENS = {**NO_ENDS, "pad_token_id": None, "vocab_size": VOCAB, "hidden_size": WIDTH}


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
        {**NO_ENDS, "n_embd": WIDTH, "n_head": HEADS, "n_layer": 3, "n_positions": 160, "vocab_size": VOCAB},
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
    "mamba": Pair(
        "MambaForCausalLM",
        {**NO_TOKENS, "num_hidden_layers": 3, "state_size": 5, "time_step_rank": 7},
        architecture(cm.LayerGroup(name="mamba", count=3, mixer=SELECTIVE), tied=True),
    ),
    "mamba2": Pair(
        "Mamba2ForCausalLM",
        {**NO_TOKENS, "num_hidden_layers": 3, "state_size": 5, "num_heads": 6, "head_dim": 16, "n_groups": 2, "chunk_size": 16},
        architecture(cm.LayerGroup(name="mamba2", count=3, mixer=HEADED)),
    ),
    "hunyuan": Pair(
        "HunYuanForCausalLM",
        {**DENSE, "intermediate_size": 22, "num_experts": 8, "moe_topk": 3, "pad_token_id": 0},
        as_implemented(
            "HunYuanForCausalLM",
            architecture(
                group("attention", 2, gqa(qk_norm="head"), moe(num_shared_experts=1)),
                group("shared-kv", 1, gqa(qk_norm="head", shares_kv=True, own_key_norm=True), moe(num_shared_experts=1)),
                pattern=("attention", "shared-kv"),
            ),
        ),
    ),
    "jamba": Pair(
        "JambaForCausalLM",
        {
            **GROUPED, "pad_token_id": None, "num_hidden_layers": 6, "intermediate_size": 22, "num_experts": 8,
            "num_experts_per_tok": 3, "attn_layer_period": 3, "attn_layer_offset": 2, "mamba_d_state": 5, "mamba_dt_rank": 7,
        },
        architecture(
            group("mamba-dense", 2, SELECTIVE.model_copy(update={"step_norms": True}), cm.MLP(intermediate_size=22)),
            group("mamba-moe", 2, SELECTIVE.model_copy(update={"step_norms": True}), moe()),
            group("attention-dense", 1, gqa(rotary_dim=0), cm.MLP(intermediate_size=22)),
            group("attention-moe", 1, gqa(rotary_dim=0), moe()),
            pattern=("mamba-dense", "mamba-moe", "attention-dense", "mamba-moe", "mamba-dense", "attention-moe"),
        ),
    ),
    "nemotron_h": Pair(
        "NemotronHForCausalLM",
        {
            **GROUPED, "pad_token_id": None, "hybrid_override_pattern": "ME*-ME", "intermediate_size": 72, "mamba_num_heads": 6,
            "mamba_head_dim": 16, "ssm_state_size": 5, "n_groups": 2, "chunk_size": 16, "n_routed_experts": 8,
            "num_experts_per_tok": 3, "moe_intermediate_size": 22, "moe_shared_expert_intermediate_size": 26,
        },
        architecture(
            cm.LayerGroup(name="mamba2", count=2, mixer=HEADED),
            cm.LayerGroup(
                name="moe", count=2,
                feed_forward=moe(
                    gated=False, num_shared_experts=1, shared_expert_intermediate_size=26, score_correction_bias=True,
                ),
            ),
            cm.LayerGroup(name="attention", count=1, mixer=gqa(rotary_dim=0)),
            cm.LayerGroup(name="dense", count=1, feed_forward=cm.MLP(intermediate_size=72, gated=False, activation="relu2")),
            pattern=("mamba2", "moe", "attention", "dense"),
        ),
    ),
    "granite with experts": Pair(
        "GraniteMoeHybridForCausalLM",
        {**GRANITE, "num_local_experts": 8, "num_experts_per_tok": 3},
        architecture(*(group(name, count, mixer, GRANITE_SHARED) for name, count, mixer in GRANITE_LAYERS), pattern=GRANITE_ORDER),
    ),
    "granite without experts": Pair(
        "GraniteMoeHybridForCausalLM",
        {**GRANITE, "num_local_experts": 0, "attention_bias": True, "position_embedding_type": "rope"},
        architecture(
            group("mamba2", 4, HEADED, cm.MLP(intermediate_size=26)),
            group("attention", 2, gqa(qkv_bias=True, o_bias=True), cm.MLP(intermediate_size=26)), pattern=GRANITE_ORDER,
        ),
    ),
    "gemma3 with images": Pair(
        "Gemma3ForConditionalGeneration",
        {
            "text_config": LOCAL_GLOBAL, "vision_config": VISION, "mm_tokens_per_image": TOKENS_PER_IMAGE,
            "image_token_index": IMAGE_TOKEN,
        },
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
    """The real model, with random weights."""
    torch.manual_seed(0)
    return build(PAIRS[name].reference, PAIRS[name].config)


@dataclass(frozen=True)
class Seen:
    """One pass of `new` tokens that ends at `context`: FLOPs counted in it, and what is kept after it, by layer group."""

    new: int
    context: int
    flops: Counter[str]
    elements: Counter[str]
    bytes: Counter[str]

    def __str__(self) -> str:
        return f"{self.new} new tokens of {self.context}"


@cache
def passes(name: str, lengths: tuple[int, ...]) -> list[Seen]:
    """The passes of a run, counted and measured."""
    model, ours = reference(name), PAIRS[name].ours
    kept, context, seen = None, 0, []
    for new in lengths:
        context += new
        flops, kept = run(model, ours, input_ids=torch.randint(0, IMAGE_TOKEN, (BATCH, new)), past_key_values=kept)
        seen.append(Seen(new, context, flops, *measured(kept, ours)))
    return seen


each_model = pytest.mark.parametrize("name", PAIRS)
each_run = pytest.mark.parametrize("lengths", RUNS.values(), ids=RUNS)


@each_model
def test_both_are_the_same_model(name: str) -> None:
    assert PAIRS[name].ours.params.total == sum(tensor.numel() for tensor in trained(reference(name)).values())


@each_model
@each_run
def test_every_cache_tensor_has_our_elements_and_bytes(name: str, lengths: tuple[int, ...]) -> None:
    for seen in passes(name, lengths):
        assert seen.elements == expected_cache(PAIRS[name].ours, BATCH, seen.context, in_bytes=False), str(seen)
        assert seen.bytes == expected_cache(PAIRS[name].ours, BATCH, seen.context, in_bytes=True), str(seen)


@each_model
@each_run
def test_every_pass_has_our_flops(name: str, lengths: tuple[int, ...]) -> None:
    for seen in passes(name, lengths):
        assert seen.flops == expected_flops(PAIRS[name].ours, BATCH, seen.new, seen.context), str(seen)


@pytest.mark.parametrize("images", [1, 2])
def test_a_pass_that_sees_images_has_our_flops(images: int) -> None:
    """Tower and projector beside the language model; in its context an image's tokens are like others."""
    name = "gemma3 with images"
    words = torch.randint(0, IMAGE_TOKEN, (BATCH, 4))
    ids = torch.cat([words, torch.full((BATCH, images * TOKENS_PER_IMAGE), IMAGE_TOKEN)], dim=1)
    pixels = torch.zeros(BATCH * images, 3, VISION["image_size"], VISION["image_size"], dtype=torch.bfloat16)
    flops, _ = run(reference(name), PAIRS[name].ours, input_ids=ids, pixel_values=pixels)
    assert flops == expected_flops(PAIRS[name].ours, BATCH, ids.shape[1], ids.shape[1], images)
