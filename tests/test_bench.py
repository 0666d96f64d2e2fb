"""`bench`: what is called how often, what the figures say, and what stands on the screen and in the files.

No test looks at a real time. Where a figure matters, the clock is the work that an adapter did (`paced.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from continuum_conformance.bench import growth, judging, limits, size, turns
from continuum_conformance.bench.figures import Bench, LeftOut, Measured, Pace, percentile
from continuum_conformance.bench.growth import Budget
from continuum_conformance.bench.judging import findings
from continuum_conformance.bench.pace import TURNS, Length
from continuum_conformance.bench.run import Plan, carry_out
from continuum_conformance.bench.statements import CannotSendAgain, Sending, pgbench_script
from continuum_conformance.bench.turns import BenchError
from continuum_conformance.bench.work import ONCE, Desk
from continuum_conformance.cli import main
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.measured import MEASURED
from continuum_conformance.harness import Subject
from continuum_conformance.report.bench_text import figure, rate_text, times
from continuum_conformance.suite.stores import Stores
from tests.paced import WORK

IN_MEMORY = "continuum_adapters.in_memory:InMemoryHarness"
SQLITE = "continuum_adapters.sqlite:SQLiteHarness"
POSTGRES = "continuum_adapters.postgres:PostgresHarness"
FIVE = Length(1.0, count=TURNS)


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with Stores() as stores:
        yield stores


def measured(plan: Plan, stores: Stores, *targets: str) -> Bench:
    bench = Bench({"clients": plan.clients}, {}, [Measured(target, target, "", "sync") for target in targets])
    carry_out(
        bench, [lambda target=target: Subject(target) for target in targets], stores, plan, lambda _: None
    )
    return bench


# -- pace --


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Growth in little: two sizes, few samples, and figures that say something early."""
    monkeypatch.setattr(growth, "HISTORIES", (10, 500))
    monkeypatch.setattr(growth, "STORES", (10, 500))
    monkeypatch.setattr(growth, "SAMPLES", 8)
    monkeypatch.setattr(judging, "ENOUGH", 500)


@pytest.mark.parametrize("target", [IN_MEMORY, "tests.paced:AsyncHarness"])
def test_every_operation_is_called_as_often_as_asked_in_every_way(stores: Stores, target: str) -> None:
    [found] = measured(Plan(("pace",), length=FIVE, clients=3, handles=2), stores, target).measured
    assert {(pace.operation, pace.way): pace.calls for pace in found.paces} == {
        (operation, way): TURNS * clients
        for operation in OPERATIONS
        for way, clients in (("alone", 1), ("apart", 3), ("together", 3))
        if not (way == "together" and operation in ONCE)
    }
    assert found.left_out == []
    assert found.form == ("async" if "Async" in target else "sync")


def test_what_is_not_declared_is_left_out(stores: Stores) -> None:
    [found] = measured(Plan(("pace",), length=FIVE, clients=2), stores, "tests.paced:Plain").measured
    left = ["take_snapshot", "acquire", "renew", "release"]
    assert [left_out.what for left_out in found.left_out] == left
    assert {pace.operation for pace in found.paces} == {*OPERATIONS} - {*left}


def test_a_turn_ends_with_its_time(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "time", WORK)
    subject = Subject("tests.paced:PacedHarness")
    contender = turns.Contender(subject, clients=1, handles=1)
    desk = Desk(subject.capabilities, 0)
    try:
        run_id, _ = "r", contender.ask("start_run", desk.instance, "r", "flow", None)
        appends = growth.Given("append", [desk.append(run_id, None, number) for number in range(100)])
        turn = contender.turn(appends, 1, 100, seconds=50e-6)
        assert (turn.calls, round(turn.seconds * 1e6)) == (5, 55)  # eleven units of work for each
        assert [round(latency * 1e6) for latency in turn.latencies] == [11] * 5
        assert turns.paced(100e-6, turn, 1) == 12  # nine fit, and a third more
    finally:
        contender.close()


