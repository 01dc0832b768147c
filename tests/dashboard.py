"""The dashboard in a real browser: Debian's Chromium, with all that it asks for and complains about kept."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PROBES = re.compile(r"/[a-z-]+/_stcore/(health|host-config)$")
"""On a deep link streamlit looks for its server under the page's own address first; that it is not there is no fault of ours."""
STANDS = """(() => {
  const main = document.querySelector("[data-testid=stMain]");
  return [main.innerText, main.scrollWidth, main.scrollHeight, main.getElementsByTagName("*").length];
})()"""
"""What must stay the same for a page to stand still."""
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


def chromium() -> str:
    """Chromium's path. Without one tests skip; in CI that is a failure."""
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail("no Chromium in CI") if os.environ.get("CI") else pytest.skip("no Chromium here")
    return found


@contextmanager
def browser() -> Iterator[Any]:
    """A browser that ends with the block."""
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield running
        running.close()


@dataclass
class Visit:
    """One person's tab, and whatever went wrong in it."""

    page: Any
    address: str
    troubles: list[str] = field(default_factory=list)

    def open(self, path: str = "") -> Any:
        """Opens a page of the dashboard and waits until it is drawn."""
        self.page.goto(f"{self.address}/{path}")
        self.settle()
        return self.page

    def settle(self) -> None:
        """Waits until the script has run and nothing on the page changes any more."""
        self.page.wait_for_selector("[data-testid=stMainBlockContainer] strong", timeout=30_000)
        seen: list[Any] = []
        for _ in range(120):
            self.page.wait_for_timeout(200)
            self.page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=30_000)
            seen.append(self.page.evaluate(STANDS))
            if len(seen) > 3 and seen[-1] == seen[-2] == seen[-3]:
                return
        raise TimeoutError("the page does not come to rest")

    def metrics(self) -> list[str]:
        """The cards' large numbers."""
        return [text.strip() for text in self.page.locator("[data-testid=stMetricValue]").all_inner_texts()]

    def verdict(self) -> str:
        """The sentence at the top."""
        return str(self.page.locator("[data-testid=stMainBlockContainer] strong").first.inner_text())


@contextmanager
def visiting(running: Any, address: str, **context: Any) -> Iterator[Visit]:
    """A fresh session that must end without complaints, and without a request to any other host."""
    own = running.new_context(**({"viewport": WIDE, "accept_downloads": True} | context))
    visit = Visit(own.new_page(), address)
    page, probed = visit.page, []

    def requested(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:", address.replace("http", "ws", 1))):
            visit.troubles.append(f"asked another host: {request.url}")

    def answered(response: Any) -> None:
        if response.status >= 400:
            probed.append(response.url)
            if not PROBES.search(response.url):
                visit.troubles.append(f"{response.status} {response.url}")

    def said(message: Any) -> None:
        if message.type == "error" and not (probed and "404" in message.text):
            visit.troubles.append(f"console: {message.text}")

    page.on("request", requested)
    page.on("response", answered)
    page.on("console", said)
    page.on("pageerror", lambda error: visit.troubles.append(f"page error: {error}"))
    page.on("dialog", lambda dialog: (visit.troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    yield visit
    assert not page.locator("[data-testid=stException]").count(), page.locator("[data-testid=stException]").first.inner_text()
    own.close()
    assert not visit.troubles, visit.troubles
