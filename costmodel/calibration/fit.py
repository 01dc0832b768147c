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
GUESSED = 2.0
"""How far off a device is by another's fractions, as a factor: it held 88 to 100 % of a class (docs/accuracy.md)."""
DEALS = 10
"""Times the points are dealt into folds: 40 errors alone say little of a 90 % quantile."""


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
        return cls(len(measured), figures[0], figures[1], figures[2], held)


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
        ours, theirs = (at**2).sum(axis=1), (self.points**2).sum(axis=1)
        squares = np.maximum(ours[:, None] + theirs - 2 * at @ self.points.T, 0.0)
        return np.asarray(np.exp(squares / (-2 * self.length**2)))

    @property
    def likelihood(self) -> float:
        """Log marginal likelihood at the likeliest variance, but for a constant."""
        variance = max(float(self.residual @ self._weights) / len(self.residual), 1e-6)
        return 0.5 * (float(np.linalg.slogdet(self._inverse)[1]) - len(self.residual) * float(np.log(variance)))

    def at(self, features: Array) -> Array:
        """The expected residual, for rows of features in log space."""
        blocks = (features[start : start + 2_000] for start in range(0, len(features), 2_000))
        return np.concatenate([self._kernel((block - self.centre) / self.scale) @ self._weights for block in blocks])


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

    `spread` is the factor that held 90 % of the points left out in turn: measured times lie within
    [seconds / spread, seconds * spread]. `lowest` and `highest` bound the shapes that were measured, in log2 of each size.
    """

    kernel: KernelClass
    peaks: Peaks
    parameters: Mapping[str, float]
    at_bound: tuple[str, ...]
    lowest: Array
    highest: Array
    smooth: Smooth | None = None
    spread: float = 1.0
    scores: Scores | None = None

    def predict(self, shape: Mapping[str, Array]) -> Array:
        """Seconds of each shape."""
        seconds = self.kernel.seconds(shape, self.peaks, self.parameters)
        return seconds if self.smooth is None else seconds * np.exp(self.smooth.at(self.kernel.distances(shape)))

    def cold(self) -> Fit:
        """The same where nothing is in the cache from a call before, as in a model."""
        return replace(self, parameters={**self.parameters, "cache_gain": 1.0}) if "cache_gain" in self.parameters else self

    def beyond(self, shape: Mapping[str, Array]) -> NDArray[np.bool_]:
        """Which shapes lie outside what was measured, in any size."""
        features = self.kernel.distances(shape)
        return np.asarray(((features < self.lowest) | (features > self.highest)).any(axis=1))

    def score(self, shape: Mapping[str, Array], measured: Array) -> Scores:
        """How far off it is on points it has not seen."""
        seconds = self.predict(shape)
        return Scores.of(seconds, measured, np.abs(np.log(seconds / measured)) <= np.log(self.spread))


def guessed(kernel: KernelClass, peaks: Peaks, parameters: Mapping[str, float] | None = None) -> Fit:
    """A class that nobody measured here: another format's or device's parameters, or where fits begin; often off by a half."""
    chosen = parameters or {name: PARAMETERS[name].start for name in kernel.parameters}
    sizes = len(kernel.distances({size: np.ones(1) for size in kernel.sizes})[0])
    return Fit(kernel, peaks, chosen, (), np.full(sizes, -np.inf), np.full(sizes, np.inf), spread=GUESSED)


def fit(
    kernel: KernelClass, shape: Mapping[str, Array], seconds: Array, peaks: Peaks, extra: tuple[str, ...] = (),
    weights: Array | None = None,
) -> Fit:  # fmt: skip
    """Fits a class to points: `shape` has an array for each of its sizes, `extra` names parameters beside its own.

    `weights` say how many shapes each point stands for: errors count by them where one fit is held against another, and in the
    interval. The process on the residual, and the class's optional terms, are kept only where they lower the cross-validated
    error. Raises CostModelError for fewer than eight points.
    """
    if len(seconds) < MIN_POINTS:
        raise CostModelError(f"{len(seconds)} points are too few to fit {kernel.name}; give at least {MIN_POINTS}")
    counts = np.ones(len(seconds)) if weights is None else weights
    forms = [(*kernel.parameters, *extra), *([(*kernel.parameters, *extra, *kernel.optional)] if kernel.optional else [])]
    candidates = [_validated(kernel, shape, seconds, peaks, names, smooth, counts) for names in forms for smooth in (False, True)]
    return min(candidates, key=lambda pair: pair[1])[0]


def _validated(
    kernel: KernelClass, shape: Mapping[str, Array], seconds: Array, peaks: Peaks, names: tuple[str, ...], smooth: bool,
    weights: Array,
) -> tuple[Fit, float]:  # fmt: skip
    """A fit to all points with the scores of its folds, and its mean error there."""
    whole = _fitted(kernel, shape, seconds, peaks, names, smooth)
    predicted = np.empty((DEALS, len(seconds)))
    for deal, hand in [(number, hand) for number in range(DEALS) for hand in folds(len(seconds), deal=number)]:
        kept = np.setdiff1d(np.arange(len(seconds)), hand)
        part = _fitted(kernel, _rows(shape, kept), seconds[kept], peaks, names, smooth, whole.parameters)
        predicted[deal, hand] = part.predict(_rows(shape, hand))
    off, counts = np.abs(np.log(predicted / seconds)).ravel(), np.tile(weights, DEALS)
    width = _quantile(off, counts, LEVEL)
    scores = replace(Scores.of(predicted.ravel(), np.tile(seconds, DEALS), off <= width), n=len(seconds))
    return replace(whole, spread=float(np.exp(width)), scores=scores), float(np.average(off, weights=counts))


def _quantile(values: Array, weights: Array, level: float) -> float:
    """The value that has a share of the weights below it."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order]) - weights[order] / 2
    return float(np.interp(level, below / weights.sum(), values[order]))


