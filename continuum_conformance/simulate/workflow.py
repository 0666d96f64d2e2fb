"""Workflows that simulated workers carry out, generated from a seed; what a run without faults would leave is known.

A workflow is deterministic: it is the list of the events that its history must show, in order. So a worker finds
its place in any prefix of the history, and a judge compares event by event as they are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from continuum_conformance.simulate.dice import Dice

__all__ = ["Entry", "Workflow", "draw_workflow"]

MODULUS = 9_973


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of the history, and what it takes to earn it.

    Attributes:
        kind: ``"step"`` (an activity that succeeds), ``"attempt"`` (one that fails, to be tried again),
            ``"timer"`` (a timer is set), ``"fired"`` (it is due).
        index: which instruction of the workflow it belongs to, from 0.
        seconds: how long the activity takes, or the timer is to wait.
    """

    kind: str
    index: int
    seconds: int

    def event(self, value: int | None = None) -> dict[str, Any]:
        """The event as the journal must hold it, but for its seq and the moment at which a timer is due."""
        data: dict[str, Any] = {"type": self.kind, "index": self.index}
        if self.kind == "step":
            data["value"] = value
        return data


@dataclass(frozen=True)
class Workflow:
    """A deterministic workflow.

    Attributes:
        name: by which a run names it.
        entries: the events of a complete history.
        input: the run's input, an integer that every result depends on.
        fails: the run ends as failed rather than completed.
        snapshot_every: a snapshot is due after each so many events; 0: never.
    """

    name: str
    entries: tuple[Entry, ...]
    input: int
    fails: bool = False
    snapshot_every: int = 0

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def version_hash(self) -> bytes:
        """What its snapshots are marked with."""
        return sha256(f"{self.name} {self.entries}".encode()).digest()[:8]

    def value(self, entry: Entry, before: int) -> int:
        """What an activity gives, after one that gave ``before`` (the first: after the input)."""
        return (before * 31 + entry.index * 7 + 1) % MODULUS

    def history(self) -> list[dict[str, Any]]:
        """The whole history of a run without faults; when timers are due is left out."""
        events, last = [], self.input
        for seq, entry in enumerate(self.entries):
            if entry.kind == "step":
                last = self.value(entry, last)
            events.append({**entry.event(last), "seq": seq})
        return events

    def outcome(self, values: Mapping[int, int]) -> dict[str, int]:
        """The result (of one that fails: the error) of a run whose activities gave these values, by seq."""
        steps = [seq for seq, entry in enumerate(self.entries) if entry.kind == "step"]
        return {"steps": len(steps), "sum": sum(values.get(seq, 0) for seq in steps)}

    @property
    def expected(self) -> dict[str, int]:
        """The result, or the error, of a run without faults."""
        return self.outcome({e["seq"]: e["value"] for e in self.history() if e["type"] == "step"})

    @property
    def seconds(self) -> int:
        """How long it takes when nothing goes wrong and nobody is waited for."""
        return sum(entry.seconds for entry in self.entries)


def draw_workflow(dice: Dice, name: str, *, longest_timer: int) -> Workflow:
    """A workflow of two to nine instructions: activities, some of which fail first, and timers.

    Args:
        dice: what decides.
        name: its name.
        longest_timer: seconds.
    """
    entries: list[Entry] = []
    timers = dice.pick((0.0, 0.1, 0.3))
    for index in range(dice.whole(2, 9)):
        if dice.chance(timers):
            seconds = dice.skewed(1, longest_timer)
            entries += [Entry("timer", index, 0), Entry("fired", index, seconds)]
            continue
        seconds = dice.skewed(1, 60)
        failures = dice.whole(1, 2) if dice.chance(0.15) else 0
        entries += [Entry("attempt", index, seconds)] * failures
        entries.append(Entry("step", index, seconds))
    return Workflow(
        name, tuple(entries), dice.whole(1, MODULUS), dice.chance(0.15), dice.pick((0, 1, 1, 2, 3, 5))
    )
