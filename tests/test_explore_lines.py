"""The line scheduler: which races it finds, that it repeats itself, and whom it does not accuse.

The stores below are small and wrong on purpose, or right. This file is the "adapter's own code" of the executor.
"""

from __future__ import annotations

import gc
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from continuum_conformance.explore.lines import LineExecutor
from continuum_conformance.explore.schedule import (
    Chooser,
    Execution,
    Scripted,
    Walk,
    pct_chooser,
    random_chooser,
    walk,
)

under_a_debugger = pytest.mark.skipif(
    sys.version_info < (3, 12) and sys.gettrace() is not None, reason="the trace function is taken"
)


@pytest.fixture
def executor() -> Iterator[LineExecutor]:
    with LineExecutor([__name__]) as opened:
        yield opened


class Store:
    """Numbers its events 0, 1, 2, ..., or tries to."""

    def __init__(self) -> None:
        self.events: list[int] = []
        self.lock = threading.Lock()
        self.count = 0

    def append(self) -> None:
        raise NotImplementedError

    def fine(self) -> bool:
        return self.events == [0, 1]


class OneLine(Store):
    def append(self) -> None:
        self.events.append(len(self.events))


class LostUpdate(Store):
    def append(self) -> None:
        self.count += 1

    def fine(self) -> bool:
        return self.count == 2


class LockReleasedBeforeTheWrite(Store):
    def append(self) -> None:
        with self.lock:
            seq = len(self.events)
        with self.lock:
            self.events.append(seq)


class DoubleChecked(Store):
    """The second check is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] | None = None

    def append(self) -> None:
        if self.made is None:
            with self.lock:
                self.made = []
        self.made.append(len(self.made))

    def fine(self) -> bool:
        return self.made == [0, 1]


class CopyThenReplace(Store):
    def append(self) -> None:
        copied = dict.fromkeys(self.events)
        copied[len(copied)] = None
        self.events = list(copied)


class Unlocked(Store):
    """A lock of each thread's own, which excludes nobody."""

    def append(self) -> None:
        with threading.Lock():
            self.events.append(len(self.events))


class OneLock(Store):
    def append(self) -> None:
        with self.lock:
            self.events.append(len(self.events))


class Reentrant(Store):
    def __init__(self) -> None:
        super().__init__()
        self.rlock = threading.RLock()

    def append(self) -> None:
        with self.rlock:
            self.push(self.next())

    def next(self) -> int:
        with self.rlock:
            return len(self.events)

    def push(self, seq: int) -> None:
        with self.rlock:
            self.events.append(seq)


class WithCondition(Store):
    """At most one inside, told so by a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.condition = threading.Condition()
        self.busy = False

    def append(self) -> None:
        with self.condition:
            while self.busy:
                self.condition.wait()
            self.busy = True
        self.events.append(len(self.events))
        with self.condition:
            self.busy = False
            self.condition.notify()


class WithSemaphore(Store):
    def __init__(self) -> None:
        super().__init__()
        self.semaphore = threading.BoundedSemaphore(1)

    def append(self) -> None:
        with self.semaphore:
            self.events.append(len(self.events))


class WithToken(Store):
    """Who has the token out of the queue may write."""

    def __init__(self, kind: Callable[[], Any] = queue.Queue) -> None:
        super().__init__()
        self.tokens = kind()
        self.tokens.put("token")

    def append(self) -> None:
        token = self.tokens.get()
        self.events.append(len(self.events))
        self.tokens.put(token)


@dataclass
class AsData:
    """The dataclass keeps the real factory of the lock from before anything was replaced."""

    events: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def append(self) -> None:
        with self.lock:
            self.events.append(len(self.events))

    def fine(self) -> bool:
        return self.events == [0, 1]


class Sleeps(Store):
    """Retries with a pause, as for a lock that it cannot wait for."""

    def append(self) -> None:
        while not self.lock.acquire(blocking=False):
            time.sleep(60)
        self.events.append(len(self.events))
        self.lock.release()


class Spins(Store):
    def append(self) -> None:
        while not self.lock.acquire(blocking=False):
            pass
        self.events.append(len(self.events))
        self.lock.release()


class GivesUp(Store):
    def __init__(self) -> None:
        super().__init__()
        self.gave_up = 0

    def append(self) -> None:
        if not self.lock.acquire(timeout=0.001):
            self.gave_up += 1
            return
        self.events.append(len(self.events))
        self.lock.release()


class LockOrder(Store):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = threading.Lock(), threading.Lock()
        self.turned = False

    def forwards(self) -> None:
        with self.first, self.second:
            self.count += 1

    def backwards(self) -> None:
        with self.second, self.first:
            self.count += 1


class LostWakeUp(Store):
    """Checks outside of the lock; a notify in between is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.condition = threading.Condition()
        self.ready = False

    def await_it(self) -> None:
        if not self.ready:
            with self.condition:
                self.condition.wait()

    def tell(self) -> None:
        self.ready = True
        with self.condition:
            self.condition.notify_all()


