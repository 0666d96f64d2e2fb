"""Wrong in suspend, complete and fail (FIN)."""

from __future__ import annotations

from continuum_adapters.in_memory import InMemoryJournal, RunRecord

from continuum_conformance.contract import RunNotActive, RunNotFound, RunState
from continuum_conformance.contract.arguments import check_lease, check_token, check_ttl
from continuum_conformance.contract.records import Lease

from .registry import unusual, wrong


@wrong("FIN-1", message=r"suspend should have answered None, but raised RunNotActive")
class SuspendTwiceRefused(InMemoryJournal):
    """The update is bound to state = 'running', so that a repeated suspend touches no row."""

    def suspend(self, instance, run_id, lease_token):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None and run.state is RunState.SUSPENDED and run.token == lease_token:
            raise RunNotActive
        super().suspend(instance, run_id, lease_token)


@wrong("FIN-2", message=r"the run's result changed: None \(NoneType\) became")
class OneColumnForResultAndError(InMemoryJournal):
    """Result and error share a column, and get_run gives it as both."""

    def fail(self, instance, run_id, error, lease_token):
        super().fail(instance, run_id, error, lease_token)
        run = self._store.runs[instance.name, run_id]
        run.result = run.error


@wrong("FIN-2", message=r"(complete|fail) should have answered None, but raised RunNotActive")
class SuspendedRunCannotFinish(InMemoryJournal):
    """A run must be running to be finished: suspended to completed is missing from the table of transitions."""

    def _finish(self, key, token, state, **terms):
        run = self._store.runs.get(key)
        if run is not None and run.state is RunState.SUSPENDED and run.token == token:
            raise RunNotActive("resume it first")
        super()._finish(key, token, state, **terms)


class _Refinishing(InMemoryJournal):
    """Lets a terminal run be finished again, in some way."""

    def _again(self, run, state, result, error):
        raise NotImplementedError

    def _finish(self, key, token, state, *, result=None, error=None):
        with self._locked() as runs:
            run = runs.get(key)
            terminal = run is not None and run.state.terminal
        if not terminal or token is not None:
            super()._finish(key, token, state, result=result, error=error)
        else:
            self._again(run, state, result, error)


@wrong(
    "FIN-3",
    message=r"(complete|fail) was accepted, though .*RunNotActive.* was due",
    seen_in="https://github.com/dbos-inc/dbos-transact-java/pull/467",
)
class SecondFinishReplaces(_Refinishing):
    """The update has no condition on the state: the last finish wins."""

    def _again(self, run, state, result, error):
        run.state, run.result, run.error = state, result, error


@wrong("FIN-3", message=r"complete was accepted, though .*RunNotActive.* was due")
class FinishIsIdempotent(_Refinishing):
    """A second complete is taken for a retry and answered with success, whatever its result."""

    def _again(self, run, state, result, error):
        if run.state is not state:
            raise RunNotActive


@wrong("FIN-3", message=r"the run's (result|error) changed")
class RefusedFinishReplaces(_Refinishing):
    """The result is written first and the state after; the second statement is the one that refuses."""

    def _again(self, run, state, result, error):
        run.result, run.error = result, error
        raise RunNotActive


@wrong("FIN-4", message=r"(suspend|complete|fail) was accepted, though RunNotFound was due")
class FinishOfUnknownRunIgnored(InMemoryJournal):
    """An UPDATE that touches no row is no error, and nobody counts."""

    def _finish(self, key, token, state, **terms):
        try:
            super()._finish(key, token, state, **terms)
        except RunNotFound:
            return


@wrong("FIN-4", message=r"get_run found a running run where there is none")
class PhantomRunFromRejectedSuspend(InMemoryJournal):
    """The row is made by INSERT OR IGNORE so that the UPDATE has something to touch; the check comes last."""

    def suspend(self, instance, run_id, lease_token):
        try:
            super().suspend(instance, run_id, lease_token)
        except RunNotFound:
            self._store.runs[instance.name, run_id] = RunRecord("", None)
            raise


@wrong("FIN-5", message=r"the history has more events than it must")
class FinishWritesAnEvent(InMemoryJournal):
    """The end of a run is recorded in its history too, as a run_completed event."""

    def complete(self, instance, run_id, result, lease_token):
        super().complete(instance, run_id, result, lease_token)
        run = self._store.runs[instance.name, run_id]
        run.events.append({"type": "run_completed", "seq": len(run.events)})


@wrong("FIN-5", "LOD-4", message=r"the history has fewer events than it must: 0 instead of")
class FinishClearsHistory(InMemoryJournal):
    """Nobody replays a finished run, so its events are deleted to save space."""

    def complete(self, instance, run_id, result, lease_token):
        super().complete(instance, run_id, result, lease_token)
        self._store.runs[instance.name, run_id].events.clear()


@wrong("FIN-6", message=r"the run's result changed: .* became None \(NoneType\)")
class FalsyResultLost(InMemoryJournal):
    """`result or None`: 0, False and the empty list are taken for no result."""

    def complete(self, instance, run_id, result, lease_token):
        super().complete(instance, run_id, result or None, lease_token)


@wrong("FIN-6", message=r"the run's error changed: .* became")
class ErrorKeptAsText(InMemoryJournal):
    """The error column is text, so str(error) goes in."""

    def fail(self, instance, run_id, error, lease_token):
        self._take_in(error, "error")
        super().fail(instance, run_id, None if error is None else str(error), lease_token)


class _KeepsLease(InMemoryJournal):
    """A finish leaves the lease in its columns."""

    def _end_lease(self, run):
        if not run.state.terminal:
            super()._end_lease(run)


@wrong("FIN-7", message=r"renew was accepted, though LeaseLost or RunNotActive was due")
class TerminalRunRenewed(_KeepsLease):
    """The lease is a row of its own that a finish leaves behind, and renew looks at that row alone."""

    def renew(self, instance, lease, ttl):
        held = check_lease(lease)
        seconds = check_ttl(ttl)
        with self._locked() as runs:
            run = self._require_run(runs, self._key(instance, held.run_id))
            self._check_holder(run, held)
            run.expires_at = self._expiry(seconds)
        return Lease(held.run_id, held.owner, held.token)


@wrong(
    "FIN-7", message=r"load_with_snapshot should have answered .*, but raised (LeaseMismatch|RunNotActive)"
)
class TerminalRunWithoutPair(InMemoryJournal):
    """load_with_snapshot is for workers, so it takes active runs alone."""

    def load_with_snapshot(self, instance, run_id, lease_token):
        run = self._store.runs.get(self._key(instance, run_id))
        check_token(lease_token)
        if run is not None and run.state.terminal:
            raise RunNotActive
        return super().load_with_snapshot(instance, run_id, lease_token)


@unusual("FIN-7", "APP-6", "FIN-3", "LEA-3")
class KeepsTheLeaseOfAFinishedRun(_KeepsLease):
    """A finish leaves the lease as it was: the contract leaves that to the adapter."""


@unusual("LEA-4", "FEN-2", "FEN-4", "LEA-5")
class SparseTokens(InMemoryJournal):
    """Tokens grow by a thousand, and every run begins elsewhere: they need not be dense."""

    def _new_token(self, run):
        run.last_token += 1000 + len(self._store.runs)
        return run.last_token


@unusual("LEA-5", "LEA-6")
class RenewReturnsNone(InMemoryJournal):
    """renew returns None, as it may."""

    def renew(self, instance, lease, ttl):
        super().renew(instance, lease, ttl)
