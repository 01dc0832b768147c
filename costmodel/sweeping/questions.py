"""The question of a sweep, with all that can be wrong with it found before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import islice, product
from typing import Any

import numpy as np

from costmodel.architecture import Architecture
from costmodel.catalog import Source, as_architecture, as_toml
from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.layers import LayerGroup
from costmodel.sweeping.grids import BLOCK_POINTS, MAX_POINTS, Axis, Grid, Kind, choice_axis, listed, number_axis
from costmodel.sweeping.tasks import NEEDED, QUANTITIES, VERSION, Quantity, Task, fitting, own_paths, paths_of, variant
from costmodel.symbols import letter_named
from costmodel.variants import TOP, edited

PROBED = 64
"""Combinations of choices tried before a sweep: if none of so many has a value, there is no sweep."""


@dataclass(frozen=True)
class Question:
    """What is asked: a model as TOML, quantities, and the grid of inputs."""

    model: str
    quantities: tuple[Quantity, ...]
    grid: Grid

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the quantities."""
        return tuple(quantity.name for quantity in self.quantities)

    @property
    def units(self) -> dict[str, str]:
        """The quantities' units."""
        return {quantity.name: quantity.unit for quantity in self.quantities}

    def task(self, block: int) -> Task:
        """One block of it."""
        start, stop = self.grid.span(block)
        return Task(block, start, stop, self.model, self.names, self.grid.pieces(start, stop))

    def data(self) -> dict[str, Any]:
        """All that the values depend on, as JSON data."""
        axes = {axis.name: _digest(axis) for axis in self.grid.axes}
        fixed = {axis.name: _digest(axis) for axis in self.grid.fixed}
        about = {"costmodel": VERSION, "model": self.model, "quantities": self.units, "grid": axes, "fixed": fixed}
        return about | {"points": self.grid.points, "block": BLOCK_POINTS, "order": list(axes)}


def _digest(axis: Axis) -> str:
    if isinstance(axis.values, np.ndarray):
        return f"{len(axis.values)} numbers {sha256(axis.values.astype(np.float64).tobytes()).hexdigest()}"
    texts = [value if axis.kind is Kind.MODEL else repr(value) for value in axis.values]
    return f"{len(texts)} values {sha256(repr(texts).encode()).hexdigest()}"


def asked(model: Source | None, quantity: str | Sequence[str], grid: Mapping[str, Any], fixed: Mapping[str, Any]) -> Question:
    """The question of a sweep. Raises CostModelError for all that can be wrong with it."""
    quantities = _quantities(quantity)
    if not isinstance(grid, Mapping) or not grid:
        raise CostModelError(f"grid got {shown(grid)}; give inputs and their values, such as {{'context': [4096, 8192]}}")
    varied, same = _canonical(grid), _canonical(fixed)
    twice = next((name for name in same if name in varied), None)
    if twice is not None or "model" in same:
        raise CostModelError(f"{shown(twice or 'model')[1:-1]} is given twice; leave it in the grid, or give its one value")
    models = [as_architecture(one) for one in listed("model", varied["model"])] if "model" in varied else []
    base = _base(model, models)
    named = partial(_axis, quantities=quantities, models=models or [base])
    axes = tuple(named(name, values) for name, values in varied.items())
    question = Question(as_toml(base), quantities, Grid(axes, tuple(named(name, [value]) for name, value in same.items())))
    _check_size(question.grid)
    _check_needs(question, {*varied, *same})
    _probe(question)
    return question


def _quantities(quantity: str | Sequence[str]) -> tuple[Quantity, ...]:
    names = [quantity] if isinstance(quantity, str) else list(listed("quantity", quantity))
    for place, name in enumerate(names):
        if not isinstance(name, str) or name not in QUANTITIES:
            raise CostModelError(f"no quantity {shown(name)} to sweep; {did_you_mean(name, QUANTITIES)}")
        if name in names[:place]:
            raise CostModelError(f"{name} is asked for twice; give each quantity once")
    return tuple(QUANTITIES[name] for name in names)


