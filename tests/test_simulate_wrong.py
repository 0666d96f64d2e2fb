"""Engines and adapters that are wrong in a cluster are found by the standard campaign, and told on one screen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # they are named as `tests.simulated...`

from continuum_adapters.in_memory import InMemoryHarness, InMemoryJournal, Store

from continuum_conformance.contract import RunState
from continuum_conformance.simulate.campaign import Job, campaign
from continuum_conformance.simulate.files import SavedWorldError, is_world, load, save
from continuum_conformance.simulate.shrinking import ATTEMPTS, shrink
from continuum_conformance.simulate.story import story_lines, story_of
from tests.simulated import adapters, engines

IN_MEMORY = "continuum_adapters.in_memory:InMemoryHarness"
STANDARD = range(200)
WORKERS, STEPS, COLUMNS = 3, 20, 80


def found_and_told(job, attempts=ATTEMPTS):
    """The campaign's first find, made smaller, with its story held to what fits on a screen."""
    done = campaign(job, STANDARD, first=True)
    assert done.failing, "the standard campaign finds nothing"
    seed = min(done.failing)
    small, came_back = shrink(job.simulate(job.scenario(seed)), job.simulate, attempts=attempts)
    assert came_back
    assert small.finding.judge == done.failing[seed].judge
    assert len(small.scenario.workers) <= WORKERS
    assert len(story_of(small)) <= STEPS
    assert all(len(line) <= COLUMNS for line in story_lines(small))
    assert job.simulate(small.scenario).trace.text == small.trace.text  # replays exactly
    return small


@pytest.mark.parametrize(("engine", "judges"), engines.WRONG.items(), ids=lambda v: str(v).rpartition("_")[2])
def test_a_wrong_engine_is_found(engine, judges):
    small = found_and_told(Job(IN_MEMORY, engine=engine))
    assert small.finding.judge in judges
    assert small.finding.clauses == ()


@pytest.mark.parametrize(
    ("target", "clauses"), adapters.WRONG.items(), ids=lambda v: str(v).rpartition(":")[2]
)
def test_a_wrong_adapter_is_found(target, clauses):
    small = found_and_told(Job(target))
    assert small.finding.judge == "model"
    assert small.finding.clauses[0] in clauses


def test_there_are_enough_of_each():
    assert len(engines.WRONG) >= 6
    assert len(adapters.WRONG) >= 12


@pytest.fixture(scope="module")
def small():
    return found_and_told(Job(IN_MEMORY, engine="tests.simulated.engines:worker_FinishesUnfenced"))


def test_a_story_is_told_line_by_line(small):
    lines = story_lines(small)
    assert lines[0].split() == ["time", "who", "what"]
    (deciding,) = (line for line in lines if line.startswith(">"))
    assert "token=None" in deciding
    said = " ".join(" ".join(lines).split())
    assert "took effect under no lease rule: what changes a run is written under a lease" in said


class InRealTime(adapters.NeverExpires.Harness):
    """An adapter that is wrong about expiry, and tells of no clock: the kit lets its leases expire."""

    clock = None

    def __init__(self):
        self.store = Store()

    def open(self):
        return adapters.NeverExpires(store=self.store)


@pytest.mark.parametrize(
    ("target", "clause"),
    [
        (f"{__name__}:InRealTime", "LEA-1"),
        ("tests.known_bad.sql:TokenFromTheLeaseColumn.Harness", "LEA-1"),
        ("tests.known_bad.sql:SuspendsTheWholeInstance.Harness", "RUN-1"),
    ],
)
def test_a_wrong_adapter_that_keeps_real_time_is_found(target, clause):
    small = found_and_told(Job(target), attempts=150)
    assert small.finding.clauses[0] == clause


class SuspendsThemAll(InMemoryHarness):
    """`UPDATE runs SET state = 'suspended' WHERE instance = ?`."""

    class journal_class(InMemoryJournal):  # noqa: N801 - the harness's own name for it
        def suspend(self, instance, run_id, lease_token):
            super().suspend(instance, run_id, lease_token)
            with self._locked() as runs:
                for run in runs.values():
                    run.state = RunState.SUSPENDED


def test_what_happened_to_another_run_is_told_where_it_matters():
    small = found_and_told(Job(f"{__name__}:SuspendsThemAll"))
    told = story_of(small)
    assert len(small.scenario.runs) > 1
    assert any(step.text.startswith("suspend ") for step in told)
    assert told[-1].deciding


def test_a_world_is_kept_in_a_file_and_replays(small, tmp_path):
    file = tmp_path / "deep" / "world.json"
    save(small, file, target=IN_MEMORY, engine="tests.simulated.engines:worker_FinishesUnfenced")
    assert is_world(file)
    saved = load(file)
    again = Job(saved.target, engine=saved.engine).simulate(saved.scenario)
    assert again.finding == small.finding
    mended = Job(saved.target).simulate(saved.scenario)
    assert mended.finding is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no replay file"),
        ("[]", "holds no simulated world"),
        ('{"kind": "simulation", "format": 99}', "has format 99"),
        ('{"kind": "simulation", "format": 1}', "is damaged"),
    ],
)
def test_what_is_no_world_is_refused(text, said, tmp_path):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(SavedWorldError, match=said):
        load(file)


def test_a_world_in_which_nothing_is_wrong_is_not_kept(tmp_path):
    job = Job(IN_MEMORY)
    with pytest.raises(ValueError, match="nothing was wrong"):
        save(job.simulate(job.scenario(0)), tmp_path / "x.json", target=IN_MEMORY)


def test_a_find_that_does_not_come_back_is_kept_as_it_was():
    job = Job(IN_MEMORY, engine="tests.simulated.engines:worker_FinishesUnfenced")
    found = job.simulate(job.scenario(0))
    right = Job(IN_MEMORY)
    kept, came_back = shrink(found, right.simulate)
    assert not came_back
    assert kept is found


def test_shrinking_ends_when_its_attempts_are_spent():
    job = Job(IN_MEMORY, engine="tests.simulated.engines:worker_FinishesUnfenced")
    found = job.simulate(job.scenario(0))
    tried = []

    def attempt(scenario):
        tried.append(scenario)
        return job.simulate(scenario)

    kept, came_back = shrink(found, attempt, attempts=5)
    assert came_back
    assert len(tried) == 5 + 1  # and once more, with all the time that the world had
    assert kept.finding.judge == found.finding.judge


def test_a_smaller_world_must_show_the_same():
    """A world in which another judge finds something does not stand for it."""
    job = Job(IN_MEMORY, engine="tests.simulated.engines:worker_FinishesUnfenced")
    other = Job(IN_MEMORY, engine="tests.simulated.engines:worker_ForgetsARunThatItLost")
    found = job.simulate(job.scenario(0))
    kept, came_back = shrink(found, other.simulate)
    assert (kept, came_back) == (found, False)
