"""The payload format: every durable term comes back equal, and nothing else comes back at all."""

import sys
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

import cbor2
import pytest
from continuum_adapters import codec
from continuum_adapters.codec import MAX_DEPTH, decode, encode
from hypothesis import example, given, settings
from hypothesis import strategies as st

from continuum_conformance.contract import JournalUnavailable, NotDurable
from continuum_conformance.contract.terms import equal

HEADER = bytes.fromhex("da434a0100")

offsets = st.timedeltas(
    timedelta(hours=-24) + timedelta(microseconds=1), timedelta(hours=24) - timedelta(microseconds=1)
)
datetimes = st.datetimes(timezones=st.none() | offsets.map(timezone) | st.just(UTC)).map(
    lambda value: value.replace(fold=0)
)
text = st.text(st.characters(exclude_categories=["Cs"]))
hashable_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**300), 2**300)
    | st.floats(allow_nan=False)
    | text
    | st.binary()
    | st.decimals(allow_nan=False)
    | datetimes
    | st.dates()
    | st.times().map(lambda value: value.replace(fold=0))
    | st.timedeltas()
    | st.uuids()
)
leaves = hashable_leaves | st.just(float("nan")) | st.just(Decimal("nan")) | st.just(Decimal("-sNaN123"))
hashables = st.recursive(
    hashable_leaves, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=6
)
terms = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.sets(hashables, max_size=4)
        | st.frozensets(hashables, max_size=4)
    ),
    max_leaves=25,
)


@given(terms)
@example([-0.0, 0.0, float("inf"), float("-inf"), float("nan"), 5e-324, 1.1])
@example([True, 1, 1.0, Decimal(1), Decimal("1.0"), Decimal("-0"), Decimal("-0E+7"), Decimal("1E+400")])
@example([Decimal("1." + "7" * 60), -(2**64), 2**64 - 1, -(2**64) - 1, 2**70000, -(2**70000)])
@example({(1, (2, frozenset({("a", b"a")}))): [([1],)], 1: "one", "1": "text", None: None})
@example("\0\U0010ffff\ufeffe\u0301")
@example([datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), datetime.max, datetime.min])
@example(datetime(2000, 1, 1, tzinfo=timezone(timedelta(microseconds=-1))))
@example(datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=53, seconds=28, microseconds=7))))
@example([timedelta.min, timedelta.max, timedelta.resolution, -timedelta.resolution])
@example([date.min, date.max, time.max, time(1, 2, 3, 4, UTC), UUID(int=0)])
@example([[], (), {}, set(), frozenset(), [()], ([],), [{}], "", b""])
@settings(max_examples=500, deadline=None)
def test_a_term_reads_back_equal_with_its_order(term: Any) -> None:
    assert equal(decode(encode(term, "input")), term, ordered=True)


@given(terms)
@settings(deadline=None)
def test_the_bytes_of_a_term_are_a_term_of_their_own(term: Any) -> None:
    payload = encode(term, "input")
    assert decode(encode(payload, "input")) == payload


@pytest.mark.parametrize(
    "term",
    [
        cbor2.CBORTag(258, [1]),
        cbor2.undefined,
        cbor2.CBORSimpleValue(99),
        bytearray(b"x"),
        "\ud800",
        {"a": ["\udfff"]},
        object(),
    ],
)
def test_what_is_no_term_is_refused(term: Any) -> None:
    with pytest.raises(NotDurable):
        encode(term, "input")


def nested(depth: int, *, wrap: Any = lambda inner: [inner]) -> Any:
    term: Any = None
    for _ in range(depth):
        term = wrap(term)
    return term


WRAPS = {
    "list": lambda inner: [inner],
    "tuple": lambda inner: (inner,),
    "frozenset": lambda inner: frozenset([inner]),
    "dict": lambda inner: {"k": inner},
    "key": lambda inner: (frozenset([inner]),),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_a_term_may_be_nested_to_the_limit(wrap: Any) -> None:
    depth = MAX_DEPTH // (2 if wrap is WRAPS["key"] else 1)
    term = nested(depth, wrap=wrap)
    assert equal(decode(encode(term, "input")), term)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100_000])
