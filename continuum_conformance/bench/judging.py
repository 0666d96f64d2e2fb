"""What the figures of growth say of the clauses under PRF: ratios alone, and margins far beyond noise.

The ratio is that of the quicker quarters: whatever else the machine does only ever adds to what a call takes.
"""

from __future__ import annotations

from collections.abc import Iterator

from continuum_conformance.bench.figures import Axis, Finding, Measured

__all__ = ["findings"]

ENOUGH = 10_000
"""Events or runs from which on a figure says something."""

FLAT = 5.0
"""How many times as much an append may cost as on the smallest size."""

SPARED = 0.5
"""The share of a load's cost that a load with a snapshot may have."""


def findings(measured: Measured) -> Iterator[Finding]:
    """Each clause of which something was measured, met or not."""
    yield from _flat("PRF-1", measured, "history", "events")
    yield from _flat("PRF-2", measured, "store", "runs")
    loads = {cost.size: cost.quick for cost in measured.grown("history", "load")}
    both = [cost for cost in measured.grown("history", "load_with_snapshot") if cost.size in loads]
    if both and measured.snapshots:
        size, ratio = both[-1].size, both[-1].quick / loads[both[-1].size]
        told = f"load_with_snapshot takes {_times(ratio)} as long as load at {size:,} events"
        yield Finding("PRF-3", _verdict(size, met=ratio <= SPARED), ratio, told)


def _flat(clause: str, measured: Measured, axis: Axis, unit: str) -> Iterator[Finding]:
    costs = measured.grown(axis, "append")
    if costs:
        last = costs[-1]
        told = f"an append takes {_times(last.ratio)} as long at {last.size:,} {unit} as at {costs[0].size:,}"
        yield Finding(clause, _verdict(last.size, met=last.ratio <= FLAT), last.ratio, told)


def _times(ratio: float) -> str:
    if ratio < 0.001:
        return "less than 0.001 times"
    return f"{ratio:,.1f} times" if ratio >= 0.095 else f"{ratio:.3f} times"


def _verdict(size: int, *, met: bool) -> str:
    if size < ENOUGH:
        return "not judged"
    return "met" if met else "unmet"
