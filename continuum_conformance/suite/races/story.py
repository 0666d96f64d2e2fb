"""A race as text: columns, one per worker, steps downwards; waits and the deciding step are marked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from textwrap import wrap

from continuum_conformance.history.interleaving import Interleaving
from continuum_conformance.suite.races.picture import picture_of, starting_point
from continuum_conformance.suite.races.running import Race
from continuum_conformance.suite.races.scenarios import Scenario
from continuum_conformance.suite.script import STORY_WIDTH, call_text, outcome_text
from continuum_conformance.suite.violation import Step

__all__ = ["story_of"]

DECIDES = "<== this decides".replace(" ", "\N{NO-BREAK SPACE}")
MAX_STEPS = 40
MAX_ROWS = 60
LONG = 60


def story_of(scenario: Scenario, race: Race, level: str, schedule: Sequence[int]) -> str:
    """The interleaving of one run, for a person.

    Args:
        scenario: what raced.
        race: what one run showed.
        level: how fine a step is.
        schedule: the schedule under which it replays.
    """
    violation = race.violation
    salt = violation.salt if violation is not None else ""
    lines = [f"starting from {starting_point(scenario)}", ""]
    lines += _columns(picture_of(scenario, race, level, salt))
    lines += ["", "afterwards, one after another:"]
    for entry in race.history.operations:
        if entry.invoked >= race.probes_from:
            step = Step(entry.operation, entry.outcome)
            lines += wrap(
                f"{call_text(step, salt)} -> {outcome_text(entry.outcome, salt)}",
                STORY_WIDTH,
                initial_indent="  ",
                subsequent_indent="      ",
            )
    if race.why:
        lines += ["", "why no order explains it:", *(f"  {line}" for line in _reasons(race.why, salt))]
    lines += ["", f"schedule {_schedule_text(schedule)} at the level of {level}"]
    if level != "threads" and not race.execution.preemptions and not race.execution.waits:
        lines.append("No preemption is needed: the calls go wrong one after another as well.")
    return "\n".join(lines) + "\n"


def clip(text: str, most: int) -> str:
    """A text, cut where it is too long."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _schedule_text(schedule: Sequence[int]) -> str:
    """``[1, 12 × 0, 2]``."""
    parts = []
    for taken, group in itertools.groupby(schedule):
        times = len(list(group))
        parts.append(f"{times} × {taken}" if times > 3 else ", ".join([str(taken)] * times))
    return f"[{', '.join(parts)}]"


def _reasons(why: str, salt: str) -> list[str]:
    """The judge's reasons, without the headline, which stands above the story."""
    text = why.replace(f"-{salt}", "") if salt else why
    lines = text.splitlines()[1:]
    wrapped = [wrap(line, STORY_WIDTH - 2, subsequent_indent="      ") or [""] for line in lines]
    return [piece for pieces in wrapped for piece in pieces][1:MAX_STEPS]


@dataclass(order=True)
class _Row:
    """What stands in one worker's column at one time."""

    at: int
    worker: str = field(compare=False)
    text: str = field(compare=False)
    deciding: bool = field(default=False, compare=False)


def _columns(picture: Interleaving) -> list[str]:
    """A column for each worker: its calls, and within them its statements and waits, or where others went first."""
    rows = _rows(picture)
    workers = picture.workers
    width = max(20, (STORY_WIDTH - 3 * (len(workers) - 1)) // len(workers))
    lines = ["   ".join(f"worker {worker}".ljust(width) for worker in workers).rstrip()]
    lines.append("   ".join("-" * width for _ in workers))
    for row in rows[:MAX_ROWS]:
        indent = " " * ((width + 3) * (workers.index(row.worker) if row.worker in workers else 0))
        text = f"{row.text}   {DECIDES}" if row.deciding else row.text
        within = text.startswith("| ")
        pieces = wrap(text, width, subsequent_indent="|   " if within else "  ")
        lines += [(indent + piece.replace("\N{NO-BREAK SPACE}", " ")).rstrip() for piece in pieces]
    if len(rows) > MAX_ROWS:
        lines.append(f"... and {len(rows) - MAX_ROWS} more; the page has them all")
    return lines


def _rows(picture: Interleaving) -> list[_Row]:
    calls = [call for call in picture.calls if not call.after]
    within = sorted(_within(picture))
    rows = list(within)
    for call in calls:
        outcome = call.outcome or "(did not come back)"
        deciding = call.mark == "deciding"
        ended = call.ended if call.ended is not None else 10**9
        times = [row.at for row in within if row.worker == call.worker]
        times += [at for c in calls if c is not call for at in (c.began, c.ended or 0)]
        if any(call.began < at < ended for at in times):
            rows.append(_Row(call.began, call.worker, f"{call.text} begins"))
            rows.append(_Row(ended, call.worker, f"... {call.text.partition('(')[0]} -> {outcome}", deciding))
        else:
            rows.append(_Row(call.began, call.worker, f"{call.text} -> {outcome}", deciding))
    return sorted(rows)


def _within(picture: Interleaving) -> Iterator[_Row]:
    """Statements with what they waited for; of finer steps only the last ones before another worker went on."""
    if picture.level == "statements":
        for move in picture.moves:
            if move.minor:
                continue
            values = f" ({', '.join(move.values)})" if move.values else ""
            came = move.answer.partition(": ")[0]
            answer = f" -> {came}" if came and came != move.text else ""
            waits = [pause for pause in move.pauses if pause.waits]
            at = move.until if waits and move.until is not None else move.at
            for pause in waits:
                yield _Row(pause.began, move.worker, f"| {clip(move.text, LONG)} {pause.why} ...")
            yield _Row(at, move.worker, f"| {clip(move.text, LONG)}{clip(values, LONG)}{clip(answer, LONG)}")
        return
    for move, following in pairwise(picture.moves):
        if following.worker != move.worker and _is_inside(move.at, move.worker, picture):
            yield _Row(move.at, move.worker, f"| {clip(move.text, LONG)}  (paused here)")


def _is_inside(at: int, worker: str, picture: Interleaving) -> bool:
    """Whether a worker was within one of its calls."""
    mine = (call for call in picture.calls if call.worker == worker and not call.after)
    return any(call.began < at < (call.ended if call.ended is not None else 10**9) for call in mine)
