"""Embedded stores: LMDB, dbm, DuckDB."""

# ruff: noqa: PTH123, SIM105, SIM115 - written as strangers write

from __future__ import annotations

import dbm.dumb
import fcntl
import struct
import threading
from contextlib import contextmanager
from pathlib import Path

from tests.unusual import codecs
from tests.unusual.rules import Rules, Sync, translate

EVERY = {"leases", "snapshots", "rich_terms", "opaque_run_ids"}


class LmdbJournal(Sync):
    """Ordered keys: names are hashed by LMDB's own limit of 511 bytes, so long ones are numbered in a table."""

    def __init__(self, environment) -> None:
        self.environment = environment
        self.rules = Rules(token=lambda last: 1 << 40 if last is None else last + 3)

    def _number(self, transaction, key, make=False):
        packed = codecs.pack(list(key))
        digest = __import__("hashlib").sha256(packed).digest()
        found = transaction.get(b"k" + digest)
        if found is None and make:
            count = struct.unpack(">Q", transaction.get(b"count", b"\0" * 8))[0] + 1
            found = struct.pack(">Q", count)
            transaction.put(b"count", found)
            transaction.put(b"k" + digest, found)
        return found

    def read(self, key, since):
        with self.environment.begin() as transaction:
            number = self._number(transaction, key)
            head = None if number is None else transaction.get(b"h" + number)
            run = None if head is None else codecs.unpack(head)
            start = None if run is None else since(run)
            if start is None:
                return run, []
            events = []
            cursor = transaction.cursor()
            if cursor.set_range(b"e" + number + struct.pack(">Q", start)):
                for place, body in cursor:
                    if not place.startswith(b"e" + number):
                        break
                    events.append(codecs.unpack(body))
            return run, events

    def write(self, key, change):
        with self.environment.begin(write=True) as transaction:
            number = self._number(transaction, key, make=True)
            head = transaction.get(b"h" + number)
            run = None if head is None else codecs.unpack(head)
            after, event, answer = change(run)
            transaction.put(b"h" + number, codecs.pack(after))
            if event is not None:
                transaction.put(b"e" + number + struct.pack(">Q", run["length"]), codecs.pack(event))
            return answer


class LmdbHarness:
    """LMDB must be opened once per process, so all handles share the environment, counted."""

    capabilities = EVERY | {"durable", "shared", "crash_safe"}
    needs = "directory"
    _open: dict = {}

    def open(self):
        import lmdb

        environment, count = self._open.get(self.directory, (None, 0))
        if environment is None:
            environment = lmdb.open(self.directory, map_size=2**30, sync=False, max_readers=64)
        self._open[self.directory] = environment, count + 1
        return LmdbJournal(environment)

    def close(self, journal):
        environment, count = self._open.pop(self.directory)
        if count > 1:
            self._open[self.directory] = environment, count - 1
        else:
            environment.close()

    def translate(self, exception):
        return translate(exception)


class DbmJournal(Sync):
    """A dbm file that is opened for each call, under a lock file: slow, and right."""

    rules = Rules(renew_answers=True)

    def __init__(self, directory: str) -> None:
        self.folder = Path(directory)

    @contextmanager
    def _file(self, key):
        # One dbm per run, since dumb dbm reads its whole index when it opens.
        name = codecs.pack(list(key))
        digest = __import__("hashlib").sha1(name).hexdigest()
        with open(self.folder / "lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.folder / digest

    def _get(self, path):
        if not path.with_suffix(".dir").exists():
            return None, None
        store = dbm.dumb.open(str(path), "w")
        return codecs.unpack(store[b"head"]), store

    def read(self, key, since):
        with self._file(key) as path:
            run, store = self._get(path)
            if store is None:
                return None, []
            try:
                start = since(run)
                numbers = range(start, run["length"]) if start is not None else ()
                return run, [codecs.unpack(store[b"%d" % number]) for number in numbers]
            finally:
                store.close()

    def write(self, key, change):
        with self._file(key) as path:
            run, store = self._get(path)
            try:
                after, event, answer = change(run)
                if store is None:
                    store = dbm.dumb.open(str(path), "n")
                if event is not None:
                    store[b"%d" % run["length"]] = codecs.pack(event)
                store[b"head"] = codecs.pack(after)
                return answer
            finally:
                if store is not None:
                    store.close()


class DbmHarness:
    capabilities = EVERY | {"durable", "shared"}
    needs = ["directory"]

    def open(self):
        return DbmJournal(self.directory)

    def translate(self, exception):
        return translate(exception)


class DuckJournal(Sync):
    """A cursor per call of one database; a change that another one overtook is tried again."""

    rules = Rules()

    def __init__(self, database) -> None:
        self.database = database

    def read(self, key, since):
        cursor = self.database.cursor()
        cursor.begin()
        try:
            row = cursor.execute("SELECT head FROM runs WHERE k = ?", [_hex(key)]).fetchone()
            run = None if row is None else codecs.unpack(row[0])
            start = None if run is None else since(run)
            if start is None:
                return run, []
            rows = cursor.execute(
                "SELECT body FROM events WHERE k = ? AND seq >= ? ORDER BY seq", [_hex(key), start]
            ).fetchall()
            return run, [codecs.unpack(body) for (body,) in rows]
        finally:
            cursor.rollback()
            cursor.close()

    def write(self, key, change):
        import duckdb

        while True:
            cursor = self.database.cursor()
            cursor.begin()
            try:
                row = cursor.execute("SELECT head FROM runs WHERE k = ?", [_hex(key)]).fetchone()
                run = None if row is None else codecs.unpack(row[0])
                after, event, answer = change(run)
                if run is None:
                    cursor.execute("INSERT INTO runs VALUES (?, ?)", [_hex(key), codecs.pack(after)])
                else:
                    cursor.execute("UPDATE runs SET head = ? WHERE k = ?", [codecs.pack(after), _hex(key)])
                if event is not None:
                    cursor.execute(
                        "INSERT INTO events VALUES (?, ?, ?)", [_hex(key), run["length"], codecs.pack(event)]
                    )
                cursor.commit()
                return answer
            except (duckdb.TransactionException, duckdb.ConstraintException):
                _quietly(cursor.rollback)
            except BaseException:
                _quietly(cursor.rollback)
                raise
            finally:
                cursor.close()


def _quietly(act):
    try:
        act()
    except Exception:
        pass


def _hex(key):
    return codecs.pack(list(key)).hex()


class DuckHarness:
    """One database in memory for all handles."""

    capabilities = EVERY
    lock = threading.Lock()
    database = None

    def open(self):
        import duckdb

        if DuckHarness.database is None:
            DuckHarness.database = duckdb.connect(":memory:")
            DuckHarness.database.execute("CREATE TABLE runs (k VARCHAR PRIMARY KEY, head BLOB)")
            DuckHarness.database.execute("CREATE TABLE events (k VARCHAR, seq BIGINT, body BLOB)")
        return DuckJournal(DuckHarness.database)

    translate = staticmethod(translate)
