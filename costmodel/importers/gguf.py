"""GGUF files: their metadata as the config that the same model has on Hugging Face, their tensors as formats and a size.

The config is read like any other, and the tensors must have exactly as many elements as the architecture it describes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from costmodel.architecture import Architecture
from costmodel.errors import CostModelError, UnsupportedArchitecture, did_you_mean, excerpt, shown
from costmodel.importers import Imported, read_fields
from costmodel.importers.stored import compared
from costmodel.workload import Precision

MISSING = "reading GGUF files needs the package gguf, which is not installed; run: pip install 'costmodel[gguf]'"
FORMS = {
    "F32": "fp32", "F16": "fp16", "BF16": "bf16", "Q8_0": "q8_0", "Q6_K": "q6_K", "Q5_K": "q5_K", "Q4_K": "q4_K", "NVFP4": "nvfp4",
    "MXFP4": "mxfp4",
}  # fmt: skip
"""GGUF's tensor types in our words; any other is counted by the bytes of its blocks."""
TABLES = ("token_embd.weight", "output.weight")
COPIED = (".nextn.embed_tokens.weight", ".nextn.shared_head_head.weight")
EXPERTS = re.compile(r"\.ffn_(gate|up|down|gate_up)(_exps|\.\d+)\.weight$")
MATRICES = re.compile(r"\.(attn|ffn)_(?!.*norm|gate_inp|sinks)[a-z_]+\.weight$")
CONSTANTS = re.compile(r"rope_|.*attn_rot_embd")
"""Tensors that are computed, not trained."""
COSTLESS = re.compile(
    r"rope\.(freq_base|scaling\.|.*_swa$)|attention\.(layer_norm|scale$)|vocab_size$|expert_(weights|gating_func|group)|swiglu_clamp"
)
"""Keys of an architecture that carry no cost."""


@dataclass(frozen=True)
class Tensor:
    """One tensor: its type by GGUF's name, its elements, and its bytes."""

    name: str
    form: str
    elements: int
    bytes: int

    @property
    def role(self) -> str:
        """Which of our precision's roles it has."""
        if self.name in TABLES or self.name.endswith(COPIED):
            return "embeddings"
        return "experts" if EXPERTS.search(self.name) else "weights" if MATRICES.search(self.name) else "others"


@dataclass(frozen=True)
class File:
    """Keys and tensors of one file; a key of its architecture that is asked for is noted in `used`."""

    where: str
    keys: Mapping[str, Any]
    tensors: Sequence[Tensor]
    used: set[str] = field(default_factory=set)

    @property
    def architecture(self) -> str:
        """What `general.architecture` says."""
        return str(self.keys.get("general.architecture", ""))

    def value(self, key: str) -> Any:
        """A key of its architecture, None where it is missing; a list of equal values, one a layer, is their value."""
        self.used.add(key)
        value = self.keys.get(f"{self.architecture}.{key}")
        if isinstance(value, list) and len(set(map(repr, value))) == 1:
            return value[0]
        return value

    def size(self, key: str, otherwise: int | None = None) -> int:
        """A whole number above 0, or what stands for a missing one."""
        value = self.value(key)
        value = otherwise if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CostModelError(f"{self.where}: {self.architecture}.{key} got {shown(value)}; give a whole number above 0")
        return value

    def optional(self, key: str) -> int | None:
        """A whole number above 0; None where it is missing or 0."""
        return None if self.value(key) in (None, 0) else self.size(key)

    def has(self, tensor: str) -> bool:
        """Whether any layer has a tensor of this name."""
        return any(one.name.endswith(f".{tensor}") for one in self.tensors)


