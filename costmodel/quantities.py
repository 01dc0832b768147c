"""The public quantities, each a Formula that sums over ledger rows. Whatever has rows has them: a model, or one family."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from sympy import Expr, Symbol

from costmodel.blocks import FAMILIES
from costmodel.cost import ONE, ZERO, Cost, Weight
from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.evaluate import evaluate
from costmodel.formula import Formula, Term, bound_values
from costmodel.frames import frame
from costmodel.ops import Op
from costmodel.symbols import B, S, T
from costmodel.units import whole
from costmodel.workload import PACKED_MLA, Options, Pass, Phase, Precision, View

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Row:
    """One ledger row: an op of a block in a group, `times` over, with the numbers behind its letters.

    `stored` is how many times its weights are stored where that is fewer (None: as often as they are used).
    """

    group: str
    layers: int
    block: str
    op: Op
    times: int
    binding: dict[Symbol, Expr]
    source: str = ""
    stored: int | None = None

    @property
    def copies(self) -> int:
        """How many times its weights are stored."""
        return self.times if self.stored is None else self.stored

    @property
    def path(self) -> tuple[str, str, str]:
        """Where the row stands: (group, block, op)."""
        return (self.group, self.block, self.op.name)


@dataclass(frozen=True, eq=False)
class UsualHeads:
    """Heads and their width in `layers` layers of a group, with the numbers behind their letters."""

    group: str
    layers: int
    heads: Expr
    width: Expr
    binding: dict[Symbol, Expr]


Quantity = Callable[[Cost], Expr]
ALGORITHMS = tuple(name for family in FAMILIES.values() for name in family.algorithms)
"""Every algorithm that a block may be asked for."""
BOTH_PHASES = (Phase.DECODE, Phase.PREFILL)
TOKEN_TABLE = ("embedding", "embedding", "embed_tokens")
HEAD = ("head", "head", "lm_head")
ONE_PHASE = (Phase.PREFILL, Phase.PREFILL)
PASS_OPTIONS = ("attention", "logits", "algorithm", "mtp", "images")
CACHE_OPTIONS = ("precision", "view", "block", "evict_windows", "tp", "speculative", "hybrid_pages", "mtp", "method", "sampling")
LEDGER_OPTIONS = ("precision", *PASS_OPTIONS)


class Quantities:
    """Parameters, cache, FLOPs and bytes of whatever has ledger rows: an architecture, or one layer of a family."""

    @abstractmethod
    def _rows(self, options: Options, phase: Phase) -> tuple[Row, ...]:
        """Every row of one pass, in letters beside their numbers."""

    def _formula(self, name: str, unit: str, derive: Callable[[Options], tuple[Term, ...]], **about: Any) -> Formula:
        """A Formula over this thing's letters."""
        return Formula(name, unit, derive, recipe=self._recipe(name), **about)

    def _recipe(self, name: str) -> tuple[Any, ...]:
        """How a quantity is asked for: by its attribute, a parameter count by its name."""
        count = name.removeprefix("params.")
        return (self, name) if count == name else (self, "_count", count)

    def _precision(self, options: Options, names: str) -> Precision:
        """The precision asked for; a bare name sets the `weights` or the `cache`."""
        return options.as_precision(names)

    def _paged(self, view: View, precision: Precision) -> View:
        """The view with the length of a page settled."""
        return view

    @abstractmethod
    def _usual_heads(self) -> Iterator[UsualHeads]:
        """Every layer's heads, as a reader of the config takes them for the usual formula 2 L H d."""

    def _padding(self, view: View, precision: Precision) -> tuple[Term, ...]:
        """Bytes a page leaves unused."""
        return ()

    def _stored(self, options: Options, quantity: Quantity) -> tuple[Term, ...]:
        """The rows' shares of a quantity of what is stored: weights that layers share count once."""
        return self._terms(options, quantity, ONE_PHASE, stored=True)

    def _terms(
        self, options: Options, quantity: Quantity, phases: tuple[Phase, Phase] = BOTH_PHASES, *, stored: bool = False
    ) -> tuple[Term, ...]:
        """The rows' shares of a quantity in both phases; a row that only one phase has is 0 in the other."""
        found = [
            {(row.path, place): row for place, row in _numbered(self._rows(options, phase))} for phase in dict.fromkeys(phases)
        ]
        decode, prefill = found[0], found[-1]
        terms = []
        for key in {**prefill, **decode}:
            row = prefill.get(key) or decode[key]
            costs = [quantity(side[key].op.cost) if key in side else ZERO for side in (decode, prefill)]
            if costs[0] != 0 or costs[1] != 0:
                times = row.copies if stored else row.times
                terms.append(Term(row.path, times, costs[0], costs[1], row.binding, row.source, row.op.algorithm != ""))
        return tuple(terms)

    def ledger_rows(self, new_tokens: int = 1, context: int = 1, batch: int = 1, **options: Any) -> list[dict[str, Any]]:
        """The rows of `ledger` as plain dicts."""
        chosen = Options().with_(LEDGER_OPTIONS, options)
        new_tokens, context, batch = whole("new_tokens", new_tokens), whole("context", context), whole("batch", batch)
        self.flops.check(new_tokens=new_tokens, context=context, batch=batch)
        precision = chosen.as_precision("weights")
        letters = {B: batch, T: new_tokens, S: context}
        rows = self._rows(chosen, Phase.DECODE if new_tokens == 1 else Phase.PREFILL)
        return [_numbers(row, precision, letters) for row in rows]

    def ledger(self, new_tokens: int = 1, context: int = 1, batch: int = 1, **options: Any) -> pd.DataFrame:
        """One row for each op of one pass: parameters, FLOPs and bytes together, over all layers of its group.

        `params`, `flops`, `weight_bytes` (stored), `cache_bytes` (kept) and `bytes_moved` sum to the quantities of
        the same name. `bytes_moved` = `weight_bytes_moved` + `activation_bytes` + `cache_bytes_moved`; vector ops
        stay out of `flops` and have `vector_flops`. Options: attention, logits, algorithm, precision, mtp, images.

        >>> import costmodel as cm
        >>> gpt2 = cm.load("gpt2")
        >>> int(gpt2.ledger(new_tokens=1, context=1024)["flops"].sum()) == gpt2.flops(new_tokens=1, context=1024)
        True
        """
        return frame(self.ledger_rows(new_tokens, context, batch, **options))

    # quantities

    @cached_property
    def params(self) -> Params:
        """Parameter counts, and the formulas behind them."""
        return Params(self._count)

    def _count(self, name: str) -> Formula:
        return self._formula(f"params.{name}", "parameters", lambda options: self._count_terms(name))

    def _count_terms(self, name: str) -> tuple[Term, ...]:
        """The rows' parameters that a count includes."""
        options = Options(mtp=self._mtp_modules() if name == "mtp" else 0)
        if name == "active":
            return self._stored(options, lambda cost: cost.active)
        if name == "routed_experts":
            return self._stored(options, lambda cost: replace(cost, weights=tuple(w for w in cost.weights if _routed(w))).params)
        stored = self._stored(options, lambda cost: cost.params)
        table = tuple(term for term in stored if term.path == TOKEN_TABLE)
        if name == "active_with_embedding":
            active = self._count_terms("active")
            tied = any(term.path == HEAD for term in active) and not any(term.path == HEAD for term in stored)
            return active if tied else table + active
        if name == "embedding":
            return table
        return stored if name == "total" else tuple(term for term in stored if term.path[0] == name)

    def _mtp_modules(self) -> int:
        """Multi-token-prediction modules there are."""
        return 0

    @cached_property
    def cache_bytes(self) -> Formula:
        """Bytes kept of `batch` sequences at `context` tokens.

        Options: precision (a name sets the cache), view and those of the engine view, mtp, and `method` (`2lhd`: the
        usual formula, 2 x layers x key/value heads x head width x bytes an element, every layer alike). A model of text
        diffusion keeps its finished blocks; with sampling `uncached` or `plain` nothing.

        >>> import costmodel as cm
        >>> deepseek = cm.load("deepseek-v3").cache_bytes
        >>> round(deepseek(context=4096, method="2lhd") / deepseek(context=4096), 1)
        24.9
        """

        def derive(options: Options) -> tuple[Term, ...]:
            precision = self._precision(options, "cache")
            if options.method == "2lhd":
                return self._usual_cache(precision)
            view = self._paged(options.as_view(), precision)
            return self._terms(options, lambda cost: cost.cache_bytes(precision, view), ONE_PHASE) + self._padding(view, precision)

        return self._formula("cache_bytes", "bytes", derive, takes=CACHE_OPTIONS, methods=("2lhd",), letters=(B, S))

    def _usual_cache(self, precision: Precision) -> tuple[Term, ...]:
        """Keys and values of every token in every layer: the formula of most calculators."""
        if precision.cache == PACKED_MLA:
            raise CostModelError(f"method 2lhd counts keys and values, not the packed {PACKED_MLA}; choose fp8 or bf16")
        terms = []
        for usual in self._usual_heads():
            share = 2 * usual.heads * usual.width * B * S * precision.element("cache")
            terms.append(Term((usual.group, "2lhd", "keys_and_values"), usual.layers, share, share, usual.binding))
        return tuple(terms)

    @cached_property
    def flops(self) -> Formula:
        """Tensor FLOPs of one pass of `new_tokens` tokens a sequence that ends at `context`.

        Options: attention, logits, algorithm, mtp, images.
        """
        return self._formula("flops", "FLOP", self._flop_terms, takes=PASS_OPTIONS, letters=(B, T, S))

    @cached_property
    def prefill_flops(self) -> Formula:
        """Tensor FLOPs of a whole prompt of `context` tokens: `flops` with T = S."""
        return self._formula("prefill_flops", "FLOP", self._flop_terms, takes=PASS_OPTIONS, letters=(B, S), given={T: S})

    @cached_property
    def decode_flops(self) -> Formula:
        """Tensor FLOPs of one new token a sequence at `context`: `flops` with T = 1."""
        return self._formula("decode_flops", "FLOP", self._flop_terms, takes=PASS_OPTIONS[:-1], letters=(B, S), given={T: ONE})

    def _flop_terms(self, options: Options) -> tuple[Term, ...]:
        return self._terms(options, lambda cost: cost.flops)

    @cached_property
    def training_flops(self) -> Formula:
        """Tensor FLOPs of one training step on `batch` sequences of `context` tokens: forward and twice that backward.

        All logits, latent attention expanded, recurrences chunked. Options: `attention`, `recompute` (`selective`
        repeats attention's forward, `full` every forward), `mtp`, `method` (`6nd`: 6 x active parameters x tokens).
        """

        def derive(options: Options) -> tuple[Term, ...]:
            if options.method == "6nd":
                active = self._stored(options, lambda cost: cost.active)
                return tuple(replace(term, decode=6 * B * S * term.decode, prefill=6 * B * S * term.prefill) for term in active)
            forward = options.model_copy(update={"logits": "all"})
            rows = self._terms(forward, lambda cost: cost.flops, ONE_PHASE)
            again = {row.path for row in self._rows(forward, Phase.PREFILL) if options.recompute == "full" or _is_attention(row.op)}
            return tuple(
                replace(term, times=term.times + (3 if options.recompute != "none" and term.path in again else 2) * learned)
                for term in rows
                for learned in [self._learned(term.path[0], term.times)]
            )

        return self._formula(
            "training_flops", "FLOP", derive, takes=("attention", "recompute", "method", "mtp"), methods=("6nd",),
            letters=(B, S), given={T: S},
        )  # fmt: skip

    def _learned(self, group: str, times: int) -> int:
        """How many of a row's `times` gradients pass."""
        return times

    @cached_property
    def weight_bytes(self) -> Formula:
        """Bytes of all stored weights, block scales included.

        Options: precision (a name sets weights and experts), mtp (modules stored too).
        """

        def derive(options: Options) -> tuple[Term, ...]:
            precision = self._precision(options, "weights")
            return self._stored(options, lambda cost: cost.weight_bytes(precision))

        return self._formula("weight_bytes", "bytes", derive, takes=("precision", "mtp"))

    @cached_property
    def bytes_moved(self) -> Formula:
        """Bytes one pass reads and writes: weights (of routed experts the expected distinct ones), activations, cache.

        Each tensor once; what a kernel keeps on chip is not counted. Options: precision, attention, logits, algorithm, mtp, images.
        """

        return self._formula("bytes_moved", "bytes", self._moved_terms, takes=("precision", *PASS_OPTIONS), letters=(B, T, S))

    def _moved_terms(self, options: Options) -> tuple[Term, ...]:
        precision = self._precision(options, "weights")
        return self._terms(options, lambda cost: cost.bytes_moved(precision))


