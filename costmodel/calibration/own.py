"""A device calibrated by its own kernels: measured in rounds, kept as it goes, fitted class by class, scored on other points."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.shapes import Point, checks, plan
from costmodel.calibration.store import CalibratedClass, Calibration, Machine, as_json, calibrated_class
from costmodel.calibration.tables import Measured as Points
from costmodel.calibration.tables import fit_rows
from costmodel.catalog import Device, accelerators, as_accelerator
from costmodel.errors import CostModelError, shown
from costmodel.files import write_text
from costmodel.hardware import Accelerator
from costmodel.kernels import CLASSES, Peaks, kernel_class

if TYPE_CHECKING:
    from costmodel.calibration.measure import Measured

BUDGET_S, QUICK_BUDGET_S = 240.0, 40.0
"""Seconds of measuring, beyond which no further round begins."""
Samples = dict[Point, list[float]]
Follow = Callable[[int, int], None]


def calibrate(
    device: str = "cpu", accelerator: Device | None = None, quick: bool = False, dtype: str = "", seed: int = 0,
    path: str | os.PathLike[str] | None = None, follow: Follow | None = None,
) -> Calibration:  # fmt: skip
    """Measures small torch kernels on this machine and fits every class of them; minutes, or one with `quick`.

    `device` is cpu or cuda (cuda:1 ...). `accelerator` names its peaks: by default the preset called cpu, or the one that
    a GPU's name means. `dtype` is fp32 on a CPU and bf16 on CUDA unless given. With `path` the calibration is written
    there, and samples are kept beside it (`path` + .part) until it is: after an interrupt the same call goes on from there.
    `follow(taken, expected)` hears of each sample.

    Raises CostModelError where torch is missing, the device is not here, or samples kept are of another machine.

    >>> calibration = calibrate(quick=True)  # doctest: +SKIP
    >>> estimate("llama-3.2-1b", "cpu", precision="fp32", calibration=calibration).ttft_s  # doctest: +SKIP
    """
    measuring = torch_kernels()
    measuring.check_device(device)
    chosen = named(accelerator, device)
    form = dtype or ("fp32" if device == "cpu" else "bf16")
    fitted, scored = plan(quick, seed, form), checks(quick, seed, form)
    file = Path(path) if path is not None else None

    def hear(point: Point, seconds: float, taken: int, expected: int) -> None:
        kept.add(point, seconds)
        if follow:
            follow(taken, expected)

    with _Kept.of(file, {**measuring.machine(device), "dtype": form, "quick": quick, "seed": seed}) as kept:
        found = measuring.measure(
            [*fitted, *scored], device, budget_s=QUICK_BUDGET_S if quick else BUDGET_S, seed=seed, done=kept.samples,
            follow=hear,
        )  # fmt: skip
    calibration = fitted_to(found, fitted, chosen, device, form, seed)
    if file is not None:
        write_text(file, as_json(calibration))
        kept.forget()
    return calibration


def torch_kernels() -> Any:
    """The module that has torch. Raises CostModelError where it is missing."""
    try:
        from costmodel.calibration import measure
    except ImportError:
        raise CostModelError("measuring needs torch, which is not installed; run: pip install 'costmodel[calibrate]'") from None
    return measure


def named(accelerator: Device | None, device: str) -> Accelerator:
    """The accelerator asked for; else the preset of CPUs, or the one that a GPU's name means: it has all words of the preset's."""
    if accelerator is not None or device == "cpu":
        return as_accelerator(accelerator or "cpu")
    name = torch_kernels().device_name(device)
    words = name.lower().replace("-", " ").split()
    fitting = [known for known in accelerators() if set(known.replace("-sxm", "").split("-")) <= set(words)]
    if not fitting:
        raise CostModelError(
            f"no accelerator is called {shown(name)}; name its peaks with --accelerator (see `costmodel accelerators`)"
        )
    return as_accelerator(max(fitting, key=len))


def fitted_to(
    found: Measured, fitted: list[Point], accelerator: Accelerator, device: str, dtype: str, seed: int = 0
) -> Calibration:
    """The calibration of measured points: `fitted` ones are fitted, all others scored."""
    from costmodel.calibration.measure import statistic

    figures = {point: statistic(samples, device) for point, samples in found.seconds.items()}
    classes: dict[str, list[Point]] = {}
    for point in sorted(figures, key=lambda point: (point not in set(fitted), str(point))):
        classes.setdefault(point.kernel, []).append(point)
    on_cpu, peaks = device == "cpu", Peaks.of(accelerator, dtype)
    known = set(fitted)
    fits = [_fitted(name, classes[name], figures, known, peaks, on_cpu, dtype, seed) for name in CLASSES if name in classes]
    rounds = min(len(samples) for samples in found.seconds.values())
    machine = Machine(
        **found.machine,
        statistic="10th percentile of CPU time" if on_cpu else "median between events",
        rounds=rounds,
        canary_s=(_digits(min(found.canary_s)), _digits(max(found.canary_s))),
        noisy=found.noisy,
        date=datetime.now(UTC).date().isoformat(),
    )
    name = accelerator.name
    return Calibration(name=name, accelerator=accelerator.name, classes=tuple(fits), notes=_notes(machine), machine=machine)


def _notes(machine: Machine) -> tuple[str, ...]:
    ran = f"{machine.threads} thread of it" if machine.threads else "all of it"
    measured = f"measured on {machine.device}, {ran}, with torch {machine.torch}"
    if not machine.noisy:
        return (measured,)
    low, high = machine.canary_s
    return (
        measured,
        f"noisy: the same product took {low * 1e3:.2f} to {high * 1e3:.2f} ms; measure again on a quiet machine",
    )


def _fitted(
    name: str, points: list[Point], figures: Mapping[Point, float], fitted: set[Point], peaks: Peaks, on_cpu: bool, dtype: str,
    seed: int,
) -> CalibratedClass:  # fmt: skip
    kernel = kernel_class(name)
    sizes = [point.sizes() for point in points]
    shape = {size: np.array([each[size] for each in sizes]) for size in kernel.sizes}
    measured = Points(kernel, shape, np.array([figures[point] for point in points]), {})
    chosen = np.array([place for place, point in enumerate(points) if point in fitted])
    found = fit_rows(measured, peaks, chosen, kernel.on_cpu if on_cpu else ())
    kinds = ", ".join(dict.fromkeys(point.kind for point in points))
    return calibrated_class(found, dtype, seed, f"measured here: {kinds}", checks=True)


def _digits(value: float) -> float:
    return float(f"{value:.6g}")


class _Kept:
    """Samples on disk, a line each, from the first one on: what an interrupt does not lose."""

    def __init__(self, path: Path | None, header: Mapping[str, Any]) -> None:
        self.path, self.header, self.samples = path, dict(header), {}
        self._lines: Any = None
        self._empty = False

    samples: Samples

    @classmethod
    def of(cls, out: Path | None, header: Mapping[str, Any]) -> _Kept:
        """Beside the file that is to be written, or nowhere."""
        return cls(out.with_name(out.name + ".part") if out is not None else None, header)

    def __enter__(self) -> _Kept:
        if self.path is None:
            return self
        try:
            earlier = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
            if earlier:
                self._read(earlier)
            self._lines = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise CostModelError(f"{shown(str(self.path))} cannot be written: {error.strerror}") from None
        self._empty = not earlier
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines is not None and self.path is not None:
            self._lines.close()
            if self._empty:  # nothing was measured: nothing is left
                self.path.unlink(missing_ok=True)

    def add(self, point: Point, seconds: float) -> None:
        if self._lines is not None:
            if self._empty:
                self._write(self.header)
                self._empty = False
            self._write([point.kind, dict(point.shape), point.dtype, seconds])

    def _write(self, line: Any) -> None:
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()

    def forget(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self, lines: list[str]) -> None:
        where = f"{shown(str(self.path))} holds samples"
        try:
            header, *rows = [json.loads(line) for line in lines[:-1]] + _last(lines[-1])
            if header != self.header:
                raise CostModelError(f"{where} of another machine or other options; finish that run, or delete the file")
            for kind, shape, dtype, seconds in rows:
                self.samples.setdefault(Point(kind, tuple(shape.items()), dtype), []).append(float(seconds))
        except CostModelError:
            raise
        except (ValueError, TypeError, AttributeError):
            raise CostModelError(f"{where} that cannot be read; delete the file to begin anew") from None


def _last(line: str) -> list[Any]:
    """The line at which an interrupt may have come."""
    try:
        return [json.loads(line)]
    except ValueError:
        return []
