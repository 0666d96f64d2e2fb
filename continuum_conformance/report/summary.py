"""What every form of the report says in the same words: the verdict line, and failures with one root together."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from continuum_conformance.contract.clauses import CHAPTERS, CLAUSES
from continuum_conformance.report.data import ClauseResult, Finding, Report, Standing
from continuum_conformance.report.text import duration, one_line, plural

__all__ = [
    "LABELS",
    "UNJUDGED",
    "Failure",
    "Unjudged",
    "by_chapter",
    "failures",
    "in_order",
    "never",
    "replay_command",
    "short_ids",
    "tally",
    "tried",
    "unjudged",
    "verdict_line",
]

LABELS: dict[Standing, str] = {
    "passed": "passed",
    "failed": "failed",
    "expected": "failed as expected",
    "inconclusive": "inconclusive",
    "skipped": "skipped",
    "not_run": "not run",
    "advice": "advice",
    "unsupported": "unsupported",
    "not_applicable": "not applicable",
}
"""Every standing in words, what matters most first (after ``passed``)."""

UNJUDGED: tuple[Standing, ...] = ("inconclusive", "not_run", "skipped", "not_applicable", "unsupported")
"""The standings of clauses that were neither kept nor broken, each with its reason."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Failed clauses that one counterexample breaks, told once under the first of them."""

    lead: ClauseResult
    also: tuple[str, ...]
    """The ids of the other clauses, in the contract's order."""

    @property
    def finding(self) -> Finding | None:
        """The proof, if there is one."""
        return self.lead.finding


def failures(report: Report) -> list[Failure]:
    """The failed clauses that were not expected to fail, those with an identical counterexample together.

    Without a counterexample the same message groups: one broken pool must not be told sixty times.
    """
    groups: dict[tuple[str, str], list[ClauseResult]] = {}
    for entry in report.standing("failed"):
        groups.setdefault(_root(entry), []).append(entry)
    found = []
    for members in groups.values():
        lead = next((entry for entry in members if _leads(entry)), members[0])
        named = {entry.id for entry in members}
        named.update(*(entry.finding.clauses for entry in members if entry.finding))
        found.append(Failure(lead, tuple(in_order(named - {lead.id}))))
    return found


def _root(entry: ClauseResult) -> tuple[str, str]:
    if entry.finding and entry.finding.counterexample.strip():
        return "counterexample", entry.finding.counterexample
    return ("message", entry.text) if entry.text else ("clause", entry.id)


def _leads(entry: ClauseResult) -> bool:
    """Whether the finding names this clause first: it is the one that the counterexample is about."""
    return entry.finding is not None and entry.finding.clauses[:1] == (entry.id,)


def in_order(ids: Iterable[str]) -> list[str]:
    """Clause ids in the contract's order; unknown ones last."""
    place = {clause_id: number for number, clause_id in enumerate(CLAUSES)}
    return sorted(ids, key=lambda clause_id: (place.get(clause_id, len(place)), clause_id))


def by_chapter(report: Report) -> Iterator[tuple[str, str, list[ClauseResult]]]:
    """Key, title and clauses of each chapter that the report speaks of, in the contract's order."""
    chapters: dict[str, list[ClauseResult]] = {key: [] for key in CHAPTERS}
    for entry in report.clauses:
        chapters.setdefault(entry.chapter, []).append(entry)
    for key, entries in chapters.items():
        if entries:
            yield key, CHAPTERS.get(key, key), entries


@dataclass(frozen=True, slots=True)
class Unjudged:
    """Clauses that were not judged for one and the same reason."""

    standing: Standing
    reason: str
    ids: tuple[str, ...]


def unjudged(report: Report) -> list[Unjudged]:
    """What was neither kept nor broken, grouped by standing and reason; what stands against a pass first."""
    groups: dict[tuple[Standing, str], list[str]] = {}
    for standing in UNJUDGED:
        for entry in report.standing(standing):
            groups.setdefault((standing, entry.message or ""), []).append(entry.id)
    return [Unjudged(standing, reason, tuple(ids)) for (standing, reason), ids in groups.items()]


