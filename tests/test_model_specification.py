"""The executable specification, clause by clause: what is right here, what is wrong, and which clause says so.

A case is a situation, an operation, the outcomes that are right (all others are wrong), and the clauses that a
wrong one is reported under.
"""

import itertools
import math
import threading
from collections import OrderedDict
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from continuum_conformance.contract import CLAUSES, ERRORS, Instance, Lease, Run, RunState, Snapshot
from continuum_conformance.contract.arguments import MAX_TTL
from continuum_conformance.contract.capabilities import CAPABILITIES, CORE
from continuum_conformance.contract.clauses import in_force
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.terms import shown
from continuum_conformance.model import (
    EMPTY,
    Aspect,
    Expiry,
    Impossible,
    Kind,
    Operation,
    Outcome,
    Specification,
)
from continuum_conformance.suite.data import (
    BAD_EVENTS,
    BAD_NAMES,
    BAD_SEQS,
    BAD_TOKENS,
    BAD_TTLS,
    FALSY,
    RICH,
)

SHOP = Instance("shop")
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ALL = Specification(frozenset(CAPABILITIES))
NO_LEASES = Specification(frozenset(CAPABILITIES) - {"leases"})
NO_SNAPSHOTS = Specification(frozenset(CAPABILITIES) - {"snapshots"})
NO_RICH = Specification(frozenset(CAPABILITIES) - {"rich_terms"})
NO_OPAQUE = Specification(frozenset(CAPABILITIES) - {"opaque_run_ids"})
NONE_AT_ALL = Specification(frozenset())

OK = Outcome.of(None)
HUGE = 2**70
MANY_DIGITS = 10**5000
UUID_TEXT = "12345678-1234-5678-1234-567812345678"


def named(value):
    """A parameter's name where its text is always the same; else pytest makes one, as xdist's workers must agree."""
    return shown(value, 20) if isinstance(value, (str, bytes, int, float, type(None))) else None


def call(name: str, *given: Any, run_id: Any = "r", instance: Any = SHOP) -> Operation:
    """An operation on run `r` of `shop`, unless told otherwise."""
    names = OPERATIONS[name][1:]
    values = (run_id, *given) if names[0] == "run_id" else given
    return Operation(name, {"instance": instance, **dict(zip(names, values, strict=True))})


def start(given: Any = None, workflow: Any = "w", **where: Any) -> Operation:
    return call("start_run", workflow, given, **where)


def append(token: Any = None, event: Any = None, **where: Any) -> Operation:
    return call("append", {"type": "step"} if event is None else event, token, **where)


def acquire(ttl: Any = 3600, owner: Any = "bob", **where: Any) -> Operation:
    return call("acquire", owner, ttl, **where)


def renew(token: Any, ttl: Any = 3600, owner: Any = "alice", run_id: Any = "r", **where: Any) -> Operation:
    return call("renew", Lease(run_id, owner, token), ttl, **where)


def release(token: Any, owner: Any = "alice", run_id: Any = "r", **where: Any) -> Operation:
    return call("release", Lease(run_id, owner, token), **where)


def snapshot(through: Any, steps: Any = None, run_id: Any = "r", **changes: Any) -> Operation:
    fields = {"version_hash": b"v", "taken_at": NOON, "steps_by_seq": {0: 1} if steps is None else steps}
    return call("take_snapshot", Snapshot(run_id, through, **{**fields, **changes}))


def lease(token: Any, owner: str = "bob", run_id: str = "r") -> Outcome:
    return Outcome.of(Lease(run_id, owner, token))


def error(name: str, path: str | None = None) -> Outcome:
    return Outcome(Kind.ERROR, error=name, path=path)


def after(*steps: Any, on: Specification = ALL) -> Any:
    """The world after operations, each with its outcome where that is not None."""
    world: Any = EMPTY
    for step in steps:
        operation, outcome = step if isinstance(step, tuple) else (step, OK)
        world = on.step(world, operation, outcome)
        assert not isinstance(world, Impossible), world
    return world


def complete(token: Any = None, result: Any = "done", **where: Any) -> Operation:
    return call("complete", result, token, **where)


def fail(token: Any = None, reason: Any = "why", **where: Any) -> Operation:
    return call("fail", reason, token, **where)


def suspend(token: Any = None, **where: Any) -> Operation:
    return call("suspend", token, **where)


def look(token: Any = None, **where: Any) -> Operation:
    return call("load_with_snapshot", token, **where)


ALICE = (acquire(owner="alice"), lease(5, "alice"))
SITUATIONS = {
    "unknown": EMPTY,
    "new": after(start()),
    "two events": after(start(), append(), append()),
    "suspended": after(start(), append(), suspend()),
    "leased": after(start(), append(), ALICE),
    "leased and suspended": after(start(), ALICE, suspend(5)),
    "expired": after(start(), (acquire(0, "alice"), lease(5, "alice"))),
    "short": after(start(), (acquire(0.5, "alice"), lease(5, "alice"))),
    "renewed to 0": after(start(), ALICE, renew(5, 0)),
    "released": after(start(), ALICE, release(5)),
    "completed": after(start(), append(), complete()),
    "failed": after(start(), append(), fail()),
    "completed under a lease": after(start(), append(), ALICE, complete(5)),
    "failed under a lease": after(start(), ALICE, fail(5)),
    "with a snapshot": after(start(), append(), append(), append(), snapshot(1, {1: (1, "x")})),
    "completed with a snapshot": after(start(), append(), snapshot(0), complete()),
}

WRITES = {"append": append, "suspend": suspend, "complete": complete, "fail": fail}


def tried(spec: Specification, world: Any, operation: Operation, outcome: Outcome) -> Any:
    return spec.step(world, operation, outcome)


def assert_judged(
    spec: Specification, world: Any, operation: Operation, right: set[str], *clauses: str, value: Any = None
) -> None:
    """Exactly the outcomes in `right` are possible ("ok", or errors by name); others are reported under `clauses`."""
    outcomes = {"ok": Outcome.of(value), **{name: error(name) for name in (*ERRORS, "NotImplementedError")}}
    verdicts = {name: spec.step(world, operation, outcome) for name, outcome in outcomes.items()}
    possible = {name for name, verdict in verdicts.items() if not isinstance(verdict, Impossible)}
    assert possible == right
    for name in set(verdicts) - possible:
        assert set(clauses) <= set(verdicts[name].clauses), (name, verdicts[name])
    for name in possible - {"ok"}:
        assert verdicts[name] is world, "a refusal changes nothing"


# -- fencing: every write in every situation with every token --

