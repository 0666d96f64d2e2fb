"""Exploring an adapter at the gate: every interleaving of its statements, the same each time."""

import contextlib
import itertools
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

import pytest

psycopg = pytest.importorskip("psycopg")

from continuum_adapters.postgres import PostgresHarness, PostgresJournal  # noqa: E402

from continuum_conformance.contract import Instance, JournalError  # noqa: E402
from continuum_conformance.explore.gated import GatedExecutor  # noqa: E402
from continuum_conformance.explore.schedule import Chooser, Execution, Scripted, walk  # noqa: E402
from continuum_conformance.postgres import PostgresServer, provide  # noqa: E402
from continuum_conformance.postgres.gate import Gate  # noqa: E402
from continuum_conformance.postgres.parking import NAME  # noqa: E402

HERE = Instance("here")
FRESH = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with provide("auto") as server:
        yield server


@pytest.fixture(scope="module")
def database(server: PostgresServer) -> str:
    dsn = server.fresh_database()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE runs (id text PRIMARY KEY, token int NOT NULL, n int NOT NULL DEFAULT 0)"
        )
        connection.execute("CREATE TABLE events (run text, seq serial, worker text)")
    return dsn


@pytest.fixture
def direct(database: str) -> Iterator[Any]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def gate(database: str) -> Iterator[Gate]:
    with Gate(database) as gate:
        yield gate


@pytest.fixture
def executor(gate: Gate) -> Iterator[GatedExecutor]:
    with GatedExecutor(gate, limit=20.0) as executor:
        yield executor


def connect(gate: Gate, worker: str, *, autocommit: bool = False) -> Any:
    return psycopg.connect(gate.dsn_for(worker), autocommit=autocommit)


def seen(executions: Sequence[Execution]) -> list[Any]:
    """What two walks have in common when they are the same: choices and what moved, run names apart."""
    return [
        (
            [(c.options, c.taken, c.preemptive) for c in e.choices],
            [(step.worker, step.label.split(" [")[0].split(" <")[0]) for step in e.steps],
            e.waits,
        )
        for e in executions
    ]


def assert_same(these: Sequence[Execution], those: Sequence[Execution]) -> None:
    assert len(these) == len(those)
    for this, that in zip(seen(these), seen(those), strict=True):
        assert this == that


# -- adapters of a few lines --


@dataclass
class Racing:
    """An append by A under the token that B's takeover replaces, before B's own append.

    ``take`` and ``check`` are how the run's row is read in a takeover and in an append.
    """

    gate: Gate
    direct: Any
    check: LiteralString
    take: LiteralString = "SELECT token FROM runs WHERE id = %s FOR UPDATE"
    executions: list[Execution] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connections = {name: connect(self.gate, name) for name in "AB"}

    def append(self, worker: str, run: str, token: int) -> bool:
        connection = self.connections[worker]
        with connection.transaction():
            if connection.execute(self.check, (run,)).fetchone() != (token,):
                return False
            connection.execute("INSERT INTO events (run, worker) VALUES (%s, %s)", (run, worker))
        return True

    def take_over(self, worker: str, run: str) -> int:
        connection = self.connections[worker]
        with connection.transaction():
            (token,) = connection.execute(self.take, (run,)).fetchone()
            connection.execute("UPDATE runs SET token = %s WHERE id = %s", (token + 1, run))
        return int(token) + 1

    def attempt(self, executor: GatedExecutor) -> Callable[[Chooser], tuple[Execution, str | None]]:
        def attempt(chooser: Chooser) -> tuple[Execution, str | None]:
            run = f"run {next(FRESH)}"
            self.direct.execute("INSERT INTO runs VALUES (%s, 1)", (run,))
            execution = executor.run(
                {
                    "A": lambda: self.append("A", run, 1),
                    "B": lambda: self.append("B", run, self.take_over("B", run)),
                },
                chooser,
            )
            assert execution.deadlock is None
            assert execution.hung == {}
            self.executions.append(execution)
            query = "SELECT string_agg(worker, '' ORDER BY seq) FROM events WHERE run = %s"
            (order,) = self.direct.execute(query, (run,)).fetchone()
            return execution, order if order == "BA" else None

        return attempt


