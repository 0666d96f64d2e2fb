"""Engines that are wrong on purpose; each is the kit's own but for one thing. The docstrings say how people come to it."""

from __future__ import annotations

from continuum_conformance.contract import (
    JournalUnavailable,
    LeaseLost,
    LeaseMismatch,
    RunNotActive,
    SequenceConflict,
    Snapshot,
    SnapshotConflict,
)
from continuum_conformance.simulate.engine import Abandoned, Engine, Progress

WRONG: dict[str, tuple[str, ...]] = {}
"""By name of the worker function: the judges who may find it."""


def wrong(*judges):
    def register(cls):
        name = f"{cls.__name__}"
        globals()[f"worker_{name}"] = cls().work
        WRONG[f"{__name__}:worker_{name}"] = judges
        return cls

    return register


@wrong("step")
class IgnoresTheRenewal(Engine):
    """The heartbeat logs that a renewal failed, and goes on: the next one will be better."""

    async def keep(self, node, held):
        while True:
            await node.sleep(self.beat)
            if held.ended or held.lost:
                return
            held.until = node.monotonic() + self.ttl
            try:
                await node.journal.renew(node.instance, held.lease, self.ttl)
            except (LeaseLost, RunNotActive, JournalUnavailable):
                continue


@wrong("writer")
class FinishesUnfenced(Engine):
    """The lease is given back first, so that a finish is never refused for a stale token."""

    async def finish(self, node, held, progress):
        workflow = progress.workflow
        await self.give_back(node, held)
        finish = node.journal.fail if workflow.fails else node.journal.complete
        await finish(node.instance, held.lease.run_id, workflow.outcome(progress.values), None)


@wrong("snapshot")
class SnapshotsBeyondTheReplay(Engine):
    """The snapshot is marked with the journal's present length, not with what its values were replayed from."""

    async def snapshot(self, node, held, progress):
        every = progress.workflow.snapshot_every
        if not every or progress.seq % every:
            return
        events = await node.journal.load(node.instance, held.lease.run_id)
        values = dict(progress.values)
        taken = Snapshot(
            held.lease.run_id, len(events) - 1, progress.workflow.version_hash, node.today(), values
        )
        try:
            await node.journal.take_snapshot(node.instance, taken)
        except (JournalUnavailable, SnapshotConflict):
            return


@wrong("history")
class SendsAnUnknownAppendAgain(Engine):
    """An append that was not answered is sent again, and the journal is left to count the events."""

    async def append(self, node, held, progress, event):
        for _ in range(3):
            try:
                await node.journal.append(node.instance, held.lease.run_id, event, held.lease.token)
            except JournalUnavailable:
                await node.sleep(1)
                continue
            return
        raise Abandoned


@wrong("step")
class KeepsItsLeaseOverAPause(Engine):
    """The lease was good when the step began, and nobody looks again: a machine that stood still does not know it."""

    async def earn(self, node, held, progress):
        entry = progress.workflow.entries[progress.seq]
        if entry.kind != "step":
            return await super().earn(node, held, progress)
        if self.overdue(node, held):
            raise Abandoned
        await node.sleep(entry.seconds)
        node.perform(held.lease.run_id, f"step {entry.index}", held.lease)
        return entry.event(progress.workflow.value(entry, progress.last))


@wrong("timer")
class TimersByItsOwnClock(Engine):
    """Timers are set and seen to be due by the machine's wall clock."""

    def time(self, node):
        return node.clock()


@wrong("history", "finish", "worker", "snapshot")
class RemembersRunsOverLeases(Engine):
    """What was replayed is kept in memory, and taken up again with the next lease on the run."""

    def __init__(self):
        self.memory = {}

    async def work(self, node):
        memory = {}
        while True:
            run_id = await node.next_run()
            self_ = RemembersRunsOverLeases()
            self_.memory = memory
            await self_.attempt(node, run_id)

    async def carry_on(self, node, held):
        run_id = held.lease.run_id
        run = await node.journal.get_run(node.instance, run_id)
        if run.state.terminal:
            node.done(run_id)
            return
        workflow = node.workflows[run.workflow]
        if run_id not in self.memory:
            snapshot, events = await node.journal.load_with_snapshot(node.instance, run_id, held.lease.token)
            self.memory[run_id] = Progress.replayed(workflow, snapshot, events)
        progress = self.memory[run_id]
        while progress.seq < len(workflow):
            event = await self.earn(node, held, progress)
            if event is None:
                return
            # Numbered by the journal: it will know.
            await node.journal.append(node.instance, run_id, event, held.lease.token)
            progress.add(event)
        await self.finish(node, held, progress)
        node.done(run_id)


@wrong("liveness")
class ForgetsARunThatItLost(Engine):
    """A run whose lease was lost is somebody else's now, so the queue is told to forget it."""

    async def attempt(self, node, run_id):
        held = await self.claim(node, run_id)
        if held is None:
            return
        node.spawn(self.keep, node, held)
        try:
            await self.carry_on(node, held)
        except (LeaseMismatch, LeaseLost, RunNotActive, JournalUnavailable, SequenceConflict, Abandoned):
            node.done(run_id)
        held.ended = True


@wrong("finish")
class FinishesWhenAStepIsLost(Engine):
    """Whatever stops a run is an error of its own: so the run is failed with it."""

    async def carry_on(self, node, held):
        try:
            await super().carry_on(node, held)
        except JournalUnavailable as error:
            await node.journal.fail(node.instance, held.lease.run_id, str(error), held.lease.token)
            node.done(held.lease.run_id)


@wrong("worker")
class KnowsNoLeaseMismatch(Engine):
    """Nobody wrote a handler for the one error that only a takeover brings."""

    async def attempt(self, node, run_id):
        held = await self.claim(node, run_id)
        if held is None:
            return
        node.spawn(self.keep, node, held)
        try:
            await self.carry_on(node, held)
        except (JournalUnavailable, SequenceConflict, Abandoned):
            await self.give_back(node, held)
        held.ended = True
