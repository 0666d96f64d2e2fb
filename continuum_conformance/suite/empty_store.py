"""A store that nobody has used yet, beside the one under test."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from continuum_conformance.harness import Subject
from continuum_conformance.harness.loading import harness_of
from continuum_conformance.suite.lab import Session

__all__ = ["empty_store", "no_empty_store"]


def no_empty_store(session: Session) -> str:
    """Why the kit cannot make a store that is empty; empty text where it can."""
    subject = session.subject
    if not {"postgres", "directory"} & subject.needs:
        return "the harness makes its store itself, so the kit cannot make an empty one"
    if _unused_harness(subject) is None:
        return (
            "the harness cannot be had as it was before its first use: it cannot be pickled, nor made again"
        )
    if "postgres" in subject.needs and not getattr(subject.server, "scratch", False):
        return "the kit may make no further database on this server"
    return ""


def _unused_harness(subject: Subject) -> Any:
    if subject.pickled is not None:
        return pickle.loads(subject.pickled)  # what the kit itself pickled
    made = harness_of(subject.target) if subject.target is not None else subject.harness
    return None if made is subject.harness else made


@contextmanager
def empty_store(session: Session) -> Iterator[Callable[[], Subject]]:
    """A store that nobody has used; gives what makes a subject over it, with the harness as before its first use.

    Each caller gets one of its own, as in a process of its own: what a harness keeps for its handles is not shared.
    """
    old = session.subject
    directory = tempfile.mkdtemp(prefix="continuum-") if "directory" in old.needs else None
    dsn = old.server.fresh_database() if "postgres" in old.needs else None

    def subject() -> Subject:
        harness = _unused_harness(old)
        without = old.declared - old.capabilities
        return Subject(harness, dsn=dsn, directory=directory, limit=old.limit, without=without)

    try:
        yield subject
    finally:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
