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
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from continuum_conformance.contract.capabilities import CAPABILITIES, EXTENSIONS
from continuum_conformance.contract.errors import JournalError
from continuum_conformance.contract.records import Instance
from continuum_conformance.contract.targets import TargetError, harness_of, needs_of
from continuum_conformance.contract.terms import shown
from continuum_conformance.harness.cancelling import Cancelling, cancelled_at
from continuum_conformance.harness.nursery import Nursery
from continuum_conformance.harness.threads import AdapterInterrupt, CallThread, Hung, LoopThread
from continuum_conformance.model import Garbage, Kind, Operation, Outcome, normalise

__all__ = ["CALL_LIMIT", "PROBE", "Handle", "HarnessError", "Subject"]

_HERE = Path(__file__).parent

SERVER_LIMIT = 60.0
"""Seconds within which a harness must have killed or started its server."""

CALL_LIMIT = 10.0
"""Seconds within which a call must come back; longer is a hang, which is a finding."""


class HarnessError(Exception):
    """The author's ``open``, ``close`` or ``translate`` failed; the message says how, ``detail`` where."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


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


class Handle:
    """One opened journal, and the thread or loop on which it is called."""

    def __init__(
        self, subject: Subject, harness: Any, journal: Any, worker: str, runner: CallThread | LoopThread
    ) -> None:
        self._subject = subject
        self._harness = harness
        self._runner = runner
        self.journal = journal
        self.worker = worker
        self.broken = False

    def call(
        self, operation: Operation, *, limit: float | None = None, then: Callable[[], None] | None = None
    ) -> Outcome:
        """Carry out an operation and tell what came of it. Raises only ``KeyboardInterrupt``, the user's own.

        Args:
            operation: what to do; its arguments are passed by position.
            limit: seconds, instead of the subject's.
            then: called after the call's first step: on return in the sync form, at the first suspension in
                the async form (TRM-4).
        """
        method = self._method(operation.name)
        if method is None:
            return Outcome(
                Kind.ERROR, error="NotImplementedError", message=f"the journal has no {operation.name}"
            )
        seconds = limit if limit is not None else self._subject.limit
        arguments = operation.positional()
        try:
            if isinstance(self._runner, LoopThread):
                value = self._runner.run(lambda: _awaited(method(*arguments)), seconds, then=then)
            else:
                value = self._runner.run(lambda: method(*arguments), seconds)
                if then is not None:
                    then()
        except Hung as hung:
            self.broken = True
            return Outcome(Kind.HANG, error="hang", message=str(hung), unknown=True, detail=hung.stack)
        except AdapterInterrupt as interrupt:
            return self._outcome_of(interrupt.error)
        except KeyboardInterrupt:
            raise  # Ctrl-C while we waited
        except BaseException as error:  # noqa: BLE001 - the adapter's code: all that it raises is its answer
            return self._outcome_of(error)
        return self._answered(operation, value)

    @property
    def is_async(self) -> bool:
        """Whether it is called on an event loop."""
        return isinstance(self._runner, LoopThread)

    def _method(self, name: str) -> Callable[..., Any] | None:
        """The journal's method; where even looking it up raises, one that raises that."""
        try:
            found: Callable[..., Any] | None = getattr(self.journal, name, None)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a __getattr__ of the author's
            return partial(_raise, error)
        return found

    def direct(self, operation: Operation, *, traced: bool = True) -> Outcome:
        """Carry out an operation of a sync journal in the calling thread, without a time limit. Never raises.

        Contract errors bear no traceback unless they are ``traced``, which takes longer than most operations.
        """
        method = self._method(operation.name)
        if method is None:
            return Outcome(
                Kind.ERROR, error="NotImplementedError", message=f"the journal has no {operation.name}"
            )
        try:
            value = method(*operation.positional())
        except BaseException as error:  # noqa: BLE001 - the adapter's code: all that it raises is its answer
            return self._outcome_of(error, traced=traced)
        return self._answered(operation, value)

    async def direct_async(self, operation: Operation) -> Outcome:
        """Carry out an operation of an async journal in the calling task. Raises only ``CancelledError``."""
        method = self._method(operation.name)
        if method is None:
            return Outcome(
                Kind.ERROR, error="NotImplementedError", message=f"the journal has no {operation.name}"
            )
        try:
            value = await _awaited(method(*operation.positional()))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the adapter's code: all that it raises is its answer
            return self._outcome_of(error)
        return self._answered(operation, value)

    def cancelled(self, operation: Operation, number: int) -> tuple[Outcome, Cancelling]:
        """Carry out an operation of an async journal, cancelled where it waits for the ``number``-th time, from 1.

        Returns:
            The outcome, which is unknown where it raised ``CancelledError``, and how it came to it.
        """
        if not isinstance(self._runner, LoopThread):
            raise TypeError("only an async journal can be cancelled")
        try:
            found: Cancelling = self._runner.run(
                lambda: cancelled_at(self.direct_async(operation), number), self._subject.limit
            )
        except Hung as hung:
            self.broken = True
            outcome = Outcome(Kind.HANG, error="hang", message=str(hung), unknown=True, detail=hung.stack)
            return outcome, Cancelling(struck=True)
        if found.raised:
            gone = Outcome(Kind.ERROR, error="JournalUnavailable", message="it was cancelled", unknown=True)
            return gone, found
        return found.answer, found

    def _answered(self, operation: Operation, value: Any) -> Outcome:
        if inspect.iscoroutine(value):
            value.close()
            return Outcome(
                Kind.GARBAGE,
                message=f"{operation.name} returned a coroutine, but append is no coroutine function",
            )
        return outcome_of_value(operation.name, value)

    def _outcome_of(self, error: BaseException, *, traced: bool = True) -> Outcome:
        detail = _trace(error) if traced or not isinstance(error, JournalError) else ""
        raw = Outcome.raised(error, detail)
        if isinstance(error, NotImplementedError):
            return replace(raw, kind=Kind.ERROR, error="NotImplementedError")
        translate = getattr(self._harness, "translate", None)
        if isinstance(error, JournalError) or not callable(translate):
            return raw
        try:
            translated = translate(error)
        except KeyboardInterrupt:
            raise  # Ctrl-C: this runs in our own thread
        except BaseException as wrong:  # noqa: BLE001 - the author's code
            return replace(raw, message=f"{raw.message} (and translate() raised {_said(wrong)})")
        if isinstance(translated, JournalError):
            return Outcome.raised(translated, detail)
        if translated is not None:
            odd = f"translate() gave {shown(translated)}, which is no JournalError"
            return replace(raw, message=f"{raw.message} (and {odd})")
        return raw

    def inside(self, act: Callable[[], Any], limit: float | None = None) -> Any:
        """Run something in the thread in which the journal is called. Raises what it raises."""
        limit = self._subject.limit if limit is None else limit
        if isinstance(self._runner, LoopThread):
            return self._runner.run(lambda: _awaited(act()), limit)
        return self._runner.run(act, limit)

    def close(self) -> None:
        """Close through the harness, when it has a ``close``. Raises `HarnessError`."""
        self._subject.close(self)


