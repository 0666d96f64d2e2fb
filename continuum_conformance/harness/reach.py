"""How far the kit reaches into an adapter, besides calling it: the one place that is asked."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["IN_PYTHON", "OF_A_PROGRAM", "Reach"]


@dataclass(frozen=True, slots=True)
class Reach:
    """Of what the kit cannot do to an adapter, why: clauses about it are not applicable then. Empty where it can."""

    one_handle: str = ""
    """Call one handle in several threads at once."""
    code: str = ""
    """Watch its code line by line, and interrupt it there."""
    clock: str = ""
    """Set its clock while it runs. (A new process's clock can be set wherever libfaketime is installed.)"""

    carried_as_json: bool = False
    """Whether arguments go to it as JSON in UTF-8, which carries no lock and no half of a surrogate pair."""


IN_PYTHON = Reach()
"""An adapter in this process."""

OF_A_PROGRAM = Reach(
    one_handle="a handle of a program takes one request at a time",
    code="its code runs in another program, where the kit does not see it",
    clock="the clock of a program can be set only where it starts",
    carried_as_json=True,
)
"""A program on the bridge."""
