"""A measurement on the terminal: tables of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from continuum_conformance.bench.figures import WAYS, Axis, Bench, Measured, Pace, Way
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.measured import MEASURED
from continuum_conformance.report.screen import Screen
from continuum_conformance.report.text import one_line, wrap

__all__ = ["AXES", "GROWING", "figure", "print_bench", "rate_text", "times", "way_title"]

GROWING = ("append", "load", "load_with_snapshot")
"""The operations whose growth is measured, as they are shown."""

AXES: dict[Axis, str] = {"history": "ms, events in the run", "store": "ms, runs in the store"}

_NAME = 18


def way_title(way: Way, clients: int) -> str:
    """What a column of the pace is headed by."""
    return {
        "alone": "1 client",
        "apart": f"{clients} on {clients} runs",
        "together": f"{clients} on one run",
    }[way]


def rate_text(rate: float) -> str:
    """Calls a second, as in ``2,345``, ``8.3`` or ``140k``."""
    if rate >= 99_999.5:
        return f"{rate / 1e3:.0f}k" if rate < 999_500 else f"{rate / 1e6:.2f}M"
    return f"{rate:,.0f}" if rate >= 9.95 else f"{rate:.1f}"


def figure(seconds: float) -> str:
    """Milliseconds with about three digits, as in ``0.041`` or ``12.3``."""
    ms = seconds * 1e3
    if ms >= 99.95:
        return f"{ms:,.0f}"
    return f"{ms:.3f}" if ms < 0.9995 else f"{ms:.2f}" if ms < 9.995 else f"{ms:.1f}"


def print_bench(screen: Screen, bench: Bench) -> None:
    """All tables, and what was left out."""
    for measured in bench.measured:
        if any((measured.paces, measured.costs, measured.stored, measured.limits)):
            screen.heading(f"{one_line(measured.target)} ({measured.form})", "blue")
        for block in (
            _paces(measured, screen),
            _growth(measured),
            _findings(measured, screen),
            _stored(measured),
            _limits(measured),
        ):
            lines = list(block)
            for line in lines:
                screen.line(line)
            if lines:
                screen.line()
    if len(bench.measured) == 2:
        _print_comparison(screen, bench)
    _print_left_out(screen, bench)


def _paces(measured: Measured, screen: Screen) -> Iterator[str]:
    if not measured.paces:
        return
    clients = max(pace.clients for pace in measured.paces)
    ways = [way for way in WAYS if any(pace.way == way for pace in measured.paces)]
    yield screen.paint(f"{'':{_NAME}}" + "".join(f"{way_title(way, clients):>20}" for way in ways), "bold")
    yield screen.paint(f"{'calls/s and ms':{_NAME}}" + f"{'/s':>7}{'median':>7}{'p99':>6}" * len(ways), "dim")
    for operation in OPERATIONS:
        found = [measured.pace(operation, way) for way in ways]
        if any(found):
            yield f"{operation:{_NAME}}" + "".join(_cell(pace) for pace in found)


def _cell(pace: Pace | None) -> str:
    if pace is None:
        return f"{'-':>7}{'':13}"
    return f"{rate_text(pace.rate):>7}{figure(pace.median):>7}{_narrow(pace.p99):>6}"


def _narrow(seconds: float) -> str:
    """A figure in at most five columns, seconds marked as such."""
    text = figure(seconds)
    return text if len(text) <= 5 else f"{seconds:.1f}s"


def _growth(measured: Measured) -> Iterator[str]:
    for axis, unit in AXES.items():
        costs = {operation: measured.grown(axis, operation) for operation in GROWING}
        sizes = sorted({cost.size for of in costs.values() for cost in of})
        if not sizes:
            continue
        yield f"{unit:24}" + "".join(f"{size:>9,}" for size in sizes) + f"{'growth':>10}"
        for operation, of in costs.items():
            by_size = {cost.size: cost for cost in of}
            cells = "".join(
                f"{figure(by_size[size].median) if size in by_size else '-':>9}" for size in sizes
            )
            yield f"{operation:24}" + cells + (f"{times(of[-1].ratio):>10}" if of else "")
        if axis == "history" and measured.grown("store", "append"):
            yield ""


def _findings(measured: Measured, screen: Screen) -> Iterator[str]:
    styles = {"met": "green", "unmet": "yellow"}
    for finding in measured.findings:
        verdict = screen.paint(f"{finding.verdict:11}", styles.get(finding.verdict, "dim"))
        told = finding.told
        if finding.verdict == "unmet":
            told = f"{told}. {MEASURED[finding.clause].advice}"
        for number, line in enumerate(wrap(told, screen.width - 18)):
            yield f"{'' if number else finding.clause:7}{'' if number else verdict}{' ' * 11 if number else ''}{line}"


def times(ratio: float) -> str:
    """A ratio, as in ``x 1.08`` or ``x 1,400``."""
    return f"x {ratio:,.0f}" if ratio >= 99.5 else f"x {ratio:.1f}" if ratio >= 9.95 else f"x {ratio:.2f}"


def _stored(measured: Measured) -> Iterator[str]:
    stored = measured.stored
    if stored is not None:
        yield f"{stored.bytes_per_event:,.0f} bytes per event ({stored.event} as JSON), {stored.events:,} events:"
        yield f"  growth of {stored.of}"


def _limits(measured: Measured) -> Iterator[str]:
    if measured.limits:
        yield f"{'append, beside':{_NAME}}{'clients':>10}{'its /s':>12}{'adapter /s':>12}{'ratio':>8}"
        for limit in measured.limits:
            ratio = f"{limit.ratio:.2f}"
            yield f"{limit.beside:{_NAME}}{limit.clients:>10}{rate_text(limit.rate):>12}{rate_text(limit.adapter):>12}{ratio:>8}"
        count = measured.limits[0].statements
        what = "the same statement" if count == 1 else f"the same {count} statements"
        yield f"  {what}; the ratio is the median over {measured.limits[0].turns} pairs of turns"


def _print_comparison(screen: Screen, bench: Bench) -> None:
    pairs = {(mine.operation, mine.way): mine.ratio(its) for mine, its in bench.pairs()}
    if not pairs:
        return
    first, second = bench.measured
    clients = max(pace.clients for pace in first.paces)
    ways = [way for way in WAYS if any(way == of for _, of in pairs)]
    screen.heading("compared", "blue")
    screen.prose(f"How many times as fast {first.target} is as {second.target}:")
    screen.line()
    screen.line(f"{'':{_NAME}}" + "".join(f"{way_title(way, clients):>16}" for way in ways))
    for operation in OPERATIONS:
        if any((operation, way) in pairs for way in ways):
            cells = [f"{pairs[operation, way]:.2f}" if (operation, way) in pairs else "-" for way in ways]
            screen.line(f"{operation:{_NAME}}" + "".join(f"{cell:>16}" for cell in cells))
    screen.line()


def _print_left_out(screen: Screen, bench: Bench) -> None:
    for measured in bench.measured:
        whose = f"{measured.target}: " if len(bench.measured) > 1 else ""
        for left in measured.left_out:
            screen.prose(f"{whose}{left.what} left out: {left.why}", label="-", gutter=2)
