"""Published configs become our presets; each field is used, known to be costless, or refused; what is written reads back."""

from __future__ import annotations

import copy
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import costmodel as cm
from costmodel.catalog import as_toml, import_config, parse
from costmodel.importers import MAX_CONFIG_BYTES, Imported, read_config
from costmodel.importers.recipes import RECIPES
from tests import fuzz
from tests.families import BLOCKS, architectures

HERE = Path(__file__).parent
PUBLISHED = {path.stem: path for path in sorted((HERE / "configs").glob("*.json"))}
CONFIGS: dict[str, dict[str, Any]] = {name: json.loads(path.read_text()) for name, path in PUBLISHED.items()}
COLLECTION = HERE.parents[1] / "shared" / "configs"
MORE = [path for path in sorted(COLLECTION.glob("*.json")) if path.stem not in PUBLISHED]
"""Configs that lie outside the project, where they do."""
TOLD_OTHERWISE = {"name", "title", "maker", "released", "source", "notes", "reference"}
"""Fields of a preset that a config does not carry, and that cost nothing."""

TINY = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4, "max_position_embeddings": 256}
DENSE = TINY | {"intermediate_size": 96, "num_key_value_heads": 2}
EXPERTS = DENSE | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
ROUTED = DENSE | {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 2,
                  "first_k_dense_replace": 2, "n_group": 1, "topk_group": 1}  # fmt: skip
LATENT = ROUTED | {"num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8,
                   "v_head_dim": 20}  # fmt: skip
KIMI = LATENT | {
    "pad_token_id": 0,
    "linear_num_heads": 3,
    "linear_head_dim": 10,
    "num_experts": 4,
    "num_shared_experts": 1,
    "q_lora_rank": None,
}
KIMI = {name: value for name, value in KIMI.items() if name not in ("n_routed_experts", "n_shared_experts")}
UNSTATED = {name: value for name, value in KIMI.items() if not name.startswith("linear_")}
LISTED = {"full_attn_layers": [2, 6], "kda_layers": [1, 3, 4, 5], "num_heads": 2, "head_dim": 12, "short_conv_kernel_size": 3}
LIGHT = DENSE | {"num_local_experts": 4, "num_experts_per_tok": 2, "block_size": 16}
SIDES = DENSE | {"mamba_d_ssm": None, "mamba_expand": 2, "mamba_n_heads": 4, "mamba_d_state": 8, "mamba_n_groups": 2,
                 "mamba_chunk_size": 16, "pad_token_id": 0}  # fmt: skip
ZAMBA = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 7, "num_attention_heads": 4, "n_mamba_heads": 4,
         "mamba_d_state": 8, "mamba_ngroups": 2, "chunk_size": 16, "num_mem_blocks": 2, "adapter_rank": 5, "pad_token_id": 0,
         "layers_block_type": ["mamba", "hybrid"] * 3 + ["mamba"]}  # fmt: skip
PICKING = LATENT | {"index_n_heads": 3, "index_head_dim": 10, "index_topk": 5}
LFM2 = DENSE | {"layer_types": ["conv", "full_attention", "conv"] * 2, "pad_token_id": 0}
RWKV = {
    "vocab_size": 100, "hidden_size": 128, "num_hidden_layers": 3, "decay_low_rank_dim": 8, "a_low_rank_dim": 9,
    "gate_low_rank_dim": 10, "v_low_rank_dim": 11,
}  # fmt: skip
XLSTM = {"vocab_size": 100, "hidden_size": 128, "num_hidden_layers": 2, "num_heads": 4, "pad_token_id": 0}
NEXT = EXPERTS | {"shared_expert_intermediate_size": 48, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
                  "linear_key_head_dim": 8, "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4, "head_dim": 16}  # fmt: skip
LLADA = {"d_model": 64, "n_heads": 4, "n_kv_heads": 2, "n_layers": 3, "mlp_hidden_size": 96, "vocab_size": 100,
         "max_sequence_length": 64, "weight_tying": False, "block_type": "llama", "rope": True}  # fmt: skip
LLADA_MOE = TINY | {"num_key_value_heads": 2, "qk_layernorm": True, "num_experts": 4, "num_experts_per_tok": 2,
                    "expert_intermediate_size": 32, "dense_intermediate_size": 96,
                    "moe_layer_freq": [0, 1, 1, 1, 1, 1]}  # fmt: skip
UNSTATED_SIDES = {name: value for name, value in SIDES.items() if name != "mamba_d_ssm"}
UNLIKE = DENSE | {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 24, "v_head_dim": 16,
                  "sliding_window": 8, "num_key_value_heads": 1}  # fmt: skip
CHUNKS = DENSE | {"num_local_experts": 4, "head_dim": 16, "attention_chunk_size": 8, "intermediate_size_mlp": 80}
UNMIXED = {name: value for name, value in NEXT.items() if "expert" not in name and name != "moe_intermediate_size"}
WINDOWS = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}
TYPES = ["sliding_attention", "full_attention", "full_attention"] * 2
SELECTIVE = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 3, "state_size": 8}
HEADED = SELECTIVE | {"num_heads": 8, "head_dim": 16, "n_groups": 2, "chunk_size": 16}
JAMBA = DENSE | {"num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 8, "mamba_dt_rank": 5}
NEMOTRON = DENSE | {"hybrid_override_pattern": "M-M*-M", "head_dim": 24, "mamba_num_heads": 6, "mamba_head_dim": 12, "n_groups": 3,
                    "ssm_state_size": 8, "chunk_size": 16}  # fmt: skip
NAMED = ["mamba", "moe", "attention", "mlp", "linear_attention", "full_attention"]
PLAIN_EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20,
                 "moe_shared_expert_intermediate_size": 28}  # fmt: skip
