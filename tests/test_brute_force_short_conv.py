"""The gated short convolution, written out with its multiply-adds counted, token by token."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from costmodel.blocks import ShortConv
from costmodel.layers import LayerGroup
from tests.families import model

WIDTH = 3


def stepwise(inputs: np.ndarray, into: np.ndarray, taps: np.ndarray, out: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Outputs of one token after another, what is kept after the last, and FLOPs: two for each multiply-add."""
    columns, width = taps.shape
    kept, outputs, flops = np.zeros((columns - 1, width)), [], 0
    for token in inputs:
        before, after, value = np.split(token @ into, 3)
        seen = np.vstack([kept, before * value])
        convolved = np.zeros(width)
        for tap in range(columns):
            convolved += taps[tap] * seen[tap]
            flops += 2 * width
        kept = seen[1:]
        outputs.append((after * convolved) @ out)
        flops += 2 * into.size + 2 * out.size
    return np.array(outputs), kept, flops


@given(tokens=st.integers(1, 9), columns=st.integers(1, 5))
def test_one_step_after_another_is_one_pass(tokens: int, columns: int) -> None:
    """What is kept is enough for the next token, and no FLOP is missing."""
    rng = np.random.default_rng(tokens)
    inputs, into, out = (rng.normal(size=shape) for shape in ((tokens, WIDTH), (WIDTH, 3 * WIDTH), (WIDTH, WIDTH)))
    taps = rng.normal(size=(columns, WIDTH))
    steps, kept, flops = stepwise(inputs, into, taps, out)
    before, after, value = np.split(inputs @ into, 3, axis=1)
    padded = np.vstack([np.zeros((columns - 1, WIDTH)), before * value])
    whole = sum(taps[tap] * padded[tap : tap + tokens] for tap in range(columns))
    np.testing.assert_allclose(steps, (after * whole) @ out)

    block = ShortConv(conv_L_cache=columns)
    architecture = model(LayerGroup(name="only", count=1, mixer=block), hidden_size=WIDTH)
    part = architecture.flops.parts["only"].parts["short_conv"]
    assert part(new_tokens=tokens, context=tokens) == flops
    assert architecture.cache_bytes(context=tokens) == 2 * kept.size
    assert architecture.params.formula("total").parts["only"].parts["short_conv"]() == into.size + taps.size + out.size


def test_biases_stand_in_all_three() -> None:
    biased, plain = (
        model(LayerGroup(name="only", count=1, mixer=ShortConv(conv_L_cache=3, conv_bias=bias))).params.total
        for bias in (True, False)
    )
    assert biased - plain == 5 * 16
