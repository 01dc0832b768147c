"""What a device holds while it trains: its part of weights, gradients and optimiser, and what the backward pass needs.

Every row is a Formula over ledger rows, in the letters B (sequences of a microbatch), S (their tokens) and those of ranks.
Activations follow Korthikanti et al. 2022, arXiv 2205.05198, section 4, which adds up the tensors of a GPT layer; here each op
of the ledger says what it saves, so that a GPT layer gives their sums and other layers theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sympy import Add, Expr, Integer

from costmodel.architecture import Architecture
from costmodel.cost import ONE, ZERO
from costmodel.footprint import LOGIT_BYTES, Held
from costmodel.formula import Formula, Term
from costmodel.ops import N, Op
from costmodel.parallelism import weight_share
from costmodel.quantities import Row
from costmodel.symbols import B, S, T, d_model, n_cp, n_dp, n_ep, n_tp
from costmodel.workload import Options, Phase, Precision, View, ceil_div

RECOMPUTE = ("none", "selective", "full")
OPTIMIZERS = {"adamw": 12, "adamw-bf16": 8, "adamw-8bit": 6, "momentum": 8, "sgd": 4}
"""Bytes a parameter: fp32 master weights in each, and two moments in fp32, in bf16 (DeepSeek-V3 report, section 3.3.3) or in
8 bits (arXiv 2110.02861, its block scales left out); one moment in fp32; none."""
NAMES = ("weights", "gradients", "optimizer", "activations")
OUTSIDE = ("embedding", "head", "mtp")
"""Groups that are no layers: recomputation leaves them as they are."""
MASK = ONE
"""Bytes of an element of a dropout mask."""
REREAD = ("linear", "expert_linear")
"""Kinds whose rows of one block read the same tensor where they read equally wide ones: q, k and v; gate and up."""


@dataclass(frozen=True)
class TrainingState:
    """What one device of stage `stage` of `stages` holds, with `in_flight` microbatches on their way.

    `zero`: the optimiser (1), gradients too (2), weights too (3) are cut over data-parallel ranks. `sequence_parallel`: what
    tensor-parallel ranks would each hold whole is cut over them along the tokens. `dropout`: with the masks of the paper's GPT.
    """

    model: Architecture
    formats: Precision
    optimizer: str = "adamw"
    gradients: str = "bf16"
    zero: int = 1
    sequence_parallel: bool = False
    recompute: str = "none"
    dropout: bool = False
    stages: int = 1
    stage: int = 0
    in_flight: int = 1

    def formula(self, name: str) -> Formula:
        """One row in letters. `name` is one of `NAMES`."""
        derive: Callable[[], tuple[Term, ...]] = getattr(self, f"_{name}")
        ranks = (n_tp, n_dp, n_ep)
        about: dict[str, Any] = {"letters": (B, S, n_tp), "given": {T: S}} if name == "activations" else {"letters": ranks}
        return Formula(f"training.{name}", "bytes", lambda options: derive(), recipe=(self, "formula", name), **about)

    @cached_property
    def _held(self) -> Held:
        return Held(self.model, self.formats, View(), self.stages, self.stage)

    # what is stored

    def _stored(self, of: Callable[[Row], Expr], sharded: bool) -> tuple[Term, ...]:
        """Each row's bytes, and the rank's part of them."""

        def share(row: Row) -> Expr:
            if self.stages > 1 and row.group == "head":  # the last stage copies a token table that is its head too
                weights = tuple(replace(weight, copies=ONE) for weight in row.op.cost.weights)
                row = replace(row, op=replace(row.op, cost=replace(row.op.cost, weights=weights)))
            ranks = weight_share(row.op).xreplace({n_dp: n_ep, n_cp: ONE})
            copies = n_dp / n_ep if row.op.split == "experts" else n_dp
            return of(row) * ranks / (copies if sharded else ONE)

        return self._held._terms(share, stored=True)

    def _weights(self) -> tuple[Term, ...]:
        return self._stored(lambda row: row.op.cost.weight_bytes(self.formats), self.zero >= 3)

    def _gradients(self) -> tuple[Term, ...]:
        size = Precision(activations=self.gradients).element("activations")
        return self._stored(lambda row: row.op.cost.params * size, self.zero >= 2)

    def _optimizer(self) -> tuple[Term, ...]:
        size = Integer(OPTIMIZERS[self.optimizer])
        return self._stored(lambda row: row.op.cost.params * size, self.zero >= 1)

    # what the backward pass needs

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The ledger of a training pass: all logits, every score of the square, latents expanded."""
        options = Options(precision=self.formats, logits="all", attention="full")
        return tuple(row for row in self.model._rows(options, Phase.PREFILL) if row.group != "vision")

    def _activations(self) -> tuple[Term, ...]:
        layers = self.recompute != "full"
        rows = [row for row in self._distinct() if layers or row.group in OUTSIDE]
        shares = [(row.path, self._held._times(row, row.times), self._saved(row), row) for row in rows]
        terms = [Term(path, times * self.in_flight, expr, expr, row.binding, row.source) for path, times, expr, row in shares]
        terms += [] if layers else self._inputs()
        return tuple(term for term in terms if term.times and term.prefill != 0)

    def _distinct(self) -> Iterator[Row]:
        """The rows; what several products of a block read is saved by the first of them."""
        seen = set()
        for row in self.rows:
            key = (row.group, row.block, row.op.kind, row.op.split == "rows", row.op.saved)
            again = row.op.kind in REREAD and key in seen
            seen.add(key)
            yield replace(row, op=replace(row.op, saved=ZERO)) if again else row

    def _inputs(self) -> list[Term]:
        """With full recomputation, the stream before each layer alone."""
        saved = N * d_model * self._size * self._stream
        width = {d_model: Integer(self.model.hidden_size)}
        here = {name: layers for name, layers in self._held._layers.items() if name not in (*OUTSIDE, "vision")}
        return [Term((name, "layer", "input"), layers * self.in_flight, saved, saved, width) for name, layers in here.items()]

    @property
    def _size(self) -> Expr:
        return self.formats.element("activations")

    @property
    def _stream(self) -> Expr:
        """A rank's part of what is as wide as the residual stream."""
        return ONE / n_tp if self.sequence_parallel else ONE

    def _saved(self, row: Row) -> Expr:
        """Bytes that one use of a row leaves on a rank for the backward pass."""
        op = row.op
        part = op.saved * self._stream if _as_wide_as_the_stream(op) else _on_a_rank(op, op.saved)
        parts = [part * self._size]
        if op.kind == "attend":
            parts.append(self._scores(op))
        if row.block == "residual" or op.name == "embed_tokens":
            parts.append(N * d_model * MASK * self._stream if self.dropout else ZERO)
        if op.name == "lm_head":
            parts.append(LOGIT_BYTES * N * dict(op.shape)["n"] / n_tp)
        return Add(*parts)

    def _scores(self, op: Op) -> Expr:
        """Softmax's output, its dropout's mask and output: what selective recomputation, or a fused kernel, does not keep."""
        shape = dict(op.shape)
        if self.recompute != "none" or "pairs" not in shape:
            return ZERO
        kept = self._size + (MASK + self._size if self.dropout else ZERO)
        return B * _on_a_rank(op, shape["heads"]) * shape["pairs"] * kept


def _as_wide_as_the_stream(op: Op) -> bool:
    """Whether each tensor-parallel rank needs it whole: what goes into matrices that are cut by columns, and norms."""
    if op.kind == "linear":
        return op.split != "rows"
    return op.split == "none" or op.saved.has(d_model)


def _on_a_rank(op: Op, expr: Expr) -> Expr:
    """A rank's part of what is cut over tensor-parallel ranks; heads that they do not divide are rounded up."""
    heads = {dict(op.shape)[name] for name in ("heads", "kv_heads") if name in dict(op.shape)}
    return expr.xreplace({number: ceil_div(number, n_tp) for number in heads}) if heads else expr / n_tp
