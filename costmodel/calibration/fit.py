"""Fits a kernel class to measured points, in log space, and says how far off it is on points it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.calibration.points import folds
from costmodel.errors import CostModelError
from costmodel.kernels import PARAMETERS, KernelClass, Peaks

Array = NDArray[np.float64]
LEVEL = 0.9
"""Share of unseen points that an interval is meant to hold."""
LENGTHS = (0.4, 0.6, 0.9, 1.3, 2.0, 3.0, 5.0)
NOISES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
MIN_POINTS = 8


@dataclass(frozen=True)
class Scores:
    """How far predictions lie from measurements: absolute error as a fraction, and the mean signed one of logarithms."""

    n: int
    median: float
    p90: float
    bias: float
    coverage: float | None = None

    @classmethod
    def of(cls, predicted: Array, measured: Array, inside: NDArray[np.bool_] | None = None) -> Scores:
        """Scores of predictions beside measurements, and the share that lies inside its interval.

        >>> Scores.of(np.array([1.1, 2.0]), np.array([1.0, 2.0])).p90
        0.09
        """
        error, signed = np.abs(predicted / measured - 1), np.log(predicted / measured)
        held = None if inside is None else round(float(inside.mean()), 6)
        figures = [round(float(figure), 6) for figure in (np.median(error), np.quantile(error, 0.9), signed.mean())]
        return cls(len(measured), *figures, held)


@dataclass(frozen=True, eq=False)
class Smooth:
    """A Gaussian process on the log residual: what the form leaves, learned over distances in log shape."""

    centre: Array
    scale: Array
    points: Array
    residual: Array
    length: float
    noise: float

    def __post_init__(self) -> None:
        inverse = np.linalg.inv(self._kernel(self.points) + self.noise * np.eye(len(self.points)))
        object.__setattr__(self, "_inverse", inverse)
        object.__setattr__(self, "_weights", inverse @ self.residual)

    _inverse: Any = None
    _weights: Any = None

    def _kernel(self, at: Array) -> Array:
        return np.exp(-((at[:, None] - self.points[None]) ** 2).sum(axis=-1) / (2 * self.length**2))  # type: ignore[no-any-return]

    @property
    def variance(self) -> float:
        """Variance of the process, by maximum likelihood."""
        return max(float(self.residual @ self._weights) / len(self.residual), 1e-6)

    @property
    def likelihood(self) -> float:
        """Log marginal likelihood, but for a constant."""
        return 0.5 * (float(np.linalg.slogdet(self._inverse)[1]) - len(self.residual) * float(np.log(self.variance)))

    def at(self, features: Array) -> tuple[Array, Array]:
        """The expected residual and its standard deviation, for rows of features."""
        parts = [self._block(features[start : start + 2_000]) for start in range(0, len(features), 2_000)]
        return np.concatenate([mean for mean, _ in parts]), np.concatenate([deviation for _, deviation in parts])

    def _block(self, features: Array) -> tuple[Array, Array]:
        near = self._kernel((features - self.centre) / self.scale)
        left = 1 + self.noise - ((near @ self._inverse) * near).sum(axis=1)
        return near @ self._weights, np.sqrt(self.variance * np.maximum(left, 1e-6))


def smoothed(features: Array, residual: Array) -> Smooth:
    """The process whose length and noise make the residuals likeliest, of a fixed grid."""
    spread = features.std(axis=0)
    centre, scale = features.mean(axis=0), np.where(spread > 0, spread, 1.0)
    points = (features - centre) / scale
    tried = [Smooth(centre, scale, points, residual, length, noise) for length in LENGTHS for noise in NOISES]
    return max(tried, key=lambda process: process.likelihood)


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted class: parameters, those that stopped at a bound, and what cross-validation says of it.

    `width` is how many of its own deviations the interval takes: the quantile that held 90 % of the left-out points.
    """

    kernel: KernelClass
    peaks: Peaks
    parameters: Mapping[str, float]
    at_bound: tuple[str, ...]
    deviation: float
    smooth: Smooth | None = None
    width: float = 1.645
    scores: Scores | None = None

    def predict(self, shape: Mapping[str, Array]) -> tuple[Array, Array]:
        """Seconds, and the factor that the interval reaches up and down: [seconds / factor, seconds * factor]."""
        seconds = self.kernel.seconds(shape, self.peaks, self.parameters)
        if self.smooth is None:
            return seconds, np.full(seconds.shape, np.exp(self.width * self.deviation))
        mean, deviation = self.smooth.at(self.kernel.distances(shape))
        return seconds * np.exp(mean), np.exp(self.width * deviation)

    def score(self, shape: Mapping[str, Array], measured: Array) -> Scores:
        """How far off it is on points it has not seen."""
        seconds, factor = self.predict(shape)
        return Scores.of(seconds, measured, np.abs(np.log(seconds / measured)) <= np.log(factor))


