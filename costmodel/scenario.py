"""A scenario: everything a reader may choose, as one frozen value that is also a link, a command and a line of Python."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlencode

from pydantic import Field

from costmodel.architecture import Architecture
from costmodel.catalog import accelerators, calibrations, presets
from costmodel.errors import CostModelError, did_you_mean, excerpt, shown
from costmodel.formula import Formula
from costmodel.kernels import CLASSES
from costmodel.kernels import ELEMENT_BYTES as DTYPES
from costmodel.memory import Capacity, capacity
from costmodel.planning.candidates import OBJECTIVES, Objective
from costmodel.units import MAX_WHOLE, parse_tokens, tokens, whole
from costmodel.workload import ELEMENT_BYTES, FORMATS, Checked, Precision

SCHEMA = 3
"""The version of links. Those of version 1 carried no number, and models, context, batch and view alone; of 2, no traffic."""
FLAGSHIPS = ("deepseek-v3", "gemma-3-27b", "qwen3-next-80b-a3b", "kimi-k2")
YARDSTICK = "llama-3.1-70b"
"""Plain grouped-query attention of 70 B parameters: what the others are measured against."""
MAX_MODELS = 4
STOPS = tuple(sorted(step << power for power in range(9, 20) for step in (2, 3)))[:-1]
"""Lengths of context that a slider stops at: 1k, 1.5k, 2k, 3k ... 1M."""
MAX_EDITS = 64
SAME = "same"
"""The other model stored like the first."""

Quantity = Literal[
    "params", "active", "weight_bytes", "cache_bytes", "prefill_flops", "decode_flops", "bytes_moved", "training_flops"
]
QUANTITIES: tuple[str, ...] = get_args(Quantity)
WHAT = {
    "params": "Parameters", "active": "Active parameters", "weight_bytes": "Stored weights", "cache_bytes": "Cache",
    "prefill_flops": "FLOPs of the prompt", "decode_flops": "FLOPs of the next token",
    "bytes_moved": "Bytes moved for the next token", "training_flops": "FLOPs of a training step",
}  # fmt: skip
"""The quantities in words."""
Count = Annotated[int, Field(strict=True, ge=1, le=MAX_WHOLE)]
LONGEST = 10_000_000
"""Tokens of the longest prompt and output of a traffic."""
Length = Annotated[int, Field(strict=True, ge=1, le=LONGEST)]
Limit = Annotated[float, Field(strict=True, ge=0, le=10_000, allow_inf_nan=False)]
"""Seconds; 0 where there is no limit."""


class Scenario(Checked):
    """Up to four models, one workload, how numbers are stored and shown, and the hardware they are held against.

    `model` and `other` are the models that a page about one or two of them is about (empty: the first ones),
    `quantity` what it shows, `to_weights` and `to_cache` the other's formats, `height` and `along` the
    axes of the landscape, `edit` the changes made to `model`, `calibration` the one that a page shows (empty: the accelerator's),
    `kernels` which class of it. Traffic: `requests_per_s` of `prompt` and `output` tokens, first tokens within `ttft_s` and
    further ones within `tpot_s` seconds (0: no limit), at `usd_per_hour` dollars a device (0: the listed price), for `objective`.

    >>> Scenario(context=4096).query()["context"]
    ['4k']
    """

    models: Annotated[tuple[str, ...], Field(max_length=MAX_MODELS)] = FLAGSHIPS
    context: Count = 131_072
    batch: Count = 1
    weights: str = "bf16"
    cache: str = "bf16"
    view: Literal["theory", "engine"] = "theory"
    accelerator: str = "h200"
    devices: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 16
    units: Literal["GiB", "GB"] = "GiB"
    model: str = ""
    other: str = ""
    quantity: Quantity = "cache_bytes"
    to_weights: str = SAME
    to_cache: str = SAME
    height: Literal["cache_bytes_per_token", "decode_flops", "params_active"] = "cache_bytes_per_token"
    along: Literal["size", "date"] = "size"
    edit: Annotated[tuple[str, ...], Field(max_length=MAX_EDITS)] = ()
    calibration: str = ""
    kernels: str = ""
    requests_per_s: Annotated[float, Field(strict=True, ge=1e-6, le=10_000, allow_inf_nan=False)] = 2.0
    prompt: Length = 4096
    output: Length = 1024
    ttft_s: Limit = 2.0
    tpot_s: Limit = 0.05
    usd_per_hour: Annotated[float, Field(strict=True, ge=0, le=100_000, allow_inf_nan=False)] = 0.0
    objective: Objective = "usd"

    # a link

    def query(self) -> dict[str, list[str]]:
        """Every value as a link's query, defaults and the version included."""
        return {"v": [str(SCHEMA)]} | {name: _written(name, getattr(self, name)) for name in type(self).model_fields}

    def link(self, page: str = "") -> str:
        """The query as text behind a page's address: `explore?v=2&models=...`."""
        return f"{page}?{urlencode(self.query(), doseq=True)}"

    @classmethod
    def of(cls, query: Mapping[str, Sequence[str]], own: Collection[str] = ()) -> tuple[Scenario, tuple[str, ...]]:
        """The scenario of a link, and a notice for each thing in it that is not understood. `own`: models beside the presets.

        >>> Scenario.of({"context": ["4k"], "batch": ["none"]})[1]
        ("batch: 'none' is no whole number; 1 is shown",)
        """
        notices: list[str] = []
        values: dict[str, Any] = {}
        version = next(iter(query.get("v", ())), "1")
        if version not in {str(number) for number in range(1, SCHEMA + 1)}:
            notices.append(f"the link's version {shown(version)} is unknown here; what is understood is shown")
        for name, given in query.items():
            if name not in cls.model_fields:
                if name != "v":
                    notices.append(f"the link's {shown(name)} is unknown and was left out")
                continue
            try:
                values |= cls(**{name: _read(name, list(given), own)}).model_dump(include={name})
            except CostModelError as error:
                default = ", ".join(_written(name, cls.model_fields[name].default)) or "none"
                notices.append(f"{name}: {excerpt(str(error).removeprefix(f'Scenario: {name}:').strip())}; {default} is shown")
        return cls(**values), tuple(notices)

    # questions

    @property
    def at(self) -> dict[str, int]:
        """The letters of the workload."""
        return {"context": self.context, "batch": self.batch}

    def kept(self, model: Architecture) -> Formula:
        """The cache of a model, stored and viewed as chosen."""
        return model.cache_bytes.having(precision=self.cache, view=self.view)

    def formula(self, model: Architecture, quantity: str | None = None) -> Formula:
        """The quantity's Formula for a model."""
        name = quantity or self.quantity
        if name in ("params", "active"):
            return model.params.formula("total" if name == "params" else "active")
        if name == "cache_bytes":
            return self.kept(model)
        formula: Formula = getattr(model, name)
        if name == "bytes_moved":
            return formula.having(precision=Precision.named(self.weights, cache=self.cache))
        return formula.having(precision=self.weights) if name == "weight_bytes" else formula

    def inputs(self, formula: Formula) -> dict[str, int]:
        """The letters a formula is called with here; the pass of `bytes_moved` is one new token."""
        return {name: value for name, value in (self.at | {"new_tokens": 1}).items() if name in formula.inputs}

    def room(self, model: Architecture) -> Capacity:
        """What fits on the chosen devices."""
        return capacity(
            model, self.accelerator, self.devices, **self.at, precision=self.weights, cache_precision=self.cache, view=self.view
        )

    def command(self, verb: str, *models: str) -> str:
        """The command line that gives the same numbers."""
        stored = f" --precision {self.weights} --cache-precision {self.cache}" if verb in ("show", "compare", "capacity") else ""
        return f"costmodel {verb} {' '.join(models)} --context {self.context} --batch {self.batch}{stored}"

    def python(self, model: str) -> str:
        """The line of Python that gives a model's cache."""
        return (
            f'costmodel.load("{model}").cache_bytes(context={self.context}, batch={self.batch}, '
            f'precision="{self.cache}", view="{self.view}")'
        )


def _written(name: str, value: Any) -> list[str]:
    """A value as a link carries it; an empty list as an empty text, so that it differs from no value."""
    if name in LENGTHS:
        return [tokens(value)]
    if isinstance(value, float):
        return [repr(value).removesuffix(".0")]
    if isinstance(value, tuple):
        return [str(item) for item in value] or [""]
    return [str(value)]


def _read(name: str, given: list[str], own: Collection[str]) -> Any:
    """A value from a link's texts. Raises CostModelError for what it cannot be."""
    if name == "models":
        return tuple(dict.fromkeys(_known(text, (*presets(), *own), "model") for text in given if text))
    if name == "edit":
        return tuple(text for text in given if text)
    text = given[-1] if given else ""
    if name in LENGTHS:
        return whole(name, parse_tokens(text))
    if name in ("batch", "devices"):
        return _whole_number(text)
    if name in NUMBERS:
        return _number(text)
    choices = CHOICES.get(name) or ((*presets(), *own, "") if name in ("model", "other") else accelerators())
    return _known(text, choices, name)


def _whole_number(text: str) -> int:
    if len(text) < 20 and text.isascii() and text.isdigit():
        return int(text)
    raise CostModelError(f"{shown(text)} is no whole number")


_NUMBER = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)


