"""The faults as tests of the suite: connections cut, clients and servers killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from continuum_conformance.contract.records import RunState
from continuum_conformance.harness.subject import PROBE
from continuum_conformance.suite.faults.running import (
    CUT,
    TRIES,
    Fault,
    run_cut,
    run_death,
    scenarios,
    spread,
    wired,
)
from continuum_conformance.suite.lab import HOUR, SECOND_PROCESS, Lab, RunUnderTest, Session
from continuum_conformance.suite.situations import each
from continuum_conformance.suite.testing import Profile, Search, Untried, checks

__all__: list[str] = []


def _wire(session: Session) -> str:
    """Why no connection of this adapter can be cut."""
    if session.subject.dsn is not None:
        return ""
    if session.subject.reach.code:
        return "a program's connections can be cut only where it uses the kit's PostgreSQL"
    if "postgres" in session.subject.needs or not _connects(session):
        return "it has no connection that the kit could cut: none to its PostgreSQL, and none made by Python's sockets"
    return ""


def _connects(session: Session) -> bool:
    """Whether a handle connects to something through Python's sockets."""
    if session.connects is None:
        with wired(session) as wire:
            with wire.acting():
                session.handle(CUT).call(PROBE)
            session.connects = not wire.blind
    return session.connects


@checks("ATM-1", "ATM-4", "ATM-3", "ATM-2", program=True, when=_wire)
def an_operation_whose_connection_dies_is_whole_or_not_at_all(
    session: Session, profile: Profile, seed: int, search: Search
) -> None:
    """Every operation, cut at every message: before it, after it, and in the middle of the reply."""
    del seed
    with wired(session) as wire:
        for scenario in scenarios(session.capabilities, CUT, reads=profile.name != "quick"):
            found, messages = run_cut(session, wire, Fault(scenario, "before", 0))
            if wire.blind:
                search.result.skipped = "a handle's connections do not follow the DSN that it is opened with"
                return
            numbers = range(1, messages + 1)
            for number in numbers if profile.name != "quick" else list(numbers)[-1:]:
                for when in ("before", "after", "mid-reply"):
                    if found is None:
                        search.result.examples += 1
                        session.faults["connections cut"] += 1
                        found, _ = run_cut(session, wire, Fault(scenario, when, number))
            if found is not None:
                search.result.violation = found
                return


# -- killed clients --

WRITES: dict[str, Callable[[RunUnderTest, str], Any]] = {
    "append": lambda run, on: run.append({"type": "last"}, run.token, on=on),
    "start_run": lambda run, on: run.lab.run(run.run_id, run.lab.fresh_instance()).start("last", on=on),
    "complete": lambda run, on: run.complete({"last": True}, run.token, on=on),
    "suspend": lambda run, on: run.suspend(run.token, on=on),
    "acquire": lambda run, on: run.acquire("alice", on=on),
    "renew": lambda run, on: run.renew(on=on),
    "release": lambda run, on: run.release(on=on),
    "take_snapshot": lambda run, on: run.snapshot(0, {0: "last"}, on=on),
}
LEASED = ("renew", "release")


def _writes(capabilities: frozenset[str]) -> tuple[str, ...]:
    missing: set[str] = set()
    if "leases" not in capabilities:
        missing |= {"acquire", *LEASED}
    if "snapshots" not in capabilities:
        missing.add("take_snapshot")
    return tuple(name for name in WRITES if name not in missing)


def _run_for(lab: Lab, last: str) -> RunUnderTest:
    lease = "live" if last in LEASED else None
    return lab.started(events=2, lease=lease)


@checks("DUR-2", cases=each(last=_writes), whole=True)
def what_was_acknowledged_outlives_its_client(lab: Lab, last: str) -> None:
    """A process is killed as soon as its last operation was acknowledged."""
    run = _run_for(lab, last)
    with lab.arranging():
        run.append({"type": "warm"}, run.token, on=SECOND_PROCESS)
    WRITES[last](run, SECOND_PROCESS)
    lab.session.kill()
    lab.struck("clients killed", "worker P is killed (SIGKILL)")
    lab.look_everywhere()
    for key in lab.world:
        lab.look(key, on=SECOND_PROCESS)


@checks("DUR-5", needs="leases", whole=True)
def leases_and_tokens_outlive_their_client(lab: Lab) -> None:
    with lab.arranging():
        live, lapsed, released, renewed = (lab.started(events=1) for _ in range(4))
    live.acquire("alice", on=SECOND_PROCESS)
    lapsed.acquire("alice", ttl=0, on=SECOND_PROCESS)
    released.acquire("alice", on=SECOND_PROCESS)
    released.release(on=SECOND_PROCESS)
    renewed.acquire("alice", ttl=0, on=SECOND_PROCESS)
    renewed.renew(ttl=HOUR, on=SECOND_PROCESS)
    stale = lapsed.token
    lab.session.kill()
    lab.struck("clients killed", "worker P is killed (SIGKILL)")
    live.acquire("bob")
    live.append(token=None)
    live.append(token=live.token)
    lapsed.acquire("bob")
    lapsed.append(token=stale)
    released.acquire("bob")
    renewed.acquire("bob")
    for run in (live, lapsed, released, renewed):
        run.look()


