"""A counterexample as a short Python script that runs on its own against the adapter."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from inspect import iscoroutinefunction
from typing import Any
from uuid import UUID

from continuum_conformance.contract.errors import NotDurable
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.records import Lease, Run, Snapshot
from continuum_conformance.contract.terms import check_durable, shown
from continuum_conformance.harness import Subject
from continuum_conformance.harness.bridge.harness import PREFIX
from continuum_conformance.model import Kind, Operation, Outcome
from continuum_conformance.suite.violation import Step, Violation

__all__ = ["STORY_WIDTH", "call_text", "code", "outcome_text", "script", "told_text"]

NEAR = 10**6
"""A token this close to a granted one is written as that one and a distance."""
LONG = 40
STORY_WIDTH = 74
"""Columns of a story's lines; the terminal shows it by 6 to the right."""


def code(term: Any, depth: int = 0) -> str:
    """A term as Python source. What has no source is named as a call of something of that name."""
    cls = type(term)
    if depth > 12:
        return f"nest({_depth(term)})"
    if cls is float and not math.isfinite(term):
        return f'float("{term}")'
    if cls in (str, bytes) and len(term) > LONG and term == term[:1] * len(term):
        return f"{term[:1]!a} * {len(term)}" if cls is bytes else f"{code(term[:1])} * {len(term)}"
    if cls is str:
        return _quoted(term)
    if cls is int and abs(term) >= 2**53:
        return _big(term)
    if cls in (list, tuple, set, frozenset):
        inner = ", ".join(code(item, depth + 1) for item in term)
        if cls is list:
            return f"[{inner}]"
        if cls is tuple:
            return f"({inner},)" if len(term) == 1 else f"({inner})"
        if cls is frozenset:
            return f"frozenset({{{inner}}})" if term else "frozenset()"
        return f"{{{inner}}}" if term else "set()"
    if cls is dict:
        return "{" + ", ".join(f"{code(k, depth + 1)}: {code(v, depth + 1)}" for k, v in term.items()) + "}"
    if cls in (datetime, date, time, timedelta):
        return repr(term)
    if cls in (int, bool, float, bytes, Decimal, UUID) or term is None:
        return repr(term)
    return _stand_in(term)


def _depth(term: Any) -> int:
    depth = 0
    while isinstance(term, (list, dict)) and term and depth < 10**7:
        term = term[0] if isinstance(term, list) else next(iter(term.values()))
        depth += 1
    return depth


def _quoted(text: str) -> str:
    plain = text if text.isprintable() and text.isascii() else None
    return f'"{plain}"' if plain is not None and '"' not in plain and "\\" not in plain else ascii(text)


def _big(value: int) -> str:
    for base in (abs(value), abs(value) - 1, abs(value) + 1):
        if base and base & (base - 1) == 0:
            sign = "-" if value < 0 else ""
            off = abs(value) - base
            power = f"2**{base.bit_length() - 1}"
            return f"{sign}{power}" if not off else f"{sign}({power} {'+' if off > 0 else '-'} 1)"
    return f"0x{value:x}" if value >= 0 else f"-0x{-value:x}"


def _stand_in(value: Any) -> str:
    name = type(value).__name__
    known = {
        "lock": "threading.Lock()",
        "function": "(lambda: None)",
        "generator": "(n for n in range(1))",
        "builtin_function_or_method": "len",
        "complex": "1j",
        "bytearray": 'bytearray(b"x")',
        "range": "range(3)",
        "ValueError": 'ValueError("x")',
        "BufferedReader": 'open(__file__, "rb")',
        "type": "object",
    }
    return known.get(name, "object()")


