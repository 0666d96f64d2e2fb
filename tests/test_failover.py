"""A primary is lost to its standby: what must survive does, what need not is told, and wrong adapters are found."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the adapters are named as `tests.faulty...`

from continuum_conformance.cli import main
from continuum_conformance.harness import Subject
from continuum_conformance.postgres import Pair, PostgresUnavailable, binaries
from continuum_conformance.suite import check
from continuum_conformance.suite.check import Plan, preflight
from continuum_conformance.suite.faults.failover import no_failover
from continuum_conformance.suite.faults.lost import told_of_failover
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.races.again import show_again
from continuum_conformance.suite.stores import Stores
from continuum_conformance.suite.testing import PROFILES
from tests.faulty import failover

psycopg = pytest.importorskip("psycopg")

POSTGRES = "continuum_adapters.postgres:PostgresHarness"
INSTALLATIONS = [found for found in (binaries.embedded(), binaries.local()) if found is not None]
pytestmark = pytest.mark.skipif(not INSTALLATIONS, reason="no PostgreSQL programs on this machine")


@pytest.fixture(scope="module")
def stores():
    with Stores() as kept:
        yield kept


@pytest.fixture
def session_of(stores):
    sessions = []

    def opened(target):
        subject = Subject(target)
        stores.provide(subject)
        session = Session(subject)
        sessions.append(session)
        session.pair = stores.pair
        preflight(session)
        return session

    yield opened
    for session in sessions:
        session.close_all()


def _results(session, only=None):
    """What comes of the tests of failover, one after the other; those that find most come first."""
    plan = Plan(PROFILES["quick"], seed=1, only=only)
    tests = [test for test in check.tests_for(session.capabilities, plan) if test.when is no_failover]
    for test in sorted(tests, key=lambda test: not test.program):
        yield check.judge_test(test, session, plan)


@pytest.mark.parametrize(
    "installation", INSTALLATIONS, ids=lambda found: found.origin.strip("/").replace("/", "-")
)
def test_a_standby_takes_over_with_what_it_has(installation):
    pair = Pair(installation)
    try:
        dsn = pair.gate.dsn_for("A")
        pair.replicate(synchronous=True)
        with psycopg.connect(dsn, autocommit=True) as client:
            client.execute("CREATE TABLE kept (what text)")
            client.execute("INSERT INTO kept VALUES ('synchronous')")
            pair.replicate(synchronous=False)
            client.execute("INSERT INTO kept VALUES ('followed')")
            pair.replicate(synchronous=False)  # has caught up
            with pair.lagging():
                client.execute("INSERT INTO kept VALUES ('lost')")
                pair.fail_over()
        with psycopg.connect(dsn, autocommit=True) as client:
            assert client.execute("SELECT array_agg(what) FROM kept").fetchone() == (
                ["synchronous", "followed"],
            )
    finally:
        pair.close()


def test_a_commit_waits_for_a_synchronous_standby_that_lags(stores):
    pair = stores.pair()
    pair.replicate(synchronous=True)
    with psycopg.connect(pair.gate.dsn_for("A"), autocommit=True) as client:
        client.execute("CREATE TABLE IF NOT EXISTS waiting (n int)")
        commit = threading.Thread(target=client.execute, args=("INSERT INTO waiting VALUES (1)",))
        with pair.lagging():
            commit.start()
            while not pair.waits():
                assert commit.is_alive()
                time.sleep(0.002)  # between two looks
        commit.join()
    assert not pair.waits()


def test_only_processes_of_the_server_can_be_held(stores):
    stores.pair().replicate(synchronous=True)
    with pytest.raises(PostgresUnavailable, match="1 is no process of this server"):
        stores.pair()._primary.hold(1)


def test_a_right_adapter_loses_nothing_to_a_synchronous_standby(session_of):
    session = session_of(POSTGRES)
    results = list(_results(session))
    assert [(r.test.name, r.error or r.skipped or str(r.violation or "")) for r in results] == [
        (r.test.name, "") for r in results
    ]
    assert session.faults["primaries killed, and standbys promoted"] >= 5
    assert session.faults["commits seen to wait for the standby"] >= 10


@pytest.mark.parametrize("target", failover.RIGHT)
def test_a_failure_that_did_not_happen_is_not_held_against_it(session_of, target):
    session = session_of(target)
    results = list(_results(session, ("CON-3",)))
    assert [(r.test.name, str(r.violation or "")) for r in results] == [
        ("workers_go_on_after_a_failover", "")
    ]


@pytest.mark.parametrize(
    ("target", "clauses"), failover.WRONG.items(), ids=lambda v: str(v).partition(":")[2]
)
def test_a_loss_is_found_and_shows_again(session_of, target, clauses):
    session = session_of(target)
    found = next(result.violation for result in _results(session, clauses) if result.violation is not None)
    assert set(found.clauses) & set(clauses)
    assert found.story
    assert show_again(session, found.race)


def test_what_asynchronous_replication_loses_is_told(session_of):
    session = session_of(POSTGRES)
    told = told_of_failover(session, kept=False)
    assert len(told) == 2
    lost, remedy = told
    assert "an event that was appended (the history ends before it)" in lost
    assert "a run's completion with its result (the run is running)" in lost
    assert "a run that was started (nobody knows of it)" in lost
    assert (
        "token 1 was alice's, and was given to bob again, and an append of alice's under it is accepted"
        in lost
    )
    assert "synchronous_standby_names" in remedy


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["continuum_adapters.in_memory:InMemoryHarness"],
            "is about PostgreSQL, and InMemoryHarness does not need one",
        ),
        ([POSTGRES, "--dsn", "postgresql://u:secret@127.0.0.1/d"], "--dsn names one of yours; leave it out"),
        ([POSTGRES, "--postgres", "container"], "which --postgres container does without"),
    ],
    ids=["no PostgreSQL", "a given server", "a container"],
)
def test_without_servers_of_its_own_it_says_why(words, said, capsys):
    assert main(["check", *words, "--failover"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "secret" not in told
