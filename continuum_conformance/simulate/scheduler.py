"""Virtual time: what happens when. One thing at a time, in an order that the seed alone decides.

Time is counted in whole milliseconds, so that no rounding stands between two machines. A task is a coroutine, or a
thread for worker functions that block; of all tasks and threads exactly one runs at any moment, until it asks for
something. What it asks with is a function that arranges for the task to be resumed later.
"""

from __future__ import annotations

import heapq
import inspect
import threading
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

__all__ = ["Arrangement", "Crashed", "Scheduler", "Task", "ThreadTask", "ask", "is_coroutine_function"]

_HERE = threading.local()

STUBBORN = 1_000
"""How often a crashed task may go on asking before we stop telling it that it has crashed."""


class Crashed(BaseException):
    """Raised within a worker whose machine has died. Whatever it does then reaches nobody."""


class Scheduler:
    """The order of events."""

    def __init__(self) -> None:
        self.now = 0
        """Milliseconds since the beginning."""
        self.done = 0
        """How many events there were."""
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when: int, act: Callable[..., None], *arguments: Any) -> None:
        """Let something happen then (in milliseconds), or now if that is past; of two at once the first asked for."""
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, act, arguments))

    def after(self, delay: int, act: Callable[..., None], *arguments: Any) -> None:
        """Let something happen so many milliseconds from now."""
        self.at(self.now + delay, act, *arguments)

    def next(self) -> bool:
        """Let the next thing happen; False when nothing is left."""
        if not self._heap:
            return False
        self.now, _, act, arguments = heapq.heappop(self._heap)
        self.done += 1
        act(*arguments)
        return True


class Task:
    """A coroutine of a worker.

    Args:
        coroutine: what it does.
        failed: called with an exception that leaves the coroutine.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], failed: Callable[[BaseException], None]) -> None:
        self._coroutine = coroutine
        self._failed = failed
        self.dead = False

    def resume(self, value: Any = None, error: BaseException | None = None) -> None:
        """Go on with the answer to what it asked for, up to what it asks for next."""
        if self.dead:
            return
        try:
            arrange = self._coroutine.throw(error) if error is not None else self._coroutine.send(value)
        except StopIteration:
            self.dead = True
        except BaseException as raised:  # noqa: BLE001 - the engine's code: what leaves it is a finding
            self.dead = True
            self._failed(raised)
        else:
            arrange(self)

    def crash(self) -> None:
        """End it as a machine ends: it is told so, and whatever it asks for then is never answered."""
        if self.dead:
            return
        self.dead = True
        for _ in range(STUBBORN):
            try:
                self._coroutine.throw(Crashed())
            except BaseException:  # noqa: BLE001 - whatever it says on its way out, nobody hears it
                return


Arrangement = Callable[[Any], None]
"""What a task asks with: it is called with the task, and sees to it that the task is resumed."""


@types.coroutine
def ask(arrange: Arrangement) -> Generator[Arrangement, Any, Any]:
    """Within a coroutine: ask for something, and wait for the answer."""
    return (yield arrange)


class ThreadTask:
    """A function of a worker that blocks, in a thread of its own. It runs only while `resume` waits for it."""

    def __init__(self, function: Callable[[], Any], failed: Callable[[BaseException], None]) -> None:
        self._function = function
        self._failed = failed
        self._go, self._asked = threading.Semaphore(0), threading.Semaphore(0)
        self._answer: tuple[Any, BaseException | None] = None, None
        self._arrange: Arrangement | None = None
        self._raised: BaseException | None = None
        self._thread: threading.Thread | None = None
        self.dead = False

    @staticmethod
    def current() -> ThreadTask:
        """The task in whose thread this is called. Raises ``RuntimeError`` in any other thread."""
        found: ThreadTask | None = getattr(_HERE, "task", None)
        if found is None:
            raise RuntimeError(
                "a worker may call its node only from its own function, or from one that it spawned"
            )
        return found

    def resume(self, value: Any = None, error: BaseException | None = None) -> None:
        """Go on with the answer to what it asked for, up to what it asks for next."""
        if self.dead:
            return
        self._handed_over(value, error)
        if self._arrange is not None:
            self._arrange(self)
        else:
            self.dead = True
            if self._raised is not None:
                self._failed(self._raised)

    def crash(self) -> None:
        """End it as a machine ends."""
        if self.dead:
            return
        self.dead = True
        if self._thread is None:
            return
        for _ in range(STUBBORN):
            self._handed_over(None, Crashed())
            if self._arrange is None:
                return

    def block(self, arrange: Arrangement) -> Any:
        """Within the thread: ask for something, and wait for the answer."""
        self._arrange = arrange
        self._asked.release()
        self._go.acquire()
        value, error = self._answer
        if error is not None:
            raise error
        return value

    def _handed_over(self, value: Any, error: BaseException | None) -> None:
        self._answer, self._arrange = (value, error), None
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="simulated", daemon=True)
            self._thread.start()
        else:
            self._go.release()
        self._asked.acquire()

    def _run(self) -> None:
        _HERE.task = self
        try:
            self._function()
        except BaseException as raised:  # noqa: BLE001 - the engine's code: what leaves it is a finding
            self._raised = raised
        self._arrange = None
        self._asked.release()


def is_coroutine_function(function: Any) -> bool:
    """Whether calling it gives a coroutine; an object with such a ``__call__`` counts."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object whose __call__ is a coroutine function
    )
