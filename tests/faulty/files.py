"""Faults of a store in one file: the runs are pickled there, all of them, after each operation."""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from pathlib import Path

from continuum_adapters.in_memory import InMemoryHarness, InMemoryJournal, Store
from continuum_adapters.sqlite import SQLiteJournal, _metadata
from sqlalchemy import create_engine, create_mock_engine

from continuum_conformance.contract import JournalUnavailable, LeaseMismatch
from tests.bank import Bank
from tests.known_bad.sql import SqlHarness, SqlJournal
from tests.racing.sqlite import Harness as DatabaseHarness


class Journal(InMemoryJournal):
    """Writes a new file and puts it in the place of the old one before an operation returns."""

    def __init__(self, path, store):
        super().__init__(store=store)
        self._path = path

    @contextlib.contextmanager
    def _locked(self):
        with super()._locked() as runs:
            before = self._packed(runs)
            try:
                yield runs
            finally:
                after = self._packed(runs)
                if after != before:
                    self._keep_or_forget(before, after, runs)

    def _keep_or_forget(self, before, after, runs):
        try:
            self._keep(after)
        except OSError as error:
            runs.clear()
            runs.update(pickle.loads(before))
            raise JournalUnavailable(f"the disk: {error}") from error

    def _packed(self, runs):
        return pickle.dumps(runs)

    def _keep(self, packed):
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


class Harness:
    capabilities = frozenset({"leases", "snapshots", "rich_terms", "opaque_run_ids", "durable", "crash_safe"})
    needs = "directory"
    journal_class = Journal

    def __init__(self):
        self._handles = 0
        self._store = Store()

    def open(self):
        path = Path(self.directory) / "runs.pickle"
        if not self._handles:
            self._store = Store(pickle.loads(path.read_bytes()) if path.exists() else {})
        self._handles += 1
        return self.journal_class(path, self._store)

    def close(self, journal):
        self._handles -= 1
        journal.close()


_bank = Bank(__name__, Harness)
WRONG = _bank.WRONG
SEEN_IN = _bank.SEEN_IN
RIGHT = _bank.RIGHT
ADVISED = _bank.ADVISED
wrong = _bank.wrong
right = _bank.right


right(Journal)


@wrong("DUR-2", "DUR-3", "DUR-4", "DUR-5")
class KeepsItAtClose(Journal):
    """What was acknowledged is in memory until the handle is closed."""

    def _keep(self, packed):
        pass

    def close(self):
        if not self._closed:
            super()._keep(self._packed(self._store.runs))
        super().close()


@wrong("DUR-2", "DUR-3", "DUR-4", "DUR-5")
class KeepsEveryFourth(Journal):
    """Faster: it writes after every fourth change, and at close."""

    changes = 0

    def _keep(self, packed):
        self.changes += 1
        if self.changes % 4 == 0:
            super()._keep(packed)

    def close(self):
        if not self._closed:
            super()._keep(self._packed(self._store.runs))
        super().close()


@wrong("DUR-5", "DUR-2", "DUR-3", "DUR-4")
class KeepsHeartbeatsInMemory(Journal):
    """A renewal is kept when something else is: heartbeats come so often."""

    def renew(self, instance, lease, ttl):
        self._keep = lambda _packed: None
        try:
            return super().renew(instance, lease, ttl)
        finally:
            del self._keep


@wrong("DUR-4", "DUR-2", "ATM-1", seen_in="https://github.com/manufosela/karajan-code/pull/763")
class WritesInPlace(Journal):
    """Truncates the file and writes it anew: killed in between, there is nothing."""

    def _keep(self, packed):
        with self._path.open("wb", buffering=0) as file:
            half = len(packed) // 2
            file.write(packed[:half])
            file.write(packed[half:])


@wrong("DUR-5", "DUR-1", "DUR-2", "DUR-3", seen_in="https://github.com/nexi-lab/nexus/pull/2099")
class TokensFromMemory(Journal):
    """The counter of tokens is no part of what is kept."""

    def _packed(self, runs):
        counters = {key: run.last_token for key, run in runs.items()}
        for run in runs.values():
            if run.token is None:
                run.last_token = 0
        packed = pickle.dumps(runs)
        for key, counter in counters.items():
            runs[key].last_token = counter
        return packed


