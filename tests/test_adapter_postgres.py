"""The PostgreSQL journal: round trips, races within a statement, and what breaks beneath it."""

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from continuum_adapters.postgres import PostgresHarness, PostgresJournal
from psycopg import conninfo
from sqlalchemy import QueuePool

from continuum_conformance.contract import (
    Instance,
    InvalidArgument,
    Journal,
    JournalUnavailable,
    Lease,
    LeaseHeld,
    LeaseLost,
    LeaseMismatch,
    RunAlreadyExists,
    RunNotFound,
    SequenceConflict,
    Snapshot,
    SnapshotConflict,
)
from continuum_conformance.postgres import PostgresServer, provide

HERE = Instance("here")
EVENT = {"type": "e"}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with provide("auto") as server:
        yield server


@pytest.fixture
def dsn(server: PostgresServer) -> str:
    return server.fresh_database()


@pytest.fixture
def journal(dsn: str) -> Iterator[PostgresJournal]:
    journal = PostgresJournal(dsn)
    journal.start_run(HERE, "run", "flow", None)
    yield journal
    journal.close()


class Relay:
    """Passes bytes between a client and the server, counts round trips, and can be cut.

    A round trip is one or more reads from the client followed by one from the server.
    """

    def __init__(self, dsn: str) -> None:
        parts = conninfo.conninfo_to_dict(dsn)
        self._target = (str(parts["host"]), int(str(parts["port"])))
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.dsn = re.sub(r"@[^/]+/", f"@127.0.0.1:{port}/", dsn)
        self.round_trips = 0
        self.drop_replies = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pairs.append((client, server))
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        back = threading.Thread(target=self._pass_back, args=(client, server), daemon=True)
        self.asking = False
        back.start()
        with suppress(OSError):
            while data := client.recv(1 << 16):
                self.asking = True
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        back.join()
        client.close()
        server.close()

    def _pass_back(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                self.round_trips += self.asking
                self.asking = False
                if self.drop_replies:
                    self.drop_replies = False
                    break
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def close(self) -> None:
        self.cut()
        self._listener.close()


@pytest.fixture
def relay(dsn: str) -> Iterator[Relay]:
    relay = Relay(dsn)
    yield relay
    relay.close()


@pytest.fixture
def relayed(relay: Relay) -> Iterator[PostgresJournal]:
    journal = PostgresJournal(relay.dsn)
    journal.start_run(HERE, "run", "flow", None)
    yield journal
    journal.close()


@contextmanager
def locked_run(dsn: str, *, then: str = "ROLLBACK", change: str = "") -> Iterator[psycopg.Connection[Any]]:
    """Hold the lock of the run's row, after a change to it perhaps, and end as told."""
    with psycopg.connect(dsn, autocommit=True) as blocker:
        blocker.execute("BEGIN")
        blocker.execute(change or "SELECT 1 FROM continuum_runs WHERE run_id = 'run' FOR UPDATE")
        yield blocker
        blocker.execute(then)


def wait_until_blocked(dsn: str, count: int = 1) -> None:
    with psycopg.connect(dsn, autocommit=True) as watcher:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            row = watcher.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ).fetchone()
            if row is not None and row[0] >= count:
                return
            time.sleep(0.005)
    raise AssertionError("nothing waits")


def behind_a_lock(dsn: str, call: Callable[[], Any], **how: str) -> Any:
    """What a call comes to that had to wait for the run's lock."""
    with ThreadPoolExecutor(1) as pool:
        with locked_run(dsn, **how):
            future = pool.submit(call)
            wait_until_blocked(dsn)
        return future.result(30)


def other_sessions(dsn: str, condition: str = "true") -> int:
    with psycopg.connect(dsn, autocommit=True) as watcher:
        row = watcher.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            f" AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND {condition}".encode()
        ).fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def lent(journal: PostgresJournal) -> Iterator[psycopg.Connection[Any]]:
    """A connection out of the journal's pool."""
    with journal._database._connection() as (connection, _):
        yield connection


def test_it_is_a_journal(journal: PostgresJournal) -> None:
    assert isinstance(journal, Journal)


# -- round trips --


