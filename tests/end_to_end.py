"""A whole model beside published times: `python -m tests.end_to_end FOLDER`, with `splitwise/llama2-70b_perf_model.csv` in it."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

import costmodel as cm
from costmodel.calibration.fit import Scores
from costmodel.calibration.points import choose
from costmodel.kernels import pnorm

DEVICES = {"a100-80gb": "a100-80gb", "h100-80gb": "h100-sxm"}
FITTED = 6
ONE_PASS = 16_384
"""Tokens of all prompts beyond which the first token waits for several passes."""
LAUNCH_S = 30e-6


@dataclass(frozen=True)
class EndToEnd:
    """One figure on one device: two numbers fitted to six points, all others scored."""

    device: str
    figure: str
    launch_s: float
    device_factor: float
    scores: Scores


def llama2() -> cm.Architecture:
    """Llama-2-70B: the layers of Llama 3.1 70B, another vocabulary."""
    return cm.load("llama-3.1-70b").model_copy(update={"vocab_size": 32_000})


def _points(path: Path, hardware: str) -> Iterator[dict[str, Any]]:
    model = llama2()
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["hardware"] == hardware]
    for row in rows:
        tp, prompt, batch, output = (int(row[name]) for name in ("tensor_parallel", "prompt_size", "batch_size", "token_size"))
        found = cm.estimate(model, DEVICES[hardware], tp, batch=batch, prompt=prompt, output=output)
        assert found.decode is not None
        shape = np.log2([tp, prompt, batch])
        kernels = sum(op["calls"] for op in found.decode.ops)
        if batch * prompt <= ONE_PASS:
            yield {
                "figure": "ttft_s",
                "shape": shape,
                "ours": found.ttft_s,
                "kernels": kernels,
                "theirs": float(row["prompt_time"]) / 1e3,
            }
        yield {
            "figure": "tpot_s",
            "shape": shape,
            "ours": found.tpot_s,
            "kernels": kernels,
            "theirs": float(row["token_time"]) / 1e3,
        }


def scored(folder: Path) -> Iterator[EndToEnd]:
    """Both figures on both devices."""
    for hardware, device in DEVICES.items():
        points = list(_points(folder / "splitwise" / "llama2-70b_perf_model.csv", hardware))
        for figure in ("tpot_s", "ttft_s"):
            yield _scored(device, figure, [point for point in points if point["figure"] == figure])


def _scored(device: str, figure: str, points: list[dict[str, Any]]) -> EndToEnd:
    ours, kernels, theirs = (np.array([point[name] for point in points], dtype=float) for name in ("ours", "kernels", "theirs"))
    chosen = choose(np.stack([point["shape"] for point in points]), FITTED)

    def predicted(logs: Any, rows: Any) -> Any:
        return pnorm(np.exp(logs[0]) * ours[rows], np.exp(logs[1]) * kernels[rows], 4.0)

    def off(logs: Any) -> Any:
        pull = 0.1 * np.array([logs[0], logs[1] - np.log(LAUNCH_S)])
        return np.concatenate([np.log(predicted(logs, chosen) / theirs[chosen]), pull])

    best = least_squares(off, [0.0, np.log(LAUNCH_S)], loss="soft_l1", f_scale=0.1).x
    others = np.setdiff1d(np.arange(len(points)), chosen)
    scores = Scores.of(predicted(best, others), theirs[others])
    return EndToEnd(device, figure, float(np.exp(best[1])), float(np.exp(best[0])), scores)


def main(folder: str) -> None:
    """Prints the table of docs/accuracy.md."""
    for found in scored(Path(folder)):
        fitted = f"{found.launch_s * 1e6:.1f} us a kernel, factor {found.device_factor:.2f}"
        sys.stdout.write(
            f"{found.device} {found.figure} {found.scores.median:.1%} / {found.scores.p90:.1%} of {found.scores.n}; {fitted}\n"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
