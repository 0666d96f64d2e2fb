"""Async journals: over a dict with asyncio.Lock, and over sqlite in a thread; opened by coroutine or plainly."""

from __future__ import annotations

import asyncio
import copy
import inspect
from pathlib import Path
from typing import Any

from tests.unusual import codecs
from tests.unusual.rules import Refusal, Rules, Sync, plain_event, translate


class Async:
    """The twelve calls as coroutines. What the caller gave is encoded before the first await (TRM-4)."""

    rules = Rules()

    async def read(self, key, since):
        raise NotImplementedError

    async def write(self, key, change):
        raise NotImplementedError

    async def _do(self, op, instance, run_id, **given):
        key = self.rules.key(instance, run_id)
        found = self.rules.argument_refusals(op, given)
        if found:
            raise found[0]
        given = {name: _own(value) for name, value in given.items()}
        given["run_id"] = run_id

        def change(run):
            after, answer = self.rules.change(op, run, given)
            return after, plain_event(given["event"], run["length"]) if op == "append" else None, answer

        return await self.write(key, change)

    async def start_run(self, instance, run_id, workflow, input):
        return await self._do("start_run", instance, run_id, workflow=workflow, input=input)

    async def append(self, instance, run_id, event, lease_token):
        return await self._do("append", instance, run_id, event=event, token=lease_token)

    async def suspend(self, instance, run_id, lease_token):
        return await self._do("suspend", instance, run_id, token=lease_token)

    async def complete(self, instance, run_id, result, lease_token):
        return await self._do("complete", instance, run_id, result=result, token=lease_token)

    async def fail(self, instance, run_id, error, lease_token):
        return await self._do("fail", instance, run_id, error=error, token=lease_token)

    async def acquire(self, instance, run_id, owner, ttl):
        return await self._do("acquire", instance, run_id, owner=owner, ttl=ttl)

    # Not a coroutine function, but one that gives an awaitable: that is a coroutine to who awaits it.
    def renew(self, instance, lease, ttl):
        return asyncio.ensure_future(
            self._do("renew", instance, lease.run_id, lease=lease, ttl=ttl, owner=lease.owner)
        )

    async def release(self, instance, lease):
        return await self._do("release", instance, lease.run_id, lease=lease, owner=lease.owner)

    async def take_snapshot(self, instance, snapshot):
        return await self._do("take_snapshot", instance, snapshot.run_id, snapshot=snapshot)

    async def load(self, instance, run_id):
        return (await self.read(self.rules.key(instance, run_id), lambda _run: 0))[1]

    async def get_run(self, instance, run_id):
        key = self.rules.key(instance, run_id)
        return self.rules.row(run_id, (await self.read(key, lambda _run: None))[0])

    async def load_with_snapshot(self, instance, run_id, lease_token):
        key = self.rules.key(instance, run_id)
        run, events = await self.read(key, lambda run: max(run["snapshots"]) + 1 if run["snapshots"] else 0)
        self.rules.refuse("load_with_snapshot", run, {"token": lease_token})
        return self.rules.latest(run_id, run), events


def _own(value: Any) -> Any:
    if hasattr(value, "steps_by_seq"):
        return _own_snapshot(value)
    return copy.deepcopy(value) if type(value) in (dict, list, tuple, set) else value


def _own_snapshot(snapshot):
    from types import SimpleNamespace

    return SimpleNamespace(
        run_id=snapshot.run_id,
        through_seq=snapshot.through_seq,
        version_hash=snapshot.version_hash,
        taken_at=snapshot.taken_at,
        steps_by_seq=copy.deepcopy(dict(snapshot.steps_by_seq)),
    )


class AsyncDict(Async):
    """Awaits in the middle of everything, under a lock of the run."""

    def __init__(self, store: dict[Any, Any], locks: dict[Any, Any]) -> None:
        self.store, self.locks, self.closed = store, locks, False

    async def read(self, key, since):
        self._check()
        async with self.locks.setdefault(key, asyncio.Lock()):
            await asyncio.sleep(0)
            run, events = self.store.get(key, (None, []))
            start = None if run is None else since(run)
            return copy.deepcopy((run, events[start:] if start is not None else []))

    async def write(self, key, change):
        self._check()
        async with self.locks.setdefault(key, asyncio.Lock()):
            run, events = self.store.get(key, (None, []))
            after, event, answer = change(run)
            await asyncio.sleep(0)
            self.store[key] = after, [*events, event] if event else events
            return copy.copy(answer)

    def _check(self):
        if self.closed:
            raise Refusal("JournalUnavailable", "closed")


class AsyncDictHarness:
    """`open` and `close` are coroutines."""

    capabilities = frozenset({"leases", "snapshots", "rich_terms", "opaque_run_ids"})

    def __init__(self):
        self.store, self.locks = {}, {}

    async def open(self):
        await asyncio.sleep(0)
        return AsyncDict(self.store, self.locks)

    async def close(self, journal):
        await asyncio.sleep(0)
        journal.closed = True

    translate = staticmethod(translate)


