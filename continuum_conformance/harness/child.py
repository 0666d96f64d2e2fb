"""The other end of ``SecondProcess``: ``python -m continuum_conformance.harness.child REQUESTS ANSWERS``.

Reads requests from one inherited pipe and answers on another, a JSON object a line: first how to get the
harness, then calls, then close.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import pickle
import resource
import signal
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from continuum_conformance.harness.clocks import ClientClock, wrong_clock
from continuum_conformance.harness.subject import CALL_LIMIT, PROBE, Handle, HarnessError, Subject
from continuum_conformance.model import Kind, Operation, Outcome
from continuum_conformance.model.tagged import Opaque, decode_operation, encode_outcome

__all__ = ["end_with", "main", "peers"]

PR_SET_PDEATHSIG = 1


def _open(recipe: dict[str, Any]) -> Handle:
    sys.path[:] = [*sys.path, *(entry for entry in recipe["path"] if entry not in sys.path)]
    if "pickle" in recipe:
        # Not stored bytes: our own parent's, over a private pipe.
        target: Any = pickle.loads(base64.b64decode(recipe["pickle"]))
    else:
        target = recipe["target"]
    subject = Subject(
        target, dsn=recipe["dsn"], directory=recipe["directory"], limit=recipe.get("limit", CALL_LIMIT)
    )
    return subject.open("child")


_FDS = Path("/proc/self/fd")


def _watch_connects() -> list[Any]:
    """A list that gets the address of whatever this process connects to through Python."""
    seen: list[Any] = []
    sys.addaudithook(
        lambda event, arguments: seen.append(arguments[1]) if event == "socket.connect" else None
    )
    return seen


def peers() -> list[Any]:
    """What the sockets of this process are connected to, through whatever library. Unnamed pairs are nobody's."""
    found = []
    for entry in _FDS.glob("*"):
        with suppress(OSError):  # not connected, or closed meanwhile
            if entry.is_socket():
                with socket.socket(fileno=os.dup(int(entry.name))) as copy:
                    found.append(copy.getpeername())
    return [peer for peer in found if peer]


def _encoded(outcome: Outcome) -> dict[str, Any]:
    try:
        return encode_outcome(outcome)
    except Opaque as error:
        return encode_outcome(
            Outcome(Kind.GARBAGE, message=f"the answer holds {error.described}, which is no durable term")
        )


FRESH_NS = 50_000_000
"""Nanoseconds for which a file's time of change cannot tell whether it has changed again."""


_Sign = tuple[int, int, int]


def _sign(about: os.stat_result) -> _Sign:
    return about.st_ino, about.st_size, about.st_mtime_ns


