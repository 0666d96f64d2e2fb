"""A scenario: everything that a simulation is made of, as plain data that a file can hold and that can be made smaller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from continuum_conformance.simulate.dice import Dice
from continuum_conformance.simulate.nemesis import Fault, Rates, draw_faults, draw_rates
from continuum_conformance.simulate.workflow import Entry, Workflow, draw_workflow

__all__ = ["PlannedRun", "Scenario"]

HOUR = 3_600_000


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run that is to be started.

    Attributes:
        number: it is called ``r<number>``, whatever others are left out.
        start: when, in milliseconds.
        workflow: what it carries out.
    """

    number: int
    start: int
    workflow: Workflow

    @property
    def run_id(self) -> str:
        """Its id."""
        return f"r{self.number}"


@dataclass(frozen=True)
class Scenario:
    """A world.

    Attributes:
        seed: what the world's dice are thrown by, beyond what is written here.
        workers: their numbers, from 1.
        runs: what is to be done.
        faults: what goes wrong; those of messages only where ``rates`` is None.
        rates: how often messages go wrong, as long as it is left to the dice.
        until: when faults stop, in milliseconds.
        within: milliseconds after the faults have stopped within which everything must be finished; 0: see `bound`.
        calm: messages take always the same time, and the first idle worker is offered a run.
    """

    seed: int
    workers: tuple[int, ...]
    runs: tuple[PlannedRun, ...]
    faults: tuple[Fault, ...]
    rates: Rates | None
    until: int
    within: int = 0
    calm: bool = False

    @classmethod
    def draw(cls, seed: int, *, workers: int, runs: int, hours: float) -> Scenario:
        """The world of a seed."""
        until = round(hours * HOUR)
        numbers = tuple(range(1, workers + 1))
        longest = max(60, until // 1000 // 4)
        at = Dice(seed, "starts")
        bursts = at.chance(0.5)
        planned = []
        start = 0
        for number in range(runs):
            if not (bursts and at.chance(0.7)):
                start = at.whole(0, until * 7 // 10)
            workflow = draw_workflow(Dice(seed, "workflow", number), f"w{number}", longest_timer=longest)
            planned.append(PlannedRun(number, start, workflow))
        dice = Dice(seed, "nemesis")
        return cls(
            seed,
            numbers,
            tuple(planned),
            draw_faults(dice, numbers, runs, until),
            draw_rates(dice),
            until,
        )

    @property
    def bound(self) -> int:
        """Milliseconds after the faults have stopped within which everything must be finished; where it was not said:

        Should one worker do all of it, one run after the other, each activity twice, after every lease has expired
        and with room for a restart each: generous, and finite.
        """
        if self.within:
            return self.within
        seconds = sum(2 * run.workflow.seconds + 300 for run in self.runs)
        return 1_000 * seconds + 1_800_000

    def data(self) -> dict[str, Any]:
        """The scenario as JSON data."""
        return asdict(self)

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Scenario:
        """The scenario that `data` wrote. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        runs = tuple(
            PlannedRun(
                int(run["number"]),
                int(run["start"]),
                Workflow(
                    **{**run["workflow"], "entries": tuple(Entry(**e) for e in run["workflow"]["entries"])}
                ),
            )
            for run in data["runs"]
        )
        faults = tuple(Fault(**fault) for fault in data["faults"])
        rates = Rates(**data["rates"]) if data["rates"] is not None else None
        return cls(
            int(data["seed"]),
            tuple(map(int, data["workers"])),
            runs,
            faults,
            rates,
            int(data["until"]),
            int(data["within"]),
            bool(data["calm"]),
        )