class Actor(Store):
    """One thread of its own does all the work. Right, and nothing that the scheduler can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: queue.Queue[threading.Event | None] = queue.Queue()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self) -> None:
        while (answered := self.requests.get()) is not None:
            self.events.append(len(self.events))
            answered.set()

    def append(self) -> None:
        answered = threading.Event()
        self.requests.put(answered)
        if not answered.wait(5):
            raise TimeoutError

    def close(self) -> None:
        self.requests.put(None)
        self.thread.join()


class Pool(Store):
    def __init__(self) -> None:
        super().__init__()
        self.pool = ThreadPoolExecutor(1)

    def append(self) -> None:
        self.pool.submit(self.work).result()

    def work(self) -> None:
        self.events.append(len(self.events))

    def close(self) -> None:
        self.pool.shutdown()


class Connection:
    """Is closed under a lock when it is forgotten, as drivers do; it holds itself, so that the collector finds it."""

    def __init__(self, lock: Any) -> None:
        self.lock, self.me = lock, self

    def __del__(self) -> None:
        with self.lock:
            pass


class ForgetsItsConnections(Store):
    """A connection for each event, which is nobody's afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = threading.Lock()

    def append(self) -> None:
        Connection(self.closing)
        with self.lock:
            self.events.append(len(self.events))


ALLOCATES = """
import gc

def allocates(names, current_first):
    gc.set_threshold(1)
    made = [[] for _ in range(100)]
    gc.set_threshold(0)
    return 0
"""
"""A chooser whose code is not of this file, which is the adapter's."""


def explore(executor: LineExecutor, make: Callable[[], Any], *, bound: int | None = None) -> Walk[Execution]:
    """Two appends at once, under all schedules; what is found is the execution that went wrong."""

    def attempt(chooser: Chooser) -> tuple[Execution, Execution | None]:
        store = make()
        execution = executor.run({"A": store.append, "B": store.append}, chooser)
        return execution, None if store.fine() else execution

    return walk(attempt, bound=bound, limit=5000)


