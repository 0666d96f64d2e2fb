"""APP: appending."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from continuum_conformance.contract.records import RunState
from continuum_conformance.suite.data import BAD_EVENTS, BAD_SEQS, COLUMNS, events
from continuum_conformance.suite.lab import HOUR, Lab, RunUnderTest
from continuum_conformance.suite.situations import ACTIVE, TERMINAL, each, lease_kinds
from continuum_conformance.suite.testing import checks

WRONG_STEPS = (-1, -2, 1, 2, 1000, -(2**31), 2**31, 2**32, 2**63, 2**64, 2**70, -(2**70))
"""How far an explicit seq may be from the next one."""


@checks("APP-1", given={"batch": lambda caps: st.lists(events(caps, seq=True), min_size=1, max_size=5)})
def events_get_the_next_seq(lab: Lab, batch: list[dict[str, Any]]) -> None:
    run = lab.started()
    for number, event in enumerate(batch):
        run.append(event, on="AB"[number % 2])
        run.load()
    run.look()


@checks("APP-2", cases=each(length=(0, 1, 3), lease=lease_kinds))
def the_next_seq_is_accepted_when_given(lab: Lab, length: int, lease: str | None) -> None:
    run = lab.started(events=length, lease=lease)
    run.append({"type": "step", "seq": length}, run.token)
    run.append({"seq": length + 1, "type": "step"}, run.token, on="B")
    run.append({"type": "step"}, run.token)
    run.look()


@checks("APP-2", cases=each(length=(0, 1, 3), off=WRONG_STEPS))
def another_seq_is_a_conflict(lab: Lab, length: int, off: int) -> None:
    run = lab.started(events=length)
    run.append({"type": "late", "seq": length + off})
    run.look()
    run.append({"type": "next"})
    run.append({"type": "late", "seq": length + off + 1})
    run.look()


@checks("APP-2", cases=each(lease=lease_kinds, on=("A", "B")))
def an_event_that_is_there_already_is_a_conflict(lab: Lab, lease: str | None, on: str) -> None:
    run = lab.started(lease=lease)
    events = [{"type": "step", "payload": {"n": number}, "seq": number} for number in range(2)]
    for event in events:
        run.append(event, run.token)
        run.append(event, run.token, on=on)
    run.append(events[0], run.token, on=on)
    run.look()


@checks("APP-3", cases=each(length=(0, 1), seq=lambda _: range(len(BAD_SEQS))))
def a_seq_that_is_no_integer_is_refused(lab: Lab, length: int, seq: int) -> None:
    run = lab.started(events=length)
    run.append({"type": "late", "seq": BAD_SEQS[seq]})
    run.append({"type": "next"})
    run.look()


@checks("APP-4", cases=each(event=lambda _: range(len(BAD_EVENTS))))
def a_malformed_event_is_refused(lab: Lab, event: int) -> None:
    run, other = lab.started(events=1), lab.started(events=1)
    run.append(BAD_EVENTS[event] if BAD_EVENTS[event] is not None else _NOTHING)
    run.append({"type": "next"}, on="B")
    run.look()
    other.append()
    other.look()


class _Nothing:
    """No event at all."""


_NOTHING = _Nothing()


@checks("APP-5")
def an_append_to_an_unknown_run_is_refused(lab: Lab) -> None:
    known = lab.started(events=1)
    run = lab.run()
    run.append()
    run.look()
    run.append({"type": "step", "seq": 0})
    run.look()
    elsewhere = lab.run(known.run_id, lab.fresh_instance())
    elsewhere.append()
    elsewhere.look()
    run.start("checkout", 1)
    run.look()
    run.append()
    run.look()
    known.look()


@checks("APP-6", cases=each(state=TERMINAL, lease=lease_kinds, length=(0, 2)))
def a_terminal_run_accepts_no_event(lab: Lab, state: RunState, lease: str | None, length: int) -> None:
    run = lab.started(events=length, lease=lease)
    with lab.arranging():
        token = run.token
        if state is RunState.COMPLETED:
            run.complete({"ok": 1}, token)
        else:
            run.fail({"ok": 1}, token)
    run.append({"type": "late"}, token)
    run.append({"type": "late", "seq": length}, token, on="B")
    run.append({"type": "late"}, None)
    run.look()


@checks("APP-7", cases=each(lease=lease_kinds))
def a_suspended_run_accepts_events_and_stays_suspended(lab: Lab, lease: str | None) -> None:
    run = lab.started(events=1, state=RunState.SUSPENDED, lease=lease)
    run.append({"type": "timer"}, run.token)
    run.look()
    run.append({"type": "signal", "seq": 2}, run.token, on="B")
    run.look()


@checks("APP-8", cases=each(lease=lease_kinds, state=ACTIVE))
def appending_changes_nothing_else(lab: Lab, lease: str | None, state: RunState) -> None:
    other = lab.started(events=1, lease="live" if lease else None)
    run = lab.started(events=1, state=state, lease=lease)
    if "snapshots" in lab.capabilities:
        with lab.arranging():
            run.snapshot(0, {0: "zero"})
    run.append({"type": "step"}, run.token)
    run.look()
    other.look()
    if "leases" in lab.capabilities:
        # A live lease is still live and the holder's, an expired one still takeable, an absent one absent.
        run.acquire("carol", on="B")
        run.renew()
        run.append({"type": "step"}, run.token)
    run.look()


def _reject(run: RunUnderTest, how: str) -> None:
    if how == "conflict":
        run.append({"type": "late", "seq": len(run.model.events) + 1}, run.token)
    elif how == "duplicate":
        run.append({"type": "late", "seq": len(run.model.events) - 1}, run.token)
    elif how == "malformed":
        run.append({"kind": "late"}, run.token)
    elif how == "bad seq":
        run.append({"type": "late", "seq": "x"}, run.token)
    elif how == "not durable":
        run.append({"type": "late", "payload": {"owner": [object()]}}, run.token)
    elif how == "fenced":
        run.append({"type": "late"}, (run.token or 0) + 7)
    elif how == "bad token":
        run.append({"type": "late"}, "7")


@checks("APP-1", cases=each(value=(0, "6f1c")))
def an_event_that_is_there_already_is_appended_once_more(lab: Lab, value: Any) -> None:
    """Whatever its keys: an id within an event is the caller's, and tells a journal nothing."""
    run = lab.started()
    for key in COLUMNS:
        run.append({"type": "step", key: value})
        run.append({"type": "step", key: value})
    run.look()


