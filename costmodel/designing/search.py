"""A search for designs: small changes of an architecture that meet limits of cache, FLOPs and parameters, as a Pareto front."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.architecture import Architecture
from costmodel.catalog import Source, as_architecture
from costmodel.designing.designs import TITLES, Design, Designs, loss_of
from costmodel.designing.moves import CHANGES, MIXERS, Costs, Move, Prices, costs_of, field_moves, layer_moves
from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.units import binary_bytes, count, flop, parse_bytes, tokens, whole
from costmodel.variants import Value, as_edits, edited
from costmodel.workload import ELEMENT_BYTES

if TYPE_CHECKING:
    pass

OBJECTIVES = (*Costs._fields, "distance")
OBJECTIVE = ("cache_bytes", "decode_flops", "distance")
HOLDS = ("decode_flops", "params_total")
ADJUSTED = ("intermediate_size", "moe_intermediate_size")
"""Widths of feed-forward layers that are changed to hold FLOPs or parameters equal."""
MOST_RATIO = 1e6
MOST_BYTES = 1e30
CACHE_FORMAT = "fp8"
"""What a cache changes to where its precision may change."""


@dataclass(frozen=True)
class _Limits:
    """Most bytes of cache, and most of the base's decode FLOPs and parameters, as ratios."""

    cache_bytes: float | None
    flops: float | None
    params: float | None

    def excesses(self, costs: Costs, base: Costs) -> dict[str, float]:
        """Each limit's quantity as a multiple of what is allowed."""
        most = {
            "cache_bytes": self.cache_bytes,
            "decode_flops": None if self.flops is None else self.flops * base.decode_flops,
            "params_total": None if self.params is None else self.params * base.params_total,
        }
        return {name: getattr(costs, name) / limit for name, limit in most.items() if limit is not None}

    def met(self, costs: Costs, base: Costs) -> bool:
        return all(excess <= 1 for excess in self.excesses(costs, base).values())


@dataclass(frozen=True)
class _Candidate:
    """A combination of moves with its architecture and costs."""

    moves: tuple[Move, ...]
    edits: Mapping[str, Value]
    model: Architecture
    costs: Costs
    held: Mapping[str, Value] = field(default_factory=dict)

    def cheapness(self, base: Costs) -> tuple[int, float]:
        return len(self.moves), loss_of(self.costs, base)


def design(
    model: Source,
    cache_bytes: float | str | None = None,
    context: int = 131_072,
    batch: int = 1,
    flops: float | None = None,
    params: float | None = None,
    changes: Iterable[str] | None = None,
    objective: Sequence[str] = OBJECTIVE,
    most_changes: int = 2,
    cache_precision: str = "bf16",
    hold: str | None = None,
    round_to: int = 64,
    mixers: Iterable[str] = MIXERS,
) -> Designs:
    """Small changes of an architecture that meet limits: the Pareto front over `objective`, all of it, and the best.

    `cache_bytes`: most bytes kept by `batch` sequences of `context` tokens, a number or a text such as `16GiB`. `flops` and
    `params`: most decode FLOPs and total parameters, as multiples of the base's. `changes`: the kinds tried (None: all but
    `cache_precision`): fewer KV heads, windows, shares of layers with a window or another of `mixers` (families, or
    `preset/group`), latent rank, widths, experts. All single changes and, with `most_changes` 2, all pairs are priced.
    `hold` keeps `decode_flops` or `params_total` equal by the width of the feed-forward layers, rounded down to multiples of
    `round_to` (64 or 128, say), so they stay a little below. `objective`: costs, of which less is better, and `distance`.

    What a change does to the quality of answers is not modelled. Raises CostModelError for limits that are no numbers above
    0 or contradict each other, and for unknown changes, objectives or mixers.

    >>> import costmodel as cm
    >>> found = cm.design("llama-3.1-70b", cache_bytes="16GiB", most_changes=1)
    >>> found.best.edits, found.best.cache_bytes
    (('dense/mixer/num_key_value_heads=2',), 10737418240)
    >>> cm.design("deepseek-v3", cache_bytes="16GiB", most_changes=1).best.edits
    ()
    """
    base, limits = as_architecture(model), _limits(cache_bytes, flops, params, hold)
    context, batch, round_to = whole("context", context), whole("batch", batch), whole("round_to", round_to)
    most_changes, kinds = _most_changes(most_changes), _named("change", changes, CHANGES) or CHANGES[:-1]
    objective = _named("objective", objective, OBJECTIVES) or OBJECTIVE
    if hold is not None and not _widths(base):
        raise CostModelError(f"{base.name} has no feed-forward layers whose width could hold {hold}; leave hold out")
    search = _Search(base, context, batch, _format(cache_precision), hold, round_to)
    moves = search.moves(kinds, limits.cache_bytes, _texts("mixers", mixers))
    return search.answer(list(search.candidates(moves, most_changes)), limits, objective)


