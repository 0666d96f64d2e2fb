"""The scenarios: which operations race, from which situation, under which tokens.

A scenario arranges a situation, lets two or three workers act at once, and reads everything afterwards. A worker
that acquires, releases or finishes reads right behind it: what a later read shows of a write that it shut out
cannot be ordered before it any more (FEN-5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any

from continuum_conformance.contract.records import RunState
from continuum_conformance.harness.reach import IN_PYTHON, Reach

__all__ = ["CLASSICS", "SITUATIONS", "Act", "Scenario", "Situation", "acts", "all_pairs", "pairs", "usable"]


@dataclass(frozen=True, slots=True)
class Act:
    """One operation of a worker, with its token or lease told by whose it is.

    Attributes:
        op: the operation; ``append_seq`` for an append with an explicit seq, ``take_other_snapshot`` for a snapshot
            that differs, ``acquire_again`` for an acquire by the owner of the present lease.
        token: ``current`` (the present lease's), ``old`` (its predecessor's), ``none``, ``own`` (of the lease
            that this worker acquired just before), or ``-`` where the operation takes none.
        run: 0 for the scenario's run, 1 for another one.
        variant: tells apart two workers that do the same.
    """

    op: str
    token: str = "-"
    run: int = 0
    ttl: float = 3600.0

    @property
    def operation(self) -> str:
        """The journal's operation that it is."""
        return _OPERATIONS.get(self.op, self.op)

    def __str__(self) -> str:
        token = "" if self.token == "-" else f" ({self.token})"
        other = " of another run" if self.run else ""
        ttl = " for 0 s" if self.op in ("acquire", "renew") and self.ttl == 0 else ""
        return f"{self.op}{ttl}{token}{other}"


_OPERATIONS = {"append_seq": "append", "take_other_snapshot": "take_snapshot", "acquire_again": "acquire"}


@dataclass(frozen=True, slots=True)
class Situation:
    """Where the scenario's run starts from."""

    name: str
    exists: bool = True
    lease: str | None = None
    """None, ``live`` or ``expired``; a leased run has had a holder before, whose token is the old one."""
    state: RunState = RunState.RUNNING
    snapshot: bool = False
    events: int = 1


SITUATIONS: dict[str, Situation] = {
    situation.name: situation
    for situation in (
        Situation("expired", lease="expired"),
        Situation("unleased"),
        Situation("leased", lease="live"),
        Situation("absent", exists=False, events=0),
        Situation("suspended", lease="live", state=RunState.SUSPENDED),
        Situation("with snapshot", snapshot=True, events=2),
        Situation("terminal", state=RunState.COMPLETED),
    )
}
"""The situations, the likeliest to show a race first."""


@dataclass(frozen=True)
class Scenario:
    """Workers that act at once, from a situation."""

    name: str
    situation: Situation
    workers: Mapping[str, tuple[Act, ...]]
    clauses: tuple[str, ...] = ()
    one_handle: bool = False
    """Whether all workers use one handle rather than one each."""
    classic: bool = field(default=False, compare=False)

    def as_data(self) -> dict[str, Any]:
        """The scenario as JSON data, for a replay file."""
        workers = {
            name: [[a.op, a.token, a.run, a.ttl] for a in acts_] for name, acts_ in self.workers.items()
        }
        return {
            "scenario": self.name,
            "situation": self.situation.name,
            "workers": workers,
            "clauses": list(self.clauses),
            "one_handle": self.one_handle,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Scenario:
        """The scenario that `as_data` wrote. Raises ``ValueError`` for anything else."""
        try:
            workers = {
                str(name): tuple(
                    Act(str(op), str(token), int(run), float(ttl)) for op, token, run, ttl in acts_
                )
                for name, acts_ in data["workers"].items()
            }
            situation = SITUATIONS[data["situation"]]
            clauses = tuple(map(str, data["clauses"]))
            return cls(str(data["scenario"]), situation, workers, clauses, bool(data.get("one_handle")))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"malformed scenario: {error!r}") from error


READS = (Act("load"), Act("get_run"))


