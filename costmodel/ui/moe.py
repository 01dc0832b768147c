"""MoE: how much of a model works on a token?"""

from __future__ import annotations

import streamlit as st

from costmodel.answers.landscape import sized_rows
from costmodel.answers.sentences import experts_sentence
from costmodel.catalog import load, presets
from costmodel.figures.charts import active_total, touched_curves
from costmodel.ui import frame


def page() -> None:
    """Active against total parameters, and the experts that a pass touches."""
    now, models = frame.scenario(), frame.chosen()
    rows = sized_rows([*(load(name) for name in presets()), *frame.own_models().values()])
    words = experts_sentence(models)
    frame.figure(
        active_total(rows, now.models),
        "Active against total parameters of every model, with lines at 100, 10, 5 and 3 %.",
        "active",
        height=480,
    )
    st.subheader("Experts that a pass reads")
    st.markdown(f"**{frame.literal(words)}**")
    experts = [model for model in models if model.experts]
    if experts:
        frame.figure(touched_curves(experts), words, "touched", height=420)
        st.caption("Expected number of distinct experts, routing taken as uniform and independent: E (1 - (1 - k/E)^N).")
