"""The live chart as a component: curves follow the slider in the browser, and the scenario follows on release."""

from __future__ import annotations

from typing import Any

import streamlit as st

from costmodel.figures.live import asset

MOUNT = """
export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let root = parentElement.querySelector(".live-root");
  if (!root) { root = document.createElement("div"); root.className = "live-root"; parentElement.appendChild(root); }
  liveChart(root, data, (values) => setTriggerValue("released", values));
}
"""


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    return st.components.v2.component("costmodel_live", css=asset("live.css"), js=asset("live.js") + MOUNT)


def live(data: dict[str, Any], key: str) -> None:
    """Shows a live chart; letting a slider go sets the scenario's control of that name."""

    def follow() -> None:
        released = st.session_state[key].get("released") or {}
        for slider in data["sliders"]:
            value = released.get(slider["name"])
            if isinstance(value, (int, float)) and slider["low"] <= value <= slider["high"]:
                st.session_state[slider["name"]] = int(value)

    _component()(key=key, data=data, on_released_change=follow)
