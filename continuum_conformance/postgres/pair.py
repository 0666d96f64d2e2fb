"""Two private servers, the second a standby of the first, and a gate before them: the address that moves.

    pair = Pair(installation)
    adapter = connect(pair.gate.dsn_for("A"))
    pair.replicate(synchronous=True)
    pair.fail_over()        # the primary is killed, the standby promoted, and the gate stands before that one

**By conditions, not by luck.** Replication is held by stopping the process of the primary that sends the log
(SIGSTOP): what is committed from then on is on the primary alone for certain. A commit that waits for the standby is
seen waiting (`pg_stat_activity`). That synchronous replication is in effect is shown by a commit of our own, which
must wait while replication is held.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .binaries import Installation
from .databases import connect
from .gate import Gate
from .private_server import PrivateServer
from .server import PostgresUnavailable

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

__all__ = ["Pair"]

PATIENCE_SECONDS = 60.0
"""How long replication, or a promotion, may take before something must be wrong with the servers."""

SETTINGS: Mapping[str, str] = {
    "wal_level": "replica",
    "hot_standby": "on",
    "max_wal_senders": "10",
    "wal_keep_size": "128MB",
    "wal_sender_timeout": "0",  # its sender may be held for long on a busy machine
    "wal_receiver_timeout": "0",
    "synchronous_commit": "on",
    "synchronous_standby_names": "",
}

OWN_COMMIT = "SELECT pg_logical_emit_message(true, 'continuum', '')"
"""A transaction that changes no table, and whose commit waits for the standby as any other does."""


class Pair:
    """A primary and a standby of the kit's own.

    Args:
        installation: the programs of both.

    Attributes:
        gate: before the server that is the primary.
        failovers: how often a standby was promoted.

    Raises:
        PostgresUnavailable: a server cannot be started.
    """

    def __init__(self, installation: Installation) -> None:
        self._primary = PrivateServer(installation, SETTINGS)
        self._standby: PrivateServer | None = None
        self._control: Connection[TupleRow] | None = None
        self.gate = Gate(self._primary.dsn)
        self.failovers = 0

    @property
    def description(self) -> str:
        """One line for people."""
        return self._primary.description

    @property
    def standby_dsn(self) -> str:
        """The URI of the standby, which may be read from. Only between `replicate` and `fail_over`."""
        return self._replica.dsn

    def replicate(self, *, synchronous: bool) -> None:
        """See to it that there is a standby, that it has everything, and whether commits wait for it."""
        if self._standby is None:
            self._standby = self._primary.standby()
        names = "*" if synchronous else ""
        # A setting of the server's file cannot be a parameter; it is one of these two.
        self._ask(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self._ask("SELECT pg_reload_conf()")
        wanted = {"sync", "quorum"} if synchronous else {"async"}
        self._until(lambda: self._row("SELECT sync_state FROM pg_stat_replication")[0] in wanted, "replicate")
        self._until(self._caught_up, "follow")
        if synchronous:
            self._until(self._holds_commits, "be waited for")

    def _caught_up(self) -> bool:
        return bool(self._row("SELECT replay_lsn >= pg_current_wal_lsn() FROM pg_stat_replication")[0])

    def _holds_commits(self) -> bool:
        """Whether a commit of our own waits while replication is held."""
        with connect(self._primary.dsn) as connection, self.lagging():
            own = threading.Thread(target=connection.execute, args=(OWN_COMMIT,), daemon=True)
            own.start()
            while own.is_alive() and not self.waits(connection.info.backend_pid):
                time.sleep(0.002)  # between two looks
            waited = own.is_alive()
        own.join()
        return waited

    @contextmanager
    def lagging(self) -> Iterator[None]:
        """While this lasts the standby gets nothing of what is committed."""
        primary, sender = self._primary, int(self._row("SELECT pid FROM pg_stat_replication")[0])
        primary.hold(sender)
        try:
            yield
        finally:
            if primary is self._primary:
                primary.let_go(sender)

    @contextmanager
    def replaying_nothing(self) -> Iterator[None]:
        """While this lasts the standby keeps what is committed, and shows none of it to those who read there."""
        with connect(self.standby_dsn) as replica:
            replica.execute("SELECT pg_wal_replay_pause()")
            state = "SELECT pg_get_wal_replay_pause_state()"
            if replica.info.server_version < 140000:
                state = "SELECT CASE WHEN pg_is_wal_replay_paused() THEN 'paused' END"
            self._until(lambda: replica.execute(state).fetchone() == ("paused",), "pause")
            try:
                yield
            finally:
                replica.execute("SELECT pg_wal_replay_resume()")

    def waits(self, process: int | None = None) -> bool:
        """Whether a commit waits for the standby now: anybody's, or that of one server process."""
        query = (
            "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND (%s::int IS NULL OR pid = %s)"
        )
        return bool(self._connected().execute(query, (process, process)).fetchall())

    def fail_over(self) -> None:
        """Kill the primary (SIGKILL), promote the standby, and move the address there."""
        lost, self._primary, self._standby = self._primary, self._replica, None
        self._disconnect()
        lost.kill()
        with connect(self._primary.dsn) as connection:
            promoted = connection.execute("SELECT pg_promote(true, %s)", (int(PATIENCE_SECONDS),)).fetchone()
        if promoted != (True,):
            raise PostgresUnavailable(f"the standby was not promoted within {PATIENCE_SECONDS:g} s")
        self.gate.move(self._primary.dsn)
        self.failovers += 1
        lost.close()

    def close(self) -> None:
        """End both servers, and everything that is connected to them."""
        self._disconnect()
        self.gate.close()
        if self._standby is not None:
            self._standby.close()
        self._primary.close()

    @property
    def _replica(self) -> PrivateServer:
        if self._standby is None:
            raise LookupError("there is no standby before `replicate`")
        return self._standby

    def _connected(self) -> Connection[TupleRow]:
        if self._control is None:
            self._control = connect(self._primary.dsn)
        return self._control

    def _disconnect(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def _ask(self, query: str) -> None:
        self._connected().execute(query.encode())

    def _row(self, query: str) -> tuple[Any, ...]:
        """The only row of an answer; one with None where there is none."""
        return self._connected().execute(query.encode()).fetchone() or (None,)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise PostgresUnavailable(f"the standby does not {what} after {PATIENCE_SECONDS:g} s")
            time.sleep(0.002)  # between two looks
