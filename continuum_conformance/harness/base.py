"""What the author of an adapter writes: a harness of about ten lines.

``Harness`` is an optional base; a class of your own with the same names will do::

    class MyHarness:
        capabilities = {"leases", "snapshots", "durable"}
        needs = "postgres"

        def open(self):
            return MyJournal(self.dsn)
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from continuum_conformance.contract.errors import JournalError

__all__ = ["Harness"]


class Harness:
    """Opens journals for the kit. Optional: duck typing suffices.

    A subclass may also define ``close(journal)`` (without it nothing is closed), and ``kill_server()`` and
    ``start_server()``, which end the store's own server as a crash would (SIGKILL) and start it again on the same
    data, and come back when it accepts connections (``crash_safe``). ``open`` and ``close`` may be coroutines. Several handles opened from one harness share
    one store; tests isolate themselves by fresh names, so nothing needs a reset.
    """

    capabilities: Collection[str] = frozenset()
    """The capabilities that the adapter declares (see ``contract.capabilities``). Declared means tested."""

    needs: str | Collection[str] = ()
    """What the kit provides before ``open``: ``"postgres"`` sets ``dsn``, ``"directory"`` sets ``directory``."""

    tables: Collection[str] = ()
    """The adapter's PostgreSQL tables, on which the kit may put triggers to park sessions inside a statement."""

    dsn: str | None = None
    """A TCP ``postgresql://`` URI, set anew before each ``open``."""

    standby_dsn: str | None = None
    """The URI of a standby, under `check --failover`, for an adapter that reads from one. None elsewhere."""

    directory: str | None = None
    """A directory of the kit's, removed afterwards."""

    clock: Callable[[], float] | None = None
    """Where journals accept a clock for their leases: what ``open`` hands them, a function that gives seconds.
    `simulate` puts its world's in its place."""

    def open(self) -> Any:
        """A journal over the one store of this harness."""
        raise NotImplementedError(f"{type(self).__name__} must define open()")

    def translate(self, exception: BaseException) -> JournalError | None:  # noqa: ARG002
        """The contract error that an exception of the adapter's own stands for, or None when it is none."""
        return None