FENCED = [
    # situation, token, right outcomes, clauses
    ("new", None, {"ok"}, "FEN-3"),
    ("new", 5, {"LeaseMismatch"}, "FEN-4"),
    ("new", 0, {"LeaseMismatch"}, "FEN-4"),
    ("suspended", None, {"ok"}, "FEN-3"),
    ("released", None, {"ok"}, "FEN-3"),
    ("released", 5, {"LeaseMismatch"}, "FEN-4"),
    ("leased", 5, {"ok"}, "FEN-1"),
    ("leased", None, {"LeaseMismatch"}, "FEN-3"),
    ("leased", 4, {"LeaseMismatch"}, "FEN-2"),
    ("leased", 6, {"LeaseMismatch"}, "FEN-2"),
    ("leased", -5, {"LeaseMismatch"}, "FEN-2"),
    ("leased", 5 + 2**32, {"LeaseMismatch"}, "FEN-2"),
    ("leased", HUGE, {"LeaseMismatch", "InvalidArgument"}, "FEN-2"),
    ("leased", 2**63, {"LeaseMismatch", "InvalidArgument"}, "FEN-2"),
    ("leased", 2**63 - 1, {"LeaseMismatch"}, "FEN-2"),
    ("leased", -(2**63), {"LeaseMismatch"}, "FEN-2"),
    ("leased", -HUGE, {"LeaseMismatch", "InvalidArgument"}, "FEN-2"),
    ("leased", MANY_DIGITS, {"LeaseMismatch", "InvalidArgument"}, "FEN-2"),
    ("new", HUGE, {"LeaseMismatch", "InvalidArgument"}, "FEN-4"),
    ("expired", 5, {"ok"}, "LEA-6"),
    ("expired", None, {"LeaseMismatch"}, "FEN-3"),
    ("renewed to 0", 5, {"ok"}, "LEA-6"),
    ("renewed to 0", None, {"LeaseMismatch"}, "FEN-3"),
    ("leased and suspended", 5, {"ok"}, "FEN-1"),
    ("leased and suspended", None, {"LeaseMismatch"}, "FEN-3"),
]


@pytest.mark.parametrize(("situation", "token", "right", "clause"), FENCED, ids=named)
@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_fenced(write, situation, token, right, clause):
    assert_judged(ALL, SITUATIONS[situation], WRITES[write](token), right, clause)


@pytest.mark.parametrize(("situation", "token", "right", "clause"), FENCED, ids=named)
def test_load_with_snapshot_is_fenced(situation, token, right, clause):
    world = SITUATIONS[situation]
    value = (None, list(world["shop", "r"].events))
    cited = clause if "ok" not in right else "SNP-1"
    assert_judged(ALL, world, look(token), right, cited, value=value)


@pytest.mark.parametrize("situation", ["new", "leased", "expired", "completed", "unknown"])
@pytest.mark.parametrize("token", BAD_TOKENS)
@pytest.mark.parametrize("write", WRITES)
def test_a_token_that_is_no_integer_is_never_accepted(write, token, situation):
    due = ALL.expect(SITUATIONS[situation], WRITES[write](token))
    assert not due.succeeds
    assert due.refusals["InvalidArgument"] == ("FEN-7",)


def test_no_bool_and_no_float_passes_for_the_token_1():
    world = after(start(), (acquire(owner="alice"), lease(1, "alice")))
    for token in (True, 1.0, Decimal(1)):
        assert not ALL.expect(world, append(token)).succeeds
        assert not ALL.expect(world, look(token)).succeeds
        assert "LeaseLost" in ALL.expect(world, renew(token)).refusals
        assert not ALL.expect(world, release(token)).succeeds


@pytest.mark.parametrize("token", [0, 5, HUGE, *BAD_TOKENS])
@pytest.mark.parametrize("write", [*WRITES.values(), look])
def test_without_leases_a_token_is_refused(write, token):
    world = after(start(), on=NO_LEASES)
    assert_judged(NO_LEASES, world, write(token), {"InvalidArgument"}, "FEN-8", value=(None, []))


def test_other_runs_tokens_are_the_same_only_when_the_numbers_are():
    both = after(
        start(), start(run_id="s"), ALICE, (acquire(owner="alice", run_id="s"), lease(5, "alice", "s"))
    )
    assert_judged(ALL, both, append(5, run_id="s"), {"ok"}, "FEN-1")
    other = after(
        start(), start(run_id="s"), ALICE, (acquire(owner="alice", run_id="s"), lease(7, "alice", "s"))
    )
    assert_judged(ALL, other, append(5, run_id="s"), {"LeaseMismatch"}, "FEN-2")


# -- unknown and terminal runs --


@pytest.mark.parametrize("write", WRITES)
def test_an_unknown_run_is_not_found(write):
    clause = "APP-5" if write == "append" else "FIN-4"
    assert_judged(ALL, EMPTY, WRITES[write](), {"RunNotFound"}, clause)
    assert_judged(ALL, EMPTY, WRITES[write](5), {"RunNotFound", "LeaseMismatch"}, clause)
    assert_judged(
        ALL, EMPTY, WRITES[write](HUGE), {"RunNotFound", "LeaseMismatch", "InvalidArgument"}, clause
    )
    assert_judged(NO_LEASES, EMPTY, WRITES[write](5), {"RunNotFound", "InvalidArgument"}, "FEN-8")


def test_reading_an_unknown_run():
    assert_judged(ALL, EMPTY, look(), {"RunNotFound"}, "SNP-11", value=(None, []))
    assert_judged(NONE_AT_ALL, EMPTY, look(run_id=UUID_TEXT), {"RunNotFound"}, "SNP-11", value=(None, []))
    assert_judged(ALL, EMPTY, call("get_run"), {"ok"}, "RUN-4")
    assert_judged(ALL, EMPTY, call("load"), {"ok"}, "RUN-4", value=[])
    for operation, wrong in (
        (call("load"), [{"type": "x", "seq": 0}]),
        (call("get_run"), Run("r", "w", RunState.RUNNING)),
    ):
        verdict = ALL.step(EMPTY, operation, Outcome.of(wrong))
        assert isinstance(verdict, Impossible)
        assert verdict.clauses == ("RUN-4",)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(
    ("situation", "token", "right"),
    [
        ("completed", None, {"RunNotActive"}),
        ("failed", None, {"RunNotActive"}),
        ("completed", 5, {"RunNotActive", "LeaseMismatch"}),
        ("completed", HUGE, {"RunNotActive", "LeaseMismatch", "InvalidArgument"}),
        ("completed under a lease", None, {"RunNotActive", "LeaseMismatch"}),
        ("completed under a lease", 5, {"RunNotActive", "LeaseMismatch"}),
        ("completed under a lease", 6, {"RunNotActive", "LeaseMismatch"}),
        ("failed under a lease", 5, {"RunNotActive", "LeaseMismatch"}),
    ],
)
def test_terminal_is_final(write, situation, token, right):
    clauses = ("APP-6", "FIN-3") if write == "append" else ("FIN-3",)
    assert_judged(ALL, SITUATIONS[situation], WRITES[write](token), right, *clauses)


