"""``pytest --journal module:Harness``: the suite as pytest's own nodes, with no file written.

The ids are ``journal::FEN-3::none_on_a_leased_run_is_refused``; they can be given to pytest like any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import pytest

from continuum_conformance.conformance.bench import Stage, bench_of
from continuum_conformance.conformance.judging import judge
from continuum_conformance.contract.targets import TargetError
from continuum_conformance.suite.testing import SuiteTest

__all__ = ["ROOT", "ClauseNode", "JournalNode", "TestNode"]

ROOT = "journal"
"""The first part of every id."""


class JournalNode(pytest.Collector):
    """One adapter under test."""

    @classmethod
    def of(cls, session: pytest.Session, target: str, selected: Iterable[str]) -> Self:
        """The node of a target.

        Args:
            session: pytest's.
            target: what ``--journal`` names.
            selected: ids that were given as arguments; none means everything.
        """
        node: Self = cls.from_parent(session, name=ROOT, nodeid=ROOT)
        node._target = target
        node._selected = tuple(selected)
        return node

    _target = ""
    _selected: tuple[str, ...] = ()

    def collect(self) -> list[ClauseNode]:
        """A node for each clause that has tests."""
        config = self.config
        stage = bench_of(config).stage(self._target, frozenset(_without(config)), ROOT)
        try:
            tests = stage.tests()
        except TargetError as error:
            raise self.CollectError(f"--journal {self._target}: {error}") from None
        by_clause: dict[str, list[SuiteTest]] = {}
        for test in tests:
            by_clause.setdefault(test.clauses[0], []).append(test)
        nodes = [ClauseNode.of(self, clause, stage, members) for clause, members in by_clause.items()]
        known = {
            ROOT,
            *(node.nodeid for node in nodes),
            *(f"{ROOT}::{t.clauses[0]}::{t.name}" for t in tests),
        }
        unknown = [given for given in self._selected if given not in known]
        if unknown:
            raise self.CollectError(
                f"not found: {', '.join(unknown)} (with this adapter and profile; --collect-only lists what there is)"
            )
        return nodes

    def chosen(self, nodeid: str) -> bool:
        """Whether the test of this id was asked for."""
        return not self._selected or any(
            nodeid == given or nodeid.startswith(f"{given}::") for given in self._selected
        )


class ClauseNode(pytest.Collector):
    """One clause with its tests."""

    @classmethod
    def of(cls, parent: JournalNode, clause: str, stage: Stage, tests: list[SuiteTest]) -> Self:
        """The node of a clause."""
        node: Self = cls.from_parent(parent, name=clause)
        node._content = (parent, stage, tests)
        return node

    _content: tuple[JournalNode, Stage, list[SuiteTest]]

    def collect(self) -> list[TestNode]:
        """A node for each test that was asked for."""
        journal, stage, tests = self._content
        nodes = [TestNode.of(self, stage, test) for test in tests]
        return [node for node in nodes if journal.chosen(node.nodeid)]


class TestNode(pytest.Item):
    """One test of the suite."""

    __test__ = False

    @classmethod
    def of(cls, parent: ClauseNode, stage: Stage, test: SuiteTest) -> Self:
        """The node of a test."""
        node: Self = cls.from_parent(parent, name=test.name)
        node.stage = stage
        node.journal_test = test
        return node

    stage: Stage
    journal_test: SuiteTest

    def setup(self) -> None:
        """Open the adapter, if this is its first test."""
        self.stage.open(self)

    def runtest(self) -> None:
        """Run the test."""
        judge(self, self.stage, self.journal_test)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The test stands in no file of the user's; its id is its place."""
        return self.config.rootpath / ROOT, None, self.name


def _without(config: pytest.Config) -> list[str]:
    return [part.strip() for part in (config.getoption("journal_without") or "").split(",") if part.strip()]
