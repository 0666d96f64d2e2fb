"""What a run of the kit found, as data. This room draws it and judges nothing.

A `Report` holds one `ClauseResult` for each clause of the contract; a failed one carries a `Finding`, whose
counterexample is a script that can be pasted and whose steps can be drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from continuum_conformance.contract.clauses import CHAPTERS, CLAUSES
from continuum_conformance.history import Interleaving

__all__ = [
    "STANDINGS",
    "ClauseResult",
    "ClauseVerdict",
    "Finding",
    "Mark",
    "Report",
    "ReportVerdict",
    "Standing",
    "Step",
]

ReportVerdict = Literal["conforming", "nonconforming", "incomplete"]
ClauseVerdict = Literal[
    "passed", "failed", "skipped", "unsupported", "inconclusive", "not_applicable", "advice", "not_run"
]
Standing = Literal[
    "passed",
    "failed",
    "skipped",
    "unsupported",
    "not_run",
    "inconclusive",
    "not_applicable",
    "advice",
    "expected",
]
"""Under what a clause is counted: its verdict, but ``expected`` for a failure that was listed as one."""

STANDINGS: tuple[Standing, ...] = (
    "passed",
    "failed",
    "skipped",
    "unsupported",
    "not_run",
    "inconclusive",
    "not_applicable",
    "advice",
    "expected",
)
"""Every standing, in the order of the report's ``counts``."""

Mark = Literal["", "deciding", "setup"]


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a counterexample, in the order in which the calls were let through."""

    number: int
    """1-based."""
    worker: str
    """Who called: ``A``, ``B``, …"""
    operation: str
    """The call as code: ``append("r1", {"type": "paid"}, token=1)``."""
    outcome: str
    """What came back: ``None``, or ``LeaseMismatch: …``."""
    expected: str | None = None
    """What the contract asks for; set on the deciding step."""
    mark: Mark = ""
    """``deciding`` for the step that breaks the clause, ``setup`` for those that only prepare."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A proof that a clause does not hold."""

    clauses: tuple[str, ...]
    """The ids of all clauses that it breaks."""
    message: str
    """One sentence that says what is wrong."""
    counterexample: str = ""
    """A short Python script that shows it."""
    steps: tuple[Step, ...] = ()
    replay: str | None = None
    """The file that ``continuum-conformance replay`` takes."""
    replay_note: str = ""
    """``replays exactly``, or ``seen once``."""
    traceback: str | None = None
    """Of the adapter's raw error."""
    stack: str | None = None
    """Of the thread that hung."""
    interleaving: Interleaving | None = None
    """Of a race or a fault: what it looked like."""
    isolation_spec: str = ""
    """Of a race at statements: the same for PostgreSQL's isolation tester."""
    isolation_file: str | None = None
    """The file that holds it."""


@dataclass(frozen=True, slots=True)
class ClauseResult:
    """What became of one clause."""

    id: str
    level: str
    """``MUST`` or ``SHOULD``."""
    chapter: str
    """The key of the chapter: ``FEN``."""
    verdict: ClauseVerdict
    expected: str | None = None
    """The reason that the expected-failure file gives for this clause, if it lists it."""
    seconds: float = 0.0
    message: str | None = None
    """What was found, or why the clause was not judged."""
    finding: Finding | None = None

    @property
    def standing(self) -> Standing:
        """Under what the clause is counted: ``expected`` goes before ``failed``."""
        return "expected" if self.verdict == "failed" and self.expected is not None else self.verdict

    @property
    def stale(self) -> bool:
        """Whether the expected-failure file lists this clause although it passed."""
        return self.verdict == "passed" and self.expected is not None

    @property
    def text(self) -> str:
        """What is wrong, in one sentence: the finding's, else the clause's own message, else empty."""
        return (self.finding.message if self.finding else None) or self.message or ""

    @property
    def rule(self) -> str:
        """What the clause asks for. Empty for a clause that this kit does not know (an older report)."""
        return CLAUSES[self.id].rule if self.id in CLAUSES else ""

    @property
    def reason(self) -> str:
        """Why the clause asks for it."""
        return CLAUSES[self.id].reason if self.id in CLAUSES else ""

    @property
    def advice(self) -> str:
        """What the author of an adapter that fails the clause should look at."""
        return CLAUSES[self.id].advice if self.id in CLAUSES else ""

    @property
    def chapter_title(self) -> str:
        """The chapter in words: ``Fencing``."""
        return CHAPTERS.get(self.chapter, self.chapter)


@dataclass(frozen=True, slots=True)
class Report:
    """One run of the kit over one adapter."""

    kit_version: str
    contract_version: str
    target: str
    """What was asked for on the command line: ``postgres``, ``my_package.testing:MyHarness``."""
    adapter: str
    """The adapter's name or description."""
    profile: str
    """``quick``, ``standard`` or ``thorough``."""
    seed: int
    verdict: ReportVerdict
    started: datetime
    """Aware."""
    seconds: float
    capabilities: list[str] = field(default_factory=list)
    """What the adapter declares, without what was withdrawn; sorted."""
    withdrawn: list[str] = field(default_factory=list)
    """What ``--without`` withdrew for this run."""
    clauses: list[ClauseResult] = field(default_factory=list)
    coverage: Mapping[str, Any] = field(default_factory=dict)
    """What was tried: numbers by name, or by name and label (``{"examples": 1234, "machine": {…}}``)."""
    notes: list[str] = field(default_factory=list)
    failover: list[str] = field(default_factory=list)
    """What it means for the adapter that a primary is lost to its standby, for an operator; empty when not tried."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """``python``, ``platform``, ``store``, ``command`` (the command line that gets it again), and others."""

    @property
    def counts(self) -> dict[Standing, int]:
        """How many clauses stand under what; each clause counts once."""
        counts = dict.fromkeys(STANDINGS, 0)
        for entry in self.clauses:
            counts[entry.standing] += 1
        return counts

    def standing(self, *standings: Standing) -> list[ClauseResult]:
        """The clauses with one of these standings, in the order of the report."""
        return [entry for entry in self.clauses if entry.standing in standings]
