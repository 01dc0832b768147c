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
    from costmodel.bounds import Bound, ExpertLimit, bound, expert_parallel_limit, freed_tokens, pass_bound, prefill_per_decode
    from costmodel.calibration.own import calibrate
    from costmodel.catalog import accelerator, accelerators, load, presets
    from costmodel.comparison import compare, diff
    from costmodel.crossings import crossover, largest
    from costmodel.designing.designs import Design, Designs
    from costmodel.designing.search import design
    from costmodel.errors import CostModelError, UnsupportedArchitecture
    from costmodel.families import family
    from costmodel.footprint import DeviceMemory, device_memory
    from costmodel.formula import Formula
    from costmodel.generation import Diffusion, Recursion
    from costmodel.hardware import Accelerator
    from costmodel.layers import LayerGroup
    from costmodel.memory import Capacity, capacity
    from costmodel.parallelism import Parallel
    from costmodel.planning.candidates import Limits
    from costmodel.planning.plans import Plan, plan
    from costmodel.reporting import Report, report
    from costmodel.serving.engines import Speculation, Traffic
    from costmodel.serving.lengths import Lengths
    from costmodel.serving.services import Service, serve
    from costmodel.sweeping.sweeps import SweepResult, sweep
    from costmodel.timing.estimating import Estimate, estimate, time_pass
    from costmodel.towers import Projector, VisionTower
    from costmodel.training.runs import Training, TrainingMemory, train
    from costmodel.validation import Validation, validate
    from costmodel.workload import Precision

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
    "bounds": ("Bound", "ExpertLimit", "bound", "expert_parallel_limit", "freed_tokens", "pass_bound", "prefill_per_decode"),
    "calibration.own": ("calibrate",),
    "catalog": ("accelerator", "accelerators", "load", "presets"),
    "comparison": ("compare", "diff"),
    "crossings": ("crossover", "largest"),
    "designing.search": ("design",),
    "designing.designs": ("Design", "Designs"),
    "errors": ("CostModelError", "UnsupportedArchitecture"),
    "families": ("family",),
    "formula": ("Formula",),
    "generation": ("Diffusion", "Recursion"),
    "hardware": ("Accelerator",),
    "layers": ("LayerGroup",),
    "serving.lengths": ("Lengths",),
    "memory": ("Capacity", "capacity"),
    "reporting": ("Report", "report"),
    "sweeping.sweeps": ("SweepResult", "sweep"),
    "timing.estimating": ("Estimate", "estimate", "time_pass"),
    "footprint": ("DeviceMemory", "device_memory"),
    "planning.candidates": ("Limits",),
    "parallelism": ("Parallel",),
    "planning.plans": ("Plan", "plan"),
    "serving.engines": ("Speculation", "Traffic"),
    "serving.services": ("Service", "serve"),
    "training.runs": ("Training", "TrainingMemory", "train"),
    "towers": ("Projector", "VisionTower"),
    "validation": ("Validation", "validate"),
    "workload": ("Precision",),
}
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
    "Bound",
    "Capacity",
    "CostModelError",
    "Design",
    "Designs",
    "DeviceMemory",
    "Diffusion",
    "Estimate",
    "ExpertLimit",
    "Formula",
    "GatedDeltaNet",
    "LayerGroup",
    "Lengths",
    "LightningAttention",
    "Limits",
    "Mamba",
    "Mamba2",
    "MoE",
    "MultiTokenPrediction",
    "Norm",
    "Parallel",
    "ParallelHybrid",
    "Plan",
    "Precision",
    "Projector",
    "RWKVChannelMix",
    "Recursion",
    "Reference",
    "Report",
    "Service",
    "SharedTransformer",
    "ShortConv",
    "Speculation",
    "SweepResult",
    "TokenMixing",
    "Traffic",
    "Training",
    "TrainingMemory",
    "UnsupportedArchitecture",
    "Validation",
    "VisionTower",
    "accelerator",
    "accelerators",
    "bound",
    "calibrate",
    "capacity",
    "compare",
    "crossover",
    "design",
    "device_memory",
    "diff",
    "estimate",
    "expert_parallel_limit",
    "family",
    "freed_tokens",
    "largest",
    "load",
    "pass_bound",
    "plan",
    "prefill_per_decode",
    "presets",
    "report",
    "serve",
    "sweep",
    "time_pass",
    "train",
    "validate",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'costmodel' has no attribute {name!r}")
    value = getattr(import_module(f"costmodel.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
