"""Expressions on numbers: exact for integers, float64 in blocks for arrays. One walk serves both.

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

BLOCK_POINTS = 16_384
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
        from sympy import log

        experts, used, _ = self.args
        if argindex != 3:
            raise NotImplementedError("the expectation is differentiated over tokens only")
        return (self - experts) * log(1 - used / experts)

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        experts, used, tokens = (printer._print(arg) for arg in self.args)
        text = rf"{experts} \left(1 - \left(1 - \frac{{{used}}}{{{experts}}}\right)^{{{tokens}}}\right)"
        return text if exp is None else rf"\left({text}\right)^{{{exp}}}"


def _distinct_experts(experts: Value, used: Value, tokens: Value) -> Value:
    if isinstance(experts, (int, float, Fraction)) and isinstance(used, (int, float, Fraction)) and used >= experts:
        return float(experts)
    if all(isinstance(value, (int, float, Fraction)) for value in (experts, used, tokens)):
        return -float(experts) * math.expm1(float(tokens) * math.log1p(-float(used) / float(experts)))
    with np.errstate(divide="ignore"):
        return -experts * np.expm1(tokens * np.log1p(-np.asarray(used, dtype=np.float64) / experts))


def _min(*values: Value) -> Value:
    return min(values) if all(not isinstance(v, np.ndarray) for v in values) else reduce(np.minimum, values)


def _max(*values: Value) -> Value:
    return max(values) if all(not isinstance(v, np.ndarray) for v in values) else reduce(np.maximum, values)


def _floor(value: Value) -> Value:
    return np.floor(value) if isinstance(value, np.ndarray) else math.floor(value)


def _ceiling(value: Value) -> Value:
    return np.ceil(value) if isinstance(value, np.ndarray) else math.ceil(value)


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, int) and isinstance(exponent, int) and exponent < 0:
        return Fraction(1, base**-exponent)
    return base * base if isinstance(exponent, int) and exponent == 2 else base**exponent


def _log(value: Value) -> Value:
    return np.log(value) if isinstance(value, np.ndarray) else math.log(value)


def _product(*values: Value) -> Value:
    return reduce(mul, values)


def _sum(*values: Value) -> Value:
    return reduce(add, values)


_OPERATIONS: dict[str, Callable[..., Value]] = {
    "Add": _sum, "Mul": _product, "Pow": _power, "Min": _min, "Max": _max, "floor": _floor, "ceiling": _ceiling,
    "distinct_experts": _distinct_experts, "log": _log,
    Eq.__name__: eq, Ne.__name__: ne, Lt.__name__: lt, Le.__name__: le, Gt.__name__: gt, Ge.__name__: ge,
}  # fmt: skip


def walk(expr: Basic, known: dict[Basic, Value], exact: bool) -> Value:
    """The value of an expression; `known` holds the letters' values and keeps those of subexpressions."""
    found = known.get(expr)
    if found is not None:
        return found
    value: Value
    if expr.is_Integer:
        value = int(expr)
    elif expr.is_Rational:
        value = Fraction(int(expr.p), int(expr.q)) if exact else float(expr)
    elif expr.is_Float:
        value = float(expr)
    elif isinstance(expr, Piecewise):
        value = _piecewise(expr, known, exact)
    elif isinstance(expr, (BooleanTrue, BooleanFalse)):
        value = bool(expr)
    elif isinstance(expr, Symbol):
        raise KeyError(expr.name)
    else:
        value = _OPERATIONS[type(expr).__name__](*(walk(arg, known, exact) for arg in expr.args))
    known[expr] = value
    return value


def _piecewise(expr: Piecewise, known: dict[Basic, Value], exact: bool) -> Value:
    chosen: list[tuple[Value, Value]] = []
    for branch, condition in expr.args:
        holds = walk(condition, known, exact)
        if isinstance(holds, np.ndarray):
            if holds.any():
                chosen.append((holds, walk(branch, known, exact)))
            if holds.all():
                break
        elif holds:
            chosen.append((True, walk(branch, known, exact)))
            break
    value = chosen[-1][1]
    for holds, branch_value in reversed(chosen[:-1]):
        value = np.where(holds, branch_value, value)
    return value


def evaluate(expr: Expr, values: Mapping[Symbol, Number]) -> int | float:
    """The value of an expression for plain numbers: an int wherever it is one exactly.

    Raises KeyError with the letter's name where a letter has no value.

    >>> from costmodel.symbols import S, T
    >>> evaluate(T * S - T * (T - 1) / 2, {S: 5, T: 5})
    15
    """
    return plain(walk(expr, dict(values), exact=True))


def plain(value: Value) -> int | float:
    """A fraction as an int where it is one, else as a float."""
    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else float(value)
    return value  # type: ignore[no-any-return]


def evaluate_arrays(
    expr: Expr, values: Mapping[Symbol, Number | NDArray[Any]], check: Callable[[dict[Symbol, Value]], None] | None = None
) -> NDArray[np.float64]:
    """The float64 values of an expression over arrays that broadcast together, in blocks of `BLOCK_POINTS`.

    `check` is called with each block's values and may raise.
    """
    scalars = {s: v if isinstance(v, (int, float)) else float(v) for s, v in values.items() if not isinstance(v, np.ndarray)}
    arrays = {s: v for s, v in values.items() if isinstance(v, np.ndarray)}
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
            known: dict[Basic, Value] = {**scalars, **dict(zip(arrays, block, strict=True))}
            if check is not None:
                check(known)
            out[...] = walk(expr, known, exact=False)
        return np.asarray(points.operands[-1])