LOCKED: LiteralString = "SELECT token FROM runs WHERE id = %s FOR UPDATE"
UNLOCKED: LiteralString = "SELECT token FROM runs WHERE id = %s"


def test_every_interleaving_of_a_locking_adapter_is_walked_and_none_is_wrong(
    gate: Gate, executor: GatedExecutor, direct: Any
) -> None:
    racing = Racing(gate, direct, LOCKED)
    walked = walk(racing.attempt(executor), bound=None)
    assert walked.exhausted
    assert walked.found is None
    assert walked.runs > 10
    assert sum(execution.waits for execution in racing.executions) > 5


def test_the_same_walk_twice_is_the_same(gate: Gate, executor: GatedExecutor, direct: Any) -> None:
    racing = Racing(gate, direct, LOCKED)
    walk(racing.attempt(executor), bound=None)
    first, racing.executions = racing.executions, []
    walk(racing.attempt(executor), bound=None)
    assert executor.client_waits == 0
    assert_same(racing.executions, first)


def test_an_unlocked_check_is_found_within_the_first_schedules_and_replays(
    gate: Gate, executor: GatedExecutor, direct: Any
) -> None:
    racing = Racing(gate, direct, UNLOCKED)
    walked = walk(racing.attempt(executor), bound=1)
    assert walked.found == "BA"
    assert walked.runs <= 12
    schedule = racing.executions[-1].schedule
    assert racing.executions[-1].preemptions <= 1
    for _ in range(5):
        assert racing.attempt(executor)(Scripted(schedule))[1] == "BA"
    assert len({str(one) for one in seen(racing.executions[-6:])}) == 1


def test_what_waits_is_said_to_wait_and_returns_when_it_is_let(
    gate: Gate, executor: GatedExecutor, direct: Any
) -> None:
    racing = Racing(gate, direct, LOCKED)
    # A locks the row, B runs into the lock.
    execution, _ = racing.attempt(executor)(Scripted([0, 1]))
    shown = [(step.worker, re.sub(r" \[.*\]", "", step.label)) for step in execution.steps]
    lock = "SELECT token FROM runs WHERE id = $1 FOR UPDATE"
    assert shown[:6] == [
        ("A", lock),
        ("B", lock),
        ("B", f"{lock} <waiting ...>"),
        ("A", "INSERT INTO events (run, worker) VALUES ($1, $2)"),
        ("A", "COMMIT"),
        ("B", f"{lock} <returns>"),
    ]
    assert execution.waits == 1


# -- the reference adapter --


@dataclass
class Reference:
    executor: GatedExecutor
    gate: Gate
    direct: PostgresJournal

    def __post_init__(self) -> None:
        self.journals = {name: PostgresJournal(self.gate.dsn_for(name)) for name in "AB"}
        self.executions: list[Execution] = []

    def attempt(self, chooser: Chooser) -> tuple[Execution, str | None]:
        run = f"run {next(FRESH)}"
        self.direct.start_run(HERE, run, "flow", None)
        token = self.direct.acquire(HERE, run, "a", 0).token
        outcomes: dict[str, str] = {}

        def append(worker: str, token: int) -> None:
            try:
                self.journals[worker].append(HERE, run, {"type": worker}, token)
                outcomes[worker] = "ok"
            except JournalError as error:
                outcomes[worker] = type(error).__name__

        def take_over() -> None:
            append("B", self.journals["B"].acquire(HERE, run, "b", 3600).token)

        execution = self.executor.run({"A": lambda: append("A", token), "B": take_over}, chooser)
        self.executions.append(execution)
        order = "".join(event["type"] for event in self.direct.load(HERE, run))
        expected = {"ok": "AB", "LeaseMismatch": "B"}
        assert outcomes["B"] == "ok"
        return execution, None if expected[outcomes["A"]] == order else f"{outcomes} {order}"

    def close(self) -> None:
        for journal in (self.direct, *self.journals.values()):
            journal.close()


