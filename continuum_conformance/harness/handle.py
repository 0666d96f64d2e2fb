"""One opened journal: carrying out an operation, whatever the author's code then does."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from continuum_conformance.contract.errors import JournalError
from continuum_conformance.contract.terms import shown
from continuum_conformance.harness.answers import outcome_of_value, said, trace_of
from continuum_conformance.harness.cancelling import Cancelling, cancelled_at
from continuum_conformance.harness.threads import AdapterInterrupt, CallThread, Hung, LoopThread
from continuum_conformance.model import Kind, Operation, Outcome

if TYPE_CHECKING:
    from continuum_conformance.harness.subject import Subject

__all__ = ["Handle", "HarnessError", "awaited"]


class HarnessError(Exception):
    """The author's ``open``, ``close`` or ``translate`` failed; the message says how, ``detail`` where."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


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
                value = self._runner.run(lambda: awaited(method(*arguments)), seconds, then=then)
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
            value = await awaited(method(*operation.positional()))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the adapter's code: all that it raises is its answer
            return self._outcome_of(error)
        return self._answered(operation, value)

    def cancelled(
        self, operation: Operation, number: int, beside: Operation | None = None
    ) -> tuple[Outcome, Cancelling]:
        """Carry out an operation of an async journal, cancelled where it waits for the ``number``-th time, from 1.

        Args:
            operation: the operation.
            number: where it is cancelled.
            beside: another one, which begins just after it and is not cancelled.

        Returns:
            The outcome, which is unknown where it raised ``CancelledError``, and how it came to it.
        """
        if not isinstance(self._runner, LoopThread):
            raise TypeError("only an async journal can be cancelled")
        try:
            found: Cancelling = self._runner.run(
                lambda: cancelled_at(
                    self.direct_async(operation),
                    number,
                    self.direct_async(beside) if beside is not None else None,
                ),
                self._subject.limit,
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
        detail = trace_of(error) if traced or not isinstance(error, JournalError) else ""
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
            return replace(raw, message=f"{raw.message} (and translate() raised {said(wrong)})")
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
            return self._runner.run(lambda: awaited(act()), limit)
        return self._runner.run(act, limit)

    def close(self) -> None:
        """Close through the harness, when it has a ``close``. Raises `HarnessError`."""
        self._subject.close(self)


async def awaited(value: Any) -> Any:
    """What an awaitable gives; else the value itself."""
    return await value if inspect.isawaitable(value) else value


def _raise(error: BaseException, *_arguments: Any) -> Any:
    raise error
