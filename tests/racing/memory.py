"""Races in memory: what goes wrong between two lines, or within one, of an adapter that threads share."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import replace

from continuum_adapters.in_memory import InMemoryHarness, InMemoryJournal, RunRecord
from continuum_adapters.operations import operation

from continuum_conformance.contract import (
    Lease,
    LeaseHeld,
    LeaseLost,
    RunAlreadyExists,
    RunNotActive,
    RunState,
    SnapshotConflict,
)
from continuum_conformance.contract.arguments import (
    check_event,
    check_name,
    check_snapshot,
    check_token,
    check_ttl,
)
from continuum_conformance.contract.terms import copy_term
from tests.bank import Bank

_bank = Bank(__name__, InMemoryHarness)
WRONG = _bank.WRONG
SEEN_IN = _bank.SEEN_IN
wrong = _bank.wrong


@wrong("FEN-5", "CON-3", "CON-1")
class FenceUnderAnotherLock(InMemoryJournal):
    """The fence is checked under the lock, the event is written under the lock, and between them it is free."""

    @operation
    def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        stored = copy_term(checked)
        with self._locked() as runs:
            run = self._require_active(runs, key)
            self._check_fence(run, token)
        with self._locked():
            stored["seq"] = self._next_seq(run, seq)
            run.events.append(stored)


@wrong("CON-3", "FEN-5", "CON-1")
class SeqBeforeTheLock(InMemoryJournal):
    """The next seq is read before the lock is taken, to keep the locked part short."""

    @operation
    def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        stored = copy_term(checked)
        run = self._require_active(self._store.runs, key)
        stored["seq"] = self._next_seq(run, seq)
        with self._locked() as runs:
            run = self._require_active(runs, key)
            self._check_fence(run, token)
            run.events.append(stored)


@wrong("CON-3", "CON-1", "FEN-5")
class LockFreeAppend(InMemoryJournal):
    """CPython's list.append is atomic, so no lock: the seq is read in the same line, and still earlier."""

    @operation
    def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        run = self._require_active(self._store.runs, key)
        self._check_fence(run, token)
        self._next_seq(run, seq)
        run.events.append({**copy_term(checked), "seq": len(run.events)})


@wrong("CON-3", "CON-1", "FEN-5", seen_in="https://github.com/langchain-ai/langgraph/issues/8115")
class CopyThenReplace(InMemoryJournal):
    """Readers need no lock because the history is replaced, never changed; two writers replace the same one."""

    @operation
    def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        run = self._require_active(self._store.runs, key)
        self._check_fence(run, token)
        events = [*run.events, {**copy_term(checked), "seq": self._next_seq(run, seq)}]
        run.events = events


@wrong("CON-2", "CON-1")
class CheckThenInsert(InMemoryJournal):
    """Looks whether the run exists, then takes the lock and stores it."""

    @operation
    def start_run(self, instance, run_id, workflow, input):
        key = self._key(instance, run_id)
        check_name(workflow, "the workflow")
        stored = self._take_in(input, "input")
        if key in self._store.runs:
            raise RunAlreadyExists
        with self._locked() as runs:
            runs[key] = RunRecord(workflow, stored)


@wrong("CON-2", "CON-1", "FEN-5", "LEA-2")
class TakeoverWithoutCompareAndSet(InMemoryJournal):
    """Acquire looks whether the lease is free, and sets it in a second step."""

    @operation
    def acquire(self, instance, run_id, owner, ttl):
        key = self._key(instance, run_id)
        check_name(owner, "the owner")
        check_ttl(ttl)
        with self._locked() as runs:
            run = self._require_active(runs, key)
            if not self._is_takeable(run):
                raise LeaseHeld
        with self._locked():
            token = self._new_token(run)
            run.owner, run.token, run.expires_at = owner, token, self._expiry(ttl)
        return Lease(run_id, owner, token)


@wrong("CON-2", "CON-1", "LEA-4")
class TokenOutsideTheLock(InMemoryJournal):
    """The new token is last + 1, computed before the lock."""

    @operation
    def acquire(self, instance, run_id, owner, ttl):
        key = self._key(instance, run_id)
        check_name(owner, "the owner")
        check_ttl(ttl)
        run = self._require_active(self._store.runs, key)
        token = run.last_token + 1
        with self._locked() as runs:
            run = self._require_active(runs, key)
            if not self._is_takeable(run):
                raise LeaseHeld
            run.owner, run.token, run.expires_at, run.last_token = owner, token, self._expiry(ttl), token
        return Lease(run_id, owner, token)


