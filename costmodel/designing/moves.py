"""Changes that a search tries: what each field and layer group of an architecture allows, as edits by path, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from costmodel.architecture import Architecture
from costmodel.blocks import FAMILIES, Block, Mixer
from costmodel.catalog import preset, presets
from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.layers import LayerGroup
from costmodel.variants import Knob, Value, groups_to_take, knobs

CHANGES = (
    "kv_heads", "window", "windowed_layers", "other_mixer", "layer_shares", "latent_rank", "head_dim", "state",
    "experts", "experts_per_tok", "expert_width", "ffn_width", "cache_precision",
)  # fmt: skip
"""Kinds of change. Those of `cache_precision` are tried only where it is asked for."""
WINDOWS = tuple(1 << power for power in range(9, 17))
TWIN_WINDOWS = WINDOWS[1:5]
HEAD_WIDTHS = (32, 64, 96, 128, 192, 256)
SHARES = (2, 4, 6, 8)
"""One layer in so many keeps its mixer where the others change theirs."""
MIXERS = ("mla", "gated_deltanet")
"""Families that layers may turn to unless told otherwise: a latent, and a state that does not grow."""


class Costs(NamedTuple):
    """What one architecture costs: bytes of cache, FLOP of a decode step and of a whole prompt, parameters."""

    cache_bytes: int
    decode_flops: int
    prefill_flops: int
    params_total: int
    params_active: int


class Prices:
    """Costs of variants of one base, exactly the Formulas' numbers: they add up over blocks, so equal blocks are asked once."""

    def __init__(self, base: Architecture, context: int, batch: int, cache_precision: str) -> None:
        self._at, self._precision = {"context": context, "batch": batch}, cache_precision
        self._known: dict[object, Costs] = {}
        self._bare = base.model_copy(update={"layers": (), "pattern": (), "vision": None, "mtp": None})
        self._none = self._asked(self._bare)
        self._ends = self._asked(base.model_copy(update={"layers": (), "pattern": ()}))

    def of(self, model: Architecture) -> Costs:
        """The costs of a variant of the base that has its width, token table, head and towers."""
        found = [self._ends]
        for group in model.layers:
            found += [_times(times, costs) for block in group.blocks for times, costs in [self._block(block, group)]]
        return Costs(*map(sum, zip(*found, strict=True)))

    def layer_cache(self, mixer: Block) -> int:
        """Bytes that one layer of a mixer keeps."""
        return self._block(mixer, LayerGroup.model_construct(name="layer", count=1))[1].cache_bytes

    def _block(self, block: Block, group: LayerGroup) -> tuple[int, Costs]:
        """How often, and what one block with its norms costs; of layers that take turns with fewer all at once."""
        together = (group.count, group.shared) if group.shared else (1, None)
        key = (block, group.norm, together)
        if key not in self._known:
            part = {"mixer" if isinstance(block, Mixer) else "feed_forward": block}
            lone = LayerGroup(name="layer", count=together[0], shared=together[1], norm=group.norm, **part)
            whole = self._asked(self._bare.model_copy(update={"layers": (lone,)}))
            self._known[key] = Costs(*(with_it - without for with_it, without in zip(whole, self._none, strict=True)))
        return group.count // together[0], self._known[key]

    def _asked(self, model: Architecture) -> Costs:
        return costs_of(model, precision=self._precision, **self._at)


def costs_of(model: Architecture, context: int, batch: int, precision: str) -> Costs:
    """What a whole architecture costs, from its own Formulas."""
    at = {"context": context, "batch": batch}
    cache = model.cache_bytes(**at, precision=precision)
    return Costs(cache, model.decode_flops(**at), model.prefill_flops(**at), model.params.total, model.params.active)


def _times(times: int, costs: Costs) -> Costs:
    return Costs(*(times * cost for cost in costs))


@dataclass(frozen=True)
class Move:
    """One change: its kind, words for it, its edits by path, and the group that it makes out of another one."""

    change: str
    words: str
    edits: Mapping[str, Value] = field(default_factory=dict)
    twin: str = ""
    source: str = ""
    copied: tuple[str, ...] = ()
    """Parts that the twin has of its source: what changes there changes here."""
    cache_precision: str = ""

    def beside(self, other: Move) -> dict[str, Value] | None:
        """The edits of both at once; None where they speak of the same thing."""
        mine, theirs = self.edits, other.edits
        if mine.keys() & theirs.keys() or any(_within(a, b) or _within(b, a) for a in mine for b in theirs):
            return None
        if self.cache_precision and other.cache_precision:
            return None
        return {**mine, **theirs, **self._mirrored(theirs), **other._mirrored(mine)}

    def _mirrored(self, edits: Mapping[str, Value]) -> dict[str, Value]:
        """Another's edits of the source, as the twin's."""
        found = {}
        for path, value in edits.items():
            name, *within = path.split("/")
            own = "/".join((self.twin, *within))
            if self.twin and name == self.source and within[0] in self.copied and own not in self.edits:
                found[own] = value
        return found


