"""The dashboard, page by page: no exception, and the library's numbers to the digit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import costmodel as cm
from costmodel.answers.anatomy import layer_runs, part_rows
from costmodel.answers.intensity import pass_rows
from costmodel.answers.landscape import touched_rows
from costmodel.answers.offers import cost_rows, offer, python_line
from costmodel.answers.promises import cost_sentence, held_line, serve_sentence, tornado_sentence
from costmodel.answers.sentences import cache_sentence, calibration_sentence, roofline_sentence, usual_lines, verdict
from costmodel.calibration.store import read_calibration
from costmodel.catalog import as_toml, bundled, calibration_file
from costmodel.comparison import DIFFERENCES, diff_rows
from costmodel.scenario import FLAGSHIPS, LONGEST, YARDSTICK, Scenario
from costmodel.timing.estimating import time_pass
from costmodel.units import binary_bytes, decimal_bytes, flop, quantity

pytest.importorskip("streamlit")
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from costmodel.ui import PAGES

HERE = Path(__file__).parent
MARKS = {
    "explore": "metric", "landscape": "selectbox:height", "compare": "selectbox:other", "anatomy": "selectbox:quantity",
    "moe": "toggle:table_active", "roofline": "toggle:table_roofline", "serve": "selectbox:model",
    "cost": "toggle:every_accelerator", "calibration": "selectbox:calibration",
    "what-if": "multiselect:edit", "formulas": "latex", "report": "selectbox:model",
}  # fmt: skip
"""What only that page shows."""


def opened(page: str = "explore", **query: str | list[str]) -> Any:
    """A page of the dashboard at a link, after its first run. Pages are found by the hash of their address."""
    app = AppTest.from_file(str(bundled("app.py")), default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app._page_hash = calc_hash(page)
    return run(app)


def run(app: Any) -> Any:
    app.run()
    assert not app.exception, app.exception
    return app


def words(app: Any) -> str:
    return "\n".join(element.value for element in (*app.markdown, *app.caption)).replace("\\", "")


def tables(app: Any) -> list[Any]:
    return [frame.value for frame in app.dataframe]


def cells(app: Any, place: int) -> dict[str, dict[str, str]]:
    return tables(app)[place].set_index("quantity").to_dict("index")  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("page", "name"),
    [(path, name) for path, *_ in PAGES for name in cm.presets() if path != "calibration" or name == "gpt2"],  # of no model
)
def test_every_page_with_every_preset(page: str, name: str) -> None:
    app = opened(page, models=name)
    assert not app.error
    assert not app.warning
    kind, _, key = MARKS[page].partition(":")
    shown = app.get(kind) if not key else [found for found in app.get(kind) if found.key == key]
    assert shown, f"{page} is not what is shown"
    assert verdict([cm.load(name)], Scenario(models=(name,)), cm.accelerator("h200")) in words(app)


@pytest.mark.parametrize("page", [path for path, *_ in PAGES])
def test_no_model_is_an_invitation(page: str) -> None:
    app = opened(page)
    app.multiselect(key="models").set_value([])
    run(app)
    assert "Choose one to four models" in words(app)


def test_first_screen() -> None:
    app = opened()
    models = [cm.load(name) for name in FLAGSHIPS]
    assert app.multiselect(key="models").value == list(FLAGSHIPS)
    assert [metric.value for metric in app.metric] == [binary_bytes(model.cache_bytes(context=131_072)) for model in models]
    assert cache_sentence(models, Scenario(), cm.load(YARDSTICK)) in words(app)
    assert usual_lines(models, Scenario()) in words(app)
    assert cells(app, 1)["params_total"]["deepseek-v3"] == "671 B"


CHANGES = [
    ("context", "select_slider", 4_096, {"context": 4_096}),
    ("context", "select_slider", 3 << 18, {"context": 3 << 18}),
    ("batch", "number_input", 7, {"batch": 7}),
    ("cache", "selectbox", "fp8", {"cache": "fp8"}),
    ("view", "radio", "engine", {"view": "engine"}),
    ("units", "radio", "GB", {"units": "GB"}),
    ("models", "multiselect", ["gpt2", "mixtral-8x7b"], {"models": ("gpt2", "mixtral-8x7b")}),
    ("weights", "selectbox", "int4", {"weights": "int4"}),
    ("accelerator", "selectbox", "l4", {"accelerator": "l4"}),
    ("devices", "number_input", 3, {"devices": 3}),
]


@pytest.mark.parametrize(("key", "kind", "value", "said"), CHANGES, ids=[f"{key}={value}" for key, _, value, _ in CHANGES])
def test_a_changed_control_changes_its_numbers(key: str, kind: str, value: Any, said: dict[str, Any]) -> None:
    app = opened()
    before = ([metric.value for metric in app.metric], words(app), str(tables(app)))
    getattr(app, kind)(key=key).set_value(value)
    run(app)
    after = ([metric.value for metric in app.metric], words(app), str(tables(app)))
    assert before != after
    scenario = Scenario(**said)
    models = [cm.load(name) for name in scenario.models]
    shown = decimal_bytes if scenario.units == "GB" else binary_bytes
    assert after[0] == [shown(scenario.kept(model)(**scenario.at)) for model in models]
    assert verdict(models, scenario, cm.accelerator(scenario.accelerator)) in after[1]
    for model in models:
        assert cells(app, 0)["weight_bytes"][model.name] == shown(model.weight_bytes(precision=scenario.weights))
        assert cells(app, 0)["longest_context"][model.name].replace(",", "") == str(scenario.room(model).longest_context).lower()
        assert cells(app, 1)["cache_bytes"][model.name] == shown(model.cache_bytes(**scenario.at, precision=scenario.cache))


LINKS = [
    Scenario(),
    Scenario(models=("gpt2",), context=5_000, batch=3, view="engine", units="GB", accelerator="mi300x", devices=2, cache="int8"),
    Scenario(models=("kimi-k2", "qwen3-8b"), context=1, weights="q4_K", cache="fp32"),
    Scenario(models=(), context=10**6 + 1),
    Scenario(models=("gemma-3-27b",), context=10**12 - 1, batch=10**12, devices=100_000),
]


@pytest.mark.parametrize("scenario", LINKS, ids=range(len(LINKS)))
def test_a_link_opens_its_scenario(scenario: Scenario) -> None:
    app = opened(**scenario.query())
    assert not app.warning
    assert app.session_state["scenario"] == scenario
    for name in ("models", "context", "batch", "weights", "cache", "view", "accelerator", "devices", "units"):
        value = app.session_state[name]
        assert (tuple(value) if isinstance(value, list) else value) == getattr(scenario, name)


def test_a_hostile_link_is_told_and_harms_nothing() -> None:
    hostile = {
        "context": "<script>",
        "batch": "-1",
        "models": "no-such-model",
        "view": "x",
        "zzz": "1",
        "v": "99",
        "quantity": "__doc__",
    }
    for page, *_ in PAGES:
        app = opened(page, **hostile)
        assert len(app.warning) == len(hostile)
        assert app.multiselect(key="models").value == list(FLAGSHIPS)
    app = opened("what-if", models="gpt2", edit=["rubbish", "dense/count=<script>"])
    assert len(app.error) == 1


def test_the_landscape_places_by_what_is_chosen() -> None:
    app = opened("landscape")
    before = tables(app)[0]["cache bytes per token"].tolist()
    for height in ("decode_flops", "params_active", "cache_bytes_per_token"):
        for along in ("size", "date"):
            app.selectbox(key="height").set_value(height)
            app.radio(key="along").set_value(along)
            run(app)
    app.select_slider(key="context").set_value(2_048)
    run(app)
    assert tables(app)[0]["cache bytes per token"].tolist() != before
    assert set(tables(app)[0]["name"]) == set(cm.presets())


def test_the_walk_goes_where_it_is_sent() -> None:
    app = opened("compare", models=["llama-3.1-70b", "gemma-3-27b", "gpt2"])
    assert tables(app)[0]["change"].tolist()[0] == "llama-3.1-70b"
    assert tables(app)[0]["change"].tolist()[-1] == "gemma-3-27b"
    app.selectbox(key="other").set_value("gpt2")
    app.selectbox(key="to_cache").set_value("fp8")
    app.selectbox(key="quantity").set_value("prefill_flops")
    run(app)
    assert tables(app)[0]["change"].tolist()[-2:] == ["cache bf16 -> fp8", "gpt2"]
    assert tables(app)[0]["cache bytes"].tolist()[-1] == binary_bytes(cm.load("gpt2").cache_bytes(context=131_072, precision="fp8"))


@pytest.mark.parametrize("page", ["anatomy", "formulas"])
def test_each_quantity_of_a_model_is_taken_apart(page: str) -> None:
    app = opened(page, models=["gpt2", "deepseek-v3"], model="deepseek-v3")
    model = cm.load("deepseek-v3")
    for name in app.selectbox(key="quantity").options:
        app.selectbox(key="quantity").set_value(name)
        run(app)
        formula = Scenario().formula(model, name)
        value = formula(**Scenario().inputs(formula))
        if page == "formulas":
            assert f"= {value:,} {formula.unit}" in words(app)
            assert {code.value for code in app.code} >= {formula.latex, formula.python, formula.javascript}
        else:
            assert tables(app)[0]["formula"].tolist()[0] == str(formula.expr)
    app.selectbox(key="model").set_value("gpt2")
    run(app)


def test_charts_come_as_tables_too() -> None:
    app = opened(models="gemma-3-27b")
    plain = len(app.dataframe)
    app.toggle(key="table_cache").set_value(True)
    run(app)
    assert len(app.dataframe) == plain + 1
    rows = tables(app)[0]
    gemma = cm.load("gemma-3-27b")
    own = rows[rows["series"] == gemma.title]
    assert all(gemma.cache_bytes(context=int(x)) == y for x, y in zip(own["x"], own["y"], strict=True))


# What-if


def what_if(*edit: str, **query: Any) -> Any:
    return opened("what-if", models="gemma-3-27b", edit=list(edit), **query)


def test_a_link_carries_changes_and_they_can_be_undone() -> None:
    app = what_if("local/mixer/sliding_window=4096", "global/count=4")
    rows = tables(app)[-1].set_index("quantity")
    changed = cm.load("gemma-3-27b")
    assert rows["gemma-3-27b"]["cache_bytes"] == binary_bytes(changed.cache_bytes(context=131_072))
    assert rows["gemma-3-27b-changed"]["params_total"] != rows["gemma-3-27b"]["params_total"]
    app.multiselect(key="edit").set_value(["global/count=4"])
    run(app)
    assert app.number_input(key="what_if_gemma-3-27b/local/mixer/sliding_window").value == 1_024
    next(button for button in app.button if button.label == "Undo all changes").click()
    run(app)
    assert app.multiselect(key="edit").value == []


def test_fields_groups_and_parts_can_be_changed() -> None:
    app = what_if()
    key = "what_if_gemma-3-27b/"
    app.number_input(key=f"{key}local/mixer/num_key_value_heads").set_value(8)
    run(app)
    assert app.multiselect(key="edit").value == ["local/mixer/num_key_value_heads=8"]
    app.number_input(key=f"{key}local/mixer/num_key_value_heads").set_value(16)
    run(app)
    assert app.multiselect(key="edit").value == []
    app.number_input(key=f"{key}local/mixer/sliding_window").set_value(None)
    app.selectbox(key=f"{key}tie_word_embeddings").set_value(False)
    run(app)
    assert set(app.multiselect(key="edit").value) == {"local/mixer/sliding_window=none", "tie_word_embeddings=no"}
    app.selectbox(key=f"{key}local/mixer").set_value("deepseek-v3/dense")
    app.selectbox(key="what_if_add").set_value("mixtral-8x7b/moe")
    run(app)
    assert "window" in app.error[0].value  # latent attention has no window
    app.multiselect(key="edit").set_value(["local/mixer=deepseek-v3/dense", "added-1=mixtral-8x7b/moe"])
    run(app)
    assert not app.error
    assert app.number_input(key=f"{key}added-1/count").value == 32
    app.number_input(key=f"{key}local/mixer/kv_lora_rank").set_value(0)
    run(app)
    assert "kv_lora_rank" in app.error[0].value.replace("\\", "")


def test_a_changed_model_can_be_kept_and_compared() -> None:
    app = what_if("local/mixer/sliding_window=4096")
    next(button for button in app.button if button.label == "Keep as a model").click()
    run(app)
    assert app.multiselect(key="models").value == ["gemma-3-27b", "gemma-3-27b-changed-1"]
    assert app.multiselect(key="edit").value == []
    app._page_hash = calc_hash("explore")
    run(app)
    assert len(app.metric) == 2
    assert app.metric[0].value != app.metric[1].value


def uploaded(name: str, data: bytes) -> Any:
    app = what_if()
    app.file_uploader(key="upload").upload(name, data)
    return run(app)


def test_a_config_and_an_architecture_file_open_as_models() -> None:
    app = uploaded("config.json", (HERE / "configs" / "qwen3-8b.json").read_bytes())
    assert len(app.success) == 1
    name = app.multiselect(key="models").value[-1]
    assert app.session_state["own_models"][name].params.total == cm.load("qwen3-8b").params.total
    app = uploaded("mine.toml", as_toml(cm.load("mixtral-8x7b")).encode())
    assert app.multiselect(key="models").value[-1] == "my-mixtral-8x7b"
    app._page_hash = calc_hash("explore")
    run(app)
    assert app.metric[-1].value == binary_bytes(cm.load("mixtral-8x7b").cache_bytes(context=131_072))


BAD = {
    "empty.json": b"",
    "empty.toml": b"",
    "large.json": b" " * (50 << 20),
    "large.toml": b"#" * (50 << 20),
    "binary.json": bytes(range(256)) * 40,
    "binary.toml": bytes(range(256)) * 40,
    "deep.json": b"[" * 100_000,
    "deep.toml": b"a = " + b"[" * 100_000,
    "html.json": b'{"model_type": "<img src=x onerror=alert(1)>"}',
    "<img src=x onerror=alert(1)>.json": b'{"model_type": "llama"}',
    "../../etc/bomb.zip.json": b"PK\x03\x04" + b"\0" * 1_000,
    "other.json": b'{"model_type": "gpt_neox_of_nobody", "hidden_size": 64}',
    "list.json": b"[1, 2, 3]",
    "nan.json": b'{"model_type": "llama", "hidden_size": NaN}',
    "bidi.toml": 'name = "\u202egnp"'.encode(),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_and_the_session_lives_on(name: str) -> None:
    app = uploaded(name, BAD[name])
    assert len(app.error) == 1
    told = app.error[0].value
    assert "\n" not in told
    assert told.isprintable()
    assert len(told) < 600
    assert app.multiselect(key="models").value == ["gemma-3-27b"]
    app.number_input(key="batch").set_value(2)
    run(app)


def test_what_is_opened_stays_in_its_session() -> None:
    app = uploaded("mine.toml", as_toml(cm.load("gpt2").model_copy(update={"name": "secret"})).encode())
    assert "secret" in app.multiselect(key="models").options
    assert "secret" not in what_if().multiselect(key="models").options
    assert any("secret" in warning.value for warning in opened(models="secret").warning)


# every page under what links and people can do to it


@pytest.mark.parametrize("page", [path for path, *_ in PAGES])
def test_each_control_works_on_each_page(page: str) -> None:
    app, said = opened(page), dict[str, Any]()
    for key, kind, value, change in CHANGES:
        getattr(app, kind)(key=key).set_value(value)
        run(app)
        said |= change
        scenario = Scenario(**said)
        models = [cm.load(name) for name in scenario.models]
        assert verdict(models, scenario, cm.accelerator(scenario.accelerator)) in words(app), key
        own = app.session_state["scenario"]
        assert {name: getattr(own, name) for name in said} == said


EXTREMES = {
    "context": str(10**12), "batch": str(10**12), "devices": "100000", "models": ["llama-3.1-405b", "gpt2"],
    "requests_per_s": "10000", "prompt": str(LONGEST), "output": str(LONGEST), "ttft_s": "1e-9", "tpot_s": "10000",
}  # fmt: skip


@pytest.mark.parametrize("page", [path for path, *_ in PAGES])
def test_the_largest_scenario_is_shown_in_charts_and_tables(page: str) -> None:
    app = opened(page, **EXTREMES)
    assert not app.warning
    assert app.number_input(key="batch").value == 10**12
    for toggle in app.toggle:
        toggle.set_value(True)
    run(app)
    for name in app.selectbox(key="quantity").options if page in ("anatomy", "compare", "formulas") else ():
        app.selectbox(key="quantity").set_value(name)
        run(app)
    if page == "anatomy":
        app.selectbox(key="quantity").set_value("prefill_flops")
        run(app)
        whole = next(frame for frame in tables(app) if "share" in frame and frame["path"][0] == "prefill_flops")
        assert whole["value"][0] == str(cm.load("llama-3.1-405b").prefill_flops(context=10**12, batch=10**12))


def keeps_nothing() -> bytes:
    """A model of feed-forward layers alone."""
    model = cm.load("gpt2")
    layers = tuple(group.model_copy(update={"mixer": None}) for group in model.layers)
    return as_toml(model.model_copy(update={"name": "mixerless", "layers": layers, "reference": ()})).encode()


@pytest.mark.parametrize("page", [path for path, *_ in PAGES])
def test_a_model_that_keeps_nothing_has_every_page(page: str) -> None:
    app = uploaded("mixerless.toml", keeps_nothing())
    for models in (["gemma-3-27b", "mixerless"], ["mixerless"]):
        app.multiselect(key="models").set_value(models)
        app._page_hash = calc_hash(page)
        run(app)
        assert not app.error
    if page == "explore":
        assert app.metric[0].value == "0 B"


def test_a_link_opens_no_file_of_the_server(tmp_path: Path) -> None:
    secret = tmp_path / "secret.toml"
    secret.write_text(as_toml(cm.load("gpt2")), encoding="utf-8")
    for path in (str(secret), str(tmp_path), "/nowhere/at-all.toml", "../presets/architectures/gpt2.toml", "Qwen/Qwen3-8B"):
        for edit in (f"local/mixer={path}/dense", f"added-1={path}/dense"):
            app = what_if(edit)
            assert len(app.error) == 1
            assert "no preset" in app.error[0].value


def exact(app: Any, key: str) -> Any:
    """A figure's numbers, from its table."""
    before = [str(frame) for frame in tables(app)]
    app.toggle(key=f"table_{key}").set_value(True)
    run(app)
    return next(frame for frame in tables(app) if str(frame) not in before)


