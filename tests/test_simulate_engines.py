"""For those who write engines: their worker function in a simulated cluster, and a journal that misbehaves."""

from __future__ import annotations

import asyncio
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from continuum_adapters.in_memory import InMemoryHarness, InMemoryJournal
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from continuum_conformance.contract import (
    Instance,
    JournalUnavailable,
    LeaseHeld,
    LeaseLost,
    LeaseMismatch,
    RunNotActive,
    RunNotFound,
    SequenceConflict,
)
from continuum_conformance.harness import Subject
from continuum_conformance.simulate import (
    FaultPlan,
    FaultyJournal,
    SimulatedCluster,
    SimulatedRun,
    SimulationFailed,
)
from continuum_conformance.simulate.nemesis import Fault
from continuum_conformance.simulate.simulation import simulate

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
HERE = Instance("shop")


@pytest.fixture
def examples(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for name in ("engine", "broken_engine", "test_engine"):
        sys.modules.pop(name, None)
    import broken_engine
    import engine
    import test_engine

    return engine, broken_engine, test_engine.ORDERS


def cluster(worker, runs, **more):
    return SimulatedCluster(worker, runs, **{"hours": 0.5, "within": 2, "journal": InMemoryHarness, **more})


def test_the_example_survives_and_its_worlds_are_rich(examples):
    engine, _, orders = examples
    met = cluster(engine.worker, orders).check(range(60))
    assert met["takeover"] > 20
    assert met["step carried out twice"] > 0


def test_the_broken_example_is_told_as_in_the_docs(examples):
    _, broken, orders = examples
    with pytest.raises(SimulationFailed) as caught:
        cluster(broken.worker, orders).check(range(60))
    finding = caught.value.simulated.finding
    assert finding.judge == "step"
    story = str(caught.value)
    assert "LeaseLost" in story
    assert "stands still" in story
    docs = (EXAMPLES.parent / "simulate.md").read_text("utf-8")
    assert story.split("\n\n", 1)[1].strip() in docs


def test_hypothesis_keeps_a_failing_seed_for_others(examples, tmp_path):
    """As in the docs: whoever shares the database tries it first."""
    _, broken, orders = examples
    tried = []

    @settings(
        database=DirectoryBasedExampleDatabase(tmp_path),
        phases=(Phase.reuse, Phase.generate),
        deadline=None,
        derandomize=False,
    )
    @given(seed=st.integers(0, 2**32))
    def every_order_is_shipped_once(seed):
        tried.append(seed)
        finding = cluster(broken.worker, orders).run(seed).finding
        assert finding is None, finding

    with pytest.raises(AssertionError):
        every_order_is_shipped_once()
    failing = tried[-1]
    tried.clear()
    with pytest.raises(AssertionError):
        every_order_is_shipped_once()
    assert tried[0] == failing


# -- a worker function that blocks --


def blocking(node):
    """The smallest engine that is right: one event, then the end."""
    while True:
        run_id = node.next_run()
        try:
            lease = node.journal.acquire(node.instance, run_id, node.name, 30)
        except RunNotActive:
            node.done(run_id)
            continue
        except (LeaseHeld, RunNotFound, JournalUnavailable):
            continue
        alive = [True]
        node.spawn(beat, node, lease, alive)
        try:
            events = node.journal.load(node.instance, run_id)
            node.sleep(5)
            if not events:
                node.journal.append(node.instance, run_id, {"type": "done", "seq": 0}, lease.token)
            node.journal.complete(node.instance, run_id, "well", lease_token=lease.token)
            node.done(run_id)
        except (LeaseMismatch, RunNotActive, SequenceConflict, JournalUnavailable):
            continue
        finally:
            alive[0] = False


def beat(node, lease, alive):
    while alive[0]:
        node.sleep(10)
        try:
            node.journal.renew(node.instance, lease, 30)
        except (LeaseLost, RunNotActive, JournalUnavailable):
            continue


RUNS = [SimulatedRun(f"run-{n}", result="well", history=[{"type": "done"}], start=n * 90.0) for n in range(4)]


def test_a_worker_function_that_blocks_is_simulated_too():
    met = cluster(blocking, RUNS).check(range(25))
    assert met["takeover"] > 0


def test_threads_make_no_difference_from_one_time_to_the_next():
    texts = {cluster(blocking, RUNS).run(seed=3).trace.text for _ in range(3)}
    assert len(texts) == 1


def stubborn(node):
    """Hears of no crash."""
    while True:
        try:
            node.sleep(60)
        except BaseException:
            continue


def test_a_worker_that_will_not_die_ends_with_its_machine():
    came = cluster(stubborn, RUNS, faults=["crash"], hours=0.2, within=0.2).run(seed=1)
    assert came.finding.judge == "liveness"


@pytest.mark.parametrize(
    ("result", "history", "judge", "said"),
    [
        ("ill", None, "finish", "completed with 'well'; without faults with 'ill'"),
        ("well", [{"type": "other"}], "history", "event 0 is done(); without faults it is other()"),
        ("well", [{"type": "done"}, {"type": "more"}], "finish", "after 1 of 2 events"),
    ],
)
def test_a_run_must_come_to_what_was_said(result, history, judge, said):
    runs = [SimulatedRun("one", result=result, history=history)]
    finding = cluster(blocking, runs, faults=[]).run().finding
    assert finding.judge == judge
    assert said in finding.message


def test_a_run_that_must_fail():
    runs = [SimulatedRun("one", error={"reason": "no"})]
    finding = cluster(blocking, runs, faults=[]).run().finding
    assert "the run was completed; without faults it is failed" in finding.message


def test_without_faults_nothing_strikes():
    came = cluster(blocking, RUNS, faults=[]).run(seed=5)
    assert came.finding is None
    assert came.fired == ()


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="earthquake is no fault"):
        cluster(blocking, RUNS, faults=["earthquake"])
    with pytest.raises(ValueError, match="an id of its own"):
        cluster(blocking, [*RUNS, RUNS[0]])
    with pytest.raises(ValueError, match="an id of its own"):
        cluster(blocking, [])


