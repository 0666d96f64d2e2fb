"""A race as data and as a drawing: who called what, what each did and waited for, and what the page makes of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the adapters are named as `tests.racing...`

from continuum_conformance.explore.schedule import walk
from continuum_conformance.harness import Subject
from continuum_conformance.history.interleaving import Call, Interleaving, Move, Pause
from continuum_conformance.postgres import provide
from continuum_conformance.report.lanes import lanes, rows
from continuum_conformance.suite.faults.running import Fault, run_cut, wired
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.races.exploring import explore
from continuum_conformance.suite.races.levels import Budget, level_of
from continuum_conformance.suite.races.picture import picture_of
from continuum_conformance.suite.races.running import run_race
from continuum_conformance.suite.races.scenarios import CLASSICS, SITUATIONS, Act, Scenario
from continuum_conformance.suite.script import script
from continuum_conformance.suite.violation import Violation

TAKEOVER = Interleaving(
    "statements",
    ("A", "B"),
    "starting from a running run",
    (
        Call("A", "append()", "None", 1, 20, "deciding"),
        Call("B", "acquire()", "Lease(token=3)", 5, 9, "needed", change="token 3: B holds the lease"),
        Call("B", "load()", "[]", 10, 12, "needed", reads=True),
        Call("B", "get_run()", "Run()", 21, 22, after=True),
    ),
    (
        Move(
            "A",
            "SELECT … FROM run",
            2,
            3,
            "SELECT token FROM run WHERE id = $1",
            ("'run1'",),
            "1 row: (token=2)",
        ),
        Move("B", "UPDATE run", 6, 8, answer="UPDATE 1"),
        Move("A", "INSERT INTO event", 13, 19, answer="INSERT 0 1", pauses=(Pause(14, 19, "waits for B"),)),
        Move("B", "COMMIT", 15, 16),
    ),
)


def drawn(interleaving: Interleaving) -> list[tuple[str, str, dict[str, str]]]:
    return [(row.worker, row.kind, dict(row.states)) for row in rows(interleaving)]


def test_each_moment_tells_what_all_the_bars_look_like() -> None:
    assert drawn(TAKEOVER) == [
        ("A", "begins", {"A": "held", "B": "idle"}),
        ("A", "moves", {"A": "held", "B": "idle"}),
        ("B", "begins", {"A": "held", "B": "held"}),
        ("B", "moves", {"A": "held", "B": "held"}),
        ("B", "ends", {"A": "held", "B": "held"}),
        ("B", "change", {"A": "held", "B": "idle"}),
        ("B", "begins", {"A": "held", "B": "held"}),
        ("B", "ends", {"A": "held", "B": "held"}),
        ("A", "moves", {"A": "held", "B": "idle"}),
        ("A", "pauses", {"A": "waits", "B": "idle"}),
        ("B", "moves", {"A": "waits", "B": "held"}),
        ("A", "goes on", {"A": "held", "B": "held"}),
        ("A", "ends", {"A": "held", "B": "held"}),
    ]


def test_who_was_let_go_and_does_not_move_yet_waits_no_longer() -> None:
    calls = (Call("A", "append()", "None", 1, 9), Call("B", "load()", "[]", 4, 7))
    moves = (
        Move("A", "INSERT", 2, 8, pauses=(Pause(3, 5, "waits for B"),)),
        Move("B", "COMMIT", 5),
        Move("B", "SELECT", 6),
    )
    told = [
        (kind, states["A"])
        for _, kind, states in drawn(Interleaving("statements", ("A", "B"), "", calls, moves))
    ]
    assert told == [
        ("begins", "held"),
        ("moves", "held"),
        ("pauses", "waits"),
        ("begins", "waits"),
        ("moves", "waits"),
        ("moves", "held"),
        ("ends", "held"),
        ("goes on", "held"),
        ("ends", "held"),
    ]


def test_what_came_afterwards_is_drawn_up_to_the_read_that_decides() -> None:
    load, run = TAKEOVER.calls[2], TAKEOVER.calls[3]
    calls = (
        load,
        Call("A", "load()", "[]", 21, 22, "deciding", reads=True, after=True),
        Call(*("B", "get_run()", "", 23, 24), after=True),
    )
    told = [(worker, kind) for worker, kind, _ in drawn(Interleaving("lines", ("A", "B"), "", calls))]
    assert told == [("B", "begins"), ("B", "ends"), ("A", "after"), ("A", "begins"), ("A", "ends")]
    assert run.after
    assert ("B", "after") not in [(worker, kind) for worker, kind, _ in drawn(TAKEOVER)]


def test_a_call_that_never_came_back_says_so_at_the_end() -> None:
    calls = (Call("A", "append()", "", 1, None, "stuck"), Call("B", "load()", "[]", 2, 3))
    text = lanes(Interleaving("lines", ("A", "B"), "", calls), "r")
    assert drawn(Interleaving("lines", ("A", "B"), "", calls))[-1][:2] == ("A", "never")
    assert text.count("never came back") == 1


def test_steps_that_nobody_interrupts_are_folded_except_at_their_ends() -> None:
    moves = [Move("A", f"line {number}", number) for number in range(2, 8)]
    moves += [Move("B", f"line {number}", number) for number in range(9, 14)]
    moves += [Move("A", f"line {number}", number) for number in range(15, 19)]
    calls = (Call("A", "append()", "None", 1, 19), Call("B", "load()", "[]", 8, 14))
    found = list(rows(Interleaving("instructions", ("A", "B"), "", calls, tuple(moves))))
    assert [(row.worker, row.kind, [move.text for move in row.moves]) for row in found if row.moves] == [
        ("A", "folded", [f"line {number}" for number in range(2, 7)]),
        ("A", "moves", ["line 7"]),
        ("B", "folded", [f"line {number}" for number in range(9, 14)]),
        ("A", "moves", ["line 15"]),
        ("A", "folded", [f"line {number}" for number in range(16, 19)]),
    ]


def test_the_drawing_is_a_table_that_needs_no_script() -> None:
    text = lanes(TAKEOVER, "race")
    heads = re.findall(r'<th scope="col" class="lane\d">(.*?)</th>', text)
    assert heads == ["worker A", "worker B"]
    assert len(re.findall("<tr", text)) == 1 + len(list(rows(TAKEOVER)))
    described = set(re.findall(r'aria-describedby="([^"]+)"', text))
    assert described == set(re.findall(r'role="tooltip" id="([^"]+)"', text))
    assert len(described) == 4
    for part in (
        "SELECT token FROM run WHERE id = $1",
        "1 row: (token=2)",
        "waits for B",
        "token 3: B holds the lease",
        ">deciding<",
        ">contradicts<",
        ">needed<",
    ):
        assert part in text
    assert "style=" not in text


def test_who_does_nothing_in_the_race_has_no_lane() -> None:
    calls = (Call("A", "load()", "[]", 1, 2), Call("B", "load()", "[]", 3, 4, after=True))
    text = lanes(Interleaving("processes", ("A", "B"), "", calls), "r")
    assert re.findall(r"worker \w", text) == ["worker A"]


def test_a_long_race_is_cut_short_and_says_so() -> None:
    calls = tuple(Call("AB"[n % 2], f"load({n})", "[]", 2 * n + 1, 2 * n + 2) for n in range(400))
    text = lanes(Interleaving("lines", ("A", "B"), "", calls), "r")
    assert "500 more steps in the JSON report" in text


# -- from a run --


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("psycopg")
    with provide("auto") as found:
        yield found


def classic(name: str):
    return next(scenario for scenario in CLASSICS if scenario.name == name)


def found_in(target: str, scenario: str, dsn: str | None = None) -> Interleaving:
    session = Session(Subject(target, dsn=dsn, limit=5))
    try:
        found = explore(session, classic(scenario), level_of(session).executor, Budget(60))
        assert found.violation is not None
        assert found.violation.interleaving is not None
        return found.violation.interleaving
    finally:
        session.close_all()


def test_a_race_in_memory_shows_the_line_at_which_it_was_lost() -> None:
    race = found_in("tests.racing.memory:LockFreeAppendHarness", "zombie against takeover")
    assert (race.level, race.workers) == ("instructions", ("A", "B"))
    zombie, takeover = race.calls[0], race.calls[1]
    assert (zombie.text.partition("(")[0], zombie.mark) == ("append", "deciding")
    assert takeover.change == "token 3: worker-B holds the lease"
    assert takeover.ended < zombie.ended
    late = [move.text for move in race.moves if move.worker == "A" and move.at > takeover.ended]
    assert [text.partition(" ")[2].partition("(")[0] for text in late] == ["run.events.append"]
    assert not any(move.text.startswith("before ") for move in race.moves)


def test_a_race_in_postgres_shows_the_statements_and_who_waited_for_whom(server) -> None:
    race = found_in("tests.racing.postgres:NoLockHarness", "zombie against takeover", server.fresh_database())
    assert race.start == (
        "starting from a running run under a lapsed lease of token 2; every worker has its own handle"
    )
    (insert,) = [move for move in race.moves if move.pauses]
    assert (insert.worker, insert.text) == ("B", "INSERT INTO event VALUES …")
    assert insert.detail == "INSERT INTO event VALUES ($1, $2, $3, $4)"
    assert insert.values[:3] == ("'shop'", "'run1'", "1")
    assert insert.answer.partition(": ")[0] == "ERROR 23505"
    assert insert.failed
    commit = next(move for move in race.moves if move.worker == "A" and move.text == "COMMIT")
    (pause,) = insert.pauses
    assert pause.why == "waits for A"
    assert insert.at < pause.began < commit.at == pause.ended < insert.until


def test_a_session_held_within_a_statement_is_shown_where(server) -> None:
    dsn = server.fresh_database()
    race = found_in("tests.racing.more_postgres:GuardedInsertHarness", "append against finish", dsn)
    held = [(move.worker, pause.why) for move in race.moves for pause in move.pauses if not pause.waits]
    assert held[0] in [("A", f"held before insert of {what} of event") for what in ("the statement", "a row")]
    assert all(worker == "A" for worker, _ in held)


def test_a_deadlock_shows_who_was_stuck_and_nothing_of_what_the_kit_did_then() -> None:
    session = Session(Subject("tests.racing.memory:LocksInTwoOrdersHarness", limit=5))
    try:
        scenario = classic("zombie against takeover")
        executor = level_of(session).executor

        def attempt(chooser):
            race = run_race(session, scenario, executor, chooser)
            return race.execution, race if race.execution.deadlock is not None else None

        race = walk(attempt, bound=None, limit=40).found
        assert race is not None
        picture = picture_of(scenario, race, "instructions", "")
    finally:
        session.close_all()
    assert [(call.worker, call.ended, call.mark) for call in picture.calls] == [
        ("A", None, "stuck"),
        ("B", None, "stuck"),
    ]
    assert [pause.why for move in picture.moves for pause in move.pauses] == ["waits for A"]


def test_a_fault_shows_the_message_at_which_the_connection_was_cut(server) -> None:
    subject = Subject("tests.faulty.postgres:TriesAgainBlindlyHarness", dsn=server.fresh_database(), limit=5)
    session = Session(subject)
    try:
        session.handle("A")
        situation = SITUATIONS["expired"]
        scenario = Scenario("acquire, expired", situation, {"F": (Act("acquire"),)})
        with wired(session) as wire:
            found = (run_cut(session, wire, Fault(scenario, "after", number))[0] for number in range(1, 7))
            violation = next(filter(None, found))
    finally:
        session.close_all()
    race = violation.interleaving
    (cut,) = [move for move in race.moves if "cut off" in move.answer]
    assert (cut.worker, cut.text, cut.answer) == ("F", "COMMIT", "done, and cut off before the reply")
    (struck,) = [call for call in race.calls if call.began < cut.at < call.ended]
    assert (struck.mark, struck.outcome) == ("deciding", "LeaseHeld")
    assert {call.worker for call in race.calls if call.after} == {"A", "B"}


def test_the_lines_of_a_story_fit_the_terminal_and_lose_nothing() -> None:
    told = f"starting from a situation {'that takes long to tell, ' * 5}and then:\n\n  A  append('{'x' * 200}') -> None\n"
    shown = script(Violation((), "", story=told), None)
    assert max(map(len, shown.split("\n"))) <= 74
    assert "".join(shown.split()) == "".join(told.split())
    assert "\n      xxx" in shown