def test_an_operation_that_fails_ends_the_measurement_and_is_named(stores: Stores) -> None:
    plan = Plan(("pace",), ("append",), FIVE, clients=2)
    with pytest.raises(BenchError, match="append: a call raised JournalUnavailable: the store is gone"):
        measured(plan, stores, "tests.paced:BreaksDown")


def test_ratios_compare_turns_that_are_neighbours() -> None:
    mine = Pace("append", "alone", 1, 3, 2.0, 0.1, 0.1, (10.0, 30.0, 20.0))
    its = Pace("append", "alone", 1, 3, 2.0, 0.1, 0.1, (10.0, 10.0, 10.0))
    assert mine.ratio(its) == 2.0


def test_percentiles_are_measured_values() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.99), percentile(values, 0.25), percentile([7.0], 0.99)) == (99.0, 25.0, 7.0)


# -- growth --


@pytest.mark.parametrize(
    ("harness", "unmet"),
    [
        ("PacedHarness", set()),
        ("CountsTheHistoryHarness", {"PRF-1"}),
        ("ScansTheRunsHarness", {"PRF-2"}),
        ("LoadsAllHarness", {"PRF-3"}),
    ],
)
def test_what_grows_that_should_not_is_found(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, small: None, harness: str, unmet: set[str]
) -> None:
    monkeypatch.setattr(turns, "time", WORK)
    plan = Plan(("growth",), clients=1, budget=600.0)
    [found] = measured(plan, stores, f"tests.paced:{harness}").measured
    verdicts = {finding.clause: finding.verdict for finding in found.findings}
    assert verdicts == {clause: "unmet" if clause in unmet else "met" for clause in MEASURED}
    assert [cost.calls for cost in found.grown("history", "append")] == [growth.SAMPLES - 1] * 2


def test_small_sizes_judge_nothing(stores: Stores, monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    monkeypatch.setattr(turns, "time", WORK)
    monkeypatch.setattr(judging, "ENOUGH", 501)
    plan = Plan(("growth",), clients=2, budget=600.0)
    [found] = measured(plan, stores, "tests.paced:CountsTheHistoryHarness").measured
    assert {finding.verdict for finding in found.findings} == {"not judged"}
    assert found.findings[0].ratio > 5


def test_without_snapshots_their_clause_is_not_judged() -> None:
    found = Measured("x", "x", "", "sync", snapshots=False)
    assert list(findings(found)) == []


def test_sizes_that_the_budget_does_not_reach_are_named(stores: Stores) -> None:
    [found] = measured(Plan(("growth",), budget=-1.0), stores, IN_MEMORY).measured
    assert {(cost.axis, cost.size) for cost in found.costs} == {("store", 10)}  # ready with the first piece
    assert [left.what for left in found.left_out] == [
        "histories of 10, 100, 1,000, 10,000, 100,000 events",
        "stores of 100, 1,000, 10,000, 100,000 runs",
    ]
    assert all("--budget" in left.why for left in found.left_out)


def test_a_size_is_left_out_when_it_would_not_be_ready_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 3.0])
    monkeypatch.setattr(growth.time, "monotonic", lambda: next(moments))
    left = growth._left_out("stores", (10, 100, 1_000), 100, 12.0, Budget(10.0))
    assert left == LeftOut(
        "stores of 100, 1,000 runs",
        "about 12 s for 100, and 7 s of the budget were left; give more with --budget",
    )


# -- bytes --


@pytest.mark.parametrize(
    ("target", "of"),
    [(SQLITE, "the files in its directory"), (POSTGRES, "the adapter's tables with their indexes")],
)
def test_an_event_takes_bytes(stores: Stores, monkeypatch: pytest.MonkeyPatch, target: str, of: str) -> None:
    monkeypatch.setattr(size, "FIRST", 20)
    monkeypatch.setattr(size, "MORE", 200)
    monkeypatch.setattr(size, "PATIENCE", 600.0)
    [found] = measured(Plan(("bytes",), clients=4), stores, target).measured
    assert found.stored is not None
    assert (found.stored.of, found.stored.events) == (of, 200)
    assert 30 < found.stored.bytes_per_event < 2_000  # its payload alone is some 70


