"""The only reader of presets/: finds, reads and checks architecture files."""

from __future__ import annotations

import os
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from costmodel.architecture import Architecture, Reference
from costmodel.blocks import FAMILIES
from costmodel.errors import CostModelError, UnsupportedArchitecture, did_you_mean, shown
from costmodel.workload import one_line

MAX_FILE_BYTES = 1 << 20
MAX_PATH = 4_096
HERE = Path(__file__).resolve().parent
CLOSED = ("gpt-4", "gpt-5", "claude", "gemini", "grok-4")


def presets_folder() -> Path:
    """Where presets/ lies: inside an installed package, or beside the package in a source tree."""
    for folder in (HERE / "_bundled" / "presets", HERE.parent / "presets"):
        if folder.is_dir():
            return folder
    raise CostModelError("the presets folder is missing from this installation; install costmodel again")


def presets() -> list[str]:
    """Names of all architecture presets, sorted.

    >>> "deepseek-v3" in presets()
    True
    """
    return sorted(path.stem for path in (presets_folder() / "architectures").glob("*.toml"))


def load(source: str | os.PathLike[str]) -> Architecture:
    """An architecture by preset name, or from a TOML file.

    Raises CostModelError for an unknown name, an unreadable file, or a field that is unknown, missing or impossible;
    UnsupportedArchitecture for a kind of block that is not modelled.

    >>> load("deepseek-v3").title
    'DeepSeek-V3'
    """
    if not isinstance(source, (str, os.PathLike)):
        raise CostModelError(f"load got {shown(source)}; give a preset name or a TOML file")
    text = os.fspath(source)
    known = presets()
    if text in known:
        return _preset(text)
    if _is_path(text):
        return read(Path(text))
    raise CostModelError(_unknown(text, known))


def _is_path(text: str) -> bool:
    """Preset names may hold dots (`llama-3.1-8b`): a text is a path by its ending, its separator, or a file that stands there."""
    if "\0" in text or len(text) > MAX_PATH:
        return False
    return "/" in text or os.sep in text or text.endswith((".toml", ".json")) or Path(text).exists()


def _unknown(name: str, known: list[str]) -> str:
    if any(name.lower().startswith(closed) for closed in CLOSED):
        return f"no architecture is published for {shown(name)}, so it cannot be derived; `costmodel presets` lists open models"
    return f"no preset {shown(name)}; {did_you_mean(name, known)}"


@lru_cache(maxsize=512)
def _preset(name: str) -> Architecture:
    return read(presets_folder() / "architectures" / f"{name}.toml")


def read(path: Path) -> Architecture:
    """An architecture from a TOML file."""
    return parse(_text(path), path.name)


def _text(path: Path) -> str:
    shown_name = shown(path.name)
    if path.suffix == ".json":
        raise UnsupportedArchitecture(
            f"{shown_name} is JSON, which is not read yet; write the architecture as TOML (see `costmodel schema`)"
        )
    try:
        if path.is_dir():
            raise CostModelError(f"{shown_name} is a folder; give a TOML file in it")
        if not path.is_file():
            raise CostModelError(f"no file {shown(str(path))}; give a preset name or a TOML file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CostModelError(
                f"{shown_name} has {path.stat().st_size:,} bytes; an architecture file has at most {MAX_FILE_BYTES:,}"
            )
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise CostModelError(f"{shown_name} is not UTF-8 text; give a TOML file") from None
    except OSError as error:
        raise CostModelError(f"{shown_name} cannot be read: {error.strerror}") from None


def parse(text: str, name: str) -> Architecture:
    """An architecture from TOML text; `name` stands in errors."""
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise CostModelError(f"{shown(name)} is nested too deeply; an architecture has four levels") from None
    except ValueError as error:  # TOMLDecodeError, and integers beyond Python's limit of digits
        raise CostModelError(f"{shown(name)} is no valid TOML: {shown(str(error).splitlines()[0])[1:-1]}") from None
    return validate(data, name)


def validate(data: dict[str, Any], name: str) -> Architecture:
    """An architecture from parsed data, or one line that says what is wrong with it."""
    _refuse_unknown_kinds(data, name)
    try:
        return Architecture.model_validate(data)
    except ValidationError as error:
        raise CostModelError(one_line(error, Architecture, f"{shown(name)[1:-1]}: ")) from None
    except RecursionError:
        raise CostModelError(f"{shown(name)} is nested too deeply; an architecture has four levels") from None


def _refuse_unknown_kinds(data: dict[str, Any], name: str) -> None:
    """A block of a kind that is not modelled is refused by name."""
    layers = data.get("layers")
    for group in layers if isinstance(layers, list) else []:
        for part in ("mixer", "feed_forward"):
            block = group.get(part) if isinstance(group, dict) else None
            kind = block.get("kind") if isinstance(block, dict) else None
            if isinstance(kind, str) and kind not in FAMILIES:
                raise UnsupportedArchitecture(
                    f"{shown(name)[1:-1]}: no {part} of kind {shown(kind)} is modelled; {did_you_mean(kind, FAMILIES)}"
                )


def reference_value(architecture: Architecture, row: Reference) -> int | float:
    """Our value of a published one: the quantity of its row, called with its inputs.

    >>> deepseek = load("deepseek-v3")
    >>> reference_value(deepseek, deepseek.reference[0])
    671026419200
    """
    name = row.quantity.removeprefix("params.")
    if name != row.quantity:
        return architecture.params.formula(name)()  # type: ignore[no-any-return]
    if name not in QUANTITIES:
        raise CostModelError(f"reference row has no quantity {shown(row.quantity)}; {did_you_mean(row.quantity, QUANTITIES)}")
    value = getattr(architecture, name)(**row.inputs)
    if row.per_token:
        tokens = int(row.inputs.get("batch", 1)) * int(row.inputs.get("context", 1))
        return value / tokens  # type: ignore[no-any-return]
    return value  # type: ignore[no-any-return]


QUANTITIES = ("cache_bytes", "flops", "prefill_flops", "decode_flops", "training_flops", "weight_bytes", "bytes_moved")
"""The quantities of an architecture that are Formulas, by attribute name."""
