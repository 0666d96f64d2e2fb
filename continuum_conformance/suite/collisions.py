"""Terms that look like the adapter's own encoding (TRM-1), found by looking at what it stored.

An adapter that writes a tuple as ``{"__tuple__": [1, 2]}`` without escaping gives that very dict back as a
tuple. The guess which dict it is would be endless; the store tells. A value that needs an encoding is stored
beside a marker, the marker is searched for in the adapter's files, its tables and its memory, and what stands
beside it there is given back to the adapter as an ordinary term.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from continuum_conformance.contract.errors import NotDurable
from continuum_conformance.contract.terms import canonical, check_durable
from continuum_conformance.suite.lab import Lab

__all__ = ["lookalikes", "words_beside"]

MAX_FILE = 64 * 2**20
PLAIN: tuple[Any, ...] = (b"\x01\x02", float("inf"), float("nan"), 2**70, -0.0)
RICH: tuple[Any, ...] = (
    (1, 2),
    {7},
    frozenset({7}),
    Decimal("1.50"),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    date(2026, 1, 2),
    time(3, 4, 5),
    timedelta(seconds=5),
    UUID(int=7),
    {1: "one"},
    {(1, 2): "pair"},
)


def lookalikes(lab: Lab) -> list[Any]:
    """What stands in the adapter's store for values that JSON does not have, as ordinary terms; each once."""
    markers = _marked(lab)
    _store(lab, markers)
    found: dict[bytes, Any] = {}
    for text in _stored(lab, f"marker{lab.salt}x"):
        for marker in markers:
            for form in _beside(text, marker):
                found.setdefault(canonical(form), form)
    for marker, value in markers.items():
        for form in _in_memory(marker, value):
            found.setdefault(canonical(form), form)
    originals = {canonical(value) for value in markers.values()}
    return [form for mark, form in found.items() if mark not in originals and _plain(form)]


def words_beside(lab: Lab) -> list[str]:
    """What can be read in the adapter's store close behind such values: tags of its encoding among it; each once."""
    markers = _marked(lab)
    _store(lab, markers)
    words: dict[str, None] = {}
    for text in _stored(lab, f"marker{lab.salt}x"):
        for marker in markers:
            words.update(dict.fromkeys(_words(text, marker)))
    return [word for word in words if word and lab.salt[:6] not in word][:MAX_WORDS]


def _marked(lab: Lab) -> dict[str, Any]:
    values = PLAIN + (RICH if "rich_terms" in lab.capabilities else ())
    return {f"marker{lab.salt}x{number}x": value for number, value in enumerate(values)}


def _store(lab: Lab, markers: dict[str, Any]) -> None:
    with lab.arranging():
        run = lab.run()
        run.start("checkout", None)
        for marker, value in markers.items():
            run.append({"type": "step", "payload": [marker, value]})


def _plain(form: Any) -> bool:
    try:
        check_durable(form, "form", rich=False)
    except NotDurable:
        return False
    return True


def _stored(lab: Lab, mark: str) -> Iterator[str]:
    """Every text in the adapter's files, tables and memory that holds the mark."""
    subject = lab.session.subject
    needle = mark.encode()
    if subject.directory is not None and "directory" in subject.needs:
        for file in Path(subject.directory).rglob("*"):
            if file.is_file() and file.stat().st_size <= MAX_FILE:
                data = file.read_bytes()
                if needle in data:
                    yield data.decode("utf-8", "replace")
    if subject.dsn is not None and "postgres" in subject.needs:
        yield from _in_tables(subject.dsn, mark)
    for thing in gc.get_objects():
        if type(thing) is dict:
            for value in list(thing.values()):
                if type(value) is str and mark in value:
                    yield value
                elif type(value) is bytes and needle in value:
                    yield value.decode("utf-8", "replace")
        elif type(thing) in (list, tuple):
            for value in list(thing):
                if type(value) is str and mark in value and value.startswith(("[", "{")):
                    yield value
                elif type(value) is bytes and needle in value:
                    yield value.decode("utf-8", "replace")


def _in_tables(dsn: str, mark: str) -> Iterator[str]:
    try:
        import psycopg
        from psycopg import sql
    except ImportError:
        return
    with psycopg.connect(dsn, autocommit=True) as connection:
        columns = connection.execute(
            "SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table, column, kind in columns:
            text = "encode({}, 'escape')" if kind == "bytea" else "{}::text"
            query = sql.SQL(f"SELECT {text} FROM {{}}.{{}} WHERE {text} LIKE {{}}").format(
                sql.Identifier(column),
                sql.Identifier(schema),
                sql.Identifier(table),
                sql.Identifier(column),
                sql.Literal(f"%{mark}%"),
            )
            for (value,) in connection.execute(query):
                yield value


def _beside(text: str, marker: str) -> Iterator[Any]:
    """The JSON values that follow the marker in a stored text."""
    decoder = json.JSONDecoder()
    place = text.find(marker)
    while place >= 0:
        rest = text[place + len(marker) : place + len(marker) + 4096]
        for quote in ('"', '\\"'):
            if rest.startswith(quote):
                body = rest[len(quote) :].lstrip()
                if quote == '\\"':
                    body = body.replace('\\"', '"')
                if body.startswith(","):
                    try:
                        form, _ = decoder.raw_decode(body[1:].lstrip())
                    except ValueError:
                        continue
                    yield form
        place = text.find(marker, place + 1)


PRINTABLE = re.compile(r"[!-~]{2,}")
LONGEST = 24
MAX_WORDS = 200


def _words(text: str, marker: str) -> Iterator[str]:
    """What can be read close behind the marker, in whatever form it was stored: tags of keys and values among it.

    A letter at either end may be a part of the format's, and in CBOR one before a text is its length.
    """
    place = text.find(marker)
    rest = text[place + len(marker) :][:120].partition("marker")[0] if place >= 0 else ""
    for word in PRINTABLE.findall(rest):
        if len(word) <= LONGEST:
            yield from (word, word[:-1], word[1:])
        for start, letter in enumerate(word, 1):
            length = ord(letter) - 0x60
            if 2 <= length <= min(23, len(word) - start):
                yield word[start : start + length]


def _in_memory(marker: str, value: Any) -> Iterator[Any]:
    """What stands beside the marker in lists of this process, where it is not the value itself."""
    own = canonical(value)
    for thing in gc.get_objects():
        if type(thing) in (list, tuple) and len(thing) == 2 and type(thing[0]) is str and thing[0] == marker:
            form = thing[1]
            if canonical(form) != own:
                yield form
