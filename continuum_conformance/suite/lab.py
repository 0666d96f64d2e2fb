"""The lab: where a test of the suite carries out operations, and the model judges every one of them.

A test is a scenario. It arranges a situation, acts, and looks; it states no expectations of its own unless the
model cannot. Each call goes through `Lab.do`, which asks the adapter, records the step, and lets the model say
whether the outcome is possible. What is impossible raises `Violation`.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from continuum_conformance.contract.errors import NotDurable
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.records import Instance, Lease, RunState, Snapshot
from continuum_conformance.contract.terms import check_durable, copy_term, difference
from continuum_conformance.harness import HarnessError, Subject
from continuum_conformance.harness.bridge.dialogue import LeftOut, is_carried
from continuum_conformance.harness.clocks import RIGHT
from continuum_conformance.model import (
    EMPTY,
    Aspect,
    Impossible,
    Kind,
    Operation,
    Outcome,
    RunModel,
    Specification,
    World,
)
from continuum_conformance.postgres import Pair
from continuum_conformance.suite.attribution import attribute
from continuum_conformance.suite.processes import Processes
from continuum_conformance.suite.violation import Step, Violation, forge

__all__ = ["BESIDE", "HOUR", "NOON", "SECOND_PROCESS", "WORKERS", "Lab", "RunUnderTest", "Session"]

NOON = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
"""When snapshots are taken, unless a test says otherwise."""

HOUR = 3600.0
"""A ttl that does not run out within a test."""

WORKERS = ("A", "B")
"""The handles that a test has: two of one store."""


SECOND_PROCESS = "P"
"""The handle that stands for a process of its own, after this one has closed its handles."""

BESIDE = "Z"
"""The handle that stands for a process beside this one, on the same store (`shared`)."""


PLAIN_ASPECTS = frozenset({Aspect.ACCEPTED, Aspect.REFUSED, Aspect.WRONG_ERROR})
BROAD = frozenset(
    {
        "ATM-2",
        "ATM-3",
        "APP-8",
        "APP-9",
        "APP-10",
        "CAP-1",
        "LOD-2",
        "LOD-4",
        "ISO-1",
        "ISO-2",
        "ISO-3",
        "LOD-3",
        "TRM-4",
        "TRM-5",
        "DUR-1",
        "CLK-2",
    }
)
"""Clauses about what operations do beside their answer. A call that was wrongly accepted or refused in one of
their tests breaks the clause that asks for the answer, and leaves theirs untried."""


class Session:
    """An adapter under test, its open handles, and what was counted; shared by all tests of one check.

    Args:
        subject: the adapter.
        salt: six hexadecimal digits of all names, for a store of its own; by default random ones.
    """

    def __init__(self, subject: Subject, *, salt: str | None = None) -> None:
        self.subject = subject
        self.capabilities = subject.capabilities
        self.specification = Specification(subject.capabilities)
        self.statistics: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        self.hangs = 0
        self.left_out = 0
        """Examples, or values of them, that cannot be carried to another program."""
        self.single_handle = False
        self.race_level: Any = None
        """How finely races are explored; `races.levels` finds it out at first use."""
        self.race_levels: list[str] = []
        """The names of that level and of those that did not hold."""
        self.restarts = getattr(subject.server, "restarts", 0)
        """How often the server had been restarted when the handles were opened."""
        self.connects: bool | None = None
        """Whether a handle connects to something through Python's sockets; the faults find it out at first use."""
        self.races: Counter[str] = Counter()
        """How much was explored."""
        self.pairs_cut = 0
        """How many pairs of operations had more schedules than their budget."""
        self.faults: Counter[str] = Counter()
        """What was cut, killed, stopped and ended."""
        self.pair: Callable[[], Pair] | None = None
        """Gives two servers of which one can be lost, where failover is to be tried."""
        self.process_clock = RIGHT
        """What the wall clock of the second process tells, when it is started anew."""
        self._server: bool | None = None
        self.at_close: list[Callable[[], None]] = []
        self._handles: dict[str, Any] = {}
        self._processes = Processes(subject)
        self.at_close.append(self._processes.close)
        self._salt = salt if salt is not None else os.urandom(3).hex()
        self._numbers = itertools.count(1)

    def handle(self, worker: str) -> Any:
        """The worker's handle, opened at its first use, and anew after one that hung. Raises `HarnessError`.

        Worker ``P`` is a second process: the handles of this one are closed before it starts, and it ends
        before one of them is used again (DUR). Worker ``Z`` is one that lives beside them.
        """
        self.notice_restart()
        if worker != SECOND_PROCESS:
            self.close(SECOND_PROCESS)
        elif worker not in self._handles:
            self.close_handles()
            if "shared" not in self.capabilities:
                self.subject.close_shared()  # only one process at a time may use the store
            self._handles[worker] = self._processes.start(worker, self.process_clock)
        if worker == BESIDE and worker not in self._handles:
            self._handles[worker] = self._processes.start(worker)
        if self.single_handle and worker in WORKERS:
            worker = "A"
        found = self._handles.get(worker)
        if found is None or found.broken:
            self._handles[worker] = found = self.subject.open(worker)
        return found

    def notice_restart(self) -> None:
        """Renew what is connected to the server, when another session of this process has killed it."""
        if getattr(self.subject.server, "restarts", 0) != self.restarts:
            self.server_restarted()
            self.renew_handles()

    def server_restarted(self) -> None:
        """Let go of what the kit has connected to the server. The handles stay, for who wants to see them fail."""
        self.restarts = getattr(self.subject.server, "restarts", 0)
        self.race_level = None

    def has_server(self) -> bool:
        """Whether the store has a server of its own, as far as one can tell. Raises `HarnessError`.

        It has when the harness says so; else when a process that has opened the store is connected to something.
        """
        if self._server is None:
            subject = self.subject
            if "postgres" in subject.needs or callable(getattr(subject.harness, "kill_server", None)):
                self._server = True
            elif "directory" in subject.needs or not {"durable", "shared"} & self.capabilities:
                self._server = False
            else:
                self._server = self.handle(SECOND_PROCESS).connected
        return self._server

    def carries(self, value: Any) -> bool:
        """Whether a value can be an argument: to another program it goes as JSON in UTF-8."""
        return not self.subject.reach.carried_as_json or is_carried(value)

    def withdraw(self, capability: str) -> None:
        """Go on as if the adapter had not declared a capability."""
        self.capabilities = self.subject.capabilities = self.subject.capabilities - {capability}
        self.specification = Specification(self.capabilities)

    def reopen(self, worker: str) -> Any:
        """Close the worker's handle and open another. Raises `HarnessError`."""
        self.close(worker)
        return self.handle(worker)

    def close(self, worker: str) -> None:
        """Close one handle, if it is open. Raises `HarnessError`."""
        found = self._handles.pop(worker, None)
        if found is not None:
            found.close()

    def kill(self) -> None:
        """SIGKILL the second process, if there is one."""
        found = self._handles.pop(SECOND_PROCESS, None)
        if found is not None:
            found.kill()

    def close_all(self) -> None:
        """Close every handle, and the loop. Raises `HarnessError` when the author's ``close`` fails."""
        try:
            self.close_handles()
        finally:
            for act in self.at_close:
                act()
            self.subject.shutdown()

    def renew_handles(self) -> None:
        """Begin with handles that nothing has gone wrong on. One that cannot even be closed is left behind."""
        for worker in list(self._handles):
            with suppress(HarnessError):
                self.close(worker)

    def close_handles(self) -> None:
        """Close every handle. Raises `HarnessError` when the author's ``close`` fails."""
        for worker in list(self._handles):
            self.close(worker)

    def fresh_salt(self) -> str:
        """A short text that no name of this session has had."""
        # Always of one length: a replay has another salt, and code that goes over a name's characters as many steps.
        return f"{self._salt}{next(self._numbers):06x}"


