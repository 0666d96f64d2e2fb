"""A directory of logs: for every run one file of JSON lines that is only ever appended to, under flock.

A line is a whole change. A torn last line (a crash) was never acknowledged and is cut off by the next writer. A run
is born by an atomic rename, so that no reader sees half of its first line.
"""

# ruff: noqa: PTH105, PTH123, SIM115 - written as strangers write

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tests.unusual import codecs
from tests.unusual.rules import Rules, Sync, translate


class FileJournal(Sync):
    rules = Rules(token=lambda last: 10 if last is None else last + 10)

    def __init__(self, directory: str) -> None:
        self.root = Path(directory) / "runs"
        self.root.mkdir(exist_ok=True)

    def _path(self, key) -> Path:
        # Names may hold anything, and file systems fold case: a digest of both, each with its length.
        digest = hashlib.sha256(b"%d:" % len(key[0].encode()) + "".join(key).encode()).hexdigest()
        return self.root / digest[:2] / f"{digest}.jsonl"

    @contextmanager
    def _locked(self, path: Path, how: int):
        path.parent.mkdir(exist_ok=True)
        with open(path.parent / "lock", "ab") as lock:
            fcntl.flock(lock, how)
            yield

    def _lines(self, path: Path) -> tuple[list[list], int]:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return [], 0
        whole = data.rfind(b"\n") + 1
        return [json.loads(line) for line in data[:whole].splitlines()], whole

    def _head(self, lines):
        """The last header; each line carries one, and the event if there was one."""
        return codecs.from_json(lines[-1][0]) if lines else None

    def _last(self, path: Path):
        """The last whole line alone, read from behind, and where the whole lines end."""
        try:
            file = open(path, "rb")
        except FileNotFoundError:
            return None, 0
        with file:
            end = file.seek(0, os.SEEK_END)
            data, start = b"", end
            while start and data.count(b"\n") < 3:
                start = max(0, start - 65536)
                file.seek(start)
                data = file.read(end - start)
            whole = start + data.rfind(b"\n") + 1
            body = data[: data.rfind(b"\n")]
            return codecs.from_json(json.loads(body[body.rfind(b"\n") + 1 :])[0]), whole

    def read(self, key, since):
        path = self._path(key)
        with self._locked(path, fcntl.LOCK_SH):
            lines, _ = self._lines(path)
        run = self._head(lines)
        start = None if run is None else since(run)
        if start is None:
            return run, []
        events = [codecs.from_json(line[1]) for line in lines if len(line) == 2]
        return run, events[start:]

    def write(self, key, change):
        path = self._path(key)
        with self._locked(path, fcntl.LOCK_EX):
            run, whole = self._last(path)
            after, event, answer = change(run)
            line = [codecs.to_json(after)] + ([codecs.to_json(event)] if event is not None else [])
            data = json.dumps(line).encode() + b"\n"
            if run is None:
                handle, name = tempfile.mkstemp(dir=path.parent, suffix=".new")
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                os.replace(name, path)
            else:
                with open(path, "r+b") as file:
                    file.truncate(whole)
                    file.seek(whole)
                    file.write(data)
            return answer


class FileHarness:
    """Declared as a list, needed as a string, and nothing to close."""

    capabilities = ["leases", "snapshots", "durable", "crash_safe", "shared", "opaque_run_ids", "rich_terms"]
    needs = "directory"

    def open(self):
        return FileJournal(self.directory)

    def translate(self, exception):
        return translate(exception)
