"""The gate before a PostgreSQL: any driver passes through it unharmed, and what is controlled is held."""

import asyncio
import select
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, LiteralString

import pytest

psycopg = pytest.importorskip("psycopg")

import sqlalchemy as sa  # noqa: E402

from continuum_conformance.explore.gated import GatedExecutor  # noqa: E402
from continuum_conformance.explore.schedule import Scripted  # noqa: E402
from continuum_conformance.postgres import PostgresServer, PostgresUnavailable, provide  # noqa: E402
from continuum_conformance.postgres.gate import Gate, Session  # noqa: E402

DEADLINE = 10.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with provide("auto") as server:
        yield server


@pytest.fixture(scope="module")
def database(server: PostgresServer) -> str:
    dsn = server.fresh_database()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (a int PRIMARY KEY, b text)")
    return dsn


@pytest.fixture
def gate(database: str) -> Iterator[Gate]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("TRUNCATE t")
    with Gate(database) as gate:
        yield gate


@pytest.fixture
def direct(database: str) -> Iterator[Any]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def turn(gate: Gate, until: Callable[[], Any]) -> Any:
    """Turn the gate until something holds."""
    deadline = time.monotonic() + DEADLINE
    while not (found := until()):
        if time.monotonic() > deadline:
            raise AssertionError(f"it never came to that: {gate.sessions()}")
        gate.poll(0.05)
    return found


