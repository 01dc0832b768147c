"""The families: one file each. A new family is one file here and its name in one of the two unions."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from costmodel.blocks.base import Block, FeedForward, Mixer
from costmodel.blocks.dsa import DSA
from costmodel.blocks.gated_deltanet import GatedDeltaNet
from costmodel.blocks.gqa import GQA
from costmodel.blocks.kda import KDA
from costmodel.blocks.lightning_attention import LightningAttention
from costmodel.blocks.mamba import Mamba
from costmodel.blocks.mamba2 import Mamba2
from costmodel.blocks.mla import MLA
from costmodel.blocks.mlp import MLP
from costmodel.blocks.mlstm import MLSTM
from costmodel.blocks.moe import MoE
from costmodel.blocks.norm import Norm
from costmodel.blocks.parallel_hybrid import ParallelHybrid
from costmodel.blocks.rwkv7 import RWKV7, RWKVChannelMix
from costmodel.blocks.shared_transformer import SharedTransformer
from costmodel.blocks.short_conv import ShortConv
from costmodel.blocks.token_mixing import TokenMixing

AnyMixer = (
    GQA
    | MLA
    | DSA
    | GatedDeltaNet
    | KDA
    | LightningAttention
    | TokenMixing
    | Mamba
    | Mamba2
    | ParallelHybrid
    | SharedTransformer
    | ShortConv
    | MLSTM
    | RWKV7
)
AnyFeedForward = MLP | MoE | RWKVChannelMix

MixerField = Annotated[AnyMixer, Field(discriminator="kind")]
FeedForwardField = Annotated[AnyFeedForward, Field(discriminator="kind")]

FAMILIES: dict[str, type[Block]] = {
    family.model_fields["kind"].default: family for union in (AnyMixer, AnyFeedForward) for family in get_args(union)
}
"""Every family by its kind."""

__all__ = [
    "DSA",
    "FAMILIES",
    "GQA",
    "KDA",
    "MLA",
    "MLP",
    "MLSTM",
    "RWKV7",
    "AnyFeedForward",
    "AnyMixer",
    "Block",
    "FeedForward",
    "FeedForwardField",
    "GatedDeltaNet",
    "LightningAttention",
    "Mamba",
    "Mamba2",
    "Mixer",
    "MixerField",
    "MoE",
    "Norm",
    "ParallelHybrid",
    "RWKVChannelMix",
    "SharedTransformer",
    "ShortConv",
    "TokenMixing",
]  # fmt: skip
