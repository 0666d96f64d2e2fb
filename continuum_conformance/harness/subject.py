"""The adapter under test: its harness, the store that it was given, and the handles that are open.

Everything that touches the author's code goes through here, so that whatever that code does – raise nonsense,
return garbage, print, exit, hang – becomes an `Outcome` or a `HarnessError`, never a crash of the kit.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import pickle
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from continuum_conformance.contract.capabilities import CAPABILITIES, EXTENSIONS
from continuum_conformance.contract.records import Instance
from continuum_conformance.contract.targets import TargetError, needs_of
from continuum_conformance.contract.terms import shown
from continuum_conformance.harness.answers import said, trace_of
from continuum_conformance.harness.bridge.handle import ProgramHandle
from continuum_conformance.harness.bridge.harness import ProgramHarness, Trouble
from continuum_conformance.harness.handle import Handle, HarnessError, awaited
from continuum_conformance.harness.loading import harness_of
from continuum_conformance.harness.nursery import Nursery
from continuum_conformance.harness.reach import IN_PYTHON, OF_A_PROGRAM, Reach
from continuum_conformance.harness.threads import AdapterInterrupt, CallThread, Hung, LoopThread
from continuum_conformance.model import Operation

__all__ = ["CALL_LIMIT", "PROBE", "Handle", "HarnessError", "Subject"]

SERVER_LIMIT = 60.0
"""Seconds within which a harness must have killed or started its server."""

CALL_LIMIT = 10.0
"""Seconds within which a call must come back; longer is a hang, which is a finding."""


def declared(harness: Any) -> frozenset[str]:
    """The capabilities that a harness declares.

    Raises:
        TargetError: when there are none, or one that the contract does not know.
    """
    given = getattr(harness, "capabilities", None)
    if given is None:
        raise TargetError(
            f"{type(harness).__name__} has no `capabilities`; declare a set of strings, of {', '.join(CAPABILITIES)} (it may be empty)"
        )
    if isinstance(given, str) or not isinstance(given, Collection):
        raise TargetError(f"`capabilities` must be a set of strings, not {given!r}")
    known = {*CAPABILITIES, *EXTENSIONS}
    unknown = [shown(name) for name in given if not isinstance(name, str) or name not in known]
    if unknown:
        raise TargetError(
            f"unknown capability {', '.join(sorted(unknown))}; the contract has {', '.join((*CAPABILITIES, *EXTENSIONS))}"
        )
    return frozenset(given)


PROBE = Operation("get_run", {"instance": Instance("probe"), "run_id": str(UUID(int=0))}, "probe")
"""A read that finds nothing, and that every journal answers."""


@dataclass
class HarnessServer:
    """A server that the harness kills and starts, as `postgres.PostgresServer` has it."""

    harness: Any
    restarts: int = 0
    may_kill: bool = True

    @classmethod
    def of(cls, harness: Any) -> HarnessServer | None:
        """The harness's server, when it defines both ``kill_server()`` and ``start_server()``."""
        hooks = (getattr(harness, "kill_server", None), getattr(harness, "start_server", None))
        return cls(harness) if all(map(callable, hooks)) else None

    def kill(self) -> None:
        """End the server at once. Raises `HarnessError`."""
        self._act("kill_server")

    def start(self) -> None:
        """Start it again, on the same data. Raises `HarnessError`."""
        self._act("start_server")

    def _act(self, name: str) -> None:
        thread = CallThread(name)
        try:
            thread.run(lambda: asyncio.run(awaited(getattr(self.harness, name)())), SERVER_LIMIT)
        except Hung as hung:
            raise HarnessError(f"{name}() did not come back: {hung}", hung.stack) from None
        except Exception as error:
            raise HarnessError(f"{name}() raised {said(error)}", trace_of(error)) from error
        finally:
            thread.stop()