def acts(capabilities: frozenset[str], situation: Situation) -> Iterator[Act]:
    """The operations that a worker may race with in a situation, under each kind of token that exists there."""
    tokens = ("current", "old", "none") if situation.lease and "leases" in capabilities else ("none",)
    yield Act("start_run")
    for op in ("append", "append_seq", "complete", "fail", "suspend", "load_with_snapshot"):
        for token in tokens:
            yield Act(op, token)
    if "leases" in capabilities:
        yield Act("acquire")
        yield Act("acquire", ttl=0)
        if situation.lease:
            for token in ("current", "old"):
                yield Act("renew", token)
                yield Act("release", token)
            yield Act("renew", "current", ttl=0)
    if "snapshots" in capabilities:
        yield Act("take_snapshot")
        yield Act("take_other_snapshot")
    yield from READS


def pairs(capabilities: frozenset[str]) -> Iterator[tuple[Situation, Act, Act]]:
    """All unordered pairs of operations from every situation that the adapter can be in."""
    for situation in SITUATIONS.values():
        if situation.lease and "leases" not in capabilities:
            continue
        if situation.snapshot and "snapshots" not in capabilities:
            continue
        for first, second in combinations_with_replacement(acts(capabilities, situation), 2):
            if not (first in READS and second in READS):
                yield situation, first, second


def all_pairs(capabilities: frozenset[str]) -> Iterator[Scenario]:
    """The pairs as scenarios."""
    for situation, first, second in pairs(capabilities):
        name = f"{first} against {second}, {situation.name}"
        yield Scenario(name, situation, {"A": (first,), "B": (second,)})


def _classic(
    name: str, situation: str, *clauses: str, one_handle: bool = False, **workers: tuple[Act, ...]
) -> Scenario:
    return Scenario(name, SITUATIONS[situation], workers, clauses, one_handle, classic=True)


ACQUIRE, LOAD = Act("acquire"), Act("load")

