"""costmodel: what an LLM architecture costs, derived and explained.

Everything public is here; modules load when first used, so that `import costmodel` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel.architecture import Architecture, MultiTokenPrediction, Reference
    from costmodel.blocks import (
        DSA,
        GQA,
        KDA,
        MLA,
        MLP,
        MLSTM,
        RWKV7,
        GatedDeltaNet,
        LightningAttention,
        Mamba,
        Mamba2,
        MoE,
        Norm,
        ParallelHybrid,
        RWKVChannelMix,
        SharedTransformer,
        ShortConv,
        TokenMixing,
    )
    from costmodel.bounds import Bound, bound, freed_tokens, pass_bound, prefill_per_decode
    from costmodel.catalog import accelerator, accelerators, load, presets
    from costmodel.comparison import compare, diff
    from costmodel.crossings import crossover, largest
    from costmodel.errors import CostModelError, UnsupportedArchitecture
    from costmodel.estimating import Estimate, estimate, time_pass
    from costmodel.families import family
    from costmodel.footprint import DeviceMemory, device_memory
    from costmodel.formula import Formula
    from costmodel.generation import Diffusion, Recursion
    from costmodel.hardware import Accelerator
    from costmodel.layers import LayerGroup
    from costmodel.lengths import Lengths
    from costmodel.memory import Capacity, capacity
    from costmodel.parallelism import Parallel
    from costmodel.reporting import report
    from costmodel.towers import Projector, VisionTower
    from costmodel.workload import Precision

    from costmodel.training import Training, TrainingMemory, train
_HOME = {
    "architecture": ("Architecture", "MultiTokenPrediction", "Reference"),
    "blocks": (
        "DSA",
        "GQA",
        "GatedDeltaNet",
        "KDA",
        "LightningAttention",
        "MLA",
        "MLP",
        "MLSTM",
        "Mamba",
        "Mamba2",
        "MoE",
        "Norm",
        "ParallelHybrid",
        "RWKV7",
        "RWKVChannelMix",
        "SharedTransformer",
        "ShortConv",
        "TokenMixing",
    ),
    "calibration.own": ("calibrate",),
    "catalog": ("accelerator", "accelerators", "load", "presets"),
    "bounds": ("Bound", "bound", "freed_tokens", "pass_bound", "prefill_per_decode"),
    "comparison": ("compare", "diff"),
    "crossings": ("crossover", "largest"),
    "errors": ("CostModelError", "UnsupportedArchitecture"),
    "families": ("family",),
    "formula": ("Formula",),
    "generation": ("Diffusion", "Recursion"),
    "hardware": ("Accelerator",),
    "layers": ("LayerGroup",),
    "lengths": ("Lengths",),
    "memory": ("Capacity", "capacity"),
    "reporting": ("report",),
    "estimating": ("Estimate", "estimate", "time_pass"),
    "footprint": ("DeviceMemory", "device_memory"),
    "parallelism": ("Parallel",),
    "towers": ("Projector", "VisionTower"),
    "validation": ("Validation", "validate"),
    "workload": ("Precision",),
}
    "training": ("Training", "TrainingMemory", "train"),
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__version__ = "0.1.0"

__all__ = [
    "DSA",
    "GQA",
    "KDA",
    "MLA",
    "MLP",
    "MLSTM",
    "RWKV7",
    "Accelerator",
    "Architecture",
    "Capacity",
    "CostModelError",
    "DeviceMemory",
    "Diffusion",
    "Bound",
    "Estimate",
    "Formula",
    "GatedDeltaNet",
    "LayerGroup",
    "Lengths",
    "LightningAttention",
    "Mamba",
    "Mamba2",
    "MoE",
    "MultiTokenPrediction",
    "Norm",
    "Parallel",
    "ParallelHybrid",
    "Precision",
    "Projector",
    "RWKVChannelMix",
    "Recursion",
    "Reference",
    "SharedTransformer",
    "ShortConv",
    "TokenMixing",
    "UnsupportedArchitecture",
    "Validation",
    "VisionTower",
    "accelerator",
    "accelerators",
    "Training",
    "TrainingMemory",
    "calibrate",
    "capacity",
    "compare",
    "crossover",
    "device_memory",
    "bound",
    "diff",
    "estimate",
    "family",
    "largest",
    "load",
    "presets",
    "report",
    "time_pass",
    "freed_tokens",
    "validate",
]  # fmt: skip
    "pass_bound",
    "prefill_per_decode",


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
    "train",
        raise AttributeError(f"module 'costmodel' has no attribute {name!r}")
    value = getattr(import_module(f"costmodel.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
