"""Engines of a layout under traffic: the seconds of their steps and prompts, guesses included.

Everything takes arrays of layouts and batches, so that the planner asks once for all its candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from statistics import NormalDist
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from costmodel.architecture import Architecture
from costmodel.catalog import as_architecture
from costmodel.errors import CostModelError, shown
from costmodel.footprint import DeviceMemory, device_memory
from costmodel.hardware import Accelerator
from costmodel.parallelism import Parallel
from costmodel.serving.lengths import Lengths
from costmodel.timing.estimating import STOPS, check_works, pipelined, stage_balance, stops
from costmodel.timing.points import Points
from costmodel.timing.roofline import Clock, Host, clock
from costmodel.workload import Checked, Precision

Array = NDArray[np.float64]
Mode = Literal["colocated", "disaggregated"]
MODES: tuple[Mode, ...] = ("colocated", "disaggregated")
CHUNK = 2048
"""Tokens of a prompt that ride on one step of a colocated engine, unless told otherwise. An assumption."""
PROMPTS, OUTPUTS = 8, 4
"""Lengths that stand for a distribution of prompts, and of outputs."""
FEW = 32.0
"""Sequences whose step tells what its weights take."""
CROWDED = 0.02
"""Of the requests that may be late, the part that may find every place of a batch taken. An assumption."""
FULL = 0.9
"""Memory is sized for sequences as long as this share of them is at most, prompt and output each."""


class Traffic(Checked):
    """Requests that come in, and how long they are; a number, text such as `p50=900,p90=4000`, or `Lengths`.

    `cached_fraction` of each prompt is found in the prefix cache and not computed again.

    >>> Traffic(requests_per_s=10, prompt=4096, output="p50=200,p99=2000").prompt.mean
    4096.0
    """

    requests_per_s: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
    prompt: Lengths = Lengths.of(4096)
    output: Lengths = Lengths.of(1024)
    cached_fraction: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0

    @field_validator("requests_per_s", "cached_fraction", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        if isinstance(value, (bool, str)):
            raise ValueError(f"got {shown(value)}; give a number")
        return value

    @field_validator("prompt", "output", mode="before")
    @classmethod
    def _lengths(cls, value: object) -> object:
        return Lengths.of(value)

    @property
    def steps(self) -> float:
        """Decode steps of a request in the mean: the first token comes from the prefill."""
        return self.output.mean - 1

    @property
    def longest(self) -> int:
        """Tokens that memory is sized for: prompt and output of nine requests in ten at most, each."""
        return int(np.ceil(self.prompt.at(FULL))) + int(np.ceil(self.output.at(FULL)))

    @property
    def contexts(self) -> tuple[Array, Array]:
        """Contexts of decode steps and their weights: the mean over all steps of all requests."""
        return _contexts(self.prompt, self.output)

    @property
    def prompts(self) -> tuple[Array, Array, Array]:
        """Prompt lengths that stand for all, the tokens of each that must be computed, and their weights."""
        tokens, weights = self.prompt.points(PROMPTS)
        tokens = np.round(tokens)
        return tokens, np.maximum(np.ceil(tokens * (1 - self.cached_fraction)), 1.0), weights


@lru_cache(maxsize=256)
def _contexts(prompts: Lengths, outputs: Lengths) -> tuple[Array, Array]:
    total = np.zeros(len(STOPS))
    for prompt, share in zip(*prompts.points(PROMPTS), strict=True):
        for output, part in zip(*outputs.points(OUTPUTS), strict=True):
            first, last = round(prompt) + 1, round(prompt) + max(round(output) - 1, 1)
            found, weights = stops(first, last)
            total[np.searchsorted(STOPS, found)] += weights * share * part * max(output - 1, 1e-9)
    used = np.flatnonzero(total)
    return STOPS[used], total[used] / total.sum()


class Speculation(Checked):
    """`tokens` are guessed and checked in one pass; each is right with probability `acceptance` if those before it are.

    They come from the model's own multi-token-prediction modules (`draft="mtp"`), or from a smaller model.

    >>> Speculation(tokens=1, acceptance=0.8).tokens_per_step
    1.8
    """

    tokens: Annotated[int, Field(strict=True, ge=1, le=64)]
    acceptance: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    draft: str = "mtp"

    @field_validator("acceptance", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        if isinstance(value, (bool, str)):
            raise ValueError(f"got {shown(value)}; give a number")
        return value

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a step brings in expectation: 1 + a + a^2 ... + a^tokens (Leviathan et al. 2023, arXiv 2211.17192)."""
        return sum(self.acceptance**power for power in range(self.tokens + 1))


