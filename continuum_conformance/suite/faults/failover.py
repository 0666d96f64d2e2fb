"""Failover: the primary is killed, its standby promoted, and the address of both moves there.

With synchronous replication everything that was acknowledged must survive it, and tokens must go on growing. So the
standby is made to lag, by a condition: an operation that is acknowledged then, before the standby has heard of it,
would be lost. What asynchronous replication loses is no fault of an adapter's; `suite.faults.lost` shows it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace

from continuum_conformance.harness import HarnessError
from continuum_conformance.harness.subject import PROBE
from continuum_conformance.history import History, judge
from continuum_conformance.model import Kind, Operation, Outcome
from continuum_conformance.postgres import Pair, PostgresUnavailable, mask
from continuum_conformance.suite.faults.running import (
    CUT,
    TRIES,
    Example,
    Fault,
    lenient,
    scenarios,
    works_again,
)
from continuum_conformance.suite.faults.waiting import LONG, Call
from continuum_conformance.suite.lab import WORKERS, Lab, Session
from continuum_conformance.suite.races.running import Recording
from continuum_conformance.suite.races.scenarios import Scenario
from continuum_conformance.suite.script import told_text
from continuum_conformance.suite.testing import Profile, Search, checks
from continuum_conformance.suite.violation import Step, Violation

__all__ = ["failing_over", "no_failover", "run_failover"]

LEASES = frozenset({"acquire", "renew", "release"})

GLANCE = 0.002
"""Seconds between two looks at what a server does."""


def no_failover(session: Session) -> str:
    """Why failover is not tried."""
    return "" if session.pair is not None else "failover is tried only when it is asked for (--failover)"


@contextmanager
def failing_over(session: Session) -> Iterator[Pair]:
    """While this lasts the adapter's store is a primary with a standby, behind an address that moves.

    Raises `HarnessError` when the servers cannot be had, or the adapter does not use them.
    """
    subject = session.subject
    if session.pair is None:
        raise LookupError("failover was not asked for")
    before, direct = subject.dsn_for, subject.dsn
    session.renew_handles()
    try:
        pair = session.pair()
        subject.dsn_for, subject.dsn = pair.gate.dsn_for, pair.gate.dsn_for("kit")
        pair.replicate(synchronous=True)
        session.handle("A").call(PROBE)
        if pair.gate.sees_no_connection("A"):
            raise HarnessError(
                "failover could not be tried: a handle's connections do not follow the DSN that it is opened with"
            )
        yield pair
    except PostgresUnavailable as error:
        raise HarnessError(f"failover could not be tried: {mask(str(error))}") from error
    finally:
        session.renew_handles()
        subject.dsn_for, subject.dsn, subject.standby_dsn = before, direct, None


@dataclass
class Failover:
    """What came of one.

    Attributes:
        violation: what is wrong.
        waited: whether the operation waited for the standby.
        messages: how many messages it had for the server.
    """

    violation: Violation | None = None
    waited: bool = False
    messages: int = 0


def run_failover(session: Session, pair: Pair, fault: Fault) -> Failover:
    """Lose the primary once. With number 0, only if the operation is acknowledged before the standby has heard of it."""
    example = Example(session, fault)
    handle = session.handle(CUT)
    if example.read(CUT).kind is not Kind.VALUE:
        return Failover(example.violation("a new handle could not read", "ATM-3"))
    for worker in WORKERS:
        session.handle(worker)  # what opening one may write must not wait
    gate, lags = pair.gate, fault.when == "primary-lagging"
    sent = gate.groups(CUT, every=True)
    with pair.lagging() if lags else nullcontext():
        held = gate.hold(CUT, fault.number, every=True) if fault.when == "primary-held" else None
        call = Call(lambda: example.strike(lambda: lenient(handle.call(example.operation, limit=LONG))))
        while not call.ended:
            if (held is not None and held.fired.wait(GLANCE)) or (lags and pair.waits()):
                break
            call.join(GLANCE)
        waited = lags and not call.ended
        killed = bool(fault.number) or not waited
        if killed:
            pair.fail_over()
    outcome = call.result()
    gate.no_cuts()
    messages = gate.groups(CUT, every=True) - sent
    if not killed:
        session.faults["commits seen to wait for the standby"] += 1
        return Failover(None, waited, messages)
    session.faults["primaries killed, and standbys promoted"] += 1
    pair.replicate(synchronous=True)
    return Failover(_after(session, example, outcome), waited, messages)


def _after(session: Session, example: Example, outcome: Outcome) -> Violation | None:
    """What is wrong after a failover."""
    if outcome.kind is Kind.HANG:
        return replace(example.violation("it did not come back", "ATM-3"), hang=True)
    run = example.arranged.run
    read = Operation("get_run", {"instance": run.instance, "run_id": run.run_id}, CUT)
    if not works_again(session, CUT, read, LONG):
        return example.violation(f"{TRIES} calls in a row failed on the handle afterwards", "ATM-3")
    for worker in WORKERS:
        with suppress(HarnessError):  # it may not close cleanly, as its connections are dead
            session.close(worker)
    first = "DUR-5" if example.operation.name in LEASES else "DUR-3"
    return example.judged(*dict.fromkeys((first, "DUR-3")))


KILLS = {
    "quick": (("append", "leased", "primary-lagging"), ("complete", "leased", "primary-held")),
    "standard": tuple(
        (op, situation, when)
        for op, situation in (("append", "leased"), ("complete", "leased"), ("acquire", "expired"))
        for when in ("primary", "primary-held", "primary-lagging")
    ),
}
"""Of which operations, in which situations, the primary is killed where an adapter may well be right; in the thorough
profile of all."""


def _kills(profile: Profile, scenario: Scenario, messages: int) -> Iterator[Fault]:
    """Where the primary is killed, after a first look that found nothing."""
    fault = Fault(scenario, "primary", 1)
    for when in ("primary", "primary-held", "primary-lagging"):
        if profile.thorough and when == "primary-held":
            yield from (replace(fault, when=when, number=number) for number in range(1, messages + 1))
        elif profile.thorough or (fault.act.op, scenario.situation.name, when) in KILLS[profile.name]:
            # The last message is the one that commits.
            yield replace(fault, when=when, number=messages if when == "primary-held" else 1)


@checks("DUR-3", "DUR-5", program=True, needs="durable", when=no_failover)
def what_was_acknowledged_outlives_the_primary(
    session: Session, profile: Profile, seed: int, search: Search
) -> None:
    """Every operation while the standby lags, and the primary killed: before, within and after some of them."""
    del seed
    with failing_over(session) as pair:
        for scenario in scenarios(session.capabilities, CUT, reads=False):
            search.result.examples += 1
            found = run_failover(session, pair, Fault(scenario, "primary-lagging", 0))
            for fault in _kills(profile, scenario, found.messages) if found.violation is None else ():
                search.result.examples += 1
                found = run_failover(session, pair, fault)
                if found.violation is not None:
                    break
            if found.violation is not None:
                search.result.violation = found.violation
                return


def _fail_over(lab: Lab, pair: Pair) -> None:
    """Lose the primary, and go on with handles that have noticed it."""
    pair.fail_over()
    lab.struck(
        "primaries killed, and standbys promoted", "the primary is killed (SIGKILL) and its standby promoted"
    )
    pair.replicate(synchronous=True)
    lab.session.renew_handles()


FAILOVERS = 3


@checks("DUR-5", needs="leases durable", when=no_failover, whole=True)
def leases_and_tokens_outlive_failovers(lab: Lab) -> None:
    """Leases are granted, lapse and are released, and one primary after the other is lost."""
    with failing_over(lab.session) as pair:
        held, lapsed, released = (lab.started(events=1) for _ in range(3))
        for turn in range(FAILOVERS):
            stale = lapsed.token
            if turn == 0:
                held.acquire("alice")
            lapsed.acquire("alice", ttl=0)
            released.acquire("alice")
            released.release()
            _fail_over(lab, pair)
            held.acquire("bob")
            held.append(token=held.token)
            lapsed.append(token=stale)
            lapsed.acquire("bob", ttl=0)
            released.acquire("bob")
            released.release()
            for run in (held, lapsed, released):
                run.look()


@checks("APP-10", when=no_failover, whole=True)
def a_standby_that_lags_shows_nothing_old(lab: Lab) -> None:
    """The standby has everything, and shows it only later, to an adapter that reads there (``harness.standby_dsn``)."""
    with failing_over(lab.session) as pair:
        lab.session.subject.standby_dsn = pair.standby_dsn
        run = lab.started(events=1)
        run.look()
        with pair.replaying_nothing():
            lab.session.faults["reads beside a standby that lags"] += 1
            run.append()
            lab.note("the standby has it, and does not show it yet")
            run.look()
            run.complete({"ok": True})
            run.look()


# -- under load --

LOADED = 4
BEFORE, AFTER = 3, 3
"""Appends that each worker has had acknowledged before the primary is lost, and afterwards."""


@checks("DUR-3", "CON-3", program=True, needs="durable", when=no_failover)
def workers_go_on_after_a_failover(session: Session, profile: Profile, seed: int, search: Search) -> None:
    """Four workers append to one run and to their own while the primary is lost, and go on."""
    del profile, seed
    with failing_over(session) as pair:
        lab = Lab(session, (), "failover under load")
        shared, *own = (lab.started() for _ in range(LOADED + 1))
        before, recording = lab.world, Recording()
        handles = [session.handle(f"L{number + 1}") for number in range(LOADED)]
        moved, stuck = threading.Event(), threading.Event()
        begun = threading.Semaphore(0)

        def append(number: int, turn: int) -> Outcome:
            run = (shared, own[number])[turn % 2]
            event = {"type": "step", "by": number, "turn": turn}
            arguments = {"instance": run.instance, "run_id": run.run_id, "event": event, "lease_token": None}
            asked = Operation("append", arguments, f"L{number + 1}")
            return recording.carry_out(asked, lambda op: lenient(handles[number].call(op, limit=LONG)))

        def work(number: int) -> None:
            turns = itertools.count()
            for turn in turns:
                if append(number, turn).kind is not Kind.VALUE or moved.is_set():
                    break
                if turn == BEFORE:
                    begun.release()
            begun.release()  # should it have failed before
            moved.wait()
            acknowledged = failed = 0
            while acknowledged < AFTER and failed < TRIES:
                if append(number, next(turns)).kind is Kind.VALUE:
                    acknowledged, failed = acknowledged + 1, 0
                else:
                    failed += 1
            if failed:
                stuck.set()

        threads = [threading.Thread(target=work, args=(n,), name="load", daemon=True) for n in range(LOADED)]
        search.result.examples += 1
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                begun.acquire()
            pair.fail_over()
            session.faults["primaries killed, and standbys promoted"] += 1
        finally:
            moved.set()
        for thread in threads:
            thread.join()
        for run in (shared, *own):
            arguments = {"instance": run.instance, "run_id": run.run_id}
            recording.carry_out(Operation("load", arguments, "N"), session.handle("N").call)
        # What said that it did not happen must not be seen.
        entries = [e for e in recording.entries if e.outcome.error != "JournalUnavailable" or e.unknown]
        verdict = judge(History.of(entries), session.specification, before)
    if stuck.is_set() or verdict.failed:
        what = verdict.explanation.headline if verdict.explanation is not None else verdict.text
        message = what if verdict.failed else f"{TRIES} calls in a row failed on a handle afterwards"
        search.result.violation = Violation(
            ("DUR-3", "CON-3") if verdict.failed else ("ATM-3",),
            f"with {LOADED} workers at work when the primary was lost to its standby: {message}",
            (*lab.steps, *(Step(e.operation, e.outcome) for e in recording.entries)),
            salt=lab.salt,
            test=lab.test,
            story=_story(recording, lab, verdict.text if verdict.failed else message),
            race={"test": "workers_go_on_after_a_failover", "fault": "whole"},
        )
        search.result.exact = False


def _story(recording: Recording, lab: Lab, why: str) -> str:
    lines = [f"{LOADED} workers, while the primary is killed (SIGKILL) and its standby promoted:", ""]
    entries = sorted(recording.entries, key=lambda e: e.invoked)
    lines += [told_text(Step(e.operation, e.outcome), lab.salt) for e in entries]
    return "\n".join([*lines, "", *why.replace(f"-{lab.salt}", "").splitlines()]) + "\n"
