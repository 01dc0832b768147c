"""Draws the README's picture from the command's own output: `python -m tests.pictures`."""

from __future__ import annotations

import io
import re
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from costmodel.cli import main

COMMAND = ["compare", "deepseek-v3", "kimi-k2", "gemma-3-27b", "qwen3-next-80b-a3b", "--context", "128k"]
PICTURE = Path(__file__).parents[1] / "docs" / "compare.svg"
THEME = TerminalTheme((250, 250, 250), (40, 44, 52), [(40, 44, 52)] * 8)


def draw() -> str:
    """The picture as SVG, with nothing loaded from outside."""
    console = Console(record=True, width=112, file=io.StringIO(), force_terminal=True, highlight=False, markup=False, emoji=False)
    with patch("rich.console.Console", return_value=console), patch("sys.stderr", io.StringIO()):
        try:
            main(COMMAND)
        except SystemExit as end:
            if end.code:
                raise
    drawn = console.export_svg(title="$ costmodel " + " ".join(COMMAND), theme=THEME, unique_id="costmodel")
    local = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL).replace(
        "Fira Code, monospace", "Menlo, Consolas, monospace"
    )
    return re.sub(r"\s*<!-- Generated.*?-->", "", local)


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
