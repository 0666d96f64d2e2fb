"""How near an adapter's append comes to what its server can do: beside a bare psycopg loop, and beside pgbench.

Both send the adapter's own statements, as they were read on the wire, with as many clients, each on a run of its
own, and do nothing else: no checks, no encoding, no pool. The loop shows what the adapter adds to its driver (as
Python threads in one process; an async adapter is measured against the same), pgbench what a client without Python
can have. They take turns, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import psycopg

from continuum_conformance.bench.figures import LeftOut, Limit
from continuum_conformance.bench.growth import Tick
from continuum_conformance.bench.pace import FIRST, Length
from continuum_conformance.bench.statements import CannotSendAgain, Script, pgbench_script, scripts_of
from continuum_conformance.bench.turns import Calls, Contender, Turn, Work, paced, turn_of_threads
from continuum_conformance.bench.work import Append, Desk
from continuum_conformance.harness import Subject
from continuum_conformance.postgres import binaries, mask
from continuum_conformance.postgres import dsn as dsns

__all__ = ["TURNS", "find_pgbench", "measure_limits"]

TURNS = 21
"""Of each, for each number of clients."""

LIMIT = 120.0
"""Seconds after which a rival counts as hung."""

_TPS = re.compile(r"^tps = ([0-9.]+) \((?:without initial|excluding) connect", re.MULTILINE)


class Rival(Protocol):
    """Whoever appends, in turns."""

    name: str

    def turn(self, count: int, seconds: float) -> Turn:
        """Let each client append ``count`` times, or fewer when the time is over."""
        ...


class _Adapter:
    """The adapter itself."""

    name = "adapter"

    def __init__(self, contender: Contender, work: Work, clients: int) -> None:
        self._contender, self._work, self._clients = contender, work, clients

    def turn(self, count: int, seconds: float) -> Turn:
        return self._contender.turn(self._work, self._clients, count, seconds)


class _Loop:
    """Threads that each execute a script on a psycopg connection and a cursor of its own.

    Raises:
        CannotSendAgain: the server refuses the statements the second time.
    """

    name = "psycopg"

    def __init__(self, dsn: str, scripts: Sequence[Script], kept: ExitStack) -> None:
        self._threads = kept.enter_context(ThreadPoolExecutor(len(scripts), "loop"))
        self._methods = [
            _sender(psycopg.RawCursor(kept.enter_context(psycopg.connect(dsn, autocommit=True))), script)
            for script in scripts
        ]

    def turn(self, count: int, seconds: float) -> Turn:
        def prepared(send: Callable[[], None]) -> Calls:
            return send, [()] * count

        try:
            prepare = [partial(prepared, send) for send in self._methods]
            return turn_of_threads(self._threads, prepare, seconds, LIMIT)
        except psycopg.Error as error:
            told = mask(str(error)).strip().splitlines()
            raise CannotSendAgain(f"the server refused them: {told[0] if told else error!r}") from error


def _sender(cursor: psycopg.RawCursor[Any], script: Script) -> Callable[[], None]:
    steps = [(sending.sql.encode(), sending.values or None) for sending in script]

    def send() -> None:
        for sql, values in steps:
            cursor.execute(sql, values, prepare=True, binary=True)
            if cursor.description is not None:
                cursor.fetchall()

    return send


PGBENCH_LONGER = 2
"""How many times as long its turns are: in each of them new server processes warm up."""


class _Pgbench:
    """The program, started for each turn; the time that it takes to connect does not count."""

    name = "pgbench"

    def __init__(self, program: Path, dsn: str, scripts: Sequence[Script], folder: Path) -> None:
        text, variables = pgbench_script(scripts)
        file = folder / f"append-{len(scripts)}.sql"
        file.write_text(text, "utf-8")
        self._clients = len(scripts)
        self._line: list[str | Path] = [program, "-n", "-M", "prepared", "-c", str(self._clients), "-f", file]
        for name, value in variables.items():
            self._line += ["-D", f"{name}={value}"]
        self._environment = {**os.environ, **_settings(dsn)}

    def turn(self, count: int, seconds: float) -> Turn:  # noqa: ARG002 - it takes whole seconds only
        count *= PGBENCH_LONGER
        line = [*self._line, "-t", str(count)]
        try:
            ended = subprocess.run(
                line, capture_output=True, text=True, timeout=LIMIT, env=self._environment, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotSendAgain(f"pgbench could not be run: {error}") from error
        found = _TPS.search(ended.stdout)
        if ended.returncode or found is None or not float(found[1]):
            told = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
            raise CannotSendAgain(f"pgbench failed: {mask(told[0]) if told else 'it said nothing'}")
        calls = count * self._clients
        return Turn(calls, calls / float(found[1]), ())


def _settings(dsn: str) -> dict[str, str]:
    """libpq's environment for a DSN, so that no password stands in a list of processes."""
    names = {
        "host": "PGHOST",
        "hostaddr": "PGHOSTADDR",
        "port": "PGPORT",
        "user": "PGUSER",
        "password": "PGPASSWORD",
        "dbname": "PGDATABASE",
        "sslmode": "PGSSLMODE",
        "options": "PGOPTIONS",
    }
    return {names[key]: value for key, value in dsns.read(dsn).items() if key in names}


