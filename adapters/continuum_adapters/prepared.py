"""One prepared statement, one round trip: SQLAlchemy's statements and pool over libpq's own calls.

SQLAlchemy Core composes a statement and compiles it once (`Statement`), and its pool keeps the connections
(`Database`). Between them an execution is libpq's ``PQexecPrepared``: Bind, Execute and Sync in one message
group, outside of any transaction block, so that the server commits it before it answers. `Engine.execute` would
do the same round trip at about half the speed, most of it spent on composing again what never changes.

`Database.run` also decides what every failure means:

- the server refused or rolled back the statement: it did not happen. Contention is tried again (CON-4), anything
  else is ``JournalUnavailable``;
- the connection broke after the statement was sent: nobody knows. A read is sent again, a write is
  ``JournalUnavailable`` with ``outcome_unknown`` (ATM-4).
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, LargeBinary, create_engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import Pool, PoolProxiedConnection

from continuum_conformance.contract import InvalidArgument, JournalUnavailable

__all__ = ["Database", "Row", "Statement"]

Row = tuple[Any, ...]

CONTENTION = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available: the statement was rolled back and may be sent again."""

FORGOTTEN = frozenset({"26000", "0A000"})
"""No such prepared statement (a pooler in between gave us another session), or one from before the schema changed."""

BUSY_SERVER = ("too many clients", "too many connections", "remaining connection slots", "starting up", "recovery")
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


class Statement:
    """A statement, compiled once.

    Args:
        name: its name on the server.
        composed: a Core statement that returns rows.
        writes: whether it changes anything.
    """

    def __init__(self, name: str, composed: Any, *, writes: bool = False) -> None:
        compiled = composed.compile(dialect=PGDialect_psycopg(paramstyle="numeric_dollar"))
        self.name = name.encode()
        self.sql = compiled.string.encode()
        self.writes = writes
        self._parameters: list[str] = compiled.positiontup
        self.formats = [
            pq.Format.BINARY if isinstance(compiled.binds[name].type, LargeBinary) else pq.Format.TEXT
            for name in self._parameters
        ]
        self._readers = [_READERS[column.type.python_type] for column in composed.exported_columns]

    def to_wire(self, values: Mapping[str, Any]) -> list[bytes | None]:
        """The parameters in their order, as bytes."""
        return [_to_wire(values[name]) for name in self._parameters]

    def rows(self, result: pq.abc.PGresult) -> list[Row]:
        """The rows of a result that came in the binary format."""
        readers = list(enumerate(self._readers))
        get = result.get_value
        return [
            tuple(
                None if (value := get(row, column)) is None else read(value)
                for column, read in readers
            )
            for row in range(result.ntuples)
        ]


def _to_wire(value: Any) -> bytes | None:
    if value is None or type(value) is bytes:
        return value
    return value.encode() if isinstance(value, str) else b"%d" % value


_READERS: dict[type, Callable[[bytes], Any]] = {
    int: lambda value: int.from_bytes(value, "big", signed=True),
    str: bytes.decode,
    bytes: bytes,
    bool: lambda value: value == b"\1",
}


