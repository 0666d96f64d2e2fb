"""Wrong in fencing (FEN), and with what is not declared (CAP)."""

from __future__ import annotations

from continuum_adapters.in_memory import InMemoryJournal

from continuum_conformance.contract import InvalidArgument, LeaseMismatch
from continuum_conformance.contract.records import Lease

from .registry import wrong


@wrong("FEN-1", message=r"append should have answered None, but raised LeaseMismatch")
class OnlyItsOwnGrants(InMemoryJournal):
    """A handle accepts only tokens that it granted itself: they are kept in the process, not in the store."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._granted = set()

    def acquire(self, instance, run_id, owner, ttl):
        lease = super().acquire(instance, run_id, owner, ttl)
        self._granted.add((id(self._store.runs[instance.name, run_id]), lease.token))
        return lease

    def _check_fence(self, run, token):
        super()._check_fence(run, token)
        if token is not None and not run.state.terminal and (id(run), token) not in self._granted:
            raise LeaseMismatch("unknown to this process")


class _Fence(InMemoryJournal):
    """Another rule for the fence."""

    def _passes(self, run, token):
        raise NotImplementedError

    def _check_fence(self, run, token):
        if not self._passes(run, token):
            raise LeaseMismatch(f"the token {token} is not the run's")


@wrong("FEN-2", "FEN-6", message=r"was accepted, though LeaseMismatch was due")
class OlderTokenAccepted(_Fence):
    """Any token that this run has given out is good: it proves that the writer was a holder once."""

    def _passes(self, run, token):
        if run.token is None or token is None:
            return run.token is token
        return 1 <= token <= run.last_token


@wrong("FEN-2", message=r"was accepted, though LeaseMismatch was due")
class NewerTokenAccepted(_Fence):
    """The fence is `token >= current`, as in the papers where the store has seen only older ones."""

    def _passes(self, run, token):
        if run.token is None or token is None:
            return run.token is token
        return token >= run.token


@wrong("FEN-2", message=r"was accepted, though LeaseMismatch was due")
class TokenWrapsAt32Bits(_Fence):
    """The token travels in four bytes, and a larger one wraps around."""

    def _passes(self, run, token):
        return run.token == (None if token is None else token % 2**32)


@wrong("FEN-2", message=r"was accepted, though LeaseMismatch or InvalidArgument was due")
class TokenWrapsAt64Bits(_Fence):
    """The token is packed into eight bytes, and a larger one wraps around."""

    def _passes(self, run, token):
        return run.token == (None if token is None else token % 2**64)


@wrong("FEN-2", "FEN-3", message=r"suspend was accepted, though LeaseMismatch was due")
class SuspendUnfenced(InMemoryJournal):
    """Suspending loses nothing, so suspend takes no part in the fencing."""

    def suspend(self, instance, run_id, lease_token):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None and (lease_token is None or type(lease_token) is int) and not run.state.terminal:
            lease_token = run.token
        super().suspend(instance, run_id, lease_token)


@wrong("FEN-6", "FEN-2", message=r"fail was accepted, though LeaseMismatch was due")
class FailUnfenced(InMemoryJournal):
    """A supervisor must be able to fail a run that hangs, so fail is not fenced."""

    def fail(self, instance, run_id, error, lease_token):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None and (lease_token is None or type(lease_token) is int) and not run.state.terminal:
            lease_token = run.token
        super().fail(instance, run_id, error, lease_token)


@wrong("FEN-2", message=r"load_with_snapshot was accepted, though LeaseMismatch was due")
class LoadWithSnapshotUnfenced(InMemoryJournal):
    """load_with_snapshot is a read, and reads are not fenced."""

    def load_with_snapshot(self, instance, run_id, lease_token):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None and (lease_token is None or type(lease_token) is int):
            lease_token = run.token
        return super().load_with_snapshot(instance, run_id, lease_token)


@wrong("FEN-3", message=r"was accepted, though LeaseMismatch was due")
class NilTokenOnLeasedRun(_Fence):
    """None means that the caller does not care for leases, so nothing is compared."""

    def _passes(self, run, token):
        return token is None or token == run.token


@wrong("FEN-3", message=r"was accepted, though LeaseMismatch was due")
class NilTokenOnceExpired(_Fence):
    """An expired lease is as good as none, so None is let in again before anyone took over."""

    def _passes(self, run, token):
        return token == run.token or (token is None and run.expires_at <= self._clock())


@wrong("FEN-3", "RUN-5", message=r"should have answered .*, but raised LeaseMismatch")
class LeaseRequired(_Fence):
    """Nothing is written without a lease: None is refused on an unleased run as well."""

    def _passes(self, run, token):
        return token is not None and token == run.token


@wrong("FEN-4", message=r"was accepted, though LeaseMismatch was due")
class SurplusTokenOnUnleasedRun(_Fence):
    """`if run.token and run.token != token`: a run without a lease compares nothing."""

    def _passes(self, run, token):
        return run.token is None or token == run.token


@wrong("FEN-4", message=r"was accepted, though LeaseMismatch was due")
class ZeroTokenIsNone(_Fence):
    """`if not token` takes 0 for no token."""

    def _passes(self, run, token):
        return (token or None) == run.token


@wrong("FEN-4", message=r"was accepted, though LeaseMismatch was due")
class UnleasedIsMinusOne(_Fence):
    """An unleased run is stored with token -1, and None is translated to it; a caller's -1 is the same."""

    def _passes(self, run, token):
        return (-1 if token is None else token) == (-1 if run.token is None else run.token)


