"""The contract's errors: what an adapter raises, or what its harness translates its own exceptions to.

Every one takes keyword arguments, all optional but the reason, so that anyone can raise them::

    raise SequenceConflict(operation="append", run_id=run_id, reason="seq 4 given, 3 is next")
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ERRORS",
    "InvalidArgument",
    "JournalError",
    "JournalUnavailable",
    "LeaseHeld",
    "LeaseLost",
    "LeaseMismatch",
    "NotDurable",
    "RunAlreadyExists",
    "RunNotActive",
    "RunNotFound",
    "SequenceConflict",
    "SnapshotConflict",
]


class JournalError(Exception):
    """The family of all contract errors.

    Attributes:
        reason: what was wrong, for a person.
        operation: the journal operation that was refused (``"append"``), if known.
        run_id: the run that it was about, if known.
    """

    summary: ClassVar[str] = "the journal refused the operation"
    # With defaults, so that a subclass which forgets to call ours can be read all the same.
    reason: str = ""
    operation: str | None = None
    run_id: str | None = None

    def __init__(self, reason: str = "", *, operation: str | None = None, run_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.operation = operation
        self.run_id = run_id

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by state, so that an error crosses a process boundary with its attributes."""
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))

    def __str__(self) -> str:
        where = " ".join(
            part
            for part in (self.operation, f"on run {self.run_id!r}" if self.run_id is not None else None)
            if part
        )
        reason = self.reason or self.summary
        return f"{where}: {reason}" if where else reason


def _rebuild(cls: type[JournalError], args: tuple[object, ...], state: dict[str, object]) -> JournalError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class RunAlreadyExists(JournalError):
    """A run with this id exists in this instance (RUN-2, RUN-3)."""

    summary = "the run exists already"


class RunNotFound(JournalError):
    """No run has this id in this instance (APP-5, FIN-4, SNP-6, SNP-11, LEA-3)."""

    summary = "there is no such run"


class RunNotActive(JournalError):
    """The run is completed or failed, and final (APP-6, FIN-3, FIN-7, LEA-3)."""

    summary = "the run is terminal"


class LeaseMismatch(JournalError):
    """A write whose token is not the run's (FEN-2, FEN-3, FEN-4): the writer was fenced out."""

    summary = "the token is not the run's"


class LeaseHeld(JournalError):
    """Acquiring a lease that is live (LEA-2)."""

    summary = "the lease is held"


class LeaseLost(JournalError):
    """Renewing or releasing by one who no longer holds the lease (LEA-5, LEA-7)."""

    summary = "the lease is no longer the caller's"


class SequenceConflict(JournalError):
    """An explicit seq that is not the next one (APP-2)."""

    summary = "the seq is not the next one"


class SnapshotConflict(JournalError):
    """A snapshot that differs from the stored one for its seq, or whose seq is none of the history's (SNP-5, SNP-7)."""

    summary = "the snapshot does not fit the history"


class InvalidArgument(JournalError):
    """An argument of the wrong type or form (RUN-7, APP-3, APP-4, LEA-10, FEN-7, SNP-13), or an undeclared feature (CAP-1)."""

    summary = "an argument is not legal"


class NotDurable(JournalError):
    """A term that the journal cannot store and give back exactly (TRM-3).

    Attributes:
        path: where the first offender stands, as in ``event.payload.owner[0]``.
        kind: what it is, usually the name of its type.
    """

    summary = "the term cannot be stored"
    path: str | None = None
    kind: str | None = None

    def __init__(
        self,
        reason: str = "",
        *,
        path: str | None = None,
        kind: str | None = None,
        operation: str | None = None,
        run_id: str | None = None,
    ) -> None:
        super().__init__(
            reason or f"{path or 'a term'} cannot be stored{f' ({kind})' if kind else ''}",
            operation=operation,
            run_id=run_id,
        )
        self.path = path
        self.kind = kind


class JournalUnavailable(JournalError):
    """The store cannot be reached (ATM-4).

    Attributes:
        outcome_unknown: True when the operation may have happened, or may yet; False when it surely did not.
    """

    summary = "the store cannot be reached"
    outcome_unknown: bool = False

    def __init__(
        self,
        reason: str = "",
        *,
        outcome_unknown: bool = False,
        operation: str | None = None,
        run_id: str | None = None,
    ) -> None:
        super().__init__(reason, operation=operation, run_id=run_id)
        self.outcome_unknown = outcome_unknown


ERRORS: dict[str, type[JournalError]] = {
    cls.__name__: cls
    for cls in (
        RunAlreadyExists,
        RunNotFound,
        RunNotActive,
        LeaseMismatch,
        LeaseHeld,
        LeaseLost,
        SequenceConflict,
        SnapshotConflict,
        InvalidArgument,
        NotDurable,
        JournalUnavailable,
    )
}
"""The contract's errors by name."""
