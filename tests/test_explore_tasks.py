"""The task scheduler: which races between awaits it finds, in which time, and whom it does not accuse."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from continuum_conformance.explore.schedule import Chooser, Execution, Scripted, Walk, walk
from continuum_conformance.explore.tasks import ADAPTER, ControlledLoop, TaskExecutor


@pytest.fixture
def loop() -> Iterator[ControlledLoop]:
    opened = ControlledLoop()
    yield opened
    opened.run_until_complete(cancel_all())
    opened.run_until_complete(opened.shutdown_default_executor())
    opened.close()


async def cancel_all() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


class Store:
    """Numbers its events 0, 1, 2, ..., or tries to."""

    def __init__(self) -> None:
        self.events: list[int] = []
        self.lock = asyncio.Lock()

    async def append(self) -> None:
        raise NotImplementedError

    def fine(self) -> bool:
        return self.events == [0, 1]


class AwaitBetween(Store):
    async def append(self) -> None:
        seq = len(self.events)
        await asyncio.sleep(0)
        self.events.append(seq)


class SleepBetween(Store):
    async def append(self) -> None:
        seq = len(self.events)
        await asyncio.sleep(3600)
        self.events.append(seq)


class WokenBetween(Store):
    """Wrong only if the one wakes up while the other is between its two steps, which never sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    async def append(self) -> None:
        self.calls += 1
        if self.calls == 1:
            await asyncio.sleep(3600)
            self.events.append(len(self.events))
        else:
            seq = len(self.events)
            await asyncio.sleep(0)
            self.events.append(seq)


class NoAwait(Store):
    async def append(self) -> None:
        self.events.append(len(self.events))
        await asyncio.sleep(0)


class Locked(Store):
    async def append(self) -> None:
        async with self.lock:
            seq = len(self.events)
            await asyncio.sleep(0)
            await asyncio.sleep(1)
            self.events.append(seq)


class ChildTasks(Store):
    async def append(self) -> None:
        async with self.lock:
            seq, _ = await asyncio.gather(self.count(), asyncio.sleep(0))
            async with asyncio.timeout(5):
                await asyncio.sleep(1)
            self.events.append(seq)

    async def count(self) -> int:
        await asyncio.sleep(0)
        return len(self.events)


class ActorTask(Store):
    """One task of the adapter's own does all the work."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        self.task = asyncio.ensure_future(self.work())

    async def work(self) -> None:
        while True:
            answer = await self.requests.get()
            seq = len(self.events)
            await asyncio.sleep(0)
            self.events.append(seq)
            answer.set_result(None)

    async def append(self) -> None:
        answer = asyncio.get_running_loop().create_future()
        await self.requests.put(answer)
        await answer


class InExecutor(Store):
    """The work is done in a thread of the loop's executor, under a lock."""

    async def append(self) -> None:
        async with self.lock:
            await asyncio.to_thread(lambda: self.events.append(len(self.events)))


def explore(
    loop: ControlledLoop, make: Callable[[], Any], *, bound: int | None = 2, limit: int = 2000
) -> Walk[Execution]:
    executor = TaskExecutor(loop)

    async def opened() -> Any:
        return make()

    def attempt(chooser: Chooser) -> tuple[Execution, Execution | None]:
        store = loop.run_until_complete(opened())
        execution = executor.run({"A": store.append, "B": store.append}, chooser)
        return execution, None if store.fine() and not execution.deadlock else execution

    return walk(attempt, bound=bound, limit=limit)


@pytest.mark.parametrize(("store", "latest"), [(AwaitBetween, 4), (SleepBetween, 1), (WokenBetween, 20)])
def test_a_race_between_awaits_is_found(loop: ControlledLoop, store: type[Store], latest: int) -> None:
    walked = explore(loop, store)
    assert walked.found is not None
    assert walked.runs <= latest
    assert walked.found.preemptions <= 1


@pytest.mark.parametrize("store", [NoAwait, Locked, ChildTasks, ActorTask, InExecutor])
def test_right_ones_pass_every_schedule_to_bound_2(loop: ControlledLoop, store: type[Store]) -> None:
    walked = explore(loop, store)
    assert walked.found is None
    assert walked.exhausted
    assert walked.runs >= 2


def test_a_lock_passes_all_schedules(loop: ControlledLoop) -> None:
    walked = explore(loop, Locked, bound=None)
    assert (walked.found, walked.exhausted) == (None, True)


def test_an_hour_of_sleep_takes_no_time(loop: ControlledLoop) -> None:
    began, virtual = time.monotonic(), loop.time()
    explore(loop, SleepBetween)
    assert loop.time() - virtual >= 3600
    assert time.monotonic() - began < 60