@pytest.fixture(params=[False, True], ids=["statements", "parked"])
def reference(request: pytest.FixtureRequest, server: PostgresServer) -> Iterator[Reference]:
    dsn = server.fresh_database()
    direct = PostgresJournal(dsn)
    parks = PostgresHarness.tables if request.param else ()
    with Gate(dsn) as gate, GatedExecutor(gate, parks=parks) as executor:
        reference = Reference(executor, gate, direct)
        yield reference
        reference.close()


def test_the_reference_adapter_is_exhausted_twice_the_same(reference: Reference) -> None:
    parked = reference.executor.parking is not None
    bound = 1 if parked else None
    reference.attempt(Scripted(()))  # each statement is prepared at its first use
    reference.executions.clear()
    walked = walk(reference.attempt, bound=bound)
    assert walked.exhausted
    assert walked.found is None
    # A's append is one statement, and one more that asks why it was refused; B's are two.
    assert walked.runs >= 10 if parked else walked.runs == 4
    first, reference.executions = reference.executions, []
    walk(reference.attempt, bound=bound)
    assert reference.executor.client_waits == 0
    assert_same(reference.executions, first)


# -- inside a statement --


def guarded(
    gate: Gate, executor: GatedExecutor, direct: Any
) -> Callable[[Chooser], tuple[Execution, str | None]]:
    """A guarded INSERT … SELECT that locks nothing, in autocommit: wrong, and each of its statements is one step."""
    a, b = connect(gate, "A", autocommit=True), connect(gate, "B", autocommit=True)
    append: LiteralString = (
        "INSERT INTO events (run, worker) SELECT id, %s FROM runs WHERE id = %s AND token = %s RETURNING 1"
    )

    def attempt(chooser: Chooser) -> tuple[Execution, str | None]:
        run = f"run {next(FRESH)}"
        direct.execute("INSERT INTO runs VALUES (%s, 1)", (run,))
        done: list[str] = []

        def take_over() -> None:
            b.execute("UPDATE runs SET token = 2 WHERE id = %s", (run,))
            done.append("taken over")

        def act() -> None:
            if a.execute(append, ("A", run, 1)).rowcount:
                done.append("appended")

        execution = executor.run({"A": act, "B": take_over}, chooser)
        # An append under the old token is stored when the takeover was acknowledged before.
        return execution, "late" if done == ["taken over", "appended"] else None

    return attempt


def test_a_race_within_a_statement_shows_only_when_sessions_are_parked(gate: Gate, direct: Any) -> None:
    with GatedExecutor(gate) as executor:
        walked = walk(guarded(gate, executor, direct), bound=None)
        assert (walked.exhausted, walked.found) == (True, None)
    with GatedExecutor(gate, parks=["runs", "events"]) as executor:
        walked = walk(guarded(gate, executor, direct), bound=1)
        assert walked.found == "late"
        assert walked.runs < 10


def test_triggers_are_taken_away_and_hold_nobody_else(gate: Gate, direct: Any) -> None:
    query = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE %s"
    with GatedExecutor(gate, parks=["runs", "events", "no_such_table"]):
        assert direct.execute(query, (NAME + "%",)).fetchone() == (4,)
        direct.execute("INSERT INTO runs VALUES (%s, 1)", (f"run {next(FRESH)}",))
    assert direct.execute(query, (NAME + "%",)).fetchone() == (0,)
    assert direct.execute("SELECT count(*) FROM pg_proc WHERE proname = %s", (NAME,)).fetchone() == (0,)


# -- contention --


