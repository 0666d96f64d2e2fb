"""The framing of PostgreSQL's protocol: events do not depend on how bytes were cut, and nothing gets lost."""

import itertools
import struct
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from continuum_conformance.postgres import wire
from continuum_conformance.postgres.wire import Nature


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def startup(**parameters: str) -> bytes:
    body = b"".join(f"{key}\0{value}\0".encode() for key, value in parameters.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, 196608) + body


def parse(name: str, sql: str, *types: int) -> bytes:
    return message(b"P", f"{name}\0{sql}\0".encode() + struct.pack(f"!H{len(types)}I", len(types), *types))


def bind(name: str, *values: bytes | None, formats: tuple[int, ...] = (), portal: str = "") -> bytes:
    body = f"{portal}\0{name}\0".encode() + struct.pack(f"!H{len(formats)}H", len(formats), *formats)
    body += struct.pack("!H", len(values))
    for value in values:
        body += b"\xff\xff\xff\xff" if value is None else struct.pack("!I", len(value)) + value
    return message(b"B", body + b"\0\0")


def execute(portal: str = "") -> bytes:
    return message(b"E", portal.encode() + b"\0\0\0\0\0")


def query(sql: str) -> bytes:
    return message(b"Q", sql.encode() + b"\0")


SYNC, FLUSH = message(b"S"), message(b"H")


def opened() -> wire.Client:
    client = wire.Client()
    client.receive(startup(user="me"))
    return client


def only_group(client: wire.Client, data: bytes) -> wire.Group:
    [group] = client.receive(data)
    assert isinstance(group, wire.Group)
    return group


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


# -- any chunking --

names = st.sampled_from(["", "s1", "s2"])
sqls = st.sampled_from(["SELECT 1", "INSERT INTO t VALUES ($1)", "COMMIT", "", "BEGIN", "COPY t FROM STDIN"])
frontend = st.one_of(
    st.builds(query, sqls),
    st.builds(lambda name, sql: parse(name, sql, 23), names, sqls),
    st.builds(lambda name, value: bind(name, value, None), names, st.binary(max_size=30)),
    st.builds(execute),
    st.sampled_from(
        [SYNC, FLUSH, message(b"D", b"Ss1\0"), message(b"C", b"Ss1\0"), message(b"p", b"secret\0")]
    ),
)
backend = st.one_of(
    st.sampled_from(
        [
            message(b"Z", b"T"),
            message(b"C", b"INSERT 0 1\0"),
            message(b"1"),
            message(b"t", struct.pack("!HI", 1, 23)),
            message(b"K", struct.pack("!II", 7, 8)),
            wire.error_response("40001", "again"),
            message(b"N", b"SNOTICE\0Mhello\0\0"),
        ]
    ),
    st.builds(lambda row: message(b"D", row), st.binary(max_size=50)),
)
places = st.lists(st.integers(0, 10_000), max_size=20)


@settings(deadline=None)
@given(st.lists(frontend, max_size=12), places)
@example([query("COPY t TO STDOUT"), query("SELECT 1")], [1, 2, 3, 4, 5])
def test_a_client_says_the_same_in_any_pieces(messages: list[bytes], places: list[int]) -> None:
    data = startup(user="me", database="d") + b"".join(messages)
    whole = wire.Client().receive(data)
    client = wire.Client()
    assert [event for piece in cut(data, places) for event in client.receive(piece)] == whole


@settings(deadline=None)
@given(st.lists(frontend, max_size=12))
def test_nothing_that_a_client_says_gets_lost(messages: list[bytes]) -> None:
    data = startup(user="me") + b"".join(messages) + SYNC
    events: list[Any] = wire.Client().receive(data)
    passed = [event.raw for event in events if isinstance(event, wire.Passed)]
    grouped = [event.raw for event in events if not isinstance(event, wire.Passed)]
    # A password within a group, which no client sends, may overtake it.
    assert sorted(b"".join(passed + grouped)) == sorted(data)
    if not passed:
        assert b"".join(grouped) == data


def merged(events: Iterable[wire.ServerEvent]) -> list[wire.ServerEvent]:
    """Neighbouring bulk is one: how much of it comes together is chance."""
    result: list[wire.ServerEvent] = []
    for event in events:
        if result and isinstance(event, wire.Bulk) and isinstance(result[-1], wire.Bulk):
            result[-1] = wire.Bulk(result[-1].raw + event.raw)
        else:
            result.append(event)
    return result


