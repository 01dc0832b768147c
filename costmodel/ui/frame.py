"""What all pages share: the scenario's controls, bound to the address, and the header with verdict, Share and Export."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from costmodel.answers.cards import answers
from costmodel.answers.sentences import verdict
from costmodel.architecture import Architecture
from costmodel.catalog import accelerator, accelerators, load, preset, presets
from costmodel.figures.charts import table_rows
from costmodel.figures.drawing import MAX_STORED, Figure
from costmodel.reporting import MEDIA, scenario_file
from costmodel.scenario import CHOICES, LONGEST, MAX_MODELS, NUMBERS, QUANTITIES, STOPS, WHAT, YARDSTICK, Scenario
from costmodel.tables import Table, readable_rows
from costmodel.units import MAX_WHOLE, tokens

BOUND: dict[str, Any] = {"bind": "query-params"}
"""A control that the address holds. It shows its values as the address does: names, as on the command line."""
DEFINED = {
    "context": "tokens of each sequence: prompt and answer so far",
    "batch": "sequences served at the same time, each with its own cache",
    "view": "theory: what must be kept. engine: what a paged server reserves (pages of 16 tokens, windows in full)",
    "weights": "how weights are stored; block scales are counted",
    "cache": "how the cache is stored; recurrent state keeps its own format",
    "units": "GiB is 1,073,741,824 bytes, GB 1,000,000,000",
    "devices": "accelerators at hand: plans take at most as many",
    "requests_per_s": "requests that come in each second, at random",
    "prompt": "tokens of each request's prompt",
    "output": "tokens of each answer",
    "ttft_s": "seconds to the first token that 90 % of the requests may take, the queue included; 0: no limit",
    "tpot_s": "seconds between an answer's tokens; 0: no limit",
    "usd_per_hour": "dollars an hour of one device; 0: the listed price, with its date on the page Cost",
    "objective": "what the best plan has least of: dollars (usd), devices, or time between tokens (latency)",
    "answers": "the longest context of so many sequences, or the most sequences of such a context; the fewest devices for both; "
    "and of the formats for weights and cache the least coarse that fit. Weights and cache alone, spread evenly.",
}


QUANTITY_WORDS = "  \n".join(f"{name}: {words}" for name, words in WHAT.items())
STYLE = """<style>
.stMainBlockContainer { padding-top: 4.5rem; }
[class*="st-key-grid_"] { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); align-items: stretch; }
.st-key-grid_cards [data-testid="stMetric"] * { white-space: normal; text-overflow: clip; }
.katex-display { overflow-x: auto; overflow-y: hidden; padding: 0.25rem 0; }
.stMarkdown table { display: block; overflow-x: auto; }
@media (max-width: 600px) { .st-key-grid_cards [data-testid="stMetricValue"] { font-size: 1.3rem; } }
</style>"""
"""Less empty space at the top, and grids that have as many columns as fit."""


LONG_COLLECTION = 0.015
"""Seconds of CPU that a full garbage collection may take."""
_collection = {"started": 0.0, "took": 0.0}


def _watch(phase: str, info: dict[str, int]) -> None:
    """Notes how long the last full garbage collection took."""
    if info["generation"] == 2:
        now = time.thread_time()
        _collection.update({"started": now} if phase == "start" else {"took": now - _collection["started"]})


def keep_for_good() -> None:
    """Puts what stays (modules, presets, derived formulas) out of the garbage collector's way once collections take long.

    Streamlit collects all garbage after every run, which takes a tenth of a second over what an import of sympy leaves behind.
    Objects are not counted for this: `gc.get_objects` holds on to tuples that other threads are still making.
    """
    if _watch not in gc.callbacks:
        gc.callbacks.append(_watch)
    if _collection["took"] > LONG_COLLECTION:
        gc.collect()
        gc.freeze()
        _collection["took"] = 0.0


def own_models() -> dict[str, Architecture]:
    """Models opened or made in this session, by name. They never leave it."""
    return st.session_state.setdefault("own_models", {})  # type: ignore[no-any-return]  # streamlit's state is untyped


def model_named(name: str) -> Architecture:
    """A preset, or a model of this session."""
    return own_models().get(name) or preset(name)


def yardstick() -> Architecture:
    """What others are measured against."""
    return load(YARDSTICK)


def scenario() -> Scenario:
    """The scenario that the controls, or the link, say."""
    return st.session_state["scenario"]  # type: ignore[no-any-return]  # streamlit's state is untyped


def chosen() -> list[Architecture]:
    """The scenario's models."""
    return [model_named(name) for name in scenario().models]