def test_a_successful_write_costs_one_round_trip(relay: Relay, relayed: PostgresJournal) -> None:
    def write_everything(run_id: str) -> dict[str, int]:
        relayed.start_run(HERE, run_id, "flow", None)
        lease: Lease = relayed.acquire(HERE, run_id, "me", 60)
        spent = {}
        for name, call in {
            "append": lambda: relayed.append(HERE, run_id, EVENT, lease.token),
            "suspend": lambda: relayed.suspend(HERE, run_id, lease.token),
            "renew": lambda: relayed.renew(HERE, lease, 60),
            "take_snapshot": lambda: relayed.take_snapshot(
                HERE, Snapshot(run_id, 0, b"v", datetime.now(UTC), {})
            ),
            "load": lambda: relayed.load(HERE, run_id),
            "load_with_snapshot": lambda: relayed.load_with_snapshot(HERE, run_id, lease.token),
            "get_run": lambda: relayed.get_run(HERE, run_id),
            "release": lambda: relayed.release(HERE, lease),
            "acquire": lambda: relayed.acquire(HERE, run_id, "me", 60),
            "complete": lambda: relayed.complete(HERE, run_id, None, lease.token + 1),
        }.items():
            before = relay.round_trips
            call()
            spent[name] = relay.round_trips - before
        return spent

    write_everything("warm")
    assert set(write_everything("measured").values()) == {1}


def test_an_append_is_not_within_a_transaction_block(
    relay: Relay, relayed: PostgresJournal, dsn: str
) -> None:
    relayed.append(HERE, "run", EVENT, None)
    with psycopg.connect(dsn, autocommit=True) as watcher:
        states = watcher.execute(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        ).fetchall()
    assert states == [("idle",)]


# -- within one statement --


@pytest.mark.parametrize("then", ["ROLLBACK", "COMMIT"])
def test_a_ttl_counts_from_the_grant_behind_a_lock(journal: PostgresJournal, dsn: str, then: str) -> None:
    lease = journal.acquire(HERE, "run", "me", 0)
    ends = {
        "acquire": lambda: journal.acquire(HERE, "run", "me", 3600),
        "renew": lambda: journal.renew(HERE, Lease("run", "me", lease.token + 1), 3600),
    }
    for call in ends.values():
        with ThreadPoolExecutor(1) as pool:
            with locked_run(dsn, then=then) as blocker:
                future = pool.submit(call)
                wait_until_blocked(dsn)
                let_go = blocker.execute("SELECT clock_timestamp()").fetchone()
            future.result(30)
        with psycopg.connect(dsn) as watcher:
            expires_at = watcher.execute("SELECT expires_at FROM continuum_runs").fetchone()
        assert let_go is not None
        assert expires_at is not None
        assert (expires_at[0] - let_go[0]).total_seconds() >= 3600


RELEASE = "UPDATE continuum_runs SET token = NULL, owner = NULL, expires_at = NULL WHERE run_id = 'run'"
TAKE = (
    "UPDATE continuum_runs SET last_token = last_token + 1, token = last_token + 1, owner = 'other',"
    " expires_at = 'infinity' WHERE run_id = 'run'"
)
FINISH = RELEASE.replace("SET ", "SET state = 'completed', ")
COUNT = "UPDATE continuum_runs SET next_seq = next_seq + 1 WHERE run_id = 'run'"


def test_an_acquire_behind_a_release_gets_the_lease(journal: PostgresJournal, dsn: str) -> None:
    first = journal.acquire(HERE, "run", "first", 3600)
    lease = behind_a_lock(
        dsn, lambda: journal.acquire(HERE, "run", "me", 3600), change=RELEASE, then="COMMIT"
    )
    assert lease.token > first.token


def test_an_acquire_behind_another_is_refused(journal: PostgresJournal, dsn: str) -> None:
    with pytest.raises(LeaseHeld):
        behind_a_lock(dsn, lambda: journal.acquire(HERE, "run", "me", 3600), change=TAKE, then="COMMIT")


