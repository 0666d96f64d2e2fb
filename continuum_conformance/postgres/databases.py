"""Databases of the kit's own on a server: creating them and dropping them again."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, LiteralString

from continuum_conformance.model import mask

from .optional import require
from .server import PostgresUnavailable

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

CONNECT_SECONDS = 10
"""How long the kit's own connections wait for the server."""


def new_family() -> str:
    """Return a name that the databases of one run begin with, and no one else's do."""
    return f"continuum_{secrets.token_hex(5)}"


def connect(dsn: str, shown: str = "") -> Connection[TupleRow]:
    """Open a connection in autocommit mode. Raises `PostgresUnavailable` that names `shown`, or else the DSN."""
    require("psycopg", "postgres")
    import psycopg

    try:
        return psycopg.connect(
            dsn, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="continuum"
        )
    except psycopg.Error as error:
        raise PostgresUnavailable(
            f"no connection to {mask(shown or dsn)}: {mask(str(error)).strip()}"
        ) from None


class Databases:
    """The databases that the kit created on one server; `maintenance` is a DSN of another database there."""

    def __init__(self, maintenance: str, family: str) -> None:
        self._maintenance = maintenance
        self.family = family
        self._lock = threading.Lock()
        self._count = 0

    def create(self) -> str:
        """Create an empty database and return its name.

        It is UTF8, from template0, with the server's own collation where that allows UTF8, else with C.
        Raises `PostgresUnavailable`; its cause is psycopg's error when the server refused.
        """
        with self._lock:
            self._count += 1
            name = self.family if self._count == 1 else f"{self.family}_{self._count}"
        with connect(self._maintenance) as connection:
            from psycopg import Error, errors, sql

            def create(ending: LiteralString) -> None:
                statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'" + ending)
                connection.execute(statement.format(sql.Identifier(name)))

            try:
                try:
                    create("")
                except errors.InvalidParameterValue:  # the server's locale has another encoding
                    create(" LOCALE 'C'")
            except Error as error:
                raise PostgresUnavailable(
                    f"cannot create a database on {mask(self._maintenance)}: {str(error).strip()}"
                ) from error
        return name

    def adopt(self, database: str) -> None:
        """Make a database the first of this family: on a new server of ours, initdb has made an empty one.

        Renaming costs a tenth of creating, or less where the disk is slow. Raises `PostgresUnavailable`.
        """
        with self._lock, connect(self._maintenance) as connection:
            from psycopg import Error, sql

            rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
            try:
                connection.execute(rename.format(sql.Identifier(database), sql.Identifier(self.family)))
            except Error as error:
                raise PostgresUnavailable(
                    f"cannot rename the database {database}: {str(error).strip()}"
                ) from error
            self._count = 1

    def drop_all(self) -> None:
        """Drop every database of this family, with the sessions that still use it. Raises `PostgresUnavailable`."""
        with connect(self._maintenance) as connection:
            from psycopg import Error, sql

            query = "SELECT datname FROM pg_database WHERE starts_with(datname::text, %s)"
            try:
                for (name,) in connection.execute(query, (self.family,)).fetchall():
                    connection.execute(
                        sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
                    )
            except Error as error:
                raise PostgresUnavailable(
                    f"cannot drop the databases {self.family}* on {mask(self._maintenance)}: {str(error).strip()}"
                ) from error