class _LooseToken(InMemoryJournal):
    """Changes a token before the check that would refuse it."""

    def _token(self, token):
        raise NotImplementedError

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, self._token(lease_token))

    def suspend(self, instance, run_id, lease_token):
        super().suspend(instance, run_id, self._token(lease_token))

    def complete(self, instance, run_id, result, lease_token):
        super().complete(instance, run_id, result, self._token(lease_token))

    def fail(self, instance, run_id, error, lease_token):
        super().fail(instance, run_id, error, self._token(lease_token))

    def load_with_snapshot(self, instance, run_id, lease_token):
        return super().load_with_snapshot(instance, run_id, self._token(lease_token))


@wrong("FEN-7", message=r"was accepted, though InvalidArgument|the wrong error, LeaseMismatch")
class BoolTokenAccepted(_LooseToken):
    """isinstance(token, int) is true of True, which equals the first token."""

    def _token(self, token):
        return int(token) if isinstance(token, bool) else token


@wrong("FEN-7", message=r"was accepted, though InvalidArgument|the wrong error, LeaseMismatch")
class FloatTokenAccepted(_LooseToken):
    """A token that went through JSON or a spreadsheet comes back as 1.0."""

    def _token(self, token):
        return int(token) if isinstance(token, float) and token == token else token


@wrong("FEN-7", message=r"was accepted, though InvalidArgument|the wrong error, LeaseMismatch")
class TextTokenAccepted(_LooseToken):
    """Tokens travel in headers, so int(token) is called on whatever comes."""

    def _token(self, token):
        return int(token) if isinstance(token, str) and token.isdigit() else token


@wrong("FEN-7", message=r"the wrong error, LeaseMismatch")
class BadTokenIsAMismatch(_LooseToken):
    """A token of the wrong type is not the run's either, so it is LeaseMismatch."""

    def _token(self, token):
        if token is not None and type(token) is not int:
            raise LeaseMismatch
        return token


@wrong("FEN-8", message=r"was accepted, though InvalidArgument was due", without={"leases"})
class TokenIgnoredWithoutLeases(_LooseToken):
    """Without leases there is nothing to compare a token with, so it is ignored."""

    acquire = renew = release = None

    def _token(self, token):
        return None


@wrong(
    "CAP-1",
    message=r"(acquire|renew|release) (was accepted|should have raised InvalidArgument)",
    without={"leases"},
)
class UndeclaredLeasesHalfWork(InMemoryJournal):
    """The leases are not ready and so not declared, but the methods are there and answer."""


@wrong("CAP-1", message=r"acquire was accepted, though .* was due", without={"leases"})
class UndeclaredLeasesPretended(InMemoryJournal):
    """Code that insists on a lease gets one that means nothing."""

    def acquire(self, instance, run_id, owner, ttl):
        return Lease(run_id, owner, 0)

    def _check_fence(self, run, token):
        if token is not None:
            raise InvalidArgument("leases are not supported")


@wrong("CAP-1", message=r"take_snapshot was accepted, though .* was due", without={"snapshots"})
class UndeclaredSnapshotsDropped(InMemoryJournal):
    """Snapshots are an optimisation, so a store without them may drop them: `pass`."""

    def take_snapshot(self, instance, snapshot):
        pass


@wrong("CAP-1", message=r"the run's input changed: .* became", without={"rich_terms"})
class UndeclaredRichTermsFlattened(InMemoryJournal):
    """Rich terms are not declared, and what JSON does not know is turned into what it knows."""

    def _take_in(self, term, root):
        taken = super()._take_in(term, root)
        return list(taken) if isinstance(taken, (tuple, set, frozenset)) else taken