def find_pgbench() -> Path | None:
    """The program: of the embedded server, beside a local server, or on the PATH."""
    for installation in (binaries.embedded(), binaries.local()):
        if installation is not None and (installation.bin / "pgbench").is_file():
            return installation.bin / "pgbench"
    found = shutil.which("pgbench")
    return Path(found) if found else None


def measure_limits(
    subject: Subject,
    seen: Subject,
    contender: Contender,
    desk: Desk,
    clients: Sequence[int],
    length: Length,
    tick: Tick,
) -> Iterator[Limit | LeftOut]:
    """The adapter's append beside a loop and beside pgbench, for each number of clients.

    Args:
        subject: the adapter, its store provided.
        seen: the same adapter, loaded once more: its statements are read while it appends to the same store.
        contender: its handles.
        desk: names and events.
        clients: how many.
        length: how long.
        tick: told what is being done.

    Raises:
        BenchError: an append failed.
        HarnessError: the adapter cannot be opened or closed.
        PostgresUnavailable: the gate cannot stand before this server.
    """
    seen.dsn, seen.directory = subject.dsn, subject.directory
    pgbench = find_pgbench()
    if pgbench is None:
        why = "the program was not found: it comes with PostgreSQL's server, and with 'continuum-conformance[embedded]'"
        yield LeftOut("pgbench", why)
    for number in clients:
        work = Append(desk, "apart")
        contender.set_up(work, number)
        with ExitStack() as kept:
            folder = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="continuum-bench-")))
            try:
                scripts = scripts_of(seen, desk, [work.run_of(client) for client in range(number)])
            except CannotSendAgain as error:
                yield LeftOut(f"the limits of {_clients(number)}", str(error))
                continue
            makers: dict[str, Callable[[], Rival]] = {
                "psycopg": partial(_Loop, subject.dsn or "", scripts, kept)
            }
            if pgbench is not None:
                makers["pgbench"] = partial(_Pgbench, pgbench, subject.dsn or "", scripts, folder)
            rivals = []
            for name, make in makers.items():
                try:
                    rival = make()
                    _require_effect(rival, contender, work, number)
                    rivals.append(rival)
                except CannotSendAgain as error:
                    yield LeftOut(f"{name} with {_clients(number)}", str(error))
            if rivals:
                adapter = _Adapter(contender, work, number)
                try:
                    yield from _beside(adapter, rivals, number, len(scripts[0]), length, tick)
                except CannotSendAgain as error:
                    yield LeftOut(f"the limits of {_clients(number)}", str(error))


def _require_effect(rival: Rival, contender: Contender, work: Append, clients: int) -> None:
    """See that what is sent again appends an event each time. Raises `CannotSendAgain`."""

    def lengths() -> list[int]:
        runs = [work.run_of(client)[0] for client in range(clients)]
        return [len(contender.ask("load", work.desk.instance, run_id)) for run_id in runs]

    before = lengths()
    turn = rival.turn(FIRST, math.inf)
    if [now - was for now, was in zip(lengths(), before, strict=True)] != [turn.calls // clients] * clients:
        raise CannotSendAgain("what the append sent does not append when it is sent again")


def _clients(clients: int) -> str:
    """``1 client``, ``8 clients``."""
    return f"{clients} client{'s' * (clients > 1)}"


def _beside(
    adapter: Rival, rivals: list[Rival], clients: int, statements: int, length: Length, tick: Tick
) -> Iterator[Limit]:
    counts: dict[str, int] = {}
    seconds = 0.6 * length.seconds
    every = (adapter, *rivals)
    for rival in every:
        counts[rival.name] = _warm(rival, clients, seconds, length)
    rates: Mapping[str, list[float]] = {rival.name: [] for rival in every}
    for number in range(TURNS):
        tick(f"{_clients(clients)} beside {' and '.join(rival.name for rival in every[1:])}")
        for place in range(len(every)):
            rival = every[(number + place) % len(every)]
            turn = rival.turn(counts[rival.name], seconds)
            rates[rival.name].append(turn.rate)
            if length.count is None:
                counts[rival.name] = paced(seconds, turn, clients)
    for rival in every[1:]:
        ratios = [mine / its for mine, its in zip(rates[adapter.name], rates[rival.name], strict=True)]
        yield Limit(
            beside=rival.name,
            clients=clients,
            rate=median(rates[rival.name]),
            adapter=median(rates[adapter.name]),
            ratio=median(ratios),
            turns=TURNS,
            statements=statements,
        )


def _warm(rival: Rival, clients: int, seconds: float, length: Length) -> int:
    """How many appends of each client fill a turn, once everything is prepared and planned."""
    if length.count is not None:
        rival.turn(FIRST, seconds)
        return length.count
    count = 16
    for _ in range(3):
        count = paced(seconds, rival.turn(count, seconds), clients)
    return count
