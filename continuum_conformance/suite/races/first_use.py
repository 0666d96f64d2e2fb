"""The store's first use: several handles are opened at once on an empty store, and begin to work at once (CON-1)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continuum_conformance.explore.free import SWITCH_INTERVAL
from continuum_conformance.harness import HarnessError, SecondProcess, Subject
from continuum_conformance.harness.bridge.harness import ProgramHarness
from continuum_conformance.history import History, judge
from continuum_conformance.model import EMPTY, Kind, Operation, Outcome
from continuum_conformance.suite.empty_store import empty_store, no_empty_store
from continuum_conformance.suite.lab import Lab, Session
from continuum_conformance.suite.races.running import Recording
from continuum_conformance.suite.script import told_text
from continuum_conformance.suite.testing import Profile, Search, checks
from continuum_conformance.suite.violation import Step, Violation

__all__ = ["the_stores_first_use_by_several_at_once"]

WORKERS = ("A", "B", "C", "D", "E", "F")
LATER = WORKERS[3:]
"""Where the store is in a directory these begin when the others have made something there, and may not be ready yet."""

ROUNDS = {"quick": 20, "standard": 60, "thorough": 400}
"""Of a store in a directory; a tenth of them over a server, where an empty store costs more."""

AGAIN = 10
"""What is told must come back so many times before as many rounds have gone well.

Nobody is held, so that a fault shows by chance; one that shows seldom would fail one check and pass the next. Measured:
tables that are made without a lock fail in 84 to 100 of 100 rounds, SQLite's switch to its write-ahead log, for which
its busy time-out does not wait, in 1 to 4.
"""


def _alone(session: Session) -> str:
    """Why there are not several that could use a store first."""
    if "shared" not in session.capabilities:
        return "only one process at a time may use the store"
    if session.subject.pickled is None:
        return "the harness cannot be pickled: it may hold what a process must have one of (a lock, an environment)"
    return no_empty_store(session)


@dataclass
class _Found:
    """What one worker met: it could not open a handle, or a call's outcome."""

    message: str
    detail: str = ""
    outcome: Outcome | None = None


class _FirstUse:
    """Several workers that open a handle on an empty store and write to a run of their own."""

    def __init__(self, session: Session, subject: Callable[[], Subject], *, processes: bool = False) -> None:
        self.lab = Lab(session, ("CON-1",), "first use")
        self.recording = Recording()
        self._subject, self._processes = subject, processes

    def operations(self, worker: str) -> list[Operation]:
        run = self.lab.run()
        key = {"instance": run.instance, "run_id": run.run_id}
        event = {"type": f"by-{worker}"}
        return [
            Operation("start_run", {**key, "workflow": "first", "input": worker}, worker),
            Operation("append", {**key, "event": event, "lease_token": None}, worker),
            Operation("load", key, worker),
        ]

    def work(self, worker: str, subject: Subject, operations: list[Operation]) -> _Found | None:
        """Open, write and read; gives what was wrong with it, apart from what the judge will say."""
        try:
            handle = self._opened(worker, subject)
        except HarnessError as error:
            return _Found(f"worker {worker} could not open a handle: {error}", error.detail)
        try:
            for operation in operations:
                outcome = self.recording.carry_out(operation, handle.call)
                if outcome.kind is not Kind.VALUE:
                    said = f"{outcome.error}: {outcome.message}" if outcome.error else outcome.message
                    return _Found(f"{operation.name} failed with {said}", outcome.detail, outcome)
        finally:
            with suppress(HarnessError):
                handle.close()
        return None

    def _opened(self, worker: str, subject: Subject) -> Any:
        if self._processes:
            return SecondProcess(subject, lender=self.lab.session.subject)
        return subject.open(worker)

    def at_once(self, workers: tuple[str, ...]) -> _Found | None:
        """All of them from a common start; gives the first thing that was wrong."""
        start = threading.Barrier(len(workers))
        programs = {worker: self.operations(worker) for worker in workers}
        subjects = {worker: self._subject() for worker in workers}

        done = threading.Event()

        def body(worker: str) -> _Found | None:
            start.wait()
            folder = subjects[worker].directory
            if folder is not None and worker in LATER:
                while not done.is_set() and not any(Path(folder).iterdir()):
                    pass
            try:
                return self.work(worker, subjects[worker], programs[worker])
            finally:
                done.set()

        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL)
        try:
            with ThreadPoolExecutor(len(workers), "first") as threads:
                found = list(threads.map(body, workers))
        finally:
            sys.setswitchinterval(interval)
            for subject in subjects.values():
                subject.shutdown()
        return next((each for each in found if each is not None), None)

    def judged(self) -> _Found | None:
        verdict = judge(History.of(self.recording.entries), self.lab.session.specification, EMPTY)
        if not verdict.failed:
            return None
        return _Found(verdict.explanation.headline if verdict.explanation is not None else verdict.text)

    def violation(self, found: _Found) -> Violation:
        lab = self.lab
        told = [
            f"Workers {', '.join(WORKERS)}, each a process, open a handle on an empty store at once, and begin:",
            "",
        ]
        steps = [Step(entry.operation, entry.outcome) for entry in self.recording.entries]
        for step in steps:
            mark = "   <- this" if step.outcome is found.outcome else ""
            told.append(told_text(step, lab.salt, mark=mark))
        if found.outcome is None:
            told.append(f"  {found.message}")
        told += ["", "One worker alone does the same on an empty store without an error."]
        return Violation(
            ("CON-1",),
            f"when several workers are the first to use the store, {found.message}",
            tuple(steps),
            detail=found.detail,
            salt=lab.salt,
            test=lab.test,
            story="\n".join(told) + "\n",
            race={"test": the_stores_first_use_by_several_at_once.__name__, "fault": "whole"},
        )


