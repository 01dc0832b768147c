"""Figures: valid, few colours that all can tell apart, and the library's numbers."""

from __future__ import annotations

from typing import Any

import pytest

import costmodel as cm
from costmodel.answers import intensity
from costmodel.answers.anatomy import layer_runs, part_rows
from costmodel.answers.landscape import AXES, BATCHES, frontier, keeping, landscape_rows, touched_rows
from costmodel.answers.offers import accelerator_rows, cost_rows, offer
from costmodel.answers.promises import serve_sentence, tornado_sentence
from costmodel.answers.sentences import (
    cache_sentence,
    chart_words,
    experts_sentence,
    landscape_sentence,
    usual_lines,
    verdict,
    walk_sentence,
)
from costmodel.answers.summary import STEPS
from costmodel.architecture import Architecture
from costmodel.calibration.report import point_rows
from costmodel.calibration.store import read_calibration
from costmodel.catalog import calibration_file, opened
from costmodel.comparison import diff_rows
from costmodel.figures import charts
from costmodel.figures.palette import COLOURS, GREY, colour, contrast
from costmodel.figures.servecharts import costs, pareto, tornado
from costmodel.scenario import FLAGSHIPS, QUANTITIES, YARDSTICK, Scenario

LIGHT, DARK = "#ffffff", "#0e1117"
HOSTILE = "<img src=x onerror=alert(1)> $\\frac{1}{2}$ [a](b)"


def hostile() -> Architecture:
    return cm.load("gpt2").model_copy(update={"title": HOSTILE, "name": "hostile"})


MODELS = [cm.load(name) for name in FLAGSHIPS]
SCENARIOS = [
    Scenario(),
    Scenario(context=3_000, batch=7, view="engine", cache="fp8", units="GB", accelerator="l4", devices=1),
    Scenario(context=1, batch=1_000_000),
    Scenario(context=10**12, devices=100_000),
    Scenario(accelerator="h200", devices=2, batch=8),
]


def passes(models: list[Architecture], scenario: Scenario) -> list[dict[str, Any]]:
    """Rows of a roofline; of one device, where its kind has no links, and of no more context than passes are timed at."""
    linked = cm.accelerator(scenario.accelerator).link_bytes_per_s
    devices = min(scenario.devices, 8) if linked else 1
    return intensity.pass_rows(models, scenario.model_copy(update={"devices": devices}))


def plans(models: list[Architecture], scenario: Scenario) -> dict[str, dict[str, Any]]:
    """Figures of serving and its price."""
    return {
        "costs": costs(cost_rows(models, scenario)),
        "tornado": tornado(offer(models[0], scenario).why.sensitivity),
        **{f"pareto {model.name}": pareto(offer(model, scenario), scenario) for model in models},
    }


def figures(models: list[Architecture], scenario: Scenario) -> dict[str, dict[str, Any]]:
    rows = landscape_rows(models, scenario)
    walk = diff_rows(models[0], models[-1], scenario.context, scenario.batch, ("bf16", "fp8"))
    found = {
        "curves": charts.cache_curves(models, scenario, cm.load(YARDSTICK)),
        "touched": charts.touched_curves(models),
        "active": charts.active_total(rows, [model.name for model in models[:2]]),
    }
    found |= {
        f"landscape {y} {x}": charts.landscape(rows, y, x, scenario, [models[0].name]) for y in AXES for x in ("size", "date")
    }
    measured = intensity.measured_rows(scenario.model_copy(update={"accelerator": "h100-sxm"}))
    found["roofline"] = charts.roofline(passes(models, scenario), measured, cm.accelerator(scenario.accelerator))
    found |= plans(models, scenario)
    stored = read_calibration(calibration_file("cpu"))
    for kernels in ("gemm fp32", "decode_attention fp32"):
        points = point_rows(stored, kernels, cm.accelerator("cpu"))
        found |= {
            f"predicted {kernels}": charts.predicted_measured(points, 1.2),
            f"residuals {kernels}": charts.residuals(points, 1.2),
        }
    found |= {f"walk {name}": charts.waterfall(*walk, name, unit, scenario.units) for name, unit in STEPS.items()}
    for model in models:
        found[f"strip {model.name}"] = charts.layer_strip(model)
        for name in QUANTITIES:
            formula = scenario.formula(model, name)
            parts = part_rows(formula, scenario.inputs(formula))
            found[f"parts {model.name} {name}"] = charts.icicle(model, parts, formula.unit, scenario.units)
    return found


def colours(value: Any) -> set[str]:
    """Every colour in a figure."""
    if isinstance(value, dict):
        return {c for item in value.values() for c in colours(item)}
    if isinstance(value, (list, tuple)):
        return {c for item in value for c in colours(item)}
    return {value} if isinstance(value, str) and value.startswith("#") and len(value) == 7 else set()