class Params:
    """Parameter counts as exact ints; `formula(name)` gives the Formula behind each.

    `total` every trained tensor, tied tables once, towers included; `active` those used for one token of text, the
    input table left out unless it is the head; `active_with_embedding` adds it back; `embedding` the token table;
    `routed_experts`; `vision` tower and projector; `mtp` the own tensors of the multi-token-prediction modules.
    """

    NAMES: ClassVar[tuple[str, ...]] = ("total", "active", "active_with_embedding", "embedding", "routed_experts", "vision", "mtp")

    _count: Callable[[str], Formula]
    _formulas: dict[str, Formula]
    total: int
    active: int
    active_with_embedding: int
    embedding: int
    routed_experts: int
    vision: int
    mtp: int

    def __init__(self, count: Callable[[str], Formula]) -> None:
        self.__dict__.update(_count=count, _formulas={})

    def formula(self, name: str) -> Formula:
        """The Formula of one of the counts."""
        if not isinstance(name, str) or name not in self.NAMES:
            raise CostModelError(f"no parameter count {shown(name)}; {did_you_mean(name, self.NAMES)}")
        if name not in self._formulas:
            self._formulas[name] = self._count(name)
        return self._formulas[name]

    def __getattr__(self, name: str) -> int:
        if name not in self.NAMES:
            raise AttributeError(f"parameter counts have no {name!r}; {did_you_mean(name, self.NAMES)}")
        value = int(self.formula(name)())
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"parameter counts are derived and cannot be set: {name!r}; change the architecture's fields")

    def as_dict(self) -> dict[str, int]:
        """All counts by name."""
        return {name: getattr(self, name) for name in self.NAMES}

    def __repr__(self) -> str:
        return f"Params({', '.join(f'{name}={value:,}' for name, value in self.as_dict().items())})"


