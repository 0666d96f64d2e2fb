"""Everything in one dict: under one lock with deep copies, or in the hands of one actor thread; and its oddities."""

from __future__ import annotations

import copy
import enum
import itertools
import queue
import threading
import time
from datetime import timedelta, timezone
from types import MappingProxyType
from typing import Any

from tests.unusual.rules import Refusal, Rules, Sync, oddest, translate

NO_RICH = frozenset({"leases", "snapshots", "opaque_run_ids"})
EVERY = NO_RICH | {"rich_terms"}


class LockedDict(Sync):
    """One lock around one dict; what goes in and what comes out is copied in depth."""

    def __init__(self, store: dict[Any, Any], lock: Any, rules: Rules) -> None:
        self.store, self.lock, self.rules = store, lock, rules

    def read(self, key, since):
        with self.lock:
            run, events = self.store.get(key, (None, []))
            start = None if run is None else since(run)
            return copy.deepcopy(run), copy.deepcopy(events[start:]) if start is not None else []

    def write(self, key, change):
        with self.lock:
            run, events = self.store.get(key, (None, []))
            after, event, answer = change(run)
            after = copy.deepcopy(after)
            if event is not None:
                events.append(copy.deepcopy(event))
            self.store[key] = (after, events)
            return answer


class DictHarness:
    """Subclasses say what is odd about them."""

    capabilities = EVERY
    rules = Rules()
    journal = LockedDict

    def __init__(self) -> None:
        self.store: dict[Any, Any] = {}
        self.lock = threading.RLock()

    def open(self):
        return self.journal(self.store, self.lock, self.rules)

    translate = staticmethod(translate)


# -- an actor --


class Actor:
    """A thread that owns the store; calls are letters."""

    def __init__(self) -> None:
        self.letters: queue.Queue[Any] = queue.Queue()
        self.store: dict[Any, Any] = {}
        threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        while True:
            act, reply = self.letters.get()
            try:
                reply.append((True, act(self.store)))
            except Exception as error:
                reply.append((False, error))
            reply[0].set()

    def ask(self, act):
        reply: list[Any] = [threading.Event()]
        self.letters.put((act, reply))
        if not reply[0].wait(30):
            raise TimeoutError
        fine, answer = reply[1]
        if fine:
            return answer
        raise answer


class ActorJournal(Sync):
    def __init__(self, actor: Actor) -> None:
        self.actor = actor

    def read(self, key, since):
        def act(store):
            run, events = store.get(key, (None, []))
            start = None if run is None else since(run)
            return copy.deepcopy((run, events[start:] if start is not None else []))

        return self.actor.ask(act)

    def write(self, key, change):
        def act(store):
            run, events = store.get(key, (None, ()))
            after, event, answer = change(run)
            store[key] = copy.deepcopy(after), [*events, *copy.deepcopy([event] if event else [])]
            return answer

        return self.actor.ask(act)


class ActorHarness:
    capabilities = EVERY
    actor = None

    def open(self):
        if ActorHarness.actor is None:
            ActorHarness.actor = Actor()
        return ActorJournal(ActorHarness.actor)

    translate = staticmethod(translate)


# -- tokens of many kinds --


class ClockTokens(DictHarness):
    """Tokens are the time in nanoseconds, or one more than the last."""

    rules = Rules(token=lambda last: max(time.time_ns(), (last or 0) + 1))


class HugeTokens(DictHarness):
    rules = Rules(token=lambda last: 2**62 if last is None else last + 2**40, wide_is_invalid=True)


class GiantTokens(DictHarness):
    """Beyond what any database holds."""

    rules = Rules(token=lambda last: 2**70 if last is None else last * 2)


class NegativeTokens(DictHarness):
    """The first tokens are below zero, and one of them is zero."""

    rules = Rules(token=lambda last: -2 if last is None else last + 1)


