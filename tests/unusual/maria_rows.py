"""MariaDB by a row a run: one style locks it (SELECT … FOR UPDATE), the other guards each UPDATE and looks afterwards.

Names are VARBINARY: every collation of MariaDB's but the nopad ones takes trailing spaces for nothing. The clock is
the server's, SYSDATE(6) in UTC, which is read when a row is at hand and not when its statement began. A lost
deadlock (1213) and a wait that took too long (1205) are tried again as a whole.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import datetime

from continuum_conformance.contract import arguments, errors
from continuum_conformance.contract.records import Lease, Run, RunState, Snapshot
from continuum_conformance.contract.terms import check_durable
from tests.unusual import codecs

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
  instance VARBINARY(1020) NOT NULL, run_id VARBINARY(1020) NOT NULL, workflow VARBINARY(1020) NOT NULL,
  state VARCHAR(9) NOT NULL DEFAULT 'running', input LONGBLOB NOT NULL, result LONGBLOB, error LONGBLOB,
  length BIGINT NOT NULL DEFAULT 0, token BIGINT, last_token BIGINT NOT NULL DEFAULT 0,
  owner VARBINARY(1020), expires DATETIME(6), PRIMARY KEY (instance, run_id)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS events (
  instance VARBINARY(1020) NOT NULL, run_id VARBINARY(1020) NOT NULL, seq BIGINT NOT NULL, body LONGBLOB NOT NULL,
  PRIMARY KEY (instance, run_id, seq)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS snapshots (
  instance VARBINARY(1020) NOT NULL, run_id VARBINARY(1020) NOT NULL, through_seq BIGINT NOT NULL,
  version_hash LONGBLOB NOT NULL, taken_at LONGBLOB NOT NULL, steps LONGBLOB NOT NULL,
  PRIMARY KEY (instance, run_id, through_seq)) ENGINE=InnoDB
"""
DUPLICATE = 1062
AGAIN = (1213, 1205, 1020)  # deadlock, lock wait, changed since the snapshot
ACTIVE = ("running", "suspended")
WIDE = 2**63
KEY = "instance = %s AND run_id = %s"


class Pool:
    """Connections of one handle, made when they are asked for and kept when they are well."""

    schema = SCHEMA

    def __init__(self, database: str, port: int) -> None:
        self.database, self.port = database, port
        self.idle, self.lock = [], threading.Lock()
        with self.borrowed() as connection, connection.cursor() as cursor:
            for statement in self.schema.split(";"):
                cursor.execute(statement)

    def connect(self):
        import pymysql
        from pymysql.constants import CLIENT

        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", database=self.database, charset="utf8mb4",
            autocommit=True, client_flag=CLIENT.FOUND_ROWS, max_allowed_packet=1 << 26,
            init_command="SET time_zone = '+00:00', innodb_lock_wait_timeout = 50",
        )  # fmt: skip

    @contextmanager
    def borrowed(self):
        with self.lock:
            connection = self.idle.pop() if self.idle else None
        connection = connection or self.connect()
        try:
            yield connection
        except errors.JournalError:
            self._keep(connection)
            raise
        except BaseException as error:
            _drop(connection)
            if getattr(error, "args", (0,))[0] not in AGAIN:  # they may all be dead
                self.close()
            raise
        else:
            self._keep(connection)

    def _keep(self, connection):
        with self.lock:
            self.idle.append(connection)

    def close(self):
        with self.lock:
            idle, self.idle = self.idle, []
        for connection in idle:
            _drop(connection)


def _drop(connection):
    try:
        connection.close()
    except Exception:
        connection._force_close()


class Unit:
    """A transaction, or a single statement on its own."""

    def __init__(self, connection) -> None:
        self.connection, self.committing = connection, False

    def run(self, statement, *values):
        cursor = self.connection.cursor()
        cursor.execute(statement, values)
        return cursor

    def one(self, statement, *values):
        return self.run(statement, *values).fetchone()

    def all(self, statement, *values):
        return self.run(statement, *values).fetchall()


