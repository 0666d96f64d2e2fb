"""Calls that are ended from outside: cancelled in the async form, interrupted in the sync one (ATM-5)."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import FrameType
from typing import Any

from continuum_conformance.model import Kind, Operation, Outcome
from continuum_conformance.suite.faults.running import Example, Fault, litter, scenarios, spread
from continuum_conformance.suite.lab import Lab, Session
from continuum_conformance.suite.races.levels import level_of, own_files
from continuum_conformance.suite.situations import each
from continuum_conformance.suite.testing import Profile, Search, checks
from continuum_conformance.suite.violation import Violation

__all__ = ["run_cancelled", "run_interrupted"]

WORKER = "A"

WAITS = {"quick": 2, "standard": 12, "thorough": 10_000}
"""At how many of an operation's waits it is cancelled, at most."""

ENTRIES = {"quick": 2, "standard": 8, "thorough": 10_000}
"""At how many of the functions that an operation enters it is interrupted, at most."""


def _is_sync(session: Session) -> str:
    """Why nothing can be cancelled."""
    session.handle(WORKER)
    return "" if session.subject.is_async else "it is about journals in the async form"


def _is_async(session: Session) -> str:
    """Why nothing can be interrupted."""
    session.handle(WORKER)
    return "it is about journals in the sync form" if session.subject.is_async else session.subject.reach.code


def run_cancelled(session: Session, fault: Fault) -> tuple[Violation | None, int]:
    """Cancel a call once; gives what is wrong, and how often the call gave way to its loop, uncancelled."""
    example = Example(session, fault)
    handle = session.handle(WORKER)
    waits, struck, raised = 0, False, False

    def cancelled() -> Outcome:
        nonlocal waits, struck, raised
        outcome, how = handle.cancelled(example.operation, fault.number)
        waits, struck, raised = how.waits, how.struck, how.raised
        return outcome  # type: ignore[no-any-return]

    outcome = example.strike(cancelled)
    if not struck:
        return example.judged("ATM-5", "ATM-1"), waits
    if outcome.kind is Kind.HANG:
        return replace(example.violation("the cancelled call did not end", "ATM-5"), hang=True), 0
    if not raised:
        came = "it returned" if outcome.kind is Kind.VALUE else f"it raised {outcome.error}"
        return example.violation(f"the CancelledError was swallowed: {came}", "ATM-5"), 0
    return _works_on(session, example), 0


def _works_on(session: Session, example: Example) -> Violation | None:
    """Whether the handle goes on working after a call on it was ended, and what the call did is whole."""
    for again in example.next_calls(WORKER):
        if again.kind is not Kind.VALUE:
            how = (
                f"failed with {again.error}: {again.message}"
                if again.kind is not Kind.HANG
                else "did not come back"
            )
            found = example.violation(f"the next call on the handle {how}", "ATM-5", "ATM-3")
            return replace(found, hang=again.kind is Kind.HANG)
    found_later = example.judged("ATM-5", "ATM-1")
    if found_later is None and session.subject.dsn is not None and "postgres" in session.subject.needs:
        left = litter(session)
        if left:
            return example.violation(f"the server was left with {left}", "ATM-5", "ATM-3")
    return found_later


@checks("ATM-5", program=True, when=_is_sync)
def a_cancelled_call_is_whole_or_not_at_all(
    session: Session, profile: Profile, seed: int, search: Search
) -> None:
    """Every operation, cancelled wherever it gives way to the event loop."""
    del seed
    tried = 0
    for scenario in scenarios(session.capabilities, WORKER):
        found, waits = run_cancelled(session, Fault(scenario, "cancelled", 0))
        for number in spread(waits, WAITS[profile.name]) if waits else ():
            if found is None:
                tried += 1
                search.result.examples += 1
                session.faults["calls cancelled"] += 1
                found, _ = run_cancelled(session, Fault(scenario, "cancelled", number))
        if found is not None:
            search.result.violation = found
            return
    if not tried:
        search.result.skipped = "none of its calls ever gives way to the event loop, so none can be cancelled"


