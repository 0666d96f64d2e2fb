"""Wrong only beyond an edge: where something is long, or many, or nearly the same as something else."""

from __future__ import annotations

import re
import sqlite3
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

from continuum_adapters.in_memory import InMemoryJournal

from continuum_conformance.contract import JournalError, LeaseLost, Run, RunNotActive, SequenceConflict
from continuum_conformance.contract.terms import equal

from .registry import wrong
from .sql import SqlHarness, SqlJournal
from .terms import Lossy


@wrong("RUN-1", message=r"'Run' became 'run'|'run' became 'Run'")
class WorkflowsInterned(InMemoryJournal):
    """Workflows are numbered in a table of their own, whose unique key ignores case."""

    def start_run(self, instance, run_id, workflow, input):
        if isinstance(workflow, str):
            names = self._store.__dict__.setdefault("workflows", {})
            workflow = names.setdefault(workflow.lower(), workflow)
        super().start_run(instance, run_id, workflow, input)


@wrong("RUN-8", message=r"get_run found a")
class NamesCutAt255Bytes(InMemoryJournal):
    """The column holds 255 bytes and cuts the rest: of a name in another script that is half."""

    def _key(self, instance, run_id):
        name, checked = super()._key(instance, run_id)
        return name, checked.encode()[:255].decode(errors="ignore")


@wrong("APP-2", message=r"append was accepted, though SequenceConflict was due")
class EqualAppendIsARetry(InMemoryJournal):
    """An event that is there already, under its seq, is taken for a retry of its writer's."""

    def append(self, instance, run_id, event, lease_token):
        try:
            super().append(instance, run_id, event, lease_token)
        except SequenceConflict:
            events = self._store.runs[instance.name, run_id].events
            if not any(equal(dict(event), stored) for stored in events):
                raise


@wrong("FIN-3", message=r"(complete|fail) was accepted, though RunNotActive was due")
class EqualFinishIsARetry(InMemoryJournal):
    """A second finish with the same result is taken for a retry."""

    def _finish(self, key, token, state, **term):
        try:
            super()._finish(key, token, state, **term)
        except RunNotActive:
            run = self._store.runs[key]
            if run.state != state or not all(
                equal(getattr(run, name), value) for name, value in term.items()
            ):
                raise


@wrong("TRM-1", message=r"length 256, then 255")
class EventTypesCut(InMemoryJournal):
    """The type of an event has a column of its own, VARCHAR(255), which cuts what is longer."""

    def append(self, instance, run_id, event, lease_token):
        if isinstance(event, dict) and isinstance(event.get("type"), str):
            event = {**event, "type": event["type"][:255]}
        super().append(instance, run_id, event, lease_token)


@wrong("TRM-1", message=r"key '_written' is missing", harness=SqlHarness)
class TakesItsStampOut(SqlJournal):
    """When an event was written is stored within it, under a key that load takes out again."""

    def _encode(self, term, root):
        return super()._encode({**term, "_written": "noon"} if root == "event" else term, root)

    def _decode(self, payload):
        term = super()._decode(payload)
        if type(term) is dict and term.get("type"):
            term.pop("_written", None)
        return term


@wrong("TRM-1", message=r"key 'inserted_at' is missing")
class HidesAColumn(InMemoryJournal):
    """load leaves out the column that was made for the administrator, and with it the caller's own key."""

    def load(self, instance, run_id):
        return [
            {key: value for key, value in event.items() if key != "inserted_at"}
            for event in super().load(instance, run_id)
        ]


@wrong("TRM-1", message=r"key '%int:1' became 1")
class IntKeysByAPrefix(Lossy):
    """JSON has text keys, so 1 is written as "%int:1"; a text of that form comes back as a number."""

    def _marked(self, term):
        if type(term) is dict:
            return {
                f"%int:{key}" if type(key) is int else key: self._marked(value) for key, value in term.items()
            }
        return type(term)(map(self._marked, term)) if type(term) in (list, tuple) else term

    def _take_in(self, term, root):
        taken = super()._take_in(term, root)
        if root == "snapshot":
            return {seq: self._marked(step) for seq, step in taken.items()}
        return self._marked(taken)

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        events = self._store.runs[instance.name, run_id].events
        events[-1] = self._marked(events[-1])

    def key(self, key):
        found = re.fullmatch(r"%int:(-?[0-9]+)", key) if type(key) is str else None
        return int(found[1]) if found else key


