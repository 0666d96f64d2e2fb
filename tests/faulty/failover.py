"""Failover over PostgreSQL: adapters that survive a crash of their server, but not the loss of it to a standby."""

from __future__ import annotations

import contextlib

import psycopg

from continuum_conformance.contract import JournalUnavailable
from tests.bank import Bank
from tests.faulty.postgres import Harness, Journal

SHOWS_IN = "a failover"

_bank = Bank(__name__, Harness)
WRONG = _bank.WRONG
SEEN_IN = _bank.SEEN_IN
RIGHT = _bank.RIGHT
wrong = _bank.wrong
right = _bank.right


@right
class AsksToTryAgain(Journal):
    """Who finds the connection gone is told that nothing happened, and that there is another one now."""

    def _connected(self):
        gone = self._connection.closed
        connection = super()._connected()
        if gone:
            raise JournalUnavailable("the connection was lost, and made again: try again")
        return connection


@wrong("DUR-3")
class CommitsLocally(Journal):
    """Faster: a commit is on this server's disk, and does not wait for the standby."""

    settings = "SET synchronous_commit = local"


class _Locally(Journal):
    """Some of its transactions do not wait for the standby."""

    @contextlib.contextmanager
    def _without_waiting(self):
        with self._mutex:
            self._connected().execute("SET synchronous_commit = local")
            try:
                yield
            finally:
                with contextlib.suppress(psycopg.Error):
                    self._connection.execute("SET synchronous_commit = on")


@wrong("DUR-5", "DUR-3")
class LeasesLocally(_Locally):
    """A lease is only for an hour, so its commit does not wait: the next owner gets the same token."""

    def _acquire(self, key, owner, ttl):
        with self._without_waiting():
            return super()._acquire(key, owner, ttl)


@wrong("DUR-3")
class SuspendsLocally(_Locally):
    """A suspended run can be suspended again, so its commit does not wait."""

    def _transition(self, key, token, state, result, error):
        with self._without_waiting() if state == "suspended" else contextlib.nullcontext():
            super()._transition(key, token, state, result, error)


class StandbyHarness(Harness):
    def open(self):
        return self.journal_class(self.dsn, self.standby_dsn)

    standby_dsn = None


@wrong("APP-10", harness=StandbyHarness)
class ReadsFromTheStandby(Journal):
    """The primary is for those who write."""

    def __init__(self, dsn, standby):
        super().__init__(dsn)
        self._standby = psycopg.connect(standby, autocommit=True) if standby else None

    @contextlib.contextmanager
    def _lost(self):
        with self._mutex, super()._lost():
            primary = self._connection
            self._connection = self._standby or primary
            try:
                yield
            finally:
                self._connection = primary

    def close(self):
        super().close()
        if self._standby is not None:
            self._standby.close()
