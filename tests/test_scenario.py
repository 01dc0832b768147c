"""Scenarios and their links: nothing lost on the way there and back, and nothing hostile gets further than a notice."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

import costmodel as cm
from costmodel.scenario import CHOICES, LONGEST, SCHEMA, Scenario

names = st.sampled_from(cm.presets())
sizes = st.integers(1, 10**12)
lengths = st.integers(1, LONGEST)
limits = st.floats(0, 10_000)


@st.composite
def scenarios(draw: Any) -> Scenario:
    models = draw(st.lists(names, max_size=4, unique=True))
    edits = st.builds("{}={}".format, st.sampled_from(["local/count", "hidden_size", "a/mixer"]), st.text("abc/-0189", min_size=1))
    choices = {name: draw(st.sampled_from(values)) for name, values in CHOICES.items()}
    return Scenario(
        models=tuple(models), context=draw(sizes), batch=draw(sizes), devices=draw(st.integers(1, 100_000)),
        accelerator=draw(st.sampled_from(cm.accelerators())), model=draw(names | st.just("")), other=draw(names | st.just("")),
        edit=tuple(draw(st.lists(edits, max_size=5))), requests_per_s=draw(st.floats(1e-6, 1e4)), prompt=draw(lengths),
        output=draw(lengths), ttft_s=draw(limits), tpot_s=draw(limits), usd_per_hour=draw(st.floats(0, 1e5)), **choices,
    )  # fmt: skip


@given(scenarios())
def test_a_link_says_its_scenario_and_nothing_else(scenario: Scenario) -> None:
    query = scenario.query()
    assert Scenario.of(query) == (scenario, ())
    assert Scenario.of(query)[0].query() == query
    through_text = parse_qs(scenario.link("moe").partition("?")[2], keep_blank_values=True)
    assert Scenario.of(through_text) == (scenario, ())
    assert query["v"] == [str(SCHEMA)]
    assert query.keys() == {"v", *Scenario.model_fields}


@given(
    st.dictionaries(
        st.sampled_from([*Scenario.model_fields, "v"]) | st.text(max_size=20), st.lists(st.text(max_size=50), max_size=4)
    )
)
def test_any_query_gives_a_scenario(query: dict[str, list[str]]) -> None:
    scenario, notices = Scenario.of(query)
    assert Scenario.of(scenario.query()) == (scenario, ())
    assert all(notice and "\n" not in notice and len(notice) < 600 for notice in notices)
    assert len(notices) >= sum(name not in (*Scenario.model_fields, "v") for name in query)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context", "<script>alert(1)</script>"), ("context", "-1"), ("context", "1e9999"), ("context", "0"), ("batch", "9" * 400),
        ("batch", "0"), ("batch", "1.5"), ("batch", "\u0661"), ("models", "../../etc/passwd"), ("models", "deepsek-v3"),
        ("view", "x"),
        ("accelerator", "' OR 1=1"), ("devices", ""), ("units", "gib"), ("quantity", "__class__"), ("model", "\x00"), ("v", "99"),
        ("zzz", "1"), ("weights", "fp7"), ("cache", "q4_K"), ("height", "params"),
        ("requests_per_s", "0"), ("requests_per_s", "nan"), ("requests_per_s", "1e5"), ("requests_per_s", "-2"), ("prompt", "0"),
        ("prompt", "1.5"), ("output", "1e999"), ("output", str(10**8)), ("ttft_s", "inf"), ("ttft_s", "two"), ("tpot_s", "-0.05"),
        ("tpot_s", "1_0"), ("usd_per_hour", "9" * 300), ("usd_per_hour", "$3"),
        ("objective", "__class__"), ("edit", "x" * 10_000 + "\u202e"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_told(name: str, value: str) -> None:
    scenario, notices = Scenario.of({name: [value]})
    if name == "edit":
        assert scenario.edit == (value,)  # told where it is applied
        return
    assert scenario == Scenario()
    assert len(notices) == 1
    assert notices[0].isprintable()
    assert name in notices[0] or name == "v"


def test_too_much_of_a_thing_is_told() -> None:
    assert Scenario.of({"models": cm.presets()})[1]
    assert Scenario.of({"edit": [f"a/b{n}=1" for n in range(100)]})[1]


def test_links_of_the_first_version_still_open() -> None:
    """They had no version, and these four keys."""
    old = {"models": ["gpt2", "kimi-k2"], "context": ["4k"], "batch": ["3"], "view": ["engine"]}
    scenario, notices = Scenario.of(old)
    assert notices == ()
    assert scenario == Scenario(models=("gpt2", "kimi-k2"), context=4096, batch=3, view="engine")
    assert Scenario.of({"v": ["1"], **old}) == (scenario, ())


def test_links_of_the_second_version_still_open() -> None:
    """They had no traffic."""
    traffic = ("requests_per_s", "prompt", "output", "ttft_s", "tpot_s", "usd_per_hour", "objective")
    whole = Scenario(models=("gpt2",), context=5_000, weights="fp8", quantity="params")
    old = {name: value for name, value in whole.query().items() if name not in traffic} | {"v": ["2"]}
    assert Scenario.of(old) == (whole, ())


def test_numbers_are_written_as_people_write_them() -> None:
    query = Scenario(requests_per_s=10.0, tpot_s=0.05, prompt=8192, usd_per_hour=2.5).query()
    assert [query[name] for name in ("requests_per_s", "tpot_s", "prompt", "usd_per_hour")] == [["10"], ["0.05"], ["8k"], ["2.5"]]


def test_a_session_may_have_models_of_its_own() -> None:
    assert Scenario.of({"models": ["mine"]}, own=["mine"])[0].models == ("mine",)
    assert "mine" in Scenario.of({"models": ["mine"]})[1][0]


@pytest.mark.parametrize("name", cm.presets())
def test_the_same_question_has_the_same_answer_everywhere(name: str) -> None:
    """A link, a command and a line of Python ask for the same number."""
    scenario = Scenario(models=(name,), context=3_000, batch=2, cache="fp8", weights="fp8", view="engine")
    model = cm.load(name)
    ours = scenario.kept(model)(**scenario.at)
    assert eval(scenario.python(name), {"costmodel": cm}) == ours  # noqa: S307 - our own line
    assert ours == model.cache_bytes(context=3_000, batch=2, precision="fp8", view="engine")
    room = scenario.room(model)
    assert (room.cache_bytes, room.weight_bytes) == (ours, model.weight_bytes(precision="fp8"))
    for quantity in ("params", "active", "weight_bytes", "prefill_flops", "decode_flops", "bytes_moved", "training_flops"):
        formula = scenario.formula(model, quantity)
        assert formula(**scenario.inputs(formula)) > 0
