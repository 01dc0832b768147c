"""Report: take it away."""

from __future__ import annotations

from functools import partial

import streamlit as st

from costmodel.reporting import MEDIA, report
from costmodel.ui import frame


def page() -> None:
    """One model's report in every format, and its preview."""
    now = frame.scenario()
    model = frame.model_picker()
    if model is None:
        return
    with st.container(horizontal=True):
        for form, (name, mime) in MEDIA.items():
            st.download_button(
                name, partial(report, model, form, context=now.context, batch=now.batch), f"{model.name}.{form}", mime,
                key=f"report_{form}", on_click="ignore",
            )  # fmt: skip
    st.code(now.command("report", model.name), language="sh", wrap_lines=True)
    with st.container(border=True):
        st.markdown(report(model, "md", context=now.context, batch=now.batch))
