"""How long prompts and outputs are: one length for all, or a distribution by its quantiles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import pairwise
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import field_validator, model_validator

from costmodel.errors import CostModelError, shown
from costmodel.units import MAX_WHOLE, parse_tokens
from costmodel.workload import Checked

Array = NDArray[np.float64]
KEPT_VALUES = 1024
"""A longer sample is kept as the means of this many groups of equal probability."""
MAX_QUANTILES = 2 * KEPT_VALUES
_FORMS = "give tokens such as 4096, or quantiles such as p50=900,p90=4000,p99=16000"
_NAMED = {"min": 0.0, "max": 1.0}


class Lengths(Checked):
    """Lengths in tokens, as pairs (probability level, tokens): the inverse of the distribution function, straight between them.

    An end that is not given is carried on from the nearest two quantiles, not below 1 token: for the long tails of real
    traffic that is low, so give `max` (level 1) where it is known. A number stands for one length, text is read as the
    command line reads it. Two pairs of one level are a jump. Raises CostModelError for anything that is no distribution.

    >>> Lengths(quantiles={0.5: 900, 0.9: 4000, 0.99: 16000}).at([0.5, 0.7])
    array([ 900., 2450.])
    >>> Lengths.of("p50=900,p90=4k,max=16k") == Lengths(quantiles={0.5: 900, 0.9: 4096, 1: 16384})
    True
    >>> Lengths.of(4096).mean
    4096.0
    """

    quantiles: tuple[tuple[float, float], ...]

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: object) -> object:
        if isinstance(value, str):
            return {"quantiles": _read(value)}
        if isinstance(value, Mapping) and "quantiles" not in value:
            return {"quantiles": value}
        return {"quantiles": _constant(value)} if isinstance(value, Real) else value

    @field_validator("quantiles", mode="before")
    @classmethod
    def _a_distribution(cls, value: object) -> tuple[tuple[float, float], ...]:
        pairs = sorted(((_level(level), _tokens(tokens)) for level, tokens in _pairs(value)), key=lambda pair: pair[0])
        if len(pairs) < 2:
            raise CostModelError(f"a distribution got {len(pairs)} quantile(s); give two or more, or a plain number for one length")
        for (below, low), (level, high) in pairwise(pairs):
            if low > high:
                raise CostModelError(f"{low:g} tokens at level {below:g} exceed {high:g} at {level:g}; quantiles never decrease")
        return tuple(pairs)

    @classmethod
    def of(cls, value: object) -> Self:
        """Lengths from a number of tokens, from text such as `p50=900,p90=4000,max=16k`, or as they are.

        Raises CostModelError for anything else.

        >>> Lengths.of("128k").max
        131072.0
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(quantiles=_read(value))
        return cls(quantiles=_constant(value) if not isinstance(value, Mapping) else value)

    @classmethod
    def sample(cls, values: Iterable[float] | ArrayLike) -> Self:
        """The distribution of a sample: mean and mean square are the sample's own.

        Above 1,024 values it is kept as that many groups of equal probability by their means: the mean stays, the mean
        square loses the spread within a group. Raises CostModelError for an empty sample or one with impossible lengths.

        >>> Lengths.sample([10, 10, 10, 40]).mean
        17.5
        """
        known = _sampled(values)
        edges = np.linspace(0.0, len(known), min(len(known), KEPT_VALUES) + 1)
        sums = np.interp(edges, np.arange(len(known) + 1), np.concatenate(([0.0], np.cumsum(known))))
        means = np.maximum.accumulate(np.diff(sums) / np.diff(edges)).tolist()
        levels = (edges / len(known)).tolist()
        return cls(quantiles=[pair for i, mean in enumerate(means) for pair in ((levels[i], mean), (levels[i + 1], mean))])

    def __eq__(self, other: object) -> bool:  # what was worked out from the quantiles holds arrays, which do not compare
        return isinstance(other, Lengths) and self.quantiles == other.quantiles

    def __hash__(self) -> int:
        return hash(self.quantiles)

    @property
    def min(self) -> float:
        """The shortest length."""
        return float(_knots(self)[1][0])

    @property
    def max(self) -> float:
        """The longest length."""
        return float(_knots(self)[1][-1])

    @property
    def constant(self) -> bool:
        """Whether there is one length alone."""
        return self.min == self.max

    @property
    def mean(self) -> float:
        """The mean length: sum over the pieces of dp (a + b) / 2."""
        levels, tokens = _knots(self)
        return float(np.diff(levels) @ (tokens[:-1] + tokens[1:])) / 2

    @property
    def second_moment(self) -> float:
        """The mean of the squared length: sum over the pieces of dp (a^2 + a b + b^2) / 3.

        >>> Lengths.of("min=1,max=4").second_moment
        7.0
        """
        levels, tokens = _knots(self)
        low, high = tokens[:-1], tokens[1:]
        return float(np.diff(levels) @ (low * low + low * high + high * high)) / 3

    def at(self, levels: ArrayLike) -> Array:
        """Tokens at probability levels, an array of their shape; the upper end of a jump. Raises CostModelError outside 0..1."""
        asked = np.asarray(levels, dtype=np.float64)
        if not np.all((asked >= 0) & (asked <= 1)):
            raise CostModelError("a probability level lies outside 0..1; give 0.99 for the 99th percentile")
        return _inverse(*_knots(self), asked)

    def points(self, n: int = 32) -> tuple[Array, Array]:
        """`n` lengths and their probabilities, each length the mean of its share: the mean is kept exactly.

        Shares end at about 1 - (1 - i/n)^2: the longest has 1/n^2, so that tails keep their weight. One length gives one point.
        The arrays are read-only, lengths in rising order.

        >>> tokens, weights = Lengths.of("p50=900,p90=4000,p99=16000").points(32)
        >>> round(float(weights @ tokens), 6) == round(Lengths.of("p50=900,p90=4000,p99=16000").mean, 6)
        True
        """
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 65_536:
            raise CostModelError(f"points got {shown(n)}; give a whole number from 1 to 65536")
        return _points(self, 1 if self.constant else n)

    def draw(self, uniform: ArrayLike) -> Array:
        """Whole tokens, at least 1, at uniform random levels: for simulations."""
        return np.maximum(np.rint(self.at(uniform)), 1.0)

    def __str__(self) -> str:
        """As the command line reads it.

        >>> str(Lengths.of("p50=900,max=4k")), str(Lengths.of(4096))
        ('p50=900,max=4096', '4096')
        """
        if self.constant:
            return f"{self.max:.15g}"
        names = {level: name for name, level in _NAMED.items()}
        return ",".join(f"{names.get(level, f'p{100 * level:.12g}')}={tokens:.15g}" for level, tokens in self.quantiles)