def two_rows(direct: Any) -> tuple[str, str]:
    names = (f"row {next(FRESH)}", f"row {next(FRESH)}")
    for name in names:
        direct.execute("INSERT INTO runs VALUES (%s, 1)", (name,))
    return names


def test_a_deadlock_in_the_server_is_ended_by_the_server_and_always_by_the_same_one(
    gate: Gate, executor: GatedExecutor, direct: Any
) -> None:
    a, b = connect(gate, "A"), connect(gate, "B")

    def attempt() -> tuple[list[str], Execution]:
        rows = two_rows(direct)
        victims: list[str] = []

        def update(worker: str, connection: Any, order: Sequence[str]) -> None:
            try:
                with connection.transaction():
                    for row in order:
                        connection.execute("UPDATE runs SET n = n + 1 WHERE id = %s", (row,))
            except psycopg.errors.DeadlockDetected:
                victims.append(worker)

        bodies = {"A": lambda: update("A", a, rows), "B": lambda: update("B", b, rows[::-1])}
        return victims, executor.run(bodies, Scripted([0, 1, 1]))

    results = [attempt() for _ in range(3)]
    assert [victims for victims, _ in results] == [results[0][0]] * 3
    assert len(results[0][0]) == 1
    assert all(execution.deadlock is None and not execution.hung for _, execution in results)


def test_who_will_not_wait_yields_to_the_one_that_is_held(
    gate: Gate, executor: GatedExecutor, direct: Any
) -> None:
    a, b = connect(gate, "A"), connect(gate, "B")
    row, _ = two_rows(direct)
    tries = 0

    def hold() -> None:
        with a.transaction():
            a.execute("SELECT 1 FROM runs WHERE id = %s FOR UPDATE", (row,))
            a.execute("UPDATE runs SET n = n + 1 WHERE id = %s", (row,))

    def insist() -> None:
        nonlocal tries
        for _ in range(400):
            tries += 1
            try:
                with b.transaction():
                    b.execute("SELECT 1 FROM runs WHERE id = %s FOR UPDATE NOWAIT", (row,))
                return
            except psycopg.errors.LockNotAvailable:
                pass

    # A locks the row; then B, and B again for as long as it is offered first.
    execution = executor.run({"A": hold, "B": insist}, Scripted([0, 1]))
    assert tries < 10
    assert "B" in execution.gave_up
    assert not execution.hung


def test_a_lock_timeout_beside_a_held_worker_is_giving_up(
    gate: Gate, executor: GatedExecutor, direct: Any
) -> None:
    a, b = connect(gate, "A"), connect(gate, "B")
    b.execute("SET lock_timeout = '50ms'")
    b.commit()
    row, _ = two_rows(direct)
    errors: list[str] = []

    def hold() -> None:
        with a.transaction():
            a.execute("UPDATE runs SET n = n + 1 WHERE id = %s", (row,))
            a.execute("SELECT n FROM runs")

    def wait() -> None:
        try:
            with b.transaction():
                b.execute("UPDATE runs SET n = n + 1 WHERE id = %s", (row,))
        except psycopg.errors.LockNotAvailable:
            errors.append("lock timeout")

    def slowly(options: Sequence[str], current_first: bool) -> int:
        if options == ["B", "A"] or not current_first:
            return 0
        threading.Event().wait(0.1)  # A is held for longer than B's patience
        return 1 if not errors and "B" in options else 0

    execution = executor.run({"A": hold, "B": wait}, _first_a_then_b(slowly))
    assert execution.gave_up <= {"B"}
    assert not execution.hung


def _first_a_then_b(then: Chooser) -> Chooser:
    script = iter([0, 1])
    return lambda options, current_first: next(script, None) or then(options, current_first)