def read_gguf(path: Path) -> Imported:
    """The architecture, the formats and the size that a GGUF file states.

    Raises UnsupportedArchitecture for an architecture, a key or tensors that are not modelled, CostModelError for what is no
    such file, and where the package gguf is missing.
    """
    file = _opened(path)
    recipe = ARCHITECTURES.get(file.architecture)
    if recipe is None:
        hint = did_you_mean(file.architecture, ARCHITECTURES)
        raise UnsupportedArchitecture(f"{file.where}: no GGUF architecture {shown(file.architecture)} is read; {hint}")
    config = recipe(file)
    ignored = _left(file)
    found = read_fields(config, path.name, file.where, f"GGUF metadata ({file.architecture})")
    _check_elements(file, found.architecture)
    precision, mixed = _formats(file.tensors)
    total = sum(tensor.bytes for tensor in file.tensors)
    stored = compared(found.architecture, total, precision, file.where)
    return replace(found, ignored=found.ignored + ignored, precision=precision, stored=stored, remarks=mixed)


# the file


def _opened(path: Path) -> File:
    where = shown(path.name)[1:-1]
    try:
        from gguf import GGUFReader
        from numpy import memmap, ndarray
    except ImportError:
        raise CostModelError(MISSING) from None

    class Bounded(GGUFReader):
        """Reads no further than the file goes: a hostile length would have it loop for ever.

        A plain view of the mapped file is sliced three times as fast as the map itself, and a vocabulary is many slices.
        """

        def _get(self, offset: int, dtype: Any, count: Any = 1, *others: Any, **named: Any) -> Any:
            if isinstance(self.data, memmap):
                self.data = self.data.view(ndarray)  # type: ignore[assignment]
            part = super()._get(offset, dtype, count, *others, **named)
            if len(part) < count:
                raise ValueError("it ends in the middle")
            return part

    try:
        reader = Bounded(path)
        keys = {name: one.contents() for name, one in reader.fields.items() if not name.startswith("tokenizer.")}
        tensors = tuple(Tensor(one.name, one.tensor_type.name, one.n_elements, one.n_bytes) for one in reader.tensors)
    except OSError as error:
        raise CostModelError(f"{where} cannot be read: {error.strerror or excerpt(str(error))}") from None
    except Exception as error:  # foreign bytes in a foreign reader: whatever it stumbles over
        raise CostModelError(f"{where} is no valid GGUF file: {excerpt(str(error))}") from None
    return _whole(File(where, keys, tensors))


def _whole(file: File) -> File:
    """A model in one file: not a part of one, nor what is added to one."""
    parts, kind = file.keys.get("split.count") or 1, file.keys.get("general.type") or "model"
    if parts != 1:
        raise CostModelError(f"{file.where} is one of {shown(parts)} files; merge them first (llama-gguf-split --merge)")
    if kind != "model":
        raise UnsupportedArchitecture(f"{file.where}: general.type {shown(kind)} is not modelled; only 'model' is")
    return file


def _left(file: File) -> tuple[tuple[str, str], ...]:
    """Keys of the architecture that nothing asked for, and why they may be; one that could carry a cost is refused."""
    prefix = f"{file.architecture}."
    told = []
    for key in (name.removeprefix(prefix) for name in file.keys if name.startswith(prefix)):
        if key in file.used:
            continue
        if not COSTLESS.match(key):
            raise UnsupportedArchitecture(
                f"{file.where}: key {shown(prefix + key)} is not known for this architecture, and could carry a cost; "
                "write the architecture as TOML (see `costmodel schema`)"
            )
        told.append((prefix + key, "a constant of the implementation"))
    return tuple(told)


def _check_elements(file: File, model: Architecture) -> None:
    """The tensors are those of the architecture, with or without the modules of multi-token prediction and their copied tables."""
    held = sum(tensor.elements for tensor in file.tensors if not CONSTANTS.match(tensor.name))
    params, modules = model.params, model.mtp.modules if model.mtp else 0
    drafts = params.total + params.mtp
    if held not in (params.total, drafts, drafts + 2 * modules * params.embedding):
        raise UnsupportedArchitecture(
            f"{file.where}: its tensors have {held:,} elements, but its keys describe a model of {params.total:,}; "
            "something in it is not modelled"
        )


