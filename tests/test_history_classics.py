"""The general judge on the classics of the literature: their verdicts, and a textbook checker's on histories by chance."""

import sys
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continuum_conformance.history import Model, Recorded, Status, check_linearizable, explanation, search
from continuum_conformance.model import Impossible, Operation, Outcome

sys.path.insert(0, str(Path(__file__).parents[1] / "ci"))

from classic_histories import (
    LOST,
    REGISTER,
    STORE,
    Clients,
    read_log,
    register_history,
    store_history,
    write_log,
)

HISTORIES = Path(__file__).parent / "histories"


def entry(
    name: str, answer: Any, invoked: int, returned: int | None, worker: str = "A", **arguments: Any
) -> Recorded:
    outcome = answer if isinstance(answer, Outcome) else Outcome.of(answer)
    return Recorded(Operation(name, arguments, worker), outcome, invoked, returned, worker)


def drawn(text: str) -> list[Recorded]:
    """A history drawn with a line for each operation: `A  |--- write 1 ---|`, the answer after an arrow.

    The columns are the stamps. What ends in dots never came back.
    """
    history = []
    for line in text.strip("\n").rstrip().splitlines():
        begin = line.index("|")
        end = line.find("|", begin + 1)
        said, _, answer = line[begin:].strip("|.- ").partition(" -> ")
        name, *arguments = said.split()
        named = {f"a{place}": value for place, value in enumerate(arguments)}
        worker = line[:begin].strip()
        if end < 0:
            history.append(entry(name, LOST, begin, None, worker, **named))
        else:
            history.append(entry(name, answer or None, begin, end, worker, **named))
    return history


# -- the literature's objects --


def queue_step(state: tuple[str, ...], operation: Operation, outcome: Outcome) -> Any:
    if operation.name == "enq":
        return (*state, operation.arguments["a0"])
    return state[1:] if state and state[0] == outcome.value else None


def register_step(state: str, operation: Operation, outcome: Outcome) -> Any:
    if operation.name == "write":
        return operation.arguments["a0"]
    return state if state == outcome.value else None


def mutex_step(state: str, operation: Operation, outcome: Outcome) -> Any:
    if operation.name == "lock":
        return None if state else operation.worker
    return "" if state == operation.worker else None


def set_step(state: frozenset[str], operation: Operation, outcome: Outcome) -> Any:
    if operation.name == "add":
        return state | {operation.arguments["a0"]}
    seen = (outcome.value or "").split(",")
    return state if sorted(seen) == sorted(state) else None


QUEUE: Model[tuple[str, ...]] = Model(lambda _key: (), queue_step)
TEXT: Model[str] = Model(lambda _key: "0", register_step)
MUTEX: Model[str] = Model(lambda _key: "", mutex_step)
SET: Model[frozenset[str]] = Model(lambda _key: frozenset(), set_step)

