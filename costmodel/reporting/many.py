"""Many reports at once, in processes: each is written whole, and none waits for another."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from costmodel.catalog import as_architecture
from costmodel.errors import CostModelError, shown
from costmodel.files import make_folder
from costmodel.reporting.writing import check_format, report

Follow = Callable[[int, int], None]
"""Told how many are written, and of how many."""


def report_each(
    names: Sequence[str],
    format: str,
    folder: Path,
    executor: Executor | None = None,
    follow: Follow | None = None,
    **asked: Any,
) -> tuple[Path, ...]:
    """One report for each model, in a folder: `NAME.html` and so on, or a folder NAME each; where they lie, in order.

    On all processors unless an `executor` says otherwise; `asked` as `report` takes it. Raises CostModelError for the first
    report that cannot be written; those written before stay.
    """
    check_format(format)
    make_folder(folder)
    places = [folder / (name if format == "folder" else f"{name}.{format}") for name in names]
    if executor is not None:
        return _each(executor, names, format, places, follow, asked)
    workers = max(1, min(len(names), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as own:
        try:
            return _each(own, names, format, places, follow, asked)
        except BaseException:
            own.shutdown(wait=False, cancel_futures=True)
            raise


def _each(
    executor: Executor, names: Sequence[str], form: str, places: Sequence[Path], follow: Follow | None, asked: dict[str, Any]
) -> tuple[Path, ...]:
    waiting = [executor.submit(_one, name, form, place, asked) for name, place in zip(names, places, strict=True)]
    for done, each in enumerate(as_completed(waiting), 1):
        each.result()
        if follow is not None:
            follow(done, len(names))
    return tuple(places)


def _one(name: str, form: str, place: Path, asked: dict[str, Any]) -> None:
    try:
        report(as_architecture(name), form, place, **asked)
    except CostModelError as error:
        raise CostModelError(f"{shown(name)[1:-1]}: {error}") from None
