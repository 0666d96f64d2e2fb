"""PostgreSQL's wire protocol as far as a gate needs it: bytes in, events out. Nothing here waits or connects.

**Theory of operation.**

1. A client's bytes go into `Client.receive`, a server's into `Server.receive`. Every byte that comes in leaves
   again in the ``raw`` of an event (or as a prefix of one to come), so that whoever forwards each ``raw``
   forwards the stream. How the bytes were cut into pieces on their way makes no difference.
2. Before its first message a client sends packets without a type: it asks for TLS or GSSAPI (the gate answers
   `REFUSED`, and the client goes on in the clear), cancels a statement of another connection, or starts.
3. After that a client's messages come in **groups**: a simple query, or everything up to a Sync or a Flush. The
   server answers a group that ends in a query or a Sync with one ReadyForQuery, and one that ends in a Flush
   with as many completions as it has Executes.
4. What a group does is read from its SQL by `nature`. Only the beginnings of statements are looked at, and the
   words of a SELECT without FROM; the server is the one who understands SQL.

The protocol is described in PostgreSQL's manual, chapter "Frontend/Backend Protocol", version 3.0 to 3.2.
"""

from __future__ import annotations

import datetime
import enum
import re
import struct
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from .sql import statement_words

__all__ = [
    "REFUSED",
    "SYNC",
    "Bulk",
    "Cancel",
    "Client",
    "Completed",
    "CopyIn",
    "EncryptionAsked",
    "Failed",
    "Group",
    "KeyData",
    "Nature",
    "Notice",
    "Parameters",
    "Passed",
    "Prepared",
    "ProtocolError",
    "Ready",
    "Server",
    "Startup",
    "Statement",
    "Terminate",
    "error_response",
    "nature",
    "shortened",
    "shown",
    "startup_packet",
]

REFUSED = b"N"
"""The answer to a request for encryption that is not offered."""

LONGEST = 1 << 30
"""Bytes of a message, at most: what the server itself allows."""

LONGEST_OPENING = 10_000
"""Bytes of a packet before the first message, at most: what the server itself allows."""

_WORD = struct.Struct("!I")
_SHORT = struct.Struct("!H")

SYNC = b"S\0\0\0\4"
"""The message that ends a group of the extended protocol."""

_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102


class ProtocolError(Exception):
    """Bytes that are no PostgreSQL protocol of version 3."""


# -- what statements do --


class Nature(enum.Enum):
    """What a statement does, as far as a schedule is concerned."""

    PASSES = "passes"
    """Nothing that another session could see, and nothing that it could wait for."""

    COMMITS = "commits"
    EXECUTES = "executes"


_PASSING = frozenset(
    {"begin", "start", "set", "show", "reset", "discard", "deallocate", "prepare", "listen", "unlisten"}
    # These only give back what the session holds. Who waits for that gets it when the session moves, and moving
    # it a little earlier takes no outcome away.
    | {"savepoint", "release", "rollback", "abort", "close"}
)

_HARMLESS = (
    frozenset({"select", "case", "when", "then", "else", "end", "true", "false", "null"})
    | {"pg_catalog", "version", "set_config", "current_setting", "current_schema", "current_database"}
    | {"current_user", "session_user", "getdatabaseencoding", "pg_backend_pid"}
    # asyncpg's pool sends SELECT pg_advisory_unlock_all() whenever a connection comes back
    | {"pg_advisory_unlock_all"}
)
"""The words of a SELECT that a driver or a pool sends on its own account: it sets up or tests the session.

Examples: ``select pg_catalog.version()`` (SQLAlchemy, at the first connect), ``SELECT 1`` (`pool_pre_ping`).
They appear or not with the state of a pool, and as choice points they would misalign a replay.
"""


def _nature_of(words: list[str]) -> Nature:
    if not words:
        return Nature.PASSES
    first = words[0]
    two_phase = words[1:2] in (["prepared"], ["transaction"])  # COMMIT PREPARED; PREPARE TRANSACTION
    if first in ("commit", "end"):
        return Nature.EXECUTES if two_phase and words[1] == "prepared" else Nature.COMMITS
    if first in _PASSING:
        executes = (first == "prepare" and two_phase) or (first == "rollback" and words[1:2] == ["prepared"])
        return Nature.EXECUTES if executes else Nature.PASSES
    if first == "select" and _HARMLESS.issuperset(words):
        return Nature.PASSES
    # The drivers' look at the catalogue of types, at the first use of one (asyncpg, psycopg, SQLAlchemy).
    if first in ("select", "with") and "pg_type" in words:
        return Nature.PASSES
    return Nature.EXECUTES


