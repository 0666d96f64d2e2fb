"""A foreign process that locks a store's files: ``python -m continuum_conformance.suite.faults.blocker DIRECTORY``.

It says ``held`` with the number of databases and of files that it has got, waits for a line, lets go, and says
``gone``; after one more line it says with 1 or 0 whether a database was written since. It is a process of its own,
because POSIX's file locks belong to a process, and closing a file anywhere in it drops them. SQLite databases are
locked against writers, as a transaction of another process would; other files as a whole, by ``flock``.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__: list[str] = []

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MAGIC = b"SQLite format 3\0"


def _lock(directory: Path) -> tuple[list[sqlite3.Connection], list[Any]]:
    """The databases that are locked, and the files."""
    bases: list[sqlite3.Connection] = []
    files: list[Any] = []
    for path in sorted(directory.rglob("*")):
        if not path.is_file() or path.name.endswith(("-wal", "-shm", "-journal")):
            continue
        with suppress(OSError, sqlite3.Error):  # what cannot be locked, is not
            file = path.open("r+b")
            if file.read(len(MAGIC)) == MAGIC:
                file.close()
                base = sqlite3.connect(path, timeout=1, isolation_level=None)
                base.execute("BEGIN IMMEDIATE")
                bases.append(base)
            elif fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                files.append(file)
    return bases, files


def _version(base: sqlite3.Connection) -> int:
    """A number that changes when another connection writes."""
    return int(base.execute("PRAGMA data_version").fetchone()[0])


def _main(directory: str) -> None:
    bases, files = _lock(Path(directory))
    before = [_version(base) for base in bases]
    print("held", len(bases), len(files), flush=True)  # noqa: T201 - that is its answer
    sys.stdin.readline()
    for base in bases:
        base.execute("ROLLBACK")
    for file in files:
        file.close()
    print("gone", flush=True)  # noqa: T201
    if sys.stdin.readline():
        print(int(before != [_version(base) for base in bases]), flush=True)  # noqa: T201


if __name__ == "__main__":
    _main(sys.argv[1])
