"""One run of a scenario under one schedule: arrange, race, probe, judge."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from continuum_conformance.contract.records import Lease, RunState, Snapshot
from continuum_conformance.explore.schedule import Chooser, Execution
from continuum_conformance.history import History, Recorded, judge
from continuum_conformance.model import Kind, Operation, Outcome
from continuum_conformance.suite.lab import HOUR, NOON, Lab, RunUnderTest, Session
from continuum_conformance.suite.races.scenarios import Act, Scenario
from continuum_conformance.suite.violation import Step, Violation

__all__ = [
    "Arranged",
    "Race",
    "Recording",
    "clauses_of",
    "operations_of",
    "probe",
    "run_race",
]


@dataclass
class Race:
    """What one run of a scenario showed."""

    execution: Execution
    history: History
    recording: Recording
    token: int | None = None
    """The token of the lease that the race started from."""
    violation: Violation | None = None
    probes_from: int = 0
    """The time at which the race was over and the probes began."""
    undecided: bool = False
    """Whether the judge's budget ended before there was a verdict."""
    why: str = ""
    """Why no order of the operations explains the history."""
    deciding: Recorded | None = None
    """The operation at whose return nothing explains the history any more."""
    needed: tuple[Recorded, ...] = ()
    """The operations without which an order would."""


class Arranged:
    """A scenario's situation, arranged, and how its acts become operations."""

    def __init__(self, lab: Lab, scenario: Scenario) -> None:
        self.lab = lab
        self.run = lab.run()
        self.other = lab.run()
        self.old: Lease | None = None
        with lab.arranging():
            if scenario.situation.exists:
                self._arrange(self.run, scenario)
            acts = [act for program in scenario.workers.values() for act in program if act.run]
            if acts and not any(act.op == "start_run" for act in acts):
                self._arrange(self.other, scenario)

    def _arrange(self, run: RunUnderTest, scenario: Scenario) -> None:
        situation = scenario.situation
        run.start()
        for _ in range(situation.events):
            run.append()
        if situation.lease:
            run.acquire("past", 0)
            if run is self.run:
                self.old = run.lease
            run.acquire("alice", 0 if situation.lease == "expired" else HOUR)
        if situation.snapshot:
            run.snapshot(0, {0: "zero"})
        if situation.state is RunState.SUSPENDED:
            run.suspend(run.token)
        elif situation.state.terminal:
            run.complete({"ok": True}, run.token)

    def program(self, worker: str, acts: Sequence[Act]) -> _Program:
        """The worker's operations, one after another."""
        return _Program(self, worker, acts)

    def operation(self, act: Act, worker: str, own: Lease | None) -> Operation | None:
        """The act as an operation, or None where the worker was refused the lease that the act is under."""
        run = self.other if act.run else self.run
        model = self.lab.world.get(run.key)
        current = Lease(run.run_id, model.lease.owner, model.lease.token) if model and model.lease else None
        leases = {"current": current, "old": self.old, "own": own}
        lease = leases.get(act.token)
        if act.token in leases and lease is None:
            return None
        token = lease.token if lease is not None else None
        length = len(model.events) if model is not None else 0
        owner = current.owner if current is not None and act.op == "acquire_again" else f"worker-{worker}"
        event: dict[str, Any] = {"type": f"by-{worker}"}
        if act.op == "append_seq":
            event["seq"] = length
        steps = {0: "zero"} if act.op == "take_snapshot" else {0: "other"}
        arguments: dict[str, dict[str, Any]] = {
            "start_run": {"run_id": run.run_id, "workflow": f"by-{worker}", "input": worker},
            "append": {"run_id": run.run_id, "event": event, "lease_token": token},
            "load": {"run_id": run.run_id},
            "load_with_snapshot": {"run_id": run.run_id, "lease_token": token},
            "take_snapshot": {"snapshot": Snapshot(run.run_id, max(0, length - 1), b"v", NOON, steps)},
            "suspend": {"run_id": run.run_id, "lease_token": token},
            "complete": {"run_id": run.run_id, "result": f"by-{worker}", "lease_token": token},
            "fail": {"run_id": run.run_id, "error": f"by-{worker}", "lease_token": token},
            "get_run": {"run_id": run.run_id},
            "acquire": {"run_id": run.run_id, "owner": owner, "ttl": act.ttl},
            "renew": {"lease": lease, "ttl": act.ttl},
            "release": {"lease": lease},
        }
        own_arguments = {"instance": self.lab.instance, **arguments[act.operation]}
        return Operation(act.operation, own_arguments, worker)


class _Program:
    """A worker's operations; each may depend on the lease that an earlier one's outcome gave."""

    def __init__(self, arranged: Arranged, worker: str, acts: Sequence[Act]) -> None:
        self._arranged, self._worker, self._acts = arranged, worker, acts
        self.outcome: Outcome | None = None
        """What came of the operation given last; set by whoever carries them out."""

    def __iter__(self) -> Iterator[Operation]:
        own: Lease | None = None
        for act in self._acts:
            operation = self._arranged.operation(act, self._worker, own)
            if operation is None:
                continue
            yield operation
            if (
                operation.name == "acquire"
                and self.outcome is not None
                and isinstance(self.outcome.value, Lease)
            ):
                own = self.outcome.value


