"""The story of a simulated world as a page: a picture of who held the lease when, and the steps below it.

One file of HTML with its style and drawing inside; it asks no other host for anything and has no script.
"""

from __future__ import annotations

import base64
import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from continuum_conformance.contract.records import Lease
from continuum_conformance.report.markup import prose
from continuum_conformance.report.text import plural
from continuum_conformance.simulate.judge import JUDGES
from continuum_conformance.simulate.simulation import Simulated
from continuum_conformance.simulate.story import Told, story_of
from continuum_conformance.simulate.trace import Moment, span, stamp

__all__ = ["world_page"]

_LEFT = 74
_TOP = 34
_ROW = 56
_STEP = 34
_LONGEST_GAP = 70
_STANDING = frozenset({"crash", "die", "pause", "freeze", "stall"})
_CUT = frozenset({"mute", "deaf"})

_STYLE = """
.chart { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; overflow-x: auto; margin-top: 18px; }
.chart svg { display: block; font: 12px var(--sans); }
.chart .who { font-weight: 700; fill: var(--lane); }
.chart .held { fill: var(--lane); opacity: .55; } .chart .expired { fill: var(--lane); opacity: .18; }
.chart .still { fill: var(--none); opacity: .22; } .chart .dead { fill: var(--failed); opacity: .2; }
.chart .cut { fill: none; stroke: var(--inconclusive); stroke-width: 1.5; stroke-dasharray: 3 3; }
.chart .base { stroke: var(--line); } .chart .when { fill: var(--quiet); font-size: 10px; text-anchor: middle; }
.chart .token { fill: var(--ink); font-size: 10px; }
.chart .dot circle { fill: var(--panel); stroke: var(--lane); stroke-width: 2; }
.chart .dot.wrong circle { fill: var(--failed); stroke: var(--failed); } .chart .dot.wrong text { fill: var(--panel); }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; color: var(--quiet); font: .8125rem var(--sans); margin: 10px 2px 22px; }
.key svg { width: 22px; height: 12px; margin-right: 6px; vertical-align: -1px; }
main > h2 { margin-top: 34px; }
.steps { border: 1px solid var(--line); border-radius: 10px; overflow: hidden; background: var(--panel); }
.steps li { display: grid; grid-template-columns: 34px 108px 62px 1fr; gap: 4px 8px; padding: 6px 14px; border-top: 1px solid var(--line); }
.steps li:first-child { border-top: 0; } .steps .n, .steps .t { color: var(--quiet); font-variant-numeric: tabular-nums; }
.steps li.wrong { background: var(--failed-soft); } .steps li.fault { color: var(--quiet); font-style: italic; }
.steps code { overflow-wrap: anywhere; }
@media (max-width: 640px) { .steps li { grid-template-columns: 26px 108px 1fr; } .steps code { grid-column: 2 / -1; } }
"""


@dataclass(frozen=True)
class _Bar:
    """A stretch of time in somebody's row, in milliseconds."""

    who: str
    begins: int
    ends: int
    kind: str
    label: str = ""


def world_page(simulated: Simulated, *, target: str, seed: int, replay: str = "") -> str:
    """The page of a world in which something was wrong, as the text of an HTML document.

    Raises:
        ValueError: when nothing was wrong.
    """
    finding = simulated.finding
    if finding is None:
        raise ValueError("nothing was wrong in this world")
    steps = story_of(simulated)
    scenario = simulated.scenario
    style = resources.files(__package__ or __name__).joinpath("page.css").read_text(encoding="utf-8") + _STYLE
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    clauses = f" <span>{prose(', '.join(finding.clauses))}</span>" if finding.clauses else ""
    facts = {
        "Seed": str(seed),
        "Workers": str(len(scenario.workers)),
        "Runs": str(len(scenario.runs)),
        "Faults": str(len(scenario.faults)),
        "Virtual time": span(finding.at),
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{prose(value)}</dd></div>" for name, value in facts.items())
    again = f"<h2>See it again</h2><pre><code>{prose(replay)}</code></pre>" if replay else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{digest}'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{prose(target)}: seed {seed}</title>\n'
        f'<style>{style}</style>\n</head>\n<body class="nonconforming">\n<header class="hero">'
        f'<p class="kit">continuum-conformance simulate</p><h1>{prose(finding.message)}</h1>'
        f'<p class="target"><code>{prose(target)}</code>{clauses}</p>'
        f'<p class="quiet">The rule: {prose(JUDGES[finding.judge])}.</p><dl class="facts">{listed}</dl></header>\n'
        f'<main>{_chart(simulated, steps)}{_KEY}<h2>The story <span class="number">{plural(len(steps), "step")}'
        f"</span></h2>{_listed(steps)}{again}</main>\n<footer></footer></body>\n</html>\n"
    )


_KEY = (
    '<p class="key"><span class="lane0"><svg><rect class="held" width="22" height="12" fill="var(--lane0)" opacity=".55"/></svg>holds '
    'the lease</span><span><svg><rect width="22" height="12" fill="var(--lane0)" opacity=".18"/></svg>expired, taken by nobody'
    '</span><span><svg><rect width="22" height="12" fill="var(--none)" opacity=".22"/></svg>stands still</span><span><svg><rect '
    'width="22" height="12" fill="var(--failed)" opacity=".2"/></svg>dead, or the store away</span><span><svg><rect x="1" y="1" '
    'width="20" height="10" fill="none" stroke="var(--inconclusive)" stroke-dasharray="3 3"/></svg>cut off from the store</span></p>'
)


