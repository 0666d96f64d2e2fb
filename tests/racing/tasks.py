"""Races of tasks: coroutines over a store in memory, which are at each other's mercy wherever they await."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from continuum_adapters.in_memory import InMemoryHarness, InMemoryJournal, RunRecord

from continuum_conformance.contract import (
    Lease,
    LeaseHeld,
    RunAlreadyExists,
    RunState,
    SnapshotConflict,
)
from continuum_conformance.contract.arguments import (
    check_event,
    check_lease,
    check_name,
    check_snapshot,
    check_token,
    check_ttl,
)
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.terms import copy_term
from tests.bank import Bank


class Journal(InMemoryJournal):
    """Every operation is a coroutine whose one step decides it, and which awaits only afterwards."""

    def __init__(self, clock, *, store, locks):
        super().__init__(clock, store=store)
        self._locks = locks


def _made(name):
    plain = getattr(InMemoryJournal, name)

    async def call(self, *arguments):
        answer = plain(self, *arguments)
        await asyncio.sleep(0)
        return answer

    call.__name__ = name
    return call


for _name in OPERATIONS:
    setattr(Journal, _name, _made(_name))


class Harness:
    capabilities = InMemoryHarness.capabilities
    journal_class = Journal

    def __init__(self):
        self.inner, self.locks = InMemoryHarness(), {}

    async def open(self):
        await asyncio.sleep(0)
        return self.journal_class(self.inner.clock, store=self.inner.store, locks=self.locks)

    async def close(self, journal):
        await asyncio.sleep(0)
        journal.close()


_bank = Bank(__name__, Harness)
WRONG = _bank.WRONG
SEEN_IN = _bank.SEEN_IN
RIGHT = _bank.RIGHT
wrong = _bank.wrong
right = _bank.right


# -- right --


@right
class OneStep(Journal):
    """No lock: nothing is awaited between a check and its write."""


@right
class LockPerStore(Journal):
    """One asyncio.Lock for the store, and awaits in the middle of everything that writes, under it."""

    def _lock(self, key):
        return self._locks.setdefault("store", asyncio.Lock())

    @contextlib.asynccontextmanager
    async def _active(self, key):
        async with self._lock(key):
            run = self._require_active(self._store.runs, key)
            await asyncio.sleep(0)
            yield run

    async def start_run(self, instance, run_id, workflow, input):
        key, stored = self._key(instance, run_id), self._take_in(input, "input")
        check_name(workflow, "the workflow")
        async with self._lock(key):
            if key in self._store.runs:
                raise RunAlreadyExists
            await asyncio.sleep(0)
            self._store.runs[key] = RunRecord(workflow, stored)

    async def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        stored = copy_term(checked)
        async with self._active(key) as run:
            self._check_fence(run, token)
            await asyncio.sleep(0)
            stored["seq"] = self._next_seq(run, seq)
            await asyncio.sleep(0)
            run.events.append(stored)

    async def suspend(self, instance, run_id, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        async with self._active(key) as run:
            self._check_fence(run, token)
            await asyncio.sleep(0)
            run.state = RunState.SUSPENDED

    async def complete(self, instance, run_id, result, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        await self._finished(key, token, RunState.COMPLETED, self._take_in(result, "result"), None)

    async def fail(self, instance, run_id, error, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        await self._finished(key, token, RunState.FAILED, None, self._take_in(error, "error"))

    async def _finished(self, key, token, state, result, error):
        async with self._active(key) as run:
            self._check_fence(run, token)
            await asyncio.sleep(0)
            self._set(run, state, result, error)

    def _set(self, run, state, result, error):
        run.state, run.result, run.error = state, result, error
        self._end_lease(run)

    async def acquire(self, instance, run_id, owner, ttl):
        key, seconds = self._key(instance, run_id), check_ttl(ttl)
        check_name(owner, "the owner")
        async with self._active(key) as run:
            if not self._is_takeable(run):
                raise LeaseHeld
            await asyncio.sleep(0)
            return self._grant(run, run_id, owner, seconds)

    def _grant(self, run, run_id, owner, seconds):
        token = self._new_token(run)
        run.token, run.owner, run.expires_at = token, owner, self._expiry(seconds)
        return Lease(run_id, owner, token)

    async def renew(self, instance, lease, ttl):
        held, seconds = check_lease(lease), check_ttl(ttl)
        async with self._active(self._key(instance, held.run_id)) as run:
            self._check_holder(run, held)
            await asyncio.sleep(0)
            run.expires_at = self._expiry(seconds)
        return held

    async def release(self, instance, lease):
        held = check_lease(lease)
        async with self._active(self._key(instance, held.run_id)) as run:
            self._check_holder(run, held)
            await asyncio.sleep(0)
            self._end_lease(run)


@right
class LockPerRun(LockPerStore):
    """One asyncio.Lock for each run, made in one step."""

    def _lock(self, key):
        return self._locks.setdefault(key, asyncio.Lock())


@right
class ComparesBeforeItWrites(Journal):
    """No lock: an append awaits with what it has read, and begins anew when the run is another by then."""

    async def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        stored = copy_term(checked)
        while True:
            run = self._require_active(self._store.runs, key)
            self._check_fence(run, token)
            stored["seq"] = self._next_seq(run, seq)
            seen = run.state.terminal, run.token, len(run.events)
            await asyncio.sleep(0)
            if (run.state.terminal, run.token, len(run.events)) == seen:
                run.events.append(stored)
                return


# -- wrong --


@wrong("FEN-5", "CON-1", "APP-6")
class AwaitsAfterTheFence(Journal):
    """An await between the check of the fence and the write."""

    async def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        stored = copy_term(checked)
        run = self._require_active(self._store.runs, key)
        self._check_fence(run, token)
        await asyncio.sleep(0)
        stored["seq"] = self._next_seq(run, seq)
        run.events.append(stored)


@wrong("CON-3", "CON-1")
class AwaitsAfterTheSeq(Journal):
    """An await between reading the next seq and writing; the fence is checked in time."""

    async def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        stored = copy_term(checked)
        stored["seq"] = self._next_seq(self._require_active(self._store.runs, key), seq)
        await asyncio.sleep(0)
        run = self._require_active(self._store.runs, key)
        self._check_fence(run, token)
        run.events.append(stored)


@wrong("CON-2", "CON-1")
class AwaitsBeforeTheGrant(Journal):
    """Acquire looks at the old lease, awaits, and grants the new one: two have been told that it was free."""

    async def acquire(self, instance, run_id, owner, ttl):
        key, seconds = self._key(instance, run_id), check_ttl(ttl)
        check_name(owner, "the owner")
        run = self._require_active(self._store.runs, key)
        if not self._is_takeable(run):
            raise LeaseHeld
        await asyncio.sleep(0)
        return LockPerStore._grant(self, run, run_id, owner, seconds)


@wrong("CON-2", "CON-1", "FEN-5")
class AwaitsBeforeTheFinish(Journal):
    """A finish tests state and token, awaits, and writes."""

    async def _finished(self, key, token, state, result, error):
        run = self._require_active(self._store.runs, key)
        self._check_fence(run, token)
        await asyncio.sleep(0)
        LockPerStore._set(self, run, state, result, error)

    complete, fail = LockPerStore.complete, LockPerStore.fail


@wrong("FEN-5", "CON-1", "CON-2", "CON-3")
class LockPerHandle(LockPerStore):
    """An asyncio.Lock for each handle: tasks of one handle are kept apart, and two handles are not."""

    def __init__(self, clock, *, store, locks):
        super().__init__(clock, store=store, locks={})


@wrong("FEN-5", "CON-1", "CON-2", "CON-3")
class LockPerCall(LockPerStore):
    """The lock is made where it is taken: everybody has one of his own."""

    def _lock(self, key):
        return asyncio.Lock()


@wrong("FEN-5", "CON-1", "CON-2", "CON-3")
class TwoAtOnce(LockPerStore):
    """A semaphore, and two may pass it."""

    def _lock(self, key):
        return self._locks.setdefault("store", asyncio.Semaphore(2))


@wrong("FEN-5", "CON-1", "CON-2", "CON-3")
class LockMadeTwice(LockPerStore):
    """The lock of a run is looked up, and made when there is none after an await; it goes when nobody holds it."""

    @contextlib.asynccontextmanager
    async def _lock(self, key):
        lock = self._locks.get(key)
        if lock is None:
            await asyncio.sleep(0)
            lock = self._locks[key] = asyncio.Lock()
        try:
            async with lock:
                yield
        finally:
            self._locks.pop(key, None)


@wrong("FEN-5", "CON-1")
class OnlyTheSeqIsCompared(Journal):
    """Optimistic, with the length of the history for a version: a takeover or a finish does not change it."""

    async def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        stored = copy_term(checked)
        while True:
            run = self._require_active(self._store.runs, key)
            self._check_fence(run, token)
            stored["seq"] = self._next_seq(run, seq)
            await asyncio.sleep(0)
            if len(run.events) == stored["seq"]:
                run.events.append(stored)
                return


@wrong("FEN-5", "CON-1")
class AllButTheTokenIsCompared(Journal):
    """The same with the state for a part of the version: what is missed is a takeover that writes nothing yet."""

    async def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        stored = copy_term(checked)
        while True:
            run = self._require_active(self._store.runs, key)
            self._check_fence(run, token)
            stored["seq"] = self._next_seq(run, seq)
            await asyncio.sleep(0)
            if len(run.events) == stored["seq"] and not run.state.terminal:
                run.events.append(stored)
                return


@wrong("CON-1", "FEN-5", "CON-2")
class StateBeforeTheAwait(Journal):
    """Acquire looks at the state, awaits, and compares and grants the lease in one step, of a run that is over."""

    async def acquire(self, instance, run_id, owner, ttl):
        key, seconds = self._key(instance, run_id), check_ttl(ttl)
        check_name(owner, "the owner")
        run = self._require_active(self._store.runs, key)
        await asyncio.sleep(0)
        if not self._is_takeable(run):
            raise LeaseHeld
        return LockPerStore._grant(self, run, run_id, owner, seconds)


@wrong("LEA-5", "CON-1", "FEN-5", "CON-2")
class RenewWritesItAllBack(Journal):
    """Renew checks the holder, awaits, and writes owner, token and expiry back."""

    async def renew(self, instance, lease, ttl):
        held, seconds = check_lease(lease), check_ttl(ttl)
        run = self._require_active(self._store.runs, self._key(instance, held.run_id))
        self._check_holder(run, held)
        await asyncio.sleep(0)
        run.owner, run.token, run.expires_at = held.owner, held.token, self._expiry(seconds)
        return held


@wrong("SNP-10", "CON-1")
class AwaitsWithinThePair(Journal):
    """The events are read, and after an await the snapshot, which may be past them."""

    async def load_with_snapshot(self, instance, run_id, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        run = self._require_run(self._store.runs, key)
        self._check_fence(run, token)
        events = [self._give_out(event) for event in self._events_after(run, self._latest_snapshot(run))]
        await asyncio.sleep(0)
        snapshot = self._latest_snapshot(run)
        return None if snapshot is None else self._give_out_snapshot(snapshot), events


@wrong("SNP-5", "CON-1", "SNP-10")
class AwaitsBeforeTheSnapshot(Journal):
    """Looks whether there is a snapshot for this seq, awaits, and stores its own."""

    async def take_snapshot(self, instance, snapshot):
        checked = check_snapshot(snapshot)
        stored = self._give_out_snapshot(checked)
        run = self._require_run(self._store.runs, self._key(instance, checked.run_id))
        self._check_through_seq(run, stored.through_seq)
        first = run.snapshots.get(stored.through_seq, stored)
        if not self._same_snapshot(first, stored):
            raise SnapshotConflict("another one was taken first")
        await asyncio.sleep(0)
        run.snapshots[stored.through_seq] = replace(stored, taken_at=first.taken_at)


@wrong("CON-1", "CON-2", "FEN-5")
class TornRead(Journal):
    """get_run reads the state, awaits, and reads the result."""

    async def get_run(self, instance, run_id):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is None:
            return None
        state = run.state
        await asyncio.sleep(0)
        answer = InMemoryJournal.get_run(self, instance, run_id)
        return replace(answer, state=state)


@wrong("CON-4", "CON-1")
class LocksInTwoOrders(LockPerStore):
    """A lock for leases and one for histories: append takes the one first, acquire the other."""

    def _other(self):
        return self._locks.setdefault("other", asyncio.Lock())

    async def append(self, *arguments):
        async with self._other():
            return await super().append(*arguments)

    async def acquire(self, *arguments):
        async with self._lock(None):
            await asyncio.sleep(0)
            async with self._other():
                return await Journal.acquire(self, *arguments)


@wrong("CON-2", "CON-1", "LEA-4")
class TokenBeforeTheAwait(Journal):
    """The lease is looked at again after the await, and the new token is of before."""

    async def acquire(self, instance, run_id, owner, ttl):
        key, seconds = self._key(instance, run_id), check_ttl(ttl)
        check_name(owner, "the owner")
        token = self._require_active(self._store.runs, key).last_token + 1
        await asyncio.sleep(0)
        run = self._require_active(self._store.runs, key)
        if not self._is_takeable(run):
            raise LeaseHeld
        run.token, run.owner, run.expires_at, run.last_token = token, owner, self._expiry(seconds), token
        return Lease(run_id, owner, token)


@wrong("CON-2", "CON-1")
class InstanceMadeTwice(Journal):
    """The first start of an instance makes the place for its runs, after an await, and with it those of the second."""

    async def start_run(self, instance, run_id, workflow, input):
        key, name = self._key(instance, run_id), instance.name
        stored = self._take_in(input, "input")
        check_name(workflow, "the workflow")
        if name not in self._locks:
            await asyncio.sleep(0)
            self._locks[name] = True
            for other in [other for other in self._store.runs if other[0] == key[0]]:
                del self._store.runs[other]
        if key in self._store.runs:
            raise RunAlreadyExists
        self._store.runs[key] = RunRecord(workflow, stored)


@wrong("CON-1", "CON-3", "ISO-2")
class ScratchOfTheStore(LockPerRun):
    """Locks for each run, and one variable for the next seq of whichever."""

    async def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        stored = copy_term(checked)
        async with self._active(key) as run:
            self._check_fence(run, token)
            self._locks["seq"] = self._next_seq(run, seq)
            await asyncio.sleep(0)
            run.events.append({**stored, "seq": self._locks["seq"]})


@wrong("CON-1", "CON-3", "FEN-5")
class ScratchOfTheHandle(Journal):
    """What a handle is about to write stands in the handle, while it awaits."""

    async def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        self._about = key, copy_term(checked), token, seq
        await asyncio.sleep(0)
        key, stored, token, seq = self._about
        run = self._require_active(self._store.runs, key)
        self._check_fence(run, token)
        run.events.append({**stored, "seq": self._next_seq(run, seq)})


@wrong("FEN-5", "CON-1")
class TrustsAFencedWrite(Journal):
    """A handle's first append under a token is checked in time, its later ones before an await."""

    _fenced = None

    async def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        stored = copy_term(checked)
        run = self._require_active(self._store.runs, key)
        self._check_fence(run, token)
        if token is not None and self._fenced == (key, token):
            await asyncio.sleep(0)
        run.events.append({**stored, "seq": self._next_seq(run, seq)})
        self._fenced = key, token


@wrong("FEN-5", "CON-1", "SNP-10")
class AwaitsBeforeTheFencedRead(Journal):
    """load_with_snapshot checks the fence, awaits, and reads in one step what a new holder may have written."""

    async def load_with_snapshot(self, instance, run_id, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        run = self._require_run(self._store.runs, key)
        self._check_fence(run, token)
        await asyncio.sleep(0)
        snapshot = self._latest_snapshot(run)
        events = [self._give_out(event) for event in self._events_after(run, snapshot)]
        return None if snapshot is None else self._give_out_snapshot(snapshot), events
