"""Wrong in appending (APP)."""

from __future__ import annotations

from collections.abc import Mapping

from continuum_adapters.in_memory import InMemoryJournal, RunRecord

from continuum_conformance.contract import (
    JournalError,
    RunNotActive,
    RunNotFound,
    RunState,
    SequenceConflict,
)
from continuum_conformance.contract.arguments import check_event, check_token
from continuum_conformance.contract.terms import copy_term

from .registry import wrong


@wrong("APP-1", message=r"the history differs: 0 became 1 at events\[0\]\.seq; the seqs read 1")
class FirstSeqIsOne(InMemoryJournal):
    """The seq is the number of events after the insert, which begins at 1."""

    def _give_out(self, term):
        given = super()._give_out(term)
        if isinstance(given, dict) and "seq" in given and "type" in given:
            given["seq"] += 1
        return given


@wrong("APP-1", message=r"the seqs read|append should have answered")
class OneCounterForAllRuns(InMemoryJournal):
    """The seq comes from one database sequence, which all runs share."""

    def _next_seq(self, run, given):
        super()._next_seq(run, given)
        return sum(len(other.events) for other in self._store.runs.values())


@wrong("APP-2", message=r"append was accepted, though SequenceConflict was due")
class DuplicateSeqAccepted(InMemoryJournal):
    """A seq that is taken already is appended again: there is no unique key on (run, seq)."""

    def _next_seq(self, run, given):
        if given is not None and 0 <= given < len(run.events):
            return given
        return super()._next_seq(run, given)


class _Quiet(Exception):
    """Ends an append without an error."""


@wrong("APP-2", message=r"append was accepted, though SequenceConflict was due")
class DuplicateSeqIgnored(InMemoryJournal):
    """ON CONFLICT DO NOTHING: a retried append is welcome, and so is another writer's event under its seq."""

    def append(self, instance, run_id, event, lease_token):
        try:
            super().append(instance, run_id, event, lease_token)
        except SequenceConflict as error:
            if "seq -" in error.reason or int(error.reason.split()[1]) >= int(error.reason.split()[3]):
                raise


@wrong("APP-2", message=r"append was accepted, though SequenceConflict was due")
class GapAccepted(InMemoryJournal):
    """Only duplicates are refused, by the unique key; a seq that skips some is not looked at."""

    def _next_seq(self, run, given):
        return given if given is not None and given > len(run.events) else super()._next_seq(run, given)


@wrong("APP-2", message=r"append was accepted, though SequenceConflict was due")
class NegativeSeqAccepted(InMemoryJournal):
    """The check is `seq > next`, which says nothing about a negative one."""

    def _next_seq(self, run, given):
        return super()._next_seq(run, None if given is not None and given < 0 else given)


@wrong("APP-2", message=r"append should have raised .*SequenceConflict.*the wrong error, JournalUnavailable")
class HugeSeqUnavailable(InMemoryJournal):
    """A seq of more than 64 bits makes the driver fail, which the adapter takes for a lost connection."""

    def append(self, instance, run_id, event, lease_token):
        from continuum_conformance.contract import JournalUnavailable

        try:
            super().append(instance, run_id, event, lease_token)
        except SequenceConflict as error:
            if abs(int(error.reason.split()[1])) >= 2**63:
                raise JournalUnavailable("int too big to convert") from error
            raise


@wrong("APP-2", message=r"append was accepted, though SequenceConflict was due")
class SeqWrapsAt32Bits(InMemoryJournal):
    """The seq is packed into four bytes of a key."""

    def _next_seq(self, run, given):
        return super()._next_seq(run, None if given is None else given & 0xFFFFFFFF)


class _CheckedSeq(InMemoryJournal):
    """Normalises a seq before the check that would refuse it."""

    def _seq(self, seq):
        raise NotImplementedError

    def append(self, instance, run_id, event, lease_token):
        if isinstance(event, Mapping) and "seq" in event:
            event = {**event, "seq": self._seq(event["seq"])}
        super().append(instance, run_id, event, lease_token)


@wrong("APP-3", message=r"append was accepted, though InvalidArgument was due|wrong error, SequenceConflict")
class BoolSeqAccepted(_CheckedSeq):
    """The check is isinstance(seq, int), and True is an int."""

    def _seq(self, seq):
        return int(seq) if isinstance(seq, bool) else seq


@wrong("APP-3", message=r"append was accepted, though InvalidArgument was due|wrong error, SequenceConflict")
class FloatSeqAccepted(_CheckedSeq):
    """A seq that went through JSON comes back as 1.0, which equals 1."""

    def _seq(self, seq):
        return int(seq) if isinstance(seq, float) and seq == seq else seq


