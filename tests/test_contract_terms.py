"""Durable terms: what may be stored, when two are equal, where they differ; whatever their depth or shape."""

import math
import struct
import threading
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continuum_conformance.contract import NotDurable
from continuum_conformance.contract.terms import (
    canonical,
    check_durable,
    copy_term,
    difference,
    equal,
    shown,
)
from continuum_conformance.suite.data import LOOKALIKES, RICH, plain_terms, rich_terms

DEEP = 100_000
VERY = 5_000

TIMES = (
    datetime(2026, 1, 2, 3, 4, 5),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    datetime(2026, 1, 2, 4, 4, 5, tzinfo=timezone(timedelta(hours=1))),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(seconds=1))),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(microseconds=-1))),
    date(2026, 1, 2),
    time(3, 4, 5),
    time(3, 4, 5, tzinfo=UTC),
    timedelta(seconds=1),
    timedelta(microseconds=1_000_001),
)

APART: tuple[Any, ...] = (
    *(None, False, True, 0, 1, -1, 2**70, 0.0, -0.0, 1.0, math.inf, -math.inf, math.nan, 5e-324),
    *("", "0", "1", "None", "e\u0301", "\u00e9", "\0", b"", b"0", b"1"),
    *([], [[]], [None], [0], [False], [0.0], [""], [1, 2], [2, 1], [[1], 2], [[1, 2]]),
    *((), ((),), (None,), (1, 2), set(), {1}, {(1,)}, frozenset(), frozenset({1}), frozenset({frozenset()})),
    *(
        {},
        {"a": 1},
        {"a": True},
        {"a": 1.0},
        {"b": 1},
        {1: "a"},
        {"1": "a"},
        {(1,): "a"},
        {"a": {}},
        {"a": []},
    ),
    *(
        Decimal(1),
        Decimal("1.0"),
        Decimal("-0"),
        Decimal(0),
        Decimal("0E+3"),
        Decimal("NaN"),
        Decimal("sNaN"),
    ),
    *(UUID(int=0), UUID(int=1)),
    *TIMES,
)
"""Terms of which no two are equal, though Python, JSON or a careless encoding takes some of them for the same."""


def nest(depth, wrap=lambda inner: [inner], bottom=0):
    term = bottom
    for _ in range(depth):
        term = wrap(term)
    return term


# -- equal and canonical --


@given(rich_terms())
def test_a_term_equals_its_copy(term):
    copied = copy_term(term)
    assert equal(term, copied, ordered=True)
    assert difference(term, copied) is None


@given(st.one_of(plain_terms(), rich_terms()), rich_terms())
def test_difference_and_equal_agree(left, right):
    assert (difference(left, right) is None) == equal(left, right)
    assert equal(left, right) == equal(right, left)


@pytest.mark.parametrize("terms", [APART, LOOKALIKES, RICH], ids=["apart", "lookalikes", "rich"])
def test_different_terms_are_told_apart_also_within_others(terms):
    for wrap in (lambda t: t, lambda t: [t], lambda t: {"k": [t, t]}, lambda t: (t, "end")):
        forms = [canonical(wrap(term)) for term in terms]
        assert len(set(forms)) == len(forms)
    for i, left in enumerate(terms):
        for j, right in enumerate(terms):
            assert (difference([left], [right]) is None) == (i == j)


def test_one_kind_of_nan_equals_another():
    other = struct.unpack(">d", b"\xff\xf8\0\0\0\0\0\x01")[0]
    assert equal([math.nan], [other])
    assert equal([math.nan], [-math.nan])


def test_a_float_cannot_pass_for_a_nan_and_what_follows_it():
    # Measured before: with a short mark for nan, the bytes of this float continued it.
    float_of_marks = struct.unpack(">d", b"nanBtBtN")[0]
    assert not equal([math.nan, True, True, None], [float_of_marks])


def test_the_order_of_keys_counts_only_when_asked_for():
    assert equal({"a": 1, "b": [2]}, {"b": [2], "a": 1})
    assert not equal({"a": 1, "b": [2]}, {"b": [2], "a": 1}, ordered=True)
    assert not equal([{"a": {"x": 1, "y": 2}}], [{"a": {"y": 2, "x": 1}}], ordered=True)
    assert equal({1, "a", (2,)}, {(2,), "a", 1}, ordered=True)


def test_sets_of_mixed_types_are_compared():
    members = [1, "1", b"1", None, (1,), frozenset({1}), Decimal("1.5"), UUID(int=1), date(2026, 1, 1), 0.5]
    assert equal(set(members), {*members[5:], *members[:5]})
    assert not equal(set(members), {*members[1:], 2})
    assert not equal({1}, {True})
    assert not equal({frozenset({1})}, {frozenset({1.0})})


