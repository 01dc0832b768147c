"""Gated short convolution: a few taps along the tokens, between two gates made from the input."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from costmodel.blocks.base import Flag, Mixer, Size
from costmodel.cost import Kept
from costmodel.ops import N, Op, conv, linear, vector
from costmodel.symbols import K, d_model
from costmodel.workload import Pass


class ShortConv(Mixer):
    """out_proj(c * conv(b * x)), where in_proj gives b, c and x of d_model each; the convolution is causal and depthwise.

    2 N d_model (3 d_model + K + d_model) FLOPs: the two projections and K taps a channel; the gates are vector rows. Keeps the
    gated inputs of the last K - 1 tokens in the activations' format (the implementation in transformers keeps K). `conv_bias`
    is a bias in all three.

    >>> [kept.name for kept in ShortConv(conv_L_cache=3).kept()]
    ['conv_tail']
    """

    source: ClassVar[str] = "Liquid AI 2025, LFM2 technical report, arXiv 2511.23404"

    kind: Literal["short_conv"] = "short_conv"
    conv_L_cache: Annotated[Size, K]  # noqa: N815 - as published configs spell it
    conv_bias: Flag = False

    def ops(self, forward: Pass) -> list[Op]:
        return [
            linear("in_proj", d_model, 3 * d_model, bias=self.conv_bias),
            vector("input_gate", N * d_model, 1, moved=3 * N * d_model),
            conv("conv", d_model, K, self.kept(), bias=self.conv_bias),
            vector("output_gate", N * d_model, 1, moved=3 * N * d_model, kernel="gate"),
            linear("out_proj", d_model, d_model, bias=self.conv_bias),
        ]

    def kept(self) -> tuple[Kept, ...]:
        """The last kernel - 1 columns of the convolution's input."""
        return (Kept("conv_tail", d_model, K - 1, per_token=False, role="activations"),)
