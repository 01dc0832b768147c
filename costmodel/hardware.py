"""Accelerators as data: what a device has, each fact with its source."""

from __future__ import annotations

from datetime import date as Day  # noqa: N812 # a field is called date
from numbers import Real
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.frames import facts
from costmodel.units import binary_bytes
from costmodel.workload import Checked, Name, Text

MAX_MEMORY_BYTES = 10**15
MAX_RATE = 10**18
MAX_UNITS = 10**6

Size = Annotated[int, Field(strict=True, ge=1, le=MAX_MEMORY_BYTES)]
Rate = Annotated[int, Field(strict=True, ge=1, le=MAX_RATE)]
"""FLOP, operations or bytes a second."""
Number = Annotated[int, Field(strict=True, ge=1, le=MAX_UNITS)]
Dtype = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "int8", "fp4"]
TWINS = {"fp16": "bf16", "bf16": "fp16"}
"""Two formats that a device multiplies equally fast: where one peak is given, it is the other's too."""
ELEMENT_BYTES: dict[str, float] = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1, "fp4": 0.5}
"""Bytes of one number of each format."""
RATES = {"memory": "memory_bytes_per_s", "link": "link_bytes_per_s", "network": "network_bytes_per_s"}
"""What bytes cross, and the figure that says how fast."""
WORDS = ("name", "title", "maker", "released", "source", "notes")
"""Fields that hold no figure."""


class Price(Checked):
    """What an hour of one device costs to rent, where and when.

    >>> Price(usd_per_hour=2, source="a cloud's list").usd_per_hour
    2.0
    """

    usd_per_hour: Annotated[float, Field(strict=True, gt=0, le=1_000_000, allow_inf_nan=False)]
    date: Annotated[Day, Field(strict=False)] | None = None
    """The day it was listed."""
    source: Text


