"""Running an adapter's code under a time limit: in a thread of its own, or on an event loop in one.

A call that does not come back is given up together with its thread, which is a daemon and cannot be ended;
the stack where it hangs is part of the finding.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

__all__ = ["AdapterInterrupt", "CallThread", "Hung", "LoopThread"]

_HERE = Path(__file__).parent


class Hung(Exception):
    """A call that did not come back within its limit; ``stack`` shows where it hangs."""

    def __init__(self, seconds: float, stack: str) -> None:
        super().__init__(f"no answer within {seconds:g} s")
        self.stack = stack


def _stack_of(ident: int | None) -> str:
    frame = sys._current_frames().get(ident) if ident is not None else None
    if frame is None:
        return "(the thread has ended)"
    return _format(frame)


def _format(frame: FrameType) -> str:
    kit = (__file__, threading.__file__)
    entries = [e for e in traceback.extract_stack(frame) if e.filename not in kit]
    return "".join(traceback.format_list(entries)) or "(no Python frame)"


class AdapterInterrupt(Exception):
    """A KeyboardInterrupt that the adapter itself raised; a bare one is the user's, who wants the run to end."""

    def __init__(self, error: KeyboardInterrupt) -> None:
        super().__init__("the adapter raised KeyboardInterrupt")
        self.error = error


class CallThread:
    """One thread that runs what it is given, one thing after another."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[tuple[bool, Any]]] | None] = (
            SimpleQueue()
        )
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, reply = job
            try:
                answer = (True, call())
            except BaseException as error:  # noqa: BLE001 - the adapter's code: all that it raises is its answer
                answer = (False, error)
            reply.put(answer)
            del job, call, reply, answer

    def run(self, call: Callable[[], Any], limit: float) -> Any:
        """The call's result, or what it raised. Raises `Hung` after ``limit`` seconds."""
        reply: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
        self._jobs.put((call, reply))
        try:
            fine, answer = reply.get(timeout=limit)
        except Empty:
            raise Hung(limit, _stack_of(self._thread.ident)) from None
        if fine:
            return answer
        raise AdapterInterrupt(answer) if isinstance(answer, KeyboardInterrupt) else answer

    def stop(self) -> None:
        """Let the thread end once it is idle."""
        self._jobs.put(None)


class LoopThread:
    """One event loop in a thread of its own, on which an async journal lives."""

    def __init__(self, make: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> None:
        self._make = make
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="journal-loop", daemon=True)
        self._thread.start()
        self._ready.wait()

    def _work(self) -> None:
        loop = self._make()
        asyncio.set_event_loop(loop)
        loop.set_exception_handler(lambda _loop, _context: None)
        self._loop = loop
        loop.call_soon(self._ready.set)
        try:
            while not self._stopping:
                # A task of the adapter's own that exits, or that stops the loop, must not end it.
                with contextlib.suppress(SystemExit, KeyboardInterrupt):
                    loop.run_forever()
        finally:
            _drain(loop)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop itself."""
        if self._loop is None:
            raise RuntimeError("the loop has not started")
        return self._loop

    def run(
        self, make: Callable[[], Awaitable[Any]], limit: float, *, then: Callable[[], None] | None = None
    ) -> Any:
        """The coroutine's result, or what it raised. Raises `Hung` after ``limit`` seconds.

        Args:
            make: makes the coroutine; called on the loop.
            limit: seconds.
            then: called once the coroutine has taken its first step (TRM-4).
        """
        task: list[asyncio.Task[tuple[bool, Any]]] = []

        async def outer() -> tuple[bool, Any]:
            async def inner() -> Any:
                return await make()

            running = asyncio.ensure_future(_shielded(inner()))
            task.append(running)
            if then is not None:
                await asyncio.sleep(0)
                then()
            return await running

        future: Future[tuple[bool, Any]] = asyncio.run_coroutine_threadsafe(outer(), self.loop)
        try:
            fine, answer = future.result(limit)
        except TimeoutError:
            stack = _task_stack(task[0]) if task else ""
            self.loop.call_soon_threadsafe(lambda: [pending.cancel() for pending in task])
            raise Hung(limit, f"{stack}the loop's thread:\n{_stack_of(self._thread.ident)}") from None
        if fine:
            return answer
        raise AdapterInterrupt(answer) if isinstance(answer, KeyboardInterrupt) else answer

    def alive(self, limit: float) -> bool:
        """Whether the loop still turns, that is, whether no call blocks it."""
        try:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop).result(limit)
        except TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """Cancel what is left on the loop and end its thread."""
        self._stopping = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)


async def _shielded(inner: Coroutine[Any, Any, Any]) -> tuple[bool, Any]:
    # SystemExit and KeyboardInterrupt that leave a task would end the loop itself.
    try:
        return True, await inner
    except BaseException as error:  # noqa: BLE001 - the adapter's code: all that it raises is its answer
        return False, error


def _drain(loop: asyncio.AbstractEventLoop) -> None:
    pending = asyncio.all_tasks(loop)
    for task in pending:
        task.cancel()
    if pending:
        loop.run_until_complete(asyncio.wait(pending, timeout=1))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _task_stack(task: asyncio.Task[Any]) -> str:
    lines: list[str] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None and Path(frame.f_code.co_filename).parent != _HERE:
            lines.extend(traceback.format_list(traceback.extract_stack(frame, limit=1)))
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return "".join(lines)
