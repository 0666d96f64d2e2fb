"""Turns: of the threads of a run, one moves at a time, and a chooser says which.

The rules:

1. A worker is a thread that runs a body. It moves only while it has the turn, and decides about the turn itself,
   inside `Turns.point` (it could go on), `Turns.wait` (it needs something) and `Turns.pause` (it lets others go
   first). Another thread is woken only when the turn changes, so a run costs about as much as it has changes.
2. Who has the turn for the first time goes on through its first point: nothing before it is shared, and an
   operation that begins late is ordered behind those that have returned.
3. Who waits for something that is not free is not runnable. Whether it is free is asked anew at every choice, so
   nobody needs to be told who else may free it.
4. A wait with a time limit gives up only when nobody else can move. No real time counts.
5. Who pauses (sleeps, or takes very many steps in one turn) is passed over until every other worker that could
   move has moved. So a retry loop cannot starve whom it waits for, nor make the tree of schedules infinite.
6. When nobody can move, it is a deadlock if nobody else could wake them: each waits for what another worker
   holds, or there is no other thread that could be the adapter's. Otherwise the run waits for real, up to a limit.
7. A worker with the turn that stays away (it blocks in something unknown) is *detached*: the others go on without
   it, and it lines up again at its next point. Such a run has `diverged`: its order was not ours alone.

What a worker is held for is its own gate, a real lock. Everything else here is guarded by one mutex.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from _thread import allocate_lock, get_ident
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Protocol

from continuum_conformance.explore.lines_sites import Site
from continuum_conformance.explore.reduction import Move, Touches
from continuum_conformance.explore.schedule import Choice, Chooser, Execution, Step

__all__ = ["Abandoned", "Blocker", "Turns", "Worker", "stack_of", "strangers"]

MANY_STEPS = 300
"""Steps within one turn after which a worker lets others go first: it may be spinning."""
TOO_MANY_STEPS = 50_000
"""Steps of one run after which its workers are taken to retry for ever."""
SETTLE = 0.05
"""Seconds for which nobody may move before that can be called a deadlock of threads that wait for a signal."""
POLL = 0.001
"""Seconds between two looks at what only a foreign thread can free."""

_sleep = time.sleep  # the real one: `explore.locks` replaces it while an adapter is explored


_NOTHING: Touches = frozenset()


class Abandoned(BaseException):
    """Ends the body of a worker whose run was given up."""


class Blocker(Protocol):
    """Something that a worker can wait for."""

    def free(self, worker: Worker) -> bool:
        """Whether ``worker`` would get it now. May be asked in any thread."""
        ...

    def take(self) -> bool:
        """Get it without waiting; asked in the thread of the worker that needs it."""
        ...

    def holder(self) -> Worker | None:
        """The worker that holds it, when one is known to."""
        ...


class Worker:
    """One worker of a run."""

    __slots__ = (
        "after",
        "alive",
        "alone",
        "deadline",
        "detached",
        "error",
        "expired",
        "fresh",
        "gate",
        "ident",
        "move",
        "name",
        "native",
        "others",
        "refused",
        "site",
        "started",
        "steps",
        "wants",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.gate = allocate_lock()
        self.gate.acquire()
        self.ident = 0
        self.native = 0
        self.alive = True
        self.started = False
        self.detached = False
        self.others: list[Worker] = []
        self.wants: Blocker | None = None
        # When its wait ends of itself, in real time; 0 for never.
        self.deadline = 0.0
        # Since when it sleeps with nobody else to let go first, in real time; 0 for not.
        self.alone = 0.0
        self.expired = False
        # Whom this worker, having paused, lets go first.
        self.after: set[Worker] = set()
        self.site = Site("start")
        self.steps = 0
        # The lock that it was refused in this turn.
        self.refused: Blocker | None = None
        # Whether it has not come to its first point, and its latest step.
        self.fresh = True
        self.move = Move(name, _NOTHING)
        self.error: BaseException | None = None

    @property
    def runnable(self) -> bool:
        """Whether it could move if it had the turn."""
        return (
            self.alive and not self.detached and (self.wants is None or self.expired or self.wants.free(self))
        )


class Turns:
    """The turns of one run.

    Args:
        names: the workers.
        chooser: decides.
        start: starts a worker's body in its thread; what runs there must call `enter` first and `leave` last.
        limit: seconds to wait for something that is not the workers' own before the run is given up.
        grace: seconds after which a worker that does not come to a point is detached.
        beside: the same for one beside another that is held within its body, and may have what it waits for.
        clock: numbers the steps.
    """

    def __init__(
        self,
        names: list[str],
        chooser: Chooser,
        start: Callable[[Worker], None],
        *,
        limit: float,
        grace: float,
        beside: float,
        clock: Callable[[], int],
    ) -> None:
        self._clock = clock
        self.workers = [Worker(name) for name in sorted(names)]
        for worker in self.workers:
            worker.others = [other for other in self.workers if other is not worker]
        self.by_ident: dict[int, Worker] = {}
        self.execution = Execution()
        self.detached: list[traceback.StackSummary] = []
        """Where workers were when they were detached."""
        self.detached_alone = False
        """Whether one was while no other was within its body: it does not wait for what that one has."""
        self.outsider: str | None = None
        """A thread that is no worker and took part."""
        self.failure: BaseException | None = None
        self.starting = 0
        """The thread that is starting a worker's body."""
        self._chooser = chooser
        self._start = start
        self._limit, self._grace, self._beside = limit, grace, beside
        self.longest = 0.0
        """Seconds that the longest step took: of a worker that went on, until it came to its next point."""
        self._went_on = time.monotonic()
        self._mutex = allocate_lock()
        self._caller = get_ident()
        self._call = allocate_lock()
        self._call.acquire()
        self._turn: Worker | None = None
        # The choice that led to the step about to be taken; -1 for none.
        self._choice = -1
        self._paused = False
        self._abandoned = False
        self._moves = 0
        self._too_many = TOO_MANY_STEPS * len(self.workers)

    # -- in a worker's thread --

    def enter(self, worker: Worker) -> None:
        """The worker's thread has begun. It has the turn."""
        worker.ident, worker.native = get_ident(), threading.get_native_id()
        self.by_ident[worker.ident] = worker
        with self._mutex:
            self._moved(worker, _NOTHING)

    def leave(self, worker: Worker) -> None:
        """The worker's body has ended."""
        self.by_ident.pop(get_ident(), None)
        with self._mutex:
            worker.alive = False
            if self._abandoned:
                self._call_up()
                return
            if worker.detached:
                worker.detached = False
                if self._turn is not None:
                    return
            self._pass_on(self._next(None))

    def point(self, worker: Worker, site: Site) -> None:
        """The worker is about to do what ``site`` says and could go on."""
        self._mutex.acquire()
        try:
            if self._abandoned:
                # What is left to do is to clean up, and not for ever.
                worker.steps += 1
                if worker.steps > 2 * MANY_STEPS:
                    raise Abandoned
                return
            worker.site = site
            self._moves += 1
            worker.steps += 1
            if (took := time.monotonic() - self._went_on) > self.longest:
                self.longest = took
            if worker.fresh and not worker.detached:
                self._begin(worker)
                return
            if worker.steps < MANY_STEPS and not (worker.detached or self._paused):
                for other in worker.others:
                    if other.runnable:
                        break
                else:
                    self._step(worker)
                    return
            if worker.steps >= MANY_STEPS:
                self._make_pause(worker)
            if self._keeps(worker):
                self._step(worker)
                return
        finally:
            self._mutex.release()
        self._park(worker)

    def wait(self, worker: Worker, blocker: Blocker, site: Site, *, seconds: float | None = None) -> bool:
        """The worker needs ``blocker``. Gives whether it got it.

        Args:
            worker: who.
            blocker: what.
            site: where, for a reader, and what it touches.
            seconds: after which the adapter would give up (rule 4); None for never.
        """
        deadline = 0.0 if seconds is None else time.monotonic() + seconds
        counted = False
        while True:
            with self._mutex:
                if self._abandoned:
                    break
                self._moves += 1
                worker.steps += 1
                worker.wants, worker.deadline, worker.site = blocker, deadline, site
                if worker.fresh and not worker.detached and blocker.free(worker):
                    self._begin(worker)
                    begun = True
                else:
                    begun, worker.fresh = False, False
                if not counted and not blocker.free(worker):
                    self.execution.waits += 1
                    counted = True
                    holder = blocker.holder()
                    blockers = () if holder is None else (holder.name,)
                    step = Step(worker.name, site.label, self._clock(), "waits", blockers)
                    self.execution.steps.append(step)
                keeps = begun or self._keeps(worker)
                if keeps and not begun:
                    self._step(worker)
            if not keeps:
                self._park(worker)
            worker.wants = None
            if worker.expired:
                worker.expired = False
                if any(other.alive for other in worker.others):
                    self.execution.gave_up.add(worker.name)
                return False
            if blocker.take():
                return True
        if blocker.take():
            return True
        raise Abandoned

    def pause(self, worker: Worker, site: Site, seconds: float) -> None:
        """The worker sleeps: others go first."""
        with self._mutex:
            if self._abandoned:
                raise Abandoned
            self._moves += 1
            worker.site, worker.fresh = site, False
            if alone := not any(other.runnable for other in worker.others):
                # It waits for something outside, or in vain; then time has to pass, but not much at once.
                worker.alone = worker.alone or time.monotonic()
                if time.monotonic() - worker.alone > self._limit:
                    self._moves = self._too_many + 1
            else:
                worker.alone = 0.0
                self._make_pause(worker)
            keeps = self._keeps(worker)
            if keeps:
                self._step(worker)
        if not keeps:
            self._park(worker)
        elif alone:
            _sleep(min(seconds, POLL))

    def attempt(self, worker: Worker, blocker: Blocker, site: Site) -> bool:
        """The worker tries to get ``blocker`` without waiting, as NOWAIT does. Gives whether it got it.

        Trying again what was refused in the same turn is refused again, so it is a pause: in ``while not
        lock.acquire(blocking=False): pass`` each round would be a choice otherwise.
        """
        if worker.refused is blocker:
            self.pause(worker, site, POLL)
        else:
            self.point(worker, site)
        if blocker.take():
            return True
        worker.refused = blocker
        if blocker.holder() not in (None, worker):
            self.execution.gave_up.add(worker.name)
        return False

    def mark(self, worker: Worker, touches: Touches) -> None:
        """The step that the worker is taking touches these, too."""
        if worker.move.touches is not None:
            worker.move.touches |= touches

    def released(self, worker: Worker, touches: Touches) -> None:
        """The worker has released a lock."""
        if not self._abandoned:
            self.execution.moves.append(Move(worker.name, touches, releases=True))

    def foreign(self, what: str) -> None:
        """A thread that is no worker took part in the run."""
        if self.outsider is None and not self._abandoned:
            # Not `threading.current_thread()`, which makes a thread that is just starting into a dummy.
            thread = getattr(threading, "_active", {}).get(get_ident())
            self.outsider = (
                f"{what} in the thread {thread.name!r}" if thread is not None else f"{what} in a new thread"
            )
            self.execution.diverged = True

    # -- whose turn it is; all under the mutex --

    def _step(self, worker: Worker) -> None:
        """The worker, which has the turn, goes on from where it is."""
        if self._paused:
            # Each who could move has to, once, before one that paused is considered again.
            self._paused = False
            for other in worker.others:
                other.after.discard(worker)
                self._paused = self._paused or bool(other.after)
        self._moved(worker, worker.site.touches)
        self._tell(worker)

    def _begin(self, worker: Worker) -> None:
        """The worker goes on through its first point."""
        worker.fresh = False
        touches = worker.site.touches
        worker.move.touches = None if touches is None else (worker.move.touches or _NOTHING) | touches
        self._tell(worker)

    def _moved(self, worker: Worker, touches: Touches | None) -> None:
        self._went_on = time.monotonic()
        worker.move = Move(worker.name, touches, self._choice)
        self._choice = -1
        self.execution.moves.append(worker.move)

    def _tell(self, worker: Worker) -> None:
        steps = self.execution.steps
        step = (worker.name, worker.site.label)
        if not steps or steps[-1][:2] != step:
            steps.append(Step(*step, self._clock()))

    def _make_pause(self, worker: Worker) -> None:
        worker.steps = 0
        worker.after = {other for other in worker.others if other.runnable}
        self._paused = self._paused or bool(worker.after)
        self._moves += MANY_STEPS  # so that workers which pause for one another come to an end

    def _keeps(self, worker: Worker) -> bool:
        """Choose; whether the worker keeps the turn. If not, another one has been woken, or the caller."""
        if worker.detached:
            worker.detached = False
            if self._turn is not None:
                return False  # it waits to be chosen like the others
        if self._moves > self._too_many:
            self._turn = None
            self._call_up()
            return False
        chosen = self._next(worker)
        if chosen is worker:
            self._turn = worker
            return True
        worker.steps = 0
        self._pass_on(chosen)
        return False

    def _next(self, current: Worker | None) -> Worker | None:
        """Who moves next; None when nobody can."""
        options = [worker for worker in self.workers if worker.runnable]
        if self._paused:
            ready = [worker for worker in options if not any(other.runnable for other in worker.after)]
            options = ready or options
        if not options:
            if any(worker.detached for worker in self.workers):
                return None
            patient = [worker for worker in self.workers if worker.alive and worker.wants and worker.deadline]
            if patient and (self.outsider is not None or self._strangers()):
                # A thread that is not ours may be about to answer: then real time counts.
                patient = [worker for worker in patient if worker.deadline <= time.monotonic()]
            for worker in patient[:1]:
                worker.expired = True
            return patient[0] if patient else None
        if len(options) == 1:
            return options[0]
        current_first = current is not None and current in options
        if current_first and current is not None:
            options.remove(current)
            options.insert(0, current)
        names = tuple(option.name for option in options)
        try:
            taken = self._chooser(names, current_first)
            chosen = options[taken]
        except BaseException as error:  # noqa: BLE001 - the chooser's error belongs to the caller of the run
            self.failure = error
            return None
        self.execution.choices.append(
            Choice(
                names,
                taken,
                preemptive=current_first,
                labels=tuple(option.site.label for option in options),
            )
        )
        self._choice = len(self.execution.choices) - 1
        return chosen

    def _pass_on(self, chosen: Worker | None) -> None:
        self._turn = chosen
        if chosen is None:
            self._call_up()
        elif chosen.started:
            chosen.gate.release()
        else:
            chosen.started = True
            # This may be a worker's thread, under the mutex: what is done here is the kit's, and no point.
            self.starting = get_ident()
            try:
                self._start(chosen)
            finally:
                self.starting = 0

    def _call_up(self) -> None:
        if self._call.locked():
            self._call.release()

    def _park(self, worker: Worker) -> None:
        """Hold the thread until the worker has the turn."""
        worker.gate.acquire()
        worker.refused = None
        with self._mutex:
            # Raised here, it could keep a `with` from giving back a lock that the executor does not know.
            if not self._abandoned:
                self._step(worker)

    # -- in the thread of the caller --

    def drive(self) -> None:
        """Run all workers to their end, or give the run up."""
        with self._mutex:
            self._pass_on(self._next(None))
        moves, since = -1, time.monotonic()
        looked: tuple[FrameType | None, int] = (None, 0)
        pace = self._grace / 2
        while True:
            self._call.acquire(timeout=pace)
            with self._mutex:
                if not any(worker.alive for worker in self.workers):
                    return
                if self._moves != moves:
                    moves, since = self._moves, time.monotonic()
                waited = time.monotonic() - since
                turn = self._turn
                pace = self._grace / 2
                if turn is None and (self.failure is not None or self._moves > self._too_many):
                    break
                if turn is not None:
                    # Long without a step, twice at the same instruction, and asleep: it is blocked, not slow.
                    # (On a busy machine a thread can be kept from running for a quarter of a second.)
                    frame = sys._current_frames().get(turn.ident)
                    here = (frame, frame.f_lasti if frame is not None else -1)
                    grace = self._beside if _accompanied(turn) else self._grace
                    blocked = waited >= grace and here == looked and _sleeps(turn)
                    pace = grace / 2
                    if turn.ident and (blocked or waited >= self._limit):
                        self._detach(turn, frame)
                    looked = here
                    del frame
                    continue
                looked = (None, 0)
                chosen = self._next(None)
                if chosen is not None:
                    self._pass_on(chosen)
                    continue
                if self.failure is not None or self._is_deadlock(waited) or waited > self._limit:
                    break
                pace = POLL
        self._give_up()

    def _detach(self, worker: Worker, frame: FrameType | None) -> None:
        self.detached.append(traceback.StackSummary() if frame is None else traceback.extract_stack(frame))
        if not _accompanied(worker):
            self.detached_alone = True
        self.execution.diverged = True
        self.execution.waits += 1
        self.execution.steps.append(Step(worker.name, "does not come back", self._clock(), "silent"))
        worker.detached = True
        self._turn = None
        chosen = self._next(None)
        if chosen is not None:
            self._pass_on(chosen)

    def _is_deadlock(self, waited: float) -> bool:
        """Whether nobody can ever wake those that wait (rule 6)."""
        waiting = [worker for worker in self.workers if worker.alive]
        if any(worker.detached or worker.wants is None for worker in waiting) or self.outsider is not None:
            return False
        # Who waits for a lock that it holds itself may use it as a signal (a condition does), which anyone can give.
        holders = [worker.wants.holder() if worker.wants is not None else None for worker in waiting]
        if all(holder not in (None, worker) for worker, holder in zip(waiting, holders, strict=True)):
            return True
        # A thread that has been started may be seen by nobody yet.
        return waited >= SETTLE and not self._strangers()

    def _strangers(self) -> bool:
        return strangers({worker.ident for worker in self.workers} | {self._caller})

    def _give_up(self) -> None:
        """End the bodies of all workers, after noting where each of them is."""
        with self._mutex:
            alive = [worker for worker in self.workers if worker.alive]
            frames = sys._current_frames()
            stacks = {worker.name: stack_of(frames.get(worker.ident)) for worker in alive}
            del frames
            if self.failure is None:
                blocked = self._turn is None and self._moves <= self._too_many
                if blocked and self._is_deadlock(SETTLE):
                    self.execution.deadlock = stacks
                else:
                    self.execution.hung.update(stacks)
            self._abandoned = True
            for worker in alive:
                if worker.started and not worker.detached:
                    worker.gate.release()
                elif not worker.started:
                    worker.alive = False
        deadline = time.monotonic() + 1
        while any(worker.alive for worker in alive) and time.monotonic() < deadline:
            self._call.acquire(timeout=POLL)


