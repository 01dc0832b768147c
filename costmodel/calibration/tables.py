"""Measured tables of any maker: reads a CSV file, drops what cannot be, fits some rows and scores the others."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from costmodel.calibration.fit import MIN_POINTS, Fit, Scores, fit
from costmodel.calibration.points import choose, stood_for
from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.hardware import Accelerator
from costmodel.kernels import KernelClass, Peaks, kernel_class

Array = NDArray[np.float64]
TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
TIMES = ("seconds", "latency", "time", "all_reduce_ms")
"""Columns that may hold the time."""
OTHER_NAMES = {
    "batch": ("batch_size",),
    "tokens": ("isl", "num_tokens"),
    "heads": ("num_heads",),
    "kv_heads": ("num_key_value_heads",),
    "prefix": ("step",),
    "context": ("kv_length",),
    "hidden": ("hidden_size",),
    "inter": ("inter_size",),
    "experts": ("num_experts",),
    "tp": ("moe_tp_size",),
    "ep": ("moe_ep_size",),
    "ranks": ("num_gpus", "num_workers"),
    "bytes": ("size",),
}
"""What published tables call our columns."""
DEFAULTS = {"prefix": 0.0, "tp": 1.0, "ep": 1.0, "skew": 0.0}
"""Columns that may be left out."""
MAX_BYTES = 1 << 28
ELEMENT = {"half": 2, "bfloat16": 2, "float16": 2, "int8": 1, "fp8": 1, "float": 4, "float32": 4}


@dataclass(frozen=True, eq=False)
class Measured:
    """Points of one class: an array for each size, the seconds, and how many rows were dropped for what."""

    kernel: KernelClass
    shape: Mapping[str, Array]
    seconds: Array
    dropped: Mapping[str, int]


def read_table(
    path: Path, kind: str, device: Accelerator, dtype: str = "bf16", time_unit: str = "s", where: Mapping[str, str] | None = None
) -> Measured:
    """The points of a measured table (CSV, one row a point, a column for each size of the class and one of the time).

    Rows with a missing, negative or infinite number, and rows faster than memory allows for sets beyond twice the cache,
    are dropped and counted; rows of equal shape become one, with their median time. `where` keeps the rows whose
    columns have these texts. Raises CostModelError for a file that is no such table.
    """
    kernel, peaks = kernel_class(kind), Peaks.of(device, dtype)
    if time_unit not in TIME_UNITS:
        raise CostModelError(f"no time unit {shown(time_unit)}; {did_you_mean(time_unit, TIME_UNITS)}")
    header, rows = _read(path)
    rows = [row for row in rows if all(row.get(column) == text for column, text in _kept(header, where or {}).items())]
    if kind == "allreduce" and "op_name" in header:
        rows = [row for row in rows if row["op_name"] == "all_reduce"]
    readers = [*(_reader(kernel, size, header, path) for size in kernel.sizes), _timer(header, path, time_unit)]
    numbers = [tuple(read(row) for read in readers) for row in rows]
    dropped = Counter(complaint for row in numbers if (complaint := _complaint(row, kernel)))
    points = np.array([row for row in numbers if not _complaint(row, kernel)], dtype=np.float64).reshape(-1, len(readers))
    shape, seconds = dict(zip(kernel.sizes, points.T, strict=False)), points[:, -1]
    possible = _possible(kernel, shape, seconds, peaks)
    dropped["faster than memory"] = int((~possible).sum())
    if not possible.any():
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count) or "none, or none that is asked for"
        raise CostModelError(f"{shown(str(path))} has no row that can be used of {len(rows)} read: {reasons}")
    points, seconds = _merged(points[possible, :-1], seconds[possible])
    dropped["merged with an equal shape"] = int(possible.sum()) - len(seconds)
    return Measured(kernel, dict(zip(kernel.sizes, points.T, strict=True)), seconds, +dropped)


def _merged(points: Array, seconds: Array) -> tuple[Array, Array]:
    """Each shape once, in the order they came, with the median of its times: no shape is both fitted and scored."""
    import pandas as pd

    order = pd.DataFrame(points).groupby(list(range(points.shape[1])), sort=False)
    times = pd.Series(seconds).groupby(order.ngroup()).median()
    return points[order.head(1).index], np.asarray(times, dtype=np.float64)


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CostModelError(f"{shown(str(path))} is larger than {MAX_BYTES >> 20} MiB")
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            return list(lines.fieldnames or ()), list(lines)
    except OSError as error:
        raise CostModelError(f"{shown(str(path))} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise CostModelError(f"{shown(str(path))} is no CSV table: {error}") from None


def _kept(header: list[str], where: Mapping[str, str]) -> Mapping[str, str]:
    unknown = next((column for column in where if column not in header), None)
    if unknown is not None:
        raise CostModelError(f"the table has no column {shown(unknown)}; {did_you_mean(unknown, header)}")
    return where


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


Reader = Callable[[Mapping[str, str]], float]


def _reader(kernel: KernelClass, size: str, header: list[str], path: Path) -> Reader:
    """How one size is read from a row."""
    column = next((name for name in (size, *OTHER_NAMES.get(size, ())) if name in header), None)
    if size == "context" and column is None and {"isl", "step"} <= set(header):
        return lambda row: _number(row["isl"]) + _number(row["step"])
    if size == "bytes" and column is None and "message_size" in header:
        typed = next((name for name in header if name.endswith("_dtype")), "")
        return lambda row: _number(row["message_size"]) * ELEMENT.get(row.get(typed, ""), 1)
    if size == "skew" and column is None and "distribution" in header:
        return lambda row: _number(row["distribution"].rpartition("_")[2]) if "power_law" in row["distribution"] else 0.0
    if size == "kv_heads" and column == "num_key_value_heads":  # 0 there means as many as query heads
        return lambda row: _number(row[column]) or _number(row.get("heads", row.get("num_heads")))
    if column is None and size in DEFAULTS:
        return lambda row: DEFAULTS[size]
    if column is None:
        raise CostModelError(f"{shown(str(path))} has no column {size!r} (class {kernel.name} needs {', '.join(kernel.sizes)})")
    return lambda row: _number(row.get(column))


def _timer(header: list[str], path: Path, time_unit: str) -> Reader:
    column = next((name for name in TIMES if name in header), None)
    if column is None:
        raise CostModelError(f"{shown(str(path))} has no column of times; name it one of {', '.join(TIMES)}")
    scale = 1e-3 if column.endswith("_ms") else TIME_UNITS[time_unit]
    return lambda row: scale * _number(row.get(column))


def _complaint(row: tuple[float, ...], kernel: KernelClass) -> str:
    """What is wrong with a row of numbers, if anything."""
    if any(math.isnan(value) for value in row):
        return "missing or no number"
    if any(math.isinf(value) for value in row):
        return "infinite"
    may_be_zero = [size in ("prefix", "skew") for size in kernel.sizes] + [False]
    return "zero or negative" if any(v < 0 or (v == 0 and not z) for v, z in zip(row, may_be_zero, strict=True)) else ""


def _possible(kernel: KernelClass, shape: Mapping[str, Array], seconds: Array, peaks: Peaks) -> NDArray[np.bool_]:
    """Rows no faster than memory, where their data cannot have stayed in the cache."""
    moved = kernel.work(shape, peaks).moved
    rate, cached = (
        (peaks.link_bytes_per_s, 0.0) if kernel.name == "allreduce" else (peaks.memory_bytes_per_s, 2 * peaks.cache_bytes)
    )
    if rate <= 0:
        raise CostModelError("this accelerator has no link between devices; choose one that has link_bytes_per_s")
    return (seconds >= moved / rate) | (moved <= cached)


@dataclass(frozen=True, eq=False)
class TableFit:
    """A fit to chosen rows of a table, and its scores on all the others, beside those of the pure roofline."""

    fit: Fit
    measured: Measured
    chosen: NDArray[np.int64]
    scores: Scores
    roofline: Scores
    regimes: Mapping[str, Scores]
    """The same scores apart, for the points that compute, memory, latency or a link bounds."""


def fit_table(measured: Measured, peaks: Peaks, points: int = 40, seed: int = 0) -> TableFit:
    """Fits `points` rows, chosen by their shapes alone, and scores every other row."""
    kernel = measured.kernel
    chosen = choose(kernel.distances(measured.shape), points, seed)
    if len(chosen) == len(measured.seconds) >= MIN_POINTS:
        raise CostModelError(f"{len(chosen)} rows leave none to score; fit fewer than that with --points")
    extra = ("quantise",) if kernel.name == "gemm" and peaks.element_bytes == 1 else ()
    return fit_rows(measured, peaks, chosen, extra)


def fit_rows(measured: Measured, peaks: Peaks, chosen: NDArray[np.int64], extra: tuple[str, ...] = ()) -> TableFit:
    """Fits the chosen rows, and scores every other one."""
    kernel, others = measured.kernel, np.setdiff1d(np.arange(len(measured.seconds)), chosen)
    weights = stood_for(kernel.distances(measured.shape), chosen)
    found = fit(kernel, _at(measured, chosen), measured.seconds[chosen], peaks, extra, weights)
    shape, seconds = _at(measured, others), measured.seconds[others]
    pure = Scores.of(kernel.roofline(shape, peaks), seconds)
    bounds = np.array(kernel.regimes(shape, peaks, seconds))
    regimes = {
        bound: found.score({size: values[bounds == bound] for size, values in shape.items()}, seconds[bounds == bound])
        for bound in sorted(set(bounds.tolist()))
    }
    return TableFit(found, measured, chosen, found.score(shape, seconds), pure, regimes)


def _at(measured: Measured, rows: NDArray[np.int64]) -> dict[str, Array]:
    return {size: values[rows] for size, values in measured.shape.items()}
