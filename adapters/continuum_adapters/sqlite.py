"""A journal in one SQLite file, over SQLAlchemy Core and the standard library's driver.

Any number of processes, handles and threads may use the file at once. A write takes SQLite's one write lock
first (``BEGIN IMMEDIATE``), then reads, decides and writes: whatever it reads stays true until it commits. A read
sees one moment and waits for nobody (write-ahead log). Writers of one process queue at a lock of their own, which
is handed on at once, while SQLite's can only be polled.

A commit is on disk before it is acknowledged (``synchronous=FULL``). The clock of the leases is this process's
wall clock, since all processes on the file share that one; it is read after the write lock is held. Tokens are
counted in the run's row and owe nothing to a clock.

Decisions that the contract leaves open: a finish ends the lease, so that `load_with_snapshot` of a terminal run
answers None with the pair and any token with ``LeaseMismatch``; a closed handle refuses every call. Who waits for
another process longer than `PATIENCE` gives up.
"""

from __future__ import annotations

import math
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from continuum_adapters.codec import decode, encode, encode_checked
from continuum_adapters.operations import operation
from continuum_conformance.contract import (
    Event,
    Instance,
    JournalUnavailable,
    Lease,
    LeaseHeld,
    LeaseLost,
    LeaseMismatch,
    Run,
    RunAlreadyExists,
    RunNotActive,
    RunNotFound,
    RunState,
    SequenceConflict,
    Snapshot,
    SnapshotConflict,
    Term,
)
from continuum_conformance.contract.arguments import (
    check_event,
    check_lease,
    check_name,
    check_names,
    check_snapshot,
    check_token,
    check_ttl,
)
from continuum_conformance.contract.terms import equal

__all__ = ["SQLiteHarness", "SQLiteJournal"]

PATIENCE = 60.0
"""How many seconds to wait for another process's lock."""

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
"""Another connection is in the way: at its own write, opening the log, or recovering it."""

# -- the tables; SQLite compares text byte by byte unless told otherwise (ISO-1) --

_metadata = MetaData()