def fit(kernel: KernelClass, shape: Mapping[str, Array], seconds: Array, peaks: Peaks, extra: tuple[str, ...] = ()) -> Fit:
    """Fits a class to points: `shape` has an array for each of its sizes, `extra` names parameters beside its own.

    The process on the residual is kept only where it lowers the cross-validated error. Raises CostModelError for fewer
    than eight points.
    """
    if len(seconds) < MIN_POINTS:
        raise CostModelError(f"{len(seconds)} points are too few to fit {kernel.name}; give at least {MIN_POINTS}")
    names = (*kernel.parameters, *extra)
    candidates = [_validated(kernel, shape, seconds, peaks, names, smooth) for smooth in (False, True)]
    return min(candidates, key=lambda pair: pair[1])[0]


def _validated(
    kernel: KernelClass, shape: Mapping[str, Array], seconds: Array, peaks: Peaks, names: tuple[str, ...], smooth: bool
) -> tuple[Fit, float]:
    """A fit to all points with the scores of its folds, and its mean error there."""
    predicted, deviation = np.empty(len(seconds)), np.empty(len(seconds))
    for hand in folds(len(seconds)):
        kept = np.setdiff1d(np.arange(len(seconds)), hand)
        part = _fitted(kernel, _rows(shape, kept), seconds[kept], peaks, names, smooth)
        predicted[hand], factor = part.predict(_rows(shape, hand))
        deviation[hand] = np.log(factor) / part.width
    left = np.abs(np.log(predicted / seconds))
    rank = min(len(left), int(np.ceil(LEVEL * (len(left) + 1)))) - 1
    width = float(np.sort(left / deviation)[rank])
    whole = _fitted(kernel, shape, seconds, peaks, names, smooth)
    return replace(whole, width=width, scores=Scores.of(predicted, seconds, left <= width * deviation)), float(left.mean())


def _rows(shape: Mapping[str, Array], rows: NDArray[np.int64]) -> dict[str, Array]:
    return {name: values[rows] for name, values in shape.items()}


def _fitted(
    kernel: KernelClass, shape: Mapping[str, Array], seconds: Array, peaks: Peaks, names: tuple[str, ...], smooth: bool
) -> Fit:
    parameters, at_bound = _least_squares(kernel, shape, seconds, peaks, names)
    residual = np.log(seconds / kernel.seconds(shape, peaks, parameters))
    found = Fit(kernel, peaks, parameters, at_bound, max(float(residual.std()), 0.01))
    return replace(found, smooth=smoothed(kernel.distances(shape), residual)) if smooth else found


def _least_squares(
    kernel: KernelClass, shape: Mapping[str, Array], seconds: Array, peaks: Peaks, names: tuple[str, ...]
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Robust least squares on the logarithm of predicted over measured, with a weak pull to where it starts."""
    from scipy.optimize import least_squares

    start, low, high = (np.log([getattr(PARAMETERS[name], side) for name in names]) for side in ("start", "low", "high"))
    measured, pull = np.log(seconds), 0.6 / (high - low)

    def off(values: Array) -> Array:
        predicted = kernel.seconds(shape, peaks, dict(zip(names, np.exp(values), strict=True)))
        return np.concatenate([np.log(predicted) - measured, (values - start) * pull])

    starts = (start, 0.7 * start + 0.3 * low, 0.7 * start + 0.3 * high)
    tried = [least_squares(off, first, bounds=(low, high), loss="soft_l1", f_scale=0.1) for first in starts]
    best = min(tried, key=lambda result: result.cost).x
    stuck = tuple(
        name for name, value, a, b in zip(names, best, low, high, strict=True) if min(value - a, b - value) < 1e-3 * (b - a)
    )
    return {name: float(np.exp(value)) for name, value in zip(names, best, strict=True)}, stuck
