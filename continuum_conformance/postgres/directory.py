"""A directory of the kit's own: removed when it is closed, and by a caretaker should its owner die before."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from .lifeline import Lifeline

__all__ = ["ScratchDirectory"]


class ScratchDirectory:
    """An empty directory, for its owner alone.

    Attributes:
        path: where it is.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self) -> None:
        self._caretaker: Lifeline | None = None
        if os.name != "posix":
            self.path = Path(tempfile.mkdtemp(prefix="continuum-"))
            return
        self.path = Path(tempfile.gettempdir(), f"continuum-{secrets.token_hex(8)}")
        self._caretaker = Lifeline("caretaker.py", "-I", "-S")
        try:
            self._caretaker.ask(do="directory", path=str(self.path))
            self.path.mkdir(mode=0o700)  # now that somebody will remove it
        except BaseException:
            self._caretaker.end()
            raise

    def close(self) -> None:
        """Remove it. Closing twice does nothing; a forked child removes nothing."""
        if self._caretaker is None or self._caretaker.end():
            shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> str:
        return str(self.path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