AT = Scenario(models=("deepseek-v3", "gemma-3-27b"), context=9_000, batch=3, cache="fp8", weights="fp8", view="engine")


def test_pages_have_the_librarys_numbers_to_the_digit() -> None:
    deepseek, gemma = (cm.load(name) for name in AT.models)
    query = AT.query()
    for name in ("cache_bytes", "decode_flops", "bytes_moved"):
        shown = exact(opened("anatomy", **query | {"quantity": [name]}), "parts")
        formula = AT.formula(deepseek, name)
        assert shown.to_dict("records") == part_rows(formula, AT.inputs(formula))
    assert exact(opened("anatomy", **query), "strip").to_dict("records") == layer_runs(deepseek)
    for name in DIFFERENCES:
        shown = exact(opened("compare", **query | {"quantity": [name], "to_cache": ["bf16"]}), "walk")
        start, steps, end = diff_rows(deepseek, gemma, 9_000, 3, ("fp8", "fp8"), ("fp8", "bf16"))
        assert shown["x"].tolist() == [start[name], *(step[name] for step in steps if step[name]), end[name]]
    (row,) = touched_rows([deepseek])
    assert exact(opened("moe", **query), "touched")["y"].tolist() == [touched / 256 for touched in row["touched"]]
    points = exact(opened("moe", **query), "active").set_index("series")
    assert points.loc["DeepSeek-V3"][["x", "y"]].tolist() == [deepseek.params.total, deepseek.params.active]
    shown = tables(opened("landscape", **query))[0].set_index("name").to_dict("index")
    for name in cm.presets():
        model = cm.load(name)
        assert shown[name]["cache bytes per token"] == binary_bytes(AT.kept(model)(context=9_000) / 9_000)
        assert shown[name]["decode flops"] == flop(model.decode_flops(context=9_000))


