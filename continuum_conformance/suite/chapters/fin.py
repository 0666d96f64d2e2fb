"""FIN: suspend, complete, fail."""

from __future__ import annotations

from typing import Any

from continuum_conformance.contract.records import RunState
from continuum_conformance.suite.data import FALSY, any_term
from continuum_conformance.suite.lab import HOUR, Lab
from continuum_conformance.suite.situations import ACTIVE, TERMINAL, each, lease_kinds
from continuum_conformance.suite.testing import checks


@checks("FIN-1", cases=each(lease=lease_kinds, events=(0, 2)))
def suspending_once_and_twice(lab: Lab, lease: str | None, events: int) -> None:
    run = lab.started(events=events, lease=lease)
    run.suspend(run.token)
    run.look()
    run.suspend(run.token, on="B")
    run.look()
    run.append(token=run.token)
    run.suspend(run.token)
    run.look()


@checks("FIN-2", cases=each(lease=lease_kinds, state=ACTIVE, how=("complete", "fail"), on=("A", "B")))
def finishing_sets_the_result_or_the_error(
    lab: Lab, lease: str | None, state: RunState, how: str, on: str
) -> None:
    run = lab.started(events=1, state=state, lease=lease)
    if how == "complete":
        run.complete({"paid": [1, None]}, run.token, on=on)
    else:
        run.fail({"declined": [1, None]}, run.token, on=on)
    run.look()


@checks("FIN-3", cases=each(lease=lease_kinds, state=TERMINAL, on=("A", "B")))
def terminal_is_final(lab: Lab, lease: str | None, state: RunState, on: str) -> None:
    run = lab.started(events=1, lease=lease)
    with lab.arranging():
        token = run.token
        if state is RunState.COMPLETED:
            run.complete(None, token)
        else:
            run.fail(None, token)
    for attempt in (token, None):
        run.suspend(attempt, on=on)
        run.look()
        run.complete({"second": True}, attempt, on=on)
        run.look()
        run.fail({"second": True}, attempt, on=on)
        run.look()
        run.append({"type": "late"}, attempt, on=on)
        run.look()


@checks(
    "FIN-3", cases=each(lease=lease_kinds, how=("complete", "fail"), term=(None, {"ok": [1]}), on=("A", "B"))
)
def the_same_finish_once_more_is_refused(lab: Lab, lease: str | None, how: str, term: Any, on: str) -> None:
    run = lab.started(events=1, lease=lease)
    token, act = run.token, run.complete if how == "complete" else run.fail
    act(term, token)
    act(term, token, on=on)
    act(term, None, on=on)
    run.look()


@checks("FIN-4", cases=each(how=("suspend", "complete", "fail")))
def a_transition_of_an_unknown_run_is_refused(lab: Lab, how: str) -> None:
    known = lab.started(events=1)
    for run in (lab.run(), lab.run(known.run_id, lab.fresh_instance())):
        run.do(how, run_id=run.run_id, lease_token=None, **_payload(how))
        run.look()
        run.start("checkout", 1)
        run.look()
    known.look()


def _payload(how: str) -> dict[str, Any]:
    return {"complete": {"result": 1}, "fail": {"error": 1}}.get(how, {})


@checks("FIN-5", cases=each(how=("suspend", "complete", "fail"), lease=lease_kinds))
def a_transition_leaves_the_history_alone(lab: Lab, how: str, lease: str | None) -> None:
    run = lab.started(events=3, lease=lease)
    if "snapshots" in lab.capabilities:
        with lab.arranging():
            run.snapshot(1, {0: "a", 1: "b"})
    run.do(how, run_id=run.run_id, lease_token=run.token, **_payload(how))
    run.look()


DEEP: Any = {"a": [{"b": [{"c": [{"d": [[], {}, None, 0, ""]}]}]}]}


@checks("FIN-6", cases=each(how=("complete", "fail"), term=lambda _: range(len(FALSY) + 1)))
def a_falsy_or_deep_result_reads_back(lab: Lab, how: str, term: int) -> None:
    run = lab.started()
    value = FALSY[term] if term < len(FALSY) else DEEP
    if how == "complete":
        run.complete(value)
    else:
        run.fail(value)
    run.look()


@checks("FIN-6", given={"value": any_term})
def any_result_and_any_error_read_back(lab: Lab, value: Any) -> None:
    done, failed = lab.started(), lab.started()
    done.complete(value)
    failed.fail(value)
    done.look()
    failed.look()


@checks(
    "FIN-7", cases=each(lease=("live", "expired"), state=TERMINAL, act=("renew", "release", "renew to 0"))
)
def a_terminal_run_has_no_lease_to_renew_or_release(lab: Lab, lease: str, state: RunState, act: str) -> None:
    run = lab.started(events=1, lease=lease)
    with lab.arranging():
        held = run.lease
        if state is RunState.COMPLETED:
            run.complete(1, held.token)
        else:
            run.fail(1, held.token)
    if act == "release":
        run.release(held)
    else:
        run.renew(held, HOUR if act == "renew" else 0)
    run.look()
    run.load_with_snapshot(held.token)
    run.load_with_snapshot(held.token + 1)
    run.acquire("carol")
    run.look()


@checks("FIN-7", cases=each(state=TERMINAL, lease=(None, "released")))
def a_run_that_was_finished_unleased_answers_none_with_the_pair(
    lab: Lab, state: RunState, lease: str | None
) -> None:
    run = lab.started(events=2, lease=lease, state=state)
    run.load_with_snapshot(None)
    run.load_with_snapshot(None, on="B")
    run.look()
