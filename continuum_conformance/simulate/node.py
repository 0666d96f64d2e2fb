"""What a worker function sees of its machine: the journal, its clocks, the queue, and chance.

A worker is a coroutine function, and awaits what it asks for; or a plain function, for which the same calls block::

    async def worker(node):
        while True:
            run_id = await node.next_run()
            lease = await node.journal.acquire(node.instance, run_id, node.name, 30)
            ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.records import Instance, Lease
from continuum_conformance.contract.terms import copy_term
from continuum_conformance.model import Operation
from continuum_conformance.simulate.dice import Dice
from continuum_conformance.simulate.scheduler import Arrangement, ThreadTask, ask, is_coroutine_function
from continuum_conformance.simulate.store import EPOCH

if TYPE_CHECKING:
    from continuum_conformance.simulate.cluster import Cluster
    from continuum_conformance.simulate.machine import Machine

__all__ = ["Node", "NodeJournal"]


class Node:
    """A worker's machine, in one of its lives. Whatever it keeps in memory is gone when the machine dies.

    Methods marked *awaited* are awaited by a coroutine, and block a plain function; both take virtual time only.

    Attributes:
        journal: the journal, at the other end of a network; each method is *awaited*. It raises the contract's
            errors; ``JournalUnavailable`` says in ``outcome_unknown`` whether the call may have happened, or may yet.
        instance: in which all runs are.
        name: the worker's name, as in ``w1``.
        workflows: the kit's own workflows by name, when the runs are the kit's.
        dice: seeded chance of the worker's own.
    """

    def __init__(self, cluster: Cluster, machine: Machine, *, blocking: bool) -> None:
        self._cluster, self._machine = cluster, machine
        self._blocking, self._life = blocking, machine.life
        self.name = machine.name
        self.instance: Instance = cluster.store.instance
        self.workflows: Mapping[str, Any] = cluster.workflows
        self.dice = Dice(cluster.seed, "worker", machine.number, machine.life)
        self.journal = NodeJournal(self._call)

    def _ask(self, arrange: Arrangement) -> Any:
        return ThreadTask.current().block(arrange) if self._blocking else ask(arrange)

    def _call(self, name: str, *values: Any, **named: Any) -> Any:
        operation = _operation(self.name, name, values, named)
        return self._ask(self._cluster.calling(self._machine, operation))

    def sleep(self, seconds: float) -> Any:
        """*Awaited.* Let time go by."""
        return self._ask(self._cluster.sleeping(self._machine, seconds))

    def next_run(self) -> Any:
        """*Awaited.* The id of a run that may be worth claiming: it was started, its wake-up came, or it was offered
        before and the queue has heard nothing since. Another worker may hold it all the same.
        """
        return self._ask(self._cluster.queue.waiting(self._machine))

    def wake(self, run_id: str, seconds: float) -> None:
        """Tell the queue to offer a run after so long. It may offer it before: who is offered a run looks at its timer."""
        if self._alive():
            self._cluster.wake(run_id, seconds)

    def done(self, run_id: str) -> None:
        """Tell the queue that a run is finished, and need not be offered any more."""
        if self._alive():
            self._cluster.queue.finished(run_id)

    def offer(self, run_id: str) -> None:
        """Tell the queue of a run that was started."""
        self._cluster.offer(run_id)

    def spawn(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Do one more thing on this machine at the same time: a function of the same form as the worker's.

        Raises:
            TypeError: when a coroutine function is given to a worker that blocks, or a plain one to a coroutine.
        """
        if is_coroutine_function(function) is self._blocking:
            due = "plain function that blocks" if self._blocking else "coroutine function"
            raise TypeError(f"spawn takes a {due} here, as the worker itself is one")
        if self._alive():
            self._cluster.spawn(self._machine, function, *arguments)

    def perform(self, run_id: str, what: str, lease: Lease) -> None:
        """Carry out a step, as far as the world outside is concerned: charge the card, send the letter.

        It happens at once, and a judge sees whether the worker holds the run's lease at that moment.
        """
        if self._alive():
            self._cluster.performed(self._machine, run_id, what, lease)

    def time(self) -> float:
        """The time that all machines agree on (a time service's), in seconds since 1970."""
        return EPOCH + self._cluster.scheduler.now / 1_000

    def clock(self) -> float:
        """The machine's own wall clock, in seconds since 1970. It may be wrong, and jump."""
        return EPOCH + (self._cluster.scheduler.now + self._machine.skew) / 1_000

    def today(self) -> datetime:
        """The machine's own wall clock as an aware datetime."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def monotonic(self) -> float:
        """Seconds that only ever grow, and go on while the machine stands still. They mean nothing elsewhere."""
        return self._cluster.scheduler.now / 1_000

    def asked_to_release(self) -> bool:
        """Whether the worker has been asked, since it last looked, to give its leases back (a rolling update, say)."""
        asked, self._machine.release_asked = self._machine.release_asked, False
        return asked

    def _alive(self) -> bool:
        return self._machine.up and self._machine.life == self._life


class NodeJournal:
    """A journal at the other end of a network; the form of its methods is the worker's."""

    def __init__(self, call: Callable[..., Any]) -> None:
        for name in OPERATIONS:
            setattr(self, name, _bound(call, name))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(f"a journal has no {name!r}; it has {', '.join(OPERATIONS)}")


def _bound(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    return lambda *values, **named: call(name, *values, **named)


def _operation(worker: str, name: str, values: tuple[Any, ...], named: Mapping[str, Any]) -> Operation:
    """A call as it goes over the network: what it carries is a copy of what the worker has.

    Raises ``TypeError`` for arguments that the operation does not take.
    """
    names = OPERATIONS[name]
    arguments = dict(zip(names, values, strict=False))
    if len(values) > len(names) or set(arguments) & set(named) or {*arguments, *named} != {*names}:
        raise TypeError(f"{name} takes {', '.join(names)}")
    arguments.update(named)
    for term in ("event", "input", "result", "error"):
        if term in arguments:
            arguments[term] = copy_term(arguments[term])
    return Operation(name, arguments, worker)
