"""The queue that offers runs to workers, in place of an engine's list of runs.

It knows nothing of leases: it offers each unfinished run to somebody again and again, so a run is never forgotten,
and often offered to a second worker while the first is at work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from continuum_conformance.simulate.dice import Dice
from continuum_conformance.simulate.machine import Machine
from continuum_conformance.simulate.scheduler import Arrangement, Scheduler

__all__ = ["Queue"]

REDELIVERY = 40_000
"""Milliseconds after which a run that was offered is offered again, unless the queue was told something else."""


class Queue:
    """Offers runs.

    Args:
        scheduler: the order of events.
        dice: who of those who wait is offered a run.
        deliver: resumes a task on a machine with a value or an error.
        calm: it is always the one that waits longest.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        dice: Dice,
        deliver: Callable[[Machine, Any, Any, Any], None],
        *,
        calm: bool,
    ) -> None:
        self._scheduler, self._dice, self._deliver, self._calm = scheduler, dice, deliver, calm
        self._offers: dict[str, int] = {}
        self._ready: list[str] = []
        self._waiting: list[tuple[Machine, Any]] = []

    def offer(self, run_id: str, delay: int) -> None:
        """Offer a run after so many milliseconds, and again and again from then on."""
        number = self._offers[run_id] = self._offers.get(run_id, 0) + 1
        self._scheduler.after(max(0, delay), self._due, run_id, number)

    def also(self, run_id: str, delay: int, told: Callable[[int], None]) -> None:
        """Offer a run before its time as well, unless something is said of it by then.

        Args:
            run_id: the run.
            delay: milliseconds.
            told: called with the moment when it is done.
        """
        self._scheduler.after(delay, self._early, run_id, self._offers[run_id], told)

    def finished(self, run_id: str) -> None:
        """Offer a run no more."""
        self._offers[run_id] = self._offers.get(run_id, 0) + 1
        self._ready = [known for known in self._ready if known != run_id]

    def waiting(self, machine: Machine) -> Arrangement:
        """Arranges that a task is resumed with the next run that is offered to its machine."""

        def arrange(task: Any) -> None:
            if machine.inbox:
                self._scheduler.after(0, self._deliver, machine, task, machine.inbox.pop(0), None)
                return
            self._waiting.append((machine, task))
            self._match()

        return arrange

    def stampede(self, run_id: str, machines: Sequence[Machine]) -> None:
        """Offer a run to all of these machines at once."""
        if run_id not in self._offers:
            return
        for machine in machines:
            machine.inbox.append(run_id)
        waiting, self._waiting = self._waiting, []
        for machine, task in waiting:
            if machine.inbox:
                self._scheduler.after(1, self._deliver, machine, task, machine.inbox.pop(0), None)
            else:
                self._waiting.append((machine, task))

    def forget(self, machine: Machine) -> None:
        """Nobody waits on this machine any more."""
        self._waiting = [(who, task) for who, task in self._waiting if who is not machine]

    def _due(self, run_id: str, number: int) -> None:
        if self._offers[run_id] == number and run_id not in self._ready:
            self._ready.append(run_id)
            self._match()

    def _early(self, run_id: str, number: int, told: Callable[[int], None]) -> None:
        if self._offers[run_id] == number and run_id not in self._ready:
            told(self._scheduler.now)
            self._ready.append(run_id)
            self._match(redeliver=False)

    def _match(self, *, redeliver: bool = True) -> None:
        self._waiting = [(machine, task) for machine, task in self._waiting if not task.dead]
        while self._ready and self._waiting:
            which = 0 if self._calm else self._dice.whole(0, len(self._waiting) - 1)
            machine, task = self._waiting.pop(which)
            run_id = self._ready.pop(0)
            if redeliver:
                self.offer(run_id, REDELIVERY)
            self._scheduler.after(1, self._deliver, machine, task, run_id, None)