def test_three_workers_in_a_queue_for_one_row_replay(
    gate: Gate, executor: GatedExecutor, direct: Any
) -> None:
    connections = {name: connect(gate, name) for name in "ABC"}
    executions = []
    for _ in range(3):
        row, _ = two_rows(direct)

        def update(worker: str, row: str = row) -> None:
            with connections[worker].transaction():
                # A leaves the row as it is. Where it changes it, the server wakes both others for the new version.
                act: LiteralString = "SELECT n FROM runs WHERE id = %s FOR UPDATE"
                if worker != "A":
                    act = "UPDATE runs SET n = n + 1 WHERE id = %s"
                connections[worker].execute(act, (row,))

        bodies = {name: lambda name=name: update(name) for name in "ABC"}  # type: ignore[misc]
        executions.append(executor.run(bodies, Scripted([0, 1, 1])))
        assert direct.execute("SELECT n FROM runs WHERE id = %s", (row,)).fetchone() == (2,)
    assert executor.server_chose == 3
    assert len({str(one) for one in seen(executions)}) == 1
    assert executions[0].waits >= 2


# -- waiting in the client --


def test_two_workers_share_one_handle_and_its_only_connection(gate: Gate, direct: Any) -> None:
    with GatedExecutor(gate, listeners={"A": "shared", "B": "shared"}, grace=0.05) as executor:
        connection, lock = connect(gate, "shared"), threading.Lock()
        row, _ = two_rows(direct)

        def update() -> None:
            with lock, connection.transaction():
                connection.execute("UPDATE runs SET n = n + 1 WHERE id = %s", (row,))

        execution = executor.run({"A": update, "B": update}, Scripted((0, 1)))
        assert [step.worker for step in execution.steps if "<" not in step.label] == ["A", "A", "B", "B"]
        assert executor.client_waits == 1
        assert direct.execute("SELECT n FROM runs WHERE id = %s", (row,)).fetchone() == (2,)


def test_a_deadlock_of_threads_hangs_and_shows_both_stacks(gate: Gate, direct: Any) -> None:
    with GatedExecutor(gate, limit=2.0, grace=0.05) as executor:
        connections = {name: connect(gate, name, autocommit=True) for name in "AB"}
        locks = threading.Lock(), threading.Lock()
        release = threading.Event()

        def work(worker: str, first: threading.Lock, second: threading.Lock) -> None:
            with first:
                connections[worker].execute("SELECT n FROM runs")
                connections[worker].execute("SELECT id FROM runs")
                while not release.is_set() and not second.acquire(timeout=0.05):
                    pass

        bodies = {"A": lambda: work("A", *locks), "B": lambda: work("B", *locks[::-1])}
        execution = executor.run(bodies, Scripted((0, 1)))
        release.set()
        assert set(execution.hung) == {"A", "B"}
        assert all("second.acquire" in stack for stack in execution.hung.values())


# -- points, aborts, cleanliness --


def test_points_are_choices_of_their_own(gate: Gate, executor: GatedExecutor) -> None:
    def attempt(chooser: Chooser) -> tuple[Execution, str | None]:
        order: list[str] = []

        def work(worker: str) -> None:
            for number in range(2):
                executor.point(worker, f"operation {number}")
                order.append(worker)

        execution = executor.run({"A": lambda: work("A"), "B": lambda: work("B")}, chooser)
        orders.add("".join(order))
        return execution, None

    orders: set[str] = set()
    assert walk(attempt, bound=None).runs == 6
    assert orders == {"AABB", "ABAB", "ABBA", "BBAA", "BABA", "BAAB"}


def test_a_transaction_that_is_left_open_is_told_and_rolled_back(
    gate: Gate, executor: GatedExecutor, direct: Any
) -> None:
    a = connect(gate, "A")
    row, _ = two_rows(direct)
    execution = executor.run(
        {"A": lambda: a.execute("UPDATE runs SET n = 7 WHERE id = %s", (row,)) and None}, Scripted(())
    )
    assert not execution.hung
    assert len(executor.left_open) == 1
    direct.execute("SET lock_timeout = '1s'")
    direct.execute("UPDATE runs SET n = n + 1 WHERE id = %s", (row,))
    assert direct.execute("SELECT n FROM runs WHERE id = %s", (row,)).fetchone() == (1,)


