"""The errors a user can cause: one line each, saying what came, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from textwrap import shorten

SHOWN_CHARACTERS = 60
LISTED_CHARACTERS = 200
MOST_BEGUN = 3


class CostModelError(ValueError):
    """Any mistake a user can make. The command line prints the line and exits with status 2."""


class UnsupportedArchitecture(CostModelError):
    """Something that is not modelled. It is refused by name: a silent fallback would be a wrong number."""


def shown(value: object) -> str:
    """A value as an error may quote it: one line, printable ASCII, shortened.

    >>> shown("deepsek-v3"), shown([1, 2])
    ("'deepsek-v3'", 'a list')
    """
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    if not isinstance(value, (str, int, float, bool, type(None))):
        kind = type(value).__name__
        return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    text = ascii(value[: SHOWN_CHARACTERS + 1] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 4]}...{text[-1]}"


def excerpt(text: str) -> str:
    """A foreign message as an error may hold it: its first line, printable ASCII, shortened.

    >>> excerpt("Unterminated string (at end of document)")
    'Unterminated string (at end of document)'
    """
    return shorten(" ".join(ascii(text.partition("\n")[0])[1:-1].split()), LISTED_CHARACTERS, placeholder=" ...")


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The known names that begin so, or the nearest, as a question; or the list, cut where it is long, where none is near.

    >>> did_you_mean("deepsek-v3", ["deepseek-v3", "kimi-k2"])
    'did you mean deepseek-v3?'
    >>> did_you_mean("h100", ["h100-pcie", "h100-sxm", "h800"])
    'did you mean h100-pcie or h100-sxm?'
    >>> did_you_mean("zzz", ["deepseek-v3", "kimi-k2"])
    'known: deepseek-v3, kimi-k2'
    """
    names = list(known)
    asked = name[:SHOWN_CHARACTERS].lower() if isinstance(name, str) else ""
    begun = [asked] if asked in names else [known for known in names if asked and known.startswith(asked)]
    near = begun if 0 < len(begun) <= MOST_BEGUN else get_close_matches(asked, names, n=1, cutoff=0.5)
    return (
        f"did you mean {' or '.join(near)}?"
        if near
        else f"known: {shorten(', '.join(names), LISTED_CHARACTERS, placeholder=' ...')}"
    )
