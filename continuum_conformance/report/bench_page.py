"""A measurement as a page: the picture, and every figure in tables.

One file of HTML with its style and drawing inside; it asks no other host for anything and has no script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources

from continuum_conformance.bench.figures import WAYS, Bench, Measured
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.measured import MEASURED
from continuum_conformance.report.bench_chart import STYLE, inline_svg
from continuum_conformance.report.bench_text import (
    AXES,
    GROWING,
    figure,
    rate_text,
    times,
    way_title,
)
from continuum_conformance.report.markup import prose
from continuum_conformance.report.text import duration

__all__ = ["bench_page"]

_STYLE = """
.chart { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; overflow-x: auto; padding: 14px; margin-top: 22px; }
.chart svg { display: block; }
.figures { border-collapse: collapse; background: var(--panel); border: 1px solid var(--line); font-variant-numeric: tabular-nums; font-size: .9rem; }
.figures th, .figures td { padding: 5px 12px; text-align: right; border-top: 1px solid var(--line); }
.figures th:first-child { text-align: left; font-family: var(--mono); font-weight: 500; } .figures thead th { color: var(--quiet); font: 600 .8125rem var(--sans); }
.wide { overflow-x: auto; margin-bottom: 16px; } main h3 { margin: 22px 0 10px; } .left-out li { margin: 4px 0 4px 18px; list-style: disc; }
"""


def bench_page(bench: Bench) -> str:
    """The page as the text of an HTML document."""
    style = resources.files(__package__ or __name__).joinpath("page.css").read_text(encoding="utf-8")
    style += _STYLE + STYLE
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    names = " against ".join(measured.target for measured in bench.measured)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{digest}'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{prose(names)}: bench</title>\n'
        f'<style>{style}</style>\n</head>\n<body class="{"incomplete" if bench.interrupted else "conforming"}">\n'
        f'<header class="hero"><p class="kit">continuum-conformance bench</p><h1>How fast</h1>'
        f'<p class="target"><code>{prose(names)}</code></p>{_facts(bench)}</header>\n'
        f'<main><div class="chart">{inline_svg(bench)}</div>'
        f"{''.join(_section(measured) for measured in bench.measured)}{_comparison(bench)}{_left_out(bench)}"
        f"{_again(bench)}</main>\n<footer></footer></body>\n</html>\n"
    )


def _facts(bench: Bench) -> str:
    settings = bench.settings
    length = f"{settings['seconds']:g} s" if settings["count"] is None else f"{settings['count']:,} calls"
    facts = {
        "Each figure": f"{length} in {settings['turns']} turns",
        "Clients": f"up to {settings['clients']}, {settings['handles']} handle(s), one process",
        "Seed": settings["seed"],
        "Processors": bench.environment["processors"],
        "Python": bench.environment["python"],
        "Took": duration(bench.seconds),
        "Store": ", ".join(dict.fromkeys(measured.store for measured in bench.measured)),
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{prose(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{listed}</dl>'


def _section(measured: Measured) -> str:
    tables = "".join((*_paces(measured), *_growth(measured), *_findings(measured), *_limits(measured)))
    stored = measured.stored
    if stored is not None:
        tables += (
            f"<h3>Bytes</h3><p>{stored.bytes_per_event:,.0f} bytes per event ({stored.event} as JSON): the growth of "
            f"{prose(stored.of)} by {stored.events:,} events.</p>"
        )
    return f'<section><h2>{prose(measured.target)} <span class="number">{measured.form}</span></h2>{tables}</section>'


def _paces(measured: Measured) -> Iterator[str]:
    if not measured.paces:
        return
    clients = max(pace.clients for pace in measured.paces)
    head = ["calls a second, ms"]
    for way in WAYS:
        head += [way_title(way, clients), "median", "p99"]
    rows = []
    for operation in OPERATIONS:
        found = [measured.pace(operation, way) for way in WAYS]
        if any(found):
            cells = [
                [rate_text(p.rate), figure(p.median), figure(p.p99)] if p else ["–", "", ""] for p in found
            ]
            rows.append([operation, *(cell for of in cells for cell in of)])
    yield "<h3>Pace</h3>" + _table(head, rows)


def _growth(measured: Measured) -> Iterator[str]:
    for axis, unit in AXES.items():
        by_operation = {operation: measured.grown(axis, operation) for operation in GROWING}
        sizes = sorted({cost.size for costs in by_operation.values() for cost in costs})
        if sizes:
            rows = []
            for operation, costs in by_operation.items():
                of = {cost.size: figure(cost.median) for cost in costs}
                growth = times(costs[-1].ratio) if costs else ""
                rows.append([operation, *(of.get(size, "–") for size in sizes), growth])
            yield f"<h3>Growth</h3>{_table([unit, *(f'{size:,}' for size in sizes), 'growth'], rows)}"


def _findings(measured: Measured) -> Iterator[str]:
    if measured.findings:
        rows = []
        for finding in measured.findings:
            advice = f" {MEASURED[finding.clause].advice}" if finding.verdict == "unmet" else ""
            rows.append(
                f"<dt><code>{finding.clause}</code> {finding.verdict}</dt><dd>{prose(finding.told)}.{prose(advice)}</dd>"
            )
        yield f'<h3>Clauses</h3><dl class="rule">{"".join(rows)}</dl>'


def _limits(measured: Measured) -> Iterator[str]:
    if measured.limits:
        rows = [
            [
                limit.beside,
                str(limit.clients),
                rate_text(limit.rate),
                rate_text(limit.adapter),
                f"{limit.ratio:.2f}",
            ]
            for limit in measured.limits
        ]
        head = ["append, beside", "clients", "its calls a second", "the adapter's", "ratio"]
        yield "<h3>Beside who sends the same statement and does nothing else</h3>" + _table(head, rows)


def _comparison(bench: Bench) -> str:
    pairs = bench.pairs() if len(bench.measured) == 2 else []
    if not pairs:
        return ""
    ratios = {(mine.operation, mine.way): f"{mine.ratio(its):.2f}" for mine, its in pairs}
    clients = max(mine.clients for mine, _ in pairs)
    rows = [
        [operation, *(ratios.get((operation, way), "–") for way in WAYS)]
        for operation in OPERATIONS
        if any((operation, way) in ratios for way in WAYS)
    ]
    first, second = (measured.target for measured in bench.measured)
    head = ["how many times as fast", *(way_title(way, clients) for way in WAYS)]
    return f"<section><h2>{prose(first)} against {prose(second)}</h2>{_table(head, rows)}</section>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{prose(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{prose(row[0])}</th>{"".join(f"<td>{prose(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return f'<div class="wide"><table class="figures"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _left_out(bench: Bench) -> str:
    listed = "".join(
        f"<li>{prose(measured.target)}: {prose(left.what)}: {prose(left.why)}</li>"
        for measured in bench.measured
        for left in measured.left_out
    )
    return f'<section><h2>Left out</h2><ul class="left-out">{listed}</ul></section>' if listed else ""


def _again(bench: Bench) -> str:
    line = bench.environment.get("command", "")
    return f"<section><h2>Get it again</h2><pre><code>{prose(line)}</code></pre></section>" if line else ""
