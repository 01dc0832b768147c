"""RWKV-7 as a torch module, from the equations of its paper (arXiv 2503.14456): `transformers` has no class of it.

Shapes are [batch, heads, tokens, head]. The state is [head of keys, head of values] for each head, as the paper's transposed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CHUNK = 16
Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""r, log w, k, v, a and b: what reads, forgets, writes, is written, retrieves, and where the correction goes."""


# the recurrence: S' = diag(w) S + b^T (a S) + k^T v, and r S' is given


def step(vectors: Six, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token."""
    r, log_w, k, v, a, b = vectors
    state = log_w.exp().transpose(-1, -2) * state + b.transpose(-1, -2) @ (a @ state) + k.transpose(-1, -2) @ v
    return r @ state, state


def stepwise(vectors: Six, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token after another."""
    outputs = []
    for token in range(vectors[0].shape[-2]):
        output, state = step(tuple(part[..., token : token + 1, :] for part in vectors), state)  # type: ignore[arg-type]
        outputs.append(output)
    return torch.cat(outputs, -2), state


def in_chunks(vectors: Six, state: Tensor, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Whole chunks, and the rest as a shorter one."""
    outputs, tokens = [], vectors[0].shape[-2]
    whole = tokens - tokens % chunk
    for start, end, length in ((0, whole, chunk), (whole, tokens, tokens - whole)):
        if start < end:
            part = tuple(part[..., start:end, :].unflatten(-2, (-1, length)) for part in vectors)
            output, state = _chunks(part, state)  # type: ignore[arg-type]
            outputs.append(output.flatten(-3, -2))
    return torch.cat(outputs, -2), state


def _chunks(vectors: Six, state: Tensor) -> tuple[Tensor, Tensor]:
    """All that lies within chunks at once, then the state from chunk to chunk."""
    r, log_w, k, v, a, b = vectors
    faded = log_w.cumsum(-2)
    all_faded = faded[..., -1:, :]
    from_r, from_a = r * faded.exp(), a * (faded - log_w).exp()
    to_k, to_b = k * (-faded).exp(), b * (-faded).exp()
    before = (from_a @ to_b.transpose(-1, -2)).tril(-1)
    one = torch.eye(before.shape[-1]).to(before)
    factor = torch.linalg.solve_triangular(one - before, one, upper=False)
    corrections = (factor @ (from_a @ to_k.transpose(-1, -2)).tril(-1)) @ v
    retrieves = factor @ from_a
    on_k, on_b = ((from_r @ to.transpose(-1, -2)).tril() for to in (to_k, to_b))
    last_k, last_b = ((all_faded - faded).exp() * part for part in (k, b))
    written, states, all_corrected = last_k.transpose(-1, -2) @ v, [], []
    for place in range(r.shape[-3]):
        at = (..., place, slice(None), slice(None))
        states.append(state)
        all_corrected.append(corrections[at] + retrieves[at] @ state)
        state = all_faded[at].exp().transpose(-1, -2) * state + written[at] + last_b[at].transpose(-1, -2) @ all_corrected[-1]
    return from_r @ torch.stack(states, -3) + on_k @ v + on_b @ torch.stack(all_corrected, -3), state


# the layers


@dataclass
class Kept:
    """What one layer keeps of each sequence."""

    state: Tensor
    time_shift: Tensor
    channel_shift: Tensor


class LowRank(nn.Sequential):
    def __init__(self, width: int, rank: int, activation: nn.Module, *, bias: bool = True) -> None:
        super().__init__(nn.Linear(width, rank, bias=False), activation, nn.Linear(rank, width, bias=bias))


def mixed(inputs: Tensor, last: Tensor, shares: Tensor) -> Iterator[Tensor]:
    """Each token with some of the one before it, a share for each channel."""
    before = torch.cat([last[:, None], inputs[:, :-1]], 1)
    return (inputs + (before - inputs) * share for share in shares)


class TimeMix(nn.Module):
    def __init__(self, config: Any, *, first: bool) -> None:
        super().__init__()
        width, self.head = config.hidden_size, config.head_dim
        self.shares = nn.Parameter(torch.rand(6, width))
        self.k_k, self.k_a, self.r_k = (nn.Parameter(torch.rand(width)) for _ in range(3))
        self.r_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.decay = LowRank(width, config.decay_low_rank_dim, nn.Tanh())
        self.rate = LowRank(width, config.a_low_rank_dim, nn.Identity())
        self.gate = LowRank(width, config.gate_low_rank_dim, nn.Sigmoid(), bias=False)
        self.share_of_first = None if first else LowRank(width, config.v_low_rank_dim, nn.Identity())
        self.norm = nn.GroupNorm(width // self.head, width)

    def forward(self, inputs: Tensor, kept: Kept, first_values: Tensor | None) -> tuple[Tensor, Tensor]:
        for_r, for_w, for_k, for_v, for_a, for_g = mixed(inputs, kept.time_shift, self.shares)
        kept.time_shift = inputs[:, -1].clone()
        r, k, v = self.r_proj(for_r), self.k_proj(for_k), self.v_proj(for_v)
        log_w, rate = -torch.sigmoid(self.decay(for_w)) * 0.606531, torch.sigmoid(self.rate(for_a))
        if self.share_of_first is None:
            first_values = v
        else:
            v = torch.lerp(v, first_values, torch.sigmoid(self.share_of_first(for_v)))
        direction = functional.normalize(self.heads(k * self.k_k), dim=-1)
        k = k * (1 + (rate - 1) * self.k_a)
        r, log_w, k, values, rate = (self.heads(part) for part in (r, log_w, k, v, rate))
        vectors = tuple(part.float() for part in (r, log_w, k, values, -direction, direction * rate))
        read, kept.state = (step if inputs.shape[1] == 1 else in_chunks)(vectors, kept.state)  # type: ignore[arg-type]
        outputs = self.norm(read.to(inputs).transpose(1, 2).flatten(0, 1).flatten(1)).view_as(inputs)
        bonus = (r * k * self.r_k.view(-1, 1, self.head)).sum(-1, keepdim=True) * values
        outputs = (outputs + bonus.transpose(1, 2).flatten(2)) * self.gate(for_g)
        return self.o_proj(outputs), first_values  # type: ignore[return-value]

    def heads(self, vectors: Tensor) -> Tensor:
        return vectors.unflatten(-1, (-1, self.head)).transpose(1, 2)


class ChannelMix(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.shares = nn.Parameter(torch.rand(1, config.hidden_size))
        self.key = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.value = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, inputs: Tensor, kept: Kept) -> Tensor:
        (shifted,) = mixed(inputs, kept.channel_shift, self.shares)
        kept.channel_shift = inputs[:, -1].clone()
        return self.value(torch.relu(self.key(shifted)) ** 2)


class Layer(nn.Module):
    def __init__(self, config: Any, place: int) -> None:
        super().__init__()
        first = place == 0
        norms = [nn.LayerNorm(config.hidden_size, bias=config.norm_bias) for _ in range(3)]
        self.embedding_norm = norms.pop() if first and config.norm_first else nn.Identity()
        self.time_norm, self.channel_norm = norms[:2]
        self.time, self.channel = TimeMix(config, first=first), ChannelMix(config)

    def forward(self, stream: Tensor, kept: Kept, first_values: Tensor | None) -> tuple[Tensor, Tensor]:
        stream = self.embedding_norm(stream)
        read, first_values = self.time(self.time_norm(stream), kept, first_values)
        stream = stream + read
        return stream + self.channel(self.channel_norm(stream), kept), first_values


DEFAULTS = {
    "head_dim": 64, "hidden_ratio": 4, "intermediate_size": None, "norm_bias": True, "norm_first": True,
    "tie_word_embeddings": False,
}  # fmt: skip


class RWKV7ForCausalLM(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = SimpleNamespace(**DEFAULTS | config)
        width = self.config.hidden_size
        if self.config.intermediate_size is None:
            self.config.intermediate_size = 32 * -(-int(width * self.config.hidden_ratio) // 32)
        layers = [Layer(self.config, place) for place in range(self.config.num_hidden_layers)]
        norm = nn.LayerNorm(width, bias=self.config.norm_bias)
        table = nn.Embedding(self.config.vocab_size, width)
        self.model = nn.ModuleDict({"embeddings": table, "layers": nn.ModuleList(layers), "norm": norm})
        self.lm_head = nn.Linear(width, self.config.vocab_size, bias=False)
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embeddings.weight

    def forward(self, input_ids: Tensor, past_key_values: Any = None, use_cache: bool = True) -> dict[str, Any]:
        stream, values = self.model.embeddings(input_ids), None
        kept = past_key_values or SimpleNamespace(layers=[self.nothing_yet(stream) for _ in self.model.layers])
        for layer, own in zip(self.model.layers, kept.layers, strict=True):
            stream, values = layer(stream, own, values)
        return {"logits": self.lm_head(self.model.norm(stream)), "past_key_values": kept}

    def nothing_yet(self, stream: Tensor) -> Kept:
        batch, width, head = len(stream), self.config.hidden_size, self.config.head_dim
        state = torch.zeros(batch, width // head, head, head, device=stream.device)
        return Kept(state, stream.new_zeros(batch, width), stream.new_zeros(batch, width))

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embeddings

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head
