"""A stream of text to print on: its width, what it can show, and prose laid out in columns."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import TextIO

from continuum_conformance.report.highlight import pieces
from continuum_conformance.report.text import columns, wrap

__all__ = ["Screen", "cut"]

_WIDTH = 80
_NARROWEST = 40
_GLYPHS = "·✗×○━─"
_STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
_CODE_STYLES = {"comment": "dim", "string": "green", "number": "cyan", "keyword": "magenta", "call": "blue"}


class Screen:
    """Prints to a stream what the stream can show, and never fails over what it cannot.

    Attributes:
        live: the stream is a terminal that understands control sequences (not ``TERM=dumb``).
        width: columns of the prose.
        pretty: the stream's encoding has the characters beyond ASCII that the report likes to use.
    """

    def __init__(
        self,
        stream: TextIO,
        width: int | None = None,
        colour: bool | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._stream = stream
        self._encoding = _encoding_of(stream)
        self.live = environ.get("TERM") != "dumb" and stream.isatty()
        self.width = max(_NARROWEST, width or (_fitting() if self.live else _WIDTH))
        self.pretty = self._encodable(_GLYPHS)
        self._colour = self._wants_colour(environ) if colour is None else colour

    def _wants_colour(self, environ: Mapping[str, str]) -> bool:
        # The order of https://no-color.org and of Python itself: a refusal goes before a demand.
        if environ.get("NO_COLOR"):
            return False
        return bool(environ.get("FORCE_COLOR")) or self.live

    def _encodable(self, text: str) -> bool:
        try:
            text.encode(self._encoding)
        except UnicodeEncodeError:
            return False
        return True

    def paint(self, text: str, *styles: str) -> str:
        """The text in these styles, as in ``paint("failed", "bold", "red")``, or as it is without colours."""
        if not self._colour or not styles or not text:
            return text
        return f"\x1b[{';'.join(_STYLES[style] for style in styles)}m{text}\x1b[0m"

    def code(self, line: str) -> str:
        """A line of Python with its words coloured."""
        if not self._colour:
            return line
        return "".join(
            self.paint(text, _CODE_STYLES[kind]) if kind in _CODE_STYLES else text
            for kind, text in pieces(line)
        )

    def line(self, text: str = "") -> None:
        """Print one line."""
        self.write(text.rstrip() + "\n")

    def write(self, text: str) -> None:
        """Print the text as it is; characters that the encoding lacks are written as their escapes."""
        if not self._encodable(text):
            text = text.encode(self._encoding, "backslashreplace").decode(self._encoding)
        self._stream.write(text)

    def flush(self) -> None:
        """Send on what was printed."""
        self._stream.flush()

    def heading(self, title: str, style: str) -> None:
        """Print the title of a section in a rule across the width, with a blank line on either side."""
        dash = "─" if self.pretty else "-"
        title = cut(title, self.width - 6)
        rule = dash * (self.width - columns(title) - 4)
        self.line()
        self.line(
            f"{self.paint(dash * 2, 'dim')} {self.paint(title, 'bold', style)} {self.paint(rule, 'dim')}"
        )
        self.line()

    def prose(self, text: str, *styles: str, label: str = "", indent: int = 0, gutter: int = 0) -> None:
        """Print wrapped text, its label in a gutter on the left; a label that is too wide gets its own line."""
        if not text:
            return
        start = " " * indent
        if columns(label) >= gutter > 0:
            self.line(f"{start}{self.paint(label, 'dim')}")
            label = ""
        for part in wrap(text, self.width - indent - gutter):
            padding = " " * (gutter - columns(label))
            self.line(f"{start}{self.paint(label, 'dim')}{padding}{self.paint(part, *styles)}")
            label = ""


def cut(text: str, room: int) -> str:
    """The text in at most ``room`` columns."""
    if columns(text) <= room:
        return text
    dots = "..." if room > 3 else ""
    left = max(room - len(dots), 0)
    kept = text[:left]
    while columns(kept) > left:
        kept = kept[:-1]
    return kept + dots


def _fitting() -> int:
    return min(shutil.get_terminal_size((_WIDTH, 24)).columns, _WIDTH)


def _encoding_of(stream: TextIO) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        "".encode(encoding)
    except LookupError:
        return "ascii"
    return str(encoding)
