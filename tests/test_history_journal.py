"""The two judges of journal histories: they agree with each other, and with an oracle that tries every order."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from continuum_conformance.contract.records import Instance, Lease, Run, RunState, Snapshot
from continuum_conformance.history import (
    History,
    Model,
    Recorded,
    Status,
    check_linearizable,
    journal_model,
    judge,
)
from continuum_conformance.model import (
    EMPTY,
    Expiry,
    Kind,
    LeaseModel,
    Operation,
    Outcome,
    RunModel,
    Specification,
    World,
)

HERE = Instance("here")
FULL = Specification({"leases", "snapshots", "rich_terms", "opaque_run_ids"})
LASTING = 3600
THEN = datetime(2026, 1, 1, tzinfo=UTC)
UNKNOWN = Outcome(Kind.ERROR, error="JournalUnavailable", message="the connection broke", unknown=True)
OK = Outcome.of(None)


# -- histories by hand --


def entry(
    worker: str, name: str, outcome: Outcome, invoked: int, returned: int | None, run: str = "r", **rest: Any
) -> Recorded:
    named = {} if name in ("renew", "release", "take_snapshot") else {"run_id": run}
    return Recorded(
        Operation(name, {"instance": HERE, **named, **rest}, worker), outcome, invoked, returned, worker
    )


def append(
    worker: str,
    kind: str,
    at: tuple[int, int | None],
    *,
    token: int | None = None,
    out: Outcome = OK,
    run: str = "r",
) -> Recorded:
    return entry(worker, "append", out, *at, run=run, event={"type": kind}, lease_token=token)


def acquire(worker: str, token: int, at: tuple[int, int], *, ttl: float = LASTING) -> Recorded:
    return entry(worker, "acquire", Outcome.of(Lease("r", worker, token)), *at, owner=worker, ttl=ttl)


def load(worker: str, kinds: str, at: tuple[int, int], run: str = "r") -> Recorded:
    events = [{"type": kind, "seq": seq} for seq, kind in enumerate(kinds)]
    return entry(worker, "load", Outcome.of(events), *at, run=run)


def refused(error: str) -> Outcome:
    return Outcome(Kind.ERROR, error=error)


UNLEASED: World = {("here", "r"): RunModel("flow", None)}
EXPIRED: World = {
    ("here", "r"): RunModel("flow", None, lease=LeaseModel("A", 1, Expiry.EXPIRED), last_token=1)
}


def both(history: Sequence[Recorded], world: World) -> Status:
    """What both judges say, once they say the same."""
    near = judge(history, FULL, world).status
    general = check_linearizable(history, journal_model(FULL, world)).status
    assert near == general
    return near


def test_a_zombies_append_that_overlaps_the_takeover_is_ordered_before_it() -> None:
    history = [acquire("B", 2, (1, 4)), append("A", "x", (2, 6), token=1), load("B", "x", (7, 8))]
    assert both(history, EXPIRED) is Status.PASSED


def test_a_zombies_append_that_a_read_after_the_takeover_denies_is_wrong() -> None:
    history = [
        acquire("B", 2, (1, 2)),
        load("B", "", (3, 4)),
        append("A", "x", (1, 6), token=1),
        load("B", "x", (7, 8)),
    ]
    assert both(history, EXPIRED) is Status.FAILED


def test_a_zombies_append_after_the_takeover_is_wrong() -> None:
    assert both([acquire("B", 2, (1, 2)), append("A", "x", (3, 4), token=1)], EXPIRED) is Status.FAILED


def test_a_lost_append_is_wrong() -> None:
    history = [append("A", "x", (1, 3)), append("B", "y", (2, 4)), load("A", "y", (5, 6))]
    assert both(history, UNLEASED) is Status.FAILED


def test_two_loads_that_order_appends_differently_are_wrong() -> None:
    history = [
        append("A", "x", (1, 9)),
        append("B", "y", (1, 9)),
        load("A", "x", (2, 3)),
        load("B", "yx", (10, 11)),
    ]
    assert both(history, UNLEASED) is Status.FAILED


def test_two_acquires_that_both_won_are_wrong() -> None:
    assert both([acquire("B", 2, (1, 4)), acquire("C", 3, (2, 3))], EXPIRED) is Status.FAILED


def test_of_two_takeovers_the_later_has_the_greater_token() -> None:
    first, second = acquire("B", 3, (1, 2), ttl=0), acquire("C", 2, (3, 4), ttl=0)
    assert both([first, second], EXPIRED) is Status.FAILED
    assert both([replace(first, returned=3), second], EXPIRED) is Status.PASSED


def test_an_append_of_unknown_outcome_may_show_long_after() -> None:
    history = [
        append("A", "x", (1, 2), out=UNKNOWN),
        load("B", "", (3, 4)),
        load("B", "", (5, 6)),
        load("B", "x", (7, 8)),
    ]
    assert both(history, UNLEASED) is Status.PASSED


def test_a_takeover_shuts_out_an_append_of_unknown_outcome() -> None:
    history = [
        append("A", "x", (1, 2), token=1, out=UNKNOWN),
        acquire("B", 2, (3, 4)),
        load("B", "", (5, 6)),
        load("B", "x", (7, 8)),
    ]
    assert both(history, EXPIRED) is Status.FAILED


def test_an_append_of_unknown_outcome_does_not_happen_twice() -> None:
    history = [append("A", "x", (1, 2), out=UNKNOWN), load("B", "xx", (3, 4))]
    assert both(history, UNLEASED) is Status.FAILED


def test_an_acquire_of_unknown_outcome_fences_with_a_token_that_nobody_was_told() -> None:
    lost = entry("B", "acquire", UNKNOWN, 1, 2, owner="B", ttl=LASTING)
    history = [lost, append("A", "x", (3, 4), token=1, out=refused("LeaseMismatch"))]
    assert both(history, EXPIRED) is Status.PASSED
    assert both([*history, append("B", "y", (5, 6), token=2)], EXPIRED) is Status.PASSED
    assert (
        both(
            [*history, append("B", "y", (5, 6), token=2), append("B", "z", (7, 8), token=3)],
            EXPIRED,
        )
        is Status.FAILED
    )


def test_the_token_after_one_that_nobody_was_told_leaves_room_for_it() -> None:
    lost = entry("B", "acquire", UNKNOWN, 1, 2, owner="B", ttl=0)
    fenced = append("A", "x", (3, 4), token=1, out=refused("LeaseMismatch"))
    assert both([lost, fenced, acquire("C", 2, (5, 6))], EXPIRED) is Status.FAILED
    assert both([lost, fenced, acquire("C", 3, (5, 6))], EXPIRED) is Status.PASSED


def test_a_hang_counts_as_unknown() -> None:
    hang = Outcome(Kind.HANG, error="hang", unknown=True)
    assert both([append("A", "x", (1, None), out=hang), load("B", "x", (2, 3))], UNLEASED) is Status.PASSED


def test_a_worker_that_gave_up_is_not_accused_and_did_nothing() -> None:
    known = refused("JournalUnavailable")
    gave_up = replace(append("A", "x", (1, 2), out=known), gave_up=True)
    assert both([gave_up, load("B", "", (3, 4))], UNLEASED) is Status.PASSED
    assert both([gave_up, load("B", "x", (3, 4))], UNLEASED) is Status.FAILED
    assert both([replace(gave_up, gave_up=False)], UNLEASED) is Status.FAILED


def test_a_worker_that_gave_up_with_an_unknown_outcome_may_have_done_it() -> None:
    gave_up = replace(append("A", "x", (1, 2), out=UNKNOWN), gave_up=True)
    assert both([gave_up, load("B", "x", (3, 4))], UNLEASED) is Status.PASSED
    assert both([gave_up, load("B", "", (3, 4))], UNLEASED) is Status.PASSED


def test_contention_that_surfaces_is_wrong_when_nobody_was_held() -> None:
    history = [append("A", "x", (1, 4)), append("B", "y", (2, 3), out=refused("JournalUnavailable"))]
    assert both(history, UNLEASED) is Status.FAILED


def test_runs_are_judged_apart() -> None:
    world: World = {**UNLEASED, ("here", "s"): RunModel("flow", None)}
    good = [append("A", "x", (1, 2)), load("A", "x", (3, 4))]
    bad = [append("B", "x", (1, 2), run="s"), load("B", "", (3, 4), run="s")]
    verdict = judge([*good, *bad], FULL, world)
    assert verdict.failed
    assert verdict.explanation is not None
    assert verdict.explanation.key == ("here", "s")
    assert verdict.partitions == 2


def test_a_load_whose_seqs_are_wrong_is_wrong() -> None:
    events = [{"type": "x", "seq": 1}]
    history = [append("A", "x", (1, 2)), entry("A", "load", Outcome.of(events), 3, 4)]
    assert both(history, UNLEASED) is Status.FAILED


def test_a_payload_that_changed_its_type_is_wrong() -> None:
    written = entry("A", "append", OK, 1, 2, event={"type": "x", "n": 1}, lease_token=None)
    for n, status in ((1, Status.PASSED), (1.0, Status.FAILED), (True, Status.FAILED)):
        read = entry("A", "load", Outcome.of([{"n": n, "type": "x", "seq": 0}]), 3, 4)
        assert both([written, read], UNLEASED) is status


def test_eighty_appends_at_once_are_no_effort_for_the_journals_judge() -> None:
    names = [f"e{number}" for number in range(80)]
    writes = [append(f"w{number}", name, (number, 1000 + number)) for number, name in enumerate(names)]
    order = random.Random(5).sample(names, len(names))
    events = [{"type": name, "seq": seq} for seq, name in enumerate(order)]
    history = [*writes, entry("R", "load", Outcome.of(events), 2000, 2001)]
    verdict = judge(history, FULL, UNLEASED, orders=True)
    assert verdict.passed
    assert verdict.visited < 10_000
    happened = [each.operation.arguments["event"]["type"] for each in verdict.orders["here", "r"][:-1]]
    assert happened == order


def test_a_budget_that_ends_is_inconclusive() -> None:
    names = [f"e{number}" for number in range(12)]
    writes = [append(f"w{number}", name, (number, 100 + number)) for number, name in enumerate(names)]
    events = [{"type": name, "seq": seq} for seq, name in enumerate(reversed(names))]
    history = [*writes, entry("R", "load", Outcome.of(events), 200, 201)]
    verdict = check_linearizable(history, journal_model(FULL, UNLEASED), budget=500)
    assert verdict.status is Status.INCONCLUSIVE
    assert not verdict.passed
    assert not verdict.failed
    assert verdict.unfinished == (("here", "r"),)
    assert "inconclusive" in verdict.text
    assert judge(history, FULL, UNLEASED).passed


# -- random histories --


@dataclass
class Simulated:
    """A journal that does each call at one moment, after the specification, with several calls under way."""

    source: random.Random
    world: World
    unknown: float = 0.1

    def history(self, size: int, workers: int) -> list[Recorded]:
        clock = 0
        busy: dict[str, list[Any]] = {}  # worker: [operation, invoked, outcome when it took effect]
        late: list[Operation] = []
        done: list[Recorded] = []
        started = 0
        while busy or started < size:
            clock += self.source.choice((0, 1, 1, 1))
            if late and self.source.random() < 0.2:
                self._perform(late.pop(self.source.randrange(len(late))))
            idle = [name for name in "ABCD"[:workers] if name not in busy]
            if started < size and idle and (not busy or self.source.random() < 0.4):
                worker = self.source.choice(idle)
                busy[worker] = [self._operation(worker), clock, None]
                started += 1
                continue
            if not busy:
                continue
            worker = self.source.choice(sorted(busy))
            operation, invoked, outcome = busy[worker]
            if outcome is None:
                if self.source.random() < self.unknown:
                    fate = self.source.random()
                    if fate < 0.4:
                        self._perform(operation)
                    elif fate < 0.7:
                        late.append(operation)
                    busy[worker][2] = UNKNOWN
                else:
                    busy[worker][2] = self._perform(operation)
                continue
            del busy[worker]
            # Two stamps of one clock may be equal; an interval never ends before it began.
            done.append(Recorded(operation, outcome, invoked, clock, worker))
        return sorted(done, key=lambda each: each.invoked)

    def _operation(self, worker: str) -> Operation:
        draw = self.source
        run_id = "r" if draw.random() < 0.9 else "s"
        run = self.world.get(("here", run_id))
        known = [None, 1, 2, 3]
        if run is not None and run.lease is not None:
            known += [int(run.lease.token)] * 6
        else:
            known += [None] * 6
        token = draw.choice(known)
        name = draw.choice(
            ["append"] * 6
            + ["load"] * 3
            + ["acquire"] * 3
            + [
                "load_with_snapshot",
                "get_run",
                "suspend",
                "complete",
                "fail",
                "start_run",
                "renew",
                "release",
            ]
            + ["take_snapshot"]
        )
        arguments: dict[str, Any] = {"instance": HERE, "run_id": run_id}
        ttl = draw.choice((0, 0, LASTING, 5))
        if name == "append":
            event: dict[str, Any] = {"type": draw.choice("xyz"), "n": draw.choice((0, 1, 2, 3, True, 1.0))}
            if draw.random() < 0.2:
                event["seq"] = draw.choice((0, 1, 2, 3))
            arguments |= {"event": event, "lease_token": token}
        elif name in ("load_with_snapshot", "suspend"):
            arguments["lease_token"] = token
        elif name == "complete":
            arguments |= {"result": draw.choice((None, 1)), "lease_token": token}
        elif name == "fail":
            arguments |= {"error": draw.choice((None, "e")), "lease_token": token}
        elif name == "start_run":
            arguments |= {"workflow": "flow", "input": draw.choice((None, 1))}
        elif name == "acquire":
            arguments |= {"owner": worker, "ttl": ttl}
        elif name in ("renew", "release"):
            owner = run.lease.owner if run is not None and run.lease is not None else worker
            lease = Lease(run_id, owner, 1 if token is None else token)
            arguments = {"instance": HERE, "lease": lease} | ({"ttl": ttl} if name == "renew" else {})
        elif name == "take_snapshot":
            through = draw.choice((0, 0, 1, 2))
            snapshot = Snapshot(run_id, through, draw.choice((b"v", b"w")), THEN, {0: "s"})
            arguments = {"instance": HERE, "snapshot": snapshot}
        return Operation(name, arguments, worker)

    def _perform(self, operation: Operation) -> Outcome:
        due = FULL.expect(self.world, operation)
        refusals = [name for name in due.refusals if name != "NotDurable"]
        if not due.succeeds or (refusals and self.source.random() < 0.5):
            return Outcome(Kind.ERROR, error=self.source.choice(refusals))
        run = self.world.get(operation.key)
        value: Any = None
        if operation.name == "load":
            value = [dict(event) for event in run.events] if run is not None else []
        elif operation.name == "load_with_snapshot" and run is not None:
            first = 0 if run.latest is None else run.latest.through_seq + 1
            value = (run.latest, [dict(event) for event in run.events[first:]])
        elif operation.name == "get_run":
            value = None if run is None else run.record(operation.run_id)
        elif operation.name == "acquire" and run is not None:
            last = 0 if run.last_token is None else run.last_token
            value = Lease(
                operation.run_id, operation.arguments["owner"], last + self.source.choice((1, 1, 2))
            )
        following = FULL.step(self.world, operation, Outcome.of(value))
        assert isinstance(following, dict), following
        self.world = following
        return Outcome.of(value)


def mutated(history: list[Recorded], source: random.Random) -> list[Recorded]:
    """The history with one thing changed; often, not always, for the worse."""
    place = source.randrange(len(history))
    each = history[place]
    change = source.randrange(5)
    outcome, value = each.outcome, each.outcome.value
    if change == 0 and each.returned is not None:
        shift = source.choice((-3, -2, -1, 1, 2, 3))
        changed = replace(each, invoked=each.invoked + shift, returned=each.returned + shift)
    elif change == 1 and each.returned is not None:
        changed = replace(each, returned=max(each.invoked, each.returned - source.choice((1, 2, 3, 5))))
    elif change == 2:
        other = source.choice(history)
        changed = replace(each, outcome=other.outcome if other.operation.name == each.operation.name else OK)
        if changed.outcome is OK and each.operation.name in (
            "load",
            "load_with_snapshot",
            "get_run",
            "acquire",
        ):
            changed = each
    elif outcome.ok and isinstance(value, list) and value:
        events = value[:]
        if change == 3:
            del events[source.randrange(len(events))]
        else:
            events[source.randrange(len(events))] = {"type": "x", "n": 0, "seq": 0}
        if source.random() < 0.7:
            events = [{**event, "seq": seq} for seq, event in enumerate(events)]
        changed = replace(each, outcome=Outcome.of(events))
    elif outcome.ok and isinstance(value, Lease):
        changed = replace(
            each, outcome=Outcome.of(replace(value, token=value.token + source.choice((-1, 1))))
        )
    elif outcome.ok and isinstance(value, Run):
        changed = replace(each, outcome=Outcome.of(replace(value, state=source.choice(list(RunState)))))
    elif outcome.ok and value is None and each.operation.name != "get_run":
        changed = replace(
            each, outcome=refused(source.choice(("LeaseMismatch", "RunNotActive", "LeaseHeld")))
        )
    else:
        changed = replace(each, gave_up=True)
    return [*history[:place], changed, *history[place + 1 :]]


def explained_by_some_order(history: Sequence[Recorded], model: Model[Any]) -> bool:
    """The oracle: tries every order of every choice of the unknown operations. No memo, no cleverness."""
    parts: dict[Any, list[Recorded]] = {}
    for each in history:
        if each.counts:
            parts.setdefault(model.partition(each.operation), []).append(each)

    def orders(left: list[Recorded], state: Any) -> Iterator[None]:
        if all(each.unknown for each in left):
            yield None
            return
        for each in left:
            if any(other.precedes(each) for other in left):
                continue
            rest = [other for other in left if other is not each]
            if each.unknown:
                ways = list(model.step_unknown(state, each.operation)) if model.step_unknown else []
            else:
                following = model.step(state, each.operation, each.outcome)
                ways = [] if type(following).__name__ in ("Impossible", "NoneType") else [following]
            for way in ways:
                yield from orders(rest, way)

    return all(next(orders(part, model.init(key)), "none") is None for key, part in parts.items())


WORLDS = (EMPTY, UNLEASED, EXPIRED)


def agree(source: random.Random, size: int, *, oracle: bool) -> Status:
    world = source.choices(WORLDS, (1, 3, 3))[0]
    history = Simulated(source, world).history(size, source.choice((2, 3, 4)))
    model = journal_model(FULL, world)
    if source.random() < 0.7:
        for _ in range(source.choice((1, 1, 2))):
            history = mutated(history, source)
    else:
        assert judge(history, FULL, world).passed, History.of(history)
    near = judge(history, FULL, world)
    general = check_linearizable(history, model)
    assert near.status == general.status, history
    if oracle:
        assert near.passed == explained_by_some_order(history, model), history
    if near.explanation is not None:
        assert general.explanation is not None
        check_explanation(near.explanation, model)
        check_explanation(general.explanation, model)
    return near.status


def check_explanation(why: Any, model: Model[Any]) -> None:
    """What an explanation claims is so."""
    ended = [each for each in why.operations if each is not why.decisive]
    cut = [
        replace(each, returned=None, outcome=each.outcome)
        if each.returned is not None and each.returned >= why.decisive.returned
        else each
        for each in ended
    ]
    assert why.decisive in why.needed
    assert all(any(each is one for one in why.prefix) for each in why.operations)
    assert explained_by_some_order(cut, model)
    assert not explained_by_some_order([*why.operations], model)
    assert why.attempts
    assert why.headline[1:] in why.text


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False))
def test_the_judges_and_an_oracle_agree_on_small_histories(source: random.Random) -> None:
    agree(source, source.randint(2, 6), oracle=True)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False))
def test_the_two_judges_agree_on_larger_histories(source: random.Random) -> None:
    agree(source, source.randint(7, 16), oracle=False)


@pytest.mark.parametrize("seed", range(3))
def test_random_histories_are_right_and_wrong_ones(seed: int) -> None:
    source = random.Random(seed)
    said = {agree(source, 6, oracle=False) for _ in range(60)}
    assert said == {Status.PASSED, Status.FAILED}
