"""Schedules: which worker moves next, as a list of small integers.

At each choice point the runnable workers are put in order: the one that moved last first, when it can move, then
the others by name. A schedule's next integer picks from that order; an exhausted schedule picks the first. So 0
keeps the current worker, a smaller list means fewer preemptions, and a list that is cut short is a schedule too:
shrinking and replay come for free.

`walk` tries all schedules of a run up to a bound of preemptions, without remembering states (stateless search,
Godefroid 1997; preemption bounding, Musuvathi and Qadeer, PLDI 2007). Where an executor tells what each step touches,
a walk without a bound runs only such schedules as put two steps that touch the same thing in another order (dynamic
partial-order reduction, see `explore.reduction`); all others would repeat a run. `pct_chooser` draws schedules by random priorities
(PCT, Burckhardt et al., ASPLOS 2010).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from continuum_conformance.explore.reduction import Move, Touch, Tree
from continuum_conformance.postgres.tape import Sent

__all__ = [
    "Choice",
    "Chooser",
    "Execution",
    "Executor",
    "Move",
    "Scripted",
    "Step",
    "Touch",
    "Walk",
    "pct_chooser",
    "random_chooser",
    "walk",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice point of a run.

    Attributes:
        options: the runnable workers, the one that moved last first where it can move.
        taken: the index of the one that moved.
        preemptive: whether taking another than the first takes the turn from a worker that could have gone on.
        labels: what each option would do next, for a reader (a statement, a line); may be empty.
    """

    options: tuple[str, ...]
    taken: int
    preemptive: bool
    labels: tuple[str, ...] = ()


Kind = Literal["moves", "waits", "silent"]


class Step(NamedTuple):
    """What a worker did at one moment of a run.

    Attributes:
        worker: who.
        label: what, for a reader: a statement, a line.
        at: when, by the executor's clock.
        kind: whether the worker moved, was found to wait for another, or was silent, so that it was taken to wait for
            something that the executor does not see.
        blockers: for whom it waits, as far as that is known.
    """

    worker: str
    label: str
    at: int
    kind: Kind = "moves"
    blockers: tuple[str, ...] = ()


class Chooser(Protocol):
    """Decides a run's choices, one at a time."""

    def __call__(self, options: Sequence[str], current_first: bool, /) -> int:
        """The index of the worker that moves. ``options`` has two workers or more.

        Args:
            options: the runnable workers in the order of the schedule.
            current_first: whether the first of them moved last, so that another one is a preemption.
        """
        ...


class Scripted:
    """Follows a schedule, then keeps the current worker."""

    def __init__(self, schedule: Sequence[int]) -> None:
        self._schedule = tuple(schedule)
        self._next = 0

    def __call__(self, options: Sequence[str], current_first: bool) -> int:  # noqa: ARG002
        """The schedule's next choice, 0 once it is exhausted."""
        if self._next >= len(self._schedule):
            return 0
        wanted = self._schedule[self._next]
        self._next += 1
        # A replay that meets fewer workers than the schedule knew (the store chose differently) goes on.
        return wanted if wanted < len(options) else 0


def random_chooser(seed: int) -> Chooser:
    """Every worker is equally likely at every point."""
    source = random.Random(seed)
    return lambda options, _current_first: source.randrange(len(options))


def pct_chooser(seed: int, *, depth: int = 3, length: int = 60) -> Chooser:
    """Random priorities, lowered at ``depth - 1`` random points of a run of about ``length`` choices (PCT)."""
    source = random.Random(seed)
    changes = {source.randrange(length) for _ in range(depth - 1)}
    priorities: dict[str, float] = {}
    place = 0

    def choose(options: Sequence[str], _current_first: bool) -> int:
        nonlocal place
        for worker in sorted(options):
            priorities.setdefault(worker, 1 + source.random())
        best = max(range(len(options)), key=lambda index: priorities[options[index]])
        if place in changes:
            priorities[options[best]] = -place - source.random()
            best = max(range(len(options)), key=lambda index: priorities[options[index]])
        place += 1
        return best

    return choose


