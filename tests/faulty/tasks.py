"""Faults of coroutines that are cancelled where they wait."""

from __future__ import annotations

import asyncio
import contextlib

from continuum_adapters.in_memory import InMemoryHarness, InMemoryJournal

from continuum_conformance.contract import JournalUnavailable, RunState
from continuum_conformance.contract.arguments import check_event
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.terms import copy_term
from tests.bank import Bank


class Journal(InMemoryJournal):
    """Waits for its lock and within it, decides in one step, and gives the lock back whatever happens."""

    def __init__(self, clock, *, store, lock):
        super().__init__(clock, store=store)
        self._turn = lock

    async def _call(self, act):
        async with self._turn:
            await asyncio.sleep(0)
            answer = act()
            await asyncio.sleep(0)
        return answer


def _made(name):
    plain = getattr(InMemoryJournal, name)

    async def call(self, *arguments):
        return await self._call(lambda: plain(self, *arguments))

    call.__name__ = name
    return call


for _name in OPERATIONS:
    setattr(Journal, _name, _made(_name))


class Harness(InMemoryHarness):
    journal_class = Journal
    lock = None

    async def open(self):
        self.lock = self.lock or asyncio.Lock()
        return self.journal_class(self.clock, store=self.store, lock=self.lock)


_bank = Bank(__name__, Harness)
WRONG = _bank.WRONG
SEEN_IN = _bank.SEEN_IN
RIGHT = _bank.RIGHT
wrong = _bank.wrong
right = _bank.right


right(Journal)


@right
class InThreads(Journal):
    """The work is done in a thread, which goes on when its caller was cancelled."""

    async def _call(self, act):
        return await asyncio.to_thread(act)


@right
class Shielded(Journal):
    """What has begun is finished, and the cancellation passed on."""

    async def _call(self, act):
        return await asyncio.shield(asyncio.ensure_future(super()._call(act)))


@wrong("ATM-5", "ATM-3", seen_in="https://github.com/psycopg/psycopg/issues/1208")
class KeepsTheLock(Journal):
    """It gives the lock back after an Exception, which CancelledError is none of."""

    async def _call(self, act):
        await self._turn.acquire()
        try:
            await asyncio.sleep(0)
            answer = act()
        except Exception:
            self._turn.release()
            raise
        self._turn.release()
        return answer


@wrong("ATM-5")
class TurnsItIntoAnError(Journal):
    """Whatever goes wrong is said to be an unreachable store."""

    async def _call(self, act):
        try:
            return await super()._call(act)
        except asyncio.CancelledError as error:
            raise JournalUnavailable("cancelled", outcome_unknown=True) from error


@wrong("ATM-5")
class GoesOnAllTheSame(Journal):
    """A cancellation that comes while it waits is overheard."""

    async def _call(self, act):
        answer = act()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return answer


@wrong("ATM-5", "ATM-1", "CON-1", "FIN-2")
class FinishesInTwoSteps(Journal):
    """The state first, then, after an await, the result."""

    async def complete(self, instance, run_id, result, lease_token):
        await self._call(lambda: InMemoryJournal.complete(self, instance, run_id, None, lease_token))
        await asyncio.sleep(0)
        self._store.runs[self._key(instance, run_id)].result = self._take_in(result, "result")


@wrong("ATM-5", "ATM-1", "FEN-2", "APP-9")
class MarksBeforeItAppends(Journal):
    """An append first sets the run to running, as if it had been taken up; a cancelled one leaves it so."""

    async def append(self, instance, run_id, event, lease_token):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is None or run.state is not RunState.SUSPENDED:
            return await super().append(instance, run_id, event, lease_token)
        run.state = RunState.RUNNING
        await super().append(instance, run_id, event, lease_token)
        run.state = RunState.SUSPENDED
        return None


@wrong("ATM-5", "ATM-3", "ATM-1", seen_in="https://github.com/redis/redis-py/issues/2624")
class LeavesItsReplyBehind(Journal):
    """A call that is cancelled while it waits for its reply leaves it on the connection, for the next one to read."""

    def __init__(self, clock, *, store, lock):
        super().__init__(clock, store=store, lock=lock)
        self._replies = []

    async def _call(self, act):
        async with self._turn:
            try:
                self._replies.append((act(), None))
            except Exception as error:
                self._replies.append((None, error))
            await asyncio.sleep(0)
            answer, error = self._replies.pop(0)
        if error is not None:
            raise error
        return answer


class Batches(Journal):
    """Appends through one handle that come together are written in one go, by the first of them."""

    def __init__(self, clock, *, store, lock):
        super().__init__(clock, store=store, lock=lock)
        self._batch = []

    async def append(self, instance, run_id, event, lease_token):
        checked = check_event(event)[0]
        arguments = (instance, run_id, copy_term(checked), lease_token)
        answer = asyncio.get_running_loop().create_future()
        self._batch.append((arguments, answer))
        if len(self._batch) == 1:
            await self._lead()
        return await answer

    async def _lead(self):
        raise NotImplementedError

    def _write(self):
        batch, self._batch = self._batch, []
        for arguments, answer in batch:
            if answer.done():
                continue
            try:
                answer.set_result(InMemoryJournal.append(self, *arguments))
            except Exception as error:
                answer.set_exception(error)


@right
class TheBatchIsWrittenWhateverComes(Batches):
    """The first of them may be cancelled; what it has gathered is written all the same."""

    async def _lead(self):
        try:
            await asyncio.sleep(0)
        finally:
            self._write()


@wrong("ATM-5", "ATM-2")
class TheBatchIsCancelledWithItsFirst(Batches):
    """The first of them is cancelled, and cancels the others."""

    async def _lead(self):
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            batch, self._batch = self._batch, []
            for _, answer in batch:
                answer.cancel()
            raise
        self._write()


@wrong("ATM-5", "ATM-3")
class TheBatchIsLeftByItsFirst(Batches):
    """The first of them is cancelled, and nobody writes what it has gathered, nor anything after it."""

    async def _lead(self):
        await asyncio.sleep(0)
        self._write()


@wrong("ATM-5", "ATM-2")
class OneLoadForAll(Journal):
    """Loads of a run that come together share one, which is cancelled with whoever waits for it."""

    def __init__(self, clock, *, store, lock):
        super().__init__(clock, store=store, lock=lock)
        self._loads = {}

    async def load(self, instance, run_id):
        key = self._key(instance, run_id)
        shared = self._loads.get(key)
        if shared is None:
            shared = self._loads[key] = asyncio.ensure_future(super().load(instance, run_id))
            shared.add_done_callback(lambda _: self._loads.pop(key, None))
        return copy_term(await shared)
