"""The only reader of presets/: finds, reads, checks and writes the files of architectures, and reads those of accelerators."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from costmodel.architecture import Architecture, Reference
from costmodel.blocks import FAMILIES, FeedForward, Mixer
from costmodel.errors import CostModelError, UnsupportedArchitecture, did_you_mean, excerpt, shown
from costmodel.hardware import Accelerator
from costmodel.importers import MAX_CONFIG_BYTES, Imported, read_config
from costmodel.importers.hub import fetched, is_hub_name
from costmodel.importers.stored import INDEX, MAX_INDEX_BYTES
from costmodel.quantities import Params
from costmodel.workload import Precision, one_line

MAX_FILE_BYTES = 1 << 18
MAX_DOTS = 300
"""Dots in a line: the time that tomllib takes for a key grows with their square."""
MAX_PATH = 4_096
KINDS = {
    part: [kind for kind, family in FAMILIES.items() if issubclass(family, base)]
    for part, base in (("mixer", Mixer), ("feed_forward", FeedForward))
}
A_FILE = "a TOML file or a config.json"
A_CONFIG = "a config.json, the folder that holds one, or a GGUF file"
A_PRESET = "a preset name, a TOML file, a config.json or a GGUF file"
AN_ACCELERATOR = "an accelerator name (see `costmodel accelerators`) or a TOML file"
A_CALIBRATION = "a calibration's name, such as h100-sxm, or its JSON file"
HERE = Path(__file__).resolve().parent
Source = str | os.PathLike[str] | Architecture
"""Whatever names an architecture: a preset, a file, or itself."""
Device = str | os.PathLike[str] | Accelerator
"""Whatever names an accelerator."""


def bundled(name: str) -> Path:
    """Where `presets` or `app.py` lies: inside an installed package, or beside the package in a source tree."""
    for place in (HERE / "_bundled" / name, HERE.parent / name):
        if place.exists():
            return place
    raise CostModelError(f"{name} is missing from this installation; install costmodel again")


def presets() -> list[str]:
    """Names of all architecture presets, sorted.

    >>> "deepseek-v3" in presets()
    True
    """
    return list(_names("architectures"))


def accelerators() -> list[str]:
    """Names of all accelerators, sorted.

    >>> "h200" in accelerators()
    True
    """
    return list(_names("accelerators"))


@cache
def _names(folder: str, ending: str = ".toml") -> tuple[str, ...]:
    """Read once: what is shipped does not change while it runs."""
    return tuple(sorted(path.stem for path in (bundled("presets") / folder).glob(f"*{ending}")))


def load(source: str | os.PathLike[str]) -> Architecture:
    """An architecture by preset name, from a TOML file, a Hugging Face `config.json`, the folder that holds one, or a GGUF file.

    A text `organisation/model` that is nothing local is a model on the Hugging Face hub: its config is fetched. GGUF needs the
    extra `gguf`, the hub the extra `hub`. Raises CostModelError for an unknown name, an unreadable file, or a field that is
    unknown, missing or impossible; UnsupportedArchitecture for a kind of block that is not modelled.

    >>> load("deepseek-v3").title
    'DeepSeek-V3'
    """
    text = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise CostModelError(f"load got {shown(source)}; give {A_PRESET}")
    if text.lower() not in presets() and _is_path(text):
        return import_config(text).architecture if is_hub_name(source) else read(Path(text))
    return preset(text)


def preset(name: str) -> Architecture:
    """A preset by name, and nothing else: what a link says opens no file and no connection.

    >>> preset("gpt2").title
    'GPT-2'
    """
    known = presets()
    if name.lower() not in known:
        raise CostModelError(_unknown(name, known))
    return _preset(name.lower())


def accelerator(source: str | os.PathLike[str]) -> Accelerator:
    """An accelerator by name, or from a TOML file.

    Raises CostModelError for an unknown name, an unreadable file, or a field that is unknown, missing or impossible.

    >>> accelerator("h200").memory_bytes
    150754820096
    """
    text = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise CostModelError(f"accelerator got {shown(source)}; give {AN_ACCELERATOR}")
    known = accelerators()
    if text.lower() in known:
        return _accelerator(text.lower())
    if _is_path(text):
        return _read_accelerator(Path(text))
    raise CostModelError(f"no accelerator {shown(text)}; {did_you_mean(text, known)}")


def calibrations() -> list[str]:
    """Names of the calibrations that are shipped, sorted.

    >>> "h100-sxm" in calibrations()
    True
    """
    return list(_names("calibrations", ".json"))


def calibration_file(source: str | os.PathLike[str]) -> Path:
    """Where a calibration lies, by name or path. Raises CostModelError for neither."""
    text = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise CostModelError(f"calibration got {shown(source)}; give {A_CALIBRATION}")
    if text in calibrations():
        return bundled("presets") / "calibrations" / f"{text}.json"
    if _is_path(text):
        return Path(text)
    raise CostModelError(f"no calibration {shown(text)}; {did_you_mean(text, calibrations())}")


def as_architecture(source: Source) -> Architecture:
    """An architecture as it is, or by preset name or file."""
    return source if isinstance(source, Architecture) else load(source)


def as_architectures(sources: Source | Sequence[Source], asker: str) -> list[Architecture]:
    """Several architectures, or one. Raises CostModelError, in the name of `asker`, for what is neither."""
    if isinstance(sources, (str, os.PathLike, Architecture)):
        sources = [sources]
    if not isinstance(sources, Iterable):
        raise CostModelError(f"{asker} got {shown(sources)}; give a list of preset names, TOML files or architectures")
    return [as_architecture(source) for source in sources]


def as_accelerator(source: Device) -> Accelerator:
    """An accelerator as it is, or by name or file."""
    return source if isinstance(source, Accelerator) else accelerator(source)


def _is_path(text: str) -> bool:
    """Preset names may hold dots (`llama-3.1-8b`): a text is a path by its ending, its separator, or a file that stands there."""
    if not text or "\0" in text or len(text) > MAX_PATH:
        return False
    if "/" in text or os.sep in text or text.endswith((".toml", ".json", ".gguf")):
        return True
    try:
        return Path(text).exists()
    except OSError:  # too long for a file's name
        return False


def _unknown(name: str, known: list[str]) -> str:
    for closed in _closed():
        if name.lower().replace("_", "-").startswith(tuple(closed["begins"])):
            return (
                f"no architecture is published for {shown(name)} ({closed['maker']}), so nothing can be derived; "
                f"the nearest open model is {closed['nearest']} ({closed['why']})"
            )
    return f"no preset {shown(name)}; {did_you_mean(name, known)}"


@lru_cache(maxsize=1)
def _closed() -> list[dict[str, Any]]:
    """Models without a published architecture: how their names begin, and the nearest open one."""
    tables: list[dict[str, Any]] = tomllib.loads((bundled("presets") / "closed.toml").read_text(encoding="utf-8"))["closed"]
    return tables


@lru_cache(maxsize=512)
def _preset(name: str) -> Architecture:
    return read(bundled("presets") / "architectures" / f"{name}.toml")


@lru_cache(maxsize=512)
def _accelerator(name: str) -> Accelerator:
    return _read_accelerator(bundled("presets") / "accelerators" / f"{name}.toml")


def _read_accelerator(path: Path) -> Accelerator:
    data = _table(_text(path, wanted=AN_ACCELERATOR), path.name)
    try:
        return Accelerator.model_validate(data)
    except ValidationError as error:
        raise CostModelError(one_line(error, Accelerator, f"{shown(path.name)[1:-1]}: ")) from None


def read(path: Path) -> Architecture:
    """An architecture from a TOML file, a `config.json` or a GGUF file."""
    if path.suffix.lower() in (".json", ".gguf") or _is_folder(path):
        return import_config(path).architecture
    return parse(_text(path, MAX_FILE_BYTES), path.name)


def published_precision(source: str | os.PathLike[str]) -> Precision | None:
    """How the weights of a `config.json` are stored, where it says so; None for presets, TOML files and what it does not say."""
    text = os.fspath(source)
    if text.lower() in presets() or not _is_path(text) or text.lower().endswith(".toml"):
        return None
    return import_config(text).precision


def import_config(source: str | os.PathLike[str]) -> Imported:
    """A Hugging Face `config.json`, the folder that holds one, or a GGUF file as an architecture and what became of each field.

    A `model.safetensors.index.json` beside a `config.json` is read too: the size it states is compared with ours.

    A text `organisation/model` that is nothing local is a model on the Hugging Face hub. Raises UnsupportedArchitecture for a
    model_type, a field or a value that is not modelled.
    """
    if isinstance(source, str) and is_hub_name(source):
        config, beside = fetched(source)
        about = None if beside is None else _text(beside, MAX_INDEX_BYTES)
        return read_config(_text(config, MAX_CONFIG_BYTES), "config.json", about, source)
    path = Path(source)
    if path.suffix.lower() == ".gguf" and not _is_folder(path):
        from costmodel.importers.gguf import read_gguf

        _check_file(path, A_CONFIG)
        return read_gguf(path)
    if _is_folder(path):
        if not (path / "config.json").is_file():
            raise CostModelError(f"{shown(path.name or str(path))} is a folder without config.json; give {A_CONFIG}")
        path = path / "config.json"
    text, there = _text(path, MAX_CONFIG_BYTES, A_CONFIG), path.with_name(INDEX)
    index = _text(there, MAX_INDEX_BYTES) if path.name == "config.json" and there.is_file() else None
    return read_config(text, f"{path.absolute().parent.name}/{path.name}", index, place=str(path))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # too long for a file's name: said when it is read
        return False


def opened(name: str, data: bytes) -> tuple[Architecture, str]:
    """An architecture from the bytes of a file that someone sends (`.json`: a `config.json`, else TOML), and a remark on it.

    Raises CostModelError for a file that is too large, no text, or not understood.

    >>> opened("tiny.toml", as_toml(load("gpt2")).encode())[0].params.total
    124439808
    """
    is_config = name.lower().endswith(".json")
    most = MAX_CONFIG_BYTES if is_config else MAX_FILE_BYTES
    if len(data) > most:
        raise CostModelError(f"{shown(name)} has {len(data):,} bytes; such a file has at most {most:,}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CostModelError(f"{shown(name)} is not UTF-8 text; give {A_FILE}") from None
    if not is_config:
        return parse(text, name), ""
    read_in = read_config(text, name)
    assumed = ", ".join(f"{field} {value}" for field, value in read_in.assumed)
    return read_in.architecture, f"{len(read_in.used)} fields used" + (f"; assumed: {assumed}" if assumed else "")


def _text(path: Path, most: int = MAX_FILE_BYTES, wanted: str = A_PRESET) -> str:
    shown_name = shown(path.name or str(path))
    try:
        _check_file(path, wanted)
        if path.stat().st_size > most:
            raise CostModelError(f"{shown_name} has {path.stat().st_size:,} bytes; such a file has at most {most:,}")
        return path.read_bytes().decode("utf-8-sig")  # some editors put a byte order mark in front
    except UnicodeDecodeError:
        raise CostModelError(f"{shown_name} is not UTF-8 text; give {A_FILE}") from None
    except OSError as error:
        raise CostModelError(f"{shown_name} cannot be read: {error.strerror}") from None


def _check_file(path: Path, wanted: str = A_PRESET) -> None:
    try:
        if path.is_dir():
            raise CostModelError(f"{shown(path.name or str(path))} is a folder; give {wanted}")
        if path.exists() and not path.is_file():
            raise CostModelError(f"{shown(str(path))} is no ordinary file; give {wanted}")
        if not path.is_file():
            raise CostModelError(f"no file {shown(str(path))}; give {wanted}")
    except OSError as error:
        raise CostModelError(f"{shown(path.name)} cannot be read: {error.strerror}") from None


def parse(text: str, name: str) -> Architecture:
    """An architecture from TOML text; `name` stands in errors."""
    return validate(_table(text, name), name)


def _table(text: str, name: str) -> dict[str, Any]:
    """The data of TOML text."""
    if any(line.count(".") > MAX_DOTS for line in text.splitlines()):
        raise CostModelError(f"{shown(name)} has a line with more than {MAX_DOTS} dots; a key has at most three")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise CostModelError(f"{shown(name)} is nested too deeply; a file here has four levels at most") from None
    except ValueError as error:  # TOMLDecodeError, and integers beyond Python's limit of digits
        raise CostModelError(f"{shown(name)} is no valid TOML: {excerpt(str(error))}") from None


def as_toml(architecture: Architecture) -> str:
    """An architecture as a TOML file that reads as the same one; what is at its default is left out.

    >>> print(as_toml(load("gpt2"))[:46])
    name = "gpt2"
    title = "GPT-2"
    maker = "OpenAI"
    >>> parse(as_toml(load("gpt2")), "gpt2.toml") == load("gpt2")
    True
    """
    return tomli_w.dumps(_stated(architecture))


def _stated(part: BaseModel) -> dict[str, Any]:
    """The fields of a part that differ from their defaults; a block always says its kind."""
    values = {name: getattr(part, name) for name in type(part).model_fields}
    defaults = {name: field.get_default(call_default_factory=True) for name, field in type(part).model_fields.items()}
    block = isinstance(part, (Mixer, FeedForward))
    return {name: _data(value) for name, value in values.items() if value != defaults[name] or (block and name == "kind")}


def _data(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _stated(value)
    return [_data(item) for item in value] if isinstance(value, tuple) else value


def validate(data: dict[str, Any], name: str) -> Architecture:
    """An architecture from parsed data, or one line that says what is wrong with it."""
    if not isinstance(data, dict):
        raise CostModelError(f"{shown(name)[1:-1]}: got {shown(data)}; give a table of an architecture's fields")
    _refuse_unknown_kinds(data, name)
    try:
        architecture = Architecture.model_validate(data)
    except ValidationError as error:
        raise CostModelError(one_line(error, Architecture, f"{shown(name)[1:-1]}: ")) from None
    except RecursionError:
        raise CostModelError(f"{shown(name)} is nested too deeply; an architecture has four levels") from None
    for row in architecture.reference:
        quantity = row.quantity.removeprefix("params.")
        known = Params.NAMES if quantity != row.quantity else QUANTITIES
        if quantity not in known:
            raise CostModelError(
                f"{shown(name)[1:-1]}: reference row has no quantity {shown(row.quantity)}; {did_you_mean(quantity, known)}"
            )
        if known is QUANTITIES:
            _check_inputs(architecture, row, name)
    return architecture


def _check_inputs(architecture: Architecture, row: Reference, name: str) -> None:
    """The inputs of a reference row are those of its quantity."""
    try:
        getattr(architecture, row.quantity).check(**row.inputs)
    except CostModelError as error:
        raise CostModelError(f"{shown(name)[1:-1]}: reference row of {row.quantity}: {error}") from None


def _refuse_unknown_kinds(data: dict[str, Any], name: str) -> None:
    """A block of a kind that is not modelled is refused by name."""
    layers = data.get("layers")
    for group in [*(layers if isinstance(layers, (list, tuple)) else ()), data.get("vision")]:
        for part in ("mixer", "feed_forward"):
            block = group.get(part) if isinstance(group, dict) else None
            kind = block.get("kind") if isinstance(block, dict) else None
            if kind is not None and not (isinstance(kind, str) and kind in FAMILIES):
                raise UnsupportedArchitecture(
                    f"{shown(name)[1:-1]}: no {part} of kind {shown(kind)} is modelled; {did_you_mean(kind, KINDS[part])}"
                )


def reference_value(architecture: Architecture, row: Reference) -> int | float:
    """Our value of a published one: the quantity of its row, called with its inputs.

    >>> deepseek = load("deepseek-v3")
    >>> reference_value(deepseek, deepseek.reference[0])
    671026419200
    """
    name = row.quantity.removeprefix("params.")
    if name != row.quantity:
        return architecture.params.formula(name)()  # type: ignore[no-any-return]  # a call gives a number or an array; here a number
    if name not in QUANTITIES:  # of an architecture that was made, not read
        raise CostModelError(f"reference row has no quantity {shown(row.quantity)}; {did_you_mean(row.quantity, QUANTITIES)}")
    value = getattr(architecture, name)(**row.inputs)
    if row.per_token:
        tokens = int(row.inputs.get("batch", 1)) * int(row.inputs.get("context", 1))
        return value / tokens  # type: ignore[no-any-return]  # a call gives a number or an array; here a number
    return value  # type: ignore[no-any-return]  # a call gives a number or an array; here a number


QUANTITIES = ("cache_bytes", "flops", "prefill_flops", "decode_flops", "training_flops", "weight_bytes", "bytes_moved")
"""The quantities of an architecture that are Formulas, by attribute name."""