def _listed(steps: Sequence[Told]) -> str:
    rows = "".join(
        f'<li class="{"wrong" if step.deciding else step.kind}"><span class="n">{number}</span>'
        f'<span class="t">{stamp(step.at)}</span><b>{prose(step.who)}</b><code>{prose(step.text)}</code></li>'
        for number, step in enumerate(steps, 1)
    )
    return f'<ol class="steps">{rows}</ol>'


class _Axis:
    """Where a moment stands: every step has room, and what lies long apart is farther apart."""

    def __init__(self, times: Sequence[int]) -> None:
        self._times = [0]
        self._places = [float(_LEFT)]
        for time in times:
            gap = time - self._times[-1]
            wide = 0.0 if gap <= 0 else min(_LONGEST_GAP, 12 * math.log10(1 + gap / 100))
            self._places.append(self._places[-1] + _STEP + wide)
            self._times.append(max(time, self._times[-1]))
        self.end = self._places[-1] + _STEP

    def of_step(self, number: int) -> float:
        """Of a step, from 0."""
        return self._places[number + 1]

    def of_time(self, time: int) -> float:
        """Of any moment, between the steps around it."""
        after = bisect_right(self._times, time)
        if after >= len(self._times):
            return self._places[-1]
        before = after - 1
        share = (time - self._times[before]) / max(1, self._times[after] - self._times[before])
        return self._places[before] + share * (self._places[after] - self._places[before])


def _chart(simulated: Simulated, steps: Sequence[Told]) -> str:
    rows = [name for name in ("client", "queue", "store") if any(step.who == name for step in steps)]
    rows += sorted({step.who for step in steps} - {*rows})
    y = {name: _TOP + place * _ROW for place, name in enumerate(rows)}
    axis = _Axis([step.at for step in steps])
    height = _TOP + len(rows) * _ROW
    parts = [
        f'<g class="lane{place % 8}"><text class="who" x="12" y="{y[name] + 24}">{prose(name)}</text>'
        f'<line class="base" x1="{_LEFT}" y1="{y[name] + 20}" x2="{axis.end:.0f}" y2="{y[name] + 20}"/></g>'
        for place, name in enumerate(rows)
    ]
    for bar in _bars(simulated.trace.moments, simulated.finding.run_id if simulated.finding else None):
        for name in rows if bar.who == "store" and bar.kind == "dead" else [bar.who]:
            if name in y:
                left, right = axis.of_time(bar.begins), axis.of_time(bar.ends)
                lane = f"lane{rows.index(name) % 8}"
                thick, top = (12, 14) if bar.kind in ("held", "expired") else (36, 2)
                parts.append(
                    f'<g class="{lane}"><rect class="{bar.kind}" x="{left:.1f}" y="{y[name] + top}" '
                    f'width="{max(2.0, right - left):.1f}" height="{thick}" rx="3"/>'
                    f'<text class="token" x="{left + 2:.1f}" y="{y[name] + 44}">{prose(bar.label)}</text></g>'
                )
    for number, step in enumerate(steps):
        x, wrong = axis.of_step(number), " wrong" if step.deciding else ""
        parts.append(
            f'<g class="dot lane{rows.index(step.who) % 8}{wrong}"><title>{prose(f"{stamp(step.at)} {step.who}: {step.text}")}'
            f'</title><circle cx="{x:.1f}" cy="{y[step.who] + 20}" r="11"/><text x="{x:.1f}" y="{y[step.who] + 24}">{number + 1}'
            "</text></g>"
        )
        if not number or step.at - steps[number - 1].at >= 1_000:
            parts.append(f'<text class="when" x="{x:.1f}" y="16">{stamp(step.at)[:-2]}</text>')
    label = f"Who held the lease when, {plural(len(steps), 'step')}"
    return (
        f'<div class="chart"><svg role="img" aria-label="{label}" width="{axis.end:.0f}" height="{height}" '
        f'viewBox="0 0 {axis.end:.0f} {height}">{"".join(parts)}</svg></div>'
    )


def _bars(moments: Sequence[Moment], run_id: object) -> list[_Bar]:
    """Leases held, machines that stood still or were dead, connections that were cut."""
    end = moments[-1].at if moments else 0
    bars: list[_Bar] = []
    held: tuple[str, int, int, int] | None = None  # who, since, until when it is live, its token

    def close(at: int) -> None:
        if held is not None:
            who, since, until, token = held
            bars.append(_Bar(who, since, min(at, until), "held", f"token {token}"))
            if until < at:
                bars.append(_Bar(who, until, at, "expired"))

    for moment in moments:
        fault, operation, outcome = moment.fault, moment.operation, moment.outcome
        if fault is not None:
            kind = "dead" if fault.kind in ("crash", "die", "outage") else "still"
            kind = "cut" if fault.kind in _CUT else kind
            if fault.kind in _STANDING | _CUT | {"outage"}:
                bars.append(_Bar(moment.who, moment.at, min(end, moment.at + fault.lasts), kind))
        if operation is None or outcome is None or not outcome.ok or moment.run_id != run_id:
            continue
        name = operation.name
        if name == "acquire" and isinstance(outcome.value, Lease):
            close(moment.at)
            until = moment.at + round(1_000 * operation.arguments["ttl"])
            held = (moment.who, moment.at, until, outcome.value.token)
        elif name == "renew" and held is not None:
            held = (*held[:2], moment.at + round(1_000 * operation.arguments["ttl"]), held[3])
        elif name in ("release", "complete", "fail"):
            close(moment.at)
            held = None
    close(end)
    return bars
