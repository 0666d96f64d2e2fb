"""Rare situations that a campaign must have met: a simulation in which nothing rare happens proves little."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["SOMETIMES"]

SOMETIMES: Mapping[str, str] = {
    "takeover": "a lease expired, and another worker took it",
    "takeover during an append": "…while an append of the one before was on its way",
    "takeover during a finish": "…while a complete or fail of the one before was on its way",
    "herd": "three workers tried for one run within a second",
    "renewal after expiry": "a holder renewed a lease that had expired and that nobody had taken",
    "renewal refused": "a holder was told that its lease is lost",
    "release refused": "a worker gave back a lease that was no longer its own",
    "write after expiry": "a holder appended under a lease that had expired and that nobody had taken",
    "fenced append refused": "an append of one who no longer holds the lease was refused",
    "fenced suspend refused": "…a suspend",
    "fenced finish refused": "…a complete or a fail",
    "fenced load refused": "…a load_with_snapshot",
    "late append": "an append arrived after its sender had given it up",
    "late append refused": "…and was refused, since its sender had been fenced out or had gone on",
    "append unseen": "an append took effect, and its sender never heard of it",
    "finish unseen": "a complete or fail did",
    "acquire unseen": "an acquire did: a lease that nobody knows of",
    "start unseen": "a start did, and was refused when it was tried again",
    "duplicate append refused": "an append that had taken effect came once more, under its seq",
    "stale snapshot": "a worker without the lease took a snapshot",
    "old snapshot": "a snapshot came that was older than the latest one",
    "snapshot again": "a snapshot was taken twice for one seq",
    "replay from a snapshot": "a worker went on from another worker's snapshot",
    "claim of a finished run": "a worker tried for a run that was finished",
    "crash under a lease": "a machine died while it held a lease",
    "pause beyond the lease": "a machine stood still until its lease had expired",
    "clock jumped under a timer": "a wall clock jumped while a timer ran",
    "timer taken over": "a timer that one worker had set was seen to be due by another",
    "step carried out twice": "a worker carried out a step again, since nobody knew of the first time",
    "suspended run finished": "a run was finished after it had been suspended",
    "refused by an outage": "the store was away",
}
"""By name; what is meant."""