def operations_of(scenario: Scenario, lab: Lab) -> dict[str, list[Operation]]:
    """The operations of each worker from the scenario's situation, without those under a lease of their own."""
    arranged = Arranged(lab, scenario)
    return {
        worker: [
            operation for act in acts if (operation := arranged.operation(act, worker, None)) is not None
        ]
        for worker, acts in scenario.workers.items()
    }


@dataclass
class Recording:
    """The calls of one run as they happen; the clock is a counter, so that intervals are exact."""

    clock: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    entries: list[Recorded] = field(default_factory=list)
    under_way: dict[int, Operation] = field(default_factory=dict)
    """The calls that have not come back, by when they began."""

    def carry_out(self, operation: Operation, call: Callable[[Operation], Outcome]) -> Outcome:
        """Make a call, and keep what came of it and when."""
        invoked = self._begin(operation)
        return self._end(operation, invoked, call(operation))

    async def carry_out_async(
        self, operation: Operation, call: Callable[[Operation], Awaitable[Outcome]]
    ) -> Outcome:
        """As `carry_out`, in a task."""
        invoked = self._begin(operation)
        return self._end(operation, invoked, await call(operation))

    def _begin(self, operation: Operation) -> int:
        invoked = next(self.clock)
        self.under_way[invoked] = operation
        return invoked

    def _end(self, operation: Operation, invoked: int, outcome: Outcome) -> Outcome:
        self.entries.append(Recorded(operation, outcome, invoked, next(self.clock), operation.worker))
        del self.under_way[invoked]
        return outcome


def _nothing() -> None:
    """What an executor without real time does about it."""


def run_race(session: Session, scenario: Scenario, executor: Any, chooser: Chooser) -> Race:
    """Run a scenario once.

    Raises:
        Violation: when the situation cannot even be arranged.
        HarnessError: when a handle cannot be opened.
    """
    lab = Lab(session, scenario.clauses, f"race: {scenario.name}")
    arranged = Arranged(lab, scenario)
    before = lab.world
    arranging = len(lab.steps)
    recording = Recording()
    point: Callable[[str], None] | None = (
        getattr(executor, "point", None) if executor.level != "statements" else None
    )
    executor.clock = recording.clock.__next__
    if executor.level == "statements":
        executor.listeners = dict.fromkeys(scenario.workers, "A") if scenario.one_handle else {}
    began: Callable[[str], None] | None = getattr(executor, "began", None)
    called: Callable[[], None] = getattr(executor, "called", _nothing)
    returned: Callable[[], None] = getattr(executor, "returned", _nothing)
    handles = {worker: session.handle("A" if scenario.one_handle else worker) for worker in scenario.workers}

    def body(worker: str, acts: tuple[Act, ...]) -> Callable[[], None]:
        def work() -> None:
            call = handles[worker].call if handles[worker].is_async else handles[worker].direct
            program = arranged.program(worker, acts)
            for number, operation in enumerate(program):
                if point is not None and number:
                    point(f"before {operation.name}")
                if began is not None:
                    began(worker)
                called()
                program.outcome = recording.carry_out(operation, call)
                returned()

        return work

    def task(worker: str, acts: tuple[Act, ...]) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            program = arranged.program(worker, acts)
            for operation in program:
                program.outcome = await recording.carry_out_async(operation, handles[worker].direct_async)

        return work

    of = task if executor.level == "tasks" else body
    execution = executor.run({worker: of(worker, acts) for worker, acts in scenario.workers.items()}, chooser)
    model = before.get(arranged.run.key)
    token = model.lease.token if model is not None and model.lease is not None else None
    race = Race(execution, History.of(recording.entries), recording, token)
    if execution.deadlock is not None or execution.hung:
        race.violation = _stuck(lab, scenario, execution, recording, arranging)
        return race
    race.probes_from = next(recording.clock)
    probe(lab, arranged, recording)
    race.history = History.of(_excused(recording.entries, executor.level != "threads"))
    verdict = judge(race.history, session.specification, before)
    race.undecided = not verdict.failed and not verdict.passed
    if verdict.failed:
        race.why = verdict.text
        if verdict.explanation is not None:
            race.deciding, race.needed = verdict.explanation.decisive, verdict.explanation.needed
        race.violation = _broken(lab, scenario, race, verdict, arranging)
    else:
        race.violation = _left_behind(lab, scenario, race, arranging)
    return race


def _left_behind(lab: Lab, scenario: Scenario, race: Race, arranging: int) -> Violation | None:
    """What is wrong when another run cannot be started after a race, as when a lock of the store is left behind."""
    arguments = {"instance": lab.instance, "run_id": lab.fresh_run_id(), "workflow": "next", "input": None}
    asked = Operation("start_run", arguments, "A")
    outcome: Outcome = lab.session.handle("A").call(asked)
    if outcome.kind is not Kind.HANG:
        return None
    race.recording.carry_out(asked, lambda _: outcome)
    race.history = History.of(race.recording.entries)
    steps = tuple(lab.steps[:arranging]) + tuple(Step(e.operation, e.outcome) for e in race.recording.entries)
    return Violation(
        ("CON-4",),
        f"{scenario.name}: another run could not be started afterwards, as when a lock is left behind",
        steps,
        detail=outcome.detail,
        hang=True,
        salt=lab.salt,
        test=lab.test,
    )