def test_the_report_page_shows_the_report() -> None:
    app = opened("report", models="gemma-3-1b", context="4k", batch="3")
    app.toggle(key="report_preview").set_value(True)
    run(app)
    shown = next(iter(app.get("iframe"))).proto
    assert cm.report("gemma-3-1b", "html", context=4_096, batch=3) in (shown.srcdoc, shown.src)
    texts = [element.value for element in app.code]
    assert any(text.startswith("costmodel report gemma-3-1b --context 4096 --batch 3") for text in texts)


@pytest.mark.parametrize("seed", range(4))
def test_people_wander_about(seed: int) -> None:
    """Random steps through widgets and pages: nothing breaks, and at the end the link still says everything."""
    dice = random.Random(seed)  # noqa: S311 - steps of a test
    app = opened("what-if" if seed % 2 else "explore", models=dice.sample(cm.presets(), 2))
    for _ in range(12):
        if not wandered(app, dice):
            app._page_hash = calc_hash(dice.choice(PAGES)[0])
        run(app)
    scenario = app.session_state["scenario"]
    if set(scenario.models) <= set(cm.presets()):
        again = opened(**scenario.query())
        assert again.session_state["scenario"] == scenario
        assert not again.warning


def wandered(app: Any, dice: random.Random) -> bool:
    """Changes one widget of those on the page."""
    kind = dice.choice(["selectbox", "number_input", "radio", "multiselect", "toggle", "button"])
    found = [widget for widget in app.get(kind) if not widget.disabled]
    if not found:
        return False
    widget = dice.choice(found)
    if kind == "button":
        widget.click()
    elif kind == "toggle":
        widget.set_value(not widget.value)
    elif kind == "number_input":
        widget.set_value(min(max(widget.min, dice.choice([1, 2, 7, 64, 4_096, (widget.value or 1) * 2])), widget.max))
    elif kind == "multiselect":
        widget.set_value(dice.sample(widget.options, min(len(widget.options), dice.randint(0, 4))))
    elif kind == "radio":
        widget.set_value(dice.choice(widget.options))
    else:
        widget.select_index(dice.randrange(len(widget.options)))
    return True


