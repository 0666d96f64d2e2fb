"""A program as a second process: what `SecondProcess` is for adapters in Python.

The program itself is killed and stopped. Its code is not seen, so the points within an operation at which that
happens are others than lines: the messages of its connections, where it is behind a gate (`Wire`), else moments of
the time that the operation takes. Moments may fall anywhere; what they show is judged exactly all the same.
"""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from continuum_conformance.harness.bridge.dialogue import encoded_arguments
from continuum_conformance.harness.bridge.harness import FAILURES, ProgramHarness, Trouble
from continuum_conformance.harness.bridge.program import Refused
from continuum_conformance.harness.clocks import RIGHT, ClientClock, faketime
from continuum_conformance.harness.handle import HarnessError
from continuum_conformance.harness.subject import PROBE, Subject
from continuum_conformance.model import Operation, Outcome

__all__ = ["ProgramProcess", "Wire"]

MOMENTS = 20
"""Into so many equal parts the time of an operation is divided."""

LOOK = 0.001
"""Seconds between two looks at whether a message is held."""


class Wire(Protocol):
    """A gate before the connections of one worker."""

    dsn: str
    """By which the worker connects."""

    def messages(self) -> int:
        """How many messages the worker has sent to the server so far."""
        ...

    def hold(self, number: int) -> Callable[[], bool]:
        """Keep the worker's message of this number from now on, from 1; gives what tells whether it is kept."""
        ...

    def let_go(self) -> None:
        """Send on its way what is kept, and keep nothing."""
        ...


