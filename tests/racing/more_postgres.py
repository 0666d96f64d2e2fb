"""More races in PostgreSQL: within one statement, under the wrong lock, and where a look at a copy is trusted."""

from __future__ import annotations

from continuum_adapters.codec import decode, encode
from psycopg import errors as pg

from continuum_conformance.contract import (
    Instance,
    JournalError,
    JournalUnavailable,
    RunNotFound,
    SequenceConflict,
)
from continuum_conformance.contract.arguments import check_names
from tests.bank import Bank

from .postgres import Harness, Journal


class ParkingHarness(Harness):
    tables = ["run", "event"]


_bank = Bank(__name__, Harness)
WRONG = _bank.WRONG
SEEN_IN = _bank.SEEN_IN
RIGHT = _bank.RIGHT
wrong = _bank.wrong
right = _bank.right


ACTIVE = "instance = %(instance)s AND id = %(id)s AND state IN ('running', 'suspended')"
FITS = "token IS NOT DISTINCT FROM %(token)s"


class OneStatement(Journal):
    """An append is one statement in autocommit, the seq stands only in its column, and who asks why waits for none."""

    statement = ""

    def _append(self, key, token, plain, seq):
        values = {
            "instance": key[0],
            "id": key[1],
            "token": token,
            "seq": seq if seq is None or abs(seq) < 2**63 else -1,  # which is no run's next either
            "data": encode(plain, "event"),
        }
        while True:
            with self._mutex, self._lost():
                if self._inserted(values):
                    return
                row = self._row(self._connection, key, "")
                self._active(row)
                self._fence(row, token)
                if seq is not None and seq != self._following(key, row):
                    raise SequenceConflict

    def _inserted(self, values):
        try:
            return self._connection.execute(self.statement, values).rowcount
        except pg.UniqueViolation:
            return 0
        except (pg.OperationalError, pg.InterfaceError) as error:  # it commits by itself
            self._connection.close()
            raise JournalUnavailable(str(error), outcome_unknown=True) from error

    def _following(self, key, row):
        return self._count(self._connection, key)

    def load(self, instance, run_id):
        key = check_names(instance, run_id)
        with self._mutex, self._lost():
            return self._events(self._connection, key)

    def _fenced_load(self, key, token):
        with self._transaction() as c:
            row = self._row(c, key)
            if row is None:
                raise RunNotFound
            self._fence(row, token)
            return self._events(c, key)

    def _events(self, c, key):
        rows = c.execute(
            "SELECT data, seq FROM event WHERE instance = %s AND id = %s ORDER BY seq", key
        ).fetchall()
        return [{**decode(data), "seq": seq} for data, seq in rows]


# -- right --


@right(harness=ParkingHarness)
class CounterInTheRow(OneStatement):
    """The guard is an UPDATE of the run's row, which waits for it and looks again; the seq is its counter's."""

    statement = f"""
WITH touched AS (
  UPDATE run SET version = version + 1
  WHERE {ACTIVE} AND {FITS} AND (%(seq)s::bigint IS NULL OR version = %(seq)s) RETURNING version - 1 AS seq)
INSERT INTO event SELECT %(instance)s, %(id)s, seq, %(data)s FROM touched"""

    def _following(self, key, row):
        return row[9]


@right(harness=ParkingHarness)
class HeldInTheStatement(OneStatement):
    """The guard takes the row FOR UPDATE within the statement; a seq of before the wait meets the key, and is retried."""

    statement = f"""
WITH held AS (SELECT 1 FROM run WHERE {ACTIVE} AND {FITS} FOR UPDATE),
following AS (SELECT count(*) AS seq FROM event WHERE instance = %(instance)s AND id = %(id)s)
INSERT INTO event SELECT %(instance)s, %(id)s, seq, %(data)s FROM following, held
WHERE (%(seq)s::bigint IS NULL OR seq = %(seq)s)"""


# -- wrong --


@wrong("FEN-5", "CON-1", "APP-6", harness=ParkingHarness)
class GuardedInsert(OneStatement):
    """INSERT ... SELECT where the token fits, as the statement's snapshot has it: nothing keeps a takeover waiting."""

    statement = f"""
INSERT INTO event
SELECT instance, id, following.seq, %(data)s
FROM run, (SELECT count(*) AS seq FROM event WHERE instance = %(instance)s AND id = %(id)s) AS following
WHERE {ACTIVE} AND {FITS} AND (%(seq)s::bigint IS NULL OR following.seq = %(seq)s)"""