@pytest.mark.parametrize(
    ("situation", "token", "right"),
    [
        ("completed", None, {"ok"}),
        ("completed", 5, {"ok", "LeaseMismatch"}),
        ("completed", HUGE, {"ok", "LeaseMismatch", "InvalidArgument"}),
        ("completed under a lease", None, {"ok", "LeaseMismatch"}),
        ("completed under a lease", 5, {"ok", "LeaseMismatch"}),
        ("failed under a lease", 4, {"ok", "LeaseMismatch"}),
        ("completed under a lease", True, {"InvalidArgument", "LeaseMismatch"}),
    ],
)
def test_load_with_snapshot_of_a_terminal_run(situation, token, right):
    world = SITUATIONS[situation]
    clause = "FEN-7" if token is True else "FIN-7"
    assert_judged(ALL, world, look(token), right, clause, value=(None, list(world["shop", "r"].events)))


def test_a_terminal_run_cannot_be_started_again():
    assert_judged(ALL, SITUATIONS["completed"], start(), {"RunAlreadyExists"}, "RUN-3")
    assert_judged(ALL, SITUATIONS["failed"], start(), {"RunAlreadyExists"}, "RUN-3")
    assert_judged(ALL, SITUATIONS["leased"], start(), {"RunAlreadyExists"}, "RUN-2")


# -- starting, finishing and reading --


@pytest.mark.parametrize("term", [*FALSY, *RICH, MANY_DIGITS], ids=named)
def test_a_term_reads_back_as_it_was_and_in_no_other_way(term):
    for operation, field, state in (
        (start(term), "input", RunState.RUNNING),
        (complete(None, term), "result", RunState.COMPLETED),
        (fail(None, term), "error", RunState.FAILED),
    ):
        world = after(operation) if field == "input" else after(start(), operation)
        due = Run("r", "w", state, **{field: term})
        assert ALL.step(world, call("get_run"), Outcome.of(due)) is world
        others = [one for one in FALSY if shown(one) != shown(term)]
        for other in (*others[:4], "None", [term]):
            verdict = ALL.step(world, call("get_run"), Outcome.of(replace(due, **{field: other})))
            assert isinstance(verdict, Impossible)
            assert verdict.aspect is Aspect.RECORD


def test_suspending_twice_is_no_error_and_a_suspended_run_is_finished():
    assert_judged(ALL, SITUATIONS["suspended"], suspend(), {"ok"}, "FIN-1")
    assert_judged(ALL, SITUATIONS["suspended"], complete(), {"ok"}, "FIN-2")
    assert_judged(ALL, SITUATIONS["suspended"], append(), {"ok"}, "APP-7")
    world = after(start(), suspend(), append())
    assert world["shop", "r"].state is RunState.SUSPENDED
    assert after(start(), ALICE, suspend(5))["shop", "r"].lease.token == 5


@pytest.mark.parametrize(
    ("changes", "aspect"),
    [
        ({"state": RunState.SUSPENDED}, Aspect.STATE),
        ({"workflow": "W"}, Aspect.RECORD),
        ({"run_id": "R"}, Aspect.RECORD),
        ({"result": "x"}, Aspect.RECORD),
        ({"error": False}, Aspect.RECORD),
        ({"input": 0}, Aspect.RECORD),
    ],
)
def test_a_record_that_differs_is_told(changes, aspect):
    world = SITUATIONS["new"]
    right = Run("r", "w", RunState.RUNNING)
    assert ALL.step(world, call("get_run"), Outcome.of(right)) is world
    verdict = ALL.step(world, call("get_run"), Outcome.of(replace(right, **changes)))
    assert isinstance(verdict, Impossible)
    assert verdict.aspect is aspect
    missing = ALL.step(world, call("get_run"), OK)
    assert isinstance(missing, Impossible)
    assert missing.aspect is Aspect.EXISTENCE


@pytest.mark.parametrize("situation", SITUATIONS)
def test_reads_are_never_fenced_and_change_nothing(situation):
    world = SITUATIONS[situation]
    run = world.get(("shop", "r"))
    assert ALL.step(world, call("load"), Outcome.of(list(run.events) if run else [])) is world
    assert ALL.step(world, call("get_run"), Outcome.of(run.record("r") if run else None)) is world
    for operation in (call("load"), call("get_run")):
        for name in ("LeaseMismatch", "RunNotActive", "RunNotFound", "JournalUnavailable"):
            assert isinstance(ALL.step(world, operation, error(name)), Impossible)


EVENTS = [{"type": "step", "seq": 0}, {"type": "step", "seq": 1}]


@pytest.mark.parametrize(
    "events",
    [
        [],
        EVENTS[:1],
        EVENTS[::-1],
        [*EVENTS, {"type": "step", "seq": 2}],
        [EVENTS[0], EVENTS[0]],
        [EVENTS[0], {"type": "step", "seq": True}],
        [EVENTS[0], {"type": "step", "seq": 1.0}],
        [EVENTS[0], {"type": "step"}],
        [EVENTS[0], {"type": "step", "seq": 2}],
        [EVENTS[0], {"type": "step", "seq": None}],
        [EVENTS[0], {"type": "step", "seq": MANY_DIGITS}],
        [EVENTS[0], {"type": "step", "seq": 1, "extra": None}],
        [{}, {}],
    ],
    ids=named,
)
def test_a_history_that_differs_is_told(events):
    world = SITUATIONS["two events"]
    assert ALL.step(world, call("load"), Outcome.of([dict(event) for event in EVENTS])) is world
    verdict = ALL.step(world, call("load"), Outcome.of(events))
    assert isinstance(verdict, Impossible)
    assert verdict.clauses == ("LOD-1",)
    assert verdict.aspect is Aspect.EVENTS


def test_the_order_of_an_events_keys_is_only_advice():
    world = after(start(), append(None, {"type": "step", "b": 1, "a": 2}))
    assert ALL.step(world, call("load"), Outcome.of([{"seq": 0, "a": 2, "b": 1, "type": "step"}])) is world


# -- appending --