@wrong("DUR-4", "ATM-1", seen_in="https://github.com/langchain-ai/langgraph/issues/8039")
class KeepsTheStateFirst(Journal):
    """A finish is kept twice: with its state, then with its result."""

    def _packed(self, runs):
        return pickle.dumps(runs)

    def _keep(self, packed):
        runs = pickle.loads(packed)
        for run in runs.values():
            run.result = run.error = None
        super()._keep(pickle.dumps(runs))
        super()._keep(packed)


@wrong("DUR-4", "DUR-2", "ATM-3", "DUR-3", "DUR-5", "ATM-1", "RUN-1")
class LeavesItsLockFile(Journal):
    """A lock file keeps writers apart: who is killed while it writes leaves it behind, and the next one waits for it."""

    def _keep(self, packed):
        lock = self._path.with_suffix(".lock")
        for _ in range(50):
            try:
                lock.touch(exist_ok=False)
                break
            except FileExistsError:
                time.sleep(0.01)
        else:
            raise OSError("somebody else is writing")
        super()._keep(packed)
        lock.unlink()


# -- clocks --


class WallClockHarness(Harness):
    """Its journals read the wall clock."""

    def open(self):
        journal = super().open()
        journal._clock = time.time
        return journal


@right(harness=WallClockHarness)
class OnTheWall(Journal):
    """Leases expire by the wall clock."""


@wrong("CLK-1", "LEA-4", "LEA-5", harness=WallClockHarness)
class TokensOfTheClock(OnTheWall):
    """A token is the time in microseconds, and one more when that is no greater than the last one of this handle."""

    last = 0

    def _new_token(self, run):
        self.last = max(self.last + 1, int(time.time() * 1_000_000))
        return self.last


@wrong("LEA-5", harness=WallClockHarness)
class ExpiresAtOnceByTheClock(OnTheWall):
    """A ttl of 0 is an expiry like any other: a clock that is set back makes it a live lease."""

    def _expiry(self, ttl):
        return self._clock() + ttl


# -- a full disk --


@wrong("ATM-1")
class OverlooksTheDisk(Journal):
    """What cannot be written is kept in memory, and acknowledged."""

    def _keep(self, packed):
        with contextlib.suppress(OSError):
            super()._keep(packed)


@wrong("ATM-1")
class ForgetsToForget(Journal):
    """Says that it is unavailable, and has the event in memory all the same, to be written with the next one."""

    def _keep_or_forget(self, before, after, runs):
        try:
            self._keep(after)
        except OSError as error:
            raise JournalUnavailable(f"the disk: {error}") from error


# -- processes --


@wrong("FEN-5", "CON-1", "DUR-4", "ATM-1", harness=DatabaseHarness)
class OnlyAThreadLock(SQLiteJournal):
    """Reads, decides and writes under a lock of this process, without a transaction."""

    @contextlib.contextmanager
    def _writing(self):
        self._require_open()
        with self._writers.lock:
            connection = self._begin("SELECT 1")
            try:
                yield connection
            finally:
                connection.close()


@wrong("FEN-6", "FEN-5", harness=DatabaseHarness)
class RemembersTheFence(SQLiteJournal):
    """Keeps in memory, for all handles of this process, under which token a run is held."""

    known: dict = {}

    def acquire(self, instance, run_id, owner, ttl):
        lease = super().acquire(instance, run_id, owner, ttl)
        self.known[instance.name, run_id] = lease.token
        return lease

    def release(self, instance, lease):
        super().release(instance, lease)
        self.known.pop((instance.name, lease.run_id), None)

    def append(self, instance, run_id, event, lease_token):
        if lease_token is not None and self.known.get((instance.name, run_id)) == lease_token:
            with contextlib.suppress(LeaseMismatch):
                return super().append(instance, run_id, event, lease_token)
            return super().append(instance, run_id, event, self._present(instance, run_id))
        return super().append(instance, run_id, event, lease_token)

    def _present(self, instance, run_id):
        with self._reading() as connection:
            return connection.exec_driver_sql(
                "SELECT token FROM continuum_runs WHERE instance = ? AND run_id = ?", (instance.name, run_id)
            ).scalar()


@wrong("CON-1", harness=DatabaseHarness)
class TablesIfThereIsNoFile(SQLiteJournal):
    """Makes the tables when it finds no file; who comes next finds the file, and no tables yet."""

    def __init__(self, path):
        self._made = path.exists()
        if not self._made:
            for table in _metadata.sorted_tables:  # each is committed by itself
                engine = create_engine(f"sqlite:///{path}", isolation_level="AUTOCOMMIT")
                table.create(engine)
                engine.dispose()
        super().__init__(path)

    @contextlib.contextmanager
    def _writing(self):
        made, self._made = self._made, False
        if made:
            yield create_mock_engine("sqlite://", lambda *_, **__: None)
            return
        with super()._writing() as connection:
            yield connection