@under_a_debugger
class TestRaces:
    @pytest.mark.parametrize(
        ("store", "latest"),
        [
            (OneLine, 3),
            (LostUpdate, 3),
            (LockReleasedBeforeTheWrite, 4),
            (DoubleChecked, 8),
            (CopyThenReplace, 4),
            (Unlocked, 4),
        ],
    )
    def test_a_race_is_found_at_an_early_schedule(
        self, executor: LineExecutor, store: type[Store], latest: int
    ) -> None:
        walked = explore(executor, store)
        assert walked.found is not None
        assert walked.runs <= latest
        assert walked.found.preemptions == 1
        assert executor.level == "instructions"

    def test_a_race_within_one_line_is_invisible_to_lines(self) -> None:
        with LineExecutor([__name__], granularity="lines") as executor:
            assert explore(executor, OneLine).found is None
            assert explore(executor, OneLine).exhausted
            assert executor.level == "lines"

    def test_a_race_between_lines_is_visible_to_lines(self) -> None:
        with LineExecutor([__name__], granularity="lines") as executor:
            assert explore(executor, LockReleasedBeforeTheWrite).found is not None

    def test_the_step_that_races_is_named(self, executor: LineExecutor) -> None:
        found = explore(executor, OneLine).found
        assert found is not None
        place, _, text = found.steps[-1].label.partition(" ")
        assert place.startswith("test_explore_lines.py:")
        assert text == "self.events.append(len(self.events))"
        # Both looked before either wrote.
        append = " self.events.append(len(self.events))"
        counted = [step.worker for step in found.steps if step.label.endswith(" len(self.events)")]
        written = [step.worker for step in found.steps if step.label.endswith(append)]
        assert sorted(counted) == sorted(written) == ["A", "B"]
        assert counted[0] == written[-1]

    @pytest.mark.parametrize("make", [random_chooser, pct_chooser])
    def test_drawn_schedules_find_it_too(
        self, executor: LineExecutor, make: Callable[[int], Chooser]
    ) -> None:
        def wrong(seed: int) -> bool:
            store = OneLine()
            executor.run({"A": store.append, "B": store.append}, make(seed))
            return not store.fine()

        assert any(wrong(seed) for seed in range(50))


@under_a_debugger
class TestRightOnes:
    @pytest.mark.parametrize(
        ("store", "most"),
        [
            (OneLock, 20),
            (Reentrant, 20),
            (AsData, 20),
            (WithCondition, 200),
            (WithSemaphore, 200),
            (WithToken, 2000),
            (lambda: WithToken(queue.SimpleQueue), 50),
            (Sleeps, 4000),
            (Spins, 500),
        ],
    )
    def test_every_schedule_is_fine(
        self, executor: LineExecutor, store: Callable[[], Any], most: int
    ) -> None:
        walked = explore(executor, store)
        assert walked.found is None
        assert walked.exhausted
        assert 2 <= walked.runs <= most

    def test_all_schedules_of_a_lock_are_few(self, executor: LineExecutor) -> None:
        walked = explore(executor, OneLock)
        assert walked.found is None
        assert walked.exhausted
        assert walked.runs <= 30

    def test_a_lock_from_before_is_adopted(self) -> None:
        store = OneLock()
        with LineExecutor([__name__]) as executor:
            executor.adopt(store)

            def attempt(chooser: Chooser) -> tuple[Execution, Execution | None]:
                store.events.clear()
                execution = executor.run({"A": store.append, "B": store.append}, chooser)
                return execution, None if store.fine() else execution

            walked = walk(attempt, bound=2)
            assert (walked.found, walked.exhausted, executor.level) == (None, True, "instructions")
        store.append()  # and works on afterwards
        assert len(store.events) == 3

    def test_all_is_as_before_once_it_is_closed(self) -> None:
        before = threading.Lock, threading.RLock, queue.SimpleQueue, time.sleep
        with LineExecutor([__name__]):
            assert threading.Lock is not before[0]
        assert (threading.Lock, threading.RLock, queue.SimpleQueue, time.sleep) == before


@under_a_debugger
class TestGivingUp:
    def test_a_time_out_fires_only_when_nobody_else_can_move(self, executor: LineExecutor) -> None:
        def attempt(chooser: Chooser) -> tuple[Execution, int | None]:
            store = GivesUp()
            execution = executor.run({"A": store.append, "B": store.append}, chooser)
            return execution, store.gave_up or None

        walked = walk(attempt, bound=2)
        assert (walked.found, walked.exhausted) == (None, True)

    def test_a_time_out_against_a_deadlock_is_marked(self, executor: LineExecutor) -> None:
        store = LockOrder()

        def patient() -> None:
            with store.first:
                if store.second.acquire(timeout=3600):
                    store.second.release()

        def attempt(chooser: Chooser) -> tuple[Execution, Execution | None]:
            execution = executor.run({"A": patient, "B": store.backwards}, chooser)
            return execution, execution if execution.gave_up else None

        found = walk(attempt, bound=2).found
        assert found is not None
        assert found.gave_up == {"A"}
        assert found.deadlock is None


