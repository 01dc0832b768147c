"""The command line's own words: what the library says of its arguments, said of options; options that are given twice."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from costmodel.errors import CostModelError, excerpt, shown

OPTIONS = {
    "cached_fraction": "cached", "launch_s": "launch_us", "most_changes": "changes", "modes": "mode", "prices": "price",
    "requests_per_s": "rate", "speculation": "speculate", "tpot_s": "tpot", "ttft_s": "ttft", "usd_per_hour": "budget",
    "further": "add", "a price": "price",
}  # fmt: skip
"""Options that are not called as the library's argument is. An option of the argument's own name comes first."""
_OF_FIELDS = re.compile(r"^(?:[A-Z][A-Za-z]+: )?(\w+|a price)(:| got| holds| names| has| hours)( .*)$", re.DOTALL)
_OF_CLASS = re.compile(r"^(?:Limits|Parallel|Scenario|Speculation|Traffic): ")
_FOR_PYTHON = re.compile(r", or give \w+=\.\.\.")
_IN_CODE = re.compile(r"\b(\w+)=(?:'([\w.-]+)'|([\w.-]+))")


def in_options(message: str, options: Mapping[str, str]) -> str:
    """An error of the library as one of the command line: `options` gives a command's option (`--rate`) by its parameter.

    >>> in_options("Traffic: requests_per_s: got 0.0; should be greater than 0", {"rate": "--rate"})
    '--rate got 0.0; should be greater than 0'
    >>> in_options("Parallel: ep 3 does not divide tp 1", {"ep": "--ep"})
    'ep 3 does not divide tp 1'
    >>> in_options("prefill is the layout of a pool of its own; add mode='disaggregated'", {"mode": "--mode"})
    'prefill is the layout of a pool of its own; add --mode disaggregated'
    """

    def option(name: str) -> str | None:
        return options.get(name) or options.get(OPTIONS.get(name, ""))

    def as_option(found: re.Match[str]) -> str:
        name = option(found[1])
        return f"{name} {found[2] or found[3]}" if name else found[0]

    told = _OF_FIELDS.match(message)
    name = option(told[1]) if told else None
    said, asked, advice = _OF_CLASS.sub("", _FOR_PYTHON.sub("", message)).partition("; ")
    if told and name:
        said = f"{name}{told[2] if told[2] != ':' else ''}{told[3]}".partition("; ")[0]
    return said + asked + _IN_CODE.sub(as_option, advice)


def check_once(arguments: Sequence[str], single: Mapping[str, str]) -> None:
    """Raises CostModelError where an option of one value is given twice: `single` names each by all its spellings."""
    seen: dict[str, str] = {}
    for argument in arguments:
        if argument == "--":
            return
        spelling = argument.partition("=")[0] if argument.startswith("--") else argument
        name = single.get(spelling)
        if name is not None and name in seen:
            raise CostModelError(f"{name} is given twice; it takes one value")
        seen |= {name: argument} if name else {}


def typed(error: Any, arguments: Sequence[str]) -> str:
    """What a mistaken option got, from the words typed: the parser's own message names no value.

    >>> from types import SimpleNamespace as Named
    >>> error = Named(param=Named(opts=["--batch", "-b"]), format_message=lambda: "not a valid integer")
    >>> typed(error, ["show", "gpt2", "-b", "many"])
    "--batch got 'many'; give a whole number"
    """
    spellings = getattr(getattr(error, "param", None), "opts", [])
    message: str = error.format_message()
    for place, argument in enumerate(arguments):
        head, _, tail = argument.partition("=")
        if head in spellings and (tail or place + 1 < len(arguments)) and "a valid " in message:
            kind = "a number" if "valid number" in message else "a whole number"
            return f"{spellings[0]} got {shown(tail or arguments[place + 1])}; give {kind}"
    return excerpt(message.replace("Value error, ", "")).rstrip(".")
