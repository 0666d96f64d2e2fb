"""One prepared statement, one round trip.

SQLAlchemy Core composes a statement, and compiles it once (`Statement`). An execution is libpq's own Bind, Execute
and Sync in one message group, outside of any transaction block, so that the server commits it before it answers
(`Session`). A connection of SQLAlchemy's would make the same round trip, but spends four times the processor's
time around it, most of it on composing again what never changes. `Database` keeps the connections, and decides
what every failure means:

- The server refused the statement or rolled it back: it did not happen. Contention is tried again (CON-4),
  anything else is ``JournalUnavailable``.
- The connection broke after the statement was sent: nobody knows. A read is sent again, a write is
  ``JournalUnavailable`` with ``outcome_unknown`` (ATM-4).
"""

from __future__ import annotations

import itertools
import random
import selectors
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, LargeBinary, NullPool, create_engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import SQLAlchemyError

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

_DIALECT = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]

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
        compiled = composed.compile(dialect=_DIALECT)
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
            tuple(None if (value := get(row, column)) is None else read(value) for column, read in readers)
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


class Session:
    """One connection, outside of any transaction block, with what has been prepared on it.

    Args:
        connection: a new connection, in autocommit mode; it becomes the session's.
        generation: see `Database`.
    """

    def __init__(self, connection: psycopg.Connection[Any], generation: int) -> None:
        self.generation = generation
        self._connection = connection
        self._pgconn = connection.pgconn
        connection.execute(_SESSION)
        self._pgconn.nonblocking = 0
        self._prepared: set[bytes] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pgconn.socket, selectors.EVENT_READ)

    def close(self) -> None:
        """End the connection."""
        self._selector.close()
        self._connection.close()

    @property
    def idle(self) -> bool:
        """Whether the connection stands and nothing is under way on it."""
        return (
            self._pgconn.status == pq.ConnStatus.OK
            and self._pgconn.transaction_status == pq.TransactionStatus.IDLE
        )

    def alive(self) -> bool:
        """Whether the server has not hung up while the connection lay idle. This asks the socket, not the server."""
        try:
            self._pgconn.consume_input()  # reads a farewell, if there is one,
            self._pgconn.consume_input()  # and the end of the stream behind it
        except psycopg.Error:
            return False
        return True

    def prepare(self, statement: Statement) -> pq.abc.PGresult | None:
        """Prepare a statement at its first use on this connection; the result, if that failed."""
        if statement.name in self._prepared:
            return None
        result = self._pgconn.prepare(statement.name, statement.sql)
        if result.status != pq.ExecStatus.COMMAND_OK:
            return result
        self._prepared.add(statement.name)
        return None

    def execute(self, statement: Statement, parameters: list[bytes | None]) -> pq.abc.PGresult:
        """Execute a prepared statement and wait for its result, in a wait that Ctrl-C ends."""
        pgconn = self._pgconn
        pgconn.send_query_prepared(statement.name, parameters, statement.formats, pq.Format.BINARY)
        result = None
        while True:
            while pgconn.is_busy():
                self._selector.select()
                pgconn.consume_input()
            latest = pgconn.get_result()
            if latest is None:
                break
            # The last one counts: the commit comes after the statement's own result, and may fail.
            result = latest
        if result is None:
            raise psycopg.OperationalError("the server gave no result")
        return result


