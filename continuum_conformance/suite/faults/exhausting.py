"""Load and exhaustion: waits that a time-out ends, a disk that is full, and more threads than a pool has connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from continuum_conformance.harness import HarnessError
from continuum_conformance.history import History, judge
from continuum_conformance.model import Kind, Operation, Outcome
from continuum_conformance.suite.empty_store import empty_store, no_empty_store
from continuum_conformance.suite.faults.running import (
    CUT,
    Example,
    Fault,
    cutting,
    lenient,
    litter,
    scenarios,
)
from continuum_conformance.suite.faults.waiting import Call, RowLock, no_postgres
from continuum_conformance.suite.lab import SECOND_PROCESS, Lab, RunUnderTest, Session
from continuum_conformance.suite.races.running import Recording
from continuum_conformance.suite.script import told_text
from continuum_conformance.suite.testing import Profile, Search, checks
from continuum_conformance.suite.violation import Step, Violation

__all__ = ["PATIENCE", "THREADS", "crowd", "run_timed_out"]

TIMEOUT = "150ms"
"""The server's statement_timeout, in sessions whose statements are made to wait."""

PATIENCE = 1.0
"""Seconds after which the lock is let go, for an adapter that tries again until it is."""


def run_timed_out(session: Session, fault: Fault) -> Violation | None:
    """Have the server end a statement that waits for a lock; gives what is wrong."""
    with cutting(session) as gate:
        gate.settings["statement_timeout"] = TIMEOUT
        return _timed_out(session, fault)


def _timed_out(session: Session, fault: Fault) -> Violation | None:
    example = Example(session, fault)
    handle = session.handle(CUT)
    if example.read(CUT).kind is not Kind.VALUE:
        return example.violation("a new handle could not read", "ATM-3")
    lock = RowLock(str(session.subject.dsn), example.arranged.run)
    try:
        call = Call(lambda: example.strike(lambda: lenient(handle.call(example.operation))))
        until = time.monotonic() + PATIENCE
        while not call.ended and time.monotonic() < until:
            time.sleep(0.005)  # between two looks
        lock.let_go()
        outcome = call.result()
    finally:
        lock.close()
    if outcome.kind is Kind.HANG:
        return example.violation("it did not come back", "ATM-3")
    again = example.read(CUT)
    if again.kind is not Kind.VALUE:
        return example.violation(
            f"the next call on the handle failed with {again.error}: {again.message}", "ATM-3"
        )
    found = example.judged("ATM-1")
    left = litter(session) if found is None else ""
    return example.violation(f"the server was left with {left}", "ATM-3") if left else found


@checks("ATM-1", "ATM-3", program=True, when=no_postgres)
def a_wait_that_a_time_out_ends_leaves_nothing_behind(
    session: Session, profile: Profile, seed: int, search: Search
) -> None:
    """A foreign session has locked the run's rows, and the server's statement_timeout ends whoever waits."""
    del seed
    with cutting(session) as gate:
        gate.settings["statement_timeout"] = TIMEOUT
        for scenario in scenarios(session.capabilities, CUT, reads=False):
            if scenario.situation.name not in ("leased", "unleased", "expired"):
                continue
            if profile.name == "quick" and scenario.situation.name != "leased":
                continue
            search.result.examples += 1
            session.faults["statements timed out"] += 1
            found = _timed_out(session, Fault(scenario, "timeout", 1))
            if found is not None:
                search.result.violation = found
                return


# -- a full disk --

ROOM = 200_000
"""Bytes by which no file of the store may grow beyond the largest one."""

EVENT = {"type": "large", "data": b"\0\x01\x02\x03" * 8_000}
MOST = 60
"""Appends of such an event that are tried until the disk is full."""


def _no_disk(session: Session) -> str:
    """Why no disk can be made full."""
    if "directory" not in session.subject.needs:
        return "the store is not in a directory of the kit's"
    return "" if "durable" in session.capabilities else "`durable` is not declared"


def _story(found: Recording, lab: Lab) -> str:
    lines = [
        "worker P is a process of its own, whose files may not grow (RLIMIT_FSIZE, as on a full disk)",
        "until it is killed, or has room again:",
        "",
    ]
    told = [told_text(Step(e.operation, e.outcome), lab.salt, most=60) for e in found.entries]
    for line, same in groupby(told):
        times = len(list(same))
        lines.append(line if times == 1 else f"{line}   ({times} times)")
    return "\n".join(lines) + "\n"


@checks("ATM-1", "ATM-3", program=True, when=_no_disk)
def a_full_disk_loses_nothing(session: Session, profile: Profile, seed: int, search: Search) -> None:
    """The files of the store cannot grow: what is refused did not happen, and afterwards all goes on."""
    del profile, seed
    for killed in (True, False):
        with _small_store(session) as small:
            _fill_disk(small, search, killed=killed)
        if search.result.violation is not None:
            return


