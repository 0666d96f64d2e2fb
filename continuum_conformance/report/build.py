"""From the suite's judgements to a report: the one place that knows both."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import datetime
from typing import cast

from continuum_conformance import __version__
from continuum_conformance.contract.clauses import CONTRACT_VERSION
from continuum_conformance.report.data import (
    ClauseResult,
    ClauseVerdict,
    Finding,
    Report,
    ReportVerdict,
    Step,
)
from continuum_conformance.suite.check import Judgement, Plan, verdict
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.script import call_text, outcome_text, script
from continuum_conformance.suite.violation import Violation

__all__ = ["build_report", "finding_of"]

COUNTED = ("examples", "operations")


def finding_of(violation: Violation, session: Session, *, exact: bool, replay: str | None = None) -> Finding:
    """A violation as the report shows it."""
    steps = tuple(
        Step(
            number,
            {"P": "process"}.get(step.operation.worker, step.operation.worker),
            call_text(step, violation.salt),
            outcome_text(step.outcome, violation.salt),
            step.due or None,
            "deciding" if step.due else "setup" if step.setup else "",
        )
        for number, step in enumerate(violation.steps, 1)
    )
    note = "replays exactly" if exact else "seen once"
    if violation.hang:
        note = "not tried again: each try waits for the time limit"
    return Finding(
        violation.clauses,
        violation.message,
        script(violation, session.subject) if violation.steps else "",
        steps,
        replay,
        note if violation.steps else "",
        violation.detail if violation.detail and not violation.hang else None,
        violation.detail if violation.hang else None,
    )


def build_report(
    session: Session,
    plan: Plan,
    judgements: list[Judgement],
    *,
    target: str,
    started: datetime,
    seconds: float,
    replays: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    notes: list[str] | None = None,
) -> Report:
    """The report of a check.

    Args:
        session: the adapter that was checked.
        plan: what was tried.
        judgements: one for each clause.
        target: as the user named it.
        started: aware.
        seconds: how long it took in all.
        replays: replay files by clause.
        environment: further lines beside Python and platform, such as the store and the command.
        notes: remarks that are no verdicts.
    """
    results = [
        ClauseResult(
            judgement.clause.id,
            judgement.clause.level,
            judgement.clause.chapter,
            cast(ClauseVerdict, judgement.verdict),
            judgement.expected,
            judgement.seconds,
            judgement.message or None,
            finding_of(
                judgement.violation,
                session,
                exact=judgement.exact,
                replay=(replays or {}).get(judgement.clause.id),
            )
            if judgement.violation is not None
            else None,
        )
        for judgement in judgements
    ]
    statistics = session.statistics
    remarks = [f"{text} ({count} times)" if count > 1 else text for text, count in session.remarks.items()]
    return Report(
        __version__,
        CONTRACT_VERSION,
        target,
        session.subject.name,
        plan.profile.name,
        plan.seed,
        cast(ReportVerdict, verdict(judgements, plan)),
        started,
        seconds,
        sorted(session.capabilities),
        sorted(session.subject.withdrawn),
        results,
        {
            **{name: statistics[name] for name in COUNTED},
            "situations": {name: count for name, count in statistics.items() if name not in COUNTED},
        },
        [*(notes or []), *remarks],
        {"python": platform.python_version(), "platform": platform.platform(), **(environment or {})},
    )
