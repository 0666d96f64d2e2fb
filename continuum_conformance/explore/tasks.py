"""Interleavings of asyncio tasks: the event loop's ready queue in the chooser's hands, in virtual time.

A step is what a task does between two suspensions. `ControlledLoop` is a common selector loop until
`TaskExecutor` explores on it; then:

1. Every callback belongs to the worker in whose context it was scheduled, also through tasks that the worker
   starts. What belongs to nobody – tasks that the adapter started when it was opened – is one more worker, `ADAPTER`.
2. At each step the chooser picks among the workers that have something ready. Callbacks within a worker keep their
   order, and asyncio's own callbacks, which only pass results on, run at once.
3. Time stands still while anything is ready. When nothing is, it jumps to the next timer; only where sockets or
   executor threads are in play does the loop wait for them, in real time.
4. A sleeping task can be woken early, at any choice after the others have moved: that the others are slow is
   possible. A time limit cannot: being held is no reason for it to fire. One that fires when nothing else can
   move is noted in ``gave_up``.
5. When nothing is ready, nothing is timed and nobody outside could call, it is a deadlock.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import inspect
import itertools
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor as Pool
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

from continuum_conformance.explore.lines_turns import strangers
from continuum_conformance.explore.schedule import Choice, Chooser, Execution, Step

__all__ = ["ADAPTER", "ControlledLoop", "TaskExecutor"]

ADAPTER = "~adapter"
"""The name of the worker to which the adapter's own tasks belong. It sorts behind the others."""
LIMIT = 10.0
"""Seconds to wait for something outside of the loop."""
GRACE = 0.05
"""Seconds to wait for jobs in executor threads before the others go on without them."""
TOO_MANY_STEPS = 50_000
"""Steps of one run after which its workers are taken to retry for ever."""

_DRIVER = ""
_worker: contextvars.ContextVar[str] = contextvars.ContextVar("continuum_worker", default=ADAPTER)

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")

Body = Callable[[], Awaitable[None] | None]


class _Exploration:
    """One run on a loop."""

    def __init__(self, chooser: Chooser, given_up: asyncio.Future[None], clock: Callable[[], int]) -> None:
        self.execution = Execution()
        self._clock = clock
        self.given_up = given_up
        self.failure: BaseException | None = None
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.steps = 0
        self.over = False
        self._chooser = chooser
        self.current: str | None = None
        # Who goes on without a choice: the one whose sleep was ended by the last choice.
        self.resumed: str | None = None
        # By the id of a sleep's timer: the timer, and who is to move before it can end early.
        self._sleeps: dict[int, tuple[asyncio.TimerHandle, set[str]]] = {}

    def pick(
        self, ready: dict[str, asyncio.Handle], sleeps: list[tuple[str, asyncio.TimerHandle]]
    ) -> asyncio.Handle:
        """Which of the ready handles, one a worker, or of the sleeps, runs next."""
        if self.resumed in ready:
            resumed, self.resumed = self.resumed, None
            return self._moves(resumed, ready[resumed])
        for _, timer in sleeps:
            self._sleeps.setdefault(id(timer), (timer, set(ready)))
        early = {
            worker: timer
            for worker, timer in reversed(sleeps)
            if worker not in ready and not self._sleeps[id(timer)][1] & ready.keys()
        }
        options = [*sorted(ready), *sorted(early)]
        current_first = self.current in ready
        if current_first and self.current is not None:
            options.remove(self.current)
            options.insert(0, self.current)
        handles: dict[str, asyncio.Handle] = {**early, **ready}
        taken = 0
        if len(options) > 1:
            taken = self._chooser(tuple(options), current_first)
            self.execution.choices.append(
                Choice(
                    tuple(options), taken, current_first, tuple(_label(handles[option]) for option in options)
                )
            )
        chosen = options[taken]
        if chosen in early:
            self.resumed = chosen
        return self._moves(chosen, handles[chosen])

    def _moves(self, worker: str, handle: asyncio.Handle) -> asyncio.Handle:
        self.current = worker
        self.steps += 1
        self.execution.steps.append(Step(worker, _label(handle), self._clock()))
        for _, before in self._sleeps.values():
            before.discard(worker)
        return handle

    def fires(self, timer: asyncio.TimerHandle) -> None:
        """Time has come to a timer, because nobody could move."""
        worker = _worker_of(timer)
        others = [name for name, task in self.tasks.items() if name != worker and not task.done()]
        if not _is_sleep(timer) and others and worker in self.tasks:
            self.execution.gave_up.add(worker)

    def stacks(self) -> dict[str, str]:
        """Where each unfinished worker is suspended."""
        return {name: _stack(task) for name, task in self.tasks.items() if not task.done()}


