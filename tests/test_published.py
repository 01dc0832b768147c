"""Figures that papers, model reports and books print, against ours.

`published.json` holds the figures; `FIGURES` says how to ask costmodel for each. A figure is computed from an
architecture alone: a preset, or one built here from the shape the source gives. What a test adds is unit conversion
and the source's own throughput, token count or hardware rate.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import costmodel as cm
from costmodel.kernels import Peaks, kernel_class

HERE = Path(__file__).parent
ROWS: dict[str, dict[str, Any]] = {row["id"]: row for row in json.loads((HERE / "published.json").read_text())["figures"]}
MISSES: dict[str, dict[str, Any]] = {row["id"]: row for row in json.loads((HERE / "published.json").read_text())["not_reproduced"]}
FULL_LIST = HERE.parents[1] / "shared" / "truth" / "published.json"

KIB, GIB = 1024, 1 << 30
DAY = 86_400
ELEMENTS = cm.Precision(cache=1)
"""At one byte an element, cache bytes are cache elements."""


# architectures without a preset


def model(
    hidden: int, vocab: int, *layers: cm.LayerGroup, tied: bool = False, positions: int | None = None,
    norm: cm.Norm | None = None, mtp: cm.MultiTokenPrediction | None = None,
) -> cm.Architecture:  # fmt: skip
    return cm.Architecture(
        name="published", title="Published", maker="see published.json", source="see published.json", hidden_size=hidden,
        vocab_size=vocab, tie_word_embeddings=tied, position_embeddings=positions, norm=norm or cm.Norm(), layers=layers, mtp=mtp,
    )  # fmt: skip


def llama(
    layers: int, hidden: int, heads: int, kv_heads: int, ff: int, vocab: int, *, head_dim: int | None = None,
    tied: bool = False, qkv_bias: bool = False,
) -> cm.Architecture:  # fmt: skip
    """Gated feed-forward, RMSNorm, rope."""
    mixer = cm.GQA(
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim or hidden // heads,
        qkv_bias=qkv_bias,
    )  # fmt: skip
    group = cm.LayerGroup(name="layers", count=layers, mixer=mixer, feed_forward=cm.MLP(intermediate_size=ff))
    return model(hidden, vocab, group, tied=tied)


def gpt(
    layers: int, hidden: int, heads: int, vocab: int = 50_257, *,
    positions: int | None = 1024, tied: bool = True, qkv_bias: bool = True,
) -> cm.Architecture:  # fmt: skip
    """Plain feed-forward four times as wide, LayerNorm, biases, learned positions."""
    mixer = cm.GQA(
        num_attention_heads=heads, num_key_value_heads=heads, head_dim=hidden // heads, rotary_dim=0, qkv_bias=qkv_bias, o_bias=True
    )
    feed_forward = cm.MLP(intermediate_size=4 * hidden, gated=False, activation="gelu_tanh", bias=True)
    group = cm.LayerGroup(name="layers", count=layers, mixer=mixer, feed_forward=feed_forward)
    return model(hidden, vocab, group, tied=tied, positions=positions, norm=cm.Norm(kind="layernorm", bias=True))


def attention(layers: int, heads: int, kv_heads: int, head_dim: int) -> cm.Architecture:
    """Attention layers alone, for figures of the cache."""
    mixer = cm.GQA(num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim)
    return model(heads * head_dim, 1, cm.LayerGroup(name="layers", count=layers, mixer=mixer))


def latent_attention(layers: int) -> cm.Architecture:
    """Latent attention layers alone, with the latent of all who use it so far: 512 and a rope key of 64."""
    mixer = cm.MLA(num_attention_heads=32, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128)
    return model(4096, 1, cm.LayerGroup(name="layers", count=layers, mixer=mixer))


def windowed(windowed_layers: int, full_layers: int, heads: int, head_dim: int, window: int) -> cm.Architecture:
    """Multi-head attention, most of it in a sliding window."""
    full = cm.GQA(num_attention_heads=heads, num_key_value_heads=heads, head_dim=head_dim)
    local = cm.GQA(num_attention_heads=heads, num_key_value_heads=heads, head_dim=head_dim, sliding_window=window)
    return model(
        heads * head_dim, 1,
        cm.LayerGroup(name="local", count=windowed_layers, mixer=local),
        cm.LayerGroup(name="global", count=full_layers, mixer=full),
    )  # fmt: skip


def qwen35_397b() -> cm.Architecture:
    """Three Gated DeltaNet layers to one of gated attention."""
    linear = cm.GatedDeltaNet(
        linear_num_key_heads=16, linear_num_value_heads=64, linear_key_head_dim=128, linear_value_head_dim=128,
        linear_conv_kernel_dim=4,
    )  # fmt: skip
    full = cm.GQA(num_attention_heads=32, num_key_value_heads=2, head_dim=256, rotary_dim=64, qk_norm="head", output_gate=True)
    experts = cm.MoE(
        num_experts=512, num_experts_per_tok=10, moe_intermediate_size=1024, num_shared_experts=1, shared_expert_gate=True
    )
    return model(
        4096, 248_320,
        cm.LayerGroup(name="deltanet", count=45, mixer=linear, feed_forward=experts),
        cm.LayerGroup(name="attention", count=15, mixer=full, feed_forward=experts),
    )  # fmt: skip


def glm_5() -> cm.Architecture:
    """Its latent attention alone: the indexer beside it is not modelled, and the gallery leaves it out."""
    mixer = cm.MLA(
        num_attention_heads=64, q_lora_rank=2048, kv_lora_rank=512, qk_nope_head_dim=192, qk_rope_head_dim=64, v_head_dim=256
    )
    return model(6144, 154_880, cm.LayerGroup(name="layers", count=78, mixer=mixer))


def one_moe_layer() -> cm.Architecture:
    experts = cm.MoE(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=1792)
    return model(7168, 1, cm.LayerGroup(name="layers", count=1, feed_forward=experts))


def scaling_book_18b() -> cm.Architecture:
    return llama(64, 4096, 32, 8, 16_384, 32_128, head_dim=256, tied=True)


def qwen25_72b() -> cm.Architecture:
    return llama(80, 8192, 64, 8, 29_568, 152_064, qkv_bias=True)


def palm_540b() -> cm.Architecture:
    return llama(118, 18_432, 48, 1, 73_728, 256_000, head_dim=256, tied=True)


def kipply_52b() -> cm.Architecture:
    return gpt(64, 8192, 64, positions=None)


def isca_messages(bytes_per_s: float) -> cm.ExpertLimit:
    """As the paper rounds DeepSeek-V3: 7,000 wide, experts in all 61 layers."""
    return cm.expert_parallel_limit(hidden_size=7_000, layers=61, bytes_per_s=bytes_per_s)


def stated(parameters: float, kept: int = 2) -> cm.Architecture:
    """A layer with exactly as many parameters, and elements kept of a token, as a source states in round numbers."""
    width, heads = 1000, cm.GQA(num_attention_heads=1, num_key_value_heads=1, head_dim=kept // 2, rotary_dim=0)

    def having(inner: int, table: int) -> cm.Architecture:
        group = cm.LayerGroup(name="layers", count=1, mixer=heads, feed_forward=cm.MLP(intermediate_size=inner, gated=False))
        return model(width, table, group, tied=True)

    rest = int(parameters) - having(1, 1).params.total
    found = having(1 + rest // (2 * width), 1 + rest % (2 * width) // width)
    assert found.params.total == parameters
    assert found.cache_bytes(context=1, precision=ELEMENTS) == kept
    return found


def stand_in(name: str, bf16: float, memory: float, memory_bytes: float, *, int8: float = 1, link: float = 1) -> cm.Accelerator:
    """A device as a source rounds it."""
    return cm.Accelerator(
        name=name, title=name, maker="see published.json", source="see published.json", memory_bytes=int(memory_bytes),
        peak_flops_per_s={"bf16": int(bf16), "int8": int(int8)}, memory_bytes_per_s=int(memory), link_bytes_per_s=int(link),
    )  # fmt: skip


V5E = stand_in("v5e", 1.97e14, 8.1e11, 16e9, int8=3.94e14, link=4.5e10)
"""How to Scale Your Model has 8.1e11 bytes/s of a TPU v5e in most places, and 8.2e11 in others."""
V5E_82 = stand_in("v5e", 1.97e14, 8.2e11, 16e9)
V5P = stand_in("v5p", 4.59e14, 2.8e12, 96e9)
A100_40GB = stand_in("a100-40gb", 312e12, 1.5e12, 40e9)
BYTE = cm.Precision(weights=1, experts=1, embeddings=1, others=1, cache=1)
"""int8 without scales, as books count it."""


DEEPSEEK_V2, DEEPSEEK_V2_LITE = cm.load("deepseek-v2"), cm.load("deepseek-v2-lite")
GPT_OSS_120B, GPT_OSS_20B = cm.load("gpt-oss-120b"), cm.load("gpt-oss-20b")
GLM_45 = cm.load("glm-4.5")

GPT3_175B = (96, 12_288, 96, 51_200)
MEGATRON_22B = (48, 6144, 64, 51_200)
MT_NLG_530B = (105, 20_480, 128, 51_200)


# ways to ask


def per_token(architecture: cm.Architecture | str, **options: Any) -> float:
    """Cache bytes of one token: windows hold it in full."""
    loaded = cm.load(architecture) if isinstance(architecture, str) else architecture
    return float(loaded.cache_bytes(context=1, **options))


def state(architecture: cm.Architecture) -> int:
    """Bytes of recurrent state in fp32, without convolution tails: what twice as many bytes an element add."""
    wide, usual = (architecture.cache_bytes(context=1, precision=cm.Precision(state=size)) for size in (8, 4))
    return int(wide - usual)


def ledger(architecture: cm.Architecture, column: str, rows: str, **workload: Any) -> float:
    """The sum of a ledger column over some rows."""
    return float(architecture.ledger(**workload).query(rows)[column].sum())


def head(architecture: cm.Architecture) -> int:
    """Parameters of an output head of its own."""
    return int(ledger(architecture, "params", "op == 'lm_head'"))


def six_nd(architecture: cm.Architecture) -> float:
    """6 FLOPs for each active parameter: training FLOPs of one token."""
    return float(architecture.training_flops(context=1, method="6nd"))


def over_6nd(layers: int, hidden: int, nominal: float) -> float:
    """Training FLOPs of the layers (no embedding, no logits) over 6ND with the nominal N."""
    flops = gpt(layers, hidden, hidden // 128, 32_000).training_flops.having(attention="full").parts["layers"]
    return float(flops(context=2048) / (6 * nominal * 2048))


def attention_meets_one_projection(architecture: cm.Architecture) -> float:
    """The context at which scores and values over all pairs cost as much as q_proj."""
    block = architecture.prefill_flops.having(attention="full").parts["layers"].parts["gqa"]
    (context,) = cm.crossover(block.parts["attention"], block.parts["q_proj"], over="context")
    return context


def active_share(architecture: cm.Architecture, *, with_embedding: bool = False) -> float:
    params = architecture.params
    return 100 * (params.active_with_embedding if with_embedding else params.active) / params.total


def experts_per_chosen(name: str) -> float:
    """Routed experts of a layer for each that a token uses."""
    (experts,) = cm.load(name).experts.values()
    return float(experts.copies / experts.active)


def without_embedding(architecture: cm.Architecture) -> int:
    """Parameters of the text model without token table and head."""
    params = architecture.params
    return params.total - params.vision - params.embedding - head(architecture)


def glm_total(architecture: cm.Architecture) -> int:
    """As GLM counts: without token table and head, with the multi-token-prediction module."""
    return without_embedding(architecture) + architecture.params.mtp


def many_heads(heads: int) -> cm.Architecture:
    """Kimi K2 with another number of attention heads."""
    data = cm.load("kimi-k2").model_dump()
    for group in data["layers"]:
        group["mixer"]["num_attention_heads"] = heads
    return cm.Architecture.model_validate(data)


def last_token_scores(heads: int) -> float:
    """FLOPs of the scores and values of the token at 128k, keys and values of the cache taken as expanded."""
    return ledger(many_heads(heads), "flops", "kind == 'attend'", new_tokens=1, context=131_072, algorithm="expanded")


def head_growth() -> float:
    """Extra FLOPs in percent of 128 heads instead of 64, everything linear held at twice the published 32.6 B."""
    linear = 2 * 32.6e9
    return 100 * ((last_token_scores(128) + linear) / (last_token_scores(64) + linear) - 1)


def decode_step(parameters: float, kept: int, batch: int, devices: int, context: int = 8192) -> cm.Bound:
    """The least seconds of a decode step of a stated model in 8 bits on TPUs v5e."""
    return cm.pass_bound(stated(parameters, kept), V5E, devices, batch, context, precision=BYTE)


def serving_70b() -> cm.Capacity:
    """70 B parameters and 160 kB of a token in 8 bits, 32 sequences of 8192 tokens."""
    return cm.capacity(stated(70e9, 160_000), V5E, devices=8, context=8192, batch=32, precision=BYTE)


def llama2_13b_step(batch: int) -> float:
    """Milliseconds of a decode step on 8 v5e: 26 GB of weights, 6.7 GB of cache a sequence."""
    weights = stated(13e9).weight_bytes()
    return 1e3 * cm.bound(V5E_82, moved_bytes=weights + batch * 6.7e9, devices=8).seconds


def deepseek_run(**asked: Any) -> cm.Training:
    """DeepSeek-V3's pre-training: 14.8 T tokens in batches of 15,360 sequences of 4096 on 2048 H800."""
    usual = {"tokens": 14.8e12, "batch": 15_360, "pp": 16, "ep": 64, "mfu": 0.3894}
    return cm.train("deepseek-v3", "h800", 2048, **(usual | asked))


