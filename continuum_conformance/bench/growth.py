"""How the cost of a call grows: with the length of a history, and with the number of runs in the store.

Given on a long history alternate with calls on histories of ten events, and their ratio compares neighbours in
time. A store cannot be small and large at once: there the reference is what a call cost when it was small.

Preparing is most of the work. All clients do it together, in pieces, and a size that would not be ready within the
budget is left out.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import median
from typing import Any

from continuum_conformance.bench.figures import Cost, LeftOut, percentile
from continuum_conformance.bench.turns import Arguments, Contender
from continuum_conformance.bench.work import TAIL, Desk

__all__ = ["HISTORIES", "STORES", "Budget", "Given", "filled", "grow_history", "grow_store"]

HISTORIES = (10, 100, 1_000, 10_000, 100_000)
"""Events of a run."""

STORES = (10, 100, 1_000, 10_000, 100_000)
"""Runs of a store."""

SAMPLES = 40
"""Given for each figure, where a call is quick."""

FEWEST = 3
"""Given for each figure, however slow a call is."""

SAMPLING = 1.5
"""Seconds for each figure, where a call is slow."""

PIECE = 0.25
"""Seconds in which a piece of the preparation should be done."""

Tick = Callable[[str], None]
"""Told what is being done, now and then."""


class Budget:
    """Seconds that may still be spent."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """In seconds; negative when it is spent."""
        return self._until - time.monotonic()


class Given:
    """Given calls of one operation, shared out to the clients: call 0 to client 0, call 1 to client 1, …"""

    def __init__(self, operation: str, calls: Sequence[Arguments], clients: int = 1) -> None:
        self.operation = operation
        self._calls, self._clients = calls, clients

    async def set_up(self, journal: Any, clients: int) -> None:
        """There is nothing to set up."""

    def begin(self, clients: int, count: int) -> None:
        """Nothing is shared."""

    async def prepare(self, journal: Any, client: int, count: int) -> Sequence[Arguments]:  # noqa: ARG002
        """This client's share."""
        return self._calls[client :: self._clients]


@dataclass
class _Filling:
    """A preparation in pieces: how fast it goes."""

    contender: Contender
    clients: int
    piece: int = 16

    def fill(self, operation: str, calls: Iterable[Arguments], budget: Budget, tick: Tick) -> int:
        """Make the calls, until the budget ends; how many were made."""
        waiting, done = iter(calls), 0
        while piece := list(itertools.islice(waiting, self.piece)):
            clients = min(self.clients, len(piece))
            turn = self.contender.turn(Given(operation, piece, clients), clients, len(piece))
            done += len(piece)
            self.piece = max(16, min(4 * self.piece, round(PIECE * turn.rate)))
            tick(f"{operation} {done:,}")
            if budget.left < 0:
                break
        return done


def filled(
    contender: Contender,
    operation: str,
    calls: Iterable[Arguments],
    clients: int,
    budget: Budget,
    tick: Tick,
) -> int:
    """Make calls by so many clients, quickly and unmeasured, until the budget ends; how many were made."""
    return _Filling(contender, clients).fill(operation, calls, budget, tick)


# -- histories --


@dataclass
class _Runs:
    """Runs of one length, as (run id, token)."""

    length: int
    runs: list[tuple[str, int | None]]


