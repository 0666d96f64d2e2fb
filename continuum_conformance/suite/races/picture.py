"""A race, or a fault, as data for a drawing: the calls of each worker, and the steps and waits within them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from continuum_conformance.contract.records import Lease
from continuum_conformance.explore.schedule import Execution, Step
from continuum_conformance.history import History, Interleaving, Recorded
from continuum_conformance.history.interleaving import Call, Mark, Move, Pause
from continuum_conformance.model import READS, Kind, Outcome
from continuum_conformance.postgres.sql import brief
from continuum_conformance.postgres.tape import Sent
from continuum_conformance.postgres.wire import shortened
from continuum_conformance.suite.races.running import Race, Recording
from continuum_conformance.suite.races.scenarios import Scenario
from continuum_conformance.suite.script import call_text, outcome_text
from continuum_conformance.suite.violation import Step as Called

__all__ = ["calls_of", "picture_of", "starting_point", "statements"]

LONGEST = 240
"""Characters of an adapter's own error; a finding has its traceback besides."""

MOST_MOVES = 1_000
"""A longer run keeps of each stretch of moves that nobody interrupts the first and the last."""

NEVER = Outcome(Kind.HANG, error="hang")

CUTS = {
    "before": "cut off before the server had it",
    "after": "done, and cut off before the reply",
    "mid-reply": "done, and cut off within the reply",
}

CHANGES = {
    "start_run": "the run is started",
    "suspend": "the run is suspended",
    "complete": "the run is completed",
    "fail": "the run is failed",
}


def picture_of(scenario: Scenario, race: Race, level: str, salt: str) -> Interleaving:
    """What one run of a scenario looked like.

    Args:
        scenario: what raced.
        race: what one run showed.
        level: how fine a step is.
        salt: the part of all names that was made fresh for the run.
    """
    execution = race.execution
    moves = [*statements(execution.tape, salt), *_steps(execution)]
    moves.sort(key=lambda move: move.at)
    calls = calls_of(race.recording, salt, deciding=race.deciding, needed=race.needed, after=race.probes_from)
    if execution.deadlock is not None or execution.hung:
        calls = _until_it_was_given_up(calls, moves, execution.deadlock or execution.hung)
    moves = [move for move in moves if move.worker not in scenario.workers or _within(move, calls)]
    workers = dict.fromkeys([*sorted(scenario.workers), *(move.worker for move in moves)])
    start = f"starting from {starting_point(scenario, race.token)}"
    return Interleaving(level, tuple(workers), start, calls, tuple(_shortened(_told_apart(moves, calls))))


def starting_point(scenario: Scenario, token: int | None = None) -> str:
    """From where a scenario starts: ``a running run under a live lease; every worker has its own handle``."""
    situation = scenario.situation
    start = "no run yet" if not situation.exists else f"a {situation.state} run"
    if situation.lease:
        start += f" under a {'live' if situation.lease == 'live' else 'lapsed'} lease"
        start += f" of token {token}" if token is not None else ""
    if situation.snapshot:
        start += " with a snapshot"
    handles = "all workers use one handle" if scenario.one_handle else "every worker has its own handle"
    return f"{start}; {handles}"


# -- calls --


def calls_of(
    recording: Recording,
    salt: str,
    *,
    deciding: Recorded | None = None,
    needed: Collection[Recorded] = (),
    struck: Recorded | None = None,
    after: int = 0,
) -> tuple[Call, ...]:
    """What was recorded, as calls in the order in which they began.

    Args:
        recording: what was recorded, calls that never came back included.
        salt: the part of all names that was made fresh.
        deciding: the operation at whose return nothing explains the history any more.
        needed: the operations without which an order would.
        struck: the one that a fault hit.
        after: the moment from which on one thing was done after another; 0 for never.
    """

    def mark(entry: Recorded) -> Mark:
        if entry is deciding:
            return "deciding"
        if entry is struck:
            return "struck"
        return "needed" if any(entry is other for other in needed) else ""

    calls = []
    for entry in History.of(recording.entries):
        later = bool(after) and entry.invoked >= after
        calls.append(
            Call(
                entry.worker,
                call_text(Called(entry.operation, entry.outcome), salt),
                _outcome(entry, salt),
                entry.invoked,
                entry.returned,
                mark(entry),
                entry.operation.name in READS,
                "" if later else _change(entry),
                later,
            )
        )
    for began, operation in recording.under_way.items():
        text = call_text(Called(operation, NEVER), salt)
        calls.append(Call(operation.worker, text, "", began, None, reads=operation.name in READS))
    return tuple(sorted(calls, key=lambda call: call.began))


def _until_it_was_given_up(
    calls: Iterable[Call], moves: Sequence[Move], stuck: Collection[str]
) -> tuple[Call, ...]:
    """The calls of a run that was given up: what came of them afterwards, the kit did."""
    last = max((max(move.at, move.until or 0, *(p.began for p in move.pauses)) for move in moves), default=0)
    return tuple(
        replace(call, ended=None, outcome="", change="", mark="stuck")
        if call.worker in stuck and (call.ended is None or call.ended > last)
        else call
        for call in calls
        if call.began <= last or call.worker not in stuck
    )


