"""``continuum-conformance check``: run the plan, write the reports, print the verdict."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

from continuum_conformance import __version__
from continuum_conformance.cli.adapter import (
    closing,
    configured,
    load_subject,
    open_store,
    require_failover,
    require_sensible_store,
)
from continuum_conformance.cli.arguments import PROFILES
from continuum_conformance.cli.console import Console
from continuum_conformance.cli.interrupts import Interrupts, WatchedSession
from continuum_conformance.cli.stop import Stop
from continuum_conformance.contract.clauses import CONTRACT_VERSION
from continuum_conformance.harness import HarnessError
from continuum_conformance.harness.bridge.harness import PREFIX
from continuum_conformance.postgres import mask
from continuum_conformance.report import (
    ClauseResult,
    Report,
    ReportVerdict,
    Terminal,
    to_json,
    write_html,
    write_json,
    write_junit,
)
from continuum_conformance.report.from_suite import clause_results
from continuum_conformance.suite.check import (
    Judgement,
    Plan,
    PreflightFailure,
    exit_code,
    judge,
    preflight,
    run_check,
    verdict,
)
from continuum_conformance.suite.expected import ExpectedFileError, read_expected
from continuum_conformance.suite.faults.failover import no_failover
from continuum_conformance.suite.faults.lost import told_of_failover
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.races.isolation import NoSpec, has_statements, isolation_spec
from continuum_conformance.suite.replay import save
from continuum_conformance.suite.stores import Stores
from continuum_conformance.suite.testing import PROFILES as PLANS
from continuum_conformance.suite.testing import Result

__all__ = ["check"]

REPLAYS = Path(".continuum")
"""Where replay files go without ``--report``; only failures put anything there."""


@dataclass
class _Run:
    """One check, from its options to its report."""

    options: argparse.Namespace
    target: str
    plan: Plan
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.monotonic)
    store: str | None = None
    results: list[Result] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failover: list[str] = field(default_factory=list)
    stop: Stop | None = None
    """Why it ended early, if it did."""


def check(options: argparse.Namespace, console: Console) -> int:
    """Check an adapter. Raises `Stop` when there is nothing to report on."""
    require_sensible_store(options)
    run, folder = _run_of(options)
    _require_writable(options)
    out = console.err if options.json == "-" else console.out
    terminal = Terminal(out, colour=options.colour)
    with console.apart() as printed:
        subject = load_subject(run.target, limit=options.timeout, without=options.without, folder=folder)
        if options.failover:
            require_failover(options, subject)
        stores = Stores(options.postgres, dsn=options.dsn, use_database=options.use_database)
        session = WatchedSession(subject, console.interrupts)
        session.pair = stores.pair if options.failover else None
        with closing(session, stores, run.notes):
            _carry_out(run, session, stores, terminal, console.interrupts)
            judgements = judge(session, run.plan, run.results)
            replays = _save_replays(run, session, judgements)
            specs = _save_specs(run, session, judgements, replays)
    if run.stop is not None:
        judgements = [_not_reached(judgement, str(run.stop)) for judgement in judgements]
    run.notes += _notes(session, printed.note)
    report = _report(run, session, judgements, clause_results(judgements, subject, replays, specs))
    _write(run, report, console)
    if run.results or run.stop is None:
        terminal.finish(report)
    if options.report:
        out.write(f"page: {Path(options.report, 'index.html')}\n")
    if run.stop is not None:
        console.flush()
        console.complain(str(run.stop), run.stop.detail)
        return run.stop.code
    return exit_code(judgements)


def _run_of(options: argparse.Namespace) -> tuple[_Run, Path | None]:
    table, folder = configured()
    target = options.target or os.environ.get("CONTINUUM_JOURNAL")
    if target:
        folder = None
    else:
        target = table.get("journal") or _program(table)
    if not target or not isinstance(target, str):
        raise Stop(
            2,
            "no adapter named. Write `continuum-conformance check my_package.testing:MyHarness`, or name one as "
            "`journal` in [tool.continuum-conformance] of pyproject.toml; `continuum-conformance adapters` lists the installed ones",
        )
    profile = options.profile or table.get("profile", "standard")
    if profile not in PROFILES:
        raise Stop(2, f"`profile` in pyproject.toml is {profile!r}; it must be one of {', '.join(PROFILES)}")
    try:
        expected = read_expected(options.expected) if options.expected else {}
    except ExpectedFileError as error:
        raise Stop(2, str(error)) from None
    return _Run(
        options, target, Plan(PLANS[profile], options.seed, options.only, expected, options.first)
    ), folder


def _program(table: Mapping[str, Any]) -> str | None:
    """The program that ``exec`` names in pyproject.toml, as a target."""
    command = table.get("exec")
    if command is not None and not isinstance(command, str):
        raise Stop(
            2, f"`exec` in pyproject.toml is {command!r}; it must be a command, as in 'node bridge.mjs'"
        )
    return f"{PREFIX}{command}" if command else None


def _require_writable(options: argparse.Namespace) -> None:
    """Find out now, not after the run, that a report cannot be written."""
    files = [Path(name) for name in (options.json, options.junit) if name and name != "-"]
    folders = [file.parent for file in files] + ([Path(options.report)] if options.report else [])
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Stop(2, f"{folder} cannot be made: {error.strerror}") from None
        if not os.access(folder, os.W_OK):
            raise Stop(2, f"{folder} cannot be written to")
    for file in files:
        if file.is_dir():
            raise Stop(2, f"{file} is a directory; name a file")


def _carry_out(
    run: _Run, session: Session, stores: Stores, terminal: Terminal, interrupts: Interrupts
) -> None:
    """Run the plan; what was found stays in ``run`` however this ends."""
    subject = session.subject
    progress: Callable[[int, int, str], None] = terminal.progress
    try:
        run.store = open_store(stores, subject)
        terminal.start(
            target=run.target,
            adapter=subject.name,
            store=run.store,
            profile=run.plan.profile.name,
            seed=run.plan.seed,
            capabilities=sorted(session.capabilities),
            withdrawn=sorted(subject.withdrawn),
        )
        with interrupts.polite():
            preflight(session)
            run_check(session, run.plan, progress, run.results)
            if run.options.failover:
                run.failover = _told_of_failover(run, session)
    except Stop as stop:
        run.stop = stop
    except PreflightFailure as error:
        run.stop = Stop(2, str(error), error.detail)
    except HarnessError as error:
        run.stop = Stop(3, f"the check could not go on: {error}", error.detail)
    except KeyboardInterrupt:
        run.stop = Stop(3, "interrupted; what was judged until then is reported")


def _told_of_failover(run: _Run, session: Session) -> list[str]:
    tried = [result for result in run.results if session.pair and result.test.when is no_failover]
    if not tried or any(result.error for result in tried) or "durable" not in session.capabilities:
        return []  # other clauses were asked for, or it could not be tried
    return told_of_failover(session, kept=all(result.violation is None for result in tried))


def _not_reached(judgement: Judgement, why: str) -> Judgement:
    """In a check that ended early, say so of what it did not reach."""
    if judgement.verdict != "not_run":
        return judgement
    return Judgement(judgement.clause, "not_run", why.splitlines()[0], expected=judgement.expected)


def _save_replays(run: _Run, session: Session, judgements: Sequence[Judgement]) -> dict[str, Path]:
    """A file for each clause that has a counterexample."""
    folder = Path(run.options.report) if run.options.report else REPLAYS
    files: dict[str, Path] = {}
    for judgement in judgements:
        violation = judgement.violation
        if violation is None or not violation.steps:
            continue
        own = next((result.test.clauses for result in run.results if result.test.name == violation.test), ())
        try:
            if folder is REPLAYS:
                _make_private(folder)
            files[judgement.clause.id] = save(
                violation,
                session,
                folder,
                judgement.clause.id,
                profile=run.plan.profile.name,
                seed=run.plan.seed,
                own=own,
            )
        except OSError as error:
            run.notes.append(f"No replay files were written to {folder}: {error.strerror or error}.")
            break
    return files


def _save_specs(
    run: _Run, session: Session, judgements: Sequence[Judgement], replays: dict[str, Path]
) -> dict[str, tuple[str, Path]]:
    """For each race at statements a spec for PostgreSQL's isolation tester, beside its replay file."""
    written: dict[int, str] = {}
    specs: dict[str, tuple[str, Path]] = {}
    for judgement in judgements:
        violation, replay = judgement.violation, replays.get(judgement.clause.id)
        if violation is None or replay is None or run.stop is not None or not has_statements(violation.race):
            continue
        file = replay.with_suffix(".spec")
        try:
            if id(violation) not in written:
                written[id(violation)] = isolation_spec(session, violation)
            file.write_text(written[id(violation)], "utf-8", newline="\n")
            specs[judgement.clause.id] = written[id(violation)], file
        except NoSpec as error:
            run.notes.append(
                f"{judgement.clause.id} has no spec for the isolation tester: {mask(str(error))}."
            )
        except OSError as error:
            run.notes.append(f"{file} cannot be written: {error.strerror or error}.")
    return specs