class Subject:
    """An adapter under test.

    Args:
        target: a target string, harness class, factory, harness or journal (see ``contract.targets``).
        dsn: given to a harness that needs ``"postgres"``.
        directory: given to a harness that needs ``"directory"``.
        limit: seconds within which a call must come back.
        without: capabilities that are withdrawn for this run.

    Raises:
        TargetError: when the target cannot be loaded or declares what the contract does not know.
    """

    def __init__(
        self,
        target: Any,
        *,
        dsn: str | None = None,
        directory: str | None = None,
        limit: float = CALL_LIMIT,
        without: Collection[str] = (),
    ) -> None:
        self.target = target if isinstance(target, str) else None
        self.harness = harness_of(target)
        self.needs = needs_of(self.harness)
        self.declared = declared(self.harness)
        self.withdrawn = frozenset(without) & self.declared
        self.capabilities = self.declared - frozenset(without)
        self.dsn, self.directory, self.limit = dsn, directory, limit
        self.new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
        """Makes the event loop of an async journal."""
        self.server: Any = HarnessServer.of(self.harness)
        """The server behind the store, where the kit knows how to kill it: the harness's, or a `PostgresServer`."""
        self.dsn_for: Callable[[str], str] | None = None
        """The DSN by which each worker connects, where it is not the store's own but a gate's."""
        self.standby_dsn: str | None = None
        """The DSN of a standby of that store, where there is one."""
        self.pickled = _pickled(self.harness)
        """The harness as it was before its first use, for a second process; None when it cannot be pickled."""
        self.nursery: Nursery | None = None
        """Forks second processes, once one was needed."""
        self._loop: LoopThread | None = None
        self._uses: dict[int, tuple[Any, int]] = {}
        self._shared: dict[int, tuple[Any, Any]] = {}
        self._closed: dict[int, Any] = {}
        self.remarks: list[str] = []

    @property
    def name(self) -> str:
        """The adapter's name: the harness's own ``name``, else its class."""
        return str(getattr(self.harness, "name", None) or type(self.harness).__name__)

    @property
    def reach(self) -> Reach:
        """What the kit can do to the adapter besides calling it."""
        return OF_A_PROGRAM if isinstance(self.harness, ProgramHarness) else IN_PYTHON

    @property
    def is_async(self) -> bool:
        """Whether the journals opened so far are async."""
        return self._loop is not None

    def open(self, worker: str) -> Handle:
        """Open one more handle over the same store.

        Raises:
            HarnessError: when the author's ``open`` raises, hangs, or returns no journal.
        """
        if isinstance(self.harness, ProgramHarness):
            return self._open_program(self.harness, worker)
        harness = self._guard("setting the harness's dsn or directory", lambda: self._equipped(worker))
        if self._loop is not None and not self._loop.alive(self.limit):
            self._loop = LoopThread(self.new_loop)  # a call that hung blocks the old one
        if self._loop is None and (
            inspect.iscoroutinefunction(harness.open)
            or inspect.iscoroutinefunction(getattr(harness, "close", None))
        ):
            self._loop = LoopThread(self.new_loop)
        if self._loop is None:
            thread = CallThread(f"journal-{worker}")
            try:
                journal = self._guard("open()", lambda: thread.run(harness.open, self.limit * 3))
                if not _is_async(journal) and not inspect.iscoroutine(journal):
                    return self._adopt(harness, journal, worker, thread)
            except HarnessError as error:
                if "event loop" not in str(error):
                    thread.stop()
                    raise
                journal = None
            if inspect.iscoroutine(journal):
                journal.close()  # open() is a plain function that gives one
                journal = None
            # An async journal must be opened on the loop on which it will be called.
            self._loop = LoopThread(self.new_loop)
            handle = self._open_on(self._loop, harness, worker)
            if journal is not None and journal is not handle.journal:
                self._forget(harness, journal, thread)
            thread.stop()
            return handle
        return self._open_on(self._loop, harness, worker)

    def _open_program(self, harness: ProgramHarness, worker: str) -> Handle:
        dsn = None
        if "postgres" in self.needs:
            dsn = self.dsn_for(worker) if self.dsn_for is not None else self.dsn
        shared = "shared" in self.capabilities
        try:
            journal = harness.open(worker, dsn, self.directory, shared=shared, seconds=self.limit * 3)
        except Trouble as error:
            raise HarnessError(str(error), error.detail) from None
        return ProgramHandle(self, journal, worker)

    def _equipped(self, worker: str) -> Any:
        """The harness, bearing what the kit provides."""
        harness = self.harness
        if "postgres" in self.needs:
            harness = copy.copy(harness)
            harness.dsn = self.dsn_for(worker) if self.dsn_for is not None else self.dsn
            if self.standby_dsn is not None:
                harness.standby_dsn = self.standby_dsn
        if "directory" in self.needs:
            harness.directory = self.directory
        return harness

    def _open_on(self, loop: LoopThread, harness: Any, worker: str) -> Handle:
        journal = self._guard("open()", lambda: loop.run(lambda: _opened(harness), self.limit * 3))
        if not _is_async(journal) and callable(getattr(journal, "append", None)):
            raise HarnessError(
                "open() or close() is a coroutine, but the journal's append is a plain function; make all async or none"
            )
        return self._adopt(harness, journal, worker, loop)

    def _adopt(self, harness: Any, journal: Any, worker: str, runner: CallThread | LoopThread) -> Handle:
        missing = [
            n for n in ("start_run", "append", "load", "get_run") if not callable(getattr(journal, n, None))
        ]
        if missing:
            raise HarnessError(
                f"open() returned {shown(journal, 80)}, which is no journal: it has no {', '.join(missing)}"
            )
        _, uses = self._uses.get(id(journal), (journal, 0))
        self._uses[id(journal)] = (journal, uses + 1)
        if uses:
            self._shared[id(journal)] = (harness, journal)
        handle = Handle(self, harness, journal, worker, runner)
        if id(journal) in self._closed and not handle.call(PROBE).ok:
            raise HarnessError(
                "open() returned a journal that was closed before and no longer works; return a new one after a close"
            )
        return handle

    def _forget(self, harness: Any, journal: Any, thread: CallThread) -> None:
        close = getattr(harness, "close", None)
        if callable(close) and not inspect.iscoroutinefunction(close):
            # What was opened off the loop only to find out that it is async; how it closes there is undefined.
            with contextlib.suppress(Exception):
                thread.run(lambda: close(journal), self.limit)

    def _guard(self, what: str, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Hung as hung:
            raise HarnessError(f"{what} did not come back: {hung}", hung.stack) from None
        except AdapterInterrupt as interrupt:
            raise HarnessError(f"{what} raised KeyboardInterrupt", trace_of(interrupt.error)) from None
        except KeyboardInterrupt:
            raise  # Ctrl-C while we waited
        except BaseException as error:
            raise HarnessError(f"{what} raised {said(error)}", trace_of(error)) from error

    def close(self, handle: Handle) -> None:
        """Close a handle after its last use.

        A journal that was returned twice may be returned again: `close_shared` closes it, once.
        """
        journal, uses = self._uses.pop(id(handle.journal), (handle.journal, 1))
        runner = handle._runner
        if handle.broken:
            self._shared.pop(id(journal), None)
        if uses > 1:
            self._uses[id(journal)] = (journal, uses - 1)
        elif not handle.broken and id(journal) not in self._shared:
            self._close_journal(handle._harness, journal, runner)
        if isinstance(runner, CallThread):
            runner.stop()

    def _close_journal(self, harness: Any, journal: Any, runner: CallThread | LoopThread) -> None:
        close = getattr(harness, "close", None)
        if not callable(close):
            return
        if isinstance(runner, LoopThread):
            self._guard("close()", lambda: runner.run(lambda: awaited(close(journal)), self.limit))
        else:
            self._guard("close()", lambda: runner.run(lambda: close(journal), self.limit))

    def close_shared(self) -> None:
        """Close the journals that were returned more than once, when no handle is open. Raises `HarnessError`."""
        while self._shared:
            identity, (harness, journal) = self._shared.popitem()
            if callable(getattr(harness, "close", None)):
                self._closed[identity] = journal  # kept, so that its identity is nobody else's
            runner = self._loop or CallThread("journal-close")
            try:
                self._close_journal(harness, journal, runner)
            finally:
                if isinstance(runner, CallThread):
                    runner.stop()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of an async journal, once one was opened."""
        return self._loop.loop if self._loop is not None else None

    def shutdown(self) -> None:
        """Close what is left and end the event loop, if there is one. Handles must be closed before."""
        try:
            self.close_shared()
        finally:
            self._stop_loop()
            if isinstance(self.harness, ProgramHarness):
                self.harness.shutdown()
                self.remarks += self.harness.remarks
            if self.nursery is not None:
                self.nursery.close()
                self.nursery = None

    def _stop_loop(self) -> None:
        if self._loop is not None:
            self._loop.stop()
            self._loop = None


def _pickled(harness: Any) -> bytes | None:
    try:
        return pickle.dumps(harness)
    except Exception:  # noqa: BLE001 - whatever a foreign object raises when it is pickled: then by name
        return None


async def _opened(harness: Any) -> Any:
    return await awaited(harness.open())


def _is_async(journal: Any) -> bool:
    return inspect.iscoroutinefunction(getattr(journal, "append", None))
