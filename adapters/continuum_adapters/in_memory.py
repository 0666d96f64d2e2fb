"""A journal in memory: the shortest complete adapter, for tests and for reading the contract as code.

Any number of threads and handles may share one store; it lives and dies with its process. Every operation
checks its arguments and copies its terms first, then takes the store's one lock for the few steps that decide
it. A stored term is never changed, so that readers copy it after the lock is let go.

Decisions that the contract leaves open: a finish ends the lease, so that `load_with_snapshot` of a terminal run
answers None with the pair and any token with ``LeaseMismatch``; a closed handle refuses every call.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from continuum_adapters.operations import operation
from continuum_conformance.contract import (
    Event,
    Instance,
    JournalUnavailable,
    Lease,
    LeaseHeld,
    LeaseLost,
    LeaseMismatch,
    Run,
    RunAlreadyExists,
    RunNotActive,
    RunNotFound,
    RunState,
    SequenceConflict,
    Snapshot,
    SnapshotConflict,
    Term,
)
from continuum_conformance.contract.arguments import (
    check_event,
    check_lease,
    check_name,
    check_names,
    check_snapshot,
    check_token,
    check_ttl,
)
from continuum_conformance.contract.terms import check_durable, copy_term, equal

__all__ = ["InMemoryHarness", "InMemoryJournal", "RunRecord", "Store"]

Key = tuple[str, str]
"""A run's key: (instance name, run id)."""

TAKEABLE = -math.inf
"""The expiry of a lease with a ttl of 0: in the past for any clock, whatever it does."""


@dataclass
class RunRecord:
    """One run as the store holds it. Changed only under the store's lock; its terms are never changed."""

    workflow: str
    input: Term
    state: RunState = RunState.RUNNING
    result: Term = None
    error: Term = None
    events: list[Event] = field(default_factory=list)
    snapshots: dict[int, Snapshot] = field(default_factory=dict)
    token: int | None = None
    """The fencing token, or None when the run is unleased."""
    owner: str | None = None
    expires_at: float = TAKEABLE
    last_token: int = 0
    """The greatest token ever given: it outlives the lease, so that tokens only grow (LEA-4)."""


