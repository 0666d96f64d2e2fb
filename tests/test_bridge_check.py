"""Adapters on the bridge are judged as others are: served ones, and programs in JavaScript, right and wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the adapters are named as `tests.racing...`

from continuum_conformance.cli import main
from continuum_conformance.contract.clauses import select
from continuum_conformance.harness import Subject
from continuum_conformance.postgres import provide
from continuum_conformance.report.from_suite import finding_of
from continuum_conformance.report.plain import finding_text
from continuum_conformance.suite.check import Plan, judge, preflight, run_check
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.testing import PROFILES
from tests.racing import postgres as racing

HERE = Path(__file__).parent
NODE = shutil.which("node")
EXAMPLE = HERE.parent / "docs/examples/bridge-node"
WRONG = HERE / "bridge_node"
SERVE = f"exec:{sys.executable} -m continuum_conformance.cli serve"

needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed")


@pytest.fixture(scope="module")
def server():
    with provide("auto") as found:
        yield found


@pytest.fixture(autouse=True)
def path(monkeypatch):
    """What a served adapter in this repository is found by."""
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parent}:{HERE.parent / 'adapters'}")


@pytest.fixture(scope="session")
def with_pg(tmp_path_factory):
    """The examples and their wrong versions, beside the `pg` package."""
    if NODE is None or shutil.which("npm") is None:
        pytest.skip("Node and npm are not installed")
    if (EXAMPLE / "node_modules/pg").is_dir():
        return HERE.parent
    root = tmp_path_factory.mktemp("node")
    shutil.copytree(EXAMPLE, root / EXAMPLE.relative_to(HERE.parent))
    shutil.copytree(WRONG, root / WRONG.relative_to(HERE.parent))
    command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--fetch-retries=0"]
    try:
        subprocess.run(
            command, cwd=root / "docs/examples/bridge-node", check=True, capture_output=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"npm cannot install `pg` here: {error}")
    return root


def _judged(target, only, *, dsn=None, first=False, limit=10.0):
    """The verdicts by clause, and the findings as a user reads them."""
    session = Session(Subject(target, dsn=dsn, limit=limit))
    try:
        plan = Plan(PROFILES["quick"], seed=0, only=tuple(select(only)), first=first)
        preflight(session)
        judgements = judge(session, plan, run_check(session, plan))
        found = {
            j.clause.id: finding_text(finding_of(j.violation, session.subject), width=80)
            for j in judgements
            if j.violation is not None
        }
        return {j.clause.id: j.verdict for j in judgements}, found
    finally:
        session.close_all()


def _failed(target, only, **how):
    verdicts, found = _judged(target, only, first=True, **how)
    return {clause for clause, verdict in verdicts.items() if verdict == "failed"}, "\n".join(found.values())


# -- served adapters --

ELSEWHERE = {"TRM-3", "TRM-3s", "TRM-5", "ATM-5", "ATM-5s", "CLK-1"}
"""Clauses that are not applicable to a program where they may be to an adapter in Python."""


@pytest.mark.parametrize(
    ("target", "only"),
    [
        ("continuum_adapters.in_memory:InMemoryHarness", "RUN-7,APP-3,LEA-10,SNP-13,TRM-2,TRM-3,TRM-5"),
        ("continuum_adapters.sqlite:SQLiteHarness", "RUN-4,DUR-1"),
    ],
    ids=["in_memory", "sqlite"],
)
def test_a_served_adapter_gets_the_verdicts_that_it_gets_directly(target, only, tmp_path):
    def judged(kind):
        session = Session(Subject(kind, directory=str(tmp_path / kind.partition(":")[0])))
        Path(session.subject.directory).mkdir()
        try:
            plan = Plan(PROFILES["quick"], seed=0, only=tuple(select(only)))
            preflight(session)
            return {j.clause.id: j.verdict for j in judge(session, plan, run_check(session, plan))}
        finally:
            session.close_all()

    direct, served = judged(target), judged(f"{SERVE} {target}")
    differing = {clause for clause in direct if direct[clause] != served[clause]}
    assert differing <= ELSEWHERE
    assert {served[clause] for clause in differing} <= {"not_applicable"}
    assert set(direct.values()) <= {"passed", "not_applicable", "unsupported"}


def test_a_served_adapter_over_postgres_is_cut_and_killed(server):
    target = f"{SERVE} continuum_adapters.postgres:PostgresHarness"
    session = Session(Subject(target, dsn=server.fresh_database()))
    session.subject.server = server
    try:
        plan = Plan(PROFILES["quick"], seed=0, only=("ATM-4", "DUR-4"))
        preflight(session)
        verdicts = {j.clause.id: j.verdict for j in judge(session, plan, run_check(session, plan))}
        assert verdicts == dict.fromkeys(("ATM-4", "DUR-4"), "passed")
        assert session.faults["connections cut"] > 40
        assert session.faults["clients killed within an operation"] > 4
    finally:
        session.close_all()


@pytest.mark.parametrize(
    ("target", "clause"),
    [
        ("tests.known_bad.fencing:NilTokenOnLeasedRun.Harness", "FEN-3"),
        ("tests.known_bad.appending:DuplicateSeqAccepted.Harness", "APP-2"),
    ],
)
def test_a_served_adapter_that_is_wrong_is_found(target, clause):
    failed, told = _failed(f"{SERVE} {target}", clause)
    assert failed >= {clause}
    assert "harness_of(TARGET)" in told


@pytest.mark.parametrize(
    ("name", "only"), [("LockAfterTheCheckHarness", "FEN-5"), ("NoLockHarness", "CON-3")]
)
def test_a_served_race_over_postgres_is_found(name, only, server):
    target = f"tests.racing.postgres:{name}"
    failed, told = _failed(f"{SERVE} {target}", only, dsn=server.fresh_database())
    assert failed & set(racing.WRONG[target])
    assert "worker A" in told
    assert "schedule [" in told


# -- programs in JavaScript --


@needs_node
def test_the_example_in_memory_conforms():
    verdicts, found = _judged(
        f"exec:{NODE} {EXAMPLE / 'memory.mjs'}", "CAP,RUN-7,APP-3,LEA-10,FEN-2,SNP-5,SNP-13,TRM-1,ISO-1"
    )
    assert not found
    assert set(verdicts.values()) <= {"passed", "not_applicable", "unsupported"}


@pytest.mark.skipif(shutil.which("elixir") is None, reason="Elixir is not installed")
def test_the_skeleton_in_elixir_conforms():
    program = HERE.parent / "docs/examples/bridge-elixir/bridge.exs"
    verdicts, found = _judged(f"exec:elixir {program}", "CAP,APP-3,LEA-10,FEN-2,SNP-5,SNP-13,RUN-7")
    assert not found
    assert set(verdicts.values()) <= {"passed", "not_applicable", "unsupported"}


def test_the_example_over_postgres_conforms(with_pg, server):
    program = with_pg / "docs/examples/bridge-node/postgres.mjs"
    verdicts, found = _judged(
        f"exec:{NODE} {program}",
        "RUN-1,SNP-5,TRM-3,CON-2,ATM-4",
        dsn=server.fresh_database(),
    )
    assert not found
    assert set(verdicts.values()) <= {"passed", "not_applicable", "unsupported"}


@needs_node
def test_the_guides_early_version_is_where_its_expected_failure_file_says(capsys):
    command = ["check", "--exec", f"{NODE} {EXAMPLE / 'early.mjs'}", "--profile", "quick"]
    only = ["--only", "RUN-2,RUN-3,SNP-6,LEA-10"]
    assert main([*command, *only]) == 1
    assert main([*command, *only, "--expected", str(EXAMPLE / "expected.txt")]) == 0
    assert "failed as expected" in " ".join(capsys.readouterr().out.split())


@needs_node
@pytest.mark.parametrize(
    ("name", "only", "clause", "said"),
    [
        ("lets_none_pass", "FEN-3", "FEN-3", "append was accepted, though LeaseMismatch was due"),
        ("resurrects", "RUN-3", "RUN-3", "start_run was accepted, though RunAlreadyExists was due"),
        ("forgets_floats", "TRM-1", "TRM-1", "a.start_run("),
        ("joins_keys", "ISO-1", "ISO-1", "Instance("),
        ("logs", "RUN-4", "RUN-4", "ProtocolBreach"),
        ("throws", "ATM-2", "ATM-2", "TypeError"),
        ("hangs", "FIN-1", "FIN-1", "no answer to suspend within 1 s"),
        ("exits", "FIN-2", "FIN-2", "it ended with exit code 3, before it answered complete"),
    ],
)
def test_a_program_in_memory_that_is_wrong_is_found(name, only, clause, said):
    failed, told = _failed(f"exec:{NODE} {WRONG / 'wrong_memory.mjs'} {name}", only, limit=1.0)
    assert clause in failed, told
    assert said in " ".join(told.split())
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("name", "only", "clause", "said"),
    [
        ("checks_then_locks", "FEN-5", "FEN-5", "| SELECT … FROM js_runs"),
        ("counts_without_lock", "CON-3", "CON-3", "| INSERT INTO js_events"),
        ("grants_twice", "CON-2", "CON-2", "| UPDATE js_runs"),
        ("is_sure", "ATM-1", "ATM-4", "its connection lost after the server had message"),
        ("ends_with_its_connection", "ATM-4", "ATM-4", "ECONNRESET"),
    ],
)
def test_a_program_over_postgres_that_is_wrong_is_found(name, only, clause, said, with_pg, server):
    program = with_pg / "tests/bridge_node/wrong_postgres.mjs"
    failed, told = _failed(f"exec:{NODE} {program} {name}", only, dsn=server.fresh_database())
    assert clause in failed, told
    assert said in told
