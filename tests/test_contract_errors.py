"""The error family: anyone can raise them, and they cross process boundaries."""

import copy
import pickle

import pytest

from continuum_conformance.contract import (
    ERRORS,
    JournalError,
    JournalUnavailable,
    NotDurable,
    SequenceConflict,
)


@pytest.mark.parametrize("cls", ERRORS.values())
def test_every_error_can_be_raised_with_nothing_and_still_says_something(cls):
    error = cls()
    assert isinstance(error, JournalError)
    assert len(str(error)) > 10
    assert (error.operation, error.run_id) == (None, None)


def test_an_error_says_where_and_why():
    error = SequenceConflict("seq 4 given, 3 is next", operation="append", run_id="r1")
    assert str(error) == "append on run 'r1': seq 4 given, 3 is next"
    assert str(SequenceConflict(operation="append")) == "append: the seq is not the next one"
    assert str(NotDurable(path="event.a[0]", kind="lock")) == "event.a[0] cannot be stored (lock)"


class Mine(JournalUnavailable):
    def __init__(self, host, port):
        super().__init__(f"{host}:{port} is gone", outcome_unknown=True)
        self.host = host


@pytest.mark.parametrize("through", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_is_copied_with_all_it_knows(through):
    error = through(NotDurable(path="input", kind="lock", operation="start_run", run_id="r"))
    assert (error.path, error.kind, error.operation, error.run_id) == ("input", "lock", "start_run", "r")
    mine = through(Mine("db", 5432))
    assert (mine.host, mine.outcome_unknown, str(mine)) == ("db", True, "db:5432 is gone")


def test_a_subclass_that_forgets_to_call_ours_can_be_read():
    class Careless(JournalUnavailable):
        def __init__(self, code):
            self.code = code

    class CarelessToo(NotDurable):
        def __init__(self, code):
            self.code = code

    assert Careless(7).outcome_unknown is False
    assert CarelessToo(7).path is None
    assert "cannot be reached" in str(Careless(7))
