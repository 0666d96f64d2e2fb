"""A journal of one's own in two hundred lines or so: runs in a dict, guarded by one lock.

Check it from this folder with ``continuum-conformance check ledger:LedgerHarness``.
"""

# ruff: noqa: D102 - what each method does stands in the contract

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from continuum_conformance.contract import (
    Event,
    Instance,
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
    Term,
)
from continuum_conformance.contract.arguments import (
    check_event,
    check_lease,
    check_name,
    check_names,
    check_token,
    check_ttl,
)
from continuum_conformance.contract.terms import check_durable, copy_term


@dataclass
class Entry:
    """What the ledger keeps of one run."""

    workflow: str
    input: Term
    state: RunState = RunState.RUNNING
    result: Term = None
    error: Term = None
    events: list[Event] = field(default_factory=list)
    token: int | None = None
    owner: str | None = None
    expires: float = -math.inf
    last_token: int = 0


class Ledger:
    """A journal with leases, without snapshots. All handles share the entries and the lock."""

    def __init__(self, entries: dict[tuple[str, str], Entry], lock: threading.Lock) -> None:
        self._entries, self._lock = entries, lock

    def start_run(self, instance: Instance, run_id: str, workflow: str, input: Term) -> None:  # noqa: A002
        key = check_names(instance, run_id)
        check_name(workflow, "the workflow")
        entry = Entry(workflow, taken(input, "input"))
        with self._lock:
            if key in self._entries:
                raise RunAlreadyExists(operation="start_run", run_id=run_id)
            self._entries[key] = entry

    def get_run(self, instance: Instance, run_id: str) -> Run | None:
        key = check_names(instance, run_id)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            values = copy_term([entry.input, entry.result, entry.error])
            return Run(run_id, entry.workflow, entry.state, *values)

    def append(
        self, instance: Instance, run_id: str, event: Mapping[str, Any], lease_token: int | None
    ) -> None:
        key, token = check_names(instance, run_id), check_token(lease_token)
        plain, seq = check_event(event, rich=False)
        stored = copy_term(plain)
        with self._lock:
            entry = self._writable(key, token)
            upcoming = len(entry.events)
            if seq is not None and seq != upcoming:
                raise SequenceConflict(f"seq {seq} given, {upcoming} is next", run_id=run_id)
            entry.events.append({**stored, "seq": upcoming})

    def load(self, instance: Instance, run_id: str) -> list[Event]:
        key = check_names(instance, run_id)
        with self._lock:
            entry = self._entries.get(key)
            return [copy_term(event) for event in entry.events] if entry is not None else []

    def load_with_snapshot(
        self, instance: Instance, run_id: str, lease_token: int | None
    ) -> tuple[Snapshot | None, list[Event]]:
        key, token = check_names(instance, run_id), check_token(lease_token)
        with self._lock:
            entry = self._entry(key)
            self._check_fence(entry, token)
            return None, [copy_term(event) for event in entry.events]

    def suspend(self, instance: Instance, run_id: str, lease_token: int | None) -> None:
        key, token = check_names(instance, run_id), check_token(lease_token)
        with self._lock:
            self._writable(key, token).state = RunState.SUSPENDED

    def complete(self, instance: Instance, run_id: str, result: Term, lease_token: int | None) -> None:
        key, token = check_names(instance, run_id), check_token(lease_token)
        self._finish(key, token, RunState.COMPLETED, result=taken(result, "result"))

    def fail(self, instance: Instance, run_id: str, error: Term, lease_token: int | None) -> None:
        key, token = check_names(instance, run_id), check_token(lease_token)
        self._finish(key, token, RunState.FAILED, error=taken(error, "error"))

    def acquire(self, instance: Instance, run_id: str, owner: str, ttl: float) -> Lease:
        key, seconds = check_names(instance, run_id), check_ttl(ttl)
        check_name(owner, "the owner")
        with self._lock:
            entry = self._active(key)
            if entry.token is not None and entry.expires > time.monotonic():
                raise LeaseHeld(f"{entry.owner!r} holds it", operation="acquire", run_id=run_id)
            token, expires = self._new_token(entry), expiry(seconds)
            # Nothing is called between these, so a Ctrl-C cannot come between them (ATM-5s).
            entry.token, entry.last_token, entry.owner, entry.expires = token, token, owner, expires
            return Lease(run_id, owner, token)

    def renew(self, instance: Instance, lease: Lease, ttl: float) -> None:
        held, seconds = check_lease(lease), check_ttl(ttl)
        key = check_names(instance, held.run_id)
        with self._lock:
            self._held(key, held).expires = expiry(seconds)

    def release(self, instance: Instance, lease: Lease) -> None:
        held = check_lease(lease)
        key = check_names(instance, held.run_id)
        with self._lock:
            entry = self._held(key, held)
            entry.token = entry.owner = None

    # -- the rules, one each; called under the lock --

    def _entry(self, key: tuple[str, str]) -> Entry:
        if key not in self._entries:
            raise RunNotFound(run_id=key[1])
        return self._entries[key]

    def _active(self, key: tuple[str, str]) -> Entry:
        entry = self._entry(key)
        if entry.state.terminal:
            raise RunNotActive(f"the run is {entry.state}", run_id=key[1])
        return entry

    def _check_fence(self, entry: Entry, token: int | None) -> None:
        if token != entry.token:
            raise LeaseMismatch(f"the token {token} is not the run's")

    def _writable(self, key: tuple[str, str], token: int | None) -> Entry:
        entry = self._active(key)
        self._check_fence(entry, token)
        return entry

    def _held(self, key: tuple[str, str], lease: Lease) -> Entry:
        entry = self._active(key)
        if (entry.token, entry.owner) != (lease.token, lease.owner):
            raise LeaseLost(run_id=lease.run_id)
        return entry

    def _new_token(self, entry: Entry) -> int:
        return entry.last_token + 1

    def _finish(
        self,
        key: tuple[str, str],
        token: int | None,
        state: RunState,
        *,
        result: Term = None,
        error: Term = None,
    ) -> None:
        with self._lock:
            entry = self._writable(key, token)
            entry.state, entry.result, entry.error = state, result, error
            entry.token = entry.owner = None


def taken(term: Term, root: str) -> Term:
    """The ledger's own copy of a term, or ``NotDurable``."""
    check_durable(term, root, rich=False)
    return copy_term(term)


def expiry(ttl: float) -> float:
    """When a lease that is granted now runs out; with a ttl of 0 it has."""
    return time.monotonic() + ttl if ttl > 0 else -math.inf


class LedgerHarness:
    """What the kit needs to know: the ten lines that an author writes."""

    capabilities = {"leases", "opaque_run_ids"}  # noqa: RUF012
    journal = Ledger

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], Entry] = {}
        self.lock = threading.Lock()

    def open(self) -> Ledger:
        return self.journal(self.entries, self.lock)