class _Names:
    """The names that a script gives to instances, runs and leases."""

    def __init__(self, violation: Violation) -> None:
        self.salt = violation.salt
        self.leases: list[tuple[int, Any, Lease]] = []  # (number, key of the run, lease)
        self.fresh = False
        self.noon: datetime | None = None

    def clean(self, text: str) -> str:
        return text.replace(f"-{self.salt}", "").replace(self.salt, "") if self.salt else text

    def name(self, value: Any) -> str:
        """A run id, owner or workflow."""
        if isinstance(value, str) and self.salt and self.salt in value:
            return code(self.clean(value) or value)
        return code(value)

    def instance(self, value: Any) -> str:
        name = getattr(value, "name", None)
        if isinstance(name, str) and self.salt and self.salt in name:
            self.fresh = True
            inner = name.replace("{", "{{").replace("}", "}}").replace(self.salt, "{fresh}")
            plain = inner.isprintable() and inner.isascii() and '"' not in inner and "\\" not in inner
            return f'Instance(f"{inner}")' if plain else f"Instance({name!a})"
        return f"Instance({code(name)})"

    def token(self, key: Any, token: Any) -> str:
        if isinstance(token, bool) or not isinstance(token, int):
            return code(token)
        mine = [(number, lease) for number, of, lease in self.leases if of == key]
        for number, lease in reversed(mine):
            if lease.token == token:
                return f"lease{number}.token"
        others = [(number, lease) for number, of, lease in self.leases if of != key and lease.token == token]
        if others:
            return f"lease{others[-1][0]}.token"
        if mine and abs(token - mine[-1][1].token) <= NEAR and token != 0:
            number, lease = mine[-1]
            return f"lease{number}.token {'+' if token > lease.token else '-'} {abs(token - lease.token)}"
        if mine:
            number, lease = mine[-1]
            far = abs(token - lease.token)
            if far and far & (far - 1) == 0:
                return f"lease{number}.token {'+' if token > lease.token else '-'} {_big(far)}"
        return code(token)

    def lease(self, key: Any, lease: Any) -> str:
        for number, of, held in self.leases:
            if of == key and held == lease:
                return f"lease{number}"
        run_id, owner, token = (getattr(lease, part, None) for part in ("run_id", "owner", "token"))
        return f"Lease({self.name(run_id)}, {self.name(owner)}, {self.token(key, token)})"

    def snapshot(self, value: Any) -> str:
        if not isinstance(value, Snapshot):
            return code(value)
        steps = (
            code(dict(value.steps_by_seq))
            if isinstance(value.steps_by_seq, Mapping)
            else code(value.steps_by_seq)
        )
        taken = self.moment(value.taken_at)
        return f"Snapshot({self.name(value.run_id)}, {code(value.through_seq)}, {code(value.version_hash)}, {taken}, {steps})"

    def moment(self, value: Any) -> str:
        """When a snapshot was taken: the first time by name, others by their distance from it."""
        if not isinstance(value, datetime) or value.utcoffset() is None:
            return code(value)
        self.noon = self.noon or value
        if value.utcoffset() != self.noon.utcoffset():
            return code(value)
        away = value - self.noon
        return f"NOON {'-' if away < timedelta() else '+'} {abs(away)!r}" if away else "NOON"

    def argument(self, operation: Operation, name: str) -> str:
        value = operation.arguments[name]
        if name == "instance":
            return self.instance(value)
        if name in ("run_id", "owner", "workflow"):
            return self.name(value)
        if name == "lease_token":
            return self.token(operation.key, value)
        if name == "lease":
            return self.lease(operation.key, value)
        if name == "snapshot":
            return self.snapshot(value)
        if name == "ttl" and value == 3600:
            return "3600"
        return _source(value)

    def granted(self, step: Step) -> str | None:
        """The name of the lease that a step gave, remembered from here on."""
        if step.operation.name == "acquire" and isinstance(step.outcome.value, Lease):
            number = len(self.leases) + 1
            self.leases.append((number, step.operation.key, step.outcome.value))
            return f"lease{number}"
        return None


def _source(value: Any) -> str:
    try:
        check_durable(value, "value", max_depth=10**9)
    except NotDurable as error:
        if str(error.kind).startswith("a container"):
            return "holds_itself()"
    return code(value)


def call_text(step: Step, salt: str = "") -> str:
    """A call as a reader of a table wants it: the operation with its arguments, without the instance."""
    names = _Names(Violation((), "", salt=salt))
    operation = step.operation
    arguments = []
    for name in OPERATIONS[operation.name]:
        if name == "instance":
            continue
        value = operation.arguments[name]
        if name == "lease_token":
            arguments.append(f"token={code(value)}")
        elif name == "lease":
            arguments.append(
                f"owner={names.name(getattr(value, 'owner', None))}, token={code(getattr(value, 'token', None))}"
            )
        else:
            arguments.append(names.argument(operation, name))
    text = f"{operation.name}({', '.join(arguments)})"
    return text if len(text) <= 300 else f"{text[:280]}...{text[-16:]}"