def open_link() -> None:
    """Reads the link once a session: every control starts from it, and what it says that is not understood is told."""
    if "notices" in st.session_state:
        return
    start, notices = Scenario.of({name: st.query_params.get_all(name) for name in st.query_params}, own_models())
    st.session_state["notices"] = notices
    for name in type(start).model_fields:
        value = getattr(start, name)
        st.session_state[name] = list(value) if isinstance(value, tuple) else value


def controls() -> None:
    """The sidebar: one control for each choice, each bound to the address."""
    names = [*own_models(), *presets()]
    st.multiselect("Models", names, key="models", max_selections=MAX_MODELS, **BOUND)
    here = st.session_state["context"]
    st.select_slider(
        "Tokens of context", sorted({*STOPS, here}), key="context", format_func=tokens, help=DEFINED["context"], **BOUND
    )
    st.number_input("Concurrent sequences", 1, MAX_WHOLE, key="batch", help=DEFINED["batch"], **BOUND)
    left, right = st.columns(2)
    left.selectbox("Weights", CHOICES["weights"], key="weights", help=DEFINED["weights"], **BOUND)
    right.selectbox("Cache", CHOICES["cache"], key="cache", help=DEFINED["cache"], **BOUND)
    left, right = st.columns([2, 1])
    left.selectbox("Accelerator", accelerators(), key="accelerator", **BOUND)
    right.number_input("Devices", 1, 100_000, key="devices", help=DEFINED["devices"], **BOUND)
    fits = st.empty()
    left, right = st.columns(2)
    left.radio("Cache view", CHOICES["view"], key="view", help=DEFINED["view"], **BOUND)
    right.radio("Units", CHOICES["units"], key="units", help=DEFINED["units"], **BOUND)
    with st.expander("More: traffic, limits, price"):
        _traffic()
    st.session_state["scenario"] = _gathered()
    told = "  \n".join(f"**{literal(title)}**: {literal(words)}" for title, words in answers(chosen(), scenario()))
    fits.caption(told or "No model is chosen.", help=DEFINED["answers"])


def _traffic() -> None:
    """What plans are asked: the traffic, its limits, the price, and what counts."""
    left, right = st.columns(2)
    told: dict[str, Any]
    for place, label, name, least, told in (
        (left, "Requests a second", "requests_per_s", 1e-6, {"max_value": 1e4, "step": 1.0, "format": "%g"}),
        (right, "Dollars an hour", "usd_per_hour", 0.0, {"max_value": 1e5, "step": 0.1, "format": "%g"}),
        (left, "Prompt, tokens", "prompt", 1, {"max_value": LONGEST}),
        (right, "Output, tokens", "output", 1, {"max_value": LONGEST}),
        (left, "First token, s", "ttft_s", 0.0, {"max_value": 1e4, "step": 0.5, "format": "%g"}),
        (right, "Each token, s", "tpot_s", 0.0, {"max_value": 1e4, "step": 0.01, "format": "%g"}),
    ):
        place.number_input(label, least, key=name, help=DEFINED[name], **told, **BOUND)
    st.selectbox("Best by", CHOICES["objective"], key="objective", help=DEFINED["objective"], **BOUND)


def _gathered() -> Scenario:
    """What all controls say; a picker that stands on its first model, or on one that is no longer chosen, says nothing."""
    state = st.session_state
    values = {name: state[name] for name in Scenario.model_fields if name in state}
    values |= {name: int(values[name]) for name in ("context", "batch", "devices", "prompt", "output")}
    values |= {name: float(values[name]) for name in NUMBERS}
    values |= {name: tuple(values[name]) for name in ("models", "edit")}
    for name, place in PICKERS.items():
        others = {*values["models"]} - {*values["models"][place : place + 1]}
        values[name] = values[name] if values.get(name) in others else ""
    return Scenario(**values)


PICKERS = {"model": 0, "other": 1}
"""The pickers of one of the chosen models, and the model each stands on first."""


