"""How fast the judges are, and how much memory they take: `python ci/bench_judges.py [--operations 1000000]`.

Journals of several shapes under `judge`, registers and key-value stores under `check_linearizable`. Every history
is right, with concurrency; each is also judged with one answer spoilt. Times are the process's own. Exits 1 when a verdict is wrong or a figure
of the issue is missed: 100,000 operations in 5 s; a million in 60 s and 2 GiB, the history itself included.
"""

import argparse
import gc
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from continuum_conformance.contract.records import Instance, Lease
from continuum_conformance.history import (
    Model,
    Recorded,
    Status,
    Verdict,
    check_linearizable,
    impossible,
    judge,
)
from continuum_conformance.model import Kind, Operation, Outcome, RunModel, Specification

HERE = Instance("here")
FULL = Specification({"leases", "snapshots", "rich_terms", "opaque_run_ids"})
OK = Outcome.of(None)


# -- a store that performs each operation at one moment --


def overlapped(
    workers: int,
    size: int,
    source: random.Random,
    next_call: Callable[[int], tuple[Operation, Callable[[], Outcome]]],
) -> Iterator[Recorded]:
    """Operations of several workers that overlap; each takes effect between its call and its return."""
    clock = 0
    running: list[list[Any]] = []
    idle = list(range(workers))
    made = 0
    while made < size or running:
        clock += 1
        choice = source.random()
        if idle and made < size and (choice < 0.4 or not running):
            worker = idle.pop(source.randrange(len(idle)))
            operation, perform = next_call(worker)
            running.append([worker, operation, perform, clock, None])
            made += 1
            continue
        place = source.randrange(len(running))
        worker, operation, perform, invoked, outcome = running[place]
        if outcome is None:
            running[place][4] = perform()
        else:
            running[place] = running[-1]
            running.pop()
            idle.append(worker)
            yield Recorded(operation, outcome, invoked, clock, str(worker))


