"""One operation under one fault, and what everybody sees of it afterwards.

A fault's point is exact: a message on the wire that does not arrive, or a line of the adapter's code before which
its process is killed. What followed is judged as a history in which the operation has an unknown outcome, unless
it said that it failed: then no read may show it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

from continuum_conformance.contract.records import Lease
from continuum_conformance.faults.sockets import Sockets
from continuum_conformance.harness import HarnessError
from continuum_conformance.history import History, Interleaving, Recorded, judge
from continuum_conformance.model import Kind, Operation, Outcome
from continuum_conformance.postgres.databases import connect
from continuum_conformance.postgres.gate import Cut, Gate
from continuum_conformance.postgres.tape import Sent
from continuum_conformance.suite.lab import SECOND_PROCESS, Lab, Session
from continuum_conformance.suite.races.levels import own_files
from continuum_conformance.suite.races.picture import calls_of, statements
from continuum_conformance.suite.races.running import Arranged, Recording, probe
from continuum_conformance.suite.races.scenarios import SITUATIONS, Act, Scenario, acts
from continuum_conformance.suite.script import told_text
from continuum_conformance.suite.violation import Step, Violation

__all__ = [
    "CUT",
    "TRIES",
    "Example",
    "Fault",
    "Wire",
    "cutting",
    "lenient",
    "litter",
    "run_cut",
    "run_death",
    "scenarios",
    "spread",
    "wired",
    "works_again",
]

CUT = "F"
"""The worker whose connection is cut."""

LITTER_SECONDS = 5.0
"""How long the server may take to notice that a client has gone."""

READS = ("load", "load_with_snapshot", "get_run")


@dataclass(frozen=True)
class Fault:
    """An operation, the situation that it meets, and where it is struck.

    Attributes:
        scenario: the situation and the operation, its worker's only one.
        when: ``before``, ``after`` or ``mid-reply`` of a message; for a killed process ``line``, or ``change`` of
            its files, and where its code is not seen ``message`` or ``moment``; ``timeout`` of its statements; ``cancelled`` where a coroutine gives way; ``interrupted`` where a function
            is entered; ``full`` where a new connection is refused; ``primary``, ``primary-held`` or ``primary-lagging`` for a primary that is lost to a standby when
            the operation was acknowledged, when a message of it is under way, or when the standby has not heard of it.
        number: which message, line, change, wait or entry, from 1; 0 strikes nothing.
    """

    scenario: Scenario
    when: str
    number: int

    @property
    def act(self) -> Act:
        """The operation."""
        ((act,),) = self.scenario.workers.values()
        return act

    def __str__(self) -> str:
        where = {
            "before": f"its connection lost before message {self.number} reached the server",
            "after": f"its connection lost after the server had message {self.number}, before the reply",
            "mid-reply": f"its connection lost in the middle of the reply to message {self.number}",
            "timeout": "while another session has locked the run's rows, until the server's statement_timeout",
            "cancelled": f"cancelled where it gives way for the {_nth(self.number)} time",
            "interrupted": f"interrupted (KeyboardInterrupt) on entry to the {_nth(self.number)} function of the adapter's code",
            "line": f"its process killed before line {self.number} of what the adapter runs for it",
            "full": "its connection lost, and the server full (too many clients already) when it wants another",
            "primary": "and the primary killed as soon as it was acknowledged, and its standby promoted",
            "primary-held": f"the primary killed with message {self.number} on the way to it, and its standby promoted",
            "primary-lagging": "the primary killed before its standby had heard of it, and that promoted",
            "change": f"its process killed after change {self.number} of the store's files",
            "message": f"its process killed before its message {self.number} reached the server",
            "moment": f"its process killed within it (moment {self.number} of 20)",
        }
        return f"{self.act}, {where[self.when]}"

    def as_data(self) -> dict[str, Any]:
        """For a replay file."""
        return {**self.scenario.as_data(), "fault": self.when, "number": self.number}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Fault:
        """The fault that `as_data` wrote. Raises ``ValueError`` for anything else."""
        try:
            fault = cls(Scenario.from_data(data), str(data["fault"]), int(data["number"]))
            str(fault)
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed fault: {error!r}") from error
        return fault


def _nth(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 not in (11, 12, 13) else 0, "th")
    return f"{number}{ending}"


def scenarios(capabilities: frozenset[str], worker: str, *, reads: bool = True) -> Iterator[Scenario]:
    """Every operation that has an effect, or reads, from each situation in which it succeeds."""
    for situation in SITUATIONS.values():
        if (situation.lease and "leases" not in capabilities) or (
            situation.snapshot and "snapshots" not in capabilities
        ):
            continue
        right = "current" if situation.lease else "none"
        for act in acts(capabilities, situation):
            if act.token not in ("-", right) or act.ttl == 0 or not _succeeds(act, situation.name):
                continue
            if act.op in READS and (not reads or situation.name != "leased"):
                continue
            yield Scenario(f"{act}, {situation.name}", situation, {worker: (act,)})


def _succeeds(act: Act, situation: str) -> bool:
    if situation == "absent":
        return act.op == "start_run"
    if situation == "terminal" or act.op in ("start_run", "take_other_snapshot"):
        return False
    if situation == "leased":
        return act.op != "acquire"
    if situation == "expired":
        return act.op == "acquire"
    if situation == "suspended":
        return act.op in ("append", "complete")
    if situation == "with snapshot":
        return act.op in ("take_snapshot", "append")
    return True


def spread(count: int, most: int) -> list[int]:
    """Numbers from 1 to ``count``, evenly spread, with the first and the last; at most so many."""
    most = min(count, most)
    return sorted({1 + (count - 1) * place // max(1, most - 1) for place in range(most)})


def lenient(outcome: Outcome) -> Outcome:
    """What came, with an error of the system's own, or one that is no answer, as one of unknown outcome."""
    if outcome.kind is Kind.RAW or outcome.error in ("NotDurable", "InvalidArgument"):
        return Outcome(Kind.ERROR, error="JournalUnavailable", message=outcome.message, unknown=True)
    return outcome


