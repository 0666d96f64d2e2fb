"""Recording: what concurrent workers asked a journal, what they were told, and when.

An operation's interval is closed at both ends: it was invoked at one stamp, returned at another, and took effect
at some moment between the two, ends included. One operation precedes another only when it returned *before* the
other was invoked. Equal stamps are an overlap, which is the safe side. The history that decided it::

    A  write(1)   [1, 3]
    B  read → 0         [3, 5]

With half-open intervals the read would come after the write and B would be accused. But a clock that says 3 twice
does not tell whether the write had returned when the read began, and a judge may accuse nobody of what the
recording cannot show.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import overload

from continuum_conformance.model import Kind, Operation, Outcome

__all__ = ["History", "Recorded", "Recorder"]

RUNNING = Outcome(Kind.HANG, error="hang", message="still running when the history was read", unknown=True)
"""The outcome of a call that has not returned."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One operation of a history.

    Attributes:
        operation: the call.
        outcome: what came of it.
        invoked: the stamp just before the call.
        returned: the stamp just after it; None when it never came back.
        worker: who made the call, and the name under which a person reads of it.
        gave_up: whether the call ended because the kit held another worker still (CON-4). Then it counts as not
            having happened, and nobody is accused of it; with an unknown outcome it counts as unknown.
    """

    operation: Operation
    outcome: Outcome
    invoked: int
    returned: int | None
    worker: str
    gave_up: bool = False

    @property
    def unknown(self) -> bool:
        """Whether it may have happened at any time after its invocation, or never (ATM-4)."""
        return self.returned is None or self.outcome.unknown or self.outcome.kind is Kind.HANG

    @property
    def counts(self) -> bool:
        """Whether a judge has to look at it: not when it gave up and is known not to have happened."""
        return self.unknown or not self.gave_up

    def precedes(self, other: Recorded) -> bool:
        """Whether it certainly took effect before the other one, if both did; an unknown one precedes nothing."""
        return not self.unknown and self.returned is not None and self.returned < other.invoked


@dataclass(frozen=True, slots=True)
class History:
    """Recorded operations in the order of their invocation."""

    operations: tuple[Recorded, ...] = ()

    @classmethod
    def of(cls, operations: Iterable[Recorded]) -> History:
        """The history of these operations, in whatever order they come."""
        return cls(tuple(sorted(operations, key=lambda entry: entry.invoked)))

    def __len__(self) -> int:
        return len(self.operations)

    def __iter__(self) -> Iterator[Recorded]:
        return iter(self.operations)

    @overload
    def __getitem__(self, index: int) -> Recorded: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Recorded, ...]: ...
    def __getitem__(self, index: int | slice) -> Recorded | tuple[Recorded, ...]:
        return self.operations[index]

    @property
    def workers(self) -> tuple[str, ...]:
        """Who took part, in the order of appearance."""
        return tuple(dict.fromkeys(entry.worker for entry in self.operations))

    @property
    def unknown(self) -> tuple[Recorded, ...]:
        """The operations of which nobody knows whether they happened."""
        return tuple(entry for entry in self.operations if entry.unknown)

    @property
    def gave_up(self) -> tuple[Recorded, ...]:
        """The operations that ended because the kit held another worker."""
        return tuple(entry for entry in self.operations if entry.gave_up)

    def overlapping(self) -> int:
        """How many operations ran at once, at most. 1 means that nothing raced."""
        ends = [(entry.invoked, 0) for entry in self.operations]
        ends += [(entry.returned, 1) for entry in self.operations if entry.returned is not None]
        most = now = 0
        for _stamp, end in sorted(ends):
            now += -1 if end else 1
            most = max(most, now)
        return most


class Recorder:
    """Records what several threads or tasks do at once.

    It takes no lock: a worker that a scheduler holds still could otherwise hold the others with it. `list.append`
    and `itertools.count` are each one step.

    Args:
        clock: the one source of all stamps; it must never go back. By default a counter, which gives no stamp
            twice. Several processes need a clock that they share: ``time.monotonic_ns``.
    """

    def __init__(self, clock: Callable[[], int] | None = None) -> None:
        self._clock: Callable[[], int] = clock if clock is not None else itertools.count(1).__next__
        self._calls: list[_Call] = []

    def call(
        self, operation: Operation, perform: Callable[[Operation], Outcome], worker: str | None = None
    ) -> Outcome:
        """Perform an operation and record it. What ``perform`` raises stays recorded as of unknown outcome."""
        ticket = self.invoke(operation, worker)
        outcome = perform(operation)
        self.complete(ticket, outcome)
        return outcome

    def invoke(self, operation: Operation, worker: str | None = None) -> _Call:
        """Record that a call begins now; by default the operation's own worker makes it."""
        call = _Call(operation, operation.worker if worker is None else worker)
        self._calls.append(call)
        call.invoked = self._clock()
        return call

    def complete(self, call: _Call, outcome: Outcome, *, gave_up: bool = False) -> None:
        """Record that a call has come back just now."""
        stamp = self._clock()
        call.outcome, call.gave_up = outcome, gave_up
        call.returned = stamp

    def history(self) -> History:
        """Everything so far; a call that has not come back is of unknown outcome."""
        return History.of(
            Recorded(
                call.operation,
                RUNNING if call.returned is None or call.outcome is None else call.outcome,
                call.invoked,
                call.returned,
                call.worker,
                call.gave_up,
            )
            for call in self._calls[:]
            if call.invoked >= 0
        )


class _Call:
    """A call that has begun."""

    __slots__ = ("gave_up", "invoked", "operation", "outcome", "returned", "worker")

    def __init__(self, operation: Operation, worker: str) -> None:
        self.operation = operation
        self.worker = worker
        self.invoked = -1
        self.returned: int | None = None
        self.outcome: Outcome | None = None
        self.gave_up = False