@dataclass(frozen=True, eq=False)
class Layouts:
    """Layouts as arrays, an entry each."""

    tp: Array
    dp: Array
    cp: Array
    pp: Array
    ep: Array
    imbalance: Array
    overlapped: Array
    pieces: Array
    """What a prompt takes in pieces through the stages, over what it takes whole."""
    balance: Array
    """What a pipeline waits for its slowest stage."""

    @classmethod
    def of(cls, model: Architecture, layouts: Sequence[Parallel]) -> Layouts:
        """From a list."""
        columns = [[float(getattr(layout, name)) for layout in layouts] for name in ("tp", "dp", "cp", "pp", "ep", "imbalance")]
        overlapped = [float(layout.overlap != "none") for layout in layouts]
        pieces = [pipelined(layout) for layout in layouts]
        balance = [stage_balance(model, layout.pp) for layout in layouts]
        return cls(*(np.array(column) for column in (*columns, overlapped, pieces, balance)))

    def __len__(self) -> int:
        return len(self.tp)

    def __getitem__(self, places: Any) -> Layouts:
        return Layouts(*(getattr(self, each.name)[places] for each in fields(self)))

    @property
    def groups(self) -> Array:
        """Streams of sequences in a replica, each with passes of its own: dp groups times pp stages."""
        return self.dp * self.pp

    @property
    def drafting(self) -> Layouts:
        """As a draft model sees them: it stands in the last stage, whole but for tensor parallelism. The others wait meanwhile."""
        return replace(self, pp=np.ones_like(self.pp), ep=np.ones_like(self.ep))

    @property
    def holders(self) -> Array:
        """Ranks that hold a part each of a sequence's cache."""
        return self.tp * self.cp * self.pp

    def points(self, batch: Any, tokens: Any, context: Any) -> Points:
        """Passes of these layouts; everything broadcasts."""
        return Points.stacked(batch, tokens, context, self.tp, self.dp, self.cp, self.pp, self.ep, self.imbalance)


