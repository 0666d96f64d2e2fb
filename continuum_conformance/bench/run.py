"""A whole measurement: one adapter, or two turn by turn, part after part, each part in a store of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random

from continuum_conformance.bench.figures import WAYS, Bench, Cost, LeftOut, Limit, Measured
from continuum_conformance.bench.growth import Budget, Tick, grow_history, grow_store
from continuum_conformance.bench.judging import findings
from continuum_conformance.bench.pace import Length, measure_pace
from continuum_conformance.bench.size import measure_size
from continuum_conformance.bench.turns import Contender
from continuum_conformance.bench.work import Desk, needs, work_for
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.harness import Subject
from continuum_conformance.suite.stores import Stores

__all__ = ["PARTS", "Plan", "carry_out"]

PARTS = ("pace", "growth", "bytes", "limits")
"""What is measured, in this order."""


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        parts: of `PARTS`.
        operations: whose pace is measured.
        length: how long each figure is measured.
        clients: how many there are where there are several.
        handles: how many handles they share.
        budget: seconds for growth, of each adapter.
        seed: of names, events and the order of turns.
    """

    parts: Sequence[str] = PARTS
    operations: Sequence[str] = tuple(OPERATIONS)
    length: Length = Length(0.5)  # noqa: RUF009 - it is frozen
    clients: int = 8
    handles: int = 1
    budget: float = 120.0
    seed: int = 0


@dataclass
class _Entry:
    """An adapter in one part: opened anew, in a store of its own."""

    measured: Measured
    load: Callable[[], Subject]
    stores: Stores
    plan: Plan

    def subject(self) -> Subject:
        """The adapter, with a store that nobody has used."""
        subject = self.load()
        self.measured.store = self.stores.provide(subject) or "of its own"
        self.measured.snapshots = "snapshots" in subject.capabilities
        return subject

    def opened(self, subject: Subject) -> Contender:
        """Its handles."""
        contender = Contender(subject, clients=self.plan.clients, handles=self.plan.handles)
        self.measured.form = "async" if contender.is_async else "sync"
        return contender

    @contextmanager
    def contender(self) -> Iterator[tuple[Subject, Contender, Desk]]:
        """All three in a new store; the handles are closed in the end."""
        subject = self.subject()
        contender = self.opened(subject)
        try:
            yield subject, contender, Desk(subject.capabilities, self.plan.seed)
        finally:
            contender.close()


def carry_out(
    bench: Bench, load: Sequence[Callable[[], Subject]], stores: Stores, plan: Plan, tick: Tick
) -> None:
    """Measure, and fill in the figures as they come.

    Args:
        bench: with a `Measured` for each adapter.
        load: of each adapter, what loads it anew.
        stores: where stores come from.
        plan: what to measure.
        tick: told what is being done, now and then; what it raises ends the measurement.

    Raises:
        BenchError: an operation failed.
        HarnessError: an adapter cannot be opened or closed.
        PostgresUnavailable: there is no server.
    """
    entries = [_Entry(of, each, stores, plan) for of, each in zip(bench.measured, load, strict=True)]
    parts = {"pace": _paces, "growth": _growth, "bytes": _bytes, "limits": _limits}
    began = time.monotonic()
    try:
        for name in plan.parts:
            parts[name](entries, plan, tick)
    finally:
        bench.seconds = time.monotonic() - began
        for measured in bench.measured:
            measured.findings[:] = findings(measured)


def _paces(entries: Sequence[_Entry], plan: Plan, tick: Tick) -> None:
    random = Random(plan.seed)
    with ExitStack() as kept:
        opened = [kept.enter_context(entry.contender()) for entry in entries]
        for operation in plan.operations:
            able = []
            for entry, (subject, contender, desk) in zip(entries, opened, strict=True):
                if needs(operation) in ("core", *subject.capabilities):
                    able.append((entry, contender, desk))
                else:
                    entry.measured.left_out.append(
                        LeftOut(operation, f"`{needs(operation)}` is not declared")
                    )
            for way in WAYS:
                works = [
                    (entry, contender, work_for(operation, way, desk)) for entry, contender, desk in able
                ]
                turns = [(contender, work) for _, contender, work in works if work is not None]
                if not turns:
                    continue
                tick(f"{operation}, {way}")
                clients = 1 if way == "alone" else plan.clients
                paces = measure_pace(turns, way, clients, plan.length, random.randrange(len(turns)))
                for (entry, *_), pace in zip(works, paces, strict=True):
                    entry.measured.paces.append(pace)


def _growth(entries: Sequence[_Entry], plan: Plan, tick: Tick) -> None:
    """Size by size where there are two, so that neighbours in time are of the same size."""
    for histories in (True, False):
        with ExitStack() as kept:
            grown: list[tuple[_Entry, Iterator[Cost | LeftOut]]] = []
            for entry in entries:
                _, contender, desk = kept.enter_context(entry.contender())
                budget = Budget(plan.budget / 2 * len(entries))
                if histories:
                    found = grow_history(contender, desk, plan.clients, budget, tick)
                else:
                    _, beside, _ = kept.enter_context(entry.contender())
                    found = grow_store(contender, beside, desk, plan.clients, budget, plan.seed, tick)
                grown.append((entry, found))
            while grown:
                for entry, found in list(grown):
                    size = _next_size(found, entry.measured)
                    if not size:
                        grown.remove((entry, found))


def _next_size(found: Iterator[Cost | LeftOut], measured: Measured) -> bool:
    """Take the costs of one size; whether there may be another."""
    for figure in found:
        if isinstance(figure, LeftOut):
            measured.left_out.append(figure)
            return False
        measured.costs.append(figure)
        if figure.operation == "append":  # the last of each size
            return True
    return False


def _bytes(entries: Sequence[_Entry], plan: Plan, tick: Tick) -> None:
    for entry in entries:
        tick("bytes per event")
        subject = entry.subject()
        desk = Desk(subject.capabilities, plan.seed)
        found = measure_size(subject, partial(entry.opened, subject), desk, plan.clients, tick)
        if isinstance(found, LeftOut):
            entry.measured.left_out.append(found)
        else:
            entry.measured.stored = found


def _limits(entries: Sequence[_Entry], plan: Plan, tick: Tick) -> None:
    for entry in entries:
        if "postgres" not in entry.load().needs:
            why = "it has no PostgreSQL of the kit's to be compared with"
            entry.measured.left_out.append(LeftOut("the limits", why))
            continue
        from continuum_conformance.bench.limits import measure_limits  # psycopg may be missing elsewhere

        with entry.contender() as (subject, contender, desk):
            clients = (1, plan.clients)
            figures = measure_limits(subject, entry.load(), contender, desk, clients, plan.length, tick)
            for found in figures:
                if isinstance(found, Limit):
                    entry.measured.limits.append(found)
                else:
                    entry.measured.left_out.append(found)
