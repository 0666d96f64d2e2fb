"""How operations and verdicts read: sentences for a person, from any model's operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.terms import shown
from continuum_conformance.history.recording import Recorded
from continuum_conformance.history.verdict import Attempt
from continuum_conformance.model import Kind, Outcome

__all__ = ["answer", "call", "headline", "tell"]

LISTED = 16
"""How many operations a text lists; of more, the first ones are only counted."""
IN_ORDER = 8
"""How many operations of an order a text names; of more, the first ones are only counted."""


# -- one operation --


def call(entry: Recorded) -> str:
    """The call, shortened: ``append(run 'r', {'type': 'x'}, token 1)``."""
    operation = entry.operation
    parts = []
    for name, value in operation.arguments.items():
        if name == "instance":
            continue
        if name == "lease":
            parts.append(
                f"run {shown(value.run_id, 30)}, the lease of {shown(value.owner, 20)} with token {value.token}"
                if hasattr(value, "token") and hasattr(value, "owner") and hasattr(value, "run_id")
                else shown(value)
            )
        elif name == "lease_token":
            parts.append("no token" if value is None else f"token {shown(value, 24)}")
        elif name == "run_id":
            parts.append(f"run {shown(value, 30)}")
        elif name == "event":
            parts.append(shown(value))
        elif name == "snapshot" and hasattr(value, "through_seq"):
            parts.append(
                f"run {shown(value.run_id, 30)}, a snapshot through seq {shown(value.through_seq, 24)}"
            )
        else:
            parts.append(f"{name} {shown(value, 40)}")
    return f"{operation.name}({', '.join(parts)})"


_ANSWERS: dict[str, Callable[[Any], str]] = {
    "acquire": lambda lease: f"returned token {lease.token}",
    "load": lambda events: f"returned {_events(events)}",
    "load_with_snapshot": lambda pair: f"returned {_pair(pair)}",
    "get_run": lambda run: "found no run" if run is None else f"returned a {run.state} run",
}


def answer(entry: Recorded) -> str:
    """What came of it, as the end of a sentence: ``returned token 2``, ``was accepted``."""
    outcome = entry.outcome
    if outcome.ok and entry.returned is not None:
        name = entry.operation.name
        writer = _ANSWERS.get(name)
        if writer is not None:
            return writer(outcome.value)
        return "was accepted" if name in OPERATIONS else f"returned {shown(outcome.value)}"
    if entry.unknown:
        return f"had an unknown outcome ({_error(outcome)})"
    if outcome.kind is Kind.ERROR:
        return f"was refused with {outcome.error}"
    if outcome.kind is Kind.GARBAGE:
        return f"returned garbage ({outcome.message})"
    return f"raised {_error(outcome)}"


def _error(outcome: Outcome) -> str:
    return outcome.error or outcome.kind.value


def _events(events: Sequence[Any]) -> str:
    if not events:
        return "no events"
    listed = f": {shown(events, 100)}" if len(events) <= 4 else ""
    return f"{len(events)} event{'s' * (len(events) != 1)}{listed}"


def _pair(pair: tuple[Any, Any]) -> str:
    snapshot, events = pair
    through = "no snapshot" if snapshot is None else f"the snapshot through seq {snapshot.through_seq}"
    return f"{through} and {_events(events)}"


def _named(entry: Recorded) -> str:
    """The operation within a sentence: ``B's append with token 1``."""
    operation = entry.operation
    name = operation.name
    if name not in OPERATIONS:
        return f"{entry.worker}'s {call(entry)}"
    extra = ""
    if "lease_token" in operation.arguments:
        token = operation.arguments["lease_token"]
        extra = " without a token" if token is None else f" with token {shown(token, 24)}"
    elif "lease" in operation.arguments:
        extra = f" of token {shown(getattr(operation.arguments['lease'], 'token', None), 24)}"
    return f"{entry.worker}'s {name}{extra}"


def _clause(entry: Recorded) -> str:
    return f"{_named(entry)} {answer(entry)}"


# -- a whole failure --


def headline(needed: Sequence[Recorded], decisive: Recorded) -> str:
    """The story in a sentence: what had happened, what happened at the same time, and what nothing explains.

    Args:
        needed: the operations without which there would be no contradiction.
        decisive: the one at whose return it shows.
    """
    others = [entry for entry in needed if entry is not decisive]
    before = [entry for entry in others if entry.precedes(decisive)]
    beside = [entry for entry in others if not entry.precedes(decisive)]
    sentence = _clause(decisive)
    if before:
        left = len(before) - 3
        more = f"{left} other operation{'s' * (left != 1)}, " if left > 0 else ""
        sentence = f"after {more}{_joined([_clause(entry) for entry in before[-3:]])}, {sentence}"
    if beside:
        left = len(beside) - 3
        more = f", and {left} more" if left > 0 else ""
        sentence += f", while {_joined([_clause(entry) for entry in beside[:3]])}{more}"
    return f"{sentence}: no order of these operations explains it"


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def tell(
    first: str,
    operations: Sequence[Recorded],
    decisive: Recorded,
    attempts: Sequence[Attempt],
    more: bool,
    earlier: int = 0,
) -> str:
    """The failure in full: the headline, the operations with their overlaps, and the orders that were tried."""
    numbers = {id(entry): f"#{number}" for number, entry in enumerate(operations, 1)}
    hidden = max(0, len(operations) - LISTED)
    after = f", after {earlier:,} earlier ones that an order explains" if earlier else ""
    lines = [f"{first[:1].upper()}{first[1:]}.", "", f"The operations{after}:"]
    if hidden:
        lines.append(f"  ({hidden} earlier ones are left out here)")
    shown_ones = operations[hidden:]
    width = max(len(entry.worker) for entry in shown_ones)
    for entry in shown_ones:
        mark = "  <- at its return nothing explains the history any more" if entry is decisive else ""
        beside = [numbers[id(other)] for other in shown_ones if other is not entry and _overlap(entry, other)]
        overlaps = f"  (beside {', '.join(beside)})" if beside else ""
        lines.append(
            f"  {numbers[id(entry)]}  {entry.worker:{width}}  {call(entry)} {answer(entry)}{overlaps}{mark}"
        )
    lines.append("")
    if len(attempts) == 1 and not more:
        lines.append(f"There is one order only, {_order(attempts[0], numbers)}:")
        lines.append(f"  {_why(attempts[0], numbers)}")
        return "\n".join(lines)
    lines.append("Orders tried:")
    lines.extend(f"  {_order(attempt, numbers)}: {_why(attempt, numbers)}" for attempt in attempts)
    if more:
        lines.append("  ... and others")
    return "\n".join(lines)


def _overlap(one: Recorded, other: Recorded) -> bool:
    return not one.precedes(other) and not other.precedes(one)


def _order(attempt: Attempt, numbers: dict[int, str]) -> str:
    names = [numbers[id(entry)] for entry in (*attempt.order, attempt.failed)]
    hidden = len(names) - IN_ORDER
    return ", ".join(names if hidden <= 0 else ["...", *names[hidden:]])


def _why(attempt: Attempt, numbers: dict[int, str]) -> str:
    clauses = f" ({', '.join(attempt.clauses)})" if attempt.clauses else ""
    return f"at {numbers[id(attempt.failed)]}, {attempt.reason}{clauses}"
