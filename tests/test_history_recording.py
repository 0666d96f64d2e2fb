"""Recording: stamps, what overlaps, and what is unknown."""

import threading
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from continuum_conformance.history import History, Recorded, Recorder
from continuum_conformance.model import Kind, Operation, Outcome

OK = Outcome.of(None)


def one(invoked: int, returned: int | None, outcome: Outcome = OK) -> Recorded:
    return Recorded(Operation("write", {}), outcome, invoked, returned, "A")


def test_stamps_lie_around_the_call() -> None:
    recorder = Recorder()
    outcome = recorder.call(Operation("read", {}, "A"), lambda operation: Outcome.of(operation.name), "B")
    assert outcome.value == "read"
    (entry,) = recorder.history()
    assert (entry.invoked, entry.returned, entry.worker) == (1, 2, "B")


def test_a_call_that_has_not_come_back_is_unknown() -> None:
    recorder = Recorder()
    call = recorder.invoke(Operation("write", {}))
    (entry,) = recorder.history()
    assert entry.unknown
    assert entry.returned is None
    assert "still running" in entry.outcome.message
    recorder.complete(call, OK)
    (entry,) = recorder.history()
    assert not entry.unknown


def test_a_call_that_raised_stays_recorded_as_unknown() -> None:
    recorder = Recorder()

    def fail(_operation: Operation) -> Outcome:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recorder.call(Operation("write", {}), fail)
    assert recorder.history()[0].unknown


def test_threads_record_everything_once_and_no_stamp_twice() -> None:
    recorder = Recorder()
    gate = threading.Barrier(8)

    def work(name: str) -> None:
        gate.wait()
        for _ in range(200):
            recorder.call(Operation("write", {}, name), lambda _operation: OK)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = recorder.history()
    stamps = [stamp for entry in history for stamp in (entry.invoked, entry.returned)]
    assert len(history) == 1600
    assert len(set(stamps)) == 3200
    assert sorted(history.workers) == [f"w{n}" for n in range(8)]
    for name in history.workers:
        own = [entry for entry in history if entry.worker == name]
        assert all(first.precedes(second) for first, second in pairwise(own))


def test_another_clock_may_be_given() -> None:
    recorder = Recorder(clock=time.monotonic_ns)
    recorder.call(Operation("write", {}), lambda _operation: OK)
    (entry,) = recorder.history()
    assert entry.returned is not None
    assert entry.invoked <= entry.returned <= time.monotonic_ns()


def test_intervals_are_closed_at_both_ends() -> None:
    assert one(1, 2).precedes(one(3, 4))
    assert not one(1, 3).precedes(one(3, 4))
    assert not one(1, 2, Outcome(Kind.HANG, unknown=True)).precedes(one(3, 4))


def test_who_gave_up_does_not_count_unless_nobody_knows() -> None:
    gave_up = replace(one(1, 2, Outcome(Kind.ERROR, error="JournalUnavailable")), gave_up=True)
    assert not gave_up.counts
    assert replace(gave_up, outcome=replace(gave_up.outcome, unknown=True)).counts
    recorder = Recorder()
    recorder.complete(recorder.invoke(Operation("write", {})), gave_up.outcome, gave_up=True)
    assert len(recorder.history().gave_up) == 1


def test_a_history_tells_how_much_overlapped() -> None:
    assert History.of([one(3, 4), one(1, 2)]).overlapping() == 1
    assert History.of([one(1, 3), one(3, 4)]).overlapping() == 2
    assert History.of([one(1, None), one(5, 9), one(6, 7)]).overlapping() == 3
    assert History().overlapping() == 0
    assert [entry.invoked for entry in History.of([one(3, 4), one(1, 2)])] == [1, 3]
