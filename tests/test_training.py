"""Runs of training: published hours and FLOPs, the memory of a device against loops over its tensors, and mistakes."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import costmodel as cm
from costmodel.cli import main
from costmodel.training.held import NAMES, OPTIMIZERS, RECOMPUTE, TrainingState
from costmodel.training.runs import TrainingMemory
from costmodel.workload import Precision

from .test_published import GPT3_175B, MT_NLG_530B, attention, gpt, llama

GPT3 = gpt(96, 12_288, 96, positions=2048)
PAPER = (MT_NLG_530B, GPT3_175B, (48, 6144, 64, 51_200))


def run(**asked: Any) -> cm.Training:
    return cm.train(**({"model": "llama-3.1-8b", "accelerator": "h100-sxm", "devices": 8, "tokens": 10**12} | asked))


# what was published


def test_hours_of_deepseek_v3() -> None:
    """arXiv 2412.19437, table 1: 2,664 K, 119 K and 5 K H800 hours; 38.94 % of 989.4 TFLOP/s: arXiv 2505.09343, table 4."""
    told = {"context extension": 119_000, "post-training": 5_000}
    found = cm.train("deepseek-v3", "h800", devices=2048, tokens=14.8e12, mfu=0.3894, pp=16, ep=64, batch=15_360, further=told)
    assert found.peak_flops_per_s == 989.4e12
    assert found.device_hours == pytest.approx(2_664_000, rel=0.01)
    assert found.total_device_hours == pytest.approx(2_788_000, rel=0.01)
    assert found.total_device_hours - found.device_hours == pytest.approx(124_000)
    assert found.usd == pytest.approx(5.576e6, rel=0.01)
    assert found.step_s == pytest.approx(19.926, rel=0.01)
    assert found.utilisation(found.device_hours) == pytest.approx(0.3894)


def test_flops_of_gpt3() -> None:
    """arXiv 2005.14165, table D.1: 3.14e23 FLOP for 300 B tokens and 174.6 B parameters, 6 a parameter and token."""
    assert GPT3.params.total == pytest.approx(174.6e9, rel=0.001)
    found = cm.train(GPT3, "a100-80gb", devices=1024, tokens=300e9, sequence=2048, method="6nd")
    assert found.flops == pytest.approx(3.14e23, rel=0.002)
    exact = cm.train(GPT3, "a100-80gb", devices=1024, tokens=300e9, sequence=2048)
    assert 1 < exact.flops / found.flops < 1.03  # attention's own, which 6ND leaves out


# activations, tensor by tensor


def tensors_of_a_gpt_layer(s: int, b: int, h: int, a: int, t: int, sp: bool, recompute: str) -> Iterator[float]:
    """Bytes on one rank of each tensor that a layer keeps in 16 bits, masks in 8: arXiv 2205.05198, section 4.1 and figure 2."""
    if recompute == "full":
        yield 2 * s * b * h / (t if sp else 1)  # the layer's input
        return
    whole = t if sp else 1
    yield 2 * s * b * h / whole  # input of the first norm
    yield 2 * s * b * h / whole  # its output, which q, k and v read
    for _ in "qkv":
        yield 2 * s * b * h / t
    if recompute == "none":
        yield 2 * a * s * s * b / t  # softmax
        yield a * s * s * b / t  # mask of its dropout
        yield 2 * a * s * s * b / t  # its dropout
    yield 2 * s * b * h / t  # what the projection reads
    yield s * b * h / whole  # mask of the dropout after it
    yield 2 * s * b * h / whole  # input of the second norm
    yield 2 * s * b * h / whole  # what the first matrix reads
    yield 8 * s * b * h / t  # what GeLU reads
    yield 8 * s * b * h / t  # what the second matrix reads
    yield s * b * h / whole  # mask of the last dropout


@pytest.mark.parametrize("recompute", RECOMPUTE)
@pytest.mark.parametrize(("tp", "sequence_parallel"), [(1, False), (8, False), (8, True), (4, True)])
@pytest.mark.parametrize("shape", PAPER)
def test_activations_of_a_gpt_layer(shape: tuple[int, int, int, int], tp: int, sequence_parallel: bool, recompute: str) -> None:
    layers, hidden, heads, vocab = shape
    model = gpt(layers, hidden, heads, vocab, positions=2048)
    state = TrainingState(model, Precision(), sequence_parallel=sequence_parallel, recompute=recompute, dropout=True)
    kept = state.formula("activations").parts["layers"](batch=3, context=2048, tp_ranks=tp)
    assert kept == layers * sum(tensors_of_a_gpt_layer(2048, 3, hidden, heads, tp, sequence_parallel, recompute))


@pytest.mark.parametrize("shape", PAPER)
def test_the_papers_sums(shape: tuple[int, int, int, int]) -> None:
    """Table 2 of arXiv 2205.05198, and equation 5's last term: what stands before and after the layers."""
    layers, h, a, v = shape
    s, b, t = 2048, 1, 8
    model = gpt(layers, h, a, v, positions=s)
    at = {"context": s, "batch": b, "tp_ranks": t}

    def kept(sequence_parallel: bool, recompute: str, part: str = "layers") -> float:
        state = TrainingState(model, Precision(), sequence_parallel=sequence_parallel, recompute=recompute, dropout=True)
        return float(state.formula("activations").parts[part](**at))

    layer = s * b * h * layers
    assert kept(False, "none") == pytest.approx(layer * (10 + 24 / t + 5 * a * s / (h * t)))
    assert kept(True, "none") == pytest.approx(layer / t * (34 + 5 * a * s / h))
    assert kept(False, "selective") == layer * (10 + 24 / t)
    assert kept(True, "selective") == layer * 34 / t
    assert kept(False, "full") == layer * 2
    outside = kept(True, "selective", "embedding") + kept(True, "selective", "head")
    assert outside == pytest.approx(s * b * h / t + 4 * s * b * h / t * (1 + v / h))


