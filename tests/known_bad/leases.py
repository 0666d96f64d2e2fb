"""Wrong in leases (LEA)."""

from __future__ import annotations

import contextlib
import math

from continuum_adapters.in_memory import TAKEABLE, InMemoryJournal, RunRecord

from continuum_conformance.contract import (
    JournalError,
    LeaseHeld,
    LeaseLost,
    LeaseMismatch,
    RunNotActive,
    RunNotFound,
)
from continuum_conformance.contract.arguments import check_lease, check_name, check_ttl
from continuum_conformance.contract.records import Lease

from .registry import wrong


@wrong(
    "LEA-1",
    message=r"acquire should have answered a lease .*, but raised LeaseHeld",
    seen_in="https://github.com/square/mongo-lock/issues/4",
)
class ExpiredLeaseNotTakeable(InMemoryJournal):
    """A lease is held until it is released; the expiry is stored, and nobody looks at it."""

    def _is_takeable(self, run):
        return run.token is None


@wrong("LEA-1", message=r"the lease is for run .* and owner 'alice', not .* and 'bob'")
class TakeoverKeepsTheOldOwner(InMemoryJournal):
    """The takeover updates token and expiry and forgets the owner's column."""

    def acquire(self, instance, run_id, owner, ttl):
        run = self._store.runs.get(self._key(instance, run_id))
        before = run.owner if run is not None else None
        lease = super().acquire(instance, run_id, owner, ttl)
        if before is None:
            return lease
        run.owner = before
        return Lease(run_id, before, lease.token)


@wrong("LEA-1", message=r"acquire should have answered a lease, but raised RunNotActive")
class SuspendedRunCannotBeAcquired(InMemoryJournal):
    """Only running runs are handed to workers."""

    def acquire(self, instance, run_id, owner, ttl):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None and run.state.value == "suspended" and self._is_takeable(run):
            check_name(owner, "owner")
            check_ttl(ttl)
            raise RunNotActive
        return super().acquire(instance, run_id, owner, ttl)


@wrong("LEA-2", message=r"acquire was accepted, though LeaseHeld was due")
class ReentrantForItsOwner(InMemoryJournal):
    """A worker that asks for its own lease again gets it: it may have lost the reply."""

    def acquire(self, instance, run_id, owner, ttl):
        try:
            return super().acquire(instance, run_id, owner, ttl)
        except LeaseHeld:
            run = self._store.runs[instance.name, run_id]
            if run.owner != owner:
                raise
            run.expires_at = self._expiry(ttl)
            return Lease(run_id, owner, run.token)


@wrong("LEA-2", message=r"acquire was accepted, though LeaseHeld was due")
class AcquireSteals(InMemoryJournal):
    """Acquire is an upsert without a condition: the newest worker is the one that lives."""

    def _is_takeable(self, run):
        return True


@wrong("LEA-3", message=r"acquire was accepted, though RunNotFound was due")
class UnknownRunAcquired(InMemoryJournal):
    """Leases are a table of their own, and acquire never looks at the runs."""

    def acquire(self, instance, run_id, owner, ttl):
        try:
            return super().acquire(instance, run_id, owner, ttl)
        except RunNotFound:
            return Lease(run_id, owner, 1)


@wrong("LEA-3", message=r"acquire was accepted, though RunNotActive was due")
class TerminalRunAcquired(InMemoryJournal):
    """Leases are a table of their own, and acquire does not look at the state."""

    def acquire(self, instance, run_id, owner, ttl):
        try:
            return super().acquire(instance, run_id, owner, ttl)
        except RunNotActive:
            run = self._store.runs[instance.name, run_id]
            return Lease(run_id, owner, self._new_token(run))


@wrong("LEA-3s", message=r"LeaseHeld")
class LeaseHeldForUnknownRun(InMemoryJournal):
    """An update that touched no row is LeaseHeld, whatever the cause."""

    def acquire(self, instance, run_id, owner, ttl):
        try:
            return super().acquire(instance, run_id, owner, ttl)
        except (RunNotFound, RunNotActive) as error:
            raise LeaseHeld("somebody holds it") from error


@wrong("LEA-4", message=r"the new token 1 is not greater than 1, which was given before")
class TokenReusedAfterRelease(InMemoryJournal):
    """The token stands in the lease's row, and a release deletes that row: counting begins again at 1."""

    def _end_lease(self, run):
        super()._end_lease(run)
        run.last_token = 0


@wrong("LEA-4", message=r"the new token \d+ is not greater than \d+, which was given before")
class TakeoverKeepsTheToken(InMemoryJournal):
    """A takeover changes the owner and the expiry; the token belongs to the run, it was thought."""

    def _new_token(self, run):
        return run.token if run.token is not None else super()._new_token(run)


@wrong(
    "LEA-4",
    message=r"the new token \d+ is not greater than \d+, which was given before",
    profile="standard",
    seen_in="https://github.com/bsm/redislock/issues/93",
)
class TokenIsRandom(InMemoryJournal):
    """A token only has to be hard to guess, so it is a random number."""

    def _new_token(self, run):
        run.last_token = hash((id(run), run.last_token, len(run.events), run.owner)) % 2**31
        return run.last_token


