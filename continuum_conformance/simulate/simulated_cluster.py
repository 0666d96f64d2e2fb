"""For those who write engines: their own worker function in a simulated cluster.

::

    def test_my_engine():
        runs = [SimulatedRun("order-1", "order", {"amount": 3}, result={"paid": 3})]
        SimulatedCluster(my_worker, runs).check(range(200))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from continuum_conformance.harness import Subject
from continuum_conformance.simulate.cluster import Worker
from continuum_conformance.simulate.dice import Dice
from continuum_conformance.simulate.expected import SimulatedRun
from continuum_conformance.simulate.nemesis import EARLY, KINDS, MESSAGES, Rates, draw_faults, draw_rates
from continuum_conformance.simulate.scenario import HOUR, PlannedRun, Scenario
from continuum_conformance.simulate.shrinking import shrink
from continuum_conformance.simulate.simulation import Simulated, simulate
from continuum_conformance.simulate.story import story_lines
from continuum_conformance.simulate.workflow import Workflow

__all__ = ["FAULTS", "SimulatedCluster", "SimulationFailed"]

FAULTS = (*KINDS, *MESSAGES, EARLY)
"""All kinds of fault."""


class SimulationFailed(AssertionError):
    """Something was wrong in a world; the text tells its story.

    Attributes:
        seed: of the world.
        simulated: the smallest world in which the same was wrong.
    """

    def __init__(self, seed: int, simulated: Simulated) -> None:
        super().__init__(f"the world of seed {seed}, made smaller:\n\n" + "\n".join(story_lines(simulated)))
        self.seed = seed
        self.simulated = simulated


class SimulatedCluster:
    """Machines that run a worker function over one journal, in virtual time, while things go wrong.

    Args:
        worker: what each machine does: a coroutine function or a plain one, called with a `Node`.
        runs: what is started, and what must come of it.
        workers: how many machines there are.
        hours: of virtual time in which runs are started and things go wrong.
        faults: the kinds of fault that there may be, of `FAULTS`; by default all.
        journal: the adapter: a target string, a harness, or a class or factory of one, which each world makes anew.
        within: hours after the last fault within which every run must be finished.

    Raises:
        ValueError: when a run's id stands twice, or a fault is unknown.
    """

    def __init__(
        self,
        worker: Worker,
        runs: Iterable[SimulatedRun],
        *,
        workers: int = 3,
        hours: float = 1.0,
        faults: Collection[str] = FAULTS,
        journal: Any = "in_memory",
        within: float = 6.0,
    ) -> None:
        self._worker, self._journal = worker, journal
        self._runs = dict(enumerate(runs))
        self._workers, self._until = tuple(range(1, workers + 1)), round(hours * HOUR)
        self._faults = frozenset(faults)
        self._within = round(within * HOUR)
        unknown = self._faults - {*FAULTS}
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))} is no fault; there are {', '.join(FAULTS)}")
        ids = [run.run_id for run in self._runs.values()]
        if not ids or len(set(ids)) < len(ids):
            raise ValueError("a cluster needs runs, each with an id of its own")

    def scenario(self, seed: int) -> Scenario:
        """The world of a seed."""
        dice = Dice(seed, "nemesis")
        faults = draw_faults(dice, self._workers, len(self._runs), self._until)
        drawn = draw_rates(dice)
        kept = {kind.replace(" ", "_") for kind in self._faults & {*MESSAGES, EARLY}}
        rates = replace(Rates(), **{name: getattr(drawn, name) for name in kept})
        return Scenario(
            seed,
            self._workers,
            tuple(
                PlannedRun(number, round(1_000 * run.start), Workflow(run.workflow, (), 0))
                for number, run in self._runs.items()
            ),
            tuple(fault for fault in faults if fault.kind in self._faults),
            rates,
            self._until,
            self._within,
        )

    def simulate(self, scenario: Scenario) -> Simulated:
        """Let a world happen. Raises `TargetError` and `HarnessError` when the journal cannot be opened."""
        return simulate(scenario, Subject(self._journal), worker=self._worker, given=self._runs)

    def run(self, seed: int = 0) -> Simulated:
        """Let the world of a seed happen, and see what came of it."""
        return self.simulate(self.scenario(seed))

    def check(self, seeds: Iterable[int]) -> Counter[str]:
        """Let a world happen for each seed, and tell how often each rare situation was met (`SOMETIMES`).

        Raises:
            SimulationFailed: at the first in which something was wrong, with the story of the smallest like it.
        """
        met: Counter[str] = Counter()
        for seed in seeds:
            found = self.run(seed)
            met += found.sometimes
            if found.finding is not None:
                raise SimulationFailed(seed, shrink(found, self.simulate)[0])
        return met
