"""Loading and opening the adapter that a command is about, with one message for each thing that can go wrong."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from continuum_conformance.cli.stop import Stop
from continuum_conformance.contract.targets import TargetError, configuration
from continuum_conformance.harness import HarnessError, Subject
from continuum_conformance.postgres import PostgresUnavailable, mask, programs
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.stores import Stores

__all__ = [
    "closing",
    "configured",
    "load_subject",
    "open_store",
    "require_failover",
    "require_sensible_store",
]


def configured() -> tuple[Mapping[str, Any], Path | None]:
    """``[tool.continuum-conformance]`` of the project that the command is called in, and its folder."""
    try:
        return configuration()
    except TargetError as error:
        raise Stop(2, str(error)) from None


def require_sensible_store(options: argparse.Namespace) -> None:
    """Refuse options about the store that contradict each other, before anything is started."""
    if options.dsn and options.postgres != "auto":
        raise Stop(2, f"--dsn and --postgres {options.postgres} contradict each other; give one of them")
    if options.use_database and not (options.dsn or os.environ.get("CONTINUUM_DSN")):
        raise Stop(2, "--use-database is about a database of yours; name it with --dsn, or set CONTINUUM_DSN")


def require_failover(options: argparse.Namespace, subject: Subject) -> None:
    """Refuse to try failover where there are no servers that may be lost. Raises `Stop` (2, or 3 without programs)."""
    if "postgres" not in subject.needs:
        raise Stop(
            2, f'--failover is about PostgreSQL, and {subject.name} does not need one (`needs = "postgres"`)'
        )
    given = "--dsn" if options.dsn else "CONTINUUM_DSN" if os.environ.get("CONTINUUM_DSN") else ""
    if given and options.postgres == "auto":
        raise Stop(
            2,
            f"--failover kills servers, so it starts two of the kit's own, and {given} names one of yours; leave it out",
        )
    if options.postgres == "container":
        raise Stop(
            2,
            "--failover needs the server's programs on this machine, which --postgres container does without",
        )
    try:
        programs(options.postgres)
    except PostgresUnavailable as error:
        raise Stop(3, f"--failover starts two servers of the kit's own: {error}") from None


def load_subject(
    target: str, *, limit: float, without: Collection[str] = (), folder: Path | None = None
) -> Subject:
    """The adapter. Raises `Stop` (2) when it cannot be loaded.

    Args:
        target: what the user named.
        limit: seconds that a call may take.
        without: capabilities that are withdrawn.
        folder: importable too, when the target comes from a file there.
    """
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return Subject(target, limit=limit, without=without)
    except TargetError as error:
        raise Stop(2, str(error), _where(error.__cause__)) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the author's code, run while it is imported
        message = f"{target!r} cannot be loaded: {type(error).__name__}: {error}"
        raise Stop(2, message, _where(error)) from None


def _where(error: BaseException | None) -> str:
    """The lines of the author's own code that led to an error."""
    if error is None:
        return ""
    kit = str(Path(__file__).parents[1])
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((kit, "<frozen ")) and "importlib" not in frame.filename
    ]
    return "".join(traceback.format_list(frames[-3:]))


def open_store(stores: Stores, subject: Subject) -> str | None:
    """Get what the adapter needs, and say what it is. Raises `Stop` (3) when it is not to be had."""
    try:
        return stores.provide(subject)
    except PostgresUnavailable as error:
        raise Stop(3, f"{subject.name} needs a PostgreSQL. {error}") from None
    except OSError as error:
        raise Stop(3, f"a directory for {subject.name} cannot be made: {error}") from None


@contextmanager
def closing(session: Session, stores: Stores, notes: list[str]) -> Iterator[None]:
    """Close the adapter and its store afterwards, whatever happens; what goes wrong there is a note."""
    try:
        yield
    finally:
        try:
            session.close_all()
        except HarnessError as error:
            notes.append(f"The adapter was not closed cleanly: {mask(str(error))}")
        try:
            stores.close()
        except PostgresUnavailable as error:
            notes.append(f"The store was not cleaned up: {mask(str(error))}")