GRANITE = DENSE | {"mamba_n_heads": 8, "mamba_d_state": 8, "mamba_n_groups": 2, "mamba_chunk_size": 16, "num_local_experts": 4,
                   "num_experts_per_tok": 2, "shared_intermediate_size": 48,
                   "layer_types": ["mamba", "attention", "mamba"] * 2}  # fmt: skip
HUNYUAN = DENSE | {"num_experts": 4, "moe_topk": 1, "use_cla": True, "cla_share_factor": 2, "use_mixed_mlp_moe": True,
                   "num_shared_expert": 1, "use_qk_norm": True}  # fmt: skip
MADE: list[tuple[str, dict[str, Any]]] = [
    ("llama", DENSE),
    ("llama", DENSE | {"head_dim": 24, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("mistral", DENSE | {"sliding_window": 8}),
    ("mistral", DENSE | {"sliding_window": None, "head_dim": 24}),
    ("mixtral", DENSE | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ("qwen2", DENSE),
    ("qwen2", DENSE | WINDOWS),
    ("qwen2", DENSE | WINDOWS | {"layer_types": TYPES}),
    ("qwen2_moe", EXPERTS | {"shared_expert_intermediate_size": 48, "decoder_sparse_step": 2}),
    ("qwen2_moe", EXPERTS | {"shared_expert_intermediate_size": 48, "qkv_bias": False, "mlp_only_layers": [0, 3]}),
    ("qwen3", DENSE | {"head_dim": 24}),
    ("qwen3", DENSE | WINDOWS | {"attention_bias": True}),
    ("qwen3_moe", EXPERTS | {"mlp_only_layers": [1], "decoder_sparse_step": 1}),
    ("qwen3_moe", EXPERTS | {"head_dim": 24, "decoder_sparse_step": 3, "attention_bias": True}),
    ("qwen3_next", NEXT),
    ("qwen3_next", NEXT | {"full_attention_interval": 3, "mlp_only_layers": [0, 5], "attention_bias": True}),
    ("qwen3_next", NEXT | {"layer_types": ["full_attention"] + ["linear_attention"] * 5}),
    ("gemma3_text", DENSE | {"head_dim": 16, "sliding_window": 8, "sliding_window_pattern": 4}),
    ("gemma3_text", DENSE | {"head_dim": 16, "layer_types": TYPES, "attention_bias": True, "tie_word_embeddings": False}),
    ("gemma3_text", {"num_hidden_layers": 2}),
    ("gpt2", {"vocab_size": 100, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 32}),
    ("gpt2", {"vocab_size": 100, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 80, "tie_word_embeddings": False}),
    ("deepseek_v2", LATENT),
    ("deepseek_v2", LATENT | {"q_lora_rank": None, "attention_bias": True, "first_k_dense_replace": 0}),
    ("deepseek_v3", LATENT),
    ("deepseek_v3", LATENT | {"q_lora_rank": None, "num_nextn_predict_layers": 0, "attention_bias": True}),
    ("deepseek_v32", PICKING),
    ("deepseek_v32", PICKING | {"attention_bias": True, "mlp_layer_types": ["dense", "sparse"] * 3}),
    ("glm_moe_dsa", PICKING),
    ("glm_moe_dsa", PICKING | {"indexer_types": ["full", "shared", "shared"] * 2, "first_k_dense_replace": 0}),
    ("glm_moe_dsa", PICKING | {"index_topk_freq": 3, "index_skip_topk_offset": 1, "num_nextn_predict_layers": 0}),
    ("glm_moe_dsa", PICKING | {"index_topk_pattern": "FSFSSF"}),
    ("kimi_linear", KIMI),
    ("kimi_linear", UNSTATED | {"linear_attn_config": LISTED, "mlp_layer_types": ["sparse", "dense"] * 3, "q_lora_rank": 24}),
    ("kimi_linear", KIMI | {"layer_types": ["linear_attention", "full_attention"] * 3, "attention_bias": True}),
    ("falcon_h1", SIDES),
    ("falcon_h1", SIDES | {"mamba_d_ssm": 96, "mamba_d_head": 24, "mamba_rms_norm": True, "mamba_conv_bias": False}),
    ("falcon_h1", SIDES | {"projectors_bias": True, "mlp_bias": True, "attention_bias": True, "mamba_proj_bias": True}),
    ("zamba2", ZAMBA),
    (
        "zamba2",
        ZAMBA | {"use_shared_attention_adapter": True, "use_mem_rope": True, "num_mem_blocks": 1},
    ),
    ("zamba2", ZAMBA | {"add_bias_linear": True, "num_mem_blocks": 3, "n_mamba_heads": 8, "intermediate_size": 100}),
    ("zamba2", ZAMBA | {"num_key_value_heads": 2, "layers_block_type": ["linear_attention", "hybrid", "hybrid"] * 2 + ["hybrid"]}),
    ("qwen3_5_text", UNMIXED),
    ("qwen3_5_moe_text", NEXT | {"full_attention_interval": 3, "attention_bias": True}),
    ("llama4_text", CHUNKS),
    ("llama4_text", CHUNKS | {"use_qk_norm": False, "interleave_moe_layer_step": 2, "attention_bias": True}),
    ("llama4_text", CHUNKS | {"no_rope_layers": [0, 1, 1] * 2, "moe_layers": [1, 4], "num_experts_per_tok": 2}),
    ("mimo_v2_flash", UNLIKE),
    ("mimo_v2_flash", UNLIKE | {"layer_types": TYPES, "mlp_layer_types": ["sparse", "dense"] * 3, "attention_bias": True}),
    ("olmo2", DENSE),
    ("olmo2", DENSE | {"attention_bias": True, "tie_word_embeddings": True}),
    ("minimax_m2", DENSE | {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 24, "rotary_dim": 8}),
    ("minimax", LIGHT),
    ("minimax", LIGHT | {"layer_types": ["linear_attention"] * 5 + ["full_attention"], "head_dim": 24, "block_size": 8}),
    ("glm4_moe", ROUTED | {"use_qk_norm": True, "head_dim": 24}),
    ("glm4_moe", ROUTED | {"attention_bias": True}),
    ("olmo3", DENSE),
    ("olmo3", DENSE | {"layer_types": TYPES, "attention_bias": True}),
    ("gpt_oss", DENSE | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ("gpt_oss", DENSE | {"num_local_experts": 4, "num_experts_per_tok": 2, "attention_bias": False, "head_dim": 24}),
    ("phi3", DENSE | {"pad_token_id": 0}),
    ("phi3", DENSE | {"pad_token_id": 0, "sliding_window": 8, "tie_word_embeddings": True}),
    ("cwm", DENSE | {"mlp_bias": True}),
    ("Dream", DENSE),
    ("Dream", DENSE | {"head_dim": 24, "tie_word_embeddings": True}),
    ("llada", LLADA),
    ("llada", LLADA | {"include_qkv_bias": True, "weight_tying": True}),
    ("llada_moe", LLADA_MOE),
    ("mamba", SELECTIVE),
    ("mamba", SELECTIVE | {"use_bias": True, "use_conv_bias": False, "conv_kernel": 3, "expand": 3, "time_step_rank": 5}),
    ("mamba", SELECTIVE | {"intermediate_size": 128, "tie_word_embeddings": False, "d_model": 64, "n_layer": 3}),
    ("mamba2", HEADED),
    ("mamba2", HEADED | {"use_bias": True, "use_conv_bias": False, "conv_kernel": 3, "expand": 3, "num_heads": 12, "n_groups": 1}),
    ("hunyuan", HUNYUAN),
    ("hunyuan", HUNYUAN | {"cla_share_factor": 3, "attention_bias": True, "tie_word_embeddings": True, "moe_topk": 2}),
    ("hunyuan", HUNYUAN | {"use_cla": False, "use_qk_norm": False, "attention_head_dim": 24, "head_dim": 24}),
    ("hunyuan", DENSE | {"num_experts": 1, "use_cla": True, "cla_share_factor": 2}),
    ("jamba", JAMBA),
    ("jamba", JAMBA | {"attn_layer_period": 3, "attn_layer_offset": 1, "expert_layer_period": 3, "expert_layer_offset": 2}),
    ("jamba", JAMBA | {"num_experts": 1, "mamba_proj_bias": True, "mamba_conv_bias": False, "mamba_d_conv": 3, "head_dim": 24}),
    ("nemotron_h", NEMOTRON),
    ("nemotron_h", NEMOTRON | {"use_bias": True, "use_conv_bias": False, "conv_kernel": 3, "mlp_hidden_act": "relu"}),
    ("nemotron_h", NEMOTRON | PLAIN_EXPERTS | {"hybrid_override_pattern": "ME*EM-"}),
    ("nemotron_h", NEMOTRON | PLAIN_EXPERTS | {"layers_block_type": NAMED}),
    ("granitemoehybrid", GRANITE),
    ("granitemoehybrid", GRANITE | {"num_local_experts": 0, "position_embedding_type": "rope", "attention_bias": True}),
    ("granitemoehybrid", GRANITE | {"mamba_proj_bias": True, "mamba_conv_bias": False, "mamba_d_head": 8, "mamba_n_heads": 16}),
    ("rwkv7", RWKV),
    ("rwkv7", RWKV | {"norm_first": False, "norm_bias": False, "head_dim": 32, "hidden_ratio": 2.3, "tie_word_embeddings": True}),
    ("rwkv7", RWKV | {"intermediate_size": 200, "num_hidden_layers": 1, "num_heads": 2, "value_dim": 128}),
    ("xlstm", XLSTM),
    ("xlstm", XLSTM | {"use_bias": True, "weight_mode": "fused", "qk_dim_factor": 1.0, "v_dim_factor": 2.0, "chunk_size": 8}),
    ("xlstm", XLSTM | {"ffn_proj_factor": 1.5039, "ffn_round_up_to_multiple_of": 32, "num_blocks": 2}),
    ("lfm2", LFM2 | {"intermediate_size": 1000, "tie_embedding": False}),
    ("lfm2", DENSE | {"full_attn_idxs": [2, 5], "block_auto_adjust_ff_dim": False, "conv_bias": True, "conv_L_cache": 4}),
    ("lfm2", LFM2 | {"block_ffn_dim_multiplier": 1.3, "block_multiple_of": 32, "head_dim": 24}),
    ("lfm2", DENSE | {"full_attn_idxs": None, "block_dim": 64, "conv_dim": 64, "num_heads": 4}),
    ("lfm2_moe", LFM2 | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}),
    (
        "lfm2_moe",
        LFM2
        | {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "num_dense_layers": 3,
            "use_expert_bias": False,
            "conv_bias": True,
            "tie_word_embeddings": False,
        },
    ),
]
"""A small config of every model_type, and of its switches. A new model_type is one more row."""


def read(config: dict[str, Any], name: str = "config.json") -> Imported:
    return read_config(json.dumps(config), name)


def costs(model: cm.Architecture) -> dict[str, Any]:
    return model.model_dump(exclude=TOLD_OTHERWISE)


def refused(config: dict[str, Any] | str, *parts: str, kind: type[cm.CostModelError] = cm.CostModelError) -> None:
    start = time.process_time()
    with pytest.raises(kind) as raised:
        read_config(config if isinstance(config, str) else json.dumps(config), "config.json")
    assert time.process_time() - start < 1
    checked(str(raised.value), *parts)


def checked(line: str, *parts: str) -> None:
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 400
    for part in parts:
        assert part in line


def unsupported(config: dict[str, Any], *parts: str) -> None:
    refused(config, *parts, kind=cm.UnsupportedArchitecture)


# what is read


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_is_our_preset(name: str) -> None:
    assert costs(cm.load(PUBLISHED[name])) == costs(cm.load(name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_field_is_told(name: str) -> None:
    imported, config = import_config(PUBLISHED[name]), CONFIGS[name]
    nested = [key for key in ("text_config", "vision_config", "linear_attn_config") if key in config]
    fields = {*config, *(f"{key}.{field}" for key in nested for field in config[key])} - {"linear_attn_config"}
    told = [field for field, _ in (*imported.used, *imported.ignored) if ".rope_parameters." not in field]
    assert sorted(told) == sorted(fields)
    assert not fields & {field for field, _ in imported.assumed}


def test_what_a_config_leaves_out_is_told() -> None:
    assert ("multi-token-prediction modules", 1) in import_config(PUBLISHED["qwen3-next-80b-a3b"]).assumed
    assert ("tie_word_embeddings", True) in import_config(PUBLISHED["gpt2"]).assumed
    assert ("text_config.tie_word_embeddings", True) in import_config(PUBLISHED["gemma-3-4b"]).assumed
    assert [field for field, _ in import_config(PUBLISHED["deepseek-v3"]).assumed] == []


def test_published_gemma_configs_leave_out_what_is_usual() -> None:
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10_240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    }
    imported = read(CONFIGS["gemma-3-4b"] | {"text_config": text})
    assert costs(imported.architecture) == costs(cm.load("gemma-3-4b"))
    assert ("text_config.num_attention_heads", 8) in imported.assumed


def test_quantization_is_told_as_storage() -> None:
    told = import_config(PUBLISHED["deepseek-v3"])
    assert dict(told.ignored)["quantization_config"].startswith("storage of weights")
    assert told.precision == cm.Precision.named("fp8")
    assert read({"model_type": "llama", **DENSE}).precision is None
    assert read({"model_type": "llama", **DENSE, "quantization_config": {"quant_method": "gptq", "bits": 4}}).precision is None
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "quantization_config": {"quant_method": "mxfp4"}}
    stored = read({"model_type": "gpt_oss", **DENSE, **experts}).precision
    assert stored == cm.Precision(experts="mxfp4")


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        ("deepseek-ai/DeepSeek-V3", "config.json", ("deepseek-v3", "DeepSeek-V3", "deepseek-ai")),
        ("", "Llama-3.1-8B/config.json", ("llama-3.1-8b", "Llama-3.1-8B", "unknown")),
        ("", "My model (final).json", ("my-model-final-", "My model (final)", "unknown")),
        ("", "config.json", ("llama", "llama", "unknown")),
        ("/data/x/Step 7", "config.json", ("step-7", "Step 7", "unknown")),
        ("../..", "a.json", ("a", "a", "unknown")),
        ("\u202e\x1b[31mred\ud800", "a.json", ("31mred", "[31mred", "unknown")),
        ("x" * 10_000, "a.json", ("x" * 80, "x" * 200, "unknown")),
        (5, "a.json", ("a", "a", "unknown")),
    ],
)  # fmt: skip
def test_names(path: object, name: str, expected: tuple[str, str, str]) -> None:
    model = read({"model_type": "llama", **DENSE, "_name_or_path": path}, name).architecture
    assert (model.name, model.title, model.maker) == expected
    assert parse(as_toml(model), "x.toml") == model


def test_windows_fall_where_the_config_says() -> None:
    def order(**fields: Any) -> tuple[str, ...]:
        return read({"model_type": "qwen2", **DENSE, **fields}).architecture.layer_order

    assert order() == ("dense",) * 6
    assert order(**WINDOWS) == ("global",) * 2 + ("local",) * 4
    assert order(**WINDOWS, layer_types=TYPES) == ("local", "global", "global") * 2
    assert order(**WINDOWS | {"use_sliding_window": False}) == ("dense",) * 6
    assert order(**WINDOWS | {"sliding_window": None}) == ("dense",) * 6
    windowed = read({"model_type": "qwen2", **DENSE, **WINDOWS, "max_window_layers": 0}).architecture
    assert windowed.cache_bytes(context=100) == 8 * windowed.cache_bytes(context=1)


def test_hunyuan_layers_share_keys_and_values() -> None:
    def order(**fields: Any) -> tuple[str, ...]:
        return read({"model_type": "hunyuan", **HUNYUAN, **fields}).architecture.layer_order

    assert order() == ("attention", "shared-kv") * 3
    assert order(cla_share_factor=3) == ("attention", "shared-kv", "shared-kv") * 2
    assert order(cla_share_factor=1) == order(use_cla=False) == ("moe",) * 6


def test_hunyuan_experts_are_mixed_with_shared_ones_if_the_config_says_so() -> None:
    def experts(**fields: Any) -> Any:
        return read({"model_type": "hunyuan", **HUNYUAN, **fields}).architecture.layers[0].feed_forward

    assert experts().num_shared_experts == 1
    assert experts(num_shared_expert=3).num_shared_experts == 3
    assert experts(use_mixed_mlp_moe=False).num_shared_experts == 0


def test_groups_are_named_by_what_tells_them_apart() -> None:
    fields = {"full_attention_interval": 2, "mlp_only_layers": [0]}
    model = read({"model_type": "qwen3_next", **NEXT, **fields}).architecture
    assert model.layer_order == (
        "deltanet-dense",
        "attention-moe",
        "deltanet-moe",
        "attention-moe",
        "deltanet-moe",
        "attention-moe",
    )


# files


def test_a_folder_with_a_config_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "Mine-1B").mkdir()
    (tmp_path / "Mine-1B" / "config.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"model_type": "llama", **DENSE}).encode())
    model = cm.load(tmp_path / "Mine-1B")
    assert (model.name, model.title) == ("mine-1b", "Mine-1B")
    assert cm.load(tmp_path / "Mine-1B" / "config.json") == model


def test_a_config_lies_in_the_present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Here").mkdir()
    (tmp_path / "Here" / "config.json").write_text(json.dumps({"model_type": "llama", **DENSE}))
    monkeypatch.chdir(tmp_path / "Here")
    assert cm.load("config.json").name == cm.load(".").name == "here"


# what is refused


SHORT = {"model_type": "qwen3", **DENSE}
TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "empty": ("", ("no valid JSON",)),
    "cut": (json.dumps(SHORT)[:-5], ("no valid JSON",)),
    "nul": ("\0", ("no valid JSON",)),
    "list": ("[]", ("got a list",)),
    "text": ('"llama"', ("got 'llama'",)),
    "null": ("null", ("got None",)),
    "deep list": ("[" * 100_000, ("nested too deeply",)),
    "deep object": ('{"a":' * 100_000, ("nested too deeply",)),
    "twice": ('{"model_type": "llama", "model_type": "gpt2"}', ("'model_type'", "given twice")),
    "twice within": ('{"model_type": "llama", "rope_scaling": {"a": 1, "a": 1}}', ("'a'", "given twice")),
    "large": (" " * (MAX_CONFIG_BYTES + 1), ("1,048,577", "at most")),
    "digits": ('{"model_type": "llama", "hidden_size": ' + "9" * 5000 + "}", ("digits",)),
    "fewer digits": ('{"model_type": "llama", "hidden_size": ' + "9" * 4000 + "}", ("hidden_size", "bits")),
    "many fields": (json.dumps(SHORT | {f"k{place}": place for place in range(50_000)}), ("'k0'", "not known")),
    "escapes": (json.dumps(SHORT | {"a\n\x1b[31m\u202e": 1}), ("a\\n", "not known")),
    "code": (json.dumps(SHORT | {"hidden_size": "__import__('os').getpid()"}), ("hidden_size got", "__import__")),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_are_no_config(name: str) -> None:
    text, parts = TEXTS[name]
    refused(text, "config.json", *parts)


@pytest.mark.parametrize("value", ["64", 64.0, True, None, -1, 0, 10**9 + 1, 10**30, float("nan"), float("inf"), [64], {"a": 1}])
@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads", "intermediate_size"])
def test_sizes_are_whole_numbers(field: str, value: object) -> None:
    refused(SHORT | {field: value}, f"config.json: {field} got", "give a whole number")


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads", "intermediate_size"])
def test_sizes_are_not_guessed(field: str) -> None:
    refused({key: value for key, value in SHORT.items() if key != field}, field, "missing")


UNMODELLED: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"model_type": "deepseek_v4"}, ("'deepseek_v4'", "did you mean deepseek_v3?")),
    ({"model_type": "mamba3"}, ("'mamba3'", "did you mean mamba?")),
    ({"model_type": None}, ("None",)),
    ({"model_type": []}, ("a list",)),
    ({"model_type": "x" * 100_000}, ("known: llama",)),
    ({"model_type": "mamba", **SELECTIVE, "hidden_act": "relu"}, ("hidden_act", "'silu'")),
    ({"model_type": "mamba", **SELECTIVE, "intermediate_size": 100}, ("intermediate_size", "only 128")),
    ({"model_type": "jamba", **JAMBA, "sliding_window": 8}, ("sliding_window",)),
    ({"model_type": "hunyuan", **HUNYUAN, "use_mla": True}, ("use_mla",)),
    ({"model_type": "nemotron_h", **NEMOTRON, "hybrid_override_pattern": "M-X*-M"}, ("hybrid_override_pattern", "'X'")),
    ({"model_type": "nemotron_h", **NEMOTRON, "moe_latent_size": 8}, ("moe_latent_size",)),
    ({"model_type": "nemotron_h", **NEMOTRON, "num_nextn_predict_layers": 1}, ("num_nextn_predict_layers",)),
    ({"model_type": "granitemoehybrid", **GRANITE, "position_embedding_type": "learned"}, ("position_embedding_type",)),
    (
        {"model_type": "zamba2", **ZAMBA, "num_key_value_heads": 2, "use_shared_attention_adapter": True},
        ("num_key_value_heads 2", "only 4"),
    ),
    (
        {"model_type": "zamba2", **ZAMBA, "layers_block_type": ["mamba", "attention"] * 3 + ["hybrid"]},
        ("layers_block_type", "'attention'"),
    ),
    (SHORT | {"index_topk": 2048}, ("'index_topk'", "could carry a cost")),
    (SHORT | {"architectures": ["Qwen3ForSequenceClassification"]}, ("architectures", "Qwen3ForCausalLM")),
    (SHORT | {"hidden_act": "xielu"}, ("hidden_act", "'xielu'")),
    (SHORT | {"layer_types": ["linear_attention"] * 6}, ("layer_types", "linear_attention")),
    (SHORT | {"is_encoder_decoder": True}, ("is_encoder_decoder", "only False is")),
    (SHORT | {"rope_parameters": {"partial_rotary_factor": 0.5}}, ("partial_rotary_factor",)),
    ({"model_type": "llama", **DENSE, "sliding_window": 8}, ("sliding_window",)),
    ({"model_type": "mistral", **DENSE, "layer_types": TYPES}, ("layer_types",)),
    ({"model_type": "mistral", **DENSE, "attention_bias": True}, ("attention_bias",)),
    ({"model_type": "qwen3_moe", **EXPERTS, "use_sliding_window": True}, ("use_sliding_window",)),
    ({"model_type": "deepseek_v3", **LATENT, "moe_layer_freq": 2}, ("moe_layer_freq", "only 1 is")),
    ({"model_type": "deepseek_v3", **LATENT, "num_key_value_heads": 2}, ("num_key_value_heads", "only 4")),
    ({"model_type": "deepseek_v3", **LATENT, "first_k_dense_replace": 6}, ("num_nextn_predict_layers", "mixture")),
    ({"model_type": "deepseek_v2", **LATENT, "topk_method": "noaux_tc"}, ("topk_method",)),
    ({"model_type": "gemma3_text", **DENSE, "attn_logit_softcapping": 50.0}, ("attn_logit_softcapping",)),
    ({"model_type": "gemma3_text", **DENSE, "use_bidirectional_attention": True}, ("use_bidirectional_attention",)),
    ({"model_type": "gpt2", **CONFIGS["gpt2"], "add_cross_attention": True}, ("add_cross_attention",)),
    ({"model_type": "phi3", **DENSE, "lm_head_bias": True}, ("lm_head_bias",)),
    ({"model_type": "rwkv7", **RWKV, "attn": {"layers": [1]}}, ("attn",)),
    ({"model_type": "rwkv7", **RWKV, "value_dim": 64}, ("value_dim", "128")),
    ({"model_type": "xlstm", **XLSTM, "qk_dim_factor": 0.3}, ("qk_dim_factor", "38", "64")),
    ({"model_type": "xlstm", **XLSTM, "tie_word_embeddings": True}, ("tie_word_embeddings",)),
    ({"model_type": "xlstm", **XLSTM, "add_out_norm": False}, ("add_out_norm",)),
    ({"model_type": "lfm2", **LFM2, "conv_dim": 128}, ("conv_dim", "only 64")),
    ({"model_type": "lfm2", **LFM2, "block_use_swiglu": False}, ("block_use_swiglu",)),
    ({"model_type": "lfm2", **LFM2, "layer_types": ["sliding_attention"] * 6}, ("layer_types", "sliding_attention")),
]