@pytest.mark.parametrize(
    ("change", "error"),
    [(TAKE, LeaseMismatch), (FINISH, JournalUnavailable.__base__)],
    ids=["taken", "finished"],
)
def test_a_write_that_waited_is_judged_by_what_it_waited_for(
    journal: PostgresJournal, dsn: str, change: str, error: type[Exception]
) -> None:
    for call in (
        lambda: journal.append(HERE, "run", EVENT, None),
        lambda: journal.suspend(HERE, "run", None),
        lambda: journal.fail(HERE, "run", 1, None),
    ):
        with pytest.raises(error):
            behind_a_lock(dsn, call, change=change, then="COMMIT")
        assert journal.load(HERE, "run") == []
        with psycopg.connect(dsn) as reset:
            reset.execute(RELEASE.replace("SET ", "SET state = 'running', "))


def test_a_renewal_behind_a_takeover_is_lost(journal: PostgresJournal, dsn: str) -> None:
    lease = journal.acquire(HERE, "run", "me", 0)
    with pytest.raises(LeaseLost):
        behind_a_lock(dsn, lambda: journal.renew(HERE, lease, 3600), change=TAKE, then="COMMIT")


def test_an_explicit_seq_is_judged_after_the_wait(journal: PostgresJournal, dsn: str) -> None:
    with pytest.raises(SequenceConflict):
        behind_a_lock(
            dsn, lambda: journal.append(HERE, "run", {**EVENT, "seq": 0}, None), change=COUNT, then="COMMIT"
        )


# -- threads --


def test_threads_lose_nothing_repeat_nothing_and_wait_for_an_empty_pool(dsn: str) -> None:
    journal = PostgresJournal(dsn, pool_size=3)
    journal.start_run(HERE, "run", "flow", None)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: journal.append(HERE, "run", EVENT, None), range(400)))
        tokens = list(pool.map(lambda _: journal.acquire(HERE, "run", "me", 0).token, range(100)))
    journal.close()
    assert sorted(tokens) == list(range(1, 101))
    assert [event["seq"] for event in PostgresJournal(dsn).load(HERE, "run")] == list(range(400))


def test_of_concurrent_starts_one_succeeds(journal: PostgresJournal) -> None:
    def start(_: int) -> bool:
        try:
            journal.start_run(HERE, "once", "flow", None)
        except RunAlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(start, range(40))) == 1


def test_of_concurrent_different_snapshots_one_stays(journal: PostgresJournal) -> None:
    journal.append(HERE, "run", EVENT, None)

    def take(number: int) -> int | None:
        try:
            journal.take_snapshot(HERE, Snapshot("run", 0, b"v", datetime.now(UTC), {0: number}))
        except SnapshotConflict:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        [winner] = [number for number in pool.map(take, range(40)) if number is not None]
    snapshot, _ = journal.load_with_snapshot(HERE, "run", None)
    assert snapshot is not None
    assert snapshot.steps_by_seq == {0: winner}