def activations(shape: tuple[int, int, int, int], recompute: str, tp: int = 1) -> float:
    """Bytes that a GPT layer keeps of 2048 tokens for the backward pass, masks of dropout too, over s b h."""
    layers, hidden, heads, vocab = shape
    run = cm.train(
        gpt(layers, hidden, heads, vocab, positions=2048), "a100-80gb", tp, 300e9, 2048, tp=tp, recompute=recompute, dropout=True
    )
    return float(run.memory.formula("activations").parts["layers"](context=2048, tp_ranks=tp) / (2048 * hidden * layers))


def repeated_attention(shape: tuple[int, int, int, int]) -> float:
    """Hardware over model FLOPs as Megatron-LM has them: attention's whole share once more (see test_selective_recomputation)."""
    training = gpt(*shape, positions=2048).training_flops.having(attention="full")
    whole, scores = training(context=2048), training.parts["layers"].parts["gqa"].parts["attention"](context=2048)
    return float((whole + scores) / whole)


def product_bandwidth(m: int, n: int, k: int, flops_per_s: float) -> float:
    """GB/s that an fp8 product moves at a measured rate: its bytes over the seconds that its FLOPs take."""
    shape = {"m": np.array(m), "n": np.array(n), "k": np.array(k)}
    work = kernel_class("gemm").work(shape, Peaks.of(cm.accelerator("h800"), "fp8"))
    return float(work.moved / (work.flops / flops_per_s) / 1e9)


