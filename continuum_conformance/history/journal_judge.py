"""The judge for journals: near-linear, because a journal gives its own order away.

What a history of one run tells beforehand, for any order that could explain it:

1. Every load is a prefix of every later one (LOD-4), so the longest of them is the order of all the appends that
   it holds. An append that stands elsewhere in it cannot come now; another load can only take place when the
   history has just its length.
2. Tokens order the takeovers (LEA-4): the acquire that returned 5 comes after the one that returned 3.
3. A write under token 3 comes before the acquire that returned 5, before the release of 3, and before the finish
   (FEN-5). So these wait for the appends whose places are known.

With that, `search` hardly ever has a choice that it must take back: it is one sweep, checked step by step against
the specification itself, so a pass is right whatever is said above. And as the three rules leave out no order
that could explain the history, a failure is right too. Where a journal gives little away (no load; appends that
look alike), the same search is the general one, and the budget decides.

The state is the run without its events, and how many there are: which ones is known, or will never be seen.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from continuum_conformance.contract.arguments import check_event
from continuum_conformance.contract.errors import ERRORS, InvalidArgument, NotDurable
from continuum_conformance.history.deciding import Case, decide_cases, split
from continuum_conformance.history.journal_model import (
    after_unknown,
    event_key,
    journal_model,
    passive,
    resolved,
    run_key,
    step,
)
from continuum_conformance.history.linearizability import ModelProblem
from continuum_conformance.history.recording import Recorded
from continuum_conformance.history.search import Problem, timeline
from continuum_conformance.history.verdict import Verdict
from continuum_conformance.model import (
    EMPTY,
    READS,
    Impossible,
    Kind,
    Operation,
    Outcome,
    RunModel,
    Specification,
    World,
)

__all__ = ["judge"]

NOWHERE = -1
"""The length at which a load that contradicts the longest one could take place."""
FREE = -2
"""The place of an event that stands before a snapshot, which no load shows."""
NOTHING = -3
"""The number of an event that nobody can append."""
_PLAIN = frozenset({int, bool, type(None)})
SHORT = 1000
"""Texts of so many characters, and integers of so many bits, are durable without a closer look."""


def judge(
    history: Iterable[Recorded],
    specification: Specification,
    world: World = EMPTY,
    *,
    budget: int | None = None,
    orders: bool = False,
    explain: bool = True,
) -> Verdict:
    """Decide whether a journal could have answered like this.

    Args:
        history: what was recorded; see `Recorded` for what is left out and what may have happened.
        specification: the contract for the adapter's capabilities.
        world: what the journal held when the recording began.
        budget: how many states may be visited; then the verdict is inconclusive, unless a run has failed.
        orders: whether a pass gives the orders that were found.
        explain: whether a failure explains itself, which can take longer than to find it.
    """
    parts = split(history, _key)
    cases = (_case(specification, world, key, part) for key, part in parts.items())
    return decide_cases(parts, cases, budget=budget, orders=orders, explaining=explain)


def _key(operation: Operation) -> Hashable:
    return operation.key


def _case(specification: Specification, world: World, key: Any, part: list[Recorded]) -> Case:
    run = world.get(key)
    entries = [entry for entry in part if not (entry.unknown and entry.operation.name in READS)]
    numbering = _Numbering()

    def problem(chosen: Sequence[Recorded], last: int | None, inclusive: bool) -> Problem:
        # The numbers are kept for the many small questions of an explanation, not beside a long history.
        numbers = _Numbering() if last is None else numbering
        return RunProblem(specification, key, run, chosen, last, inclusive, numbers)

    def telling(chosen: Sequence[Recorded], last: int | None, inclusive: bool) -> Problem:
        return ModelProblem(journal_model(specification, world), key, chosen, last, inclusive)

    def later(order: Sequence[Recorded], rest: list[Recorded]) -> Case | None:
        after = RunProblem(specification, key, run, order, numbering=numbering).run_at_end()
        return _case(specification, EMPTY if after is None else {key: after}, key, rest)

    return Case(key, entries, problem, telling, later, foresees=True)


class _Numbering:
    """Numbers for events, equal ones alike."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._lists: dict[int, list[int] | None] = {}
        self._appended: dict[int, tuple[int, bool]] = {}

    def of(self, event: Any) -> int:
        """The number of an event, but for its seq. Raises ``TypeError`` where its keys are no strings."""
        return self._numbers.setdefault(event_key(event), len(self._numbers))

    def of_appended(self, event: Any) -> tuple[int, bool]:
        """The number of an appended event, and whether it is well formed at first sight and names no seq."""
        known = self._appended.get(id(event))
        if known is None:
            plain, relative = _appended(event)
            known = self._appended[id(event)] = (NOTHING if plain is None else self.of(plain), relative)
        return known

    def of_list(self, start: int, events: Sequence[Any]) -> list[int] | None:
        """The numbers of consecutive events, the first of which has the given seq; None when their seqs differ."""
        known = self._lists.get(id(events), NOT_YET)
        if known is NOT_YET:
            known = self._lists[id(events)] = self._list(start, events)
        return known

    def _list(self, start: int, events: Sequence[Any]) -> list[int] | None:
        numbers = []
        for place, event in enumerate(events, start):
            seq = event.get("seq")
            if type(seq) is not int or seq != place:
                return None
            try:
                numbers.append(self.of(event))
            except TypeError:  # nobody can have appended it
                return None
        return numbers


