"""Races on a file of SQLite's: who may write, and whose connection and whose transaction it is."""

from __future__ import annotations

import contextlib
from pathlib import Path

from continuum_adapters.codec import encode
from continuum_adapters.sqlite import SQLiteHarness, SQLiteJournal
from sqlalchemy import URL, create_engine
from sqlalchemy.pool import StaticPool

from continuum_conformance.contract import LeaseMismatch, RunNotActive, RunNotFound
from continuum_conformance.contract.arguments import check_event, check_names, check_token
from tests.bank import Bank


class Harness(SQLiteHarness):
    journal_class = SQLiteJournal

    def open(self):
        return self.journal_class(Path(self.directory) / "journal.sqlite3")


_bank = Bank(__name__, Harness)
WRONG = _bank.WRONG
SEEN_IN = _bank.SEEN_IN
wrong = _bank.wrong


@wrong("CON-4", "CON-1", "ATM-2", seen_in="https://github.com/chrisbenincasa/tunarr/issues/2132")
class BeginsDeferred(SQLiteJournal):
    """BEGIN alone, and a long busy timeout: a read that becomes a write is refused at once where another has written."""

    @contextlib.contextmanager
    def _writing(self):
        with self._transaction("BEGIN") as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 30000")
            yield connection


@wrong("CON-4", "CON-1", "ATM-2")
class NoPatience(SQLiteJournal):
    """The busy timeout is left at nothing, since the tests had one writer."""

    @contextlib.contextmanager
    def _writing(self):
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    def _begin(self, begin):
        if begin == "BEGIN":
            return super()._begin(begin)
        self._require_open()
        connection = self._engine.connect()
        try:
            connection.exec_driver_sql("PRAGMA busy_timeout = 0")
            connection.exec_driver_sql(begin)
        except BaseException:
            connection.close()
            raise
        return connection


@wrong("CON-1", "CON-3", "FEN-5", "CON-4", "ATM-2")
class ReadsBeforeItBegins(SQLiteJournal):
    """The run is looked at in a read of its own, to keep the time under the write lock short; the write trusts it."""

    def append(self, instance, run_id, event, lease_token):
        name, run_id = check_names(instance, run_id)
        token = check_token(lease_token)
        checked, seq = check_event(event)
        if seq is not None:
            return super().append(instance, run_id, event, lease_token)
        payload = encode(checked, "event")
        with self._reading() as connection:
            row = connection.exec_driver_sql(
                "SELECT id, state, token FROM continuum_runs WHERE instance = ? AND run_id = ?",
                (name, run_id),
            ).one_or_none()
        if row is None:
            raise RunNotFound
        if row.state in ("completed", "failed"):
            raise RunNotActive
        if row.token != token:
            raise LeaseMismatch
        with self._writing() as connection:
            connection.exec_driver_sql(
                "INSERT INTO continuum_events SELECT id, next_seq, ? FROM continuum_runs WHERE id = ?",
                (payload, row.id),
            )
            connection.exec_driver_sql(
                "UPDATE continuum_runs SET next_seq = next_seq + 1 WHERE id = ?", (row.id,)
            )
        return None


@wrong("CON-4", "CON-1", "CON-3", "CON-2", "FEN-5", "ATM-2", "ATM-1")
class OneConnectionForAllThreads(SQLiteJournal):
    """check_same_thread=False and one connection for all: who reads meets a writer's transaction, and rolls it back."""

    def __init__(self, path, **settings):
        super().__init__(path, **settings)
        self._engine.dispose()
        self._engine = create_engine(
            URL.create("sqlite+pysqlite", database=str(path)),
            isolation_level="AUTOCOMMIT",
            poolclass=StaticPool,
            connect_args={"timeout": 0.01, "check_same_thread": False},
        )


TRIED = {f"{__name__}:ReadsBeforeItBeginsHarness": "FEN-5"}
"""The clause under which it is soonest found; the others need many threads, or a whole check."""
