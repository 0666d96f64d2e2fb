"""Adapters that are wrong on purpose, in ways that a cluster meets; the docstrings say how people come to it."""

from __future__ import annotations

from continuum_adapters.in_memory import TAKEABLE, InMemoryJournal, RunRecord

from continuum_conformance.contract import Lease, LeaseLost, LeaseMismatch, RunNotActive, RunState
from tests.known_bad.registry import harness_for

WRONG: dict[str, tuple[str, ...]] = {}
"""By target: the clauses of which one must lead the finding."""


def wrong(*clauses):
    def register(cls):
        harness_for(cls)
        WRONG[f"{cls.__module__}:{cls.__qualname__}.Harness"] = clauses
        return cls

    return register


@wrong("FEN-2", "FEN-3", "FEN-4", "FEN-6")
class ChecksNoToken(InMemoryJournal):
    """The token is stored and never compared: only the holder writes, after all."""

    def _check_fence(self, run, token):
        pass


@wrong("FEN-2", "FEN-3", "FEN-4", "FEN-6")
class FinishesForAnyone(InMemoryJournal):
    """Appends are fenced; a finish is rare, and was forgotten."""

    def _finish(self, key, token, state, **terms):
        with self._locked() as runs:
            run = self._require_active(runs, key)
            run.state, run.result, run.error = state, terms.get("result"), terms.get("error")
            self._end_lease(run)


@wrong("FEN-2", "FEN-4")
class AcceptsNewerTokens(InMemoryJournal):
    """Stale tokens are refused by a comparison that lets greater ones, and any on an unleased run, pass."""

    def _check_fence(self, run, token):
        if (token or 0) < (run.token or 0):
            raise LeaseMismatch


@wrong("LEA-6", "FEN-1", "SNP-1", "SNP-2")
class FencesByTheClock(InMemoryJournal):
    """A lease that has expired is worth nothing, so its holder is refused, taken over or not."""

    def _check_fence(self, run, token):
        super()._check_fence(run, token)
        if token is not None and run.expires_at <= self._clock():
            raise LeaseMismatch


@wrong("LEA-6", "LEA-5")
class RenewsOnlyInTime(InMemoryJournal):
    """Who renews too late has lost its lease, though nobody took it."""

    def _check_holder(self, run, lease):
        super()._check_holder(run, lease)
        if run.expires_at <= self._clock():
            raise LeaseLost


@wrong("LEA-2")
class LetsLiveLeasesBeTaken(InMemoryJournal):
    """A lease counts from its granting; a renewal moves nothing."""

    def renew(self, instance, lease, ttl):
        key = self._key(instance, lease.run_id)
        with self._locked() as runs:
            run = self._require_active(runs, key)
            self._check_holder(run, lease)
        return lease


@wrong("LEA-1", "LEA-4")
class NeverExpires(InMemoryJournal):
    """Nobody wrote the takeover: a lease is held until it is released."""

    def _is_takeable(self, run):
        return run.token is None


@wrong("LEA-4", "LEA-1")
class CountsTokensAnew(InMemoryJournal):
    """The token is a column of the lease, and is gone with it."""

    def _end_lease(self, run):
        super()._end_lease(run)
        run.last_token = 0


@wrong("LEA-4", "LEA-1")
class KeepsTheTokenOnTakeover(InMemoryJournal):
    """A takeover changes the owner's name; the token is counted at a release."""

    def _new_token(self, run):
        return run.token if run.token is not None else super()._new_token(run)


@wrong("LEA-5", "FIN-7", "LEA-7")
class RenewsForAnyone(InMemoryJournal):
    """A renewal looks for the owner's name alone, and takes the lease back for one who has lost it."""

    def _check_holder(self, run, lease):
        run.token, run.owner = lease.token, lease.owner


@wrong("LEA-7")
class ReleasesWhateverIsHeld(InMemoryJournal):
    """`UPDATE runs SET token = NULL WHERE id = ?`: the late release of a stale worker frees its successor's lease."""

    def release(self, instance, lease):
        key = self._key(instance, lease.run_id)
        with self._locked() as runs:
            self._end_lease(self._require_active(runs, key))


@wrong("APP-2")
class CountsTheSeqItself(InMemoryJournal):
    """The seq that comes with an event is overwritten by the next one: a retried append is stored twice."""

    def _next_seq(self, run, given):
        return len(run.events)


