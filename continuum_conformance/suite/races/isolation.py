"""A race in PostgreSQL, written as a spec for PostgreSQL's isolation tester.

The race is run once more, on an empty database, so that everything that it rests on goes through the gate: the
adapter's own DDL when its first handle is opened, the statements that arrange the situation, and those of the race.
Of a statement that was held inside (see `postgres.parking`) the spec says the same in the tester's own means: a
trigger waits for a lock that one more session has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Any
from uuid import UUID

from continuum_conformance import __version__
from continuum_conformance.contract.clauses import CONTRACT_VERSION
from continuum_conformance.contract.records import Instance
from continuum_conformance.explore.schedule import Scripted
from continuum_conformance.harness import HarnessError, Subject
from continuum_conformance.model import Operation
from continuum_conformance.postgres import PostgresUnavailable, sql
from continuum_conformance.postgres.databases import connect
from continuum_conformance.postgres.gate import Gate
from continuum_conformance.postgres.isolation import Spec, joined
from continuum_conformance.postgres.tape import Sent
from continuum_conformance.postgres.values import Literals, Unwritable
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.races.isolation_steps import Script, Write, blocks, holding, settings
from continuum_conformance.suite.races.levels import level_of
from continuum_conformance.suite.races.picture import calls_of, starting_point
from continuum_conformance.suite.races.running import Race, run_race
from continuum_conformance.suite.races.scenarios import Scenario
from continuum_conformance.suite.script import call_text
from continuum_conformance.suite.violation import Violation

__all__ = ["NoSpec", "has_statements", "isolation_spec"]

TRIES = 3
"""How often the race is run, should it not show at once: among several that wait, the server chooses."""

SALT = "000000"
"""Of the names, on a database of their own: the same race gives the same spec."""

READS = 2
"""So many reads behind the race are in the spec; more where a later one decides."""

OBJECTS = """
WITH mine AS (
  SELECT oid, nspname FROM pg_namespace
  WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
    AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_namespace.oid AND deptype = 'e')
), members AS (SELECT objid FROM pg_depend WHERE deptype IN ('e', 'i', 'a'))
SELECT 'TABLE', oid::regclass::text FROM pg_class
  WHERE relnamespace IN (SELECT oid FROM mine) AND relkind IN ('r', 'p') AND oid NOT IN (TABLE members)
UNION ALL SELECT 'SEQUENCE', oid::regclass::text FROM pg_class
  WHERE relnamespace IN (SELECT oid FROM mine) AND relkind = 'S' AND oid NOT IN (TABLE members)
UNION ALL SELECT 'ROUTINE', oid::regprocedure::text FROM pg_proc
  WHERE pronamespace IN (SELECT oid FROM mine) AND oid NOT IN (TABLE members)
UNION ALL SELECT 'TYPE', oid::regtype::text FROM pg_type
  WHERE typnamespace IN (SELECT oid FROM mine) AND typtype IN ('e', 'd') AND oid NOT IN (TABLE members)
UNION ALL SELECT 'SCHEMA', quote_ident(nspname) FROM mine WHERE nspname <> 'public'
"""
"""What a database has that its users made, in the order in which it can be dropped."""


class NoSpec(Exception):
    """A counterexample that cannot be written as a spec; the message says why."""


def has_statements(race: Mapping[str, Any] | None) -> bool:
    """Whether a race, as a replay file keeps it, is one at statements."""
    return race is not None and race.get("level") == "statements" and "fault" not in race


def isolation_spec(session: Session, violation: Violation) -> str:
    """The text of a spec that shows a race again.

    Args:
        session: the adapter on which it was found, and its store.
        violation: the race.

    Raises:
        NoSpec: it cannot be written.
    """
    race = violation.race
    if race is None or not has_statements(race):
        raise NoSpec(
            "a spec is made of SQL, and this counterexample is none of statements that race in PostgreSQL"
        )
    if violation.hang:
        raise NoSpec("its calls never came back, and the isolation tester would wait for them in vain")
    scenario = Scenario.from_data(race)
    schedule = [int(choice) for choice in race.get("schedule", ())]
    try:
        with _elsewhere(session) as (other, fresh):
            text = _Making(other, fresh, scenario, schedule, violation).text()
    except Unwritable as unwritable:
        raise NoSpec(f"a statement cannot be written as SQL: {unwritable}") from None
    except (HarnessError, PostgresUnavailable, Violation) as error:
        raise NoSpec(f"the race could not be run once more: {error}") from None
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def _elsewhere(session: Session) -> Iterator[tuple[Session, bool]]:
    """The adapter on an empty database, and whether it is one: a database of the user's is used as it is."""
    subject, server = session.subject, session.subject.server
    fresh = server is not None and server.scratch
    other = Subject(subject.harness, dsn=subject.dsn, directory=subject.directory, limit=subject.limit)
    other.dsn = server.fresh_database() if fresh else subject.dsn
    other.capabilities, other.server = subject.capabilities, server
    elsewhere = Session(other, salt=SALT if fresh else None)
    elsewhere.single_handle = session.single_handle
    try:
        yield elsewhere, fresh
    finally:
        elsewhere.close_all()


