"""Checking one wrong adapter, as the command does."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from continuum_conformance.harness import HarnessError, Subject
from continuum_conformance.suite import check
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.stores import Stores
from continuum_conformance.suite.testing import PROFILES

from .registry import KnownBad

__all__ = ["SEED", "Findings", "checked"]

SEED = 1


@dataclass
class Findings:
    """What the check said."""

    session: Session
    judgements: dict[str, check.Judgement]
    """By clause."""
    verdict: str


@contextmanager
def checked(
    target: str | KnownBad, only: tuple[str, ...] | None, *, first: bool = False, profile: str = "quick"
) -> Iterator[Findings]:
    """Check an adapter on the given clauses; its handles stay open within.

    Args:
        target: a target, or an entry.
        only: the clauses; all when None.
        first: stop at the first failure.
        profile: of a target; an entry has its own.
    """
    limit = 10.0
    if isinstance(target, KnownBad):
        target, profile, limit = target.target, target.profile, target.limit
    plan = check.Plan(profile=PROFILES[profile], seed=SEED, only=only, first=first)
    with contextlib.redirect_stdout(io.StringIO()), Stores() as stores:
        subject = Subject(target, limit=limit)
        stores.provide(subject)
        session = Session(subject)
        check.preflight(session)
        try:
            judgements = check.judge(session, plan, check.run_check(session, plan))
            yield Findings(session, {j.clause.id: j for j in judgements}, check.verdict(judgements, plan))
        finally:
            with contextlib.suppress(HarnessError):  # what hung cannot be closed
                session.close_all()
