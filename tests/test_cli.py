"""The command: exit codes, messages, reports, and that nothing of an adapter's spoils them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest

from continuum_conformance.contract.clauses import CLAUSES
from continuum_conformance.suite.check import Judgement, exit_code
from tests.commands import run_command

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
LEDGER, BROKEN = "ledger:LedgerHarness", "broken_ledger:BrokenLedgerHarness"
QUICK = ("--profile", "quick")

ODD = """
import os, sys, threading, time
from ledger import Ledger, LedgerHarness


class Chatty(LedgerHarness):
    def open(self):
        print("printed by the adapter")
        os.system("echo printed by its child")
        return super().open()


class HangingLedger(Ledger):
    def suspend(self, instance, run_id, lease_token):
        thread = threading.Thread(target=time.sleep, args=(60,))  # no daemon: Python would wait for it
        thread.start()
        thread.join()


class Hanging(LedgerHarness):
    journal = HangingLedger


class SlowLedger(Ledger):
    def append(self, instance, run_id, event, lease_token):
        time.sleep(0.002)
        return super().append(instance, run_id, event, lease_token)


class Slow(LedgerHarness):
    journal = SlowLedger


class Unopenable(LedgerHarness):
    def open(self):
        raise RuntimeError("there is no database here")


class Undeclared(LedgerHarness):
    capabilities = {"fences"}


class OnADirectory(LedgerHarness):
    needs = "directory"

    def open(self):
        open(os.path.join(self.directory, "used"), "w").close()
        print("directory", self.directory)
        return super().open()


