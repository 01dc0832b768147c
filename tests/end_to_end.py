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
LOSS = "soft_l1"
ONE_PASS = 16_384
"""Tokens of all prompts beyond which the first token waits for several passes."""
LAUNCH_S, MESSAGE_BYTES, SEQUENCE_S = 30e-6, 64 * 2**20, 1e-4
"""Where the fit begins."""


@dataclass(frozen=True)
class EndToEnd:
    """One figure on one device: three numbers of the server fitted to six points, all others scored."""

    device: str
    figure: str
    launch_s: float
    device_factor: float
    message_bytes: float
    sequence_s: float
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
        tokens = {"ttft_s": batch * prompt, "tpot_s": batch}
        for figure, timed, theirs in (("ttft_s", found.prefill, row["prompt_time"]), ("tpot_s", found.decode, row["token_time"])):
            if batch * prompt <= ONE_PASS or figure == "tpot_s":
                yield {
                    "figure": figure,
                    "shape": np.log2([tp, prompt, batch]),
                    "ours": timed.device_s,
                    "collectives": sum(op["seconds"] for op in timed.ops if op["kind"] == "collective"),
                    "batch": batch,
                    "message": tokens[figure] * model.hidden_size * 2,
                    "kernels": sum(op["calls"] for op in found.decode.ops),
                    "theirs": float(theirs) / 1e3,
                }


def scored(folder: Path) -> Iterator[EndToEnd]:
    """Both figures on both devices."""
    for hardware, device in DEVICES.items():
        points = list(_points(folder / "splitwise" / "llama2-70b_perf_model.csv", hardware))
        for figure in ("tpot_s", "ttft_s"):
            yield _scored(device, figure, [point for point in points if point["figure"] == figure])


def _scored(device: str, figure: str, points: list[dict[str, Any]]) -> EndToEnd:
    names = "ours", "collectives", "message", "kernels", "batch", "theirs"
    columns = [np.array([point[name] for point in points], dtype=float) for name in names]
    ours, collectives, message, kernels, batch, theirs = columns
    chosen = choose(np.stack([point["shape"] for point in points]), FITTED)
    start = np.log([1.0, LAUNCH_S, SEQUENCE_S if figure == "tpot_s" else MESSAGE_BYTES])

    def predicted(logs: Any, rows: Any) -> Any:
        factor, launch, third = np.exp(logs)
        if figure == "tpot_s":
            return pnorm(factor * ours[rows], launch * kernels[rows] + third * batch[rows], 4.0)
        return pnorm(factor * (ours[rows] + collectives[rows] * message[rows] / third), launch * kernels[rows], 4.0)

    def off(logs: Any) -> Any:
        return np.concatenate([np.log(predicted(logs, chosen) / theirs[chosen]), 0.1 * (logs - start)])

    best = least_squares(off, start, loss=LOSS, f_scale=0.1).x
    others = np.setdiff1d(np.arange(len(points)), chosen)
    factor, launch, third = (float(value) for value in np.exp(best))
    slow, each = (0.0, third) if figure == "tpot_s" else (third, 0.0)
    return EndToEnd(device, figure, launch, factor, slow, each, Scores.of(predicted(best, others), theirs[others]))


def main(folder: str) -> None:
    """Prints the table of docs/accuracy.md."""
    for found in scored(Path(folder)):
        third = (
            f"{found.sequence_s * 1e6:.0f} us a sequence"
            if found.figure == "tpot_s"
            else f"all-reduces take twice their time at {found.message_bytes / 2**20:.0f} MiB"
        )
        sys.stdout.write(
            f"{found.device} {found.figure} {found.scores.median:.1%} / {found.scores.p90:.1%} of {found.scores.n}; "
            f"{found.launch_s * 1e6:.1f} us a kernel, factor {found.device_factor:.2f}, {third}\n"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
