"""Every adapter that is wrong on purpose is found out, under the right clause, with a counterexample that shows it."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import io
import os
import re
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the adapters are named as `tests.known_bad...`

from continuum_conformance.model import READS, Kind
from continuum_conformance.suite import replay
from continuum_conformance.suite.script import script
from tests.known_bad import ENTRIES, UNUSUAL
from tests.known_bad.table import (
    BANKS,
    UNBROKEN,
    UNBROKEN_ELSEWHERE,
    broken_by,
    clauses_due,
    elsewhere,
    of_other_banks,
    thread,
)
from tests.known_bad.trying import SEED, checked

DOCS = Path(__file__).parents[1] / "docs"

ALONE = (
    "run overwritten",
    "duplicate seq accepted",
    "refused append burns a seq",
    "load creates run",
    "aliasing out",
    "owner only renewal",
    "nil token on leased run",
    "off by one after a snapshot",
    "tuple read back as list",
    "not durable without path",
    "exits the process",
    "raw driver error",
    "pool leak",
    "encodes after the first await",
)
"""Entries whose script is run in a process of its own, as a reader of the report would."""


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=[name.replace(" ", "-") for name in ENTRIES])
def test_a_wrong_adapter_is_found_out(entry, tmp_path, monkeypatch):
    closest = entry.clauses[0]
    with checked(entry, (closest,), first=closest not in ("ATM-3", "LEA-5")) as found:
        told = found.judgements[closest]
        assert told.verdict == ("failed" if told.clause.level == "MUST" else "advice"), told.message
        assert re.search(entry.message, told.message)
        violation = told.violation
        if violation is None or not violation.steps:
            assert entry.name in ("store per handle", "lease held for unknown run")
            return
        code = script(violation, found.session.subject)
        if violation.race is None:  # else it is a story, because more happens than calls
            compile(code, "<counterexample>", "exec")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        plain = violation.race is None and not violation.hang and violation.aspect is not None
        if plain and not _in_two_processes(violation):
            _shows(code, violation)
        if entry.name in ALONE:
            _shows_alone(code, violation)
        if not violation.hang:
            _comes_back(violation, found.session, tmp_path, entry)


def _in_two_processes(violation):
    return any(step.operation.worker == "P" for step in violation.steps)


def _comes_back(violation, session, folder, entry):
    file = replay.save(
        violation, session, folder, "found", profile=entry.profile, seed=SEED, own=violation.clauses
    )
    again = replay.run(session, replay.load(file))
    assert again is not None
    assert again.clauses[0] == violation.clauses[0]
    assert _plain(again) == _plain(violation)


def _plain(violation):
    """The message without what differs each time: fresh names, and numbers of a store that is used again."""
    return re.sub(r"\d+", "#", violation.message.replace(violation.salt or "\0", ""))[:60]


def _shows(code, violation):
    """The script runs to its last call, and there comes what the report says."""
    said = io.StringIO()
    raised = None
    namespace = {"__name__": "counterexample", "__file__": __file__}
    before = asyncio.get_event_loop_policy()
    try:
        with contextlib.redirect_stdout(said):
            exec(compile(code, "<counterexample>", "exec"), namespace)
    except BaseException as error:
        raised = error
    finally:
        asyncio.set_event_loop_policy(before)
    _judge(code, violation, said.getvalue(), raised)


def _judge(code, violation, said, raised):
    outcome = violation.steps[-1].outcome
    if outcome.kind is Kind.RAW:
        assert type(raised).__name__ == outcome.error, code
        lines = [
            f.lineno for f in traceback.extract_tb(raised.__traceback__) if f.filename == "<counterexample>"
        ]
        assert lines[-1] >= _last_statement(code)
        return
    assert raised is None, f"{code}\n{raised!r}"
    if outcome.kind is Kind.ERROR:
        assert said.splitlines()[-1].startswith(outcome.error), code
    elif violation.steps[-1].operation.name in READS:
        assert said.strip(), code


def _last_statement(code):
    body = ast.parse(code).body
    main = next((n for n in body if isinstance(n, ast.AsyncFunctionDef) and n.name == "main"), None)
    return (main.body if main else body)[-1].lineno


def _shows_alone(code, violation):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    outcome = violation.steps[-1].outcome
    if outcome.kind is Kind.RAW:
        assert done.returncode != 0
        assert outcome.error in done.stderr or outcome.error == "SystemExit"
    else:
        assert done.returncode == 0, done.stderr
        assert outcome.error is None or outcome.error in done.stdout


@pytest.mark.parametrize(
    "target",
    [
        "continuum_adapters.in_memory:InMemoryHarness",
        "tests.known_bad.sql:SqlJournal.Harness",
        "tests.known_bad.asynchronous:AsyncJournal.Harness",
    ],
)
def test_what_they_are_derived_from_is_right(target):
    with checked(target, None) as found:
        failed = {
            j.clause.id: j.message for j in found.judgements.values() if j.verdict in ("failed", "advice")
        }
        assert not failed
        assert found.verdict == "conforming"


@pytest.mark.parametrize("target", UNUSUAL, ids=[target.rpartition(":")[2] for target in UNUSUAL])
def test_what_is_merely_unusual_is_not_accused(target):
    with checked(target, UNUSUAL[target]) as found:
        assert {j.verdict for j in found.judgements.values()} == {"passed"}


def test_an_answer_where_none_is_due_is_remarked_on():
    with checked("tests.known_bad.errors:ReturnsTheSeq.Harness", ("APP-1",)) as found:
        assert "append returned a int where the contract says None" in found.session.remarks


def test_every_clause_is_broken_by_something():
    unbroken = [clause for clause in clauses_due() if clause not in broken_by()]
    assert set(unbroken) == set(UNBROKEN)


def test_every_clause_about_races_and_faults_is_broken_by_something():
    unbroken = [clause for clause, names in elsewhere().items() if not names]
    assert set(unbroken) == set(UNBROKEN_ELSEWHERE)


def test_the_table_is_not_stale():
    page = (DOCS / "kill-table.md").read_text("utf-8")
    rows = [line.removesuffix(" |").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    written = {row[0][2:]: (row[1], row[2], row[5].strip()) for row in rows if len(row) == 6}
    written.pop("adapter", None)
    written.pop("---", None)
    assert written == {e.name: (e.fault, ", ".join(e.clauses), thread(e.seen_in)) for e in ENTRIES.values()}
    assert [line for line in of_other_banks() if line not in page.splitlines()] == []


def test_every_source_is_the_address_of_a_thread():
    seen = [entry.seen_in for entry in ENTRIES.values()]
    for bank in BANKS:
        seen += importlib.import_module(bank).SEEN_IN.values()
    seen = [address for address in seen if address]
    assert len(seen) >= 25
    assert [
        a for a in seen if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", a)
    ] == []


def test_no_page_names_a_file_of_the_machine_that_wrote_it():
    absolute = re.compile(r"(?<![\w.:/<])/(?:[\w.-]+/)+[\w.-]+\.py\b")
    found = {
        page.name: absolute.findall(page.read_text("utf-8"))
        for page in DOCS.rglob("*")
        if page.suffix in (".md", ".json", ".svg")
    }
    assert {name: paths for name, paths in found.items() if paths} == {}
