"""How the devices of a replica share a model: which part of a row's weights, work and kept state each of them has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from sympy import Expr, Integer

from costmodel.cost import ONE, Kept
from costmodel.errors import CostModelError
from costmodel.ops import Op
from costmodel.symbols import B, S, T, n_cp, n_dp, n_tp
from costmodel.workload import Checked, Precision, View, ceil_div

MAX_RANKS = 65_536
Ranks = Annotated[int, Field(strict=True, ge=1, le=MAX_RANKS)]
Overlap = Literal["none", "two_batches"]


class Parallel(Checked):
    """The layout of one replica: `devices` = tp x dp x cp x pp.

    `tp` ranks share every layer's matrices and heads (key/value heads beyond their number are copied, and a latent is whole on
    each); `dp` groups of them attend to sequences of their own (data-parallel attention) and share the experts; `cp` of
    them hold a part each of every context; `pp` stages hold a part each of the layers. Experts are spread over `ep` of a
    stage's tp x dp x cp ranks, and cut over the rest. `microbatches` pieces of a prompt follow each other through the stages.
    `overlap="two_batches"`: a batch is halved, and one half computes while the other's messages travel. `imbalance` is the
    load of the busiest rank of experts over the mean.

    Raises CostModelError where ep does not divide the ranks, or a number is impossible.

    >>> Parallel(tp=2, dp=4, ep=8).devices
    8
    """

    tp: Ranks = 1
    pp: Ranks = 1
    dp: Ranks = 1
    cp: Ranks = 1
    ep: Ranks = 1
    microbatches: Annotated[int, Field(strict=True, ge=1, le=1024)] = 1
    overlap: Overlap = "none"
    imbalance: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _divides(self) -> Parallel:
        if self.devices > MAX_RANKS:
            raise ValueError(f"tp x dp x cp x pp is {self.devices:,} devices; give at most {MAX_RANKS:,}")
        if self.ranks % self.ep:
            shared = f"tp {self.tp}" if self.ranks == self.tp else f"the {self.ranks} ranks of a stage (tp x dp x cp)"
            raise ValueError(f"ep {self.ep} does not divide {shared}: experts are spread over ranks of the same group")
        return self

    @property
    def ranks(self) -> int:
        """Devices of one stage."""
        return self.tp * self.dp * self.cp

    @property
    def devices(self) -> int:
        """Devices of one replica."""
        return self.ranks * self.pp

    @property
    def name(self) -> str:
        """The degrees that are not 1, as people write them.

        >>> Parallel(tp=8, ep=8).name, Parallel().name
        ('TP8 EP8', 'TP1')
        """
        named = [f"{letters.upper()}{getattr(self, letters)}" for letters in ("tp", "dp", "cp", "pp", "ep")]
        shown = [text for text in named if not text.endswith("P1")]
        return " ".join([*(shown or ["TP1"]), *(["overlapped"] if self.overlap != "none" else [])])


def weight_share(op: Op) -> Expr:
    """The part of a row's weights that one rank stores, in the letters of ranks.

    >>> from costmodel.symbols import d_ff, d_model
    >>> from costmodel.ops import linear
    >>> weight_share(linear("up_proj", d_model, d_ff))
    1/n_tp
    """
    if op.split == "experts":
        return ONE / (n_tp * n_dp * n_cp)
    if op.split == "none" or op.name.endswith("norm"):  # a norm of each head has the same weight for all of them
        return ONE
    return ONE / n_tp if op.heads is None else ceil_div(op.heads, n_tp) / op.heads


def kept_share(kept: Kept, precision: Precision, view: View) -> Expr:
    """Bytes that one rank keeps of what a layer keeps, of B sequences in the replica's stage, in the letters of ranks.

    Sequences are spread over the dp groups, a context's tokens (an engine's pages) over the cp ranks, heads over the tp ranks; a
    latent, and a state that is not cut into heads, is whole on each.
    """
    if kept.borrowed:
        return Integer(0)
    slots = kept.slots(view)
    if kept.per_token:
        page = view.block if view.engine else 1
        slots = page * ceil_div(slots / page, n_cp)
    heads = ceil_div(kept.heads, n_tp) if kept.split else kept.heads
    return ceil_div(B, n_dp) * slots * kept.unit_bytes(precision, heads)


def stage_layers(order: tuple[str, ...], stages: int) -> tuple[dict[str, int], ...]:
    """How many layers of each group stand in each stage: equal numbers in a row, what is left over in the last but one stages.

    Raises CostModelError for more stages than layers.

    >>> stage_layers(("local", "local", "global", "local", "local"), 2)
    ({'local': 2, 'global': 1}, {'local': 2})
    """
    if stages > len(order):
        raise CostModelError(f"pp {stages} exceeds the {len(order)} layers; give at most {len(order)}")
    each, left = divmod(len(order), stages)
    sizes = [each] * stages
    for place in range(2, left + 2):
        sizes[-place % stages] += 1
    found, start = [], 0
    for size in sizes:
        taken = order[start : start + size]
        found.append({name: taken.count(name) for name in dict.fromkeys(taken)})
        start += size
    return tuple(found)


def one_pass(expr: Expr) -> Expr:
    """A row's expression for one sequence that is all the new tokens of a pass: B = 1 and S = T."""
    return expr.xreplace({B: ONE, S: T})