@wrong(
    "LEA-5", "CON-1", "FEN-5", "LEA-7", "CON-2", seen_in="https://github.com/hazelcast/hazelcast/pull/3744"
)
class RenewRevives(InMemoryJournal):
    """Renew checks the holder, then writes owner, token and expiry back as it had read them."""

    @operation
    def renew(self, instance, lease, ttl):
        key = self._key(instance, lease.run_id)
        check_ttl(ttl)
        with self._locked() as runs:
            run = self._require_active(runs, key)
            self._check_holder(run, lease)
        with self._locked():
            run.owner, run.token, run.expires_at = lease.owner, lease.token, self._expiry(ttl)
        return lease


@wrong("LEA-7", "FEN-5", "CON-1", seen_in="https://github.com/apache/superset/pull/43462")
class LateReleaseClears(InMemoryJournal):
    """Release checks the holder, then clears whoever holds the lease by then."""

    @operation
    def release(self, instance, lease):
        key = self._key(instance, lease.run_id)
        with self._locked() as runs:
            run = self._require_active(runs, key)
            self._check_holder(run, lease)
        with self._locked():
            self._end_lease(run)


@wrong("LEA-7", "FEN-5", "CON-1")
class LateReleaseOfTheOwners(InMemoryJournal):
    """Release checks the holder, then clears the owner's lease, which may be that of the owner come back."""

    @operation
    def release(self, instance, lease):
        key = self._key(instance, lease.run_id)
        with self._locked() as runs:
            run = self._require_active(runs, key)
            self._check_holder(run, lease)
        with self._locked():
            if run.owner != lease.owner:
                raise LeaseLost("somebody else has it by now")
            self._end_lease(run)


@wrong("LEA-5", "CON-1")
class HeartbeatOfTheOwners(InMemoryJournal):
    """Renew checks the holder, then moves the expiry of the owner's lease, which may be that of the owner come back."""

    @operation
    def renew(self, instance, lease, ttl):
        key = self._key(instance, lease.run_id)
        with self._locked() as runs:
            run = self._require_active(runs, key)
            self._check_holder(run, lease)
        with self._locked():
            if run.owner != lease.owner:
                raise LeaseLost("somebody else has it by now")
            run.expires_at = self._expiry(check_ttl(ttl))


@wrong("CON-2", "FEN-5", "CON-1", "APP-6", seen_in="https://github.com/riverqueue/river/issues/1302")
class FinishWithoutStateTest(InMemoryJournal):
    """The state is tested before the lock, and the finish overwrites whatever is there."""

    def _finish(self, key, token, state, *, result=None, error=None):
        run = self._require_active(self._store.runs, key)
        with self._locked():
            if not run.state.terminal:
                self._check_fence(run, token)
            run.state, run.result, run.error = state, result, error
            self._end_lease(run)


@wrong("FEN-5", "APP-6", "CON-1")
class AppendAfterFinish(InMemoryJournal):
    """The state is read before the lock is taken, the token under it; a run without a lease has none to compare."""

    @operation
    def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        stored = copy_term(checked)
        run = self._require_active(self._store.runs, key)
        with self._locked():
            self._check_fence(run, token)
            stored["seq"] = self._next_seq(run, seq)
            run.events.append(stored)


