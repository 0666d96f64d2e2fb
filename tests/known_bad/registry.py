"""The register of adapters that are wrong on purpose.

An entry is a journal class under `wrong`. Its docstring is the fault: what is wrong, and how people come to write it.
The decorator says which clauses the suite must report, the closest first, and what the message must say.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from continuum_adapters.in_memory import InMemoryHarness

__all__ = ["ENTRIES", "UNUSUAL", "KnownBad", "harness_for", "unusual", "wrong"]

_Class = TypeVar("_Class", bound=type)


@dataclass(frozen=True)
class KnownBad:
    """One wrong adapter, and how it must be found out.

    Attributes:
        name: what the fault is called.
        fault: how people come to write it.
        clauses: what it must be reported under, the closest first.
        message: what the report of the closest clause must say (a regular expression).
        target: the adapter, as a target of the command.
        profile: the cheapest profile that finds it for certain.
        limit: seconds that a call may take.
        seen_in: the public thread about a fault of this kind, where one is known; its address.
    """

    name: str
    fault: str
    clauses: tuple[str, ...]
    message: str
    target: str
    profile: str
    limit: float
    seen_in: str = ""


ENTRIES: dict[str, KnownBad] = {}
"""All of them by name, in the order in which they are written down."""

UNUSUAL: dict[str, tuple[str, ...]] = {}
"""The targets that are odd and not wrong, with the clauses that come nearest."""


def wrong(
    *clauses: str,
    message: str,
    profile: str = "quick",
    limit: float = 10.0,
    without: Iterable[str] = (),
    harness: type = InMemoryHarness,
    seen_in: str = "",
) -> Callable[[_Class], _Class]:
    """Register a journal class as wrong.

    Args:
        clauses: what it must be reported under, the closest first.
        message: what the message under the closest must say (a regular expression).
        profile: the profile that finds it.
        limit: seconds that a call may take.
        without: capabilities that this adapter does not declare.
        harness: what opens it, by its attribute ``journal_class``.
        seen_in: the address of a public thread about a fault of this kind.
    """
    re.compile(message)

    def register(cls: _Class) -> _Class:
        harness_for(cls, harness, without)
        name = re.sub(
            r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[a-z])(?=[0-9])", " ", cls.__name__
        )
        name = name.lower()
        if name in ENTRIES:
            raise ValueError(f"{name} stands here twice")
        fault = " ".join((cls.__doc__ or "").split())
        target = f"{cls.__module__}:{cls.__qualname__}.Harness"
        ENTRIES[name] = KnownBad(name, fault, clauses, message, target, profile, limit, seen_in)
        return cls

    return register


def unusual(*tried: str) -> Callable[[_Class], _Class]:
    """Register a journal class that does what others do not, and that no clause forbids: nothing may be reported.

    Args:
        tried: the clauses that come nearest to forbidding it.
    """

    def register(cls: _Class) -> _Class:
        harness_for(cls)
        UNUSUAL[f"{cls.__module__}:{cls.__qualname__}.Harness"] = tried
        return cls

    return register


def harness_for(cls: type, base: type = InMemoryHarness, without: Iterable[str] = ()) -> None:
    """Give a journal class its harness, under a name by which another process finds it too."""
    if "Harness" in vars(cls):
        cls.Harness.__name__ = "Harness"
        return
    attributes = {
        "journal_class": cls,
        "capabilities": frozenset(base.capabilities) - frozenset(without),
        "__module__": cls.__module__,
        "__qualname__": f"{cls.__qualname__}.Harness",
        "__doc__": f"Opens `{cls.__qualname__}`.",
    }
    cls.Harness = type("Harness", (base,), attributes)
    if cls.__module__ not in sys.modules:
        raise ValueError(f"{cls.__module__} cannot be imported by name")
