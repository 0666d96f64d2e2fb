"""How many bytes an event takes in the store: the store's growth between two moments, divided by the events.

So what a store takes when it is empty does not count. Handles are closed at both moments: an embedded store keeps a
log of what it has not put in its place yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from continuum_conformance.bench.figures import LeftOut, Stored
from continuum_conformance.bench.growth import Budget, Tick, filled
from continuum_conformance.bench.turns import BenchError, Contender
from continuum_conformance.bench.work import Desk
from continuum_conformance.harness import Subject
from continuum_conformance.postgres.databases import connect

__all__ = ["measure_size"]

RUNS = 10
FIRST, MORE = 1_000, 10_000
"""Events that are there before, and that are added."""

PATIENCE = 20.0
"""Seconds for adding them: fewer are added where that takes longer."""


def measure_size(
    subject: Subject, opened: Callable[[], Contender], desk: Desk, clients: int, tick: Tick
) -> Stored | LeftOut:
    """The bytes that an event takes in the store.

    Args:
        subject: the adapter, its store provided.
        opened: opens it.
        desk: names and events.
        clients: how many append at once.
        tick: told what is being done.

    Raises:
        BenchError: a call failed.
        HarnessError: the adapter cannot be opened or closed.
    """
    how = _scale(subject)
    if how is None:
        return LeftOut(
            "bytes per event", "the kit knows no store of this adapter: it needs none from the kit"
        )
    weigh, what = how
    runs = [desk.run_id() for _ in range(RUNS)]
    contender = opened()
    try:
        patience = Budget(PATIENCE)
        starts = [(desk.instance, run_id, "checkout", None) for run_id in runs]
        filled(contender, "start_run", starts, 1, patience, tick)
        filled(contender, "append", _appends(desk, runs, FIRST), clients, patience, tick)
    finally:
        contender.close()
    before = weigh()
    contender = opened()
    try:
        events = filled(contender, "append", _appends(desk, runs, MORE), clients, Budget(PATIENCE), tick)
    finally:
        contender.close()
    return Stored((weigh() - before) / events, what, events, desk.event_size)


def _appends(desk: Desk, runs: Sequence[str], count: int) -> list[tuple[object, ...]]:
    return [desk.append(runs[number % len(runs)], None, number) for number in range(count)]


def _scale(subject: Subject) -> tuple[Callable[[], int], str] | None:
    """What weighs the store, in bytes, and what it weighs."""
    if "postgres" in subject.needs and subject.dsn is not None:
        dsn, tables = subject.dsn, list(getattr(subject.harness, "tables", ()))
        if tables:
            return lambda: _of_tables(dsn, tables), "the adapter's tables with their indexes"
        return lambda: _of_database(dsn), "the whole database"
    if "directory" in subject.needs and subject.directory is not None:
        folder = Path(subject.directory)
        return lambda: sum(
            file.stat().st_size for file in folder.rglob("*") if file.is_file()
        ), "the files in its directory"
    return None


def _of_tables(dsn: str, tables: Sequence[str]) -> int:
    with connect(dsn) as connection:
        query = "SELECT pg_total_relation_size(to_regclass(%s))"
        sizes = {table: (connection.execute(query, (table,)).fetchone() or (None,))[0] for table in tables}
    missing = [table for table, size in sizes.items() if size is None]
    if missing:
        raise BenchError(
            f"the harness's `tables` names {', '.join(missing)}, but the database has no such table"
        )
    return sum(sizes.values())


def _of_database(dsn: str) -> int:
    with connect(dsn) as connection:
        found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return int(found[0]) if found else 0
