"""The adapters under test in one pytest process: opened once, shared by their tests, closed at the end."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from continuum_conformance.contract.targets import TargetError
from continuum_conformance.harness import HarnessError, Subject
from continuum_conformance.harness.subject import CALL_LIMIT
from continuum_conformance.postgres import PostgresUnavailable, mask
from continuum_conformance.suite.check import Plan, PreflightFailure, preflight, tests_for
from continuum_conformance.suite.expected import ExpectedFileError, read_expected
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.stores import Stores
from continuum_conformance.suite.testing import PROFILES, SuiteTest

__all__ = ["Bench", "Stage", "bench_of"]

_NO_LIMIT = 86_400.0

_DIAGNOSES = (TargetError, PostgresUnavailable, PreflightFailure, HarnessError)
"""What can keep an adapter from being tested at all."""


class Stage:
    """One adapter under test: loaded at once, opened at its first test."""

    def __init__(
        self, harness: Any, without: frozenset[str], label: str, plan: Plan, stores: Stores, limit: float
    ) -> None:
        self.label = label
        self.plan = plan
        self.told: set[tuple[str, ...]] = set()
        """The findings that were told in full so far."""
        self._harness, self._without, self._stores, self._limit = harness, without, stores, limit
        self._subject: Subject | None = None
        self._session: Session | None = None
        self._trouble: tuple[str, str] | None = None
        """What keeps the adapter from being tested, and the test under which it was told."""

    @property
    def subject(self) -> Subject:
        """The adapter. Raises `TargetError` when it cannot be loaded."""
        if self._subject is None:
            if self._harness is None:
                raise TargetError(f"{self.label} has no harness: set `harness = MyHarness` in the class")
            self._subject = Subject(self._harness, limit=self._limit, without=self._without)
        return self._subject

    @property
    def session(self) -> Session:
        """The opened adapter. Open it first."""
        if self._session is None:
            raise LookupError(f"{self.label} is not open")
        return self._session

    def tests(self) -> list[SuiteTest]:
        """The suite's tests for this adapter and profile. Raises `TargetError`."""
        return tests_for(self.subject.capabilities, self.plan)

    def open(self, item: pytest.Item) -> None:
        """Open and preflight the adapter, once. Its first test tells what is wrong, the others are skipped."""
        if self._trouble is not None:
            why, where = self._trouble
            pytest.skip(f"{why} (told in full at {where})")
        if self._session is not None:
            return
        try:
            self._stores.provide(self.subject)
            session = Session(self.subject)
            preflight(session)
        except _DIAGNOSES as error:
            diagnosis = error
        else:
            self._session = session
            return
        message, detail = mask(str(diagnosis)), mask(str(getattr(diagnosis, "detail", "") or ""))
        self._trouble = (f"the adapter cannot be tested: {message.splitlines()[0]}", item.nodeid)
        text = f"the adapter cannot be tested: {message}"
        pytest.fail(f"{text}\n\n{detail}" if detail else text, pytrace=False)

    def close(self) -> None:
        """Close the adapter's handles. Raises `HarnessError` when its ``close`` fails."""
        session, self._session = self._session, None
        if session is not None:
            session.close_all()


class Bench:
    """All stages of this process, and the options that they share."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._stages: dict[tuple[int, frozenset[str], str], Stage] = {}
        self._kept: list[Any] = []  # the harnesses, so that their ids stay theirs
        self.stores = Stores(
            config.getoption("journal_postgres"),
            dsn=config.getoption("journal_dsn"),
            use_database=config.getoption("journal_use_database"),
        )
        self.expected = _expected(config)
        self.plan = Plan(profile=PROFILES[_profile(config)], seed=_seed(config), expected=self.expected)

    def stage(self, harness: Any, without: frozenset[str], label: str) -> Stage:
        """The stage of a harness; the same for all classes that name the same harness."""
        # A class without a harness is told under its own name.
        key = (id(harness), without, label if harness is None else "")
        if key not in self._stages:
            self._kept.append(harness)
            self._stages[key] = Stage(harness, without, label, self.plan, self.stores, self._limit)
        return self._stages[key]

    @property
    def _limit(self) -> float:
        seconds = self._config.getoption("journal_timeout")
        if self._config.getoption("usepdb", False) or self._config.getoption("trace", False):
            return _NO_LIMIT  # who stops in a debugger is not hung
        return CALL_LIMIT if seconds is None else float(seconds) or _NO_LIMIT

    def close(self) -> list[str]:
        """Close all adapters and stores, and tell what went wrong with that."""
        problems = []
        for stage in self._stages.values():
            try:
                stage.close()
            except HarnessError as error:
                problems.append(f"{stage.label}: {error}")
        try:
            self.stores.close()
        except PostgresUnavailable as error:
            problems.append(str(error))
        return problems


_BENCH = pytest.StashKey[Bench]()


def bench_of(config: pytest.Config) -> Bench:
    """The bench of this pytest process, set up at its first use."""
    if _BENCH not in config.stash:
        config.stash[_BENCH] = Bench(config)
    return config.stash[_BENCH]


def _profile(config: pytest.Config) -> str:
    given = config.getoption("journal_profile")
    hypothesis = config.getoption("hypothesis_profile", None)
    return str(given or (hypothesis if hypothesis in PROFILES else "standard"))


def _seed(config: pytest.Config) -> int:
    given = config.getoption("hypothesis_seed", None)
    if given is None:
        return 0
    try:
        return int(given)
    except ValueError:
        return zlib.crc32(str(given).encode())  # Hypothesis takes any text as a seed


def _expected(config: pytest.Config) -> dict[str, str]:
    file = config.getoption("journal_expected")
    if not file:
        return {}
    try:
        return read_expected(config.invocation_params.dir / file)
    except ExpectedFileError as error:
        raise pytest.UsageError(f"--journal-expected: {error}") from None
