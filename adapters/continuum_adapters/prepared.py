"""One prepared statement, one round trip, on a small pool.

Core composes a statement and compiles it once (`Statement`); psycopg prepares it at its first use on a connection
and executes it (`Database.run`). The connection is in autocommit mode, so that no BEGIN and no COMMIT is sent and the
server commits before it answers. Core's own ``execute`` makes the same round trip, but spends more time around it
than the round trip takes, most of it on composing again what never changes; and lending a connection out of
SQLAlchemy's pool takes as long as executing the statement.

What a failure means:

- The server refused the statement or rolled it back: it did not happen. Contention is tried again (CON-4),
  anything else is ``JournalUnavailable``.
- The connection broke: nobody knows whether it happened. A read is sent again, a write is ``JournalUnavailable``
  with ``outcome_unknown`` (ATM-4).
- There was no connection to be had: it did not happen. An empty pool is waited out, a busy server for a while.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.adapt import Dumper
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Executable, create_engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from continuum_conformance.contract import InvalidArgument, JournalUnavailable

__all__ = ["Database", "Row", "Statement"]

Row = tuple[Any, ...]

CONTENTION = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available: the statement was rolled back and may be sent again."""

FORGOTTEN = frozenset({"26000", "0A000"})
"""No such prepared statement (a pooler in between gave us another session), or one from before the schema changed."""

BUSY_SERVER = (
    "too many clients",
    "too many connections",
    "remaining connection slots",
    "starting up",
    "recovery",
)
"""What a server says that will take a connection soon. It says so in words alone, without an SQLSTATE."""

PATIENCE = 15.0
"""How many seconds to knock at a server that is busy."""

ATTEMPTS = 3
"""How often to send a statement that surely did not happen, or that changes nothing, when its connection broke."""

_SESSION = """
SELECT set_config('default_transaction_isolation', 'read committed', false),
       set_config('enable_seqscan', 'off', false),
       set_config('jit', 'off', false),
       set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('synchronous_commit',
                  CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
                  ELSE current_setting('synchronous_commit') END, false)
"""
"""What a session of ours relies on, wherever the server's defaults stand.

Each statement sees the latest commits; an acknowledged commit is on disk. Every statement is a look-up by key,
so one plan made once, by index, is right for all sizes of a table (also for one that was empty when it was made).
"""

_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]


class Statement:
    """A statement, compiled once.

    Args:
        composed: a Core statement that returns rows.
        writes: whether it changes anything.
    """

    def __init__(self, composed: Executable, *, writes: bool = False) -> None:
        self.sql = str(composed.compile(dialect=_DIALECT)).encode()  # type: ignore[attr-defined]
        self.writes = writes


class _Session:
    """A connection of ours, with the cursor that is kept on it: a new one for each write costs a tenth of its pace."""

    def __init__(self, connection: psycopg.Connection[Row], generation: int) -> None:
        try:
            connection.adapters.register_dumper(int, _Number)
            connection.execute(_SESSION)
        except BaseException:
            connection.close()
            raise
        self.connection = connection
        self.cursor = connection.cursor(binary=True)
        self.generation = generation

    @property
    def alive(self) -> bool:
        """Whether the server has not hung up. This asks the socket, not the server."""
        try:
            self.connection.pgconn.consume_input()  # reads a farewell, if there is one,
            self.connection.pgconn.consume_input()  # and the end of the stream behind it
        except psycopg.Error:
            return False
        return True


