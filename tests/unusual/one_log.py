"""The whole store is one log of JSON lines, under a POSIX record lock; each process tails it into a dict of its own.

Such a lock belongs to the process and is gone when any descriptor of the file is closed, so a process has one
descriptor for the file's lifetime, whatever the number of handles, and one mutex beside the lock. A torn last line
was never acknowledged; the next writer cuts it off.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from contextlib import contextmanager
from pathlib import Path

from tests.unusual import codecs
from tests.unusual.rules import Rules, Sync, translate


class Log:
    """One for each file of a process."""

    all: dict[str, Log] = {}
    making = threading.Lock()

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.pid, self.mutex = os.getpid(), threading.Lock()
        self.runs, self.upto = {}, 0

    @classmethod
    def of(cls, path: str) -> Log:
        with cls.making:
            log = cls.all.get(path)
            if log is None or log.pid != os.getpid() or not os.fstat(log.descriptor).st_nlink:
                log = cls.all[path] = cls(path)
            return log

    @contextmanager
    def locked(self):
        with self.mutex:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
            try:
                yield self._caught_up()
            finally:
                fcntl.lockf(self.descriptor, fcntl.LOCK_UN)

    def _caught_up(self):
        size = os.fstat(self.descriptor).st_size
        data = os.pread(self.descriptor, size - self.upto, self.upto) if size > self.upto else b""
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole.splitlines():
            key, head, *event = (codecs.from_json(part) for part in json.loads(line))
            _, events = self.runs.get(tuple(key), (None, []))
            # Whoever is interrupted here does it again: an event has its place by the head's count.
            self.runs[tuple(key)] = head, [*events[: head["length"] - len(event)], *event]
        self.upto += len(whole)
        return self.runs

    def add(self, parts):
        """At the end of what is whole. Who is interrupted here has added all of it or what the next one cuts off."""
        line = json.dumps([codecs.to_json(part) for part in parts]).encode() + b"\n"
        os.ftruncate(self.descriptor, self.upto)
        done = 0
        while done < len(line):
            done += os.pwrite(self.descriptor, line[done:], self.upto + done)


class LogJournal(Sync):
    rules = Rules(token=lambda last: 7 if last is None else last + 2)

    def __init__(self, directory: str) -> None:
        self.path = str(Path(directory) / "store.jsonl")

    def read(self, key, since):
        with Log.of(self.path).locked() as runs:
            run, events = runs.get(key, (None, []))
            start = None if run is None else since(run)
            # What is read is made anew: it belongs to the caller.
            found = codecs.pack([run, events[start:] if start is not None else []])
        run, events = codecs.unpack(found)
        return run, events

    def write(self, key, change):
        log = Log.of(self.path)
        with log.locked() as runs:
            run, _ = runs.get(key, (None, []))
            after, event, answer = change(run)
            log.add([list(key), after, *([event] if event is not None else [])])
            return answer


class LogHarness:
    capabilities = {"leases", "snapshots", "durable", "crash_safe", "shared", "opaque_run_ids", "rich_terms"}
    needs = "directory"

    def open(self):
        return LogJournal(self.directory)

    translate = staticmethod(translate)
