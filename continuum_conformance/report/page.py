"""The report as one page: a single file of HTML with its style, script and drawings inside.

It asks no other host for anything, and its content policy forbids it to: only the page's own script, known by
its hash, may run. Without a script everything can be read; the script adds filters and copy buttons.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from continuum_conformance.contract.capabilities import CAPABILITIES, EXTENSIONS
from continuum_conformance.report.data import Report, ReportVerdict
from continuum_conformance.report.markup import prose
from continuum_conformance.report.page_clauses import chapters, mark
from continuum_conformance.report.page_findings import (
    advice,
    command,
    expected,
    failing,
    failover,
    not_judged,
    notes,
)
from continuum_conformance.report.summary import LABELS, tally
from continuum_conformance.report.text import duration

__all__ = ["to_html", "write_html"]

_TITLES: Mapping[ReportVerdict, str] = {
    "conforming": "Conforming",
    "nonconforming": "Not conforming",
    "incomplete": "Incomplete",
}
_SIGNS: Mapping[ReportVerdict, str] = {
    "conforming": "M19 33.5l9 9 18-21",
    "nonconforming": "M21 21l22 22M43 21l-22 22",
    "incomplete": "M32 17v19M32 45.5v.5",
}
_ICON_COLOURS: Mapping[ReportVerdict, str] = {
    "conforming": "#1a7f4b",
    "nonconforming": "#c02c3c",
    "incomplete": "#a15c00",
}


def write_html(report: Report, file: str | Path) -> None:
    """Write the report as a page into this file (UTF-8)."""
    Path(file).write_text(to_html(report), encoding="utf-8", newline="\n")


def to_html(report: Report) -> str:
    """The report as the text of an HTML document."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; img-src data:"
    body = "".join(
        (
            failing(report),
            notes(report),
            expected(report),
            advice(report),
            chapters(report),
            not_judged(report),
            failover(report),
            _coverage(report),
            _environment(report),
        )
    )
    title = f"{report.target}: {_TITLES[report.verdict].lower()}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{prose(title)}</title>\n"
        f'<link rel="icon" href="{_icon(report.verdict)}">\n<style>{style}</style>\n</head>\n'
        f'<body class="{report.verdict}">\n<a class="skip" href="#main">To the findings</a>\n{_hero(report)}\n'
        f'<main id="main">\n{body}\n</main>\n{_footer(report)}\n<script>{script}</script>\n</body>\n</html>\n'
    )


def _asset(name: str) -> str:
    return resources.files(__package__ or __name__).joinpath(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _icon(verdict: ReportVerdict) -> str:
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">'
        f'<rect width="64" height="64" rx="16" fill="{_ICON_COLOURS[verdict]}"/><path d="{_SIGNS[verdict]}" '
        'fill="none" stroke="#fff" stroke-width="7" stroke-linecap="round" stroke-linejoin="round"/></svg>'
    )
    return f"data:image/svg+xml,{quote(drawing, safe='')}"


def _hero(report: Report) -> str:
    without = f" <small>without {prose(', '.join(report.withdrawn))}</small>" if report.withdrawn else ""
    facts = {
        "Contract": report.contract_version,
        "Profile": report.profile,
        "Seed": str(report.seed),
        "Took": duration(report.seconds),
        "Started": f"{report.started:%Y-%m-%d %H:%M %Z}",
        "Store": report.environment.get("store", ""),
    }
    listed = "".join(
        f"<div><dt>{name}</dt><dd>{prose(value)}</dd></div>" for name, value in facts.items() if value
    )
    return (
        f'<header class="hero"><p class="kit">continuum-conformance {prose(report.kit_version)}</p><div class="verdict">'
        f'<svg class="sign" viewBox="0 0 64 64" aria-hidden="true"><circle cx="32" cy="32" r="30"/>'
        f'<path d="{_SIGNS[report.verdict]}"/></svg><div><h1>{_TITLES[report.verdict]}{without}</h1>'
        f'<p class="target"><code>{prose(report.target)}</code> <span>{prose(report.adapter)}</span></p></div></div>'
        f'{_bar(report)}<dl class="facts">{listed}</dl>{_chips(report)}</header>'
    )


