"""Hugging Face's `config.json` as an Architecture. Every field is used, known to carry no cost, or refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError

from costmodel.architecture import Architecture
from costmodel.errors import CostModelError, UnsupportedArchitecture, did_you_mean, excerpt, shown
from costmodel.importers.costless import COSTLESS, EVERYWHERE, TOKENS
from costmodel.importers.fields import Fields, read
from costmodel.importers.recipes import RECIPES, Nested, Recipe, Tower
from costmodel.importers.recipes.base import CHUNKED, DENSE, FULL, LINEAR, NONE, SLIDING, SPARSE
from costmodel.importers.stored import INDEX, MAX_INDEX_BYTES, StoredSize, compared, stored_as, total_size
from costmodel.layers import MAX_LAYERS
from costmodel.workload import Precision, one_line

MAX_CONFIG_BYTES = 1 << 20
ENTRY = tuple[str, Any]


@dataclass(frozen=True)
class Imported:
    """An architecture, and what became of each field of its config.

    `used` are (field, value), `ignored` (field, why it carries no cost), `assumed` (field, what stands for a missing one).
    `precision` is that of the published weights where the files say it in our words. `stored` compares the published
    checkpoint's size with ours, where it is known. `remarks` are what a reader should know beside.
    """

    architecture: Architecture
    used: tuple[ENTRY, ...]
    ignored: tuple[ENTRY, ...]
    assumed: tuple[ENTRY, ...]
    precision: Precision | None = None
    stored: StoredSize | None = None
    remarks: tuple[str, ...] = ()


def read_config(text: str, name: str, index: str | None = None, repository: str = "", place: str = "") -> Imported:
    """The architecture that a `config.json` describes; `name`, a file's, names it, and `place` (or the name) stands in errors.

    `index` is the text of a `model.safetensors.index.json`: the size it states is compared with ours. `repository` is the
    model's name where it was published, if known; else the config may say it.

    A key that is given twice is refused. Raises UnsupportedArchitecture for a model_type, a field or a value that is not
    modelled, CostModelError for what is no config.

    >>> sizes = '"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 100'
    >>> tiny = read_config('{"model_type": "llama", "rope_theta": 1e4, ' + sizes + '}', "tiny.json")
    >>> tiny.architecture.name, tiny.architecture.params.total
    ('tiny', 95040)
    >>> tiny.ignored
    (('rope_theta', 'constants of rope'),)
    >>> dict(tiny.assumed)["num_key_value_heads"]
    4
    """
    where = shown(place or name)[1:-1]
    config = _object(text, where)
    found = read_fields(config, name, where, repository=repository)
    if index is None:
        return found
    published = total_size(_object(index, INDEX, MAX_INDEX_BYTES), INDEX)
    return replace(found, stored=compared(found.architecture, published, stored_as(config, found.precision), INDEX))


def read_fields(config: dict[str, Any], name: str, where: str, kind_of_file: str = "config.json", repository: str = "") -> Imported:
    """The architecture that a config's fields describe; `where` stands in errors, `kind_of_file` in its source."""
    kind = config.get("model_type")
    recipe = RECIPES.get(kind) if isinstance(kind, str) else None
    if recipe is None:
        if "model_type" not in config:
            raise CostModelError(f"{where}: model_type is missing; give the config.json of a model")
        raise UnsupportedArchitecture(f"{where}: no model_type {shown(kind)} is read; {did_you_mean(kind, RECIPES)}")
    data, parts, extras = _nested(recipe, config, where) if isinstance(recipe, Nested) else _plain(recipe, config, where)
    ignored = [entry for fields, idle in parts for entry in _ignored(fields, idle)]
    return Imported(
        _checked(_named(config, name, kind_of_file, repository) | data, where),
        tuple(entry for fields, _ in parts for entry in fields.used.items()),
        tuple(ignored),
        tuple(entry for fields, _ in parts for entry in fields.assumed.items()) + extras,
        _precision(config.get("quantization_config")),
    )


# text