@dataclass
class Execution:
    """What an executor tells of one run.

    Attributes:
        choices: the choice points in order, with what was taken.
        steps: who moved and who waited, in order, for the reader.
        deadlock: the stacks of all workers by name, when none of them could ever move again.
        hung: the workers that did not come back for another reason, with their stacks.
        waits: how often a worker was found blocked by another.
        gave_up: the workers whose calls ended by a time-out of their own while another was held still.
        diverged: whether the run could not follow its schedule.
        moves: every step in order with what it touches, where the executor tells; else empty.
        tape: what went to the server and came from it, where a step is a statement; else empty.
    """

    choices: list[Choice] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    deadlock: dict[str, str] | None = None
    hung: dict[str, str] = field(default_factory=dict)
    waits: int = 0
    gave_up: set[str] = field(default_factory=set)
    diverged: bool = False
    moves: list[Move] = field(default_factory=list)
    tape: list[Sent] = field(default_factory=list)

    @property
    def schedule(self) -> tuple[int, ...]:
        """The schedule that was taken, without trailing zeros."""
        taken = [choice.taken for choice in self.choices]
        while taken and taken[-1] == 0:
            taken.pop()
        return tuple(taken)

    @property
    def preemptions(self) -> int:
        """How often a worker lost its turn although it could have gone on."""
        return sum(1 for choice in self.choices if choice.taken and choice.preemptive)


class Executor(Protocol):
    """Runs workers concurrently with the chooser deciding who moves at each choice point."""

    level: str
    """How fine a step is: ``statements``, ``instructions``, ``lines``, ``tasks`` or ``operations``."""
    clock: Callable[[], int] | None
    """Numbers the steps, in one order with whatever else counts by it; without, each run counts its own."""

    def run(self, workers: dict[str, Callable[[], None]], chooser: Chooser) -> Execution:
        """Run every worker's body to its end, one of them at a time. A body never raises."""
        ...


@dataclass
class Walk(Generic[T]):
    """How far a walk went.

    Attributes:
        runs: how many schedules were run.
        exhausted: whether every schedule within the bound was run.
        bound: the bound of preemptions; None for all.
        found: the first result that was no pass, with its schedule.
    """

    runs: int = 0
    exhausted: bool = False
    bound: int | None = None
    found: T | None = None


def walk(
    attempt: Callable[[Chooser], tuple[Execution, T | None]],
    *,
    bound: int | None,
    limit: int | None = None,
    start: Sequence[int] = (),
    over: Callable[[], bool] = lambda: False,
) -> Walk[T]:
    """Run every schedule with at most ``bound`` preemptions, fewest preemptions first, until one is no pass.

    Args:
        attempt: runs once under a chooser; gives the execution and None for a pass.
        bound: preemptions; None for any number.
        limit: runs, at most.
        start: a prefix that every schedule begins with.
        over: asked before each run but the first; the walk ends when it says so.
    """
    result: Walk[T] = Walk(bound=bound)
    # Branches to be run, by their number of preemptions; each differs from its parent after the parent's prefix.
    pending: list[list[Branch]] = [[(tuple(start), len(start), 0)]]
    tree = Tree(len(start))
    level = 0
    while level < len(pending):
        if not pending[level]:
            level += 1
            continue
        if (limit is not None and result.runs >= limit) or (result.runs and over()):
            return result
        taken, place, index = pending[level].pop()
        prefix = taken if place == len(taken) else (*taken[:place], index)
        execution, found = attempt(Scripted(prefix))
        result.runs += 1
        if found is not None:
            result.found = found
            return result
        for cost, branch in _branches(execution, prefix, bound, tree):
            while len(pending) <= cost:
                pending.append([])
            pending[cost].append(branch)
            level = min(level, cost)
    result.exhausted = True
    return result


Branch = tuple[tuple[int, ...], int, int]
"""A schedule as a run's choices, a place in them and what is taken there instead; what follows is open."""


def _branches(
    execution: Execution, prefix: tuple[int, ...], bound: int | None, tree: Tree
) -> Iterator[tuple[int, Branch]]:
    """The branches from this run, one choice each, with their preemptions; the latest last."""
    taken = tuple(choice.taken for choice in execution.choices)
    options = [choice.options for choice in execution.choices]
    if execution.moves and bound is None:
        wanted = tree.learn(options, taken, execution.moves)
    else:
        wanted = [
            (place, index)
            for place in range(len(prefix), len(taken))
            for index in range(len(options[place]))
            if index != taken[place]
        ]
    costs = [0]
    for choice in execution.choices:
        costs.append(costs[-1] + (choice.preemptive and choice.taken != 0))
    for place, index in wanted:
        cost = costs[place] + (execution.choices[place].preemptive and index != 0)
        if bound is None or cost <= bound:
            yield cost, (taken, place, index)
