"""Every preset at full size against the reference implementation, built from the published config on the meta device.

There tensors have shapes but no memory, so the largest models are counted like the smallest.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import costmodel as cm

from .real_modules import as_counted, as_implemented, build, expected_cache, expected_flops, measured, run, trained

torch = pytest.importorskip("torch")
flop_counter = pytest.importorskip("torch.utils.flop_counter")
pytest.importorskip("transformers")

pytestmark = pytest.mark.torch

CONFIGS = sorted((Path(__file__).parent / "configs").glob("*.json"))
TOWER = ("vision_tower.", "multi_modal_projector.", "model.visual.", "vision_model.")
BATCH, BEYOND, PROMPT = 2, 404, 4500
"""A prompt goes so far beyond the widest window or pick of a model, at most to here; models that end earlier get their longest."""
REACH = re.compile(r'"(?:sliding_window|attention_chunk_size|index_topk)":(\d+)')
STEPS = 70
"""Tokens of a prompt where the implementation scans them one by one: Mamba's first form, which has no window."""

each_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


@cache
def reference(path: Path) -> Any:
    """The class that a published config names, built from it."""
    config = json.loads(path.read_text())
    with torch.device("meta"):
        return build(config["architectures"][0], config)


def ours_as_implemented(path: Path) -> cm.Architecture:
    """Our preset, built as the class is where that is a stand-in which differs."""
    return as_implemented(json.loads(path.read_text())["architectures"][0], cm.load(path.stem))


def elements(model: Any, *within: str) -> int:
    """Elements of the trained tensors whose names hold one of `within`, or of all."""
    return sum(tensor.numel() for name, tensor in trained(model).items() if not within or any(part in name for part in within))


def active(model: Any) -> int:
    """Elements used for one token of text: k of E routed experts, no tower, and no input table unless it is the head."""
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    used = elements(model) - elements(model, *TOWER) - (0 if table is head else table.numel())
    routed = [tensor for name, tensor in trained(model).items() if ".experts." in name]  # [E, ...] each
    text = getattr(model.config, "get_text_config", lambda: model.config)()
    each = getattr(text, "num_experts_per_tok", None) or getattr(text, "moe_topk", 0)
    return used - sum(tensor.numel() - each * tensor[0].numel() for tensor in routed)


@each_config
def test_a_preset_has_the_parameters_of_the_reference_implementation(path: Path) -> None:
    model, ours = reference(path), ours_as_implemented(path).params
    counted = {
        "total": elements(model),
        "active": active(model),
        "embedding": model.get_input_embeddings().weight.numel(),
        "routed_experts": elements(model, ".experts."),
        "vision": elements(model, *TOWER),
    }
    assert {name: getattr(ours, name) for name in counted} == counted


@each_config
def test_a_preset_has_its_cache_and_flops_in_prefill_and_decode(path: Path) -> None:
    model, ours = reference(path), ours_as_implemented(path)
    reach = max(map(int, REACH.findall(ours.model_dump_json())), default=0)
    longest = min((ours.max_position_embeddings or PROMPT + 1) - 1, reach + BEYOND)
    if any(group.mixer is not None and group.mixer.kind == "mamba" for group in ours.layers):
        longest = STEPS
    kept, context = None, 0
    for new in (min(PROMPT, longest), 1):
        context += new
        ids = torch.zeros(BATCH, new, dtype=torch.long, device="meta")
        flops, kept = run(model, ours, input_ids=ids, past_key_values=kept)
        kept_elements, kept_bytes = measured(kept, ours)
        assert kept_elements == expected_cache(ours, BATCH, context, in_bytes=False)
        assert kept_bytes == expected_cache(ours, BATCH, context, in_bytes=True)
        assert flops == expected_flops(as_counted(type(model).__name__, ours), BATCH, new, context)


def test_hunyuan_large_shares_keys_and_values_which_its_stand_in_does_not() -> None:
    """In half of 64 layers: two matrices of 6400 x 8 x 80 each, and half the cache."""
    path = next(path for path in CONFIGS if path.stem == "hunyuan-large")
    model, ours = reference(path), cm.load("hunyuan-large")
    assert elements(model) - ours.params.total == 32 * 2 * 6400 * 8 * 80 == 262_144_000
    _, kept = run(model, ours, input_ids=torch.zeros(1, 50, dtype=torch.long, device="meta"))
    assert 2 * ours.cache_bytes(context=50) == sum(measured(kept, ours)[1].values())


FIXED_IMAGES = [path for path in CONFIGS if "image_size" in json.loads(path.read_text()).get("vision_config", {})]
"""Towers for images of any size read numbers, which tensors without memory do not have: a small real one stands elsewhere."""


@pytest.mark.parametrize("path", FIXED_IMAGES, ids=lambda path: path.stem)
def test_a_tower_has_its_flops(path: Path) -> None:
    """Alone: the model around it looks into the tokens for the places of images, which tensors without memory do not have."""
    model, ours = reference(path), ours_as_implemented(path)
    size = model.config.vision_config.image_size
    with flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
        pixels = torch.empty(BATCH, 3, size, size, dtype=torch.bfloat16, device="meta")
        if hasattr(model, "vision_model"):  # there the projector is the model's own
            model.multi_modal_projector(model.vision_model(pixels).last_hidden_state)
        else:
            model.model.get_image_features(pixels)
    words = ours.flops(batch=BATCH, new_tokens=300, context=300)
    assert counter.get_total_flops() == ours.flops(batch=BATCH, new_tokens=300, context=300, images=1) - words