class Database:
    """A pool of sessions with one database, and what their failures mean.

    The session that was used last is lent first: its statements are prepared. When one is found dead, or breaks in
    use, none of those that are open now is used again: what breaks one is usually the server's end, and a server
    that vanished does not hang up.

    Args:
        dsn: a ``postgresql://`` URI, or anything else that libpq takes.
        pool_size: how many sessions to have at most; who finds all of them in use waits.
    """

    def __init__(self, dsn: str, pool_size: int) -> None:
        try:
            self._conninfo = make_conninfo(dsn.replace("+psycopg://", "://", 1), client_encoding="utf8")
        except psycopg.ProgrammingError:
            # Its words are not passed on: they may hold a password.
            raise InvalidArgument("the DSN is not one that libpq can read") from None
        self._idle: list[_Session] = []
        self._places = threading.Semaphore(pool_size)
        self._generation = 0
        self._closed = False

    def close(self) -> None:
        """Close the idle sessions now, and those in use when they come back. Later calls are refused."""
        self._closed = True
        self._dismiss()

    def run(self, statement: Statement, **values: Any) -> list[Row]:
        """Execute a statement in one round trip, and commit it.

        Raises:
            JournalUnavailable: it did not happen, or, with ``outcome_unknown``, it may have.
        """
        for attempt in itertools.count(1):
            session = self._lend()
            connection = session.connection
            try:
                # A kept cursor would keep a long history in memory.
                cursor = session.cursor if statement.writes else connection.cursor(binary=True)
                return cursor.execute(statement.sql, values, prepare=True).fetchall()
            except psycopg.Error as error:
                failure, broken = error, connection.closed
                if error.sqlstate in FORGOTTEN:
                    connection.close()
            finally:
                self._take_back(session)
            if failure.sqlstate in CONTENTION:
                time.sleep(random.uniform(0, 0.02))
                continue
            harmless = failure.sqlstate in FORGOTTEN or (broken and not statement.writes)
            if not harmless or attempt >= ATTEMPTS:
                raise JournalUnavailable(
                    _words(failure), outcome_unknown=broken and statement.writes
                ) from failure
        raise AssertionError("unreachable")

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction of SQLAlchemy's on one of our connections, for what is done once."""
        session = self._lend()
        engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: session.connection,
            poolclass=StaticPool,
            isolation_level="READ COMMITTED",
        )
        try:
            with engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, psycopg.Error) as error:
            raise JournalUnavailable(_words(error)) from error
        finally:
            with suppress(psycopg.Error):  # it is broken, or still in the transaction
                session.connection.autocommit = True
            self._take_back(session)

    # -- the pool --

    def _lend(self) -> _Session:
        """A session of our own for a while."""
        while not self._places.acquire(timeout=1):
            self._require_open()
        try:
            self._require_open()
            return self._latest() or self._connect()
        except BaseException:
            self._places.release()
            raise

    def _take_back(self, session: _Session) -> None:
        """A session on which something is still under way is not used again."""
        if session.connection.pgconn.transaction_status != TransactionStatus.IDLE:
            session.connection.close()
            self._dismiss()
        elif session.generation != self._generation:
            session.connection.close()
        else:
            self._idle.append(session)
        self._places.release()
        if self._closed:
            self._dismiss()

    def _latest(self) -> _Session | None:
        """The idle session that was used last, if there is one and it is alive."""
        try:
            session = self._idle.pop()
        except IndexError:
            return None
        if session.alive:
            return session
        session.connection.close()
        self._dismiss()
        return None

    def _dismiss(self) -> None:
        """Close the idle sessions, and those in use when they come back."""
        self._generation += 1
        with suppress(IndexError):
            while True:
                self._idle.pop().connection.close()

    def _connect(self) -> _Session:
        """A new session, once the server has a place for it."""
        until = time.monotonic() + PATIENCE
        while True:
            generation = self._generation
            try:
                return _Session(psycopg.connect(self._conninfo, autocommit=True), generation)
            except psycopg.Error as error:
                words = _words(error)
                if not any(sign in words for sign in BUSY_SERVER) or time.monotonic() > until:
                    raise JournalUnavailable(words) from error
            time.sleep(random.uniform(0.01, 0.1))
            self._require_open()

    def _require_open(self) -> None:
        if self._closed:
            raise JournalUnavailable("the journal is closed")


class _Number(Dumper):
    """An int sent without a type of its own, as None is: the statement says the type, and is prepared but once."""

    def dump(self, number: int) -> bytes:
        return b"%d" % number


def _words(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip()
