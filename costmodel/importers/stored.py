"""The size that a checkpoint states of itself, against the weights we count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sympy import Integer

from costmodel.architecture import Architecture
from costmodel.errors import CostModelError, shown
from costmodel.workload import Precision

INDEX = "model.safetensors.index.json"
MAX_INDEX_BYTES = 1 << 26
MAX_STORED_BYTES = 10**18
TOLERANCE = 0.001
"""Relative difference that needs no explanation: routers and biases of some checkpoints are fp32 where we count bf16."""
PLAIN = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
OWN = "the weights counted here"
DRAFTS = "with multi-token prediction"
COPIES = "with multi-token prediction and its copies of token table and head"
TWICE = "with the tied token table stored again as the head"


@dataclass(frozen=True)
class StoredSize:
    """`published` bytes of a checkpoint's tensors, said by `source`, and `variants` of what may be in it, with our bytes.

    No variants where the storage format is not modelled; `precision` is that of ours otherwise.

    >>> stored = StoredSize("model.safetensors.index.json", 1_000, Precision(), {OWN: 1_500})
    >>> stored.best, stored.difference
    ('the weights counted here', 0.5)
    """

    source: str
    published: int
    precision: Precision | None
    variants: Mapping[str, int]

    @property
    def best(self) -> str:
        """The variant that comes nearest."""
        return min(self.variants, key=lambda name: abs(self.variants[name] - self.published))

    @property
    def difference(self) -> float:
        """Ours against the published size, relative, at its best."""
        return self.off(self.best)

    def off(self, variant: str) -> float:
        """Ours against the published size, relative, in one variant."""
        return self.variants[variant] / self.published - 1

    @property
    def remark(self) -> str:
        """What a reader should know where the sizes do not meet, else nothing."""
        if not self.variants:
            return f"{self.source}: {self.published:,} bytes; their storage format is not modelled, so they are not compared"
        if abs(self.difference) <= TOLERANCE:
            return ""
        return (
            f"{self.source}: {self.published:,} bytes; ours, {self.best}, are {self.variants[self.best]:,} "
            f"({self.difference:+.2%}, beyond {TOLERANCE:.1%}): the checkpoint may hold tensors twice or in other formats, "
            "or is not of this config"
        )


def total_size(index: Mapping[str, Any], where: str) -> int:
    """Bytes of all tensors, from an index of safetensors files.

    >>> total_size({"metadata": {"total_size": 64}, "weight_map": {}}, INDEX)
    64
    """
    metadata = index.get("metadata")
    value = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(value, float) and value.is_integer():  # as some versions of the library wrote it
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_STORED_BYTES:
        raise CostModelError(
            f"{where}: metadata.total_size got {shown(value)}; give the bytes of all tensors, a whole number above 0"
        )
    return value


def stored_as(config: Mapping[str, Any], quantized: Precision | None) -> Precision | None:
    """The precision that a checkpoint of this config is stored in: bf16 unless it says otherwise; None where it is not modelled.

    >>> stored_as({"torch_dtype": "float32"}, None).weights
    'fp32'
    """
    if config.get("quantization_config") is not None:
        return quantized
    text = config.get("text_config")
    stated = [place.get(name) for place in (config, text) if isinstance(place, dict) for name in ("dtype", "torch_dtype")]
    name = next((one for one in stated if one is not None), "bfloat16")
    form = PLAIN.get(name.removeprefix("torch.")) if isinstance(name, str) else None
    return None if form is None else Precision(weights=form, experts=form, embeddings=form, others=form)


def compared(architecture: Architecture, published: int, precision: Precision | None, source: str) -> StoredSize:
    """A checkpoint's size beside ours, with and without what checkpoints hold beyond the model's own tensors."""
    if precision is None:
        return StoredSize(source, published, None, {})
    table = int(precision.matrix("embeddings").bytes(Integer(architecture.hidden_size), Integer(architecture.vocab_size)))
    own = architecture.weight_bytes(precision=precision)
    variants = {OWN: own}
    modules = architecture.mtp.modules if architecture.mtp else 0
    if modules:
        variants[DRAFTS] = architecture.weight_bytes(precision=precision, mtp=modules)
        variants[COPIES] = variants[DRAFTS] + 2 * modules * table
    if architecture.tie_word_embeddings:
        variants[TWICE] = own + table
    return StoredSize(source, published, precision, variants)
