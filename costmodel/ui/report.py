"""Report: take it away."""

from __future__ import annotations

from functools import partial

import streamlit as st

from costmodel.answers.sentences import cache_sentence
from costmodel.architecture import Architecture
from costmodel.reporting import WRITERS, documents, scenario_report
from costmodel.reporting.grounds import about, commands
from costmodel.scenario import Scenario
from costmodel.ui import frame

WITHIN = (
    "A report has the verdict, figures, every table with its formulas, what fits where and at what price, published values beside "
    "ours, what is assumed, and lines that give the same digits."
)


def page() -> None:
    """The report of one model, or of all chosen, in every format: written when it is downloaded, and shown on demand."""
    now, model = frame.scenario(), frame.model_picker()
    if model is None:
        return
    several = len(now.models) > 1 and st.toggle("Compare all chosen models", key="report_all")
    models = frame.chosen() if several else [model]
    st.markdown(f"# {frame.literal(', '.join(each.title for each in models))}\n\n{frame.literal(cache_sentence(models, now))}")
    st.caption(WITHIN)
    _download(models, now)
    for each in commands(models, about(now, models)):
        st.code(each.text, language=each.language, wrap_lines=True)
    if st.toggle("Preview", key="report_preview"):
        st.iframe(scenario_report(models, now).write("html"), height=800)


def _download(models: list[Architecture], now: Scenario) -> None:
    """A choice of format, and the button that has it written."""
    forms, name = documents(), "-".join(model.name for model in models)[:120]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        form: str = st.selectbox("Format", list(forms), key="report_format", format_func=lambda form: forms[form][0], width=340)
        st.download_button(
            "Download", partial(written, models, now, form), f"{name}.{form}", forms[form][1], key="report_download",
            on_click="ignore", icon=":material/download:",
        )  # fmt: skip


def written(models: list[Architecture], now: Scenario, form: str) -> str | bytes:
    """The report in a format."""
    return WRITERS[form](scenario_report(models, now))  # type: ignore[no-any-return]  # each writes a text or bytes
