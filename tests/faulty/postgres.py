"""Faults over PostgreSQL: one connection that is made anew when it was lost, and ways to get that wrong."""

from __future__ import annotations

import contextlib
import datetime
import threading
import time

import psycopg
from psycopg import errors as pg

from continuum_conformance.contract import JournalUnavailable
from tests.bank import Bank
from tests.racing import postgres


class Journal(postgres.Journal):
    """Says that the outcome is unknown, and connects again at the next call."""


class Harness(postgres.Harness):
    capabilities = postgres.Harness.capabilities | {"crash_safe"}


_bank = Bank(__name__, Harness)
WRONG = _bank.WRONG
SEEN_IN = _bank.SEEN_IN
RIGHT = _bank.RIGHT
ADVISED = _bank.ADVISED
wrong = _bank.wrong
right = _bank.right


right(Journal)


@wrong("ATM-3", seen_in="https://github.com/langchain-ai/langgraph/pull/6107")
class NeverConnectsAgain(Journal):
    """The connection is made once, when the journal is opened."""

    def _connected(self):
        return self._connection


@wrong("ATM-4", "ATM-1", seen_in="https://github.com/kurrent-io/KurrentDB/issues/1358")
class SaysThatItDidNot(Journal):
    """A lost connection is taken for a refusal: the caller tries again, and does it twice."""

    unknown = False


@wrong("ATM-4", "ATM-2", seen_in="https://github.com/langchain-ai/langgraph/issues/5675")
class LetsTheDriverSpeak(Journal):
    """The driver's error comes out as it is."""

    @contextlib.contextmanager
    def _transaction(self):
        with self._mutex:
            try:
                with self._connected().transaction():
                    yield self._connection
            except pg.OperationalError:
                self._connection.close()
                raise


@wrong("ATM-1", "ATM-4", seen_in="https://github.com/kurrent-io/KurrentDB/pull/1357")
class TriesAgainBlindly(Journal):
    """After a lost connection the operation is done once more, though it may have been done."""

    def _retried(self, act):
        try:
            return act()
        except JournalUnavailable:
            return act()


@wrong("ATM-1", "ATM-4", "CON-1", "CON-2", seen_in="https://github.com/perokvist/Dapr.EventStore/issues/1")
class CommitsTheStateFirst(Journal):
    """A finish is two transactions: the state, then its result."""

    def _transition(self, key, token, state, result, error):
        super()._transition(key, token, state, None, None)
        with self._transaction() as c:
            c.execute(
                "UPDATE run SET result = %s, error = %s WHERE instance = %s AND id = %s",
                (result, error, *key),
            )


@wrong("DUR-3")
class CommitsWithoutWaiting(Journal):
    """Faster: synchronous_commit is off."""

    settings = "SET synchronous_commit = off"


@wrong("DUR-3")
class UnloggedEvents(Journal):
    """Faster: the table of events writes no log."""

    def _prepare(self):
        with self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(4711)")
            row = self._connection.execute(
                "SELECT relpersistence FROM pg_class WHERE oid = to_regclass('event')"
            ).fetchone()
            if row != ("u",):
                self._connection.execute("ALTER TABLE event SET UNLOGGED")


@wrong("ATM-3")
class LeavesATransactionBehind(Journal):
    """After a loss it looks whether the server is there, and forgets that connection with its transaction."""

    kept: list = []

    def _connected(self):
        if self._connection.closed:
            probe = psycopg.connect(self._dsn)
            probe.execute("SELECT 1")
            self.kept.append(probe)
        return super()._connected()


# -- what is only advised against --


@_bank.advised("ATM-3s")
class TwoConnections(Journal):
    """Takes turns with two connections, each of which has to fail before it is made anew."""

    def __init__(self, dsn):
        super().__init__(dsn)
        self._spare = psycopg.connect(dsn, autocommit=True)

    def _connected(self):
        self._connection, self._spare = self._spare, self._connection
        return super()._connected()

    def close(self):
        super().close()
        self._spare.close()


# -- load --


@wrong("CON-4")
class OneAtATime(Journal):
    """Who finds the connection in use is told to come again."""

    @contextlib.contextmanager
    def _transaction(self):
        if not self._mutex.acquire(blocking=False):
            raise JournalUnavailable("all connections are in use")
        try:
            with super()._transaction() as connection:
                yield connection
        finally:
            self._mutex.release()


@wrong("ATM-3", "ATM-1", seen_in="https://github.com/zotonic/zotonic/pull/2676")
class StaysInTheTransaction(Journal):
    """A statement that the server ends leaves its transaction open, and the next call runs into it."""

    @contextlib.contextmanager
    def _transaction(self):
        with self._mutex:
            connection = self._connected()
            try:
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            except pg.QueryCanceled as error:
                raise JournalUnavailable(str(error)) from error
            except (pg.OperationalError, pg.InterfaceError) as error:
                connection.close()
                raise JournalUnavailable(str(error), outcome_unknown=True) from error
            except BaseException:
                connection.execute("ROLLBACK")
                raise


@wrong("ATM-3")
class GivesUpForGood(Journal):
    """A server that is full is taken for one that is gone."""

    gone = False

    def _connected(self):
        if self.gone:
            raise pg.OperationalError("the server is gone")
        try:
            return super()._connected()
        except pg.OperationalError:
            self.gone = True
            raise