class Lab:
    """One example of one test: fresh names, a model of the store, and the record of what was done."""

    def __init__(self, session: Session, clauses: tuple[str, ...] = (), test: str = "") -> None:
        self.session = session
        self.capabilities = session.capabilities
        self.clauses = clauses
        self.test = test
        self.world: World = EMPTY
        self.steps: list[Step] = []
        self.advice: dict[str, str] = {}
        self.salt = session.fresh_salt()
        self.instance = Instance(f"shop-{self.salt}")
        self._arranging = False
        self._runs = itertools.count(1)
        self._instances = itertools.count(2)

    # -- names --

    def fresh_instance(self) -> Instance:
        """One more instance that nobody has used."""
        return Instance(f"shop{next(self._instances)}-{self.salt}")

    def fresh_run_id(self) -> str:
        """A legal run id that nobody has used: canonical UUID text where the adapter asks for that."""
        number = next(self._runs)
        if "opaque_run_ids" in self.capabilities:
            return f"run{number}-{self.salt}"
        return str(UUID(int=int(self.salt, 16) << 80 | number, version=4))

    def run(self, run_id: str | None = None, instance: Instance | None = None) -> RunUnderTest:
        """A run that is not started yet."""
        return RunUnderTest(self, instance or self.instance, run_id or self.fresh_run_id())

    def started(
        self,
        *,
        events: int = 0,
        state: RunState = RunState.RUNNING,
        lease: str | None = None,
        instance: Instance | None = None,
        run_id: str | None = None,
    ) -> RunUnderTest:
        """A run in the given situation, arranged.

        Args:
            events: how many events it has.
            state: its state; it is finished under its lease where it has one.
            lease: None, ``"live"``, ``"expired"`` or ``"released"``.
            instance: another instance than the lab's own.
            run_id: a given id.
        """
        run = self.run(run_id, instance)
        with self.arranging():
            run.start()
            if lease is not None:
                run.acquire(ttl=0 if lease == "expired" else HOUR)
                if lease == "released":
                    run.release()
            for _ in range(events):
                run.append(token=run.token)
            if state is RunState.SUSPENDED:
                run.suspend(run.token)
            elif state is RunState.COMPLETED:
                run.complete({"ok": True}, run.token)
            elif state is RunState.FAILED:
                run.fail({"why": "declined"}, run.token)
        return run

    @contextmanager
    def arranging(self) -> Iterator[None]:
        """Calls within are set-up: when one goes wrong, the test's own clause was not tried yet."""
        was, self._arranging = self._arranging, True
        try:
            yield
        finally:
            self._arranging = was

    # -- acting --

    def do(
        self,
        name: str,
        *,
        on: str = "A",
        mutates: str = "",
        limit: float | None = None,
        **arguments: Any,
    ) -> Outcome:
        """Carry out an operation and have the model judge its outcome.

        Args:
            name: the operation.
            on: the handle.
            mutates: ``"arguments"`` when the caller changes them after the call's first step, ``"answer"`` when
                it changes what it got.
            limit: seconds, instead of the subject's.
            arguments: the operation's arguments by name, without the instance where it is the lab's.

        Raises:
            Violation: when the outcome is impossible.
        """
        arguments.setdefault("instance", self.instance)
        ordered = {key: arguments[key] for key in OPERATIONS[name]}
        worker = "A" if self.session.single_handle else on
        told = Operation(name, {key: _kept(value) for key, value in ordered.items()}, worker)
        operation = Operation(name, ordered, worker)
        then = partial(forge, *ordered.values()) if mutates == "arguments" else None
        handle = self.session.handle(worker)
        outcome: Outcome = handle.call(operation, limit=limit, then=then)
        self.session.statistics["operations"] += 1
        if outcome.remark:
            self.session.remarks[outcome.remark] += 1
        step = Step(told, _kept_outcome(outcome), self._arranging, mutates)
        verdict = self.session.specification.step(self.world, told, step.outcome)
        if isinstance(verdict, Impossible):
            clauses = attribute(verdict, step, self.steps)
            if "rich_terms" not in self.capabilities:  # an undeclared rich term was not refused
                clauses = tuple("CAP-1" if clause == "TRM-2" else clause for clause in clauses)
            self.steps.append(replace(step, due=verdict.expected))
            if outcome.kind is Kind.RAW or outcome.error == "JournalUnavailable":
                self.session.renew_handles()  # else one broken connection fails every test after this one
            raise self._violation(clauses, verdict.message, outcome, verdict.aspect)
        if outcome.kind is Kind.ERROR:
            self._advise(told, outcome)
        self.world = verdict
        self.steps.append(step)
        if mutates == "answer":
            forge(outcome.value)
        return outcome

    def ask(self, name: str, *, on: str = "A", limit: float | None = None, **arguments: Any) -> Outcome:
        """Carry out an operation that the model does not judge: what came is the test's to say."""
        arguments.setdefault("instance", self.instance)
        operation = Operation(name, {key: arguments[key] for key in OPERATIONS[name]}, on)
        outcome: Outcome = self.session.handle(on).call(operation, limit=limit)
        self.carried_out(operation, outcome)
        return outcome

    def carried_out(self, operation: Operation, outcome: Outcome) -> None:
        """Keep a call that a test has made by itself."""
        self.session.statistics["operations"] += 1
        self.steps.append(Step(operation, _kept_outcome(outcome), self._arranging))

    def _advise(self, operation: Operation, outcome: Outcome) -> None:
        unwise = self.session.specification.expect(self.world, operation).unwise
        if str(outcome.error) in unwise:
            self.advice[unwise[str(outcome.error)]] = f"{operation.name} raised {outcome.error}"

    def _violation(
        self, cited: tuple[str, ...], message: str, outcome: Outcome | None, aspect: Aspect | None = None
    ) -> Violation:
        clauses = cited
        assumed: tuple[str, ...] = ()
        if not self._arranging and self.clauses:
            own = tuple(clause for clause in self.clauses if clause in cited)
            if not own and not self._untried(cited, outcome, aspect):
                own = assumed = self.clauses[:1]
            clauses = (*own, *(clause for clause in cited if clause not in own))
        hang = outcome is not None and outcome.kind is Kind.HANG
        return Violation(
            clauses,
            message,
            tuple(self.steps),
            arranging=self._arranging,
            detail=outcome.detail
            if outcome is not None and outcome.kind in (Kind.RAW, Kind.HANG, Kind.GARBAGE)
            else "",
            hang=hang,
            salt=self.salt,
            test=self.test,
            aspect=aspect,
            assumed=assumed,
        )

    def _untried(self, cited: tuple[str, ...], outcome: Outcome | None, aspect: Aspect | None) -> bool:
        """Whether what was found has nothing to do with the test's own clause, which is left untried."""
        if cited[:1] in (("ATM-3",), ("TRM-2",)):
            return True
        if aspect not in PLAIN_ASPECTS:
            return False
        error = outcome.error if outcome is not None and outcome.kind is Kind.ERROR else None
        about_terms = self.clauses[0].startswith("TRM") and error not in (
            None,
            "NotDurable",
            "InvalidArgument",
        )
        return self.clauses[0] in BROAD or about_terms

    def fail(self, message: str, *clauses: str) -> None:
        """Report what the model cannot see. Raises `Violation`; clauses default to the test's first."""
        if self.steps:
            self.steps[-1] = replace(self.steps[-1], due=self.steps[-1].due or "see above")
        raise self._violation(clauses or self.clauses[:1], message, None)

    def hangs(self, message: str) -> None:
        """Report that a call did not come back. Raises `Violation`, of the test's first clause."""
        found = self._violation(self.clauses[:1], message, None)
        found.hang = True
        raise found

    def count(self, situation: str) -> None:
        """Count that a situation was reached; the report shows the counts."""
        self.session.statistics[situation] += 1

    def struck(self, what: str, how: str) -> None:
        """Note that a client or a server was killed."""
        self.session.faults[what] += 1
        self.note(how)

    def note(self, what: str) -> None:
        """Note what else happened, after the last call."""
        before = self.steps[-1].then
        self.steps[-1] = replace(self.steps[-1], then=f"{before}; {what}" if before else what)

    def carried(self, values: Iterable[Any]) -> Iterator[Any]:
        """Those of some values that can be carried to the adapter: all, where it is in this process."""
        for value in values:
            if self.session.carries(value):
                yield value
            else:
                self.session.left_out += 1

    @contextmanager
    def where_carried(self) -> Iterator[None]:
        """What stands within is left out where it cannot be carried to the adapter."""
        try:
            yield
        except LeftOut:
            self.session.left_out += 1

    # -- looking --

    def look(self, key: tuple[str, str], on: str = "A") -> None:
        """Read all there is of a run through one handle, and have the model judge it."""
        name, run_id = key
        instance = Instance(name)
        self.do("get_run", on=on, instance=instance, run_id=run_id)
        self.do("load", on=on, instance=instance, run_id=run_id)
        model = self.world.get(key)
        if model is not None:
            token = model.lease.token if model.lease is not None else None
            self.do("load_with_snapshot", on=on, instance=instance, run_id=run_id, lease_token=token)

    def look_everywhere(self, *more: tuple[str, str]) -> None:
        """Read all runs of this example, and others that must not exist, through every handle."""
        keys = dict.fromkeys((*self.world, *more))
        for worker in WORKERS:
            for key in keys:
                self.look(key, on=worker)