PASSED, FAILED = Status.PASSED, Status.FAILED
LITERATURE: dict[str, tuple[Model[Any], Status, str]] = {
    # M. Herlihy, J. Wing: Linearizability: a correctness condition for concurrent objects, TOPLAS 1990, section 1.
    "Herlihy and Wing, H1: enqueues that overlap may take effect in either order": (
        QUEUE,
        PASSED,
        """
        A |--- enq x ---------|
        B    |- enq y --|
        B                        |- deq -> x -|
        A                                       |- deq -> y -|
        A                                                       |- enq z ...
        """,
    ),
    "Herlihy and Wing, H2: an enqueue that came first is dequeued first": (
        QUEUE,
        FAILED,
        """
        A |- enq x -|
        B             |- enq y -|
        A                         |- deq -> y -|
        """,
    ),
    "Herlihy and Wing, H3: what never returned may have taken effect": (
        QUEUE,
        PASSED,
        """
        A |- enq x ...
        B      |- deq -> x -|
        """,
    ),
    "Herlihy and Wing, H4: nothing is dequeued twice": (
        QUEUE,
        FAILED,
        """
        A |--- enq x ---|
        B   |-- enq y ---|
        A                  |- deq -> y -|
        C                   |- deq -> y -|
        """,
    ),
    # MIT 6.824, quiz 2 of 2017, question VII; also in Porcupine's tests.
    "6.824: two reads beside a write, the later one to end sees the new value": (
        TEXT,
        PASSED,
        """
        A |------------------ write 100 -------------------|
        B         |-------- read -> 100 --------|
        C            |------ read -> 0 ---|
        """,
    ),
    "6.824: the new value was seen, and then the old one": (
        TEXT,
        FAILED,
        """
        A |------------------ write 200 -------------------|
        B      |- read -> 200 -|
        C                            |------ read -> 0 ---|
        """,
    ),
    # J. Misra: Axioms for memory access in asynchronous hardware systems, TOPLAS 1986: reads of atomic registers.
    "a read that begins after another ended sees nothing older": (
        TEXT,
        FAILED,
        """
        A |- write 1 -|
        B                |----------- write 2 -----------|
        C                  |- read -> 2 -|
        D                                  |- read -> 1 -|
        """,
    ),
    "two readers do not see two writes in different orders": (
        TEXT,
        FAILED,
        """
        A |------------------------ write 1 -------------------------|
        B |------------------------ write 2 -------------------------|
        C     |- read -> 1 -| |- read -> 2 -|
        D                                     |- read -> 1 -|
        """,
    ),
    # Knossos: a mutex and a set.
    "Knossos: a mutex is not held twice": (
        MUTEX,
        FAILED,
        """
        A |- lock -|
        B            |- lock -|
        A                       |- unlock -|
        """,
    ),
    "Knossos: an unlock that overlaps lets the next one in": (
        MUTEX,
        PASSED,
        """
        A |- lock -|
        A            |---- unlock ----|
        B              |- lock -|
        """,
    ),
    "Knossos: a lock of unknown outcome may have been taken, by whom it was asked for": (
        MUTEX,
        FAILED,
        """
        A |- lock ...
        B             |- unlock -|
        """,
    ),
    "Knossos: a set's read may miss an add that overlaps": (
        SET,
        PASSED,
        """
        A |- add 1 ---------------------|
        B |- add 2 -|
        C             |- read -> 2 -|
        """,
    ),
    "Knossos: a set holds nothing twice": (
        SET,
        FAILED,
        """
        A |- add 1 -|
        B |- add 2 -|
        C             |- read -> 1,1,2 -|
        """,
    ),
}


@pytest.mark.parametrize("name", LITERATURE)
def test_the_literatures_verdicts(name: str) -> None:
    model, status, picture = LITERATURE[name]
    assert check_linearizable(drawn(picture), model).status is status