def _make_private(folder: Path) -> None:
    """A folder that version control leaves alone."""
    folder.mkdir(exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("# Made by continuum-conformance.\n*\n", "utf-8")


def _notes(session: Session, printed: str) -> list[str]:
    """What a reader should know besides the verdicts."""
    remarks = [
        f"{remark} ({times} times)" if times > 1 else remark
        for remark, times in session.remarks.most_common()
    ]
    if session.left_out:
        remarks.append(
            f"{session.left_out} examples cannot be carried to another program in JSON, and were left out"
        )
    return [text for text in (*session.subject.remarks, *remarks, printed) if text]


def _report(
    run: _Run, session: Session, judgements: Sequence[Judgement], clauses: list[ClauseResult]
) -> Report:
    subject = session.subject
    found = verdict(list(judgements), run.plan)
    if run.stop is not None and found == "conforming":
        found = "incomplete"
    return Report(
        kit_version=__version__,
        contract_version=CONTRACT_VERSION,
        target=run.target,
        adapter=subject.name,
        profile=run.plan.profile.name,
        seed=run.plan.seed,
        verdict=cast("ReportVerdict", found),
        started=run.started,
        seconds=time.monotonic() - run.clock,
        capabilities=sorted(session.capabilities),
        withdrawn=sorted(subject.withdrawn),
        clauses=clauses,
        coverage=_coverage(session),
        notes=run.notes,
        failover=run.failover,
        environment=_environment(run),
    )


def _coverage(session: Session) -> dict[str, Any]:
    """The counts: examples and operations by themselves, situations together."""
    counts = dict(session.statistics)
    plain: dict[str, Any] = {name: counts.pop(name, 0) for name in ("examples", "operations")}
    if session.races:
        plain["races"] = {"level": " then ".join(session.race_levels), **session.races}
    if session.faults:
        plain["faults"] = dict(session.faults)
    return {**plain, "situations": dict(sorted(counts.items()))} if counts else plain


def _environment(run: _Run) -> dict[str, str]:
    found = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "store": run.store or "",
        "command": mask(_command(run)),
    }
    return {name: value for name, value in found.items() if value}