@pytest.mark.parametrize(
    "models", [MODELS, [MODELS[1]], [hostile()], [cm.load("qwen3-30b-a3b"), hostile()]], ids=["four", "one", "hostile", "two"]
)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=range(len(SCENARIOS)))
def test_every_figure_is_valid_with_few_colours(models: list[Architecture], scenario: Scenario) -> None:
    go = pytest.importorskip("plotly.graph_objects")
    for name, figure in figures(models, scenario).items():
        go.Figure(figure)
        assert "<img" not in str(figure), name
        assert len(colours(figure) - {GREY, LIGHT}) <= 4, name
        assert figure["layout"]["uirevision"], name
        for trace in figure["data"]:
            assert len(trace.get("x", ())) <= 300, name
        assert charts.table_rows(figure) or not figure["data"], name


def test_colours_can_be_seen_on_both_themes() -> None:
    assert contrast("#000000", "#ffffff") == 21
    for one in (*COLOURS, GREY):
        assert contrast(one, LIGHT) >= 3, one
        assert contrast(one, DARK) >= 3, one
    assert len(COLOURS) == 4
    assert colour(4) == colour(-1) == GREY


@pytest.mark.parametrize("scenario", SCENARIOS[:2], ids=["theory", "engine"])
def test_curves_are_the_librarys_numbers_with_the_exact_kinks(scenario: Scenario) -> None:
    figure = charts.cache_curves(MODELS, scenario, cm.load(YARDSTICK))
    for model, line in zip([*MODELS, cm.load(YARDSTICK)], figure["data"], strict=False):
        assert [scenario.kept(model)(context=int(x), batch=scenario.batch) for x in line["x"]] == line["y"]
        assert scenario.context in line["x"]
    assert 1_024 in figure["data"][1]["x"]  # the end of Gemma's window
    kink = next(trace for trace in figure["data"] if trace["name"].endswith("window"))
    assert (kink["x"], kink["y"]) == ([1_024], [scenario.kept(MODELS[1])(context=1_024, batch=scenario.batch)])
    told = charts.table_rows(figure)
    assert {(row["x"], row["y"]) for row in told} >= set(zip(figure["data"][0]["x"], figure["data"][0]["y"], strict=True))


def test_the_memory_left_ends_at_the_longest_context() -> None:
    scenario = Scenario(accelerator="h200", devices=2, batch=8)
    gemma = cm.load("gemma-3-27b")
    figure = charts.cache_curves([gemma], scenario)
    end = next(trace for trace in figure["data"] if trace["name"].endswith("max context"))
    room = scenario.room(gemma)
    assert (end["x"], end["y"]) == ([room.longest_context], [room.memory_bytes - room.weight_bytes])
    assert gemma.cache_bytes(context=room.longest_context, batch=8) <= end["y"][0]
    assert gemma.cache_bytes(context=room.longest_context + 1, batch=8) > end["y"][0]
    assert f"{room.longest_context:,}" in end["text"][0]


def test_a_yardstick_that_is_chosen_is_drawn_once() -> None:
    llama = cm.load(YARDSTICK)
    lines = [trace for trace in charts.cache_curves([llama], Scenario(), llama)["data"] if trace["mode"] == "lines"]
    assert [line["line"]["color"] for line in lines] == [COLOURS[0]]


@pytest.mark.parametrize("along", ["size", "date"])
@pytest.mark.parametrize("against", AXES)
def test_every_model_is_a_point_and_the_chosen_ones_are_named(against: str, along: str) -> None:
    rows = landscape_rows([cm.load(name) for name in cm.presets()], Scenario())
    drawn = charts.landscape(rows, against, along, Scenario(), chosen=FLAGSHIPS)
    points = [trace for trace in drawn["data"] if "customdata" in trace]
    assert sorted(name for trace in points for name in trace["customdata"]) == sorted(cm.presets())
    titles = [text for trace in points for text in trace["text"] if text]
    assert len(titles) == len(set(titles)) < 20
    assert len({(trace["marker"]["color"], trace["marker"]["symbol"]) for trace in points}) == len(points)


def test_the_frontier_is_what_no_larger_model_undercuts() -> None:
    rows = landscape_rows([cm.load(name) for name in cm.presets()], Scenario())
    for against in AXES:
        best = [row["name"] for row in frontier(rows, against)]
        brute = [
            row["name"]
            for row in rows
            if row[against]
            and not any(
                other is not row
                and other["params_total"] >= row["params_total"]
                and other[against] <= row[against]
                and (other["params_total"], other[against]) != (row["params_total"], row[against])
                for other in rows
            )
        ]
        assert best == brute
        assert not {"trm-arc", "hrm-arc"} & set(best) or against != "cache_bytes_per_token"
    assert {str(keeping(cm.load(name))) for name in FLAGSHIPS} == {"latent attention", "sliding window", "recurrent state"}


