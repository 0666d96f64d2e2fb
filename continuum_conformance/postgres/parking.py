"""Parking a session inside one of its statements, by triggers on the adapter's tables.

    parking = Parking(dsn, tables)      # puts the triggers there
    parking.close()                     # and takes them away

A single statement in autocommit can race, and no schedule of statements shows it: a guarded ``INSERT … SELECT``
reads with its snapshot and inserts a moment later. So each table gets triggers before INSERT, UPDATE and DELETE,
for the statement and for each row. The statement's trigger parks with the snapshot taken and nothing locked; a
row's trigger parks an UPDATE with its row locked.

**Two doors.** A trigger waits for an advisory lock, its key a constant of ours and the server process. With one
lock there is a race: it is released to let the session go and must be taken again before the session comes to its
next trigger. With two, exactly one is locked at any time:

    the session                                    the kit, to let it go on from door d
    tries both doors; both open: goes on           locks the other door (it is open: nobody else uses it)
    says through a notice where it is parked       unlocks d
    waits for the locked door d, and opens it
    comes to its next trigger: the other door is locked

Sessions that the kit has not armed find both doors open. All sessions that it arms came through its gate.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from types import TracebackType
from typing import Any, Self

from .databases import connect
from .gate import PARKED
from .server import PostgresUnavailable

__all__ = ["Parking"]

DOORS = (0x436F6E74, 0x436F6E75)
"""The first halves of the advisory locks' keys; the second is the server process."""

NAME = "continuum_park"
"""The triggers' and their function's name. Triggers fire in the order of their names, among others' of a table."""

_FUNCTION = f"""
CREATE OR REPLACE FUNCTION {{function}}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $park$
DECLARE
  me integer := pg_backend_pid();
  door integer;
BEGIN
  IF NOT pg_try_advisory_lock({DOORS[0]}, me) THEN
    door := {DOORS[0]};
  ELSE
    PERFORM pg_advisory_unlock({DOORS[0]}, me);
    IF NOT pg_try_advisory_lock({DOORS[1]}, me) THEN
      door := {DOORS[1]};
    ELSE
      PERFORM pg_advisory_unlock({DOORS[1]}, me);
    END IF;
  END IF;
  IF door IS NOT NULL THEN
    RAISE INFO '{PARKED}%: before % of %', TG_TABLE_NAME, lower(TG_OP),
      CASE TG_LEVEL WHEN 'ROW' THEN 'a row' ELSE 'the statement' END;
    PERFORM pg_advisory_lock(door, me);
    PERFORM pg_advisory_unlock(door, me);
  END IF;
  IF TG_LEVEL = 'STATEMENT' THEN
    RETURN NULL;
  END IF;
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$park$
"""

LOCK_SECONDS = 5
"""How long putting a trigger waits for its table."""


class Parking:
    """Triggers on tables, and a connection whose locks decide who goes on.

    Not for use by several threads at once. A context manager; leaving it takes the triggers away.

    Args:
        dsn: the database of the tables, directly, not through the gate; its user owns the tables.
        tables: their names, as SQL writes them (``"journal.events"``); those that do not exist are left out.

    Raises:
        PostgresUnavailable: the triggers cannot be put there.
    """

    def __init__(self, dsn: str, tables: Collection[str]) -> None:
        import psycopg

        self._connection = connect(dsn)
        self._doors: dict[int, int] = {}
        self._placed: list[tuple[str, str]] = []
        try:
            self._connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{LOCK_SECONDS}s",))
            for table in tables:
                self._place(table)
        except psycopg.Error as error:
            self.close()
            raise PostgresUnavailable(
                f"the triggers that park sessions cannot be put on {table}: {str(error).strip()}"
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The server process of the connection that holds the doors: what a parked session waits for."""
        return self._connection.info.backend_pid

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that have triggers, with their schemas, quoted."""
        return tuple(table for table, _ in self._placed)

    def _place(self, table: str) -> None:
        found = self._connection.execute(
            "SELECT c.oid::regclass::text, quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n"
            " ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s) AND c.relkind IN ('r', 'p')",
            (table,),
        ).fetchone()
        if found is None:
            return
        name, schema = found
        function = f"{schema}.{NAME}"
        self._placed.append((name, function))
        statements = [_FUNCTION.format(function=function)]
        for level in ("STATEMENT", "ROW"):
            trigger = f"{NAME}_{level.lower()}"
            when = f"BEFORE INSERT OR UPDATE OR DELETE ON {name} FOR EACH {level}"
            statements += [
                f"DROP TRIGGER IF EXISTS {trigger} ON {name}",
                f"CREATE TRIGGER {trigger} {when} EXECUTE FUNCTION {function}()",
            ]
        self._in_one(statements)

    def _in_one(self, statements: Iterable[str]) -> None:
        with self._connection.transaction():
            for statement in statements:
                self._ask(statement)

    def _ask(self, query: str, *values: Any) -> None:
        self._connection.execute(query.encode(), values or None)

    def arm(self, pid: int) -> None:
        """From now on, park this server process at every trigger."""
        if pid not in self._doors:
            self._ask("SELECT pg_advisory_lock(%s, %s)", DOORS[0], pid)
            self._doors[pid] = 0

    def release(self, pid: int) -> None:
        """Let a parked session go on to its next trigger, or to its end."""
        door = self._doors[pid]
        self._doors[pid] = 1 - door
        self._ask(
            "SELECT pg_advisory_lock(%s, %s), pg_advisory_unlock(%s, %s)",
            DOORS[1 - door],
            pid,
            DOORS[door],
            pid,
        )

    def disarm(self) -> None:
        """Park nobody any more; who is parked goes on."""
        if self._doors:
            self._doors.clear()
            self._ask("SELECT pg_advisory_unlock_all()")

    def close(self) -> None:
        """Let everybody go on, and take the triggers away. Closing twice does nothing."""
        import psycopg

        if self._connection.closed:
            return
        with contextlib.suppress(psycopg.Error):
            self.disarm()
            for name, _ in self._placed:
                self._in_one(
                    f"DROP TRIGGER IF EXISTS {NAME}_{level} ON {name}" for level in ("statement", "row")
                )
            for function in {function for _, function in self._placed}:
                self._ask(f"DROP FUNCTION IF EXISTS {function}()")
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