def _outcome(entry: Recorded, salt: str) -> str:
    outcome = entry.outcome
    text = outcome_text(outcome, salt)
    if outcome.kind is Kind.RAW:
        text = shortened(f"{outcome.error}: {' '.join(outcome.message.split())}", LONGEST)
    elif outcome.error == "JournalUnavailable":
        text += (
            " (whether it happened is unknown)" if outcome.unknown else " (it says that it did not happen)"
        )
    return text.replace(f"-{salt}", "") if salt else text


def _change(entry: Recorded) -> str:
    """What was different of the run from a call's return on."""
    operation, outcome = entry.operation, entry.outcome
    if not outcome.ok or outcome.unknown:
        return ""
    if operation.name == "acquire" and isinstance(outcome.value, Lease):
        lapses = "; it lapses at once" if operation.arguments["ttl"] == 0 else ""
        return f"token {outcome.value.token}: {outcome.value.owner} holds the lease{lapses}"
    if operation.name == "release":
        return f"the lease of token {_token(operation.arguments['lease'])} is released"
    if operation.name == "renew" and operation.arguments["ttl"] == 0:
        return f"the lease of token {_token(operation.arguments['lease'])} lapses"
    return CHANGES.get(operation.name, "")


def _token(lease: Any) -> Any:
    return getattr(lease, "token", None)


# -- moves --


def statements(tape: Sequence[Sent], salt: str) -> Iterator[Move]:
    """What went through a gate, as moves; what drivers send on their own account is left out."""

    def clean(text: str) -> str:
        return text.replace(f"-{salt}", "").replace(salt, "") if salt else text

    for sent in tape:
        if not sent.matters and not sent.cut:
            continue
        shown = sent.group.told
        yield Move(
            sent.worker,
            clean("; ".join(brief(statement.sql) for statement in shown)),
            sent.at,
            sent.given or sent.answered,
            clean(";\n".join(statement.sql.strip() for statement in shown)),
            tuple(clean(value) for statement in shown for value in statement.shown_values),
            CUTS.get(sent.cut) or clean(sent.answer),
            bool(sent.cut) or sent.error is not None,
            not sent.executes,
            tuple(_pauses(sent, tape)),
        )


def _pauses(sent: Sent, tape: Sequence[Sent]) -> Iterator[Pause]:
    for park in sent.parks:
        table, _, place = park.place.partition(": ")
        yield Pause(park.at, park.until, f"held {place} of {table}", waits=False)
    if sent.waited is not None:
        who = f"waits for {' and '.join(sent.blockers)}" if sent.blockers else "waits"
        yield Pause(sent.waited, _freed(sent, tape), who)


def _freed(sent: Sent, tape: Sequence[Sent]) -> int | None:
    """When a statement waited no longer: with what another session did last before it was answered.

    Its answer comes a little later, not always at the same moment, and is given to its client when its turn comes.
    """
    if sent.answered is None:
        return None
    others = [other for other in tape if other.session is not sent.session]
    moments = [other.at for other in others]
    moments += [park.until for other in others for park in other.parks if park.until is not None]
    before = [moment for moment in moments if (sent.waited or sent.at) < moment < sent.answered]
    return max(before, default=sent.given or sent.answered)


def _steps(execution: Execution) -> Iterator[Move]:
    """The steps of a run in Python, and silences; one that waits goes on with its worker's next."""
    ahead: dict[str, int] = {}
    for step in reversed(execution.steps):
        following = ahead.get(step.worker)
        ahead[step.worker] = step.at
        if step.kind == "silent":
            pause = Pause(step.at, following, "waits for something that the kit does not see")
            yield Move(step.worker, step.label.strip("<>"), step.at, following, pauses=(pause,))
        elif not execution.tape:
            yield _move(step, following)


def _move(step: Step, following: int | None) -> Move:
    if step.kind == "moves":
        return Move(step.worker, step.label, step.at)
    who = f"waits for {' and '.join(step.blockers)}" if step.blockers else "waits"
    return Move(step.worker, step.label, step.at, following, pauses=(Pause(step.at, following, who),))


def _told_apart(moves: Sequence[Move], calls: Sequence[Call]) -> list[Move]:
    """The moves without the pauses in which nobody else did anything: the kit let go at once."""
    moments = [(move.at, move.worker) for move in moves]
    moments += [(moment, call.worker) for call in calls for moment in (call.began, call.ended) if moment]

    def matters(pause: Pause, worker: str) -> bool:
        end = pause.ended
        return pause.waits or any(
            pause.began < moment and (end is None or moment < end) and worker != other
            for moment, other in moments
        )

    return [
        replace(move, pauses=tuple(pause for pause in move.pauses if matters(pause, move.worker)))
        if move.pauses
        else move
        for move in moves
    ]


def _within(move: Move, calls: Iterable[Call]) -> bool:
    """Whether a move belongs to a call, as a point between two calls does not."""
    return any(
        call.worker == move.worker and call.began < move.at and (call.ended is None or move.at < call.ended)
        for call in calls
    )


def _shortened(moves: Sequence[Move]) -> Iterator[Move]:
    for place, move in enumerate(moves):
        ends = place in (0, len(moves) - 1) or not (
            moves[place - 1].worker == move.worker == moves[place + 1].worker
        )
        if len(moves) <= MOST_MOVES or ends or move.pauses:
            yield move
