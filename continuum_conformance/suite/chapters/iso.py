"""ISO: isolation of instances and runs, and nothing that changes by itself."""

from __future__ import annotations

from typing import Any

from continuum_conformance.contract.records import Instance, RunState
from continuum_conformance.suite.chapters.run import NEAR
from continuum_conformance.suite.lab import HOUR, Lab, RunUnderTest
from continuum_conformance.suite.situations import ACTIVE, each, lease_kinds
from continuum_conformance.suite.testing import checks

SEPARATORS = (
    ":",
    "/",
    "|",
    "-",
    "_",
    ".",
    ",",
    ";",
    " ",
    "#",
    "@",
    "::",
    "\x1f",
    "\t",
    "\n",
    "%",
    "+",
    "=",
    "\\",
    "--",
)


def _work(run: RunUnderTest, mark: str) -> None:
    """A little of everything, so that what leaks shows."""
    lab = run.lab
    run.start(f"workflow-{mark}", {"mark": mark})
    run.append({"type": "step", "mark": mark})
    if "leases" in lab.capabilities:
        run.acquire(f"owner-{mark}")
    run.append({"type": "step", "mark": mark, "seq": 1}, run.token)
    if "snapshots" in lab.capabilities:
        run.snapshot(0, {0: mark})


@checks("ISO-1", cases=each(how=("new", "case", "blank", "accent", "digits")))
def the_same_run_id_in_two_instances_is_two_runs(lab: Lab, how: str) -> None:
    names = {
        "new": (lab.instance.name, lab.fresh_instance().name),
        "case": (f"Prod-{lab.salt}", f"prod-{lab.salt}"),
        "blank": (f"prod-{lab.salt}", f"prod-{lab.salt} "),
        "accent": (f"caf\u00e9-{lab.salt}", f"cafe\u0301-{lab.salt}"),
        "digits": (f"{lab.salt}-1", f"{lab.salt}-01"),
    }[how]
    run_id = lab.fresh_run_id()
    first, second = (lab.run(run_id, Instance(name)) for name in names)
    _work(first, "first")
    second.look()
    _work(second, "second")
    for run in (first, second):
        run.look()
    second.append({"type": "more"}, second.token)
    second.complete("second", second.token)
    for run in (first, second):
        run.look()
    first.append({"type": "more"}, first.token)
    if "leases" in lab.capabilities:
        first.release()
    first.suspend(first.token)
    for run in (first, second):
        run.look()


@checks("ISO-1", needs="opaque_run_ids", cases=each(separator=SEPARATORS))
def no_two_keys_collide_by_being_joined(lab: Lab, separator: str) -> None:
    a, b, c = f"a{lab.salt}", "b", f"c{lab.salt}"
    first = lab.run(c, Instance(f"{a}{separator}{b}"))
    second = lab.run(f"{b}{separator}{c}", Instance(a))
    _work(first, "first")
    second.look()
    _work(second, "second")
    first.complete(1, first.token)
    for run in (first, second):
        run.look()


@checks("ISO-1", needs="opaque_run_ids", cases=each(name=("..", ".", "../run", "..\\run", "~", "*", "con")))
def a_name_that_means_something_to_a_file_system_is_one_like_any_other(lab: Lab, name: str) -> None:
    first, second, third = lab.run(name, lab.instance), lab.run(name, lab.fresh_instance()), lab.run()
    for run in (first, second, third):
        run.start("checkout", run.run_id)
        run.append()
    first.complete(1)
    for run in (first, second, third):
        run.look()


@checks("RUN-8", "ISO-1", needs="opaque_run_ids")
def the_longest_names_are_told_apart(lab: Lab) -> None:
    """An instance's and an id's together too, should an adapter make one key of them."""
    instance = Instance(lab.salt.ljust(255, "i"))
    first, second = (lab.run(lab.salt.ljust(254, "r") + last, instance) for last in "ab")
    for run in (first, second):
        run.get()
        run.start("checkout", run.run_id[-1])
        run.append()
    first.complete(1)
    for run in (first, second):
        run.look()


MANY_RUNS = 130
"""Runs: more than are kept where finished ones are thrown away."""


@checks("ISO-2")
def finished_runs_stay_however_many_there_are(lab: Lab) -> None:
    first = lab.started()
    first.complete("first")
    with lab.arranging():
        for _ in range(MANY_RUNS):
            lab.started(state=RunState.COMPLETED)
    first.look()


LARGE = 3 * 2**17
"""Characters: what stores keep apart from its row, in a place that has a key of its own."""


@checks("ISO-1", "ISO-2", cases=each(where=("another run", "another instance")))
def large_terms_of_two_runs_stay_apart(lab: Lab, where: str) -> None:
    run_id = lab.fresh_run_id()
    first = lab.run(run_id)
    second = lab.run() if where == "another run" else lab.run(run_id, lab.fresh_instance())
    for mark, run in (("a", first), ("b", second)):
        run.start("checkout", mark * LARGE)
        run.append({"type": "step", "payload": mark * LARGE})
        run.append({"type": "step", "payload": mark.upper() * LARGE})
        run.append({"type": "step", "payload": "x" * LARGE + mark})
        run.append({"type": "step", "payload": "x" * LARGE + mark.upper()})
        if "snapshots" in lab.capabilities:
            run.snapshot(0, {0: mark * LARGE})
    second.complete("c" * LARGE)
    for run in (first, second):
        run.look()
    first.complete("d" * LARGE)
    for run in (second, first):
        run.look()


