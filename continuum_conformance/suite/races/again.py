"""Showing a race or a fault again: the scenario, under the schedule or at the point that was kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continuum_conformance.explore.schedule import Scripted
from continuum_conformance.suite.faults.again import strike_again
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.races.exploring import told
from continuum_conformance.suite.races.levels import level_of
from continuum_conformance.suite.races.running import run_race
from continuum_conformance.suite.races.scenarios import Scenario
from continuum_conformance.suite.violation import Violation

__all__ = ["show_again"]

FREE_ROUNDS = 200
"""Rounds of free-running threads, where no schedule could be kept."""


def show_again(session: Session, race: Mapping[str, Any]) -> Violation | None:
    """Run a race's schedule, and give the violation that it shows, if it does.

    Args:
        session: the adapter.
        race: the scenario, the schedule and the level, as `told` wrote them.

    Raises:
        ValueError: when it is nothing of the kind.
    """
    if "fault" in race:
        return strike_again(session, race)
    scenario = Scenario.from_data(race)
    schedule = [int(choice) for choice in race.get("schedule", ())]
    level = level_of(session)
    rounds = FREE_ROUNDS if level.executor.level == "threads" else 1
    for _ in range(rounds):
        found = run_race(session, scenario, level.executor, Scripted(schedule))
        if found.violation is not None:
            return told(scenario, found, level.executor.level, schedule)
    return None