@wrong("FEN-5", "CON-1", harness=ParkingHarness)
class TokenOfTheSnapshot(OneStatement):
    """The guard waits for the row and its state; the token is compared in a query beside it, which does not."""

    statement = f"""
WITH held AS (SELECT 1 FROM run WHERE {ACTIVE} FOR UPDATE),
fits AS MATERIALIZED (SELECT 1 FROM run WHERE {ACTIVE} AND {FITS}),
following AS (SELECT count(*) AS seq FROM event WHERE instance = %(instance)s AND id = %(id)s)
INSERT INTO event SELECT %(instance)s, %(id)s, seq, %(data)s FROM following, held, fits
WHERE (%(seq)s::bigint IS NULL OR seq = %(seq)s)"""


@wrong("CON-3", "CON-1", harness=ParkingHarness)
class SeqOfTheSnapshot(OneStatement):
    """The guard waits for the row, and max(seq) is still as it was before: the second of two appends is refused."""

    statement = f"""
WITH touched AS (UPDATE run SET version = version + 1 WHERE {ACTIVE} AND {FITS} RETURNING 1)
INSERT INTO event SELECT %(instance)s, %(id)s, following.seq, %(data)s FROM touched,
  (SELECT coalesce(max(seq), -1) + 1 AS seq FROM event WHERE instance = %(instance)s AND id = %(id)s) AS following
WHERE (%(seq)s::bigint IS NULL OR following.seq = %(seq)s)"""

    def _inserted(self, values):
        try:
            return self._connection.execute(self.statement, values).rowcount
        except pg.UniqueViolation:
            raise SequenceConflict from None


@wrong("CON-3", "FEN-5", "CON-1", "APP-2", harness=ParkingHarness)
class SeqByMax(OneStatement):
    """The fence in one statement; the next seq, max(seq) + 1, in the INSERT; and who comes second writes it over."""

    statement = """
INSERT INTO event SELECT %(instance)s, %(id)s, following.seq, %(data)s FROM
  (SELECT coalesce(max(seq), -1) + 1 AS seq FROM event WHERE instance = %(instance)s AND id = %(id)s) AS following
WHERE (%(seq)s::bigint IS NULL OR following.seq = %(seq)s)
ON CONFLICT (instance, id, seq) DO UPDATE SET data = EXCLUDED.data"""

    def _inserted(self, values):
        row = self._row(self._connection, (values["instance"], values["id"]), "")
        self._active(row)
        self._fence(row, values["token"])
        return super()._inserted(values)


@wrong("CON-2", "CON-1", "FEN-5", harness=ParkingHarness)
class GuardedBySubquery(OneStatement):
    """A finish is one UPDATE whose guard is a query of its own: only the row's key is looked at again after a wait."""

    statement = CounterInTheRow.statement
    _following = CounterInTheRow._following

    def _transition(self, key, token, state, result, error):
        ends = "" if state == "suspended" else ", token = NULL, owner = NULL, expires = NULL"
        values = {"instance": key[0], "id": key[1], "token": token}
        values.update(state=state, result=result, error=error)
        with self._mutex:
            while not self._connection.execute(
                f"WITH fits AS MATERIALIZED (SELECT instance, id FROM run WHERE {ACTIVE} AND {FITS}) UPDATE run"
                f" SET state = %(state)s, result = %(result)s, error = %(error)s{ends} FROM fits"
                " WHERE run.instance = fits.instance AND run.id = fits.id",
                values,
            ).rowcount:
                row = self._row(self._connection, key, "")
                self._active(row)
                self._fence(row, token)


class BeginsAnew(Journal):
    """Who inserts a seq second begins anew, so that appends do each other no harm."""

    def _retried(self, act):
        while True:
            try:
                return act()
            except pg.UniqueViolation:
                continue

    def _write(self, c, key, token, plain, seq, lock=""):
        row = self._row(c, key, lock)
        self._active(row)
        self._fence(row, token)
        following = self._count(c, key)
        if seq is not None and seq != following:
            raise SequenceConflict
        self._insert(c, key, following, plain)


@wrong("FEN-5", "CON-1", "APP-6")
class LocksTheLastEvent(BeginsAnew):
    """FOR UPDATE of the last event's row, on which appends meet, and nobody else does."""

    def _append(self, key, token, plain, seq):
        with self._transaction() as c:
            c.execute(
                "SELECT 1 FROM event WHERE instance = %s AND id = %s ORDER BY seq DESC LIMIT 1 FOR UPDATE",
                key,
            )
            self._write(c, key, token, plain, seq)


