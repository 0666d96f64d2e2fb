"""The pytest plugin, as an author of an adapter uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import continuum_conformance.conformance.run  # noqa: F401 - loaded once, not anew by each inner pytest

pytest_plugins = ["pytester"]

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
LEDGER = ("--journal", "ledger:LedgerHarness", "--journal-profile", "quick")
BROKEN = ("--journal", "broken_ledger:BrokenLedgerHarness", "--journal-profile", "quick")

ODD = """
import warnings
from ledger import Ledger, LedgerHarness
from continuum_conformance.contract import RunAlreadyExists, LeaseHeld

opened = []
closed = []


class Counted(LedgerHarness):
    def open(self):
        opened.append(self)
        return super().open()

    def close(self, journal):
        closed.append(self)


class Unopenable(LedgerHarness):
    def open(self):
        raise RuntimeError("there is no database here")


class UnwiseLedger(Ledger):
    def acquire(self, instance, run_id, owner, ttl):
        try:
            return super().acquire(instance, run_id, owner, ttl)
        except Exception as error:
            if type(error).__name__ in ("RunNotFound", "RunNotActive"):
                raise LeaseHeld("who knows")  # legal, and against LEA-3s
            raise


class Unwise(LedgerHarness):
    journal = UnwiseLedger
"""

CLASS = """
from continuum_conformance import JournalConformance
from {module} import {harness}


class TestMine(JournalConformance):
    harness = {harness}