def misspelt(node):
    node.journal.acquire(node.instance, node.next_run(), owner=node.name)


def test_a_call_with_wrong_arguments_is_a_finding_at_the_line():
    finding = cluster(misspelt, RUNS, faults=[]).run().finding
    assert finding.judge == "worker"
    assert "acquire takes instance, run_id, owner, ttl" in finding.message
    assert "test_simulate_engines.py" in finding.message


ENOUGH = threading.Event()


async def awaits_nothing(node):
    while not ENOUGH.is_set():
        node.sleep(1)


def test_a_loop_without_an_await_is_found():
    came = simulate(
        cluster(awaits_nothing, RUNS).scenario(0),
        Subject(InMemoryHarness, limit=0.2),
        worker=awaits_nothing,
        given=dict(enumerate(RUNS)),
    )
    ENOUGH.set()
    assert came.finding.judge == "worker"
    assert "is an await missing in a loop?" in came.finding.message


async def spawns_another_form(node):
    node.spawn(beat, node, None, [])


async def coroutine(node):
    await node.sleep(1)


@pytest.mark.parametrize(
    ("worker", "said"),
    [
        (spawns_another_form, "spawn takes a coroutine function here"),
        (lambda node: node.spawn(coroutine, node), "spawn takes a plain function that blocks here"),
        (lambda node: coroutine(node), "returns a coroutine; write it as `async def`"),
    ],
)
def test_forms_are_not_mixed(worker, said):
    finding = cluster(worker, RUNS, faults=[]).run().finding
    assert finding.judge == "worker"
    assert said in finding.message


class Tidy:
    """An engine that cleans up when it ends, of whatever it ends."""

    async def __call__(self, node):
        run_id = await node.next_run()
        lease = await node.journal.acquire(node.instance, run_id, node.name, 600)
        try:
            await node.sleep(3_000)
        finally:
            node.perform(run_id, "clean-up", lease)
            await node.journal.complete(node.instance, run_id, "ill", lease.token)


async def lingers(node):
    """Finishes its run, and cleans up when the world ends."""
    run_id = await node.next_run()
    lease = await node.journal.acquire(node.instance, run_id, node.name, 600)
    try:
        await node.journal.complete(node.instance, run_id, "well", lease.token)
        await node.sleep(3_000)
    finally:
        node.perform(run_id, "clean-up", lease)


def test_when_the_world_is_over_nothing_counts():
    came = cluster(lingers, [SimulatedRun("one", result="well")], workers=1, faults=[]).run()
    assert came.finding is None
    assert "clean-up" not in came.trace.text


def test_a_dead_machine_does_nothing_on_its_way_out():
    tidy = cluster(Tidy(), RUNS[:1], workers=1, within=1)
    scenario = replace(tidy.scenario(0), faults=(Fault("crash", 1, at=5_000, lasts=10**9),), rates=None)
    came = tidy.simulate(scenario)
    assert came.finding.judge == "liveness"
    assert "clean-up" not in came.trace.text
    assert "complete" not in came.trace.text


# -- a journal that misbehaves within the contract --


def faulty(at=None, **rates):
    plan = FaultPlan.exactly(at) if at is not None else FaultPlan(**rates)
    return FaultyJournal(InMemoryJournal(), 7, plan)


def started(journal):
    journal.start_run(HERE, "r", "w", None)
    return journal.acquire(HERE, "r", "me", 60)


@pytest.mark.parametrize(
    ("kind", "unknown", "events"), [("refused", False, 0), ("lost", True, 0), ("unseen", True, 1)]
)
def test_a_call_fails_before_or_after_its_effect(kind, unknown, events):
    journal = faulty({2: kind})
    lease = started(journal)
    with pytest.raises(JournalUnavailable) as caught:
        journal.append(HERE, "r", {"type": "e"}, lease.token)
    assert caught.value.outcome_unknown is unknown
    assert (caught.value.operation, caught.value.run_id) == ("append", "r")
    assert len(journal.load(HERE, "r")) == events
    assert journal.faults == [(2, "append", kind)]