@pytest.mark.parametrize(
    ("seq", "right", "clause"),
    [
        (2, {"ok"}, "APP-2"),
        (None, {"ok"}, "APP-1"),
        (1, {"SequenceConflict"}, "APP-2"),
        (0, {"SequenceConflict"}, "APP-2"),
        (3, {"SequenceConflict"}, "APP-2"),
        (-1, {"SequenceConflict"}, "APP-2"),
        (2 + 2**32, {"SequenceConflict"}, "APP-2"),
        (2**63 - 1, {"SequenceConflict"}, "APP-2"),
        (HUGE, {"SequenceConflict", "InvalidArgument"}, "APP-2"),
        (-HUGE, {"SequenceConflict", "InvalidArgument"}, "APP-2"),
        (2**64 + 2, {"SequenceConflict", "InvalidArgument"}, "APP-2"),
        *((seq, {"InvalidArgument"}, "APP-3") for seq in BAD_SEQS),
    ],
)
def test_an_explicit_seq_must_be_the_next(seq, right, clause):
    assert_judged(ALL, SITUATIONS["two events"], append(None, {"type": "step", "seq": seq}), right, clause)


def test_a_seq_of_1_is_not_true():
    world = after(start(), append())
    assert_judged(ALL, world, append(None, {"type": "step", "seq": True}), {"InvalidArgument"}, "APP-3")


def test_an_enormous_seq_may_be_called_too_large_as_well():
    right = {"SequenceConflict", "InvalidArgument", "NotDurable"}
    assert_judged(ALL, SITUATIONS["new"], append(None, {"type": "step", "seq": MANY_DIGITS}), right)


def test_several_reasons_to_refuse_an_append():
    conflict = {"type": "step", "seq": 7}
    assert_judged(ALL, SITUATIONS["completed"], append(None, conflict), {"RunNotActive", "SequenceConflict"})
    assert_judged(ALL, SITUATIONS["leased"], append(4, conflict), {"LeaseMismatch", "SequenceConflict"})
    assert_judged(ALL, EMPTY, append(None, {"type": "step", "seq": -1}), {"RunNotFound", "SequenceConflict"})
    undurable = {"type": "step", "seq": 7, "owner": print}
    assert {"NotDurable", "SequenceConflict"} == set(
        ALL.expect(SITUATIONS["new"], append(None, undurable)).refusals
    )
    nameless = {"type": "", "owner": print}
    assert {"InvalidArgument", "NotDurable"} == set(
        ALL.expect(SITUATIONS["new"], append(None, nameless)).refusals
    )
    nothing = append(True, {"type": "step", "seq": 7}, run_id="")
    assert {"InvalidArgument", "RunNotFound", "SequenceConflict", "LeaseMismatch"} == set(
        ALL.expect(EMPTY, nothing).refusals
    )


@pytest.mark.parametrize("event", BAD_EVENTS, ids=named)
def test_a_malformed_event_is_refused(event):
    assert_judged(ALL, SITUATIONS["new"], append(None, event or {}), {"InvalidArgument"}, "APP-4")
    keyed = isinstance(event, dict) and not all(isinstance(key, str) for key in event)
    right = {"InvalidArgument", "NotDurable"} if keyed else {"InvalidArgument"}
    assert_judged(NO_RICH, SITUATIONS["new"], append(None, event or {}), right, "APP-4")


@pytest.mark.parametrize("event", [OrderedDict(type="step"), MappingProxyType({"type": "step"})], ids=named)
def test_other_mappings_are_the_adapters_choice(event):
    assert_judged(ALL, SITUATIONS["new"], append(None, event), {"ok", "InvalidArgument", "NotDurable"})


def test_what_an_append_leaves():
    world = after(
        start(), append(None, {"type": "a", "seq": None, "x": [1]}), append(None, {"seq": 1, "type": "b"})
    )
    assert world["shop", "r"].events == ({"type": "a", "x": [1], "seq": 0}, {"seq": 1, "type": "b"})


# -- leases --


@pytest.mark.parametrize(
    ("situation", "right", "clauses"),
    [
        ("new", {"ok"}, ["LEA-1"]),
        ("suspended", {"ok"}, ["LEA-1"]),
        ("released", {"ok"}, ["LEA-1", "LEA-4"]),
        ("expired", {"ok"}, ["LEA-1", "LEA-4"]),
        ("renewed to 0", {"ok"}, ["LEA-1"]),
        ("short", {"ok", "LeaseHeld"}, ["LEA-1"]),
        ("leased", {"LeaseHeld"}, ["LEA-2"]),
        ("leased and suspended", {"LeaseHeld"}, ["LEA-2"]),
        ("unknown", {"RunNotFound", "LeaseHeld"}, ["LEA-3"]),
        ("completed", {"RunNotActive", "LeaseHeld"}, ["LEA-3"]),
        ("failed under a lease", {"RunNotActive", "LeaseHeld"}, ["LEA-3"]),
    ],
)
def test_acquiring(situation, right, clauses):
    for owner in ("bob", "alice"):
        granted = Lease("r", owner, 6)
        assert_judged(ALL, SITUATIONS[situation], acquire(owner=owner), right, *clauses, value=granted)


def test_held_is_tolerated_but_advised_against_where_there_is_nothing_to_wait_for():
    for situation in ("unknown", "completed"):
        assert ALL.expect(SITUATIONS[situation], acquire()).unwise == {"LeaseHeld": "LEA-3s"}
    assert not ALL.expect(SITUATIONS["leased"], acquire()).unwise


@pytest.mark.parametrize("token", [5, 4, -1, 0, -MANY_DIGITS], ids=named)
@pytest.mark.parametrize("situation", ["released", "expired", "short", "renewed to 0"])
def test_a_token_is_never_given_twice_nor_a_smaller_one(situation, token):
    verdict = ALL.step(SITUATIONS[situation], acquire(), lease(token))
    assert isinstance(verdict, Impossible)
    assert "LEA-4" in verdict.clauses


@pytest.mark.parametrize("token", [6, 1000, HUGE, MANY_DIGITS], ids=named)
def test_tokens_need_not_be_dense_nor_small(token):
    world = ALL.step(SITUATIONS["released"], acquire(), lease(token))
    assert_judged(ALL, world, append(token), {"ok"}, "FEN-1")
    assert_judged(ALL, world, renew(token, owner="bob"), {"ok"}, "LEA-5")
    lost = ALL.step(world, renew(token, owner="bob"), lease(token + 1))
    assert isinstance(lost, Impossible)
    again = ALL.step(ALL.step(world, release(token, "bob"), OK), acquire(), lease(token))
    assert isinstance(again, Impossible)
    assert len(again.message) < 300


