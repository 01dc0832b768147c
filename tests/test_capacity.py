"""What fits: inverse answers beside loops, accelerators and their sources, and the usual formula with its known errors."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import costmodel as cm
from costmodel.blocks import FAMILIES, Mixer
from costmodel.catalog import bundled
from costmodel.cli import main
from costmodel.formula import MAX_INPUT
from costmodel.memory import LADDER, capacity_rows
from tests.test_bad_input import HUGE, INF, NAN, command_refuses, kind_of, refused
from tests.test_cli import FORMATS

MODELS = {name: cm.load(name) for name in ("gpt2", "deepseek-v3", "gemma-3-27b", "mistral-7b-v0.1", "qwen3-next-80b-a3b")}
CACHES = [model.cache_bytes.having(view=view) for model in MODELS.values() for view in ("theory", "engine")]


def device(memory_bytes: int) -> cm.Accelerator:
    return cm.Accelerator(name="mine", title="Mine", maker="Me", memory_bytes=memory_bytes, source="invented")


# largest


@given(st.sampled_from(CACHES), st.sampled_from(["context", "batch"]), st.integers(1, 10**6), st.integers(-1, 10**14))
def test_the_largest_fits_and_the_next_does_not(cache: cm.Formula, over: str, fixed: int, limit: int) -> None:
    other = {"context": "batch", "batch": "context"}[over]
    found = cm.largest(cache, limit, over=over, **{other: fixed})
    values = {number: cache(**{over: number, other: fixed}) for number in {1, found or 1, min((found or 1) + 1, MAX_INPUT)}}
    assert (found is None) == (values[1] > limit)
    if found is not None:
        assert values[found] <= limit
        assert found == MAX_INPUT or values[found + 1] > limit


@pytest.mark.parametrize("cache", CACHES, ids=str)
def test_the_largest_is_a_loops(cache: cm.Formula) -> None:
    unit = cache(context=1)
    for limit in (unit - 1, unit, 10 * unit, 33 * unit + 1):
        looped = max((context for context in range(1, 100) if cache(context=context) <= limit), default=None)
        assert cm.largest(cache, limit, upto=99) == looped


def test_other_letters_bound_the_largest() -> None:
    flops = MODELS["gpt2"].flops
    assert cm.largest(flops, INF, over="new_tokens", context=7) == 7
    assert cm.largest(flops, flops(new_tokens=5, context=9), over="new_tokens", context=9) == 5
    assert cm.largest(flops, flops(new_tokens=5, context=9), new_tokens=5) == 9
    assert cm.largest(flops, flops(new_tokens=5, context=5) - 1, new_tokens=5) is None
    assert cm.largest(cm.family("mla").cache_bytes, 1000, kv_lora_rank=4, qk_rope_head_dim=1) == 100


def test_a_state_that_does_not_grow_fits_any_context() -> None:
    windowed = MODELS["mistral-7b-v0.1"].cache_bytes
    assert cm.largest(windowed, windowed(context=4096)) == MAX_INPUT
    assert cm.largest(windowed, windowed(context=4096) - 1) == 4095
    assert cm.largest(windowed, windowed(context=4096), upto=50) == 50
    assert cm.largest(windowed, Fraction(windowed(context=9) * 2 + 1, 2)) == 9


def test_largest_refuses_in_a_line() -> None:
    cache = MODELS["gpt2"].cache_bytes
    for value in (None, 5, "cache_bytes", MODELS["gpt2"], []):
        refused(lambda value=value: cm.largest(value, 1), "largest got")  # type: ignore[misc]
    for limit in (None, "1", NAN, True, 1j, [], {}):
        refused(lambda limit=limit: cm.largest(cache, limit), "limit got", "bytes")  # type: ignore[misc]
    for over in ("contxt", "new_tokens", "", None, 5, [], HUGE):
        refused(lambda over=over: cm.largest(cache, 1, over=over), "does not depend on")  # type: ignore[misc]
    for upto in (0, -1, 1.5, HUGE, None, "9"):
        refused(lambda upto=upto: cm.largest(cache, 1, upto=upto), "upto got")  # type: ignore[misc]
    refused(lambda: cm.largest(cache, 1, over="contxt"), "did you mean context?")
    refused(lambda: cm.largest(MODELS["gpt2"].weight_bytes, 1), "constant")
    refused(lambda: cm.largest(cache, 1, context=5), "leave context")
    refused(lambda: cm.largest(cache, 1, precision="fp8"), "precision", "having")
    refused(lambda: cm.largest(cache, 1, over="batch"), "needs context")
    refused(lambda: cm.largest(cache, 1, batch=0), "batch got 0")


# capacity


@pytest.mark.parametrize("view", ["theory", "engine"])
@pytest.mark.parametrize("name", MODELS)
def test_capacity_is_what_loops_find(name: str, view: str) -> None:
    model = MODELS[name]
    weights = model.weight_bytes(precision="int8")
    cache = model.cache_bytes.having(precision="fp8", view=view)

    def fits(devices: int, context: int, batch: int) -> bool:
        return bool(weights + cache(context=context, batch=batch) <= devices * memory)

    for memory in (cache(context=60), weights // 3, weights + cache(context=3, batch=2), weights + cache(context=50, batch=2)):
        asked: dict[str, Any] = {"precision": "int8", "cache_precision": "fp8", "view": view}
        held = cm.capacity(model, device(memory), devices=2, context=20, batch=2, **asked)
        assert held.fits == fits(2, 20, 2) == (held.free_bytes >= 0)
        contexts = [context for context in range(1, 200) if fits(2, context, 2)]
        sequences = [batch for batch in range(1, 200) if fits(2, 20, batch)]
        assert (held.longest_context is None) == (not contexts)
        assert (held.most_sequences is None) == (not sequences)
        assert contexts == list(range(1, min(held.longest_context or 0, 199) + 1))
        assert sequences == list(range(1, min(held.most_sequences or 0, 199) + 1))
        assert fits(held.fewest_devices, 20, 2)
        assert held.fewest_devices == 1 or not fits(held.fewest_devices - 1, 20, 2)


def test_the_least_lossy_formats_that_fit() -> None:
    model = MODELS["gpt2"]
    sizes = [
        model.weight_bytes(precision=weights) + model.cache_bytes(context=1024, batch=8, precision=cache)
        for weights, cache in LADDER
    ]
    for size in (*sizes, *(size - 1 for size in sizes)):
        held = cm.capacity(model, device(size), context=1024, batch=8)
        assert held.loosest == next((pair for pair, needed in zip(LADDER, sizes, strict=True) if needed <= size), None)


def test_roles_are_taken_as_compare_takes_them() -> None:
    roles = cm.Precision(weights="fp8", cache="fp8")
    assert cm.capacity("gpt2", "l4", precision=roles).cache_bytes == MODELS["gpt2"].cache_bytes(context=131_072, precision="fp8")
    named = cm.capacity("gpt2", "l4", precision=roles, cache_precision="bf16")
    assert named.cache_bytes == MODELS["gpt2"].cache_bytes(context=131_072)
    assert named.weight_bytes == MODELS["gpt2"].weight_bytes(precision="fp8")


def test_rows_hold_what_capacity_says() -> None:
    rows = capacity_rows(["gpt2", MODELS["mistral-7b-v0.1"], "llama-3.1-405b"], "l4", context=1000)
    for row in rows:
        held = cm.capacity(row["name"], "l4", context=1000)
        names = row.keys() - {"name", "notes", "loosest"}
        assert {name: row[name] for name in names} == {name: getattr(held, name) for name in names}
        assert row["loosest"] == (None if held.loosest is None else "/".join(held.loosest))
    assert "beyond the published limit of 1,024" in rows[0]["notes"]
    assert (rows[1]["longest_context"], rows[1]["notes"].count("stops growing")) == (MAX_INPUT, 1)
    assert rows[2]["longest_context"] is rows[2]["loosest"] is None
    json.dumps(rows, allow_nan=False)


def test_capacity_refuses_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    refused(lambda: cm.capacity("gpt3", "l4"), "did you mean gpt2?")
    refused(lambda: cm.capacity("gpt2", "h2000"), "did you mean h200?")
    refused(lambda: cm.capacity("gpt2", "l4", precision="fp9"), "fp9")
    refused(lambda: cm.capacity("gpt2", "l4", cache_precision="int4"), "int4")
    refused(lambda: cm.capacity("gpt2", "l4", view="engin"), "engin")
    refused(lambda: capacity_rows(5, "l4"), "capacity got 5")  # type: ignore[arg-type]
    for name in ("devices", "context", "batch"):
        for value in (0, -1, 1.5, NAN, INF, True, None, "8", HUGE, [1]):
            refused(lambda name=name, value=value: cm.capacity("gpt2", "l4", **{name: value}), f"{name} got")  # type: ignore[misc]
    command_refuses(capsys, "capacity", "gpt2")
    command_refuses(capsys, "capacity", "gpt2", "--on", "h300")
    command_refuses(capsys, "capacity", "gpt2", "--on", "l4", "--devices", "0")
    command_refuses(capsys, "capacity", "gpt2", "--on", "l4", "--view", "engin")


@pytest.mark.parametrize("form", FORMATS)
def test_the_commands_tell_the_same(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = "capacity gpt2 llama-3.1-8b --on l4 --devices 2 -c 2k -b 3 --precision int8 --cache-precision fp8 --view engine"
    for command in (asked, "accelerators"):
        with pytest.raises(SystemExit) as end:
            main([*command.split(), "--format", form])
        out, err = capsys.readouterr()
        assert end.value.code == 0
        if command == asked:
            assert "weights and cache alone" in err
            longest = cm.capacity("gpt2", "l4", 2, 2048, 3, "int8", "fp8", "engine").longest_context
            assert (f"{longest}" if form in ("json", "csv") else f"{longest:,}") in out
        if form == "json":
            assert json.loads(out) == (
                capacity_rows(["gpt2", "llama-3.1-8b"], "l4", 2, 2048, 3, "int8", "fp8", "engine")
                if command == asked
                else [row | {"memory_bytes": cm.accelerator(row["name"]).memory_bytes} for row in json.loads(out)]
            )


# accelerators


@pytest.mark.parametrize("name", cm.accelerators())
def test_every_accelerator_has_its_source(name: str) -> None:
    """The notes say whose figure the memory is; the MiB in them are the bytes."""
    found = cm.accelerator(name)
    assert found.name == name
    assert found.source.startswith("memory: ")
    assert (found.released is None) == (found.maker == "generic")
    assert found.memory_bytes_per_s
    assert found.peak_flops_per_s
    note = next(note for note in found.notes if "emory" in note)
    reported = re.search(r"reports, ([\d,]+) MiB", note)
    stated = re.search(r"(datasheet's|maker's figure,) (\d+) (GB|GiB)", note)
    assert reported or stated or "memory_bytes" in found.assumed
    for figure in ("memory_bytes", "memory_bytes_per_s", "peak_flops_per_s", "l2_bytes", "link_bytes_per_s", "power_w"):
        words = {"memory_bytes_per_s": "bandwidth", "peak_flops_per_s": "peaks", "l2_bytes": "L2|cache", "power_w": "power"}
        said = re.search(words.get(figure, figure.split("_")[0]), found.source)
        assert said or figure in found.assumed or not getattr(found, figure), figure
    assert found.price is None or (found.price.date and found.price.source)
    if reported:
        assert found.memory_bytes == int(reported[1].replace(",", "")) << 20
    elif stated:
        assert found.memory_bytes == int(stated[2]) * {"GB": 10**9, "GiB": 1 << 30}[stated[3]]


def test_accelerators_are_listed_and_read(tmp_path: Path) -> None:
    folder = bundled("presets") / "accelerators"
    assert cm.accelerators() == sorted(cm.accelerators()) == sorted(path.stem for path in folder.glob("*.toml"))
    assert cm.accelerator(folder / "h200.toml") == cm.accelerator("h200")
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\ntitle = "Mine"\nmaker = "Me"\nmemory_bytes = 1_000_000_000\nsource = "me"\n', encoding="utf-8"
    )
    assert cm.accelerator(str(tmp_path / "mine.toml")) == device(10**9).model_copy(update={"source": "me"})
    assert cm.capacity("gpt2", tmp_path / "mine.toml", context=1).fits


BASE = {"name": "mine", "title": "Mine", "maker": "Me", "memory_bytes": 1, "source": "me"}


@pytest.mark.parametrize(
    ("changes", "part"),
    [({"memory_bytes": value}, "memory_bytes") for value in (0, -1, 1.5, True, "80 GB", None, 10**16, HUGE, NAN)]
    + [({"memory_byte": 1}, "did you mean memory_bytes"), ({"name": "A B"}, "name"), ({"source": ""}, "source")]
    + [({"released": "soon"}, "released"), ({"notes": "one"}, "notes")],
)
def test_impossible_accelerators(changes: dict[str, Any], part: str) -> None:
    refused(lambda: cm.Accelerator(**(BASE | changes)), part)


@pytest.mark.parametrize("source", [None, True, 5, HUGE, [], b"h200", object()], ids=kind_of)
def test_accelerator_takes_names_and_paths(source: Any) -> None:
    refused(lambda: cm.accelerator(source), "accelerator got")
    refused(lambda: cm.capacity("gpt2", source), "accelerator got")


def test_bad_accelerator_files(tmp_path: Path) -> None:
    refused(lambda: cm.accelerator("h2000"), "did you mean h200?")
    refused(lambda: cm.accelerator(""), "no accelerator ''")
    for name, text, part in (
        ("cut.toml", "name = ", "no valid TOML"),
        ("deep.toml", "a = " + "[" * 10_000 + "]" * 10_000, "nested too deeply"),
        ("empty.toml", "", "missing"),
        ("model.toml", (bundled("presets") / "architectures" / "gpt2.toml").read_text(), "unknown field"),
    ):
        (tmp_path / name).write_text(text)
        refused(lambda name=name: cm.accelerator(tmp_path / name), name, part)  # type: ignore[misc]
    refused(lambda: cm.accelerator(tmp_path), "folder")
    refused(lambda: cm.accelerator(tmp_path / "none.toml"), "no file", "accelerator")


# the usual formula


@pytest.mark.parametrize(
    ("name", "context", "factor"),
    [("deepseek-v3", 4096, 61 * 2 * 128 * 56 / (61 * 576)), ("kimi-k2", 4096, 61 * 2 * 64 * 112 / (61 * 576)),
     ("gemma-3-27b", 131_072, 62 * 131_072 / (10 * 131_072 + 52 * 1024)), ("qwen3-next-80b-a3b", 10**10, 48 / 12),
     ("mistral-7b-v0.1", 8192, 2), ("llama-3.1-8b", 4096, 1), ("gpt2", 4096, 1)],
)  # fmt: skip
def test_how_wrong_the_usual_formula_is(name: str, context: int, factor: float) -> None:
    cache = cm.load(name).cache_bytes
    for precision in ("bf16", "fp8"):
        usual = cache(context=context, batch=3, method="2lhd", precision=precision)
        assert math.isclose(usual / cache(context=context, batch=3, precision=precision), factor, rel_tol=1e-4)


def test_the_usual_formula_is_two_layers_heads_width() -> None:
    usual = MODELS["qwen3-next-80b-a3b"].cache_bytes.having(method="2lhd")
    assert str(usual.expr) == f"{2 * 48 * 2 * 256 * 2}*B*S"
    assert sum(part(context=7) for part in usual.parts.values()) == usual(context=7) == 2 * 48 * 2 * 256 * 2 * 7
    assert usual.derivative("context")(context=7) == 2 * 48 * 2 * 256 * 2
    assert str(cm.family("gqa").cache_bytes.having(method="2lhd").expr) == "2*B*S*b_kv*d_h*n_kv"
    assert str(cm.family("mla").cache_bytes.having(method="2lhd").expr) == "2*B*S*b_kv*d_model"


def test_methods_stay_with_their_quantity() -> None:
    model = MODELS["deepseek-v3"]
    refused(lambda: model.cache_bytes(context=1, method="6nd"), "6nd belongs to training_flops", "2lhd")
    refused(lambda: model.training_flops(context=1, method="2lhd"), "2lhd belongs to cache_bytes", "6nd")
    refused(lambda: model.training_flops.check(context=1, method="2lhd"), "belongs to cache_bytes")
    refused(lambda: model.cache_bytes.parts["moe"](context=1, method="6nd"), "belongs to training_flops")
    refused(lambda: model.cache_bytes(context=1, method="2lh"), "method", "2lhd")
    refused(lambda: model.flops(context=1, method="2lhd"), "method")
    refused(lambda: model.cache_bytes(context=1, method="2lhd", view="engine"), "engine view")
    refused(lambda: model.cache_bytes.having(method="2lhd")(context=1, mtp=1), "mtp")
    refused(lambda: model.cache_bytes(context=1, method="2lhd", precision="fp8_ds_mla"), "fp8_ds_mla")


def test_without_attention_the_usual_formula_says_nothing() -> None:
    hybrid = MODELS["qwen3-next-80b-a3b"]
    layers = tuple(group for group in hybrid.layers if group.name == "deltanet")
    recurrent = hybrid.model_copy(update={"layers": layers, "pattern": (), "name": "recurrent"})
    refused(lambda: recurrent.cache_bytes(context=1, method="2lhd"), "recurrent has no attention layer", "exact")
    refused(lambda: cm.family("gated_deltanet").cache_bytes(S=1, method="2lhd"), "no attention")
    refused(lambda: cm.family("mlp").cache_bytes(S=1, method="2lhd"), "no attention")


def test_what_keeps_tokens_has_heads() -> None:
    """A family of attention that forgot its heads would be taken for a recurrence."""
    for family in FAMILIES.values():
        if issubclass(family, Mixer):
            mixer = family.symbolic()
            assert any(kept.per_token for kept in mixer.kept()) == (mixer.usual_heads is not None)