@dataclass(frozen=True)
class _Seen:
    """What went through the gates until the race was over.

    Attributes:
        opening: when the first handle was opened, on an empty database.
        made: what the database had then, as (kind, name) in the order in which it can be dropped.
        race: the race.
        tape: everything from when the handles for it were opened.
        warm: how much of that had gone through when they were open.
        parked: the tables at which sessions are held within their statements.
    """

    opening: Sequence[Sent]
    made: Sequence[tuple[str, str]]
    race: Race
    tape: Sequence[Sent]
    warm: int
    parked: Sequence[str]

    @property
    def first(self) -> int:
        """The place on the tape at which the race begins."""
        return next(place for place, sent in enumerate(self.tape) if sent is self.race.execution.tape[0])

    @property
    def salt(self) -> str:
        """What was made fresh of all names."""
        return self.race.violation.salt if self.race.violation is not None else ""


class _Making:
    """One spec, from the empty database to its text."""

    def __init__(
        self, session: Session, fresh: bool, scenario: Scenario, schedule: Sequence[int], violation: Violation
    ) -> None:
        self.session, self.fresh = session, fresh
        self.scenario, self.schedule, self.violation = scenario, schedule, violation
        self.dsn = str(session.subject.dsn)

    def text(self) -> str:
        """The spec. Raises `NoSpec`, and what running the race raises."""
        opening = self._opening()
        seen = self._seen(opening, self._made())
        with Literals(self.dsn) as literals:
            spec = self._spec(seen, literals.statement)
            return replace(spec, remark=self._remark(spec, of_time=literals.of_time)).text()

    def _opening(self) -> list[Sent]:
        """What the first handle does when it is opened: it makes the adapter's tables."""
        subject = self.session.subject
        with Gate(self.dsn) as gate, gate.taped() as tape:
            subject.dsn_for = gate.dsn_for
            self.session.handle("A")
            self.session.close_handles()
            subject.dsn_for = None
        return tape

    def _made(self) -> list[tuple[str, str]]:
        if not self.fresh:
            return []
        with connect(self.dsn) as connection:
            return [(kind, name) for kind, name in connection.execute(OBJECTS).fetchall()]

    def _seen(self, opening: list[Sent], made: list[tuple[str, str]]) -> _Seen:
        """The race as it shows."""
        level = level_of(self.session)
        if level.name != "statements":
            raise NoSpec(f"the race could not be run at statements once more: {level.reason}")
        executor = level.executor
        parked = executor.parking.tables if executor.parking is not None else ()
        for _ in range(TRIES):
            self.session.close_handles()
            with executor.gate.taped() as tape:
                self._warm()
                warm = len(tape)
                race = run_race(self.session, self.scenario, executor, Scripted(self.schedule))
            if race.violation is not None and not race.violation.hang and race.execution.tape:
                return _Seen(opening, made, race, tape, warm, parked)
        raise NoSpec("the race did not show again on an empty database")

    def _warm(self) -> None:
        """Open the handles, and let them do what they do at their first use."""
        asked = {"instance": Instance("gate"), "run_id": str(UUID(int=1))}
        for worker in sorted({"A", "B", *self.scenario.workers}):
            self.session.handle(worker).call(Operation("get_run", asked))

    def _spec(self, seen: _Seen, write: Write) -> Spec:
        script = Script(
            self._told(seen), calls_of(seen.race.recording, seen.salt, after=seen.race.probes_from), write
        )
        for number, session in script.sessions.items():
            session.setup += settings(seen.tape, number, write, seen.first)
            if script.deadlock:
                limit = "10ms" if number in script.deadlock else "100s"
                session.setup.append(f"SET deadlock_timeout = '{limit}'")
        sessions = sorted(script.sessions.values(), key=lambda session: session.name)
        made = [*seen.made]
        holder: list[tuple[str, str]] = []
        if script.holder is not None:
            sessions.append(script.holder)
            remark = "holds a session within a statement, at the place where the kit had held it"
            holder.append((remark, holding(seen.parked)))
            made.append(("FUNCTION", "continuum_hold"))
        teardown = "\n".join(f"DROP {kind} IF EXISTS {name} CASCADE;" for kind, name in made)
        return Spec(
            setup=list(self._setup(seen, holder, write)),
            teardown=teardown if self.fresh else "",
            sessions=sessions,
            order=script.order,
        )

    def _setup(
        self, seen: _Seen, holder: Sequence[tuple[str, str]], write: Write
    ) -> Iterator[tuple[str, str]]:
        """What makes the adapter's tables, after a look whether there are others of their names; the situation."""
        tables = [name for kind, name in seen.made if kind == "TABLE"]
        if tables:
            yield "", _guard(tables)
        opened, arranged = seen.tape[: seen.warm], seen.tape[seen.warm : seen.first]
        definitions = [block for _, block in blocks(seen.opening, write)]
        # What a further handle does when it is opened is mostly the same once more.
        more = [(number, block) for number, block in blocks(opened, write) if block not in definitions]
        if not any(map(_makes_tables, definitions)):
            what = "The adapter's tables were made elsewhere than through the kit's gate; their definitions belong here."
            yield what, f"-- {', '.join(tables) or 'its tables'}"
        remark = "what the adapter does when it is opened"
        yield from _as_set_up(remark, blocks(seen.opening, write), seen.opening, write)
        yield from holder
        yield from _as_set_up("", more, seen.tape, write)
        yield from _as_set_up(self._situation(seen), blocks(arranged, write), seen.tape, write)

    def _situation(self, seen: _Seen) -> str:
        steps = seen.race.violation.steps if seen.race.violation is not None else ()
        arranged = [f"  {call_text(step, seen.salt)}" for step in steps if step.setup]
        return "\n".join([f"{starting_point(self.scenario, seen.race.token)}:", *arranged])

    def _told(self, seen: _Seen) -> list[Sent]:
        """The race, and of what was read behind it as much as shows what is wrong."""
        race = seen.race
        probes = [entry for entry in race.recording.entries if entry.invoked >= race.probes_from > 0]
        wanted = [entry for place, entry in enumerate(probes) if place < READS or entry is race.deciding]
        until = (wanted[-1].returned or 0) if wanted else 0
        during = {id(sent) for sent in race.execution.tape}
        return [sent for sent in seen.tape[seen.first :] if id(sent) in during or sent.at < until]

    def _remark(self, spec: Spec, *, of_time: bool) -> str:
        violation, subject = self.violation, self.session.subject
        message = violation.message.replace(f"-{violation.salt}", "") if violation.salt else violation.message
        lines = [
            *wrap(f"{', '.join(violation.clauses)}: {message}", 76),
            "",
            f"Written by continuum-conformance {__version__} (contract {CONTRACT_VERSION}) for {subject.name}.",
            "A spec for PostgreSQL's isolation tester. On an empty database:",
            "  isolationtester 'dbname=scratch' < this file",
        ]
        if any("*" in launch.after for launch in spec.order):
            lines.append("as a superuser, for it sets deadlock_timeout.")
        if of_time:
            lines += ["", "Some values are times at which the race was run: they are in the past now."]
        return "\n".join(lines)


def _as_set_up(
    remark: str, setup: Iterable[tuple[int, str]], tape: Sequence[Sent], write: Write
) -> Iterator[tuple[str, str]]:
    """Blocks of set-up, each under the settings of the connection that it came from."""
    current: list[str] = []
    for number, block in setup:
        asked = list(settings(tape, number, write))
        if asked != current:
            yield remark, joined(["RESET ALL", *asked])
            current, remark = asked, ""
        yield remark, block
        remark = ""
    if current:
        yield "", "RESET ALL;"


def _makes_tables(block: str) -> bool:
    return any("table" in words and "create" in words for words in sql.statement_words(block))


def _guard(tables: Sequence[str]) -> str:
    listed = ", ".join(sql.literal(table) for table in tables)
    return (
        "-- The teardown drops tables of these names, so there must be none that are somebody's.\n"
        "DO $guard$ BEGIN\n"
        f"    IF EXISTS (SELECT FROM unnest(ARRAY[{listed}]) AS t WHERE to_regclass(t) IS NOT NULL) THEN\n"
        "      RAISE 'this spec makes tables of its own: run it on an empty database';\n"
        "    END IF;\n"
        "  END $guard$;"
    )
