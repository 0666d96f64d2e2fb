"""How fast the judges are, and how much memory they take: `python ci/bench_judges.py [--operations 1000000]`.

Journals of several shapes under `judge`, registers under `check_linearizable`. Every history is right, with
concurrency; each is also judged with one answer spoilt. Times are the process's own. Exits 1 when a verdict is wrong
or a figure of the issue is missed: 100,000 operations in 5 s; a million in 60 s and 2 GiB, the history itself
included; or at most ten times as long as Porcupine.

The comparison with Porcupine: `python ci/bench_judges.py --porcupine COMMAND [--histories FILE ...]`. The command is
called with the path of a log as `ci/classic_histories.py` describes them (they are the forms of Porcupine's own test
data) and prints a verdict, `passed` or `failed`, and the seconds that the check alone took of its process's time:
`passed 0.0123`. A program around Porcupine's `CheckEvents` with the models and parsers of its `porcupine_test.go`
does. `--export DIRECTORY` writes the histories there.
"""

import argparse
import gc
import math
import random
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from classic_histories import Clients, read_log, register_history, store_history, write_log

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


# -- beside Porcupine --

PUBLISHED = Path(__file__).parents[1] / "tests" / "histories"
"""Histories that were recorded from real servers."""
SHAPES: dict[str, tuple[Callable[[Clients, int], list[Recorded]], Clients]] = {
    "register, 5 clients": (register_history, Clients(5, 100)),
    "register, 5 clients, wrong": (register_history, Clients(5, 400, stale=0.05)),
    "register, 5 clients, long": (register_history, Clients(5, 10_000)),
    "register, 20 clients": (register_history, Clients(20, 1_000, long=4)),
    "register, 30 of 100 lost": (register_history, Clients(5, 100, long=10, lost=0.45)),
    "register, 25 of 400 lost": (register_history, Clients(10, 400, slow=0.3, long=10, lost=0.1)),
    "register, 25 of 400 lost, wrong": (
        register_history,
        Clients(10, 400, slow=0.3, long=10, lost=0.1, stale=0.4),
    ),
    "store, 10 clients": (store_history, Clients(10, 400)),
    "store, 10 clients, wrong": (store_history, Clients(10, 400, stale=0.02)),
    "store, 50 clients": (store_history, Clients(50, 2_200, slow=0.02, late=0.99)),
    "store, 50 clients, wrong": (store_history, Clients(50, 2_200, slow=0.02, late=0.99, stale=0.005)),
    "store, 50 slow clients, wrong": (store_history, Clients(50, 2_200, long=100, stale=0.005)),
    "store, 12 of 2,200 lost, wrong": (
        store_history,
        Clients(50, 2_200, long=100, lost=0.01, stale=0.005),
    ),
}


@dataclass(frozen=True)
class Compared:
    """One history under both. Times are seconds; Porcupine's is None when it did not come to an end."""

    operations: int
    verdict: Status
    ours: float
    explained: float
    theirs: float | None

    @property
    def ratio(self) -> float | None:
        if self.theirs is None:
            return None
        return math.inf if self.verdict is Status.INCONCLUSIVE else self.ours / self.theirs


def timed(action: Callable[[], Verdict], least: float = 0.2) -> tuple[float, Verdict]:
    """How long an action takes, by doing it until some time has passed."""
    gc.collect()
    times = 0
    began = time.process_time()
    while True:
        verdict = action()
        times += 1
        took = time.process_time() - began
        if took > least:
            return took / times, verdict


def compare(path: Path, command: list[str], limit: float) -> Compared:
    try:
        with path.open() as lines:
            history, model = read_log(lines)
    except (OSError, ValueError) as error:
        sys.exit(f"{path} cannot be read: {error}")
    ours, verdict = timed(lambda: check_linearizable(history, model, explain=False))
    explained = timed(lambda: check_linearizable(history, model))[0] if verdict.failed else ours
    theirs = None
    if command:
        said = answer([*command, str(path)], limit)
        if said is not None:
            theirs = said[1]
            if verdict.status not in (said[0], Status.INCONCLUSIVE):
                sys.exit(f"{path}: {verdict.status}, but Porcupine says {said[0]}")
    return Compared(len(history), verdict.status, ours, explained, theirs)


