"""The statements of an adapter's append, as they went over the wire, and as others can send them again.

They are read at the gate once the adapter has appended often enough to have prepared what it prepares. Each run's
append is read apart, so that each client sends its own run's.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import Format

from continuum_conformance.bench.growth import Given
from continuum_conformance.bench.turns import Contender
from continuum_conformance.bench.work import Desk
from continuum_conformance.harness import Subject
from continuum_conformance.postgres.gate import Gate
from continuum_conformance.postgres.tape import Sent
from continuum_conformance.postgres.wire import Statement

__all__ = ["CannotSendAgain", "Script", "Sending", "pgbench_script", "scripts_of"]

WARM = 12
"""Appends before one is read: psycopg prepares at the sixth execution, and says so to the server in between."""


class CannotSendAgain(Exception):
    """The statements cannot be sent by others; the message says why."""


@dataclass(frozen=True)
class Sending:
    """A statement and the values that it is sent with, as Python has them."""

    sql: str
    values: tuple[Any, ...]


Script = tuple[Sending, ...]
"""What one append sends, in order."""


def scripts_of(subject: Subject, desk: Desk, runs: Sequence[tuple[str, int | None]]) -> list[Script]:
    """What the append to each of the runs sends.

    Raises:
        CannotSendAgain: nothing was seen, or nothing that can be sent again.
        BenchError: an append failed.
        HarnessError: the adapter cannot be opened.
        PostgresUnavailable: the gate cannot stand before this server.
    """
    with Gate(subject.dsn or "") as gate:
        subject.dsn_for = gate.dsn_for
        try:
            contender = Contender(subject, clients=1, handles=1)
            try:
                scripts = []
                for run_id, token in runs:
                    appends = [desk.append(run_id, token, number) for number in range(WARM)]
                    contender.turn(Given("append", appends), 1, WARM)
                    with gate.taped() as tape:
                        contender.turn(Given("append", appends[:1]), 1, 1)
                    scripts.append(_script(tape))
            finally:
                contender.close()
        finally:
            subject.dsn_for = None
    return scripts


def _script(tape: Sequence[Sent]) -> Script:
    sent = list(tape)
    if not any(each.executes for each in sent):
        raise CannotSendAgain(
            "its append sent nothing through the gate: it uses another connection than its DSN's"
        )
    return tuple(itertools.chain.from_iterable(map(_sendings, sent)))


def _sendings(sent: Sent) -> list[Sending]:
    return [_sending(statement) for statement in sent.group.statements if statement.sql.strip(" ;\n")]


def _sending(statement: Statement) -> Sending:
    load = Transformer().get_loader
    values = tuple(
        None if value is None else load(type_, Format.BINARY if binary else Format.TEXT).load(value)
        for (binary, value), type_ in zip(statement.values, statement.types, strict=True)
    )
    return Sending(statement.sql, values)


# -- for pgbench --

_PLACEHOLDER = re.compile(r"\$(\d+)")
_LOOKS_LIKE_A_VARIABLE = re.compile(r"(?<!:):(?=\w)")


def pgbench_script(scripts: Sequence[Script]) -> tuple[str, dict[str, str]]:
    """A script for ``pgbench -M prepared``, in which each client sends its own, and the variables to define.

    Raises:
        CannotSendAgain: pgbench has no way to write it.
    """
    lines, variables = [], dict[str, str]()
    for client, script in enumerate(scripts):
        lines.append(f"\\{'el' if client else ''}if :client_id = {client}")
        for number, sending in enumerate(script):
            lines.append(_pgbench_statement(sending, f"v{client}_{number}", variables) + ";")
    return "\n".join([*lines, "\\endif"]) + "\n", variables


def _pgbench_statement(sending: Sending, prefix: str, variables: dict[str, str]) -> str:
    sql = " ".join(sending.sql.split()).rstrip("; ")
    if _LOOKS_LIKE_A_VARIABLE.search(sql) or ";" in sql or sql.startswith("\\"):
        raise CannotSendAgain(
            "pgbench would read something else in a statement that has a ':' or ';' of its own"
        )

    def variable(found: re.Match[str]) -> str:
        value = sending.values[int(found[1]) - 1]
        if value is None:
            return "NULL"
        name = f"{prefix}_{found[1]}"
        variables[name] = _text(value)
        return f":{name}"

    return _PLACEHOLDER.sub(variable, sql)


def _text(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"\\x{bytes(value).hex()}"
    [text] = Transformer().dump_sequence([value], [PyFormat.TEXT])
    return bytes(text or b"").decode()
