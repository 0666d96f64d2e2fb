"""The contract as a stranger understood it: one pure function over a run's header, for stores of many kinds.

A header is a plain dict without the history: everything that an operation must look at. All refusals that apply
are collected first, so that each adapter may choose which of them to raise. Nothing here is the kit's; the
refusals are exceptions of our own, which a harness translates.
"""

from __future__ import annotations

import math
import time
from collections import namedtuple
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from continuum_conformance.contract import errors

DEEP = 200
WIDE = 2**63
TERMINAL = ("completed", "failed")
PLAIN = (type(None), bool, int, float, bytes)
RICH = (Decimal, datetime, date, clock_time, timedelta, UUID)

RunRow = namedtuple("RunRow", "run_id workflow state input result error started_by")


class Refusal(Exception):
    """Why this store did not do what it was asked for."""

    def __init__(self, code: str, text: str = "", path: str | None = None) -> None:
        super().__init__(code, text)
        self.code, self.text, self.path = code, text, path


class Busy(Exception):
    """Lost a race: try again."""


def translate(exception: BaseException) -> errors.JournalError | None:
    """For harnesses: our refusals are named as the contract's errors are."""
    if not isinstance(exception, Refusal):
        return None
    if exception.code == "NotDurable":
        return errors.NotDurable(exception.text, path=exception.path)
    return errors.ERRORS[exception.code](exception.text)


class LeaseCard:
    """A lease with more on it than the contract asks for."""

    def __init__(self, run_id: str, owner: str, token: int, until: float | None = None) -> None:
        self.run_id, self.owner, self.token = run_id, owner, token
        self.until, self.issued_by = until, "stranger"

    def __eq__(self, other: object) -> bool:
        raise TypeError("lease cards are not compared")

    __hash__ = None  # type: ignore[assignment]


def first(refusals: list[Refusal]) -> Refusal:
    return refusals[0]


def oddest(refusals: list[Refusal]) -> Refusal:
    """The most unusual of those that apply."""
    order = [
        "SequenceConflict", "SnapshotConflict", "LeaseMismatch", "LeaseHeld", "LeaseLost", "InvalidArgument",
        "NotDurable", "RunNotActive", "RunAlreadyExists", "RunNotFound",
    ]  # fmt: skip
    return min(refusals, key=lambda refusal: order.index(refusal.code))