@wrong("LEA-4", message=r"acquire returned garbage: a lease's token must be an integer, not a str")
class TokenIsText(InMemoryJournal):
    """The token is a UUID."""

    def acquire(self, instance, run_id, owner, ttl):
        lease = super().acquire(instance, run_id, owner, ttl)
        return Lease(run_id, owner, f"{lease.token:032x}")


@wrong("LEA-5", message=r"renew was accepted, though LeaseLost was due")
class OwnerOnlyRenewal(InMemoryJournal):
    """Renewing asks only whether the owner is the same: workers have unique names."""

    def renew(self, instance, lease, ttl):
        held = check_lease(lease)
        run = self._store.runs.get(self._key(instance, held.run_id))
        if run is not None and run.owner == held.owner:
            lease = Lease(held.run_id, held.owner, run.token)
        super().renew(instance, lease, ttl)


@wrong("LEA-5", message=r"renew was accepted, though LeaseLost was due")
class TokenOnlyRenewal(InMemoryJournal):
    """Renewing asks only whether the token is the same: tokens are unique."""

    def renew(self, instance, lease, ttl):
        held = check_lease(lease)
        run = self._store.runs.get(self._key(instance, held.run_id))
        if run is not None and run.token == held.token:
            lease = Lease(held.run_id, run.owner, held.token)
        super().renew(instance, lease, ttl)


@wrong("LEA-5", message=r"acquire should have answered a lease .*, but raised LeaseHeld")
class RenewalAdds(InMemoryJournal):
    """A renewal adds the ttl to what is left instead of counting from now: it can lengthen, never shorten."""

    def renew(self, instance, lease, ttl):
        run = self._store.runs.get(self._key(instance, check_lease(lease).run_id))
        before = run.expires_at if run is not None else TAKEABLE
        super().renew(instance, lease, ttl)
        run.expires_at = max(before, run.expires_at)


@wrong("LEA-5", message=r"acquire (was accepted, though LeaseHeld was due|should have answered a lease)")
class RenewalDoesNothing(InMemoryJournal):
    """Renew checks the holder and returns; the update of the expiry was lost in a merge."""

    def renew(self, instance, lease, ttl):
        run = self._store.runs.get(self._key(instance, check_lease(lease).run_id))
        before = run.expires_at if run is not None else TAKEABLE
        super().renew(instance, lease, ttl)
        run.expires_at = before


@wrong("LEA-5", message=r"renew returned .*, but the lease is")
class RenewalGivesANewToken(InMemoryJournal):
    """Every renewal counts the token up, as a fresh acquire would."""

    def renew(self, instance, lease, ttl):
        super().renew(instance, lease, ttl)
        run = self._store.runs[instance.name, lease.run_id]
        run.token = self._new_token(run)
        return Lease(lease.run_id, lease.owner, run.token)


@wrong("LEA-5", message=r"acquire (was accepted, though LeaseHeld was due|should have answered a lease)")
class RefusedRenewalRevives(InMemoryJournal):
    """The expiry is written before owner and token are compared."""

    def renew(self, instance, lease, ttl):
        held = check_lease(lease)
        seconds = check_ttl(ttl)
        run = self._store.runs.get(self._key(instance, held.run_id))
        if run is not None and run.token is not None:
            run.expires_at = self._expiry(seconds)
        super().renew(instance, lease, ttl)


@wrong("LEA-5", "LEA-1", message=r"acquire should have answered a lease .*, but raised LeaseHeld")
class ZeroTtlMeansDefault(InMemoryJournal):
    """`ttl or DEFAULT_TTL`: 0 is falsy."""

    def _expiry(self, ttl):
        return super()._expiry(ttl or 30)


@wrong("LEA-6", message=r"append should have answered None, but raised LeaseMismatch")
class ExpiredLeaseMayNotWrite(InMemoryJournal):
    """The fence compares the expiry too: a worker that is late by a second is refused though nobody took over."""

    def _check_fence(self, run, token):
        super()._check_fence(run, token)
        if token is not None and run.expires_at <= self._clock():
            raise LeaseMismatch("the lease has expired")


@wrong("LEA-6", message=r"renew should have answered None or the lease, but raised LeaseLost")
class ExpiredLeaseCannotBeRenewed(InMemoryJournal):
    """WHERE expires_at > now() in the renewal."""

    def renew(self, instance, lease, ttl):
        held = check_lease(lease)
        seconds = check_ttl(ttl)
        run = self._store.runs.get(self._key(instance, held.run_id))
        if run is not None and run.expires_at <= self._clock() and seconds >= 0 and not run.state.terminal:
            raise LeaseLost("it has expired")
        return super().renew(instance, lease, ttl)


