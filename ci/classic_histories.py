"""Registers and key-value stores, the classics of the literature: models, histories made by chance, and log files.

The files are in the two forms of the test data of Porcupine, a linearizability checker in Go, so that both can judge
the same histories. One event a line:

    INFO  jepsen.util - 3	:invoke	:cas	[1 2]                                     a register, as Jepsen logged etcd's
    {:process 3, :type :invoke, :f :append, :key "0", :value "x 3 0 y"}        a store of texts, as in MIT's 6.824

A register's operations end with `:ok`, with `:fail` (a compare-and-set that found another value; a read that timed
out, which is left out) or with `:info` (nobody knows). In a store, what never ends is of unknown outcome.
"""

import heapq
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from continuum_conformance.history import Model, Recorded, impossible
from continuum_conformance.model import Kind, Operation, Outcome

LOST = Outcome(Kind.ERROR, error="timed-out", unknown=True)

# -- the models --


def _register_step(state: int | None, operation: Operation, outcome: Outcome) -> Any:
    arguments = operation.arguments
    if operation.name == "write":
        return arguments["value"]
    if operation.name == "read":
        return state if outcome.value == _seen(state) else impossible(f"it holds {state}")
    if outcome.value is not (state == arguments["old"]):
        return impossible(f"it holds {state}")
    return arguments["new"] if outcome.value else state


def _register_unknown(state: int, operation: Operation) -> Iterator[int]:
    if operation.name == "write":
        yield operation.arguments["value"]
    elif state == operation.arguments["old"]:
        yield operation.arguments["new"]


EMPTY = -1
"""The state of a register that nobody wrote to; it reads as None."""


def _seen(state: int | None) -> int | None:
    return None if state == EMPTY else state


REGISTER: Model[int] = Model(
    init=lambda _key: EMPTY,
    step=_register_step,
    step_unknown=_register_unknown,
    passive=lambda operation, outcome: operation.name == "read" or outcome.value is False,
)


def _store_step(state: str, operation: Operation, outcome: Outcome) -> Any:
    if operation.name == "get":
        return state if outcome.value == state else impossible(f"it holds {state!r}")
    value = operation.arguments["value"]
    return state + value if operation.name == "append" else value


STORE: Model[str] = Model(
    init=lambda _key: "",
    step=_store_step,
    partition=lambda operation: operation.arguments["key"],
    passive=lambda operation, _outcome: operation.name == "get",
)

# -- histories made by chance --


@dataclass(frozen=True)
class Clients:
    """How the clients of a register or store behave.

    Attributes:
        clients: how many there are at once.
        operations: how many operations they make in all.
        slow: which part of the operations takes long.
        long: how much longer than the others they take.
        late: after which part of the time between call and return an operation takes effect at the earliest.
        lost: of which part of the writes nobody learns the outcome; half of them take effect. Who made it is
            replaced by a new client.
        stale: which part of the reads sees the value before the present one.
    """

    clients: int
    operations: int
    slow: float = 0.1
    long: float = 30.0
    late: float = 0.0
    lost: float = 0.0
    stale: float = 0.0


_Act = Callable[[], Any]


def register_history(clients: Clients, seed: int, *, values: int = 5) -> list[Recorded]:
    """Reads, writes and compare-and-sets of one register, a third each."""
    source = random.Random(seed)
    now, before = EMPTY, EMPTY

    def change(value: int) -> None:
        nonlocal now, before
        now, before = value, now

    def read() -> int | None:
        return _seen(before if source.random() < clients.stale else now)

    def swap(old: int, new: int) -> bool:
        found = now == old
        if found:
            change(new)
        return found

    def next_call(_client: int) -> tuple[str, dict[str, Any], _Act]:
        kind, one, two = source.randrange(3), source.randrange(values), source.randrange(values)
        if kind == 0:
            return "read", {}, read
        if kind == 1:
            return "write", {"value": one}, lambda: change(one)
        return "cas", {"old": one, "new": two}, lambda: swap(one, two)

    return list(_recorded(clients, source, next_call))


def store_history(clients: Clients, seed: int, *, keys: int = 10) -> list[Recorded]:
    """Appends of unlike texts, gets, and a few puts: the mix of the key-value tests of MIT's course 6.824."""
    source = random.Random(seed)
    now = {str(key): "" for key in range(keys)}
    before = dict(now)
    made = [count() for _ in range(clients.clients)]

    def change(key: str, text: str) -> None:
        now[key], before[key] = text, now[key]

    def get(key: str) -> str:
        return (before if source.random() < clients.stale else now)[key]

    def next_call(client: int) -> tuple[str, dict[str, Any], _Act]:
        key, kind = str(source.randrange(keys)), source.random()
        if kind > 0.55:
            return "get", {"key": key}, lambda: get(key)
        text = f"x {client} {next(made[client])} y"
        arguments = {"key": key, "value": text}
        if kind > 0.5:
            return "put", arguments, lambda: change(key, text)
        return "append", arguments, lambda: change(key, now[key] + text)

    return list(_recorded(clients, source, next_call))


@dataclass
class _Call:
    """A client's call while it runs."""

    client: int
    operation: Operation
    act: _Act
    outcome: Outcome
    invoked: int = 0


