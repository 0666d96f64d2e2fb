"""The clause registry: complete, in order, well formed, and chosen from as people type."""

import re

import pytest

from continuum_conformance.contract import CLAUSES
from continuum_conformance.contract.capabilities import CAPABILITIES, CORE
from continuum_conformance.contract.clauses import CHAPTERS, clause, in_force, select

NUMBERED = {
    "CAP": 1, "RUN": 8, "APP": 10, "LOD": 5, "FIN": 7, "LEA": 10, "FEN": 8, "SNP": 13, "TRM": 5, "ISO": 3, "ATM": 5,
    "CON": 5, "DUR": 5, "CLK": 2,
}  # fmt: skip


def test_every_number_of_every_chapter_is_there_once():
    for chapter, count in NUMBERED.items():
        ids = [
            entry.id for entry in CLAUSES.values() if entry.chapter == chapter and not entry.id.endswith("s")
        ]
        assert sorted(ids, key=lambda i: int(i.partition("-")[2])) == [
            f"{chapter}-{n}" for n in range(1, count + 1)
        ]
    assert list(CHAPTERS) == list(NUMBERED)


def test_what_should_be_within_a_must_stands_behind_it():
    shoulds = [entry.id for entry in CLAUSES.values() if entry.id.endswith("s")]
    assert shoulds == ["LEA-3s", "TRM-1s", "TRM-3s", "ATM-3s", "ATM-5s"]
    assert all(CLAUSES[i].level == "SHOULD" and CLAUSES[i[:-1]].level == "MUST" for i in shoulds)
    assert [e.id for e in CLAUSES.values() if e.level == "SHOULD" and e.id not in shoulds] == [
        "LOD-5",
        "CON-5",
    ]


@pytest.mark.parametrize("entry", CLAUSES.values(), ids=lambda entry: entry.id)
def test_a_clause_says_one_rule_one_reason_and_one_advice(entry):
    assert re.fullmatch(r"[A-Z]{3}-\d+s?", entry.id)
    assert entry.level in ("MUST", "SHOULD")
    assert entry.capability in (CORE, *CAPABILITIES)
    assert re.fullmatch(r"0\.\d", entry.since)
    for text in (entry.rule, entry.reason, entry.advice):
        assert text[0].isupper() or text.startswith(
            ("load", "get_run", "complete", "suspend", "max", "take", "`")
        )
        assert text.endswith(".")
        assert "  " not in text
        assert "\n" not in text


def test_an_optional_chapter_asks_for_its_capability():
    assert {e.capability for e in CLAUSES.values() if e.chapter == "LEA"} == {"leases"}
    assert {e.id for e in CLAUSES.values() if e.chapter == "FEN" and e.capability == "core"} == {"FEN-8"}
    assert {e.id for e in CLAUSES.values() if e.chapter == "SNP" and e.capability == "core"} == {
        "SNP-1",
        "SNP-11",
    }


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ("APP-2,FIN-1", ["APP-2", "FIN-1"]),
        ("fin-1, app-2 ,", ["APP-2", "FIN-1"]),
        ("trm-1S", ["TRM-1s"]),
        ("LEA-1", ["LEA-1"]),
        ("CLK,clk-2", ["CLK-1", "CLK-2"]),
    ],
)
def test_clauses_are_chosen_by_id_and_chapter_in_the_order_of_the_contract(patterns, chosen):
    assert select(patterns) == chosen


@pytest.mark.parametrize("patterns", ["", " , ", "APP-99", "APP-", "A", "FEN-2 FEN-3"])
def test_what_names_no_clause_is_refused_with_what_would(patterns):
    with pytest.raises(ValueError, match=r"FEN"):
        select(patterns)


def test_a_clause_is_found_by_its_id():
    assert clause("FEN-2").chapter == "FEN"
    with pytest.raises(KeyError, match="APP-99"):
        clause("APP-99")
    assert in_force(clause("APP-1"))
