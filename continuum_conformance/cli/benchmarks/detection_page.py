"""What `bench detection` has measured, as a page in Markdown and a picture in SVG."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from continuum_conformance.cli.benchmarks.bank import Wrong
from continuum_conformance.cli.benchmarks.measuring import HOPELESS, Measured, Results

__all__ = ["page", "picture"]

LABELS = {
    "check": "`check --first`",
    "threads": "threads at a barrier",
    "frontrun": "frontrun",
    "machine": "Hypothesis alone",
}
COLOURS = {"check": "#1f6feb", "threads": "#b35900", "frontrun": "#1a7f37", "machine": "#8250df"}
DASHES = {"check": "", "threads": "8 4", "frontrun": "2 3", "machine": "10 3 2 3"}

_Tried = Mapping[str, list[Measured]]
"""The trials of a method by target."""


def _tried(adapters: Sequence[Wrong], results: Results, method: str) -> _Tried:
    trials = {adapter.target: results.of(adapter.target, method) for adapter in adapters}
    return {target: found for target, found in trials.items() if found}


def _median(trials: Sequence[Measured]) -> float:
    """The median time until an adapter is found; infinite where it is missed more often than not."""
    return statistics.median_high(trial.found.seconds if trial.found.found else math.inf for trial in trials)


# -- the page --


def page(adapters: Sequence[Wrong], results: Results, command: str) -> str:
    """The page, with the picture that stands beside it as ``detection.svg``."""
    kinds: dict[str, list[Wrong]] = {}
    for adapter in adapters:
        kinds.setdefault(adapter.shows_in, []).append(adapter)
    lines = [
        "# Time to detection",
        "",
        "How long until a wrong adapter is known to be wrong: for each adapter of the banks the time and the number of",
        "tries until `check --first` in the standard profile has found it, beside what else one might use, on the same",
        "machine.",
        "",
        f"```console\n$ {command}\n```",
        "",
        "![The adapters found, by seconds](detection.svg)",
        "",
    ]
    for kind, those in kinds.items():
        lines += _summary(those, results, kind)
    lines += [*_how(results), *_slowest(adapters, results)]
    for kind, those in kinds.items():
        methods = _methods(those, results)
        lines += [
            f"## Those that need {kind}",
            "",
            f"| adapter | {' | '.join(LABELS[m] for m in methods)} |",
            f"| --- {'| --- ' * len(methods)}|",
        ]
        for adapter in those:
            cells = [_cell(results.of(adapter.target, method)) for method in methods]
            lines.append(f"| {adapter.name} | {' | '.join(cells)} |")
        lines += [
            "",
            "Each cell: the median of the seconds, the worst, and in brackets the median number of tries; where some",
            "seeds found nothing, in how many of them it was found; – where none did, with the seconds spent.",
            "",
        ]
    return "\n".join(lines)


def _methods(adapters: Sequence[Wrong], results: Results) -> list[str]:
    return [method for method in LABELS if _tried(adapters, results, method)]


def _summary(adapters: Sequence[Wrong], results: Results, kind: str) -> list[str]:
    lines = [
        f"Of the {len(adapters)} that need {kind}:",
        "",
        "| | tried | found with every seed | within 5 s | within 60 s | median of those found | worst | processor | seeds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in _methods(adapters, results):
        tried = _tried(adapters, results, method)
        always = [t for t in tried.values() if all(one.found.found for one in t)]
        medians = [_median(t) for t in tried.values()]
        found = [one.found.seconds for t in tried.values() for one in t if one.found.found]
        busy = [one.found.processor for t in tried.values() for one in t if one.found.found]
        seeds = sorted({len(t) for t in tried.values()})
        lines.append(
            f"| {LABELS[method]} | {len(tried)} | {len(always)} | {sum(m <= 5 for m in medians)}"
            f" | {sum(m <= 60 for m in medians)} | {_seconds(statistics.median(found)) if found else '–'}"
            f" | {_seconds(max(found)) if found else '–'} | {_seconds(statistics.median(busy)) if busy else '–'}"
            f" | {_range(seeds)} |"
        )
    return [*lines, ""]


def _how(results: Results) -> list[str]:
    loads = sorted(trial.load for trial in results.trials)
    budgets = sorted({trial.budget for trial in results.trials})
    machine = results.machine
    load = f"{statistics.median(loads):.1f} (at most {loads[-1]:.1f})" if loads else "unknown"
    return [
        "## How it was measured",
        "",
        "- The command measures what is not in `detection.json` yet; other methods may have been measured before.",
        f"- On {machine.get('platform', '?')} with {machine.get('processors', '?')} processors and"
        f" {machine.get('python', '?')}"
        + (f", frontrun {machine['frontrun']}" if "frontrun" in machine else "")
        + f". {_side_by_side(machine)} The load average of the last minute was {load} when a trial began.",
        f"- Each trial has a process and a store of its own. An alternative has at most {_range(budgets)} seconds, and what",
        "  it has not found by then counts as not found. Starting the process and the database server is not counted.",
        "  *Seeds* says how many times each adapter was tried; *within 5 s* and *within 60 s* go by the median of an",
        f"  adapter's seeds. An alternative that has found nothing with {HOPELESS} seeds is not tried with more.",
        "- All times are in seconds on the wall; *processor* is the median of the processor time of the trial's own process",
        "  in seconds, which depends less on what else the machine does.",
        "- `check --first` is given nothing but the adapter (and `--failover` for what shows in one). Its time ends when",
        "  the finding is made small, replayed three times and told. Its tries are schedules and injected faults, those of",
        "  making it small apart.",
        "- Found means a failing MUST: for what needs a race or a fault one that the adapter is declared to break, since what",
        "  it is built on may have faults of its own; for what shows in a sequence any, since it has no other fault.",
        "- The alternatives are given the race in which the kit has found the fault, so that they need not look for the",
        "  scenario (all known ones in turn, where it was no race), and the kit's own judge of what was seen. Their time ends",
        "  at the first wrong history, so they are told most of what `check` has to find out. They inject no faults; what they",
        "  find of those that need one shows without it too.",
        "- *Threads at a barrier*: two or three workers start together and switch every 10 µs, over and over.",
        "- *frontrun*: under its command, with locks patched before the adapter is imported, a fresh harness and handles in",
        "  `setup`, workers that call only the journal; half of the time with its DPOR, the rest with its random strategy.",
        "  What it calls a deadlock counts only for adapters that are declared to have one.",
        "- *Hypothesis alone*: the kit's stateful machine, all operations, one call at a time. It alone is tried on the",
        "  adapters whose fault shows in a sequence of calls; the other two only race. None of them loses a server.",
        "",
    ]


def _side_by_side(machine: Mapping[str, str]) -> str:
    jobs = int(machine.get("jobs", "1"))
    return f"Up to {jobs} trials ran side by side." if jobs > 1 else "The trials ran one after another."


def _slowest(adapters: Sequence[Wrong], results: Results) -> list[str]:
    tried = _tried(adapters, results, "check")
    if not tried:
        return []
    names = {adapter.target: adapter.name for adapter in adapters}
    worst = sorted(tried, key=lambda target: -_median(tried[target]))[:10]
    lines = [
        "## What takes `check --first` longest",
        "",
        "| adapter | seconds (median) | found as |",
        "| --- | --- | --- |",
    ]
    for target in worst:
        said = next((t.found for t in tried[target] if t.found.found), None)
        clauses = ", ".join(said.clauses[:2]) if said is not None else "not found"
        median = _median(tried[target])
        lines.append(f"| {names[target]} | {_seconds(median) if median < math.inf else '–'} | {clauses} |")
    return [*lines, ""]


def _cell(trials: Sequence[Measured]) -> str:
    if not trials:
        return "not tried"
    hits = [trial.found for trial in trials if trial.found.found]
    if not hits:
        return f"– ({_seconds(max(trial.found.seconds for trial in trials))})"
    tries = statistics.median_low(found.tries for found in hits)
    some = f", {len(hits)} of {len(trials)}" if len(hits) < len(trials) else ""
    median, worst = statistics.median(f.seconds for f in hits), max(f.seconds for f in hits)
    return f"{_seconds(median)}, {_seconds(worst)} ({tries}){some}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


def _range(numbers: Sequence[float]) -> str:
    if not numbers:
        return "0"
    first, last = numbers[0], numbers[-1]
    return f"{first:g}" if first == last else f"{first:g} to {last:g}"


# -- the picture --

WIDTH, HEIGHT = 920, 480
LEFT, RIGHT, TOP, BOTTOM = 64, 240, 40, 56
FIRST, LAST = 0.01, 100.0
"""Seconds at the ends of the axis."""


def picture(adapters: Sequence[Wrong], results: Results) -> str:
    """The adapters found against the seconds it took, by each method: a step at each adapter's median."""
    most = max(len(adapters), 1)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif"'
            ' font-size="13">'
        ),
        "<title>Wrong adapters found, by seconds</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *_axes(most),
    ]
    ends: list[float] = []
    for method in LABELS:
        tried = _tried(adapters, results, method)
        if tried:
            parts += _curve(method, tried, most, ends)
    return "\n".join([*parts, "</svg>", ""])