@contextmanager
def _small_store(session: Session) -> Iterator[Session]:
    """A session over an empty store, where one can be made, else the one over the store under test.

    The limit is one for all files. In a store that was used for long the file that grows may be far below it.
    """
    if no_empty_store(session):
        yield session
        return
    session.close_handles()
    with empty_store(session) as subject:
        small = Session(subject())
        small.faults = session.faults
        try:
            usable = _usable(small)
            if usable:
                yield small
        finally:
            small.close_all()
    if not usable:
        # Something in this process was made for the first store only.
        yield session


def _usable(session: Session) -> bool:
    """Whether two processes see the same in this store."""
    try:
        lab = Lab(session, (), "second store")
        run = lab.started(events=1)
        arguments = {"instance": run.instance, "run_id": run.run_id}
        seen = session.handle(SECOND_PROCESS).call(Operation("load", arguments, SECOND_PROCESS))
    except (HarnessError, Violation):
        return False
    return seen.kind is Kind.VALUE


def _fill_disk(session: Session, search: Search, *, killed: bool) -> None:
    """Fill the disk; then kill the process, or give it room again."""
    lab = Lab(session, (), "full disk")
    run = lab.started(events=2)
    before, steps = lab.world, tuple(lab.steps)
    recording = Recording()
    child = session.handle(SECOND_PROCESS)
    search.result.examples += 1

    def violation(message: str, *clauses: str, detail: str = "") -> None:
        made = tuple(Step(e.operation, e.outcome) for e in recording.entries)
        search.result.violation = Violation(
            clauses,
            f"on a full disk {message}",
            (*steps, *made),
            detail=detail,
            salt=lab.salt,
            test=lab.test,
            story=_story(recording, lab),
            race={"test": "a_full_disk_loses_nothing", "fault": "whole"},
        )

    def do(operation: Operation) -> Outcome:
        return recording.carry_out(operation, lambda asked: lenient(child.call(asked)))

    try:
        child.limit_files(ROOM + _largest(session))
        if any(do(operation).kind is not Kind.VALUE for operation in _until_full(run)):
            session.faults["disks filled"] += 1
            for operation in _after(run):
                do(operation)
        if killed:
            session.kill()
            session.faults["clients killed"] += 1
        else:
            child.limit_files(None)
            again = do(_append(run, {"type": "room again"}))
    except HarnessError:
        session.kill()
        return  # a store that cannot live without room is no finding
    if not killed and again.error == "JournalUnavailable" and not again.unknown:
        violation(f"was followed by an append, with room again, that failed: {again.message}", "ATM-3")
        return
    arguments = {"instance": run.instance, "run_id": run.run_id}
    try:
        for worker in ("A",) if killed else (SECOND_PROCESS, "A"):
            for name in ("load", "get_run"):
                recording.carry_out(Operation(name, arguments, worker), session.handle(worker).call)
    except HarnessError as error:
        violation(f"the store was left so that it cannot be opened: {error}", "ATM-1", detail=error.detail)
        return
    # What said that it did not happen must not be seen.
    unavailable = [e for e in recording.entries if e.outcome.error == "JournalUnavailable" and not e.unknown]
    entries = [e for e in recording.entries if not any(e is other for other in unavailable)]
    verdict = judge(History.of(entries), session.specification, before)
    if verdict.failed:
        headline = verdict.explanation.headline if verdict.explanation is not None else verdict.text
        violation(f"something was lost, or done in part: {headline}", "ATM-1")


def _largest(session: Session) -> int:
    files = [path for path in Path(str(session.subject.directory)).rglob("*") if path.is_file()]
    return max((path.stat().st_size for path in files), default=0)


def _append(run: RunUnderTest, event: dict[str, Any]) -> Operation:
    arguments = {"instance": run.instance, "run_id": run.run_id, "event": event, "lease_token": None}
    return Operation("append", arguments, SECOND_PROCESS)


def _until_full(run: RunUnderTest) -> Iterator[Operation]:
    for _ in range(MOST):
        yield _append(run, EVENT)


def _after(run: RunUnderTest) -> Iterator[Operation]:
    arguments = {"instance": run.instance, "run_id": run.run_id}
    yield Operation("load", arguments, SECOND_PROCESS)
    yield _append(run, EVENT)
    yield Operation("suspend", {**arguments, "lease_token": None}, SECOND_PROCESS)
    yield Operation("get_run", arguments, SECOND_PROCESS)
    yield Operation("complete", {**arguments, "result": EVENT, "lease_token": None}, SECOND_PROCESS)
    yield Operation("get_run", arguments, SECOND_PROCESS)


