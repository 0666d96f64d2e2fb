"""A cluster in virtual time: workers, the network between them and the store, the queue that offers them runs.

What a worker function sees of it is a `Node`. Between a node and the store every call takes time there and back; it
may be lost on either way, come late, or find the store away, as the nemesis decides. A sender waits for so long and
then hears that the outcome is unknown, while its request may still be on its way.
"""

from __future__ import annotations

import inspect
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from continuum_conformance.contract.errors import ERRORS, InvalidArgument, JournalUnavailable
from continuum_conformance.contract.records import Lease
from continuum_conformance.model import Operation, Outcome
from continuum_conformance.simulate.dice import Dice
from continuum_conformance.simulate.judge import FINISHES, Caller, Finding, Judge
from continuum_conformance.simulate.machine import Machine
from continuum_conformance.simulate.nemesis import CLIENT, EARLY, QUEUE, QUIET, Fault, Rates
from continuum_conformance.simulate.node import Node
from continuum_conformance.simulate.queue import Queue
from continuum_conformance.simulate.scheduler import (
    Arrangement,
    Crashed,
    Scheduler,
    Task,
    ThreadTask,
    is_coroutine_function,
)
from continuum_conformance.simulate.store import KIT, Store
from continuum_conformance.simulate.trace import Trace

__all__ = ["Cluster", "Worker"]

Worker = Callable[[Node], Any]
"""What a worker does, from its machine's start to its death: a coroutine function, or a plain one that blocks."""

TIMEOUT = 5_000
"""Milliseconds that a sender waits for an answer."""

SLOWER = 5
BUSY = 200_000
"""How many things may happen at one moment; more is a worker that never lets time go by."""


class _Call:
    """A call on its way."""

    __slots__ = ("answered", "caller", "fault", "machine", "operation", "sent", "task")

    def __init__(self, task: Any, machine: Machine, operation: Operation, sent: int, fault: Fault | None):
        self.task, self.machine, self.operation, self.sent, self.fault = task, machine, operation, sent, fault
        self.caller = machine.caller
        self.answered = False


