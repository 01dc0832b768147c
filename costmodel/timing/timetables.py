"""What `estimate` tells of one workload, over arrays of them: seconds, tokens a second and dollars for sweeps.

A decode step is timed once for each batch and layout at every stop of the context; any prompt and output is a mean of those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.architecture import Architecture
from costmodel.errors import CostModelError
from costmodel.footprint import check_layout
from costmodel.hardware import Accelerator
from costmodel.parallelism import Parallel
from costmodel.timing.estimating import STOPS, check_works, pipelined, stage_balance, sums_of_stops
from costmodel.timing.points import Points
from costmodel.timing.roofline import clock
from costmodel.workload import Precision

Array = NDArray[np.float64]
DEGREES = ("tp", "dp", "cp", "pp", "ep")
WORKLOAD = ("batch", "prompt", "output")


@dataclass(frozen=True, eq=False)
class Workloads:
    """Workloads of one model on one device: arrays of `batch` sequences a replica, `prompt`, `output`, and degrees of layouts.

    A layout that the model does not allow has NaN for all that is asked of it.
    """

    model: Architecture
    device: Accelerator
    formats: Precision
    columns: dict[str, Array]
    """By name: `WORKLOAD` and `DEGREES`."""

    @classmethod
    def of(cls, model: Architecture, device: Accelerator, formats: Precision, given: dict[str, Any]) -> Workloads:
        """From numbers and arrays of one length; what is not given is 1 (4,096 tokens of prompt, 1,024 of output)."""
        check_works(model)
        defaults = {"prompt": 4096, "output": 1024}
        values = [np.atleast_1d(given.get(name, defaults.get(name, 1))).astype(np.float64) for name in (*WORKLOAD, *DEGREES)]
        return cls(model, device, formats, dict(zip((*WORKLOAD, *DEGREES), np.broadcast_arrays(*values), strict=True)))

    def tpot_s(self) -> Array:
        """Mean seconds of a decode step, as `estimate` has it; NaN for outputs of a single token."""
        batch = np.ceil(self.columns["batch"] / (self.columns["dp"] * self.columns["pp"]))
        layouts, index = self._distinct(batch)
        prompt, output = self.columns["prompt"], self.columns["output"]
        first, last = prompt + 1, prompt + np.maximum(output - 1, 1)
        low = max(int(np.searchsorted(STOPS, first.min(), side="right")) - 1, 0)
        contexts = STOPS[low : int(np.searchsorted(STOPS, last.max(), side="left")) + 1]
        size = (len(layouts["tp"]), len(contexts))
        every = {name: np.repeat(values, len(contexts)) for name, values in layouts.items()}
        points = Points.stacked(every["batch"], 1.0, np.tile(contexts, size[0]), *(every[name] for name in DEGREES), 1.0)
        table = self._timed(points).reshape(size) * (every["balance"] * every["possible"]).reshape(size)
        total = _up_to(contexts, table, index, last) - _up_to(contexts, table, index, first - 1)
        return np.where(output > 1, total / (last - first + 1), np.nan)

    def ttft_s(self) -> Array:
        """Seconds of the prefill of all prompts of a batch together, as `estimate` has it."""
        layouts, index = self._distinct(np.ceil(self.columns["batch"] / self.columns["dp"]), self.columns["prompt"])
        tokens = layouts["tokens"]
        seconds = np.full(len(tokens), np.nan)
        for some in (tokens == 1, tokens > 1):
            if some.any():
                here = {name: values[some] for name, values in layouts.items()}
                points = Points.stacked(here["batch"], here["tokens"], here["tokens"], *(here[name] for name in DEGREES), 1.0)
                seconds[some] = self._timed(points)
        return np.asarray((seconds * layouts["pieces"] * layouts["balance"] * layouts["possible"])[index])

    def output_tokens_per_s_per_device(self) -> Array:
        """Tokens of output over all the time of a batch, prefill included, for each device."""
        steps = np.where(self.columns["output"] > 1, np.nan_to_num(self.tpot_s()) * (self.columns["output"] - 1), 0.0)
        devices = self.columns["tp"] * self.columns["dp"] * self.columns["cp"] * self.columns["pp"]
        return np.asarray(self.columns["batch"] * self.columns["output"] / (self.ttft_s() + steps) / devices)

    def usd_per_mtok_out(self, usd_per_hour: Any) -> Array:
        """Dollars for a million tokens of output, prefill included. Raises CostModelError where no price is known."""
        if usd_per_hour is None:
            raise CostModelError(f"{self.device.name} has no listed price; give usd_per_hour")
        return np.asarray(usd_per_hour / 3600 * 1e6 / self.output_tokens_per_s_per_device())

    def _timed(self, points: Points) -> Array:
        return clock(self.model, self.device, self.formats).seconds(points)

    def _distinct(self, batch: Array, tokens: Array | None = None) -> tuple[dict[str, Array], NDArray[np.intp]]:
        """The passes that differ, with what their layouts add, and which of them each workload takes."""
        degrees = [self.columns[name] for name in DEGREES]
        extra = [] if tokens is None else [tokens]
        rows, index = np.unique(np.stack([batch, *degrees, *extra]), axis=1, return_inverse=True)
        found = dict(zip(("batch", *DEGREES, *(("tokens",) if extra else ())), rows, strict=True))
        about = [self._layout(*map(int, degrees)) for degrees in rows[1:6].T]
        for place, name in enumerate(("possible", "balance", "pieces")):
            found[name] = np.array([each[place] for each in about])
        return found, index.ravel()

    def _layout(self, tp: int, dp: int, cp: int, pp: int, ep: int) -> tuple[float, float, float]:
        """1 where the model allows a layout, else NaN; and what its stages wait for."""
        try:
            layout = Parallel(tp=tp, dp=dp, cp=cp, pp=pp, ep=ep)
            check_layout(self.model, layout)
        except CostModelError:
            return np.nan, 1.0, 1.0
        return 1.0, stage_balance(self.model, pp), pipelined(layout)


def _up_to(contexts: Array, table: Array, index: NDArray[np.intp], last: Array) -> Array:
    """Sums over whole contexts up to `last` [n] of the lines between stops, of row `index` [n] of a table [rows, stops]."""
    ends, place = np.unique(last, return_inverse=True)
    sums = sums_of_stops(contexts, ends)
    if len(table) * len(ends) <= 2 * len(last):
        return np.asarray((table @ sums.T)[index, place.ravel()])
    return np.asarray(np.einsum("ij,ij->i", sums[place.ravel()], table[index]))