def _object(text: str, where: str, most: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    if len(text) > most:
        raise CostModelError(f"{where} has {len(text):,} characters; such a file has at most {most:,}")
    try:
        data = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise CostModelError(f"{where} is nested too deeply; a config has three levels") from None
    except CostModelError as error:
        raise CostModelError(f"{where}: {error}") from None
    except ValueError as error:  # JSONDecodeError, and integers beyond Python's limit of digits
        raise CostModelError(f"{where} is no valid JSON: {excerpt(str(error))}") from None
    if not isinstance(data, dict):
        raise CostModelError(f"{where}: got {shown(data)}; give an object of a config's fields")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise CostModelError(f"{shown(twice)} is given twice; give it once")
    return data


def _named(config: Mapping[str, Any], name: str, kind_of_file: str, repository: str) -> dict[str, Any]:
    """Name, title, maker and source: from `_name_or_path`, else from the file, or the folder of a `config.json`."""
    published = repository or config.get("_name_or_path")
    published = published if isinstance(published, str) else ""
    file = PurePath(name.replace("\\", "/"))
    own = file.stem if file.stem != "config" else file.parent.name
    title, known = next(
        (title, known)
        for text in (PurePath(published).name, own, config["model_type"])
        if (title := "".join(filter(str.isprintable, text))[:200]) and (known := _sanitised(title))
    )
    organisation = re.fullmatch(r"([\w.-]+)/[\w.-]+", published[:200], re.ASCII)
    maker = organisation[1] if organisation and organisation[1].strip(".") else "unknown"
    source = f"{kind_of_file} of {repository or title}, model_type {config['model_type']}"
    return {"name": known, "title": title, "maker": maker, "source": source}


def _sanitised(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).lstrip("._-")[:80]


def _checked(data: dict[str, Any], where: str) -> Architecture:
    try:
        return Architecture.model_validate(data)
    except ValidationError as error:
        raise CostModelError(one_line(error, Architecture, f"{where}: ")) from None


# one language model, alone or beside a vision tower

Read = tuple[dict[str, Any], tuple[tuple[Fields, Mapping[str, str]], ...], tuple[ENTRY, ...]]


def _plain(recipe: Recipe, config: object, where: str, inside: str = "") -> Read:
    """An architecture's data, the fields read and which may stay idle, and what is assumed beside the fields."""
    fields = Fields(_opened(config, recipe.inside), where, inside, defaults=recipe.defaults, aliases=recipe.aliases)
    fields.expect({**EVERYWHERE, **recipe.only})
    _check_class(fields, recipe.implementation)
    _check_rope(fields)
    data: dict[str, Any] = {
        "hidden_size": fields.size("hidden_size"),
        "vocab_size": fields.size("vocab_size"),
        "max_position_embeddings": fields.optional("max_position_embeddings"),
        "tie_word_embeddings": fields.flag("tie_word_embeddings"),
        "position_embeddings": recipe.positions(fields) if recipe.positions else None,
        "norm": read(recipe.norm, fields),
        "embedding_norm": recipe.embedding_norm(fields) if recipe.embedding_norm else False,
        "notes": recipe.notes,
        "diffusion": None if recipe.diffusion is None else read(recipe.diffusion, fields),
    }
    data["layers"], data["pattern"], draft = _layers(recipe, fields)
    stated = callable(recipe.mtp)
    modules = recipe.mtp(fields) if callable(recipe.mtp) else recipe.mtp
    if modules and draft:
        data["mtp"] = {"modules": modules, "layer": draft}
    elif modules and stated:
        fields.unmodelled(
            "num_nextn_predict_layers", modules, "a module repeats a mixture layer with full attention, and none is here"
        )
    unstated = () if stated or not modules else (("multi-token-prediction modules", modules if draft else 0),)
    return data, ((fields, recipe.idle),), unstated


def _opened(config: object, inside: Sequence[str]) -> object:
    """The config with the fields of objects within it beside the others, each as `object.field`."""
    if not isinstance(config, dict):
        return config
    within = {name: config[name] for name in inside if isinstance(config.get(name), dict)}
    fields = {f"{name}.{field}": value for name, data in within.items() for field, value in data.items()}
    return {name: value for name, value in config.items() if name not in within} | fields


def _nested(recipe: Nested, config: object, where: str) -> Read:
    top = Fields(config, where, defaults=recipe.defaults, aliases={})
    top.expect(EVERYWHERE)
    _check_class(top, recipe.implementation)
    text = RECIPES[recipe.text]
    assert isinstance(text, Recipe)
    within = top.value("text_config")
    data, parts, extras = _plain(text, within, where, "text_config.")
    if within.get("model_type", recipe.text) != recipe.text:
        parts[0][0].unmodelled("model_type", within["model_type"], f"only {recipe.text} is")
    if top.flag("tie_word_embeddings") != data["tie_word_embeddings"]:
        top.wrong("tie_word_embeddings", top.value("tie_word_embeddings"), "the same as in text_config")
    seen, prefix = recipe.tower, "vision_config."
    tower = Fields(top.value("vision_config"), where, prefix, defaults=seen.defaults, aliases=seen.aliases)
    tower.expect({**EVERYWHERE, **seen.only})
    data["vision"] = _tower(seen, tower, top, data["hidden_size"])
    top.used |= dict.fromkeys(("text_config", "vision_config"), "its fields follow")
    return data, ((top, {}), *parts, (tower, seen.idle)), extras


def _tower(recipe: Tower, tower: Fields, top: Fields, hidden_size: int) -> dict[str, Any]:
    if recipe.ends_at and tower.size(recipe.ends_at) != hidden_size:
        tower.wrong(recipe.ends_at, tower.size(recipe.ends_at), f"the language model's width {hidden_size:,}")
    blocks = {"mixer": recipe.attention, "feed_forward": recipe.feed_forward, "projector": recipe.projector}
    parts = {name: read(sources, tower) for name, sources in blocks.items() if sources}
    return read(recipe.sizes, tower) | parts | {"tokens_per_image": recipe.tokens(tower, top)}


def _check_class(fields: Fields, implementation: str) -> None:
    """A class for another task has another head."""
    if fields.given("model_type"):
        fields.value("model_type")
    if fields.given("architectures"):
        names = fields.value("architectures")
        if not isinstance(names, list):
            fields.wrong("architectures", names, f"a list such as [{implementation!r}]")
        other = next((name for name in names if name != implementation), None)
        if other is not None:
            fields.unmodelled("architectures", other, f"only {implementation} is")


def _check_rope(fields: Fields) -> None:
    """A share of a head that rope turns, stated inside rope's constants, moves to where it is read, or is refused."""
    part = "partial_rotary_factor"
    for name in ("rope_parameters", "rope_scaling"):
        outer = fields.data.get(name)
        inner = [outer, *outer.values()] if isinstance(outer, dict) else []
        for share in [one[part] for one in inner if isinstance(one, dict) and part in one]:
            if part in fields.defaults:
                fields.spellings.setdefault(part, [f"{name}.{part}"])
                if fields.data.setdefault(part, share) != share:
                    fields.wrong(part, share, f"the same {part} everywhere")
            elif share != 1:
                fields.unmodelled(name, share, f"{part} is not read for this model_type")


# layers


def _layers(recipe: Recipe, fields: Fields) -> tuple[list[dict[str, Any]], tuple[str, ...], str | None]:
    """Groups of equal layers, their pattern, and the group that a multi-token-prediction module repeats."""
    depth = fields.size("num_hidden_layers", high=MAX_LAYERS)
    mixers = recipe.mixers(fields, depth)
    kinds = list(zip(mixers, recipe.feeds(fields, len(mixers)), strict=True))
    linear = str(recipe.others.get(LINEAR, {}).get("kind", LINEAR)).removeprefix("gated_").partition("_")[0]
    names = _names(kinds, linear)
    order = [names[kind] for kind in kinds]
    groups = [
        {
            "name": name,
            "count": order.count(name),
            "mixer": _mixer(recipe, mixer, fields),
            "feed_forward": None if feed == NONE else read(recipe.experts if feed == SPARSE else recipe.dense, fields),
            **read(recipe.groups.get(mixer, {}), fields),
        }
        for (mixer, feed), name in names.items()
    ]
    return groups, _pattern(order), names.get((FULL, SPARSE if recipe.experts else DENSE))


CALLED = {SLIDING: "local", CHUNKED: "local"}
"""Names of layers by their mixer; linear ones are called by their block, and the kinds of others are names already."""


def _names(kinds: Sequence[tuple[str, str]], linear: str) -> dict[tuple[str, str], str]:
    """A name for each kind of layer, in order of appearance: by what tells it from the others."""
    mixers, feeds = {mixer for mixer, _ in kinds} - {NONE}, {feed for _, feed in kinds} - {NONE}
    called = CALLED | {LINEAR: linear, FULL: "global" if mixers <= {FULL, SLIDING, CHUNKED} else "attention"}
    names = {}
    for mixer, feed in dict.fromkeys(kinds):
        parts = [called.get(mixer, mixer)] if mixer != NONE and len(mixers) > 1 else []
        parts += [feed] if feed != NONE and (len(feeds) > 1 or not parts) else []
        names[mixer, feed] = "-".join(parts) or called.get(mixer, mixer)
    return names


def _mixer(recipe: Recipe, kind: str, fields: Fields) -> dict[str, Any] | None:
    if kind == NONE:
        return None
    if kind in recipe.others:
        return read(recipe.others[kind], fields)
    block = read(recipe.attention, fields)
    if kind == SLIDING:
        block["sliding_window"] = recipe.window(fields)
        if block["sliding_window"] is None:
            fields.wrong("sliding_window", None, "the window of the layers that layer_types calls sliding_attention")
    return block


def _pattern(order: Sequence[str]) -> tuple[str, ...]:
    """The shortest pattern that repeats to the order; empty where each group's layers lie together."""
    changes = sum(one != other for one, other in pairwise(order))
    if changes < len(set(order)):
        return ()
    return next(tuple(order[:period]) for period in range(1, len(order) + 1) if order[period:] == order[: len(order) - period])


# what is left


def _ignored(fields: Fields, idle: Mapping[str, str]) -> list[ENTRY]:
    """The fields nothing asked for, and why they may be; a field that could carry a cost is refused."""
    told = []
    for name in fields.left():
        why = "names tokens" if name.endswith(TOKENS) else COSTLESS.get(name) or idle.get(name)
        if why is None:
            raise UnsupportedArchitecture(
                f"{fields.where}: field {shown(fields.inside + name)} is not known for this model_type, and could carry a cost; "
                "write the architecture as TOML (see `costmodel schema`)"
            )
        told.append((fields.inside + name, why))
    return told


def _precision(stored: object) -> Precision | None:
    """The precision of published weights: DeepSeek's fp8 blocks, or mxfp4 experts."""
    if not isinstance(stored, dict):
        return None
    if stored.get("quant_method") == "fp8" and stored.get("weight_block_size") == [128, 128]:
        return Precision.named("fp8")
    return Precision.named("mxfp4") if stored.get("quant_method") == "mxfp4" else None