def header(page: str) -> None:
    """Notices of the link, the verdict, Share and Export."""
    for notice in st.session_state["notices"]:
        st.warning(literal(notice), icon=":material/link_off:")
    now, models = scenario(), chosen()
    words, buttons = st.columns([3, 1], vertical_alignment="center")
    words.markdown(f"**{literal(verdict(models, now, accelerator(now.accelerator)))}**")
    row = buttons.container(horizontal=True, horizontal_alignment="right")
    with row.popover("Share", icon=":material/share:"):
        st.caption("This link opens the same page with the same numbers. It holds every choice.")
        st.code(shared_link(page), language=None, wrap_lines=True)
        st.caption("The same numbers on the command line and in Python:")
        st.code(now.command("compare", *now.models), language="sh", wrap_lines=True)
        if models:
            st.code(now.python(models[0].name), language="python", wrap_lines=True)
    export = row.popover("Export", icon=":material/download:", on_change="rerun", key="export")
    if export.open and models:
        with export:
            st.caption("The chosen models at this scenario, as a file. PDF, spreadsheet and all in one: page Report.")
            download("export", "costmodel", lambda form: scenario_file(form, models, now))


def download(key: str, name: str, written: Callable[[str], str]) -> str:
    """A choice of format and the button that saves it; gives the text that it saves. Only the chosen format is written."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        form: str = st.selectbox("Format", list(MEDIA), key=f"{key}_format", format_func=lambda form: MEDIA[form][0], width=240)
        text = written(form)
        st.download_button(
            "Download", text, f"{name}.{form}", MEDIA[form][1], key=f"{key}_download", on_click="ignore", icon=":material/download:"
        )
    return text


def shared_link(page: str) -> str:
    """The address of a page with the whole scenario."""
    return (st.context.url or "").partition("?")[0].rstrip("/").removesuffix(f"/{page}") + "/" + scenario().link(page)


def literal(text: str) -> str:
    """Text that streamlit's Markdown leaves as it is.

    >>> literal("[a](b) $x$ :red[y]")
    '\\\\[a\\\\](b) \\\\$x\\\\$ \\\\:red\\\\[y\\\\]'
    """
    return "".join(f"\\{character}" if character in "\\`*_{}[]<>#|~!&$:" else character for character in text)


def model_picker(label: str = "Model", key: str = "model") -> Architecture | None:
    """One of the chosen models."""
    names = list(scenario().models)
    if not names:
        st.info("Choose one to four models in the sidebar.")
        return None
    if st.session_state.get(key) not in names:
        st.session_state[key] = names[min(PICKERS[key], len(names) - 1)]
    return model_named(st.selectbox(label, names, key=key, **BOUND))


def quantity_picker(names: Sequence[str]) -> str:
    """One of the quantities that a page can show; one that it cannot gives way to the first."""
    if st.session_state.get("quantity") not in names:
        st.session_state["quantity"] = names[0]
    chosen: str = st.selectbox("Quantity", names, key="quantity", help=QUANTITY_WORDS, **BOUND)
    return chosen


def model_and_quantity() -> tuple[Architecture | None, str]:
    """The two pickers of a page that is about one quantity of one model."""
    left, right = st.columns(2)
    with left:
        model = model_picker()
    with right:
        return model, quantity_picker(QUANTITIES) if model else ""


def figure(drawn: Figure, words: str, key: str, rows: Sequence[dict[str, Any]] | None = None, **options: Any) -> Any:
    """A chart with words for those who do not see it, and its numbers as a table on demand."""
    event = st.plotly_chart(drawn, alt=words, key=f"chart_{key}", config={"displaylogo": False, "responsive": True}, **options)
    if st.toggle("Show as a table", key=f"table_{key}"):
        st.dataframe(_digits(rows if rows is not None else table_rows(drawn)), hide_index=True)
    return event


def _digits(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that a table can store: a column with a whole number beyond 64 bits becomes text, digit for digit."""
    wide = {name for row in rows for name, cell in row.items() if isinstance(cell, int) and abs(cell) > MAX_STORED}
    return [{name: str(cell) if name in wide else cell for name, cell in row.items()} for row in rows]


def table(shown: Table, key: str | None = None) -> None:
    """A table in the scenario's units, with its remarks."""
    st.dataframe(readable_rows(shown, scenario().units), hide_index=True, key=key)
    if shown.remarks:
        st.caption("  \n".join(literal(remark) for remark in shown.remarks))
