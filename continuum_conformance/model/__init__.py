"""The executable specification, and the one operation type that everything speaks."""

from continuum_conformance.model.masking import mask
from continuum_conformance.model.operations import READS, Garbage, Kind, Operation, Outcome, normalise
from continuum_conformance.model.specification import (
    EMPTY,
    Aspect,
    Expectation,
    Expiry,
    Impossible,
    LeaseModel,
    RunModel,
    Specification,
    World,
)

__all__ = [
    "EMPTY",
    "READS",
    "Aspect",
    "Expectation",
    "Expiry",
    "Garbage",
    "Impossible",
    "Kind",
    "LeaseModel",
    "Operation",
    "Outcome",
    "RunModel",
    "Specification",
    "World",
    "mask",
    "normalise",
]