class Accelerator(Checked):
    """One device. `memory_bytes` is what it has for weights and cache; `notes` say whose figure that is.

    Peaks are dense, as the datasheet has them: what programs reach of them is another matter. Rates of links and networks are
    one device's, one way.

    >>> mine = Accelerator(name="mine", title="My device", maker="Me", memory_bytes=24_000_000_000, source="datasheet",
    ...                    peak_flops_per_s={"bf16": 10**14}, memory_bytes_per_s=10**12)
    >>> mine.memory_bytes, mine.peak("fp16") // mine.given("memory_bytes_per_s")
    (24000000000, 100)
    """

    name: Name
    title: Text
    maker: Text
    released: Annotated[Day, Field(strict=False)] | None = None
    """The day its maker announced it."""
    memory_bytes: Size
    peak_flops_per_s: dict[Dtype, Rate] = Field(default_factory=dict)
    """FLOP (int8: operations) a second by format, dense; floating-point matrices with fp32 accumulation where peaks differ."""
    memory_bytes_per_s: Rate | None = None
    l2_bytes: Size | None = None
    """The last cache before memory."""
    compute_units: Number | None = None
    """Streaming multiprocessors, compute units or cores."""
    link_bytes_per_s: Rate | None = None
    """To its neighbours within the node or scale-up domain, all links together."""
    link_devices: Number = 1
    """Devices in that domain."""
    network_bytes_per_s: Rate | None = None
    """Between nodes."""
    power_w: Number | None = None
    price: Price | None = None
    source: Text
    notes: tuple[Text, ...] = ()
    assumed: tuple[Text, ...] = ()
    """Names of the fields whose figures neither a datasheet nor a device's own report gives."""

    def __hash__(self) -> int:  # a dict has none
        return hash((self.name, self.memory_bytes, self.source))

    def __repr__(self) -> str:
        """In a line: every field is in `model_dump()`."""
        return f"<accelerator {self.name}: {self.title}, {binary_bytes(self.memory_bytes)}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        told = self.model_dump(
            exclude={"name", "title", "source", "notes", "assumed", "peak_flops_per_s", "price"}, exclude_none=True
        )
        peaks = {f"peak_flops_per_s, {name}": peak for name, peak in self.peak_flops_per_s.items()}
        return facts(self.title, told | peaks | ({"usd_per_hour": self.price.usd_per_hour} if self.price else {}))

    @field_validator("assumed")
    @classmethod
    def _are_figures(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        figures = [name for name, value in info.data.items() if name not in WORDS and value is not None and value != {}]
        for name in names:
            if name not in figures:
                raise ValueError(f"{shown(name)} is no figure that is given here; {did_you_mean(name, figures)}")
        return names

    def peak(self, dtype: str) -> int:
        """FLOP a second in a format, dense; fp16 and bf16 stand in for each other.

        Raises CostModelError where none is given.

        >>> Accelerator(name="a", title="A", maker="Me", memory_bytes=1, source="me", peak_flops_per_s={"fp8": 7}).peak("fp8")
        7
        """
        peaks = {str(name): rate for name, rate in self.peak_flops_per_s.items()}
        for name in (dtype, TWINS.get(dtype)) if isinstance(dtype, str) else ():
            if name in peaks:
                return peaks[name]
        raise CostModelError(f"{self.name} has no peak_flops_per_s for {shown(dtype)}; known: {', '.join(peaks) or 'none'}")

    def given(self, figure: str) -> int:
        """A figure that must be there, such as `memory_bytes_per_s`.

        Raises CostModelError where it is not given.

        >>> Accelerator(name="a", title="A", maker="Me", memory_bytes=1, source="me", power_w=72).given("power_w")
        72
        """
        value = getattr(self, figure, None) if isinstance(figure, str) else None
        if not isinstance(value, int):
            raise CostModelError(f"{self.name} has no {shown(figure)[1:-1]}; give it in the accelerator's TOML file")
        return value

    def balance(self, dtype: str = "bf16", over: str = "memory") -> float:
        """FLOP that must come with each byte from `memory`, over a `link` or the `network`, for the arithmetic to take as long.

        Peaks of the datasheet. Raises CostModelError where a figure is not given.

        >>> from costmodel.catalog import accelerator
        >>> round(accelerator("h100-sxm").balance("bf16"))
        295
        """
        if not isinstance(over, str) or over not in RATES:
            raise CostModelError(f"balance is over one of {', '.join(RATES)}, not {shown(over)}")
        return self.peak(dtype) / self.given(RATES[over])

    def critical_batch(self, dtype: str = "bf16", weight_bytes: float | None = None) -> float:
        """Tokens of a pass from which a matrix product takes longer to compute than its weights take to read.

        A weight of `weight_bytes` (those of the format by default) does 2 FLOP for each token: the batch is
        balance x weight_bytes / 2. Activations are not counted, which holds where the matrix is much larger than the batch.
        Raises CostModelError where a figure is not given.

        >>> from costmodel.catalog import accelerator
        >>> round(accelerator("tpu-v5e").critical_batch("bf16")), round(accelerator("tpu-v5e").critical_batch("bf16", 1))
        (241, 120)
        """
        balance = self.balance(dtype)
        size = ELEMENT_BYTES[dtype] if weight_bytes is None else positive("weight_bytes", weight_bytes)
        return balance * size / 2

    def rent(self, device_hours: float, usd_per_hour: float | None = None) -> float:
        """Dollars of so many hours of one device, at its listed price unless told otherwise.

        Raises CostModelError where there is no price.

        >>> from costmodel.catalog import accelerator
        >>> accelerator("h800").rent(2_664_000)
        5328000.0
        """
        if usd_per_hour is None and self.price is None:
            raise CostModelError(f"{self.name} has no price; give usd_per_hour")
        price = self.price.usd_per_hour if usd_per_hour is None and self.price else positive("usd_per_hour", usd_per_hour)
        return positive("device_hours", device_hours) * price


def positive(name: str, value: object, most: float = 1e18) -> float:
    """A finite number above 0 as a float. Raises CostModelError for anything else.

    >>> positive("mfu", 0.4, most=1)
    0.4
    """
    number: Any = value if isinstance(value, Real) and not isinstance(value, bool) else 0
    if 0 < number <= most:
        return float(number)
    raise CostModelError(f"{name} got {shown(value)}; give a number above 0 and at most {most:g}")