def _rows(shape: Mapping[str, Array], rows: NDArray[np.int64]) -> dict[str, Array]:
    return {name: values[rows] for name, values in shape.items()}


def _fitted(
    kernel: KernelClass, shape: Mapping[str, Array], seconds: Array, peaks: Peaks, names: tuple[str, ...], smooth: bool,
    near: Mapping[str, float] | None = None,
) -> Fit:  # fmt: skip
    """`near` is where to begin, from a fit to more of the same points."""
    parameters, at_bound = _least_squares(kernel, shape, seconds, peaks, names, near)
    residual = np.log(seconds / kernel.seconds(shape, peaks, parameters))
    features = kernel.distances(shape)
    process = smoothed(features, residual) if smooth else None
    return Fit(kernel, peaks, parameters, at_bound, features.min(axis=0), features.max(axis=0), process)


def _least_squares(
    kernel: KernelClass, shape: Mapping[str, Array], seconds: Array, peaks: Peaks, names: tuple[str, ...],
    near: Mapping[str, float] | None = None,
) -> tuple[dict[str, float], tuple[str, ...]]:  # fmt: skip
    """Robust least squares on the logarithm of predicted over measured, with a weak pull to where it starts."""
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise CostModelError("fitting needs scipy, which is not installed; run: pip install 'costmodel[fit]'") from None

    start, low, high = (np.log([getattr(PARAMETERS[name], side) for name in names]) for side in ("start", "low", "high"))
    measured, pull = np.log(seconds), 0.6 / (high - low)

    def off(values: Array) -> Array:
        predicted = kernel.seconds(shape, peaks, dict(zip(names, np.exp(values), strict=True)))
        return np.concatenate([np.log(predicted) - measured, (values - start) * pull])

    if near is not None:
        starts: tuple[Array, ...] = (np.clip(np.log([near[name] for name in names]), low, high),)
    else:
        starts = (start, 0.7 * start + 0.3 * low, 0.7 * start + 0.3 * high)
    tried = [least_squares(off, first, bounds=(low, high), loss="soft_l1", f_scale=0.1) for first in starts]
    best = min(tried, key=lambda result: result.cost).x
    stuck = tuple(
        name for name, value, a, b in zip(names, best, low, high, strict=True) if min(value - a, b - value) < 1e-3 * (b - a)
    )
    return {name: float(np.exp(value)) for name, value in zip(names, best, strict=True)}, stuck
