"""Targets: naming an adapter, and `default()`, the configured one.

A target is ``module:Name`` or an entry point of the group ``continuum.journals``. Either names a harness
class, a factory without arguments, or an instance; a journal's own class or instance will do too. The current
directory is importable.
"""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import inspect
import os
import sys
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "GROUP",
    "JournalHarness",
    "TargetError",
    "configuration",
    "default",
    "entry_points",
    "harness_of",
    "needs_of",
]

GROUP = "continuum.journals"
"""The entry-point group under which packages offer their adapters."""


class TargetError(Exception):
    """A target that cannot be loaded; the message says what was wrong and what to do."""


class JournalHarness:
    """The harness of a bare journal, so that a journal class or instance is a target too.

    Capabilities are the journal's own attribute ``capabilities``, else what its methods show.
    """

    def __init__(self, make: Callable[[], Any], sample: Any, name: str) -> None:
        self._make = make
        self.name = name
        given = getattr(sample, "capabilities", None)
        self.guessed = given is None
        """Whether the capabilities were told from the methods: whether run ids are opaque is then a guess."""
        self.capabilities = _shown(sample) if given is None else given

    def open(self) -> Any:
        """The journal itself where the target is one, else a new one."""
        return self._make()


def _shown(journal: Any) -> set[str]:
    shown = {"opaque_run_ids"}
    if callable(getattr(journal, "acquire", None)):
        shown.add("leases")
    if callable(getattr(journal, "take_snapshot", None)):
        shown.add("snapshots")
    return shown


def entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """The installed adapters by name."""
    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}


