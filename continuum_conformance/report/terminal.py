"""The report on a terminal, or in the log of a CI job: a heading, the progress, and what was found.

Prose is wrapped to the width; code is left as it is, so that it can be pasted. Where many clauses fail, the
first are told in full and the others in a line each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TextIO

from continuum_conformance.report.data import Report, Standing
from continuum_conformance.report.progress import Progress
from continuum_conformance.report.screen import Screen, cut
from continuum_conformance.report.summary import (
    LABELS,
    Failure,
    by_chapter,
    failures,
    never,
    raced,
    replay_command,
    short_ids,
    struck,
    tried,
    unjudged,
    verdict_line,
)
from continuum_conformance.report.text import clip, columns, one_line, plural, printable, wrap

__all__ = ["Terminal"]

_IN_FULL = 8
_LONGEST_MESSAGE = 1_200
_LONGEST_CODE_LINE = 240
_MOST_CODE_LINES = 80
_MOST_TRACE_LINES = 12
_NARROWEST_TITLE = 8

_GLYPHS: Mapping[Standing, tuple[str, str, str]] = {
    "passed": ("·", ".", "green"),
    "failed": ("✗", "F", "red"),
    "expected": ("×", "x", "magenta"),
    "inconclusive": ("?", "?", "yellow"),
    "skipped": ("s", "s", "yellow"),
    "not_run": ("○", "o", "yellow"),
    "advice": ("!", "!", "cyan"),
    "unsupported": ("-", "-", "dim"),
    "not_applicable": ("/", "/", "dim"),
}
"""A glyph for each standing, its form in ASCII, and its colour."""

_VERDICT_STYLES = {"conforming": "green", "nonconforming": "red", "incomplete": "yellow"}


class Terminal:
    """Tells one run of the kit on a stream: `start`, then `progress` as often as wanted, then `finish`."""

    def __init__(self, stream: TextIO, width: int | None = None, colour: bool | None = None) -> None:
        """Write to ``stream``.

        Args:
            stream: where to; what its encoding cannot print is written as an escape.
            width: columns of the prose, at least 40; without it the terminal's, at most 80.
            colour: whether to colour; without it ``NO_COLOR``, ``FORCE_COLOR`` and the stream decide.
        """
        self._screen = Screen(stream, width, colour)
        self._progress = Progress(self._screen)

    def start(
        self,
        *,
        target: str,
        adapter: str,
        store: str | None,
        profile: str,
        seed: int,
        capabilities: Sequence[str] = (),
        withdrawn: Sequence[str] = (),
    ) -> None:
        """Say what is about to be judged, and over which store."""
        rows = {
            "target": target,
            "adapter": adapter,
            "store": store or "",
            "declares": ", ".join(capabilities),
            "withdrawn": ", ".join(withdrawn),
            "profile": f"{profile}, seed {seed}",
        }
        self._screen.line(self._screen.paint("continuum-conformance", "bold"))
        for name, value in rows.items():
            self._screen.prose(one_line(value), label=name, indent=2, gutter=11)
        self._screen.line()
        self._screen.flush()

    def progress(self, done: int, total: int, current_label: str) -> None:
        """Tell that ``done`` of ``total`` are done, and what is under way: a clause's id, or a few words."""
        self._progress.update(done, total, current_label)

    def finish(self, report: Report) -> None:
        """Print the whole: the table of chapters, what failed and why, what was not judged, the verdict."""
        self._progress.end()
        self._table(report)
        self._failures(report)
        self._expected(report)
        self._advice(report)
        self._unjudged(report)
        self._notes(report)
        self._failover(report)
        self._coverage(report)
        self._verdict(report)
        self._screen.flush()

    # -- sections --

    def _table(self, report: Report) -> None:
        screen = self._screen
        chapters = list(by_chapter(report))
        most = max((len(entries) for _, _, entries in chapters), default=0)
        room = max(screen.width - most - 14, _NARROWEST_TITLE)
        titles = {key: cut(one_line(title), room) for key, title, _ in chapters}
        widest = max(map(columns, titles.values()), default=0)
        for key, _, entries in chapters:
            passed = sum(entry.standing == "passed" for entry in entries)
            counting = sum(entry.standing not in ("unsupported", "not_applicable") for entry in entries)
            figures = f"{passed}/{counting}" if counting else "-"
            glyphs = "".join(
                screen.paint(self._glyph(entry.standing), _style(entry.standing)) for entry in entries
            )
            name = screen.paint(cut(one_line(key), 3), "bold")
            padding = " " * (widest - columns(titles[key]))
            screen.line(f"{name}  {titles[key]}{padding}  {figures:>5}  {glyphs}")
        self._legend([standing for standing in LABELS if report.counts[standing]])

    def _legend(self, used: list[Standing]) -> None:
        if used in ([], ["passed"]):
            return
        self._screen.line()
        line = ""
        for standing in used:
            word = f"{self._glyph(standing)} {LABELS[standing]}"
            if line and columns(line) + 3 + columns(word) > self._screen.width:
                self._screen.line(self._screen.paint(line, "dim"))
                line = word
            else:
                line = f"{line}   {word}" if line else word
        self._screen.line(self._screen.paint(line, "dim"))

    def _failures(self, report: Report) -> None:
        found = failures(report)
        if not found:
            return
        self._screen.heading(f"Failures ({plural(report.counts['failed'], 'clause')})", "red")
        for number, failure in enumerate(found[:_IN_FULL]):
            if number:
                self._screen.line()
            self._failure(failure)
        rest = found[_IN_FULL:]
        if rest:
            self._screen.line()
            self._screen.prose(
                f"And {len(rest)} more, in a line each; the JSON report and the page tell them in full:"
            )
            for failure in rest:
                self._failure_in_a_line(failure)

    def _failure(self, failure: Failure) -> None:
        screen, entry, finding = self._screen, failure.lead, failure.finding
        name = cut(f"{self._glyph('failed')} {one_line(entry.id)}", screen.width - 8)
        chapter = cut(one_line(entry.chapter_title), screen.width - columns(name) - 10)
        screen.line(
            f"{screen.paint(name, 'bold', 'red')}  {cut(one_line(entry.level), 6)}  {screen.paint(chapter, 'dim')}"
        )
        self._row("rule", entry.rule)
        self._row("found", entry.text, "bold")
        if failure.also:
            self._row("", f"also breaks {short_ids(failure.also)}")
        if finding:
            self._code(finding.counterexample, finding.replay)
            self._trace("the adapter's own error", finding.traceback)
            self._trace("where it hung", finding.stack)
        self._row("advice", entry.advice)
        if finding and finding.replay:
            self._command("replay", replay_command(finding) or "", one_line(finding.replay_note))
        if finding and finding.isolation_file:
            self._command("spec", finding.isolation_file, "for PostgreSQL's isolation tester")
        self._command("explain", f"continuum-conformance clauses {one_line(entry.id)}")

    def _failure_in_a_line(self, failure: Failure) -> None:
        screen = self._screen
        head = cut(f"{self._glyph('failed')} {one_line(failure.lead.id):<7}", screen.width // 2)
        also = f" (also {short_ids(failure.also)})" if failure.also else ""
        message = one_line(failure.lead.text or failure.lead.rule)
        screen.line(f"{screen.paint(head, 'red')} {cut(message + also, screen.width - columns(head) - 1)}")

    def _expected(self, report: Report) -> None:
        entries = report.standing("expected")
        if entries:
            self._screen.heading(f"Failed as expected ({len(entries)})", "magenta")
            for entry in entries:
                self._row(entry.id, entry.expected or "no reason given")
        stale = [entry for entry in report.clauses if entry.stale]
        if stale:
            self._screen.heading(f"Expected to fail, but passed ({len(stale)})", "red")
            for entry in stale:
                self._row(entry.id, f"remove this line: {entry.expected}")

    def _advice(self, report: Report) -> None:
        entries = report.standing("advice")
        if not entries:
            return
        self._screen.heading(f"Advice: a SHOULD that is not met ({len(entries)})", "cyan")
        for entry in entries:
            self._row(entry.id, entry.text or entry.rule)
            self._row("", entry.advice, "dim")

    def _unjudged(self, report: Report) -> None:
        groups = unjudged(report)
        if not groups:
            return
        self._screen.heading(
            f"Not judged ({plural(sum(len(group.ids) for group in groups), 'clause')})", "yellow"
        )
        for group in groups:
            label = f"{self._glyph(group.standing)} {LABELS[group.standing]}"
            self._screen.prose(short_ids(group.ids, report), label=label, indent=2, gutter=18)
            self._screen.prose(_prose(group.reason), "dim", indent=20)

    def _notes(self, report: Report) -> None:
        if report.notes:
            self._screen.heading("Notes", "yellow")
        for note in report.notes:
            self._screen.prose(_prose(note), label="-", indent=2, gutter=2)

    def _failover(self, report: Report) -> None:
        if report.failover:
            self._screen.heading("Failover", "cyan")
        for told in report.failover:
            self._screen.prose(_prose(told), label="-", indent=2, gutter=2)

    def _coverage(self, report: Report) -> None:
        figures = {
            "tried:": tried(report),
            "races:": raced(report),
            "faults:": struck(report),
            "never:": never(report),
        }
        if any(figures.values()):
            self._screen.line()
        for label, text in figures.items():
            self._screen.prose(one_line(text), label=label, gutter=8)

    def _verdict(self, report: Report) -> None:
        screen = self._screen
        lines = [one_line(verdict_line(report))]
        if columns(lines[0]) > screen.width:
            # Better broken before the parenthesis than within it.
            head, _, tail = lines[0].rpartition(" (contract ")
            lines = [
                *wrap(head, screen.width),
                *(f"  {part}" for part in wrap(f"(contract {tail}", screen.width - 2)),
            ]
        style = _VERDICT_STYLES[report.verdict]
        screen.line()
        screen.line(screen.paint(report.verdict, "bold", style) + lines[0].removeprefix(report.verdict))
        for line in lines[1:]:
            screen.line(line)

    # -- pieces --

    def _row(self, label: str, text: str, *styles: str) -> None:
        self._screen.prose(_prose(text), *styles, label=one_line(label), indent=2, gutter=8)

    def _code(self, code: str, file: str | None) -> None:
        lines = printable(code).strip("\n").split("\n")
        if not any(line.strip() for line in lines):
            return
        self._screen.line()
        for line in lines[:_MOST_CODE_LINES]:
            self._screen.line(f"      {self._screen.code(_clip_code(line))}")
        left = len(lines) - _MOST_CODE_LINES
        if left > 0:
            where = f" in {one_line(file)}" if file else ""
            self._screen.line(self._screen.paint(f"      # {plural(left, 'more line')}{where}", "dim"))
        self._screen.line()

    def _trace(self, title: str, text: str | None) -> None:
        if not text:
            return
        screen = self._screen
        lines = printable(text).strip("\n").split("\n")
        left = len(lines) - _MOST_TRACE_LINES
        if left > 0:
            # The last lines say what happened, the first only how the call got there.
            lines = [f"... {plural(left, 'line')} before", *lines[-_MOST_TRACE_LINES:]]
        screen.line(f"  {screen.paint(f'{title}:', 'dim')}")
        screen.line()
        for line in lines:
            screen.line(f"      {cut(line, max(screen.width, 120) - 6)}")
        screen.line()

    def _command(self, label: str, command: str, note: str = "") -> None:
        note = self._screen.paint(f"  ({note})", "dim") if note else ""
        self._screen.line(f"  {self._screen.paint(f'{label}:', 'dim')} {printable(command)}{note}")

    def _glyph(self, standing: Standing) -> str:
        pretty, plain, _ = _GLYPHS[standing]
        return pretty if self._screen.pretty else plain


def _style(standing: Standing) -> str:
    return _GLYPHS[standing][2]


def _prose(text: str) -> str:
    return clip(one_line(text), _LONGEST_MESSAGE)


def _clip_code(line: str) -> str:
    # A term of a megabyte is in the replay file; here it would bury the rest.
    if len(line) <= _LONGEST_CODE_LINE:
        return line
    half = _LONGEST_CODE_LINE // 2
    return f"{line[:half]} ... {len(line) - 2 * half:,} characters ... {line[-half:]}"
