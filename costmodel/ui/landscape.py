"""Landscape: bigger models, cheaper inference: is it so?"""

from __future__ import annotations

import streamlit as st

from costmodel.answers.landscape import AXES, landscape_rows
from costmodel.answers.sentences import landscape_sentence
from costmodel.catalog import load, presets
from costmodel.figures.charts import landscape
from costmodel.scenario import CHOICES, MAX_MODELS
from costmodel.tables import Table
from costmodel.ui import frame


def page() -> None:
    """Every preset as a point; a click adds the model to the chosen ones."""
    now = frame.scenario()
    left, right = st.columns(2)
    against = left.selectbox("Height", list(AXES), key="height", **frame.BOUND)
    along = right.radio("Along", CHOICES["along"], key="along", horizontal=True, **frame.BOUND)
    rows = landscape_rows([*(load(name) for name in presets()), *frame.own_models().values()], now)
    words = landscape_sentence(rows, against, now)
    drawn = landscape(rows, against, along, now, now.models)
    table = Table("landscape", "Landscape", rows, {"params_total": "parameters", "params_active": "parameters", **AXES})
    frame.figure(drawn, words, "landscape", on_select=_open, selection_mode="points", height=560)
    st.markdown(f"**{frame.literal(words)}**")
    st.caption("Click a point to add that model to the chosen ones; with four chosen, the last makes room.")
    frame.table(table)


def _open() -> None:
    points = st.session_state["chart_landscape"]["selection"]["points"]
    name = next((point["customdata"] for point in points if point.get("customdata")), None)
    name = name[0] if isinstance(name, list) else name
    if name and name not in st.session_state["models"]:
        st.session_state["models"] = [*st.session_state["models"][: MAX_MODELS - 1], name]
