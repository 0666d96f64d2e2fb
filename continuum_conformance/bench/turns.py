"""Turns: the clients of an adapter make their calls at once, and each call is timed.

A turn has two halves. First each client prepares its calls (starts the runs that it will finish, say), which is not
timed; then all begin together. Both halves run on the client's own thread, or as a task of the journal's loop.
Threads live as long as the contender: an adapter may keep a connection for each.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from continuum_conformance.harness import Handle, HarnessError, Subject
from continuum_conformance.harness.threads import Hung
from continuum_conformance.model import Outcome

__all__ = ["Arguments", "BenchError", "Calls", "Contender", "Turn", "Work", "paced", "turn_of_threads"]

_T = TypeVar("_T")

Arguments = tuple[Any, ...]

Calls = tuple[Callable[..., Any], Sequence[Arguments]]
"""A method, and the arguments of each call of it."""

MOST_PREPARED = 100_000
"""Calls of one client in one turn, at most."""


class BenchError(Exception):
    """An operation failed while it was measured; the message says which and how, ``detail`` where."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class Work(Protocol):
    """What the clients of one turn do."""

    operation: str
    """The journal's method that is timed."""

    async def set_up(self, journal: Any, clients: int) -> None:
        """Prepare what all turns need; once, by one client."""

    def begin(self, clients: int, count: int) -> None:
        """A turn begins in which each client makes at most ``count`` calls."""

    async def prepare(self, journal: Any, client: int, count: int) -> Sequence[Arguments]:
        """The arguments of one client's calls in this turn."""
        ...


@dataclass(frozen=True)
class Turn:
    """What a turn came to: seconds from the common start to the last answer, and what each call took."""

    calls: int
    seconds: float
    latencies: Sequence[float]

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds


class _Awaitable:
    """A sync journal with coroutines for methods, which never wait: so the set-up is written once."""

    def __init__(self, journal: Any) -> None:
        self._journal = journal

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self._journal, name)

        async def call(*arguments: Any) -> Any:
            return method(*arguments)

        return call