class Cluster:
    """A world while it lasts.

    Args:
        seed: by which messages take their time and runs are offered.
        workers: the numbers of the workers.
        worker: what each of them does.
        store: the store.
        judge: who is told of every effect.
        faults: what goes wrong; those of messages only count without ``rates``.
        rates: how often messages go wrong; None: as ``faults`` says.
        until: when faults stop, in milliseconds.
        calm: messages take always the same time, and the first idle worker is offered a run.
        workflows: handed to the workers.
        run_ids: the runs by their numbers, by which faults name them.
    """

    def __init__(
        self,
        seed: int,
        workers: Collection[int],
        worker: Worker,
        store: Store,
        judge: Judge,
        scheduler: Scheduler,
        *,
        faults: Collection[Fault] = (),
        rates: Rates | None = QUIET,
        until: int = 0,
        calm: bool = False,
        workflows: Mapping[str, Any] | None = None,
        run_ids: Mapping[int, str] | None = None,
    ) -> None:
        self.scheduler, self.store, self.judge = scheduler, store, judge
        self.workflows: Mapping[str, Any] = workflows if workflows is not None else {}
        self._run_ids: Mapping[int, str] = run_ids if run_ids is not None else {}
        self._numbers = {run_id: number for number, run_id in self._run_ids.items()}
        self.seed, self.calm, self.until = seed, calm, until
        self.trace = Trace()
        self.finding: Finding | None = None
        self.operations = 0
        self.fired: list[Fault] = []
        self._worker = worker
        self._machines = {number: Machine(number) for number in workers}
        self._client = Machine(CLIENT)
        self._client.up = True
        self._rates = rates
        self._messages = {
            (fault.worker, fault.operation, fault.run, fault.call): fault
            for fault in faults
            if fault.of_message
        }
        self._dice = {number: Dice(seed, "network", number) for number in (CLIENT, *self._machines)}
        self._luck = {number: Dice(seed, "messages", number) for number in (CLIENT, *self._machines)}
        self._outage_until = 0
        self._flight: dict[str, list[_Call]] = {}
        self._travelling = 0
        self._expiry: dict[str, int] = {}
        self.queue = Queue(scheduler, Dice(seed, "queue"), self._deliver, calm=calm)
        self._wakes = Dice(seed, "wakes")
        self._woken: Counter[int] = Counter()
        for fault in faults:
            if not fault.of_message and (fault.worker == CLIENT or fault.worker in self._machines):
                scheduler.at(fault.at, self._strike, fault)
        for machine in self._machines.values():
            scheduler.at(0, self._boot, machine, 0)

    # -- the run of the world --

    def start(self, run_id: str, workflow: str, given: Any, at: int) -> None:
        """Let the client start a run then (in milliseconds)."""
        self.scheduler.at(at, self._begin, run_id, workflow, given)

    def _begin(self, run_id: str, workflow: str, given: Any) -> None:
        self._launch(
            self._client, _started, Node(self, self._client, blocking=False), run_id, workflow, given
        )

    def run(self, end: int) -> None:
        """Let the world go on until everything is finished, something is wrong, or this moment is reached."""
        scheduler, moment, busy = self.scheduler, -1, 0
        while self.finding is None:
            if not self.judge.unfinished_count and not self._travelling:
                break
            if not scheduler.next():
                break
            if scheduler.now > end:
                break
            busy = busy + 1 if scheduler.now == moment else 0
            moment = scheduler.now
            if busy > BUSY:
                self._found(
                    Finding("worker", "the workers go on for ever without letting time go by", moment)
                )
        if self.finding is None and self.judge.unfinished_count:
            self._found(self._stuck(end))
        if self.finding is None:
            for run_id in list(self.judge.books):
                self._audit(run_id, snapshots=True)

    def _stuck(self, end: int) -> Finding:
        runs = self.judge.unfinished
        run = self.judge.books[runs[0]].run
        count = len(run.events) if run is not None else 0
        events = f"{count} event{'' if count == 1 else 's'}"
        state = "not even started" if run is None else f"{run.state.value}, with {events}"
        more = f" (and {len(runs) - 1} more)" if len(runs) > 1 else ""
        since = (end - self.until) / 60_000
        return Finding(
            "liveness",
            f"{runs[0]}{more} is not finished {since:.0f} minutes after the faults have stopped: it is {state}",
            min(self.scheduler.now, end),
            runs[0],
        )

    def end(self) -> None:
        """End every task that is left. Whatever they do on their way out, the world is over."""
        for machine in (*self._machines.values(), self._client):
            machine.up = False
            self._end_tasks(machine)

    def _found(self, finding: Finding | None) -> None:
        if finding is not None and self.finding is None:
            self.finding = finding

    # -- machines and tasks --

    def _boot(self, machine: Machine, life: int) -> None:
        if machine.up or machine.life != life:
            return
        machine.up = True
        if life:
            self.trace.note(self.scheduler.now, machine.name, "is back")
        blocking = not is_coroutine_function(self._worker)
        self._launch(machine, self._worker, Node(self, machine, blocking=blocking))

    def _launch(self, machine: Machine, function: Callable[..., Any], *arguments: Any) -> None:
        life = machine.life

        def failed(error: BaseException) -> None:
            if not isinstance(error, Crashed) and machine.life == life:
                self._fell(machine, error)

        task: Task | ThreadTask
        if is_coroutine_function(function):
            task = Task(function(*arguments), failed)
        else:
            task = ThreadTask(lambda: _blocking(function(*arguments), function), failed)
        machine.tasks = [known for known in machine.tasks if not known.dead]
        machine.tasks.append(task)
        self.scheduler.after(0, self._deliver, machine, task, None, None)

    def _fell(self, machine: Machine, error: BaseException) -> None:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent != _HERE]
        where = f" at {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
        said = f": {error}" if str(error) else ""
        self._found(
            Finding(
                "worker",
                f"{machine.name} fell over{where}: {type(error).__name__}{said}",
                self.scheduler.now,
                getattr(error, "run_id", None),
                shape=type(error).__name__,
                detail="".join(traceback.format_exception(error)),
            )
        )

    def _deliver(self, machine: Machine, task: Task | ThreadTask, value: Any, error: Any) -> None:
        """Resume a task, unless its machine stands still: then when it moves again."""
        if task.dead:
            return
        if self.scheduler.now < machine.paused_until:
            self.scheduler.at(machine.paused_until, self._deliver, machine, task, value, error)
        else:
            task.resume(value, error)

    def _end_tasks(self, machine: Machine) -> None:
        tasks, machine.tasks = machine.tasks, []
        for task in tasks:
            task.crash()

    def spawn(self, machine: Machine, function: Callable[..., Any], *arguments: Any) -> None:
        """Let a machine do one more thing at the same time."""
        self._launch(machine, function, *arguments)

    def sleeping(self, machine: Machine, seconds: float) -> Arrangement:
        """Arranges that a task goes on after so long; a slow machine takes longer."""
        delay = max(0, round(1_000 * seconds))

        def arrange(task: Any) -> None:
            slow = self.scheduler.now < machine.slow_until
            self.scheduler.after(delay * (SLOWER if slow else 1), self._deliver, machine, task, None, None)

        return arrange

    def performed(self, machine: Machine, run_id: str, what: str, lease: Lease) -> None:
        """A worker carries out a step."""
        now = self.scheduler.now
        self.trace.note(now, machine.name, f"carries out {what} of {run_id}", run_id)
        self._found(self.judge.performed(machine.caller, run_id, what, lease, now))

    # -- faults --

    def _strike(self, fault: Fault) -> None:
        now, until = self.scheduler.now, self.scheduler.now + fault.lasts
        self.fired.append(fault)
        if fault.kind == "outage":
            self._outage_until = max(self._outage_until, until)
            self.trace.fault(now, "store", fault)
            return
        if fault.kind == "herd":
            up = [machine for machine in self._machines.values() if machine.up]
            self.queue.stampede(self._run_ids.get(fault.run, ""), up)
            self.trace.fault(now, "queue", fault, self._run_ids.get(fault.run))
            return
        machine = self._machines.get(fault.worker)
        if machine is not None:
            self._strike_machine(machine, fault)

    def _strike_machine(self, machine: Machine, fault: Fault) -> None:
        if not machine.up:
            return
        now, until = self.scheduler.now, self.scheduler.now + fault.lasts
        self.trace.fault(now, machine.name, fault)
        held = self.judge.holdings(machine.caller)
        if fault.kind in ("crash", "die"):
            self.judge.sometimes["crash under a lease"] += bool(held)
            machine.up, machine.life = False, machine.life + 1
            self._end_tasks(machine)  # whatever they do on their way out, they do no more from here
            self.store.forget(machine.name)
            machine.paused_until = machine.skew = 0
            machine.release_asked, machine.inbox = False, []
            self.queue.forget(machine)
            self.scheduler.at(until, self._boot, machine, machine.life)
        elif fault.kind in ("pause", "freeze", "stall"):
            expires = [book.expires for book in held if book.expires >= now]
            self.judge.sometimes["pause beyond the lease"] += any(when < until for when in expires)
            machine.paused_until = max(machine.paused_until, until)
        elif fault.kind == "slow":
            machine.slow_until = max(machine.slow_until, until)
        elif fault.kind == "mute":
            machine.mute_until = max(machine.mute_until, until)
        elif fault.kind == "deaf":
            machine.deaf_until = max(machine.deaf_until, until)
        elif fault.kind == "skew":
            running = (book.run for book in self.judge.books.values() if book.run is not None)
            timers = any(run.events and run.events[-1]["type"] == "timer" for run in running)
            self.judge.sometimes["clock jumped under a timer"] += timers
            machine.skew += fault.lasts
        elif fault.kind == "release":
            machine.release_asked = True

    def _message_fault(self, machine: Machine, operation: Operation) -> Fault | None:
        name, run = operation.name, self._numbers.get(operation.run_id, -1)
        call = machine.calls[name, run]
        machine.calls[name, run] += 1
        if self._rates is None:
            fault = self._messages.get((machine.number, name, run, call))
        elif self.scheduler.now < self.until:
            fault = self._rates.drawn(self._luck[machine.number], machine.number, name, run, call)
        else:
            fault = None
        if fault is not None:
            self.fired.append(fault)
        return fault

    # -- the network --

    def calling(self, machine: Machine, operation: Operation) -> Arrangement:
        """Arranges that a call is made, and its task resumed with the answer."""

        def arrange(task: Any) -> None:
            now = self.scheduler.now
            fault = self._message_fault(machine, operation)
            call = _Call(task, machine, operation, now, fault)
            self.judge.sent(operation, now)
            self.scheduler.after(TIMEOUT, self._give_up, call)
            kind = fault.kind if fault is not None else None
            if kind == "lose request" or now < machine.mute_until:
                self.trace.lost(now, machine.name, operation)
                return
            hop = self._hop(machine)
            if fault is not None and kind in ("delay request", "freeze", "die"):
                hop += fault.lasts
                if kind != "delay request":
                    self.scheduler.after(0, self._strike_machine, machine, fault)
            self._flight.setdefault(operation.run_id, []).append(call)
            self._travelling += 1
            self.scheduler.after(hop, self._arrive, call)

        return arrange

    def _hop(self, machine: Machine) -> int:
        hop = 2 if self.calm else self._dice[machine.number].skewed(1, 40)
        return hop * SLOWER if self.scheduler.now < machine.slow_until else hop

    def _arrive(self, call: _Call) -> None:
        now, operation, machine = self.scheduler.now, call.operation, call.machine
        travelling = self._flight[operation.run_id]
        travelling.remove(call)
        self._travelling -= 1
        back = self._hop(machine)
        if now < self._outage_until:
            self.judge.sometimes["refused by an outage"] += 1
            self.trace.refused(now, machine.name, operation)
            away = JournalUnavailable("the store is away", operation=operation.name, run_id=operation.run_id)
            self.scheduler.after(back, self._answer, call, None, away)
            return
        gone = call.answered or call.caller != machine.caller
        fault = call.fault.kind if call.fault is not None else None
        deaf = now < machine.deaf_until or fault == "lose reply"
        if call.fault is not None and fault == "delay reply":
            back += call.fault.lasts
        # Whether anybody hears of it: not when it comes too late, or when the machine is gone.
        unseen = deaf or gone or now + back > call.sent + TIMEOUT
        remark = "late" if gone else "unseen" if unseen else ""
        outcome = self._perform(machine.name, call.caller, operation, remark)
        self._count(call, outcome, travelling, gone=gone, unseen=unseen)
        if call.fault is not None and fault == "stall" and not gone:
            self.scheduler.after(back, self._stall, call)
        if self.finding is None and not deaf:
            value, error = _returned(operation, outcome)
            self.scheduler.after(back, self._answer, call, value, error)

    def _stall(self, call: _Call) -> None:
        if call.fault is not None and call.caller == call.machine.caller:
            self._strike_machine(call.machine, call.fault)

    def _perform(self, name: str, caller: Caller | None, operation: Operation, remark: str) -> Outcome:
        """Carry out a call at the store, now, and have it judged; a finish is looked at at once."""
        now = self.scheduler.now
        carried_out = self.store.perform(name, operation)
        for place, (done, outcome) in enumerate(carried_out):
            self.operations += 1
            self.trace.effect(now, name, done, outcome, remark)
            # What comes after the first is the kit's doing, not the worker's.
            self._found(self.judge.effect(caller if place == 0 else None, done, outcome, now))
            if self.finding is not None:
                break
        # Of an acquire that took two: what the acquire gave, unless the renewal failed.
        answer = next((outcome for _, outcome in carried_out if not outcome.ok), carried_out[0][1])
        if answer.ok and self.finding is None:
            self._afterwards(operation, answer)
        return answer

    def _afterwards(self, operation: Operation, outcome: Outcome) -> None:
        name, run_id = operation.name, operation.run_id
        if name in FINISHES:
            self._audit(run_id, snapshots=False)
        elif name in ("acquire", "renew") and not self.store.virtual:
            lease = outcome.value if name == "acquire" else operation.arguments["lease"]
            ttl = operation.arguments["ttl"]
            self._expiry[run_id] = self._expiry.get(run_id, 0) + 1
            self.judge.book(run_id).expires = self.scheduler.now + round(1_000 * ttl)
            if ttl and isinstance(lease, Lease):
                self.scheduler.after(round(1_000 * ttl), self._expire, lease, self._expiry[run_id])

    def _expire(self, lease: Lease, version: int) -> None:
        """In a store that keeps real time: the lease expires in the world's."""
        run = self.judge.book(lease.run_id).run
        if self._expiry[lease.run_id] != version or run is None or run.lease is None:
            return
        if run.lease.token == lease.token:
            arguments = {"instance": self.store.instance, "lease": lease, "ttl": 0}
            self._perform(KIT, None, Operation("renew", arguments, KIT), "")

    def _audit(self, run_id: str, *, snapshots: bool) -> None:
        """Look at a run with the kit's own eyes."""
        about = {"instance": self.store.instance, "run_id": run_id}
        self._perform(KIT, None, Operation("load", about, KIT), "audit")
        self._perform(KIT, None, Operation("get_run", about, KIT), "audit")
        if snapshots:
            paired = Operation("load_with_snapshot", {**about, "lease_token": None}, KIT)
            self._perform(KIT, None, paired, "audit")

    def _answer(self, call: _Call, value: Any, error: Exception | None) -> None:
        if not call.answered:
            call.answered = True
            self._deliver(call.machine, call.task, value, error)

    def _give_up(self, call: _Call) -> None:
        if not call.answered and not call.task.dead:
            self.trace.gave_up(self.scheduler.now, call.machine.name, call.operation)
            self._answer(
                call,
                None,
                JournalUnavailable(
                    "no answer came in time",
                    outcome_unknown=True,
                    operation=call.operation.name,
                    run_id=call.operation.run_id,
                ),
            )

    def _count(
        self, call: _Call, outcome: Outcome, travelling: list[_Call], *, gone: bool, unseen: bool
    ) -> None:
        count, name = self.judge.sometimes, call.operation.name
        if name == "append" and gone:
            count["late append"] += 1
            count["late append refused"] += not outcome.ok
        if not outcome.ok:
            return
        if unseen:
            count["append unseen"] += name == "append"
            count["finish unseen"] += name in FINISHES
            count["acquire unseen"] += name == "acquire"
            if name == "start_run":
                self.judge.book(call.operation.run_id).unsure = True
        if name == "acquire":
            others = {c.operation.name for c in travelling if c.caller != call.caller}
            count["takeover during an append"] += "append" in others
            count["takeover during a finish"] += bool(others & FINISHES)

    # -- the queue --

    def offer(self, run_id: str, seconds: float = 0.0) -> None:
        """Let the queue offer a run after so long, and again and again from then on."""
        self.queue.offer(run_id, round(1_000 * seconds))

    def wake(self, run_id: str, seconds: float) -> None:
        """Let the queue offer a run after so long; it may err and offer it before."""
        run, millis = self._numbers.get(run_id, -1), round(1_000 * seconds)
        self.queue.offer(run_id, millis)
        call = self._woken[run]
        self._woken[run] += 1
        if self._rates is None:
            fault = self._messages.get((QUEUE, "", run, call))
        elif self.scheduler.now < self.until and self._wakes.chance(self._rates.early):
            fault = Fault(EARLY, QUEUE, call=call, lasts=self._wakes.whole(0, max(0, millis)), run=run)
        else:
            fault = None
        if fault is not None and fault.lasts < millis:
            self.fired.append(fault)
            self.queue.also(run_id, fault.lasts, lambda now: self.trace.fault(now, "queue", fault, run_id))


