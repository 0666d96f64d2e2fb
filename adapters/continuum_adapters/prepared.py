"""One prepared statement, one round trip, on SQLAlchemy's pool.

Core composes a statement and compiles it once (`Statement`); the pool of a SQLAlchemy engine lends a connection;
psycopg prepares the statement at its first use there and executes it (`Database.run`). The connection is in
autocommit mode, so that no BEGIN and no COMMIT is sent and the server commits before it answers. Core's own
``execute`` makes the same round trip, but spends more time around it than the round trip takes, most of it on
composing again what never changes.

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
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Executable, create_engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import InvalidatePoolError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolIsEmpty
from sqlalchemy.pool import ConnectionPoolEntry

from continuum_conformance.contract import InvalidArgument, JournalUnavailable

__all__ = ["Database", "Row", "Statement"]

Row = tuple[Any, ...]
_T = TypeVar("_T")

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


class Database:
    """A pool of connections to one database, and what their failures mean.

    Args:
        dsn: a ``postgresql://`` URI, or anything else that libpq takes.
        pool_size: how many connections to have at most; who finds all of them in use waits.
    """

    def __init__(self, dsn: str, pool_size: int) -> None:
        try:
            parameters = conninfo_to_dict(dsn.replace("+psycopg://", "://", 1), client_encoding="utf8")
        except psycopg.ProgrammingError:
            # Its words are not passed on: they may hold a password.
            raise InvalidArgument("the DSN is not one that libpq can read") from None
        self._engine = create_engine(
            "postgresql+psycopg://",
            connect_args=parameters,
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=1,  # `_patiently` then waits on, unless the journal was closed meanwhile
            pool_use_lifo=True,  # the connection used last has its statements prepared
            pool_reset_on_return=None,  # what is given back is idle, see `_connection`
        )
        event.listen(self._engine, "connect", _set_up)
        event.listen(self._engine, "checkout", self._require_alive)
        self._suspect = False  # whether a connection broke since one was last lent
        self._closed = False

    def close(self) -> None:
        """Close the idle connections now, and those in use when they come back. Later calls are refused."""
        self._closed = True
        self._engine.pool.dispose()

    def run(self, statement: Statement, **values: Any) -> list[Row]:
        """Execute a statement in one round trip, and commit it.

        Raises:
            JournalUnavailable: it did not happen, or, with ``outcome_unknown``, it may have.
        """
        for attempt in itertools.count(1):
            with self._connection() as (connection, cursor):
                if not statement.writes:
                    cursor = connection.cursor(
                        binary=True
                    )  # a kept cursor would keep a long history in memory
                try:
                    return cursor.execute(statement.sql, values, prepare=True).fetchall()
                except psycopg.Error as error:
                    failure, broken = error, connection.closed
                    if error.sqlstate in FORGOTTEN:
                        connection.close()
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
        """A transaction on a connection of SQLAlchemy's, for what is done once."""
        engine = self._engine.execution_options(isolation_level="READ COMMITTED")
        try:
            with self._patiently(engine.connect) as connection, connection.begin():
                yield connection
        except (SQLAlchemyError, psycopg.Error) as error:
            raise JournalUnavailable(_words(error)) from error

    @contextmanager
    def _connection(self) -> Iterator[tuple[psycopg.Connection[Row], psycopg.Cursor[Row]]]:
        """A connection of our own for a while, with the cursor that is kept on it.

        A connection on which something is still under way at the end does not go back.
        """
        lent = self._patiently(self._engine.raw_connection)
        connection: psycopg.Connection[Row] = lent.driver_connection  # type: ignore[assignment]
        try:
            yield connection, lent.info["cursor"]
        finally:
            if connection.pgconn.transaction_status == TransactionStatus.IDLE:
                lent.close()
            else:
                self._suspect = True
                lent.invalidate()
            if self._closed:
                self._engine.pool.dispose()  # the pool was emptied before this one went back

    def _patiently(self, connect: Callable[[], _T]) -> _T:
        """What `connect` gives, once a connection is free and the server has a place."""
        until = time.monotonic() + PATIENCE
        while not self._closed:
            try:
                return connect()
            except PoolIsEmpty:
                until = time.monotonic() + PATIENCE
            except (SQLAlchemyError, psycopg.Error) as error:
                words = _words(error)
                if not any(sign in words for sign in BUSY_SERVER) or time.monotonic() > until:
                    raise JournalUnavailable(words) from error
                time.sleep(random.uniform(0.01, 0.1))
        raise JournalUnavailable("the journal is closed")

    def _require_alive(self, connection: psycopg.Connection[Row], *_: object) -> None:
        """Before a connection is lent: has the server hung up? This asks the socket, not the server.

        For one that is dead the pool opens another, and uses none of the older ones again. Nor does it after a
        connection broke in use, since what breaks one is usually the server's end, and a server that vanished
        does not hang up.
        """
        try:
            connection.pgconn.consume_input()  # reads a farewell, if there is one,
            connection.pgconn.consume_input()  # and the end of the stream behind it
        except psycopg.Error as error:
            raise InvalidatePoolError from error
        if self._suspect:
            self._suspect = False
            raise InvalidatePoolError


class _Number(Dumper):
    """An int sent without a type of its own, as None is: the statement says the type, and is prepared but once."""

    def dump(self, number: int) -> bytes:
        return b"%d" % number


def _set_up(connection: psycopg.Connection[Row], record: ConnectionPoolEntry) -> None:
    connection.adapters.register_dumper(int, _Number)
    connection.execute(_SESSION)
    record.info["cursor"] = connection.cursor(
        binary=True
    )  # a new one for each write costs a tenth of its pace


def _words(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip()
