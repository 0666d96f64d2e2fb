"""Python code in coloured pieces: enough of a lexer for a counterexample, and for a call in a timeline."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator

__all__ = ["pieces"]

_TOKEN = re.compile(
    r"""
    (?P<comment>\#[^\n]*)
  | (?P<string>[rbfuRBFU]{0,2}(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"))
  | (?P<number>\b\d[\w.]*)
  | (?P<call>\b[A-Za-z_]\w*(?=\())
  | (?P<name>\b[A-Za-z_]\w*)
    """,
    re.VERBOSE,
)
_KEYWORDS = frozenset(keyword.kwlist)


def pieces(code: str) -> Iterator[tuple[str, str]]:
    """The code as (kind, text), where kind is ``comment``, ``string``, ``number``, ``keyword``, ``call`` or empty.

    The texts joined are the code, whatever it is: what the lexer does not know stays as it stands.
    """
    end = 0
    for match in _TOKEN.finditer(code):
        if match.start() > end:
            yield "", code[end : match.start()]
        kind, text = match.lastgroup or "", match.group()
        if text in _KEYWORDS:
            kind = "keyword"
        yield "" if kind == "name" else kind, text
        end = match.end()
    if end < len(code):
        yield "", code[end:]