@dataclass
class Store:
    """What the handles share: the runs, and the lock that guards them."""

    runs: dict[Key, RunRecord] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class InMemoryJournal:
    """A handle on a store in memory.

    Args:
        clock: tells the time in seconds; only leases ask it.
        store: the store to share; a new one by default.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, store: Store | None = None) -> None:
        self._clock = clock
        self._store = store if store is not None else Store()
        self._closed = False

    def close(self) -> None:
        """Refuse every later call. The store, and other handles on it, live on."""
        self._closed = True

    # -- runs --

    @operation
    def start_run(self, instance: Instance, run_id: str, workflow: str, input: Term) -> None:  # noqa: A002
        """See ``Journal.start_run``."""
        key = self._key(instance, run_id)
        check_name(workflow, "the workflow")
        stored = self._take_in(input, "input")
        with self._locked() as runs:
            if key in runs:
                raise RunAlreadyExists
            runs[key] = RunRecord(workflow, stored)

    @operation
    def get_run(self, instance: Instance, run_id: str) -> Run | None:
        """See ``Journal.get_run``."""
        key = self._key(instance, run_id)
        with self._locked() as runs:
            run = runs.get(key)
            if run is None:
                return None
            state, result, error = run.state, run.result, run.error
        return Run(
            run_id,
            run.workflow,
            state,
            self._give_out(run.input),
            self._give_out(result),
            self._give_out(error),
        )

    # -- history --

    @operation
    def append(
        self, instance: Instance, run_id: str, event: Mapping[str, Any], lease_token: int | None
    ) -> None:
        """See ``Journal.append``."""
        key = self._key(instance, run_id)
        token = check_token(lease_token)
        checked, seq = check_event(event)
        stored = copy_term(checked)
        with self._locked() as runs:
            run = self._require_active(runs, key)
            self._check_fence(run, token)
            stored["seq"] = self._next_seq(run, seq)
            run.events.append(stored)

    @operation
    def load(self, instance: Instance, run_id: str) -> list[Event]:
        """See ``Journal.load``."""
        key = self._key(instance, run_id)
        with self._locked() as runs:
            run = runs.get(key)
            events = run.events[:] if run is not None else []
        return [self._give_out(event) for event in events]

    @operation
    def load_with_snapshot(
        self, instance: Instance, run_id: str, lease_token: int | None
    ) -> tuple[Snapshot | None, list[Event]]:
        """See ``Journal.load_with_snapshot``."""
        key = self._key(instance, run_id)
        token = check_token(lease_token)
        with self._locked() as runs:
            run = self._require_run(runs, key)
            self._check_fence(run, token)
            snapshot = self._latest_snapshot(run)
            events = self._events_after(run, snapshot)
        return (
            None if snapshot is None else self._give_out_snapshot(snapshot),
            [self._give_out(event) for event in events],
        )

    @operation
    def take_snapshot(self, instance: Instance, snapshot: Snapshot) -> None:
        """See ``Journal.take_snapshot``."""
        checked = check_snapshot(snapshot)
        key = self._key(instance, checked.run_id)
        stored = self._give_out_snapshot(checked)
        with self._locked() as runs:
            run = self._require_run(runs, key)
            self._check_through_seq(run, stored.through_seq)
            first = run.snapshots.setdefault(stored.through_seq, stored)
            if not self._same_snapshot(first, stored):
                raise SnapshotConflict(
                    f"the snapshot through seq {stored.through_seq} differs from the one taken first"
                )

    # -- transitions --

    @operation
    def suspend(self, instance: Instance, run_id: str, lease_token: int | None) -> None:
        """See ``Journal.suspend``."""
        key = self._key(instance, run_id)
        token = check_token(lease_token)
        with self._locked() as runs:
            run = self._require_active(runs, key)
            self._check_fence(run, token)
            run.state = RunState.SUSPENDED

    @operation
    def complete(self, instance: Instance, run_id: str, result: Term, lease_token: int | None) -> None:
        """See ``Journal.complete``."""
        key = self._key(instance, run_id)
        token = check_token(lease_token)
        stored = self._take_in(result, "result")
        self._finish(key, token, RunState.COMPLETED, result=stored)

    @operation
    def fail(self, instance: Instance, run_id: str, error: Term, lease_token: int | None) -> None:
        """See ``Journal.fail``."""
        key = self._key(instance, run_id)
        token = check_token(lease_token)
        stored = self._take_in(error, "error")
        self._finish(key, token, RunState.FAILED, error=stored)

    def _finish(
        self, key: Key, token: int | None, state: RunState, *, result: Term = None, error: Term = None
    ) -> None:
        with self._locked() as runs:
            run = self._require_active(runs, key)
            self._check_fence(run, token)
            run.state, run.result, run.error = state, result, error
            self._end_lease(run)

    # -- leases --

    @operation
    def acquire(self, instance: Instance, run_id: str, owner: str, ttl: float) -> Lease:
        """See ``Journal.acquire``."""
        key = self._key(instance, run_id)
        check_name(owner, "the owner")
        seconds = check_ttl(ttl)
        with self._locked() as runs:
            run = self._require_active(runs, key)
            if not self._is_takeable(run):
                raise LeaseHeld(f"{run.owner!r} holds the lease")
            token = self._new_token(run)
            run.token, run.owner, run.expires_at = token, owner, self._expiry(seconds)
        return Lease(run_id, owner, token)

    @operation
    def renew(self, instance: Instance, lease: Lease, ttl: float) -> Lease:
        """See ``Journal.renew``."""
        held = check_lease(lease)
        key = self._key(instance, held.run_id)
        seconds = check_ttl(ttl)
        with self._locked() as runs:
            run = self._require_active(runs, key)
            self._check_holder(run, held)
            run.expires_at = self._expiry(seconds)
        return held

    @operation
    def release(self, instance: Instance, lease: Lease) -> None:
        """See ``Journal.release``."""
        held = check_lease(lease)
        key = self._key(instance, held.run_id)
        with self._locked() as runs:
            run = self._require_active(runs, key)
            self._check_holder(run, held)
            self._end_lease(run)

    # -- the rules, one each --

    @contextmanager
    def _locked(self) -> Iterator[dict[Key, RunRecord]]:
        """The runs, for as long as one operation takes."""
        if self._closed:
            raise JournalUnavailable("the journal is closed")
        with self._store.lock:
            yield self._store.runs

    def _key(self, instance: Instance, run_id: str) -> Key:
        """What names a run: a pair, never a joined string, so that no two pairs collide (ISO-1)."""
        return check_names(instance, run_id)

    def _take_in(self, term: Term, root: str) -> Term:
        """The store's own copy of a term, taken at the time of the call (TRM-4)."""
        check_durable(term, root)
        return copy_term(term)

    def _give_out(self, term: Term) -> Term:
        """The caller's own copy of a stored term (LOD-3)."""
        return copy_term(term)

    def _give_out_snapshot(self, snapshot: Snapshot) -> Snapshot:
        steps = {int(seq): copy_term(step) for seq, step in snapshot.steps_by_seq.items()}
        return Snapshot(
            snapshot.run_id, snapshot.through_seq, snapshot.version_hash, snapshot.taken_at, steps
        )

    def _require_run(self, runs: dict[Key, RunRecord], key: Key) -> RunRecord:
        run = runs.get(key)
        if run is None:
            raise RunNotFound
        return run

    def _require_active(self, runs: dict[Key, RunRecord], key: Key) -> RunRecord:
        run = self._require_run(runs, key)
        if run.state.terminal:
            raise RunNotActive(f"the run is {run.state}")
        return run

    def _check_fence(self, run: RunRecord, token: int | None) -> None:
        """The token must be the run's own; None is the token of an unleased run. Expiry does not matter (LEA-6)."""
        if token != run.token:
            raise LeaseMismatch(f"the token {token} is not the run's")

    def _next_seq(self, run: RunRecord, given: int | None) -> int:
        """The seq of the next event; an explicit one must be just that (APP-2)."""
        upcoming = len(run.events)
        if given is not None and given != upcoming:
            raise SequenceConflict(f"seq {given} given, {upcoming} is next")
        return upcoming

    def _latest_snapshot(self, run: RunRecord) -> Snapshot | None:
        return run.snapshots[max(run.snapshots)] if run.snapshots else None

    def _events_after(self, run: RunRecord, snapshot: Snapshot | None) -> list[Event]:
        return run.events[0 if snapshot is None else snapshot.through_seq + 1 :]

    def _check_through_seq(self, run: RunRecord, through_seq: int) -> None:
        """A snapshot past the history would hide events that are still to come (SNP-7)."""
        if not 0 <= through_seq < len(run.events):
            raise SnapshotConflict(f"{through_seq} is no seq of the history of {len(run.events)} events")

    def _same_snapshot(self, first: Snapshot, second: Snapshot) -> bool:
        """Whether two snapshots for one seq say the same; when they were taken does not count (SNP-5)."""
        return first.version_hash == second.version_hash and equal(first.steps_by_seq, second.steps_by_seq)

    def _is_takeable(self, run: RunRecord) -> bool:
        return run.token is None or run.expires_at <= self._clock()

    def _new_token(self, run: RunRecord) -> int:
        """A token greater than every one before, over release and expiry (LEA-4)."""
        run.last_token += 1
        return run.last_token

    def _expiry(self, ttl: float) -> float:
        return self._clock() + ttl if ttl > 0 else TAKEABLE

    def _check_holder(self, run: RunRecord, lease: Lease) -> None:
        """Owner and token must both match (LEA-5). An expired lease that nobody took is still held (LEA-6)."""
        if (run.token, run.owner) != (lease.token, lease.owner):
            raise LeaseLost

    def _end_lease(self, run: RunRecord) -> None:
        run.token, run.owner, run.expires_at = None, None, TAKEABLE


class InMemoryHarness:
    """Opens any number of handles on one store.

    Args:
        clock: the store's clock, in seconds.
    """

    capabilities = frozenset({"leases", "snapshots", "rich_terms", "opaque_run_ids"})
    journal_class = InMemoryJournal

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.store = Store()

    def open(self) -> InMemoryJournal:
        """A new handle on the harness's store."""
        return self.journal_class(self.clock, store=self.store)

    def close(self, journal: InMemoryJournal) -> None:
        """Close a handle."""
        journal.close()
