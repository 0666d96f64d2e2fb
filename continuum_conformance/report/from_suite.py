"""From what the suite found to what is reported: judgements become clause results, violations findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from continuum_conformance.harness import Subject
from continuum_conformance.report.data import ClauseResult, ClauseVerdict, Finding, Mark, Step
from continuum_conformance.suite.check import Judgement
from continuum_conformance.suite.script import call_text, outcome_text, script
from continuum_conformance.suite.violation import Violation

__all__ = ["clause_results", "finding_of"]


def clause_results(
    judgements: Iterable[Judgement],
    subject: Subject,
    replays: Mapping[str, Path] | None = None,
    specs: Mapping[str, tuple[str, Path]] | None = None,
) -> list[ClauseResult]:
    """The judgements as the report tells them.

    Args:
        judgements: in the contract's order.
        subject: the adapter, for the scripts.
        replays: the replay file of each clause that has one.
        specs: the spec for PostgreSQL's isolation tester of each clause that has one, with its file.
    """
    files, written = replays or {}, specs or {}
    return [
        _clause_result(judgement, subject, files.get(judgement.clause.id), written.get(judgement.clause.id))
        for judgement in judgements
    ]


def _clause_result(
    judgement: Judgement, subject: Subject, replay: Path | None, spec: tuple[str, Path] | None
) -> ClauseResult:
    clause, violation = judgement.clause, judgement.violation
    finding = finding_of(violation, subject, judgement.exact, replay) if violation is not None else None
    if finding is not None and spec is not None:
        finding = replace(finding, isolation_spec=spec[0], isolation_file=str(spec[1]))
    return ClauseResult(
        id=clause.id,
        level=clause.level,
        chapter=clause.chapter,
        verdict=cast("ClauseVerdict", judgement.verdict),
        expected=judgement.expected,
        seconds=judgement.seconds,
        message=judgement.message or None,
        finding=finding,
    )


def finding_of(
    violation: Violation, subject: Subject, exact: bool = True, replay: Path | None = None
) -> Finding:
    """A violation with its script and its steps as text.

    Args:
        violation: what the suite found.
        subject: the adapter on which it was found.
        exact: whether it came back each time it was tried again.
        replay: the file that it was saved to.
    """
    return Finding(
        clauses=violation.clauses,
        message=violation.message,
        counterexample=script(violation, subject) if violation.steps else "",
        steps=tuple(_steps(violation)),
        replay=str(replay) if replay is not None else None,
        replay_note="replays exactly" if exact else "seen once",
        traceback=violation.detail or None if not violation.hang else None,
        stack=violation.detail or None if violation.hang else None,
        interleaving=violation.interleaving,
    )


def _steps(violation: Violation) -> Iterable[Step]:
    deciding = [number for number, step in enumerate(violation.steps, 1) if step.due] or [
        len(violation.steps)
    ]
    for number, step in enumerate(violation.steps, 1):
        mark: Mark = "deciding" if number in deciding else "setup" if step.setup else ""
        yield Step(
            number,
            step.operation.worker,
            call_text(step, violation.salt),
            outcome_text(step.outcome, violation.salt),
            step.due or None,
            mark,
        )