def test_landscape_and_experts_are_the_librarys_numbers() -> None:
    scenario = Scenario(context=9_000)
    for row in landscape_rows(MODELS, scenario):
        model = cm.load(row["name"])
        assert row["params_active"] == model.params.active
        assert row["cache_bytes_per_token"] == model.cache_bytes(context=9_000) / 9_000
        assert row["decode_flops"] == model.decode_flops(context=9_000)
    touched = touched_rows([cm.load("deepseek-v3")])[0]
    assert touched["touched"] == pytest.approx([256 * (1 - (1 - 8 / 256) ** n) for n in BATCHES])
    assert touched_rows([cm.load("gpt2")]) == []


@pytest.mark.parametrize("name", cm.presets())
def test_parts_of_parts_sum_to_them(name: str) -> None:
    model, scenario = cm.load(name), Scenario(context=5_000, batch=3)
    for quantity in QUANTITIES:
        formula = scenario.formula(model, quantity)
        rows = part_rows(formula, scenario.inputs(formula))
        values = {row["path"]: row["value"] for row in rows}
        for path, value in values.items():
            children = [v for other, v in values.items() if other.rpartition("/")[0] == path]
            if children:
                assert (
                    sum(children) == pytest.approx(value, rel=1e-12, abs=0) if quantity == "bytes_moved" else sum(children) == value
                )
    runs = layer_runs(model)
    assert [group for run in runs for group in [run["group"]] * (run["last"] - run["first"] + 1)] == list(model.layer_order)


def test_sentences_are_made_from_the_data() -> None:
    one, other = Scenario(), Scenario(context=2_000, batch=3, units="GB")
    llama, device = cm.load(YARDSTICK), cm.accelerator("h200")
    for sentence in (
        lambda s: cache_sentence(MODELS, s, llama), lambda s: chart_words(MODELS, s), lambda s: usual_lines(MODELS, s),
        lambda s: verdict(MODELS, s, device), lambda s: landscape_sentence(landscape_rows(MODELS, s), "decode_flops", s),
    ):  # fmt: skip
        assert sentence(one)
        assert sentence(one) != sentence(other)
    gemma = [cm.load("gemma-3-27b")]
    assert cache_sentence(gemma, one, llama) == (
        "At 131,072 tokens Gemma 3 27B needs 3.8x less cache than the yardstick, Llama 3.1 70B, "
        "because 52 of its 62 layers keep only 1,024 tokens."
    )
    assert "24.9x too much" in usual_lines(MODELS, one)
    assert "256 experts" in experts_sentence(MODELS)
    assert "no" in experts_sentence(gemma).lower()
    start, steps, end = diff_rows("llama-3.1-70b", "gemma-3-27b")
    assert "saves" in walk_sentence(start, steps, end, "cache_bytes", "bytes", "GiB")


def test_an_upload_with_a_hostile_title_is_drawn_as_text() -> None:
    from costmodel.catalog import as_toml

    model, _ = opened("x.toml", as_toml(hostile()).encode())
    assert "<img" not in str(charts.cache_curves([model], Scenario()))


def test_numbers_beyond_64_bits_are_drawn() -> None:
    """Writers of JSON may refuse them; a browser has doubles anyway."""
    for name, figure in figures([cm.load("llama-3.1-405b"), MODELS[2]], Scenario(context=10**12, batch=10**12)).items():
        for trace in figure["data"]:
            numbers = [value for axis in ("x", "y", "values") for value in trace.get(axis, ()) if isinstance(value, int)]
            assert all(abs(number) < 1 << 63 for number in numbers), name


def test_a_model_without_mixers_is_drawn() -> None:
    gpt2 = cm.load("gpt2")
    layers = tuple(group.model_copy(update={"mixer": None}) for group in gpt2.layers)
    nothing = gpt2.model_copy(update={"name": "nothing", "layers": layers})
    for models in ([nothing], [nothing, gpt2], [gpt2, nothing]):
        for figure in figures(models, Scenario()).values():
            assert charts.table_rows(figure) or not figure["data"]
    assert charts.cache_curves([nothing], Scenario())["layout"]["annotations"] == []


def test_labels_break_and_tables_do_not() -> None:
    figure = charts.waterfall(*diff_rows("gpt2", "deepseek-v3"), "params", "parameters", "GiB")
    labels = figure["data"][0]["y"]
    assert any("<br>" in label for label in labels)
    for text in (*labels, *(row["y"] for row in charts.table_rows(figure))):
        assert "&lt;br" not in text
    assert not any("<br>" in str(row) or "&gt;" in str(row) for row in charts.table_rows(figure))