TRIES = 30
"""Calls after which a handle is taken not to recover."""


def works_again(session: Session, worker: str, read: Operation, limit: float | None = None) -> bool:
    """Whether a handle works again, after so many calls at most."""
    return any(session.handle(worker).call(read, limit=limit).kind is Kind.VALUE for _ in range(TRIES))


class Example:
    """One example of a fault: its lab, what was recorded, and how it is judged."""

    def __init__(self, session: Session, fault: Fault) -> None:
        self.session, self.fault = session, fault
        self.lab = Lab(session, (), f"fault: {fault}")
        self.arranged = Arranged(self.lab, fault.scenario)
        self.before = self.lab.world
        self.arranging = len(self.lab.steps)
        self.recording = Recording()
        self.struck: Recorded | None = None
        self.excused: list[Recorded] = []
        """What failed for the fault's sake and says so: nothing of it may be seen."""
        self.probes_from = 0
        self.tape: list[Sent] = []
        """What the operation sent to a server."""
        (worker,) = fault.scenario.workers
        operation = self.arranged.operation(fault.act, worker, None)
        if operation is None:
            raise LookupError(f"{fault.act} cannot be made in this situation")
        self.operation = operation

    def strike(self, outcome: Callable[[], Outcome]) -> Outcome:
        """Carry out the operation that is struck."""
        found = self.recording.carry_out(self.operation, lambda _: outcome())
        self.struck = self.recording.entries[-1]
        if found.error == "JournalUnavailable" and not found.unknown:
            self.excused.append(self.struck)
        return found

    def read(self, worker: str) -> Outcome:
        """The run, as a worker sees it."""
        asked = Operation(
            "get_run", {"instance": self.lab.instance, "run_id": self.arranged.run.run_id}, worker
        )
        return self.recording.carry_out(asked, self.session.handle(worker).call)

    def next_calls(self, worker: str) -> Iterator[Outcome]:
        """A worker reads the run, starts another one and appends to that."""
        yield self.read(worker)
        given = {"instance": self.lab.instance, "run_id": self.lab.fresh_run_id()}
        for asked in (
            Operation("start_run", {**given, "workflow": "another", "input": None}, worker),
            Operation("append", {**given, "event": {"type": "step"}, "lease_token": None}, worker),
        ):
            yield self.recording.carry_out(asked, self.session.handle(worker).call)

    def judged(self, *clauses: str, goes_on: bool = False) -> Violation | None:
        """Look at all there is, and judge it.

        Args:
            clauses: what is broken when it has no explanation.
            goes_on: append an event as well, where the fault is over.
        """
        self.probes_from = next(self.recording.clock)
        probe(self.lab, self.arranged, self.recording)
        if goes_on:
            self._go_on()
        entries = self.recording.entries
        history = History.of(e for e in entries if not any(e is other for other in self.excused))
        verdict = judge(history, self.session.specification, self.before)
        if not verdict.failed:
            return None
        why = verdict.explanation
        message = why.headline if why is not None else verdict.text
        return self.violation(
            message, *clauses, why=verdict.text, deciding=why.decisive if why is not None else None
        )

    def _go_on(self) -> None:
        """The next event, by who has the run now: what the fault left half done may show only in where that one goes."""
        lease = self.recording.entries[-2].outcome.value  # what the probe acquired, before its last look
        model = self.before.get(self.arranged.run.key)
        held = lease if isinstance(lease, Lease) else model.lease if model is not None else None
        given = {"instance": self.lab.instance, "run_id": self.arranged.run.run_id}
        event = {"event": {"type": "next"}, "lease_token": held.token if held is not None else None}
        for asked in (Operation("append", {**given, **event}, "A"), Operation("load", given, "A")):
            self.recording.carry_out(asked, self.session.handle("A").call)

    def violation(
        self, message: str, *clauses: str, why: str = "", deciding: Recorded | None = None
    ) -> Violation:
        """What was found, with its story and what a replay needs."""
        lab = self.lab
        entries = self.recording.entries
        steps = tuple(lab.steps[: self.arranging]) + tuple(Step(e.operation, e.outcome) for e in entries)
        told = [f"starting from the situation '{self.fault.scenario.situation.name}':", ""]
        for entry in entries:
            mark = f"   <- {self.fault}" if entry is self.struck else ""
            told.append(told_text(Step(entry.operation, entry.outcome), lab.salt, mark=mark))
        if why:
            told += ["", *why.replace(f"-{lab.salt}", "").splitlines()]
        raw = next((e.outcome.detail for e in entries if e.outcome.kind in (Kind.RAW, Kind.HANG)), "")
        return Violation(
            clauses,
            f"{self.fault}: {message}",
            steps,
            detail=raw,
            salt=lab.salt,
            test=lab.test,
            story="\n".join(told) + "\n",
            race=self.fault.as_data(),
            interleaving=self._drawn(deciding),
        )

    def _drawn(self, deciding: Recorded | None) -> Interleaving:
        calls = calls_of(
            self.recording, self.lab.salt, deciding=deciding, struck=self.struck, after=self.probes_from
        )
        return Interleaving(
            "messages",
            tuple(dict.fromkeys(call.worker for call in calls)),
            f"starting from the situation '{self.fault.scenario.situation.name}': {self.fault}",
            calls,
            tuple(statements(self.tape, self.lab.salt)),
        )


