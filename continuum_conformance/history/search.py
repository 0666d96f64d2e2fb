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
6. A configuration (event, mask, state) is taken up once. With operations of unknown outcome, one that was taken
   up also speaks for those that have spent more of them.
7. At a return, the configurations are gone on from at both ends in turn: the one with the fewest operations put
   before the blocked one, because as a rule few suffice, and the newest, because sometimes many must (of twenty
   increments that run at once, a read shows fifteen).

Because order is chosen just in time, the furthest event that any order reached is the return that ends the
shortest prefix without explanation.

J. M. Wing, C. Gong: Testing and verifying concurrent objects, JPDC 1993. G. Lowe: Testing for linearizability,
CCPE 2017 (both the memo and the idea of just in time).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
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
        bits: ``1 << slot`` for the slot of each operation; the required ones' come first, then those of unknown
            outcome.
        known: the bits of the required operations' slots.
    """

    events: Sequence[int]
    bits: Sequence[int]
    known: int


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
    stamps = [0] * (2 * len(invoked))
    stamps[::2] = [2 * stamp for stamp in invoked]
    stamps[1::2] = [-1 if stamp is None else 2 * stamp + 1 for stamp in returned]
    events = sorted(range(len(stamps)), key=stamps.__getitem__)
    del stamps
    if None in returned:
        events = [event for event in events if not event & 1 or returned[event >> 1] is not None]
    if last is not None:
        del events[events.index(2 * last + 1) + inclusive :]
    bits = [0] * len(invoked)
    free: list[int] = []
    next_bit = 1
    for event in events:
        index = event >> 1
        if event & 1:
            free.append(bits[index])
        elif returned[index] is not None:
            if not free:
                free.append(next_bit)
                next_bit <<= 1
            bits[index] = free.pop()
    known = next_bit - 1
    for index, end in enumerate(returned):
        if end is None:
            bits[index] = next_bit
            next_bit <<= 1
    return Timeline(events, bits, known)


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


_Choice = tuple[int, Any, int, tuple[int, ...]]
"""A configuration at a frame's return: done, state, the operations not yet tried from it (-1: the blocked one was
not tried either), and those that took effect at this return."""
_Frame = tuple[int, int, int, Any, int, "deque[_Choice] | None"]
"""A return at which there is a choice: the event, the order's length, done and state, the operations not yet tried,
and once the look has come back to it, the configurations to go on from."""


def search(problem: Problem, pause: int = PAUSE) -> Generator[int, None, Found]:
    """Look for an order. Yields, every now and then, how many states were visited since the last time."""
    events, bits, known = problem.time.events, problem.time.bits, problem.time.known
    passive, step, fingerprint = problem.passive, problem.step, problem.fingerprint
    end = len(events)
    owner: dict[int, int] = {}
    choosy = any(problem.growing)
    seen = _Seen(known, fingerprint)
    order = array("q")
    frames: list[_Frame] = []
    place = done = pending = idle = furthest = visited = 0
    state = problem.initial
    arriving, deepest = True, False
    while True:
        while place < end:
            event = events[place]
            index = event >> 1
            bit = bits[index]
            if not event & 1:
                owner[bit] = index
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
                arriving = True
                continue
            if visited >= pause:
                yield visited
                visited = 0
            if arriving:
                others = pending & ~done & ~idle & ~bit
                if others:
                    if seen.holds(place, done, state):
                        break
                    frames.append((place, len(order), done, state, others, None))
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
                    if step(owner[low], state) is not None:
                        done |= low
                        order.append(owner[low])
        else:
            if visited:
                yield visited
            return Found(order)
        furthest = max(furthest, place)
        while frames:
            if visited >= pause:
                yield visited
                visited = 0
            back, length, done, state, untried, choices = frames[-1]
            while place > back:
                place -= 1
                index = events[place] >> 1
                bit = bits[index]
                pending ^= bit
                if events[place] & 1:
                    owner[bit] = index
                    if passive[index]:
                        idle |= bit
                else:
                    idle &= ~bit
            if choices is None:
                seen.add(place, done, state)
                choices = deque(((done, state, untried, ()),))
                frames[-1] = (back, length, done, state, untried, choices)
            elif not choices:
                frames.pop()
                continue
            deepest = choosy or not deepest
            done, state, untried, path = choices.pop() if deepest else choices.popleft()
            index = events[place] >> 1
            bit = bits[index]
            if untried >= 0:
                low = _candidate(problem, index, untried, owner) if choosy else untried & -untried
                if untried != low:
                    left = (done, state, untried ^ low, path)
                    if deepest:
                        choices.append(left)
                    else:
                        choices.appendleft(left)
                taken = owner[low]
                visited += 1
                done |= low
                path = (*path, taken)
                if low > known:
                    same = fingerprint(state)
                    ways = [way for way in problem.effects(taken, state) if fingerprint(way) != same]
                    if not ways:
                        continue
                    state = ways[0]
                    choices.extend((done, way, -1, path) for way in ways[1:])
                else:
                    following = step(taken, state)
                    if following is None:
                        continue
                    state = following
            rest = idle & ~done
            while rest:
                low = rest & -rest
                rest ^= low
                visited += 1
                if step(owner[low], state) is not None:
                    done |= low
                    path = (*path, owner[low])
            if not seen.add(place, done, state):
                continue
            others = 0 if done & bit else pending & ~done & ~idle & ~bit
            if others:
                choices.append((done, state, others, path))
            del order[length:]
            order.extend(path)
            arriving = False
            break
        else:
            if visited:
                yield visited
            return Found(None, events[furthest] >> 1 if end else -1)


class _Seen:
    """The configurations that were taken up: whatever follows from them was tried, or will be.

    Of each (event, known operations done, state), it keeps the sets of unknown operations that were spent.
    """

    def __init__(self, known: int, fingerprint: Callable[[Any], Hashable]) -> None:
        self._known = known
        self._fingerprint = fingerprint
        self._spent: dict[Any, int] = {}
        self._others: dict[Any, list[int]] = {}

    def holds(self, place: int, done: int, state: Any) -> bool:
        """Whether this one was taken up, perhaps with fewer operations of unknown outcome spent."""
        if not self._spent:
            return False
        key = (place, done & self._known, self._fingerprint(state))
        first = self._spent.get(key)
        if first is None:
            return False
        return not first & ~done or any(not spent & ~done for spent in self._others.get(key, ()))

    def add(self, place: int, done: int, state: Any) -> bool:
        """Takes it up, unless it was before."""
        key = (place, done & self._known, self._fingerprint(state))
        first = self._spent.get(key)
        spent = done & ~self._known
        if first is None:
            self._spent[key] = spent
            return True
        if not first & ~spent:
            return False
        others = self._others.setdefault(key, [])
        if any(not other & ~spent for other in others):
            return False
        others.append(spent)
        return True


def _candidate(problem: Problem, blocked: int, untried: int, owner: dict[int, int]) -> int:
    """The bit of the operation to try next, so that the blocked one may follow."""
    low = untried & -untried
    rest = untried
    wanted = problem.waiting[blocked]
    while rest:
        bit = rest & -rest
        if problem.growing[owner[bit]] == wanted:
            return bit
        rest ^= bit
    return low


def decide(problem: Problem, budget: int) -> tuple[Found | None, int]:
    """Search to the end, or give None when it takes more than ``budget`` states; and how many were visited."""
    running = search(problem)
    visited = 0
    while True:
        try:
            visited += next(running)
        except StopIteration as stop:
            return stop.value, visited
        if visited > budget:
            return None, visited
