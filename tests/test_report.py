"""The reports: the same run on a terminal, as JSON, as JUnit XML and as a page, whatever the adapter said."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continuum_conformance.contract.clauses import CLAUSES
from continuum_conformance.history.interleaving import Call, Interleaving, Move, Pause
from continuum_conformance.report import (
    STANDINGS,
    ClauseResult,
    Finding,
    Report,
    Step,
    Terminal,
    failures,
    from_json,
    read_json,
    to_html,
    to_json,
    to_junit,
    verdict_line,
    write_html,
    write_json,
    write_junit,
)
from continuum_conformance.report.highlight import pieces
from continuum_conformance.report.screen import Screen
from continuum_conformance.report.text import columns, duration, printable, wrap

# -- samples ------------------------------------------------------------------------------------------------

NONE_WALKS_AROUND = '''\
"""FEN-3: a None token walks around the fence of a leased run."""
from continuum_conformance.contract import Instance
from my_package.testing import MyHarness

journal = MyHarness().open()
instance = Instance("continuum-4f2a")

journal.start_run(instance, "order-17", "checkout", {"sku": "A-1", "amount": 3})
lease = journal.acquire(instance, "order-17", "worker-a", ttl=3600)

# Expected LeaseMismatch: the run is leased, and a None must not switch the check off.
journal.append(instance, "order-17", {"type": "paid"}, None)
'''

LATE_WRITE = '''\
"""FEN-5: a write that began before a takeover took effect after it."""
from continuum_conformance.explore import replay
from my_package.testing import MyHarness

with replay(MyHarness(), schedule=[0, 0, 1, 0, 0, 1]) as (a, b):
    a.start_run("order-17", "checkout", None)
    first = a.acquire("order-17", "worker-a", ttl=0)      # may be taken over at once

    a.begin.append("order-17", {"type": "paid"}, first.token)   # reads the token, then is held
    second = b.acquire("order-17", "worker-b", ttl=3600)
    a.finish()                                                  # Expected LeaseMismatch; it returned None

    assert b.load("order-17") == []
'''

PHANTOM_SNAPSHOT = '''\
"""SNP-7: a snapshot past the history was accepted, and hid the event that came later."""
journal.start_run(instance, "order-17", "checkout", None)
journal.take_snapshot(instance, Snapshot("order-17", 4, b"v1", now, {0: "reserved"}))
journal.append(instance, "order-17", {"type": "reserved"}, None)
assert journal.load_with_snapshot(instance, "order-17", None)[1] != []
'''

FEN_3 = Finding(
    clauses=("FEN-3", "APP-9"),
    message="append with a None token was accepted although worker-a held the lease with token 1.",
    counterexample=NONE_WALKS_AROUND,
    steps=(
        Step(1, "A", 'start_run("order-17", "checkout", {"sku": "A-1", "amount": 3})', "None", mark="setup"),
        Step(2, "A", 'acquire("order-17", "worker-a", ttl=3600)', "Lease(token=1)", mark="setup"),
        Step(3, "B", 'append("order-17", {"type": "paid"}, None)', "None", "LeaseMismatch", "deciding"),
    ),
    replay="out/FEN-3.json",
    replay_note="replays exactly",
)
FEN_5 = Finding(
    clauses=("FEN-5", "CON-1"),
    message="A write with token 1 took effect after the takeover that gave token 2 had been acknowledged.",
    counterexample=LATE_WRITE,
    steps=(
        Step(1, "A", 'start_run("order-17", "checkout", None)', "None", mark="setup"),
        Step(2, "A", 'acquire("order-17", "worker-a", ttl=0)', "Lease(token=1)", mark="setup"),
        Step(3, "A", 'append("order-17", {"type": "paid"}, token=1) begins', "held after SELECT lease_token"),
        Step(4, "B", 'acquire("order-17", "worker-b", ttl=3600)', "Lease(token=2)"),
        Step(5, "B", 'load("order-17")', "[]"),
        Step(6, "A", 'append("order-17", {"type": "paid"}, token=1)', "None", "LeaseMismatch", "deciding"),
        Step(7, "B", 'load("order-17")', '[{"type": "paid", "seq": 0}]'),
    ),
    replay="out/FEN-5.json",
    replay_note="replays exactly",
)
SNP_7 = Finding(
    clauses=("SNP-7",),
    message="take_snapshot(through_seq=4) was accepted on a run without events, and hid the event that came later.",
    counterexample=PHANTOM_SNAPSHOT,
    steps=(
        Step(1, "A", 'start_run("order-17", "checkout", None)', "None", mark="setup"),
        Step(
            2,
            "A",
            'take_snapshot(Snapshot("order-17", through_seq=4))',
            "None",
            "SnapshotConflict",
            "deciding",
        ),
        Step(3, "A", 'append("order-17", {"type": "reserved"}, None)', "None"),
        Step(4, "A", 'load_with_snapshot("order-17", None)', "(Snapshot(through_seq=4), [])"),
    ),
    replay="out/SNP-7.json",
    replay_note="seen once, the database chose",
    traceback="Traceback (most recent call last):\n"
    '  File "/home/me/my_package/journal.py", line 212, in take_snapshot\n'
    "    self._cursor.execute(INSERT_SNAPSHOT, row)\n"
    'psycopg.errors.UniqueViolation: duplicate key value violates unique constraint "snapshots_pkey"',
)


def result(clause_id: str, verdict: str = "passed", **changes: object) -> ClauseResult:
    entry = CLAUSES[clause_id]
    return replace(ClauseResult(clause_id, entry.level, entry.chapter, verdict, seconds=0.031), **changes)


def sample(**verdicts: ClauseResult) -> Report:
    """A run over a PostgreSQL journal: every clause passed, but those given (``FEN_3=result(...)``)."""
    given_ = {name.replace("_", "-"): entry for name, entry in verdicts.items()}
    return Report(
        kit_version="0.1.0",
        contract_version="0.1",
        target="my_package.testing:MyHarness",
        adapter="MyJournal, a journal over PostgreSQL",
        capabilities=[
            "crash_safe",
            "durable",
            "leases",
            "opaque_run_ids",
            "rich_terms",
            "shared",
            "snapshots",
        ],
        profile="standard",
        seed=42,
        verdict="nonconforming"
        if any(entry.verdict == "failed" for entry in given_.values())
        else "conforming",
        clauses=[given_.get(clause_id, result(clause_id)) for clause_id in CLAUSES],
        coverage={
            "examples": 4218,
            "operations": 61_903,
            "interleavings": 15_204,
            "machine": {
                "a write with an older token": 1123,
                "a takeover of an expired lease": 844,
                "a duplicate seq": 310,
                "an append to a terminal run": 97,
                "a snapshot older than the latest": 61,
                "a statement that waited for a lock": 0,
            },
        },
        environment={
            "python": "3.13.2 (CPython)",
            "platform": "Linux-6.8.0-x86_64 (2 cores)",
            "store": "embedded PostgreSQL 18.6, 127.0.0.1:54321",
            "command": "continuum-conformance check my_package.testing:MyHarness --seed 42 --report out/",
        },
        started=datetime(2025, 6, 3, 14, 25, 36, tzinfo=UTC),
        seconds=12.34,
    )


def all_pass() -> Report:
    return sample()


def in_memory() -> Report:
    """Conforming with capabilities undeclared and one withdrawn."""
    why = "{} is not declared, and was refused as CAP-1 asks"
    unsupported = {
        clause_id.replace("-", "_"): result(clause_id, "unsupported", message=why.format(entry.capability))
        for clause_id, entry in CLAUSES.items()
        if entry.capability in ("durable", "crash_safe", "snapshots")
    }
    return replace(
        sample(**unsupported),
        target="in_memory",
        adapter="InMemoryJournal",
        capabilities=["leases", "opaque_run_ids", "rich_terms"],
        withdrawn=["crash_safe"],
    )


def three_findings() -> Report:
    report = sample(
        FEN_3=result("FEN-3", "failed", finding=FEN_3),
        APP_9=result(
            "APP-9", "failed", finding=replace(FEN_3, message="A rejected append left an event behind.")
        ),
        FEN_5=result("FEN-5", "failed", finding=FEN_5),
        SNP_7=result("SNP-7", "failed", finding=SNP_7),
        LEA_9=result(
            "LEA-9", "failed", expected="issue 118: the expiry is computed before the lock", finding=FEN_5
        ),
        LEA_3s=result("LEA-3s", "advice", message="acquire on a completed run was answered with LeaseHeld."),
        LOD_5=result("LOD-5", "not_run", message="tried in the thorough profile only: --profile thorough"),
        DUR_3=result(
            "DUR-3", "not_run", message="the kit may not kill a server that it did not start: leave --dsn out"
        ),
        ATM_5=result("ATM-5", "not_applicable", message="the adapter has no async form"),
        CON_4=result(
            "CON-4", "inconclusive", message="3 of 840 schedules ended in a time-out of the adapter's own"
        ),
    )
    return replace(
        report, notes=["the adapter wrote to standard output: 'connected to shard 0' (3 lines)"], seconds=83.2
    )


def sixty_failures() -> Report:
    """A broken adapter: most failures have one root, the others one each."""
    root = Finding(
        clauses=("RUN-1",),
        message="start_run raised AttributeError: 'NoneType' object has no attribute 'cursor'.",
        counterexample="journal.start_run(instance, 'r1', 'w', None)\n",
        traceback="Traceback (most recent call last):\n" + '  File "x.py", line 1, in f\n    f()\n' * 12,
    )
    broken: dict[str, ClauseResult] = {}
    for number, clause_id in enumerate(list(CLAUSES)[:60]):
        own = replace(
            root,
            clauses=(clause_id,),
            counterexample=f"journal.load(instance, 'r{number}')\n",
            traceback=None,
        )
        broken[clause_id.replace("-", "_")] = result(
            clause_id, "failed", finding=root if number < 40 else own
        )
    return sample(**broken)


def incomplete() -> Report:
    rest = list(CLAUSES)[30:]
    left = {
        clause_id.replace("-", "_"): result(
            clause_id, "not_run", message="not selected by --only CAP,RUN,APP,LOD"
        )
        for clause_id in rest
    }
    return replace(sample(**left), verdict="incomplete", seconds=2.1)


SAMPLES = {
    "all_pass": all_pass,
    "in_memory": in_memory,
    "three_findings": three_findings,
    "sixty_failures": sixty_failures,
    "incomplete": incomplete,
}


HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>\x1b[31m\x00\ud800\u202e]]>&amp;\u2028end'


def hostile_race() -> Interleaving:
    pauses = (Pause(3, 6, HOSTILE), Pause(4, None, HOSTILE, waits=False))
    calls = (
        Call(HOSTILE, HOSTILE, HOSTILE, 1, 9, "deciding", change=HOSTILE),
        Call("B", HOSTILE, "", 5, None, "stuck"),
        Call("B", HOSTILE, HOSTILE, 10, 11, "needed", reads=True, after=True),
    )
    moves = (
        Move(HOSTILE, HOSTILE, 2, 7, HOSTILE, (HOSTILE,), HOSTILE, failed=True, pauses=pauses),
        Move("B", HOSTILE, 6, answer=HOSTILE),
    )
    return Interleaving("statements", (HOSTILE, "B"), HOSTILE, calls, moves)


def hostile() -> Report:
    """Every text that comes from outside wants to be markup, a control sequence, or no text at all."""
    finding = Finding(
        clauses=("FEN-3", HOSTILE),
        message=HOSTILE,
        counterexample=f"journal.append({HOSTILE!s})\n\x1b[2J\n",
        steps=(Step(1, HOSTILE, HOSTILE, HOSTILE, HOSTILE, "deciding"), Step(2, "B", HOSTILE, HOSTILE)),
        replay=HOSTILE,
        replay_note=HOSTILE,
        traceback=HOSTILE,
        stack=HOSTILE,
    )
    racing = replace(finding, interleaving=hostile_race(), isolation_spec=HOSTILE, isolation_file=HOSTILE)
    strange = ClauseResult(HOSTILE, "MUST", HOSTILE, "failed", message=HOSTILE)
    report = sample(
        FEN_3=result("FEN-3", "failed", finding=finding),
        FEN_4=result("FEN-4", "failed", finding=replace(finding, counterexample="x"), expected=HOSTILE),
        FEN_5=result("FEN-5", expected=HOSTILE),
        CON_1=result("CON-1", "failed", finding=racing),
        LEA_3s=result("LEA-3s", "advice", message=HOSTILE),
        DUR_1=result("DUR-1", "skipped", message=HOSTILE),
        DUR_2=result("DUR-2", "inconclusive", message=HOSTILE),
    )
    return replace(
        report,
        target=HOSTILE,
        adapter=HOSTILE,
        capabilities=[HOSTILE],
        withdrawn=[HOSTILE],
        profile=HOSTILE,
        clauses=[*report.clauses, strange],
        coverage={HOSTILE: 1, "group": {HOSTILE: {HOSTILE: 0}}, "other": [HOSTILE, {1}], "what": object()},
        notes=[HOSTILE],
        failover=[HOSTILE],
        environment={HOSTILE: HOSTILE, "command": HOSTILE, "store": HOSTILE},
    )


EVERY = {**SAMPLES, "hostile": hostile}


@pytest.fixture(params=EVERY)
def report(request: pytest.FixtureRequest) -> Report:
    return EVERY[request.param]()


# -- the data -----------------------------------------------------------------------------------------------


def test_every_clause_counts_once(report: Report) -> None:
    assert list(report.counts) == list(STANDINGS)
    assert sum(report.counts.values()) == len(report.clauses)


def test_an_expected_failure_counts_as_expected_and_not_as_failed() -> None:
    counts = three_findings().counts
    assert (counts["expected"], counts["failed"]) == (1, 4)


def test_an_expected_line_alone_makes_no_clause_expected() -> None:
    entry = result("FEN-3", "passed", expected="issue 7")
    assert entry.standing == "passed"
    assert entry.stale


def test_failures_with_one_counterexample_are_told_once_under_the_clause_it_is_about() -> None:
    told = {failure.lead.id: failure.also for failure in failures(three_findings())}
    assert told == {"FEN-3": ("APP-9",), "FEN-5": ("CON-1",), "SNP-7": ()}


def test_failures_without_a_counterexample_are_grouped_by_their_message() -> None:
    broken = {
        name: result(name.replace("_", "-"), "failed", message="no such table: runs")
        for name in ("RUN_1", "APP_1")
    }
    (only,) = failures(sample(**broken))
    assert (only.lead.id, only.also) == ("RUN-1", ("APP-1",))


def test_failures_that_say_nothing_stay_apart() -> None:
    assert len(failures(sample(RUN_1=result("RUN-1", "failed"), APP_1=result("APP-1", "failed")))) == 2


def test_the_verdict_line_names_what_was_withdrawn() -> None:
    assert verdict_line(in_memory()) == (
        "conforming without crash_safe: 76 clauses passed, 16 unsupported, in 12.3 s "
        "(contract 0.1, profile standard, seed 42)"
    )


def test_the_verdict_line_tells_failures_first() -> None:
    assert verdict_line(sixty_failures()).startswith(
        "nonconforming: 60 clauses failed, 32 passed, in 12.3 s ("
    )


# -- JSON ---------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=()), max_size=12) | st.just(HOSTILE)
SAFE_TEXT = st.text(max_size=12)


def steps(text: st.SearchStrategy[str]) -> st.SearchStrategy[Step]:
    marks = st.sampled_from(["", "deciding", "setup"])
    return st.builds(Step, st.integers(1, 99), text, text, text, st.none() | text, marks)


def findings(text: st.SearchStrategy[str]) -> st.SearchStrategy[Finding]:
    some, maybe = st.lists(text, max_size=2).map(tuple), st.none() | text
    drawn = st.lists(steps(text), max_size=2).map(tuple)
    races = st.none() | interleavings(text)
    return st.builds(Finding, some, text, text, drawn, maybe, text, maybe, maybe, races, text, maybe)


def interleavings(text: st.SearchStrategy[str]) -> st.SearchStrategy[Interleaving]:
    workers = st.sampled_from(["A", "B", "~adapter"])
    moments = st.integers(0, 12)
    later = st.none() | moments
    marks = st.sampled_from(["", "deciding", "needed", "struck", "stuck"])
    some = st.lists(text, max_size=2).map(tuple)
    pauses = st.lists(st.builds(Pause, moments, later, text, st.booleans()), max_size=2).map(tuple)
    calls = st.builds(Call, workers, text, text, moments, later, marks, st.booleans(), text, st.booleans())
    moves = st.builds(
        Move, workers, text, moments, later, text, some, text, st.booleans(), st.booleans(), pauses
    )
    return st.builds(
        Interleaving,
        st.sampled_from(["statements", "instructions", "tasks"]),
        st.just(("A", "B", "~adapter")),
        text,
        st.lists(calls, max_size=4).map(tuple),
        st.lists(moves, max_size=6).map(tuple),
    )


def reports(text: st.SearchStrategy[str]) -> st.SearchStrategy[Report]:
    verdicts = st.sampled_from(
        ["passed", "failed", "skipped", "unsupported", "inconclusive", "not_applicable", "advice", "not_run"]
    )
    ids = st.sampled_from(list(CLAUSES)) | text
    maybe = st.none() | text
    clauses = st.builds(
        ClauseResult, ids, text, text, verdicts, maybe, st.floats(0, 1e6), text, st.none() | findings(text)
    )
    some = st.lists(text, max_size=2)
    return st.builds(
        Report,
        kit_version=text,
        contract_version=text,
        target=text,
        adapter=text,
        profile=text,
        seed=st.integers(-(2**70), 2**70),
        verdict=st.sampled_from(["conforming", "nonconforming", "incomplete"]),
        started=st.datetimes(timezones=st.just(UTC)),
        seconds=st.floats(0, 1e6),
        capabilities=some,
        withdrawn=some,
        clauses=st.lists(clauses, max_size=3),
        coverage=st.dictionaries(
            text, st.integers(0, 2**60) | st.dictionaries(text, st.integers(0, 9)), max_size=2
        ),
        notes=some,
        failover=some,
        environment=st.dictionaries(text, text, max_size=2),
    )


@settings(max_examples=20, deadline=None)
@given(reports(SAFE_TEXT))
def test_a_report_comes_back_from_json_as_it_was(given_report: Report) -> None:
    assert from_json(json.loads(json.dumps(to_json(given_report)))) == given_report


@settings(max_examples=20, deadline=None)
@given(reports(TEXT))
def test_whatever_the_adapter_said_every_form_of_the_report_can_be_written(given_report: Report) -> None:
    stored = json.dumps(to_json(given_report), ensure_ascii=False, allow_nan=False).encode("utf-8")
    assert to_json(from_json(json.loads(stored))) == to_json(given_report)
    ElementTree.fromstring(to_junit(given_report))
    to_html(given_report).encode("utf-8")
    assert "\x1b" not in on_terminal(given_report)


def test_what_a_failover_means_is_told_in_every_form() -> None:
    told = "Asynchronous replication: an event that was appended is gone."
    report = replace(all_pass(), failover=[told], coverage={"faults": {"primaries killed": 2}})
    shown = on_terminal(report)
    assert "Failover" in shown
    assert told in shown
    assert "2 primaries killed; nothing was lost, but by asynchronous replication" in shown
    assert told in to_html(report)
    assert to_json(report)["failover"] == [told]


def test_a_report_from_before_failover_was_tried_is_read() -> None:
    data = to_json(all_pass())
    del data["failover"]
    assert from_json(data).failover == []


def test_the_json_has_the_promised_keys() -> None:
    data = to_json(three_findings())
    promised = "kit_version contract_version target adapter capabilities profile seed verdict counts clauses coverage seconds"
    further = "withdrawn notes failover environment started"
    assert set(data) == {*promised.split(), *further.split()}
    assert set(data["counts"]) == set(STANDINGS)
    fence = next(entry for entry in data["clauses"] if entry["id"] == "FEN-3")
    assert fence["message"] == FEN_3.message
    assert fence["counterexample"] == NONE_WALKS_AROUND
    assert {"level", "verdict", "seconds", "chapter", "rule", "expected", "replay", "steps"} < set(fence)


def test_what_json_does_not_know_is_told_rather_than_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    coverage = {
        "nan": float("nan"),
        "big": 2**70,
        "set": {1},
        "object": object(),
        ("a", 1): b"x",
        "loop": loop,
    }
    data = to_json(replace(all_pass(), coverage=coverage))["coverage"]
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert (data["nan"], data["big"], data["object"], data["a, 1"]) == (
        "nan",
        hex(2**70),
        "<object>",
        "<bytes>",
    )


def test_a_lone_surrogate_is_written_as_its_escape() -> None:
    assert to_json(replace(all_pass(), notes=["a\ud800b"]))["notes"] == [r"a\ud800b"]


def test_a_stored_report_makes_the_same_page(tmp_path: Path) -> None:
    write_json(three_findings(), tmp_path / "report.json")
    assert to_html(read_json(tmp_path / "report.json")) == to_html(three_findings())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"clauses": None}, "'clauses'"),
        ({"verdict": "fine"}, "'fine'"),
        ({"seed": True}, "'seed'"),
        ({"started": "2025-01-01T00:00:00"}, "offset"),
        ({"clauses": [1]}, "a clause is no JSON object"),
    ],
)
def test_what_is_no_report_is_refused_with_the_reason(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        from_json({**to_json(all_pass()), **change})


def test_keys_of_a_later_version_are_passed_over() -> None:
    assert from_json({**to_json(all_pass()), "later": 1}) == all_pass()


# -- JUnit --------------------------------------------------------------------------------------------------


def test_the_junit_figures_are_the_counts(report: Report) -> None:
    root = ElementTree.fromstring(to_junit(report))
    counts = report.counts
    cases = root.findall("./testsuite/testcase")
    assert len(cases) == len(report.clauses) == int(root.attrib["tests"])
    assert len(root.findall(".//failure")) == counts["failed"] == int(root.attrib["failures"])
    assert len(root.findall(".//error")) == counts["inconclusive"] == int(root.attrib["errors"])
    unjudged = sum(
        counts[name] for name in ("skipped", "unsupported", "not_applicable", "not_run", "expected")
    )
    assert len(root.findall(".//skipped")) == unjudged == int(root.attrib["skipped"])
    for suite in root:
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))


def case(report: Report, clause_id: str) -> ElementTree.Element:
    found = ElementTree.fromstring(to_junit(report)).find(f".//testcase[@name='{clause_id}']")
    assert found is not None
    return found


def test_a_junit_failure_tells_the_rule_the_counterexample_and_how_to_replay_it() -> None:
    failure = case(three_findings(), "FEN-3").find("failure")
    assert failure is not None
    assert failure.attrib["message"] == FEN_3.message
    text = failure.text or ""
    for part in (
        NONE_WALKS_AROUND.strip(),
        CLAUSES["FEN-3"].rule,
        "continuum-conformance replay out/FEN-3.json",
    ):
        assert part in text


def test_a_junit_skip_gives_its_reason() -> None:
    skip = case(three_findings(), "LEA-9").find("skipped")
    assert skip is not None
    assert skip.attrib["message"] == "failed as expected: issue 118: the expiry is computed before the lock"


def test_control_characters_are_escapes_in_junit() -> None:
    failure = case(sample(FEN_1=result("FEN-1", "failed", message="a\x00b\x1bc\ufffe")), "FEN-1").find(
        "failure"
    )
    assert failure is not None
    assert failure.attrib["message"] == r"a\x00b\x1bc\ufffe"


def test_junit_is_written_as_utf8(tmp_path: Path) -> None:
    write_junit(replace(three_findings(), target="журнал"), tmp_path / "junit.xml")
    assert "журнал" in ElementTree.parse(tmp_path / "junit.xml").getroot().attrib["name"]


# -- the page -----------------------------------------------------------------------------------------------

VOID = {"meta", "link", "img", "br", "hr", "input"}
DRAWN = {"path", "rect", "circle", "line"}


class Page(HTMLParser):
    """Reads a page as a browser would, and notes what a reviewer would ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.elements: Counter[str] = Counter()
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids[value or ""] += 1
            if name == "href":
                self.links.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in DRAWN, f"<{tag}/> closes itself in SVG only"
        self.elements[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.words += data


def test_the_page_is_well_formed_and_its_links_lead_somewhere(report: Report) -> None:
    page = Page(to_html(report))
    assert page.open == []
    assert [name for name, times in page.ids.items() if times > 1] == []
    inside = [link for link in page.links if link.startswith("#")]
    unknown = {"#" + name for name in map(str, page.ids)}
    broken = [
        link
        for link in inside
        if "#" + unquote(link[1:]) not in unknown and HOSTILE[:8] not in unquote(unquote(link))
    ]
    assert broken == []


def test_the_page_asks_no_other_host_for_anything(report: Report) -> None:
    text = to_html(report)
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import|\bsrc\s*=\s*['\"]?//", re.sub(r"&lt;.*?&gt;", "", text))
    assert {name for _, name, _ in page.attributes} & {
        "src",
        "srcset",
        "action",
        "style",
        "onclick",
        "onerror",
    } == set()
    assert all(link.startswith(("#", "data:image/svg+xml,")) for link in page.links)


def test_the_page_allows_its_own_script_alone() -> None:
    policy = next(
        value for _, name, value in Page(to_html(all_pass())).attributes if value.startswith("default-src")
    )
    assert "unsafe" not in policy
    assert re.search(r"script-src 'sha256-[\w+/]{43}='; ", policy)


def test_what_an_adapter_said_is_never_markup_on_the_page() -> None:
    text = to_html(hostile())
    page = Page(text)
    assert page.elements["script"] == 1
    assert page.elements["img"] == 0
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    assert r"\x1b[31m\x00\ud800\u202e" in page.words


def test_the_page_tells_what_a_maintainer_asks() -> None:
    words = Page(to_html(three_findings())).words
    for part in (
        "Not conforming",
        FEN_3.message,
        "# Expected LeaseMismatch: the run is leased",
        CLAUSES["FEN-3"].advice,
        "continuum-conformance replay out/FEN-3.json",
        "psycopg.errors.UniqueViolation",
        "issue 118: the expiry is computed before the lock",
        "connected to shard 0",
        "continuum-conformance check my_package.testing:MyHarness --seed 42 --report out/",
        "61,903",
    ):
        assert part in words


def test_a_call_that_never_happened_is_marked_in_the_coverage() -> None:
    assert re.search(r"a statement that waited for a lock\s*never", Page(to_html(all_pass())).words)


def test_the_deciding_step_is_marked_in_the_drawing() -> None:
    text = to_html(sample(FEN_5=result("FEN-5", "failed", finding=FEN_5)))
    assert text.count('<li class="step deciding">') == 1
    assert text.count('<li class="step setup">') == 2
    assert "Step 6, A: append(&quot;order-17&quot;" in text


def test_the_page_and_its_parts_are_written_as_utf8(tmp_path: Path) -> None:
    write_html(replace(all_pass(), target="журнал"), tmp_path / "report.html")
    assert "журнал" in (tmp_path / "report.html").read_text(encoding="utf-8")


@given(TEXT)
def test_colouring_loses_no_character(code: str) -> None:
    assert "".join(text for _, text in pieces(code)) == code


# -- the terminal -------------------------------------------------------------------------------------------


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def tell(report: Report, stream: io.TextIOBase, **options: object) -> None:
    terminal = Terminal(stream, **options)
    terminal.start(
        target=report.target,
        adapter=report.adapter,
        store=report.environment.get("store"),
        profile=report.profile,
        seed=report.seed,
        capabilities=report.capabilities,
        withdrawn=report.withdrawn,
    )
    for number, entry in enumerate(report.clauses):
        terminal.progress(number, len(report.clauses), entry.id)
    terminal.finish(report)


def on_terminal(report: Report, **options: object) -> str:
    stream = io.StringIO()
    tell(report, stream, **options)
    return stream.getvalue()


def test_a_log_gets_no_control_character(report: Report) -> None:
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff]", on_terminal(report))


@pytest.mark.parametrize("width", [40, 80, 120])
def test_prose_stays_within_the_width(report: Report, width: int) -> None:
    """Code, error texts and commands are left as they are, so that they can be pasted."""
    prose = [
        line
        for line in on_terminal(report, width=width).splitlines()
        if not line.startswith("      ") and not re.match(r"  (replay|explain): ", line)
    ]
    assert [line for line in prose if columns(line) > width] == []


def test_a_heading_is_as_wide_as_the_terminal_however_long_its_title() -> None:
    stream = io.StringIO()
    Screen(stream, width=80).heading("exec:" + "a long command " * 9, "bold")
    assert [len(line) for line in stream.getvalue().splitlines()] == [0, 80, 0]


def test_the_log_of_a_failure_reads_in_order() -> None:
    text = on_terminal(three_findings())
    story = text[text.index("✗ FEN-3") : text.index("✗ FEN-5")]
    parts = (
        "FEN-3  MUST  Fencing",
        "rule    None on a leased run is LeaseMismatch",
        "found   append with a None token was accepted",
        "also breaks APP-9",
        '      journal.append(instance, "order-17", {"type": "paid"}, None)',
        "advice  Compare tokens",
        "replay: continuum-conformance replay out/FEN-3.json  (replays exactly)",
        "explain: continuum-conformance clauses FEN-3",
    )
    places = [story.index(part) for part in parts]
    assert places == sorted(places)


def test_the_table_has_a_line_a_chapter_and_a_glyph_a_clause() -> None:
    text = on_terminal(in_memory())
    assert "FEN  Fencing                       8/8  ········\n" in text
    assert "SNP  Snapshots                     2/2  ·---------·--\n" in text
    assert "DUR  Durability                      -  -----\n" in text


def test_of_many_failures_the_first_are_told_in_full_and_the_rest_in_a_line_each() -> None:
    text = on_terminal(sixty_failures())
    assert text.count("\n  rule  ") == 8
    assert "And 13 more, in a line each" in text
    assert len(text.splitlines()) < 200


def test_reasons_of_what_was_not_judged_are_told_once_each() -> None:
    text = on_terminal(incomplete())
    assert text.count("not selected by --only CAP,RUN,APP,LOD") == 1
    assert "FIN-7, LEA (all 11), FEN (all 8)" in text


def test_what_never_happened_is_told() -> None:
    assert "never:  a statement that waited for a lock" in on_terminal(all_pass())


def test_a_stale_line_of_the_expected_file_is_told() -> None:
    text = on_terminal(sample(FEN_3=result("FEN-3", expected="issue 7")))
    assert re.search(
        r"Expected to fail, but passed \(1\).*FEN-3   remove this line: issue 7", text, re.DOTALL
    )


def test_a_long_line_of_code_is_cut_in_the_middle() -> None:
    finding = replace(FEN_3, counterexample=f"journal.append({'x' * 1_000_000!r})\n")
    longest = max(
        map(len, on_terminal(sample(FEN_3=result("FEN-3", "failed", finding=finding))).splitlines())
    )
    assert longest < 320


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
def test_no_encoding_makes_the_report_fail(report: Report, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    tell(replace(report, notes=["журнал ✗"]), stream)
    text = stream.buffer.getvalue().decode(encoding)
    assert ("журнал" in text) is (encoding == "utf-8")
    assert encoding == "utf-8" or r"\u0436" in text


def test_an_ascii_stream_gets_ascii_glyphs() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    tell(three_findings(), stream)
    assert "FEN  Fencing                       6/8  ..F.F...\n" in stream.buffer.getvalue().decode("ascii")


def test_a_terminal_gets_one_line_that_updates_itself_and_is_gone_at_the_end() -> None:
    stream = Tty()
    tell(all_pass(), stream, colour=False)
    head, _, rest = stream.getvalue().partition("CAP  Capabilities")
    assert head.endswith("\r\x1b[K")
    assert "\r\x1b[K  " in head
    assert "\x1b" not in rest


@pytest.mark.parametrize(
    ("environment", "stream", "coloured"),
    [
        ({}, Tty, True),
        ({}, io.StringIO, False),
        ({"NO_COLOR": "1"}, Tty, False),
        ({"FORCE_COLOR": "1"}, io.StringIO, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, io.StringIO, False),
        ({"TERM": "dumb"}, Tty, False),
    ],
)
def test_colour_is_decided_as_everywhere(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], stream: type[io.StringIO], coloured: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = stream()
    Terminal(out).finish(three_findings())
    assert ("\x1b[" in out.getvalue()) is coloured


def test_a_dumb_terminal_gets_no_control_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Tty()
    tell(all_pass(), stream)
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_colour_changes_no_word() -> None:
    plain = on_terminal(three_findings(), colour=False)
    assert re.sub(r"\x1b\[[\d;]*m", "", on_terminal(three_findings(), colour=True)) == plain


def test_a_log_gets_a_few_lines_of_progress() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream)
    for done in range(1_001):
        terminal.progress(done, 1_000, "CON-1" if done < 900 else "simulating five workers")
    assert stream.getvalue().splitlines() == [
        "     0/1000  CON  Concurrency",
        "   250/1000  CON  Concurrency",
        "   500/1000  CON  Concurrency",
        "   750/1000  CON  Concurrency",
        "   900/1000  simulating five workers",
        "  1000/1000  simulating five workers",
    ]


# -- text ---------------------------------------------------------------------------------------------------


@given(TEXT)
def test_printable_text_can_be_shown_and_encoded(text: str) -> None:
    shown = printable(text)
    assert all(char == "\n" or char.isprintable() for char in shown)
    shown.encode("utf-8")


@given(st.text(st.sampled_from("ab 漢é\n"), max_size=60), st.integers(2, 20))
def test_wrapping_keeps_every_letter_within_the_width(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(columns(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.041, "0.04 s"),
        (0.999, "1.0 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min 00 s"),
        (125, "2 min 05 s"),
        (7260, "2 h 01 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