_WEIGHT = (Nature.PASSES, Nature.COMMITS, Nature.EXECUTES)


def _heaviest(natures: Iterable[Nature]) -> Nature:
    return max(natures, key=_WEIGHT.index, default=Nature.PASSES)


@lru_cache(maxsize=4096)
def nature(sql: str) -> Nature:
    """What a query does; of several statements, the most that one of them does."""
    return _heaviest(map(_nature_of, statement_words(sql)))


# -- statements and their values, for a reader --


@dataclass(slots=True)
class Prepared:
    """A statement as it was prepared; ``types`` are the parameters' type OIDs, 0 where nobody told."""

    sql: str
    types: tuple[int, ...] = ()


@dataclass(frozen=True)
class Statement:
    """A statement with its bound values: for each, whether it is binary, and its bytes or None for NULL."""

    prepared: Prepared
    values: tuple[tuple[bool, bytes | None], ...] = ()

    @property
    def sql(self) -> str:
        """The statement's text."""
        return self.prepared.sql

    @cached_property
    def label(self) -> str:
        """The statement on one line, shortened, with its values in brackets."""
        sql = shortened(" ".join(self.sql.split()), 150)
        if not self.values:
            return sql
        return f"{sql} [{', '.join(self.shown_values)}]"

    @property
    def types(self) -> tuple[int, ...]:
        """The type of each value, 0 where nobody told."""
        known = self.prepared.types[: len(self.values)]
        return known + (0,) * (len(self.values) - len(known))

    @property
    def shown_values(self) -> list[str]:
        """The values as a reader is shown them."""
        return [
            shown(value, binary, type_)
            for (binary, value), type_ in zip(self.values, self.types, strict=True)
        ]


def shortened(text: str, length: int) -> str:
    """A text of at most ``length`` characters, an ellipsis in the place of its later part."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _integer(value: bytes) -> str:
    return str(int.from_bytes(value, "big", signed=True))


def _float(value: bytes) -> str:
    return f"{struct.unpack('!f' if len(value) == 4 else '!d', value)[0]:g}"


def _text(value: bytes) -> str:
    return repr(shortened(value.decode("utf-8", "backslashreplace"), 40))


def _bytes(value: bytes) -> str:
    start = value[:12]
    return f"\\x{start.hex()}" + (f"… ({len(value)} bytes)" if len(value) > len(start) else "")


def _timestamp(value: bytes) -> str:
    # Two numbers of days that Python's calendar does not have; the server calls them infinity, too.
    microseconds = int.from_bytes(value, "big", signed=True)
    try:
        moment = datetime.datetime(2000, 1, 1) + datetime.timedelta(microseconds=microseconds)  # noqa: DTZ001
    except OverflowError:
        return "infinity" if microseconds > 0 else "-infinity"
    return moment.isoformat(" ")


_BINARY: dict[int, Callable[[bytes], str]] = {
    16: lambda value: "true" if value == b"\1" else "false",
    17: _bytes,
    18: _text,
    19: _text,
    20: _integer,
    21: _integer,
    23: _integer,
    25: _text,
    26: _integer,
    114: _text,
    700: _float,
    701: _float,
    705: _text,
    1042: _text,
    1043: _text,
    1114: _timestamp,
    1184: _timestamp,
    2950: lambda value: str(uuid.UUID(bytes=value)),
    3802: lambda value: _text(value[1:]),
}
"""How a value of the binary format reads, by the OID of its type."""

_NUMBER = re.compile(rb"-?\d+(\.\d+)?|[tf]|true|false")


def shown(value: bytes | None, binary: bool, type_: int) -> str:
    """A value of a type, shortened, for a reader."""
    if value is None:
        return "NULL"
    if not binary:
        return value.decode() if len(value) < 40 and _NUMBER.fullmatch(value) else _text(value)
    try:
        return _BINARY.get(type_, _bytes)(value)
    except (ValueError, struct.error):
        return _bytes(value)


# -- the client's side --


@dataclass(frozen=True)
class EncryptionAsked:
    """The client asks for TLS or GSSAPI and waits for one byte."""


@dataclass(frozen=True)
class Startup:
    """The client's first packet, with what it asks for (``user``, ``database``, ``application_name``, …)."""

    version: int
    parameters: Mapping[str, str]
    raw: bytes