class RowJournal:
    """What both styles share: arguments, reads, and how a unit of work is run, ended and tried again."""

    def __init__(self, database: str, port: int) -> None:
        self.pool = Pool(database, port)

    def close(self):
        self.pool.close()

    def _work(self, work, *, reading=False, alone=False):
        """`work(unit)` in a transaction; when it is alone, its statements are each on their own."""
        import pymysql

        while True:
            unit = None
            try:
                with self.pool.borrowed() as connection:
                    unit = Unit(connection)
                    if alone:
                        unit.committing = not reading
                        return work(unit)
                    unit.run("START TRANSACTION WITH CONSISTENT SNAPSHOT" if reading else "START TRANSACTION")
                    try:
                        answer = work(unit)
                    except errors.JournalError:
                        unit.run("ROLLBACK")
                        raise
                    unit.committing = not reading
                    unit.run("COMMIT")
                    return answer
            except pymysql.err.MySQLError as error:
                if error.args and error.args[0] in AGAIN:
                    continue
                unknown = unit is not None and unit.committing
                raise errors.JournalUnavailable(str(error), outcome_unknown=unknown) from error

    def get_run(self, instance, run_id):
        key = _key(instance, run_id)
        row = self._work(
            lambda unit: unit.one(
                f"SELECT workflow, state, input, result, error FROM runs WHERE {KEY}", *key
            ),
            reading=True,
            alone=True,
        )
        if row is None:
            return None
        workflow, state, given, result, error = row
        return Run(run_id, workflow.decode(), RunState(state), *map(_value, (given, result, error)))

    def load(self, instance, run_id):
        key = _key(instance, run_id)
        rows = self._work(
            lambda unit: unit.all(f"SELECT seq, body FROM events WHERE {KEY} ORDER BY seq", *key),
            reading=True,
            alone=True,
        )
        return [{**codecs.unpack(body), "seq": seq} for seq, body in rows]

    def load_with_snapshot(self, instance, run_id, lease_token):
        key, token = _key(instance, run_id), arguments.check_token(lease_token)

        def work(unit):
            run = unit.one(f"SELECT token FROM runs WHERE {KEY}", *key)
            if run is None:
                raise errors.RunNotFound()
            if run[0] != token:
                raise errors.LeaseMismatch()
            latest = unit.one(
                f"SELECT through_seq, version_hash, taken_at, steps FROM snapshots WHERE {KEY}"
                " ORDER BY through_seq DESC LIMIT 1",
                *key,
            )
            through = latest[0] if latest else -1
            return latest, unit.all(
                f"SELECT seq, body FROM events WHERE {KEY} AND seq > %s ORDER BY seq", *key, through
            )

        latest, rows = self._work(work, reading=True)
        events = [{**codecs.unpack(body), "seq": seq} for seq, body in rows]
        return None if latest is None else _snapshot(run_id, latest), events

    def start_run(self, instance, run_id, workflow, input):
        import pymysql

        key, name = _key(instance, run_id), arguments.check_name(workflow, "the workflow").encode()
        body = _packed(input, "input")

        def work(unit):
            try:
                unit.run(
                    "INSERT INTO runs (instance, run_id, workflow, input) VALUES (%s, %s, %s, %s)",
                    *key,
                    name,
                    body,
                )
            except pymysql.err.IntegrityError as error:
                if error.args[0] != DUPLICATE:
                    raise
                raise errors.RunAlreadyExists() from None

        self._work(work)

    def take_snapshot(self, instance, snapshot):
        taken = arguments.check_snapshot(snapshot)
        key, through = _key(instance, taken.run_id), taken.through_seq
        steps = codecs.pack(dict(taken.steps_by_seq))

        def work(unit):
            run = unit.one(f"SELECT length FROM runs WHERE {KEY} FOR UPDATE", *key)
            if run is None:
                raise errors.RunNotFound()
            if not 0 <= through < run[0]:
                raise errors.SnapshotConflict()
            known = unit.one(
                f"SELECT version_hash, steps FROM snapshots WHERE {KEY} AND through_seq = %s", *key, through
            )
            if known is None:
                unit.run(
                    "INSERT INTO snapshots VALUES (%s, %s, %s, %s, %s, %s)",
                    *key, through, taken.version_hash, codecs.pack(taken.taken_at), steps,
                )  # fmt: skip
            elif known[0] != taken.version_hash or _plain(known[1]) != _plain(steps):
                raise errors.SnapshotConflict()

        self._work(work)


