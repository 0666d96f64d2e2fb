"""More styles: Python literals as the encoding, records built from type hints, a store in a process of its own."""

from __future__ import annotations

import ast
import functools
import math
import multiprocessing
import threading
import typing
import zlib
from dataclasses import dataclass

from tests.unusual import codecs
from tests.unusual.dicts import DictHarness, LockedDict
from tests.unusual.rules import Rules, Sync, translate

PLAIN = {"leases", "snapshots", "opaque_run_ids"}


def literal(term):
    """A text that `ast.literal_eval` reads; what it cannot read stands in a tuple, which plain terms never hold."""
    if type(term) is float and not math.isfinite(term):
        return f"('float', '{term}')"
    if type(term) is list:
        return "[" + ",".join(map(literal, term)) + "]"
    if type(term) is dict:
        return "{" + ",".join(f"{key!r}:{literal(item)}" for key, item in term.items()) + "}"
    return repr(term)


def illiteral(form):
    if type(form) is tuple:
        return float(form[1])
    if type(form) is list:
        return list(map(illiteral, form))
    return {key: illiteral(item) for key, item in form.items()} if type(form) is dict else form


class LiteralJournal(LockedDict):
    """Keeps compressed Python literals; the depth is limited, since the parser's is."""

    def read(self, key, since):
        run, events = self.store.get(key, (None, []))
        if run is None:
            return None, []
        head, body = run
        head = {**head, **illiteral(ast.literal_eval(zlib.decompress(body).decode()))}
        start = since(head)
        events = [] if start is None else events[start:]
        return head, [illiteral(ast.literal_eval(zlib.decompress(event).decode())) for event in events]

    def write(self, key, change):
        with self.lock:
            kept, events = self.store.get(key, (None, []))
            after, event, answer = change(None if kept is None else self.read(key, lambda _run: None)[0])
            terms = {name: after.pop(name) for name in ("input", "result", "error")}
            for through, snapshot in after["snapshots"].items():
                if type(snapshot["steps"]) is dict:
                    after["snapshots"][through] = {**snapshot, "steps": _squeeze(snapshot["steps"])}
            more = [_squeeze(event)] if event is not None else []
            self.store[key] = (after, _squeeze(terms)), [*events, *more]
            return answer


def _squeeze(term):
    return zlib.compress(literal(term).encode())


class LiteralRules(Rules):
    def latest(self, run_id, run):
        found = super().latest(run_id, run)
        if found is not None:
            found.steps_by_seq = illiteral(ast.literal_eval(zlib.decompress(found.steps_by_seq).decode()))
        return found

    def _snapshot_conflicts(self, run, snapshot):
        snapshots = {
            through: {**kept, "steps": illiteral(ast.literal_eval(zlib.decompress(kept["steps"]).decode()))}
            for through, kept in run["snapshots"].items()
        }
        return super()._snapshot_conflicts({**run, "snapshots": snapshots}, snapshot)

    def _walk(self, term, path, within):
        if len(within) > 70:
            from tests.unusual.rules import Refusal

            raise Refusal("NotDurable", "too deep for the parser", path)
        super()._walk(term, path, within)


class LiteralHarness(DictHarness):
    capabilities = PLAIN
    rules = LiteralRules(rich=False)
    journal = LiteralJournal


@dataclass
class Record:
    """Read back by its annotations, which are text in this module and are evaluated at every load."""

    run_id: str
    workflow: str
    state: str
    input: typing.Any
    result: typing.Any
    error: typing.Any


class HintedJournal(LockedDict):
    def get_run(self, instance, run_id):
        row = super().get_run(instance, run_id)
        if row is None:
            return None
        return Record(**{name: getattr(row, name) for name in typing.get_type_hints(Record)})


class HintedHarness(DictHarness):
    journal = HintedJournal


class ManagedJournal(Sync):
    """A dict in a manager's process, spoken to over a socket in bytes of our own."""

    rules = Rules()

    def __init__(self, store, lock):
        self.store, self.lock = store, lock

    def read(self, key, since):
        body = self.store.get(codecs.pack(list(key)))
        if body is None:
            return None, []
        run, events = codecs.unpack(body)
        start = since(run)
        return run, events[start:] if start is not None else []

    def write(self, key, change):
        packed = codecs.pack(list(key))
        with self.lock:
            run, events = self.read(key, lambda _run: 0)
            after, event, answer = change(run)
            self.store[packed] = codecs.pack([after, [*events, event] if event is not None else events])
            return answer


class ManagedHarness:
    capabilities = PLAIN | {"rich_terms"}
    manager = None
    lock = threading.Lock()

    def open(self):
        with self.lock:
            if ManagedHarness.manager is None:
                ManagedHarness.manager = multiprocessing.get_context("spawn").Manager()
                ManagedHarness.store = self.manager.dict()
                ManagedHarness.guard = self.manager.RLock()
        return ManagedJournal(self.store, self.guard)

    translate = staticmethod(translate)


class PartialHarness:
    """`open` and `close` are partials and lambdas; nothing is a method."""

    capabilities = frozenset(PLAIN | {"rich_terms"})

    def __init__(self):
        inner = DictHarness()
        self.open = functools.partial(LockedDict, inner.store, inner.lock, Rules())
        self.close = lambda journal: setattr(journal, "store", None)
        self.translate = translate


class Slotted:
    """Has no place for what the kit gives it."""

    __slots__ = ()
    capabilities = ()
    needs = "directory"

    def open(self):
        raise AssertionError("never reached")
