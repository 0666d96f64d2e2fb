"""The executor for adapters that speak to PostgreSQL: a step is a database statement, held at the gate.

    gate = Gate(server.dsn)
    executor = GatedExecutor(gate, parks=harness.tables)
    handles = {name: open(gate.dsn_for(name)) for name in ("A", "B")}
    execution = executor.run({"A": body_a, "B": body_b}, Scripted([0, 1]))

**Theory of operation.**

1. A worker's body runs in a thread. One worker *moves* at a time: the chooser lets go what is held of it – a
   group at the gate, a kept answer, a session parked inside a statement, a `point` – and then nothing else is
   let go until the run is **at rest**.
2. The run is at rest when each unfinished worker is held, or waits. A worker waits in the server when
   ``pg_blocking_pids`` leads from its session, over others that wait, to one that cannot move before we let it,
   and back to itself nowhere (that is a deadlock, which the server is about to end). Both are read in one query;
   where they go over a third session, twice, since that query looks at one session after the other.
3. What a statement that has waited gets in the end is kept at the gate, and giving it to its client is a choice of
   its own. So it does not matter whether the waiter or the one that woke it is faster.
4. A worker that is silent for `grace` while another could move and no thread of this process runs, is taken to
   wait in its client, for a connection of a pool or a lock of a thread. That is a guess; `client_waits` counts it.
5. A worker that tries in vain again and again is not offered while another one could move (`PATIENCE`).
6. After the last step sessions that are still in a transaction are ended; after a run that was given up, all of
   its workers' sessions are, and no new ones taken until the bodies are back.

What decides is the order of steps, never time; times only bound how long is waited before the server is asked.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from continuum_conformance.explore.schedule import Choice, Chooser, Execution, Kind, Step
from continuum_conformance.postgres.databases import connect
from continuum_conformance.postgres.gate import Gate, Session
from continuum_conformance.postgres.parking import Parking
from continuum_conformance.postgres.wire import Nature

__all__ = ["GatedExecutor", "RunEnded"]

GRACE = 0.15
"""Seconds of silence after which a worker is taken to wait in its client, if another one could move."""

LIMIT = 5.0
"""Seconds without any movement after which a run is given up."""

PATIENCE = 3
"""How often a worker may fail in vain, or execute the same statement with the same values, before it yields."""

PROBE = 0.001
"""Seconds that a statement is given before the server is asked whether it waits."""

LOOK = 0.003
"""Seconds after which a session that waits has looked for a deadlock; its ``deadlock_timeout`` is one millisecond."""

FAREWELL = 5.0
"""Seconds that bodies get to come back after a run was given up."""

GIVING_UP = frozenset({"55P03", "57014", "25P03", "57P05", "25P04"})
"""Lock not available, cancelled or timed out, and the three time-outs of idle sessions and transactions."""

CONTENTION = GIVING_UP | {"40001", "40P01"}

BLOCKERS = "SELECT pid, pg_blocking_pids(pid) FROM unnest(%s::int[]) AS pid"


class RunEnded(BaseException):
    """Raised from `GatedExecutor.point` in the bodies of a run that was given up."""


class _Thread:
    """A thread that runs bodies, one after another; it outlives a run, for making one takes as long as a step."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job

    def start(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def end(self) -> None:
        self._jobs.put(None)

    @property
    def ident(self) -> int | None:
        return self._thread.ident


@dataclass(eq=False)
class _Worker:
    """One worker of a run."""

    name: str
    gate: str
    body: Callable[[], None]
    thread: _Thread
    started: bool = False
    finished: bool = False
    in_client: bool = False  # taken to wait in its client
    point: str | None = None  # the label of the point at which it is held
    go_on: threading.Event = field(default_factory=threading.Event)
    in_vain: int = 0
    repeated: dict[tuple[str, Any], int] = field(default_factory=dict)

    @property
    def yields(self) -> bool:
        """Whether it got nowhere too often, and lets others go first."""
        return self.in_vain >= PATIENCE or max(self.repeated.values(), default=0) > PATIENCE


class GatedExecutor:
    """Runs workers whose statements go through a gate. See the module's text.

    Make it before the handles are opened: where the gate's user is a superuser, sessions that begin from then on
    have a ``deadlock_timeout`` of a millisecond, so that the server's end of a deadlock costs no time, and its
    victim is always the session that closed the circle.

    Args:
        gate: the gate. Each worker connects by its ``dsn_for``.
        parks: tables on which sessions are parked inside their statements (see `postgres.parking`); none without.
        listeners: for a worker whose handle is another one's, the name under which that was opened.
        limit: seconds without any movement after which a run is given up.
        grace: seconds of silence after which a worker is taken to wait in its client.
        elsewhere: whether a worker's code runs outside of this process just now; None where all is in it.

    Raises:
        PostgresUnavailable: the server cannot be reached, or refuses the triggers.
    """

    level = "statements"

    def __init__(
        self,
        gate: Gate,
        *,
        parks: Collection[str] = (),
        listeners: Mapping[str, str] | None = None,
        limit: float = LIMIT,
        grace: float = GRACE,
        elsewhere: Callable[[], bool] | None = None,
    ) -> None:
        self.gate = gate
        self.elsewhere = elsewhere
        self.listeners = dict(listeners or {})
        self.clock: Callable[[], int] | None = None
        self.limit = limit
        self.grace = grace
        self.client_waits = 0
        """How often, over all runs, a worker was taken to wait in its client: runs that may not replay."""
        self.server_chose = 0
        """How often, over all runs, a step let one of several that waited go on. Which one, is the server's choice:
        where the row that they wait for was changed, all are woken and race for its new version."""
        self.left_open: list[str] = []
        """What finished workers left open in the last run: sessions in a transaction, with their last statement."""
        self._control = connect(gate.server_dsn)
        self._run: _Run | None = None
        self._threads: list[_Thread] = []
        self.parking: Parking | None = None
        """Parks sessions; set to None it is off, and set back it is on again."""
        superuser = self._control.info.parameter_status("is_superuser")
        if superuser == "on":
            gate.settings["deadlock_timeout"] = "1ms"
        try:
            self.parking = self._triggers = Parking(gate.server_dsn, parks) if parks else None
        except BaseException:
            self._control.close()
            raise

    def close(self) -> None:
        """Take the triggers away and close the executor's connections; the gate stays."""
        for thread in self._threads:
            thread.end()
        self._threads.clear()
        if self._triggers is not None:
            self._triggers.close()
        self._control.close()

    def __enter__(self) -> GatedExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, workers: Mapping[str, Callable[[], None]], chooser: Chooser) -> Execution:
        """Run every worker's body to its end, one of them at a time. A body never raises.

        A body begins when its worker is chosen for the first time, and goes on through its first statement, so what
        bodies do before that never overlaps.
        """
        if self._run is not None:
            raise RuntimeError("the executor is at a run already")
        while len(self._threads) < len(workers):
            self._threads.append(_Thread())
        self.gate.clock = self.clock or itertools.count(1).__next__
        with self.gate.driven(), self.gate.taped() as tape:
            run = self._run = _Run(self, workers, chooser)
            run.execution.tape = tape
            try:
                run.to_the_end()
            finally:
                run.leave()
                self._run = None
        return run.execution

    def point(self, worker: str, label: str) -> None:
        """A choice point of a body's own: called in it, this comes back when the worker's turn has come.

        At the start of an operation it makes the operation's beginning a step. For a handle whose gate sees no
        connection these are the only steps (the level of operations). Outside of a run it does nothing.
        """
        run = self._run
        if run is not None:
            run.point(worker, label)

    def began(self, worker: str) -> None:
        """Said by a body at the start of an operation: what it executes from now on repeats nothing."""
        run = self._run
        if run is not None:
            run.forget_repeats(worker)

    # -- what the run asks for --

    def _thread(self, place: int) -> _Thread:
        return self._threads[place]

    def _replace(self, thread: _Thread) -> None:
        self._threads.remove(thread)

    def _blockers(self, pids: list[int]) -> dict[int, frozenset[int]]:
        rows = self._control.execute(BLOCKERS, (pids,)).fetchall()
        return {pid: frozenset(blockers) for pid, blockers in rows}

    def _terminate(self, pids: Collection[int]) -> None:
        """End server processes – of sessions that came through the gate – and wait until they are gone."""
        if not pids:
            return
        asked = list(pids)
        self._control.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", (asked,))
        deadline = time.monotonic() + FAREWELL
        query = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s::int[])"
        while time.monotonic() < deadline:
            row = self._control.execute(query, (asked,)).fetchone()
            if row is None or row[0] == 0:
                return


