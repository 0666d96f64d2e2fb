"""Data for the suite: durable terms, rich terms, names, and the values that a careless check lets through."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = [
    "BAD_EVENTS",
    "BAD_NAMES",
    "BAD_SEQS",
    "BAD_TOKENS",
    "BAD_TTLS",
    "COLUMNS",
    "FALSY",
    "LOOKALIKES",
    "RICH",
    "SUBCLASSES",
    "any_term",
    "events",
    "names",
    "offenders",
    "plain_terms",
    "rich_terms",
]

Capabilities = frozenset[str]

BAD_NAMES: tuple[Any, ...] = ("", "a\0b", "\ud800", "x" * 256, None, 7, b"run", ["run"], True, 1.5)
"""What is no name (RUN-7)."""

BAD_SEQS: tuple[Any, ...] = (True, False, 0.0, 1.0, "0", "1", b"0", [0], math.nan)
"""What is no seq, some of it equal to one (APP-3)."""

BAD_TOKENS: tuple[Any, ...] = (True, False, 1.0, "1", b"1", [1], math.nan, Decimal(1))
"""What is no token, some of it equal to one (FEN-7)."""

BAD_TTLS: tuple[Any, ...] = (
    -1,
    -0.001,
    math.inf,
    -math.inf,
    math.nan,
    True,
    False,
    None,
    "60",
    [60],
    timedelta(seconds=60),
)
"""What is no ttl (LEA-10)."""

BAD_EVENTS: tuple[Any, ...] = (
    None,
    "paid",
    b"paid",
    42,
    [],
    [("type", "paid")],
    {},
    {"kind": "paid"},
    {"type": None},
    {"type": ""},
    {"type": 5},
    {"type": b"paid"},
    {"type": ["paid"]},
    {"type": True},
    {"type": "paid", 1: "x"},
    {"type": "paid", None: "x"},
    {"type": "paid", b"k": "x"},
    {"type": "paid", ("a",): "x"},
)
"""What is no event (APP-4). Where a dict is among them, its form is wrong, not its values."""

FALSY: tuple[Any, ...] = (None, False, 0, 0.0, -0.0, "", b"", [], {}, [None], {"": None}, [[]], {"a": {}})
"""Terms that `if term:` loses."""

LOOKALIKES: tuple[Any, ...] = (
    {"__type__": "tuple", "value": [1, 2]},
    {"__type__": "tuple", "items": [1, 2]},
    {"__tuple__": [1, 2]},
    {"__tuple__": True, "items": [1, 2]},
    {"__set__": [1]},
    {"__bytes__": "AQI="},
    {"__class__": "UUID", "value": "12345678-1234-5678-1234-567812345678"},
    {"_type": "datetime", "value": "2026-01-02T03:04:05+00:00"},
    {"type": "bytes", "value": "AQI="},
    {"type": "tuple", "value": [1, 2]},
    {"t": "tuple", "v": [1, 2]},
    {"t": "bytes", "v": "AQI="},
    {"$": "tuple", "v": [1, 2]},
    {"$type": "bytes", "$value": "AQI="},
    {"$type": "tuple", "value": [1, 2]},
    {"$bytes": "AQI="},
    {"$binary": "AQI="},
    {"$binary": {"base64": "AQI=", "subType": "00"}},
    {"$date": "2026-01-02T03:04:05Z"},
    {"$oid": "0123456789abcdef01234567"},
    {"$numberDecimal": "1.5"},
    {"$tuple": [1, 2]},
    {"$set": [1]},
    {"$uuid": "12345678-1234-5678-1234-567812345678"},
    {"$ref": 0},
    {"$escape": {"$bytes": "AQI="}},
    {"!": "tuple", "v": [1, 2]},
    {"~t": [1, 2]},
    {"~#date": "2026-01-02"},
    {"py/tuple": [1, 2]},
    {"py/object": "decimal.Decimal", "py/state": "1.5"},
    {"py/reduce": [{"py/type": "os.system"}, ["true"]]},
    {"tag": 258, "value": [1, 2]},
    {"b64": "AQI="},
    {"base64": "AQI="},
    ["__tuple__", 1, 2],
    ["tuple", [1, 2]],
    ["t", [1, 2]],
    ["bytes", "AQI="],
    ["b", "AQI="],
    ["$tuple", 1, 2],
    ["!tuple", [1, 2]],
    "b64:AQI=",
    "base64:AQI=",
    "bytes:AQI=",
    "\x00bytes:AQI=",
    "hex:0102",
    "2026-01-02T03:04:05+00:00",
    "2026-01-02T03:04:05",
    "2026-01-02",
    "2026-01-02T03:04:05.678Z",
    "12345678-1234-5678-1234-567812345678",
    "12345678-1234-5678-1234-56781234ABCD",
    {"a.b": 1, "$c": 2},
    {"a\uff0eb": 1, "\uff04c": 2},
    {"a%2Eb": 1, "a\\u002eb": 2, "a~1b": 3, "a&#46;b": 4},
    "\ufefftext",
    "Decimal('1.5')",
    "(1, 2)",
    "NaN",
    "Infinity",
    "-Infinity",
    "null",
    "None",
    "true",
    "1",
    "1.0",
    b"null",
    b"\x80\x04N.",
    gzip.compress(b"[1, 2]", mtime=0),
    zlib.compress(b"[1, 2]"),
    bz2.compress(b"[1, 2]"),
    lzma.compress(b"[1, 2]"),
    "\\u0000",
    "\\x00",
    "%s",
    "{}",
    "~:keyword",
    "__none__",
    "__null__",
)
"""Ordinary terms that look like somebody's encoding of another (TRM-1)."""