@lru_cache(maxsize=256)
def _knots(lengths: Lengths) -> tuple[Array, Array]:
    """Levels from 0 to 1, and tokens: the quantiles with both ends."""
    levels, tokens = (np.array(column, dtype=np.float64) for column in zip(*lengths.quantiles, strict=True))
    if levels[0] > 0:
        levels, tokens = np.insert(levels, 0, 0.0), np.insert(tokens, 0, _carried(levels, tokens, 0.0))
    if levels[-1] < 1:
        levels, tokens = np.append(levels, 1.0), np.append(tokens, _carried(levels[::-1], tokens[::-1], 1.0))
    return levels, tokens


def _inverse(levels: Array, tokens: Array, asked: Array) -> Array:
    """np.interp with jumps: a level that stands twice gives its upper value."""
    right = np.clip(np.searchsorted(levels, asked, side="right"), 1, len(levels) - 1)
    width = levels[right] - levels[right - 1]
    share = np.divide(asked - levels[right - 1], width, out=np.ones_like(asked), where=width > 0)
    return np.asarray(tokens[right - 1] + share * (tokens[right] - tokens[right - 1]))


def _carried(levels: Array, tokens: Array, end: float) -> float:
    """The line through the two levels nearest to an end, at that end; never below 1 token."""
    other = int(np.argmax(levels != levels[0]))
    if levels[other] == levels[0]:
        return float(tokens[0])
    slope = (tokens[other] - tokens[0]) / (levels[other] - levels[0])
    return min(max(1.0, float(tokens[0] + slope * (end - levels[0]))), float(MAX_WHOLE))


