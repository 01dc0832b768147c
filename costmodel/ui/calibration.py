"""Calibration: how true is it here?"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import streamlit as st

from costmodel.answers.sentences import calibration_sentence
from costmodel.calibration.report import class_name, point_rows, scores_tables, summary_table
from costmodel.calibration.store import Calibration, calibration_of, read_calibration
from costmodel.catalog import accelerator, calibration_file, calibrations
from costmodel.errors import CostModelError, shown
from costmodel.figures.charts import predicted_measured, residuals
from costmodel.ui import frame


def page() -> None:
    """A calibration's points, measured against predicted, and the errors of all its classes."""
    with st.expander("Open a calibration of your own machine (`costmodel calibrate` writes one)", icon=":material/upload_file:"):
        _upload()
    stored = _picked()
    names = [class_name(measured) for measured in stored.classes]
    if st.session_state.get("kernels") not in names:
        st.session_state["kernels"] = names[0]
    chosen = st.selectbox("Kernels", names, key="kernels", **frame.BOUND)
    measured = stored.classes[names.index(chosen)]
    device = accelerator(stored.accelerator)
    rows = point_rows(stored, chosen, device)
    words = calibration_sentence(chosen, measured.held_out, measured.roofline, device.title)
    st.markdown(f"**{frame.literal(words)}**")
    left, right = st.columns(2)
    with left:
        frame.figure(
            predicted_measured(rows, measured.spread), f"Predicted against measured seconds. {words}", "predicted", rows, height=420
        )
    with right:
        drawn = residuals(rows, measured.spread)
        frame.figure(drawn, f"Errors against measured seconds. {words}", "residuals", rows, height=420)
    if measured.check_seconds is None:
        st.caption(
            f"The {measured.held_out.n:,} points that were scored are others' tables and not shipped; the fitted ones are shown."
        )
    st.caption(
        "Dotted: the interval that is meant to hold 90 % of points that were not fitted. Fitted points lie near the line because "
        "the fit was made for them: the others tell how far off it is."
    )
    st.caption(frame.literal(f"{measured.source}. {' '.join(stored.notes)}"))
    for table in (*scores_tables(stored, chosen), summary_table(stored)):
        st.subheader(table.title)
        frame.table(table)


def _picked() -> Calibration:
    """The one chosen; at first the accelerator's, or else the first."""
    names = [*_own(), *calibrations()]
    if st.session_state.get("calibration") not in names:
        wanted = frame.scenario().accelerator
        st.session_state["calibration"] = wanted if wanted in names else "h100-sxm"
    name = st.selectbox("Calibration", names, key="calibration", **frame.BOUND)
    return _own().get(name) or _shipped(name)


def _own() -> dict[str, Calibration]:
    """Calibrations opened in this session, by name. They never leave it."""
    return st.session_state.setdefault("own_calibrations", {})  # type: ignore[no-any-return]  # streamlit's state is untyped


@lru_cache(maxsize=16)
def _shipped(name: str) -> Calibration:
    return read_calibration(calibration_file(name))


def _upload() -> None:
    st.file_uploader("my-machine.json, at most 1 MB; it stays in this session", ["json"], key="own_calibration", on_change=_open)
    if st.session_state.get("calibration_error"):
        st.error(frame.literal(st.session_state["calibration_error"]), icon=":material/error:")


def _open() -> None:
    """Takes what was uploaded; where it is no calibration, says why."""
    uploaded: Any = st.session_state["own_calibration"]
    st.session_state["calibration_error"] = ""
    if uploaded is None:
        return
    try:
        found = calibration_of(uploaded.getvalue(), shown(uploaded.name))
        accelerator(found.accelerator)
        for measured in found.classes:
            measured.fit(accelerator(found.accelerator))
    except CostModelError as error:
        st.session_state["calibration_error"] = str(error)
        return
    name = f"{found.name} (opened)"
    _own()[name] = found
    st.session_state["calibration"] = name
