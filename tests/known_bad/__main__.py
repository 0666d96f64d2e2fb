"""``python -m tests.known_bad``: try every wrong adapter, and write which clause catches which to docs/kill-table.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from . import ENTRIES
from .registry import KnownBad
from .table import (
    UNBROKEN,
    UNBROKEN_ELSEWHERE,
    broken_by,
    clauses_due,
    elsewhere,
    heading,
    of_other_banks,
    thread,
)
from .trying import checked

PAGE = Path(__file__).parents[2] / "docs" / "kill-table.md"


def main() -> int:
    rows, missed = [], []
    for number, entry in enumerate(ENTRIES.values(), 1):
        with checked(entry, entry.clauses) as found:
            told = found.judgements[entry.clauses[0]]
            wrong = [c for c in entry.clauses if found.judgements[c].verdict not in ("failed", "advice")]
            if wrong or not re.search(entry.message, told.message):
                missed.append(f"{entry.name}: {', '.join(wrong) or told.message}")
            rows.append(_row(entry, told))
        print(f"\r{number} of {len(ENTRIES)}  {entry.name:60}", end="", file=sys.stderr)
    print(file=sys.stderr)
    PAGE.write_text("\n".join([*heading(), *rows, "", *_by_clause()]) + "\n", "utf-8")
    for line in missed:
        print("missed:", line)
    print(f"{PAGE}: {len(ENTRIES)} wrong adapters, {len(missed)} missed")
    return 1 if missed else 0


def _row(entry: KnownBad, told) -> str:
    violation = told.violation
    if violation is None:
        return f"| {entry.name} | {entry.fault} | {', '.join(entry.clauses)} | **missed** | | {thread(entry.seen_in)} |"
    message = told.message
    if violation.salt:
        message = message.replace(f"-{violation.salt}", "").replace(violation.salt, "")
    message = message if len(message) <= 120 else f"{message[:117]}..."
    message = message.replace("\n", " ").replace("|", "\\|").replace("`", "'")
    steps = len(violation.steps)
    return f"| {entry.name} | {entry.fault} | {', '.join(entry.clauses)} | {message} | {steps or ''} | {thread(entry.seen_in)} |"


def _by_clause() -> list[str]:
    lines = ["## By clause", "", "| clause | broken by |", "| --- | --- |"]
    for clause in clauses_due():
        names = broken_by().get(clause, [])
        lines.append(f"| {clause} | {', '.join(names) or UNBROKEN.get(clause, '')} |")
    return [*lines, "", *_of_other_banks()]


def _of_other_banks() -> list[str]:
    """Races and faults: the banks beside this one, each tried by a test of its own."""
    lines = [
        "## Races and faults",
        "",
        "These are broken by adapters that are right in any sequence of calls. `tests/test_racing.py`,",
        "`tests/test_faulty.py` and `tests/test_failover.py` find them and replay what they found, but for a few that take a",
        "whole check. How long a check takes to find each is told in [detection.md](detection.md).",
        "",
        "| adapter | the fault | reported under one of | seen in |",
        "| --- | --- | --- | --- |",
        *of_other_banks(),
        "",
        "| clause | broken by |",
        "| --- | --- |",
    ]
    for clause, names in elsewhere().items():
        lines.append(f"| {clause} | {', '.join(names) or UNBROKEN_ELSEWHERE.get(clause, '')} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
