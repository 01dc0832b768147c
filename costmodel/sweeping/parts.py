"""A sweep on disk: a part for each block, whole or absent, and one Parquet file of all in the end. pyarrow is imported here alone.

Beside `NAME.parquet` stands the folder `NAME.parquet.parts` while a sweep runs: `sweep.json` says of which question, a part has the
rows of one block. A part is written under another name, flushed to the disk and renamed, so that a kill at any moment leaves
whole parts alone; the file takes its name in the same way, and then the folder goes.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.errors import CostModelError, shown
from costmodel.files import write_text
from costmodel.sweeping.grids import Grid

if TYPE_CHECKING:
    import pandas as pd

    from costmodel.sweeping.grids import Axis

OUR_KEY = b"costmodel"
ENDING = ".parquet"
MANIFEST = "sweep.json"
LOCK = ".lock"
GROUP_BLOCKS = 16
"""Blocks of one row group: what is in memory when parts become one file."""
_AT_WORK: set[Path] = set()
"""Folders that sweeps of this process hold."""
_OURS = re.compile(r"part-\d+\.parquet|\..+|sweep\.json")


def arrow(name: str = "pyarrow") -> Any:
    """A module of pyarrow. Raises CostModelError where it is missing."""
    try:
        return import_module(name)
    except ImportError:
        raise CostModelError("Parquet needs pyarrow, which is not installed; run: pip install 'costmodel[sweep]'") from None


class Parts:
    """The parts of one sweep, and the file that they become.

    `question` is all that the values depend on, as JSON data; parts or a file of another question are refused. One process
    at a time: a second one on the same path is refused.
    """

    def __init__(self, path: str | os.PathLike[str], grid: Grid, quantities: tuple[str, ...], question: Mapping[str, Any]) -> None:
        self.path, self.grid, self.quantities = _target(path), grid, quantities
        self.folder = self.path.with_name(self.path.name + ".parts")
        self.question = json.loads(json.dumps(question))
        self.done: set[int] = set()
        self.finished = False
        arrow()

    @cached_property
    def digest(self) -> str:
        """The question in short."""
        return sha256(json.dumps(self.question, sort_keys=True).encode()).hexdigest()

    def __enter__(self) -> Parts:
        """Finds what an earlier run has left; raises CostModelError where that is of something else."""
        with _told(self.path), ExitStack() as held:
            self.finished = self._is_whole()
            if self.finished:
                self._forget()
            else:
                self.folder.mkdir(exist_ok=True)
                held.enter_context(_alone(self.folder))
                self._resume()
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _is_whole(self) -> bool:
        if not self.path.exists():
            return False
        if not self.path.is_file():
            raise CostModelError(f"{shown(str(self.path))} is no ordinary file; choose another place")
        try:
            told = json.loads((arrow("pyarrow.parquet").read_schema(self.path).metadata or {})[OUR_KEY])
        except (arrow().ArrowException, ValueError, KeyError):
            raise CostModelError(f"{shown(str(self.path))} is there and is no sweep; choose another path, or delete it") from None
        if told["digest"] != self.digest:
            raise CostModelError(f"{shown(str(self.path))} has the answer to another question; choose another path, or delete it")
        return True

    def _resume(self) -> None:
        """Forgets half-written files, and learns which parts are whole."""
        self._check_question()
        for stale in self.folder.glob(".?*"):
            if stale.name != LOCK:
                stale.unlink(missing_ok=True)
        self.done = {block for block in range(self.grid.blocks) if self._part(block).exists() and self._has_rows(block)}

    def _check_question(self) -> None:
        manifest = self.folder / MANIFEST
        if not manifest.exists():
            if any(entry.name != LOCK and not entry.name.startswith(".") for entry in self.folder.iterdir()):
                raise CostModelError(f"{shown(str(self.folder))} holds other files; choose another path, or delete that folder")
            write_text(manifest, json.dumps(self.question, indent=1) + "\n")
            return
        try:
            earlier = json.loads(manifest.read_text(encoding="utf-8"))
        except ValueError:
            earlier = {}
        differs = next((name for name, value in self.question.items() if earlier.get(name) != value), None)
        if differs is not None:
            raise CostModelError(
                f"{shown(str(self.folder))} holds another sweep (of other {differs}); choose another path, or delete that folder"
            )

    def _part(self, block: int) -> Path:
        return self.folder / f"part-{block:06d}{ENDING}"

    def _has_rows(self, block: int) -> bool:
        """A part that a power cut has spoilt is made again."""
        start, stop = self.grid.span(block)
        try:
            return bool(arrow("pyarrow.parquet").read_metadata(self._part(block)).num_rows == stop - start)
        except arrow().ArrowException:
            return False

    def add(self, block: int, values: Mapping[str, Any], why: Any, reasons: tuple[str, ...]) -> None:
        """Keeps the rows of a block; `why` has for each the place of its reason, or -1."""
        pa = arrow()
        start, stop = self.grid.span(block)
        columns = [_column(axis, self.grid.code(axis, start, stop)) for axis in self.grid.axes]
        columns += [pa.array(values[name], pa.float64()) for name in self.quantities]
        columns.append(_texts(why, reasons))
        with _told(self.path), self._writing(self._part(block)) as file, self._writer(file) as writer:
            writer.write_table(pa.table(columns, schema=self._schema))
        self.done.add(block)

    @cached_property
    def _schema(self) -> Any:
        pa = arrow()
        fields = [pa.field(axis.name, _column(axis, np.zeros(0, np.int64)).type) for axis in self.grid.axes]
        fields += [pa.field(name, pa.float64()) for name in self.quantities]
        units = self.question["quantities"]
        about = {"digest": self.digest, "costmodel": self.question["costmodel"], "units": units, "points": self.grid.points}
        return pa.schema([*fields, pa.field("why", pa.string())], metadata={OUR_KEY: json.dumps(about).encode()})

    def _writer(self, file: Any) -> Any:
        texts = [field.name for field in self._schema if field.name not in self.quantities]
        return arrow("pyarrow.parquet").ParquetWriter(file, self._schema, version="2.6", compression="zstd", use_dictionary=texts)

    @contextmanager
    def _writing(self, target: Path) -> Iterator[Any]:
        """A file that takes its name when it is whole and on the disk."""
        temporary = self.folder / f".{target.name}"
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)

    def finish(self) -> None:
        """Makes one file of all parts, a group of them at a time, in the order of the points."""
        pa, parquet = arrow(), arrow("pyarrow.parquet")
        with _told(self.path), self._writing(self.path) as file, self._writer(file) as writer:
            for first in range(0, self.grid.blocks, GROUP_BLOCKS):
                group = range(first, min(first + GROUP_BLOCKS, self.grid.blocks))
                tables = [parquet.ParquetFile(self._part(block)).read(use_threads=False) for block in group]
                rows = pa.concat_tables(tables)
                writer.write_table(rows, row_group_size=rows.num_rows)
        self.finished = True
        self._forget()

    def _forget(self) -> None:
        """Removes the folder of parts: the question last, so that a kill leaves nothing unknown."""
        if not self.folder.is_dir():
            return
        entries = sorted(self.folder.iterdir(), key=lambda entry: (entry.name == MANIFEST, entry.name))
        if all(_OURS.fullmatch(entry.name) for entry in entries):
            for entry in entries:
                entry.unlink(missing_ok=True)
            with suppress(OSError):
                self.folder.rmdir()

    def refused(self) -> tuple[int, str]:
        """How many rows have a reason for no value, and the first reason."""
        file = arrow("pyarrow.parquet").ParquetFile(self.path)
        count, first, place = 0, "", len(self._schema) - 1
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            here = about.num_rows - about.column(place).statistics.null_count
            if here and not count:
                first = file.read_row_group(group, ["why"], use_threads=False).column(0).drop_null()[0].as_py()
            count += here
        return count, first

    def frame(self) -> pd.DataFrame:
        """The whole file as a DataFrame; texts are categories."""
        with _told(self.path, "read"):
            table = arrow("pyarrow.parquet").read_table(self.path)
        for place, name in enumerate(table.column_names):
            if table.schema.types[place] == arrow().string():
                table = table.set_column(place, name, table.column(place).dictionary_encode())
        frame: pd.DataFrame = table.to_pandas()
        holes = {axis.name: "Int64" for axis in self.grid.axes if axis.holes}
        return frame.astype(holes) if holes else frame


def _column(axis: Axis, codes: Any) -> Any:
    """The rows of an axis' column."""
    pa = arrow()
    if axis.is_text:
        return _texts(codes, axis.told)
    return pa.array(axis.values).take(pa.array(codes))


