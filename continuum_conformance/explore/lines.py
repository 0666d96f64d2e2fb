"""Interleavings at lines and instructions, for adapters in Python threads.

One thread moves at a time. It can lose its turn at the sites of the adapter's own code (`explore.lines_sites`) and
at locks (`explore.locks`), and decides about that itself (`explore.lines_turns`), so that a run without a
preemption costs no switch of threads. Its instructions are watched by `sys.monitoring` from Python 3.12, on the
adapter's code objects only, and before that by `sys.settrace` in the workers' threads.

Where that cannot work – the trace function is a debugger's, or the adapter works in threads of its own, which
nobody holds – the executor falls back to whole operations: `LineExecutor.level` is then ``"operations"`` and
`LineExecutor.reason` says why. A caller compares ``level`` before and after a run, and starts its scenario again
when it fell.
"""

from __future__ import annotations

import gc
import itertools
import queue
import sys
import threading
from _thread import get_ident
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from traceback import StackSummary
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any, Protocol

from continuum_conformance.explore.lines_sites import Site, Sites, files_of
from continuum_conformance.explore.lines_turns import Abandoned, Turns, Worker
from continuum_conformance.explore.locks import Substitution, under_control
from continuum_conformance.explore.reduction import REAL_TIME, Touches
from continuum_conformance.explore.schedule import Chooser, Execution

__all__ = ["LineExecutor"]

LIMIT = 10.0
"""Seconds to wait for something that only a thread outside of the run can give."""
GRACE = 0.25
"""Seconds after which a worker that comes to no site is taken to be blocked in something unknown."""
LEAST_GRACE, STEPS_OF_GRACE = 0.03, 10
"""Of the time after which a worker is taken to be blocked beside another one: seconds, and longest steps."""
PATIENCE = 3
"""Runs with such a worker after which an adapter is explored by whole operations.

At lines, that is for adapters over another store, a run does not count whose worker fell silent beside one that is
held within its operation: it waits for a lock of the store's, a row's or a file's, and comes back once the other has
moved on. And there only runs in a row count, for a store can be slow.
"""

_CALL: Touches = frozenset({(REAL_TIME, False)})
_RETURN: Touches = frozenset({(REAL_TIME, True)})
_SimpleQueue = queue.SimpleQueue
_KIT = str(Path(__file__).resolve().parent.parent)


class _Watch(Protocol):
    """Calls a worker's point at the adapter's sites."""

    def open(self, fresh: list[CodeType]) -> None:
        """From now on, also for this code."""

    def enter(self) -> None:
        """The thread begins with a body."""

    def leave(self) -> None:
        """The thread is done with a body."""

    def close(self) -> None:
        """No longer."""


