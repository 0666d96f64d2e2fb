"""The races as tests of the suite: the classics one by one, all conflicting pairs, and free-running threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from continuum_conformance.explore.free import FreeThreads
from continuum_conformance.explore.schedule import Scripted
from continuum_conformance.suite.lab import Lab, Session
from continuum_conformance.suite.races import first_use
from continuum_conformance.suite.races.exploring import explore, told
from continuum_conformance.suite.races.levels import Level, level_of
from continuum_conformance.suite.races.prediction import conflict
from continuum_conformance.suite.races.running import clauses_of, operations_of, run_race
from continuum_conformance.suite.races.scenarios import CLASSICS, Scenario, all_pairs, usable
from continuum_conformance.suite.situations import each
from continuum_conformance.suite.testing import Profile, Search, checks
from continuum_conformance.suite.violation import Violation

__all__ = ["conflicting", "test_name"]

_LOADED = first_use


def _explore_into(
    session: Session, profile: Profile, seed: int, search: Search, scenario: Scenario, level: Level
) -> Violation | None:
    explored = explore(
        session, scenario, level.executor, level.budget(profile, scenario, session.pairs_cut), seed=seed
    )
    session.pairs_cut += not (explored.exhausted or scenario.classic)
    search.result.examples += explored.runs
    session.races["scenarios"] += 1
    if not explored.raced:
        session.races["never raced"] += 1
    elif level.name != "threads":
        session.races["explored in full" if explored.exhausted else "cut short"] += 1
    if explored.undecided:
        search.result.error = (
            f"{scenario.name}: {explored.undecided} runs could not be judged within the budget"
        )
    if explored.violation is not None:
        search.result.violation, search.result.exact = explored.violation, explored.exact
    return explored.violation


def one_handle_alone(session: Session) -> str:
    """Why several threads cannot share a handle of this adapter."""
    return session.subject.reach.one_handle


def test_name(scenario: Scenario) -> str:
    """The name of the test of a known scenario."""
    return "race_" + scenario.name.replace(",", "").replace("'", "").replace(" ", "_")


def _classic(scenario: Scenario) -> None:
    ops = {act.operation for acts in scenario.workers.values() for act in acts}
    leases = "leases " if scenario.situation.lease or ops & {"acquire", "renew", "release"} else ""
    snapshots = "snapshots" if scenario.situation.snapshot or "take_snapshot" in ops else ""

    def body(session: Session, profile: Profile, seed: int, search: Search) -> None:
        _explore_into(session, profile, seed, search, scenario, level_of(session))

    body.__name__ = test_name(scenario)
    when = one_handle_alone if scenario.one_handle else None
    checks(*scenario.clauses, program=True, needs=leases + snapshots, when=when)(body)


for _scenario in CLASSICS:
    _classic(_scenario)


def conflicting(session: Session, clause: str) -> Iterator[Scenario]:
    """The pairs whose two orders differ, and which break this clause first when they have no explanation."""
    for scenario in all_pairs(session.capabilities):
        if clauses_of(scenario)[0] != clause or not usable(scenario, session.capabilities):
            continue
        lab = Lab(session)
        operations = operations_of(scenario, lab)
        if conflict(session.specification, lab.world, operations["A"], operations["B"]):
            yield scenario


def _pairs(clause: str, needs: str) -> Callable[..., None]:
    def body(session: Session, profile: Profile, seed: int, search: Search) -> None:
        level = level_of(session)
        for scenario in level.chosen(profile, conflicting(session, clause)):
            if _explore_into(session, profile, seed, search, scenario, level) is not None:
                return

    body.__name__ = f"pairs_of_{clause.replace('-', '_')}"
    return checks(clause, program=True, needs=needs)(body)


for _clause, _needs in (
    ("FEN-5", "leases"),
    ("CON-2", ""),
    ("CON-3", ""),
    ("SNP-10", "snapshots"),
    ("CON-1", ""),
):
    _pairs(_clause, _needs)


ROUNDS = {"quick": 5, "standard": 20, "thorough": 200}


@checks("CON-4", program=True)
def free_threads_never_meet_contention(session: Session, profile: Profile, seed: int, search: Search) -> None:
    """The classics again, unscheduled: nobody is held, so contention that surfaces is the adapter's own."""
    del seed
    executor = FreeThreads()
    for scenario in CLASSICS:
        if not usable(scenario, session.capabilities, session.subject.reach):
            continue
        for _ in range(ROUNDS[profile.name]):
            search.result.examples += 1
            session.races["free runs"] += 1
            race = run_race(session, scenario, executor, Scripted(()))
            if race.violation is not None:
                search.result.violation = told(scenario, race, executor.level, ())
                search.result.exact = False
                return


def _busy(capabilities: frozenset[str]) -> tuple[str, ...]:
    leases = ("acquire", "renew") if "leases" in capabilities else ()
    return ("start_run", "append", "load", "suspend", "complete", *leases)


@checks("CON-5", cases=each(how=_busy))
def operations_on_different_runs_do_not_wait(lab: Lab, how: str) -> None:
    """What one worker has done with its run, and still holds, keeps nobody from another run."""
    mine, other = lab.started(events=1), lab.started(events=1)
    if "leases" in lab.capabilities:
        mine.acquire("alice", on="A")
        mine.append(token=mine.token, on="A")
    acts: dict[str, Callable[[], object]] = {
        "start_run": lambda: lab.run().start(on="B"),
        "append": lambda: other.append(on="B"),
        "load": lambda: other.load(on="B"),
        "suspend": lambda: other.suspend(on="B"),
        "complete": lambda: other.complete(1, on="B"),
        "acquire": lambda: other.acquire("bob", on="B"),
        "renew": lambda: (other.acquire("bob", on="B"), other.renew(on="B")),
    }
    acts[how]()
    other.look()
    mine.look()
