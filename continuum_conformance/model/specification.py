"""The executable specification: what a journal may answer, and what it holds afterwards.

It is pure and deterministic, and it is guided by what was observed: a fencing token is the store's to choose,
so the model takes it from the outcome and only asks that it grew.

Theory of operation:

1. A `World` maps (instance name, run id) to a `RunModel`; a key that is not there is an unknown run.
2. `expect(world, operation)` says what is right: whether the call may succeed, which answers are right then,
   what the world is afterwards, and which refusals are right, each with the clauses that ask for it.
3. `step(world, operation, outcome)` compares. It gives the next world, or an `Impossible` that says which
   clauses the outcome breaks and why.
4. Where several refusals apply, any of them is right. Where the contract leaves a choice to the adapter
   (a finish may end the lease or keep it), every choice is right.

Every rule cites its clause.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from continuum_conformance.contract.arguments import (
    MAX_TTL,
    check_event,
    check_integer,
    check_name,
    check_token,
    check_ttl,
    is_canonical_uuid,
)
from continuum_conformance.contract.errors import ERRORS, InvalidArgument, NotDurable
from continuum_conformance.contract.records import Lease, Run, RunState, Snapshot
from continuum_conformance.contract.terms import check_durable, difference, equal, shown
from continuum_conformance.model.operations import Kind, Operation, Outcome

__all__ = [
    "EMPTY",
    "Aspect",
    "Expectation",
    "Expiry",
    "Impossible",
    "LeaseModel",
    "RunModel",
    "Specification",
    "World",
]

BIG = 2**63
"""Integers at or beyond this, either way, may be answered with InvalidArgument too."""

REQUIRED_DEPTH = 64
REQUIRED_BYTES = 2**20
REQUIRED_BITS = 4096
"""What a term may have before a journal may refuse it (TRM-1)."""

NO_LIMIT = 10**9
"""A depth that no term has."""

LASTING = 60.0
"""A ttl of this many seconds or more does not run out within a test; the model holds such a lease for live."""


class Expiry(Enum):
    """Whether a lease may be taken over."""

    LIVE = "live"
    EXPIRED = "expired"
    EITHER = "live or expired"


class Aspect(Enum):
    """What a wrong answer was wrong about; it helps to tell which earlier operation did the damage."""

    ANSWER = "answer"
    EXISTENCE = "existence"
    EVENTS = "events"
    STATE = "state"
    RECORD = "record"
    SNAPSHOT = "snapshot"
    REFUSED = "refused"
    ACCEPTED = "accepted"
    WRONG_ERROR = "wrong error"


@dataclass(frozen=True, slots=True)
class LeaseModel:
    """A lease that counts until it is released or the run is finished (FEN-3)."""

    owner: str
    token: int
    expiry: Expiry


@dataclass(frozen=True, slots=True)
class RunModel:
    """One run: its record, its history, its lease, its snapshots, and the greatest token ever given."""

    workflow: str
    input: Any
    state: RunState = RunState.RUNNING
    result: Any = None
    error: Any = None
    events: tuple[dict[str, Any], ...] = ()
    lease: LeaseModel | None = None
    last_token: int | None = None
    snapshots: Mapping[int, Snapshot] = field(default_factory=dict)
    finished_leased: bool = False
    """Whether the run was under a lease when it was finished."""

    def record(self, run_id: str) -> Run:
        """What get_run must tell of it."""
        return Run(run_id, self.workflow, self.state, self.input, self.result, self.error)

    @property
    def latest(self) -> Snapshot | None:
        """The snapshot with the greatest through_seq (SNP-2, SNP-3)."""
        return self.snapshots[max(self.snapshots)] if self.snapshots else None


World = Mapping[tuple[str, str], RunModel]
EMPTY: World = {}


@dataclass(frozen=True, slots=True)
class Impossible:
    """An outcome that no correct journal can have here."""

    clauses: tuple[str, ...]
    message: str
    expected: str
    aspect: Aspect


_Wrong = tuple[str, Aspect]
_Check = Callable[[Any], "_Wrong | None"]
_Effect = Callable[[World, Any], World]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is right for one operation in one world.

    Attributes:
        refusals: the contract errors that are right, each with the clauses that ask for it.
        succeeds: whether answering is right.
        clauses: the clauses that ask for the answer, or for what it must be.
        answer: what the right answer is, in words.
        check: what is wrong with an answer, if anything.
        effect: the world after a right answer.
        unwise: refusals that are tolerated but that a SHOULD advises against.
        path: of NotDurable, the path that must be named; None leaves it open.
    """

    refusals: Mapping[str, tuple[str, ...]]
    succeeds: bool = True
    clauses: tuple[str, ...] = ()
    answer: str = "None"
    check: _Check = lambda _value: None
    effect: _Effect = lambda world, _value: world
    unwise: Mapping[str, str] = field(default_factory=dict)
    path: str | None = None

    def describe(self) -> str:
        """What was due, in a few words."""
        parts = [self.answer] if self.succeeds else []
        parts.extend(name for name in self.refusals if name not in self.unwise)
        return " or ".join(parts)

    def clauses_of_refusal(self) -> tuple[str, ...]:
        """The clauses behind all refusals, each once, in order."""
        return tuple(dict.fromkeys(clause for clauses in self.refusals.values() for clause in clauses))


