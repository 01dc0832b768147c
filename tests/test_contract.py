"""Small promises of the public face that an outside examiner found broken once."""

from __future__ import annotations

import numpy as np
import pytest

import costmodel as cm
from costmodel.cli import main

DEEPSEEK = cm.load("deepseek-v3")


def test_sums_over_a_dataframe_stay_exact() -> None:
    llama = cm.load("llama-3.1-405b")
    at = {"new_tokens": 1 << 20, "context": 1 << 20, "batch": 4}
    assert llama.ledger(**at)["flops"].sum() == llama.flops(**at)
    assert llama.ledger(new_tokens=1, context=8)["flops"].dtype == np.int64


def test_a_family_takes_its_own_field_names() -> None:
    flops = cm.family("mla").flops
    own = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "kv_lora_rank": 512, "q_lora_rank": 1536}
    value = flops(T=1, S=8, hidden_size=7168, num_attention_heads=128, **own)
    assert value == DEEPSEEK.flops.parts["dense"].parts["mla"](new_tokens=1, context=8) / 3
    assert "total=" in repr(cm.family("mla").params)
    assert not hasattr(cm.family("mla").params, "foo")
    with pytest.raises(cm.CostModelError, match="ledger"):
        cm.family("mla").ledger()


def test_crossings_stay_where_a_pass_can_be() -> None:
    absorbed, expanded = (DEEPSEEK.flops.having(algorithm=name) for name in ("absorbed", "expanded"))
    (point,) = cm.crossover(absorbed, expanded, over="new_tokens", context=4096)
    assert 167 < point < 168
    assert cm.crossover(absorbed, expanded, over="context", new_tokens=1000) == []
    assert cm.crossover(DEEPSEEK.flops, expanded, over="new_tokens", context=4096) == [2]


def test_every_step_of_a_stepping_crossing() -> None:
    gemma = cm.load("gemma-3-27b").cache_bytes
    contexts = np.arange(1, 2049)
    signs = np.sign(gemma(context=contexts) - gemma(context=contexts, view="engine"))
    expected = contexts[1:][signs[:-1] != signs[1:]].tolist()
    assert cm.crossover(gemma, gemma.having(view="engine"), upto=2048) == expected


def test_a_precision_sets_every_role_it_names() -> None:
    fp8 = cm.Precision(weights="fp8", cache="fp8")
    (row,) = cm.compare(["gpt2"], precision=fp8).to_dict("records")
    assert row["cache_bytes"] == cm.load("gpt2").cache_bytes(context=131_072, precision="fp8")
    assert DEEPSEEK.cache_bytes(context=10, precision=cm.Precision(cache=0.3)) == 70_272 * 10 * 3 // 20
    assert DEEPSEEK.cache_bytes(context=10, precision=cm.Precision(cache=np.float32(1))) == 35_136 * 10
    with pytest.raises(cm.CostModelError, match="weights"):
        cm.Precision(weights="mxfp4")


def test_mistakes_are_told_in_one_line() -> None:
    with pytest.raises(cm.CostModelError, match="by name"):
        DEEPSEEK.cache_bytes(131_072)
    with pytest.raises(cm.CostModelError, match="broadcast"):
        DEEPSEEK.cache_bytes(context=np.array([1, 2]), batch=np.array([1, 2, 3]))
    with pytest.raises(cm.CostModelError, match="hidden_size"):
        DEEPSEEK.model_copy(update={"hidden_sze": 1})
    with pytest.raises(cm.CostModelError, match="4 exceeds context 3"):
        DEEPSEEK.flops(new_tokens=np.array([10, 4]), context=np.array([20, 3]))
    with pytest.raises(cm.CostModelError, match="nonsense"):
        cm.family("gqa").flops(T=1, S=1, algorithm="nonsense")
    with pytest.raises(AttributeError, match="derived"):
        DEEPSEEK.params.total = 5
    assert DEEPSEEK.cache_bytes(context=10, view="engine", tp=np.int64(2)) == 2 * 16 * 70_272


@pytest.mark.parametrize("form", ["table", "json", "csv", "md"])
@pytest.mark.parametrize("command", ["schema", "report gpt2 -c 2k", "diff gpt2 gemma-3-1b -c 1M", "derive gqa --preset gpt2 -c 2k"])
def test_every_command_has_every_format_and_flags(command: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--format", form])
    assert end.value.code == 0
    told = capsys.readouterr()
    assert told.out
    assert ("beyond the published limit" in told.err) == (command != "schema")


def test_a_reference_row_asks_what_its_quantity_takes() -> None:
    from costmodel.catalog import validate

    data = cm.load("gpt2").model_dump()
    row = {"quantity": "cache_bytes", "value": 1, "convention": "c", "source": "s"}
    for inputs, part in (({"contxt": 4}, "context"), ({"context": 4, "view": "engin"}, "theory"), ({}, "context")):
        with pytest.raises(cm.CostModelError, match=f"cache_bytes.*{part}"):
            validate({**data, "reference": [{**row, "inputs": inputs}]}, "my.toml")
