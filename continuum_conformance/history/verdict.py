"""Verdicts: what a judge says of a history, as data and as text."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from continuum_conformance.history.recording import Recorded

__all__ = ["Attempt", "Explanation", "Status", "Verdict"]


class Status(StrEnum):
    """What a judge may say."""

    PASSED = "passed"
    """There is an order that explains every outcome."""
    FAILED = "failed"
    """There is none: a proof."""
    INCONCLUSIVE = "inconclusive"
    """The budget ended first. Never a pass."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One order that was tried.

    Attributes:
        order: the operations that could be put in order.
        failed: the one that could not follow them.
        reason: why not.
        clauses: the clauses of the contract that say so.
        expected: which outcome would have been right there.
    """

    order: tuple[Recorded, ...]
    failed: Recorded
    reason: str
    clauses: tuple[str, ...] = ()
    expected: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a history has no explanation.

    Attributes:
        key: the partition's key.
        prefix: the operations of the shortest prefix that no order explains, by time of return; those that were
            pending at its end included.
        decisive: the operation whose return ends that prefix.
        operations: a smallest part of the prefix that is wrong by itself: without the decisive operation an order
            explains it.
        needed: of these, the ones without which an order would be found: the story in short, the decisive one last.
        attempts: the orders of ``operations`` that were tried, those that came furthest first.
        more: whether there were more orders than ``attempts`` tells.
        earlier: of a long prefix, how many operations were given an order beforehand and are looked at no closer;
            ``operations`` begin where it ends.
        headline: the story in a sentence.
        text: all of it for a person.
    """

    key: Hashable
    prefix: tuple[Recorded, ...]
    decisive: Recorded
    operations: tuple[Recorded, ...]
    needed: tuple[Recorded, ...]
    attempts: tuple[Attempt, ...]
    more: bool = False
    earlier: int = 0
    headline: str = ""
    text: str = ""

    @property
    def clauses(self) -> tuple[str, ...]:
        """The clauses that the attempts broke, those at the decisive operation first."""
        ranked = sorted(self.attempts, key=lambda attempt: attempt.failed is not self.decisive)
        return tuple(dict.fromkeys(clause for attempt in ranked for clause in attempt.clauses))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge says of a history.

    Attributes:
        status: passed, failed or inconclusive.
        operations: how many operations were judged (those that gave up are not).
        partitions: in how many parts.
        visited: how many states the searches visited.
        explanation: of a failure, why, unless that was not asked for.
        unfinished: the keys of the partitions whose search did not end.
        orders: for each partition an order that explains it, when asked for.
    """

    status: Status
    operations: int = 0
    partitions: int = 0
    visited: int = 0
    explanation: Explanation | None = None
    unfinished: tuple[Hashable, ...] = ()
    orders: Mapping[Hashable, tuple[Recorded, ...]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every partition has an order."""
        return self.status is Status.PASSED

    @property
    def failed(self) -> bool:
        """Whether some partition certainly has none."""
        return self.status is Status.FAILED

    @property
    def text(self) -> str:
        """The verdict for a person."""
        if self.explanation is not None:
            return self.explanation.text
        if self.passed:
            return f"{self.operations} operations in {self.partitions} parts: an order explains them"
        if self.failed:
            return f"{self.operations} operations in {self.partitions} parts: no order explains them"
        left = len(self.unfinished)
        return (
            f"inconclusive: after {self.visited} states {left} of {self.partitions} parts had neither an order nor a "
            "proof that there is none"
        )

    def as_data(self) -> dict[str, Any]:
        """The verdict as JSON data; operations are written as in `export.to_json`."""
        from continuum_conformance.history.export import verdict_data

        return verdict_data(self)
