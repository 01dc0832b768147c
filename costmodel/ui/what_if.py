"""What-if: my own architecture."""

from __future__ import annotations

from typing import Any

import streamlit as st

from costmodel.answers.sentences import cache_sentence, chart_words
from costmodel.answers.summary import comparison_table, diff_table, unequal_table
from costmodel.architecture import Architecture
from costmodel.catalog import as_toml, load, opened, presets
from costmodel.errors import CostModelError
from costmodel.figures.charts import cache_curves
from costmodel.scenario import MAX_EDITS, MAX_MODELS
from costmodel.ui import frame
from costmodel.variants import Knob, as_edits, edited, groups_to_take, knobs, read_edits

EDITOR = "what_if_"


def page() -> None:
    """A chosen model with changes, against itself without them."""
    with st.expander("Open a model's config.json, or an architecture file (TOML)", icon=":material/upload_file:"):
        _upload()
    base = frame.model_picker("Start from")
    if base is None:
        return
    changed = _changed(base)
    editor, result = st.columns([2, 3], gap="medium")
    with editor:
        _editor(base, changed or base)
    with result:
        if changed is not None:
            _result(base, changed)
        st.button("Undo all changes", on_click=_reset, disabled=not st.session_state["edit"], icon=":material/undo:")


def _result(base: Architecture, changed: Architecture) -> None:
    """The changed model beside the base, as a chart and in numbers, and what each change costs."""
    now = frame.scenario()
    ghost = base if changed is not base else None
    words = cache_sentence([changed], now, ghost)
    drawn = cache_curves([changed], now, ghost)
    frame.figure(drawn, f"{chart_words([changed, base], now)} {words}", "what_if", height=400)
    st.markdown(f"**{frame.literal(words)}**")
    with st.container(horizontal=True):
        st.download_button(
            "Save as TOML", as_toml(changed), f"{changed.name}.toml", "application/toml", on_click="ignore", icon=":material/save:"
        )
        st.button(
            "Keep as a model", on_click=_keep, args=(changed,), help="Adds it to the models of this session", icon=":material/add:"
        )
    if changed is not base:
        frame.table(diff_table(base, changed, now.context, now.batch, now.weights, now.cache))
        frame.table(unequal_table(base, changed))
    frame.table(
        comparison_table([base, changed] if changed is not base else [base], now.context, now.batch, now.weights, now.cache)
    )


def _changed(base: Architecture) -> Architecture | None:
    """The base with the scenario's changes; None, and why, where they are impossible."""
    edits = st.session_state["edit"]
    try:
        if not edits:
            return base
        changed = edited(base, read_edits(edits))
        return changed.model_copy(update={"name": f"{base.name[:70]}-changed", "title": f"{base.title}, changed"})
    except CostModelError as error:
        st.error(frame.literal(str(error)), icon=":material/error:")
        return None


def _editor(base: Architecture, shown: Architecture) -> None:
    """The changes made so far, then a widget for everything that may be changed, by layer group."""
    st.multiselect(
        "Changes", st.session_state["edit"], key="edit", accept_new_options=True, max_selections=MAX_EDITS,
        placeholder="none yet; or type a path=value",
        help="Take one out to undo it. A path is that of an architecture file, such as local/mixer/sliding_window=4096.",
        **frame.BOUND,
    )  # fmt: skip
    for heading, own in knobs(shown).items():
        with st.expander(heading if heading != "model" else "The whole model", expanded=heading == shown.layers[0].name):
            with st.container(key=f"grid_{heading}"):
                for knob in own:
                    _widget(base, knob)
            if heading != "model":
                _take(base, heading)
    names = [group.name for group in shown.layers]
    st.selectbox("Add layers like those of", [None, *_all_groups()], key=f"{EDITOR}add", on_change=_add, args=(names,))


def _all_groups() -> list[str]:
    return [f"{name}/{group.name}" for name in presets() for group in load(name).layers]