class OnPostgres(LedgerHarness):
    needs = "postgres"
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An author's project: the examples, and adapters that behave oddly."""
    for name in ("ledger", "broken_ledger"):
        (tmp_path / f"{name}.py").write_text((EXAMPLES / f"{name}.py").read_text("utf-8"), "utf-8")
    (tmp_path / "odd.py").write_text(ODD, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("CONTINUUM_JOURNAL", "CONTINUUM_DSN", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ledger", "broken_ledger", "odd"):
        monkeypatch.delitem(sys.modules, name, raising=False)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; gives exit code, standard output and standard error."""

    return partial(run_command, capsys)


def command(*arguments: str, **environment: str) -> list[str]:
    return [
        sys.executable,
        *environment.get("flags", "").split(),
        "-m",
        "continuum_conformance.cli",
        *arguments,
    ]


# -- verdicts and exit codes --


def test_a_correct_adapter_conforms(run: Run) -> None:
    code, out, err = run("check", LEDGER, *QUICK)
    assert (code, err) == (0, "")
    assert any(line.startswith("conforming: ") for line in out.splitlines()[-3:])
    assert "target     ledger:LedgerHarness" in out
    assert not Path(".continuum").exists()


def test_a_broken_adapter_does_not_and_the_output_leads_to_the_mistake(run: Run) -> None:
    code, out, _ = run("check", BROKEN, *QUICK, "--only", "LEA-4")
    assert code == 1
    assert "the new token 1 is not greater than 1" in out
    assert "a.release(shop, lease1)" in out
    assert "count it up in the granting" in out
    assert "continuum-conformance replay .continuum/LEA-4.json" in out


def test_only_judges_what_is_named_and_stays_incomplete(run: Run) -> None:
    code, out, _ = run("check", LEDGER, *QUICK, "--only", "RUN-1,app-2")
    assert code == 0
    assert "incomplete: 2 clauses passed" in out


def test_first_ends_at_the_first_failure(run: Run) -> None:
    code, out, _ = run("check", BROKEN, *QUICK, "--first", "--only", "LEA")
    assert code == 1
    assert "(--first)" in out


def test_a_withdrawn_capability_is_named_in_the_verdict(run: Run) -> None:
    code, out, _ = run("check", LEDGER, *QUICK, "--without", "opaque_run_ids", "--only", "RUN-1")
    assert code == 0
    assert "incomplete without opaque_run_ids: " in out


def test_expected_failures_exit_0(run: Run) -> None:
    only = ("--only", "LEA-4")
    run("check", BROKEN, *QUICK, *only, "--json", "before.json")
    failed = [entry["id"] for entry in _clauses("before.json") if entry["verdict"] == "failed"]
    Path("expected.txt").write_text("".join(f"{clause}  tokens restart\n" for clause in failed), "utf-8")
    code, out, _ = run("check", BROKEN, *QUICK, *only, "--expected", "expected.txt", "--json", "after.json")
    report = json.loads(Path("after.json").read_text("utf-8"))
    assert code == 0
    assert report["verdict"] == "nonconforming"
    assert report["counts"]["expected"] == len(failed) > 0
    assert report["counts"]["failed"] == 0
    assert "tokens restart" in out


def test_a_stale_line_fails_the_run(run: Run) -> None:
    Path("expected.txt").write_text("RUN-1  it used to fail\n", "utf-8")
    code, out, _ = run("check", LEDGER, *QUICK, "--only", "RUN", "--expected", "expected.txt")
    assert code == 1
    assert "Expected to fail, but passed" in out
    assert "it used to fail" in out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("RUN-1", "expected.txt, line 1: RUN-1 has no reason"),
        ("# fine\n\nRUN-99  no", "expected.txt, line 3: 'RUN-99' is no clause"),
        ("RUN-1  a\nrun-1  b", "expected.txt, line 2: RUN-1 stands in line 1 already"),
        ("RUN-1  # why", "expected.txt, line 1: RUN-1 has no reason"),
    ],
)
def test_a_wrong_line_of_the_expected_file_is_named(run: Run, content: str, message: str) -> None:
    Path("expected.txt").write_text(content, "utf-8")
    code, _, err = run("check", LEDGER, "--expected", "expected.txt")
    assert code == 2
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "no adapter named"),
        (["check", "nothing"], "'nothing' is no installed adapter"),
        (["check", "ledger:Missing"], "has no 'Missing'"),
        (["check", "missing:X"], "there is no module 'missing'"),
        (["check", "odd:Undeclared"], "unknown capability 'fences'"),
        (["check", LEDGER, "--only", "XYZ"], "neither a clause nor a chapter"),
        (["check", LEDGER, "--without", "speed"], "'speed' is no capability"),
        (["check", LEDGER, "--profile", "slow"], "invalid choice: 'slow'"),
        (["check", LEDGER, "--seed", "x"], "no whole number"),
        (["check", LEDGER, "--timeout", "-1"], "no number of seconds"),
        (["check", LEDGER, "--expected", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["check", LEDGER, "--json", "."], ". is a directory"),
        (["check", LEDGER, "--dsn", "x", "--postgres", "embedded"], "contradict each other"),
        (["check", LEDGER, "--use-database"], "name it with --dsn"),
        (["replay", "nowhere.json"], "nowhere.json cannot be read"),
        (["clauses", "XYZ"], "neither a clause nor a chapter"),
        (["chekc", LEDGER], "invalid choice: 'chekc'"),
    ],
)
def test_wrong_usage_exits_2_with_one_message(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_a_module_that_fails_is_shown_with_its_line(run: Run) -> None:
    Path("dividing.py").write_text("x = 1 / 0\n", "utf-8")
    code, _, err = run("check", "dividing:Harness")
    assert code == 2
    assert "ZeroDivisionError" in err
    assert "dividing.py" in err
    assert "cli/adapter.py" not in err


def test_a_module_that_exits_is_no_end_of_the_kit(run: Run) -> None:
    Path("leaving.py").write_text("import sys\nsys.exit(0)\n", "utf-8")
    code, _, err = run("check", "leaving:Harness")
    assert code == 2
    assert "SystemExit" in err


def test_an_adapter_that_cannot_be_opened_is_one_diagnosis(run: Run) -> None:
    code, out, err = run("check", "odd:Unopenable", *QUICK, "--junit", "junit.xml")
    assert code == 2
    assert err.startswith(
        "continuum-conformance: the adapter cannot be opened: open() raised RuntimeError: there is no"
    )
    assert "in open" in err  # the author's own traceback
    assert "harness/subject.py" not in err
    assert "not run" not in out
    cases = ElementTree.parse("junit.xml").findall(".//testcase")
    assert cases
    assert all(case.find("skipped") is not None for case in cases)


def test_no_postgres_exits_3_and_masks_the_password(run: Run) -> None:
    pytest.importorskip("psycopg")
    dsn = "postgresql://someone:hush@127.0.0.1:1/nothing"
    code, out, err = run("check", "odd:OnPostgres", *QUICK, "--dsn", dsn, "--json", "report.json")
    assert code == 3
    assert "no connection" in err
    assert "hush" not in out + err + Path("report.json").read_text("utf-8")


# -- the configured default --


def test_the_target_comes_from_pyproject(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    table = f'[tool.continuum-conformance]\njournal = "{LEDGER}"\nprofile = "quick"\n'
    Path("pyproject.toml").write_text(table, "utf-8")
    Path("below").mkdir()
    monkeypatch.chdir("below")
    code, out, _ = run("check", "--only", "RUN-1")
    assert code == 0
    assert LEDGER in out
    assert "quick, seed 0" in out


def test_the_environment_goes_before_pyproject(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pyproject.toml").write_text('[tool.continuum-conformance]\njournal = "nothing"\n', "utf-8")
    monkeypatch.setenv("CONTINUUM_JOURNAL", LEDGER)
    assert run("check", *QUICK, "--only", "RUN-1")[0] == 0


def test_a_wrong_profile_in_pyproject_is_named(run: Run) -> None:
    Path("pyproject.toml").write_text('[tool.continuum-conformance]\nprofile = "slow"\n', "utf-8")
    code, _, err = run("check", LEDGER)
    assert code == 2
    assert "'slow'" in err


# -- reports --


def _clauses(file: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(Path(file).read_text("utf-8"))["clauses"]
    return found


def test_every_report_is_written(run: Run) -> None:
    code, _, _ = run(
        *("check", BROKEN, *QUICK, "--only", "LEA-4", "--report", "out/page"),
        *("--json", "deep/er/report.json", "--junit", "out/junit.xml"),
    )
    assert code == 1
    assert {"index.html", "report.json", "LEA-4.json"} <= {file.name for file in Path("out/page").iterdir()}
    entry = next(entry for entry in _clauses("deep/er/report.json") if entry["id"] == "LEA-4")
    assert entry["verdict"] == "failed"
    assert entry["replay"] == "out/page/LEA-4.json"
    assert "lease2 = " in entry["counterexample"]
    assert ElementTree.parse("out/junit.xml").find(".//failure") is not None
    assert not Path(".continuum").exists()


def test_the_json_tells_how_to_get_the_run_again(run: Run) -> None:
    run("check", LEDGER, *QUICK, "--only", "RUN-1", "--seed", "5", "--json", "report.json")
    report = json.loads(Path("report.json").read_text("utf-8"))
    assert report["environment"]["command"] == (
        f"continuum-conformance check {LEDGER} --profile quick --seed 5 --only RUN-1"
    )
    assert report["capabilities"] == ["leases", "opaque_run_ids"]
    assert report["coverage"]["operations"] > 0


def test_json_on_standard_output_stands_alone() -> None:
    done = subprocess.run(
        command("check", "odd:Chatty", *QUICK, "--only", "RUN-1", "--json", "-"),
        capture_output=True,
        check=False,
    )
    report = json.loads(done.stdout)
    assert report["verdict"] == "incomplete"
    assert any("printed by the adapter / printed by its child" in note for note in report["notes"])
    assert b"RUN" in done.stderr


def test_what_the_adapter_prints_is_a_note(run: Run) -> None:
    code, out, _ = run("check", "odd:Chatty", *QUICK, "--only", "RUN-1")
    assert code == 0
    assert out.count("printed by the adapter") <= 2
    assert "wrote to standard output" in out


def test_replay_files_are_kept_from_version_control(run: Run) -> None:
    run("check", BROKEN, *QUICK, "--only", "LEA-4")
    assert "*" in Path(".continuum/.gitignore").read_text("utf-8").splitlines()


def test_the_directory_of_a_harness_is_removed(run: Run) -> None:
    _, _, _ = run("check", "odd:OnADirectory", *QUICK, "--only", "RUN-1", "--json", "report.json")
    notes = " ".join(json.loads(Path("report.json").read_text("utf-8"))["notes"])
    directory = notes.partition("directory ")[2].split(" ")[0].strip("'")
    assert directory.startswith(("/", "C:"))
    assert not Path(directory).exists()


# -- replay --


def test_a_replay_shows_the_violation_and_its_absence(run: Run) -> None:
    run("check", BROKEN, *QUICK, "--only", "LEA-4")
    code, out, _ = run("replay", ".continuum/LEA-4.json")
    assert code == 1
    assert "the new token 1 is not greater than 1" in out
    code, out, _ = run("replay", ".continuum/LEA-4.json", LEDGER)
    assert code == 0
    assert "does not show any more" in out


def test_a_file_that_is_no_replay_is_refused(run: Run) -> None:
    Path("page.json").write_text("{}", "utf-8")
    code, _, err = run("replay", "page.json")
    assert code == 2
    assert "is no replay file" in err


# -- clauses and adapters --


def test_a_clause_is_told_in_full(run: Run) -> None:
    code, out, _ = run("clauses", "fen-3")
    assert code == 0
    for word in ("rule", "reason", "advice", "adapters that declare leases"):
        assert word in out


def test_clauses_are_listed_by_chapter(run: Run) -> None:
    _, out, _ = run("clauses", "FEN")
    assert "FEN  Fencing" in out
    assert "RUN-1" not in out


def test_adapters_are_listed_with_what_they_are(run: Run) -> None:
    code, out, _ = run("adapters")
    assert code == 0
    assert "in_memory  continuum_adapters.in_memory:InMemoryHarness" in out
    assert "needs     postgres" in out


def test_the_version_names_the_contract_too(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert "(contract " in out


# -- the world outside --


def test_a_hung_thread_does_not_keep_the_command() -> None:
    started = time.monotonic()
    done = subprocess.run(
        command("check", "odd:Hanging", *QUICK, "--timeout", "0.2", "--only", "FIN", "--json", "report.json"),
        capture_output=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 1
    assert time.monotonic() - started < 30
    assert any(
        "in suspend" in str(entry.get("finding", {}).get("stack")) for entry in json.loads(
            Path("report.json").read_text("utf-8")
        )["clauses"] if entry.get("finding")
    )  # fmt: skip


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_check_reports_what_it_has(which: signal.Signals) -> None:
    process = subprocess.Popen(
        command("check", "odd:Slow", *QUICK, "--json", "report.json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if b"APP" in line:
            break
    process.send_signal(which)
    _, err = process.communicate(timeout=30)
    report = json.loads(Path("report.json").read_text("utf-8"))
    assert process.returncode == 3
    assert b"interrupted" in err
    assert b"Traceback" not in err
    assert report["verdict"] == "incomplete"
    assert report["counts"]["failed"] == 0
    assert report["counts"]["passed"] > 0
    assert report["counts"]["not_run"] > 0


def test_a_reader_that_leaves_does_not_end_the_run() -> None:
    process = subprocess.Popen(
        command("check", LEDGER, *QUICK, "--only", "RUN", "--json", "report.json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait(30) == 0
    assert err == b""
    assert json.loads(Path("report.json").read_text("utf-8"))["counts"]["passed"] > 0


def test_it_runs_optimised_on_a_plain_terminal() -> None:
    environment = {"PATH": os.environ["PATH"], "LANG": "C", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-O", "-m", "continuum_conformance.cli", "check", BROKEN, *QUICK, "--only", "LEA-4"],
        capture_output=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.isascii()
    assert b"the new token 1 is not greater than 1" in done.stdout


def test_it_runs_without_a_standard_output() -> None:
    shell = f"{sys.executable} -m continuum_conformance.cli check {LEDGER} --profile quick --only RUN-1 >&-"
    assert subprocess.run(["sh", "-c", shell], check=False).returncode == 0


def test_a_mistake_of_the_kits_own_is_told_in_a_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("continuum_conformance.cli.checking.preflight", lambda _session: {}["missing"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, _, err = run("check", LEDGER, *QUICK)
    assert code == 3
    assert "Traceback" not in err
    kept = Path(err.rpartition(" ")[2].strip())
    assert "KeyError: 'missing'" in kept.read_text("utf-8")


@pytest.mark.parametrize(("expected", "code"), [(None, 3), ("not before issue 12", 0)])
def test_what_was_not_judged_needs_a_line_of_its_own(expected: str | None, code: int) -> None:
    judgements = [
        Judgement(CLAUSES["SNP-6"], "failed", expected="dropped"),
        Judgement(CLAUSES["ISO-3"], "not_run", "SNP-6 is broken", expected=expected),
    ]
    assert exit_code(judgements) == code
