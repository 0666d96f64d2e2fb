"""Campaigns: many seeds, in this process, in several, or on many machines.

Seeds are independent of one another, so a campaign takes any ``concurrent.futures.Executor``: a process pool, Dask's
``client.get_executor()``. What is sent is a `Job` and some seeds, what comes back are `SeedResult`s, both plain data.
"""

from __future__ import annotations

import importlib
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from continuum_conformance.contract.targets import TargetError
from continuum_conformance.harness import Subject
from continuum_conformance.harness.subject import CALL_LIMIT
from continuum_conformance.postgres.directory import ScratchDirectory
from continuum_conformance.simulate.cluster import Worker
from continuum_conformance.simulate.engine import worker as kit_worker
from continuum_conformance.simulate.judge import Finding
from continuum_conformance.simulate.scenario import Scenario
from continuum_conformance.simulate.simulation import Simulated, simulate
from continuum_conformance.simulate.sometimes import SOMETIMES

__all__ = ["Campaign", "Job", "SeedResult", "campaign", "engine_of"]

_AGAIN: Counter[int] = Counter()
"""How often the worlds of a seed were simulated in this process."""


@dataclass(frozen=True)
class Job:
    """What a campaign does with each of its seeds; it can be pickled.

    Attributes:
        target: the adapter.
        workers: how many there are.
        runs: how many are started.
        hours: of virtual time, in which runs are started and things go wrong.
        engine: a worker function as ``module:name``; empty: the kit's own.
        dsn: for an adapter that needs a PostgreSQL.
        limit: seconds that a call may take.
        salt: marks the instances in a store that others may use too, so that no two campaigns meet there.
        path: directories in which modules are looked for.
    """

    target: str
    workers: int = 3
    runs: int = 5
    hours: float = 1.0
    engine: str = ""
    dsn: str | None = None
    limit: float = CALL_LIMIT
    salt: str = field(default_factory=lambda: secrets.token_hex(4))
    path: tuple[str, ...] = ()

    def scenario(self, seed: int) -> Scenario:
        """The world of a seed."""
        return Scenario.draw(seed, workers=self.workers, runs=self.runs, hours=self.hours)

    def simulate(self, scenario: Scenario, directory: str | None = None) -> Simulated:
        """Let a world happen over a fresh handle of the adapter.

        Raises `TargetError` and `HarnessError`.
        """
        with ExitStack() as kept:
            subject = Subject(self.target, dsn=self.dsn, directory=directory, limit=self.limit)
            if "directory" in subject.needs and directory is None:
                subject.directory = kept.enter_context(ScratchDirectory())
            if callable(getattr(subject.harness, "clock", None)):
                # Nothing here is left to chance, and no two worlds of one process meet.
                name = f"sim-{scenario.seed}-{_AGAIN[scenario.seed]}"
                _AGAIN[scenario.seed] += 1
            else:
                name = f"sim-{self.salt}-{secrets.token_hex(6)}"
            return simulate(scenario, subject, worker=engine_of(self.engine), instance=name)


@dataclass(frozen=True)
class SeedResult:
    """What came of one seed."""

    seed: int
    finding: Finding | None
    sometimes: Counter[str]
    operations: int
    hours: float
    """Of virtual time."""
    seconds: float
    """Of the processor's time."""


@dataclass
class Campaign:
    """What came of a campaign so far."""

    seeds: int = 0
    operations: int = 0
    hours: float = 0.0
    seconds: float = 0.0
    sometimes: Counter[str] = field(default_factory=Counter)
    failing: dict[int, Finding] = field(default_factory=dict)
    """The findings by seed."""

    def add(self, result: SeedResult) -> None:
        """One more seed."""
        self.seeds += 1
        self.operations += result.operations
        self.hours += result.hours
        self.seconds += result.seconds
        self.sometimes += result.sometimes
        if result.finding is not None:
            self.failing[result.seed] = result.finding

    @property
    def never(self) -> list[str]:
        """The rare situations that were not met."""
        return [name for name in SOMETIMES if not self.sometimes[name]]


def engine_of(name: str) -> Worker:
    """The worker function that ``module:name`` names; the kit's own for nothing.

    Raises:
        TargetError: when there is none.
    """
    if not name:
        return kit_worker
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise TargetError(
            f"{name!r} is no worker function; write module:name, as in my_engine.testing:worker"
        )
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise TargetError(f"the worker function {name!r} cannot be loaded: {error}") from error
    if not callable(found):
        raise TargetError(f"{name!r} is a {type(found).__name__}, and no worker function")
    return found


def run_seeds(job: Job, seeds: Sequence[int]) -> list[SeedResult]:
    """Carry out some seeds of a campaign; this is what an executor is given.

    Raises `TargetError` and `HarnessError`.
    """
    for folder in job.path:
        if folder not in sys.path:
            sys.path.append(folder)
    results = []
    with ExitStack() as kept:
        directory: str | None = None
        for seed in seeds:
            if directory is None and "directory" in Subject(job.target).needs:
                directory = kept.enter_context(ScratchDirectory())
            began = time.process_time()
            came = job.simulate(job.scenario(seed), directory)
            results.append(
                SeedResult(
                    seed,
                    came.finding,
                    came.sometimes,
                    came.operations,
                    came.ended / 3_600_000,
                    time.process_time() - began,
                )
            )
    return results


def campaign(
    job: Job,
    seeds: Iterable[int],
    executor: Executor | None = None,
    *,
    jobs: int = 1,
    chunk: int = 20,
    first: bool = False,
    progress: Callable[[Campaign], None] = lambda _: None,
) -> Campaign:
    """Simulate a world for each seed.

    Args:
        job: what is done with each.
        seeds: the seeds.
        executor: where; None: here, one after the other.
        jobs: how many at once, at least; the executor is kept busy with twice as many pieces of work.
        chunk: how many seeds a piece of work has.
        first: end with the first failing seed that is heard of.
        progress: told after each piece.

    Raises:
        TargetError: when the adapter or the worker function cannot be loaded.
        HarnessError: when the adapter cannot be opened.
    """
    done = Campaign()
    for results in _pieces(job, iter(seeds), executor, 2 * jobs, chunk):
        for result in results:
            done.add(result)
        progress(done)
        if first and done.failing:
            break
    return done


def _pieces(
    job: Job, seeds: Iterator[int], executor: Executor | None, ahead: int, chunk: int
) -> Iterator[list[SeedResult]]:
    if executor is None:
        while piece := list(islice(seeds, min(chunk, 5))):
            yield run_seeds(job, piece)
        return
    running: set[Future[list[SeedResult]]] = set()
    try:
        while True:
            while len(running) < ahead and (piece := list(islice(seeds, chunk))):
                running.add(executor.submit(run_seeds, job, piece))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:
        for future in running:
            future.cancel()