# -- logs --


@wrong("DUR-4", "ATM-1", "CON-1", "CON-2", harness=DatabaseHarness)
class FinishesTwice(SQLiteJournal):
    """A finish is two transactions: the state, then its result."""

    def _move(self, key, token, changes):
        state = changes["state"]
        super()._move(key, token, {"state": state})
        if state != "suspended":
            with self._writing() as connection:
                named = " AND ".join(f"{name} = ?" for name in key)
                connection.exec_driver_sql(
                    f"UPDATE continuum_runs SET {', '.join(f'{name} = ?' for name in changes)} WHERE {named}",
                    (*changes.values(), *key.values()),
                )


class CountedHarness(SqlHarness):
    capabilities = SqlHarness.capabilities - {"shared"} | {"crash_safe"}


@wrong("DUR-4", "ATM-1", "CON-1", "CON-2", "CON-3", "FEN-5", harness=CountedHarness)
class CountsAfterwards(SqlJournal):
    """The event in one transaction and the count in the next: who dies between leaves the next event in its place."""

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        with self._transaction() as db:
            db.execute(
                "UPDATE runs SET next_seq = next_seq + 1 WHERE instance = ? AND run_id = ?",
                (instance.name, run_id),
            )

    COUNT = "SELECT 1"
    APPEND = SqlJournal.APPEND.replace("INSERT", "INSERT OR REPLACE")


class KeepsALog(Journal):
    """Appends all there is to a log, with its length before it. What is torn at its end is cut off by who opens it."""

    def _keep(self, packed):
        record = len(packed).to_bytes(8, "big") + packed
        with self._path.open("ab", buffering=0) as log:
            end = log.tell()
            try:
                if log.write(record) < len(record):
                    raise OSError("there is no room for the whole record")
                os.fsync(log.fileno())
            except OSError:
                os.ftruncate(log.fileno(), end)
                raise

    @classmethod
    def latest(cls, path):
        """The last whole record, with the rest cut off."""
        data = path.read_bytes() if path.exists() else b""
        found, end = pickle.dumps({}), 0
        while len(data) >= end + 8:
            size = int.from_bytes(data[end : end + 8], "big")
            if len(data) < end + 8 + size:
                break
            found, end = data[end + 8 : end + 8 + size], end + 8 + size
        if end < len(data):
            cls.cut_off(path, end)
        return found

    @staticmethod
    def cut_off(path, end):
        os.truncate(path, end)


class LogHarness(Harness):
    def open(self):
        path = Path(self.directory) / "runs.log"
        if not self._handles:
            self._store = Store(pickle.loads(self.journal_class.latest(path)))
        self._handles += 1
        return self.journal_class(path, self._store)


_bank.register(KeepsALog, LogHarness)  # right, but slow: each of its records holds all there is


@wrong("DUR-4", "ATM-1", harness=LogHarness)
class AppendsBehindWhatIsTorn(KeepsALog):
    """Reads over a torn record, and appends the next one behind it, where nobody finds it."""

    @staticmethod
    def cut_off(path, end):
        pass


@wrong("DUR-4", "ATM-1", harness=LogHarness)
class TakesWhatIsTorn(KeepsALog):
    """Believes that the last record is whole, and starts with nothing when it is not."""

    @classmethod
    def latest(cls, path):
        try:
            data, end = path.read_bytes(), 0
            while end < len(data):
                size = int.from_bytes(data[end : end + 8], "big")
                found, end = data[end + 8 : end + 8 + size], end + 8 + size
            pickle.loads(found)
        except (OSError, NameError, EOFError, pickle.UnpicklingError):
            path.unlink(missing_ok=True)
            return pickle.dumps({})
        return found


# -- what is only advised against --


@_bank.advised("ATM-5s", harness=InMemoryHarness)
class KeepsTheLockAfterCtrlC(InMemoryJournal):
    """Gives its lock back after an Exception, which KeyboardInterrupt is none of."""

    @contextlib.contextmanager
    def _locked(self):
        self._store.lock.acquire()
        try:
            yield self._store.runs
        except Exception:
            self._store.lock.release()
            raise
        self._store.lock.release()