def _bar(report: Report) -> str:
    counts, total = report.counts, len(report.clauses)
    rects, legend, x = [], [], 0.0
    for standing in LABELS:
        if not counts[standing]:
            continue
        share = 100 * counts[standing] / total
        rects.append(
            f'<rect class="{standing}" x="{x:.3f}%" y="0" width="{share:.3f}%" height="100%">'
            f"<title>{counts[standing]} {LABELS[standing]}</title></rect>"
        )
        legend.append(
            f'<li><a href="#clauses" data-filter="{standing}">{mark(standing)}<b>{counts[standing]}</b> '
            f"{LABELS[standing]}</a></li>"
        )
        x += share
    return (
        f'<svg class="bar" role="img" aria-label="{prose(tally(report))}">{"".join(rects)}</svg>'
        f'<ul class="legend">{"".join(legend)}</ul>'
    )


def _chips(report: Report) -> str:
    chips = []
    for name, meaning in {**CAPABILITIES, **EXTENSIONS}.items():
        if name in report.withdrawn:
            chips.append(_chip(name, "withdrawn", f"withdrawn for this run: {meaning}"))
        elif name in report.capabilities:
            chips.append(_chip(name, "declared", f"declared: {meaning}"))
        elif name in CAPABILITIES:
            chips.append(_chip(name, "undeclared", f"not declared: {meaning}"))
    return f'<ul class="chips" aria-label="Capabilities">{"".join(chips)}</ul>'


def _chip(name: str, state: str, title: str) -> str:
    seen = "" if state == "declared" else f'<span class="unseen">, {state}</span>'
    return f'<li class="{state}" title="{prose(title)}">{prose(name)}{seen}</li>'


def _coverage(report: Report) -> str:
    tiles, groups = [], []
    for name, value in report.coverage.items():
        if isinstance(value, Mapping):
            groups.append(_group(str(name), dict(_leaves(value))))
        else:
            tiles.append(f'<div class="tile"><b>{prose(_figure(value))}</b><span>{prose(name)}</span></div>')
    if not tiles and not groups:
        return ""
    figures = f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""
    return (
        '<section id="coverage" aria-labelledby="coverage-title"><h2 id="coverage-title">Coverage '
        f'<span class="number">what was tried</span></h2>{figures}{"".join(groups)}</section>'
    )


def _leaves(value: Mapping[object, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _leaves(item, f"{prefix}{name} / ")
        else:
            yield f"{prefix}{name}", item


def _group(name: str, figures: Mapping[str, object]) -> str:
    numbers = [value for value in figures.values() if _is_number(value)]
    most = max((float(value) for value in numbers if isinstance(value, int | float)), default=0.0)
    rows = []
    for label, value in figures.items():
        share = 0.0
        if _is_number(value) and isinstance(value, int | float) and most > 0:
            share = max(0.0, 100 * float(value) / most)
        never = _is_number(value) and value == 0
        shown = '<span class="never">never</span>' if never else prose(_figure(value))
        rows.append(
            f'<tr><th scope="row">{prose(label)}</th><td>{shown}</td><td class="share"><svg aria-hidden="true">'
            f'<rect width="{share:.2f}%" height="100%" rx="3"/></svg></td></tr>'
        )
    return f'<table class="coverage"><caption>{prose(name)}</caption><tbody>{"".join(rows)}</tbody></table>'


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18


def _figure(value: object) -> str:
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(_figure(item) for item in value)
    if isinstance(value, int | float) and _is_number(value):
        return f"{value:,}"
    return str(value)


def _environment(report: Report) -> str:
    line = report.environment.get("command", "")
    rows = "".join(
        f"<dt>{prose(name)}</dt><dd>{prose(value)}</dd>"
        for name, value in report.environment.items()
        if name != "command"
    )
    again = f"<h3>Get it again</h3>{command(line, 'Command that gets this report again')}" if line else ""
    listed = f'<dl class="rule">{rows}</dl>' if rows else ""
    if not again and not listed:
        return ""
    return (
        '<section id="environment" aria-labelledby="environment-title"><h2 id="environment-title">Environment</h2>'
        f"{listed}{again}</section>"
    )


def _footer(report: Report) -> str:
    return (
        f"<footer><p>continuum-conformance {prose(report.kit_version)}, contract {prose(report.contract_version)}. "
        "A clause passes only when its whole plan was finished.</p></footer>"
    )