@under_a_debugger
class TestDeadlocks:
    def test_a_deadlock_by_lock_order_shows_both_stacks(self, executor: LineExecutor) -> None:
        def attempt(chooser: Chooser) -> tuple[Execution, Execution | None]:
            store = LockOrder()
            execution = executor.run({"A": store.forwards, "B": store.backwards}, chooser)
            return execution, execution if execution.deadlock else None

        walked = walk(attempt, bound=2)
        assert walked.found is not None
        assert walked.found.deadlock is not None
        assert set(walked.found.deadlock) == {"A", "B"}
        assert "in forwards" in walked.found.deadlock["A"]
        assert "in backwards" in walked.found.deadlock["B"]
        assert "explore/" not in walked.found.deadlock["A"]
        assert not walked.found.diverged

    def test_the_executor_goes_on_after_a_deadlock(self, executor: LineExecutor) -> None:
        self.test_a_deadlock_by_lock_order_shows_both_stacks(executor)
        assert explore(executor, OneLock).exhausted

    def test_a_lost_wake_up_is_a_deadlock(self, executor: LineExecutor) -> None:
        def attempt(chooser: Chooser) -> tuple[Execution, Execution | None]:
            store = LostWakeUp()
            execution = executor.run({"A": store.await_it, "B": store.tell}, chooser)
            return execution, execution if execution.deadlock else None

        found = walk(attempt, bound=2).found
        assert found is not None
        assert set(found.deadlock or ()) == {"A"}

    def test_a_lock_taken_twice_is_a_deadlock(self, executor: LineExecutor) -> None:
        store = OneLock()

        def twice() -> None:
            with store.lock:
                store.append()

        execution = executor.run({"A": twice}, Scripted(()))
        assert set(execution.deadlock or ()) == {"A"}


