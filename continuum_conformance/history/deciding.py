"""Deciding a history by its parts: every part's search gets its turn, and the first that fails explains itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from continuum_conformance.history.explanation import explain
from continuum_conformance.history.recording import Recorded
from continuum_conformance.history.search import PAUSE, Found, Problem, search
from continuum_conformance.history.verdict import Status, Verdict
from continuum_conformance.model import Operation

__all__ = ["Case", "decide_cases", "split"]

STATES = 2_000_000
STATES_EACH = 50
"""The default budget: so many states, and so many more for each operation."""

Build = Callable[[Sequence[Recorded], "int | None", bool], Problem]
"""Makes a problem of these operations, up to the return of the one given (or just before it)."""


@dataclass(frozen=True, slots=True)
class Case:
    """One part of a history.

    Attributes:
        key: the part's key.
        entries: its operations in the order of invocation.
        problem: makes the problem that decides.
        telling: makes the problem that gives reasons.
        later: makes the case of the rest, from where an order of some of the operations leads; None where that is
            not known.
        foresees: whether the deciding problem uses later answers to rule out earlier choices; then the operation at
            which it is blocked is not yet the end of the shortest prefix.
    """

    key: Hashable
    entries: Sequence[Recorded]
    problem: Build
    telling: Build
    later: Callable[[Sequence[Recorded], list[Recorded]], Case | None]
    foresees: bool


def split(
    history: Iterable[Recorded], partition: Callable[[Operation], Hashable]
) -> dict[Hashable, list[Recorded]]:
    """The operations that count, by key, each part in the order of invocation."""
    parts: dict[Hashable, list[Recorded]] = {}
    for entry in history:
        if entry.counts:
            parts.setdefault(partition(entry.operation), []).append(entry)
    for part in parts.values():
        part.sort(key=_invoked)
    return parts


def _invoked(entry: Recorded) -> int:
    return entry.invoked


def decide_cases(
    parts: Mapping[Hashable, Sequence[Recorded]],
    cases: Iterable[Case],
    *,
    budget: int | None,
    orders: bool,
    explaining: bool,
) -> Verdict:
    """Search all parts, a slice of each in turn, until one has failed, all have passed or the budget has ended.

    One part searched to its end before the next could eat the whole budget, and all memory, while the bad one
    waits. In turn, the bad one shows at once.

    Args:
        parts: the history's parts by key.
        cases: a case for each of them, made when its first turn comes.
        budget: how many states may be visited.
        orders: whether to keep the orders.
        explaining: whether a failure explains itself.
    """
    operations = sum(map(len, parts.values()))
    limit = STATES + STATES_EACH * operations if budget is None else budget
    visited = 0
    found: dict[Hashable, tuple[Recorded, ...]] = {}
    for case, spent, result in _turns(cases, max(1, min(PAUSE, limit))):
        visited += spent
        if result is None:
            if visited >= limit:
                break
        elif result.order is None:
            explanation = explain(case, result.blocked) if explaining else None
            return Verdict(Status.FAILED, operations, len(parts), visited, explanation)
        else:
            found[case.key] = tuple(case.entries[index] for index in result.order) if orders else ()
    unfinished = tuple(key for key in parts if key not in found)
    return Verdict(
        Status.INCONCLUSIVE if unfinished else Status.PASSED,
        operations,
        len(parts),
        visited,
        None,
        unfinished,
        found if orders else {},
    )


def _turns(cases: Iterable[Case], pause: int) -> Generator[tuple[Case, int, Found | None], None, None]:
    """Each case's search in turn: (case, states visited, what was found or None for not yet)."""
    queue: deque[tuple[Case, Iterator[int]]] = deque()
    waiting = iter(cases)
    while True:
        case = next(waiting, None)
        if case is not None:
            running: Iterator[int] = search(case.problem(case.entries, None, True), pause)
        elif queue:
            case, running = queue.popleft()
        else:
            return
        spent = 0
        try:
            while spent < pause:
                spent += next(running)
        except StopIteration as stop:
            yield case, spent, stop.value
        else:
            yield case, spent, None
            queue.append((case, running))