def all_reduced(layers: int, hidden: int, batch: int) -> float:
    """Milliseconds of two all-reduces a layer of a step's bf16 stream, on ranks so many that (t - 1) / t is 1, as kipply has it."""
    peaks = Peaks.of(stand_in("a100", 312e12, 1.5e12, 40e9, link=300e9), "bf16")
    shape = {"ranks": np.array(1e9), "bytes": np.array(2.0 * batch * hidden)}
    return float(2 * layers * kernel_class("allreduce").roofline(shape, peaks) * 1e3)


KIMI_LATENTS = cm.load("kimi-linear-48b-a3b").cache_bytes.parts["attention-moe"]
"""What the seven layers of latent attention keep."""

FIGURES: dict[str, Callable[[], float]] = {
    # DeepSeek: ISCA 2025, V2, V3, FlashMLA
    "isca-kv-v3": lambda: per_token("deepseek-v3") / 1e3,
    "isca-kv-qwen72": lambda: per_token(qwen25_72b()) / 1e3,
    "isca-kv-405": lambda: per_token("llama-3.1-405b") / 1e3,
    "isca-kv-mult-qwen": lambda: per_token(qwen25_72b()) / per_token("deepseek-v3"),
    "isca-flops-v3": lambda: cm.load("deepseek-v3").training_flops(context=4096) / 4096 / 1e9,
    "isca-flops-405": lambda: cm.load("llama-3.1-405b").training_flops(context=4096) / 4096 / 1e9,
    "v2-kv-v2bar": lambda: per_token(DEEPSEEK_V2, precision=cm.Precision(cache=0.75)) / 1e3,
    "v2-abl-small-mha": lambda: per_token(attention(27, 16, 16, 128), precision=ELEMENTS) / 1e3,
    "v2-abl-large-mha": lambda: per_token(attention(60, 56, 56, 128), precision=ELEMENTS) / 1e3,
    "v2-abl-small-mla": lambda: per_token(DEEPSEEK_V2_LITE, precision=ELEMENTS) / 1e3,
    "v2-total": lambda: DEEPSEEK_V2.params.total / 1e9,
    "v2-active": lambda: DEEPSEEK_V2.params.active / 1e9,
    "v2lite-total": lambda: DEEPSEEK_V2_LITE.params.total / 1e9,
    "v3-active-readme": lambda: cm.load("deepseek-v3").params.active / 1e9,
    "v3-active": lambda: cm.load("deepseek-v3").params.active / 1e9,
    "fm-656": lambda: per_token("deepseek-v3", precision="fp8_ds_mla") / cm.load("deepseek-v3").depth,
    # Kimi K2, Kimi Linear
    "k2-sparsity": lambda: experts_per_chosen("kimi-k2"),
    "kl-kv": lambda: 100 * (1 - KIMI_LATENTS(context=1) / per_token(latent_attention(27))),
    "k2-active": lambda: cm.load("kimi-k2").params.active_with_embedding / 1e9,
    "k2-83": head_growth,
    # Gemma 3: table 1 counts the projector with the embedding
    "g3-nonemb-1b": lambda: without_embedding(cm.load("gemma-3-1b")) / 1e6,
    "g3-nonemb-12b": lambda: without_embedding(cm.load("gemma-3-12b")) / 1e6,
    "g3-nonemb-27b": lambda: without_embedding(cm.load("gemma-3-27b")) / 1e6,
    "g3-emb-1b": lambda: cm.load("gemma-3-1b").params.embedding / 1e6,
    "g3-kv-1b": lambda: cm.load("gemma-3-1b").cache_bytes(context=32_768, view="engine") / 1e9,
    "g3-kv-4b": lambda: cm.load("gemma-3-4b").cache_bytes(context=32_768, view="engine") / 1e9,
    "g3-vision": lambda: ledger(cm.load("gemma-3-27b"), "params", "group == 'vision' and block != 'projector'") / 1e6,
    "g3-raw-27b": lambda: ledger(cm.load("gemma-3-27b"), "weight_bytes", "group != 'vision'") / 1e9,
    # Qwen3-Next, and what InferSim says of Qwen3
    "qn-nonemb": lambda: without_embedding(cm.load("qwen3-next-80b-a3b")) / 1e9,
    "qn-active": lambda: (cm.load("qwen3-next-80b-a3b").params.active - head(cm.load("qwen3-next-80b-a3b"))) / 1e9,
    "qn-hf": lambda: cm.load("qwen3-next-80b-a3b").weight_bytes(mtp=1) / GIB,
    "inf-attn": lambda: ledger(cm.load("qwen3-30b-a3b"), "flops", "kind == 'attend'", context=5120) / 1e9,
    "inf-proj": lambda: ledger(cm.load("qwen3-30b-a3b"), "flops", "block == 'gqa' and kind == 'linear'", context=5120) / 1e9,
    # caches of long contexts
    "jamba-kv-mistral-7b": lambda: llama(32, 4096, 32, 8, 14_336, 32_000).cache_bytes(context=1 << 18) / GIB,
    "jamba-kv-mixtral-8x7b": lambda: cm.load("mixtral-8x7b").cache_bytes(context=1 << 18) / GIB,
    "jamba-kv-llama-3.1-70b": lambda: cm.load("llama-3.1-70b").cache_bytes(context=1 << 18) / GIB,
    "jamba-kv-jamba-1.5-large": lambda: cm.load("jamba-1.5-large").cache_bytes.parts["attention-dense"](context=1 << 18) / GIB,
    "hf31-70B-1k": lambda: cm.load("llama-3.1-70b").cache_bytes(context=1024) / GIB,
    # of 64 layers that share keys and values in pairs, 32 keep them
    "hyl-kv": lambda: 100 * (1 - per_token(cm.load("hunyuan-large")) / per_token(attention(64, 80, 80, 80))),
    # 51.3 with the table once: here as input and once more as the head
    "hyl-active": lambda: (cm.load("hunyuan-large").params.active + cm.load("hunyuan-large").params.embedding) / 1e9,
    # gpt-oss
    "oss-120b-mlp": lambda: ledger(GPT_OSS_120B, "params", "block == 'moe'") / 1e9,
    "oss-120b-embed+unembed": lambda: (GPT_OSS_120B.params.embedding + head(GPT_OSS_120B)) / 1e9,
    "oss-120b-active": lambda: GPT_OSS_120B.params.active / 1e9,
    "oss-120b-total": lambda: GPT_OSS_120B.params.total / 1e9,
    "oss-120b-ckpt": lambda: GPT_OSS_120B.weight_bytes(precision="mxfp4") / GIB,
    "oss-20b-attention": lambda: ledger(GPT_OSS_20B, "params", "block == 'gqa'") / 1e9,
    "oss-20b-total": lambda: GPT_OSS_20B.params.total / 1e9,
    # state spaces, alone and among attention
    "mamba2-state": lambda: state(cm.load("mamba2-2.7b")) / 1e6,
    "jamba-large-t": lambda: cm.load("jamba-1.5-large").params.total / 1e9,
    "jamba-large-a": lambda: cm.load("jamba-1.5-large").params.active / 1e9,
    "nemh8-total": lambda: cm.load("nemotron-h-8b").params.total / 1e9,
    "granite-hs": lambda: cm.load("granite-4.0-h-small").params.total / 1e9,
    "turbos-layers": lambda: sum(group.count * len(group.blocks) for group in cm.load("hunyuan-turbos").layers),
    # what came since: sparse attention, linear and recurrent layers, recursion
    "glm5-744": lambda: cm.load("glm-5").params.total / 1e9,
    "mm01-active": lambda: (cm.load("minimax-text-01").params.active - head(cm.load("minimax-text-01"))) / 1e9,
    "rwkv7-state": lambda: state(cm.load("rwkv7-2.9b")) / 1e6,
    "hrm": lambda: ledger(cm.load("hrm-arc"), "params", "group in ('low', 'high')") / 1e6,
    "trm": lambda: cm.load("trm-arc").params.total / 1e6,
    "gal-act-kimi-linear": lambda: active_share(cm.load("kimi-linear-48b-a3b")),
    # totals of other models
    "glm45-total": lambda: glm_total(GLM_45) / 1e9,
    "llada-ne": lambda: without_embedding(llama(32, 4096, 32, 32, 12_288, 126_464)) / 1e9,
    "llada-t": lambda: llama(32, 4096, 32, 32, 12_288, 126_464).params.total / 1e9,
    # LLMs-from-scratch
    "rasbt-gqa-mha": lambda: attention(32, 32, 32, 128).cache_bytes(context=32_768) / 1e9,
    "rasbt-mla-gqa": lambda: attention(48, 24, 6, 86).cache_bytes(context=8192) / 1e9,
    "rasbt-swa-mha": lambda: windowed(27, 5, 32, 128, 1024).cache_bytes(context=32_768) / 1e9,
    "rasbt-moe-exp": lambda: one_moe_layer().params.routed_experts / 8,
    "rasbt-moe-router": lambda: ledger(one_moe_layer(), "params", "op == 'router'"),
    "rasbt-moe-tot": lambda: ledger(one_moe_layer(), "params", "block == 'moe'"),
    "rasbt-moe-act": lambda: one_moe_layer().params.formula("active").parts["layers"].parts["moe"](),
    "rasbt-gpt2-124M": lambda: gpt(12, 768, 12, tied=False, qkv_bias=False).params.total,
    "rasbt-gpt2-355M": lambda: gpt(24, 1024, 16, tied=False, qkv_bias=False).params.total,
    "rasbt-gpt2-774M": lambda: gpt(36, 1280, 20, tied=False, qkv_bias=False).params.total,
    "rasbt-gpt2-774M-tied": lambda: gpt(36, 1280, 20, qkv_bias=False).params.total,
    "rasbt-gpt2-1558M-tied": lambda: gpt(48, 1600, 25, qkv_bias=False).params.total,
    "rasbt-llama2-7b": lambda: llama(32, 4096, 32, 32, 11_008, 32_000).params.total,
    "rasbt-llama3-8b": lambda: cm.load("llama-3.1-8b").params.total,
    "rasbt-llama32-1b": lambda: llama(16, 2048, 32, 8, 8192, 128_256, tied=True).params.total,
    "rasbt-qwen3-06b": lambda: cm.load("qwen3-0.6b").params.total,
    "rasbt-gemma3-270m": lambda: cm.load("gemma-3-270m").params.total,
    "rasbt-qwen3-30b": lambda: cm.load("qwen3-30b-a3b").params.total,
    # LLM Architecture Gallery: cache of a token, and the share of parameters that are active
    "gal-gpt-2-xl": lambda: per_token(gpt(48, 1600, 25)) / KIB,
    "gal-llama-3.2-1b": lambda: per_token(llama(16, 2048, 32, 8, 8192, 128_256, tied=True)) / KIB,
    "gal-olmo-2-7b": lambda: per_token(attention(32, 32, 32, 128)) / KIB,
    "gal-deepseek-v3": lambda: per_token("deepseek-v3") / KIB,
    "gal-gemma-3-27b": lambda: per_token("gemma-3-27b") / KIB,
    "gal-llama-4-maverick": lambda: per_token(attention(48, 40, 8, 128)) / KIB,
    "gal-qwen3-32b": lambda: per_token("qwen3-32b") / KIB,
    "gal-smollm3-3b": lambda: per_token(llama(36, 2048, 16, 4, 11_008, 128_256, tied=True)) / KIB,
    "gal-glm-4.5": lambda: per_token(GLM_45) / KIB,
    "gal-gpt-oss-120b": lambda: per_token(GPT_OSS_120B) / KIB,
    "gal-gpt-oss-20b": lambda: per_token(GPT_OSS_20B) / KIB,
    "gal-gemma-3-270m": lambda: per_token("gemma-3-270m") / KIB,
    "gal-minimax-m2": lambda: per_token(attention(62, 48, 8, 128)) / KIB,
    "gal-olmo-3-7b": lambda: per_token("olmo-3-7b") / KIB,
    "gal-glm-5-744b": lambda: per_token(glm_5()) / KIB,
    "gal-phi-4-14b": lambda: per_token(llama(40, 5120, 40, 10, 17_920, 100_352)) / KIB,
    "gal-qwen3.5-397b": lambda: qwen35_397b().cache_bytes.parts["attention"](context=1) / KIB,
    "gal-sarvam-30b": lambda: per_token(attention(19, 64, 4, 64)) / KIB,
    "gal-kimi-linear-48b-a3b": lambda: KIMI_LATENTS(context=1) / KIB,
    "gal-ling-2.5-1t": lambda: per_token(latent_attention(10)) / KIB,
    "gal-trinity-large-400b": lambda: per_token(attention(60, 48, 8, 128)) / KIB,
    "gal-nanbeige-4.1-3b": lambda: per_token(llama(32, 2560, 20, 4, 10_496, 166_144, head_dim=128)) / KIB,
    "gal-act-deepseek-v3": lambda: active_share(cm.load("deepseek-v3")),
    "gal-act-qwen3-235b-a22b": lambda: active_share(cm.load("qwen3-235b-a22b"), with_embedding=True),
    "gal-act-glm-4.5": lambda: 100 * (GLM_45.params.active - head(GLM_45)) / glm_total(GLM_45),
    # How to Scale Your Model
    "sb-kv32k": lambda: stated(70e9, 162_000).cache_bytes(context=32_768, precision=ELEMENTS) / 1e9,
    "sb-mem-b32": lambda: (serving_70b().weight_bytes + serving_70b().cache_bytes) / 1e9,
    "sb-step-4x2": lambda: 1e3 * decode_step(70e9, 160_000, batch=32, devices=8).seconds,
    "sb-tput-4x2": lambda: 32 / round(decode_step(70e9, 160_000, batch=32, devices=8).seconds, 3),  # their step of 17 ms
    "sb-prefill": lambda: cm.pass_bound(stated(70e9), V5E, 16, context=8192, new_tokens=8192, mfu=0.4).compute_s,
    "sb-fullhbm": lambda: 1e3 * cm.bound(V5E_82, moved_bytes=V5E_82.memory_bytes).seconds,
    "sb-min-bf16": lambda: stated(70e9).weight_bytes() / V5E.memory_bytes,
    "sb-pd-ratio": lambda: cm.prefill_per_decode(prefill_s=0.91, step_s=0.019, batch=32, output=512),
    "sb-evict": lambda: cm.freed_tokens(batch=32, prompt=8192, output=4096),
    "sb-quiz1": lambda: 1e3 * decode_step(30e9, 100_000, batch=4, devices=16).seconds,
    "sb-l2-13b-bs1": lambda: llama2_13b_step(1),
    "sb-l2-13b-bs64": lambda: llama2_13b_step(64),
    "sb-l70-years": lambda: cm.train(stated(70e9), V5P, 1, 15e12, mfu=1, method="6nd", usd_per_hour=1).days / 365,
    "sb-tf-q7": lambda: (
        100 * cm.train(stated(37e9), stand_in("h800", 1.513e15, 3.35e12, 80e9), 2048, 14.8e12, method="6nd").utilisation(2.79e6)
    ),
    "sb-roof-v5e": lambda: V5E_82.critical_batch("bf16"),
    "sb-roof-int8": lambda: V5E.critical_batch("int8"),
    "sb-roof-h100": lambda: stand_in("h100", 1e15, 3.35e12, 80e9).critical_batch("bf16"),
    # two chips share D: each does D FLOPs for a number of the result, whose partial sums are 2 bytes
    "sb-2chip": lambda: V5E.balance("bf16", over="link") * 2,
    "sb-kv70": lambda: per_token("llama-3.1-70b", precision="int8") / KIB,
    "sb-l2-13b-kv": lambda: llama(40, 5120, 40, 40, 13_824, 32_000).cache_bytes(context=8192) / 1e9,
    "sb-wp1": lambda: scaling_book_18b().params.total / 1e9,
    "sb-l70-days": lambda: cm.train("llama-3.1-70b", V5P, 8960, 15e12, mfu=0.4, method="6nd").days,
    # four equal projections grow with T, attention with T^2: they meet at four times the crossing with one of them
    "sb-tf-q5": lambda: 4 * attention_meets_one_projection(llama(1, 4096, 32, 32, 16_384, 32_000)),
    # Transformer Inference Arithmetic
    "kip-kv": lambda: per_token(kipply_52b()),
    "kip-kvflops": lambda: ledger(kipply_52b(), "flops", "op in ('k_proj', 'v_proj')"),
    "kip-flops": lambda: ledger(kipply_52b(), "flops", "group == 'layers' and kind == 'linear'"),
    "kip-fwd": lambda: ledger(kipply_52b(), "weight_bytes", "group == 'layers' and kind == 'linear'") / 1.5e12 * 1e3,
    "kip-ratio": lambda: A100_40GB.critical_batch("bf16"),
    "kip-cap3": lambda: cm.capacity(stated(52e9, 1_000_000), A100_40GB, devices=3).longest_context or 0,
    "kip-260b-512": lambda: 1e3 * cm.pass_bound(stated(260e9), A100_40GB, 16, batch=512, context=1).compute_s,
    "kip-260b-comm": lambda: all_reduced(layers=80, hidden=16_384, batch=512),
    # runs of training: DeepSeek-V3 (180 K hours for each T of tokens; then at the MFU of ISCA 2025, table 4), and its rent
    "v3-hours-pre": lambda: deepseek_run(mfu=deepseek_run(tokens=1e12).utilisation(180e3)).device_hours / 1e3,
    "isca-t4-tokday": lambda: deepseek_run().flops_per_token / 1e9,
    "isca-t4-step": lambda: deepseek_run().step_s or 0,
    "oii-cost": lambda: cm.accelerator("h800").rent(226.75 * 8 * 24),
    # messages to experts: InfiniBand at 50 GB/s, NVL72 at 900
    "isca-tps-ib": lambda: isca_messages(50e9).tokens_per_s,
    "isca-comm-nvl": lambda: 1e6 * isca_messages(900e9).message_s,
    "isca-tpot-nvl": lambda: 1e3 * isca_messages(900e9).seconds,
    "isca-tps-nvl": lambda: isca_messages(900e9).tokens_per_s,
    # activations: Korthikanti et al., and what Megatron-LM repeats of them
    "kor-5ash-mtnlg": lambda: activations(MT_NLG_530B, "none") - activations(MT_NLG_530B, "selective"),
    "kor-save-gpt3": lambda: 100 * (1 - activations(GPT3_175B, "selective") / activations(GPT3_175B, "none")),
    "kor-save-mtnlg": lambda: 100 * (1 - activations(MT_NLG_530B, "selective") / activations(MT_NLG_530B, "none")),
    "eleuther-act": lambda: activations(GPT3_175B, "none", tp=8),
    "meg-hfu-22B": lambda: repeated_attention(MEGATRON_22B),
    "meg-hfu-530B": lambda: repeated_attention(MT_NLG_530B),
    # products in fp8, from the rate that DeepGEMM measures on H800
    "dg-64-2112-7168": lambda: product_bandwidth(64, 2112, 7168, 206e12),
    "dg-64-24576-1536": lambda: product_bandwidth(64, 24_576, 1536, 289e12),
    "dg-64-7168-16384": lambda: product_bandwidth(64, 7168, 16_384, 336e12),
    "dg-128-4096-7168": lambda: product_bandwidth(128, 4096, 7168, 533e12),
    "dg-4096-7168-16384": lambda: product_bandwidth(4096, 7168, 16_384, 1358e12),
    "dg-4096-4096-7168": lambda: product_bandwidth(4096, 4096, 7168, 1304e12),
    "dg-4096-32768-512": lambda: product_bandwidth(4096, 32_768, 512, 590e12),
    # training: Llama 3, PaLM, Megatron, Chinchilla
    "llama31-405": lambda: six_nd(cm.load("llama-3.1-405b")) * 15.6e12,
    "palm-mfu0": lambda: 100 * six_nd(palm_540b()) * 238.3e3 / (6144 * 275e12),
    "palm-mtnlg": lambda: (
        100 * gpt(*MT_NLG_530B, positions=2048).training_flops(context=2048, attention="full") / 2048 * 65.43e3 / (2240 * 312e12)
    ),
    "meg-iter": lambda: (
        gpt(*GPT3_175B, positions=2048).training_flops(batch=1536, context=2048, attention="full", recompute="full")
        / (1024 * 32 * 1e12)
    ),
    # every forward twice: 8 instead of 6
    "meg-days-gpt3": lambda: 8 / 6 * six_nd(gpt(*GPT3_175B, positions=2048)) * 300e9 / (1024 * 140e12) / DAY,
    "chin-552": lambda: over_6nd(24, 1280, 552e6),
    "chin-1600": lambda: over_6nd(28, 2048, 1600e6),
    "chin-6800": lambda: over_6nd(40, 3584, 6800e6),
}


