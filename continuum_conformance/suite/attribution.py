"""Which clause an impossible outcome breaks, told from what went before.

The model says that a read is wrong; what did the damage is usually the operation before it. A read that shows
the trace of a refused append breaks APP-9; one that shows a state changed by an append breaks APP-8.
"""

from __future__ import annotations

from collections.abc import Sequence

from continuum_conformance.model import READS, Aspect, Impossible, Kind
from continuum_conformance.suite.violation import Step

__all__ = ["attribute"]

LEASE_OPERATIONS = frozenset({"acquire", "renew", "release"})
FINISHES = frozenset({"complete", "fail"})


def attribute(found: Impossible, step: Step, before: Sequence[Step]) -> tuple[str, ...]:
    """The clauses that an impossible outcome breaks, the closest first.

    Args:
        found: what the model said.
        step: the call whose outcome is impossible.
        before: the calls before it, oldest first.
    """
    operation = step.operation
    if found.aspect in (Aspect.REFUSED, Aspect.WRONG_ERROR) and _after_error(step, before):
        return tuple(dict.fromkeys(("ATM-3", *found.clauses)))
    if operation.name not in READS or found.aspect is Aspect.ANSWER:
        return found.clauses
    suspect = _suspect(operation.key, before)
    if suspect is None:
        return found.clauses
    return _blame(found.aspect, step, suspect)


def _after_error(step: Step, before: Sequence[Step]) -> bool:
    """Whether a call that should have answered failed with no contract error, right after another had failed."""
    if step.outcome.kind is not Kind.RAW and step.outcome.error != "JournalUnavailable":
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