def _canonical(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs by their long names."""
    found: dict[str, Any] = {}
    for name, values in inputs.items():
        letter = letter_named(name) if isinstance(name, str) and len(name) == 1 else None
        own = letter.field if letter else name
        if own in found:
            raise CostModelError(f"{own} is given twice; give {own} or {name}")
        found[own] = values
    return found


def _base(model: Source | None, models: list[Architecture]) -> Architecture:
    """The model that is changed; one of a grid of models needs not be said."""
    if model is None and models:
        return models[0]
    if model is None:
        raise CostModelError("sweep got no model; give one, or models in the grid")
    base = as_architecture(model)
    if models and base.name not in [each.name for each in models]:
        raise CostModelError(f"the grid names models without {base.name}; give None as the model, or one of those")
    return base


def _axis(name: str, values: Any, quantities: tuple[Quantity, ...], models: list[Architecture]) -> Axis:
    inputs = [quantity.inputs[name] for quantity in quantities if name in quantity.inputs]
    if name == "model":
        names = {as_toml(model): model.name for model in models}
        return choice_axis(name, Kind.MODEL, values, lambda one: as_toml(as_architecture(one)), names.__getitem__)
    if inputs and all(one.varies for one in inputs):
        return number_axis(name, values, any(one.whole for one in inputs))
    if inputs:
        return choice_axis(name, Kind.CHOICE, values, partial(_accepted, [one.check for one in inputs]))
    places = [(model, path) for model in models for path in _meant(model, name)]
    if places:
        checks = [partial(_check_field, model, path) for model, path in places]
        return choice_axis(name, Kind.FIELD, values, partial(_accepted, checks))
    known = dict.fromkeys(one for quantity in quantities for one in quantity.inputs)
    fields = dict.fromkeys(path for model in models for path in paths_of(model))
    wild = dict.fromkeys(f"*/{path.partition('/')[2]}" for path in fields if path.count("/") == 2)
    told = ", ".join(quantity.name for quantity in quantities)
    raise CostModelError(f"{told} takes no {shown(name)}; {did_you_mean(name, [*known, 'model', *fields, *wild])}")


def _meant(model: Architecture, name: Any) -> list[str]:
    known = paths_of(model)
    try:
        return [path for path in own_paths(model, name) if path in known] if isinstance(name, str) else []
    except CostModelError:
        return []


def _accepted(checks: Sequence[Callable[[Any], Any]], value: Any) -> Any:
    """A value that one of several takes, each in its way. Raises the first CostModelError where none does."""
    refusals = []
    for check in checks:
        try:
            return check(value)
        except CostModelError as error:
            refusals.append(error)
    raise refusals[0]


def _check_field(model: Architecture, path: str, value: Any) -> Any:
    """A value that a field takes, whatever the other fields are."""
    name, *within = path.split("/")
    if path in TOP:
        return fitting(Architecture, name, path, value)
    if within == ["count"]:
        return value if type(value) is int and value == 0 else fitting(LayerGroup, "count", path, value)
    if len(within) == 1:
        edited(model, {path: value})
        return value
    block = getattr(next(group for group in model.layers if group.name == name), within[0])
    return fitting(type(block), within[1], path, value)


def _check_size(grid: Grid) -> None:
    if grid.points > MAX_POINTS:
        told = " x ".join(f"{len(axis.values):,} {axis.name}" for axis in grid.axes)
        raise CostModelError(f"the grid has {told} = {grid.points:,} points; give at most {MAX_POINTS:,}")


def _check_needs(question: Question, given: set[str]) -> None:
    for quantity in question.quantities:
        missing = next((name for name, one in quantity.inputs.items() if one.default is NEEDED and name not in given), None)
        if missing is not None:
            raise CostModelError(f"{quantity.name} needs {missing}; add it to the grid, or give {missing}=...")


def _probe(question: Question) -> None:
    """Raises CostModelError for a quantity that is refused under all choices (of the first `PROBED`)."""
    axes = [axis for axis in (*question.grid.axes, *question.grid.fixed) if axis.kind is not Kind.FIELD]
    options = [[axis.values[0].item()] if isinstance(axis.values, np.ndarray) else axis.values for axis in axes]
    for quantity in question.quantities:
        calls = [dict(zip([axis.name for axis in axes], chosen, strict=True)) for chosen in islice(product(*options), PROBED)]
        _accepted([partial(_called, quantity, call) for call in calls], question.model)


def _called(quantity: Quantity, given: dict[str, Any], model: str) -> Any:
    own = {name: value for name, value in given.items() if name in quantity.inputs}
    return quantity.block(variant(given.get("model", model), ()), own)
