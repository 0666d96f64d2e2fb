"""A handle of the kit's on a journal in another program."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from continuum_conformance.harness.bridge.harness import ProgramJournal, Trouble
from continuum_conformance.harness.cancelling import Cancelling
from continuum_conformance.harness.handle import Handle, HarnessError
from continuum_conformance.model import Operation, Outcome

if TYPE_CHECKING:
    from continuum_conformance.harness.subject import Subject

__all__ = ["ProgramHandle"]

DIRECTLY = 6
"""So many times the limit a call may take that is scheduled: the time for which it is held counts against nobody, and
whoever schedules has a limit of its own."""


class ProgramHandle(Handle):
    """As `Handle`: what a program does wrong is the outcome. A call is made in the calling thread, which asks."""

    journal: ProgramJournal

    def __init__(self, subject: Subject, journal: ProgramJournal, worker: str) -> None:
        self._subject, self.journal, self.worker = subject, journal, worker

    @property
    def broken(self) -> bool:  # type: ignore[override]
        """Whether its program is gone, so that it takes a new one."""
        return not self.journal.program.usable

    @property
    def is_async(self) -> bool:
        """It never is: a program's own loop is its own affair."""
        return False

    def call(
        self, operation: Operation, *, limit: float | None = None, then: Callable[[], None] | None = None
    ) -> Outcome:
        """As `Handle.call`. Raises `LeftOut` too, when the arguments cannot be carried to a program."""
        outcome = self.journal.perform(operation, self._subject.limit if limit is None else limit)
        if then is not None:
            then()
        return outcome

    def direct(self, operation: Operation, *, traced: bool = True) -> Outcome:  # noqa: ARG002
        """As `Handle.direct`, with a limit all the same, if a long one."""
        return self.journal.perform(operation, DIRECTLY * self._subject.limit)

    async def direct_async(self, operation: Operation) -> Outcome:
        """Never: it is not async."""
        raise TypeError(f"{operation.name} of a program is no coroutine")

    def cancelled(
        self,
        operation: Operation,  # noqa: ARG002
        number: int,  # noqa: ARG002
        beside: Operation | None = None,  # noqa: ARG002
    ) -> tuple[Outcome, Cancelling]:
        """Never: it is not async."""
        raise TypeError("only an async journal can be cancelled")

    def inside(self, act: Callable[[], Any], limit: float | None = None) -> Any:  # noqa: ARG002
        """Never: the journal is called in another program."""
        raise TypeError("nothing of the kit's runs in a program")

    def close(self) -> None:
        """Close the handle. Raises `HarnessError`."""
        try:
            self.journal.close(self._subject.limit)
        except Trouble as error:
            raise HarnessError(str(error), error.detail) from None