def _recorded(
    clients: Clients,
    source: random.Random,
    next_call: Callable[[int], tuple[str, dict[str, Any], _Act]],
) -> Iterator[Recorded]:
    agenda: list[tuple[float, int, str, _Call]] = []
    ticket, stamp = count(), count(1)
    names = count(clients.clients)
    name = list(range(clients.clients))
    left = clients.operations

    def begin(client: int, now: float) -> None:
        nonlocal left
        if not left:
            return
        left -= 1
        operation, arguments, act = next_call(client)
        changes = operation not in ("read", "get")
        lost = changes and source.random() < clients.lost
        start = now + source.expovariate(1)
        takes = source.expovariate(0.1) * (clients.long if source.random() < clients.slow else 1)
        effect = start + takes * source.uniform(clients.late, 1)
        call = _Call(client, Operation(operation, arguments, str(name[client])), act, LOST)
        if lost:
            name[client] = next(names)
        plan = [(start, "call"), (start + takes, "lost" if lost else "return")]
        if not lost or source.random() < 0.5:
            plan.append((effect, "effect"))
        for moment, what in plan:
            heapq.heappush(agenda, (moment, next(ticket), what, call))

    for client in range(clients.clients):
        begin(client, 0)
    while agenda:
        now, _, what, call = heapq.heappop(agenda)
        if what == "call":
            call.invoked = next(stamp)
        elif what == "effect":
            call.outcome = Outcome.of(call.act())
        else:
            if what == "lost":
                yield Recorded(call.operation, LOST, call.invoked, None, call.operation.worker)
            else:
                yield Recorded(call.operation, call.outcome, call.invoked, next(stamp), call.operation.worker)
            begin(call.client, now)


# -- log files --

_LOGGED = re.compile(r"INFO +jepsen\.util - (\d+)\s+:(invoke|ok|fail|info)\s+:(read|write|cas)\s+(.*)")
_STORED = re.compile(
    r'\{:process (\d+), :type :(invoke|ok), :f :(get|put|append), :key "(.*)", :value (?:nil|"(.*)")\}'
)


def read_log(lines: Iterable[str]) -> tuple[list[Recorded], Model[Any]]:
    """The history in a log, in the order of invocation, and the model that it is of.

    Raises ``ValueError`` for a line that is of neither form.
    """
    open_: dict[str, tuple[int, Operation]] = {}
    history: list[Recorded] = []
    model: Model[Any] = REGISTER
    for stamp, line in enumerate(lines, 1):
        if (logged := _LOGGED.fullmatch(line.strip())) is not None:
            process, kind, name, text = logged.groups()
            arguments: dict[str, Any] = _arguments(name, text) if kind == "invoke" else {}
            answer: Any = kind == "ok" if name == "cas" else None
            if name == "read" and kind == "ok" and text != "nil":
                answer = int(text)
            if kind == "fail" and name == "read":
                open_.pop(process)
                continue
        elif (stored := _STORED.fullmatch(line.strip())) is not None:
            process, kind, name, key, text = stored.groups()
            model = STORE
            arguments = {"key": key} if name == "get" else {"key": key, "value": text}
            answer = text if name == "get" else None
        else:
            raise ValueError(
                f"line {stamp} is neither of a register's log nor of a store's: {line.strip()!r}"
            )
        if kind == "invoke":
            open_[process] = stamp, Operation(name, arguments, process)
        elif kind != "info":
            invoked, operation = open_.pop(process)
            history.append(Recorded(operation, Outcome.of(answer), invoked, stamp, process))
    history += [
        Recorded(operation, LOST, invoked, None, process)
        for process, (invoked, operation) in open_.items()
        if operation.name not in ("read", "get")
    ]
    history.sort(key=lambda entry: entry.invoked)
    return history, model


def _arguments(name: str, text: str) -> dict[str, Any]:
    if name == "write":
        return {"value": int(text)}
    if name == "cas":
        old, new = text.strip("[]").split()
        return {"old": int(old), "new": int(new)}
    return {}


def write_log(history: Iterable[Recorded]) -> Iterator[str]:
    """The lines of a log that `read_log` reads."""
    moments: list[tuple[int, bool, Recorded]] = []
    for entry in history:
        moments.append((entry.invoked, False, entry))
        if entry.returned is not None:
            moments.append((entry.returned, True, entry))
    moments.sort(key=lambda moment: moment[:2])
    for _, ended, entry in moments:
        name, arguments, answer = entry.operation.name, entry.operation.arguments, entry.outcome.value
        if "key" in arguments:
            kind = "ok" if ended else "invoke"
            text = _quoted(arguments, answer if ended else None)
            yield f'{{:process {entry.worker}, :type :{kind}, :f :{name}, :key "{arguments["key"]}", :value {text}}}\n'
            continue
        kind = "invoke" if not ended else "fail" if answer is False else "ok"
        if name == "cas":
            text = f"[{arguments['old']} {arguments['new']}]"
        elif name == "write":
            text = str(arguments["value"])
        else:
            text = "nil" if answer is None or not ended else str(answer)
        yield f"INFO  jepsen.util - {entry.worker}\t:{kind}\t:{name}\t{text}\n"


def _quoted(arguments: Mapping[str, Any], answer: Any) -> str:
    value = arguments.get("value", answer)
    return "nil" if value is None else f'"{value}"'
