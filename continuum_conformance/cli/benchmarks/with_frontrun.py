"""The yardstick: `frontrun` (PyPI), used as its documentation recommends, on the kit's scenarios and with its judge.

Under its command, so that its LD_PRELOAD library is there; ``setup`` makes a fresh harness and handles, the workers
call nothing but the journal, and the invariant is that an order of the calls explains what was seen. Half of the time
goes to its systematic search (DPOR, its default), the rest to its seeded random one, which it recommends where state
is out of Python's sight. What it calls a deadlock counts where the adapter is declared to have one: it takes a worker
that waits for a row's lock for stuck, on right adapters too.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

from continuum_conformance.cli.benchmarks.trial import Found, Trial, scenarios_for, subject_of
from continuum_conformance.contract.records import Lease
from continuum_conformance.harness import Subject
from continuum_conformance.harness.subject import Handle
from continuum_conformance.history import History, Recorded, judge
from continuum_conformance.model import Operation, Outcome
from continuum_conformance.suite.lab import Lab, Session
from continuum_conformance.suite.races.running import Arranged, Recording, probe
from continuum_conformance.suite.races.scenarios import Act, Scenario

__all__ = ["explore"]

STEPS = 10_000
"""A coroutine that gives way so often while nothing else runs does not come back."""


def explore(trial: Trial, found: Found) -> None:
    """Search with both strategies until the budget is spent."""
    frontrun: Any = importlib.import_module("frontrun")
    importlib.import_module("frontrun._sql_cursor")._warm_sql_parsers()
    importlib.import_module("multiprocessing.resource_tracker")
    # As its pytest plugin does, before the adapter is imported: one that keeps `threading.Lock` has the patched one.
    importlib.import_module("frontrun._cooperative").patch_locks()
    with subject_of(trial) as subject:
        search = _Search(trial, found, subject, frontrun.explore)
        search.warm()
        search.run()


class _Search:
    def __init__(self, trial: Trial, found: Found, subject: Subject, explore_: Callable[..., Any]) -> None:
        self._trial, self._found, self._subject, self._explore = trial, found, subject, explore_
        self._scene: _Scene | None = None
        self._started = self._busy = 0.0
        self._wrong_at: tuple[float, float] | None = None
        """When the first wrong history was seen: on the wall, and of the processor."""

    def warm(self) -> None:
        """Make one scene: what is loaded at first use is, and it is known whether the adapter is async."""
        self._renew(scenarios_for(self._trial, self._subject.capabilities)[0])
        self._found.tries = 0

    def run(self) -> None:
        """Both strategies in turn, over the scenarios."""
        self._started, self._busy = time.perf_counter(), time.process_time()
        scenarios = scenarios_for(self._trial, self._subject.capabilities)
        half = self._trial.budget / 2
        for strategy in ("dpor", "random"):
            for number, scenario in enumerate(scenarios):
                until = half if strategy == "dpor" else self._trial.budget
                left = (until - self._elapsed()) / (len(scenarios) - number)
                if left > 0.05:
                    self._search(scenario, strategy, left)
                if self._found.found:
                    return
        self._found.seconds, self._found.processor = self._now()
        self._found.said = self._found.said or "the budget was spent, or all was explored"

    def _elapsed(self) -> float:
        return time.perf_counter() - self._started

    def _now(self) -> tuple[float, float]:
        return self._elapsed(), time.process_time() - self._busy

    def _search(self, scenario: Scenario, strategy: str, seconds: float) -> None:
        chosen: dict[str, Any] = {"strategy": strategy, "total_timeout": seconds}
        if strategy == "random":
            chosen |= {"seed": self._trial.seed, "max_attempts": 1_000_000}
        if not self._async or strategy == "dpor":
            chosen |= {"reproduce_on_failure": 0, "warn_nondeterministic_sql": False}
        workers = [self._worker(name) for name in scenario.workers]
        try:
            result = self._explore(lambda: self._renew(scenario), workers, self._holds, **chosen)
            if inspect.isawaitable(result):
                result = asyncio.run(_coroutine(result))
        except Exception as error:  # noqa: BLE001 - of the yardstick's own making; told in the results
            self._found.said = f"{strategy}: {type(error).__name__}: {error}"[:300]
            result = None
        told = str(getattr(result, "explanation", None) or "")
        stuck = getattr(result, "property_holds", None) is False and "eadlock" in told
        if self._wrong_at is not None or (stuck and "CON-4" in self._trial.clauses):
            self._found.found = True
            self._found.seconds, self._found.processor = self._wrong_at or self._now()
            self._found.scenario = scenario.as_data()
            self._found.said = f"{strategy}: {' '.join(told.split())}"[:300]

    def _renew(self, scenario: Scenario) -> _Scene:
        if self._scene is not None:
            self._scene.close()
        self._found.tries += 1
        self._scene = _Scene(self._subject, scenario)
        return self._scene

    @property
    def _async(self) -> bool:
        return self._scene is not None and self._scene.session.driven

    def _worker(self, name: str) -> Callable[[_Scene], Any]:
        async def act_async(scene: _Scene) -> None:
            await scene.act_async(name)

        return act_async if self._async else lambda scene: scene.act(name)

    def _holds(self, scene: _Scene) -> bool:
        holds = scene.explained()
        if not holds and self._wrong_at is None:
            self._wrong_at = self._now()
        return holds


async def _coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _driven(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Carry a coroutine to its end, where nothing else runs that it could wait for."""
    for _ in range(STEPS):
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value
    coroutine.close()
    raise TimeoutError("it waits for ever")