def _embedded(session: Session) -> str:
    """Why an adapter's process cannot be killed between two lines of its code."""
    if "postgres" not in session.subject.needs and "crash_safe" not in session.capabilities:
        return "a killed client takes an embedded store with it, and `crash_safe` is not declared"
    return ""


POINTS = {"quick": (2, 1), "standard": (6, 2), "thorough": (10_000, 10_000)}
"""After how many changes of its files an operation is killed, at most, and before how many of its lines."""


@checks("DUR-4", "ATM-1", program=True, needs="durable", when=_embedded)
def an_operation_whose_process_dies_is_whole_or_not_at_all(
    session: Session, profile: Profile, seed: int, search: Search
) -> None:
    """The process is killed within an operation, between two lines of it: after changes of its files, and elsewhere.

    Of a program, whose lines are not seen, between two messages to its server, or some time after it began.
    """
    del seed
    thorough = profile.name == "thorough"
    # What happens at each message to a server is tried by cutting connections; here it would only take long.
    few = "postgres" in session.subject.needs
    for scenario in scenarios(session.capabilities, SECOND_PROCESS, reads=False):
        if not thorough and scenario.situation.name not in ("leased", "unleased", "absent"):
            continue
        grain = session.handle(SECOND_PROCESS).grain
        fault = Fault(scenario, grain, 0)
        if not thorough and few and fault.act.op not in ("append", "start_run", "complete", "acquire"):
            continue
        found, lines, changes = run_death(session, fault)
        most_changes, most_lines = POINTS[profile.name]
        points = [("change", number) for number in spread(changes, most_changes)]
        for when, number in [*points, *((grain, number) for number in spread(lines, most_lines))]:
            if found is None:
                search.result.examples += 1
                session.faults["clients killed within an operation"] += 1
                found, _, _ = run_death(session, Fault(scenario, when, number))
        if found is not None:
            search.result.violation = found
            return


# -- killed servers --


NOT_OURS = Untried(
    "the server is not the kit's own, so the kit does not kill it: let the kit start one,"
    " or withdraw the capability for this run (--without crash_safe)"
)
NO_HOOKS = Untried(
    "the store has a server of its own, which the kit cannot kill: give the harness kill_server() and"
    " start_server(), or withdraw the capability for this run (--without crash_safe)"
)


def _server(session: Session) -> str:
    """Why the adapter's server cannot be killed; an embedded store's is its client."""
    server = session.subject.server
    if server is not None:
        return "" if server.may_kill else NOT_OURS
    if "postgres" in session.subject.needs:
        return NOT_OURS
    return NO_HOOKS if session.has_server() else ""


def _only_server(session: Session) -> str:
    """Why there is no server to be restarted."""
    return _server(session) or ("" if session.subject.server is not None else "the store is embedded")


def _restart(lab: Lab) -> None:
    server = lab.session.subject.server
    server.kill()
    lab.struck("servers killed", "the server is killed (SIGKILL) and started again")
    server.start()
    server.restarts += 1
    lab.session.server_restarted()


@checks("DUR-3", needs="durable", cases=each(last=_writes), when=_server, whole=True)
def what_was_acknowledged_outlives_the_server(lab: Lab, last: str) -> None:
    """The server is killed as soon as the last operation was acknowledged; an embedded store's server is its client."""
    run = _run_for(lab, last)
    session = lab.session
    server = session.subject.server
    if server is None:
        with lab.arranging():
            run.append({"type": "warm"}, run.token, on=SECOND_PROCESS)
        WRITES[last](run, SECOND_PROCESS)
        session.kill()
        lab.struck("clients killed", "worker P is killed (SIGKILL)")
    else:
        WRITES[last](run, "A")
        _restart(lab)
        session.renew_handles()
    lab.look_everywhere()
    if "leases" in lab.capabilities and run.model.state is not RunState.COMPLETED and run.model.lease is None:
        run.acquire("bob")


@checks("ATM-3s", when=_only_server, whole=True)
def a_handle_works_again_after_a_restart(lab: Lab) -> None:
    run = lab.started(events=1)
    run.append(on="A")
    _restart(lab)
    failed = 0
    try:
        while lab.ask("get_run", on="A", run_id=run.run_id).error is not None:
            failed += 1
            if failed == TRIES:
                lab.fail(f"{TRIES} calls in a row failed on a handle after the server was restarted", "ATM-3")
    finally:
        lab.session.renew_handles()  # the others have not had their failure yet
    if failed > 1:
        lab.advice["ATM-3s"] = f"{failed} calls failed on a handle after the server was restarted"
