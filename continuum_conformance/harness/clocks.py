"""Clocks that are wrong: what a client of a store sees whose machine tells another time (CLK)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RIGHT", "ClientClock", "faketime", "wrong_clock"]


@dataclass(frozen=True, slots=True)
class ClientClock:
    """How a client's clock differs from the true one.

    Attributes:
        seconds: by how much it is ahead; behind where negative.
        zone: the time zone that the process lives in, as ``TZ`` says it; empty for the machine's own.
    """

    seconds: float = 0.0
    zone: str = ""

    def __str__(self) -> str:
        hours = abs(self.seconds) / 3600
        told = [f"{hours:g} hours {'ahead' if self.seconds > 0 else 'behind'}"] if self.seconds else []
        if self.zone:
            told.append(f"in the time zone {self.zone}")
        return " and ".join(told) or "right"


RIGHT = ClientClock()
"""The machine's own clock."""


@contextmanager
def wrong_clock(clock: ClientClock, *, tick: bool = True) -> Iterator[None]:
    """While this lasts, Python's ``time`` and ``datetime`` tell another wall-clock time in this whole process.

    Monotonic clocks stay as they are, and so do clocks that are read in C.

    Args:
        clock: what they tell.
        tick: whether time goes on; else it stands still.
    """
    import time_machine  # slow to import, and of use to few

    before = os.environ.get("TZ")
    try:
        _set_zone(clock.zone or before)
        with time_machine.travel(time.time() + clock.seconds, tick=tick):
            yield
    finally:
        _set_zone(before)


def _set_zone(zone: str | None) -> None:
    if os.environ.get("TZ") == zone:
        return
    if zone is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = zone
    if hasattr(time, "tzset"):
        time.tzset()


LIBRARIES = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/lib64/faketime", "/usr/local/lib/faketime")


def faketime(clock: ClientClock) -> dict[str, str]:
    """The environment in which a new process's clocks are wrong in C as well; empty without libfaketime."""
    for pattern in LIBRARIES:
        for library in sorted(Path("/").glob(f"{pattern[1:]}/libfaketimeMT.so.1")):
            if not clock.seconds:
                return {}
            # What waits for a while must not wait for hours, so monotonic clocks stay as they are.
            still = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
            return {"LD_PRELOAD": str(library), "FAKETIME": f"{clock.seconds:+.0f}", **still}
    return {}
