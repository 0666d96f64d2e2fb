"""A race as text: columns, one per worker, steps downwards; waits and the deciding step are marked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from textwrap import wrap

from continuum_conformance.model import Kind
from continuum_conformance.suite.races.picture import starting_point
from continuum_conformance.suite.races.running import Race
from continuum_conformance.suite.races.scenarios import Scenario
from continuum_conformance.suite.script import call_text, outcome_text
from continuum_conformance.suite.violation import Step

__all__ = ["story_of"]

WIDTH = 78
MAX_STEPS = 40


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
    workers = sorted(scenario.workers)
    lines = [f"starting from {starting_point(scenario)}", ""]
    lines += _columns(workers, race, salt)
    lines += ["", "afterwards, one after another:"]
    for entry in race.history.operations:
        if entry.invoked >= race.probes_from:
            step = Step(entry.operation, entry.outcome)
            lines += wrap(
                f"{call_text(step, salt)} -> {outcome_text(entry.outcome, salt)}",
                WIDTH,
                initial_indent="  ",
                subsequent_indent="      ",
            )
    if race.why:
        lines += ["", "why no order explains it:", *(f"  {line}" for line in _reasons(race.why, salt))]
    lines += ["", f"schedule {_schedule_text(schedule)} at the level of {level}"]
    return "\n".join(lines) + "\n"


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
    wrapped = [wrap(line, WIDTH, subsequent_indent="      ") or [""] for line in lines]
    return [piece for pieces in wrapped for piece in pieces][1:MAX_STEPS]


def _columns(workers: Sequence[str], race: Race, salt: str) -> list[str]:
    width = max(20, (WIDTH - 3 * (len(workers) - 1)) // len(workers))
    rows: list[tuple[int, str, str]] = []
    end = race.probes_from
    for entry in race.history.operations:
        if entry.invoked >= end:
            continue
        step = Step(entry.operation, entry.outcome)
        returned = entry.returned if entry.returned is not None else 10**9
        between = [
            e
            for e in race.history.operations
            if entry.invoked < e.invoked < returned or entry.invoked < (e.returned or 0) < returned
        ]
        result = outcome_text(entry.outcome, salt)
        if entry.outcome.kind is Kind.RAW:
            result = f"{entry.outcome.error}: {entry.outcome.message}"
        if between:
            rows.append((entry.invoked, entry.worker, f"{call_text(step, salt)} begins"))
            rows.append((returned, entry.worker, f"... {entry.operation.name} -> {result}"))
        else:
            rows.append((entry.invoked, entry.worker, f"{call_text(step, salt)} -> {result}"))
    rows.sort()
    lines = ["   ".join(f"worker {worker}".ljust(width) for worker in workers).rstrip()]
    lines.append("   ".join("-" * width for _ in workers))
    for _, worker, text in rows[:MAX_STEPS]:
        column = workers.index(worker) if worker in workers else 0
        indent = " " * ((width + 3) * column)
        lines += [(indent + piece).rstrip() for piece in wrap(text, width, subsequent_indent="  ")]
    return lines
