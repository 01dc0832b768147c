"""A formula as Python, as JavaScript and for a spreadsheet, each printed from the one expression.

Fractions are first cleared: an expression becomes a whole numerator over one denominator, which most coefficients
cancel. So the text multiplies whole numbers and divides at most once, at the end: exact in Python, and exact below
2^53 in the doubles of JavaScript and spreadsheets. Text never becomes an expression here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from math import gcd, lcm, prod
from typing import ClassVar, Protocol

from sympy import Add, Expr, Float, Integer, Max, Min, Mul, Piecewise, Pow, Symbol, ceiling, floor, fraction, log, together
from sympy.core.basic import Basic
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanTrue

from costmodel.errors import CostModelError, shown
from costmodel.evaluate import distinct_experts, walk
from costmodel.symbols import LETTERS, Letter, letter_named
from costmodel.units import whole

CHOICE, SUM, PRODUCT, POWER, ATOM = range(5)
"""How tightly a text holds together: below what its surroundings ask for, it gets parentheses."""

Text = tuple[str, int]
"""A printed expression and how tightly it holds together."""

MAX_RESIDUES = 4_096
"""The most cases tried to prove that a quotient is always whole."""
MAX_REPEATED = 4
"""The highest power written as a product, where powers are inexact."""
EXCEL_DIGITS = 10**15
"""Spreadsheets keep 15 digits of a number that is typed."""


def as_python(expr: Expr) -> str:
    """An expression in plain Python with `import math`, in field names: an exact int where the value is one.

    >>> from costmodel.symbols import S, T
    >>> as_python(3 * (S * T - T * (T - 1) / 2))
    '(6*context*new_tokens - 3*new_tokens*(new_tokens - 1)) // 2'
    """
    return _Python().text(expr)[0]


def as_javascript(expr: Expr) -> str:
    """An expression in JavaScript, in field names: exact below 2^53.

    >>> from costmodel.symbols import S, W
    >>> as_javascript(Min(S, W) ** 2)
    'Math.min(context, sliding_window)*Math.min(context, sliding_window)'
    """
    return _JavaScript().text(expr)[0]


def as_excel(expr: Expr, cells: Mapping[str, str] | None = None) -> str:
    """A spreadsheet formula without its `=`, for Excel, LibreOffice and Google Sheets alike: exact below 2^53.

    `cells` gives letters their cells, by letter or field name; any other has its field name. Function names are the
    English ones, arguments stand between commas.

    >>> from costmodel.symbols import B, S
    >>> as_excel(4096 * B * ceiling(S / 16), {"context": "B2"})
    '4096*batch*ROUNDUP(B2/16, 0)'
    """
    return _Excel({_letter(name).field: cell for name, cell in (cells or {}).items()}).text(expr)[0]


class Named(Protocol):
    """What has a name and an expression, such as a Formula."""

    name: str

    @property
    def expr(self) -> Expr:
        """The expression."""


def spreadsheet_block(formula: Named, values: Mapping[str, int]) -> str:
    r"""Tab-separated lines to paste at cell A1: a name and a number for each letter, then the live formula.

    `values` may give more letters than the formula has. Raises CostModelError for one that is missing.

    >>> import costmodel as cm
    >>> print(spreadsheet_block(cm.load("deepseek-v3").cache_bytes, {"context": 131_072}).expandtabs(12))
    batch       1
    context     131072
    cache_bytes =70272*B1*B2
    """
    given = {_letter(name).field: whole(name, value) for name, value in values.items()}
    letters = [letter for letter in LETTERS.values() if letter.symbol in formula.expr.free_symbols]
    rows = [f"{letter.field}\t{_given(formula.name, letter, given)}" for letter in letters]
    cells = {letter.field: f"B{row}" for row, letter in enumerate(letters, 1)}
    return "\n".join([*rows, f"{_inert(formula.name)}\t={as_excel(formula.expr, cells)}"])


def _given(name: str, letter: Letter, given: Mapping[str, int]) -> int:
    value = given.get(letter.field, letter.default)
    if value is None:
        raise CostModelError(f"{name} needs {letter.field} ({letter.meaning}); give {letter.field}=...")
    return value


def _inert(name: str) -> str:
    """A name as one cell that no spreadsheet takes for a formula."""
    one_cell = " ".join(name.split())
    return f"'{one_cell}" if one_cell.startswith(("=", "+", "-", "@")) else one_cell


def _letter(name: str) -> Letter:
    letter = letter_named(name)
    if letter is None:
        raise CostModelError(f"no letter {shown(name)}; give names such as context or batch")
    return letter


# fractions, cleared


def cleared(expr: Expr) -> tuple[Expr, int]:
    """A numerator and a denominator; the numerator is whole where the letters are, unless it holds functions like log.

    >>> from costmodel.symbols import B, S, T
    >>> cleared(10 * B * (S * T - T * (T - 1) / 2))
    (5*B*(2*S*T - T*(T - 1)), 1)
    """
    if expr.is_Rational:
        return Integer(expr.p), int(expr.q)
    if isinstance(expr, Mul):
        return _cancelled(*zip(*map(cleared, expr.args), strict=True))
    if isinstance(expr, Pow) and expr.exp.is_Integer and expr.exp > 0:
        above, below = cleared(expr.base)
        return above**expr.exp, below ** int(expr.exp)
    if isinstance(expr, Piecewise):
        branches, below = _common(branch for branch, _ in expr.args)
        pairs = zip(branches, (holds for _, holds in expr.args), strict=True)
        return (Piecewise(*pairs, evaluate=False) if below > 1 else expr), below
    if isinstance(expr, Add):
        parts, below = _common(expr.args)
        return Add(*parts), below
    if isinstance(expr, (Min, Max)):
        parts, below = _common(expr.args)
        return (expr.func(*parts, evaluate=False) if below > 1 else expr), below
    return expr, 1


def _common(exprs: Iterable[Expr]) -> tuple[list[Expr], int]:
    """The numerators of several expressions over one denominator."""
    pairs = [cleared(expr) for expr in exprs]
    below = lcm(*(own for _, own in pairs))
    return [above * (below // own) for above, own in pairs], below


def _cancelled(above: tuple[Expr, ...], below: tuple[int, ...]) -> tuple[Expr, int]:
    """A product's numerator and denominator, without the factor that its coefficient shares with the denominator."""
    coefficient, rest = Mul(*above).as_coeff_Mul()
    shared = gcd(int(coefficient), prod(below)) if coefficient.is_Integer else 1
    return coefficient / shared * rest, prod(below) // shared


