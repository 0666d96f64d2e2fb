"""A finding as a story: what happened to its run, from the start to the moment at which something was wrong.

What changed nothing and says nothing is left out: the kit's own reads, claims that were refused, what happened to
other runs. Several renewals in a row are told as one.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from continuum_conformance.simulate.judge import JUDGES, Finding
from continuum_conformance.simulate.simulation import Simulated
from continuum_conformance.simulate.store import KIT
from continuum_conformance.simulate.trace import Moment, stamp

__all__ = ["Told", "finding_lines", "story_lines", "story_of"]

WIDTH = 80
SCREEN = 20
"""How many steps fit on a screen."""

FEW = 3
"""With more runs than this a story is about one of them."""

_READS = frozenset({"get_run", "load"})
_IDLE = frozenset({"LeaseHeld", "RunNotActive", "RunNotFound"})


@dataclass(frozen=True, slots=True)
class Told:
    """One step of a story: when (in milliseconds), who, what; whether it is the one that was wrong."""

    at: int
    who: str
    text: str
    kind: str
    deciding: bool = False


def story_of(simulated: Simulated) -> list[Told]:
    """The steps of a finding's story; of a world without one, of all that happened.

    What happened to other runs is told too when there is room for it: it may be what matters.
    """
    finding = simulated.finding
    about = finding.run_id if finding is not None else None
    whole = _told(simulated, None) if about is None or len(simulated.scenario.runs) <= FEW else []
    return whole if whole and (about is None or len(whole) <= SCREEN) else _told(simulated, about)


def _told(simulated: Simulated, about: str | None) -> list[Told]:
    finding = simulated.finding
    moments = simulated.trace.moments
    kept = [
        (place, moment)
        for place, moment in enumerate(moments)
        if _matters(moment, about) or (finding is not None and place == len(moments) - 1)
    ]
    # Faults count as long as they strike somebody who has to do with the run, or everybody.
    involved = {moment.who for _, moment in kept if moment.kind != "fault"} | {"store", "queue"}
    told: list[Told] = []
    renewals = 0
    for place, moment in kept:
        if moment.kind in ("fault", "note") and moment.who not in involved:
            continue
        renewal = _is_renewal(moment) and place != len(moments) - 1
        if renewal and told and renewals and told[-1].who == moment.who:
            renewals += 1
            told[-1] = Told(
                told[-1].at, moment.who, f"{moment.told} ({renewals} times up to here)", moment.kind
            )
            continue
        renewals = 1 if renewal else 0
        last = finding is not None and finding.judge != "liveness" and place == len(moments) - 1
        told.append(Told(moment.at, moment.who, moment.told, moment.kind, last))
    return told


def _matters(moment: Moment, about: object) -> bool:
    if moment.run_id is not None and about is not None and moment.run_id != about:
        return False
    operation, outcome = moment.operation, moment.outcome
    if moment.kind == "gave up" and operation is not None and operation.name in ("acquire", *_READS):
        return False
    if operation is None or moment.kind != "effect" or outcome is None:
        return moment.kind != "lost" or operation is None or operation.name not in _READS
    if moment.remark == "audit" or (operation.name in _READS and outcome.ok):
        return False
    return not (operation.name == "acquire" and outcome.error in _IDLE)


def _is_renewal(moment: Moment) -> bool:
    operation, outcome = moment.operation, moment.outcome
    return (
        operation is not None
        and operation.name == "renew"
        and moment.who != KIT
        and outcome is not None
        and outcome.ok
    )


def story_lines(simulated: Simulated, width: int = WIDTH) -> list[str]:
    """The story as text: when, who, what, in lines of at most so many columns."""
    finding = simulated.finding
    lines = [f"{'time':<13}{'who':<7}what"]
    for step in story_of(simulated):
        mark = ">" if step.deciding else " "
        head = f"{mark}{stamp(step.at)} {step.who:<6} "
        text = f"-- {step.text}" if step.kind == "fault" else step.text
        lines += textwrap.wrap(
            text,
            width,
            initial_indent=head,
            subsequent_indent=" " * (len(head) + 2),
            break_long_words=True,
        )
    if finding is not None:
        lines += ["", *finding_lines(finding, width)]
    return lines


def finding_lines(finding: Finding, width: int = WIDTH) -> list[str]:
    """What is wrong, and which rule says so."""
    clauses = f" ({', '.join(finding.clauses)})" if finding.clauses else ""
    lines = textwrap.wrap(
        f"{finding.message}{clauses}", width, initial_indent="wrong: ", subsequent_indent=" " * 7
    )
    return lines + textwrap.wrap(
        f"{JUDGES[finding.judge]} ({finding.judge})",
        width,
        initial_indent="rule:  ",
        subsequent_indent=" " * 7,
    )
