"""What the suite found, as what pytest tells: a failure, an expected one, a skip, or advice."""

from __future__ import annotations

import os
import shlex
import warnings
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import pytest

from continuum_conformance.conformance.bench import Stage
from continuum_conformance.contract.clauses import CLAUSES
from continuum_conformance.report.data import Finding
from continuum_conformance.report.from_suite import finding_of
from continuum_conformance.report.plain import finding_text
from continuum_conformance.suite import check
from continuum_conformance.suite.testing import SuiteTest
from continuum_conformance.suite.violation import Violation

__all__ = ["OUTCOME", "JournalAdvice", "Outcome", "judge", "require_applicable"]


class JournalAdvice(UserWarning):
    """A SHOULD of the contract that the adapter does not meet. It never fails a test."""


@dataclass
class Outcome:
    """What one test says of the clauses that the expected-failure file lists."""

    label: str
    """The adapter's."""
    tests: dict[str, int] = field(default_factory=dict)
    """How many tests of the plan check each listed clause that this test checks."""
    broke: tuple[str, ...] = ()
    """The clauses that it found broken."""

    def plain(self) -> dict[str, Any]:
        """The same as data that pytest-xdist carries from worker to controller."""
        return {"label": self.label, "tests": self.tests, "broke": list(self.broke)}


OUTCOME = pytest.StashKey[Outcome]()
"""On an item: what it said."""


def require_applicable(test: SuiteTest, stage: Stage) -> None:
    """Skip a test that is not for this adapter, with the reason."""
    capabilities = stage.session.capabilities
    missing = sorted(test.needs - capabilities)
    if missing:
        withdrawn = [name for name in missing if name in stage.subject.withdrawn]
        how = "is withdrawn for this run" if withdrawn else "is not declared"
        pytest.skip(f"{', '.join(withdrawn or missing)} {how}")
    if test.without & capabilities:
        pytest.skip(f"it is about adapters without {', '.join(sorted(test.without & capabilities))}")
    if test not in stage.tests():
        pytest.skip("it is part of the thorough profile: --journal-profile thorough")


def judge(item: pytest.Item, stage: Stage, test: SuiteTest) -> None:
    """Run one test of the suite, and raise what pytest should tell."""
    session, plan = stage.session, stage.plan
    outcome = item.stash.setdefault(OUTCOME, Outcome(stage.label, _listed_tests(stage, test)))
    if session.hangs >= check.MAX_HANGS:
        pytest.skip(f"{check.MAX_HANGS} tests ended in calls that did not come back; mend those first")
    result = check.judge_test(test, session, plan)
    if result.skipped:
        pytest.skip(result.skipped)
    violation = result.violation or _known_beforehand(stage, test)
    for clause, message in result.advice.items():
        _advise(item, clause, message)
    if violation is None:
        if result.error:
            pytest.fail(f"the test could not be finished: {result.error}", pytrace=False)
        return
    outcome.broke = violation.clauses
    item.user_properties.append(("broken", ", ".join(violation.clauses)))
    musts = [clause for clause in violation.clauses if CLAUSES[clause].level == "MUST"]
    if not musts:
        _advise(item, violation.clauses[0], violation.message)
        return
    if all(clause in plan.expected for clause in musts):
        pytest.xfail("; ".join(f"{clause}: {plan.expected[clause]}" for clause in musts))
    _fail(item, stage, test, violation, result.exact)


def _listed_tests(stage: Stage, test: SuiteTest) -> dict[str, int]:
    listed = [clause for clause in test.clauses if clause in stage.plan.expected]
    return {clause: sum(clause in other.clauses for other in stage.tests()) for clause in listed}


def _known_beforehand(stage: Stage, test: SuiteTest) -> Violation | None:
    """What the preflight showed: it is told by the tests of its clause."""
    plan = replace(stage.plan, only=test.clauses)
    shown = check.judge(stage.session, plan, [])
    return next(
        (found.violation for found in shown if found.violation and found.clause.id in test.clauses), None
    )


def _fail(item: pytest.Item, stage: Stage, test: SuiteTest, violation: Violation, exact: bool) -> NoReturn:
    finding = finding_of(violation, stage.subject, exact)
    again = _again(item)
    if violation.arranging:
        text = _blocked(stage, test, finding, again)
    else:
        text = finding_text(finding, again=again)
    stage.told.add((violation.clauses[0], violation.message))
    failure = pytest.fail.Exception(text, pytrace=False)
    # With the violation's own traceback: a debugger stops where the suite saw it.
    raise failure.with_traceback(violation.__traceback__) from None


def _blocked(stage: Stage, test: SuiteTest, finding: Finding, again: str) -> str:
    """A test that did not get to its own clause; the finding is told in full once."""
    lead = finding.clauses[0]
    text = f"{test.clauses[0]} could not be tried, because {lead} is broken; mend that first"
    if (lead, finding.message) in stage.told:
        return f"{text}: {finding.message}"
    return f"{text}.\n\n{finding_text(finding, again=again)}"


def _again(item: pytest.Item) -> str:
    config = item.config
    given = config.getoption("hypothesis_seed", None)
    parts = ["pytest"]
    if config.getoption("journal"):
        parts += ["--journal", config.getoption("journal")]
    if config.getoption("journal_profile"):
        parts += ["--journal-profile", config.getoption("journal_profile")]
    parts += [f"--hypothesis-seed={given}"] if given is not None else []
    return shlex.join([*parts, _id_from_here(item)])


def _id_from_here(item: pytest.Item) -> str:
    """The item's id as it can be given to pytest in the folder where pytest was called."""
    file, _, rest = str(item.nodeid).partition("::")
    path = item.config.rootpath / file
    if not path.exists():
        return str(item.nodeid)  # of --journal, which is in no file
    return f"{os.path.relpath(path, item.config.invocation_params.dir)}::{rest}"


def _advise(item: pytest.Item, clause: str, message: str) -> None:
    advice = JournalAdvice(f"{clause} (SHOULD): {message}. {CLAUSES[clause].advice}")
    try:
        warnings.warn_explicit(advice, None, filename=str(item.nodeid), lineno=1)
    except JournalAdvice:
        # Under -W error, too, it is advice: recorded as pytest records those that it shows.
        recorded = warnings.WarningMessage(advice, JournalAdvice, str(item.nodeid), 1)
        item.ihook.pytest_warning_recorded.call_historic(
            kwargs={"warning_message": recorded, "nodeid": item.nodeid, "when": "runtest", "location": None}
        )
