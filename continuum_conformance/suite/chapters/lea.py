"""LEA: leases. A ttl of 0 has expired at once, a ttl of an hour does not run out; what is between is looked at once."""

from __future__ import annotations

import time
from typing import Any

from continuum_conformance.contract.records import Lease, RunState
from continuum_conformance.explore.tasks import ControlledLoop
from continuum_conformance.suite.chapters.run import NEAR
from continuum_conformance.suite.data import BAD_TTLS
from continuum_conformance.suite.lab import HOUR, Lab, RunUnderTest, Session
from continuum_conformance.suite.situations import ACTIVE, FENCED, TERMINAL, each, stale_lease
from continuum_conformance.suite.testing import checks

TEN_YEARS = 10 * 365 * 24 * 3600


def _still_held(run: RunUnderTest) -> None:
    """Look whether the present holder still holds its live lease, and nobody can take it."""
    run.append({"type": "holder"}, run.token)
    run.acquire("eve", on="B")
    run.append({"type": "holder"}, run.token)
    run.look()


@checks(
    "LEA-1",
    cases=each(state=ACTIVE, before=(None, "expired", "released"), owner=("alice", "bob"), on=("A", "B")),
)
def a_free_run_can_be_acquired(lab: Lab, state: RunState, before: str | None, owner: str, on: str) -> None:
    run = lab.started(events=1, lease=before, state=state)
    run.acquire(owner, on=on)
    run.append({"type": "step"}, run.token, on=on)
    run.renew(on=on)
    run.look()


@checks("LEA-1", cases=each(ttl=(0, 0.0, 1e-9, 60, 3600.5, TEN_YEARS, float(TEN_YEARS))))
def any_legal_ttl_is_granted(lab: Lab, ttl: float) -> None:
    run = lab.started()
    run.acquire("alice", ttl)
    run.append(token=run.token)
    run.renew(ttl=ttl)
    run.append(token=run.token)
    if ttl == 0:
        run.acquire("bob")
    elif ttl >= HOUR:
        run.acquire("bob")
        run.append(token=run.token)
    run.look()


@checks("LEA-2", cases=each(owner=("alice", "bob"), on=("A", "B"), ttl=(0, HOUR), state=ACTIVE))
def a_live_lease_is_held_for_everyone(lab: Lab, owner: str, on: str, ttl: float, state: RunState) -> None:
    run = lab.started(lease="live")
    with lab.arranging():
        if state is RunState.SUSPENDED:
            run.suspend(run.token)
    run.acquire(owner, ttl, on=on)
    run.acquire(owner, ttl, on=on)
    _still_held(run)
    run.renew(on=on)
    run.acquire(owner, ttl, on=on)
    _still_held(run)


@checks("LEA-2", cases=each(renewed=(False, True)))
def a_lease_that_was_taken_over_is_held(lab: Lab, renewed: bool) -> None:
    run = lab.started(lease="expired")
    with lab.arranging():
        run.acquire("bob", 0 if renewed else HOUR)
        if renewed:
            run.renew(ttl=HOUR)
    run.acquire("alice")
    run.acquire("carol", on="B")
    _still_held(run)


@checks(
    "LEA-3", cases=each(how=("unknown", "elsewhere", "finished unleased", "finished leased"), ttl=(0, HOUR))
)
def an_unknown_or_terminal_run_cannot_be_acquired(lab: Lab, how: str, ttl: float) -> None:
    known = lab.started(events=1)
    if how == "unknown":
        run = lab.run()
    elif how == "elsewhere":
        run = lab.run(known.run_id, lab.fresh_instance())
    else:
        run = lab.started(lease="live" if how == "finished leased" else None, state=RunState.COMPLETED)
    run.acquire("alice", ttl)
    run.acquire("alice", ttl, on="B")
    run.look()
    if how in ("unknown", "elsewhere"):
        run.start()
        run.append(token=None)
        run.look()


