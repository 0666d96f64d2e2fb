"""LOD: loading."""

from __future__ import annotations

from typing import Any

from continuum_conformance.contract.records import RunState
from continuum_conformance.suite.lab import Lab
from continuum_conformance.suite.situations import ACTIVE, TERMINAL, each, lease_kinds
from continuum_conformance.suite.testing import checks

MANY = 1_500
SOME = 11
"""Enough to see most wrong orders, in a history that a person can read."""
HUGE = 10_000
MIB = 2**20


@checks("LOD-1")
def a_long_history_comes_whole_and_in_order(lab: Lab) -> None:
    run = lab.started()
    with lab.arranging():
        for number in range(MANY):
            run.append({"type": "step", "number": number, "at": -number}, on="AB"[number % 2])
            if number == SOME:
                run.load()
    run.load(on="A")
    run.load(on="B")
    run.load_with_snapshot()
    run.append({"type": "step", "seq": MANY})
    run.load()
    if "snapshots" in lab.capabilities:
        for through in (99, 100, 9, 999, 1_000, 100):
            run.snapshot(through, {0: "x"})
            if through >= 100:
                run.load_with_snapshot()


@checks("LOD-2", cases=each(state=(*ACTIVE, *TERMINAL), lease=lease_kinds))
def reading_is_never_fenced_and_changes_nothing(lab: Lab, state: RunState, lease: str | None) -> None:
    run = lab.started(events=2, state=state, lease=lease)
    for worker in ("A", "B", "A"):
        run.load(on=worker)
        run.get(on=worker)
    run.look()
    if not state.terminal:
        run.append({"type": "step", "seq": 2}, run.token)
        if "leases" in lab.capabilities:
            run.acquire("carol", on="B")
        run.look()


@checks(
    "LOD-3", cases=each(what=("load", "get_run", "load_with_snapshot"), where=("input", "result", "error"))
)
def what_was_returned_is_the_callers_own(lab: Lab, what: str, where: str) -> None:
    def term() -> Any:
        return {"items": [1, {"deep": [2]}], "name": "x"}

    with lab.arranging():
        run = lab.run()
        run.start("checkout", term())
        run.append({"type": "step", "payload": term()})
        run.append({"type": "step", "payload": [[1], [2]]})
        if "snapshots" in lab.capabilities:
            run.snapshot(0, {0: term()})
        if where == "result":
            run.complete(term())
        elif where == "error":
            run.fail(term())
    if what == "load":
        run.load(mutates="answer")
    elif what == "get_run":
        run.get(mutates="answer")
    else:
        run.load_with_snapshot(mutates="answer")
    run.look()


@checks("LOD-4", cases=each(lease=lambda caps: (None, "live") if "leases" in caps else (None,)))
def every_load_is_a_prefix_of_every_later_one(lab: Lab, lease: str | None) -> None:
    run = lab.started(lease=lease)
    run.load()
    run.append({"type": "one"}, run.token)
    run.load()
    run.append({"type": "one"}, run.token, on="B")
    run.load(on="B")
    if "snapshots" in lab.capabilities:
        run.snapshot(1, {0: 1, 1: 2})
        run.load()
    run.suspend(run.token)
    run.load()
    run.append({"type": "two"}, run.token)
    run.load(on="B")
    if lease:
        run.renew(ttl=0)
        run.acquire("bob", on="B")
        run.load()
        run.append({"type": "three"}, run.token, on="B")
        run.load()
        run.release()
        run.load()
    run.complete(None, run.token)
    run.load(on="B")
    run.look()


@checks("LOD-5", thorough=True)
def a_run_holds_ten_thousand_events_and_thirty_two_mebibytes(lab: Lab) -> None:
    run = lab.started()
    for number in range(HUGE):
        run.append({"type": "step", "number": number})
    run.load(limit=120)
    big = lab.started()
    for number in range(32):
        big.append({"type": "step", "payload": chr(97 + number % 26) * MIB}, limit=60)
    big.load(limit=120)