@dataclass(frozen=True)
class Cancel:
    """A request to cancel what another connection runs, named by its server process and secret."""

    pid: int
    secret: bytes
    raw: bytes


@dataclass(frozen=True)
class Passed:
    """A message that belongs to no group: a password, a piece of a COPY."""

    raw: bytes


@dataclass(frozen=True)
class Terminate:
    """The client's farewell."""

    raw: bytes


@dataclass(frozen=True)
class Group:
    """What a client sends before it waits.

    Attributes:
        raw: its messages.
        statements: what it executes, in order.
        nature: the most that one of its statements does; a group that only prepares passes.
        replies: how many completions answer it when it ends in a Flush; None when a ReadyForQuery does.
        described: the prepared statements whose parameters it asks for, in order.
    """

    raw: bytes
    statements: tuple[Statement, ...] = ()
    nature: Nature = Nature.PASSES
    replies: int | None = None
    described: tuple[str, ...] = ()

    @property
    def ends_in_sync(self) -> bool:
        """Whether it is of the extended protocol, and ends in a Sync."""
        return self.raw.endswith(SYNC) and not self.raw.startswith(b"Q")

    @property
    def told(self) -> tuple[Statement, ...]:
        """What a reader is told of its statements: those that pass are left out where others do more."""
        doing = tuple(s for s in self.statements if nature(s.sql) is not Nature.PASSES)
        return doing or self.statements

    @property
    def label(self) -> str:
        """Its statements for a reader."""
        return "; ".join(statement.label for statement in self.told)


ClientEvent = EncryptionAsked | Startup | Cancel | Passed | Terminate | Group


