"""Files and folders that are written whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from costmodel.errors import CostModelError, shown


def write_text(path: Path, text: str) -> None:
    """Writes a text as a file, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: a half-written one never takes the place of a good one."""
    temporary = None
    with _told(path):
        try:
            target = _ordinary(path)
            with tempfile.NamedTemporaryFile("wb", dir=target.parent, prefix=".costmodel.", delete=False) as file:
                temporary = Path(file.name)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(target)
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Raises CostModelError where no file can be written at a path: asked before long work, not after it."""
    with _told(path), tempfile.NamedTemporaryFile("wb", dir=_ordinary(path).parent, prefix=".costmodel."):
        pass


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes files, by their paths within a folder, all or none: everything is on disk before the first old file gives way.

    A new folder comes into being whole. In one that is there already, files of these names are replaced one by one, each
    by a whole one, and all others stay.
    """
    staged = None
    with _told(path):
        try:
            if path.exists() and not path.is_dir():
                raise CostModelError(f"{shown(str(path))} is a file; a folder cannot take its place: choose another place")
            target = path.resolve()
            staged = Path(tempfile.mkdtemp(dir=target.parent, prefix=".costmodel."))
            for name, content in files.items():
                _stored(staged / name, content)
            staged.chmod(0o755)
            if target.exists():
                for name in files:
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    (staged / name).replace(_ordinary(target / name))
            else:
                staged.rename(target)
        finally:
            if staged is not None:
                shutil.rmtree(staged, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Makes a folder, where it is not there already."""
    with _told(path):
        if path.exists() and not path.is_dir():
            raise CostModelError(f"{shown(str(path))} is a file; several reports need a folder: choose another place")
        path.mkdir(parents=True, exist_ok=True)


def _stored(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _ordinary(path: Path) -> Path:
    """Where a file goes: a link stays, and leads to the new file. Raises CostModelError for a folder or a device."""
    if path.exists() and not path.is_file():
        raise CostModelError(f"{shown(str(path))} is no ordinary file; choose another place")
    return path.resolve()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What goes wrong with a path, in one line."""
    try:
        yield
    except CostModelError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, characters that no path has
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CostModelError(f"{shown(str(path))} cannot be written: {reason}; choose another place") from None
