"""An architecture as data: layer groups with counts, embedding, head, towers. It binds its blocks' letters to numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from functools import cached_property, partial
from itertools import cycle, islice
from typing import Annotated, Any, Self, cast

from pydantic import Field, model_validator
from sympy import Expr, Integer, Symbol

from costmodel.blocks import Block, Norm
from costmodel.blocks.base import Flag, Size
from costmodel.cost import ONE, Cost, Kept, Weight
from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.evaluate import evaluate
from costmodel.formula import Formula, Term
from costmodel.frames import facts
from costmodel.generation import (
    Diffusion,
    PassTerms,
    Recursion,
    autoregressive_flops,
    autoregressive_traffic,
    check_blocks,
    diffusion_terms,
    recursion_terms,
)  # fmt: skip
from costmodel.layers import MAX_LAYERS, LayerGroup, around, block_rows
from costmodel.ops import N, gather, linear, norm
from costmodel.quantities import Quantities, Row, UsualHeads, pass_of
from costmodel.symbols import B, P, S, S_g, S_p, V, d_model, n_d
from costmodel.towers import VisionTower, vision_rows
from costmodel.workload import Checked, Name, Options, Pass, Phase, Precision, Text, View, ceil_div

RESERVED = ("embedding", "head", "vision", "mtp")


class MultiTokenPrediction(Checked):
    """`modules` draft modules: two norms and a projection of 2 d_model, one layer like group `layer`'s, and a norm.

    Token table and head are the model's own. DeepSeek-V3 report, arXiv 2412.19437, section 2.2.

    >>> MultiTokenPrediction(modules=1, layer="moe").modules
    1
    """

    modules: Annotated[int, Field(strict=True, ge=1, le=64)]
    layer: Name


class Reference(Checked):
    """A published value, and how to ask for it here: `quantity` called with `inputs`, per token where it says so.

    `tolerance` is relative; 0 means exact. `convention` says what the source counts.

    >>> import costmodel as cm
    >>> cm.load("deepseek-v3").reference[0].value
    671026419200
    """

    quantity: Text
    inputs: dict[str, int | str | bool] = Field(default_factory=dict)
    per_token: Flag = False
    value: Annotated[int, Field(strict=True, ge=1, le=10**30)] | Annotated[float, Field(strict=True, ge=1e-9, le=1e30)]
    tolerance: Annotated[float, Field(strict=True, ge=0, le=0.5)] = 0.0
    convention: Text
    source: Text

    def __hash__(self) -> int:
        return hash((self.quantity, self.value, self.source))


class Architecture(Quantities, Checked):
    """A model's architecture: every dimension that costs something, with its source.

    Public quantities (`cache_bytes`, `flops`, ...) are `Formula`s. Lengths are tokens, sizes elements.

    >>> import costmodel as cm
    >>> model = cm.load("deepseek-v3")
    >>> model.params.total, model.params.active
    (671026419200, 36625618432)
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
    embedding_norm: Flag = False
    """A norm of the same kind on what the token table gives, before the first layer."""
    layers: Annotated[tuple[LayerGroup, ...], Field(min_length=1, max_length=200)]
    pattern: tuple[Name, ...] = ()
    """Names of layer groups in the order of their layers, repeated to the depth; empty: group after group."""
    vision: VisionTower | None = None
    mtp: MultiTokenPrediction | None = None
    diffusion: Diffusion | None = None
    """How it denoises, for a model of text diffusion."""
    recursion: Recursion | None = None
    """How it repeats, for a recursive reasoner."""

    def __repr__(self) -> str:
        """In a line: every field is in `model_dump()`."""
        layers = f"{self.depth:,} layer" + ("s" if self.depth > 1 else "")
        return f"<architecture {self.name}: {layers}, {self.params.total:,} parameters, {self.params.active:,} active>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """What a notebook shows: parameters, and the layers by group."""
        groups = {f"{group.count:,} x {group.name}": " + ".join(block.kind for block in group.blocks) for group in self.layers}
        return facts(self.title, {"parameters": self.params.total, "active": self.params.active} | groups)

    reference: tuple[Reference, ...] = ()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        names = [group.name for group in self.layers]
        repeated = next((name for name in (*names, *RESERVED) if (*names, *RESERVED).count(name) > 1), None)
        if repeated:
            raise ValueError(
                f"layer group name {repeated} is taken; give each group a name of its own, none of {', '.join(RESERVED)}"
            )
        if self.depth > MAX_LAYERS:
            raise ValueError(f"{self.depth} layers are more than {MAX_LAYERS}")
        if self.mtp and self.mtp.layer not in names:
            raise ValueError(f"mtp.layer {self.mtp.layer} is no layer group; {did_you_mean(self.mtp.layer, names)}")
        self._check_pattern(names)
        self._check_directions()
        return self

    def _check_directions(self) -> None:
        """Text is denoised, and a grid solved, by layers that look both ways."""
        if self.diffusion and self.recursion:
            raise ValueError("diffusion and recursion exclude each other; give one of them")
        for word in ("diffusion", "recursion"):
            blind = next((group.name for group in self.layers if group.mixer and not group.mixer.looks_ahead), None)
            if getattr(self, word) and blind:
                raise ValueError(f"{word} needs layers that look both ways; make the mixer of {blind} bidirectional")

    def _check_pattern(self, names: list[str]) -> None:
        unknown = next((name for name in self.pattern if name not in names), None)
        if unknown:
            raise ValueError(f"pattern names {unknown}, which is no layer group; {did_you_mean(unknown, names)}")
        if self.pattern:
            counted = Counter(islice(cycle(self.pattern), self.depth))
            wrong = next((group for group in self.layers if counted[group.name] != group.count), None)
            if wrong:
                raise ValueError(
                    f"pattern over {self.depth} layers gives {counted[wrong.name]} of {wrong.name}, but its count is {wrong.count}"
                )

    def __getstate__(self) -> dict[Any, Any]:
        """What is pickled and copied: the fields, without the formulas made so far."""
        state = super().__getstate__()
        fields = {name: value for name, value in state["__dict__"].items() if name in type(self).model_fields}
        return {**state, "__dict__": fields}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Frozen values need no copies; the copy has no formulas yet."""
        return self.model_copy()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed, unchecked as pydantic has it, and nothing remembered of the old numbers.

        >>> import costmodel as cm
        >>> tied = cm.load("llama-3.1-8b").model_copy(update={"tie_word_embeddings": True})
        >>> cm.load("llama-3.1-8b").params.total - tied.params.total
        525336576
        """
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        unknown = next((name for name in update or {} if name not in fields), None)
        if unknown is not None:
            raise CostModelError(f"{self.name} has no field {shown(unknown)}; {did_you_mean(unknown, fields)}")
        return cast("Self", type(self).model_construct(**(fields | dict(update or {}))))

    @property
    def depth(self) -> int:
        """Layers in all."""
        return sum(group.count for group in self.layers)

    @property
    def stored_layers(self) -> int:
        """Layers whose weights are stored: fewer than the depth where layers take turns.

        >>> import costmodel as cm
        >>> cm.load("trm-arc").depth, cm.load("trm-arc").stored_layers
        (42, 2)
        """
        return sum(group.shared or group.count for group in self.layers)

    @property
    def layer_order(self) -> tuple[str, ...]:
        """The group of each layer, first to last."""
        if self.pattern:
            return tuple(islice(cycle(self.pattern), self.depth))
        return tuple(group.name for group in self.layers for _ in range(group.count))

    @cached_property
    def experts(self) -> dict[str, Weight]:
        """One matrix of the routed experts of each group that has them: `copies` E, `active` k, `touched` by B T tokens.

        >>> import costmodel as cm
        >>> cm.load("deepseek-v3").experts["moe"].copies
        256
        """
        rows = [row for row in self._layer_rows(Pass()) if row.op.kind == "expert_linear"]
        numbers = {row.group: (row.op.cost.weights[0], row.binding) for row in reversed(rows)}
        return {
            group.name: replace(
                weight, **{part: getattr(weight, part).xreplace(binding) for part in ("copies", "active", "touched")}
            )
            for group in self.layers
            if group.name in numbers
            for weight, binding in [numbers[group.name]]
        }

    def remarks(self, context: int) -> tuple[str, ...]:
        """What a reader should know about numbers at a context, the architecture's own notes included.

        >>> import costmodel as cm
        >>> cm.load("gpt2").remarks(2048)[-1]
        'context 2,048 is beyond the published limit of 1,024 tokens'
        """
        limit = self.max_position_embeddings
        beyond = (f"context {context:,} is beyond the published limit of {limit:,} tokens",) if limit and context > limit else ()
        return self.notes + self._ways() + beyond

    def _ways(self) -> tuple[str, ...]:
        """What makes numbers of one pass mean something else than for a model that writes token after token."""
        if self.diffusion:
            return ("a model of text diffusion: a pass of T tokens is one denoising step; generation_flops counts a whole output",)
        if self.recursion:
            return (
                f"a recursive reasoner: nothing is kept, and a pass over its {self.recursion.positions:,} places is one step; "
                "solve_flops counts a whole puzzle",
            )
        return ()

    @property
    def autoregressive(self) -> Self:
        """The same shape as a model that writes token after token: every layer causal.

        >>> import costmodel as cm
        >>> cm.load("gpt2").autoregressive.params.total == cm.load("gpt2").params.total
        True
        """
        layers = tuple(
            group.model_copy(update={"mixer": group.mixer.model_copy(update={"bidirectional": False})})
            if group.mixer is not None and group.mixer.looks_ahead
            else group
            for group in self.layers
        )
        return self.model_copy(update={"layers": layers, "diffusion": None})

    # the ledger

    def _rows(self, options: Options, phase: Phase) -> tuple[Row, ...]:
        """Every row of one pass, in letters beside their numbers."""
        forward = pass_of(options, phase)
        if options.sampling != "blocks" and not self.diffusion:
            raise CostModelError(f"{self.name} is no model of text diffusion; leave sampling out")
        layers = tuple(self._layer_rows(forward))
        if self.recursion or options.sampling != "blocks":
            layers = tuple(replace(row, op=replace(row.op, cost=row.op.cost.forgetting())) for row in layers)
        return (*self._ends(options, head=False), *layers, *self._ends(options, head=True), *self._extras(options, forward))

    def _layer_rows(self, forward: Pass) -> Iterator[Row]:
        for group in self.layers:
            yield from self._group_rows(group, forward, group.count)

    def _group_rows(self, group: LayerGroup, forward: Pass, layers: int) -> Iterator[Row]:
        width: dict[Symbol, Expr] = {d_model: Integer(self.hidden_size)}
        shared = group.shared and min(group.shared, layers)
        yield from around(group.name, group.norm or self.norm, len(group.blocks), forward, layers, width, shared)
        for block in group.blocks:
            yield from block_rows(group.name, block, forward, layers, width, shared)

    def _ends(self, options: Options, *, head: bool) -> Iterator[Row]:
        rows = N if options.logits == "all" else B
        binding: dict[Symbol, Expr] = {d_model: Integer(self.hidden_size), V: Integer(self.vocab_size)}
        if head:
            normed = self.norm.final and self.norm.placement != "none"
            ops = [replace(self.norm.ops(Pass())[0], name="final_norm")] if normed else []
            ops.append(linear("lm_head", d_model, V, rows, role="embeddings", stored=not self.tie_word_embeddings))
            if self.recursion:
                halting = linear("halting_head", d_model, Integer(self.recursion.halt_outputs), B, bias=True, role="others")
                ops.append(halting)
            yield from (Row("head", 1, "head", op, 1, binding) for op in ops)
        else:
            yield Row("embedding", 1, "embedding", gather("embed_tokens", V, d_model), 1, binding)
            if self.position_embeddings:
                table = gather("embed_positions", P, d_model, role="others", active=ONE)
                yield Row("embedding", 1, "embedding", table, 1, binding | {P: Integer(self.position_embeddings)})
            if self.embedding_norm:
                yield Row("embedding", 1, "embedding", replace(self.norm.ops(Pass())[0], name="embedding_norm"), 1, binding)

    def _extras(self, options: Options, forward: Pass) -> Iterator[Row]:
        if self.vision:
            yield from vision_rows(self.vision, self.hidden_size, options.images)
        elif options.images:
            raise CostModelError(f"{self.name} has no vision tower; leave images at 0")
        if options.mtp:
            available = self._mtp_modules()
            if options.mtp > available:
                raise CostModelError(
                    f"{self.name} has {available} multi-token-prediction modules, not {options.mtp}; give mtp={available}"
                )
            yield from self._mtp_rows(options, forward)

    def _mtp_modules(self) -> int:
        return self.mtp.modules if self.mtp else 0

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

    def _usual_heads(self) -> Iterator[UsualHeads]:
        """A layer without attention takes the heads of the first that has it: a config gives one number for all."""
        attention = [group.mixer for group in self.layers if group.mixer is not None and group.mixer.usual_heads is not None]
        if not attention:
            raise CostModelError(f"{self.name} has no attention layer, so the usual formula 2lhd has nothing to say; use exact")
        for group in self.layers:
            mixer = group.mixer if group.mixer in attention else attention[0]
            assert mixer is not None
            assert mixer.usual_heads is not None
            binding: dict[Symbol, Expr] = {d_model: Integer(self.hidden_size)}
            yield UsualHeads(group.name, group.count, *mixer.usual_heads, binding | mixer.binding())

    # whole outputs

    @cached_property
    def generation_flops(self) -> Formula:
        """Tensor FLOPs of `generated` tokens after a `prompt`, from the first pass to the last.

        Token after token: the prompt's pass, by prefill's algorithm whatever its length, gives the first token, and each later
        one costs a step. A model of text diffusion
        takes `steps` denoising steps in all, by `sampling`: `blocks` of `block_length` tokens with the finished ones kept,
        `uncached` blocks, or `plain` passes over the whole output. Options: attention, algorithm; sampling, block_length.

        Raises CostModelError for a recursive reasoner, and where blocks and steps do not divide.

        >>> import costmodel as cm
        >>> cm.load("gpt2").generation_flops(prompt=100, generated=1) == cm.load("gpt2").prefill_flops(context=100)
        True
        """
        return self._generation("generation_flops", "FLOP", self._flop_terms, autoregressive_flops, ("attention", "algorithm"))

    @cached_property
    def generation_bytes_moved(self) -> Formula:
        """Bytes read and written by the passes that `generation_flops` counts: what a small batch waits for.

        Options: precision, algorithm; sampling, block_length. Raises CostModelError like `generation_flops`.

        >>> import costmodel as cm
        >>> gpt2 = cm.load("gpt2")
        >>> steps = [gpt2.bytes_moved(new_tokens=1, context=100 + i) for i in (1, 2)]
        >>> gpt2.generation_bytes_moved(prompt=100, generated=3) == gpt2.bytes_moved(new_tokens=100, context=100) + sum(steps)
        True
        """
        takes = ("precision", "attention", "algorithm")
        return self._generation("generation_bytes_moved", "bytes", self._moved_terms, autoregressive_traffic, takes)

    def _generation(
        self, name: str, unit: str, pass_terms: PassTerms, one_by_one: Callable[[PassTerms, Options], tuple[Term, ...]],
        takes: tuple[str, ...],
    ) -> Formula:  # fmt: skip
        """A quantity of all passes of an output, token after token or by denoising."""
        if self.recursion:
            raise CostModelError(f"{self.name} solves puzzles and writes no text; ask for solve_flops")
        if self.diffusion is None:
            return self._formula(name, unit, partial(one_by_one, pass_terms), takes=takes, letters=(B, S_p, S_g))
        own = self.diffusion.block_length

        def derive(options: Options) -> tuple[Term, ...]:
            return diffusion_terms(pass_terms, options, options.block_length or own)

        def require(options: Options) -> Callable[[Mapping[Symbol, Any]], None]:
            return check_blocks(0 if options.sampling == "plain" else options.block_length or own)

        return self._formula(
            name, unit, derive, takes=(*takes, "sampling", "block_length"), letters=(B, S_p, S_g, n_d), require=require
        )

    @cached_property
    def solve_flops(self) -> Formula:
        """Tensor FLOPs of a recursive reasoner's answer to one puzzle of `context` places in `steps` steps.

        Raises CostModelError for a model that writes text.

        >>> import costmodel as cm
        >>> trm = cm.load("trm-arc")
        >>> trm.solve_flops(context=916, steps=16) == 16 * trm.solve_flops(context=916, steps=1)
        True
        """
        if not self.recursion:
            raise CostModelError(f"{self.name} is no recursive reasoner; ask for generation_flops")
        derive = partial(recursion_terms, self._flop_terms)
        return self._formula("solve_flops", "FLOP", derive, letters=(B, S, n_d))

    def _learned(self, group: str, times: int) -> int:
        learning = next((layers for layers in self.layers if layers.name == group and layers.learning), None)
        return times if learning is None else times * (learning.learning or 0) // learning.count

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

        blocks = [block for group in self.layers for block in group.blocks] if view.hybrid_pages else []
        tokens = [one_rank(tuple(kept for kept in block.kept() if kept.per_token), self._letters(block)) for block in blocks]
        slots = [one_rank(tuple(kept for kept in block.kept() if not kept.per_token), self._letters(block)) for block in blocks]
        return max(tokens, default=0), max(slots, default=0)

    def _letters(self, block: Block) -> dict[Symbol, Expr]:
        return {d_model: Integer(self.hidden_size)} | block.binding()

    def _padding(self, view: View, precision: Precision) -> tuple[Term, ...]:
        """What a slot of state wastes when it takes whole pages of attention."""
        per_token, per_slot = self._page_bytes(view, precision)
        if not per_token or not per_slot:
            return ()
        page = Integer(view.tp * view.block * per_token * (1 + view.speculative))
        terms = []
        for group, block in ((layers, block) for layers in self.layers for block in layers.blocks):
            states = tuple(kept for kept in block.kept() if not kept.per_token)
            if states:
                waste = B * page - Cost(kept=states).cache_bytes(precision, view)
                terms.append(Term((group.name, block.kind, "page_padding"), group.count, waste, waste, self._letters(block)))
        return tuple(terms)
