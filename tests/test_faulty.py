"""Adapters that are wrong only under a fault are found, told under the right clause, and replay; right ones pass."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the adapters are named as `tests.faulty...`

from continuum_conformance.harness import Subject
from continuum_conformance.suite.check import Plan, judge, preflight, run_check
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.races.again import show_again
from continuum_conformance.suite.stores import Stores
from continuum_conformance.suite.testing import PROFILES, registered, run_test
from tests.faulty import files, network, postgres, tasks

CHAPTERS = (
    "ATM-2",
    "ATM-3",
    "ATM-1",
    "ATM-3s",
    "ATM-4",
    "ATM-5",
    "ATM-5s",
    "LEA-5",
    "LEA-9",
    "CLK-1",
    "DUR-1",
    "DUR-2",
    "DUR-3",
    "DUR-4",
    "DUR-5",
)


def _checked(target, clauses, *, first):
    subject = Subject(target, limit=5)
    with Stores() as stores:
        stores.provide(subject)
        session = Session(subject)
        try:
            profile = PROFILES[
                "quick" if clauses == ("CON-1",) else "standard"
            ]  # races are tried in test_racing
            plan = Plan(profile, seed=1, only=clauses, first=first)
            preflight(session)
            results = run_check(session, plan)
            judgements = {j.clause.id: j for j in judge(session, plan, results)}
            return session, judgements
        finally:
            session.close_all()


def _shown_again(target, race):
    subject = Subject(target, limit=5)
    with Stores() as stores:
        stores.provide(subject)
        session = Session(subject)
        try:
            return show_again(session, race)
        finally:
            session.close_all()


@pytest.mark.parametrize(
    ("target", "clauses"),
    [*postgres.WRONG.items(), *files.WRONG.items(), *tasks.WRONG.items(), *network.WRONG.items()],
    ids=lambda v: str(v).partition(":")[2],
)
def test_a_fault_is_found(target, clauses):
    _, judgements = _checked(target, clauses, first=True)
    failed = {clause: j.message for clause, j in judgements.items() if j.verdict == "failed"}
    assert set(failed) & set(clauses), {c: (j.verdict, j.message) for c, j in judgements.items()}
    violation = next(j.violation for c, j in judgements.items() if c in failed)
    if violation.race is not None and not violation.hang:
        assert violation.story
        assert _shown_again(target, violation.race)


@pytest.mark.parametrize("target", [*postgres.RIGHT, *files.RIGHT, *tasks.RIGHT, *network.RIGHT])
def test_a_right_one_is_not_accused(target):
    session, judgements = _checked(target, CHAPTERS, first=False)
    wrong = {
        c: (j.verdict, j.message)
        for c, j in judgements.items()
        if j.verdict not in ("passed", "not_applicable", "unsupported")
    }
    assert wrong == {}
    if "durable" in session.capabilities:
        assert session.faults["clients killed within an operation"] >= 10
        assert session.faults["clients killed"] >= 5
    elif target in tasks.RIGHT:
        assert session.faults["calls cancelled"] >= 10
    else:
        assert session.faults["connections cut"] >= 40


TORN = "a_torn_log_loses_no_more_than_its_last_operation"


@pytest.mark.parametrize(
    ("adapter", "wrong"),
    [("SQLite", ""), ("KeepsALog", ""), ("FinishesTwice", "complete"), ("AppendsBehindWhatIsTorn", "append")],
)
def test_a_log_is_torn_in_every_operation(adapter, wrong):
    module = "continuum_adapters.sqlite" if adapter == "SQLite" else "tests.faulty.files"
    subject = Subject(f"{module}:{adapter}Harness")
    test = next(test for test in registered() if test.name == TORN)
    with Stores() as stores:
        stores.provide(subject)
        session = Session(subject)
        try:
            result = run_test(test, session, PROFILES["quick"], 0)
        finally:
            session.close_all()
    if wrong:
        assert result.violation is not None
        assert result.violation.message.startswith(f"{wrong}, its log torn")
    else:
        assert result.violation is None
        assert session.faults["logs torn"] >= 20


@pytest.mark.parametrize(("target", "clause"), [*files.ADVISED.items(), *postgres.ADVISED.items()])
def test_a_should_that_is_not_met_is_advice(target, clause):
    _, judgements = _checked(target, (clause,), first=False)
    assert {c: j.verdict for c, j in judgements.items()} == {clause: "advice"}


def test_who_has_its_turn_by_an_advisory_lock_is_not_made_to_wait_for_a_row():
    _, judgements = _checked("tests.racing.postgres:AdvisoryLockHarness", ("LEA-9",), first=False)
    assert judgements["LEA-9"].verdict == "passed"


def test_the_story_of_a_full_disk_says_once_what_happened_often_and_how_many_events_were_there():
    _, judgements = _checked("tests.faulty.files:ForgetsToForgetHarness", ("ATM-1",), first=True)
    told = judgements["ATM-1"].violation.story.splitlines()
    assert sum(" times)" in line for line in told) == 1
    assert [line for line in told if " load(" in line and line.endswith(" events]")], told
