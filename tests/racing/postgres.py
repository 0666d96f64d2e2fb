"""Races in PostgreSQL: a plain psycopg adapter whose locks and statements come in right and wrong styles."""

from __future__ import annotations

import contextlib
import threading

import psycopg
from continuum_adapters.codec import decode, encode
from psycopg import errors as pg

from continuum_conformance.contract import (
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
)
from continuum_conformance.contract.arguments import (
    check_event,
    check_lease,
    check_name,
    check_names,
    check_token,
    check_ttl,
)
from tests.bank import Bank

SCHEMA = """
CREATE TABLE IF NOT EXISTS run (
  instance text COLLATE "C", id text COLLATE "C", workflow text, state text DEFAULT 'running',
  input bytea, result bytea, error bytea, owner text, token bigint, last_token bigint DEFAULT 0,
  expires timestamptz, version bigint DEFAULT 0, PRIMARY KEY (instance, id));
CREATE TABLE IF NOT EXISTS event (
  instance text COLLATE "C", id text COLLATE "C", seq bigint, data bytea, PRIMARY KEY (instance, id, seq))
"""


class Journal:
    """One connection, made anew after a loss, a lock for its threads, and a transaction for each operation."""

    lock = "FOR UPDATE"
    isolation: str | None = None
    retries = 0
    settings = ""
    unknown = True
    """What is said of the outcome when the connection is lost."""

    def __init__(self, dsn):
        self._dsn, self._mutex = dsn, threading.RLock()
        self._connection = psycopg.connect(dsn, autocommit=True)
        with self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(4711)")
            self._connection.execute(SCHEMA)
        self._prepare()

    def _prepare(self):
        if self.settings:
            self._connection.execute(self.settings)

    def _connected(self):
        if self._connection.closed:
            self._connection = psycopg.connect(self._dsn, autocommit=True)
            self._prepare()
        return self._connection

    def close(self):
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self):
        with self._mutex:
            try:
                with self._connected().transaction():
                    if self.isolation:
                        self._connection.execute(f"SET TRANSACTION ISOLATION LEVEL {self.isolation}")
                    yield self._connection
            except (pg.OperationalError, pg.InterfaceError) as error:
                if isinstance(error, (pg.SerializationFailure, pg.DeadlockDetected)):
                    raise
                self._connection.close()
                raise JournalUnavailable(str(error), outcome_unknown=self.unknown) from error

    @contextlib.contextmanager
    def _lost(self):
        try:
            self._connected()
            yield
        except (pg.OperationalError, pg.InterfaceError) as error:
            self._connection.close()
            raise JournalUnavailable(str(error)) from error

    def _retried(self, act):
        for _ in range(self.retries):
            try:
                return act()
            except (pg.SerializationFailure, pg.DeadlockDetected):
                continue
        return act()

    def _row(self, c, key, lock=None):
        lock = self.lock if lock is None else lock
        return c.execute(
            f"SELECT state, token, owner, expires IS NOT NULL AND expires <= clock_timestamp(), last_token, workflow,"
            f" input, result, error, version FROM run WHERE instance = %s AND id = %s {lock}",
            key,
        ).fetchone()

    def _active(self, row):
        if row is None:
            raise RunNotFound
        if row[0] in ("completed", "failed"):
            raise RunNotActive

    def _fence(self, row, token):
        if row[1] != token:
            raise LeaseMismatch

    def start_run(self, instance, run_id, workflow, input):
        key = check_names(instance, run_id)
        check_name(workflow, "workflow")
        self._retried(lambda: self._start(key, workflow, encode(input, "input")))

    def _start(self, key, workflow, data):
        with self._transaction() as c:
            made = c.execute(
                "INSERT INTO run (instance, id, workflow, input) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (*key, workflow, data),
            ).rowcount
            if not made:
                raise RunAlreadyExists

    def append(self, instance, run_id, event, lease_token):
        key, token = check_names(instance, run_id), check_token(lease_token)
        plain, seq = check_event(event)
        self._retried(lambda: self._append(key, token, plain, seq))

    def _append(self, key, token, plain, seq):
        with self._transaction() as c:
            row = self._row(c, key)
            self._active(row)
            self._fence(row, token)
            following = self._count(c, key)
            if seq is not None and seq != following:
                raise SequenceConflict
            self._insert(c, key, following, plain)

    def _count(self, c, key):
        return c.execute("SELECT count(*) FROM event WHERE instance = %s AND id = %s", key).fetchone()[0]

    def _insert(self, c, key, seq, plain):
        c.execute(
            "INSERT INTO event VALUES (%s, %s, %s, %s)", (*key, seq, encode({**plain, "seq": seq}, "event"))
        )

    def load(self, instance, run_id):
        key = check_names(instance, run_id)
        with self._mutex, self._lost():
            rows = self._connection.execute(
                "SELECT data FROM event WHERE instance = %s AND id = %s ORDER BY seq", key
            ).fetchall()
        return [decode(data) for (data,) in rows]

    def load_with_snapshot(self, instance, run_id, lease_token):
        key, token = check_names(instance, run_id), check_token(lease_token)
        return None, self._retried(lambda: self._fenced_load(key, token))

    def _fenced_load(self, key, token):
        with self._transaction() as c:
            row = self._row(c, key)
            if row is None:
                raise RunNotFound
            self._fence(row, token)
            rows = c.execute(
                "SELECT data FROM event WHERE instance = %s AND id = %s ORDER BY seq", key
            ).fetchall()
        return [decode(data) for (data,) in rows]

    def get_run(self, instance, run_id):
        key = check_names(instance, run_id)
        with self._mutex, self._lost():
            row = self._row(self._connection, key, "")
        if row is None:
            return None
        terms = [None if data is None else decode(data) for data in row[6:9]]
        return Run(run_id, row[5], RunState(row[0]), *terms)

    def suspend(self, instance, run_id, lease_token):
        self._finish(instance, run_id, lease_token, "suspended", None, None)

    def complete(self, instance, run_id, result, lease_token):
        self._finish(instance, run_id, lease_token, "completed", encode(result, "result"), None)

    def fail(self, instance, run_id, error, lease_token):
        self._finish(instance, run_id, lease_token, "failed", None, encode(error, "error"))

    def _finish(self, instance, run_id, lease_token, state, result, error):
        key, token = check_names(instance, run_id), check_token(lease_token)
        self._retried(lambda: self._transition(key, token, state, result, error))

    def _transition(self, key, token, state, result, error):
        with self._transaction() as c:
            row = self._row(c, key)
            self._active(row)
            self._fence(row, token)
            ends = "" if state == "suspended" else ", token = NULL, owner = NULL, expires = NULL"
            c.execute(
                f"UPDATE run SET state = %s, result = %s, error = %s{ends} WHERE instance = %s AND id = %s",
                (state, result, error, *key),
            )

    def acquire(self, instance, run_id, owner, ttl):
        key = check_names(instance, run_id)
        check_name(owner, "owner")
        check_ttl(ttl)
        token = self._retried(lambda: self._acquire(key, owner, ttl))
        return Lease(run_id, owner, token)

    def _acquire(self, key, owner, ttl):
        with self._transaction() as c:
            row = self._row(c, key)
            self._active(row)
            if row[1] is not None and not row[3]:
                raise LeaseHeld
            return self._grant(c, key, row[4] + 1, owner, ttl)

    def _grant(self, c, key, token, owner, ttl):
        c.execute(
            "UPDATE run SET owner = %s, token = %s, last_token = %s, expires = CASE WHEN %s::float8 = 0 THEN '-infinity'"
            " ELSE clock_timestamp() + make_interval(secs => %s) END WHERE instance = %s AND id = %s",
            (owner, token, token, float(ttl), float(ttl), *key),
        )
        return token

    def renew(self, instance, lease, ttl):
        key, held = self._held(instance, lease)
        check_ttl(ttl)

        def act():
            with self._transaction() as c:
                self._holder(self._row(c, key), held)
                self._extend(c, key, held, ttl)

        self._retried(act)

    def _extend(self, c, key, held, ttl):
        c.execute(
            "UPDATE run SET expires = CASE WHEN %s::float8 = 0 THEN '-infinity' ELSE clock_timestamp()"
            " + make_interval(secs => %s) END WHERE instance = %s AND id = %s",
            (float(ttl), float(ttl), *key),
        )

    def release(self, instance, lease):
        key, held = self._held(instance, lease)

        def act():
            with self._transaction() as c:
                self._holder(self._row(c, key), held)
                c.execute(
                    "UPDATE run SET token = NULL, owner = NULL, expires = NULL WHERE instance = %s AND id = %s",
                    key,
                )

        self._retried(act)

    def _held(self, instance, lease):
        held = check_lease(lease)
        return check_names(instance, held.run_id), held

    def _holder(self, row, held):
        if row is None:
            raise RunNotFound
        if row[0] in ("completed", "failed") or (row[1], row[2]) != (held.token, held.owner):
            raise LeaseLost


