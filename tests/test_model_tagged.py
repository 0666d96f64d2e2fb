"""Terms, operations and outcomes as JSON: nothing is lost, and what cannot be carried is said."""

import json
import math
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continuum_conformance.contract import Instance, Lease, Run, RunState, Snapshot
from continuum_conformance.contract.terms import equal
from continuum_conformance.model import Kind, Operation, Outcome
from continuum_conformance.model.tagged import (
    Opaque,
    decode,
    decode_operation,
    decode_outcome,
    encode,
    encode_operation,
    encode_outcome,
)
from continuum_conformance.suite.data import BAD_NAMES, BAD_SEQS, LOOKALIKES, RICH, plain_terms, rich_terms

NOON = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=5, minutes=45)))


def through(term):
    return decode(json.loads(json.dumps(encode(term), allow_nan=False)))


@given(st.one_of(rich_terms(), plain_terms()))
def test_a_term_comes_back_equal(term):
    assert equal(through(term), term, ordered=True)


@pytest.mark.parametrize(
    "term",
    [
        *RICH,
        *LOOKALIKES,
        *BAD_NAMES,
        *BAD_SEQS,
        *(2**53, -(2**53), 2**53 - 1, 10**5000, -(10**5000), math.nan, -0.0, 5e-324, 1.7976931348623157e308),
        *("\ud800", "a\udfffb", "x" * 100_000, "\ud800" * 100, "\0" * 65, "ab" * 100, "", "x" * 64, "x" * 65),
        *(b"", b"\0" * 65, b"\xff" * 10**6, b"ab" * 99),
        *(
            {"$": 1},
            {"$": "int", "v": "ff"},
            {"a": {"$": {"$": None}}},
            {"\ud800": 1},
            {"": {"": 0}},
            {1: {"$": 2}},
        ),
        *([[[]]], [[1], [[2]]], [None], {"a": [[{"b": [[]]}]]}),
        *(
            datetime(1, 1, 1),
            datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(timedelta(seconds=-1))),
        ),
        datetime(
            2026, 1, 1, tzinfo=timezone(timedelta(hours=23, minutes=59, seconds=59, microseconds=999999))
        ),
    ],
    ids=lambda term: type(term).__name__,
)
def test_awkward_terms_come_back_equal(term):
    for placed in (term, [term, term], {"k": term, "$": [term]}):
        assert equal(through(placed), placed, ordered=True)


def test_a_deep_list_is_written_short_and_comes_back():
    term: Any = {"bottom": 1}
    for _ in range(100_000):
        term = [term]
    assert len(json.dumps(encode(term))) < 100
    assert equal(through(term), term)


@pytest.mark.parametrize("record", [
    Instance("shop"), Instance(None), Instance(5), Lease("r", "o", 2**70), Lease(None, "\ud800", True), Lease("r", 5, 1.0),
    Run("r", "w", RunState.FAILED, (1,), None, {"a": {1}}),
    Snapshot("r", 0, b"v", NOON, {0: (1,), 2**70: None}), Snapshot("r", True, "v", "now", None),
])  # fmt: skip
def test_records_come_back_with_wrong_parts_too(record):
    back = through(record)
    assert repr(back) == repr(record)
    assert type(back) is type(record)


class Unknown:
    pass


def _cycles():
    held: list[Any] = []
    held.append(held)
    wide: list[Any] = [1, 2]
    wide.append(wide)
    keyed: dict[str, Any] = {}
    keyed["self"] = keyed
    deep: Any = 0
    for _ in range(50_000):
        deep = {"k": deep}
    return [held, wide, keyed, deep]


@pytest.mark.parametrize(
    "term", [threading.Lock(), Unknown(), print, 1j, bytearray(), *_cycles()], ids=lambda t: type(t).__name__
)
def test_what_cannot_be_carried_is_said(term):
    with pytest.raises(Opaque, match="cannot be carried in JSON"):
        encode(term)


@pytest.mark.parametrize("data", [
    {"$": "pickle", "v": "x"}, {"$": 5, "v": 1}, {"$": "int"}, {"$": "int", "v": 5}, {"$": "int", "v": "xyz"},
    {"$": "float", "v": None}, {"$": "bytes", "v": "%"}, {"$": "text", "v": [-1]}, {"$": "tuple", "v": 5},
    {"$": "set", "v": [[]]}, {"$": "dict", "v": [[1]]}, {"$": "datetime", "v": ["x", None]}, {"$": "uuid", "v": 5},
    {"$": "decimal", "v": "x"}, {"$": "Run", "v": []}, {"$": "Run", "v": ["r", "w", "done", 1, 2, 3]},
    {"$": "Lease", "v": [1]}, {"$": "timedelta", "v": [10**10]}, {"$": "nest", "v": [1]}, {"$": ["x"], "v": 1},
])  # fmt: skip
def test_data_that_nobody_wrote_are_refused(data):
    with pytest.raises(ValueError):
        decode(data)


def test_an_operation_comes_back():
    operation = Operation(
        "append",
        {"instance": Instance("shop"), "run_id": "\ud800", "event": {"type": 5}, "lease_token": 1.0},
        "B",
    )
    assert repr(decode_operation(json.loads(json.dumps(encode_operation(operation))))) == repr(operation)


@pytest.mark.parametrize("data", [
    {}, {"op": "load"}, [], {"op": "load", "args": [], "worker": "A"}, {"op": "drop", "args": {}, "worker": "A"},
    {"op": "load", "args": {"run_id": "r"}, "worker": "A"},
    {"op": "load", "args": {"instance": 1, "run_id": 1, "more": 1}, "worker": "A"},
])  # fmt: skip
def test_a_malformed_operation_is_refused(data):
    with pytest.raises(ValueError):
        decode_operation(data)


@pytest.mark.parametrize("outcome", [
    Outcome.of(None), Outcome.of([{"type": "x", "seq": 0}], "odd"), Outcome.of(Lease("r", "o", 1)),
    Outcome.of(Run("r", "w", RunState.RUNNING, (1, {2}))),
    Outcome(Kind.ERROR, error="NotDurable", message="\ud800", path="event.a"),
    Outcome(Kind.ERROR, error="JournalUnavailable", unknown=True),
    Outcome(Kind.RAW, error="KeyError", message="'x'", detail="Traceback"),
    Outcome(Kind.HANG, error="hang", unknown=True, detail="stack"), Outcome(Kind.GARBAGE, message="no list"),
], ids=lambda o: o.kind.value)  # fmt: skip
def test_an_outcome_comes_back(outcome):
    back = decode_outcome(json.loads(json.dumps(encode_outcome(outcome))))
    assert back == outcome
    assert (back.detail, back.remark) == (outcome.detail, outcome.remark)


def test_a_pair_comes_back_as_a_list():
    snapshot = Snapshot("r", 0, b"v", NOON.astimezone(UTC), {0: 1})
    back = decode_outcome(json.loads(json.dumps(encode_outcome(Outcome.of((snapshot, []))))))
    assert back.value == [snapshot, []]