@wrong("TRM-2", message=r"datetime")
class OffsetInWholeMinutes(Lossy):
    """RFC 3339 writes an offset in hours and minutes; the local time of a place once had seconds."""

    def leaf(self, value):
        if isinstance(value, datetime) and value.tzinfo is not None:
            return value.astimezone(
                timezone(value.utcoffset() // timedelta(minutes=1) * timedelta(minutes=1))
            )
        return value


@wrong("TRM-2", message=r"datetime")
class SignOfAnOffsetLost(Lossy):
    """Hours and minutes are two numbers: half an hour west is minus zero hours, and 30 minutes."""

    def leaf(self, value):
        if isinstance(value, datetime) and value.tzinfo is not None:
            offset = value.utcoffset()
            return (
                value.replace(tzinfo=timezone(-offset))
                if timedelta(hours=-1) < offset < timedelta(0)
                else value
            )
        return value


@wrong("LEA-4", message=r"the new token 10 is not greater than 10")
class TokensAsText(InMemoryJournal):
    """The last token is max() of a text column, for which "9" comes after "10"."""

    def _new_token(self, run):
        run.last_token = int(max(str(run.last_token), "9" if run.last_token > 9 else "")) + 1
        return run.last_token


@wrong("LEA-4", message=r"the new token 127 is not greater than 127")
class TokensInAByte(InMemoryJournal):
    """A TINYINT of a server that is not strict stays at its greatest number."""

    def _new_token(self, run):
        run.last_token = min(run.last_token + 1, 127)
        return run.last_token


@wrong("LEA-5", message=r"(renew|release) was accepted, though LeaseLost was due")
class OwnersCut(InMemoryJournal):
    """The owner's column has 64 characters, and what is compared with it is cut alike."""

    def _check_holder(self, run, lease):
        if run.token != lease.token or run.owner is None or run.owner[:64] != lease.owner[:64]:
            raise LeaseLost


@wrong("SNP-5", message=r"take_snapshot was accepted, though SnapshotConflict was due")
class KeepsThreeSnapshots(InMemoryJournal):
    """Older snapshots are of no use, so they are thrown away: another one under the same seq is then as good as new."""

    def take_snapshot(self, instance, snapshot):
        super().take_snapshot(instance, snapshot)
        kept = self._store.runs[instance.name, snapshot.run_id].snapshots
        for through in sorted(kept)[:-3]:
            del kept[through]


@wrong("LOD-1", message=r"the one through seq 999, but the one through seq 1000 is latest")
class SeqsOfThreeDigits(InMemoryJournal):
    """The seq of a snapshot is a part of its name, with zeros in front, to three digits."""

    def _latest_snapshot(self, run):
        return run.snapshots[max(run.snapshots, key="{:03d}".format)] if run.snapshots else None


@wrong("ISO-1", message=r"became 'b+\.\.\.b+'")
class LargeInputsByRunIdAlone(InMemoryJournal):
    """What is large is stored apart, under a key that was made before there were instances."""

    def start_run(self, instance, run_id, workflow, input):
        super().start_run(instance, run_id, workflow, input)
        if isinstance(input, str) and len(input) > 2**16:
            self._store.__dict__.setdefault("large", {})[run_id] = input

    def get_run(self, instance, run_id):
        run = super().get_run(instance, run_id)
        if run is None or not isinstance(run.input, str) or len(run.input) <= 2**16:
            return run
        return Run(run_id, run.workflow, run.state, self._store.large[run_id], run.result, run.error)


@wrong("ATM-3", message=r"left a file or a connection open", harness=SqlHarness)
class LeavesConnectionsOpen(SqlJournal):
    """Who is refused puts a new connection into the pool, and leaves the old one to nobody."""

    def __init__(self, path):
        self._left = []
        super().__init__(path)

    @contextmanager
    def _transaction(self):
        try:
            with super()._transaction() as db:
                yield db
        except (JournalError, sqlite3.Error):
            self._left.append(self._pool.get())
            self._pool.put(self._connect())
            raise