class ControlledLoop(asyncio.SelectorEventLoop):
    """An event loop that runs as any other, and can be explored by a `TaskExecutor`."""

    def __init__(self) -> None:
        self._exploration: _Exploration | None = None
        self._now = 0.0
        self._ahead = 0.0
        self._jobs = 0
        super().__init__()

    def time(self) -> float:
        """The loop's time in seconds: virtual during an exploration."""
        return self._now if self._exploration is not None else time.monotonic() + self._ahead

    def run_in_executor(
        self, executor: Pool | None, func: Callable[[*_Arguments], _Result], *args: *_Arguments
    ) -> asyncio.Future[_Result]:
        """As any loop does; how many jobs are out is counted."""
        future = super().run_in_executor(executor, func, *args)
        self._jobs += 1

        def back(_: asyncio.Future[Any]) -> None:
            self._jobs -= 1

        future.add_done_callback(back)
        return future

    def begin(self, exploration: _Exploration) -> None:
        """From now on, the exploration decides."""
        if self._exploration is not None:
            raise RuntimeError("this loop is being explored already")
        self._now = self.time()
        self._exploration = exploration

    def end(self) -> None:
        """From now on, this is a common loop again. Its time goes on from where it is."""
        self._ahead = self._now - time.monotonic()
        self._exploration = None

    # What a loop calls for each of its turns; the name is asyncio's.
    def _run_once(self) -> None:
        exploration = self._exploration
        base: Any = super()
        if exploration is None or exploration.over:
            if exploration is not None:
                self._now = max(self._now, time.monotonic() + self._ahead)
            base._run_once()
            return
        loop: Any = self
        self._poll(0)
        if self._jobs:
            # Who has a job out is as good as running: a choice that does not wait for it would not repeat.
            until = time.monotonic() + GRACE
            while self._jobs and (left := until - time.monotonic()) > 0 and not self._internal():
                self._poll(left)
        self._due()
        handle = self._internal()
        if handle is None:
            ready: dict[str, asyncio.Handle] = {}
            for candidate in loop._ready:
                ready.setdefault(_worker_of(candidate), candidate)
            if not ready:
                self._nothing_ready(exploration)
                return
            sleeps = sorted(
                (
                    (timer.when(), place, timer)
                    for place, timer in enumerate(loop._scheduled)
                    if _is_sleep(timer)
                ),
                key=lambda entry: entry[:2],
            )
            try:
                if exploration.steps > TOO_MANY_STEPS:
                    exploration.execution.hung.update(exploration.stacks())
                    self._give_up(exploration)
                    return
                handle = exploration.pick(ready, [(_worker_of(timer), timer) for _, _, timer in sleeps])
            except BaseException as error:  # noqa: BLE001 - the chooser's error belongs to the caller of the run
                exploration.failure = error
                self._give_up(exploration)
                return
        if isinstance(handle, asyncio.TimerHandle) and handle in loop._scheduled:
            self._now = max(self._now, handle.when())
            loop._scheduled.remove(handle)
            heapq.heapify(loop._scheduled)
            loop_handle: Any = handle
            loop_handle._scheduled = False
        else:
            loop._ready.remove(handle)
        run: Any = handle
        run._run()

    def _internal(self) -> asyncio.Handle | None:
        """A ready callback that is not a worker's to choose; cancelled ones are dropped on the way."""
        loop: Any = self
        for handle in list(loop._ready):
            if handle.cancelled():
                loop._ready.remove(handle)
            elif _worker_of(handle) == _DRIVER or not _is_step(handle):
                found: asyncio.Handle = handle
                return found
        return None

    def _poll(self, timeout: float | None) -> None:
        loop: Any = self
        loop._process_events(loop._selector.select(timeout))

    def _due(self) -> list[asyncio.TimerHandle]:
        """Make ready the timers whose time has come; gives them."""
        loop: Any = self
        came = []
        while loop._scheduled and (loop._scheduled[0].cancelled() or loop._scheduled[0].when() <= self._now):
            timer = heapq.heappop(loop._scheduled)
            timer._scheduled = False
            if timer.cancelled():
                loop._timer_cancelled_count -= 1
            else:
                came.append(timer)
                loop._ready.append(timer)
        return came

    def _nothing_ready(self, exploration: _Exploration) -> None:
        loop: Any = self
        timer: asyncio.TimerHandle | None = loop._scheduled[0] if loop._scheduled else None
        pipe = loop._ssock.fileno()
        sockets = any(fd != pipe for fd in loop._selector.get_map())
        foreign = timer is None and not sockets and not self._jobs and strangers({threading.get_ident()})
        if self._jobs or sockets or foreign:
            before = time.monotonic()
            wait = LIMIT if timer is None else min(LIMIT, max(0.0, timer.when() - self._now))
            self._poll(wait)
            passed = time.monotonic() - before
            self._now += passed
            exploration.execution.waits += 1
            if passed >= LIMIT and not loop._ready:
                exploration.execution.hung.update(exploration.stacks())
                self._give_up(exploration)
            return
        if timer is None:
            exploration.execution.deadlock = exploration.stacks()
            self._give_up(exploration)
            return
        self._now = max(self._now, timer.when())
        exploration.steps += 1
        for came in self._due():
            exploration.fires(came)

    def _give_up(self, exploration: _Exploration) -> None:
        exploration.over = True
        self._ahead = self._now - time.monotonic()
        for task in exploration.tasks.values():
            task.cancel()
        exploration.given_up.set_result(None)


