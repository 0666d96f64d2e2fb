"""The part of the page that tells what is wrong: each failure with its counterexample, then the advice."""

from __future__ import annotations

from collections.abc import Iterable

from continuum_conformance.history import Interleaving
from continuum_conformance.report.data import ClauseResult, Finding, Report, Step
from continuum_conformance.report.lanes import lanes
from continuum_conformance.report.markup import anchor, code, contract_text, href, prose, prose_lines
from continuum_conformance.report.summary import LABELS, Failure, failures, replay_command, unjudged
from continuum_conformance.report.text import plural
from continuum_conformance.report.timeline import timeline

__all__ = [
    "advice",
    "command",
    "expected",
    "failing",
    "failover",
    "finding_anchor",
    "links",
    "not_judged",
    "notes",
]

_OPEN = 8


def failing(report: Report) -> str:
    """The failures, those with one root together; the first ones unfolded."""
    found = failures(report)
    if not found:
        return ""
    articles = "".join(_article(failure, number < _OPEN) for number, failure in enumerate(found))
    return (
        f'<section id="failures" aria-labelledby="failures-title"><h2 id="failures-title">Failures '
        f'<span class="number">{plural(report.counts["failed"], "clause")}</span></h2>{articles}</section>'
    )


def finding_anchor(clause_id: str) -> str:
    """The name of the article of the failure that this clause leads."""
    return f"finding-{clause_id}"


def links(ids: Iterable[str]) -> str:
    """Links to clauses."""
    return " ".join(f'<a class="id" href="{href(name)}">{prose(name)}</a>' for name in ids)


def command(text: str, label: str) -> str:
    """A command line that can be copied."""
    return f'<div class="copyable command"><pre tabindex="0" aria-label="{prose(label)}"><code>{prose(text)}</code></pre></div>'


def _article(failure: Failure, unfolded: bool) -> str:
    entry, finding = failure.lead, failure.finding
    parts = [_rule(entry)]
    if finding and finding.interleaving is not None:
        parts.append(_race(finding, finding.interleaving, anchor(f"race-{entry.id}")))
    elif finding:
        parts.append(_sequence(finding))
    if finding:
        parts.append(_folded("The adapter's own error", finding.traceback))
        parts.append(_folded("Where it hung", finding.stack))
    if entry.advice:
        parts.append(f'<p class="callout"><strong>What to check.</strong> {contract_text(entry.advice)}</p>')
    if finding and (line := replay_command(finding)):
        note = f' <span class="tag">{prose(finding.replay_note)}</span>' if finding.replay_note else ""
        parts.append(f"<h4>See it again{note}</h4>{command(line, 'Command that replays the finding')}")
    also = f'<p class="also">also breaks {links(failure.also)}</p>' if failure.also else ""
    return (
        f'<article class="finding" id="{anchor(finding_anchor(entry.id))}"><details{" open" if unfolded else ""}><summary>'
        f'<span class="kicker"><span class="id">{prose(entry.id)}</span> <span class="level">{prose(entry.level)}</span> '
        f"{prose(entry.chapter_title)}</span><h3>{prose(entry.text or entry.rule)}</h3></summary>"
        f'<div class="body">{also}{"".join(parts)}</div></details></article>'
    )


def _sequence(finding: Finding) -> str:
    """One call after another: what was called, and the script that does it again."""
    drawing = f"<h4>What happened</h4>{timeline(finding.steps)}" if finding.steps else ""
    if not finding.counterexample.strip():
        return drawing
    return (
        f'{drawing}<h4>Counterexample</h4><div class="copyable">'
        '<pre tabindex="0" aria-label="Counterexample, a Python script">'
        f"<code>{code(finding.counterexample)}</code></pre></div>"
    )