@wrong("SNP-2", "SNP-3", "FIN-7")
class KeepsTheLastSnapshotTaken(InMemoryJournal):
    """The latest snapshot is the one that came last, be it a stale worker's old one."""

    def _latest_snapshot(self, run):
        return list(run.snapshots.values())[-1] if run.snapshots else None


@wrong("SNP-2", "FIN-7")
class GivesTheSnapshotsOwnEventToo(InMemoryJournal):
    """`seq >= through_seq`."""

    def _events_after(self, run, snapshot):
        return run.events[0 if snapshot is None else snapshot.through_seq :]


@wrong("SNP-5")
class RefusesASnapshotThatItHas(InMemoryJournal):
    """A second snapshot for one seq violates a unique key, equal or not."""

    def _same_snapshot(self, first, second):
        return first is second


@wrong("FIN-3", "APP-6", "FIN-7", "LEA-3", "FEN-6", "FEN-2", "FEN-3")
class TakesFinishedRunsForActive(InMemoryJournal):
    """The state is not looked at by those who write: whoever has finished a run does not write to it."""

    def _require_active(self, runs, key):
        return self._require_run(runs, key)


@wrong("FEN-1", "FIN-1", "ISO-3", "FEN-4", "LEA-7")
class SuspendsTheLeaseToo(InMemoryJournal):
    """A suspended run needs no worker, so its lease is ended with it."""

    def suspend(self, instance, run_id, lease_token):
        super().suspend(instance, run_id, lease_token)
        with self._locked() as runs:
            self._end_lease(runs[self._key(instance, run_id)])


@wrong("APP-7")
class TakesNoEventsWhenSuspended(InMemoryJournal):
    """Only a running run has events to append."""

    def append(self, instance, run_id, event, lease_token):
        with self._locked() as runs:
            run = runs.get(self._key(instance, run_id))
            if run is not None and run.state is RunState.SUSPENDED:
                raise RunNotActive
        super().append(instance, run_id, event, lease_token)


@wrong("LOD-1", "SNP-1", "SNP-2")
class RemembersInTheHandle(InMemoryJournal):
    """What a handle has loaded it keeps, and adds its own appends to: what another worker appends it never sees."""

    def _events_after(self, run: RunRecord, snapshot):
        known = self.__dict__.setdefault("known", {})
        events = known.setdefault(id(run), list(run.events))
        return events[0 if snapshot is None else snapshot.through_seq + 1 :]

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        key = self._key(instance, run_id)
        with self._locked() as runs:
            known = self.__dict__.setdefault("known", {}).get(id(runs[key]))
            if known is not None:
                known.append(runs[key].events[-1])


@wrong("FEN-2", "FEN-4", "FEN-6")
class TrustsItsOwnMemory(InMemoryJournal):
    """A handle that was granted a token remembers it, and asks the store no more."""

    def acquire(self, instance, run_id, owner, ttl):
        lease = super().acquire(instance, run_id, owner, ttl)
        self.__dict__.setdefault("mine", set()).add((self._key(instance, run_id), lease.token))
        return lease

    def append(self, instance, run_id, event, lease_token):
        key = self._key(instance, run_id)
        if (key, lease_token) in self.__dict__.setdefault("mine", set()):
            with self._locked() as runs:
                run = self._require_active(runs, key)
                seq = self._next_seq(run, event.get("seq"))
                run.events.append({**event, "seq": seq})
            return
        super().append(instance, run_id, event, lease_token)


@wrong("RUN-2", "RUN-3")
class StartsAgain(InMemoryJournal):
    """`INSERT ... ON CONFLICT DO UPDATE`: a start that is tried again begins the run anew."""

    def start_run(self, instance, run_id, workflow, input):
        with self._locked() as runs:
            runs.pop(self._key(instance, run_id), None)
        super().start_run(instance, run_id, workflow, input)


@wrong("LEA-2")
class KeepsATtlInReserve(InMemoryJournal):
    """Half of the ttl is kept in reserve for clocks that differ."""

    def _expiry(self, ttl):
        return self._clock() + ttl / 2 if ttl > 0 else TAKEABLE


@wrong("LEA-7", "LEA-5", "FEN-2", "LEA-1")
class TakesAnyLeaseOfTheOwner(InMemoryJournal):
    """The lease is looked up by its owner's name, which a restarted worker has again."""

    def _check_holder(self, run, lease):
        if run.owner != lease.owner:
            raise LeaseLost

    def renew(self, instance, lease, ttl):
        super().renew(instance, lease, ttl)
        return Lease(lease.run_id, lease.owner, lease.token)
