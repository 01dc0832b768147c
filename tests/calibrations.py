"""Makes the calibrations that are shipped from published kernel tables: `python -m tests.calibrations FOLDER` writes them.

The folder holds `aiconfigurator/` and `vidur/` with the tables that docs/calibration.md names; they themselves stay out.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import costmodel as cm
from costmodel.calibration.fit import Scores, fit, guessed
from costmodel.calibration.points import choose
from costmodel.calibration.store import Calibration, as_json, calibrated_class, read_calibration
from costmodel.calibration.tables import Measured, TableFit, fit_table, read_table
from costmodel.catalog import calibration_file
from costmodel.kernels import Peaks, kernel_class

SHIPPED = Path(__file__).parents[1] / "presets" / "calibrations"
AICONFIGURATOR = "ai-dynamo/aiconfigurator at 095f58a51c4ca8e61b66ec108d86f223f8d559ce, Apache-2.0"
VIDUR = "microsoft/vidur at 7d47513363ec447a741ac5e47241580b47724fbf, MIT"
NOTES = ("Published tables time a kernel over and over on the same buffers: what fits the cache is read from there.",)


@dataclass(frozen=True)
class Measurement:
    """One class on one device, and the table it is fitted to."""

    device: str
    dtype: str
    kernel: str
    table: str
    points: int = 40

    @property
    def source(self) -> str:
        """Who measured it."""
        return f"{self.table}, {AICONFIGURATOR if self.table.startswith('aiconfigurator') else VIDUR}"

    def read(self, folder: Path) -> Measured:
        """All its points."""
        with TemporaryDirectory() as scratch:
            path = _plain(folder / f"{self.table}.csv", self.kernel, Path(scratch) / "table.csv")
            return read_table(path, self.kernel, cm.accelerator(self.device), self.dtype, "ms")

    def fit(self, folder: Path, seed: int = 0, points: int | None = None) -> TableFit:
        """Its fit to chosen rows, and the scores of the others."""
        peaks = Peaks.of(cm.accelerator(self.device), self.dtype)
        return fit_table(self.read(folder), peaks, points or self.points, seed)


def _measurements() -> Iterator[Measurement]:
    for device, kind, version in (("a100-80gb", "a100_sxm", "vllm0.14.0"), ("h100-sxm", "h100_sxm", "vllm0.24.0")):
        gemm = f"gemm_{version}" if device == "a100-80gb" else f"gemm_bf16_{version}"
        for kernel, table in (
            ("gemm", gemm), ("prefill_attention", f"context_attention_{version}"),
            ("decode_attention", f"generation_attention_{version}"), ("moe", f"moe_bf16_{version}"), ("allreduce", "nccl2.27.3"),
        ):  # fmt: skip
            points = 60 if device == "a100-80gb" and "attention" in kernel else 40
            yield Measurement(device, "bf16", kernel, f"aiconfigurator/{kind}_{table}", points)
        for kernel in ("memory", "norm"):
            yield Measurement(device, "bf16", kernel, f"vidur/{kind[:4]}_Llama-2-70b-hf_mlp")
    yield Measurement("h100-sxm", "bf16", "mla_decode", "aiconfigurator/h100_sxm_generation_mla_trtllm1.3.0rc20")
    yield Measurement("h100-sxm", "fp8", "gemm", "aiconfigurator/h100_sxm_gemm_fp8_trtllm1.3.0rc20")


MEASUREMENTS = tuple(_measurements())
Elements = Callable[[Mapping[str, float]], float]
"""Elements that an op moves for a token."""
SMALL_OPS: dict[str, dict[str, Elements]] = {
    "norm": {
        "input_layernorm_ms": lambda row: 2 * row["n_embd"],
        "post_attention_layernorm_ms": lambda row: 2 * row["n_embd"],
    },
    "memory": {
        "mlp_act_ms": lambda row: 3 * row["n_expanded_embd"] / row["num_tensor_parallel_workers"],
    },
}


def _plain(path: Path, kernel: str, scratch: Path) -> Path:
    """The table as `read_table` takes it: two kinds of table hold several points a row, or leave sizes out."""
    rows = _latents if kernel == "mla_decode" else partial(_small_ops, SMALL_OPS[kernel]) if kernel in SMALL_OPS else None
    if rows is None:
        return path
    with path.open(newline="") as file, scratch.open("w", newline="") as out:
        made = list(rows(csv.DictReader(file)))
        writer = csv.DictWriter(out, list(made[0]))
        writer.writeheader()
        writer.writerows(made)
    return scratch


def _small_ops(ops: Mapping[str, Elements], rows: csv.DictReader[str]) -> Iterator[dict[str, float]]:
    for row in rows:
        numbers = {name: float(text) for name, text in row.items() if text.replace(".", "").isdigit()}
        for column, elements in ops.items():
            yield {"bytes": 2 * numbers["num_tokens"] * elements(numbers), "latency": numbers[column]}


def _latents(rows: csv.DictReader[str]) -> Iterator[dict[str, str]]:
    """num_heads there is one device's."""
    for row in rows:
        kept = {name: row[name] for name in ("batch_size", "isl", "step", "num_heads", "latency")}
        yield {**kept, "latent": "512", "rope": "64"}


