"""Adapters that are wrong only in a race are found, told under the right clause, and replay; right ones pass."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from continuum_adapters.in_memory import InMemoryHarness

sys.path.insert(0, str(Path(__file__).parents[1]))  # the adapters are named as `tests.racing...`

from continuum_conformance.harness import Subject
from continuum_conformance.postgres import provide
from continuum_conformance.suite.check import Plan, judge, preflight, run_check
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.races.again import show_again
from continuum_conformance.suite.races.chapter import conflicting
from continuum_conformance.suite.races.exploring import explore
from continuum_conformance.suite.races.levels import Budget, level_of
from continuum_conformance.suite.races.scenarios import CLASSICS
from continuum_conformance.suite.stores import Stores
from continuum_conformance.suite.testing import PROFILES
from tests.racing import contention, drivers, memory, more_postgres, postgres, sqlite, tasks
from tests.unusual.minimal import MinimalHarness

CHAPTER = ("FEN-5", "CON-1", "CON-2", "CON-3", "CON-4", "SNP-10")


@pytest.fixture(scope="module")
def server():
    with provide("auto") as found:
        yield found


def _checked(target, *, first, dsn=None):
    session = Session(Subject(target, dsn=dsn, limit=5))
    plan = Plan(PROFILES["quick"], seed=1, only=CHAPTER, first=first)
    preflight(session)
    results = run_check(session, plan)
    return session, {j.clause.id: j for j in judge(session, plan, results)}


def _found(target, clauses, dsn=None, level=None):
    session, judgements = _checked(target, first=True, dsn=dsn)
    try:
        failed = {clause: j for clause, j in judgements.items() if j.verdict == "failed"}
        assert set(failed) & set(clauses), {c: j.message for c, j in failed.items()}
        violation = next(iter(failed.values())).violation
        assert violation is not None
        assert violation.story or violation.hang
        assert violation.race["preemptions"] <= 2
        explored = violation.race.get("level")  # none, where another process was stopped in the middle
        assert level is None or explored in (level, None)
        if not violation.hang and explored not in ("threads", None):
            for _ in range(3):
                again = show_again(session, violation.race)
                assert again is not None
    finally:
        session.close_all()


@pytest.mark.parametrize(("target", "clauses"), memory.WRONG.items(), ids=lambda v: str(v).partition(":")[2])
def test_a_race_in_memory_is_found(target, clauses):
    _found(target, clauses)


def test_a_lock_that_a_race_leaves_behind_is_told_as_that_race_and_shown_again():
    target = "tests.racing.memory:ForgetsItsLockWhenBeatenHarness"
    session, judgements = _checked(target, first=True)
    session.close_all()
    violation = judgements["CON-4"].violation
    assert violation.message.endswith(
        "another run could not be started afterwards, as when a lock is left behind"
    )
    assert "start_run(" in violation.story.partition("afterwards, one after another:")[2]
    fresh = Session(Subject(target, limit=2))
    try:
        again = show_again(fresh, violation.race)
        assert again is not None
        assert again.message == violation.message
    finally:
        fresh.close_all()


@pytest.mark.parametrize(
    ("target", "clauses"), postgres.WRONG.items(), ids=lambda v: str(v).partition(":")[2]
)
def test_a_race_in_postgres_is_found(target, clauses, server):
    _found(target, clauses, server.fresh_database())


@pytest.mark.parametrize(("target", "clauses"), tasks.WRONG.items(), ids=lambda v: str(v).partition(":")[2])
def test_a_race_of_tasks_is_found(target, clauses):
    _found(target, clauses, level="tasks")


@pytest.mark.parametrize(
    ("target", "clauses"), more_postgres.WRONG.items(), ids=lambda v: str(v).partition(":")[2]
)
def test_a_race_within_statements_is_found(target, clauses, server):
    _found(target, clauses, server.fresh_database(), level="statements")


@pytest.mark.parametrize("target", contention.SOON_FOUND)
def test_a_race_about_locks_is_found(target, server):
    _found(target, contention.WRONG[target], server.fresh_database())


@pytest.mark.parametrize(("target", "clause"), sqlite.TRIED.items())
def test_a_race_in_sqlite_is_found(target, clause):
    with Stores() as stores:
        subject = Subject(target, limit=5)
        stores.provide(subject)
        session = Session(subject)
        try:
            plan = Plan(PROFILES["quick"], seed=1, only=(clause,), first=True)
            preflight(session)
            judgements = judge(session, plan, run_check(session, plan))
        finally:
            session.close_all()
    failed = {j.clause.id for j in judgements if j.verdict == "failed"}
    assert failed & set(sqlite.WRONG[target]), {j.clause.id: j.message for j in judgements}


@pytest.mark.parametrize("target", tasks.RIGHT)
def test_a_right_style_of_tasks_is_not_accused(target):
    session, judgements = _checked(target, first=False)
    try:
        assert {c: j.message for c, j in judgements.items() if j.verdict != "passed"} == {}
        assert session.race_level.name == "tasks"
        assert session.races["interleavings"] > 500
    finally:
        session.close_all()


@pytest.mark.parametrize(
    "target", [*postgres.RIGHT, *more_postgres.RIGHT, "continuum_adapters.postgres:PostgresHarness"]
)
def test_a_right_style_is_not_accused(target, server):
    session, judgements = _checked(target, first=False, dsn=server.fresh_database())
    try:
        assert {
            c: j.message for c, j in judgements.items() if j.verdict not in ("passed", "unsupported")
        } == {}
        assert session.race_level.name == "statements"
    finally:
        session.close_all()


class Connected(InMemoryHarness):
    """What it keeps is in this process, but it looks as if it were elsewhere: each handle has a connection."""

    listener = None

    def open(self):
        self.listener = self.listener or socket.create_server(("127.0.0.1", 0))
        journal = super().open()
        journal.line = socket.create_connection(self.listener.getsockname())
        return journal

    def close(self, journal):
        journal.line.close()
        super().close(journal)


@pytest.mark.parametrize(("harness", "level"), [(InMemoryHarness, "instructions"), (Connected, "lines")])
def test_steps_are_told_apart_only_where_all_that_they_touch_is_seen(harness, level):
    session = Session(Subject(harness(), limit=5))
    try:
        assert level_of(session).name == level
    finally:
        session.close_all()


def test_the_reference_in_memory_is_not_accused():
    session, judgements = _checked("continuum_adapters.in_memory:InMemoryHarness", first=False)
    try:
        assert {c: j.message for c, j in judgements.items() if j.verdict != "passed"} == {}
        assert session.race_level.name == "instructions"
        assert session.races["interleavings"] > 500
    finally:
        session.close_all()


@pytest.mark.parametrize(
    ("more", "name"), [((), "instructions"), (("shared",), "lines"), (("durable",), "lines")], ids=str
)
def test_a_store_outside_of_the_process_is_explored_at_lines(more, name):
    class Harness(MinimalHarness):
        capabilities = frozenset(more)

    session = Session(Subject(Harness))
    try:
        assert level_of(session).name == name
        assert level_of(session).costly == (name == "lines")
    finally:
        session.close_all()


def test_the_driver_makes_no_difference(server):
    known = [scenario for scenario in CLASSICS if scenario.name in ("append against finish", "two starts")]
    told = {}
    for name in ("Psycopg", "Pool", "Asyncpg", "UnlockedPsycopg", "UnlockedPool", "UnlockedAsyncpg"):
        session = Session(Subject(f"{drivers.__name__}:{name}", dsn=server.fresh_database(), limit=5))
        try:
            level = level_of(session)
            assert level.name == "statements"
            found = [explore(session, scenario, level.executor, Budget(60)) for scenario in known]
            told[name] = [
                (each.runs, each.exhausted, each.violation and each.violation.race["schedule"])
                for each in found
            ]
        finally:
            session.close_all()
    assert told["Psycopg"] == told["Pool"] == told["Asyncpg"]
    assert [schedule for _, _, schedule in told["Psycopg"]] == [None, None]
    assert told["UnlockedPsycopg"] == told["UnlockedPool"] == told["UnlockedAsyncpg"]
    assert [schedule is not None for _, _, schedule in told["UnlockedPsycopg"]] == [True, True]


def test_where_schedules_have_very_many_steps_few_are_walked():
    session = Session(Subject("continuum_adapters.in_memory:InMemoryHarness"))
    (scenario,) = [known for known in CLASSICS if known.name == "two appends"]
    try:
        level = level_of(session)
        walked = [
            explore(session, scenario, level.executor, plan)
            for plan in (Budget(300), Budget(300, steps=2_000), Budget(300, steps=1, least=7))
        ]
        assert [each.exhausted for each in walked] == [False, False, False]
        assert walked[0].runs == 300
        assert 1 < walked[1].runs < 150
        assert walked[2].runs == 7
        pair = next(iter(level.chosen(PROFILES["standard"], conflicting(session, "FEN-5"))))
        plans = [level.budget(PROFILES[name], pair, cut=59).limit for name in ("standard", "thorough")]
        fewer = [level.budget(PROFILES[name], pair, cut=60).limit for name in ("standard", "thorough")]
        assert (plans, fewer) == ([600, 50_000], [16, 50_000])
    finally:
        session.close_all()
