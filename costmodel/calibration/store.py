"""A calibration as a file: fitted parameters beside the points they were fitted to, with where those come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError, model_validator

from costmodel.calibration.fit import Fit, Scores, Smooth
from costmodel.calibration.tables import TableFit
from costmodel.errors import CostModelError, shown
from costmodel.hardware import Accelerator
from costmodel.kernels import CLASSES, PARAMETERS, Peaks, kernel_class
from costmodel.workload import Checked, Name, Text, one_line

VERSION = 1
MAX_BYTES = 1 << 24
CALIBRATED = 0.35
"""A class is called calibrated where its p90 error on points not fitted is below this; else it is a datasheet's guess."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Sizes = Annotated[tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...], Field(min_length=1, max_length=10_000)]


class ClassScores(Checked):
    """Absolute error as a fraction (median, 90th percentile), bias in log, and the share of points inside the interval."""

    n: Annotated[int, Field(ge=1)]
    median: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    p90: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    bias: Annotated[float, Field(allow_inf_nan=False)]
    coverage: Annotated[float, Field(ge=0, le=1)] | None = None

    @classmethod
    def of(cls, scores: Scores) -> ClassScores:
        """The same figures, as they are stored."""
        return cls(**vars(scores))


class CalibratedClass(Checked):
    """One class of kernels on one device: its parameters, the points behind them, and its errors.

    `held_out` scores points that were not fitted, `regimes` the same apart by what bounds them, `roofline` the pure roofline
    on them, `cross_validated` the fitted points left out in turn. `length` and `noise` are those of the process on the
    residual, where it helped.
    """

    kernel: str
    dtype: str
    parameters: dict[str, Positive]
    at_bound: tuple[str, ...] = ()
    spread: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    length: Positive | None = None
    noise: Positive | None = None
    points: dict[str, Sizes]
    seconds: Sizes
    cross_validated: ClassScores
    held_out: ClassScores
    roofline: ClassScores
    regimes: dict[str, ClassScores] = Field(default_factory=dict)
    dropped: dict[str, int] = Field(default_factory=dict)
    seed: int = 0
    source: Text
    check_points: dict[str, Sizes] | None = None
    check_seconds: Sizes | None = None
    """The points that were not fitted, where they may be shipped."""

    @model_validator(mode="after")
    def _whole(self) -> CalibratedClass:
        kernel = CLASSES.get(self.kernel)
        if kernel is None:
            raise ValueError(f"no kernel class {shown(self.kernel)}; known: {', '.join(CLASSES)}")
        if set(self.points) != set(kernel.sizes) or any(len(sizes) != len(self.seconds) for sizes in self.points.values()):
            raise ValueError(f"points of {self.kernel} need one number of each of {', '.join(kernel.sizes)} for each time")
        if not set(kernel.parameters) <= set(self.parameters) <= set(PARAMETERS):
            raise ValueError(f"parameters of {self.kernel} are {', '.join(kernel.parameters)}")
        return self

    @property
    def state(self) -> str:
        """`calibrated` where nine in ten predictions are within 35 %, else `datasheet`."""
        return "calibrated" if self.held_out.p90 < CALIBRATED else "datasheet"

    def fit(self, device: Accelerator) -> Fit:
        """The fit, ready to predict."""
        kernel, peaks = kernel_class(self.kernel), Peaks.of(device, self.dtype)
        shape = {size: np.array(self.points[size], dtype=np.float64) for size in kernel.sizes}
        features, smooth = kernel.distances(shape), None
        if self.length is not None and self.noise is not None:
            residual = np.log(np.array(self.seconds) / kernel.seconds(shape, peaks, self.parameters))
            scale = features.std(axis=0)
            scale, centre = np.where(scale > 0, scale, 1.0), features.mean(axis=0)
            smooth = Smooth(centre, scale, (features - centre) / scale, residual, self.length, self.noise)
        lowest, highest = features.min(axis=0), features.max(axis=0)
        return Fit(kernel, peaks, self.parameters, self.at_bound, lowest, highest, smooth, self.spread)


