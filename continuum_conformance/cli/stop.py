"""Why a command ends early: with one message for the user, and an exit code."""

from __future__ import annotations

__all__ = ["Stop"]


class Stop(Exception):
    """Ends the command.

    Attributes:
        code: the exit code.
        detail: more for the user below the message, as a traceback of the adapter's own.
    """

    def __init__(self, code: int, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail
