"""Bad input: each is refused at once with one CostModelError line that names what came; through the CLI, with status 2."""

from __future__ import annotations

import copy
import os
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import costmodel as cm
from costmodel.catalog import MAX_FILE_BYTES, bundled, parse, validate
from costmodel.cli import main
from costmodel.importers import MAX_CONFIG_BYTES
from costmodel.units import parse_tokens, whole

HUGE = 10**5000
NAN, INF = float("nan"), float("inf")
GPT2 = (bundled("presets") / "architectures" / "gpt2.toml").read_text()
PRESETS: dict[str, dict[str, Any]] = {
    name: tomllib.loads((bundled("presets") / "architectures" / f"{name}.toml").read_text()) for name in cm.presets()
}
MODELS = {name: cm.load(name) for name in ("gpt2", "deepseek-v3", "gemma-3-27b", "qwen3-next-80b-a3b")}


def kind_of(value: object) -> str:
    """A test's name; an integer of 5,000 digits is none."""
    return value[:20] if isinstance(value, str) else type(value).__name__


def refused(call: Callable[[], object], *parts: str, kind: type[cm.CostModelError] = cm.CostModelError) -> str:
    """The error's line, which holds `parts`."""
    start = time.process_time()
    with pytest.raises(kind) as raised:
        call()
    assert time.process_time() - start < 1
    return checked(str(raised.value), *parts)


def checked(line: str, *parts: str) -> str:
    assert line
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 400
    for part in parts:
        assert part in line
    return line


def command_refuses(capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith("error: ")
    checked(err.removesuffix("\n"))


def changed(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """A preset's data with values put in by dotted path; `...` deletes."""
    data = copy.deepcopy(PRESETS[name])
    for path, value in changes.items():
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        place: Any = data
        for step in steps:
            place = place[step]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return data


# names


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("deepsek-v3", "deepseek-v3"), ("DeepSek-V3", "deepseek-v3"), ("llama-3.1-8C", "llama-3.1-8b"), ("gpt-2", "gpt2"),
     ("qwen3-8", "qwen3-8b"), ("mixtral", "mixtral-8x7b"), ("gpt2-larg", "gpt2-large")],
)  # fmt: skip
def test_unknown_names_suggest_the_nearest(asked: str, meant: str) -> None:
    refused(lambda: cm.load(asked), repr(asked), f"did you mean {meant}?")


def test_names_are_found_in_any_case() -> None:
    assert cm.load("DeepSeek-V3") is cm.load("deepseek-v3")
    assert cm.accelerator("H200") is cm.accelerator("h200")
    assert cm.Precision(weights="float16", cache="BFloat16") == cm.Precision(weights="fp16", cache="bf16")


