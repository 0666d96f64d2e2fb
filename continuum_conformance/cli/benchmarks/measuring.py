"""Carrying out the trials, one after another, and keeping what came of each in a file that a later run continues."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from continuum_conformance.cli.benchmarks.bank import FAILOVER, SEQUENCE, Wrong
from continuum_conformance.cli.benchmarks.trial import METHODS, Found, Trial
from continuum_conformance.cli.stop import Stop
from continuum_conformance.harness import Subject
from continuum_conformance.postgres import PostgresServer, provide

__all__ = ["Bench", "Measured", "Results", "carried_out", "usable_methods"]

STARTING = 60.0
"""Seconds beyond its budget that a trial's process may take to start, to set up its store and to clean up."""

LEAST_FOR_THE_KIT = 60.0
"""Seconds that a check is given at least: it does not know of a budget, and a user would not end it sooner."""

GLANCE = 0.5
"""Seconds between two looks at whether a trial is still wanted."""

KIT = "check"

FOR_SEQUENCES = ("machine",)
"""The alternatives for faults that show in a sequence of calls: the others only race."""

HOPELESS = 2
"""After how many seeds an alternative that has found nothing with any of them is not tried again."""

_Due = tuple[Wrong, str, int]
"""An adapter, a method and a seed."""


@dataclass(frozen=True)
class Measured:
    """A trial that was carried out.

    Attributes:
        found: what came of it; ``found.seconds`` is the budget where its process had to be ended.
        load: the machine's load average over the last minute when it began.
    """

    target: str
    method: str
    seed: int
    budget: float
    found: Found
    load: float


@dataclass
class Results:
    """The trials so far, in a JSON file that is written after each."""

    file: Path
    trials: list[Measured] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Results:
        """What is in the file; nothing where there is none. Raises `Stop` (2) for another file."""
        results = cls(file)
        if not file.exists():
            return results
        try:
            data = json.loads(file.read_text("utf-8"))
            results.machine = dict(data["machine"])
            for trial in data["trials"]:
                found = Found(**{**trial["found"], "clauses": tuple(trial["found"]["clauses"])})
                results.trials.append(Measured(**{**trial, "found": found}))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Stop(
                2, f"{file} holds no results of this benchmark: {error!r}; name another --out"
            ) from None
        return results

    def write(self) -> None:
        """Keep them, whole or not at all. Raises `Stop` (3)."""
        trials = sorted(
            (asdict(trial) for trial in self.trials), key=lambda t: (t["target"], t["method"], t["seed"])
        )
        data = {"machine": self.machine, "trials": trials}
        fresh = self.file.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(data, indent=0, ensure_ascii=False) + "\n", "utf-8")
            fresh.replace(self.file)
        except OSError as error:
            raise Stop(3, f"{self.file} cannot be written: {error.strerror or error}") from None

    def of(self, target: str, method: str) -> list[Measured]:
        """The trials of a method on an adapter, by seed."""
        chosen = [trial for trial in self.trials if (trial.target, trial.method) == (target, method)]
        return sorted(chosen, key=lambda trial: trial.seed)


