"""Shared transformer blocks, run on numbers product by product: what is stored once, what each layer has, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.architecture import Architecture
from costmodel.blocks import Norm, SharedTransformer
from costmodel.layers import LayerGroup
from tests.families import model

WIDTH, FEED, RANK, HEAD = 3, 4, 2, 5
Weights = dict[str, Any]


@dataclass
class Layers:
    """`applications` of `stored` blocks in turn, and the FLOPs of their products, two for each multiply-add."""

    applications: int
    stored: int
    heads: int = 2
    groups: int = 1
    adapters: bool = False
    bias: bool = False
    flops: int = 0
    weights: list[Weights] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.applications)
        queries, keys = self.heads * HEAD, self.groups * HEAD
        wide = {"q": queries, "k": keys, "v": keys}
        shapes = {name: (2 * WIDTH, width) for name, width in wide.items()}
        shapes |= {"o": (queries, WIDTH), "in": (WIDTH, 2 * FEED), "down": (FEED, WIDTH), "norm": (2 * WIDTH,), "norm2": (WIDTH,)}
        shapes |= {"in_bias": (2 * FEED,), "down_bias": (WIDTH,)} if self.bias else {}
        own = {"in": (WIDTH, 2 * FEED)} | ({name: shapes[name] for name in wide} if self.adapters else {})
        blocks = [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(self.stored)]
        for place in range(self.applications):
            down = {f"{name}_a": rng.normal(size=(shape[0], RANK)) for name, shape in own.items()}
            up = {f"{name}_b": rng.normal(size=(RANK, shape[1])) for name, shape in own.items()}
            self.weights.append(blocks[place % self.stored] | down | up | {"linear": rng.normal(size=(WIDTH, WIDTH))})

    def ours(self) -> Architecture:
        """The same layers as a group."""
        block = SharedTransformer(
            num_attention_heads=self.heads, num_key_value_heads=self.groups, head_dim=HEAD, intermediate_size=FEED,
            adapter_rank=RANK, attention_adapter=self.adapters, mlp_bias=self.bias,
        )  # fmt: skip
        alone = Norm(placement="none")
        layers = LayerGroup(name="shared", count=self.applications, shared=self.stored, mixer=block, norm=alone)
        return model(layers, hidden_size=WIDTH)

    def times(self, a: Any, b: Any) -> Any:
        self.flops += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b

    def adapted(self, inputs: Any, weights: Weights, name: str) -> Any:
        """x W, and x A B where there is an adapter."""
        outputs = self.times(inputs, weights[name])
        if f"{name}_a" not in weights:
            return outputs
        return outputs + self.times(self.times(inputs, weights[f"{name}_a"]), weights[f"{name}_b"])

    def attended(self, q: Any, keys: Any, values: Any) -> Any:
        """One query of each head on the keys of its group, up to its own."""
        outputs = []
        for head in range(self.heads):
            group = head * self.groups // self.heads
            own, columns = slice(head * HEAD, (head + 1) * HEAD), slice(group * HEAD, (group + 1) * HEAD)
            outputs.append(self.times(softmax(self.times(q[:, own], keys[:, columns].T)), values[:, columns]))
        return np.hstack(outputs)

    def apply(self, place: int, hidden: Any, embedding: Any, before: Any = None) -> tuple[Any, Any]:
        """The residual stream behind one layer, and the keys and values that it keeps, those of `before` first."""
        w = self.weights[place]
        wide = normed(np.hstack([hidden, embedding])) * w["norm"]
        q, *new = (self.adapted(wide, w, name) for name in "qkv")
        keys, values = new if before is None else (np.vstack(pair) for pair in zip(before, new, strict=True))
        known = len(keys) - len(q)
        attended = np.vstack([self.attended(q[[t]], keys[: known + t + 1], values[: known + t + 1]) for t in range(len(q))])
        gate, up = np.split(self.adapted(normed(self.times(attended, w["o"])) * w["norm2"], w, "in") + w.get("in_bias", 0), 2, 1)
        fed = self.times(gate / (1 + np.exp(-gate)) * up, w["down"]) + w.get("down_bias", 0)
        return hidden + self.times(fed, w["linear"]), (keys, values)

    def stored_elements(self) -> int:
        """Elements of all arrays, one that several layers use once."""
        return sum({id(array): array.size for weights in self.weights for array in weights.values()}.values())


def normed(x: Any) -> Any:
    return x / np.sqrt((x**2).mean(1, keepdims=True))


def softmax(scores: Any) -> Any:
    raised = np.exp(scores - scores.max())
    return raised / raised.sum()


layers = st.builds(
    lambda stored, more, groups, times, adapters, bias: Layers(stored + more, stored, groups * times, groups, adapters, bias),
    st.integers(1, 3), st.integers(0, 3), st.integers(1, 2), st.integers(1, 2), st.booleans(), st.booleans(),
)  # fmt: skip


@given(shape=layers, tokens=st.integers(1, 5))
def test_what_each_layer_keeps_is_enough_for_the_next_token(shape: Layers, tokens: int) -> None:
    """Single steps compute what one pass does, in as many FLOPs, with keys and values of every layer, also of a shared one."""
    embeddings = np.random.default_rng(tokens).normal(size=(tokens, WIDTH))
    whole = embeddings
    for place in range(shape.applications):
        whole, _ = shape.apply(place, whole, embeddings)
    in_one_pass, shape.flops = shape.flops, 0
    kept: list[Any] = [None] * shape.applications
    for t in range(tokens):
        hidden = embeddings[[t]]
        for place in range(shape.applications):
            hidden, kept[place] = shape.apply(place, hidden, embeddings[[t]], kept[place])
        np.testing.assert_allclose(hidden[0], whole[t], rtol=1e-7, atol=1e-7)

    part = shape.ours().flops.parts["shared"].parts["shared_transformer"]
    assert part(new_tokens=tokens, context=tokens) == in_one_pass == shape.flops
    assert sum(part(new_tokens=1, context=length) for length in range(1, tokens + 1)) == shape.flops
    assert shape.ours().cache_bytes(context=tokens) == 2 * sum(array.size for pair in kept for array in pair)


@given(shape=layers)
def test_a_shared_block_is_stored_once_and_read_by_each_layer(shape: Layers) -> None:
    """Adapters and the matrix back into the stream are each layer's own; memory holds a block once, a pass reads it each time."""
    stored, used = shape.stored_elements(), sum(array.size for weights in shape.weights for array in weights.values())
    rows = [row for row in shape.ours().ledger_rows() if row["group"] == "shared"]
    assert sum(row["params"] for row in rows) == stored
    assert sum(row["weight_bytes"] for row in rows) == 2 * stored
    assert sum(row["weight_bytes_moved"] for row in rows) == 2 * used
    ends = 40 * WIDTH + WIDTH  # the head and its norm; the token table is looked up
    assert shape.ours().params.active == stored + ends


@pytest.mark.parametrize("stored", [1, 2, 3])
def test_one_more_layer_adds_its_own_weights_alone(stored: int) -> None:
    totals = [Layers(applications, stored).ours().params.total for applications in (3, 4, 5)]
    own = RANK * (WIDTH + 2 * FEED) + WIDTH**2
    assert totals == list(accumulate([totals[0], own, own]))
