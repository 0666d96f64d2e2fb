"""Making a failing world smaller: fewer runs, workers and faults, shorter workflows, until its story fits on a screen.

A smaller world must show the same thing wrong (the same judge, the same shape); it need not be wrong at the same
moment. Everything that was random in the failing world and that matters is written out first, so that leaving one
thing out leaves the others as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from continuum_conformance.simulate.nemesis import Fault
from continuum_conformance.simulate.scenario import PlannedRun, Scenario
from continuum_conformance.simulate.simulation import HANG, Simulated
from continuum_conformance.simulate.story import story_of
from continuum_conformance.simulate.workflow import Entry, Workflow

__all__ = ["ATTEMPTS", "shrink"]

ATTEMPTS = 600
"""How many smaller worlds are tried at most."""

PATIENCE = 300_000
"""Milliseconds for which a smaller world is waited for, after the failing one was wrong."""

SOONER = 12
"""How many calls earlier a fault of a message may be tried."""

SECONDS = (1, 20, 60)
ROUND = (10_000, 35_000, 38_000, 40_000, 60_000, 120_000)

_Item = TypeVar("_Item")


class _Spent(Exception):
    """Enough worlds were tried."""


class _Search:
    def __init__(self, found: Simulated, attempt: Callable[[Scenario], Simulated], attempts: int) -> None:
        self.best = found
        self._attempt = attempt
        self._left = attempts

    def tries(self, scenario: Scenario) -> bool:
        """Whether a world shows the same; then it is the best so far. Raises `_Spent`."""
        if self._left <= 0:
            raise _Spent
        self._left -= 1
        came = self._attempt(scenario)
        if not _same(came, self.best):
            return False
        self.best = came
        return True

    @property
    def scenario(self) -> Scenario:
        return self.best.scenario


def _same(came: Simulated, first: Simulated) -> bool:
    return (
        came.finding is not None
        and first.finding is not None
        and (came.finding.judge, came.finding.shape) == (first.finding.judge, first.finding.shape)
    )


def shrink(
    found: Simulated, attempt: Callable[[Scenario], Simulated], *, attempts: int = ATTEMPTS
) -> tuple[Simulated, bool]:
    """The smallest world found that shows the same, and whether the failing one came back when it was tried again.

    Args:
        found: a world with a finding.
        attempt: lets a world happen anew.
        attempts: how many worlds may be tried.
    """
    if found.finding is not None and found.finding.shape.endswith(HANG):
        return found, True  # each attempt would take as long as a call may
    search = _Search(found, attempt, max(attempts, 3))
    until, within = _needed(found), found.scenario.within
    # A world that has not shown it soon after the failing one did is not waited for.
    if found.finding is not None and found.finding.judge != "liveness":
        within = max(0, found.finding.at - until) + PATIENCE
    written = replace(found.written_out, until=until, within=within)
    if not search.tries(written) and not search.tries(found.written_out) and not search.tries(found.scenario):
        return found, False
    try:
        while True:
            before = _size(search.best)
            for narrow in (_runs, _faults, _workers, _calm, _workflows, _faults, _sooner, _times):
                narrow(search)
            if _size(search.best) >= before:
                break
    except _Spent:
        pass
    last = attempt(replace(search.scenario, within=found.scenario.within))
    return last if _same(last, found) else search.best, True


def _needed(found: Simulated) -> int:
    """Until when faults must be possible: to the last one that struck before the finding."""
    finding = found.finding
    moment = finding.at if finding is not None else found.ended
    return max([f.at + max(f.lasts, 0) for f in found.fired if f.at <= moment], default=0)


def _size(simulated: Simulated) -> tuple[int, int, int, int]:
    scenario = simulated.scenario
    return (
        len(scenario.workers) + len(scenario.runs) + len(scenario.faults),
        sum(len(run.workflow) for run in scenario.runs),
        len(story_of(simulated)),
        sum(run.workflow.seconds for run in scenario.runs),
    )


def _subsets(items: Sequence[_Item], least: int) -> Iterator[tuple[_Item, ...]]:
    """The items but some: first large parts left out, then one at a time, from the end."""
    size = len(items) // 2
    while size:
        for end in range(len(items), 0, -size):
            kept = (*items[: max(0, end - size)], *items[end:])
            if len(kept) >= least:
                yield kept
        size //= 2
    if len(items) == 1 and least == 0:
        yield ()


def _fewer(
    search: _Search,
    items: Callable[[Scenario], tuple[_Item, ...]],
    put: Callable[[Scenario, tuple[_Item, ...]], Scenario],
    least: int,
) -> None:
    """Leave out as many as can be left out."""
    again = True
    while again:
        again = False
        for kept in _subsets(items(search.scenario), least):
            if search.tries(put(search.scenario, kept)):
                again = True
                break


def _runs(search: _Search) -> None:
    finding = search.best.finding
    if finding is not None and len(search.scenario.runs) > 1:
        alone = tuple(run for run in search.scenario.runs if run.run_id == finding.run_id)
        if len(alone) == 1 and search.tries(_with_runs(search.scenario, alone)):
            return
    _fewer(search, lambda scenario: scenario.runs, _with_runs, 1)


def _with_runs(scenario: Scenario, runs: tuple[PlannedRun, ...]) -> Scenario:
    left = {run.number for run in runs}
    faults = tuple(fault for fault in scenario.faults if fault.run < 0 or fault.run in left)
    return replace(scenario, runs=runs, faults=faults)


def _faults(search: _Search) -> None:
    struck = tuple(search.best.fired)
    if search.scenario.rates is None and len(struck) < len(search.scenario.faults):
        search.tries(replace(search.scenario, faults=struck))
    if search.scenario.faults and search.tries(replace(search.scenario, faults=(), rates=None)):
        return
    _fewer(search, lambda scenario: scenario.faults, _with_faults, 0)


def _with_faults(scenario: Scenario, faults: tuple[Fault, ...]) -> Scenario:
    return replace(scenario, faults=faults, rates=None)


def _workers(search: _Search) -> None:
    _fewer(
        search,
        lambda scenario: scenario.workers,
        lambda scenario, workers: replace(
            scenario,
            workers=workers,
            faults=tuple(f for f in scenario.faults if f.worker <= 0 or f.worker in workers),
        ),
        1,
    )


def _calm(search: _Search) -> None:
    if not search.scenario.calm:
        search.tries(replace(search.scenario, calm=True))


def _workflows(search: _Search) -> None:
    """Shorter workflows: instruction by instruction."""
    for place in range(len(search.scenario.runs)):
        for change in _shorter(search.scenario.runs[place].workflow):
            run = search.scenario.runs[place]
            workflow = change(run.workflow)
            if workflow is not None and workflow != run.workflow:
                shorter = _with_workflow(search.scenario, place, workflow)
                # With fewer calls before it, a message's fault strikes the same call under a smaller number.
                less = len(run.workflow) - len(workflow)
                any(search.tries(candidate) for candidate in (shorter, *_shifted(shorter, less)))


def _shifted(scenario: Scenario, less: int) -> Iterator[Scenario]:
    """With the faults of appends and snapshots so many calls earlier."""
    counted = [fault for fault in scenario.faults if fault.operation in ("append", "take_snapshot")]
    for shift in (less, 1) if less > 1 else (less,):
        if shift and counted:
            faults = tuple(
                replace(f, call=max(0, f.call - shift)) if f in counted else f for f in scenario.faults
            )
            yield replace(scenario, faults=faults)


def _sooner(search: _Search) -> None:
    """Faults of messages that strike an earlier call."""
    for place in range(len(search.scenario.faults)):
        fault = search.scenario.faults[place]
        for call in range(max(0, fault.call - SOONER), fault.call) if fault.of_message else ():
            faults = list(search.scenario.faults)
            faults[place] = replace(fault, call=call)
            if search.tries(replace(search.scenario, faults=tuple(faults))):
                break


def _with_workflow(scenario: Scenario, place: int, workflow: Workflow) -> Scenario:
    runs = list(scenario.runs)
    runs[place] = replace(runs[place], workflow=workflow)
    return replace(scenario, runs=tuple(runs))


def _shorter(workflow: Workflow) -> Iterator[Callable[[Workflow], Workflow | None]]:
    indices = sorted({entry.index for entry in workflow.entries}, reverse=True)
    half = set(indices[: len(indices) // 2])
    yield lambda w: _without(w, half)
    yield lambda w: _without(w, {*indices} - half)
    for index in indices:
        yield lambda w, index=index: _without(w, {index})  # type: ignore[misc]
    yield lambda w: replace(w, entries=tuple(e for e in w.entries if e.kind != "attempt"))
    yield lambda w: replace(w, snapshot_every=0)
    for every in range(1, workflow.snapshot_every):
        yield lambda w, every=every: replace(w, snapshot_every=every)  # type: ignore[misc]
    yield lambda w: replace(w, fails=False)
    for index in indices:
        for seconds in SECONDS:
            yield lambda w, index=index, seconds=seconds: _quicker(w, index, seconds)  # type: ignore[misc]


def _without(workflow: Workflow, left_out: set[int]) -> Workflow | None:
    """Without some instructions; None when none would be left."""
    entries = tuple(entry for entry in workflow.entries if entry.index not in left_out)
    return replace(workflow, entries=entries) if entries else None


def _quicker(workflow: Workflow, index: int, seconds: int) -> Workflow:
    entries = tuple(
        Entry(e.kind, e.index, seconds) if e.index == index and e.seconds > seconds else e
        for e in workflow.entries
    )
    return replace(workflow, entries=entries)


def _times(search: _Search) -> None:
    """Round times: runs that start at once, faults that last a minute."""
    for place, run in enumerate(search.scenario.runs):
        if run.start:
            runs = list(search.scenario.runs)
            runs[place] = replace(run, start=0)
            early = replace(search.scenario, runs=tuple(runs))
            sooner = tuple(
                replace(f, at=max(0, f.at - run.start)) if f.at >= 0 and not f.of_message else f
                for f in early.faults
            )
            if not search.tries(replace(early, faults=sooner)):
                search.tries(early)
    for place in range(len(search.scenario.faults)):
        for lasts in ROUND:
            fault = search.scenario.faults[place]
            if not fault.lasts or fault.lasts <= lasts or fault.kind == "skew":
                continue
            faults = list(search.scenario.faults)
            faults[place] = replace(fault, lasts=lasts)
            if search.tries(replace(search.scenario, faults=tuple(faults))):
                break