"""


@pytest.fixture(autouse=True)
def _project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ledger", "broken_ledger"):
        pytester.makepyfile(**{name: (EXAMPLES / f"{name}.py").read_text("utf-8")})
    pytester.makepyfile(odd=ODD)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    for name in ("CONTINUUM_JOURNAL", "CONTINUUM_DSN", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ledger", "broken_ledger", "odd"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry).name != "examples"])


def write_class(pytester: pytest.Pytester, module: str, harness: str) -> None:
    pytester.makepyfile(test_mine=CLASS.format(module=module, harness=harness))


def ids(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "::" in line]


# -- pytest --journal --


def test_the_suite_is_collected_with_no_file_written(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest(*LEDGER, "-k", "FEN")
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] > 5
    result.stdout.fnmatch_lines(["journal: ledger:LedgerHarness, contract *, profile quick, seed 0"])


def test_without_paths_nothing_else_is_collected(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_other="def test_other(): pass")
    collected = ids(pytester.runpytest(*LEDGER, "--collect-only", "-q"))
    assert collected
    assert all(line.startswith("journal::") for line in collected)


def test_with_paths_the_suite_runs_beside_them(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_other="def test_other(): pass")
    collected = ids(pytester.runpytest(*LEDGER, "--collect-only", "-q", "test_other.py"))
    assert "test_other.py::test_other" in collected
    assert any(line.startswith("journal::FEN-3::") for line in collected)


def test_an_id_can_be_given_back_to_pytest(pytester: pytest.Pytester) -> None:
    one = next(line for line in ids(pytester.runpytest(*LEDGER, "--collect-only", "-q")) if "FEN-3" in line)
    assert ids(pytester.runpytest(*LEDGER, "--collect-only", "-q", one)) == [one]
    of_clause = ids(pytester.runpytest(*LEDGER, "--collect-only", "-q", "journal::FEN-2"))
    assert len(of_clause) > 1
    assert all(line.startswith("journal::FEN-2::") for line in of_clause)


def test_an_id_works_as_it_is_shown_below_a_folder(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.mkdir("below")
    monkeypatch.chdir("below")
    monkeypatch.syspath_prepend(pytester.path)
    rootdir = ("--rootdir", str(pytester.path), "-c", str(pytester.path / "tox.ini"))
    result = pytester.runpytest(*rootdir, *LEDGER, "../journal::FEN-3")
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] >= 1


def test_an_unknown_id_is_named(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest(*LEDGER, "journal::FEN-99")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["not found: journal::FEN-99 *"])


def test_an_adapter_that_cannot_be_loaded_is_one_line(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--journal", "nowhere:Harness")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["--journal nowhere:Harness: there is no module 'nowhere' *"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_an_adapter_that_cannot_be_opened_is_one_error(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--journal", "odd:Unopenable", "--journal-profile", "quick", "-rs")
    outcomes = result.parseoutcomes()
    assert outcomes.pop("errors") == 1
    assert outcomes.pop("skipped") > 50
    assert not outcomes
    result.stdout.fnmatch_lines(["the adapter cannot be tested: * there is no database here"])
    result.stdout.fnmatch_lines(["SKIPPED * (told in full at journal::*"])


def test_a_failure_reads_as_a_finding(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest(*BROKEN, "--hypothesis-seed=3", "journal::LEA-4::tokens_only_grow")
    assert result.ret == 1
    text = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "LEA-4: the new token 1 is not greater than 1, *",
            "rule    MUST LEA-4: *",
            "    lease1 = a.acquire(*",
            "    a.release(shop, lease1)",
            "advice  Keep the last token with the run *",
            "again   pytest --journal broken_ledger:* --hypothesis-seed=3 journal::LEA-4::tokens_only_grow",
        ]
    )
    result.stdout.fnmatch_lines(["FAILED journal::LEA-4::tokens_only_grow - LEA-4: *"])
    assert "Traceback" not in text
    assert "suite/lab.py" not in text


def test_a_test_that_did_not_get_to_its_clause_says_so_in_a_line(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest(*BROKEN, "-k", "tokens_only_grow or an_older_token_is_fenced")
    result.stdout.fnmatch_lines(["FEN-2 could not be tried, because LEA-* is broken; mend that first*"])


def test_the_seed_is_hypothesiss(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest(*LEDGER, "--hypothesis-seed=42", "journal::RUN-1")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["journal: *, seed 42"])


def test_a_profile_of_ours_may_be_named_to_hypothesis(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--journal", LEDGER[1], "--hypothesis-profile=quick", "journal::RUN-1")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["journal: *, profile quick, *"])


def test_markers_are_chapters_and_levels(pytester: pytest.Pytester) -> None:
    chosen = ("--strict-markers", "-m", "fen and must", "--collect-only", "-q")
    collected = ids(pytester.runpytest(*LEDGER, *chosen))
    assert any(line.startswith("journal::FEN-3::") for line in collected)
    assert not any(line.startswith("journal::RUN-1::") for line in collected)
    listed = pytester.runpytest(*LEDGER, "--markers").stdout.str()
    assert "@pytest.mark.fen: Fencing" in listed


def test_junit_tells_clause_and_finding(pytester: pytest.Pytester) -> None:
    pytester.runpytest(*BROKEN, "--junitxml=out.xml", "journal::LEA-4", "journal::RUN-1")
    cases = ElementTree.parse(pytester.path / "out.xml").findall(".//testcase")
    classes = {case.get("classname") for case in cases}
    assert classes == {"journal.LEA-4", "journal.RUN-1"}
    failure = next(found for case in cases if (found := case.find("failure")) is not None)
    assert str(failure.get("message")).startswith("LEA-4: the new token 1 is not greater")
    assert "lease1 = a.acquire(" in str(failure.text)


def test_a_should_that_is_not_met_is_a_warning(pytester: pytest.Pytester) -> None:
    unwise = ("--journal", "odd:Unwise", "--journal-profile", "quick", "-k", "LEA-3")
    for more in ((), ("-W", "error")):
        result = pytester.runpytest(*unwise, *more)
        assert result.ret == 0
        assert result.parseoutcomes()["warnings"] >= 1
        result.stdout.fnmatch_lines(["*LEA-3s (SHOULD): *"])


def test_last_failed_runs_what_failed(pytester: pytest.Pytester) -> None:
    cache = ("-p", "cacheprovider")
    pytester.makeini("[pytest]\n")
    failed = pytester.runpytest(*BROKEN, *cache, "journal::LEA-4", "journal::RUN-1").parseoutcomes()["failed"]
    again = pytester.runpytest(*BROKEN, *cache, "--lf").parseoutcomes()
    assert again["failed"] == failed
    assert "passed" not in again


# -- expected failures --


def test_expected_failures_xfail(pytester: pytest.Pytester) -> None:
    Path("expected.txt").write_text("LEA-1  tokens restart\nLEA-4  tokens restart\n", "utf-8")
    result = pytester.runpytest(*BROKEN, "--journal-expected", "expected.txt", "-rx", "journal::LEA-4")
    assert result.ret == 0
    assert set(result.parseoutcomes()) == {"xfailed"}
    result.stdout.fnmatch_lines(["XFAIL journal::LEA-4::* - *LEA-4: tokens restart*"])


def test_a_stale_line_is_a_failed_test(pytester: pytest.Pytester) -> None:
    Path("expected.txt").write_text("FEN-3  None gets through\n", "utf-8")
    result = pytester.runpytest(
        *LEDGER, "--journal-expected", "expected.txt", "--junitxml=out.xml", "-k", "FEN-3"
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["FEN-3 is expected to fail (None gets through), but it passed: remove *"])
    names = [case.get("name") for case in ElementTree.parse("out.xml").findall(".//testcase")]
    assert "FEN-3" in names


def test_a_clause_of_which_not_all_tests_ran_is_not_stale(pytester: pytest.Pytester) -> None:
    Path("expected.txt").write_text("FEN-2  tokens are ignored\n", "utf-8")
    result = pytester.runpytest(
        *LEDGER, "--journal-expected", "expected.txt", "journal::FEN-2::an_older_token_is_fenced"
    )
    assert result.ret == 0


def test_a_wrong_line_is_named(pytester: pytest.Pytester) -> None:
    Path("expected.txt").write_text("FEN-3\n", "utf-8")
    result = pytester.runpytest(*LEDGER, "--journal-expected", "expected.txt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*expected.txt, line 1: FEN-3 has no reason*"])


# -- JournalConformance --


def test_a_class_has_a_method_for_each_test(pytester: pytest.Pytester) -> None:
    write_class(pytester, "ledger", "LedgerHarness")
    result = pytester.runpytest(
        "--journal-profile", "quick", "--strict-markers", "-k", "FEN-3", "-m", "must", "-v"
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines(["test_mine.py::TestMine::test_FEN_3_* PASSED *"])
    result.stdout.no_fnmatch_line("* <- *")


def test_undeclared_capabilities_are_skipped_with_the_reason(pytester: pytest.Pytester) -> None:
    write_class(pytester, "ledger", "LedgerHarness")
    result = pytester.runpytest("--journal-profile", "quick", "-rs", "-k", "SNP-2")
    assert set(result.parseoutcomes()) == {"skipped", "deselected"}
    result.stdout.fnmatch_lines(["SKIPPED * snapshots is not declared"])


def test_a_method_fails_as_a_finding_at_the_users_class(pytester: pytest.Pytester) -> None:
    write_class(pytester, "broken_ledger", "BrokenLedgerHarness")
    result = pytester.runpytest("--journal-profile", "quick", "-k", "tokens_only_grow")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "LEA-4: the new token 1 is not *",
            "again   pytest * test_mine.py::TestMine::test_LEA_4_tokens_only_grow",
        ]
    )
    assert "suite/lab.py" not in result.stdout.str()


def test_an_adapter_is_opened_for_all_tests_and_closed_at_the_end(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_mine=CLASS.format(module="odd", harness="Counted")
        + "\n\nclass TestAgain(JournalConformance):\n    harness = Counted\n"
    )
    pytester.makeconftest(
        "def pytest_unconfigure():\n"
        "    import odd\n"
        "    print(f'opened {len(odd.opened)} closed {len(odd.closed)} by {len(set(odd.opened))}')\n"
    )
    result = pytester.runpytest("--journal-profile", "quick", "-k", "FEN-2", "-s")
    assert result.ret == 0
    (line,) = [line for line in result.outlines if line.startswith("opened ")]
    words = line.split()
    assert words[1] == words[3]
    assert int(words[1]) <= 5
    assert words[5] == "1"


def test_a_class_without_a_harness_is_one_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_mine="from continuum_conformance import JournalConformance\n\n\nclass TestMine(JournalConformance):\n    pass\n"
    )
    result = pytester.runpytest("-k", "FEN")
    assert result.parseoutcomes()["errors"] == 1
    result.stdout.fnmatch_lines(["*TestMine has no harness: set `harness = MyHarness`*"])


def test_the_base_and_its_abstract_children_are_not_collected(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_mine="from continuum_conformance import JournalConformance\n\n\nclass Mine(JournalConformance):\n    pass\n"
    )
    assert pytester.runpytest().ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_method_can_be_taken_out(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_mine=CLASS.format(module="broken_ledger", harness="BrokenLedgerHarness")
        + "    test_LEA_4_tokens_only_grow = None\n"
    )
    collected = ids(pytester.runpytest("--collect-only", "-q", "-k", "LEA_4"))
    assert collected
    assert not any("tokens_only_grow" in line for line in collected)


# -- other tools --


def test_with_xdist_each_worker_has_its_own_adapter(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    Path("expected.txt").write_text("FEN-3  None gets through\n", "utf-8")
    result = pytester.runpytest_subprocess(*LEDGER, "-n2", "-k", "FEN", "--journal-expected", "expected.txt")
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] > 5
    assert outcomes["failed"] == 1
    result.stdout.fnmatch_lines(["FEN-3 is expected to fail *"])


def test_a_debugger_stops_where_the_suite_saw_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        stops="def post_mortem(*a): pass\n"
        "class Pdb:\n"
        "    def __init__(self, *a, **k): pass\n"
        "    def reset(self): pass\n"
        "    quitting = False\n"
        "    def interaction(self, frame, tb):\n"
        "        tb = getattr(tb, '__traceback__', tb)\n        while tb.tb_next: tb = tb.tb_next\n"
        "        print('stopped in', tb.tb_frame.f_code.co_filename)\n"
        "    def set_trace(self, *a): pass\n"
    )
    result = pytester.runpytest(*BROKEN, "--pdb", "--pdbcls=stops:Pdb", "journal::LEA-4::tokens_only_grow")
    result.stdout.fnmatch_lines(["*stopped in *lab.py"])


def test_the_plugin_costs_nothing_when_it_is_not_used(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_other="def test_other(): pass")
    script = (
        "import sys, pytest; code = pytest.main(['-q', '-p', 'no:hypothesispytest', 'test_other.py']);"
        "print([name for name in sys.modules if name.startswith(('continuum', 'hypothesis', 'sqlalchemy'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ}
    )
    loaded = done.stdout.splitlines()[-1]
    assert loaded == "['continuum_conformance', 'continuum_conformance.plugin']"
