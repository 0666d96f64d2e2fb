"""A clause was broken: the finding, with the sequence of operations that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from continuum_conformance.contract.records import Run
from continuum_conformance.history import Interleaving
from continuum_conformance.model import Aspect, Operation, Outcome

__all__ = ["Step", "Violation", "forge"]


def forge(*objects: Any) -> None:
    """Change every container within the objects in place: the caller does so after a call (LOD-3, TRM-4)."""
    for held in objects:
        held = getattr(held, "steps_by_seq", held)
        if isinstance(held, list):
            forge(*held)
            held.append("forged")
        elif isinstance(held, tuple):
            forge(*held)
        elif isinstance(held, dict):
            forge(*held.values())
            for key in [key for key, value in held.items() if not isinstance(value, (list, dict))]:
                held[key] = "forged"
            held["forged"] = True
        elif isinstance(held, set):
            held.add("forged")
        elif isinstance(held, Run):
            forge(held.input, held.result, held.error)


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a sequence: what was asked, what came, and what was due when that was wrong."""

    operation: Operation
    outcome: Outcome
    setup: bool = False
    mutates: str = ""
    """``"arguments"`` or ``"answer"``: which of the call's objects the caller changed afterwards (see `forge`)."""
    due: str = ""
    """What should have come; set on the deciding step alone."""
    then: str = ""
    """What struck right after it: a killed client or server."""


@dataclass
class Violation(Exception):
    """A journal did what no correct journal does.

    Attributes:
        clauses: the clauses that it broke, the closest first.
        message: one sentence on what is wrong.
        steps: the calls up to the deciding one, which is the last.
        arranging: whether it happened while a test was still setting up, before its own clause was tried.
        detail: a traceback of the adapter's, or the stack of a hang.
        hang: whether a call did not come back.
        salt: the part of all names that was made fresh for this example.
        assumed: of the clauses, what stands there only because the test is about it, and the test knows more than
            the model (that a clock was set back, say).
        aspect: what the model found wrong; None when a test saw what the model cannot (`Lab.fail`).
    """

    clauses: tuple[str, ...]
    message: str
    steps: tuple[Step, ...] = ()
    arranging: bool = False
    detail: str = ""
    hang: bool = False
    salt: str = ""
    test: str = ""
    story: str = ""
    """For a race: the interleaving as text, instead of a script; schedules replay it."""
    race: Mapping[str, Any] | None = None
    """For a race: what a replay needs, as JSON data."""
    interleaving: Interleaving | None = None
    """For a race or a fault: what it looked like, for a drawing."""
    aspect: Aspect | None = None
    assumed: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{', '.join(self.clauses)}: {self.message}"

    def __hash__(self) -> int:
        return id(self)

    @property
    def shape(self) -> tuple[object, ...]:
        """The operations and what was wrong: where several tests come down to one shape, they met one fault."""
        return (self.aspect, self.arranging, *((s.operation.name, s.outcome.error) for s in self.steps))

    @property
    def size(self) -> tuple[int, int]:
        """What a smaller counterexample is judged by: the number of calls, then how much they say."""
        return len(self.steps), sum(len(repr(step.operation.arguments)[:2000]) for step in self.steps)
