"""Adapters that are wrong on purpose, each in one place: what the suite must find, and under which clause.

One module for each part of the contract. ``python -m tests.known_bad`` writes the table of what catches what.
"""

from .registry import ENTRIES, UNUSUAL, KnownBad  # isort: skip

# In the order of the contract's chapters, which is that of the table.
# isort: off
from . import (
    starting,
    appending,
    loading,
    finishing,
    leases,
    fencing,
    snapshots,
    terms,
    isolation,
    errors,
    asynchronous,
    sql,
    edges,
)

# isort: on

SHOWS_IN = "a sequence of calls"

WRONG = {entry.target: entry.clauses for entry in ENTRIES.values()}
"""The same as the table that `bench detection` reads."""

__all__ = [
    "ENTRIES",
    "SHOWS_IN",
    "UNUSUAL",
    "WRONG",
    "KnownBad",
    "appending",
    "asynchronous",
    "edges",
    "errors",
    "fencing",
    "finishing",
    "isolation",
    "leases",
    "loading",
    "snapshots",
    "sql",
    "starting",
    "terms",
]