def short_ids(ids: Iterable[str], report: Report | None = None) -> str:
    """The ids as prose; with the report, a chapter that is there as a whole is named once (``DUR (all 5)``)."""
    left = list(ids)
    parts: list[str] = []
    for key, _, entries in by_chapter(report) if report else ():
        members = [entry.id for entry in entries]
        chosen = [clause_id for clause_id in members if clause_id in left]
        parts.extend([f"{key} (all {len(members)})"] if len(chosen) == len(members) > 2 else chosen)
        left = [clause_id for clause_id in left if clause_id not in chosen]
    return one_line(", ".join(parts + left))


def tally(report: Report) -> str:
    """The counts in words: ``74 clauses passed, 3 unsupported``; failures first."""
    counts = report.counts
    order = [standing for standing in LABELS if counts[standing]]
    if counts["failed"]:
        order = ["failed", *(standing for standing in order if standing != "failed")]
    parts = [f"{counts[standing]:,} {LABELS[standing]}" for standing in order]
    if not parts:
        return "no clause was judged"
    first = order[0]
    parts[0] = f"{plural(counts[first], 'clause')} {LABELS[first]}"
    return ", ".join(parts)


def tried(report: Report) -> str:
    """The plain numbers of the coverage in words: ``4,218 examples, 61,903 operations``."""
    return ", ".join(
        f"{value:,} {name}"
        for name, value in report.coverage.items()
        if isinstance(value, int) and not isinstance(value, bool)
    )


def raced(report: Report) -> str:
    """How much the races explored: ``279 scenarios at instructions, 4,310 interleavings; 279 explored in full``."""
    races = report.coverage.get("races")
    if not isinstance(races, Mapping):
        return ""
    counts = {name: value for name, value in races.items() if isinstance(value, int)}
    parts = [f"{counts.pop('scenarios', 0):,} scenarios at the level of {races.get('level') or 'threads'}"]
    parts += [f"{value:,} {name}" for name, value in counts.items() if name == "interleavings"]
    rest = [f"{value:,} {name}" for name, value in counts.items() if name != "interleavings"]
    return ", ".join(parts) + (f"; {', '.join(rest)}" if rest else "")


LOST = ("ATM", "DUR", "CLK")
"""The chapters whose clauses a fault breaks."""


def struck(report: Report) -> str:
    """What was cut, killed and stopped: ``141 connections cut, 8 servers killed; nothing was lost``."""
    faults = report.coverage.get("faults")
    if not isinstance(faults, Mapping) or not faults:
        return ""
    counts = ", ".join(f"{value:,} {name}" for name, value in faults.items())
    broken = any(one.verdict == "failed" and one.id.split("-")[0] in LOST for one in report.clauses)
    if broken:
        return counts
    return f"{counts}; nothing was lost" + (", but by asynchronous replication" if report.failover else "")


def never(report: Report) -> str:
    """What the run should have met at times and never did: a pass that rests on it would be vacuous."""
    groups = [group for group in report.coverage.values() if isinstance(group, Mapping)]
    return ", ".join(str(label) for group in groups for label, times in group.items() if _is_zero(times))


def _is_zero(times: object) -> bool:
    return isinstance(times, int) and not isinstance(times, bool) and times == 0


def verdict_line(report: Report) -> str:
    """The run in one line: ``conforming: 74 clauses passed, 3 unsupported, in 12.3 s (contract 0.1, …)``."""
    without = f" without {', '.join(report.withdrawn)}" if report.withdrawn else ""
    return (
        f"{report.verdict}{without}: {tally(report)}, in {duration(report.seconds)} "
        f"(contract {report.contract_version}, profile {report.profile}, seed {report.seed})"
    )


def replay_command(finding: Finding) -> str | None:
    """The command that shows the finding again, if there is a file for it."""
    return f"continuum-conformance replay {shlex.quote(finding.replay)}" if finding.replay else None
