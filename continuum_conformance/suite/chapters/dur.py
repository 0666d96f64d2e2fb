"""DUR: what was acknowledged is read by a new process."""

from __future__ import annotations

from continuum_conformance.contract.records import RunState
from continuum_conformance.suite.lab import SECOND_PROCESS, Lab
from continuum_conformance.suite.situations import ACTIVE, TERMINAL
from continuum_conformance.suite.testing import checks


@checks("DUR-1")
def a_new_process_reads_what_was_acknowledged(lab: Lab) -> None:
    with lab.arranging():
        leases = "leases" in lab.capabilities
        runs = [lab.started(events=2, state=state) for state in (*ACTIVE, *TERMINAL)]
        busy = lab.started(events=3, lease="live" if leases else None)
        expired = lab.started(events=1, lease="expired" if leases else None)
        released = lab.started(events=1, lease="released" if leases else None)
        if "snapshots" in lab.capabilities:
            busy.snapshot(1, {0: "a", 1: None})
            busy.snapshot(0, {0: "a"})
        runs += [busy, expired, released]
        elsewhere = lab.started(events=1, instance=lab.fresh_instance(), run_id=busy.run_id)
        runs.append(elsewhere)
    last = lab.run()
    last.start("last", {"n": 1})
    last.append({"type": "last"}, on="B")
    runs.append(last)
    for run in runs:
        lab.look(run.key, on=SECOND_PROCESS)
    busy.append({"type": "after", "seq": 3}, busy.token, on=SECOND_PROCESS)
    busy.start("again", 1, on=SECOND_PROCESS)
    if leases:
        busy.acquire("eve", on=SECOND_PROCESS)
        released.acquire("bob", on=SECOND_PROCESS)
        expired.acquire("bob", on=SECOND_PROCESS)
    last.complete({"done": 1}, on=SECOND_PROCESS)
    for run in runs:
        lab.look(run.key, on=SECOND_PROCESS)
    for run in runs:
        run.look()


@checks("DUR-1")
def a_new_handle_reads_what_was_acknowledged(lab: Lab) -> None:
    run, done = lab.started(events=2), lab.started(state=RunState.COMPLETED)
    lab.session.close_handles()
    run.look()
    done.look()
    run.append({"type": "after", "seq": 2})
    run.look()