def test_activations_of_a_llama_layer_on_more_ranks_than_key_heads() -> None:
    layers, h, heads, kv, ff, s, tp = 3, 4096, 32, 8, 14_336, 1024, 16
    model = llama(layers, h, heads, kv, ff, 1000)
    state = TrainingState(model, Precision(), recompute="selective")
    attended = heads / tp * 128 + 2 * 1 * 128  # each rank has a key and a value head: copies
    whole = 4 * h  # two norms, and what q, k, v and gate, up read
    rows = whole + attended + h / tp + 2 * ff / tp + ff / tp
    assert state.formula("activations").parts["layers"](context=s, tp_ranks=tp) == layers * s * 2 * rows


def test_activations_of_a_layer_of_experts() -> None:
    h, width, k, s = 512, 128, 2, 64
    experts = cm.MoE(num_experts=8, num_experts_per_tok=k, moe_intermediate_size=width)
    mixer = cm.GQA(num_attention_heads=4, num_key_value_heads=4, head_dim=128)
    data = attention(1, 4, 4, 128).model_dump() | {
        "layers": [{"name": "layers", "count": 1, "mixer": mixer, "feed_forward": experts}]
    }
    state = TrainingState(cm.Architecture.model_validate(data), Precision(), recompute="selective")
    tokens = {
        "norms": 2 * h, "q, k, v read": h, "q, k, v": 3 * h, "o_proj reads": h, "router reads": h, "the chosen's scores": 2 * k,
        "gate and up read": k * h, "activation reads": 2 * k * width, "down reads": k * width, "combine reads": k * h,
    }  # fmt: skip
    assert state.formula("activations").parts["layers"](context=s) == 2 * s * sum(tokens.values())


# weights, gradients, optimiser


@pytest.mark.parametrize(("zero", "each"), [(0, 16), (1, 4 + 12 / 64), (2, 2 + 14 / 64), (3, 16 / 64)])
def test_bytes_a_parameter(zero: int, each: float) -> None:
    """Rajbhandari et al. 2020, arXiv 1910.02054, section 3: 2 + 2 + 12 bytes a parameter, cut over 64 ranks by its stages."""
    memory = run(devices=64, zero=zero).memory
    stored = memory.weight_bytes + memory.gradient_bytes + memory.optimizer_bytes
    assert stored == pytest.approx(each * cm.load("llama-3.1-8b").params.total, rel=1e-6)


def test_stages_and_ranks_hold_the_model_once() -> None:
    """Over all ranks of all stages, weights sum to the model's: experts once over ep x tp, the rest once over tp."""
    model, tp, ep, pp = cm.load("qwen3-30b-a3b"), 4, 8, 3
    experts, other = 0.0, 0.0
    for stage in range(pp):
        weights = TrainingState(model, Precision(), stages=pp, stage=stage).formula("weights")
        for path, part in _leaves(weights):
            value = part(tp_ranks=tp, ep_ranks=ep)
            if "experts." in path:
                experts += value * tp * ep
            elif path.endswith((".norm", ".final_norm", ".router", ".q_norm", ".k_norm")):  # whole on each rank
                other += value
            else:
                other += value * tp
    assert experts == 2 * model.params.routed_experts
    assert experts + other == model.weight_bytes()