@checks(
    "APP-9",
    cases=each(
        how=("conflict", "duplicate", "malformed", "bad seq", "not durable", "fenced", "bad token"),
        lease=lambda caps: (None, "live") if "leases" in caps else (None,),
        times=(1, 3),
    ),
)
def a_rejected_append_leaves_no_trace(lab: Lab, how: str, lease: str | None, times: int) -> None:
    run = lab.started(events=2, lease=lease)
    for _ in range(times):
        _reject(run, how)
    run.look()
    run.append({"type": "next"}, run.token)
    run.append({"type": "next", "seq": 3}, run.token)
    run.look()


@checks("APP-9", "APP-1", cases=each(size=(0, 2_000, 100_000)))
def a_rejected_append_harms_no_event_that_is_like_it(lab: Lab, size: int) -> None:
    """Where payloads are stored once for all that are equal, a refused one may not take another's with it."""
    event = {"type": "step", "payload": "x" * size}
    run = lab.started()
    run.append(event)
    run.append({**event, "seq": 0})
    run.append(event, 7)
    run.look()
    run.append(event)
    run.complete("done")
    run.append(event)
    run.look()


@checks(
    "APP-10", cases=each(first=("A", "B"), lease=lambda caps: (None, "live") if "leases" in caps else (None,))
)
def what_one_handle_wrote_every_other_sees(lab: Lab, first: str, lease: str | None) -> None:
    second = "B" if first == "A" else "A"
    run = lab.run()
    lab.look(run.key, on=second)
    run.start("checkout", {"n": 1}, on=first)
    lab.look(run.key, on=second)
    run.append(on=first)
    lab.look(run.key, on=second)
    run.append(on=second)
    lab.look(run.key, on=first)
    if lease:
        run.acquire("alice", on=first)
        lab.look(run.key, on=second)
        run.append(token=None, on=second)
        run.acquire("bob", on=second)
        run.append(token=run.token, on=second)
        lab.look(run.key, on=first)
        run.renew(ttl=0, on=second)
        run.acquire("bob", HOUR, on=first)
        lab.look(run.key, on=second)
        run.release(on=second)
        run.append(token=None, on=first)
        lab.look(run.key, on=second)
    if "snapshots" in lab.capabilities:
        run.snapshot(0, {0: 1}, on=first)
        lab.look(run.key, on=second)
        run.snapshot(1, {0: 1, 1: 2}, on=second)
        lab.look(run.key, on=first)
    run.suspend(on=first)
    lab.look(run.key, on=second)
    run.append({"type": "step", "seq": len(run.model.events)}, on=second)
    run.complete({"done": 1}, on=second)
    lab.look(run.key, on=first)
    run.append(on=first)
    lab.look(run.key, on=second)