@wrong("APP-3", message=r"append was accepted, though InvalidArgument was due|wrong error, SequenceConflict")
class TextSeqAccepted(_CheckedSeq):
    """The seq comes out of a URL or an environment variable, so int() is helpful."""

    def _seq(self, seq):
        return int(seq) if isinstance(seq, str) and seq.isdigit() else seq


@wrong("APP-4", message=r"append was accepted, though InvalidArgument was due")
class UntypedEventAccepted(InMemoryJournal):
    """An event without a type is given one: better than losing it."""

    def append(self, instance, run_id, event, lease_token):
        if isinstance(event, Mapping) and not event.get("type"):
            event = {"type": "unknown", **{k: v for k, v in event.items() if k != "type"}}
        super().append(instance, run_id, event, lease_token)


@wrong("APP-4", message=r"append was accepted, though InvalidArgument was due")
class PairsAccepted(InMemoryJournal):
    """dict(event) takes a list of pairs, and the empty list, too."""

    def append(self, instance, run_id, event, lease_token):
        if isinstance(event, list):
            event = {"type": "paid", **dict(event)}
        super().append(instance, run_id, event, lease_token)


@wrong("APP-4", message=r"append was accepted, though InvalidArgument was due")
class EventKeysMadeText(InMemoryJournal):
    """json.dumps makes every key a string: {1: "x"} becomes {"1": "x"}."""

    def append(self, instance, run_id, event, lease_token):
        if isinstance(event, Mapping):
            event = {str(key) if isinstance(key, int) else key: value for key, value in event.items()}
        super().append(instance, run_id, event, lease_token)


@wrong("APP-5", message=r"get_run found a running run where there is none")
class PhantomRunFromRejectedAppend(InMemoryJournal):
    """The history is made with setdefault before the run is looked up; the error comes after."""

    def append(self, instance, run_id, event, lease_token):
        try:
            super().append(instance, run_id, event, lease_token)
        except RunNotFound:
            self._store.runs[instance.name, run_id] = RunRecord("unknown", None)
            raise


@wrong("APP-5", message=r"append was accepted, though RunNotFound was due")
class AppendToUnknownRunIgnored(InMemoryJournal):
    """INSERT ... SELECT from the run's row inserts nothing when there is none, and nobody counts the rows."""

    def append(self, instance, run_id, event, lease_token):
        try:
            super().append(instance, run_id, event, lease_token)
        except RunNotFound:
            return


@wrong("APP-6", "FIN-3", message=r"append was accepted, though .*RunNotActive.* was due")
class TerminalRunAppendedTo(InMemoryJournal):
    """The state is checked in the transitions; append looks only at the fence."""

    def append(self, instance, run_id, event, lease_token):
        key = self._key(instance, run_id)
        token = check_token(lease_token)
        checked, seq = check_event(event)
        stored = copy_term(checked)
        with self._locked() as runs:
            run = self._require_run(runs, key)
            if not run.state.terminal:
                self._check_fence(run, token)
            stored["seq"] = self._next_seq(run, seq)
            run.events.append(stored)


@wrong("APP-6", message=r"append was accepted, though .*RunNotActive.* was due")
class LastHolderMayAppendToTerminalRun(InMemoryJournal):
    """A late event of the worker that finished the run is let in, since its token was right until then."""

    def _end_lease(self, run):
        if run.state.terminal:
            run.last_holder = run.token
        super()._end_lease(run)

    def append(self, instance, run_id, event, lease_token):
        try:
            super().append(instance, run_id, event, lease_token)
        except RunNotActive:
            run = self._store.runs[instance.name, run_id]
            if lease_token is None or lease_token != getattr(run, "last_holder", None):
                raise
            checked, seq = check_event(event)
            run.events.append({**copy_term(checked), "seq": self._next_seq(run, seq)})


@wrong("APP-7", message=r"append should have answered None, but raised RunNotActive")
class SuspendedRunRefusesAppend(InMemoryJournal):
    """The condition is state = 'running'; a suspended run seemed asleep."""

    def append(self, instance, run_id, event, lease_token):
        key = self._key(instance, run_id)
        run = self._store.runs.get(key)
        if run is not None and run.state is RunState.SUSPENDED:
            check_event(event)
            self._check_fence(run, check_token(lease_token))
            raise RunNotActive
        super().append(instance, run_id, event, lease_token)


class _AfterAppend(InMemoryJournal):
    """Does something more once an append went through."""

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        with self._locked() as runs:
            self._also(runs[instance.name, run_id], event)

    def _also(self, run, event):
        raise NotImplementedError


