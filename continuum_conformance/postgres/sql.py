"""SQL as text: its tokens, and what can be said of a statement, or done with it, without understanding it.

The server is the one who understands SQL. Here a statement is cut into tokens, so that nothing within a string or
a comment is taken for more than that; its bound values are put in place of ``$1``; and it is told in a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

__all__ = [
    "Token",
    "brief",
    "inlined",
    "literal",
    "name",
    "statement_words",
    "statements",
    "tokens",
    "without",
]

_TOKEN = re.compile(
    r"""(?sx)
      (?P<space> \s+ )
    | (?P<comment> --[^\n]* | /\* )
    | (?P<escaped> [eE]'(?: [^'\\] | \\. | '' )*' )
    | (?P<string> (?: [uU]& | [bBxXnN] )? '(?: [^'] | '' )*' )
    | (?P<dollar> (?P<tag> \$ (?: [^\W\d]\w* )? \$ ) .*? (?P=tag) )
    | (?P<quoted> (?: [uU]& )? "(?: [^"] | "" )*" )
    | (?P<word> [^\W\d][\w$]* )
    | (?P<parameter> \$\d+ )
    | (?P<end> ; )
    | (?P<other> . )
    """
)
_KINDS = ("space", "comment", "escaped", "string", "dollar", "quoted", "word", "parameter", "end", "other")
_COMMENT = re.compile(r"/\*|\*/")


class Token(NamedTuple):
    """A piece of SQL.

    Attributes:
        kind: ``space``, ``comment``, ``escaped`` (a string with escapes), ``string``, ``dollar``, ``quoted`` (a name),
            ``word``, ``parameter``, ``end`` (a semicolon) or ``other``.
        text: as it stands.
    """

    kind: str
    text: str


def tokens(sql: str) -> Iterator[Token]:
    """The tokens of some SQL; their texts joined are the SQL, whatever it is."""
    place = 0
    while place < len(sql):
        found = _TOKEN.match(sql, place)
        if found is None:  # not reached: the last alternative takes any character
            return
        end = _after_comment(sql, found.end()) if found["comment"] == "/*" else found.end()
        kind = next(kind for kind in _KINDS if found[kind] is not None)
        yield Token(kind, sql[place:end])
        place = end


def _after_comment(sql: str, place: int) -> int:
    """Where a comment that began before ``place`` ends; they nest."""
    depth = 1
    for mark in _COMMENT.finditer(sql, place):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return len(sql)


def statement_words(sql: str) -> Iterable[list[str]]:
    """The words of each statement, in lower case; strings, comments and empty statements have none."""
    found: list[str] = []
    for token in tokens(sql):
        if token.kind in ("word", "quoted"):
            found.append(token.text.lower())
        elif token.kind == "end":
            yield found
            found = []
    yield found


# -- writing --


def literal(text: str) -> str:
    r"""A text as a literal; one with backslashes is an escape string, which means the same under every setting."""
    quoted = text.replace("'", "''")
    return "E'" + quoted.replace("\\", "\\\\") + "'" if "\\" in text else f"'{quoted}'"


def name(text: str) -> str:
    """A name, quoted."""
    return '"' + text.replace('"', '""') + '"'


def inlined(sql: str, values: Sequence[str]) -> str:
    """A statement with these literals in the place of its parameters. Raises ``IndexError`` for one that is missing."""
    parts: list[str] = []
    pieces = list(tokens(sql))
    for place, token in enumerate(pieces):
        if token.kind != "parameter":
            parts.append(token.text)
            continue
        value = values[int(token.text[1:]) - 1] if int(token.text[1:]) else token.text
        # What may follow a parameter may not follow a cast.
        follows = next((t.text for t in pieces[place + 1 :] if t.kind not in ("space", "comment")), "")
        parts.append(f"({value})" if follows in ("[", ".") and "::" in value else value)
    return "".join(parts)


def without(sql: str, char: str) -> str:
    """A statement that means the same and does not have this character, one that only strings and names can hold.

    A string becomes an escape string, a name one with Unicode escapes; in comments the character is left out.
    """
    if char not in sql:
        return sql
    return "".join(
        _WITHOUT.get(t.kind, _as_it_is)(t.text, char) if char in t.text else t.text for t in tokens(sql)
    )


def _as_it_is(text: str, char: str) -> str:  # noqa: ARG001
    return text


def _hexadecimal(char: str) -> str:
    return f"\\x{ord(char):02x}"


def _string_without(text: str, char: str) -> str:
    if text[:1] != "'":
        return text.replace(char, f"\\{ord(char):04X}") if text[:1] in "uU" else text
    return "E" + text.replace("\\", "\\\\").replace(char, _hexadecimal(char))


def _escaped_without(text: str, char: str) -> str:
    # Two characters at a time where there is a backslash, so that an escaped backslash escapes nothing.
    found = re.compile(r"(?s)\\.|" + re.escape(char))
    return found.sub(lambda piece: _hexadecimal(char) if piece[0][-1] == char else piece[0], text)


def _dollar_without(text: str, char: str) -> str:
    tag = text[: text.index("$", 1) + 1]
    body = text[len(tag) : -len(tag)]
    return "E'" + body.replace("\\", "\\\\").replace("'", "''").replace(char, _hexadecimal(char)) + "'"


def _name_without(text: str, char: str) -> str:
    if text[:1] == '"':
        text = "U&" + text.replace("\\", "\\\\")
    return text.replace(char, f"\\{ord(char):04X}")


_WITHOUT: dict[str, Callable[[str, str], str]] = {
    "comment": lambda text, char: text.replace(char, ""),
    "escaped": _escaped_without,
    "string": _string_without,
    "dollar": _dollar_without,
    "quoted": _name_without,
}


# -- a statement in a line --

_NAME = "NAME"
_PHRASES = tuple(
    tuple(phrase.split())
    for phrase in (
        *("SELECT", "WITH", "VALUES", "INSERT INTO NAME", "DELETE FROM NAME", "MERGE INTO NAME"),
        *("FOR NO KEY UPDATE", "FOR KEY SHARE", "FOR UPDATE", "FOR SHARE", "NOWAIT", "SKIP LOCKED"),
        *("ON CONFLICT", "DO NOTHING", "DO UPDATE", "UPDATE NAME", "FROM NAME", "JOIN NAME"),
    )
)
"""What is kept of a query or a change of rows, by upper case words; the first that fits."""


def brief(sql: str) -> str:
    """A statement in a few words: what it does to which tables, and which locks it asks for.

    ``SELECT … FROM run … FOR UPDATE``, ``INSERT INTO event …``. What names no table in such a phrase stays as it
    stands, on one line.
    """
    return "; ".join(map(_brief, statements(sql)))


def statements(sql: str) -> Iterator[str]:
    """The statements in some SQL, without the semicolons between them."""
    parts: list[str] = []
    for token in (*tokens(sql), Token("end", ";")):
        if token.kind != "end":
            parts.append(token.text)
        else:
            statement = "".join(parts).strip()
            if statement:
                yield statement
            parts.clear()


def _brief(sql: str) -> str:
    pieces = [token for token in tokens(sql) if token.kind not in ("space", "comment")]
    told: list[str] = []
    tables = place = 0
    while place < len(pieces):
        found = next(filter(None, (_phrase(pieces, place, phrase) for phrase in _PHRASES)), None)
        if found is not None:
            told.append(found[0])
            place += found[1]
            tables += found[2]
        else:
            if told[-1:] != ["…"]:
                told.append("…")
            place += 1
    return " ".join(told) if tables and told[0] != "…" else _one_line(sql)


def _one_line(sql: str) -> str:
    plain = "".join(token.text if token.kind != "comment" else " " for token in tokens(sql))
    return " ".join(plain.split())


def _phrase(pieces: Sequence[Token], place: int, phrase: Sequence[str]) -> tuple[str, int, int] | None:
    """Whether a phrase stands here: as text, with the number of its tokens and of the names in it."""
    parts: list[str] = []
    at, names = place, 0
    for word in phrase:
        length = 1
        if word == _NAME:
            length, names = _name_length(pieces, at), names + 1
        elif at >= len(pieces) or pieces[at].text.upper() != word:
            return None
        if not length:
            return None
        parts.append(word if word != _NAME else "".join(t.text for t in pieces[at : at + length]))
        at += length
    return " ".join(parts), at - place, names


def _name_length(pieces: Sequence[Token], place: int) -> int:
    """How many tokens the name takes that stands here, with its schema; 0 where there is none."""
    taken = 0
    while place + taken < len(pieces) and pieces[place + taken].kind in ("word", "quoted"):
        if pieces[place + taken + 1 : place + taken + 2] != [Token("other", ".")]:
            return taken + 1
        taken += 2
    return 0
