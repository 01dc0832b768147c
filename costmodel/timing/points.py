"""Passes to be timed: arrays of batches, contexts and layouts, and which of them differ for a kernel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.parallelism import Parallel

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Points:
    """Passes to be timed, an entry each: what one rank sees of them, and its layout.

    `batch` sequences of its data-parallel group, `tokens` new ones of each (all of them 1, or none), `context` after the pass.
    """

    batch: Array
    tokens: Array
    context: Array
    tp: Array
    dp: Array
    cp: Array
    pp: Array
    ep: Array
    imbalance: Array
    contexts: tuple[Array, Array] | None = None
    """Contexts and their weights: each point is the mean over them, and its own context counts for nothing."""
    verify: bool = False
    """Whether the new tokens are guesses that a pass checks: few, in the forms that decode takes, with logits for each."""
    _found: dict[frozenset[str], tuple[Points, Any]] = field(default_factory=dict)

    NAMES = ("batch", "tokens", "context", "tp", "dp", "cp", "pp", "ep", "imbalance")

    @classmethod
    def of(cls, layout: Parallel, batch: Any, tokens: Any, context: Any) -> Points:
        """Points of one layout: numbers and arrays broadcast."""
        given = (batch, tokens, context, *(getattr(layout, name) for name in cls.NAMES[3:]))
        return cls.stacked(*given)

    @classmethod
    def stacked(cls, *columns: Any) -> Points:
        """Points from numbers and arrays in the order of `NAMES`."""
        arrays: list[Any] = [np.array(column, dtype=np.float64) for column in np.broadcast_arrays(*map(np.atleast_1d, columns))]
        return cls(*arrays)

    def __len__(self) -> int:
        return len(self.batch)

    @cached_property
    def single(self) -> bool:
        """Whether each sequence has one new token, or few that a pass checks: decode, whose tokens stay together."""
        return self.verify or bool((self.tokens == 1).all())

    @property
    def rows(self) -> Array:
        """Tokens that pass through a rank's matrices: a prompt's are spread over context-parallel ranks, a single one is not."""
        return self.batch * self.tokens if self.single else self.batch * np.ceil(self.tokens / self.cp)

    @property
    def ranks(self) -> Array:
        """Devices of a stage."""
        return self.tp * self.dp * self.cp

    @property
    def together(self) -> Array:
        """Ranks that have the same tokens: those of a group, over which a prompt's are spread where it has context ranks."""
        return self.tp * (self.cp if self.single else 1.0)

    def distinct(self, names: frozenset[str]) -> tuple[Points, Any]:
        """The points that differ in some columns, and which of them each point is (None: all do)."""
        if len(self) == 1:
            return self, None
        if names not in self._found:
            self._found[names] = self._distinct(names)
        return self._found[names]

    def _distinct(self, names: frozenset[str]) -> tuple[Points, Any]:
        code, every = np.zeros(len(self), dtype=np.int64), 1
        for name in sorted(names):
            column = getattr(self, name)
            if (column == column[0]).all():
                continue
            values, places = np.unique(column, return_inverse=True)
            code, every = code * len(values) + places, every * len(values)
            if every > 1 << 40:  # codes stay far from wrapping
                values, code = np.unique(code, return_inverse=True)
                every = len(values)
        _, first, index = np.unique(code, return_index=True, return_inverse=True)
        if len(first) == len(self):
            return self, None
        columns: dict[str, Any] = {name: getattr(self, name)[first] for name in self.NAMES}
        return Points(**columns, contexts=self.contexts, verify=self.verify), index

    def over(self, contexts: Array, weights: Array) -> Points:
        """The same passes, each as the mean over contexts of these weights."""
        return replace(self, contexts=(contexts, weights), _found={})

    def expanded(self) -> Points:
        """Each point once for each of the contexts that it is the mean over."""
        assert self.contexts is not None
        contexts = self.contexts[0]
        columns: dict[str, Any] = {name: np.repeat(getattr(self, name), len(contexts)) for name in self.NAMES}
        return Points(**(columns | {"context": np.tile(contexts, len(self))}), verify=self.verify)
