"""Every page, wide and narrow, light and dark: `python -m tests.screenshots [FOLDER]`; with `--docs` the README's four."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .dashboard import NARROW, WIDE, browser, visiting
from .load.server import dashboard

PAGES = {
    "explore": "", "landscape": "landscape", "compare": "compare?model=deepseek-v3&other=kimi-k2&quantity=decode_flops",
    "anatomy": "anatomy?quantity=params&model=qwen3-next-80b-a3b", "moe": "moe",
    "what-if": "what-if?models=gemma-3-27b&edit=local/mixer/sliding_window%3D4096", "formulas": "formulas?model=gemma-3-27b",
    "roofline": "roofline?accelerator=h100-sxm&devices=8&weights=fp8&context=8k", "calibration": "calibration?calibration=cpu",
    "serve": "serve?models=deepseek-v3&weights=fp8&cache=fp8&requests_per_s=10&devices=32",
    "cost": "cost?weights=fp8&cache=fp8&requests_per_s=10&devices=64&model=gemma-3-27b", "report": "report",
}  # fmt: skip
SIZES = {"wide": WIDE, "narrow": NARROW}
DOCS = Path(__file__).parents[1] / "docs"
README = (("explore", "wide", "light"), ("explore", "narrow", "dark"), ("landscape", "wide", "light"), ("compare", "wide", "dark"))


def picture(running: Any, address: str, place: tuple[str, str, str], folder: Path, *, whole: bool) -> None:
    """One page as a PNG: the whole of it, or what a screen shows first."""
    name, size, scheme = place
    shown = SIZES[size] if whole else {**SIZES[size], "height": 1_000 if size == "wide" else 844}
    with visiting(running, address, viewport=shown, color_scheme=scheme) as visit:
        visit.open(PAGES[name])
        if whole:  # the page scrolls within its frame: a screen as tall as it shows it all
            height = visit.page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
            visit.page.set_viewport_size({**shown, "height": min(int(height) + 80, 5_000)})
            visit.settle()
        visit.page.screenshot(path=folder / f"{name}-{size}-{scheme}.png")


def main() -> None:
    """Draws them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("screenshots"))
    parser.add_argument("--docs", action="store_true", help="the four of the README, into docs/")
    asked = parser.parse_args()
    every = [(name, size, scheme) for name in PAGES for size in SIZES for scheme in ("light", "dark")]
    folder = DOCS if asked.docs else asked.folder
    folder.mkdir(parents=True, exist_ok=True)
    with dashboard() as server, browser() as running:
        for place in README if asked.docs else every:
            picture(running, f"http://127.0.0.1:{server.port}", place, folder, whole=not asked.docs)
            print(folder / f"{'-'.join(place)}.png")


if __name__ == "__main__":
    main()
