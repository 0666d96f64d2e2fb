"""A server in a container, through testcontainers: Docker, Podman, or whatever speaks Docker's protocol."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any

from . import dsn as dsns
from .databases import Databases, connect, new_family
from .lifeline import Lifeline
from .optional import require
from .private_server import HOST, PORT_ATTEMPTS, START_SECONDS, USER, check_settings, free_port
from .server import PostgresServer, PostgresUnavailable

DEFAULT_IMAGE = "postgres:17-alpine"
INNER_PORT = 5432


def image() -> str:
    """Return the image to use: the environment's CONTINUUM_POSTGRES_IMAGE, else the default."""
    return os.environ.get("CONTINUUM_POSTGRES_IMAGE") or DEFAULT_IMAGE


class ContainerServer(PostgresServer):
    """A server in a container of the kit's own, published on loopback (of a remote engine: on all addresses)."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        check_settings(settings or {})
        self._lock = threading.RLock()
        self._docker = require("docker", "containers")
        self._family = new_family()
        self._password = secrets.token_hex(16)
        self._container: Any = None
        self._caretaker = Lifeline("caretaker.py", "-P")
        try:
            self._caretaker.ask(do="container", name=self._family)
            self._run(settings or {})
            self._databases = Databases(self._dsn("postgres"), self._family)
            super().__init__(
                dsn=self.fresh_database(),
                description=f"container {image()}, {self.host}:{self.port}",
                may_kill=True,
            )
        except BaseException:
            self.close()
            raise

    def _run(self, settings: Mapping[str, str]) -> None:
        """Run the container on a free port of ours: an engine's own choice would change when it starts again."""
        command = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        for attempt in range(PORT_ATTEMPTS):
            try:
                self._container = self._make(command)
                self._container.start()
                self.host = self._container.get_container_host_ip()
                self.port = self._container.get_exposed_port(INNER_PORT)
                self._wait()
            except self._docker.errors.APIError as error:
                taken = re.search(r"port is already allocated|address already in use", str(error))
                if not taken or attempt == PORT_ATTEMPTS - 1:
                    raise PostgresUnavailable(f"the container engine refused {image()}: {error}") from error
                self._container.stop()
            except (self._docker.errors.DockerException, TimeoutError, OSError, LookupError) as error:
                raise PostgresUnavailable(
                    f"no container of {image()}: {error}. Is an engine running, and DOCKER_HOST set? "
                    "CONTINUUM_POSTGRES_IMAGE names another image."
                ) from error
            else:
                return

    def _make(self, command: list[str]) -> Any:
        container = _testcontainers()(
            image(), port=INNER_PORT, username=USER, password=self._password, dbname="postgres", driver=None
        )
        remote = container.get_docker_client().host() not in ("localhost", HOST)
        container.ports = {str(INNER_PORT): free_port() if remote else (HOST, free_port())}
        container.with_name(self._family)
        return container.with_command(["postgres", *command]) if command else container

    def _dsn(self, database: str) -> str:
        return dsns.uri(host=self.host, port=self.port, user=USER, password=self._password, database=database)

    def _wait(self) -> None:
        """Wait until the published port answers as PostgreSQL: the image's first start is on a socket only."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                connect(self._dsn("postgres")).close()
            except PostgresUnavailable as error:
                self._inner().reload()
                if (
                    self._inner().status not in ("created", "running", "restarting")
                    or time.monotonic() > deadline
                ):
                    log = self._inner().logs(tail=20).decode(errors="replace")
                    raise PostgresUnavailable(
                        f"the container of {image()} does not answer: {error}\n{log}"
                    ) from error
                time.sleep(0.05)
            else:
                return

    def _inner(self) -> Any:
        return self._container.get_wrapped_container()

    def fresh_database(self) -> str:
        """Create one more empty database and return its DSN."""
        return self._dsn(self._databases.create())

    def kill(self) -> None:
        """Kill the container's first process, the postmaster; the kernel ends the others with it."""
        with self._lock:
            self._check_open()
            try:
                self._inner().kill(signal="SIGKILL")
            except self._docker.errors.APIError as error:
                self._inner().reload()
                if self._inner().status == "running":
                    raise PostgresUnavailable(f"the container could not be killed: {error}") from error
            self._inner().wait()

    def start(self) -> None:
        """Start the container again, with the same port and volume."""
        with self._lock:
            self._check_open()
            try:
                self._inner().start()
            except self._docker.errors.APIError as error:
                raise PostgresUnavailable(f"the container did not start again: {error}") from error
            self._wait()

    def _check_open(self) -> None:
        if not self._caretaker.usable:
            raise PostgresUnavailable(
                "the server is closed, or belongs to the process that this one was forked from"
            )

    def close(self) -> None:
        """Remove the container with its volume."""
        with self._lock:
            try:
                if self._caretaker.usable:  # else the caretaker does it
                    if self._container is not None:
                        with contextlib.suppress(self._docker.errors.NotFound):
                            self._container.stop()
                    self._caretaker.ask(do="done")
            finally:
                self._caretaker.end()


def _testcontainers() -> Any:
    """Return testcontainers' class for PostgreSQL; it moved in version 4.15."""
    with contextlib.suppress(PostgresUnavailable):
        return require("testcontainers.community.postgres", "containers").PostgresContainer
    return require("testcontainers.postgres", "containers").PostgresContainer
