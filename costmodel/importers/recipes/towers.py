"""How the towers beside language models are read."""

from __future__ import annotations

from costmodel.importers.fields import size
from costmodel.importers.recipes.base import OWN_HEADS, Tower, gqa, heads, mlp, shared_out

SIGLIP = Tower(
    {name: size(name) for name in ("image_size", "patch_size", "num_channels", "hidden_size", "num_hidden_layers")},
    gqa(rotary_dim=0, qkv_bias=True, o_bias=True), mlp(gated=False, bias=True),
    defaults={
        "num_channels": 3, "hidden_act": "gelu_pytorch_tanh", "head_dim": shared_out, "num_key_value_heads": heads,
        "vision_use_head": True,
    },
    only=OWN_HEADS | {"vision_use_head": (False,), "model_type": ("siglip_vision_model",)},
)  # fmt: skip
"""The tower of Gemma 3."""