async def _started(node: Node, run_id: str, workflow: str, given: Any) -> None:
    """The client: starts a run, as often as it takes, and tells the queue."""
    while True:
        try:
            await node.journal.start_run(node.instance, run_id, workflow, given)
        except JournalUnavailable:
            await node.sleep(1)
        except ERRORS["RunAlreadyExists"]:
            break
        else:
            break
    node.offer(run_id)


_HERE = Path(__file__).parent


def _blocking(value: Any, function: Callable[..., Any]) -> None:
    if inspect.iscoroutine(value):
        value.close()
        name = getattr(function, "__name__", type(function).__name__)
        raise TypeError(f"{name} is a plain function that returns a coroutine; write it as `async def`")


def _returned(operation: Operation, outcome: Outcome) -> tuple[Any, Exception | None]:
    """What a caller gets of an outcome: its value, or the error to be raised."""
    if outcome.ok:
        return outcome.value, None
    kind = ERRORS.get(outcome.error or "", InvalidArgument)
    # The text of the adapter's error begins with what it was about, as that of ours will.
    reason = outcome.message.removeprefix(f"{operation.name} on run {operation.run_id!r}: ")
    if kind is JournalUnavailable:
        return None, JournalUnavailable(
            reason,
            outcome_unknown=outcome.unknown,
            operation=operation.name,
            run_id=operation.run_id,
        )
    return None, kind(reason, operation=operation.name, run_id=operation.run_id)
