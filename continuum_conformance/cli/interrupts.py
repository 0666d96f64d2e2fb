"""Ctrl-C and SIGTERM (a CI job that is cancelled): the run ends, and what it has is reported.

A KeyboardInterrupt that is raised just anywhere gets lost now and then: in a garbage-collection callback, in a
finalizer, in an ``except BaseException``. So while the suite runs a signal only leaves word, and the run ends
before the adapter's next call. A second signal raises at once.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from continuum_conformance.harness import Subject
from continuum_conformance.suite.lab import Session

__all__ = ["Interrupts", "WatchedSession"]


class Interrupts:
    """Stands in for the signals' own handlers while it is entered."""

    def __init__(self) -> None:
        self._asked = False
        self._waits = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals within."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # Who started us may have switched Ctrl-C off (nohup, a job in the background): so be it.
        chosen = [
            which for which in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(which) != signal.SIG_IGN
        ]
        before = {which: signal.signal(which, self._arrived) for which in chosen}
        hook, sys.unraisablehook = sys.unraisablehook, _without_interrupts
        try:
            yield
        finally:
            sys.unraisablehook = hook
            for which, handler in before.items():
                signal.signal(which, handler)

    @contextmanager
    def polite(self) -> Iterator[None]:
        """Within, the first signal takes effect at the next `check`."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` if a signal has come."""
        if self._asked:
            raise KeyboardInterrupt

    def _arrived(self, _signal: int, _frame: FrameType | None) -> None:
        again, self._asked = self._asked, True
        if again or not self._waits:
            raise KeyboardInterrupt


def _without_interrupts(lost: sys.UnraisableHookArgs) -> None:
    """A second signal may come where nothing can be raised; that it was lost there is no news to the user."""
    if lost.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(lost)


class WatchedSession(Session):
    """A session that looks for a signal before each call."""

    def __init__(self, subject: Subject, interrupts: Interrupts) -> None:
        super().__init__(subject)
        self._interrupts = interrupts

    def handle(self, worker: str) -> object:
        """The worker's handle. Raises ``KeyboardInterrupt`` when the user wants the run to end."""
        self._interrupts.check()
        return super().handle(worker)
