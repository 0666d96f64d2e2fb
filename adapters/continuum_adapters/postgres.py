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
from datetime import datetime, timezone
from fractions import Fraction
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
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
    literal,
    null,
    or_,
    select,
    text,
    true,
    tuple_,
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
_NAME = Text(collation="C")  # equal means equal code point by code point, whatever the database's collation (ISO-1)

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

_ACTIVE = (RunState.RUNNING.value, RunState.SUSPENDED.value)


def _given(name: str, column: Column[Any]) -> Any:
    return cast(bindparam(name, type_=column.type), column.type)


_THE_RUN = and_(_runs.c.instance == bindparam("instance"), _runs.c.run_id == bindparam("run_id"))
_IS_ACTIVE = _runs.c.state.in_(_literals := [text(f"'{state}'") for state in _ACTIVE])