NOT_REPRODUCED: dict[str, Callable[[], float] | None] = {
    "isca-kv-mult-405": lambda: per_token("llama-3.1-405b") / per_token("deepseek-v3"),
    "isca-flops-qwen": lambda: qwen25_72b().training_flops(context=4096) / 4096 / 1e9,
    "g3-kv-12b": lambda: cm.load("gemma-3-12b").cache_bytes(context=32_768) / 1e9,
    "g3-kv-27b": lambda: cm.load("gemma-3-27b").cache_bytes(context=32_768) / 1e9,
    "hf31-405B-1k": lambda: cm.load("llama-3.1-405b").cache_bytes(context=1024) / GIB,
    "hf31-405B-128k": lambda: cm.load("llama-3.1-405b").cache_bytes(context=128_000) / GIB,
    "sb-nkv-int4": None,  # 8 v5e and their memory: a slip in the subtraction, no figure of an architecture
    "sb-tf-q1": lambda: llama(64, 4096, 32, 32, 16_384, 32_000).params.total / 1e9,
    "chin-1100": lambda: over_6nd(26, 1792, 1100e6),
    "chin-gopher": lambda: 6 * 280e9 * 300e9,
}
"""Figures that do not come out, and what we get: `published.json` has the reason of each."""


@pytest.mark.parametrize("name", FIGURES)
def test_published_figure(name: str) -> None:
    row = ROWS[name]
    ours = FIGURES[name]()
    assert ours == pytest.approx(row["value"], rel=row["tol_rel"], abs=0), (
        f"{row['model']}, {row['quantity']} ({row['inputs']}): {ours:.6g} instead of {row['value']:.6g} {row['unit']}. "
        f"Convention: {row['convention'] or 'as printed'}. Source: {row['source']}"
    )


