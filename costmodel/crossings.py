"""Where two formulas meet, and how far one stays within a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
from sympy import Expr, Integer, Max, Min, Piecewise, Poly, Rational, Symbol, ceiling, floor
from sympy.core.relational import Relational

from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.evaluate import distinct_experts, evaluate, evaluate_arrays
from costmodel.formula import MAX_INPUT, Formula
from costmodel.symbols import LETTERS, S, T, letter_named
from costmodel.units import whole

GRID_POINTS = 4_096
SCANNED = 1 << 20
"""Formulas that step are compared at every whole number up to here."""


def crossover(f: Formula, g: Formula, over: str = "context", upto: int = 1 << 30, **fixed: Any) -> list[int | float]:
    """The values of the letter `over`, from 1 to `upto`, at which two formulas meet, in order; T stays within S.

    `fixed` gives the other letters (batch and new_tokens are 1 by default); options belong to `having`. Piecewise
    polynomials are solved exactly; formulas that step (pages, chunks) give the first whole number at which the order
    has changed: all of them up to 1M, beyond it those farther apart than half a percent. Where two formulas
    coincide over a stretch, its ends are given.

    Raises CostModelError where the units differ, a letter is missing, or the formulas are equal everywhere.

    >>> import costmodel as cm
    >>> windowed, plain = cm.load("gemma-3-27b"), cm.load("llama-3.1-8b")
    >>> [round(x) for x in cm.crossover(windowed.cache_bytes, plain.cache_bytes)]
    [8875]
    """
    for formula in (f, g):
        if not isinstance(formula, Formula):
            raise CostModelError(f"crossover got {shown(formula)}; give two formulas, such as load('gpt2').cache_bytes")
    if f.unit != g.unit:
        raise CostModelError(f"{f.name} is in {f.unit} and {g.name} in {g.unit}; compare formulas of one unit")
    letters = {symbol: LETTERS[symbol.name] for symbol in (*f.symbols, *g.symbols)}
    letter = letter_named(over) if isinstance(over, str) else None
    if letter is None or letter.symbol not in letters:
        known = [letter.field for letter in letters.values()]
        advice = did_you_mean(over, known) if known else "they are constants"
        raise CostModelError(f"neither {f.name} nor {g.name} depends on {shown(over)}; {advice}")
    upto, numbers = whole("upto", upto), _numbers(f"crossover over {letter.field}", fixed)
    if letter.symbol in numbers:
        raise CostModelError(f"{letter.field} is what crossover solves for; leave {letter.field}=... out")
    gap = f.expr - g.expr
    start = 1
    if letter.symbol == T and S in gap.free_symbols and S in numbers:
        upto = min(upto, numbers[S])
    if letter.symbol == S and T in gap.free_symbols:
        start = numbers.get(T, 1)
    for symbol in sorted(gap.free_symbols - {letter.symbol}, key=str):
        if numbers.get(symbol, LETTERS[symbol.name].default) is None:
            name = LETTERS[symbol.name].field
            raise CostModelError(f"crossover needs {name} ({LETTERS[symbol.name].meaning}); give {name}=...")
        gap = gap.xreplace({symbol: Integer(numbers.get(symbol, LETTERS[symbol.name].default))})
    solve = _stepwise if gap.has(floor, ceiling, distinct_experts) else _exact
    points = list(solve(gap, letter.symbol, start, upto))
    return [int(point) if point == int(point) else float(point) for point in sorted(set(points))]


def largest(formula: Formula, limit: float, over: str = "context", upto: int = MAX_INPUT, **fixed: Any) -> int | None:
    """The largest whole number of the letter `over` at which a formula is at most `limit`; None where no number is.

    The formula must not fall as the letter grows (the cache and the FLOPs do not). A result of `upto` says that the
    limit does not bind up to there: a state that does not grow fits any context. `fixed` gives the other letters;
    options belong to `having`. T stays within S.

    Raises CostModelError for what is no formula, no number, or no letter of the formula.

    >>> import costmodel as cm
    >>> cache = cm.load("deepseek-v3").cache_bytes
    >>> cm.largest(cache, 40 << 30), cm.largest(cache, 40 << 30, over="batch", context=131_072)
    (611191, 4)
    """
    if not isinstance(formula, Formula):
        raise CostModelError(f"largest got {shown(formula)}; give a formula, such as load('gpt2').cache_bytes")
    if not isinstance(limit, Real) or isinstance(limit, bool) or limit != limit:
        raise CostModelError(f"limit got {shown(limit)}; give a number of {formula.unit}")
    letter = letter_named(over)
    if letter is None or letter.field not in formula.inputs:
        advice = did_you_mean(over, formula.inputs) if formula.inputs else "it is a constant"
        raise CostModelError(f"{formula.name} does not depend on {shown(over)}; {advice}")
    upto, numbers = whole("upto", upto), _numbers(f"largest over {letter.field}", fixed)
    if letter.symbol in numbers:
        raise CostModelError(f"{letter.field} is what largest solves for; leave {letter.field}=... out")
    others = {symbol.name: number for symbol, number in numbers.items()}
    first = numbers.get(T, 1) if letter.symbol == S else 1
    last = min(upto, numbers.get(S, upto)) if letter.symbol == T else upto

    def fits(number: int) -> bool:
        return bool(formula(**others, **{letter.symbol.name: number}) <= limit)

    return _last_that(fits, first, last)


def _last_that(holds: Callable[[int], bool], first: int, last: int) -> int | None:
    """The last whole number from `first` to `last` that holds, of a condition that never holds again once it fails."""
    if not holds(first):
        return None
    if holds(last):
        return last
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (middle, last) if holds(middle) else (first, middle)
    return first


def _numbers(asker: str, fixed: dict[str, Any]) -> dict[Symbol, int]:
    """The letters that are given, by long or short name."""
    numbers: dict[Symbol, int] = {}
    for name, value in fixed.items():
        letter = letter_named(name)
        if letter is None:
            known = [letter.field for letter in LETTERS.values()]
            raise CostModelError(f"{asker} has no input {shown(name)} (options go to having); {did_you_mean(name, known)}")
        if letter.symbol in numbers:
            raise CostModelError(f"{letter.field} is given twice; give {letter.field} or {letter.symbol.name}")
        numbers[letter.symbol] = whole(letter.field, value)
    return numbers


def _exact(gap: Expr, x: Symbol, start: int, upto: int) -> Iterator[Expr]:
    """Roots between the kinks, where the gap is a polynomial."""
    ends = [Integer(start), *sorted(kink for kink in _kinks(gap, x) if start < kink < upto), Integer(upto)]
    stretches = [(low, high, _branch(gap, x, (low + high) / 2)) for low, high in pairwise(ends)]
    if all(polynomial.is_zero for _, _, polynomial in stretches):
        if evaluate(gap, {x: start}) != 0:  # a single pass of one token goes another way
            yield Integer(start + 1)
            return
        raise CostModelError("the two formulas are equal everywhere; there is no crossing")
    for low, high, polynomial in stretches:
        if polynomial.is_zero:
            yield from (end for end in (low, high) if start < end < upto)
        else:
            yield from (root if root.is_Rational else root.evalf(17) for root in polynomial.real_roots() if low <= root <= high)


def _kinks(gap: Expr, x: Symbol) -> set[Expr]:
    """Where a Min or Max changes branch or a condition turns: roots of linear differences."""
    kinks: set[Expr] = set()
    differences = [a - b for node in gap.atoms(Min, Max) for a in node.args for b in node.args if a != b]
    differences += [relation.lhs - relation.rhs for relation in gap.atoms(Relational)]
    for difference in differences:
        if difference.is_polynomial(x) and difference.has(x):
            kinks.update(root for root in Poly(difference, x).real_roots() if root.is_Rational)
    return kinks


def _branch(expr: Expr, x: Symbol, point: Expr) -> Poly:
    """The polynomial that holds around a point."""
    return Poly(_resolved(expr, {x: Rational(point)}), x)


def _resolved(expr: Any, point: dict[Symbol, Expr]) -> Any:
    if isinstance(expr, (Min, Max)):
        pick = min if isinstance(expr, Min) else max
        return pick((_resolved(arg, point) for arg in expr.args), key=lambda arg: arg.xreplace(point))
    if isinstance(expr, Piecewise):
        return next(_resolved(branch, point) for branch, holds in expr.args if holds.xreplace(point))
    return expr.func(*(_resolved(arg, point) for arg in expr.args)) if expr.args else expr


def _stepwise(gap: Expr, x: Symbol, start: int, upto: int) -> Iterator[int]:
    """First whole numbers after a change of sign: every one up to `SCANNED`, beyond it between log-spaced points, by bisection."""
    points = np.arange(float(start), max(start, min(upto, SCANNED)) + 1)
    if upto > SCANNED:
        points = np.unique(np.concatenate([points, np.geomspace(max(start, SCANNED), upto, GRID_POINTS).round()]))
    signs = np.sign(evaluate_arrays(gap, {x: points}))
    if not signs.any():
        raise CostModelError("the two formulas are equal everywhere; there is no crossing")
    for place in np.flatnonzero(signs[:-1] != signs[1:]):
        low, high, before = int(points[place]), int(points[place + 1]), signs[place]
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if np.sign(evaluate(gap, {x: middle})) == before else (low, middle)
        yield high
