"""A second process over the same store: what DUR needs, and what a killed client is.

The other end is ``harness/child.py``. Requests and replies are JSON lines in the kit's own encoding on private
pipes, so that what the adapter prints disturbs nothing.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from continuum_conformance.harness.clocks import RIGHT, ClientClock, faketime
from continuum_conformance.harness.nursery import ForkedProcess, Nursery
from continuum_conformance.harness.subject import HarnessError, Subject
from continuum_conformance.model import Operation, Outcome
from continuum_conformance.model.tagged import decode_outcome, encode_operation

__all__ = ["SecondProcess"]


def _recipe(subject: Subject) -> dict[str, Any]:
    """How to get the same harness in another process: pickled, else by its class's or target's name."""
    recipe: dict[str, Any] = {
        "dsn": subject.dsn,
        "directory": subject.directory,
        "limit": subject.limit,
        "path": [entry for entry in sys.path if entry],
    }
    if subject.pickled is not None:
        recipe["pickle"] = base64.b64encode(subject.pickled).decode()
    else:
        cls = type(subject.harness)
        recipe["target"] = subject.target or f"{cls.__module__}:{cls.__qualname__}"
    return recipe


_MAKING = threading.Lock()


def _nursery(subject: Subject, environment: dict[str, str]) -> Nursery | None:
    """What forks workers for a subject; None where each must be a new process."""
    if sys.platform != "linux":
        return None
    with _MAKING:
        if subject.nursery is None:
            module = type(subject.harness).__module__
            modules = [] if module in ("__main__", "builtins") else [module]
            subject.nursery = Nursery(modules, environment, subject.limit * 3)
    return subject.nursery if subject.nursery.ready else None


class SecondProcess:
    """A worker in a process of its own, with one handle on the subject's store.

    Args:
        subject: the adapter.
        clock: what the process's wall clock tells, from its start.
        lender: another subject with the same harness, whose nursery forks it.

    Attributes:
        connected: whether opening and reading the journal made the process connect to anything.

    Raises:
        HarnessError: when the process cannot load or open the harness.
    """

    def __init__(
        self, subject: Subject, clock: ClientClock = RIGHT, *, lender: Subject | None = None
    ) -> None:
        self._limit = subject.limit
        theirs, ours_out = os.pipe()
        ours_in, answers = os.pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        faked = faketime(clock)
        environment.update(faked)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - no pipe: nobody reads it while the process runs
        nursery = None if faked else _nursery(lender or subject, environment)
        self._process: subprocess.Popen[bytes] | ForkedProcess
        if nursery is not None:
            self._process = nursery.fork(theirs, answers, self._errors.fileno())
        else:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "continuum_conformance.harness.child", str(theirs), str(answers)],
                pass_fds=(theirs, answers),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=environment,
            )
        os.close(theirs)
        os.close(answers)
        os.set_blocking(ours_out, False)
        self._out, self._in = ours_out, ours_in
        self._buffer = b""
        try:
            here = {"clock": 0 if faked else clock.seconds, "zone": clock.zone}
            if nursery is None and threading.current_thread() is threading.main_thread():
                here["parent"] = os.getpid()
            opened = self._ask({**_recipe(subject), **here}, self._limit * 4)
            if "failed" in opened:
                raise HarnessError(f"in a second process, {opened['failed']}", opened.get("detail", ""))
            self.connected = bool(opened["connected"])
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    broken = False
    grain = "line"
    """What its points within an operation are."""
    _begun: dict[str, Any]

    def call(self, operation: Operation, *, limit: float | None = None, then: object = None) -> Outcome:  # noqa: ARG002
        """Carry out an operation there, as ``Handle.call``. Raises `HarnessError` when the process is gone."""
        return decode_outcome(self._ask({"call": encode_operation(operation)}, self._limit * 2))

    def die_in(
        self,
        operation: Operation,
        files: Collection[str],
        directory: str | None = None,
        *,
        line: int = 0,
        change: int = 0,
    ) -> tuple[Outcome | None, int, int]:
        """Carry out an operation there, to be killed (SIGKILL) between two lines of the adapter's code.

        Args:
            operation: what to do.
            files: the adapter's source files.
            directory: the store's, to be watched for changes.
            line: before which line, from 1; 0 for none.
            change: after which change of what the directory's files hold, from 1; 0 for none.

        Returns:
            None when it died, else the outcome; and when it did not, how many lines and changes there were.

        Raises:
            HarnessError: the process is gone for another reason.
        """
        request = {
            "call": encode_operation(operation),
            "die_at": line,
            "change": change,
            "files": sorted(files),
            "directory": directory,
        }
        try:
            answer = self._ask(request, self._limit * 2)
        except HarnessError:
            if self._process.returncode == -signal.SIGKILL:
                return None, 0, 0
            raise
        return decode_outcome(answer), int(answer["lines"]), int(answer["changes"])

    def stop_in(self, operation: Operation, files: Collection[str], line: int) -> bool:
        """Begin an operation there, to be stopped (SIGSTOP) before a line of the adapter's code.

        Args:
            operation: what to do.
            files: the adapter's source files.
            line: before which line, from 1.

        Returns:
            Whether it was stopped; `resume` lets it go on. Else it has ended: `resume` tells as well.

        Raises:
            HarnessError: the process is gone.
        """
        request = {"call": encode_operation(operation), "stop_at": line, "files": sorted(files)}
        self._begun = self._ask(request, self._limit * 2)
        if "stopping" not in self._begun:
            return False
        deadline = time.monotonic() + self._limit
        while not self.is_stopped and time.monotonic() < deadline:
            time.sleep(0.0005)  # it is on its way into the signal
        return True

    def limit_files(self, most: int | None) -> None:
        """Let no file there grow beyond so many bytes (RLIMIT_FSIZE), or any again. Raises `HarnessError`."""
        self._ask({"limit_files": most}, self._limit)

    @property
    def is_stopped(self) -> bool:
        """Whether the process is stopped."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][:1]
        except OSError:
            return False
        return state in ("T", "t")

    def go_on(self) -> None:
        """Let a stopped process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def resume(self) -> tuple[Outcome, Sequence[int]]:
        """What came of the operation that `stop_in` began, once it goes on, and where it is worth while to stop it.

        That is before each line that calls what is not the adapter's own; before any, where none is seen to.
        """
        answer = self._begun
        if "stopping" in answer:
            self.go_on()
            answer = self._answered(self._limit * 2)
        return decode_outcome(answer), answer["leaving"] or range(1, int(answer["lines"]) + 1)

    def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        unsent = memoryview(json.dumps(request).encode() + b"\n")
        while unsent:
            self._wait(self._out, selectors.EVENT_WRITE, deadline, seconds)
            try:
                unsent = unsent[os.write(self._out, unsent) :]
            except BrokenPipeError:
                raise HarnessError(f"the second process has gone: {self._last_words()}") from None
        return self._answered(seconds)

    def _answered(self, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            self._wait(self._in, selectors.EVENT_READ, deadline, seconds)
            chunk = os.read(self._in, 1 << 20)
            if not chunk:
                raise HarnessError(f"the second process has gone: {self._last_words()}")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @staticmethod
    def _wait(pipe: int, event: int, deadline: float, seconds: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise HarnessError(f"the second process gave no answer within {seconds:g} s")

    def _last_words(self) -> str:
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "(it still runs)"
        self._errors.seek(0)
        tail = self._errors.read().decode("utf-8", "replace").strip().splitlines()[-6:]
        return f"exit code {self._process.returncode}: {' / '.join(tail) or 'it said nothing'}"

    def close(self) -> None:
        """Close the handle there, cleanly, and end the process. Raises `HarnessError`, the process ended all the same."""
        if self.is_stopped:
            self.kill()
            return
        try:
            if self._process.poll() is None:
                closed = self._ask({"close": True}, self._limit * 2)
                if "failed" in closed:
                    raise HarnessError(f"in a second process, {closed['failed']}", closed.get("detail", ""))
        finally:
            self._finish()

    def kill(self) -> None:
        """SIGKILL."""
        if self._process.poll() is None:
            self._process.kill()
        self._finish()

    def _finish(self) -> None:
        if self._in < 0:
            return
        os.close(self._out)
        try:
            self._process.wait(self._limit)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()
        os.close(self._in)
        self._in = -1

    def __enter__(self) -> SecondProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._in >= 0:
            self.kill()
