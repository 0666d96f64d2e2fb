"""The reports: the same run on a terminal, as JSON, as JUnit XML and as a page, whatever the adapter said."""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continuum_conformance.contract.clauses import CLAUSES
from continuum_conformance.report import (
    STANDINGS,
    ClauseResult,
    Finding,
    Report,
    Step,
    Terminal,
    failures,
    from_json,
    read_json,
    to_html,
    to_json,
    to_junit,
    verdict_line,
    write_html,
    write_json,
    write_junit,
)
from continuum_conformance.report.highlight import pieces
from continuum_conformance.report.text import columns, duration, printable, wrap

# -- samples ------------------------------------------------------------------------------------------------

NONE_WALKS_AROUND = '''\
"""FEN-3: a None token walks around the fence of a leased run."""
from continuum_conformance.contract import Instance
from my_package.testing import MyHarness

journal = MyHarness().open()
instance = Instance("continuum-4f2a")

journal.start_run(instance, "order-17", "checkout", {"sku": "A-1", "amount": 3})
lease = journal.acquire(instance, "order-17", "worker-a", ttl=3600)

# Expected LeaseMismatch: the run is leased, and a None must not switch the check off.
journal.append(instance, "order-17", {"type": "paid"}, None)
'''

LATE_WRITE = '''\
"""FEN-5: a write that began before a takeover took effect after it."""
from continuum_conformance.explore import replay
from my_package.testing import MyHarness

with replay(MyHarness(), schedule=[0, 0, 1, 0, 0, 1]) as (a, b):
    a.start_run("order-17", "checkout", None)
    first = a.acquire("order-17", "worker-a", ttl=0)      # may be taken over at once

    a.begin.append("order-17", {"type": "paid"}, first.token)   # reads the token, then is held
    second = b.acquire("order-17", "worker-b", ttl=3600)
    a.finish()                                                  # Expected LeaseMismatch; it returned None

    assert b.load("order-17") == []
'''

PHANTOM_SNAPSHOT = '''\
"""SNP-7: a snapshot past the history was accepted, and hid the event that came later."""
journal.start_run(instance, "order-17", "checkout", None)
journal.take_snapshot(instance, Snapshot("order-17", 4, b"v1", now, {0: "reserved"}))
journal.append(instance, "order-17", {"type": "reserved"}, None)
assert journal.load_with_snapshot(instance, "order-17", None)[1] != []
'''

FEN_3 = Finding(
    clauses=("FEN-3", "APP-9"),
    message="append with a None token was accepted although worker-a held the lease with token 1.",
    counterexample=NONE_WALKS_AROUND,
    steps=(
        Step(1, "A", 'start_run("order-17", "checkout", {"sku": "A-1", "amount": 3})', "None", mark="setup"),
        Step(2, "A", 'acquire("order-17", "worker-a", ttl=3600)', "Lease(token=1)", mark="setup"),
        Step(3, "B", 'append("order-17", {"type": "paid"}, None)', "None", "LeaseMismatch", "deciding"),
    ),
    replay="out/FEN-3.json",
    replay_note="replays exactly",
)
FEN_5 = Finding(
    clauses=("FEN-5", "CON-1"),
    message="A write with token 1 took effect after the takeover that gave token 2 had been acknowledged.",
    counterexample=LATE_WRITE,
    steps=(
        Step(1, "A", 'start_run("order-17", "checkout", None)', "None", mark="setup"),
        Step(2, "A", 'acquire("order-17", "worker-a", ttl=0)', "Lease(token=1)", mark="setup"),
        Step(3, "A", 'append("order-17", {"type": "paid"}, token=1) begins', "held after SELECT lease_token"),
        Step(4, "B", 'acquire("order-17", "worker-b", ttl=3600)', "Lease(token=2)"),
        Step(5, "B", 'load("order-17")', "[]"),
        Step(6, "A", 'append("order-17", {"type": "paid"}, token=1)', "None", "LeaseMismatch", "deciding"),
        Step(7, "B", 'load("order-17")', '[{"type": "paid", "seq": 0}]'),
    ),
    replay="out/FEN-5.json",
    replay_note="replays exactly",
)
SNP_7 = Finding(
    clauses=("SNP-7",),
    message="take_snapshot(through_seq=4) was accepted on a run without events, and hid the event that came later.",
    counterexample=PHANTOM_SNAPSHOT,
    steps=(
        Step(1, "A", 'start_run("order-17", "checkout", None)', "None", mark="setup"),
        Step(2, "A", 'take_snapshot(Snapshot("order-17", through_seq=4))', "None", "SnapshotConflict", "deciding"),
        Step(3, "A", 'append("order-17", {"type": "reserved"}, None)', "None"),
        Step(4, "A", 'load_with_snapshot("order-17", None)', "(Snapshot(through_seq=4), [])"),
    ),
    replay="out/SNP-7.json",
    replay_note="seen once, the database chose",
    traceback="Traceback (most recent call last):\n"
    '  File "/home/me/my_package/journal.py", line 212, in take_snapshot\n'
    "    self._cursor.execute(INSERT_SNAPSHOT, row)\n"
    'psycopg.errors.UniqueViolation: duplicate key value violates unique constraint "snapshots_pkey"',
)


