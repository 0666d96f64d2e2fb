"""A small correct journal over SQLite whose statements are attributes, and the faults of people who write SQL.

`SqlJournal` is right (a test says so). Each class below changes one statement, one codec or one way of using a
connection.
"""

from __future__ import annotations

import json
import queue
import sqlite3
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from continuum_adapters.codec import decode, encode

from continuum_conformance.contract import (
    InvalidArgument,
    JournalUnavailable,
    Lease,
    LeaseHeld,
    LeaseLost,
    LeaseMismatch,
    NotDurable,
    Run,
    RunAlreadyExists,
    RunNotActive,
    RunNotFound,
    RunState,
    SequenceConflict,
    Snapshot,
    SnapshotConflict,
)
from continuum_conformance.contract.arguments import (
    check_event,
    check_lease,
    check_name,
    check_names,
    check_snapshot,
    check_token,
    check_ttl,
)
from continuum_conformance.contract.terms import equal

from .registry import harness_for, wrong

MINE = "instance = :instance AND run_id = :run_id"
POOL = 4


class SqlJournal:
    """A handle with a pool of connections of its own."""

    NAME = "TEXT"
    SEQ = "INTEGER"
    SCHEMA = """
        CREATE TABLE IF NOT EXISTS runs (
            instance {name}, run_id {name}, workflow TEXT, state TEXT,
            input BLOB, result BLOB, error BLOB, next_seq INTEGER DEFAULT 0,
            token INTEGER, last_token INTEGER DEFAULT 0, owner TEXT, expires_at REAL,
            PRIMARY KEY (instance, run_id));
        CREATE TABLE IF NOT EXISTS events (
            instance {name}, run_id {name}, seq {seq}, payload BLOB, created_at REAL,
            PRIMARY KEY (instance, run_id, seq));
        CREATE TABLE IF NOT EXISTS snapshots (
            instance {name}, run_id {name}, through_seq INTEGER, version_hash BLOB, taken_at TEXT, steps BLOB,
            PRIMARY KEY (instance, run_id, through_seq));
    """
    START = "INSERT INTO runs (instance, run_id, workflow, state, input) VALUES (:instance, :run_id, :workflow, 'running', :input)"
    RUN = f"SELECT * FROM runs WHERE {MINE}"
    APPEND = "INSERT INTO events VALUES (:instance, :run_id, :seq, :payload, :now)"
    COUNT = f"UPDATE runs SET next_seq = next_seq + 1 WHERE {MINE}"
    LOAD = f"SELECT seq, payload FROM events WHERE {MINE} ORDER BY seq"
    AFTER = f"SELECT seq, payload FROM events WHERE {MINE} AND seq > :through_seq ORDER BY seq"
    LATEST = f"SELECT * FROM snapshots WHERE {MINE} ORDER BY through_seq DESC LIMIT 1"
    FIRST = f"SELECT * FROM snapshots WHERE {MINE} AND through_seq = :through_seq"
    SNAPSHOT = (
        "INSERT INTO snapshots VALUES (:instance, :run_id, :through_seq, :version_hash, :taken_at, :steps)"
    )
    SUSPEND = f"UPDATE runs SET state = 'suspended' WHERE {MINE}"
    FINISH = f"UPDATE runs SET state = :state, result = :result, error = :error, token = NULL, owner = NULL, expires_at = NULL WHERE {MINE}"
    ACQUIRE = f"UPDATE runs SET token = last_token + 1, last_token = last_token + 1, owner = :owner, expires_at = :expires_at WHERE {MINE}"
    RENEW = f"UPDATE runs SET expires_at = :expires_at WHERE {MINE}"
    RELEASE = f"UPDATE runs SET token = NULL, owner = NULL, expires_at = NULL WHERE {MINE}"

    def __init__(self, path):
        self._path = path
        self._pool = queue.Queue()
        for _ in range(POOL):
            self._pool.put(self._connect())
        with self._transaction() as db:
            for statement in self.SCHEMA.format(name=self.NAME, seq=self.SEQ).split(";"):
                db.execute(statement)

    def _connect(self):
        db = sqlite3.connect(self._path, timeout=2, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=OFF")
        return db

    def close(self):
        while not self._pool.empty():
            self._pool.get().close()

    # -- connections --

    @contextmanager
    def _transaction(self):
        db = self._pool.get(timeout=2)
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
        except BaseException:
            db.rollback()
            raise
        else:
            db.commit()
        finally:
            self._pool.put(db)

    # -- terms --

    def _encode(self, term, root):
        return encode(term, root)

    def _decode(self, payload):
        return decode(payload)

    # -- the journal --

    def start_run(self, instance, run_id, workflow, input):
        key = self._key(instance, run_id)
        check_name(workflow, "the workflow")
        payload = self._encode(input, "input")
        with self._transaction() as db:
            if db.execute(self.RUN, key).fetchone() is not None:
                raise RunAlreadyExists
            db.execute(self.START, {**key, "workflow": workflow, "input": payload})

    def get_run(self, instance, run_id):
        with self._transaction() as db:
            row = db.execute(self.RUN, self._key(instance, run_id)).fetchone()
        if row is None:
            return None
        terms = [None if row[c] is None else self._decode(row[c]) for c in ("input", "result", "error")]
        return Run(run_id, row["workflow"], RunState(row["state"]), *terms)

    def append(self, instance, run_id, event, lease_token):
        key = self._key(instance, run_id)
        token = check_token(lease_token)
        checked, seq = check_event(event)
        payload = self._encode(checked, "event")
        with self._transaction() as db:
            run = self._active(db, key)
            self._fence(run, token)
            self._insert(db, key, run, seq, payload)
            db.execute(self.COUNT, key)

    def _insert(self, db, key, run, seq, payload):
        if seq is not None and seq != run["next_seq"]:
            raise SequenceConflict
        db.execute(self.APPEND, {**key, "seq": run["next_seq"], "payload": payload, "now": time.time()})

    def load(self, instance, run_id):
        with self._transaction() as db:
            rows = db.execute(self.LOAD, self._key(instance, run_id)).fetchall()
        return [self._event(row) for row in rows]

    def load_with_snapshot(self, instance, run_id, lease_token):
        key = self._key(instance, run_id)
        token = check_token(lease_token)
        with self._transaction() as db:
            run = self._run(db, key)
            self._fence(run, token)
            found = db.execute(self.LATEST, key).fetchone()
            through = -1 if found is None else found["through_seq"]
            rows = db.execute(self.AFTER, {**key, "through_seq": through}).fetchall()
        snapshot = None
        if found is not None:
            taken_at = datetime.fromisoformat(found["taken_at"])
            steps = self._decode(found["steps"])
            snapshot = Snapshot(run_id, through, found["version_hash"], taken_at, steps)
        return snapshot, [self._event(row) for row in rows]

    def take_snapshot(self, instance, snapshot):
        checked = check_snapshot(snapshot)
        key = self._key(instance, checked.run_id)
        steps = self._encode(checked.steps_by_seq, "snapshot.steps_by_seq")
        with self._transaction() as db:
            run = self._run(db, key)
            if not 0 <= checked.through_seq < run["next_seq"]:
                raise SnapshotConflict
            key["through_seq"] = checked.through_seq
            first = db.execute(self.FIRST, key).fetchone()
            if first is None:
                taken_at = checked.taken_at.isoformat()
                values = {**key, "version_hash": checked.version_hash, "taken_at": taken_at, "steps": steps}
                db.execute(self.SNAPSHOT, values)
            elif first["version_hash"] != checked.version_hash or not equal(
                self._decode(first["steps"]), checked.steps_by_seq
            ):
                raise SnapshotConflict

    def suspend(self, instance, run_id, lease_token):
        self._move(self.SUSPEND, self._key(instance, run_id), check_token(lease_token))

    def complete(self, instance, run_id, result, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        values = {"state": "completed", "result": self._encode(result, "result"), "error": None}
        self._move(self.FINISH, {**key, **values}, token)

    def fail(self, instance, run_id, error, lease_token):
        key, token = self._key(instance, run_id), check_token(lease_token)
        values = {"state": "failed", "result": None, "error": self._encode(error, "error")}
        self._move(self.FINISH, {**key, **values}, token)

    def _move(self, statement, values, token):
        with self._transaction() as db:
            run = self._active(db, values)
            self._fence(run, token)
            db.execute(statement, values)

    def acquire(self, instance, run_id, owner, ttl):
        key = self._key(instance, run_id)
        check_name(owner, "the owner")
        expires_at = self._expiry(check_ttl(ttl))
        with self._transaction() as db:
            run = self._active(db, key)
            if run["token"] is not None and run["expires_at"] > time.time():
                raise LeaseHeld
            db.execute(self.ACQUIRE, {**key, "owner": owner, "expires_at": expires_at})
            return Lease(run_id, owner, self._run(db, key)["token"])

    def renew(self, instance, lease, ttl):
        held = check_lease(lease)
        key = self._key(instance, held.run_id)
        expires_at = self._expiry(check_ttl(ttl))
        with self._transaction() as db:
            self._held(db, key, held)
            db.execute(self.RENEW, {**key, "expires_at": expires_at})

    def release(self, instance, lease):
        held = check_lease(lease)
        key = self._key(instance, held.run_id)
        with self._transaction() as db:
            self._held(db, key, held)
            db.execute(self.RELEASE, key)

    # -- the rules --

    def _key(self, instance, run_id):
        name, checked = check_names(instance, run_id)
        return {"instance": name, "run_id": checked}

    def _event(self, row):
        return {**self._decode(row["payload"]), "seq": int(row["seq"])}

    def _run(self, db, key):
        run = db.execute(self.RUN, key).fetchone()
        if run is None:
            raise RunNotFound
        return run

    def _active(self, db, key):
        run = self._run(db, key)
        if run["state"] in ("completed", "failed"):
            raise RunNotActive
        return run

    def _fence(self, run, token):
        if run["token"] != token:
            raise LeaseMismatch

    def _held(self, db, key, held):
        run = self._active(db, key)
        if (run["token"], run["owner"]) != (held.token, held.owner):
            raise LeaseLost

    def _expiry(self, ttl):
        return time.time() + ttl if ttl > 0 else 0.0


class SqlHarness:
    """Opens handles on one file in the kit's directory."""

    capabilities = frozenset({"durable", "shared", "leases", "snapshots", "rich_terms", "opaque_run_ids"})
    needs = "directory"
    directory: str
    journal_class = SqlJournal

    def open(self):
        """One more handle."""
        return self.journal_class(str(Path(self.directory) / "journal.db"))

    def close(self, journal):
        """Close it."""
        journal.close()


harness_for(SqlJournal, SqlHarness)


# -- wrong statements --


@wrong("LOD-1", message=r"the seqs read 0, 1, 10", harness=SqlHarness)
class SeqInATextColumn(SqlJournal):
    """seq TEXT: it sorts as text, and 10 comes before 2."""

    SEQ = "TEXT"


@wrong(
    "CLK-2",
    message=r"the seqs read",
    harness=SqlHarness,
    seen_in="https://github.com/prooph/event-store/pull/109",
)
class OrderedByCreatedAt(SqlJournal):
    """ORDER BY created_at, the column that every table has."""

    LOAD = SqlJournal.LOAD.replace("ORDER BY seq", "ORDER BY created_at, rowid")


@wrong(
    "LOD-1",
    message=r"the seqs read",
    harness=SqlHarness,
    seen_in="https://github.com/akkadotnet/Akka.Persistence.Sql/issues/176",
)
class NoOrderAtAll(SqlJournal):
    """No ORDER BY: the rows came in order as long as the planner read the table from its beginning."""

    LOAD = SqlJournal.LOAD.replace("ORDER BY seq", "ORDER BY length(payload), seq")


@wrong(
    "LOD-1", message=r"the history has fewer events than it must: 1000 instead of 1500", harness=SqlHarness
)
class LimitLeftIn(SqlJournal):
    """A LIMIT 1000 that was meant for the admin page."""

    LOAD = f"{SqlJournal.LOAD} LIMIT 1000"


@wrong(
    "RUN-8",
    "ISO-1",
    message=r"where there is none|RunAlreadyExists",
    harness=SqlHarness,
    seen_in="https://github.com/apache/airflow/pull/18072",
)
class CollationNocase(SqlJournal):
    """The column's collation ignores case, as MySQL's default does."""

    NAME = "TEXT COLLATE NOCASE"


@wrong("RUN-8", "ISO-1", message=r"where there is none|RunAlreadyExists", harness=SqlHarness)
class CollationRtrim(SqlJournal):
    """CHAR columns are padded with blanks, which comparisons ignore."""

    NAME = "TEXT COLLATE RTRIM"


@wrong("RUN-8", message=r"where there is none|found", harness=SqlHarness)
class RunFoundByLike(SqlJournal):
    """LIKE in place of =, so that the same query serves a search: _ and % match others."""

    RUN = "SELECT * FROM runs WHERE instance = :instance AND run_id LIKE :run_id"


@wrong("ISO-1", message=r"the history|RunAlreadyExists|IntegrityError|raised", harness=SqlHarness)
class EventsWithoutInstance(SqlJournal):
    """WHERE run_id = ... in load: the instance was added to the schema later."""

    LOAD = "SELECT seq, payload FROM events WHERE run_id = :run_id ORDER BY seq"


@wrong("ISO-1", message=r"the run is (completed|failed)", harness=SqlHarness)
class FinishWithoutInstance(SqlJournal):
    """UPDATE runs ... WHERE run_id = ...: the instance was forgotten in one statement."""

    FINISH = SqlJournal.FINISH.replace("instance = :instance AND ", "")


@wrong("SNP-12", "ISO-1", message=r"snapshot", harness=SqlHarness)
class SnapshotWithoutInstance(SqlJournal):
    """The latest snapshot is looked up by run id alone."""

    LATEST = SqlJournal.LATEST.replace("instance = :instance AND ", "")


@wrong("SNP-3", message=r"is latest", harness=SqlHarness)
class LatestByTakenAtColumn(SqlJournal):
    """ORDER BY taken_at DESC LIMIT 1."""

    LATEST = SqlJournal.LATEST.replace("through_seq DESC", "taken_at DESC")


@wrong("SNP-2", message=r"the history", harness=SqlHarness)
class AtOrAfter(SqlJournal):
    """seq >= :through_seq."""

    AFTER = SqlJournal.AFTER.replace("seq > :", "seq >= :")


@wrong("ISO-2", message=r"the run is suspended, but it must be running", harness=SqlHarness)
class SuspendsTheWholeInstance(SqlJournal):
    """UPDATE without the run's id."""

    SUSPEND = "UPDATE runs SET state = 'suspended' WHERE instance = :instance AND state = 'running'"


@wrong("LEA-4", message=r"is not greater than", harness=SqlHarness)
class TokenFromTheLeaseColumn(SqlJournal):
    """token = coalesce(token, 0) + 1, where a release sets the token to NULL."""

    ACQUIRE = SqlJournal.ACQUIRE.replace(
        "token = last_token + 1, last", "token = coalesce(token, 0) + 1, last"
    )


@wrong("FIN-2", message=r"the run's result changed", harness=SqlHarness)
class ResultInTheInputColumn(SqlJournal):
    """fail writes the error into the result's column as well."""

    FINISH = SqlJournal.FINISH.replace("result = :result", "result = coalesce(:result, :error)")


# -- wrong use of the driver --


@wrong(
    "ATM-2",
    "APP-2",
    message=r"an exception that is no contract error, IntegrityError",
    harness=SqlHarness,
    seen_in="https://github.com/JasperFx/marten/issues/1465",
)
class DuplicateLeaksIntegrityError(SqlJournal):
    """The primary key refuses a duplicate seq; IntegrityError goes to the caller."""

    def _insert(self, db, key, run, seq, payload):
        if seq is not None and not 0 <= seq <= run["next_seq"]:
            raise SequenceConflict
        seq = run["next_seq"] if seq is None else seq
        db.execute(self.APPEND, {**key, "seq": seq, "payload": payload, "now": 0})


@wrong(
    "ATM-2",
    "RUN-2",
    message=r"an exception that is no contract error, IntegrityError",
    harness=SqlHarness,
    seen_in="https://github.com/celery/django-celery-results/issues/175",
)
class StartLeaksIntegrityError(SqlJournal):
    """A second start runs into the primary key, and nobody translates what the driver says."""

    def start_run(self, instance, run_id, workflow, input):
        key = self._key(instance, run_id)
        check_name(workflow, "the workflow")
        payload = self._encode(input, "input")
        with self._transaction() as db:
            db.execute(self.START, {**key, "workflow": workflow, "input": payload})


@wrong("ATM-2", "APP-2", message=r"an exception that is no contract error, OverflowError", harness=SqlHarness)
class HugeSeqOverflows(SqlJournal):
    """A seq beyond 64 bits goes to the driver, which raises OverflowError."""

    def _insert(self, db, key, run, seq, payload):
        db.execute("SELECT :seq", {"seq": seq})
        super()._insert(db, key, run, seq, payload)


@wrong(
    "ATM-3",
    message=r"OperationalError",
    harness=SqlHarness,
    seen_in="https://github.com/cardstack/boxel/pull/4405",
)
class DeadTransactionLeftInThePool(SqlJournal):
    """A refused write returns its connection without a rollback; the next to get it is in a transaction already."""

    def _connect(self):
        db = super()._connect()
        db.execute("PRAGMA busy_timeout=20")
        return db

    @contextmanager
    def _transaction(self):
        db = self._pool.get(timeout=2)
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.commit()
        finally:
            self._pool.put(db)


@wrong(
    "ATM-3",
    message=r"JournalUnavailable: no connection came free",
    harness=SqlHarness,
    seen_in="https://github.com/canonical/test_observer/pull/571",
)
class PoolLeak(SqlJournal):
    """A refused write keeps its connection: the pool is empty after a few."""

    @contextmanager
    def _transaction(self):
        try:
            db = self._pool.get(timeout=0.05)
        except queue.Empty:
            raise JournalUnavailable("no connection came free") from None
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.commit()
        except BaseException:
            db.rollback()
            raise
        self._pool.put(db)


@wrong("ATM-3", message=r"did not come back", harness=SqlHarness, limit=1.0)
class PoolLeakWaitsForEver(SqlJournal):
    """As above, and who finds the pool empty waits without a limit."""

    @contextmanager
    def _transaction(self):
        db = self._pool.get()
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.commit()
        except BaseException:
            db.rollback()
            raise
        self._pool.put(db)


@wrong("APP-9", message=r"the history has more events|the seqs read|raised", harness=SqlHarness)
class CommitsWhatItRefuses(SqlJournal):
    """The error is raised inside `with`, whose end commits: the counter has gone up by then."""

    @contextmanager
    def _transaction(self):
        db = self._pool.get(timeout=2)
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
        finally:
            db.commit()
            self._pool.put(db)

    def append(self, instance, run_id, event, lease_token):
        key = self._key(instance, run_id)
        token = check_token(lease_token)
        checked, seq = check_event(event)
        payload = self._encode(checked, "event")
        with self._transaction() as db:
            run = self._active(db, key)
            db.execute(self.COUNT, key)
            self._fence(run, token)
            self._insert(db, key, run, seq, payload)


# -- wrong durability --


@wrong("DUR-1", message=r"found nothing|second process|unknown|fewer", harness=SqlHarness)
class DurableOnlyInName(SqlJournal):
    """The tests ran on sqlite:///:memory: with a shared cache, and the setting stayed."""

    def _connect(self):
        name = f"file:{abs(hash(self._path))}?mode=memory&cache=shared"
        self.__dict__.setdefault("_kept", []).append(
            _KEPT.setdefault(name, sqlite3.connect(name, uri=True, check_same_thread=False))
        )
        db = sqlite3.connect(name, timeout=2, isolation_level=None, check_same_thread=False, uri=True)
        db.row_factory = sqlite3.Row
        return db


_KEPT: dict = {}


@wrong("DUR-1", message=r"fewer|found nothing|the run is|raised", harness=SqlHarness)
class TemporaryEvents(SqlJournal):
    """CREATE TEMP TABLE: the events live as long as the connection."""

    def _connect(self):
        db = super()._connect()
        db.execute("CREATE TEMP TABLE IF NOT EXISTS lost (x)")
        return db

    def close(self):
        with self._transaction() as db:
            db.execute("DELETE FROM events WHERE seq >= 2")
        super().close()


@wrong("DUR-1", message=r"LeaseMismatch|LeaseHeld|LeaseLost|was accepted", harness=SqlHarness)
class LeasesClearedAtOpen(SqlJournal):
    """Opening the journal releases all leases: after a restart nobody can hold one, it was thought."""

    def __init__(self, path):
        super().__init__(path)
        if not _OPENED.get(path):
            _OPENED[path] = True
            with self._transaction() as db:
                db.execute("UPDATE runs SET token = NULL, owner = NULL, expires_at = NULL")


_OPENED: dict = {}


# -- wrong codecs --


class _Json(SqlJournal):
    """Stores JSON, with what the standard library makes of things."""

    def _encode(self, term, root):
        from continuum_conformance.contract.terms import check_durable

        check_durable(term, root)
        return json.dumps(self._packed(term), default=self._default).encode()

    def _decode(self, payload):
        return self._unpacked(json.loads(payload))

    def _packed(self, term):
        return term

    def _unpacked(self, term):
        return term

    def _default(self, value):
        return str(value)


@wrong("TRM-1", "TRM-2", message=r"became", harness=SqlHarness)
class PlainJson(_Json):
    """json.dumps(default=str): the first thing that comes to mind."""


@wrong("TRM-1", message=r"\(bytes\) became", harness=SqlHarness, without={"rich_terms"})
class JsonWithoutBytes(_Json):
    """Rich terms are left undeclared, but bytes are plain terms too."""


@wrong("FIN-6", "TRM-1", message=r"became|changed", harness=SqlHarness)
class EmptyPayloadIsNull(SqlJournal):
    """An empty or false term is stored as NULL to save space."""

    def _encode(self, term, root):
        return super()._encode(term, root) if term or root in ("event", "snapshot.steps_by_seq") else None


@wrong("TRM-3", message=r"NotDurable names the path 'snapshot\.steps_by_seq", harness=SqlHarness)
class PathWithoutStep(SqlJournal):
    """The path of a snapshot's offender does not say in which step it stands."""

    def take_snapshot(self, instance, snapshot):
        try:
            super().take_snapshot(instance, snapshot)
        except NotDurable as error:
            raise NotDurable(path="snapshot.steps_by_seq", kind=error.kind) from error


@wrong("RUN-7", message=r"was accepted, though InvalidArgument", harness=SqlHarness)
class NamesCoerced(SqlJournal):
    """str(run_id), so that integers and UUIDs work as ids too."""

    def _key(self, instance, run_id):
        try:
            return super()._key(instance, run_id)
        except InvalidArgument:
            if isinstance(run_id, (int, float)) and not isinstance(run_id, bool):
                return super()._key(instance, str(run_id))
            raise