@wrong("FEN-5", "CON-1", "CON-2")
class LocksAnotherRun(BeginsAnew):
    """The lock's two arguments are swapped, so that it is of the run of nobody; the reads are of the right one."""

    def _row(self, c, key, lock=None):
        if lock is None:
            super()._row(c, key[::-1])
        return super()._row(c, key, "")


@wrong("FEN-5", "CON-1")
class AdvisoryLockByToken(BeginsAnew):
    """The advisory lock's key has the token in it: those who disagree about the lease do not wait for each other."""

    def _append(self, key, token, plain, seq):
        with self._transaction() as c:
            name = "\x1f".join(map(repr, (*key, token)))
            c.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))
            self._write(c, key, token, plain, seq)


@wrong("CON-3", "CON-1", "CON-2")
class UnlocksBeforeTheCommit(BeginsAnew):
    """An advisory lock of the session, given back when the work is done, which is before it is committed."""

    def _append(self, key, token, plain, seq):
        name = "\x1f".join(map(repr, key))
        with self._transaction() as c:
            c.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (name,))
            try:
                self._write(c, key, token, plain, seq, "FOR SHARE")
            finally:
                c.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))

    def _insert(self, c, key, seq, plain):
        c.execute(
            "INSERT INTO event VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (instance, id, seq) DO UPDATE SET data = EXCLUDED.data",
            (*key, seq, encode({**plain, "seq": seq}, "event")),
        )


@wrong("FEN-5", "CON-1", "APP-6")
class InsertsThenChecks(Journal):
    """The event is inserted first; a second transaction checks the fence, and where it fails deletes it again."""

    def _append(self, key, token, plain, seq):
        with self._transaction() as c:
            row = self._row(c, key)
            following = self._count(c, key)
            if seq is not None and seq != following:
                self._active(row)
                self._fence(row, token)
                raise SequenceConflict
            self._insert(c, key, following, plain)
        with self._transaction() as c:
            row = self._row(c, key)
            try:
                self._active(row)
                self._fence(row, token)
                return
            except JournalError as error:
                refused = error
                c.execute("DELETE FROM event WHERE instance = %s AND id = %s AND seq = %s", (*key, following))
        raise refused


@wrong("FEN-5", "CON-1", "CON-2", "APP-6")
class TrustsItsOwnLease(Journal):
    """A handle knows the leases that it gave, and checks those without a lock; others, under one."""

    def __init__(self, dsn):
        super().__init__(dsn)
        self._known = {}

    def _acquire(self, key, owner, ttl):
        self._known[key] = token = super()._acquire(key, owner, ttl)
        return token

    def _append(self, key, token, plain, seq):
        known = token is not None and self._known.get(key) == token
        if known:
            with self._mutex:
                self._fence(self._row(self._connection, key, ""), token)
        with self._transaction() as c:
            row = self._row(c, key)
            if not known:
                self._active(row)
                self._fence(row, token)
            following = self._count(c, key)
            if seq is not None and seq != following:
                raise SequenceConflict
            self._insert(c, key, following, plain)


@wrong("FEN-5", "CON-1", "CON-2", "APP-6")
class TrustsWhatItSawLast(Journal):
    """Double-checked: where the run is as this handle saw it under the lock, the write needs no second look."""

    def __init__(self, dsn):
        super().__init__(dsn)
        self._seen = {}

    def _append(self, key, token, plain, seq):
        with self._mutex:
            seen = self._row(self._connection, key, "")
        trusted = seen is not None and self._seen.get(key) == (*seen[:3], token)
        with self._transaction() as c:
            row = self._row(c, key)
            if not trusted:
                self._active(row)
                self._fence(row, token)
                self._seen[key] = (*row[:3], token)
            following = self._count(c, key)
            if seq is not None and seq != following:
                raise SequenceConflict
            self._insert(c, key, following, plain)


@wrong("FEN-5", "CON-1")
class TrustsAFencedWrite(TrustsWhatItSawLast):
    """The same, for leases only: a handle's first append under a token is checked, its second trusts the first."""

    def _append(self, key, token, plain, seq):
        if token is None:
            return Journal._append(self, key, token, plain, seq)
        return super()._append(key, token, plain, seq)


@wrong("FEN-5", "CON-1")
class FencedReadWithoutLock(Journal):
    """load_with_snapshot checks the fence and reads the events in one transaction: two statements, two snapshots."""

    def _fenced_load(self, key, token):
        with self._transaction() as c:
            row = self._row(c, key, "")
            if row is None:
                raise RunNotFound
            self._fence(row, token)
            return self.load(Instance(key[0]), key[1])