@pytest.mark.parametrize("name", ["gpt-5", "GPT-5", "gpt-4o", "claude-opus", "gemini-3", "grok-4"])
def test_closed_models_have_no_published_architecture(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(lambda: cm.load(name), "no architecture is published", repr(name), "the nearest open model is")
    command_refuses(capsys, "show", name)


def test_the_nearest_open_models_are_there_and_none_of_ours_counts_as_closed() -> None:
    closed = tomllib.loads((Path(__file__).parents[1] / "presets" / "closed.toml").read_text())["closed"]
    assert {row["nearest"] for row in closed} <= set(cm.presets())
    assert [name for name in cm.presets() for row in closed if name.startswith(tuple(row["begins"]))] == []


def test_other_names_suggest_too() -> None:
    cache = MODELS["gpt2"].cache_bytes
    refused(lambda: cm.family("gqaa"), "'gqaa'", "did you mean gqa?")
    refused(lambda: cm.family("mla", kv_lora_rnk=True), "kv_lora_rnk", "did you mean kv_lora_rank?")
    refused(lambda: cache(contxt=1), "contxt", "did you mean context?")
    refused(lambda: cache(context=1, precison="fp8"), "precison", "did you mean precision?")
    refused(lambda: cache(context=1, precision="bf61"), "bf61", "did you mean bf16?")
    refused(lambda: cache.derivative("contxt"), "contxt", "did you mean context?")
    refused(lambda: cm.Precision(wieghts="bf16"), "wieghts", "did you mean weights?")
    refused(lambda: cm.report("gpt2", "jsn"), "jsn", "did you mean json?")
    refused(lambda: MODELS["gpt2"].params.formula("totl"), "totl", "did you mean total?")


# fields of an architecture


L0 = "layers.0"
FIELDS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("gpt2", {"hiden_size": 768}, ("hiden_size", "unknown field", "did you mean hidden_size?")),
    ("gpt2", {f"{L0}.mixer.heads": 1}, ("layers.0.mixer", "heads", "unknown field")),
    ("gpt2", {"hidden_size": ...}, ("hidden_size", "missing")),
    ("gpt2", {f"{L0}.count": ...}, ("layers.0.count", "missing")),
    ("gpt2", {f"{L0}.mixer.kind": ...}, ("layers.0.mixer",)),
    ("gpt2", {"layers": ...}, ("layers", "missing")),
    ("gpt2", {"layers": []}, ("layers", "at least 1")),
    ("gpt2", {"layers": {}}, ("layers",)),
    ("gpt2", {"layers": "dense"}, ("layers", "'dense'")),
    ("gpt2", {f"{L0}.mixer": ..., f"{L0}.feed_forward": ...}, ("dense", "neither mixer nor feed_forward")),
    *(("gpt2", {"hidden_size": value}, ("hidden_size", "got")) for value in (True, 3.5, 768.0, "3", "", None, [], {}, NAN, INF)),
    *(("gpt2", {"hidden_size": value}, ("hidden_size", "got")) for value in (0, -1, 10**9 + 1, 10**30, HUGE, -HUGE)),
    *(("gpt2", {f"{L0}.count": value}, ("count", "got")) for value in (0, -1, True, 1.0, "12", 10**30, HUGE)),
    *(("gpt2", {"tie_word_embeddings": value}, ("tie_word_embeddings", "got")) for value in (1, 0, "true", None, [])),
    *(("gpt2", {f"{L0}.mixer.{name}": 0}, (name, "got 0")) for name in ("num_attention_heads", "head_dim", "sliding_window")),
    ("gpt2", {f"{L0}.mixer.num_key_value_heads": 5}, ("num_key_value_heads", "5", "12")),
    ("gpt2", {f"{L0}.mixer.num_key_value_heads": 24}, ("num_key_value_heads", "24", "12")),
    ("gpt2", {f"{L0}.feed_forward.activation": "swiglu"}, ("activation", "'swiglu'", "silu")),
    ("gpt2", {"norm.kind": "batchnorm"}, ("norm.kind", "'batchnorm'", "layernorm")),
    ("gpt2", {"name": "GPT 2"}, ("name", "'GPT 2'")),
    ("gpt2", {"name": "../../etc/passwd"}, ("name", "'../../etc/passwd'")),
    ("gpt2", {"name": "a" * 100_000}, ("name", "...'")),
    ("gpt2", {"title": ""}, ("title", "''")),
    ("gpt2", {"title": "x" * 10_001}, ("title", "10000")),
    ("gpt2", {"title": 5}, ("title", "got 5")),
    ("gpt2", {"released": "yesterday"}, ("released", "'yesterday'")),
    ("gpt2", {"released": time}, ("released", "module")),
    ("gpt2", {f"{L0}.name": "head"}, ("head", "taken")),
    ("gpt2", {"mtp": {"modules": 1, "layer": "moe"}}, ("mtp.layer", "moe")),
    ("gpt2", {"pattern": ["dense", "sparse"]}, ("pattern", "sparse", "no layer group")),
    ("gpt2", {"pattern": "dense"}, ("pattern", "'dense'")),
    ("deepseek-v3", {"layers.1.name": "dense"}, ("dense", "taken")),
    ("deepseek-v3", {"pattern": ["dense", "moe"]}, ("pattern", "dense", "3")),
    ("deepseek-v3", {"mtp.layer": "mo"}, ("mtp.layer", "did you mean moe?")),
    ("deepseek-v3", {"mtp.modules": 0}, ("mtp.modules", "got 0")),
    ("deepseek-v3", {"layers.1.feed_forward.num_experts_per_tok": 257}, ("num_experts_per_tok 257", "256")),
    ("deepseek-v3", {"layers.1.count": 9_999}, ("10002 layers", "10000")),
    ("gemma-3-27b", {"vision.patch_size": 13}, ("patch_size 13", "divide")),
    ("gemma-3-27b", {"vision.tokens_per_image": 10**6}, ("tokens_per_image", "exceeds")),
    ("gpt2", {"reference.0.quantity": "params.totl"}, ("params.totl", "did you mean total?")),
    ("gpt2", {"reference.0.quantity": "cash_bytes"}, ("cash_bytes", "did you mean cache_bytes?")),
    ("gpt2", {"reference.0.tolerance": 0.6}, ("tolerance", "0.6")),
    ("gpt2", {"reference.0.value": NAN}, ("reference.0.value", "nan")),
    ("gpt2", {"a\nb\x1b[31m\u202e": 1}, ("a\\nb", "unknown field")),
    ("gpt2", {"k" * 100_000: 1}, ("kkk", "unknown field")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "parts"), FIELDS)
