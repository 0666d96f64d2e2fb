"""Bound values as literals: a statement as somebody would type it.

How a value of the binary format reads is left to the server, which knows its types, those that users made included.
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import Self

from . import sql, wire
from .databases import connect

__all__ = ["Literals", "Unwritable"]

_BOOLEAN = 16
_BYTES = 17
_INTEGER = 23
_NUMBERS = frozenset({20, 21, 23, 26, 700, 701, 1700})
_OF_TIME = frozenset({1082, 1083, 1114, 1184, 1266})

_UNKNOWN = re.compile(r"\((function|statement|portal) .*\)", re.DOTALL)
"""What stands for the text of a statement that `wire` does not know."""

_SETTINGS = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
}


class Unwritable(Exception):
    """A statement that cannot be written as SQL; the message says why."""


class Literals:
    """Writes statements with their values, by the types that a database has.

    A context manager; leaving it closes its connection.

    Args:
        dsn: the database in which the statements were executed.

    Raises:
        PostgresUnavailable: there is no connection to it.
    """

    def __init__(self, dsn: str) -> None:
        self._connection = connect(dsn)
        self._names: dict[int, str] = {}
        self.of_time = False
        """Whether a value was a time: then it says when it was bound."""
        for name, value in _SETTINGS.items():
            self._connection.execute("SELECT set_config(%s, %s, false)", (name, value))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def statement(self, statement: wire.Statement) -> str:
        """The statement with its values in place. Raises `Unwritable`."""
        text = statement.sql.strip()
        if _UNKNOWN.fullmatch(text):
            raise Unwritable(f"its text is not known: {text}")
        if not statement.values:
            return text
        values = [
            self._literal(value, binary, type_)
            for (binary, value), type_ in zip(statement.values, statement.types, strict=True)
        ]
        try:
            return sql.inlined(text, values)
        except IndexError:
            raise Unwritable(f"a value of it is missing: {wire.shortened(text, 60)}") from None

    def _literal(self, value: bytes | None, binary: bool, type_: int) -> str:
        self.of_time |= type_ in _OF_TIME
        if value is None:
            return f"NULL::{self._name(type_)}" if type_ else "NULL"
        try:
            text = (self._read(value, type_) if binary else value).decode("utf-8")
        except UnicodeDecodeError:
            raise Unwritable("a value of it is no UTF-8 text") from None
        if not type_:
            return sql.literal(text)
        if type_ == _BOOLEAN:
            return "true" if text[:1] in ("t", "1") else "false"
        if type_ in _NUMBERS and re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            return text if type_ == _INTEGER else f"{text}::{self._name(type_)}"
        if type_ == _BYTES and re.fullmatch(r"\\x[0-9a-f]*", text):
            return f"'{text}'::bytea"  # nothing in it needs an escape, whatever the server's settings
        return f"{sql.literal(text)}::{self._name(type_)}"

    def _read(self, value: bytes, type_: int) -> bytes:
        """A value of the binary format as text."""
        if not type_:
            raise Unwritable("the type of a binary value of it is not known")
        found = self._connection.pgconn.exec_params(b"SELECT $1", [value], [type_], [1], 0)
        text = found.get_value(0, 0) if found.ntuples else None
        if text is None:
            raise Unwritable(
                f"the server does not read a value of it: {found.error_message.decode().strip()}"
            )
        return text

    def _name(self, type_: int) -> str:
        if type_ not in self._names:
            row = self._connection.execute("SELECT format_type(%s::oid, NULL)", (type_,)).fetchone()
            self._names[type_] = row[0] if row is not None else "text"
        return self._names[type_]
