"""The command, run in the tests' own process."""

from __future__ import annotations

from continuum_conformance.cli import main

__all__ = ["run_command"]


def run_command(capture, *arguments):
    """Its exit code, standard output and standard error. ``capture``: pytest's capsys or capfd."""
    try:
        code = main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capture.readouterr()
    return code, out, err
