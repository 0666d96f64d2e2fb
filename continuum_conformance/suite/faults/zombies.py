"""Zombies: a worker in a process of its own, stopped (SIGSTOP) within an operation while another one takes over.

In one process the races of the suite go further. What shows only here is what processes do not share: a lock of a
thread, a cache, a counter in memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from continuum_conformance.history import History, Interleaving, judge
from continuum_conformance.history.interleaving import Move, Pause
from continuum_conformance.model import Kind, Outcome
from continuum_conformance.suite.faults.running import lenient, spread
from continuum_conformance.suite.lab import BESIDE, WORKERS, Lab, Session
from continuum_conformance.suite.races.levels import own_files
from continuum_conformance.suite.races.picture import calls_of
from continuum_conformance.suite.races.running import Arranged, Recording, clauses_of, probe
from continuum_conformance.suite.races.scenarios import SITUATIONS, Act, Scenario
from continuum_conformance.suite.script import told_text
from continuum_conformance.suite.testing import Profile, Search, checks
from continuum_conformance.suite.violation import Step, Violation

__all__ = ["run_stopped", "run_stopped_again"]

ZOMBIE, OTHER = BESIDE, "A"

LEAST, MOST, TIMES = 0.03, 0.3, 6
"""After so many times as long as they took when nobody was stopped, others are taken to wait for the one that is:
at least and at most so many seconds."""

LINES = {"quick": 3, "standard": 10, "thorough": 10_000}
"""At how many of an operation's points it is stopped, at most: before lines that call what is not the adapter's own."""

GET = (Act("get_run"), Act("load"))


def _scenario(situation: str, zombie: Act, *others: Act, clauses: tuple[str, ...] = ()) -> Scenario:
    name = f"a stopped {zombie}, and {', '.join(map(str, others[:1]))} meanwhile, {situation}"
    return Scenario(name, SITUATIONS[situation], {ZOMBIE: (zombie,), OTHER: (*others, *GET)}, clauses)


FENCED = ("append", "complete", "fail", "suspend", "load_with_snapshot")


def zombie_scenarios(capabilities: frozenset[str]) -> Iterator[Scenario]:
    """The pairs in which what one process does shuts out, or numbers, what another one has begun."""
    if "leases" in capabilities:
        takeover = (Act("acquire"), Act("append", "own"))
        for op in (*FENCED, "renew", "release"):
            yield _scenario("expired", Act(op, "current"), *takeover)
        yield _scenario("expired", Act("acquire"), *takeover)
        yield _scenario("unleased", Act("append", "none"), *takeover)
        yield _scenario("unleased", Act("acquire"), Act("acquire"))
        yield _scenario("leased", Act("append", "current"), Act("release", "current"))
        yield _scenario("leased", Act("append", "current"), Act("complete", "current"))
    yield _scenario("absent", Act("start_run"), Act("start_run"))
    yield _scenario("unleased", Act("append", "none"), Act("append", "none"))
    yield _scenario("unleased", Act("append_seq", "none"), Act("append_seq", "none"))
    yield _scenario("unleased", Act("append", "none"), Act("complete", "none"))
    yield _scenario("unleased", Act("complete", "none"), Act("fail", "none"))
    if "snapshots" in capabilities:
        yield _scenario("unleased", Act("take_snapshot"), Act("take_other_snapshot"))


def _where(grain: str, number: int) -> str:
    """Where a process was stopped."""
    places = {
        "line": f"before line {number} of what the adapter runs for its operation",
        "message": f"before its message {number} reached the server",
        "moment": f"within its operation (moment {number} of 20)",
    }
    return places[grain]


def run_stopped(
    session: Session, scenario: Scenario, line: int, patience: float = MOST
) -> tuple[Violation | None, Sequence[int], float]:
    """Stop an operation of another process once, and let others act meanwhile.

    Args:
        session: the adapter.
        scenario: its operation, and what happens meanwhile.
        line: before which line of the adapter's code it is stopped; 0 for nowhere.
        patience: seconds after which it goes on, whether or not the others have come back.

    Returns:
        What is wrong; where it was not stopped, the lines before which it may be; and how long the others took.
    """
    lab = Lab(session, (), f"zombie: {scenario.name}")
    arranged = Arranged(lab, scenario)
    before, arranging = lab.world, len(lab.steps)
    recording = Recording()
    handle, process = session.handle(OTHER), session.handle(ZOMBIE)
    files = own_files(handle.journal, session.subject.harness)
    operation = arranged.operation(scenario.workers[ZOMBIE][0], ZOMBIE, None)
    if operation is None:
        raise LookupError(f"{scenario.name} cannot be made")
    points: Sequence[int] = ()
    stopped, seconds = False, 0.0
    still = (0, 0)
    """From when to when it stood still."""

    def others() -> None:
        nonlocal seconds
        began = time.perf_counter()
        program = arranged.program(OTHER, scenario.workers[OTHER])
        for asked in program:
            program.outcome = recording.carry_out(asked, lambda op: lenient(handle.call(op)))
        seconds = time.perf_counter() - began

    def zombie() -> Outcome:
        nonlocal points, stopped, still
        stopped = process.stop_in(operation, files, line)
        since = next(recording.clock)
        acting = threading.Thread(target=others, name="meanwhile", daemon=True)
        acting.start()
        acting.join(patience)
        still = (since, next(recording.clock))
        outcome: Outcome
        outcome, points = process.resume()
        acting.join()
        return lenient(outcome)

    recording.carry_out(operation, lambda _: zombie())
    probes_from = next(recording.clock)
    probe(lab, arranged, recording)
    # Who waits for a stopped process longer than it can may give up.
    entries = [
        e
        for e in recording.entries
        if not (e.outcome.error == "JournalUnavailable" and not e.outcome.unknown)
    ]
    verdict = judge(History.of(entries), session.specification, before)
    if not verdict.failed:
        return None, () if stopped else points, seconds
    why = verdict.explanation
    headline = why.headline if why is not None else verdict.text
    told = [
        f"starting from the situation '{scenario.situation.name}'; worker {ZOMBIE} is a process of its own,",
        f"stopped (SIGSTOP) {_where(process.grain, line)}, and continued:",
        "",
    ]
    for entry in sorted(entries, key=lambda e: e.invoked):
        mark = "   <- stopped within, while what overlaps it happened" if entry.worker == ZOMBIE else ""
        told.append(told_text(Step(entry.operation, entry.outcome), lab.salt, mark=mark))
    told += ["", *verdict.text.replace(f"-{lab.salt}", "").splitlines()]
    steps = tuple(lab.steps[:arranging]) + tuple(Step(e.operation, e.outcome) for e in entries)
    raw = next((e.outcome.detail for e in entries if e.outcome.kind in (Kind.RAW, Kind.HANG)), "")
    found = Violation(
        clauses_of(scenario),
        f"{scenario.name}: {headline}",
        steps,
        detail=raw,
        salt=lab.salt,
        test=lab.test,
        story="\n".join(told) + "\n",
        race={**scenario.as_data(), "fault": "stopped", "number": line, "preemptions": 1},
        interleaving=Interleaving(
            "processes",
            (ZOMBIE, OTHER, *(worker for worker in WORKERS if worker != OTHER)),
            f"starting from the situation '{scenario.situation.name}'; worker {ZOMBIE} is a process of its own",
            calls_of(
                recording,
                lab.salt,
                deciding=why.decisive if why is not None else None,
                struck=next((e for e in recording.entries if e.operation is operation), None),
                after=probes_from,
            ),
            (
                Move(
                    ZOMBIE,
                    f"stopped {_where(process.grain, line)}",
                    still[0],
                    still[1],
                    pauses=(Pause(*still, "stands still (SIGSTOP)"),),
                ),
            ),
        ),
    )
    return replace(found, hang=any(e.outcome.kind is Kind.HANG for e in entries)), (), seconds


def run_stopped_again(session: Session, data: Mapping[str, Any]) -> Violation | None:
    """What a replay file has, once more."""
    return run_stopped(session, Scenario.from_data(data), int(data["number"]))[0]


@checks("CON-1", program=True, needs="shared")
def a_process_that_was_stopped_does_no_harm(
    session: Session, profile: Profile, seed: int, search: Search
) -> None:
    """A process is stopped before lines of an operation, others go on, and then it continues."""
    del seed
    for scenario in zombie_scenarios(session.capabilities):
        found, points, seconds = run_stopped(session, scenario, 0)
        patience = min(MOST, max(LEAST, TIMES * seconds))
        points = points[1:] or points  # before the first it has not begun, as far as others can tell
        for number in spread(len(points), LINES[profile.name]) if points else ():
            if found is None:
                search.result.examples += 1
                session.faults["processes stopped within an operation"] += 1
                found, _, _ = run_stopped(session, scenario, points[number - 1], patience)
        if found is not None:
            search.result.violation = found
            return


@checks("FEN-6", needs="shared leases", whole=True)
def a_process_that_lost_its_lease_is_fenced_out(lab: Lab) -> None:
    """What one process has learned of a run does not outlive another one's takeover (worker Z is a process)."""
    run = lab.started(events=1)
    run.load(on=ZOMBIE)
    run.acquire("zoe", 0, on=ZOMBIE)
    old = run.lease
    run.append(token=old.token, on=ZOMBIE)
    run.acquire("alice")
    run.append(token=run.token)
    run.append({"type": "late"}, old.token, on=ZOMBIE)
    run.load_with_snapshot(old.token, on=ZOMBIE)
    run.suspend(old.token, on=ZOMBIE)
    run.renew(old, on=ZOMBIE)
    run.release(old, on=ZOMBIE)
    run.acquire("zoe", on=ZOMBIE)
    run.complete({"late": True}, old.token, on=ZOMBIE)
    lab.look(run.key, on=ZOMBIE)
    run.release()
    run.append(token=None, on=ZOMBIE)
    run.acquire("zoe", 0, on=ZOMBIE)
    run.append(token=run.token)
    run.renew(on=ZOMBIE)
    run.acquire("alice")
    run.complete({"by": "alice"}, run.token)
    run.append(token=old.token, on=ZOMBIE)
    run.fail({"late": True}, old.token, on=ZOMBIE)
    lab.look(run.key, on=ZOMBIE)
    run.look()


@checks("APP-10", needs="shared", whole=True)
def a_process_sees_what_another_one_did(lab: Lab) -> None:
    """Two processes take turns on one run (worker Z is a process)."""
    run, other = lab.run(), lab.run()
    lab.look(run.key, on=ZOMBIE)
    run.start()
    run.start(on=ZOMBIE)
    for turn in range(4):
        run.append({"type": "step", "turn": turn}, None, on=(ZOMBIE, "A")[turn % 2])
        lab.look(run.key, on=("A", ZOMBIE)[turn % 2])
    other.start(on=ZOMBIE)
    other.append(on="A")
    run.suspend(on=ZOMBIE)
    if "snapshots" in lab.capabilities:
        run.snapshot(1, {0: "zero", 1: "one"}, on=ZOMBIE)
        run.load_with_snapshot()
        run.snapshot(3, {3: "three"})
    lab.look(run.key, on=ZOMBIE)
    run.complete({"by": "A"})
    run.append(on=ZOMBIE)
    lab.look_everywhere()
    lab.look(run.key, on=ZOMBIE)
