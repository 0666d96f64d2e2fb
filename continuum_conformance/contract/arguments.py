"""Checks of arguments, for adapters: each returns the checked value or raises the contract's error.

An adapter may use them or write its own; the suite judges only what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from continuum_conformance.contract.errors import InvalidArgument
from continuum_conformance.contract.records import Lease, Snapshot
from continuum_conformance.contract.terms import MAX_DEPTH, check_durable, shown

__all__ = [
    "MAX_NAME",
    "MAX_TTL",
    "check_event",
    "check_integer",
    "check_lease",
    "check_name",
    "check_names",
    "check_snapshot",
    "check_token",
    "check_ttl",
    "is_canonical_uuid",
]

MAX_NAME = 255
"""The longest name, in characters (code points)."""

MAX_TTL = 10 * 366 * 24 * 60 * 60
"""The longest ttl, in seconds: ten years."""


def check_name(name: object, what: str) -> str:
    """A legal run id, workflow, instance or owner (RUN-7), else ``InvalidArgument``."""
    if not isinstance(name, str):
        raise InvalidArgument(f"{what} must be a string, not {type(name).__name__}")
    if not 1 <= len(name) <= MAX_NAME:
        raise InvalidArgument(f"{what} must have 1 to {MAX_NAME} characters, not {len(name)}")
    if "\0" in name:
        raise InvalidArgument(f"{what} must not contain U+0000")
    if not name.isascii() and any("\ud800" <= char <= "\udfff" for char in name):
        raise InvalidArgument(f"{what} must not contain lone surrogates")
    return str.__str__(name)  # of a subclass, the plain text: an enum's member hashes as something else


def check_names(instance: object, run_id: object) -> tuple[str, str]:
    """The key of a run, checked: (instance name, run id)."""
    name = check_name(getattr(instance, "name", None), "the instance's name")
    return name, check_name(run_id, "the run id")


def is_canonical_uuid(text: str) -> bool:
    """Whether a string is a UUID in canonical form: lower case, 8-4-4-4-12 (RUN-8 without `opaque_run_ids`)."""
    try:
        return str(UUID(text)) == text
    except (ValueError, AttributeError, TypeError):
        return False


def check_integer(value: object, what: str) -> int:
    """An int that is no bool, else ``InvalidArgument``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{what} must be an integer, not {type(value).__name__}")
    return value


def check_token(token: object) -> int | None:
    """A fencing token or None (FEN-7), else ``InvalidArgument``."""
    return None if token is None else check_integer(token, "the lease token")


def check_ttl(ttl: object) -> float:
    """A ttl in seconds (LEA-10), else ``InvalidArgument``."""
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise InvalidArgument(f"the ttl must be a number of seconds, not {type(ttl).__name__}")
    if not 0 <= ttl <= MAX_TTL:  # false for a nan, and safe for an int that no float holds
        raise InvalidArgument(f"the ttl must be 0 to {MAX_TTL} seconds")
    return ttl


def check_lease(lease: Any) -> Lease:
    """A lease whose parts are well formed, else ``InvalidArgument``; whether it is held is another question."""
    run_id = check_name(getattr(lease, "run_id", None), "the lease's run id")
    owner = check_name(getattr(lease, "owner", None), "the lease's owner")
    return Lease(run_id, owner, check_integer(getattr(lease, "token", None), "the lease's token"))


def check_event(
    event: object, *, rich: bool = True, max_depth: int = MAX_DEPTH
) -> tuple[dict[str, Any], int | None]:
    """An event and its explicit seq (APP-3, APP-4, TRM-3).

    Returns:
        A new plain dict without the key ``"seq"`` when it was None or absent, and the seq if there was one.

    Raises:
        InvalidArgument: no mapping, no non-empty string type, a key that is no string, a seq that is no integer.
        NotDurable: a value that cannot be stored.
    """
    if not isinstance(event, Mapping):
        raise InvalidArgument(f"an event must be a mapping, not {type(event).__name__}")
    for key in event:
        if not isinstance(key, str):
            raise InvalidArgument(f"an event's keys must be strings, not {type(key).__name__}")
    kind = event.get("type")
    if not isinstance(kind, str) or not kind:
        raise InvalidArgument('an event needs a non-empty string under "type"')
    seq = event.get("seq")
    if seq is not None:
        check_integer(seq, "the event's seq")
    plain = dict(event)
    check_durable(plain, "event", rich=rich, max_depth=max_depth)
    if seq is None:
        plain.pop("seq", None)
    return plain, seq


def check_snapshot(snapshot: Any, *, rich: bool = True, max_depth: int = MAX_DEPTH) -> Snapshot:
    """A snapshot whose parts are well formed (SNP-13, TRM-3).

    Returns:
        A new record whose steps are a plain dict (its values still the caller's).

    Raises:
        InvalidArgument: a part of the wrong type, or a naive ``taken_at``.
        NotDurable: a step that cannot be stored, with its path.
    """
    run_id = check_name(getattr(snapshot, "run_id", None), "the snapshot's run id")
    through_seq = check_integer(getattr(snapshot, "through_seq", None), "the snapshot's through_seq")
    version_hash = getattr(snapshot, "version_hash", None)
    if not isinstance(version_hash, bytes):
        raise InvalidArgument(f"the snapshot's version_hash must be bytes, not {type(version_hash).__name__}")
    taken_at = getattr(snapshot, "taken_at", None)
    if not isinstance(taken_at, datetime) or taken_at.utcoffset() is None:
        raise InvalidArgument("the snapshot's taken_at must be an aware datetime")
    steps = getattr(snapshot, "steps_by_seq", None)
    if not isinstance(steps, Mapping):
        raise InvalidArgument("the snapshot's steps_by_seq must be a mapping")
    for seq in steps:
        check_integer(seq, "a key of the snapshot's steps_by_seq")
    for seq, step in steps.items():
        check_durable(step, f"snapshot.steps_by_seq[{shown(seq)}]", rich=rich, max_depth=max_depth)
    return Snapshot(run_id, through_seq, version_hash, taken_at, dict(steps))
