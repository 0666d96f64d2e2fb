"""The caretaker: cleans up on servers that are not ours, and directories, after an owner that could not do it itself.

Run as a script, like `keeper.py`, with the owner holding the other end of its standard input. It is told what
there is to clean up, and does nothing unless the input ends before it is told that all is done. The owner
normally cleans up itself; this is for SIGKILL, `os._exit` and SIGTERM.
"""

import importlib
import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 20.0
"""How long to wait for what the owner had under way when it died."""


def drop_databases(dsn: str, family: str) -> None:
    """Drop all databases whose names begin with `family`, once none is being created any more."""
    import psycopg
    from psycopg import sql

    creating = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND starts_with(query, %s) LIMIT 1"
    named = "SELECT datname FROM pg_database WHERE starts_with(datname::text, %s)"
    with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if not connection.execute(creating, (f'CREATE DATABASE "{family}',)).fetchone():
                break
            time.sleep(0.05)
        for (name,) in connection.execute(named, (family,)).fetchall():
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )


def remove_container(name: str) -> None:
    """Remove a container and its volumes; wait for it while the engine may still be creating it."""
    docker: Any = importlib.import_module("docker")
    client = docker.from_env()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            client.containers.get(name).remove(force=True, v=True)
        except docker.errors.NotFound:
            time.sleep(0.2)
        else:
            return


def remove_directory(path: str) -> None:
    """Remove a directory; again, while a process that has not ended yet writes there."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while Path(path).exists() and time.monotonic() < deadline:
        shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.02)


def main() -> None:
    """Hold what was asked for, and do it if the input ends without the word *done*."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the owner's end decides
    duty: dict[str, str] = {}
    for line in sys.stdin:
        duty = json.loads(line)
        sys.stdout.write("{}\n")
        sys.stdout.flush()
    match duty.pop("do", "done"):
        case "databases":
            drop_databases(**duty)
        case "container":
            remove_container(**duty)
        case "directory":
            remove_directory(**duty)


if __name__ == "__main__":
    main()
