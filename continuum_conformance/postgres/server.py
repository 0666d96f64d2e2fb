"""What the rest of the kit knows of a PostgreSQL server, wherever it came from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


class PostgresUnavailable(Exception):
    """No server, or not this one: the message says what was wrong and what to do. Passwords are masked."""


@dataclass(eq=False)
class PostgresServer(ABC):
    """A server with a scratch database of the kit's own on it.

    A context manager: leaving it closes the server. All methods may be called from any thread. A process
    forked from the owner may connect to the server, but not kill, start or close it (`close` does nothing
    there), and the server lives no longer than its owner.
    """

    dsn: str = field(repr=False)
    """TCP URI of the scratch database, `postgresql://user:password@host:port/database`, everything explicit.

    libpq, asyncpg and SQLAlchemy all read it. It stays the same over `kill` and `start`. (Only a DSN that the
    user gave with a Unix socket keeps that, as `?host=`.)
    """
    description: str
    """One line for people: which server was taken. Passwords are masked."""
    may_kill: bool
    """Whether `kill` and `start` are allowed: only for servers that the kit started itself."""

    scratch: bool = True
    """Whether its database is the kit's own. With one of the user's, the kit makes no others there."""

    @abstractmethod
    def fresh_database(self) -> str:
        """Create one more empty database (UTF8, from template0) and return its DSN; it is dropped at close.

        Raises `PostgresUnavailable`.
        """

    restarts: int = 0
    """How often whoever killed it has started it again: connections from before are dead."""

    @abstractmethod
    def kill(self) -> None:
        """End the server's processes at once with SIGKILL, like a crash; return when all of them are gone.

        Killing a dead server does nothing. Raises `PostgresUnavailable` when `may_kill` is false.
        """

    @abstractmethod
    def start(self) -> None:
        """Start the killed server again, with the same port and data; return when it accepts connections.

        Starting a running server does nothing. Raises `PostgresUnavailable` when `may_kill` is false or the
        server does not come up.
        """

    @abstractmethod
    def close(self) -> None:
        """Drop the kit's databases, or stop and remove the server. Closing twice does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
