"""The command ``simulate``: exit codes, what it prints, what it writes, where it runs; and ``replay`` of a world."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from continuum_conformance.cli import simulating
from continuum_conformance.simulate.campaign import Job, campaign
from tests.commands import run_command

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # engines and adapters are named as `tests.simulated...`

IN_MEMORY = "continuum_adapters.in_memory:InMemoryHarness"
WRONG_ENGINE = "tests.simulated.engines:worker_FinishesUnfenced"
WRONG_ADAPTER = "tests.simulated.adapters:CountsTokensAnew.Harness"


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    return partial(run_command, capfd)


def test_nothing_wrong_is_0(run):
    code, out, err = run("simulate", IN_MEMORY, "--seeds", "0..5")
    assert (code, err) == (0, "")
    assert "6 worlds" in out
    assert "takeover" in out
    assert out.rstrip().endswith("nothing wrong: 6 worlds")
    assert max(map(len, out.splitlines())) <= 80


def test_what_a_small_campaign_never_met_is_told(run):
    _, out, _ = run("simulate", IN_MEMORY, "--seeds", "0..1")
    assert "never met: " in out
    _, out, _ = run("simulate", IN_MEMORY, "--seed", "1")
    assert "never met: " not in out


def test_a_wrong_engine_is_1_and_its_file_replays(run):
    code, out, _ = run("simulate", IN_MEMORY, "--engine", WRONG_ENGINE, "--seeds", "0..3", "--report", "out")
    assert code == 1
    assert "took effect under" in out
    assert "seed 0, made as small as it would go: 1 worker, 1 run" in out
    assert "replay: continuum-conformance replay out/simulate-0.json" in out
    assert "it is the engine that is wrong" in " ".join(out.split())
    collected = json.loads(Path("out/campaign.json").read_text("utf-8"))
    assert (collected["simulated"], collected["seeds"]) == (4, [0, 3])
    assert [(found["seed"], found["judge"]) for found in collected["failing"]] == [
        (seed, "writer") for seed in range(4)
    ]
    page = Path("out/simulate-0.html").read_text("utf-8")
    assert "<script" not in page
    assert "took effect under" in page
    assert "http" not in page.replace("http-equiv", "")
    code, out, _ = run("replay", "out/simulate-0.json")
    assert code == 1
    assert "took effect under" in out


def test_a_world_that_was_mended_is_0(run):
    run("simulate", WRONG_ADAPTER, "--seeds", "0..0", "--report", "out")
    code, out, _ = run("replay", "out/simulate-0.json", IN_MEMORY)
    assert code == 0
    assert "It does not show any more: model" in out


def test_a_wrong_adapter_names_its_clauses(run):
    code, out, _ = run("simulate", WRONG_ADAPTER, "--seeds", "0..9", "--first")
    assert code == 1
    told = " ".join(out.split())
    assert "(LEA-1, LEA-4)" in told
    assert "it is the journal that is wrong" in told
    saved = json.loads(Path(".continuum/simulate-0.json").read_text("utf-8"))
    assert saved["clauses"] == ["LEA-1", "LEA-4"]


def test_the_trace_of_a_world_is_written(run):
    run("simulate", IN_MEMORY, "--seed", "3", "--trace", "a.txt")
    run("simulate", IN_MEMORY, "--seed", "3", "--trace", "b.txt")
    text = Path("a.txt").read_bytes()
    assert text == Path("b.txt").read_bytes()
    assert b"start_run r0" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing:Here"], "there is no module 'nothing'"),
        ([IN_MEMORY, "--engine", "nothing:here"], "worker function 'nothing:here' cannot be loaded"),
        ([IN_MEMORY, "--engine", "nothing"], "write module:name"),
        ([IN_MEMORY, "--engine", "os:sep"], "is a str, and no worker function"),
        ([IN_MEMORY, "--seeds", "9..1"], "no range of seeds"),
        ([IN_MEMORY, "--seeds", "1..2", "--seed", "3"], "not allowed with"),
        ([IN_MEMORY, "--workers", "0"], "no whole number from 1 to 100"),
        ([IN_MEMORY, "--hours", "-1"], "no number of hours"),
        ([IN_MEMORY, "--trace", "x"], "name it with --seed"),
        ([IN_MEMORY, "--dask", "tcp://127.0.0.1:1", "--jobs", "2"], "contradict each other"),
        (["test_simulate_cli:Unleased"], "declares no `leases`"),
        (
            ["test_simulate_cli:Unopenable"],
            "the adapter's harness fails: open() raised RuntimeError: there is no database here",
        ),
    ],
)
def test_wrong_usage_is_2_and_says_what_to_do(run, arguments, said, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    code, _, err = run("simulate", *arguments)
    assert code == 2
    assert said in err
    assert "Traceback" not in err


class Unleased:
    capabilities = frozenset({"snapshots"})

    def open(self):
        return None


class Unopenable:
    capabilities = frozenset({"leases"})

    def open(self):
        raise RuntimeError("there is no database here")


def test_a_damaged_world_is_2(run):
    Path("x.json").write_text('{"kind": "simulation", "format": 1, "target": "in_memory"}')
    code, _, err = run("replay", "x.json")
    assert code == 2
    assert "is damaged" in err


@pytest.mark.parametrize(
    ("engine", "code", "said"), [("", 3, "nothing wrong"), (WRONG_ENGINE, 1, "see it with --seed 0")]
)
def test_an_interrupted_campaign_tells_what_it_has(run, monkeypatch, engine, code, said):
    monkeypatch.setattr(simulating, "campaign", interrupted_campaign)
    came, out, err = run("simulate", IN_MEMORY, "--engine", engine, "--seeds", "0..99")
    assert (came, err) == (code, "")
    assert "interrupted after 5 of 100 worlds" in out
    assert said in out


def interrupted_campaign(job, seeds, executor, *, progress, **more):
    """The signal comes after the first piece."""

    def told(done):
        progress(done)
        raise KeyboardInterrupt

    return campaign(job, seeds, executor, progress=told, **more)


# -- campaigns elsewhere --


def outcome(done):
    return done.seeds, done.operations, done.sometimes, sorted(done.failing)


def test_a_campaign_comes_to_the_same_wherever_it_runs():
    job = Job(IN_MEMORY, engine=WRONG_ENGINE, path=(str(ROOT),))
    here = outcome(campaign(job, range(8)))
    with ThreadPoolExecutor(2) as threads:
        assert outcome(campaign(job, range(8), threads, jobs=2, chunk=3)) == here
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        assert outcome(campaign(job, range(8), processes, jobs=2, chunk=3)) == here


def test_two_processes_are_told_with_jobs():
    """In a process of its own, since the pool starts others as this one was started."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "continuum_conformance.cli", "simulate", IN_MEMORY]
    told = subprocess.run(
        [*command, "--seeds", "0..9", "--jobs", "2"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert "nothing wrong: 10 worlds" in told.stdout


def test_a_campaign_runs_on_a_dask_cluster(run):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (the extra `dask`)")
    job = Job(IN_MEMORY, engine=WRONG_ENGINE, path=(str(ROOT),))
    here = outcome(campaign(job, range(8)))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as local,
        distributed.Client(local) as client,
    ):
        assert outcome(campaign(job, range(8), client.get_executor(), jobs=2, chunk=3)) == here
        code, out, _ = run("simulate", IN_MEMORY, "--seeds", "0..7", "--dask", local.scheduler_address)
    assert code == 0
    assert "nothing wrong: 8 worlds" in out


def test_no_dask_scheduler_is_3(run):
    pytest.importorskip("distributed", reason="Dask is not installed (the extra `dask`)")
    code, _, err = run("simulate", IN_MEMORY, "--dask", "tcp://127.0.0.1:9")
    assert code == 3
    assert "there is no Dask scheduler at tcp://127.0.0.1:9" in err