class TestThreadsOfItsOwn:
    @pytest.mark.parametrize("make", [Actor, Pool])
    def test_an_adapter_with_a_thread_is_neither_accused_nor_hung(self, make: type[Actor]) -> None:
        with LineExecutor([__name__]) as executor:
            store = make()
            for seed in range(5):
                store.events.clear()
                execution = executor.run({"A": store.append, "B": store.append}, random_chooser(seed))
                assert store.fine()
                assert execution.deadlock is None
                assert not execution.hung
            assert executor.level == "operations"
            assert "thread" in (executor.reason or "")
            store.close()

    def test_whole_operations_are_tried_in_every_order(self) -> None:
        with LineExecutor([__name__], granularity="operations") as executor:

            def attempt(chooser: Chooser) -> tuple[Execution, str | None]:
                order: list[str] = []

                def body(name: str) -> None:
                    order.append(name)
                    executor.point("next")
                    order.append(name)

                execution = executor.run({"A": lambda: body("A"), "B": lambda: body("B")}, chooser)
                seen.add("".join(order))
                return execution, None

            seen: set[str] = set()
            assert walk(attempt, bound=None).exhausted
            assert seen == {"AABB", "ABAB", "ABBA", "BBAA", "BABA", "BAAB"}

    @pytest.mark.skipif(sys.version_info >= (3, 12), reason="sys.monitoring goes beside a debugger")
    def test_under_a_debugger_it_falls_back_and_says_so(self) -> None:
        before = sys.gettrace()
        sys.settrace(lambda *_: None)
        try:
            executor = LineExecutor([__name__])
        finally:
            sys.settrace(before)
        store = OneLine()
        executor.run({"A": store.append, "B": store.append}, Scripted(()))
        executor.close()
        assert store.fine()
        assert executor.level == "operations"
        assert "debugger" in (executor.reason or "")

    @under_a_debugger
    def test_bodies_run_in_the_threads_that_are_given(self) -> None:
        with ThreadPoolExecutor(1, "a") as one, ThreadPoolExecutor(1, "b") as other:
            pools = {"A": one, "B": other}
            used: set[str] = set()

            def submit(worker: str, body: Callable[[], None]) -> None:
                pools[worker].submit(body)

            with LineExecutor([__name__], submit=submit) as executor:

                def attempt(chooser: Chooser) -> tuple[Execution, Execution | None]:
                    store = OneLine()

                    def body() -> None:
                        used.add(threading.current_thread().name)
                        store.append()

                    execution = executor.run({"A": body, "B": body}, chooser)
                    return execution, None if store.fine() else execution

                assert walk(attempt, bound=1).found is not None, executor.reason
                assert executor.level == "instructions"
            assert used == {"a_0", "b_0"}

    def test_a_body_that_never_ends_is_hung(self) -> None:
        stop = [False]

        def endless() -> None:
            while not stop[0]:
                pass

        with LineExecutor([queue], limit=0.3, grace=0.1) as executor:
            execution = executor.run({"A": endless, "B": lambda: None}, Scripted(()))
        stop[0] = True
        assert set(execution.hung) == {"A"}
        assert "in endless" in execution.hung["A"]
        assert execution.deadlock is None

    def test_what_is_forgotten_is_not_collected_while_the_next_step_is_chosen(self) -> None:
        # The collector runs at any allocation, the executor's among them; what it calls may need a lock.
        done: list[Execution] = []
        elsewhere: dict[str, Any] = {}
        exec(ALLOCATES, elsewhere)

        def whole() -> None:
            with LineExecutor([__name__]) as executor:
                store = ForgetsItsConnections()
                done.append(executor.run({"A": store.append, "B": store.append}, elsewhere["allocates"]))

        before = gc.get_threshold()
        gc.set_threshold(0)
        try:
            thread = threading.Thread(target=whole, daemon=True)
            thread.start()
            thread.join(30)
        finally:
            gc.set_threshold(*before)
        assert done, "the executor waits for itself"
        assert done[0].choices

    def test_who_blocks_in_something_unknown_is_gone_around(self) -> None:
        # A real lock that is nobody's: as if it were within a C extension.
        import _thread

        hidden = _thread.allocate_lock()
        with LineExecutor([__name__], grace=0.02) as executor:
            store = OneLine()

            def first() -> None:
                hidden.acquire()
                store.append()
                hidden.release()

            executor.run({"A": first}, Scripted(()))
            for schedule in ((0, 1), (0, 0, 1), (1, 1), (1, 0, 1)):
                store.events.clear()
                execution = executor.run({"A": first, "B": first}, Scripted(schedule))
                assert sorted(store.events) == [0, 1]
                assert execution.deadlock is None
                assert not execution.hung


@under_a_debugger
class TestLocksOfTheStore:
    """A lock that nobody sees, as a row's or a file's."""

    def test_who_waits_for_what_a_held_worker_has_is_no_reason_to_fall_back(self) -> None:
        import _thread

        hidden = _thread.allocate_lock()
        with LineExecutor([__name__], granularity="lines", grace=0.02) as executor:
            store = OneLine()

            def append() -> None:
                hidden.acquire()
                store.append()
                hidden.release()

            waits = 0
            for _ in range(5):
                store.events.clear()
                waits += executor.run({"A": append, "B": append}, Scripted((0, 1))).waits
                assert store.fine()
            assert waits == 5
            assert executor.level == "lines"

    def test_who_is_silent_without_another_falls_back_and_says_where(self) -> None:
        import _thread

        silent = _thread.allocate_lock()
        silent.acquire()
        # Somebody's code that is not watched, who answers once the worker has been given up.
        other: dict[str, Any] = {"pause": time.sleep}
        source = "def answer():\n while not executor._turns.detached: pause(0.001)\n silent.release()"
        exec(compile(source, "elsewhere.py", "exec"), other)
        with LineExecutor([__name__], granularity="lines", grace=0.02) as executor:
            other |= {"silent": silent, "executor": executor}

            def ask() -> None:
                _thread.start_new_thread(other["answer"], ())
                silent.acquire()

            for _ in range(3):
                assert executor.level == "lines"
                executor.run({"A": ask}, Scripted(()))
            assert executor.level == "operations"
            assert "silent.acquire()" in (executor.reason or "")


