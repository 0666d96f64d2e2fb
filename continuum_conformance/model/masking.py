"""Masking passwords in what is told of an adapter."""

from __future__ import annotations

import re

__all__ = ["mask"]

_PASSWORD_IN_URI = re.compile(
    r"""(?ix) ( [a-z][a-z0-9+.-]*:// [^\s:/@?\#]* : )
        (?: \S*@              # up to the last @ of the word: a raw one may stand within the password
          | [^@/\n]*@ )       # a raw blank within the password
    """
)
_PASSWORD_IN_QUERY = re.compile(r"(?i)([?&]\w*password=)[^&\s]*")
_PASSWORD_IN_PAIR = re.compile(
    r"""(?ix) ( (?<![?&\w]) \w*password \s* = \s* )
        (?: '(?: \\. | [^'\\] )*'?  |  (?: \\. | [^\s\\] )+ )
    """
)


def mask(dsn_or_text: str) -> str:
    """Replace every password in a text by `***`: in URIs, their queries, and key=value pairs.

    Where a password is written against the rules (a raw `@` or blank in it), rather too much is masked than
    too little. Masking twice changes nothing.
    """
    if "://" not in dsn_or_text and "password" not in dsn_or_text.lower():
        return dsn_or_text
    text = _PASSWORD_IN_URI.sub(r"\1***@", dsn_or_text)
    text = _PASSWORD_IN_QUERY.sub(r"\1***", text)
    return _PASSWORD_IN_PAIR.sub(r"\1***", text)
