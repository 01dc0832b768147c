"""Seconds: every row has a class, rows sum to the pass, more work takes longer, what is guessed says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import costmodel as cm
from costmodel.calibration.store import as_json, read_calibration
from costmodel.catalog import calibration_file
from costmodel.cli import main
from costmodel.footprint import tensor_parallel
from costmodel.timing.launches import Numbers, RowKernel
from costmodel.timing.points import Points
from costmodel.workload import Options, Phase
from tests.test_bad_input import HUGE, INF, NAN, command_refuses, refused

SHARED = Path(__file__).parents[2] / "shared" / "measured"
PLAIN = cm.Accelerator(
    name="plain", title="Plain", maker="Me", memory_bytes=80 * 10**9, source="invented", peak_flops_per_s={"bf16": 10**15},
    memory_bytes_per_s=3 * 10**12, link_bytes_per_s=450 * 10**9, link_devices=8,
)  # fmt: skip


@pytest.mark.parametrize("name", cm.presets())
def test_every_row_of_every_preset_has_a_class(name: str) -> None:
    for device, devices in (("h100-sxm", 8), ("l4", 1)):
        layout = tensor_parallel(cm.load(name), devices)
        for tokens, context in ((1000, 1000), (1, 1100)):
            timed = cm.time_pass(name, device, 4, tokens, context, "fp8", layout)
            assert timed.device_s == pytest.approx(sum(op["seconds"] for op in timed.ops))
            assert all(op["seconds"] > 0 for op in timed.ops)
            assert 0 < timed.low_s < timed.seconds < timed.high_s
            assert not (timed.calibrated and device == "l4")


def test_a_row_without_a_class_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cm.load("gpt2")
    rows = model._rows(Options(), Phase.DECODE)
    strange = replace(rows[3], op=replace(rows[3].op, kernel="sorting"))
    monkeypatch.setattr(type(model), "_rows", lambda *_: (*rows[:3], strange))
    refused(lambda: cm.estimate(model, PLAIN), "no kernel class", strange.op.name)


MODELS = ("llama-3.1-8b", "deepseek-v3", "qwen3-next-80b-a3b", "gemma-3-27b")


@given(st.sampled_from(MODELS), st.integers(1, 64), st.integers(16, 20_000))
def test_no_pass_is_faster_than_its_bytes(name: str, batch: int, prompt: int) -> None:
    """At 1.2 times the datasheet's bandwidth, the most that a fit may find; a guess claims less than the datasheet."""
    model = cm.load(name)
    found = cm.estimate(model, PLAIN, batch=batch, prompt=prompt, output=2)
    assert found.tpot_s is not None
    softmax_free = model.bytes_moved(new_tokens=1, context=prompt + 1, batch=batch)
    assert found.tpot_s >= 0.95 * softmax_free / PLAIN.given("memory_bytes_per_s")


@given(st.sampled_from(MODELS), st.integers(1, 32), st.integers(16, 8_000))
def test_more_takes_longer(name: str, batch: int, prompt: int) -> None:
    def times(**changes: Any) -> tuple[float, float]:
        found = cm.estimate(name, **({"accelerator": PLAIN, "batch": batch, "prompt": prompt, "output": 64} | changes))
        assert found.tpot_s is not None
        return found.ttft_s, found.tpot_s

    base = times()
    doubled = PLAIN.model_copy(update={"memory_bytes_per_s": 6 * 10**12, "peak_flops_per_s": {"bf16": 2 * 10**15}})
    for slower, faster in (
        (times(batch=2 * batch), base), (times(prompt=2 * prompt), base), (base, times(accelerator=doubled)),
        (times(launch_s=1e-4), base),
    ):  # fmt: skip
        assert all(slow >= fast * (1 - 1e-9) for slow, fast in zip(slower, faster, strict=True))


def test_ranks_share_the_work() -> None:
    one = cm.estimate("llama-3.1-8b", "h100-sxm", 1, batch=8, prompt=2048, output=2)
    four = cm.estimate("llama-3.1-8b", "h100-sxm", 4, batch=8, prompt=2048, output=2)
    replicas = cm.estimate("llama-3.1-8b", "h100-sxm", 4, cm.Parallel(tp=1), batch=8, prompt=2048, output=2)
    assert one.ttft_s / 4 < four.ttft_s < one.ttft_s
    assert [op["calls"] for op in four.prefill.ops if op["op"] == "all_reduce"] == [1, 32, 32]
    assert not [op for op in one.prefill.ops if op["op"] == "all_reduce"]
    assert replicas.ttft_s == one.ttft_s
    assert replicas.output_tokens_per_s_per_device == one.output_tokens_per_s_per_device


def test_shapes_are_those_of_the_ledger() -> None:
    """On one device without fusing, products have the ledger's FLOPs."""
    found = cm.estimate("llama-3.1-8b", PLAIN, batch=3, prompt=700, output=1)
    assert found.tpot_s is None
    assert found.decode is None
    assert {(op["block"], op["op"]) for op in found.prefill.ops} == {
        (row["block"], row["op"]) for row in cm.load("llama-3.1-8b").ledger_rows(700, 700, 3) if row["bytes_moved"]
    }
    model = cm.load("llama-3.1-8b")
    rows = model._rows(Options(), Phase.PREFILL)
    numbers = Numbers(Points.of(cm.Parallel(), 3, 700, 700), cm.Precision(), PLAIN)
    flops = 0.0
    for place, row in enumerate(rows):
        launch = numbers.launch(RowKernel.of(row, place, place))
        if launch is not None and launch.kernel == "gemm":
            flops += launch.times * 2 * float((launch.sizes["m"] * launch.sizes["n"] * launch.sizes["k"])[0])
    assert flops == sum(row["flops"] for row in model.ledger_rows(700, 700, 3) if row["kind"] == "linear")


