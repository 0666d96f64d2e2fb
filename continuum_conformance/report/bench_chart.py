"""A measurement as a picture: the pace of every operation as dots, and how costs grow as lines, on log scales.

The drawing stands alone as an SVG file, or inline in the page; a second adapter is drawn hollow and dashed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from continuum_conformance.bench.figures import WAYS, Axis, Bench
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.report.bench_text import GROWING, figure, rate_text, way_title
from continuum_conformance.report.markup import prose

__all__ = ["STYLE", "inline_svg", "standalone_svg"]

_WIDTH, _TOP, _ROW = 940, 58, 24
_NAMES = 140
"""The width of the operations' names."""
_PACE = (_NAMES, 500)
"""Where the dots stand, from left to right."""
_GROWTH = (600, 860)
_HIGH, _GAP = 128, 82
"""Of a panel of growth."""

STYLE = """
.bench { font: 12px var(--sans); } .bench text { fill: var(--ink); }
.bench .quiet { fill: var(--quiet); font-size: 11px; } .bench .head { font-weight: 700; font-size: 13px; }
.bench .mid { text-anchor: middle; } .bench .end { text-anchor: end; }
.bench .grid { stroke: var(--line); stroke-width: 1; fill: none; }
.bench circle { fill: var(--lane); stroke: var(--lane); stroke-width: 2; }
.bench .second circle { fill: var(--panel); } .bench path.line { fill: none; stroke: var(--lane); stroke-width: 2; }
.bench .second path.line { stroke-dasharray: 4 3; } .bench .named { fill: var(--lane); font-weight: 600; }
"""

_ALONE = """
svg { --sans: ui-sans-serif, system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; --panel: #ffffff; --ink: #1a2029;
 --quiet: #586273; --line: #e1e5eb; --lane0: #2563c9; --lane1: #c2410c; --lane3: #0f766e; background: var(--panel); }
@media (prefers-color-scheme: dark) { svg { --panel: #161b22; --ink: #e5e9f0; --quiet: #9ba6b5; --line: #2a313b;
 --lane0: #79aefc; --lane1: #fb9a66; --lane3: #4fd1c0; } }
.lane0 { --lane: var(--lane0); } .lane1 { --lane: var(--lane1); } .lane3 { --lane: var(--lane3); }
"""

_LANES = ("lane0", "lane1", "lane3")
Place = Callable[[float], float]


def standalone_svg(bench: Bench) -> str:
    """The picture as the text of an SVG file that needs nothing else."""
    return _svg(bench, 'xmlns="http://www.w3.org/2000/svg" ', f"<style>{_ALONE}{STYLE}</style>")


def inline_svg(bench: Bench) -> str:
    """The picture for a page that has `STYLE` and the kit's colours."""
    return _svg(bench, "", "")


def _svg(bench: Bench, namespace: str, style: str) -> str:
    rows = [name for name in OPERATIONS if any(p.operation == name for m in bench.measured for p in m.paces)]
    height = max(_TOP + len(rows) * _ROW + 40, _TOP + 2 * (_HIGH + _GAP))
    names = " and ".join(measured.target for measured in bench.measured)
    drawn = "".join(
        (*_paces(bench, rows), *_panel(bench, "history", _TOP), *_panel(bench, "store", _TOP + _HIGH + _GAP))
    )
    second = (
        f'<text class="quiet" x="12" y="{height - 8}">filled: {prose(bench.measured[0].target)}; '
        f"hollow and dashed: {prose(bench.measured[1].target)}</text>"
        if len(bench.measured) == 2
        else ""
    )
    return (
        f'<svg {namespace}class="bench" role="img" aria-label="How fast {prose(names)} is" width="{_WIDTH}" '
        f'height="{height}" viewBox="0 0 {_WIDTH} {height}">{style}{drawn}{second}</svg>\n'
    )