def journal(
    size: int, *, runs: int, workers: int, takeovers: float, loads: int, seed: int = 1
) -> list[Recorded]:
    """Appends under leases, zombies among the writers, takeovers, and so many loads of each run."""
    source = random.Random(seed)
    history: list[Recorded] = []
    each = size // runs
    for number in range(runs):
        run_id = f"run-{number}"
        token, events = 0, []
        held: dict[int, int] = {}
        count = 0
        every = max(1, each // loads)

        def next_call(
            worker: int,
            run_id: str = run_id,
            events: list[Any] = events,
            held: dict[int, int] = held,
            every: int = every,
        ) -> tuple[Operation, Callable[[], Outcome]]:
            nonlocal count
            count += 1
            name = str(worker)
            if count % every == 0 or count == each:
                operation = Operation("load", {"instance": HERE, "run_id": run_id}, name)
                return operation, lambda: Outcome.of(events[:])
            if source.random() < takeovers or not token:
                operation = Operation(
                    "acquire", {"instance": HERE, "run_id": run_id, "owner": name, "ttl": 0}, name
                )

                def take() -> Outcome:
                    nonlocal token
                    token += 1
                    held[worker] = token
                    return Outcome.of(Lease(run_id, name, token))

                return operation, take
            mine = held.setdefault(worker, token)
            event = {"type": "step", "n": count}
            operation = Operation(
                "append", {"instance": HERE, "run_id": run_id, "event": event, "lease_token": mine}, name
            )

            def write() -> Outcome:
                if mine != token:
                    held[worker] = token  # and it is told the new one
                    return REFUSED
                events.append({**event, "seq": len(events)})
                return OK

            return operation, write

        history.extend(overlapped(workers, each, source, next_call))
    return history


REFUSED = Outcome(Kind.ERROR, error="LeaseMismatch")


def spoilt_journal(history: list[Recorded]) -> list[Recorded]:
    """The history with one append lost from a load near its end."""
    places = [
        place
        for place, entry in enumerate(history)
        if entry.operation.name == "load" and entry.outcome.ok and len(entry.outcome.value) > 1
    ]
    place = places[-1]
    events = history[place].outcome.value[:-1]
    events[-1] = {**events[-1], "n": -1}
    return [*history[:place], replace(history[place], outcome=Outcome.of(events)), *history[place + 1 :]]


def registers(size: int, *, keys: int, workers: int, seed: int = 1) -> list[Recorded]:
    """Reads, writes and compare-and-sets of small values: the classic that gives little away."""
    source = random.Random(seed)
    store = dict.fromkeys(range(keys), 0)

    def next_call(worker: int) -> tuple[Operation, Callable[[], Outcome]]:
        key, value = source.randrange(keys), source.randrange(5)
        kind = source.randrange(3)
        if kind == 0:
            return Operation("read", {"key": key}, str(worker)), lambda: Outcome.of(store[key])
        if kind == 1:

            def write() -> Outcome:
                store[key] = value
                return OK

            return Operation("write", {"key": key, "value": value}, str(worker)), write
        old = source.randrange(5)

        def swap() -> Outcome:
            if store[key] != old:
                return Outcome.of(False)
            store[key] = value
            return Outcome.of(True)

        return Operation("cas", {"key": key, "old": old, "new": value}, str(worker)), swap

    return list(overlapped(workers, size, source, next_call))


def register_step(state: int, operation: Operation, outcome: Outcome) -> Any:
    name, arguments = operation.name, operation.arguments
    if name == "write":
        return arguments["value"]
    if name == "read":
        return state if outcome.value == state else impossible("another value")
    if outcome.value != (state == arguments["old"]):
        return None
    return arguments["new"] if outcome.value else state


REGISTERS: Model[int] = Model(
    init=lambda _key: 0,
    step=register_step,
    partition=lambda operation: operation.arguments["key"],
    passive=lambda operation, outcome: operation.name == "read" or outcome.value is False,
)
PLAIN_REGISTERS = replace(REGISTERS, passive=lambda _operation, _outcome: False)


def spoilt_registers(history: list[Recorded]) -> list[Recorded]:
    place = max(place for place, entry in enumerate(history) if entry.operation.name == "read")
    return [*history[:place], replace(history[place], outcome=Outcome.of(99)), *history[place + 1 :]]


# -- measuring --


def measure(
    name: str, history: list[Recorded], decide: Callable[[list[Recorded]], Verdict], wanted: Status
) -> float:
    gc.collect()
    began = time.process_time()
    verdict = decide(history)
    took = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        f"{name:44} {len(history):>9,} operations {took:7.2f} s {len(history) / took:>10,.0f}/s "
        f"{verdict.visited / len(history):5.1f} states each  peak {peak:,.0f} MiB  {verdict.status}",
        flush=True,
    )
    if verdict.status is not wanted:
        sys.exit(f"{name}: {verdict.status}, but it is to be {wanted}")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--only", choices=("journals", "registers"))
    size = parser.parse_args().operations
    only = parser.parse_args().only
    limit = 5.0 if size <= 100_000 else 60.0 * size / 1_000_000
    slowest = 0.0
    shapes = {
        "one run, 4 workers": {"runs": 1, "workers": 4, "takeovers": 0.001, "loads": 4},
        "one run, 16 workers, many takeovers": {"runs": 1, "workers": 16, "takeovers": 0.05, "loads": 4},
        "1,000 runs, 4 workers": {"runs": 1000, "workers": 4, "takeovers": 0.01, "loads": 2},
    }
    if only != "registers":
        for name, shape in shapes.items():
            history = journal(size, **shape)  # type: ignore[arg-type]
            world = {
                ("here", f"run-{number}"): RunModel("flow", None) for number in range(int(shape["runs"]))
            }
            judged = lambda entries, world=world: judge(entries, FULL, world)  # noqa: E731
            slowest = max(slowest, measure(f"journal: {name}", history, judged, Status.PASSED))
            if size <= 100_000:
                measure("  with an event changed", spoilt_journal(history), judged, Status.FAILED)
            del history
    if only != "journals":
        for keys, workers in ((1, 5), (50, 20)):
            history = registers(min(size, 100_000), keys=keys, workers=workers)
            for said, model in (("", REGISTERS), (", passive not declared", PLAIN_REGISTERS)):
                general = lambda entries, model=model: check_linearizable(entries, model)  # noqa: E731
                measure(f"{keys} registers, {workers} workers{said}", history, general, Status.PASSED)
                measure("  with a read spoilt", spoilt_registers(history), general, Status.FAILED)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if slowest > limit or peak > 2:
        sys.exit(f"too slow or too large: {slowest:.1f} s (at most {limit:.0f}), {peak:.2f} GiB (at most 2)")


if __name__ == "__main__":
    main()