def _add(names: list[str]) -> None:
    """A new layer group, taken from a preset under a name that is free."""
    taken = st.session_state[f"{EDITOR}add"]
    st.session_state[f"{EDITOR}add"] = None
    if taken:
        free = next(name for number in range(1, 1_000) if (name := f"added-{number}") not in names)
        st.session_state["edit"] = [*st.session_state["edit"], f"{free}={taken}"]


def _widget(base: Architecture, knob: Knob) -> None:
    key = f"{EDITOR}{base.name}/{knob.path}"
    st.session_state[key] = knob.value
    told: dict[str, Any] = {"key": key, "help": knob.meaning or None, "on_change": _edit, "args": (base.name, knob.path)}
    if knob.choices:
        st.selectbox(knob.label, knob.choices, format_func=_said, **told)
    else:
        st.number_input(knob.label, 0, 10**9, None if knob.optional else "min", 1, placeholder="none", **told)


def _said(value: Any) -> str:
    return {None: "none", True: "yes", False: "no"}.get(value, str(value))


def _edit(base: str, path: str) -> None:
    """Takes one change into the scenario; a value as it was takes it out."""
    value = st.session_state[f"{EDITOR}{base}/{path}"]
    others = [text for text in st.session_state["edit"] if text.partition("=")[0] != path]
    was: object
    try:
        found = edited(frame.model_named(base), read_edits(others))
        was = {knob.path: knob.value for own in knobs(found).values() for knob in own}.get(path)
    except CostModelError:  # one of the others is impossible: the page says so
        was = NOTHING
    st.session_state["edit"] = others if was == value else [*others, *as_edits({path: value})][-MAX_EDITS:]


NOTHING = object()


def _take(base: Architecture, group: str) -> None:
    """Another mixer or feed-forward layer for a group, taken from a preset."""
    others = [load(name) for name in presets()]
    left, right = st.columns(2)
    for column, part in ((left, "mixer"), (right, "feed_forward")):
        path = f"{group}/{part}"
        key = f"{EDITOR}{base.name}/{path}"
        names = list(groups_to_take(others, part))
        said = [text.partition("=")[2] for text in st.session_state["edit"] if text.startswith(f"{path}=")]
        st.session_state[key] = said[-1] if said and said[-1] in names else None
        column.selectbox(
            f"{part} taken from",
            [None, *names],
            format_func=lambda name: name or "itself",
            key=key,
            on_change=_edit,
            args=(base.name, path),
        )


def _reset() -> None:
    st.session_state["edit"] = []


def _keep(model: Architecture) -> None:
    """Makes the changed model one of the session's, and chooses it."""
    name = next(name for number in range(1, 10_000) if (name := f"{model.name[:60]}-{number}") not in frame.own_models())
    _own(model.model_copy(update={"name": name, "title": f"{model.title} ({name.rpartition('-')[2]})"}))


def _own(model: Architecture) -> None:
    frame.own_models()[model.name] = model
    names = [name for name in st.session_state["models"] if name != model.name]
    st.session_state["models"] = [*names[: MAX_MODELS - 1], model.name]
    st.session_state["model"] = model.name
    _reset()


def _upload() -> None:
    st.file_uploader(
        "config.json or architecture.toml, at most 1 MB; it stays in this session", ["json", "toml"], key="upload", on_change=_open
    )
    for kind, told in st.session_state.get("opened", ()):
        (st.error if kind == "error" else st.success)(frame.literal(told))


def _open() -> None:
    """Reads what was uploaded; a mistake is one line, and the session lives on."""
    file = st.session_state["upload"]
    if file is None:
        st.session_state["opened"] = ()
        return
    try:
        model, told = opened(file.name, file.getvalue())
    except CostModelError as error:
        st.session_state["opened"] = (("error", str(error)),)
        return
    if model.name in presets():
        model = model.model_copy(update={"name": f"my-{model.name[:76]}"})
    _own(model)
    st.session_state["opened"] = (("done", f"{model.title} is open in this session. {told}"),)
