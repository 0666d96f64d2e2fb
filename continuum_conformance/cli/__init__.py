"""The command. ``main`` is its entry point.

`arguments.py` says what it takes; `checking.py`, `replaying.py` and `catalogue.py` are its commands;
`console.py` keeps what the adapter prints apart from what the kit prints.

Exit codes: 0 conforming (with ``--only`` or ``--expected``: what was selected passed, or failed as expected),
1 not conforming, 2 wrong usage or an adapter that cannot be loaded or opened, 3 the run could not be completed.
No PostgreSQL to be had is 3: the machine lacks something, the command line is right.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from continuum_conformance.cli.arguments import parsed
from continuum_conformance.cli.console import Console
from continuum_conformance.cli.stop import Stop
from continuum_conformance.suite.leaving import leave_in_time, threads_now

__all__ = ["main"]

_COMMANDS = {
    "check": "checking:check",
    "replay": "replaying:replay",
    "race": "racing:race",
    "simulate": "simulating:simulate",
    "bench": "benching:bench",
    "serve": "serving:serve",
    "clauses": "catalogue:clauses",
    "adapters": "catalogue:adapters",
    "bench detection": "benchmarks.detecting:detection",
}
"""Loaded when they are called for, so that ``--help`` is quick."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Never raises but `SystemExit`, for wrong usage."""
    options = _options(sys.argv[1:] if arguments is None else list(arguments))
    # Hypothesis would leave a cache in the current directory; where it cannot write, it goes without.
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(os.devnull, "hypothesis"))  # noqa: PTH118
    threads = threads_now()
    console = Console()
    try:
        with console.interrupts.handled():
            code = _command(options.command)(options, console)
    except Stop as stop:
        console.complain(str(stop), stop.detail)
        code = stop.code
    except KeyboardInterrupt:
        console.complain("interrupted")
        code = 3
    except Exception:  # noqa: BLE001 - a mistake of the kit's own: told in a line, kept in a file
        console.complain(f"the kit itself failed. Please report it, with the file {_kept_traceback()}")
        code = 3
    console.flush()
    leave_in_time(code, since=threads)
    return code


def _options(arguments: list[str]) -> argparse.Namespace:
    if arguments[:2] == ["bench", "detection"]:
        detecting = importlib.import_module("continuum_conformance.cli.benchmarks.detecting")
        found: argparse.Namespace = detecting.parser().parse_args(arguments[2:])
        return found
    return parsed(arguments)


def _command(name: str) -> Callable[[argparse.Namespace, Console], int]:
    module, _, function = _COMMANDS[name].partition(":")
    found: Callable[[argparse.Namespace, Console], int] = getattr(
        importlib.import_module(f"continuum_conformance.cli.{module}"), function
    )
    return found


def _kept_traceback() -> Path:
    with tempfile.NamedTemporaryFile(
        "w", prefix="continuum-conformance-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(f"{' '.join(sys.argv)}\n\n{traceback.format_exc()}")
        return Path(file.name)
