"""Architectures with changes: the numbers of a file that says the same, and one line for what cannot be."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

import costmodel as cm
from costmodel.answers.cards import cards
from costmodel.answers.summary import unequal_table
from costmodel.catalog import as_toml, bundled, parse, validate
from costmodel.comparison import DIFFERENCES, diff_rows
from costmodel.scenario import FLAGSHIPS, YARDSTICK, Scenario
from costmodel.variants import as_edits, edited, groups_to_take, knobs, read_edits

EDITED = ("gemma-3-27b", "deepseek-v3", "qwen3-next-80b-a3b", "gpt2", "llama-3.1-8b")


def priced(model: cm.Architecture) -> dict[str, int]:
    at = {"context": 5_000, "batch": 2}
    return {
        "params": model.params.total, "active": model.params.active, "cache": model.cache_bytes(**at),
        "prefill": model.prefill_flops(**at), "decode": model.decode_flops(**at), "weights": model.weight_bytes(precision="fp8"),
    }  # fmt: skip


def one_line(asked: Callable[[], bool]) -> bool:
    """Whether something holds, or is refused in one line."""
    try:
        return asked()
    except cm.CostModelError as error:
        return str(error).isprintable()


def other(value: Any, choices: tuple[Any, ...]) -> Any:
    """Another legal value, for most fields."""
    if choices:
        return next(choice for choice in choices if choice != value)
    return 64 if value is None else value * 2


@pytest.mark.parametrize("name", EDITED)
def test_each_change_counts_like_a_file_that_says_so(name: str) -> None:
    model, done = cm.load(name), 0
    for own in knobs(model).values():
        for knob in own:
            changes = {knob.path: other(knob.value, knob.choices)}
            try:
                changed = edited(model, changes)
            except cm.CostModelError:
                continue  # not every field may change alone
            again = {found.path: found.value for found_own in knobs(changed).values() for found in found_own}
            assert again[knob.path] == changes[knob.path]
            assert priced(parse(as_toml(changed), "changed")) == priced(changed)
            assert edited(model, read_edits(as_edits(changes))) == changed
            assert {k: v for k, v in again.items() if k != knob.path} == {
                found.path: found.value for found_own in knobs(model).values() for found in found_own if found.path != knob.path
            }
            done += 1
    assert done >= 15


@pytest.mark.parametrize("name", cm.presets())
def test_no_change_costs_nothing(name: str) -> None:
    assert priced(edited(cm.load(name), {})) == priced(cm.load(name))


def test_groups_come_and_go() -> None:
    gemma = cm.load("gemma-3-27b")
    without = edited(gemma, {"local/count": 0})
    assert [group.name for group in without.layers] == ["global"]
    assert without.depth == 10
    mixed = edited(gemma, {"local/mixer": "deepseek-v3/moe", "extra": "mixtral-8x7b/moe", "extra/count": 2})
    assert [group.mixer.kind for group in mixed.layers if group.mixer] == ["mla", "gqa", "gqa"]
    assert mixed.depth == 64
    assert mixed.layers[-1].feed_forward == cm.load("mixtral-8x7b").layers[0].feed_forward
    assert edited(gemma, {"global/mixer": "local"}).layers[1].mixer == gemma.layers[0].mixer
    taken = list(groups_to_take([cm.load(name) for name in cm.presets()], "mixer"))
    assert all(edited(gemma, {"local/mixer": place}).params.total > 0 for place in taken)


@pytest.mark.parametrize(
    "changes",
    [
        {"local/mixer/num_key_value_heads": 5}, {"local/mixer/nope": 1}, {"nope/mixer/head_dim": 1}, {"hidden_size": -1},
        {"hidden_size": "big"}, {"local/count": -2}, {"local/count": 0, "global/count": 0}, {"local/mixer": "nobody/here"},
        {"local/mixer": "deepseek-v3/nope"}, {"local/mixer": 7}, {"name": "x"}, {"local/mixer/kind": "mla"}, {"a/b/c/d": 1},
        {"reference": 3}, {"local/mixer": "../../etc/passwd/x"}, {"local/count": 10**9}, {"": 1}, {"local/": 1},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_changes_are_one_line(changes: dict[str, Any]) -> None:
    with pytest.raises(cm.CostModelError) as error:
        edited(cm.load("gemma-3-27b"), changes)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@given(
    st.dictionaries(
        st.text(max_size=30) | st.sampled_from(["local/count", "local/mixer/head_dim"]), st.integers() | st.text(max_size=9)
    )
)
def test_any_change_is_a_model_or_one_line(changes: dict[str, Any]) -> None:
    assert one_line(lambda: edited(cm.load("gemma-3-27b"), changes).params.active > 0)


@given(st.lists(st.text(max_size=30)))
def test_any_text_is_a_change_or_one_line(texts: list[str]) -> None:
    assert one_line(lambda: read_edits(texts) is not None)


CHANGES = st.dictionaries(
    st.from_regex(r"[a-z]{1,9}(/[a-z_]{1,9}){0,2}", fullmatch=True),
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.from_regex(r"[a-z][a-z0-9-]{3,9}/[a-z]{1,9}", fullmatch=True),
)


@given(CHANGES)
def test_changes_survive_a_link(changes: dict[str, Any]) -> None:
    assert read_edits(as_edits(changes)) == changes


@pytest.mark.parametrize("stored", [("bf16", "fp8"), ("fp8", "int4"), ("bf16", "bf16")])
def test_the_walk_with_formats_sums_to_the_difference(stored: tuple[str, str]) -> None:
    for a, b in (("deepseek-v3", "gemma-3-27b"), ("gpt2", "qwen3-next-80b-a3b")):
        start, steps, end = diff_rows(a, b, 5_000, 3, stored, ("bf16", "fp8"))
        for name in DIFFERENCES:
            assert start[name] + sum(step[name] for step in steps) == end[name]
        assert start["weight_bytes"] == cm.load(a).weight_bytes(precision=stored[0])
        assert end["cache_bytes"] == cm.load(b).cache_bytes(context=5_000, batch=3, precision="fp8")


def test_unequal_fields_are_exactly_those() -> None:
    gemma = cm.load("gemma-3-27b")
    changed = edited(gemma, {"local/mixer/sliding_window": 4096, "hidden_size": 5000})
    rows = {row["field"]: (list(row.values())[1:]) for row in unequal_table(gemma, changed).rows}
    assert rows == {"hidden_size": ["5,376", "5,000"], "local.mixer.sliding_window": ["1,024", "4,096"]}
    assert unequal_table(gemma, gemma).rows == []


def test_cards_are_the_librarys_numbers() -> None:
    scenario = Scenario(context=9_000, batch=3, cache="fp8", accelerator="h100-sxm", devices=16)
    for name, card in zip(FLAGSHIPS, cards([cm.load(name) for name in FLAGSHIPS], scenario, cm.load(YARDSTICK)), strict=True):
        kept = cm.load(name).cache_bytes.having(precision="fp8")
        assert card.spark == [kept(context=1 << power, batch=3) for power in range(10, 21)]
        room = cm.capacity(name, "h100-sxm", 16, 9_000, 3, cache_precision="fp8")
        assert dict(card.facts)["sequences that fit"] == ("none" if room.most_sequences is None else f"{room.most_sequences:,}")
    state = dict(cards([cm.load("qwen3-next-80b-a3b")], Scenario(), cm.load(YARDSTICK))[0].facts)["per token"]
    assert "73.69 MiB of state" in state  # 77,266,944 bytes


def test_a_change_of_a_change_is_refused_like_a_file() -> None:
    data = cm.load("gpt2").model_dump()
    data["layers"] = []
    with pytest.raises(cm.CostModelError):
        validate(data, "empty")


def told_in_a_file(name: str, path: str, value: Any) -> cm.Architecture:
    """A preset whose file says something else in one place: a second way to the same change."""
    data = tomllib.loads((bundled("presets") / "architectures" / f"{name}.toml").read_text(encoding="utf-8"))
    *steps, last = path.split("/")
    place = next(group for group in data["layers"] if group["name"] == steps[0]) if steps else data
    for step in steps[1:]:
        place = place[step]
    place.pop(last, None)
    if value is not None:
        place[last] = value
    if last == "count":
        data.pop("pattern", None)
    data.pop("reference", None)
    return parse(tomli_w.dumps(data), "file.toml")


@pytest.mark.parametrize("name", cm.presets())
def test_each_field_of_each_preset_counts_like_its_file(name: str) -> None:
    model, costs_more = cm.load(name), 0
    for own in knobs(model).values():
        for knob in own:
            value = other(knob.value, knob.choices)
            try:
                expected = told_in_a_file(name, knob.path, value)
            except cm.CostModelError:
                with pytest.raises(cm.CostModelError):
                    edited(model, {knob.path: value})
                continue
            changed = edited(model, {knob.path: value})
            assert priced(changed) == priced(expected), knob.path
            costs_more += priced(changed) != priced(model)
    assert costs_more >= 6


@pytest.mark.parametrize("part", ["mixer", "feed_forward"])
def test_a_part_taken_from_a_preset_is_the_presets(part: str) -> None:
    presets = [cm.load(name) for name in cm.presets()]
    gpt2 = tomllib.loads((bundled("presets") / "architectures" / "gpt2.toml").read_text(encoding="utf-8"))
    del gpt2["reference"]
    for place in groups_to_take(presets, part):
        preset, _, group = place.partition("/")
        other_file = tomllib.loads((bundled("presets") / "architectures" / f"{preset}.toml").read_text(encoding="utf-8"))
        taken = next(found for found in other_file["layers"] if found["name"] == group)[part]
        data = gpt2 | {"layers": [gpt2["layers"][0] | {part: taken}]}
        assert priced(edited(cm.load("gpt2"), {f"dense/{part}": place})) == priced(parse(tomli_w.dumps(data), "file.toml"))


@pytest.mark.parametrize("place", ["{}/secret.toml/dense", "{}/dense", "./secret.toml/dense", "{}/secret/dense"])
def test_layers_are_taken_from_presets_alone(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link carries changes: it must not make a server read its files."""
    (tmp_path / "secret.toml").write_text(as_toml(cm.load("gpt2")), encoding="utf-8")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for path in ("dense/mixer", "added"):
        with pytest.raises(cm.CostModelError, match="no preset"):
            edited(cm.load("gpt2"), {path: place.format(tmp_path)})


