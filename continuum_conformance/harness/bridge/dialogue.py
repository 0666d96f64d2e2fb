"""The bridge's protocol without any I/O: requests become bytes, bytes become replies, and breaches are told.

One dialogue is one program's: it numbers the requests, knows which are outstanding, and reads the lines that come
back. What the protocol does not allow raises `Breach`, whose text a program's author can act on. The protocol is
specified in docs/bridge.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from continuum_conformance.contract.errors import ERRORS
from continuum_conformance.harness.answers import outcome_of_value
from continuum_conformance.model import Kind, Operation, Outcome, mask
from continuum_conformance.model.tagged import Opaque, decode, deep, encode

__all__ = [
    "LONGEST",
    "PROTOCOL",
    "Breach",
    "Dialogue",
    "LeftOut",
    "Reply",
    "encoded_arguments",
    "is_carried",
    "outcome_of_reply",
    "reply_of_outcome",
]

PROTOCOL = 1
"""The version of the protocol."""

LONGEST = 64 * 2**20
"""Bytes that one line may have."""

SHOWN = 120
"""Characters that are shown of a line that is wrong."""

ABSENT = "NotImplementedError"
"""What a program answers to an operation that it does not have (CAP-1)."""


class Breach(Exception):
    """What a program said that the protocol does not allow."""


class LeftOut(Exception):
    """An operation whose arguments cannot be carried to another program; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, and the name of the operation that it answers."""

    id: int
    op: str
    data: Mapping[str, Any]


class Dialogue:
    """The requests to one program, and its replies."""

    def __init__(self) -> None:
        self._numbers = 0
        self._outstanding: dict[int, str] = {}
        self._unread = bytearray()
        self._scanned = 0

    def ask(
        self, op: str, arguments: Mapping[str, Any], handle: int | str | None = None
    ) -> tuple[int, bytes]:
        """A request's id, and the line to be sent. ``arguments`` are JSON data."""
        self._numbers += 1
        request: dict[str, Any] = {"id": self._numbers, "op": op}
        if handle is not None:
            request["handle"] = handle
        request["args"] = arguments
        self._outstanding[self._numbers] = op
        line = json.dumps(request, separators=(",", ":"), allow_nan=False)
        return self._numbers, line.encode() + b"\n"

    def hear(self, data: bytes) -> list[Reply]:
        """The replies in what came, with what came before. Raises `Breach`; the dialogue is over then."""
        self._unread += data
        replies = []
        while (end := self._unread.find(b"\n", self._scanned)) >= 0:
            line = bytes(self._unread[:end])
            del self._unread[: end + 1]
            self._scanned = 0
            replies.append(self._read(line))
        self._scanned = len(self._unread)
        if self._scanned > LONGEST:
            raise Breach(
                f"it wrote a line of more than {LONGEST // 2**20} MiB: {_shown(self._unread[:1000])}"
            )
        return replies

    @property
    def unfinished(self) -> str:
        """What came of a line that has no end yet, to be shown; empty when there is nothing."""
        return _shown(self._unread[:1000]) if self._unread else ""

    def _read(self, line: bytes) -> Reply:
        data = _json_object(line)
        number = data.get("id")
        if isinstance(number, bool) or not isinstance(number, int):
            raise Breach(f"it wrote a line without a whole number as its `id`: {_shown(line)}")
        op = self._outstanding.pop(number, None)
        if op is None:
            asked = ", ".join(map(str, self._outstanding)) or "none"
            raise Breach(
                f"it answered request {number}, which is not outstanding ({asked} is): {_shown(line)}"
            )
        return Reply(number, op, data)


def _json_object(line: bytes) -> dict[str, Any]:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise Breach(f"it wrote a line that is no UTF-8 (at byte {error.start}): {_shown(line)}") from None
    try:
        data = _loads(text)
    except RecursionError:
        raise Breach(f"it wrote a line that is nested too deep: {_shown(line)}") from None
    except ValueError:
        raise Breach(
            f"it wrote a line that is no JSON, on standard output, which is for replies alone: {_shown(line)}"
        ) from None
    if not isinstance(data, dict):
        raise Breach(f"it wrote a line that is no JSON object: {_shown(line)}")
    if "\\u" in text and not _is_unicode(data):
        raise Breach(f"it wrote half of a surrogate pair: {_shown(line)}")
    return data