class Bench:
    """The trials that are still to be carried out.

    Args:
        adapters: the wrong adapters.
        methods: in the order in which they are tried.
        seeds: how many of each.
        budget: seconds of a trial.
        results: what there is already; with another budget it counts all the same, and is shown with its own.
        jobs: how many trials run side by side.
    """

    def __init__(
        self,
        adapters: Sequence[Wrong],
        methods: Sequence[str],
        seeds: int,
        budget: float,
        results: Results,
        jobs: int = 1,
    ) -> None:
        self.adapters, self.methods, self.seeds, self.budget = adapters, methods, seeds, budget
        self.results, self.jobs = results, jobs
        self._server: PostgresServer | None = None
        self._starting = threading.Lock()
        self._ended = threading.Event()

    def due(self) -> Iterator[_Due]:
        """What is still to be tried: seed by seed, the kit first, and races before faults."""
        return itertools.chain.from_iterable(self._rounds())

    def _rounds(self) -> Iterator[list[_Due]]:
        """The same in parts, each of which may need what came of the parts before it."""
        kit = [method for method in self.methods if method == KIT]
        others = [method for method in self.methods if method != KIT]
        kinds = dict.fromkeys(adapter.shows_in for adapter in self.adapters)
        for seed in range(self.seeds):
            for methods, shown in [(kit, tuple(kinds)), *((others, (kind,)) for kind in kinds)]:
                done = {(trial.target, trial.method, trial.seed) for trial in self.results.trials}
                yield [
                    (adapter, method, seed)
                    for method in methods
                    for adapter in self.adapters
                    if adapter.shows_in in shown
                    and (adapter.target, method, seed) not in done
                    and self._has_a_chance(adapter, method)
                ]

    def _has_a_chance(self, adapter: Wrong, method: str) -> bool:
        """Whether a further seed of an alternative may tell more. The kit is tried with all of them."""
        if method == KIT:
            return True
        if adapter.shows_in == FAILOVER or (adapter.shows_in == SEQUENCE and method not in FOR_SEQUENCES):
            return False
        before = self.results.of(adapter.target, method)
        return len(before) < HOPELESS or any(trial.found.found for trial in before)

    def run(self, told: Callable[[int, int, Measured, Wrong], None]) -> None:
        """Carry them out. Raises `Stop`, and ``KeyboardInterrupt`` with all kept that was measured.

        Args:
            told: called after each with how many are done, how many there are in all as far as is known, what came
                of it, and the adapter.
        """
        self.results.machine |= _machine(self.jobs)
        done = 0
        with ExitStack() as kept, ThreadPoolExecutor(self.jobs) as pool:
            try:
                for part in self._rounds():
                    total = done + sum(1 for _ in self.due())
                    running = {pool.submit(self._measure, *one, kept): one[0] for one in part}
                    for future in as_completed(running):
                        self.results.trials.append(future.result())
                        self.results.write()
                        done += 1
                        told(done, total, future.result(), running[future])
            finally:  # also where it was interrupted
                self._ended.set()
                pool.shutdown(cancel_futures=True)

    def _measure(self, adapter: Wrong, method: str, seed: int, kept: ExitStack) -> Measured:
        load = os.getloadavg()[0]
        scenario = dsn = None
        if method != KIT:
            scenario = self._scenario(adapter)
            if "postgres" in Subject(adapter.target).needs:
                dsn = self._database(kept)
        trial = Trial(
            method,
            adapter.target,
            adapter.clauses,
            seed,
            self.budget,
            scenario,
            dsn,
            any_must=adapter.shows_in == SEQUENCE,
            failover=adapter.shows_in == FAILOVER,
        )
        return Measured(adapter.target, method, seed, self.budget, carried_out(trial, self._ended), load)

    def _scenario(self, adapter: Wrong) -> Any:
        """The race in which the kit has found the fault, which the alternatives are given so that they need not look."""
        found = (trial.found.scenario for trial in self.results.of(adapter.target, KIT))
        return next((scenario for scenario in found if scenario is not None), None)

    def _database(self, kept: ExitStack) -> str:
        with self._starting:
            if self._server is None:
                self._server = kept.enter_context(provide("auto"))
            return self._server.fresh_database()


def carried_out(trial: Trial, ended: threading.Event | None = None) -> Found:
    """Carry a trial out in a process of its own, which is ended when it takes too long, or when ``ended`` is set."""
    with tempfile.TemporaryDirectory(prefix="continuum-") as folder:
        file = Path(folder, "found.json")
        python = [sys.executable]
        if trial.method == "frontrun":
            python = [sys.executable, "-m", "frontrun.cli", sys.executable]
        command = [
            *python,
            "-m",
            "continuum_conformance.cli.benchmarks.trial",
            json.dumps(asdict(trial)),
            str(file),
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        }
        with Path(folder, "said.txt").open("w+b") as said:
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            try:
                code = _waited_for(process, _limit(trial), ended or threading.Event())
            except subprocess.TimeoutExpired:
                return Found(seconds=trial.budget, said="it did not come to an end within the budget")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if not file.exists():
                said.seek(0)
                last = said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
                return Found(seconds=trial.budget, said=f"it ended with code {code}: {''.join(last)}"[:300])
        data = json.loads(file.read_text("utf-8"))
        return Found(**{**data, "clauses": tuple(data["clauses"])})


def _waited_for(process: subprocess.Popen[bytes], limit: float, ended: threading.Event) -> int:
    """The process's exit code. Raises ``TimeoutExpired`` after ``limit`` seconds, or when ``ended`` is set."""
    until = time.monotonic() + limit
    while True:
        try:
            return process.wait(min(GLANCE, max(0.0, until - time.monotonic())))
        except subprocess.TimeoutExpired:
            if ended.is_set() or time.monotonic() >= until:
                raise


def _limit(trial: Trial) -> float:
    """Seconds after which a trial's process is ended."""
    return STARTING + (max(trial.budget, LEAST_FOR_THE_KIT) if trial.method == KIT else trial.budget)


def usable_methods(asked: Sequence[str]) -> tuple[list[str], str]:
    """Those that can be used here, and a remark about those that cannot."""
    if "frontrun" in asked and importlib.util.find_spec("frontrun") is None:
        left = [method for method in asked if method != "frontrun"]
        return left, "frontrun is not installed, so it is left out: pip install 'frontrun[sql]'"
    return [method for method in METHODS if method in asked], ""


def _machine(jobs: int) -> dict[str, str]:
    found = {
        "jobs": str(jobs),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} on {platform.machine()}",
        "processors": str(os.cpu_count()),
    }
    if importlib.util.find_spec("frontrun") is not None:
        found["frontrun"] = importlib.metadata.version("frontrun")
    return found