@checks("LEA-3s", cases=each(how=("unknown", "completed", "failed")))
def the_refusal_tells_why(lab: Lab, how: str) -> None:
    states = {"completed": RunState.COMPLETED, "failed": RunState.FAILED}
    run = lab.run() if how == "unknown" else lab.started(state=states[how])
    outcome = run.acquire("alice")
    if outcome.error == "LeaseHeld":
        lab.fail(
            f"acquiring {'an unknown' if how == 'unknown' else 'a terminal'} run was answered with LeaseHeld"
        )


@checks("LEA-4", cases=each(how=("release", "expiry", "mixed"), on=("A", "AB"), reads=(False, True)))
def tokens_only_grow(lab: Lab, how: str, on: str, reads: bool) -> None:
    run = lab.started()
    for turn in range(6):
        worker = on[turn % len(on)]
        expires = how == "expiry" or (how == "mixed" and turn % 3 != 0)
        run.acquire(f"worker-{turn % 2}", 0 if expires else HOUR, on=worker)
        if reads:
            lab.look(run.key, on=worker)
        if not expires:
            run.release(on=worker)
    run.acquire("last")
    run.append(token=run.token)
    run.look()


@checks("LEA-4")
def tokens_grow_whatever_happens_between(lab: Lab) -> None:
    run, other = lab.started(), lab.started()
    run.acquire("alice")
    run.suspend(run.token)
    run.release()
    other.acquire("alice")
    run.append(token=None)
    run.acquire("alice", 0)
    other.release()
    run.renew(ttl=0)
    run.acquire("alice", 0, on="B")
    run.renew(Lease(run.run_id, "alice", run.token - 1 if run.token else 0))
    run.acquire("bob")
    run.release()
    if "snapshots" in lab.capabilities:
        run.snapshot(0, {})
    run.start()
    run.acquire("carol", on="B")
    other.acquire("carol")
    run.look()
    other.look()


MANY = 300
"""Past 9, 99, 127 and 255: where tokens are compared as text, or kept in a byte, they stop growing there."""


@checks("LEA-4")
def tokens_grow_past_every_width(lab: Lab) -> None:
    run = lab.started()
    for turn in range(MANY):
        run.acquire("alice", 0)
        if turn % 50 == 10:
            run.release()
    run.look()


@checks("LEA-4", cases=each(worker=("A", "B")))
def tokens_grow_over_a_new_handle(lab: Lab, worker: str) -> None:
    if lab.session.single_handle:
        return
    run = lab.started()
    for _ in range(2):
        run.acquire("alice", on=worker)
        run.release(on=worker)
        run.acquire("bob", 0, on=worker)
        lab.session.reopen(worker)
    run.acquire("carol", on=worker)
    run.append(token=run.token)
    run.look()


@checks("LEA-2", whole=True)
def closing_a_handle_ends_no_lease(lab: Lab) -> None:
    """A lease is its token, which another process may have by now, and not the handle that asked for it."""
    if lab.session.single_handle:
        return
    run = lab.started()
    run.acquire("alice", on="B")
    lab.session.close("B")
    run.acquire("bob")
    run.append(token=run.token)
    run.look()


def _impostors(run: RunUnderTest, old: Lease) -> list[tuple[str, Lease]]:
    held = run.lease
    return [
        ("another owner under the present token", Lease(run.run_id, "eve", held.token)),
        ("the old owner under the present token", Lease(run.run_id, old.owner, held.token)),
        ("the holder under its predecessor's token", Lease(run.run_id, held.owner, old.token)),
        ("the predecessor", old),
        ("a newer token", Lease(run.run_id, held.owner, held.token + 1)),
        (
            "a token that wraps to the present one in 64 bits",
            Lease(run.run_id, held.owner, held.token + 2**64),
        ),
        (
            "a token that wraps to the present one in 32 bits",
            Lease(run.run_id, held.owner, held.token + 2**32),
        ),
        ("token 0", Lease(run.run_id, held.owner, 0)),
        ("an owner in another case", Lease(run.run_id, held.owner.upper(), held.token)),
        ("an owner with a blank behind", Lease(run.run_id, f"{held.owner} ", held.token)),
    ]


IMPOSTORS = range(10)


