"""What each device of a layout holds: weights, cache, state, activations, logits, messages and the runtime's share.

Every row is a Formula in the letters B, S, T and those of ranks; a planner evaluates the same expressions over arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Add, Expr, Integer, Max

from costmodel.architecture import Architecture
from costmodel.catalog import Device, Source, as_accelerator, as_architecture
from costmodel.cost import ONE, TWO, ZERO, lower
from costmodel.errors import CostModelError, shown
from costmodel.evaluate import walk_floats
from costmodel.formula import MAX_INPUT, Formula, Term
from costmodel.frames import facts
from costmodel.hardware import Accelerator
from costmodel.memory import LADDER
from costmodel.ops import Op
from costmodel.parallelism import Parallel, kept_share, one_pass, stage_layers, weight_share
from costmodel.quantities import HEAD, Row
from costmodel.symbols import LETTERS, B, S, T, n_cp, n_dp, n_ep, n_tp
from costmodel.units import binary_bytes, whole
from costmodel.workload import Options, Phase, Precision, View, ceil_div

Array = NDArray[np.float64]
RESERVE = 0.1
"""Share of a device's memory that the runtime, its kernels and fragmentation take, unless told otherwise: what the common
servers leave free by default (vLLM's gpu_memory_utilization of 0.9). An assumption."""
PASS_TOKENS = 8192
"""Tokens of the largest pass, unless told otherwise: longer prompts are prefilled in pieces. An assumption (vLLM's default)."""
LOGIT_BYTES = Integer(4)
"""Logits are gathered, and sampled from, in fp32."""
NAMES = ("weights", "cache", "state", "activations", "logits", "messages")
"""The rows, but for the reserve; those of a draft model follow."""


@dataclass(frozen=True)
class Held:
    """What a model stored in some formats asks of a device in one stage of a pipeline, as Formulas.

    `stage` is None for a replica without stages. `speculative` counts the further slots of state a sequence has while guessed
    tokens wait, `mtp` the modules that guess; `engine` pages the cache in blocks of `block` tokens.
    """

    model: Architecture
    formats: Precision
    view: View
    stages: int = 1
    stage: int = 0
    mtp: int = 0

    def formula(self, name: str) -> Formula:
        """One row in letters. `name` is one of `NAMES`."""
        letters = {
            "weights": (n_tp, n_dp, n_cp, n_ep), "cache": (B, S, n_tp, n_dp, n_cp), "state": (B, n_tp, n_dp),
            "activations": (T, n_tp, n_dp, n_cp), "logits": (B, n_dp), "messages": (T, n_tp, n_dp, n_cp),
        }[name]  # fmt: skip
        derive: Callable[[], tuple[Term, ...]] = getattr(self, f"_{name}")
        return Formula(f"memory.{name}", "bytes", lambda options: derive(), letters=letters, recipe=(self, "formula", name))

    @cached_property
    def _rows(self) -> tuple[Row, ...]:
        return self.model._rows(Options(precision=self.formats, mtp=self.mtp), Phase.PREFILL)

    @cached_property
    def _layers(self) -> dict[str, int]:
        """Layers of each group in this stage; what stands before the layers counts in the first, what stands after in the last."""
        here = stage_layers(self.model.layer_order, self.stages)[self.stage]
        first, last = self.stage == 0, self.stage == self.stages - 1
        return {**here, "embedding": int(first), "vision": int(first), "head": int(last), "mtp": int(last)}

    def _times(self, row: Row, times: int) -> int:
        """How many of a row's `times` fall into this stage."""
        if row.group in ("embedding", "vision", "head", "mtp"):
            return times * self._layers[row.group]
        share = row.times * self._layers.get(row.group, 0) // row.layers
        return share if row.stored is None else min(times, share)

    def _terms(self, share: Callable[[Row], Expr], *, stored: bool = False) -> tuple[Term, ...]:
        terms = []
        for row in self._rows:
            times = self._times(row, row.copies if stored else row.times)
            expr = share(row) if times else ZERO
            if expr != 0:
                terms.append(Term(row.path, times, expr, expr, row.binding, row.source))
        return tuple(terms)

    def _weights(self) -> tuple[Term, ...]:
        """Each row's stored weights, and the share of them of the rank that has most."""

        def share(row: Row) -> Expr:
            cost = row.op.cost
            if row.path in self._copied:
                cost = replace(cost, weights=tuple(replace(weight, copies=ONE / row.times) for weight in cost.weights))
            return cost.weight_bytes(self.formats) * weight_share(row.op) * _fuller(row.op)

        return self._terms(share, stored=True)

    @property
    def _copied(self) -> tuple[tuple[str, str, str], ...]:
        """Rows of a last stage that read the first one's token table: the head where it is tied, else modules that guess."""
        if self.stages == 1:
            return ()
        return (HEAD,) if self.model.tie_word_embeddings else (("mtp", "mtp", "embed_tokens"),)

    def _kept(self, per_token: bool) -> tuple[Term, ...]:
        def share(row: Row) -> Expr:
            kept = [item for item in row.op.cost.kept if item.per_token is per_token]
            return Add(*(kept_share(item, self.formats, self.view) for item in kept))

        return self._terms(share)

    def _cache(self) -> tuple[Term, ...]:
        return self._kept(True)

    def _state(self) -> tuple[Term, ...]:
        return self._kept(False)

    def _activations(self) -> tuple[Term, ...]:
        """The residual stream twice, and the widest row's inputs and outputs, of the T tokens of the largest pass."""
        tokens, size = ceil_div(T, n_cp), self.formats.element("activations")
        widest = {
            one_pass(row.op.cost.activations).xreplace(row.binding).xreplace({T: tokens})
            / (ONE if row.op.split in ("none", "vocabulary") else n_tp)
            for row in self._rows
            if row.group not in ("vision", "head") and row.op.kind != "vector" and self._times(row, row.times)
        }
        stream = TWO * tokens * Integer(self.model.hidden_size) * size
        peak = Max(*widest, evaluate=False) * size
        return (
            Term(("stream", "residual"), 1, stream, stream, {}),
            Term(("widest row", "inputs and outputs"), 1, peak, peak, {}),
        )

    def _logits(self) -> tuple[Term, ...]:
        """One row of logits for each sequence, and for each of its guessed tokens."""
        rows = ceil_div(B, n_dp) * (1 + self.view.speculative)
        expr = rows * Integer(self.model.vocab_size) * LOGIT_BYTES if self._layers["head"] else ZERO
        return (Term(("logits",), 1, expr, expr, {}),)

    def _messages(self) -> tuple[Term, ...]:
        """Buffers of what is sent and received: a layer's sums among tp ranks; tokens on their way to and from experts.

        A token goes to each of its k experts, in the experts' own format where that is fp8, and comes back as activations.
        """
        tokens, size, width = ceil_div(T, n_cp), self.formats.element("activations"), Integer(self.model.hidden_size)
        summed = TWO * tokens * width * size * _if_several(n_tp)
        terms = [Term(("all-reduce",), 1, summed, summed, {})]
        used = max((int(weight.active) for weight in self.model.experts.values()), default=0)
        if used:
            routed = tokens * used * width * (dispatch_bytes(self.formats) + size) * _if_several(n_dp * n_cp) / n_tp
            terms.append(Term(("dispatch and combine",), 1, routed, routed, {}))
        return tuple(terms)


def _fuller(op: Op) -> Expr:
    """What the rank with most experts stores over the mean, where expert ranks do not divide their number."""
    if op.split != "experts":
        return ONE
    experts = op.cost.weights[0].copies
    return ceil_div(experts, n_ep) * n_ep / experts


def _if_several(ranks: Expr) -> Expr:
    """1 where there are two or more of them, 0 for a single one."""
    return lower(ranks - 1, ONE)


def dispatch_bytes(formats: Precision) -> Expr:
    """Bytes of an element of a token on its way to its experts: quantised before it is sent where experts multiply in fp8."""
    return ONE if formats.experts == "fp8" else formats.element("activations")


@lru_cache(maxsize=4096)
def _expression(held: Held, name: str) -> Expr:
    return held.formula(name).expr


@lru_cache(maxsize=1024)
def _distinct_stages(model: Architecture, stages: int) -> tuple[int, ...]:
    """The stages that differ: the first, the last, and one of each kind between."""
    layers = stage_layers(model.layer_order, stages)
    found: dict[Any, int] = {}
    for place, counts in enumerate(layers):
        key = (tuple(sorted(counts.items())), place == 0, place == stages - 1)
        found.setdefault(key, place)
    return tuple(found.values())


@lru_cache(maxsize=1024)
def head_counts(model: Architecture) -> dict[int, str]:
    """The numbers of query heads in a model, each with a layer group that has it: tensor-parallel ranks must divide them."""
    found: dict[int, str] = {}
    for row in model._rows(Options(), Phase.DECODE):
        heads = dict(row.op.shape).get("heads")
        number = None if heads is None or row.group == "vision" else heads.xreplace(row.binding)
        if number is not None and number.is_Integer:
            found.setdefault(int(number), row.group)
    return found


@lru_cache(maxsize=1024)
def most_experts(model: Architecture) -> int:
    """Experts of the layer that has most of them; 0 where there are none."""
    return max((int(weight.copies) for weight in model.experts.values()), default=0)


def tensor_parallel(model: Architecture, devices: int) -> Parallel:
    """Tensor parallelism over as many of the devices as the model's heads allow; the others are further replicas.

    >>> import costmodel as cm
    >>> tensor_parallel(cm.load("dream-7b"), 8).tp  # 28 heads
    4
    """
    return Parallel(tp=gcd(devices, *head_counts(model)))


def check_layout(model: Architecture, layout: Parallel) -> None:
    """Raises CostModelError for a layout that the model's heads, layers or experts do not allow."""
    for heads, group in head_counts(model).items():
        if heads % layout.tp:
            raise CostModelError(f"tp {layout.tp} does not divide the {heads} heads of {group} in {model.name}")
    if layout.pp > model.depth:
        raise CostModelError(f"pp {layout.pp} exceeds the {model.depth} layers of {model.name}; give at most {model.depth}")
    most = most_experts(model)
    if layout.ep > 1 and not most:
        raise CostModelError(f"ep {layout.ep} spreads experts, and {model.name} has none; leave ep at 1")
    if layout.ep > most > 0:
        raise CostModelError(f"ep {layout.ep} exceeds the {most} experts of {model.name}; give at most as many")


@dataclass(frozen=True)
class Demand:
    """What every device of a layout is asked to hold, over arrays of layouts and batches of one model and precision."""

    model: Architecture
    formats: Precision
    view: View
    mtp: int = 0
    draft: Architecture | None = None

    def rows(self, stages: int, letters: dict[str, Array]) -> dict[str, Array]:
        """Bytes of each row on the device that holds most, at arrays of B, S, T and ranks (one number of stages)."""
        each = [self._stage(stages, stage, letters) for stage in _distinct_stages(self.model, stages)]
        totals = np.stack([np.sum(list(rows.values()), axis=0) for rows in each])
        fullest = totals.argmax(axis=0)
        places = np.arange(len(fullest))
        return {name: np.stack([rows.get(name, 0 * places) for rows in each])[fullest, places] for name in each[-1]}

    def _stage(self, stages: int, stage: int, letters: dict[str, Array]) -> dict[str, Array]:
        known: dict[Any, Any] = {LETTERS[name].symbol: values for name, values in letters.items()}
        size = next(iter(letters.values())).shape
        return {
            f"{label}{name}": np.ceil(np.broadcast_to(walk_floats(_expression(held, name), known), size))
            for label, held in self._held(stages, stage)
            for name in NAMES
        }

    def _held(self, stages: int, stage: int) -> list[tuple[str, Held]]:
        """The model's, and a draft model's, whose layers all stand in the last stage."""
        own = [("", Held(self.model, self.formats, self.view, stages, stage, self.mtp))]
        if self.draft is not None and stage == stages - 1:
            own.append(("draft ", Held(self.draft, self.formats, self.view)))
        return own


@dataclass(frozen=True)
class DeviceMemory:
    """What one device of a layout holds, the one that holds most: bytes by row, each behind a Formula.

    `memory_bytes` is what the device has. Inverse answers hold everything else fixed: None where nothing fits, 10^12 where
    nothing binds.
    """

    demand: Demand
    accelerator: Accelerator
    layout: Parallel
    batch: int
    context: int
    pass_tokens: int
    reserve: float

    def __repr__(self) -> str:
        """In a line: the rows behind it are in `rows`."""
        of = f"{binary_bytes(self.used_bytes)} of {binary_bytes(self.memory_bytes)}"
        return f"<memory of {self.demand.model.name} on {self.accelerator.name}, {self.layout.name}: {of} a device>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the rows, and what is left."""
        rows = {name: binary_bytes(size) for name, size in self.rows.items()}
        of = {"of": binary_bytes(self.memory_bytes), "fits": self.fits}
        return facts(f"{self.demand.model.name} on {self.accelerator.name}, {self.layout.name}, each device", rows | of)

    @property
    def memory_bytes(self) -> int:
        """What the device has."""
        return self.accelerator.memory_bytes

    @cached_property
    def rows(self) -> dict[str, int]:
        """Bytes by name: weights, cache, state, activations, logits, messages, a draft model's, and the runtime's reserve."""
        found = self._rows_at(np.array([self.batch]), np.array([self.context]))
        return {name: int(values[0]) for name, values in found.items() if values[0]} | {"reserve": self.reserve_bytes}

    @property
    def reserve_bytes(self) -> int:
        """What the runtime takes of the device."""
        return int(np.ceil(self.reserve * self.memory_bytes))

    @property
    def used_bytes(self) -> int:
        """All rows together."""
        return sum(self.rows.values())

    @property
    def free_bytes(self) -> int:
        """What is left; negative where it does not fit."""
        return self.memory_bytes - self.used_bytes

    @property
    def fits(self) -> bool:
        """Whether all of it fits."""
        return self.free_bytes >= 0

    @property
    def weight_bytes(self) -> int:
        """Weights on this device, a draft model's included."""
        return self.rows["weights"] + self.rows.get("draft weights", 0)

    @property
    def cache_bytes(self) -> int:
        """Cache and state on this device, a draft model's included."""
        return sum(size for name, size in self.rows.items() if name.removeprefix("draft ") in ("cache", "state"))

    @cached_property
    def theory_bytes(self) -> int:
        """Cache and state of the same device in the theory view: what must be kept, without an engine's pages."""
        return self._kept_bytes(engine=False)

    @cached_property
    def engine_bytes(self) -> int:
        """Cache and state of the same device in the engine view: what a paged server reserves."""
        return self._kept_bytes(engine=True)

    def _kept_bytes(self, *, engine: bool) -> int:
        view = replace(self.demand.view, engine=engine)
        rows = self._stage_rows(self.stage, replace(self.demand, view=view))
        return int(sum(size[0] for name, size in rows.items() if name.removeprefix("draft ") in ("cache", "state")))

    @cached_property
    def stage(self) -> int:
        """The stage of the pipeline whose devices hold most, from 0."""
        stages = _distinct_stages(self.demand.model, self.layout.pp)
        totals = [sum(values[0] for values in self._stage_rows(stage, self.demand).values()) for stage in stages]
        return stages[int(np.argmax(totals))]

    def formula(self, name: str) -> Formula:
        """The Formula behind a row, on the device of the stage that holds most."""
        if name not in NAMES:
            raise CostModelError(f"no memory row {shown(name)}; give one of {', '.join(NAMES)}")
        return self.demand._held(self.layout.pp, self.stage)[0][1].formula(name)

    def _stage_rows(self, stage: int, demand: Demand) -> dict[str, Array]:
        return demand._stage(self.layout.pp, stage, self._letters(np.array([self.batch]), np.array([self.context])))

    @cached_property
    def longest_context(self) -> int | None:
        """The longest context of so many sequences."""
        return self._largest(lambda numbers: self._rows_at(np.full(len(numbers), self.batch), numbers))

    @cached_property
    def most_sequences(self) -> int | None:
        """The most sequences of a replica at this context."""
        return self._largest(lambda numbers: self._rows_at(numbers, np.full(len(numbers), self.context)))

    @cached_property
    def fewest_devices(self) -> int | None:
        """The fewest devices that tensor parallelism (within the heads' divisors) makes fit; None where no number does."""
        for tp in (number for number in range(1, 1025)):
            try:
                layout = Parallel(tp=tp, ep=1)
                check_layout(self.demand.model, layout)
            except CostModelError:
                continue
            if replace(self, layout=layout).fits:
                return tp
        return None

    @cached_property
    def loosest(self) -> tuple[str, str] | None:
        """The first pair of formats (weights, cache) of `LADDER` that fits."""
        for weights, cache in LADDER:
            formats = Precision.named(weights, cache=cache)
            if replace(self, demand=replace(self.demand, formats=formats)).fits:
                return weights, cache
        return None

    def _largest(self, rows: Callable[[Array], dict[str, Array]]) -> int | None:
        """The largest whole number at which all rows fit: narrowed down by arrays, as no row shrinks."""
        low, high = 1, MAX_INPUT
        while True:
            numbers = np.unique(np.round(np.geomspace(low, high, 65) if high > 64 * low else np.linspace(low, high, 65)))
            total = np.sum(list(rows(numbers).values()), axis=0) + self.reserve_bytes
            fitting = np.flatnonzero(total <= self.memory_bytes)
            if not len(fitting):
                return None
            last = int(fitting[-1])
            low = int(numbers[last])
            if last == len(numbers) - 1 or int(numbers[last + 1]) == low + 1:
                return low
            high = int(numbers[last + 1])

    def _rows_at(self, batch: Array, context: Array) -> dict[str, Array]:
        return self.demand.rows(self.layout.pp, self._letters(batch, context))

    def _letters(self, batch: Array, context: Array) -> dict[str, Array]:
        return rank_letters(self.layout, batch, context, self.pass_tokens)


def rank_letters(layout: Any, batch: Array, context: Array, pass_tokens: int) -> dict[str, Array]:
    """Arrays for the letters of `Demand.rows`, from one layout or an array for each of its degrees.

    A rank's largest pass holds what its group has, up to `pass_tokens`, and at least the sequences that decode together.
    """
    ones, group = np.ones(len(batch)), np.ceil(batch / layout.dp)
    tokens = np.maximum(np.minimum(pass_tokens, group * context), group)
    return {
        "B": batch.astype(float), "S": context.astype(float), "T": tokens.astype(float),
        "n_tp": layout.tp * ones, "n_dp": layout.dp * ones, "n_cp": layout.cp * ones, "n_ep": layout.ep * ones,
    }  # fmt: skip


def device_memory(
    model: Source,
    accelerator: Device,
    parallel: Parallel | None = None,
    batch: int = 1,
    context: int = 131_072,
    precision: str | Precision = "bf16",
    cache_precision: str = "bf16",
    view: str = "engine",
    pass_tokens: int = PASS_TOKENS,
    reserve: float = RESERVE,
    mtp: int = 0,
    speculative: int = 0,
    draft: Source | None = None,
) -> DeviceMemory:
    """What each device of a layout holds with `batch` sequences of `context` tokens in a replica; bytes, row by row.

    Weights by format with their scales, the cache as a paged engine reserves it (or in `theory`), recurrent state, the
    activations and logits of the largest pass (`pass_tokens`), buffers of messages, and the runtime's `reserve` as a share of the
    device. `mtp` modules, or a `draft` model, guess `speculative` tokens a step.

    Raises CostModelError for an unknown model or device, an impossible number, or a layout that the model does not allow.

    >>> held = device_memory("deepseek-v3", "h200", Parallel(tp=8, ep=8), batch=32, context=8192, precision="fp8")
    >>> held.fits, held.most_sequences, list(held.rows)[:2]
    (True, 86, ['weights', 'cache'])
    """
    chosen, device, layout = as_architecture(model), as_accelerator(accelerator), parallel or Parallel()
    if not isinstance(layout, Parallel):
        raise CostModelError(f"parallel got {shown(parallel)}; give a Parallel, such as Parallel(tp=8)")
    check_layout(chosen, layout)
    if not isinstance(reserve, (int, float)) or isinstance(reserve, bool) or not 0 <= reserve < 1:
        raise CostModelError(f"reserve got {shown(reserve)}; give a share of the memory, at least 0 and less than 1")
    if view not in ("theory", "engine"):
        raise CostModelError(f"view got {shown(view)}; give theory or engine")
    if whole("mtp", mtp, least=0) > (available := chosen.mtp.modules if chosen.mtp else 0):
        raise CostModelError(f"{chosen.name} has {available} modules that guess tokens, not {shown(mtp)}; give mtp={available}")
    if mtp and draft is not None:
        raise CostModelError("mtp and draft both guess tokens; give one of them")
    formats = precision if isinstance(precision, Precision) else Precision.named(precision, cache=cache_precision)
    demand = Demand(
        chosen, formats, View(engine=view == "engine", speculative=whole("speculative", speculative, least=0)),
        whole("mtp", mtp, least=0), None if draft is None else as_architecture(draft),
    )  # fmt: skip
    return DeviceMemory(
        demand, device, layout, whole("batch", batch), whole("context", context), whole("pass_tokens", pass_tokens), float(reserve)
    )


COUNTED = {
    "weights": ("derived", "of the rank that has most, scales included: matrices cut by tp, experts by all ranks, the rest whole"),
    "cache": ("derived", "sequences by dp, tokens by cp, heads by tp (copied beyond their number), latents whole"),
    "state": ("derived", "a slot for each sequence, and for each of its guessed tokens: heads by tp"),
    "activations": ("assumed", "of the largest pass: the residual stream twice, and the widest row's inputs and outputs"),
    "logits": ("assumed", "fp32 of the whole vocabulary, a row for each sequence and each of its guessed tokens"),
    "messages": ("assumed", "buffers of a layer's sums among tp ranks, and of tokens to and from experts, at even load"),
    "reserve": ("assumed", "what the runtime, its kernels and fragmentation take of the device"),
}
"""What each row counts, and whether it follows from the model or is assumed."""


def rows_table(held: DeviceMemory) -> Sequence[dict[str, Any]]:
    """The rows as plain dicts: bytes, share of the device, whether derived or assumed (`status`), and what is counted.

    >>> [row["status"] for row in rows_table(device_memory("gpt2", "l4", context=1024)) if row["row"] in ("weights", "reserve")]
    ['derived', 'assumed']
    """
    return [
        {"row": name, "bytes": size, "share": size / held.memory_bytes, "status": status, "counts": words}
        for name, size in held.rows.items()
        for status, words in [COUNTED[name.removeprefix("draft ")]]
    ]
