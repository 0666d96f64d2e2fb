"""What went through the gate, in order: each group that reached the server, when, and what the server said to it.

The gate writes it (`Gate.taped`); a picture of a race and a spec for PostgreSQL's isolation tester are made of it.
Moments are the numbers of a clock that whoever tapes may give (`Gate.clock`), so that they can be put in one order
with what happened elsewhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import wire
from .sql import statement_words

if TYPE_CHECKING:
    from .gate import Session

__all__ = ["Park", "Sent"]

MOST_BYTES = 1 << 16
"""Of an answer, so many bytes are kept."""
MOST_ROWS = 4
"""Of an answer's rows, so many are told."""

_FIELD = struct.Struct("!IhIhih")
_WORD = struct.Struct("!i")
_SHORT = struct.Struct("!h")


@dataclass(slots=True)
class Park:
    """Once that a session was parked within a statement (see `parking`)."""

    place: str
    """``event: before insert of a row``"""
    at: int
    until: int | None = None
    """When it was let go; None if it never was."""


@dataclass(slots=True, eq=False)
class Sent:
    """A group that went to the server.

    Attributes:
        session: the connection.
        worker: whose work it was.
        group: what was sent.
        at: when.
        idle: whether no transaction was open then.
        answered: when the server's answer was whole; None if that never came.
        waited: when it was found to wait for another session; None if it did not.
        blockers: the workers for which it waited then, as far as they are known.
        given: when its client got an answer that had been kept back; None if it was not.
        parks: where it was parked.
        tags: the command tags of what was done, in order.
        error: the error in the answer, if there was one.
        status: the session's status after it: ``I`` idle, ``T`` in a transaction, ``E`` in a failed one.
        cut: where the connection was cut at it (``after`` or ``mid-reply``); ``before`` for one that reached nobody.
    """

    session: Session
    worker: str
    group: wire.Group
    at: int
    idle: bool
    answered: int | None = None
    waited: int | None = None
    blockers: tuple[str, ...] = ()
    given: int | None = None
    parks: list[Park] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    error: wire.Failed | None = None
    status: str = ""
    cut: str = ""
    _answer: bytearray = field(default_factory=bytearray)

    @property
    def executes(self) -> bool:
        """Whether it does something that another session could see or wait for."""
        return self.group.nature is not wire.Nature.PASSES

    @property
    def matters(self) -> bool:
        """Whether it does something, or begins, sets up or ends a transaction or a session.

        What drivers and pools send on their own account does not: a look at the catalogue, a ROLLBACK of nothing.
        """
        if self.executes:
            return True
        return any(_matters(words[0], words, self.idle) for words in self._words())

    def _words(self) -> Iterator[list[str]]:
        for statement in self.group.statements:
            yield from filter(None, statement_words(statement.sql))

    @property
    def answer(self) -> str:
        """What the server said, for a reader: the first rows, else the command tags, else the error."""
        if self.error is not None:
            return f"{self.error.severity} {self.error.sqlstate}: {self.error.message}"
        if self.tags and self.tags[-1].startswith("SELECT"):
            return _rows_told(self.tags[-1], *_rows(bytes(self._answer)))
        return "; ".join(filter(None, self.tags))

    def heard(self, event: wire.ServerEvent) -> None:
        """Keep what the server said of it."""
        if isinstance(event, wire.Completed):
            self.tags.append(event.tag)
        elif isinstance(event, wire.Failed):
            self.error = event
        elif isinstance(event, wire.Bulk) and len(self._answer) < MOST_BYTES:
            self._answer += event.raw[:MOST_BYTES]


_ENDS = frozenset({"rollback", "abort", "commit", "end"})
_BEGINS = frozenset({"begin", "start", "set", "prepare", "savepoint", "release"})


def _matters(first: str, words: Sequence[str], idle: bool) -> bool:
    if first in _ENDS:
        return not idle
    return first in _BEGINS or "set_config" in words


def _rows_told(tag: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    count = tag.rpartition(" ")[2]
    told = f"{count} row{'' if count == '1' else 's'}"
    if not rows:
        return told
    first = [
        ", ".join(f"{name}={value}" for name, value in zip(names, row, strict=False))
        if names
        else ", ".join(row)
        for row in rows[:MOST_ROWS]
    ]
    more = ", …" if len(rows) > MOST_ROWS else ""
    return f"{told}: {wire.shortened(', '.join(f'({row})' for row in first), 400)}{more}"


def _rows(answer: bytes) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, where they were described, and the rows, as a reader is shown them."""
    names: list[str] = []
    types: list[tuple[int, bool]] = []
    rows: list[list[str]] = []
    for kind, body in _messages(answer):
        if kind == b"T":
            names, types, rows = [], [], []
            place = 2
            for _ in range(_SHORT.unpack_from(body)[0]):
                end = body.index(b"\0", place)
                names.append(body[place:end].decode("utf-8", "backslashreplace"))
                _, _, type_, _, _, format_ = _FIELD.unpack_from(body, end + 1)
                types.append((type_, bool(format_)))
                place = end + 1 + _FIELD.size
        elif kind == b"D":
            rows.append(list(_values(body, types)))
    return names, rows


def _values(body: bytes, types: Sequence[tuple[int, bool]]) -> Iterator[str]:
    place = 2
    for column in range(_SHORT.unpack_from(body)[0]):
        length = _WORD.unpack_from(body, place)[0]
        place += 4
        value = None if length < 0 else body[place : place + length]
        place += max(0, length)
        # Without a description (the client knew it) nothing is known of the format; most are not readable then.
        type_, binary = types[column] if column < len(types) else (0, True)
        yield wire.shown(value, binary, type_)


def _messages(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The whole messages in some bytes."""
    place = 0
    while place + 5 <= len(raw):
        end = place + 1 + int.from_bytes(raw[place + 1 : place + 5], "big")
        if end > len(raw):
            return
        yield raw[place : place + 1], raw[place + 5 : end]
        place = end
