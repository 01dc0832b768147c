"""The fields of a config, each checked when it is read and noted: used, assumed, or never asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from costmodel.blocks.base import MAX_SIZE
from costmodel.errors import CostModelError, UnsupportedArchitecture, did_you_mean, shown

NOTHING: Any = object()


class Fields:
    """One JSON object of a config. `where` stands in errors, `inside` before the names of a nested object.

    `defaults` says what the implementation takes for a missing field; one that is a function of the other fields also
    stands for null. `aliases` maps another spelling of a field to the one that is asked for.
    """

    def __init__(
        self, data: object, where: str, inside: str = "", *, defaults: Mapping[str, Any], aliases: Mapping[str, str]
    ) -> None:
        self.where, self.inside = where, inside
        if not isinstance(data, dict):
            raise CostModelError(f"{where}: {inside.rstrip('.')} got {shown(data)}; give an object of a config's fields")
        self.defaults = defaults
        self.data: dict[str, Any] = {}
        self.spellings: dict[str, list[str]] = {}
        self.used: dict[str, Any] = {}
        self.assumed: dict[str, Any] = {}
        for name, value in data.items():
            field = aliases.get(name, name)
            if field in self.data and not same(self.data[field], value):
                raise CostModelError(f"{where}: {inside}{name} contradicts {self.called(field)}; give one of them")
            self.data[field] = value
            self.spellings.setdefault(field, []).append(name)

    def wrong(self, name: str, value: object, wanted: str) -> NoReturn:
        """Refuses a value that no config can hold there."""
        raise CostModelError(f"{self.where}: {self.called(name)} got {shown(value)}; give {wanted}")

    def unmodelled(self, name: str, value: object, modelled: str) -> NoReturn:
        """Refuses a value that switches on something that is not modelled."""
        raise UnsupportedArchitecture(f"{self.where}: {self.called(name)} {shown(value)} is not modelled; {modelled}")

    def called(self, name: str) -> str:
        """The field as the file spells it, printable."""
        return shown(self.inside + self.spellings.get(name, [name])[0])[1:-1]

    def value(self, name: str) -> Any:
        """A field as it stands, or the implementation's default for it."""
        default = self.defaults.get(name, NOTHING)
        stands = self.data.get(name, NOTHING)
        if stands is not NOTHING and not (stands is None and callable(default)):
            self.used |= {self.inside + spelling: stands for spelling in self.spellings[name]}
            return stands
        if default is NOTHING:
            raise CostModelError(f"{self.where}: {self.called(name)}: this field is missing; give it")
        value = default(self) if callable(default) else default
        self.assumed[self.called(name)] = value
        return value

    def size(self, name: str, low: int = 1, high: int = MAX_SIZE) -> int:
        """A whole number."""
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.wrong(name, value, f"a whole number from {low} to {high:,}")
        return value

    def optional(self, name: str) -> int | None:
        """A whole number, or None for null."""
        return None if self.value(name) is None else self.size(name)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            self.wrong(name, value, "true or false")
        return value

    def fraction(self, name: str) -> float:
        """A number above 0 and at most 1."""
        return self.factor(name, 1)

    def factor(self, name: str, high: int = 1000) -> float:
        """A number above 0 and at most `high`."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and 0 < value <= high):
            self.wrong(name, value, f"a number above 0 and at most {high:,}")
        return float(value)

    def choice(self, name: str, known: Mapping[str, str]) -> str:
        """What a name stands for."""
        value = self.value(name)
        if not isinstance(value, str):
            self.wrong(name, value, "a name")
        if value not in known:
            self.unmodelled(name, value, did_you_mean(value, known))
        return known[value]

    def choices(self, name: str, known: Mapping[str, str], count: int) -> list[str]:
        """One name for each of `count` layers."""
        values = self.value(name)
        if not isinstance(values, list) or len(values) != count:
            came = f"{len(values):,} entries" if isinstance(values, list) else shown(values)
            raise CostModelError(f"{self.where}: {self.called(name)} got {came}; give a list of {count:,} names, one a layer")
        for value in values:
            if not isinstance(value, str) or value not in known:
                self.unmodelled(name, value, did_you_mean(value, known))
        return [known[value] for value in values]

    def bits(self, name: str, count: int) -> list[int]:
        """0 or 1 for each of `count` layers; one number stands for all of them."""
        value = self.value(name)
        values = value if isinstance(value, list) else [value] * count
        if len(values) != count or not all(one in (0, 1) and isinstance(one, int) for one in values):
            self.wrong(name, value, f"0 or 1, or a list of {count:,} of them, one a layer")
        return [int(one) for one in values]

    def places(self, name: str) -> set[int]:
        """A list of layers, counted from 0; null for none."""
        values = self.value(name)
        if values is not None and not isinstance(values, list):
            self.wrong(name, values, "a list of layers")
        for value in values or ():
            if not isinstance(value, int) or isinstance(value, bool):
                self.wrong(name, value, "a list of whole numbers")
        return set(values or ())

    def given(self, name: str) -> bool:
        """Whether the config states the field, and not as null."""
        return self.data.get(name) is not None

    def expect(self, only: Mapping[str, Any]) -> None:
        """Refuses a field whose value is none of those modelled: a tuple, or a function that makes one."""
        for name, values in only.items():
            value = self.data.get(name, self.defaults.get(name, NOTHING))
            if value is NOTHING or (name not in self.data and callable(value)):
                continue
            modelled = values(self) if callable(values) else values
            if not any(same(value, one) for one in modelled):
                meant = "" if name in self.data else " (what the implementation takes for the missing field)"
                self.unmodelled(name, value, f"only {' or '.join(map(shown, modelled))} is{meant}")
            self.value(name)

    def left(self) -> Iterator[str]:
        """Spellings of the fields that nothing asked for."""
        return (one for spellings in self.spellings.values() for one in spellings if self.inside + one not in self.used)


def same(one: object, other: object) -> bool:
    """Whether two values of JSON are equal and of one type, 1 neither true nor 1.0. Only empty lists and objects are compared."""
    flat = not one or not isinstance(one, (list, dict))
    return flat and type(one) is type(other) and one == other


Source = Callable[[Fields], Any]
"""How a value is read from the fields."""


def size(name: str, low: int = 1) -> Source:
    """A whole number of at least `low`."""
    return lambda fields: fields.size(name, low)


def optional(name: str) -> Source:
    """A whole number, or None for null."""
    return lambda fields: fields.optional(name)


def flag(name: str) -> Source:
    """True or false."""
    return lambda fields: fields.flag(name)


def read(sources: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """A block's data: sources read, plain values as they are, what is None left out."""
    values = {name: source(fields) if callable(source) else source for name, source in sources.items()}
    return {name: value for name, value in values.items() if value is not None}