def test_a_store_of_its_own_is_not_weighed(stores: Stores) -> None:
    [found] = measured(Plan(("bytes",)), stores, IN_MEMORY).measured
    assert found.stored is None
    assert [left.what for left in found.left_out] == ["bytes per event"]


# -- limits --


def test_a_loop_and_pgbench_send_the_adapters_own_statement(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TURNS", 2)
    [found] = measured(Plan(("limits",), length=Length(1.0, count=4), clients=2), stores, POSTGRES).measured
    rivals = ["psycopg", "pgbench"] if limits.find_pgbench() else ["psycopg"]
    assert [(limit.beside, limit.clients) for limit in found.limits] == [
        (rival, clients) for clients in (1, 2) for rival in rivals
    ]
    assert {limit.statements for limit in found.limits} == {1}
    assert all(limit.ratio > 0 for limit in found.limits)


def test_without_pgbench_the_loop_is_left(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TURNS", 1)
    monkeypatch.setattr(limits, "find_pgbench", lambda: None)
    [found] = measured(Plan(("limits",), length=Length(1.0, count=4), clients=2), stores, POSTGRES).measured
    assert {limit.beside for limit in found.limits} == {"psycopg"}
    assert [left.what for left in found.left_out] == ["pgbench"]


def test_statements_that_cannot_be_sent_twice_are_no_limit(stores: Stores) -> None:
    target = "tests.unusual.postgres_rows:SerializableHarness"
    plan = Plan(("limits",), length=Length(1.0, count=2), clients=2)
    subject = Subject(target)
    stores.provide(subject)

    class Idle:
        name = "idle"

        def turn(self, count: int, seconds: float) -> turns.Turn:
            return turns.Turn(count, 1.0, ())

    contender = turns.Contender(subject, clients=1, handles=1)
    desk = Desk(subject.capabilities, plan.seed)
    try:
        work = limits.Append(desk, "apart")
        contender.set_up(work, 1)
        with pytest.raises(CannotSendAgain, match="does not append when it is sent again"):
            limits._require_effect(Idle(), contender, work, 1)
    finally:
        contender.close()


def test_a_pgbench_script_gives_each_client_its_own_values() -> None:
    scripts = [
        (
            Sending("BEGIN", ()),
            Sending("INSERT INTO e VALUES ($1::int, $2,\n $3)", (client, b"\x00\xff", None)),
        )
        for client in (7, 8)
    ]
    text, variables = pgbench_script(scripts)
    assert text.splitlines() == [
        "\\if :client_id = 0",
        "BEGIN;",
        "INSERT INTO e VALUES (:v0_1_1::int, :v0_1_2, NULL);",
        "\\elif :client_id = 1",
        "BEGIN;",
        "INSERT INTO e VALUES (:v1_1_1::int, :v1_1_2, NULL);",
        "\\endif",
    ]
    assert variables == {"v0_1_1": "7", "v0_1_2": "\\x00ff", "v1_1_1": "8", "v1_1_2": "\\x00ff"}


@pytest.mark.parametrize("sql", ["SELECT 'a:b'", "SELECT 1; SELECT 2", "\\d"])
def test_what_pgbench_would_misread_is_refused(sql: str) -> None:
    with pytest.raises(CannotSendAgain, match="pgbench"):
        pgbench_script([(Sending(sql, ()),)])


# -- the command --

QUICK = ("--count", "5", "--clients", "2", "--ops", "append,load")


def test_the_command_prints_eighty_columns_and_writes_its_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], small: None
) -> None:
    report = tmp_path / "out"
    line = ["bench", IN_MEMORY, "--against", "tests.paced:AsyncHarness", *QUICK, "--report", str(report)]
    assert main([*line, "--seed", "7", "--json", str(tmp_path / "bench.json")]) == 0
    printed = capfd.readouterr().out
    assert max(len(line) for line in printed.splitlines() if not line.startswith("page: ")) <= 80
    for told in ("seed 7", "in one process", "2 on 2 runs", "PRF-1  ", "compared", "no store"):
        assert told in printed
    data = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert data["settings"]["seed"] == 7
    assert [of["form"] for of in data["measured"]] == ["sync", "async"]
    assert len(data["ratios"]) == len(data["measured"][0]["paces"]) == 6
    assert (report / "bench.json").read_text("utf-8") == (tmp_path / "bench.json").read_text("utf-8")
    _require_drawn(report)