@pytest.mark.parametrize("wrong", [lease(6, "alice"), lease(6, run_id="s"), lease(6, None), lease(6, b"bob")])
def test_a_lease_names_the_run_and_the_caller(wrong):
    verdict = ALL.step(SITUATIONS["new"], acquire(), wrong)
    assert isinstance(verdict, Impossible)
    assert verdict.clauses == ("LEA-1",)


@pytest.mark.parametrize(
    ("ttl", "expiry"),
    [
        (0, Expiry.EXPIRED),
        (0.0, Expiry.EXPIRED),
        (-0.0, Expiry.EXPIRED),
        (5e-324, Expiry.EITHER),
        (1, Expiry.EITHER),
        (59.9, Expiry.EITHER),
        (60, Expiry.LIVE),
        (MAX_TTL, Expiry.LIVE),
    ],
)
def test_what_a_ttl_makes_of_a_lease(ttl, expiry):
    world = after(start(), (acquire(ttl), lease(1)))
    assert world["shop", "r"].lease.expiry is expiry
    world = after(start(), (acquire(), lease(1)), renew(1, ttl, "bob"))
    assert world["shop", "r"].lease.expiry is expiry


@pytest.mark.parametrize("ttl", [*BAD_TTLS, Decimal(1)])
def test_what_is_no_ttl_is_refused(ttl):
    assert_judged(
        ALL, SITUATIONS["new"], acquire(ttl), {"InvalidArgument"}, "LEA-10", value=Lease("r", "bob", 6)
    )
    assert_judged(ALL, SITUATIONS["leased"], renew(5, ttl), {"InvalidArgument"}, "LEA-10")
    assert_judged(ALL, SITUATIONS["leased"], acquire(ttl), {"InvalidArgument", "LeaseHeld"}, "LEA-10")
    assert_judged(ALL, SITUATIONS["leased"], renew(4, ttl), {"InvalidArgument", "LeaseLost"}, "LEA-10")


@pytest.mark.parametrize("ttl", [MAX_TTL + 1, 1e300, 10**400], ids=named)
def test_a_ttl_above_ten_years_is_left_open(ttl):
    right = {"ok", "InvalidArgument"}
    assert_judged(ALL, SITUATIONS["new"], acquire(ttl), right, value=Lease("r", "bob", 6))
    assert_judged(ALL, SITUATIONS["leased"], renew(5, ttl), right)
    assert_judged(ALL, SITUATIONS["leased"], acquire(ttl), {"LeaseHeld", "InvalidArgument"})


@pytest.mark.parametrize("operation", [renew, release])
@pytest.mark.parametrize(
    ("situation", "token", "owner", "right", "clause"),
    [
        ("leased", 5, "alice", {"ok"}, None),
        ("expired", 5, "alice", {"ok"}, "LEA-6"),
        ("renewed to 0", 5, "alice", {"ok"}, "LEA-6"),
        ("short", 5, "alice", {"ok"}, None),
        ("leased and suspended", 5, "alice", {"ok"}, None),
        ("leased", 5, "bob", {"LeaseLost"}, None),
        ("leased", 5, "Alice", {"LeaseLost"}, None),
        ("leased", 4, "alice", {"LeaseLost"}, None),
        ("leased", 6, "alice", {"LeaseLost"}, None),
        ("leased", HUGE, "alice", {"LeaseLost", "InvalidArgument"}, None),
        ("leased", True, "alice", {"LeaseLost", "InvalidArgument"}, None),
        ("leased", 5.0, "alice", {"LeaseLost", "InvalidArgument"}, None),
        ("leased", None, "alice", {"LeaseLost", "InvalidArgument"}, None),
        ("leased", 5, "", {"LeaseLost", "InvalidArgument"}, None),
        ("new", 5, "alice", {"LeaseLost"}, None),
        ("released", 5, "alice", {"LeaseLost"}, None),
        ("unknown", 5, "alice", {"LeaseLost", "RunNotFound"}, None),
        ("unknown", HUGE, "alice", {"LeaseLost", "RunNotFound", "InvalidArgument"}, None),
        ("completed", 5, "alice", {"LeaseLost", "RunNotActive"}, "FIN-7"),
        ("completed under a lease", 5, "alice", {"LeaseLost", "RunNotActive"}, "FIN-7"),
        ("failed under a lease", HUGE, "alice", {"LeaseLost", "RunNotActive", "InvalidArgument"}, "FIN-7"),
    ],
)
def test_renewing_and_releasing(operation, situation, token, owner, right, clause):
    own = "LEA-5" if operation is renew else "LEA-7"
    assert_judged(ALL, SITUATIONS[situation], operation(token, owner=owner), right, clause or own)


def test_renew_answers_none_or_the_lease():
    world = SITUATIONS["leased"]
    assert not isinstance(ALL.step(world, renew(5), lease(5, "alice")), Impossible)
    for wrong in (lease(6, "alice"), lease(5), lease(5, "alice", "s")):
        verdict = ALL.step(world, renew(5), wrong)
        assert isinstance(verdict, Impossible)
        assert verdict.clauses == ("LEA-5",)


def test_a_takeover_fences_and_a_release_does_not_forget_the_token():
    taken = after(start(), (acquire(0, "alice"), lease(5, "alice")), (acquire(), lease(6)))
    assert_judged(ALL, taken, append(5), {"LeaseMismatch"}, "FEN-2")
    assert_judged(ALL, taken, release(5), {"LeaseLost"}, "LEA-7")
    assert_judged(ALL, taken, renew(5), {"LeaseLost"}, "LEA-5")
    released = after(start(), ALICE, release(5))
    assert released["shop", "r"].last_token == 5
    assert released["shop", "r"].lease is None
    assert after(start())["shop", "r"].lease is None, "RUN-5"


# -- snapshots --


@pytest.mark.parametrize(
    ("through", "right", "clause"),
    [
        (0, {"ok"}, "SNP-2"),
        (1, {"ok"}, "SNP-7"),
        (2, {"SnapshotConflict"}, "SNP-7"),
        (-1, {"SnapshotConflict"}, "SNP-7"),
        (2**32, {"SnapshotConflict"}, "SNP-7"),
        (HUGE, {"SnapshotConflict", "InvalidArgument"}, "SNP-7"),
        *((wrong, {"InvalidArgument"}, "SNP-13") for wrong in (True, False, 0.0, "0", None)),
    ],
)
def test_through_seq_must_be_a_seq_of_the_history(through, right, clause):
    assert_judged(ALL, SITUATIONS["two events"], snapshot(through), right, clause)