def test_impossible_fields(name: str, changes: dict[str, Any], parts: tuple[str, ...]) -> None:
    refused(lambda: validate(changed(name, changes), "mine.toml"), "mine.toml: ", *parts)


@pytest.mark.parametrize("kind", ["hyena", "", "x" * 100_000, "a\n\x1b[31m\u202e", 5, HUGE, True, [], {"gqa": 1}], ids=kind_of)
@pytest.mark.parametrize("place", ["layers.0.mixer", "layers.0.feed_forward", "vision.mixer", "vision.feed_forward"])
def test_unknown_kinds_are_unsupported(kind: object, place: str) -> None:
    data = changed("gemma-3-27b", {f"{place}.kind": kind})
    refused(lambda: validate(data, "mine.toml"), "mine.toml: ", "is modelled", kind=cm.UnsupportedArchitecture)


@pytest.mark.parametrize("data", [None, True, 5, "x", [], [1], 1.5])
def test_data_that_is_no_table(data: Any) -> None:
    refused(lambda: validate(data, "mine.toml"), "mine.toml: got")


@pytest.mark.parametrize(
    ("field", "value"),
    [("value", 0), ("value", -1), ("value", True), ("value", "5"), ("value", 5e-324), ("value", 10**4000), ("tolerance", "0.1")],
    ids=kind_of,
)
def test_reference_values_are_positive_numbers(field: str, value: object) -> None:
    refused(lambda: validate(changed("gpt2", {f"reference.0.{field}": value}), "mine.toml"), field)


# files


def toml(**values: str) -> str:
    """GPT-2's file with values as TOML text."""
    text = GPT2
    for name, value in values.items():
        line = next(line for line in GPT2.splitlines() if line.startswith(f"{name} ="))
        text = text.replace(line, f"{name} = {value}")
    return text


