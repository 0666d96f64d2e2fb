"""LOD: loading."""

from __future__ import annotations

from typing import Any

from continuum_conformance.contract.records import RunState
from continuum_conformance.suite.lab import Lab
from continuum_conformance.suite.situations import ACTIVE, TERMINAL, each, lease_kinds
from continuum_conformance.suite.testing import checks

MANY = 1_500
HUGE = 10_000
MIB = 2**20


@checks("LOD-1")
def a_long_history_comes_whole_and_in_order(lab: Lab) -> None:
    run = lab.started()
    with lab.arranging():
        for number in range(MANY):
            run.append({"type": "step", "number": number, "at": -number})
    run.load(on="A")
    run.load(on="B")
    run.load_with_snapshot()
    run.append({"type": "step", "seq": MANY})
    run.load()


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


@checks("LOD-3", cases=each(what=("events", "event", "payload", "input", "result", "error", "pair", "steps")))
def what_was_returned_is_the_callers_own(lab: Lab, what: str) -> None:
    nested = {"items": [1, {"deep": [2]}]}
    with lab.arranging():
        run = lab.run()
        run.start("checkout", {"items": [1, {"deep": [2]}]})
        run.append({"type": "step", "payload": {"items": [1, {"deep": [2]}]}})
        run.append({"type": "step", "payload": [[1], [2]]})
        if what == "steps" and "snapshots" in lab.capabilities:
            run.snapshot(0, {0: {"items": [1, {"deep": [2]}]}})
        if what == "result":
            run.complete(nested)
        elif what == "error":
            run.fail(nested)
    if what in ("events", "event", "payload"):
        loaded: Any = run.load().value
        if what == "events":
            loaded.clear()
        elif what == "event":
            loaded[0]["type"] = "forged"
            loaded[1]["added"] = True
            loaded[0].pop("payload")
        else:
            loaded[0]["payload"]["items"][1]["deep"].append("forged")
            loaded[1]["payload"][0][0] = "forged"
        lab.note(f"the caller changed {what} of what load returned")
    elif what in ("input", "result", "error"):
        record: Any = run.get().value
        getattr(record, what)["items"][1]["deep"].append("forged")
        getattr(record, what)["added"] = True
        lab.note(f"the caller changed the {what} that get_run returned")
    else:
        snapshot, events = run.load_with_snapshot().value
        events.reverse()
        events[0]["payload"][0][0] = "forged"
        if snapshot is not None:
            snapshot.steps_by_seq[0]["items"][1]["deep"].append("forged")
            snapshot.steps_by_seq.clear()
        lab.note("the caller changed what load_with_snapshot returned")
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
