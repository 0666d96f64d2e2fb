"""Terms, operations and outcomes as JSON that loses nothing.

Used wherever an operation crosses a process or is kept in a file: replay files, second processes, bridges.

None, bools, strings, lists, integers within 53 bits and dicts with string keys stand for themselves. Everything
else is an object with the key ``"$"``: ``{"$": "tuple", "v": [1, 2]}``. A dict that has a key ``"$"`` of its
own is written as pairs. Long repetitions and deep nests are written short.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.records import Instance, Lease, Run, RunState, Snapshot
from continuum_conformance.model.operations import Kind, Operation, Outcome

__all__ = [
    "Opaque",
    "decode",
    "decode_operation",
    "decode_outcome",
    "deep",
    "encode",
    "encode_operation",
    "encode_outcome",
]

SAFE_INTEGER = 2**53
DEEPEST = 20_000
"""Calls within calls that reading deep data may take."""
MOST = 2**26
"""How often something may be repeated, or nested."""
REPEATED = 64
"""Strings of one repeated character, and lists nested one in one, longer than this are written short."""


class Opaque(ValueError):
    """A value that JSON cannot carry; `described` says what it was."""

    def __init__(self, described: str) -> None:
        super().__init__(f"{described} cannot be carried in JSON")
        self.described = described


def _tag(name: str, value: Any) -> dict[str, Any]:
    return {"$": name, "v": value}


def encode(term: Any) -> Any:
    """A term or a record as JSON data. Raises `Opaque` for what cannot be carried."""
    try:
        return _encode(term)
    except RecursionError:
        raise Opaque(f"a {type(term).__name__} that holds itself or is nested too deep") from None


def _encode(term: Any) -> Any:
    cls = type(term)
    if term is None or cls is bool:
        return term
    if cls is int:
        return term if -SAFE_INTEGER < term < SAFE_INTEGER else _tag("int", f"{term:x}")
    if cls is str:
        return _encode_text(term)
    if cls is list:
        return _encode_list(term)
    if cls is dict:
        if all(type(key) is str for key in term) and "$" not in term and _all_plain(term):
            # As pairs, so that in JavaScript too they come in this order.
            if any(key.isdigit() for key in term) and len(term) > 1:
                return _pairs(term)
            return {key: _encode(value) for key, value in term.items()}
        return _pairs(term)
    writer = _WRITERS.get(cls)
    if writer is None:
        raise Opaque(f"a {cls.__name__}")
    return writer(term)


def _pairs(term: Mapping[Any, Any]) -> dict[str, Any]:
    return _tag("dict", [[_encode(key), _encode(value)] for key, value in term.items()])


def _all_plain(term: Mapping[str, Any]) -> bool:
    return all(key.isascii() or _plain(key) for key in term)


def _plain(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _encode_text(text: str) -> Any:
    if len(text) > REPEATED and text == text[0] * len(text):
        return _tag("repeat", [_encode_text(text[0]), len(text)])
    return text if _plain(text) else _tag("text", [ord(char) for char in text])


def _encode_list(term: list[Any]) -> Any:
    depth, inner = 0, term
    while type(inner) is list and len(inner) == 1 and depth < 10**6:
        depth, inner = depth + 1, inner[0]
    if depth == 10**6:
        raise Opaque("a list that holds itself")
    if depth > REPEATED:
        return _tag("nest", [depth, _encode(inner)])
    return [_encode(item) for item in term]


def _encode_bytes(data: bytes) -> Any:
    if len(data) > REPEATED and data == data[:1] * len(data):
        return _tag("repeat-bytes", [data[0], len(data)])
    return _tag("bytes", base64.b64encode(data).decode())


_WRITERS: dict[type, Callable[[Any], Any]] = {
    float: lambda v: _tag("float", repr(v)),
    bytes: _encode_bytes,
    tuple: lambda v: _tag("tuple", [_encode(item) for item in v]),
    set: lambda v: _tag("set", [_encode(item) for item in v]),
    frozenset: lambda v: _tag("frozenset", [_encode(item) for item in v]),
    Decimal: lambda v: _tag("decimal", str(v)),
    datetime: lambda v: _tag("datetime", _datetime(v)),
    date: lambda v: _tag("date", v.isoformat()),
    time: lambda v: _tag("time", v.isoformat()),
    timedelta: lambda v: _tag("timedelta", [v.days, v.seconds, v.microseconds]),
    UUID: lambda v: _tag("uuid", str(v)),
    Instance: lambda v: _tag("Instance", [_encode(v.name)]),
    Lease: lambda v: _tag("Lease", [_encode(part) for part in (v.run_id, v.owner, v.token)]),
    Run: lambda v: _tag(
        "Run", [_encode(p) for p in (v.run_id, v.workflow, v.state.value, v.input, v.result, v.error)]
    ),
    Snapshot: lambda v: _tag(
        "Snapshot",
        [_encode(p) for p in (v.run_id, v.through_seq, v.version_hash, v.taken_at, _steps(v.steps_by_seq))],
    ),
}


def _steps(steps: Any) -> Any:
    return dict(steps) if isinstance(steps, Mapping) else steps


def _datetime(value: datetime) -> list[Any]:
    offset = value.utcoffset()
    plain = value.replace(tzinfo=None, fold=0).isoformat()
    return [plain, None if offset is None else [offset.days, offset.seconds, offset.microseconds]]


def _read_datetime(value: list[Any]) -> datetime:
    plain, offset = value
    found = datetime.fromisoformat(plain)
    return found if offset is None else found.replace(tzinfo=timezone(timedelta(*offset)))


def _times(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MOST:
        raise ValueError(f"something is to be repeated {number!r:.60} times; at most {MOST} are allowed")
    return number


def _nest(value: list[Any]) -> Any:
    depth, inner = _times(value[0]), _decode(value[1])
    for _ in range(depth):
        inner = [inner]
    return inner


def _items(value: list[Any]) -> list[Any]:
    return [_decode(item) for item in value]


_READERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda v: int(v, 16),
    "float": float,
    "text": lambda v: "".join(map(chr, v)),
    "repeat": lambda v: _decode(v[0]) * _times(v[1]),
    "repeat-bytes": lambda v: bytes([v[0]]) * _times(v[1]),
    "bytes": lambda v: base64.b64decode(v, validate=True),
    "nest": _nest,
    "dict": lambda v: {_decode(key): _decode(value) for key, value in v},
    "tuple": lambda v: tuple(_items(v)),
    "set": lambda v: set(_items(v)),
    "frozenset": lambda v: frozenset(_items(v)),
    "decimal": Decimal,
    "datetime": _read_datetime,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda v: timedelta(*v),
    "uuid": UUID,
    "Instance": lambda v: Instance(*_items(v)),
    "Lease": lambda v: Lease(*_items(v)),
    "Run": lambda v: Run(_decode(v[0]), _decode(v[1]), RunState(v[2]), *_items(v[3:])),
    "Snapshot": lambda v: Snapshot(*_items(v)),
}


@contextmanager
def deep() -> Iterator[None]:
    """While this lasts, functions may call one another deeper: what another program nests, must be read here."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, DEEPEST))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def decode(data: Any) -> Any:
    """The term or record that `encode` wrote. Raises ``ValueError`` for data that it cannot have written."""
    try:
        return _decode(data)
    except RecursionError:
        pass
    try:
        with deep():
            return _decode(data)
    except RecursionError:
        raise ValueError("the data are nested too deep") from None