def test_the_roofline_shows_the_librarys_passes() -> None:
    query: dict[str, Any] = {"models": "llama-3.1-8b", "accelerator": "h100-sxm", "devices": "2", "context": "8k"}
    app = opened("roofline", **query)
    shown = tables(app)[0]
    now = Scenario(models=("llama-3.1-8b",), accelerator="h100-sxm", devices=2, context=8_192)
    rows = pass_rows([cm.load("llama-3.1-8b")], now)
    assert shown["seconds"].tolist() == [quantity(row["seconds"], "s") for row in rows]
    layout = cm.Parallel(tp=2)
    for row in rows:
        one = time_pass("llama-3.1-8b", "h100-sxm", row["batch"], row["tokens"], 8_192, parallel=layout)
        assert row["seconds"] == pytest.approx(one.device_s)
        assert row["flops"] == pytest.approx(sum(op["flops"] for op in one.ops))
        assert row["bytes"] == pytest.approx(sum(op["bytes"] for op in one.ops))
    assert roofline_sentence(rows, cm.accelerator("h100-sxm")) in words(app)


def test_a_roofline_without_links_says_so() -> None:
    app = opened("roofline", models="gpt2", accelerator="cpu", devices="4")
    assert "link_bytes_per_s" in app.error[0].value.replace("\\", "")
    assert not opened("roofline", models="gpt2", accelerator="cpu", devices="1").error


