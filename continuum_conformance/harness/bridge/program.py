"""A program that speaks the bridge's protocol: its process, its pipes, and what it last wrote to its stderr.

Any number of threads may ask at once. Whoever waits for a reply while nobody reads, reads, and hands the others
theirs; so with one request at a time there is no hand-over between threads.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from continuum_conformance import __version__
from continuum_conformance.contract.clauses import CONTRACT_VERSION
from continuum_conformance.contract.targets import TargetError
from continuum_conformance.harness.bridge.dialogue import PROTOCOL, Breach, Dialogue, Reply
from continuum_conformance.model import mask

__all__ = ["Ended", "Program", "TooLate", "argv_of"]

PIECE = 1 << 18
"""Bytes that are read at once."""

TAIL = 6
"""Lines of a program's stderr that are told in a sentence."""

MOST_TAIL = 8_000
"""Bytes of it that are looked at."""

FAREWELL = 5.0
"""Seconds that a program has to end by itself once its standard input has ended."""


class TooLate(Exception):
    """A reply that did not come within its limit."""


class Ended(Exception):
    """The program has ended, or was ended after a breach; the message says how."""


def argv_of(command: str) -> list[str]:
    """A command as a program and its arguments, split as a shell does. Raises `TargetError`."""
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise TargetError(f"the command {command!r} cannot be split into words: {error}") from None
    if not argv:
        raise TargetError('the command is empty; write as in --exec "node bridge.mjs"')
    return argv