def flat(tree: Any, within: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {within.removesuffix("."): tree}
    return {path: value for name, inner in tree.items() for path, value in flat(inner, f"{within}{name}.").items()}


def comparable(model: cm.Architecture) -> dict[str, Any]:
    """All that costs something, defaults included, by path."""
    told = ("name", "title", "maker", "released", "source", "notes", "reference", "pattern", "layers")
    dump = model.model_dump(mode="json")
    groups = {group["name"]: {name: value for name, value in group.items() if name != "name"} for group in dump["layers"]}
    return flat({name: value for name, value in dump.items() if name not in told} | groups)


def unequal(first: cm.Architecture, last: cm.Architecture) -> dict[str, list[str]]:
    return {row["field"]: list(row.values())[1:] for row in unequal_table(first, last).rows}


def said(value: Any) -> str:
    return "none" if value is None else f"{value:,}" if type(value) is int else str(value)


def test_unequal_fields_of_all_pairs() -> None:
    """Each row is true, and no field that both have is missing."""
    models = [cm.load(name) for name in cm.presets()]
    for first in models:
        for last in models:
            one, two, rows = comparable(first), comparable(last), unequal(first, last)
            for field, cells in rows.items():
                assert cells == [said(one.get(field)), said(two.get(field))]
                assert cells[0] != cells[1]
            assert {field for field in one.keys() & two.keys() if said(one[field]) != said(two[field])} <= rows.keys()


def test_unequal_kinds_and_defaults_are_told() -> None:
    gemma = cm.load("gemma-3-27b")
    assert unequal(gemma, edited(gemma, {"local/mixer": "deepseek-v3/moe"}))["local.mixer.kind"] == ["gqa", "mla"]
    rows = unequal(cm.load("gpt2"), cm.load("llama-3.1-8b"))
    assert rows["norm.kind"] == ["layernorm", "rmsnorm"]
    assert rows["dense.feed_forward.gated"] == ["False", "True"]