def test_handles_may_be_opened_at_once_on_an_empty_database(dsn: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for journal in pool.map(lambda _: PostgresJournal(dsn), range(8)):
            journal.close()


# -- what breaks beneath it --


def test_a_restart_costs_at_most_one_call(server: PostgresServer, dsn: str) -> None:
    journal = PostgresJournal(dsn)
    journal.start_run(HERE, "run", "flow", None)
    with ThreadPoolExecutor(4) as pool:  # several connections in the pool
        list(pool.map(lambda _: journal.append(HERE, "run", EVENT, None), range(40)))
    lease = journal.acquire(HERE, "run", "me", 0)
    server.kill()
    with pytest.raises(JournalUnavailable):
        journal.append(HERE, "run", EVENT, lease.token)
    server.start()
    failures = 0
    for _ in range(10):
        try:
            journal.append(HERE, "run", EVENT, lease.token)
        except JournalUnavailable:
            failures += 1
    assert failures == 0  # a connection that the server closed is seen before it is used
    assert journal.acquire(HERE, "run", "me", 0).token > lease.token
    journal.close()


def test_an_idle_connection_that_was_cut_costs_nothing(relay: Relay, relayed: PostgresJournal) -> None:
    relay.cut()
    time.sleep(0.05)
    relayed.append(HERE, "run", EVENT, None)


def test_an_idle_session_that_was_terminated_costs_nothing(journal: PostgresJournal, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    journal.append(HERE, "run", EVENT, None)


def test_a_lost_reply_is_told_and_does_not_repeat_the_write(relay: Relay, relayed: PostgresJournal) -> None:
    relayed.append(HERE, "run", EVENT, None)
    relay.drop_replies = True
    with pytest.raises(JournalUnavailable) as caught:
        relayed.append(HERE, "run", EVENT, None)
    assert caught.value.outcome_unknown
    assert len(relayed.load(HERE, "run")) == 2


def test_a_read_whose_reply_was_lost_is_sent_again(relay: Relay, relayed: PostgresJournal) -> None:
    relayed.load(HERE, "run")
    relay.drop_replies = True
    assert relayed.load(HERE, "run") == []


def test_after_a_break_no_older_connection_is_used(relay: Relay, relayed: PostgresJournal) -> None:
    def sessions() -> set[int]:
        with lent(relayed) as first, lent(relayed) as second, lent(relayed) as third:
            return {connection.info.backend_pid for connection in (first, second, third)}

    before = sessions()
    relay.drop_replies = True
    with pytest.raises(JournalUnavailable):
        relayed.append(HERE, "run", EVENT, None)
    assert not before & sessions()


def test_ctrl_c_leaves_nothing_under_way(journal: PostgresJournal, dsn: str) -> None:
    def interrupt() -> None:
        wait_until_blocked(dsn)
        os.kill(os.getpid(), signal.SIGINT)

    with locked_run(dsn), ThreadPoolExecutor(1) as pool:
        interrupted = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            journal.append(HERE, "run", EVENT, None)
        interrupted.result(30)
        assert (
            other_sessions(dsn, "state <> 'idle' AND pid NOT IN (SELECT pid FROM pg_locks WHERE granted)")
            == 0
        )
    assert journal.load(HERE, "run") == []
    journal.append(HERE, "run", EVENT, None)
    pool_now = journal._database._engine.pool
    assert isinstance(pool_now, QueuePool)
    assert pool_now.checkedout() == 0


@pytest.mark.parametrize("setting", ["statement_timeout", "transaction_timeout"])
def test_a_time_limit_of_the_server_surely_changes_nothing(
    server: PostgresServer, dsn: str, setting: str
) -> None:
    PostgresJournal(dsn).close()
    limited = f"{dsn}?options=-c%20{setting}%3D200"
    try:
        journal = PostgresJournal(limited)
    except JournalUnavailable:
        pytest.skip(f"this server has no {setting}")
    journal.start_run(HERE, "run", "flow", None)
    with locked_run(dsn), pytest.raises(JournalUnavailable) as caught:
        journal.append(HERE, "run", EVENT, None)
    assert caught.value.outcome_unknown is (setting == "transaction_timeout")  # which ends the session too
    journal.append(HERE, "run", EVENT, None)
    assert len(journal.load(HERE, "run")) == 1
    journal.close()


@pytest.mark.parametrize("level", ["repeatable%20read", "serializable"])
def test_a_stricter_default_isolation_changes_nothing(dsn: str, level: str) -> None:
    journal = PostgresJournal(
        f"{dsn}?options=-c%20default_transaction_isolation%3D{level.replace('%20', '%5C%20')}"
    )
    journal.start_run(HERE, "run", "flow", None)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: journal.append(HERE, "run", EVENT, None), range(100)))
    assert len(journal.load(HERE, "run")) == 100
    journal.close()


def test_a_lock_time_limit_is_waited_out(dsn: str) -> None:
    PostgresJournal(dsn).close()
    journal = PostgresJournal(f"{dsn}?options=-c%20lock_timeout%3D20")
    journal.start_run(HERE, "run", "flow", None)
    with ThreadPoolExecutor(1) as pool:
        with locked_run(dsn):
            future = pool.submit(journal.append, HERE, "run", EVENT, None)
            time.sleep(0.2)
        future.result(30)
    journal.close()


