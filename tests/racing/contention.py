"""Races in PostgreSQL about what is done when a lock is not to be had, and about what sessions do not share."""

from __future__ import annotations

import contextlib

from continuum_adapters.codec import encode
from psycopg import errors as pg

from continuum_conformance.contract import JournalUnavailable, LeaseHeld, RunNotFound, SequenceConflict
from tests.bank import Bank

from .postgres import Harness, Journal

_bank = Bank(__name__, Harness)
WRONG = _bank.WRONG
SEEN_IN = _bank.SEEN_IN
wrong = _bank.wrong


@wrong("CON-1", "CON-3", "CON-2", "FEN-5", "CON-4")
class SkipsLockedRows(Journal):
    """FOR UPDATE SKIP LOCKED, as job queues have it: a run that somebody writes to is taken for none."""

    lock = "FOR UPDATE SKIP LOCKED"


@wrong("CON-1", "CON-2", "CON-4", "FEN-5", "CON-3")
class BusyIsHeld(Journal):
    """A short lock_timeout, and whoever runs into it is told that the lease is held, though nobody holds it."""

    def _acquire(self, key, owner, ttl):
        try:
            return super()._acquire(key, owner, ttl)
        except JournalUnavailable as error:
            if isinstance(error.__cause__, pg.LockNotAvailable):
                raise LeaseHeld("somebody is at it") from None
            raise

    def _row(self, c, key, lock=None):
        if lock is None:
            c.execute("SET LOCAL lock_timeout = '20ms'")
        return super()._row(c, key, lock)


class HashedLock(Journal):
    """Advisory locks, by a number for each run."""

    lock = ""

    def _number(self, key):
        raise NotImplementedError

    def _row(self, c, key, lock=None):
        if lock is None:
            c.execute("SELECT pg_advisory_xact_lock(%s)", (self._number(key),))
        return super()._row(c, key, "")

    def _grant(self, c, key, token, owner, ttl):
        self._settle(c, key)
        return super()._grant(c, key, token, owner, ttl)

    def _extend(self, c, key, held, ttl):
        self._settle(c, key)
        super()._extend(c, key, held, ttl)

    def _settle(self, c, key):
        """Wait for whoever else has locked the row, before the clock is read."""
        c.execute("SELECT 1 FROM run WHERE instance = %s AND id = %s FOR UPDATE", key)


@wrong("FEN-5", "CON-1", "CON-3", "CON-2", "FEN-6")
class HashedByPython(HashedLock):
    """The advisory lock's number is hash() of the key, which is another one in every process (PYTHONHASHSEED)."""

    def _number(self, key):
        return hash(key)


@wrong("LEA-4", "LEA-5", "FEN-6", "CON-1", "CON-2", "FEN-5")
class CachedSequence(Journal):
    """Tokens come from a sequence with a cache: every session has a block of its own, and blocks do not grow in turn."""

    def __init__(self, dsn):
        super().__init__(dsn)
        with self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(4711)")
            self._connection.execute("CREATE SEQUENCE IF NOT EXISTS tokens CACHE 20")

    def _grant(self, c, key, token, owner, ttl):
        (token,) = c.execute("SELECT nextval('tokens')").fetchone()
        return super()._grant(c, key, token, owner, ttl)


@wrong("CON-3", "CON-1", seen_in="https://github.com/lvlup-sw/exarchos/issues/1228")
class LosesTheSecond(Journal):
    """The next seq by max(seq), ON CONFLICT DO NOTHING so that nobody sees an error, and nobody counts the rows."""

    def _append(self, key, token, plain, seq):
        with self._transaction() as c:
            row = self._row(c, key, "FOR SHARE")
            self._active(row)
            self._fence(row, token)
            following = self._count(c, key)
            if seq is not None and seq != following:
                raise SequenceConflict
            c.execute(
                "INSERT INTO event VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (*key, following, encode({**plain, "seq": following}, "event")),
            )


@wrong("CON-3", "CON-1", "APP-10", "APP-1", "ATM-2", "FEN-6")
class SeqKeptByTheHandle(Journal):
    """A handle counts the events of its runs itself, from what it found at first; another handle's it hears of too late."""

    def __init__(self, dsn):
        super().__init__(dsn)
        self._counts = {}

    def _append(self, key, token, plain, seq):
        with self._transaction() as c:
            row = self._row(c, key)
            self._active(row)
            self._fence(row, token)
            following = self._counts.get(key)
            if following is None or row[1] is not None:
                following = self._count(c, key)
            if seq is not None and seq != following:
                raise SequenceConflict
            try:
                with c.transaction():
                    self._insert(c, key, following, plain)
            except pg.UniqueViolation:
                raise SequenceConflict from None
            self._counts[key] = following + 1


@wrong("CON-1", "ATM-2", "CON-4", seen_in="https://github.com/celery/celery/issues/6296")
class MakesItsTablesAtOnce(Journal):
    """The tables are made at first use, IF NOT EXISTS, which two sessions at once do not survive."""

    def __init__(self, dsn):
        super().__init__(dsn)
        self._made = set()

    def _start(self, key, workflow, data):
        if key[0] not in self._made:
            with self._transaction() as c:
                name = "names_" + key[0].encode().hex()[:40]
                c.execute(f"CREATE TABLE IF NOT EXISTS {name} (id text PRIMARY KEY)")
            self._made.add(key[0])
        super()._start(key, workflow, data)


@wrong("CON-1", "CON-2", "FEN-5", "CON-3")
class LockedWhileItLooks(Journal):
    """SELECT ... FOR UPDATE in autocommit: the lock is gone when the next statement comes."""

    @contextlib.contextmanager
    def _transaction(self):
        with self._mutex:
            yield self._connection

    def _retried(self, act):
        while True:
            try:
                return act()
            except pg.UniqueViolation:
                continue


@wrong("CON-1", "CON-4", "CON-2", "CON-3", "FEN-5")
class TriesTheLockOnce(HashedLock):
    """pg_try_advisory_xact_lock, and where it says no, the run is said not to exist: it was the nearest error."""

    def _row(self, c, key, lock=None):
        if lock is None:
            (mine,) = c.execute(
                "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", ("\x1f".join(map(repr, key)),)
            ).fetchone()
            if not mine:
                raise RunNotFound
        return Journal._row(self, c, key, "")


SOON_FOUND = tuple(
    f"{__name__}:{name}Harness"
    for name in ("SkipsLockedRows", "CachedSequence", "LockedWhileItLooks", "TriesTheLockOnce")
)
"""Those that a first look finds; the others take a longer one, which `bench detection` measures."""