@wrong("APP-7", "APP-8", message=r"the run is running, but it must be suspended")
class AppendWakesTheRun(_AfterAppend):
    """A signal that arrives wakes the run: append sets the state to running."""

    def _also(self, run, event):
        run.state = RunState.RUNNING


@wrong("APP-8", message=r"acquire should have answered a lease|acquire should have raised")
class AppendRenewsTheLease(_AfterAppend):
    """An append counts as a heartbeat and extends the lease, expired or not."""

    def _also(self, run, event):
        if run.token is not None:
            run.expires_at = self._clock() + 3600


@wrong("APP-8", message=r"the snapshot|no snapshot came")
class AppendDropsSnapshots(_AfterAppend):
    """A snapshot that does not reach the end is stale, so append invalidates it."""

    def _also(self, run, event):
        run.snapshots.clear()


@wrong("APP-9", message=r"the seqs read|should have answered None, but raised SequenceConflict")
class RefusedAppendBurnsASeq(InMemoryJournal):
    """The counter is a database sequence: it goes up before the check and does not roll back."""

    def append(self, instance, run_id, event, lease_token):
        try:
            super().append(instance, run_id, event, lease_token)
        except Exception:
            run = self._store.runs.get(self._key(instance, run_id))
            if run is not None:
                run.burnt = getattr(run, "burnt", 0) + 1
            raise

    def _next_seq(self, run, given):
        upcoming = len(run.events) + getattr(run, "burnt", 0)
        if given is not None and given != upcoming:
            raise SequenceConflict(f"seq {given} given, {upcoming} is next")
        return upcoming


@wrong("APP-9", message=r"the history has more events than it must")
class RefusedAppendIsStored(InMemoryJournal):
    """The event is inserted first and fenced afterwards, in two transactions."""

    def _check_fence(self, run, token):
        if token != run.token and token is not None:
            run.events.append({"type": "late", "seq": len(run.events)})
        super()._check_fence(run, token)


@wrong("APP-10", message=r"the run is|found nothing|the history (has|differs)")
class HandleLocalCache(InMemoryJournal):
    """Each handle caches the runs that it has read, and drops them only when it writes itself."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._cache = {}

    def get_run(self, instance, run_id):
        key = self._key(instance, run_id)
        if key not in self._cache:
            found = super().get_run(instance, run_id)
            if found is None:
                return None
            self._cache[key] = found
        return super().get_run(instance, run_id) and self._cache[key]

    def suspend(self, instance, run_id, lease_token):
        super().suspend(instance, run_id, lease_token)
        self._cache.clear()

    def complete(self, instance, run_id, result, lease_token):
        super().complete(instance, run_id, result, lease_token)
        self._cache.clear()

    def fail(self, instance, run_id, error, lease_token):
        super().fail(instance, run_id, error, lease_token)
        self._cache.clear()


@wrong("APP-10", message=r"the history has fewer events|should have answered None, but raised")
class WriteBehind(InMemoryJournal):
    """A handle buffers its appends and writes them with its next call, to save round trips."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._buffer = []

    def _key(self, instance, run_id):
        key = super()._key(instance, run_id)
        while self._buffer:
            run, event = self._buffer.pop(0)
            run.events.append({**event, "seq": len(run.events)})
        return key

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        run = self._store.runs[instance.name, run_id]
        self._buffer.append((run, run.events.pop()))


@wrong("APP-1", message=r"the history has fewer events than it must")
class DropsWhatHasItsId(InMemoryJournal):
    """An event whose id the history has already is taken for a redelivery."""

    def append(self, instance, run_id, event, lease_token):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None and isinstance(event, dict) and event.get("event_id") is not None:
            known = any(each.get("event_id") == event["event_id"] for each in run.events)
            if known and run.token == lease_token and not run.state.terminal and event.get("seq") is None:
                return
        super().append(instance, run_id, event, lease_token)


@wrong("APP-9", message=r"the history differs")
class RefusalsTakeTheirPayload(InMemoryJournal):
    """Large payloads are stored once, by their content; a refused append deletes its own, which an earlier event shares."""

    def append(self, instance, run_id, event, lease_token):
        try:
            super().append(instance, run_id, event, lease_token)
        except JournalError:
            run = self._store.runs.get(self._key(instance, run_id))
            for stored in run.events if run is not None and isinstance(event, dict) else ():
                shared = stored.get("payload")
                if type(shared) is str and len(shared) > 1024 and shared == event.get("payload"):
                    stored["payload"] = None
            raise
