"""A first look at the known scenarios, for who wants the first find and not the whole: `check --first`.

The likeliest schedules of each are tried before anything else. What fails without a preemption as well is no race,
and is left to the tests that say more of it.
"""

from __future__ import annotations

from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.races.chapter import test_name
from continuum_conformance.suite.races.exploring import explore
from continuum_conformance.suite.races.levels import Budget, level_of
from continuum_conformance.suite.races.scenarios import CLASSICS, usable
from continuum_conformance.suite.testing import Result, SuiteTest

__all__ = ["LOOKS", "scout"]

LOOKS = (8, 40)
"""Schedules of each scenario in a first look at all of them, and in a second; where each run is costly there is no second.

Most races show within a scenario's first few schedules, so that the right scenario is sooner reached so.
"""


def scout(session: Session, tests: list[SuiteTest], seed: int, look: int) -> Result | None:
    """Try a few schedules of each known scenario; gives the result of the first test that fails.

    Args:
        session: the adapter, after preflight.
        tests: the tests of the plan; scenarios of no others are tried.
        seed: of the plan.
        look: which of `LOOKS`.

    Raises:
        Violation: when a situation cannot even be arranged.
        HarnessError: when a handle cannot be opened.
    """
    by_name = {test.name: test for test in tests}
    level = level_of(session)
    if level.name == "threads" or (level.costly and look > 0):
        return None
    for scenario in CLASSICS:
        test = by_name.get(test_name(scenario))
        if test is None or not usable(scenario, session.capabilities, session.subject.reach):
            continue
        if scenario.one_handle and level.name == "statements":
            continue  # who waits in its client is waited for
        found = explore(session, scenario, level.executor, Budget(LOOKS[look]), seed=seed)
        if found.violation is None:
            continue
        if not (found.violation.race or {}).get("preemptions"):
            return None
        return Result(test, violation=found.violation, exact=found.exact, examples=found.runs)
    return None