def test_a_worker_that_waits_for_a_transaction_that_nobody_ends_is_a_deadlock(
    gate: Gate, direct: Any
) -> None:
    with GatedExecutor(gate, limit=2.0) as executor:
        a, b = connect(gate, "A"), connect(gate, "B")
        row, _ = two_rows(direct)

        def forget(connection: Any) -> None:
            with contextlib.suppress(psycopg.OperationalError):  # the kit ends the session
                connection.execute("UPDATE runs SET n = n + 1 WHERE id = %s", (row,))

        execution = executor.run({"A": lambda: forget(a), "B": lambda: forget(b)}, Scripted(()))
        assert execution.deadlock is not None
        assert "UPDATE runs" in execution.deadlock["B"]
        # Everything is rolled back, and the next run starts clean.
        assert direct.execute("SELECT n FROM runs WHERE id = %s", (row,)).fetchone() == (0,)
        c, d = connect(gate, "A", autocommit=True), connect(gate, "B", autocommit=True)
        again = executor.run({"A": lambda: forget(c), "B": lambda: forget(d)}, Scripted(()))
        assert again.deadlock is None
        assert direct.execute("SELECT n FROM runs WHERE id = %s", (row,)).fetchone() == (2,)


def test_a_chooser_that_raises_leaves_nothing_behind(
    gate: Gate, executor: GatedExecutor, direct: Any
) -> None:
    a, b = connect(gate, "A"), connect(gate, "B")
    row, _ = two_rows(direct)

    def update(connection: Any) -> None:
        try:
            with connection.transaction():
                connection.execute("UPDATE runs SET n = n + 1 WHERE id = %s", (row,))
        except psycopg.OperationalError:
            pass

    def choose(options: Sequence[str], current_first: bool) -> int:
        if current_first:
            raise KeyboardInterrupt
        return 0

    with pytest.raises(KeyboardInterrupt):
        executor.run({"A": lambda: update(a), "B": lambda: update(b)}, choose)
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    )
    assert direct.execute(query).fetchone() == (0,)
    assert direct.execute("SELECT n FROM runs WHERE id = %s", (row,)).fetchone() == (0,)
    c = connect(gate, "A")
    assert not executor.run({"A": lambda: update(c)}, Scripted(())).hung


def test_async_workers_on_one_loop(gate: Gate, executor: GatedExecutor, direct: Any) -> None:
    asyncpg = pytest.importorskip("asyncpg")
    import asyncio

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def on_loop(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(10)

    async def make(worker: str) -> Any:
        return await asyncpg.create_pool(gate.dsn_for(worker), min_size=1, max_size=2)

    pools = {name: on_loop(make(name)) for name in "AB"}
    executions: list[Execution] = []

    def attempt(chooser: Chooser) -> tuple[Execution, str | None]:
        row, _ = two_rows(direct)

        async def increment(worker: str) -> None:
            async with pools[worker].acquire() as connection, connection.transaction():
                n = await connection.fetchval("SELECT n FROM runs WHERE id = $1", row)
                await connection.execute("UPDATE runs SET n = $1 WHERE id = $2", n + 1, row)

        bodies = {name: lambda name=name: on_loop(increment(name)) for name in "AB"}  # type: ignore[misc]
        executions.append(executor.run(bodies, chooser))
        (n,) = direct.execute("SELECT n FROM runs WHERE id = %s", (row,)).fetchone()
        return executions[-1], None if n == 2 else "lost update"

    walked = walk(attempt, bound=1)
    assert walked.found == "lost update"
    assert executor.client_waits == 0
    for pool in pools.values():
        on_loop(pool.close())
    loop.call_soon_threadsafe(loop.stop)
