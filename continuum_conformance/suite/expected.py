"""The expected-failure file: clauses that an adapter is known to break, each with its reason.

One clause a line, then the reason; ``#`` begins a comment, blank lines are free::

    # The store has no compare-and-swap yet: issue 41.
    FEN-3   None is not refused before version 2
    SNP-5   a second snapshot overwrites the first

A line whose clause passes is *stale* and fails the run, so that the file cannot outlive its reasons.
"""

from __future__ import annotations

from pathlib import Path

from continuum_conformance.contract.clauses import CLAUSES

__all__ = ["ExpectedFileError", "parse_expected", "read_expected"]


class ExpectedFileError(ValueError):
    """The file cannot be read; the message names the file, the line and the remedy."""


def read_expected(file: str | Path) -> dict[str, str]:
    """The reasons by clause id, in the file's order.

    Raises:
        ExpectedFileError: when there is no such file, or a line is wrong.
    """
    try:
        text = Path(file).read_text("utf-8")
    except OSError as error:
        raise ExpectedFileError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ExpectedFileError(f"{file} is not UTF-8 text: {error}") from error
    return parse_expected(text, str(file))


def parse_expected(text: str, file: str = "the expected-failure file") -> dict[str, str]:
    """The reasons by clause id. Raises `ExpectedFileError` at the first line that is wrong."""
    reasons: dict[str, str] = {}
    places: dict[str, int] = {}
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        given, *rest = line.split(maxsplit=1)
        where = f"{file}, line {number}"
        clause = _known(given.rstrip(":"))
        if clause is None:
            raise ExpectedFileError(
                f"{where}: {given!r} is no clause; `continuum-conformance clauses` lists them"
            )
        if clause in reasons:
            raise ExpectedFileError(
                f"{where}: {clause} stands in line {places[clause]} already; keep one of the two"
            )
        reason = rest[0] if rest else ""
        if not reason or reason.startswith("#"):
            raise ExpectedFileError(
                f"{where}: {clause} has no reason; write it behind the id, as in '{clause}  why it fails'"
            )
        reasons[clause], places[clause] = reason, number
    return reasons


def _known(given: str) -> str | None:
    if given in CLAUSES:
        return given
    return next((clause for clause in CLAUSES if clause.upper() == given.upper()), None)