def _race(finding: Finding, drawn: Interleaving, name: str) -> str:
    """Several workers at once: the drawing, what came before and afterwards, and all of it as text."""
    parts = [f"<h4>What happened</h4>{lanes(drawn, name)}"]
    before = [step for step in finding.steps if step.mark == "setup"]
    if before:
        parts.append(
            _details(f"How that situation was arranged, in {plural(len(before), 'call')}", timeline(before))
        )
    after = [call for call in drawn.calls if call.after]
    if after:
        steps = [
            Step(
                number,
                call.worker,
                call.text,
                call.outcome,
                mark="deciding" if call.mark == "deciding" else "",
            )
            for number, call in enumerate(after, 1)
        ]
        parts.append(_details(f"What was found afterwards, in {plural(len(after), 'call')}", timeline(steps)))
    if finding.counterexample.strip():
        text = _copyable("Counterexample, as text", prose_lines(finding.counterexample))
        parts.append(_details("The same as text, with the orders that were tried", text))
    if finding.isolation_spec:
        file = f"<p>{prose(finding.isolation_file)}</p>" if finding.isolation_file else ""
        spec = _copyable("Spec for PostgreSQL's isolation tester", prose_lines(finding.isolation_spec))
        parts.append(_details("The same as a spec for PostgreSQL's isolation tester", f"{file}{spec}"))
    return "".join(parts)


def _details(title: str, inside: str) -> str:
    return f'<details class="trace"><summary>{prose(title)}</summary>{inside}</details>'


def _copyable(label: str, text: str) -> str:
    return (
        f'<div class="copyable"><pre tabindex="0" aria-label="{prose(label)}"><code>{text}</code></pre></div>'
    )


def _rule(entry: ClauseResult) -> str:
    if not entry.rule:
        return ""
    return (
        f'<dl class="rule"><dt>Rule</dt><dd><a class="id" href="{href(entry.id)}">{prose(entry.id)}</a> {contract_text(entry.rule)}'
        f"</dd><dt>Why</dt><dd>{contract_text(entry.reason)}</dd></dl>"
    )


def _folded(title: str, text: str | None) -> str:
    if not text:
        return ""
    return _details(title, f'<pre tabindex="0"><code>{prose(text)}</code></pre>')


def advice(report: Report) -> str:
    """Each SHOULD that is not met, with what to look at."""
    items = "".join(
        f"<li>{links([entry.id])}<p>{prose(entry.text or entry.rule)}</p>"
        f'<p class="quiet">{contract_text(entry.advice)}</p></li>'
        for entry in report.standing("advice")
    )
    return _section("advice", "Advice", "a SHOULD that is not met is no failure", items)


def expected(report: Report) -> str:
    """The failures that were listed as expected, and the lines of that list that no longer hold."""
    items = "".join(
        f'<li>{links([entry.id])}<p>{prose(entry.text or entry.rule)}</p><p class="quiet">{prose(entry.expected or "")}</p></li>'
        for entry in report.standing("expected")
    )
    stale = "".join(
        f"<li>{links([entry.id])}<p>It passed: remove the line from the file.</p>"
        f'<p class="quiet">{prose(entry.expected or "")}</p></li>'
        for entry in report.clauses
        if entry.stale
    )
    return _section("expected", "Failed as expected", "listed, each with a reason", items) + _section(
        "stale", "Expected to fail, but passed", "stale lines", stale
    )


def not_judged(report: Report) -> str:
    """What was neither kept nor broken, with the reasons."""
    items = "".join(
        f'<li><span class="tag">{LABELS[group.standing]}</span><p>{links(group.ids)}</p>'
        f'<p class="quiet">{prose(group.reason)}</p></li>'
        for group in unjudged(report)
    )
    return _section("unjudged", "Not judged", "and why", items)


def notes(report: Report) -> str:
    """What else there is to know about the run."""
    items = "".join(f"<li><p>{prose(note)}</p></li>" for note in report.notes)
    return _section("notes", "Notes", "", items)


def failover(report: Report) -> str:
    """What the loss of a primary means, for an operator."""
    items = "".join(f"<li><p>{prose(told)}</p></li>" for told in report.failover)
    return _section("failover", "Failover", "a primary lost to its standby", items)


def _section(name: str, title: str, subtitle: str, items: str) -> str:
    if not items:
        return ""
    small = f' <span class="number">{subtitle}</span>' if subtitle else ""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}{small}</h2>'
        f'<ul class="list {name}">{items}</ul></section>'
    )
