"""The dashboard's page: no exception, and the library's numbers to the digit."""

from __future__ import annotations

from typing import Any

import pytest

import costmodel as cm
from costmodel.catalog import bundled
from costmodel.charts import cache_curves, cache_sentence

pytest.importorskip("streamlit")


def opened(**query: str) -> Any:
    from streamlit.testing.v1 import AppTest

    page = AppTest.from_file(str(bundled("app.py")), default_timeout=30)
    for name, value in query.items():
        page.query_params[name] = value
    page.run()
    assert not page.exception
    return page


def cells(page: Any) -> dict[str, dict[str, str]]:
    """The table by quantity and model."""
    return page.dataframe[0].value.set_index("quantity").to_dict("index")  # type: ignore[no-any-return]


def test_first_screen() -> None:
    page = opened()
    assert cells(page)["params_total"]["deepseek-v3"] == "671 B"
    models = [cm.load(name) for name in page.multiselect(key="models").value]
    assert page.markdown[0].value == cache_sentence(models, 131_072)


@pytest.mark.parametrize("name", cm.presets())
def test_every_preset(name: str) -> None:
    page = opened()
    page.multiselect(key="models").set_value([name]).run()
    assert not page.exception
    assert list(cells(page)["cache_bytes"]) == [name]


def test_a_changed_control_changes_its_number() -> None:
    page = opened()
    before = cells(page)
    page.select_slider(key="context").set_value(4_096).run()
    after = cells(page)
    assert before["params_total"] == after["params_total"]
    assert before["cache_bytes"] != after["cache_bytes"]
    page.radio(key="view").set_value("engine").run()
    models = [cm.load(name) for name in page.multiselect(key="models").value]
    assert page.markdown[0].value == cache_sentence(models, 4_096, view="engine")
    page.multiselect(key="models").set_value([]).run()
    assert not page.exception
    assert page.info[0].value == "Choose one to four models."


def test_a_link_opens_its_scenario_and_a_hostile_one_nothing_else() -> None:
    page = opened(context="4k", batch="3", view="engine")
    assert page.select_slider(key="context").value == 4_096
    assert page.number_input(key="batch").value == 3
    assert page.radio(key="view").value == "engine"
    opened(context="<script>", batch="-1", models="no-such-model", view="x")


def test_figures_are_valid_and_their_points_the_librarys() -> None:
    import plotly.graph_objects as go

    models = [cm.load(name) for name in ("gemma-3-27b", "deepseek-v3", "gpt2", "qwen3-next-80b-a3b")]
    figure = cache_curves(models, 131_072, batch=2)
    go.Figure(figure)
    for model, line in zip(models, figure["data"], strict=True):
        assert [model.cache_bytes(context=int(x), batch=2) for x in line["x"]] == line["y"]
    assert 1_024 in figure["data"][0]["x"]  # the end of Gemma's window