def _always_whole(above: Expr, below: int) -> bool:
    """Whether `below` divides the numerator for all whole numbers: tried on every residue of what it is a polynomial of."""
    unknowns = sorted(_unknowns(above), key=str)
    if below ** len(unknowns) > MAX_RESIDUES or _is_float(above):
        return False
    cases = product(range(below), repeat=len(unknowns))
    return all(walk(above, dict(zip(unknowns, case, strict=True))) % below == 0 for case in cases)


def _unknowns(expr: Expr) -> set[Expr]:
    """The letters and functions that an expression is a polynomial of."""
    if isinstance(expr, (Add, Mul)) or (isinstance(expr, Pow) and expr.exp.is_Integer and expr.exp > 0):
        return set().union(*(_unknowns(arg) for arg in expr.args))
    return set() if expr.is_Integer else {expr}


def _is_float(expr: Expr) -> bool:
    """Whether an expression's value may be a float even for whole letters."""
    if isinstance(expr, (floor, ceiling)):
        return False
    inexact = isinstance(expr, Pow) and not (expr.exp.is_integer and expr.exp.is_nonnegative)
    return inexact or isinstance(expr, (Float, distinct_experts, log)) or any(map(_is_float, expr.args))


# one language each


def _held(text: Text, tightly: int) -> str:
    return text[0] if text[1] >= tightly else f"({text[0]})"