@wrong("ATM-1")
class KeepsItForLater(Journal):
    """An event for which there is no connection is acknowledged, and kept in memory for the next append."""

    def __init__(self, dsn):
        super().__init__(dsn)
        self._later = []

    def _append(self, key, token, plain, seq):
        try:
            self._connected()
        except pg.OperationalError:
            self._later.append((key, token, plain, seq))
            return
        for kept in self._later:
            super()._append(*kept)
        self._later.clear()
        super()._append(key, token, plain, seq)


@wrong("ATM-3")
class LeaksItsSlots(Journal):
    """Of its slots one is in use while it connects; a connection that is refused gives it back to nobody."""

    def __init__(self, dsn):
        self._slots = threading.BoundedSemaphore(10)
        super().__init__(dsn)

    def _connected(self):
        if not self._slots.acquire(timeout=0.02):
            raise pg.OperationalError("no slot is free")
        connection = super()._connected()
        self._slots.release()
        return connection


# -- clocks --


@right
class LeaseTimes(Journal):
    """Its leases' times in ways to be overridden."""

    def now(self):
        return "clock_timestamp()"

    def judged_by(self):
        return "clock_timestamp()"

    def _row(self, c, key, lock=None):
        lock = self.lock if lock is None else lock
        return c.execute(
            f"SELECT state, token, owner, expires IS NOT NULL AND expires <= {self.judged_by()}, last_token, workflow,"
            f" input, result, error, version FROM run WHERE instance = %s AND id = %s {lock}",
            key,
        ).fetchone()

    def _grant(self, c, key, token, owner, ttl):
        c.execute(
            f"UPDATE run SET owner = %s, token = %s, last_token = %s, expires = {self._until(ttl)}"
            " WHERE instance = %s AND id = %s",
            (owner, token, token, *key),
        )
        return token

    def _extend(self, c, key, held, ttl):
        c.execute(f"UPDATE run SET expires = {self._until(ttl)} WHERE instance = %s AND id = %s", key)

    def _until(self, ttl):
        return f"{self.now()} + make_interval(secs => {float(ttl)})" if ttl else "'-infinity'"


def _client():
    return f"'{datetime.datetime.now(datetime.UTC).isoformat()}'::timestamptz"


@wrong("CLK-1", seen_in="https://github.com/johanhaleby/occurrent/issues/659")
class ClientSetsTheExpiry(LeaseTimes):
    """The expiry is computed in Python and judged in the database."""

    def now(self):
        return _client()


@wrong("CLK-1", seen_in="https://github.com/johanhaleby/occurrent/issues/662")
class ClientJudgesTheExpiry(LeaseTimes):
    """The expiry is set in the database and judged in Python."""

    def judged_by(self):
        return _client()


@wrong("CLK-1")
class ClientsClockForBoth(LeaseTimes):
    """The database is only where the numbers are kept."""

    now = judged_by = lambda self: _client()


@wrong("CLK-1", seen_in="https://github.com/LFDT-Panurus/panurus/pull/2244")
class ClientsLocalTime(LeaseTimes):
    """A naive datetime, of whatever zone the process lives in."""

    def now(self):
        return f"'{datetime.datetime.now().isoformat()}'::timestamptz"


@wrong("CLK-1")
class SetsTheClockWhenItConnects(LeaseTimes):
    """Asks the server for its time once, and adds what has passed here since."""

    def _prepare(self):
        row = self._connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        self._ahead = row[0] - time.time()

    now = judged_by = lambda self: f"to_timestamp({time.time() + self._ahead})"


@wrong("LEA-9", seen_in="https://github.com/nextlyhq/nextly/pull/777")
class TransactionsTime(LeaseTimes):
    """now() is when the transaction began, before it waited for the row."""

    def now(self):
        return "now()"


@wrong("LEA-9", seen_in="https://github.com/VangelisTech/archetype/pull/680")
class StatementsTime(LeaseTimes):
    """The clock is read in a statement of its own before the row is locked."""

    def _acquire(self, key, owner, ttl):
        with self._mutex:
            self._read_clock()
            return super()._acquire(key, owner, ttl)

    def renew(self, instance, lease, ttl):
        with self._mutex:
            self._read_clock()
            super().renew(instance, lease, ttl)

    def _read_clock(self):
        row = self._connected().execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        self._read = row[0]

    def now(self):
        return f"to_timestamp({self._read})"


@wrong("LEA-9")
class OneUpdateWithoutALock(LeaseTimes):
    """A single UPDATE, which computes the expiry before it waits for the row."""

    def _acquire(self, key, owner, ttl):
        with self._transaction() as c:
            row = c.execute(
                f"UPDATE run SET owner = %s, token = last_token + 1, last_token = last_token + 1,"
                f" expires = {self._until(ttl)} WHERE instance = %s AND id = %s AND state IN ('running', 'suspended')"
                " AND (token IS NULL OR expires <= clock_timestamp()) RETURNING token",
                (owner, *key),
            ).fetchone()
            if row is None:
                return super()._acquire(key, owner, ttl)
        return row[0]


@wrong("CON-1")
class TablesMadeWithoutALock(Journal):
    """CREATE TABLE IF NOT EXISTS looks safe; two sessions that do it at once meet in the catalogue."""

    def __init__(self, dsn):
        self._dsn, self._mutex = dsn, threading.RLock()
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._connection.execute(postgres.SCHEMA)
        self._prepare()
