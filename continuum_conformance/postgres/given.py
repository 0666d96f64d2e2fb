"""A server that the user gave by its DSN. It is not ours: only databases that the kit created are dropped."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from continuum_conformance.model import mask

from . import dsn as dsns
from .databases import Databases, connect, new_family
from .lifeline import Lifeline
from .server import PostgresServer, PostgresUnavailable

REPLACED = frozenset(
    {"host", "hostaddr", "port", "user", "password", "passfile", "dbname", "service", "connect_timeout"}
)
"""libpq's keywords that have their own place in a normalised URI, or none."""


class GivenServer(PostgresServer):
    """The server behind a DSN, with a scratch database of the kit's own, or the user's database as it is."""

    def __init__(
        self, dsn: str, use_database: bool = False, settings: Mapping[str, str] | None = None
    ) -> None:
        given = normalise(dsn)
        self._address = given
        self._settings = settings or {}
        self._family = new_family()
        self._databases = Databases(uri_of(given), self._family)
        self._lock = threading.Lock()
        self._caretaker: Lifeline | None = None
        name = given["dbname"]
        if use_database:
            if self._settings:
                raise PostgresUnavailable(
                    "settings are made for databases of the kit's own, not with --use-database"
                )
        else:
            try:
                name = self._create()
            except BaseException:
                self.close()
                raise
        own = f"its database {name} as it is" if use_database else f"scratch database {name}"
        super().__init__(
            dsn=uri_of({**given, "dbname": name}),
            description=f"given DSN {mask(uri_of(given))}, {own}",
            may_kill=False,
            scratch=not use_database,
        )

    def _create(self) -> str:
        """Create a database of the kit's own, with someone to drop it should we not live to do it."""
        with self._lock:
            if self._caretaker is None:
                self._caretaker = Lifeline("caretaker.py", "-P")
                self._caretaker.ask(do="databases", dsn=uri_of(self._address), family=self._family)
            elif not self._caretaker.usable:
                raise PostgresUnavailable(
                    "the server is closed, or belongs to the process that this one was forked from"
                )
        try:
            name = self._databases.create()
            self._apply_settings(name)
            connect(uri_of({**self._address, "dbname": name})).close()
        except PostgresUnavailable as error:
            raise PostgresUnavailable(
                f"{error}\nThe kit works in a database of its own, because yours is not scratch. Give a user that may "
                "create databases (ALTER ROLE … CREATEDB) and connect to them, or let the kit use the database "
                "that the DSN names, as it is, with --use-database."
            ) from error
        return name

    def _apply_settings(self, database: str) -> None:
        if not self._settings:
            return
        with connect(uri_of(self._address)) as connection:
            from psycopg import Error, sql

            for setting, value in self._settings.items():
                try:
                    connection.execute(
                        sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                            sql.Identifier(database), sql.Identifier(setting), sql.Literal(value)
                        )
                    )
                except Error as error:
                    raise PostgresUnavailable(
                        f"the setting {setting} was refused: {str(error).strip()}"
                    ) from error

    def fresh_database(self) -> str:
        """Create one more empty database and return its DSN."""
        return uri_of({**self._address, "dbname": self._create()})

    def kill(self) -> None:
        """Refuse: the server is the user's."""
        raise PostgresUnavailable("the kit kills only servers that it started, and this one was given")

    def start(self) -> None:
        """Refuse: the server is the user's."""
        raise PostgresUnavailable("the kit starts only servers of its own, and this one was given")

    def close(self) -> None:
        """Drop the databases that the kit created. Raises `PostgresUnavailable` if the server refuses.

        When the server is out of reach, the caretaker tries once more.
        """
        with self._lock:
            caretaker, self._caretaker = self._caretaker, None
            if caretaker is None:
                return
            try:
                if caretaker.usable:  # else the caretaker does it
                    self._databases.drop_all()
                    caretaker.ask(do="done")
            finally:
                caretaker.end()


def normalise(dsn: str) -> dict[str, str]:
    """Connect to a DSN in any of libpq's forms and return its address with everything explicit.

    What came from environment, password file, service file or several hosts is resolved to where the
    connection went. Other options that the DSN names are kept. Raises `PostgresUnavailable`.
    """
    given = dsns.read(dsn)
    with connect(_conninfo(given), shown=dsn.strip()) as connection:
        info = connection.info
        return {
            **{key: value for key, value in given.items() if key not in REPLACED},
            "host": info.host or given.get("hostaddr", ""),
            "port": str(info.port),
            "user": info.user,
            "password": info.password,
            "dbname": info.dbname,
        }


def uri_of(address: Mapping[str, str]) -> str:
    """Write a normalised address as a URI."""
    return dsns.uri(
        host=address["host"],
        port=int(address["port"]),
        user=address["user"],
        password=address["password"],
        database=address["dbname"],
        options={key: value for key, value in address.items() if key not in REPLACED},
    )


def _conninfo(given: Mapping[str, str]) -> str:
    from psycopg.conninfo import make_conninfo

    return make_conninfo("", **given)