@pytest.mark.parametrize(("config", "parts"), UNMODELLED)
def test_what_is_not_modelled_is_refused_by_name(config: dict[str, Any], parts: tuple[str, ...]) -> None:
    unsupported(config, "config.json: ", *parts)


def test_a_tower_that_is_not_modelled_is_refused_by_name() -> None:
    config = CONFIGS["gemma-3-4b"]
    tower = config["vision_config"]
    unsupported(config | {"vision_config": tower | {"vision_use_head": True}}, "vision_config.vision_use_head")
    head = {key: value for key, value in tower.items() if key != "vision_use_head"}
    unsupported(config | {"vision_config": head}, "vision_use_head", "missing field")
    unsupported(config | {"vision_config": tower | {"model_type": "clip_vision_model"}}, "clip_vision_model")
    unsupported(config | {"text_config": config["text_config"] | {"model_type": "llama"}}, "text_config.model_type", "gemma3_text")
    unsupported(config | {"mm_tokens_per_image": 200}, "mm_tokens_per_image")
    refused(config | {"tie_word_embeddings": False}, "tie_word_embeddings")
    refused(config | {"vision_config": None}, "vision_config got None")
    refused(config | {"text_config": []}, "text_config got a list")


WRONG: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    (DENSE, ("model_type is missing",)),
    (SHORT | {"num_key_value_heads": 3}, ("num_key_value_heads 3", "divide")),
    (SHORT | {"tie_word_embeddings": 1}, ("tie_word_embeddings got 1", "true or false")),
    (SHORT | {"layer_types": ["full_attention"]}, ("layer_types got 1 entries", "6")),
    (SHORT | {"layer_types": TYPES}, ("sliding_window",)),
    (SHORT | {"architectures": "Qwen3ForCausalLM"}, ("architectures got",)),
    (SHORT | {"num_hidden_layers": 10_001}, ("num_hidden_layers got 10001", "10,000")),
    ({"model_type": "llama", **DENSE, "num_attention_heads": 3}, ("num_attention_heads got 3", "64")),
    ({"model_type": "qwen3_moe", **EXPERTS, "num_local_experts": 8}, ("num_local_experts", "contradicts")),
    ({"model_type": "qwen3_moe", **EXPERTS, "mlp_only_layers": [True]}, ("mlp_only_layers got True",)),
    ({"model_type": "qwen3_moe", **EXPERTS, "num_experts_per_tok": 5}, ("num_experts_per_tok 5", "4")),
    ({"model_type": "glm4_moe", **ROUTED, "partial_rotary_factor": float("inf")}, ("partial_rotary_factor got inf",)),
    ({"model_type": "gpt2", **CONFIGS["gpt2"], "n_ctx": 2048}, ("contradicts",)),
    ({"model_type": "hunyuan", **HUNYUAN, "moe_topk": [1] * 6}, ("moe_topk got a list", "whole number")),
    ({"model_type": "falcon_h1", **UNSTATED_SIDES}, ("mamba_d_ssm: this field is missing",)),
    ({"model_type": "falcon_h1", **SIDES, "num_key_value_heads": None}, ("num_key_value_heads got None", "whole number")),
    ({"model_type": "mamba2", **HEADED, "num_heads": 4}, ("num_heads got 4", "128 channels")),
    ({"model_type": "mamba2", **HEADED, "n_groups": 3}, ("n_groups 3", "divide")),
    ({"model_type": "mamba", **SELECTIVE, "time_step_rank": "half"}, ("time_step_rank got", "whole number")),
    ({"model_type": "jamba", **JAMBA, "attn_layer_offset": 8}, ("attn_layer_offset got 8", "7")),
    ({"model_type": "nemotron_h", **NEMOTRON, "hybrid_override_pattern": "M-"}, ("hybrid_override_pattern", "6 layers")),
    ({"model_type": "nemotron_h", **DENSE}, ("hybrid_override_pattern", "missing")),
    ({"model_type": "granitemoehybrid", **GRANITE, "mamba_n_heads": 7}, ("mamba_n_heads got 7",)),
]


