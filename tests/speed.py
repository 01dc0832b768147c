"""CPU time of the dashboard: a rerun of each page, and the first run. `python -m tests.speed`; exit status 1 beyond the limits.

The server is a process of its own with compiled bytecode; what it spends is read from its CPU clock, so that other work on the
machine does not count.
"""

from __future__ import annotations

import asyncio
import compileall
import statistics
import sys
from pathlib import Path

import costmodel
from costmodel.scenario import STOPS
from costmodel.units import tokens

from .load.server import Server, dashboard
from .load.tab import Tab, opened

RERUN_LIMIT, FIRST_LIMIT = 0.060, 2.5
"""Seconds of CPU."""
RERUNS, WARM, TRIES = 15, 4, 3
"""A page beyond the limit is timed again: what shares the machine's caches can only slow it down."""


async def first_run(server: Server) -> float:
    """CPU seconds from the opening of a tab to the end of the first run."""
    before = server.cpu_seconds()
    async with opened(server.port) as tab:
        spent = server.cpu_seconds() - before
        check(tab)
    return spent


async def reruns(server: Server) -> dict[str, float]:
    """Median CPU seconds of a rerun of each page, with another context each time."""
    found = {}
    async with opened(server.port) as tab:
        for page in tab.pages:
            await tab.walk(page)
            medians: list[float] = []
            while len(medians) < TRIES and min(medians, default=RERUN_LIMIT) >= RERUN_LIMIT:
                medians.append(await median_rerun(server, tab))
            found[page or "explore"] = min(medians)
            check(tab)
    return found


async def median_rerun(server: Server, tab: Tab) -> float:
    """Median CPU seconds of a rerun of the page that is open."""
    spent = []
    for turn in range(RERUNS):
        slider = tab.element("slider", "Tokens of context")
        await asyncio.sleep(0.05)
        before = server.cpu_seconds()
        await tab.choose(slider, tokens(STOPS[4 + turn]))
        await asyncio.sleep(0.05)  # what streamlit does after a run counts too
        spent.append(server.cpu_seconds() - before)
    return statistics.median(spent[WARM:])


def check(tab: Tab) -> None:
    """Speed counts only where nothing failed."""
    if tab.failures:
        raise SystemExit(f"FAILED  {tab.failures[0]}")


def measure() -> bool:
    """Prints the table; True where all limits hold."""
    compileall.compile_dir(str(Path(costmodel.__file__).parent), quiet=1)
    with dashboard() as server:
        first = asyncio.run(first_run(server))
    with dashboard() as server:
        asyncio.run(first_run(server))
        pages = asyncio.run(reruns(server))
    print(f"first run   {first:6.2f} s   (limit {FIRST_LIMIT:.1f} s)")
    for page, spent in pages.items():
        print(f"{page:11s} {spent * 1e3:6.0f} ms  (limit {RERUN_LIMIT * 1e3:.0f} ms)")
    return first < FIRST_LIMIT and all(spent < RERUN_LIMIT for spent in pages.values())


if __name__ == "__main__":
    sys.exit(0 if measure() else 1)