@checks("ISO-1", cases=each(pair=NEAR))
def instances_that_are_nearly_equal_are_two(lab: Lab, pair: tuple[str, str]) -> None:
    run_id = lab.fresh_run_id()
    names = [f"{lab.salt}{name}" if len(name) < 200 else lab.salt + name[len(lab.salt) :] for name in pair]
    for number, name in enumerate(names):
        run = lab.run(run_id, Instance(name))
        run.start(f"workflow-{number}", number)
        run.append({"type": "step", "number": number})
        run.look()
    for name in names:
        lab.run(run_id, Instance(name)).look()


def _changes(capabilities: frozenset[str]) -> tuple[str, ...]:
    leases = ("acquire", "renew", "release") if "leases" in capabilities else ()
    snapshots = ("take_snapshot",) if "snapshots" in capabilities else ()
    return ("start_run", "append", "suspend", "complete", "fail", *leases, *snapshots)


def _change(run: RunUnderTest, what: str) -> None:
    acts: dict[str, Any] = {
        "start_run": lambda: run.lab.run().start("another", 1),
        "append": lambda: run.append({"type": "more"}, run.token),
        "suspend": lambda: run.suspend(run.token),
        "complete": lambda: run.complete({"done": 1}, run.token),
        "fail": lambda: run.fail({"why": 1}, run.token),
        "acquire": lambda: run.acquire("carol"),
        "renew": lambda: run.renew(ttl=0),
        "release": run.release,
        "take_snapshot": lambda: run.snapshot(1, {0: "x", 1: "y"}),
    }
    acts[what]()


@checks("ISO-2", cases=each(what=_changes, lease=lease_kinds))
def runs_of_one_instance_never_touch_one_another(lab: Lab, what: str, lease: str | None) -> None:
    others = [lab.started(events=2, lease=lease, state=state) for state in ACTIVE]
    run = lab.started(events=2, lease="live" if what in ("renew", "release") else lease)
    others.append(lab.started(events=3, lease=lease))
    _change(run, what)
    run.look()
    for other in others:
        other.look()
        other.append({"type": "next"}, other.token)
        if "leases" in lab.capabilities and other.model.lease is not None:
            other.acquire("eve", on="B")
            other.renew()
        other.look()


@checks("ISO-3", needs="leases", cases=each(state=ACTIVE, lease=(None, "live", "expired", "released")))
def lease_operations_leave_state_and_history_alone(lab: Lab, state: RunState, lease: str | None) -> None:
    run = lab.started(events=2, state=state, lease=lease)
    for turn in range(2):
        run.acquire("carol", 0 if turn == 0 else HOUR)
        run.look()
        if run.model.lease is not None:
            run.renew(ttl=0 if turn == 0 else HOUR)
            run.look()
    if run.model.lease is not None:
        run.release()
    run.look()


@checks("ISO-3", needs="leases", cases=each(lease=("live", "expired")))
def suspending_leaves_the_lease(lab: Lab, lease: str) -> None:
    run = lab.started(events=1, lease=lease)
    run.suspend(run.token)
    run.look()
    run.append(token=None)
    run.append(token=run.token)
    run.suspend(run.token)
    run.renew()
    run.acquire("eve", on="B")
    run.look()


@checks("ISO-3", needs="leases", cases=each(reads=(1, 5)))
def an_expired_lease_that_nobody_took_still_counts_as_leased(lab: Lab, reads: int) -> None:
    run = lab.started(events=1, lease="expired")
    for _ in range(reads):
        run.look()
        run.append(token=None)
    run.append(token=run.token)
    run.suspend(None)
    run.look()


MEANINGFUL = (
    "run_started",
    "run_completed",
    "run_failed",
    "run_suspended",
    "completed",
    "complete",
    "failed",
    "fail",
    "suspended",
    "suspend",
    "resumed",
    "terminated",
    "cancelled",
    "snapshot",
    "snapshot_taken",
    "lease",
    "lease_acquired",
    "lease_released",
    "tombstone",
    "deleted",
    "__start__",
    "$end",
    "signal",
)


@checks("ISO-3", cases=each(kind=MEANINGFUL, state=ACTIVE))
def an_events_type_means_nothing(lab: Lab, kind: str, state: RunState) -> None:
    lease = "live" if "leases" in lab.capabilities else None
    run = lab.started(events=1, state=state, lease=lease)
    run.append(
        {
            "type": kind,
            "result": 1,
            "error": 2,
            "state": "completed",
            "token": 99,
            "owner": "eve",
            "through_seq": 0,
        },
        run.token,
    )
    run.look()
    run.append({"type": "next", "seq": 2}, run.token)
    run.look()
