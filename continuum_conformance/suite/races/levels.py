"""How finely an adapter can be interleaved: the executor that fits it, and why it is not a finer one."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from continuum_conformance.contract.records import Instance
from continuum_conformance.explore.free import FreeThreads
from continuum_conformance.explore.gated import GatedExecutor
from continuum_conformance.explore.lines import LineExecutor
from continuum_conformance.explore.tasks import ControlledLoop, TaskExecutor
from continuum_conformance.harness.bridge.harness import ProgramHarness
from continuum_conformance.harness.child import peers
from continuum_conformance.harness.subject import PROBE
from continuum_conformance.model import Operation
from continuum_conformance.postgres.gate import Gate
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.races.scenarios import SITUATIONS, Scenario
from continuum_conformance.suite.testing import Profile

__all__ = ["Budget", "Level", "level_of", "own_files"]

KIT = Path(__file__).resolve().parents[2]


def own_files(journal: Any, harness: Any) -> frozenset[str]:
    """The source files that are the adapter's own: those of its classes, and of the package that they stand in.

    Third-party packages that it merely uses are not among them, nor is the kit.
    """
    files: set[str] = set()
    packages: set[str] = set()
    for cls in (*type(journal).__mro__, type(harness)):
        module = sys.modules.get(cls.__module__)
        file = getattr(module, "__file__", None)
        if module is None or file is None or _foreign(Path(file), cls.__module__):
            continue
        files.add(file)
        top = cls.__module__.partition(".")[0]
        if "." in cls.__module__:
            packages.add(top)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name.partition(".")[0] in packages and not _foreign(Path(file), name):
            files.add(file)
    return frozenset(files)


def _foreign(file: Path, module: str) -> bool:
    """Whether a file is the standard library's or the kit's."""
    if module.partition(".")[0] in sys.stdlib_module_names and module != "__main__":
        return True
    return KIT in file.resolve().parents


@dataclass(frozen=True)
class Budget:
    """How much of a scenario is walked, and how many random schedules follow if that is not all.

    Attributes:
        limit: schedules, at most.
        random_runs: schedules that follow.
        steps: how many steps the schedules may have in all, beyond the first ``least``: where each has very many, few
            of them are as much work as all of a plainer adapter's.
        least: schedules that may have any number of steps.
    """

    limit: int
    random_runs: int = 0
    steps: int | None = None
    least: int = 0


# By what a run costs: (a known scenario's, a pair's) for each profile.
_CHEAP = {"quick": (100, 40), "standard": (1000, 600), "thorough": (50_000, 50_000)}
_STATEMENTS = {"quick": (40, 8), "standard": (100, 300), "thorough": (20_000, 20_000)}
_COSTLY = {"quick": (12, 4), "standard": (40, 8), "thorough": (2_000, 2_000)}
_FREE = {"quick": (2, 0), "standard": (5, 0), "thorough": (50, 0)}

# Steps of a known scenario's schedules and of a pair's, many times what the reference adapters' trees have in all.
_STEPS = {"statements": (None, 1_500), "": (200_000, 40_000)}
_LEAST = (100, 24)

MANY_CUT = 60
"""Pairs that were cut short, after which a plan that has an end takes the others to have as many schedules."""
FEW = 16
"""Schedules of each of those."""


@dataclass(frozen=True)
class Level:
    """How finely an adapter is interleaved.

    Attributes:
        name: ``statements``, ``instructions``, ``lines``, ``tasks`` or ``threads``.
        executor: who lets its workers move.
        reason: why it is not a finer one, where there is one.
        costly: whether a run waits for a store outside of this process.
    """

    name: str
    executor: Any
    """An `Executor`; that of tasks takes bodies that are coroutine functions."""
    reason: str = ""
    costly: bool = False

    def budget(self, profile: Profile, scenario: Scenario, cut: int = 0) -> Budget:
        """The plan for a scenario: fixed by profile, level and what was walked before, whatever the time that it takes.

        Args:
            profile: of the plan.
            scenario: the scenario.
            cut: how many pairs were cut short until now.
        """
        plan = _STATEMENTS if self.name == "statements" else _COSTLY if self.costly else _CHEAP
        known, pair = (_FREE if self.name == "threads" else plan)[profile.name]
        steps = _STEPS.get(self.name, _STEPS[""]) if profile.name != "thorough" else (None, None)
        if not scenario.classic:
            few = cut >= MANY_CUT and profile.name != "thorough"
            return Budget(min(pair, FEW) if few else pair, 0, steps[1], _LEAST[1])
        if scenario.one_handle and self.name == "statements":
            return Budget(known // 10)  # who waits in its client is waited for
        more = {"quick": 0, "standard": known // 8, "thorough": 500}[profile.name]
        return Budget(known, more, steps[0], _LEAST[0])

    def chosen(self, profile: Profile, scenarios: Iterable[Scenario]) -> Iterator[Scenario]:
        """The pairs of a plan: in the quick profile, and where each run is costly, those of two situations or none."""
        if self.name == "threads":
            return
        names = tuple(SITUATIONS)
        if self.costly:
            names = names[:0] if profile.name == "quick" else names[:2]
        elif profile.name == "quick":
            names = names[: 1 if self.name == "statements" else 2]
        for scenario in scenarios:
            if scenario.situation.name in names or profile.name == "thorough":
                yield scenario


def level_of(session: Session) -> Level:
    """The level at which this adapter's races are explored; found at first use, and lowered when it does not hold."""
    session.notice_restart()
    level: Level | None = session.race_level
    if level is not None and level.executor.level != "operations":
        return level
    level = _free(session, level) if level is not None else _finest(session)
    session.race_level = level
    if session.race_levels[-1:] != [level.name]:
        session.race_levels.append(level.name)
    return level