def test_nan_keys_do_no_harm():
    one, two = float("nan"), float("nan")
    assert equal({one: 1}, {two: 1})
    assert difference({one: 1, two: 1}, {one: 1}) is not None
    assert difference({one: 1, two: 2}, {two: 1}) is not None


def test_aware_datetimes_are_equal_by_instant_and_offset():
    berlin = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    assert equal(berlin, datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2))))
    assert not equal(berlin, datetime(2026, 7, 1, 10, tzinfo=UTC))
    twice = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    assert not equal(twice, twice.replace(fold=1)), "the offset differs"
    assert equal(datetime(2026, 1, 1), datetime(2026, 1, 1, fold=1)), "fold is untested"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: [inner],
        lambda inner: {"k": inner},
        lambda inner: {"a": 1, "k": [inner], "z": None},
        lambda inner: (inner,),
    ],
    ids=["list", "dict", "mixed", "tuple"],
)
def test_a_very_deep_term_is_compared_copied_and_told_apart(wrap):
    left, right, other = nest(VERY, wrap), nest(VERY, wrap), nest(VERY, wrap, bottom="x")
    assert equal(left, right)
    assert difference(left, right) is None
    assert difference(left, other, "deep").startswith("0 (int) became 'x' (str) at deep")
    assert equal(copy_term(left), left)


def test_a_hundred_thousand_levels_are_no_trouble():
    left, right = nest(DEEP), nest(DEEP)
    with pytest.raises(NotDurable):
        check_durable(left, "input")
    assert equal(left, copy_term(right))


def test_a_very_deep_frozenset_is_compared():
    left, right = nest(2_000, lambda inner: frozenset([inner])), nest(2_000, lambda inner: frozenset([inner]))
    assert equal(left, right)
    assert difference(left, nest(2_001, lambda inner: frozenset([inner]))) is not None


def test_a_cycle_is_compared_and_told():
    held: list[Any] = []
    held.append(held)
    keyed: dict[str, Any] = {}
    keyed["self"] = keyed
    assert difference([1], held) is not None
    assert difference({"self": {"self": 1}}, keyed) is not None
    assert not equal([[]], held)


def test_what_is_no_term_equals_itself_alone():
    thing, other = object(), object()
    assert equal([thing], [thing])
    assert not equal([thing], [other])
    assert not equal(OrderedDict(a=1), {"a": 1})


# -- difference, shown --


@pytest.mark.parametrize(
    ("left", "right", "told"),
    [
        ({"a": [1, (2, 3)]}, {"a": [1, [2, 3]]}, "(2, 3) (tuple) became [2, 3] (list) at event.a[1]"),
        ({"a": {"b c": 1}}, {"a": {"b c": 2}}, "1 became 2 at event.a['b c']"),
        ({"a": 1}, {"a": True}, "1 (int) became True (bool) at event.a"),
        ([1, 2], [1], "2 items became 1: [1, 2] became [1] at event"),
        ({1: "x"}, {"1": "x"}, "key 1 became '1' at event"),
        ({"a": 1}, {}, "key 'a' is missing at event"),
        ({}, {"b": 1}, "key 'b' was added at event"),
        ({1, 2}, {1}, "{1, 2} became {1} at event"),
        (Decimal("1.50"), Decimal("1.5"), "Decimal('1.50') became Decimal('1.5') at event"),
        ([0.0], [-0.0], "0.0 became -0.0 at event[0]"),
        ({"a": 1, "b": [2]}, {"a": 9, "b": [9]}, "1 became 9 at event.a"),
    ],
)
def test_the_first_difference_is_told_with_its_place(left, right, told):
    assert difference(left, right, "event") == told


def test_anything_can_be_shown():
    class Angry:
        def __repr__(self):
            raise RuntimeError("no")

    assert shown(Angry()) == "a Angry whose repr raised RuntimeError"
    assert shown(nest(DEEP)).startswith("a deeply nested list")
    assert shown(10**5000).startswith("0x")
    assert shown("\ud800") == r"'\ud800'"
    assert len(shown("x" * 10_000)) <= 60
    assert difference({10**5000: 1}, {10**5000: 2}, "x").startswith("1 became 2 at x[0x")


# -- check_durable --


@given(rich_terms())
def test_what_the_contract_asks_for_is_durable(term):
    check_durable(term, "input")


@given(plain_terms())
def test_plain_terms_are_durable_without_rich_ones(term):
    check_durable(term, "input", rich=False)


class Level(IntEnum):
    HIGH = 1


