"""Naming an adapter: every form that a target may take, and messages that say what was wrong and what to do."""

import importlib.metadata
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from continuum_adapters.in_memory import InMemoryHarness, InMemoryJournal

from continuum_conformance.contract import Instance, TargetError, default, targets
from continuum_conformance.contract.targets import (
    JournalHarness,
    configuration,
    entry_points,
    harness_of,
    needs_of,
)

MODULE = """
    from continuum_adapters.in_memory import InMemoryHarness, InMemoryJournal

    class MyHarness(InMemoryHarness):
        class Inner(InMemoryHarness):
            pass

    class NeedsArguments(InMemoryHarness):
        def __init__(self, dsn):
            pass

    class JournalOfArguments(InMemoryJournal):
        def __init__(self, dsn):
            pass

    class Quiet(InMemoryJournal):
        capabilities = frozenset()

    class NoHarness:
        pass

    def factory():
        return MyHarness()

    def journal_factory():
        return InMemoryJournal()

    def failing_factory():
        raise RuntimeError("the database is down")

    def exiting_factory():
        raise SystemExit(3)

    async def async_factory():
        return MyHarness()

    def odd_factory():
        return 5

    instance = MyHarness()
    journal = InMemoryJournal()
    number = 5

    class Raising:
        @property
        def harness(self):
            raise RuntimeError("not yet")

    raising = Raising()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A current directory of our own with modules in it; nothing of it stays imported."""
    for name, text in {
        "mine.py": MODULE,
        "needs_more.py": "import a_module_that_is_missing\n",
        "broken.py": "def (:\n",
        "raises.py": "raise RuntimeError('no licence')\n",
        "exits.py": "import sys\nsys.exit(7)\n",
        "package/__init__.py": "",
        "package/adapter.py": MODULE,
    }.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("CONTINUUM_JOURNAL", "CONTINUUM_DSN", "CONTINUUM_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    points = [
        importlib.metadata.EntryPoint(name, value, targets.GROUP)
        for name, value in {
            "in_memory": "continuum_adapters.in_memory:InMemoryHarness",
            "sqlite": "continuum_adapters.sqlite:SQLiteHarness",
            "postgres": "continuum_adapters.postgres:PostgresHarness",
            "stale": "mine:Gone",
            "bad": "raises:Harness",
        }.items()
    ]
    monkeypatch.setattr(
        targets,
        "importlib",
        SimpleNamespace(
            import_module=importlib.import_module, metadata=SimpleNamespace(entry_points=lambda group: points)
        ),
    )
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    "target",
    [
        "mine:MyHarness",
        "mine:MyHarness.Inner",
        "mine:factory",
        "mine:journal_factory",
        "mine:instance",
        "mine:journal",
        "package.adapter:MyHarness",
        "continuum_adapters.in_memory:InMemoryJournal",
        "in_memory",
    ],
)
def test_a_target_gives_a_harness_that_opens_a_journal(target):
    journal = harness_of(target).open()
    journal.start_run(Instance("shop"), "r", "checkout", 1)
    assert journal.get_run(Instance("shop"), "r").input == 1


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("postgre", "'postgre' is no installed adapter (bad, in_memory, postgres, sqlite, stale)"),
        ("mine.MyHarness", "write module:Name"),
        ("", "write module:Name"),
        (":MyHarness", "':MyHarness' is no target; write module:Name"),
        ("mine:", "'mine:' is no target; write module:Name"),
        ("missing:MyHarness", "there is no module 'missing' (looked in the current directory"),
        ("package.missing:MyHarness", "there is no module 'package.missing'"),
        ("mine.inner:MyHarness", "there is no module 'mine.inner'"),
        ("package/adapter.py:MyHarness", "as in package.adapter:MyHarness"),
        ("./mine.py:MyHarness", "as in mine:MyHarness"),
        ("mine.py:MyHarness", "as in mine:MyHarness"),
        ("needs_more:Harness", "cannot be imported: No module named 'a_module_that_is_missing'"),
        ("broken:Harness", "the module 'broken' cannot be imported: SyntaxError"),
        ("raises:Harness", "cannot be imported: RuntimeError: no licence"),
        ("exits:Harness", "the module 'exits' cannot be imported: SystemExit: 7"),
        (".mine:Harness", "cannot be imported: TypeError"),
        ("mine:Missing", "the module 'mine' has no 'Missing'; it has "),
        ("mine:MyHarness.Missing", "'MyHarness' of the module 'mine' has no 'Missing'; it has Inner"),
        ("mine:number.missing", "'number' of the module 'mine' has no 'missing'"),
        ("mine:raising.harness", "'harness' of 'raising' of the module 'mine' cannot be read: RuntimeError: not yet"),
        ("mine:NeedsArguments", "mine:NeedsArguments cannot be called without arguments; write a class"),
        ("mine:JournalOfArguments", "is a journal class that needs arguments; write a harness"),
        ("mine:failing_factory", "calling mine:failing_factory without arguments raised RuntimeError: the database is"),
        ("mine:exiting_factory", "raised SystemExit: 3"),
        ("mine:async_factory", "is a coroutine function"),
        ("mine:odd_factory", "mine:odd_factory is a int without open()"),
        ("mine:number", "mine:number is a int without open()"),
        ("mine:NoHarness", "a harness is a class with `capabilities` and `open()`"),
        ("stale", "the entry point 'stale' (mine:Gone) cannot be loaded: AttributeError"),
        ("bad", "the entry point 'bad' (raises:Harness) cannot be loaded: RuntimeError: no licence"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_named_with_what_to_do(target, told):
    with pytest.raises(TargetError) as caught:
        harness_of(target)
    assert told in str(caught.value)


@pytest.mark.parametrize("target", [InMemoryHarness, InMemoryHarness(), InMemoryJournal, InMemoryJournal()])
def test_objects_are_targets_too(target):
    assert callable(harness_of(target).open)


def test_a_bare_journal_is_opened_as_itself_and_its_capabilities_are_what_it_shows_or_says():
    journal = InMemoryJournal()
    harness = harness_of(journal)
    assert isinstance(harness, JournalHarness)
    assert harness.open() is harness.open() is journal
    assert harness_of("mine:Quiet").capabilities == frozenset(), "declared empty is declared"

    class Bare:
        start_run = append = load = get_run = acquire = lambda self: None

    assert harness_of(Bare()).capabilities == {"opaque_run_ids", "leases"}


def test_entry_points_are_found_by_name():
    assert {"in_memory", "sqlite", "postgres"} <= set(entry_points())


@pytest.mark.parametrize(
    ("needs", "wanted"),
    [
        ("postgres", {"postgres"}),
        (["postgres", "directory"], {"postgres", "directory"}),
        ((), set()),
        (None, set()),
        ("", set()),
    ],
)
def test_needs_are_one_name_or_several(needs, wanted):
    assert needs_of(SimpleNamespace(needs=needs)) == wanted


@pytest.mark.parametrize("needs", ["redis", ["postgres", "redis"], 5, [5], [["postgres"]]])
def test_unknown_needs_are_refused(needs):
    with pytest.raises(TargetError, match="postgres"):
        needs_of(SimpleNamespace(needs=needs))


# -- default() --


def test_without_any_configuration_the_default_is_in_memory():
    assert isinstance(default(), InMemoryJournal)


def configured(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(textwrap.dedent(text))


def test_an_argument_goes_before_the_environment_and_that_before_the_file(folder, monkeypatch):
    class Told(InMemoryHarness):
        opened = "the argument's"

        def open(self):
            return self.opened

    (folder / "told.py").write_text(
        "class File:\n    def open(self): return 'the file\\'s'\nclass Env:\n    def open(self): return 'the variable\\'s'\n"
    )
    configured(folder, "[tool.continuum-conformance]\njournal = 'told:File'\n")
    assert default() == "the file's"
    monkeypatch.setenv("CONTINUUM_JOURNAL", "told:Env")
    assert default() == "the variable's"
    assert default(Told) == default(Told()) == "the argument's"
    assert default("") == "the variable's"
    monkeypatch.setenv("CONTINUUM_JOURNAL", "")
    assert default() == "the file's"


def test_a_journal_that_is_false_is_still_the_argument():
    class Empty(InMemoryJournal):
        def __len__(self):
            return 0

    journal = Empty()
    assert default(journal) is journal


def test_the_file_is_found_above_and_its_folder_is_importable(folder, monkeypatch):
    configured(folder, "[tool.continuum-conformance]\njournal = 'mine:MyHarness'\n")
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert configuration()[1] == folder
    assert isinstance(default(), InMemoryJournal)


@pytest.mark.parametrize(
    "text", ["", "[tool]\nx = 1\n", "tool = 5\n", "[tool]\ncontinuum-conformance = 'x'\n"]
)
def test_a_file_without_our_table_says_nothing(folder, text):
    configured(folder, text)
    assert configuration() == ({}, None)
    assert isinstance(default(), InMemoryJournal)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[tool", "pyproject.toml cannot be read"),
        ("[tool.continuum-conformance]\njournal = 5\n", "must be a string, not 5"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(folder, text, told):
    configured(folder, text)
    with pytest.raises(TargetError, match=told):
        default()


def test_a_store_that_is_not_named_is_asked_for(folder, monkeypatch):
    with pytest.raises(TargetError, match="set CONTINUUM_DSN"):
        default(SimpleNamespace(needs="postgres", open=list))
    with pytest.raises(TargetError, match="set CONTINUUM_DIRECTORY"):
        default("sqlite")
    configured(folder, "[tool.continuum-conformance]\njournal = 'sqlite'\ndirectory = 'state'\n")
    default().start_run(Instance("shop"), "r", "checkout", None)
    assert list((folder / "state").iterdir()), "the file's directory is its folder's"
    monkeypatch.setenv("CONTINUUM_DIRECTORY", str(folder / "elsewhere"))
    default().start_run(Instance("shop"), "r", "checkout", None)
    assert list((folder / "elsewhere").iterdir())


def test_the_users_harness_is_not_changed_by_default(folder):
    class Mine:
        needs = "directory"
        directory = None

        def open(self):
            return self.directory

    mine = Mine()
    assert default(mine, directory=folder / "there") == str(folder / "there")
    assert mine.directory is None
