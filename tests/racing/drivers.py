"""One adapter over three drivers: a connection of psycopg's, a warmed pool of SQLAlchemy's, and asyncpg.

Each is there with a lock and without one. What is found must not depend on who carries the statements.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading

import sqlalchemy
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.util import greenlet_spawn

from continuum_conformance.contract import JournalUnavailable
from tests.racing import postgres

OPERATIONS = (
    "start_run",
    "append",
    "load",
    "load_with_snapshot",
    "suspend",
    "complete",
    "fail",
    "get_run",
    "acquire",
    "renew",
    "release",
)


class _Kept:
    """What a statement gave, once its connection is back in the pool."""

    def __init__(self, result):
        self.rowcount = result.rowcount
        self._rows = [tuple(row) for row in result.fetchall()] if result.returns_rows else []

    def fetchone(self):
        return self._rows[0] if self._rows else None

    def fetchall(self):
        return self._rows


class _Connection:
    """A connection of a pool as psycopg's, as far as the adapter needs it."""

    def __init__(self, connection):
        self._connection = connection
        self._numbered = connection.dialect.driver == "asyncpg"

    def execute(self, statement, parameters=()):
        if self._numbered:
            numbers = itertools.count(1)
            statement = re.sub("%s", lambda _: f"${next(numbers)}", statement)
        return _Kept(self._connection.exec_driver_sql(statement, tuple(parameters)))


class _Pool:
    """Statements outside of a transaction, each on a connection of the pool."""

    closed = False

    def __init__(self, engine):
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    def execute(self, statement, parameters=()):
        with self._engine.connect() as connection:
            return _Connection(connection).execute(statement, parameters)


class PooledJournal(postgres.Journal):
    """A transaction for each operation, on a connection of a pool that has two from the beginning."""

    def __init__(self, engine):
        self._engine, self._mutex = engine, threading.RLock()
        self._connection = _Pool(engine)
        with engine.connect(), engine.connect():
            pass
        with engine.begin() as connection:
            _Connection(connection).execute("SELECT pg_advisory_xact_lock(4711)")
            for statement in postgres.SCHEMA.split(";"):
                _Connection(connection).execute(statement)

    def close(self):
        self._engine.dispose()

    @contextlib.contextmanager
    def _transaction(self):
        try:
            with self._engine.begin() as connection:
                yield _Connection(connection)
        except (OperationalError, InterfaceError) as error:
            raise JournalUnavailable(str(error), outcome_unknown=True) from error


class UnlockedPooledJournal(PooledJournal):
    """Without a lock."""

    lock = ""


class Psycopg(postgres.Harness):
    """Bare psycopg."""


class UnlockedPsycopg(postgres.Harness):
    """Bare psycopg, without a lock."""

    journal_class = postgres.NoLock


class Pool(postgres.Harness):
    """SQLAlchemy's pool over psycopg."""

    journal_class = PooledJournal

    def open(self):
        url = sqlalchemy.make_url(self.dsn).set(drivername="postgresql+psycopg")
        return self.journal_class(sqlalchemy.create_engine(url, pool_size=2))


class UnlockedPool(Pool):
    """SQLAlchemy's pool over psycopg, without a lock."""

    journal_class = UnlockedPooledJournal


class AsyncJournal:
    """The same adapter on asyncpg; each operation in a greenlet, as SQLAlchemy itself has it."""

    def __init__(self, journal):
        self._journal = journal

    async def close(self):
        await greenlet_spawn(self._journal.close)


def _operation(name):
    async def call(self, *arguments):
        return await greenlet_spawn(getattr(self._journal, name), *arguments)

    return call


for _name in OPERATIONS:
    setattr(AsyncJournal, _name, _operation(_name))


class Asyncpg(postgres.Harness):
    """asyncpg's connections in SQLAlchemy's pool."""

    journal_class = PooledJournal

    async def open(self):
        from sqlalchemy.ext.asyncio import create_async_engine

        url = sqlalchemy.make_url(self.dsn).set(drivername="postgresql+asyncpg")
        engine = create_async_engine(url, pool_size=2).sync_engine
        return AsyncJournal(await greenlet_spawn(self.journal_class, engine))

    async def close(self, journal):
        await journal.close()


class UnlockedAsyncpg(Asyncpg):
    """asyncpg's connections in SQLAlchemy's pool, without a lock."""

    journal_class = UnlockedPooledJournal