class ProgramProcess:
    """A program in a process of its own, with one handle on the subject's store.

    Args:
        subject: the adapter, whose harness is a `ProgramHarness`.
        worker: the worker's name.
        clock: what the process's wall clock tells, from its start. A wrong one takes libfaketime.
        wire: the gate before its connections, if it has one.

    Raises:
        HarnessError: when it cannot be started or opened.
    """

    def __init__(
        self, subject: Subject, worker: str, clock: ClientClock = RIGHT, wire: Wire | None = None
    ) -> None:
        harness = subject.harness
        if not isinstance(harness, ProgramHarness):
            raise TypeError("the harness is no program's")
        self._harness: ProgramHarness = harness
        self._limit = subject.limit
        self._wire = wire
        dsn = wire.dsn if wire is not None else subject.dsn
        environment = dict(faketime(clock))
        if clock.zone:
            environment["TZ"] = clock.zone
        try:
            self._program = harness.start(worker, dsn, subject.directory, environment)
            try:
                self._journal = harness.open_in(
                    self._program, worker, dsn, subject.directory, self._limit * 3
                )
            except BaseException:
                self._program.drop()
                raise
        except Trouble as error:
            raise HarnessError(f"in a second process, {error}", error.detail) from None
        self._journal.perform(PROBE, self._limit)
        self.connected = _connected(self._program.pid)
        self._begun: tuple[Operation, int, int] | None = None
        """The operation that `stop_in` began: with its request's id, and the messages that had been sent before."""

    broken = False

    @property
    def grain(self) -> str:
        """What its points are: ``message`` or ``moment``."""
        return "message" if self._wire is not None else "moment"

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._program.pid

    def call(self, operation: Operation, *, limit: float | None = None, then: object = None) -> Outcome:  # noqa: ARG002
        """Carry out an operation there, as ``Handle.call``. Raises `HarnessError` when the process is gone."""
        if not self._program.usable:
            raise HarnessError(f"the second process has gone; {self._program.last_words()}")
        return self._journal.perform(operation, self._limit * 2)

    def die_in(
        self, operation: Operation, files: Collection[str], directory: str | None = None, **points: int
    ) -> tuple[Outcome | None, int, int]:
        """Carry out an operation there, to be killed (SIGKILL) within it.

        Args:
            operation: what to do.
            files: nothing to a program.
            directory: nothing to a program.
            points: by `grain`, before which point, from 1; 0 for none.

        Returns:
            None when it died, else the outcome; when it was not to die, how many points there were; and 0.
        """
        del files, directory
        point = points.get(self.grain, 0)
        number, before = self._begin(operation, point)
        if point and self._reached(number, point):
            self._program.kill()
            if self._wire is not None:
                self._wire.let_go()
            return None, 0, 0
        outcome = self._outcome(operation, number)
        return outcome, 0 if point else self._points(before), 0

    def stop_in(self, operation: Operation, files: Collection[str], line: int) -> bool:
        """Begin an operation there, to be stopped (SIGSTOP) before a point. As `SecondProcess.stop_in`."""
        del files
        number, before = self._begin(operation, line)
        self._begun = (operation, number, before)
        if not line or not self._reached(number, line):
            return False
        self._program.signal(signal.SIGSTOP)
        deadline = time.monotonic() + self._limit
        while not self._program.is_stopped and time.monotonic() < deadline:
            time.sleep(LOOK)  # it is on its way into the signal
        return True

    @property
    def is_stopped(self) -> bool:
        """Whether the process is stopped."""
        return self._program.is_stopped

    def go_on(self) -> None:
        """Let a stopped process go on (SIGCONT)."""
        self._program.signal(signal.SIGCONT)
        if self._wire is not None:
            self._wire.let_go()

    def resume(self) -> tuple[Outcome, Sequence[int]]:
        """What came of the operation that `stop_in` began, once it goes on, and the points that it had."""
        if self._begun is None:
            raise RuntimeError("nothing was begun")
        operation, number, before = self._begun
        self.go_on()
        outcome = self._outcome(operation, number)
        return outcome, range(1, (0 if self._point else self._points(before)) + 1)

    def _begin(self, operation: Operation, point: int) -> tuple[int, int]:
        before = self._wire.messages() if self._wire is not None else 0
        self._kept = self._wire.hold(point) if self._wire is not None and point else None
        self._since, self._point, self._name = time.monotonic(), point, operation.name
        try:
            number = self._program.send(
                operation.name, encoded_arguments(operation), self._limit, self._journal.handle
            )
        except FAILURES as failure:
            raise HarnessError(f"the second process has gone: {failure}") from None
        return number, before

    def _reached(self, number: int, point: int) -> bool:
        """Whether it came to the point, and not to the end of the operation before that."""
        if self._kept is None:
            took = self._harness.took.get(self._name, 0.0)
            return not self._program.awaits(number, took * (point - 1) / MOMENTS)
        deadline = self._since + self._limit
        while not self._kept() and time.monotonic() < deadline:
            if self._program.awaits(number, LOOK):
                return False
        return self._kept()

    def _outcome(self, operation: Operation, number: int) -> Outcome:
        if self._wire is not None:
            self._wire.let_go()
        try:
            data = self._program.reply(number, operation.name, self._limit * 2)
        except FAILURES as failure:
            return self._journal.failed(failure)
        if not self._point:
            self._harness.took[operation.name] = time.monotonic() - self._since
        return self._journal.heard(operation, data)

    def _points(self, before: int) -> int:
        return self._wire.messages() - before if self._wire is not None else MOMENTS

    def limit_files(self, most: int | None) -> None:
        """Let no file there grow beyond so many bytes (RLIMIT_FSIZE), or any again. Raises `HarnessError`."""
        if not self._program.usable:
            raise HarnessError(f"the second process has gone; {self._program.last_words()}")
        try:
            _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (hard if most is None else most, hard))
        except (AttributeError, OSError) as error:
            raise HarnessError(f"the program's files cannot be limited here: {error}") from None

    def close(self) -> None:
        """Close the handle there, cleanly, and end the process. Raises `HarnessError`, the process ended all the same."""
        try:
            if self._program.usable:
                self._program.told("close", {}, self._limit, self._journal.handle)
        except (*FAILURES, Refused) as error:
            raise HarnessError(f"in a second process, close failed: {error}") from None
        finally:
            self._harness.end(self._program)

    def kill(self) -> None:
        """SIGKILL."""
        self._program.kill()
        self._harness.forget(self._program)

    def __enter__(self) -> ProgramProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _connected(pid: int) -> bool:
    """Whether a process is connected to anything by TCP, or to a named socket."""
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        mine = {link[8:-1] for link in links if link.startswith("socket:[")}
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields: list[Any] = line.split()
                if fields[3] == "01" and fields[9] in mine:
                    return True
    except OSError:
        pass  # no Linux, or it is gone
    return False
