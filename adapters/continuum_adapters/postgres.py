"""A journal in PostgreSQL, over SQLAlchemy Core and psycopg 3.

**One round trip.** A successful append, suspend, complete, fail, renew and release is one statement, sent
prepared and outside of a transaction block, so that the server commits it before it answers (`prepared`). A
statement that finds nothing to do changes nothing; a second one asks why (`_EXPLAIN`).

**Fencing is inside the statement that writes.** Each write is an ``UPDATE`` of the run's row, guarded by the
run's state and token; an append inserts its event from what that update returns. The update locks the row, and
PostgreSQL tests the guard again on the newest version of the row after it has waited for it, so that whoever
comes second is judged by what the first left behind. (A guarded ``INSERT ... SELECT`` locks nothing and is not
safe.) The row also counts the events: seqs are dense without a lock on more than their run.

**Leases run by the server's clock, read after the lock is held.** A plain ``UPDATE ... SET expires_at =
clock_timestamp() + ttl`` computes its values, then waits for the row, and keeps them when the holder of the lock
rolled back: a lease would be born shortened. So `_ACQUIRE` and `_RENEW` lock the row first, in a CTE of their
own. That row also tells why nothing was granted.

**Any statement may be sent again when it was rolled back** by a deadlock or the like, since it stands alone.

Decisions that the contract leaves open: a finish ends the lease, so that `load_with_snapshot` of a terminal run
answers None with the pair and any token with ``LeaseMismatch``; a closed handle refuses every call. The tables
live in the first schema of the user's search path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    and_,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from continuum_adapters.codec import decode, encode, encode_checked
from continuum_adapters.operations import operation
from continuum_adapters.prepared import Database, Row, Statement
from continuum_conformance.contract import (
    Event,
    Instance,
    JournalUnavailable,
    Lease,
    LeaseHeld,
    LeaseLost,
    LeaseMismatch,
    Run,
    RunAlreadyExists,
    RunNotActive,
    RunNotFound,
    RunState,
    SequenceConflict,
    Snapshot,
    SnapshotConflict,
    Term,
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

__all__ = ["PostgresHarness", "PostgresJournal"]

# -- the tables --

_metadata = MetaData()
_NAME = Text(
    collation="C"
)  # equal means equal code point by code point, whatever the database's collation (ISO-1)

_runs = Table(
    "continuum_runs",
    _metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("instance", _NAME, nullable=False),
    Column("run_id", _NAME, nullable=False),
    Column("workflow", _NAME, nullable=False),
    Column("state", Text, nullable=False),
    Column("input", LargeBinary, nullable=False),
    Column("result", LargeBinary),
    Column("error", LargeBinary),
    Column("next_seq", BigInteger, nullable=False, server_default="0"),
    Column("token", BigInteger, comment="null: the run is unleased"),
    Column("last_token", BigInteger, nullable=False, server_default="0", comment="outlives the lease"),
    Column("owner", _NAME),
    Column("expires_at", DateTime(timezone=True), comment="-infinity: takeable at once"),
    UniqueConstraint("instance", "run_id"),
    CheckConstraint("state IN ('running', 'suspended', 'completed', 'failed')"),
    postgresql_with={"fillfactor": 70},  # room for the next version of a row beside the present one (HOT)
)
_events = Table(
    "continuum_events",
    _metadata,
    Column("run", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run", "seq"),
)
_snapshots = Table(
    "continuum_snapshots",
    _metadata,
    Column("run", BigInteger, nullable=False),
    Column("through_seq", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False, comment="[version hash, taken at, steps by seq]"),
    PrimaryKeyConstraint("run", "through_seq"),
)

_SCHEMA_LOCK = 0x636F_6E74_696E_7575
"""The advisory lock under which the tables are created: CREATE TABLE IF NOT EXISTS alone fails when raced."""

# -- the statements --
# Compiled once and executed with every set of values: a constant is a literal_column, since a plain one would
# become a parameter.

_PAYLOAD = bindparam("payload", type_=LargeBinary)
_THROUGH_SEQ = bindparam("through_seq", type_=BigInteger)
_ttl = bindparam("ttl", type_=BigInteger)  # microseconds

_THE_RUN = and_(_runs.c.instance == bindparam("instance"), _runs.c.run_id == bindparam("run_id"))
_IS_ACTIVE = _runs.c.state.in_([literal_column("'running'"), literal_column("'suspended'")])
_IS_FENCED_IN = _runs.c.token.is_not_distinct_from(bindparam("token"))
_IS_HELD = and_(_runs.c.token == bindparam("token"), _runs.c.owner == bindparam("owner"))
_NO_LEASE = {_runs.c.token: null(), _runs.c.owner: null(), _runs.c.expires_at: null()}

_START = Statement(
    upsert(_runs)
    .values(
        instance=bindparam("instance"),
        run_id=bindparam("run_id"),
        workflow=bindparam("workflow"),
        state=literal_column("'running'"),
        input=bindparam("input"),
    )
    .on_conflict_do_nothing()
    .returning(_runs.c.id),
    writes=True,
)

_GET = Statement(
    select(_runs.c.workflow, _runs.c.state, _runs.c.input, _runs.c.result, _runs.c.error).where(_THE_RUN),
)

_counted = (
    update(_runs)
    .where(
        _THE_RUN,
        _IS_ACTIVE,
        _IS_FENCED_IN,
        or_(bindparam("seq", type_=BigInteger).is_(None), _runs.c.next_seq == bindparam("seq")),
    )
    .values(next_seq=_runs.c.next_seq + literal_column("1"))
    .returning(_runs.c.id, (_runs.c.next_seq - literal_column("1")).label("seq"))
    .cte("counted")
)
_APPEND = Statement(
    insert(_events)
    .from_select(["run", "seq", "payload"], select(_counted.c.id, _counted.c.seq, _PAYLOAD))
    .returning(_events.c.seq),
    writes=True,
)

_LOAD = Statement(
    select(_events.c.seq, _events.c.payload)
    .where(_events.c.run == select(_runs.c.id).where(_THE_RUN).scalar_subquery())
    .order_by(_events.c.seq),
)

# The run, its latest snapshot and the events after it, of one moment since of one statement. Which of the three
# a row is, its first column says.
_RUN_ROW, _SNAPSHOT_ROW, _EVENT_ROW = range(3)
_run = select(_runs.c.id, _IS_FENCED_IN.label("fenced_in")).where(_THE_RUN).cte("run")
_latest = (
    select(_snapshots.c.through_seq, _snapshots.c.payload)
    .join(_run, _snapshots.c.run == _run.c.id)
    .where(_run.c.fenced_in)
    .order_by(_snapshots.c.through_seq.desc())
    .limit(literal_column("1"))
    .cte("latest")
)
_LOAD_WITH_SNAPSHOT = Statement(
    union_all(
        select(
            literal_column(str(_RUN_ROW), Integer),
            cast(case((_run.c.fenced_in, literal_column("1")), else_=literal_column("0")), BigInteger),
            cast(null(), LargeBinary),
        ),
        select(literal_column(str(_SNAPSHOT_ROW), Integer), _latest.c.through_seq, _latest.c.payload),
        select(literal_column(str(_EVENT_ROW), Integer), _events.c.seq, _events.c.payload)
        .join(_run, _events.c.run == _run.c.id)
        .where(
            _run.c.fenced_in,
            _events.c.seq
            > func.coalesce(select(_latest.c.through_seq).scalar_subquery(), literal_column("-1")),
        ),
    ),
)

_TAKE_SNAPSHOT = Statement(
    upsert(_snapshots)
    .from_select(
        ["run", "through_seq", "payload"],
        select(_runs.c.id, _THROUGH_SEQ, _PAYLOAD).where(
            _THE_RUN,
            _THROUGH_SEQ.between(literal_column("0"), _runs.c.next_seq - literal_column("1")),
        ),
    )
    .on_conflict_do_nothing()
    .returning(_snapshots.c.through_seq),
    writes=True,
)

_GET_SNAPSHOT = Statement(
    select(_runs.c.next_seq, _snapshots.c.payload)
    .join(
        _snapshots,
        and_(_snapshots.c.run == _runs.c.id, _snapshots.c.through_seq == _THROUGH_SEQ),
        isouter=True,
    )
    .where(_THE_RUN),
)

_SUSPEND = Statement(
    update(_runs)
    .where(_THE_RUN, _IS_ACTIVE, _IS_FENCED_IN)
    .values(state=literal_column("'suspended'"))
    .returning(_runs.c.id),
    writes=True,
)

_FINISH = Statement(
    update(_runs)
    .where(_THE_RUN, _IS_ACTIVE, _IS_FENCED_IN)
    .values(
        {
            _runs.c.state: bindparam("state"),
            _runs.c.result: bindparam("result"),
            _runs.c.error: bindparam("error"),
            **_NO_LEASE,
        }
    )
    .returning(_runs.c.id),
    writes=True,
)

# Acquire and renew: the row is locked before the clock is read (LEA-9).
_locked = (
    select(_runs.c.id, _runs.c.state, _runs.c.token, _runs.c.owner, _runs.c.expires_at)
    .where(_THE_RUN)
    .with_for_update()
    .cte("locked")
    .prefix_with("MATERIALIZED")
)
_EXPIRY = case(
    (_ttl == literal_column("0"), literal_column("'-infinity'::timestamptz")),
    else_=func.clock_timestamp() + _ttl * literal_column("interval '1 microsecond'"),
)

_acquired = (
    update(_runs)
    .where(
        _runs.c.id == _locked.c.id,
        _locked.c.state.in_([literal_column("'running'"), literal_column("'suspended'")]),
        or_(_locked.c.token.is_(None), _locked.c.expires_at <= func.clock_timestamp()),
    )
    .values(
        token=_runs.c.last_token + literal_column("1"),
        last_token=_runs.c.last_token + literal_column("1"),
        owner=bindparam("owner"),
        expires_at=_EXPIRY,
    )
    .returning(_runs.c.token)
    .cte("acquired")
)
_ACQUIRE = Statement(
    select(_locked.c.state, _locked.c.owner, _acquired.c.token).select_from(
        _locked.outerjoin(_acquired, true())
    ),
    writes=True,
)

_renewed = (
    update(_runs)
    .where(
        _runs.c.id == _locked.c.id,
        _locked.c.token == bindparam("token"),
        _locked.c.owner == bindparam("owner"),
    )
    .values(expires_at=_EXPIRY)
    .returning(_runs.c.token)
    .cte("renewed")
)
_RENEW = Statement(
    select(_locked.c.state, _renewed.c.token).select_from(_locked.outerjoin(_renewed, true())),
    writes=True,
)

_RELEASE = Statement(
    update(_runs).where(_THE_RUN, _IS_HELD).values(_NO_LEASE).returning(_runs.c.id),
    writes=True,
)

_EXPLAIN = Statement(
    select(_runs.c.state, _runs.c.token, _runs.c.owner, _runs.c.next_seq).where(_THE_RUN),
)

# -- the journal --


class PostgresJournal:
    """A handle on the journal in one database; it creates its tables where they are missing.

    Args:
        dsn: a ``postgresql://`` URI, or anything else that libpq takes.
        pool_size: how many connections to hold at most; threads beyond that wait for one another.

    Raises:
        JournalUnavailable: the database cannot be reached.
    """

    def __init__(self, dsn: str, *, pool_size: int = 10) -> None:
        self._database = Database(dsn, pool_size)
        try:
            with self._database.transaction() as connection:
                connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
                encoding = connection.scalar(select(func.getdatabaseencoding()))
                if encoding != "UTF8":
                    raise JournalUnavailable(f"the database is in {encoding}; a journal needs UTF8")
                _metadata.create_all(connection)
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the connections, and refuse every later call."""
        self._database.close()

    # -- runs --

    @operation
    def start_run(self, instance: Instance, run_id: str, workflow: str, input: Term) -> None:  # noqa: A002
        """See ``Journal.start_run``."""
        name, run_id = check_names(instance, run_id)
        check_name(workflow, "the workflow")
        payload = encode(input, "input")
        if not self._database.run(_START, instance=name, run_id=run_id, workflow=workflow, input=payload):
            raise RunAlreadyExists

    @operation
    def get_run(self, instance: Instance, run_id: str) -> Run | None:
        """See ``Journal.get_run``."""
        name, run_id = check_names(instance, run_id)
        rows = self._database.run(_GET, instance=name, run_id=run_id)
        if not rows:
            return None
        workflow, state, *payloads = rows[0]
        terms = [None if payload is None else decode(payload) for payload in payloads]
        return Run(run_id, workflow, RunState(state), *terms)

    # -- history --

    @operation
    def append(
        self, instance: Instance, run_id: str, event: Mapping[str, Any], lease_token: int | None
    ) -> None:
        """See ``Journal.append``."""
        name, run_id = check_names(instance, run_id)
        token = check_token(lease_token)
        checked, seq = check_event(event)
        payload = encode_checked(checked, "event")
        while not self._database.run(
            _APPEND, instance=name, run_id=run_id, token=_bigint(token), seq=_bigint(seq), payload=payload
        ):
            self._refuse(name, run_id, token, seq)

    @operation
    def load(self, instance: Instance, run_id: str) -> list[Event]:
        """See ``Journal.load``."""
        name, run_id = check_names(instance, run_id)
        rows = self._database.run(_LOAD, instance=name, run_id=run_id)
        return [_event(seq, payload) for seq, payload in rows]

    @operation
    def load_with_snapshot(
        self, instance: Instance, run_id: str, lease_token: int | None
    ) -> tuple[Snapshot | None, list[Event]]:
        """See ``Journal.load_with_snapshot``."""
        name, run_id = check_names(instance, run_id)
        token = check_token(lease_token)
        rows = self._database.run(_LOAD_WITH_SNAPSHOT, instance=name, run_id=run_id, token=_bigint(token))
        if not rows:
            raise RunNotFound
        rows.sort(key=lambda row: row[:2])
        (_, fenced_in, _), *rows = rows
        if not fenced_in:
            raise LeaseMismatch(f"the token {token} is not the run's")
        snapshot = None
        if rows and rows[0][0] == _SNAPSHOT_ROW:
            (_, through_seq, payload), *rows = rows
            snapshot = Snapshot(run_id, through_seq, *decode(payload))
        return snapshot, [_event(seq, payload) for _, seq, payload in rows]

    @operation
    def take_snapshot(self, instance: Instance, snapshot: Snapshot) -> None:
        """See ``Journal.take_snapshot``."""
        checked = check_snapshot(snapshot)
        name, run_id = check_names(instance, checked.run_id)
        content = [bytes(checked.version_hash), _plain(checked.taken_at), dict(checked.steps_by_seq)]
        payload = encode_checked(content, "snapshot")
        run = {"instance": name, "run_id": run_id, "through_seq": _bigint(checked.through_seq)}
        while not self._database.run(_TAKE_SNAPSHOT, **run, payload=payload):
            rows = self._database.run(_GET_SNAPSHOT, **run)
            if not rows:
                raise RunNotFound
            [(next_seq, first)] = rows
            if first is not None:
                # Snapshots are never changed, so that comparing needs no lock.
                version_hash, _, steps = decode(first)
                if version_hash == content[0] and equal(steps, content[2]):
                    return
                raise SnapshotConflict(
                    f"it differs from the one taken first through seq {checked.through_seq}"
                )
            if not 0 <= checked.through_seq < next_seq:
                raise SnapshotConflict(f"{checked.through_seq} is no seq of the history of {next_seq} events")

    # -- transitions --

    @operation
    def suspend(self, instance: Instance, run_id: str, lease_token: int | None) -> None:
        """See ``Journal.suspend``."""
        name, run_id = check_names(instance, run_id)
        token = check_token(lease_token)
        while not self._database.run(_SUSPEND, instance=name, run_id=run_id, token=_bigint(token)):
            self._refuse(name, run_id, token)

    @operation
    def complete(self, instance: Instance, run_id: str, result: Term, lease_token: int | None) -> None:
        """See ``Journal.complete``."""
        name, run_id = check_names(instance, run_id)
        token = check_token(lease_token)
        self._finish(name, run_id, token, RunState.COMPLETED, result=encode(result, "result"))

    @operation
    def fail(self, instance: Instance, run_id: str, error: Term, lease_token: int | None) -> None:
        """See ``Journal.fail``."""
        name, run_id = check_names(instance, run_id)
        token = check_token(lease_token)
        self._finish(name, run_id, token, RunState.FAILED, error=encode(error, "error"))

    def _finish(
        self,
        name: str,
        run_id: str,
        token: int | None,
        state: RunState,
        *,
        result: bytes | None = None,
        error: bytes | None = None,
    ) -> None:
        while not self._database.run(
            _FINISH,
            instance=name,
            run_id=run_id,
            token=_bigint(token),
            state=state.value,
            result=result,
            error=error,
        ):
            self._refuse(name, run_id, token)

    def _refuse(self, name: str, run_id: str, token: int | None, seq: int | None = None) -> None:
        """Raise the reason for which a guarded write found nothing to change.

        Without one it returns: what stood in the way (a lease in its release, say) is gone, and the caller tries
        again.
        """
        its_token, _, next_seq = self._explain(name, run_id)
        if token != its_token:
            raise LeaseMismatch(f"the token {token} is not the run's")
        if seq is not None and seq != next_seq:
            raise SequenceConflict(f"seq {seq} given, {next_seq} is next")

    def _explain(self, name: str, run_id: str) -> Row:
        """The token, owner and next seq of an active run."""
        rows = self._database.run(_EXPLAIN, instance=name, run_id=run_id)
        if not rows:
            raise RunNotFound
        [(state, *rest)] = rows
        _require_active(state)
        return tuple(rest)

    # -- leases --

    @operation
    def acquire(self, instance: Instance, run_id: str, owner: str, ttl: float) -> Lease:
        """See ``Journal.acquire``."""
        name, run_id = check_names(instance, run_id)
        check_name(owner, "the owner")
        rows = self._database.run(
            _ACQUIRE, instance=name, run_id=run_id, owner=owner, ttl=_microseconds(check_ttl(ttl))
        )
        if not rows:
            raise RunNotFound
        [(state, holder, token)] = rows
        if token is None:
            _require_active(state)
            raise LeaseHeld(f"{holder!r} holds the lease")
        return Lease(run_id, owner, token)

    @operation
    def renew(self, instance: Instance, lease: Lease, ttl: float) -> Lease:
        """See ``Journal.renew``."""
        held = check_lease(lease)
        name, run_id = check_names(instance, held.run_id)
        rows = self._database.run(
            _RENEW,
            instance=name,
            run_id=run_id,
            owner=held.owner,
            token=_bigint(held.token),
            ttl=_microseconds(check_ttl(ttl)),
        )
        if not rows:
            raise RunNotFound
        [(state, token)] = rows
        if token is None:
            _require_active(state)
            raise LeaseLost
        return held

    @operation
    def release(self, instance: Instance, lease: Lease) -> None:
        """See ``Journal.release``."""
        held = check_lease(lease)
        name, run_id = check_names(instance, held.run_id)
        while not self._database.run(
            _RELEASE, instance=name, run_id=run_id, owner=held.owner, token=_bigint(held.token)
        ):
            token, owner, _ = self._explain(name, run_id)
            if (token, owner) != (held.token, held.owner):
                raise LeaseLost


