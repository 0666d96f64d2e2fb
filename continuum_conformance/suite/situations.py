"""Situations that many tests start from, as data: states, leases, fenced operations, ways to hold a stale token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from continuum_conformance.contract.records import Lease, RunState
from continuum_conformance.model import Outcome
from continuum_conformance.suite.lab import RunUnderTest

__all__ = ["ACTIVE", "FENCED", "TERMINAL", "each", "lease_kinds", "stale_lease"]

ACTIVE = (RunState.RUNNING, RunState.SUSPENDED)
TERMINAL = (RunState.COMPLETED, RunState.FAILED)

Act = Callable[[RunUnderTest, Any], Outcome]

FENCED: dict[str, Act] = {
    "append": lambda run, token: run.append({"type": "late"}, token),
    "suspend": lambda run, token: run.suspend(token),
    "complete": lambda run, token: run.complete({"late": True}, token),
    "fail": lambda run, token: run.fail({"late": True}, token),
    "load_with_snapshot": lambda run, token: run.load_with_snapshot(token),
}
"""The operations that carry a token (FEN)."""


def each(**choices: Any) -> Callable[[frozenset[str]], Iterator[dict[str, Any]]]:
    """All combinations of the given values, for ``cases``. A value that is a function takes the capabilities."""

    def cases(capabilities: frozenset[str]) -> Iterator[dict[str, Any]]:
        pools = [pool(capabilities) if callable(pool) else pool for pool in choices.values()]
        for chosen in product(*pools):
            yield dict(zip(choices, chosen, strict=True))

    return cases


def lease_kinds(capabilities: frozenset[str]) -> tuple[str | None, ...]:
    """The lease situations that an adapter can be in."""
    return (None, "live", "expired", "released") if "leases" in capabilities else (None,)


def stale_lease(run: RunUnderTest, how: str) -> Lease:
    """Give the run a present holder and return the lease of the one before.

    Args:
        run: an active, unleased run.
        how: ``"taken over"`` after it expired, or ``"released"`` and acquired anew.
    """
    run.acquire("alice", ttl=0 if how == "taken over" else 3600)
    old = run.lease
    if how == "released":
        run.release()
    run.acquire("bob", on="B")
    return old
