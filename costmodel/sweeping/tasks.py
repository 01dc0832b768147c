"""What a sweep computes: a table of quantities, and one block of points evaluated wherever it is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import import_module
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, TypeAdapter, ValidationError

from costmodel.architecture import Architecture
from costmodel.catalog import accelerators, as_accelerator, parse, preset
from costmodel.errors import CostModelError, excerpt, shown
from costmodel.formula import Formula
from costmodel.sweeping.grids import Kind, Piece
from costmodel.symbols import letter_named
from costmodel.timing.estimating import formats_of
from costmodel.timing.timetables import Workloads
from costmodel.variants import PARTS, edited, knobs
from costmodel.workload import Options

Values = NDArray[np.float64]
VERSION: str = import_module("costmodel").__version__
"""Ours: a worker's must be the same."""
NEEDED: Any = object()
"""The default of an input that has none."""


# what can be swept


@dataclass(frozen=True)
class Input:
    """One input of a quantity. One that `varies` comes as an array or a number, any other as one value a call.

    `whole`: a whole number from 1; else, where it varies, any finite number from 0. `check` gives the value that is meant, or
    raises CostModelError.
    """

    default: Any = NEEDED
    varies: bool = True
    whole: bool = True
    check: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True)
class Quantity:
    """Something a sweep can compute: `block(model, given)` gives its values as float64, for numbers and arrays of one length.

    `given` has the inputs that were given, by name; the others are at their defaults. `block` raises CostModelError for what is
    refused whatever the numbers, and gives NaN at a point that is impossible, which `impossible` explains.
    """

    name: str
    unit: str
    inputs: Mapping[str, Input]
    block: Callable[[Architecture, Mapping[str, Any]], Any]
    impossible: str = "there is no value here"


FORMULAS = (
    "cache_bytes", "weight_bytes", "bytes_moved", "flops", "prefill_flops", "decode_flops", "training_flops", "params.total",
    "params.active", "params.active_with_embedding", "params.embedding", "params.routed_experts", "params.vision", "params.mtp",
)  # fmt: skip
FEW = 4
"""Points that are asked for one by one: cheaper than an expression made ready for arrays, and exact."""


def _of_formula(name: str) -> Quantity:
    """A quantity that is a Formula of every model; its inputs are those that the Formula states."""
    formula = _formula(preset("gpt2"), name)
    letters = {field: letter_named(field) for field in formula.inputs}
    inputs = {
        field: Input(NEEDED if letter is None or letter.default is None else letter.default) for field, letter in letters.items()
    }
    inputs |= {
        option: Input(value, varies=False, check=partial(_option, name, option)) for option, value in formula.options.items()
    }
    return Quantity(name, formula.unit, inputs, partial(_formula_values, name), "new_tokens exceeds context")


def _formula(model: Architecture, name: str) -> Formula:
    count = name.removeprefix("params.")
    found: Formula = getattr(model, name) if count == name else model.params.formula(count)
    return found


def _formula_values(name: str, model: Architecture, given: Mapping[str, Any]) -> Any:
    """The Formula at points; NaN where there are more new tokens than context."""
    formula = _formula(model, name).having(**{key: value for key, value in given.items() if key in Options.model_fields})
    numbers = {key: value for key, value in given.items() if key not in Options.model_fields}
    long = {key: value for key, value in numbers.items() if isinstance(value, np.ndarray)}
    count = max((len(value) for value in long.values()), default=1)
    fits = np.broadcast_to(np.less_equal(numbers.get("new_tokens", 1), numbers.get("context", np.inf)), count)
    if not fits.all():
        some = {key: value[fits] if key in long else value for key, value in numbers.items()}
        values = np.full(count, np.nan)
        values[fits] = _formula_values(name, model, {**given, **some}) if fits.any() else np.nan
        return values
    if count > FEW:
        return formula(**numbers)
    return [
        formula(**{key: int(value[place]) if key in long else value for key, value in numbers.items()}) for place in range(count)
    ]


