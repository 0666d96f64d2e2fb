"""From a target to a harness: a module's, an installed adapter's, or a program's."""

from __future__ import annotations

from typing import Any

from continuum_conformance.contract import targets
from continuum_conformance.harness.bridge.harness import PREFIX, ProgramHarness

__all__ = ["harness_of"]


def harness_of(target: Any) -> Any:
    """The harness that a target names; ``exec:COMMAND`` names a program on the bridge.

    Raises:
        TargetError: when it cannot be loaded, or started.
    """
    if isinstance(target, str) and target.startswith(PREFIX):
        return ProgramHarness(target.removeprefix(PREFIX))
    return targets.harness_of(target)