class _PlainHandle(Handle):
    """A journal that is called in the thread of the caller, a coroutine at once to its end."""

    def __init__(self, subject: Subject, harness: Any, journal: Any, worker: str) -> None:
        super().__init__(subject, harness, journal, worker, None)  # type: ignore[arg-type]

    def call(self, operation: Operation, **_: Any) -> Outcome:
        return self.direct(operation)

    def direct(self, operation: Operation, *, traced: bool = True) -> Outcome:
        del traced
        ok, answer = True, None
        try:
            answer = getattr(self.journal, operation.name)(*operation.positional())
            if inspect.iscoroutine(answer):
                answer = _driven(answer)
        except Exception as error:  # noqa: BLE001 - the adapter's answer
            ok, answer = False, error
        return self.outcome(operation, ok, answer)

    def outcome(self, operation: Operation, ok: bool, answer: Any) -> Outcome:
        """What a call gave or raised."""
        return self._answered(operation, answer) if ok else self._outcome_of(answer)


class _PlainSession(Session):
    """Handles of a fresh harness, opened in the thread of the caller."""

    driven = False

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._opened: dict[str, _PlainHandle] = {}

    def handle(self, worker: str) -> _PlainHandle:
        if worker not in self._opened:
            harness = self.subject._equipped(worker)
            journal = harness.open()
            if inspect.iscoroutine(journal):
                journal = _driven(journal)
            self.driven = inspect.iscoroutinefunction(journal.append)
            self._opened[worker] = _PlainHandle(self.subject, harness, journal, worker)
        return self._opened[worker]

    def close_all(self) -> None:
        for handle in self._opened.values():
            with suppress(Exception):  # an execution that was given up may have broken it
                closed = handle._harness.close(handle.journal)
                if inspect.iscoroutine(closed):
                    _driven(closed)


class _Scene:
    """The state of one execution: a fresh harness in the scenario's situation, and what its workers were told."""

    def __init__(self, like: Subject, scenario: Scenario) -> None:
        subject = Subject(like.target, dsn=like.dsn, directory=like.directory)
        self.session = _PlainSession(subject)
        self._lab = Lab(self.session, scenario.clauses, "frontrun")
        self._arranged = Arranged(self._lab, scenario)
        self._before = self._lab.world
        self._clock = itertools.count(1)
        self._told: dict[str, list[tuple[Operation, int, int, bool, Any]]] = {w: [] for w in scenario.workers}
        self._handles = {
            worker: self.session.handle("A" if scenario.one_handle else worker) for worker in scenario.workers
        }
        self._plans: dict[str, list[Act | Operation | None]] = {
            worker: [
                act if act.token == "own" else self._arranged.operation(act, worker, None) for act in acts
            ]
            for worker, acts in scenario.workers.items()
        }

    def _operations(self, worker: str) -> Iterator[Operation]:
        for planned in self._plans[worker]:
            operation = planned
            if isinstance(planned, Act):
                told = self._told[worker]
                own = next((answer for *_, answer in reversed(told) if isinstance(answer, Lease)), None)
                operation = self._arranged.operation(planned, worker, own)
            if isinstance(operation, Operation):
                yield operation

    def act(self, worker: str) -> None:
        """A worker's calls, one after another."""
        journal, told, clock = self._handles[worker].journal, self._told[worker], self._clock
        for operation in self._operations(worker):
            method, arguments = getattr(journal, operation.name), operation.positional()
            began, ok = next(clock), True
            try:
                answer = method(*arguments)
            except Exception as error:  # noqa: BLE001 - the adapter's answer
                _its_own(error)
                ok, answer = False, error
            told.append((operation, began, next(clock), ok, answer))

    async def act_async(self, worker: str) -> None:
        """As `act`, in a task."""
        journal, told, clock = self._handles[worker].journal, self._told[worker], self._clock
        for operation in self._operations(worker):
            method, arguments = getattr(journal, operation.name), operation.positional()
            began, ok = next(clock), True
            try:
                answer = await method(*arguments)
            except Exception as error:  # noqa: BLE001 - the adapter's answer
                _its_own(error)
                ok, answer = False, error
            told.append((operation, began, next(clock), ok, answer))

    def explained(self) -> bool:
        """Whether an order of the calls explains what they, and reads after them, were told."""
        recording = Recording(clock=self._clock)
        for worker, calls in self._told.items():
            for operation, began, ended, ok, answer in calls:
                outcome = self._handles[worker].outcome(operation, ok, answer)
                recording.entries.append(Recorded(operation, outcome, began, ended, worker))
        probe(self._lab, self._arranged, recording)
        entries = [
            e
            for e in recording.entries
            if not (e.outcome.error == "JournalUnavailable" and not e.outcome.unknown)
        ]
        return not judge(History.of(entries), self.session.specification, self._before).failed

    def close(self) -> None:
        """Give back what it holds."""
        self.session.close_all()


def _its_own(error: Exception) -> None:
    """Raise what is not the adapter's but the scheduler's."""
    if type(error).__module__.startswith("frontrun"):
        raise error
