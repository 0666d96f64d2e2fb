"""PostgreSQL in five ways: SERIALIZABLE with retries, advisory locks, READ COMMITTED with FOR UPDATE, COPY, and asyncpg.

All keep one row per run; the history is an array of bytea in that row, or a table of its own.
"""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import Callable
from typing import Any

from continuum_conformance.contract import errors
from tests.unusual import codecs
from tests.unusual.coroutines import Async
from tests.unusual.rules import Rules, Sync, translate

ARRAYS = "CREATE TABLE IF NOT EXISTS {0} (instance bytea, id bytea, head bytea, history bytea[] NOT NULL DEFAULT '{{}}', PRIMARY KEY (instance, id))"
EVERY = ("leases", "snapshots", "durable", "crash_safe", "shared", "rich_terms", "opaque_run_ids")


class ServerClock(Rules):
    """Leases are timed by the server: the journal sets ``now`` in its transaction before it judges."""

    now = threading.local()

    def __init__(self, **how: Any) -> None:
        super().__init__(clock=lambda: self.now.value, **how)


class SerializableJournal(Sync):
    """Begins again when the server says 40001 or 40P01."""

    table = "serial_runs"
    begin = "BEGIN ISOLATION LEVEL SERIALIZABLE"
    select = (
        "SELECT head, extract(epoch from clock_timestamp())::float8 FROM {} WHERE instance = %s AND id = %s"
    )

    def __init__(self, dsn: str) -> None:
        self.rules, self.dsn, self.free, self.all = ServerClock(), dsn, [], []
        self.prepare()

    def prepare(self) -> None:
        with self._lend() as connection:
            connection.execute("SELECT pg_advisory_lock(4711)")
            try:
                connection.execute(ARRAYS.format(self.table))
            finally:
                connection.execute("SELECT pg_advisory_unlock(4711)")

    def _lend(self):
        journal = self

        class Lent:
            def __enter__(self):
                try:
                    self.connection = journal.free.pop()
                except IndexError:
                    import psycopg

                    self.connection = psycopg.connect(journal.dsn, autocommit=True)
                    journal.all.append(self.connection)
                return self.connection

            def __exit__(self, *_):
                (journal.all.remove if self.connection.closed else journal.free.append)(self.connection)

        return Lent()

    def _transaction(self, act: Callable[[Any], Any], begin: str) -> Any:
        """Begins again after a conflict, and on another connection after one that was lost before the commit."""
        import psycopg

        lost = 0
        while True:
            committing = False
            try:
                with self._lend() as connection:
                    try:
                        connection.execute(begin)
                        answer = act(connection)
                        committing = True
                        connection.execute("COMMIT")
                        return answer
                    except BaseException:
                        if not connection.closed:
                            connection.execute("ROLLBACK")
                        raise
            except (
                psycopg.errors.SerializationFailure,
                psycopg.errors.DeadlockDetected,
                psycopg.errors.UniqueViolation,
            ):
                continue
            except psycopg.OperationalError as error:
                lost += 1
                if committing or lost > len(self.all) + 1:
                    raise errors.JournalUnavailable(str(error), outcome_unknown=committing) from error

    def _lock(self, connection, key) -> None:
        """Nothing: the isolation level sees to it."""

    def _head(self, connection, key, writing=False):
        row = connection.execute(self.select.format(self.table), _bytes(key), binary=True).fetchone()
        if row is None:
            return None
        self.rules.now.value = row[1]
        return codecs.unpack(row[0])

    def _history(self, connection, key, start):
        (history,) = connection.execute(
            f"SELECT history[%s:] FROM {self.table} WHERE instance = %s AND id = %s",
            (start + 1, *_bytes(key)),
            binary=True,
        ).fetchone()
        return history

    def _bear(self, connection, row):
        connection.execute(f"INSERT INTO {self.table} (instance, id, head) VALUES (%s, %s, %s)", row)

    def read(self, key, since):
        def act(connection):
            run = self._head(connection, key)
            start = None if run is None else since(run)
            if start is None:
                return run, []
            return run, [codecs.unpack(body) for body in self._history(connection, key, start)]

        return self._transaction(act, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def write(self, key, change):
        def act(connection):
            self._lock(connection, key)
            run = self._head(connection, key, writing=True)
            after, event, answer = change(run)
            if run is None:
                self._bear(connection, (*_bytes(key), codecs.pack(after)))
            else:
                connection.execute(
                    f"UPDATE {self.table} SET head = %s, history = history || %s::bytea[] WHERE instance = %s AND id = %s",
                    (codecs.pack(after), [codecs.pack(event)] if event is not None else [], *_bytes(key)),
                )
            return answer

        return self._transaction(act, self.begin)

    def close(self):
        for connection in self.all:
            connection.close()


class AdvisoryJournal(SerializableJournal):
    """READ COMMITTED, and an advisory lock per run, by a checksum of its names: collisions only wait."""

    table = "advisory_runs"
    begin = "BEGIN"

    def _lock(self, connection, key):
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (zlib.crc32(codecs.pack(list(key))),))