class TaskExecutor:
    """Runs coroutines on one loop, with the chooser deciding whose step comes next.

    Args:
        loop: on which the adapter's handles were opened.
    """

    level = "tasks"

    def __init__(self, loop: ControlledLoop) -> None:
        self.loop = loop
        self.clock: Callable[[], int] | None = None

    def run(self, workers: Mapping[str, Body], chooser: Chooser) -> Execution:
        """Run every worker's body to its end. To be called outside of the loop, which may run in another thread.

        Raises:
            BaseException: what the chooser raised, or a body, which must not.
        """
        if self.loop.is_running():
            return asyncio.run_coroutine_threadsafe(self.run_async(workers, chooser), self.loop).result()
        return self.loop.run_until_complete(self.run_async(workers, chooser))

    async def run_async(self, workers: Mapping[str, Body], chooser: Chooser) -> Execution:
        """As `run`, to be awaited on the loop."""
        exploration = _Exploration(
            chooser, self.loop.create_future(), self.clock or itertools.count(1).__next__
        )
        token = _worker.set(_DRIVER)
        try:
            self.loop.begin(exploration)
            for name in sorted(workers):
                context = contextvars.copy_context()
                context.run(_worker.set, name)
                exploration.tasks[name] = self.loop.create_task(
                    _whole(workers[name]), name=name, context=context
                )
            # The driver itself runs as soon as it can, so it waits without a time limit until the run is over.
            waiting: set[asyncio.Future[None]] = {exploration.given_up, *exploration.tasks.values()}
            while len(waiting) > 1 and not exploration.over:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            pending = {task for task in exploration.tasks.values() if not task.done()}
        finally:
            self.loop.end()
            _worker.reset(token)
        if pending:
            _, pending = await asyncio.wait(pending, timeout=1)
        for name, task in exploration.tasks.items():
            if task in pending:
                exploration.execution.hung.setdefault(name, _stack(task))
            elif (
                exploration.failure is None
                and not task.cancelled()
                and (error := task.exception()) is not None
            ):
                exploration.failure = error
        if exploration.failure is not None:
            raise exploration.failure
        return exploration.execution


async def _whole(body: Body) -> None:
    result = body()
    if inspect.isawaitable(result):
        await result


def _worker_of(handle: asyncio.Handle) -> str:
    inside: Any = handle
    name: str = inside._context.get(_worker, ADAPTER)
    return name


def _callback(handle: asyncio.Handle) -> Any:
    inside: Any = handle
    return inside._callback


def _is_step(handle: asyncio.Handle) -> bool:
    """Whether this runs code of the adapter's; asyncio's own callbacks only pass results on, and ours count jobs."""
    callback = _callback(handle)
    if isinstance(getattr(callback, "__self__", None), asyncio.Task):
        return True
    while hasattr(callback, "func"):
        callback = callback.func
    module = getattr(callback, "__module__", None) or type(getattr(callback, "__self__", None)).__module__
    return not (module or "").startswith(("asyncio", "_asyncio", "concurrent.futures", __name__))


def _is_sleep(timer: asyncio.TimerHandle) -> bool:
    """Whether this ends an `asyncio.sleep`."""
    return (
        not timer.cancelled() and getattr(_callback(timer), "__name__", "") == "_set_result_unless_cancelled"
    )


def _frames(task: asyncio.Task[Any]) -> list[tuple[Any, int]]:
    """The frames of a suspended task with their lines, outermost first."""
    frames = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaited, f"{kind}_frame", None)
            if frame is not None:
                frames.append((frame, frame.f_lineno))
                break
        awaited = (
            getattr(awaited, "cr_await", None)
            or getattr(awaited, "gi_yieldfrom", None)
            or getattr(awaited, "ag_await", None)
        )
    return frames


_OURS = str(Path(__file__).resolve())
_ASYNCIO = str(Path(asyncio.__file__).resolve().parent)


def _label(handle: asyncio.Handle) -> str:
    """Where a task goes on, for a reader: the innermost line that is not asyncio's."""
    task = getattr(_callback(handle), "__self__", None)
    if isinstance(handle, asyncio.TimerHandle) and _is_sleep(handle):
        return "wakes up"
    if not isinstance(task, asyncio.Task):
        return str(getattr(_callback(handle), "__qualname__", _callback(handle)))
    place = "start"
    for frame, line in _frames(task):
        file = frame.f_code.co_filename
        if file != _OURS and not file.startswith(_ASYNCIO):
            place = f"{Path(file).name}:{line} {frame.f_code.co_name}"
    return place


def _stack(task: asyncio.Task[Any]) -> str:
    entries = [
        traceback.FrameSummary(frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in _frames(task)
        if frame.f_code.co_filename != _OURS
    ]
    return "".join(traceback.format_list(entries)) or "(not started)"