@checks("LEA-5", cases=each(which=IMPOSTORS, ttl=(0, HOUR), before=("taken over", "released")))
def only_the_holder_renews(lab: Lab, which: int, ttl: float, before: str) -> None:
    with lab.arranging():
        run = lab.started()
        old = stale_lease(run, before)
    _, lease = _impostors(run, old)[which]
    if lease.token == 0 == run.token:
        return
    run.renew(lease, ttl)
    run.look()
    run.acquire("carol", on="B")
    run.append({"type": "holder"}, run.token)
    run.release()
    run.look()


@checks("LEA-5", cases=each(pair=NEAR))
def owners_that_are_nearly_equal_are_two(lab: Lab, pair: tuple[str, str]) -> None:
    run = lab.started()
    run.acquire(pair[0])
    run.renew(Lease(run.run_id, pair[1], run.token or 0))
    run.renew()
    run.look()


@checks("LEA-7", cases=each(pair=NEAR))
def an_owner_that_is_nearly_equal_releases_nothing(lab: Lab, pair: tuple[str, str]) -> None:
    run = lab.started()
    run.acquire(pair[0])
    run.release(Lease(run.run_id, pair[1], run.token or 0))
    run.look()


@checks("LEA-5", cases=each(which=IMPOSTORS))
def a_refused_renewal_does_not_revive_an_expired_lease(lab: Lab, which: int) -> None:
    with lab.arranging():
        run = lab.started()
        old = stale_lease(run, "taken over")
        run.renew(ttl=0)
    _, lease = _impostors(run, old)[which]
    if lease.token == 0 == run.token:
        return
    run.renew(lease, HOUR)
    run.acquire("carol")
    run.append({"type": "step"}, run.token)
    run.look()


@checks("LEA-5", cases=each(on=("A", "B"), first=(0, HOUR)))
def renewing_moves_the_expiry(lab: Lab, on: str, first: float) -> None:
    run = lab.started()
    with lab.arranging():
        run.acquire("alice", first)
    run.renew(ttl=HOUR, on=on)
    run.acquire("bob", on="B")
    run.append(token=run.token)
    run.renew(ttl=0, on=on)
    run.append(token=run.token)
    run.renew(ttl=HOUR, on=on)
    run.acquire("bob")
    run.renew(ttl=0.0, on=on)
    run.acquire("bob", on="B")
    run.append({"type": "step"}, run.token)
    run.look()


BRIEF = 0.4
"""Seconds: a lease of so many is cut to nothing where seconds are whole, whichever way they are rounded."""


def _no_real_time(session: Session) -> str:
    """Why the time that passes here says nothing about the adapter's leases."""
    return "the loop's time is virtual" if isinstance(session.subject.loop, ControlledLoop) else ""


@checks("LEA-5", cases=each(how=("acquire", "renew")), when=_no_real_time)
def a_lease_is_not_shorter_than_asked(lab: Lab, how: str) -> None:
    """Somebody else asks for the run until the ttl has passed. Only what is granted before that is a proof."""
    run = lab.started()
    run_id = run.run_id
    asked = time.monotonic()
    lease = lab.ask("acquire", run_id=run_id, owner="alice", ttl=BRIEF if how == "acquire" else HOUR).value
    if how == "renew" and isinstance(lease, Lease):
        asked = time.monotonic()
        lab.ask("renew", lease=lease, ttl=BRIEF)
    while isinstance(lease, Lease) and time.monotonic() - asked < BRIEF:
        taken = lab.ask("acquire", on="B", run_id=run_id, owner="bob", ttl=HOUR)
        passed = time.monotonic() - asked
        if isinstance(taken.value, Lease):
            if passed < BRIEF:
                lab.fail(f"a lease of {BRIEF:g} s was somebody else's to take after less than {passed:.2g} s")
            return
        lab.steps.pop()  # refused, as it should be
        time.sleep(0.01)  # between two questions


