"""A small durable-execution engine, right in all that a journal asks of one. The kit's workers run it.

It carries out the kit's workflows. Its rules, each of which some engine in the world has learnt the hard way:

1. A lease is ours until the time at which we *asked* for it plus its ttl, by a clock that never jumps; who is not sure
   any more does nothing more.
2. A renewal that is refused ends it. One whose answer never came does not prolong it.
3. Every append names its seq, so that one that is sent again cannot happen twice.
4. After an unknown outcome we believe nothing, and load the history anew.
5. A finish bears the token under which the history was loaded.
6. A snapshot holds what was replayed, and nothing else.
7. Whether a timer is due is asked of the clock that all agree on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from continuum_conformance.contract.errors import (
    JournalUnavailable,
    LeaseHeld,
    LeaseLost,
    LeaseMismatch,
    RunNotActive,
    RunNotFound,
    SequenceConflict,
)
from continuum_conformance.contract.records import Lease, Snapshot
from continuum_conformance.simulate.node import Node
from continuum_conformance.simulate.workflow import Entry, Workflow

__all__ = ["Engine", "Held", "Progress", "worker"]


class Abandoned(Exception):
    """The lease can no longer be trusted: the run is left to whoever comes."""


@dataclass
class Held:
    """A lease in hand."""

    lease: Lease
    until: float
    """By the machine's monotonic clock; from then on it may be another's."""
    lost: bool = False
    ended: bool = False
    """Whether work under it is over, so that nothing has to be renewed."""


@dataclass
class Progress:
    """How far a run has come, as replayed from its snapshot and events."""

    workflow: Workflow
    seq: int = 0
    """How many events there are."""
    values: dict[int, Any] = field(default_factory=dict)
    """What each step gave and when each timer is due, by seq."""

    @classmethod
    def replayed(
        cls, workflow: Workflow, snapshot: Snapshot | None, events: Sequence[Mapping[str, Any]]
    ) -> Progress:
        """From what `load_with_snapshot` gives."""
        progress = cls(workflow)
        if snapshot is not None:
            progress.seq, progress.values = snapshot.through_seq + 1, dict(snapshot.steps_by_seq)
        for event in events:
            progress.add(event)
        return progress

    def add(self, event: Mapping[str, Any]) -> None:
        """One more event."""
        if event["type"] == "step":
            self.values[self.seq] = event["value"]
        elif event["type"] == "timer":
            self.values[self.seq] = event["due"]
        self.seq += 1

    @property
    def last(self) -> int:
        """What the last step gave; the input before the first."""
        steps = [seq for seq in self.values if self.workflow.entries[seq].kind == "step"]
        return int(self.values[max(steps)]) if steps else self.workflow.input


class Engine:
    """The engine. Its coroutine `work` is what a machine does.

    Attributes:
        ttl: of its leases, in seconds.
        beat: seconds between two renewals.
        tries: how often it begins anew with a run after an unknown outcome before it leaves it to others.
    """

    ttl = 30.0
    beat = 8.0
    tries = 4

    async def work(self, node: Node) -> None:
        """Take one run after the other."""
        while True:
            await self.attempt(node, await node.next_run())

    async def attempt(self, node: Node, run_id: str) -> None:
        """Claim a run, and carry it on as far as it goes."""
        held = await self.claim(node, run_id)
        if held is None:
            return
        node.spawn(self.keep, node, held)
        for again in range(self.tries):
            try:
                await self.carry_on(node, held)
                break
            except (LeaseMismatch, LeaseLost, RunNotActive):
                break  # it is another's now, or finished
            except (JournalUnavailable, SequenceConflict):
                held.lost = held.lost or self.overdue(node, held)
                if held.lost:
                    break
                await node.sleep(1 + again)
            except Abandoned:
                await self.give_back(node, held)
                break
        held.ended = True

    async def claim(self, node: Node, run_id: str) -> Held | None:
        """Acquire the run's lease, if it is to be had."""
        asked = node.monotonic()
        try:
            lease = await node.journal.acquire(node.instance, run_id, node.name, self.ttl)
        except RunNotActive:
            node.done(run_id)
        except (LeaseHeld, RunNotFound, JournalUnavailable):
            pass  # somebody has it, or we do not know: it will be offered again
        else:
            return Held(lease, asked + self.ttl)
        return None

    async def keep(self, node: Node, held: Held) -> None:
        """Renew the lease as long as it is needed."""
        while True:
            await node.sleep(self.beat)
            if held.ended or held.lost:
                return
            if node.asked_to_release():
                await self.give_back(node, held)
                return
            asked = node.monotonic()
            try:
                await node.journal.renew(node.instance, held.lease, self.ttl)
            except (LeaseLost, RunNotActive):
                held.lost = True
                return
            except JournalUnavailable:
                continue
            held.until = max(held.until, asked + self.ttl)

    def overdue(self, node: Node, held: Held) -> bool:
        """Whether the lease may be another's by now."""
        return held.lost or node.monotonic() >= held.until

    async def give_back(self, node: Node, held: Held) -> None:
        """Release the lease; from before that moment on it is not ours."""
        held.lost = True
        with suppress(LeaseLost, RunNotActive, JournalUnavailable):  # it was lost already, or will expire
            await node.journal.release(node.instance, held.lease)

    async def carry_on(self, node: Node, held: Held) -> None:
        """Load a run, and go on from where it stands to its end, or to a timer worth parking for."""
        journal, run_id = node.journal, held.lease.run_id
        run = await journal.get_run(node.instance, run_id)
        if run.state.terminal:
            node.done(run_id)
            return
        workflow: Workflow = node.workflows[run.workflow]
        snapshot, events = await journal.load_with_snapshot(node.instance, run_id, held.lease.token)
        progress = Progress.replayed(workflow, snapshot, events)
        while progress.seq < len(workflow):
            event = await self.earn(node, held, progress)
            if event is None:
                return  # parked
            await self.append(node, held, progress, event)
            progress.add(event)
            await self.snapshot(node, held, progress)
        await self.finish(node, held, progress)
        node.done(run_id)

    async def earn(self, node: Node, held: Held, progress: Progress) -> dict[str, Any] | None:
        """Do what the next event stands for; None when the run was parked instead."""
        entry = progress.workflow.entries[progress.seq]
        if entry.kind == "timer":
            return {
                **entry.event(),
                "due": self.time(node) + progress.workflow.entries[progress.seq + 1].seconds,
            }
        if entry.kind == "fired":
            return await self.wait(node, held, progress, entry)
        await node.sleep(entry.seconds)
        if entry.kind == "attempt":
            return entry.event()
        if self.overdue(node, held):
            raise Abandoned
        node.perform(held.lease.run_id, f"step {entry.index}", held.lease)
        return entry.event(progress.workflow.value(entry, progress.last))

    def time(self, node: Node) -> float:
        """The clock by which timers run."""
        return node.time()

    async def wait(self, node: Node, held: Held, progress: Progress, entry: Entry) -> dict[str, Any] | None:
        """Wait for a timer: in hand when it is short, else with the run suspended and given back."""
        left = progress.values[progress.seq - 1] - self.time(node)
        if left > self.ttl:
            await node.journal.suspend(node.instance, held.lease.run_id, held.lease.token)
            node.wake(held.lease.run_id, left)
            await self.give_back(node, held)
            return None
        if left > 0:
            await node.sleep(left)
        return entry.event()

    async def append(self, node: Node, held: Held, progress: Progress, event: dict[str, Any]) -> None:
        """Append an event under its seq."""
        await node.journal.append(
            node.instance, held.lease.run_id, {**event, "seq": progress.seq}, held.lease.token
        )

    async def snapshot(self, node: Node, held: Held, progress: Progress) -> None:
        """Take a snapshot where one is due; going without is no harm."""
        every = progress.workflow.snapshot_every
        if not every or progress.seq % every:
            return
        taken = Snapshot(
            held.lease.run_id,
            progress.seq - 1,
            progress.workflow.version_hash,
            node.today(),
            dict(progress.values),
        )
        for _ in range(2):
            try:
                await node.journal.take_snapshot(node.instance, taken)
            except JournalUnavailable:
                continue
            return

    async def finish(self, node: Node, held: Held, progress: Progress) -> None:
        """Complete the run, or fail it where that is its end."""
        workflow = progress.workflow
        finish = node.journal.fail if workflow.fails else node.journal.complete
        await finish(node.instance, held.lease.run_id, workflow.outcome(progress.values), held.lease.token)


worker = Engine().work
"""What the kit's own workers do."""