def test_a_calibrations_scores_are_its_files() -> None:
    app = opened("calibration", calibration="h100-sxm", kernels="gemm fp8")
    stored = next(known for known in read_calibration(calibration_file("h100-sxm")).classes if known.dtype == "fp8")
    assert calibration_sentence("gemm fp8", stored.held_out, stored.roofline, cm.accelerator("h100-sxm").title) in words(app)
    app.selectbox(key="calibration").set_value("cpu")
    run(app)
    assert app.selectbox(key="kernels").value == "gemm fp32"  # the one chosen before is not of this calibration
    assert cm.accelerator("cpu").title in words(app)


def test_a_calibration_of_ones_own_is_opened() -> None:
    app = opened("calibration")
    text = calibration_file("cpu").read_bytes()
    app.file_uploader(key="own_calibration").upload("mine.json", text)
    run(app)
    assert app.selectbox(key="calibration").value == "cpu (opened)"
    app.file_uploader(key="own_calibration").upload("mine.json", text[:200])
    run(app)
    assert "no whole JSON file" in app.error[0].value


# Serve and Cost

SERVED: dict[str, Any] = {"models": ["gemma-3-27b", "llama-3.1-8b"], "accelerator": "h100-sxm", "devices": "8", "weights": "fp8"}


def served(**said: Any) -> Scenario:
    return Scenario(models=("gemma-3-27b", "llama-3.1-8b"), accelerator="h100-sxm", devices=8, weights="fp8", **said)


