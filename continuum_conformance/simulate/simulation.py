"""One world, from a scenario to what came of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from continuum_conformance.contract.records import Instance
from continuum_conformance.contract.targets import TargetError
from continuum_conformance.harness import Subject
from continuum_conformance.model import Operation, Specification
from continuum_conformance.simulate.cluster import Cluster, Worker
from continuum_conformance.simulate.engine import worker as kit_worker
from continuum_conformance.simulate.expected import Expected, OfWorkflow, SimulatedRun
from continuum_conformance.simulate.judge import Finding, Judge
from continuum_conformance.simulate.nemesis import Fault
from continuum_conformance.simulate.scenario import Scenario
from continuum_conformance.simulate.scheduler import Scheduler
from continuum_conformance.simulate.store import EPOCH, Store
from continuum_conformance.simulate.trace import Trace

__all__ = ["HANG", "Simulated", "simulate"]

HANG = "hang"
"""Ends the shape of a finding that a call, or a worker, did not come back."""


@dataclass
class Simulated:
    """What came of a world.

    Attributes:
        scenario: the world.
        finding: the first thing that was wrong, if anything was.
        trace: all that happened.
        sometimes: how often each rare situation was met.
        operations: how many calls reached the store.
        fired: the faults that struck.
        ended: when it was over, in milliseconds.
    """

    scenario: Scenario
    finding: Finding | None
    trace: Trace
    sometimes: Counter[str]
    operations: int
    fired: tuple[Fault, ...]
    ended: int

    @property
    def written_out(self) -> Scenario:
        """The scenario with the faults of its messages as they fell, so that nothing of them is left to chance."""
        return replace(self.scenario, faults=self.fired, rates=None)


@dataclass(frozen=True)
class _Planned:
    """A run as it is started."""

    number: int
    run_id: str
    workflow: str
    input: Any
    start: int
    expected: Expected


def _planned(
    scenario: Scenario, given: Mapping[int, SimulatedRun] | None, capabilities: Collection[str]
) -> list[_Planned]:
    planned = []
    for run in scenario.runs:
        about = given.get(run.number) if given is not None else None
        if about is not None:
            planned.append(_Planned(run.number, about.run_id, about.workflow, about.input, run.start, about))
            continue
        workflow = run.workflow
        if "snapshots" not in capabilities:
            workflow = replace(workflow, snapshot_every=0)
        # Without `opaque_run_ids` only the canonical text of a UUID names a run.
        run_id = run.run_id if "opaque_run_ids" in capabilities else str(UUID(int=run.number + 1))
        expected = OfWorkflow(workflow)
        planned.append(_Planned(run.number, run_id, workflow.name, workflow.input, run.start, expected))
    return planned


def _hang(stuck: Operation | None, now: int, limit: float) -> Finding:
    if stuck is None:
        said = f"a worker has asked for nothing for {limit:g} s of real time; is an await missing in a loop?"
        return Finding("worker", said, now, shape=HANG)
    said = f"{stuck.name} did not come back within {limit:g} s"
    return Finding("model", said, now, stuck.run_id, ("CON-4",), f"{stuck.name} {HANG}")


def _watched(cluster: Cluster, store: Store, end: int, limit: float) -> Finding | None:
    """Let the world go on to its end, and watch that it does go on: a call or a worker that hangs is a finding.

    The world has no part in it: it is in a thread of its own, and only looked at in real time now and then.
    """
    over = threading.Event()
    raised: list[BaseException] = []

    def go() -> None:
        try:
            try:
                cluster.run(end)
            finally:
                cluster.end()
        except BaseException as error:  # noqa: BLE001 - handed on below
            raised.append(error)
        over.set()

    threading.Thread(target=go, name="world", daemon=True).start()
    seen = (-1, -1)
    while not over.wait(limit):
        stuck, moved = store.inside, (store.calls, cluster.scheduler.done)
        if moved == seen:
            return _hang(stuck, cluster.scheduler.now, limit)
        seen = moved
    if raised:
        raise raised[0]
    return None


def simulate(
    scenario: Scenario,
    subject: Subject,
    *,
    worker: Worker = kit_worker,
    instance: str = "simulated",
    given: Mapping[int, SimulatedRun] | None = None,
) -> Simulated:
    """Let a scenario happen over an adapter.

    Args:
        scenario: the world.
        subject: the adapter, with what it needs; a harness with a ``clock`` must be a fresh one.
        worker: what each worker does.
        given: what the scenario's runs are, by their numbers; by default, what their workflows say.
        instance: the name of the instance; in a store that is used again, one that nobody has used.

    Raises:
        TargetError: when the adapter cannot be simulated.
        HarnessError: when the adapter cannot be opened or closed.
    """
    if "leases" not in subject.capabilities:
        raise TargetError(f"{subject.name} declares no `leases`; a cluster of workers needs them")
    scheduler = Scheduler()
    store = Store(subject, Instance(instance), lambda: EPOCH + scheduler.now / 1_000)
    planned = _planned(scenario, given, subject.capabilities)
    judge = Judge(
        Specification(subject.capabilities),
        {run.run_id: run.expected for run in planned},
        virtual=store.virtual,
    )
    cluster = Cluster(
        scenario.seed,
        scenario.workers,
        worker,
        store,
        judge,
        scheduler,
        faults=scenario.faults,
        rates=scenario.rates,
        until=scenario.until,
        calm=scenario.calm,
        workflows={
            run.workflow: run.expected.workflow for run in planned if isinstance(run.expected, OfWorkflow)
        },
        run_ids={run.number: run.run_id for run in planned},
    )
    for run in planned:
        cluster.start(run.run_id, run.workflow, run.input, run.start)
    finding = _watched(cluster, store, scenario.until + scenario.bound, subject.limit)
    if finding is None:  # else a call is still under way
        store.close()
        subject.shutdown()
    return Simulated(
        scenario,
        cluster.finding or finding,
        cluster.trace,
        judge.sometimes,
        cluster.operations,
        tuple(cluster.fired),
        scheduler.now,
    )
