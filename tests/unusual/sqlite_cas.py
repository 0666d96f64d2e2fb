"""sqlite3 without transactions over several statements: each change is one compare-and-swap, tried again when lost.

The run is a JSON document with a version; the event of an append travels in the same statement through a trigger.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from tests.unusual import codecs
from tests.unusual.rules import Busy, Rules, Sync, translate

SCHEMA = """
PRAGMA journal_mode=WAL;
CREATE TABLE IF NOT EXISTS run (instance BLOB, id BLOB, version INT, head TEXT, tail TEXT, PRIMARY KEY (instance, id));
CREATE TABLE IF NOT EXISTS event (instance BLOB, id BLOB, seq INT, body TEXT, PRIMARY KEY (instance, id, seq)) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS tail AFTER UPDATE OF tail ON run WHEN new.tail IS NOT NULL BEGIN
  INSERT INTO event SELECT new.instance, new.id, count(*), new.tail FROM event WHERE instance = new.instance AND id = new.id;
END;
"""


class CasJournal(Sync):
    rules = Rules()

    def __init__(self, file: str) -> None:
        self._file, self._local, self._all = file, threading.local(), []
        self._connection().executescript(SCHEMA)

    def _connection(self) -> sqlite3.Connection:
        found = getattr(self._local, "connection", None)
        if found is None:
            found = sqlite3.connect(self._file, isolation_level=None, timeout=30, check_same_thread=False)
            found.execute("PRAGMA synchronous=NORMAL")
            self._local.connection = found
            self._all.append(found)
        return found

    def _peek(self, key):
        found = self._connection().execute(
            "SELECT version, head FROM run WHERE instance = ? AND id = ?", _blobs(key)
        )
        return found.fetchone() or (None, None)

    def read(self, key, since):
        for _ in range(1000):
            version, head = self._peek(key)
            run = None if head is None else codecs.value_of(head)
            start = None if run is None else since(run)
            if start is None:
                return run, []
            rows = self._connection().execute(
                "SELECT seq, body FROM event WHERE instance = ? AND id = ? AND seq >= ? ORDER BY seq",
                (*_blobs(key), start),
            )
            events = [{**codecs.value_of(body), "seq": seq} for seq, body in rows]
            if self._peek(key)[0] == version:
                return run, events
        raise Busy

    def write(self, key, change):
        connection = self._connection()
        while True:
            version, head = self._peek(key)
            after, event, answer = change(None if head is None else codecs.value_of(head))
            text = codecs.text_of(after)
            if version is None:
                made = connection.execute(
                    "INSERT INTO run VALUES (?, ?, 1, ?, NULL) ON CONFLICT DO NOTHING", (*_blobs(key), text)
                )
            elif event is None:
                made = connection.execute(
                    "UPDATE run SET version = version + 1, head = ? WHERE instance = ? AND id = ? AND version = ?",
                    (text, *_blobs(key), version),
                )
            else:
                made = connection.execute(
                    "UPDATE run SET version = version + 1, head = ?, tail = ? WHERE instance = ? AND id = ? AND version = ?",
                    (text, codecs.text_of(event), *_blobs(key), version),
                )
            if made.rowcount == 1:
                return answer

    def close(self) -> None:
        for connection in self._all:
            connection.close()


def _blobs(key):
    return tuple(part.encode() for part in key)


class CasHarness:
    capabilities = ["leases", "snapshots", "durable", "crash_safe", "shared", "rich_terms", "opaque_run_ids"]
    needs = ("directory",)

    def open(self):
        return CasJournal(str(Path(self.directory) / "cas.db"))

    def close(self, journal):
        journal.close()

    def translate(self, exception):
        return translate(exception)


class OneDurableHarness(CasHarness):
    """One journal for every open, durable, for one process at a time; a closed one is useless, so a new one follows."""

    capabilities = ["leases", "snapshots", "durable", "crash_safe", "rich_terms", "opaque_run_ids"]
    one = None

    def open(self):
        if self.one is None:
            self.one = super().open()
        return self.one

    def close(self, journal):
        assert journal is self.one
        journal.close()
        self.one = None