def test_the_serve_page_is_the_plan() -> None:
    """What the page shows, the line of Python that it gives, and `plan` itself say the same."""
    app, now, gemma = opened("serve", **SERVED), served(), cm.load("gemma-3-27b")
    limits = cm.Limits(ttft_s=2, tpot_s=0.05, devices=8)
    found = cm.plan(gemma, "h100-sxm", cm.Traffic(requests_per_s=2, prompt=4096, output=1024), limits, precisions=[("fp8", "bf16")])
    line = next(code.value for code in app.code if "costmodel.plan(" in code.value)
    assert line == python_line(gemma, now)
    assert eval(line, {"costmodel": cm}).rows == found.rows  # noqa: S307 - our own line
    ours = offer(gemma, now)
    assert serve_sentence(ours, now) in words(app)
    assert held_line(ours) in words(app)
    (layouts,) = tables(app)
    assert layouts["layout"].tolist() == [row["layout"] for row in found.rows[:10]]
    assert layouts["tpot s"].tolist() == [quantity(row["tpot_s"], "s") for row in found.rows[:10]]
    assert layouts["binds"].tolist() == [row["binds"] for row in found.rows[:10]]
    points = exact(app, "pareto")
    front = points[points["series"] == "whatever the limits"]
    assert front["x"].tolist() == [point["tokens_per_s_per_user"] for point in found.front]
    assert front["y"].tolist() == [point["output_tokens_per_s_per_device"] for point in found.front]
    kept = points[points["series"].str.endswith("within the limits")]
    assert set(kept["x"]) == {point["tokens_per_s_per_user"] for point in ours.kept}
    assert ours.best is not None
    assert points[points["series"] == "the plan's best"]["x"].tolist() == [ours.best.tokens_per_s_per_user]