def test_every_row_is_reproduced() -> None:
    assert set(ROWS) == set(FIGURES)
    assert len(FIGURES) >= 150
    assert all(row["source"] and row["tol_rel"] > 0 for row in ROWS.values())


@pytest.mark.parametrize("name", [name for name, ours in NOT_REPRODUCED.items() if ours])
def test_what_does_not_come_out_still_does_not(name: str) -> None:
    """A figure that begins to come out belongs among those that do."""
    row, ours = MISSES[name], NOT_REPRODUCED[name]
    assert ours is not None
    assert abs(ours() / row["value"] - 1) > 0.005


def test_every_figure_that_does_not_come_out_has_its_reason() -> None:
    assert set(MISSES) == set(NOT_REPRODUCED)
    assert all(row["reason"] for row in MISSES.values())


def test_training_throughput() -> None:
    """DeepSeek-V3: 272.80 B tokens a day on 2048 H800 are the published 385 TFLOP/s of each, causal. ISCA 2025, table 4."""
    flops_per_token = cm.load("deepseek-v3").training_flops(context=4096) / 4096
    assert flops_per_token * 272.80e9 / DAY / 2048 / 1e12 == pytest.approx(385, rel=0.01)


@pytest.mark.parametrize(("shape", "ours", "printed"), [(MEGATRON_22B, 1.0173, 43.7 / 41.5), (MT_NLG_530B, 1.0055, 57.0 / 56.0)])
def test_selective_recomputation_in_megatron(shape: tuple[int, int, int, int], ours: float, printed: float) -> None:
    """Hardware over model FLOPs. Not a figure of ours: arXiv 2205.05198, equation 8, adds 12 B L s^2 h for attention's
    repeated forward, which is 4 B L s^2 h by its own section on FLOPs; Megatron-LM's README follows it."""
    training = gpt(*shape, positions=2048).training_flops.having(attention="full")
    whole, scores = training(context=2048), training.parts["layers"].parts["gqa"].parts["attention"](context=2048)
    assert training(context=2048, recompute="selective") / whole == pytest.approx(ours, abs=5e-5)
    assert (whole + scores) / whole == pytest.approx(printed, rel=0.003)