class _Search:
    """One question's base, its workload, and the prices found so far."""

    def __init__(self, base: Architecture, context: int, batch: int, precision: str, hold: str | None, round_to: int) -> None:
        self.base, self.context, self.batch, self.precision = base, context, batch, precision
        self.hold, self.round_to, self.impossible = hold, round_to, 0
        self.prices = {precision: Prices(base, context, batch, precision)}
        self.now = costs_of(base, context, batch, precision)

    def moves(self, kinds: Collection[str], limit: float | None, mixers: Sequence[str]) -> list[Move]:
        """The moves of the kinds asked for."""
        found = [*field_moves(self.base, self.context)]
        if {"windowed_layers", "other_mixer", "layer_shares"} & set(kinds):
            found += layer_moves(self.base, self.prices[self.precision], self.context, limit, mixers)
        wider = ELEMENT_BYTES.get(self.precision, ELEMENT_BYTES[CACHE_FORMAT]) > ELEMENT_BYTES[CACHE_FORMAT]
        if "cache_precision" in kinds and wider:
            found.append(Move("cache_precision", f"cache in {CACHE_FORMAT}, not {self.precision}", cache_precision=CACHE_FORMAT))
            self.prices[CACHE_FORMAT] = Prices(self.base, self.context, self.batch, CACHE_FORMAT)
        return [move for move in found if move.change in kinds]

    def candidates(self, moves: list[Move], most: int) -> Iterator[_Candidate]:
        """The base, each move, and each pair of moves that go together; what no architecture may be is counted."""
        yield _Candidate((), {}, self.base, self.now)
        for size in range(1, most + 1):
            for chosen in combinations(moves, size):
                edits = chosen[0].edits if size == 1 else chosen[0].beside(chosen[1])
                if edits is None:
                    continue
                try:
                    yield self._candidate(chosen, edits)
                except CostModelError:
                    self.impossible += 1

    def _candidate(self, moves: tuple[Move, ...], edits: Mapping[str, Value]) -> _Candidate:
        prices = self.prices[self._precision_of(moves)]
        model = edited(self.base, edits)
        held = self._held(model, prices, edits) if self.hold else {}
        if held:
            edits = {**edits, **held}
            model = edited(self.base, edits)
        return _Candidate(moves, edits, model, prices.of(model), held)

    def _precision_of(self, moves: tuple[Move, ...]) -> str:
        return next((move.cache_precision for move in moves if move.cache_precision), self.precision)

    def _held(self, model: Architecture, prices: Prices, edits: Mapping[str, Value]) -> dict[str, Value]:
        """Widths of feed-forward layers, all by one factor, with which what is held equals the base's or is just below."""
        assert self.hold
        missing = getattr(self.now, self.hold) - getattr(prices.of(model), self.hold)
        free = {path: width for path, width in _widths(model).items() if path not in edits}
        if not missing:
            return {}
        if not free:
            raise CostModelError("no feed-forward layer is left whose width could change")
        doubled = edited(self.base, {**edits, **{path: 2 * width for path, width in free.items()}})
        per_factor = getattr(prices.of(doubled), self.hold) - getattr(prices.of(model), self.hold)  # costs are linear in widths
        held = {path: width * (per_factor + missing) // per_factor // self.round_to * self.round_to for path, width in free.items()}
        if min(held.values()) < 1:
            raise CostModelError("no width of the feed-forward layers makes up for this change")
        return dict(held)

    def answer(self, candidates: list[_Candidate], limits: _Limits, objective: Sequence[str]) -> Designs:
        """The front of the candidates that meet the limits, the best, and what to say about them."""
        fitting = [candidate for candidate in candidates if limits.met(candidate.costs, self.now)]
        chosen = sorted((fitting[place] for place in pareto([self._scores(one, objective) for one in fitting])), key=self._order)
        best = self._best(fitting, limits, objective)
        missed = [] if fitting else candidates
        nearest = min(missed, key=lambda one: (self._miss(one, limits), self._order(one)), default=None)
        notes = self._notes(len(candidates), len(fitting), limits, nearest)
        shown_best, shown_nearest = (None if one is None else self._design(one) for one in (best, nearest))
        front = tuple(map(self._design, chosen))
        counts = len(candidates), len(fitting), self.impossible
        return Designs(self._design(candidates[0]), front, shown_best, shown_nearest, tuple(objective), *counts, notes)

    def _scores(self, one: _Candidate, objective: Sequence[str]) -> tuple[Any, ...]:
        return tuple(one.cheapness(self.now) if name == "distance" else getattr(one.costs, name) for name in objective)

    def _order(self, one: _Candidate) -> tuple[Any, ...]:
        """Smallest change first, then the least cost, then the fewest edits."""
        return one.cheapness(self.now), one.costs, len(one.edits), tuple(one.edits)

    def _best(self, fitting: list[_Candidate], limits: _Limits, objective: Sequence[str]) -> _Candidate | None:
        """The smallest change that fits the cache; without a limit of cache, the least of the objectives in turn."""
        first = ("distance", *objective) if limits.cache_bytes is not None else objective
        return min(fitting, key=lambda one: (self._scores(one, first), self._order(one)), default=None)

    def _miss(self, one: _Candidate, limits: _Limits) -> float:
        return max(limits.excesses(one.costs, self.now).values())

    def _design(self, one: _Candidate) -> Design:
        words = tuple(move.words for move in one.moves)
        precision = self._precision_of(one.moves)
        held = tuple(dict.fromkeys(f"{path.rpartition('/')[2]} {width:,}" for path, width in one.held.items()))
        return Design(as_edits(one.edits), words, precision, *one.costs, len(one.moves), held, self.now, one.model)

    def _notes(self, looked: int, fitting: int, limits: _Limits, nearest: _Candidate | None) -> tuple[str, ...]:
        left = f"; {self.impossible:,} combinations left out as impossible" if self.impossible else ""
        notes = [f"{looked:,} designs looked at, {fitting:,} within the limits{left}"]
        if limits.met(self.now, self.now) and limits.cache_bytes is not None:
            notes.append(f"{self.base.name} meets the limits as it is: nothing has to change")
        if nearest is not None:
            notes += [f"nothing meets the limits; the nearest is shown: {words}" for words in self._relaxed(nearest, limits)]
        quality = "what a change does to the quality of answers is not modelled: distance counts changes, parameters and FLOPs"
        beyond = self.base.model_copy(update={"notes": ()}).remarks(self.context)
        return (*notes, quality, *beyond)

    def _relaxed(self, nearest: _Candidate, limits: _Limits) -> Iterator[str]:
        """What each missed limit would have to be."""
        asked = {"cache_bytes": "cache_bytes", "decode_flops": "flops", "params_total": "params"}
        for name, excess in limits.excesses(nearest.costs, self.now).items():
            if excess > 1:
                cost, now = getattr(nearest.costs, name), getattr(self.now, name)
                value = f"{cost}" if name == "cache_bytes" else f"{cost / now:.6g}"
                told = {"cache_bytes": binary_bytes, "decode_flops": flop, "params_total": count}[name](cost)
                over = f"{excess:,.4g} times the limit" if excess >= 2 else f"{excess - 1:.2%} over the limit"
                more = "or allow more kinds of change" if name != "params_total" else "or ask for less of the other limits"
                yield f"{told} of {TITLES[name]} at {tokens(self.context)} tokens, {over}; relax {asked[name]} to {value}, {more}"


def _widths(model: Architecture) -> dict[str, int]:
    """Widths of feed-forward layers by path."""
    return {
        f"{group.name}/feed_forward/{name}": getattr(group.feed_forward, name)
        for group in model.layers for name in ADJUSTED if hasattr(group.feed_forward, name)
    }  # fmt: skip


def pareto(scores: Sequence[tuple[Any, ...]]) -> list[int]:
    """Places of the rows that no other row beats: none is as low everywhere and lower somewhere. Of equal rows the first.

    >>> pareto([(1, 5), (2, 2), (3, 3), (2, 2), (5, 1)])
    [0, 1, 4]
    """
    if not scores:
        return []
    ranks = np.array([_ranked(column) for column in zip(*scores, strict=True)]).T  # exact: numbers may be beyond 2^53
    order = np.lexsort((np.arange(len(scores)), *ranks.T[::-1]))
    kept: list[int] = []
    front = np.empty_like(ranks)
    for place in order:  # whoever beats a row comes before it
        if not (front[: len(kept)] <= ranks[place]).all(axis=1).any():
            front[len(kept)] = ranks[place]
            kept.append(int(place))
    return sorted(kept)


def _ranked(column: Sequence[Any]) -> list[int]:
    places = {value: place for place, value in enumerate(sorted(set(column)))}
    return [places[value] for value in column]


# what is asked, checked


def _limits(cache_bytes: object, flops: object, params: object, hold: object) -> _Limits:
    if isinstance(cache_bytes, str):
        cache_bytes = parse_bytes(cache_bytes)
    if hold is not None and hold not in HOLDS:
        raise CostModelError(f"hold got {shown(hold)}; {did_you_mean(hold, HOLDS)}")
    ratios = {"flops": _positive("flops", flops, MOST_RATIO), "params": _positive("params", params, MOST_RATIO)}
    held = {"decode_flops": "flops", "params_total": "params"}.get(str(hold), "")
    limit = ratios.get(held)
    if limit is not None and limit < 1:
        raise CostModelError(f"{held} {limit:g} contradicts hold {hold}, which keeps it equal; leave one of them out")
    return _Limits(_positive("cache_bytes", cache_bytes, MOST_BYTES), **ratios)


def _positive(name: str, value: object, most: float) -> float | None:
    """A limit as a plain number. Raises CostModelError for what is none above 0."""
    if value is None:
        return None
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, (int, float, Fraction)) and not isinstance(value, bool) and 0 < value <= most:
        return value if isinstance(value, int) else float(value)
    what = "bytes such as 16GiB or 17179869184" if name == "cache_bytes" else "a multiple of the base's, such as 1.0"
    raise CostModelError(f"{name} got {shown(value)}; give {what}, above 0")


