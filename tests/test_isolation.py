"""Specs for PostgreSQL's isolation tester: the tester itself reads them, and shows the race again."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import run_command

psycopg = pytest.importorskip("psycopg")

sys.path.insert(0, str(Path(__file__).parents[1]))  # the adapters are named as `tests.racing...`

from continuum_conformance.harness import Subject  # noqa: E402
from continuum_conformance.postgres import provide  # noqa: E402
from continuum_conformance.postgres.binaries import embedded, local  # noqa: E402
from continuum_conformance.postgres.isolation import Launch, Session, Spec, Step, joined  # noqa: E402
from continuum_conformance.postgres.values import Literals, Unwritable  # noqa: E402
from continuum_conformance.postgres.wire import Prepared, Statement  # noqa: E402
from continuum_conformance.suite.lab import Session as Lab  # noqa: E402
from continuum_conformance.suite.races.exploring import explore  # noqa: E402
from continuum_conformance.suite.races.isolation import NoSpec, isolation_spec  # noqa: E402
from continuum_conformance.suite.races.levels import Budget, level_of  # noqa: E402
from continuum_conformance.suite.races.scenarios import CLASSICS  # noqa: E402
from continuum_conformance.suite.violation import Violation  # noqa: E402

TESTER = Path("lib/pgxs/src/test/isolation/isolationtester")


@pytest.fixture(scope="module")
def server():
    with provide("auto") as found:
        yield found


@pytest.fixture(scope="module")
def tester():
    for programs in filter(None, (embedded(), local())):
        file = programs.bin.parent / TESTER
        if file.is_file():
            return file
    pytest.skip("there is no isolationtester here")


@dataclass
class Shown:
    """What the tester printed of a step."""

    text: str = ""
    waited: bool = False

    @property
    def error(self) -> str:
        return next(iter(re.findall(r"^(?:ERROR|FATAL):  (.*)$", self.text, re.MULTILINE)), "")

    @property
    def rows(self) -> list[list[str]]:
        found = re.search(r"^[-+]+\n(.*?)^\(\d+ rows?\)$", self.text, re.MULTILINE | re.DOTALL)
        lines = found[1].splitlines() if found else []
        return [[cell.strip() for cell in line.split("|")] for line in lines]


def run_by(tester: Path, spec: str, dsn: str) -> dict[str, Shown]:
    done = subprocess.run(
        [tester, dsn],
        input=spec,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PG_TEST_TIMEOUT_DEFAULT": "4"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    shown: dict[str, Shown] = {}
    for piece in re.split(r"^step ", done.stdout.partition("starting permutation")[2], flags=re.MULTILINE)[
        1:
    ]:
        name, _, text = piece.partition(": ")
        step = shown.setdefault(name, Shown())
        step.text += text
        step.waited = step.waited or "<waiting ...>" in text
    return shown


def order_of(spec: str) -> list[str]:
    """The permutation, as the steps with what they wait for."""
    return re.findall(r'"[^"]+"(?:\([^)]*\))?', spec.rpartition("permutation")[2])


# -- the notation --


def test_a_spec_is_written_as_the_tester_reads_it(tester: Path, server) -> None:
    spec = Spec(
        remark="What is wrong\nin two lines",
        setup=[
            ("a table", "CREATE TABLE t (a int, b text DEFAULT '{}');"),
            ("", "INSERT INTO t VALUES (1);"),
        ],
        teardown="DROP TABLE t;",
        sessions=[
            Session(
                "A",
                ["SET lock_timeout = '9s'"],
                [Step("A1", "BEGIN; UPDATE t SET a = 2;", "append -> None"), Step("A2", "COMMIT;")],
            ),
            Session("B", [], [Step("B1", "UPDATE t SET b = '}' RETURNING a, b;")], "SELECT 1;"),
        ],
        order=[Launch("A1"), Launch("B1", ("A2",)), Launch("A2")],
    ).text()
    assert spec == (
        "# What is wrong\n# in two lines\n\n"
        "# a table\nsetup { CREATE TABLE t (a int, b text DEFAULT E'{\\x7d'); }\n\n"
        "setup { INSERT INTO t VALUES (1); }\n\n"
        "teardown { DROP TABLE t; }\n\n"
        "session \"A\"\nsetup { SET lock_timeout = '9s'; }\n\n"
        '# append -> None\nstep "A1" { BEGIN; UPDATE t SET a = 2; }\nstep "A2" { COMMIT; }\n\n'
        'session "B"\nstep "B1" { UPDATE t SET b = E\'\\x7d\' RETURNING a, b; }\n\nteardown { SELECT 1; }\n\n'
        'permutation "A1" "B1"("A2") "A2"\n'
    )
    shown = run_by(tester, spec, server.fresh_database())
    assert shown["B1"].waited
    assert shown["B1"].rows == [["2", "}"]]


STRINGS = [
    "(SELECT 1 AS x) UNION (SELECT 1)",
    r"SELECT '{a} \ ''b''' AS x",
    r"SELECT E'{a\}\n\\}' || 'c' AS x",
    "SELECT $tag$ it's {\n  two lines} \\ $tag$ AS x",
    "SELECT 'first\nsecond {}\n\n    third' AS x",
    "SELECT U&'\\0041}' AS x",
    "SELECT '{\"a\": {\"b\": [1, 2]}}'::jsonb ->> 'a' AS x -- a remark with a {brace}",
    "/* { */ SELECT array_length('{1,2,3}'::int[], 1) AS x /* } */",
]


@pytest.mark.parametrize("statement", STRINGS)
def test_what_a_block_says_is_what_was_said(statement: str, tester: Path, server) -> None:
    """Braces end a block wherever they stand, and lines are indented: neither may change a string."""
    hashed = f"SELECT md5(x::text) FROM (\n{statement}\n) AS q"
    with psycopg.connect(server.dsn) as connection:
        (wanted,) = connection.execute(hashed.encode()).fetchone()
    spec = Spec(sessions=[Session("A", [], [Step("A1", joined([hashed]))])], order=[Launch("A1")]).text()
    assert run_by(tester, spec, server.dsn)["A1"].rows == [[wanted]]


def test_a_remark_at_the_end_swallows_no_semicolon() -> None:
    assert joined(["SELECT 1 -- one", "SELECT 2;", "SELECT 3 ; ;", "SELECT 4 /* four */"]) == (
        "SELECT 1 -- one\n;\nSELECT 2;\nSELECT 3;\nSELECT 4 /* four */\n;"
    )


# -- values --

VALUES = [
    (21, True, struct.pack("!h", -7)),
    (23, True, struct.pack("!i", 7)),
    (20, False, b"-9223372036854775808"),
    (701, True, struct.pack("!d", float("-inf"))),
    (701, False, b"3600"),
    (700, True, struct.pack("!f", 0.1)),
    (16, True, b"\1"),
    (16, False, b"f"),
    (17, True, b"\x00}\\'\xff"),
    (17, False, rb"\x007d"),
    (17, False, rb"\\ }"),
    (25, True, "it's $1 \\ } ü".encode()),
    (1043, False, b"a'b"),
    (0, False, b"plain ' \\ text"),
    (2950, True, uuid.UUID(int=5).bytes),
    (1184, True, struct.pack("!q", -1)),
    (1184, True, struct.pack("!q", 2**63 - 1)),
    (3802, True, b'\x01{"a": [1, "}"]}'),
    (1700, True, struct.pack("!4h2h", 2, 0, 0, 2, 12, 3400)),
    (1007, True, struct.pack("!3i2i2i", 1, 0, 23, 2, 1, 4, 5) + struct.pack("!i", -1)),
    (1186, True, struct.pack("!qii", 1_000_000, 1, 13)),
    (20, False, None),
    (0, False, None),
]


@pytest.mark.parametrize(("type_", "binary", "value"), VALUES)
def test_a_statement_with_its_values_in_place_says_the_same(
    type_: int, binary: bool, value: bytes | None, server
) -> None:
    statement = Statement(Prepared("SELECT $1 AS x", (type_,)), ((binary, value),))
    with Literals(server.dsn) as literals, psycopg.connect(server.dsn) as connection:
        written = literals.statement(statement)
        same = connection.pgconn.exec_params(b"SELECT $1", [value], [type_], [int(binary)], 1)
        typed = connection.pgconn.exec_params(written.encode(), [], [], [], 1)
        assert typed.error_message == b""
        assert typed.get_value(0, 0) == same.get_value(0, 0)
        assert typed.ftype(0) == same.ftype(0)


def test_a_value_of_a_type_that_the_adapter_made_is_written_by_its_name(server) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("DROP TYPE IF EXISTS state; CREATE TYPE state AS ENUM ('running', 'done')")
        (type_,) = connection.execute("SELECT 'state'::regtype::oid::int").fetchone()
    with Literals(server.dsn) as literals:
        statement = Statement(Prepared("SELECT $1", (type_,)), ((True, b"done"),))
        assert literals.statement(statement) == "SELECT 'done'::state"


def test_a_statement_without_values_is_written_as_it_is(server) -> None:
    with Literals(server.dsn) as literals:
        for text in ("(SELECT 1) UNION (SELECT 2)", "DO $$ BEGIN NULL; END $$", "SELECT '$1'"):
            assert literals.statement(Statement(Prepared(text))) == text


@pytest.mark.parametrize(
    "statement",
    [
        Statement(Prepared("SELECT $1", (0,)), ((True, b"\0\1"),)),
        Statement(Prepared("SELECT $2", (25,)), ((False, b"x"),)),
        Statement(Prepared("SELECT $1", (25,)), ((False, b"\xff"),)),
        Statement(Prepared("SELECT $1", (23,)), ((True, b"\0"),)),
        Statement(Prepared("(function 17 is called)")),
    ],
)
def test_what_cannot_be_written_is_refused(statement: Statement, server) -> None:
    with Literals(server.dsn) as literals, pytest.raises(Unwritable):
        literals.statement(statement)


# -- races --


def found_in(server, target: str, scenario: str) -> tuple[Lab, Violation]:
    subject = Subject(target, limit=5)
    subject.dsn, subject.server = server.fresh_database(), server
    session = Lab(subject)
    wanted = next(classic for classic in CLASSICS if classic.name == scenario)
    violation = explore(session, wanted, level_of(session).executor, Budget(100)).violation
    assert violation is not None
    return session, violation


def spec_of(server, target: str, scenario: str) -> str:
    session, violation = found_in(server, target, scenario)
    try:
        spec = isolation_spec(session, violation)
        assert isolation_spec(session, violation) == spec, "the same race gives the same spec"
        return spec
    finally:
        session.close_all()


def test_a_race_of_statements_is_shown_again_by_the_tester(tester: Path, server) -> None:
    spec = spec_of(server, "tests.racing.postgres:NoLockHarness", "zombie against takeover")
    order = order_of(spec)
    assert order[:4] == ['"A1"', '"A2"', '"A3"', '"B1"']
    assert '"B6"("A4")' in order
    dsn = server.fresh_database()
    for _ in range(2):  # its teardown leaves nothing behind
        shown = run_by(tester, spec, dsn)
        assert [name for name, step in shown.items() if step.waited] == ["B6"]
        assert shown["B6"].error == 'duplicate key value violates unique constraint "event_pkey"'
        assert {name for name, step in shown.items() if step.error} == {"B6"}
        assert [row[1] for row in shown["B1"].rows] == ["2"]  # the token that A writes under
        assert [row[1] for row in shown["B4"].rows] == ["3"]  # and the one that has replaced it
        assert len(shown["B8"].rows) == 2  # A's event is there all the same
    with psycopg.connect(dsn) as connection:
        assert connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone() == (0,)


def test_a_race_within_a_statement_is_shown_again_by_the_tester(tester: Path, server) -> None:
    spec = spec_of(
        server, "tests.racing.more_postgres:GuardedInsertHarness", "zombie against takeover and read"
    )
    assert re.search(r'session "holder"', spec)
    order = order_of(spec)
    held = next(step for step in order if step.startswith('"A2"('))
    assert held == '"A2"("go_1_2")'
    shown = run_by(tester, spec, server.fresh_database())
    assert [name for name, step in shown.items() if step.waited] == ["A2"]
    read_before, read_after = shown["B4"].rows, shown["A3"].rows
    assert (len(read_before), len(read_after)) == (1, 2)


def test_settings_of_a_session_and_a_schema_are_part_of_a_spec(tester: Path, server) -> None:
    spec = spec_of(server, "tests.racing.settled:InASchemaHarness", "append against finish")
    for session in ("A", "B"):
        part = spec.partition(f'session "{session}"')[2].partition("step")[0]
        assert "set_config('search_path', 'journal', false)" in part
        assert "set_config('jit', 'off', false)" in part
        assert "SET lock_timeout = '7s'" in part
        assert "statement_timeout" not in part
    assert "DROP SCHEMA IF EXISTS journal CASCADE" in spec
    shown = run_by(tester, spec, server.fresh_database())
    assert {name for name, step in shown.items() if step.error} == set()
    finished = [step for step in shown.values() if "UPDATE run SET state" in step.text]
    assert finished


def test_the_server_ends_a_deadlock_with_the_same_victim(tester: Path, server) -> None:
    spec = spec_of(server, "tests.racing.settled:LocksInTwoOrdersHarness", "append against finish")
    (victim,) = [step for step in order_of(spec) if step.endswith("(*)")]
    shown = run_by(tester, spec, server.fresh_database())
    assert {f'"{name}"(*)' for name, step in shown.items() if step.error == "deadlock detected"} == {victim}


def test_a_spec_makes_no_tables_where_there_are_others_of_their_names(tester: Path, server) -> None:
    spec = spec_of(server, "tests.racing.postgres:TakeoverReadsWithoutLockHarness", "two thieves")
    dsn = server.fresh_database()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE event (precious text)")
        done = subprocess.run(
            [tester, dsn], input=spec, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode != 0
        assert "run it on an empty database" in done.stderr
        assert connection.execute("SELECT count(*) FROM event").fetchone() == (0,)


def test_in_a_database_of_the_user_nothing_is_made_or_dropped(server) -> None:
    session, violation = found_in(server, "tests.racing.postgres:NoLockHarness", "two appends")
    databases = "SELECT count(*) FROM pg_database"
    try:
        with psycopg.connect(server.dsn) as connection:
            before = connection.execute(databases).fetchone()
            server.scratch = False
            spec = isolation_spec(session, violation)
            assert connection.execute(databases).fetchone() == before
    finally:
        server.scratch = True
        session.close_all()
    assert "DROP" not in spec
    assert order_of(spec)


def test_a_race_without_statements_has_no_spec(server) -> None:
    subject = Subject("tests.racing.memory:SeqBeforeTheLockHarness", limit=5)
    session = Lab(subject)
    try:
        scenario = next(classic for classic in CLASSICS if classic.name == "two appends")
        violation = explore(session, scenario, level_of(session).executor, Budget(100)).violation
        with pytest.raises(NoSpec, match="made of SQL"):
            isolation_spec(session, violation)
    finally:
        session.close_all()


# -- the command --


def test_check_writes_a_spec_beside_the_replay_file_and_replay_writes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    target = "tests.racing.postgres:NoLockHarness"
    code, out, _ = run_command(
        capsys, "check", target, "--only", "FEN-5", "--first", "--report", "out", "--dsn", server.dsn
    )
    assert code == 1
    assert "spec: out/CON-4.spec  (for PostgreSQL's isolation tester)" in out
    spec = Path("out/CON-4.spec").read_text("utf-8")
    assert spec == Path("out/ATM-2.spec").read_text("utf-8")
    page = Path("out/index.html").read_text("utf-8")
    assert "permutation &quot;A1&quot;" in page
    assert "out/CON-4.spec" in page
    code, out, err = run_command(
        capsys, "replay", "out/CON-4.json", "--isolation-spec", "-", "--dsn", server.dsn
    )
    assert (code, order_of(out)) == (1, order_of(spec))
    assert out.startswith("# CON-4, ATM-2: ")
    assert "worker A" in err


def test_a_spec_of_what_is_no_race_of_statements_is_refused_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    code, _, _ = run_command(
        capsys,
        "check",
        "tests.racing.memory:SeqBeforeTheLockHarness",
        "--only",
        "CON-3",
        "--first",
        "--report",
        "out",
    )
    assert code == 1
    assert list(Path("out").glob("*.spec")) == []
    code, _, err = run_command(capsys, "replay", "out/CON-3.json", "--isolation-spec", "-")
    assert code == 2
    assert "out/CON-3.json is no race of statements in PostgreSQL" in err