class Machine(Checked):
    """What was measured by costmodel itself: the device, what ran on it, and how steady it was.

    `canary_s` are the fastest and slowest times of one product of 512 x 512 matrices, taken all along; `noisy` where they
    differ more than 1.5 times.
    """

    device: Text
    threads: Annotated[int, Field(ge=0)]
    torch: Text
    python: Text
    system: Text
    statistic: Text
    rounds: Annotated[int, Field(ge=0)]
    canary_s: tuple[Positive, Positive]
    noisy: bool
    date: Text


class Calibration(Checked):
    """Everything measured of one device: a class of kernels each. `machine` is there where costmodel measured it itself."""

    version: int = VERSION
    name: Name
    accelerator: Name
    classes: Annotated[tuple[CalibratedClass, ...], Field(min_length=1)]
    notes: tuple[Text, ...] = ()
    machine: Machine | None = None

    def fit(self, kernel: str, dtype: str, device: Accelerator) -> Fit:
        """The fit of a class. Raises CostModelError for another device, or a class or dtype that was not measured."""
        if device.name != self.accelerator:
            raise CostModelError(f"calibration {self.name} was measured on {self.accelerator}, not on {device.name}")
        for measured in self.classes:
            if (measured.kernel, measured.dtype) == (kernel, dtype):
                return measured.fit(device)
        known = ", ".join(f"{measured.kernel} {measured.dtype}" for measured in self.classes)
        raise CostModelError(f"calibration {self.name} has no {kernel} in {dtype}; it has {known}")


def calibrated_class(found: TableFit, dtype: str, seed: int, source: str, checks: bool = False) -> CalibratedClass:
    """A fitted table as it is stored, with the points that were not fitted where `checks` says so."""
    assert found.fit.scores is not None
    smooth, chosen = found.fit.smooth, found.chosen
    others = np.setdiff1d(np.arange(len(found.measured.seconds)), chosen)
    return CalibratedClass(
        kernel=found.fit.kernel.name,
        dtype=dtype,
        parameters={name: _short(value) for name, value in found.fit.parameters.items()},
        at_bound=found.fit.at_bound,
        spread=_short(found.fit.spread),
        length=smooth.length if smooth else None,
        noise=smooth.noise if smooth else None,
        points={size: tuple(values[chosen].tolist()) for size, values in found.measured.shape.items()},
        seconds=tuple(_short(value) for value in found.measured.seconds[chosen]),
        cross_validated=ClassScores.of(found.fit.scores),
        held_out=ClassScores.of(found.scores),
        roofline=ClassScores.of(found.roofline),
        regimes={bound: ClassScores.of(scores) for bound, scores in found.regimes.items()},
        dropped=dict(found.measured.dropped),
        seed=seed,
        source=source,
        check_points={size: tuple(values[others].tolist()) for size, values in found.measured.shape.items()} if checks else None,
        check_seconds=tuple(_short(value) for value in found.measured.seconds[others]) if checks else None,
    )


def _short(value: float) -> float:
    """Six digits: what the last bits of another machine's arithmetic do not reach."""
    return float(f"{value:.6g}")


def as_json(calibration: Calibration) -> str:
    """The file: equal calibrations give equal bytes."""
    return json.dumps(calibration.model_dump(mode="json", exclude_none=True), indent=1, ensure_ascii=False) + "\n"


def read_calibration(path: Path) -> Calibration:
    """A calibration from its file. Raises CostModelError for one that is truncated, of another version, or impossible."""
    where = shown(str(path))
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CostModelError(f"{where} is larger than {MAX_BYTES >> 20} MiB")
        return calibration_of(path.read_bytes(), where)
    except OSError as error:
        raise CostModelError(f"{where} cannot be read: {error.strerror}") from None


def calibration_of(content: bytes, where: str) -> Calibration:
    """A calibration from a file's bytes; errors name it as `where`."""
    try:
        data: Any = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CostModelError(f"{where} is no whole JSON file: {error}") from None
    if not isinstance(data, Mapping):
        raise CostModelError(f"{where} is no calibration; make one with `costmodel calibrate`")
    if data.get("version") != VERSION:
        raise CostModelError(f"{where} has version {shown(data.get('version'))}, not {VERSION}; calibrate again")
    try:
        return Calibration.model_validate(data)
    except ValidationError as error:
        raise CostModelError(one_line(error, Calibration, f"{where.strip(chr(39))}: ")) from None
