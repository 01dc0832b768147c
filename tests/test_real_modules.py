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
        name="small", title="Small", maker="nobody", source="this test", tie_word_embeddings=tied, layers=layers,
        **{"hidden_size": WIDTH, "vocab_size": VOCAB, **changes},
    )  # fmt: skip


MLP = cm.MLP(intermediate_size=72)
SHARED = {"num_shared_experts": 2, "score_correction_bias": True}
GATED_SHARED = moe(num_shared_experts=1, shared_expert_intermediate_size=26, shared_expert_gate=True)
CHANNELS = cm.KDA(linear_num_heads=3, linear_head_dim=11, linear_conv_kernel_dim=KERNEL)
DELTANET = cm.GatedDeltaNet(
    linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=6, linear_value_head_dim=13, linear_conv_kernel_dim=KERNEL
)
LFM2 = {
    **COMMON, "num_key_value_heads": KV_HEADS, "num_hidden_layers": 5, "conv_L_cache": KERNEL,
    "layer_types": ["conv", "full_attention", "conv", "conv", "full_attention"],
}  # fmt: skip
LFM2_ORDER: dict[str, Any] = {"tied": True, "pattern": ("conv", "attention", "conv", "conv", "attention")}
RWKV_RANKS = {"decay_low_rank_dim": 5, "a_low_rank_dim": 6, "gate_low_rank_dim": 9}
RWKV = {
    **RWKV_RANKS, "hidden_size": 44, "vocab_size": VOCAB, "num_hidden_layers": 3, "head_dim": 11, "v_low_rank_dim": 7,
    "intermediate_size": 88,
}  # fmt: skip


def rwkv(width: int) -> tuple[cm.LayerGroup, ...]:
    block, feed_forward = cm.RWKV7(num_heads=4, head_dim=11, **RWKV_RANKS), cm.RWKVChannelMix(intermediate_size=width)
    rest = block.model_copy(update={"v_low_rank_dim": 7})
    return group("first", 1, block, feed_forward), group("rest", 2, rest, feed_forward)