class LineExecutor:
    """Runs workers with switches inside the adapter's own code.

    To be used as a context manager, or closed: as long as it is open, the adapter's code is watched, and the locks
    that it makes are ours. Open the adapter's handles meanwhile, or `adopt` them.

    Args:
        modules: which code is the adapter's: imported modules or packages, files or directories, or a predicate on
            ``co_filename``.
        granularity: ``"instructions"``, or ``"lines"`` for one point a line: fewer, and blind within a line.
        limit: seconds to wait for what only a foreign thread can give; then the run has ``hung``.
        grace: seconds without a sign of life after which the other workers go on without the running one.
        submit: starts a body in the thread in which the worker's journal is to be called, given the worker's name;
            by default in threads of the executor's own, the same one for a name each time.
    """

    def __init__(
        self,
        modules: Iterable[str | Path | ModuleType] | Callable[[str], bool],
        granularity: str = "instructions",
        *,
        limit: float = LIMIT,
        grace: float = GRACE,
        submit: Callable[[str, Callable[[], None]], None] | None = None,
    ) -> None:
        if granularity not in ("instructions", "lines", "operations"):
            raise ValueError(f"no such granularity: {granularity}")
        self.level = granularity
        self.reason: str | None = None
        """Why the level is lower than was asked for."""
        self._owns = modules if callable(modules) else files_of(modules)
        self._limit, self._grace = limit, grace
        self.clock: Callable[[], int] | None = None
        self._submit = submit
        self._threads: dict[str, _Thread] = {}
        self._sites = Sites(self._owns, whole_lines=granularity == "lines")
        self._substitution = Substitution(self._owns, lambda file: file.startswith(_KIT))
        self._watch: _Watch | None = None
        self._turns: Turns | None = None
        # What was adopted last: so many modules, and objects of these types.
        self._modules = 0
        self._kinds: set[type] = set()
        self._detached = 0
        # The longest step of late, in runs in which nobody fell silent.
        self._longest: float | None = None
        if sys.version_info < (3, 12) and (sys.gettrace() is not None or threading.gettrace() is not None):
            self._fall("a debugger or a coverage tool has the trace function")

    # -- for as long as an adapter is explored --

    def __enter__(self) -> LineExecutor:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Begin to watch; does nothing when it has begun, or when the level is operations."""
        if self._watch is not None or self.level == "operations":
            return
        self._watch = self._watching()
        self._substitution.install()
        self.adopt()

    def close(self) -> None:
        """Watch no longer, and let the executor's threads end."""
        self._stop_watching()
        for thread in self._threads.values():
            thread.stop()
        self._threads.clear()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
            self._modules = 0
        self._substitution.remove()

    def adopt(self, *objects: Any) -> None:
        """Take over what was made before: the locks within these objects (journals, a harness) and the modules.

        To be called again after what imports more of the adapter's code.
        """
        if self._watch is None:
            return
        imported = len(sys.modules)
        kinds = {type(thing) for thing in objects}
        if imported != self._modules:
            self._substitution.adopt_modules()
        self._substitution.adopt(*objects)
        if imported != self._modules or not kinds <= self._kinds:
            # Looking for code takes some 50 ms, too long for each handle that is opened.
            self._watch.open(self._sites.find(self._substitution.kept, self._substitution.cells))
        self._modules = imported
        self._kinds |= kinds

    def _watching(self) -> _Watch:
        if sys.version_info >= (3, 12):
            return _Monitoring(self._sites, self._here)
        else:  # noqa: RET505 - for mypy, which reads one version at a time
            return _Tracing(self._sites, self._here)

    def _fall(self, reason: str) -> None:
        self.level, self.reason = "operations", reason
        self._stop_watching()

    # -- a run --

    def run(self, workers: Mapping[str, Callable[[], None]], chooser: Chooser) -> Execution:
        """Run every worker's body to its end, one of them at a time.

        Raises:
            BaseException: what the chooser raised, or a body, which must not.
        """
        operations = self.level == "operations"
        if not operations:
            self.open()
            self.adopt()
        bodies = dict(workers)
        turns = Turns(
            list(bodies),
            chooser,
            lambda worker: self._start(turns, worker, bodies[worker.name]),
            limit=self._limit,
            grace=max(self._grace, 1.0) if operations else self._grace,
            beside=max(self._grace, 1.0) if operations else self._grace_beside(),
            clock=self.clock or itertools.count(1).__next__,
        )
        self._turns = turns
        try:
            with _uncollected():
                if operations:
                    turns.drive()
                else:
                    with under_control(turns):
                        turns.drive()
        finally:
            self._turns = None
        execution = turns.execution
        if operations:
            execution.moves.clear()  # nothing is known of what they touch
        for worker in turns.workers:
            if worker.alive:  # lost, with its thread
                self._threads.pop(worker.name, None)
        self._learn(turns)
        for error in (turns.failure, *(worker.error for worker in turns.workers)):
            if error is not None:
                raise error
        return execution

    def point(self, label: str) -> None:
        """To be called by a body between two operations: the turn can change here, at any level."""
        turns = self._turns
        worker = turns.by_ident.get(get_ident()) if turns is not None else None
        if turns is not None and worker is not None:
            worker.fresh = False
            turns.point(worker, Site(label, None if self.level == "operations" else frozenset()))

    def called(self) -> None:
        """Said by a body as it begins an operation, for real time is something that its steps touch."""
        self._mark(_CALL)

    def returned(self) -> None:
        """Said by a body as an operation has come back."""
        self._mark(_RETURN)

    def _mark(self, touches: Touches) -> None:
        turns = self._turns
        worker = turns.by_ident.get(get_ident()) if turns is not None else None
        if turns is not None and worker is not None:
            turns.mark(worker, touches)

    def _start(self, turns: Turns, worker: Worker, body: Callable[[], None]) -> None:
        def whole() -> None:
            turns.enter(worker)
            watch = self._watch
            try:
                if watch is not None:
                    watch.enter()
                body()
            except Abandoned:
                pass
            except BaseException as error:  # noqa: BLE001 - raised again by `run`, in the caller's thread
                worker.error = error
            finally:
                if watch is not None:
                    watch.leave()
                turns.leave(worker)

        if self._submit is not None:
            self._submit(worker.name, whole)
            return
        thread = self._threads.get(worker.name)
        if thread is None:
            thread = self._threads[worker.name] = _Thread(worker.name)
        thread.submit(whole)

    def _learn(self, turns: Turns) -> None:
        """Fall back where a run showed that its order is not ours to decide."""
        if self.level == "operations":
            return
        if turns.outsider is not None:
            self._fall(f"a thread of the adapter's own takes part: {turns.outsider}")
        elif self.level == "lines" and not turns.detached:
            self._detached = 0
            self._longest = max(turns.longest, 0.9 * (self._longest or 0.0))
        elif turns.detached and (self.level != "lines" or turns.detached_alone):
            self._detached += 1
            if self._detached >= PATIENCE:
                self._fall(
                    f"its calls block in something that the kit does not see, last {self._told(turns.detached[-1])}"
                )

    def _grace_beside(self) -> float:
        """How long a worker may be silent beside one that is held: a multiple of the longest step, where that is known.

        Whoever waits for a lock of the store's costs this much in each run in which it does.
        """
        if self.level != "lines" or self._longest is None:
            return self._grace
        return min(self._grace, max(LEAST_GRACE, STEPS_OF_GRACE * self._longest))

    def _told(self, stack: StackSummary) -> str:
        """Where the adapter stood, else the thread."""
        entries = [entry for entry in stack if self._owns(entry.filename)] or list(stack)
        if not entries:
            return "outside of Python"
        last = entries[-1]
        return f"in {last.name} ({Path(last.filename).name}:{last.lineno}): {last.line}"

    # -- what is watched --

    def _here(self, site: Site) -> None:
        """A thread has come to a site."""
        turns = self._turns
        if turns is not None and turns.starting != get_ident():
            worker = turns.by_ident.get(get_ident())
            if worker is not None:
                turns.point(worker, site)
            else:
                turns.foreign(f"the adapter's code at {site.label}")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Leave the garbage collector out of a run.

    It runs at any allocation, so also while the next worker is chosen; and a driver's object that is closed then, under
    a lock, would wait for a turn that nobody can give. Where it ran would also not be the same twice.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class _Thread:
    """A thread that runs one body after another."""

    def __init__(self, name: str) -> None:
        self._bodies: Any = _SimpleQueue()
        threading.Thread(target=self._work, name=f"worker-{name}", daemon=True).start()

    def _work(self) -> None:
        while (body := self._bodies.get()) is not None:
            body()
            del body

    def submit(self, body: Callable[[], None]) -> None:
        """Run it after what was submitted before."""
        self._bodies.put(body)

    def stop(self) -> None:
        """Let the thread end once it is idle."""
        self._bodies.put(None)