@settings(deadline=None)
@given(st.lists(backend, max_size=20), places)
def test_a_server_says_the_same_in_any_pieces_and_nothing_gets_lost(
    messages: list[bytes], places: list[int]
) -> None:
    data = b"".join(messages)
    server = wire.Server()
    pieces = [event for piece in cut(data, places) for event in server.receive(piece)]
    assert merged(pieces) == merged(wire.Server().receive(data))
    assert b"".join(event.raw for event in pieces) == data


def test_a_message_that_is_not_complete_waits() -> None:
    server = wire.Server()
    row = message(b"D", b"x" * 100_000)
    assert server.receive(row[:-1]) == []
    assert server.receive(row[-1:] + message(b"Z", b"I")) == [
        wire.Bulk(row),
        wire.Ready("I", message(b"Z", b"I")),
    ]


# -- opening --


def test_encryption_is_asked_for_before_the_startup_packet() -> None:
    client = wire.Client()
    ssl, gss = struct.pack("!II", 8, 80877103), struct.pack("!II", 8, 80877104)
    assert client.receive(gss) == [wire.EncryptionAsked()]
    assert client.receive(ssl) == [wire.EncryptionAsked()]
    [event] = client.receive(startup(user="me", database="d"))
    assert isinstance(event, wire.Startup)
    assert event.parameters == {"user": "me", "database": "d"}


