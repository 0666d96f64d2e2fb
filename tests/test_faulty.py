"""Adapters that are wrong only under a fault are found, told under the right clause, and replay; right ones pass."""

from __future__ import annotations

import itertools
import sqlite3
import sys
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the adapters are named as `tests.faulty...`

from continuum_adapters.in_memory import InMemoryHarness, InMemoryJournal
from continuum_adapters.sqlite import SQLiteHarness

from continuum_conformance.harness import Subject
from continuum_conformance.harness.subject import PROBE
from continuum_conformance.suite.check import Plan, judge, preflight, run_check
from continuum_conformance.suite.faults.waiting import RowLock
from continuum_conformance.suite.lab import Lab, Session
from continuum_conformance.suite.races.again import show_again
from continuum_conformance.suite.races.levels import level_of
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


@contextmanager
def _session(target, **limits):
    subject = Subject(target, **limits)
    with Stores() as stores:
        stores.provide(subject)
        session = Session(subject)
        try:
            yield session
        finally:
            session.close_all()


def _checked(target, clauses, *, first):
    with _session(target, limit=5) as session:
        # races are tried in test_racing
        profile = PROFILES["quick" if clauses == ("CON-1",) else "standard"]
        plan = Plan(profile, seed=1, only=clauses, first=first)
        preflight(session)
        results = run_check(session, plan)
        judgements = {j.clause.id: j for j in judge(session, plan, results)}
        return session, judgements


def _shown_again(target, race):
    with _session(target, limit=5) as session:
        return show_again(session, race)


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
    with _session(f"{module}:{adapter}Harness") as session:
        found = _tested(session, TORN).violation
    if wrong:
        assert found is not None
        assert found.message.startswith(f"{wrong}, its log torn")
    else:
        assert found is None
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


def _tested(session, name):
    return run_test(next(t for t in registered() if t.name == name), session, PROFILES["quick"], 0)


FULL_DISK = "a_full_disk_loses_nothing"


def test_a_disk_is_full_also_where_the_store_has_grown_before():
    with _session("continuum_adapters.sqlite:SQLiteHarness") as session:
        Path(session.subject.directory, "large").write_bytes(bytes(40_000_000))
        assert _tested(session, FULL_DISK).violation is None
    assert session.faults["disks filled"] == 2


def test_a_store_that_a_full_disk_leaves_unreadable_is_a_finding_and_no_end_of_the_check():
    with _session("tests.faulty.files:WritesInPlaceHarness") as session:
        found = _tested(session, FULL_DISK).violation
        assert session.handle("A").call(PROBE).ok  # the store under test is as it was
    assert found.clauses == ("ATM-1",)
    assert "cannot be opened: open() raised" in found.message


def test_races_go_on_after_the_server_was_killed():
    with _session("tests.racing.postgres:ForUpdateHarness") as session:
        before = level_of(session)
        assert _tested(session, "a_handle_works_again_after_a_restart").violation is None
        assert session.faults["servers killed"] == 1
        assert level_of(session).executor is not before.executor
        assert _tested(session, "race_zombie_against_takeover").violation is None
        assert session.race_levels == ["statements"]


STOPPED = "a_process_that_was_stopped_does_no_harm"


@pytest.mark.parametrize(
    ("adapter", "wrong"), [("contention:HashedByPython", True), ("postgres:AdvisoryLock", False)]
)
def test_a_lock_of_one_process_is_found_by_stopping_another_where_it_reaches_the_store(adapter, wrong):
    with _session(f"tests.racing.{adapter}Harness") as session:
        found = _tested(session, STOPPED).violation
    assert (found is not None) == wrong
    assert session.faults["processes stopped within an operation"] >= (1 if wrong else 40)


FIRST_USE = "the_stores_first_use_by_several_at_once"


class SeldomBusyHarness(SQLiteHarness):
    """Its store is busy at every fortieth opening, as SQLite is now and then when it switches to its log."""

    openings = itertools.count(1)

    def open(self):
        if next(self.openings) % 40 == 0:
            raise sqlite3.OperationalError("database is locked")
        return super().open()


def test_what_the_stores_first_use_shows_once_in_a_while_is_a_remark_and_no_finding():
    with _session(f"{__name__}:SeldomBusyHarness") as session:
        assert _tested(session, FIRST_USE).violation is None
    assert [remark for remark in session.remarks if "came back too seldom" in remark]


def test_what_the_stores_first_use_shows_again_and_again_is_a_finding():
    with _session("tests.faulty.files:TablesIfThereIsNoFileHarness") as session:
        assert _tested(session, FIRST_USE).violation.clauses == ("CON-1",)


@pytest.mark.parametrize("column", ["text", "bytea", "uuid"])
def test_a_foreign_session_locks_the_rows_of_a_run_however_its_id_is_stored(column):
    with _session("tests.racing.postgres:ForUpdateHarness") as session:
        run = Lab(session).run(str(uuid4()))
        with psycopg.connect(session.subject.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE TABLE named (id {column})")
            stored = run.run_id.encode() if column == "bytea" else run.run_id
            connection.execute(f"INSERT INTO named VALUES (%s::{column})", (stored,))
        lock = RowLock(session.subject.dsn, run)
        lock.close()
    assert lock.locked == 1


class RenewsNothing(InMemoryJournal):
    """It answers, and the expiry stays."""

    def renew(self, instance, lease, ttl):
        before = self._store.runs.get(self._key(instance, lease.run_id))
        expires_at = before and before.expires_at
        super().renew(instance, lease, ttl)
        before.expires_at = expires_at


class UuidsHarness(InMemoryHarness):
    capabilities = InMemoryHarness.capabilities - {"opaque_run_ids"}
    journal_class = RenewsNothing


def test_what_is_wrong_with_a_lease_replays_where_ids_are_uuids():
    with _session(f"{__name__}:UuidsHarness") as session:
        plan = Plan(PROFILES["quick"], seed=0, only=("LEA-5",), first=True)
        preflight(session)
        judged = next(j for j in judge(session, plan, run_check(session, plan)) if j.clause.id == "LEA-5")
    assert (judged.verdict, judged.exact) == ("failed", True)