@lru_cache(maxsize=256)
def _points(lengths: Lengths, n: int) -> tuple[Array, Array]:
    levels, tokens = _knots(lengths)
    edges = _shares(levels, n)
    grid = np.union1d(edges, levels)
    # between neighbours of the grid the inverse is straight: its integral is the width times its value in the middle
    areas = np.diff(grid) * _inverse(levels, tokens, (grid[:-1] + grid[1:]) / 2)
    total = np.concatenate(([0.0], np.cumsum(areas)))
    weights = np.diff(edges)
    values = np.maximum.accumulate(np.clip(np.diff(total[np.searchsorted(grid, edges)]) / weights, tokens[0], tokens[-1]))
    for array in (values, weights):
        array.setflags(write=False)
    return values, weights


def _shares(levels: Array, n: int) -> Array:
    """The levels between which the points lie; the nearest of them moves to each bend of the distribution, where there are few."""
    edges = 1.0 - (1.0 - np.arange(n + 1) / n) ** 2
    bends = np.unique(levels[(levels > 0) & (levels < 1)])
    nearest = 1 + np.abs(edges[1:-1, None] - bends).argmin(axis=0) if 0 < len(bends) < n else np.zeros(0, dtype=np.intp)
    moved = edges.copy()
    moved[nearest] = bends[: len(nearest)]
    return moved if np.all(np.diff(moved) > 0) else edges


def _constant(value: Any) -> list[tuple[float, float]]:
    tokens = _tokens(value)
    return [(0.0, tokens), (1.0, tokens)]


def _tokens(value: Any) -> float:
    number: Any = value if isinstance(value, Real) and not isinstance(value, bool) else 0
    if 1 <= number <= MAX_WHOLE:  # false for NaN
        return float(number)
    raise CostModelError(f"a length got {shown(_item(value))}; {_FORMS}, each from 1 to {MAX_WHOLE}")


def _level(value: Any) -> float:
    if isinstance(value, str):
        value = _named_level(value)
    if isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) <= 1:
        return round(float(value), 15)
    raise CostModelError(f"a probability level got {shown(_item(value))}; give 0..1, such as 0.5 for the median")


def _named_level(name: str) -> float:
    """`p99.9`, `min`, `max`, or a plain number from 0 to 1."""
    name = name.strip().lower()
    if name in _NAMED:
        return _NAMED[name]
    try:
        number = float(name.removeprefix("p"))
    except ValueError:
        number = math.nan
    level = round(number / 100, 15) if name.startswith("p") else number
    if 0 <= level <= 1:
        return level
    raise CostModelError(f"no level {shown(name)}; give p50, p99.9, min or max, as in p50=900,p90=4000")


def _read(text: str) -> list[tuple[float, float]]:
    if "=" not in text:
        return _constant(parse_tokens(text))
    pairs = [part.partition("=") for part in text.split(",", MAX_QUANTILES)]
    return [(_named_level(name), _length(tokens)) for name, _, tokens in pairs]


def _length(text: str) -> float:
    """Tokens as `parse_tokens` reads them, or a plain decimal number."""
    try:
        return _tokens(float(text)) if "." in text and text.strip()[-1:].isdigit() else float(parse_tokens(text))
    except ValueError:
        raise CostModelError(f"{shown(text)} is no length; {_FORMS}") from None


def _pairs(value: object) -> list[tuple[Any, Any]]:
    items: object = list(value.items()) if isinstance(value, Mapping) else value
    fine = isinstance(items, (list, tuple)) and all(isinstance(item, (list, tuple)) and len(item) == 2 for item in items)
    if not fine or not isinstance(items, (list, tuple)) or len(items) > MAX_QUANTILES:
        raise CostModelError(f"quantiles got {shown(value)}; give levels with their tokens: {{0.5: 900, 0.9: 4000}}")
    return [(level, tokens) for level, tokens in items]


def _sampled(values: object) -> Array:
    """A sample, sorted. Raises CostModelError unless it holds lengths and nothing else."""
    listed = list(values) if isinstance(values, Iterable) and not isinstance(values, (str, bytes, Mapping)) else None
    if not listed:
        came = "nothing" if listed == [] else shown(values)
        raise CostModelError(f"a sample of lengths got {came}; give one or more numbers of tokens")
    return np.sort([_tokens(value) for value in listed])


def _item(value: Any) -> Any:
    """A number of numpy as Python's, for a message."""
    return value.item() if getattr(value, "ndim", None) == 0 else value