class _Tracing:
    """Watches by `sys.settrace`, in the threads of workers only: Python 3.11."""

    def __init__(self, sites: Sites, here: Callable[[Site], None]) -> None:
        self._sites, self._at = sites.of, here
        self._traces: dict[int, Callable[[FrameType, str, Any], Any]] = {}

    def open(self, fresh: list[CodeType]) -> None:  # noqa: ARG002
        """Nothing to do before code is called; its sites may have changed."""
        self._traces.clear()

    def enter(self) -> None:
        """Trace this thread."""
        sys.settrace(self._call)

    def leave(self) -> None:
        """Trace this thread no longer."""
        sys.settrace(None)

    def close(self) -> None:
        """Nothing to do: no thread is traced between two bodies."""

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG002
        code = id(frame.f_code)
        sites = self._sites.get(code)
        if not sites:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if code not in self._traces:
            self._traces[code] = self._trace(sites)
        return self._traces[code]

    def _trace(self, sites: dict[int, Site]) -> Callable[[FrameType, str, Any], Any]:
        at = self._at

        def trace(frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG001
            if event == "opcode":
                site = sites.get(frame.f_lasti)
                if site is not None:
                    at(site)
            return trace

        return trace


if sys.version_info >= (3, 12):

    class _Monitoring:
        """Watches by `sys.monitoring`, the adapter's code objects only: Python 3.12 and later."""

        def __init__(self, sites: Sites, here: Callable[[Site], None]) -> None:
            self._codes: list[CodeType] = []
            monitoring = sys.monitoring
            # Not 0 to 2 and 5, which are a debugger's, a coverage tool's, a profiler's and an optimizer's.
            self._tool = next(tool for tool in (3, 4, 1, 2, 0) if monitoring.get_tool(tool) is None)
            monitoring.use_tool_id(self._tool, "continuum-conformance")
            disable, by_code = monitoring.DISABLE, sites.of

            def instruction(code: CodeType, offset: int) -> Any:
                site = by_code[id(code)].get(offset)
                if site is None:
                    return disable  # this instruction costs nothing from now on
                here(site)
                return None

            monitoring.register_callback(self._tool, monitoring.events.INSTRUCTION, instruction)

        def open(self, fresh: list[CodeType]) -> None:
            """Watch these, too."""
            if self._codes:
                sys.monitoring.restart_events()  # what has come can have made sites of instructions passed over
            for code in fresh:
                sys.monitoring.set_local_events(self._tool, code, sys.monitoring.events.INSTRUCTION)
            self._codes.extend(fresh)

        def enter(self) -> None:
            """Nothing to do: all threads are watched."""

        def leave(self) -> None:
            """Nothing to do."""

        def close(self) -> None:
            """Let the code run free again."""
            monitoring = sys.monitoring
            for code in self._codes:
                monitoring.set_local_events(self._tool, code, monitoring.events.NO_EVENTS)
            monitoring.register_callback(self._tool, monitoring.events.INSTRUCTION, None)
            monitoring.free_tool_id(self._tool)
