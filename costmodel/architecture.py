"""An architecture as data: layer groups with counts, embedding, head, towers. It binds its blocks' letters and sums.

The public quantities of a model are here as Formulas; each is a sum over the same ledger rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from itertools import cycle, islice
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from sympy import Expr, Integer, Symbol

from costmodel.blocks import FAMILIES, AnyFeedForward, AnyMixer, Block, FeedForwardField, MixerField, Norm
from costmodel.blocks.base import Flag, Size, ops_of
from costmodel.blocks.norm import residual
from costmodel.cost import ONE, ZERO, Cost, Kept, Weight
from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.evaluate import evaluate
from costmodel.formula import Formula, Term
from costmodel.ops import N, Op, gather, linear, norm, vector
from costmodel.symbols import B, P, S, T, V, d_model
from costmodel.workload import Options, Pass, Phase, Precision, View, ceil_div

if TYPE_CHECKING:
    import pandas as pd

MAX_LAYERS = 10_000
RESERVED = ("embedding", "head", "vision", "mtp")

Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=10_000)]
Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LayerGroup(_Frozen):
    """`count` equal layers: a mixer, a feed-forward layer, or both, each with its norms and residual."""

    name: Name
    count: Annotated[int, Field(strict=True, ge=1, le=MAX_LAYERS)]
    mixer: MixerField | None = None
    feed_forward: FeedForwardField | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.blocks:
            raise ValueError(f"layer group {self.name} has neither mixer nor feed_forward; give at least one")
        return self

    @property
    def blocks(self) -> tuple[AnyMixer | AnyFeedForward, ...]:
        """Its blocks in order."""
        return tuple(block for block in (self.mixer, self.feed_forward) if block is not None)


class VisionTower(_Frozen):
    """A bidirectional image encoder and the projector into the language model: its parameters are part of the total.

    An image of `image_size` pixels a side makes (image_size / patch_size)^2 patches; after the tower they are pooled to
    `tokens_per_image` tokens, normed, and projected to the language model's width without a bias.
    """

    image_size: Size
    patch_size: Size
    num_channels: Size = 3
    hidden_size: Size
    num_hidden_layers: Annotated[int, Field(strict=True, ge=1, le=MAX_LAYERS)]
    norm: Norm = Norm(kind="layernorm", bias=True)
    mixer: MixerField
    feed_forward: FeedForwardField
    tokens_per_image: Size

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(f"patch_size {self.patch_size} does not divide image_size {self.image_size}")
        if self.tokens_per_image > self.patches:
            raise ValueError(f"tokens_per_image {self.tokens_per_image} exceeds the {self.patches} patches of an image")
        return self

    @property
    def patches(self) -> int:
        """Patches of one image: the tower's context."""
        return (self.image_size // self.patch_size) ** 2


class MultiTokenPrediction(_Frozen):
    """`modules` draft modules: two norms and a projection of 2 d_model, one layer like group `layer`'s, and a norm.

    Token table and head are the model's own. DeepSeek-V3 report, arXiv 2412.19437, section 2.2.
    """

    modules: Annotated[int, Field(strict=True, ge=1, le=64)]
    layer: Name


class Reference(_Frozen):
    """A published value, and how to ask for it here: `quantity` called with `inputs`, per token where it says so.

    `tolerance` is relative; 0 means exact. `convention` says what the source counts.
    """

    quantity: Text
    inputs: dict[str, int | str | bool] = {}
    per_token: Flag = False
    value: Annotated[float, Field(gt=0, allow_inf_nan=False)] | int
    tolerance: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    convention: Text
    source: Text


@dataclass(frozen=True, eq=False)
class Row:
    """One ledger row: an op of a block in a group, `times` over, with the numbers behind its letters."""

    group: str
    layers: int
    block: str
    op: Op
    times: int
    binding: dict[Symbol, Expr]
    source: str = ""

    @property
    def path(self) -> tuple[str, str, str]:
        """Where the row stands: (group, block, op)."""
        return (self.group, self.block, self.op.name)


Quantity = Callable[[Cost], Expr]


class Architecture(_Frozen):
    """A model's architecture: every dimension that costs something, with its source.

    Public quantities (`cache_bytes`, `flops`, ...) are `Formula`s. Lengths are tokens, sizes elements.

    >>> import costmodel as cm
    >>> model = cm.load("deepseek-v3")
    >>> model.params.total, model.params.active
    (671026419200, 36625837568)
    """

    name: Name
    title: Text
    maker: Text
    released: Annotated[date, Field(strict=False)] | None = None
    source: Text
    notes: tuple[Text, ...] = ()
    hidden_size: Size
    vocab_size: Size
    max_position_embeddings: Size | None = None
    """The longest context its makers publish. A longer one is computed, and flagged."""
    tie_word_embeddings: Flag
    position_embeddings: Size | None = None
    """Rows of a learned position table, where there is one."""
    norm: Norm = Norm()
    layers: Annotated[tuple[LayerGroup, ...], Field(min_length=1, max_length=200)]
    pattern: tuple[Name, ...] = ()
    """Names of layer groups in the order of their layers, repeated to the depth; empty: group after group."""
    vision: VisionTower | None = None
    mtp: MultiTokenPrediction | None = None
    reference: tuple[Reference, ...] = ()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        names = [group.name for group in self.layers]
        repeated = next((name for name in (*names, *RESERVED) if (*names, *RESERVED).count(name) > 1), None)
        if repeated:
            raise ValueError(f"layer group name {repeated} is taken; give each group a name of its own, none of {', '.join(RESERVED)}")
        if self.depth > MAX_LAYERS:
            raise ValueError(f"{self.depth} layers are more than {MAX_LAYERS}")
        if self.mtp and self.mtp.layer not in names:
            raise ValueError(f"mtp.layer {self.mtp.layer} is no layer group; {did_you_mean(self.mtp.layer, names)}")
        self._check_pattern(names)
        return self

    def _check_pattern(self, names: list[str]) -> None:
        unknown = next((name for name in self.pattern if name not in names), None)
        if unknown:
            raise ValueError(f"pattern names {unknown}, which is no layer group; {did_you_mean(unknown, names)}")
        if self.pattern:
            counted = Counter(islice(cycle(self.pattern), self.depth))
            wrong = next((group for group in self.layers if counted[group.name] != group.count), None)
            if wrong:
                raise ValueError(f"pattern over {self.depth} layers gives {counted[wrong.name]} of {wrong.name}, but its count is {wrong.count}")

    @property
    def depth(self) -> int:
        """Layers in all."""
        return sum(group.count for group in self.layers)

    @property
    def layer_order(self) -> tuple[str, ...]:
        """The group of each layer, first to last."""
        if self.pattern:
            return tuple(islice(cycle(self.pattern), self.depth))
        return tuple(group.name for group in self.layers for _ in range(group.count))

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms its blocks know, for the option `algorithm`."""
        return tuple(dict.fromkeys(name for group in self.layers for block in group.blocks for name in block.algorithms))

    def remarks(self, context: int) -> tuple[str, ...]:
        """What a reader should know about numbers at a context, the architecture's own notes included."""
        limit = self.max_position_embeddings
        beyond = (f"context {context:,} is beyond the published limit of {limit:,} tokens",) if limit and context > limit else ()
        return self.notes + beyond

    # the ledger

    def _rows(self, options: Options, phase: Phase) -> tuple[Row, ...]:
        """Every row of one pass, in letters beside their numbers."""
        forward = options.as_pass(phase)
        unknown = next((name for name in forward.algorithms if name not in KNOWN_ALGORITHMS), None)
        if unknown:
            raise CostModelError(f"no algorithm {shown(unknown)}; {did_you_mean(unknown, ('auto', *KNOWN_ALGORITHMS))}")
        return (*self._ends(options, head=False), *self._layer_rows(forward), *self._ends(options, head=True), *self._extras(options, forward))

    def _layer_rows(self, forward: Pass) -> Iterator[Row]:
        for group in self.layers:
            yield from self._group_rows(group, forward, group.count)

    def _group_rows(self, group: LayerGroup, forward: Pass, layers: int) -> Iterator[Row]:
        width: dict[Symbol, Expr] = {d_model: Integer(self.hidden_size)}
        yield from _around(group.name, self.norm, len(group.blocks), forward, layers, width)
        for block in group.blocks:
            yield from _block_rows(group.name, block, forward, layers, width)

    def _ends(self, options: Options, *, head: bool) -> Iterator[Row]:
        rows = N if options.logits == "all" else B
        binding: dict[Symbol, Expr] = {d_model: Integer(self.hidden_size), V: Integer(self.vocab_size)}
        if head:
            ops = [] if self.norm.placement == "none" else [replace(self.norm.ops(Pass())[0], name="final_norm")]
            ops.append(linear("lm_head", d_model, V, rows, role="embeddings", stored=not self.tie_word_embeddings))
            yield from (Row("head", 1, "head", op, 1, binding) for op in ops)
        else:
            yield Row("embedding", 1, "embedding", gather("embed_tokens", V, d_model), 1, binding)
            if self.position_embeddings:
                table = gather("embed_positions", P, d_model, role="others", active=ONE)
                yield Row("embedding", 1, "embedding", table, 1, binding | {P: Integer(self.position_embeddings)})

    def _extras(self, options: Options, forward: Pass) -> Iterator[Row]:
        if self.vision:
            yield from _vision_rows(self.vision, self.hidden_size, options.images)
        elif options.images:
            raise CostModelError(f"{self.name} has no vision tower; leave images at 0")
        if options.mtp:
            available = self.mtp.modules if self.mtp else 0
            if options.mtp > available:
                raise CostModelError(f"{self.name} has {available} multi-token-prediction modules, not {options.mtp}; give mtp={available}")
            yield from self._mtp_rows(options, forward)

    def _mtp_rows(self, options: Options, forward: Pass) -> Iterator[Row]:
        assert self.mtp is not None
        group = next(group for group in self.layers if group.name == self.mtp.layer)
        binding: dict[Symbol, Expr] = {d_model: Integer(self.hidden_size), V: Integer(self.vocab_size)}
        logits = N if options.logits == "all" else B
        own = [
            gather("embed_tokens", V, d_model, stored=False),
            norm("embedding_norm", d_model),
            norm("hidden_norm", d_model),
            linear("eh_proj", 2 * d_model, d_model, role="others"),
            norm("head_norm", d_model),
            linear("lm_head", d_model, V, logits, role="embeddings", stored=False),
        ]
        yield from (Row("mtp", options.mtp, "mtp", op, options.mtp, binding) for op in own)
        yield from (replace(row, group="mtp") for row in self._group_rows(group, forward, options.mtp))

    def _terms(self, options: Options, quantity: Quantity, phases: tuple[Phase, Phase] = (Phase.DECODE, Phase.PREFILL)) -> tuple[Term, ...]:
        """The rows' shares of a quantity in both phases; a row that only one phase has is 0 in the other."""
        found = [{(row.path, place): row for place, row in _numbered(self._rows(options, phase))} for phase in dict.fromkeys(phases)]
        decode, prefill = found[0], found[-1]
        terms = []
        for key in {**prefill, **decode}:
            row = prefill.get(key) or decode[key]
            costs = [quantity(side[key].op.cost) if key in side else ZERO for side in (decode, prefill)]
            if costs[0] != 0 or costs[1] != 0:
                terms.append(Term(row.path, row.times, costs[0], costs[1], row.binding, row.source))
        return tuple(terms)

    def ledger_rows(self, new_tokens: int = 1, context: int = 1, batch: int = 1, **options: Any) -> list[dict[str, Any]]:
        """The rows of `ledger` as plain dicts."""
        chosen = Options().with_(LEDGER_OPTIONS, options)
        # the same checks as everywhere
        self.flops(new_tokens=new_tokens, context=context, batch=batch)
        precision, view = chosen.as_precision("weights"), chosen.as_view()
        letters = {B: batch, T: new_tokens, S: context}
        rows = self._rows(chosen, Phase.DECODE if new_tokens == 1 else Phase.PREFILL)
        return [_numbers(row, precision, self._paged(view, precision), letters) for row in rows]

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
        import pandas as pd

        return pd.DataFrame(self.ledger_rows(new_tokens, context, batch, **options))

    # quantities

    @cached_property
    def params(self) -> Params:
        """Parameter counts, and the formulas behind them."""
        return Params(self)

    @cached_property
    def cache_bytes(self) -> Formula:
        """Bytes kept of `batch` sequences at `context` tokens. Options: precision (a name sets the cache), view and the engine's, mtp."""

        def derive(options: Options) -> tuple[Term, ...]:
            precision = options.as_precision("cache")
            view = self._paged(options.as_view(), precision)
            return self._terms(options, lambda cost: cost.cache_bytes(precision, view), ONE_PHASE) + self._padding(view, precision)

        return Formula("cache_bytes", "bytes", derive, takes=CACHE_OPTIONS, letters=(B, S))

    @cached_property
    def flops(self) -> Formula:
        """Tensor FLOPs of one pass of `new_tokens` tokens a sequence that ends at `context`. Options: attention, logits, algorithm, mtp, images."""
        return Formula("flops", "FLOP", self._flop_terms, takes=PASS_OPTIONS, letters=(B, T, S))

    @cached_property
    def prefill_flops(self) -> Formula:
        """Tensor FLOPs of a whole prompt of `context` tokens: `flops` with T = S."""
        return Formula("prefill_flops", "FLOP", self._flop_terms, takes=PASS_OPTIONS, letters=(B, S), given={T: S})

    @cached_property
    def decode_flops(self) -> Formula:
        """Tensor FLOPs of one new token a sequence at `context`: `flops` with T = 1."""
        return Formula("decode_flops", "FLOP", self._flop_terms, takes=PASS_OPTIONS[:-1], letters=(B, S), given={T: ONE})

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
                active = self._terms(options, lambda cost: cost.active, ONE_PHASE)
                return tuple(replace(term, decode=6 * B * S * term.decode, prefill=6 * B * S * term.prefill) for term in active)
            forward = options.with_(TRAINING, {"logits": "all", "algorithm": "auto"})
            rows = self._terms(forward, lambda cost: cost.flops, ONE_PHASE)
            again = {row.path for row in self._rows(forward, Phase.PREFILL) if options.recompute == "full" or _is_attention(row.op)}
            return tuple(replace(term, times=term.times * (4 if options.recompute != "none" and term.path in again else 3)) for term in rows)

        return Formula("training_flops", "FLOP", derive, takes=("attention", "recompute", "method", "mtp"), letters=(B, S), given={T: S})

    @cached_property
    def weight_bytes(self) -> Formula:
        """Bytes of all stored weights, block scales included. Options: precision (a name sets weights and experts), mtp (modules stored too)."""

        def derive(options: Options) -> tuple[Term, ...]:
            precision = options.as_precision("weights")
            return self._terms(options, lambda cost: cost.weight_bytes(precision), ONE_PHASE)

        return Formula("weight_bytes", "bytes", derive, takes=("precision", "mtp"))

    @cached_property
    def bytes_moved(self) -> Formula:
        """Bytes one pass reads and writes: weights (of routed experts the expected distinct ones), activations, cache.

        Each tensor once; what a kernel keeps on chip is not counted. Options: precision, attention, logits, algorithm, mtp, images.
        """

        def derive(options: Options) -> tuple[Term, ...]:
            precision = options.as_precision("weights")
            return self._terms(options, lambda cost: cost.bytes_moved(precision))

        return Formula("bytes_moved", "bytes", derive, takes=("precision", *PASS_OPTIONS), letters=(B, T, S))

    # pages of an engine that serves attention and recurrent layers from one pool

    def _paged(self, view: View, precision: Precision) -> View:
        """The view with `hybrid_pages` resolved: a block long enough for a page of attention to hold one layer's state."""
        per_token, per_slot = self._page_bytes(view, precision)
        if not view.hybrid_pages or not per_token or not per_slot:
            return view
        return replace(view, block=view.block * -(-per_slot // (view.block * per_token)))

    def _page_bytes(self, view: View, precision: Precision) -> tuple[int, int]:
        """The largest bytes of a token and of a slot in one layer of one rank."""

        def one_rank(kept: tuple[Kept, ...], binding: dict[Symbol, Expr]) -> int:
            sizes = (item.unit_bytes(precision, ceil_div(item.heads, view.tp) if item.split else item.heads) for item in kept)
            return int(sum(evaluate(size.xreplace(binding), {}) for size in sizes))

        mixers = [group.mixer for group in self.layers if group.mixer is not None] if view.hybrid_pages else []
        tokens = [one_rank(tuple(kept for kept in mixer.kept() if kept.per_token), mixer.binding()) for mixer in mixers]
        slots = [one_rank(tuple(kept for kept in mixer.kept() if not kept.per_token), mixer.binding()) for mixer in mixers]
        return max(tokens, default=0), max(slots, default=0)

    def _padding(self, view: View, precision: Precision) -> tuple[Term, ...]:
        """What a slot of state wastes when it takes whole pages of attention."""
        per_token, per_slot = self._page_bytes(view, precision)
        if not per_token or not per_slot:
            return ()
        page = Integer(view.tp * view.block * per_token * (1 + view.speculative))
        terms = []
        for group in self.layers:
            states = tuple(kept for kept in group.mixer.kept() if not kept.per_token) if group.mixer else ()
            if states:
                assert group.mixer is not None
                waste = B * page - Cost(kept=states).cache_bytes(precision, view)
                terms.append(Term((group.name, group.mixer.kind, "page_padding"), group.count, waste, waste, group.mixer.binding()))
        return tuple(terms)


KNOWN_ALGORITHMS = tuple(name for family in FAMILIES.values() for name in family.algorithms)
ONE_PHASE = (Phase.PREFILL, Phase.PREFILL)
PASS_OPTIONS = ("attention", "logits", "algorithm", "mtp", "images")
CACHE_OPTIONS = ("precision", "view", "block", "evict_windows", "tp", "speculative", "hybrid_pages", "mtp")
LEDGER_OPTIONS = ("precision", *PASS_OPTIONS)
TRAINING = ("attention", "recompute", "method", "mtp", "logits", "algorithm")


class Params:
    """Parameter counts as exact ints; `formula(name)` gives the Formula behind each.

    `total` every trained tensor, tied tables once, towers included; `active` those used for one token of text, the
    input table left out unless it is the head; `active_with_embedding` adds it back; `embedding` the token table;
    `routed_experts`; `vision` tower and projector; `mtp` the own tensors of the multi-token-prediction modules.
    """

    NAMES = ("total", "active", "active_with_embedding", "embedding", "routed_experts", "vision", "mtp")

    total: int
    active: int
    active_with_embedding: int
    embedding: int
    routed_experts: int
    vision: int
    mtp: int

    def __init__(self, architecture: Architecture) -> None:
        self._architecture = architecture
        self._formulas: dict[str, Formula] = {}

    def formula(self, name: str) -> Formula:
        """The Formula of one of the counts."""
        if name not in self.NAMES:
            raise CostModelError(f"no parameter count {shown(name)}; {did_you_mean(name, self.NAMES)}")
        if name not in self._formulas:
            self._formulas[name] = Formula(f"params.{name}", "parameters", lambda options: self._terms(name))
        return self._formulas[name]

    def _terms(self, name: str) -> tuple[Term, ...]:
        model = self._architecture
        mtp = model.mtp.modules if name == "mtp" and model.mtp else 0
        active = model._terms(Options(), lambda cost: cost.active, ONE_PHASE)
        stored = model._terms(Options(mtp=mtp), lambda cost: cost.params, ONE_PHASE)
        table = tuple(term for term in stored if term.path[-1] == "embed_tokens" and term.path[0] == "embedding")
        if name == "active":
            return active
        if name == "active_with_embedding":
            return active if model.tie_word_embeddings else table + active
        if name == "embedding":
            return table
        if name == "routed_experts":
            routed = model._terms(Options(), lambda cost: Cost(weights=tuple(w for w in cost.weights if _routed(w))).params, ONE_PHASE)
            return routed
        return stored if name == "total" else tuple(term for term in stored if term.path[0] == name)

    def __getattr__(self, name: str) -> int:
        if name.startswith("_") or name not in self.NAMES:
            raise AttributeError(f"parameter counts have no {name!r}; {did_you_mean(name, self.NAMES)}")
        value = int(self.formula(name)())
        setattr(self, name, value)
        return value

    def as_dict(self) -> dict[str, int]:
        """All counts by name."""
        return {name: getattr(self, name) for name in self.NAMES}

    def __repr__(self) -> str:
        return f"Params({', '.join(f'{name}={value:,}' for name, value in self.as_dict().items())})"


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


def _block_rows(group: str, block: Block, forward: Pass, layers: int, width: dict[Symbol, Expr]) -> Iterator[Row]:
    binding = width | block.binding()
    yield from (Row(group, layers, block.kind, op, layers, binding, block.source) for op in ops_of(block, forward))


def _around(group: str, norms: Norm, parts: int, forward: Pass, layers: int, width: dict[Symbol, Expr]) -> Iterator[Row]:
    """Norms and residual additions around the parts of a layer."""
    if norms.per_part:
        yield from (Row(group, layers, "norm", op, layers * parts * norms.per_part, width, norms.source) for op in ops_of(norms, forward))
    yield Row(group, layers, "residual", residual(), layers * parts, width)


def _vision_rows(tower: VisionTower, hidden_size: int, images: int) -> Iterator[Row]:
    """The tower's rows: B images sequences of `patches` patches that see each other. Without images, parameters alone."""
    forward = Pass(Phase.PREFILL, "full")
    patches, text = Integer(tower.patches), Integer(hidden_size)
    workload: dict[Symbol, Expr] = {B: B * max(images, 1), T: patches, S: patches}
    width = workload | {d_model: Integer(tower.hidden_size)}
    pooled = B * tower.tokens_per_image
    pixels = Integer(tower.num_channels * tower.patch_size**2)
    layers = tower.num_hidden_layers
    ends = [
        replace(linear("patch_embedding", pixels, d_model, bias=True, role="others"), kind="conv"),
        vector("position_embedding", N * d_model, 1, weights=(Weight(patches, d_model, "others"),)),
        norm("post_norm", d_model, mean=True, bias=True),
        vector("pool", N * d_model, 1, moved=N * d_model + pooled * d_model),
        norm("projector_norm", d_model, tokens=pooled),
        linear("projector", d_model, text, pooled, role="others"),
    ]
    rows = [Row("vision", 1, "projector" if "projector" in op.name else "tower", op, 1, width) for op in ends]
    rows += _around("vision", tower.norm, 2, forward, layers, width)
    for block in (tower.mixer, tower.feed_forward):
        rows += _block_rows("vision", block, forward, layers, width)
    yield from (replace(row, op=_tower_op(row.op, seen=images > 0)) for row in rows)


def _tower_op(op: Op, *, seen: bool) -> Op:
    """A tower's op: it keeps nothing, stays bf16, is not active for text, and works only when it sees an image."""
    weights = tuple(replace(w, role="others", active=ZERO, touched=w.touched if seen else ZERO) for w in op.cost.weights)
    return replace(op, cost=replace(op.cost, weights=weights, kept=()) if seen else Cost(weights=weights))


def _numbers(row: Row, precision: Precision, view: View, letters: dict[Symbol, int]) -> dict[str, Any]:
    """A ledger row's numbers."""
    cost = row.op.cost

    def value(expr: Expr) -> int | float:
        bound = {letter: evaluate(number, letters) for letter, number in row.binding.items()}
        return row.times * evaluate(expr, {**letters, **bound})

    weights, activations, kept = cost.weight_bytes_moved(precision), cost.activation_bytes(precision), cost.cache_bytes_moved(precision)
    return {
        "group": row.group,
        "layers": row.layers,
        "block": row.block,
        "op": row.op.name,
        "kind": row.op.kind,
        "algorithm": row.op.algorithm,
        "params": value(cost.params),
        "flops": value(cost.flops),
        "weight_bytes": value(cost.weight_bytes(precision)),
        "activation_bytes": value(activations),
        "cache_bytes": value(cost.cache_bytes(precision, view)),
        "vector_flops": value(cost.vector_flops),
        "weight_bytes_moved": value(weights),
        "cache_bytes_moved": value(kept),
        "bytes_moved": value(weights) + value(activations) + value(kept),
    }