@under_a_debugger
class TestRepetition:
    @pytest.mark.parametrize("store", [OneLine, WithCondition, LockReleasedBeforeTheWrite, Sleeps])
    def test_one_schedule_gives_one_execution(self, executor: LineExecutor, store: type[Store]) -> None:
        def told(execution: Execution) -> Any:
            return execution.choices, execution.steps, execution.waits, execution.gave_up, execution.diverged

        schedule = (1, 0, 0, 1, 0, 1)
        tried = store()
        first = told(executor.run({"A": tried.append, "B": tried.append}, Scripted(schedule)))
        for _ in range(50):
            again = store()
            assert told(executor.run({"A": again.append, "B": again.append}, Scripted(schedule))) == first

    @pytest.mark.parametrize("store", [LockReleasedBeforeTheWrite, DoubleChecked, CopyThenReplace, OneLock])
    def test_passing_over_what_cannot_be_disturbed_loses_no_outcome(
        self, executor: LineExecutor, store: type[Store]
    ) -> None:
        def outcomes(reduced: bool) -> set[str]:
            seen: set[str] = set()

            def attempt(chooser: Chooser) -> tuple[Execution, None]:
                tried = store()
                execution = executor.run({"A": tried.append, "B": tried.append}, chooser)
                seen.add(repr((tried.events, tried.count, vars(tried).get("made"))))
                if not reduced:
                    execution.moves.clear()
                return execution, None

            assert walk(attempt, bound=None).exhausted
            return seen

        assert outcomes(reduced=True) == outcomes(reduced=False)

    def test_three_workers(self, executor: LineExecutor) -> None:
        def attempt(chooser: Chooser) -> tuple[Execution, Execution | None]:
            store = OneLock()
            execution = executor.run(dict.fromkeys("ABC", store.append), chooser)
            return execution, None if store.events == [0, 1, 2] else execution

        walked = walk(attempt, bound=1)
        assert (walked.found, walked.exhausted) == (None, True)

    def test_what_a_body_or_the_chooser_raises_comes_out(self, executor: LineExecutor) -> None:
        store = OneLine()

        def broken() -> None:
            store.append()
            raise KeyError("body")

        def undecided(options: Any, current_first: bool) -> int:
            raise LookupError("chooser")

        with pytest.raises(KeyError):
            executor.run({"A": broken, "B": store.append}, Scripted(()))
        with pytest.raises(LookupError):
            executor.run({"A": store.append, "B": store.append}, undecided)
        assert explore(executor, OneLock).exhausted


@under_a_debugger
def test_an_in_memory_pair_has_few_points_and_is_walked_fast(capsys: pytest.CaptureFixture[str]) -> None:
    from continuum_adapters.in_memory import InMemoryHarness

    from continuum_conformance.contract import Instance, JournalError

    stranger = InMemoryHarness(lambda: 0.0)  # what lies about elsewhere in the process changes no schedule
    bystander = stranger.open()
    harness = InMemoryHarness()
    one, other = harness.open(), harness.open()
    instance = Instance("i")
    number = 0
    with LineExecutor(["continuum_adapters.in_memory", "continuum_adapters.operations"]) as executor:
        executor.adopt(harness, one, other)

        def attempt(chooser: Chooser) -> tuple[Execution, str | None]:
            nonlocal number
            number += 1
            run = f"r{number}"
            one.start_run(instance, run, "workflow", None)
            token = one.acquire(instance, run, "zombie", 0).token
            refused = []

            def append() -> None:
                try:
                    one.append(instance, run, {"type": "t", "data": None}, token)
                except JournalError:
                    refused.append(run)

            def acquire() -> None:
                other.acquire(instance, run, "thief", 3600)

            execution = executor.run({"A": append, "B": acquire}, chooser)
            assert len(execution.choices) < 60
            events = one.load(instance, run)
            return execution, None if len(events) + len(refused) == 1 else run

        walked = walk(attempt, bound=None)
    assert (walked.found, walked.exhausted, executor.level) == (None, True, "instructions")
    bystander.close()
    assert walked.runs < 200
