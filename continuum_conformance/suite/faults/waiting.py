"""LEA-9: a lease that is granted after its caller has waited behind somebody's lock.

The proof is one-sided. A takeover that succeeds less than the ttl after the lock was let go, by the store's own
clock, shows a lease that was born expired. One that comes later shows nothing, and is tried again with a longer ttl.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from continuum_conformance.contract.records import Lease
from continuum_conformance.model import Kind, Outcome
from continuum_conformance.postgres.databases import connect
from continuum_conformance.suite.faults.running import CUT, cutting
from continuum_conformance.suite.lab import HOUR, Lab, RunUnderTest, Session
from continuum_conformance.suite.situations import each
from continuum_conformance.suite.testing import checks

if TYPE_CHECKING:
    from continuum_conformance.postgres.gate import Gate

__all__ = ["LONG", "Call", "RowLock", "no_postgres"]

TTLS = (0.4, 1.2, 4.0, 12.0)
"""The ttl that is asked for, and waited for; longer ones where the machine was too slow to show anything."""

LONG = 60.0
"""Seconds that a call may take here: it is kept waiting on purpose."""

SETTLED = 8.0
"""Seconds within which a call has come back, or is seen to wait."""


class _Blocker(ABC):
    """Somebody who holds a lock on a run in PostgreSQL, whose clock the store's leases expire by."""

    told = ""

    def __init__(self, dsn: str) -> None:
        self._connection = connect(dsn)
        self.pid: int | None = None

    def now(self) -> float:
        """The server's time, in seconds."""
        row = self._connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        return float(row[0]) if row else 0.0

    def blocks(self) -> bool:
        """Whether anybody waits for us now."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE %s::int = ANY(pg_blocking_pids(pid))"
        row = self._connection.execute(query, (self.pid,)).fetchone()
        return bool(row and row[0])

    def in_turn(self) -> bool:
        """Whether who waits for us has its turn by an advisory lock: nobody of the adapter's own could make it wait here."""
        query = (
            "SELECT count(*) FROM pg_stat_activity AS a JOIN pg_locks AS l USING (pid)"
            " WHERE %s::int = ANY(pg_blocking_pids(a.pid)) AND l.locktype = 'advisory' AND l.granted"
        )
        row = self._connection.execute(query, (self.pid,)).fetchone()
        return bool(row and row[0])

    @abstractmethod
    def let_go(self) -> None:
        """Let go of the lock, having changed nothing of the lease."""

    def close(self) -> None:
        """Close what was opened."""
        self._connection.close()


TABLES = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1
"""


class RowLock(_Blocker):
    """A foreign session that has locked every row which names the run, and rolls back."""

    told = "another session of the database has locked the run's rows, and rolls back"

    def __init__(self, dsn: str, run: RunUnderTest) -> None:
        super().__init__(dsn)
        self._locker = connect(dsn)
        self.pid = self._locker.info.backend_pid
        self.locked = 0
        self._locker.execute("BEGIN")
        for (table,) in self._locker.execute(TABLES).fetchall():
            # The name comes quoted from the catalogue.
            query = (
                f"SELECT 1 FROM {table} AS t WHERE EXISTS"
                " (SELECT FROM unnest(%s::text[]) AS n WHERE position(n in t::text) > 0) FOR UPDATE OF t"
            )
            self.locked += len(self._locker.execute(query, (_as_stored(run.run_id),)).fetchall())

    def let_go(self) -> None:
        """Roll back."""
        self._locker.execute("ROLLBACK")

    def close(self) -> None:
        """Close both connections."""
        self._locker.close()
        super().close()


def _as_stored(run_id: str) -> list[str]:
    """How an id is told by a row that has it: as text, as bytes, or as the 16 bytes of a UUID."""
    told = [run_id, run_id.encode().hex()]
    return [*told, run_id.replace("-", "")] if len(run_id) == UUID_LENGTH else told


UUID_LENGTH = 36


class _Held(_Blocker):
    """An append of the adapter's own, held at the gate before its COMMIT."""

    told = "an append through another handle has locked the run, and commits"

    def __init__(self, lab: Lab, gate: Gate, run: RunUnderTest) -> None:
        super().__init__(str(lab.session.subject.dsn))
        self._gate = gate
        with lab.arranging():
            run.append(token=run.token, on=CUT)
        before = gate.groups(CUT, every=True)
        with lab.arranging():
            run.append(token=run.token, on=CUT)
        # From the end, because at the last message within the transaction it has all of its locks.
        for number in range(gate.groups(CUT, every=True) - before, 1, -1):
            self._hold = gate.hold(CUT, number, every=True)
            self._append = Call(lambda: run.append(token=run.token, on=CUT))
            while not self._hold.fired.wait(0.01) and not self._append.ended:
                pass
            session = next((s for s in gate.sessions() if s.worker == CUT and s.status == "T"), None)
            if session is not None and self._hold.fired.is_set():
                self.pid = session.pid
                return
            self.let_go()

    def let_go(self) -> None:
        self._gate.no_cuts()
        self._gate.resume(self._hold)
        self._append.result()


