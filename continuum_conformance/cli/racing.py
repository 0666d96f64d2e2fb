"""``continuum-conformance race``: hunt for a race for as long as one likes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from continuum_conformance.cli.adapter import closing, load_subject, open_store, require_sensible_store
from continuum_conformance.cli.console import Console
from continuum_conformance.cli.interrupts import WatchedSession
from continuum_conformance.cli.stop import Stop
from continuum_conformance.harness import HarnessError
from continuum_conformance.postgres import mask
from continuum_conformance.report.from_suite import finding_of
from continuum_conformance.report.plain import finding_text
from continuum_conformance.suite.check import PreflightFailure, preflight
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.races.hunting import Corpus, Hunt, hunt
from continuum_conformance.suite.races.isolation import NoSpec, has_statements, isolation_spec
from continuum_conformance.suite.replay import save
from continuum_conformance.suite.stores import Stores
from continuum_conformance.suite.violation import Violation

__all__ = ["race"]


def race(options: argparse.Namespace, console: Console) -> int:
    """Explore until a race is found (exit code 1) or the budget is spent (0)."""
    require_sensible_store(options)
    folder = Path(options.corpus)
    notes: list[str] = []
    screen = console.screen(options.colour)
    try:
        corpus = Corpus.read(folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', options.target)}.races.json")
    except (ValueError, OSError) as error:
        raise Stop(2, f"the corpus cannot be read: {error}") from None
    with console.apart():
        subject = load_subject(options.target, limit=options.timeout)
        session = WatchedSession(subject, console.interrupts)
        stores = Stores(options.postgres, dsn=options.dsn, use_database=options.use_database)
        with closing(session, stores, notes):
            open_store(stores, subject)
            try:
                with console.interrupts.polite():
                    preflight(session)
                    found = hunt(
                        session,
                        corpus=corpus,
                        ops=options.ops,
                        workers=options.workers,
                        strategy=options.strategy,
                        budget=options.budget,
                        seed=options.seed,
                        progress=lambda done, explored: screen.line(_progress(done, explored.scenario.name)),
                    )
            except PreflightFailure as error:
                raise Stop(2, str(error), error.detail) from None
            except HarnessError as error:
                raise Stop(3, f"the hunt could not go on: {error}", error.detail) from None
            finding = file = spec = None
            if found.violation is not None:
                name = f"race-{found.violation.clauses[0]}"
                file = save(found.violation, session, folder, name, profile="standard", seed=options.seed)
                spec = _spec(session, found.violation, file, notes)
                finding = finding_of(found.violation, subject, found.exact, file)
    screen.line()
    if finding is not None:
        screen.write(finding_text(finding, width=screen.width) + "\n")
        screen.line(f"replay: continuum-conformance replay {file}")
    if spec is not None:
        screen.line(f"spec: {spec}  (for PostgreSQL's isolation tester)")
    for note in notes:
        screen.prose(note, label="-", gutter=2)
    screen.line(_summary(found))
    return 1 if finding is not None else 0


def _spec(session: Session, violation: Violation, replay: Path, notes: list[str]) -> Path | None:
    """A spec for PostgreSQL's isolation tester beside the replay file, for a race at statements."""
    if not has_statements(violation.race):
        return None
    file = replay.with_suffix(".spec")
    try:
        file.write_text(isolation_spec(session, violation), "utf-8", newline="\n")
    except NoSpec as error:
        notes.append(f"There is no spec for the isolation tester: {mask(str(error))}.")
        return None
    return file


def _progress(done: Hunt, name: str) -> str:
    return f"  {done.seconds:6.1f} s  {done.scenarios:5} scenarios  {done.runs:7} schedules  {name}"


def _summary(found: Hunt) -> str:
    what = "a race was found" if found.violation is not None else "no race was found"
    return (
        f"{what}: {found.scenarios} scenarios, {found.runs} schedules at the level of {found.level}, "
        f"in {found.seconds:.1f} s"
    )