class Specification:
    """The contract for an adapter with the given capabilities."""

    def __init__(self, capabilities: frozenset[str] | set[str]) -> None:
        self.leases = "leases" in capabilities
        self.snapshots = "snapshots" in capabilities
        self.rich = "rich_terms" in capabilities
        self.opaque = "opaque_run_ids" in capabilities

    # -- the two questions --

    def expect(self, world: World, operation: Operation) -> Expectation:
        """What is right for this operation in this world."""
        rule: Callable[[World, Operation], Expectation] = getattr(self, f"_{operation.name}")
        due = rule(world, operation)
        choices = self._choices(operation)
        if not choices or "CAP-1" in due.clauses_of_refusal():
            return due
        return replace(
            due, refusals={**due.refusals, **{k: v for k, v in choices.items() if k not in due.refusals}}
        )

    def step(self, world: World, operation: Operation, outcome: Outcome) -> World | Impossible:
        """The world after this outcome, or why the outcome is impossible."""
        due = self.expect(world, operation)
        if outcome.kind is Kind.VALUE:
            return _step_answer(world, operation, outcome, due)
        if outcome.kind is Kind.ERROR and outcome.error in due.refusals:
            return _step_refusal(world, outcome, due)
        got = outcome.error or outcome.kind.value
        said = f"{got}: {outcome.message}" if outcome.message else str(got)
        if outcome.kind is Kind.HANG:
            return Impossible(
                due.clauses or due.clauses_of_refusal(),
                f"{operation.name} did not come back: {outcome.message}",
                due.describe(),
                Aspect.REFUSED,
            )
        if outcome.kind is Kind.GARBAGE:
            clauses = due.clauses if due.succeeds else due.clauses_of_refusal()
            return Impossible(
                clauses,
                f"{operation.name} returned garbage: {outcome.message}",
                due.describe(),
                Aspect.ANSWER,
            )
        raw = ("ATM-2",) if outcome.kind is Kind.RAW or outcome.error not in ERRORS else ()
        if due.succeeds:
            return Impossible(
                (*due.clauses, *(raw if due.refusals else ())),
                f"{operation.name} should have answered {due.answer}, but raised {said}",
                due.describe(),
                Aspect.REFUSED,
            )
        what = "an exception that is no contract error" if raw else "the wrong error"
        return Impossible(
            (*raw, *due.clauses_of_refusal()),
            f"{operation.name} should have raised {due.describe()}, but raised {what}, {said}",
            due.describe(),
            Aspect.WRONG_ERROR,
        )

    # -- arguments --

    def _malformed(self, operation: Operation) -> dict[str, tuple[str, ...]]:
        """The refusals that malformed arguments call for (RUN-7, RUN-8, FEN-7, FEN-8, LEA-10)."""
        arguments = operation.arguments
        refusals: dict[str, tuple[str, ...]] = {}

        def refuse(error: str, clause: str) -> None:
            refusals[error] = (*refusals.get(error, ()), clause)

        for what, name in (
            ("instance", getattr(arguments["instance"], "name", None)),
            *((what, arguments[what]) for what in ("workflow", "owner") if what in arguments),
            ("run id", operation.run_id),
        ):
            try:
                check_name(name, what)
            except InvalidArgument:
                refuse("InvalidArgument", "RUN-7")
        if isinstance(operation.run_id, str) and not self.opaque and not is_canonical_uuid(operation.run_id):
            refuse("InvalidArgument", "RUN-8")
        if "lease_token" in arguments:
            token = arguments["lease_token"]
            try:
                check_token(token)
            except InvalidArgument:
                refuse("InvalidArgument", "FEN-7" if self.leases else "FEN-8")
            else:
                if token is not None and not self.leases:
                    refuse("InvalidArgument", "FEN-8")
        if "ttl" in arguments:
            try:
                check_ttl(arguments["ttl"])
            except InvalidArgument:
                if not _beyond_ten_years(arguments["ttl"]):
                    refuse("InvalidArgument", "LEA-10")
        return refusals

    def _choices(self, operation: Operation) -> dict[str, tuple[str, ...]]:
        """The refusals that are right whatever else is: where the contract leaves it to the adapter."""
        arguments = operation.arguments
        terms = [arguments[root] for root in ("input", "result", "error") if root in arguments]
        choices: dict[str, tuple[str, ...]] = {}
        event = arguments.get("event")
        if isinstance(event, Mapping):
            # An event's own keys are APP-4's matter, but no required terms where rich ones are undeclared.
            terms.append(list(event.values()) if self.rich else dict(event))
            if type(event) is not dict:  # APP-4: other mappings are the adapter's choice
                choices = {"InvalidArgument": ("APP-4",), "NotDurable": ("APP-4",)}
        steps = getattr(arguments.get("snapshot"), "steps_by_seq", None)
        if isinstance(steps, Mapping):
            terms.extend(steps.values())
            if any(map(_wide, steps)):
                choices["InvalidArgument"] = ("SNP-13",)
        if any(map(self._optional, terms)):
            choices["NotDurable"] = ("TRM-1",)
        if _beyond_ten_years(arguments.get("ttl")):
            choices["InvalidArgument"] = ("LEA-10",)
        return choices

    def _optional(self, term: Any) -> bool:
        """Whether a term need not be stored: rich ones undeclared, and extreme ones (TRM-1)."""
        try:
            check_durable(term, "term", rich=self.rich, max_depth=REQUIRED_DEPTH)
        except NotDurable:
            return True
        return _extreme(term)

    def _undurable(self, term: Any, root: str) -> tuple[bool, str | None]:
        """Whether a term holds what must be refused (TRM-3), and the path that must be named, if one is."""
        try:
            check_durable(term, root, rich=True, max_depth=NO_LIMIT)
        except NotDurable as error:
            # Where a container that holds itself offends, at itself or at its second visit, is left open,
            # and so is what of a term is too large, or what comes first where more may be refused.
            vague = str(error.kind).startswith(("a container", "too large"))
            path = None if vague or error.path != self._first_optional(term, root) else error.path
            return True, None if path is None else _exact(path, root)
        return False, None

    def _first_optional(self, term: Any, root: str) -> str | None:
        try:
            check_durable(term, root, rich=self.rich, max_depth=REQUIRED_DEPTH)
        except NotDurable as error:
            return error.path
        return None

    def _term(self, term: Any, root: str, refusals: dict[str, tuple[str, ...]]) -> str | None:
        """Adds the refusal that a term calls for; gives the path that must be named, if one is."""
        bad, path = self._undurable(term, root)
        if bad:
            refusals["NotDurable"] = ("TRM-3",)
        return path

    # -- the fence --

    def _fence(self, run: RunModel | None, token: Any) -> dict[str, tuple[str, ...]]:
        """The refusals that the fence calls for (FEN-1 to FEN-4) on an active run, or tolerates on another."""
        if not self.leases:
            return {}
        refusals: dict[str, tuple[str, ...]] = {}
        if run is None:
            # A token cannot be an unknown run's, so LeaseMismatch applies beside RunNotFound.
            if token is not None:
                refusals["LeaseMismatch"] = ("FEN-4",)
        elif run.state.terminal:
            # FIN-7, APP-6: whether the finish ended the lease is the adapter's choice.
            if token is not None or run.finished_leased:
                refusals["LeaseMismatch"] = ("FEN-6",)
        elif run.lease is None:
            if token is not None:
                refusals["LeaseMismatch"] = ("FEN-4",)
        elif token is None:
            refusals["LeaseMismatch"] = ("FEN-3",)
        elif isinstance(token, bool) or token != run.lease.token:
            refusals["LeaseMismatch"] = ("FEN-2",)
        if refusals and _wide(token):
            refusals["InvalidArgument"] = refusals["LeaseMismatch"]
        return refusals

    def _writer_clauses(self, run: RunModel) -> tuple[str, ...]:
        """The clauses that ask for a write under a right token to be accepted."""
        if run.lease is None:
            return ("FEN-3",) if self.leases else ()
        return ("FEN-1", "LEA-6") if run.lease.expiry is not Expiry.LIVE else ("FEN-1",)

    # -- RUN --

    def _start_run(self, world: World, operation: Operation) -> Expectation:
        arguments = operation.arguments
        refusals = self._malformed(operation)
        path = self._term(arguments["input"], "input", refusals)
        if operation.key in world:
            state = world[operation.key].state
            refusals["RunAlreadyExists"] = ("RUN-3",) if state.terminal else ("RUN-2",)
        if refusals:
            return Expectation(refusals, succeeds=False, path=path)

        def effect(before: World, _value: Any) -> World:
            return {**before, operation.key: RunModel(arguments["workflow"], arguments["input"])}

        return Expectation({}, clauses=("RUN-1",), effect=effect)

    def _get_run(self, world: World, operation: Operation) -> Expectation:
        refusals = self._malformed(operation)
        if refusals:
            return Expectation(refusals, succeeds=False)
        run = world.get(operation.key)
        if run is None:
            return Expectation(
                {},
                clauses=("RUN-4",),
                check=lambda value: (
                    None
                    if value is None
                    else (f"get_run found a {value.state} run where there is none", Aspect.EXISTENCE)
                ),
            )
        wanted = run.record(operation.run_id)
        return Expectation(
            {},
            clauses=("RUN-1",),
            answer=_record_text(wanted),
            check=lambda value: _record_wrong(wanted, value),
        )

    # -- APP, LOD --

    def _append(self, world: World, operation: Operation) -> Expectation:
        arguments = operation.arguments
        event, token = arguments["event"], arguments["lease_token"]
        refusals = self._malformed(operation)
        seq = event.get("seq") if isinstance(event, Mapping) else None
        path = None
        try:
            plain, _ = check_event(event, max_depth=NO_LIMIT)
        except InvalidArgument:
            bad_seq = isinstance(event, Mapping) and event.get("seq") is not None and _form(event)
            refusals["InvalidArgument"] = (
                *refusals.get("InvalidArgument", ()),
                "APP-3" if bad_seq else "APP-4",
            )
            plain = {}
        except NotDurable:
            refusals["NotDurable"] = ("TRM-3",)
            _, path = self._undurable(dict(event), "event")
            plain = {}
            if not isinstance(event, Mapping) or not _clean_text(event.get("type")):
                refusals["InvalidArgument"] = ("APP-4", "TRM-3")
        run = world.get(operation.key)
        refusals = _merge(refusals, self._fence(run, token))
        following = len(run.events) if run is not None else 0
        conflict = {"SequenceConflict": ("APP-2",)} if _integer(seq) and seq != following else {}
        if conflict and _wide(seq):
            conflict["InvalidArgument"] = ("APP-2",)
        if run is None:
            refusals["RunNotFound"] = ("APP-5",)
            # Where there is no history, no seq but 0 is the next one, so a conflict applies beside it.
            return Expectation(_merge(refusals, conflict), succeeds=False, path=path)
        if run.state.terminal:
            refusals["RunNotActive"] = ("APP-6", "FIN-3")
        refusals = _merge(refusals, conflict)
        if refusals:
            return Expectation(refusals, succeeds=False, path=path)

        def effect(before: World, _value: Any) -> World:
            changed = replace(run, events=(*run.events, {**plain, "seq": following}))
            return {**before, operation.key: changed}

        suspended = ("APP-7",) if run.state is RunState.SUSPENDED else ()
        return Expectation(
            {},
            clauses=(*suspended, *self._writer_clauses(run), "APP-2" if seq is not None else "APP-1"),
            effect=effect,
        )

    def _load(self, world: World, operation: Operation) -> Expectation:
        refusals = self._malformed(operation)
        if refusals:
            return Expectation(refusals, succeeds=False)
        run = world.get(operation.key)
        wanted = run.events if run is not None else ()
        return Expectation(
            {},
            clauses=("LOD-1",) if run is not None else ("RUN-4",),
            answer=_events_text(wanted),
            check=lambda value: _events_wrong(wanted, value),
        )

    def _load_with_snapshot(self, world: World, operation: Operation) -> Expectation:
        refusals = self._malformed(operation)
        run = world.get(operation.key)
        fence = self._fence(run, operation.arguments["lease_token"])
        if run is None:
            return Expectation(_merge(refusals, fence, {"RunNotFound": ("SNP-11",)}), succeeds=False)
        tolerated = bool(fence) and run.state.terminal
        if refusals or (fence and not tolerated):
            return Expectation(_merge(refusals, fence), succeeds=False)
        snapshot = run.latest if self.snapshots else None
        rest = run.events if snapshot is None else run.events[snapshot.through_seq + 1 :]
        after = f" after seq {snapshot.through_seq}" if snapshot is not None else ""
        name = "None" if snapshot is None else f"the snapshot through seq {snapshot.through_seq}"

        def check(value: tuple[Snapshot | None, list[dict[str, Any]]]) -> _Wrong | None:
            found, events = value
            return _snapshot_wrong(snapshot, found) or _events_wrong(rest, events)

        fin = ("FIN-7",) if run.state.terminal and self.leases else ()
        return Expectation(
            dict.fromkeys(fence, ("FIN-7",)),
            clauses=(*fin, "SNP-1" if snapshot is None else "SNP-2"),
            answer=f"({name}, {_events_text(rest)}{after})",
            check=check,
        )

    # -- FIN --

    def _transition(
        self, world: World, operation: Operation, change: dict[str, Any], root: str | None
    ) -> Expectation:
        refusals = self._malformed(operation)
        path = None
        if root is not None:
            path = self._term(operation.arguments[root], root, refusals)
        run = world.get(operation.key)
        token = operation.arguments["lease_token"]
        refusals = _merge(refusals, self._fence(run, token))
        if run is None:
            refusals["RunNotFound"] = ("FIN-4",)
            return Expectation(refusals, succeeds=False, path=path)
        if run.state.terminal:
            refusals["RunNotActive"] = ("FIN-3",)
        if refusals:
            return Expectation(refusals, succeeds=False, path=path)
        state: RunState = change["state"]

        def effect(before: World, _value: Any) -> World:
            changed = replace(run, **change)
            if state.terminal:
                changed = replace(changed, lease=None, finished_leased=run.lease is not None)
            return {**before, operation.key: changed}

        clause = "FIN-1" if state is RunState.SUSPENDED else "FIN-2"
        return Expectation(
            {},
            clauses=(*self._writer_clauses(run), clause),
            effect=effect,
        )

    def _suspend(self, world: World, operation: Operation) -> Expectation:
        return self._transition(world, operation, {"state": RunState.SUSPENDED}, None)

    def _complete(self, world: World, operation: Operation) -> Expectation:
        change = {"state": RunState.COMPLETED, "result": operation.arguments["result"]}
        return self._transition(world, operation, change, "result")

    def _fail(self, world: World, operation: Operation) -> Expectation:
        change = {"state": RunState.FAILED, "error": operation.arguments["error"]}
        return self._transition(world, operation, change, "error")

    # -- LEA --

    def _undeclared(self) -> Expectation:
        refusals = dict.fromkeys(("InvalidArgument", "NotImplementedError"), ("CAP-1",))
        return Expectation(refusals, succeeds=False)

    def _acquire(self, world: World, operation: Operation) -> Expectation:
        if not self.leases:
            return self._undeclared()
        refusals = self._malformed(operation)
        run = world.get(operation.key)
        if run is None:
            unwise = {"LeaseHeld": "LEA-3s"}
            refusals = _merge(refusals, {"RunNotFound": ("LEA-3",), "LeaseHeld": ("LEA-3",)})
            return Expectation(refusals, succeeds=False, unwise=unwise)
        if run.state.terminal:
            unwise = {"LeaseHeld": "LEA-3s"}
            refusals = _merge(refusals, {"RunNotActive": ("LEA-3",), "LeaseHeld": ("LEA-3",)})
            return Expectation(refusals, succeeds=False, unwise=unwise)
        held = run.lease is not None and run.lease.expiry is not Expiry.EXPIRED
        uncertain = run.lease is not None and run.lease.expiry is Expiry.EITHER
        if refusals or (held and not uncertain):
            if held:
                refusals = _merge(refusals, {"LeaseHeld": ("LEA-2",)})
            return Expectation(refusals, succeeds=False)
        owner, ttl = operation.arguments["owner"], operation.arguments["ttl"]

        def check(lease: Lease) -> _Wrong | None:
            if (lease.run_id, lease.owner) != (operation.run_id, owner):
                return (
                    f"the lease is for run {shown(lease.run_id)} and owner {shown(lease.owner)}, not {operation.run_id!r} and {owner!r}",
                    Aspect.ANSWER,
                )
            if run.last_token is not None and lease.token <= run.last_token:
                return (
                    f"the new token {shown(lease.token)} is not greater than {shown(run.last_token)}, which was given before",
                    Aspect.ANSWER,
                )
            return None

        def effect(before: World, lease: Lease) -> World:
            taken = LeaseModel(owner, lease.token, _expiry(ttl))
            return {**before, operation.key: replace(run, lease=taken, last_token=lease.token)}

        return Expectation(
            {"LeaseHeld": ("LEA-2",)} if uncertain else {},
            clauses=("LEA-1", "LEA-4") if run.last_token is not None else ("LEA-1",),
            answer=f"a lease with a token greater than {shown(run.last_token)}"
            if run.last_token is not None
            else "a lease",
            check=check,
            effect=effect,
        )

    def _held(
        self, world: World, operation: Operation, clause: str
    ) -> tuple[dict[str, tuple[str, ...]], RunModel | None]:
        """The refusals of renew and release, and the run when the caller holds its lease."""
        lease = operation.arguments["lease"]
        refusals = self._malformed(operation)
        token, owner = getattr(lease, "token", None), getattr(lease, "owner", None)
        try:
            check_integer(token, "token")
            check_name(owner, "owner")
        except InvalidArgument:
            refusals = _merge(refusals, {"InvalidArgument": (clause,)})
        run = world.get(operation.key)
        held = run.lease if run is not None else None
        mine = held is not None and (held.token, held.owner) == (token, owner) and _integer(token)
        wide = {"InvalidArgument": (clause,)} if _wide(token) else {}
        if run is None:
            return _merge(refusals, {"RunNotFound": (clause,), "LeaseLost": (clause,)}, wide), None
        if run.state.terminal:
            return _merge(refusals, {"LeaseLost": ("FIN-7",), "RunNotActive": ("FIN-7",)}, wide), None
        if not mine:
            refusals = _merge(refusals, {"LeaseLost": (clause,)}, wide)
        return refusals, run

    def _renew(self, world: World, operation: Operation) -> Expectation:
        if not self.leases:
            return self._undeclared()
        refusals, run = self._held(world, operation, "LEA-5")
        if refusals or run is None or run.lease is None:
            return Expectation(refusals, succeeds=False)
        held, ttl = run.lease, operation.arguments["ttl"]

        def check(lease: Lease | None) -> _Wrong | None:
            wanted = Lease(operation.run_id, held.owner, held.token)
            if lease is None or lease == wanted:
                return None
            return f"renew returned {shown(lease, 120)}, but the lease is {shown(wanted, 120)}", Aspect.ANSWER

        def effect(before: World, _lease: Any) -> World:
            return {**before, operation.key: replace(run, lease=replace(held, expiry=_expiry(ttl)))}

        expired = ("LEA-6",) if held.expiry is not Expiry.LIVE else ()
        return Expectation(
            {}, clauses=(*expired, "LEA-5"), answer="None or the lease", check=check, effect=effect
        )

    def _release(self, world: World, operation: Operation) -> Expectation:
        if not self.leases:
            return self._undeclared()
        refusals, run = self._held(world, operation, "LEA-7")
        if refusals or run is None or run.lease is None:
            return Expectation(refusals, succeeds=False)
        expired = ("LEA-6",) if run.lease.expiry is not Expiry.LIVE else ()

        def effect(before: World, _value: Any) -> World:
            return {**before, operation.key: replace(run, lease=None)}

        return Expectation({}, clauses=(*expired, "LEA-7"), effect=effect)

    # -- SNP --

    def _take_snapshot(self, world: World, operation: Operation) -> Expectation:
        if not self.snapshots:
            return self._undeclared()
        snapshot: Any = operation.arguments["snapshot"]
        refusals = self._malformed(operation)
        path = None
        if not _snapshot_form(snapshot):
            refusals = _merge(refusals, {"InvalidArgument": ("SNP-13",)})
        else:
            for seq, step in snapshot.steps_by_seq.items():
                path = self._term(step, f"snapshot.steps_by_seq[{shown(seq)}]", refusals)
                if "NotDurable" in refusals:
                    break
        run = world.get(operation.key)
        through: Any = getattr(snapshot, "through_seq", None)
        conflict = {"SnapshotConflict": ("SNP-7",)}
        if _wide(through):
            conflict["InvalidArgument"] = ("SNP-7",)
        if run is None:
            refusals["RunNotFound"] = ("SNP-6",)
            if _integer(through) and (through < 0 or _wide(through)):
                refusals = _merge(refusals, conflict)  # it is no seq of any history
            return Expectation(refusals, succeeds=False, path=path)
        again = reordered = False
        if _integer(through):
            if not 0 <= through < len(run.events):
                refusals = _merge(refusals, conflict)
            elif through in run.snapshots:
                again = True
                if _snapshot_form(snapshot):
                    first = run.snapshots[through]
                    reordered = not _same_snapshot(first, snapshot, ordered=True)
                    if not _same_snapshot(first, snapshot):
                        refusals = _merge(refusals, {"SnapshotConflict": ("SNP-5",)})
        if refusals:
            return Expectation(refusals, succeeds=False, path=path)

        def effect(before: World, _value: Any) -> World:
            if again:
                return before
            return {**before, operation.key: replace(run, snapshots={**run.snapshots, through: snapshot})}

        clauses = ["SNP-5"] if again else []
        if run.state.terminal:
            clauses.append("SNP-9")
        if through == len(run.events) - 1:
            clauses.append("SNP-7")
        return Expectation(
            {"SnapshotConflict": ("SNP-5",)} if reordered else {},  # SNP-5 speaks of clear cases only
            clauses=tuple(clauses) or ("SNP-2",),
            effect=effect,
        )


