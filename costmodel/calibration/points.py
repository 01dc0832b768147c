"""Which points are fitted, and which are only scored: one choice, shared by the command, the tests and the tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ROUNDS = 15
BLOCK = 2_000


def choose(features: Array, count: int, seed: int = 0) -> NDArray[np.int64]:
    """`count` rows of `features` [points, sizes in log space], spread over all of them, in order; the same for equal input.

    Farthest points first, then moved to the middle of what lies nearest to each (k-medoids), so that they are log-spaced
    where there are points. `seed` picks the first point: 0 is the most central one. Looks at shapes alone, never at times.

    >>> choose(np.arange(8.0)[:, None], 2).tolist()
    [2, 6]
    """
    spread = features.std(axis=0)
    points = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    centres = points[_far_apart(points, min(count, len(points)), seed)]
    for _ in range(ROUNDS):
        nearest = _nearest(points, centres)
        centres = np.array([points[nearest == i].mean(axis=0) if (nearest == i).any() else c for i, c in enumerate(centres)])
    return np.unique([int(np.argmin(((points - centre) ** 2).sum(axis=1))) for centre in centres])


def stood_for(features: Array, chosen: NDArray[np.int64]) -> Array:
    """How many of the rows of `features` lie nearest to each chosen one, itself included.

    >>> stood_for(np.array([[0.0], [1.0], [9.0]]), np.array([0, 2])).tolist()
    [2.0, 1.0]
    """
    spread = features.std(axis=0)
    points = features / np.where(spread > 0, spread, 1.0)
    return np.bincount(_nearest(points, points[chosen]), minlength=len(chosen)).astype(float)


def _far_apart(points: Array, count: int, seed: int) -> list[int]:
    first = int(np.argsort((points**2).sum(axis=1), kind="stable")[seed % len(points)])
    chosen, distance = [first], ((points - points[first]) ** 2).sum(axis=1)
    while len(chosen) < count:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return chosen


def _nearest(points: Array, centres: Array) -> NDArray[np.int64]:
    blocks = (points[start : start + BLOCK, None] - centres[None] for start in range(0, len(points), BLOCK))
    return np.concatenate([((block**2).sum(axis=-1)).argmin(axis=1) for block in blocks])


def folds(count: int, parts: int = 8, deal: int = 0) -> list[NDArray[np.int64]]:
    """Rows 0 ... count - 1 dealt into `parts` hands: what a fit is cross-validated on. Each `deal` shuffles anew; 0 does not.

    >>> [hand.tolist() for hand in folds(5, 2)]
    [[0, 2, 4], [1, 3]]
    """
    order = np.random.default_rng(deal).permutation(count) if deal else np.arange(count)
    return [np.sort(order[start::parts]) for start in range(min(parts, count))]
