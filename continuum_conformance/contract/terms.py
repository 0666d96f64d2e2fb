"""Durable terms: which values a journal stores (TRM), and when two of them are equal.

Nothing here recurses: a term may be nested deeper than Python's stack.

*Equal* is stricter than ``==``: the same types throughout (True is not 1, a tuple is not a list), floats by
sign and value with a nan equal to a nan, aware datetimes by instant and UTC offset, decimals with their
exponent. The order of a dict's keys does not count unless it is asked for (it is a SHOULD, TRM-1s).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from continuum_conformance.contract.errors import NotDurable
from continuum_conformance.contract.records import Term

__all__ = ["MAX_DEPTH", "MAX_NODES", "canonical", "check_durable", "copy_term", "difference", "equal", "shown"]

MAX_DEPTH = 256
"""The nesting that `check_durable` allows unless told otherwise. The contract asks for 64 at least (TRM-1)."""

MAX_NODES = 20_000_000
"""How many values one term may hold in all: a small graph of shared lists can stand for a huge term."""

_PLAIN_LEAVES = (type(None), bool, int, float, bytes)
_RICH_LEAVES = (Decimal, datetime, date, time, timedelta, UUID)

_Path = tuple[Any, str] | None  # (parent path, segment), innermost first; None at the root


def _render(root: str, path: _Path) -> str:
    segments = []
    while path is not None:
        path, segment = path
        segments.append(segment)
    return root + "".join(reversed(segments))


def _segment(key: object) -> str:
    if type(key) is str:
        return f".{key}" if key.isidentifier() else f"[{key!a}]"
    return f"[{key!a}]"


def _scalar_text(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_durable(
    term: Term,
    root: str,
    *,
    rich: bool = True,
    max_depth: int = MAX_DEPTH,
    max_nodes: int = MAX_NODES,
) -> None:
    """Raise ``NotDurable`` at the first part of ``term`` that a journal need not store (TRM-1 to TRM-3).

    Args:
        term: the value to look at.
        root: what the path begins with: ``input``, ``event``, ``result``, ``error``, or ``snapshot...``.
        rich: whether the rich terms of TRM-2 are durable too.
        max_depth: how many containers may stand within one another.
        max_nodes: how many values the whole term may hold.

    Subclasses of the allowed types are refused rather than flattened (TRM-3). An offending dict key or set
    member is reported at its container.
    """
    leave = object()
    open_containers: set[int] = set()
    stack: list[tuple[Any, _Path]] = [(term, None)]
    nodes = 1
    while stack:
        value, path = stack.pop()
        if value is leave:
            open_containers.discard(path)  # the identity stands in the place of the path
            continue
        cls = type(value)
        if cls in _PLAIN_LEAVES:
            continue
        if cls is str:
            if not _scalar_text(value):
                raise NotDurable(path=_render(root, path), kind="lone surrogate")
            continue
        children: list[tuple[Any, _Path]]
        if cls is list or (rich and cls is tuple):
            children = [
                (item, (path, f"[{index}]")) for index, item in enumerate(value) if not _plainly_durable(item)
            ]
        elif cls is dict:
            children = []
            for key, item in value.items():
                if not (type(key) is str and key.isascii()):
                    _check_key(key, root, path, rich)
                if not _plainly_durable(item):
                    children.append((item, (path, _segment(key))))
        elif rich and cls in (set, frozenset):
            children = [(item, path) for item in value]
        elif rich and cls in _RICH_LEAVES:
            continue
        else:
            raise NotDurable(path=_render(root, path), kind=cls.__name__)
        nodes += len(value)
        if nodes > max_nodes:
            raise NotDurable(f"{root} holds more than {max_nodes} values", path=root, kind="too large")
        if id(value) in open_containers:
            raise NotDurable(path=_render(root, path), kind="a container that holds itself")
        if len(open_containers) >= max_depth:
            raise NotDurable(
                f"{root} is nested deeper than {max_depth} levels", path=_render(root, path), kind="too deep"
            )
        open_containers.add(id(value))
        stack.append((leave, id(value)))  # type: ignore[arg-type]
        stack.extend(reversed(children))


def _plainly_durable(value: object) -> bool:
    """Whether a value is durable at first sight, as most are; this spares the way to it."""
    cls = type(value)
    return cls in _PLAIN_LEAVES or (cls is str and value.isascii())  # type: ignore[attr-defined]


def _check_key(key: object, root: str, path: _Path, rich: bool) -> None:
    if type(key) is str:
        if not _scalar_text(key):
            raise NotDurable(path=_render(root, path), kind="lone surrogate in a key")
        return
    if not rich:
        raise NotDurable(path=_render(root, path), kind=f"a key of type {type(key).__name__}")
    try:
        check_durable(key, root)
    except NotDurable as error:
        raise NotDurable(path=_render(root, path), kind=f"in a key: {error.kind}") from None


def canonical(term: Term, *, ordered: bool = False) -> bytes:
    """An unambiguous byte string: two terms are equal exactly when theirs are the same.

    Args:
        term: any value; one of a type that is no durable term's is equal to itself alone.
        ordered: whether the order of a dict's keys counts.
    """
    results: list[bytes] = []
    open_containers: set[int] = set()
    stack: list[tuple[Any, int, bytes]] = [(term, -1, b"")]  # (value, children to fold or -1, tag)
    while stack:
        value, count, tag = stack.pop()
        if count >= 0:
            open_containers.discard(id(value))
            parts = results[len(results) - count :]
            del results[len(results) - count :]
            if tag in (b"M", b"S", b"F"):
                if tag == b"M":
                    parts = [parts[i] + parts[i + 1] for i in range(0, count, 2)]
                if tag != b"M" or not ordered:
                    parts.sort()
            results.append(_framed(tag, b"".join(parts)))
            continue
        leaf = _leaf(value)
        if leaf is not None:
            results.append(leaf)
            continue
        cls = type(value)
        children: Iterable[Any]
        if cls is list:
            tag, children = b"L", value
        elif cls is tuple:
            tag, children = b"T", value
        elif cls is dict:
            tag, children = b"M", [part for pair in value.items() for part in pair]
        elif cls is set:
            tag, children = b"S", value
        elif cls is frozenset:
            tag, children = b"F", value
        else:
            results.append(
                _framed(b"?", f"{cls.__module__}.{cls.__qualname__}@{id(value)}".encode("utf-8", "replace"))
            )
            continue
        if id(value) in open_containers:
            results.append(b"(cycle)")
            continue
        open_containers.add(id(value))
        items = list(children)
        stack.append((value, len(items), tag))
        stack.extend((item, -1, b"") for item in reversed(items))
    return results[0]


def _framed(tag: bytes, content: bytes) -> bytes:
    return b"%b%d:%b" % (tag, len(content), content)


def _leaf(value: Any) -> bytes | None:
    cls = type(value)
    if value is None:
        return b"N"
    if cls is bool:
        return b"Bt" if value else b"Bf"
    if cls is int:
        return _framed(b"I", b"%x" % value)
    if cls is float:
        return b"Dnan" if value != value else b"D" + struct.pack(">d", value)
    if cls is str:
        return _framed(b"U", value.encode("utf-8", "surrogatepass"))
    if cls is bytes:
        return _framed(b"Y", value)
    if cls is Decimal:
        return _framed(b"d", repr(value.as_tuple()).encode())
    if cls is datetime:
        return _framed(b"t", _naive(value) + b"|" + _offset(value))
    if cls is date:
        return _framed(b"a", value.isoformat().encode())
    if cls is time:
        offset = value.utcoffset()
        return _framed(b"c", value.replace(tzinfo=None, fold=0).isoformat().encode() + repr(offset).encode())
    if cls is timedelta:
        return _framed(b"e", b"%d|%d|%d" % (value.days, value.seconds, value.microseconds))
    if cls is UUID:
        return _framed(b"u", value.bytes)
    return None


def _naive(value: datetime) -> bytes:
    return value.replace(tzinfo=None, fold=0).isoformat().encode()


def _offset(value: datetime) -> bytes:
    offset = value.utcoffset()
    return b"naive" if offset is None else repr(offset).encode()


def equal(left: Term, right: Term, *, ordered: bool = False) -> bool:
    """Whether two terms are equal in the contract's sense; ``ordered`` counts the order of dict keys too."""
    return left is right or canonical(left, ordered=ordered) == canonical(right, ordered=ordered)


