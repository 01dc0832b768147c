"""The dashboard as a process of its own: started as `costmodel app` starts it, with its CPU time and memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from costmodel.catalog import bundled
from costmodel.cli import app_flags

STARTS_WITHIN = 60
"""Seconds until the server must answer."""


@dataclass(frozen=True)
class Server:
    """A running dashboard."""

    port: int
    pid: int
    log: Path

    def cpu_seconds(self) -> float:
        """CPU time so far, user and system, of all threads."""
        return time.clock_gettime((~self.pid << 3) | 2)  # Linux's name for a process' CPU clock; its stat file rounds to 10 ms

    def resident_bytes(self) -> int:
        """Memory that the process holds now."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ProcessLookupError(f"the server, process {self.pid}, has ended")

    def complaints(self) -> list[str]:
        """Lines of the log that tell of an error."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if "Traceback" in line or "Error" in line or "Exception" in line]


@contextmanager
def dashboard(*more: str) -> Iterator[Server]:
    """Starts the dashboard on a free port of this machine, and ends it."""
    flags = app_flags()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    here = ["--server.headless=true", "--server.address=127.0.0.1", f"--server.port={port}", *more]
    command = [sys.executable, "-m", "streamlit", "run", str(bundled("app.py")), *flags, *here]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as sink:
            process = subprocess.Popen(command, env=environment, stdout=sink, stderr=subprocess.STDOUT)  # noqa: S603 - our own command
        try:
            server = Server(port, process.pid, log)
            _wait(server, process)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until and process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{server.port}/_stcore/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError(f"the dashboard did not start: {server.log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
