"""A simulated world: the same for the same seed, survived by what is right, and rich in what is rare."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from continuum_adapters.in_memory import InMemoryHarness, InMemoryJournal

from continuum_conformance.contract.targets import TargetError
from continuum_conformance.harness import Subject
from continuum_conformance.postgres import provide
from continuum_conformance.simulate.campaign import Job, campaign
from continuum_conformance.simulate.dice import Dice
from continuum_conformance.simulate.engine import Engine
from continuum_conformance.simulate.nemesis import CLIENT, QUIET, Fault
from continuum_conformance.simulate.scenario import PlannedRun, Scenario
from continuum_conformance.simulate.simulation import simulate
from continuum_conformance.simulate.sometimes import SOMETIMES
from continuum_conformance.simulate.workflow import Entry, Workflow, draw_workflow

IN_MEMORY = "continuum_adapters.in_memory:InMemoryHarness"
GOLDEN = "ec2085011a37356be47b69dcf447ab5e00c62d7588b736b050d36fea339715be"
"""Of the trace of `WORLD`, on every supported Python. It changes whenever the worlds do."""

WORLD = """
import hashlib
from continuum_adapters.in_memory import InMemoryHarness
from continuum_conformance.harness import Subject
from continuum_conformance.simulate.scenario import Scenario
from continuum_conformance.simulate.simulation import simulate
digest = hashlib.sha256()
for seed in range(8):
    scenario = Scenario.draw(seed, workers=4, runs=12, hours=2)
    digest.update(simulate(scenario, Subject(InMemoryHarness)).trace.text.encode())
print(digest.hexdigest())
"""


def world(scenario, harness=InMemoryHarness, **more):
    return simulate(scenario, Subject(harness), **more)


def quiet(*workflows, faults=(), workers=(1, 2), until=0):
    runs = tuple(PlannedRun(n, 0, workflow) for n, workflow in enumerate(workflows))
    return Scenario(0, workers, runs, tuple(faults), None, until, calm=True)


STEPS = Workflow("steps", (Entry("step", 0, 10), Entry("step", 1, 10), Entry("step", 2, 10)), 5)


@pytest.mark.parametrize("hash_seed", ["0", "42"])
def test_the_same_seed_gives_the_same_bytes_whatever_the_hashes(hash_seed):
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run(
        [sys.executable, "-c", WORLD], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == GOLDEN


def test_the_dice_are_the_same_everywhere_and_differ_by_name():
    dice = Dice(7, "a", 1)
    thrown = [dice.whole(0, 99), dice.skewed(1, 1000), dice.pick("abc"), dice.chance(0.5)]
    assert thrown == DICE
    assert [Dice(7, "a", n).whole(0, 10**6) for n in range(3)] == FIRST


DICE = [67, 6, "b", False]
FIRST = [737_369, 673_887, 742_769]


def test_a_quiet_world_leaves_the_history_without_faults():
    came = world(quiet(STEPS))
    assert came.finding is None
    appended = [m.operation.arguments["event"] for m in came.trace.moments if _is_append(m)]
    assert appended == STEPS.history()


def _is_append(moment):
    return moment.kind == "effect" and moment.operation.name == "append"


def test_workflows_are_of_every_kind_and_know_their_end():
    drawn = [draw_workflow(Dice(seed, "x"), "w", longest_timer=900) for seed in range(300)]
    assert {entry.kind for w in drawn for entry in w.entries} == {"step", "attempt", "timer", "fired"}
    assert {w.fails for w in drawn} == {True, False}
    assert min(w.snapshot_every for w in drawn) == 0
    assert max(w.snapshot_every for w in drawn) == 5
    assert all(len(w.history()) == len(w) for w in drawn)


@pytest.mark.parametrize("seed", range(5))
def test_a_scenario_survives_a_file(seed):
    scenario = Scenario.draw(seed, workers=3, runs=4, hours=1)
    assert Scenario.of_data(scenario.data()) == scenario
    written = world(scenario).written_out
    assert Scenario.of_data(written.data()) == written


@pytest.mark.parametrize("seed", range(5))
def test_a_world_written_out_happens_as_it_did(seed):
    first = world(Scenario.draw(seed, workers=3, runs=4, hours=1))
    again = world(first.written_out)
    assert again.trace.text == first.trace.text


def test_the_standard_campaign_meets_every_rare_situation_and_finds_nothing():
    done = campaign(Job(IN_MEMORY), range(200))
    assert done.failing == {}
    assert done.never == []
    assert set(done.sometimes) <= set(SOMETIMES)
    assert done.seconds < 60  # of the processor; a few are usual


def test_a_day_of_ten_workers_and_a_hundred_runs_takes_seconds():
    done = campaign(Job(IN_MEMORY, workers=10, runs=100, hours=24), range(1))
    assert done.failing == {}
    assert done.hours >= 12
    assert done.seconds < 10


def test_sqlite_survives_and_lets_the_kit_expire_its_leases():
    done = campaign(Job("continuum_adapters.sqlite:SQLiteHarness"), range(6))
    assert done.failing == {}
    assert done.sometimes["takeover"] > 0


def test_postgres_survives():
    with provide("auto") as server:
        done = campaign(Job("continuum_adapters.postgres:PostgresHarness", dsn=server.dsn), range(4))
    assert done.failing == {}
    assert done.sometimes["takeover"] > 0


def test_the_same_programs_run_over_every_target():
    """What workers do and what they are told is the same, but for the kit's own expiries."""

    def told(job):
        moments = job.simulate(job.scenario(3)).trace.moments
        asked = [m for m in moments if m.kind == "effect" and m.operation.name not in ("acquire", "renew")]
        return [(m.at, m.who, m.operation.name, m.outcome.kind, m.outcome.error) for m in asked]

    assert told(Job(IN_MEMORY)) == told(Job("continuum_adapters.sqlite:SQLiteHarness"))


