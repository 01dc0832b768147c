"""The only place that rounds and prints units, and that reads sizes such as `128k`.

Inside, everything is bytes, FLOP and plain counts. GiB, TFLOP and B (billion) appear here alone.
"""

from __future__ import annotations

import re
from fractions import Fraction
from numbers import Real
from typing import Any

from costmodel.errors import CostModelError, shown

BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
DECIMAL = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
COUNT = ("", "k", "M", "B", "T")
MAX_WHOLE = 10**12
"""The largest batch, context or size that is asked for."""


def _scaled(value: float, base: int, prefixes: tuple[str, ...]) -> tuple[float, str]:
    power = 0
    while abs(value) >= base and power < len(prefixes) - 1:
        value, power = value / base, power + 1
    return value, prefixes[power]


def _digits(value: float) -> str:
    """Four significant digits, never fewer than the integer part has.

    >>> _digits(70.272), _digits(6.0), _digits(1234.5)
    ('70.27', '6', '1234')
    """
    text = f"{value:.{max(0, 4 - len(str(int(abs(value)))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def binary_bytes(value: float) -> str:
    """Bytes in powers of 1,024.

    >>> binary_bytes(70_272), binary_bytes(9_210_691_584)
    ('68.62 KiB', '8.578 GiB')
    """
    scaled, prefix = _scaled(value, 1024, BINARY)
    return f"{_digits(scaled)} {prefix}B"


def decimal_bytes(value: float) -> str:
    """Bytes in powers of 1,000.

    >>> decimal_bytes(9_210_691_584)
    '9.211 GB'
    """
    scaled, prefix = _scaled(value, 1000, DECIMAL)
    return f"{_digits(scaled)} {prefix}B"


BYTES = {"GiB": binary_bytes, "GB": decimal_bytes}
"""The two ways to print bytes."""


def flop(value: float) -> str:
    """FLOP in powers of 1,000.

    >>> flop(250_000_000_000)
    '250 GFLOP'
    """
    scaled, prefix = _scaled(value, 1000, DECIMAL)
    return f"{_digits(scaled)} {prefix}FLOP"


def count(value: float) -> str:
    """A count of parameters or tokens, B for billions.

    >>> count(671_026_419_200)
    '671 B'
    """
    scaled, prefix = _scaled(value, 1000, COUNT)
    return f"{_digits(scaled)} {prefix}".rstrip()


def seconds(value: float) -> str:
    """A time from nanoseconds to seconds.

    >>> seconds(0.0123), seconds(90)
    ('12.3 ms', '90 s')
    """
    for scale, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {name}" if value < 1000 else f"{value:,.0f} s"
    return f"{value / 1e-9:.3g} ns" if value else "0 s"


def quantity(value: float, unit: str, bytes_as: str = "GiB") -> str:
    """A value in the words of its unit: `bytes`, `FLOP`, `s`, `share` ...; `parameters` and `steps` are plain counts.

    Rates are in powers of 1,000, as datasheets have them.

    >>> quantity(70_272, "bytes"), quantity(512, "tokens")
    ('68.62 KiB', '512 tokens')
    """
    if unit.startswith("bytes"):
        return BYTES["GB" if unit == "bytes/s" else bytes_as](value) + unit[5:]
    if unit.startswith("FLOP"):
        return flop(value) + unit[4:]
    if unit == "s":
        return seconds(value)
    if unit == "share":
        return f"{value:.1%}"
    return count(value) if unit in ("parameters", "steps") else f"{count(value)} {unit}".rstrip()


def tokens(value: int) -> str:
    """A context length as people say it, only where that is exact.

    >>> tokens(131_072), tokens(5_000)
    ('128k', '5,000')
    """
    for prefix, scale in (("M", 1 << 20), ("k", 1 << 10)):
        if value >= scale and value % scale == 0:
            return f"{value // scale}{prefix}"
    return f"{value:,}"