def test_the_cost_page_is_the_plan() -> None:
    app, now = opened("cost", **SERVED), served()
    models = [cm.load(name) for name in now.models]
    rows = cost_rows(models, now)
    assert cost_sentence(rows, now, cm.accelerator("h100-sxm")) in words(app)
    bars = exact(app, "costs_model")
    for model in models:
        best = offer(model, now).best
        assert best is not None
        assert bars[bars["series"] == "a million tokens in"].set_index("y").loc[model.name, "x"] == best.usd_per_mtok_in
        assert bars[bars["series"] == "a million tokens out"].set_index("y").loc[model.name, "x"] == best.usd_per_mtok_out
    changes = offer(models[0], now).why.sensitivity
    assert tornado_sentence(changes, models[0].title) in words(app)
    shown = exact(app, "tornado")
    less = shown[shown["series"] == "10 % less"].set_index("y")["x"].to_dict()
    assert less == {row["assumption"]: row["minus_10_percent"] for row in changes}
    app.toggle(key="every_accelerator").set_value(True)
    run(app)
    assert "tokens of Gemma 3 27B's output cost least on" in words(app)
    everywhere = next(frame for frame in tables(app) if len(frame) > 10 and "accelerator" in frame)
    assert set(everywhere["accelerator"]) == {name for name in cm.accelerators() if cm.accelerator(name).price}