def _decode(data: Any) -> Any:
    if isinstance(data, list):
        return [_decode(item) for item in data]
    if not isinstance(data, dict):
        return data
    if "$" not in data:
        return {key: _decode(value) for key, value in data.items()}
    reader = _READERS.get(data["$"]) if isinstance(data["$"], str) else None
    if reader is None or "v" not in data:
        raise ValueError(f"unknown tag {data['$']!r:.60}")
    try:
        return reader(data["v"])
    except (TypeError, ArithmeticError, LookupError, AttributeError) as error:
        raise ValueError(f"malformed {data['$']}: {error}") from error


def encode_operation(operation: Operation) -> dict[str, Any]:
    """An operation as a JSON object. Raises `Opaque` when an argument cannot be carried."""
    arguments = {name: encode(value) for name, value in operation.arguments.items()}
    return {"op": operation.name, "worker": operation.worker, "args": arguments}


def decode_operation(data: Mapping[str, Any]) -> Operation:
    """The operation that `encode_operation` wrote. Raises ``ValueError`` for anything else."""
    try:
        if set(data["args"]) != set(OPERATIONS[data["op"]]):
            raise ValueError(f"{data['op']} takes {', '.join(OPERATIONS[data['op']])}")
        arguments = {name: decode(value) for name, value in data["args"].items()}
        return Operation(data["op"], arguments, data["worker"])
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"malformed operation: {error!r}") from error


def encode_outcome(outcome: Outcome) -> dict[str, Any]:
    """An outcome as a JSON object."""
    data: dict[str, Any] = {"kind": outcome.kind.value}
    if outcome.kind is Kind.VALUE:
        value = list(outcome.value) if isinstance(outcome.value, tuple) else outcome.value
        data["value"] = encode(value)
    for name in ("error", "message", "path", "unknown", "detail", "remark"):
        if getattr(outcome, name):
            data[name] = getattr(outcome, name)
    return data


def decode_outcome(data: Mapping[str, Any]) -> Outcome:
    """The outcome that `encode_outcome` wrote; a pair comes back as a list of two."""
    rest = {k: data[k] for k in ("error", "message", "path", "unknown", "detail", "remark") if k in data}
    return Outcome(Kind(data["kind"]), value=decode(data.get("value")), **rest)