def test_what_is_guessed_says_so() -> None:
    assert cm.estimate("llama-3.1-8b", "h100-sxm").state == "calibrated"
    guess = cm.estimate("llama-3.1-8b", "rtx-4090", prompt=128, output=8)
    assert guess.state == "datasheet"
    assert any("guess" in note for note in guess.notes)
    far = cm.estimate("llama-3.1-8b", "h100-sxm", batch=1, prompt=900_000, output=2)
    assert any("outside the measured range" in note for note in far.notes)


def test_a_calibration_of_ones_own(tmp_path: Path) -> None:
    stored = read_calibration(calibration_file("h100-sxm"))
    (tmp_path / "mine.json").write_text(as_json(stored))
    asked = {"batch": 2, "prompt": 512, "output": 32}
    mine = cm.estimate("llama-3.1-8b", "h100-sxm", calibration=tmp_path / "mine.json", **asked)
    assert mine.tpot_s == cm.estimate("llama-3.1-8b", "h100-sxm", **asked).tpot_s
    refused(lambda: cm.estimate("llama-3.1-8b", "l4", calibration=tmp_path / "mine.json"), "measured on h100-sxm, not on l4")
    refused(lambda: cm.estimate("llama-3.1-8b", "l4", calibration="h100-sxn"), "did you mean h100-sxm?")


def test_bad_requests(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("devices", "batch", "prompt", "output"):
        for value in (0, -1, 1.5, NAN, INF, True, *((None,) if name != "devices" else ()), "8", HUGE):
            refused(lambda name=name, value=value: cm.estimate("gpt2", PLAIN, **{name: value}), f"{name} got")  # type: ignore[misc]
    for value in (-1.0, NAN, INF, "1", None, True):
        refused(lambda value=value: cm.estimate("gpt2", PLAIN, launch_s=value), "launch_s got")  # type: ignore[misc]
    refused(lambda: cm.estimate("gpt2", PLAIN, 8, cm.Parallel(tp=3)), "no multiple")
    refused(lambda: cm.estimate("llada-8b", "h100-sxm"), "denoises whole blocks")
    refused(lambda: cm.estimate("gpt2", "h100"), "did you mean h100-pcie or h100-sxm?")
    refused(lambda: cm.estimate("gpt2", PLAIN, 8, cm.Parallel(tp=8)), "tp 8 does not divide the 12 heads")
    refused(lambda: cm.Parallel(tp=8, ep=3), "ep 3 does not divide tp 8")
    refused(lambda: cm.estimate("gpt2", "rtx-4090", 2), "link_bytes_per_s")
    refused(lambda: cm.estimate("gpt2", "h100", 2), "no accelerator")
    command_refuses(capsys, "estimate", "gpt2", "--on", "h100-sxm", "--devices", "8", "--tp", "3")
    command_refuses(capsys, "estimate", "gpt2", "--on", "h100-sxm", "--prompt", "0")


def test_the_command_tells_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(
            [
                "estimate",
                "deepseek-v3",
                "--on",
                "h100-sxm",
                "-d",
                "8",
                "--ep",
                "8",
                "-b",
                "4",
                "--prompt",
                "2k",
                "--output",
                "64",
                "--precision",
                "fp8",
                "-f",
                "json",
            ]
        )
    assert end.value.code == 0
    said = json.loads(capsys.readouterr().out)
    found = cm.estimate("deepseek-v3", "h100-sxm", 8, cm.Parallel(tp=8, ep=8), 4, 2048, 64, "fp8")
    assert (said["estimate"][0]["ttft_s"], said["estimate"][0]["tpot_s"]) == (found.ttft_s, found.tpot_s)
    assert said["ops"] == found.ops_rows
    assert len(found.ops) == len(found.ops_rows)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published times are not here")
def test_a_whole_model_comes_out() -> None:
    """Within the bars that are asked for: docs/accuracy.md has the figures."""
    from tests.end_to_end import scored

    for found in scored(SHARED):
        first = (0.18, 0.30) if found.device == "a100-80gb" else (0.15, 0.25)
        median, p90 = (0.065, 0.14) if found.figure == "tpot_s" else first
        assert found.scores.median < median, found
        assert found.scores.p90 < p90, found


def test_a_tower_without_images_takes_no_time() -> None:
    found = cm.estimate("gemma-3-27b", "h100-sxm", batch=4, prompt=512, output=64)
    assert found.decode is not None
    assert not [op for timed in (found.prefill, found.decode) for op in timed.ops if op["group"] == "vision"]
    ours = sum(op["flops"] for op in found.prefill.ops)
    assert ours == pytest.approx(cm.load("gemma-3-27b").prefill_flops(context=512, batch=4), rel=0.05)
