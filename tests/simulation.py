"""Small discrete-event simulations (simpy) of what `serving.queueing` and `serving.batching` state in closed form."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from costmodel.serving.lengths import Lengths

WARM_UP = 0.1
"""The share of requests at the start that is served and not counted."""


@dataclass
class Request:
    """One request with its times; -1 where something has not happened."""

    number: int
    arrived_s: float
    prompt: int
    output: int
    started_s: float = -1.0
    first_s: float = -1.0
    done_s: float = -1.0
    prefilled: int = 0
    produced: int = 0


@dataclass
class Run:
    """What a simulation saw: every request in order of arrival, and the seconds that servers or prefill were busy."""

    requests: list[Request]
    busy_s: float = 0.0
    ended_s: float = 0.0
    prefilled: int = 0
    """Prompt tokens that passed through an engine, counted by the engine."""
    decoded: int = 0
    """Output tokens, the first of each request included, counted by the engine."""
    starts: list[int] = field(default_factory=list)
    in_flight: float = 0.0
    """Integral over time of the sequences that decode."""

    @property
    def counted(self) -> list[Request]:
        return self.requests[int(WARM_UP * len(self.requests)) :]

    def ttft(self, levels: list[float]) -> Any:
        return np.quantile([request.first_s - request.arrived_s for request in self.counted], levels)

    @property
    def tpot(self) -> float:
        """Mean seconds between tokens, every token weighing the same."""
        pairs = [(request.done_s - request.first_s, request.output - 1) for request in self.counted]
        return sum(span for span, _ in pairs) / sum(steps for _, steps in pairs)


def traffic(rate: float, count: int, prompt: Lengths, output: Lengths, seed: int) -> list[Request]:
    """Poisson arrivals with lengths drawn from their distributions.

    Gaps and lengths are stratified: one from each of `count` equal shares of their distribution, in random order. So the
    load is the one asked for, and what varies from seed to seed is the order alone.
    """
    rng = np.random.default_rng(seed)

    def levels() -> Any:
        return rng.permutation((np.arange(count) + rng.random(count)) / count)

    times = np.cumsum(-np.log1p(-levels()) / rate).tolist()
    prompts, outputs = (lengths.draw(levels()).astype(int).tolist() for lengths in (prompt, output))
    return [Request(i, *row) for i, row in enumerate(zip(times, prompts, outputs, strict=True))]


def simulate_servers(requests: list[Request], service_s: Callable[[int], float], servers: int) -> Run:
    """A common queue, first come first served, before equal servers; the output is one token."""
    env, run = simpy.Environment(), Run(requests)
    pool = simpy.Resource(env, servers)

    def serve(request: Request) -> Generator[Any, Any, None]:
        with pool.request() as turn:
            yield turn
            request.started_s = env.now
            run.starts.append(request.number)
            seconds = service_s(request.prompt)
            yield env.timeout(seconds)
            run.busy_s += seconds
            run.prefilled += request.prompt
            run.decoded += 1
            request.prefilled, request.produced, request.first_s, request.done_s = request.prompt, 1, env.now, env.now

    def arrive() -> Generator[Any, Any, None]:
        for request in requests:
            yield env.timeout(request.arrived_s - env.now)
            env.process(serve(request))

    env.process(arrive())
    env.run()
    run.ended_s = env.now
    return run


def simulate_engines(
    requests: list[Request], step_s: Callable[[int, int, int], float], maximum: int, chunk: int | None, engines: int = 1
) -> Run:
    """Continuous batching: engines that take prompts from a common queue, one at a time each, and decode what they prefilled.

    Prompts come first: whole (no sequence decodes meanwhile) or `chunk` tokens on a decode step. A prompt starts where fewer
    than `maximum` sequences decode. `step_s(batch, new tokens, their context)` are the seconds of a step.
    """
    env, run = simpy.Environment(), Run(requests)
    queue: deque[Request] = deque()
    idle: list[simpy.Event] = []

    def arrive() -> Generator[Any, Any, None]:
        for request in requests:
            yield env.timeout(request.arrived_s - env.now)
            queue.append(request)
            while idle:
                idle.pop().succeed()

    def engine() -> Generator[Any, Any, None]:
        decoding: list[Request] = []
        prompt: Request | None = None
        while True:
            if prompt is None and queue and len(decoding) < maximum:
                prompt = queue.popleft()
                prompt.started_s = env.now
                run.starts.append(prompt.number)
            if prompt is None and not decoding:
                idle.append(env.event())
                yield idle[-1]
                continue
            new = 0 if prompt is None else min(prompt.prompt - prompt.prefilled, chunk or prompt.prompt)
            moving = [] if new and chunk is None else list(decoding)
            seconds = step_s(len(moving), new, prompt.prefilled + new if prompt else 0)
            yield env.timeout(seconds)
            run.busy_s += seconds if new else 0.0
            run.in_flight += seconds * len(decoding)
            for request in moving:
                advance(request, decoding)
            if prompt is not None:
                prompt.prefilled += new
                run.prefilled += new
                if prompt.prefilled == prompt.prompt:
                    prompt.first_s = env.now
                    decoding.append(prompt)
                    advance(prompt, decoding)
                    prompt = None

    def advance(request: Request, decoding: list[Request]) -> None:
        request.produced += 1
        run.decoded += 1
        if request.produced == request.output:
            request.done_s = env.now
            decoding.remove(request)

    env.process(arrive())
    for _ in range(engines):
        env.process(engine())
    env.run()
    run.ended_s = env.now
    return run
