"""The errors a user can cause: one line each, saying what came, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

SHOWN_CHARACTERS = 60


class CostModelError(ValueError):
    """Any mistake a user can make. The command line prints the line and exits with status 2."""


class UnsupportedArchitecture(CostModelError):
    """Something that is not modelled. It is refused by name: a silent fallback would be a wrong number."""


def shown(value: object) -> str:
    """A value as an error may quote it: one line, printable ASCII, shortened.

    >>> shown("deepsek-v3")
    "'deepsek-v3'"
    """
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    if not isinstance(value, (str, int, float, bool, type(None))):
        return f"a {type(value).__name__}"
    text = ascii(value[: SHOWN_CHARACTERS + 1] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The nearest known name as a question, or the whole list where none is near.

    >>> did_you_mean("deepsek-v3", ["deepseek-v3", "kimi-k2"])
    'did you mean deepseek-v3?'
    >>> did_you_mean("zzz", ["deepseek-v3", "kimi-k2"])
    'known: deepseek-v3, kimi-k2'
    """
    names = list(known)
    near = get_close_matches(str(name)[:SHOWN_CHARACTERS].lower(), names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