FILES: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "empty": ("", ("missing",)),
    "cut.toml": (GPT2[:200], ("no valid TOML",)),
    "cut2.toml": (GPT2[: GPT2.index("768") - 2], ("no valid TOML",)),
    "big.toml": ("#" * (2 * MAX_FILE_BYTES), ("524,288 bytes", "at most")),
    "keys.toml": ("\n".join(f"k{place} = 1" for place in range(20_000)), ("unknown field", "more")),
    "brackets.toml": ("a = " + "[" * 10_000 + "]" * 10_000, ("nested too deeply",)),
    "tables.toml": ("a = " + "{a = " * 10_000 + "1" + "}" * 10_000, ("nested too deeply",)),
    "dots.toml": ("a" + ".a" * 100_000 + " = 1", ("300 dots",)),
    "header.toml": ("[" + "a." * 10_000 + "a]\nb = 1", ("300 dots",)),
    "fewer dots.toml": ("\n".join(f"a{place}" + ".a" * 300 + " = 1" for place in range(100)), ("unknown field",)),
    "deep.toml": (toml(hidden_size="[" * 100 + "]" * 100), ("hidden_size", "a list")),
    "binary.toml": (bytes(range(256)) * 4, ("not UTF-8",)),
    "utf16.toml": (GPT2.encode("utf-16"), ("not UTF-8",)),
    "latin.toml": (b'title = "\xe9"', ("not UTF-8",)),
    "nul.toml": ("a\0b = 1", ("no valid TOML",)),
    "nuls.toml": (b"\0" * 1000, ("no valid TOML",)),
    "escape.toml": ("\x1b[31m = 1", ("no valid TOML",)),
    "twice.toml": ("name = 1\nname = 2", ("no valid TOML",)),
    "yaml.toml": ("name: gpt2\n", ("no valid TOML",)),
    "config.json": ("{}", ("config.json", "model_type is missing")),
    "binary.json": (bytes(range(256)) * 4, ("not UTF-8",)),
    "utf16.json": ('{"model_type": "gpt2"}'.encode("utf-16"), ("not UTF-8",)),
    "big.json": (" " * (MAX_CONFIG_BYTES + 1), ("1,048,577 bytes", "at most")),
    "brackets.json": ("[" * 100_000, ("nested too deeply",)),
    "toml.json": (GPT2, ("no valid JSON",)),
    "CONFIG.JSON": ('{"model_type": "hyena"}', ("'hyena'",)),
    "nan.toml": (toml(hidden_size="nan"), ("hidden_size", "nan")),
    "inf.toml": (toml(hidden_size="-inf"), ("hidden_size", "inf")),
    "float.toml": (toml(hidden_size="768.0"), ("hidden_size", "768.0")),
    "true.toml": (toml(hidden_size="true"), ("hidden_size", "True")),
    "text.toml": (toml(hidden_size='"768"'), ("hidden_size", "'768'")),
    "digits.toml": (toml(hidden_size="9" * 5000), ("digits",)),
    "fewer digits.toml": (toml(hidden_size="9" * 4000), ("hidden_size", "bits")),
    "hex.toml": (toml(hidden_size="0x" + "f" * 100_000), ("hidden_size", "bits")),
    "time.toml": (toml(released="07:32:00"), ("released", "time")),
    "kind.toml": (GPT2.replace('kind = "gqa"', 'kind = "rwkv6"'), ("rwkv6", "is modelled")),
    "a\nb\x1b[31m\u202e.toml": ("", ("missing",)),
    "n" * 250: ("", ("missing",)),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    content, parts = FILES[name]
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(lambda: cm.load(file), *parts)
    refused(lambda: cm.load(str(file)), *parts)
    command_refuses(capsys, "show", str(file))


def test_places_that_hold_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.toml")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    places = [
        "pipe.toml",
        "./loop",
        "folder",
        ".",
        "/",
        "/dev/zero",
        "/dev/null",
        "missing.toml",
        "missing/x",
        "~/x.toml",
        "",
        " ",
        "-",
    ]
    for place in [
        *places,
        "a\0b",
        "a\0.toml",
        "n" * 300,
        "n" * 10**6,
        "/" + "n" * 300,
        "n/" * 3000,
        "\udcff",
        "\ud800.toml",
        "\u202ex.toml",
    ]:
        refused(lambda place=place: cm.load(place))  # type: ignore[misc]
        command_refuses(capsys, "show", "--", place)


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"gpt2"


@pytest.mark.parametrize("source", [None, True, 5, 1.5, HUGE, [], {}, b"gpt2", object(), BytesPath(), np.array([1])], ids=kind_of)
def test_load_takes_names_and_paths(source: Any) -> None:
    refused(lambda: cm.load(source), "load got", "give a preset name, a TOML file, a config.json or a GGUF file")
    refused(lambda: cm.report(source), "report got no model" if isinstance(source, list) else "load got")
    refused(lambda: cm.compare([source]), "load got")
    refused(lambda: cm.diff("gpt2", source), "load got")


