"""The pytest plugin: ``pytest --journal module:Harness``, and what `JournalConformance` needs.

It is loaded into every pytest run of everyone who has the package installed. So this file imports nothing of
the kit; a run in which the suite takes no part pays for a few options and a look at ``sys.modules``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from continuum_conformance.conformance.run import SuiteRun

_RUN = "continuum-conformance-run"
_ROOT = "journal"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("journal", "conformance of journal adapters (continuum-conformance)")
    group.addoption(
        "--journal",
        metavar="TARGET",
        help="check this adapter: module:Harness, or an installed adapter's name; without paths nothing else is collected",
    )
    group.addoption(
        "--journal-exec",
        metavar="COMMAND",
        help="check this program instead: one in any language that speaks the bridge's protocol, as in 'node bridge.mjs'",
    )
    group.addoption(
        "--journal-profile",
        choices=("quick", "standard", "thorough"),
        help="how much is tried (default: standard)",
    )
    group.addoption(
        "--journal-expected",
        metavar="FILE",
        help="known failures, a clause and a reason per line: they xfail, and a line that passes fails the run",
    )
    group.addoption(
        "--journal-without", metavar="CAPABILITY[,..]", help="withdraw declared capabilities from --journal"
    )
    group.addoption(
        "--journal-postgres",
        choices=("auto", "embedded", "local", "container"),
        default="auto",
        help="which PostgreSQL, for adapters that need one (default: auto)",
    )
    group.addoption("--journal-dsn", metavar="DSN", help="a PostgreSQL of yours (or CONTINUUM_DSN)")
    group.addoption(
        "--journal-use-database",
        action="store_true",
        help="use the DSN's database as it is, rather than one of the kit's own",
    )
    group.addoption(
        "--journal-timeout",
        type=float,
        metavar="SECONDS",
        help="how long a call may take before it counts as hung (default: 10; 0, --pdb and --trace: for ever)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Join in when an adapter is named."""
    if config.getoption("hypothesis_profile", None) in ("quick", "standard", "thorough"):
        _register_hypothesis_profiles()
    command = config.getoption("journal_exec")
    if command:
        if config.getoption("journal"):
            raise pytest.UsageError("--journal and --journal-exec both name an adapter; give one of them")
        config.option.journal = f"exec:{command}"
    if config.getoption("journal"):
        _join(config, _take_ids(config))
    elif config.getoption("journal_expected"):
        _join(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the suite's tests, before pytest chooses by marker and keyword."""
    if "continuum_conformance.conformance" in sys.modules:
        _join(config).mark(items)


def _join(config: pytest.Config, selected: tuple[str, ...] = ()) -> SuiteRun:
    from continuum_conformance.conformance.run import SuiteRun

    run: SuiteRun | None = config.pluginmanager.get_plugin(_RUN)
    if run is None:
        run = SuiteRun(config, selected)
        config.pluginmanager.register(run, _RUN)
    return run


def _take_ids(config: pytest.Config) -> tuple[str, ...]:
    """Take the ids of ``--journal`` tests out of the arguments, where pytest would look for files.

    Without any path on the command line nothing else is collected.
    """
    ids: list[str] = []
    others: list[str] = []
    root = config.rootpath / _ROOT  # below a sub-folder pytest shows the ids as ../journal::FEN-3
    for argument in config.args:
        first, _, rest = argument.partition("::")
        named = first == _ROOT or Path(os.path.normpath(config.invocation_params.dir / first)) == root
        if named and not Path(config.invocation_params.dir, first).exists():
            ids.append(f"{_ROOT}::{rest}" if rest else _ROOT)
        else:
            others.append(argument)
    given = config.args_source is pytest.Config.ArgsSource.ARGS
    config.args[:] = others if given else []
    return tuple(ids)


def _register_hypothesis_profiles() -> None:
    """Make ``--hypothesis-profile=thorough`` a profile that Hypothesis's own plugin can load."""
    from hypothesis import settings

    from continuum_conformance.suite.testing import PROFILES

    for name, profile in PROFILES.items():
        settings.register_profile(name, max_examples=max(profile.examples, 1))