def test_a_refusal_may_be_unseen_too():
    journal = faulty({1: "unseen"})
    with pytest.raises(RunNotFound):
        journal.acquire(HERE, "none", "me", 60)
    with pytest.raises(JournalUnavailable):
        journal.acquire(HERE, "none", "me", 60)


def test_a_lease_that_was_given_back_is_not_fenced():
    journal = faulty({3: "fenced"})
    lease = started(journal)
    journal.release(HERE, lease)
    journal.append(HERE, "r", {"type": "e"}, None)
    assert journal.faults == []


def starts_a_child(node):
    """Every run starts another one, of which nobody knew."""
    while True:
        run_id = node.next_run()
        lease = node.journal.acquire(node.instance, run_id, node.name, 600)
        node.journal.start_run(node.instance, f"{run_id}-child", "child", None)
        node.journal.complete(node.instance, f"{run_id}-child", None, None)
        node.journal.complete(node.instance, run_id, "well", lease.token)
        node.done(run_id)


def test_a_write_without_a_lease_is_found_on_runs_that_nobody_planned_too():
    finding = cluster(starts_a_child, RUNS[:1], faults=[]).run().finding
    assert finding.judge == "writer"
    assert finding.run_id == "run-0-child"


def test_who_is_fenced_really_is():
    inner = InMemoryJournal()
    journal = FaultyJournal(inner, 7, FaultPlan.exactly({2: "fenced"}))
    lease = started(journal)
    with pytest.raises(LeaseMismatch):
        journal.append(HERE, "r", {"type": "e"}, lease.token)
    with pytest.raises(LeaseLost):
        inner.renew(HERE, lease, 60)
    assert inner.load(HERE, "r") == []
    assert journal.acquire(HERE, "r", "me", 60).token > lease.token


def test_a_slow_call_takes_its_time_and_then_happens():
    slept = []
    journal = FaultyJournal(
        InMemoryJournal(), 7, FaultPlan(0, 0, 0, 0, slow=1.0, slowest=3.0), sleep=slept.append
    )
    journal.start_run(HERE, "r", "w", None)
    assert journal.get_run(HERE, "r") is not None
    assert len(slept) == 2
    assert all(0 < seconds <= 3 for seconds in slept)


def test_the_same_seed_gives_the_same_faults_and_another_others():
    def faults(seed):
        journal = FaultyJournal(InMemoryJournal(), seed, FaultPlan(0.1, 0.1, 0.1, 0.1))
        for n in range(100):
            try:
                journal.start_run(HERE, f"r{n}", "w", None)
                journal.acquire(HERE, f"r{n}", "me", 60)
            except (JournalUnavailable, RunNotFound):
                continue
        return journal.faults

    assert faults(1) == faults(1) != faults(2)
    assert {kind for *_, kind in faults(1)} == {"refused", "lost", "unseen"}


def test_only_some_operations_are_struck():
    journal = faulty(refused=1.0, only={"append"})
    lease = started(journal)
    with pytest.raises(JournalUnavailable):
        journal.append(HERE, "r", {"type": "e"}, lease.token)


def test_a_wrong_plan_is_told():
    with pytest.raises(ValueError, match="burned is no fault"):
        FaultPlan(at={1: "burned"})
    with pytest.raises(ValueError, match="apend is no operation"):
        FaultPlan(only={"apend"})


class AsyncJournal:
    """The journal in memory as coroutines."""

    def __init__(self):
        self.inner = InMemoryJournal()

    async def start_run(self, *arguments):
        return self.inner.start_run(*arguments)

    async def append(self, *arguments):
        return self.inner.append(*arguments)

    async def load(self, *arguments):
        return self.inner.load(*arguments)

    async def acquire(self, *arguments):
        return self.inner.acquire(*arguments)

    async def renew(self, *arguments):
        return self.inner.renew(*arguments)

    async def release(self, *arguments):
        return self.inner.release(*arguments)


def test_the_async_form_is_struck_alike():
    async def scene():
        journal = FaultyJournal(AsyncJournal(), 7, FaultPlan.exactly({2: "unseen", 4: "fenced"}))
        await journal.start_run(HERE, "r", "w", None)
        lease = await journal.acquire(HERE, "r", "me", 60)
        with pytest.raises(JournalUnavailable):
            await journal.append(HERE, "r", {"type": "e", "seq": 0}, lease.token)
        assert len(await journal.load(HERE, "r")) == 1
        with pytest.raises(LeaseMismatch):
            await journal.append(HERE, "r", {"type": "e", "seq": 1}, lease.token)
        assert not hasattr(journal, "take_snapshot")

    asyncio.run(scene())
