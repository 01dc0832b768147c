"""Messages between the ranks of a layout, as kernels of links: sums, tokens to experts and back, keys, hand-overs of stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.cost import THEORY, Kept
from costmodel.evaluate import evaluate
from costmodel.footprint import dispatch_bytes
from costmodel.hardware import Accelerator
from costmodel.quantities import Row
from costmodel.timing.launches import Launch, Numbers
from costmodel.timing.overlapping import COMBINE, DISPATCH
from costmodel.timing.points import Points

Array = NDArray[np.float64]


def messages(launches: Sequence[Launch], numbers: Numbers, width: int) -> Iterator[Launch]:
    """What ranks send each other in a pass, as kernels of links: see `_all_reduces`, `_dispatches`, `_rings` and `_handovers`."""
    points = numbers.points
    if (points.tp > 1).any():
        yield from _all_reduces(launches, numbers, width)
    if (points.dp * points.cp > 1).any():
        yield from _dispatches(launches, numbers, width)
    if (points.cp > 1).any():
        yield from _rings(launches, numbers)
    if (points.pp > 1).any():
        yield from _handovers(launches, numbers, width)


def _sent(
    launch: Launch, part: tuple[Numbers, Any, Any], name: str, kernel: str, ranks: Array, size: Array, span: Array, times: int,
    after: float = 0.5,
) -> Launch:  # fmt: skip
    """A message of `size` bytes of each rank among some ranks, which span so many neighbouring devices, `after` a launch.

    Messages of one name and size are one kernel, whichever layer sends them.
    """
    numbers, index, _ = part
    device = numbers.device
    device.given("link_bytes_per_s")
    op = replace(launch.row.op, name=name, kind="collective")
    key = (name, ranks.tobytes(), size.tobytes(), span.tobytes())
    if key not in numbers._shaped:
        beyond, slower = span > device.link_devices, np.ones(len(size))
        if beyond.any():
            network = float(device.given("network_bytes_per_s"))
            slower = np.where(beyond, float(device.given("link_bytes_per_s")) / network, 1.0)
        numbers._shaped[key] = {"ranks": np.maximum(ranks, 2.0), "bytes": size, "slower": slower}
    row, sizes = replace(launch.row, op=op), numbers._shaped[key]
    return Launch(row, kernel, "bf16", sizes, times, index, (ranks > 1) * 1.0, at=launch.place + after)


def _activation(numbers: Numbers) -> float:
    return float(evaluate(numbers.formats.element("activations"), {}))


def _all_reduces(launches: Sequence[Launch], numbers: Numbers, width: int) -> Iterator[Launch]:
    """One for each block and layer whose last product leaves a sum in parts, and one for a token table cut into parts."""
    part = numbers.part(frozenset({"batch", "tokens", "tp", "cp"}))
    points = part[0].points
    parts = ("rows", "experts", "vocabulary")
    last = {(launch.row.group, launch.row.block): launch for launch in launches if launch.row.op.split in parts}
    size = points.rows * width * _activation(numbers)
    for launch in last.values():
        yield _sent(launch, part, "all_reduce", "allreduce", points.tp, size, points.tp, launch.times)


def _dispatches(launches: Sequence[Launch], numbers: Numbers, width: int) -> Iterator[Launch]:
    """Tokens on their way to experts on other ranks, and back: the ranks that hold the same tokens send a part each."""
    part = numbers.part(frozenset({"batch", "tokens", "tp", "dp", "cp", "ep", "imbalance"}))
    points, size = part[0].points, _activation(numbers)
    routed: dict[tuple[str, str], list[Launch]] = {}
    for launch in launches:
        if launch.row.op.split == "experts":
            routed.setdefault((launch.row.group, launch.row.block), []).append(launch)
    spread = np.where(points.dp * points.cp > 1, points.ranks, 1.0)
    busiest = np.where(points.ep > 1, points.imbalance, 1.0)
    for first, *rest in routed.values():
        used = part[0].value(first.row, dict(first.row.op.shape)["topk"])
        copies, span = copies_sent(points, used, numbers.device)
        for name, each, launch, after in (
            (DISPATCH, float(dispatch_bytes(numbers.formats)), first, -0.5), (COMBINE, size, [first, *rest][-1], 0.4),
        ):  # fmt: skip
            moved = points.rows / points.together * copies * busiest * width * each
            yield _sent(launch, part, name, "sent", spread, moved, span, launch.times, after)


def copies_sent(points: Points, used: Array, device: Accelerator) -> tuple[Array, Array]:
    """How many copies of a token cross the slowest of the links it takes, and how many neighbouring devices these span.

    A single token goes out for each of its experts (DeepEP's low-latency kernels), and to all ranks that an expert is cut over.
    One of a prompt crosses the network once for each other node and is passed on there, once to each rank that has a part of
    its experts (the normal kernels); so goes any token where experts are not spread. Experts are taken to lie anywhere: a
    router that is held to few nodes sends less. Between nodes, what stays within one goes beside what leaves it.
    """
    ranks, linked, once = points.ranks, float(device.link_devices), (not points.single) | (points.ep <= 1)
    beyond = ranks > linked
    nodes = np.maximum(ranks / linked, 1)
    here = np.maximum(points.together, np.where(beyond & ~once, linked, 1.0))
    met = np.where(once, _met(1 / points.ep, used), used / points.ep)
    near, far = np.maximum(ranks - here, 0) * met, (nodes - 1) * _met(np.maximum(1 / nodes, 1 / points.ep), used)
    slower = float(device.link_bytes_per_s or 0) / float(device.network_bytes_per_s or np.inf)
    passed = once & (far * slower <= near)
    return np.where(once & beyond & ~passed, far, near), np.where(beyond & passed, 1.0, ranks)


def _met(share: Array, used: Array) -> Array:
    """How likely one of a token's experts lies in a place that has this share of them.

    >>> _met(np.array([1.0, 0.5]), np.array([8.0, 1.0])).tolist()
    [1.0, 0.5]
    """
    return np.asarray(1 - (1 - share) ** used)


def _rings(launches: Sequence[Launch], numbers: Numbers) -> Iterator[Launch]:
    """Keys and values of a prompt pass by every context-parallel rank, all heads that a rank has of them, a latent whole.

    Of a single token, the partial outputs of a rank's heads are added up.
    """
    single = numbers.points.single
    part = numbers.part(frozenset({"batch", "tokens", "tp", "cp", *(() if single else ("context",))}))
    points = part[0].points
    for launch in launches:
        kept = [item for item in launch.row.op.cost.kept if item.per_token]
        if launch.row.op.kind != "attend" or not kept:
            continue
        if single:
            shape, kernel = dict(launch.row.op.shape), "allreduce"
            outputs = part[0].value(launch.row, shape["heads"] * shape["d_v"]) / points.tp
            size = points.rows * outputs * _activation(numbers)
        else:
            each, kernel = sum(_passed_on(part[0], launch.row, item) for item in kept), "sent"
            size = points.batch * each * (points.cp - 1) / points.cp
        name, after = ("merge", 0.5) if single else ("ring", -0.5)
        yield _sent(launch, part, name, kernel, points.cp, size, points.tp * points.cp, launch.times, after)


def _passed_on(numbers: Numbers, row: Row, kept: Kept) -> Array:
    """Bytes that a rank's heads have of a sequence's tokens in sight."""
    heads = numbers.value(row, kept.heads)
    here = np.ceil(heads / numbers.points.tp) / heads if kept.split else 1.0
    return np.asarray(numbers.value(row, kept.slots(THEORY) * kept.unit_bytes(numbers.formats, kept.heads)) * here)


def _handovers(launches: Sequence[Launch], numbers: Numbers, width: int) -> Iterator[Launch]:
    """Activations from each stage to the next, one rank's to one rank."""
    part = numbers.part(frozenset({"batch", "tokens", "tp", "dp", "cp", "pp"}))
    points = part[0].points
    size = points.rows * width * _activation(numbers) / points.tp
    ranks = points.tp * points.dp * points.cp
    stages = _sent(launches[-1], part, "hand_over", "sent", points.pp, size, ranks * points.pp, 1)
    yield replace(stages, share=np.maximum(points.pp - 1, 0))
