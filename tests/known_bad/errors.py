"""Wrong in errors (ATM), and adapters that misbehave in other ways."""

from __future__ import annotations

import sys
import threading

from continuum_adapters.in_memory import InMemoryJournal

from continuum_conformance.contract import (
    JournalError,
    JournalUnavailable,
    RunNotFound,
    SequenceConflict,
)

from .registry import unusual, wrong


class IntegrityError(Exception):
    """A driver's own."""


@wrong(
    "ATM-2",
    "APP-2",
    message=r"an exception that is no contract error, IntegrityError",
    seen_in="https://github.com/dbos-inc/dbos-transact-py/issues/812",
)
class RawDriverError(InMemoryJournal):
    """The unique key does its work, and the driver's error goes to the caller as it is."""

    def append(self, instance, run_id, event, lease_token):
        try:
            super().append(instance, run_id, event, lease_token)
        except SequenceConflict as error:
            raise IntegrityError("UNIQUE constraint failed: events.run_id, events.seq") from error


@wrong("ATM-2", "APP-5", message=r"an exception that is no contract error, KeyError")
class KeyErrorForUnknownRun(InMemoryJournal):
    """runs[key] for a run that is not there."""

    def append(self, instance, run_id, event, lease_token):
        try:
            super().append(instance, run_id, event, lease_token)
        except RunNotFound as error:
            raise KeyError((instance.name, run_id)) from error


@wrong("ATM-2", message=r"an exception that is no contract error, SystemExit")
class ExitsTheProcess(InMemoryJournal):
    """A command-line tool became a library: an unknown run ends the process."""

    def suspend(self, instance, run_id, lease_token):
        try:
            super().suspend(instance, run_id, lease_token)
        except RunNotFound:
            sys.exit(f"no such run: {run_id}")


@wrong(
    "ATM-2",
    message=r"the wrong error, JournalUnavailable|an exception that is no contract error, JournalError",
)
class OneErrorForAll(InMemoryJournal):
    """Every refusal is a plain JournalError: callers can read the text."""

    def append(self, instance, run_id, event, lease_token):
        try:
            super().append(instance, run_id, event, lease_token)
        except JournalError as error:
            raise JournalError(str(error)) from error


@wrong("APP-5", message=r"the wrong error, JournalUnavailable")
class UnavailableForEverything(InMemoryJournal):
    """Any exception on the way to the store is taken for a lost connection."""

    def append(self, instance, run_id, event, lease_token):
        try:
            super().append(instance, run_id, event, lease_token)
        except RunNotFound as error:
            raise JournalUnavailable("foreign key violation") from error


@wrong("ATM-3", message=r"but raised (the wrong error, )?JournalUnavailable")
class ClosedAfterAnError(InMemoryJournal):
    """An error poisons the connection, and nobody opens another."""

    def append(self, instance, run_id, event, lease_token):
        try:
            super().append(instance, run_id, event, lease_token)
        except SequenceConflict:
            self.close()
            raise


@wrong("ATM-3", message=r"did not come back: no answer within 1 s", limit=1.0)
class LockKeptAfterAnError(InMemoryJournal):
    """lock.acquire() and lock.release() without try and finally: an error keeps the lock."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._guard = self._store.__dict__.setdefault("guard", threading.Lock())

    def append(self, instance, run_id, event, lease_token):
        self._guard.acquire()
        super().append(instance, run_id, event, lease_token)
        self._guard.release()


@wrong("FIN-1", message=r"suspend did not come back: no answer within 1 s", limit=1.0)
class SecondSuspendHangs(InMemoryJournal):
    """suspend waits for the row to change, and a second one changes nothing."""

    def suspend(self, instance, run_id, lease_token):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None and run.state.value == "suspended" and run.token == lease_token:
            threading.Event().wait()
        super().suspend(instance, run_id, lease_token)


@wrong("LOD-1", message=r"load returned garbage: a list of events was due, not a tuple")
class LoadReturnsATuple(InMemoryJournal):
    """A history cannot change, so load gives a tuple."""

    def load(self, instance, run_id):
        return tuple(super().load(instance, run_id))


@wrong("RUN-1", message=r"get_run returned garbage: .* no attribute")
class RunIsADict(InMemoryJournal):
    """get_run gives the row as a dict."""

    def get_run(self, instance, run_id):
        run = super().get_run(instance, run_id)
        return None if run is None else {"run_id": run.run_id, "state": run.state}


@wrong("FIN-2", message=r"the run's state must be running, suspended, completed or failed, not 'done'")
class StateHasAnotherName(InMemoryJournal):
    """A completed run is called done."""

    def get_run(self, instance, run_id):
        run = super().get_run(instance, run_id)
        if run is None or run.state.value != "completed":
            return run

        class Row:
            def __getattr__(self, name):
                return "done" if name == "state" else getattr(run, name)

        return Row()


@unusual("APP-1", "APP-9", "ATM-3")
class WritesToStdout(InMemoryJournal):
    """print() was left in from debugging: ugly, but no clause is about it."""

    def append(self, instance, run_id, event, lease_token):
        print("append", run_id)
        super().append(instance, run_id, event, lease_token)


@unusual("APP-1", "APP-2")
class ReturnsTheSeq(InMemoryJournal):
    """append returns the event where the contract says None; a remark, no failure."""

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        return len(self._store.runs[instance.name, run_id].events) - 1
