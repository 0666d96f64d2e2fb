"""Durable terms: which values a journal stores (TRM), and when two of them are equal.

Nothing here recurses: a term may be nested deeper than Python's stack.

*Equal* is stricter than ``==``: the same types throughout (True is not 1, a tuple is not a list), floats by
sign and value with a nan equal to a nan, aware datetimes by instant and UTC offset, decimals with their
exponent. The order of a dict's keys does not count unless it is asked for (it is a SHOULD, TRM-1s).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from continuum_conformance.contract.errors import NotDurable
from continuum_conformance.contract.records import Term

__all__ = [
    "MAX_DEPTH",
    "MAX_NODES",
    "canonical",
    "check_durable",
    "copy_term",
    "difference",
    "equal",
    "shown",
]

MAX_DEPTH = 256
"""The nesting that `check_durable` allows unless told otherwise. The contract asks for 64 at least (TRM-1)."""

MAX_NODES = 20_000_000
"""How many values one term may hold in all: a small graph of shared lists can stand for a huge term."""

_SMALL = 1_000
"""A term of no more values is gone through without looking for shared parts."""

_PLAIN_LEAVES = (type(None), bool, int, float, bytes)
_RICH_LEAVES = (Decimal, datetime, date, time, timedelta, UUID)

_Path = tuple[Any, str] | None  # (parent path, segment), innermost first; None at the root
_MEMBER = ""  # the segment of a set's members: they have no place, so the path ends at the set


def _render(root: str, path: _Path) -> str:
    segments = []
    while path is not None:
        path, segment = path
        segments.append(segment)
    return root + "".join(reversed(segments))


def _segment(key: object) -> str:
    if type(key) is str:
        return f".{key}" if key.isidentifier() else f"[{key!a}]"
    return f"[{shown(key)}]"


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
    open_containers: set[int] = set()
    known: dict[int, tuple[int, int]] = {}  # of containers that were gone through: the depth, how many values
    leave = object()
    stack: list[tuple[Any, Any]] = [(term, None)]
    nodes = 1
    while stack:
        value, path = stack.pop()
        if value is leave:
            identity, nodes_before = path  # which stand in the place of the path
            open_containers.discard(identity)
            if nodes > _SMALL:
                known[identity] = (len(open_containers), nodes - nodes_before)
            continue
        cls = type(value)
        if cls in _PLAIN_LEAVES:
            continue
        if cls is str:
            if not _scalar_text(value):
                raise NotDurable(path=_render(root, path), kind="lone surrogate")
            continue
        if known and id(value) in known and known[id(value)][0] >= len(open_containers):
            nodes += known[id(value)][1]  # it is shared, and was fine at this depth or a greater one
            if nodes > max_nodes:
                raise _too_large(root, max_nodes)
            continue
        children: list[tuple[Any, _Path]]
        if cls is list or (rich and cls is tuple):
            in_set = path is not None and path[1] == _MEMBER
            children = [
                (item, path if in_set else (path, f"[{index}]"))
                for index, item in enumerate(value)
                if not _plainly_durable(item)
            ]
        elif cls is dict:
            children = []
            for key, item in value.items():
                if not (type(key) is str and key.isascii()):
                    _check_key(key, root, path, rich, max_depth)
                if not _plainly_durable(item):
                    children.append((item, (path, _segment(key))))
        elif rich and cls in (set, frozenset):
            inside = path if path is not None and path[1] == _MEMBER else (path, _MEMBER)
            children = [(item, inside) for item in value]
        elif rich and cls in _RICH_LEAVES:
            continue
        else:
            raise NotDurable(path=_render(root, path), kind=cls.__name__)
        nodes_before = nodes
        nodes += len(value)
        if nodes > max_nodes:
            raise _too_large(root, max_nodes)
        if id(value) in open_containers:
            raise NotDurable(path=_render(root, path), kind="a container that holds itself")
        if len(open_containers) >= max_depth:
            raise NotDurable(
                f"{root} is nested deeper than {max_depth} levels", path=_render(root, path), kind="too deep"
            )
        open_containers.add(id(value))
        stack.append((leave, (id(value), nodes_before)))
        stack.extend(reversed(children))


def _too_large(root: str, max_nodes: int) -> NotDurable:
    return NotDurable(f"{root} holds more than {max_nodes} values", path=root, kind="too large")


def _plainly_durable(value: object) -> bool:
    """Whether a value is durable at first sight, as most are; this spares the way to it."""
    cls = type(value)
    return cls in _PLAIN_LEAVES or (cls is str and value.isascii())  # type: ignore[attr-defined]


def _check_key(key: object, root: str, path: _Path, rich: bool, max_depth: int) -> None:
    if type(key) is str:
        if not _scalar_text(key):
            raise NotDurable(path=_render(root, path), kind="lone surrogate in a key")
        return
    if not rich:
        raise NotDurable(path=_render(root, path), kind=f"a key of type {type(key).__name__}")
    try:
        check_durable(key, root, max_depth=max_depth)
    except NotDurable as error:
        raise NotDurable(path=_render(root, path), kind=f"in a key: {error.kind}") from None


def canonical(term: Term, *, ordered: bool = False) -> bytes:
    """An unambiguous byte string: two terms are equal exactly when theirs are the same.

    Args:
        term: any value; one of a type that is no durable term's is equal to itself alone.
        ordered: whether the order of a dict's keys counts.
    """
    out: list[bytes] = []
    open_containers: set[int] = set()
    stack: list[Any] = [term]
    while stack:
        value = stack.pop()
        cls = type(value)
        if cls is _Written:
            out.append(value.content)
            continue
        if cls is _Mark:
            value.places.append(len(out))
            continue
        if cls is _Fold:
            places = [*value.places, len(out)]
            out[places[0] :] = sorted(b"".join(out[start:end]) for start, end in pairwise(places))
            continue
        if cls is _Left:
            open_containers.discard(value.identity)
            continue
        leaf = _leaf(value)
        if leaf is not None:
            out.append(leaf)
            continue
        tag = _CONTAINERS.get(cls)
        if tag is None:
            described = f"{cls.__module__}.{cls.__qualname__}@{id(value)}"
            out.append(_framed(b"?", described.encode("utf-8", "replace")))
            continue
        if id(value) in open_containers:
            out.append(b"(cycle)")
            continue
        open_containers.add(id(value))
        out.append(b"%b%d:" % (tag, len(value)))  # with the count in front, nothing else need be told apart
        stack.append(_Left(id(value)))
        if tag == b"M":
            entries = [(canonical(key), item) for key, item in value.items()]
            if not ordered:
                entries.sort(key=itemgetter(0))
            for key, item in reversed(entries):
                stack += (item, _Written(key))
        elif tag in (b"L", b"T"):
            stack.extend(reversed(value))
        else:
            places = []
            stack.append(_Fold(places))
            for item in value:
                stack += (item, _Mark(places))
    return b"".join(out)


_CONTAINERS: dict[type, bytes] = {list: b"L", tuple: b"T", dict: b"M", set: b"S", frozenset: b"F"}


class _Left(NamedTuple):
    """On a stack, the end of a container."""

    identity: int


class _Written(NamedTuple):
    """On a stack, bytes that are ready."""

    content: bytes


class _Mark(NamedTuple):
    """On a stack, the beginning of a set's member."""

    places: list[int]