class EdgeTokens(DictHarness):
    """The last ones that 64 bits hold."""

    rules = Rules(token=lambda last: 2**63 - 40 if last is None else last + 1, wide_is_invalid=True)


_numbers = itertools.count(1)


class GlobalTokens(DictHarness):
    """One counter for all runs."""

    rules = Rules(token=lambda _last: next(_numbers))


# -- answers of many kinds --


class KeepsTheLease(DictHarness):
    """A finish keeps the lease; only its token may read the pair afterwards."""

    rules = Rules(keeps_lease=True, renew_answers=True)


class HeldForAll(DictHarness):
    """Whatever cannot be acquired is `LeaseHeld`."""

    rules = Rules(lease_held_for_all=True)


class Oddest(DictHarness):
    """Where several refusals apply, the least expected one."""

    rules = Rules(choose=oddest, wide_is_invalid=True, keeps_lease=True)


class OddestPlain(DictHarness):
    capabilities = NO_RICH
    rules = Rules(choose=oddest, rich=False, renew_answers=True)


class LastOfAll(DictHarness):
    rules = Rules(choose=lambda refusals: refusals[-1])


class SortedDict(LockedDict):
    """As jsonb does: keys come back in another order."""

    def read(self, key, since):
        run, events = super().read(key, since)
        return _sorted(run), _sorted(events)


def _sorted(term: Any) -> Any:
    if type(term) is dict:
        return {
            key: _sorted(item) for key, item in sorted(term.items(), key=lambda pair: repr(pair[0])[::-1])
        }
    return type(term)(map(_sorted, term)) if type(term) in (list, tuple) else term


class SortedKeys(DictHarness):
    journal = SortedDict


class SlowDict(LockedDict):
    """A far-away store: three milliseconds to it and back."""

    def read(self, key, since):
        time.sleep(0.003)
        return super().read(key, since)

    def write(self, key, change):
        time.sleep(0.003)
        return super().write(key, change)


class SlowStore(DictHarness):
    journal = SlowDict


# -- fewer capabilities --


class LeasesOnly(DictHarness):
    capabilities = {"leases"}
    rules = Rules(snapshots=False, rich=False, opaque=False)


class SnapshotsOnly(DictHarness):
    capabilities = ("snapshots",)
    rules = Rules(leases=False, rich=False, opaque=False)


class NothingButOpaque(DictHarness):
    capabilities = ["opaque_run_ids"]
    rules = Rules(leases=False, snapshots=False, rich=False)


# -- the store is frozen: nested tuples, and classes of our own in them --


class Node:
    """A dict, frozen."""

    __slots__ = ("pairs",)

    def __init__(self, pairs):
        self.pairs = pairs

    def __eq__(self, other):
        raise TypeError("nodes are not compared")

    __hash__ = None


def _freeze(term):
    kind = type(term)
    if kind is dict:
        return Node(tuple((_freeze(key), _freeze(item)) for key, item in term.items()))
    if kind in (list, tuple):
        return (kind, tuple(map(_freeze, term))) if kind is tuple else tuple(map(_freeze, term))
    if kind is set:
        return (set, tuple(term))
    return term


def _thaw(form):
    if type(form) is Node:
        return {_thaw(key): _thaw(item) for key, item in form.pairs}
    if type(form) is tuple:
        if len(form) == 2 and form[0] is tuple:
            return tuple(map(_thaw, form[1]))
        if len(form) == 2 and form[0] is set:
            return set(form[1])
        return list(map(_thaw, form))
    return form