def test_the_tasks_of_the_adapter_are_a_worker(loop: ControlledLoop) -> None:
    seen: set[str] = set()

    async def opened() -> ActorTask:
        return ActorTask()

    store = loop.run_until_complete(opened())
    execution = TaskExecutor(loop).run({"A": store.append, "B": store.append}, Scripted(()))
    seen = {step.worker for step in execution.steps}
    assert seen == {"A", "B", ADAPTER}


def test_one_schedule_gives_one_execution(loop: ControlledLoop) -> None:
    def told() -> Any:
        store = Locked()
        execution = TaskExecutor(loop).run(
            {"A": store.append, "B": store.append}, Scripted((1, 0, 1, 1, 0, 1))
        )
        return execution.choices, execution.steps, store.events

    first = told()
    assert all(told() == first for _ in range(50))


def test_a_deadlock_shows_where_each_waits(loop: ControlledLoop) -> None:
    def attempt(chooser: Chooser) -> tuple[Execution, Execution | None]:
        one, other = asyncio.Lock(), asyncio.Lock()

        async def forwards() -> None:
            async with one:
                await asyncio.sleep(0)
                async with other:
                    pass

        async def backwards() -> None:
            async with other:
                await asyncio.sleep(0)
                async with one:
                    pass

        execution = TaskExecutor(loop).run({"A": forwards, "B": backwards}, chooser)
        return execution, execution if execution.deadlock else None

    found = walk(attempt, bound=2).found
    assert found is not None
    assert found.deadlock is not None
    assert "in forwards" in found.deadlock["A"]
    assert "in backwards" in found.deadlock["B"]


def test_a_time_limit_fires_only_when_nobody_can_move_and_is_noted(loop: ControlledLoop) -> None:
    async def holds(lock: asyncio.Lock, release: asyncio.Event) -> None:
        async with lock:
            await release.wait()

    async def gives_up(lock: asyncio.Lock, release: asyncio.Event) -> None:
        await asyncio.sleep(0)
        try:
            await asyncio.wait_for(lock.acquire(), 0.001)
        except TimeoutError:
            release.set()
        else:
            lock.release()
            release.set()

    lock, release = asyncio.Lock(), asyncio.Event()
    execution = TaskExecutor(loop).run(
        {"A": lambda: holds(lock, release), "B": lambda: gives_up(lock, release)}, Scripted(())
    )
    assert execution.gave_up == {"B"}
    assert execution.deadlock is None


def test_a_time_limit_never_fires_for_being_held(loop: ControlledLoop) -> None:
    async def busy() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def attempt(chooser: Chooser) -> tuple[Execution, Execution | None]:
        execution = TaskExecutor(loop).run(
            {"A": busy, "B": lambda: asyncio.wait_for(busy(), 0.000001)}, chooser
        )
        return execution, execution if execution.gave_up else None

    walked = walk(attempt, bound=2)
    assert (walked.found, walked.exhausted) == (None, True)


def test_sockets_are_waited_for(loop: ControlledLoop) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    got: list[bytes] = []

    async def reads() -> None:
        got.append(await asyncio.get_running_loop().sock_recv(ours, 10))

    async def writes() -> None:
        await asyncio.sleep(0)
        # Sent by a thread of nobody's, as a server would answer.
        threading.Thread(target=theirs.send, args=(b"answer",)).start()

    execution = TaskExecutor(loop).run({"A": reads, "B": writes}, Scripted(()))
    ours.close()
    theirs.close()
    assert got == [b"answer"]
    assert execution.deadlock is None


def test_what_is_raised_comes_out_and_the_loop_goes_on(loop: ControlledLoop) -> None:
    async def broken() -> None:
        raise KeyError("body")

    def undecided(options: Any, current_first: bool) -> int:
        raise LookupError("chooser")

    async def fine() -> None:
        await asyncio.sleep(0)

    executor = TaskExecutor(loop)
    with pytest.raises(KeyError):
        executor.run({"A": broken, "B": fine}, Scripted(()))
    with pytest.raises(LookupError):
        executor.run({"A": fine, "B": fine}, undecided)
    assert explore(loop, Locked).exhausted


def test_a_loop_in_another_thread_is_explored_too() -> None:
    loop = ControlledLoop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def opened() -> AwaitBetween:
        return AwaitBetween()

    store = asyncio.run_coroutine_threadsafe(opened(), loop).result(30)
    body: Callable[[], Awaitable[None]] = store.append
    execution = TaskExecutor(loop).run({"A": body, "B": body}, Scripted((0, 1)))
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()
    assert store.events == [0, 0]
    assert execution.preemptions == 1
