"""What the plugin does in a run in which the suite takes part: markers, stale lines, and cleaning up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable
from typing import Any

import pytest

from continuum_conformance.conformance.bench import bench_of
from continuum_conformance.conformance.judging import OUTCOME
from continuum_conformance.conformance.nodes import JournalNode
from continuum_conformance.contract.clauses import CHAPTERS, CLAUSES, CONTRACT_VERSION
from continuum_conformance.suite.leaving import leave_in_time, threads_now
from continuum_conformance.suite.testing import SuiteTest

__all__ = ["SuiteRun"]

LEVELS = {"must": "what the journal contract demands", "should": "what it advises"}


class SuiteRun:
    """Registered as a plugin of its own, so that a run without the suite pays nothing."""

    def __init__(self, config: pytest.Config, selected: Iterable[str] = ()) -> None:
        self._config = config
        self._selected = tuple(selected)
        self._is_worker = hasattr(config, "workerinput")
        self._session: pytest.Session | None = None
        self._threads = threads_now()
        self._seen: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        """By adapter and listed clause: how many tests there are, and how many passed."""
        self._broken: set[tuple[str, str]] = set()
        for key, title in CHAPTERS.items():
            config.addinivalue_line("markers", f"{key.lower()}: {title} (journal contract)")
        for level, meaning in LEVELS.items():
            config.addinivalue_line("markers", f"{level}: {meaning}")

    # -- collecting --

    def pytest_report_header(self) -> str | None:
        """What is checked, and with which plan."""
        target = self._config.getoption("journal")
        if not target:
            return None
        plan = bench_of(self._config).plan
        return (
            f"journal: {target}, contract {CONTRACT_VERSION}, profile {plan.profile.name}, seed {plan.seed}"
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Add the suite to what the session collects from files."""
        report = yield
        target = self._config.getoption("journal")
        if target and isinstance(collector, pytest.Session) and report.passed:
            report.result.append(JournalNode.of(collector, target, self._selected))
        return report

    def mark(self, items: Iterable[pytest.Item]) -> None:
        """Give the suite's tests their markers, and make ``-k`` find them by every clause that they check."""
        for item in items:
            test = journal_test(item)
            if test is None:
                continue
            for name in dict.fromkeys(_marks(test)):
                item.add_marker(name)
            item.extra_keyword_matches.update(test.clauses)
            item.user_properties.append(("clauses", ", ".join(test.clauses)))

    # -- running --

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Send along what the test said of the clauses that are expected to fail, and cut the headline."""
        report = yield
        if report.when == "call" and OUTCOME in item.stash:
            vars(report)["journal"] = item.stash[OUTCOME].plain()
        crash = getattr(report.longrepr, "reprcrash", None)
        if crash is not None and journal_test(item) is not None:
            # What the summary, --tb=line and JUnit's message show: the finding's first line.
            crash.message = crash.message.removeprefix("Failed: ").partition("\n")[0]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what was said."""
        said: dict[str, Any] | None = getattr(report, "journal", None)
        if said is None:
            return
        for clause, tests in said["tests"].items():
            count = self._seen[said["label"], clause]
            count[0] = tests
            count[1] += report.outcome == "passed"
        self._broken.update((said["label"], clause) for clause in said["broke"])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Run everything, then close the adapters and report the lines that are stale."""
        try:
            answer = yield
        finally:
            self._close()
        if not self._is_worker and not self._config.option.collectonly:
            self._report_stale()
        return answer

    def _close(self) -> None:
        for problem in bench_of(self._config).close():
            self._warn(f"the adapter was not closed cleanly: {problem}")

    def _warn(self, text: str) -> None:
        self._config.issue_config_time_warning(pytest.PytestWarning(text), stacklevel=2)

    def _report_stale(self) -> None:
        """A line of the expected-failure file whose clause passed is a failed test of its own."""
        for (label, clause), (tests, passed) in self._seen.items():
            if passed >= tests and (label, clause) not in self._broken:
                self._report(label, clause)

    def _report(self, label: str, clause: str) -> None:
        file = self._config.getoption("journal_expected")
        nodeid = f"{label}::expected::{clause}"
        message = (
            f"{clause} is expected to fail ({bench_of(self._config).expected[clause]}), but it passed: "
            f"remove its line from {file}"
        )
        location = (label, None, nodeid)
        log = self._config.hook.pytest_runtest_logreport
        log(report=pytest.TestReport(nodeid, location, {}, "failed", _shown(message), "call"))
        log(report=pytest.TestReport(nodeid, location, {}, "passed", None, "teardown"))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Keep the session, whose exit status others may still change."""
        self._session = session

    def pytest_unconfigure(self) -> None:
        """See to it that a thread that hangs does not keep the process."""
        code = int(self._session.exitstatus) if self._session is not None else 1
        leave_in_time(code, since=self._threads)


def journal_test(item: pytest.Item) -> SuiteTest | None:
    """The test of the suite that an item stands for."""
    of_method = getattr(getattr(item, "function", None), "_journal_test", None)
    test: SuiteTest | None = getattr(item, "journal_test", of_method)
    return test


def _shown(message: str) -> Any:
    """A failure of this text alone, as pytest shows one."""
    try:
        pytest.fail(message, pytrace=False)
    except pytest.fail.Exception as failure:
        return pytest.ExceptionInfo.from_exception(failure).getrepr(style="value")


def _marks(test: SuiteTest) -> Iterable[str]:
    for clause in test.clauses:
        yield CLAUSES[clause].chapter.lower()
        yield CLAUSES[clause].level.lower()