def _step_answer(
    world: World, operation: Operation, outcome: Outcome, due: Expectation
) -> World | Impossible:
    if not due.succeeds:
        return Impossible(
            due.clauses_of_refusal(),
            f"{operation.name} was accepted, though {due.describe()} was due",
            due.describe(),
            Aspect.ACCEPTED,
        )
    wrong = due.check(outcome.value)
    if wrong is not None:
        message, aspect = wrong
        return Impossible(due.clauses, message, due.answer, aspect)
    return due.effect(world, outcome.value)


def _step_refusal(world: World, outcome: Outcome, due: Expectation) -> World | Impossible:
    if outcome.error == "NotDurable" and due.path is not None and not _at(outcome.path, due.path):
        return Impossible(
            due.refusals["NotDurable"],
            f"NotDurable names the path {outcome.path!r}, but the first offender stands at {due.path!r}",
            f"NotDurable at {due.path}",
            Aspect.WRONG_ERROR,
        )
    return world


_PLACES = re.compile(r"(?:\.[^\W\d]\w*|\[\d+\])*")


def _exact(path: str, root: str) -> str:
    """The part of a path that must be named: places in lists and plain string keys, up to any other key (TRM-3)."""
    places = _PLACES.match(path, len(root))
    return path[: places.end()] if places is not None else root


