"""Many people at once: `python -m tests.load [--sessions 30] [--seconds 120]`. Exit status 1 where a check fails."""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
from dataclasses import dataclass, field

import costmodel as cm
from costmodel.catalog import as_toml
from costmodel.scenario import STOPS, Scenario

from .server import Server, dashboard
from .tab import CHANGEABLE, Tab, another, opened

PAGES = ("", "landscape", "compare", "anatomy", "moe", "serve", "cost", "what-if", "formulas", "report")
MEMORY_LIMIT = 15e6
"""Bytes a session may take."""
THINKING = (0.5, 3.0)
"""Seconds between two things that a person does."""


@dataclass
class Findings:
    """What all sessions saw."""

    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    uploads: int = 0
    downloads: int = 0


def secret(number: int) -> str:
    """The title of a session's own model, which no other session may see."""
    return f"SECRET-{number:03}-{number * 7919:06}"


def architecture(number: int) -> bytes:
    """A session's own architecture file."""
    own = cm.load("gpt2").model_copy(update={"title": secret(number), "name": secret(number).lower()})
    return as_toml(own).encode()


async def person(number: int, server: Server, seconds: float, found: Findings) -> None:
    """One session: opens a link, changes things, walks between pages; every third opens a file of its own."""
    dice = random.Random(number)  # noqa: S311 - the same people every time
    others = [secret(other).encode() for other in range(1_000) if other != number]

    def hear(content: bytes) -> None:
        if b"SECRET-" in content and any(other in content for other in others):
            found.failures.append(f"session {number} saw another session's upload")

    names = tuple(dice.sample(cm.presets(), dice.randint(1, 4)))
    link = Scenario(models=names, context=dice.choice(STOPS), batch=dice.choice((1, 8, 64)), view=dice.choice(("theory", "engine")))
    end = asyncio.get_running_loop().time() + seconds
    async with opened(server.port, dice.choice(PAGES), link.link().partition("?")[2], hear) as tab:
        if number % 3 == 0:
            await tab.walk("what-if")
            await tab.upload("mine.toml", architecture(number))
            seen = str(list(tab.elements("alert", "multiselect")))
            if secret(number).lower() not in seen:
                found.failures.append(f"session {number} does not see its own upload")
            found.uploads += 1
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(dice.uniform(*THINKING))
            await something(tab, dice, found)
        found.latencies += tab.latencies
        found.failures += [f"session {number}: {failure}" for failure in tab.failures]


async def something(tab: Tab, dice: random.Random, found: Findings) -> None:
    """One thing that a person does."""
    if dice.random() < 0.25:
        await tab.walk(dice.choice(list(tab.pages)))
        return
    files = [button for button in tab.elements("download_button") if button.url and not button.disabled]
    if files and dice.random() < 0.1:
        await tab.download(dice.choice(files))
        found.downloads += 1
        return
    widgets = [(kind, widget) for kind in CHANGEABLE for widget in tab.elements(kind)]
    kind, widget = dice.choice(widgets)
    value = another(kind, widget, dice)
    if value is not None:
        await tab.change(kind, widget, value)


async def visit_all(server: Server) -> None:
    """One session that has been everywhere: what is shared between sessions is there after it."""
    async with opened(server.port) as tab:
        for page in tab.pages:
            await tab.walk(page)
            await tab.rerun()
        if tab.failures:
            raise SystemExit(f"the first visitor failed: {tab.failures[0]}")


async def crowd(server: Server, sessions: int, seconds: float) -> tuple[Findings, int]:
    """All sessions at once; what they found, and the most memory that the server took."""
    found, peak = Findings(), [0]

    async def watch() -> None:
        while True:
            peak[0] = max(peak[0], server.resident_bytes())
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    ends = await asyncio.gather(*(person(n, server, seconds, found) for n in range(sessions)), return_exceptions=True)
    watching.cancel()
    found.failures += [
        f"session {n} ended with {type(end).__name__}: {end}" for n, end in enumerate(ends) if isinstance(end, BaseException)
    ]
    return found, peak[0]


def load(sessions: int, seconds: float) -> bool:
    """Runs the crowd and prints what it found. True where all checks pass."""
    with dashboard() as server:
        before = server.resident_bytes()
        asyncio.run(visit_all(server))
        warmed, cpu = server.resident_bytes(), server.cpu_seconds()
        found, peak = asyncio.run(crowd(server, sessions, seconds))
        spent = server.cpu_seconds() - cpu
        complaints = server.complaints()
        after = server.resident_bytes()
    runs, each = sorted(found.latencies), (peak - warmed) / max(1, sessions - 1)
    print(f"sessions at once            {sessions}, for {seconds:g} s")
    print(f"reruns                      {len(runs)}, {found.uploads} uploads, {found.downloads} downloads")
    if runs:
        print(
            f"latency, median and p95     {statistics.median(runs) * 1e3:.0f} ms, {runs[int(0.95 * (len(runs) - 1))] * 1e3:.0f} ms"
        )
        print(f"server's CPU a rerun        {spent / len(runs) * 1e3:.0f} ms, everything else it does included")
    print(f"memory: start, one visitor  {before / 1e6:.0f} MB, {warmed / 1e6:.0f} MB")
    print(f"memory: peak, after         {peak / 1e6:.0f} MB, {after / 1e6:.0f} MB")
    print(f"memory a session            {each / 1e6:.1f} MB (limit {MEMORY_LIMIT / 1e6:.0f} MB)")
    for failure in [*found.failures, *complaints][:20]:
        print(f"FAILED  {failure}")
    good = bool(runs) and not found.failures and not complaints and each < MEMORY_LIMIT
    print("all checks pass" if good else "some checks failed")
    return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=120)
    asked = parser.parse_args()
    sys.exit(0 if load(asked.sessions, asked.seconds) else 1)