def result(clause_id: str, verdict: str = "passed", **changes: object) -> ClauseResult:
    entry = CLAUSES[clause_id]
    return replace(ClauseResult(clause_id, entry.level, entry.chapter, verdict, seconds=0.031), **changes)


def sample(**verdicts: ClauseResult) -> Report:
    """A run over a PostgreSQL journal: every clause passed, but those given (``FEN_3=result(...)``)."""
    given_ = {name.replace("_", "-"): entry for name, entry in verdicts.items()}
    return Report(
        kit_version="0.1.0",
        contract_version="0.1",
        target="my_package.testing:MyHarness",
        adapter="MyJournal, a journal over PostgreSQL",
        capabilities=["crash_safe", "durable", "leases", "opaque_run_ids", "rich_terms", "shared", "snapshots"],
        profile="standard",
        seed=42,
        verdict="nonconforming" if any(entry.verdict == "failed" for entry in given_.values()) else "conforming",
        clauses=[given_.get(clause_id, result(clause_id)) for clause_id in CLAUSES],
        coverage={
            "examples": 4218,
            "operations": 61_903,
            "interleavings": 15_204,
            "machine": {
                "a write with an older token": 1123,
                "a takeover of an expired lease": 844,
                "a duplicate seq": 310,
                "an append to a terminal run": 97,
                "a snapshot older than the latest": 61,
                "a statement that waited for a lock": 0,
            },
        },
        environment={
            "python": "3.13.2 (CPython)",
            "platform": "Linux-6.8.0-x86_64 (2 cores)",
            "store": "embedded PostgreSQL 18.6, 127.0.0.1:54321",
            "command": "continuum-conformance check my_package.testing:MyHarness --seed 42 --report out/",
        },
        started=datetime(2025, 6, 3, 14, 25, 36, tzinfo=UTC),
        seconds=12.34,
    )


def all_pass() -> Report:
    return sample()


def in_memory() -> Report:
    """Conforming with capabilities undeclared and one withdrawn."""
    why = "{} is not declared, and was refused as CAP-1 asks"
    unsupported = {
        clause_id.replace("-", "_"): result(clause_id, "unsupported", message=why.format(entry.capability))
        for clause_id, entry in CLAUSES.items()
        if entry.capability in ("durable", "crash_safe", "snapshots")
    }
    return replace(
        sample(**unsupported),
        target="in_memory",
        adapter="InMemoryJournal",
        capabilities=["leases", "opaque_run_ids", "rich_terms"],
        withdrawn=["crash_safe"],
    )


def three_findings() -> Report:
    report = sample(
        FEN_3=result("FEN-3", "failed", finding=FEN_3),
        APP_9=result("APP-9", "failed", finding=replace(FEN_3, message="A rejected append left an event behind.")),
        FEN_5=result("FEN-5", "failed", finding=FEN_5),
        SNP_7=result("SNP-7", "failed", finding=SNP_7),
        LEA_9=result("LEA-9", "failed", expected="issue 118: the expiry is computed before the lock", finding=FEN_5),
        LEA_3s=result("LEA-3s", "advice", message="acquire on a completed run was answered with LeaseHeld."),
        LOD_5=result("LOD-5", "not_run", message="tried in the thorough profile only: --profile thorough"),
        DUR_3=result("DUR-3", "not_run", message="the kit may not kill a server that it did not start: leave --dsn out"),
        ATM_5=result("ATM-5", "not_applicable", message="the adapter has no async form"),
        CON_4=result("CON-4", "inconclusive", message="3 of 840 schedules ended in a time-out of the adapter's own"),
    )
    return replace(
        report, notes=["the adapter wrote to standard output: 'connected to shard 0' (3 lines)"], seconds=83.2
    )


def sixty_failures() -> Report:
    """A broken adapter: most failures have one root, the others one each."""
    root = Finding(
        clauses=("RUN-1",),
        message="start_run raised AttributeError: 'NoneType' object has no attribute 'cursor'.",
        counterexample="journal.start_run(instance, 'r1', 'w', None)\n",
        traceback="Traceback (most recent call last):\n" + '  File "x.py", line 1, in f\n    f()\n' * 12,
    )
    broken: dict[str, ClauseResult] = {}
    for number, clause_id in enumerate(list(CLAUSES)[:60]):
        own = replace(root, clauses=(clause_id,), counterexample=f"journal.load(instance, 'r{number}')\n", traceback=None)
        broken[clause_id.replace("-", "_")] = result(clause_id, "failed", finding=root if number < 40 else own)
    return sample(**broken)


def incomplete() -> Report:
    rest = list(CLAUSES)[30:]
    left = {
        clause_id.replace("-", "_"): result(clause_id, "not_run", message="not selected by --only CAP,RUN,APP,LOD")
        for clause_id in rest
    }
    return replace(sample(**left), verdict="incomplete", seconds=2.1)


SAMPLES = {
    "all_pass": all_pass,
    "in_memory": in_memory,
    "three_findings": three_findings,
    "sixty_failures": sixty_failures,
    "incomplete": incomplete,
}