class FrozenJournal(LockedDict):
    """Keeps no mutable thing; readers take no lock."""

    def read(self, key, since):
        run, events = self.store.get(key, (None, ()))
        run = _thaw(run)
        start = None if run is None else since(run)
        return run, [_thaw(event) for event in events[start:]] if start is not None else []

    def write(self, key, change):
        with self.lock:
            run, events = self.store.get(key, (None, ()))
            after, event, answer = change(_thaw(run))
            self.store[key] = _freeze(after), (*events, _freeze(event)) if event else events
            return answer

    def get_run(self, instance, run_id):
        row = super().get_run(instance, run_id)
        return None if row is None else row._replace(state=State(row.state))

    def load_with_snapshot(self, instance, run_id, lease_token):
        snapshot, events = super().load_with_snapshot(instance, run_id, lease_token)
        if snapshot is not None:
            snapshot.steps_by_seq = MappingProxyType(snapshot.steps_by_seq)
            snapshot.taken_at = snapshot.taken_at.astimezone(timezone(timedelta(hours=9)))
        return snapshot, events


class State(enum.Enum):
    """An enumeration of our own."""

    BUSY = "running"
    ASLEEP = "suspended"
    DONE = "completed"
    BROKEN = "failed"


class FrozenHarness(DictHarness):
    journal = FrozenJournal


# -- harnesses of many shapes --


class OneForAll(DictHarness):
    """The same journal object from every open; its close is final."""

    def __init__(self) -> None:
        super().__init__()
        self.one = Closing(self.store, self.lock, self.rules)

    def open(self):
        return self.one

    def close(self, journal):
        journal.closed = True


class Closing(LockedDict):
    """Refuses every call after its close."""

    closed = False

    def read(self, key, since):
        self._check()
        return super().read(key, since)

    def write(self, key, change):
        self._check()
        return super().write(key, change)

    def _check(self):
        if self.closed:
            raise Refusal("JournalUnavailable", "closed")


class ReopensOne(DictHarness):
    """The same object while one is open, a new one afterwards."""

    one = None

    def open(self):
        if self.one is None:
            self.one = Closing(self.store, self.lock, self.rules)
        return self.one

    def close(self, journal):
        if journal.closed:
            raise ValueError("closed twice")
        journal.closed, self.one = True, None


class ClassLevelStore:
    """Knows nothing of itself: the store belongs to the class."""

    capabilities = EVERY
    _store: dict[Any, Any] = {}
    _lock = threading.RLock()

    def open(self):
        return Closing(self._store, self._lock, Rules())

    def close(self, journal):
        journal.closed = True

    def translate(self, exception):
        return translate(exception)


def factory():
    """A target may be a function that makes a harness."""
    return HugeTokens()


def journal_factory():
    """...or one that makes a journal."""
    return WholeJournal()


class ContractErrors(LockedDict):
    """For a journal without a harness: there is nobody to translate."""

    def read(self, key, since):
        return _translated(lambda: super(ContractErrors, self).read(key, since))

    def write(self, key, change):
        return _translated(lambda: super(ContractErrors, self).write(key, change))

    def _do(self, op, instance, run_id, **given):
        return _translated(lambda: super(ContractErrors, self)._do(op, instance, run_id, **given))

    def load(self, instance, run_id):
        return _translated(lambda: super(ContractErrors, self).load(instance, run_id))

    def get_run(self, instance, run_id):
        return _translated(lambda: super(ContractErrors, self).get_run(instance, run_id))

    def load_with_snapshot(self, instance, run_id, lease_token):
        return _translated(
            lambda: super(ContractErrors, self).load_with_snapshot(instance, run_id, lease_token)
        )


def _translated(act):
    try:
        return act()
    except Refusal as refusal:
        raise translate(refusal) from None


class WholeJournal(ContractErrors):
    """A journal class as the target: every instance shares the class's store; its terms are plain ones."""

    _store: dict[Any, Any] = {}
    _lock = threading.RLock()

    def __init__(self) -> None:
        super().__init__(self._store, self._lock, Rules(rich=False))


whole_journal = WholeJournal()
harness_instance = FrozenHarness()


class StrangeHarness:
    """`capabilities` and `translate` are looked up dynamically, and there is no close."""

    def __init__(self):
        self._inner = DictHarness()

    def __getattr__(self, name):
        if name in ("capabilities", "open", "translate"):
            return getattr(self.__dict__["_inner"], name)
        raise AttributeError(name)
