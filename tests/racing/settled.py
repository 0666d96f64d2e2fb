"""Races in PostgreSQL that rest on more than statements: on settings of the session, a schema, JSON, a deadlock."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from continuum_conformance.contract import RunNotActive
from tests.racing.postgres import Harness, Journal


class InASchema(Journal):
    """Finds its tables by the search path of its connections, and keeps events as JSON. It takes no lock."""

    lock = ""

    def __init__(self, dsn):
        super().__init__(f"{dsn}{'&' if '?' in dsn else '?'}options=-csearch_path%3Djournal%20-c%20jit%3Doff")
        with self._connection.transaction():
            self._connection.execute("SET lock_timeout = '7s'")
            self._connection.execute("SET LOCAL statement_timeout = '8s'")
        self._connection.execute("CREATE TABLE IF NOT EXISTS note (id text, body jsonb DEFAULT '{}')")

    def _insert(self, c, key, seq, plain):
        super()._insert(c, key, seq, plain)
        c.execute("INSERT INTO note VALUES (%s, %s)", (key[1], Jsonb({"it's": "a \\ {brace}", "seq": seq})))


class InASchemaHarness(Harness):
    journal_class = InASchema

    def open(self):
        import psycopg

        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_advisory_lock(4712)")
            connection.execute("CREATE SCHEMA IF NOT EXISTS journal")
        return super().open()


class LocksInTwoOrders(Journal):
    """An append takes the run's row and then a lock for the store, a finish the other way round."""

    def _append(self, key, token, plain, seq):
        with self._transaction() as c:
            self._active(self._row(c, key))
            c.execute("SELECT pg_advisory_xact_lock(7)")
            self._insert(c, key, self._count(c, key), plain)

    def _transition(self, key, token, state, result, error):
        with self._transaction() as c:
            c.execute("SELECT pg_advisory_xact_lock(7)")
            row = self._row(c, key)
            if row[0] == "completed":
                raise RunNotActive
            c.execute(
                "UPDATE run SET state = %s, result = %s, token = NULL WHERE instance = %s AND id = %s",
                (state, result, *key),
            )


class LocksInTwoOrdersHarness(Harness):
    journal_class = LocksInTwoOrders
