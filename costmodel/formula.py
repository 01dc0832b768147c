"""A Formula: one quantity as an expression, its named parts, and its value for any numbers or arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from sympy import Add, Dummy, Eq, Expr, Integer, Max, Min, Piecewise, Symbol, ceiling, diff, floor, latex

from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.evaluate import Value, evaluate, evaluate_arrays, plain, walk
from costmodel.frames import frame
from costmodel.symbols import LATEX_NAMES, LETTERS, Letter, S, T, letter_named
from costmodel.workload import METHODS, Options, Phase

if TYPE_CHECKING:
    import pandas as pd

MAX_INPUT = 10**12
"""The largest batch, context or size a formula is asked for."""

ONE = Integer(1)
PER = {"context": "token", "new_tokens": "token", "batch": "sequence"}
"""What one more of a letter is."""


@dataclass(frozen=True, eq=False)
class Term:
    """One ledger row's share of a quantity: `times` an expression in letters, for each phase, and the letters' numbers.

    `path` is (group, block, op); the parts of a Formula follow it. A value of `binding` may be an expression.
    `by_algorithm`: the phases use different algorithms, so that prefill's share does not hold for a T of 1.
    """

    path: tuple[str, ...]
    times: int
    decode: Expr
    prefill: Expr
    binding: Mapping[Symbol, Expr]
    source: str = ""
    by_algorithm: bool = False

    def bound(self, phase: Phase) -> Expr:
        """The share with the numbers filled in."""
        return self.times * (self.decode if phase is Phase.DECODE else self.prefill).xreplace(dict(self.binding))


class Formula:
    """A quantity of an architecture or a family.

    Call it with letters or their long names (B/batch, T/new_tokens, S/context): whole numbers give an exact int
    where the value is one, arrays broadcast and give float64. Options (attention, precision, view, ...) may be
    given in the same call, which is short for `having(...)`.

    Raises CostModelError for an unknown name, a missing letter, or a value that is not a whole number of at least 1.

    >>> import costmodel as cm
    >>> cache = cm.load("deepseek-v3").cache_bytes
    >>> cache.expr, cache.unit
    (70272*B*S, 'bytes')
    >>> cache(context=131_072), cache(context=131_072, precision="fp8")
    (9210691584, 4605345792)
    """

    def __init__(
        self,
        name: str,
        unit: str,
        derive: Callable[[Options], tuple[Term, ...]],
        *,
        options: Options | None = None,
        takes: tuple[str, ...] = (),
        methods: tuple[str, ...] = (),
        letters: tuple[Symbol, ...] = (),
        given: Mapping[Symbol, Expr] | None = None,
        depth: int = 0,
        in_letters: bool = False,
        recipe: tuple[Any, ...] = (),
        status: str = "derived",
        require: Callable[[Options], Callable[[Mapping[Symbol, Any]], None]] | None = None,
    ) -> None:
        self.name = name
        self.unit = unit
        self.status = status
        self._derive = derive
        self._options = options or Options()
        self._takes = takes
        self._methods = methods
        self._letters = letters
        self._given = dict(given or {})
        self._depth = depth
        self._in_letters = in_letters
        self._recipe = recipe
        self._require = require(self._options) if require else None
        self._required = require
        self._variants: dict[Options, Formula] = {}
        self._slopes: dict[str, Formula] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the question that made it: asked again where it is loaded."""
        return (_asked_again, self._recipe)

    # what it is

    @property
    def options(self) -> dict[str, Any]:
        """The options this quantity takes, as they stand."""
        return {name: getattr(self._options, name) for name in self._takes}

    @property
    def inputs(self) -> tuple[str, ...]:
        """Long names of the letters it is called with."""
        return tuple(LETTERS[symbol.name].field for symbol in self._letters)

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The ledger rows' shares."""
        return self._derive(self._options)

    @cached_property
    def source(self) -> str:
        """The papers whose structure the formula follows."""
        return "; ".join(dict.fromkeys(term.source for term in self.terms if term.source))

    @cached_property
    def expr(self) -> Expr:
        """The expression, in the letters that are left; a T of 1 takes the decode branch where the two differ."""
        turn = self._given.get(T, T)
        if turn == ONE:
            return self._sum(Phase.DECODE)
        prefill = self._sum(Phase.PREFILL)
        if all(term.decode == term.prefill or not term.by_algorithm for term in self.terms):
            return prefill
        return Piecewise((self._sum(Phase.DECODE).xreplace({turn: ONE}), Eq(turn, 1)), (prefill, True))

    def _sum(self, phase: Phase) -> Expr:
        return Add(*(term.bound(phase) for term in self.terms)).xreplace(self._given)

    @property
    def latex(self) -> str:
        """The expression as LaTeX."""
        return latex(self.expr, mul_symbol=r"\,", symbol_names=LATEX_NAMES)  # type: ignore[no-any-return]  # sympy is untyped

    @property
    def python(self) -> str:
        """The expression in plain Python with `import math`: exact ints, in long names.

        >>> import costmodel as cm
        >>> cm.load("mistral-7b-v0.1").cache_bytes.python
        '131072*batch*min(context, 4096)'
        """
        from costmodel.printing import as_python

        return as_python(self.expr)

    @property
    def javascript(self) -> str:
        """The expression in JavaScript, in long names: exact below 2^53.

        >>> import costmodel as cm
        >>> cm.load("mistral-7b-v0.1").cache_bytes.having(view="engine").javascript
        '2097152*batch*Math.ceil(context/16)'
        """
        from costmodel.printing import as_javascript

        return as_javascript(self.expr)

    @property
    def excel(self) -> str:
        """The expression as a spreadsheet formula, without its `=`; `printing.as_excel` puts in cells.

        >>> import costmodel as cm
        >>> cm.load("mistral-7b-v0.1").cache_bytes.having(view="engine").excel
        '2097152*batch*ROUNDUP(context/16, 0)'
        """
        from costmodel.printing import as_excel

        return as_excel(self.expr)

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """The letters the expression depends on, in the order of `symbols.py`."""
        order = {letter.symbol: place for place, letter in enumerate(LETTERS.values())}
        return tuple(sorted(self.expr.free_symbols, key=lambda symbol: order.get(symbol, len(order))))

    @cached_property
    def parts(self) -> dict[str, Formula]:
        """Named Formulas that sum to this one: first by layer group, then by block, then by op."""
        names = dict.fromkeys(term.path[self._depth] for term in self.terms if len(term.path) > self._depth)
        return {name: self._part(name) for name in names}

    def _part(self, name: str) -> Formula:
        depth, whole = self._depth, self._derive

        def derive(options: Options) -> tuple[Term, ...]:
            return tuple(term for term in whole(options) if len(term.path) > depth and term.path[depth] == name)

        return self._like(derive, name=f"{self.name}.{name}", depth=depth + 1, recipe=(self, "_part", name))

    def _like(self, derive: Callable[[Options], tuple[Term, ...]], **changes: Any) -> Formula:
        same: dict[str, Any] = {
            "options": self._options, "takes": self._takes, "methods": self._methods, "letters": self._letters,
            "given": self._given, "depth": self._depth, "in_letters": self._in_letters, "status": self.status,
            "require": self._required,
        }  # fmt: skip
        same |= changes
        return Formula(same.pop("name", self.name), same.pop("unit", self.unit), derive, **same)

    def having(self, **options: Any) -> Formula:
        """The same quantity under other options.

        >>> import costmodel as cm
        >>> cm.load("mistral-7b-v0.1").cache_bytes.having(view="engine").expr
        2097152*B*ceiling(S/16)
        """
        chosen = self._options.with_(self._takes, options)
        if chosen.method in METHODS and chosen.method not in self._methods:
            own = " or ".join(("exact", *self._methods))
            raise CostModelError(f"{chosen.method} belongs to {METHODS[chosen.method]}; {self.name} takes method {own}")
        return self._having(chosen)

    def _having(self, options: Options) -> Formula:
        if options not in self._variants:
            self._variants[options] = self._like(self._derive, options=options, recipe=(self, "_having", options))
        return self._variants[options]

    # its value

    def __call__(self, *unnamed: Any, **inputs: Any) -> Any:
        """The value: an int or a float for plain numbers, a float64 array where any input is an array."""
        if unnamed:
            raise CostModelError(f"{self.name} got {shown(unnamed[0])} without a name; give inputs by name, such as context=4096")
        options = {name: value for name, value in inputs.items() if name in Options.model_fields}
        if options:
            return self.having(**options)(**{name: value for name, value in inputs.items() if name not in options})
        values = self._values(inputs)
        if self._require is not None:
            self._require(values)
        if any(isinstance(value, np.ndarray) for value in values.values()):
            _check_shapes({symbol: value.shape for symbol, value in values.items() if isinstance(value, np.ndarray)})
            return evaluate_arrays(self.expr, values, _Check(values))
        _check_order(values.get(T), values.get(S))
        return self._exact(values)

    def check(self, **inputs: Any) -> None:
        """Raises CostModelError for the inputs and options that a call would refuse."""
        options = {name: value for name, value in inputs.items() if name in Options.model_fields}
        asked = self.having(**options)
        values = asked._values({name: value for name, value in inputs.items() if name not in options})
        _check_order(values.get(T), values.get(S))
        if asked._require is not None:
            asked._require(values)

    def _exact(self, values: dict[Symbol, Any]) -> int | float:
        for letter, stands_for in self._given.items():
            if stands_for.free_symbols <= values.keys():  # of a family, a letter that does not occur need not be given
                values[letter] = evaluate(stands_for, values)
        decode = values.get(T) == 1
        known: dict[int, dict[Any, Value]] = {}
        total: Value = 0
        for term in self.terms:
            letters = known.get(id(term.binding))
            if letters is None:
                letters = known[id(term.binding)] = {**values, **bound_values(term.binding, values)}
            total += term.times * walk(term.decode if decode else term.prefill, letters)
        return plain(total)

    def _values(self, inputs: Mapping[str, Any]) -> dict[Symbol, Any]:
        values: dict[Symbol, Any] = {}
        for name, value in inputs.items():
            letter = letter_named(name)
            if letter is None or letter.symbol not in self._letters:
                known = [LETTERS[symbol.name].field for symbol in self._letters] + list(self._takes)
                raise CostModelError(
                    f"{self.name} has no input {shown(name)}; {did_you_mean(name, known) if known else 'it takes none'}"
                )
            if letter.symbol in values:
                raise CostModelError(f"{letter.field} is given twice; give {letter.field} or {letter.symbol.name}")
            values[letter.symbol] = _number(letter.field, value)
        for symbol in self._letters:
            letter = LETTERS[symbol.name]
            if symbol not in values:
                if letter.default is None and self._needs(symbol):
                    raise CostModelError(f"{self.name} needs {letter.field} ({letter.meaning}); give {letter.field}=...")
                if letter.default is not None:
                    values[symbol] = letter.default
        return values

    def _needs(self, symbol: Symbol) -> bool:
        """A model's formulas need each of their letters; a family's, those that occur."""
        return not self._in_letters or symbol in self.expr.free_symbols

    # what else can be asked of it

    def derivative(self, name: str) -> Formula:
        """The change with one more of a letter: d/d(letter), almost everywhere (steps of pages and chunks are flat).

        >>> import costmodel as cm
        >>> cm.load("deepseek-v3").cache_bytes.derivative("context")(context=4096)
        70272
        """
        letter = letter_named(name)
        if letter is None or letter.symbol not in self._letters:
            known = [LETTERS[symbol.name].field for symbol in self._letters]
            raise CostModelError(
                f"{self.name} does not depend on {shown(name)}; {did_you_mean(name, known) if known else 'it is a constant'}"
            )
        if letter.field not in self._slopes:
            self._slopes[letter.field] = self._derivative(letter)
        return self._slopes[letter.field]

    def _derivative(self, letter: Letter) -> Formula:
        symbol, given = letter.symbol, self._given
        always_one = given.get(T) == ONE  # elsewhere a share that holds for every T has its slope at a T of 1 too

        def derive(options: Options) -> tuple[Term, ...]:
            return tuple(
                Term(
                    term.path, 1,
                    _slope(term.bound(Phase.DECODE if always_one or term.by_algorithm else Phase.PREFILL).xreplace(given), symbol),
                    _slope(term.bound(Phase.PREFILL).xreplace(given), symbol),
                    {}, term.source, term.by_algorithm,
                )
                for term in self._derive(options)
            )  # fmt: skip

        about = {"name": f"d {self.name} / d {letter.field}", "unit": f"{self.unit} per {PER.get(letter.field, letter.field)}"}
        return self._like(derive, **about, recipe=(self, "derivative", letter.field))

    def table(self, **inputs: Any) -> pd.DataFrame:
        """The parts as a DataFrame: part, formula, unit, and their values where inputs are given.

        >>> import costmodel as cm
        >>> list(cm.load("gpt2").cache_bytes.table(context=1024)["value"])
        [37748736]
        """
        return frame(self.rows(**inputs))

    def rows(self, **inputs: Any) -> list[dict[str, Any]]:
        """The rows of `table`, as plain dicts."""
        parts = self.parts or {self.name: self}
        values = {name: {"value": part(**inputs)} if inputs or not part._letters else {} for name, part in parts.items()}
        return [{"part": name, "formula": str(part.expr), "unit": part.unit, **values[name]} for name, part in parts.items()]

    def __repr__(self) -> str:
        return f"{self.name} = {self.expr} [{self.unit}]"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex}$"