PUBLISHED = {
    "etcd_000": FAILED,
    "etcd_002": PASSED,
    "etcd_007": PASSED,
    "etcd_076": PASSED,
    "etcd_099": FAILED,
    "etcd_102": PASSED,
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("passive", [True, False], ids=["passive declared", "not declared"])
def test_histories_of_etcd_have_their_published_verdicts(name: str, passive: bool) -> None:
    with (HISTORIES / f"{name}.log").open() as log:
        history, model = read_log(log)
    if not passive:
        model = replace(model, passive=lambda _operation, _outcome: False)
    verdict = check_linearizable(history, model)
    assert verdict.status is PUBLISHED[name]
    assert (verdict.explanation is not None) is verdict.failed


LOST_APPEND = """
{:process 0, :type :invoke, :f :append, :key "7", :value "x 0 0 y"}
{:process 0, :type :ok, :f :append, :key "7", :value "x 0 0 y"}
{:process 0, :type :invoke, :f :append, :key "7", :value "x 0 3 y"}
{:process 0, :type :ok, :f :append, :key "7", :value "x 0 3 y"}
{:process 0, :type :invoke, :f :get, :key "7", :value nil}
{:process 0, :type :ok, :f :get, :key "7", :value "x 0 0 y"}
"""
"""The key that is wrong in Porcupine's c01-bad, of a key-value server of 6.824: an append that was answered is lost."""
STALE_GET = """
{:process 1, :type :invoke, :f :get, :key "9", :value nil}
{:process 2, :type :invoke, :f :append, :key "9", :value "x 2 0 y"}
{:process 6, :type :invoke, :f :append, :key "9", :value "x 6 0 y"}
{:process 1, :type :ok, :f :get, :key "9", :value ""}
{:process 6, :type :ok, :f :append, :key "9", :value "x 6 0 y"}
{:process 2, :type :ok, :f :append, :key "9", :value "x 2 0 y"}
{:process 0, :type :invoke, :f :get, :key "9", :value nil}
{:process 0, :type :ok, :f :get, :key "9", :value "x 6 0 yx 2 0 y"}
{:process 2, :type :invoke, :f :get, :key "9", :value nil}
{:process 2, :type :ok, :f :get, :key "9", :value ""}
"""
"""The first key to be wrong in its c10-bad: a get that sees nothing after another saw both appends."""
LOST_ANSWER = """
{:process 0, :type :invoke, :f :append, :key "0", :value "a"}
{:process 1, :type :invoke, :f :put, :key "0", :value "b"}
{:process 2, :type :invoke, :f :get, :key "0", :value nil}
{:process 2, :type :ok, :f :get, :key "0", :value "b"}
{:process 2, :type :invoke, :f :get, :key "0", :value nil}
{:process 2, :type :ok, :f :get, :key "0", :value "ba"}
"""
"""Neither the put nor the append ever came back, and both took effect."""


@pytest.mark.parametrize(
    ("log", "status"), [(LOST_APPEND, FAILED), (STALE_GET, FAILED), (LOST_ANSWER, PASSED)]
)
def test_key_value_stores(log: str, status: Status) -> None:
    history, model = read_log(log.strip().splitlines())
    assert check_linearizable(history, model).status is status


# -- a textbook checker --


def textbook(history: Sequence[Recorded], model: Model[Any]) -> bool:
    """Wing and Gong's algorithm with Lowe's memo, as the papers have it: no slots, no events, no order just in time."""
    parts: dict[Hashable, list[Recorded]] = {}
    for entry in history:
        parts.setdefault(model.partition(entry.operation), []).append(entry)
    return all(_one_part(part, model, model.init(key)) for key, part in parts.items())


def _one_part(part: Sequence[Recorded], model: Model[Any], initial: Any) -> bool:
    due = frozenset(place for place, entry in enumerate(part) if not entry.unknown)
    seen = set()
    stack = [(frozenset[int](), initial)]
    while stack:
        done, state = stack.pop()
        if due <= done:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        first = min(part[place].returned or 0 for place in due - done)
        for place, entry in enumerate(part):
            if place not in done and entry.invoked <= first:
                stack += [(done | {place}, way) for way in _ways(model, state, entry)]
    return False


def _ways(model: Model[Any], state: Any, entry: Recorded) -> Iterator[Any]:
    if entry.unknown and model.step_unknown is not None:
        yield from model.step_unknown(state, entry.operation)
        return
    following = model.step(state, entry.operation, Outcome.of(None) if entry.unknown else entry.outcome)
    if following is not None and type(following) is not Impossible:
        yield following


CLIENTS = st.builds(
    Clients,
    clients=st.integers(2, 5),
    operations=st.integers(2, 24),
    slow=st.sampled_from([0.1, 0.5]),
    long=st.just(8.0),
    late=st.sampled_from([0.0, 0.9]),
    lost=st.sampled_from([0.0, 0.0, 0.3]),
    stale=st.sampled_from([0.0, 0.3]),
)


@settings(max_examples=150, deadline=None)
@given(CLIENTS, st.integers(0, 10**6), st.booleans())
def test_it_agrees_with_a_textbook_checker_on_registers(clients: Clients, seed: int, passive: bool) -> None:
    history = register_history(clients, seed, values=3)
    model = REGISTER if passive else replace(REGISTER, passive=lambda _operation, _outcome: False)
    wanted = PASSED if textbook(history, REGISTER) else FAILED
    assert check_linearizable(history, model, explain=False).status is wanted
    if not clients.stale:
        assert wanted is PASSED


@settings(max_examples=100, deadline=None)
@given(CLIENTS, st.integers(0, 10**6))
def test_it_agrees_with_a_textbook_checker_on_stores(clients: Clients, seed: int) -> None:
    history = store_history(clients, seed, keys=2)
    wanted = PASSED if textbook(history, STORE) else FAILED
    assert check_linearizable(history, STORE, explain=False).status is wanted
    if not clients.stale:
        assert wanted is PASSED


def dice_unknown(state: int, operation: Operation) -> Iterable[int]:
    """A throw of unknown outcome: any of three."""
    return [(state + eyes) % 5 for eyes in (1, 2, 4)] if operation.name == "throw" else ()


def dice_step(state: int, operation: Operation, outcome: Outcome) -> int | None:
    if operation.name == "throw":
        return (state + outcome.value) % 5
    return state if state == outcome.value else None


DICE: Model[int] = Model(lambda _key: 0, dice_step, step_unknown=dice_unknown)


@st.composite
def throws(draw: st.DrawFn) -> Recorded:
    invoked = draw(st.integers(0, 8))
    returned = invoked + draw(st.integers(0, 6))
    if draw(st.booleans()):
        return entry("look", draw(st.integers(0, 4)), invoked, returned)
    return entry("throw", draw(st.sampled_from([LOST, 1, LOST])), invoked, returned)


@settings(max_examples=300, deadline=None)
@given(st.lists(throws(), max_size=7), st.booleans())
def test_an_unknown_operation_may_lead_to_several_states(history: list[Recorded], passive: bool) -> None:
    model = replace(DICE, passive=lambda operation, _outcome: operation.name == "look") if passive else DICE
    wanted = PASSED if textbook(history, DICE) else FAILED
    assert check_linearizable(history, model).status is wanted


# -- how much is searched --


def counter_step(state: int, operation: Operation, outcome: Outcome) -> int | None:
    if operation.name == "increment":
        return state + 1
    return state if state == outcome.value else None


COUNTER: Model[int] = Model(
    lambda _key: 0, counter_step, passive=lambda operation, _outcome: operation.name == "read"
)


def at_once(name: str, number: int) -> list[Recorded]:
    return [entry(name, None, each, 1_000, str(each), key="", value=f"{each} ") for each in range(number)]


def test_few_operations_before_the_blocked_one_are_tried_first() -> None:
    """Of thirty appends at once, a get shows one alone; depth first, it would be looked for behind all others."""
    get = entry("get", "29 ", 100, 101, key="")
    verdict = check_linearizable([*at_once("append", 30), get], STORE)
    assert verdict.passed
    assert verdict.visited < 200


def test_many_operations_before_the_blocked_one_are_tried_in_turn() -> None:
    """Of thirty increments at once, a read shows twenty; breadth first, there are a billion sets of them."""
    read = entry("read", 20, 100, 101)
    verdict = check_linearizable([*at_once("increment", 30), read], COUNTER)
    assert verdict.passed
    assert verdict.visited < 5_000


@pytest.mark.parametrize("seed", [46, 62, 87, 131, 144])
def test_many_lost_operations_do_not_hide_an_order(seed: int) -> None:
    """Of four hundred operations some 27 are lost. Depth first, these took 200,000 to 400,000 states."""
    history = register_history(Clients(10, 400, slow=0.3, long=10, lost=0.1), seed)
    assert 15 < sum(entry.unknown for entry in history) < 40
    verdict = check_linearizable(history, REGISTER)
    assert verdict.passed
    assert verdict.visited < 20_000


# -- failures --


def test_a_failure_may_go_without_an_explanation() -> None:
    history, model = read_log(STALE_GET.strip().splitlines())
    verdict = check_linearizable(history, model, explain=False)
    assert verdict.failed
    assert verdict.explanation is None
    assert verdict.text == "5 operations in 1 parts: no order explains them"


def test_an_explanation_visits_only_so_many_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many appends at once and a stale get: whether a part of them is wrong takes long to find out."""
    visited = []

    def counted(problem: search.Problem, budget: int) -> tuple[search.Found | None, int]:
        found, spent = search.decide(problem, budget)
        visited.append(spent)
        return found, spent

    monkeypatch.setattr(explanation, "decide", counted)
    history = store_history(Clients(50, 2_200, long=100, stale=0.005), 3)
    verdict = check_linearizable(history, STORE)
    assert verdict.failed
    assert verdict.explanation is not None
    assert len(verdict.explanation.operations) <= 100
    assert sum(visited) < 2_000_000


# -- log files --


@settings(max_examples=50, deadline=None)
@given(CLIENTS, st.integers(0, 10**6), st.sampled_from([register_history, store_history]))
def test_a_log_reads_back(clients: Clients, seed: int, make: Any) -> None:
    def told(entry: Recorded) -> tuple[Any, ...]:
        return entry.operation, None if entry.unknown else entry.outcome, entry.worker

    history = sorted(make(clients, seed), key=lambda entry: entry.invoked)
    again, model = read_log(write_log(history))
    assert [told(entry) for entry in again] == [told(entry) for entry in history]
    assert model is (REGISTER if make is register_history else STORE) or not history
    assert check_linearizable(again, model).status is check_linearizable(history, model).status


def test_a_line_of_neither_form_is_named() -> None:
    with pytest.raises(ValueError, match="line 2 is neither of a register's log nor of a store's: 'what'"):
        read_log(["INFO  jepsen.util - 3\t:invoke\t:read\tnil", "what"])
