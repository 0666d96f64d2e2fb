"""A server whose connections are all in use: whoever wants a new one is refused, or waits, and nothing is lost."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from continuum_conformance.history import History, judge
from continuum_conformance.model import Kind, Operation
from continuum_conformance.suite.faults.exhausting import PATIENCE, THREADS, crowd
from continuum_conformance.suite.faults.running import (
    CUT,
    TRIES,
    Example,
    Fault,
    cutting,
    lenient,
    litter,
    scenarios,
    works_again,
)
from continuum_conformance.suite.faults.waiting import LONG, Call, no_postgres
from continuum_conformance.suite.lab import Lab, Session
from continuum_conformance.suite.races.running import Recording
from continuum_conformance.suite.testing import Profile, Search, checks
from continuum_conformance.suite.violation import Step, Violation

if TYPE_CHECKING:
    from continuum_conformance.postgres.gate import Gate

__all__ = ["run_full"]

TURNED_AWAY = 3
"""Connections that are refused for one operation; who tries again until there is room gets the next one."""

QUICK = (("append", "leased"), ("start_run", "absent"))
"""What is tried in the quick profile: operations, and the situations that they meet."""

REFUSED = "operations that found the server full"


def run_full(session: Session, fault: Fault) -> Violation | None:
    """Take an operation's connection, and refuse it another for a while; gives what is wrong."""
    with cutting(session) as gate:
        return _full(session, gate, fault)


def _full(session: Session, gate: Gate, fault: Fault) -> Violation | None:
    example = Example(session, fault)
    handle = session.handle(CUT)
    if example.read(CUT).kind is not Kind.VALUE:
        return example.violation("a new handle could not read", "ATM-3")
    gate.no_room(CUT, TURNED_AWAY)
    gate.drop(CUT)
    call = Call(lambda: example.strike(lambda: lenient(handle.call(example.operation, limit=LONG))))
    call.join(PATIENCE)
    gate.no_room(CUT, 0)
    if call.result().kind is Kind.HANG:
        return example.violation("it did not come back", "ATM-3")
    run = example.arranged.run
    read = Operation("get_run", {"instance": run.instance, "run_id": run.run_id}, CUT)
    if not works_again(session, CUT, read):
        return example.violation(f"with room again, {TRIES} calls in a row failed on the handle", "ATM-3")
    found = example.judged("ATM-1")
    left = litter(session) if found is None else ""
    return example.violation(f"the server was left with {left}", "ATM-3") if left else found


@checks("ATM-1", "ATM-3", program=True, when=no_postgres)
def a_full_server_loses_nothing(session: Session, profile: Profile, seed: int, search: Search) -> None:
    """The server takes no more connections: for one operation after the other, then for twenty threads on a handle."""
    del seed
    with cutting(session) as gate:
        for scenario in scenarios(session.capabilities, CUT, reads=False):
            fault = Fault(scenario, "full", 1)
            if profile.name == "quick" and (fault.act.op, scenario.situation.name) not in QUICK:
                continue
            search.result.examples += 1
            session.faults[REFUSED] += 1
            found = _full(session, gate, fault)
            if gate.sees_no_connection(CUT):
                search.result.skipped = "a handle's connections do not follow the DSN that it is opened with"
                return
            if found is not None:
                search.result.violation = found
                return
        search.result.examples += 1
        search.result.violation = _crowd(session, gate)


def _crowd(session: Session, gate: Gate) -> Violation | None:
    """Twenty threads start runs of their own on a handle whose connections are lost, and which gets no others."""
    lab = Lab(session, (), "full server")
    before, recording = lab.world, Recording()
    handle = session.handle(CUT)
    runs = [lab.run() for _ in range(THREADS)]
    programs = []
    for number, run in enumerate(runs):
        key, worker = {"instance": run.instance, "run_id": run.run_id}, f"W{number + 1}"
        start = Operation("start_run", {**key, "workflow": "crowd", "input": None}, worker)
        append = Operation("append", {**key, "event": {"type": "step"}, "lease_token": None}, worker)
        programs.append([start, append])

    def violation(message: str, clause: str, *, hang: bool = False) -> Violation:
        told = f"with {THREADS} threads on one handle and a server that takes no more connections, {message}"
        return Violation(
            (clause,),
            told,
            tuple(Step(e.operation, e.outcome) for e in recording.entries),
            hang=hang,
            salt=lab.salt,
            test=lab.test,
            story=f"{told}\n",
            race={"test": "a_full_server_loses_nothing", "fault": "whole"},
        )

    gate.no_room(CUT, TURNED_AWAY * THREADS)
    gate.drop(CUT)
    room = threading.Timer(PATIENCE, gate.no_room, (CUT, 0))
    room.daemon = True
    room.start()
    try:
        ended = crowd(handle, programs, recording, lenient)
    finally:
        room.cancel()
        gate.no_room(CUT, 0)
    session.faults[REFUSED] += sum(e.outcome.kind is Kind.ERROR for e in recording.entries)
    if not ended:
        return violation("some calls did not come back", "ATM-3", hang=True)
    read = Operation("get_run", {"instance": lab.instance, "run_id": runs[0].run_id}, CUT)
    if not works_again(session, CUT, read):
        return violation(f"with room again {TRIES} calls in a row failed", "ATM-3")
    for run in runs:
        key = {"instance": run.instance, "run_id": run.run_id}
        for worker in (CUT, "A"):
            asked = Operation("load", key, worker)
            recording.carry_out(asked, session.handle(worker).call)
    # What said that it did not happen must not be seen.
    entries = [e for e in recording.entries if e.outcome.error != "JournalUnavailable" or e.unknown]
    verdict = judge(History.of(entries), session.specification, before)
    if not verdict.failed:
        return None
    why = verdict.explanation.headline if verdict.explanation is not None else verdict.text
    return violation(f"something was lost, or done in part: {why}", "ATM-1")
