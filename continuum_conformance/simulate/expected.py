"""What the runs of a world must come to, by which a judge measures what workers do to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from continuum_conformance.contract.records import Snapshot
from continuum_conformance.contract.terms import difference, equal, shown
from continuum_conformance.simulate.workflow import Workflow

__all__ = ["ANYTHING", "Expected", "OfWorkflow", "SimulatedRun"]

ANYTHING: Any = object()
"""In place of a result or an error: whatever it is."""


class Expected:
    """Of one run. Each question is answered with what is wrong, in words, or None. Anything goes here."""

    def event(self, events: Sequence[Mapping[str, Any]]) -> str | None:  # noqa: ARG002
        """Whether the last event may follow the others."""
        return None

    def outcome(self, state: str, value: Any, events: Sequence[Mapping[str, Any]]) -> str | None:  # noqa: ARG002
        """Whether the run may end so."""
        return None

    def snapshot(self, snapshot: Snapshot, events: Sequence[Mapping[str, Any]]) -> str | None:  # noqa: ARG002
        """Whether a snapshot tells what the history tells."""
        return None

    def asked(self, event: Mapping[str, Any], now: int) -> None:
        """An append was sent, at this moment in milliseconds."""

    def timer(self, event: Mapping[str, Any], now: int) -> str | None:  # noqa: ARG002
        """Whether an event that says that a timer is due may be accepted now."""
        return None


class OfWorkflow(Expected):
    """Of a run of one of the kit's own workflows."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self._history = workflow.history()
        self._set: dict[int, int] = {}

    def event(self, events: Sequence[Mapping[str, Any]]) -> str | None:
        """Event for event as in a run without faults."""
        seq = len(events) - 1
        found = {key: value for key, value in events[-1].items() if key != "due"}
        if seq >= len(self._history):
            return f"event {seq} ({_said(found)}) is one more than the workflow has"
        if equal(found, self._history[seq]):
            return None
        return f"event {seq} is {_said(found)}; without faults it is {_said(self._history[seq])}"

    def outcome(self, state: str, value: Any, events: Sequence[Mapping[str, Any]]) -> str | None:
        """Finished with the whole history, and as without faults."""
        due = "failed" if self.workflow.fails else "completed"
        if len(events) != len(self._history):
            return f"the run was {state} after {len(events)} of {len(self._history)} events"
        if state != due:
            return f"the run was {state}; without faults it is {due}"
        if not equal(value, self.workflow.expected):
            what = "error" if self.workflow.fails else "result"
            return f"the {what} is {shown(value, 120)}; without faults it is {shown(self.workflow.expected)}"
        return None

    def snapshot(self, snapshot: Snapshot, events: Sequence[Mapping[str, Any]]) -> str | None:
        """Step for step, and timer for timer, what a full replay gives."""
        replayed = remembered(events[: snapshot.through_seq + 1])
        differs = difference(replayed, dict(snapshot.steps_by_seq), "steps_by_seq")
        if not differs:
            return None
        return f"the snapshot through seq {snapshot.through_seq} is not what a full replay gives: {differs}"

    def asked(self, event: Mapping[str, Any], now: int) -> None:
        """A timer runs from when it was first asked for."""
        if event.get("type") == "timer" and isinstance(event.get("index"), int):
            self._set.setdefault(event["index"], now)

    def timer(self, event: Mapping[str, Any], now: int) -> str | None:
        """A timer never goes off early."""
        seq = event.get("seq")
        if event.get("type") != "fired" or not isinstance(seq, int) or seq >= len(self.workflow):
            return None
        entry = self.workflow.entries[seq]
        since = (now - self._set.get(entry.index, now)) / 1000
        if entry.kind != "fired" or since >= entry.seconds:
            return None
        return f"the timer of {entry.seconds} s went off after {since:g} s"


def remembered(events: Sequence[Mapping[str, Any]]) -> dict[int, Any]:
    """What a snapshot of these events holds: the value of each step, and when each timer is due, by seq."""
    return {
        int(event["seq"]): event["value"] if event["type"] == "step" else event["due"]
        for event in events
        if event["type"] in ("step", "timer")
    }


def _said(event: Mapping[str, Any]) -> str:
    rest = ", ".join(
        f"{key}={shown(value, 60)}" for key, value in event.items() if key not in ("type", "seq")
    )
    return f"{event.get('type')!s}({rest})"


@dataclass(frozen=True)
class SimulatedRun(Expected):
    """A run that a cluster is to carry out, and what must come of it.

    Attributes:
        run_id: its id.
        workflow: the name of its workflow.
        input: its input.
        result: what it must be completed with; by default anything.
        error: what it must fail with, when it must fail; by default it must not.
        history: the events of a run without faults; None: not looked at.
        ignoring: keys of events that may differ from run to run, such as times.
        start: when it is started, in seconds after the beginning.
    """

    run_id: str
    workflow: str = "workflow"
    input: Any = None
    result: Any = ANYTHING
    error: Any = None
    history: Sequence[Mapping[str, Any]] | None = None
    ignoring: frozenset[str] | set[str] = frozenset({"seq"})
    start: float = 0.0

    def event(self, events: Sequence[Mapping[str, Any]]) -> str | None:
        """Event for event as in the history that was given."""
        if self.history is None:
            return None
        seq = len(events) - 1
        found = self._kept(events[-1])
        if seq >= len(self.history):
            return f"event {seq} ({_said(found)}) is one more than a history without faults has"
        due = self._kept(self.history[seq])
        return (
            None if equal(found, due) else f"event {seq} is {_said(found)}; without faults it is {_said(due)}"
        )

    def _kept(self, event: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in event.items() if key not in self.ignoring and key != "seq"}

    def outcome(self, state: str, value: Any, events: Sequence[Mapping[str, Any]]) -> str | None:
        """As it was said, after the whole history."""
        due = "completed" if self.error is None else "failed"
        if self.history is not None and len(events) != len(self.history):
            return f"the run was {state} after {len(events)} of {len(self.history)} events"
        if state != due:
            return f"the run was {state}; without faults it is {due}"
        wanted = self.result if due == "completed" else self.error
        if wanted is ANYTHING or equal(value, wanted):
            return None
        return f"the run was {state} with {shown(value, 120)}; without faults with {shown(wanted, 120)}"
