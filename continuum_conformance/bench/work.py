"""What the clients do, operation by operation.

Each call is one that an engine makes and that succeeds. Where the adapter has leases every write bears a token.
What a call uses up (a run that it finishes, a seq that it takes a snapshot of) is prepared before the turn.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from continuum_conformance.bench.figures import Way
from continuum_conformance.bench.turns import Arguments, Work
from continuum_conformance.contract.records import Instance, Lease, Snapshot

__all__ = ["HISTORY", "TAIL", "Append", "Desk", "needs", "work_for"]

HOUR = 3600.0

HISTORY = 100
"""Events of a run that is loaded."""

TAIL = 10
"""Of these, the events after its snapshot."""

INPUT = {"order": 1299, "lines": [{"article": "book", "pieces": 2}]}
RESULT = {"amount": 1299, "currency": "EUR"}
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Desk:
    """Names, events and records for one store, all of them from a seed.

    The instance alone is new each time, so that a store that is kept can be measured again.
    """

    def __init__(self, capabilities: frozenset[str], seed: int) -> None:
        self.leases = "leases" in capabilities
        self.snapshots = "snapshots" in capabilities
        self.instance = Instance(f"bench-{os.urandom(4).hex()}")
        self._random = random.Random(seed)
        self.events = [self._event() for _ in range(64)]

    def _event(self) -> dict[str, Any]:
        step = self._random.choice(("reserve", "charge", "ship", "notify"))
        amount = self._random.randrange(100, 100_000)
        return {"type": "step_completed", "step": step, "result": {"amount": amount, "currency": "EUR"}}

    @property
    def event_size(self) -> int:
        """Bytes of an event as JSON, on average."""
        return round(sum(len(json.dumps(event)) for event in self.events) / len(self.events))

    def run_id(self) -> str:
        """One that nobody has used: canonical UUID text, which every adapter takes."""
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def snapshot(self, run_id: str, through_seq: int) -> Snapshot:
        """A small one: three steps, however long the history."""
        steps = {through_seq - back: RESULT for back in range(min(3, through_seq + 1))}
        return Snapshot(run_id, through_seq, b"\x01" * 32, NOON, steps)

    async def started(self, journal: Any, run_id: str | None = None) -> tuple[str, int | None]:
        """A run that has begun, and the token to write to it with."""
        run_id = run_id or self.run_id()
        await journal.start_run(self.instance, run_id, "checkout", INPUT)
        if not self.leases:
            return run_id, None
        lease = await journal.acquire(self.instance, run_id, "worker", HOUR)
        return run_id, lease.token

    def append(self, run_id: str, token: int | None, number: int) -> Arguments:
        """The arguments of an append."""
        return self.instance, run_id, self.events[number % len(self.events)], token


class _OnRuns:
    """Work on runs of its own for each client, or on one for all; a subclass says which calls."""

    operation = ""
    events = 0
    """Of each run at first."""

    def __init__(self, desk: Desk, way: Way) -> None:
        self.desk, self.way = desk, way
        self.runs: list[tuple[str, int | None]] = []

    def run_of(self, client: int) -> tuple[str, int | None]:
        """The client's run and its token."""
        return self.runs[client % len(self.runs)]

    async def set_up(self, journal: Any, clients: int) -> None:
        """Start the runs."""
        for _ in range(1 if self.way == "together" else clients):
            run_id, token = await self.desk.started(journal)
            self.runs.append((run_id, token))
            for number in range(self.events):
                await journal.append(*self.desk.append(run_id, token, number))

    def begin(self, clients: int, count: int) -> None:
        """Nothing is shared."""

    async def prepare(self, journal: Any, client: int, count: int) -> Sequence[Arguments]:  # noqa: ARG002
        """The same call again and again."""
        return [self.arguments(*self.run_of(client))] * count

    def arguments(self, run_id: str, token: int | None) -> Arguments:
        """Of one call."""
        raise NotImplementedError


class Append(_OnRuns):
    """Appends to the client's run."""

    operation = "append"

    async def prepare(self, journal: Any, client: int, count: int) -> Sequence[Arguments]:  # noqa: ARG002
        """One event after another."""
        run_id, token = self.run_of(client)
        return [self.desk.append(run_id, token, number) for number in range(count)]


class _Load(_OnRuns):
    operation = "load"
    events = HISTORY

    def arguments(self, run_id: str, token: int | None) -> Arguments:  # noqa: ARG002
        return self.desk.instance, run_id


