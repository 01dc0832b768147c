"""Cost: dollars of a million tokens, input and output apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from costmodel.answers.offers import accelerator_rows, cost_rows, offer
from costmodel.answers.promises import accelerators_sentence, cost_sentence, price_line, tornado_sentence
from costmodel.architecture import Architecture
from costmodel.catalog import accelerator
from costmodel.errors import CostModelError
from costmodel.figures.servecharts import costs, tornado
from costmodel.tables import Table
from costmodel.ui import frame


def page() -> None:
    """Bars of the chosen models, of one of them on every accelerator on demand, and what 10 % of each assumption changes."""
    now, models = frame.scenario(), frame.chosen()
    if not models:
        st.info("Choose one to four models in the sidebar.")
        return
    rows, device = cost_rows(models, now), accelerator(now.accelerator)
    words = cost_sentence(rows, now, device)
    st.markdown(f"**{frame.literal(words)}**")
    _bars(rows, words, "model")
    st.caption(frame.literal(f"{price_line(device, now)} {CAPTION}"))
    model = frame.model_picker()
    if model is None:
        return
    if st.toggle("Compare all accelerators with a price", key="every_accelerator"):
        others = accelerator_rows(model, now)
        words = accelerators_sentence(others, model.title)
        st.markdown(f"**{frame.literal(words)}**")
        _bars(others, words, "accelerator")
    st.subheader("What if I am wrong by 10 %?")
    _tornado(model)


def _bars(rows: Sequence[dict[str, Any]], words: str, key: str) -> None:
    """The bars of rows that have a price, and all rows with their reasons."""
    if any(row["usd_per_mtok_out"] is not None for row in rows):
        frame.figure(costs(rows, key), words, f"costs_{key}")
    for row in rows if key == "model" else ():
        if row["note"]:
            st.info(frame.literal(f"{row['title']}: {row['note']}"), icon=":material/info:")
    frame.table(Table(key, "Costs", [{name: cell for name, cell in row.items() if name != "model"} for row in rows]))


def _tornado(model: Architecture) -> None:
    """What 10 % of each assumption changes for one model."""
    try:
        changes = offer(model, frame.scenario()).why.sensitivity
    except CostModelError:
        changes = ()  # told above
    words = tornado_sentence(changes, model.title)
    st.markdown(frame.literal(words))
    if changes:
        frame.figure(tornado(changes), words, "tornado")
        st.caption("The layout and the formats stay, the batch is chosen anew, and engines are at full use.")


CAPTION = (
    "A whole bar is a million tokens of each. The devices' hours are shared by the time that prompts and outputs take; engines "
    "that wait for traffic are paid for too. Power is the datasheet's most."
)