def test_an_adapter_without_leases_cannot_be_simulated():
    class Unleased(InMemoryHarness):
        capabilities = frozenset({"snapshots"})

    with pytest.raises(TargetError, match="declares no `leases`"):
        world(quiet(STEPS), Unleased)


def test_an_adapter_with_uuids_for_run_ids_and_without_snapshots_is_simulated():
    class Plain(InMemoryHarness):
        capabilities = frozenset({"leases"})

    came = world(Scenario.draw(1, workers=3, runs=4, hours=1), Plain)
    assert came.finding is None
    assert not any(m.operation and m.operation.name == "take_snapshot" for m in came.trace.moments)


@pytest.mark.parametrize("target", [InMemoryJournal, InMemoryHarness()])
def test_a_bare_journal_and_a_harness_that_is_used_again_are_simulated(target):
    for seed in range(2):
        scenario = Scenario.draw(seed, workers=3, runs=3, hours=1)
        came = simulate(scenario, Subject(target), instance=f"world-{seed}")
        assert came.finding is None
        assert came.operations > 20


class Hanging(InMemoryHarness):
    """Its suspend never comes back."""

    class journal_class(InMemoryJournal):  # noqa: N801 - the harness's own name for it
        def suspend(self, instance, run_id, lease_token):
            threading.Event().wait()


def test_a_call_that_does_not_come_back_is_a_finding():
    timer = Workflow("timer", (Entry("timer", 0, 0), Entry("fired", 0, 600)), 5)
    came = simulate(quiet(timer), Subject(Hanging, limit=0.2))
    assert came.finding.message == "suspend did not come back within 0.2 s"
    assert came.finding.clauses == ("CON-4",)


@pytest.mark.parametrize("clock", [True, False])
def test_an_async_adapter_is_simulated(clock):
    class Harness(InMemoryHarness):
        def open(self):
            return Coroutines(super().open())

        def close(self, journal):
            pass

    harness = Harness()
    if not clock:
        harness = Unclocked(harness)
    came = simulate(Scenario.draw(1, workers=3, runs=3, hours=1), Subject(harness))
    assert came.finding is None
    assert came.operations > 20


class Unclocked:
    """A harness that tells of no clock."""

    capabilities = InMemoryHarness.capabilities

    def __init__(self, inner):
        self.inner = inner

    def open(self):
        return self.inner.open()


