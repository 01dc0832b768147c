"""The reference of API and commands, and the answers in tutorial and plans: `python -m tests.reference` writes them.

A `text` block after a `sh` or `python` block is what that block prints (`text 20`: its first 20 lines); the words around are
written by hand.
"""

from __future__ import annotations

import inspect
import io
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, get_args, get_origin
from unittest.mock import patch

from typer.models import ArgumentInfo, OptionInfo

import costmodel as cm
from costmodel.cli import app, main

from .accuracy import table

DOCS = Path(__file__).parents[1] / "docs"
WORKED = (DOCS / "tutorial.md", DOCS / "plans.md")
BLOCK = re.compile(r"^```(sh|python|text)(?: (\d+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TERMINAL = ("COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR")
MADE = "Made from the code by `python -m tests.reference`; a test compares them."


def made() -> Iterator[tuple[Path, str]]:
    """Every page with what it should say."""
    yield DOCS / "reference" / "api.md", api()
    yield DOCS / "reference" / "cli.md", commands()
    for path in WORKED:
        yield path, worked(path.read_text(encoding="utf-8"))


def worked(text: str) -> str:
    """A page with the answers of its blocks, run in order; Python's names last to its end."""
    names: dict[str, Any] = {}
    said = ""

    def answered(found: re.Match[str]) -> str:
        nonlocal said
        kind, most, body = found.groups()
        if kind == "text":
            return f"```text {most}\n{_first(said, int(most))}\n```" if most else f"```text\n{said}\n```"
        said = printed(body) if kind == "sh" else evaluated(body, names)
        return found[0]

    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        return BLOCK.sub(answered, text)


def _first(text: str, most: int) -> str:
    """The first lines of a text, and a sign that there are more."""
    lines = text.splitlines()
    assert len(lines) > most, "nothing is left out: the block needs no number"
    return "\n".join([*lines[:most], "..."])


def printed(script: str) -> str:
    """What the commands of a script print, remarks included, as into a file; each has to succeed."""
    into = io.StringIO()
    plain = {name: value for name, value in os.environ.items() if name not in TERMINAL}
    for command in script.replace("\\\n", " ").splitlines():
        name, *arguments = shlex.split(command)
        assert name == "costmodel", command
        with redirect_stdout(into), redirect_stderr(into), patch.dict(os.environ, plain, clear=True):
            try:
                main(arguments)
            except SystemExit as end:
                if end.code:
                    raise
    return _trimmed(into.getvalue())


def evaluated(code: str, names: dict[str, Any]) -> str:
    """What a block prints, under the names of the blocks before it."""
    into = io.StringIO()
    with redirect_stdout(into):
        exec(compile(code, "docs", "exec"), names)  # noqa: S102 - our own pages
    return _trimmed(into.getvalue())


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def api() -> str:
    """Every public name: how it is called, and what its docstring says first."""
    public = {name: getattr(cm, name) for name in sorted(cm.__all__, key=str.lower)}
    kinds: dict[str, list[str]] = {"Functions": [], "Values": [], "Blocks": []}
    for name, value in public.items():
        part = "Functions" if not inspect.isclass(value) else "Blocks" if "blocks" in value.__module__ else "Values"
        kinds[part].append(_entry(name, value))
    intro = f"# Python\n\nAfter `import costmodel as cm`, every name here is `cm.NAME`. {MADE}\n"
    return "\n".join([intro, *(f"## {part}\n\n" + "\n".join(entries) for part, entries in kinds.items())])


def _entry(name: str, value: Any) -> str:
    rows = list(_members(value)) if inspect.isclass(value) else []
    members = table(("Member", "Meaning"), rows) if rows else ""
    gives = "" if inspect.isclass(value) else f" -> {inspect.signature(value).return_annotation}"
    told = [f"### {name}", f"```text\n{_call(name, _parameters(value))}{gives}\n```", first_paragraph(value), members]
    return "\n\n".join(part for part in told if part) + "\n"


def _call(name: str, parameters: list[str]) -> str:
    line = f"{name}({', '.join(parameters)})"
    return line if len(line) <= 100 else "\n".join([f"{name}(", *(f"    {each}," for each in parameters), ")"])


def _parameters(value: Any) -> list[str]:
    """`name: type = default`, in the source's words; a required field has no default."""
    if inspect.isclass(value) and issubclass(value, Exception):
        return ["message: str"]
    fields = getattr(value, "model_fields", None) if inspect.isclass(value) else None
    if fields is None:
        given = [each for each in inspect.signature(value).parameters.values() if not each.name.startswith("_")]
        return _starred(given)
    types = {name: kind for kin in reversed(value.__mro__) for name, kind in inspect.get_annotations(kin).items()}
    return [
        f"{field.alias or name}: {_plain(types[name])}" + ("" if field.is_required() else f" = {_default(field)}")
        for name, field in fields.items()
    ]


def _starred(given: list[inspect.Parameter]) -> list[str]:
    """Parameters as written, with the star before those that go by name alone."""
    told: list[str] = []
    for each in given:
        if each.kind is each.KEYWORD_ONLY and "*" not in told and not any(text.startswith("*") for text in told):
            told.append("*")
        default = "" if each.default is each.empty else f" = {_value(each.default)}"
        star = "*" if each.kind is each.VAR_POSITIONAL else "**" if each.kind is each.VAR_KEYWORD else ""
        told.append(f"{star}{each.name}" + (f": {_plain(each.annotation)}" if each.annotation is not each.empty else "") + default)
    return told


def _plain(kind: Any) -> str:
    """A type in the source's words, without its symbol and checks."""
    text = kind if isinstance(kind, str) else inspect.formatannotation(kind)
    return re.sub(r"Annotated\[((?:[^\[\],]|\[[^\]]*\])+),(?:[^\[\]]|\[[^\]]*\])*\]", r"\1", " ".join(text.split()))


def _default(field: Any) -> str:
    return "..." if field.default_factory is not None else _value(field.default)


def _value(default: Any) -> str:
    """A default as one would write it, where that is plain; without addresses and orders of sets."""
    plain = isinstance(default, str | int | float | bool | type(None))
    if plain:
        return repr(default.value) if hasattr(default, "value") else repr(default)
    if isinstance(default, tuple):
        inner = ", ".join(_value(each) for each in default)
        return f"({inner},)" if len(default) == 1 else f"({inner})"
    return "..."


def _members(value: type) -> Iterator[tuple[str, str]]:
    """Public methods and properties that the class, or one of ours below it, explains."""
    seen: dict[str, Any] = {}
    for kin in reversed(value.__mro__):
        if kin.__module__.startswith("costmodel"):
            seen.update((name, each) for name, each in vars(kin).items() if not name.startswith(("_", "model_")))
    for name, each in sorted(seen.items()):
        inner = each.__func__ if isinstance(each, classmethod | staticmethod) else each
        attribute = isinstance(inner, property | cached_property)
        if (attribute or inspect.isfunction(inner)) and (said := first_paragraph(inner)):
            yield f"`{name}`" if attribute else f"`{name}()`", said


def first_paragraph(value: Any) -> str:
    """The first paragraph of a docstring, as one line; examples are not part of it."""
    text = inspect.getdoc(value) or ""
    return " ".join(text.split("\n\n")[0].split(">>>")[0].split()).replace("<", "\\<")


def commands() -> str:
    """Every command: its help, its arguments and options with what they are without being said."""
    told = {each.name or each.callback.__name__: each for each in app.registered_commands if each.callback}
    intro = f"# Commands\n\n`costmodel COMMAND`, or `python -m costmodel COMMAND`. {app.info.help} {MADE}\n"
    return "\n".join([intro, *(_command(name, each.callback, each.epilog or "") for name, each in sorted(told.items()))])


def _command(name: str, function: Any, epilog: str) -> str:
    """Read from the function's annotations: what a terminal shows depends on its width."""
    asked = [(each, _told(each)) for each in inspect.signature(function, eval_str=True).parameters.values()]
    known = [(each, info) for each, info in asked if info is not None]
    usage = [_names(each, info).strip("`") for each, info in known if isinstance(info, ArgumentInfo)]
    rows = [(_names(each, info), _default_of(each), info.help or "") for each, info in known]
    parts = [f"## {name}", f"```text\n{' '.join(['costmodel', name, *usage, '[OPTIONS]'])}\n```"]
    parts.append(" ".join(inspect.cleandoc(function.__doc__).split()))
    parts.append(f"{epilog.replace(': ', ': `', 1)}`")
    return "\n\n".join([*parts, *([table(("Argument or option", "By default", "Meaning"), rows)] if rows else [])]) + "\n"


def _told(each: inspect.Parameter) -> ArgumentInfo | OptionInfo | None:
    return next(
        (info for info in getattr(each.annotation, "__metadata__", ()) if isinstance(info, ArgumentInfo | OptionInfo)), None
    )


def _names(each: inspect.Parameter, info: ArgumentInfo | OptionInfo) -> str:
    """The argument's name, in brackets where it may be left out; or `--name`, `-n`, with the choices."""
    kind = each.annotation.__origin__
    parts = (kind, *get_args(kind))
    if isinstance(info, ArgumentInfo):
        name = each.name.rstrip("_").upper() + ("..." if any(get_origin(part) is list for part in parts) else "")
        return f"`{name}`" if each.default is each.empty else f"`[{name}]`"
    given = [text for text in (info.default, *(info.param_decls or ())) if isinstance(text, str) and text.startswith("-")]
    names = [name for text in given or [f"--{each.name.replace('_', '-')}"] for name in text.split("/")]
    choices = [choice.value for part in parts if inspect.isclass(part) and issubclass(part, Enum) for choice in part]
    return ", ".join(f"`{name}`" for name in names) + (f": {', '.join(choices)}" if choices else "")


def _default_of(each: inspect.Parameter) -> str:
    if each.default is each.empty:
        return "required"
    default = each.default.value if isinstance(each.default, Enum) else each.default
    if isinstance(default, bool):
        return "on" if default else ""
    return "" if default in ("", None) else f"`{default}`"


if __name__ == "__main__":
    (DOCS / "reference").mkdir(exist_ok=True)
    for page, text in made():
        page.write_text(text, encoding="utf-8")