COLUMNS = (
    "id", "_id", "event_id", "uuid", "key", "k", "seq_no", "sequence", "position", "offset", "index", "n",
    "instance", "instance_name", "run", "run_id", "workflow", "tenant", "namespace", "partition", "shard",
    "kind", "name", "event", "event_type", "typ", "t", "tag", "payload", "data", "body", "value", "v", "event_data",
    "meta", "metadata", "headers", "_meta", "__meta__", "version", "_v", "__v", "version_hash", "schema", "encoding",
    "codec", "at", "_at", "ts", "_ts", "time", "timestamp", "inserted_at", "created_at", "updated_at", "recorded_at",
    "written_at", "taken_at", "expires", "expires_at", "ttl", "token", "_token", "lease", "lease_token", "owner",
    "state", "status", "result", "error", "input", "through_seq", "steps", "snapshot", "length", "size", "checksum",
    "hash", "crc", "rowid", "ctid", "xmin", "deleted", "class", "self", "Type", "TYPE", "type_", "Seq", "SEQ", "seq_",
)  # fmt: skip
"""Keys that an event of the caller's may have, and an adapter's own record of it has."""


class Colour(Enum):
    """A member of no durable type."""

    RED = 1


class Level(IntEnum):
    """An int subclass."""

    HIGH = 3


class Point(NamedTuple):
    """A tuple subclass."""

    x: int
    y: int


class Text(str):
    """A str subclass."""

    __slots__ = ()


class Count(int):
    """An int subclass."""


class Thing:
    """An instance of a class that no journal knows."""

    def __repr__(self) -> str:
        return "Thing()"


SUBCLASSES: tuple[Any, ...] = (Level.HIGH, Text("text"), Count(3), OrderedDict(a=1), Point(1, 2))
"""Subclasses of allowed types, which should be refused rather than flattened (TRM-3s)."""


def _function() -> None:
    """A function."""


def offenders() -> list[tuple[str, Callable[[], Any], str]]:
    """What cannot be stored (TRM-3): (what it is, how to make it, the path below it to the offender)."""

    def cycle() -> Any:
        held: list[Any] = []
        held.append(held)
        return held

    def dict_cycle() -> Any:
        held: dict[str, Any] = {"a": 1}
        held["self"] = held
        return held

    return [
        ("an object", Thing, ""),
        ("a function", lambda: _function, ""),
        ("a lambda", lambda: lambda: None, ""),
        ("a lock", threading.Lock, ""),
        ("a class", lambda: Thing, ""),
        ("a generator", lambda: (n for n in range(1)), ""),
        ("a complex number", lambda: 1j, ""),
        ("a bytearray", lambda: bytearray(b"x"), ""),
        ("a range", lambda: range(3), ""),
        ("an enum member", lambda: Colour.RED, ""),
        ("an exception", lambda: ValueError("x"), ""),
        ("an open file", lambda: _OPEN_FILE, ""),
        ("a lone surrogate", lambda: "a\ud800b", ""),
        ("a list that holds itself", cycle, "[0]"),
        ("a dict that holds itself", dict_cycle, ".self"),
    ]


_OPEN_FILE = open(__file__, "rb")  # noqa: SIM115, PTH123 - an open file, to be refused


UTC_OFFSETS = (0, 60, -300, 330, 345, -570, 840, -720, -30, 19 + 32 / 60, -(45 + 30 / 60))
"""In minutes. The last two have seconds, as the local time of a place had before there were zones."""

RICH: tuple[Any, ...] = (
    (),
    (1, 2),
    (1, (2, (3, [4]))),
    [(), []],
    set(),
    {1, 2, 3},
    {"a", "b"},
    {(1, "a")},
    frozenset(),
    frozenset({1, "a", None}),
    {frozenset({1})},
    Decimal("1.50"),
    Decimal("1.5"),
    Decimal("1E+3"),
    Decimal(1000),
    Decimal("-0.00"),
    Decimal("0E-28"),
    Decimal("NaN"),
    Decimal("-Infinity"),
    Decimal("123456789012345678901234567890.123456789"),
    datetime(2026, 1, 2, 3, 4, 5, 678901),
    datetime(2026, 1, 2),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    datetime(2026, 1, 2, 3, 4, 5, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=-9, minutes=-30))),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(minutes=-30))),
    datetime(1926, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(minutes=19, seconds=32))),
    datetime(1, 1, 1),
    datetime(9999, 12, 31, 23, 59, 59, 999999),
    date(2026, 1, 2),
    date(1, 1, 1),
    time(3, 4, 5, 678901),
    time(0, 0),
    timedelta(0),
    timedelta(days=-1, microseconds=1),
    timedelta(days=999999999, microseconds=1),
    UUID(int=0),
    UUID("12345678-1234-5678-1234-567812345678"),
    {1: "a", 2: "b"},
    {"1": "text", 1: "int"},
    {0: None, -1: None, 2**70: None},
    {(1, 2): "pair", (): "empty", ("a", (1,)): "nested"},
    [1, True, 1.0, Decimal(1), "1", b"1"],
    {"k": (True, 1, 1.0)},
)
"""Rich terms, one of each kind and the edges of each (TRM-2)."""

