"""The conformance suite and simulation kit for journal adapters of durable-execution engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["JournalConformance", "__version__"]

if TYPE_CHECKING:
    from continuum_conformance.conformance import JournalConformance


def __getattr__(name: str) -> Any:
    # Lazily, so that an adapter which imports the contract does not load pytest and Hypothesis.
    if name == "JournalConformance":
        from continuum_conformance.conformance import JournalConformance

        return JournalConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
