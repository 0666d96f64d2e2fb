"""The stateful machine: random programs over all operations, several runs, instances and handles.

Each program is drawn by Hypothesis, judged by the model after every step, and read through every handle at the
end. What it draws is steered: tokens are the present one, an old one, another run's, a forged one or None, and
finishes are rare, so that programs do not end up among terminal runs. How often each situation was reached is
counted and shown in the report.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from continuum_conformance.contract.records import Lease
from continuum_conformance.harness.bridge.dialogue import LeftOut
from continuum_conformance.model import Expiry
from continuum_conformance.suite.data import BAD_EVENTS, BAD_SEQS, BAD_TOKENS, any_term, events
from continuum_conformance.suite.lab import HOUR, Lab, RunUnderTest, Session
from continuum_conformance.suite.testing import Profile, Search, checks, hypothesis_settings
from continuum_conformance.suite.violation import Violation

__all__ = ["program"]

RUNS = 3
TOKENS = st.sampled_from(
    ["present"] * 5 + ["old", "old", "none", "none", "another run's", "newer", "forged", "malformed"]
)
LEASES = st.sampled_from(["present"] * 3 + ["old", "old", "another owner's", "another run's", "forged"])
SEQS = st.sampled_from(["none"] * 6 + ["next"] * 3 + ["duplicate", "gap", "negative", "malformed"])
TTLS = st.sampled_from([0, 0, HOUR, HOUR, 0.0])
WORKERS = st.sampled_from("AB")
OWNERS = st.sampled_from(["alice", "bob"])
SLOTS = st.integers(0, RUNS)


def _machine(session: Session, search: Search) -> type[RuleBasedStateMachine]:
    capabilities = session.capabilities
    leases, snapshots = "leases" in capabilities, "snapshots" in capabilities
    terms = any_term(capabilities)

    class JournalMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            search.begin()
            self.lab = Lab(session, (), "program")
            second = self.lab.fresh_instance()
            ids = [self.lab.fresh_run_id() for _ in range(RUNS)]
            # The last two are the first id again in another instance, and a run that is often unknown.
            self.runs = [self.lab.run(run_id) for run_id in ids]
            self.runs.append(self.lab.run(ids[0], second))
            self.granted: dict[tuple[str, str], list[Lease]] = {run.key: [] for run in self.runs}
            self.failed = False

        # -- drawing --

        def run_at(self, slot: int) -> RunUnderTest:
            return self.runs[slot % len(self.runs)]

        def known(self, run: RunUnderTest) -> bool:
            return run.key in self.lab.world

        def token_for(self, run: RunUnderTest, choice: str, number: int) -> object:
            """The token of the given kind, or None where there is none of it yet."""
            model = self.lab.world.get(run.key)
            present = model.lease.token if model is not None and model.lease is not None else None
            if not leases:
                return None if choice in ("present", "old", "none", "another run's") else number
            if choice == "present":
                return present
            if choice == "old":
                old = [lease.token for lease in self.granted[run.key] if lease.token != present]
                return old[number % len(old)] if old else present
            if choice == "another run's":
                others = [held.token for key, held in self._others(run)]
                return others[number % len(others)] if others else present
            if choice == "newer":
                return (present or 0) + 1 + number
            if choice == "forged":
                return -1 - number
            if choice == "malformed":
                return BAD_TOKENS[number % len(BAD_TOKENS)]
            return None

        def _others(self, run: RunUnderTest) -> list[tuple[tuple[str, str], Lease]]:
            return [(key, lease) for key, held in self.granted.items() if key != run.key for lease in held]

        def lease_for(self, run: RunUnderTest, choice: str, number: int) -> Lease:
            held = self.granted[run.key]
            present = held[-1] if held else Lease(run.run_id, "alice", 1)
            if choice == "old" and len(held) > 1:
                return held[number % (len(held) - 1)]
            if choice == "another owner's":
                return Lease(run.run_id, "eve", present.token)
            if choice == "another run's":
                others = self._others(run)
                if others:
                    lease = others[number % len(others)][1]
                    return Lease(run.run_id, lease.owner, lease.token)
            if choice == "forged":
                return Lease(run.run_id, present.owner, present.token + 1 + number)
            return present

        def count(self, run: RunUnderTest, token: object = None, *, fenced: bool = False) -> None:
            model = self.lab.world.get(run.key)
            if model is None:
                self.lab.count("unknown run")
                return
            if model.state.terminal:
                self.lab.count("terminal run")
            if model.lease is not None and model.lease.expiry is Expiry.EXPIRED:
                self.lab.count("expired lease")
            present = model.lease.token if model.lease is not None else None
            if fenced and token != present:
                self.lab.count("wrong token")

        def judged(self, act: Callable[[], object], run: RunUnderTest, worker: str) -> None:
            """Act, then read the run through one handle."""
            try:
                act()
                self.lab.look(run.key, on=worker)
            except LeftOut:
                search.result.left_out += 1
            except Violation as violation:
                self.failed = True
                search.found(violation)
                raise

        # -- rules --

        @initialize(slot=SLOTS, given=terms)
        def first(self, slot: int, given: object) -> None:
            # All but one run exist from the beginning; one of them may be leased already.
            for number, run in enumerate(self.runs):
                if number != 2:
                    self.judged(partial(run.start, "checkout", given), run, "A")
            if leases and slot < len(self.runs) and slot != 2:
                self.acquire_as(self.runs[slot], "alice", HOUR, "A")

        @rule(slot=SLOTS, on=WORKERS, read=WORKERS, given=terms)
        def start_run(self, slot: int, on: str, read: str, given: object) -> None:
            run = self.run_at(slot)
            self.count(run)
            self.judged(lambda: run.start(f"workflow{slot}", given, on=on), run, read)

        @rule(
            slot=SLOTS,
            on=WORKERS,
            read=WORKERS,
            token=TOKENS,
            seq=SEQS,
            number=st.integers(0, 5),
            event=events(capabilities),
        )
        def append(
            self, slot: int, on: str, read: str, token: str, seq: str, number: int, event: dict[str, object]
        ) -> None:
            run = self.run_at(slot)
            fencing = self.token_for(run, token, number)
            self.count(run, fencing, fenced=True)
            length = len(run.model.events) if self.known(run) else 0
            seqs: dict[str, object] = {
                "next": length,
                "duplicate": max(0, length - 1 - number),
                "gap": length + 1 + number,
                "negative": -1 - number,
                "malformed": BAD_SEQS[number % len(BAD_SEQS)],
            }
            given = {**event, "seq": seqs[seq]} if seq in seqs else event
            self.judged(lambda: run.append(given, fencing, on=on), run, read)

        @rule(slot=SLOTS, which=st.integers(0, len(BAD_EVENTS) - 1), on=WORKERS)
        def append_what_is_no_event(self, slot: int, which: int, on: str) -> None:
            run = self.run_at(slot)
            bad = BAD_EVENTS[which] if BAD_EVENTS[which] is not None else "None"
            token = self.token_for(run, "present", 0)
            self.judged(lambda: run.append(bad, token, on=on), run, on)

        @rule(slot=SLOTS, on=WORKERS, read=WORKERS, token=TOKENS, number=st.integers(0, 5))
        def suspend(self, slot: int, on: str, read: str, token: str, number: int) -> None:
            run = self.run_at(slot)
            fencing = self.token_for(run, token, number)
            self.count(run, fencing, fenced=True)
            self.judged(lambda: run.suspend(fencing, on=on), run, read)

        @rule(
            slot=SLOTS,
            on=WORKERS,
            read=WORKERS,
            token=TOKENS,
            number=st.integers(0, 5),
            how=st.sampled_from(["complete", "fail"]),
            term=terms,
            rare=st.integers(0, 3),
        )
        def finish(
            self, slot: int, on: str, read: str, token: str, number: int, how: str, term: object, rare: int
        ) -> None:
            run = self.run_at(slot)
            if rare and token == "present":
                token = "old"  # most finishes are tried by one who may not
            fencing = self.token_for(run, token, number)
            self.count(run, fencing, fenced=True)
            act = run.complete if how == "complete" else run.fail
            self.judged(lambda: act(term, fencing, on=on), run, read)

        @rule(slot=SLOTS, on=WORKERS, token=TOKENS, number=st.integers(0, 5))
        def load_with_snapshot(self, slot: int, on: str, token: str, number: int) -> None:
            run = self.run_at(slot)
            fencing = self.token_for(run, token, number)
            self.count(run, fencing, fenced=True)
            self.judged(lambda: run.load_with_snapshot(fencing, on=on), run, on)

        @precondition(lambda _self: leases)
        @rule(slot=SLOTS, on=WORKERS, read=WORKERS, owner=OWNERS, ttl=TTLS)
        def acquire(self, slot: int, on: str, read: str, owner: str, ttl: float) -> None:
            run = self.run_at(slot)
            self.count(run)

            self.acquire_as(run, owner, ttl, on, read)

        def acquire_as(self, run: RunUnderTest, owner: str, ttl: float, on: str, read: str = "A") -> None:
            def act() -> None:
                outcome = run.acquire(owner, ttl, on=on)
                if outcome.ok:
                    self.granted[run.key].append(outcome.value)

            self.judged(act, run, read)

        @precondition(lambda _self: leases)
        @rule(slot=SLOTS, on=WORKERS, read=WORKERS, lease=LEASES, number=st.integers(0, 5), ttl=TTLS)
        def renew(self, slot: int, on: str, read: str, lease: str, number: int, ttl: float) -> None:
            run = self.run_at(slot)
            given = self.lease_for(run, lease, number)
            self.count(run)
            self.judged(lambda: run.renew(given, ttl, on=on), run, read)

        @precondition(lambda _self: leases)
        @rule(slot=SLOTS, on=WORKERS, read=WORKERS, lease=LEASES, number=st.integers(0, 5))
        def release(self, slot: int, on: str, read: str, lease: str, number: int) -> None:
            run = self.run_at(slot)
            given = self.lease_for(run, lease, number)
            self.count(run)
            self.judged(lambda: run.release(given, on=on), run, read)

        @precondition(lambda _self: snapshots)
        @rule(
            slot=SLOTS,
            on=WORKERS,
            read=WORKERS,
            back=st.sampled_from([0, 0, 1, 1, 2, 3, -1, 9]),
            steps=st.dictionaries(st.integers(0, 3), st.sampled_from([None, 0, False, "a", [1]]), max_size=2),
        )
        def take_snapshot(self, slot: int, on: str, read: str, back: int, steps: dict[int, object]) -> None:
            run = self.run_at(slot)
            self.count(run)
            length = len(run.model.events) if self.known(run) else 0
            self.judged(lambda: run.snapshot(length - 1 - back, steps, on=on), run, read)

        def teardown(self) -> None:
            if self.failed:
                return
            try:
                self.lab.look_everywhere(*(run.key for run in self.runs))
            except Violation as violation:
                search.found(violation)
                raise
            search.result.advice.update(self.lab.advice)

    return JournalMachine


@checks("ISO-3", "APP-10", program=True)
def program(session: Session, profile: Profile, seed: int, search: Search) -> None:
    """Random programs over everything, compared with the model after each step."""
    machine = hypothesis.seed(seed)(_machine(session, search))
    run_state_machine_as_test(machine, settings=hypothesis_settings(profile, profile.programs))