ASKED = [
    ("requests_per_s", "number_input", 5.0), ("prompt", "number_input", 1_000), ("output", "number_input", 200),
    ("tpot_s", "number_input", 0.02), ("usd_per_hour", "number_input", 9.5), ("objective", "selectbox", "latency"),
    ("ttft_s", "number_input", 0.0), ("weights", "selectbox", "bf16"), ("devices", "number_input", 5),
    ("accelerator", "selectbox", "h200"), ("model", "selectbox", "llama-3.1-8b"),
]  # fmt: skip


@pytest.mark.parametrize("page", ["serve", "cost"])
def test_what_is_asked_changes_the_plan(page: str) -> None:
    app, said = opened(page, **SERVED), dict[str, Any]()
    for key, kind, value in ASKED:
        getattr(app, kind)(key=key).set_value(value)
        run(app)
        said[key] = value
        now = Scenario(**{**served().model_dump(), **said})
        models = [cm.load(name) for name in now.models]
        if page == "serve":
            told = serve_sentence(offer(cm.load(now.model or now.models[0]), now), now)
        else:
            told = cost_sentence(cost_rows(models, now), now, cm.accelerator(now.accelerator))
        assert told in words(app), key


def test_the_context_leaves_the_plan_alone() -> None:
    """Traffic says how long requests are; the kept plan is the same object."""
    gemma = cm.load("gemma-3-27b")
    assert offer(gemma, served()) is offer(gemma, served(context=4_096, batch=7, units="GB", view="engine"))


@pytest.mark.parametrize("page", ["serve", "cost"])
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"models": "llada-8b"}, "denoises whole blocks"), ({"models": "trm-maze"}, "writes no text"),
        ({"models": "gpt2", "accelerator": "cpu"}, "has no listed price"),
        ({"models": "llama-3.1-8b", "output": "1"}, "outputs of a single token"),
        ({"models": "kimi-k2", "accelerator": "l4", "devices": "1"}, "memory"),
        ({"models": "gemma-3-27b", "tpot_s": "0.000001"}, "tpot_s is"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_told(page: str, query: dict[str, str], said: str) -> None:
    app = opened(page, **query)
    assert not app.error
    assert not app.warning
    told = words(app) + "\n".join(info.value for info in app.info).replace("\\", "")
    assert said in told


def test_a_miss_shows_the_nearest_and_what_to_relax() -> None:
    app = opened("serve", models="kimi-k2")
    found = offer(cm.load("kimi-k2"), Scenario(models=("kimi-k2",)))
    assert found.best is None
    assert found.nearest is not None
    assert "Relax what is missed" in words(app)
    assert all(miss in words(app) for miss in found.misses)
    assert tables(app)[0]["layout"].tolist() == [found.nearest.layout.name]


@pytest.mark.parametrize("name", cm.accelerators())
def test_serve_and_cost_on_every_accelerator(name: str) -> None:
    for page in ("serve", "cost"):
        app = opened(page, models=["gpt2", "llama-3.1-8b"], accelerator=name, usd_per_hour="2")
        assert not app.error
        assert not app.warning


def test_inverse_answers_stand_beside_the_controls() -> None:
    for page, *_ in PAGES:
        app = opened(page, models=["gemma-3-27b", "kimi-k2"], devices="2")
        for name in ("gemma-3-27b", "kimi-k2"):
            room, title = Scenario(devices=2).room(cm.load(name)), cm.load(name).title
            line = next(line for line in words(app).splitlines() if line.startswith(f"**{title}**: "))
            assert f"from {room.fewest_devices:,} device" in line
            assert room.loosest is None or "/".join(room.loosest) in line
            assert (room.most_sequences is None) == ("does not fit" in line)
            assert room.most_sequences is None or f"{room.most_sequences:,} sequences" in line