def _asked_again(owner: Any, name: str, *arguments: Any) -> Any:
    """A quantity of an owner, or what a method of it gives."""
    return getattr(owner, name)(*arguments) if arguments else getattr(owner, name)


def bound_values(binding: Mapping[Symbol, Expr], values: Mapping[Symbol, Any]) -> dict[Symbol, Value]:
    """The numbers behind letters; a letter bound to letters that have no value is left out, as nothing there needs it."""
    known = {letter: number for letter, number in binding.items() if number.is_Integer or number.free_symbols <= values.keys()}
    return {letter: evaluate(number, values) for letter, number in known.items()}


def _slope(expr: Expr, symbol: Symbol) -> Expr:
    """d expr / d symbol, with floor and ceiling held still and Min and Max by their branches."""
    steps = {step: Dummy() for step in expr.atoms(floor, ceiling)}
    smooth = expr.xreplace(steps)
    kinks = {kink: kink.rewrite(Piecewise) for kink in smooth.atoms(Min, Max)}
    return diff(smooth.xreplace(kinks), symbol).xreplace({dummy: step for step, dummy in steps.items()})


def _number(name: str, value: Any) -> Any:
    """An input as an int or an array of numbers. Raises CostModelError for anything else."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        if not 1 <= value <= MAX_INPUT:
            _refuse(name, value)
        return int(value)
    if isinstance(value, (float, np.floating)):
        if not 1 <= value <= MAX_INPUT or value != int(value):
            _refuse(name, value)
        return int(value)
    if value is None or isinstance(value, (str, bytes, bool, dict, set)):
        _refuse(name, value)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        _refuse(name, value)
    if array.dtype.kind not in "iuf":
        raise CostModelError(f"{name} got {shown(value)} of {array.dtype}; give whole numbers from 1 to {MAX_INPUT}")
    return array if array.ndim else _number(name, array.item())


def _refuse(name: str, value: Any) -> None:
    value = value.item() if isinstance(value, np.generic) else value
    raise CostModelError(f"{name} got {shown(value)}; give a whole number from 1 to {MAX_INPUT}")


def _check_shapes(shapes: Mapping[Symbol, tuple[int, ...]]) -> None:
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        told = ", ".join(f"{LETTERS[symbol.name].field} {list(shape)}" for symbol, shape in shapes.items())
        raise CostModelError(f"arrays of shapes {told} do not broadcast; give shapes that do") from None


class _Check:
    """Refuses blocks of arrays that hold anything but whole numbers in range, and new tokens beyond the context."""

    def __init__(self, values: Mapping[Symbol, Any]) -> None:
        arrays = {symbol: value for symbol, value in values.items() if isinstance(value, np.ndarray)}
        self._whole = {symbol: value.dtype.kind in "iu" for symbol, value in arrays.items()}
        self._order = (values[T], values[S]) if T in values and S in values and {T, S} & self._whole.keys() else None

    def __call__(self, block: Mapping[Symbol, Any]) -> None:
        for symbol, whole in self._whole.items():
            value = block[symbol]
            # a sum of squares is cheaper than a maximum, and NaN and infinity spoil it too
            small = np.dot(value, value) <= float(MAX_INPUT) ** 2
            if not small or value.min() < 1 or not (whole or (value == np.floor(value)).all()):
                _refuse_first(LETTERS[symbol.name].field, value)
        if self._order:
            _check_order(block.get(T, self._order[0]), block.get(S, self._order[1]))


def _refuse_first(name: str, block: Any) -> None:
    """Raises for the first value of a block that is no whole number in range."""
    wrong = ~((block >= 1) & (block <= MAX_INPUT) & (block == np.floor(block)))
    if wrong.any():
        _refuse(name, block[wrong][0])


def _check_order(new_tokens: Any, context: Any) -> None:
    if new_tokens is None or context is None:
        return
    if np.any(np.greater(new_tokens, context)):
        new, whole = np.broadcast_arrays(new_tokens, context)
        first = np.flatnonzero(new > whole)[0]
        came = f"new_tokens {int(new.flat[first])} exceeds context {int(whole.flat[first])}"
        raise CostModelError(f"{came}; context counts the new tokens too")
