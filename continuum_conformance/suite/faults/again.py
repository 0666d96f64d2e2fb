"""Showing a fault again: the operation, struck at the point that was kept."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from continuum_conformance.suite.faults.ending import run_cancelled, run_interrupted
from continuum_conformance.suite.faults.exhausting import run_timed_out
from continuum_conformance.suite.faults.failover import failing_over, run_failover
from continuum_conformance.suite.faults.full import run_full
from continuum_conformance.suite.faults.running import Fault, run_cut, run_death, wired
from continuum_conformance.suite.faults.zombies import run_stopped_again
from continuum_conformance.suite.lab import BESIDE, SECOND_PROCESS, Session
from continuum_conformance.suite.script import told_text
from continuum_conformance.suite.testing import PROFILES, SuiteTest, registered, run_test
from continuum_conformance.suite.violation import Violation

__all__ = ["of_test", "strike_again"]


def of_test(found: Violation, test: SuiteTest) -> Violation:
    """A violation that shows only within its test: with its calls as a story, and with the test's name for a replay."""
    told = []
    for step in found.steps:
        due = f"   <- due: {step.due}" if step.due else ""
        told.append(told_text(step, found.salt, mark=due))
        if step.then:
            told.append(f"     --- {step.then} ---")
    # What is lost or left behind is no fault of the clauses that a model cites for it.
    clauses = found.clauses if found.clauses[0] in ("ATM-2", "ATM-3", "CON-4") else test.clauses[:1]
    about = (test.body.__doc__ or test.name.replace("_", " ")).strip()
    workers = {step.operation.worker for step in found.steps}
    others = [worker for worker in (SECOND_PROCESS, BESIDE) if worker in workers]
    if others:
        about += f" (Worker {others[0]} is a process of its own.)"
    story = "\n".join([*textwrap.wrap(about, 72), "", *told, ""])
    return replace(
        found, clauses=clauses, assumed=(), story=story, race={"test": test.name, "fault": "whole"}
    )


def strike_again(session: Session, data: Mapping[str, Any]) -> Violation | None:
    """Strike once more, and give the violation that it shows, if it does. Raises ``ValueError`` for malformed data."""
    if "test" in data:
        test = next((test for test in registered() if test.name == data["test"]), None)
        if test is None:
            raise ValueError(f"this version of the kit has no test {data['test']!r}")
        found = run_test(test, session, PROFILES["standard"], 0).violation
        return of_test(found, test) if found is not None else None
    if data.get("fault") == "stopped":
        return run_stopped_again(session, data)
    fault = Fault.from_data(data)
    if fault.when == "moment":
        run_death(session, replace(fault, number=0))  # which tells how long it takes
    if fault.when in ("line", "change", "message", "moment"):
        return run_death(session, fault)[0]
    if fault.when.startswith("primary"):
        with failing_over(session) as pair:
            return run_failover(session, pair, fault).violation
    if fault.when == "full":
        return run_full(session, fault)
    if fault.when == "timeout":
        return run_timed_out(session, fault)
    if fault.when == "cancelled":
        return run_cancelled(session, fault)[0]
    if fault.when == "interrupted":
        return run_interrupted(session, fault)[0]
    with wired(session) as wire:
        return run_cut(session, wire, fault)[0]
