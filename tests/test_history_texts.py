"""What a verdict says, word for word, and histories as JSON and EDN."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continuum_conformance.contract.records import Instance, Lease, Run, RunState, Snapshot
from continuum_conformance.history import (
    History,
    Model,
    Recorded,
    check_linearizable,
    from_json,
    impossible,
    judge,
    to_edn,
    to_json,
)
from continuum_conformance.history.export import edn
from continuum_conformance.model import Expiry, Kind, LeaseModel, Operation, Outcome, RunModel, Specification

HERE = Instance("here")
FULL = Specification({"leases", "snapshots", "rich_terms", "opaque_run_ids"})
EXPIRED = {("here", "r"): RunModel("flow", None, lease=LeaseModel("A", 1, Expiry.EXPIRED), last_token=1)}
LOST = Outcome(Kind.ERROR, error="JournalUnavailable", message="the line went dead", unknown=True)
OK = Outcome.of(None)


def entry(worker: str, name: str, outcome: Outcome, at: tuple[int, int | None], **rest: Any) -> Recorded:
    named = {} if name in ("renew", "release", "take_snapshot") else {"run_id": "r"}
    return Recorded(Operation(name, {"instance": HERE, **named, **rest}, worker), outcome, *at, worker)


TAKEOVER = entry("A", "acquire", Outcome.of(Lease("r", "A", 2)), (1, 2), owner="A", ttl=60)
ZOMBIE = entry("B", "append", OK, (3, 4), event={"type": "x"}, lease_token=1)


def test_a_write_after_a_takeover_reads_as_a_story() -> None:
    verdict = judge([TAKEOVER, ZOMBIE], FULL, EXPIRED)
    assert verdict.text == (
        "After A's acquire returned token 2, B's append with token 1 was accepted: "
        "no order of these operations explains it.\n"
        "\n"
        "The operations:\n"
        "  #1  A  acquire(run 'r', owner 'A', ttl 60) returned token 2\n"
        "  #2  B  append(run 'r', {'type': 'x'}, token 1) was accepted"
        "  <- at its return nothing explains the history any more\n"
        "\n"
        "There is one order only, #1, #2:\n"
        "  at #2, append was accepted, though LeaseMismatch was due (FEN-2)"
    )
    assert verdict.explanation is not None
    assert verdict.explanation.clauses == ("FEN-2",)


def test_every_order_is_told_with_its_reason() -> None:
    beside = replace(ZOMBIE, invoked=1, returned=8)
    empty = entry("A", "load", Outcome.of([]), (3, 4))
    verdict = judge([TAKEOVER, empty, beside], FULL, EXPIRED)
    assert verdict.text == (
        "B's append with token 1 was accepted, while A's acquire returned token 2 and A's load returned no events: "
        "no order of these operations explains it.\n"
        "\n"
        "The operations:\n"
        "  #1  A  acquire(run 'r', owner 'A', ttl 60) returned token 2  (beside #2)\n"
        "  #2  B  append(run 'r', {'type': 'x'}, token 1) was accepted  (beside #1, #3)"
        "  <- at its return nothing explains the history any more\n"
        "  #3  A  load(run 'r') returned no events  (beside #2)\n"
        "\n"
        "Orders tried:\n"
        "  #1, #3, #2: at #2, append was accepted, though LeaseMismatch was due (FEN-2)\n"
        "  #2, #1, #3: at #3, the history has fewer events than it must: 0 instead of 1; "
        "the first missing one is {'type': 'x', 'seq': 0} (LOD-1)"
    )


def test_what_does_not_matter_is_left_out() -> None:
    noise = [
        entry("C", "get_run", Outcome.of(Run("r", "flow", RunState.RUNNING)), (1, 9)),
        entry(
            "C",
            "append",
            Outcome(Kind.ERROR, error="LeaseMismatch"),
            (1, 9),
            event={"type": "q"},
            lease_token=9,
        ),
        entry("C", "load", Outcome.of([]), (2, 3)),
    ]
    why = judge([*noise, TAKEOVER, ZOMBIE], FULL, EXPIRED).explanation
    assert why is not None
    assert why.operations == (TAKEOVER, ZOMBIE)
    assert why.needed == (TAKEOVER, ZOMBIE)
    assert why.decisive is ZOMBIE
    assert len(why.prefix) == 5


def test_what_comes_after_the_shortest_prefix_is_left_out() -> None:
    later = entry("A", "load", Outcome.of([{"type": "x", "seq": 0}]), (5, 6))
    why = judge([TAKEOVER, ZOMBIE, later], FULL, EXPIRED).explanation
    assert why is not None
    assert why.prefix == (TAKEOVER, ZOMBIE)


def test_a_foreign_model_gives_its_own_reasons() -> None:
    def step(state: int, operation: Operation, outcome: Outcome) -> Any:
        if operation.name == "write":
            return operation.arguments["value"]
        return state if outcome.value == state else impossible(f"the register holds {state}")

    model = Model(lambda _key: 0, step)
    history = [
        Recorded(Operation("write", {"value": 1}), OK, 1, 8, "A"),
        Recorded(Operation("read", {}), Outcome.of(1), 2, 3, "B"),
        Recorded(Operation("read", {}), Outcome.of(0), 4, 5, "C"),
    ]
    assert check_linearizable(history, model).text == (
        "After B's read() returned 1, C's read() returned 0: no order of these operations explains it.\n"
        "\n"
        "The operations:\n"
        "  #1  A  write(value 1) returned None  (beside #2, #3)\n"
        "  #2  B  read() returned 1  (beside #1)\n"
        "  #3  C  read() returned 0  (beside #1)  <- at its return nothing explains the history any more\n"
        "\n"
        "There is one order only, #1, #2, #3:\n"
        "  at #3, the register holds 1"
    )


def test_a_model_without_reasons_shows_its_state() -> None:
    model: Model[int] = Model(
        lambda _key: 0, lambda state, _operation, outcome: state if outcome.ok else None
    )
    history = [Recorded(Operation("ping", {}), Outcome(Kind.ERROR, error="InvalidArgument"), 1, 2, "A")]
    assert "the model does not allow it when its state is 0" in check_linearizable(history, model).text


def test_a_verdict_is_data_too() -> None:
    data = judge([TAKEOVER, ZOMBIE], FULL, EXPIRED).as_data()
    assert data == json.loads(json.dumps(data))
    assert data["verdict"] == "failed"
    why = data["explanation"]
    assert why["decisive"] == 1
    assert why["operations"] == [0, 1]
    assert why["attempts"] == [
        {
            "order": [0],
            "failed": 1,
            "reason": "append was accepted, though LeaseMismatch was due",
            "expected": "LeaseMismatch",
            "clauses": ["FEN-2"],
        }
    ]
    assert judge([TAKEOVER], FULL, EXPIRED).as_data() == {
        "verdict": "passed",
        "operations": 1,
        "partitions": 1,
        "visited": 1,
    }


# -- JSON --

SNAPSHOT = Snapshot("r", 0, b"v", datetime(2026, 1, 1, tzinfo=UTC), {0: (1, 2)})
ALL = History.of(
    [
        TAKEOVER,
        ZOMBIE,
        entry("A", "take_snapshot", OK, (5, 6), snapshot=SNAPSHOT),
        entry("A", "load_with_snapshot", Outcome.of((SNAPSHOT, [])), (7, 8), lease_token=2),
        entry("A", "get_run", Outcome.of(Run("r", "flow", RunState.RUNNING)), (9, 10)),
        entry("A", "release", LOST, (11, 12), lease=Lease("r", "A", 2)),
        entry("A", "suspend", Outcome(Kind.HANG, error="hang", unknown=True), (13, None), lease_token=2),
        replace(entry("B", "suspend", replace(LOST, unknown=False), (14, 15), lease_token=2), gave_up=True),
    ]
)


def test_json_reads_back() -> None:
    assert from_json(to_json(ALL)) == ALL


def test_json_describes_what_it_cannot_carry() -> None:
    odd = entry(
        "A", "append", Outcome(Kind.ERROR, error="NotDurable"), (1, 2), event={"f": len}, lease_token=None
    )
    data = json.loads(to_json([odd]))
    assert data["history"][0]["operation"]["args"]["event"] == {
        "$": "opaque",
        "v": "a builtin_function_or_method",
    }


@pytest.mark.parametrize("text", ["[]", '{"format": 9}', '{"format": 1, "history": [{}]}', "{"])
def test_what_is_no_history_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_json(text)


# -- EDN --


def test_a_register_in_edn_is_what_jepsens_tools_read() -> None:
    history = [
        Recorded(Operation("write", {"value": 3}), OK, 1, 4, "A"),
        Recorded(Operation("read", {}), Outcome.of(None), 2, 3, "B"),
        Recorded(Operation("cas", {"old": 3, "new": 4}), LOST, 5, 6, "B"),
        Recorded(Operation("read", {}), Outcome.of(3), 7, 8, "B"),
        Recorded(Operation("write", {"value": 1}), Outcome(Kind.ERROR, error="LeaseMismatch"), 9, 10, "A"),
    ]
    assert to_edn(history).splitlines() == [
        "{:index 0, :type :invoke, :process 0, :time 1, :f :write, :value 3}",
        "{:index 1, :type :invoke, :process 1, :time 2, :f :read, :value nil}",
        "{:index 2, :type :ok, :process 1, :time 3, :f :read, :value nil}",
        "{:index 3, :type :ok, :process 0, :time 4, :f :write, :value 3}",
        "{:index 4, :type :invoke, :process 1, :time 5, :f :cas, :value [3 4]}",
        (
            "{:index 5, :type :info, :process 1, :time 6, :f :cas, :value [3 4], "
            ':error [:JournalUnavailable "the line went dead"]}'
        ),
        "{:index 6, :type :invoke, :process 2, :time 7, :f :read, :value nil}",
        "{:index 7, :type :ok, :process 2, :time 8, :f :read, :value 3}",
        "{:index 8, :type :invoke, :process 0, :time 9, :f :write, :value 1}",
        '{:index 9, :type :fail, :process 0, :time 10, :f :write, :value 1, :error [:LeaseMismatch ""]}',
    ]


def test_a_journals_call_in_edn_is_a_map_of_its_arguments() -> None:
    first, second, *_ = to_edn([TAKEOVER]).splitlines()
    assert first == (
        "{:index 0, :type :invoke, :process 0, :time 1, :f :acquire, "
        ':value {:instance #continuum/Instance ["here"], :run_id "r", :owner "A", :ttl 60}}'
    )
    assert second.endswith(':value #continuum/Lease ["r" "A" 2]}')


def test_one_who_does_two_things_at_once_is_two_processes() -> None:
    history = [replace(ZOMBIE, invoked=1, returned=4), replace(ZOMBIE, invoked=2, returned=3)]
    assert [line.split(", ")[2] for line in to_edn(history).splitlines()] == [
        ":process 0",
        ":process 1",
        ":process 1",
        ":process 0",
    ]


def test_what_gave_up_and_what_never_came_back() -> None:
    lines = to_edn(ALL).splitlines()
    assert sum(":type :fail" in line for line in lines) == 1
    assert len(lines) == 2 * len(ALL) - 1


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (None, "nil"),
        (True, "true"),
        (2**63, "9223372036854775808N"),
        (-1.5, "-1.5"),
        (float("nan"), "##NaN"),
        (float("-inf"), "##-Inf"),
        ('say "hi"\n\\\x00', '"say \\"hi\\"\\n\\\\\\u0000"'),
        (b"ab", '#continuum/bytes "YWI="'),
        ([1, (2, "x")], '[1 [2 "x"]]'),
        ({"k": {1, 2}}, '{"k" #{1 2}}'),
        (datetime(2026, 1, 1), '#continuum/datetime ["2026-01-01T00:00:00" nil]'),
        (len, '#continuum/opaque "a builtin_function_or_method"'),
    ],
)
def test_terms_in_edn(term: Any, text: str) -> None:
    assert edn(term) == text


@given(st.text())
def test_a_text_in_edn_stays_on_its_line_and_is_read_back(text: str) -> None:
    written = edn(text)
    assert len(written.splitlines()) == 1
    assert json.loads(written) == text  # what EDN and JSON escape, they escape alike