NOT_YET: list[int] = []


class _Core:
    """A run without its events."""

    __slots__ = ("accepts", "number", "refused", "refuses", "run", "world")

    def __init__(self, key: Any, run: RunModel | None) -> None:
        self.run = run
        self.world: World = EMPTY if run is None else {key: run}
        self.number = -1
        self.accepts: dict[Any, _Core | None] = {}
        """For a token, what a plain append under it leaves of the run; None when it is refused."""
        self.refuses: dict[Any, frozenset[str]] = {}
        """For a token, the errors with which a plain append under it may be refused."""
        self.refused: set[int] = set()
        """Operations that cannot happen here, however many events there are."""


NOT_ASKED = _Core(None, None)

_State = tuple[_Core, int]
"""The run without its events, and how many there are."""


class RunProblem(Problem):
    """One run's operations, for the search.

    Args:
        specification: the contract.
        key: the run's key.
        run: the run when the history begins; None when there is none.
        entries: its operations in the order of invocation.
        last: the operation whose return ends the timeline.
        inclusive: whether that return belongs to it.
        numbering: numbers for the events.
    """

    def __init__(
        self,
        specification: Specification,
        key: Any,
        run: RunModel | None,
        entries: Sequence[Recorded],
        last: int | None = None,
        inclusive: bool = True,
        numbering: _Numbering | None = None,
    ) -> None:
        self._specification = specification
        self._key = key
        self._run = run
        self._entries = entries
        unknown = [entry.unknown for entry in entries]
        self.time = timeline(
            [entry.invoked for entry in entries],
            [None if entry.unknown else entry.returned for entry in entries],
            last,
            inclusive=inclusive,
        )
        self.passive = [
            not unknown[index] and passive(entry.operation, entry.outcome)
            for index, entry in enumerate(entries)
        ]
        self.growing = [entry.operation.name == "append" for entry in entries]
        self.waiting = [
            entry.outcome.ok or entry.outcome.error in ("SequenceConflict", "SnapshotConflict")
            for entry in entries
        ]
        self._numbers: dict[Hashable, int] = {}
        self._readable: bool | None = None
        self._read_loads(() if run is None else run.events, last, numbering or _Numbering())
        self.initial: _State = (
            _Core(key, None if run is None else replace(run, events=())),
            0 if run is None else len(run.events),
        )

    # -- what the history gives away --

    def _read_loads(self, events: Sequence[Any], last: int | None, numbering: _Numbering) -> None:
        entries = self._entries
        returned = range(len(entries)) if last is None else (e >> 1 for e in self.time.events if e & 1)
        certain = [index for index in returned if entries[index].outcome.ok and not entries[index].unknown]
        self._due = list(numbering.of_list(0, events) or ())
        """The events by number, as far as any load shows them; FREE where none does."""
        self._length = [NOWHERE] * len(entries)
        """How many events there are when a load takes place. One that may still return rules nothing out and
        need not be placed."""
        loads = [
            (start, listed, index)
            for index in certain
            if entries[index].operation.name in ("load", "load_with_snapshot")
            for start, listed in [_loaded(entries[index])]
            if start is not None
        ]
        # Whole ones first, the longest first: a pair with a snapshot does not show what stands before it.
        loads.sort(key=lambda load: (load[0] > 0, -load[0] - len(load[1])))
        for start, listed, index in loads:
            if self._agrees(start, numbering.of_list(start, listed)):
                self._length[index] = start + len(listed)
        self._appended = [NOTHING] * len(entries)
        self._relative = [False] * len(entries)
        """Whether an append is well formed at first sight and names no seq: then only the token matters."""
        for index, entry in enumerate(entries):
            if entry.operation.name == "append":
                event = entry.operation.arguments["event"]
                self._appended[index], self._relative[index] = numbering.of_appended(event)
        self._order_writers(len(events), certain)

    def _agrees(self, start: int, numbers: list[int] | None) -> bool:
        """Whether a load agrees with the longer ones before it; what it adds is noted."""
        if numbers is None:
            return False
        due = self._due
        if start + len(numbers) <= len(due):
            part = due[start : start + len(numbers)]
            if part == numbers:
                return True
        due.extend([FREE] * (start - len(due)))
        if any(ours not in (FREE, theirs) for ours, theirs in zip(due[start:], numbers, strict=False)):
            return False
        due[start : start + len(numbers)] = numbers
        return True

    def _order_writers(self, before: int, certain: Sequence[int]) -> None:
        """How many events there must be before an acquire, a release or a finish takes effect, and the tokens."""
        entries = self._entries
        certain_appends = {index for index in certain if entries[index].operation.name == "append"}
        alike = Counter(number for number in self._appended if number != NOTHING)
        places: dict[int, int] = {}
        for place in range(before, len(self._due)):
            number = self._due[place]
            places[number] = NOWHERE if number in places else place
        latest: dict[int, int] = {}
        for index in certain_appends:
            number = self._appended[index]
            token = entries[index].operation.arguments["lease_token"]
            if alike[number] == 1 and type(token) is int:
                place = places.get(number, NOWHERE)
                latest[token] = max(place, latest.get(token, NOWHERE))
        tokens = sorted(latest)
        highest = list(accumulate((latest[token] for token in tokens), max))
        self._tokens = sorted(
            token
            for index in certain
            if entries[index].operation.name == "acquire"
            for token in [entries[index].outcome.value.token]
        )
        self._after = [0] * len(entries)
        self._before_token: list[int | None] = [None] * len(entries)
        for index, entry in enumerate(entries):
            operation, outcome = entry.operation, entry.outcome
            if entry.unknown or not outcome.ok:
                fenced = None
            elif operation.name == "acquire":
                fenced = outcome.value.token
                rank = bisect_left(self._tokens, fenced)
                self._before_token[index] = self._tokens[rank - 1] if rank else None
            elif operation.name == "release":
                fenced = getattr(operation.arguments["lease"], "token", None)
                fenced = fenced + 1 if type(fenced) is int else None
            else:
                fenced = None
                if operation.name in ("complete", "fail"):
                    self._after[index] = len(self._due)
            if fenced is not None:
                rank = bisect_left(tokens, fenced)
                self._after[index] = highest[rank - 1] + 1 if rank else 0

    # -- the search's questions --

    def step(self, index: int, state: _State) -> _State | None:
        """See `Problem.step`."""
        core, count = state
        entry = self._entries[index]
        operation, outcome = entry.operation, entry.outcome
        name = operation.name
        if name == "append" and outcome.ok:
            accepting = self._appending(index, core, count)
            return None if accepting is None else (accepting, count + 1)
        if name == "load" and outcome.ok:
            return state if self._length[index] == count and self._may_load(operation) else None
        if index in core.refused or count < self._after[index]:
            return None
        if name == "load_with_snapshot" and outcome.ok:
            if self._length[index] != count:
                return None
            # The events are judged above; what is left is the fence and the snapshot.
            outcome = replace(outcome, value=(outcome.value[0], []))
        if self._relative[index] and outcome.kind is Kind.ERROR and outcome.error in ERRORS:
            return state if self._refuses(core, operation, outcome) else None
        before = self._before_token[index]
        if before is not None and not _granted(core.run, before):
            return None
        counted = _counted(operation)
        world = self._world(core, count) if counted else core.world
        following = step(self._specification, world, operation, outcome)
        if isinstance(following, Impossible):
            if not counted:
                core.refused.add(index)
            return None
        return state if following is world else (self._core(following), count)

    def _refuses(self, core: _Core, operation: Operation, outcome: Outcome) -> bool:
        """Whether a plain append is refused with this error; it depends on the token alone."""
        token = operation.arguments["lease_token"]
        errors = core.refuses.get((token, type(token)))
        if errors is None:
            known = resolved(core.world, operation)
            errors = frozenset(
                error
                for world in (core.world, known)
                if world is not None
                for error in self._specification.expect(world, operation).refusals
            )
            core.refuses[token, type(token)] = errors
        return outcome.error in errors

    def effects(self, index: int, state: _State) -> Iterable[_State]:
        """See `Problem.effects`."""
        core, count = state
        operation = self._entries[index].operation
        if operation.name == "append":
            accepting = self._appending(index, core, count)
            return () if accepting is None else ((accepting, count + 1),)
        world = self._world(core, count)
        following = after_unknown(self._specification, world, operation)
        return () if following is world else ((self._core(following), count),)

    def reason(self, index: int, state: _State) -> Impossible:
        """Not asked: the general judge's problem tells the reasons."""
        raise NotImplementedError

    def fingerprint(self, state: _State) -> Hashable:
        """See `Problem.fingerprint`."""
        core, count = state
        if core.number < 0:
            core.number = self._numbers.setdefault(run_key(core.run), len(self._numbers))
        return core.number << 48 | count

    def run_at_end(self) -> RunModel | None:
        """The run after all operations took effect in the order in which they are listed."""
        core, count = self.initial
        events = [] if self._run is None else list(self._run.events)
        for index, entry in enumerate(self._entries):
            state: _State | None = (core, count)
            if entry.unknown:
                state = next(iter(self.effects(index, (core, count))), state)
            else:
                state = self.step(index, (core, count))
            if state is None:
                raise ValueError("these operations were never in this order")
            if state[1] > count:
                event, _ = check_event(entry.operation.arguments["event"], max_depth=10**9)
                events.append({**event, "seq": count})
            core, count = state
        return None if core.run is None else replace(core.run, events=tuple(events))

    def _appending(self, index: int, core: _Core, count: int) -> _Core | None:
        """The run after an append is accepted here (its lease's token may be known then); None if it cannot be."""
        if count < len(self._due):
            due = self._due[count]
            if due != self._appended[index] and due != FREE:
                return None
        operation = self._entries[index].operation
        token = operation.arguments["lease_token"]
        relative = self._relative[index]
        if relative:
            known = core.accepts.get((token, type(token)), NOT_ASKED)
            if known is not NOT_ASKED:
                return known
        found = self._append_core(operation, core, count)
        if relative:
            core.accepts[token, type(token)] = found
        return found

    def _append_core(self, operation: Operation, core: _Core, count: int) -> _Core | None:
        world = self._world(core, count)
        if self._specification.expect(world, operation).succeeds:
            return core
        known = resolved(world, operation)
        if known is not None and self._specification.expect(known, operation).succeeds:
            return self._core(known)
        return None

    def _world(self, core: _Core, count: int) -> World:
        """The run with as many events as there are; the specification asks these operations for no more."""
        if core.run is None:
            return core.world
        events: Any = range(count)
        return {self._key: replace(core.run, events=events)}

    def _core(self, world: World) -> _Core:
        return _Core(self._key, replace(world[self._key], events=()))

    def _may_load(self, operation: Operation) -> bool:
        """Whether the run's names are legal; the same for all loads of it."""
        if self._readable is None:
            self._readable = self._specification.expect(EMPTY, operation).succeeds
        return self._readable


