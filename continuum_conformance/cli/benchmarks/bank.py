"""Banks of adapters that are wrong on purpose: modules with a table ``WRONG`` from a target to the clauses it breaks.

A bank is a module or a package of them, named as ``tests.racing`` or by its folder. What a bank's adapters need to
show their fault is the module's or the package's ``SHOWS_IN``: ``"a race"``, unless it says ``"a fault"``, ``"a failover"``
or ``"a sequence of calls"``.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from continuum_conformance.cli.stop import Stop

__all__ = ["FAILOVER", "SEQUENCE", "Wrong", "adapters_of"]

RACE = "a race"
FAILOVER = "a failover"
SEQUENCE = "a sequence of calls"


@dataclass(frozen=True, slots=True)
class Wrong:
    """One wrong adapter.

    Attributes:
        target: the adapter, as a target of the command.
        clauses: those that it is declared to break.
        shows_in: what its fault needs to show: ``"a race"``, ``"a fault"``, ``"a failover"`` or ``"a sequence of calls"``.
    """

    target: str
    clauses: tuple[str, ...]
    shows_in: str

    @property
    def name(self) -> str:
        """What it is called, with the last part of its bank's name, since two banks may have one of a name."""
        module, _, harness = self.target.partition(":")
        return f"{harness.removesuffix('Harness').rstrip('.')} ({'.'.join(module.split('.')[-2:])})"


def adapters_of(bank: str) -> list[Wrong]:
    """The wrong adapters of a bank. Raises `Stop` (2) where there is no such bank, or none in it."""
    module = _imported(_dotted(bank))
    found = []
    for part in _parts(module):
        table = getattr(part, "WRONG", None)
        if not isinstance(table, Mapping):
            continue
        package = sys.modules.get(part.__name__.rpartition(".")[0])
        shows_in = str(getattr(part, "SHOWS_IN", getattr(package, "SHOWS_IN", RACE)))
        found += [Wrong(str(target), tuple(clauses), shows_in) for target, clauses in table.items()]
    if not found:
        raise Stop(
            2,
            f"{bank} holds no wrong adapters: neither it nor a module in it has a table WRONG,"
            " from a target to the clauses that it breaks",
        )
    return found


def _dotted(bank: str) -> str:
    """The bank as a module's name. A path is taken from here where it lies below, else from above its packages."""
    path = Path(bank)
    if not (path.is_dir() or path.suffix == ".py"):
        return bank
    path = path.resolve().with_suffix("")
    if path.is_relative_to(Path.cwd()) and path != Path.cwd():
        above = Path.cwd()
    else:
        above = path.parent
        while (above / "__init__.py").exists():
            above = above.parent
    if str(above) not in sys.path:
        sys.path.insert(0, str(above))
    return ".".join(path.relative_to(above).parts)


def _imported(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise Stop(2, f"{name!r} is no name of a module, and no folder or file of Python's either")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(error.name):
            raise Stop(
                2,
                f"there is no bank {name!r}: name a module or a folder that can be imported from here. The kit's"
                " own banks, tests.known_bad, tests.racing and tests.faulty, come with its source and not with the installed package",
            ) from None
        raise Stop(2, f"the bank {name!r} cannot be imported: {error}") from None
    except ImportError as error:
        raise Stop(2, f"the bank {name!r} cannot be imported: {error}") from None


def _parts(module: ModuleType) -> Iterator[ModuleType]:
    yield module
    for part in pkgutil.iter_modules(getattr(module, "__path__", ())):
        yield _imported(f"{module.__name__}.{part.name}")