@wrong("SNP-10", "CON-1")
class PairInTwoReads(InMemoryJournal):
    """The snapshot is read, and then the events after it; a snapshot taken between them is later than both."""

    @operation
    def load_with_snapshot(self, instance, run_id, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        with self._locked() as runs:
            run = self._require_run(runs, key)
            self._check_fence(run, token)
            snapshot = self._latest_snapshot(run)
        with self._locked():
            latest = self._latest_snapshot(run)
            events = self._events_after(run, latest)
        return (
            None if snapshot is None else self._give_out_snapshot(snapshot),
            [self._give_out(event) for event in events],
        )


@wrong("SNP-5", "CON-1", "SNP-10")
class LastSnapshotWins(InMemoryJournal):
    """Looks whether there is a snapshot for this seq, then stores its own over whatever has come since."""

    @operation
    def take_snapshot(self, instance, snapshot):
        checked = check_snapshot(snapshot)
        key = self._key(instance, checked.run_id)
        stored = self._give_out_snapshot(checked)
        with self._locked() as runs:
            run = self._require_run(runs, key)
            self._check_through_seq(run, stored.through_seq)
            first = run.snapshots.get(stored.through_seq, stored)
            if not self._same_snapshot(first, stored):
                raise SnapshotConflict("another one was taken first")
        with self._locked():
            run.snapshots[stored.through_seq] = replace(stored, taken_at=first.taken_at)


@wrong("CON-4", "CON-1", seen_in="https://github.com/CloudSlang/score/pull/55")
class LocksInTwoOrders(InMemoryJournal):
    """A lock for leases and one for histories: append takes the one first, acquire the other."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        locks = (
            self._store.__dict__.setdefault("extra_locks", None) if hasattr(self._store, "__dict__") else None
        )
        if locks is None:
            locks = _LOCKS.setdefault(id(self._store), (threading.Lock(), threading.Lock()))
        self._leases, self._histories = locks

    def append(self, *arguments):
        with self._histories, self._leases:
            return super().append(*arguments)

    def acquire(self, *arguments):
        with self._leases, self._histories:
            return super().acquire(*arguments)


_LOCKS: dict[int, tuple[threading.Lock, threading.Lock]] = {}


@wrong("FEN-5", "CON-1", "CON-3", "CON-2")
class LockPerHandle(InMemoryJournal):
    """Each handle has a lock of its own: threads of one process share the store and not the lock."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._own = threading.RLock()

    @contextmanager
    def _locked(self):
        with self._own:
            yield self._store.runs


@wrong("CON-4")
class ForgetsItsLockWhenBeaten(InMemoryJournal):
    """Writers queue for a lock of the store; one that finds that another was faster leaves by a branch that keeps it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._writing = vars(self._store).setdefault("writing", threading.Lock())

    def start_run(self, *arguments):
        with self._writing:
            return super().start_run(*arguments)

    def append(self, instance, run_id, event, lease_token):
        before = self._length(instance, run_id)
        self._writing.acquire()
        try:
            super().append(instance, run_id, event, lease_token)
        finally:
            if self._length(instance, run_id) <= before + 1:
                self._writing.release()

    def _length(self, instance, run_id):
        try:
            return len(self.load(instance, run_id))
        except Exception:
            return 0


@wrong("FEN-5", "CON-1", "APP-6")
class SuspendOverwritesAFinish(InMemoryJournal):
    """Suspend checks everything under the lock, and sets the state after it was let go."""

    @operation
    def suspend(self, instance, run_id, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        with self._locked() as runs:
            run = self._require_active(runs, key)
            self._check_fence(run, token)
        if run.state.terminal:
            raise RunNotActive
        run.state = RunState.SUSPENDED


@wrong("FEN-5", "CON-1", "APP-6")
class DoubleChecked(InMemoryJournal):
    """Looks without the lock, and a second time under it only where it would refuse."""

    @operation
    def append(self, instance, run_id, event, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        checked, seq = check_event(event)
        stored = copy_term(checked)
        run = self._store.runs.get(key)
        fits = run is not None and not run.state.terminal and run.token == token
        with self._locked() as runs:
            if not fits:
                run = self._require_active(runs, key)
                self._check_fence(run, token)
            stored["seq"] = self._next_seq(run, seq)
            run.events.append(stored)


class _PerInstance(InMemoryJournal):
    """A lock and a dictionary for each instance, made at its first use."""

    def __init__(self, clock=time.monotonic, *, store=None):
        super().__init__(clock, store=store)
        vars(self._store).setdefault("places", {})

    @operation
    def start_run(self, instance, run_id, workflow, input):
        self._place(self._key(instance, run_id)[0])
        return super().start_run(instance, run_id, workflow, input)

    @contextmanager
    def _locked(self):
        with super()._locked():
            places = _Places(self._store.places)
            yield places

    def _place(self, name):
        raise NotImplementedError


class _Places:
    """The runs of all instances as one mapping."""

    def __init__(self, places):
        self._places = places

    def get(self, key, default=None):
        return self._places.get(key[0], {}).get(key, default)

    def __contains__(self, key):
        return self.get(key) is not None

    def __getitem__(self, key):
        return self._places[key[0]][key]

    def __setitem__(self, key, run):
        self._places[key[0]][key] = run


@wrong("CON-1", "ISO-2", "CON-2")
class InstanceMadeTwice(_PerInstance):
    """An instance's dictionary is made at its first use, by whoever finds none, before the lock is taken."""

    def _place(self, name):
        if name not in self._store.places:
            self._store.places[name] = {}