def pass_of(options: Options, phase: Phase) -> Pass:
    """The pass that options describe. Raises CostModelError for an algorithm that no family has."""
    forward = options.as_pass(phase)
    unknown = next((name for name in forward.algorithms if name not in ALGORITHMS), None)
    if unknown is not None:
        raise CostModelError(f"no algorithm {shown(unknown)}; {did_you_mean(unknown, ('auto', *ALGORITHMS))}")
    return forward


def _routed(weight: Weight) -> bool:
    """Of the matrices a layer stores, a token uses some: those of routed experts."""
    return weight.active not in (weight.copies, ZERO) and weight.copies not in (ZERO, ONE)


def _is_attention(op: Op) -> bool:
    return op.kind == "attend"


def _numbered(rows: tuple[Row, ...]) -> Iterator[tuple[int, Row]]:
    """Rows with their place among rows of the same path, so that equal names stay apart."""
    seen: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        yield seen[row.path], row
        seen[row.path] += 1


def _numbers(row: Row, precision: Precision, letters: dict[Symbol, int]) -> dict[str, Any]:
    """A ledger row's numbers."""
    cost, known = row.op.cost, {**letters, **bound_values(row.binding, letters)}
    quantities = {
        "params": cost.params,
        "flops": cost.flops,
        "weight_bytes": cost.weight_bytes(precision),
        "activation_bytes": cost.activation_bytes(precision),
        "cache_bytes": cost.cache_bytes(precision),
        "vector_flops": cost.vector_flops,
        "weight_bytes_moved": cost.weight_bytes_moved(precision),
        "cache_bytes_moved": cost.cache_bytes_moved(precision),
    }
    stored = ("params", "weight_bytes")
    numbers = {name: (row.copies if name in stored else row.times) * evaluate(expr, known) for name, expr in quantities.items()}
    moved = numbers["weight_bytes_moved"] + numbers["activation_bytes"] + numbers["cache_bytes_moved"]
    about = {"group": row.group, "layers": row.layers, "block": row.block}
    return {**about, "op": row.op.name, "kind": row.op.kind, "algorithm": row.op.algorithm, **numbers, "bytes_moved": moved}
