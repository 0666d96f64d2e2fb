"""The payload format: durable terms as CBOR (RFC 8949), exactly, versioned, and free of code.

A payload is one CBOR item under the tag of the format's version, and any CBOR reader takes it apart. What CBOR
itself has no type for stands under a tag: a registered one where there is one, else one of ours. A tag is no
term, so that no term can look like the encoding of another. ``docs/payload-format.md`` is the specification.

Reading builds plain values and nothing else; a tag or version that this page does not name is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import cbor2

from continuum_conformance.contract import JournalUnavailable, NotDurable, Term
from continuum_conformance.contract.terms import check_durable

__all__ = ["MAX_BYTES", "MAX_DEPTH", "decode", "encode", "encode_checked"]

MAX_DEPTH = 256
"""How many containers may stand within one another. (cbor2 recurses without a limit of its own when it writes.)"""

MAX_BYTES = 512 * 1024 * 1024
"""How long a payload may be: half of what a ``bytea`` and a SQLite blob hold."""

# Registered by IANA.
DATETIME = 0
BIGNUMS = (2, 3)
DECIMAL = 4
UUID_BYTES = 37
SET = 258
DATE = 1004
DURATION = 1002

# Ours: "CJ" and a number, among the tags that are given first come, first served.
VERSION_1 = 0x434A_0100
TUPLE = 0x434A_0001
FROZENSET = 0x434A_0002
DECIMAL_TEXT = 0x434A_0003
LOCAL_DATETIME = 0x434A_0004
TIME = 0x434A_0005

_HEADER = b"\xda" + VERSION_1.to_bytes(4, "big")


def encode(term: Term, root: str, *, max_depth: int = MAX_DEPTH) -> bytes:
    """A term as a payload.

    Args:
        term: any value; it is taken as it is now (TRM-4).
        root: what the path of an offender begins with (TRM-3).
        max_depth: how deep the term may be nested.

    Raises:
        NotDurable: a part of the term cannot be stored.
    """
    check_durable(term, root, max_depth=max_depth)
    return encode_checked(term, root)


def encode_checked(term: Term, root: str) -> bytes:
    """A term that is known to be durable and no deeper than `MAX_DEPTH`, as a payload; see `encode`."""
    try:
        payload = _HEADER + cbor2.dumps(term, encoders=_ENCODERS)
    except Exception as error:  # a tzinfo is foreign code and may raise anything
        raise NotDurable(path=root, kind=f"{type(error).__name__}: {error}") from error
    if len(payload) > MAX_BYTES:
        raise NotDurable(
            f"{root} takes {len(payload)} bytes, {MAX_BYTES} at most", path=root, kind="too large"
        )
    return payload


def decode(payload: bytes) -> Term:
    """The term of a payload.

    Raises:
        JournalUnavailable: the payload is of no version that is known here, or damaged.
    """
    if not payload.startswith(_HEADER):
        raise JournalUnavailable(f"a payload of an unknown version: it begins with {payload[:5].hex(' ')}")
    try:
        return cbor2.loads(
            payload[len(_HEADER) :],
            semantic_decoders=_DECODERS,
            max_depth=4 * MAX_DEPTH,  # a tag counts as a level
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
    except (cbor2.CBORError, ValueError, TypeError) as error:
        raise JournalUnavailable(f"a damaged payload: {error.__cause__ or error}") from error


# -- writing --


def _encode_datetime(encoder: cbor2.CBOREncoder, value: datetime) -> None:
    # RFC 3339 knows offsets in whole minutes, and no datetimes without one.
    offset = value.utcoffset()
    if offset is not None and not offset % timedelta(minutes=1):
        encoder.encode_semantic(DATETIME, value.isoformat())
    else:
        encoder.encode_semantic(LOCAL_DATETIME, _local(value, offset))


def _encode_time(encoder: cbor2.CBOREncoder, value: time) -> None:
    encoder.encode_semantic(TIME, _local(value, value.utcoffset()))


def _local(value: datetime | time, offset: timedelta | None) -> list[str | int | None]:
    # The offset apart, in microseconds: fromisoformat() takes "+00:00:00.000001" for UTC.
    microseconds = None if offset is None else offset // timedelta.resolution
    return [value.replace(tzinfo=None).isoformat(), microseconds]


def _encode_decimal(encoder: cbor2.CBOREncoder, value: Decimal) -> None:
    sign, digits, exponent = value.as_tuple()
    if isinstance(exponent, int) and (any(digits) or not sign):
        encoder.encode_semantic(DECIMAL, [exponent, int(Decimal((sign, digits, 0)))])
    else:  # an infinity, a nan or a negative zero, for which a decimal fraction has no form
        encoder.encode_semantic(DECIMAL_TEXT, str(value))


def _encode_timedelta(encoder: cbor2.CBOREncoder, value: timedelta) -> None:
    # RFC 9581: whole seconds under 1, microseconds under -6; 0 <= microseconds < 1,000,000.
    encoder.encode_semantic(DURATION, {1: value.days * 86_400 + value.seconds, -6: value.microseconds})


_ENCODERS: dict[type, Callable[[cbor2.CBOREncoder, Any], None]] = {
    tuple: lambda encoder, value: encoder.encode_semantic(TUPLE, list(value)),
    set: lambda encoder, value: encoder.encode_semantic(SET, list(value)),
    frozenset: lambda encoder, value: encoder.encode_semantic(FROZENSET, list(value)),
    Decimal: _encode_decimal,
    datetime: _encode_datetime,
    date: lambda encoder, value: encoder.encode_semantic(DATE, value.isoformat()),
    time: _encode_time,
    timedelta: _encode_timedelta,
    UUID: lambda encoder, value: encoder.encode_semantic(UUID_BYTES, value.bytes),
}


# -- reading --


def _decode_decimal(parts: Any) -> Decimal:
    # Not scaleb() and the like: arithmetic would round to the context's precision.
    exponent, mantissa = parts
    sign, digits, _ = Decimal(mantissa).as_tuple()
    return Decimal((sign, digits, exponent))


def _decode_local_datetime(parts: Any) -> datetime:
    text, offset = parts
    return datetime.fromisoformat(text).replace(tzinfo=_zone(offset))


def _decode_time(parts: Any) -> time:
    text, offset = parts
    return time.fromisoformat(text).replace(tzinfo=_zone(offset))


def _zone(offset: int | None) -> timezone | None:
    return None if offset is None else timezone(timedelta(microseconds=offset))


def _decode_timedelta(parts: Any) -> timedelta:
    return timedelta(seconds=parts[1], microseconds=parts[-6])


class _Decoders(Mapping[int, Callable[[Any, bool], Any]]):
    """The decoders by tag. Asked for a tag that the format has not, it gives one that refuses (cbor2 would build anything)."""

    _BY_TAG: Mapping[int, Callable[[Any], Any]] = {
        TUPLE: tuple,
        SET: set,
        FROZENSET: frozenset,
        DECIMAL: _decode_decimal,
        DECIMAL_TEXT: Decimal,
        DATETIME: datetime.fromisoformat,
        LOCAL_DATETIME: _decode_local_datetime,
        DATE: date.fromisoformat,
        TIME: _decode_time,
        DURATION: _decode_timedelta,
        UUID_BYTES: lambda value: UUID(bytes=value),
    }

    def __init__(self) -> None:
        # cbor2 passes a second argument: whether the value must be hashable. What the format allows there, is.
        self._callbacks = {tag: self._callback(build) for tag, build in self._BY_TAG.items()}

    @staticmethod
    def _callback(build: Callable[[Any], Any]) -> Callable[[Any, bool], Any]:
        return lambda value, immutable: build(value)  # noqa: ARG005

    def __getitem__(self, tag: int) -> Callable[[Any, bool], Any]:
        if tag in BIGNUMS:
            raise KeyError(tag)  # cbor2's own are exact
        return self._callbacks.get(tag, _refuse)

    def __iter__(self) -> Iterator[int]:
        return iter(self._callbacks)

    def __len__(self) -> int:
        return len(self._callbacks)


def _refuse(value: Any, immutable: bool) -> Any:  # noqa: ARG001
    raise ValueError("a tag that the format does not have")


_DECODERS = _Decoders()
