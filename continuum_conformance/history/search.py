"""The search for an order: Wing and Gong's, with Lowe's memo, linearizing just in time.

Theory of operation:

1. The stamps of a history become *events*, a call and a return for each operation; at equal stamps calls come
   first, so that intervals are closed. The search walks along the events with a state of the model.
2. Nothing is put in order before it must be. At the return of an operation that has no place yet, it takes
   effect now, or other pending operations do before it. All choices are here. (Any order of the whole history
   can be had in this way: whatever stands before that operation in the order had been invoked by then.)
3. *Passive* operations, which change no state, take effect at once in the first state that allows them. They
   are no choice: nothing else minds.
4. An operation of unknown outcome is pending for ever and never has to take effect.
5. Every operation has a *slot* while it is pending; which of them have taken effect is one integer. A mask has
   as many bits as operations ran at once, however long the history (a mask over the operations of a history of
   a million would be 125 kB, and a memo of them would end the machine).
6. A configuration (event, mask, state) that led nowhere is remembered. With operations of unknown outcome, one
   that led nowhere also speaks for those that have spent more of them.

Because order is chosen just in time, the furthest event that any order reached is the return that ends the
shortest prefix without explanation.

J. M. Wing, C. Gong: Testing and verifying concurrent objects, JPDC 1993. G. Lowe: Testing for linearizability,
CCPE 2017 (both the memo and the idea of just in time).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Generator, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from continuum_conformance.model import Impossible

__all__ = ["PAUSE", "Found", "Problem", "Timeline", "decide", "search", "timeline"]

PAUSE = 2048
"""How many states a search visits before it lets the next partition's search go on."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The stamps of a history, in order.

    Attributes:
        events: ``2 * i`` for the call of operation i, ``2 * i + 1`` for its return.
        slots: each operation's slot; the required ones' first, then those of unknown outcome.
        required: how many slots the required operations take.
    """

    events: Sequence[int]
    slots: Sequence[int]
    required: int


def timeline(
    invoked: Sequence[int], returned: Sequence[int | None], last: int | None = None, *, inclusive: bool = True
) -> Timeline:
    """The events of these operations.

    Args:
        invoked: stamps.
        returned: stamps; None for an operation of unknown outcome.
        last: the operation whose return ends the timeline; what comes later is left out.
        inclusive: whether that return itself belongs to it.
    """
    stamps: dict[int, int] = {}
    for index, stamp in enumerate(invoked):
        stamps[2 * index] = 2 * stamp
        end = returned[index]
        if end is not None:
            stamps[2 * index + 1] = 2 * end + 1
    events = sorted(stamps, key=stamps.__getitem__)
    del stamps
    if last is not None:
        del events[events.index(2 * last + 1) + inclusive :]
    slots = [0] * len(invoked)
    free: list[int] = []
    required = 0
    for event in events:
        index = event >> 1
        if event & 1:
            free.append(slots[index])
        elif returned[index] is not None:
            if not free:
                free.append(required)
                required += 1
            slots[index] = free.pop()
    spare = required
    for index, end in enumerate(returned):
        if end is None:
            slots[index] = spare
            spare += 1
    return Timeline(events, slots, required)


class Problem(ABC):
    """One partition's operations, as the search sees them: numbers, and a way from state to state."""

    time: Timeline
    initial: Any
    passive: Sequence[bool]
    """Which operations change no state, whatever the state."""
    growing: Sequence[bool]
    """Which operations are tried first where a ``waiting`` one is blocked. Only speed depends on it."""
    waiting: Sequence[bool]

    @abstractmethod
    def step(self, index: int, state: Any) -> Any | None:
        """The state after an operation with its known outcome; None when that is impossible here."""

    @abstractmethod
    def effects(self, index: int, state: Any) -> Iterable[Any]:
        """The states that an operation of unknown outcome may lead to, if it happens here."""

    @abstractmethod
    def reason(self, index: int, state: Any) -> Impossible:
        """Why a step that gave None is impossible. Asked only of the problems that explain."""

    @abstractmethod
    def fingerprint(self, state: Any) -> Hashable:
        """The same for two states exactly when no later outcome can tell them apart."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to.

    Attributes:
        order: the operations in an order that explains the history; None when there is none.
        blocked: the operation whose return no order reached; -1 when there is an order.
    """

    order: Sequence[int] | None
    blocked: int = -1