class RunUnderTest:
    """A run of a lab: its operations, with arguments that are right unless a test gives others."""

    def __init__(self, lab: Lab, instance: Instance, run_id: str) -> None:
        self.lab, self.instance, self.run_id = lab, instance, run_id

    @property
    def key(self) -> tuple[str, str]:
        """(instance name, run id)."""
        return self.instance.name, self.run_id

    @property
    def model(self) -> RunModel:
        """What the model knows of it. It must have been started."""
        return self.lab.world[self.key]

    @property
    def token(self) -> int | None:
        """The present token, or None where it is unleased."""
        lease = self.model.lease
        return lease.token if lease is not None else None

    @property
    def lease(self) -> Lease:
        """The present lease. It must have one."""
        held = self.model.lease
        if held is None:
            raise LookupError(f"run {self.run_id} is unleased")
        return Lease(self.run_id, held.owner, held.token)

    def do(self, name: str, **arguments: Any) -> Outcome:
        """Any operation on this run."""
        return self.lab.do(name, instance=self.instance, **arguments)

    def start(self, workflow: str = "checkout", input: Any = None, **how: Any) -> Outcome:  # noqa: A002
        """start_run."""
        return self.do("start_run", run_id=self.run_id, workflow=workflow, input=input, **how)

    def append(self, event: Any = None, token: Any = None, **how: Any) -> Outcome:
        """Append an event; a small one when none is given."""
        event = {"type": "step"} if event is None else event
        return self.do("append", run_id=self.run_id, event=event, lease_token=token, **how)

    def suspend(self, token: Any = None, **how: Any) -> Outcome:
        """Suspend."""
        return self.do("suspend", run_id=self.run_id, lease_token=token, **how)

    def complete(self, result: Any = None, token: Any = None, **how: Any) -> Outcome:
        """Complete."""
        return self.do("complete", run_id=self.run_id, result=result, lease_token=token, **how)

    def fail(self, error: Any = None, token: Any = None, **how: Any) -> Outcome:
        """Fail."""
        return self.do("fail", run_id=self.run_id, error=error, lease_token=token, **how)

    def load(self, **how: Any) -> Outcome:
        """Load."""
        return self.do("load", run_id=self.run_id, **how)

    def get(self, **how: Any) -> Outcome:
        """get_run."""
        return self.do("get_run", run_id=self.run_id, **how)

    def load_with_snapshot(self, token: Any = None, **how: Any) -> Outcome:
        """load_with_snapshot."""
        return self.do("load_with_snapshot", run_id=self.run_id, lease_token=token, **how)

    def acquire(self, owner: str = "alice", ttl: Any = HOUR, **how: Any) -> Outcome:
        """Acquire."""
        return self.do("acquire", run_id=self.run_id, owner=owner, ttl=ttl, **how)

    def renew(self, lease: Any = None, ttl: Any = HOUR, **how: Any) -> Outcome:
        """Renew; the present lease when none is given."""
        return self.do("renew", lease=self.lease if lease is None else lease, ttl=ttl, **how)

    def release(self, lease: Any = None, **how: Any) -> Outcome:
        """Release; the present lease when none is given."""
        return self.do("release", lease=self.lease if lease is None else lease, **how)

    def snapshot(
        self,
        through_seq: Any,
        steps: Any = None,
        *,
        version_hash: Any = b"\x01v1",
        taken_at: Any = None,
        **how: Any,
    ) -> Outcome:
        """take_snapshot."""
        record = Snapshot(
            self.run_id,
            through_seq,
            version_hash,
            NOON if taken_at is None else taken_at,
            {} if steps is None else steps,
        )
        return self.do("take_snapshot", snapshot=record, **how)

    def look(self) -> None:
        """Read all there is of it, through every handle."""
        for worker in WORKERS:
            self.lab.look(self.key, on=worker)

    def unchanged(self, what: str, before: Any, after: Any, *clauses: str) -> None:
        """Fail unless two observations are equal."""
        differs = difference(before, after, what)
        if differs:
            self.lab.fail(f"{what} changed: {differs}", *clauses)


def _kept(value: Any) -> Any:
    """A copy of an argument as it was at the call; what cannot be copied (it must be refused) as it is."""
    if isinstance(value, Snapshot):
        steps = value.steps_by_seq
        kept = {key: _kept(step) for key, step in steps.items()} if isinstance(steps, dict) else steps
        return replace(value, steps_by_seq=kept)
    if type(value) not in (dict, list, tuple, set):
        return value
    try:
        check_durable(value, "value", max_depth=10**9)
    except NotDurable:
        return value
    return copy_term(value)


def _kept_outcome(outcome: Outcome) -> Outcome:
    """The outcome with what was returned as it is now: a test may change what it got (LOD-3)."""
    if outcome.kind is not Kind.VALUE or outcome.value is None:
        return outcome
    value = outcome.value
    if isinstance(value, list):
        return replace(outcome, value=_kept(value))
    if isinstance(value, tuple):
        return replace(outcome, value=(_kept(value[0]), _kept(value[1])))
    return outcome
