"""Every command line that we hand to others is one that the command takes: templates, guide, and contract page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from continuum_conformance.cli.arguments import parser
from continuum_conformance.cli.markdown import contract_page
from continuum_conformance.contract.clauses import CLAUSES
from continuum_conformance.contract.measured import MEASURED

ROOT = Path(__file__).parents[1]
TEMPLATES = sorted((ROOT / "ci" / "templates").glob("*.yml"))
PAGES = [ROOT / "docs" / "guide.md", ROOT / "docs" / "bench.md"]


def command_lines(text: str) -> Iterator[list[str]]:
    """The arguments of each ``continuum-conformance`` call; a folded YAML string is one call."""
    lines = [re.sub(r"^(\s*)# ", r"\1", line) for line in text.splitlines()]
    for number, line in enumerate(lines):
        found = re.search(r"^\s*(?:-\s+|\$\s+)?(?:run:\s+)?continuum-conformance\s+(.*)", line)
        if found is None:
            continue
        call = found[1]
        for more in lines[number + 1 :]:
            if not more.strip().startswith("--"):
                break
            call += f" {more.strip()}"
        yield [re.sub(r"^\$\w+$", "7", word) for word in shlex.split(call)]


@pytest.mark.parametrize("file", [*TEMPLATES, *PAGES], ids=lambda file: file.name)
def test_the_command_takes_every_line(file: Path) -> None:
    calls = list(command_lines(file.read_text("utf-8")))
    assert calls, "no command line was found"
    for call in calls:
        assert parser().parse_args(call).command == call[0]


def test_folded_and_commented_lines_are_read_whole() -> None:
    text = "- run: >-\n    continuum-conformance check X\n    --only FEN\n    --first\n# - run: continuum-conformance check Y --seed $N"
    assert list(command_lines(text)) == [
        ["check", "X", "--only", "FEN", "--first"],
        ["check", "Y", "--seed", "7"],
    ]


def test_an_unknown_option_in_a_template_would_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    (call,) = command_lines("run: continuum-conformance check X --fastest")
    with pytest.raises(SystemExit):
        parser().parse_args(call)
    assert "--fastest" in capsys.readouterr().err


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
def test_a_template_says_what_to_put_in(file: Path) -> None:
    text = file.read_text("utf-8")
    assert "my_package.testing:MyHarness" in text
    assert "\t" not in text


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
def test_a_template_is_yaml(file: Path) -> None:
    yaml = pytest.importorskip("yaml")
    assert isinstance(yaml.safe_load(file.read_text("utf-8")), dict)


def test_the_contract_page_is_fresh() -> None:
    written = (ROOT / "docs" / "contract.md").read_text("utf-8")
    assert written == contract_page([*CLAUSES.values(), *MEASURED.values()]), (
        "docs/contract.md is stale: continuum-conformance clauses --markdown > docs/contract.md"
    )
