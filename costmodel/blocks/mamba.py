"""Mamba: a state space whose channels decay each by its own matrix, so that it has a scan and no chunked form."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from sympy import Integer

from costmodel.blocks.base import Flag, Mixer, Size
from costmodel.cost import ONE, ZERO, Kept, Weight
from costmodel.ops import N, Op, conv, linear, norm, scan, vector
from costmodel.symbols import K, d_inner, d_model, d_N, d_t
from costmodel.workload import Pass


class Mamba(Mixer):
    """State space of d_inner channels with d_N elements of state each; what writes and reads them is the channels' own output.

    The scan, one token or many, is one algorithm: each token writes x B^T and reads h C, 4 FLOPs for each of the
    d_inner d_N elements of state. What the published kernel does to run it in parallel is not counted.

    >>> block = Mamba(d_inner=5120, ssm_state_size=16, time_step_rank=160, conv_kernel=4)
    >>> [kept.name for kept in block.kept()]
    ['state', 'conv_tail']
    """

    source: ClassVar[str] = "Gu and Dao 2023, arXiv 2312.00752; norms: Jamba, arXiv 2403.19887"

    kind: Literal["mamba"] = "mamba"
    d_inner: Annotated[Size, d_inner]
    ssm_state_size: Annotated[Size, d_N]
    time_step_rank: Annotated[Size, d_t]
    conv_kernel: Annotated[Size, K]
    conv_bias: Flag = True
    proj_bias: Flag = False
    """Biases in the first and the last projection."""
    step_norms: Flag = False
    """Norms of the step's latent and of the vectors that write and read the state."""

    def ops(self, forward: Pass) -> list[Op]:
        return [
            linear("in_proj", d_model, 2 * d_inner, bias=self.proj_bias),  # channels and gate
            conv("conv1d", d_inner, K, self._tails(), bias=self.conv_bias),
            vector("conv_silu", N * d_inner, 4, kernel="gate"),
            linear("x_proj", d_inner, d_t + 2 * d_N),  # step, B and C
            *(self._step_norms() if self.step_norms else []),
            linear("dt_proj", d_t, d_inner, bias=True),
            vector("step", N * d_inner, 3),
            scan("selective_scan", 4 * N * d_inner * d_N, self._states(), moved=3 * N * d_inner + 2 * N * d_N),
            vector("decay_state", N * d_inner * d_N, 3, moved=ZERO, weights=(Weight(d_inner, d_N, "others"),)),  # A_log
            vector("skip", N * d_inner, 2, moved=3 * N * d_inner, weights=(Weight(ONE, d_inner, "others"),)),  # D
            vector("output_gate", N * d_inner, 5, moved=3 * N * d_inner, kernel="gate"),
            linear("out_proj", d_inner, d_model, bias=self.proj_bias),
        ]

    def _step_norms(self) -> list[Op]:
        return [norm("dt_norm", d_t), norm("b_norm", d_N), norm("c_norm", d_N)]

    def kept(self) -> tuple[Kept, ...]:
        """The state (fp32 unless set), and kernel - 1 columns of convolution input in the activations' format."""
        return self._states() + self._tails()

    def _states(self) -> tuple[Kept, ...]:
        return (Kept("state", d_inner, d_N, per_token=False, role="state", own=Integer(4)),)

    def _tails(self) -> tuple[Kept, ...]:
        return (Kept("conv_tail", d_inner, K - 1, per_token=False, role="activations"),)
