"""Whole clusters of workers over a journal, in virtual time, under faults. See ``docs/simulate.md``.

For those who check a journal there is the command ``simulate``. For those who write an engine there are
`SimulatedCluster`, which runs their worker function, and `FaultyJournal`, which misbehaves within the contract.
"""

from continuum_conformance.simulate.expected import ANYTHING, SimulatedRun
from continuum_conformance.simulate.faulty import FaultPlan, FaultyJournal
from continuum_conformance.simulate.node import Node
from continuum_conformance.simulate.simulated_cluster import SimulatedCluster, SimulationFailed
from continuum_conformance.simulate.simulation import Simulated

__all__ = [
    "ANYTHING",
    "FaultPlan",
    "FaultyJournal",
    "Node",
    "Simulated",
    "SimulatedCluster",
    "SimulatedRun",
    "SimulationFailed",
]