def test_forgotten_statements_are_prepared_again(
    journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(HERE, "run", EVENT, None)
    with lent(journal) as connection:
        connection.pgconn.exec_(b"DEALLOCATE ALL")  # beneath psycopg, which would notice
    journal.append(HERE, "run", EVENT, None)
    assert len(journal.load(HERE, "run")) == 2


def test_a_server_that_has_no_place_is_asked_again(
    journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter(["FATAL:  sorry, too many clients already"] * 3)
    connect = psycopg.connect

    def full(*args: Any, **kwargs: Any) -> Any:
        for words in refusals:
            raise psycopg.OperationalError(words)
        return connect(*args, **kwargs)

    monkeypatch.setattr(psycopg, "connect", full)
    journal._database._engine.pool.dispose()
    journal.append(HERE, "run", EVENT, None)


def test_a_session_commits_to_disk_even_where_the_server_would_not(dsn: str) -> None:
    journal = PostgresJournal(f"{dsn}?options=-c%20synchronous_commit%3Doff")
    journal.start_run(HERE, "run", "flow", None)
    with lent(journal) as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
    journal.close()


# -- the handle --


def test_closing_twice_harms_no_other_handle(dsn: str) -> None:
    harness = PostgresHarness()
    harness.dsn = dsn
    first, second = harness.open(), harness.open()
    harness.close(first)
    harness.close(first)
    second.start_run(HERE, "run", "flow", None)
    with pytest.raises(JournalUnavailable) as caught:
        first.get_run(HERE, "run")
    assert not caught.value.outcome_unknown
    harness.close(second)


def test_a_closed_handle_leaves_no_connection_behind(dsn: str) -> None:
    journal = PostgresJournal(dsn)
    journal.start_run(HERE, "run", "flow", None)
    with ThreadPoolExecutor(1) as pool:
        with locked_run(dsn):
            future = pool.submit(journal.append, HERE, "run", EVENT, None)
            wait_until_blocked(dsn)
            journal.close()
        future.result(30)
    deadline = time.monotonic() + 10
    while other_sessions(dsn) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert other_sessions(dsn) == 0


def test_who_waits_for_an_empty_pool_while_it_is_closed_gets_an_answer(dsn: str) -> None:
    journal = PostgresJournal(dsn, pool_size=1)
    journal.start_run(HERE, "run", "flow", None)
    with ThreadPoolExecutor(4) as pool:
        with locked_run(dsn):
            calls = [pool.submit(journal.append, HERE, "run", EVENT, None) for _ in range(4)]
            wait_until_blocked(dsn)
            journal.close()
        failures = [error for call in calls if (error := call.exception(30)) is not None]
    assert all(isinstance(error, JournalUnavailable) and not error.outcome_unknown for error in failures)
    assert other_sessions(dsn) == 0
    assert len(PostgresJournal(dsn).load(HERE, "run")) == 4 - len(failures)


def test_the_pool_keeps_its_size_when_connections_break(journal: PostgresJournal, dsn: str) -> None:
    for _ in range(5):
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: journal.append(HERE, "run", EVENT, None), range(50)))
        assert other_sessions(dsn) <= 10
        with lent(journal) as connection:
            connection.close()
    assert len(journal.load(HERE, "run")) == 250


def test_a_dsn_that_cannot_be_read_is_refused_without_its_password() -> None:
    with pytest.raises(InvalidArgument) as caught:
        PostgresJournal("postgresql://user:secret@host/x?secret=1")
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**70, -(2**70), 10**400])
def test_numbers_that_the_server_cannot_hold_are_wrong_like_others(
    journal: PostgresJournal, number: int
) -> None:
    journal.append(HERE, "run", EVENT, None)
    with pytest.raises(LeaseMismatch):
        journal.append(HERE, "run", EVENT, number)
    with pytest.raises(SequenceConflict):
        journal.append(HERE, "run", {**EVENT, "seq": number}, None)
    with pytest.raises(LeaseLost):
        journal.renew(HERE, Lease("run", "me", number), 1)
    with pytest.raises(SnapshotConflict):
        journal.take_snapshot(HERE, Snapshot("run", number, b"v", datetime.now(UTC), {}))
    with pytest.raises(RunNotFound):
        journal.append(HERE, "nobody", EVENT, number)


def test_a_long_history_reads_back(journal: PostgresJournal) -> None:
    text = "x" * 3_000
    for number in range(2_000):
        journal.append(HERE, "run", {"type": "e", "text": text, "number": number}, None)
    history = journal.load(HERE, "run")
    assert [(event["seq"], event["number"]) for event in history] == [(n, n) for n in range(2_000)]
    journal.take_snapshot(HERE, Snapshot("run", 1_989, b"v", datetime.now(UTC), {}))
    _, tail = journal.load_with_snapshot(HERE, "run", None)
    assert [event["seq"] for event in tail] == list(range(1_990, 2_000))
