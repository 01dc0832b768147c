"""Anatomy: where are parameters, FLOPs and bytes?"""

from __future__ import annotations

import streamlit as st

from costmodel.answers.anatomy import anatomy_sentence, layer_runs, part_rows
from costmodel.figures.charts import icicle, layer_strip
from costmodel.tables import Table
from costmodel.ui import frame


def page() -> None:
    """The layers as a strip, then a quantity's parts within parts."""
    now = frame.scenario()
    model, name = frame.model_and_quantity()
    if model is None:
        return
    formula = now.formula(model, name)
    rows = part_rows(formula, now.inputs(formula))
    words = anatomy_sentence(model, now, rows)
    frame.figure(layer_strip(model), f"The layers of {model.title}, first to last. {words}", "strip", layer_runs(model))
    st.markdown(f"**{frame.literal(words)}**")
    frame.figure(icicle(model, rows, formula.unit, now.units), words, "parts", rows)
    st.caption("Each part's formula stands in the table; the parts of a part sum to it exactly.")
    frame.table(Table("parts", "Parts", [row for row in rows if row["path"].count("/") <= 2], {"value": formula.unit}))
