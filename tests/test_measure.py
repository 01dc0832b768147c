"""Kernels that are measured compute what they are named for; what was measured is not lost; layers are predicted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import costmodel as cm
from costmodel import validation
from costmodel.calibration import own
from costmodel.calibration.shapes import SPACES, Point, checks, plan
from costmodel.calibration.store import read_calibration
from costmodel.catalog import calibration_file
from costmodel.cli import main
from costmodel.kernels import CLASSES
from tests.test_bad_input import command_refuses, refused

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
measure = pytest.importorskip("costmodel.calibration.measure")


def random(*dims: int) -> Any:
    return torch.randn(*dims, generator=torch.Generator().manual_seed(sum(dims)))


def near(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4)


# kernels beside naive versions


def test_every_kernel_has_a_class_and_its_sizes() -> None:
    assert set(measure.KERNELS) == set(SPACES)
    for point in plan():
        assert set(point.sizes()) >= set(CLASSES[point.kernel].sizes), point
        assert all(size >= 0 for size in point.sizes().values())


@pytest.mark.parametrize("kind", SPACES)
def test_every_kernel_runs_at_its_smallest_shape(kind: str) -> None:
    """And reads what `Need` counts: its inputs are cut, none is made up."""
    space = SPACES[kind]
    shape = dict(zip(space.dims, space.anchors[1], strict=True))
    out = measure.KERNELS[kind].build(shape, torch.float32, "cpu", 2)(1)
    parts = out if isinstance(out, tuple) else (out,)
    assert all(torch.isfinite(part).all() for part in parts)


def test_delta_rule_in_chunks_is_the_rule_in_steps() -> None:
    batch, tokens, keys, heads, key, value = 2, 130, 2, 4, 8, 16
    q, k = random(batch, tokens, keys, key), random(batch, tokens, keys, key) * key**-0.5
    v, decay, beta = (
        random(batch, tokens, heads, value),
        -random(batch, tokens, heads).abs(),
        random(batch, tokens, heads).sigmoid(),
    )
    state, steps = torch.zeros(batch, heads, key, value), []
    for i in range(tokens):
        steps.append(measure.gdn_step(q[:, i], k[:, i], v[:, i], decay[:, i], beta[:, i], state))
    out, last = measure.gdn_chunked(q, k, v, decay, beta)
    near(out, torch.stack(steps, dim=1))
    near(last, state)


def test_state_space_in_chunks_is_the_recurrence() -> None:
    batch, tokens, heads, width, states, groups = 2, 130, 4, 8, 16, 2
    x, dt, a = random(batch, tokens, heads, width), random(batch, tokens, heads).sigmoid(), -random(heads).abs()
    b, c = random(batch, tokens, groups, states), random(batch, tokens, groups, states) * 0.3
    state, steps = torch.zeros(batch, heads, width, states), []
    for i in range(tokens):
        steps.append(measure.ssd_step(x[:, i], dt[:, i], a, b[:, i], c[:, i], state))
    out, last = measure.ssd_chunked(x, dt, a, b, c)
    near(out, torch.stack(steps, dim=1))
    near(last, state)


def test_small_kernels_are_what_they_say() -> None:
    x, w = random(5, 8), random(8)
    near(measure.norm(x, w), w * x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt())
    near(measure.softmax(x), x.softmax(-1))
    near(measure.gate(x, 2 * x), x * x.sigmoid() * 2 * x)
    near(measure.rope(x, torch.zeros(8), torch.ones(8)), torch.cat((-x[:, 4:], x[:, :4]), -1))
    y, weights = random(2, 3, 6), random(3, 1, 4)
    whole = measure.conv(y, weights, None)
    near(whole[:, :, 5], (y[:, :, 2:6] * weights[:, 0]).sum(-1))
    tail = y[:, :, 2:5].clone()
    near(measure.conv(y[:, :, 5:], weights, tail)[..., 0], whole[:, :, 5])
    near(tail, y[:, :, 3:])


def test_attention_and_experts_are_what_they_say() -> None:
    q, k, v = random(2, 4, 6, 8), random(2, 2, 6, 8), random(2, 2, 6, 8)
    scores = q @ k.repeat_interleave(2, 1).transpose(-1, -2) * 8**-0.5
    masked = scores.masked_fill(~torch.ones(6, 6, dtype=torch.bool).tril(), -torch.inf)
    near(measure.prefill_attention(q, k, v), masked.softmax(-1) @ v.repeat_interleave(2, 1))
    near(measure.decode_attention(q[:, :, -1:], k, v), (scores[:, :, -1:]).softmax(-1) @ v.repeat_interleave(2, 1))
    x, up, down = random(6, 8), random(3, 10, 8), random(3, 8, 5)
    weights, picks = random(6, 2).abs(), torch.tensor([[0, 2]] * 3 + [[2, 0]] * 3)
    naive = torch.zeros(6, 8)
    for token in range(6):
        for place in range(2):
            a, b = (up[picks[token, place]] @ x[token]).chunk(2)
            naive[token] += weights[token, place] * (down[picks[token, place]] @ (a * a.sigmoid() * b))
    near(measure.moe(x, picks, weights, up, down), naive)


@pytest.mark.parametrize("kind", ["gqa", "mla"])
def test_a_layers_decode_is_the_last_row_of_its_prefill(kind: str) -> None:
    """Caches written, rotated and read as they are; latents absorbed as they are expanded."""
    block = {"gqa": validation.layers()["llama"], "mla": validation.layers()["mla-moe"]}[kind].layers[0].mixer
    tokens, width = 7, 1024
    source = measure.Need(torch.float32)
    source.warm = source.cold = lambda *dims: random(*dims) * dims[-1] ** -0.5
    weights = dict(validation.CUTS[kind](block, width, source, (2, tokens, tokens)))
    x = random(2 * tokens, width)
    whole = validation.RUNS[kind](block, measure, x, weights, (2, tokens, tokens))
    last = {**weights, "cos": weights["cos"][-1:], "sin": weights["sin"][-1:]}
    step = validation.RUNS[kind](block, measure, x.view(2, tokens, width)[:, -1], last, (2, 1, tokens))
    near(step, whole.view(2, tokens, width)[:, -1])


# which shapes


def test_plans_are_the_same_each_time_and_checks_are_others() -> None:
    for quick in (True, False):
        assert plan(quick) == plan(quick)
        assert len(set(plan(quick))) == len(plan(quick))
        assert not set(plan(quick)) & set(checks(quick))
        assert {point.kernel for point in checks(quick)} == {point.kernel for point in plan(quick)}
    assert plan(seed=1) != plan()
    assert 2 * len(plan(quick=True)) < len(plan())


# measuring

GEMMS = [Point("gemm", (("m", m), ("n", n), ("k", n))) for m in (2, 16, 64) for n in (64, 160, 256)]
CHECKS = [Point("gemm", (("m", m), ("n", 96), ("k", 128))) for m in (3, 8, 40)]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine points and three to score, in two rounds."""
    monkeypatch.setattr(own, "plan", lambda *_: GEMMS)
    monkeypatch.setattr(own, "checks", lambda *_: CHECKS)
    monkeypatch.setattr(own, "BUDGET_S", 0.0)


