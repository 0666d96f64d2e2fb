"""The in-memory journal: what of it the suite does not ask, its clock above all."""

import math
import threading
from datetime import UTC, datetime

import pytest
from continuum_adapters.in_memory import InMemoryHarness, InMemoryJournal

from continuum_conformance.contract import (
    Instance,
    Journal,
    JournalUnavailable,
    Lease,
    LeaseHeld,
    LeaseMismatch,
    RunNotFound,
    SequenceConflict,
    Snapshot,
)

HERE = Instance("here")


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(clock: Clock) -> InMemoryJournal:
    journal = InMemoryJournal(clock)
    journal.start_run(HERE, "run", "flow", None)
    return journal


def test_it_is_a_journal(journal: InMemoryJournal) -> None:
    assert isinstance(journal, Journal)


def test_a_lease_is_live_until_its_ttl_has_passed_on_the_given_clock(
    journal: InMemoryJournal, clock: Clock
) -> None:
    journal.acquire(HERE, "run", "a", 10)
    clock.now += 9.999
    with pytest.raises(LeaseHeld):
        journal.acquire(HERE, "run", "b", 10)
    clock.now += 0.001
    assert journal.acquire(HERE, "run", "b", 10) == Lease("run", "b", 2)


@pytest.mark.parametrize("now", [1000.0, 0.0, -1e9, 1e9, -math.inf])
def test_a_ttl_of_0_is_takeable_whatever_the_clock_does(
    journal: InMemoryJournal, clock: Clock, now: float
) -> None:
    lease = journal.acquire(HERE, "run", "a", 10)
    journal.renew(HERE, lease, 0)
    clock.now = now
    assert journal.acquire(HERE, "run", "b", 0).token > lease.token


def test_a_renewal_counts_from_now(journal: InMemoryJournal, clock: Clock) -> None:
    lease = journal.acquire(HERE, "run", "a", 10)
    clock.now += 100
    journal.renew(HERE, lease, 10)
    clock.now += 9
    with pytest.raises(LeaseHeld):
        journal.acquire(HERE, "run", "b", 10)


def test_an_expired_lease_still_writes_and_still_refuses_none(journal: InMemoryJournal, clock: Clock) -> None:
    lease = journal.acquire(HERE, "run", "a", 10)
    clock.now += 100
    journal.append(HERE, "run", {"type": "e"}, lease.token)
    with pytest.raises(LeaseMismatch):
        journal.append(HERE, "run", {"type": "e"}, None)


def test_terms_are_copied_in_and_out(journal: InMemoryJournal) -> None:
    event = {"type": "e", "payload": [1]}
    journal.append(HERE, "run", event, None)
    event["payload"].append(2)
    journal.load(HERE, "run")[0]["payload"].append(3)
    assert journal.load(HERE, "run") == [{"type": "e", "payload": [1], "seq": 0}]
    assert event == {"type": "e", "payload": [1, 2]}


def test_a_snapshot_is_copied_in_and_out(journal: InMemoryJournal) -> None:
    journal.append(HERE, "run", {"type": "e"}, None)
    steps = {0: [1]}
    journal.take_snapshot(HERE, Snapshot("run", 0, b"v", datetime.now(UTC), steps))
    steps[0].append(2)
    snapshot, events = journal.load_with_snapshot(HERE, "run", None)
    assert snapshot is not None
    assert (snapshot.steps_by_seq, events) == ({0: [1]}, [])


def test_handles_of_one_harness_share_a_store_and_are_closed_apart() -> None:
    harness = InMemoryHarness()
    first, second = harness.open(), harness.open()
    first.start_run(HERE, "run", "flow", None)
    harness.close(first)
    harness.close(first)
    assert second.get_run(HERE, "run") is not None
    with pytest.raises(JournalUnavailable) as caught:
        first.get_run(HERE, "run")
    assert not caught.value.outcome_unknown


def test_an_error_names_its_operation_and_run(journal: InMemoryJournal) -> None:
    with pytest.raises(SequenceConflict) as caught:
        journal.append(HERE, run_id="run", event={"type": "e", "seq": 5}, lease_token=None)
    assert (caught.value.operation, caught.value.run_id) == ("append", "run")
    with pytest.raises(RunNotFound) as caught_renewal:
        journal.renew(HERE, Lease("nobody", "a", 1), 10)
    assert (caught_renewal.value.operation, caught_renewal.value.run_id) == ("renew", "nobody")


def test_threads_lose_nothing_and_repeat_nothing(journal: InMemoryJournal) -> None:
    def work() -> None:
        for _ in range(200):
            journal.append(HERE, "run", {"type": "e"}, None)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event["seq"] for event in journal.load(HERE, "run")] == list(range(1600))