_runs = Table(
    "continuum_runs",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("instance", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("input", LargeBinary, nullable=False),
    Column("result", LargeBinary),
    Column("error", LargeBinary),
    Column("next_seq", Integer, nullable=False, default=0),
    Column("token", Integer),  # null: the run is unleased
    Column("last_token", Integer, nullable=False, default=0),  # outlives the lease
    Column("owner", Text),
    Column("expires_at", Integer),  # inclusive, in microseconds since 1970; null: takeable at once
    UniqueConstraint("instance", "run_id"),
)
_events = Table(
    "continuum_events",
    _metadata,
    Column("run", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run", "seq"),
)
_snapshots = Table(
    "continuum_snapshots",
    _metadata,
    Column("run", Integer, nullable=False),
    Column("through_seq", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # [version hash, taken at, steps by seq]
    PrimaryKeyConstraint("run", "through_seq"),
)

Row = Any
"""A row of SQLAlchemy's, whose columns are its attributes."""

_NO_LEASE: dict[str, Any] = {"token": None, "owner": None, "expires_at": None}


class _Lock:
    """A lock that a weak dictionary can hold."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


_writers: WeakValueDictionary[str, _Lock] = WeakValueDictionary()
_writers_guard = threading.Lock()


def _writers_of(path: str) -> _Lock:
    """The lock at which this process's writers of a file queue."""
    with _writers_guard:
        return _writers.setdefault(os.path.realpath(path), _Lock())


class SQLiteJournal:
    """A handle on the journal in one file; the file and its tables are created where they are missing.

    Args:
        path: the file. Its folder must exist; SQLite keeps two more files beside it while it is in use.
        clock: the wall clock, in seconds since 1970; only leases ask it. All processes on the file must agree.

    Raises:
        JournalUnavailable: the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._writers = _writers_of(os.fspath(path))
        self._closed = False
        self._engine = create_engine(
            URL.create("sqlite+pysqlite", database=os.fspath(path)),
            isolation_level="AUTOCOMMIT",  # transactions are begun and ended below, by name
            connect_args={"timeout": 0.01},  # `_begin` polls more evenly than SQLite's own wait
            pool_timeout=1,  # `_begin` then waits on (CON-4), unless the journal was closed meanwhile
            max_overflow=0,
        )
        event.listen(self._engine, "connect", _set_up)
        try:
            with self._writing() as connection:
                _metadata.create_all(connection)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, and refuse every later call."""
        self._closed = True
        self._engine.pool.dispose()

    # -- runs --

    @operation
    def start_run(self, instance: Instance, run_id: str, workflow: str, input: Term) -> None:  # noqa: A002
        """See ``Journal.start_run``."""
        key = _key(instance, run_id)
        check_name(workflow, "the workflow")
        payload = encode(input, "input")
        with self._writing() as connection:
            if _find(connection, key) is not None:
                raise RunAlreadyExists
            connection.execute(
                insert(_runs).values(**key, workflow=workflow, state=RunState.RUNNING.value, input=payload)
            )

    @operation
    def get_run(self, instance: Instance, run_id: str) -> Run | None:
        """See ``Journal.get_run``."""
        key = _key(instance, run_id)
        with self._reading() as connection:
            query = select(_runs.c.workflow, _runs.c.state, _runs.c.input, _runs.c.result, _runs.c.error)
            row = connection.execute(query.filter_by(**key)).one_or_none()
        if row is None:
            return None
        workflow, state, *payloads = row
        terms = [None if payload is None else decode(payload) for payload in payloads]
        return Run(run_id, workflow, RunState(state), *terms)

    # -- history --

    @operation
    def append(
        self, instance: Instance, run_id: str, event: Mapping[str, Any], lease_token: int | None
    ) -> None:
        """See ``Journal.append``."""
        key = _key(instance, run_id)
        token = check_token(lease_token)
        checked, seq = check_event(event)
        payload = encode_checked(checked, "event")
        with self._writing() as connection:
            run = _require_active(connection, key)
            _check_fence(run, token)
            if seq is not None and seq != run.next_seq:
                raise SequenceConflict(f"seq {seq} given, {run.next_seq} is next")
            connection.execute(insert(_events).values(run=run.id, seq=run.next_seq, payload=payload))
            _change(connection, run, next_seq=run.next_seq + 1)

    @operation
    def load(self, instance: Instance, run_id: str) -> list[Event]:
        """See ``Journal.load``."""
        key = _key(instance, run_id)
        with self._reading() as connection:
            run = _find(connection, key)
            rows = [] if run is None else _events_after(connection, run, -1)
        return [_event(seq, payload) for seq, payload in rows]

    @operation
    def load_with_snapshot(
        self, instance: Instance, run_id: str, lease_token: int | None
    ) -> tuple[Snapshot | None, list[Event]]:
        """See ``Journal.load_with_snapshot``."""
        key = _key(instance, run_id)
        token = check_token(lease_token)
        with self._reading() as connection:
            run = _require_run(connection, key)
            _check_fence(run, token)
            latest = connection.execute(
                select(_snapshots.c.through_seq, _snapshots.c.payload)
                .where(_snapshots.c.run == run.id)
                .order_by(_snapshots.c.through_seq.desc())
                .limit(1)
            ).one_or_none()
            rows = _events_after(connection, run, -1 if latest is None else latest.through_seq)
        snapshot = None if latest is None else Snapshot(run_id, latest.through_seq, *decode(latest.payload))
        return snapshot, [_event(seq, payload) for seq, payload in rows]

    @operation
    def take_snapshot(self, instance: Instance, snapshot: Snapshot) -> None:
        """See ``Journal.take_snapshot``."""
        checked = check_snapshot(snapshot)
        key = _key(instance, checked.run_id)
        version_hash, steps = bytes(checked.version_hash), dict(checked.steps_by_seq)
        payload = encode_checked([version_hash, _plain(checked.taken_at), steps], "snapshot")
        with self._writing() as connection:
            run = _require_run(connection, key)
            if not 0 <= checked.through_seq < run.next_seq:
                raise SnapshotConflict(
                    f"{checked.through_seq} is no seq of the history of {run.next_seq} events"
                )
            its = {"run": run.id, "through_seq": checked.through_seq}
            first = connection.scalar(select(_snapshots.c.payload).filter_by(**its))
            if first is None:
                connection.execute(insert(_snapshots).values(**its, payload=payload))
                return
        first_hash, _, first_steps = decode(first)
        if first_hash != version_hash or not equal(first_steps, steps):
            raise SnapshotConflict(f"it differs from the one taken first through seq {checked.through_seq}")

    # -- transitions --

    @operation
    def suspend(self, instance: Instance, run_id: str, lease_token: int | None) -> None:
        """See ``Journal.suspend``."""
        self._move(_key(instance, run_id), check_token(lease_token), {"state": RunState.SUSPENDED.value})

    @operation
    def complete(self, instance: Instance, run_id: str, result: Term, lease_token: int | None) -> None:
        """See ``Journal.complete``."""
        key = _key(instance, run_id)
        token = check_token(lease_token)
        payload = encode(result, "result")
        self._move(key, token, {"state": RunState.COMPLETED.value, "result": payload, **_NO_LEASE})

    @operation
    def fail(self, instance: Instance, run_id: str, error: Term, lease_token: int | None) -> None:
        """See ``Journal.fail``."""
        key = _key(instance, run_id)
        token = check_token(lease_token)
        payload = encode(error, "error")
        self._move(key, token, {"state": RunState.FAILED.value, "error": payload, **_NO_LEASE})

    def _move(self, key: dict[str, str], token: int | None, changes: dict[str, Any]) -> None:
        with self._writing() as connection:
            run = _require_active(connection, key)
            _check_fence(run, token)
            _change(connection, run, **changes)

    # -- leases --

    @operation
    def acquire(self, instance: Instance, run_id: str, owner: str, ttl: float) -> Lease:
        """See ``Journal.acquire``."""
        key = _key(instance, run_id)
        check_name(owner, "the owner")
        seconds = check_ttl(ttl)
        with self._writing() as connection:
            run = _require_active(connection, key)
            now = self._now()
            if run.token is not None and run.expires_at is not None and run.expires_at >= now:
                raise LeaseHeld(f"{run.owner!r} holds the lease")
            token = run.last_token + 1
            _change(
                connection, run, token=token, last_token=token, owner=owner, expires_at=_expiry(now, seconds)
            )
        return Lease(run_id, owner, token)

    @operation
    def renew(self, instance: Instance, lease: Lease, ttl: float) -> Lease:
        """See ``Journal.renew``."""
        held = check_lease(lease)
        key = _key(instance, held.run_id)
        seconds = check_ttl(ttl)
        with self._writing() as connection:
            run = _require_active(connection, key)
            _check_holder(run, held)
            _change(connection, run, expires_at=_expiry(self._now(), seconds))
        return held

    @operation
    def release(self, instance: Instance, lease: Lease) -> None:
        """See ``Journal.release``."""
        held = check_lease(lease)
        key = _key(instance, held.run_id)
        with self._writing() as connection:
            run = _require_active(connection, key)
            _check_holder(run, held)
            _change(connection, run, **_NO_LEASE)

    # -- transactions --

    def _now(self) -> int:
        """The wall clock, in microseconds."""
        return int(self._clock() * 1_000_000)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that holds SQLite's write lock from its beginning."""
        with self._writers.lock, self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A transaction whose reads are all of one moment."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        self._require_open()
        outcome_unknown = False
        try:
            connection = self._begin(begin)
            try:
                yield connection
                # When a commit fails, the log may hold it all the same, for the next recovery to find.
                outcome_unknown = begin == "BEGIN IMMEDIATE"
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                _abandon(connection)
                raise
            finally:
                connection.close()
                if self._closed:
                    self._engine.pool.dispose()  # the pool was emptied before this one went back
        except (SQLAlchemyError, sqlite3.Error) as error:
            words = str(getattr(error, "orig", None) or error)
            raise JournalUnavailable(words, outcome_unknown=outcome_unknown) from error

    def _require_open(self) -> None:
        if self._closed:
            raise JournalUnavailable("the journal is closed")

    def _begin(self, begin: str) -> Connection:
        """A connection within a transaction. All waiting for other processes is here: nothing has happened yet."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._try_to_begin(begin)
            except PoolTimeout:
                self._require_open()
                continue
            except (SQLAlchemyError, sqlite3.Error) as error:
                if not _is_busy(error) or time.monotonic() > until:
                    raise
            time.sleep(random.uniform(0, 0.005))

    def _try_to_begin(self, begin: str) -> Connection:
        connection = self._engine.connect()
        try:
            connection.exec_driver_sql(begin)
            connection.exec_driver_sql("SELECT 1 FROM sqlite_schema LIMIT 1")  # fixes the moment that is read
        except BaseException:
            _abandon(connection)
            connection.close()
            raise
        return connection


def _set_up(connection: sqlite3.Connection, _: object) -> None:
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()  # SQLAlchemy would leave it to the garbage collector
        raise


def _abandon(connection: Connection) -> None:
    """Roll back, and throw the connection away should that fail."""
    try:
        if connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
            connection.exec_driver_sql("ROLLBACK")
    except (SQLAlchemyError, sqlite3.Error):
        connection.invalidate()


def _is_busy(error: BaseException) -> bool:
    code = getattr(getattr(error, "orig", error), "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _BUSY


# -- the rules, one each --


def _key(instance: Instance, run_id: str) -> dict[str, str]:
    name, run_id = check_names(instance, run_id)
    return {"instance": name, "run_id": run_id}


_RULED = select(
    _runs.c.id,
    _runs.c.state,
    _runs.c.next_seq,
    _runs.c.token,
    _runs.c.last_token,
    _runs.c.owner,
    _runs.c.expires_at,
)
"""What the rules ask of a run."""


def _find(connection: Connection, key: dict[str, str]) -> Row | None:
    return connection.execute(_RULED.filter_by(**key)).one_or_none()


def _require_run(connection: Connection, key: dict[str, str]) -> Row:
    run = _find(connection, key)
    if run is None:
        raise RunNotFound
    return run


def _require_active(connection: Connection, key: dict[str, str]) -> Row:
    run = _require_run(connection, key)
    if RunState(run.state).terminal:
        raise RunNotActive(f"the run is {run.state}")
    return run


def _change(connection: Connection, run: Row, **changes: Any) -> None:
    connection.execute(update(_runs).where(_runs.c.id == run.id).values(**changes))


def _check_fence(run: Row, token: int | None) -> None:
    """The token must be the run's own; None is the token of an unleased run. Expiry does not matter (LEA-6)."""
    if token != run.token:
        raise LeaseMismatch(f"the token {token} is not the run's")


def _check_holder(run: Row, lease: Lease) -> None:
    if (run.token, run.owner) != (lease.token, lease.owner):
        raise LeaseLost


def _expiry(now: int, ttl: float) -> int | None:
    """The last microsecond of a lease, rounded up (LEA-5); None: it is takeable at once, whatever a clock does."""
    return now + math.ceil(Fraction(ttl) * 1_000_000) if ttl > 0 else None


def _events_after(connection: Connection, run: Row, seq: int) -> list[Row]:
    return list(
        connection.execute(
            select(_events.c.seq, _events.c.payload)
            .where(_events.c.run == run.id, _events.c.seq > seq)
            .order_by(_events.c.seq)
        )
    )


def _event(seq: int, payload: bytes) -> Event:
    event: Event = decode(payload)
    event["seq"] = seq
    return event


def _plain(moment: datetime) -> datetime:
    """An aware datetime as one that the payload format has, whatever subclass and zone it came in."""
    return datetime.combine(moment.date(), moment.time(), timezone(moment.utcoffset() or timedelta()))


class SQLiteHarness:
    """Opens handles on one file in `directory`, which the kit sets before each `open`."""

    capabilities = frozenset(
        {"durable", "crash_safe", "shared", "leases", "snapshots", "rich_terms", "opaque_run_ids"}
    )
    needs = "directory"
    directory: str

    def open(self) -> SQLiteJournal:
        """A handle with connections of its own."""
        return SQLiteJournal(Path(self.directory) / "journal.sqlite3")

    def close(self, journal: SQLiteJournal) -> None:
        """Close a handle."""
        journal.close()
