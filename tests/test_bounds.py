"""Least seconds by the datasheet, against a loop over parts of a model, and mistakes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import costmodel as cm

H100 = cm.accelerator("h100-sxm")


@pytest.mark.parametrize(("batch", "context", "new_tokens"), [(1, 4096, 1), (64, 8192, 1), (2, 512, 512), (3, 900, 5)])
def test_a_pass_by_hand(batch: int, context: int, new_tokens: int) -> None:
    """Every matrix of Llama 3.1 8B once but the token table, of which rows are looked up; keys and values of all tokens."""
    layers, h, kv, ff, vocab, heads = 32, 4096, 1024, 14_336, 128_256, 32
    matrices = layers * (h * h + 2 * h * kv + h * h + 3 * h * ff)
    norms = (2 * layers + 1) * h
    pairs = sum(context - new_tokens + 1 + place for place in range(new_tokens))
    flops = 2 * batch * (new_tokens * matrices + h * vocab + 2 * layers * heads * 128 * pairs)
    moved = 2 * (matrices + h * vocab + norms) + 2 * batch * layers * 2 * kv * context
    found = cm.pass_bound("llama-3.1-8b", H100, devices=4, batch=batch, context=context, new_tokens=new_tokens, mfu=0.5)
    assert found.flops == flops
    assert found.moved_bytes == moved
    assert found.compute_s == pytest.approx(flops / (4 * 989.4e12 * 0.5))
    assert found.memory_s == pytest.approx(moved / (4 * 3.35e12))
    assert found.seconds == max(found.compute_s, found.memory_s)
    assert found.bound_by == ("compute" if found.compute_s > found.memory_s else "memory")


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["llama-3.1-8b", "deepseek-v3", "mamba2-2.7b"]),
    st.integers(1, 256),
    st.integers(1, 1 << 17),
    st.integers(1, 64),
)
def test_no_estimate_is_faster(model: str, batch: int, context: int, devices: int) -> None:
    few = cm.pass_bound(model, H100, devices, batch, context)
    assert cm.pass_bound(model, H100, devices + 1, batch, context).seconds < few.seconds
    assert cm.pass_bound(model, H100, devices, batch + 1, context).seconds > few.seconds
    assert cm.pass_bound(model, H100, devices, batch, context, precision="fp8", cache_precision="fp8").memory_s < few.memory_s


def test_the_critical_batch_is_where_compute_takes_over() -> None:
    """A matrix much larger than the batch: the product's times at the datasheet's rates meet there."""
    critical = H100.critical_batch("bf16")
    for tokens, bound_by in ((int(critical) - 1, "memory"), (int(critical) + 1, "compute")):
        found = cm.bound(H100, flops=2 * tokens * 10**12, moved_bytes=2 * 10**12)
        assert found.bound_by == bound_by
    assert H100.critical_batch("fp8") == pytest.approx(H100.critical_batch("bf16"), rel=1e-3)
    assert H100.critical_batch("bf16", 0.5) == critical / 4
    assert H100.balance("bf16", over="network") > H100.balance("bf16", over="link") > H100.balance("bf16")


def test_nothing_takes_no_time() -> None:
    assert cm.bound("h200").seconds == 0
    assert cm.freed_tokens(1, 1, 10**6) == pytest.approx(1)
    assert cm.prefill_per_decode(1, 0.01, 10, 1000) == 1


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: cm.bound("h2000"), "h200"), (lambda: cm.bound("h200", flops=-1), "flops"),
        (lambda: cm.bound("h200", flops=NAN), "flops"), (lambda: cm.bound("h200", moved_bytes=INF), "moved_bytes"),
        (lambda: cm.bound("h200", moved_bytes=[1]), "moved_bytes"), (lambda: cm.bound("h200", moved_bytes=True), "moved_bytes"),
        (lambda: cm.bound("h200", devices=0), "devices"), (lambda: cm.bound("h200", 1, dtype="fp7"), "fp7"),
        (lambda: cm.bound("h200", mfu=2), "mfu"), (lambda: cm.pass_bound("gpt3", "h200"), "gpt"),
        (lambda: cm.pass_bound("gpt2", "h200", batch=0), "batch"), (lambda: cm.pass_bound("gpt2", "h200", context=NAN), "context"),
        (lambda: cm.pass_bound("gpt2", "h200", new_tokens=9, context=8), "9 exceeds context 8"),
        (lambda: cm.pass_bound("gpt2", "h200", precision="fp7"), "fp7"),
        (lambda: cm.pass_bound("gpt2", "h200", cache_precision="int4"), "int4"),
        (lambda: cm.prefill_per_decode(0, 1, 1, 1), "prefill_s"), (lambda: cm.prefill_per_decode(1, NAN, 1, 1), "step_s"),
        (lambda: cm.freed_tokens(0, 1, 1), "batch"), (lambda: cm.freed_tokens(1, 1, 0), "output"),
        (lambda: H100.balance("fp7"), "fp7"), (lambda: H100.balance(over="air"), "memory, link, network"),
        (lambda: H100.balance(over=[]), "memory, link, network"), (lambda: H100.critical_batch("bf16", 0), "weight_bytes"),
        (lambda: H100.critical_batch(None), "peak"), (lambda: H100.rent(-1), "device_hours"), (lambda: H100.rent(1, INF), "usd"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(ask: Any, told: str) -> None:
    with pytest.raises(cm.CostModelError, match=told) as error:
        ask()
    assert "\n" not in str(error.value)
