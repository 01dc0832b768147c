"""Accelerators as data: what a device has, each fact with its source."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from costmodel.errors import CostModelError
from costmodel.workload import Checked, Name, Text

MAX_MEMORY_BYTES = 10**15
Rate = Annotated[int, Field(strict=True, ge=1, le=10**18)]
Count = Annotated[int, Field(strict=True, ge=1, le=10**12)]


Dtype = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "int8", "fp4"]


class Price(Checked):
    """What an hour of one device costs, on a day, and who says so.

    >>> Price(usd_per_hour=2.0, date="2024-12-27", source="DeepSeek-V3 report").usd_per_hour
    2.0
    """

    usd_per_hour: Annotated[float, Field(strict=True, gt=0, le=10**6)]
    date: Annotated[date, Field(strict=False)]
    source: Text


class Accelerator(Checked):
    """One device. `memory_bytes` is what it has for weights and cache; `notes` say whose figure that is.

    Peaks are the datasheet's, dense, for each dtype; rates are bytes a second. `link_bytes_per_s` is what one device sends,
    one way, to those of its node (`link_devices` of them), `network_bytes_per_s` to other nodes. `assumed` names the
    fields that no datasheet gives.

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
    peak_flops_per_s: dict[Dtype, Rate] = Field(default_factory=dict)
    memory_bytes_per_s: Rate | None = None
    l2_bytes: Count | None = None
    """The last cache before memory."""
    compute_units: Count | None = None
    """Streaming multiprocessors, compute units or cores."""
    link_bytes_per_s: Rate | None = None
    link_devices: Count = 1
    network_bytes_per_s: Rate | None = None
    power_w: Count | None = None
    price: Price | None = None
    assumed: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        wrong = next((name for name in self.assumed if name not in type(self).model_fields or not getattr(self, name)), None)
        if wrong:
            raise ValueError(f"assumed names {wrong}, which is no field that is set; name fields of this file")
        return self

    def __hash__(self) -> int:
        return hash((self.name, self.memory_bytes, self.memory_bytes_per_s, tuple(self.peak_flops_per_s.items())))

    def peak(self, dtype: str) -> int:
        """Dense FLOP/s of a dtype; fp16 and bf16 stand for each other. Raises CostModelError where there is no figure.

        >>> import costmodel as cm
        >>> cm.accelerator("h100-sxm").peak("bf16")
        989400000000000
        """
        twin = {"fp16": "bf16", "bf16": "fp16"}.get(dtype, dtype)
        found = self.peak_flops_per_s.get(dtype) or self.peak_flops_per_s.get(twin)  # type: ignore[call-overload]  # any text may be asked
        if found is None:
            known = ", ".join(self.peak_flops_per_s) or "none; add peak_flops_per_s to its file"
            raise CostModelError(f"{self.name} has no peak for {dtype!r}; it has {known}")
        return int(found)

    @property
    def bandwidth(self) -> int:
        """Bytes a second of its memory. Raises CostModelError where its file has none."""
        if self.memory_bytes_per_s is None:
            raise CostModelError(f"{self.name} has no memory_bytes_per_s; add it to its file")
        return self.memory_bytes_per_s