@pytest.mark.parametrize(("config", "parts"), WRONG)
def test_what_no_config_says_is_refused(config: dict[str, Any], parts: tuple[str, ...]) -> None:
    refused(config, "config.json: ", *parts)


ODD: list[Any] = [
    None, True, False, 0, 1, -1, 3, 7, 2.5, 4096.0, 10**9, 10**30, -(10**30), float("nan"), float("inf"), "", "64", "silu", [], [1],
    ["full_attention"], {}, {"a": 1}, "sliding_attention", "\u202e\x1b\n", [[]] * 3,
]  # fmt: skip
NEW = ["sliding_window", "layer_types", "head_dim", "foo", "use_sliding_window", "num_experts", "q_lora_rank", "rope_parameters"]


def mutated(source: random.Random) -> dict[str, Any]:
    """A published config with one to three changes, at any depth."""
    config = copy.deepcopy(CONFIGS[source.choice(sorted(CONFIGS))])
    for _ in range(source.randint(1, 3)):
        place = source.choice([config, *(part for part in config.values() if isinstance(part, dict) and part)])
        key = source.choice(sorted(place))
        action = source.choice(["delete", "change", "change", "scale", "add"])
        if action == "delete":
            del place[key]
        elif action == "add":
            place[source.choice(NEW)] = source.choice(ODD)
        elif action == "scale" and isinstance(place[key], int):
            place[key] = place[key] * source.choice([-1, 2, 3, 10**6])
        else:
            place[key] = source.choice(ODD)
        if not config:
            break
    return config