def _at(path: str | None, due: str) -> bool:
    """Whether a path is the one that is due, or goes on from it."""
    found = str(path)
    return found.startswith(due) and re.match(r"\w", found[len(due) :]) is None


def _extreme(term: Any) -> bool:
    """Whether a durable term goes beyond what every journal must store (TRM-1, TRM-2).

    A text, bytes or an integer that is too large; more than twice that in all; a key that is neither a string
    nor an integer nor a tuple.
    """
    total = 0
    stack = [term]
    while stack:
        value = stack.pop()
        if isinstance(value, (str, bytes)):
            size = len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else len(value)
            total += size
            if size > REQUIRED_BYTES or total > 2 * REQUIRED_BYTES:
                return True
        elif isinstance(value, int):
            if value.bit_length() > REQUIRED_BITS:
                return True
        elif isinstance(value, dict):
            if not all(type(key) in (str, int, tuple) for key in value):
                return True
            stack.extend(value)
            stack.extend(value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            stack.extend(value)
    return False


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wide(value: Any) -> bool:
    """Whether a number has more than 64 bits, so that `InvalidArgument` is right where it is wrong."""
    return _integer(value) and not -BIG <= value < BIG


def _merge(*parts: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    merged: dict[str, tuple[str, ...]] = {}
    for part in parts:
        for name, clauses in part.items():
            merged[name] = tuple(dict.fromkeys((*merged.get(name, ()), *clauses)))
    return merged


def _form(event: Mapping[Any, Any]) -> bool:
    """Whether an event is well formed but for its seq."""
    kind = event.get("type")
    return isinstance(kind, str) and bool(kind) and all(isinstance(key, str) for key in event)


def _clean_text(text: Any) -> bool:
    return isinstance(text, str) and not any("\ud800" <= char <= "\udfff" for char in text)


def _beyond_ten_years(ttl: Any) -> bool:
    """Whether a ttl is longer than what is tested (LEA-10)."""
    return type(ttl) in (int, float) and MAX_TTL < ttl < math.inf


def _expiry(ttl: float) -> Expiry:
    if ttl == 0:
        return Expiry.EXPIRED  # LEA-5: a ttl of 0 is takeable at once and stays so
    return Expiry.LIVE if ttl >= LASTING else Expiry.EITHER


def _snapshot_form(snapshot: Any) -> bool:
    """Whether a snapshot's parts have the types of SNP-13."""
    through, steps = getattr(snapshot, "through_seq", None), getattr(snapshot, "steps_by_seq", None)
    taken_at = getattr(snapshot, "taken_at", None)
    return (
        isinstance(through, int)
        and not isinstance(through, bool)
        and isinstance(getattr(snapshot, "version_hash", None), bytes)
        and isinstance(taken_at, datetime)
        and taken_at.utcoffset() is not None
        and isinstance(steps, Mapping)
        and all(isinstance(key, int) and not isinstance(key, bool) for key in steps)
    )


def _same_snapshot(left: Snapshot, right: Snapshot, *, ordered: bool = False) -> bool:
    """Equal in all but `taken_at` (SNP-5); whether the order of keys counts is left open."""
    return left.version_hash == right.version_hash and equal(
        dict(left.steps_by_seq), dict(right.steps_by_seq), ordered=ordered
    )


def _instant(moment: datetime) -> timedelta:
    """An aware datetime as a span of time. `==` will not do: it is false for the hours that a zone has twice."""
    return moment.replace(tzinfo=None) - datetime.min - (moment.utcoffset() or timedelta(0))  # noqa: DTZ901


def _record_text(run: Run) -> str:
    return f"the {run.state} run"


def _record_wrong(wanted: Run, found: Run | None) -> _Wrong | None:
    if found is None:
        return (
            f"get_run found nothing, but the run {wanted.run_id!r} exists and is {wanted.state}",
            Aspect.EXISTENCE,
        )
    if found.state != wanted.state:
        return f"the run is {found.state}, but it must be {wanted.state}", Aspect.STATE
    for name in ("run_id", "workflow", "input", "result", "error"):
        differs = difference(getattr(wanted, name), getattr(found, name), name)
        if differs:
            return f"the run's {name} changed: {differs}", Aspect.RECORD
    return None


def _events_text(events: tuple[dict[str, Any], ...] | list[dict[str, Any]]) -> str:
    return "no events" if not events else f"{len(events)} event{'s' * (len(events) != 1)}"


def _events_wrong(wanted: tuple[dict[str, Any], ...], found: list[dict[str, Any]]) -> _Wrong | None:
    for position, (due, got) in enumerate(zip(wanted, found, strict=False)):
        if due is got:
            continue
        differs = difference(due, got, f"events[{position}]")
        if differs:
            seqs = [event.get("seq") for event in found]
            dense = seqs == list(range(wanted[0]["seq"], wanted[0]["seq"] + len(found)))
            listed = "" if dense else f"; the seqs read {_seqs(seqs)}"
            return f"the history differs: {differs}{listed}", Aspect.EVENTS
    if len(found) != len(wanted):
        more = "more" if len(found) > len(wanted) else "fewer"
        odd = found[len(wanted)] if len(found) > len(wanted) else wanted[len(found)]
        which = "the first surplus one" if len(found) > len(wanted) else "the first missing one"
        return (
            f"the history has {more} events than it must: {len(found)} instead of {len(wanted)}; {which} is {shown(odd, 120)}",
            Aspect.EVENTS,
        )
    return None


def _seqs(seqs: list[Any]) -> str:
    listed = ", ".join(shown(seq, 24) for seq in seqs[:12])
    return f"{listed}, ..." if len(seqs) > 12 else listed


def _snapshot_wrong(wanted: Snapshot | None, found: Snapshot | None) -> _Wrong | None:
    if wanted is None or found is None:
        if wanted is found:
            return None
        if found is None and wanted is not None:
            return f"no snapshot came, but one through seq {wanted.through_seq} was taken", Aspect.SNAPSHOT
        return f"a snapshot came ({shown(found, 120)}), but none was taken", Aspect.SNAPSHOT
    if not equal(found.through_seq, wanted.through_seq):
        return (
            f"the snapshot is the one through seq {shown(found.through_seq)}, but the one through seq {wanted.through_seq} is latest",
            Aspect.SNAPSHOT,
        )
    if found.run_id != wanted.run_id:
        return f"the snapshot is of run {shown(found.run_id)}, not {wanted.run_id!r}", Aspect.SNAPSHOT
    differs = difference(wanted.version_hash, found.version_hash, "version_hash")
    if not differs:
        got: Any = found.steps_by_seq
        steps = dict(got) if isinstance(got, Mapping) else got
        differs = difference(dict(wanted.steps_by_seq), steps, "steps_by_seq")
    if not differs and (not isinstance(found.taken_at, datetime) or found.taken_at.utcoffset() is None):
        differs = f"taken_at became {shown(found.taken_at)}, which is no aware datetime"
    if not differs and _instant(found.taken_at) != _instant(wanted.taken_at):
        differs = f"taken_at became another instant: {wanted.taken_at.isoformat()} became {found.taken_at.isoformat()}"
    return (f"the snapshot differs: {differs}", Aspect.SNAPSHOT) if differs else None