def test_samples_are_counted_in_rounds_and_earlier_ones_kept() -> None:
    heard: list[tuple[int, int]] = []
    first = measure.measure(GEMMS[:3], budget_s=0.0, follow=lambda _, __, taken, expected: heard.append((taken, expected)))
    assert [len(samples) for samples in first.seconds.values()] == [measure.LEAST_ROUNDS] * 3
    assert [taken for taken, _ in heard] == list(range(1, 7))
    assert all(taken <= expected for taken, expected in heard)
    assert all(1e-7 < second < 1 for samples in first.seconds.values() for second in samples)
    again = measure.measure(GEMMS[:4], budget_s=0.0, done=first.seconds)
    assert {point: samples for point, samples in again.seconds.items() if point in first.seconds} == first.seconds
    assert len(again.seconds[GEMMS[3]]) == measure.LEAST_ROUNDS


def test_what_cannot_be_measured_is_refused() -> None:
    refused(lambda: measure.measure(GEMMS, "tpu"), "no device", "cpu")
    refused(lambda: measure.measure(GEMMS, "cuda:7"), "not here")
    refused(lambda: measure.measure([Point("sorting", ())]), "no kernel")
    refused(lambda: measure.measure([Point("gemm", (("m", 1), ("n", 0), ("k", 1)))]), "positive integers")
    refused(lambda: measure.measure([Point("gemm", (("n", 1),))]), "m, n, k")
    refused(lambda: measure.measure([Point("gemm", (("m", 1), ("n", 1), ("k", 1)), "fp4")]), "no dtype")
    refused(lambda: measure.measure([Point("gemm", (("m", 1), ("n", 2**16), ("k", 2**16)))]), "GiB")


def test_threads_are_set_back() -> None:
    before = torch.get_num_threads()
    measure.measure(GEMMS[:1], budget_s=0.0)
    assert torch.get_num_threads() == before


