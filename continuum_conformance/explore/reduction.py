"""Which other schedules of a run can make a difference: dynamic partial-order reduction.

Two steps are *dependent* when they touch the same thing and one of them writes it. Two runs that order all dependent
steps alike are the same run, so one of them is enough. After each run its *races* are looked for: two dependent
steps of different workers that nothing in between puts in an order. For each, a schedule is wanted in which the
later one's worker moves at the earlier one's place (Flanagan and Godefroid, *Dynamic partial-order reduction for
model checking software*, POPL 2005).

Where a worker was tried already and what moves instead is independent of its step, it *sleeps* until something
dependent moves, for its step first and then the other's is the same run (Godefroid's sleep sets).

Real time is a thing that is touched: an operation's return writes it and an operation's call reads it, because a
judge may see which came first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["REAL_TIME", "Move", "Touch", "Touches", "Tree"]

Touch = tuple[str, bool]
"""The name of something that workers may share, and whether it is written. ``"*"`` is anything in memory."""

Touches = frozenset[Touch]

REAL_TIME = "(real time)"
LOCK = "lock "
"""What the names of locks begin with. Neither these nor real time are meant by ``"*"``."""


@dataclass(slots=True)
class Move:
    """A step that was taken.

    Attributes:
        worker: whose.
        touches: what it touched; None when that is not known, so that it depends on every other one.
        choice: the place of the choice that led to it, -1 where there was none.
        releases: whether it is no step but the release of a lock within one: it orders the next acquire behind it,
            and cannot be put behind that.
    """

    worker: str
    touches: Touches | None
    choice: int = -1
    releases: bool = False


class Tree:
    """The schedules of a walk: what was tried after each prefix, and what is wanted.

    Args:
        fixed: how many choices at the start are not to be changed.
    """

    def __init__(self, fixed: int = 0) -> None:
        self._fixed = fixed
        # A prefix is a number: what was taken after which prefix gives the next. A run has thousands of choices, and
        # its prefixes as tuples would take megabytes.
        self._after: dict[tuple[int, int], int] = {}
        self._tried: dict[int, set[str]] = {}
        # What each worker's step touched there, in the order in which they were run.
        self._first: dict[int, dict[str, Touches | None]] = {}
        self._dependent: dict[tuple[Touches, Touches], bool] = {}

    def learn(
        self,
        options: Sequence[tuple[str, ...]],
        taken: tuple[int, ...],
        moves: Sequence[Move],
    ) -> list[tuple[int, int]]:
        """Take note of a run.

        Args:
            options: the workers that could move, for each choice.
            taken: the index of the one that moved, for each choice.
            moves: the steps.

        Returns:
            (place, index) of each choice to be made otherwise, by place; none is given twice in a walk.
        """
        sleepers: dict[int, dict[str, Touches | None]] = {}
        wanted: list[tuple[int, int]] = []
        prefixes = self._prefixes(taken)
        length = self._repeats_from(options, prefixes, moves, sleepers, wanted)
        for move in moves[:length]:
            if move.choice >= 0:
                self._tried.setdefault(prefixes[move.choice], set()).add(move.worker)
        for place, workers in self._races(options, moves[:length]):
            tried = self._tried.setdefault(prefixes[place], set())
            able = [worker for worker in workers if worker in options[place]]
            if place < self._fixed or any(w in tried or w in sleepers.get(place, ()) for w in able):
                continue
            for worker in able[:1] or [worker for worker in options[place] if worker not in tried]:
                tried.add(worker)
                wanted.append((place, options[place].index(worker)))
        return sorted(wanted)

    def _prefixes(self, taken: tuple[int, ...]) -> list[int]:
        """The number of the prefix before each choice, and of the whole."""
        prefixes = [0]
        for index in taken:
            prefixes.append(self._after.setdefault((prefixes[-1], index), len(self._after) + 1))
        return prefixes

    def _repeats_from(
        self,
        options: Sequence[tuple[str, ...]],
        prefixes: Sequence[int],
        moves: Sequence[Move],
        sleepers: dict[int, dict[str, Touches | None]],
        wanted: list[tuple[int, int]],
    ) -> int:
        """The place of the first move that repeats what another schedule shows, and where ``wanted`` another goes on.

        Gives also, by the place of a choice, who slept there.
        """
        sleep: dict[str, Touches | None] = {}
        for number, move in enumerate(moves):
            if move.releases:
                continue
            if move.choice >= 0:
                sleepers[move.choice] = sleep
            if move.worker in sleep:
                place = move.choice
                if place >= self._fixed:
                    tried = self._tried.setdefault(prefixes[place], set())
                    awake = [worker for worker in options[place] if worker not in sleep]
                    if awake and not tried & set(awake):
                        tried.add(awake[0])
                        wanted.append((place, options[place].index(awake[0])))
                return number
            if move.choice >= 0:
                first = self._first.setdefault(prefixes[move.choice], {})
                first.setdefault(move.worker, move.touches)
                for worker, touches in first.items():
                    if worker == move.worker:
                        break
                    sleep = {**sleep, worker: touches}
            sleep = {
                worker: touches
                for worker, touches in sleep.items()
                if worker != move.worker and not self._depends(touches, move.touches)
            }
        return len(moves)

    def _races(
        self, options: Sequence[tuple[str, ...]], moves: Sequence[Move]
    ) -> list[tuple[int, list[str]]]:
        """(place of a choice, the workers of which one should have moved there)."""
        numbers = {name: number for number, name in enumerate(sorted({move.worker for move in moves}))}
        at = [numbers[move.worker] for move in moves]
        # The last step of each worker that comes before a step or is it.
        clocks: list[list[int]] = []
        latest = [[-1] * len(numbers) for _ in numbers]
        places: list[dict[Touches | None, list[int]]] = [{} for _ in numbers]
        races: list[tuple[int, list[str]]] = []
        for later, move in enumerate(moves):
            mine = at[later]
            joined = latest[mine].copy()
            covered = latest[mine].copy()
            for earlier in self._dependent_before(move, places, mine, covered):
                if covered[at[earlier]] >= earlier:
                    continue
                joined = list(map(max, joined, clocks[earlier]))
                if moves[earlier].releases or move.releases:
                    continue
                place = moves[earlier].choice
                if place < 0 or move.worker not in options[place]:
                    continue  # it could not have moved there; so a race with an earlier step is not hidden by this one
                covered[:] = map(max, covered, clocks[earlier])
                races.append((place, self._initials(moves, at, [*clocks, joined], earlier, later)))
            places[mine].setdefault(move.touches, []).append(later)
            joined[mine] = later
            clocks.append(joined)
            latest[mine] = joined
        return races

    def _dependent_before(
        self, move: Move, places: list[dict[Touches | None, list[int]]], mine: int, covered: list[int]
    ) -> Iterator[int]:
        """The places of the other workers' steps that a step depends on, the latest first, down to what is covered."""
        runs = [
            _downwards(numbers, covered, other)
            for other, by_touches in enumerate(places)
            if other != mine
            for touches, numbers in by_touches.items()
            if numbers[-1] > covered[other] and self._depends(touches, move.touches)
        ]
        return runs[0] if len(runs) == 1 else heapq.merge(*runs, reverse=True)

    @staticmethod
    def _initials(
        moves: Sequence[Move], at: Sequence[int], clocks: Sequence[list[int]], earlier: int, later: int
    ) -> list[str]:
        """The workers that can move first where all that does not depend on ``earlier`` moves before it."""
        initials: list[str] = []
        seen = {at[earlier]}
        for number in range(earlier + 1, later + 1):
            mine = at[number]
            if mine in seen or moves[number].releases:
                continue
            seen.add(mine)
            clock = clocks[number]
            if number != later and clock[at[earlier]] >= earlier:
                continue
            if not any(
                step > earlier for other, step in enumerate(clock) if other not in (mine, at[earlier])
            ):
                initials.append(moves[number].worker)
        return initials

    def _depends(self, one: Touches | None, other: Touches | None) -> bool:
        if one is None or other is None:
            return True
        if (one, other) not in self._dependent:
            self._dependent[one, other] = any(
                (writes or also) and (name == same or ("*" in (name, same) and _in_memory(name, same)))
                for name, writes in one
                for same, also in other
            )
        return self._dependent[one, other]


def _downwards(numbers: Sequence[int], covered: Sequence[int], worker: int) -> Iterator[int]:
    for number in reversed(numbers):
        if number <= covered[worker]:
            return
        yield number


def _in_memory(*names: str) -> bool:
    return not any(name == REAL_TIME or name.startswith(LOCK) for name in names)
