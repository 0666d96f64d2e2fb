"""The journal contract: interface, records, errors, durable terms and the numbered clauses.

An adapter depends on this package alone. It imports nothing but the standard library.
"""

from continuum_conformance.contract.clauses import CLAUSES, CONTRACT_VERSION, Clause
from continuum_conformance.contract.errors import (
    ERRORS,
    InvalidArgument,
    JournalError,
    JournalUnavailable,
    LeaseHeld,
    LeaseLost,
    LeaseMismatch,
    NotDurable,
    RunAlreadyExists,
    RunNotActive,
    RunNotFound,
    SequenceConflict,
    SnapshotConflict,
)
from continuum_conformance.contract.journal import OPERATIONS, AsyncJournal, Journal
from continuum_conformance.contract.records import Event, Instance, Lease, Run, RunState, Snapshot, Term
from continuum_conformance.contract.targets import TargetError, default

__all__ = [
    "CLAUSES",
    "CONTRACT_VERSION",
    "ERRORS",
    "OPERATIONS",
    "AsyncJournal",
    "Clause",
    "Event",
    "Instance",
    "InvalidArgument",
    "Journal",
    "JournalError",
    "JournalUnavailable",
    "Lease",
    "LeaseHeld",
    "LeaseLost",
    "LeaseMismatch",
    "NotDurable",
    "Run",
    "RunAlreadyExists",
    "RunNotActive",
    "RunNotFound",
    "RunState",
    "SequenceConflict",
    "Snapshot",
    "SnapshotConflict",
    "TargetError",
    "Term",
    "default",
]
