"""What a measurement found, as data. Times are in seconds, rates in calls a second."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

__all__ = [
    "WAYS",
    "Axis",
    "Bench",
    "Cost",
    "LeftOut",
    "Limit",
    "Measured",
    "Pace",
    "Stored",
    "Way",
    "percentile",
]

Way = Literal["alone", "apart", "together"]
"""One client; several, each on a run of its own; several on one run."""

WAYS: tuple[Way, ...] = ("alone", "apart", "together")

Axis = Literal["history", "store"]
"""What grows: the events of a run, or the runs of a store."""


@dataclass(frozen=True)
class Pace:
    """How fast an operation was.

    Attributes:
        operation: its name.
        way: who called.
        clients: how many.
        calls: how many calls were measured.
        rate: calls a second of all clients together.
        median: of what a call took.
        p99: the 99th percentile of that.
        turns: the rate of each turn; turns of the same number of two adapters are neighbours in time.
    """

    operation: str
    way: Way
    clients: int
    calls: int
    rate: float
    median: float
    p99: float
    turns: tuple[float, ...]

    def ratio(self, other: Pace) -> float:
        """This rate to the other's: the median over turns that are neighbours in time."""
        return median(mine / its for mine, its in zip(self.turns, other.turns, strict=True))


@dataclass(frozen=True)
class Cost:
    """What a call costs on a history, or in a store, of so many events or runs.

    Attributes:
        axis: what grows.
        size: how many events, or runs.
        operation: its name.
        median: of what a call took.
        quick: the lower quartile of that.
        reference: the lower quartile of calls on the smallest size, which were made between these.
        calls: how many calls were measured.
    """

    axis: Axis
    size: int
    operation: str
    median: float
    quick: float
    reference: float
    calls: int

    @property
    def ratio(self) -> float:
        """How many times as much as on the smallest size, by the quicker quarters."""
        return self.quick / self.reference


@dataclass(frozen=True)
class Stored:
    """What an event takes in the store.

    Attributes:
        bytes_per_event: of the store's growth.
        of: what grew, for a reader.
        events: by how many events.
        event: bytes of such an event as JSON.
    """

    bytes_per_event: float
    of: str
    events: int
    event: int


@dataclass(frozen=True)
class Limit:
    """The adapter's append beside who sends the same statements and does nothing else.

    Attributes:
        beside: ``psycopg`` or ``pgbench``.
        clients: how many, each on a run of its own.
        rate: appends a second of whoever sends them.
        adapter: of the adapter, in the same minute.
        ratio: the adapter's to the other's: the median over turns that are neighbours in time.
        turns: how many of them.
        statements: how many statements an append is.
    """

    beside: str
    clients: int
    rate: float
    adapter: float
    ratio: float
    turns: int
    statements: int


@dataclass(frozen=True)
class LeftOut:
    """What was not measured, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Finding:
    """What was measured of a clause under PRF.

    Attributes:
        clause: its id.
        verdict: met, unmet, or not judged (the sizes that were reached are too small).
        ratio: the ratio that decides.
        told: the same for a reader.
    """

    clause: str
    verdict: str
    ratio: float
    told: str


@dataclass
class Measured:
    """All figures of one adapter; they are filled in as they come."""

    target: str
    adapter: str
    store: str
    form: Literal["sync", "async"]
    snapshots: bool = True
    """Whether the adapter declares them."""
    paces: list[Pace] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    stored: Stored | None = None
    limits: list[Limit] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def pace(self, operation: str, way: Way) -> Pace | None:
        """The pace of an operation, if it was measured."""
        return next((p for p in self.paces if (p.operation, p.way) == (operation, way)), None)

    def grown(self, axis: Axis, operation: str) -> list[Cost]:
        """The costs of an operation along an axis, the smallest size first."""
        return sorted(
            (c for c in self.costs if (c.axis, c.operation) == (axis, operation)), key=lambda c: c.size
        )


@dataclass
class Bench:
    """A whole measurement: of one adapter, or of two that took turns."""

    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    measured: Sequence[Measured]
    seconds: float = 0.0
    interrupted: bool = False

    def plain(self) -> dict[str, Any]:
        """The same as data for JSON."""
        found = asdict(self)
        for of, told in zip(self.measured, found["measured"], strict=True):
            for cost, of_cost in zip(told["costs"], of.costs, strict=True):
                cost["ratio"] = of_cost.ratio
        if len(self.measured) == 2:
            found["ratios"] = [
                {"operation": mine.operation, "way": mine.way, "ratio": mine.ratio(its)}
                for mine, its in self.pairs()
            ]
        return {"format": "continuum-conformance bench 1", **found}

    def pairs(self) -> list[tuple[Pace, Pace]]:
        """Of two adapters: what was measured of both."""
        first, second = self.measured
        found = ((pace, second.pace(pace.operation, pace.way)) for pace in first.paces)
        return [(mine, its) for mine, its in found if its is not None and len(its.turns) == len(mine.turns)]


def percentile(values: Collection[float], share: float) -> float:
    """The least value that at least this share of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