XLSTM = {
    **NO_ENDS, "hidden_size": 128, "vocab_size": VOCAB, "num_hidden_layers": 3, "num_heads": 4, "ffn_round_up_to_multiple_of": 32,
}  # fmt: skip
MEMORY = cm.MLSTM(num_heads=4, qk_head_dim=16, v_head_dim=32)
SHORT_CONV, BIASED_CONV = cm.ShortConv(conv_L_cache=KERNEL), cm.ShortConv(conv_L_cache=KERNEL, conv_bias=True)
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
    "kimi_linear": Pair(
        "KimiLinearForCausalLM",
        {
            **COMMON, "pad_token_id": None, "kv_lora_rank": 14, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 9,
            "intermediate_size": 72, "num_key_value_heads": HEADS, "num_hidden_layers": 4, "first_k_dense_replace": 1,
            "num_experts": 8, "num_experts_per_token": 3, "moe_intermediate_size": 22, "num_shared_experts": 1,
            "linear_attn_config": {
                "full_attn_layers": [3], "kda_layers": [1, 2, 4], "num_heads": 3, "head_dim": 11, "short_conv_kernel_size": KERNEL,
            },
        },
        architecture(
            group("kda-dense", 1, CHANNELS, MLP),
            group("kda-moe", 2, CHANNELS, moe(num_shared_experts=1, score_correction_bias=True)),
            group("attention-moe", 1, mla(rope=False), moe(num_shared_experts=1, score_correction_bias=True)),
            pattern=("kda-dense", "kda-moe", "attention-moe", "kda-moe"),
        ),
    ),
    "falcon_h1": Pair(
        "FalconH1ForCausalLM",
        {
            **DENSE, "pad_token_id": None, "mamba_d_ssm": 96, "mamba_n_heads": 6, "mamba_d_head": 16, "mamba_d_state": 5,
            "mamba_n_groups": 2, "mamba_chunk_size": 16, "mamba_rms_norm": True,
        },
        architecture(
            group(
                "dense", 3,
                cm.ParallelHybrid(
                    num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD, mamba_num_heads=6, mamba_head_dim=16,
                    ssm_state_size=5, n_groups=2, conv_kernel=KERNEL, chunk_size=16, gated_norm=True,
                ),
                MLP,
            ),
        ),
    ),
    "zamba2": Pair(
        "Zamba2ForCausalLM",
        {
            **NO_TOKENS, "num_attention_heads": HEADS, "num_hidden_layers": 6, "n_mamba_heads": 6, "mamba_d_state": 5,
            "mamba_ngroups": 2, "chunk_size": 16, "num_mem_blocks": 2, "adapter_rank": 3, "use_shared_attention_adapter": True,
            "layers_block_type": ["mamba", "hybrid"] * 3, "intermediate_size": 72,
        },
        architecture(
            cm.LayerGroup(name="mamba2", count=6, mixer=HEADED),
            cm.LayerGroup(
                name="shared", count=3, shared=2, norm=cm.Norm(placement="none"),
                mixer=cm.SharedTransformer(
                    num_attention_heads=HEADS, num_key_value_heads=HEADS, head_dim=2 * WIDTH // HEADS, intermediate_size=72,
                    adapter_rank=3, attention_adapter=True,
                ),
            ),
            pattern=("mamba2", "shared", "mamba2"), tied=True,
        ),
    ),
    "minimax": Pair(
        "MiniMaxForCausalLM",
        {
            **GROUPED, "pad_token_id": None, "num_hidden_layers": 4, "intermediate_size": 22, "num_local_experts": 8,
            "num_experts_per_tok": 3, "block_size": 16,
        },
        architecture(
            group("attention", 2, gqa(), moe()),
            group("lightning", 2, cm.LightningAttention(num_attention_heads=HEADS, head_dim=HEAD, block_size=16), moe()),
            pattern=("attention", "lightning"),
        ),
    ),
    "lfm2": Pair(
        "Lfm2ForCausalLM",
        {**LFM2, "block_ff_dim": 100, "block_multiple_of": 8},
        architecture(group("conv", 3, SHORT_CONV, MLP), group("attention", 2, gqa(head_dim=8, qk_norm="head"), MLP), **LFM2_ORDER),
    ),
    "lfm2_moe": Pair(
        "Lfm2MoeForCausalLM",
        {
            **LFM2, "intermediate_size": 72, "num_dense_layers": 1, "num_experts": 8, "num_experts_per_tok": 3,
            "moe_intermediate_size": 22, "conv_bias": True,
        },
        architecture(
            group("conv-dense", 1, BIASED_CONV, MLP),
            group("attention-moe", 2, gqa(head_dim=8, qk_norm="head"), moe(score_correction_bias=True)),
            group("conv-moe", 2, BIASED_CONV, moe(score_correction_bias=True)),
            pattern=("conv-dense", "attention-moe", "conv-moe", "conv-moe", "attention-moe"), tied=True,
        ),
    ),
    "xlstm": Pair(
        "xLSTMForCausalLM",
        XLSTM,
        architecture(group("dense", 3, MEMORY, cm.MLP(intermediate_size=352)), hidden_size=128),
    ),
    "xlstm with biases": Pair(
        "xLSTMForCausalLM",
        {**XLSTM, "use_bias": True, "num_blocks": 3},
        architecture(
            cm.LayerGroup(
                name="dense", count=3, mixer=MEMORY.model_copy(update={"use_bias": True}),
                feed_forward=cm.MLP(intermediate_size=352, bias=True), norm=cm.Norm(bias=True),
            ),
            hidden_size=128,
        ),
    ),
    "rwkv7": Pair(
        "RWKV7ForCausalLM",
        {**RWKV, "norm_first": False},
        architecture(*rwkv(88), hidden_size=44, norm=cm.Norm(kind="layernorm", bias=True)),
    ),
    "rwkv7 without biases of norms": Pair(
        "RWKV7ForCausalLM",
        {**RWKV, "intermediate_size": None, "hidden_ratio": 3, "norm_bias": False, "tie_word_embeddings": True},
        architecture(*rwkv(160), hidden_size=44, norm=cm.Norm(kind="layernorm"), embedding_norm=True, tied=True),
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
