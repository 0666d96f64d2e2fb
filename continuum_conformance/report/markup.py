"""Text as HTML. Everything that the page shows goes through here, so nothing of an adapter's is ever markup."""

from __future__ import annotations

import html
import re
from urllib.parse import quote

from continuum_conformance.report.highlight import pieces
from continuum_conformance.report.text import clip, printable

__all__ = ["anchor", "code", "contract_text", "href", "prose", "prose_lines"]

_LONGEST_PROSE = 4_000
_LONGEST_CODE = 100_000


def prose(text: object) -> str:
    """The text, escaped for content and for quoted attributes; what cannot be seen is shown as an escape."""
    return html.escape(printable(clip(str(text), _LONGEST_PROSE)))


def prose_lines(text: str) -> str:
    """A text of many lines, escaped."""
    return html.escape(printable(clip(text.strip("\n"), _LONGEST_CODE)))


def contract_text(text: str) -> str:
    """A sentence of the contract, where backticks mark code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", prose(text))


def code(source: str) -> str:
    """Python code with its words in classes."""
    source = printable(clip(source.strip("\n"), _LONGEST_CODE))
    return "".join(
        f'<span class="{kind}">{html.escape(text)}</span>' if kind else html.escape(text)
        for kind, text in pieces(source)
    )


def anchor(name: str) -> str:
    """The name as an element's id."""
    return quote(name, safe="", errors="backslashreplace")


def href(name: str) -> str:
    """The link to the element with that id."""
    return "#" + quote(anchor(name), safe="")
