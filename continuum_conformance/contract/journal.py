"""The interface: what a journal adapter offers an engine.

``Journal`` is the blocking form, ``AsyncJournal`` the same names as coroutines. Every call takes the
``Instance`` first, since one store serves many. The clauses behind each method are in
``continuum_conformance.contract.clauses``; ``continuum-conformance clauses`` prints them.

A token is an ``int`` or None: the token of the lease under which the caller writes, or None for a run that
nobody has leased. A ttl is in seconds (int or float, 0 to ten years); 0 gives a lease that anyone may take
over at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from continuum_conformance.contract.records import Event, Instance, Lease, Run, Snapshot, Term

__all__ = ["OPERATIONS", "AsyncJournal", "Journal"]

OPERATIONS: dict[str, tuple[str, ...]] = {
    "start_run": ("instance", "run_id", "workflow", "input"),
    "append": ("instance", "run_id", "event", "lease_token"),
    "load": ("instance", "run_id"),
    "load_with_snapshot": ("instance", "run_id", "lease_token"),
    "take_snapshot": ("instance", "snapshot"),
    "suspend": ("instance", "run_id", "lease_token"),
    "complete": ("instance", "run_id", "result", "lease_token"),
    "fail": ("instance", "run_id", "error", "lease_token"),
    "get_run": ("instance", "run_id"),
    "acquire": ("instance", "run_id", "owner", "ttl"),
    "renew": ("instance", "lease", "ttl"),
    "release": ("instance", "lease"),
}
"""Every operation with the names of its arguments, in the order in which they are passed."""


@runtime_checkable
class Journal(Protocol):
    """A store of workflow runs, each an append-only history of events held under a lease.

    Errors common to all: ``InvalidArgument`` for a malformed argument (RUN-7), ``JournalUnavailable`` when
    the store cannot be reached (ATM-4). All writes of a run but ``start_run`` and ``take_snapshot`` are
    fenced: a token that is not the run's raises ``LeaseMismatch`` (FEN-1 to FEN-7).
    """

    def start_run(self, instance: Instance, run_id: str, workflow: str, input: Term) -> None:  # noqa: A002
        """Create a run: running, unleased, without events (RUN-1, RUN-5).

        Raises ``RunAlreadyExists`` (RUN-2) and ``NotDurable`` (TRM-3).
        """

    def append(
        self, instance: Instance, run_id: str, event: Mapping[str, Any], lease_token: int | None
    ) -> None:
        """Append one event; its ``"seq"``, when given, must be the next one (APP-1, APP-2).

        Raises ``RunNotFound``, ``RunNotActive``, ``LeaseMismatch``, ``SequenceConflict``, ``NotDurable``.
        """

    def load(self, instance: Instance, run_id: str) -> list[Event]:
        """Every event in seq order, each with its ``"seq"``; ``[]`` for an unknown run (LOD-1, RUN-4)."""
        ...

    def load_with_snapshot(
        self, instance: Instance, run_id: str, lease_token: int | None
    ) -> tuple[Snapshot | None, list[Event]]:
        """The snapshot with the greatest ``through_seq`` and the events after it, from one moment (SNP-2, SNP-10).

        Fenced, unlike ``load``. Raises ``RunNotFound`` and ``LeaseMismatch``.
        """
        ...

    def take_snapshot(self, instance: Instance, snapshot: Snapshot) -> None:
        """Store a snapshot, in any state of the run (SNP-9).

        Raises ``RunNotFound``, ``SnapshotConflict`` (SNP-5, SNP-7) and ``NotDurable``.
        """

    def suspend(self, instance: Instance, run_id: str, lease_token: int | None) -> None:
        """Mark an active run as suspended; twice is no error (FIN-1). The lease stays.

        Raises ``RunNotFound``, ``RunNotActive``, ``LeaseMismatch``.
        """

    def complete(self, instance: Instance, run_id: str, result: Term, lease_token: int | None) -> None:
        """Finish an active run with its result (FIN-2).

        Raises ``RunNotFound``, ``RunNotActive``, ``LeaseMismatch``, ``NotDurable``.
        """

    def fail(self, instance: Instance, run_id: str, error: Term, lease_token: int | None) -> None:
        """Finish an active run with its error (FIN-2).

        Raises ``RunNotFound``, ``RunNotActive``, ``LeaseMismatch``, ``NotDurable``.
        """

    def get_run(self, instance: Instance, run_id: str) -> Run | None:
        """The run's record, or None for an unknown run (RUN-4)."""
        ...

    # -- capability `leases` --

    def acquire(self, instance: Instance, run_id: str, owner: str, ttl: float) -> Lease:
        """Take the lease of an active run that is unleased or whose lease has expired, under a new token (LEA-1).

        Raises ``LeaseHeld``, ``RunNotFound``, ``RunNotActive``.
        """
        ...

    def renew(self, instance: Instance, lease: Lease, ttl: float) -> Lease | None:
        """Move the expiry of the caller's lease to now + ttl, keeping its token (LEA-5).

        Raises ``LeaseLost``, ``RunNotFound``, ``RunNotActive``.
        """
        ...

    def release(self, instance: Instance, lease: Lease) -> None:
        """Give the caller's lease back: the run is unleased, the token fenced for good (LEA-7, LEA-8).

        Raises ``LeaseLost``, ``RunNotFound``, ``RunNotActive``.
        """


@runtime_checkable
class AsyncJournal(Protocol):
    """``Journal`` as coroutines: the same names, arguments, results and errors.

    A cancelled call raises ``CancelledError``; its outcome is unknown, it is all or nothing (ATM-5).
    """

    async def start_run(self, instance: Instance, run_id: str, workflow: str, input: Term) -> None:  # noqa: A002
        """See ``Journal.start_run``."""

    async def append(
        self, instance: Instance, run_id: str, event: Mapping[str, Any], lease_token: int | None
    ) -> None:
        """See ``Journal.append``. The event is taken as it is at the coroutine's first step (TRM-4)."""

    async def load(self, instance: Instance, run_id: str) -> list[Event]:
        """See ``Journal.load``."""
        ...

    async def load_with_snapshot(
        self, instance: Instance, run_id: str, lease_token: int | None
    ) -> tuple[Snapshot | None, list[Event]]:
        """See ``Journal.load_with_snapshot``."""
        ...

    async def take_snapshot(self, instance: Instance, snapshot: Snapshot) -> None:
        """See ``Journal.take_snapshot``."""

    async def suspend(self, instance: Instance, run_id: str, lease_token: int | None) -> None:
        """See ``Journal.suspend``."""

    async def complete(self, instance: Instance, run_id: str, result: Term, lease_token: int | None) -> None:
        """See ``Journal.complete``."""

    async def fail(self, instance: Instance, run_id: str, error: Term, lease_token: int | None) -> None:
        """See ``Journal.fail``."""

    async def get_run(self, instance: Instance, run_id: str) -> Run | None:
        """See ``Journal.get_run``."""
        ...

    async def acquire(self, instance: Instance, run_id: str, owner: str, ttl: float) -> Lease:
        """See ``Journal.acquire``."""
        ...

    async def renew(self, instance: Instance, lease: Lease, ttl: float) -> Lease | None:
        """See ``Journal.renew``."""
        ...

    async def release(self, instance: Instance, lease: Lease) -> None:
        """See ``Journal.release``."""
