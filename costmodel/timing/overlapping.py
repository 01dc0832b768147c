"""Two halves of a batch at once: while the messages of one travel, the other computes.

How well messages hide is a matter of a layer's order: each has only what is computed beside it. Two schedules are known, and a
layer takes the faster one where both are possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ATTENTION = "attention"
"""What a layer computes from its attention on, where decode may cut it in two."""
DISPATCH, COMBINE = "dispatch", "combine"


@dataclass(frozen=True, eq=False)
class Stretch:
    """What half a batch does for a while: `message` on links, or kernels one after another; seconds at every point."""

    name: str
    message: bool
    seconds: Any


def overlapped(layer: Sequence[Stretch], single: bool) -> Array:
    """Seconds that two halves take in a layer, whose first stretch follows its last; of `single` tokens in five stages at best.

    >>> layer = [Stretch("", False, 3.0), Stretch("dispatch", True, 2.0), Stretch("", False, 1.0), Stretch("combine", True, 2.0)]
    >>> float(overlapped(layer, single=False))
    10.0
    """
    times = np.broadcast_arrays(*(np.asarray(stretch.seconds, dtype=np.float64) for stretch in layer))
    sent = [times[place] > 0 for place, stretch in enumerate(layer) if stretch.message]
    kind = sum((here * (1 << place) for place, here in enumerate(sent)), np.zeros(times[0].shape, dtype=np.int64))
    found = np.empty(times[0].shape)
    for each in np.unique(kind):  # points that send the same messages
        some = kind == each
        found[some] = _faster([replace(stretch, seconds=time[some]) for stretch, time in zip(layer, times, strict=True)], single)
    return found


def _faster(layer: Sequence[Stretch], single: bool) -> Array:
    sending = [stretch for stretch in layer if not stretch.message or (stretch.seconds > 0).any()]
    found, staged = alternating(sending), in_five_stages(sending) if single else None
    return found if staged is None else np.minimum(found, staged)


def alternating(layer: Sequence[Stretch]) -> Array:
    """The halves take turns: a message travels while the other half computes what came before it, or its own half what follows.

    With stretches c1, l1, c2, l2 of a half: max(c1, l1) + max(c2, l1) + max(c2, l2) + max(c1, l2). So runs DeepSeek's prefill
    (open-infra-index, day 6).
    """
    messages = [place for place, stretch in enumerate(layer) if stretch.message]
    if not messages:
        return np.asarray(2.0 * _computed(layer))
    total: Any = 0.0
    for number, place in enumerate(messages):
        before, after = messages[number - 1], messages[(number + 1) % len(messages)]
        for start, end in ((before, place), (place, after)):
            total = total + np.maximum(_computed(_between(layer, start, end)), layer[place].seconds)
    return np.asarray(total)


def in_five_stages(layer: Sequence[Stretch]) -> Array | None:
    """Attention is cut off from its projections, so that each message has a part of its own to hide behind.

    The dispatch of one half travels while shared experts and projections are computed, the combine while the other half
    attends; nothing travels beside the routed experts. So run DeepSeek's decode (open-infra-index, day 6) and SGLang's. None for
    a layer that sends anything else.
    """
    names = [stretch.name for stretch in layer if stretch.message]
    starts = [place for place, stretch in enumerate(layer) if stretch.name == ATTENTION]
    if names != [DISPATCH, COMBINE] or not starts:
        return None
    dispatch, combine = (place for place, stretch in enumerate(layer) if stretch.message)
    if starts[0] > dispatch:
        return None
    attended, routed = _computed(layer[starts[0] : dispatch]), _computed(layer[dispatch + 1 : combine])
    projected = _computed(layer[: starts[0]]) + _computed(layer[combine + 1 :])
    hidden = np.maximum(projected, layer[dispatch].seconds) + np.maximum(attended, layer[combine].seconds)
    return np.asarray(2 * (hidden + routed))


def _between(layer: Sequence[Stretch], start: int, end: int) -> Sequence[Stretch]:
    return layer[start + 1 : end] if start < end else [*layer[start + 1 :], *layer[:end]]


def _computed(stretches: Sequence[Stretch]) -> Any:
    return sum((stretch.seconds for stretch in stretches if not stretch.message), np.zeros(()))
