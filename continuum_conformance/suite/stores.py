"""What a harness asks the kit for: a PostgreSQL, a directory. Handed out before it opens, removed afterwards."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from continuum_conformance.harness import Subject
from continuum_conformance.postgres import Pair, PostgresServer, programs, provide
from continuum_conformance.postgres.directory import ScratchDirectory

__all__ = ["Stores"]


class Stores:
    """The stores of a run. One PostgreSQL server serves all harnesses, each in a database of its own.

    A context manager: leaving it stops the server and removes the directories. Nothing is started before the
    first harness that needs it.

    Args:
        postgres: which server to take, one of ``postgres.CHOICES``.
        dsn: a server that the user gave.
        use_database: use the database that the DSN names, as it is.
    """

    def __init__(self, postgres: str = "auto", *, dsn: str | None = None, use_database: bool = False) -> None:
        self._choice, self._dsn, self._use_database = postgres, dsn, use_database
        self._server: PostgresServer | None = None
        self._pair: Pair | None = None
        self._kept = ExitStack()

    def provide(self, subject: Subject) -> str | None:
        """Give the subject what it needs, and say in a line what that is; None when it needs nothing.

        Raises `PostgresUnavailable`.
        """
        told = []
        if "postgres" in subject.needs:
            subject.dsn = self._database()
            subject.server = self._server
            told.append(self._server.description if self._server else "")
        if "directory" in subject.needs:
            subject.directory = self._directory()
            told.append(f"directory {subject.directory}")
        return ", ".join(told) or None

    @property
    def server(self) -> PostgresServer | None:
        """The PostgreSQL server, when one was needed so far."""
        return self._server

    def pair(self) -> Pair:
        """Two servers of the kit's own, of which one can be lost; started at the first call.

        Raises `PostgresUnavailable`.
        """
        if self._pair is None:
            self._pair = Pair(programs(self._choice))
            self._kept.callback(self._pair.close)
        return self._pair

    def _database(self) -> str:
        if self._server is None:
            self._server = provide(self._choice, dsn=self._dsn, use_database=self._use_database)
            self._kept.callback(self._server.close)
            return self._server.dsn
        return self._server.dsn if self._use_database else self._server.fresh_database()

    def _directory(self) -> str:
        return self._kept.enter_context(ScratchDirectory())

    def close(self) -> None:
        """Stop the server and remove the directories. Closing twice does nothing. Raises `PostgresUnavailable`."""
        self._server = self._pair = None
        self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