# -- connections --


@contextmanager
def cutting(session: Session) -> Iterator[Gate]:
    """While this lasts, worker ``F`` connects through a gate that can cut its connections."""
    subject = session.subject
    if subject.dsn is None:
        raise LookupError("the adapter has no DSN")
    before, direct = subject.dsn_for, subject.dsn
    gate = Gate(direct)
    subject.dsn_for = lambda worker: (
        gate.dsn_for(worker) if worker == CUT else before(worker) if before is not None else direct
    )
    try:
        session.close(CUT)
        yield gate
    finally:
        session.close(CUT)
        subject.dsn_for = before
        gate.close()


class Wire(Protocol):
    """What stands between worker ``F`` and its store, and can cut its connections."""

    @property
    def blind(self) -> bool:
        """Whether it has seen no connection of the worker's so far."""
        ...

    def acting(self) -> AbstractContextManager[None]:
        """While this lasts, the worker acts, and nobody else."""
        ...

    def arm(self, example: Example) -> None:
        """Strike as the example's fault says, from now on."""
        ...

    def disarm(self) -> bool:
        """Strike no more. Gives whether it has struck."""
        ...

    def messages(self) -> int:
        """How many messages there were from `arm` to `disarm`, once a read has followed."""
        ...

    def litter(self) -> str:
        """What a lost connection has left behind in the store; empty when there is nothing, or nobody can tell."""
        ...


class _AtTheGate:
    """The wire of an adapter over PostgreSQL."""

    def __init__(self, session: Session, gate: Gate) -> None:
        self._session, self._gate = session, gate
        self._cut: Cut | None = None
        self._sent = 0
        self._taping = ExitStack()

    @property
    def blind(self) -> bool:
        return self._gate.sees_no_connection(CUT)

    def acting(self) -> AbstractContextManager[None]:
        return nullcontext()

    def arm(self, example: Example) -> None:
        gate, fault = self._gate, example.fault
        self._sent = gate.groups(CUT, every=True)
        self._cut = gate.cut(CUT, fault.when, fault.number, every=True) if fault.number else None  # type: ignore[arg-type]
        gate.clock = example.recording.clock.__next__
        example.tape = self._taping.enter_context(gate.taped())

    def disarm(self) -> bool:
        self._taping.close()
        self._gate.no_cuts()
        return self._cut is not None and self._cut.fired.is_set()

    def messages(self) -> int:
        return self._gate.groups(CUT, every=True) - self._sent - 1

    def litter(self) -> str:
        return litter(self._session)