class Point(NamedTuple):
    x: int


class Text(str):
    pass


def _cycle():
    held: list[Any] = [1]
    held.append({"again": held})
    return held


@pytest.mark.parametrize(
    ("term", "path"),
    [
        (threading.Lock(), "event"),
        ({"payload": {"owner": [print]}}, "event.payload.owner[0]"),
        ({"a b": {"": object()}}, "event['a b']['']"),
        ([1, "x", {"a": "\ud800"}], "event[2].a"),
        ({"a": {"\ud800": 1}}, "event.a"),
        ({"a": {(1, object()): 1}}, "event.a"),
        ({"a": {1: object()}}, "event.a[1]"),
        ({"a": [{object()}]}, "event.a[0]"),
        ({"a": {(1, object())}}, "event.a"),
        ({"a": {frozenset({(1, (2, object()))})}}, "event.a"),
        (([object()], object()), "event[0][0]"),
        (Level.HIGH, "event"),
        ([Text("x")], "event[0]"),
        ({Text("x"): 1}, "event"),
        ({"p": Point(1)}, "event.p"),
        ([OrderedDict()], "event[0]"),
        (bytearray(b"x"), "event"),
        (1j, "event"),
        (_cycle(), "event[1].again"),
        ([nest(300)], "event[0]"),
    ],
)
def test_the_first_offender_is_named_by_its_path(term, path):
    with pytest.raises(NotDurable) as caught:
        check_durable(term, "event")
    assert caught.value.path.startswith(path)
    assert caught.value.path == path or caught.value.kind == "too deep"
    assert caught.value.kind


def test_two_offenders_are_named_in_order():
    with pytest.raises(NotDurable) as caught:
        check_durable({"a": [[1], {"b": object()}], "c": object()}, "event")
    assert caught.value.path == "event.a[1].b"


@pytest.mark.parametrize(
    "term", [(1,), {1}, frozenset(), Decimal(1), date(2026, 1, 1), UUID(int=0), {1: 2}, {(): 1}]
)
def test_rich_terms_undeclared_are_refused(term):
    check_durable([term], "input")
    with pytest.raises(NotDurable, match=r"input\[0\]"):
        check_durable([term], "input", rich=False)


def test_depth_is_counted_in_containers():
    check_durable(nest(64), "input", max_depth=64)
    with pytest.raises(NotDurable, match="deeper than 64"):
        check_durable(nest(65), "input", max_depth=64)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"k": inner}, lambda inner: (inner,)])
def test_a_very_deep_term_is_refused_not_crashed_on(wrap):
    term = nest(VERY, wrap)
    with pytest.raises(NotDurable):
        check_durable(term, "input")
    check_durable(term, "input", max_depth=VERY)


def test_shared_parts_are_no_cycle():
    shared = {"a": [1]}
    check_durable([shared, shared, {"again": shared}], "input")


@pytest.mark.parametrize("wrap", [lambda inner: [inner, inner], lambda inner: {"a": inner, "b": [inner]}])
def test_a_small_graph_of_shared_parts_that_stands_for_a_huge_term_is_refused_at_once(wrap):
    with pytest.raises(NotDurable, match="more than 20000000 values"):
        check_durable(nest(100, wrap), "input")


def test_the_count_of_values_is_exact_with_shared_parts():
    row = list(range(999))
    table = [row] * 9  # 1 + 9 + 9 * 999 values
    check_durable(table, "input", max_nodes=9_001)
    with pytest.raises(NotDurable):
        check_durable(table, "input", max_nodes=9_000)


def test_a_shared_part_that_is_fine_above_may_be_too_deep_below():
    part = nest(20, lambda inner: [inner, list(range(200))])
    term = [part, nest(50, bottom=part)]
    check_durable(term, "input", max_depth=72)
    with pytest.raises(NotDurable, match="deeper"):
        check_durable(term, "input", max_depth=71)


# -- copy_term --


@given(rich_terms())
def test_a_copy_shares_no_mutable_container(term):
    def containers(value):
        found, stack = [], [value]
        while stack:
            one = stack.pop()
            if type(one) in (list, dict, set):
                found.append(id(one))
            if isinstance(one, dict):
                stack.extend(one.values())
            elif isinstance(one, (list, tuple)):
                stack.extend(one)
        return set(found)

    copied = copy_term(term)
    assert not containers(term) & containers(copied)


def test_a_copy_keeps_the_order_of_keys_and_of_items():
    term = {"b": [3, 1, (2, [0])], "a": {"z": 1, "y": 2}}
    assert list(copy_term(term)) == ["b", "a"]
    assert copy_term(term) == term