def _x(seconds: float) -> float:
    share = math.log10(min(max(seconds, FIRST), LAST) / FIRST) / math.log10(LAST / FIRST)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(found: float, most: int) -> float:
    return HEIGHT - BOTTOM - found / most * (HEIGHT - TOP - BOTTOM)


def _axes(most: int) -> Iterator[str]:
    step = 1 if most <= 10 else 10 if most <= 100 else 25
    for number in range(0, most + 1, step):
        y = _y(number, most)
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e1e4e8"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#444">{number}</text>'
    for power in range(-2, 3):
        x = _x(10.0**power)
        yield f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#e1e4e8"/>'
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" fill="#444">{10.0**power:g} s</text>'
    yield f'<text x="{LEFT}" y="{TOP - 16}" fill="#444">wrong adapters found, of {most}</text>'
    yield (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle" fill="#444">'
        "seconds until found (median of the seeds; the database server's start apart)</text>"
    )


def _curve(method: str, tried: _Tried, most: int, ends: list[float]) -> Iterator[str]:
    times = sorted(seconds for trials in tried.values() if (seconds := _median(trials)) < math.inf)
    path = [f"M{_x(FIRST):.1f} {_y(0, most):.1f}"]
    for number, seconds in enumerate(times, 1):
        path.append(f"H{_x(seconds):.1f}V{_y(number, most):.1f}")
    path.append(f"H{_x(LAST):.1f}")
    dash = f' stroke-dasharray="{DASHES[method]}"' if DASHES[method] else ""
    yield f'<path d="{"".join(path)}" fill="none" stroke="{COLOURS[method]}" stroke-width="2.2"{dash}/>'
    y = _y(len(times), most)
    while any(abs(y - other) < 16 for other in ends):
        y -= 16
    ends.append(y)
    label = html.escape(f"{LABELS[method].replace('`', '')}: {len(times)} of {len(tried)}")
    yield f'<text x="{WIDTH - RIGHT + 8}" y="{y + 4:.1f}" fill="{COLOURS[method]}">{label}</text>'