def _driven(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        answer: _T = done.value
        return answer
    coroutine.close()
    raise BenchError("a method of the journal is a coroutine function, but its append is none")


class Contender:
    """An opened adapter and its clients.

    Args:
        subject: the adapter, its store provided.
        clients: how many there are at most.
        handles: how many handles they share.

    Raises:
        HarnessError: a handle cannot be opened.
    """

    def __init__(self, subject: Subject, *, clients: int, handles: int) -> None:
        self.subject = subject
        self.clients = clients
        self._opened: list[Handle] = []
        self._threads = ThreadPoolExecutor(clients, "client")
        try:
            for number in range(min(handles, clients)):
                self._opened.append(subject.open(f"client{number}"))
        except BaseException:
            self.close()
            raise

    @property
    def is_async(self) -> bool:
        """Whether its clients are tasks of one loop, not threads."""
        return self._opened[0].is_async

    def journal(self, client: int) -> Any:
        """The journal that a client uses."""
        return self._opened[client % len(self._opened)].journal

    def close(self) -> None:
        """Close the handles. Raises `HarnessError`."""
        self._threads.shutdown(wait=False)
        try:
            while self._opened:
                self._opened.pop().close()
        finally:
            self.subject.shutdown()

    # -- turns --

    def set_up(self, work: Work, clients: int) -> None:
        """Let one client prepare what all turns need. Raises `BenchError`."""
        with self._told():
            if self.is_async:
                self._on_loop(lambda: work.set_up(self.journal(0), clients), math.inf)
            else:
                future = self._threads.submit(
                    lambda: _driven(work.set_up(_Awaitable(self.journal(0)), clients))
                )
                future.result(self._limit(math.inf))

    def ask(self, operation: str, *arguments: Any) -> Any:
        """The answer to one call, which is not timed. Raises `BenchError`."""
        asking = _Asking(operation, arguments)
        self.set_up(asking, 1)
        return asking.answer

    def turn(self, work: Work, clients: int, count: int, seconds: float = math.inf) -> Turn:
        """Let so many clients make ``count`` calls each, or fewer when the time is over. Raises `BenchError`."""
        count = min(count, MOST_PREPARED)
        work.begin(clients, count)
        with self._told(work.operation):
            if self.is_async:
                return self._turn_of_tasks(work, clients, count, seconds)
            return self._turn_of_threads(work, clients, count, seconds)

    def _turn_of_threads(self, work: Work, clients: int, count: int, seconds: float) -> Turn:
        def prepared(client: int) -> Calls:
            journal = self.journal(client)
            calls = _driven(work.prepare(_Awaitable(journal), client, count))
            return getattr(journal, work.operation), calls

        prepare = [partial(prepared, client) for client in range(clients)]
        return turn_of_threads(self._threads, prepare, seconds, self._limit(seconds))

    def _turn_of_tasks(self, work: Work, clients: int, count: int, seconds: float) -> Turn:
        latencies: list[list[float]] = [[] for _ in range(clients)]
        spans: list[tuple[float, float]] = [(0.0, 0.0)] * clients
        barrier = asyncio.Barrier(clients)

        async def client(number: int) -> None:
            journal = self.journal(number)
            calls = await work.prepare(journal, number, count)
            method = getattr(journal, work.operation)
            await barrier.wait()
            spans[number] = await _timed_async(method, calls, seconds, latencies[number])

        async def together() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(clients):
                    group.create_task(client(number))

        self._on_loop(together, seconds)
        return _turn_of(latencies, spans)

    def _limit(self, seconds: float) -> float:
        """How long a half may take: preparing is bounded by its own count, so this only tells a hang."""
        return max(120.0, self.subject.limit * 12) + (0.0 if math.isinf(seconds) else seconds)

    def _on_loop(self, make: Callable[[], Awaitable[Any]], seconds: float) -> None:
        self._opened[0].inside(make, self._limit(seconds))

    @contextmanager
    def _told(self, operation: str = "the preparation") -> Iterator[None]:
        """What an adapter raises within is a `BenchError` outside."""
        try:
            yield
        except (BenchError, HarnessError):
            raise
        except BaseExceptionGroup as group:
            raise _failure(operation, _first(group)) from group
        except TimeoutError as error:
            raise BenchError(f"{operation}: a client did not come back") from error
        except Hung as error:
            raise BenchError(f"{operation}: {error}", error.stack) from error
        except Exception as error:
            raise _failure(operation, error) from error


class _Asking:
    """Makes one call while it is set up."""

    def __init__(self, operation: str, arguments: Arguments) -> None:
        self.operation = operation
        self._arguments = arguments
        self.answer: Any = None

    async def set_up(self, journal: Any, clients: int) -> None:  # noqa: ARG002
        self.answer = await getattr(journal, self.operation)(*self._arguments)

    def begin(self, clients: int, count: int) -> None:
        """It has no turns."""

    async def prepare(self, journal: Any, client: int, count: int) -> Sequence[Arguments]:  # noqa: ARG002
        return ()


def turn_of_threads(
    threads: ThreadPoolExecutor, prepare: Sequence[Callable[[], Calls]], seconds: float, limit: float
) -> Turn:
    """A turn in which each client has a thread. Raises what a client's calls raise.

    Args:
        threads: at least as many as there are clients.
        prepare: of each client, what prepares its calls.
        seconds: how long they may make calls.
        limit: seconds after which a client counts as hung.
    """
    clients = len(prepare)
    latencies: list[list[float]] = [[] for _ in range(clients)]
    spans: list[tuple[float, float]] = [(0.0, 0.0)] * clients
    barrier = threading.Barrier(clients)

    def client(number: int) -> None:
        try:
            method, calls = prepare[number]()
            barrier.wait()
        except BaseException:
            barrier.abort()
            raise
        spans[number] = _timed(method, calls, seconds, latencies[number])

    futures = [threads.submit(client, number) for number in range(clients)]
    errors = []
    for future in futures:
        try:
            future.result(limit)
        except threading.BrokenBarrierError:
            continue  # another client's preparation failed
        except Exception as error:  # noqa: BLE001 - the adapter's; raised below, once all clients have ended
            errors.append(error)
    if errors:
        raise errors[0]
    return _turn_of(latencies, spans)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


def _failure(operation: str, error: BaseException) -> BenchError:
    raised = Outcome.raised(error)
    text = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)[-6:]))
    return BenchError(f"{operation}: a call raised {raised.error}: {raised.message}", text)


def _timed(
    method: Callable[..., Any], calls: Sequence[Arguments], seconds: float, latencies: list[float]
) -> tuple[float, float]:
    """Make the calls one after another until the time is over; when they began and ended."""
    clock, note = time.perf_counter, latencies.append
    began = clock()
    until, ended = began + seconds, began
    for arguments in calls:
        before = clock()
        method(*arguments)
        ended = clock()
        note(ended - before)
        if ended >= until:
            break
    return began, ended


async def _timed_async(
    method: Callable[..., Awaitable[Any]], calls: Sequence[Arguments], seconds: float, latencies: list[float]
) -> tuple[float, float]:
    clock, note = time.perf_counter, latencies.append
    began = clock()
    until, ended = began + seconds, began
    for arguments in calls:
        before = clock()
        await method(*arguments)
        ended = clock()
        note(ended - before)
        if ended >= until:
            break
    return began, ended


def _turn_of(latencies: Sequence[Sequence[float]], spans: Sequence[tuple[float, float]]) -> Turn:
    every = [latency for of_client in latencies for latency in of_client]
    seconds = max(ended for _, ended in spans) - min(began for began, _ in spans)
    return Turn(len(every), max(seconds, 1e-9), every)


def paced(seconds: float, turn: Turn, clients: int) -> int:
    """How many calls to prepare for each client, so that they last for so many seconds after this turn."""
    return max(1, math.ceil(1.3 * seconds * turn.rate / clients))