class SyncOpenHarness(AsyncDictHarness):
    """`open` is plain, and so is `close`."""

    def open(self):
        return AsyncDict(self.store, self.locks)

    def close(self, journal):
        journal.closed = True


class NeedsTheLoop(AsyncDictHarness):
    """A plain `open` that asks for the running loop; closed by a coroutine."""

    def open(self):
        journal = AsyncDict(self.store, self.locks)
        journal.loop = asyncio.get_running_loop()
        return journal


class CountsItsOpens(AsyncDictHarness):
    """A plain `open` that takes something which only the coroutine `close` gives back."""

    taken = 0

    def open(self):
        if self.taken >= 2:
            raise RuntimeError("two handles at most, and each must be closed")
        type(self).taken += 1
        return AsyncDict(self.store, self.locks)

    async def close(self, journal):
        type(self).taken -= 1
        journal.closed = True


class OneAsyncForAll(AsyncDictHarness):
    """A plain `open` that gives the same journal always, and a plain `close` that is final."""

    def __init__(self):
        super().__init__()
        self.one = AsyncDict(self.store, self.locks)

    def open(self):
        return self.one

    def close(self, journal):
        journal.closed = True


class ThreadedJournal(Async):
    """A plain journal behind `asyncio.to_thread`."""

    def __init__(self, inner: Sync) -> None:
        self.inner, self.rules = inner, inner.rules

    async def read(self, key, since):
        return await asyncio.to_thread(self.inner.read, key, since)

    async def write(self, key, change):
        return await asyncio.to_thread(self.inner.write, key, change)


class ThreadedHarness:
    needs = {"directory"}
    capabilities = ["leases", "snapshots", "durable", "shared", "crash_safe", "rich_terms", "opaque_run_ids"]

    def open(self):
        from tests.unusual.sqlite_cas import CasJournal

        return ThreadedJournal(CasJournal(str(Path(self.directory) / "threaded.db")))

    def close(self, journal):
        journal.inner.close()

    def translate(self, exception):
        return translate(exception)


class AioSqliteJournal(Async):
    """One BEGIN IMMEDIATE around every change; the whole run is one row, its history a table of its own."""

    def __init__(self, connection) -> None:
        self.connection, self.lock = connection, asyncio.Lock()

    @classmethod
    async def create(cls, file: str):
        import aiosqlite

        connection = await aiosqlite.connect(file, isolation_level=None, timeout=30)
        await connection.execute("PRAGMA journal_mode=WAL")
        await connection.execute("PRAGMA synchronous=NORMAL")
        await connection.execute("CREATE TABLE IF NOT EXISTS runs (k BLOB PRIMARY KEY, head BLOB)")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS events (k BLOB, seq INT, body BLOB, PRIMARY KEY (k, seq))"
        )
        return cls(connection)

    async def _one(self, query, *arguments):
        async with self.connection.execute(query, arguments) as cursor:
            return await cursor.fetchone()

    # What has begun is finished, whoever stops waiting for it: the connection is never left within a transaction.

    async def read(self, key, since):
        return await asyncio.shield(asyncio.ensure_future(self._read(key, since)))

    async def write(self, key, change):
        return await asyncio.shield(asyncio.ensure_future(self._write(key, change)))

    async def _read(self, key, since):
        async with self.lock:
            await self.connection.execute("BEGIN")
            try:
                row = await self._one("SELECT head FROM runs WHERE k = ?", codecs.pack(list(key)))
                run = None if row is None else codecs.unpack(row[0])
                start = None if run is None else since(run)
                if start is None:
                    return run, []
                async with self.connection.execute(
                    "SELECT body FROM events WHERE k = ? AND seq >= ? ORDER BY seq",
                    (codecs.pack(list(key)), start),
                ) as cursor:
                    return run, [codecs.unpack(body) for (body,) in await cursor.fetchall()]
            finally:
                await self.connection.execute("COMMIT")

    async def _write(self, key, change):
        packed = codecs.pack(list(key))
        async with self.lock:
            await self.connection.execute("BEGIN IMMEDIATE")
            try:
                row = await self._one("SELECT head FROM runs WHERE k = ?", packed)
                run = None if row is None else codecs.unpack(row[0])
                after, event, answer = change(run)
                await self.connection.execute(
                    "INSERT OR REPLACE INTO runs VALUES (?, ?)", (packed, codecs.pack(after))
                )
                if event is not None:
                    await self.connection.execute(
                        "INSERT INTO events VALUES (?, ?, ?)", (packed, run["length"], codecs.pack(event))
                    )
            except BaseException:
                await self.connection.execute("ROLLBACK")
                raise
            await self.connection.execute("COMMIT")
            return answer


class AioSqliteHarness:
    capabilities = {"leases", "snapshots", "durable", "shared", "crash_safe", "rich_terms", "opaque_run_ids"}
    needs = "directory"

    async def open(self):
        return await AioSqliteJournal.create(str(Path(self.directory) / "aio.db"))

    async def close(self, journal):
        await journal.connection.close()

    def translate(self, exception):
        assert not inspect.iscoroutine(exception)
        return translate(exception)
