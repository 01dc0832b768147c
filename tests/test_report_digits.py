"""The same question in a dashboard's link, on the command line, in Python and in a report gives the same digits."""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import costmodel as cm
from costmodel.reporting import Report
from costmodel.scenario import Scenario

from .test_cli import run

NAMES = ("gpt2", "gemma-3-1b", "deepseek-v2-lite", "qwen3-next-80b-a3b")
SCENARIOS = st.builds(
    Scenario,
    models=st.lists(
        st.sampled_from(["gpt2", "gemma-3-1b", "deepseek-v2-lite", "qwen3-next-80b-a3b"]), min_size=1, max_size=2, unique=True
    ).map(tuple),
    context=st.integers(1, 2_000_000),
    batch=st.integers(1, 5_000),
    weights=st.sampled_from(["bf16", "fp8", "int4"]),
    cache=st.sampled_from(["bf16", "fp8"]),
    view=st.sampled_from(["theory", "engine"]),
    accelerator=st.sampled_from(["h200", "l4"]),
    devices=st.sampled_from([1, 8, 100]),
    units=st.sampled_from(["GiB", "GB"]),
    requests_per_s=st.sampled_from([2.0, 0.125]),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scenario=SCENARIOS)
def test_link_command_python_and_report_agree_to_the_digit(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    found = Report.of(scenario)
    told = {each.what: each.text for each in found.commands}
    written = found.write("json")
    status, from_shell, _ = run(capsys, *shlex.split(told["shell"])[1:], "--format", "json")
    assert (status, from_shell) == (0, written)
    assert run(capsys, "report", "--link", told["link"], "--format", "json")[1] == written
    setup, line = told["python"].split("\n")
    space: dict[str, Any] = {}
    exec(setup, space)  # noqa: S102 - our own text
    assert eval(line, space) == written  # noqa: S307 - our own text
    linked, notices = Scenario.of(parse_qs(told["link"].partition("?")[2], keep_blank_values=True))
    assert notices == ()
    assert linked == scenario
    data = json.loads(written)
    quantities = {(row["model"], row["quantity"]): row for row in data["quantities"]}
    for name in scenario.models:
        model = cm.load(name)
        for quantity in ("prefill_flops", "decode_flops", "weight_bytes", "bytes_moved"):
            formula = linked.formula(model, quantity)
            assert quantities[name, quantity]["value"] == formula(**linked.inputs(formula))
        kept = linked.kept(model)(**linked.at)
        assert quantities[name, "cache_bytes" if scenario.view == "theory" else "cache_bytes_engine"]["value"] == kept
        assert quantities[name, "params_total"]["value"] == model.params.total
    for row in data["quantities"]:
        assert eval(row["python"], space) == row["value"]  # noqa: S307 - our own text
        assert type(eval(row["python"], space)) is type(row["value"])  # noqa: S307 - our own text
