"""The report as JUnit XML, which every CI server reads: a suite for each chapter, a case for each clause.

A failure that was expected, and a clause that was not judged, is *skipped* with its reason; one that could not
be finished is an *error*, since it is no pass. Advice passes, and is told in the case's output.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from continuum_conformance.report.data import ClauseResult, Report, Standing
from continuum_conformance.report.summary import LABELS, by_chapter, replay_command
from continuum_conformance.report.text import one_line, printable

__all__ = ["to_junit", "write_junit"]

_SKIPPED: tuple[Standing, ...] = ("skipped", "unsupported", "not_applicable", "not_run", "expected")


def write_junit(report: Report, file: str | Path) -> None:
    """Write the report as JUnit XML into this file (UTF-8)."""
    Path(file).write_text(to_junit(report), encoding="utf-8", newline="\n")


def to_junit(report: Report) -> str:
    """The report as the text of a JUnit XML document."""
    root = ElementTree.Element(
        "testsuites", {"name": f"continuum-conformance {one_line(report.target)}", **_figures(report.clauses)}
    )
    root.set("time", f"{report.seconds:.3f}")
    root.set("timestamp", report.started.isoformat(timespec="seconds"))
    for key, title, entries in by_chapter(report):
        suite = ElementTree.SubElement(root, "testsuite", {"name": one_line(f"{key} {title}")})
        for name, value in _figures(entries).items():
            suite.set(name, value)
        suite.set("timestamp", report.started.isoformat(timespec="seconds"))
        _properties(suite, report)
        for entry in entries:
            suite.append(_case(entry))
    ElementTree.indent(root)
    return "<?xml version='1.0' encoding='utf-8'?>\n" + ElementTree.tostring(root, encoding="unicode") + "\n"


def _figures(entries: Iterable[ClauseResult]) -> dict[str, str]:
    entries = list(entries)
    standings = [entry.standing for entry in entries]
    return {
        "tests": str(len(entries)),
        "failures": str(standings.count("failed")),
        "errors": str(standings.count("inconclusive")),
        "skipped": str(sum(standings.count(standing) for standing in _SKIPPED)),
        "time": f"{sum(entry.seconds for entry in entries):.3f}",
    }


def _properties(suite: ElementTree.Element, report: Report) -> None:
    values = {
        "target": report.target,
        "adapter": report.adapter,
        "contract": report.contract_version,
        "profile": report.profile,
        "seed": str(report.seed),
        "verdict": report.verdict,
        "withdrawn": ", ".join(report.withdrawn),
    }
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in values.items():
        if value:
            ElementTree.SubElement(properties, "property", {"name": name, "value": one_line(value)})


def _case(entry: ClauseResult) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase",
        {
            "classname": f"continuum_conformance.{one_line(entry.chapter)}",
            "name": one_line(entry.id),
            "time": f"{entry.seconds:.3f}",
        },
    )
    if entry.standing == "failed":
        failure = ElementTree.SubElement(case, "failure", {"type": one_line(entry.level)})
        failure.set("message", one_line(entry.text or f"{entry.id} does not hold"))
        failure.text = printable(_story(entry))
    elif entry.standing == "inconclusive":
        error = ElementTree.SubElement(case, "error", {"type": "inconclusive"})
        error.set("message", one_line(entry.text or "the plan could not be finished"))
    elif entry.standing in _SKIPPED:
        why = entry.expected if entry.standing == "expected" else entry.message
        label = LABELS[entry.standing]
        ElementTree.SubElement(case, "skipped", {"message": one_line(f"{label}: {why}" if why else label)})
    elif entry.standing == "advice":
        ElementTree.SubElement(case, "system-out").text = printable(_story(entry))
    return case


def _story(entry: ClauseResult) -> str:
    parts = [entry.text, f"{entry.level} {entry.id}: {entry.rule}"]
    if entry.finding:
        parts.append(entry.finding.counterexample)
        parts.append(entry.finding.traceback or "")
        parts.append(entry.finding.stack or "")
    parts.append(f"Advice: {entry.advice}" if entry.advice else "")
    if entry.finding:
        parts.append(replay_command(entry.finding) or "")
    return "\n\n".join(part.strip("\n") for part in parts if part.strip())
