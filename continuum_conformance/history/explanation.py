"""Why a history has no explanation: the shortest prefix, the operations concerned, and what is wrong with each order.

Everything here runs after a proof was found, so it may take its time, but only so much of it: where a history is
too large to be made small, the explanation is larger and still right.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from continuum_conformance.history.recording import Recorded
from continuum_conformance.history.search import Found, Problem, decide
from continuum_conformance.history.verdict import Attempt, Explanation
from continuum_conformance.history.wording import headline, tell
from continuum_conformance.model import READS, Impossible

if TYPE_CHECKING:
    from continuum_conformance.history.deciding import Case

__all__ = ["explain"]

JUDGED, VISITED = 100_000, 300_000
"""How many operations may be judged again, and how many states visited, to make a counterexample smaller."""
SHARE = 10
"""Each of these judgements may visit so large a part of the states that are left."""
STATES, STATES_EACH = 200_000, 50
"""How many states a judgement of a whole prefix may visit, and how many more for each operation."""
WRITES = 10
"""A counterexample with no more accepted writes than that keeps them all."""
LONG, RECENT = 300, 40
"""Of a prefix longer than the one, only so many operations at its end are looked at closely."""
TRIED = 4_000
"""How many steps may be tried to list the orders,"""
TOLD = 12
"""and how many of the orders are told."""


def explain(case: Case, blocked: int) -> Explanation:
    """Explain why no order explains this part of a history.

    Args:
        case: the part; its search has found that there is no order.
        blocked: the operation whose return no order reached.
    """
    index, order = _decisive(case, blocked) if case.foresees else (blocked, None)
    decisive = case.entries[index]
    prefix = [entry for entry in case.entries if _begun(entry, decisive)]
    near, close = (case, prefix) if len(prefix) <= LONG else _close(case, prefix, decisive, order)
    effort = _Effort()
    kept = _smallest(near, close, decisive, effort)
    if effort.spent and close is prefix and len(kept) > RECENT:
        near, close = _close(case, prefix, decisive, order)
        if close is not prefix:
            effort = _Effort()
            kept = _smallest(near, close, decisive, effort)
    needed = _needed(near, kept, decisive, effort)
    attempts, more = _attempts(near, kept, decisive)
    first = headline(needed, decisive)
    earlier = len(prefix) - len(close)
    text = tell(first, kept, decisive, attempts, more, earlier)
    return Explanation(
        case.key,
        tuple(prefix),
        decisive,
        tuple(kept),
        tuple(needed),
        tuple(attempts),
        more,
        earlier,
        first,
        text,
    )


@dataclass(slots=True)
class _Effort:
    """What may still be spent to make a counterexample smaller."""

    operations: int = JUDGED
    states: int = VISITED

    @property
    def spent(self) -> bool:
        return self.operations < 0 or self.states < 0


def _begun(entry: Recorded, decisive: Recorded) -> bool:
    """Whether an operation had begun when the decisive one returned."""
    return entry is decisive or (decisive.returned is not None and entry.invoked <= decisive.returned)


def _explained(
    case: Case,
    entries: Sequence[Recorded],
    last: Recorded,
    effort: _Effort | None = None,
    *,
    inclusive: bool = True,
) -> bool | None:
    """Whether an order explains these operations up to a return; None when that took too long to find out."""
    found = _found(case, entries, last, effort, inclusive=inclusive)
    return None if found is None else found.order is not None


def _found(
    case: Case,
    entries: Sequence[Recorded],
    last: Recorded,
    effort: _Effort | None = None,
    *,
    inclusive: bool,
) -> Found | None:
    entries = [entry for entry in entries if _begun(entry, last)]
    limit = STATES + STATES_EACH * len(entries) if effort is None else effort.states // SHARE
    found, visited = decide(case.problem(entries, _index(entries, last), inclusive), limit)
    if effort is not None:
        effort.operations -= len(entries)
        effort.states -= visited
    return found


def _index(entries: Sequence[Recorded], wanted: Recorded) -> int:
    return next(index for index, entry in enumerate(entries) if entry is wanted)


def _decisive(case: Case, blocked: int) -> tuple[int, Sequence[int] | None]:
    """The operation whose return ends the shortest prefix that no order explains, and an order before it if known.

    Orders were found up to the blocked one's return, so it is that one or a later one. What makes a later one
    fail is what the search foresaw, and that is told by reads: so the reads are asked before the rest.
    """
    entries = case.entries
    returns = [index for index, entry in enumerate(entries) if not entry.unknown]
    returns.sort(key=lambda index: (entries[index].returned, index))
    del returns[: returns.index(blocked)]
    end = len(returns) - 1

    def wrong(place: int) -> bool:
        return place == end or _explained(case, entries, entries[returns[place]]) is False

    if wrong(0):
        return blocked, None
    reads = [place for place in range(1, end) if entries[returns[place]].operation.name in READS]
    marks = [0, *reads, end]
    mark = bisect_left(marks, True, lo=1, hi=len(marks) - 1, key=wrong)
    place = marks[mark]
    found = _found(case, entries, entries[returns[place]], inclusive=False)
    if found is not None and found.order is not None:
        return returns[place], found.order
    return returns[bisect_left(range(place), True, lo=marks[mark - 1] + 1, key=wrong)], None


def _close(
    case: Case, prefix: list[Recorded], decisive: Recorded, order: Sequence[int] | None
) -> tuple[Case, list[Recorded]]:
    """The end of a prefix, to be looked at closely, and the case that begins where an order of the rest ends.

    Whatever order the rest had, nothing explains the history; so nothing explains it from there either.
    """
    if order is None:
        found = _found(case, prefix, decisive, inclusive=False)
        order = None if found is None else found.order
    if order is None:
        return case, prefix
    settled = list(order[:-RECENT])
    taken = set(settled)
    rest = [entry for index, entry in enumerate(prefix) if index not in taken]
    later = case.later([prefix[index] for index in settled], rest)
    return (case, prefix) if later is None else (later, rest)


def _smallest(case: Case, prefix: list[Recorded], decisive: Recorded, effort: _Effort) -> list[Recorded]:
    """A part of the prefix that is wrong by itself and in which every operation matters.

    An operation is left out when the rest is still wrong for the same reason: the decisive operation cannot
    return, and without it all is explained. (Without the second half, leaving out the start of a run would give
    a smaller history that is wrong as well, but about something else.)
    """
    kept = prefix
    # What few writes did is told in full: without them a wrong answer would be wrong about something else.
    fixed = {
        id(entry) for entry in prefix if entry.operation.name not in READS and entry.outcome.error is None
    }
    if len(fixed) > WRITES:
        fixed = set()
    fixed.add(id(decisive))
    chunk = max(1, len(kept) // 2)
    while True:
        at = 0
        while at < len(kept):
            piece = kept[at : at + chunk]
            rest = kept[:at] + kept[at + chunk :]
            if any(id(entry) in fixed for entry in piece):
                at += chunk
                continue
            if effort.spent:
                return kept
            if _same_fault(case, rest, decisive, effort):
                kept = rest
            else:
                at += chunk
        if chunk == 1:
            return kept
        chunk = max(1, chunk // 2)


def _same_fault(case: Case, entries: list[Recorded], decisive: Recorded, effort: _Effort) -> bool:
    return (
        _explained(case, entries, decisive, effort) is False
        and _explained(case, entries, decisive, effort, inclusive=False) is True
    )


def _needed(case: Case, kept: list[Recorded], decisive: Recorded, effort: _Effort) -> list[Recorded]:
    """The operations without which an order would be found, the decisive one last; it alone where that takes long."""
    needed = []
    if len(kept) ** 2 > JUDGED:
        return [decisive]
    for entry in kept:
        if entry is not decisive:
            if effort.spent:
                return [decisive]
            rest = [other for other in kept if other is not entry]
            if _explained(case, rest, decisive, effort):
                needed.append(entry)
    return [*needed, decisive]


# -- the orders --

_Path = tuple[int, "_Path"] | None
"""An order, its last operation first, so that orders share what they have in common."""
_Place = tuple[int, frozenset[int], frozenset[int], Any, _Path]
"""Where a walk is: the event, the pending operations without a place, those with one, the state, the order."""
_End = tuple[tuple[int, ...], int, Impossible]
"""An order, the operation that could not follow it, and why."""


def _attempts(case: Case, kept: list[Recorded], decisive: Recorded) -> tuple[list[Attempt], bool]:
    """The orders of these operations that were tried, those that came furthest first, and whether there were more."""
    problem = case.telling(kept, _index(kept, decisive), True)
    ends, more = _dead_ends(problem, TRIED + 4 * len(kept))
    ends = _told_once(ends)
    ends.sort(key=lambda end: (kept[end[1]] is not decisive, -len(end[0])))
    attempts = [
        Attempt(
            tuple(kept[place] for place in order),
            kept[index],
            refused.message,
            refused.clauses,
            refused.expected,
        )
        for order, index, refused in ends[:TOLD]
    ]
    return attempts, more or len(ends) > TOLD


def _told_once(ends: list[_End]) -> list[_End]:
    """Without the operations that could not come yet and were tried again, or placed, later in the same order."""
    later: set[tuple[tuple[int, ...], int]] = set()
    longest = max((len(order) for order, _, _ in ends), default=0)
    if longest * longest * len(ends) > JUDGED:
        return [end for end in ends if len(end[0]) == longest]
    for order, failed, _ in ends:
        for cut in range(len(order)):
            later.update((order[:cut], index) for index in (*order[cut + 1 :], failed))
    return [end for end in ends if (end[0], end[1]) not in later]


def _dead_ends(problem: Problem, limit: int) -> tuple[list[_End], bool]:
    """Every order that was tried and the operation that could not follow it; and whether the limit cut it short.

    The same walk as `search.search`, written for small histories, and for telling every step that fails.
    """
    events, time = problem.time.events, problem.time
    ends: list[_End] = []
    seen: set[Any] = set()
    stack: list[_Place] = [(0, frozenset(), frozenset(), problem.initial, None)]
    steps = 0
    while stack:
        if steps > limit:
            return ends, True
        place, open_, placed, state, path = stack.pop()
        while place < len(events):
            index = events[place] >> 1
            open_, placed, path = _settle(problem, open_, placed, state, path)
            if not events[place] & 1:
                open_ |= {index}
            elif index in placed:
                placed -= {index}
            else:
                break
            place += 1
        else:
            continue
        key = (place, open_, placed, problem.fingerprint(state))
        if key in seen:
            continue
        seen.add(key)
        following: list[_Place] = []
        for candidate in (index, *sorted(open_ - {index})):
            steps += 1
            if time.bits[candidate] > time.known:
                same = problem.fingerprint(state)
                ways = [way for way in problem.effects(candidate, state) if problem.fingerprint(way) != same]
            elif problem.passive[candidate] or (way := problem.step(candidate, state)) is None:
                ways = []
                if candidate == index or not problem.passive[candidate]:
                    ends.append((_order(path), candidate, problem.reason(candidate, state)))
            else:
                ways = [way]
            following += [
                (place, open_ - {candidate}, placed | {candidate}, way, (candidate, path)) for way in ways
            ]
        stack.extend(reversed(following))
    return ends, False


def _settle(
    problem: Problem, open_: frozenset[int], placed: frozenset[int], state: Any, path: _Path
) -> tuple[frozenset[int], frozenset[int], _Path]:
    """Gives every passive operation that this state allows its place."""
    for index in sorted(open_):
        if problem.passive[index] and problem.step(index, state) is not None:
            open_, placed, path = open_ - {index}, placed | {index}, (index, path)
    return open_, placed, path


def _order(path: _Path) -> tuple[int, ...]:
    order = []
    while path is not None:
        order.append(path[0])
        path = path[1]
    return tuple(reversed(order))
