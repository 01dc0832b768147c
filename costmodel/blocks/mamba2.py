"""Mamba-2: a state space whose heads decay by one scalar each, so that it has a chunked form made of matrix products."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import model_validator
from sympy import Expr, Integer

from costmodel.blocks.base import Flag, Mixer, Size
from costmodel.cost import ONE, ZERO, Kept, Weight
from costmodel.ops import N, Op, chunk_count, chunk_powers, conv, linear, norm, scan, vector
from costmodel.symbols import B, C, K, T, d_m, d_model, d_N, n_g, n_m
from costmodel.workload import Pass

inner = n_m * d_m
"""Width of all heads together."""


class Mamba2(Mixer):
    """State space of n_m heads [d_m, d_N]; n_g groups of heads share the vectors B and C that write and read the state.

    `recurrent`: one step writes x B^T and reads h C, 4 FLOPs for each of the n_m d_m d_N elements of state.
    `chunked`, as the published kernel goes through c tokens of a chunk: C B^T in each group (2 c^2 d_N n_g), the masked
    scores on x (2 c^2 d_m n_m), x B^T summed to the chunk's state (2 c d_m d_N n_m), and C on the state before the chunk
    (2 c d_m d_N n_m): with whole chunks 4 n_m d_m d_N + 2 C (n_g d_N + n_m d_m) a token. Scores count as whole squares, as
    in the paper (the kernel skips blocks of them above the diagonal when it applies them). Decays, their mask, and passing
    states from chunk to chunk are vector rows. Decode is recurrent unless asked otherwise, prefill chunked, the last chunk
    at its real length (the reference implementation pads it).
    Raises CostModelError where n_g does not divide n_m.

    >>> block = Mamba2(mamba_num_heads=80, mamba_head_dim=64, ssm_state_size=128, n_groups=1, conv_kernel=4)
    >>> [kept.name for kept in block.kept()]
    ['state', 'conv_tail_x', 'conv_tail_bc']
    """

    source: ClassVar[str] = "Dao and Gu 2024, arXiv 2405.21060; chunks as in mamba_ssm's ssd_combined"
    algorithms: ClassVar[tuple[str, ...]] = ("recurrent", "chunked")

    kind: Literal["mamba2"] = "mamba2"
    mamba_num_heads: Annotated[Size, n_m]
    mamba_head_dim: Annotated[Size, d_m]
    ssm_state_size: Annotated[Size, d_N]
    n_groups: Annotated[Size, n_g]
    conv_kernel: Annotated[Size, K]
    chunk_size: Annotated[Size, C] = 256
    conv_bias: Flag = True
    in_proj_bias: Flag = False
    out_proj_bias: Flag = False
    gated_norm: Flag = True
    """A norm over all heads' outputs, after the gate and before the last projection."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.mamba_num_heads % self.n_groups:
            raise ValueError(f"n_groups {self.n_groups} does not divide mamba_num_heads {self.mamba_num_heads}")
        return self

    def ops(self, forward: Pass) -> list[Op]:
        channels = inner + 2 * n_g * d_N
        per_head = Weight(ONE, n_m, "others")
        return [
            linear("in_proj", d_model, inner + channels + n_m, bias=self.in_proj_bias),  # gate; x, B and C; step
            conv("conv1d", channels, K, self._tails(), bias=self.conv_bias),
            vector("conv_silu", N * channels, 4, kernel="gate"),
            vector("step_and_decay", N * n_m, 6, moved=3 * N * n_m, weights=(per_head, per_head)),  # dt_bias and A_log
            *self._selective_scan(self.algorithm(forward)),
            vector("skip", N * inner, 2, moved=3 * N * inner, weights=(per_head,)),  # D
            vector("output_gate", N * inner, 5, moved=3 * N * inner, kernel="gate"),
            *([norm("norm", inner)] if self.gated_norm else []),
            linear("out_proj", inner, d_model, bias=self.out_proj_bias),
        ]

    def _selective_scan(self, algorithm: str) -> list[Op]:
        moved = 2 * N * inner + 2 * N * n_g * d_N + N * n_m
        on_state = 4 * N * inner * d_N
        if algorithm == "recurrent":
            decay = vector("decay_state", N * inner * d_N, 1, moved=ZERO, algorithm=algorithm)
            return [scan("selective_scan", on_state, self._states(), moved=moved, algorithm=algorithm, kernel="ssd_step"), decay]
        squares = B * chunk_powers(T, C, 2)
        within = 2 * squares * (n_g * d_N + inner)
        all_moved = moved + 2 * squares * n_g  # scores are written once and read once
        return [
            scan("selective_scan", on_state + within, self._states(), moved=all_moved, algorithm=algorithm, kernel="ssd_chunked"),
            vector("decay_mask", squares * n_m, 3, moved=ZERO, algorithm=algorithm),
            self._state_passing(algorithm),
        ]

    def _state_passing(self, algorithm: str) -> Op:
        """h of the chunk before times its decay, plus the chunk's own: each chunk's state written and read twice."""
        states: Expr = B * chunk_count(T, C) * inner * d_N
        return vector("state_passing", states, 2, moved=4 * states, algorithm=algorithm)

    def kept(self) -> tuple[Kept, ...]:
        """The state (fp32 unless set), and kernel - 1 columns of convolution input in the activations' format."""
        return self._states() + self._tails()

    def _states(self) -> tuple[Kept, ...]:
        return (Kept("state", n_m, d_m * d_N, per_token=False, role="state", own=Integer(4)),)

    def _tails(self) -> tuple[Kept, ...]:
        columns = K - 1
        return (
            Kept("conv_tail_x", n_m, d_m * columns, per_token=False, role="activations"),
            Kept("conv_tail_bc", n_g, 2 * d_N * columns, per_token=False, role="activations"),
        )