def _changed_at(path: str) -> int:
    """When a file or folder changed last, in nanoseconds since 1970; 0 when it is not there."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - there may be thousands, looked at before every line
    except OSError:
        return 0


def _open_files() -> set[str] | None:
    """The files that this process has open; None where the system does not tell."""
    if not _FDS.exists():
        return None
    found = set()
    for entry in _FDS.glob("*"):
        with suppress(OSError):  # closed meanwhile
            found.add(str(entry.readlink()))
    return found


class _Lines:
    """Ends or stops this process before a line of the adapter's code, or ends it at a change of its files.

    It ends as in a crash (SIGKILL); it stops as when the machine is suspended (SIGSTOP), and says so just before.
    """

    def __init__(self, request: dict[str, Any], stopping: Callable[[], None]) -> None:
        self._line_to_die, self._change_to_die = request.get("die_at", 0), request.get("change", 0)
        self._line_to_stop, self._stopping = request.get("stop_at", 0), stopping
        self._files, directory = frozenset(request["files"]), request.get("directory")
        self._directory = os.path.realpath(directory) if directory is not None else None  # as /proc has it
        self.seen = 0
        self.leaving: list[int] = []
        """The lines that called something that is not the adapter's own code: there the store is reached."""
        self.changed = 0
        self._sums: dict[str, tuple[_Sign, int | None]] = {}
        self._folders: dict[str, int] = {}
        self._names: dict[str, frozenset[tuple[str, int]]] = {}
        self._near: set[str] = set()
        if self._directory is not None:
            self._list(self._directory)

    def watch(self, handle: Handle, operation: Operation) -> Outcome:
        """Carry out an operation: in this thread, or on the loop of an async journal."""
        if handle.is_async:
            outcome: Outcome = handle.inside(lambda: self._on_loop(handle, operation))
            return outcome
        with self._watching():
            return handle.direct(operation)

    async def _on_loop(self, handle: Handle, operation: Operation) -> Outcome:
        with self._watching():
            return await handle.direct_async(operation)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        if not (self._line_to_die or self._change_to_die or self._line_to_stop):
            sys.setprofile(self._leave)
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(None)
            sys.setprofile(None)

    def _leave(self, frame: FrameType, event: str, called: Any) -> None:
        """Take note of a line from which the adapter calls what is not its own."""
        own = self._files
        if event == "call":
            caller = frame.f_back.f_code.co_filename if frame.f_back is not None else ""
            out = caller in own and frame.f_code.co_filename not in own
        else:
            out = event == "c_call" and frame.f_code.co_filename in own and not _is_plain(called)
        if out and self.seen and self.seen not in self.leaving[-1:]:
            self.leaving.append(self.seen)

    def _look(self) -> bool:
        """Whether any file of the store has changed since the last look.

        A store may have very many files. Those that this process has open, had open at the last look, or that have
        changed of late are looked into; names come and go in folders, whose time of change tells.
        """
        if self._directory is None:
            return False
        changed = False
        for folder, known in list(self._folders.items()):
            if _changed_at(folder) == known and known < time.time_ns() - FRESH_NS:
                continue
            changed = self._list(folder) or changed
        told = _open_files()
        opened = set(self._sums) if told is None else told & self._sums.keys()
        for path in [*(opened | self._near)]:
            changed = self._has_changed(path) or changed
        self._near = opened | {path for path in self._near if _changed_at(path) > time.time_ns() - FRESH_NS}
        return changed

    def _list(self, folder: str) -> bool:
        """Whether a folder's files are others than they were."""
        before = self._names.get(folder, frozenset())
        self._folders[folder] = _changed_at(folder)
        found = set()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        found.add((entry.path, entry.inode()))
                        if (entry.path, entry.inode()) not in before:
                            self._meet(entry.path)
                    elif entry.path not in self._folders:
                        self._list(entry.path)
        except OSError:  # gone meanwhile
            self._folders.pop(folder, None)
        self._names[folder] = frozenset(found)
        return found != before

    def _meet(self, path: str) -> None:
        """Take note of a file that was not there before. Its sum is needed only while its time can deceive."""
        with suppress(OSError):
            about = Path(path).stat()
            old = time.time_ns() - about.st_mtime_ns > FRESH_NS
            self._sums[path] = (_sign(about), None if old else zlib.crc32(Path(path).read_bytes()))
            if not old:
                self._near.add(path)

    def _has_changed(self, path: str) -> bool:
        """Whether a file holds something else than at the last look."""
        known = self._sums.get(path)
        try:
            about = Path(path).stat()
            # Clocks of file systems tick slowly: what was written just now is read again.
            if known is None or (known[0] == _sign(about) and time.time_ns() - about.st_mtime_ns > FRESH_NS):
                return False
            total = zlib.crc32(Path(path).read_bytes())
        except OSError:  # gone meanwhile, which its folder tells
            return False
        self._sums[path] = (_sign(about), total)
        return known[1] != total if known[1] is not None else known[0] != _sign(about)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG002
        return self._line if frame.f_code.co_filename in self._files else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG002
        if event == "line":
            self.seen += 1
            if self._look():
                self.changed += 1
            if self.seen == self._line_to_stop:
                self._stopping()
                os.kill(os.getpid(), signal.SIGSTOP)
            if self.seen == self._line_to_die or (self.changed and self.changed == self._change_to_die):
                os.kill(os.getpid(), signal.SIGKILL)
        return self._line


def _is_plain(called: Any) -> bool:
    """Whether a function in C only works on values, as ``len`` and ``dict.get`` do."""
    owner = getattr(called, "__self__", None)
    of = owner.__name__ if isinstance(owner, ModuleType) else type(owner).__module__
    return of == "builtins"


def end_with(parent: int) -> None:
    """See to it that this process is killed when its parent ends, which one that is stopped could not notice.

    On Linux, where the parent's *thread* counts that has started it. Elsewhere it ends with its requests.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def main(requests: int, answers: int) -> None:
    """Serve one journal, until the requests end; does not return."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is its parent's matter
    with os.fdopen(requests, "rb") as source, os.fdopen(answers, "wb", buffering=0) as sink:

        def answer(data: dict[str, Any]) -> None:
            sink.write(json.dumps(data).encode() + b"\n")

        handle: Handle | None = None
        connects = _watch_connects()
        for line in source:
            request = json.loads(line)
            if "limit_files" in request:
                _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
                most = request["limit_files"]
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard if most is None else most, hard))
                answer({"limited": True})
            elif "files" in request and handle is not None:
                lines = _Lines(request, lambda: answer({"stopping": True}))
                outcome = lines.watch(handle, decode_operation(request["call"]))
                answer(
                    {
                        **_encoded(outcome),
                        "lines": lines.seen,
                        "leaving": lines.leaving,
                        "changes": lines.changed,
                    }
                )
            elif "call" in request and handle is not None:
                answer(_encoded(handle.call(decode_operation(request["call"]))))
            elif "close" in request:
                try:
                    if handle is not None:
                        handle.close()
                    answer({"closed": True})
                except HarnessError as error:
                    answer({"failed": str(error), "detail": error.detail})
                break
            else:
                if request.get("parent"):
                    end_with(request["parent"])
                if request.get("clock") or request.get("zone"):
                    clock = wrong_clock(ClientClock(request["clock"], request["zone"]))
                    clock.__enter__()  # to the end of this process
                try:
                    handle = _open(request)
                    handle.call(PROBE)
                except Exception as error:  # noqa: BLE001 - reported to the parent, which raises it
                    answer(
                        {"failed": str(error) or type(error).__name__, "detail": getattr(error, "detail", "")}
                    )
                    break
                answer({"opened": True, "connected": bool(connects or peers())})
    sys.stderr.flush()
    os._exit(0)  # a hung thread of the adapter's must not keep the process


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
