"""The checks of arguments that adapters may use: the values that a careless check lets through."""

import math
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

import pytest

from continuum_conformance.contract import Instance, InvalidArgument, Lease, NotDurable, Snapshot
from continuum_conformance.contract.arguments import (
    check_event,
    check_integer,
    check_lease,
    check_name,
    check_names,
    check_snapshot,
    check_token,
    check_ttl,
    is_canonical_uuid,
)
from continuum_conformance.suite.data import BAD_EVENTS, BAD_NAMES, BAD_SEQS, BAD_TOKENS, BAD_TTLS

NOON = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidArgument, match="the owner"):
        check_name(name, "the owner")


@pytest.mark.parametrize(
    "name", ["a", "x" * 255, "\U0001f600" * 255, " ", "\n", "\u0001", "\ue000", "\uffff", "a:b/c"]
)
def test_legal_names_pass(name):
    assert check_name(name, "the owner") == name


def test_a_name_of_a_subclass_becomes_plain_text():
    class Tenant(StrEnum):
        A = "a"

    assert type(check_name(Tenant.A, "the instance")) is str


def test_names_are_taken_from_the_instance():
    assert check_names(Instance("shop"), "r") == ("shop", "r")
    for wrong in (None, "shop", Instance(None), Instance("")):
        with pytest.raises(InvalidArgument):
            check_names(wrong, "r")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("12345678-1234-5678-1234-567812345678", True),
        ("12345678-1234-5678-1234-56781234567A", False),
        ("12345678123456781234567812345678", False),
        ("{12345678-1234-5678-1234-567812345678}", False),
        ("urn:uuid:12345678-1234-5678-1234-567812345678", False),
        ("12345678-1234-5678-1234-56781234567", False),
        ("12345678-1234-5678-1234-5678123456_8", False),
        ("\u0661" * 32, False),
        ("run", False),
        ("", False),
    ],
)
def test_canonical_uuid_text(text, canonical):
    assert is_canonical_uuid(text) is canonical


@pytest.mark.parametrize("token", BAD_TOKENS)
def test_what_is_no_token_is_refused(token):
    with pytest.raises(InvalidArgument):
        check_token(token)


@pytest.mark.parametrize("token", [None, 0, -1, 2**70, -(2**70)])
def test_tokens_pass_whatever_their_size(token):
    assert check_token(token) == token


@pytest.mark.parametrize("ttl", [*BAD_TTLS, 10**400, Decimal(1), 1j])
def test_what_is_no_ttl_is_refused(ttl):
    with pytest.raises(InvalidArgument):
        check_ttl(ttl)


@pytest.mark.parametrize("ttl", [0, 0.0, -0.0, 1e-9, 5e-324, 60, 10 * 365 * 86400])
def test_legal_ttls_pass(ttl):
    assert check_ttl(ttl) == ttl


@pytest.mark.parametrize("event", BAD_EVENTS)
def test_what_is_no_event_is_refused(event):
    with pytest.raises(InvalidArgument):
        check_event(event)


@pytest.mark.parametrize("seq", [s for s in BAD_SEQS if s is not None])
def test_a_seq_that_is_no_integer_is_refused(seq):
    with pytest.raises(InvalidArgument):
        check_event({"type": "step", "seq": seq})


def test_an_event_is_given_back_plain_and_its_seq_apart():
    assert check_event({"type": "step", "seq": None, "a": 1}) == ({"type": "step", "a": 1}, None)
    assert check_event({"type": "step", "seq": 2**70}) == ({"type": "step", "seq": 2**70}, 2**70)
    plain, _ = check_event(OrderedDict(type="step"))
    assert type(plain) is dict
    plain, _ = check_event(MappingProxyType({"type": "step"}))
    assert type(plain) is dict


def test_an_event_is_not_changed_by_the_check():
    event = {"type": "step", "seq": None}
    check_event(event)
    assert event == {"type": "step", "seq": None}


def test_an_offender_in_an_event_is_named():
    with pytest.raises(NotDurable) as caught:
        check_event({"type": "step", "payload": {"owner": [print]}})
    assert caught.value.path == "event.payload.owner[0]"


def snapshot(**changes):
    fields = {"run_id": "r", "through_seq": 0, "version_hash": b"v", "taken_at": NOON, "steps_by_seq": {0: 1}}
    return Snapshot(**{**fields, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        *({"through_seq": value} for value in (True, 0.0, "0", None)),
        *({"steps_by_seq": {value: 1}} for value in (True, 0.0, "0", None)),
        *({"steps_by_seq": value} for value in (None, [], [(0, 1)])),
        *({"taken_at": value} for value in (datetime(2026, 1, 2), None, "2026-01-02", NOON.date(), 0)),
        *({"version_hash": value} for value in (None, "v", bytearray(b"v"), 1)),
        *({"run_id": value} for value in ("", None, 1)),
    ],
)
def test_a_snapshot_of_the_wrong_form_is_refused(changes):
    with pytest.raises(InvalidArgument):
        check_snapshot(snapshot(**changes))


def test_an_offender_in_a_snapshot_is_named():
    with pytest.raises(NotDurable) as caught:
        check_snapshot(snapshot(steps_by_seq={0: 1, 3: {"result": print}}))
    assert caught.value.path == "snapshot.steps_by_seq[3].result"


def test_a_snapshot_with_a_step_of_a_huge_number_is_checked():
    checked = check_snapshot(snapshot(through_seq=2**70, steps_by_seq={10**5000: 1, -1: 2}))
    assert checked.steps_by_seq == {10**5000: 1, -1: 2}
    with pytest.raises(NotDurable):
        check_snapshot(snapshot(steps_by_seq={10**5000: print}))


@pytest.mark.parametrize(
    "lease", [None, 5, Lease("", "o", 1), Lease("r", "", 1), Lease("r", "o", None), Lease("r", "o", True)]
)
def test_a_lease_of_the_wrong_form_is_refused(lease):
    with pytest.raises(InvalidArgument):
        check_lease(lease)


def test_look_alikes_are_taken():
    class Mine:
        run_id, owner, token = "r", "o", 2**70

    assert check_lease(Mine()) == Lease("r", "o", 2**70)


def test_no_bool_is_an_integer():
    for value in (True, False, 1.0, "1", None, math.nan, timedelta(1)):
        with pytest.raises(InvalidArgument):
            check_integer(value, "it")
