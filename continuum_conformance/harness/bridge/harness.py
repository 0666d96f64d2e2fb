"""The harness of a program on the bridge: which processes run, and the journals that are opened in them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from continuum_conformance.contract.errors import ERRORS, JournalError, JournalUnavailable, NotDurable
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.targets import TargetError
from continuum_conformance.harness.bridge.dialogue import (
    PROTOCOL,
    Breach,
    encoded_arguments,
    outcome_of_reply,
)
from continuum_conformance.harness.bridge.program import Ended, Program, Refused, TooLate
from continuum_conformance.model import Kind, Operation, Outcome

__all__ = ["PREFIX", "ProgramHarness", "ProgramJournal", "Trouble"]

PREFIX = "exec:"
"""How a target begins that is a command: ``exec:node bridge.mjs``."""

START_LIMIT = 60.0
"""Seconds within which a program must have answered hello: some build themselves first."""

CLOSE_LIMIT = 10.0
"""Seconds within which it must have closed a handle, or taken its leave."""

DETAILED = 30
"""Lines of a program's stderr that stand below a finding."""

FAILURES = (Breach, TooLate, Ended)


class Trouble(Exception):
    """A program that could not be started, opened or closed; the message says how."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class ProgramHarness:
    """A program that speaks the bridge's protocol, in place of a harness in Python.

    A program that declares `shared` gets a process for each worker; else all handles are in one process, which ends
    with its last handle when the store outlives it (`durable`).

    Args:
        command: how the program is started, as a shell has it. It is run without one, in the current directory.
        start: starts a process, given the command and what is added to its environment.

    Raises:
        TargetError: when it cannot be started, or its answer to hello is none.
    """

    def __init__(self, command: str, *, start: Callable[[str, Mapping[str, str]], Program] = Program) -> None:
        self.command = command
        self._start = start
        self.dsn: str | None = None
        self.directory: str | None = None
        self._lock = threading.RLock()
        self._numbers: dict[str, int] = {}
        self._common: Program | None = None
        self._idle: dict[str, Program] = {}
        self._running: list[Program] = []
        self.took: dict[str, float] = {}
        """How many seconds each operation took when it was last let alone, in second processes."""
        self.remarks: list[str] = []
        """What is odd about how its processes ended."""
        said = self._introduced()
        self.name: str = _text(said, "name")
        self.language: str = _text(said, "language")
        self.contract: str = _text(said, "contract")
        self.capabilities: frozenset[str] = _names(said, "capabilities")
        self.needs: frozenset[str] = _names(said, "needs")
        self.tables: frozenset[str] = _names(said, "tables")

    def _introduced(self) -> dict[str, Any]:
        """What the program says of itself; this process of it is the first one's, if that fits."""
        try:
            program, said = self._started({})
        except Trouble as error:
            raise TargetError(str(error)) from None
        self.end(program)
        return said

    def _started(self, environment: Mapping[str, str]) -> tuple[Program, dict[str, Any]]:
        try:
            program = self._start(self.command, environment)
        except TargetError as error:
            raise Trouble(str(error)) from None
        try:
            said = program.introduce(START_LIMIT)
        except (*FAILURES, Refused) as error:
            program.drop()
            raise Trouble(
                f"the program {self.command!r} cannot be spoken to: {error}. It must answer hello as docs/bridge.md says"
            ) from None
        if said.get("protocol") != PROTOCOL:
            program.drop()
            raise Trouble(
                f"the program {self.command!r} speaks version {said.get('protocol')!r:.40} of the protocol; this kit speaks {PROTOCOL}"
            )
        with self._lock:
            self._running.append(program)
        return program, said

    # -- for the kit --

    def start(
        self,
        worker: str,
        dsn: str | None,
        directory: str | None,
        environment: Mapping[str, str] | None = None,
    ) -> Program:
        """A new process for a worker, which has answered hello. Raises `Trouble`."""
        return self._started({**self._environment(worker, dsn, directory), **(environment or {})})[0]

    def open(
        self,
        worker: str = "A",
        dsn: str | None = None,
        directory: str | None = None,
        *,
        shared: bool | None = None,
        seconds: float = START_LIMIT,
    ) -> ProgramJournal:
        """One more handle for a worker.

        Args:
            worker: the worker's name.
            dsn: by which it connects to its PostgreSQL; by default the harness's.
            directory: where its store is; by default the harness's.
            shared: whether the worker gets a process of its own; by default, whether `shared` is declared.
            seconds: within which it must be open.

        Raises:
            Trouble: when the program refuses, or goes wrong.
        """
        dsn, directory = dsn or self.dsn, directory or self.directory
        shared = "shared" in self.capabilities if shared is None else shared
        with self._lock:
            program = (
                self._process_for(worker, dsn, directory) if shared else self._common_process(dsn, directory)
            )
        return self.open_in(program, worker, dsn, directory, seconds)

    def open_in(
        self, program: Program, worker: str, dsn: str | None, directory: str | None, seconds: float
    ) -> ProgramJournal:
        """One more handle in a given process. Raises `Trouble`."""
        arguments = {"worker": worker, "number": self._number(worker), "dsn": dsn, "directory": directory}
        try:
            handle = program.told("open", arguments, seconds)
        except Refused as error:
            raise Trouble(f"open failed with {error}", error.detail) from None
        except FAILURES as error:
            raise Trouble(f"the program failed in open: {error}") from None
        if isinstance(handle, bool) or not isinstance(handle, (int, str)):
            raise Trouble(f"open must give a handle, a whole number or text, not {handle!r:.60}")
        program.handles.add(handle)
        return ProgramJournal(self, program, handle, worker)

    def closed(self, journal: ProgramJournal, seconds: float) -> None:
        """Close a handle; the process stays for the same worker, or ends, as the class says. Raises `Trouble`."""
        program = journal.program
        if not program.usable:
            self.forget(program)
            return
        try:
            program.told("close", {}, seconds, journal.handle)
        except Refused as error:
            raise Trouble(f"close failed with {error}", error.detail) from None
        except FAILURES as error:
            self.forget(program)
            raise Trouble(f"the program failed in close: {error}") from None
        program.handles.discard(journal.handle)
        if program is self._common:
            if not program.handles and "durable" in self.capabilities:
                self._common = None
                self.end(program)
        elif not program.handles:
            with self._lock:
                before = self._idle.get(journal.worker)
                self._idle[journal.worker] = program
            if before is not None and before is not program:
                self.end(before)

    def shutdown(self) -> None:
        """End every process."""
        with self._lock:
            running, self._running = self._running, []
            self._idle.clear()
            self._common = None
        for program in running:
            self.end(program)

    @property
    def runs(self) -> bool:
        """Whether one of its processes runs or would like to, as far as the system tells."""
        return any(program.runs for program in list(self._running))

    # -- processes --

    def _number(self, worker: str) -> int:
        with self._lock:
            return self._numbers.setdefault(worker, len(self._numbers) + 1)

    def _environment(self, worker: str, dsn: str | None, directory: str | None) -> dict[str, str]:
        found = {"JOURNAL_WORKER": str(self._number(worker))}
        if dsn is not None:
            found["JOURNAL_DSN"] = dsn
        if directory is not None:
            found["JOURNAL_DIRECTORY"] = directory
        return found

    def _process_for(self, worker: str, dsn: str | None, directory: str | None) -> Program:
        idle = self._idle.pop(worker, None)
        if idle is not None:
            # Its environment must be right as well: a program may read that instead of what open carries.
            if idle.usable and idle.environment == self._environment(worker, dsn, directory):
                return idle
            self.end(idle)
        return self.start(worker, dsn, directory)

    def _common_process(self, dsn: str | None, directory: str | None) -> Program:
        if self._common is None or not self._common.usable:
            if self._common is not None:
                self.forget(self._common)
            self._common = self.start("A", dsn, directory)
        return self._common

    def end(self, program: Program) -> None:
        """End a process: with its leave taken, where it still does."""
        wrong = program.end(CLOSE_LIMIT)
        if wrong and wrong not in self.remarks:
            self.remarks.append(f"of the program {self.command!r}: {wrong}")
        self.forget(program)

    def forget(self, program: Program) -> None:
        """End a process at once."""
        with self._lock:
            if program in self._running:
                self._running.remove(program)
            if program is self._common:
                self._common = None
        program.drop()