@checks("LEA-5", cases=each(how=("unknown", "unleased", "released", "another run's")))
def a_lease_that_is_not_there_cannot_be_renewed(lab: Lab, how: str) -> None:
    with lab.arranging():
        run, other = lab.started(), lab.started(lease="live")
        lease = Lease(run.run_id, "alice", 1)
        if how == "unknown":
            run = lab.run()
            lease = Lease(run.run_id, "alice", 1)
        elif how == "released":
            run.acquire("alice")
            lease = run.lease
            run.release()
        elif how == "another run's":
            lease = Lease(run.run_id, other.lease.owner, other.lease.token)
    run.renew(lease)
    run.look()
    if how != "unknown":
        run.append(token=None)
        run.acquire("bob", on="B")
        run.look()
    _still_held(other)


@checks(
    "LEA-6",
    cases=each(how=("append", "suspend", "complete", "fail", "load_with_snapshot", "renew", "release")),
)
def an_expired_lease_that_nobody_took_still_counts(lab: Lab, how: str) -> None:
    run = lab.started(events=1, lease="expired")
    if how == "renew":
        run.renew(ttl=HOUR, on="B")
        _still_held(run)
    elif how == "release":
        run.release(on="B")
        run.append(token=None)
    else:
        FENCED[how](run, run.token)
    run.look()


@checks("LEA-7", cases=each(state=ACTIVE, lease=("live", "expired")))
def releasing_unleases(lab: Lab, state: RunState, lease: str) -> None:
    run = lab.started(events=1, lease=lease, state=state)
    run.release(on="B")
    run.append(token=None)
    run.load_with_snapshot(None)
    run.look()
    run.acquire("bob")
    _still_held(run)


@checks("LEA-7", cases=each(which=IMPOSTORS, before=("taken over", "released")))
def only_the_holder_releases(lab: Lab, which: int, before: str) -> None:
    with lab.arranging():
        run = lab.started()
        old = stale_lease(run, before)
    _, lease = _impostors(run, old)[which]
    if lease.token == 0 == run.token:
        return
    run.release(lease)
    _still_held(run)
    run.release()
    run.look()


@checks("LEA-7", cases=each(how=("unknown", "unleased", "released", "another run's")))
def a_lease_that_is_not_there_cannot_be_released(lab: Lab, how: str) -> None:
    with lab.arranging():
        run, other = lab.started(), lab.started(lease="live")
        lease = Lease(run.run_id, "alice", 1)
        if how == "unknown":
            run = lab.run()
            lease = Lease(run.run_id, "alice", 1)
        elif how == "released":
            run.acquire("alice")
            lease = run.lease
            run.release()
        elif how == "another run's":
            lease = Lease(run.run_id, other.lease.owner, other.lease.token)
    run.release(lease)
    run.look()
    _still_held(other)


@checks("LEA-8", cases=each(operation=tuple(FENCED), then=("nothing", "another", "the same owner")))
def a_released_token_is_fenced_for_good(lab: Lab, operation: str, then: str) -> None:
    run = lab.started(events=1, lease="live")
    with lab.arranging():
        old = run.lease
        run.release()
        if then != "nothing":
            run.acquire("bob" if then == "another" else "alice")
    FENCED[operation](run, old.token)
    run.look()
    run.renew(old)
    run.release(old)
    FENCED[operation](run, old.token)
    run.append({"type": "step"}, run.token)
    run.look()


@checks("LEA-10", cases=each(ttl=lambda _: range(len(BAD_TTLS)), how=("acquire", "renew")))
def a_bad_ttl_is_refused(lab: Lab, ttl: int, how: str) -> None:
    bad: Any = BAD_TTLS[ttl]
    if how == "acquire":
        run = lab.started()
        run.acquire("alice", bad)
        run.append(token=None)
        run.look()
        run.acquire("alice")
    else:
        run = lab.started(lease="live")
        run.renew(ttl=bad)
    _still_held(run)


@checks("LEA-2", cases=each(state=TERMINAL))
def another_runs_finish_does_not_free_a_lease(lab: Lab, state: RunState) -> None:
    run = lab.started(lease="live")
    lab.started(lease="live", state=state)
    run.acquire("eve")
    _still_held(run)