class Client:
    """The stream that comes from a client."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._opening = True
        self._statements: dict[str, Prepared] = {}
        self._portals: dict[str, Statement] = {}
        self._begin()

    def _begin(self) -> None:
        self._raw: list[bytes] = []
        self._executed: list[Statement] = []
        self._described: list[str] = []

    def receive(self, data: bytes) -> list[ClientEvent]:
        """The events that became complete with these bytes. Raises `ProtocolError`."""
        self._buffer += data
        events: list[ClientEvent] = []
        place = 0
        buffer = self._buffer
        try:
            while True:
                header = 0 if self._opening else 1
                if len(buffer) < place + header + 4:
                    break
                length = _WORD.unpack_from(buffer, place + header)[0]
                if not 4 <= length <= (LONGEST_OPENING if self._opening else LONGEST):
                    raise ProtocolError(f"a message of {length} bytes")
                end = place + header + length
                if len(buffer) < end:
                    break
                raw = bytes(buffer[place:end])
                place = end
                event = self._opened(raw) if self._opening else self._message(raw)
                if event is not None:
                    events.append(event)
        except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
            raise ProtocolError(f"a message that cannot be read: {error}") from error
        finally:
            del buffer[:place]
        return events

    def learn(self, name: str, types: tuple[int, ...]) -> None:
        """The server told the types of a prepared statement's parameters."""
        prepared = self._statements.get(name)
        if prepared is not None:
            prepared.types = types

    def _opened(self, raw: bytes) -> ClientEvent:
        code = _WORD.unpack_from(raw, 4)[0]
        if code in (_SSL, _GSS):
            return EncryptionAsked()
        if code == _CANCEL:
            return Cancel(_WORD.unpack_from(raw, 8)[0], raw[12:], raw)
        if code >> 16 != 3:
            raise ProtocolError(f"protocol version {code >> 16}.{code & 0xFFFF}")
        self._opening = False
        words = raw[8:].split(b"\0")
        parameters = {
            key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
            for key, value in zip(words[::2], words[1::2], strict=False)
            if key
        }
        return Startup(code, parameters, raw)

    def _message(self, raw: bytes) -> ClientEvent | None:
        read = _READ.get(raw[0])
        if read is not None:
            self._raw.append(read(self, raw))
            return None
        kind = raw[:1]
        if kind == b"Q":
            sql = _string(raw, 5)[0]
            self._executed.append(Statement(Prepared(sql)))
            self._raw.append(raw)
            return self._group()
        if kind == b"F":
            self._executed.append(Statement(Prepared(f"(function {_WORD.unpack_from(raw, 5)[0]} is called)")))
            self._raw.append(raw)
            return self._group()
        if kind == b"S":
            self._raw.append(raw)
            return self._group()
        if kind == b"H":
            self._raw.append(raw)
            return self._group(replies=len(self._executed))
        if kind == b"X":
            before, self._raw = self._raw, []
            return Terminate(b"".join([*before, raw]))
        return Passed(raw)

    def _group(self, replies: int | None = None) -> Group:
        executed = tuple(self._executed)
        what = _heaviest(nature(s.sql) for s in executed)
        group = Group(b"".join(self._raw), executed, what, replies, tuple(self._described))
        self._begin()
        return group

    def _parse(self, raw: bytes) -> bytes:
        name, place = _string(raw, 5)
        sql, place = _string(raw, place)
        count = _SHORT.unpack_from(raw, place)[0]
        self._statements[name] = Prepared(sql, struct.unpack_from(f"!{count}I", raw, place + 2))
        return raw

    def _bind(self, raw: bytes) -> bytes:
        portal, place = _string(raw, 5)
        name, place = _string(raw, place)
        count = _SHORT.unpack_from(raw, place)[0]
        formats: tuple[int, ...] = struct.unpack_from(f"!{count}H", raw, place + 2)
        place += 2 + 2 * count
        total = _SHORT.unpack_from(raw, place)[0]
        place += 2
        # None of the formats means text for all, one of them is for all.
        formats = formats * total if len(formats) == 1 else formats or (0,) * total
        values: list[tuple[bool, bytes | None]] = []
        for number in range(total):
            length = _WORD.unpack_from(raw, place)[0]
            place += 4
            value = None if length == 0xFFFFFFFF else raw[place : place + length]
            place += 0 if value is None else length
            values.append((bool(formats[number]), value))
        self._portals[portal] = Statement(
            # One that was prepared by SQL's PREPARE: the two share their names.
            self._statements.get(name, Prepared(f"(statement {name})")),
            tuple(values),
        )
        return raw

    def _execute(self, raw: bytes) -> bytes:
        portal, _ = _string(raw, 5)
        self._executed.append(self._portals.get(portal, Statement(Prepared(f"(portal {portal!r})"))))
        return raw

    def _describe(self, raw: bytes) -> bytes:
        if raw[5:6] == b"S":
            self._described.append(_string(raw, 6)[0])
        return raw

    def _close(self, raw: bytes) -> bytes:
        name, _ = _string(raw, 6)
        if raw[5:6] == b"S":
            self._statements.pop(name, None)
        else:
            self._portals.pop(name, None)
        return raw


_READ: dict[int, Callable[[Client, bytes], bytes]] = {
    ord("P"): Client._parse,
    ord("B"): Client._bind,
    ord("E"): Client._execute,
    ord("D"): Client._describe,
    ord("C"): Client._close,
}
"""The messages that a group is made of; each is read, and given back as it is to be forwarded."""


def _string(raw: bytes, place: int) -> tuple[str, int]:
    end = raw.index(b"\0", place)
    return raw[place:end].decode("utf-8", "replace"), end + 1


def _framed(kind: bytes, body: bytes) -> bytes:
    return kind + _WORD.pack(len(body) + 4) + body


def startup_packet(startup: Startup, more: Mapping[str, str]) -> bytes:
    """A startup packet with further settings of the session, where the client does not give them itself."""
    added = {key: value for key, value in more.items() if key not in startup.parameters}
    if not added:
        return startup.raw
    body = startup.raw[4:-1] + b"".join(f"{key}\0{value}\0".encode() for key, value in added.items()) + b"\0"
    return _WORD.pack(len(body) + 4) + body


# -- the server's side --