def _leaves(formula: cm.Formula) -> Iterator[tuple[str, cm.Formula]]:
    for part in formula.parts.values():
        yield from _leaves(part) if part.parts else [(part.name, part)]


def test_a_tied_table_stands_in_both_end_stages() -> None:
    model = llama(4, 256, 4, 4, 512, 5000, tied=True)
    one, first, last = (
        TrainingState(model, Precision(), stages=stages, stage=stage).formula("weights")()
        for stages, stage in ((1, 0), (2, 0), (2, 1))
    )
    assert first + last - one == 2 * 5000 * 256


def test_microbatches_in_flight() -> None:
    model = llama(8, 256, 4, 4, 512, 1000)
    kept = [
        TrainingState(model, Precision(), stages=4, stage=stage, in_flight=4 - stage)
        .formula("activations")
        .parts["layers"](context=64)
        for stage in range(4)
    ]
    assert [value / kept[-1] for value in kept] == [4, 3, 2, 1]
    one = cm.train(model, "h100-sxm", 4, 10**9, pp=4, batch=1).memory
    assert one.activations[0] < cm.train(model, "h100-sxm", 4, 10**9, pp=4).memory.activations[0]


def test_optimizers() -> None:
    params = cm.load("llama-3.1-8b").params.total
    for name, each in OPTIMIZERS.items():
        assert run(optimizer=name, zero=0).memory.optimizer_bytes == each * params
    assert run(gradients="fp32", zero=0).memory.gradient_bytes == 4 * params


# what must always hold

LAYOUTS = st.fixed_dictionaries(
    {
        "tp": st.sampled_from([1, 2, 4]), "pp": st.sampled_from([1, 2, 4]), "zero": st.integers(0, 3),
        "sequence_parallel": st.booleans(), "dropout": st.booleans(), "microbatch": st.integers(1, 4),
        "sequence": st.sampled_from([1, 128, 4096]), "recompute": st.sampled_from(RECOMPUTE),
    }
)  # fmt: skip
MODELS = st.sampled_from(
    ["llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v2-lite", "qwen3-next-80b-a3b", "gemma-3-4b", "mamba2-2.7b", "gpt2"]
)


def memory_of(model: str, dp: int, layout: dict[str, Any]) -> TrainingMemory:
    if model == "gpt2":
        layout = layout | {"tp": 1}
    return cm.train(model, "h100-sxm", dp * layout["tp"] * layout["pp"], 10**12, **layout).memory


@settings(max_examples=25, deadline=None)
@given(MODELS, st.integers(1, 6), LAYOUTS)
def test_more_devices_never_hold_more_each(model: str, dp: int, layout: dict[str, Any]) -> None:
    few, many = memory_of(model, 2 * dp, layout), memory_of(model, 4 * dp, layout)
    assert many.total_bytes <= few.total_bytes
    if model != "gpt2":
        finer = memory_of(model, 2 * dp, layout | {"tp": 2 * layout["tp"]})
        assert finer.total_bytes <= few.total_bytes
    if layout["zero"] < 3:
        assert memory_of(model, 2 * dp, layout | {"zero": layout["zero"] + 1}).total_bytes <= few.total_bytes
    none, selective, full = few.activations
    assert full <= selective <= none


@settings(max_examples=25, deadline=None)
@given(MODELS, st.integers(1, 10**6), st.floats(0.01, 1), st.sampled_from(["exact", "6nd"]))
def test_hours_follow_tokens_and_utilisation(model: str, millions: int, mfu: float, method: str) -> None:
    found = cm.train(model, "h100-sxm", 8, millions * 10**6, mfu=mfu, method=method, recompute="full")
    seconds = found.device_hours * 3600
    assert found.flops == pytest.approx(seconds * found.peak_flops_per_s * mfu)
    assert found.utilisation(found.device_hours) == pytest.approx(mfu)
    assert found.days * found.devices * 86_400 == pytest.approx(seconds)
    assert 1 < found.recomputed <= 4 / 3 + 1e-9
    assert found.hfu >= found.mfu


def test_rows_are_formulas() -> None:
    memory = run(devices=64, tp=2, zero=1, sequence=2048).memory
    at = {"tp_ranks": 2, "dp_ranks": 32}
    values = [math.ceil(memory.formula(name)(**at)) for name in NAMES[:3]]
    assert values == [memory.weight_bytes, memory.gradient_bytes, memory.optimizer_bytes]
    formula = memory.formula("activations")
    assert math.ceil(formula(context=2048, tp_ranks=2)) == memory.activation_bytes
    assert "n_tp" in str(formula.expr)
    assert pickle.loads(pickle.dumps(formula))(context=2048, tp_ranks=2) == formula(context=2048, tp_ranks=2)  # noqa: S301
    with pytest.raises(cm.CostModelError, match="optimizer"):
        memory.formula("optimiser")


