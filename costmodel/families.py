"""One layer of a family, with the architecture's letters left as letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError
from sympy import Expr, Integer, Symbol

from costmodel.blocks import FAMILIES, Block, Mixer
from costmodel.blocks.base import letters_of, ops_of
from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.formula import Formula, Term
from costmodel.quantities import Params, Quantities, Row, UsualHeads, pass_of
from costmodel.symbols import LETTERS, n_h, n_kv
from costmodel.workload import LetteredPrecision, Options, Phase, Precision

BY_SYMBOL = {letter.symbol: letter for letter in LETTERS.values()}

ALIASES: dict[str, tuple[str, dict[str, Any], dict[Symbol, Expr]]] = {
    "mha": ("gqa", {}, {n_kv: n_h}),
    "mqa": ("gqa", {}, {n_kv: Integer(1)}),
    "sliding_window": ("gqa", {"sliding_window": True}, {}),
}
"""Names for a family under a condition: its kind, the features turned on, and letters that stand for others."""


class Family(Quantities):
    """The quantities of one layer of a family (its block alone, without norms around it), in letters.

    `params.total` and `params.active` are Formulas here. Call any formula with the letters' values, by letter or
    by field name; formats default to bf16 (b_w, b_kv, b_a = 2) and fp32 state (b_state = 4).
    """

    def __init__(self, name: str, block: Block, binding: dict[Symbol, Expr], turned_on: tuple[str, ...] = ()) -> None:
        self.name = name
        self.block = block
        self.binding = binding
        self.turned_on = turned_on

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without the formulas it has made so far."""
        return (type(self), (self.name, self.block, self.binding, self.turned_on))

    @property
    def title(self) -> str:
        """What the family is, in a sentence: the first line of its docstring."""
        return (type(self.block).__doc__ or "").splitlines()[0]

    @property
    def source(self) -> str:
        """The paper it comes from."""
        return self.block.source

    @cached_property
    def params(self) -> Params:
        """Parameter counts as Formulas: `total`, `active`, `routed_experts`."""
        return LetteredParams(self._count)

    def __repr__(self) -> str:
        return f"Family({self.name}: {self.title})"

    def ledger_rows(self, new_tokens: int = 1, context: int = 1, batch: int = 1, **options: Any) -> list[dict[str, Any]]:
        """A family has letters, and a ledger numbers: always refused."""
        raise CostModelError(f"family {self.name} is in letters; ask a model for its ledger, such as load('gpt2').ledger()")

    def _rows(self, options: Options, phase: Phase) -> tuple[Row, ...]:
        forward = pass_of(options, phase)
        ops = ops_of(self.block, forward)
        return tuple(Row(self.block.kind, 1, self.block.kind, op, 1, self.binding, self.source) for op in ops)

    def _usual_heads(self) -> Iterator[UsualHeads]:
        heads = self.block.usual_heads if isinstance(self.block, Mixer) else None
        if heads is None:
            raise CostModelError(f"family {self.name} is no attention, so the usual formula 2lhd has nothing to say; use exact")
        yield UsualHeads(self.block.kind, 1, *heads, self.binding)

    def _formula(self, name: str, unit: str, derive: Callable[[Options], tuple[Term, ...]], **about: Any) -> Formula:
        letters = tuple(dict.fromkeys((*about.pop("letters", ()), *(BY_SYMBOL[symbol].symbol for symbol in BY_SYMBOL))))
        takes = tuple(
            option for option in about.pop("takes", ()) if option not in ("mtp", "images", "logits", "hybrid_pages", "sampling")
        )
        return Formula(
            name, unit, derive, recipe=self._recipe(name), letters=letters, takes=takes, depth=2, in_letters=True, **about
        )

    def _precision(self, options: Options, names: str) -> Precision:
        return LetteredPrecision() if options.precision == "bf16" else options.as_precision(names)


class LetteredParams(Params):
    """Parameter counts left as Formulas."""

    NAMES: ClassVar[tuple[str, ...]] = ("total", "active", "routed_experts")

    def __getattr__(self, name: str) -> Any:
        if name not in self.NAMES:
            raise AttributeError(f"parameter counts of a family have no {name!r}; {did_you_mean(name, self.NAMES)}")
        return self.formula(name)

    def __repr__(self) -> str:
        return f"Params({', '.join(f'{name}={self.formula(name).expr}' for name in self.NAMES)})"


def family(name: str, **features: Any) -> Family:
    """The formulas of one layer of a family, in letters.

    `name` is a kind of block (`gqa`, `mla`, `gated_deltanet`, `mamba`, `mamba2`, `mlp`, `moe`) or a special case of one (`mha`,
    `mqa`, `sliding-window`). `features` turn options on as they stand in a preset: `sliding_window=True`, `qk_norm="head"`.

    Raises CostModelError for an unknown family or feature.

    >>> family("mla").cache_bytes.expr
    B*S*b_kv*(d_c + d_h^R)
    >>> family("mla").cache_bytes(context=4096, kv_lora_rank=512, qk_rope_head_dim=64)
    4718592
    """
    known = sorted((*FAMILIES, *ALIASES))
    plain = name.lower().replace("-", "_") if isinstance(name, str) else ""
    kind, turned_on, binding = ALIASES.get(plain, (plain, {}, {}))
    if kind not in FAMILIES:
        raise CostModelError(f"no family {shown(name)}; {did_you_mean(name, known)}")
    block = FAMILIES[kind]
    defaults = {"q_lora_rank": True} if "q_lora_rank" in block.model_fields else {}
    defaults |= {"v_low_rank_dim": True} if "v_low_rank_dim" in block.model_fields else {}
    defaults |= {"num_shared_experts": True} if "num_shared_experts" in block.model_fields else {}
    return Family(plain, _symbolic(block, defaults | turned_on | features), binding, tuple(turned_on))


def _symbolic(block: type[Block], features: dict[str, Any]) -> Block:
    letters = letters_of(block)
    for feature, value in features.items():
        if feature not in block.model_fields:
            raise CostModelError(f"no feature {shown(feature)}; {did_you_mean(feature, block.model_fields)}")
        if feature in letters and value is True:
            continue
        if feature in letters and value is not None and not (type(value) is int and value == 0):
            raise CostModelError(f"{feature} got {shown(value)}; give True to have it as a letter, or None")
        _check_choice(block, feature, value)
    return block.symbolic(**features)


def _check_choice(block: type[Block], feature: str, value: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(block.model_fields[feature].rebuild_annotation())
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        raise CostModelError(f"{feature} got {shown(value)}; {error.errors()[0]['msg'].removeprefix('Input ')}") from None