_ANYTHING = (Exception, SystemExit)
"""What the author's code may raise at us: a script without a main guard exits as soon as it is imported."""


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _resolve(target: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    if ":" not in target:
        return _entry_point(target)
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise TargetError(f"{target!r} is no target; write module:Name, as in my_package.testing:MyHarness")
    if "/" in module_name or "\\" in module_name or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").replace("\\", "/").strip("./").replace("/", ".")
        raise TargetError(
            f"{module_name!r} is a path; write the module's name, as in {dotted}:{attribute} (the current directory is searched first)"
        )
    found: Any = _imported(module_name)
    where = f"the module {module_name!r}"
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = ", ".join(name for name in dir(found) if not name.startswith("_"))[:200]
            raise TargetError(f"{where} has no {part!r}; it has {names or 'nothing public'}") from None
        except _ANYTHING as error:
            raise TargetError(f"{part!r} of {where} cannot be read: {_told(error)}") from error
        where = f"{part!r} of {where}"
    return found


def _entry_point(name: str) -> Any:
    points = entry_points()
    if name not in points:
        known = ", ".join(sorted(points)) or "none are installed"
        raise TargetError(
            f"{name!r} is no installed adapter ({known}); for a class in a module write module:Name, as in my_package.testing:MyHarness"
        )
    try:
        return points[name].load()
    except ModuleNotFoundError as error:
        raise TargetError(
            f"the entry point {name!r} ({points[name].value}) cannot be loaded: {error}; is an extra not installed, as in continuum-conformance[all]?"
        ) from error
    except _ANYTHING as error:
        raise TargetError(
            f"the entry point {name!r} ({points[name].value}) cannot be loaded: {_told(error)}"
        ) from error


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        parts = name.split(".")
        if error.name in {".".join(parts[: n + 1]) for n in range(len(parts))}:
            raise TargetError(
                f"there is no module {error.name!r} (looked in the current directory and the installed packages)"
            ) from error
        raise TargetError(f"the module {name!r} cannot be imported: {error}") from error
    except _ANYTHING as error:
        raise TargetError(f"the module {name!r} cannot be imported: {_told(error)}") from error


def _made(make: Any, label: str) -> Any:
    """What a class or factory gives when it is called without arguments."""
    if _needs_arguments(make):
        raise TargetError(
            f"{label} cannot be called without arguments; write a class with `capabilities` and an open() that passes them"
        )
    try:
        made = make()
    except _ANYTHING as error:
        raise TargetError(f"calling {label} without arguments raised {_told(error)}") from error
    if inspect.iscoroutine(made):
        made.close()
        raise TargetError(
            f"{label} is a coroutine function; a factory of a harness is a plain one, while open() may be a coroutine"
        )
    return made


def _needs_arguments(make: Any) -> bool:
    try:
        inspect.signature(make).bind()
    except ValueError:
        return False  # it does not tell
    except TypeError:
        return True
    return False


def _is_journal(thing: Any) -> bool:
    return all(callable(getattr(thing, name, None)) for name in ("start_run", "append", "load"))


def harness_of(target: Any) -> Any:
    """The harness instance that a target names.

    Args:
        target: a string, or the harness class, factory, harness, journal class or journal itself.

    Raises:
        TargetError: when there is nothing of that name, or it is none of these.
    """
    found = _resolve(target) if isinstance(target, str) else target
    label = target if isinstance(target, str) else getattr(found, "__name__", type(found).__name__)
    if _is_journal(found):
        if inspect.isclass(found) and _needs_arguments(found):
            raise TargetError(
                f"{label} is a journal class that needs arguments; write a harness, a class with `capabilities` and an open() that passes them"
            )
        return JournalHarness(found if inspect.isclass(found) else lambda: found, found, label)
    if inspect.isclass(found) or (callable(found) and not hasattr(found, "open")):
        made = _made(found, label)
        if _is_journal(made):
            return JournalHarness(found, made, label)
        found = made
    if not callable(getattr(found, "open", None)):
        raise TargetError(
            f"{label} is a {type(found).__name__} without open(); a harness is a class with `capabilities` and `open()` that returns a journal"
        )
    return found


def needs_of(harness: Any) -> frozenset[str]:
    """What a harness asks the kit for: of ``"postgres"`` and ``"directory"`` none, one or both."""
    needs = getattr(harness, "needs", None) or ()
    if not isinstance(needs, Collection):
        raise TargetError(f"`needs` must be 'postgres', 'directory' or a set of them, not {needs!r}")
    wanted = frozenset([needs] if isinstance(needs, str) else map(str, needs))
    unknown = wanted - {"postgres", "directory"}
    if unknown:
        raise TargetError(
            f"the harness needs {', '.join(sorted(map(repr, unknown)))}, which this kit cannot give; it gives 'postgres' and 'directory'"
        )
    return wanted


def configuration(start: Path | None = None) -> tuple[Mapping[str, Any], Path | None]:
    """``[tool.continuum-conformance]`` of the nearest pyproject.toml at or above ``start``, and that file's folder."""
    for folder in [start or Path.cwd(), *(start or Path.cwd()).parents]:
        file = folder / "pyproject.toml"
        if file.is_file():
            try:
                tool = tomllib.loads(file.read_text("utf-8")).get("tool")
            except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise TargetError(f"{file} cannot be read: {error}") from error
            table = tool.get("continuum-conformance") if isinstance(tool, dict) else None
            return (table, folder) if isinstance(table, dict) else ({}, None)
    return {}, None


def default(
    target: Any = None, *, dsn: str | None = None, directory: str | os.PathLike[str] | None = None
) -> Any:
    """The configured default adapter, opened.

    The target is the argument, else the environment's ``CONTINUUM_JOURNAL``, else ``journal`` in
    ``[tool.continuum-conformance]`` of the nearest pyproject.toml, else the in-memory adapter. An adapter that
    needs a store is given ``dsn`` or ``directory``: the argument, else ``CONTINUUM_DSN`` or
    ``CONTINUUM_DIRECTORY``, else the keys ``dsn`` and ``directory`` of the same table.

    Returns:
        An opened journal; the coroutine of one where the harness opens asynchronously.

    Raises:
        TargetError: when the target cannot be loaded, or its store is not named.
    """
    table, folder = configuration()
    chosen: Any = target
    if target is None or (isinstance(target, str) and not target):
        chosen = os.environ.get("CONTINUUM_JOURNAL") or table.get("journal") or "in_memory"
        if not isinstance(chosen, str):
            raise TargetError(f"`journal` in [tool.continuum-conformance] must be a string, not {chosen!r}")
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    harness = copy.copy(harness_of(chosen))
    needs = needs_of(harness)
    if "postgres" in needs:
        harness.dsn = dsn or os.environ.get("CONTINUUM_DSN") or table.get("dsn")
        if not harness.dsn:
            raise TargetError(
                f"{chosen!r} needs a PostgreSQL: set CONTINUUM_DSN to its postgresql:// URI, or pass dsn="
            )
    if "directory" in needs:
        where = directory or os.environ.get("CONTINUUM_DIRECTORY")
        if not where and table.get("directory") and folder is not None:
            where = folder / str(table["directory"])
        if not where:
            raise TargetError(
                f"{chosen!r} needs a directory: set CONTINUUM_DIRECTORY to one, or pass directory="
            )
        Path(where).mkdir(parents=True, exist_ok=True)
        harness.directory = os.fspath(where)
    return harness.open()
