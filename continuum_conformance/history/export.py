"""Histories as files: JSON that reads back, and the EDN of Jepsen's histories for its tools.

In EDN an operation is two maps, the second of which completes the first::

    {:index 0, :type :invoke, :process 0, :time 1, :f :read, :value nil}
    {:index 1, :type :ok, :process 0, :time 4, :f :read, :value 3}

``:ok`` happened, ``:fail`` did not, ``:info`` nobody knows. As in Jepsen, a process does one thing at a time and
ends with an ``:info``: its worker goes on as another process. A value that answers nothing repeats the call's.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.history.recording import History, Recorded
from continuum_conformance.history.verdict import Verdict
from continuum_conformance.model import Operation
from continuum_conformance.model.tagged import (
    Opaque,
    decode_operation,
    decode_outcome,
    encode,
    encode_operation,
    encode_outcome,
)

__all__ = ["from_json", "recorded_data", "to_edn", "to_json", "verdict_data"]

FORMAT = 1


# -- JSON --


def to_json(history: Iterable[Recorded]) -> str:
    """A history as JSON text, an operation to a line."""
    lines = (json.dumps(recorded_data(entry), separators=(",", ":")) for entry in history)
    return f'{{"format": {FORMAT}, "history": [\n' + ",\n".join(lines) + "\n]}\n"


def from_json(text: str) -> History:
    """The history that `to_json` wrote. Raises ``ValueError`` for anything else."""
    data = json.loads(text)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"this is no history of format {FORMAT}")
    try:
        return History(tuple(_recorded(entry) for entry in data["history"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"malformed history: {error!r}") from error


def recorded_data(entry: Recorded) -> dict[str, Any]:
    """An operation of a history as JSON data. What JSON cannot carry is described under the tag ``opaque``."""
    try:
        operation = encode_operation(entry.operation)
    except Opaque:
        arguments = {name: _encode(value) for name, value in entry.operation.arguments.items()}
        operation = {"op": entry.operation.name, "worker": entry.operation.worker, "args": arguments}
    try:
        outcome = encode_outcome(entry.outcome)
    except Opaque:
        outcome = encode_outcome(replace(entry.outcome, value=None))
        outcome["value"] = _encode(entry.outcome.value)
    data = {
        "operation": operation,
        "outcome": outcome,
        "invoked": entry.invoked,
        "returned": entry.returned,
        "worker": entry.worker,
    }
    return {**data, "gave_up": True} if entry.gave_up else data


def _encode(value: Any) -> Any:
    try:
        return encode(value)
    except Opaque as opaque:
        return {"$": "opaque", "v": opaque.described}


def _recorded(data: Mapping[str, Any]) -> Recorded:
    operation, outcome = decode_operation(data["operation"]), decode_outcome(data["outcome"])
    if operation.name == "load_with_snapshot" and outcome.ok and isinstance(outcome.value, list):
        outcome = replace(outcome, value=tuple(outcome.value))
    return Recorded(
        operation,
        outcome,
        data["invoked"],
        data["returned"],
        data["worker"],
        gave_up=bool(data.get("gave_up", False)),
    )


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON data. Operations of the explanation are numbered within its ``prefix``."""
    data: dict[str, Any] = {
        "verdict": verdict.status.value,
        "operations": verdict.operations,
        "partitions": verdict.partitions,
        "visited": verdict.visited,
    }
    if verdict.unfinished:
        data["unfinished"] = [_encode(key) for key in verdict.unfinished]
    why = verdict.explanation
    if why is not None:
        numbers = {id(entry): number for number, entry in enumerate(why.prefix)}
        data["explanation"] = {
            "key": _encode(why.key),
            "headline": why.headline,
            "text": why.text,
            "clauses": list(why.clauses),
            "prefix": [recorded_data(entry) for entry in why.prefix],
            "decisive": numbers[id(why.decisive)],
            "operations": [numbers[id(entry)] for entry in why.operations],
            "needed": [numbers[id(entry)] for entry in why.needed],
            "attempts": [
                {
                    "order": [numbers[id(entry)] for entry in attempt.order],
                    "failed": numbers[id(attempt.failed)],
                    "reason": attempt.reason,
                    "expected": attempt.expected,
                    "clauses": list(attempt.clauses),
                }
                for attempt in why.attempts
            ],
            "more": why.more,
            "earlier": why.earlier,
        }
    return data