def _granted(run: RunModel | None, token: int) -> bool:
    return run is not None and run.last_token is not None and run.last_token >= token


def _counted(operation: Operation) -> bool:
    """Whether it matters to an operation how many events there are."""
    if operation.name != "append":
        return operation.name == "take_snapshot"
    event = operation.arguments["event"]
    return isinstance(event, Mapping) and event.get("seq") is not None


def _loaded(entry: Recorded) -> tuple[int | None, Sequence[Any]]:
    """The seq of the first event that a load shows, and the events; None when its snapshot is none of this world."""
    if entry.operation.name == "load":
        return 0, entry.outcome.value
    snapshot, listed = entry.outcome.value
    if snapshot is None:
        return 0, listed
    through = getattr(snapshot, "through_seq", None)
    return (through + 1 if type(through) is int and through >= 0 else None), listed


def _appended(event: Any) -> tuple[Mapping[str, Any] | None, bool]:
    """An appended event, None for what nobody can append; and whether it is plain and names no seq."""
    if type(event) is dict:
        kind = event.get("type")
        if type(kind) is str and kind and all(_plain(name, event[name]) for name in event):
            return event, event.get("seq") is None
    try:
        return check_event(event, max_depth=10**9)[0], False
    except (InvalidArgument, NotDurable):
        return None, False


def _plain(name: Any, value: Any) -> bool:
    """Whether an entry of an event is legal, and durable for every journal, at first sight."""
    if type(name) is not str or not name.isascii():
        return False
    cls = type(value)
    if cls is str:
        return value.isascii() and len(value) <= SHORT
    return cls in _PLAIN and (cls is not int or value.bit_length() <= SHORT)
