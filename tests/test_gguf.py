"""Small GGUF files give the architecture of the same config, their formats and their size; what is not modelled is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import costmodel as cm
from costmodel.catalog import as_toml, import_config, parse
from costmodel.cli import main
from costmodel.importers import read_config

gguf = pytest.importorskip("gguf")
Form = gguf.GGMLQuantizationType
Shapes = dict[str, tuple[int, ...]]

WIDTH, VOCAB, HEADS, KV, HEAD, FF, EXPERTS, EXPERT_FF = 256, 300, 4, 2, 64, 512, 4, 256
KEYS: dict[str, Any] = {
    "block_count": 2, "embedding_length": WIDTH, "context_length": 4096, "attention.head_count": HEADS, "feed_forward_length": FF,
    "attention.head_count_kv": KV, "rope.freq_base": 1e4, "attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip
ROUTED = {"expert_count": EXPERTS, "expert_used_count": 2, "expert_feed_forward_length": EXPERT_FF}
CONFIG: dict[str, Any] = {
    "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS, "num_key_value_heads": KV, "head_dim": HEAD,
    "intermediate_size": FF, "vocab_size": VOCAB, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip
CHOSEN = {"num_local_experts": EXPERTS, "num_experts_per_tok": 2}
MIXTURE = CHOSEN | {"moe_intermediate_size": EXPERT_FF}


def attention(*, bias: str = "", norms: bool = False, sinks: bool = False) -> Shapes:
    shapes: Shapes = {
        "attn_norm.weight": (WIDTH,), "attn_q.weight": (HEADS * HEAD, WIDTH), "attn_k.weight": (KV * HEAD, WIDTH),
        "attn_v.weight": (KV * HEAD, WIDTH), "attn_output.weight": (WIDTH, HEADS * HEAD),
    }  # fmt: skip
    widths = {"q": HEADS * HEAD, "k": KV * HEAD, "v": KV * HEAD, "output": WIDTH}
    shapes |= {f"attn_{part}.bias": (widths[part],) for part in bias.split()}
    shapes |= {"attn_q_norm.weight": (HEAD,), "attn_k_norm.weight": (HEAD,)} if norms else {}
    return shapes | ({"attn_sinks.weight": (HEADS,)} if sinks else {})


def feed_forward(width: int = FF, end: str = "") -> Shapes:
    return {f"ffn_gate{end}.weight": (width, WIDTH), f"ffn_up{end}.weight": (width, WIDTH), f"ffn_down{end}.weight": (WIDTH, width)}


def experts(width: int = EXPERT_FF) -> Shapes:
    shapes = {name: (EXPERTS, *shape) for name, shape in feed_forward(width, "_exps").items()}
    return shapes | {"ffn_gate_inp.weight": (EXPERTS, WIDTH)}


def model(*layers: Shapes, tied: bool = False) -> Shapes:
    shapes: Shapes = {"token_embd.weight": (VOCAB, WIDTH), "output_norm.weight": (WIDTH,)}
    shapes |= {} if tied else {"output.weight": (VOCAB, WIDTH)}
    for place, layer in enumerate(layers):
        shapes |= {f"blk.{place}.{name}": shape for name, shape in layer.items()}
    return shapes


NORM: Shapes = {"ffn_norm.weight": (WIDTH,)}
LATENT = {
    "attention.key_length": 32 + 16, "attention.value_length": 32, "attention.kv_lora_rank": 32, "rope.dimension_count": 16,
    "attention.key_length_mla": 24 + 16, "attention.value_length_mla": 40, "leading_dense_block_count": 1, "expert_shared_count": 1,
    "attention.head_count_kv": 1, "expert_group_count": 1, "expert_weights_scale": 1.0, "expert_gating_func": 1,
}  # fmt: skip
LATENT_CONFIG = {
    "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 24, "v_head_dim": 40, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "num_key_value_heads": HEADS, "head_dim": 16,
}  # fmt: skip
MLA: Shapes = {
    "attn_norm.weight": (WIDTH,), "attn_kv_a_mqa.weight": (32 + 16, WIDTH), "attn_kv_a_norm.weight": (32,),
    "attn_k_b.weight": (HEADS, 32, 24), "attn_v_b.weight": (HEADS, 40, 32), "attn_output.weight": (WIDTH, HEADS * 40),
}  # fmt: skip
PLAIN_Q: Shapes = {"attn_q.weight": (HEADS * 40, WIDTH)}
LOW_Q: Shapes = {"attn_q_a.weight": (48, WIDTH), "attn_q_a_norm.weight": (48,), "attn_q_b.weight": (HEADS * 40, 48)}
SHARED = feed_forward(EXPERT_FF, "_shexp")
BIAS: Shapes = {"exp_probs_b.bias": (EXPERTS,)}
SANDWICH: Shapes = {"post_attention_norm.weight": (WIDTH,), "ffn_norm.weight": (WIDTH,), "post_ffw_norm.weight": (WIDTH,)}
OSS = attention(bias="q k v output", sinks=True) | {"post_attention_norm.weight": (WIDTH,)} | experts() | {
    "ffn_gate_inp.bias": (EXPERTS,), "ffn_gate_exps.bias": (EXPERTS, EXPERT_FF), "ffn_up_exps.bias": (EXPERTS, EXPERT_FF),
    "ffn_down_exps.bias": (EXPERTS, WIDTH),
}  # fmt: skip
GLM = attention(bias="q k v", norms=True) | {"post_attention_norm.weight": (WIDTH,)}
DRAFT: Shapes = {
    "nextn.eh_proj.weight": (WIDTH, 2 * WIDTH), "nextn.enorm.weight": (WIDTH,), "nextn.hnorm.weight": (WIDTH,),
    "nextn.shared_head_norm.weight": (WIDTH,), "nextn.embed_tokens.weight": (VOCAB, WIDTH),
    "nextn.shared_head_head.weight": (VOCAB, WIDTH),
}  # fmt: skip
GLM_KEYS = ROUTED | {"rope.dimension_count": HEAD // 2, "leading_dense_block_count": 1, "expert_shared_count": 1}
GLM_CONFIG = MIXTURE | {"n_shared_experts": 1, "first_k_dense_replace": 1, "attention_bias": True, "use_qk_norm": True}
QWEN2_SHARED: Shapes = feed_forward(2 * EXPERT_FF, "_shexp") | {"ffn_gate_inp_shexp.weight": (WIDTH,)}
MODELS: dict[str, tuple[str, dict[str, Any], Shapes, dict[str, Any]]] = {
    "llama": ("llama", {"rope.dimension_count": HEAD, "vocab_size": VOCAB},
              model(*[attention() | NORM | feed_forward()] * 2) | {"rope_freqs.weight": (HEAD // 2,)}, {"model_type": "llama"}),
    "llama, tied, biases": ("llama", {}, model(*[attention(bias="q k v output") | NORM | feed_forward()] * 2, tied=True),
                            {"model_type": "llama", "attention_bias": True, "tie_word_embeddings": True}),
    "mistral": ("llama", {"attention.sliding_window": 64}, model(*[attention() | NORM | feed_forward()] * 2),
                {"model_type": "mistral", "sliding_window": 64}),
    "mixtral": ("llama", {"expert_count": EXPERTS, "expert_used_count": 2}, model(*[attention() | NORM | experts(FF)] * 2),
                CHOSEN | {"model_type": "mixtral"}),
    "mixtral, one tensor an expert": (
        "llama", {"expert_count": EXPERTS, "expert_used_count": 2},
        model(*[attention() | NORM | {"ffn_gate_inp.weight": (EXPERTS, WIDTH)}
                | {name: shape for place in range(EXPERTS) for name, shape in feed_forward(FF, f".{place}").items()}] * 2),
        CHOSEN | {"model_type": "mixtral"}),
    "qwen2": ("qwen2", {}, model(*[attention(bias="q k v") | NORM | feed_forward()] * 2), {"model_type": "qwen2"}),
    "qwen2moe": ("qwen2moe", ROUTED | {"expert_shared_feed_forward_length": 2 * EXPERT_FF},
                 model(*[attention(bias="q k v") | NORM | experts() | QWEN2_SHARED] * 2),
                 MIXTURE | {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 2 * EXPERT_FF}),
    "qwen3": ("qwen3", {"attention.key_length": HEAD, "attention.value_length": HEAD},
              model(*[attention(norms=True) | NORM | feed_forward()] * 2, tied=True),
              {"model_type": "qwen3", "tie_word_embeddings": True}),
    "qwen3moe": ("qwen3moe", ROUTED, model(*[attention(norms=True) | NORM | experts()] * 2), MIXTURE | {"model_type": "qwen3_moe"}),
    "gemma3": ("gemma3", {"block_count": 6, "attention.sliding_window": 64, "attention.key_length": HEAD},
               model(*[attention(norms=True) | SANDWICH | feed_forward()] * 6, tied=True),
               {"model_type": "gemma3_text", "num_hidden_layers": 6, "sliding_window": 64, "tie_word_embeddings": True}),
    "gemma3, listed": ("gemma3", {"attention.sliding_window": 64, "attention.sliding_window_pattern": [True, False]},
                       model(*[attention(norms=True) | SANDWICH | feed_forward()] * 2, tied=True),
                       {"model_type": "gemma3_text", "sliding_window": 64, "tie_word_embeddings": True,
                        "layer_types": ["sliding_attention", "full_attention"]}),
    "gpt-oss": ("gpt-oss", ROUTED | {"attention.sliding_window": 64}, model(OSS, OSS),
                CHOSEN | {"model_type": "gpt_oss", "intermediate_size": EXPERT_FF, "sliding_window": 64}),
    "deepseek-v2": ("deepseek2", ROUTED | LATENT,
                    model(MLA | PLAIN_Q | NORM | feed_forward(), MLA | PLAIN_Q | NORM | experts() | SHARED),
                    MIXTURE | LATENT_CONFIG | {"model_type": "deepseek_v2", "q_lora_rank": None}),
    "deepseek-v3": ("deepseek2", ROUTED | LATENT | {"attention.q_lora_rank": 48},
                    model(MLA | LOW_Q | NORM | feed_forward(), MLA | LOW_Q | NORM | experts() | SHARED | BIAS),
                    MIXTURE | LATENT_CONFIG | {"model_type": "deepseek_v3", "q_lora_rank": 48, "num_nextn_predict_layers": 0}),
    "glm-4.5": ("glm4moe", GLM_KEYS | {"block_count": 3, "nextn_predict_layers": 1},
                model(GLM | feed_forward(), *[GLM | experts() | SHARED | BIAS] * 2) | {f"blk.2.{n}": s for n, s in DRAFT.items()},
                GLM_CONFIG | {"model_type": "glm4_moe", "num_nextn_predict_layers": 1}),
    "glm-4.5, without drafts": ("glm4moe", GLM_KEYS, model(GLM | feed_forward(), GLM | experts() | SHARED | BIAS),
                                GLM_CONFIG | {"model_type": "glm4_moe", "num_nextn_predict_layers": 0}),
}  # fmt: skip
"""For each architecture: its keys beside the usual ones, its tensors, and what the config says beside the usual."""


def write(path: Path, architecture: str, keys: dict[str, Any], shapes: Shapes, forms: dict[str, Any] | None = None) -> Path:
    """A GGUF file of zeros: one-dimensional tensors and routers in F32, others in the form of the first ending that fits."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in {**KEYS, **keys}.items():
        name = key if key.startswith(("general.", "split.")) else f"{architecture}.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        elif value is not None:
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(name, value)
    for name, shape in shapes.items():
        form = next((form for end, form in (forms or {}).items() if end in name), Form.F16)
        form = Form.F32 if len(shape) == 1 or "ffn_gate_inp" in name or name.endswith(".bias") else form
        block, size = gguf.GGML_QUANT_SIZES[form]
        data = np.zeros((*shape[:-1], shape[-1] // block * size), dtype=np.uint8)
        writer.add_tensor(name, data, raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("name", MODELS)
def test_a_file_is_the_architecture_of_its_config(name: str, tmp_path: Path) -> None:
    architecture, keys, shapes, config = MODELS[name]
    found = import_config(write(tmp_path / "Tiny-1B.gguf", architecture, keys, shapes))
    told = {"name", "title", "source"}
    expected = read_config(json.dumps(CONFIG | config), "Tiny-1B.json").architecture
    assert found.architecture.model_dump(exclude=told) == expected.model_dump(exclude=told)
    assert (found.architecture.name, found.architecture.title) == ("tiny-1b", "Tiny-1B")
    assert "GGUF" in found.architecture.source
    assert (f"{architecture}.rope.freq_base", "a constant of the implementation") in found.ignored
    assert cm.load(tmp_path / "Tiny-1B.gguf") == found.architecture
    assert parse(as_toml(found.architecture), "x.toml") == found.architecture


@pytest.mark.parametrize("name", MODELS)
def test_its_size_is_ours(name: str, tmp_path: Path) -> None:
    """Vectors and routers in F32, the rest in F16. Off by computed tensors, and by others that are not in their usual format."""
    architecture, keys, shapes, _ = MODELS[name]
    found = import_config(write(tmp_path / "x.gguf", architecture, keys, shapes))
    assert found.stored is not None
    assert found.precision is not None
    assert found.stored.precision == found.precision
    assert (found.precision.weights, found.precision.embeddings) == ("fp16", "fp16")
    off = sum(4 * shape[0] for tensor, shape in shapes.items() if tensor.startswith("rope_"))
    if any("eh_proj" in tensor for tensor in shapes):
        assert found.precision.others == "fp16"
        off += sum(2 * int(np.prod(shape)) for tensor, shape in shapes.items() if len(shape) == 1 or "ffn_gate_inp" in tensor)
    else:
        assert found.precision.others == "fp32"
    assert found.stored.published - found.stored.variants[found.stored.best] == off


QUANTIZED = {
    "q8_0": (Form.Q8_0, "q8_0"), "q6_K": (Form.Q6_K, "q6_K"), "q5_K": (Form.Q5_K, "q5_K"), "q4_K": (Form.Q4_K, "q4_K"),
    "bf16": (Form.BF16, "bf16"), "f32": (Form.F32, "fp32"), "q4_0": (Form.Q4_0, Fraction(18, 32)),
    "q3_K": (Form.Q3_K, Fraction(110, 256)),
}  # fmt: skip


@pytest.mark.parametrize("name", QUANTIZED)
def test_formats_come_from_the_tensors(name: str, tmp_path: Path) -> None:
    form, ours = QUANTIZED[name]
    architecture, keys, shapes, _ = MODELS["qwen3moe"]
    found = import_config(
        write(tmp_path / "x.gguf", architecture, keys, shapes, {"exps": form, "attn": form, "token": form, "output": form})
    )
    assert found.precision == cm.Precision(weights=ours, experts=ours, embeddings=ours, others="fp32")
    assert found.stored is not None
    assert found.stored.difference == 0
    assert found.remarks == ()
    assert found.architecture.weight_bytes(precision=found.precision) == found.stored.published


def test_mxfp4_is_for_experts(tmp_path: Path) -> None:
    architecture, keys, shapes, _ = MODELS["gpt-oss"]
    found = import_config(write(tmp_path / "x.gguf", architecture, keys, shapes, {"exps": Form.MXFP4, "attn": Form.MXFP4}))
    assert found.precision is not None
    assert (found.precision.experts, found.precision.weights) == ("mxfp4", Fraction(17, 32))


def test_mixed_formats_of_a_role_are_remarked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    architecture, keys, shapes, _ = MODELS["llama"]
    forms = {"attn_v": Form.Q6_K, "ffn_down": Form.Q6_K, "blk": Form.Q4_K, "token": Form.Q4_K, "output": Form.Q6_K}
    path = write(tmp_path / "x.gguf", architecture, keys, shapes, forms)
    found = import_config(path)
    assert found.precision is not None
    assert found.precision.weights == "q4_K"
    assert len(found.remarks) == 2
    assert "weights are stored in several formats (Q4_K 72%, Q6_K 28%)" in found.remarks[0]
    with pytest.raises(SystemExit) as ended:
        main(["import", str(path)])
    told = capsys.readouterr()
    assert ended.value.code == 0
    assert "Size of the checkpoint, from x.gguf" in told.out
    assert found.remarks[0] in told.err
    assert "beyond 0.1%" in told.err


WRONG: dict[str, tuple[str, dict[str, Any], dict[str, tuple[int, ...] | None], tuple[str, ...]]] = {
    "architecture": ("bert", {}, {}, ("'bert'", "known: llama")),
    "near": ("qwen", {}, {}, ("'qwen'", "did you mean qwen")),
    "key": ("qwen3", {"attention.indexer.top_k": 2048}, {}, ("'qwen3.attention.indexer.top_k'", "could carry a cost")),
    "adapter": ("llama", {"general.type": "adapter"}, {}, ("general.type 'adapter'",)),
    "rope": ("llama", {"rope.dimension_count": 32}, {}, ("rope.dimension_count 32", "64")),
    "values": ("llama", {"attention.value_length": 32}, {}, ("attention.value_length 32",)),
    "tensor more": ("llama", {}, {"blk.0.attn_gate.weight": (8, WIDTH)}, ("elements", "not modelled")),
    "tensor less": ("llama", {}, {"blk.1.attn_q.weight": None}, ("elements", "not modelled")),
    "per layer": ("llama", {"feed_forward_length": [FF, 2 * FF]}, {}, ("feed_forward_length got a list",)),
    "heads": ("llama", {"attention.head_count": 0}, {}, ("attention.head_count got 0",)),
    "depth": ("llama", {"block_count": "two"}, {}, ("block_count got 'two'",)),
    "missing": ("llama", {"context_length": None}, {}, ("context_length got None",)),
    "no table": ("llama", {}, {"token_embd.weight": None}, ("token_embd.weight is missing",)),
    "part": ("llama", {"split.count": 3}, {}, ("one of 3 files", "merge")),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_modelled_is_refused(name: str, tmp_path: Path) -> None:
    architecture, keys, changes, parts = WRONG[name]
    shapes = {tensor: shape for tensor, shape in (MODELS["llama"][2] | changes).items() if shape is not None}
    with pytest.raises(cm.CostModelError) as raised:
        cm.load(write(tmp_path / "x.gguf", architecture, keys, shapes))
    one_line(str(raised.value), "x.gguf", *parts)


def one_line(line: str, *parts: str) -> None:
    assert line.isprintable()
    assert line.isascii()
    assert len(line) < 400
    for part in parts:
        assert part in line


def damaged(whole: bytes) -> Iterator[tuple[str, bytes]]:
    yield from {
        "empty": b"",
        "zeros": b"\0" * 10_000,
        "text": b"hello",
        "json": b"{}",
        "magic": b"GGUF",
        "huge": b"GGUF" + b"\xff" * 500,
    }.items()
    yield "many keys", whole[:16] + (1 << 60).to_bytes(8, "little") + whole[24:]
    yield "many tensors", whole[:8] + (1 << 60).to_bytes(8, "little") + whole[16:]
    yield "version", whole[:4] + (99).to_bytes(4, "little") + whole[8:]
    for length in (20, 100, 700, len(whole) // 2, len(whole) - 1_000):
        yield f"cut at {length}", whole[:length]


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    architecture, keys, shapes, _ = MODELS["llama"]
    whole = write(tmp_path / "whole.gguf", architecture, keys, shapes).read_bytes()
    for _, data in damaged(whole):
        (tmp_path / "x.gguf").write_bytes(data)
        with pytest.raises(cm.CostModelError) as raised:
            cm.load(tmp_path / "x.gguf")
        one_line(str(raised.value), "x.gguf", "no valid GGUF file")


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.gguf").mkdir()
    for path, part in (
        (tmp_path / "none.gguf", "no file"), (tmp_path / "folder.gguf", "folder"),
        (tmp_path / ("x" * 300 + ".gguf"), "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(cm.CostModelError) as raised:
            cm.load(path)
        one_line(str(raised.value), part)


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.gguf", *MODELS["llama"][:3])
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(cm.CostModelError) as raised:
        cm.load(path)
    one_line(str(raised.value), "pip install 'costmodel[gguf]'")
