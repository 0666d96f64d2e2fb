"""The general judge: whether a history is linearizable with regard to any sequential model.

register = Model(
    init=lambda key: 0,
    step=lambda state, operation, outcome: ...,   # the next state, or None: impossible here
)
verdict = check_linearizable(history, register)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from continuum_conformance.contract.terms import shown
from continuum_conformance.history.deciding import Case, decide_cases, split
from continuum_conformance.history.recording import RUNNING, Recorded
from continuum_conformance.history.search import Problem, timeline
from continuum_conformance.history.verdict import Verdict
from continuum_conformance.model import Aspect, Impossible, Operation, Outcome

__all__ = ["Model", "ModelProblem", "check_linearizable", "impossible"]

State = TypeVar("State")


def impossible(reason: str, *, expected: str = "") -> Impossible:
    """What a model's step may return instead of None, to say why."""
    return Impossible((), reason, expected, Aspect.ANSWER)


def _one(_operation: Operation) -> Hashable:
    return None


def _never(_operation: Operation, _outcome: Outcome) -> bool:
    return False


@dataclass(frozen=True)
class Model(Generic[State]):
    """A sequential object.

    Attributes:
        init: the state at the beginning, for a partition's key.
        step: the state after an operation with this outcome; None, or `impossible` with a reason, when the
            outcome cannot be had here. So None itself is no state.
        partition: the key of the part that an operation belongs to. Parts are judged apart, which is right when no
            operation concerns two of them (linearizability is a local property).
        step_unknown: the states that an operation of unknown outcome may lead to when it happens here. Without it
            the operation steps with an outcome of value None, as writes that answer nothing do.
        fingerprint: the same for two states exactly when nothing later can tell them apart; by default the state
            itself, which must be hashable then.
        passive: whether an operation with this outcome leaves every state as it is, as reads and refusals do.
            Without it the verdict is the same and comes later.
    """

    init: Callable[[Hashable], State]
    step: Callable[[State, Operation, Outcome], State | Impossible | None]
    partition: Callable[[Operation], Hashable] = _one
    step_unknown: Callable[[State, Operation], Iterable[State]] | None = None
    fingerprint: Callable[[State], Hashable] | None = None
    passive: Callable[[Operation, Outcome], bool] = _never


def check_linearizable(
    history: Iterable[Recorded],
    model: Model[Any],
    *,
    budget: int | None = None,
    orders: bool = False,
    explain: bool = True,
) -> Verdict:
    """Decide whether an order of the operations explains their outcomes.

    Args:
        history: the operations. Those that gave up are left out; those of unknown outcome may take effect at any
            time after their invocation, or never.
        model: the sequential object.
        budget: how many states may be visited in all; then the verdict is inconclusive, unless some part has failed.
        orders: whether a pass gives the orders that were found.
        explain: whether a failure explains itself, which can take longer than to find it.
    """
    parts = split(history, model.partition)
    cases = (_case(model, key, part) for key, part in parts.items())
    return decide_cases(parts, cases, budget=budget, orders=orders, explaining=explain)


def _case(model: Model[Any], key: Hashable, part: list[Recorded]) -> Case:
    entries = [entry for entry in part if not (entry.unknown and model.passive(entry.operation, RUNNING))]

    def problem(chosen: Sequence[Recorded], last: int | None, inclusive: bool) -> Problem:
        return ModelProblem(model, key, chosen, last, inclusive)

    def later(order: Sequence[Recorded], rest: list[Recorded]) -> Case | None:
        going = ModelProblem(model, key, order)
        state = going.initial
        for index, entry in enumerate(order):
            ways = list(going.effects(index, state)) if entry.unknown else [going.step(index, state)]
            if len(ways) != 1:
                return None
            state = ways[0]
        return _case(replace(model, init=lambda _key: state), key, rest)

    return Case(key, entries, problem, problem, later, foresees=False)


class ModelProblem(Problem):
    """A partition of a history under a model."""

    def __init__(
        self,
        model: Model[Any],
        key: Hashable,
        entries: Sequence[Recorded],
        last: int | None = None,
        inclusive: bool = True,
    ) -> None:
        self._model = model
        self._pairs = [(entry.operation, entry.outcome) for entry in entries]
        self._step = model.step
        self.time = timeline(
            [entry.invoked for entry in entries],
            [None if entry.unknown else entry.returned for entry in entries],
            last,
            inclusive=inclusive,
        )
        self.initial = model.init(key)
        self.passive = [model.passive(operation, outcome) for operation, outcome in self._pairs]
        self.growing = self.waiting = [False] * len(entries)

    def step(self, index: int, state: Any) -> Any | None:
        """See `Problem.step`."""
        operation, outcome = self._pairs[index]
        following = self._step(state, operation, outcome)
        return None if type(following) is Impossible else following

    def effects(self, index: int, state: Any) -> Iterable[Any]:
        """See `Problem.effects`."""
        operation = self._pairs[index][0]
        if self._model.step_unknown is not None:
            return self._model.step_unknown(state, operation)
        following = self._step(state, operation, ANSWERED)
        return () if following is None or type(following) is Impossible else (following,)

    def fingerprint(self, state: Any) -> Hashable:
        """See `Problem.fingerprint`."""
        printed: Hashable = state if self._model.fingerprint is None else self._model.fingerprint(state)
        return printed

    def reason(self, index: int, state: Any) -> Impossible:
        """Why an operation cannot happen in a state in which `step` gave None."""
        operation, outcome = self._pairs[index]
        refused = self._step(state, operation, outcome)
        if type(refused) is Impossible:
            return refused
        return impossible(f"the model does not allow it when its state is {shown(state, 120)}")


ANSWERED = Outcome.of(None)