def _formats(tensors: Sequence[Tensor]) -> tuple[Precision, tuple[str, ...]]:
    """The format that most elements of each role have, and what to say where a role has several."""
    roles, remarks = {}, []
    for role in ("weights", "experts", "embeddings", "others"):
        held: Counter[str] = Counter()
        for tensor in tensors:
            if tensor.role == role:
                held[tensor.form] += tensor.elements
        if not held:
            continue
        most = held.most_common(1)[0][0]
        roles[role] = _format(role, next(tensor for tensor in tensors if tensor.role == role and tensor.form == most))
        if len(held) > 1:
            shares = ", ".join(f"{form} {share / held.total():.0%}" for form, share in held.most_common())
            remarks.append(f"{role} are stored in several formats ({shares}); {most} stands for all")
    return Precision(**roles), tuple(remarks)


def _format(role: str, tensor: Tensor) -> str | Fraction:
    """Our name of a tensor's type where the role can have it, else its bytes an element."""
    known = FORMS.get(tensor.form)
    return known if known and (known != "mxfp4" or role == "experts") else Fraction(tensor.bytes, tensor.elements)


# architectures: keys and tensors as a config


def _common(file: File) -> dict[str, Any]:
    table = next((tensor for tensor in file.tensors if tensor.name == TABLES[0]), None)
    width = file.size("embedding_length")
    if table is None or table.elements % width:
        raise CostModelError(f"{file.where}: {TABLES[0]} is missing, or has no rows of {width:,}; give the GGUF file of a model")
    return {
        "hidden_size": width,
        "vocab_size": table.elements // width,
        "num_hidden_layers": file.size("block_count"),
        "num_attention_heads": file.size("attention.head_count"),
        "max_position_embeddings": file.size("context_length"),
        "tie_word_embeddings": not any(tensor.name == TABLES[1] for tensor in file.tensors),
    }