class Harness:
    capabilities = {"leases", "rich_terms", "opaque_run_ids", "durable", "shared"}
    needs = "postgres"
    journal_class = Journal

    def open(self):
        return self.journal_class(self.dsn)

    def close(self, journal):
        journal.close()


_bank = Bank(__name__, Harness)
WRONG = _bank.WRONG
SEEN_IN = _bank.SEEN_IN
RIGHT = _bank.RIGHT
wrong = _bank.wrong
right = _bank.right


# -- right --


@right
class ForUpdate(Journal):
    """SELECT ... FOR UPDATE of the run's row, first thing."""


@right
class ForNoKeyUpdate(Journal):
    """The weaker lock that still keeps writers apart."""

    lock = "FOR NO KEY UPDATE"


@right
class AdvisoryLock(Journal):
    """No row lock: an advisory one by the run's key, for the length of the transaction."""

    lock = ""

    def _row(self, c, key, lock=None):
        if lock is None:
            c.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", ("\x1f".join(map(repr, key)),))
        return super()._row(c, key, "")


@right
class SerializableTouchingTheRow(Journal):
    """No locks: SERIALIZABLE, a retry when the server finds a conflict, and every write touches the run's row."""

    lock = ""
    isolation = "SERIALIZABLE"
    retries = 50

    def _row(self, c, key, lock=None):
        if lock is None:
            c.execute("UPDATE run SET version = version + 1 WHERE instance = %s AND id = %s", key)
        return super()._row(c, key, "")


