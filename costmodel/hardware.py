"""Accelerators as data: what a device has, each fact with its source."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field

from costmodel.workload import Checked, Name, Text

MAX_MEMORY_BYTES = 10**15


class Accelerator(Checked):
    """One device. `memory_bytes` is what it has for weights and cache; `notes` say whose figure that is.

    >>> Accelerator(name="mine", title="My device", maker="Me", memory_bytes=24_000_000_000, source="datasheet").memory_bytes
    24000000000
    """

    name: Name
    title: Text
    maker: Text
    released: Annotated[date, Field(strict=False)] | None = None
    """The day its maker announced it."""
    memory_bytes: Annotated[int, Field(strict=True, ge=1, le=MAX_MEMORY_BYTES)]
    source: Text
    notes: tuple[Text, ...] = ()
