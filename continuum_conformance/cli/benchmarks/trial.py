"""One trial: one method on one wrong adapter with one seed, in a process of its own that may hang or be killed.

The clock starts when the store is there and the adapter is loaded, and stops when the fault is told: for the kit when
`check --first` ends, with the find made small and replayed three times; for the others at the first wrong history.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count, cycle
from pathlib import Path
from typing import Any

from continuum_conformance.contract.clauses import CLAUSES
from continuum_conformance.explore.free import FreeThreads
from continuum_conformance.explore.schedule import Scripted
from continuum_conformance.harness import Subject
from continuum_conformance.harness.subject import CALL_LIMIT
from continuum_conformance.suite import machine
from continuum_conformance.suite.check import Plan, preflight, run_check
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.leaving import leave_in_time, threads_now
from continuum_conformance.suite.races.running import run_race
from continuum_conformance.suite.races.scenarios import CLASSICS, Scenario, usable
from continuum_conformance.suite.stores import Stores
from continuum_conformance.suite.testing import PROFILES, registered, run_test
from continuum_conformance.suite.violation import Violation

__all__ = ["METHODS", "Found", "Trial", "scenarios_for", "subject_of"]


@dataclass(frozen=True)
class Trial:
    """What to try.

    Attributes:
        method: one of `METHODS`.
        target: the wrong adapter.
        clauses: those that it is declared to break.
        seed: of all choices.
        budget: seconds, at most; a check is not ended by it, but by the process that waits for it.
        scenario: the race to try and no other, as `Scenario.as_data` writes it.
        any_must: whether a find under any other MUST counts as well.
        failover: whether the check has two servers to lose one of.
        dsn: an empty database, where the adapter needs one; by default of a server that is started for the trial.
    """

    method: str
    target: str
    clauses: tuple[str, ...]
    seed: int
    budget: float
    scenario: Mapping[str, Any] | None = None
    dsn: str | None = None
    any_must: bool = False
    failover: bool = False


@dataclass
class Found:
    """What came of it.

    Attributes:
        found: whether the adapter was seen to be wrong.
        seconds: until then, or until the search ended.
        processor: seconds of processor time that the process took until then, its server and its children apart.
        tries: schedules, programs or rounds that were run; for the kit, also the faults that were injected.
        clauses: what it was told to break.
        scenario: the race in which it showed, if it was one.
        said: what was found, or why the search ended.
    """

    found: bool = False
    seconds: float = 0.0
    processor: float = 0.0
    tries: int = 0
    clauses: tuple[str, ...] = ()
    scenario: Mapping[str, Any] | None = None
    said: str = ""


class _Clock:
    """Reads how long a search has taken, on the wall and of the processor."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._started = time.perf_counter(), time.process_time()

    def read(self) -> None:
        """Write it down."""
        self._found.seconds = time.perf_counter() - self._started[0]
        self._found.processor = time.process_time() - self._started[1]


@contextmanager
def subject_of(trial: Trial) -> Iterator[Subject]:
    """The adapter, with a store of its own."""
    with Stores() as stores:
        yield _provided(trial, stores)


def _provided(trial: Trial, stores: Stores) -> Subject:
    subject = Subject(trial.target, limit=CALL_LIMIT)
    if trial.dsn is not None and "postgres" in subject.needs:
        subject.dsn = trial.dsn
    else:
        stores.provide(subject)
    return subject


@contextmanager
def _opened(trial: Trial) -> Iterator[Session]:
    with Stores() as stores:
        session = Session(_provided(trial, stores))
        session.pair = stores.pair if trial.failover else None
        try:
            yield session
        finally:
            session.close_all()


def by_check(trial: Trial, found: Found) -> None:
    """The kit: `check --first` in the standard profile, with `--failover` where that is what the fault is about."""
    with _opened(trial) as session:
        clock = _Clock(found)
        preflight(session)
        results = run_check(session, Plan(PROFILES["standard"], trial.seed, first=True))
        clock.read()
        found.tries = session.races["interleavings"] + session.races["free runs"] + session.faults.total()
        for result in results:
            violation = result.violation
            if violation is not None and (
                set(violation.clauses) & set(trial.clauses)
                or any(CLAUSES[clause].level == "MUST" for clause in violation.clauses)
            ):
                _keep(found, violation)
        if found.found and not trial.any_must and not set(found.clauses) & set(trial.clauses):
            found.found, found.said = False, f"another fault was found first: {found.said}"
        elif not found.found:
            found.said = "the plan came to its end"


def by_machine(trial: Trial, found: Found) -> None:
    """A plain Hypothesis state machine: the kit's own, alone, with new seeds until the budget is spent."""
    profile = replace(PROFILES["standard"], programs=10, shrinks=0)
    (program,) = (test for test in registered() if test.body is machine.program)
    with _opened(trial) as session:
        clock = _Clock(found)
        preflight(session)
        for number in count():
            result = run_test(program, session, profile, trial.seed * 1_000_000 + number)
            found.tries += result.examples
            clock.read()
            if result.violation is not None:
                _keep(found, result.violation)
                return
            if found.seconds >= trial.budget:
                found.said = "the budget was spent"
                return


def by_threads(trial: Trial, found: Found) -> None:
    """Threads that start together at a barrier and switch every 10 µs, over and over, judged as the kit judges."""
    executor = FreeThreads(limit=CALL_LIMIT)
    with _opened(trial) as session:
        clock = _Clock(found)
        preflight(session)
        for scenario in cycle(scenarios_for(trial, session.capabilities)):
            race = run_race(session, scenario, executor, Scripted(()))
            found.tries += 1
            clock.read()
            if race.violation is not None:
                _keep(found, race.violation)
                found.scenario = scenario.as_data()
                return
            if found.seconds >= trial.budget:
                found.said = "the budget was spent"
                return


def by_frontrun(trial: Trial, found: Found) -> None:
    """`frontrun`, as its documentation has it."""
    importlib.import_module("continuum_conformance.cli.benchmarks.with_frontrun").explore(trial, found)


METHODS = {"check": by_check, "threads": by_threads, "frontrun": by_frontrun, "machine": by_machine}
"""The kit and its alternatives."""


def scenarios_for(trial: Trial, capabilities: frozenset[str]) -> list[Scenario]:
    """The race that the trial is about, else the known ones."""
    if trial.scenario is not None:
        return [Scenario.from_data(trial.scenario)]
    return [scenario for scenario in CLASSICS if usable(scenario, capabilities)]


def _keep(found: Found, violation: Violation) -> None:
    found.found, found.clauses, found.said = True, violation.clauses, violation.message
    race = violation.race
    if race is not None and "scenario" in race and set(race["workers"]) <= set("ABC"):
        names = ("scenario", "situation", "workers", "clauses", "one_handle")
        found.scenario = {name: race[name] for name in names if name in race}


def main() -> None:
    """Carry out the trial of the first argument (JSON), and write what came of it to the file of the second."""
    threads = threads_now()
    data = json.loads(sys.argv[1])
    trial = Trial(**{**data, "clauses": tuple(data["clauses"])})
    found = Found()
    try:
        METHODS[trial.method](trial, found)
    except Violation as violation:  # in a set-up: wrong before anything raced
        _keep(found, violation)
    Path(sys.argv[2]).write_text(json.dumps(asdict(found)), "utf-8")
    leave_in_time(0, since=threads)


if __name__ == "__main__":
    main()
