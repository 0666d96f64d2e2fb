"""Specs for PostgreSQL's isolation tester: sessions with named steps, and the order in which these are launched.

The tester and its language are described in ``src/test/isolation/README`` of PostgreSQL's sources. What has to be
known here: a block of SQL ends at the first closing brace, whatever that stands in; the steps of a session are
launched one after another; a step that waits for another session is reported as waiting and the next one is
launched; and a step's name in parentheses behind another one says that it must be done first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from . import sql

__all__ = ["Launch", "Session", "Spec", "Step", "joined"]

WIDTH = 78
SHORT = 60


@dataclass(frozen=True)
class Step:
    """One thing that a session does."""

    name: str
    sql: str
    remark: str = ""
    """Stands above it, as a comment."""


@dataclass
class Session:
    """A connection and what it does."""

    name: str
    setup: list[str] = field(default_factory=list)
    """Statements that are executed before its first step."""
    steps: list[Step] = field(default_factory=list)
    teardown: str = ""


@dataclass(frozen=True)
class Launch:
    """A step in the order of a permutation."""

    step: str
    after: tuple[str, ...] = ()
    """Steps that are done before this one is: it waits. ``*`` says that it is seen to wait at once."""


@dataclass(frozen=True)
class Spec:
    """A whole spec, with one permutation."""

    remark: str = ""
    setup: list[tuple[str, str]] = field(default_factory=list)
    """Blocks, each a transaction of its own, each with a remark."""
    teardown: str = ""
    sessions: list[Session] = field(default_factory=list)
    order: list[Launch] = field(default_factory=list)

    def text(self) -> str:
        """The spec as the tester reads it. Every step is launched once."""
        parts = [_comment(self.remark)]
        parts += [f"{_comment(remark)}setup{_block(block)}" for remark, block in self.setup]
        if self.teardown:
            parts.append(f"teardown{_block(self.teardown)}")
        parts += ["\n".join(_session(session)) for session in self.sessions]
        parts.append("\n".join(_permutation(self.order)))
        return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _session(session: Session) -> Iterator[str]:
    yield f"session {_named(session.name)}"
    if session.setup:
        yield f"setup{_block(joined(session.setup))}"
    for step in session.steps:
        if step.remark:
            yield f"\n{_comment(step.remark)}".rstrip("\n")
        yield f"step {_named(step.name)}{_block(step.sql)}"
    if session.teardown:
        yield f"\nteardown{_block(session.teardown)}"


def _permutation(order: Sequence[Launch]) -> Iterator[str]:
    line = "permutation"
    for launch in order:
        after = ", ".join(other if other == "*" else _named(other) for other in launch.after)
        word = _named(launch.step) + (f"({after})" if after else "")
        if len(line) + 1 + len(word) > WIDTH:
            yield line
            line = "   "
        line += f" {word}"
    yield line


def _named(name: str) -> str:
    # Older versions know no escape within quotes, so what would need one is left out.
    return '"' + "".join(char for char in name if char.isalnum() or char in "_-. ") + '"'


def joined(statements: Iterable[str]) -> str:
    """Statements one under the other, each with a semicolon behind it."""
    return "\n".join(map(_ended, statements))


def _ended(statement: str) -> str:
    pieces = list(sql.tokens(statement.strip()))
    while pieces and pieces[-1].kind in ("space", "end"):
        pieces.pop()
    commented = bool(pieces) and pieces[-1].kind == "comment"  # which would swallow it
    return "".join(token.text for token in pieces) + ("\n;" if commented else ";")


def _block(block: str) -> str:
    """A block behind what it belongs to: on the same line where it is short."""
    text = sql.without(block.strip(), "}")
    if "\n" not in text and len(text) < SHORT:
        return f" {{ {text} }}"
    return f"\n{{\n  {_indented(text)}\n}}"


def _indented(block: str) -> str:
    """The lines indented, except those within a string, which would be another one then."""
    return "".join(
        re.sub(r"[ \t]+(?=\n)", "", token.text.replace("\n", "\n  ")) if token.kind == "space" else token.text
        for token in sql.tokens(block)
    )


def _comment(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())