@checks("ATM-5", "ATM-2", cases=each(what=("append", "load"), number=(1, 2, 3)), when=_is_sync, whole=True)
def a_call_beside_a_cancelled_one_ends_as_if_alone(lab: Lab, what: str, number: int) -> None:
    """Two calls are made at once through one handle, and the first is cancelled while it waits."""
    # What waits binds a harness's locks to its loop, so it must be the one on which its races will run.
    level_of(lab.session)
    run, other = lab.started(events=1), lab.started(events=1)
    event = {"event": {"type": "beside"}, "lease_token": None}
    mine, beside = (
        Operation(
            what, {"instance": lab.instance, "run_id": run_id, **(event if what == "append" else {})}, "A"
        )
        for run_id in (run.run_id, other.run_id if what == "append" else run.run_id)
    )
    outcome, how = lab.session.handle(WORKER).cancelled(mine, number, beside)
    if not how.struck:
        return
    lab.session.faults["calls cancelled"] += 1
    lab.carried_out(mine, outcome)
    if outcome.kind is Kind.HANG:
        lab.hangs(f"one {what} was cancelled, and it or the one beside it did not come back")
    if isinstance(how.beside, BaseException):
        gone = Outcome(
            Kind.ERROR, error=type(how.beside).__name__, message="nobody had cancelled it", unknown=True
        )
        lab.carried_out(beside, gone)
        lab.fail(f"{what} raised {gone.error}: the one beside it was cancelled, and it was not")
    lab.carried_out(beside, how.beside)
    if how.beside.error == "JournalUnavailable":
        return
    if how.beside.kind is not Kind.VALUE:
        lab.fail(f"{what} raised {how.beside.error}, when the one beside it was cancelled")
    seen = lab.ask("load", run_id=other.run_id if what == "append" else run.run_id, on="B")
    if seen.kind is Kind.VALUE and len(seen.value) != (2 if what == "append" else 1):
        lab.fail(f"{what} was answered, and the one beside it cancelled; {len(seen.value)} events are there")


class _Interrupt:
    """Raises ``KeyboardInterrupt`` where a function of the adapter's is entered, in the thread that runs it.

    There Python looks for signals. Between two lines of one function it mostly does not: an exception that came
    before the end of a ``with`` would leave a lock held, which Ctrl-C never does.
    """

    def __init__(self, entry: int, files: frozenset[str]) -> None:
        self._entry_to_raise, self._files = entry, files
        self.seen = 0

    def call(self, frame: FrameType, event: str, argument: Any) -> None:  # noqa: ARG002
        if frame.f_code.co_filename in self._files:
            self.seen += 1
            if self.seen == self._entry_to_raise:
                raise KeyboardInterrupt


def run_interrupted(session: Session, fault: Fault) -> tuple[Violation | None, int]:
    """Interrupt a call once; gives what is wrong, and how many functions the call entered, uninterrupted."""
    example = Example(session, fault)
    handle = session.handle(WORKER)
    trace = _Interrupt(fault.number, frozenset(own_files(handle.journal, session.subject.harness)))

    def interrupted() -> Outcome:
        def act() -> Outcome:
            before = sys.gettrace()
            sys.settrace(trace.call)
            try:
                return handle.direct(example.operation)  # type: ignore[no-any-return]
            finally:
                sys.settrace(before)

        outcome: Outcome = handle.inside(act)
        if fault.number and trace.seen >= fault.number and outcome.error == "KeyboardInterrupt":
            return Outcome(Kind.ERROR, error="JournalUnavailable", message="it was interrupted", unknown=True)
        return outcome

    outcome = example.strike(interrupted)
    if not fault.number:
        return example.judged("ATM-5s"), trace.seen
    if outcome.kind is Kind.RAW:
        return None, 0  # what it makes of an interrupt is its own affair
    found = _works_on(session, example)
    return (replace(found, clauses=("ATM-5s",)) if found is not None else None), 0


@checks("ATM-5s", program=True, when=_is_async)
def an_interrupted_call_is_whole_or_not_at_all(
    session: Session, profile: Profile, seed: int, search: Search
) -> None:
    """Every operation, interrupted where it enters functions of the adapter's."""
    del seed
    for scenario in scenarios(session.capabilities, WORKER, reads=False):
        if scenario.situation.name not in ("leased", "unleased", "absent"):
            continue
        found, entries = run_interrupted(session, Fault(scenario, "interrupted", 0))
        for number in spread(entries, ENTRIES[profile.name]) if entries else ():
            if found is None:
                search.result.examples += 1
                session.faults["calls interrupted"] += 1
                found, _ = run_interrupted(session, Fault(scenario, "interrupted", number))
        if found is not None:
            search.result.violation = found
            session.renew_handles()
            return