class _Fold(NamedTuple):
    """On a stack, the end of a set's members, which are put in order then."""

    places: list[int]


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
        return b"D" + struct.pack(">d", math.nan if value != value else value)
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


_COMPARABLE = (str, int, bool, bytes)  # of which equal ones of one type are the same


def difference(expected: Term, actual: Term, where: str = "") -> str | None:
    """Where and how two terms first differ, in words, or None when they are equal."""
    seen: set[tuple[int, int]] = set()
    stack: list[tuple[Any, Any, _Path]] = [(expected, actual, None)]
    while stack:
        ours, theirs, path = stack.pop()
        cls = type(ours)
        if ours is theirs or (cls in _COMPARABLE and cls is type(theirs) and ours == theirs):
            continue
        found: str | None = None
        children: list[tuple[Any, Any, _Path]] = []
        if cls is not type(theirs):
            found = f"{shown(ours)} ({cls.__name__}) became {shown(theirs)} ({type(theirs).__name__})"
        elif cls in (list, tuple, dict):
            if (id(ours), id(theirs)) in seen:
                continue  # shared, or within itself: compared already
            seen.add((id(ours), id(theirs)))
            if cls is dict:
                found = _keys_difference(ours, theirs)
                if found is None:
                    children = _values(ours, theirs, path)
            elif len(ours) != len(theirs):
                found = f"{len(ours)} items became {len(theirs)}: {shown(ours)} became {shown(theirs)}"
            else:
                pairs = enumerate(zip(ours, theirs, strict=True))
                children = [(a, b, (path, f"[{index}]")) for index, (a, b) in pairs]
        elif not equal(ours, theirs):
            found = f"{shown(ours)} became {shown(theirs)}{_where_long(ours, theirs)}"
        if found is not None:
            at = _render(where, path)
            return f"{found} at {at}" if at else found
        stack.extend(reversed(children))
    return None


def _where_long(ours: Term, theirs: Term) -> str:
    """Of texts and bytes that are too long to be shown, the lengths and the place where they first differ."""
    if not isinstance(ours, (str, bytes)) or not isinstance(theirs, (str, bytes)):
        return ""
    if max(len(repr(ours)), len(repr(theirs))) <= SHOWN:
        return ""
    same = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    lengths = f"length {len(ours)}, then {len(theirs)}"
    return f" ({lengths})" if same is None else f" ({lengths}; they differ from {same} on)"


def _plain_keys(term: Mapping[Any, Any]) -> bool:
    return all(type(key) is str for key in term)


def _values(ours: Mapping[Any, Any], theirs: Mapping[Any, Any], path: _Path) -> list[tuple[Any, Any, _Path]]:
    """The values of two dicts with equal keys, side by side."""
    if _plain_keys(ours):
        return [(value, theirs[key], (path, _segment(key))) for key, value in ours.items()]
    by_key = {canonical(key): value for key, value in theirs.items()}
    return [(value, by_key[canonical(key)], (path, _segment(key))) for key, value in ours.items()]


def _keys_difference(expected: Mapping[Any, Any], actual: Mapping[Any, Any]) -> str | None:
    if expected.keys() == actual.keys() and _plain_keys(expected) and _plain_keys(actual):
        return None
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
    if len(expected) != len(actual):  # several nans are several keys
        return f"{len(expected)} keys became {len(actual)}"
    return None


SHOWN = 60


def shown(value: object, limit: int = SHOWN) -> str:
    """A value as a person may read it: its repr, cut to ``limit`` characters, whatever its repr does."""
    try:
        if type(value) is int and value.bit_length() > 4096:
            text = hex(value)  # Python refuses to write a longer one in decimal
        else:
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
