"""Operations and outcomes: what an adapter's answer is taken for, and what is garbage."""

from collections import OrderedDict
from datetime import UTC, datetime
from enum import Enum
from types import SimpleNamespace

import pytest

from continuum_conformance.contract import (
    ERRORS,
    Instance,
    JournalError,
    JournalUnavailable,
    Lease,
    NotDurable,
    Run,
    RunState,
    Snapshot,
)
from continuum_conformance.model import Garbage, Kind, Operation, Outcome, normalise

NOON = datetime(2026, 1, 2, tzinfo=UTC)
SHOP = Instance("shop")


class Colour(Enum):
    RUNNING = "running"
    RED = "red"


def run(**changes):
    fields = {"run_id": "r", "workflow": "w", "state": "running", "input": 1, "result": None, "error": None}
    return SimpleNamespace(**{**fields, **changes})


@pytest.mark.parametrize(
    "state", ["running", RunState.RUNNING, Colour.RUNNING, SimpleNamespace(value="running")]
)
def test_a_run_is_judged_by_its_attributes(state):
    assert normalise("get_run", run(state=state)) == (Run("r", "w", RunState.RUNNING, 1), "")


def test_look_alikes_of_leases_and_snapshots_are_taken():
    assert normalise("acquire", SimpleNamespace(run_id="r", owner="o", token=7)) == (Lease("r", "o", 7), "")
    assert normalise("renew", None) == (None, "")
    fields = {"run_id": "r", "through_seq": 0, "version_hash": b"v", "taken_at": NOON, "steps_by_seq": {}}
    for pair in (tuple, list):
        answer, remark = normalise("load_with_snapshot", pair([SimpleNamespace(**fields), []]))
        assert (answer, remark) == ((Snapshot(**fields), []), "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("load", value) for value in (None, (), {}, iter([]), "[]", 0, [None], [OrderedDict()], [{}, ()])),
        *(("get_run", value) for value in ({}, {"run_id": "r"}, "running", 0, False, (), [])),
        *(
            ("get_run", run(state=state))
            for state in (None, "RUNNING", "done", Colour.RED, 1, b"running", ["running"])
        ),
        *(("acquire", value) for value in (None, True, 7, {"token": 7}, ("r", "o", 7))),
        *(("acquire", Lease("r", "o", token)) for token in (None, True, 7.0, "7")),
        *(("renew", value) for value in (True, 7, Lease("r", "o", False))),
        *(
            ("load_with_snapshot", value)
            for value in (None, [], (), (None,), (None, [], 1), [[], None], {}, "ab")
        ),
        ("load_with_snapshot", (None, None)),
        ("load_with_snapshot", (None, ({"type": "x"},))),
        ("load_with_snapshot", ({}, [])),
    ],
)
def test_garbage_is_told_from_an_answer(name, value):
    with pytest.raises(Garbage) as caught:
        normalise(name, value)
    assert "due" in str(caught.value) or "must" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["start_run", "append", "suspend", "complete", "fail", "release", "take_snapshot"]
)
def test_a_value_where_none_is_due_is_odd_but_harmless(name):
    assert normalise(name, None) == (None, "")
    answer, remark = normalise(name, 3)
    assert answer is None
    assert f"{name} returned a int" in remark


def test_an_operation_knows_its_run_wherever_it_is_named():
    lease = Operation("renew", {"instance": SHOP, "lease": Lease("r", "o", 1), "ttl": 1})
    taken = Operation("take_snapshot", {"instance": SHOP, "snapshot": Snapshot("r", 0, b"", NOON, {})})
    read = Operation("load", {"run_id": "r", "instance": SHOP})
    assert lease.key == taken.key == read.key == ("shop", "r")
    assert read.positional() == (SHOP, "r"), "in the order of the interface"
    assert Operation("release", {"instance": None, "lease": None}).key == (None, None)
    assert Operation("load", {"instance": Instance(5), "run_id": ["r"]}).key == (None, None)


@pytest.mark.parametrize("cls", ERRORS.values())
def test_a_contract_error_is_known_by_its_name_also_when_subclassed(cls):
    class Mine(cls):
        pass

    assert Outcome.raised(cls("why")) == Outcome(Kind.ERROR, error=cls.__name__, message="why")
    assert Outcome.raised(Mine("why")).error == cls.__name__


def test_other_exceptions_are_raw():
    assert Outcome.raised(KeyError("x")) == Outcome(Kind.RAW, error="KeyError", message="'x'")
    assert Outcome.raised(JournalError("why")).kind is Kind.RAW, "the family's head says nothing"
    assert Outcome.raised(SystemExit(3)).kind is Kind.RAW


def test_what_an_error_knows_is_kept():
    assert Outcome.raised(JournalUnavailable("gone", outcome_unknown=True)).unknown
    assert not Outcome.raised(JournalUnavailable("gone")).unknown
    assert Outcome.raised(NotDurable(path="event.a")).path == "event.a"
    assert Outcome.raised(NotDurable(path=["event"])).path == "['event']"


def test_a_careless_exception_can_be_read():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no")

    class Careless(JournalUnavailable):
        def __init__(self):
            pass

    assert "cannot be shown" in Outcome.raised(Mute()).message
    assert Outcome.raised(Careless()).error == "JournalUnavailable"
