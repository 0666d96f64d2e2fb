"""Failing worlds in files, so that they can be replayed at will."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continuum_conformance import __version__
from continuum_conformance.contract.clauses import CONTRACT_VERSION
from continuum_conformance.simulate.scenario import Scenario
from continuum_conformance.simulate.simulation import Simulated
from continuum_conformance.simulate.story import story_lines

__all__ = ["KIND", "SavedWorld", "SavedWorldError", "is_world", "load", "save"]

FORMAT = 1
KIND = "simulation"


class SavedWorldError(Exception):
    """A file that holds no world; the message says why."""


@dataclass(frozen=True)
class SavedWorld:
    """A world that was read from a file.

    Attributes:
        target: the adapter that it was wrong over.
        engine: the worker function, as ``module:name``; empty: the kit's own.
        judge: who found what was wrong.
        message: what it was.
        scenario: the world.
    """

    target: str
    engine: str
    judge: str
    message: str
    scenario: Scenario


def save(simulated: Simulated, file: Path, *, target: str, engine: str = "") -> None:
    """Write a failing world, as small as it was made. Raises ``OSError`` when the file cannot be written."""
    finding = simulated.finding
    if finding is None:
        raise ValueError("nothing was wrong in this world")
    data = {
        "format": FORMAT,
        "kind": KIND,
        "kit_version": __version__,
        "contract_version": CONTRACT_VERSION,
        "target": target,
        "engine": engine,
        "judge": finding.judge,
        "clauses": list(finding.clauses),
        "message": finding.message,
        "scenario": simulated.scenario.data(),
        "story": story_lines(simulated),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data, indent=1) + "\n", "utf-8")


def is_world(file: Path) -> bool:
    """Whether a file looks like one of these; of one that cannot be read, no."""
    try:
        data = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("kind") == KIND


def load(file: Path) -> SavedWorld:
    """Read a world. Raises `SavedWorldError`."""
    try:
        data: Any = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SavedWorldError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise SavedWorldError(f"{file} is no replay file: {error}") from error
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise SavedWorldError(f"{file} holds no simulated world")
    if data.get("format") != FORMAT:
        raise SavedWorldError(
            f"{file} has format {data.get('format')!r}; this kit ({__version__}) reads format {FORMAT}"
        )
    try:
        return SavedWorld(
            str(data["target"]),
            str(data["engine"]),
            str(data["judge"]),
            str(data["message"]),
            Scenario.of_data(data["scenario"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SavedWorldError(f"{file} is damaged: {type(error).__name__}: {error}") from error