# Threads of tools that may be there beside an adapter's: a test runner's, a debugger's, and the kit's own, which
# wait for work that only the kit gives them.
_HARMLESS = ("/continuum_conformance/", "/execnet/", "/xdist/", "/_pytest/", "pytest_timeout", "/pydevd")


def _accompanied(worker: Worker) -> bool:
    """Whether another one is within its body, and so may have what the worker waits for."""
    return any(other.alive and other.started for other in worker.others)


def _sleeps(worker: Worker) -> bool:
    """Whether the worker's thread waits for something, as far as the system tells; else perhaps for a processor."""
    try:
        status = Path(f"/proc/self/task/{worker.native}/stat").read_text()
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] != "R"


def strangers(known: set[int]) -> bool:
    """Whether there is a thread that could be the adapter's, or could work for it, other than the ``known`` ones."""
    if getattr(threading, "_limbo", None):
        return True  # one is just being started
    for ident, top in sys._current_frames().items():
        if ident in known or ident == threading.main_thread().ident:
            continue
        # By the outermost frame: the innermost ones of an adapter's thread may be in a lock of ours.
        frame: FrameType | None = top
        outermost = ""
        while frame is not None:
            file = frame.f_code.co_filename
            if file != threading.__file__:
                outermost = file.replace("\\", "/")
            frame = frame.f_back
        if not any(harmless in outermost for harmless in _HARMLESS):
            return True
    return False


def stack_of(frame: FrameType | None) -> str:
    """The stack of a thread, without what belongs to the scheduler."""
    if frame is None:
        return "(the thread has ended)"
    kit = ("explore/lines.py", "explore/lines_turns.py", "explore/locks.py", "/threading.py", "/queue.py")
    entries = [
        entry
        for entry in traceback.extract_stack(frame)
        if not entry.filename.replace("\\", "/").endswith(kit)
    ]
    return "".join(traceback.format_list(entries)) or "(no Python frame)"
