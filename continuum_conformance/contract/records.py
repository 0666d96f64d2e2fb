"""The records that pass between an engine and its journal.

They are plain frozen values: building one checks nothing, because the kit must be able to hand an adapter a
wrong one. An adapter validates what it is given (RUN-7, LEA-10, SNP-13). Records are judged by their
attributes, not by their class, so an adapter may return look-alikes of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

__all__ = ["Event", "Instance", "Lease", "Run", "RunState", "Snapshot", "Term"]

Term: TypeAlias = Any
"""A durable term: what inputs, results, errors, event payloads and snapshot steps are made of (see TRM)."""

Event: TypeAlias = dict[str, Any]
"""One entry of a history: a non-empty string under ``"type"``, an integer under ``"seq"``, any other string keys."""


class RunState(StrEnum):
    """The state of a run. A str enum: ``RunState.RUNNING == "running"``."""

    RUNNING = "running"
    SUSPENDED = "suspended"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        """Whether a run in this state is final (FIN-3)."""
        return self in (RunState.COMPLETED, RunState.FAILED)


@dataclass(frozen=True, slots=True)
class Instance:
    """One named tenant of a store. The same run id in two instances is two runs (ISO-1)."""

    name: str


@dataclass(frozen=True, slots=True)
class Run:
    """What ``get_run`` tells of a run.

    ``result`` is None unless the state is completed, ``error`` is None unless it is failed; None is a legal
    result and error too (RUN-6).
    """

    run_id: str
    workflow: str
    state: RunState
    input: Term = None
    result: Term = None
    error: Term = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to a run, proven by its fencing token (an integer that only grows per run, LEA-4)."""

    run_id: str
    owner: str
    token: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A digest of a run's history up to and including the event ``through_seq`` (0-based).

    ``taken_at`` is an aware datetime and is compared by its instant alone. ``steps_by_seq`` maps the seq of
    a step to its result, a durable term.
    """

    run_id: str
    through_seq: int
    version_hash: bytes
    taken_at: datetime
    steps_by_seq: Mapping[int, Term]