def _require_active(state: str) -> None:
    if RunState(state).terminal:
        raise RunNotActive(f"the run is {state}")


def _bigint(number: int | None) -> int | None:
    """A token or seq for the server. One that no bigint holds becomes -1, which is never a token nor a seq either."""
    return number if number is None or -(2**63) <= number < 2**63 else -1


def _microseconds(ttl: float) -> int:
    """A ttl in the server's granularity, never shorter than asked (LEA-5)."""
    return math.ceil(Fraction(ttl) * 1_000_000)


def _event(seq: int, payload: bytes) -> Event:
    event: Event = decode(payload)
    event["seq"] = seq
    return event


def _plain(moment: datetime) -> datetime:
    """An aware datetime as one that the payload format has, whatever subclass and zone it came in."""
    return datetime.combine(moment.date(), moment.time(), timezone(moment.utcoffset() or timedelta()))


class PostgresHarness:
    """Opens handles on the database of `dsn`, which the kit sets before each `open`."""

    capabilities = frozenset(
        {"durable", "crash_safe", "shared", "leases", "snapshots", "rich_terms", "opaque_run_ids"}
    )
    needs = "postgres"
    tables: ClassVar[list[str]] = list(_metadata.tables)
    dsn: str

    def open(self) -> PostgresJournal:
        """A handle with connections of its own."""
        return PostgresJournal(self.dsn)

    def close(self, journal: PostgresJournal) -> None:
        """Close a handle."""
        journal.close()