class _AtTheSockets:
    """The wire of an adapter over any other store, as far as it connects through Python's sockets."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        self._messages = 0

    @property
    def blind(self) -> bool:
        return not self._sockets.connections

    def acting(self) -> AbstractContextManager[None]:
        return self._sockets.watching()

    def arm(self, example: Example) -> None:
        self._sockets.cut(example.fault.when, example.fault.number)  # type: ignore[arg-type]

    def disarm(self) -> bool:
        self._messages = self._sockets.messages
        self._sockets.no_cut()
        return self._sockets.fired

    def messages(self) -> int:
        return self._messages

    def litter(self) -> str:
        return ""


@contextmanager
def wired(session: Session) -> Iterator[Wire]:
    """While this lasts, worker ``F`` has connections that can be cut."""
    if session.subject.dsn is not None:
        with cutting(session) as gate:
            yield _AtTheGate(session, gate)
        return
    sockets = Sockets()
    session.close(CUT)
    try:
        yield _AtTheSockets(sockets)
    finally:
        session.close(CUT)
        sockets.close()


def run_cut(session: Session, wire: Wire, fault: Fault) -> tuple[Violation | None, int]:
    """Cut a connection once; gives what is wrong, and how many messages the operation had (0 when it was struck)."""
    example = Example(session, fault)
    with wire.acting():
        handle = session.handle(CUT)
        if example.read(CUT).kind is not Kind.VALUE:
            return example.violation("a new handle could not read before anything was cut", "ATM-3"), 0
        wire.arm(example)
        outcome = example.strike(lambda: handle.call(example.operation))
        struck = wire.disarm()
        if outcome.kind is Kind.RAW:
            return example.violation(f"{outcome.error} came out raw: {outcome.message}", "ATM-4", "ATM-2"), 0
        if outcome.kind is Kind.HANG:
            return replace(example.violation("it did not come back", "ATM-3"), hang=True), 0
        again = example.read(CUT)
        if outcome.kind is Kind.VALUE and again.error == "JournalUnavailable":
            # The call had its answer before the connection was lost, so the loss is the next call's to tell.
            example.excused.append(example.recording.entries[-1])
            again = example.read(CUT)
    if again.kind is not Kind.VALUE:
        found: Violation | None = example.violation(
            f"the next call on the handle failed with {again.error}: {again.message}", "ATM-3"
        )
    else:
        found = example.judged(*_clauses(outcome), goes_on=True)
    if found is None and struck:
        left = wire.litter()
        if left:
            found = example.violation(f"the server was left with {left}", "ATM-3")
    return found, 0 if struck else wire.messages()


def _clauses(outcome: Outcome) -> tuple[str, ...]:
    if outcome.error == "JournalUnavailable" and not outcome.unknown:
        return ("ATM-4", "ATM-1")
    return ("ATM-1", "ATM-4")


def litter(session: Session) -> str:
    """Sessions of this database that are idle in a transaction and stay so; empty when there are none."""
    query = (
        "SELECT pid, state, query FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'"
    )
    deadline = time.monotonic() + LITTER_SECONDS
    with connect(str(session.subject.dsn)) as connection:
        while True:
            rows = connection.execute(query).fetchall()
            if not rows or time.monotonic() > deadline:
                break
            time.sleep(0.01)
    return "; ".join(f"a session that is {state}, last with {text!r}" for _, state, text in rows)


# -- processes --


def run_death(session: Session, fault: Fault) -> tuple[Violation | None, int, int]:
    """Kill a process within an operation.

    Returns:
        What is wrong; and if it was not struck, how many lines the operation had, and changes of its directory.
    """
    example = Example(session, fault)
    handle = session.handle("A")
    files = own_files(handle.journal, session.subject.harness)
    child = session.handle(SECOND_PROCESS)
    died, lines, changes = False, 0, 0

    def struck() -> Outcome:
        nonlocal died, lines, changes
        outcome, lines, changes = child.die_in(
            example.operation, files, session.subject.directory, **{fault.when: fault.number}
        )
        died = outcome is None
        gone = Outcome(Kind.ERROR, error="JournalUnavailable", message="its process was killed", unknown=True)
        return gone if outcome is None else outcome

    example.strike(struck)
    if died:
        session.kill()
    try:
        found = example.judged("DUR-4", "ATM-1", goes_on=True)
    except HarnessError as error:
        if not died:
            raise
        found = example.violation(f"what is left cannot be opened: {error}", "DUR-4", "ATM-1")
    return found, lines, changes