def _option(quantity: str, name: str, value: Any) -> Any:
    """An option of a Formula, checked alone. Raises CostModelError."""
    value = fitting(Options, name, name, tuple(value) if isinstance(value, list) else value)
    if name in ("precision", "algorithm"):  # what these name is known where it is used
        _ = _formula(preset("gpt2"), quantity).having(**{name: value}).terms
    return value


def fitting(owner: type[BaseModel], field_name: str, path: str, value: Any) -> Any:
    """A value that a field takes. Raises CostModelError."""
    about = owner.model_fields[field_name]
    try:
        declared: Any = Annotated[about.annotation, about]
        TypeAdapter(declared).validate_python(value)
    except ValidationError as error:
        expected = error.errors(include_url=False)[0]["msg"].removeprefix("Input ").removeprefix("Value error, ")
        raise CostModelError(f"{path} got {shown(value)}; it {excerpt(expected)}") from None
    return value


def _of_estimate(name: str, unit: str, told: Callable[[Workloads, Mapping[str, Any]], Any], **more: Input) -> Quantity:
    """A quantity that `estimate` tells of a workload on an accelerator."""

    def block(model: Architecture, given: Mapping[str, Any]) -> Any:
        formats = formats_of(given.get("precision", "bf16"), given.get("cache_precision", "bf16"))
        return told(Workloads.of(model, as_accelerator(given["accelerator"]), formats, dict(given)), given)

    return Quantity(name, unit, WORKLOADS | more, block, "the layout is impossible here, or the output is a single token")


def _accelerator(value: Any) -> Any:
    """A preset's name, or what a file says: another machine need not have the file."""
    found = as_accelerator(value)
    return value if value in accelerators() else found


def _format(role: str, value: Any) -> Any:
    formats_of(*((value, "bf16") if role == "precision" else ("bf16", value)))
    return value


def _price(device: str, given: Mapping[str, Any]) -> Any:
    """Dollars an hour of a device: those given, else those listed."""
    listed = as_accelerator(device).price
    return given.get("usd_per_hour", listed.usd_per_hour if listed else None)


WORKLOADS: dict[str, Input] = {
    "accelerator": Input(varies=False, check=_accelerator),
    "batch": Input(1), "prompt": Input(4096), "output": Input(1024),
    **{degree: Input(1) for degree in ("tp", "dp", "cp", "pp", "ep")},
    "precision": Input("bf16", varies=False, check=partial(_format, "precision")),
    "cache_precision": Input("bf16", varies=False, check=partial(_format, "cache_precision")),
}  # fmt: skip
"""What an estimate is asked with."""
QUANTITIES: dict[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        *map(_of_formula, FORMULAS),
        _of_estimate("tpot_s", "s", lambda asked, given: asked.tpot_s()),
        _of_estimate("ttft_s", "s", lambda asked, given: asked.ttft_s()),
        _of_estimate(
            "output_tokens_per_s_per_device", "tokens/s", lambda asked, given: asked.output_tokens_per_s_per_device()
        ),
        _of_estimate(
            "usd_per_mtok_out", "USD",
            lambda asked, given: asked.usd_per_mtok_out(_price(given["accelerator"], given)), usd_per_hour=Input(None, whole=False),
        ),
    )
}  # fmt: skip
"""Everything that can be swept, by name: add a row to add a quantity."""


# one block, wherever it is evaluated


@dataclass(frozen=True, eq=False)
class Task:
    """All that one block needs, small and picklable: the model as TOML, names of quantities, its pieces of the axes."""

    block: int
    start: int
    stop: int
    model: str
    quantities: tuple[str, ...]
    pieces: tuple[Piece, ...]
    tries: int = 0