@wrong(
    "LEA-7",
    message=r"release was accepted, though LeaseLost was due",
    seen_in="https://github.com/nexspence/nexspence/issues/223",
)
class StaleReleaseClearsTheSuccessor(InMemoryJournal):
    """DELETE FROM leases WHERE run_id = ...: whoever releases, the lease is gone."""

    def release(self, instance, lease):
        held = check_lease(lease)
        with self._locked() as runs:
            run = self._require_active(runs, self._key(instance, held.run_id))
            if run.token is None:
                raise LeaseLost
            self._end_lease(run)


@wrong("LEA-7", message=r"release was accepted, though LeaseLost was due")
class StaleReleaseIgnored(InMemoryJournal):
    """Releasing what one does not hold does nothing, and says nothing either."""

    def release(self, instance, lease):
        try:
            super().release(instance, lease)
        except LeaseLost:
            return


@wrong("LEA-7", message=r"should have answered .*, but raised LeaseMismatch")
class ReleaseOnlyExpires(InMemoryJournal):
    """A release sets the expiry to now and leaves the token in place: the run still counts as leased."""

    def release(self, instance, lease):
        held = check_lease(lease)
        with self._locked() as runs:
            run = self._require_active(runs, self._key(instance, held.run_id))
            self._check_holder(run, held)
            run.expires_at = TAKEABLE


@wrong("LEA-8", "FEN-4", message=r"was accepted, though LeaseMismatch was due")
class ReleasedTokenStillWrites(InMemoryJournal):
    """An unleased run takes the last token it gave, so that a worker may still flush after its release."""

    def _check_fence(self, run, token):
        if run.token is None and token is not None and token == run.last_token:
            return
        super()._check_fence(run, token)


class _LooseTtl(InMemoryJournal):
    """Changes a ttl before the check that would refuse it."""

    def _ttl(self, ttl):
        raise NotImplementedError

    def acquire(self, instance, run_id, owner, ttl):
        return super().acquire(instance, run_id, owner, self._ttl(ttl))

    def renew(self, instance, lease, ttl):
        return super().renew(instance, lease, self._ttl(ttl))


@wrong("LEA-10", message=r"(acquire|renew) was accepted, though InvalidArgument was due")
class InfiniteTtlAccepted(_LooseTtl):
    """float("inf") is a way to say: until I release it."""

    def _ttl(self, ttl):
        return 10**8 if ttl == math.inf else ttl


@wrong("LEA-10", message=r"(acquire|renew) was accepted, though InvalidArgument was due")
class NegativeTtlAccepted(_LooseTtl):
    """A negative ttl is a lease that has expired already; max(ttl, 0) makes that true."""

    def _ttl(self, ttl):
        return max(ttl, 0) if isinstance(ttl, (int, float)) and ttl == ttl else ttl


@wrong("LEA-10", message=r"(acquire|renew) was accepted, though InvalidArgument was due")
class BoolTtlAccepted(_LooseTtl):
    """isinstance(ttl, (int, float)) lets True through as one second."""

    def _ttl(self, ttl):
        return int(ttl) if isinstance(ttl, bool) else ttl


@wrong("LEA-10", message=r"(acquire|renew) was accepted, though InvalidArgument was due")
class NanTtlAccepted(_LooseTtl):
    """`if ttl < 0: raise` is false for a nan."""

    def _ttl(self, ttl):
        return 0 if isinstance(ttl, float) and ttl != ttl else ttl


@wrong("LEA-10", message=r"(acquire|renew) was accepted, though InvalidArgument was due")
class TimedeltaTtlAccepted(_LooseTtl):
    """Some callers pass a timedelta, and taking it does no harm."""

    def _ttl(self, ttl):
        return ttl.total_seconds() if hasattr(ttl, "total_seconds") else ttl


@wrong("ISO-2", message=r"acquire was accepted, though LeaseHeld was due|but raised Lease(Mismatch|Lost)")
class FinishReleasesAllOfItsOwner(InMemoryJournal):
    """A finish frees the worker: DELETE FROM leases WHERE owner = ..., without the run."""

    def _end_lease(self, run: RunRecord):
        owner = run.owner
        super()._end_lease(run)
        if run.state.terminal and owner is not None:
            for other in self._store.runs.values():
                if other.owner == owner:
                    super()._end_lease(other)


@wrong("LEA-5", message=r"a lease of 0\.4 s was somebody else's to take")
class WholeSeconds(InMemoryJournal):
    """The column for the ttl is an integer, and what is asked for is cut to fit."""

    def acquire(self, instance, run_id, owner, ttl):
        return super().acquire(instance, run_id, owner, int(check_ttl(ttl)))


@wrong("LEA-2", message=r"acquire was accepted, though LeaseHeld was due")
class CloseReleasesItsLeases(InMemoryJournal):
    """A graceful shutdown: a handle that is closed gives back the leases that it was granted."""

    def acquire(self, instance, run_id, owner, ttl):
        lease = super().acquire(instance, run_id, owner, ttl)
        self.__dict__.setdefault("_granted", []).append((instance, lease))
        return lease

    def close(self):
        for instance, lease in self.__dict__.pop("_granted", ()):
            with contextlib.suppress(JournalError):
                self.release(instance, lease)
        super().close()