def told_text(step: Step, salt: str = "", *, mark: str = "", most: int | None = None) -> str:
    """A line of a story: who called what, and what came of it.

    Args:
        step: the call.
        salt: of its names, to be left out.
        mark: what is said behind it.
        most: characters of the call, and of its outcome, whose end is told too (how many events there were); all of
            both when None.
    """
    call, came = call_text(step, salt), outcome_text(step.outcome, salt)
    if most is not None:
        call = f"{call[:most]}{'...' if len(call) > most else ''}"
        came = came if len(came) <= most + 20 else f"{came[:most]}...{came[-15:]}"
    return f"  {step.operation.worker}  {call} -> {came}{mark}"


def outcome_text(outcome: Outcome, salt: str = "") -> str:
    """What came of a call, in a line."""
    names = _Names(Violation((), "", salt=salt))
    if outcome.kind is Kind.VALUE:
        return names.clean(_answer(outcome.value))
    if outcome.kind is Kind.GARBAGE:
        return f"garbage: {outcome.message}"
    if outcome.kind is Kind.HANG:
        return f"no answer ({outcome.message})"
    where = f" at {outcome.path}" if outcome.path else ""
    return names.clean(f"{outcome.error}{where}")


def _answer(value: Any) -> str:
    if isinstance(value, Lease):
        return f"Lease(owner={value.owner!r}, token={value.token})"
    if isinstance(value, Run):
        parts = [str(value.state), f"input={shown(value.input)}"]
        parts += [
            f"{n}={shown(getattr(value, n))}" for n in ("result", "error") if getattr(value, n) is not None
        ]
        return f"Run({', '.join(parts)})"
    if (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and (value[0] is None or isinstance(value[0], Snapshot))
    ):
        snapshot, events = value
        first = (
            "None"
            if snapshot is None
            else f"Snapshot(through_seq={snapshot.through_seq}, steps={shown(dict(snapshot.steps_by_seq))})"
        )
        return f"({first}, {_listed(events)})"
    if isinstance(value, list):
        return _listed(value)
    return shown(value, 120)


def _listed(events: Any) -> str:
    if not isinstance(events, list):
        return shown(events)
    head = ", ".join(shown(event, 80) for event in events[:4])
    return f"[{head}]" if len(events) <= 4 else f"[{head}, ... {len(events)} events]"


def _folded(line: str) -> str:
    """A line of a story in lines that fit the terminal."""
    if len(line) <= STORY_WIDTH:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    told = textwrap.wrap(
        line.strip(),
        STORY_WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}    " if indent else "",
        break_on_hyphens=False,
    )
    return "\n".join(told)


def script(violation: Violation, subject: Subject) -> str:
    """The whole script: what it shows, imports, harness, and the calls up to the one that shows the violation."""
    if violation.story:
        return "\n".join(_folded(line) for line in violation.story.split("\n"))
    names = _Names(violation)
    told = names.clean(" ".join(str(violation).split()))
    head = [f"# {told if len(told) <= 300 else told[:297] + '...'}"] if violation.message else []
    workers = dict.fromkeys(step.operation.worker for step in violation.steps)
    instances: dict[str, str] = {}
    is_async = subject.is_async
    body: list[str] = []
    for step in violation.steps:
        text = names.instance(step.operation.arguments["instance"])
        instances.setdefault(text, "shop" if not instances else f"shop{len(instances) + 1}")
    for step in violation.steps:
        body.extend(_lines(step, names, instances, is_async))
    used = "\n".join(body) + "\n".join(instances)
    opening = _opening(subject, list(workers), is_async)
    opening += [f"{name} = {text}" for text, name in instances.items()]
    everything = [*opening, "", *body]
    if is_async:
        everything = [
            "async def main():",
            *(f"    {line}" if line else "" for line in everything),
            "",
            "asyncio.run(main())",
        ]
    imports = _imports(subject, used + "\n".join(opening), names, is_async)
    return "\n".join([*head, *imports, "", *everything]) + "\n"


