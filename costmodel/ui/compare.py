"""Compare: why do A and B differ?"""

from __future__ import annotations

import streamlit as st

from costmodel.answers.sentences import walk_sentence
from costmodel.answers.summary import STEPS, diff_table, unequal_table
from costmodel.comparison import DIFFERENCES, diff_rows
from costmodel.figures.charts import waterfall
from costmodel.scenario import CHOICES, SAME
from costmodel.ui import frame


def page() -> None:
    """The walk from A to B, one change a step, and what is unequal."""
    now = frame.scenario()
    columns = st.columns(5)
    with columns[0]:
        first = frame.model_picker("From", "model")
    with columns[1]:
        last = frame.model_picker("To", "other")
    if first is None or last is None:
        return
    with columns[2]:
        name = frame.quantity_picker(DIFFERENCES)
    weights = columns[3].selectbox("Its weights", CHOICES["to_weights"], key="to_weights", **frame.BOUND)
    cache = columns[4].selectbox("Its cache", CHOICES["to_cache"], key="to_cache", **frame.BOUND)
    stored = {
        "precision": (now.weights, now.weights if weights == SAME else weights),
        "cache_precision": (now.cache, now.cache if cache == SAME else cache),
    }
    start, steps, end = diff_rows(first, last, now.context, now.batch, **stored)
    words = walk_sentence(start, steps, end, name, STEPS[name], now.units)
    frame.figure(waterfall(start, steps, end, name, STEPS[name], now.units), words, "walk")
    st.markdown(f"**{frame.literal(words)}**")
    frame.table(diff_table(first, last, now.context, now.batch, **stored))
    st.subheader("What is unequal")
    frame.table(unequal_table(first, last))
