"""Exploring a scenario: every schedule, and a find made small, certain and readable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from continuum_conformance.explore.schedule import Chooser, Execution, Executor, Scripted, pct_chooser, walk
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.races.levels import Budget
from continuum_conformance.suite.races.picture import picture_of
from continuum_conformance.suite.races.running import Race, run_race
from continuum_conformance.suite.races.scenarios import Scenario
from continuum_conformance.suite.races.story import story_of
from continuum_conformance.suite.violation import Violation

__all__ = ["Explored", "explore", "told"]

REPLAYS = 3
"""A find is replayed so often before it is reported."""

SHRINKS = 60


@dataclass
class Explored:
    """How far a scenario was explored.

    Attributes:
        scenario: the scenario.
        runs: how many schedules were run.
        exhausted: whether every schedule was run.
        raced: whether the workers ever had to choose who goes first, so that a pass means something.
        violation: the find, if there was one.
        exact: whether the find came back in every replay.
    """

    scenario: Scenario
    runs: int = 0
    exhausted: bool = False
    raced: bool = False
    undecided: int = 0
    """How many runs the judge could not decide within its budget; then there is no pass."""
    violation: Violation | None = None
    exact: bool = True


def explore(
    session: Session,
    scenario: Scenario,
    executor: Executor,
    plan: Budget,
    *,
    seed: int = 0,
    over: Callable[[], bool] = lambda: False,
) -> Explored:
    """Run a scenario under every schedule, those with the fewest preemptions first.

    Args:
        session: the adapter.
        scenario: what races.
        executor: who lets the workers move.
        plan: how much; for free-running threads its schedules are runs.
        seed: of the random schedules that follow a walk that was cut short.
        over: asked between runs; when it says so, there are no more.
    """
    explored = Explored(scenario)
    steps, random_runs = 0, plan.random_runs

    def spent() -> bool:
        return over() or (plan.steps is not None and steps >= plan.steps and explored.runs >= plan.least)

    def attempt(chooser: Chooser) -> tuple[Execution, Race | None]:
        nonlocal steps
        race = run_race(session, scenario, executor, chooser)
        session.races["interleavings"] += 1
        steps += max(len(race.execution.steps), len(race.execution.moves))
        explored.undecided += race.undecided
        explored.raced = explored.raced or bool(race.execution.choices) or race.execution.waits > 0
        explored.runs += 1
        return race.execution, race if race.violation is not None else None

    race: Race | None = None
    if executor.level == "threads":  # nothing is chosen, so each run is another try
        explored.raced = True
        random_runs = plan.limit
    else:
        found = walk(attempt, bound=None, limit=plan.limit, over=spent)
        race, explored.exhausted = found.found, found.exhausted
    if race is None and not explored.exhausted:
        for number in range(random_runs):
            if number and over():
                break
            _, race = attempt(pct_chooser(seed + number))
            if race is not None:
                break
    if race is not None and race.violation is not None:
        explored.violation, explored.exact = _certain(session, scenario, executor, race)
    return explored


def _certain(
    session: Session, scenario: Scenario, executor: Executor, race: Race
) -> tuple[Violation | None, bool]:
    """The find under its smallest schedule, and whether it came back every time; a hang is not tried again."""
    best, schedule = race, race.execution.schedule
    exact = True
    if race.violation is not None and not race.violation.hang:
        best, schedule = _shrink(session, scenario, executor, race)
        again = [run_race(session, scenario, executor, Scripted(schedule)) for _ in range(REPLAYS)]
        exact = all(replayed.violation is not None for replayed in again)
    return told(scenario, best, executor.level, schedule), exact


def told(scenario: Scenario, race: Race, level: str, schedule: Sequence[int]) -> Violation | None:
    """The violation of a race with its story, and with what a replay needs."""
    if race.violation is None:
        return None
    where = {
        **scenario.as_data(),
        "schedule": list(schedule),
        "preemptions": race.execution.preemptions,
        "level": level,
    }
    return replace(
        race.violation,
        story=story_of(scenario, race, level, schedule),
        race=where,
        interleaving=picture_of(scenario, race, level, race.violation.salt),
    )


def _shrink(
    session: Session, scenario: Scenario, executor: Executor, race: Race
) -> tuple[Race, tuple[int, ...]]:
    """Fewer preemptions, then earlier ones: a schedule's numbers are set to 0 one by one while it still fails."""
    best, schedule = race, race.execution.schedule
    tries = 0

    def fails(candidate: Sequence[int]) -> Race | None:
        replayed = run_race(session, scenario, executor, Scripted(candidate))
        same = replayed.violation is not None and race.violation is not None
        return replayed if same and not replayed.execution.diverged else None

    place = len(schedule) - 1
    while place >= 0 and tries < SHRINKS:
        if schedule[place]:
            tries += 1
            candidate = (*schedule[:place], 0, *schedule[place + 1 :])
            smaller = fails(candidate)
            if smaller is not None and smaller.execution.preemptions <= best.execution.preemptions:
                best, schedule = smaller, smaller.execution.schedule
                place = min(place, len(schedule))
        place -= 1
    return best, schedule
