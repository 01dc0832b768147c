"""How long requests wait: a common queue before equal servers.

Poisson arrivals, first come first served. Every function takes plain numbers or arrays that broadcast: the planner asks for
many candidates at once. A server that cannot keep up is no error: its times are infinite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from costmodel.errors import CostModelError, shown

Array = NDArray[np.float64]
Value = float | Array
"""A float where all inputs were plain numbers, else an array."""
LEAST_SCV = 1 / 3
"""Of a wait: that of what is left of one constant service. The fit has up to three stages, which reach down to it."""
MAX_COUNT = 1_000_000
BLOCK = 1024
"""Candidates whose quantiles are solved together, so that the arrays stay in the cache."""


def erlang_c(servers: ArrayLike, utilisation: ArrayLike) -> Value:
    """The share of arrivals that find all servers of an M/M/c queue busy; 1 where the servers cannot keep up.

    1/B_k = 1 + k / (a B_(k-1)), the recursion of Erlang's loss formula for a = c rho, then C = B / (1 - rho (1 - B)).

    >>> round(erlang_c(1, 0.7), 4), round(erlang_c(8, 0.7), 4)
    (0.7, 0.2706)
    """
    c, rho = counts("servers", servers), numbers("utilisation", utilisation)
    shape = common_shape(c.shape, rho.shape)
    c, rho = np.broadcast_to(c, shape), np.broadcast_to(rho, shape)
    offered, inverse = c * rho, np.ones(c.shape)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for k in range(1, int(c.max(initial=1)) + 1):
            inverse = np.where(k <= c, 1 + k / offered * inverse, inverse)
        busy = 1 / (rho + (1 - rho) * inverse)
    return plain(np.where(rho >= 1, 1.0, busy))


@dataclass(frozen=True)
class _Tail:
    """P(wait > t), given that there is a wait: q (1 + a x + b x^2) e^-x + (1 - q) e^-rx, with x = t / scale_s.

    Two moments fit it: stages of equal rate (Erlang, up to three) where the wait varies less than an exponential, two
    exponentials with balanced means where it varies more (Tijms, A First Course in Stochastic Models, 2003, appendix B).
    """

    scale_s: Array
    q: Array
    a: Array
    b: Array
    r: Array

    @classmethod
    def fitted(cls, mean: Array, scv: Array) -> _Tail:
        low = np.clip(scv, LEAST_SCV, 1.0)
        stages = np.where(low < 0.5, 3.0, 2.0)  # 1/k <= scv <= 1/(k-1)
        shorter = (stages * low - np.sqrt(np.maximum(stages * (1 + low) - stages**2 * low, 0.0))) / (1 + low)
        wide = np.maximum(scv, 1.0)
        q = (1 + np.sqrt((wide - 1) / (wide + 1))) / 2
        rate = np.where(scv > 1, 2 * q, stages - shorter)
        return cls(
            scale_s=mean / rate,
            q=q * (scv > 1) + (scv <= 1),
            a=np.where(scv > 1, 0.0, np.where(stages == 3, 1.0, 1 - shorter)),
            b=np.where((scv <= 1) & (stages == 3), (1 - shorter) / 2, 0.0),
            r=np.where(scv > 1, (1 - q) / q, 1.0),
        )

    def beyond(self, t: Array) -> tuple[Array, Array]:
        """The tail at t >= 0, and its integral from t to infinity in seconds."""
        x = t / self.scale_s
        fast, slow = self.q * np.exp(-x), (1 - self.q) * np.exp(-self.r * x)
        tail = fast * (1 + x * (self.a + x * self.b)) + slow
        more = self.a + 2 * self.b
        return tail, self.scale_s * (fast * (1 + more + x * (more + x * self.b)) + slow / self.r)

    def far(self, share: Array) -> Array:
        """A time that the tail exceeds with less than `share`: (1 + x + x^2/2) e^-x < 2 e^(-x/2)."""
        return self.scale_s * np.maximum(2.0, 1 / self.r) * np.log(2 / share)

    def columns(self) -> tuple[Array, ...]:
        """The five parameters."""
        return self.scale_s, self.q, self.a, self.b, self.r


@dataclass(frozen=True, eq=False)
class Queue:
    """A common queue before `servers` equal servers, solved: `queue` makes it. Shapes [...]; floats for plain numbers.

    `utilisation` is that of a server, 1 and more where it cannot keep up; `wait_probability` the share of arrivals that find
    all servers busy; `mean_wait_s` over all arrivals, infinite from a utilisation of 1 on; `mean_waiting` the requests that
    wait, in the mean (Little's law: arrivals a second times the mean wait).
    """

    utilisation: Value
    wait_probability: Value
    mean_wait_s: Value
    mean_waiting: Value
    mean_service_s: Value
    service_s: Array
    weights: Array
    tail: _Tail

    def wait_s(self, level: float) -> Value:
        """The wait that a share `level` of requests does not exceed, seconds; 0 where most find a free server.

        >>> round(queue(0.8, 1.0).wait_s(0.9), 2)
        5.1
        """
        waits = np.asarray(self.wait_probability)
        found = self._solved(level, np.zeros((*waits.shape, 1)), np.ones(1), 0.0)
        return plain(np.where(waits <= 1 - level, 0.0, found))

    def response_s(self, level: float, step_s: ArrayLike = 0.0) -> Value:
        """The quantile of wait and own service together, seconds: of the TTFT where the service is a prefill.

        `step_s`: seconds of the decode step that runs when a prompt comes to a free engine; what is left of it, uniform
        from 0 to `step_s`, comes on top (a server that takes vacations; Doshi, Queueing Systems 1, 1986).

        >>> round(queue(1.0, 0.1).response_s(0.5), 3), queue(20.0, 0.1).response_s(0.5)
        (0.1, inf)
        """
        return plain(self._solved(level, self.service_s, self.weights, step_s))

    def share_beyond(self, limit_s: ArrayLike, step_s: ArrayLike = 0.0) -> Value:
        """The share of requests whose wait and service exceed `limit_s`; 1 where requests pile up.

        `response_s(0.99) <= limit` is `share_beyond(limit) <= 0.01`, at a third to a half of the work: for many candidates.

        >>> round(queue(5.0, 0.1).share_beyond(0.3), 3)
        0.057
        """
        limit = numbers("limit_s", limit_s)
        found = self._each(lambda at, *law: _Law.of(*law).beyond(at)[0], limit, self.service_s, self.weights, step_s)
        return plain(np.where(np.asarray(self.utilisation) < 1, np.clip(found, 0.0, 1.0), 1.0))

    def mean_response_s(self, step_s: ArrayLike = 0.0) -> Value:
        """The mean of what `response_s` gives quantiles of."""
        return plain(np.asarray(self.mean_wait_s + self.mean_service_s + numbers("step_s", step_s, zero=True) / 2))

    def _solved(self, level: float, service: Array, weights: Array, step_s: ArrayLike) -> Array:
        share = np.asarray(1 - _share(level))
        return np.where(np.asarray(self.utilisation) < 1, self._each(_quantile, share, service, weights, step_s), np.inf)

    def _each(self, act: Callable[..., Array], target: Array, service: Array, weights: Array, step_s: ArrayLike) -> Array:
        """`act` on blocks of candidates: a target each, who waits, how long, and the pieces of the service."""
        step, waits = numbers("step_s", step_s, zero=True), np.asarray(self.wait_probability)
        shape = common_shape(waits.shape, step.shape, target.shape)
        edges = _edges(service, weights, step, 1e-7 * np.asarray(self.mean_service_s))
        columns = [np.broadcast_to(column, shape).ravel() for column in (target, waits, *self.tail.columns())]
        flat = np.broadcast_to(edges, (*shape, edges.shape[-1])).reshape(-1, edges.shape[-1])
        found = np.empty(len(flat))
        for start in range(0, len(flat), BLOCK):
            part = slice(start, start + BLOCK)
            goal, busy, *tail = (column[part] for column in columns)
            found[part] = act(goal, busy, _Tail(*tail), flat[part], weights)
        return found.reshape(shape)


def queue(rate: ArrayLike, service_s: ArrayLike, weights: ArrayLike | None = None, servers: ArrayLike = 1) -> Queue:
    """A queue of `rate` requests a second, in all, before `servers` equal servers.

    `service_s` [..., n]: seconds a request holds a server, in rising order along the last axis, with the probabilities
    `weights` [n] (`Lengths.points` gives both); without weights it is one constant time a candidate, shape [...].

    The share that waits is Erlang's C. A request that waits does so for the first of c residual services, and for a geometric
    number of residual services of a server c times as fast: both moments of it are exact for one server (Pollaczek-Khinchine)
    and for exponential services, and right in the limits of light and heavy load otherwise (Tijms 2003, section 9.6). The
    distribution is fitted to them. Requests that a router deals out at random instead of queueing them together: rate / c
    before one server. Errors: docs/queueing.md.

    Raises CostModelError for rates or times that are no positive numbers.

    >>> solved = queue(rate=8.0, service_s=0.1)
    >>> solved.utilisation, round(solved.mean_wait_s, 3)
    (0.8, 0.2)
    """
    arrivals, count = numbers("rate", rate), counts("servers", servers)
    service = numbers("service_s", service_s)
    shares = np.ones(1) if weights is None else probabilities(weights)
    service = service[..., None] if weights is None else service
    if service.shape[-1:] != shares.shape:
        raise CostModelError(f"service_s has shape {service.shape} and weights {shares.shape}; their last axes must agree")
    if np.any(np.diff(service) < 0):
        raise CostModelError("service_s falls along its last axis; give times in rising order, as longer prompts take them")
    shape = common_shape(arrivals.shape, count.shape, service.shape[:-1])
    moments = [np.broadcast_to((service**power) @ shares, shape) for power in (1, 2, 3)]
    arrivals, count = np.broadcast_to(arrivals, shape), np.broadcast_to(count, shape)
    utilisation = arrivals * moments[0] / count
    waits = np.asarray(erlang_c(count, utilisation))
    mean, square = _conditional_wait(np.minimum(utilisation, 1 - 1e-9), count, service, shares, moments)
    total = np.where(utilisation < 1, waits * mean, np.inf)
    return Queue(
        plain(utilisation), plain(waits), plain(total), plain(arrivals * total), plain(moments[0]),
        service, shares, _Tail.fitted(mean, square / mean**2 - 1),
    )  # fmt: skip


@dataclass(frozen=True)
class Places:
    """How long requests wait for a place in the batches of engines that decode: `of` makes it.

    `wait_probability` is the share of arrivals that find every place taken.
    """

    wait_probability: float
    tail: _Tail

    @classmethod
    def of(cls, rate: float, steps: Array, weights: Array, step_s: Array, engines: int) -> Places:
        """For `rate` requests a second of `steps` decode steps [n], with probabilities [n], before `engines` equal engines.

        `step_s` [places] are the seconds of a step of 1, 2, ... sequences on an engine. The number that decode is a shared
        processor's (Cohen, Acta Informatica 12, 1979) up to full batches and falls geometrically beyond them, which is exact
        for exponential outputs; a request that waits does so for the servers of a queue (see `queue`) at full batches.

        >>> one = Places.of(0.5, np.array([99.0]), np.ones(1), np.array([0.01]), 1)
        >>> round(one.wait_probability, 3)  # the single place is taken 49.5 % of the time
        0.495
        """
        most = len(step_s)
        places, needed = most * engines, rate * float(steps @ weights)
        number = np.arange(1, places + 1)
        seconds = np.interp(np.maximum(number / engines, 1.0), np.arange(1, most + 1), step_s)
        logs = np.insert(np.cumsum(np.log(needed * seconds / number)), 0, 0.0)
        shares = np.exp(logs - logs.max())
        load = needed * float(step_s[-1]) / places
        if load >= 1:
            return cls(1.0, _Tail.fitted(np.asarray(np.inf), np.ones(())))
        beyond = shares[-1] / (1 - load)
        holds, one = steps * float(step_s[-1]), np.ones(1)
        moments = [np.asarray(holds**power @ weights)[None] for power in (1, 2, 3)]
        mean, square = _conditional_wait(load * one, places * one, holds[None], weights, moments)
        return cls(float(beyond / (shares[:-1].sum() + beyond)), _Tail.fitted(mean, square / mean**2 - 1))

    def before(self, share_beyond: Callable[[Array], ArrayLike], levels: Array) -> Array:
        """Quantiles [levels] of the wait for a place and of what follows it, of which `share_beyond(t)` gives the tail at t > 0.

        The two are taken as independent; found by halving.
        """
        waits, weights = self._points()

        def late(at: Array) -> Array:
            left = at[:, None] - waits
            after = np.where(left > 0, share_beyond(np.where(left > 0, left, 1.0)), 1.0)
            return (1 - self.wait_probability) * np.asarray(share_beyond(at)) + self.wait_probability * (after @ weights)

        low, high = np.full(len(levels), 1e-9), np.full(len(levels), 1.0)
        while np.any(late(high) > 1 - levels):
            high = high * 4
        while np.any(high - low > 1e-9 * high):
            middle = np.sqrt(low * high)
            above = late(middle) > 1 - levels
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return high

    def _points(self) -> tuple[Array, Array]:
        """Waits of those who wait, and their probabilities: the quantiles in the middle of shares that shrink to the end."""
        edges = 1 - (1 - np.arange(33) / 32) ** 2
        shares = 1 - (edges[1:] + edges[:-1]) / 2
        low, high = np.zeros(32), np.asarray(self.tail.far(shares)) * np.ones(32)
        for _ in range(60):
            middle = (low + high) / 2
            above = self.tail.beyond(middle)[0] > shares
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return high, np.diff(edges)


def _conditional_wait(rho: Array, c: Array, service: Array, weights: Array, moments: list[Array]) -> tuple[Array, Array]:
    """Mean and mean square of the wait of those who wait."""
    first, first_square = _first_residual(service, weights, c)
    odds = rho / (1 - rho)
    further, further_square = moments[1] / (2 * c * moments[0]), moments[2] / (3 * c * c * moments[0])
    mean = first + odds * further
    square = first_square + 2 * first * odds * further + odds * further_square + 2 * (odds * further) ** 2
    return mean, square


def _first_residual(service: Array, weights: Array, c: Array) -> tuple[Array, Array]:
    """Mean and mean square of the shortest of c residual services.

    A residual service exceeds t with probability R(t) = E[(s - t)+] / E[s], straight between the times s_k; so the
    integrals of R^c and 2 t R^c over a piece are those of powers of a straight line.
    """
    falls = np.cumsum(weights[::-1])[::-1] / (service @ weights)[..., None]
    starts = np.concatenate((np.zeros_like(service[..., :1]), service[..., :-1]), axis=-1)
    drops = falls * (service - starts)
    left = np.cumsum(drops[..., ::-1], axis=-1)[..., ::-1]  # R at each piece's start; summed from the end, where it is 0
    ends = np.concatenate((left[..., 1:], np.zeros_like(left[..., :1])), axis=-1)
    power = 2.0 if np.all(c == 1) else c[..., None] + 1  # a plain square is ten times as fast
    start_power, end_power = left**power, ends**power
    lower = (start_power - end_power) / (power * falls)
    upper = (start_power * left - end_power * ends) / ((power + 1) * falls**2)
    return lower.sum(-1), 2 * ((starts + left / falls) * lower - upper).sum(-1)


def _edges(service: Array, weights: Array, step: Array, least: Array) -> Array:
    """Pieces in which the service time is spread evenly, as n + 1 rising edges [..., n + 1] about its points.

    What is left of a running step is added to the mean and, by stretching all pieces, to the variance. No piece is narrower
    than `least`.
    """
    if service.shape[-1] == 1:
        spread = service + step[..., None] * np.array([0.0, 1.0])
    else:
        middle = _between(service, weights)
        first = np.maximum(2 * service[..., :1] - middle[..., :1], service[..., :1] / 2)
        edges = np.concatenate((first, middle, 2 * service[..., -1:] - middle[..., -1:]), axis=-1)
        mean = (service @ weights)[..., None]
        variance = np.maximum(((service - mean) ** 2) @ weights, 1e-12 * mean[..., 0] ** 2)
        stretch = np.sqrt(1 + step**2 / 12 / variance)[..., None]
        spread = mean + step[..., None] / 2 + (edges - mean) * stretch
    return np.asarray(spread + least[..., None] * np.arange(spread.shape[-1]))


def _between(service: Array, weights: Array) -> Array:
    """Where one piece ends and the next begins [..., n - 1]: the neighbours' slope carried on from the left or from the right.

    Of the two the one nearer to the middle: exact where the distribution is straight on one side, so that a bend stays sharp.
    """
    middle = (service[..., 1:] + service[..., :-1]) / 2
    if service.shape[-1] < 4:
        return np.asarray(middle)
    slopes = np.diff(service, axis=-1) / (weights[1:] + weights[:-1])
    left = service[..., 1:-2] + slopes[..., :-2] * weights[1:-2]
    right = service[..., 2:-1] - slopes[..., 2:] * weights[2:-1]
    inner = middle[..., 1:-1]
    nearer = np.where(np.abs(left - inner) < np.abs(right - inner), left, right)
    return np.concatenate((middle[..., :1], np.clip(nearer, service[..., 1:-2], service[..., 2:-1]), middle[..., -1:]), axis=-1)


def _quantile(share: Array, waits: Array, tail: _Tail, edges: Array, weights: Array) -> Array:
    """t with P(wait + service > t) = share, for a service spread over pieces [m, n + 1].

    Newton's method on the logarithm, kept between bounds by halving.
    """
    law = _Law.of(waits, tail, edges, weights)
    with np.errstate(divide="ignore"):  # where nobody waits
        low, high = edges[:, 0].copy(), edges[:, -1] + tail.far(np.minimum(share / waits, 1.0))
    at, open_rows = low + (high - low) / 4, np.arange(len(edges))
    for _ in range(80):
        here, part = at[open_rows], law.rows(open_rows)
        left, density = part.beyond(here)
        above = left > share[open_rows]
        low[open_rows] = np.where(above, here, low[open_rows])
        high[open_rows] = np.where(above, high[open_rows], here)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = here + np.log(left / share[open_rows]) * left / density
        inside = (newton > low[open_rows]) & (newton < high[open_rows])
        at[open_rows] = np.where(inside, newton, (low[open_rows] + high[open_rows]) / 2)
        open_rows = open_rows[np.abs(at[open_rows] - here) > 1e-8 * here]
        if not open_rows.size:
            break
    return at


@dataclass(frozen=True)
class _Law:
    """The distribution of wait and service together, a candidate a row, as columns that broadcast over the edges [m, n + 1].

    P(wait + service > t) = - sum_j change_j K(t - e_j): K(u) is the integral from u on of P(wait > .), which is 1 below 0;
    change_j is how the density of the service changes at the edge e_j.
    """

    waits: Array
    tail: _Tail
    whole: Array
    edges: Array
    changes: Array

    @classmethod
    def of(cls, waits: Array, tail: _Tail, edges: Array, weights: Array) -> _Law:
        wide = _Tail(*(column[:, None] for column in tail.columns()))
        changes = np.diff(weights / np.diff(edges, axis=-1), axis=-1, prepend=0.0, append=0.0)
        return cls(waits[:, None], wide, wide.beyond(np.zeros((1, 1)))[1], edges, changes)

    def rows(self, index: NDArray[np.intp]) -> _Law:
        tail = _Tail(*(column[index] for column in self.tail.columns()))
        return _Law(self.waits[index], tail, self.whole[index], self.edges[index], self.changes[index])

    def beyond(self, t: Array) -> tuple[Array, Array]:
        """P(wait + service > t) and its density."""
        past = t[:, None] - self.edges
        before = past < 0
        wait, integral = self.tail.beyond(np.maximum(past, 0.0))
        summed = self.waits * np.where(before, self.whole, integral) - np.minimum(past, 0.0)
        slope = np.where(before, 1.0, self.waits * wait)
        return -np.einsum("mj,mj->m", self.changes, summed), -np.einsum("mj,mj->m", self.changes, slope)


def numbers(name: str, value: ArrayLike, zero: bool = False) -> Array:
    """Positive numbers (or 0, where `zero`) as an array of floats; infinity is one, NaN is not. Raises CostModelError."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of several lengths
        array = np.asarray(None)
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8 or array.size == 0:
        raise CostModelError(f"{name} got {shown(value)}; give a number or an array of numbers")
    wrong = ~((array >= 0) if zero else (array > 0))
    if np.any(wrong):
        first = float(array[wrong][0])
        raise CostModelError(f"{name} got {first}; give {'numbers from 0 on' if zero else 'numbers above 0'}")
    return array.astype(np.float64)


def counts(name: str, value: ArrayLike) -> Array:
    """Whole numbers from 1 to a million as an array of floats. Raises CostModelError for anything else."""
    array = numbers(name, value)
    if np.any((array != np.floor(array)) | (array > MAX_COUNT)):
        raise CostModelError(f"{name} got {shown(value)}; give whole numbers from 1 to {MAX_COUNT}")
    return array


def probabilities(value: ArrayLike) -> Array:
    """One axis of positive numbers that sum to 1. Raises CostModelError for anything else."""
    weights = numbers("weights", value)
    if weights.ndim != 1 or abs(weights.sum() - 1) > 1e-6:
        raise CostModelError(f"weights sum to {weights.sum():g} over {weights.shape}; give one axis of probabilities that sum to 1")
    return weights


def _share(level: float) -> float:
    if isinstance(level, bool) or not isinstance(level, (int, float, np.floating)) or not 0 < level < 1:
        raise CostModelError(f"level got {shown(level)}; give a probability above 0 and below 1, such as 0.99")
    return float(level)


def common_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """What arrays of these shapes broadcast to. Raises CostModelError where they do not."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise CostModelError(f"arrays of shapes {', '.join(map(str, shapes))} do not broadcast; give shapes that do") from None


def plain(value: ArrayLike) -> Value:
    """An array as it is, one of no axes as a float."""
    array = np.asarray(value, dtype=np.float64)
    return float(array) if array.ndim == 0 else array
