"""FEN: fencing, for append, suspend, complete, fail and load_with_snapshot alike."""

from __future__ import annotations

from typing import Any

from continuum_conformance.contract.records import RunState
from continuum_conformance.suite.data import BAD_TOKENS
from continuum_conformance.suite.lab import Lab
from continuum_conformance.suite.situations import ACTIVE, FENCED, each, stale_lease
from continuum_conformance.suite.testing import checks

OPERATIONS = tuple(FENCED)

FORGED = (1, 2, 1000, -1000, 2**16, 2**31, 2**32, 2**53, 2**63, 2**64, 2**70, -(2**63), -(2**64))
"""How far a forged token may be from the present one: near, far, and as far as an integer wraps."""


@checks("FEN-1", cases=each(operation=OPERATIONS, state=ACTIVE, on=("A", "B")))
def the_present_token_is_accepted(lab: Lab, operation: str, state: RunState, on: str) -> None:
    run = lab.started(events=1)
    with lab.arranging():
        stale_lease(run, "released" if on == "A" else "taken over")
        if state is RunState.SUSPENDED:
            run.suspend(run.token)
    FENCED[operation](run, run.token)
    run.look()


@checks("FEN-2", cases=each(operation=OPERATIONS, before=("taken over", "released"), state=ACTIVE))
def an_older_token_is_fenced(lab: Lab, operation: str, before: str, state: RunState) -> None:
    run = lab.started(events=1)
    with lab.arranging():
        old = stale_lease(run, before)
        if state is RunState.SUSPENDED:
            run.suspend(run.token)
    FENCED[operation](run, old.token)
    run.look()
    run.append({"type": "holder"}, run.token)
    run.look()


@checks("FEN-2", cases=each(operation=OPERATIONS, off=FORGED))
def a_forged_token_is_fenced(lab: Lab, operation: str, off: int) -> None:
    run = lab.started(events=1, lease="live")
    FENCED[operation](run, (run.token or 0) + off)
    run.look()
    run.append({"type": "holder"}, run.token)
    run.look()


@checks("FEN-2", cases=each(operation=OPERATIONS, lease=("live", "expired")))
def another_runs_token_is_fenced(lab: Lab, operation: str, lease: str) -> None:
    run, other = lab.started(events=1), lab.started(events=1)
    with lab.arranging():
        # Give the other run's token a number that this run has had, but does not have now.
        for _ in range(2):
            run.acquire("alice", 0)
        other.acquire("alice", 0)
        for _ in range(3):
            run.acquire("bob", 0)
        if lease == "live":
            run.renew()
    if other.token == run.token:
        return
    FENCED[operation](run, other.token)
    run.look()
    other.look()


@checks("FEN-3", cases=each(operation=OPERATIONS, lease=("live", "expired"), state=ACTIVE))
def none_on_a_leased_run_is_refused(lab: Lab, operation: str, lease: str, state: RunState) -> None:
    run = lab.started(events=1, lease=lease, state=state)
    FENCED[operation](run, None)
    run.look()
    run.append({"type": "holder"}, run.token)
    run.look()


@checks("FEN-3", cases=each(operation=OPERATIONS, lease=(None, "released"), state=ACTIVE))
def none_on_an_unleased_run_is_accepted(lab: Lab, operation: str, lease: str | None, state: RunState) -> None:
    run = lab.started(events=1, lease=lease, state=state)
    FENCED[operation](run, None)
    run.look()


@checks("FEN-4", cases=each(operation=OPERATIONS, lease=(None, "released"), token=(0, 1, 2, -1, 2**70)))
def a_token_on_an_unleased_run_is_refused(lab: Lab, operation: str, lease: str | None, token: int) -> None:
    run = lab.started(events=1, lease=lease)
    FENCED[operation](run, token)
    if run.model.last_token is not None:
        FENCED[operation](run, run.model.last_token)
        FENCED[operation](run, run.model.last_token + 1)
    run.look()
    run.append({"type": "next"}, None)
    run.look()


@checks("FEN-6", cases=each(before=("taken over", "released"), finish=("complete", "fail")))
def a_fenced_out_worker_can_do_nothing(lab: Lab, before: str, finish: str) -> None:
    run = lab.started(events=2)
    with lab.arranging():
        old = stale_lease(run, before)
    run.append({"type": "late"}, old.token)
    run.look()
    run.suspend(old.token)
    run.look()
    FENCED[finish](run, old.token)
    run.look()
    run.renew(old)
    run.release(old)
    run.look()
    run.acquire(old.owner)
    run.append({"type": "holder", "seq": 2}, run.token, on="B")
    FENCED[finish](run, run.token)
    run.append({"type": "late"}, old.token)
    run.suspend(old.token)
    run.look()


@checks("FEN-6")
def a_worker_of_an_earlier_generation_stays_out(lab: Lab) -> None:
    run = lab.started(events=1)
    leases = []
    with lab.arranging():
        for owner in ("alice", "bob", "alice", "carol"):
            run.acquire(owner, 0)
            leases.append(run.lease)
        run.renew()
    for old in leases[:-1]:
        for operation in OPERATIONS:
            FENCED[operation](run, old.token)
        run.renew(old)
        run.release(old)
    run.look()
    run.append({"type": "holder"}, run.token)
    run.look()


@checks(
    "FEN-7", cases=each(operation=OPERATIONS, token=lambda _: range(len(BAD_TOKENS)), lease=(None, "live"))
)
def a_token_that_is_no_integer_is_refused(lab: Lab, operation: str, token: int, lease: str | None) -> None:
    run = lab.started(events=1, lease=lease)
    FENCED[operation](run, _equal_to(BAD_TOKENS[token], run.token))
    run.look()
    run.append({"type": "next"}, run.token)
    run.look()


def _equal_to(bad: Any, token: int | None) -> Any:
    """The bad token, with the value of the present one where its type can have it."""
    if token is None or isinstance(bad, bool):
        return bad
    if isinstance(bad, float) and bad == bad:
        return float(token)
    if isinstance(bad, str):
        return str(token)
    return type(bad)(token) if type(bad).__name__ == "Decimal" else bad


@checks("FEN-8", without="leases", cases=each(operation=OPERATIONS, token=(0, 1, -1, 2**70, True, "1")))
def without_leases_a_token_is_refused(lab: Lab, operation: str, token: Any) -> None:
    run = lab.started(events=1)
    FENCED[operation](run, token)
    run.look()
    FENCED[operation](run, None)
    run.look()