def grow_history(
    contender: Contender, desk: Desk, clients: int, budget: Budget, tick: Tick
) -> Iterator[Cost | LeftOut]:
    """The cost of append, load and load_with_snapshot on histories of ten events and more.

    Raises:
        BenchError: a call failed.
    """
    rate = 0.0
    for size in HISTORIES:
        count = max(1, -(-SAMPLES // max(1, size // 10)))  # so that the measured appends add a tenth at most
        due = size * count + HISTORIES[0] * SAMPLES
        if rate and due / rate > budget.left:
            yield _left_out("histories", HISTORIES, size, due / rate, budget)
            return
        began = time.perf_counter()
        small = _prepared(contender, desk, clients, HISTORIES[0], SAMPLES, budget, tick)
        large = _prepared(contender, desk, clients, size, count, budget, tick)
        rate = due / (time.perf_counter() - began)
        if small is None or large is None:
            yield _left_out("histories", HISTORIES, size, 0.0, budget)
            return
        yield from _history_costs(contender, desk, small, large, tick)


def _prepared(
    contender: Contender, desk: Desk, clients: int, length: int, count: int, budget: Budget, tick: Tick
) -> _Runs | None:
    """So many runs of so many events, with a snapshot ten events before the end; None when the budget ended."""
    starting = _Starting(desk, count)
    contender.set_up(starting, 1)
    calls = (desk.append(*run, number) for number in range(length) for run in starting.runs)
    if filled(contender, "append", calls, clients, budget, tick) < length * count:
        return None
    if desk.snapshots:
        through = max(0, length - TAIL - 1)
        snapshots = [(desk.instance, desk.snapshot(run_id, through)) for run_id, _ in starting.runs]
        contender.turn(Given("take_snapshot", snapshots), 1, count)
    return _Runs(length, starting.runs)


class _Starting(Given):
    """Starts so many runs."""

    def __init__(self, desk: Desk, count: int) -> None:
        super().__init__("start_run", ())
        self._desk, self._count = desk, count
        self.runs: list[tuple[str, int | None]] = []

    async def set_up(self, journal: Any, clients: int) -> None:  # noqa: ARG002
        self.runs = [await self._desk.started(journal) for _ in range(self._count)]


def _history_costs(
    contender: Contender, desk: Desk, small: _Runs, large: _Runs, tick: Tick
) -> Iterator[Cost]:
    """Reading before appending, while the lengths are exact."""
    reads: dict[str, Callable[[str, int | None], Arguments]] = {
        "load": lambda run_id, _: (desk.instance, run_id),
        "load_with_snapshot": lambda run_id, token: (desk.instance, run_id, token),
        "append": lambda run_id, token: desk.append(run_id, token, 0),
    }
    for operation, arguments in reads.items():
        tick(f"{operation}, {large.length:,} events")
        pairs = [
            [arguments(*of.runs[number % len(of.runs)]) for of in (small, large)] for number in range(SAMPLES)
        ]
        found: tuple[list[float], list[float]] = ([], [])
        for number, latencies in enumerate(_sampled(contender, operation, pairs)):
            if number or len(pairs) == 1:  # the first pair warms up
                found[0].append(latencies[0])
                found[1].append(latencies[1])
        quick, reference = (percentile(latencies, 0.25) for latencies in found[::-1])
        yield Cost("history", large.length, operation, median(found[1]), quick, reference, len(found[1]))


def _sampled(
    contender: Contender, operation: str, rounds: Sequence[Sequence[Arguments]]
) -> Iterator[Sequence[float]]:
    """What the calls of each round took, until they have taken long enough."""
    spent, made = 0.0, 0
    for calls in rounds:
        turn = contender.turn(Given(operation, calls), 1, len(calls))
        yield turn.latencies
        spent, made = spent + turn.seconds, made + 1
        if spent > SAMPLING and made > FEWEST:
            return


# -- stores --


def grow_store(
    contender: Contender, desk: Desk, clients: int, budget: Budget, seed: int, tick: Tick
) -> Iterator[Cost | LeftOut]:
    """The cost of append, load and load_with_snapshot on short runs in a store of ten runs and more.

    Raises:
        BenchError: a call failed.
    """
    random = Random(seed)
    runs: list[str] = []
    first: dict[str, float] = {}
    rate = 0.0
    for size in STORES:
        more = size - len(runs)
        if rate and more / rate > budget.left:
            yield _left_out("stores", STORES, size, more / rate, budget)
            return
        began = time.perf_counter()
        fresh = [desk.run_id() for _ in range(more)]
        starts = ((desk.instance, run_id, "checkout", None) for run_id in fresh)
        appends = (desk.append(run_id, None, number) for number, run_id in enumerate(fresh))
        made = filled(contender, "start_run", starts, clients, budget, tick)
        if made < more or filled(contender, "append", appends, clients, budget, tick) < more:
            yield _left_out("stores", STORES, size, 0.0, budget)
            return
        runs += fresh
        rate = more / (time.perf_counter() - began)
        for cost in _store_costs(contender, desk, runs, random, tick):
            yield replace(cost, reference=first.setdefault(cost.operation, cost.quick))


def _store_costs(
    contender: Contender, desk: Desk, runs: Sequence[str], random: Random, tick: Tick
) -> Iterator[Cost]:
    reads: dict[str, Callable[[str], Arguments]] = {
        "load": lambda run_id: (desk.instance, run_id),
        "load_with_snapshot": lambda run_id: (desk.instance, run_id, None),
        "append": lambda run_id: desk.append(run_id, None, 0),
    }
    for operation, arguments in reads.items():
        tick(f"{operation}, {len(runs):,} runs")
        rounds = [[arguments(random.choice(runs))] for _ in range(2 * SAMPLES)]
        latencies = [of[0] for of in _sampled(contender, operation, rounds)][1:]
        quick = percentile(latencies, 0.25)
        yield Cost("store", len(runs), operation, median(latencies), quick, quick, len(latencies))


def _left_out(what: str, sizes: Sequence[int], size: int, due: float, budget: Budget) -> LeftOut:
    left = [f"{each:,}" for each in sizes if each >= size]
    unit = "events" if what == "histories" else "runs"
    why = f"about {due:.0f} s for {size:,}, and " if due else ""
    return LeftOut(
        f"{what} of {', '.join(left)} {unit}",
        f"{why}{max(0.0, budget.left):.0f} s of the budget were left; give more with --budget",
    )