# -- EDN --


def to_edn(history: Iterable[Recorded]) -> str:
    """A history in Jepsen's EDN, a map to a line, in the order of time."""
    entries = list(history)
    moments = [(entry.invoked, 0, number) for number, entry in enumerate(entries)]
    moments += [
        (entry.returned, 1, number) for number, entry in enumerate(entries) if entry.returned is not None
    ]
    processes = _Processes()
    at: dict[int, int] = {}
    lines = []
    for index, (stamp, end, number) in enumerate(sorted(moments)):
        entry = entries[number]
        if not end:
            at[number] = processes.begin(entry.worker)
            kind, value, extra = "invoke", _called(entry.operation), ""
        else:
            kind, value, extra = _completion(entry)
            processes.end(entry.worker, at[number], crashed=kind == "info")
        lines.append(
            f"{{:index {index}, :type :{kind}, :process {at[number]}, :time {stamp}, "
            f":f {_keyword(entry.operation.name)}, :value {edn(value)}{extra}}}"
        )
    return "\n".join(lines) + "\n" if lines else ""


def _called(operation: Operation) -> Any:
    """What an operation is called with: a map for a journal's, else nothing, one value or a vector, as in Jepsen."""
    if operation.name in OPERATIONS:
        return {_Keyword(name): value for name, value in operation.arguments.items()}
    values = list(operation.arguments.values())
    return values if len(values) > 1 else values[0] if values else None


def _completion(entry: Recorded) -> tuple[str, Any, str]:
    outcome = entry.outcome
    called = _called(entry.operation)
    if outcome.ok and not outcome.unknown:
        answers = outcome.value is not None or entry.operation.name in ("get_run", "read")
        return "ok", outcome.value if answers else called, ""
    error = [_Keyword(outcome.error or outcome.kind.value), outcome.message]
    return "info" if entry.unknown else "fail", called, f", :error {edn(error)}"


class _Processes:
    """Which process a worker is: it changes with every crash, and for what a worker does beside itself."""

    def __init__(self) -> None:
        self._free: dict[str, list[int]] = {}
        self._next = 0

    def begin(self, worker: str) -> int:
        free = self._free.setdefault(worker, [])
        if free:
            return free.pop()
        self._next += 1
        return self._next - 1

    def end(self, worker: str, process: int, *, crashed: bool) -> None:
        if not crashed:
            self._free[worker].append(process)


class _Keyword(str):
    """A name that EDN writes as a keyword."""

    __slots__ = ()


def _keyword(name: str) -> str:
    return ":" + "".join(
        char if char.isascii() and (char.isalnum() or char in "-_.*+!?") else "-" for char in name
    )


def edn(term: Any) -> str:
    """A term in EDN. Records and rich terms are tagged elements: ``#continuum/Lease ["r" "a" 2]``."""
    cls = type(term)
    if term is None:
        return "nil"
    if cls is bool:
        return "true" if term else "false"
    if cls is int:
        return str(term) if -(2**63) <= term < 2**63 else f"{term}N"
    if cls is float:
        return _edn_float(term)
    if cls is _Keyword:
        return _keyword(term)
    if cls is str:
        return _edn_text(term)
    if cls is bytes:
        return f'#continuum/bytes "{base64.b64encode(term).decode()}"'
    if cls is list:
        return f"[{' '.join(map(edn, term))}]"
    if cls is tuple:
        return f"[{' '.join(map(edn, term))}]"
    if cls in (set, frozenset):
        return f"#{{{' '.join(sorted(map(edn, term)))}}}"
    if isinstance(term, Mapping):
        return f"{{{', '.join(f'{edn(key)} {edn(value)}' for key, value in term.items())}}}"
    return _edn_tagged(term)


def _edn_float(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "##NaN" if math.isnan(value) else "##Inf" if value > 0 else "##-Inf"


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _edn_text(text: str) -> str:
    parts = []
    for char in text:
        known = _ESCAPES.get(char)
        if known is not None:
            parts.append(known)
        elif char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" or char in "\u2028\u2029":
            parts.append(f"\\u{ord(char):04x}")
        else:
            parts.append(char)
    return f'"{"".join(parts)}"'


def _edn_tagged(term: Any) -> str:
    data = _encode(term)
    return f"#continuum/{data['$']} {edn(data['v'])}"
