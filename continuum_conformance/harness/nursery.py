"""A process that has imported what a worker needs, and forks workers: starting Python anew takes thirty times as long.

Its other end is at the bottom: ``python -m continuum_conformance.harness.nursery SOCKET MODULE...``. It stays with
one thread and opens nothing of the adapter's, so that a fork of it is as good as a new process. Where importing the
adapter starts threads, or fails, or the system is not Linux, it declines, and each worker is a new process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

__all__ = ["ForkedProcess", "Nursery"]


class Nursery:
    """Forks workers.

    Args:
        modules: what they will need.
        environment: theirs.
        limit: seconds within which everything must have been imported.
    """

    def __init__(self, modules: Collection[str], environment: Mapping[str, str], limit: float) -> None:
        self._asking = threading.Lock()
        self._socket, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno()), *modules],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
        )
        theirs.close()
        self._owner = os.getpid()
        self.ready = bool((self._answer(limit) or {}).get("ready"))
        """Whether it can fork workers."""

    def fork(self, requests: int, answers: int, errors: int) -> ForkedProcess:
        """A worker that reads requests, answers, and writes its errors, through these file descriptors."""
        with self._asking:
            socket.send_fds(self._socket, [b'{"do": "fork"}\n'], [requests, answers, errors])
            answer = self._answer(None)
        if answer is None:
            self.ready = False
            raise OSError("the process that forks workers has gone")
        return ForkedProcess(self, int(answer["pid"]))

    def wait(self, pid: int, seconds: float | None) -> int | None:
        """The exit status of a worker, as ``Popen.returncode`` has it; None when it still runs after so long."""
        deadline = threading.TIMEOUT_MAX if seconds is None else seconds
        step, passed = 0.001, 0.0
        while True:
            answer = None
            # It may have gone, as when a signal went to the whole group.
            with contextlib.suppress(ConnectionError), self._asking:
                self._socket.sendall(json.dumps({"do": "poll", "pid": pid}).encode() + b"\n")
                answer = self._answer(None)
            if answer is None:
                self.ready = False
                return -signal.SIGKILL  # it went with its nursery
            if answer["status"] is not None:
                return os.waitstatus_to_exitcode(answer["status"])
            if passed >= deadline:
                return None
            select.select((), (), (), step)  # Popen waits in the same way
            passed += step
            step = min(step * 2, 0.05)

    def _answer(self, seconds: float | None) -> dict[str, Any] | None:
        self._socket.settimeout(seconds)
        line = b""
        try:
            while not line.endswith(b"\n"):
                chunk = self._socket.recv(4096)
                if not chunk:
                    return None
                line += chunk
        except TimeoutError:
            return None
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it; workers that still run end when their requests do."""
        if os.getpid() != self._owner:
            return
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class ForkedProcess:
    """A worker, with what one needs of `subprocess.Popen`."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery, self.pid = nursery, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._nursery.wait(self.pid, 0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises ``subprocess.TimeoutExpired``."""
        if self.returncode is None:
            self.returncode = self._nursery.wait(self.pid, timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a forked worker", timeout or 0)
        return self.returncode

    def kill(self) -> None:
        """SIGKILL."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _forked(nursery: socket.socket, parent: int, requests: int, answers: int, errors: int) -> None:
    from continuum_conformance.harness import child

    nursery.close()
    child.end_with(parent)
    os.dup2(errors, 2)
    os.close(errors)
    try:
        child.main(requests, answers)
    except BaseException:  # noqa: BLE001 - as at the top of any process
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    os._exit(1)


def _serve(nursery: socket.socket, modules: Collection[str]) -> None:
    def answer(**data: Any) -> None:
        nursery.sendall(json.dumps(data).encode() + b"\n")

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with its owner
    try:
        for module in ("continuum_conformance.harness.child", *modules):
            importlib.import_module(module)
    except BaseException:  # noqa: BLE001 - a worker of its own will tell
        answer(ready=False)
        return
    parent = os.getpid()
    answer(ready=len(list(Path("/proc/self/task").glob("*"))) == 1)  # none where the system does not tell
    while True:
        try:
            line, fds, _, _ = socket.recv_fds(nursery, 4096, 3)
        except ConnectionError:
            return
        if not line:
            return
        asked = json.loads(line)
        if asked["do"] == "poll":
            pid, status = os.waitpid(asked["pid"], os.WNOHANG)
            answer(status=status if pid else None)
            continue
        pid = os.fork()
        if not pid:
            _forked(nursery, parent, *fds)
        for fd in fds:
            os.close(fd)
        answer(pid=pid)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
