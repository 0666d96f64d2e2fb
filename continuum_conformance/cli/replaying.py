"""``continuum-conformance replay``: carry out a saved counterexample again."""

from __future__ import annotations

import argparse
from pathlib import Path

from continuum_conformance.cli.adapter import closing, load_subject, open_store, require_sensible_store
from continuum_conformance.cli.console import Console
from continuum_conformance.cli.interrupts import WatchedSession
from continuum_conformance.cli.simulating import replay_world
from continuum_conformance.cli.stop import Stop, write_file
from continuum_conformance.harness import HarnessError
from continuum_conformance.postgres import mask
from continuum_conformance.report.from_suite import finding_of
from continuum_conformance.report.plain import finding_text
from continuum_conformance.report.screen import Screen
from continuum_conformance.simulate.files import is_world
from continuum_conformance.suite.check import PreflightFailure, preflight
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.races.isolation import NoSpec, has_statements, isolation_spec
from continuum_conformance.suite.replay import Replay, ReplayError, load, run
from continuum_conformance.suite.stores import Stores
from continuum_conformance.suite.violation import Violation

__all__ = ["replay"]


def replay(options: argparse.Namespace, console: Console) -> int:
    """Show a counterexample again, or say that it does not show any more."""
    require_sensible_store(options)
    wanted = options.isolation_spec
    no_race = f"{options.file} is no race of statements in PostgreSQL, so there is no SQL to make a spec of"
    if is_world(Path(options.file)):
        if wanted:
            raise Stop(2, no_race)
        return replay_world(options, console)
    try:
        saved = load(Path(options.file))
    except ReplayError as error:
        raise Stop(2, str(error)) from None
    if wanted and not has_statements(saved.race):
        raise Stop(2, no_race)
    target = options.target or saved.target
    notes: list[str] = []
    with console.apart():
        subject = load_subject(target, limit=options.timeout)
        session = WatchedSession(subject, console.interrupts)
        stores = Stores(options.postgres, dsn=options.dsn, use_database=options.use_database)
        session.pair = stores.pair
        with closing(session, stores, notes):
            open_store(stores, subject)
            with console.interrupts.polite():
                violation = _performed(session, saved)
            finding = finding_of(violation, subject, replay=Path(options.file)) if violation else None
            spec = _spec(session, violation, notes) if wanted and violation is not None else ""
    screen = Screen(console.err if wanted == "-" else console.out, colour=options.colour)
    screen.line(f"{screen.paint('replay', 'bold')}  {options.file} on {target}")
    screen.line()
    if finding is None:
        screen.prose(f"It does not show any more: {saved.clauses[0]}, {saved.message}")
    else:
        screen.write(finding_text(finding, width=screen.width) + "\n")
    for note in notes:
        screen.prose(note, label="-", gutter=2)
    if spec:
        _write(console, spec, wanted)
    if spec and wanted != "-":
        screen.line(f"spec: {wanted}  (for PostgreSQL's isolation tester)")
    return 0 if finding is None else 1


def _spec(session: Session, violation: Violation, notes: list[str]) -> str:
    try:
        return isolation_spec(session, violation)
    except NoSpec as error:
        notes.append(f"No spec was written: {mask(str(error))}")
        return ""


def _write(console: Console, spec: str, file: str) -> None:
    if file == "-":
        console.out.write(spec)
        console.flush()
        return
    write_file(Path(file), spec, code=3)


def _performed(session: Session, saved: Replay) -> Violation | None:
    try:
        preflight(session)
        return run(session, saved)
    except PreflightFailure as error:
        raise Stop(2, str(error), error.detail) from None
    except HarnessError as error:
        raise Stop(3, f"the replay could not go on: {error}", error.detail) from None
