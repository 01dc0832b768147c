"""Report: take it away."""

from __future__ import annotations

import streamlit as st

from costmodel.reporting import report
from costmodel.ui import frame


def page() -> None:
    """One model's report in every format, and its preview."""
    now = frame.scenario()
    model = frame.model_picker()
    if model is None:
        return
    text = frame.download("report", model.name, lambda form: report(model, form, context=now.context, batch=now.batch))
    st.code(now.command("report", model.name), language="sh", wrap_lines=True)
    with st.container(border=True):
        if st.session_state["report_format"] == "md":
            st.markdown(text)
        elif st.session_state["report_format"] == "html":
            st.iframe(text, height=800)
        else:
            st.code(text, language=None, height=800)