class ForUpdateJournal(SerializableJournal):
    """READ COMMITTED; the row is locked when it is read. Two births meet at the primary key and begin again."""

    table = "update_runs"
    begin = "BEGIN"

    def _head(self, connection, key, writing=False):
        if writing:
            connection.execute(
                f"SELECT 1 FROM {self.table} WHERE instance = %s AND id = %s FOR UPDATE", _bytes(key)
            )
        return super()._head(connection, key)


class CopyJournal(ForUpdateJournal):
    """Runs are born by COPY … FROM STDIN, and histories read by COPY … TO STDOUT."""

    table = "copied_runs"

    def _history(self, connection, key, start):
        query = (
            f"COPY (SELECT unnest(history[%s:]) FROM {self.table} WHERE instance = %s AND id = %s) TO STDOUT"
        )
        with connection.cursor().copy(query, (start + 1, *_bytes(key))) as copy:
            copy.set_types(["bytea"])
            return [body for (body,) in copy.rows()]

    def _bear(self, connection, row):
        with connection.cursor().copy(f"COPY {self.table} (instance, id, head) FROM STDIN") as copy:
            copy.write_row(row)


def _bytes(key):
    return tuple(part.encode() for part in key)


class SerializableHarness:
    capabilities = EVERY
    needs = "postgres"
    journal: Any = SerializableJournal
    tables = ["serial_runs"]

    def open(self):
        return self.journal(self.dsn)

    def close(self, journal):
        journal.close()

    def translate(self, exception):
        return translate(exception)


class AdvisoryHarness(SerializableHarness):
    journal = AdvisoryJournal
    tables = ["advisory_runs"]


class ForUpdateHarness(SerializableHarness):
    journal = ForUpdateJournal
    tables = ["update_runs"]


class CopyHarness(SerializableHarness):
    journal = CopyJournal
    tables = ["copied_runs"]


class AsyncpgJournal(Async):
    """A pool; the event goes to a table of its own; the lock is the run's row."""

    def __init__(self, pool) -> None:
        self.pool, self.rules = pool, ServerClock()

    @classmethod
    async def create(cls, dsn):
        import asyncpg

        pool = await asyncpg.create_pool(dsn, min_size=1, max_size=4)
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(4712)")
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS apg_runs (instance bytea, id bytea, head bytea, PRIMARY KEY (instance, id))"
            )
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS apg_events (instance bytea, id bytea, seq bigint, body bytea, PRIMARY KEY (instance, id, seq))"
            )
        return cls(pool)

    async def _head(self, connection, key, lock=""):
        row = await connection.fetchrow(
            f"SELECT head, extract(epoch from clock_timestamp())::float8 AS now FROM apg_runs WHERE instance = $1 AND id = $2 {lock}",
            *_bytes(key),
        )
        if row is None:
            return None
        self.rules.now.value = row["now"]
        return codecs.unpack(row["head"])

    async def read(self, key, since):
        async with (
            self.pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            run = await self._head(connection, key)
            start = None if run is None else since(run)
            if start is None:
                return run, []
            rows = await connection.fetch(
                "SELECT body FROM apg_events WHERE instance = $1 AND id = $2 AND seq >= $3 ORDER BY seq",
                *_bytes(key),
                start,
            )
            return run, [codecs.unpack(row["body"]) for row in rows]

    async def write(self, key, change):
        async with self.pool.acquire() as connection, connection.transaction():
            # A row of its own is made first, so that two births meet; a refusal takes it back.
            await connection.execute(
                "INSERT INTO apg_runs VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                *_bytes(key),
                codecs.pack(None),
            )
            run = await self._head(connection, key, "FOR UPDATE")
            after, event, answer = change(run)
            await connection.execute(
                "UPDATE apg_runs SET head = $3 WHERE instance = $1 AND id = $2",
                *_bytes(key),
                codecs.pack(after),
            )
            if event is not None:
                await connection.execute(
                    "INSERT INTO apg_events VALUES ($1, $2, $3, $4)",
                    *_bytes(key),
                    run["length"],
                    codecs.pack(event),
                )
            return answer


class AsyncpgHarness:
    capabilities = EVERY
    needs = "postgres"

    async def open(self):
        return await AsyncpgJournal.create(self.dsn)

    async def close(self, journal):
        await asyncio.wait_for(journal.pool.close(), 5)

    def translate(self, exception):
        return translate(exception)