class _LoadWithSnapshot(_OnRuns):
    operation = "load_with_snapshot"
    events = HISTORY

    async def set_up(self, journal: Any, clients: int) -> None:
        await super().set_up(journal, clients)
        if self.desk.snapshots:
            for run_id, _ in self.runs:
                snapshot = self.desk.snapshot(run_id, HISTORY - TAIL - 1)
                await journal.take_snapshot(self.desk.instance, snapshot)

    def arguments(self, run_id: str, token: int | None) -> Arguments:
        return self.desk.instance, run_id, token


class _GetRun(_Load):
    operation = "get_run"
    events = 0


class _TakeSnapshot(_OnRuns):
    """Each of another seq: the run grows by as many events as there will be snapshots."""

    operation = "take_snapshot"

    def __init__(self, desk: Desk, way: Way) -> None:
        super().__init__(desk, way)
        self._length = 0  # of each run
        self._turn = (0, 0)  # where this turn's seqs begin, and how many there are for each client

    def begin(self, clients: int, count: int) -> None:
        """Share out the seqs that the runs will have."""
        self._turn = (self._length, count)
        self._length += count * (clients if self.way == "together" else 1)

    async def prepare(self, journal: Any, client: int, count: int) -> Sequence[Arguments]:
        run_id, token = self.run_of(client)
        for number in range(count):
            await journal.append(*self.desk.append(run_id, token, number))
        start, each = self._turn
        first = start + (client * each if self.way == "together" else 0)
        return [(self.desk.instance, self.desk.snapshot(run_id, seq)) for seq in range(first, first + count)]


class _Acquire(_OnRuns):
    """Takes over a lease that has expired."""

    operation = "acquire"

    async def set_up(self, journal: Any, clients: int) -> None:
        for _ in range(1 if self.way == "together" else clients):
            run_id = self.desk.run_id()
            await journal.start_run(self.desk.instance, run_id, "checkout", INPUT)
            self.runs.append((run_id, None))

    def arguments(self, run_id: str, token: int | None) -> Arguments:  # noqa: ARG002
        return self.desk.instance, run_id, "worker", 0


class _Renew(_OnRuns):
    operation = "renew"

    def arguments(self, run_id: str, token: int | None) -> Arguments:
        return self.desk.instance, Lease(run_id, "worker", token or 0), HOUR


class _Fresh(_OnRuns):
    """Work that uses a run up."""

    async def set_up(self, journal: Any, clients: int) -> None:
        """There is nothing to share."""

    async def prepare(self, journal: Any, client: int, count: int) -> Sequence[Arguments]:  # noqa: ARG002
        return [self.arguments(*await self.desk.started(journal)) for _ in range(count)]


class _Start(_Fresh):
    operation = "start_run"

    async def prepare(self, journal: Any, client: int, count: int) -> Sequence[Arguments]:  # noqa: ARG002
        return [(self.desk.instance, self.desk.run_id(), "checkout", INPUT) for _ in range(count)]


class _Suspend(_Fresh):
    operation = "suspend"

    def arguments(self, run_id: str, token: int | None) -> Arguments:
        return self.desk.instance, run_id, token


class _Complete(_Fresh):
    operation = "complete"

    def arguments(self, run_id: str, token: int | None) -> Arguments:
        return self.desk.instance, run_id, RESULT, token


class _Fail(_Complete):
    operation = "fail"


class _Release(_Fresh):
    operation = "release"

    def arguments(self, run_id: str, token: int | None) -> Arguments:
        return self.desk.instance, Lease(run_id, "worker", token or 0)


_WORKS: Mapping[str, Callable[[Desk, Way], Work]] = {
    "start_run": _Start,
    "append": Append,
    "load": _Load,
    "load_with_snapshot": _LoadWithSnapshot,
    "take_snapshot": _TakeSnapshot,
    "suspend": _Suspend,
    "complete": _Complete,
    "fail": _Fail,
    "get_run": _GetRun,
    "acquire": _Acquire,
    "renew": _Renew,
    "release": _Release,
}

ONCE = frozenset({"start_run", "suspend", "complete", "fail", "release"})
"""What can be done to a run only once, so that several clients cannot do it to one run."""


def work_for(operation: str, way: Way, desk: Desk) -> Work | None:
    """The work of an operation done in this way, or None where there is none: to one run it is done only once."""
    if way == "together" and operation in ONCE:
        return None
    return _WORKS[operation](desk, way)


def needs(operation: str) -> str:
    """The capability that an operation belongs to."""
    return {
        "take_snapshot": "snapshots",
        "acquire": "leases",
        "renew": "leases",
        "release": "leases",
    }.get(operation, "core")
