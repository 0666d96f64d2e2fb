"""Why a command ends early: with one message for the user, and an exit code."""

from __future__ import annotations

from pathlib import Path

from continuum_conformance.model import mask

__all__ = ["Stop", "write_file"]


class Stop(Exception):
    """Ends the command. Passwords in what it says are masked.

    Attributes:
        code: the exit code.
        detail: more for the user below the message, as a traceback of the adapter's own.
    """

    def __init__(self, code: int, message: str, detail: str = "") -> None:
        super().__init__(mask(message))
        self.code = code
        self.detail = mask(detail)


def write_file(file: Path, text: str, code: int = 2) -> None:
    """Write what was asked for, into a new folder if need be.

    Raises:
        Stop: the file cannot be written; with this exit code.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8", newline="\n")
    except OSError as error:
        raise Stop(code, f"{file} cannot be written: {error.strerror or error}") from None