def difference(expected: Term, actual: Term, where: str = "") -> str | None:
    """Where and how two terms first differ, in words, or None when they are equal."""
    if equal(expected, actual):
        return None
    while True:
        cls = type(expected)
        at = f" at {where}" if where else ""
        if cls is not type(actual):
            return (
                f"{shown(expected)} ({cls.__name__}) became {shown(actual)} ({type(actual).__name__}){at}"
            )
        if cls in (list, tuple):
            if len(expected) != len(actual):
                return f"{len(expected)} items became {len(actual)}{at}: {shown(expected)} became {shown(actual)}"
            pairs = [(f"[{i}]", e, a) for i, (e, a) in enumerate(zip(expected, actual, strict=True))]
        elif cls is dict:
            found = _keys_difference(expected, actual)
            if found:
                return f"{found}{at}"
            theirs = {canonical(key): value for key, value in actual.items()}
            pairs = [(_segment(k), e, theirs[canonical(k)]) for k, e in expected.items()]
        else:
            return f"{shown(expected)} became {shown(actual)}{at}"
        segment, expected, actual = next(pair for pair in pairs if not equal(pair[1], pair[2]))
        where += segment


def _keys_difference(expected: Mapping[Any, Any], actual: Mapping[Any, Any]) -> str | None:
    ours = {canonical(key): key for key in expected}
    theirs = {canonical(key): key for key in actual}
    lost = [shown(key) for mark, key in ours.items() if mark not in theirs]
    added = [shown(key) for mark, key in theirs.items() if mark not in ours]
    if lost and added:
        return f"key {', '.join(lost)} became {', '.join(added)}"
    if lost:
        return f"key {', '.join(lost)} is missing"
    if added:
        return f"key {', '.join(added)} was added"
    return None