def test_windows_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "gpt2"
    file.write_bytes(b"\xef\xbb\xbf" + GPT2.replace("\n", "\r\n").encode())
    assert cm.load(file) == cm.load("gpt2")


# numbers


NUMBERS: list[Any] = [
    True, False, np.bool_(True), None, "", "4096", b"1", NAN, INF, -INF, -1, 0, 0.0, 0.5, 1.5, -5.0, 10**12 + 1, 10**13, 1e300,
    HUGE, -HUGE, 1 + 2j, {}, {1}, object(), np.float64("nan"), np.float32(1.5), np.int8(-1), np.datetime64("2020"), iter([1]),
]  # fmt: skip
ARRAYS: list[Any] = [
    np.array([1.0, np.nan]), np.array([np.inf]), np.array([1.5, 2]), np.array([0, 2]), np.array([-1]), np.array([10**13]),
    np.array([2**63], dtype=np.uint64), np.array([1, 2], dtype=object), np.array(["1"]), np.array([True]), np.array([1j]),
    np.array("x"), [1, "a"], [[1, 2], [3]], [None], [10**400], ["1"], [NAN], (0,),
]  # fmt: skip


@pytest.mark.parametrize("value", [*NUMBERS, *ARRAYS], ids=kind_of)
def test_lengths_and_batches(value: Any) -> None:
    model = MODELS["deepseek-v3"]
    refused(lambda: model.cache_bytes(context=value), "context got")
    refused(lambda: model.cache_bytes(S=value), "context got")
    refused(lambda: model.decode_flops(context=4096, batch=value), "batch got")
    refused(lambda: model.flops(context=4096, new_tokens=value), "new_tokens got")
    refused(lambda: cm.family("mla").cache_bytes(context=1, kv_lora_rank=value, qk_rope_head_dim=64), "kv_lora_rank got")


@pytest.mark.parametrize("value", [*NUMBERS, *ARRAYS, [1, 2], np.array([1, 2]), range(1, 3)], ids=kind_of)
def test_reports_take_one_number(value: Any) -> None:
    refused(lambda: cm.report("gpt2", context=value), "context got")
    refused(lambda: cm.report("gpt2", batch=value), "batch got")
    refused(lambda: whole("batch", value), "batch got")
    refused(lambda: cm.crossover(MODELS["gemma-3-27b"].cache_bytes, MODELS["gpt2"].cache_bytes, batch=value), "batch got")
    refused(lambda: cm.crossover(MODELS["gemma-3-27b"].cache_bytes, MODELS["gpt2"].cache_bytes, upto=value), "upto got")


@pytest.mark.parametrize("value", [[1, 2], range(1, 3), np.array([4, 5])], ids=["list", "range", "array"])
@pytest.mark.parametrize(
    "call",
    [
        lambda value: cm.compare(["gpt2"], context=value),
        lambda value: cm.diff("gpt2", "llama-3.1-8b", context=value),
        lambda value: MODELS["gpt2"].ledger(new_tokens=1, context=value),
    ],
    ids=["compare", "diff", "ledger"],
)
def test_tables_take_one_number(call: Callable[[Any], object], value: Any) -> None:
    refused(lambda: call(value), "context got")


def test_small_integers_do_not_overflow() -> None:
    context, batch = np.int8(100), np.int8(100)
    plain, small = cm.compare(["gpt2"], 100, 100), cm.compare(["gpt2"], context, batch)  # type: ignore[arg-type]
    assert plain.equals(small)
    assert MODELS["gpt2"].ledger(1, np.int8(100)).equals(MODELS["gpt2"].ledger(1, 100))  # type: ignore[arg-type]