def _most_changes(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 2:
        return value
    raise CostModelError(f"most_changes got {shown(value)}; give 1 (single changes) or 2 (pairs too)")


def _texts(name: str, values: object) -> tuple[str, ...]:
    """Names as given: one, or several. Raises CostModelError for anything else."""
    if isinstance(values, str):
        return (values,)
    several = isinstance(values, Iterable) and not isinstance(values, (bytes, Mapping))
    given = tuple(values) if isinstance(values, Iterable) and several else (values,)
    for value in given:
        if not isinstance(value, str):
            raise CostModelError(f"{name} got {shown(value)}; give a list of names")
    return tuple(dict.fromkeys(given))


def _named(name: str, values: object, known: Sequence[str]) -> tuple[str, ...]:
    chosen = _texts(f"{name}s", values) if values is not None else ()
    unknown = next((value for value in chosen if value not in known), None)
    if unknown is not None:
        raise CostModelError(f"no {name} {shown(unknown)}; {did_you_mean(unknown, known)}")
    if values is not None and not chosen:
        raise CostModelError(f"{name}s is empty; name some of {', '.join(known)}")
    return chosen


def _format(name: object) -> str:
    """A format of the cache by name; what it means is checked where it is used."""
    if isinstance(name, str):
        return name
    raise CostModelError(f"cache_precision got {shown(name)}; give a format such as bf16 or fp8")