@dataclass(frozen=True, eq=False)
class Engine:
    """One model stored in some formats on one device, under some traffic: seconds of its steps and prompts."""

    model: Architecture
    device: Accelerator
    formats: Precision
    traffic: Traffic
    speculation: Speculation | None = None
    host: Host = field(default_factory=Host)
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        check_works(self.model)
        if self.draft is not None:
            check_works(self.draft)
        if self.speculation and self.speculation.draft == "mtp" and self.mtp > self.model._mtp_modules():
            raise CostModelError(
                f"{self.model.name} has {self.model._mtp_modules()} multi-token-prediction modules, not {self.mtp}; "
                "guess fewer tokens, or name a draft model"
            )

    @property
    def mtp(self) -> int:
        """Multi-token-prediction modules that guess."""
        return self.speculation.tokens if self.speculation and self.speculation.draft == "mtp" else 0

    @cached_property
    def draft(self) -> Architecture | None:
        """The model that guesses, where it is another."""
        guesses = self.speculation
        return as_architecture(guesses.draft) if guesses and guesses.draft != "mtp" else None

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a decode step brings to a sequence in expectation."""
        return self.speculation.tokens_per_step if self.speculation else 1.0

    @cached_property
    def _decode(self) -> Clock:
        return clock(self.model, self.device, self.formats, self.host, self.mtp)

    @cached_property
    def _guess(self) -> Clock | None:
        return None if self.draft is None else clock(self.draft, self.device, self.formats, self.host)

    @cached_property
    def _prefill(self) -> Clock:
        return clock(self.model, self.device, self.formats, self.host, self.mtp)

    @property
    def steps(self) -> float:
        """Decode steps of a request in the mean."""
        return self.traffic.steps / self.tokens_per_step

    def weights_s(self, layouts: Layouts) -> Array:
        """Seconds that a step takes for its weights alone: of `FEW` sequences with a single token of context.

        So many meet most experts, and are too few to be bound by their products.
        """
        return self._steps_s(layouts, FEW, np.ones(1), np.ones(1))

    def step_s(self, layouts: Layouts, batch: Any) -> Array:
        """Seconds of one decode step of so many sequences on a rank, at the mean over contexts; with guesses, their check too."""
        return self._steps_s(layouts, batch, *self.traffic.contexts)

    def _steps_s(self, layouts: Layouts, batch: Any, contexts: Array, weights: Array) -> Array:
        guesses = self.speculation.tokens if self.speculation else 0
        points = replace(layouts.points(batch, 1 + guesses, 1), verify=guesses > 0, _found={}).over(contexts, weights)
        seconds = _timed(self._decode, points, layouts) * layouts.balance
        if self._guess is not None:
            guessing = layouts.drafting.points(batch, 1, 1).over(contexts, weights)
            seconds = seconds + layouts.pp * guesses * self._guess.seconds(guessing)
        return np.asarray(seconds)

    def pass_s(self, layouts: Layouts, new: Any, context: Any) -> Array:
        """Seconds of a pass over so many new tokens of one prompt on a rank, the last of a context; a draft reads them too."""
        seconds = _single_or_many(self._prefill, layouts.points(1.0, new, context)) * layouts.balance
        if self._guess is not None:
            seconds = seconds + layouts.pp * _single_or_many(self._guess, layouts.drafting.points(1.0, new, context))
        return np.asarray(seconds)

    def prompt_s(self, layouts: Layouts) -> Array:
        """Seconds of whole prompts alone [layouts, prompts]: what `Traffic.prompts` leaves to compute of each."""
        tokens, new, _ = self.traffic.prompts
        size = (len(layouts), len(tokens))
        every = layouts[np.repeat(np.arange(len(layouts)), len(tokens))]
        seconds = self.pass_s(every, np.tile(new, len(layouts)), np.tile(tokens, len(layouts))) * every.pieces
        return np.asarray(seconds.reshape(size))

    def pieces_s(self, layouts: Layouts) -> tuple[Array, Array]:
        """Seconds of prompts in pieces of `chunk` tokens [layouts, prompts], and the number of pieces [prompts].

        All but the last piece are priced at their mean context.
        """
        tokens, new, _ = self.traffic.prompts
        count = np.ceil(new / self.chunk)
        last = new - (count - 1) * self.chunk
        size, every = (len(layouts), len(tokens)), layouts[np.repeat(np.arange(len(layouts)), len(tokens))]

        def passes(piece: Array, context: Array) -> Array:
            return self.pass_s(every, np.tile(piece, len(layouts)), np.tile(np.round(context), len(layouts))).reshape(size)

        if (count == 1).all():
            return passes(last, tokens), count
        whole = np.full(len(new), float(self.chunk))
        mean = np.maximum(tokens - last - (new - last - self.chunk) / 2, self.chunk)
        return (count - 1) * passes(whole, mean) + passes(last, tokens), count

    def transfer_s(self, layouts: Layouts, apart: Layouts) -> Array:
        """Seconds that the cache of a mean prompt takes from a pool that is laid out `apart` to one that decodes.

        Each rank's part goes over its own network link, so the side with fewer of them decides.
        """
        kept = float(self.model.cache_bytes(context=max(round(self.traffic.prompt.mean), 1), precision=self.formats))
        return np.asarray(kept / np.minimum(layouts.holders, apart.holders) / float(self.device.given("network_bytes_per_s")))

    def memory(self, layout: Parallel, batch: int, context: int | None = None) -> DeviceMemory:
        """What each device holds of `batch` sequences a replica."""
        return device_memory(
            self.model, self.device, layout, batch, context or self.traffic.longest, self.formats, mtp=self.mtp,
            speculative=self.speculation.tokens if self.speculation else 0, draft=self.draft,
        )  # fmt: skip


def _timed(timer: Clock, points: Points, layouts: Layouts) -> Array:
    """Seconds of each point, in two overlapping halves where its layout says so."""
    overlapped = np.broadcast_to(layouts.overlapped > 0, points.batch.shape)
    if not overlapped.any():
        return timer.seconds(points)
    halved = timer.seconds(points, "two_batches")
    return halved if overlapped.all() else np.where(overlapped, halved, timer.seconds(points))


def _single_or_many(timer: Clock, points: Points) -> Array:
    """Seconds of prompts of which some have a single token left to compute: those are decode steps."""
    one = points.tokens == 1
    if one.all() or not one.any():
        return timer.seconds(points)
    single, many = (replace(points, tokens=tokens, _found={}) for tokens in (np.ones(len(points)), np.maximum(points.tokens, 2)))
    return np.where(one, timer.seconds(single), timer.seconds(many))


def with_room(decoding: Any, growth: Any, level: float) -> Array:
    """The places in batches that `decoding` sequences in the mean need, so that a request seldom finds all of them taken.

    Their number varies as a shared processor's does: where a step's time grows as the batch to the power e, with a variance of
    about decoding / (1 - e) (the product form of Cohen, Acta Informatica 12, 1979); `growth`, the time between steps over what
    weights take alone, stands for 1 / (1 - e). All places are taken for `CROWDED` of the requests that may be late by `level`:
    the quantile of a gamma distribution of this mean and variance (Wilson and Hilferty, PNAS 17, 1931).

    >>> round(float(with_room(100.0, 1.0, 0.9)), 1)
    131.2
    """
    scale, deviations = np.maximum(growth, 1.0), NormalDist().inv_cdf(1 - CROWDED * (1 - level))
    shape = decoding / scale
    return np.asarray(decoding * np.maximum(1 - 1 / (9 * shape) + deviations / (3 * np.sqrt(shape)), 1.0) ** 3)
