"""Text for people: what an adapter returned, made safe to show, and prose broken to a width.

Messages and counterexamples carry strings that an adapter chose. Whatever is no printable character (a
control sequence, a lone surrogate, a bidirectional override) is shown as its escape, in the terminal and on
the page alike, so that no report can be made to say something else than it does.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

__all__ = ["clip", "columns", "duration", "one_line", "plural", "printable", "scalar", "wrap"]


def printable(text: str) -> str:
    r"""The text with every character that cannot be seen as its escape (``\x1b``, ``\ud800``); newlines stay."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n").expandtabs(4)
    return "".join(
        char
        if char == "\n" or char.isprintable()
        else char.encode("unicode_escape", "backslashreplace").decode("ascii")
        for char in text
    )


def scalar(text: str) -> str:
    r"""The text with lone surrogates alone as their escapes, so that it can be encoded as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: str) -> str:
    """The text as one printable line, its white space collapsed."""
    return printable(" ".join(text.split()))


def clip(text: str, limit: int) -> str:
    """The text, or its beginning with the number of characters that were left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}... ({len(text) - limit:,} more characters)"


def columns(text: str) -> int:
    """The number of terminal columns that the text takes: 2 for a wide character, 0 for a combining one."""
    if text.isascii():
        return len(text)
    return sum(_columns_of(char) for char in text)


def _columns_of(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def wrap(text: str, width: int) -> list[str]:
    """The text in lines of at most ``width`` columns; its own newlines are kept. Never empty."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in _pieces(paragraph.split(), width):
            if line and columns(line) + 1 + columns(word) > width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return lines


def _pieces(words: Iterable[str], width: int) -> Iterator[str]:
    """The words, those that are longer than a line cut into pieces."""
    for word in words:
        if columns(word) <= width:
            yield word
            continue
        piece, taken = "", 0
        for char in word:
            size = _columns_of(char)
            if piece and taken + size > width:
                yield piece
                piece, taken = "", 0
            piece, taken = piece + char, taken + size
        yield piece


def plural(number: int, noun: str) -> str:
    """``1 clause``, ``1,200 clauses``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """A time that a person can read: ``0.04 s``, ``12.3 s``, ``2 min 05 s``."""
    if seconds < 0.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