@pytest.mark.parametrize("seed", range(300))
def test_a_changed_config_is_an_architecture_or_refused(seed: int) -> None:
    config, start = mutated(random.Random(seed)), time.process_time()  # noqa: S311 - the same changes in every run
    try:
        params = read(config).architecture.params
        assert 0 < params.active <= params.total
    except cm.CostModelError as error:
        checked(str(error))
    assert time.process_time() - start < 1


@given(st.text(max_size=200))
@settings(max_examples=150)
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(cm.CostModelError) as raised:
        read_config(text, text)
    checked(str(raised.value))


# as TOML


@pytest.mark.parametrize("name", cm.presets())
def test_a_preset_is_written_as_it_is_read(name: str) -> None:
    model = cm.load(name)
    assert parse(as_toml(model), "x.toml") == model
    assert as_toml(parse(as_toml(model), "x.toml")) == as_toml(model)


@given(st.sampled_from(sorted(BLOCKS)).flatmap(architectures))
@settings(max_examples=100)
def test_any_architecture_is_written_as_it_is_read(model: cm.Architecture) -> None:
    assert parse(as_toml(model), "x.toml") == model


def test_a_written_file_looks_like_a_preset() -> None:
    lines = [line for line in as_toml(cm.load("gpt2")).splitlines() if line]
    assert lines[:4] == ['name = "gpt2"', 'title = "GPT-2"', 'maker = "OpenAI"', "released = 2019-02-14"]
    assert [line for line in lines if line.startswith("[")][:4] == [
        "[norm]",
        "[[layers]]",
        "[layers.mixer]",
        "[layers.feed_forward]",
    ]
    assert not any("output_gate" in line or "v_head_dim" in line for line in lines)