class LockingJournal(RowJournal):
    """Every change begins by locking the run's row."""

    def _change(self, instance, run_id, work):
        key = _key(instance, run_id)

        def locked(unit):
            row = unit.one(
                "SELECT state, length, token, last_token, owner, expires <= SYSDATE(6) FROM runs"
                f" WHERE {KEY} FOR UPDATE",
                *key,
            )
            if row is None:
                raise errors.RunNotFound()
            return work(unit, key, *row)

        return self._work(locked)

    def _fenced(self, instance, run_id, lease_token, work):
        token = arguments.check_token(lease_token)

        def fenced(unit, key, state, length, held, *_):
            if state not in ACTIVE:
                raise errors.RunNotActive()
            if token != held:
                raise errors.LeaseMismatch()
            work(unit, key, length)

        self._change(instance, run_id, fenced)

    def append(self, instance, run_id, event, lease_token):
        plain, given = arguments.check_event(event)
        plain.pop("seq", None)
        body = codecs.pack(plain)

        def work(unit, key, length):
            if given is not None and given != length:
                raise errors.SequenceConflict()
            unit.run("INSERT INTO events VALUES (%s, %s, %s, %s)", *key, length, body)
            unit.run(f"UPDATE runs SET length = length + 1 WHERE {KEY}", *key)

        self._fenced(instance, run_id, lease_token, work)

    def suspend(self, instance, run_id, lease_token):
        self._fenced(
            instance,
            run_id,
            lease_token,
            lambda unit, key, _: unit.run(f"UPDATE runs SET state = 'suspended' WHERE {KEY}", *key),
        )

    def complete(self, instance, run_id, result, lease_token):
        self._finish(instance, run_id, "completed", "result", result, lease_token)

    def fail(self, instance, run_id, error, lease_token):
        self._finish(instance, run_id, "failed", "error", error, lease_token)

    def _finish(self, instance, run_id, state, column, term, lease_token):
        body = _packed(term, column)
        self._fenced(
            instance,
            run_id,
            lease_token,
            lambda unit, key, _: unit.run(
                f"UPDATE runs SET state = %s, {column} = %s, token = NULL, owner = NULL, expires = NULL"
                f" WHERE {KEY}",
                state, body, *key,
            ),
        )  # fmt: skip

    def acquire(self, instance, run_id, owner, ttl):
        who, seconds = arguments.check_name(owner, "the owner"), arguments.check_ttl(ttl)

        def work(unit, key, state, _length, token, last, _owner, over):
            if state not in ACTIVE:
                raise errors.RunNotActive()
            if token is not None and not over:
                raise errors.LeaseHeld()
            unit.run(
                f"UPDATE runs SET token = %s, last_token = %s, owner = %s, expires = {UNTIL} WHERE {KEY}",
                last + 1, last + 1, who.encode(), seconds, _micros(seconds), *key,
            )  # fmt: skip
            return Lease(run_id, who, last + 1)

        return self._change(instance, run_id, work)

    def renew(self, instance, lease, ttl):
        seconds = arguments.check_ttl(ttl)
        self._mine(
            instance,
            lease,
            lambda unit, key: unit.run(
                f"UPDATE runs SET expires = {UNTIL} WHERE {KEY}", seconds, _micros(seconds), *key
            ),
        )

    def release(self, instance, lease):
        self._mine(
            instance,
            lease,
            lambda unit, key: unit.run(
                f"UPDATE runs SET token = NULL, owner = NULL, expires = NULL WHERE {KEY}", *key
            ),
        )

    def _mine(self, instance, lease, change):
        checked = arguments.check_lease(lease)

        def work(unit, key, state, _length, token, _last, owner, _over):
            if state not in ACTIVE:
                raise errors.RunNotActive()
            if (token, owner) != (checked.token, checked.owner.encode()):
                raise errors.LeaseLost()
            change(unit, key)

        self._change(instance, checked.run_id, work)


