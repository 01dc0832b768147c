"""Expressions on numbers: exact for integers, float64 in blocks for arrays.

Shared subexpressions are computed once. Text never becomes an expression here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import reduce
from operator import add, eq, ge, gt, le, lt, mul, ne
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Eq, Expr, Function, Ge, Gt, Le, Lt, Ne, Piecewise, Symbol
from sympy.core.basic import Basic
from sympy.logic.boolalg import BooleanFalse, BooleanTrue

BLOCK_POINTS = 20_480
"""Points evaluated together: small enough for the intermediate arrays to stay in the processor's cache."""

Number = int | float | Fraction
Value = Any
"""A Python number or a float64 array of one block."""


class distinct_experts(Function):  # type: ignore[misc]  # sympy is untyped
    """Expected number of distinct experts that N tokens touch when each takes k of E: E (1 - (1 - k/E)^N).

    Routing is taken as uniform and independent. Always a float: computed as -E expm1(N log1p(-k/E)), never as a
    power of a rational number.

    >>> from sympy import Integer
    >>> round(evaluate(distinct_experts(Integer(256), Integer(8), Integer(1)), {}), 9)
    8.0
    """

    nargs = 3

    @classmethod
    def eval(cls, experts: Expr, used: Expr, tokens: Expr) -> Expr | None:
        return experts if experts == used else None

    def fdiff(self, argindex: int = 1) -> Expr:
        """The slope over E (1), k (2) or N (3)."""
        from sympy import log

        experts, used, tokens = self.args
        kept_out = 1 - used / experts  # probability that one token misses an expert
        missed_by_last = tokens * (1 - self / experts) / kept_out
        return (self / experts - used / experts * missed_by_last, missed_by_last, (self - experts) * log(kept_out))[argindex - 1]

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        experts, used, tokens = (printer._print(arg) for arg in self.args)
        text = rf"{experts} \left(1 - \left(1 - \frac{{{used}}}{{{experts}}}\right)^{{{tokens}}}\right)"
        return text if exp is None else rf"\left({text}\right)^{{{exp}}}"


def _distinct_experts(experts: Value, used: Value, tokens: Value) -> Value:
    if not any(isinstance(value, np.ndarray) for value in (experts, used, tokens)):
        missed = math.expm1(float(tokens) * math.log1p(-float(used) / float(experts))) if used < experts else -1.0
        return -float(experts) * missed
    with np.errstate(divide="ignore"):
        return -experts * np.expm1(tokens * np.log1p(-np.asarray(used, dtype=np.float64) / experts))


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, int) and isinstance(exponent, int) and exponent < 0:
        return Fraction(1, base**-exponent)
    return base * base if isinstance(exponent, int) and exponent == 2 else base**exponent


def _product(*values: Value) -> Value:
    return reduce(mul, values)


def _sum(*values: Value) -> Value:
    return reduce(add, values)


_COMMON: dict[str, Callable[..., Value]] = {
    "Add": _sum, "Mul": _product, "Pow": _power, "distinct_experts": _distinct_experts,
    Eq.__name__: eq, Ne.__name__: ne, Lt.__name__: lt, Le.__name__: le, Gt.__name__: gt, Ge.__name__: ge,
}  # fmt: skip
_EXACT = _COMMON | {"Min": min, "Max": max, "floor": math.floor, "ceiling": math.ceil, "log": math.log}
_ARRAYS: dict[str, Callable[..., Value]] = _COMMON | {
    "Add": np.add, "Mul": np.multiply, "Min": np.minimum, "Max": np.maximum, "floor": np.floor, "ceiling": np.ceil, "log": np.log,
}  # fmt: skip
_CHAINED = ("Add", "Mul", "Min", "Max")
"""Operations of any number of arguments, done two at a time."""


def evaluate(expr: Expr, values: Mapping[Symbol, Number]) -> int | float:
    """The value of an expression for plain numbers: an int wherever it is one exactly.

    Raises KeyError with the letter's name where a letter has no value.

    >>> from costmodel.symbols import S, T
    >>> evaluate(T * S - T * (T - 1) / 2, {S: 5, T: 5})
    15
    """
    return plain(walk(expr, dict(values)))


def walk(expr: Basic, known: dict[Basic, Value]) -> Value:
    """The exact value of an expression; `known` holds the letters' values and keeps those of subexpressions."""
    found = known.get(expr)
    if found is None:
        found = known[expr] = _constant(expr) if not expr.args else _applied(expr, known)
    return found


def walk_floats(expr: Basic, known: dict[Basic, Value]) -> Value:
    """The value of an expression of floats and arrays, which `known` holds for letters; it keeps those of subexpressions."""
    found = known.get(expr)
    if found is None:
        if isinstance(expr, Piecewise):
            found = _branches(expr, known)
        elif expr.args:
            name, values = type(expr).__name__, [walk_floats(arg, known) for arg in expr.args]
            found = reduce(_ARRAYS[name], values) if name in _CHAINED else _ARRAYS[name](*values)
        else:
            constant = _constant(expr)
            found = constant if isinstance(constant, bool) else float(constant)
        known[expr] = found
    return found


def _branches(expr: Piecewise, known: dict[Basic, Value]) -> Value:
    """A piecewise expression: the first branch whose condition holds, point by point."""
    pairs = [(walk_floats(branch, known), walk_floats(holds, known)) for branch, holds in expr.args]
    return reduce(lambda rest, pair: np.where(pair[1], pair[0], rest), reversed(pairs[:-1]), pairs[-1][0])