def shipped(device: str, folder: Path) -> Calibration:
    """A device's calibration."""
    mine = [measurement for measurement in MEASUREMENTS if measurement.device == device]
    classes = tuple(calibrated_class(wanted.fit(folder), wanted.dtype, 0, wanted.source) for wanted in mine)
    return Calibration(name=device, accelerator=device, classes=classes, notes=NOTES)


def unseen_models(folder: Path) -> Iterator[tuple[str, int, Scores]]:
    """Products of Llama-2 7B and 70B: half of all weights (n, k) fitted, at 40 points; the other half scored. Both ways round."""
    for kind, device in (("a100", "a100-80gb"), ("h100", "h100-sxm")):
        peaks, times = Peaks.of(cm.accelerator(device), "bf16"), _products(folder / "vidur", kind)
        points, seconds = np.array(list(times), dtype=float), np.array([float(np.median(each)) for each in times.values()])
        weights = sorted({(n, k) for _, n, k in times})
        for half in (0, 1):
            seen = np.array([place for place, (_, n, k) in enumerate(times) if weights.index((n, k)) % 2 == half])
            others = np.setdiff1d(np.arange(len(points)), seen)
            chosen = seen[choose(np.log2(points[seen]), 40)]
            shape = dict(zip("mnk", points.T, strict=True))
            found = fit(kernel_class("gemm"), {size: values[chosen] for size, values in shape.items()}, seconds[chosen], peaks)
            yield device, half, found.score({size: values[others] for size, values in shape.items()}, seconds[others])


def _products(folder: Path, kind: str) -> dict[tuple[int, int, int], list[float]]:
    """Seconds of each (m, n, k) of the two models' tables."""
    found: dict[tuple[int, int, int], list[float]] = {}
    for model in ("7b", "70b"):
        with (folder / f"{kind}_Llama-2-{model}-hf_mlp.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                names = ("n_embd", "n_expanded_embd", "n_head", "n_kv_head", "num_tokens", "num_tensor_parallel_workers")
                width, inner, heads, kv_heads, tokens, tp = (int(row[name]) for name in names)
                columns = (heads + 2 * max(kv_heads, tp)) * (width // heads) // tp
                for column, n, k in (
                    ("attn_pre_proj_ms", columns, width), ("attn_post_proj_ms", width, width // tp),
                    ("mlp_up_proj_ms", 2 * inner // tp, width), ("mlp_down_proj_ms", width, inner // tp),
                ):  # fmt: skip
                    found.setdefault((tokens, n, k), []).append(float(row[column]) / 1e3)
    return found


LENDERS = {"a100-80gb": "h100-sxm", "h100-sxm": "a100-80gb"}


def transferred(folder: Path) -> Iterator[tuple[Measurement, Scores]]:
    """Every point of a device by the fractions that were fitted on the other; coverage is of the guess's factor."""
    for wanted in MEASUREMENTS:
        lent = read_calibration(calibration_file(LENDERS[wanted.device])).classes
        match = [known for known in lent if (known.kernel, known.dtype) == (wanted.kernel, wanted.dtype)]
        if match:
            measured, peaks = wanted.read(folder), Peaks.of(cm.accelerator(wanted.device), wanted.dtype)
            yield wanted, guessed(measured.kernel, peaks, match[0].parameters).score(measured.shape, measured.seconds)


def main(folder: str, what: str = "write") -> None:
    """Writes every shipped calibration of a device that nobody here owns; `transfer` prints what the other's fractions say,
    `models` how products of models come out whose weights were not fitted.
    """
    if what == "models":
        for device, half, scores in unseen_models(Path(folder)):
            error = f"{scores.median:.1%} / {scores.p90:.1%} of {scores.n:,}, in the interval {scores.coverage:.1%}"
            sys.stdout.write(f"{device}, half {half}: {error}\n")
        return
    if what == "transfer":
        for wanted, scores in transferred(Path(folder)):
            error = (
                f"{scores.median:.0%} / {scores.p90:.0%}, bias {scores.bias:+.0%}, within 2x {scores.coverage:.0%} of {scores.n:,}"
            )
            sys.stdout.write(f"{wanted.device} {wanted.kernel}: {error}\n")
        return
    for device in dict.fromkeys(measurement.device for measurement in MEASUREMENTS):
        (SHIPPED / f"{device}.json").write_text(as_json(shipped(device, Path(folder))), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
