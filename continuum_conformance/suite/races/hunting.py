"""Hunting a race for as long as one likes: known scenarios first, then random programs, never twice the same.

A hunt is seeded and goes on where the last one over the same corpus ended.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from continuum_conformance.harness.reach import Reach
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.races.exploring import Explored, explore
from continuum_conformance.suite.races.levels import Budget, level_of
from continuum_conformance.suite.races.scenarios import (
    CLASSICS,
    SITUATIONS,
    Act,
    Scenario,
    acts,
    all_pairs,
    usable,
)
from continuum_conformance.suite.violation import Violation

__all__ = ["STRATEGIES", "Corpus", "Hunt", "hunt", "random_scenario"]

STRATEGIES = ("exhaustive", "pct", "random")
MAX_OPERATIONS = 12
RUNS_EACH = 60
"""Schedules of one random program."""
FIRST_LOOK, KNOWN_LIMIT = 40, 5_000
"""Schedules of one known scenario: at first, when each of them gets a look, and then."""
FREE_LIMIT = 100
"""Rounds of one in free threads, where no walk ever ends."""


@dataclass
class Corpus:
    """What earlier hunts over the same adapter have explored: a JSON file that a later one continues."""

    file: Path | None = None
    done: set[str] = field(default_factory=set)
    """Known scenarios that were explored in full."""
    programs: int = 0
    """How many random programs were run."""

    @classmethod
    def read(cls, file: Path) -> Corpus:
        """The corpus in a file; an empty one where there is none. Raises ``ValueError`` for another file."""
        if not file.exists():
            return cls(file)
        data = json.loads(file.read_text("utf-8"))
        if not isinstance(data, dict) or not isinstance(data.get("programs"), int):
            raise ValueError(f"{file} is no corpus of races")
        return cls(file, set(map(str, data.get("done", ()))), data["programs"])

    def write(self) -> None:
        """Keep it. Raises ``OSError``."""
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(
                json.dumps({"done": sorted(self.done), "programs": self.programs}, indent=1) + "\n", "utf-8"
            )


@dataclass
class Hunt:
    """What a hunt did: scenarios, schedules, the level, and the find."""

    scenarios: int = 0
    runs: int = 0
    level: str = ""
    seconds: float = 0.0
    violation: Violation | None = None
    exact: bool = True


def random_scenario(
    capabilities: frozenset[str], seed: int, workers: int, ops: frozenset[str] = frozenset()
) -> Scenario:
    """A random program: swarm style, it draws its own situation and its own few kinds of operations first."""
    source = random.Random(seed)
    situations = [s for s in SITUATIONS.values() if usable(Scenario("", s, {}), capabilities)]
    situation = source.choice(situations)
    known = [act for act in acts(capabilities, situation) if not ops or act.operation in ops]
    kinds = source.sample(known, min(len(known), source.randint(2, 5))) if known else [Act("load")]
    left = MAX_OPERATIONS
    programs: dict[str, tuple[Act, ...]] = {}
    for name in "ABCD"[:workers]:
        mine: list[Act] = []
        for _ in range(source.randint(1, max(1, min(4, left - (workers - len(programs) - 1))))):
            act = source.choice(kinds)
            mine.append(act)
            if act.op == "acquire" and source.random() < 0.6:
                mine.append(Act(source.choice(["append", "complete", "renew", "release"]), "own"))
        left -= len(mine)
        programs[name] = (*mine[:4], Act("load"))
    return Scenario(f"random program {seed}", situation, programs)


def _known(
    capabilities: frozenset[str], reach: Reach, ops: frozenset[str], workers: int
) -> Iterator[Scenario]:
    for scenario in (*CLASSICS, *all_pairs(capabilities)):
        used = {act.operation for mine in scenario.workers.values() for act in mine} - {"load", "get_run"}
        if (
            usable(scenario, capabilities, reach)
            and len(scenario.workers) <= workers
            and (not ops or used <= ops)
        ):
            yield scenario


def hunt(
    session: Session,
    *,
    corpus: Corpus,
    ops: frozenset[str] = frozenset(),
    workers: int = 3,
    strategy: str = "exhaustive",
    budget: float = 30.0,
    seed: int = 0,
    progress: Callable[[Hunt, Explored], None] = lambda _hunt, _explored: None,
) -> Hunt:
    """Explore until a race is found or the time is over.

    Args:
        session: the adapter, after preflight.
        corpus: what was explored before; it grows.
        ops: operations that may take part; all when empty.
        workers: how many at most, 2 to 4.
        strategy: ``exhaustive`` walks the known scenarios first; ``pct`` and ``random`` draw programs at once.
        budget: seconds.
        seed: of the random programs.
        progress: called after each scenario.
    """
    found = Hunt()
    started = time.monotonic()

    def over() -> bool:
        return time.monotonic() - started > budget

    known = (
        (scenario, limit)
        for limit in (FIRST_LOOK, KNOWN_LIMIT)
        for scenario in _known(session.capabilities, session.subject.reach, ops, workers)
        if strategy == "exhaustive"
    )
    while found.violation is None and (found.seconds < budget or not found.scenarios):
        level = level_of(session)
        found.level = level.name
        next_known = next((each for each in known if each[0].name not in corpus.done), None)
        if next_known is not None:
            scenario, limit = next_known
            limit = min(limit, FREE_LIMIT) if level.name == "threads" else limit
            explored = explore(session, scenario, level.executor, Budget(limit), over=over)
            if explored.exhausted:
                corpus.done.add(scenario.name)
        else:
            number = seed * 1_000_003 + corpus.programs
            corpus.programs += 1
            scenario = random_scenario(session.capabilities, number, workers, ops)
            walk = strategy == "exhaustive"
            explored = explore(
                session,
                scenario,
                level.executor,
                Budget(RUNS_EACH if walk else 1, RUNS_EACH),
                seed=number,
                over=over,
            )
        found.scenarios += 1
        found.runs += explored.runs
        found.violation, found.exact = explored.violation, explored.exact
        found.seconds = time.monotonic() - started
        progress(found, explored)
    corpus.write()
    return found
