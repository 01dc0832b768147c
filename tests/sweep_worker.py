"""A sweep in a process of its own, which may kill itself at a moment: `python sweep_worker.py PATH CALL NUMBER`.

It is killed with SIGKILL at the NUMBER-th call of `os.fsync` (a file is written and has not its name yet), `Path.replace` (just
before it has), `Path.unlink` or `Path.rmdir` (parts become one file, or go), or after the NUMBER-th block.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import costmodel as cm

QUANTITIES = ["cache_bytes", "flops"]
GRID: dict[str, Any] = {"new_tokens": [1, 64], "local/mixer/sliding_window": [1024, None], "context": range(1, 40_001)}
"""160,000 points: ten blocks, some of whose points are impossible."""
LINES: dict[str, Any] = {"context": range(1, 40_001), "batch": [1, 4]}
"""80,000 points that are all possible."""


def environment() -> dict[str, str]:
    """Variables with which a process finds these tests."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What a Python of its own did."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment())  # noqa: S603


def rows_of(frame: Any) -> list[dict[str, Any]]:
    """Rows of a frame, with None where there is nothing."""
    import pandas as pd

    return [
        {name: None if pd.isna(value) else value for name, value in row.items()} for row in frame.astype(object).to_dict("records")
    ]


def command(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    """(status, stdout, stderr) of a command line in this process."""
    import pytest

    from costmodel.cli import main

    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def sweep(path: str | Path, **how: Any) -> cm.SweepResult:
    return cm.sweep("gemma-3-27b", QUANTITIES, GRID, path=path, **how)


def killing(call: Callable[..., Any], number: int) -> Callable[..., Any]:
    """The same call, whose `number`-th use is a SIGKILL."""
    calls = iter(range(1, 1_000_000))

    def killed(*given: Any, **named: Any) -> Any:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)

    return killed


def main() -> None:
    path, call, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if call == "block":
        sweep(path, progress=killing(lambda done, total: None, number))
        return
    owner: Any = os if call == "fsync" else Path
    setattr(owner, call, killing(getattr(owner, call), number))
    sweep(path)


if __name__ == "__main__":
    main()
