"""Formulas: is it right?"""

from __future__ import annotations

import streamlit as st

from costmodel.answers.derivations import derivation
from costmodel.reporting import published_table
from costmodel.ui import frame


def page() -> None:
    """Letters, numbers, value, source, published values, and the formula to take away."""
    now = frame.scenario()
    model, name = frame.model_and_quantity()
    if model is None:
        return
    steps = derivation(model, now, name)
    st.subheader("In letters, layer by layer")
    for part in steps.parts:
        st.markdown(frame.literal(part.title))
        st.latex(part.latex)
        st.caption(frame.literal(part.letters))
    st.subheader("With this model's numbers")
    st.latex(steps.latex)
    st.markdown(f"`{steps.substituted}`")
    st.markdown(f"**= {frame.literal(steps.value)}**")
    st.caption(frame.literal(f"Structure from: {steps.source}. Numbers from: {model.source}. Status: {steps.status}."))
    frame.table(steps.table)
    st.subheader("Published values and ours")
    frame.table(published_table(model))
    st.subheader("Take it away")
    for tab, (language, text) in zip(st.tabs(list(steps.copies)), steps.copies.values(), strict=True):
        tab.code(text, language=language, wrap_lines=True)