class Coroutines:
    """A journal as coroutines."""

    def __init__(self, inner):
        self.inner = inner

    async def start_run(self, *given):
        return self.inner.start_run(*given)

    async def append(self, *given):
        return self.inner.append(*given)

    async def load(self, *given):
        return self.inner.load(*given)

    async def load_with_snapshot(self, *given):
        return self.inner.load_with_snapshot(*given)

    async def take_snapshot(self, *given):
        return self.inner.take_snapshot(*given)

    async def suspend(self, *given):
        return self.inner.suspend(*given)

    async def complete(self, *given):
        return self.inner.complete(*given)

    async def fail(self, *given):
        return self.inner.fail(*given)

    async def get_run(self, *given):
        return self.inner.get_run(*given)

    async def acquire(self, *given):
        return self.inner.acquire(*given)

    async def renew(self, *given):
        return self.inner.renew(*given)

    async def release(self, *given):
        return self.inner.release(*given)


# -- what strikes --


def struck(*faults, until=600_000, worker=None, workflow=STEPS):
    more = {"worker": worker} if worker is not None else {}
    return world(quiet(workflow, faults=faults, until=until), **more)


def test_a_machine_that_dies_leaves_its_lease_to_another():
    came = struck(Fault("crash", 1, at=5_000, lasts=300_000))
    assert came.finding is None
    assert came.sometimes["takeover"] == 1
    assert came.sometimes["crash under a lease"] == 1


def test_a_pause_beyond_the_lease_fences_who_paused():
    came = struck(Fault("pause", 1, at=10_500, lasts=90_000))
    assert came.finding is None
    assert came.sometimes["pause beyond the lease"] == 1
    assert came.sometimes["takeover"] == 1


def test_a_lost_reply_is_not_appended_twice():
    came = struck(Fault("lose reply", 1, call=0, run=0, operation="append"))
    assert came.finding is None
    assert came.sometimes["append unseen"] == 1


def test_a_late_append_is_refused():
    came = struck(Fault("delay request", 1, call=0, run=0, operation="append", lasts=30_000))
    assert came.finding is None
    assert came.sometimes["late append refused"] == 1


def test_an_outage_is_waited_out():
    came = struck(Fault("outage", CLIENT, at=9_000, lasts=60_000))
    assert came.finding is None
    assert came.sometimes["refused by an outage"] > 0


@pytest.mark.parametrize("kind", ["mute", "deaf", "slow", "skew", "release"])
def test_whatever_strikes_a_machine_the_run_is_finished(kind):
    came = struck(Fault(kind, 1, at=10_500, lasts=120_000))
    assert came.finding is None
    assert [fault.kind for fault in came.fired] == [kind]


# -- who judges --


class Idle(Engine):
    """Takes no run at all."""

    async def work(self, node):
        await node.sleep(10**6)


class Breathless(Engine):
    """Never lets time go by."""

    async def work(self, node):
        while True:
            await node.sleep(0)


class Clumsy(Engine):
    """Falls over."""

    async def carry_on(self, node, held):
        raise ZeroDivisionError("no")


class Hasty(Engine):
    """Finishes before the history is whole."""

    async def append(self, node, held, progress, event):
        if progress.seq == 0:
            await super().append(node, held, progress, event)
        progress.seq = len(progress.workflow) - 1

    async def snapshot(self, node, held, progress):
        pass


@pytest.mark.parametrize(
    ("engine", "judge", "said"),
    [
        (Idle, "liveness", "r0 is not finished 36 minutes after the faults have stopped: it is running"),
        (Breathless, "worker", "without letting time go by"),
        (Clumsy, "worker", "w1 fell over at test_simulate.py, line"),
        (Hasty, "finish", "completed after 1 of 3 events"),
    ],
)
def test_a_judge_for_each_wrong_turn(engine, judge, said):
    came = world(quiet(STEPS), worker=engine().work)
    assert came.finding is not None
    assert came.finding.judge == judge
    assert said in came.finding.message


def test_the_bound_of_liveness_grows_with_the_work():
    one, two = quiet(STEPS), quiet(STEPS, replace(STEPS, name="more"))
    assert 0 < one.bound < two.bound
    assert replace(one, within=5).bound == 5


def test_a_seed_with_no_faults_at_all_is_simulated_too():
    scenario = replace(Scenario.draw(4, workers=2, runs=3, hours=0.5), faults=(), rates=QUIET)
    came = world(scenario)
    assert came.finding is None
    assert came.fired == ()