# mistakes


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"model": "deepsek-v3"}, "deepseek-v3"), ({"accelerator": "h8000"}, "h800"), ({"devices": 0}, "devices"),
        ({"devices": 2.5}, "devices"), ({"devices": True}, "devices"), ({"tokens": 0}, "tokens"), ({"tokens": -1}, "tokens"),
        ({"tokens": float("nan")}, "tokens"), ({"tokens": float("inf")}, "tokens"), ({"tokens": 10**19}, "tokens"),
        ({"tokens": 0.5}, "tokens"), ({"tokens": "14.8T"}, "tokens"), ({"tokens": None}, "tokens"), ({"mfu": 0}, "mfu"),
        ({"mfu": 1.1}, "mfu"), ({"mfu": float("nan")}, "mfu"), ({"mfu": "40%"}, "mfu"), ({"sequence": 0}, "sequence"),
        ({"batch": 0}, "batch"), ({"batch": 9}, "no multiple"), ({"tp": 3}, "does not divide 8 devices"), ({"tp": 0}, "tp"),
        ({"devices": 3, "tp": 3}, "32 attention heads"), ({"devices": 64, "pp": 64}, "pp 64 exceeds the 32 layers"),
        ({"ep": 2}, "ep 2"), ({"model": "qwen3-30b-a3b", "ep": 3}, "ep 3"), ({"zero": 4}, "zero"), ({"zero": -1}, "zero"),
        ({"recompute": "some"}, "recompute"), ({"recompute": None}, "recompute"), ({"method": "2lhd"}, "method"),
        ({"optimizer": "adam"}, "did you mean adamw"), ({"gradients": "int4"}, "gradients"), ({"dtype": "fp7"}, "fp7"),
        ({"precision": "fp7"}, "fp7"), ({"precision": -2}, "weights"), ({"sequence_parallel": 1}, "sequence_parallel"),
        ({"dropout": "no"}, "dropout"), ({"usd_per_hour": -1}, "usd_per_hour"), ({"usd_per_hour": float("nan")}, "usd_per_hour"),
        ({"further": {"a": -1}}, "further"), ({"further": [1]}, "further"), ({"further": {1: 1}}, "further"),
        ({"model": "trm-arc"}, "recursive"), ({"microbatch": 0}, "microbatch"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(cm.CostModelError, match=told) as error:
        run(**asked)
    assert "\n" not in str(error.value)


def test_a_device_without_price_has_no_dollars() -> None:
    device = cm.accelerator("h100-sxm").model_copy(update={"price": None})
    assert run(accelerator=device).usd is None
    assert any("no listed price" in note for note in run(accelerator=device).notes)
    assert run(accelerator=device, usd_per_hour=2).usd == pytest.approx(2 * run().device_hours)
    assert run().step_s is None
    with pytest.raises(cm.CostModelError, match="no price"):
        device.rent(1)


def test_notes_say_what_is_approximate() -> None:
    assert any("recurrent" in note for note in run(model="mamba2-2.7b").notes)
    assert any("spread evenly" in note for note in run(model="deepseek-v3").notes)
    assert any("indexer" in note for note in run(model="deepseek-v3.2").notes)
    assert any("text alone" in note for note in run(model="gemma-3-4b").notes)
    assert any("while it is repeated" in note for note in run(recompute="full").notes)
    assert any("published limit" in note for note in run(sequence=1 << 20).notes)


COMMAND = "train deepseek-v3 --on h800 --devices 2048 --tokens 14.8T --mfu 0.3894 --pp 16 --ep 64 --batch 15360"


@pytest.mark.parametrize("form", ["table", "json", "csv", "md"])
def test_the_command(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*COMMAND.split(), "--add", "post-training=5000", "--format", form])
    assert end.value.code == 0
    out = capsys.readouterr().out
    if form == "json":
        (row,) = json.loads(out)["training"]
        assert row["device_hours"] == pytest.approx(2_664_000, rel=0.01)
        assert row["hours.post-training"] == 5000
        assert json.loads(out)["device"][0]["fits"] is False
    assert "hours.post-training" in out.replace("\\", "")


@pytest.mark.parametrize(
    "more", ["--tokens 1X", "--tokens 0", "--mfu nan", "--add 5000x", "--add a=b", "--batch -1", "--usd-per-hour 0", "--zero 5"]
)
def test_mistakes_of_the_command(more: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*COMMAND.split(), *more.split()])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
