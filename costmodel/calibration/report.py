"""What `costmodel calibrate` does with a table, and the tables that show a calibration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from costmodel.calibration.store import CalibratedClass, Calibration, calibrated_class
from costmodel.calibration.tables import fit_table, read_table
from costmodel.errors import CostModelError, shown
from costmodel.hardware import Accelerator
from costmodel.kernels import PARAMETERS, Peaks, kernel_class
from costmodel.tables import Table

MAX_POINTS = 1_000


def fit_file(
    table: Path, kind: str, device: Accelerator, points: int = 40, seed: int = 0, dtype: str = "bf16", time_unit: str = "s",
    where: Iterable[str] = (), source: str = "",
) -> Calibration:  # fmt: skip
    """A calibration of one class, fitted to chosen rows of a measured table and scored on the others.

    Raises CostModelError for a table, a class, a device or a number that cannot be.
    """
    if not 8 <= points <= MAX_POINTS or seed < 0:
        raise CostModelError(f"--points {points} and --seed {seed}: give 8 to {MAX_POINTS:,} points and a seed of 0 or more")
    measured = read_table(table, kind, device, dtype, time_unit, dict(_pair(text) for text in where))
    found = fit_table(measured, Peaks.of(device, dtype), points, seed)
    name = re.sub(r"[^a-z0-9._-]+", "-", f"{device.name}-{kind}-{dtype}".lower())
    kept = calibrated_class(found, dtype, seed, source or f"fitted to {table.name}")
    return Calibration(name=name, accelerator=device.name, classes=(kept,))


def _pair(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not equals:
        raise CostModelError(f"--where got {shown(text)}; give COLUMN=TEXT")
    return column, value


def scores_tables(calibration: Calibration, kernels: str = "") -> list[Table]:
    """Errors of each class (or of one, as `gemm bf16`) beside the pure roofline's, and what was fitted."""
    classes = [measured for measured in calibration.classes if kernels in ("", class_name(measured))]
    return [_errors(calibration, classes), _parameters(classes)]


def summary_table(calibration: Calibration) -> Table:
    """A row a class: its errors on points that were not fitted, and the pure roofline's there."""
    rows = [
        {
            "kernels": class_name(measured), "n": scores.n, "median_error": scores.median, "p90_error": scores.p90,
            "bias": scores.bias, "inside_interval": scores.coverage, "roofline_median": measured.roofline.median,
            "roofline_p90": measured.roofline.p90, "state": measured.state,
        }
        for measured in calibration.classes
        for scores in [measured.held_out]
    ]  # fmt: skip
    shares = ("median_error", "p90_error", "bias", "inside_interval", "roofline_median", "roofline_p90")
    return Table("classes", f"All classes on {calibration.accelerator}, points not fitted", rows, dict.fromkeys(shares, "share"))


def _errors(calibration: Calibration, classes: Sequence[CalibratedClass]) -> Table:
    rows = [row for measured in classes for row in _class_rows(calibration, measured)]
    remarks = [
        f"{measured.kernel}: {count:,} rows dropped, {reason}" for measured in classes for reason, count in measured.dropped.items()
    ]
    remarks += [
        f"{measured.kernel}: {name} stopped at its bound: the data do not need it, or ask for a term that is missing"
        for measured in classes
        for name in measured.at_bound
    ]
    units = dict.fromkeys(("median_error", "p90_error", "bias", "inside_interval"), "share")
    return Table("errors", f"Errors on {calibration.accelerator}", rows, units, remarks=tuple(dict.fromkeys(remarks)))


def _class_rows(calibration: Calibration, measured: CalibratedClass) -> list[dict[str, Any]]:
    """Points that were not fitted, all and by what bounds them; those left out in turn; and the pure roofline's."""
    about = {"accelerator": calibration.accelerator, "kernel": measured.kernel, "dtype": measured.dtype}
    scored = {
        "not fitted": measured.held_out,
        **{f"not fitted, bound by {bound}": scores for bound, scores in measured.regimes.items() if len(measured.regimes) > 1},
        "cross-validated": measured.cross_validated,
        "pure roofline, not fitted": measured.roofline,
    }
    return [
        {
            **about, "points": name, "n": scores.n, "median_error": scores.median, "p90_error": scores.p90, "bias": scores.bias,
            "inside_interval": scores.coverage, "fitted": len(measured.seconds), "state": measured.state,
        }
        for name, scores in scored.items()
    ]  # fmt: skip


def _parameters(classes: Sequence[CalibratedClass]) -> Table:
    rows = [
        {"kernel": measured.kernel, "dtype": measured.dtype, "parameter": name, "value": value,
         "start": PARAMETERS[name].start, "low": PARAMETERS[name].low, "high": PARAMETERS[name].high,
         "at_bound": name in measured.at_bound, "meaning": PARAMETERS[name].meaning}
        for measured in classes
        for name, value in measured.parameters.items()
    ]  # fmt: skip
    titles = dict.fromkeys(kernel_class(measured.kernel).title for measured in classes)
    return Table("parameters", f"Fitted: {next(iter(titles))}" if len(titles) == 1 else "Fitted parameters", rows)


def point_rows(calibration: Calibration, kernels: str, device: Accelerator) -> list[dict[str, Any]]:
    """Every point that a class (`gemm bf16`) has: its shape, its seconds, and what the fit says of it."""
    measured = next(known for known in calibration.classes if class_name(known) == kernels)
    fit = measured.fit(device)
    rows = []
    for what, points, seconds in (
        ("fitted", measured.points, measured.seconds), ("not fitted", measured.check_points, measured.check_seconds)
    ):  # fmt: skip
        if points and seconds:
            shape, times = {size: np.array(points[size]) for size in measured.points}, np.array(seconds)
            work, predicted = fit.kernel.work(shape, fit.peaks), fit.predict(shape)
            bounds = fit.kernel.regimes(shape, fit.peaks, times)
            rows += [
                {
                    "points": what, **{size: float(values[place]) for size, values in shape.items()},
                    "measured_s": float(times[place]), "predicted_s": float(predicted[place]),
                    "error": float(predicted[place] / times[place] - 1), "bound_by": bounds[place],
                    "flops": float(work.flops[place]), "bytes": float(work.moved[place]),
                }
                for place in range(len(times))
            ]  # fmt: skip
    return rows


def class_name(measured: CalibratedClass) -> str:
    """What a class of a calibration is called: `gemm bf16`."""
    return f"{measured.kernel} {measured.dtype}"