@checks("CON-1", program=True, when=_alone)
def the_stores_first_use_by_several_at_once(
    session: Session, profile: Profile, seed: int, search: Search
) -> None:
    """Several handles are opened at once on a store that nobody has used. Nobody is held while they are."""
    del seed
    with empty_store(session) as subject:
        if _FirstUse(session, subject).at_once(WORKERS[:1]) is not None:
            # It is not the company that it cannot bear: something in this process was made for the first store only.
            session.remarks[
                "a second store could not be used in one process; its first use was not tried"
            ] += 1
            return
    rounds = ROUNDS[profile.name] // (10 if "postgres" in session.subject.needs else 1)
    processes = isinstance(session.subject.harness, ProgramHarness)
    for _ in range(rounds):
        search.result.examples += 1
        found = _round(session)
        if found is None:
            continue
        search.result.exact = False
        hung = any(
            step.outcome.kind is Kind.HANG for step in found.steps
        )  # a wait that nobody ends is no chance
        if not hung and not _comes_back(session):
            session.remarks["what was seen at the store's first use came back too seldom to be judged"] += 1
        elif processes:
            search.result.violation = found
        else:
            search.result.violation = _between_processes(session, rounds)
        return


def _round(session: Session, *, processes: bool = False) -> Violation | None:
    """The store's first use by all workers, once."""
    with empty_store(session) as subject:
        first = _FirstUse(session, subject, processes=processes)
        found = first.at_once(WORKERS) or first.judged()
    return None if found is None else first.violation(found)


def _comes_back(session: Session) -> bool:
    """Whether it goes wrong `AGAIN` times before it goes well as often."""
    wrong = well = 0
    while max(wrong, well) < AGAIN:
        if _round(session) is None:
            well += 1
        else:
            wrong += 1
    return wrong == AGAIN


def _between_processes(session: Session, rounds: int) -> Violation | None:
    """The same with a process for each. What only threads meet may be the harness's, which needs not bear them."""
    for _ in range(max(rounds, ROUNDS["quick"])):
        found = _round(session, processes=True)
        if found is not None:
            return found
    session.remarks["what threads met at the store's first use did not show between processes"] += 1
    return None