class _Printer(ABC):
    """Prints expressions; what languages write differently is left to each."""

    LANGUAGE: ClassVar[str]
    FUNCTIONS: ClassVar[dict[type[Basic], str]]
    RELATIONS: ClassVar[dict[str, str]]

    def text(self, expr: Expr) -> Text:
        """An expression of any kind. Raises CostModelError for one that this language cannot say."""
        if isinstance(expr, Piecewise):
            return self._choice(expr)
        above, below = cleared(expr)
        return self._whole(above) if below == 1 else self.quotient(above, below)

    def _whole(self, expr: Expr) -> Text:
        """An expression whose fractions are cleared."""
        for kind, printed in self._kinds():
            if isinstance(expr, kind):
                return printed(expr)
        raise CostModelError(f"{type(expr).__name__} cannot be printed as {self.LANGUAGE}; print what a Formula gives")

    def _kinds(self) -> list[tuple[type[Basic] | tuple[type[Basic], ...], Callable[[Expr], Text]]]:
        return [
            (Symbol, lambda expr: (self.letter(self._field(expr)), ATOM)),
            (Integer, lambda expr: self.integer(int(expr))),
            (Float, lambda expr: (repr(float(expr)), ATOM if expr >= 0 else SUM)),
            (Add, self._sum),
            (Mul, self._product),
            (Pow, self._power),
            (Piecewise, self._choice),
            (floor, lambda expr: self.floor(*fraction(together(expr.args[0])))),
            (ceiling, lambda expr: self.ceiling(*fraction(together(expr.args[0])))),
            (distinct_experts, lambda expr: self.distinct(*expr.args)),
            (tuple(self.FUNCTIONS), self._called),
        ]

    def _field(self, symbol: Symbol) -> str:
        if symbol.name not in LETTERS or LETTERS[symbol.name].symbol != symbol:
            raise CostModelError(f"no letter {shown(symbol.name)}; formulas are printed in the letters of costmodel.symbols")
        return LETTERS[symbol.name].field

    def _sum(self, expr: Add) -> Text:
        first, *others = expr.as_ordered_terms()
        text = _held(self._whole(first), SUM)
        for term in others:
            negative = term.as_coeff_Mul()[0].is_negative
            text += " - " if negative else " + "
            text += _held(self._whole(-term if negative else term), PRODUCT)
        return text, SUM

    def _product(self, expr: Mul) -> Text:
        """Coefficient first; factors with a negative exponent make one denominator."""
        coefficient, rest = expr.as_coeff_Mul()
        if coefficient.is_negative:
            return f"-{_held(self._whole(-coefficient * rest), PRODUCT)}", SUM
        above, below = self._split(expr)
        texts = [_held(self._whole(factor), PRODUCT) for factor in above] or ["1"]
        text = "*".join(texts)
        return (f"{text}/{_held(self.text(Mul(*below)), ATOM)}" if below else text), PRODUCT

    def _split(self, expr: Mul) -> tuple[list[Expr], list[Expr]]:
        factors = expr.as_ordered_factors()
        under = [factor for factor in factors if isinstance(factor, Pow) and factor.exp.is_negative]
        return [factor for factor in factors if factor not in under], [1 / factor for factor in under]

    def _power(self, expr: Pow) -> Text:
        if expr.exp.is_negative:
            return f"1/{_held(self.text(1 / expr), ATOM)}", PRODUCT
        return self.power(expr.base, expr.exp)

    def _repeated(self, base: Expr, exponent: Expr) -> Text | None:
        """A low power as a product, which doubles have exactly."""
        if not exponent.is_Integer or exponent > MAX_REPEATED:
            return None
        return "*".join([_held(self.text(base), POWER)] * int(exponent)), PRODUCT

    def _called(self, expr: Expr) -> Text:
        return f"{self.FUNCTIONS[expr.func]}({', '.join(self.text(arg)[0] for arg in self._ordered(expr))})", ATOM

    def _ordered(self, expr: Expr) -> list[Expr]:
        """Arguments in an order that stays: those of Min and Max come as a set."""
        return sorted(expr.args, key=lambda arg: (arg.is_number, str(arg)))

    def _choice(self, expr: Piecewise) -> Text:
        *branches, (otherwise, last) = expr.args
        if not isinstance(last, BooleanTrue):
            raise CostModelError(f"a Piecewise without a last branch cannot be printed as {self.LANGUAGE}; end it with True")
        chosen = self.text(otherwise)
        for branch, holds in reversed(branches):
            chosen = self.choice(self._condition(holds), self.text(branch), chosen)
        return chosen

    def _condition(self, holds: Basic) -> str:
        if not isinstance(holds, Relational) or holds.rel_op not in self.RELATIONS:
            raise CostModelError(f"{type(holds).__name__} cannot be printed as {self.LANGUAGE}; print what a Formula gives")
        (left, right), _ = _common((holds.lhs, holds.rhs))
        return f"{_held(self._whole(left), SUM)} {self.RELATIONS[holds.rel_op]} {_held(self._whole(right), SUM)}"

    def letter(self, field: str) -> str:
        """A letter."""
        return field

    def integer(self, number: int) -> Text:
        """A whole number."""
        return str(number), ATOM if number >= 0 else SUM

    def quotient(self, above: Expr, below: int) -> Text:
        """A numerator over a whole number."""
        return f"{_held(self._whole(above), PRODUCT)}/{below}", PRODUCT

    @abstractmethod
    def power(self, base: Expr, exponent: Expr) -> Text:
        """A power that is not in a denominator."""

    @abstractmethod
    def floor(self, above: Expr, below: Expr) -> Text:
        """A quotient rounded down."""

    @abstractmethod
    def ceiling(self, above: Expr, below: Expr) -> Text:
        """A quotient rounded up."""

    @abstractmethod
    def distinct(self, experts: Expr, used: Expr, tokens: Expr) -> Text:
        """The expected number of distinct experts."""

    @abstractmethod
    def choice(self, holds: str, branch: Text, otherwise: Text) -> Text:
        """One of two, by a condition."""

    def ratio(self, above: Expr, below: Expr) -> str:
        """A quotient of two expressions."""
        return _held(self.text(above), PRODUCT) + ("" if below == 1 else f"/{_held(self.text(below), ATOM)}")

    def missed_by_one(self, experts: Expr, used: Expr, expm1: str, log1p: str, tokens: Expr) -> str:
        """The distinct experts in C's functions of small numbers."""
        none_of = f"{log1p}(-{self.ratio(used, experts)})"
        return f"-{_held(self.text(experts), ATOM)}*{expm1}({_held(self.text(tokens), PRODUCT)}*{none_of})"


