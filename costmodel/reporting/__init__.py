"""Reports: one Report object, built once, and a writer for each format."""

from costmodel.reporting.contents import Assumption, Chart, Report
from costmodel.reporting.models import report_data
from costmodel.reporting.rows import CONTEXTS, published_table
from costmodel.reporting.writing import DOCUMENTS, FORMATS, MEDIA, WRITERS, documents, report, scenario_file, scenario_report

__all__ = [
    "CONTEXTS",
    "DOCUMENTS",
    "FORMATS",
    "MEDIA",
    "WRITERS",
    "Assumption",
    "Chart",
    "Report",
    "documents",
    "published_table",
    "report",
    "report_data",
    "scenario_file",
    "scenario_report",
]
