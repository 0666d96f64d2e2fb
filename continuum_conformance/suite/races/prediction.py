"""What a correct journal would answer, computed from the model: to know beforehand which operations conflict."""

from __future__ import annotations

from collections.abc import Sequence

from continuum_conformance.contract.records import Lease
from continuum_conformance.model import Impossible, Kind, Operation, Outcome, Specification, World

__all__ = ["conflict", "predict"]


def predict(specification: Specification, world: World, operation: Operation) -> tuple[Outcome, World]:
    """A right outcome, and the world after it. Where several refusals apply it is the first."""
    due = specification.expect(world, operation)
    if due.succeeds:
        outcome = Outcome.of(_answer(world, operation))
    else:
        outcome = Outcome(Kind.ERROR, error=next(iter(due.refusals)))
    after = specification.step(world, operation, outcome)
    if isinstance(after, Impossible):
        raise TypeError(f"the model contradicts itself on {operation.name}: {after.message}")
    return outcome, after


def _answer(world: World, operation: Operation) -> object:
    run = world.get(operation.key)
    if operation.name == "load":
        return list(run.events) if run is not None else []
    if operation.name == "get_run":
        return run.record(operation.run_id) if run is not None else None
    if run is None:
        return None
    if operation.name == "load_with_snapshot":
        latest = run.latest
        return latest, list(run.events if latest is None else run.events[latest.through_seq + 1 :])
    if operation.name == "acquire":
        return Lease(operation.run_id, operation.arguments["owner"], (run.last_token or 0) + 1)
    return None


def conflict(
    specification: Specification, world: World, first: Sequence[Operation], second: Sequence[Operation]
) -> bool:
    """Whether two workers' operations conflict: their two orders differ in an outcome or in the state."""
    one, after_one = _play(specification, world, (*first, *second))
    two, after_two = _play(specification, world, (*second, *first))
    return one != two[len(second) :] + two[: len(second)] or after_one != after_two


def _play(
    specification: Specification, world: World, operations: Sequence[Operation]
) -> tuple[list[tuple[str | None, object]], World]:
    outcomes: list[tuple[str | None, object]] = []
    for operation in operations:
        outcome, world = predict(specification, world, operation)
        outcomes.append((outcome.error, outcome.value))
    return outcomes, world