class Database:
    """A pool of connections to one database, and what their failures mean.

    Args:
        dsn: a ``postgresql://`` URI, or anything else that libpq takes.
        pool_size: how many connections to hold at most. They are opened when they are first needed; who finds
            all of them in use waits.
    """

    def __init__(self, dsn: str, pool_size: int) -> None:
        try:
            arguments = {"connect_timeout": 10, **conninfo_to_dict(dsn.replace("+psycopg://", "://", 1))}
        except psycopg.ProgrammingError:
            raise InvalidArgument("the DSN is not one that libpq can read") from None  # it may hold a password
        arguments |= {"client_encoding": "utf8", "autocommit": True, "prepare_threshold": None}
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: psycopg.connect(**arguments),
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=None,  # no limit: an empty pool is waited out (CON-4)
            pool_use_lifo=True,
            use_native_hstore=False,
        )
        event.listen(self._engine, "connect", _set_up)
        self._closed = False

    def close(self) -> None:
        """Close the idle connections now, and those in use when they come back. Later calls are refused."""
        self._closed = True
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction on a connection of SQLAlchemy's, for what is not done often."""
        try:
            with (
                self._engine.connect().execution_options(isolation_level="READ COMMITTED") as connection,
                connection.begin(),
            ):
                yield connection
        except (SQLAlchemyError, psycopg.Error) as error:
            raise JournalUnavailable(_words(error), outcome_unknown=True) from error

    def run(self, statement: Statement, **values: Any) -> list[Row]:
        """Execute a statement in one round trip, and commit it.

        Raises:
            JournalUnavailable: it did not happen, or, with ``outcome_unknown``, it may have.
        """
        parameters = statement.to_wire(values)
        for attempt in itertools.count(1):
            pool, connection = self._checkout()
            sent, sqlstate = False, None
            try:
                pgconn = connection.driver_connection.pgconn  # type: ignore[union-attr]
                result = _prepare(connection, pgconn, statement)
                if result is None:
                    sent = True
                    result = pgconn.exec_prepared(statement.name, parameters, statement.formats, pq.Format.BINARY)
                if result.status == pq.ExecStatus.TUPLES_OK:
                    return statement.rows(result)
                sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
                words = result.error_message.decode("utf-8", "replace").strip()
            except psycopg.Error as error:
                words = _words(error)
            finally:
                broken = self._give_back(pool, connection, keep=sqlstate not in FORGOTTEN)
            if broken:
                harmless = not (sent and statement.writes)
                if harmless and attempt < ATTEMPTS:
                    continue
                raise JournalUnavailable(words, outcome_unknown=not harmless)
            if sqlstate in CONTENTION:
                time.sleep(random.uniform(0, min(0.001 * 2**attempt, 0.1)))
            elif sqlstate not in FORGOTTEN or attempt >= ATTEMPTS:
                raise JournalUnavailable(f"{words} ({sqlstate})")
        raise AssertionError("unreachable")

    def _checkout(self) -> tuple[Pool, PoolProxiedConnection]:
        """A connection that is not known to be dead, and the pool that it goes back to."""
        until = time.monotonic() + PATIENCE
        while True:
            if self._closed:
                raise JournalUnavailable("the journal is closed")
            pool = self._engine.pool
            try:
                connection = pool.connect()
            except (SQLAlchemyError, psycopg.Error) as error:
                words = _words(error)
                if not any(sign in words for sign in BUSY_SERVER) or time.monotonic() > until:
                    raise JournalUnavailable(words) from error
                time.sleep(random.uniform(0.01, 0.1))
                continue
            if _alive(connection):
                return pool, connection
            self._give_back(pool, connection)

    def _give_back(self, pool: Pool, connection: PoolProxiedConnection, *, keep: bool = True) -> bool:
        """Return a connection, and say whether it is broken: then all of its pool go, since a restart broke them all."""
        pgconn = connection.driver_connection.pgconn  # type: ignore[union-attr]
        broken = pgconn.status != pq.ConnStatus.OK or pgconn.transaction_status != pq.TransactionStatus.IDLE
        if broken or not keep:
            connection.invalidate()
        connection.close()
        if broken and pool is self._engine.pool:
            self._engine.dispose()
        if self._closed or pool is not self._engine.pool:
            pool.dispose()  # ours went back to a pool that nobody takes from
        return broken


def _set_up(connection: Any, _: object) -> None:
    connection.execute(_SESSION)


def _alive(connection: PoolProxiedConnection) -> bool:
    """Whether the server has not closed a connection while it lay idle; asks the socket, not the server."""
    try:
        pgconn = connection.driver_connection.pgconn  # type: ignore[union-attr]
        pgconn.consume_input()  # reads a farewell, if there is one,
        pgconn.consume_input()  # and the end of the stream behind it
    except psycopg.Error:
        return False
    return bool(pgconn.status == pq.ConnStatus.OK)


def _prepare(connection: PoolProxiedConnection, pgconn: Any, statement: Statement) -> Any:
    """Prepare a statement on a connection's first use of it; the result if that failed."""
    if statement.name in connection.info:
        return None
    result = pgconn.prepare(statement.name, statement.sql)
    if result.status != pq.ExecStatus.COMMAND_OK:
        return result
    connection.info[statement.name] = True
    return None


def _words(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip()
