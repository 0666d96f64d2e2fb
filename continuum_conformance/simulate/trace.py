"""What happened in a world, moment by moment. The same seed gives the same bytes of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from continuum_conformance.contract.records import Lease, Run, Snapshot
from continuum_conformance.contract.terms import shown
from continuum_conformance.model import Operation, Outcome
from continuum_conformance.simulate.nemesis import Fault

__all__ = ["Moment", "Trace", "fault_text", "operation_text", "outcome_text", "span", "stamp"]


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened.

    Attributes:
        at: when, in milliseconds.
        who: the worker, ``"client"``, ``"kit"``, ``"store"`` or ``"queue"``.
        kind: ``"effect"`` (a call was carried out), ``"lost"`` (it never arrived), ``"refused"`` (the store was
            away), ``"gave up"`` (its sender did), ``"fault"`` or ``"note"``.
        run_id: the run that it is about, if one.
        operation: the call, if one.
        outcome: what came of it.
        remark: of an effect ``"late"`` (its sender had given up), ``"unseen"`` (nobody hears of it) or ``"audit"``.
        text: of a note or a fault.
        fault: of a fault, what it is.
    """

    at: int
    who: str
    kind: str
    run_id: Any = None
    operation: Operation | None = None
    outcome: Outcome | None = None
    remark: str = ""
    text: str = ""
    fault: Fault | None = None

    @property
    def told(self) -> str:
        """What happened, in a line."""
        if self.operation is None:
            return self.text
        called = operation_text(self.operation)
        if self.kind == "lost":
            return f"{called} is lost on its way"
        if self.kind == "refused":
            return f"{called} finds the store away"
        if self.kind == "gave up":
            return f"{self.operation.name} {self.run_id}: no answer in time"
        came = outcome_text(self.outcome) if self.outcome is not None else ""
        after = {"late": " (late: its sender had given up)", "unseen": " (nobody hears of it)"}
        return f"{called} -> {came}{after.get(self.remark, '')}"


class Trace:
    """Everything that happened, in order."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []

    def note(self, at: int, who: str, text: str, run_id: Any = None) -> None:
        """Something that is told in words."""
        self.moments.append(Moment(at, who, "note", run_id, text=text))

    def fault(self, at: int, who: str, fault: Fault, about: str | None = None) -> None:
        """Something went wrong; of the queue, about a run."""
        self.moments.append(Moment(at, who, "fault", about, text=fault_text(fault, about), fault=fault))

    def lost(self, at: int, who: str, operation: Operation) -> None:
        """A call never arrived."""
        self.moments.append(Moment(at, who, "lost", operation.run_id, operation))

    def refused(self, at: int, who: str, operation: Operation) -> None:
        """A call found the store away."""
        self.moments.append(Moment(at, who, "refused", operation.run_id, operation))

    def gave_up(self, at: int, who: str, operation: Operation) -> None:
        """Who made a call waits for its answer no longer."""
        self.moments.append(Moment(at, who, "gave up", operation.run_id, operation))

    def effect(self, at: int, who: str, operation: Operation, outcome: Outcome, remark: str) -> None:
        """A call was carried out."""
        self.moments.append(Moment(at, who, "effect", operation.run_id, operation, outcome, remark))

    @property
    def text(self) -> str:
        """The whole, a line for each moment."""
        return "".join(f"{stamp(m.at)} {m.who:<6} {m.told}\n" for m in self.moments)


def stamp(at: int) -> str:
    """A moment: hours, minutes, seconds and milliseconds."""
    seconds, millis = divmod(at, 1_000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}.{millis:03d}"


def span(millis: int) -> str:
    """A duration: ``250 ms``, ``12.5 s``, ``3 min``."""
    if millis < 1_000:
        return f"{millis} ms"
    if millis < 120_000:
        return f"{millis / 1_000:g} s"
    return f"{millis / 60_000:.3g} min"


def fault_text(fault: Fault, about: str | None = None) -> str:
    """A fault, as the one whom it strikes may tell it; of the queue, with the run that it is about."""
    lasts = span(abs(fault.lasts))
    return {
        "crash": f"dies, and is back in {lasts}",
        "pause": f"stands still for {lasts}",
        "slow": f"is five times as slow for {lasts}",
        "mute": f"reaches the store no more, for {lasts}",
        "deaf": f"hears from the store no more, for {lasts}",
        "outage": f"is away for {lasts}",
        "skew": f"wall clock jumps {'forward' if fault.lasts > 0 else 'back'} by {lasts}",
        "release": "is asked to give its leases back",
        "herd": f"offers {about} to everyone at once",
        "delay request": f"its {fault.operation} is delayed by {lasts}",
        "delay reply": f"the answer to its {fault.operation} is delayed by {lasts}",
        "freeze": f"stands still for {lasts}, as its {fault.operation} leaves it",
        "stall": f"stands still for {lasts}, as the answer to its {fault.operation} reaches it",
        "early": f"offers {about} before its time",
        "die": f"dies as its {fault.operation} leaves it, and is back in {lasts}",
        "lose request": f"its {fault.operation} is lost",
        "lose reply": f"the answer to its {fault.operation} is lost",
    }[fault.kind]


def operation_text(operation: Operation) -> str:
    """A call in few words: its run, what it carries, its token."""
    arguments = operation.arguments
    parts = [operation.name, str(operation.run_id)]
    if "event" in arguments:
        parts.append(_event(arguments["event"]))
    if "snapshot" in arguments:
        parts.append(_snapshot(arguments["snapshot"]))
    terms = (root for root in ("input", "result", "error") if root in arguments)
    parts.extend(f"{root}={shown(arguments[root], 40)}" for root in terms)
    lease = arguments.get("lease")
    if isinstance(lease, Lease):
        parts.append(f"token={lease.token}")
    if "lease_token" in arguments:
        parts.append(f"token={arguments['lease_token']}")
    if "ttl" in arguments:
        parts.append(f"ttl={arguments['ttl']:g}")
    return " ".join(parts)


def _event(event: Any) -> str:
    if not isinstance(event, Mapping):
        return shown(event, 40)
    seq = event.get("seq")
    rest = ", ".join(
        f"{key}={shown(value, 30)}" for key, value in event.items() if key not in ("type", "seq", "due")
    )
    return f"{'' if seq is None else f'#{seq} '}{event.get('type')}({rest})"


def _snapshot(snapshot: Any) -> str:
    steps = getattr(snapshot, "steps_by_seq", {})
    count = len(steps)
    return f"through #{snapshot.through_seq} ({count} value{'' if count == 1 else 's'})"


def outcome_text(outcome: Outcome) -> str:
    """What came of a call, in few words."""
    if not outcome.ok:
        return outcome.error or outcome.kind.value
    value = outcome.value
    if isinstance(value, Lease):
        return f"token {value.token}"
    if isinstance(value, Run):
        return str(value.state)
    if isinstance(value, list):
        return _events(value)
    if isinstance(value, tuple) and len(value) == 2:
        snapshot, events = value
        about = f"snapshot through #{snapshot.through_seq}, " if isinstance(snapshot, Snapshot) else ""
        return f"{about}{_events(events)}"
    return "ok" if value is None else shown(value, 40)


def _events(events: Any) -> str:
    count = len(events)
    return f"{count} event{'' if count == 1 else 's'}"