def test_snapshots_of_unknown_and_terminal_runs():
    assert_judged(ALL, EMPTY, snapshot(0), {"RunNotFound"}, "SNP-6")
    assert_judged(ALL, EMPTY, snapshot(-1), {"RunNotFound", "SnapshotConflict"}, "SNP-6")
    assert_judged(ALL, SITUATIONS["new"], snapshot(0), {"SnapshotConflict"}, "SNP-7")
    for situation in ("completed", "failed", "completed under a lease"):
        if SITUATIONS[situation]["shop", "r"].events:
            assert_judged(ALL, SITUATIONS[situation], snapshot(0), {"ok"}, "SNP-9")
    assert_judged(ALL, SITUATIONS["leased"], snapshot(0), {"ok"}, "SNP-7")


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({}, {"ok"}),
        ({"taken_at": NOON + timedelta(hours=1)}, {"ok"}),
        ({"version_hash": b"w"}, {"SnapshotConflict"}),
        ({"steps": {1: (1, "y")}}, {"SnapshotConflict"}),
        ({"steps": {1: [1, "x"]}}, {"SnapshotConflict"}),
        ({"steps": {1: (True, "x")}}, {"SnapshotConflict"}),
        ({"steps": {}}, {"SnapshotConflict"}),
        ({"steps": {1: (1, "x"), 2: None}}, {"SnapshotConflict"}),
        ({"version_hash": "v"}, {"InvalidArgument"}),
    ],
)
def test_a_second_snapshot_must_be_equal(changes, right):
    changes = {"steps": {1: (1, "x")}, **changes}
    clause = "SNP-13" if right == {"InvalidArgument"} else "SNP-5"
    world = SITUATIONS["with a snapshot"]
    assert_judged(ALL, world, snapshot(1, **changes), right, clause)
    if "ok" in right:
        kept = ALL.step(world, snapshot(1, **changes), OK)["shop", "r"].latest
        assert kept.taken_at == NOON, "the first stays"


def test_a_second_snapshot_whose_keys_stand_in_another_order_is_no_clear_case():
    world = after(start(), append(), append(), snapshot(1, {0: 1, 1: {"a": 1, "b": 2}}))
    assert_judged(ALL, world, snapshot(1, {1: {"b": 2, "a": 1}, 0: 1}), {"ok", "SnapshotConflict"}, "SNP-5")


@pytest.mark.parametrize(
    "changes",
    [
        {"taken_at": datetime(2026, 1, 2)},
        {"taken_at": "2026-01-02"},
        {"version_hash": None},
        {"steps": {True: 1}},
        {"steps": {"0": 1}},
        {"steps": {0.0: 1}},
        {"steps": []},
    ],
    ids=named,
)
def test_a_malformed_snapshot_is_refused(changes):
    assert_judged(ALL, SITUATIONS["two events"], snapshot(1, **changes), {"InvalidArgument"}, "SNP-13")


def test_step_keys_beyond_64_bits_may_be_refused():
    assert_judged(ALL, SITUATIONS["two events"], snapshot(1, {HUGE: 1}), {"ok", "InvalidArgument"})
    assert_judged(ALL, SITUATIONS["two events"], snapshot(1, {-1: 1}), {"ok"})


def test_the_latest_snapshot_comes_with_exactly_the_events_after_it():
    world = after(start(), append(), append(), append(), snapshot(1, {1: 1}), snapshot(0, {0: 1}))
    latest = world["shop", "r"].snapshots[1]
    events = [{"type": "step", "seq": 2}]
    assert ALL.step(world, look(), Outcome.of((latest, events))) is world
    assert ALL.step(world, look(), Outcome.of([latest, events])) is world, "as it comes back from JSON"
    for pair in (
        (None, [{"type": "step", "seq": n} for n in range(3)]),
        (world["shop", "r"].snapshots[0], [{"type": "step", "seq": 1}, *events]),
        (latest, []),
        (latest, [{"type": "step", "seq": 1}, *events]),
        (replace(latest, version_hash=b"w"), events),
        (replace(latest, steps_by_seq={"1": 1}), events),
        (replace(latest, steps_by_seq={1: True}), events),
        (replace(latest, steps_by_seq=None), events),
        (replace(latest, run_id="s"), events),
        (replace(latest, through_seq=True), events),
        (replace(latest, taken_at=NOON + timedelta(microseconds=1)), events),
        (replace(latest, taken_at=NOON.replace(tzinfo=None)), events),
        (replace(latest, taken_at=NOON.isoformat()), events),
    ):
        verdict = ALL.step(world, look(), Outcome.of(pair))
        assert isinstance(verdict, Impossible)
        assert verdict.clauses == ("SNP-2",)
    assert ALL.step(world, call("load"), Outcome.of([{"type": "step", "seq": n} for n in range(3)])) is world


def test_a_snapshot_where_none_was_taken_is_told():
    world = SITUATIONS["two events"]
    other = Snapshot("r", 0, b"v", NOON, {})
    verdict = ALL.step(world, look(), Outcome.of((other, EVENTS[1:])))
    assert isinstance(verdict, Impossible)
    assert verdict.clauses == ("SNP-1",)


