"""Programs on the command line, in the configuration, in replay files and under pytest; and what goes wrong there."""

from __future__ import annotations

import json
import sys
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.commands import run_command

pytest_plugins = ["pytester"]

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
SERVE = f"{sys.executable} -m continuum_conformance.cli serve"
BROKEN = f"{SERVE} broken_ledger:BrokenLedgerHarness"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An author's project, in which the served adapter is found."""
    for name in ("ledger", "broken_ledger"):
        (tmp_path / f"{name}.py").write_text((EXAMPLES / f"{name}.py").read_text("utf-8"), "utf-8")
    root = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{root / 'adapters'}")
    monkeypatch.chdir(tmp_path)
    for name in ("CONTINUUM_JOURNAL", "CONTINUUM_DSN", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(capsys):
    return partial(run_command, capsys)


def test_a_finding_is_replayed_from_its_file_alone(run, tmp_path):
    code, out, _ = run("check", "--exec", BROKEN, "--only", "LEA-4", "--report", "out", "--profile", "quick")
    assert code == 1
    assert "lease2 = a.acquire(" in out
    saved = json.loads((tmp_path / "out/LEA-4.json").read_text("utf-8"))
    assert saved["target"] == f"exec:{BROKEN}"
    report = json.loads((tmp_path / "out/report.json").read_text("utf-8"))
    assert "--exec" in report["environment"]["command"]
    code, out, _ = run("replay", "out/LEA-4.json")
    assert code == 1
    assert "the new token 1 is not greater than 1" in " ".join(out.split())
    code, out, _ = run("replay", "out/LEA-4.json", "--exec", f"{SERVE} ledger:LedgerHarness")
    assert code == 0


def test_the_script_of_a_finding_runs(run, tmp_path):
    _, out, _ = run("check", "--exec", BROKEN, "--only", "LEA-4", "--profile", "quick")
    lines = out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("      # LEA-4"))
    end = next(number for number, line in enumerate(lines) if line.startswith("      # due:"))
    names: dict[str, object] = {}
    exec("\n".join(line[6:] for line in lines[start:end]), names)
    assert names["lease2"].token == names["lease1"].token


def test_the_configuration_names_a_program(run, tmp_path):
    text = f"[tool.continuum-conformance]\nexec = {json.dumps(BROKEN)}\nprofile = 'quick'\n"
    (tmp_path / "pyproject.toml").write_text(text, "utf-8")
    code, out, _ = run("check", "--only", "RUN-1")
    assert code == 0
    assert "BrokenLedgerHarness" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("check", "--exec", "no-such-program-here"),
            "the command 'no-such-program-here' cannot be run: No such file",
        ),
        (("check", "--exec", ""), "the command is empty"),
        (("check", "--exec", "'half"), "cannot be split into words: No closing quotation"),
        (("check", "--exec", "echo hello"), "a line that is no JSON, on standard output"),
        (
            ("check", "--exec", "sh -c 'echo gone >&2; exit 3'"),
            "it ended with exit code 3, before it answered hello; its stderr ends: gone",
        ),
        (
            (
                "check",
                "--exec",
                """sh -c 'read r; echo {\\"id\\":1,\\"kind\\":\\"value\\",\\"value\\":{\\"protocol\\":2}}'""",
            ),
            "speaks version 2 of the protocol",
        ),
        (("check", "in_memory", "--exec", "true"), "--exec names the adapter, and so does 'in_memory'"),
        (("race",), "race needs a TARGET, or --exec COMMAND"),
        (("serve", "nothing:Here"), "there is no module 'nothing'"),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, tuple) else "",
)
def test_what_cannot_be_started_is_wrong_usage(arguments, said, run):
    code, _, err = run(*arguments)
    assert code == 2
    assert said in " ".join(err.split())
    assert "Traceback" not in err


def test_pytest_checks_a_program(pytester, project, monkeypatch):
    root = Path(__file__).parents[1]
    for name in ("ledger", "broken_ledger"):
        (pytester.path / f"{name}.py").write_text((EXAMPLES / f"{name}.py").read_text("utf-8"), "utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{root}:{root / 'adapters'}:{pytester.path}")
    options = (
        "--journal-exec",
        BROKEN,
        "--journal-profile",
        "quick",
        "-p",
        "no:cacheprovider",
        *(
            ()
            if entry_points(group="pytest11", name="continuum_conformance")
            else ("-p", "continuum_conformance.plugin")
        ),
    )
    result = pytester.runpytest_subprocess(*options, "-k", "LEA-4 and tokens")
    result.stdout.fnmatch_lines(["*journal: exec:*serve broken_ledger*"])
    assert result.parseoutcomes().get("failed", 0) >= 1


TALKATIVE = """
import sys
sys.stderr.write("no answer from postgresql://joe:s3cret@db.example/x with password=s3cret\\n")
"""


def test_passwords_that_a_program_writes_are_masked(run, tmp_path):
    (tmp_path / "talkative.py").write_text(TALKATIVE, "utf-8")
    code, out, err = run("check", "--exec", f"{sys.executable} talkative.py", "--report", "out")
    assert code == 2
    assert "joe:***@db.example" in err
    assert "s3cret" not in out + err


TALKATIVE_LATER = """
import json, subprocess, sys
served = subprocess.Popen([*sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
for line in sys.stdin:
    if json.loads(line)["op"] == "suspend":
        sys.exit("no answer from postgresql://joe:s3cret@db.example/x with password=s3cret")
    served.stdin.write(line)
    served.stdin.flush()
    print(served.stdout.readline(), end="", flush=True)
"""


def test_passwords_in_the_last_words_of_a_program_are_masked_in_all_that_is_told_of_it(run, tmp_path):
    (tmp_path / "talkative.py").write_text(TALKATIVE_LATER, "utf-8")
    command = f"{sys.executable} talkative.py {SERVE} ledger:LedgerHarness"
    code, out, err = run(
        "check", "--exec", command, "--only", "RUN-2", "--profile", "quick", "--report", "out", "--first"
    )
    assert code == 1
    assert "joe:***@db.example" in out
    assert "s3cret" not in out + err
    for file in Path("out").iterdir():
        assert "s3cret" not in file.read_text("utf-8")