def _constant(expr: Basic) -> Value:
    """The value of a leaf. Raises KeyError for a letter."""
    if expr.is_Integer:
        return int(expr)
    if expr.is_Rational:
        return Fraction(int(expr.p), int(expr.q))
    if isinstance(expr, (BooleanTrue, BooleanFalse)):
        return bool(expr)
    if isinstance(expr, Symbol):
        raise KeyError(expr.name)
    return float(expr)


def _applied(expr: Basic, known: dict[Basic, Value]) -> Value:
    if isinstance(expr, Piecewise):
        return next(walk(branch, known) for branch, holds in expr.args if walk(holds, known))
    return _EXACT[type(expr).__name__](*[walk(arg, known) for arg in expr.args])


def plain(value: Value) -> int | float:
    """A fraction as an int where it is one, else as a float."""
    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else float(value)
    return value  # type: ignore[no-any-return]  # a Value is a number here


class _Program:
    """An expression over arrays as a list of steps, each subexpression once; what depends on no array is a number already.

    A slot is a number, or the place of a step's result; the first slots are the arrays.
    """

    def __init__(self, expr: Expr, scalars: Mapping[Symbol, Number], arrays: tuple[Symbol, ...]) -> None:
        self._slots: list[Value] = [None] * len(arrays)
        self._steps: list[tuple[Callable[..., Value], tuple[int, ...], int]] = []
        self._varies: set[int] = set(range(len(arrays)))
        self._places: dict[Basic, int] = {symbol: place for place, symbol in enumerate(arrays)}
        self._places |= {symbol: self._store(value) for symbol, value in scalars.items()}
        self._result = self._compiled(expr)

    def _store(self, value: Value) -> int:
        self._slots.append(value)
        return len(self._slots) - 1

    def _compiled(self, expr: Basic) -> int:
        place = self._places.get(expr)
        if place is None:
            place = self._places[expr] = self._placed(expr)
        return place

    def _placed(self, expr: Basic) -> int:
        if not expr.args:
            return self._store(_constant(expr))
        if isinstance(expr, Piecewise):
            return self._chosen(list(expr.args))
        places = tuple(self._compiled(arg) for arg in expr.args)
        varying = tuple(place for place in places if place in self._varies)
        fixed = tuple(place for place in places if place not in self._varies)
        name = type(expr).__name__
        if not varying:
            return self._store(_EXACT[name](*(self._slots[place] for place in places)))
        if name not in _CHAINED:
            return self._step(_ARRAYS[name], places)
        numbers = [self._slots[place] for place in fixed]
        if numbers:  # the numbers first, so that each array is passed over once
            varying += (self._store(_EXACT[name](*numbers) if len(numbers) > 1 else numbers[0]),)
        return reduce(lambda left, right: self._step(_ARRAYS[name], (left, right)), (varying[-1], *varying[:-1]))

    def _step(self, operation: Callable[..., Value], places: tuple[int, ...]) -> int:
        for place in places:  # floats suffice for arrays, and spare them the fractions
            if isinstance(self._slots[place], Fraction):
                self._slots[place] = float(self._slots[place])
        result = self._store(None)
        self._varies.add(result)
        self._steps.append((operation, places, result))
        return result

    def _chosen(self, branches: list[tuple[Basic, Basic]]) -> int:
        """The first branch whose condition holds, point by point where the condition varies."""
        (branch, condition), *others = branches
        place = self._compiled(condition)
        if place in self._varies:
            return self._step(np.where, (place, self._compiled(branch), self._chosen(others)))
        return self._compiled(branch) if self._slots[place] else self._chosen(others)

    def __call__(self, block: list[NDArray[np.float64]], out: NDArray[np.float64]) -> None:
        """Computes one block into `out`."""
        slots = self._slots
        slots[: len(block)] = block
        for operation, places, result in self._steps[:-1]:
            slots[result] = operation(*[slots[place] for place in places])
        for operation, places, result in self._steps[-1:]:
            if isinstance(operation, np.ufunc) and result == self._result:
                operation(*[slots[place] for place in places], out=out)
                return
            slots[result] = operation(*[slots[place] for place in places])
        out[...] = slots[self._result]


def evaluate_arrays(
    expr: Expr,
    values: Mapping[Symbol, Number | NDArray[Any]],
    check: Callable[[Mapping[Symbol, Value]], None] | None = None,
) -> NDArray[np.float64]:
    """The float64 values of an expression over arrays that broadcast together, in blocks of `BLOCK_POINTS`.

    `check` is called with each block of the arrays and may raise.
    """
    scalars = {symbol: value for symbol, value in values.items() if not isinstance(value, np.ndarray)}
    arrays = {symbol: value for symbol, value in values.items() if isinstance(value, np.ndarray)}
    program = _Program(expr, scalars, tuple(arrays))
    points: Any = np.nditer(  # type: ignore[call-overload]  # the stubs know no None among operands
        [*arrays.values(), None],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[*([["readonly"]] * len(arrays)), ["writeonly", "allocate"]],
        op_dtypes=[np.float64] * (len(arrays) + 1),
        buffersize=BLOCK_POINTS,
        casting="same_kind",
    )
    with points:
        for *block, out in points:
            if check is not None:
                check(dict(zip(arrays, block, strict=True)))
            program(block, out)
        return np.asarray(points.operands[-1])
