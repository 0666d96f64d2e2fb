"""Carrying out the trials, one after another, and keeping what came of each in a file that a later run continues."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from continuum_conformance.cli.benchmarks.bank import Wrong
from continuum_conformance.cli.benchmarks.trial import METHODS, Found, Trial
from continuum_conformance.cli.stop import Stop
from continuum_conformance.harness import Subject
from continuum_conformance.postgres import PostgresServer, provide

__all__ = ["Bench", "Measured", "Results", "carried_out", "usable_methods"]

STARTING = 60.0
"""Seconds beyond its budget that a trial's process may take to start, to set up its store and to clean up."""

LEAST_FOR_THE_KIT = 60.0
"""Seconds that a check is given at least: it does not know of a budget, and a user would not end it sooner."""

KIT = "check"


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
    """

    def __init__(
        self, adapters: Sequence[Wrong], methods: Sequence[str], seeds: int, budget: float, results: Results
    ) -> None:
        self.adapters, self.methods, self.seeds, self.budget = adapters, methods, seeds, budget
        self.results = results
        self._server: PostgresServer | None = None

    def due(self) -> Iterator[tuple[Wrong, str, int]]:
        """What is still to be tried: seed by seed, the kit first, and races before faults."""
        done = {(trial.target, trial.method, trial.seed) for trial in self.results.trials}
        kit = [method for method in self.methods if method == KIT]
        others = [method for method in self.methods if method != KIT]
        kinds = dict.fromkeys(adapter.shows_in for adapter in self.adapters)
        for seed in range(self.seeds):
            for methods, shown in [(kit, tuple(kinds)), *((others, (kind,)) for kind in kinds)]:
                for method in methods:
                    for adapter in self.adapters:
                        if adapter.shows_in in shown and (adapter.target, method, seed) not in done:
                            yield adapter, method, seed

    def run(self, told: Callable[[int, int, Measured | None, Wrong, str], None]) -> None:
        """Carry them out. Raises `Stop`, and ``KeyboardInterrupt`` with all kept that was measured.

        Args:
            told: called before and after each with how many are done, how many are due, what came of it (None
                before), the adapter and the method.
        """
        due = list(self.due())
        self.results.machine |= _machine()
        with ExitStack() as kept:
            for number, (adapter, method, seed) in enumerate(due):
                told(number, len(due), None, adapter, method)
                measured = self._measure(adapter, method, seed, kept)
                self.results.trials.append(measured)
                self.results.write()
                told(number + 1, len(due), measured, adapter, method)

    def _measure(self, adapter: Wrong, method: str, seed: int, kept: ExitStack) -> Measured:
        load = os.getloadavg()[0]
        scenario = dsn = None
        if method != KIT:
            scenario = self._scenario(adapter)
            if "postgres" in Subject(adapter.target).needs:
                dsn = self._database(kept)
        trial = Trial(method, adapter.target, adapter.clauses, seed, self.budget, scenario, dsn)
        return Measured(adapter.target, method, seed, self.budget, carried_out(trial), load)

    def _scenario(self, adapter: Wrong) -> Any:
        """The race in which the kit has found the fault, which the alternatives are given so that they need not look."""
        found = (trial.found.scenario for trial in self.results.of(adapter.target, KIT))
        return next((scenario for scenario in found if scenario is not None), None)

    def _database(self, kept: ExitStack) -> str:
        if self._server is None:
            self._server = kept.enter_context(provide("auto"))
        return self._server.fresh_database()


def carried_out(trial: Trial) -> Found:
    """Carry a trial out in a process of its own, which is ended when it takes too long."""
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
                code = process.wait(_limit(trial))
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


def _limit(trial: Trial) -> float:
    """Seconds after which a trial's process is ended."""
    return STARTING + (max(trial.budget, LEAST_FOR_THE_KIT) if trial.method == KIT else trial.budget)


def usable_methods(asked: Sequence[str]) -> tuple[list[str], str]:
    """Those that can be used here, and a remark about those that cannot."""
    if "frontrun" in asked and importlib.util.find_spec("frontrun") is None:
        left = [method for method in asked if method != "frontrun"]
        return left, "frontrun is not installed, so it is left out: pip install 'frontrun[sql]'"
    return [method for method in METHODS if method in asked], ""


def _machine() -> dict[str, str]:
    found = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} on {platform.machine()}",
        "processors": str(os.cpu_count()),
    }
    if importlib.util.find_spec("frontrun") is not None:
        found["frontrun"] = importlib.metadata.version("frontrun")
    return found
