"""Every preset has exactly the parameters of the reference implementation, built from the published config without memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import costmodel as cm

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when transformers is imported: these tests never ask the network
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.torch

CONFIGS = sorted((Path(__file__).parent / "configs").glob("*.json"))
STORED_AS_BUFFER = ("e_score_correction_bias", "expert_bias")
"""A router's correction bias is trained and in the checkpoint; the implementation registers it as a buffer."""
TOWER = ("vision_tower.", "multi_modal_projector.")


def reference(path: Path) -> Any:
    """The class that a published config names, built from it on the meta device."""
    config = json.loads(path.read_text())
    model = getattr(transformers, config["architectures"][0])
    with torch.device("meta"):
        return model(model.config_class.from_dict(config))


def tensors(model: Any) -> dict[str, Any]:
    """Trained tensors by name, a tied one once."""
    biases = {name: buffer for name, buffer in model.named_buffers() if name.endswith(STORED_AS_BUFFER)}
    return {**dict(model.named_parameters()), **biases}


def elements(model: Any, *within: str) -> int:
    """Elements of the trained tensors whose names hold one of `within`, or of all."""
    return sum(tensor.numel() for name, tensor in tensors(model).items() if not within or any(part in name for part in within))


def active(model: Any) -> int:
    """Elements used for one token of text: k of E routed experts, no tower, and no input table unless it is the head."""
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    skipped = elements(model, *TOWER) + (0 if table is head else table.numel())
    routed = elements(model, ".experts.")
    if not routed:
        return elements(model) - skipped
    experts = {tensor.shape[0] for name, tensor in tensors(model).items() if ".experts." in name}
    used, rest = divmod(routed * model.config.num_experts_per_tok, experts.pop())
    assert not experts
    assert not rest
    return elements(model) - skipped - routed + used


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_preset_has_the_parameters_of_the_reference_implementation(path: Path) -> None:
    model, ours = reference(path), cm.load(path.stem).params
    measured = {
        "total": elements(model),
        "active": active(model),
        "embedding": model.get_input_embeddings().weight.numel(),
        "routed_experts": elements(model, ".experts."),
        "vision": elements(model, *TOWER),
    }
    assert {name: getattr(ours, name) for name in measured} == measured
