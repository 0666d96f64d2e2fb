"""The steps of a counterexample, drawn: a lane for each worker, steps downwards, and who moved when.

Each step is a row of its own with its piece of the drawing beside its text, so that long calls wrap on a
narrow screen and the whole reads as a list without the drawing. The thick line is control: it goes over from
lane to lane as the schedule did.
"""

from __future__ import annotations

from collections.abc import Sequence

from continuum_conformance.report.data import Step
from continuum_conformance.report.markup import code, prose
from continuum_conformance.report.text import plural

__all__ = ["timeline"]

_MOST_STEPS = 300
_MOST_LANES = 8
_GAP = 34
_LEFT = 20
_DOT_Y = 25
_RADIUS = 11


def timeline(steps: Sequence[Step]) -> str:
    """The steps as an ordered list in HTML, each with its piece of the drawing as inline SVG."""
    workers = list(dict.fromkeys(step.worker for step in steps))
    lanes = {worker: min(number, _MOST_LANES - 1) for number, worker in enumerate(workers)}
    count = min(len(workers), _MOST_LANES)
    shown = steps[:_MOST_STEPS]
    rows = []
    for number, step in enumerate(shown):
        before = lanes[shown[number - 1].worker] if number else None
        rows.append(_row(step, lanes[step.worker], before, count, last=number == len(shown) - 1))
    left = len(steps) - len(shown)
    more = f'<p class="more">{plural(left, "more step")} in the JSON report.</p>' if left else ""
    return (
        f'<ol class="timeline" aria-label="Steps of the counterexample, {plural(len(workers), "worker")}">'
        f"{_head(lanes, count)}{''.join(rows)}</ol>{more}"
    )


def _head(lanes: dict[str, int], count: int) -> str:
    names = "".join(
        f'<text class="name lane{lane}" x="{_x(lane)}" y="15">{prose(worker[:3])}<title>{prose(worker)}</title></text>'
        for worker, lane in lanes.items()
        if lane < _MOST_LANES - 1 or len(lanes) <= _MOST_LANES
    )
    return f'<li class="heads" role="presentation" aria-hidden="true"><div class="lanes n{count}"><svg>{names}</svg></div></li>'


def _row(step: Step, lane: int, before: int | None, count: int, *, last: bool) -> str:
    x = _x(lane)
    lines = [
        f'<line class="life" x1="{_x(other)}" y1="0" x2="{_x(other)}" y2="100%"/>' for other in range(count)
    ]
    if before is not None:
        lines.append(_arrival(_x(before), x))
    if not last:
        lines.append(f'<line class="control" x1="{x}" y1="{_DOT_Y}" x2="{x}" y2="100%"/>')
    tooltip = f"Step {step.number}, {step.worker}: {step.operation} → {step.outcome}"
    if step.expected is not None:
        tooltip += f"; expected {step.expected}"
    ring = (
        f'<circle class="ring" cx="{x}" cy="{_DOT_Y}" r="{_RADIUS + 5}"/>' if step.mark == "deciding" else ""
    )
    dot = (
        f'<g class="dot lane{lane}"><title>{prose(tooltip)}</title>{ring}'
        f'<circle cx="{x}" cy="{_DOT_Y}" r="{_RADIUS}"/><text x="{x}" y="{_DOT_Y + 4}">{step.number}</text></g>'
    )
    mark = f" {step.mark}" if step.mark else ""
    return (
        f'<li class="step{mark}"><div class="lanes n{count}" aria-hidden="true"><svg>{"".join(lines)}{dot}</svg></div>'
        f'<div class="call"><p class="operation"><span class="worker lane{lane}">'
        f'<span class="unseen">step {step.number}, worker </span>{prose(step.worker)}</span> '
        f"<code>{code(step.operation)}</code></p>{_outcome(step)}</div></li>"
    )


def _outcome(step: Step) -> str:
    if step.expected is None:
        return f'<p class="outcome"><span class="arrow">→</span> <code>{code(step.outcome)}</code></p>'
    return (
        f'<p class="outcome got"><span class="arrow">→</span> <code>{code(step.outcome)}</code></p>'
        f'<p class="outcome wanted"><span class="tag">expected</span> <code>{code(step.expected)}</code></p>'
    )


def _arrival(start: int, end: int) -> str:
    if start == end:
        return f'<line class="control" x1="{end}" y1="0" x2="{end}" y2="{_DOT_Y}"/>'
    drop = _DOT_Y - _RADIUS
    return f'<path class="control" d="M{start} 0 C{start} {drop} {end} 0 {end} {drop}"/>'


def _x(lane: int) -> int:
    return _LEFT + _GAP * lane