def _loads(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        with deep():
            return json.loads(text, parse_constant=_refuse)


def _is_unicode(data: Any) -> bool:
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _shown(line: bytes | bytearray) -> str:
    text = bytes(line[: 4 * SHOWN]).decode("utf-8", "backslashreplace")
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}..."


# -- operations and outcomes --


def encoded_arguments(operation: Operation) -> dict[str, Any]:
    """An operation's arguments as JSON data.

    Raises:
        LeftOut: when JSON in UTF-8 cannot carry them: an object of no durable type, a container that holds itself,
            half of a surrogate pair. Any of these would have to be refused, and most languages cannot even have them.
    """
    return {name: _carried(value) for name, value in operation.arguments.items()}


def is_carried(value: Any) -> bool:
    """Whether a value can be an argument."""
    try:
        _carried(value)
    except LeftOut:
        return False
    return True


def _carried(value: Any) -> Any:
    try:
        data = encode(value)
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    except (Opaque, RecursionError) as error:
        raise LeftOut(str(error)) from None
    # The tag for text that is no Unicode. Within a string its quotes would be escaped.
    if '{"$":"text",' in text:
        raise LeftOut("half of a surrogate pair cannot be carried in UTF-8")
    return data


def outcome_of_reply(operation: str, data: Mapping[str, Any]) -> Outcome:
    """What a reply to an operation says came of it. Raises `Breach` when it says nothing that it may."""
    kind = data.get("kind")
    if kind == "value":
        try:
            value = decode(data.get("value"))
        except (ValueError, MemoryError) as error:
            return Outcome(Kind.GARBAGE, message=f"the answer cannot be read: {error}")
        return outcome_of_value(operation, value)
    if kind not in ("error", "raw"):
        raise Breach(
            f'its reply to {operation} has the kind {kind!r:.60}; it must be "value", "error" or "raw"'
        )
    name = _text(operation, data, "error") or "an error without a name"
    message, path = mask(_text(operation, data, "message")), _text(operation, data, "path")
    unknown, detail = data.get("unknown", False), mask(_text(operation, data, "detail"))
    if not isinstance(unknown, bool):
        raise Breach(f"its reply to {operation} has `unknown`: {unknown!r:.60}; it must be true or false")
    if kind == "error" and (name in ERRORS or name == ABSENT):
        return Outcome(
            Kind.ERROR,
            error=name,
            message=message,
            path=path or None if name == "NotDurable" else None,
            unknown=unknown and name == "JournalUnavailable",
            detail=detail,
        )
    return Outcome(Kind.RAW, error=name, message=message, detail=detail)


def _text(operation: str, data: Mapping[str, Any], member: str) -> str:
    found = data.get(member)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise Breach(f"its reply to {operation} has `{member}`: {found!r:.60}; it must be text")
    return found


def reply_of_outcome(outcome: Outcome) -> dict[str, Any]:
    """A reply, but for its id: what `outcome_of_reply` reads."""
    if outcome.kind is Kind.VALUE:
        value = list(outcome.value) if isinstance(outcome.value, tuple) else outcome.value
        try:
            return {"kind": "value", "value": encode(value)}
        except Opaque as error:
            message = f"the answer holds {error.described}, which is no durable term"
            return {"kind": "raw", "error": "garbage", "message": message}
    said = {
        "error": outcome.error or outcome.kind.value,
        "message": outcome.message,
        "detail": outcome.detail,
    }
    if outcome.path:
        said["path"] = outcome.path
    kind = "error" if outcome.kind is Kind.ERROR else "raw"
    unknown = {"unknown": True} if outcome.unknown and outcome.error == "JournalUnavailable" else {}
    return {"kind": kind, **{name: value for name, value in said.items() if value}, **unknown}