@pytest.mark.parametrize(
    "given",
    [
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 1, 30, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=-12))),
    ],
)
def test_taken_at_is_compared_by_its_instant_alone(given):
    # psycopg answers in the server's zone; in an hour that the zone has twice, `==` across zones is false.
    world = after(start(), append(), snapshot(0, taken_at=given))
    latest = world["shop", "r"].latest
    zones = (UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")) if 1 < given.year < 9999 else ()
    for same in (given, *map(given.astimezone, zones)):
        assert ALL.step(world, look(), Outcome.of((replace(latest, taken_at=same), []))) is world
    wrong = replace(latest, taken_at=given.replace(tzinfo=timezone(given.utcoffset() + timedelta(seconds=1))))
    assert isinstance(ALL.step(world, look(), Outcome.of((wrong, []))), Impossible)


# -- terms --


def nest(depth: int) -> Any:
    term: Any = 0
    for _ in range(depth):
        term = [term]
    return term


def puts(term: Any) -> list[tuple[Any, Operation, str]]:
    """A term in every place where one can stand: (world, operation, path root)."""
    return [
        (EMPTY, start(term), "input"),
        (SITUATIONS["two events"], append(None, {"type": "step", "payload": term}), "event.payload"),
        (SITUATIONS["two events"], complete(None, term), "result"),
        (SITUATIONS["two events"], fail(None, term), "error"),
        (SITUATIONS["two events"], snapshot(1, {3: term}), "snapshot.steps_by_seq[3]"),
    ]


@pytest.mark.parametrize(
    "term",
    [
        nest(61),
        "x" * 2**20,
        "\U0001f600" * 2**18,
        b"x" * 2**20,
        2**4096 - 1,
        -(2**4096 - 1),
        list(range(5000)),
        [1, None, True, 2.5, "\0", math.nan],
    ],
    ids=named,
)
def test_a_required_term_must_be_stored(term):
    for world, operation, _ in puts(term):
        assert_judged(NO_RICH, world, operation, {"ok"})


@pytest.mark.parametrize(
    "term",
    [
        nest(65),
        nest(1000),
        "x" * (2**20 + 1),
        "\U0001f600" * (2**18 + 1),
        b"x" * (2**20 + 1),
        2**4096,
        ["x" * 2**20] * 3,
        [b"x" * 2**20 for _ in range(3)],
        {1.5: 1},
        {None: 1},
        {b"k": 1},
        {True: 1},
    ],
    ids=named,
)
def test_an_extreme_term_may_be_refused(term):
    for world, operation, _ in puts(term):
        assert_judged(ALL, world, operation, {"ok", "NotDurable"})


@pytest.mark.parametrize("term", [term for term in RICH if not isinstance(term, (list, dict))], ids=named)
def test_a_rich_term_must_be_stored_where_declared_and_may_be_refused_elsewhere(term):
    for world, operation, _ in puts([term]):
        assert_judged(ALL, world, operation, {"ok"})
        assert_judged(NO_RICH, world, operation, {"ok", "NotDurable"})


def test_a_rich_term_that_was_accepted_undeclared_must_read_back_exactly():
    world = after(start((1, 2)), on=NO_RICH)
    verdict = NO_RICH.step(world, call("get_run"), Outcome.of(Run("r", "w", RunState.RUNNING, [1, 2])))
    assert isinstance(verdict, Impossible)


@pytest.mark.parametrize("term", [(1,), nest(65)], ids=["rich", "deep"])
def test_a_term_that_may_be_refused_may_be_so_beside_other_refusals(term):
    for operation, also in (
        (start(term), "RunAlreadyExists"),
        (complete(None, term), "RunNotActive"),
        (append(None, {"type": "step", "payload": term}), "RunNotActive"),
    ):
        assert_judged(NO_RICH, SITUATIONS["completed"], operation, {also, "NotDurable"})
    assert_judged(NO_RICH, EMPTY, snapshot(0, {0: term}), {"RunNotFound", "NotDurable"})
    assert_judged(NO_RICH, SITUATIONS["leased"], complete(4, term), {"LeaseMismatch", "NotDurable"})
    assert_judged(ALL, SITUATIONS["completed"], start((1,)), {"RunAlreadyExists"})


@pytest.mark.parametrize(
    ("term", "place"),
    [
        (threading.Lock(), ""),
        (print, ""),
        ("a\ud800", ""),
        ({"owner": [1, print]}, ".owner[1]"),
        ({"a b": [print]}, ""),
        ({"é": print}, ".é"),
        ({1: print}, "[1]"),
        ({(1,): [print]}, ""),
        ({print: 1}, ""),
        ([{print}], "[0]"),
        ([{(1, print)}], "[0]"),
    ],
    ids=named,
)
def test_what_is_not_durable_is_named_by_its_path(term, place):
    for world, operation, root in puts(term):
        path = root + place
        assert_judged_path(
            ALL, world, operation, [path], [None, "", "x", root[:-1], f"{path}x" if place else "no"]
        )


def assert_judged_path(spec, world, operation, right, wrong):
    accepted = spec.step(world, operation, OK)
    assert isinstance(accepted, Impossible)
    assert "TRM-3" in accepted.clauses
    for path in right:
        assert spec.step(world, operation, error("NotDurable", path)) is world
    for path in wrong:
        verdict = spec.step(world, operation, error("NotDurable", path))
        assert isinstance(verdict, Impossible), path
        assert verdict.clauses == ("TRM-3",)


def test_a_path_must_be_exact_for_indices_and_plain_keys():
    operation = start({"owner": [1, print], "own": 1})
    for path in ("input.owner", "input.own", "input.owner[10]", "input.owner[0]", "input", "event.owner[1]"):
        assert isinstance(ALL.step(EMPTY, operation, error("NotDurable", path)), Impossible)
    assert isinstance(ALL.step(EMPTY, start({"own": print}), error("NotDurable", "input.owner")), Impossible)


def test_where_a_cycle_or_a_size_or_the_first_of_several_is_named_is_left_open():
    held: list[Any] = [[]]
    held.append(held)
    keyed: dict[str, Any] = {}
    keyed["self"] = keyed
    laughs: Any = 0
    for _ in range(100):
        laughs = [laughs, laughs]
    for term in (held, keyed, laughs):
        for path in (None, "input", "input[1]", "input.self.self"):
            assert ALL.step(EMPTY, start(term), error("NotDurable", path)) is EMPTY
        assert isinstance(ALL.step(EMPTY, start(term), OK), Impossible)
    both = start({"a": (1,), "b": print})
    for path in ("input.a", "input.b"):
        assert NO_RICH.step(EMPTY, both, error("NotDurable", path)) is EMPTY
    assert isinstance(ALL.step(EMPTY, both, error("NotDurable", "input.a")), Impossible)


# -- names and instances --


def all_operations(run_id: Any = "r", instance: Any = SHOP) -> list[Operation]:
    where = {"run_id": run_id, "instance": instance}
    return [
        start(**where), append(**where), suspend(**where), complete(**where), fail(**where), look(**where),
        call("load", **where), call("get_run", **where), acquire(**where), renew(5, **where), release(5, **where),
        replace(snapshot(0, run_id=run_id), arguments={
            "instance": instance, "snapshot": Snapshot(run_id, 0, b"v", NOON, {0: 1})
        }),
    ]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_malformed_name_is_refused_by_every_operation(name):
    for operation in (
        *all_operations(run_id=name),
        *all_operations(instance=Instance(name)),
        start(workflow=name),
        acquire(owner=name),
    ):
        due = ALL.expect(SITUATIONS["leased"], operation)
        assert not due.succeeds
        assert "RUN-7" in due.refusals["InvalidArgument"]
    for read in ("load", "get_run"):
        assert set(ALL.expect(EMPTY, call(read, run_id=name)).refusals) == {"InvalidArgument"}


@pytest.mark.parametrize("instance", [None, "shop", 5])
def test_what_is_no_instance_is_refused(instance):
    for operation in all_operations(instance=instance):
        assert "InvalidArgument" in ALL.expect(SITUATIONS["new"], operation).refusals


@pytest.mark.parametrize("run_id", ["run", UUID_TEXT.upper().replace("1", "A"), UUID_TEXT.replace("-", "")])
def test_without_opaque_ids_only_canonical_uuids_are_legal(run_id):
    for operation in all_operations(run_id=run_id):
        due = NO_OPAQUE.expect(EMPTY, operation)
        assert not due.succeeds
        assert "RUN-8" in due.refusals["InvalidArgument"]
    assert NO_OPAQUE.expect(EMPTY, start(run_id=UUID_TEXT)).succeeds


def test_runs_are_told_apart_code_point_by_code_point_and_no_two_keys_are_joined():
    pairs = [
        ("a:b", "c"),
        ("a", "b:c"),
        ("A", "b:c"),
        ("a", "b:c "),
        ("é", "x"),
        ("e\u0301", "x"),
        ("a", "B:c"),
    ]
    world = after(*(start(name, run_id=run_id, instance=Instance(name)) for name, run_id in pairs))
    assert len(world) == len(pairs)
    for name, run_id in pairs:
        record = Run(run_id, "w", RunState.RUNNING, name)
        assert (
            ALL.step(world, call("get_run", run_id=run_id, instance=Instance(name)), Outcome.of(record))
            is world
        )


# -- undeclared capabilities --


@pytest.mark.parametrize("operation", [acquire(), renew(5), release(5), snapshot(0)], ids=lambda o: o.name)
@pytest.mark.parametrize("situation", ["new", "unknown", "completed", "two events"])
def test_what_is_undeclared_is_refused(operation, situation):
    right = {"InvalidArgument", "NotImplementedError"}
    assert_judged(NONE_AT_ALL, SITUATIONS[situation], operation, right, "CAP-1")
    raw = Outcome(Kind.RAW, error="AttributeError")
    assert isinstance(NONE_AT_ALL.step(SITUATIONS[situation], operation, raw), Impossible)


def test_without_snapshots_the_whole_history_is_loaded():
    world = after(start(), append(), append(), on=NO_SNAPSHOTS)
    assert NO_SNAPSHOTS.step(world, look(), Outcome.of((None, EVENTS))) is world
    assert isinstance(NO_SNAPSHOTS.step(world, look(), Outcome.of((None, EVENTS[1:]))), Impossible)


# -- outcomes that are wrong anywhere --


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("operation", all_operations(), ids=lambda o: o.name)
@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(Kind.RAW, error="IntegrityError", message="duplicate key"),
        Outcome(Kind.RAW, error="KeyboardInterrupt"),
        Outcome(Kind.HANG, error="hang", message="no answer within 10 s", unknown=True),
        Outcome(Kind.GARBAGE, message="a list was due"),
        error("JournalUnavailable"),
        error("NoSuchError"),
    ],
    ids=lambda o: o.error or o.kind.value,
)
def test_raw_errors_hangs_garbage_and_outages_are_impossible(situation, operation, outcome):
    verdict = ALL.step(SITUATIONS[situation], operation, outcome)
    assert isinstance(verdict, Impossible)
    assert verdict.clauses
    assert verdict.expected
    assert operation.name in verdict.message
    due = ALL.expect(SITUATIONS[situation], operation)
    if outcome.kind is Kind.RAW and not due.succeeds:
        assert "ATM-2" in verdict.clauses