class _Python(_Printer):
    LANGUAGE = "Python"
    FUNCTIONS: ClassVar = {Min: "min", Max: "max", log: "math.log"}
    RELATIONS: ClassVar = {relation: relation for relation in ("==", "!=", "<", "<=", ">", ">=")}

    def quotient(self, above: Expr, below: int) -> Text:
        """An exact int where it is whole, else the nearest float, as a Formula gives."""
        text = _held(self._whole(above), PRODUCT)
        if _always_whole(above, below):
            return f"{text} // {below}", SUM
        if above.is_number or _is_float(above):
            return f"{text}/{below}", PRODUCT
        return f"n // {below} if (n := {self._whole(above)[0]}) % {below} == 0 else n / {below}", CHOICE

    def power(self, base: Expr, exponent: Expr) -> Text:
        return f"{_held(self.text(base), ATOM)}**{_held(self.text(exponent), ATOM)}", POWER

    def floor(self, above: Expr, below: Expr) -> Text:
        return f"{_held(self.text(above), PRODUCT)} // {_held(self.text(below), ATOM)}", SUM

    def ceiling(self, above: Expr, below: Expr) -> Text:
        return f"-(-{_held(self.text(above), PRODUCT)} // {_held(self.text(below), ATOM)})", SUM

    def distinct(self, experts: Expr, used: Expr, tokens: Expr) -> Text:
        """All experts used has a branch of its own, as Python's log1p refuses -1."""
        text = self.missed_by_one(experts, used, "math.expm1", "math.log1p", tokens), SUM
        if (used < experts) == True:  # noqa: E712 - letters leave it open
            return text
        return self.choice(f"{_held(self.text(used), SUM)} < {_held(self.text(experts), SUM)}", text, self.text(experts))

    def choice(self, holds: str, branch: Text, otherwise: Text) -> Text:
        return f"{_held(branch, SUM)} if {holds} else {otherwise[0]}", CHOICE


