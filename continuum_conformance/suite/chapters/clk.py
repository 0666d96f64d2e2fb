"""CLK: event order never depends on a clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import time_machine

from continuum_conformance.suite.lab import Lab
from continuum_conformance.suite.situations import each
from continuum_conformance.suite.testing import checks

NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)


@checks("CLK-2", cases=each(how=("backwards", "still", "back and forth", "over midnight")))
def events_keep_their_order_when_the_clock_does_not(lab: Lab, how: str) -> None:
    run = lab.started()
    with time_machine.travel(NOON, tick=False) as clock:
        for number in range(12):
            minutes = {
                "backwards": -number,
                "still": 0,
                "back and forth": 60 if number % 2 else -60,
                "over midnight": number * 120,
            }[how]
            clock.move_to(NOON + timedelta(minutes=minutes))
            run.append(
                {"type": "step", "number": number, "at": -minutes, "timestamp": f"{100 - number}"},
                on="AB"[number % 2],
            )
        run.load()
        run.load_with_snapshot()
    run.look()


@checks("CLK-2")
def the_callers_own_times_mean_nothing(lab: Lab) -> None:
    run = lab.started()
    for number in range(6):
        at = NOON - timedelta(days=number)
        run.append(
            {
                "type": "step",
                "at": at.isoformat(),
                "ts": 100 - number,
                "timestamp": 100.5 - number,
                "id": f"{9 - number}",
            }
        )
    run.look()
