"""The judges of a simulation, asked after every single effect and once more at the end.

- The model: every answer of the journal is one that the contract allows.
- The writer: what changed a run was written under a lease that its writer itself was granted, in this life.
- The history: event by event what a run without faults has; timers never go off early.
- The finish: once, with the result of a run without faults, after the whole history.
- The snapshot: what a full replay gives.
- The step: whoever carries one out holds the run's lease at that moment.
- Liveness: after the faults have stopped, everything is finished within a stated time.

The first finding counts. One of the model's is the journal's fault; the others are the engine's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from continuum_conformance.contract.records import Lease, Snapshot
from continuum_conformance.model import (
    Expiry,
    Impossible,
    Kind,
    Operation,
    Outcome,
    RunModel,
    Specification,
    World,
)
from continuum_conformance.simulate.expected import Expected

__all__ = ["JUDGES", "Book", "Caller", "Finding", "Judge"]

JUDGES: Mapping[str, str] = {
    "model": "every answer of the journal is one that the contract allows",
    "writer": "what changes a run is written under a lease that the writer holds",
    "history": "every history is that of a run without faults",
    "finish": "every run finishes once, with the result of a run without faults",
    "snapshot": "every snapshot is what a full replay gives",
    "step": "whoever carries out a step holds the run's lease",
    "timer": "no timer goes off early",
    "worker": "no worker falls over",
    "liveness": "after the faults everything is finished in time",
}
"""By name; what each holds the world to."""

GRANULARITY = 1_000
"""Milliseconds by which a store may let a lease live longer than asked (LEA-5)."""

WRITES = frozenset({"append", "suspend", "complete", "fail"})
FINISHES = frozenset({"complete", "fail"})
HERD = 1_000
"""Milliseconds within which three who try for one run are a herd."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a call: a worker in one of its lives. The kit's own calls have none."""

    name: str
    life: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong.

    Attributes:
        judge: of `JUDGES`.
        message: one sentence.
        at: when, in milliseconds.
        run_id: the run that it is about; None when it is about the whole.
        clauses: of the model's, the clauses that the journal broke, the closest first.
        shape: what a smaller world must show as well to show the same.
    """

    judge: str
    message: str
    at: int
    run_id: str | None = None
    clauses: tuple[str, ...] = ()
    shape: str = ""
    detail: str = field(default="", compare=False)


@dataclass
class Book:
    """What is known of one run."""

    expected: Expected
    planned: bool = True
    world: World = field(default_factory=dict)
    expires: int = -1
    granted: dict[int, Caller] = field(default_factory=dict)
    tried: list[tuple[int, str]] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)
    timers: dict[int, Caller | None] = field(default_factory=dict)
    snapshots: dict[int, Caller | None] = field(default_factory=dict)
    unsure: bool = False
    """Whether a start took effect of which its client never heard."""
    suspended: bool = False

    @property
    def run(self) -> RunModel | None:
        """The run as the model knows it."""
        return next(iter(self.world.values()), None)

    @property
    def finished(self) -> bool:
        """Whether it is final."""
        return self.run is not None and self.run.state.terminal


class Judge:
    """Judges a world, effect by effect.

    Args:
        specification: the model, with the adapter's capabilities.
        expected: what each run must come to, by run id.
        virtual: leases expire by the world's time; else when the kit lets them expire.
    """

    def __init__(
        self, specification: Specification, expected: Mapping[str, Expected], *, virtual: bool
    ) -> None:
        self._specification = specification
        self._virtual = virtual
        self.books = {run_id: Book(about) for run_id, about in expected.items()}
        self.sometimes: Counter[str] = Counter()
        self.unfinished_count = len(self.books)
        """How many of the planned runs are not final yet."""

    @property
    def unfinished(self) -> list[str]:
        """The planned runs that are not final yet."""
        return [run_id for run_id, book in self.books.items() if book.planned and not book.finished]

    def book(self, run_id: Any) -> Book:
        """What is known of a run; of one that nobody planned, nothing is expected."""
        if run_id not in self.books:
            self.books[run_id] = Book(Expected(), planned=False)
        return self.books[run_id]

    def sent(self, operation: Operation, now: int) -> None:
        """A worker sends a call."""
        if operation.name == "append":
            self.book(operation.run_id).expected.asked(operation.arguments["event"], now)

    def effect(
        self, caller: Caller | None, operation: Operation, outcome: Outcome, now: int
    ) -> Finding | None:
        """A call reached the store and was answered."""
        run_id = operation.run_id
        book = self.book(run_id)
        before = book.run
        if self._virtual and before is not None and before.lease is not None:
            expiry = self._expiry(book, now)
            if expiry is not before.lease.expiry:
                before = replace(before, lease=replace(before.lease, expiry=expiry))
                book.world = {operation.key: before}
        after = self._specification.step(book.world, operation, outcome)
        if isinstance(after, Impossible):
            return Finding(
                "model",
                after.message,
                now,
                run_id,
                after.clauses,
                f"{operation.name} {outcome.kind.value} {outcome.error} {after.aspect.value}",
                outcome.detail,
            )
        book.world = after
        self._count(caller, operation, outcome, book, before, now)
        if outcome.kind is not Kind.VALUE:
            return None
        if operation.name in ("acquire", "renew"):
            ttl = operation.arguments["ttl"]
            book.expires = now + round(1_000 * ttl) if ttl else -1
            if operation.name == "acquire" and isinstance(outcome.value, Lease) and caller is not None:
                book.granted[outcome.value.token] = caller
            return None
        return self._wrong(caller, operation, book, now)

    def _expiry(self, book: Book, now: int) -> Expiry:
        if now < book.expires:
            return Expiry.LIVE
        return Expiry.EITHER if now < book.expires + GRANULARITY and book.expires >= 0 else Expiry.EXPIRED

    def _wrong(self, caller: Caller | None, operation: Operation, book: Book, now: int) -> Finding | None:
        """What an accepted operation did that it should not have done."""
        run, name, about = book.run, operation.name, book.expected
        if run is None:
            return None
        if caller is not None and name in WRITES:
            token = operation.arguments["lease_token"]
            if book.granted.get(token) != caller:
                whose = "no lease" if token is None else f"token {token}, which it was never granted"
                return Finding(
                    "writer",
                    f"{name} of {caller.name} took effect under {whose}",
                    now,
                    operation.run_id,
                    shape=name,
                )
        if name == "append":
            wrong = about.event(run.events)
            if wrong:
                return Finding("history", wrong, now, operation.run_id)
            wrong = about.timer(run.events[-1], now)
            return Finding("timer", wrong, now, operation.run_id) if wrong else None
        if name in FINISHES:
            self.unfinished_count -= book.planned
            value = run.result if name == "complete" else run.error
            wrong = about.outcome(run.state.value, value, run.events)
            return Finding("finish", wrong, now, operation.run_id) if wrong else None
        if name == "take_snapshot":
            wrong = about.snapshot(operation.arguments["snapshot"], run.events)
            return Finding("snapshot", wrong, now, operation.run_id) if wrong else None
        return None

    def performed(self, caller: Caller, run_id: str, what: str, lease: Lease, now: int) -> Finding | None:
        """A worker carries out a step: something happens outside of the journal, here and now."""
        book = self.book(run_id)
        book.steps[what] = book.steps.get(what, 0) + 1
        self.sometimes["step carried out twice"] += book.steps[what] > 1
        run = book.run
        token = getattr(lease, "token", None)
        if run is not None and run.lease is not None and run.lease.token == token:
            return None
        held = "nobody's"
        if run is not None and run.lease is not None:
            held = f"{run.lease.owner}'s, under token {run.lease.token}"
        elif run is not None and run.state.terminal:
            held = "finished"
        return Finding(
            "step",
            f"{caller.name} carried out {what} under token {token}, but the run was {held}",
            now,
            run_id,
            shape=held.split("'")[0] if held == "finished" else "",
        )

    # -- rare situations --

    def _count(
        self,
        caller: Caller | None,
        operation: Operation,
        outcome: Outcome,
        book: Book,
        before: RunModel | None,
        now: int,
    ) -> None:
        count, name = self.sometimes, operation.name
        lease = before.lease if before is not None else None
        expired = lease is not None and lease.expiry is not Expiry.LIVE
        if caller is None:
            return
        if name == "acquire":
            book.tried = [(at, who) for at, who in book.tried if now - at <= HERD] + [(now, caller.name)]
            count["herd"] += len({who for _, who in book.tried}) > 2
        if outcome.kind is Kind.ERROR:
            fenced = outcome.error == "LeaseMismatch"
            count["renewal refused"] += name == "renew" and outcome.error == "LeaseLost"
            count["release refused"] += name == "release" and outcome.error == "LeaseLost"
            count["fenced append refused"] += name == "append" and fenced
            count["fenced suspend refused"] += name == "suspend" and fenced
            count["fenced finish refused"] += name in FINISHES and (fenced or outcome.error == "RunNotActive")
            count["fenced load refused"] += name == "load_with_snapshot" and fenced
            count["duplicate append refused"] += name == "append" and outcome.error == "SequenceConflict"
            count["start unseen"] += name == "start_run" and book.unsure
            count["claim of a finished run"] += (
                name == "acquire" and before is not None and before.state.terminal
            )
            return
        count["takeover"] += (
            name == "acquire" and lease is not None and book.granted.get(lease.token) != caller
        )
        count["renewal after expiry"] += name == "renew" and expired
        count["write after expiry"] += name == "append" and expired
        if name == "append" and book.run is not None:
            event = book.run.events[-1]
            if event["type"] == "timer":
                book.timers[event.get("index", -1)] = caller
            elif event["type"] == "fired":
                count["timer taken over"] += book.timers.get(event.get("index", -1), caller) != caller
        elif name == "suspend":
            book.suspended = True
        elif name in FINISHES:
            count["suspended run finished"] += book.suspended
        elif name == "take_snapshot" and before is not None:
            self._count_snapshot(caller, operation.arguments["snapshot"], book, before)
        elif name == "load_with_snapshot" and before is not None and before.latest is not None:
            count["replay from a snapshot"] += book.snapshots.get(before.latest.through_seq) != caller

    def _count_snapshot(self, caller: Caller, snapshot: Snapshot, book: Book, before: RunModel) -> None:
        latest, through = before.latest, snapshot.through_seq
        book.snapshots.setdefault(through, caller)
        holder = book.granted.get(before.lease.token) if before.lease is not None else None
        self.sometimes["stale snapshot"] += holder != caller
        self.sometimes["old snapshot"] += latest is not None and through < latest.through_seq
        self.sometimes["snapshot again"] += through in before.snapshots

    def holdings(self, caller: Caller) -> list[Book]:
        """The runs whose lease a worker holds, in the order of their ids as planned."""
        found: Sequence[Book] = list(self.books.values())
        return [
            book
            for book in found
            if book.run is not None
            and book.run.lease is not None
            and book.granted.get(book.run.lease.token) == caller
        ]
