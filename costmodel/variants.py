"""Architectures with a few things changed: by path, as a link or a file can say it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from costmodel.architecture import Architecture
from costmodel.blocks.base import letters_of
from costmodel.catalog import preset as from_preset
from costmodel.catalog import presets, validate
from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.layers import LayerGroup
from costmodel.symbols import LETTERS

TOP = ("hidden_size", "vocab_size", "tie_word_embeddings", "max_position_embeddings")
"""Fields of the whole architecture that may be changed."""
PARTS = ("mixer", "feed_forward")
Value = int | bool | str | None


@dataclass(frozen=True)
class Knob:
    """One thing that may be changed: where it stands, its value, the choices it has (none: a whole number), and its meaning."""

    path: str
    label: str
    value: Value
    choices: tuple[Value, ...] = ()
    optional: bool = False
    meaning: str = ""


def knobs(model: Architecture) -> dict[str, list[Knob]]:
    """Everything that may be changed, by heading: the model's own fields, then each layer group's.

    >>> import costmodel as cm
    >>> [knob.path for knob in knobs(cm.load("gemma-3-27b"))["local"]][:2]
    ['local/count', 'local/mixer/num_attention_heads']
    """
    found = {"model": [_knob(model, name, name) for name in TOP]}
    for group in model.layers:
        own = [Knob(f"{group.name}/count", "count", group.count, meaning="layers of this kind; 0 leaves them out")]
        for part in PARTS:
            block = getattr(group, part)
            if block is not None:
                own += [_knob(block, f"{group.name}/{part}/{name}", name) for name in type(block).model_fields if name != "kind"]
        found[group.name] = own
    return found


def _knob(owner: BaseModel, path: str, name: str) -> Knob:
    about = type(owner).model_fields[name]
    letter = letters_of(type(owner)).get(name) if hasattr(owner, "kind") else None
    meaning = LETTERS[letter.name].meaning if letter is not None else (about.description or "")
    kinds = _kinds(about.annotation)
    choices = _choices(about, kinds)
    return Knob(path, name, getattr(owner, name), choices, type(None) in kinds and not choices, meaning)


def _kinds(annotation: Any) -> list[Any]:
    """The plain types within an annotation."""
    inner = get_args(annotation)
    return [kind for part in inner for kind in _kinds(part)] if inner and not isinstance(annotation, type) else [annotation]


def _choices(about: FieldInfo, kinds: list[Any]) -> tuple[Value, ...]:
    if bool in kinds:
        return (False, True)
    texts = tuple(kind for kind in kinds if isinstance(kind, str))
    return (*((None,) if type(None) in kinds or None in kinds else ()), *texts) if texts else ()


def edited(model: Architecture, changes: Mapping[str, Value]) -> Architecture:
    """The architecture with some things changed, checked like a file.

    A path is a field of the model (`hidden_size`), a group's number of layers (`local/count`; 0 leaves the group out),
    a field of its mixer or feed-forward layer (`local/mixer/sliding_window`), a whole part or a new group taken from
    another preset (`local/mixer`: `deepseek-v3/moe`). A pattern that no longer fits the counts is dropped: groups then
    follow each other, which costs the same.

    Raises CostModelError for an unknown path or an impossible value.

    >>> import costmodel as cm
    >>> wider = edited(cm.load("gemma-3-27b"), {"local/mixer/sliding_window": 4096})
    >>> wider.cache_bytes(context=131_072) - cm.load("gemma-3-27b").cache_bytes(context=131_072)
    1308622848
    """
    data = model.model_dump()
    groups: dict[str, dict[str, Any]] = {group["name"]: group for group in data["layers"]}
    for path, value in sorted(changes.items(), key=lambda change: change[0].count("/") + 2 * (change[0].endswith("/count"))):
        _change(data, groups, path, value)
    data["layers"] = [group for group in groups.values() if group["count"] != 0]
    if any(path.endswith("/count") or ("/" not in path and path not in TOP) for path in changes):
        data["pattern"] = ()
    data["reference"] = ()
    return validate(data, f"{model.name} with changes")


def _change(data: dict[str, Any], groups: dict[str, dict[str, Any]], path: str, value: Value) -> None:
    name, *within = path.split("/")
    if not within and name in TOP:
        data[name] = value
    elif not within:
        groups[name] = {**_taken(data["name"], groups, value).model_dump(), "name": name}
    elif name not in groups:
        raise CostModelError(f"no layer group {shown(name)}; {did_you_mean(name, groups)}")
    elif within == ["count"]:
        groups[name]["count"] = value
    elif len(within) == 1 and within[0] in PARTS:
        part = getattr(_taken(data["name"], groups, value), within[0]) if value is not None else None
        groups[name][within[0]] = None if part is None else part.model_dump()
    else:
        block = groups[name].get(within[0]) if within[0] in PARTS else None
        if block is None or len(within) != 2 or within[1] not in block or within[1] == "kind":
            raise CostModelError(f"nothing to change at {shown(path)}; {did_you_mean(path, _paths(groups))}")
        block[within[1]] = value


def _paths(groups: dict[str, dict[str, Any]]) -> list[str]:
    return [f"{name}/{part}/{field}" for name, group in groups.items() for part in PARTS for field in group.get(part) or ()]


def _taken(own: str, groups: dict[str, dict[str, Any]], value: Value) -> LayerGroup:
    """A group of a preset, `preset/group`, or of the model itself, `group`."""
    if not isinstance(value, str):
        raise CostModelError(f"got {shown(value)}; name a layer group to take, such as deepseek-v3/moe")
    preset, _, name = value.rpartition("/")
    if preset and preset not in presets():  # a link says this: it must not open files
        raise CostModelError(f"no preset {shown(preset)} to take layers from; {did_you_mean(preset, presets())}")
    known = (
        {group.name: group for group in from_preset(preset).layers}
        if preset
        else {key: LayerGroup.model_validate(group) for key, group in groups.items()}
    )
    if name not in known:
        raise CostModelError(f"{preset or own} has no layer group {shown(name)}; {did_you_mean(name, known)}")
    return known[name]


def as_edits(changes: Mapping[str, Value]) -> tuple[str, ...]:
    """Changes as texts that a link can carry.

    >>> as_edits({"local/mixer/sliding_window": None, "hidden_size": 64})
    ('local/mixer/sliding_window=none', 'hidden_size=64')
    """
    words = {None: "none", True: "yes", False: "no"}
    return tuple(f"{path}={words[value] if value is None or isinstance(value, bool) else value}" for path, value in changes.items())


def read_edits(texts: Iterable[str]) -> dict[str, Value]:
    """The changes that such texts say. Raises CostModelError for a text that is no change."""
    return dict(_read(text) for text in texts)


def _read(text: str) -> tuple[str, Value]:
    path, equals, value = text.partition("=")
    if not (path and equals and value):
        raise CostModelError(f"{shown(text)} is no change; give a path and a value, such as local/mixer/sliding_window=4096")
    if value in WORDS:
        return path, WORDS[value]
    digits = value.removeprefix("-")
    return path, int(value) if digits.isascii() and digits.isdigit() and len(digits) < 20 else value


WORDS: dict[str, Value] = {"none": None, "yes": True, "no": False}


def groups_to_take(models: Iterable[Architecture], part: str) -> Iterator[str]:
    """Where a mixer or a feed-forward layer may be taken from: `preset/group`, one for each kind of block first seen."""
    seen = set()
    for model in models:
        for group in model.layers:
            block = getattr(group, part)
            if block is not None and (model.name, block.kind) not in seen:
                seen.add((model.name, block.kind))
                yield f"{model.name}/{group.name}"
