"""One operation type: a call to a journal is data, and so is its result.

Suite, explorer, faults, simulator, replay files, bridges and reports all speak `Operation` and `Outcome`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from continuum_conformance.contract.errors import ERRORS, JournalError, JournalUnavailable, NotDurable
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.records import Instance, Lease, Run, RunState, Snapshot
from continuum_conformance.model.masking import mask

__all__ = ["READS", "Garbage", "Kind", "Operation", "Outcome", "normalise"]

READS = frozenset({"load", "load_with_snapshot", "get_run"})
"""The operations that change nothing."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A call: the operation's name, its arguments by name, and the worker (handle) that makes it."""

    name: str
    arguments: Mapping[str, Any]
    worker: str = "A"

    @property
    def instance(self) -> Instance:
        """The instance that the call is about."""
        found: Instance = self.arguments["instance"]
        return found

    @property
    def run_id(self) -> Any:
        """The run that the call is about, wherever the arguments name it."""
        if "run_id" in self.arguments:
            return self.arguments["run_id"]
        holder = self.arguments.get("lease", self.arguments.get("snapshot"))
        return getattr(holder, "run_id", None)

    @property
    def key(self) -> tuple[Any, Any]:
        """The run's key: (instance name, run id); a part that is no string, and so no name, is None."""
        parts = getattr(self.arguments["instance"], "name", None), self.run_id
        return tuple(part if isinstance(part, str) else None for part in parts)  # type: ignore[return-value]

    def positional(self) -> tuple[Any, ...]:
        """The arguments in the order of the interface."""
        return tuple(self.arguments[name] for name in OPERATIONS[self.name])


class Kind(Enum):
    """How a call ended."""

    VALUE = "value"
    ERROR = "error"
    """A contract error."""
    RAW = "raw"
    """An exception that is no contract error and that the harness did not translate."""
    GARBAGE = "garbage"
    """A return value that the operation cannot have."""
    HANG = "hang"
    """No answer within the time limit."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call.

    Attributes:
        kind: how it ended.
        value: the answer, in the contract's own records, when ``kind`` is VALUE.
        error: the contract error's name (ERROR), or the exception's own (RAW).
        message: the exception's text, or what was wrong with the answer.
        path: of NotDurable, where the offender stands.
        unknown: whether the operation may have happened all the same (JournalUnavailable, a hang).
        detail: a traceback, or the stack of a hang.
        remark: something odd that breaks no clause, such as a value where None is the answer.
    """

    kind: Kind
    value: Any = None
    error: str | None = None
    message: str = ""
    path: str | None = None
    unknown: bool = False
    detail: str = field(default="", compare=False)
    remark: str = field(default="", compare=False)

    @classmethod
    def of(cls, value: Any, remark: str = "") -> Outcome:
        """The outcome of a call that answered."""
        return cls(Kind.VALUE, value=value, remark=remark)

    @classmethod
    def raised(cls, error: BaseException, detail: str = "") -> Outcome:
        """The outcome of a call that raised: a contract error by its name, any other exception raw.

        Passwords in its text and in the ``detail`` are masked.
        """
        detail = mask(detail)
        if isinstance(error, JournalError):
            name = next((base.__name__ for base in type(error).__mro__ if base.__name__ in ERRORS), None)
            if name is not None:
                return cls(
                    Kind.ERROR,
                    error=name,
                    message=_text(error),
                    path=str(error.path)
                    if isinstance(error, NotDurable) and error.path is not None
                    else None,
                    unknown=isinstance(error, JournalUnavailable) and bool(error.outcome_unknown),
                    detail=detail,
                )
        return cls(Kind.RAW, error=type(error).__name__, message=_text(error), detail=detail)

    @property
    def ok(self) -> bool:
        """Whether the call answered."""
        return self.kind is Kind.VALUE


def _text(error: BaseException) -> str:
    try:
        return mask(str(error))
    except Exception:  # noqa: BLE001 - a foreign exception's own __str__ may raise anything
        return "(its text cannot be shown)"


class Garbage(Exception):
    """A return value that the operation cannot have; the message says what it was."""


def normalise(name: str, value: Any) -> tuple[Any, str]:
    """A call's answer in the contract's own records, and a remark when it is odd but harmless.

    Records are judged by their attributes, not by their class.

    Raises:
        Garbage: when the answer is nothing that the operation can answer.
    """
    if name == "load":
        return _events(value), ""
    if name == "get_run":
        return (None, "") if value is None else (_run(value), "")
    if name == "load_with_snapshot":
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise Garbage(f"a pair of a snapshot (or None) and a list of events was due, not {_kind(value)}")
        snapshot, events = value
        return (None if snapshot is None else _snapshot(snapshot), _events(events)), ""
    if name == "acquire":
        return _lease(value), ""
    if name == "renew":
        return (None, "") if value is None else (_lease(value), "")
    if value is None:
        return None, ""
    return None, f"{name} returned {_kind(value)} where the contract says None"


def _kind(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}" if value is not None else "None"


def _attributes(value: Any, record: str, *names: str) -> list[Any]:
    missing = [name for name in names if not hasattr(value, name)]
    if missing:
        raise Garbage(f"a {record} was due; {_kind(value)} has no attribute {', '.join(missing)}")
    return [getattr(value, name) for name in names]


def _events(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise Garbage(f"a list of events was due, not {_kind(value)}")
    for event in value:
        if type(event) is not dict:
            raise Garbage(f"each event must be a plain dict, not {_kind(event)}")
    return value


def _run(value: Any) -> Run:
    run_id, workflow, state, given, result, error = _attributes(
        value, "Run", "run_id", "workflow", "state", "input", "result", "error"
    )
    plain = getattr(state, "value", state)
    if not isinstance(plain, str) or plain not in {known.value for known in RunState}:
        raise Garbage(f"the run's state must be running, suspended, completed or failed, not {plain!r:.60}")
    return Run(run_id, workflow, RunState(plain), given, result, error)


def _lease(value: Any) -> Lease:
    run_id, owner, token = _attributes(value, "Lease", "run_id", "owner", "token")
    if isinstance(token, bool) or not isinstance(token, int):
        raise Garbage(f"a lease's token must be an integer, not {_kind(token)}")
    return Lease(run_id, owner, token)


def _snapshot(value: Any) -> Snapshot:
    fields = _attributes(
        value, "Snapshot", "run_id", "through_seq", "version_hash", "taken_at", "steps_by_seq"
    )
    return Snapshot(*fields)
