"""Races on a file of SQLite's: who may write, and whose connection and whose transaction it is."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

from continuum_adapters.codec import encode
from continuum_adapters.sqlite import SQLiteHarness, SQLiteJournal

from continuum_conformance.contract import JournalUnavailable, LeaseMismatch, RunNotActive, RunNotFound
from continuum_conformance.contract.arguments import check_event, check_names, check_token

WRONG: dict[str, tuple[str, ...]] = {}
SEEN_IN: dict[str, str] = {}
"""The address of a public thread about a fault of this kind, for those that are modelled on one."""


def wrong(*clauses, seen_in=""):
    def register(cls):
        def opened(self):
            return cls(Path(self.directory) / "journal.sqlite3")

        name = f"{cls.__name__}Harness"
        globals()[name] = type(name, (SQLiteHarness,), {"open": opened, "__module__": __name__})
        WRONG[f"{__name__}:{name}"] = clauses
        if seen_in:
            SEEN_IN[f"{__name__}:{name}"] = seen_in
        return cls

    return register


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


@wrong("CON-4", "CON-1", "CON-3", "ATM-2", "CON-2", "FEN-5")
class OneConnectionForAllThreads(SQLiteJournal):
    """check_same_thread=False, and one connection for the handle: its threads meet in each other's transactions."""

    _shared = None

    def _begin(self, begin):
        self._require_open()
        if self._shared is None:
            self._shared = self._engine.connect()
        return self._join(begin)

    def _join(self, begin):
        raw = self._shared.connection.dbapi_connection
        for _ in range(2_000):
            try:
                if not raw.in_transaction:
                    raw.execute(begin)
                return _Kept(self._shared)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise JournalUnavailable(str(error)) from error
            time.sleep(0.001)
        raise JournalUnavailable("the file is locked")


class _Kept:
    """A connection that is not closed when its user is done."""

    def __init__(self, connection):
        self._inner = connection

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def exec_driver_sql(self, statement, *arguments):
        if statement in ("COMMIT", "ROLLBACK") and not self._inner.connection.dbapi_connection.in_transaction:
            return None
        return self._inner.exec_driver_sql(statement, *arguments)

    def close(self):
        pass
