"""The report as JSON, and back: so that a page can be made from a stored run.

Whatever a report holds becomes JSON that any parser reads: lone surrogates are written as their escapes,
numbers that JSON does not know as text, and what is no data at all as the name of its type. `from_json` reads
what `to_json` wrote; keys that it does not know (those of a later version) are passed over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from continuum_conformance.report.data import (
    ClauseResult,
    ClauseVerdict,
    Finding,
    Mark,
    Report,
    ReportVerdict,
    Step,
)
from continuum_conformance.report.stored_interleaving import interleaving_from_json, interleaving_to_json
from continuum_conformance.report.stored_object import StoredObject
from continuum_conformance.report.text import scalar

__all__ = ["from_json", "read_json", "to_json", "write_json"]

_DEEPEST = 32
_LARGEST_BITS = 64


def to_json(report: Report) -> dict[str, Any]:
    """The report as plain JSON data. Never raises."""
    plain = {
        "kit_version": report.kit_version,
        "contract_version": report.contract_version,
        "target": report.target,
        "adapter": report.adapter,
        "capabilities": list(report.capabilities),
        "withdrawn": list(report.withdrawn),
        "profile": report.profile,
        "seed": report.seed,
        "verdict": report.verdict,
        "counts": report.counts,
        "clauses": [_clause_to_json(entry) for entry in report.clauses],
        "coverage": report.coverage,
        "notes": list(report.notes),
        "failover": list(report.failover),
        "environment": report.environment,
        "started": report.started.isoformat(),
        "seconds": report.seconds,
    }
    return {key: _jsonable(value) for key, value in plain.items()}


def _clause_to_json(entry: ClauseResult) -> dict[str, Any]:
    finding = entry.finding
    return {
        "id": entry.id,
        "level": entry.level,
        "chapter": entry.chapter,
        "verdict": entry.verdict,
        "expected": entry.expected,
        "seconds": entry.seconds,
        "message": entry.message if entry.message is not None or finding is None else finding.message,
        "rule": entry.rule,
        "counterexample": finding.counterexample if finding else None,
        "replay": finding.replay if finding else None,
        "steps": [_step_to_json(step) for step in finding.steps] if finding else [],
        "finding": finding
        and {
            "clauses": list(finding.clauses),
            "message": finding.message,
            "replay_note": finding.replay_note,
            "traceback": finding.traceback,
            "stack": finding.stack,
            "interleaving": interleaving_to_json(finding.interleaving),
            "isolation_spec": finding.isolation_spec,
            "isolation_file": finding.isolation_file,
        },
    }


def _step_to_json(step: Step) -> dict[str, Any]:
    return {
        "number": step.number,
        "worker": step.worker,
        "operation": step.operation,
        "outcome": step.outcome,
        "expected": step.expected,
        "mark": step.mark,
    }


def _jsonable(value: object, depth: int = 0) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return scalar(value)
        case int():
            return int(value) if value.bit_length() <= _LARGEST_BITS else hex(value)
        case float():
            return float(value) if math.isfinite(value) else str(float(value))
        case datetime():
            return value.isoformat()
        case Mapping() if depth < _DEEPEST:
            return {scalar(_key(key)): _jsonable(item, depth + 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset() if depth < _DEEPEST:
            return [_jsonable(item, depth + 1) for item in value]
        case _:
            return f"<{type(value).__name__}>"


def _key(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, tuple):
        return ", ".join(_key(part) for part in key)
    return str(_jsonable(key))


def write_json(report: Report, file: str | Path) -> None:
    """Write the report as JSON into this file (UTF-8)."""
    text = json.dumps(to_json(report), indent=2, ensure_ascii=False, allow_nan=False)
    Path(file).write_text(text + "\n", encoding="utf-8", newline="\n")


def read_json(file: str | Path) -> Report:
    """The report that `write_json` stored in this file.

    Raises:
        ValueError: the file holds no report, with what is missing or wrong.
        OSError: it cannot be read.
    """
    return from_json(json.loads(Path(file).read_text(encoding="utf-8")))


def from_json(data: object) -> Report:
    """The report that `to_json` made this data of.

    Raises:
        ValueError: the data is no report, with the key that is missing or wrong.
    """
    report = StoredObject(data, "the report")
    return Report(
        kit_version=report.get("kit_version", str),
        contract_version=report.get("contract_version", str),
        target=report.get("target", str),
        adapter=report.get("adapter", str),
        capabilities=report.texts("capabilities"),
        withdrawn=report.texts("withdrawn"),
        profile=report.get("profile", str),
        seed=_seed(report),
        verdict=report.one_of("verdict", ReportVerdict),
        clauses=[_clause_from_json(item) for item in report.get("clauses", list)],
        coverage=report.get("coverage", dict),
        notes=report.texts("notes"),
        failover=report.texts("failover") if report.holds("failover", list) else [],
        environment={key: str(value) for key, value in report.get("environment", dict).items()},
        started=_instant(report.get("started", str)),
        seconds=report.number("seconds"),
    )


def _seed(report: StoredObject) -> int:
    # A seed beyond 64 bits was written in hexadecimal, since few parsers of JSON keep such numbers.
    return int(report.get("seed", str), 16) if report.holds("seed", str) else report.get("seed", int)


def _instant(text: str) -> datetime:
    started = datetime.fromisoformat(text)
    if started.tzinfo is None:
        raise ValueError(f"this is no report: {text!r} under 'started' has no offset from UTC")
    return started


def _clause_from_json(data: object) -> ClauseResult:
    entry = StoredObject(data, "a clause")
    return ClauseResult(
        id=entry.get("id", str),
        level=entry.get("level", str),
        chapter=entry.get("chapter", str),
        verdict=entry.one_of("verdict", ClauseVerdict),
        expected=entry.optional("expected"),
        seconds=entry.number("seconds"),
        message=entry.optional("message"),
        finding=_finding_from_json(entry) if entry.holds("finding", dict) else None,
    )


def _finding_from_json(entry: StoredObject) -> Finding:
    finding = StoredObject(entry.get("finding", dict), "a finding")
    return Finding(
        clauses=tuple(finding.texts("clauses")),
        message=finding.get("message", str),
        counterexample=entry.optional("counterexample") or "",
        steps=tuple(_step_from_json(item) for item in entry.get("steps", list)),
        replay=entry.optional("replay"),
        replay_note=finding.get("replay_note", str),
        traceback=finding.optional("traceback"),
        stack=finding.optional("stack"),
        interleaving=interleaving_from_json(finding.data.get("interleaving")),
        isolation_spec=finding.optional("isolation_spec") or "",
        isolation_file=finding.optional("isolation_file"),
    )


def _step_from_json(data: object) -> Step:
    step = StoredObject(data, "a step")
    return Step(
        number=step.get("number", int),
        worker=step.get("worker", str),
        operation=step.get("operation", str),
        outcome=step.get("outcome", str),
        expected=step.optional("expected"),
        mark=step.one_of("mark", Mark),
    )
