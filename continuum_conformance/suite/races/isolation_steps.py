"""From what went through the gate to the parts of a spec: blocks of set-up, sessions with their steps, the order.

A step is what one group did. What only begins a transaction or sets it up is joined to the step behind it, unless
another session did something in between; what ends one is a step of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from continuum_conformance.history.interleaving import Call
from continuum_conformance.postgres import sql
from continuum_conformance.postgres.isolation import Launch, Session, Step, joined
from continuum_conformance.postgres.tape import Park, Sent
from continuum_conformance.postgres.values import Unwritable
from continuum_conformance.postgres.wire import Statement, shortened

__all__ = ["HOLDER", "Script", "Write", "blocks", "holding", "settings"]

Write = Callable[[Statement], str]
"""Writes a statement with its values."""

HOLDER = "holder"
"""The session that holds others within their statements."""

_ENDS = frozenset({"rollback", "abort", "commit", "end", "release"})
_UNDOES = frozenset({"rollback", "abort"})
_NO_SETTINGS = frozenset({"user", "database", "application_name", "client_encoding", "replication"})
_DEADLOCK = "40P01"

_PURE = frozenset(
    """
    count max min sum array_agg string_agg jsonb_agg json_agg row_number over filter
    coalesce greatest least nullif exists cast row array length lower upper extract
    now clock_timestamp statement_timestamp transaction_timestamp make_interval interval
    version getdatabaseencoding current_setting current_schema pg_backend_pid
    to_regclass pg_table_is_visible format_type quote_ident
    hashtext hashtextextended pg_advisory_xact_lock
    in and or not as any all some on where from join values select by
    using when then else is like between having union
    """.split()  # noqa: SIM905
)
"""Words before a parenthesis that change nothing outside of the statement."""


def _words(sent: Sent) -> list[list[str]]:
    return [words for s in sent.group.statements for words in sql.statement_words(s.sql) if words]


def _only_reads(text: str) -> bool:
    """Whether a statement certainly changes nothing; a SELECT of a function may change anything."""
    pieces = [token for token in sql.tokens(text) if token.kind not in ("space", "comment")]
    if not pieces or pieces[0].text.lower() != "select" or any(t.text.lower() == "into" for t in pieces):
        return False
    called = (
        word.text.lower()
        for word, following in pairwise(pieces)
        if following.text == "(" and word.kind in ("word", "quoted")
    )
    return all(word in _PURE for word in called)


# -- set-up --


def blocks(tape: Iterable[Sent], write: Write) -> Iterator[tuple[int, str]]:
    """What changed something, as blocks that are a transaction each, with its connection. Raises `Unwritable`."""
    under_way: dict[int, list[str]] = {}
    failed: set[int] = set()
    for sent in tape:
        number = sent.session.number
        statements = under_way.setdefault(number, [])
        firsts = {words[0] for words in _words(sent)}
        if sent.error is not None or firsts & _UNDOES:
            failed.add(number)
        for statement in sent.group.told if sent.executes else ():
            first = next(iter(sql.statement_words(statement.sql)), [""])[:1]
            if first not in (["commit"], ["end"]) and not _only_reads(statement.sql):
                statements.append(write(statement))
        if sent.status == "I":
            if statements and number not in failed:
                yield number, joined(statements)
            under_way[number] = []
            failed.discard(number)


def settings(tape: Sequence[Sent], number: int, write: Write, first: int | None = None) -> Iterator[str]:
    """What a connection was set up with: what its client asked for when it connected, and its SETs since then.

    Args:
        tape: what went through the gate.
        number: the connection's.
        write: writes a statement.
        first: the place from which on a SET is no setting-up any more; none without.

    Raises:
        Unwritable: a statement cannot be written.
    """
    mine = [(place, sent) for place, sent in enumerate(tape) if sent.session.number == number]
    for name, value in _asked_for(mine[0][1].session.settings) if mine else ():
        yield f"SELECT set_config({sql.literal(name)}, {sql.literal(value)}, false)"
    under_way: list[str] = []
    failed = False
    for place, sent in mine:
        if first is not None and place >= first:
            return
        failed = failed or sent.error is not None or bool({words[0] for words in _words(sent)} & _UNDOES)
        under_way += [
            write(s) for s in sent.group.statements if _sets(next(iter(sql.statement_words(s.sql)), []))
        ]
        if sent.status == "I":
            if not failed:
                yield from under_way
            under_way, failed = [], False


def _sets(words: Sequence[str]) -> bool:
    """Whether a statement sets up its session, beyond its transaction."""
    if "set_config" in words:
        return words[0] == "select" and "true" not in words
    return words[:1] == ["prepare"] or (
        words[:1] == ["set"] and words[1:2] not in (["transaction"], ["local"], ["constraints"])
    )


def _asked_for(startup: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in startup.items():
        if name == "options":
            words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|\S)+", value)]
            for flag in re.findall(r"(?:-c\x00?|--)([\w.-]+)=([^\x00]*)", "\0".join(words)):
                yield flag[0].replace("-", "_"), flag[1]
        elif name not in _NO_SETTINGS and not name.startswith("_pq_"):
            yield name, value


# -- the race --


@dataclass
class _Launched:
    """A step in its place in the order."""

    name: str
    session: int
    at: int
    sent: Sent | None = None


def _is_victim(sent: Sent) -> bool:
    """Whether the server ended it because of a deadlock."""
    return sent.error is not None and sent.error.sqlstate == _DEADLOCK


@dataclass
class Script:
    """The sessions of a race and the order of their steps.

    Args:
        tape: what the race sent, and the reads behind it, in order.
        calls: of which operations that was part.
        write: writes a statement.

    Raises:
        Unwritable: a statement cannot be written.
    """

    tape: Sequence[Sent]
    calls: Sequence[Call]
    write: Write
    sessions: dict[int, Session] = field(default_factory=dict)
    """By the number of the connection."""
    holder: Session | None = None
    """The session that holds others within their statements, where that is needed."""

    def __post_init__(self) -> None:
        self._launched: list[_Launched] = []
        self._joined: dict[int, list[str]] = {}
        self._told: set[int] = set()
        self._keys: dict[int, int] = {}
        self.tape = [sent for sent in self.tape if sent.matters]
        for _, sent, park in sorted(self._moments(), key=lambda moment: moment[0]):
            if park is None:
                self._send(sent)
            else:
                self._let_go(sent, park)
        for number in list(self._joined):
            self._flush(number)
        for number, session in self.sessions.items():
            last = [sent for sent in self.tape if sent.session.number == number][-1]
            session.teardown = "" if last.status in ("I", "") else "ROLLBACK;"

    @property
    def deadlock(self) -> set[int]:
        """The connections whose statement the server ended because of a deadlock."""
        return {sent.session.number for sent in self.tape if _is_victim(sent)}

    @property
    def order(self) -> list[Launch]:
        """The permutation, with what each step that waits waits for."""
        return [Launch(launched.name, self._after(launched)) for launched in self._launched]

    def _after(self, launched: _Launched) -> tuple[str, ...]:
        sent = launched.sent
        if sent is None or sent.answered is None:
            return ()
        if _is_victim(sent):
            return ("*",)
        if sent.waited is None and not any(map(self._holds(sent), sent.parks)):
            return ()
        before = [
            other
            for other in self._launched
            if launched.at < other.at < sent.answered and other.session != launched.session
        ]
        # The victim of a deadlock lets go at once, whatever it sends before that shows.
        victims = [other for other in before if other.sent is not None and _is_victim(other.sent)]
        return tuple(other.name for other in (victims or before)[-1:])

    def _moments(self) -> Iterator[tuple[tuple[int, int], Sent, Park | None]]:
        for sent in self.tape:
            yield (sent.at, 1), sent, None
            for park in filter(self._holds(sent), sent.parks):
                if park.until is not None:
                    yield (park.until, 0), sent, park

    def _holds(self, sent: Sent) -> Callable[[Park], bool]:
        """Whether being parked there mattered: another connection did something meanwhile."""
        return lambda park: any(
            other.session is not sent.session
            and park.at < other.at
            and (park.until is None or other.at < park.until)
            for other in self.tape
        )

    def _send(self, sent: Sent) -> None:
        number = sent.session.number
        for other in list(self._joined):
            if other != number:
                self._flush(other)
        if any(words[0] == "copy" for words in _words(sent)):
            raise Unwritable("COPY is more than a statement")
        statements = [self.write(statement) for statement in sent.group.statements]
        if not sent.executes and not {words[0] for words in _words(sent)} & _ENDS:
            self._joined.setdefault(number, []).extend(statements)
            self._session(sent)
            return
        held = [place for place, park in enumerate(sent.parks, 1) if self._holds(sent)(park)]
        if held:
            self._hold(sent, held)
        if not sent.executes:
            self._flush(number)
        self._launch(number, [*self._joined.pop(number, []), *statements], sent)

    def _flush(self, number: int) -> None:
        statements = self._joined.pop(number, [])
        if statements:
            self._launch(number, statements, None)

    def _session(self, sent: Sent) -> Session:
        number = sent.session.number
        if number not in self.sessions:
            taken = {session.name for session in self.sessions.values()}
            name, times = sent.worker, 1
            while name in taken:
                times += 1
                name = f"{sent.worker}_{times}_"
            self.sessions[number] = Session(name)
        return self.sessions[number]

    def _launch(self, number: int, statements: Sequence[str], sent: Sent | None) -> None:
        session = self._session(sent) if sent is not None else self.sessions[number]
        at = sent.at if sent is not None else (self._launched[-1].at if self._launched else 0)
        step = Step(f"{session.name}{len(session.steps) + 1}", joined(statements), self._remark(sent))
        session.steps.append(step)
        self._launched.append(_Launched(step.name, number, at, sent))

    def _remark(self, sent: Sent | None) -> str:
        """The call that begins with this step."""
        for place, call in enumerate(self.calls):
            if sent is None or place in self._told or call.worker != sent.worker:
                continue
            if call.began < sent.at and (call.ended is None or sent.at < call.ended):
                self._told.add(place)
                came = call.outcome if call.ended is not None else "(never came back)"
                came = came.partition(" DETAIL:")[0]  # which names processes
                return shortened(f"{call.worker}: {call.text} -> {came}", 200)
        return ""

    # -- held within a statement --

    def _hold(self, sent: Sent, places: Sequence[int]) -> None:
        key = self._keys.setdefault(id(sent), len(self._keys) + 1)
        if self.holder is None:
            self.holder = Session(HOLDER)
        for place in places:
            self._by_holder(f"hold_{key}_{place}", f"SELECT pg_advisory_lock({key}, {place});", sent.at)
        number = sent.session.number
        listed = ",".join(map(str, places))
        told = (
            f"SET continuum.statement = {key}; SET continuum.hold_at = '{listed}'; SET continuum.firing = 0"
        )
        self._joined.setdefault(number, []).extend(told.split("; "))
        self._session(sent)
        self._flush(number)

    def _let_go(self, sent: Sent, park: Park) -> None:
        key, place = self._keys[id(sent)], sent.parks.index(park) + 1
        for number in list(self._joined):
            self._flush(number)
        self._by_holder(f"go_{key}_{place}", f"SELECT pg_advisory_unlock({key}, {place});", park.until or 0)

    def _by_holder(self, name: str, text: str, at: int) -> None:
        if self.holder is not None:
            self.holder.steps.append(Step(name, text))
            self._launched.append(_Launched(name, -1, at))


_FUNCTION = """\
CREATE FUNCTION continuum_hold() RETURNS trigger LANGUAGE plpgsql AS $hold$
  DECLARE
    number integer := current_setting('continuum.statement', true);
    place integer := coalesce(nullif(current_setting('continuum.firing', true), ''), '0')::integer + 1;
  BEGIN
    IF number IS NOT NULL THEN
      PERFORM set_config('continuum.firing', place::text, false);
      IF place::text = ANY (string_to_array(current_setting('continuum.hold_at'), ',')) THEN
        PERFORM pg_advisory_lock(number, place), pg_advisory_unlock(number, place);
      END IF;
    END IF;
    IF TG_LEVEL = 'STATEMENT' THEN
      RETURN NULL;
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
  END
  $hold$"""


def holding(tables: Iterable[str]) -> str:
    """What holds a session within a statement: triggers on these tables that wait for a lock of the holder's.

    They fire as the kit's own do, so that the places have the same numbers.
    """
    triggers = [
        f"CREATE TRIGGER continuum_park_{level.lower()} BEFORE INSERT OR UPDATE OR DELETE ON {table}\n"
        f"FOR EACH {level} EXECUTE FUNCTION continuum_hold()"
        for table in tables
        for level in ("STATEMENT", "ROW")
    ]
    return joined([_FUNCTION, *triggers])
