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
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Any

from continuum_conformance.bench.figures import Cost, LeftOut, percentile
from continuum_conformance.bench.turns import Arguments, Contender
from continuum_conformance.bench.work import TAIL, Desk
from continuum_conformance.contract.journal import OPERATIONS

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
    contender: Contender, beside: Contender, desk: Desk, clients: int, budget: Budget, seed: int, tick: Tick
) -> Iterator[Cost | LeftOut]:
    """The cost of append, load and load_with_snapshot on short runs in a store of ten runs and more.

    Args:
        contender: the adapter, over the store that grows.
        beside: the same adapter over another store, which stays small.
        desk: names and events.
        clients: how many prepare.
        budget: seconds for all of it.
        seed: of which runs are looked at.
        tick: told what is being done.

    Raises:
        BenchError: a call failed.
    """
    random = Random(seed)
    runs: list[str] = []
    few: list[str] = []
    if not _stored(beside, desk, few, STORES[0], 1, budget, tick):
        yield _left_out("stores", STORES, STORES[0], 0.0, budget)
        return
    rate = 0.0
    for size in STORES:
        more = size - len(runs)
        if rate and more / rate > budget.left:
            yield _left_out("stores", STORES, size, more / rate, budget)
            return
        began = time.perf_counter()
        if not _stored(contender, desk, runs, more, clients, budget, tick):
            yield _left_out("stores", STORES, size, 0.0, budget)
            return
        rate = more / (time.perf_counter() - began)
        yield from _store_costs((contender, runs), (beside, few), desk, random, tick)


def _stored(
    contender: Contender, desk: Desk, runs: list[str], more: int, clients: int, budget: Budget, tick: Tick
) -> bool:
    """Add so many runs of one event; whether the budget was enough."""
    fresh = [desk.run_id() for _ in range(more)]
    starts = ((desk.instance, run_id, "checkout", None) for run_id in fresh)
    appends = (desk.append(run_id, None, number) for number, run_id in enumerate(fresh))
    runs += fresh
    return (
        filled(contender, "start_run", starts, clients, budget, tick) == more
        and filled(contender, "append", appends, clients, budget, tick) == more
    )


_Store = tuple[Contender, Sequence[str]]


def _store_costs(large: _Store, small: _Store, desk: Desk, random: Random, tick: Tick) -> Iterator[Cost]:
    size = len(large[1])
    for operation in ("load", "load_with_snapshot", "append"):
        tick(f"{operation}, {size:,} runs")
        found: tuple[list[float], list[float]] = ([], [])
        while len(found[0]) <= FEWEST or (len(found[0]) <= SAMPLES and sum(map(sum, found)) < SAMPLING):
            for (contender, runs), latencies in zip((large, small), found, strict=True):
                # In the small store one run takes all appends, so that those that are read stay short.
                run_id = random.choice(runs if contender is large[0] else runs[1:])
                if operation == "append":
                    arguments = desk.append(run_id if contender is large[0] else runs[0], None, 0)
                else:
                    arguments = (desk.instance, run_id, None)[: len(OPERATIONS[operation])]
                latencies += contender.turn(Given(operation, [arguments]), 1, 1).latencies
        of_large, of_small = (latencies[1:] for latencies in found)  # the first pair warms up
        quick, reference = percentile(of_large, 0.25), percentile(of_small, 0.25)
        yield Cost("store", size, operation, median(of_large), quick, reference, len(of_large))


def _left_out(what: str, sizes: Sequence[int], size: int, due: float, budget: Budget) -> LeftOut:
    left = [f"{each:,}" for each in sizes if each >= size]
    unit = "events" if what == "histories" else "runs"
    why = f"about {due:.0f} s for {size:,}, and " if due else ""
    return LeftOut(
        f"{what} of {', '.join(left)} {unit}",
        f"{why}{max(0.0, budget.left):.0f} s of the budget were left; give more with --budget",
    )