def outcome_of_value(name: str, value: Any) -> Outcome:
    """The outcome of a call that answered, with garbage told from an answer."""
    try:
        answer, remark = normalise(name, value)
    except Garbage as garbage:
        return Outcome(Kind.GARBAGE, message=str(garbage))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a foreign record's properties may raise anything
        return Outcome(
            Kind.GARBAGE, message=f"the answer cannot be read: {_said(error)}", detail=_trace(error)
        )
    return Outcome.of(answer, remark)


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _raise(error: BaseException, *_arguments: Any) -> Any:
    raise error


def _said(error: BaseException) -> str:
    """An exception's name and text, whatever its __str__ does."""
    raw = Outcome.raised(error)
    return f"{type(error).__name__}: {raw.message}" if raw.message else type(error).__name__


def _trace(error: BaseException) -> str:
    try:
        frames = traceback.extract_tb(error.__traceback__)
        kept = [frame for frame in frames if Path(frame.filename).parent != _HERE]
        lines = traceback.format_list(kept[-12:]) + traceback.format_exception_only(error)
        if not kept and error.__cause__ is not None:
            lines.insert(0, _trace(error.__cause__))  # a coroutine that raised StopIteration, say
        return "".join(lines)
    except Exception as wrong:  # noqa: BLE001 - a foreign exception may not even print
        return f"{type(error).__name__} (its traceback cannot be shown: {type(wrong).__name__})"


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
            thread.run(lambda: asyncio.run(_awaited(getattr(self.harness, name)())), SERVER_LIMIT)
        except Hung as hung:
            raise HarnessError(f"{name}() did not come back: {hung}", hung.stack) from None
        except Exception as error:
            raise HarnessError(f"{name}() raised {_said(error)}", _trace(error)) from error
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
    def is_async(self) -> bool:
        """Whether the journals opened so far are async."""
        return self._loop is not None

    def open(self, worker: str) -> Handle:
        """Open one more handle over the same store.

        Raises:
            HarnessError: when the author's ``open`` raises, hangs, or returns no journal.
        """
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
            raise HarnessError(f"{what} raised KeyboardInterrupt", _trace(interrupt.error)) from None
        except KeyboardInterrupt:
            raise  # Ctrl-C while we waited
        except BaseException as error:
            raise HarnessError(f"{what} raised {_said(error)}", _trace(error)) from error

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
            self._guard("close()", lambda: runner.run(lambda: _awaited(close(journal)), self.limit))
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
    return await _awaited(harness.open())


def _is_async(journal: Any) -> bool:
    return inspect.iscoroutinefunction(getattr(journal, "append", None))