CLASSICS: tuple[Scenario, ...] = (
    _classic(
        "zombie against takeover",
        "expired",
        "FEN-5",
        "CON-1",
        A=(Act("append", "current"),),
        B=(ACQUIRE, Act("append", "own"), LOAD),
    ),
    _classic(
        "zombie against takeover and read",
        "expired",
        "FEN-5",
        "CON-1",
        A=(Act("append", "current"),),
        B=(ACQUIRE, LOAD),
    ),
    _classic(
        "second write of a zombie",
        "expired",
        "FEN-5",
        "CON-1",
        A=(Act("append", "current"), Act("append", "current")),
        B=(ACQUIRE, LOAD),
    ),
    _classic(
        "fenced read against takeover",
        "expired",
        "FEN-5",
        "CON-1",
        A=(Act("load_with_snapshot", "current"),),
        B=(ACQUIRE, Act("append", "own")),
    ),
    _classic(
        "zombie finishes during takeover",
        "expired",
        "FEN-5",
        "CON-1",
        A=(Act("complete", "current"),),
        B=(ACQUIRE, Act("get_run"), Act("append", "own")),
    ),
    _classic(
        "zombie suspends during takeover",
        "expired",
        "FEN-5",
        "CON-1",
        A=(Act("suspend", "current"),),
        B=(ACQUIRE, Act("get_run")),
    ),
    _classic(
        "two thieves",
        "expired",
        "CON-2",
        "CON-1",
        A=(ACQUIRE, Act("append", "own")),
        B=(ACQUIRE, Act("append", "own")),
    ),
    _classic(
        "late release against takeover",
        "expired",
        "FEN-5",
        "LEA-7",
        A=(Act("release", "current"),),
        B=(ACQUIRE, Act("append", "own")),
    ),
    _classic(
        "heartbeat against takeover",
        "expired",
        "CON-1",
        "LEA-5",
        A=(Act("renew", "current"), Act("append", "current")),
        B=(ACQUIRE, Act("append", "own")),
    ),
    _classic(
        "late release against its owner's return",
        "expired",
        "FEN-5",
        "LEA-7",
        A=(Act("release", "current"),),
        B=(Act("acquire_again"), Act("append", "own")),
    ),
    _classic(
        "heartbeat against its owner's return",
        "expired",
        "LEA-5",
        "CON-1",
        A=(Act("renew", "current"),),
        B=(Act("acquire_again"), LOAD),
    ),
    _classic(
        "two starts",
        "absent",
        "CON-2",
        "CON-1",
        A=(Act("start_run"), Act("append", "none")),
        B=(Act("start_run"), Act("append", "none")),
    ),
    _classic(
        "two runs are the first of an instance",
        "absent",
        "CON-1",
        "ISO-2",
        A=(Act("start_run"),),
        B=(Act("start_run", run=1), Act("load", run=1)),
    ),
    _classic(
        "two runs are the first of an instance, one handle",
        "absent",
        "CON-1",
        "ISO-2",
        one_handle=True,
        A=(Act("start_run"),),
        B=(Act("start_run", run=1), Act("load", run=1)),
    ),
    _classic(
        "two appends",
        "unleased",
        "CON-3",
        "CON-1",
        A=(Act("append", "none"), Act("append", "none")),
        B=(Act("append", "none"), LOAD),
    ),
    _classic(
        "two appends through one handle",
        "unleased",
        "CON-3",
        "CON-1",
        one_handle=True,
        A=(Act("append", "none"),),
        B=(Act("append", "none"), LOAD),
    ),
    _classic(
        "a look beside an append, one handle",
        "unleased",
        "CON-1",
        "CON-4",
        one_handle=True,
        A=(Act("append", "none"),),
        B=(LOAD,),
    ),
    _classic(
        "appends to two runs",
        "unleased",
        "CON-3",
        "ISO-2",
        A=(Act("append", "none"), Act("append", "none")),
        B=(Act("append", "none", 1),),
    ),
    _classic(
        "two appends of one seq",
        "unleased",
        "CON-3",
        "APP-2",
        A=(Act("append_seq", "none"),),
        B=(Act("append_seq", "none"), LOAD),
    ),
    _classic(
        "append against finish",
        "unleased",
        "FEN-5",
        "APP-6",
        A=(Act("append", "none"),),
        B=(Act("complete", "none"), LOAD),
    ),
    _classic(
        "two finishes",
        "unleased",
        "CON-2",
        "CON-1",
        A=(Act("complete", "none"), Act("get_run")),
        B=(Act("fail", "none"), Act("get_run")),
    ),
    _classic(
        "a look while a run finishes",
        "unleased",
        "CON-1",
        "FIN-2",
        A=(Act("get_run"),),
        B=(Act("complete", "none"),),
    ),
    _classic(
        "release against renew",
        "leased",
        "CON-1",
        "LEA-5",
        A=(Act("release", "current"), Act("append", "none")),
        B=(Act("renew", "current"), Act("append", "current")),
    ),
    _classic(
        "snapshot against append",
        "with snapshot",
        "SNP-10",
        "CON-1",
        A=(Act("take_snapshot"), Act("append", "none")),
        B=(Act("load_with_snapshot", "none"),),
    ),
    _classic(
        "two snapshots of one seq",
        "unleased",
        "SNP-5",
        "CON-1",
        A=(Act("take_snapshot"), Act("load_with_snapshot", "none")),
        B=(Act("take_other_snapshot"), Act("load_with_snapshot", "none")),
    ),
    _classic(
        "zombie, thief and newcomer",
        "expired",
        "FEN-5",
        "CON-1",
        A=(Act("append", "current"),),
        B=(Act("acquire", ttl=0), Act("append", "own")),
        C=(ACQUIRE, LOAD),
    ),
    _classic(
        "heartbeat, takeover and finish",
        "expired",
        "CON-1",
        "FEN-5",
        A=(Act("renew", "current"),),
        B=(ACQUIRE, LOAD),
        C=(Act("complete", "current"),),
    ),
)
"""Scenarios that real systems got wrong, in the order in which they are likeliest to show it."""


def usable(scenario: Scenario, capabilities: frozenset[str], reach: Reach = IN_PYTHON) -> bool:
    """Whether an adapter with these capabilities, within this reach of the kit, can be in the scenario."""
    if scenario.one_handle and reach.one_handle:
        return False
    ops = {act.operation for acts_ in scenario.workers.values() for act in acts_}
    if "leases" not in capabilities and (scenario.situation.lease or ops & {"acquire", "renew", "release"}):
        return False
    needs_snapshots = scenario.situation.snapshot or "take_snapshot" in ops
    return "snapshots" in capabilities or not needs_snapshots
