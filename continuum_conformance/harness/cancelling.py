"""Cancelling a coroutine exactly where it waits for the n-th time (ATM-5)."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Cancelling", "cancelled_at"]

T = TypeVar("T")


@dataclass
class Cancelling:
    """What came of it.

    Attributes:
        waits: how often the coroutine gave way to its loop.
        struck: whether it was cancelled.
        raised: whether it raised ``CancelledError``.
        answer: what it returned otherwise.
        beside: what the coroutine beside it returned, or the ``CancelledError`` that it raised.
    """

    waits: int = 0
    struck: bool = False
    raised: bool = False
    answer: Any = None
    beside: Any = None


async def cancelled_at(
    made: Coroutine[Any, Any, T], number: int, beside: Coroutine[Any, Any, Any] | None = None
) -> Cancelling:
    """Run a coroutine as a task that is cancelled when it gives way to the loop for the ``number``-th time, from 1.

    With 0 it is not cancelled. Raises what the coroutine raises, but for ``CancelledError``.

    Args:
        made: the coroutine.
        number: where it is cancelled.
        beside: another one, which begins just after it and is not cancelled; waited for as well.
    """
    found = Cancelling()

    @types.coroutine
    def counted() -> Generator[Any, Any, T]:
        send, value = made.send, None
        while True:
            try:
                waited_for = send(value)
            except StopIteration as stop:
                answer: T = stop.value
                return answer
            found.waits += 1
            if found.waits == number:
                found.struck = True
                # By then the task is suspended, whatever it waits for.
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                value = yield waited_for
                send = made.send
            except BaseException as error:  # noqa: BLE001 - it is thrown into the coroutine, whose answer counts
                send, value = made.throw, error

    async def outer() -> T:
        return await counted()

    task = asyncio.ensure_future(outer())
    other = asyncio.ensure_future(beside) if beside is not None else None
    try:
        found.answer = await task
    except asyncio.CancelledError:
        if not found.struck:
            raise
        found.raised = True
    if other is not None:
        (found.beside,) = await asyncio.gather(other, return_exceptions=True)
    return found