def _command(run: _Run) -> str:
    """The command line that tries the same again. The DSN stays out: it is not the reader's."""
    options = run.options
    program = run.target.startswith(PREFIX)
    named = ["--exec", run.target.removeprefix(PREFIX)] if program else [run.target]
    parts = ["continuum-conformance", "check", *named]
    parts += ["--profile", run.plan.profile.name, "--seed", str(run.plan.seed)]
    if options.only:
        parts += ["--only", ",".join(options.only)]
    if options.expected:
        parts += ["--expected", options.expected]
    if options.without:
        parts += ["--without", ",".join(options.without)]
    parts += ["--first"] if options.first else []
    parts += ["--failover"] if options.failover else []
    parts += ["--postgres", options.postgres] if options.postgres != "auto" else []
    return shlex.join(parts)


def _write(run: _Run, report: Report, console: Console) -> None:
    """Write what was asked for; one that cannot be written keeps no other from being written."""
    options = run.options
    wanted: list[tuple[str, Callable[[], object]]] = []
    if options.json == "-":
        wanted.append(("standard output", partial(_print_json, report, console)))
    elif options.json:
        wanted.append((options.json, partial(write_json, report, options.json)))
    if options.junit:
        wanted.append((options.junit, partial(write_junit, report, options.junit)))
    if options.report:
        page, data = Path(options.report, "index.html"), Path(options.report, "report.json")
        wanted += [
            (str(page), partial(write_html, report, page)),
            (str(data), partial(write_json, report, data)),
        ]
    for name, write in wanted:
        try:
            write()
        except OSError as error:
            run.stop = run.stop or Stop(3, f"{name} cannot be written: {error.strerror or error}")


def _print_json(report: Report, console: Console) -> None:
    json.dump(to_json(report), console.out, indent=1)
    console.out.write("\n")
    console.out.flush()