def wait(until: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE
    while not (found := until()):
        if time.monotonic() > deadline:
            raise AssertionError("it never came to that")
        threading.Event().wait(0.005)
    return found


@contextmanager
def controlled(gate: Gate, *workers: str) -> Iterator[None]:
    with gate.driven():
        gate.control(workers)
        try:
            yield
        finally:
            gate.control(())


def held(gate: Gate) -> Callable[[], Session | None]:
    return lambda: next((session for session in gate.sessions() if session.held), None)


def rows(direct: Any) -> list[int]:
    return [a for (a,) in direct.execute("SELECT a FROM t ORDER BY a")]


# -- passing through --


def test_psycopg_passes_with_scram(gate: Gate, direct: Any) -> None:
    assert direct.execute(
        "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'scram-sha-256'"
    ).fetchone() > (0,)
    with psycopg.connect(gate.dsn_for("A")) as connection:
        for number in range(12):  # beyond the fifth it is prepared
            connection.execute("INSERT INTO t VALUES (%s, %s)", (number, "x" * number))
    assert rows(direct) == list(range(12))


def test_a_wrong_password_is_the_servers_to_refuse(gate: Gate) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(gate.dsn_for("A"), password="wrong")


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_sqlalchemy_passes(gate: Gate, direct: Any, driver: str) -> None:
    dsn = gate.dsn_for("A").replace("postgresql://", f"postgresql+{driver}://")
    if driver == "psycopg":
        engine = sa.create_engine(dsn, pool_pre_ping=True)
        with engine.begin() as connection:
            connection.execute(
                sa.text("INSERT INTO t VALUES (:a, :b)"), [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
            )
        engine.dispose()
    else:
        pytest.importorskip("asyncpg")
        pytest.importorskip("greenlet")
        from sqlalchemy.ext.asyncio import create_async_engine

        async def work() -> None:
            engine = create_async_engine(dsn)
            async with engine.begin() as connection:
                await connection.execute(sa.text("INSERT INTO t VALUES (1, 'x'), (2, 'y')"))
            await engine.dispose()

        asyncio.run(work())
    assert rows(direct) == [1, 2]


def test_asyncpg_passes(gate: Gate, direct: Any) -> None:
    asyncpg = pytest.importorskip("asyncpg")

    async def work() -> int:
        async with asyncpg.create_pool(gate.dsn_for("A"), min_size=2) as pool:
            await pool.executemany("INSERT INTO t VALUES ($1, $2)", [(n, "x") for n in range(5)])
            async with pool.acquire() as connection, connection.transaction():
                return len([row async for row in connection.cursor("SELECT * FROM t", prefetch=2)])

    assert asyncio.run(work()) == 5
    assert rows(direct) == list(range(5))


def test_a_pipeline_passes(gate: Gate, direct: Any) -> None:
    with psycopg.connect(gate.dsn_for("A"), autocommit=True) as connection, connection.pipeline() as pipeline:
        cursors = [connection.execute("INSERT INTO t VALUES (%s) RETURNING a", (n,)) for n in range(50)]
        pipeline.sync()
        assert [cursor.fetchone() for cursor in cursors] == [(n,) for n in range(50)]
    assert len(rows(direct)) == 50


def test_a_long_answer_passes_to_a_reader_that_is_slow(gate: Gate) -> None:
    with psycopg.connect(gate.dsn_for("A")) as connection:
        connection.execute("SELECT repeat('x', 8000) FROM generate_series(1, 4000)").fetchall()
        [(length,)] = connection.execute("SELECT length(%s)", ("y" * 20_000_000,)).fetchall()
        assert length == 20_000_000


def test_errors_and_notifications_pass(gate: Gate, direct: Any) -> None:
    with psycopg.connect(gate.dsn_for("A"), autocommit=True) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")
        connection.execute("LISTEN news")
        direct.execute("NOTIFY news, 'hello'")
        [note] = connection.notifies(timeout=DEADLINE, stop_after=1)
        assert note.payload == "hello"


def test_a_cancel_request_reaches_the_statement(gate: Gate, pool: ThreadPoolExecutor, direct: Any) -> None:
    with psycopg.connect(gate.dsn_for("A"), autocommit=True) as connection:
        sleeping = pool.submit(connection.execute, "SELECT pg_sleep(60)")
        pid = connection.info.backend_pid
        query = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
        wait(lambda: direct.execute(query, (pid,)).fetchone())
        connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            sleeping.result(DEADLINE)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def copied(connection: Any, protocol: str, rows: list[tuple[int, str]]) -> None:
    """Puts rows into the table by COPY; in the extended protocol the client says Sync before the data and after."""
    if protocol == "simple":
        with connection.cursor().copy("COPY t FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        return
    pgconn = connection.pgconn
    pgconn.send_query_params(b"COPY t FROM STDIN", None)
    assert answer(pgconn).status == psycopg.pq.ExecStatus.COPY_IN
    pgconn.put_copy_data(b"".join(f"{a}\t{b}\n".encode() for a, b in rows))
    pgconn.put_copy_end()
    assert answer(pgconn).status == psycopg.pq.ExecStatus.COMMAND_OK
    assert answer(pgconn) is None


def answer(pgconn: Any) -> Any:
    """The next result. libpq's own wait would keep the gate's thread from running."""
    while pgconn.flush():
        select.select([], [pgconn.socket], [], DEADLINE)
    while pgconn.is_busy():
        assert select.select([pgconn.socket], [], [], DEADLINE)[0], "no answer"
        pgconn.consume_input()
    return pgconn.get_result()


@pytest.mark.parametrize("protocol", ["simple", "extended"])
def test_copies_pass_through_unharmed(gate: Gate, protocol: str) -> None:
    rows = [(number, "x" * 1000) for number in range(500)]
    with psycopg.connect(gate.dsn_for("A"), autocommit=True) as connection:
        copied(connection, protocol, rows)
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (500,)
        with connection.cursor().copy(
            "COPY (SELECT * FROM t WHERE a >= %s ORDER BY a) TO STDOUT", (7,)
        ) as copy:
            copy.set_types(["int4", "text"])
            assert list(copy.rows()) == rows[7:]
        with pytest.raises(psycopg.errors.UniqueViolation):
            copied(connection, "simple", rows[:1])
        assert connection.execute("SELECT 1").fetchone() == (1,)
        with gate.driven():
            assert [session.state for session in gate.sessions()] == ["idle"]


@pytest.mark.parametrize("protocol", ["simple", "extended"])
def test_a_copy_that_waits_for_a_held_worker_is_a_step_and_ends_after_it(
    gate: Gate, direct: Any, protocol: str
) -> None:
    with (
        GatedExecutor(gate, limit=DEADLINE) as executor,
        psycopg.connect(gate.dsn_for("A")) as first,
        psycopg.connect(gate.dsn_for("B"), autocommit=True) as second,
    ):

        def insert() -> None:
            first.execute("INSERT INTO t VALUES (1, 'a')")
            first.execute("SELECT 1 FROM t")
            first.rollback()

        execution = executor.run(
            {"A": insert, "B": lambda: copied(second, protocol, [(1, "b")])}, Scripted([0, 1])
        )
    assert not execution.hung
    assert not execution.deadlock
    assert [step.worker for step in execution.steps if step.kind == "waits"] == ["B"]
    assert direct.execute("SELECT b FROM t").fetchall() == [("b",)]


@pytest.mark.parametrize(("when", "there"), [("before", 0), ("after", 1), ("mid-reply", 1)])
def test_a_connection_is_cut_at_a_copy(gate: Gate, direct: Any, when: Any, there: int) -> None:
    with psycopg.connect(gate.dsn_for("A"), autocommit=True) as connection:
        cut = gate.cut("A", when)
        with pytest.raises(psycopg.OperationalError):
            copied(connection, "simple", [(1, "a")])
        assert cut.fired.wait(DEADLINE)
    assert direct.execute("SELECT count(*) FROM t").fetchone() == (there,)


def test_each_worker_has_its_own_address_and_any_number_of_connections(gate: Gate) -> None:
    assert gate.dsn_for("A") == gate.dsn_for("A") != gate.dsn_for("B")
    assert gate.sees_no_connection("A")
    connections = [psycopg.connect(gate.dsn_for("A"), autocommit=True) for _ in range(5)]
    assert not gate.sees_no_connection("A")
    assert gate.sees_no_connection("B")
    with gate.driven():
        assert {session.pid for session in gate.sessions()} == {c.info.backend_pid for c in connections}
    for connection in connections:
        connection.close()
    wait(lambda: not gate.sessions())


def test_a_dsn_that_asks_for_tls_is_refused_with_the_reason() -> None:
    with pytest.raises(PostgresUnavailable, match="sslmode=require"):
        Gate("postgresql://me@127.0.0.1/d?sslmode=require")


def test_no_server_is_no_connection() -> None:
    with Gate("postgresql://me@127.0.0.1:1/d") as gate, pytest.raises(psycopg.OperationalError):
        psycopg.connect(gate.dsn_for("A"))


def test_what_is_no_postgresql_is_hung_up_on(gate: Gate) -> None:
    import socket
    from urllib.parse import urlsplit

    port = urlsplit(gate.dsn_for("A")).port
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        received = b""
        while piece := stranger.recv(4096):
            received += piece
    assert received.startswith(b"E")


def test_passing_through_costs_little(gate: Gate, database: str) -> None:
    def median(dsn: str) -> float:
        with psycopg.connect(dsn, autocommit=True) as connection:
            times = []
            for _ in range(300):
                start = time.perf_counter()
                connection.execute("SELECT 1")
                times.append(time.perf_counter() - start)
        return statistics.median(times)

    assert median(gate.dsn_for("A")) < median(database) + 0.005


# -- holding --


def test_a_statement_is_held_until_it_is_released(gate: Gate, direct: Any, pool: ThreadPoolExecutor) -> None:
    with psycopg.connect(gate.dsn_for("A"), autocommit=True) as connection:
        with controlled(gate, "A"):
            inserting = pool.submit(connection.execute, "INSERT INTO t VALUES (%s, %s)", (1, "x"))
            session = turn(gate, held(gate))
            assert session.held.label == "INSERT INTO t VALUES ($1, $2) [1, 'x']"
            assert session.state == "held"
            assert rows(direct) == []
            session.release()
            turn(gate, inserting.done)
        assert rows(direct) == [1]


def test_only_effective_groups_are_held(gate: Gate, pool: ThreadPoolExecutor) -> None:
    """A transaction of psycopg's with its sixth execution, which is prepared in a round trip of its own."""
    with psycopg.connect(gate.dsn_for("A")) as connection:

        def work() -> None:
            with connection.transaction():
                for number in range(7):
                    connection.execute("INSERT INTO t VALUES (%s)", (number,))
            with connection.transaction():
                connection.execute("SET LOCAL work_mem = '1MB'")
            with connection.transaction(force_rollback=True):
                connection.execute("SELECT a FROM t")

        assert steps(gate, pool, work) == [*["INSERT INTO t VALUES ($1)"] * 7, "COMMIT", "SELECT a FROM t"]


def steps(gate: Gate, pool: ThreadPoolExecutor, work: Callable[[], None]) -> list[str]:
    """What is held of worker A while it does its work, in order, each released at once."""
    seen: list[str] = []
    with controlled(gate, "A"):
        working = pool.submit(work)
        while not working.done():
            session = turn(gate, lambda: held(gate)() or working.done())
            if session is not True:
                seen.append(session.held.label.split(" [")[0])
                session.release()
    working.result()
    return seen


def test_asyncpg_has_the_same_steps_cold_and_warm(gate: Gate, pool: ThreadPoolExecutor) -> None:
    asyncpg = pytest.importorskip("asyncpg")

    async def work() -> None:
        async with asyncpg.create_pool(gate.dsn_for("A"), min_size=1, max_size=1) as connections:
            for number in (number0, number0 + 1):
                async with connections.acquire() as connection, connection.transaction():
                    await connection.execute("INSERT INTO t VALUES ($1, $2)", number, "x")

    number0 = 0
    first = steps(gate, pool, lambda: asyncio.run(work()))
    number0 = 2
    assert steps(gate, pool, lambda: asyncio.run(work())) == first
    assert first == ["INSERT INTO t VALUES ($1, $2)", "COMMIT;"] * 2


def test_sqlalchemy_has_the_same_steps_cold_and_warm(gate: Gate, pool: ThreadPoolExecutor) -> None:
    engine = sa.create_engine(
        gate.dsn_for("A").replace("postgresql:", "postgresql+psycopg:"), pool_pre_ping=True
    )

    def work() -> None:
        with engine.begin() as connection:
            connection.execute(sa.text("SELECT a FROM t FOR UPDATE"))
            connection.execute(sa.text("INSERT INTO t SELECT count(*) FROM t"))

    cold = steps(gate, pool, work)
    assert steps(gate, pool, work) == cold
    assert cold == ["SELECT a FROM t FOR UPDATE", "INSERT INTO t SELECT count(*) FROM t", "COMMIT"]
    engine.dispose()


def test_groups_of_a_pipeline_are_held_one_by_one(gate: Gate, pool: ThreadPoolExecutor) -> None:
    with psycopg.connect(gate.dsn_for("A"), autocommit=True) as connection:

        def work() -> None:
            with connection.pipeline() as pipeline:
                for number in range(3):
                    connection.execute("INSERT INTO t VALUES (%s)", (number,))
                    pipeline.sync()

        assert steps(gate, pool, work) == ["INSERT INTO t VALUES ($1)"] * 3


def test_another_worker_passes_meanwhile(gate: Gate, pool: ThreadPoolExecutor, direct: Any) -> None:
    with (
        psycopg.connect(gate.dsn_for("A"), autocommit=True) as a,
        psycopg.connect(gate.dsn_for("B"), autocommit=True) as b,
    ):
        with controlled(gate, "A"):
            first = pool.submit(a.execute, "INSERT INTO t VALUES (1)")
            second = pool.submit(b.execute, "INSERT INTO t VALUES (2)")
            turn(gate, second.done)
            turn(gate, held(gate))
            assert rows(direct) == [2]
        first.result(DEADLINE)
        assert rows(direct) == [1, 2]


def test_an_answer_can_be_kept_back(gate: Gate, pool: ThreadPoolExecutor, direct: Any) -> None:
    with psycopg.connect(gate.dsn_for("A"), autocommit=True) as connection, controlled(gate, "A"):
        inserting = pool.submit(connection.execute, "INSERT INTO t VALUES (1)")
        session = turn(gate, held(gate))
        session.keep_reply = True
        session.release()
        turn(gate, lambda: session.replied)
        assert rows(direct) == [1]
        assert not inserting.done()
        session.release()
        turn(gate, inserting.done)
        assert session.state == "idle"


def test_a_cancelled_statement_is_not_held(gate: Gate, pool: ThreadPoolExecutor) -> None:
    with psycopg.connect(gate.dsn_for("A"), autocommit=True) as connection, controlled(gate, "A"):
        sleeping: Future[Any] = pool.submit(connection.execute, "SELECT 1 FROM pg_sleep(0.2)")
        turn(gate, held(gate))
        cancelling = pool.submit(connection.cancel_safe)
        turn(gate, lambda: sleeping.done() and cancelling.done())
        # Whether the cancel met the statement is the server's affair.
        assert sleeping.exception() is None or isinstance(sleeping.exception(), psycopg.errors.QueryCanceled)


def test_a_client_that_hangs_up_while_it_is_held_is_noticed(
    gate: Gate, pool: ThreadPoolExecutor, direct: Any
) -> None:
    connection = psycopg.connect(gate.dsn_for("A"), autocommit=True)
    with controlled(gate, "A"):
        connection.pgconn.send_query(b"INSERT INTO t VALUES (1)")
        turn(gate, held(gate))
        connection.close()
        turn(gate, lambda: not gate.sessions())
        assert [error.sqlstate for error in gate.errors] == [""]
    assert rows(direct) == []


# -- losses --


def losing(
    gate: Gate, sql: LiteralString = "INSERT INTO t VALUES (1), (2) RETURNING repeat('x', 500)"
) -> Any:
    connection = psycopg.connect(gate.dsn_for("A"), autocommit=True)
    with pytest.raises(psycopg.OperationalError):
        connection.execute(sql)
    assert connection.closed
    return connection


@pytest.mark.parametrize(("when", "stored"), [("before", []), ("after", [1, 2]), ("mid-reply", [1, 2])])
def test_a_connection_is_cut(gate: Gate, direct: Any, when: Any, stored: list[int]) -> None:
    cut = gate.cut("A", when)
    losing(gate)
    assert cut.fired.wait(DEADLINE)
    assert cut.label.startswith("INSERT")
    assert rows(direct) == stored
    wait(
        lambda: (
            direct.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            ).fetchone()
            == (1,)
        )
    )
    with psycopg.connect(gate.dsn_for("A"), autocommit=True) as again:
        assert again.execute("SELECT count(*) FROM t").fetchone() == (len(stored),)


def test_cuts_count_groups_of_their_worker_from_now_on(gate: Gate, direct: Any) -> None:
    with psycopg.connect(gate.dsn_for("A")) as a, psycopg.connect(gate.dsn_for("B"), autocommit=True) as b:
        cut = gate.cut("A", "before", 3)  # INSERT, INSERT, COMMIT
        b.execute("INSERT INTO t VALUES (3)")
        with pytest.raises(psycopg.OperationalError), a.transaction():
            a.execute("INSERT INTO t VALUES (1)")
            a.execute("INSERT INTO t VALUES (2)")
        assert cut.label == "COMMIT"
    assert rows(direct) == [3]


def test_every_group_counts_when_asked(gate: Gate) -> None:
    with psycopg.connect(gate.dsn_for("A")) as connection:
        before = gate.groups("A"), gate.groups("A", every=True)
        connection.execute("INSERT INTO t VALUES (1)")
        connection.commit()
        assert (gate.groups("A") - before[0], gate.groups("A", every=True) - before[1]) == (2, 3)
        cut = gate.cut("A", "before", every=True)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("INSERT INTO t VALUES (2)")
        assert cut.label == "BEGIN"


def test_a_group_is_delayed(gate: Gate) -> None:
    with psycopg.connect(gate.dsn_for("A"), autocommit=True) as connection:
        gate.delay("A", 0.1)
        start = time.monotonic()
        connection.execute("INSERT INTO t VALUES (1)")
        assert time.monotonic() - start >= 0.1


def test_cuts_that_did_not_happen_can_be_forgotten(gate: Gate) -> None:
    gate.cut("A", "before")
    gate.no_cuts()
    with psycopg.connect(gate.dsn_for("A"), autocommit=True) as connection:
        connection.execute("INSERT INTO t VALUES (1)")


# -- the tape --


def test_what_went_through_is_on_the_tape_with_its_answer(gate: Gate) -> None:
    with gate.taped() as tape, psycopg.connect(gate.dsn_for("A")) as connection:
        connection.execute("INSERT INTO t VALUES (%s, %s), (2, NULL)", (1, "it's"))
        connection.execute("SELECT a, b FROM t ORDER BY a")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO t VALUES (1, '')")
        connection.rollback()
    told = [
        (sent.worker, sent.group.label.partition(" [")[0], sent.answer.partition(";")[0]) for sent in tape
    ]
    assert told == [
        ("A", "BEGIN", "BEGIN"),
        ("A", "INSERT INTO t VALUES ($1, $2), (2, NULL)", "INSERT 0 2"),
        ("A", "SELECT a, b FROM t ORDER BY a", '2 rows: (a=1, b="it\'s"), (a=2, b=NULL)'),
        (
            "A",
            "INSERT INTO t VALUES (1, '')",
            'ERROR 23505: duplicate key value violates unique constraint "t_pkey"',
        ),
        ("A", "ROLLBACK", "ROLLBACK"),
    ]
    assert [sent.status for sent in tape] == ["T", "T", "T", "E", "I"]
    assert [sent.idle for sent in tape] == [True, False, False, False, False]
    stamps = [stamp for sent in tape for stamp in (sent.at, sent.answered)]
    assert stamps == sorted(stamps)
    assert tape[0].session.settings["user"]


def test_nothing_is_taped_when_nobody_asked(gate: Gate) -> None:
    with gate.taped() as tape:
        pass
    with psycopg.connect(gate.dsn_for("A"), autocommit=True) as connection:
        connection.execute("SELECT 1")
    assert tape == []


def test_a_wait_is_on_the_tape_with_whom_it_was_for(
    gate: Gate, pool: ThreadPoolExecutor, direct: Any
) -> None:
    direct.execute("INSERT INTO t VALUES (1, '')")
    with GatedExecutor(gate) as executor:
        connections = {worker: psycopg.connect(gate.dsn_for(worker)) for worker in "AB"}

        def update(worker: str) -> Callable[[], None]:
            def body() -> None:
                with connections[worker].transaction():
                    connections[worker].execute("UPDATE t SET b = b || %s", (worker,))

            return body

        tape = executor.run({worker: update(worker) for worker in "AB"}, Scripted([0, 1])).tape
    for connection in connections.values():
        connection.close()
    waited = [(sent.worker, sent.blockers, sent.group.label) for sent in tape if sent.waited]
    assert waited == [("B", ("A",), "UPDATE t SET b = b || $1 ['B']")]
    (update_of_b,) = [sent for sent in tape if sent.waited]
    commit_of_a = next(sent for sent in tape if sent.worker == "A" and sent.group.label == "COMMIT")
    assert update_of_b.at < update_of_b.waited < commit_of_a.at < update_of_b.answered < update_of_b.given
