"""Reports: what a run found, on the terminal, as JSON, as JUnit XML and as a page. This room judges nothing."""

from continuum_conformance.report.data import (
    STANDINGS,
    ClauseResult,
    ClauseVerdict,
    Finding,
    Mark,
    Report,
    ReportVerdict,
    Standing,
    Step,
)
from continuum_conformance.report.junit import to_junit, write_junit
from continuum_conformance.report.page import to_html, write_html
from continuum_conformance.report.stored import from_json, read_json, to_json, write_json
from continuum_conformance.report.summary import Failure, failures, verdict_line
from continuum_conformance.report.terminal import Terminal

__all__ = [
    "STANDINGS",
    "ClauseResult",
    "ClauseVerdict",
    "Failure",
    "Finding",
    "Mark",
    "Report",
    "ReportVerdict",
    "Standing",
    "Step",
    "Terminal",
    "failures",
    "from_json",
    "read_json",
    "to_html",
    "to_json",
    "to_junit",
    "verdict_line",
    "write_html",
    "write_json",
    "write_junit",
]
