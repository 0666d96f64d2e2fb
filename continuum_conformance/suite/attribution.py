"""Which clause an impossible outcome breaks, told from what went before.

The model says that a read is wrong; what did the damage is usually the operation before it. A read that shows
the trace of a refused append breaks APP-9; one that shows a state changed by an append breaks APP-8.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from continuum_conformance.contract.errors import NotDurable
from continuum_conformance.contract.terms import check_durable
from continuum_conformance.model import READS, Aspect, Impossible, Kind
from continuum_conformance.suite.violation import Step

__all__ = ["attribute", "by_necessity"]

LEASE_OPERATIONS = frozenset({"acquire", "renew", "release"})
FINISHES = frozenset({"complete", "fail"})
FENCED = frozenset({"append", "suspend", "load_with_snapshot"}) | FINISHES
FENCE = frozenset({"FEN-1", "FEN-3", "LEA-6"})
"""The clauses that ask for a write under the right token to be accepted."""
PLAIN = frozenset({Aspect.ANSWER, Aspect.REFUSED, Aspect.ACCEPTED, Aspect.WRONG_ERROR})
"""What is wrong with the call itself, rather than with what it shows."""
LEASE_ERRORS = frozenset({"LeaseMismatch", "LeaseHeld", "LeaseLost"})


def attribute(found: Impossible, step: Step, before: Sequence[Step]) -> tuple[str, ...]:
    """The clauses that an impossible outcome breaks, the closest first.

    Args:
        found: what the model said.
        step: the call whose outcome is impossible.
        before: the calls before it, oldest first.
    """
    operation = step.operation
    clauses = found.clauses
    if found.aspect is Aspect.REFUSED:
        clauses = _of_refusal(step, clauses)
        if "FEN-3" in clauses and not _ever_leased(operation.key, before):
            clauses = ("RUN-5", *clauses)
    elif found.aspect is Aspect.ANSWER and operation.name == "acquire" and "LEA-4" in clauses:
        clauses = ("LEA-4",) if found.message.startswith("the new token") else ("LEA-1",)
    if found.aspect in (Aspect.REFUSED, Aspect.WRONG_ERROR) and _after_error(step, before):
        return ("ATM-3",)  # until the failed call proves to be needless
    if operation.name not in READS or found.aspect in PLAIN:
        return clauses
    suspect = _suspect(operation.key, before)
    if suspect is None:
        return found.clauses
    if found.aspect is Aspect.EXISTENCE and suspect.operation.name in READS and "RUN-4" in found.clauses:
        return ("RUN-4",)
    if suspect.outcome.ok and suspect.operation.key == operation.key and not suspect.mutates:
        content = _content_clauses(found, suspect, before)
        if content:
            return content
    return _blame(found.aspect, step, suspect)


def _content_clauses(found: Impossible, suspect: Step, before: Sequence[Step]) -> tuple[str, ...]:
    """The clauses of a value that reads back as another one; none when it is not the value that is wrong."""
    operation = suspect.operation
    if found.aspect is Aspect.EVENTS and operation.name == "append":
        place = re.match(r"the history differs: .* at events\[(\d+)\](?!\.seq)", found.message)
        if place is None or "; the seqs read" in found.message:
            return ()
        written = [
            s
            for s in before
            if s.operation.name == "append" and s.operation.key == operation.key and s.outcome.ok
        ]
        if int(place[1]) < len(written) - 1:
            return ("LOD-4",)  # an earlier event, and the last append is what changed it
        return ("TRM-2",) if _rich(operation.arguments["event"]) else ("TRM-1",)
    if found.aspect is Aspect.RECORD:
        changed = re.match(r"the run's (input|result|error) changed", found.message)
        return ("TRM-2",) if changed and _rich(operation.arguments.get(changed[1])) else ()
    if found.aspect is Aspect.SNAPSHOT and operation.name == "take_snapshot":
        steps = getattr(operation.arguments["snapshot"], "steps_by_seq", {})
        rich = any(_rich(step) for step in steps.values())
        if " at steps_by_seq" in found.message:
            return ("TRM-2", "SNP-8") if rich else ("SNP-8",)
    return ()


def _rich(term: object) -> bool:
    """Whether a durable term is one of `rich_terms`."""
    try:
        check_durable(term, "term", rich=False, max_depth=10**9)
    except NotDurable:
        return True
    return False


def _of_refusal(step: Step, clauses: tuple[str, ...]) -> tuple[str, ...]:
    """The clauses that ask for an answer, less those that the raised error has nothing to do with."""
    operation, error = step.operation, step.outcome.error
    if operation.name in ("load", "get_run"):
        return ("LOD-2", *clauses) if step.outcome.kind is Kind.ERROR and "RUN-4" not in clauses else clauses
    if operation.name == "acquire":
        return ("LEA-1",)
    if error in ("InvalidArgument", "NotDurable") and any(
        operation.arguments.get(name, True) is None for name in ("input", "result", "error")
    ):
        return ("RUN-6",)
    if error == "NotDurable":
        return ("TRM-1", *(clause for clause in clauses if clause not in FENCE))
    if operation.name == "load_with_snapshot" and error == "LeaseMismatch" and "FIN-7" not in clauses:
        return ("FEN-3" if operation.arguments["lease_token"] is None else "FEN-1",)
    kept = tuple(clause for clause in clauses if (clause in FENCE) == (error in LEASE_ERRORS))
    return kept or clauses


def by_necessity(steps: Sequence[Step], aspect: Aspect | None) -> tuple[str, ...]:
    """What a minimal counterexample breaks in place of the clauses of its last call, the closest first; often nothing.

    No call of it can be left out. So a refused call that is still there left a trace, a read that is still there
    changed something, and a call on another run that is still there reached this one.

    Args:
        steps: the calls, of which the last is the wrong one.
        aspect: what is wrong with it. Of a wrong answer `attribute` has told already.
    """
    *before, last = steps
    if aspect not in (Aspect.ACCEPTED, Aspect.REFUSED, Aspect.WRONG_ERROR):
        return ()
    if last.outcome.kind is Kind.RAW or last.outcome.error == "JournalUnavailable":
        return ("ATM-3",) if any(not step.outcome.ok for step in before) else ()
    found: list[str] = []
    for step in reversed(before):
        name, outcome = step.operation.name, step.outcome
        if outcome.kind is Kind.HANG or step.mutates:
            continue
        if not outcome.ok:
            found += _refusal_clauses(step)
        elif step.operation.key != last.operation.key:
            found += _across(step, last)
        elif name in READS:
            found += ["LOD-2", "ISO-3"]
        elif name == "append" and (last.operation.name in LEASE_OPERATIONS or _about_lease(last)):
            found.append("APP-8")
        elif name == "suspend" and _about_lease(last):
            found.append("ISO-3")
    return tuple(dict.fromkeys(found))


def _refusal_clauses(step: Step) -> tuple[str, ...]:
    """The clauses that say that a call which was refused so leaves no trace."""
    name, error = step.operation.name, step.outcome.error
    if name == "append" and error == "RunNotFound":
        return ("APP-5",)
    if name in FENCED and error == "LeaseMismatch":
        return ("APP-9", "FEN-2") if name == "append" else ("FEN-2",)
    if name in FINISHES or name == "suspend":
        return ("FIN-4",) if error == "RunNotFound" else ("FIN-3",) if error == "RunNotActive" else ("TRM-3",)
    return _REFUSED_LEAVES.get(name, ("ISO-3",))


def _across(step: Step, last: Step) -> tuple[str, ...]:
    token = last.operation.arguments.get(
        "lease_token", getattr(last.operation.arguments.get("lease"), "token", None)
    )
    if token is not None and token == getattr(step.outcome.value, "token", None):
        return ()  # it is there for its token, which the last call was given
    return ("ISO-1",) if step.operation.key[0] != last.operation.key[0] else ("ISO-2",)


def _about_lease(step: Step) -> bool:
    """Whether a call was wrong about who holds the lease: that is what it raised, or what was due."""
    if step.outcome.ok:
        return any(error in step.due for error in LEASE_ERRORS)
    return step.outcome.error in LEASE_ERRORS


def _ever_leased(key: tuple[object, object], before: Sequence[Step]) -> bool:
    return any(step.operation.name == "acquire" and step.operation.key == key for step in before)


def _after_error(step: Step, before: Sequence[Step]) -> bool:
    """Whether a call that should have answered failed with no contract error, right after another had failed."""
    if step.outcome.kind is Kind.HANG:
        return bool(before) and before[-1].outcome.kind in (Kind.ERROR, Kind.RAW)
    if step.outcome.error == "JournalUnavailable":
        return any(not earlier.outcome.ok for earlier in before)
    if step.outcome.kind is not Kind.RAW:
        return False
    same = [s for s in before if s.operation.worker == step.operation.worker]
    return bool(same) and not same[-1].outcome.ok and same[-1].outcome.kind is not Kind.HANG


def _suspect(key: tuple[object, object], before: Sequence[Step]) -> Step | None:
    """The last write since the last read of this run that showed nothing wrong; else that read."""
    for step in reversed(before):
        if step.operation.name not in READS:
            return step
        if step.operation.key == key and step.outcome.ok:
            return step
    return None


def _blame(aspect: Aspect, step: Step, suspect: Step) -> tuple[str, ...]:
    read, did = step.operation, suspect.operation
    if did.name in READS:
        return (
            ("LOD-3",)
            if suspect.mutates
            else ("LOD-2", "APP-10")
            if did.worker != read.worker
            else ("LOD-2", "LOD-4")
        )
    if did.key != read.key:
        other_instance = did.key[0] != read.key[0]
        return ("ISO-1",) if other_instance else ("ISO-2",)
    elsewhere = ("APP-10",) if did.worker != read.worker else ()
    if not suspect.outcome.ok:
        return _REFUSED_TRACE.get((did.name, aspect), _REFUSED_TRACE.get((did.name, None), ("ISO-3",)))
    if suspect.mutates:
        return ("TRM-4",)
    if did.name == "take_snapshot" and read.name == "load_with_snapshot" and aspect is Aspect.EVENTS:
        return ("SNP-2", *elsewhere)
    return (*_ACCEPTED_TRACE.get((did.name, aspect), ("ISO-3",)), *elsewhere)


_REFUSED_TRACE: dict[tuple[str, Aspect | None], tuple[str, ...]] = {
    ("append", Aspect.EVENTS): ("APP-9",),
    ("append", Aspect.EXISTENCE): ("APP-5",),
    ("append", None): ("APP-9",),
    ("start_run", None): ("RUN-2",),
    ("start_run", Aspect.EXISTENCE): ("TRM-3", "RUN-2"),
    ("suspend", None): ("FIN-3",),
    ("complete", None): ("FIN-3",),
    ("fail", None): ("FIN-3",),
    ("suspend", Aspect.EXISTENCE): ("FIN-4",),
    ("complete", Aspect.EXISTENCE): ("FIN-4",),
    ("fail", Aspect.EXISTENCE): ("FIN-4",),
    ("take_snapshot", Aspect.EXISTENCE): ("SNP-6",),
    ("take_snapshot", Aspect.SNAPSHOT): ("SNP-5",),
}
"""What a refused operation broke when a read shows a trace of it."""

_REFUSED_LEAVES: dict[str, tuple[str, ...]] = {
    "append": ("APP-9",),
    "start_run": ("RUN-2",),
    "acquire": ("LEA-2",),
    "renew": ("LEA-5",),
    "release": ("LEA-7",),
    "take_snapshot": ("SNP-5",),
}
"""What a refused operation broke when a later call was accepted or refused because of it."""

_ACCEPTED_TRACE: dict[tuple[str, Aspect], tuple[str, ...]] = {
    ("start_run", Aspect.EXISTENCE): ("RUN-1",),
    ("start_run", Aspect.STATE): ("RUN-1",),
    ("start_run", Aspect.RECORD): ("RUN-1", "TRM-1"),
    ("start_run", Aspect.EVENTS): ("RUN-1",),
    ("append", Aspect.EVENTS): ("APP-1", "LOD-1"),
    ("append", Aspect.STATE): ("APP-8",),
    ("append", Aspect.RECORD): ("APP-8",),
    ("append", Aspect.EXISTENCE): ("APP-8",),
    ("append", Aspect.SNAPSHOT): ("APP-8",),
    ("suspend", Aspect.STATE): ("FIN-1",),
    ("suspend", Aspect.RECORD): ("FIN-1",),
    ("suspend", Aspect.EVENTS): ("FIN-5",),
    ("suspend", Aspect.SNAPSHOT): ("FIN-5",),
    ("complete", Aspect.STATE): ("FIN-2",),
    ("complete", Aspect.RECORD): ("FIN-2", "FIN-6"),
    ("complete", Aspect.EVENTS): ("FIN-5",),
    ("complete", Aspect.SNAPSHOT): ("FIN-5",),
    ("fail", Aspect.STATE): ("FIN-2",),
    ("fail", Aspect.RECORD): ("FIN-2", "FIN-6"),
    ("fail", Aspect.EVENTS): ("FIN-5",),
    ("fail", Aspect.SNAPSHOT): ("FIN-5",),
    ("take_snapshot", Aspect.EVENTS): ("SNP-4",),
    ("take_snapshot", Aspect.SNAPSHOT): ("SNP-2", "SNP-8"),
}
"""What an accepted operation broke when the next read is wrong."""