class _GivenUp(Exception):
    """The run cannot go on; what is known of it stands in its execution."""


class _Run:
    """One run, from its start until everything is as before."""

    def __init__(
        self, executor: GatedExecutor, bodies: Mapping[str, Callable[[], None]], chooser: Chooser
    ) -> None:
        self._executor = executor
        self._gate = executor.gate
        self._parking = executor.parking
        self._chooser = chooser
        self.execution = Execution()
        self._workers = {
            name: _Worker(name, executor.listeners.get(name, name), body, executor._thread(place))
            for place, (name, body) in enumerate(bodies.items())
        }
        self._last: str | None = None
        self._ended = False
        self._waiting_since: dict[int, float] = {}

    # -- the bodies' side, in their threads --

    def point(self, name: str, label: str) -> None:
        worker = self._workers[name]
        if self._ended:
            raise RunEnded
        worker.go_on.clear()
        worker.point = label
        self._gate.wake()
        worker.go_on.wait()
        if self._ended:
            raise RunEnded

    def forget_repeats(self, name: str) -> None:
        worker = self._workers[name]
        worker.repeated.clear()
        worker.in_vain = 0

    def _body(self, worker: _Worker) -> None:
        try:
            worker.body()
        except RunEnded:
            pass
        except BaseException:  # noqa: BLE001 - a body never raises; should it, the run ends all the same
            self.execution.hung[worker.name] = f"its body raised:\n{traceback.format_exc()}"
        finally:
            worker.finished = True
            self._gate.wake()

    # -- the run --

    def to_the_end(self) -> None:
        """Start the workers and move them until all are finished, or none can move."""
        gate = self._gate
        gate.errors.clear()
        gate.attribute = self._attribute
        gate.control(self._workers)
        try:
            self._move_all()
            if any(not worker.finished for worker in self._workers.values()):
                self._stuck()
        except _GivenUp:
            pass

    def _move_all(self) -> None:
        """Move one worker after another, until none can move."""
        while options := self._options():
            chosen = self._choose(options)
            waiting = [session for session in self._busy() if session.keep_reply]
            if not self._workers[chosen].started:
                self._begin(self._workers[chosen])
            if chosen in self._options():
                self._move(chosen)
                self._settle()
            if len(waiting) > 1 and any(session.replied for session in waiting):
                self._executor.server_chose += 1

    def _attribute(self, session: Session) -> str:
        """Whose work begins on this session: of those that share its listener, the one that moves."""
        sharing = [worker for worker in self._workers.values() if worker.gate == session.gate]
        if len(sharing) < 2:
            return sharing[0].name if sharing else session.gate
        active = {worker.name for worker in sharing if self._is_active(worker)}
        if self._last in active:
            return self._last or session.gate
        waiting = [worker.name for worker in sharing if worker.in_client]
        return min(active) if active else min(waiting, default=sharing[0].name)

    # Each unfinished worker's sessions are looked at anew: there are few, and no state can be stale.

    def _sessions(self, worker: _Worker) -> list[Session]:
        return [session for session in self._gate.sessions() if session.worker == worker.name]

    def _is_active(self, worker: _Worker) -> bool:
        """Whether it is in its client's code, so that it may come with anything at any time."""
        return (
            worker.started
            and not worker.finished
            and not worker.in_client
            and worker.point is None
            and not any(s.held or s.parked or s.replied or s.busy for s in self._sessions(worker))
        )

    def _pending(self, worker: _Worker) -> Session | None:
        """The session by which it could move: what came first of what is held."""
        if worker.finished:
            return None
        held = [s for s in self._sessions(worker) if s.replied or s.parked or s.held]
        return min(held, key=lambda s: (s.held_since, s.number), default=None)

    def _label(self, name: str) -> str:
        worker = self._workers[name]
        session = self._pending(worker)
        if session is None:
            return worker.point or ""
        if session.replied:
            return f"{session.latest.label if session.latest else ''} <returns>"
        if session.parked:
            return f"<inside> {session.parked}"
        return session.held.label if session.held else ""

    def _options(self) -> list[str]:
        """The workers that can move, in the order of the schedule."""
        able = [
            w
            for w in self._workers.values()
            if not w.started or w.point is not None or self._pending(w) is not None
        ]
        names = sorted(w.name for w in able if not w.yields) or sorted(w.name for w in able)
        if self._last in names:
            names.remove(self._last)
            names.insert(0, self._last)
        return names

    def _choose(self, options: list[str]) -> str:
        if len(options) == 1:
            return options[0]
        current_first = options[0] == self._last
        taken = self._chooser(options, current_first)
        self.execution.choices.append(
            Choice(tuple(options), taken, current_first, tuple(map(self._label, options)))
        )
        return options[taken]

    def _begin(self, worker: _Worker) -> None:
        """Let a body run to its first statement."""
        self._last = worker.name
        worker.started = True
        worker.thread.start(lambda: self._body(worker))
        self._settle()

    def _move(self, name: str) -> None:
        worker = self._workers[name]
        self._note(name, self._label(name))
        if name != self._last:
            for other in self._workers.values():
                self._has_been_patient(other)
        self._last = name
        worker.in_client = False
        session = self._pending(worker)
        if session is None:
            worker.point = None
            worker.go_on.set()
        elif session.parked and self._parking is not None and session.pid is not None:
            session.unpark()
            self._parking.release(session.pid)
        else:
            if session.held is not None:
                self._count_repeats(worker, session)
                if session.held.nature is not Nature.COMMITS:
                    self._let_waiters_look_for_deadlocks()
                if self._parking is not None and session.pid is not None:
                    self._parking.arm(session.pid)
            session.release()

    def _let_waiters_look_for_deadlocks(self) -> None:
        """Give sessions that wait with locks of their own the time of their ``deadlock_timeout``.

        A session looks once, that time after it began to wait. When all have looked, the victim is the session
        that closes the circle, each time.
        """
        since = max(
            (
                self._waiting_since.get(s.number, 0.0)
                for s in self._gate.sessions()
                if s.busy and s.executed > 1
            ),
            default=0.0,
        )
        until = since + LOOK * _load()
        while (left := until - time.monotonic()) > 0:
            self._gate.poll(left)

    @staticmethod
    def _count_repeats(worker: _Worker, session: Session) -> None:
        if session.held is None or session.held.nature is Nature.COMMITS:
            return
        what = (session.held.label, tuple(s.values for s in session.held.statements))
        worker.repeated[what] = worker.repeated.get(what, 0) + 1

    @staticmethod
    def _has_been_patient(worker: _Worker) -> None:
        """Another one has moved: one more try."""
        worker.in_vain = min(worker.in_vain, PATIENCE - 1)
        for what, times in worker.repeated.items():
            worker.repeated[what] = min(times, PATIENCE)

    # -- coming to rest --

    def _settle(self) -> None:
        """Wait until the run is at rest. Raises `_GivenUp` when it does not come to it."""
        gate = self._gate
        silent_since = moved = time.monotonic()
        pause = PROBE
        known: dict[int, frozenset[int]] = {}
        mover_waits = False
        while True:
            self._note_errors()
            now = time.monotonic()
            active = [w for w in self._workers.values() if self._is_active(w)]
            busy = self._busy()
            if active:
                silent, grace = now - silent_since, self._executor.grace * _load()
                # A thread that turns in a circle until another one moves is waiting, too.
                unsure = silent < grace or (silent < 10 * grace and self._code_runs())
                if unsure or self._opening() or not (self._able() or busy):
                    if now - moved > self._executor.limit:
                        self._hang(active)
                    if gate.poll(grace / 2):
                        silent_since = time.monotonic()
                    continue
                for worker in active:
                    worker.in_client = True
                    self.execution.waits += 1
                    self._executor.client_waits += 1
                    self._note(worker.name, "<waits in the client>", "silent")
                continue
            if not busy:
                # Who waits in the client may have been woken, and says so in its own time.
                if not any(w.in_client and not w.finished for w in self._workers.values()):
                    return
                if not gate.poll(self._executor.grace * _load() / 10) and not self._code_runs():
                    return
                self._reconsider()
                continue
            if not all(session.keep_reply for session in busy) and not mover_waits and gate.poll(pause):
                silent_since = time.monotonic()
                continue
            waiting = self._executor._blockers([s.pid for s in busy if s.pid is not None])
            if gate.poll(0):
                known = {}
                continue
            rest = self._at_rest(busy, waiting)
            if rest == "surely" or (rest == "perhaps" and waiting == known):
                self._wait(busy, waiting)
                return
            mover_waits = rest == "perhaps"
            known = waiting
            if now - moved > self._executor.limit:
                self._hang([w for w in self._workers.values() if any(s.worker == w.name for s in busy)])
            if rest == "no":
                if gate.poll(pause):
                    silent_since = time.monotonic()
                pause = min(pause * 1.5, 0.02)

    def _code_runs(self) -> bool:
        elsewhere = self._executor.elsewhere
        return _threads_run() or (elsewhere is not None and elsewhere())

    def _able(self) -> bool:
        return any(w.point is not None or self._pending(w) is not None for w in self._workers.values())

    def _busy(self) -> list[Session]:
        """The sessions of unfinished workers that the server has, and that nothing of ours holds."""
        unfinished = {w.name for w in self._workers.values() if not w.finished}
        return [s for s in self._gate.sessions() if s.busy and s.worker in unfinished and s.status]

    def _opening(self) -> bool:
        """Whether a session is on its way: on a busy machine the server takes its time to begin one."""
        return any(not s.status for s in self._gate.sessions() if s.worker in self._workers)

    def _reconsider(self) -> None:
        for worker in self._workers.values():
            if worker.in_client and (self._pending(worker) or any(s.busy for s in self._sessions(worker))):
                worker.in_client = False

    def _at_rest(self, busy: list[Session], waiting: Mapping[int, frozenset[int]]) -> str:
        """Whether each busy session waits for one that we hold: ``surely``, ``perhaps``, or ``no``."""
        pids = {session.pid for session in busy}
        still = {s.pid for s in self._gate.sessions() if s.pid is not None and s.pid not in pids}
        if self._parking is not None:
            still.add(self._parking.pid)
        answer = "surely"
        for session in busy:
            if session.pid is None:
                return "no"
            direct = waiting.get(session.pid, frozenset())
            reached = set(_reach(session.pid, waiting))
            if session.pid in reached or not reached & still:
                return "no"  # a deadlock, which the server ends; or it runs
            if not direct <= still:
                answer = "perhaps"
        return answer

    def _wait(self, busy: list[Session], waiting: Mapping[int, frozenset[int]]) -> None:
        """Those that are found waiting for the first time: from now on their answers are kept."""
        workers = {session.pid: session.worker for session in self._gate.sessions()}
        for session in busy:
            if not session.keep_reply:
                blockers = waiting.get(session.pid or 0, frozenset())
                session.keep(sorted({workers[pid] for pid in blockers if pid in workers}))
                self._waiting_since[session.number] = time.monotonic()
                self.execution.waits += 1
                label = session.latest.label if session.latest else ""
                self._note(session.worker, f"{label} <waiting ...>", "waits")

    def _note(self, worker: str, label: str, kind: Kind = "moves") -> None:
        self.execution.steps.append(Step(worker, label, self._gate.clock(), kind))

    def _note_errors(self) -> None:
        for error in self._gate.errors:
            worker = self._workers.get(error.session.worker)
            if worker is None:
                continue
            if error.sqlstate in CONTENTION:
                worker.in_vain += 1
            beside_a_held_one = any(
                other is not worker and (other.point is not None or self._pending(other) is not None)
                for other in self._workers.values()
            )
            tired = error.sqlstate in CONTENTION and worker.in_vain >= PATIENCE
            if beside_a_held_one and (error.sqlstate in GIVING_UP or not error.sqlstate or tired):
                self.execution.gave_up.add(worker.name)
        self._gate.errors.clear()

    # -- ends that should not be --

    def _stacks(self, workers: Collection[_Worker]) -> dict[str, str]:
        frames = sys._current_frames()
        stacks = {}
        for worker in workers:
            frame = frames.get(worker.thread.ident or 0)
            stack = "".join(traceback.format_stack(frame)[-12:]) if frame is not None else ""
            last = [s.latest.label for s in self._sessions(worker) if s.latest is not None and s.busy]
            stacks[worker.name] = "".join(f"the server has: {label}\n" for label in last) + stack
        return stacks

    def _hang(self, workers: Collection[_Worker]) -> None:
        self.execution.hung.update(self._stacks(workers))
        raise _GivenUp

    def _stuck(self) -> None:
        """Nobody can move. Time-outs of the adapter's own may still end it; else it is a deadlock."""
        deadline = time.monotonic() + self._executor.limit
        while time.monotonic() < deadline:
            if self._gate.poll(0.05):
                self._reconsider()
                self._settle()
                self._move_all()
            if all(worker.finished for worker in self._workers.values()):
                return
        unfinished = [worker for worker in self._workers.values() if not worker.finished]
        # Who waits in its client may wait for a thread that we do not know: no deadlock that can be proved.
        if any(worker.in_client for worker in unfinished):
            self._hang(unfinished)
        self.execution.deadlock = self._stacks(unfinished)
        raise _GivenUp

    # -- leaving --

    def leave(self) -> None:
        """End what is not idle, and let bodies that still run come back; then nothing of this run is left."""
        gate = self._gate
        gates = {worker.gate for worker in self._workers.values()}
        mine = [s for s in gate.sessions() if s.gate in gates]
        given_up = any(worker.started and not worker.finished for worker in self._workers.values())
        # Bodies that have not come back must find nothing through which they could go on.
        ending = mine if given_up else [s for s in mine if s.status in ("T", "E")]
        self._executor.left_open = [
            f"{s.worker}: {s.latest.label if s.latest else ''}" for s in ending if not given_up
        ]
        if given_up:
            self._ended = True
            gate.refuse(gates)
        try:
            pids = {s.pid for s in ending if s.pid is not None} | gate.orphans
            gate.orphans.clear()
            for session in ending:
                session.drop()
            if self._parking is not None:
                self._parking.disarm()
            self._executor._terminate(pids)
            gate.control(())
            if given_up:
                self._farewell(gates)
        finally:
            gate.attribute = None
            gate.control(())
            gate.refuse(())
            gate.errors.clear()

    def _farewell(self, gates: Collection[str]) -> None:
        for worker in self._workers.values():
            worker.go_on.set()
        deadline = time.monotonic() + FAREWELL
        while time.monotonic() < deadline and not all(
            w.finished or not w.started for w in self._workers.values()
        ):
            self._gate.poll(0.02)
        for worker in self._workers.values():
            if worker.started and not worker.finished:
                self.execution.hung.setdefault(worker.name, self._stacks([worker])[worker.name])
                self._executor._replace(worker.thread)
        pids = {s.pid for s in self._gate.sessions() if s.gate in gates and s.pid and not s.quiet}
        self._executor._terminate(pids)


def _load() -> float:
    """How much longer than on a quiet machine things may take; 1 or more.

    Measured with a load of 15 on two processors: bytes were 150 ms on their way over loopback.
    """
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)) if hasattr(os, "getloadavg") else 1.0


def _threads_run() -> bool:
    """Whether a thread of this process other than ours runs or would like to, as far as the system tells.

    On a machine with more to do than processors, a worker may be silent for long with its answer before it.
    """
    ours = str(threading.get_native_id())
    try:
        for thread in Path("/proc/self/task").iterdir():
            if thread.name != ours and (thread / "stat").read_text().rpartition(") ")[2][:1] in ("R", "D"):
                return True
    except OSError:
        pass  # no Linux, or the thread has ended
    return False


def _reach(start: int, edges: Mapping[int, frozenset[int]]) -> Iterator[int]:
    """Every process that one waits for, over others; itself only where there is a circle."""
    seen: set[int] = set()
    ahead = list(edges.get(start, ()))
    while ahead:
        pid = ahead.pop()
        if pid not in seen:
            seen.add(pid)
            yield pid
            ahead.extend(edges.get(pid, ()))
