"""The general judge: registers and key-value stores, against an oracle that tries every order; and its budget."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continuum_conformance.history import Model, Recorded, Status, check_linearizable, impossible
from continuum_conformance.model import Impossible, Kind, Operation, Outcome

LOST = Outcome(Kind.ERROR, error="JournalUnavailable", unknown=True)


def step(state: int, operation: Operation, outcome: Outcome) -> int | Impossible | None:
    arguments = operation.arguments
    if operation.name == "write":
        return int(arguments["value"])
    if operation.name == "read":
        if outcome.value == state:
            return state
        return impossible(f"it holds {state}", expected=str(state))
    if outcome.value is not (state == arguments["old"]):
        return None
    return int(arguments["new"]) if outcome.value else state


def step_unknown(state: int, operation: Operation) -> list[int]:
    if operation.name == "write":
        return [operation.arguments["value"]]
    if operation.name == "cas" and state == operation.arguments["old"]:
        return [operation.arguments["new"]]
    return []


REGISTER: Model[int] = Model(lambda _key: 0, step, step_unknown=step_unknown)
STORE: Model[int] = replace(REGISTER, partition=lambda operation: operation.arguments["key"])
QUICK: Model[int] = replace(
    REGISTER, passive=lambda operation, outcome: operation.name == "read" or outcome.value is False
)


def call(
    name: str, answer: Any, invoked: int, returned: int | None, worker: str = "A", **arguments: Any
) -> Recorded:
    outcome = answer if isinstance(answer, Outcome) else Outcome.of(answer)
    return Recorded(Operation(name, arguments, worker), outcome, invoked, returned, worker)


def write(value: int, invoked: int, returned: int | None, out: Any = None, **rest: Any) -> Recorded:
    return call("write", out, invoked, returned, **rest, value=value)


def read(value: int, invoked: int, returned: int, **rest: Any) -> Recorded:
    return call("read", value, invoked, returned, **rest)


def cas(old: int, new: int, swapped: bool, invoked: int, returned: int) -> Recorded:
    return call("cas", swapped, invoked, returned, old=old, new=new)


# -- the classics --

CLASSICS: dict[str, tuple[Status, list[Recorded]]] = {
    "nothing happened": (Status.PASSED, []),
    "a read after a write sees it": (Status.PASSED, [write(1, 1, 2), read(1, 3, 4)]),
    "a stale read": (Status.FAILED, [write(1, 1, 2), read(0, 3, 4)]),
    "a read beside a write may see either": (Status.PASSED, [write(1, 1, 6), read(0, 2, 3), read(1, 4, 5)]),
    "new, then old": (Status.FAILED, [write(1, 1, 6), read(1, 2, 3), read(0, 4, 5)]),
    "new, then old, at the same time": (Status.PASSED, [write(1, 1, 6), read(1, 2, 4), read(0, 3, 5)]),
    "a value that nobody wrote": (Status.FAILED, [write(1, 1, 2), read(7, 1, 2)]),
    "two readers disagree on the order of two writes": (
        Status.FAILED,
        [write(1, 1, 10), write(2, 1, 10), read(1, 2, 3), read(2, 4, 5), read(1, 6, 7)],
    ),
    "Herlihy and Wing's overlapping writes": (
        Status.PASSED,
        [write(1, 1, 4), write(2, 2, 5), read(1, 6, 7)],
    ),
    "of two compare-and-sets one wins": (Status.PASSED, [cas(0, 1, True, 1, 4), cas(0, 2, False, 2, 3)]),
    "two compare-and-sets both win": (Status.FAILED, [cas(0, 1, True, 1, 4), cas(0, 2, True, 2, 3)]),
    "a lost write shows": (Status.PASSED, [write(1, 1, 2, LOST), read(0, 3, 4), read(1, 5, 6)]),
    "a lost write shows and is gone": (
        Status.FAILED,
        [write(1, 1, 2, LOST), read(1, 3, 4), read(0, 5, 6)],
    ),
    "a lost write shows before it was invoked": (Status.FAILED, [read(1, 1, 2), write(1, 3, 4, LOST)]),
    "a write that never came back shows": (Status.PASSED, [write(1, 1, None), read(1, 3, 4)]),
    "a lost write is left out": (Status.PASSED, [write(1, 1, 2, LOST), read(0, 3, 4)]),
    "intervals are closed: equal stamps overlap": (Status.PASSED, [write(1, 1, 3), read(0, 3, 5)]),
    "one stamp later they do not": (Status.FAILED, [write(1, 1, 3), read(0, 4, 5)]),
    "moments at one stamp have no order": (Status.PASSED, [write(1, 2, 2), read(0, 2, 2), read(1, 2, 2)]),
}


@pytest.mark.parametrize("name", CLASSICS)
@pytest.mark.parametrize("model", [REGISTER, QUICK], ids=["plain", "with passive operations"])
def test_the_classics(name: str, model: Model[int]) -> None:
    status, history = CLASSICS[name]
    assert check_linearizable(history, model).status is status
    assert check_linearizable(history[::-1], model).status is status


# -- the oracle --


def explained(history: Sequence[Recorded]) -> bool:
    """All permutations of all choices of the unknown operations."""
    certain = [entry for entry in history if not entry.unknown]
    unknown = [entry for entry in history if entry.unknown]
    for choice in range(2 ** len(unknown)):
        chosen = certain + [entry for place, entry in enumerate(unknown) if choice >> place & 1]
        for order in permutations(chosen):
            if any(
                later.precedes(earlier) for place, earlier in enumerate(order) for later in order[place + 1 :]
            ):
                continue
            if follows(order):
                return True
    return False


def follows(order: Sequence[Recorded]) -> bool:
    state: int | None = 0
    for entry in order:
        if entry.unknown:
            state = next(iter(step_unknown(state or 0, entry.operation)), None)
        else:
            following = step(state or 0, entry.operation, entry.outcome)
            state = None if isinstance(following, Impossible) else following
        if state is None:
            return False
    return True


VALUES = st.integers(0, 2)


@st.composite
def calls(draw: st.DrawFn) -> Recorded:
    invoked = draw(st.integers(0, 8))
    returned = invoked + draw(st.integers(0, 5))
    out: Any = LOST if draw(st.integers(0, 5)) == 0 else None
    kind = draw(st.sampled_from(["read", "write", "write", "cas"]))
    if kind == "read":
        return call("read", draw(VALUES) if out is None else out, invoked, returned)
    if kind == "write":
        return write(draw(VALUES), invoked, returned, out)
    swapped = draw(st.booleans()) if out is None else out
    return call("cas", swapped, invoked, returned, old=draw(VALUES), new=draw(VALUES))


@settings(max_examples=400, deadline=None)
@given(st.lists(calls(), max_size=6))
def test_it_agrees_with_an_oracle(history: list[Recorded]) -> None:
    wanted = explained(history)
    for model in (REGISTER, QUICK):
        verdict = check_linearizable(history, model, orders=True)
        assert verdict.passed is wanted
        assert verdict.failed is not wanted
        for order in verdict.orders.values():
            assert follows(order)
            assert not any(b.precedes(a) for place, a in enumerate(order) for b in order[place + 1 :])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), calls()), max_size=8))
def test_keys_are_judged_apart(history: list[tuple[str, Recorded]]) -> None:
    keyed = [
        replace(
            entry, operation=replace(entry.operation, arguments={**entry.operation.arguments, "key": key})
        )
        for key, entry in history
    ]
    wanted = all(explained([entry for own, entry in history if own == key]) for key in "ab")
    assert check_linearizable(keyed, STORE).passed is wanted


@settings(max_examples=200, deadline=None)
@given(st.lists(calls(), min_size=1, max_size=6))
def test_an_explanation_is_a_smallest_wrong_part_of_the_shortest_wrong_prefix(
    history: list[Recorded],
) -> None:
    verdict = check_linearizable(history, REGISTER)
    why = verdict.explanation
    if why is None:
        return
    assert why.decisive.returned is not None
    for entry in history:  # at no earlier return was it wrong already
        if not entry.unknown and entry.returned is not None and entry.returned < why.decisive.returned:
            cut = entry.returned
            assert explained(
                [replace(e, returned=None) if _ends_after(e, cut) else e for e in begun(history, cut)]
            )
    assert not explained(why.operations)
    assert all(any(each is entry for entry in why.prefix) for each in why.operations)
    assert why.needed[-1] is why.decisive
    assert why.attempts


def _ends_after(entry: Recorded, stamp: int) -> bool:
    return entry.returned is not None and entry.returned > stamp


def begun(history: Sequence[Recorded], stamp: int) -> list[Recorded]:
    return [entry for entry in history if entry.invoked <= stamp]


# -- budget and turns --


def hard(key: int, size: int = 14) -> list[Recorded]:
    """Compare-and-sets that all overlap, and a read that none of their orders explains."""
    swaps = [call("cas", True, n, 100 + n, key=key, old=n * 7 % 3, new=n * 5 % 3) for n in range(size)]
    return [*swaps, read(9, 200, 201, key=key)]


def test_a_budget_that_ends_is_inconclusive_and_never_a_pass() -> None:
    verdict = check_linearizable(hard(0), STORE, budget=100)
    assert verdict.status is Status.INCONCLUSIVE
    assert not verdict.passed
    assert verdict.unfinished == (0,)
    assert verdict.text.startswith("inconclusive: after 1")


def test_the_bad_part_shows_while_others_are_still_being_searched() -> None:
    bad = [write(1, 1, 2, key=1), read(0, 3, 4, key=1)]
    endless = [entry for key in (0, 2) for entry in hard(key, 40)]
    verdict = check_linearizable([*endless, *bad], STORE, budget=50_000)
    assert verdict.failed
    assert verdict.explanation is not None
    assert verdict.explanation.key == 1


def test_the_memo_makes_equal_states_one() -> None:
    """Twelve writes that all overlap have 479,001,600 orders, but only 4,096 sets of them come before the rest."""
    writes = [write(1, n, 100 + n) for n in range(12)]
    verdict = check_linearizable([*writes, read(0, 300, 301)], REGISTER)
    assert verdict.failed
    assert verdict.visited < 50_000


def test_unknown_operations_that_change_nothing_are_not_tried() -> None:
    lost = [write(1, n, n, LOST) for n in range(40)]
    verdict = check_linearizable([*lost, read(1, 300, 301), read(2, 302, 303)], REGISTER)
    assert verdict.failed
    assert verdict.visited < 20_000


def test_one_operation_that_takes_very_long_makes_no_wide_masks() -> None:
    history = [write(5, 0, 100_000), *(read(0, 2 * n + 1, 2 * n + 2) for n in range(20_000))]
    verdict = check_linearizable(history, REGISTER)
    assert verdict.passed
    assert verdict.visited < 100_000


def test_a_long_history_is_explained_from_its_end() -> None:
    good = [write(n % 5, 2 * n, 2 * n + 1) for n in range(2_000)]
    verdict = check_linearizable([*good, read(9, 5_000, 5_001)], REGISTER)
    why = verdict.explanation
    assert why is not None
    assert why.earlier > 1_900
    assert len(why.prefix) == 2_001
    assert "after 1,9" in verdict.text


def test_states_that_cannot_be_hashed_have_a_fingerprint() -> None:
    def add(state: dict[str, int], operation: Operation, outcome: Outcome) -> dict[str, int] | None:
        if operation.name == "get":
            return state if state == outcome.value else None
        return {**state, operation.arguments["letter"]: 1}

    model: Model[dict[str, int]] = Model(lambda _key: {}, add, fingerprint=lambda state: tuple(sorted(state)))
    puts = [call("put", None, 1, 9, letter=letter) for letter in "abcdef"]
    assert check_linearizable([*puts, call("get", dict.fromkeys("abcdef", 1), 10, 11)], model).passed
    assert check_linearizable([*puts, call("get", {"a": 1}, 10, 11)], model).failed


def test_without_a_hook_an_unknown_operation_steps_as_if_it_had_answered_nothing() -> None:
    plain: Model[int] = Model(lambda _key: 0, step)
    assert check_linearizable([write(1, 1, 2, LOST), read(1, 3, 4)], plain).passed
    assert check_linearizable([write(1, 1, 2, LOST), read(2, 3, 4)], plain).failed