def shown(value: object, limit: int = 60) -> str:
    """A value as a person may read it: its repr, cut to ``limit`` characters, whatever its repr does."""
    try:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    except Exception as error:  # noqa: BLE001 - a foreign object's own __repr__ may raise anything
        text = f"a {type(value).__name__} whose repr raised {type(error).__name__}"
    return text if len(text) <= limit else f"{text[: limit - 12]}...{text[-9:]}"


def copy_term(term: Term) -> Term:
    """A copy that shares no mutable container with the original, so that changing one leaves the other alone (LOD-3, TRM-4).

    The term must be durable (see `check_durable`); leaves are immutable and shared.
    """
    results: list[Any] = []
    stack: list[tuple[Any, int]] = [(term, -1)]
    while stack:
        value, count = stack.pop()
        cls = type(value)
        if count >= 0:
            parts = results[len(results) - count :]
            del results[len(results) - count :]
            results.append(dict(zip(value, parts, strict=True)) if cls is dict else cls(parts))
        elif cls is dict:
            stack.append((value, len(value)))
            stack.extend((item, -1) for item in reversed(value.values()))
        elif cls in (list, tuple):
            stack.append((value, len(value)))
            stack.extend((item, -1) for item in reversed(value))
        elif cls is set:
            results.append(set(value))
        else:
            results.append(value)
    return results[0]
