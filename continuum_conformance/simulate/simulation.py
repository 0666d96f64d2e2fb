"""One world, from a scenario to what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from uuid import UUID

from continuum_conformance.contract.records import Instance
from continuum_conformance.contract.targets import TargetError
from continuum_conformance.harness import Subject
from continuum_conformance.model import Specification
from continuum_conformance.simulate.cluster import Cluster, Worker
from continuum_conformance.simulate.engine import worker as kit_worker
from continuum_conformance.simulate.expected import OfWorkflow
from continuum_conformance.simulate.judge import Finding, Judge
from continuum_conformance.simulate.nemesis import Fault
from continuum_conformance.simulate.scenario import Scenario
from continuum_conformance.simulate.scheduler import Scheduler
from continuum_conformance.simulate.store import EPOCH, Store
from continuum_conformance.simulate.trace import Trace

__all__ = ["Simulated", "simulate"]


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


def simulate(
    scenario: Scenario,
    subject: Subject,
    *,
    worker: Worker = kit_worker,
    instance: str = "simulated",
) -> Simulated:
    """Let a scenario happen over an adapter.

    Args:
        scenario: the world.
        subject: the adapter, with what it needs; a harness with a ``clock`` must be a fresh one.
        worker: what each worker does.
        instance: the name of the instance; in a store that is used again, one that nobody has used.

    Raises:
        TargetError: when the adapter cannot be simulated.
        HarnessError: when the adapter cannot be opened or closed.
    """
    if "leases" not in subject.capabilities:
        raise TargetError(f"{subject.name} declares no `leases`; a cluster of workers needs them")
    scheduler = Scheduler()
    store = Store(subject, Instance(instance), lambda: EPOCH + scheduler.now / 1_000)
    runs = scenario.runs
    if not store.snapshots:
        runs = tuple(replace(run, workflow=replace(run.workflow, snapshot_every=0)) for run in runs)
    # Without `opaque_run_ids` only the canonical text of a UUID names a run.
    opaque = "opaque_run_ids" in subject.capabilities
    ids = {run.number: run.run_id if opaque else str(UUID(int=run.number + 1)) for run in runs}
    judge = Judge(
        Specification(subject.capabilities),
        {ids[run.number]: OfWorkflow(run.workflow) for run in runs},
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
        workflows={run.workflow.name: run.workflow for run in runs},
        run_ids=ids,
    )
    for run in runs:
        cluster.start(ids[run.number], run.workflow.name, run.workflow.input, run.start)
    try:
        cluster.run(scenario.until + scenario.bound)
    finally:
        cluster.end()
        store.close()
        subject.shutdown()
    return Simulated(
        scenario,
        cluster.finding,
        cluster.trace,
        judge.sometimes,
        cluster.operations,
        tuple(cluster.fired),
        scheduler.now,
    )
