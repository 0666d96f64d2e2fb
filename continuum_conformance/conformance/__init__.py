"""The suite as a test class of pytest::

    from continuum_conformance import JournalConformance

    class TestMine(JournalConformance):
        harness = MyHarness

Each test of the suite is one method, named after the clause that it checks: ``test_FEN_3_...``. Those of
capabilities that the adapter does not declare are skipped, with the reason.

``bench.py`` holds the adapters under test and their stores, ``judging.py`` turns what the suite found into what
pytest tells, ``nodes.py`` is the same suite without a class (``pytest --journal``), and ``run.py`` is what the
plugin does besides.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from types import CodeType, FunctionType
from typing import Any, ClassVar

import pytest

from continuum_conformance.conformance.bench import Stage, bench_of
from continuum_conformance.conformance.judging import judge, require_applicable
from continuum_conformance.contract.clauses import CLAUSES, in_force
from continuum_conformance.suite.testing import SuiteTest, registered

__all__ = ["JournalConformance"]


class JournalConformance:
    """The whole suite, as the base of a test class that names a harness.

    A subclass is collected when it has a harness, or is called ``Test...``. A method that a subclass defines, or
    sets to None, stands in the place of the suite's.
    """

    harness: ClassVar[Any] = None
    """A harness class, factory or instance, or a target as a string."""

    without: ClassVar[Collection[str]] = ()
    """Declared capabilities that are withdrawn, as in ``{"crash_safe"}``."""

    __test__ = False

    @pytest.fixture(autouse=True)
    def _journal(self, request: pytest.FixtureRequest) -> None:
        """The adapter, opened and preflighted once for all tests of its harness."""
        cls = type(self)
        stage = bench_of(request.config).stage(cls.harness, frozenset(cls.without), _label(cls))
        test: SuiteTest | None = getattr(request.function, "_journal_test", None)
        if test is not None:
            stage.open(request.node)
            require_applicable(test, stage)
        self._stage: Stage = stage

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "__test__" not in vars(cls):
            cls.__test__ = cls.harness is not None or cls.__name__.startswith("Test")
        place = _place(sys._getframe(1).f_code.co_filename, sys._getframe(1).f_lineno)
        for test in registered():
            if not any(in_force(CLAUSES[clause]) for clause in test.clauses):
                continue
            name = method_name(test)
            if hasattr(getattr(cls, name, None), "_journal_test") or not hasattr(cls, name):
                setattr(cls, name, _method(test, name, cls, place))


def method_name(test: SuiteTest) -> str:
    """``test_FEN_3_none_on_a_leased_run_is_refused``."""
    return f"test_{test.clauses[0].replace('-', '_')}_{test.name}"


def _label(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _method(test: SuiteTest, name: str, cls: type, place: Callable[[], None]) -> Callable[..., None]:
    def method(self: JournalConformance, request: pytest.FixtureRequest) -> None:
        judge(request.node, self._stage, test)

    method.__name__ = name
    method.__qualname__ = f"{cls.__qualname__}.{name}"
    method.__module__ = cls.__module__
    method.__doc__ = "\n\n".join(f"{clause}: {CLAUSES[clause].rule}" for clause in test.clauses)
    vars(method).update(_journal_test=test, place_as=place)  # pytest shows place_as as the test's location
    return method


def _place(file: str, line: int) -> Callable[[], None]:
    """A function that claims to stand where the subclass does: what a failure of its methods points at."""

    def nowhere() -> None:
        """Do nothing."""

    code: CodeType = nowhere.__code__.replace(co_filename=file, co_firstlineno=line)
    return FunctionType(code, {})