def _paces(bench: Bench, rows: Sequence[str]) -> Iterator[str]:
    rates = [pace.rate for measured in bench.measured for pace in measured.paces]
    if not rates:
        return
    place, ticks = _log_scale(rates, *_PACE)
    clients = bench.settings["clients"]
    bottom = _TOP + len(rows) * _ROW
    yield '<text class="head" x="12" y="20">calls a second</text>'
    for number, way in enumerate(WAYS):
        title = prose(way_title(way, clients))
        yield f'<g class="{_LANES[number]}"><text class="named" x="{_NAMES + 120 * number}" y="20">{title}</text></g>'
    for tick in ticks:
        x = place(tick)
        yield f'<path class="grid" d="M{x:.1f} {_TOP - 18}V{bottom}"/>'
        yield f'<text class="quiet mid" x="{x:.1f}" y="{bottom + 16}">{_round(tick)}</text>'
    for row, operation in enumerate(rows):
        y = _TOP + row * _ROW
        yield f'<text class="end" x="{_NAMES - 14}" y="{y + 4}">{operation}</text>'
        for order, measured in enumerate(bench.measured):
            for number, way in enumerate(WAYS):
                pace = measured.pace(operation, way)
                if pace is not None:
                    told = (
                        f"{operation}, {way_title(way, clients)}: {rate_text(pace.rate)}/s, {measured.target}"
                    )
                    yield _dot(order, number, place(pace.rate), y, told)


def _panel(bench: Bench, axis: Axis, top: int) -> Iterator[str]:
    """Milliseconds against the size."""
    costs = [cost for measured in bench.measured for cost in measured.costs if cost.axis == axis]
    if not costs:
        return
    across, sizes = _log_scale([cost.size for cost in costs], *_GROWTH)
    upward, ticks = _log_scale([cost.median * 1e3 for cost in costs], top + _HIGH, top)
    left, right = _GROWTH
    unit = "events in the run" if axis == "history" else "runs in the store"
    yield f'<text class="head" x="{left - 44}" y="{top - 38}">ms a call</text>'
    yield (
        f'<text class="quiet end" x="{right}" y="{top + _HIGH + 17}">{unit}</text>' if len(sizes) < 2 else ""
    )
    for tick in ticks:
        yield f'<path class="grid" d="M{left} {upward(tick):.1f}H{right}"/>'
        yield f'<text class="quiet end" x="{left - 6}" y="{upward(tick) + 4:.1f}">{_round(tick)}</text>'
    for size in sizes:
        yield f'<text class="quiet mid" x="{across(size):.1f}" y="{top + _HIGH + 17}">{_round(size)}</text>'
    yield f'<text class="quiet" x="{left + 40}" y="{top - 38}">{unit}</text>'
    for number, operation in enumerate(GROWING):
        lane = _LANES[number]
        key = left - 44 + (0, 62, 108)[number]
        yield f'<g class="{lane}"><text class="named" x="{key}" y="{top - 18}">{operation}</text></g>'
        for order, measured in enumerate(bench.measured):
            grown = measured.grown(axis, operation)
            points = [(across(cost.size), upward(cost.median * 1e3)) for cost in grown]
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            yield (
                f'<g class="{lane}{" second" * order}"><path class="line" d="M{path}"/></g>' if points else ""
            )
            for cost, (x, y) in zip(grown, points, strict=True):
                told = f"{operation}, {cost.size:,} {unit.split()[0]}: {figure(cost.median)} ms, {measured.target}"
                yield _dot(order, number, x, y, told)


def _dot(order: int, number: int, x: float, y: float, told: str) -> str:
    second = " second" if order else ""
    return (
        f'<g class="{_LANES[number]}{second}"><title>{prose(told)}</title>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/></g>'
    )


def _log_scale(values: Sequence[float], start: float, end: float) -> tuple[Place, list[float]]:
    """Where a value stands between two places, and the powers of ten that enclose them all."""
    low = math.floor(math.log10(min(values)) + 1e-9)
    high = max(low + 1, math.ceil(math.log10(max(values)) - 1e-9))

    def place(value: float) -> float:
        return start + (end - start) * (math.log10(value) - low) / (high - low)

    return place, [10.0**power for power in range(low, high + 1)]


def _round(number: float) -> str:
    return f"{number:,.0f}" if number >= 1 else f"{number:g}"