class Rules:
    """What to answer, and what becomes of the header."""

    def __init__(
        self,
        *,
        leases: bool = True,
        snapshots: bool = True,
        rich: bool = True,
        opaque: bool = True,
        choose: Callable[[list[Refusal]], Refusal] = first,
        keeps_lease: bool = False,
        lease_held_for_all: bool = False,
        wide_is_invalid: bool = False,
        renew_answers: bool = False,
        token: Callable[[int | None], int] = lambda last: 1 if last is None else last + 1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.leases, self.snapshots, self.rich, self.opaque = leases, snapshots, rich, opaque
        self.choose, self.keeps_lease, self.lease_held_for_all = choose, keeps_lease, lease_held_for_all
        self.wide_is_invalid, self.renew_answers, self.token, self.clock = (
            wide_is_invalid, renew_answers, token, clock,
        )  # fmt: skip

    # -- arguments --

    def key(self, instance: Any, run_id: Any) -> tuple[str, str]:
        """The run's key, or a refusal: nothing can be looked up without one."""
        refusals = self.name_refusals(getattr(instance, "name", None), "instance")
        refusals += self.name_refusals(run_id, "run id")
        if not refusals and not self.opaque and not _canonical(run_id):
            refusals.append(Refusal("InvalidArgument", "run ids here are UUIDs"))
        if refusals:
            raise self.choose(refusals)
        return instance.name, run_id

    def name_refusals(self, name: Any, what: str) -> list[Refusal]:
        fine = type(name) is str and 0 < len(name) < 256 and "\0" not in name and _scalar(name)
        return [] if fine else [Refusal("InvalidArgument", f"{what}: {name!r:.40}")]

    def argument_refusals(self, op: str, given: dict[str, Any]) -> list[Refusal]:
        found: list[Refusal] = []
        for what in ("workflow", "owner"):
            if what in given:
                found += self.name_refusals(given[what], what)
        token = given.get("token")
        if "token" in given and (
            not (token is None or type(token) is int) or (token is not None and not self.leases)
        ):
            found.append(Refusal("InvalidArgument", "the token"))
        if "ttl" in given:
            ttl = given["ttl"]
            if type(ttl) not in (int, float) or not (ttl >= 0 and math.isfinite(ttl)):
                found.append(Refusal("InvalidArgument", "the ttl"))
        for root in ("input", "result", "error"):
            if root in given:
                found += self.term_refusals(given[root], root)
        if "event" in given:
            found += self.event_refusals(given["event"])
        if "snapshot" in given:
            found += self.snapshot_refusals(given["snapshot"])
        return found

    def event_refusals(self, event: Any) -> list[Refusal]:
        if not isinstance(event, dict):
            return [Refusal("InvalidArgument", "no mapping")]
        found = []
        if not all(type(key) is str for key in event):
            found.append(Refusal("InvalidArgument", "a key that is no string"))
        if not (type(event.get("type")) is str and event["type"]):
            found.append(Refusal("InvalidArgument", "no type"))
        if type(event.get("seq")) not in (int, type(None)):
            found.append(Refusal("InvalidArgument", "the seq"))
        return found or self.term_refusals(event, "event")

    def snapshot_refusals(self, snapshot: Any) -> list[Refusal]:
        steps, taken = snapshot.steps_by_seq, snapshot.taken_at
        if (
            type(snapshot.through_seq) is not int
            or type(snapshot.version_hash) is not bytes
            or not isinstance(taken, datetime)
            or taken.tzinfo is None
            or not isinstance(steps, Mapping)
            or not all(type(key) is int for key in steps)
        ):
            return [Refusal("InvalidArgument", "the snapshot's parts")]
        for seq, step in steps.items():
            found = self.term_refusals(step, f"snapshot.steps_by_seq[{seq}]")
            if found:
                return found
        return []

    def term_refusals(self, term: Any, root: str) -> list[Refusal]:
        try:
            self._walk(term, root, ())
        except Refusal as refusal:
            return [refusal]
        return []

    def _walk(self, term: Any, path: str, within: tuple[int, ...]) -> None:
        kind = type(term)
        if kind in PLAIN or (self.rich and kind in RICH):
            if kind is int and term.bit_length() > 100_000:
                raise Refusal("NotDurable", "too large", path)
            return
        if kind is str:
            if not _scalar(term):
                raise Refusal("NotDurable", "a lone surrogate", path)
            return
        if kind not in (list, dict) and not (self.rich and kind in (tuple, set, frozenset)):
            raise Refusal("NotDurable", kind.__name__, path)
        if id(term) in within or len(within) >= DEEP:
            raise Refusal("NotDurable", "a cycle, or too deep", path)
        within = (*within, id(term))
        if kind is dict:
            for key, item in term.items():
                if type(key) is str and _scalar(key):
                    self._walk(item, f"{path}.{key}", within)
                elif not self.rich:
                    raise Refusal("NotDurable", "a key", path)
                else:
                    self._walk_inside(key, path, within)
                    self._walk(item, f"{path}[{key!r}]", within)
        elif kind in (list, tuple):
            for index, item in enumerate(term):
                self._walk(item, f"{path}[{index}]", within)
        else:
            for item in term:
                self._walk_inside(item, path, within)

    def _walk_inside(self, term: Any, path: str, within: tuple[int, ...]) -> None:
        try:
            self._walk(term, path, within)
        except Refusal as refusal:
            raise Refusal("NotDurable", refusal.text, path) from None

    # -- the run --

    def fence_refusals(self, run: dict[str, Any], token: Any) -> list[Refusal]:
        if not self.leases or token == run["token"]:
            return []
        wide = type(token) is int and not -WIDE <= token < WIDE
        code = "InvalidArgument" if wide and self.wide_is_invalid else "LeaseMismatch"
        return [Refusal(code, f"token {token}")]

    def state_refusals(self, op: str, run: dict[str, Any] | None, given: dict[str, Any]) -> list[Refusal]:
        """All that speaks against it, whichever comes first."""
        if op == "start_run":
            return [Refusal("RunAlreadyExists")] if run is not None else []
        found: list[Refusal] = []
        if run is None:
            found.append(
                Refusal("LeaseHeld" if op == "acquire" and self.lease_held_for_all else "RunNotFound")
            )
            token = given.get("token")
            if type(token) is int and "lease" not in given:
                wide = not -WIDE <= token < WIDE and self.wide_is_invalid
                found.append(Refusal("InvalidArgument" if wide else "LeaseMismatch", "unknown run"))
            if op in ("renew", "release"):
                found.append(Refusal("LeaseLost"))
            event = given.get("event")
            seq = event.get("seq") if isinstance(event, dict) else None
            if type(seq) is int and seq != 0:
                found.append(Refusal("SequenceConflict"))
            snapshot = given.get("snapshot")
            if snapshot is not None and type(snapshot.through_seq) is int and snapshot.through_seq < 0:
                found.append(Refusal("SnapshotConflict"))
            return found
        terminal = run["state"] in TERMINAL
        if op in ("append", "suspend", "complete", "fail"):
            if terminal:
                found.append(Refusal("RunNotActive"))
            if type(given["token"]) in (int, type(None)):
                found += self.fence_refusals(run, given["token"])
        if op == "append" and isinstance(given["event"], dict):
            seq = given["event"].get("seq")
            if type(seq) is int and seq != run["length"]:
                wide = self.wide_is_invalid and not -WIDE <= seq < WIDE
                found.append(Refusal("InvalidArgument" if wide else "SequenceConflict", f"seq {seq}"))
        if op == "load_with_snapshot":
            found += self.fence_refusals(run, given["token"]) if type(given["token"]) is not bool else []
        if op == "take_snapshot" and type(given["snapshot"].through_seq) is int:
            found += self._snapshot_conflicts(run, given["snapshot"])
        if op == "acquire":
            if terminal:
                found.append(Refusal("LeaseHeld" if self.lease_held_for_all else "RunNotActive"))
            elif run["token"] is not None and (run["until"] is not None and run["until"] > self.clock()):
                found.append(Refusal("LeaseHeld"))
        if op in ("renew", "release"):
            lease = given["lease"]
            mine = type(lease.token) is int and (lease.token, lease.owner) == (run["token"], run["owner"])
            if terminal:
                found += [Refusal("RunNotActive"), Refusal("LeaseLost")]
            elif not mine:
                found.append(Refusal("LeaseLost"))
        return found

    def _snapshot_conflicts(self, run: dict[str, Any], snapshot: Any) -> list[Refusal]:
        through = snapshot.through_seq
        if not 0 <= through < run["length"]:
            wide = self.wide_is_invalid and not -WIDE <= through < WIDE
            return [Refusal("InvalidArgument" if wide else "SnapshotConflict")]
        known = run["snapshots"].get(through)
        if known is None or self.snapshot_refusals(snapshot):
            return []
        same = known["hash"] == snapshot.version_hash and _frozen(known["steps"]) == _frozen(
            dict(snapshot.steps_by_seq)
        )
        return [] if same else [Refusal("SnapshotConflict", "another one is there")]

    def refuse(self, op: str, run: dict[str, Any] | None, given: dict[str, Any]) -> None:
        """Raise one of the refusals that apply, if any."""
        found = self.argument_refusals(op, given) + self.state_refusals(op, run, given)
        if found:
            raise self.choose(found)

    def change(
        self, op: str, run: dict[str, Any] | None, given: dict[str, Any]
    ) -> tuple[dict[str, Any], Any]:
        """The header afterwards and the answer. The event of an append is the caller's to store."""
        self.refuse(op, run, given)
        if run is None:
            return self.born(given["workflow"], given["input"]), None
        run, answer = dict(run), None
        if op == "append":
            run["length"] += 1
        elif op == "suspend":
            run["state"] = "suspended"
        elif op in ("complete", "fail"):
            run["state"] = "completed" if op == "complete" else "failed"
            run["result" if op == "complete" else "error"] = given["result" if op == "complete" else "error"]
            if not self.keeps_lease:
                run.update(token=None, owner=None, until=None)
        elif op == "acquire":
            token = self.token(run["last"])
            run.update(token=token, last=token, owner=given["owner"], until=self._until(given["ttl"]))
            answer = LeaseCard(given["run_id"], given["owner"], token, run["until"])
        elif op == "renew":
            run["until"] = self._until(given["ttl"])
            lease = given["lease"]
            answer = SimpleNamespace(**vars(LeaseCard(given["run_id"], lease.owner, lease.token)))
            answer = answer if self.renew_answers else None
        elif op == "release":
            run.update(token=None, owner=None, until=None)
        elif op == "take_snapshot":
            snapshot = given["snapshot"]
            run["snapshots"] = dict(run["snapshots"])
            run["snapshots"].setdefault(
                snapshot.through_seq,
                {
                    "hash": snapshot.version_hash,
                    "at": snapshot.taken_at,
                    "steps": dict(snapshot.steps_by_seq),
                },
            )
        return run, answer

    def _until(self, ttl: float) -> float | None:
        return None if ttl == 0 else self.clock() + ttl

    def born(self, workflow: str, given: Any) -> dict[str, Any]:
        return {
            "workflow": workflow, "input": given, "state": "running", "result": None, "error": None,
            "length": 0, "token": None, "last": None, "owner": None, "until": None, "snapshots": {},
        }  # fmt: skip

    def row(self, run_id: str, run: dict[str, Any] | None) -> RunRow | None:
        """What get_run answers: a named tuple of our own, its state plain text."""
        if run is None:
            return None
        return RunRow(
            run_id, run["workflow"], run["state"], run["input"], run["result"], run["error"], "a stranger"
        )

    def latest(self, run_id: str, run: dict[str, Any]) -> SimpleNamespace | None:
        if not run["snapshots"]:
            return None
        through = max(run["snapshots"])
        kept = run["snapshots"][through]
        return SimpleNamespace(
            run_id=run_id, through_seq=through, version_hash=kept["hash"], taken_at=kept["at"],
            steps_by_seq=kept["steps"], size=len(kept["steps"]),
        )  # fmt: skip


def plain_event(event: dict[str, Any], seq: int) -> dict[str, Any]:
    return {"seq": seq, **{key: value for key, value in event.items() if key != "seq"}}


def _scalar(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _canonical(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _frozen(term: Any) -> Any:
    """Something to compare by: types count, the order of keys does not."""
    kind = type(term)
    if kind is dict:
        return ("dict", frozenset((_frozen(key), _frozen(item)) for key, item in term.items()))
    if kind in (list, tuple):
        return (kind.__name__, tuple(map(_frozen, term)))
    if kind in (set, frozenset):
        return (kind.__name__, frozenset(map(_frozen, term)))
    return (kind.__name__, repr(term))


class Sync:
    """The twelve calls in their plain form, over ``read(key)`` and ``write(key, change)`` of a store.

    ``read`` gives (header or None, events from a seq on); ``write`` calls ``change(header)`` for (new header,
    event to add or None, answer) within whatever the store has for a transaction.
    """

    rules = Rules()

    def read(
        self, key: tuple[str, str], since: Callable[[dict[str, Any]], int | None]
    ) -> tuple[Any, list[Any]]:
        raise NotImplementedError

    def write(self, key: tuple[str, str], change: Callable[[Any], tuple[Any, Any, Any]]) -> Any:
        raise NotImplementedError

    def _do(self, op: str, instance: Any, run_id: Any, **given: Any) -> Any:
        key = self.rules.key(instance, run_id)
        given["run_id"] = run_id
        self._precheck(op, given)

        def change(run: Any) -> tuple[Any, Any, Any]:
            after, answer = self.rules.change(op, run, given)
            event = plain_event(given["event"], run["length"]) if op == "append" else None
            return after, event, answer

        return self.write(key, change)

    def _precheck(self, op: str, given: dict[str, Any]) -> None:
        found = self.rules.argument_refusals(op, given)
        if found and self.rules.choose is first:
            raise found[0]

    def start_run(self, instance, run_id, workflow, input):
        return self._do("start_run", instance, run_id, workflow=workflow, input=input)

    def append(self, instance, run_id, event, lease_token):
        return self._do("append", instance, run_id, event=event, token=lease_token)

    def suspend(self, instance, run_id, lease_token):
        return self._do("suspend", instance, run_id, token=lease_token)

    def complete(self, instance, run_id, result, lease_token):
        return self._do("complete", instance, run_id, result=result, token=lease_token)

    def fail(self, instance, run_id, error, lease_token):
        return self._do("fail", instance, run_id, error=error, token=lease_token)

    def acquire(self, instance, run_id, owner, ttl):
        self._leases()
        return self._do("acquire", instance, run_id, owner=owner, ttl=ttl)

    def renew(self, instance, lease, ttl):
        self._leases()
        return self._do("renew", instance, lease.run_id, lease=lease, ttl=ttl, **_parts(lease))

    def release(self, instance, lease):
        self._leases()
        return self._do("release", instance, lease.run_id, lease=lease, **_parts(lease))

    def take_snapshot(self, instance, snapshot):
        if not self.rules.snapshots:
            raise Refusal("InvalidArgument", "no snapshots here")
        return self._do("take_snapshot", instance, snapshot.run_id, snapshot=snapshot)

    def _leases(self) -> None:
        if not self.rules.leases:
            raise NotImplementedError("no leases here")

    def load(self, instance, run_id):
        return self.read(self.rules.key(instance, run_id), lambda _run: 0)[1]

    def get_run(self, instance, run_id):
        return self.rules.row(run_id, self.read(self.rules.key(instance, run_id), lambda _run: None)[0])

    def load_with_snapshot(self, instance, run_id, lease_token):
        def since(run: dict[str, Any]) -> int:
            return max(run["snapshots"]) + 1 if run["snapshots"] else 0

        run, events = self.read(self.rules.key(instance, run_id), since)
        self.rules.refuse("load_with_snapshot", run, {"token": lease_token})
        return self.rules.latest(run_id, run), events


def _parts(lease: Any) -> dict[str, Any]:
    return (
        {"owner": lease.owner, "token": lease.token}
        if type(lease.token) is not int
        else {"owner": lease.owner}
    )
