"""What goes wrong, and when: machines that die and pause, messages that are lost, stores that are away.

Each seed draws a mix of its own (swarm testing): which kinds of fault there are, and how often. Faults of machines
are drawn beforehand, with their times; faults of messages as the messages are sent, and written down, so that what
went wrong in a run is a list in the end, which a smaller run is given as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from continuum_conformance.simulate.dice import Dice

__all__ = [
    "CLIENT",
    "EARLY",
    "KINDS",
    "MESSAGES",
    "QUEUE",
    "QUIET",
    "Fault",
    "Rates",
    "draw_faults",
    "draw_rates",
]

CLIENT = 0
"""The number of the client that starts runs; workers count from 1."""

QUEUE = -1
"""The number of the queue."""

KINDS: Mapping[str, str] = {
    "crash": "the machine dies, and comes back after so long",
    "pause": "the machine stands still for so long; what it has sent goes on",
    "slow": "all that the machine does takes five times as long",
    "mute": "for so long no request of the machine reaches the store",
    "deaf": "for so long no answer of the store reaches the machine, though requests do",
    "outage": "for so long the store refuses everyone",
    "skew": "the machine's wall clock jumps by so much",
    "release": "the machine is asked to give its leases back at once",
    "herd": "everyone hears of one run at once, as if its lease had just expired",
}
"""Faults of machines, and what they are."""

MESSAGES: Mapping[str, str] = {
    "lose request": "the request never arrives; whoever sent it waits in vain",
    "lose reply": "the request takes effect; its answer never arrives",
    "delay request": "the request arrives so much later, be its sender still waiting or not",
    "delay reply": "the answer arrives so much later",
    "freeze": "as the request leaves it, the machine stands still for so long; the request is stuck until just before",
    "stall": "as the answer reaches it, the machine stands still for so long, and only then takes it up",
    "die": "as the request leaves it, the machine dies; the request arrives so much later, when it is back",
}
"""Faults of one message."""

EARLY = "early"
"""The fault of the queue: a run that was to be woken later is offered after so long as well. Its call is which
wake-up of the run it was, from 0; its worker is `QUEUE`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: of `KINDS` or `MESSAGES`.
        worker: the number of the worker that it strikes; `CLIENT` is who starts the runs. Of an outage it is `CLIENT`.
        at: of a machine's fault, when, in milliseconds.
        call: of a message's fault, which of that worker's calls of this operation on this run it strikes, from 0.
        lasts: how long, in milliseconds; of a skew, by how much the clock jumps (it may be negative).
        run: of a message, a herd or an early offer, the number of the run.
        operation: of a message's fault, what is called.
    """

    kind: str
    worker: int
    at: int = 0
    call: int = -1
    lasts: int = 0
    run: int = -1
    operation: str = ""

    @property
    def of_message(self) -> bool:
        """Whether it strikes one message rather than a machine."""
        return self.call >= 0


@dataclass(frozen=True, slots=True)
class Rates:
    """How likely each fault of a message is, per call."""

    lose_request: float = 0.0
    lose_reply: float = 0.0
    delay_request: float = 0.0
    delay_reply: float = 0.0
    freeze: float = 0.0
    stall: float = 0.0
    die: float = 0.0
    early: float = 0.0

    def drawn(self, dice: Dice, worker: int, operation: str, run: int, call: int) -> Fault | None:
        """What goes wrong with this call, if anything. The rarer an operation is, the likelier it is struck."""
        luck = SELDOM.get(operation, 1)
        for kind, rate in (
            ("lose request", self.lose_request),
            ("lose reply", self.lose_reply),
            ("delay request", self.delay_request),
            ("delay reply", self.delay_reply),
            ("freeze", self.freeze),
            ("stall", self.stall),
            ("die", self.die),
        ):
            if (
                rate
                and dice.chance(rate * luck)
                and (worker != CLIENT or kind not in ("freeze", "stall", "die"))
            ):
                lasts = 0
                if kind.startswith("delay"):
                    lasts = dice.skewed(100, 60_000)
                elif not kind.startswith("lose"):
                    lasts = dice.whole(20_000, 120_000)
                return Fault(kind, worker, call=call, lasts=lasts, run=run, operation=operation)
        return None


SELDOM: Mapping[str, int] = {"complete": 4, "fail": 4, "suspend": 2, "take_snapshot": 2}
"""How many times likelier than others these operations are struck."""

QUIET = Rates()


def draw_rates(dice: Dice) -> Rates:
    """How likely the faults of messages are in this world; half of the kinds never happen."""
    hard = ("freeze", "die")
    rates = {
        kind.replace(" ", "_"): dice.pick((0.0, 0.0, 0.01, 0.05)) / (2 if kind in hard else 1)
        for kind in MESSAGES
    }
    return Rates(**rates, early=dice.pick((0.0, 0.0, 0.2, 0.5)))


def draw_faults(dice: Dice, workers: Sequence[int], runs: int, until: int) -> tuple[Fault, ...]:
    """The faults of machines up to a moment (in milliseconds), in the order of their times."""
    faults: list[Fault] = []
    hours = until / 3_600_000
    for kind in KINDS:
        if not dice.chance(0.5):
            continue
        hourly = dice.pick((1, 3, 10)) * (1 if kind == "outage" else len(workers) * 0.6)
        count = dice.whole(1, max(1, int(hourly * hours)))
        faults.extend(_drawn(dice, kind, workers, runs, until) for _ in range(count))
    return tuple(sorted(faults, key=lambda fault: (fault.at, fault.kind, fault.worker)))


def _drawn(dice: Dice, kind: str, workers: Sequence[int], runs: int, until: int) -> Fault:
    at, worker = dice.whole(0, until), dice.pick(workers)
    if kind == "skew":
        return Fault(kind, worker, at, lasts=dice.pick((1, -1)) * dice.skewed(1_000, 7_200_000))
    if kind == "herd":
        return Fault(kind, CLIENT, at, run=dice.whole(0, runs - 1))
    if kind == "release":
        return Fault(kind, worker, at)
    lasts = min(dice.skewed(1_000, 180_000), until - at + 1)
    return Fault(kind, CLIENT if kind == "outage" else worker, at, lasts=lasts)