def _text(said: Mapping[str, Any], member: str) -> str:
    found = said.get(member, "")
    if not isinstance(found, str):
        raise TargetError(f"the program's answer to hello has `{member}`: {found!r:.60}; it must be text")
    return found


def _names(said: Mapping[str, Any], member: str) -> frozenset[str]:
    found = said.get(member, [])
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise TargetError(
            f"the program's answer to hello has `{member}`: {found!r:.60}; it must be a list of texts"
        )
    return frozenset(found)


class ProgramJournal:
    """A handle on a journal in another program. Its methods are those of ``Journal``."""

    def __init__(self, harness: ProgramHarness, program: Program, handle: int | str, worker: str) -> None:
        self._harness = harness
        self.program = program
        self.handle = handle
        self.worker = worker

    def perform(self, operation: Operation, seconds: float) -> Outcome:
        """Carry out an operation.

        Raises:
            LeftOut: when its arguments cannot be carried; nothing was sent.
        """
        arguments = encoded_arguments(operation)
        try:
            return self.heard(operation, self.program.ask(operation.name, arguments, seconds, self.handle))
        except FAILURES as failure:
            return self.failed(failure)

    def heard(self, operation: Operation, data: Mapping[str, Any]) -> Outcome:
        """What a reply to an operation says."""
        try:
            return outcome_of_reply(operation.name, data)
        except Breach as breach:
            words = self.program.last_words()
            self.program.kill()
            return self.failed(Breach(f"{breach}; {words}" if words else str(breach)))

    def failed(self, failure: Exception) -> Outcome:
        """The outcome of an operation in which the program did not keep to the protocol."""
        said = self.program.stderr_tail(DETAILED)
        detail = f"worker {self.worker} is {self._harness.command!r}; its stderr ends:\n{said or '(it wrote nothing)'}"
        if isinstance(failure, TooLate):
            return Outcome(Kind.HANG, error="hang", message=str(failure), unknown=True, detail=detail)
        name = "ProgramEnded" if isinstance(failure, Ended) else "ProtocolBreach"
        return Outcome(Kind.RAW, error=name, message=str(failure), detail=detail)

    def close(self, seconds: float = CLOSE_LIMIT) -> None:
        """Close the handle. Raises `Trouble`."""
        self._harness.closed(self, seconds)

    def _call(self, name: str, *arguments: Any) -> Any:
        outcome = self.perform(
            Operation(name, dict(zip(OPERATIONS[name], arguments, strict=True))), START_LIMIT
        )
        if outcome.ok:
            return outcome.value
        raise _raised(outcome)

    def __getattr__(self, name: str) -> Any:
        if name in OPERATIONS:
            return lambda *arguments: self._call(name, *arguments)
        raise AttributeError(name)


def _raised(outcome: Outcome) -> Exception:
    """An outcome as an exception, for a counterexample that is run as a script."""
    cls = ERRORS.get(str(outcome.error))
    if cls is None:
        return RuntimeError(f"{outcome.error}: {outcome.message}")
    error: JournalError = cls(outcome.message)
    if isinstance(error, JournalUnavailable):
        error.outcome_unknown = outcome.unknown
    if isinstance(error, NotDurable):
        error.path = outcome.path
    return error
