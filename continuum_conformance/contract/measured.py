"""The clauses under PRF: what ``continuum-conformance bench`` judges, and a check never does.

A check's verdict must not depend on how busy the machine is. These are SHOULDs, judged by the ratio of two figures of
one run, with margins that are far beyond a machine's noise; they never count for or against conforming.
"""

from __future__ import annotations

from continuum_conformance.contract.capabilities import CORE
from continuum_conformance.contract.clauses import Clause

__all__ = ["MEASURED", "MEASURED_CHAPTERS"]

MEASURED_CHAPTERS = {"PRF": "Performance (measured by `bench`, never judged by `check`)"}

MEASURED: dict[str, Clause] = {
    entry.id: entry
    for entry in (
        Clause(
            "PRF-1",
            "SHOULD",
            CORE,
            "0.4",
            "An append costs the same however long the history is.",
            "A run that slows down with each step of its own never ends: n appends that read the history are n² work.",
            "Keep the next seq in the run's row, or take it from the end of an index; neither read nor count the events.",
            "Unmet: an append on 10,000 events or more takes five times as long as one on ten.",
        ),
        Clause(
            "PRF-2",
            "SHOULD",
            CORE,
            "0.4",
            "An append costs the same however many runs the store holds.",
            "Finished runs stay, so a store only grows; what looks through it slows every worker down, a little more each day.",
            "Find the run by an index on (instance, run id), and see with EXPLAIN that the index is used.",
            "Unmet: an append in a store of 10,000 runs or more takes five times as long as in one of ten.",
        ),
        Clause(
            "PRF-3",
            "SHOULD",
            "snapshots",
            "0.4",
            "`load_with_snapshot` costs what the events after the snapshot cost, whatever stands before it.",
            "To spare that is what snapshots are for.",
            "Select the events with a greater seq in the store, by its index, and decode no others.",
            "Unmet: on 10,000 events or more, with ten of them after the snapshot, it takes more than half as long as `load`.",
        ),
    )
}
"""By id."""
