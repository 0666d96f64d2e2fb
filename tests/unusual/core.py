"""A bare journal class that says that it has no capabilities, though it has all the methods: they refuse."""

from __future__ import annotations

from tests.unusual.minimal import MinimalJournal


class CoreJournal(MinimalJournal):
    capabilities: frozenset[str] = frozenset()

    def acquire(self, *_arguments):
        raise NotImplementedError("no leases")

    renew = release = acquire

    def take_snapshot(self, *_arguments):
        raise NotImplementedError("no snapshots")