def test_order_of_lengths() -> None:
    model = MODELS["gpt2"]
    refused(lambda: model.flops(new_tokens=5, context=4), "new_tokens 5", "context 4")
    refused(lambda: model.flops(new_tokens=np.array([1, 5]), context=4), "new_tokens 5", "context 4")
    refused(lambda: model.bytes_moved(new_tokens=2, context=[4, 1]), "new_tokens 2", "context 1")
    refused(lambda: model.ledger(new_tokens=2, context=1), "new_tokens 2", "context 1")


def test_letters() -> None:
    cache, params = MODELS["gpt2"].cache_bytes, MODELS["gpt2"].params
    refused(cache, "needs context", "give context=")
    refused(lambda: cache(batch=2), "needs context")
    refused(lambda: cache(context=1, S=1), "context is given twice")
    refused(lambda: cache(context=1, new_tokens=1), "new_tokens", "known: batch, context")
    refused(lambda: cache(context=1, **{"a\nb\x1b": 1}), "a\\nb")
    refused(lambda: cache(context=1, hidden_size=5), "hidden_size")
    refused(lambda: params.formula("total")(context=1), "context", "it takes none")
    refused(lambda: params.formula("total").derivative("context"), "context", "constant")
    refused(lambda: cm.family("mla").cache_bytes(context=1), "needs kv_lora_rank")
    refused(lambda: cm.family("mqa").cache_bytes(context=1, n_h=8), "needs head_dim")


# options


