"""Serve: what can I promise?"""

from __future__ import annotations

import streamlit as st

from costmodel.answers.offers import layout_rows, offer, python_line
from costmodel.answers.promises import front_words, held_line, serve_sentence, waits
from costmodel.errors import CostModelError
from costmodel.figures.servecharts import pareto
from costmodel.tables import Table
from costmodel.ui import frame

UNITS = {
    "ttft_s": "s", "tpot_s": "s", "free_bytes": "bytes", "utilisation": "share", "tokens_per_s_per_user": "tokens/s",
    "output_tokens_per_s_per_device": "tokens/s",
}  # fmt: skip


def page() -> None:
    """The verdict, the Pareto front with the limits shaded, the best layouts with what binds each, and inverse answers."""
    now, model = frame.scenario(), frame.model_picker()
    if model is None:
        return
    try:
        found = offer(model, now)
    except CostModelError as error:
        st.info(frame.literal(str(error)), icon=":material/info:")
        return
    words = serve_sentence(found, now)
    st.markdown(f"**{frame.literal(words)}**")
    st.caption(frame.literal(waits(found)))
    if found.front:
        frame.figure(pareto(found, now), f"{words} {front_words(found, now)}", "pareto", height=480)
    st.caption(CAPTION)
    st.subheader("The best layouts" if found.best else "The nearest miss")
    if rows := list(layout_rows(found)):
        frame.table(Table("layouts", "Layouts", rows, UNITS))
    st.caption(BINDS)
    st.subheader("The other way round")
    st.markdown(frame.literal(held_line(found)))
    st.caption("Memory of the fullest device: pages of the cache, activations, buffers and 10 % for the runtime count.")
    st.code(python_line(model, now), language="python", wrap_lines=True)


CAPTION = (
    "Requests, their lengths and limits are in the sidebar under More; its formats and number of devices hold too. Each point is a "
    "layout and a batch at full use that no other beats; for first tokens in time it may take more replicas."
)
BINDS = (
    "TTFT: seconds to the first token with its queue, for 90 % of the requests. TPOT: seconds between tokens, pauses for others' "
    "prompts included. Binds: what keeps a larger batch from being cheaper. Disaggregated: prompts have replicas of their own."
)
