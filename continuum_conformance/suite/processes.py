"""Processes of their own over a session's store: a second Python, or the program of the bridge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from continuum_conformance.harness import SecondProcess, Subject
from continuum_conformance.harness.bridge.harness import ProgramHarness
from continuum_conformance.harness.bridge.worker import ProgramProcess
from continuum_conformance.harness.clocks import RIGHT, ClientClock
from continuum_conformance.postgres.gate import Cut, Gate

__all__ = ["Processes"]


class _GateWire:
    """One worker's connections through a gate (a `bridge.worker.Wire`)."""

    def __init__(self, gate: Gate, worker: str) -> None:
        self._gate, self._worker = gate, worker
        self._held: Cut | None = None
        self.dsn = gate.dsn_for(worker)

    def messages(self) -> int:
        return self._gate.groups(self._worker, every=True)

    def hold(self, number: int) -> Callable[[], bool]:
        self._held = cut = self._gate.hold(self._worker, number, every=True)
        return cut.fired.is_set

    def let_go(self) -> None:
        self._gate.no_cuts()
        if self._held is not None:
            self._gate.resume(self._held)
            self._held = None


class Processes:
    """Starts them. A program over PostgreSQL gets a gate, since its code has no lines to be stopped at."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._gate: Gate | None = None

    def start(self, worker: str, clock: ClientClock = RIGHT) -> Any:
        """One more. Raises `HarnessError`."""
        subject = self._subject
        if not isinstance(subject.harness, ProgramHarness):
            return SecondProcess(subject, clock)
        wire = None
        if "postgres" in subject.needs and subject.dsn is not None:
            self._gate = self._gate or Gate(subject.dsn)
            wire = _GateWire(self._gate, worker)
        return ProgramProcess(subject, worker, clock, wire)

    def close(self) -> None:
        """Close what they connected through."""
        if self._gate is not None:
            self._gate.close()
            self._gate = None