BAD_OPTIONS: list[tuple[str, str, dict[str, Any]]] = [
    *(("gpt2", "cache_bytes", {"view": value}) for value in ("Engine", "", None, 5, [])),
    *(("gpt2", "cache_bytes", {"view": "engine", "block": value}) for value in (0, -1, 1.0, True, "16", None, HUGE, 65_537)),
    *(("gpt2", "cache_bytes", {"view": "engine", "tp": value}) for value in (0, True, 2.0, HUGE)),
    *(("gpt2", "cache_bytes", {"view": "engine", "evict_windows": value}) for value in (1, "yes", None)),
    *(("gpt2", "cache_bytes", {"view": "engine", "speculative": value}) for value in (-1, 65, True)),
    *(("gpt2", "cache_bytes", {name: value}) for name, value in
      {"block": 32, "evict_windows": True, "tp": 2, "speculative": 1, "hybrid_pages": True}.items()),
    *(("gpt2", "cache_bytes", {"precision": value}) for value in ("", "fp7", "int4", "mxfp4", "x" * 10**5)),
    *(("gpt2", "weight_bytes", {"precision": value}) for value in ("", "fp8_ds_mla", "bf16 ")),
    *(("gpt2", "flops", {"attention": value}) for value in ("sliding", None, True)),
    *(("gpt2", "flops", {"logits": value}) for value in ("first", 1)),
    *(("gpt2", "flops", {"algorithm": value}) for value in ("flash", "absorbd", 5, None)),
    *(("gpt2", "flops", {"images": value}) for value in (1, -1, True, HUGE)),
    *(("gpt2", "flops", {"mtp": value}) for value in (1, -1, True, 1.0)),
    ("deepseek-v3", "flops", {"mtp": 2}),
    ("deepseek-v3", "cache_bytes", {"mtp": 2}),
    ("deepseek-v3", "cache_bytes", {"attention": "full"}),
    ("gpt2", "decode_flops", {"images": 1}),
    ("gpt2", "weight_bytes", {"view": "engine"}),
    *(("gpt2", "training_flops", {"recompute": value}) for value in ("some", True, None)),
    ("gpt2", "training_flops", {"method": "6ND"}),
    ("gpt2", "training_flops", {"algorithm": "auto"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "quantity", "options"), BAD_OPTIONS, ids=kind_of)
def test_impossible_options(name: str, quantity: str, options: dict[str, Any]) -> None:
    formula = getattr(MODELS[name], quantity)
    inputs = {} if quantity == "weight_bytes" else {"context": 128}
    told = {"images": "images", "mtp": "mtp", "precision": "cannot be stored"}
    line = refused(lambda: formula(**inputs, **options))
    assert any(told.get(option, option) in line for option in options)


@pytest.mark.parametrize("value", [0, -1, 17, True, NAN, INF, HUGE, "", "fp7", None, [], np.array([1, 2])], ids=kind_of)
def test_impossible_precisions(value: Any) -> None:
    for role in ("weights", "experts", "embeddings", "others", "cache", "activations"):
        refused(lambda role=role: cm.Precision(**{role: value}), role)  # type: ignore[misc]
    refused(lambda: cm.Precision.named(value), "weights")


# families, crossings, files


@pytest.mark.parametrize("name", [None, True, 5, HUGE, "", "x" * 10**5, "a\n\x1b\u202e", [], b"mla", np.array([1])], ids=kind_of)
def test_impossible_families(name: Any) -> None:
    refused(lambda: cm.family(name), "no family")


def test_impossible_features() -> None:
    for value in (5, -1, "yes", "", [], NAN, HUGE):
        refused(lambda value=value: cm.family("gqa", sliding_window=value), "sliding_window got")  # type: ignore[misc]
    refused(lambda: cm.family("gqa", qk_norm="both"), "qk_norm got 'both'")
    refused(lambda: cm.family("mlp", activation="swish"), "activation got 'swish'", "silu")
    refused(lambda: cm.family("mla", sliding_window=True), "no feature 'sliding_window'")
    refused(lambda: cm.family("gqa", kind="mla"), "kind")


def test_impossible_crossings() -> None:
    windowed, plain = MODELS["gemma-3-27b"].cache_bytes, MODELS["gpt2"].cache_bytes
    for value in (None, True, 5, "cache_bytes", [], MODELS["gpt2"]):
        refused(lambda value=value: cm.crossover(value, plain), "crossover got")  # type: ignore[misc]
        refused(lambda value=value: cm.crossover(plain, value), "crossover got")  # type: ignore[misc]
    refused(lambda: cm.crossover(windowed, MODELS["gpt2"].decode_flops), "bytes", "FLOP", "one unit")
    for over in ("contxt", "new_tokens", "", None, 5, [], {}, "a\n\x1b", HUGE):
        refused(lambda over=over: cm.crossover(windowed, plain, over=over), "depends on")  # type: ignore[misc]
    refused(lambda: cm.crossover(plain, plain), "equal everywhere")
    refused(lambda: cm.crossover(windowed, plain, precision="fp8"), "precision", "having")
    refused(lambda: cm.crossover(windowed, plain, bogus=1), "bogus")
    refused(lambda: cm.crossover(windowed, plain, context=1), "context", "solves for")
    refused(lambda: cm.crossover(windowed, plain, batch=1, B=1), "batch is given twice")
    refused(lambda: cm.crossover(windowed, plain, over="batch"), "needs context")
    weights = MODELS["gpt2"].weight_bytes, MODELS["deepseek-v3"].weight_bytes
    refused(lambda: cm.crossover(*weights), "depends on 'context'", "constants")


@pytest.mark.parametrize(
    "path", [5, True, None.__class__, [], {}, object(), 1.5, "nul\0", "\ud800", "", ".", "/", "/dev/null", "/nowhere/report.md"]
)
def test_reports_to_impossible_places(path: Any) -> None:
    refused(lambda: cm.report("gpt2", path=path))
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("form", [None, True, 5, HUGE, "", "doc", "MD", [], np.array([1, 2])], ids=kind_of)
def test_impossible_report_formats(form: Any) -> None:
    refused(lambda: cm.report("gpt2", form), "no report format")


@pytest.mark.parametrize("models", [None, 5, True, 1.5])
def test_compare_takes_a_sequence(models: Any) -> None:
    refused(lambda: cm.compare(models))


@pytest.mark.parametrize("name", [[], {}, np.array([1, 2])])
def test_names_that_are_no_text(name: Any) -> None:
    refused(lambda: MODELS["gpt2"].cache_bytes.derivative(name))
    refused(lambda: MODELS["gpt2"].params.formula(name))


@pytest.mark.parametrize("case", [("precision", b"bf16", ""), ("precision", 5, "fp8"), ("algorithm", "", "")])
def test_options_are_told_in_our_words(case: tuple[str, Any, str]) -> None:
    name, value, part = case
    quantity = MODELS["deepseek-v3"].cache_bytes if name == "precision" else MODELS["deepseek-v3"].flops
    assert ".str" not in refused(lambda: quantity(context=1, **{name: value}), part)


def test_blocks_built_in_python() -> None:
    refused(lambda: cm.GQA(num_attention_heads=12, num_key_value_heads=5, head_dim=64), "num_key_value_heads")
    refused(lambda: cm.LayerGroup(name="x", count=0), "count")


# sizes and anything at all


@pytest.mark.parametrize(
    "text",
    ["", " ", "0", "-1", "+5", "1.5", "0.0001k", "k", "1e5", "1_", "_1", "1,,2", "1__0", ",1", "128kk", "128 kb", "0x10", "nan",
     "\u0661", "\uff11", "1\x00", "9" * 64, "9" * 10**6, "1\n2", None, True, 5, [], b"128k", NAN],
)  # fmt: skip
def test_impossible_sizes(text: Any) -> None:
    refused(lambda: parse_tokens(text), "is no length", "128k")


@given(st.one_of(st.text(max_size=80), st.from_regex(r"[0-9_,.kKmMi ]{1,12}", fullmatch=True)))
@settings(max_examples=200)
def test_any_text_is_a_length_or_refused(text: str) -> None:
    try:
        assert parse_tokens(text) >= 1
    except cm.CostModelError as error:
        checked(str(error))


@given(st.text(max_size=300))
@settings(max_examples=150)
def test_any_name_is_refused(text: str) -> None:
    try:
        assert cm.load(text).name == text
    except cm.CostModelError as error:
        checked(str(error))


@given(st.text(max_size=60), st.integers(0, len(GPT2)), st.integers(0, 60))
@settings(max_examples=150)
def test_any_change_to_a_file_is_read_or_refused(text: str, place: int, cut: int) -> None:
    try:
        assert isinstance(parse(GPT2[:place] + text + GPT2[place + cut :], text), cm.Architecture)
    except cm.CostModelError as error:
        checked(str(error))


ODD = ["gqa", "mla", "mlp", "moe", "none", "dense", "head", "silu", 10**4000, 10**9, "x" * 10_000, "\u202e\x1b\n", object()]
NUMERIC = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(-3, 20), st.floats())
SCALARS = st.one_of(NUMERIC, st.text(max_size=20), st.dates(), st.binary(max_size=5), st.sampled_from(ODD))
KEYS = st.text(max_size=12) | st.sampled_from(["kind", "name", "mixer", "vision", "mtp", "pattern"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=5)


def containers(data: Any) -> list[Any]:
    """Every dict and list in the data."""
    inner = list(data.values()) if isinstance(data, dict) else data if isinstance(data, list) else []
    return ([data] if isinstance(data, (dict, list)) else []) + [found for item in inner for found in containers(item)]


@given(st.data())
@settings(max_examples=300)
def test_any_change_to_a_preset_is_an_architecture_or_refused(draw: st.DataObject) -> None:
    data = copy.deepcopy(PRESETS[draw.draw(st.sampled_from(sorted(PRESETS)))])
    for _ in range(draw.draw(st.integers(1, 3))):
        place = draw.draw(st.sampled_from(containers(data)))
        keys = sorted(place) if isinstance(place, dict) and all(isinstance(key, str) for key in place) else list(range(len(place)))
        action = draw.draw(st.sampled_from(["delete", "replace", "insert"]))
        if action == "insert":
            value = draw.draw(VALUES)
            if isinstance(place, dict):
                place[draw.draw(KEYS)] = value
            else:
                place.insert(draw.draw(st.integers(0, len(place))), value)
        elif keys:
            key = draw.draw(st.sampled_from(keys))
            if action == "delete":
                del place[key]
            else:
                place[key] = draw.draw(VALUES)
    try:
        assert validate(data, "mine.toml").params.total > 0
    except cm.CostModelError as error:
        checked(str(error))