def _with_heads(file: File, *, partial: bool = False) -> dict[str, Any]:
    """What models with grouped-query attention have in common; `partial` where rope may turn a share of a head."""
    config = _common(file)
    heads, width = config["num_attention_heads"], config["hidden_size"]
    head = file.size("attention.key_length", width // heads)
    for key in ("attention.value_length", *(() if partial else ("rope.dimension_count",))):
        if file.size(key, head) != head:
            raise UnsupportedArchitecture(
                f"{file.where}: {file.architecture}.{key} {file.value(key)} is not modelled; only {head}, a head's width, is"
            )
    return config | {"num_key_value_heads": file.size("attention.head_count_kv", heads), "head_dim": head}


def _dense(file: File) -> dict[str, Any]:
    return _with_heads(file) | {"intermediate_size": file.size("feed_forward_length")}


def _routed(file: File) -> dict[str, Any]:
    file.used.add("feed_forward_length")  # of dense layers, where no recipe asks for it
    return {
        "num_local_experts": file.size("expert_count"),
        "num_experts_per_tok": file.size("expert_used_count"),
        "moe_intermediate_size": file.size("expert_feed_forward_length"),
    }


def _llama(file: File) -> dict[str, Any]:
    config, window = _dense(file), file.optional("attention.sliding_window")
    file.used.add("expert_used_count")
    if file.optional("expert_count"):
        experts = {"num_local_experts": file.size("expert_count"), "num_experts_per_tok": file.size("expert_used_count")}
        return config | experts | {"model_type": "mixtral", "sliding_window": window}
    if window:
        return config | {"model_type": "mistral", "sliding_window": window}
    return config | {"model_type": "llama", "attention_bias": file.has("attn_q.bias"), "mlp_bias": file.has("ffn_up.bias")}


def _qwen2(file: File) -> dict[str, Any]:
    return _dense(file) | {"model_type": "qwen2"}


def _qwen2_moe(file: File) -> dict[str, Any]:
    shared = {"shared_expert_intermediate_size": file.size("expert_shared_feed_forward_length")}
    return _with_heads(file) | _routed(file) | shared | {"model_type": "qwen2_moe", "qkv_bias": file.has("attn_q.bias")}


def _qwen3(file: File) -> dict[str, Any]:
    return _dense(file) | {"model_type": "qwen3", "attention_bias": file.has("attn_q.bias")}


def _qwen3_moe(file: File) -> dict[str, Any]:
    return _with_heads(file) | _routed(file) | {"model_type": "qwen3_moe", "attention_bias": file.has("attn_q.bias")}


def _gemma3(file: File) -> dict[str, Any]:
    config = _dense(file) | {"model_type": "gemma3_text", "sliding_window": file.size("attention.sliding_window")}
    config |= {name: file.value(name) for name in ("attn_logit_softcapping", "final_logit_softcapping")}
    pattern = file.keys.get(f"{file.architecture}.attention.sliding_window_pattern")
    file.used.add("attention.sliding_window_pattern")
    if isinstance(pattern, list):
        return config | {"layer_types": ["sliding_attention" if slides else "full_attention" for slides in pattern]}
    return config if pattern is None else config | {"sliding_window_pattern": pattern}


def _gpt_oss(file: File) -> dict[str, Any]:
    config = _with_heads(file) | _routed(file)
    config["intermediate_size"] = config.pop("moe_intermediate_size")
    window = {"sliding_window": file.size("attention.sliding_window")}
    return config | window | {"model_type": "gpt_oss", "attention_bias": file.has("attn_q.bias")}


def _after_dense(file: File) -> dict[str, Any]:
    """Mixtures after some dense layers, with experts for every token."""
    return _routed(file) | {
        "intermediate_size": file.size("feed_forward_length"),
        "n_shared_experts": file.optional("expert_shared_count") or 0,
        "first_k_dense_replace": file.optional("leading_dense_block_count") or 0,
    }


def _deepseek2(file: File) -> dict[str, Any]:
    """DeepSeek-V2 and -V3: a router's correction bias tells them apart. Newer files state the widths of heads as `_mla`."""
    file.used.update(("attention.head_count_kv", "attention.key_length", "attention.value_length"))
    turned = file.size("rope.dimension_count")
    key = file.optional("attention.key_length_mla") or file.size("attention.key_length")
    latent = {
        "q_lora_rank": file.optional("attention.q_lora_rank"),
        "kv_lora_rank": file.size("attention.kv_lora_rank"),
        "qk_rope_head_dim": turned,
        "qk_nope_head_dim": key - turned,
        "v_head_dim": file.optional("attention.value_length_mla") or file.size("attention.value_length"),
    }
    third = file.has("exp_probs_b.bias") or file.has("exp_probs_b")
    kind = {"model_type": "deepseek_v3", "num_nextn_predict_layers": 0} if third else {"model_type": "deepseek_v2"}
    return _common(file) | _after_dense(file) | latent | kind


def _glm4_moe(file: File) -> dict[str, Any]:
    config, drafts = _with_heads(file, partial=True), file.optional("nextn_predict_layers") or 0
    share = file.size("rope.dimension_count", config["head_dim"]) / config["head_dim"]
    config["num_hidden_layers"] -= drafts
    return config | _after_dense(file) | {
        "model_type": "glm4_moe",
        "num_nextn_predict_layers": drafts,
        "partial_rotary_factor": share,
        "attention_bias": file.has("attn_q.bias"),
        "use_qk_norm": file.has("attn_q_norm.weight"),
    }  # fmt: skip


ARCHITECTURES: dict[str, Callable[[File], dict[str, Any]]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen2moe": _qwen2_moe,
    "qwen3": _qwen3,
    "qwen3moe": _qwen3_moe,
    "gemma3": _gemma3,
    "gpt-oss": _gpt_oss,
    "deepseek2": _deepseek2,
    "glm4moe": _glm4_moe,
}
"""How the keys of an architecture become the fields of a config."""