def _finest(session: Session) -> Level:
    if "postgres" in session.subject.needs and session.subject.dsn is not None:
        level = _gated(session, session.subject.dsn)
        if level is not None:
            return level
    journal = session.handle("A").journal  # which tells whether the adapter is async
    if session.subject.is_async:
        return _tasks(session)
    external = _external(session)
    files = own_files(journal, session.subject.harness)
    if not files:
        return Level("threads", FreeThreads(), "the adapter has no Python source of its own")
    executor = LineExecutor(lambda name: name in files, "lines" if external else "instructions")
    if executor.level == "operations":
        return Level("threads", FreeThreads(), executor.reason or "")
    session.close_handles()
    executor.open()
    session.at_close.append(executor.close)
    for worker in ("A", "B", "C"):
        executor.adopt(session.handle(worker).journal, session.subject.harness)
    return Level(executor.level, executor, costly=external)


def _gated(session: Session, dsn: str) -> Level | None:
    """Statements of PostgreSQL, each worker behind its gate; None where the gate sees no connection."""
    subject = session.subject
    session.handle("A")  # which makes the adapter's tables, should they not be there yet
    session.close_handles()
    gate = Gate(dsn)
    session.at_close.append(gate.close)
    program = subject.harness if isinstance(subject.harness, ProgramHarness) else None
    executor = GatedExecutor(
        gate,
        parks=tuple(getattr(subject.harness, "tables", None) or ()),
        elsewhere=(lambda: program.runs) if program is not None else None,
    )
    session.at_close.insert(0, executor.close)
    subject.dsn_for = gate.dsn_for
    for worker in ("A", "B", "C"):
        session.handle(worker).call(
            Operation("get_run", {"instance": Instance("gate"), "run_id": str(UUID(int=1))})
        )
    if any(gate.sees_no_connection(worker) for worker in ("A", "B", "C")):
        session.close_handles()
        subject.dsn_for = None
        session.remarks[
            "races are not interleaved at statements: a handle's gate saw no connection (one engine for all?)"
        ] += 1
        return None
    return Level("statements", executor)


def _tasks(session: Session) -> Level:
    """The steps of an async adapter's tasks, on a loop of ours."""
    subject = session.subject
    session.close_handles()
    subject.shutdown()
    subject.new_loop = ControlledLoop
    for worker in ("A", "B", "C"):
        session.handle(worker)
    if not isinstance(subject.loop, ControlledLoop):
        return Level("threads", FreeThreads(), "the adapter brings an event loop of its own")
    return Level("tasks", TaskExecutor(subject.loop), costly=_external(session))


def _external(session: Session) -> bool:
    """Whether the store is outside of this process: each run waits for it, and nobody sees what its steps touch there.

    It is when the harness says so, or when a handle that is opened and used connects this process to something.
    """
    if session.subject.needs or not {"durable", "shared"}.isdisjoint(session.capabilities):
        return True
    session.close_handles()
    before = Counter(map(str, peers()))
    for worker in ("A", "B"):
        session.handle(worker).call(PROBE)
    return bool(Counter(map(str, peers())) - before)


def _free(session: Session, before: Level) -> Level:
    reason = getattr(before.executor, "reason", "") or "the adapter could not be interleaved"
    session.remarks[f"races ran in free threads: {reason}"] += 1
    return Level("threads", FreeThreads(), reason)
