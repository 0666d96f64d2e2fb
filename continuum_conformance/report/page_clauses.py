"""The part of the page that lists every clause of the contract, by chapter, with what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from continuum_conformance.contract.clauses import CLAUSES
from continuum_conformance.report.data import ClauseResult, Report, Standing
from continuum_conformance.report.markup import anchor, contract_text, href, prose
from continuum_conformance.report.page_findings import finding_anchor
from continuum_conformance.report.summary import LABELS, by_chapter, failures
from continuum_conformance.report.text import duration

__all__ = ["chapters", "mark"]

_CELL, _GAP = 12, 3

_MARKS: Mapping[Standing, str] = {
    "passed": '<path d="M3.5 8.5l3 3 6-7"/>',
    "failed": '<path d="M4 4l8 8M12 4l-8 8"/>',
    "expected": '<path d="M4 4l8 8M12 4l-8 8" stroke-dasharray="2.2 1.6"/>',
    "inconclusive": '<path d="M5.5 6a2.5 2.5 0 1 1 3.6 2.2c-.8.4-1.1.8-1.1 1.6M8 12.4v.2"/>',
    "skipped": '<path d="M4 4l4 4-4 4M9 4l4 4-4 4"/>',
    "not_run": '<circle cx="8" cy="8" r="4.6"/>',
    "advice": '<path d="M8 3.2v6M8 12v.4"/>',
    "unsupported": '<path d="M4 8h8"/>',
    "not_applicable": '<path d="M5 12.5l6-9"/>',
}


def mark(standing: Standing) -> str:
    """The sign of a standing, as inline SVG."""
    return f'<svg class="mark {standing}" viewBox="0 0 16 16" aria-hidden="true">{_MARKS[standing]}</svg>'


def chapters(report: Report) -> str:
    """Every clause, folded into its chapter; what needs a look is unfolded."""
    told = {
        entry: failure.lead.id for failure in failures(report) for entry in (failure.lead.id, *failure.also)
    }
    body = "".join(_chapter(key, title, entries, told) for key, title, entries in by_chapter(report))
    return (
        '<section id="clauses" aria-labelledby="clauses-title"><h2 id="clauses-title">Clauses '
        f'<span class="number">contract {prose(report.contract_version)}</span></h2>{_filters(report)}'
        f'<div class="chapters">{body}</div><p class="nothing" hidden>No clause stands there.</p></section>'
    )


def _filters(report: Report) -> str:
    """Buttons for the script to wire up; without a script they stay hidden."""
    counts = report.counts
    buttons = (
        f'<button type="button" data-filter="" aria-pressed="true">all <b>{len(report.clauses)}</b></button>'
    )
    buttons += "".join(
        f'<button type="button" data-filter="{standing}" aria-pressed="false">{mark(standing)}{LABELS[standing]} '
        f"<b>{counts[standing]}</b></button>"
        for standing in LABELS
        if counts[standing]
    )
    return (
        f'<div class="filters" role="group" aria-label="Show clauses that" hidden>{buttons}'
        '<button type="button" class="unfold" aria-pressed="false">unfold all</button></div>'
    )


def _chapter(key: str, title: str, entries: Sequence[ClauseResult], told: Mapping[str, str]) -> str:
    passed = sum(entry.standing == "passed" for entry in entries)
    counting = sum(entry.standing not in ("unsupported", "not_applicable") for entry in entries)
    figures = f"{passed}/{counting}" if counting else "–"
    needs_a_look = any(entry.standing in ("failed", "inconclusive") for entry in entries)
    rows = "".join(_clause(entry, told.get(entry.id)) for entry in entries)
    return (
        f'<details class="chapter" id="{anchor(f"chapter-{key}")}"{" open" if needs_a_look else ""}><summary>'
        f'<span class="key">{prose(key)}</span><span class="title">{prose(title)}</span>'
        f'<span class="figures" title="passed of those that count">{figures}</span>{_strip(entries)}</summary>'
        f"<div>{rows}</div></details>"
    )


def _strip(entries: Sequence[ClauseResult]) -> str:
    cells = []
    for number, entry in enumerate(entries):
        label = f"{entry.id}: {LABELS[entry.standing]}"
        inset = 0 if entry.standing in ("passed", "failed", "inconclusive") else 1
        size = _CELL - 2 * inset
        x = number * (_CELL + _GAP) + inset
        cross = f'<path d="M{x + 3} 3l6 6m0-6l-6 6"/>' if entry.standing == "failed" else ""
        cells.append(
            f'<g class="cell {entry.standing}"><title>{prose(label)}</title>'
            f'<rect x="{x}" y="{inset}" width="{size}" height="{size}" rx="3"/>{cross}</g>'
        )
    width = len(entries) * (_CELL + _GAP)
    summary = ", ".join(
        f"{sum(entry.standing == standing for entry in entries)} {LABELS[standing]}"
        for standing in LABELS
        if any(entry.standing == standing for entry in entries)
    )
    return (
        f'<svg class="strip" width="{width}" height="{_CELL}" viewBox="0 0 {width} {_CELL}" role="img" '
        f'aria-label="{prose(summary)}">{"".join(cells)}</svg>'
    )


def _clause(entry: ClauseResult, told_under: str | None) -> str:
    standing = entry.standing
    rows = [("Rule", contract_text(entry.rule)), ("Why", contract_text(entry.reason))]
    if standing in ("failed", "expected", "advice"):
        rows.append(("Check", contract_text(entry.advice)))
    if note := CLAUSES[entry.id].note if entry.id in CLAUSES else "":
        rows.append(("Note", contract_text(note)))
    if entry.text:
        rows.append(
            ("Found" if standing in ("failed", "expected", "advice") else "Because", prose(entry.text))
        )
    if entry.expected:
        rows.append(("Expected", prose(entry.expected)))
    if told_under and standing == "failed":
        rows.append(("Proof", f'<a href="{href(finding_anchor(told_under))}">the counterexample</a>'))
    if entry.seconds:
        rows.append(("Took", duration(entry.seconds)))
    listed = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows if text)
    return (
        f'<details class="clause {standing}" id="{anchor(entry.id)}" data-standing="{standing}"><summary>{mark(standing)}'
        f'<span class="id">{prose(entry.id)}</span><span class="gist">{prose(entry.rule or entry.text)}</span>'
        f'<span class="standing">{"SHOULD " if entry.level == "SHOULD" else ""}'
        f'<span class="{"unseen" if standing == "passed" else ""}">{LABELS[standing]}</span></span></summary>'
        f'<dl class="rule">{listed}</dl></details>'
    )