def _number(text: str) -> float:
    if _NUMBER.fullmatch(text):
        return float(text)
    raise CostModelError(f"{shown(text)} is no number")


def _known(text: str, choices: Sequence[str], what: str) -> str:
    if text in choices:
        return text
    raise CostModelError(f"no {what} {shown(text)}, {did_you_mean(text, [choice for choice in choices if choice])}")


LENGTHS = ("context", "prompt", "output")
"""Fields that are lengths in tokens."""
NUMBERS = ("requests_per_s", "ttft_s", "tpot_s", "usd_per_hour")
"""Fields that need not be whole."""
CHOICES: dict[str, tuple[str, ...]] = {
    "weights": tuple(FORMATS),
    "cache": tuple(ELEMENT_BYTES),
    "view": ("theory", "engine"),
    "units": ("GiB", "GB"),
    "quantity": QUANTITIES,
    "to_weights": (SAME, *FORMATS),
    "to_cache": (SAME, *ELEMENT_BYTES),
    "height": ("cache_bytes_per_token", "decode_flops", "params_active"),
    "along": ("size", "date"),
    "calibration": ("", *calibrations()),
    "kernels": ("", *(f"{name} {dtype}" for name in CLASSES for dtype in DTYPES)),
    "objective": OBJECTIVES,
}
"""What may be chosen, by field."""
