"""The progress of a run: on a terminal one line that updates itself, in a log a few plain lines."""

from __future__ import annotations

import time

from continuum_conformance.contract.clauses import CHAPTERS
from continuum_conformance.report.screen import Screen, cut
from continuum_conformance.report.text import one_line

__all__ = ["Progress"]

_CELLS = 24
_REDRAW_SECONDS = 0.05


class Progress:
    """Tells how far a run has come."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._drawn_at: float | None = None
        self._told: tuple[str, int] | None = None

    def update(self, done: int, total: int, label: str) -> None:
        """Tell that ``done`` of ``total`` are done, and what is under way."""
        if self._screen.live:
            self._draw(done, total, one_line(label))
        else:
            self._tell(done, total, one_line(label))
        self._screen.flush()

    def end(self) -> None:
        """Leave the screen to what comes next."""
        if self._drawn_at is not None:
            self._screen.write("\r\x1b[K")
        elif self._told is not None:
            self._screen.line()
        self._drawn_at = self._told = None

    def _draw(self, done: int, total: int, label: str) -> None:
        now = time.monotonic()
        if self._drawn_at is not None and done < total and now - self._drawn_at < _REDRAW_SECONDS:
            return
        screen = self._screen
        full = min(_CELLS, _CELLS * done // total) if total else 0
        filled, empty = ("━", "─") if screen.pretty else ("#", "-")
        bar = screen.paint(filled * full, "green") + screen.paint(empty * (_CELLS - full), "dim")
        figures = _figures(done, total)
        room = screen.width - _CELLS - len(figures) - 7
        screen.write(f"\r\x1b[K  {bar}  {figures}  {screen.paint(cut(label, room), 'dim')}")
        self._drawn_at = now

    def _tell(self, done: int, total: int, label: str) -> None:
        # One line when the chapter changes, and in a long chapter one for each quarter of the whole.
        chapter = label.partition("-")[0]
        quarter = 4 * done // total if total else 0
        place = (chapter if chapter in CHAPTERS else "", quarter)
        if place == self._told:
            return
        self._told = place
        what = f"{chapter}  {CHAPTERS[chapter]}" if chapter in CHAPTERS else label
        self._screen.line(cut(f"  {_figures(done, total)}  {what}", self._screen.width))


def _figures(done: int, total: int) -> str:
    return f"{done:>{len(str(total))}}/{total}"
