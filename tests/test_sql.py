"""SQL as text: nothing within a string, a name or a comment is taken for more than that."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continuum_conformance.postgres.sql import brief, inlined, literal, statement_words, tokens, without

PIECES = st.sampled_from(
    [
        "'",
        '"',
        "$$",
        "$a$",
        "$1",
        "E'",
        "U&'",
        "--",
        "/*",
        "*/",
        "\n",
        " ",
        ";",
        "\\",
        "}",
        "a",
        "select",
        "1",
        "é",
    ]
)


@settings(max_examples=300)
@given(st.lists(PIECES).map("".join))
def test_the_tokens_joined_are_the_sql(sql: str) -> None:
    assert "".join(token.text for token in tokens(sql)) == sql


@settings(max_examples=300)
@given(st.lists(PIECES).map("".join))
def test_a_character_that_is_taken_out_of_strings_names_and_comments_is_only_left_elsewhere(sql: str) -> None:
    left = [token for token in tokens(without(sql, "}")) if "}" in token.text]
    assert {token.kind for token in left} <= {"other"}


@pytest.mark.parametrize(
    ("sql", "written"),
    [
        ("SELECT '{}'", r"SELECT E'{\x7d'"),
        (r"SELECT '\}'", r"SELECT E'\\\x7d'"),
        (r"SELECT E'\\} \}'", r"SELECT E'\\\x7d \x7d'"),
        ("SELECT U&'}'", r"SELECT U&'\007D'"),
        ("SELECT $x$it's \\ {}$x$", r"SELECT E'it''s \\ {\x7d'"),
        ('SELECT "a}b"', r'SELECT U&"a\007Db"'),
        ("SELECT 1 -- {}", "SELECT 1 -- {"),
        ("SELECT '}'', }'", r"SELECT E'\x7d'', \x7d'"),
        ("SELECT 1", "SELECT 1"),
    ],
)
def test_how_a_closing_brace_is_taken_out(sql: str, written: str) -> None:
    assert without(sql, "}") == written


def test_values_take_the_place_of_parameters_alone() -> None:
    sql = "SELECT $1, '$2', $$ $1 $$, $2::text, a$1, $3[1] -- $1\n, /* $1 /* */ $2 */ $11"
    assert inlined(sql, [f"'v{number}'::int" for number in range(1, 12)]) == (
        "SELECT 'v1'::int, '$2', $$ $1 $$, 'v2'::int::text, a$1, ('v3'::int)[1] -- $1\n, /* $1 /* */ $2 */ 'v11'::int"
    )


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(IndexError):
        inlined("SELECT $2", ["1"])


@pytest.mark.parametrize(
    ("text", "written"),
    [("it's", "'it''s'"), ("a\\b'", r"E'a\\b'''"), ("", "''"), ("$1 -- ; }", "'$1 -- ; }'")],
)
def test_a_literal_is_the_text(text: str, written: str) -> None:
    assert literal(text) == written


def test_words_are_those_of_each_statement() -> None:
    sql = "SELECT 'from x' -- from y\n FROM \"T\"; ; UPDATE t"
    assert list(statement_words(sql)) == [["select", "from", '"t"'], [], ["update", "t"]]


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT state, token FROM run WHERE a = $1 AND b = $2 FOR UPDATE", "SELECT … FROM run … FOR UPDATE"),
        ("SELECT count(*) FROM j.event", "SELECT … FROM j.event"),
        ("UPDATE run SET a = $1", "UPDATE run …"),
        ("INSERT INTO event VALUES ($1, $2)", "INSERT INTO event VALUES …"),
        (
            "WITH h AS (UPDATE run SET x = 1 RETURNING id) INSERT INTO e SELECT 1 FROM h ON CONFLICT (a) DO NOTHING",
            "WITH … UPDATE run … INSERT INTO e SELECT … FROM h ON CONFLICT … DO NOTHING",
        ),
        (
            "select * from (select 1 from x for no key update skip locked) q",
            "SELECT … SELECT … FROM x FOR NO KEY UPDATE SKIP LOCKED …",
        ),
        ("SELECT pg_advisory_xact_lock(\n  hashtext($1))", "SELECT pg_advisory_xact_lock( hashtext($1))"),
        ("LOCK TABLE run IN EXCLUSIVE MODE", "LOCK TABLE run IN EXCLUSIVE MODE"),
        ("-- why\nCOMMIT;", "COMMIT"),
        ("BEGIN; SELECT 1 FROM t", "BEGIN; SELECT … FROM t"),
        ("", ""),
    ],
)
def test_a_statement_in_a_few_words(sql: str, told: str) -> None:
    assert brief(sql) == told