def workload(batch: int, context: int) -> str:
    """A workload in words.

    >>> workload(1, 131_072), workload(8, 5_000)
    ('1 sequence of 128k tokens', '8 sequences of 5,000 tokens')
    """
    return f"{batch:,} sequence{'' if batch == 1 else 's'} of {tokens(context)} tokens"


_SIZE = re.compile(r"([0-9]+(?:[_,][0-9]+)*)(?:\.([0-9]{1,12}))?\s*([kKmM]?)i?", re.ASCII)


def parse_tokens(text: str) -> int:
    """Reads a context length: a plain number, or one with k (1,024) or M (1,048,576).

    Raises CostModelError for anything else.

    >>> parse_tokens("128k"), parse_tokens("131_072"), parse_tokens("1M")
    (131072, 131072, 1048576)
    """
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) and len(text) < 64 else None
    if match:
        whole, decimals, prefix = match.groups()
        scale = {"": 1, "k": 1 << 10, "m": 1 << 20}[prefix.lower()]
        digits = whole.replace("_", "").replace(",", "")
        value = Fraction(f"{digits}.{decimals or 0}") * scale
        if value.denominator == 1 and value >= 1:
            return int(value)
    raise CostModelError(f"{shown(text)} is no length; give a whole number of tokens such as 4096, 128k or 1M")


_COUNT = re.compile(r"([0-9]+(?:[_,][0-9]+)*)(?:\.([0-9]{1,12}))?\s*([kKMBT]?)", re.ASCII)


def parse_count(text: str) -> int:
    """Reads a large count: a plain number, or one with k, M, B (10^9) or T (10^12).

    Raises CostModelError for anything else.

    >>> parse_count("14.8T"), parse_count("300B"), parse_count("1_000")
    (14800000000000, 300000000000, 1000)
    """
    match = _COUNT.fullmatch(text.strip()) if isinstance(text, str) and len(text) < 64 else None
    if match:
        whole, decimals, prefix = match.groups()
        scale = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}[prefix.lower()]
        value = Fraction(f"{whole.replace('_', '').replace(',', '')}.{decimals or 0}") * scale
        if value.denominator == 1 and value >= 1:
            return int(value)
    raise CostModelError(f"{shown(text)} is no count; give a whole number such as 300B, 14.8T or 1_000_000")


_BYTES = re.compile(r"([0-9]+(?:[_,][0-9]+)*)(?:\.([0-9]{1,12}))?\s*(?:([kmgtpe]i?)?b)?", re.ASCII | re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Reads a size: a plain number of bytes, or one with KiB, MiB, GiB, TiB (powers of 1,024) or kB, MB, GB, TB (of 1,000).

    A part of a byte is left out. Raises CostModelError for anything else.

    >>> parse_bytes("16GiB"), parse_bytes("16 gb"), parse_bytes("1_024")
    (17179869184, 16000000000, 1024)
    """
    match = _BYTES.fullmatch(text.strip()) if isinstance(text, str) and len(text) < 64 else None
    if match:
        whole, decimals, prefix = match.groups()
        name = (prefix or "").upper().replace("I", "i")
        scale = 1024 ** BINARY.index(name) if name.endswith("i") else 1000 ** DECIMAL.index(name.replace("K", "k"))
        value = Fraction(f"{whole.replace('_', '').replace(',', '')}.{decimals or 0}") * scale
        if value >= 1:
            return int(value)
    raise CostModelError(f"{shown(text)} is no size; give bytes such as 16GiB, 16GB or 17179869184")


def whole(name: str, value: Any, least: int = 1) -> int:
    """A batch, a context or a count as an int.

    Raises CostModelError for anything but one whole number from `least` to 10^12.

    >>> whole("context", 4096.0)
    4096
    """
    number: Any = value if isinstance(value, Real) and not isinstance(value, bool) else -1
    if least <= number <= MAX_WHOLE and number == int(number):
        return int(number)
    try:
        meant = f", such as {parse_tokens(value)}"
    except CostModelError:
        meant = ""
    raise CostModelError(f"{name} got {shown(value)}; give a whole number from {least} to {MAX_WHOLE}{meant}")
