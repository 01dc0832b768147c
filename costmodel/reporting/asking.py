"""What a command line asks a report about: models, a link of the dashboard, or a calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from costmodel.calibration.store import read_calibration
from costmodel.catalog import calibration_file, load, presets
from costmodel.errors import CostModelError, shown
from costmodel.reporting.contents import Report
from costmodel.reporting.writing import made
from costmodel.scenario import Scenario
from costmodel.units import parse_tokens

MOST_CHARACTERS = 20_000
"""Of a link."""


@dataclass(frozen=True)
class Asked:
    """The words of a command line."""

    models: tuple[str, ...]
    context: str = "128k"
    batch: int = 1
    precision: str = "bf16"
    cache_precision: str = "bf16"
    view: str = "theory"
    on: str = "h200"
    devices: int = 16
    units: str = "GiB"
    link: str = ""
    calibration: str = ""

    @property
    def every(self) -> bool:
        """Whether it asks for a report of each preset."""
        if "all" in self.models and self.models != ("all",):
            raise CostModelError("`all` stands alone: it is every preset")
        return self.models == ("all",) and not self.link and not self.calibration

    @property
    def names(self) -> tuple[str, ...]:
        """All presets."""
        return tuple(presets())

    @property
    def choices(self) -> dict[str, Any]:
        """What `report` is told beside the models."""
        return {
            "context": parse_tokens(self.context), "batch": self.batch, "precision": self.precision,
            "cache_precision": self.cache_precision, "view": self.view, "accelerator": self.on, "devices": self.devices,
            "units": self.units,
        }  # fmt: skip

    def report(self) -> Report:
        """The report. Raises CostModelError where nothing, or more than one thing, is asked about."""
        if sum(map(bool, (self.models, self.link, self.calibration))) != 1:
            raise CostModelError("a report is about models, a --link or a --calibration; give one of them")
        if self.calibration:
            return made(read_calibration(calibration_file(self.calibration)))
        if self.link:
            return made(scenario_of(self.link))
        models = [load(name) for name in self.models]
        return made(models[0] if len(models) == 1 else models, **self.choices)


def scenario_of(link: str) -> Scenario:
    """The scenario of a dashboard's link; its `model`, where it names one, alone.

    Raises CostModelError for a link that is not understood: what it says is not guessed.

    >>> scenario_of("report?v=3&models=gpt2&context=1k").context
    1024
    """
    _, question, query = link.partition("?")
    if not question or len(link) > MOST_CHARACTERS:
        raise CostModelError(f"{shown(link)} is no link of the dashboard; copy one from Share")
    try:
        found, notices = Scenario.of(parse_qs(query, keep_blank_values=True, max_num_fields=1_000))
    except ValueError:
        raise CostModelError(f"{shown(link)} is no link of the dashboard; copy one from Share") from None
    if notices:
        raise CostModelError(f"the link is not understood: {notices[0]}")
    if found.edit:
        raise CostModelError("the link changes a model under What-if; save that model as a file, and report on the file")
    return found.model_copy(update={"models": (found.model,)}) if found.model else found
