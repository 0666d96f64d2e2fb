"""Wrong in the async form."""

from __future__ import annotations

import asyncio
import functools
import time

from continuum_adapters.in_memory import InMemoryHarness, InMemoryJournal

from continuum_conformance.contract import SequenceConflict
from continuum_conformance.contract.journal import OPERATIONS

from .registry import harness_for, wrong


class AsyncJournal:
    """The journal in memory with coroutines for methods, and a suspension in each, as a driver would have."""

    def __init__(self, clock, *, store):
        self.inner = InMemoryJournal(clock, store=store)

    def close(self):
        self.inner.close()


def _made(name):
    async def call(self, *arguments):
        # Arguments are taken in before the first suspension (TRM-4).
        answer = getattr(self.inner, name)(*arguments)
        await asyncio.sleep(0)
        return answer

    call.__name__ = name
    return call


for _name in OPERATIONS:
    setattr(AsyncJournal, _name, _made(_name))

harness_for(AsyncJournal, InMemoryHarness)


@wrong("TRM-4", message=r"forged|items became")
class EncodesAfterTheFirstAwait(AsyncJournal):
    """A connection is awaited before the event is encoded: what the caller changes meanwhile is stored."""

    async def append(self, instance, run_id, event, lease_token):
        await asyncio.sleep(0)
        await super().append(instance, run_id, event, lease_token)

    async def start_run(self, instance, run_id, workflow, input):
        await asyncio.sleep(0)
        await super().start_run(instance, run_id, workflow, input)


@wrong("APP-10", message=r"the history has fewer events|found nothing|fewer")
class FireAndForget(AsyncJournal):
    """append creates a task and does not await it: the caller is told before it is done."""

    async def append(self, instance, run_id, event, lease_token):
        async def later():
            await asyncio.sleep(0.01)
            self.inner.append(instance, run_id, event, lease_token)

        self.inner._check_fence  # noqa: B018
        self._task = asyncio.get_running_loop().create_task(later())


@wrong("ATM-3", message=r"did not come back: no answer within 1 s", limit=1.0)
class AsyncLockKeptAfterAnError(AsyncJournal):
    """await lock.acquire() without try and finally."""

    def __init__(self, clock, *, store):
        super().__init__(clock, store=store)
        self._lock = asyncio.Lock()

    async def append(self, instance, run_id, event, lease_token):
        await self._lock.acquire()
        await super().append(instance, run_id, event, lease_token)
        self._lock.release()


@wrong("FIN-1", message=r"suspend did not come back: no answer within 1 s", limit=1.0)
class BlocksTheLoop(AsyncJournal):
    """A second suspend polls with time.sleep, which stops the whole loop."""

    async def suspend(self, instance, run_id, lease_token):
        run = await self.get_run(instance, run_id)
        if run is not None and run.state.value == "suspended" and lease_token is None:
            time.sleep(5)
        await super().suspend(instance, run_id, lease_token)


@wrong("ATM-2", message=r"an exception that is no contract error, CancelledError")
class CancelsItself(AsyncJournal):
    """A conflict cancels the current task group, and the cancellation reaches the caller."""

    async def append(self, instance, run_id, event, lease_token):
        try:
            await super().append(instance, run_id, event, lease_token)
        except SequenceConflict:
            raise asyncio.CancelledError from None


@wrong("FIN-2", message=r"the run is (running|suspended), but it must be completed")
class ForgottenAwait(AsyncJournal):
    """One await is missing: complete returns before its coroutine was ever run."""

    @functools.wraps(AsyncJournal.complete)
    async def complete(self, instance, run_id, result, lease_token):
        waiting = super().complete(instance, run_id, result, lease_token)
        waiting.close()