def answer(command: list[str], limit: float) -> tuple[str, float] | None:
    """Porcupine's verdict and seconds; None when it came to none in time."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error}")
    words = run.stdout.split()
    if len(words) == 2 and words[0] in ("passed", "failed"):
        return words[0], float(words[1])
    if words[:1] == ["inconclusive"]:
        return None
    sys.exit(
        f"{shlex.join(command)} is to print a verdict and seconds, and printed {run.stdout!r} {run.stderr}"
    )


def beside_porcupine(
    groups: dict[str, list[Path]], command: list[str], limit: float, figure: float = 10
) -> None:
    print(
        f"{'history':34}{'operations':>11}  {'verdicts':22}"
        f"{'here':>10}{'explained':>11}{'Porcupine':>11}{'ratio':>8}{'worst':>8}"
    )
    missed = []
    for name, paths in groups.items():
        results = [compare(path, command, limit) for path in paths]
        ratios = [result.ratio for result in results if result.ratio is not None]
        statuses = [result.verdict for result in results]
        verdicts = ", ".join(f"{statuses.count(status)} {status}" for status in Status if status in statuses)
        ended = [result.theirs for result in results if result.theirs is not None]
        theirs = (
            f"{1e3 * median(ended):.2f} ms" if len(ended) * 2 > len(results) else "> limit" if command else ""
        )
        print(
            f"{name:34}{results[0].operations:>11,}  {verdicts:22}"
            f"{1e3 * median(result.ours for result in results):>7.2f} ms"
            f"{1e3 * median(result.explained for result in results):>8.2f} ms{theirs:>11}"
            + (f"{median(ratios):>8.2f}{max(ratios):>8.2f}" if ratios else ""),
            flush=True,
        )
        if ratios and median(ratios) > figure:
            missed.append(name)
    if missed:
        sys.exit(f"more than {figure:g} times as long as Porcupine: {'; '.join(missed)}")


def export(directory: Path, seeds: Iterable[int]) -> dict[str, list[Path]]:
    """Writes the histories of all shapes and gives their paths by shape."""
    directory.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[Path]] = {}
    for number, (name, (make, clients)) in enumerate(SHAPES.items()):
        for seed in seeds:
            path = directory / f"{number:02}-{seed}.log"
            path.write_text("".join(write_log(make(clients, seed))))
            groups.setdefault(name, []).append(path)
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--only", choices=("journals", "registers", "classics"))
    parser.add_argument("--porcupine", metavar="COMMAND", default="", help="compare with this program")
    parser.add_argument(
        "--histories", metavar="FILE", nargs="+", type=Path, help="compare on these logs alone"
    )
    parser.add_argument("--export", metavar="DIRECTORY", type=Path, help="write the compared histories there")
    parser.add_argument("--seeds", type=int, default=9, help="how many histories of each shape to compare")
    parser.add_argument("--limit", type=float, default=60, help="how many seconds to wait for Porcupine")
    arguments = parser.parse_args()
    if arguments.porcupine or arguments.histories or arguments.export or arguments.only == "classics":
        with tempfile.TemporaryDirectory() as temporary:
            if arguments.histories:
                groups = {path.name: [path] for path in arguments.histories}
            else:
                groups = {path.name: [path] for path in sorted(PUBLISHED.glob("*.log"))}
                groups |= export(arguments.export or Path(temporary), range(arguments.seeds))
            beside_porcupine(groups, shlex.split(arguments.porcupine), arguments.limit)
        return
    figures(arguments.operations, arguments.only)


def figures(size: int, only: str | None) -> None:
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
            judged = lambda entries, world=world: judge(entries, FULL, world, explain=False)  # noqa: E731
            explained = lambda entries, world=world: judge(entries, FULL, world)  # noqa: E731
            slowest = max(slowest, measure(f"journal: {name}", history, judged, Status.PASSED))
            history = spoilt_journal(history)
            slowest = max(slowest, measure("  with an event changed", history, judged, Status.FAILED))
            if size <= 100_000:
                measure("  and explained", history, explained, Status.FAILED)
            del history
    if only != "journals":
        for keys, workers in ((1, 5), (50, 20)):
            history = registers(size, keys=keys, workers=workers)
            for said, model in (("", REGISTERS), (", passive not declared", PLAIN_REGISTERS)):
                general = lambda entries, model=model: check_linearizable(entries, model, explain=False)  # noqa: E731
                explained = lambda entries, model=model: check_linearizable(entries, model)  # noqa: E731
                name = f"{keys} registers, {workers} workers{said}"
                slowest = max(slowest, measure(name, history, general, Status.PASSED))
                spoilt = spoilt_registers(history)
                slowest = max(slowest, measure("  with a read spoilt", spoilt, general, Status.FAILED))
                measure("  and explained", spoilt, explained, Status.FAILED)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if slowest > limit or peak > 2:
        sys.exit(f"too slow or too large: {slowest:.1f} s (at most {limit:.0f}), {peak:.2f} GiB (at most 2)")


if __name__ == "__main__":
    main()
