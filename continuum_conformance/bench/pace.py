"""How fast each operation is: alone, several clients on runs of their own, several on one run.

Adapters that are compared take turns, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from continuum_conformance.bench.figures import Pace, Way, percentile
from continuum_conformance.bench.turns import Contender, Turn, Work, paced

__all__ = ["TURNS", "Length", "measure_pace", "warmed_up"]

TURNS = 5
"""Of each adapter for each figure."""

FIRST = 4
"""Calls of each client before anything is known of their pace."""


@dataclass(frozen=True)
class Length:
    """How long is measured: so many seconds of calls for each figure, or so many calls of each client."""

    seconds: float
    count: int | None = None

    @property
    def of_turn(self) -> float:
        """Seconds of one turn."""
        return self.seconds / TURNS


def measure_pace(
    entries: Sequence[tuple[Contender, Work]], way: Way, clients: int, length: Length, first: int
) -> list[Pace]:
    """The pace of the same operation of one adapter or two, turn by turn.

    Args:
        entries: each adapter with its work.
        way: who calls.
        clients: how many.
        length: how long.
        first: which of the adapters has the first turn.

    Raises:
        BenchError: a call failed.
    """
    counts = [warmed_up(contender, work, clients, length) for contender, work in entries]
    turns: list[list[Turn]] = [[] for _ in entries]
    for number in range(TURNS):
        for place in range(len(entries)):
            which = (first + number + place) % len(entries)
            contender, work = entries[which]
            if length.count is not None:
                turn = contender.turn(work, clients, -(-length.count // TURNS))
            else:
                turn = contender.turn(work, clients, counts[which], length.of_turn)
                counts[which] = paced(length.of_turn, turn, clients)
            turns[which].append(turn)
    return [_pace(work.operation, way, clients, of) for (_, work), of in zip(entries, turns, strict=True)]


def warmed_up(contender: Contender, work: Work, clients: int, length: Length) -> int:
    """Set the work up and let it run for a turn unmeasured; how many calls fill a turn."""
    contender.set_up(work, clients)
    count = FIRST
    while True:
        turn = contender.turn(work, clients, count, length.of_turn)
        fill = paced(length.of_turn, turn, clients)
        if length.count is not None or count * 2 >= fill or turn.seconds >= length.of_turn:
            return fill
        count = min(fill, count * 16)


def _pace(operation: str, way: Way, clients: int, turns: Sequence[Turn]) -> Pace:
    latencies = [latency for turn in turns for latency in turn.latencies]
    return Pace(
        operation,
        way,
        clients,
        calls=len(latencies),
        rate=sum(turn.calls for turn in turns) / sum(turn.seconds for turn in turns),
        median=median(latencies),
        p99=percentile(latencies, 0.99),
        turns=tuple(turn.rate for turn in turns),
    )
