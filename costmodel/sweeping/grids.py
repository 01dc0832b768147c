"""Grids of inputs: axes checked value by value, and blocks of their product that are never put together whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import islice
from math import isfinite, prod
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.units import MAX_WHOLE, parse_tokens
from costmodel.variants import WORDS

BLOCK_POINTS = 16_384
"""Points of a block: what one worker evaluates at a time, and one part on disk."""
MAX_POINTS = 10**9
MAX_VALUES = 10**7
"""The most values of one axis."""


class Kind(StrEnum):
    """What an axis changes: the model, a field of its architecture, a choice (one value a call), or a number (arrays)."""

    MODEL = "model"
    FIELD = "field"
    CHOICE = "choice"
    NUMBER = "number"


@dataclass(frozen=True, eq=False)
class Axis:
    """One input with the values it takes, in order: an array for numbers, else a tuple.

    >>> Axis("context", Kind.NUMBER, np.array([4096, 8192])).column().tolist()
    [4096, 8192]
    """

    name: str
    kind: Kind
    values: NDArray[Any] | tuple[Any, ...]
    labels: tuple[str, ...] = ()
    """How the values are called, where they do not say it themselves."""

    @cached_property
    def holes(self) -> bool:
        """Whether it is a column of whole numbers some of which are missing (no window, say)."""
        return any(value is None for value in self.values) and all(value is None or type(value) is int for value in self.values)

    @cached_property
    def told(self) -> tuple[str, ...]:
        """Its values as texts."""
        return self.labels or tuple(label(value) for value in self.values)

    @property
    def is_text(self) -> bool:
        """Whether its column holds texts."""
        return not (isinstance(self.values, np.ndarray) or self.holes or {type(value) for value in self.values} in ({int}, {bool}))

    def column(self) -> Any:
        """Its values as a column: numbers as they are (a missing one is None), anything else as text."""
        return np.array(self.told, dtype=object) if self.is_text else np.asarray(self.values, object if self.holes else None)


def label(value: Any) -> str:
    """A value as a cell has it.

    >>> label(None), label(True), label(("expanded", "chunked"))
    ('none', 'yes', 'expanded+chunked')
    """
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, tuple):
        return "+".join(label(item) for item in value)
    return str(getattr(value, "name", value))


@dataclass(frozen=True, eq=False)
class Piece:
    """The values of an axis that a block meets: those from place `first` on, each for `stride` points in turn."""

    name: str
    kind: Kind
    values: Any
    stride: int
    length: int
    first: int

    def places(self, points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in `values` each point's value stands."""
        return (points // self.stride % self.length - self.first) % self.length


@dataclass(frozen=True, eq=False)
class Grid:
    """The product of axes, the last one fastest; `fixed` axes have one value and no column.

    >>> axes = Axis("batch", Kind.NUMBER, np.array([1, 2])), Axis("context", Kind.NUMBER, np.array([10, 20, 30]))
    >>> grid = Grid(axes)
    >>> grid.points, [grid.code(axis, 2, 5).tolist() for axis in axes]
    (6, [[0, 1, 1], [2, 0, 1]])
    """

    axes: tuple[Axis, ...]
    fixed: tuple[Axis, ...] = ()

    @cached_property
    def points(self) -> int:
        """How many there are."""
        return prod(len(axis.values) for axis in self.axes)

    @cached_property
    def blocks(self) -> int:
        """How many blocks they make."""
        return -(-self.points // BLOCK_POINTS)

    def span(self, block: int) -> tuple[int, int]:
        """First and last point (exclusive) of a block."""
        return block * BLOCK_POINTS, min(self.points, (block + 1) * BLOCK_POINTS)

    @cached_property
    def _strides(self) -> tuple[int, ...]:
        lengths = [len(axis.values) for axis in self.axes]
        return tuple(prod(lengths[place + 1 :]) for place in range(len(lengths)))

    def pieces(self, start: int, stop: int) -> tuple[Piece, ...]:
        """What a block needs of each axis: little even of long ones."""
        own = tuple(_piece(axis, stride, start, stop) for axis, stride in zip(self.axes, self._strides, strict=True))
        return own + tuple(Piece(axis.name, axis.kind, axis.values, 1, 1, 0) for axis in self.fixed)

    def code(self, axis: Axis, start: int, stop: int) -> NDArray[np.int64]:
        """Which of an axis' values each of the points has."""
        stride = self._strides[self.axes.index(axis)]
        return np.arange(start, stop) // stride % len(axis.values)


def _piece(axis: Axis, stride: int, start: int, stop: int) -> Piece:
    length = len(axis.values)
    met = min(length, (stop - 1) // stride - start // stride + 1)
    first = start // stride % length if met < length else 0
    if isinstance(axis.values, np.ndarray):
        values: Any = axis.values.take(np.arange(first, first + met), mode="wrap")
    else:
        values = tuple(axis.values[place % length] for place in range(first, first + met))
    return Piece(axis.name, axis.kind, values, stride, length, first)


# axes from what a user gives


def listed(name: str, values: Any) -> Any:
    """The values of an axis as an array or a list. Raises CostModelError for no list, an empty or an endless one."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, (Iterable, np.ndarray)):
        raise CostModelError(f"{name} got {shown(values)}; give a list of values, such as [{_example(values)}]")
    if hasattr(values, "__array__"):
        values = np.asarray(values)
        if values.ndim != 1:
            raise CostModelError(f"{name} got an array of shape {list(values.shape)}; give one of a single dimension")
        values = values if values.dtype.kind in "iuf" else values.tolist()
    elif not isinstance(values, range) or len(values) > MAX_VALUES:
        values = list(islice(values, MAX_VALUES + 1))
    if not 0 < len(values) <= MAX_VALUES:
        came = "no value" if not len(values) else f"more than {MAX_VALUES:,} values"
        raise CostModelError(f"{name} got {came}; give from 1 to {MAX_VALUES:,}")
    return values


def _example(value: Any) -> str:
    return shown(value) if isinstance(value, (str, int, float)) and len(shown(value)) < 30 else "4096, 8192"


def number_axis(name: str, values: Any, whole: bool = True) -> Axis:
    """An axis of whole numbers from 1, or of any finite numbers from 0. Raises CostModelError for anything else."""
    values = listed(name, values)
    if isinstance(values, list):
        for value in values:
            _check_number(name, value, whole)
    array = np.asarray(values)
    least = 1 if whole else 0
    fits = (array >= least) & (array <= MAX_WHOLE) & ((array == np.floor(array)) if whole else True)
    if not fits.all():
        _check_number(name, array[~fits][0].item(), whole)
    array = array.astype(np.int64) if whole or array.dtype.kind in "iu" else array.astype(np.float64)
    return Axis(name, Kind.NUMBER, _distinct(name, array, array.tolist() if len(array) < 2 else None))


def _check_number(name: str, value: Any, whole: bool) -> None:
    number: Any = value if isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) else None
    if whole and (number is None or not 1 <= number <= MAX_WHOLE or number != int(number)):
        raise CostModelError(f"{name} got {shown(_plain(value))}; give whole numbers from 1 to {MAX_WHOLE}")
    if not whole and (number is None or not isfinite(number) or not 0 <= number <= MAX_WHOLE):
        raise CostModelError(f"{name} got {shown(_plain(value))}; give numbers from 0 to {MAX_WHOLE}")


def _distinct(name: str, array: NDArray[Any], few: list[Any] | None) -> NDArray[Any]:
    """The array, where no value comes twice."""
    if few is None:
        ordered = np.sort(array)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if twice.size:
            raise CostModelError(f"{name} has {shown(twice[0].item())} more than once; give each value once")
    return array


def choice_axis(name: str, kind: Kind, values: Any, check: Callable[[Any], Any], labels: Callable[[Any], str] = label) -> Axis:
    """An axis of anything else; `check` gives the value that is meant, or raises CostModelError."""
    chosen = tuple(check(_plain(value)) for value in listed(name, values))
    told = tuple(labels(value) for value in chosen)
    twice = next((text for place, text in enumerate(told) if text in told[:place]), None) if len(set(told)) < len(told) else None
    if twice is not None:
        raise CostModelError(f"{name} has {shown(twice)} more than once; give each value once")
    return Axis(name, kind, chosen, told)


def _plain(value: Any) -> Any:
    """A number of numpy as Python's, a whole float as an int; anything else as it is."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and isfinite(value) and value == int(value) else value


# axes as text


def read_grid(texts: Iterable[str]) -> dict[str, Any]:
    """Axes as a command line says them: `batch=1,2,4`, `context=1k..1M:log:50`, `precision=bf16,fp8`.

    `A..B` is every whole number, `A..B:STEP` every STEP-th, `A..B:log:N` and `A..B:lin:N` are N values from A to B, evenly spaced
    by ratio or by difference and rounded to whole numbers where A and B are whole. Raises CostModelError for anything else.

    >>> read_grid(["batch=1,2", "local/mixer/sliding_window=512,none", "context=1k..4k:log:3"])
    {'batch': [1, 2], 'local/mixer/sliding_window': [512, None], 'context': [1024, 2048, 4096]}
    """
    grid: dict[str, Any] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            raise CostModelError(f"{shown(text)} is no axis; give a name and values, such as batch=1,2,4 or context=1k..1M:log:50")
        if name in grid:
            raise CostModelError(f"{shown(name)[1:-1]} is given twice; give all its values in one list")
        grid[name] = [value for part in values.split(",") for value in _read(name, part.strip())]
    return grid


def _read(name: str, text: str) -> Iterator[Any]:
    ends, _, how = text.partition(":")
    first, dots, last = ends.partition("..")
    if dots and _number(first) is not None and _number(last) is not None:
        yield from _range(name, text, _number(first), _number(last), how)
    elif text:
        number = _number(text)
        yield number if number is not None else WORDS.get(text, text)
    else:
        raise CostModelError(f"{shown(name)[1:-1]} has an empty value; give values between commas, such as 1,2,4")


_PLAIN = re.compile(r"[+-]?\d{1,20}(\.\d{1,20})?(e[+-]?\d{1,3})?", re.ASCII)


def _number(text: str) -> int | float | None:
    """A whole number (1k is 1,024), any other number, or None."""
    try:
        return parse_tokens(text)
    except CostModelError:
        number = float(text) if _PLAIN.fullmatch(text) else None
        return number if number is None or not isfinite(number) or number != int(number) else int(number)


def _range(name: str, text: str, first: Any, last: Any, how: str) -> Iterator[Any]:
    form, _, number = how.partition(":") if how.startswith(("log", "lin")) else ("step", "", how or "1")
    steps: Any = _number(number)
    right = (
        first <= last and isinstance(steps, int) and steps >= 1 and form in ("log", "lin", "step") and (form != "log" or first > 0)
    )
    if not right or (form == "step" and not (isinstance(first, int) and isinstance(last, int))):
        raise CostModelError(
            f"{shown(name)[1:-1]} got {shown(text)}; give A..B, A..B:STEP, A..B:log:N or A..B:lin:N with A at most B"
        )
    count = (last - first) // steps + 1 if form == "step" else steps
    if count > MAX_VALUES:
        raise CostModelError(f"{shown(name)[1:-1]} got {shown(text)}, {count:,} values; give at most {MAX_VALUES:,}")
    if form == "step":
        yield from range(first, last + 1, steps)
        return
    spaced = np.geomspace(first, last, steps) if form == "log" else np.linspace(first, last, steps)
    whole = isinstance(first, int) and isinstance(last, int)
    yield from np.unique(spaced.round().astype(np.int64) if whole else spaced).tolist()


def unknown_input(name: str, asked: str, known: Iterable[str]) -> CostModelError:
    """An input that nothing asked for takes."""
    return CostModelError(f"{name} takes no {shown(asked)}; {did_you_mean(asked, known)}")
