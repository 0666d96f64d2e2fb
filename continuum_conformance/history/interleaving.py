"""One run of concurrent workers as it can be drawn: who called what, and what each did and waited for meanwhile.

All of it is text for a reader and numbers of one clock, so it can be stored and drawn anywhere. What was judged is
the history; this is what it looked like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Call", "Interleaving", "Mark", "Move", "Pause"]

Mark = Literal["", "deciding", "needed", "struck", "stuck"]
"""Of a call: ``deciding`` when at its return nothing explains the history any more, ``needed`` when without it an order
would, ``struck`` when a fault hit it, ``stuck`` when it could not come back."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operation of a worker."""

    worker: str
    text: str
    """``append("run1", {"type": "paid"}, token=1)``"""
    outcome: str
    """``None``, ``LeaseMismatch``; empty when it never came back."""
    began: int
    ended: int | None
    """None when it never came back."""
    mark: Mark = ""
    reads: bool = False
    """Whether it changes nothing."""
    change: str = ""
    """What was different from its return on: ``token 3: worker-B holds the lease``."""
    after: bool = False
    """Whether it was made after the race, when one thing was done after another."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A part of a move in which the worker did not go on."""

    began: int
    ended: int | None
    """None when it never went on."""
    why: str
    """``waits for A``; ``held before insert of a row of event``."""
    waits: bool = True
    """Whether it waited for something; else it was held within what it did."""


@dataclass(frozen=True, slots=True)
class Move:
    """One step of a worker: a statement, a line."""

    worker: str
    text: str
    """In a few words."""
    at: int
    until: int | None = None
    """When it was over; None for a move without length, or one that was never over."""
    detail: str = ""
    """In full: the SQL."""
    values: tuple[str, ...] = ()
    """The values that were bound in it."""
    answer: str = ""
    """What came of it: rows, a command tag, an error."""
    failed: bool = False
    """Whether the answer is an error."""
    minor: bool = False
    """Whether nobody else could see it, as BEGIN."""
    pauses: tuple[Pause, ...] = ()


@dataclass(frozen=True, slots=True)
class Interleaving:
    """What a run of concurrent workers looked like."""

    level: str
    """How fine a move is: ``statements``, ``instructions``, ``lines``, ``tasks``, ``threads``; ``messages`` and
    ``processes`` in a fault."""
    workers: tuple[str, ...]
    """In the order of their columns."""
    start: str
    """From where it started, as a sentence without its full stop."""
    calls: tuple[Call, ...]
    """In the order in which they began."""
    moves: tuple[Move, ...] = ()
    """In order."""