# the reference implementation


def check_against_the_reference(config: dict[str, Any], ours: cm.Architecture, prompt: int) -> None:
    """Parameters, and cache and FLOPs of a prompt, of the class that `transformers` has for a config, without memory."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from .real_modules import as_counted, as_implemented, build, expected_cache, expected_flops, measured, run, trained

    implementation = RECIPES[config["model_type"]].implementation
    ours = as_implemented(implementation, ours)
    with torch.device("meta"):
        model = build(implementation, config)
    assert ours.params.total == sum(tensor.numel() for tensor in trained(model).values())
    flops, kept = run(model, ours, input_ids=torch.zeros(2, prompt, dtype=torch.long, device="meta"))
    assert measured(kept, ours)[0] == expected_cache(ours, 2, prompt, in_bytes=False)
    assert flops == expected_flops(as_counted(implementation, ours), 2, prompt, prompt)


@pytest.mark.torch
@pytest.mark.parametrize(("kind", "fields"), MADE, ids=[f"{place}-{kind}" for place, (kind, _) in enumerate(MADE)])
def test_a_made_config_costs_what_the_reference_implementation_does(kind: str, fields: dict[str, Any]) -> None:
    config = {"model_type": kind, **fields}
    check_against_the_reference(config, read(config).architecture, prompt=20)


def test_every_model_type_is_tried() -> None:
    assert {kind for kind, _ in MADE} | {config["model_type"] for config in CONFIGS.values()} == set(RECIPES)


@pytest.mark.torch
@pytest.mark.parametrize("path", MORE, ids=lambda path: path.stem)
def test_a_collected_config_costs_what_the_reference_implementation_does_or_is_refused(path: Path) -> None:
    try:
        ours = cm.load(path)
    except cm.UnsupportedArchitecture as error:
        checked(str(error))
    else:
        check_against_the_reference(json.loads(path.read_text()), ours, prompt=min(4500, ours.max_position_embeddings or 4500))


QWEN_SEES = {
    "model_type": "qwen3_5", "tie_word_embeddings": False, "image_token_id": 98, "vision_start_token_id": 97,
    "vision_end_token_id": 96,
    "text_config": {
        **UNMIXED, "model_type": "qwen3_5_text", "attn_output_gate": True,
        "tie_word_embeddings": False,
    },
    "vision_config": {
        "depth": 3, "hidden_size": 32, "in_channels": 3, "intermediate_size": 40, "num_heads": 4, "num_position_embeddings": 16,
        "out_hidden_size": 64, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "model_type": "qwen3_5",
        "hidden_act": "gelu_pytorch_tanh", "deepstack_visual_indexes": [],
    },
}  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("images", [1, 3])
def test_a_tower_for_images_of_any_size_has_our_flops(images: int) -> None:
    """A real one, on images that fill its table of positions: four by four patches, merged two by two."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    from .real_modules import build, trained

    ours = read(QWEN_SEES).architecture
    model = build("Qwen3_5ForConditionalGeneration", QWEN_SEES)
    assert ours.params.total == sum(tensor.numel() for tensor in trained(model).values())
    assert ours.params.vision == sum(tensor.numel() for name, tensor in trained(model).items() if "visual" in name)
    pixels = torch.zeros(images * 16, 3 * 2 * 4 * 4, dtype=torch.bfloat16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.model.get_image_features(pixels, torch.tensor([[1, 4, 4]] * images))
    at = {"new_tokens": 20, "context": 20}
    assert counter.get_total_flops() == ours.flops(images=images, **at) - ours.flops(**at)


# mutated configs


@pytest.mark.parametrize("first", range(0, 2000, 250))
def test_a_mutated_config_is_a_model_or_a_line(first: int) -> None:
    """A share of the ten thousand that `python -m tests.fuzz 10000` runs."""
    results = [fuzz.outcome(fuzz.mutated(seed)) for seed in range(first, first + 250)]
    assert {"model", "refused"} == set(results)