class GuardedJournal(RowJournal):
    """Every change is an UPDATE with all its conditions; only when it touched no row it is asked why."""

    columns = "state, token, owner, expires <= SYSDATE(6), length"

    def _guarded(self, key, statement, values, why):
        """One statement on its own. What is seen afterwards may be newer: then it is tried again."""
        while True:
            if self._work(lambda unit: unit.run(statement, *values).rowcount, alone=True):
                return
            row = self._work(
                lambda unit: unit.one(f"SELECT {self.columns} FROM runs WHERE {KEY}", *key),
                reading=True,
                alone=True,
            )
            if row is None:
                raise errors.RunNotFound()
            why(*row)

    def _fence(self, token):
        def why(state, held, *_):
            if state not in ACTIVE:
                raise errors.RunNotActive()
            if held != token:
                raise errors.LeaseMismatch()

        return why

    def append(self, instance, run_id, event, lease_token):
        key, token = _key(instance, run_id), arguments.check_token(lease_token)
        plain, given = arguments.check_event(event)
        plain.pop("seq", None)
        body = codecs.pack(plain)
        fits = token if token is None or -WIDE <= token < WIDE else -1

        def work(unit):
            # The UPDATE locks the row, so that what is read behind it is the last.
            if not unit.run(
                f"UPDATE runs SET length = LAST_INSERT_ID(length + 1) WHERE {KEY} AND {FENCE}"
                + (" AND length = %s" if given is not None else ""),
                *key, fits, *([min(max(given, -1), WIDE - 1)] if given is not None else []),
            ).rowcount:  # fmt: skip
                row = unit.one(f"SELECT {self.columns} FROM runs WHERE {KEY} FOR UPDATE", *key)
                if row is None:
                    raise errors.RunNotFound()
                self._fence(token)(*row)
                if given is not None and row[-1] != given:
                    raise errors.SequenceConflict()
                return False
            unit.run("INSERT INTO events VALUES (%s, %s, LAST_INSERT_ID() - 1, %s)", *key, body)
            return True

        while not self._work(work):
            pass

    def suspend(self, instance, run_id, lease_token):
        self._set(instance, run_id, lease_token, "state = 'suspended'")

    def complete(self, instance, run_id, result, lease_token):
        self._set(
            instance,
            run_id,
            lease_token,
            f"state = 'completed', {FREE}, result = %s",
            _packed(result, "result"),
        )

    def fail(self, instance, run_id, error, lease_token):
        self._set(
            instance, run_id, lease_token, f"state = 'failed', {FREE}, error = %s", _packed(error, "error")
        )

    def _set(self, instance, run_id, lease_token, what, *values):
        key, token = _key(instance, run_id), arguments.check_token(lease_token)
        fits = token if token is None or -WIDE <= token < WIDE else -1
        # In MariaDB a SET sees what stands to its left: the fence is in the WHERE alone.
        self._guarded(
            key, f"UPDATE runs SET {what} WHERE {KEY} AND {FENCE}", (*values, *key, fits), self._fence(token)
        )

    def acquire(self, instance, run_id, owner, ttl):
        key, seconds = _key(instance, run_id), arguments.check_ttl(ttl)
        who = arguments.check_name(owner, "the owner")

        def work(unit):
            granted = unit.run(
                "UPDATE runs SET last_token = LAST_INSERT_ID(last_token + 1), token = last_token, owner = %s,"
                f" expires = {UNTIL} WHERE {KEY} AND state IN ('running', 'suspended')"
                " AND (token IS NULL OR expires <= SYSDATE(6))",
                who.encode(), seconds, _micros(seconds), *key,
            )  # fmt: skip
            return granted.lastrowid if granted.rowcount else None

        while True:
            token = self._work(work, alone=True)
            if token is not None:
                return Lease(run_id, who, token)
            row = self._work(
                lambda unit: unit.one(f"SELECT {self.columns} FROM runs WHERE {KEY}", *key),
                reading=True,
                alone=True,
            )
            if row is None:
                raise errors.RunNotFound()
            if row[0] not in ACTIVE:
                raise errors.RunNotActive()
            if row[1] is not None and not row[3]:
                raise errors.LeaseHeld()

    def renew(self, instance, lease, ttl):
        seconds = arguments.check_ttl(ttl)
        self._own(instance, lease, f"expires = {UNTIL}", seconds, _micros(seconds))

    def release(self, instance, lease):
        self._own(instance, lease, FREE)

    def _own(self, instance, lease, what, *values):
        checked = arguments.check_lease(lease)
        key, owner = _key(instance, checked.run_id), checked.owner.encode()
        fits = checked.token if -WIDE <= checked.token < WIDE else -1

        def why(state, token, held_by, *_):
            if state not in ACTIVE:
                raise errors.RunNotActive()
            if (token, held_by) != (checked.token, owner):
                raise errors.LeaseLost()

        self._guarded(
            key,
            f"UPDATE runs SET {what} WHERE {KEY} AND {FENCE} AND owner = %s",
            (*values, *key, fits, owner),
            why,
        )


FENCE = "state IN ('running', 'suspended') AND token <=> %s"
FREE = "token = NULL, owner = NULL, expires = NULL"
UNTIL = "IF(%s = 0, '1970-01-01', SYSDATE(6) + INTERVAL %s MICROSECOND)"


def _micros(seconds: float) -> int:
    return int(seconds * 1_000_000) + 1


def _key(instance, run_id):
    return tuple(name.encode() for name in arguments.check_names(instance, run_id))


def _packed(term, root):
    check_durable(term, root)
    return codecs.pack(term)


def _value(body):
    return None if body is None else codecs.unpack(body)


def _plain(body):
    """Steps to compare by: the order of a dict's keys means nothing, a type does."""

    def frozen(term):
        kind = type(term)
        if kind is dict:
            return "dict", frozenset((frozen(key), frozen(item)) for key, item in term.items())
        if kind in (list, tuple):
            return kind.__name__, tuple(map(frozen, term))
        if kind in (set, frozenset):
            return kind.__name__, frozenset(map(frozen, term))
        return kind.__name__, repr(term)

    return frozen(codecs.unpack(body))


def _snapshot(run_id, row):
    through, version_hash, taken_at, steps = row
    taken: datetime = codecs.unpack(taken_at)
    return Snapshot(run_id, through, version_hash, taken, codecs.unpack(steps))