def test_not_implemented_is_no_contract_error_where_the_capability_is_declared():
    verdict = ALL.step(SITUATIONS["completed"], append(), error("NotImplementedError"))
    assert isinstance(verdict, Impossible)
    assert "ATM-2" in verdict.clauses


# -- the model itself --

SPECIFICATIONS = [
    Specification(frozenset(chosen))
    for count in range(5)
    for chosen in itertools.combinations(("leases", "snapshots", "rich_terms", "opaque_run_ids"), count)
]


UNLEASED = ("unknown", "new", "two", "suspended", "with")


def variety() -> list[Operation]:
    more = [append(5), append(True), append(HUGE), append(None, {}), append(None, {"type": "x", "seq": 9})]
    more += [start(print), start(nest(99)), start((1,)), start(run_id=""), acquire(-1), renew(4), release(4)]
    more += [look(5), complete(5), snapshot(7), snapshot(1, {1: 2}), snapshot("x"), snapshot(0, {0: print})]
    return [*all_operations(), *more, *all_operations(run_id=UUID_TEXT)]


@pytest.mark.parametrize(
    "spec", SPECIFICATIONS, ids=lambda s: f"{s.leases}-{s.snapshots}-{s.rich}-{s.opaque}"
)
def test_only_clauses_of_declared_capabilities_that_are_in_force_are_cited(spec):
    names = {"leases": spec.leases, "snapshots": spec.snapshots, "rich_terms": spec.rich}
    declared = {CORE, *(name for name, yes in names.items() if yes)}
    situations = [w for n, w in SITUATIONS.items() if spec.leases or n.partition(" ")[0] in UNLEASED]
    for situation, operation in itertools.product(situations, variety()):
        due = spec.expect(situation, operation)
        assert due.succeeds or due.refusals, "nothing would be right"
        assert not due.succeeds or due.clauses
        assert due.describe()
        for cited in (*due.clauses, *due.clauses_of_refusal()):
            assert CLAUSES[cited].capability in declared, (cited, operation)
            assert in_force(CLAUSES[cited])
            assert CLAUSES[cited].level == "MUST"


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_step_is_pure(situation):
    world = SITUATIONS[situation]
    before = repr(world)
    for operation in variety():
        for outcome in (OK, lease(6), Outcome.of((None, [])), error("RunNotFound")):
            if outcome.value is None or operation.name in ("acquire", "renew", "load_with_snapshot"):
                if operation.name in ("acquire", "load_with_snapshot", "load") and outcome is OK:
                    continue  # no answer that the harness lets through
                if (operation.name == "load_with_snapshot") != isinstance(
                    outcome.value, tuple
                ) and outcome.ok:
                    continue
                first, second = (ALL.step(world, operation, outcome) for _ in range(2))
                assert repr(first) == repr(second)
    assert repr(world) == before


def test_a_step_changes_only_its_own_run():
    others = after(start(run_id="s"), start(instance=Instance("other")), start(), append(), ALICE)
    for operation in (append(5), suspend(5), complete(5), fail(5), renew(5), release(5), snapshot(0)):
        changed = ALL.step(others, operation, OK)
        for key in others:
            if key != ("shop", "r"):
                assert changed[key] is others[key]
