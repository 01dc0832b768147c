"""What a Formula can be asked: options, parts, letters, slopes, tables, copies."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from sympy import Symbol

import costmodel as cm

DEEPSEEK, GEMMA, QWEN = (cm.load(name) for name in ("deepseek-v3", "gemma-3-27b", "qwen3-next-80b-a3b"))


def test_cache_figures_of_the_flagships() -> None:
    assert str(DEEPSEEK.cache_bytes.expr) == "70272*B*S"
    assert cm.load("kimi-k2").cache_bytes(context=1) == 70_272
    assert GEMMA.cache_bytes(context=4_096) / 4_096 == 188_416
    assert GEMMA.cache_bytes(context=131_072) / 131_072 == 85_248
    constant = 36 * ((2 * 16 * 128 + 32 * 128) * 3 * 2 + 32 * 128 * 128 * 4)
    assert QWEN.cache_bytes(context=131_072) == 24_576 * 131_072 + constant
    packed = cm.Precision(cache="fp8_ds_mla")
    assert DEEPSEEK.cache_bytes(context=1, precision=packed) == 61 * 656


def test_letters_and_long_names_are_one() -> None:
    assert DEEPSEEK.flops(T=3, S=10, B=2) == DEEPSEEK.flops(new_tokens=3, context=10, batch=2)
    assert DEEPSEEK.flops(context=10) == DEEPSEEK.decode_flops(context=10)


def test_ints_give_ints_and_arrays_broadcast() -> None:
    assert type(DEEPSEEK.prefill_flops(context=np.int64(5))) is int
    assert type(DEEPSEEK.bytes_moved(context=5)) is float  # an expectation over experts
    assert type(GEMMA.bytes_moved(context=5)) is int
    values = DEEPSEEK.flops(new_tokens=np.array([[1], [2], [8]]), context=[8, 64], batch=3)
    assert values.dtype == np.float64
    assert values.tolist() == [[DEEPSEEK.flops(new_tokens=t, context=s, batch=3) for s in (8, 64)] for t in (1, 2, 8)]
    assert DEEPSEEK.flops(context=np.array([], dtype=int)).shape == (0,)
    assert QWEN.cache_bytes(context=0.75 * 2**17) == QWEN.cache_bytes(context=98_304)


def test_options_change_the_formula_and_nothing_else() -> None:
    full = DEEPSEEK.flops.having(attention="full")
    assert full.options["attention"] == "full"
    assert DEEPSEEK.flops.options["attention"] == "causal"
    assert full(new_tokens=4, context=9) == DEEPSEEK.flops(new_tokens=4, context=9, attention="full")
    assert full.having(attention="causal")(new_tokens=4, context=9) == DEEPSEEK.flops(new_tokens=4, context=9)
    assert full.parts["moe"].options["attention"] == "full"


def test_parts_are_named_down_to_the_op() -> None:
    parts = DEEPSEEK.decode_flops.parts
    assert list(parts) == ["dense", "moe", "head"]
    assert list(parts["moe"].parts) == ["mla", "moe"]
    attention = parts["moe"].parts["mla"].parts["attention"]
    assert attention(context=100) == 58 * 2 * 128 * 100 * (2 * 512 + 64)
    assert attention.parts == {}


@pytest.mark.parametrize("options", [{}, {"view": "engine"}, {"precision": "fp8"}])
@pytest.mark.parametrize("model", [DEEPSEEK, GEMMA, QWEN], ids=lambda model: model.name)
def test_slope_is_the_difference_between_steps(model: Any, options: dict[str, Any]) -> None:
    cache = model.cache_bytes.having(**options)
    slope = cache.derivative("context")
    page = 16 if options.get("view") == "engine" else 1
    steps = 0 if page > 1 else cache(context=9_001) - cache(context=9_000)
    assert slope(context=9_000) == steps
    assert cache.derivative("batch")(context=77) == cache(context=77)
    assert slope.unit == "bytes per token"


def test_slope_of_flops() -> None:
    for context in (100, 5_000):
        exact = GEMMA.decode_flops(context=context + 1) - GEMMA.decode_flops(context=context)
        assert GEMMA.decode_flops.derivative("S")(context=context) == exact
    assert sum(part(context=50) for part in GEMMA.decode_flops.derivative("S").parts.values()) == GEMMA.decode_flops.derivative(
        "S"
    )(context=50)


def test_symbols_latex_table_and_repr() -> None:
    family = cm.family("mla").cache_bytes
    assert [symbol.name for symbol in family.symbols] == ["B", "S", "d_c", "d_h^R", "b_kv"]
    assert all(isinstance(symbol, Symbol) for symbol in family.symbols)
    assert family.latex == r"B\,S\,b_{kv}\,\left(d_{c} + d_{h}^{R}\right)"
    assert family._repr_latex_().startswith("$")
    assert repr(DEEPSEEK.cache_bytes) == "cache_bytes = 70272*B*S [bytes]"
    table = GEMMA.cache_bytes.table(context=4_096)
    assert list(table.columns) == ["part", "formula", "unit", "value"]
    assert table["value"].sum() == GEMMA.cache_bytes(context=4_096)


def test_crossings_agree_with_a_scan() -> None:
    llama = cm.load("llama-3.1-8b")
    points = cm.crossover(GEMMA.cache_bytes, llama.cache_bytes)
    contexts = np.arange(1, 20_000)
    signs = np.sign(GEMMA.cache_bytes(context=contexts) - llama.cache_bytes(context=contexts))
    changes = contexts[:-1][signs[:-1] != signs[1:]]
    assert [int(point) for point in points] == changes.tolist()
    stepped = cm.crossover(GEMMA.cache_bytes.having(view="engine", evict_windows=True), llama.cache_bytes.having(view="engine"))
    assert len(stepped) >= 1
    absorbed, expanded = DEEPSEEK.decode_flops, DEEPSEEK.decode_flops.having(algorithm="expanded")
    (point,) = cm.crossover(absorbed, expanded, batch=2)
    assert absorbed(context=int(point)) >= expanded(context=int(point))
    assert absorbed(context=int(point) + 1) < expanded(context=int(point) + 1)


def test_a_crossing_by_hand() -> None:
    """81,920 S + 52 x 8,192 x 1,024 = 131,072 S beyond the window."""
    (point,) = cm.crossover(GEMMA.cache_bytes, cm.load("llama-3.1-8b").cache_bytes)
    assert point == pytest.approx(52 * 8_192 * 1_024 / (131_072 - 81_920), rel=1e-15)


def pickled(it: Any) -> Any:
    return pickle.loads(pickle.dumps(it))  # noqa: S301 - our own bytes


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled], ids=["copy", "deepcopy", "pickle"])
def test_copies_give_the_same_numbers(copied: Any) -> None:
    assert DEEPSEEK.params.total  # used before, so that it remembers
    again = copied(DEEPSEEK)
    assert again == DEEPSEEK
    assert hash(again) == hash(DEEPSEEK)
    for formula in (
        DEEPSEEK.cache_bytes.having(precision="fp8"),
        DEEPSEEK.cache_bytes.parts["moe"],
        DEEPSEEK.cache_bytes.derivative("S"),
    ):
        assert copied(formula)(context=4_096) == formula(context=4_096)
    assert copied(DEEPSEEK.params.formula("active"))() == DEEPSEEK.params.active
    assert copied(cm.family("mqa")).cache_bytes.expr == cm.family("mqa").cache_bytes.expr
    assert copied(cm.family("mla").cache_bytes).expr == cm.family("mla").cache_bytes.expr


def test_threads_share_a_model() -> None:
    model = cm.load("gemma-3-4b").model_copy()
    contexts = list(range(1, 200))
    with ThreadPoolExecutor(4) as pool:
        values = list(pool.map(lambda context: model.prefill_flops(context=context, attention="full"), contexts))
    assert values == [cm.load("gemma-3-4b").prefill_flops(context=context, attention="full") for context in contexts]


def test_a_changed_copy_remembers_nothing() -> None:
    assert DEEPSEEK.params.total
    assert DEEPSEEK.model_copy(update={"vocab_size": 1}).params.total == DEEPSEEK.params.total - 2 * 7_168 * 129_279


@pytest.mark.parametrize("letter", ["batch", "new_tokens", "context"])
def test_a_slope_of_numbers_is_the_slope_of_arrays(letter: str) -> None:
    """Also at a single new token, where a windowed layer counts its pairs in a shorter form."""
    slope = GEMMA.flops.derivative(letter)
    for new_tokens, context in ((1, 1), (1, 1_023), (1, 1_024), (1, 1_025), (1, 9_000), (2, 1_024)):
        at = {"new_tokens": new_tokens, "context": context}
        assert slope(**at) == slope(**(at | {"context": [context]}))[0]
