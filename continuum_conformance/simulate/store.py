"""The store under simulation: the adapter's handles, one for each life of a worker.

An adapter that accepts a clock (its harness has an attribute ``clock``) gets the world's, and lives in virtual time.
Others keep real time, in which nothing of a simulation ever expires: a lease is acquired with a ttl of 0, which needs
no clock to be takeable, then renewed to an hour; and when it is to expire in the world, the kit renews it with a ttl
of 0. Between acquire and renew nothing happens, so a lost reply leaves no lease behind that cannot expire.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

from continuum_conformance.contract.records import Instance, Lease
from continuum_conformance.contract.targets import JournalHarness
from continuum_conformance.harness import HarnessError, Subject
from continuum_conformance.harness.subject import Handle
from continuum_conformance.model import Operation, Outcome

__all__ = ["EPOCH", "KIT", "Store"]

EPOCH = 1_700_000_000
"""What the store's clock says when a world begins, in seconds since 1970."""

KIT = "kit"
"""Under this name the kit itself calls the journal."""

ALONE = "the one handle"

LASTING = 3_600
"""The ttl of a lease that must not expire by itself, in seconds."""


class Store:
    """Carries out operations, one at a time.

    Args:
        subject: the adapter, with what it needs.
        instance: in which the world's runs are; nobody else may use it.
        clock: the world's time, in seconds since 1970.
    """

    def __init__(self, subject: Subject, instance: Instance, clock: Callable[[], float]) -> None:
        self.instance = instance
        self.snapshots = "snapshots" in subject.capabilities
        self.virtual = callable(getattr(subject.harness, "clock", None))
        if self.virtual:
            subject.harness = copy.copy(subject.harness)  # others may use it in worlds of their own
            subject.harness.clock = clock
        # A bare journal class makes a store of its own for each handle.
        self._single = isinstance(subject.harness, JournalHarness)
        self.calls = 0
        """How many calls have been made so far."""
        self.inside: Operation | None = None
        """The call that has not come back yet."""
        self._subject = subject
        self._handles: dict[str, Handle] = {}
        self._left: list[Handle] = []

    def perform(self, name: str, operation: Operation) -> list[tuple[Operation, Outcome]]:
        """Carry out a worker's operation: what was asked of the journal, one after the other, with its outcomes."""
        if self.virtual or operation.name not in ("acquire", "renew"):
            return [(operation, self._call(name, operation))]
        if operation.name == "renew":
            operation = _lasting(operation)
            return [(operation, self._call(name, operation))]
        acquire = replace(operation, arguments={**operation.arguments, "ttl": 0})
        granted = self._call(name, acquire)
        if not granted.ok or not isinstance(granted.value, Lease):
            return [(acquire, granted)]
        renew = Operation(
            "renew",
            {"instance": self.instance, "lease": granted.value, "ttl": LASTING},
            operation.worker,
        )
        return [(acquire, granted), (renew, self._call(name, renew))]

    def _call(self, name: str, operation: Operation) -> Outcome:
        name = ALONE if self._single else name
        handle = self._handles.get(name)
        if handle is None:
            handle = self._handles[name] = self._subject.open(name)
        self.calls, self.inside = self.calls + 1, operation
        if self.virtual and not self._subject.is_async:
            outcome = handle.direct(operation, traced=False)
        else:
            outcome = handle.call(operation)
        self.inside = None
        return outcome

    def forget(self, name: str) -> None:
        """A worker has died: its handle is used no more, and its next life gets a new one."""
        handle = self._handles.pop(name, None)
        if handle is not None:
            self._left.append(handle)

    def close(self) -> None:
        """Close the handles. Raises `HarnessError`, the first one, after all were closed."""
        handles = [*self._left, *self._handles.values()]
        self._left, self._handles = [], {}
        wrong: HarnessError | None = None
        for handle in handles:
            try:
                handle.close()
            except HarnessError as error:
                wrong = wrong or error
        if wrong is not None:
            raise wrong


def _lasting(operation: Operation) -> Operation:
    ttl = operation.arguments["ttl"]
    return replace(operation, arguments={**operation.arguments, "ttl": LASTING if ttl else 0})
