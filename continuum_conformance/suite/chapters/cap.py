"""CAP: what is not declared is refused."""

from __future__ import annotations

from continuum_conformance.contract.records import Lease
from continuum_conformance.suite.lab import HOUR, Lab
from continuum_conformance.suite.situations import each
from continuum_conformance.suite.testing import checks


@checks("CAP-1", without="leases", cases=each(how=("acquire", "renew", "release")))
def undeclared_leases_are_refused(lab: Lab, how: str) -> None:
    run = lab.started(events=1)
    if how == "acquire":
        run.acquire("alice")
    elif how == "renew":
        run.renew(Lease(run.run_id, "alice", 1), HOUR)
    else:
        run.release(Lease(run.run_id, "alice", 1))
    run.append(token=None)
    run.look()


@checks("CAP-1", without="snapshots")
def undeclared_snapshots_are_refused(lab: Lab) -> None:
    run = lab.started(events=2)
    run.snapshot(0, {0: "x"})
    run.load_with_snapshot(None)
    run.look()


@checks("CAP-1")
def what_is_declared_is_there(lab: Lab) -> None:
    run = lab.started(events=1)
    if "leases" in lab.capabilities:
        run.acquire("alice")
        run.renew()
        run.release()
    if "snapshots" in lab.capabilities:
        run.snapshot(0, {0: "x"})
    run.look()