def test_what_128_heads_cost_kimi_k2() -> None:
    """Kimi K2 report: 128 heads instead of 64 cost 83 % more inference FLOPs at 128k. It depends on what is held still."""
    few, many = many_heads(64), many_heads(128)
    assert few.params.total == cm.load("kimi-k2").params.total

    # as published: scores and values of the last token over expanded keys; everything linear held still
    assert head_growth() == pytest.approx(83.4, abs=0.05)

    # the projections grow with the heads; the new token expands its own latent alone, those of the cache stand expanded
    linear_few, linear_many = (ledger(k2, "flops", "kind != 'attend'", new_tokens=1, context=131_072) for k2 in (few, many))
    grown = (last_token_scores(128) + linear_many) / (last_token_scores(64) + linear_few) - 1
    assert 100 * grown == pytest.approx(86.5, abs=0.05)

    # everything grows, and decode attends in the latent, as engines do
    served = many.decode_flops(context=131_072) / few.decode_flops(context=131_072) - 1
    assert 100 * served == pytest.approx(95.5, abs=0.05)


@pytest.mark.skipif(not FULL_LIST.exists(), reason="the full list of figures lies outside the project")
def test_rows_are_as_collected() -> None:
    collected = {row["id"]: row for row in json.loads(FULL_LIST.read_text())["figures"]}
    for name, row in ROWS.items():
        assert collected[name]["status"] in ("yes", "with-convention"), name
        for field in ("value", "unit", "tol_rel"):
            assert row[field] == collected[name][field], (name, field)