class Program:
    """A running program. Starting it says nothing yet to it; `ask` does.

    Args:
        command: as a shell has it. It is run without one.
        environment: what is added to the kit's own environment.

    Raises:
        TargetError: when there is no such program, or it may not be run.
    """

    def __init__(self, command: str, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - no pipe: nobody reads it while the program runs
        try:
            self._process = self._spawned(argv_of(command), {**os.environ, **environment})
        except OSError as error:
            self._errors.close()
            raise TargetError(f"the command {command!r} cannot be run: {error.strerror or error}") from None
        self._in: int = self._process.stdout.fileno()  # type: ignore[union-attr]
        self._out: int = self._process.stdin.fileno()  # type: ignore[union-attr]
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._dialogue = Dialogue()
        self._writing = threading.Lock()
        self._state = threading.Condition()
        self._reading = False
        self._replies: dict[int, Reply] = {}
        self._failure: Exception | None = None
        self.handles: set[int | str] = set()
        """The handles that are open."""

    def _spawned(self, argv: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,  # it may be a shell's child, and is stopped and killed with its children
            bufsize=0,
            restore_signals=False,  # SIGXFSZ stays ignored, so that a full disk is an error and no end
        )

    @property
    def pid(self) -> int:
        """The process's id, and its group's."""
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Whether it has kept to the protocol so far, and runs."""
        return self._failure is None and self._process.poll() is None

    # -- asking --

    def introduce(self, seconds: float) -> dict[str, Any]:
        """Say hello, and give what it says of itself. Raises `Breach`, `TooLate` and `Ended`."""
        arguments = {"protocol": PROTOCOL, "kit": __version__, "contract": CONTRACT_VERSION}
        value = self.told("hello", arguments, seconds)
        if not isinstance(value, dict):
            raise self._broken(Breach(f"its answer to hello must be an object, not {value!r:.60}"))
        return value

    def told(
        self, op: str, arguments: Mapping[str, Any], seconds: float, handle: int | str | None = None
    ) -> Any:
        """The value that a request of the protocol's own gets.

        Raises:
            Breach, TooLate, Ended: as `ask`.
            Refused: when it answers with an error.
        """
        data = self.ask(op, arguments, seconds, handle)
        kind = data.get("kind")
        if kind == "value":
            return data.get("value")
        if kind not in ("error", "raw"):
            raise self._broken(
                Breach(f'its reply to {op} has the kind {kind!r:.60}; "value", "error" or "raw" is due')
            )
        raise Refused(
            str(data.get("error") or "an error"),
            mask(str(data.get("message") or "")),
            mask(str(data.get("detail") or "")),
        )

    def ask(
        self, op: str, arguments: Mapping[str, Any], seconds: float, handle: int | str | None = None
    ) -> Mapping[str, Any]:
        """The reply to a request.

        Args:
            op: the operation.
            arguments: JSON data.
            seconds: within which the reply must be there.
            handle: which handle it is about.

        Raises:
            Breach: it said what the protocol does not allow. It is killed.
            TooLate: there was no reply in time. It is killed.
            Ended: it has ended, or was killed after one of these.
        """
        number = self.send(op, arguments, seconds, handle)
        return self.reply(number, op, seconds)

    def send(
        self, op: str, arguments: Mapping[str, Any], seconds: float, handle: int | str | None = None
    ) -> int:
        """Send a request and give its id. Raises `TooLate` and `Ended`."""
        deadline = time.monotonic() + seconds
        with self._writing:
            self._require()
            with self._state:
                number, line = self._dialogue.ask(op, arguments, handle)
            unsent = memoryview(line)
            while unsent:
                if not _ready(self._out, select.POLLOUT, deadline):
                    raise self._broken(TooLate(f"it did not read a request within {seconds:g} s"))
                try:
                    unsent = unsent[os.write(self._out, unsent) :]
                except BlockingIOError:
                    continue
                except OSError:
                    return number  # it has closed its standard input; what it said before counts
        return number

    def reply(self, number: int, op: str, seconds: float) -> Mapping[str, Any]:
        """Wait for a reply. Raises as `ask`."""
        deadline = time.monotonic() + seconds
        while True:
            with self._state:
                found = self._replies.pop(number, None)
                if found is not None:
                    return found.data
                self._require()
                if self._reading:
                    self._state.wait(max(0.0, deadline - time.monotonic()))
                    if time.monotonic() < deadline or number in self._replies:
                        continue
                    raise self._broken(TooLate(f"no answer to {op} within {seconds:g} s"))
                self._reading = True
            try:
                self._read(op, deadline, seconds)
            finally:
                with self._state:
                    self._reading = False
                    self._state.notify_all()

    def awaits(self, number: int, seconds: float) -> bool:
        """Whether a reply is there, or the program has failed, within so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            with self._state:
                if number in self._replies or self._failure is not None:
                    return True
            if not _ready(self._in, select.POLLIN, deadline):
                return False
            with contextlib.suppress(Breach, TooLate, Ended):  # the reply's own request tells it
                self._read("a request", deadline, seconds)

    def _read(self, op: str, deadline: float, seconds: float) -> None:
        if not _ready(self._in, select.POLLIN, deadline):
            raise self._broken(TooLate(f"no answer to {op} within {seconds:g} s"))
        try:
            chunk = os.read(self._in, PIECE)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._broken(Ended(f"its standard output cannot be read: {error.strerror}")) from None
        if not chunk:
            raise self._broken(Ended(f"{self._how_it_ended()}, before it answered {op}"))
        try:
            with self._state:
                for reply in self._dialogue.hear(chunk):
                    self._replies[reply.id] = reply
        except Breach as breach:
            raise self._broken(breach) from None

    def _require(self) -> None:
        failure = self._failure
        if failure is not None:
            raise Ended(f"the program is gone: {failure}")

    def _broken(self, failure: Exception) -> Exception:
        """The failure, with the program ended and its last words added."""
        self.kill()
        words = self.last_words()
        told = type(failure)(f"{failure}; {words}" if words else str(failure))
        with self._state:
            self._failure = self._failure or told
            self._state.notify_all()
        return told

    def _how_it_ended(self) -> str:
        unfinished = self._dialogue.unfinished
        try:
            code = self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            return "it closed its standard output"
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        within = f" within a line ({unfinished})" if unfinished else ""
        return f"it ended {how}{within}"

    def last_words(self) -> str:
        """The tail of its stderr in a line, as ``its stderr ends: ...``; empty when it wrote nothing there."""
        tail = " / ".join(line.strip() for line in self.stderr_tail(TAIL).splitlines() if line.strip())
        return f"its stderr ends: {tail}" if tail else ""

    def stderr_tail(self, lines: int) -> str:
        """The last lines of its stderr, as far as it is still to be had, with passwords masked."""
        try:
            size = os.fstat(self._errors.fileno()).st_size
            tail = os.pread(self._errors.fileno(), MOST_TAIL, max(0, size - MOST_TAIL))
        except (OSError, ValueError):
            return ""
        text = tail.decode("utf-8", "backslashreplace").strip()
        return mask("\n".join(text.splitlines()[-lines:]))

    # -- its process --

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and its children."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(FAREWELL)

    @property
    def is_stopped(self) -> bool:
        """Whether it is stopped (SIGSTOP)."""
        return _state_of(self.pid) in ("T", "t")

    @property
    def runs(self) -> bool:
        """Whether one of its threads runs or would like to, as far as the system tells."""
        try:
            return any(
                (thread / "stat").read_text().rpartition(") ")[2][:1] in ("R", "D")
                for thread in Path(f"/proc/{self.pid}/task").iterdir()
            )
        except OSError:
            return False

    def end(self, seconds: float) -> str:
        """Say bye, and wait until it has ended; it is killed when it does not. What was wrong with that, if anything."""
        wrong = ""
        if self.usable:
            try:
                self.told("bye", {}, seconds)
            except (Breach, TooLate, Ended, Refused) as error:
                wrong = f"it did not take its leave: {error}"
        self._close_pipe(self._process.stdin)
        try:
            self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            wrong = wrong or f"it still ran {FAREWELL:g} s after its standard input had ended"
        self.drop()
        return wrong

    def drop(self) -> None:
        """End it at once, and forget it."""
        self.kill()
        with self._state:
            self._failure = self._failure or Ended("it was ended")
        for pipe in (self._process.stdin, self._process.stdout):
            self._close_pipe(pipe)
        self._errors.close()

    @staticmethod
    def _close_pipe(pipe: Any) -> None:
        with contextlib.suppress(OSError):
            pipe.close()


class Refused(Exception):
    """A request of the protocol's own that a program answered with an error."""

    def __init__(self, error: str, message: str, detail: str) -> None:
        super().__init__(f"{error}: {message}" if message else error)
        self.error, self.message, self.detail = error, message, detail


def _ready(pipe: int, event: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(pipe, event)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def _state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""