@pytest.mark.parametrize("secret", [b"1234", b"x" * 32], ids=["version 3.0", "version 3.2"])
def test_a_cancel_request_names_the_process(secret: bytes) -> None:
    raw = struct.pack("!III", 12 + len(secret), 80877102, 4711) + secret
    assert wire.Client().receive(raw) == [wire.Cancel(4711, secret, raw)]


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0\x01", struct.pack("!II", 8, 131072)]
)
def test_what_is_not_the_protocol_is_refused(data: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.Client().receive(data)


def test_a_startup_packet_takes_more_settings_but_keeps_the_clients_own() -> None:
    client = wire.Client()
    [event] = client.receive(startup(user="me", work_mem="1MB"))
    assert isinstance(event, wire.Startup)
    [again] = wire.Client().receive(
        wire.startup_packet(event, {"work_mem": "2MB", "deadlock_timeout": "1ms"})
    )
    assert isinstance(again, wire.Startup)
    assert again.parameters == {"user": "me", "work_mem": "1MB", "deadlock_timeout": "1ms"}


# -- groups --


def test_a_simple_query_is_a_group() -> None:
    group = only_group(opened(), query("UPDATE t SET a = 1"))
    assert (group.nature, group.replies, group.label) == (Nature.EXECUTES, None, "UPDATE t SET a = 1")


def test_preparing_alone_passes_and_executing_later_knows_the_statement() -> None:
    client = opened()
    prepared = only_group(
        client, parse("s", "DELETE FROM t WHERE a = $1", 23) + message(b"D", b"Ss\0") + SYNC
    )
    assert (prepared.nature, prepared.described) == (Nature.PASSES, ("s",))
    group = only_group(client, bind("s", struct.pack("!i", -5), formats=(1,)) + execute() + SYNC)
    assert group.nature is Nature.EXECUTES
    assert group.label == "DELETE FROM t WHERE a = $1 [-5]"


def test_a_flush_ends_a_group_that_is_answered_by_completions() -> None:
    client = opened()
    group = only_group(client, parse("", "SELECT a FROM t") + bind("") + execute() + FLUSH)
    assert group.replies == 1
    assert only_group(client, SYNC).nature is Nature.PASSES


def test_a_pipeline_of_statements_in_one_group_shows_those_that_do_something() -> None:
    data = b"".join(
        parse("", sql) + bind("") + execute()
        for sql in ("BEGIN", "INSERT INTO t VALUES (1)", "DELETE FROM u")
    )
    assert only_group(opened(), data + SYNC).label == "INSERT INTO t VALUES (1); DELETE FROM u"


def test_values_read_as_what_they_are() -> None:
    client = opened()
    sql = "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6)"
    values = (b"42", b"it's", None, struct.pack("!q", 2**40), b"\x01", b"\xde\xad" * 20)
    data = (
        parse("", sql, 0, 25, 23, 20, 16, 17)
        + bind("", *values, formats=(0, 0, 0, 1, 1, 1))
        + execute()
        + SYNC
    )
    [_, bracket] = only_group(client, data).label.split(" [")
    assert bracket == """42, "it's", NULL, 1099511627776, true, \\xdeaddeaddeaddeaddeaddead… (40 bytes)]"""


def test_the_server_tells_types_that_the_client_left_open() -> None:
    client = opened()
    only_group(client, parse("s", "SELECT a FROM t WHERE b = $1") + message(b"D", b"Ss\0") + SYNC)
    client.learn("s", (20,))
    group = only_group(client, bind("s", struct.pack("!q", 7), formats=(1,)) + execute() + SYNC)
    assert group.label.endswith("[7]")


def test_the_servers_call_for_a_copys_data_is_told() -> None:
    asking = message(b"G", b"\0\0\0")
    assert wire.Server().receive(message(b"2") + asking) == [wire.Bulk(message(b"2")), wire.CopyIn(asking)]


# -- what statements do --


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("", Nature.PASSES),
        (" ; -- nothing\n /* at /* all */ */ ;", Nature.PASSES),
        ("BEGIN", Nature.PASSES),
        ("/* orm */ begin isolation level serializable;", Nature.PASSES),
        ("START TRANSACTION READ WRITE", Nature.PASSES),
        ("SET search_path TO a, b", Nature.PASSES),
        ("SHOW standard_conforming_strings", Nature.PASSES),
        ("DISCARD ALL", Nature.PASSES),
        ("DEALLOCATE ALL", Nature.PASSES),
        ("ROLLBACK", Nature.PASSES),
        ("ROLLBACK TO SAVEPOINT a", Nature.PASSES),
        ("SAVEPOINT a", Nature.PASSES),
        ("PREPARE p AS INSERT INTO t VALUES (1)", Nature.PASSES),
        ("PREPARE TRANSACTION 'x'", Nature.EXECUTES),
        ("ROLLBACK PREPARED 'x'", Nature.EXECUTES),
        ("COMMIT PREPARED 'x'", Nature.EXECUTES),
        ("COMMIT", Nature.COMMITS),
        ("end;", Nature.COMMITS),
        ("BEGIN; COMMIT", Nature.COMMITS),
        ("BEGIN; UPDATE t SET a = 'COMMIT'; COMMIT", Nature.EXECUTES),
        ("SELECT 1", Nature.PASSES),
        ("select pg_catalog.version()", Nature.PASSES),
        (
            "SELECT set_config('jit', CASE current_setting('jit') WHEN 'x' THEN 'off' END, false)",
            Nature.PASSES,
        ),
        ("SELECT pg_advisory_lock(1)", Nature.EXECUTES),
        ('SELECT "version"()', Nature.EXECUTES),
        ("SELECT a FROM t", Nature.EXECUTES),
        ("SELECT ';begin' FROM t", Nature.EXECUTES),
        ("SELECT $$ ; $$, $x$ $$ ; $x$", Nature.PASSES),
        (r"SELECT E'\'; COPY t FROM STDIN --'", Nature.PASSES),
        ("(SELECT a FROM t)", Nature.EXECUTES),
        ("WITH a AS (DELETE FROM t RETURNING 1) SELECT 1", Nature.EXECUTES),
        ("SELECT typname, oid FROM pg_type WHERE typname = 'hstore'", Nature.PASSES),
        ("LOCK TABLE t", Nature.EXECUTES),
        ("EXECUTE p", Nature.EXECUTES),
        ("CALL work()", Nature.EXECUTES),
        ("COPY t FROM STDIN", Nature.EXECUTES),
        ("INSERT INTO t VALUES ('COPY')", Nature.EXECUTES),
        ("SELECT 'unfinished", Nature.EXECUTES),
    ],
)
def test_the_nature_of_a_statement(sql: str, expected: Nature) -> None:
    assert wire.nature(sql) is expected


@settings(deadline=None)
@given(st.text(alphabet=" ;'\"$-/*aE\\\n1x", max_size=40))
def test_any_text_has_a_nature(sql: str) -> None:
    assert wire.nature(sql) in Nature


def test_errors_are_read() -> None:
    raw = wire.error_response("55P03", "no lock", hint="try again")
    assert wire.Server().receive(raw) == [wire.Failed("55P03", "ERROR", "no lock", raw)]