def test_a_calibration_is_measured_fitted_and_used(few: None, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    made = cm.calibrate(path=path)
    assert read_calibration(path) == made
    assert not path.with_name("mine.json.part").exists()
    (gemm,) = made.classes
    assert (len(gemm.seconds), gemm.held_out.n) == (len(GEMMS), len(CHECKS))
    assert gemm.check_seconds is not None
    assert len(gemm.check_seconds) == len(CHECKS)
    assert sum(scores.n for scores in gemm.regimes.values()) == len(CHECKS)
    assert made.machine is not None
    assert (made.machine.threads, made.machine.rounds) == (1, measure.LEAST_ROUNDS)
    found = cm.estimate("llama-3.1-8b", "cpu", precision="fp32", prompt=64, output=2, calibration=path)
    assert {op["state"] for op in found.ops_rows if op["kernel"] == "gemm" and op["block"] == "mlp"} == {"calibrated"}
    refused(lambda: cm.estimate("llama-3.1-8b", "h100-sxm", calibration=path), "was measured on cpu")


def test_an_interrupt_loses_no_finished_point(few: None, tmp_path: Path) -> None:
    path, part = tmp_path / "mine.json", tmp_path / "mine.json.part"

    def stop(taken: int, expected: int) -> None:
        if taken == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cm.calibrate(path=path, follow=stop)
    kept = part.read_text().splitlines()
    assert len(kept) == 11
    part.write_text("\n".join([*kept, '["gemm", {"m": 2']))  # it came while a line was written
    taken: list[int] = []
    cm.calibrate(path=path, follow=lambda count, expected: taken.append(count))
    assert len(taken) == 2 * len(GEMMS + CHECKS) - 10
    assert path.exists()
    assert not part.exists()


@pytest.mark.parametrize(("text", "says"), [('{"device": "other"}\n', "other options"), ("nonsense\nmore\n", "cannot be read"),
                                            ('{"a": 1}\n[1]\n', "other options")])  # fmt: skip
def test_samples_that_are_not_ours_are_refused(few: None, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.json.part").write_text(text)
    refused(lambda: cm.calibrate(path=tmp_path / "mine.json"), says)
    assert (tmp_path / "mine.json.part").read_text() == text


def test_a_noisy_machine_is_told(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1e-3, 1e-3, 2e-3] + [1e-3] * 100)
    monkeypatch.setattr(measure, "_canary", lambda device: next(times))
    made = cm.calibrate()
    assert made.machine is not None
    assert made.machine.noisy
    assert any("noisy" in note for note in made.notes)


def test_the_command_says_what_is_wrong(few: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command_refuses(capsys, "calibrate", "--device", "tpu")
    command_refuses(capsys, "calibrate", "--device", "cuda:77")
    command_refuses(capsys, "calibrate", "--kind", "gemm")
    command_refuses(capsys, "calibrate", "--table", "x.csv")
    command_refuses(capsys, "calibrate", "--dtype", "fp4", "--out", str(tmp_path / "x.json"))
    command_refuses(capsys, "calibrate", "--out", str(tmp_path / "none" / "x.json"))
    command_refuses(capsys, "validate", "--calibration", "h100-sxm")
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "--out", str(tmp_path / "mine.json"), "--format", "json"])
    assert ended.value.code == 0
    printed = capsys.readouterr()
    assert {row["kernel"] for row in json.loads(printed.out)["errors"]} == {"gemm"}
    assert "wrote " in printed.err


# layers


def test_layers_run_beside_their_predictions(
    few: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the calibration that is shipped, of another machine perhaps: no claim on how near."""
    monkeypatch.setattr(validation, "PREFILLS", ((1, 16, 16), (2, 8, 8)))
    monkeypatch.setattr(validation, "DECODES", ((1, 1, 16), (2, 1, 64)))
    monkeypatch.setattr(validation, "LAYERS_BUDGET_S", 0.0)
    found = cm.validate(calibration=read_calibration(calibration_file("cpu")))
    assert len(found.rows) == 4 * len(validation.layers())
    assert all(0.05 < row["predicted_s"] / row["measured_s"] < 20 for row in found.rows)
    for phase in ("prefill", "decode"):
        rows = [row for row in found.rows if row["pass"] == phase]
        assert found.scores(phase).median == pytest.approx(np.median([abs(row["error"]) for row in rows]), abs=1e-6)
    with pytest.raises(SystemExit) as ended:
        main(["validate", "--calibration", "cpu", "--quick", "--format", "json"])
    assert ended.value.code == 0
    assert {row["pass"] for row in json.loads(capsys.readouterr().out)["errors"]} == {"prefill", "decode"}
