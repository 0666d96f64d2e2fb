"""What the suite found, as what pytest tells: a failure, an expected one, a skip, or advice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from continuum_conformance.conformance.bench import Stage
from continuum_conformance.harness import HarnessError
from continuum_conformance.suite.testing import Result, SuiteTest, run_test
from continuum_conformance.suite.violation import Violation

__all__ = ["OUTCOME", "JournalAdvice", "Outcome", "judge", "require_applicable"]


class JournalAdvice(UserWarning):
    """A SHOULD of the contract that the adapter does not meet. It never fails a test."""


@dataclass
class Outcome:
    """What one test said of the clauses that the expected-failure file lists."""

    label: str
    """The adapter's."""
    tests: dict[str, int] = field(default_factory=dict)
    """How many tests of the plan check each listed clause that this test checks."""
    broke: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """The same as data that goes from worker to controller."""
        return {"label": self.label, "tests": self.tests, "broke": list(self.broke)}


OUTCOME = pytest.StashKey[Outcome]()
