"""Continuous batching: the batch that decoding settles at, and prompts that share the engines with it.

Every function takes plain numbers or arrays that broadcast. What cannot keep up is no error: it is `saturated`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from costmodel.errors import CostModelError, shown
from costmodel.serving.queueing import Array, Queue, Value, common_shape, counts, erlang_c, numbers, plain, probabilities, queue

StepSeconds = Callable[[Array, Array, Array], ArrayLike]
"""Seconds of one step, from the sequences that decode in it, the prompt tokens it carries beside them (0: none), and the
context of those tokens after it; arrays that broadcast."""


@dataclass(frozen=True, eq=False)
class Steady:
    """Where decoding settles: `steady_batch` makes it. Floats for plain numbers, else arrays.

    `batch`: the sequences of a step as each of them sees it, itself included; `in_flight`: those that decode in the mean over
    time, one fewer; `step_s`: seconds from one token to the next. Where all places are taken at most times (`batch` is the
    maximum, and more than a place less are taken in the mean) requests also wait for a place, which no time here counts. Where
    `saturated` not even full batches keep up: the maximum and its step stand, and requests pile up before it.
    """

    batch: Value
    in_flight: Value
    step_s: Value
    saturated: bool | NDArray[np.bool_]


def steady_batch(
    rate: ArrayLike, steps: ArrayLike, step_seconds: Callable[[Array], ArrayLike] | ArrayLike, maximum: ArrayLike
) -> Steady:
    """The batch at which `rate` requests a second, each of `steps` decode steps in the mean, finish as fast as they come.

    Little's law: in flight = rate x steps x t, with t the seconds of a step of (in flight + 1) sequences, because a sequence
    always sees itself. For t = a + b x batch that is exact whatever the outputs' distribution (a shared processor is
    insensitive to it), else the mean stands for the distribution. `step_seconds`: a function of an array of whole
    batches, or a table [..., maximum] of the seconds at batches 1, 2, .... Found by halving over whole batches n, where
    (n - 1) / t(n) must grow with n, then on the straight line between two of them. A full batch n keeps up with less than
    n / t(n) steps a second; near it every step is priced as a full one.

    Raises CostModelError for numbers that are not positive.

    >>> steady_batch(rate=2.0, steps=255, step_seconds=lambda batch: 0.02 + 0.0002 * batch, maximum=256).in_flight
    11.47216035634...
    >>> steady_batch(rate=2.0, steps=255, step_seconds=[0.02, 0.021], maximum=2).saturated
    True
    >>> steady_batch(rate=0.2, steps=100, step_seconds=[0.02], maximum=1).in_flight  # a place that is taken 40 % of the time
    0.4
    """
    needed, top = np.asarray(numbers("rate", rate) * numbers("steps", steps)), counts("maximum", maximum)
    seconds = _function(step_seconds) if callable(step_seconds) else _table(step_seconds, top)
    shape = common_shape(needed.shape, top.shape, seconds(top).shape)
    needed, top = np.broadcast_to(needed, shape), np.broadcast_to(top, shape)

    def enough(batch: Array) -> NDArray[np.bool_]:
        return np.asarray(batch - 1 >= needed * seconds(batch))

    full, below, above = ~enough(top), np.ones(shape), top
    busy = needed * seconds(top)
    while np.any(above - below > 1):
        middle = np.floor((below + above) / 2)
        kept_up = enough(middle)
        below, above = np.where(kept_up, below, middle), np.where(kept_up, middle, above)
    first, last = seconds(below), seconds(above)
    # below + y - 1 = needed (first + y (last - first)): the straight line between two neighbours
    short = needed * first - (below - 1)
    batch = np.where(full, top, below + short / np.maximum(1 - needed * (last - first), short))
    step = np.where(full, seconds(top), first + (batch - below) * (last - first))
    in_flight = np.where(full, np.minimum(busy, top), batch - 1)
    return Steady(plain(batch), plain(in_flight), plain(step), _truth(np.asarray(busy >= top)))


@dataclass(frozen=True, eq=False)
class Interleaved:
    """Prefill and decode on the same engines: `interleaved` makes it.

    `prefill` is the queue of prompts, `decode` where decoding settles, with `step_s` the mean seconds between two tokens;
    `quiet_step_s` the seconds of a step without a prompt, for `ttft_s`.
    """

    prefill: Queue
    decode: Steady
    quiet_step_s: Value

    def ttft_s(self, level: float) -> Value:
        """A quantile of the time to the first token: what is left of the running step, the wait, the own prefill.

        Infinite where `saturated`.
        """
        return plain(np.where(self.saturated, np.inf, self.prefill.response_s(level, self.quiet_step_s)))

    def late(self, limit_s: ArrayLike) -> Value:
        """The share of requests whose first token comes after `limit_s`: cheaper than `ttft_s`. 1 where `saturated`."""
        return plain(np.where(self.saturated, 1.0, self.prefill.share_beyond(limit_s, self.quiet_step_s)))

    @property
    def saturated(self) -> bool | NDArray[np.bool_]:
        """Whether requests pile up before prefill or before decode."""
        return _truth(np.asarray(self.decode.saturated) | (np.asarray(self.prefill.utilisation) >= 1))


def interleaved(
    rate: ArrayLike, steps: ArrayLike, prompt: tuple[Array, Array], step_seconds: StepSeconds, maximum: ArrayLike,
    chunk: int | None = None, servers: ArrayLike = 1,
) -> Interleaved:  # fmt: skip
    """Continuous batching on `servers` equal engines: prompts come before decoding, one prompt at a time on an engine.

    `prompt`: tokens [n] in rising order and their probabilities, as `Lengths.points` gives them. `chunk` tokens of a prompt
    at most ride on a decode step (its last chunk is what is left); None: a prompt passes whole, and decoding stands still
    meanwhile. The first token comes out with the last chunk, `steps` further ones are decoded. `step_seconds(batch, tokens,
    context)`: see `StepSeconds`; it gets arrays [..., 1] of batches and [n] of tokens and contexts. All but the last chunk
    are priced at their mean context.

    The server of the queue is the engine's prefill; it is busy a share rho of the time, so that the mean time between tokens
    is 1 / (rho / t_mixed + (1 - rho) / t_decode) in chunks and t_decode / (1 - rho) whole, and longer at first, because a
    sequence begins while other prompts wait. Several short prompts in one step are not modelled: where prompts are much
    shorter than `chunk`, waits are too long.

    Raises CostModelError for numbers that are not positive.
    """
    tokens, weights = numbers("prompt", prompt[0]), probabilities(prompt[1])
    engines, needed = counts("servers", servers), numbers("steps", steps)
    each = np.asarray(numbers("rate", rate) / engines)
    passes = _passes(tokens, chunk)
    per_prompt = sum(count for count, _, _ in passes) @ weights

    def service(batch: Array) -> Array:
        beside = (np.asarray(batch, dtype=np.float64) - 1)[..., None] * (chunk is not None)
        times = [count * np.asarray(step_seconds(beside, new, context)) for count, new, context in passes]
        return np.asarray(sum(times))

    def quiet(batch: Array) -> Array:
        return np.asarray(step_seconds(np.asarray(batch)[..., None], np.zeros(1), np.zeros(1)))[..., 0]

    def between(batch: Array) -> Array:
        times, pause = service(batch), quiet(batch)
        mixed = times @ weights / per_prompt if chunk is not None else np.inf
        return _between_tokens(each, needed, times, weights, pause, mixed, engines)

    decode = steady_batch(each, steps, between, maximum)
    batch = np.asarray(decode.batch)
    return Interleaved(queue(rate, service(batch), weights, servers), decode, plain(quiet(batch)))


def _between_tokens(
    rate: Array, steps: Array, service: Array, weights: Array, quiet: Array, mixed: Array | float, engines: Array
) -> Array:
    """Mean seconds between the tokens of a request: `mixed` beside a prompt (inf: they halt meanwhile), else `quiet`.

    Prefill is busy rho of all time, but work / (1 - rho) longer within a request's own, by the prefill work at its first token
    less that at its last. At the first the prompts stand there that came during its wait and service; at the last, if it
    halts beside prompts, none, else the mean seen by tokens. Requests that end before prefill pauses see less of it: the
    time until then is taken as exponential.
    """
    mean = service @ weights
    rho = np.minimum(rate * mean, 1 - 1e-9)
    even = 1 / (rho / mixed + (1 - rho) / quiet)
    waits, half = np.asarray(erlang_c(engines, rho)), (service**2) @ weights / (2 * mean)
    queued = waits * rho * half / (engines * (1 - rho))
    first, last = waits * mean + queued, (queued + rho * half) * even / mixed
    seen = -np.expm1(-steps * mixed * (1 - rho) * waits / first)
    slowed = even + (first - last) * seen * (1 - even / mixed) / (1 - rho) / steps
    return np.asarray(np.clip(slowed, quiet, mixed))


def _passes(tokens: Array, chunk: int | None) -> list[tuple[Array, Array, Array]]:
    """How a prompt goes through: (number of steps, new tokens of each, context after it), arrays [n]."""
    one = np.ones_like(tokens)
    if chunk is None:
        return [(one, tokens, tokens)]
    if isinstance(chunk, bool) or not isinstance(chunk, (int, np.integer)) or chunk < 1:
        raise CostModelError(f"chunk got {shown(chunk)}; give a whole number of tokens, or None for whole prompts")
    full = np.ceil(tokens / chunk) - 1
    return [(full, float(chunk) * one, chunk * (np.maximum(full, 1) + 1) / 2), (one, tokens - full * chunk, tokens)]


def _function(step_seconds: Callable[[Array], ArrayLike]) -> Callable[[Array], Array]:
    return lambda batch: numbers("step_seconds", step_seconds(batch))


def _truth(value: NDArray[np.bool_]) -> bool | NDArray[np.bool_]:
    return bool(value) if value.ndim == 0 else value


def _table(table: ArrayLike, top: Array) -> Callable[[Array], Array]:
    """Seconds at batches 1, 2, ... of the last axis, as a function of the batch."""
    seconds = numbers("step_seconds", table)
    if seconds.ndim == 0 or seconds.shape[-1] < top.max(initial=1):
        raise CostModelError(
            f"step_seconds has shape {seconds.shape}; its last axis needs an entry for each batch to {int(top.max())}"
        )

    def at(batch: Array) -> Array:
        index = np.asarray(batch).astype(np.intp) - 1
        if seconds.ndim == 1:
            return np.asarray(seconds[index])
        shape = common_shape(seconds.shape[:-1], index.shape)
        rows, columns = np.broadcast_to(seconds, (*shape, seconds.shape[-1])), np.broadcast_to(index, shape)
        return np.asarray(np.take_along_axis(rows, columns[..., None], axis=-1)[..., 0])

    return at
