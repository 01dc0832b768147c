"""Cost: what an op costs, as expressions that add. Parameters, FLOPs and bytes all follow from its few fields.

A `Weight` is a stored matrix, a `Kept` something kept for each sequence between tokens; a `Cost` holds both
beside the FLOPs and the activation elements moved. Nothing is counted in two places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sympy import Add, Expr, Integer, Min
from sympy import S as CONSTANTS

from costmodel.errors import UnsupportedArchitecture
from costmodel.symbols import B, S, T
from costmodel.workload import PACKED_MLA, Precision, View, ceil_div

ZERO, ONE, TWO = CONSTANTS.Zero, CONSTANTS.One, Integer(2)
THEORY = View()


def lower(a: Expr, b: Expr) -> Expr:
    """min(a, b), left unevaluated while letters remain."""
    return Min(a, b) if a.is_Number and b.is_Number else Min(a, b, evaluate=False)


@dataclass(frozen=True)
class Weight:
    """`copies` stored matrices [d_in, d_out]; a vector is [1, n].

    A token uses `active` of them; a pass reads `touched` of them. `role` picks the storage format.
    """

    d_in: Expr
    d_out: Expr
    role: str = "weights"
    copies: Expr = ONE
    active: Expr = ONE
    touched: Expr = ONE

    @property
    def elements(self) -> Expr:
        """Elements of one copy."""
        return self.d_in * self.d_out

    def bytes(self, precision: Precision) -> Expr:
        """Bytes of one copy, scales included."""
        return precision.matrix(self.role).bytes(self.d_in, self.d_out)


@dataclass(frozen=True)
class Kept:
    """State kept for each sequence and layer: `heads` x `width` elements, for each token in `reach` or once.

    `per_token=False` is a recurrent state or a convolution tail. `reach` is how many tokens back it is needed
    (None: all). `split` says that tensor-parallel ranks share the heads; otherwise each rank keeps it whole.
    `own` is the state's own bytes an element; `packed` the bytes a token in DeepSeek's packed form. `borrowed` state is
    another layer's: read here, kept and written there. `picked` is how many tokens a query reads where not all in reach.
    """

    name: str
    heads: Expr
    width: Expr
    per_token: bool = True
    reach: Expr | None = None
    split: bool = True
    role: str = "cache"
    own: Expr | None = None
    packed: Expr | None = None
    borrowed: bool = False
    picked: Expr | None = None

    def unit_bytes(self, precision: Precision, heads: Expr) -> Expr:
        """Bytes of one token, or of one slot of state, in `heads` heads."""
        if self.role == "cache" and precision.cache == PACKED_MLA:
            if self.packed is None:
                raise UnsupportedArchitecture(f"cache format {PACKED_MLA} packs MLA latents, not {self.name}; choose fp8 or bf16")
            return self.packed * heads
        return heads * self.width * precision.element(self.role, self.own)

    def slots(self, view: View) -> Expr:
        """Tokens a sequence keeps (1 for a state), as the view reserves them."""
        if not self.per_token:
            return Integer(1 + view.speculative) if view.engine else ONE
        if not view.engine:
            return S if self.reach is None else lower(S, self.reach)
        pages = ceil_div(S, view.block)
        if self.reach is not None and view.evict_windows:
            pages = lower(pages, ceil_div(self.reach, view.block) + 1)
        return view.block * pages

    def head_count(self, view: View) -> Expr:
        """Heads kept over all ranks: rounded up when ranks do not divide them, repeated when not split."""
        if not view.engine or view.tp == 1:
            return self.heads
        return view.tp * (ceil_div(self.heads, view.tp) if self.split else self.heads)

    def bytes(self, precision: Precision, view: View = THEORY) -> Expr:
        """Bytes kept of B sequences in one layer."""
        if self.borrowed:
            return ZERO
        return B * self.slots(view) * self.unit_bytes(precision, self.head_count(view))

    def bytes_moved(self, precision: Precision) -> Expr:
        """Bytes read and written in one pass: the tokens in sight once, the new ones written; a state in and out."""
        if not self.per_token:
            return TWO * self.bytes(precision)
        in_sight = S if self.reach is None else lower(S, T + self.reach - 1)
        in_sight = in_sight if self.picked is None else lower(S, T * self.picked)
        written = ZERO if self.borrowed else T
        return B * (in_sight + written) * self.unit_bytes(precision, self.heads)


@dataclass(frozen=True)
class Cost:
    """Expressions that add.

    `flops` tensor work (one multiply-add is 2), `vector_flops` the rest, `activations` elements read and
    written, `weights` the stored matrices, `kept` what stays between tokens.

    >>> from costmodel.symbols import d_ff, d_model
    >>> cost = Cost(weights=(Weight(d_model, d_ff),))
    >>> (cost + cost).params
    2*d_ff*d_model
    """

    flops: Expr = ZERO
    vector_flops: Expr = ZERO
    activations: Expr = ZERO
    weights: tuple[Weight, ...] = ()
    kept: tuple[Kept, ...] = ()

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.vector_flops + other.vector_flops,
            self.activations + other.activations,
            self.weights + other.weights,
            self.kept + other.kept,
        )

    def forgetting(self) -> Cost:
        """The same work where nothing is kept: what would be read and written of it moves as activations."""
        moved = (B * (S + T) * kept.heads * kept.width for kept in self.kept if kept.per_token)
        return replace(self, kept=(), activations=Add(self.activations, *moved))

    @property
    def params(self) -> Expr:
        """Stored parameters."""
        return Add(*(weight.copies * weight.elements for weight in self.weights))

    @property
    def active(self) -> Expr:
        """Parameters one token uses."""
        return Add(*(weight.active * weight.elements for weight in self.weights))

    def weight_bytes(self, precision: Precision) -> Expr:
        """Bytes of the stored weights, scales included."""
        return Add(*(weight.copies * weight.bytes(precision) for weight in self.weights))

    def weight_bytes_moved(self, precision: Precision) -> Expr:
        """Bytes of the weights that one pass reads: of routed experts, the expected distinct ones."""
        return Add(*(weight.touched * weight.bytes(precision) for weight in self.weights))

    def activation_bytes(self, precision: Precision) -> Expr:
        """Bytes of activations read and written."""
        return self.activations * precision.element("activations")

    def cache_bytes(self, precision: Precision, view: View = THEORY) -> Expr:
        """Bytes kept of B sequences."""
        return Add(*(kept.bytes(precision, view) for kept in self.kept))

    def cache_bytes_moved(self, precision: Precision) -> Expr:
        """Bytes of kept state read and written."""
        return Add(*(kept.bytes_moved(precision) for kept in self.kept))

    def bytes_moved(self, precision: Precision) -> Expr:
        """All traffic of one pass: weights, activations and kept state."""
        return self.weight_bytes_moved(precision) + self.activation_bytes(precision) + self.cache_bytes_moved(precision)
