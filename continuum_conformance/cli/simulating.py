"""``continuum-conformance simulate``: clusters of workers over an adapter, in virtual time, under faults.

Also what ``replay`` does with a world that was kept.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from continuum_conformance import __version__
from continuum_conformance.cli.adapter import load_subject, open_store, require_sensible_store
from continuum_conformance.cli.console import Console
from continuum_conformance.cli.stop import Stop, write_file
from continuum_conformance.contract.targets import TargetError
from continuum_conformance.harness import HarnessError
from continuum_conformance.postgres import PostgresUnavailable, mask
from continuum_conformance.report.progress import Progress
from continuum_conformance.report.screen import Screen
from continuum_conformance.report.simulation import world_page
from continuum_conformance.report.text import plural
from continuum_conformance.simulate.campaign import Campaign, Job, campaign, engine_of
from continuum_conformance.simulate.files import SavedWorldError, load, save
from continuum_conformance.simulate.shrinking import ATTEMPTS, shrink
from continuum_conformance.simulate.simulation import Simulated
from continuum_conformance.simulate.sometimes import SOMETIMES
from continuum_conformance.simulate.story import story_lines, story_of
from continuum_conformance.suite.stores import Stores

__all__ = ["replay_world", "simulate"]

STANDARD = range(200)
"""The seeds of the standard campaign."""

REAL_ATTEMPTS = 200
"""How many smaller worlds are tried over an adapter that keeps real time."""


def simulate(options: argparse.Namespace, console: Console) -> int:
    """Simulate a world for each seed; exit code 1 when something was wrong in one."""
    require_sensible_store(options)
    if options.trace and options.seed is None:
        raise Stop(2, "--trace writes what happened in one world; name it with --seed")
    if options.dask and options.jobs > 1:
        raise Stop(2, "--dask and --jobs contradict each other: a Dask cluster has workers of its own")
    seeds: range = range(options.seed, options.seed + 1) if options.seed is not None else options.seeds
    seeds = seeds if seeds is not None else STANDARD
    screen = console.screen(options.colour)
    folder = Path(options.report or ".continuum")
    file = small = None
    exact = False
    with console.apart(), _opened(options, options.target, options.engine) as (job, virtual, notes):
        job = replace(job, workers=options.workers, runs=options.runs, hours=options.hours)
        screen.line(f"{screen.paint('simulate', 'bold')}  {options.target}")
        screen.prose(_world(options, seeds), indent=2)
        screen.flush()
        if options.trace:
            write_file(Path(options.trace), job.simulate(job.scenario(seeds[0])).trace.text)
        done, interrupted = _campaign(options, console, screen, job, seeds)
        if done.failing and not interrupted:
            screen.line(f"  making the world of seed {min(done.failing)} smaller ...")
            screen.flush()
            small, exact = _smaller(console, job, min(done.failing), virtual=virtual)
            file = folder / f"simulate-{min(done.failing)}.json"
            if small.finding is not None:
                _keep(small, file, options, min(done.failing))
    if options.report:
        write_file(folder / "campaign.json", json.dumps(_collected(options, seeds, done), indent=1) + "\n")
    _summary(screen, done, single=options.seed is not None)
    for note in notes:
        screen.prose(note, label="-", gutter=2)
    if interrupted:
        screen.line(f"interrupted after {done.seeds:,} of {plural(len(seeds), 'world')}")
    if not done.failing:
        screen.line(f"{screen.paint('nothing wrong', 'green')}: {plural(done.seeds, 'world')}")
        return 3 if interrupted else 0
    if small is not None and file is not None:
        _tell(screen, small, min(done.failing), options.engine, exact=exact)
        screen.line()
        screen.line(f"replay: continuum-conformance replay {file}")
        if options.report:
            screen.line(f"page:   {file.with_suffix('.html')}")
    else:
        seed, found = min(done.failing.items())
        screen.prose(f"seed {seed}: {found.message}; see it with --seed {seed}")
    wrong = f"{plural(len(done.failing), 'world')} of {done.seeds:,}"
    screen.line(f"{screen.paint('wrong', 'red')} in {wrong}: {_seeds(sorted(done.failing))}")
    return 1


def replay_world(options: argparse.Namespace, console: Console) -> int:
    """Let a world that was kept happen again; exit code 1 when the same is wrong."""
    file = Path(options.file)
    try:
        saved = load(file)
    except SavedWorldError as error:
        raise Stop(2, str(error)) from None
    target = options.target or saved.target
    with console.apart(), _opened(options, target, saved.engine) as (job, _virtual, notes):
        came = job.simulate(saved.scenario)
    screen = console.screen(options.colour)
    screen.line(f"{screen.paint('replay', 'bold')}  {file} on {target}")
    screen.line()
    for note in notes:
        screen.prose(note, label="-", gutter=2)
    if came.finding is None:
        screen.prose(f"It does not show any more: {saved.judge}, {saved.message}")
        return 0
    _print_story(screen, came)
    return 1


@contextmanager
def _opened(options: argparse.Namespace, target: str, engine: str) -> Iterator[tuple[Job, bool, list[str]]]:
    """The job over an adapter whose store is there, and whether the adapter lives in virtual time."""
    notes: list[str] = []
    subject = load_subject(target, limit=options.timeout)
    try:
        engine_of(engine)
    except TargetError as error:
        raise Stop(2, str(error)) from None
    if "leases" not in subject.capabilities:
        raise Stop(2, f"{subject.name} declares no `leases`; a cluster of workers needs them")
    stores = Stores(options.postgres, dsn=options.dsn, use_database=options.use_database)
    try:
        open_store(stores, subject)
        virtual = callable(getattr(subject.harness, "clock", None))
        here = tuple(folder for folder in sys.path if folder)
        yield Job(target, engine=engine, dsn=subject.dsn, limit=options.timeout, path=here), virtual, notes
    except TargetError as error:
        raise Stop(2, str(error)) from None
    except HarnessError as error:
        raise Stop(2, f"the adapter's harness fails: {error}", error.detail) from None
    except BrokenProcessPool:
        raise Stop(3, "a process of the campaign has died; try it with --jobs 1") from None
    finally:
        try:
            stores.close()
        except PostgresUnavailable as error:
            notes.append(f"The store was not cleaned up: {mask(str(error))}")


def _campaign(
    options: argparse.Namespace, console: Console, screen: Screen, job: Job, seeds: Sequence[int]
) -> tuple[Campaign, bool]:
    """The campaign, as far as it came, and whether the user ended it."""
    progress = Progress(screen)
    heard: list[Campaign] = []

    def told(done: Campaign) -> None:
        heard[:] = [done]
        wrong = f"wrong in {len(done.failing)}" if done.failing else "nothing wrong so far"
        progress.update(done.seeds, len(seeds), wrong)
        console.interrupts.check()

    interrupted = False
    try:
        with _executor(options) as (executor, jobs), console.interrupts.polite():
            done = campaign(job, seeds, executor, jobs=jobs, first=options.first, progress=told)
    except KeyboardInterrupt:
        if not heard:
            raise
        done, interrupted = heard[0], True
    progress.end()
    return done, interrupted


@contextmanager
def _executor(options: argparse.Namespace) -> Iterator[tuple[Executor | None, int]]:
    if options.dask:
        with _dask(options.dask) as client:
            yield client.get_executor(), max(1, len(client.nthreads()))
    elif options.jobs > 1:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(options.jobs, context, initializer=_deaf_to_interrupts)
        try:
            yield pool, options.jobs
        finally:
            pool.shutdown(cancel_futures=True)
    else:
        yield None, 1


@contextmanager
def _dask(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise Stop(2, "--dask needs Dask: pip install 'continuum-conformance[dask]'") from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise Stop(3, f"there is no Dask scheduler at {address}: {error}") from None
    try:
        yield client
    finally:
        client.close()


def _deaf_to_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us; we tell the pool


def _smaller(console: Console, job: Job, seed: int, *, virtual: bool) -> tuple[Simulated, bool]:
    def attempt(scenario: Any) -> Simulated:
        console.interrupts.check()
        return job.simulate(scenario)

    with console.interrupts.polite():
        found = attempt(job.scenario(seed))
        if found.finding is None:
            return found, False
        return shrink(found, attempt, attempts=ATTEMPTS if virtual else REAL_ATTEMPTS)


def _keep(small: Simulated, file: Path, options: argparse.Namespace, seed: int) -> None:
    try:
        save(small, file, target=options.target, engine=options.engine)
    except OSError as error:
        raise Stop(2, f"{file} cannot be written: {error.strerror or error}") from None
    if options.report:
        again = f"continuum-conformance replay {file}"
        page = world_page(small, target=options.target, seed=seed, replay=again)
        write_file(file.with_suffix(".html"), page)


def _collected(options: argparse.Namespace, seeds: range, done: Campaign) -> dict[str, Any]:
    """All that a campaign has come to, in one place."""
    return {
        "kit_version": __version__,
        "target": options.target,
        "engine": options.engine,
        "workers": options.workers,
        "runs": options.runs,
        "hours": options.hours,
        "seeds": [seeds[0], seeds[-1]],
        "simulated": done.seeds,
        "operations": done.operations,
        "virtual_hours": round(done.hours, 3),
        "processor_seconds": round(done.seconds, 3),
        "sometimes": {name: done.sometimes[name] for name in SOMETIMES},
        "failing": [
            {"seed": seed, "judge": found.judge, "clauses": list(found.clauses), "message": found.message}
            for seed, found in sorted(done.failing.items())
        ],
    }


def _world(options: argparse.Namespace, seeds: range) -> str:
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]}..{seeds[-1]}"
    engine = f", engine {options.engine}" if options.engine else ""
    return (
        f"{plural(options.workers, 'worker')}, {plural(options.runs, 'run')}, {options.hours:g} h, "
        f"{which}{engine}"
    )


def _summary(screen: Screen, done: Campaign, *, single: bool) -> None:
    faster = f"; {done.hours * 3600 / done.seconds:,.0f} times as fast" if done.seconds else ""
    screen.line()
    screen.line(f"  {plural(done.seeds, 'world')}, {plural(done.operations, 'operation')}")
    screen.line(f"  {done.hours:,.1f} h of virtual time in {done.seconds:.1f} s of a processor's{faster}")
    screen.line()
    met = [(name, f"{done.sometimes[name]:,}") for name in SOMETIMES if done.sometimes[name]]
    half = (len(met) + 1) // 2
    for row in range(half):
        cells = [f"{name:<27}{count:>9}" for name, count in met[row::half]]
        screen.line("  " + "   ".join(cells))
    if done.never and not single:
        screen.line()
        screen.prose(f"never met: {', '.join(done.never)}; try more seeds, workers or hours", indent=2)
    screen.line()


def _tell(screen: Screen, small: Simulated, seed: int, engine: str, *, exact: bool) -> None:
    scenario = small.scenario
    parts = (
        plural(len(scenario.workers), "worker"),
        plural(len(scenario.runs), "run"),
        plural(len(scenario.faults), "fault"),
        plural(len(story_of(small)), "step"),
    )
    how = "made as small as it would go" if exact else "as it was: it did not come back when tried again"
    screen.line(f"{screen.paint(f'seed {seed}', 'bold')}, {how}: {', '.join(parts)}")
    screen.line()
    _print_story(screen, small)
    if small.finding is not None:
        screen.line()
        screen.prose(_whose(small.finding.judge, engine))


def _whose(judge: str, engine: str) -> str:
    if judge == "model":
        return "The contract's model judges every answer of the journal: it is the journal that is wrong."
    if engine:
        return "The journal has kept the contract up to here: it is the engine that is wrong."
    return (
        "The journal has kept the contract in every answer, and the kit's own engine is meant to be right over "
        "every such journal. Please report this world."
    )


def _print_story(screen: Screen, simulated: Simulated) -> None:
    for line in story_lines(simulated, screen.width):
        wrong = line.startswith((">", "wrong:"))
        screen.line(screen.paint(line, "red") if wrong else line)
    detail = simulated.finding.detail if simulated.finding is not None else ""
    if detail:
        screen.line()
        for line in detail.strip("\n").split("\n")[-12:]:
            screen.line(f"    {line}")


def _seeds(failing: Sequence[int]) -> str:
    shown = ", ".join(map(str, failing[:12]))
    return f"seed{'s' * (len(failing) > 1)} {shown}{', ...' if len(failing) > 12 else ''}"
