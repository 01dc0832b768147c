"""Roofline: compute or bandwidth?"""

from __future__ import annotations

import streamlit as st

from costmodel.answers.intensity import measured_rows, pass_rows
from costmodel.answers.sentences import roofline_sentence
from costmodel.catalog import accelerator
from costmodel.errors import CostModelError
from costmodel.figures.charts import roofline
from costmodel.tables import Table
from costmodel.ui import frame

UNITS = {"seconds": "s", "flops": "FLOP", "bytes": "bytes", "flops_per_s": "FLOP/s"}


def page() -> None:
    """The accelerator's roof, with the prefill and decode steps of the chosen models under it."""
    now, device = frame.scenario(), accelerator(frame.scenario().accelerator)
    try:
        rows = pass_rows(frame.chosen(), now)
    except CostModelError as error:
        st.error(frame.literal(str(error)), icon=":material/error:")
        return
    measured, words = measured_rows(now), roofline_sentence(rows, device)
    st.markdown(f"**{frame.literal(words)}**")
    if not rows:
        return
    frame.figure(roofline(rows, measured, device), words, "roofline", height=560)
    if any(row["state"] == "datasheet" for row in rows):
        st.caption(
            "Some of these kernels were not measured there: their time is a datasheet's guess, off by a factor of 2 at times."
        )
    st.caption(
        "Prefill: one sequence of the whole context. Decode: the next token of 1 to 512 sequences at that context. Rates are of "
        "one device, all devices sharing each layer; above the roof is out of reach."
    )
    shown = [{name: cell for name, cell in row.items() if name not in ("title", "formats")} for row in rows]
    frame.table(Table("roofline", "Passes", shown, UNITS))