@right
class TableLock(Journal):
    """One lock for everything."""

    lock = ""

    def _row(self, c, key, lock=None):
        if lock is None:
            c.execute("LOCK TABLE run IN EXCLUSIVE MODE")
        return super()._row(c, key, "")


# -- wrong --


@wrong("FEN-5", "CON-1", "CON-3", "CON-2", "CON-4", seen_in="https://github.com/JasperFx/marten/issues/1665")
class NoLock(Journal):
    """Check then write in one transaction, READ COMMITTED, without a lock: a transaction is no lock."""

    lock = ""


@wrong("FEN-5", "CON-1", "CON-3", "CON-2", "CON-4")
class ForKeyShare(Journal):
    """FOR KEY SHARE sounds like enough, since the key is what must not change; two writers share it."""

    lock = "FOR KEY SHARE"


@wrong(
    "CON-4",
    "FEN-5",
    "CON-1",
    "CON-3",
    "CON-2",
    "ATM-2",
    seen_in="https://github.com/OCA/connector/issues/161",
)
class RepeatableRead(Journal):
    """REPEATABLE READ sees one moment, the wrong one; and what fails at its end is not retried."""

    lock = ""
    isolation = "REPEATABLE READ"


@wrong(
    "CON-4",
    "ATM-2",
    "CON-1",
    "CON-2",
    "CON-3",
    "FEN-5",
    seen_in="https://github.com/argoproj/argo-workflows/issues/16101",
)
class SerializableWithoutRetry(Journal):
    """SERIALIZABLE is safe, and its serialization failures go to the caller."""

    lock = ""
    isolation = "SERIALIZABLE"


@wrong("FEN-5", "CON-1", "APP-6", "CON-4")
class SerializableIsNotLinearizable(Journal):
    """SERIALIZABLE with retries: an append that read the run before its finish may commit after it was acknowledged.

    Some serial order explains the two transactions, append first; but whoever was told of the finish, and read,
    knows better. Only a write to the run's row makes the append conflict.
    """

    lock = ""
    isolation = "SERIALIZABLE"
    retries = 50


@wrong("FEN-5", "CON-1", "APP-6", seen_in="https://github.com/cherrytea-dev/la_searcher_bot/pull/957")
class TwoTransactions(Journal):
    """The fence in one transaction, the event in the next: the connection is in autocommit."""

    def _append(self, key, token, plain, seq):
        with self._transaction() as c:
            row = self._row(c, key)
            self._active(row)
            self._fence(row, token)
        with self._transaction() as c:
            self._row(c, key)
            following = self._count(c, key)
            if seq is not None and seq != following:
                raise SequenceConflict
            self._insert(c, key, following, plain)


@wrong("FEN-5", "CON-1", "LEA-5", "CON-2")
class LockAfterTheCheck(Journal):
    """Reads and checks the run, then locks it and writes: the lock comes too late."""

    def _append(self, key, token, plain, seq):
        with self._transaction() as c:
            row = self._row(c, key, "")
            self._active(row)
            self._fence(row, token)
            self._row(c, key)
            following = self._count(c, key)
            if seq is not None and seq != following:
                raise SequenceConflict
            self._insert(c, key, following, plain)


@wrong("CON-2", "CON-1", "FEN-5", "LEA-4")
class TakeoverReadsWithoutLock(Journal):
    """Acquire reads the lease without a lock and then updates it: two thieves get the same token."""

    def _acquire(self, key, owner, ttl):
        with self._transaction() as c:
            row = self._row(c, key, "")
            self._active(row)
            if row[1] is not None and not row[3]:
                raise LeaseHeld
            return self._grant(c, key, row[4] + 1, owner, ttl)


@wrong("FEN-5", "CON-1", "LEA-7", seen_in="https://github.com/apache/superset/pull/43462")
class ReleaseInTwoSteps(Journal):
    """Release checks the holder in one transaction and clears the lease in another."""

    def release(self, instance, lease):
        key, held = self._held(instance, lease)
        with self._transaction() as c:
            self._holder(self._row(c, key), held)
        with self._transaction() as c:
            c.execute(
                "UPDATE run SET token = NULL, owner = NULL, expires = NULL WHERE instance = %s AND id = %s",
                key,
            )


@wrong("FEN-5", "CON-1", "CON-2", "APP-6", seen_in="https://github.com/riverqueue/river/issues/1302")
class FinishWithoutItsState(Journal):
    """A finish looks at the state, commits, and then updates by the key alone."""

    def _transition(self, key, token, state, result, error):
        with self._transaction() as c:
            row = self._row(c, key)
            self._active(row)
            self._fence(row, token)
        with self._transaction() as c:
            c.execute(
                "UPDATE run SET state = %s, result = %s, error = %s WHERE instance = %s AND id = %s",
                (state, result, error, *key),
            )