def _require_drawn(report: Path) -> None:
    picture = ElementTree.parse(report / "bench.svg").getroot()
    dots = picture.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(dots) == 2 * (6 + 2 * 2 * 3)  # two adapters: their paces, and two axes of two sizes
    page = (report / "bench.html").read_text("utf-8")
    assert page.count("<circle") == len(dots)
    assert not re.search(r"(?:src|href)=|https?://(?!www\.w3\.org)|<script", page)


def test_json_goes_to_standard_output_alone(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", IN_MEMORY, "--parts", "pace", *QUICK, "--json", "-"]) == 0
    told = capfd.readouterr()
    assert json.loads(told.out)["format"] == "continuum-conformance bench 1"
    assert "1 client" in told.err


def test_an_adapter_that_breaks_down_ends_the_run_with_what_was_measured(
    capfd: pytest.CaptureFixture[str],
) -> None:
    line = ["bench", "tests.paced:BreaksDown", "--parts", "pace", "--count", "5", "--clients", "2"]
    assert main([*line, "--ops", "start_run,append"]) == 3
    told = capfd.readouterr()
    assert re.search(r"^start_run +[\d,]+", told.out, re.MULTILINE)
    assert "append: a call raised JournalUnavailable: the store is gone" in told.err
    assert "continuum-conformance check" in told.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bench", IN_MEMORY, "--clients", "4", "--handles", "5"], "--handles 5"),
        (["bench", IN_MEMORY, "--against", "nothing:AtAll"], "nothing"),
        (["bench", "tests.test_cli:nothing"], "nothing"),
    ],
)
def test_wrong_usage_is_told(capfd: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert main(arguments) == 2
    assert told in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--parts", "pace,colour"], "'colour' is no part; there are pace, growth, bytes, limits"),
        (["--seconds", "0"], "is no number of seconds"),
        (["--seconds", "1", "--count", "2"], "not allowed with"),
        (["--ops", "delete"], "'delete' is no operation"),
    ],
)
def test_wrong_options_are_told(capfd: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", IN_MEMORY, *arguments])
    assert ended.value.code == 2
    assert told in capfd.readouterr().err


def test_a_check_never_judges_what_bench_measures(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", IN_MEMORY, "--only", "PRF-1"])
    assert "is measured by `continuum-conformance bench`" in capfd.readouterr().err
    assert main(["clauses", "PRF-1"]) == 0
    assert MEASURED["PRF-1"].rule in capfd.readouterr().out


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (rate_text(8.31), "8.3"),
        (rate_text(2345.4), "2,345"),
        (rate_text(140_400), "140k"),
        (rate_text(1_340_000), "1.34M"),
        (figure(0.0000412), "0.041"),
        (figure(0.00412), "4.12"),
        (figure(0.0412), "41.2"),
        (figure(1.25), "1,250"),
        (times(1.084), "x 1.08"),
        (times(29_404), "x 29,404"),
    ],
)
def test_figures_are_short(shown: str, text: str) -> None:
    assert shown == text