@dataclass(eq=False)
class Outcome:
    """A block's values by quantity, and why a point has none: the place of its reason, or -1."""

    block: int
    values: dict[str, Values]
    why: NDArray[np.int32]
    reasons: list[str] = field(default_factory=list)
    version: str = VERSION

    def refuse(self, rows: NDArray[np.int64], reason: str) -> None:
        """Gives rows a reason; the first one stays."""
        fresh = rows[self.why[rows] < 0]
        if fresh.size:
            self.reasons += [reason] if reason not in self.reasons else []
            self.why[fresh] = self.reasons.index(reason)


def evaluate_block(task: Task) -> Outcome:
    """The values of one block: each architecture derived once, its points evaluated together."""
    points = np.arange(task.start, task.stop)
    outcome = Outcome(
        task.block, {name: np.full(len(points), np.nan) for name in task.quantities}, np.full(len(points), -1, np.int32)
    )
    places = {piece.name: piece.places(points) for piece in task.pieces}
    for rows in _groups(
        [places[piece.name] for piece in task.pieces if piece.kind is not Kind.NUMBER and len(piece.values) > 1], points
    ):
        first = {piece.name: piece.values[places[piece.name][rows[0]]] for piece in task.pieces if piece.kind is not Kind.NUMBER}
        numbers = {piece.name: _numbers(piece, places[piece.name][rows]) for piece in task.pieces if piece.kind is Kind.NUMBER}
        fields = tuple((piece.name, first.pop(piece.name)) for piece in task.pieces if piece.kind is Kind.FIELD)
        try:
            model = variant(first.pop("model", task.model), fields)
        except CostModelError as error:
            outcome.refuse(rows, str(error))
            continue
        for name in task.quantities:
            _evaluate(QUANTITIES[name], model, first | numbers, rows, outcome)
    return outcome


def _evaluate(quantity: Quantity, model: Architecture, given: dict[str, Any], rows: NDArray[np.int64], outcome: Outcome) -> None:
    """Puts a quantity's values into its rows."""
    try:
        values = quantity.block(model, {name: value for name, value in given.items() if name in quantity.inputs})
    except CostModelError as error:
        outcome.refuse(rows, str(error))
        return
    own = outcome.values[quantity.name]
    own[rows] = values
    outcome.refuse(rows[np.isnan(own[rows])], quantity.impossible)


def _groups(codes: list[NDArray[np.int64]], points: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows that agree in all codes, in the order in which they first come."""
    if not codes:
        yield np.arange(len(points))
        return
    _, group = np.unique(np.stack(codes), axis=1, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(group.ravel()[order])) + 1)


def _numbers(piece: Piece, places: NDArray[np.int64]) -> Any:
    """A number where it is one in the whole block, else an array."""
    return piece.values[places] if len(piece.values) > 1 else piece.values[0].item()


@lru_cache(maxsize=256, typed=True)
def variant(text: str, fields: tuple[tuple[str, Any], ...]) -> Architecture:
    """The architecture of a TOML text with fields changed; derived once for all blocks."""
    if not fields:
        return parse(text, "model")
    model = variant(text, ())
    paths = sorted(fields, key=lambda change: not change[0].startswith("*/"))  # a path of its own beats one of all groups
    return edited(model, {own: value for path, value in paths for own in own_paths(model, path)})


def own_paths(model: Architecture, path: str) -> list[str]:
    """The paths that one path means: `*/mixer/head_dim` is that of every group that has one."""
    if not path.startswith("*/"):
        return [path]
    found = [own for own in paths_of(model) if own.partition("/")[2] == path[2:]]
    if not found:
        raise CostModelError(f"{model.name} has nothing at {shown(path)[1:-1]}")
    return found


def paths_of(model: Architecture) -> list[str]:
    """Every path of an architecture that a grid may change."""
    fields = [knob.path for own in knobs(model).values() for knob in own]
    return fields + [f"{group.name}/{part}" for group in model.layers for part in PARTS if getattr(group, part) is not None]
