"""Reports in every format: what is asked about becomes a Report, a Report a text, a document, or a folder of all."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

from costmodel.architecture import Architecture
from costmodel.calibration.store import Calibration
from costmodel.catalog import Source, as_architecture, as_architectures
from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.files import write_bytes, write_folder
from costmodel.planning.plans import Plan
from costmodel.reporting.contents import Report
from costmodel.reporting.grounds import CHOSEN, TRAFFIC
from costmodel.reporting.markdown import as_linked_text, as_text, figure_path
from costmodel.reporting.models import comparison_report, model_report
from costmodel.reporting.page import as_page
from costmodel.reporting.svg import as_svg
from costmodel.scenario import Scenario
from costmodel.tables import as_csv, as_json
from costmodel.units import whole

FORMATS = ("html", "md", "pdf", "xlsx", "csv", "json", "folder")
MEDIA = {
    "md": ("Markdown", "text/markdown"),
    "html": ("HTML, with live sliders", "text/html"),
    "csv": ("CSV", "text/csv"),
    "json": ("JSON", "application/json"),
}
"""The formats that are text: each one's name for people and its media type."""
DOCUMENTS = MEDIA | {
    "xlsx": ("Spreadsheet (XLSX), with live cells", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    "pdf": ("PDF", "application/pdf"),
    "zip": ("Folder with all of them (ZIP)", "application/zip"),
}
"""All formats that are one file."""


NEEDS = {"xlsx": ("xlsxwriter",), "pdf": ("typst",), "zip": ("xlsxwriter", "typst")}
"""What formats need beside costmodel itself: the extra `report`."""


def documents() -> dict[str, tuple[str, str]]:
    """The formats of `DOCUMENTS` that can be written here."""
    return {form: told for form, told in DOCUMENTS.items() if all(map(find_spec, NEEDS.get(form, ())))}


def report(
    model: Source | Sequence[Source] | Plan | Calibration | Scenario,
    format: str = "md",
    path: str | PathLike[str] | None = None,
    context: int = 131_072,
    batch: int = 1,
    *,
    pdf: bool = True,
    **choices: Any,
) -> Any:
    """A report of a model, of several side by side, of a plan or of a calibration, in one of seven formats.

    `md` Markdown with SVG figures, `html` one offline page with live sliders, `json` and `csv` exact in base units: a text.
    `xlsx` a workbook with live cells, `pdf`: bytes (both need the extra `report`). `folder`: all of them, the figures and the
    architecture's file, written to `path` (without PDF, which takes most of the time, where `pdf` is False); the names of its
    files come back.

    Everything else is written to `path` where one is given, whole or not at all. `choices` are what a dashboard's scenario
    has: precision, cache_precision, view, accelerator, devices, units, and the traffic behind the price (requests_per_s, prompt,
    output, ttft_s, tpot_s, usd_per_hour, objective). Equal input gives equal bytes; documents bear the day of SOURCE_DATE_EPOCH,
    or of the model's release.

    Raises CostModelError for what is unknown or impossible, a missing extra, or a path that cannot be written.

    >>> report("deepseek-v3").splitlines()[0]
    '# DeepSeek-V3'
    >>> report(["deepseek-v3", "kimi-k2"], "csv").splitlines()[0].split(",")[:3]
    ['table', 'quantity', 'deepseek-v3']
    """
    check_format(format)
    _check_path(path)
    return written(made(model, context, batch, **choices), format, path, pdf=pdf)


def made(subject: Any, context: int = 131_072, batch: int = 1, **choices: Any) -> Report:
    """The Report of whatever one is written about."""
    if isinstance(subject, Scenario):
        return scenario_report([as_architecture(name) for name in subject.models], subject)
    if isinstance(subject, (Plan, Calibration)):
        if choices or (context, batch) != (131_072, 1):
            named = next(iter(choices), "context" if context != 131_072 else "batch")
            raise CostModelError(
                f"the report of a {type(subject).__name__.lower()} takes no {named}; it says what it was made with"
            )
        from costmodel.reporting.outcomes import calibration_report, plan_report

        return plan_report(subject) if isinstance(subject, Plan) else calibration_report(subject)
    models = as_architectures(subject, "report") if isinstance(subject, (list, tuple)) else [as_architecture(subject)]
    return scenario_report(models, _scenario(context, batch, choices))


def scenario_report(models: Sequence[Architecture], scenario: Scenario) -> Report:
    """The report of the models of a scenario: of one, or side by side."""
    if not models:
        raise CostModelError("report got no model; give one or more, such as 'deepseek-v3'")
    return model_report(models[0], scenario) if len(models) == 1 else comparison_report(models, scenario)


def _scenario(context: int, batch: int, choices: dict[str, Any]) -> Scenario:
    fields = CHOSEN | {name: name for name in TRAFFIC}
    unknown = next((name for name in choices if name not in fields), None)
    if unknown is not None:
        raise CostModelError(f"report takes no {shown(unknown)}; {did_you_mean(unknown, fields)}")
    told = {fields[name]: value for name, value in choices.items()}
    told |= {
        name: float(told[name])
        for name in told
        if name in TRAFFIC and isinstance(told[name], int) and name not in ("prompt", "output")
    }
    return Scenario(context=whole("context", context), batch=whole("batch", batch), **told)


def check_format(form: object) -> None:
    """Raises CostModelError for what is no format, or needs a package that is not installed."""
    if not isinstance(form, str) or form not in FORMATS:
        raise CostModelError(f"no report format {shown(form)}; {did_you_mean(form, FORMATS)}")
    for package in NEEDS.get(form, ()):
        if find_spec(package) is None:
            raise CostModelError(f"{form} needs {package}, which is not installed; run: pip install 'costmodel[report]'")


def _check_path(path: object) -> None:
    if path is not None and not isinstance(path, (str, PathLike)):
        raise CostModelError(f"report got {shown(path)} as its path; give a file's path, or leave it out")


def written(found: Report, form: str, path: str | PathLike[str] | None = None, *, pdf: bool = True) -> Any:
    """A report in a format: a text or bytes, also written where a path is given; a folder's file names."""
    check_format(form)
    _check_path(path)
    where = None if path is None else Path(os.fsdecode(path))
    if form == "folder":
        if where is None:
            raise CostModelError("a folder needs a place; give its path")
        files = folder_files(found, pdf=pdf)
        write_folder(where, files)
        return tuple(files)
    content = WRITERS[form](found)
    if where is not None:
        write_bytes(where, content if isinstance(content, bytes) else content.encode())
    return content


def folder_files(found: Report, *, pdf: bool = True) -> dict[str, bytes]:
    """All formats of a report, its figures and its architecture's file, by their paths within a folder."""
    texts = {f"report.{form}": WRITERS[form](found) for form in ("html", "xlsx", *(["pdf"] if pdf else []), "csv", "json")}
    texts["report.md"] = as_linked_text(found)
    texts |= {figure_path(chart): as_svg(chart.figure, chart.words) for chart in found.charts} | dict(found.files)
    return {name: text if isinstance(text, bytes) else text.encode() for name, text in texts.items()}


def as_zip(found: Report) -> bytes:
    """The folder of a report as one file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in folder_files(found).items():
            day = max(found.day.timetuple()[:3], (1980, 1, 1))
            archive.writestr(zipfile.ZipInfo(f"{found.name}/{name}", (*day, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _as_xlsx(found: Report) -> bytes:
    from costmodel.reporting.workbook import as_xlsx

    return as_xlsx(found)


def _as_pdf(found: Report) -> bytes:
    from costmodel.reporting.document import as_pdf

    return as_pdf(found)


WRITERS: dict[str, Callable[[Report], Any]] = {
    "md": as_text,
    "html": as_page,
    "json": lambda found: as_json(found.data),
    "csv": lambda found: as_csv(found.told),
    "xlsx": _as_xlsx,
    "pdf": _as_pdf,
    "zip": as_zip,
}


def scenario_file(form: str, models: Sequence[Architecture], scenario: Scenario) -> str:
    """The models of a scenario side by side, as a text of a format of `MEDIA`.

    >>> import costmodel as cm
    >>> scenario_file("csv", [cm.load("gpt2")], Scenario(context=1024)).splitlines()[1].split(",")[:3]
    ['compare', 'params_total', '124439808']
    """
    if form not in MEDIA:
        raise CostModelError(f"no format {shown(form)}; {did_you_mean(form, MEDIA)}")
    return WRITERS[form](comparison_report(models, scenario))  # type: ignore[no-any-return]  # the formats of MEDIA are texts
