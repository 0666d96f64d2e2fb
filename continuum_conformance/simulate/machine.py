"""A machine of a cluster: what has struck it, and what runs on it."""

from __future__ import annotations

from collections import Counter

from continuum_conformance.simulate.judge import Caller
from continuum_conformance.simulate.nemesis import CLIENT
from continuum_conformance.simulate.scheduler import Task, ThreadTask

__all__ = ["Machine"]


class Machine:
    """A worker's machine, or the client's."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = "client" if number == CLIENT else f"w{number}"
        self.life = 0
        self.up = False
        self.calls: Counter[tuple[str, int]] = Counter()
        """How often each operation on each run was called from here."""
        self.skew = 0
        self.paused_until = self.slow_until = self.mute_until = self.deaf_until = 0
        self.release_asked = False
        self.tasks: list[Task | ThreadTask] = []
        self.inbox: list[str] = []

    @property
    def caller(self) -> Caller:
        """Who calls from here now."""
        return Caller(self.name, self.life)
