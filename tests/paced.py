"""Adapters with a clock of their own: what an operation costs is what it looks at, so that no machine is measured.

Each is the in-memory adapter; its clock moves on by one for a call, and by one for each event or run that it touches.
The wrong ones touch more than they need to, each in one way that people really write.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from continuum_adapters.in_memory import InMemoryHarness

from continuum_conformance.contract import JournalUnavailable
from continuum_conformance.contract.journal import OPERATIONS


class Work:
    """Counts what is done, and tells it as a time in seconds."""

    def __init__(self) -> None:
        self.done = 0

    def perf_counter(self) -> float:
        return self.done / 1e6


WORK = Work()


class Paced:
    """A journal that counts what it touches of another."""

    def __init__(self, journal: Any) -> None:
        self._journal = journal
        self._runs: dict[tuple[str, str], int] = {}  # their lengths

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def start_run(self, instance: Any, run_id: str, workflow: str, input: Any) -> None:
        self._journal.start_run(instance, run_id, workflow, input)
        self._runs[instance.name, run_id] = 0

    def append(self, instance: Any, run_id: str, event: Any, lease_token: Any) -> None:
        WORK.done += 10 + self.touched_by_append(instance, run_id)
        self._journal.append(instance, run_id, event, lease_token)
        self._runs[instance.name, run_id] += 1

    def load(self, instance: Any, run_id: str) -> Any:
        found = self._journal.load(instance, run_id)
        WORK.done += 10 + len(found)
        return found

    def load_with_snapshot(self, instance: Any, run_id: str, lease_token: Any) -> Any:
        snapshot, events = self._journal.load_with_snapshot(instance, run_id, lease_token)
        WORK.done += 10 + self.touched_by_tail(instance, run_id, len(events))
        return snapshot, events

    def touched_by_append(self, instance: Any, run_id: str) -> int:
        return 1

    def touched_by_tail(self, instance: Any, run_id: str, tail: int) -> int:
        return tail


class CountsTheHistory(Paced):
    """`SELECT count(*) FROM event`: the next seq is found by looking at all of them."""

    def touched_by_append(self, instance: Any, run_id: str) -> int:
        return self._runs[instance.name, run_id]


class ScansTheRuns(Paced):
    """No index on (instance, run id)."""

    def touched_by_append(self, instance: Any, run_id: str) -> int:
        return len(self._runs)


class LoadsAll(Paced):
    """The tail is cut off in Python, from the whole history."""

    def touched_by_tail(self, instance: Any, run_id: str, tail: int) -> int:
        return self._runs[instance.name, run_id]


class PacedHarness(InMemoryHarness):
    journal: type[Paced] = Paced

    def __init__(self) -> None:
        super().__init__()
        self._one: Paced | None = None

    def open(self) -> Any:
        if self._one is None:
            self._one = self.journal(super().open())
        return self._one


class CountsTheHistoryHarness(PacedHarness):
    journal = CountsTheHistory


class ScansTheRunsHarness(PacedHarness):
    journal = ScansTheRuns


class LoadsAllHarness(PacedHarness):
    journal = LoadsAll


class AsyncHarness(InMemoryHarness):
    """The same as coroutines, which let others go first."""

    def open(self) -> Any:
        journal = super().open()

        def coroutine(name: str) -> Any:
            async def call(self: Any, *arguments: Any) -> Any:
                await asyncio.sleep(0)
                return getattr(journal, name)(*arguments)

            return call

        return type("AsyncJournal", (), {name: coroutine(name) for name in OPERATIONS})()

    def close(self, journal: Any) -> None:
        """There is nothing to close."""


class Plain:
    """Neither leases nor snapshots."""

    capabilities = frozenset({"rich_terms"})

    def __init__(self) -> None:
        self._journal = InMemoryHarness().open()

    def open(self) -> Any:
        names = {*OPERATIONS} - {"take_snapshot", "acquire", "renew", "release"}
        return SimpleNamespace(**{name: getattr(self._journal, name) for name in names})


class BreaksDown(InMemoryHarness):
    """The fourth append and all after it find no store."""

    def open(self) -> Any:
        journal = super().open()
        append, calls = journal.append, []

        def broken(*arguments: Any) -> None:
            calls.append(arguments)
            if len(calls) > 3:
                raise JournalUnavailable("the store is gone")
            append(*arguments)

        journal.append = broken
        return journal
