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

__all__ = [
    "ENTRIES",
    "UNUSUAL",
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