_INTEGERS = st.one_of(
    st.integers(-3, 300),
    st.sampled_from(
        [2**31, -(2**31), 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 2**70]
    ),
    st.integers(),
)
_FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, math.inf, -math.inf, math.nan, 5e-324, 1e300, 0.1]), st.floats()
)
_TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            "a",
            "\0",
            "a\0b",
            "é",
            "e\u0301",
            "\U0001f600",
            " ",
            "'",
            '"',
            "\\",
            "\n",
            "\u2028",
            "\uffff",
            "null",
        ]
    ),
    st.text(max_size=12),
)
_BYTES = st.one_of(st.sampled_from([b"", b"\0", b"\xff", b"null", b"\\x00"]), st.binary(max_size=12))
_PLAIN_LEAVES = st.one_of(st.none(), st.booleans(), _INTEGERS, _FLOATS, _TEXTS, _BYTES)


def plain_terms() -> SearchStrategy[Any]:
    """The terms that every journal stores (TRM-1)."""
    return _plain()


@lru_cache
def _plain() -> SearchStrategy[Any]:
    return st.recursive(
        _PLAIN_LEAVES,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXTS, inner, max_size=4)),
        max_leaves=8,
    )


def _fixed(minutes: float) -> timezone:
    return timezone(timedelta(minutes=minutes))


_RICH_LEAVES = st.one_of(
    st.decimals(allow_nan=False, places=None).filter(lambda d: abs(d.adjusted()) < 200),
    st.datetimes(),
    # Within years in which every offset can be converted to UTC and back.
    st.datetimes(
        datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.sampled_from(UTC_OFFSETS).map(_fixed)
    ),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
)
_KEYS = st.one_of(_TEXTS, st.integers(-5, 5), st.tuples(st.integers(0, 3), _TEXTS))
_MEMBERS = st.one_of(
    st.integers(-9, 9), _TEXTS, _BYTES, st.tuples(st.integers(0, 3), _TEXTS), st.uuids(), st.dates()
)


def rich_terms() -> SearchStrategy[Any]:
    """Terms of TRM-2, mixed with plain ones."""
    return _rich()


@lru_cache
def _rich() -> SearchStrategy[Any]:
    return st.recursive(
        st.one_of(_PLAIN_LEAVES, _RICH_LEAVES, st.sampled_from(RICH)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(_KEYS, inner, max_size=3),
            st.sets(_MEMBERS, max_size=3),
            st.frozensets(_MEMBERS, max_size=3),
        ),
        max_leaves=6,
    )


def any_term(capabilities: Capabilities) -> SearchStrategy[Any]:
    """Terms that an adapter with these capabilities must store."""
    return rich_terms() if "rich_terms" in capabilities else plain_terms()


EVENT_TYPES = st.one_of(
    st.sampled_from(
        [
            "step",
            "paid",
            "completed",
            "failed",
            "suspended",
            "snapshot",
            "lease",
            "run_started",
            "timer",
            "a\0b",
            "'",
            "é",
        ]
    ),
    st.text(min_size=1, max_size=8),
)
_EVENT_KEYS = st.one_of(
    st.sampled_from(
        [
            "payload",
            "data",
            "id",
            "run_id",
            "instance",
            "token",
            "lease_token",
            "state",
            "at",
            "Seq",
            "seq ",
            "",
            "type ",
            "result",
        ]
    ),
    _TEXTS,
).filter(lambda key: key not in ("type", "seq"))


def events(capabilities: Capabilities, *, seq: bool = False) -> SearchStrategy[dict[str, Any]]:
    """Events with a type, other keys with any terms, and sometimes ``"seq": None``."""

    def build(kind: str, rest: dict[str, Any], place: int, null_seq: bool) -> dict[str, Any]:
        items = list(rest.items())
        items.insert(place % (len(items) + 1), ("type", kind))
        if null_seq:
            items.append(("seq", None))
        return dict(items)

    null = st.booleans() if seq else st.just(False)
    return st.builds(
        build,
        EVENT_TYPES,
        st.dictionaries(_EVENT_KEYS, any_term(capabilities), max_size=3),
        st.integers(0, 3),
        null,
    )


def names() -> SearchStrategy[str]:
    """Legal names: 1 to 255 characters without U+0000 and lone surrogates (RUN-7)."""
    alphabet = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.one_of(
        st.text(alphabet, min_size=1, max_size=20), st.text(alphabet, min_size=200, max_size=235)
    )