class _JavaScript(_Printer):
    LANGUAGE = "JavaScript"
    FUNCTIONS: ClassVar = {Min: "Math.min", Max: "Math.max", log: "Math.log"}
    RELATIONS: ClassVar = {"==": "===", "!=": "!=="} | {relation: relation for relation in ("<", "<=", ">", ">=")}

    def power(self, base: Expr, exponent: Expr) -> Text:
        return self._repeated(base, exponent) or (f"Math.pow({self.text(base)[0]}, {self.text(exponent)[0]})", ATOM)

    def floor(self, above: Expr, below: Expr) -> Text:
        return f"Math.floor({self.ratio(above, below)})", ATOM

    def ceiling(self, above: Expr, below: Expr) -> Text:
        return f"Math.ceil({self.ratio(above, below)})", ATOM

    def distinct(self, experts: Expr, used: Expr, tokens: Expr) -> Text:
        return self.missed_by_one(experts, used, "Math.expm1", "Math.log1p", tokens), SUM

    def choice(self, holds: str, branch: Text, otherwise: Text) -> Text:
        return f"{holds} ? {_held(branch, SUM)} : {otherwise[0]}", CHOICE


class _Excel(_Printer):
    LANGUAGE = "a spreadsheet formula"
    FUNCTIONS: ClassVar = {Min: "MIN", Max: "MAX", log: "LN"}
    RELATIONS: ClassVar = {"==": "=", "!=": "<>"} | {relation: relation for relation in ("<", "<=", ">", ">=")}

    def __init__(self, cells: Mapping[str, str]) -> None:
        self._cells = cells

    def letter(self, field: str) -> str:
        return self._cells.get(field, field)

    def integer(self, number: int) -> Text:
        """Long numbers in two pieces, as a spreadsheet keeps the first 15 digits of what is typed."""
        if abs(number) < EXCEL_DIGITS:
            return super().integer(number)
        high, low = divmod(number, 10**9)
        return f"{_held(self.integer(high), PRODUCT)}*{10**9} + {low}", SUM

    def power(self, base: Expr, exponent: Expr) -> Text:
        return self._repeated(base, exponent) or (f"POWER({self.text(base)[0]}, {self.text(exponent)[0]})", ATOM)

    def floor(self, above: Expr, below: Expr) -> Text:
        return f"INT({self.ratio(above, below)})", ATOM

    def ceiling(self, above: Expr, below: Expr) -> Text:
        """ROUNDUP goes away from zero, which is up for numbers that are not negative."""
        if (above / below).is_nonnegative:
            return f"ROUNDUP({self.ratio(above, below)}, 0)", ATOM
        return f"-INT(-{self.ratio(above, below)})", SUM

    def distinct(self, experts: Expr, used: Expr, tokens: Expr) -> Text:
        missed = f"(1 - {self.ratio(used, experts)})^{_held(self.text(tokens), ATOM)}"
        return f"{_held(self.text(experts), PRODUCT)}*(1 - {missed})", PRODUCT

    def choice(self, holds: str, branch: Text, otherwise: Text) -> Text:
        return f"IF({holds}, {branch[0]}, {otherwise[0]})", ATOM