def test_a_term_nested_deeper_is_refused_not_a_crash(depth: int) -> None:
    with pytest.raises(NotDurable):
        encode(nested(depth), "input")


def test_a_key_nested_to_the_limit_reads_back() -> None:
    term = {nested(MAX_DEPTH, wrap=WRAPS["tuple"]): nested(MAX_DEPTH - 1)}
    assert equal(decode(encode(term, "input")), term)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x01",
        cbor2.dumps([1]),
        HEADER,
        HEADER + b"\x82\x01",
        HEADER + b"\xff",
        HEADER + b"\x9f\x01\xff",
        bytes.fromhex("da434a0200") + b"\x01",
        HEADER + cbor2.dumps({1: 2})[:-1] + cbor2.dumps(cbor2.CBORTag(4, [1])),
        HEADER + cbor2.dumps(cbor2.CBORTag(37, b"short")),
    ],
)
def test_what_is_no_payload_is_refused(payload: bytes) -> None:
    with pytest.raises(JournalUnavailable):
        decode(payload)


KNOWN_TAGS = {0, 2, 3, 4, 37, 258, 1002, 1004, *range(0x434A0001, 0x434A0006)}


@pytest.mark.parametrize("content", ["x", b"x", 1, [1, 2], {"a": 1}])
def test_an_unknown_tag_is_refused_and_builds_nothing(content: Any) -> None:
    for tag in {*range(1100), 43000, 55799, 0x434A0006, 0x434A0100, 2**64 - 1} - KNOWN_TAGS:
        item = cbor2.dumps(cbor2.CBORTag(tag, content))
        for placed in (item, b"\x81" + item, b"\xa1\x01" + item, b"\xa1" + item + b"\x01"):
            with pytest.raises(JournalUnavailable):
                decode(HEADER + placed)


def test_reading_imports_and_executes_nothing() -> None:
    payload = encode([Decimal("1.5"), datetime.now(UTC), UUID(int=1), {1, 2}], "input")
    decode(payload)
    seen: list[str] = []
    listening = True

    def hear(event: str, _: Any) -> None:
        if listening and event in {"exec", "compile", "import", "pickle.find_class", "marshal.loads"}:
            seen.append(event)

    sys.addaudithook(hear)
    decode(payload)
    listening = False
    assert seen == []


def test_a_payload_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_BYTES", 100)
    assert decode(encode(b"x" * 80, "input")) == b"x" * 80
    with pytest.raises(NotDurable):
        encode(b"x" * 100, "input")


class Astray(tzinfo):
    """A time zone whose code fails."""

    def utcoffset(self, _: datetime | None) -> timedelta:
        raise LookupError("no such zone")


def test_a_time_zone_that_fails_is_not_durable() -> None:
    with pytest.raises(NotDurable) as caught:
        encode([datetime(2024, 1, 1, tzinfo=Astray())], "input")
    assert caught.value.path == "input"


@pytest.mark.parametrize(
    ("term", "payload"),
    [
        (None, "f6"),
        ({"type": "e"}, "a1 64 74797065 61 65"),
        ((1,), "da434a0001 81 01"),
        ({1}, "d9 0102 81 01"),
        (frozenset([1]), "da434a0002 81 01"),
        (Decimal("-1.10"), "c4 82 21 386d"),
        (Decimal("-0.0"), "da434a0003 64 2d302e30"),
        (datetime(2024, 1, 2, 3, 4, 5, 6, UTC), "c0 78 20" + b"2024-01-02T03:04:05.000006+00:00".hex()),
        (datetime(2024, 1, 2), "da434a0004 82 73" + b"2024-01-02T00:00:00".hex() + "f6"),
        (date(2024, 1, 2), "d903ec 6a" + b"2024-01-02".hex()),
        (time(3, 4), "da434a0005 82 68" + b"03:04:00".hex() + "f6"),
        (timedelta(days=-1, microseconds=5), "d903ea a2 01 3a0001517f 25 05"),
        (UUID(int=1), "d825 50 00000000000000000000000000000001"),
    ],
)
def test_the_bytes_are_those_of_the_specification(term: Any, payload: str) -> None:
    assert encode(term, "input") == HEADER + bytes.fromhex(payload)