def test_tables_of_figures_hold_the_librarys_numbers() -> None:
    scenario = Scenario(context=9_000, batch=3)
    rows = landscape_rows(MODELS, scenario)
    for against in AXES:
        told = {row["text"].partition(":")[0]: row for row in charts.table_rows(charts.landscape(rows, against, "size", scenario))}
        for row in rows:
            assert (told[row["title"]]["x"], told[row["title"]]["y"]) == (row["params_total"], row[against])
    start, steps, end = diff_rows(MODELS[0], MODELS[1], 9_000, 3)
    for name, unit in STEPS.items():
        told = [row["x"] for row in charts.table_rows(charts.waterfall(start, steps, end, name, unit, "GiB"))]
        assert sum(told[:-1]) == told[-1] == end[name]
    formula = scenario.formula(MODELS[0], "decode_flops")
    parts = part_rows(formula, scenario.inputs(formula))
    told = charts.table_rows(charts.icicle(MODELS[0], parts, formula.unit, "GiB"))
    assert {row["part"]: row["value"] for row in told} == {row["path"]: row["value"] for row in parts}


def test_the_front_is_shaded_where_limits_exclude() -> None:
    now = Scenario(models=("gemma-3-27b",), tpot_s=0.02, requests_per_s=4.0, devices=4)
    drawn = pareto(offer(cm.load("gemma-3-27b"), now), now)
    slow, many = drawn["layout"]["shapes"]
    assert slow["x1"] == pytest.approx(50)
    assert many["y1"] == pytest.approx(4 * 1024 / 4)
    free = now.model_copy(update={"tpot_s": 0.0, "requests_per_s": 1e-6})
    assert pareto(offer(cm.load("gemma-3-27b"), free), free)["layout"]["shapes"] == []
    own = [trace for trace in drawn["data"] if "within the limits" in trace["name"]]
    assert all(x >= 50 for trace in own for x in trace["x"])


def test_the_front_within_limits_is_what_none_of_those_beats() -> None:
    now = Scenario(models=("gemma-3-27b",), requests_per_s=4.0)
    found = offer(cm.load("gemma-3-27b"), now)
    assert found.kept
    assert all(point["within_limits"] for point in found.kept)
    every, kept = (
        [(point["tokens_per_s_per_user"], point["output_tokens_per_s_per_device"]) for point in points]
        for points in (found.front, found.kept)
    )
    for user, device in kept:
        assert not any(x > user and y > device for x, y in kept)
        assert any(x >= user and y >= device for x, y in every)


def test_bars_are_the_rows_and_what_has_no_price_has_none() -> None:
    rows = cost_rows([cm.load("gemma-3-27b"), cm.load("llada-8b"), hostile()], Scenario())
    assert [row["usd_per_mtok_out"] is None for row in rows] == [False, True, False]
    assert "denoises" in rows[1]["note"]
    drawn = costs(rows)
    assert [trace["x"] for trace in drawn["data"]] == [
        [row[key] for row in rows if row[key]] for key in ("usd_per_mtok_in", "usd_per_mtok_out")
    ]
    assert len(set(drawn["data"][0]["y"])) == 2
    assert costs(rows[1:2])["data"] == []
    others = accelerator_rows(cm.load("gemma-3-27b"), Scenario(accelerator="cpu", usd_per_hour=1.0))
    priced = [row["usd_per_mtok_out"] for row in others if row["usd_per_mtok_out"] is not None]
    assert priced == sorted(priced)
    assert "cpu" in [row["accelerator"] for row in others]


def test_a_tornado_has_its_largest_first_and_tells_what_breaks() -> None:
    rows = [
        {"assumption": "price", "minus_10_percent": -0.1, "plus_10_percent": 0.1},
        {"assumption": "memory", "minus_10_percent": float("inf"), "plus_10_percent": -0.3},
    ]
    drawn = tornado(rows)
    assert drawn["data"][0]["y"] == ["memory", "price"]
    assert drawn["data"][0]["x"] == [None, -0.1]
    assert drawn["data"][0]["text"][0] == "nothing meets the limits"
    assert "Nothing meets the limits with 10 % less memory." in tornado_sentence(rows, "A")
    assert tornado([])["data"] == []


def test_prices_scale_what_a_token_costs() -> None:
    gemma = cm.load("gemma-3-27b")
    (one,), (two,) = (cost_rows([gemma], Scenario(usd_per_hour=usd)) for usd in (2.0, 4.0))
    assert two["usd_per_mtok_out"] == pytest.approx(2 * one["usd_per_mtok_out"])
    assert two["usd_per_mtok_in"] == pytest.approx(2 * one["usd_per_mtok_in"])
    assert serve_sentence(offer(gemma, Scenario(usd_per_hour=2.0)), Scenario()) != serve_sentence(
        offer(gemma, Scenario()), Scenario()
    )
