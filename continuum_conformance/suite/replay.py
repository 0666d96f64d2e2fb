"""Counterexamples as programs: replayed at will, made smaller, kept in files.

A program is the list of calls of a counterexample with its names and tokens made symbolic: a name holds a salt
that every replay replaces by a fresh one, and a token says which acquire gave it. So it runs on any store.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from continuum_conformance import __version__
from continuum_conformance.contract.clauses import CLAUSES, CONTRACT_VERSION
from continuum_conformance.contract.errors import NotDurable
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.records import Instance, Lease, Snapshot
from continuum_conformance.contract.terms import check_durable
from continuum_conformance.model import Aspect, Kind
from continuum_conformance.model.tagged import Opaque, decode, encode
from continuum_conformance.suite.attribution import by_necessity
from continuum_conformance.suite.lab import SECOND_PROCESS, Lab, Session
from continuum_conformance.suite.races.again import show_again
from continuum_conformance.suite.script import call_text, outcome_text
from continuum_conformance.suite.testing import PROFILES, registered, run_test
from continuum_conformance.suite.violation import Step, Violation

__all__ = ["Replay", "ReplayError", "load", "minimise", "perform", "program_of", "run", "save"]

FORMAT = 1
MAX_OPERATIONS = 3_000
"""Operations that are spent on making one counterexample smaller."""


class ReplayError(Exception):
    """A replay file that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class TokenOf:
    """The token that the acquire at a place of the program gave, plus a distance."""

    acquire: int
    plus: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a program; its arguments may hold `TokenOf`."""

    place: int
    name: str
    arguments: Mapping[str, Any]
    worker: str
    setup: bool
    mutates: str


def program_of(violation: Violation) -> list[Call]:
    """The calls of a counterexample with their tokens made symbolic."""
    granted: list[tuple[int, tuple[Any, Any], Lease]] = []
    calls = []
    for place, step in enumerate(violation.steps):
        operation = step.operation
        arguments = dict(operation.arguments)
        if "lease_token" in arguments:
            arguments["lease_token"] = _symbolic(arguments["lease_token"], operation.key, granted)
        lease = arguments.get("lease")
        if isinstance(lease, Lease):
            arguments["lease"] = replace(lease, token=_symbolic(lease.token, operation.key, granted))
        calls.append(Call(place, operation.name, arguments, operation.worker, step.setup, step.mutates))
        if operation.name == "acquire" and isinstance(step.outcome.value, Lease):
            granted.append((place, operation.key, step.outcome.value))
    return calls


def _symbolic(token: Any, key: Any, granted: Sequence[tuple[int, Any, Lease]]) -> Any:
    if isinstance(token, bool) or not isinstance(token, int):
        return token
    mine = [(place, lease.token) for place, of, lease in granted if of == key]
    exact = [place for place, known in mine if known == token]
    if exact:
        return TokenOf(exact[-1])
    others = [place for place, of, lease in granted if of != key and lease.token == token]
    if others:
        return TokenOf(others[-1])
    return TokenOf(mine[-1][0], token - mine[-1][1]) if mine and token != 0 else token


def perform(
    session: Session, program: Sequence[Call], salt: str, clauses: tuple[str, ...] = ()
) -> Violation | None:
    """Run a program with fresh names, and give the violation that it shows, if it does.

    Raises `HarnessError` when a handle cannot be opened.
    """
    lab = Lab(session, clauses)
    tokens: dict[int, int] = {}
    try:
        for call in program:
            arguments = {
                name: _concrete(value, tokens, salt, lab.salt) for name, value in call.arguments.items()
            }
            if call.setup:
                with lab.arranging():
                    outcome = lab.do(call.name, on=call.worker, mutates=call.mutates, **arguments)
            else:
                outcome = lab.do(call.name, on=call.worker, mutates=call.mutates, **arguments)
            if call.name == "acquire" and isinstance(outcome.value, Lease):
                tokens[call.place] = outcome.value.token
    except Violation as violation:
        return violation
    return None


def _concrete(value: Any, tokens: Mapping[int, int], old: str, new: str) -> Any:
    def fresh(text: Any) -> Any:
        return text.replace(old, new) if isinstance(text, str) and old else text

    if isinstance(value, TokenOf):
        return tokens.get(value.acquire, 0) + value.plus
    if isinstance(value, Instance):
        return Instance(fresh(value.name))
    if isinstance(value, Lease):
        run_id = _uuid_or(value.run_id, fresh, old, new)
        return Lease(run_id, fresh(value.owner), _concrete(value.token, tokens, old, new))
    if isinstance(value, Snapshot):
        return replace(value, run_id=_uuid_or(value.run_id, fresh, old, new))
    return _uuid_or(value, fresh, old, new)


def _uuid_or(value: Any, fresh: Callable[[Any], Any], old: str, new: str) -> Any:
    if isinstance(value, str) and len(value) == 36 and old and value.startswith(_uuid_head(old)):
        return _uuid_head(new) + value[len(_uuid_head(old)) :]
    return fresh(value)


def _uuid_head(salt: str) -> str:
    """The first two groups of the canonical UUIDs that a lab with this salt makes."""
    text = f"{int(salt, 16):012x}"
    return f"{text[:8]}-{text[8:]}"


def _depends(program: Sequence[Call]) -> dict[int, set[int]]:
    """Which acquires each call needs."""
    needed: dict[int, set[int]] = {}
    for call in program:
        values = [
            *call.arguments.values(),
            *(v.token for v in call.arguments.values() if isinstance(v, Lease)),
        ]
        needed[call.place] = {value.acquire for value in values if isinstance(value, TokenOf)}
    return needed


def minimise(session: Session, violation: Violation, clauses: tuple[str, ...]) -> tuple[Violation, bool]:
    """The violation with as few calls as still show it, and whether it comes back every time.

    Three replays decide: a counterexample that does not come back is kept as it was seen. It must be the same
    finding, the same thing wrong with the same call. Its clauses may change: which write did the damage is a
    guess as long as some can be left out.
    """
    program = program_of(violation)

    last = violation.steps[-1].outcome
    fresh = last.kind is Kind.RAW or last.error == "JournalUnavailable"

    def shows(candidate: Sequence[Call]) -> Violation | None:
        if fresh:  # what an earlier replay left behind, such as a lost connection, must not help this one
            session.renew_handles()
        found = perform(session, candidate, violation.salt, clauses)
        return found if found is not None and _same_finding(found, violation) else None

    best = shows(program)
    if best is None or shows(program) is None:
        return violation, False
    spent = 2 * len(program)
    size = max(1, len(program) // 2)
    while size:
        end = len(program) - 1  # the last call is the one that shows it
        length = len(program)
        while end > 0 and spent < MAX_OPERATIONS:
            start = max(0, end - size)
            candidate = program[:start] + program[end:]
            places = {call.place for call in candidate}
            if all(needed <= places for needed in _depends(candidate).values()):
                spent += len(candidate)
                found = shows(candidate)
                if found is not None:
                    best, program = found, candidate
            end = start
        if size > 1 or len(program) == length:  # single calls are tried until none can be left out
            size //= 2
    for simpler in (_without_leases, _without_changes):
        candidate = simpler(program)
        found = shows(candidate) if candidate != program else None
        if found is not None:
            best, program = found, candidate
    if len({call.worker for call in program} - {SECOND_PROCESS}) > 1:
        single = [replace(call, worker="A") if call.worker != SECOND_PROCESS else call for call in program]
        found = shows(single)
        if found is not None:
            best, program = found, single
        elif "APP-10" not in best.clauses:
            # Through one handle nothing is wrong: what one handle did, the other does not see.
            best.clauses = ("APP-10", *(clause for clause in best.clauses if clause in clauses))
    if any(call.worker == SECOND_PROCESS for call in program) and "DUR-1" not in best.clauses:
        at_home = [replace(call, worker="A") for call in program]
        if shows(at_home) is None:  # in one process nothing is wrong
            best.clauses = ("DUR-1",)
    elif spent < MAX_OPERATIONS:
        best.clauses = by_necessity(best.steps, best.aspect) or best.clauses
    again = shows(program)
    best.test = violation.test
    return (best, True) if again is not None else (violation, False)


def _without_leases(program: Sequence[Call]) -> list[Call]:
    """The program with its writes under no lease, for faults that have nothing to do with leases."""
    return [
        replace(call, arguments={**call.arguments, "lease_token": None})
        if isinstance(call.arguments.get("lease_token"), TokenOf)
        else call
        for call in program
        if call.name not in ("acquire", "renew", "release")
    ]


def _without_changes(program: Sequence[Call]) -> list[Call]:
    """The program with no caller that changes its own objects."""
    return [replace(call, mutates="") for call in program]


def _known_run(violation: Violation) -> bool:
    """Whether the last call is about a run that was started: an unknown one is another situation."""
    *before, last = violation.steps
    key = last.operation.key
    return any(s.operation.name == "start_run" and s.outcome.ok and s.operation.key == key for s in before)


def _same_finding(found: Violation, violation: Violation) -> bool:
    if found.arranging != violation.arranging or found.aspect is not violation.aspect:
        return False
    last, original = found.steps[-1], violation.steps[-1]
    return (
        last.operation.name == original.operation.name
        and _known_run(found) == _known_run(violation)
        and (last.outcome.kind, last.outcome.error) == (original.outcome.kind, original.outcome.error)
        and (violation.aspect is not Aspect.ACCEPTED or last.due == original.due)
    )


# -- files --


@dataclass(frozen=True)
class Replay:
    """A counterexample that was read from a file."""

    target: str
    clauses: tuple[str, ...]
    own: tuple[str, ...]
    message: str
    salt: str
    test: str
    profile: str
    seed: int
    program: list[Call]
    """Empty when the calls cannot be carried in a file, or it takes the test to judge them; then the test itself is
    run again."""
    race: Mapping[str, Any] | None = None
    """Of a race, the scenario, the schedule and the level."""


def _stand_in(kind: str) -> Any:
    made: dict[str, Callable[[], Any]] = {
        "lock": threading.Lock,
        "function": lambda: _stand_in,
        "builtin_function_or_method": lambda: len,
        "generator": lambda: (n for n in range(1)),
        "complex": lambda: 1j,
        "bytearray": lambda: bytearray(b"x"),
        "range": lambda: range(3),
        "type": lambda: object,
        "list that holds itself": _held,
    }
    return made.get(kind, object)()


def _held() -> Any:
    held: list[Any] = []
    held.append(held)
    return held


def _encode(value: Any) -> Any:
    if isinstance(value, TokenOf):
        return {"$": "token-of", "v": [value.acquire, value.plus]}
    token = cast(Any, value.token) if isinstance(value, Lease) else None
    if isinstance(token, TokenOf):
        return {"$": "lease-of", "v": [encode(value.run_id), encode(value.owner), token.acquire, token.plus]}
    try:
        check_durable(value, "value", max_depth=10**9)
    except NotDurable as error:
        if str(error.kind).startswith("a container"):
            return {"$": "stand-in", "v": "list that holds itself"}
    return _encode_any(value)


def _encode_any(value: Any) -> Any:
    """As ``tagged.encode``, with a stand-in for what no file can carry."""
    try:
        return encode(value)
    except Opaque:
        pass
    if type(value) is list:
        return {"$": "parts", "v": [_encode_any(item) for item in value]}
    if type(value) is dict:
        return {"$": "pairs", "v": [[_encode_any(key), _encode_any(item)] for key, item in value.items()]}
    if isinstance(value, Snapshot) and isinstance(value.steps_by_seq, Mapping):
        parts = [
            encode(value.run_id),
            encode(value.through_seq),
            _encode_any(value.version_hash),
            encode(value.taken_at),
        ]
        return {"$": "snapshot-of", "v": [*parts, _encode_any(dict(value.steps_by_seq))]}
    return {"$": "stand-in", "v": type(value).__name__}


def _decode(data: Any) -> Any:
    if isinstance(data, dict):
        tag, value = data.get("$"), data.get("v")
        if tag == "token-of" and value is not None:
            return TokenOf(*value)
        if tag == "lease-of" and value is not None:
            return Lease(decode(value[0]), decode(value[1]), TokenOf(value[2], value[3]))  # type: ignore[arg-type]
        if tag == "stand-in":
            return _stand_in(str(value))
        if tag == "parts" and value is not None:
            return [_decode(item) for item in value]
        if tag == "pairs" and value is not None:
            return {_decode(key): _decode(item) for key, item in value}
        if tag == "snapshot-of" and value is not None:
            return Snapshot(*(_decode(item) for item in value))
    return decode(data)


def save(
    violation: Violation,
    session: Session,
    folder: Path,
    name: str,
    *,
    profile: str,
    seed: int,
    own: tuple[str, ...] = (),
) -> Path:
    """Write a counterexample to ``folder/name.json``. Raises ``OSError`` when the file cannot be written."""
    calls: list[dict[str, Any]] = []
    try:
        for call, step in zip(program_of(violation), violation.steps, strict=True):
            calls.append(_call_data(call, step, violation.salt))
    except RecursionError:
        calls = []  # nested deeper than JSON goes: the test itself is run again
    data = {
        "format": FORMAT,
        "kit_version": __version__,
        "contract_version": CONTRACT_VERSION,
        "target": session.subject.target or session.subject.name,
        "clauses": list(violation.clauses),
        "own": list(own),
        "message": violation.message,
        "test": violation.test,
        "profile": profile,
        "seed": seed,
        "salt": violation.salt,
        "judged_by": "the test" if violation.aspect is None else "the model",
        "calls": calls,
    }
    if violation.race is not None:
        data |= {"race": dict(violation.race), "story": violation.story.splitlines()}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    file.write_text(json.dumps(data, indent=1, ensure_ascii=True) + "\n", "utf-8")
    return file


def _call_data(call: Call, step: Step, salt: str) -> dict[str, Any]:
    data: dict[str, Any] = {
        "place": call.place,
        "worker": call.worker,
        "op": call.name,
        "args": {name: _encode(value) for name, value in call.arguments.items()},
        "text": call_text(step, salt),
        "came": outcome_text(step.outcome, salt),
    }
    if step.due:
        data["due"] = step.due
    if call.setup:
        data["setup"] = True
    if call.mutates:
        data["mutates"] = call.mutates
    return data


def load(file: Path) -> Replay:
    """Read a counterexample. Raises `ReplayError` with what is wrong with the file."""
    try:
        data = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ReplayError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ReplayError(f"{file} is no replay file: {error}") from error
    if not isinstance(data, dict) or "calls" not in data:
        raise ReplayError(f"{file} is no replay file: it has no calls")
    if data.get("format") != FORMAT:
        raise ReplayError(
            f"{file} has format {data.get('format')!r}; this kit ({__version__}) reads format {FORMAT}"
        )
    try:
        program = [
            Call(
                call["place"],
                _known(call["op"]),
                {name: _decode(value) for name, value in call["args"].items()},
                call["worker"],
                call.get("setup", False),
                call.get("mutates", ""),
            )
            for call in data["calls"]
        ]
        return Replay(
            data["target"],
            tuple(data["clauses"]),
            tuple(data.get("own", ())),
            data["message"],
            data["salt"],
            data["test"],
            data["profile"],
            data["seed"],
            program if data.get("judged_by") != "the test" else [],
            data.get("race"),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ReplayError(f"{file} is damaged: {type(error).__name__}: {error}") from error


def _known(operation: Any) -> str:
    if operation not in OPERATIONS:
        raise ValueError(f"unknown operation {operation!r}")
    return str(operation)


def run(session: Session, replay: Replay) -> Violation | None:
    """Show a counterexample again: its calls, or where they do not suffice the test that found it.

    Raises `HarnessError` when a handle cannot be opened.
    """
    own = tuple(clause for clause in replay.own if clause in CLAUSES)
    session.renew_handles()
    if replay.race is not None:
        found = show_again(session, replay.race)
        if found is not None:
            found.test = replay.test
            return found
    elif replay.program:
        found = perform(session, replay.program, replay.salt, own)
        if found is not None and len(found.steps) == len(replay.program):  # at its last call, as before
            found.test = replay.test
            found.clauses = replay.clauses  # told when it was made small
            return found
    for test in registered():
        if test.name == replay.test and replay.profile in PROFILES:
            return run_test(test, session, PROFILES[replay.profile], replay.seed).violation
    return None