@dataclass(frozen=True)
class Bulk:
    """Messages that say nothing about where the session is: rows, descriptions, notifications."""

    raw: bytes


@dataclass(frozen=True)
class Ready:
    """A group is over; ``status`` is ``I`` idle, ``T`` in a transaction, ``E`` in a failed one."""

    status: str
    raw: bytes


@dataclass(frozen=True)
class Failed:
    """An error. After ``FATAL`` the server hangs up."""

    sqlstate: str
    severity: str
    message: str
    raw: bytes


@dataclass(frozen=True)
class Notice:
    """A notice of any severity."""

    message: str
    raw: bytes


@dataclass(frozen=True)
class Completed:
    """An execution is over (``tag`` is its command tag; empty for an empty query or a suspended portal)."""

    tag: str
    raw: bytes


@dataclass(frozen=True)
class KeyData:
    """The server process that serves this session, and the secret with which it is cancelled."""

    pid: int
    secret: bytes
    raw: bytes


@dataclass(frozen=True)
class Parameters:
    """The types of a prepared statement's parameters."""

    types: tuple[int, ...]
    raw: bytes


@dataclass(frozen=True)
class CopyIn:
    """The server waits for the data of a ``COPY … FROM STDIN``; until they have come it overlooks a Sync."""

    raw: bytes


ServerEvent = CopyIn | Bulk | Ready | Failed | Notice | Completed | KeyData | Parameters


class Server:
    """The stream that comes from a server."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = 5

    def receive(self, data: bytes) -> list[ServerEvent]:
        """The events that became complete with these bytes. Raises `ProtocolError`."""
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._needed:
            return []  # the rest of a long row is still on its way
        events: list[ServerEvent] = []
        size = len(buffer)
        start = place = 0
        try:
            while True:
                self._needed = place + 5
                if size < self._needed:
                    break
                length = _WORD.unpack_from(buffer, place + 1)[0]
                if not 4 <= length <= LONGEST:
                    raise ProtocolError(f"a message of {length} bytes")
                self._needed = end = place + 1 + length
                if size < end:
                    break
                read = _REPLIES.get(buffer[place])
                if read is not None:
                    if start < place:
                        events.append(Bulk(bytes(buffer[start:place])))
                    events.append(read(bytes(buffer[place:end])))
                    start = end
                place = end
        except (struct.error, IndexError, ValueError) as error:
            raise ProtocolError(f"a message that cannot be read: {error}") from error
        if start < place:
            events.append(Bulk(bytes(buffer[start:place])))
        del buffer[:place]
        self._needed -= place
        return events


def _fields(raw: bytes) -> dict[str, str]:
    """The fields of an error or a notice, by their letter."""
    return {part[:1].decode(): part[1:].decode("utf-8", "replace") for part in raw[5:].split(b"\0") if part}


def _failed(raw: bytes) -> Failed:
    fields = _fields(raw)
    return Failed(fields.get("C", ""), fields.get("V", fields.get("S", "")), fields.get("M", ""), raw)


def _parameters(raw: bytes) -> Parameters:
    count = _SHORT.unpack_from(raw, 5)[0]
    return Parameters(struct.unpack_from(f"!{count}I", raw, 7), raw)


_REPLIES: dict[int, Callable[[bytes], ServerEvent]] = {
    ord("Z"): lambda raw: Ready(raw[5:6].decode("latin-1"), raw),
    ord("E"): _failed,
    ord("N"): lambda raw: Notice(_fields(raw).get("M", ""), raw),
    ord("C"): lambda raw: Completed(raw[5:-1].decode("utf-8", "replace"), raw),
    ord("I"): lambda raw: Completed("", raw),
    ord("s"): lambda raw: Completed("", raw),
    ord("K"): lambda raw: KeyData(_WORD.unpack_from(raw, 5)[0], raw[9:], raw),
    ord("t"): _parameters,
    ord("G"): CopyIn,
}


def error_response(sqlstate: str, message: str, *, severity: str = "ERROR", hint: str = "") -> bytes:
    """An error as a server sends it."""
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": message, "H": hint}
    return _framed(
        b"E", b"".join(f"{key}{value}\0".encode() for key, value in fields.items() if value) + b"\0"
    )