class Database:
    """The sessions on one database, and what their failures mean.

    At most ``pool_size`` sessions are open, and who finds all of them in use waits. The one used last is taken
    first. A broken session begins a new generation: those of the one before are closed rather than tried one by
    one, since what breaks a connection is usually the server's end.

    Args:
        dsn: a ``postgresql://`` URI, or anything else that libpq takes.
        pool_size: how many sessions to have at most.
    """

    def __init__(self, dsn: str, pool_size: int) -> None:
        try:
            self._conninfo = make_conninfo(dsn.replace("+psycopg://", "://", 1), client_encoding="utf8")
        except psycopg.ProgrammingError:
            # Its words are not passed on: they may hold a password.
            raise InvalidArgument("the DSN is not one that libpq can read") from None
        self._places: SimpleQueue[None] = SimpleQueue()  # a semaphore, faster than the library's own
        for _ in range(pool_size):
            self._places.put(None)
        self._idle: list[Session] = []
        self._generation = 0
        self._closed = False

    def close(self) -> None:
        """Close the idle sessions now, and those in use when they come back. Later calls are refused."""
        self._closed = True
        self._close_idle()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction on a connection of SQLAlchemy's, for what is done once."""
        until = time.monotonic() + PATIENCE

        def connect() -> psycopg.Connection[Any]:
            while (connection := self._connect(until)) is None:
                pass
            return connection

        engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
        try:
            with engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, psycopg.Error) as error:
            raise JournalUnavailable(_words(error)) from error

    def run(self, statement: Statement, **values: Any) -> list[Row]:
        """Execute a statement in one round trip, and commit it.

        Raises:
            JournalUnavailable: it did not happen, or, with ``outcome_unknown``, it may have.
        """
        parameters = statement.to_wire(values)
        for attempt in itertools.count(1):
            session = self._take()
            sent, sqlstate = False, ""
            try:
                result = session.prepare(statement)
                if result is None:
                    sent = True
                    result = session.execute(statement, parameters)
                if result.status == pq.ExecStatus.TUPLES_OK:
                    return statement.rows(result)
                sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
                words = result.error_message.decode("utf-8", "replace").strip()
            except psycopg.Error as error:
                words = _words(error)
            finally:
                broken = self._give_back(session, keep=sqlstate not in FORGOTTEN)
            if broken:
                harmless = not (sent and statement.writes)
                if not harmless or attempt >= ATTEMPTS:
                    raise JournalUnavailable(words, outcome_unknown=not harmless)
            elif sqlstate in CONTENTION:
                time.sleep(random.uniform(0, min(0.001 * 2**attempt, 0.1)))
            elif sqlstate not in FORGOTTEN or attempt >= ATTEMPTS:
                raise JournalUnavailable(f"{words} ({sqlstate})")
        raise AssertionError("unreachable")

    def _take(self) -> Session:
        """A session of our own for a while: an idle one that is not known to be dead, or a new one."""
        self._places.get()
        until = time.monotonic() + PATIENCE
        try:
            while not self._closed:
                session = self._pop_idle()
                if session is not None:
                    if session.generation == self._generation and session.alive():
                        return session
                    session.close()
                    continue
                connection = self._connect(until, autocommit=True)
                if connection is not None:
                    return _session(connection, self._generation)
            raise JournalUnavailable("the journal is closed")
        except BaseException:
            self._places.put(None)
            raise

    def _connect(self, until: float, *, autocommit: bool = False) -> psycopg.Connection[Any] | None:
        """A new connection, or after a moment None, when the server is busy and asks for patience."""
        try:
            return psycopg.connect(self._conninfo, autocommit=autocommit)
        except psycopg.Error as error:
            words = _words(error)
            if not any(sign in words for sign in BUSY_SERVER) or time.monotonic() > until:
                raise JournalUnavailable(words) from error
        time.sleep(random.uniform(0.01, 0.1))
        return None

    def _give_back(self, session: Session, *, keep: bool = True) -> bool:
        """Return a session, and say whether it is broken."""
        broken = not session.idle
        if broken or not keep:
            session.close()
        else:
            self._idle.append(session)
        if broken and session.generation == self._generation:
            self._generation += 1
        if self._closed:
            self._close_idle()
        self._places.put(None)
        return broken

    def _pop_idle(self) -> Session | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _close_idle(self) -> None:
        while (session := self._pop_idle()) is not None:
            session.close()


def _session(connection: psycopg.Connection[Any], generation: int) -> Session:
    try:
        return Session(connection, generation)
    except BaseException as error:
        connection.close()
        if isinstance(error, psycopg.Error):
            raise JournalUnavailable(_words(error)) from error
        raise


def _words(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip()