def _excused(entries: list[Recorded], held: bool) -> Iterator[Recorded]:
    """The history, without what may have been given up only because the kit held another worker still.

    Whether contention surfaces is judged by free-running threads (CON-4). What is of unknown outcome stays.
    """
    for entry in entries:
        if not (held and entry.outcome.error == "JournalUnavailable" and not entry.outcome.unknown):
            yield entry


def probe(lab: Lab, arranged: Arranged, recording: Recording) -> None:
    """Look at everything that the race may have left, one call after another, through both handles."""
    run = arranged.run
    session = lab.session
    arguments: dict[str, Any] = {"instance": lab.instance, "run_id": run.run_id}
    probes = [Operation("load", arguments, "A"), Operation("get_run", arguments, "B")]
    touched = {entry.operation.arguments.get("run_id") for entry in recording.entries}
    if arranged.other.key in lab.world or arranged.other.run_id in touched:
        probes.append(Operation("load", {"instance": lab.instance, "run_id": arranged.other.run_id}, "A"))
    if "leases" in lab.capabilities:
        tokens = {
            entry.outcome.value.token for entry in recording.entries if isinstance(entry.outcome.value, Lease)
        }
        model = lab.world.get(run.key)
        if model is not None and model.lease is not None:
            tokens.add(model.lease.token)
        probes.extend(
            Operation("load_with_snapshot", {**arguments, "lease_token": token}, "B")
            for token in (*sorted(tokens), None)
        )
        probes.append(Operation("acquire", {**arguments, "owner": "auditor", "ttl": HOUR}, "A"))
        probes.append(Operation("load", arguments, "B"))
    else:
        probes.append(Operation("load_with_snapshot", {**arguments, "lease_token": None}, "B"))
    for asked in probes:
        worker = "A" if session.single_handle else asked.worker
        recording.carry_out(asked, session.handle(worker).call)


# -- what a finding says --

SHUTS_OUT = frozenset({"acquire", "release", "complete", "fail"})
FENCED = frozenset({"append", "suspend", "complete", "fail", "load_with_snapshot"})


def clauses_of(scenario: Scenario) -> tuple[str, ...]:
    """The clauses that a race between these operations breaks when it has no explanation, the closest first."""
    if scenario.clauses:
        return scenario.clauses
    pair = frozenset(act.operation for acts in scenario.workers.values() for act in acts[:1])
    if pair == {"start_run"} or pair == {"acquire"} or pair <= {"complete", "fail"}:
        return ("CON-2", "CON-1")
    if pair == {"append"}:
        return ("CON-3", "CON-1")
    if (
        "load_with_snapshot" in pair
        and "take_snapshot" in pair | {"append"}
        and pair & {"append", "take_snapshot"}
    ):
        return ("SNP-10", "CON-1")
    if pair & SHUTS_OUT and pair & FENCED:
        return ("FEN-5", "CON-1")
    return ("CON-1",)


def _broken(lab: Lab, scenario: Scenario, race: Race, verdict: Any, arranging: int) -> Violation:
    raw = next((e for e in race.history.operations if e.outcome.kind in (Kind.RAW, Kind.GARBAGE)), None)
    clauses = clauses_of(scenario)
    if raw is not None and raw.outcome.kind is Kind.RAW:
        clauses = ("CON-4", "ATM-2")
    elif any(e.outcome.error == "JournalUnavailable" for e in race.history.operations):
        clauses = ("CON-4", *clauses)
    steps = tuple(lab.steps[:arranging]) + tuple(
        Step(
            entry.operation,
            entry.outcome,
            due="an order of the operations that explains it" if entry is race.deciding else "",
        )
        for entry in race.history.operations
    )
    return Violation(
        clauses,
        f"{scenario.name}: {verdict.explanation.headline if verdict.explanation is not None else verdict.text}",
        steps,
        detail=raw.outcome.detail if raw is not None else "",
        salt=lab.salt,
        test=lab.test,
    )


def _stuck(
    lab: Lab, scenario: Scenario, execution: Execution, recording: Recording, arranging: int
) -> Violation:
    stacks: Mapping[str, str] = execution.deadlock or execution.hung
    what = "deadlocked" if execution.deadlock is not None else "did not come back"
    steps = tuple(lab.steps[:arranging]) + tuple(Step(e.operation, e.outcome) for e in recording.entries)
    return Violation(
        ("CON-4",),
        f"{scenario.name}: workers {', '.join(sorted(stacks))} {what}",
        steps,
        detail="\n".join(f"worker {name}:\n{stack}" for name, stack in sorted(stacks.items())),
        hang=True,
        salt=lab.salt,
        test=lab.test,
    )
