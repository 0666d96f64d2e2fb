"""Styles that are rare and right: a version that is compared, tokens of a clock, leases that expire when asked, group commit.

Three are in PostgreSQL, without foreign keys. The last is a file whose changes wait in memory for a writer, which
writes what has gathered in one go; nobody is answered before that.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from pathlib import Path

from continuum_adapters.codec import encode
from continuum_adapters.in_memory import InMemoryJournal, Store
from psycopg import errors as pg

from continuum_conformance.contract import (
    Instance,
    JournalUnavailable,
    LeaseHeld,
    RunNotFound,
    SequenceConflict,
)
from tests.faulty.postgres import Journal as Reconnecting
from tests.racing.postgres import Harness


class Lost(Exception):
    """Another one has changed the run meanwhile."""


class Optimistic(Reconnecting):
    """Takes no lock: what it has read is written if the row's version is still the same, else all begins anew."""

    lock = ""

    def _retried(self, act):
        while True:
            with contextlib.suppress(Lost, pg.UniqueViolation):
                return act()

    def _claim(self, c, key, row):
        claimed = c.execute(
            "UPDATE run SET version = version + 1 WHERE instance = %s AND id = %s AND version = %s",
            (*key, row[9]),
        ).rowcount
        if not claimed:
            raise Lost

    def _row(self, c, key, lock=None):
        row = super()._row(c, key, "")
        if row is not None and lock is None and row[0] not in ("completed", "failed"):
            self._claim(c, key, row)
        return row

    def _append(self, key, token, plain, seq):
        with self._transaction() as c:
            row = super()._row(c, key, "")
            self._active(row)
            self._fence(row, token)
            following = self._count(c, key)
            if seq is not None and seq != following:
                raise SequenceConflict
            self._claim(c, key, row)
            c.execute(
                "INSERT INTO event VALUES (%s, %s, %s, %s)",
                (*key, following, encode({**plain, "seq": following}, "event")),
            )

    def _fenced_load(self, key, token):
        with self._transaction() as c:
            c.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            row = super()._row(c, key, "")
            if row is None:
                raise RunNotFound
            self._fence(row, token)
            return self.load(Instance(key[0]), key[1])


class ClockTokens(Reconnecting):
    """A token is the server's time in microseconds, or one more than the last, whichever is greater."""

    def _grant(self, c, key, token, owner, ttl):
        (now,) = c.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()
        return super()._grant(c, key, max(token, now), owner, ttl)


class ExpiresWhenAsked(Reconnecting):
    """A lease that has run out is marked so by the next one who asks for it, and only then; nothing else looks."""

    def _acquire(self, key, owner, ttl):
        with self._transaction() as c:
            self._active(self._row(c, key))
            c.execute(
                "UPDATE run SET expires = '-infinity' WHERE instance = %s AND id = %s AND expires <= clock_timestamp()",
                key,
            )
            row = c.execute(
                "SELECT token, expires = '-infinity', last_token FROM run WHERE instance = %s AND id = %s",
                key,
            ).fetchone()
            if row[0] is not None and not row[1]:
                raise LeaseHeld
            return self._grant(c, key, row[2] + 1, owner, ttl)


class OptimisticHarness(Harness):
    capabilities = Harness.capabilities | {"crash_safe"}
    journal_class = Optimistic


class ClockTokensHarness(OptimisticHarness):
    journal_class = ClockTokens


class ExpiresWhenAskedHarness(OptimisticHarness):
    journal_class = ExpiresWhenAsked


# -- group commit --


class Writer:
    """Writes the whole store, once for all who wait for it."""

    def __init__(self, path):
        self._path, self._changed = path, threading.Condition(threading.RLock())
        self._asked = self._written = 0
        self._failed: dict[int, OSError] = {}
        self._thread = None
        self.closed = False

    def wait_for(self, packed):
        """Return when these bytes, or later ones, are on the disk."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
                self._thread.start()
            self._asked += 1
            mine, self._packed = self._asked, packed
            self._changed.notify_all()
            while self._written < mine:
                self._changed.wait()
            if mine in self._failed:
                raise self._failed.pop(mine)

    def _run(self):
        while True:
            with self._changed:
                while self._asked == self._written:
                    if self.closed:
                        return
                    self._changed.wait()
                upto, packed = self._asked, self._packed
            error = self._write(packed)
            with self._changed:
                if error is not None:
                    self._failed.update(dict.fromkeys(range(self._written + 1, upto + 1), error))
                self._written = upto
                self._changed.notify_all()

    def _write(self, packed):
        fresh = self._path.with_suffix(".new")
        try:
            with fresh.open("wb") as file:
                file.write(packed)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            return error
        return None

    def close(self):
        with self._changed:
            self.closed = True
            self._changed.notify_all()


class GroupCommit(InMemoryJournal):
    """A change is made in memory under the lock and answered when the writer has it on the disk."""

    def __init__(self, writer, store):
        super().__init__(store=store)
        self._writer = writer

    @contextlib.contextmanager
    def _locked(self):
        with super()._locked() as runs:
            before = pickle.dumps(runs)
            try:
                yield runs
            finally:
                after = pickle.dumps(runs)
                if after != before:
                    try:
                        self._writer.wait_for(after)
                    except OSError as error:
                        runs.clear()
                        runs.update(pickle.loads(before))
                        raise JournalUnavailable(f"the disk: {error}") from error


class GroupCommitHarness:
    capabilities = frozenset({"leases", "snapshots", "rich_terms", "opaque_run_ids", "durable", "crash_safe"})
    needs = "directory"

    def __init__(self):
        self._handles, self._store, self._writer = 0, None, None

    def open(self):
        path = Path(self.directory) / "runs.pickle"
        if not self._handles:
            self._store = Store(pickle.loads(path.read_bytes()) if path.exists() else {})
            self._writer = Writer(path)
        self._handles += 1
        return GroupCommit(self._writer, self._store)

    def close(self, journal):
        self._handles -= 1
        journal.close()
        if not self._handles:
            self._writer.close()
