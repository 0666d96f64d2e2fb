"""The terminal that the command was started on, kept apart from what the adapter prints.

While an adapter is at work its standard output goes to a file of ours, also from its child processes and its C
code; what the kit prints goes to the real one. A reader that closes the pipe (``| head``) ends the printing,
not the run.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from continuum_conformance.cli.interrupts import Interrupts
from continuum_conformance.report.screen import Screen
from continuum_conformance.report.text import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Console", "Printed"]

_KEPT = 4_096
"""How many bytes of what the adapter printed are looked at."""

_STDOUT = 1


class Printed:
    """What the adapter wrote to standard output."""

    def __init__(self) -> None:
        self.beginning = ""
        self.size = 0
        """In bytes."""

    @property
    def note(self) -> str:
        """A sentence for the report, empty when nothing was printed."""
        if not self.size:
            return ""
        shown = " / ".join(line.strip() for line in self.beginning.splitlines()[:3] if line.strip())
        more = "" if self.size <= len(shown) + 1 else f" ({self.size:,} bytes in all)"
        return f"The adapter wrote to standard output: {shown[:200]!r}{more}. A library should log instead."


class _Tolerant(io.RawIOBase):
    """A file descriptor of our own; after its reader has gone, what is written is dropped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._gone = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        if self._gone:
            return size
        try:
            return os.write(self._descriptor, data)
        except BrokenPipeError:
            self._gone = True
            return size


class Console:
    """Where the command prints, and where it hears that it should end."""

    def __init__(self) -> None:
        self.interrupts = Interrupts()
        self.out = _own(sys.stdout)
        self.err = _own(sys.stderr)

    def screen(self, colour: bool | None = None) -> Screen:
        """The standard output, to print on."""
        return Screen(self.out, colour=colour)

    def complain(self, message: str, detail: str = "") -> None:
        """Say on standard error why the command cannot go on, with what the adapter's author may need."""
        screen = Screen(self.err)
        screen.line(f"continuum-conformance: {printable(message)}")
        if detail:
            screen.line()
            screen.write("".join(f"    {line}\n" for line in printable(detail).strip("\n").split("\n")))
        screen.flush()

    def flush(self) -> None:
        """Send on what was printed."""
        self.out.flush()
        self.err.flush()

    @contextmanager
    def apart(self) -> Iterator[Printed]:
        """Keep what is written to standard output within, by whatever means, away from the console."""
        printed = Printed()
        was = sys.stdout
        with tempfile.TemporaryFile() as file:
            kept = _redirected(was, file.fileno())
            sys.stdout = io.TextIOWrapper(
                io.FileIO(os.dup(file.fileno()), "w"), "utf-8", "backslashreplace", write_through=True
            )
            try:
                yield printed
            finally:
                with suppress(OSError, ValueError):
                    sys.stdout.close()
                sys.stdout = was
                if kept is not None:
                    os.dup2(kept, _STDOUT)
                    os.close(kept)
                printed.size = file.seek(0, os.SEEK_END)
                file.seek(0)
                printed.beginning = file.read(_KEPT).decode("utf-8", "replace")


def _redirected(stdout: TextIO | None, to: int) -> int | None:
    """Point file descriptor 1 elsewhere, when standard output is that; returns what it was."""
    if _descriptor(stdout) != _STDOUT:
        return None
    if stdout is not None:
        stdout.flush()
    kept = os.dup(_STDOUT)
    os.dup2(to, _STDOUT)
    return kept


def _own(stream: TextIO | None) -> TextIO:
    """A stream of our own to the same place, that survives redirection and a closed pipe."""
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    descriptor = _descriptor(stream)
    if descriptor is None:
        return stream
    stream.flush()
    raw = _Tolerant(os.dup(descriptor))
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding or "utf-8", "backslashreplace")


def _descriptor(stream: TextIO | None) -> int | None:
    if stream is None:
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
