"""Journals for the general judge: the executable specification as a model, run by run."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Any

from continuum_conformance.contract.terms import canonical
from continuum_conformance.history.linearizability import Model
from continuum_conformance.model import (
    READS,
    Impossible,
    Kind,
    Operation,
    Outcome,
    RunModel,
    Specification,
    World,
)

__all__ = [
    "UnknownToken",
    "after_unknown",
    "event_key",
    "journal_model",
    "passive",
    "resolved",
    "run_key",
    "step",
]

Key = tuple[Any, Any]


class UnknownToken(int):
    """The token of a lease that an acquire of unknown outcome may have taken.

    Nobody was told it, so no token is known to be equal to it. Its value is the least that it can be, which is
    what a later token must exceed.
    """

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __hash__(self) -> int:
        return id(self)


def passive(operation: Operation, outcome: Outcome) -> bool:
    """Whether an operation with this outcome leaves every run as it is: a read, or a refusal (ATM-1)."""
    return operation.name in READS or (outcome.kind is Kind.ERROR and not outcome.unknown)


def step(
    specification: Specification, world: World, operation: Operation, outcome: Outcome
) -> World | Impossible:
    """The specification's step, where the present lease's token may be unknown."""
    following = specification.step(world, operation, outcome)
    if isinstance(following, Impossible):
        known = resolved(world, operation)
        if known is not None:
            again = specification.step(known, operation, outcome)
            if not isinstance(again, Impossible):
                return again
    return following


def resolved(world: World, operation: Operation) -> World | None:
    """The world in which the unknown token is the one that this operation shows; None where it cannot be.

    A worker may know a token without having been told by `acquire`: a test forges one, a second process reads
    the store. If a write under token 3 was accepted, then 3 it is.
    """
    run = world.get(operation.key)
    if run is None or run.lease is None or not isinstance(run.lease.token, UnknownToken):
        return None
    lease = operation.arguments.get("lease")
    token = operation.arguments.get("lease_token", getattr(lease, "token", None))
    if not isinstance(token, int) or isinstance(token, bool):
        return None
    if run.last_token is not None and token < run.last_token:
        return None
    known = replace(run, lease=replace(run.lease, token=token), last_token=token)
    return {**world, operation.key: known}


def after_unknown(specification: Specification, world: World, operation: Operation) -> World:
    """The world after an operation of unknown outcome that happened here; the same where it could not succeed."""
    due = specification.expect(world, operation)
    if not due.succeeds:
        known = resolved(world, operation)
        if known is None:
            return world
        world, due = known, specification.expect(known, operation)
        if not due.succeeds:
            return world
    if operation.name != "acquire":
        return due.effect(world, None)
    last = world[operation.key].last_token
    taken = due.effect(world, _TOKEN_ZERO)[operation.key]
    if taken.lease is None:
        return world
    token = UnknownToken(0 if last is None else last + 1)
    bound = None if last is None else last + 1
    changed = replace(taken, lease=replace(taken.lease, token=token), last_token=bound)
    return {**world, operation.key: changed}


class _Token:
    """A lease of which only the token is asked for."""

    token = 0


_TOKEN_ZERO: Any = _Token()


# -- fingerprints --

_PLAIN = frozenset({str, int, bool, bytes, type(None)})


def event_key(event: Any) -> Hashable:
    """The same for two events exactly when they are equal but for their seq (types count, the order of keys does not)."""
    parts: list[Any] = []
    for name in sorted(event):
        if name == "seq":
            continue
        value = event[name]
        cls = type(value)
        parts += (name, cls, value if cls in _PLAIN else canonical(value))
    return tuple(parts)


def run_key(run: RunModel | None) -> Hashable:
    """The same for two runs but for their events exactly when no later outcome can tell them apart."""
    if run is None:
        return None
    lease = run.lease
    return (
        run.state,
        run.last_token,
        run.finished_leased,
        None if lease is None else (lease.owner, _token_key(lease.token), lease.expiry),
        run.workflow,
        canonical(run.input),
        canonical(run.result),
        canonical(run.error),
        tuple(
            (seq, snapshot.version_hash, snapshot.taken_at, canonical(dict(snapshot.steps_by_seq)))
            for seq, snapshot in sorted(run.snapshots.items())
        ),
    )


def _token_key(token: int) -> Hashable:
    return ("unknown", int(token)) if isinstance(token, UnknownToken) else token


class _State:
    """A run in the search: a world of one run, and its fingerprint once somebody asked for it."""

    __slots__ = ("history", "print", "world")

    def __init__(self, world: World, history: tuple[Hashable, ...]) -> None:
        self.world = world
        self.history = history
        self.print: Hashable = None


def journal_model(specification: Specification, world: World) -> Model[Any]:
    """The specification as a model, from this world on, partitioned by run.

    Args:
        specification: the contract for the adapter's capabilities.
        world: what the journal holds when the history begins.
    """

    def init(key: Hashable) -> _State:
        run = world.get(key)  # type: ignore[call-overload]
        if run is None:
            return _State({}, ())
        return _State({key: run}, tuple(event_key(event) for event in run.events))  # type: ignore[dict-item]

    def next_state(state: _State, key: Key, following: World) -> _State:
        if following is state.world:
            return state
        run = following[key]
        events = run.events
        history = state.history
        if len(events) > len(history):
            history = (*history, *(event_key(event) for event in events[len(history) :]))
        return _State(following, history)

    def model_step(state: _State, operation: Operation, outcome: Outcome) -> _State | Impossible:
        following = step(specification, state.world, operation, outcome)
        if isinstance(following, Impossible):
            return following
        return next_state(state, operation.key, following)

    def step_unknown(state: _State, operation: Operation) -> Iterable[_State]:
        return (next_state(state, operation.key, after_unknown(specification, state.world, operation)),)

    def fingerprint(state: _State) -> Hashable:
        if state.print is None:
            run = next(iter(state.world.values()), None)
            state.print = (run_key(run), state.history)
        return state.print

    return Model(init, model_step, run_of, step_unknown, fingerprint, passive)


def run_of(operation: Operation) -> Hashable:
    return operation.key