def search(problem: Problem, pause: int = PAUSE) -> Generator[int, None, Found]:
    """Look for an order. Yields, every now and then, how many states were visited since the last time."""
    events, slots, required = problem.time.events, problem.time.slots, problem.time.required
    passive, step = problem.passive, problem.step
    size, end = len(slots), len(events)
    owner = [-1] * (max(slots, default=-1) + 1)
    some_unknown = len(owner) > required
    known = (1 << required) - 1
    failed: dict[Any, list[int]] = {}
    order = array("q")
    # Frames: (event, done, state, untried, length of the order, operation that led here and is still to be taken up)
    frames: list[tuple[int, int, Any, int, int, int]] = []
    place = done = pending = idle = furthest = visited = 0
    state = problem.initial
    while True:
        while place < end:
            event = events[place]
            index = event >> 1
            bit = 1 << slots[index]
            if not event & 1:
                owner[slots[index]] = index
                pending |= bit
                if passive[index]:
                    idle |= bit
                    visited += 1
                    if step(index, state) is not None:
                        done |= bit
                        order.append(index)
                place += 1
                continue
            if done & bit:
                done ^= bit
                pending ^= bit
                idle &= ~bit
                place += 1
                continue
            if visited >= pause:
                yield visited
                visited = 0
            others = pending & ~done & ~idle & ~bit
            if others:
                if failed and _known_to_fail(failed, problem, place, done, state, known):
                    break
                frames.append((place, done, state, others, len(order), -1))
            if passive[index]:  # it was tried in this state already
                break
            visited += 1
            following = step(index, state)
            if following is None:
                break
            done |= bit
            order.append(index)
            if following is not state:
                state = following
                rest = idle & ~done
                while rest:
                    low = rest & -rest
                    rest ^= low
                    visited += 1
                    if step(owner[low.bit_length() - 1], state) is not None:
                        done |= low
                        order.append(owner[low.bit_length() - 1])
        else:
            if visited:
                yield visited
            return Found(order)
        furthest = max(furthest, place)
        while frames:
            if visited >= pause:
                yield visited
                visited = 0
            back, done, before, untried, length, taken = frames.pop()
            while place > back:
                place -= 1
                index = events[place] >> 1
                bit = 1 << slots[index]
                pending ^= bit
                if events[place] & 1:
                    owner[slots[index]] = index
                    if passive[index]:
                        idle |= bit
                else:
                    idle &= ~bit
            if taken >= 0:
                state = before
                del order[length:]
            elif untried:
                low = _candidate(problem, events[place] >> 1, untried, owner)
                taken = owner[low.bit_length() - 1]
                frames.append((back, done, before, untried ^ low, length, -1))
                visited += 1
                if low > known:
                    same = problem.fingerprint(before)
                    ways = [way for way in problem.effects(taken, before) if problem.fingerprint(way) != same]
                    frames.extend((back, done | low, way, 0, length, taken) for way in reversed(ways[1:]))
                    if not ways:
                        continue
                    state = ways[0]
                else:
                    following = step(taken, before)
                    if following is None:
                        continue
                    state = following
                done |= low
                del order[length:]
            else:
                key = (back, done & known, problem.fingerprint(before))
                failed.setdefault(key, []).append(done & ~known if some_unknown else 0)
                continue
            order.append(taken)
            rest = idle & ~done
            while rest:
                low = rest & -rest
                rest ^= low
                visited += 1
                if step(owner[low.bit_length() - 1], state) is not None:
                    done |= low
                    order.append(owner[low.bit_length() - 1])
            break
        else:
            if visited:
                yield visited
            return Found(None, events[furthest] >> 1 if size else -1)


def _known_to_fail(
    failed: dict[Any, list[int]], problem: Problem, place: int, done: int, state: Any, known: int
) -> bool:
    """Whether this configuration led nowhere before, perhaps with fewer unknown operations spent."""
    spent = failed.get((place, done & known, problem.fingerprint(state)))
    return spent is not None and any(not earlier & ~done for earlier in spent)


def _candidate(problem: Problem, blocked: int, untried: int, owner: list[int]) -> int:
    """The bit of the operation to try next, so that the blocked one may follow."""
    low = untried & -untried
    rest = untried
    wanted = problem.waiting[blocked]
    while rest:
        bit = rest & -rest
        if problem.growing[owner[bit.bit_length() - 1]] == wanted:
            return bit
        rest ^= bit
    return low


def decide(problem: Problem, budget: int) -> Found | None:
    """Search to the end, or None when it takes more than ``budget`` states."""
    running = search(problem)
    while True:
        try:
            budget -= next(running)
        except StopIteration as stop:
            found: Found = stop.value
            return found
        if budget < 0:
            return None