class Call:
    """A call in a thread of its own."""

    def __init__(self, act: Callable[[], Outcome]) -> None:
        self._future: Future[Outcome] = Future()
        threading.Thread(target=self._run, args=(act,), name="waiting", daemon=True).start()

    def _run(self, act: Callable[[], Outcome]) -> None:
        try:
            self._future.set_result(act())
        except BaseException as error:  # noqa: BLE001 - raised by `result`
            self._future.set_exception(error)

    @property
    def ended(self) -> bool:
        """Whether it has come back."""
        return self._future.done()

    def join(self, seconds: float) -> None:
        """Wait until it has come back, for so many seconds at most."""
        wait((self._future,), seconds)

    def result(self) -> Outcome:
        """What came of it, once it has come back. Raises what the call raised."""
        return self._future.result()


def _waits(blocker: _Blocker, call: Call, ttl: float) -> bool:
    """Let a call wait for as long as its ttl; whether it did wait."""
    give_up = time.monotonic() + SETTLED
    since: float | None = None
    while not call.ended:
        waits, now = blocker.blocks(), blocker.now()
        if waits and since is None:
            since = now
        if since is None and time.monotonic() > give_up:
            return False
        if since is not None and now - since > ttl:
            return waits
        time.sleep(0.01)  # between two questions
    return False


def _try(lab: Lab, operation: str, blocked: Callable[[RunUnderTest], Any]) -> None:
    for ttl in TTLS:
        run = lab.started(events=1, lease="expired")
        lease = run.lease
        with blocked(run) as blocker:
            if blocker is None:
                return
            arguments: dict[str, Any] = (
                {"lease": lease, "ttl": ttl}
                if operation == "renew"
                else {"run_id": run.run_id, "owner": "bob", "ttl": ttl}
            )
            call = Call(lambda: lab.ask(operation, on="B", limit=LONG, **arguments))  # noqa: B023 - it ends in this turn
            waited = _waits(blocker, call, ttl)
            excused = blocker.in_turn()
            let_go = blocker.now()
            blocker.let_go()
            outcome = call.result()
            if outcome.kind is not Kind.VALUE or not waited or excused:
                return  # it gave up, which the kit's lock is to blame for; or it did not wait at all; or not for its own
            lab.session.faults["leases granted behind a lock"] += 1
            lab.note(f"it has waited for {ttl:g} s: {blocker.told}")
            taken = lab.ask("acquire", on="A", run_id=run.run_id, owner="carol", ttl=HOUR)
            after = blocker.now() - let_go
        if taken.kind is not Kind.VALUE or not isinstance(taken.value, Lease):
            return
        if after < ttl:
            lab.fail(
                f"{operation} waited behind a lock and was granted a lease of {ttl:g} s, and within {ttl:g} s of the"
                f" grant somebody else could take it: the ttl was counted from before the wait"
            )
    lab.advice["LEA-9"] = "this machine is too slow to tell"


def no_postgres(session: Session) -> str:
    """Why nobody can be made to wait while the kit looks on."""
    if "postgres" in session.subject.needs and session.subject.dsn is not None:
        return ""
    return "the kit can tell who waits behind a lock, and by which clock leases expire, only in PostgreSQL"


@checks("LEA-9", cases=each(operation=("acquire", "renew")), when=no_postgres, whole=True)
def a_lease_that_waited_for_a_foreign_lock_gets_its_whole_ttl(lab: Lab, operation: str) -> None:
    """The run's rows are locked by somebody else while a lease is asked for."""

    @contextmanager
    def blocked(run: RunUnderTest) -> Iterator[_Blocker | None]:
        blocker = RowLock(str(lab.session.subject.dsn), run)
        try:
            if not blocker.locked:
                lab.session.remarks[
                    "no row names a run, so nobody was made to wait behind a foreign lock"
                ] += 1
            yield blocker if blocker.locked else None
        finally:
            blocker.close()

    _try(lab, operation, blocked)


@checks("LEA-9", cases=each(operation=("acquire", "renew")), when=no_postgres, whole=True)
def a_lease_that_waited_for_an_append_gets_its_whole_ttl(lab: Lab, operation: str) -> None:
    """An append of another worker has the run's lock, whatever that is, while a lease is asked for."""
    with cutting(lab.session) as gate:

        @contextmanager
        def blocked(run: RunUnderTest) -> Iterator[_Blocker | None]:
            blocker = _Held(lab, gate, run)
            try:
                yield blocker if blocker.pid is not None else None
            finally:
                if blocker.pid is not None:
                    blocker.let_go()
                blocker.close()

        _try(lab, operation, blocked)
