"""``continuum-conformance bench``: how fast an adapter is."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from continuum_conformance import __version__
from continuum_conformance.bench.figures import Bench, Measured
from continuum_conformance.bench.pace import TURNS, Length
from continuum_conformance.bench.run import Plan, carry_out
from continuum_conformance.bench.turns import BenchError
from continuum_conformance.cli.adapter import load_subject, require_sensible_store
from continuum_conformance.cli.console import Console
from continuum_conformance.cli.stop import Stop, write_file
from continuum_conformance.contract.clauses import CONTRACT_VERSION
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.harness import HarnessError, Subject
from continuum_conformance.postgres import PostgresUnavailable, mask
from continuum_conformance.report.bench_chart import standalone_svg
from continuum_conformance.report.bench_page import bench_page
from continuum_conformance.report.bench_text import print_bench
from continuum_conformance.report.screen import Screen, cut
from continuum_conformance.report.text import duration
from continuum_conformance.suite.check import PreflightFailure, preflight
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.stores import Stores

__all__ = ["bench"]


def bench(options: argparse.Namespace, console: Console) -> int:
    """Measure, print the tables, write the files. Raises `Stop` when nothing could be measured."""
    require_sensible_store(options)
    if options.handles > options.clients:
        raise Stop(2, f"--handles {options.handles}: there are {options.clients} clients at most (--clients)")
    plan = _plan(options)
    targets = [options.target, *([options.against] if options.against else [])]
    screen = Screen(console.err, options.colour) if options.json == "-" else console.screen(options.colour)
    stop: Stop | None = None
    with console.apart():
        load = [partial(load_subject, target, limit=options.timeout) for target in targets]
        subjects = [each() for each in load]
        found = _empty(options, plan, targets, subjects)
        stores = Stores(options.postgres, dsn=options.dsn, use_database=options.use_database)
        try:
            for target, subject, measured in zip(targets, subjects, found.measured, strict=True):
                measured.store = _tried(target, subject, stores) or "of its own"
            _print_settings(screen, found)
            stop = _measured(found, load, stores, plan, screen, console)
        finally:
            _closed(stores, screen)
    print_bench(screen, found)
    _write(options, found, console)
    if options.report:
        screen.line(f"page: {Path(options.report, 'bench.html')}")
    if stop is not None:
        console.flush()
        raise stop
    screen.line(f"measured in {duration(found.seconds)}")
    return 0


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        parts=options.parts,
        operations=[name for name in OPERATIONS if not options.ops or name in options.ops],
        length=Length(options.seconds, options.count),
        clients=options.clients,
        handles=options.handles,
        budget=options.budget,
        seed=options.seed,
    )


def _empty(options: argparse.Namespace, plan: Plan, targets: list[str], subjects: list[Subject]) -> Bench:
    settings: dict[str, Any] = {
        "parts": list(plan.parts),
        "operations": list(plan.operations),
        "seconds": plan.length.seconds if plan.length.count is None else None,
        "count": plan.length.count,
        "turns": TURNS,
        "clients": plan.clients,
        "handles": plan.handles,
        "processes": 1,
        "budget": plan.budget,
        "seed": plan.seed,
    }
    environment = {
        "command": shlex.join(["continuum-conformance", *sys.argv[1:]]) if sys.argv[1:2] == ["bench"] else "",
        "kit": __version__,
        "contract": CONTRACT_VERSION,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": str(_processors()),
    }
    if options.dsn:
        environment["command"] = mask(environment["command"])
    return Bench(
        settings,
        environment,
        [
            Measured(target, subject.name, store="", form="sync")
            for target, subject in zip(targets, subjects, strict=True)
        ],
    )


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _tried(target: str, subject: Subject, stores: Stores) -> str | None:
    """Open, start, read and close once, before anything is measured; what the store is. Raises `Stop`."""
    try:
        store = stores.provide(subject)
        session = Session(subject)
        preflight(session)
        session.close_all()
    except PostgresUnavailable as error:
        raise Stop(3, f"{target} needs a PostgreSQL. {error}") from None
    except (PreflightFailure, HarnessError) as error:
        raise Stop(2, f"{target}: {error}", error.detail) from None
    return store


def _measured(
    found: Bench,
    load: Sequence[Callable[[], Subject]],
    stores: Stores,
    plan: Plan,
    screen: Screen,
    console: Console,
) -> Stop | None:
    """Measure; why it could not be completed, if it could not."""

    def tick(what: str) -> None:
        console.interrupts.check()
        if screen.live:
            screen.write(f"\r\x1b[K  {screen.paint(cut(what, screen.width - 3), 'dim')}")
            screen.flush()

    try:
        with console.interrupts.polite():
            carry_out(found, load, stores, plan, tick)
    except KeyboardInterrupt:
        found.interrupted = True
        return Stop(3, "interrupted; what was measured so far stands above")
    except BenchError as error:
        why = f"{error}. Is the adapter right? `continuum-conformance check` tells"
        return Stop(3, why, error.detail)
    except HarnessError as error:
        return Stop(3, f"the measurement could not go on: {error}", error.detail)
    except PostgresUnavailable as error:
        return Stop(3, str(error))
    finally:
        if screen.live:
            screen.write("\r\x1b[K")
    return None


def _closed(stores: Stores, screen: Screen) -> None:
    try:
        stores.close()
    except PostgresUnavailable as error:
        screen.prose(f"The store was not cleaned up: {mask(str(error))}", label="-", gutter=2)


def _print_settings(screen: Screen, found: Bench) -> None:
    settings = found.settings
    names = " against ".join(of.target for of in found.measured)
    screen.prose(names, "bold", label="bench", gutter=7)
    for store in dict.fromkeys(of.store for of in found.measured):
        screen.prose(f"store: {store}", indent=2)
    length = (
        f"{settings['seconds']:g} s" if settings["count"] is None else f"{settings['count']:,} calls a client"
    )
    handles = settings["handles"]
    screen.prose(
        f"{length} for each figure, in {settings['turns']} turns after a warm-up; up to "
        f"{settings['clients']} clients (threads, or tasks of one loop) on {handles} handle{'s' * (handles > 1)}, "
        f"in one process; {found.environment['processors']} processors; seed {settings['seed']}",
        indent=2,
    )
    screen.flush()


def _write(options: argparse.Namespace, found: Bench, console: Console) -> None:
    text = json.dumps(found.plain(), indent=1, default=str) + "\n"
    if options.json == "-":
        console.out.write(text)
    elif options.json:
        write_file(Path(options.json), text)
    if options.report:
        folder = Path(options.report)
        write_file(folder / "bench.json", text)
        write_file(folder / "bench.svg", standalone_svg(found))
        write_file(folder / "bench.html", bench_page(found))
