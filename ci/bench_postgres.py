"""The PostgreSQL adapter's append against a bare psycopg loop: same statement, same parameters, same server.

The loop executes the adapter's own compiled statement, prepared, on a connection for each thread, and does nothing
else: no checks, no encoding of the payload, no pool. Both take many short turns, and the ratio is the median over the
rounds, each of which compares neighbours in time: so it holds on a machine that does other things too. Owed: 0.7 with
one client and with eight threads, each on a run of its own.

    python ci/bench_postgres.py [--postgres DSN] [--rounds 80] [--seconds 0.1]

Without a DSN a server is found or started as for the kit itself. Exit code 1: less than owed.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import psycopg
from continuum_adapters import postgres
from continuum_adapters.codec import encode

from continuum_conformance.contract import Instance
from continuum_conformance.postgres import provide

OWED = 0.7
HERE = Instance("bench")
EVENT = {"type": "step_completed", "step": "charge", "result": {"amount": 1299, "currency": "EUR"}}

Append = Callable[[], object]


class Pace(NamedTuple):
    """Appends in a second, and this process's CPU time for each of them in microseconds."""

    rate: float
    cpu: float


@contextmanager
def adapter(dsn: str, runs: list[str]) -> Iterator[list[Append]]:
    """An append of the adapter's for each run, all on one handle."""
    with closing(postgres.PostgresJournal(dsn)) as journal:
        yield [partial(journal.append, HERE, run_id, EVENT, None) for run_id in runs]


@contextmanager
def bare(dsn: str, runs: list[str]) -> Iterator[list[Append]]:
    """The same statement for each run, each on a connection of its own."""
    payload = encode(EVENT, "event")

    def append(connection: psycopg.Connection[Any], values: dict[str, Any]) -> None:
        connection.execute(postgres._APPEND.sql, values, prepare=True, binary=True).fetchall()

    with ExitStack() as stack:
        yield [
            partial(
                append,
                stack.enter_context(psycopg.connect(dsn, autocommit=True)),
                {"instance": HERE.name, "run_id": run_id, "token": None, "seq": None, "payload": payload},
            )
            for run_id in runs
        ]


def pace(appends: list[Append], seconds: float) -> Pace:
    """Let each append run in a thread of its own for so many seconds."""
    counts = [0] * len(appends)
    start = threading.Barrier(len(appends) + 1)

    def loop(number: int, append: Append) -> None:
        start.wait()
        while not counts[number] or time.perf_counter() < until:
            append()
            counts[number] += 1

    threads = [threading.Thread(target=loop, args=each, daemon=True) for each in enumerate(appends)]
    for thread in threads:
        thread.start()
    began, cpu = time.perf_counter(), time.process_time()
    until = began + seconds
    start.wait()
    for thread in threads:
        thread.join()
    elapsed, cpu, total = time.perf_counter() - began, time.process_time() - cpu, sum(counts)
    return Pace(total / elapsed, cpu / total * 1e6)


def compare(dsn: str, clients: int, rounds: int, seconds: float) -> float:
    """Print how the two compare with so many clients; the ratio of their rates."""
    runs = [f"run-{number}" for number in range(clients)]
    with adapter(dsn, runs) as ours, bare(dsn, runs) as loops:
        for append in (*ours, *loops):  # opened, prepared and planned before the first round
            append()
        pace(ours, seconds)
        pairs = []
        for number in range(rounds):
            first, second = (ours, loops) if number % 2 else (loops, ours)
            pair = (pace(first, seconds), pace(second, seconds))
            pairs.append(pair if number % 2 else pair[::-1])
    for name, paces in zip(("adapter", "psycopg"), zip(*pairs, strict=True), strict=True):
        rate, cpu = (median(figures) for figures in zip(*paces, strict=True))
        print(f"{clients} client(s)  {name}  {rate:6.0f} appends/s  {cpu:4.0f} µs of CPU each")
    ratio = median(mine.rate / its.rate for mine, its in pairs)
    print(f"{clients} client(s)  ratio    {ratio:.2f}  (owed {OWED})")
    return ratio


def main() -> int:
    """Compare with one client and with eight."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--postgres", default="auto", metavar="DSN")
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=0.1)
    options = parser.parse_args()
    with provide(options.postgres) as server:
        print(server.description)
        dsn = server.fresh_database()
        with closing(postgres.PostgresJournal(dsn)) as journal:
            for number in range(8):
                journal.start_run(HERE, f"run-{number}", "bench", None)
        ratios = [compare(dsn, clients, options.rounds, options.seconds) for clients in (1, 8)]
    return 0 if min(ratios) >= OWED else 1


if __name__ == "__main__":
    sys.exit(main())