# -- many threads --

THREADS, RIVALS = 20, 4
TURNS = 3
CROWD_LIMIT = 60.0
"""Seconds in which all of them must have come back."""


def _plain(outcome: Outcome) -> Outcome:
    return outcome


def crowd(
    handle: Any,
    programs: list[list[Operation]],
    recording: Recording,
    taken: Callable[[Outcome], Outcome] = _plain,
) -> bool:
    """Carry out programs at once on one handle, in a thread each (async: a task); whether all came back in time."""
    return (_async_crowd if handle.is_async else _sync_crowd)(handle, programs, recording, taken)


def _sync_crowd(
    handle: Any,
    programs: list[list[Operation]],
    recording: Recording,
    taken: Callable[[Outcome], Outcome],
) -> bool:
    start = threading.Barrier(len(programs))
    done: list[Future[None]] = []

    def work(program: list[Operation], future: Future[None]) -> None:
        start.wait()
        for operation in program:
            recording.carry_out(operation, lambda asked: taken(handle.direct(asked)))
        future.set_result(None)

    for program in programs:
        done.append(Future())
        threading.Thread(target=work, args=(program, done[-1]), name="crowd", daemon=True).start()
    until = time.monotonic() + CROWD_LIMIT
    for future in done:
        try:
            future.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            return False
    return True


def _async_crowd(
    handle: Any,
    programs: list[list[Operation]],
    recording: Recording,
    taken: Callable[[Outcome], Outcome],
) -> bool:
    import asyncio

    async def call(operation: Operation) -> Outcome:
        return taken(await handle.direct_async(operation))

    async def work(program: list[Operation]) -> None:
        for operation in program:
            await recording.carry_out_async(operation, call)

    async def everybody() -> bool:
        tasks = [asyncio.ensure_future(work(program)) for program in programs]
        _, pending = await asyncio.wait(tasks, timeout=CROWD_LIMIT)
        for task in pending:
            task.cancel()
        return not pending

    return bool(handle.inside(everybody, limit=CROWD_LIMIT * 2))


@checks("CON-4", "CON-3", program=True, when=lambda session: session.subject.reach.one_handle)
def many_threads_share_one_handle(session: Session, profile: Profile, seed: int, search: Search) -> None:
    """Twenty threads (async: tasks) write to runs of their own through one handle, and four of them to one run."""
    del profile, seed
    lab = Lab(session, (), "crowd")
    session.handle("A")
    shared = lab.started()
    programs = []
    for number in range(THREADS):
        own = lab.run()
        worker = f"W{number + 1}"
        start = {"instance": own.instance, "run_id": own.run_id, "workflow": "crowd", "input": None}
        program = [Operation("start_run", start, worker)]
        for turn in range(TURNS):
            event = {"type": "step", "by": number, "turn": turn}
            # Who has many rivals for one run may lose often; what is tried here is many threads on few connections.
            for run in (shared, own) if number < RIVALS else (own,):
                arguments = {"instance": run.instance, "run_id": run.run_id, "event": event}
                program.append(Operation("append", {**arguments, "lease_token": None}, worker))
        programs.append(program)
    before, recording = lab.world, Recording()
    search.result.examples += 1
    ended = crowd(session.handle("A"), programs, recording)

    def violation(message: str, clause: str, outcome: Outcome | None = None) -> None:
        made = tuple(Step(e.operation, e.outcome) for e in recording.entries if e.outcome is outcome)
        search.result.violation = Violation(
            (clause,),
            f"with {THREADS} threads on one handle {message}",
            (*lab.steps, *made),
            detail=outcome.detail if outcome is not None else "",
            hang=not ended,
            salt=lab.salt,
            test=lab.test,
            story=f"{THREADS} threads write to runs of their own through one handle, {RIVALS} of them to one run: {message}\n",
            race={"test": "many_threads_share_one_handle", "fault": "whole"},
        )

    if not ended:
        violation(f"some calls did not come back within {CROWD_LIMIT:g} s", "CON-4")
        return
    for entry in recording.entries:
        if entry.outcome.kind is not Kind.VALUE:
            what = f"{entry.operation.name} failed with {entry.outcome.error}: {entry.outcome.message}"
            violation(what, "CON-4", entry.outcome)
            search.result.exact = False
            return
    arguments = {"instance": shared.instance, "run_id": shared.run_id}
    recording.carry_out(Operation("load", arguments, "B"), session.handle("B").call)
    verdict = judge(History.of(recording.entries), session.specification, before)
    if verdict.failed:
        headline = verdict.explanation.headline if verdict.explanation is not None else verdict.text
        violation(f"appends were lost or repeated: {headline}", "CON-3")
        search.result.exact = False
