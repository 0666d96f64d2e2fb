"""The owner's end of the line to a process that cleans up after us, however we end.

Such a process (`keeper.py`, `caretaker.py`) reads its standard input. We hold the only other end, so the end
of input reaches it when we close the line, when we exit, when a signal kills us, and also after SIGKILL.
Nothing here installs a signal handler.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import IO, Any

from .server import PostgresUnavailable

_lifelines: weakref.WeakSet[Lifeline] = weakref.WeakSet()


class Lifeline:
    """A running script of this package that answers requests and acts when we are gone."""

    def __init__(self, script: str, *flags: str) -> None:
        here = Path(__file__).parent
        paths = [str(Path(entry).absolute()) for entry in sys.path if entry]
        self._process = subprocess.Popen(
            [sys.executable, *flags, str(here / script)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # ours may be a pipe whose reader waits for its end
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
        self._lock = threading.Lock()
        self._usable = True
        self._ours = True
        _lifelines.add(self)
        atexit.register(self.end)

    @property
    def pid(self) -> int:
        """The id of the process at the other end."""
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Whether requests may be sent: not after `end`, an interrupted request, or in a forked child."""
        return self._usable

    def ask(self, **request: object) -> dict[str, Any]:
        """Send a request and return its answer.

        Raises `PostgresUnavailable` when there is nobody to answer.
        """
        with self._lock:
            if not self._usable:
                raise PostgresUnavailable(
                    "the server is closed, or belongs to the process that this one was forked from"
                )
            self._usable = False  # until the answer is there: an interrupted talk cannot be taken up again
            sending, receiving = self._pipes()
            answer = b""
            with contextlib.suppress(BrokenPipeError):
                sending.write(json.dumps(request).encode() + b"\n")
                while not answer.endswith(b"\n"):
                    more = receiving.read(65536)
                    if not more:
                        break
                    answer += more
            if not answer.endswith(b"\n"):
                raise PostgresUnavailable(
                    f"the process that keeps the server (pid {self.pid}) has ended. Was it killed from outside?"
                )
            self._usable = True
        found: dict[str, Any] = json.loads(answer)
        return found

    def end(self, seconds: float = 30.0) -> bool:
        """Close the line and wait until the other end has cleaned up; doing it again does nothing.

        Returns whether the other end was ours: in a forked child it is not.
        """
        self._usable = False
        atexit.unregister(self.end)
        sending, receiving = self._pipes()
        sending.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        receiving.close()
        return self._ours

    def disown(self) -> None:
        """In a forked child: let go, without a word to the other end, which stays our parent's."""
        self._usable = self._ours = False
        atexit.unregister(self.end)
        for pipe in self._pipes():
            pipe.close()
        self._process.returncode = 0  # not ours to wait for

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("a lifeline without pipes")
        return self._process.stdin, self._process.stdout


def _disown_all() -> None:
    for lifeline in list(_lifelines):
        lifeline.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