def _within(path: str, whole: str) -> bool:
    """Whether a path lies in a part that another path replaces."""
    return path.startswith(whole + "/") and "/" in whole


# changes of a field

Beside = Mapping[str, Value]
Values = Callable[[int | None, Beside, int], Iterable[int]]


def _fewer_heads(now: int | None, beside: Beside, _context: int) -> Iterator[int]:
    heads = beside.get("num_attention_heads")
    return (n for n in range(1, now or 0) if isinstance(heads, int) and heads % n == 0)


def _windows(now: int | None, beside: Beside, context: int) -> Iterator[int]:
    """Powers of two; none beside chunks, which reach as far as they reach."""
    return (window for window in WINDOWS if window < context and not beside.get("attention_chunk_size"))


def _chunks(now: int | None, _beside: Beside, context: int) -> Iterator[int]:
    return (chunk for chunk in WINDOWS if now and chunk < context)


def _head_widths(now: int | None, _beside: Beside, _context: int) -> tuple[int, ...]:
    return HEAD_WIDTHS


def _quarters(step: int) -> Values:
    """A quarter to twice the value, in whole steps."""

    def values(now: int | None, _beside: Beside, _context: int) -> Iterator[int]:
        return (size for quarters in (1, 2, 3, 6, 8) for size in [(now or 0) * quarters // 4 // step * step] if size)

    return values


def _doublings(now: int | None, _beside: Beside, _context: int) -> Iterator[int]:
    return (size for size in ((now or 0) // 4, (now or 0) // 2, 2 * (now or 0), 4 * (now or 0)) if size)


FIELDS: dict[str, tuple[str, Values]] = {
    "num_key_value_heads": ("kv_heads", _fewer_heads),
    "sliding_window": ("window", _windows),
    "attention_chunk_size": ("window", _chunks),
    "kv_lora_rank": ("latent_rank", _quarters(64)),
    "head_dim": ("head_dim", _head_widths),
    "ssm_state_size": ("state", _doublings),
    "num_experts": ("experts", _doublings),
    "num_experts_per_tok": ("experts_per_tok", _quarters(1)),
    "moe_intermediate_size": ("expert_width", _quarters(64)),
    "intermediate_size": ("ffn_width", _quarters(64)),
}
"""The kind of change that a field stands for, and the values tried."""


def field_moves(model: Architecture, context: int) -> Iterator[Move]:
    """Changes of fields: in all groups that have the same value, and a mixer's in each group alone."""
    found: dict[tuple[str, Value, tuple[int, ...]], list[Knob]] = {}
    for name, own in knobs(model).items():
        for knob in own if name in {group.name for group in model.layers} else ():
            if knob.label in FIELDS and knob.path.count("/") == 2:
                values = tuple(dict.fromkeys(_tried(knob, own, context)))
                found.setdefault((knob.label, knob.value, values), []).append(knob)
    for (label, now, values), same in found.items():
        alone = [[knob] for knob in same if "/mixer/" in knob.path and len(same) > 1 and not _borrows(model)]
        for chosen in [same, *alone]:
            for value in values:
                yield _field_move(label, now, value, chosen)


def _tried(knob: Knob, own: list[Knob], context: int) -> Iterator[int]:
    beside = {other.label: other.value for other in own if other.path.rpartition("/")[0] == knob.path.rpartition("/")[0]}
    now = knob.value if isinstance(knob.value, int) else None
    return (value for value in FIELDS[knob.label][1](now, beside, context) if value != now)


def _field_move(label: str, now: Value, value: int, chosen: list[Knob]) -> Move:
    where = " and ".join(knob.path.partition("/")[0] for knob in chosen)
    words = f"{label} {'none' if now is None else f'{now:,}'} -> {value:,} in {where}"
    return Move(FIELDS[label][0], words, {knob.path: value for knob in chosen})


def _borrows(model: Architecture) -> bool:
    """Whether some layers read what others keep: such layers change together or not at all."""
    return any(group.mixer is not None and group.mixer.borrows for group in model.layers)


# changes of layers


def layer_moves(model: Architecture, prices: Prices, context: int, limit: float | None, mixers: Iterable[str]) -> Iterator[Move]:
    """Layers that turn into others which keep less: some of a group or all, windowed, with another mixer, or as another group."""
    takes = taken(model, mixers)
    total = prices.of(model).cache_bytes
    for group in model.layers:
        if group.mixer is None or group.shared or group.learning or _borrows(model):
            continue
        now = prices.layer_cache(group.mixer)

        def kept(new: Mixer, group: LayerGroup = group, now: int = now) -> list[int]:
            return _kept(group.count, total, now, prices.layer_cache(new), limit)

        yield from _windowed(model, group, context, kept)
        yield from _mixed(model, group, takes, kept)
        yield from _shifted(model, group, kept)


Kept = Callable[[Mixer], list[int]]


def _kept(count: int, total: int, now: int, new: int, limit: float | None) -> list[int]:
    """How many layers may stay as they are: each share tried, none, and the most that meets the limit; empty if nothing is won."""
    if new >= now:
        return []
    tried = [max(count // share, 1) for share in SHARES] + [0]
    if limit is not None:
        tried.append(int((limit - total + count * (now - new)) // (now - new)))
    return [n for n in dict.fromkeys(tried) if 0 <= n < count]


def _windowed(model: Architecture, group: LayerGroup, context: int, kept: Kept) -> Iterator[Move]:
    own = {knob.label: knob for knob in knobs(model)[group.name]}
    knob = own.get("sliding_window")
    if knob is None or knob.value is not None or group.mixer is None:
        return
    beside = {label: other.value for label, other in own.items()}
    for window in (window for window in _windows(None, beside, context) if window in TWIN_WINDOWS):
        try:
            windowed = type(group.mixer)(**{**group.mixer.model_dump(), "sliding_window": window})
        except CostModelError:  # a mixer that looks ahead has no window
            return
        name = _free(model, f"{group.name}-windowed")
        for n in filter(None, kept(windowed)):
            words = f"{group.count - n} of {group.count} layers of {group.name} in a window of {window:,}"
            edits: dict[str, Value] = {name: group.name, f"{name}/mixer/sliding_window": window}
            edits |= _counts(group, name, n)
            yield Move("windowed_layers", words, edits, name, group.name, ("mixer", "feed_forward"))


def _mixed(model: Architecture, group: LayerGroup, takes: Mapping[str, Mixer], kept: Kept) -> Iterator[Move]:
    for place, mixer in takes.items():
        name = _free(model, f"{group.name}-{mixer.kind}")
        for n in kept(mixer):
            words = f"{group.count - n} of {group.count} layers of {group.name} with the mixer of {place}"
            if n:
                edits: dict[str, Value] = {name: group.name, f"{name}/mixer": place}
                edits |= _counts(group, name, n)
                yield Move("other_mixer", words, edits, name, group.name, ("feed_forward",))
            else:
                yield Move("other_mixer", words, {f"{group.name}/mixer": place})


def _shifted(model: Architecture, group: LayerGroup, kept: Kept) -> Iterator[Move]:
    """Layers that become those of a group with the same feed-forward layer."""
    for other in model.layers:
        same = (other.feed_forward, other.norm) == (group.feed_forward, group.norm)
        if other.mixer is None or other.shared or other.learning or not same or other.name == group.name:
            continue
        for n in kept(other.mixer):
            words = f"{group.count - n} of {group.count} layers of {group.name} become layers of {other.name}"
            edits = {f"{group.name}/count": n, f"{other.name}/count": other.count + group.count - n}
            yield Move("layer_shares", words, edits)


def _counts(group: LayerGroup, twin: str, n: int) -> dict[str, Value]:
    return {f"{twin}/count": group.count - n, f"{group.name}/count": n}


def _free(model: Architecture, name: str) -> str:
    """A name that no group has."""
    names = {group.name for group in model.layers}
    return next(free for free in (name, *(f"{name}-{n}" for n in range(2, 300))) if free not in names)


def taken(model: Architecture, mixers: Iterable[str]) -> dict[str, Mixer]:
    """Mixers that layers may turn to, by `preset/group`; of a family, that of the preset nearest in width.

    Raises CostModelError for what is neither a family of mixers nor a preset's layer group with one.

    >>> import costmodel as cm
    >>> list(taken(cm.load("llama-3.1-70b"), ["mla"]))
    ['deepseek-v3/dense']
    """
    return dict(_one_taken(model, name) for name in mixers)


def _one_taken(model: Architecture, name: str) -> tuple[str, Mixer]:
    families = [kind for kind, family in FAMILIES.items() if issubclass(family, Mixer)]
    models = [preset(known) for known in presets()]
    nearest = sorted(models, key=lambda known: (abs(known.hidden_size - model.hidden_size), known.name))
    places = list(groups_to_take(nearest if name in families else models, "mixer"))
    for place in places if name in families else [name] if isinstance(name, str) and name.count("/") == 1 else []:
        owner, _, wanted = place.partition("/")
        for group in preset(owner).layers if owner in presets() else ():
            if group.name == wanted and group.mixer is not None and (name == place or group.mixer.kind == name):
                return place, group.mixer
    raise CostModelError(f"no mixer {shown(name)} to take; {did_you_mean(name, (*families, *places))}")