def _lines(step: Step, names: _Names, instances: Mapping[str, str], is_async: bool) -> list[str]:
    operation = step.operation
    lines: list[str] = []
    arguments = []
    for name in OPERATIONS[operation.name]:
        text = names.argument(operation, name)
        if name == "instance":
            text = instances[text]
        elif step.mutates == "arguments" and name in ("event", "input", "result", "error", "snapshot"):
            lines.append(f"{name} = {text}")
            text = name
        arguments.append(text)
    handle = {"P": "child"}.get(operation.worker, operation.worker.lower())
    awaited = "await " if is_async else ""
    lease = names.granted(step)
    result = f"{lease} = " if lease else "answer = " if step.mutates == "answer" else ""
    call = f"{handle}.{operation.name}({', '.join(arguments)})"
    if is_async and step.mutates == "arguments":  # as soon as the call has taken its first step (TRM-4)
        changed = lines[0].partition(" = ")[0]
        lines.append(f"call = asyncio.ensure_future({call})")
        lines.append("await asyncio.sleep(0)")
        lines.append(f"forge({changed})  # the caller changes its own object")
        awaited, call = "await ", "call"
    due = _due(step)
    if step.outcome.kind is Kind.VALUE:
        reading = operation.name in ("load", "get_run", "load_with_snapshot")
        if step.due and reading:
            lines.append(f"print({awaited}{call})")
        else:
            lines.append(f"{result}{awaited}{call}")
    elif step.due and step.outcome.kind is not Kind.ERROR:
        lines.append(f"print({awaited}{call})" if step.outcome.kind is Kind.GARBAGE else f"{awaited}{call}")
    else:
        lines += [
            "try:",
            f"    {awaited}{call}",
            "except Exception as error:",
            f"    print(type(error).__name__, error)  # {outcome_text(step.outcome, names.salt)}",
        ]
    if due:
        lines.append(due)
    if step.mutates and not (is_async and step.mutates == "arguments"):
        changed = "answer" if step.mutates == "answer" else lines[0].partition(" = ")[0]
        lines.append(f"forge({changed})  # the caller changes its own object")
    return lines


def _due(step: Step) -> str:
    if not step.due:
        return ""
    return f"# due: {step.due}; came: {outcome_text(step.outcome)[:160]}"


def _opening(subject: Subject, workers: list[str], is_async: bool) -> list[str]:
    made = f"{type(subject.harness).__name__}()" if subject.target is None else "harness_of(TARGET)"
    lines = [f"harness = {made}"]
    if "postgres" in subject.needs:
        lines.append('harness.dsn = os.environ["CONTINUUM_DSN"]')
    if "directory" in subject.needs:
        lines.append("harness.directory = tempfile.mkdtemp()")
    awaited = "await " if is_async else ""
    opens = awaited if is_async and _coroutine(subject.harness) else ""
    for worker in workers:
        name = {"P": "child"}.get(worker, worker.lower())
        note = "  # in a new process, once the others are closed" if worker == "P" else ""
        lines.append(f"{name} = {opens}harness.open(){note}")
    return lines


def _coroutine(harness: Any) -> bool:
    return iscoroutinefunction(harness.open)


def _imports(subject: Subject, used: str, names: _Names, is_async: bool) -> list[str]:
    wanted = {
        "import asyncio": is_async,
        "import datetime": "datetime." in used or "NOON" in used,
        "import os": "os.environ" in used,
        "import tempfile": "tempfile." in used,
        "import threading": "threading." in used,
        "from decimal import Decimal": "Decimal(" in used,
        "from uuid import UUID, uuid4": "UUID(" in used,
        "from uuid import uuid4": names.fresh and "UUID(" not in used,
    }
    lines = [line for line, needed in wanted.items() if needed]
    records = [name for name in ("Instance", "Lease", "Snapshot") if f"{name}(" in used]
    lines.append(f"\nfrom continuum_conformance.contract import {', '.join(records)}")
    if "forge(" in used:
        lines.append("from continuum_conformance.suite.violation import forge")
    if subject.target is not None:
        room = "harness.loading" if subject.target.startswith(PREFIX) else "contract.targets"
        lines.append(f"from continuum_conformance.{room} import harness_of")
    else:
        cls = type(subject.harness)
        lines.append(f"from {cls.__module__} import {cls.__qualname__}")
    lines.append("")
    if subject.target is not None:
        lines.append(f"TARGET = {_quoted(subject.target)}")
    if names.fresh:
        lines.append("fresh = uuid4().hex[:6]")
    if "NOON" in used:
        lines.append(f"NOON = {names.noon!r}")
    if "nest(" in used:
        lines += [
            "",
            "def nest(depth):",
            "    term = 0",
            "    for _ in range(depth):",
            "        term = [term]",
            "    return term",
        ]
    if "holds_itself(" in used:
        lines += ["", "def holds_itself():", "    held = []", "    held.append(held)", "    return held"]
    return lines
