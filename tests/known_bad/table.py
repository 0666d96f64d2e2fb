"""Which clause catches which: the parts of docs/kill-table.md that follow from the register alone."""

from __future__ import annotations

import importlib

from continuum_conformance.contract.clauses import CLAUSES

from .registry import ENTRIES

__all__ = ["UNBROKEN", "broken_by", "clauses_due", "elsewhere", "heading", "of_other_banks", "thread"]

UNBROKEN_ELSEWHERE = {
    "CON-5": "a SHOULD: whoever waits for another run's lock does not come back, which is told as that",
}
"""Clauses about races and faults that no adapter of the other banks is declared to break, and why."""

UNBROKEN = {"LOD-5": "tried in the thorough profile only; a run of 10,000 events takes too long to try here"}
"""Clauses that no entry breaks, and why."""


def clauses_due() -> list[str]:
    """The clauses that sequential faults can break."""
    return [clause.id for clause in CLAUSES.values() if clause.since == "0.1"]


def broken_by() -> dict[str, list[str]]:
    """For each clause the entries that break it, those first whose closest clause it is."""
    found: dict[str, list[str]] = {}
    for closest in (True, False):
        for entry in ENTRIES.values():
            for clause in entry.clauses[:1] if closest else entry.clauses[1:]:
                found.setdefault(clause, []).append(entry.name)
    return found


def heading() -> list[str]:
    return [
        "# Which clause catches which",
        "",
        f"{len(ENTRIES)} adapters that are wrong on purpose, each in one place (`tests/known_bad/`), and what the check says of",
        "them. Written by `python -m tests.known_bad`; a test fails when it is stale. Where a public thread tells of a",
        "fault of this kind, it stands in the last column: the fault is like the one that the thread is about, and the",
        "adapter is ours.",
        "",
        "| adapter | the fault | reported under | what is said under the first | calls | seen in |",
        "| --- | --- | --- | --- | --- | --- |",
    ]


def elsewhere() -> dict[str, list[str]]:
    """For each clause about races and faults the adapters of `tests.racing` and `tests.faulty` that break it."""
    found: dict[str, list[str]] = {clause: [] for clause in CLAUSES if clause not in clauses_due()}
    for bank in BANKS:
        module = importlib.import_module(bank)
        advised = {target: (clause,) for target, clause in getattr(module, "ADVISED", {}).items()}
        for target, clauses in {**module.WRONG, **advised}.items():
            for clause in clauses:
                if clause in found:
                    name = target.rpartition(":")[2].removesuffix("Harness")
                    found[clause].append(f"{name} ({bank.removeprefix('tests.')})")
    return found


def thread(address: str) -> str:
    """A link to a thread, named as people name it."""
    if not address:
        return ""
    owner, repository, _, number = address.removeprefix("https://github.com/").split("/")
    return f"[{owner}/{repository}#{number}]({address})"


def of_other_banks() -> list[str]:
    """The rows of the adapters of `tests.racing` and `tests.faulty`."""
    rows = []
    for bank in BANKS:
        module = importlib.import_module(bank)
        advised = {target: (clause,) for target, clause in getattr(module, "ADVISED", {}).items()}
        for target, clauses in {**module.WRONG, **advised}.items():
            name = target.rpartition(":")[2].removesuffix("Harness")
            fault = " ".join((getattr(module, name).__doc__ or "").split())
            seen = thread(module.SEEN_IN.get(target, ""))
            rows.append(
                f"| {name} ({bank.removeprefix('tests.')}) | {fault} | {', '.join(clauses)} | {seen} |"
            )
    return rows


BANKS = (
    "tests.racing.memory",
    "tests.racing.tasks",
    "tests.racing.postgres",
    "tests.racing.more_postgres",
    "tests.racing.contention",
    "tests.racing.sqlite",
    "tests.faulty.failover",
    "tests.faulty.files",
    "tests.faulty.postgres",
    "tests.faulty.network",
    "tests.faulty.tasks",
)