def _texts(codes: Any, texts: tuple[str, ...]) -> Any:
    """Texts by their places; a place of -1 is none."""
    pa = arrow()
    places = pa.array(np.asarray(codes, np.int32), mask=np.asarray(codes) < 0)
    return pa.DictionaryArray.from_arrays(places, pa.array(texts, pa.string())).cast(pa.string())


def _target(path: Any) -> Path:
    """Where the file goes. Raises CostModelError for what is no place for a Parquet file."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text.endswith(ENDING) or "\0" in text:
        what = shown(path if text is None else text)
        raise CostModelError(f"a sweep is written as Parquet, not to {what}; give a path that ends in {ENDING}")
    with _told(Path(text)):
        return Path(text).resolve()


@contextmanager
def _told(path: Path, what: str = "written") -> Iterator[None]:
    """Says in one line why a path cannot be written or read."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
        if isinstance(error, RuntimeError) and "ymlink" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CostModelError(f"{shown(str(path))} cannot be {what}: {reason}; choose another place, or make room") from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds a folder against other sweeps; a killed process holds none."""
    busy = CostModelError(f"another sweep is at work in {shown(str(folder))}; wait for it, or choose another path")
    if folder in _AT_WORK:
        raise busy
    _AT_WORK.add(folder)
    try:
        with (folder / LOCK).open("w") as file:
            if sys.platform != "win32":  # there, parts are whole too, and two runs make the same ones
                import fcntl

                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise busy from None
            yield
    finally:
        _AT_WORK.discard(folder)
