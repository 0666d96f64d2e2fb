"""A journal that misbehaves within the contract, around any other: for the tests of an engine that has its own clock.

What it raises a right journal may raise. A call that is *refused* or *lost* never happened, one that is *unseen* did;
of the last two the caller is told that nobody knows. One who is *fenced* really is: somebody takes the lease over
before the call is passed on. So whatever the journal holds afterwards, a right engine copes with it.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from continuum_conformance.contract.errors import JournalError, JournalUnavailable
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.records import Lease
from continuum_conformance.simulate.dice import Dice

__all__ = ["FaultPlan", "FaultyJournal"]

KINDS = ("refused", "lost", "unseen", "fenced", "slow")
INTRUDER = "intruder"


@dataclass(frozen=True)
class FaultPlan:
    """How often what goes wrong, per call; a call has one fault at most.

    Attributes:
        refused: ``JournalUnavailable``, and the call surely did not happen.
        lost: ``JournalUnavailable`` with ``outcome_unknown``, and the call did not happen.
        unseen: ``JournalUnavailable`` with ``outcome_unknown``, and the call did happen.
        fenced: another takes over the lease under which the call is made, and gives it back; the journal refuses.
        slow: the call takes its time.
        slowest: seconds that a slow call takes at most.
        only: the operations that are struck.
        at: calls that are struck for certain, by their number from 0: which of these faults they meet.
    """

    refused: float = 0.02
    lost: float = 0.02
    unseen: float = 0.02
    fenced: float = 0.02
    slow: float = 0.0
    slowest: float = 1.0
    only: Collection[str] = frozenset(OPERATIONS)
    at: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = {*self.only} - {*OPERATIONS}
        if unknown:
            raise ValueError(
                f"{', '.join(sorted(unknown))} is no operation; there are {', '.join(OPERATIONS)}"
            )
        wrong = {*self.at.values()} - {*KINDS}
        if wrong:
            raise ValueError(f"{', '.join(sorted(wrong))} is no fault; there are {', '.join(KINDS)}")

    @classmethod
    def exactly(cls, at: Mapping[int, str]) -> FaultPlan:
        """These faults and no others."""
        return cls(0.0, 0.0, 0.0, 0.0, at=at)


class FaultyJournal:
    """The same twelve operations as the journal's, in the same form, blocking or async.

    Args:
        journal: the journal around which it stands.
        seed: the same seed, plan and calls give the same faults.
        plan: how often what goes wrong.
        sleep: how a slow call waits, given seconds; by default really.

    Attributes:
        faults: what went wrong so far: the call's number, its operation, the kind of fault.
        calls: how many there were.
    """

    def __init__(
        self,
        journal: Any,
        seed: int,
        plan: FaultPlan | None = None,
        *,
        sleep: Callable[[float], Any] | None = None,
    ) -> None:
        self._journal, self._plan = journal, plan if plan is not None else FaultPlan()
        self._dice = Dice(seed, "faulty")
        self._leases: dict[tuple[Any, Any], Lease] = {}
        self.faults: list[tuple[int, str, str]] = []
        self.calls = 0
        blocking = not inspect.iscoroutinefunction(journal.append)
        self._sleep = sleep if sleep is not None else (time.sleep if blocking else asyncio.sleep)
        for name in OPERATIONS:
            if callable(getattr(journal, name, None)):
                setattr(self, name, self._blocking(name) if blocking else self._async(name))

    def _blocking(self, name: str) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            steps = self._steps(name, values, named)
            answer: Any = None
            error: JournalError | None = None
            while True:
                try:
                    method, given, keywords = steps.throw(error) if error is not None else steps.send(answer)
                except StopIteration as done:
                    return done.value
                try:
                    answer, error = method(*given, **keywords), None
                except JournalError as raised:
                    error = raised

        return call

    def _async(self, name: str) -> Callable[..., Any]:
        async def call(*values: Any, **named: Any) -> Any:
            steps = self._steps(name, values, named)
            answer: Any = None
            error: JournalError | None = None
            while True:
                try:
                    method, given, keywords = steps.throw(error) if error is not None else steps.send(answer)
                except StopIteration as done:
                    return done.value
                try:
                    answer, error = await method(*given, **keywords), None
                except JournalError as raised:
                    error = raised

        return call

    def _steps(self, name: str, values: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """A call, as the calls that it comes down to: each is yielded, and its answer sent back."""
        arguments = {**dict(zip(OPERATIONS[name], values, strict=False)), **named}
        key = _key(arguments)
        kind = self._drawn(name, key)
        if kind == "slow":
            yield self._sleep, (self._dice.whole(1, 1_000) / 1_000 * self._plan.slowest,), {}
        if kind in ("refused", "lost"):
            raise _unavailable(name, key[1], unknown=kind == "lost")
        if kind == "fenced":
            yield from self._takeover(arguments["instance"], key)
        try:
            answer = yield getattr(self._journal, name), values, named
        except JournalError:
            if kind == "unseen":  # a refusal is not heard either
                raise _unavailable(name, key[1], unknown=True) from None
            raise
        if name == "acquire":
            self._leases[key] = answer
        elif name in ("release", "complete", "fail"):
            self._leases.pop(key, None)
        if kind == "unseen":
            raise _unavailable(name, key[1], unknown=True)
        return answer

    def _takeover(self, instance: Any, key: tuple[Any, Any]) -> Any:
        """Somebody takes over the lease, as if it had expired, and gives it back."""
        held = self._leases.pop(key)
        try:
            yield self._journal.renew, (instance, held, 0), {}
            lease = yield self._journal.acquire, (instance, key[1], INTRUDER, 0), {}
            yield self._journal.release, (instance, lease), {}
        except JournalError:
            return  # it was lost already, or the run is finished

    def _drawn(self, name: str, key: tuple[Any, Any]) -> str | None:
        number, plan = self.calls, self._plan
        self.calls += 1
        kind = plan.at.get(number)
        if kind is None and name in plan.only:
            kind = next((each for each in KINDS if self._dice.chance(getattr(plan, each))), None)
        if kind == "fenced" and (name in ("start_run", "acquire") or key not in self._leases):
            kind = None  # there is no lease to be taken
        if kind is not None:
            self.faults.append((number, name, kind))
        return kind


def _key(arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    about = arguments.get("lease", arguments.get("snapshot"))
    run_id = arguments.get("run_id", getattr(about, "run_id", None))
    return getattr(arguments.get("instance"), "name", None), run_id


def _unavailable(name: str, run_id: Any, *, unknown: bool) -> JournalUnavailable:
    reason = "no answer came" if unknown else "the store cannot be reached just now"
    return JournalUnavailable(reason, outcome_unknown=unknown, operation=name, run_id=run_id)
