"""Speed as ratios of CPU time within one run: `python tests/benchmark.py`. Nothing here passes or fails.

Each figure is the smallest of several rounds, ours and the yardstick's in turn, so that a busy machine disturbs both.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import costmodel as cm

POINTS = 1_000_000
ROUNDS = 7
IMPORTS = [sys.executable, "-c", "import sympy, numpy, pydantic"]


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU time of one call."""
    before = time.process_time()
    call()
    return time.process_time() - before


def process_cpu_seconds(command: list[str]) -> float:
    """CPU time of a whole process, user and system, with bytecode compiled as on a normal machine."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    quiet = subprocess.DEVNULL
    subprocess.run(command, check=True, stdout=quiet, stderr=quiet, env=environment)  # noqa: S603 - our own commands
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def smallest(*calls: Callable[[], float]) -> list[float]:
    """The smallest time of each call over the rounds, after one round of warm-up."""
    rounds = [[call() for call in calls] for _ in range(ROUNDS + 1)][1:]
    return [min(times) for times in zip(*rounds, strict=True)]


def main() -> None:
    """Prints each figure with its target."""
    deepseek, gemma, contexts = cm.load("deepseek-v3"), cm.load("gemma-3-27b"), np.linspace(1, 1_000_000, POINTS).round()
    by_hand = {
        "deepseek-v3": (deepseek, lambda batch, context: 61 * batch * context * (512 + 64) * 2),
        "gemma-3-27b": (gemma, lambda batch, context: batch * 2 * 16 * 128 * 2 * (52 * np.minimum(context, 1024) + 10 * context)),
    }
    for points in (contexts.astype(np.int64), contexts):
        for name, (model, formula) in by_hand.items():
            assert np.array_equal(model.cache_bytes(context=points, batch=4), formula(4, points))
            ours, theirs = smallest(
                lambda model=model, points=points: cpu_seconds(lambda: model.cache_bytes(context=points, batch=4)),
                lambda formula=formula, points=points: cpu_seconds(lambda: formula(4, points)),
            )
            ratio = f"{name}, {points.dtype}: {ours / theirs:.2f}x hand-written numpy ({ours * 1e3:.1f} ms)"
            print(f"a million cache_bytes points of {ratio}; at most 3x")
    (flops,) = smallest(lambda: cpu_seconds(lambda: deepseek.prefill_flops(context=contexts)))
    print(f"deepseek-v3: one million prefill_flops points {flops:.3f} s; under 1 s")
    command = [sys.executable, "-m", "costmodel"]
    imports, show, help_ = smallest(
        lambda: process_cpu_seconds(IMPORTS),
        lambda: process_cpu_seconds([*command, "show", "deepseek-v3"]),
        lambda: process_cpu_seconds([*command, "--help"]),
    )
    print(f"show deepseek-v3 {show / imports:.2f}x the import of sympy, numpy and pydantic ({imports:.2f} s); at most 1.8x")
    print(f"--help {help_ / imports:.2f}x of it; at most 0.6x")
    asked = {"devices": 8, "parallel": cm.Parallel(tp=8), "batch": 32, "prompt": 4096, "output": 1024, "precision": "fp8"}
    traffic, limits = cm.Traffic(requests_per_s=50, prompt=4096, output=1024), cm.Limits(ttft_s=3, tpot_s=0.08)
    offered, considered = ["h100-sxm", "h200"], cm.plan("deepseek-v3", ["h100-sxm", "h200"], traffic, limits).considered
    assert considered >= 100_000
    one, plan = smallest(
        lambda: cpu_seconds(lambda: cm.estimate("deepseek-v3", "h200", **asked)),
        lambda: cpu_seconds(lambda: cm.plan("deepseek-v3", offered, traffic, limits)),
    )
    print(f"one estimate of deepseek-v3 on 8 h200 {one * 1e3:.1f} ms; at most 5 ms")
    hundred = plan / considered * 1e5
    print(f"a plan of deepseek-v3 over {considered:,} candidates {plan:.2f} s: {hundred:.2f} s for 100,000; at most 0.5 s")


if __name__ == "__main__":
    main()
