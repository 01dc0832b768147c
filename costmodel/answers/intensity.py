"""Passes on a roofline: how much work each byte brings, and what rate that leaves, beside kernels that were measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from costmodel.architecture import Architecture
from costmodel.calibration.report import class_name, point_rows
from costmodel.calibration.store import read_calibration
from costmodel.catalog import accelerator, calibration_file, calibrations
from costmodel.footprint import tensor_parallel
from costmodel.scenario import Scenario
from costmodel.timing.estimating import sweep_batches

BATCHES = tuple(1 << power for power in range(10))
"""Sequences decoded together: 1 to 512."""
MEASURED = ("gemm", "prefill_attention", "decode_attention", "mla_decode", "moe")
"""Classes whose points stand beside the passes."""


def pass_rows(models: Sequence[Architecture], scenario: Scenario) -> list[dict[str, Any]]:
    """The prefill of one sequence, and decode steps of 1 to 512, each a row: FLOPs, bytes and rates of one of the devices.

    All devices share each layer. Raises CostModelError for an accelerator without links where there are several.
    """
    return [row for model in models for row in _passes(model, scenario)]


def _passes(model: Architecture, scenario: Scenario) -> Iterator[dict[str, Any]]:
    layout = tensor_parallel(model, scenario.devices)
    for name, batches, tokens in (("prefill", (1,), scenario.context), ("decode", BATCHES, 1)):
        found = sweep_batches(
            model, scenario.accelerator, batches, tokens, scenario.context, scenario.weights, scenario.cache, layout
        )
        for batch, seconds, flops, moved in zip(batches, found.seconds, found.flops, found.bytes, strict=True):
            yield {
                "model": model.name, "title": model.title, "phase": name, "batch": batch, "tokens": tokens,
                "context": scenario.context, "seconds": float(seconds), "flops": float(flops), "bytes": float(moved),
                "flops_per_byte": float(flops / moved), "flops_per_s": float(flops / seconds),
                "state": "calibrated" if found.calibrated else "datasheet", "formats": found.dtypes,
            }  # fmt: skip


def measured_rows(scenario: Scenario) -> list[dict[str, Any]]:
    """Kernels that were measured on the accelerator, where its calibration is shipped: work a byte, and the rate reached."""
    if scenario.accelerator not in calibrations():
        return []
    device, stored = accelerator(scenario.accelerator), read_calibration(calibration_file(scenario.accelerator))
    return [
        {
            **row, "kernels": class_name(measured), "flops_per_byte": row["flops"] / row["bytes"],
            "flops_per_s": row["flops"] / row["measured_s"],
        }
        for measured in stored.classes
        if measured.kernel in MEASURED
        for row in point_rows(stored, class_name(measured), device)
    ]  # fmt: skip
