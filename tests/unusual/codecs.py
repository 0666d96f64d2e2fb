"""Two encodings that strangers might choose: tagged JSON text, and a binary one with lengths in front."""

from __future__ import annotations

import base64
import json
import struct
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID


def to_json(value: Any) -> Any:
    """Only None, bools, small integers and text are themselves; all else is a list that begins with its tag."""
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        return value if -(2**53) < value < 2**53 else ["i", hex(value)]
    if kind is float:
        return ["f", repr(value)]
    if kind is bytes:
        return ["b", base64.b64encode(value).decode()]
    if kind in (list, tuple, set, frozenset):
        return [{list: "l", tuple: "t", set: "s", frozenset: "z"}[kind], *map(to_json, value)]
    if kind is dict:
        return ["d", *([to_json(key), to_json(item)] for key, item in value.items())]
    if kind is Decimal:
        return ["D", str(value)]
    if kind is datetime:
        offset = value.utcoffset()
        seconds = None if offset is None else offset.total_seconds()
        return ["dt", value.replace(tzinfo=None).isoformat(), seconds]
    if kind is date:
        return ["da", value.isoformat()]
    if kind is time:
        return ["ti", value.isoformat()]
    if kind is timedelta:
        return ["td", value.days, value.seconds, value.microseconds]
    if kind is UUID:
        return ["u", value.hex]
    raise TypeError(kind.__name__)


def from_json(form: Any) -> Any:
    if not isinstance(form, list):
        return form
    tag, *rest = form
    if tag == "i":
        return int(rest[0], 16)
    if tag == "f":
        return float(rest[0])
    if tag == "b":
        return base64.b64decode(rest[0])
    if tag in ("l", "t", "s", "z"):
        return {"l": list, "t": tuple, "s": set, "z": frozenset}[tag](map(from_json, rest))
    if tag == "d":
        return {from_json(key): from_json(item) for key, item in rest}
    if tag == "D":
        return Decimal(rest[0])
    if tag == "dt":
        zone = None if rest[1] is None else timezone(timedelta(seconds=rest[1]))
        return datetime.fromisoformat(rest[0]).replace(tzinfo=zone)
    if tag == "da":
        return date.fromisoformat(rest[0])
    if tag == "ti":
        return time.fromisoformat(rest[0])
    if tag == "td":
        return timedelta(*rest)
    return UUID(rest[0])


def text_of(value: Any) -> str:
    return json.dumps(to_json(value), separators=(",", ":"))


def value_of(text: str) -> Any:
    return from_json(json.loads(text))


# -- binary: a letter, the length of the body, the body --


def pack(value: Any) -> bytes:
    kind = type(value)
    if value is None:
        return b"n\0\0\0\0"
    if kind is bool:
        return _chunk(b"?", b"\1" if value else b"\0")
    if kind is int:
        return _chunk(b"i", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    if kind is float:
        return _chunk(b"f", struct.pack(">d", value))
    if kind is str:
        return _chunk(b"s", value.encode())
    if kind is bytes:
        return _chunk(b"b", value)
    if kind is list:
        return _chunk(b"l", b"".join(map(pack, value)))
    if kind is dict:
        return _chunk(b"d", b"".join(pack(part) for pair in value.items() for part in pair))
    if kind in (tuple, set, frozenset, Decimal, datetime, date, time, timedelta, UUID):
        return _chunk(b"x", pack(text_of(value)))
    raise TypeError(kind.__name__)


def _chunk(letter: bytes, body: bytes) -> bytes:
    return letter + struct.pack(">I", len(body)) + body


def unpack(data: bytes) -> Any:
    value, end = _read(memoryview(data), 0)
    if end != len(data):
        raise ValueError("there is more behind the value")
    return value


def unpack_all(data: bytes) -> list[Any]:
    """Values that stand one behind the other."""
    return list(unpack(_chunk(b"l", data)))


def _read(data: memoryview, at: int) -> tuple[Any, int]:
    letter = data[at]
    (length,) = struct.unpack_from(">I", data, at + 1)
    start, end = at + 5, at + 5 + length
    body = data[start:end]
    if letter == 0x6E:
        return None, end
    if letter == 0x3F:
        return body[0] == 1, end
    if letter == 0x69:
        return int.from_bytes(body, "big", signed=True), end
    if letter == 0x66:
        return struct.unpack(">d", body)[0], end
    if letter == 0x73:
        return str(body, "utf-8"), end
    if letter == 0x62:
        return bytes(body), end
    parts = []
    while start < end:
        part, start = _read(data, start)
        parts.append(part)
    if letter == 0x6C:
        return parts, end
    if letter == 0x64:
        return dict(zip(parts[::2], parts[1::2], strict=True)), end
    return value_of(parts[0]), end
