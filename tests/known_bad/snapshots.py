"""Wrong in snapshots (SNP)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from continuum_adapters.in_memory import InMemoryJournal

from continuum_conformance.contract import (
    InvalidArgument,
    RunNotActive,
    RunNotFound,
    Snapshot,
    SnapshotConflict,
)
from continuum_conformance.contract.arguments import check_snapshot

from .registry import wrong


@wrong("SNP-1", message=r"the history has fewer events than it must")
class NothingWithoutASnapshot(InMemoryJournal):
    """An inner join of the events with the latest snapshot: without one there are no rows."""

    def _events_after(self, run, snapshot):
        return [] if snapshot is None else super()._events_after(run, snapshot)


@wrong("SNP-2", message=r"the history (differs|has more events)")
class OffByOneAfterASnapshot(InMemoryJournal):
    """seq >= through_seq: the event that the snapshot covers is replayed once more."""

    def _events_after(self, run, snapshot):
        return run.events[0 if snapshot is None else snapshot.through_seq :]


@wrong("SNP-2", message=r"the history (differs|has fewer events)")
class OneTooFewAfterASnapshot(InMemoryJournal):
    """through_seq is taken for the number of events covered, plus one."""

    def _events_after(self, run, snapshot):
        return run.events[0 if snapshot is None else snapshot.through_seq + 2 :]


@wrong("SNP-2", message=r"the history (differs|has more events)")
class WholeHistoryAfterASnapshot(InMemoryJournal):
    """The snapshot comes with all events, and the engine may skip what it does not need."""

    def _events_after(self, run, snapshot):
        return run.events[:]


@wrong(
    "SNP-3",
    message=r"the snapshot is the one through seq \d, but the one through seq \d is latest",
    seen_in="https://github.com/akka/akka-core/issues/24649",
)
class LatestByTakenAt(InMemoryJournal):
    """ORDER BY taken_at DESC: the snapshot of the worker whose clock is ahead wins."""

    def _latest_snapshot(self, run):
        return max(
            run.snapshots.values(), key=lambda taken: (taken.taken_at, taken.through_seq), default=None
        )


@wrong(
    "SNP-3",
    message=r"the snapshot is the one through seq \d, but the one through seq \d is latest",
    seen_in="https://github.com/langchain-ai/langgraph/issues/8810",
)
class LatestByInsertion(InMemoryJournal):
    """The snapshot that was written last is the latest: one column on the run's row."""

    def _latest_snapshot(self, run):
        return next(reversed(run.snapshots.values()), None)


@wrong("SNP-3", message=r"the snapshot is the one through seq 9, but the one through seq 10 is latest")
class LatestByTextSeq(InMemoryJournal):
    """The seq is a part of a file name, where 9 comes after 10."""

    def _latest_snapshot(self, run):
        return run.snapshots[max(run.snapshots, key=str)] if run.snapshots else None


@wrong("SNP-4", "LOD-4", message=r"the history (has fewer events|differs)")
class SnapshotCompactsHistory(InMemoryJournal):
    """What a snapshot covers is never replayed, so load leaves it out."""

    def load(self, instance, run_id):
        run = self._store.runs.get(self._key(instance, run_id))
        covered = max(run.snapshots, default=-1) if run is not None else -1
        return super().load(instance, run_id)[covered + 1 :]


@wrong("SNP-5", message=r"take_snapshot was accepted, though SnapshotConflict was due")
class SnapshotUpsert(InMemoryJournal):
    """A newer snapshot for the same seq replaces the older one."""

    def take_snapshot(self, instance, snapshot):
        checked = check_snapshot(snapshot)
        run = self._store.runs.get(self._key(instance, checked.run_id))
        if run is not None:
            self._take_in(dict(checked.steps_by_seq), "snapshot")
            run.snapshots.pop(checked.through_seq, None)
        super().take_snapshot(instance, snapshot)


@wrong("SNP-5", message=r"take_snapshot was accepted, though SnapshotConflict was due")
class DifferentSnapshotIgnored(InMemoryJournal):
    """ON CONFLICT DO NOTHING: the first stays, and the second writer is not told that its own differs."""

    def _same_snapshot(self, first, second):
        return True


@wrong(
    "SNP-5",
    message=r"take_snapshot should have answered None, but raised SnapshotConflict",
    seen_in="https://github.com/akka/akka-core/issues/15889",
)
class EqualSnapshotRefused(InMemoryJournal):
    """The unique key is translated to SnapshotConflict, without a look at what is there."""

    def _same_snapshot(self, first, second):
        return first is second


@wrong("SNP-5", message=r"take_snapshot should have answered None, but raised SnapshotConflict")
class TakenAtCompared(InMemoryJournal):
    """The whole records are compared, and a retry has another taken_at."""

    def _same_snapshot(self, first, second):
        return super()._same_snapshot(first, second) and first.taken_at == second.taken_at


@wrong("SNP-5", message=r"take_snapshot was accepted, though SnapshotConflict was due")
class SnapshotsComparedByHash(InMemoryJournal):
    """Two snapshots under one version hash are taken for equal, steps or not."""

    def _same_snapshot(self, first, second):
        return first.version_hash == second.version_hash


@wrong("SNP-5", message=r"take_snapshot was accepted, though SnapshotConflict was due")
class SnapshotsComparedLoosely(InMemoryJournal):
    """Python's == says that {0: 1} and {0: True} are the same."""

    def _same_snapshot(self, first, second):
        return first.version_hash == second.version_hash and first.steps_by_seq == second.steps_by_seq


@wrong("SNP-5", message=r"taken_at became another instant")
class SecondTakenAtStored(InMemoryJournal):
    """An equal snapshot is written again, with the time of the second."""

    def take_snapshot(self, instance, snapshot):
        super().take_snapshot(instance, snapshot)
        run = self._store.runs[instance.name, snapshot.run_id]
        stored = run.snapshots[snapshot.through_seq]
        run.snapshots[snapshot.through_seq] = replace(stored, taken_at=snapshot.taken_at)


@wrong("SNP-6", message=r"take_snapshot was accepted, though RunNotFound was due")
class SnapshotOfUnknownRunAccepted(InMemoryJournal):
    """The snapshots' table has no foreign key to the runs."""

    def take_snapshot(self, instance, snapshot):
        try:
            super().take_snapshot(instance, snapshot)
        except RunNotFound:
            return


@wrong(
    "SNP-7",
    message=r"take_snapshot was accepted, though SnapshotConflict was due",
    seen_in="https://github.com/okumin/akka-persistence-sql-async/issues/6",
)
class SnapshotAheadOfHistory(InMemoryJournal):
    """Whoever takes a snapshot knows what it covers, so its seq is not checked."""

    def _check_through_seq(self, run, through_seq):
        if through_seq < 0:
            raise SnapshotConflict


@wrong("SNP-7", message=r"take_snapshot was accepted, though .*SnapshotConflict.* was due")
class SnapshotBeforeHistory(InMemoryJournal):
    """Only the upper end is checked: a snapshot of a run that has not begun is through seq -1."""

    def _check_through_seq(self, run, through_seq):
        if through_seq >= len(run.events):
            raise SnapshotConflict


@wrong("SNP-7", message=r"take_snapshot should have answered None, but raised SnapshotConflict")
class LastSeqRefused(InMemoryJournal):
    """The check is `through_seq < next_seq - 1`: the last event's own seq is refused."""

    def _check_through_seq(self, run, through_seq):
        super()._check_through_seq(run, through_seq)
        if through_seq == len(run.events) - 1:
            raise SnapshotConflict("the run is not there yet")


@wrong("SNP-8", message=r"key 0.* became '0'")
class StepKeysMadeText(InMemoryJournal):
    """JSON objects have text keys, and nobody turns them back into integers."""

    def load_with_snapshot(self, instance, run_id, lease_token):
        snapshot, events = super().load_with_snapshot(instance, run_id, lease_token)
        if snapshot is not None:
            steps = {str(seq): step for seq, step in snapshot.steps_by_seq.items()}
            snapshot = replace(snapshot, steps_by_seq=steps)
        return snapshot, events


@wrong("SNP-8", message=r"version_hash|\(bytes\) became '.*' \(str\)")
class VersionHashMadeText(InMemoryJournal):
    """The hash is stored in hexadecimal and given back so."""

    def load_with_snapshot(self, instance, run_id, lease_token):
        snapshot, events = super().load_with_snapshot(instance, run_id, lease_token)
        if snapshot is not None:
            snapshot = replace(snapshot, version_hash=snapshot.version_hash.hex())
        return snapshot, events


@wrong("SNP-8", message=r"taken_at became another instant")
class TakenAtInSeconds(InMemoryJournal):
    """The column holds whole seconds."""

    def load_with_snapshot(self, instance, run_id, lease_token):
        snapshot, events = super().load_with_snapshot(instance, run_id, lease_token)
        if snapshot is not None:
            snapshot = replace(snapshot, taken_at=snapshot.taken_at.replace(microsecond=0))
        return snapshot, events


@wrong("SNP-8", message=r"which is no aware datetime")
class TakenAtWithoutZone(InMemoryJournal):
    """A timestamp column without a time zone gives back a naive datetime."""

    def load_with_snapshot(self, instance, run_id, lease_token):
        snapshot, events = super().load_with_snapshot(instance, run_id, lease_token)
        if snapshot is not None:
            snapshot = replace(snapshot, taken_at=snapshot.taken_at.replace(tzinfo=None))
        return snapshot, events


@wrong("SNP-9", message=r"take_snapshot should have answered None, but raised RunNotActive")
class NoSnapshotOfATerminalRun(InMemoryJournal):
    """A finished run is never replayed, so there is nothing to take a snapshot for."""

    def _check_through_seq(self, run, through_seq):
        super()._check_through_seq(run, through_seq)
        if run.state.terminal:
            raise RunNotActive


@wrong("SNP-11", message=r"load_with_snapshot was accepted, though RunNotFound was due")
class UnknownRunIsAnEmptyPair(InMemoryJournal):
    """Like load, which answers [] for an unknown run."""

    def load_with_snapshot(self, instance, run_id, lease_token):
        try:
            return super().load_with_snapshot(instance, run_id, lease_token)
        except RunNotFound:
            return None, []


@wrong(
    "SNP-12",
    "ISO-1",
    message=r"the snapshot (is|differs)|a snapshot came|should have answered None, but raised Snap",
)
class SnapshotsByRunIdAlone(InMemoryJournal):
    """The snapshots' key lacks the instance: it was added to the other tables later."""

    def take_snapshot(self, instance, snapshot):
        super().take_snapshot(instance, snapshot)
        mine = self._store.runs[instance.name, snapshot.run_id]
        for (_, run_id), run in self._store.runs.items():
            if run_id == snapshot.run_id:
                run.snapshots.setdefault(snapshot.through_seq, mine.snapshots[snapshot.through_seq])


class _LooseSnapshot(InMemoryJournal):
    """Changes a snapshot before the check that would refuse it."""

    def _loosened(self, snapshot: Snapshot) -> Snapshot:
        raise NotImplementedError

    def take_snapshot(self, instance, snapshot):
        super().take_snapshot(instance, self._loosened(snapshot))


@wrong("SNP-13", message=r"take_snapshot was accepted, though InvalidArgument was due")
class NaiveTakenAtAccepted(_LooseSnapshot):
    """A datetime without a zone is taken for UTC."""

    def _loosened(self, snapshot):
        taken = snapshot.taken_at
        if isinstance(taken, datetime) and taken.tzinfo is None:
            return replace(snapshot, taken_at=taken.replace(tzinfo=UTC))
        return snapshot


@wrong("SNP-13", message=r"take_snapshot was accepted, though InvalidArgument was due")
class TextStepKeysAccepted(_LooseSnapshot):
    """Step keys that are digits are turned into integers."""

    def _loosened(self, snapshot):
        steps = {
            int(k) if isinstance(k, str) and k.isdigit() else k: v for k, v in snapshot.steps_by_seq.items()
        }
        return replace(snapshot, steps_by_seq=steps)


@wrong("SNP-13", message=r"take_snapshot was accepted, though InvalidArgument was due")
class BoolThroughSeqAccepted(_LooseSnapshot):
    """True is an int, and 1 is a seq."""

    def _loosened(self, snapshot):
        through = snapshot.through_seq
        return replace(snapshot, through_seq=int(through)) if isinstance(through, bool) else snapshot


@wrong("SNP-13", message=r"take_snapshot was accepted, though InvalidArgument was due")
class TextHashAccepted(_LooseSnapshot):
    """A hash in text is encoded."""

    def _loosened(self, snapshot):
        text = snapshot.version_hash
        return replace(snapshot, version_hash=text.encode()) if isinstance(text, str) else snapshot


@wrong("SNP-13", message=r"the wrong error, SnapshotConflict")
class MalformedSnapshotIsAConflict(_LooseSnapshot):
    """Whatever is wrong with a snapshot is SnapshotConflict."""

    def take_snapshot(self, instance, snapshot):
        try:
            super().take_snapshot(instance, snapshot)
        except InvalidArgument as error:
            if "name" in error.reason or "run id" in error.reason:
                raise
            raise SnapshotConflict(error.reason) from error

    def _loosened(self, snapshot):
        return snapshot


class _Kept(InMemoryJournal):
    """What a snapshot is after it was stored."""

    def _kept(self, snapshot):
        raise NotImplementedError

    def take_snapshot(self, instance, snapshot):
        checked = check_snapshot(snapshot)
        super().take_snapshot(instance, checked)
        with self._store.lock:
            taken = self._store.runs[instance.name, checked.run_id].snapshots
            taken[checked.through_seq] = self._kept(taken[checked.through_seq])


@wrong("SNP-8", message=r"the snapshot .*version_hash")
class EmptyHashIsNone(_Kept):
    """`version_hash or None` goes into the column."""

    def _kept(self, snapshot):
        return replace(snapshot, version_hash=snapshot.version_hash or None)


@wrong("SNP-8", message=r"the snapshot .*steps_by_seq")
class StepKeysOf32Bits(_Kept):
    """The steps' keys are in a column of four bytes, and wrap."""

    def _kept(self, snapshot):
        steps = {(key + 2**31) % 2**32 - 2**31: value for key, value in snapshot.steps_by_seq.items()}
        return replace(snapshot, steps_by_seq=steps)


@wrong("SNP-8", message=r"the snapshot .*steps_by_seq")
class StepsAreAList(_Kept):
    """A key below nought is no place in it."""

    def _kept(self, snapshot):
        return replace(
            snapshot, steps_by_seq={key: value for key, value in snapshot.steps_by_seq.items() if key >= 0}
        )


@wrong("SNP-8", message=r"the snapshot .*taken_at")
class TakenAtIsUnsigned(_Kept):
    """Microseconds since 1970 in an unsigned column, which takes what is before for nought."""

    def _kept(self, snapshot):
        return replace(snapshot, taken_at=max(snapshot.taken_at, datetime(1970, 1, 1, tzinfo=UTC)))


@wrong(
    "SNP-5",
    message=r"take_snapshot was accepted, though SnapshotConflict was due",
)
class KeepsTwentySnapshots(InMemoryJournal):
    """Old snapshots are thrown away, and one for the same seq is new again."""

    def take_snapshot(self, instance, snapshot):
        super().take_snapshot(instance, snapshot)
        with self._store.lock:
            taken = self._store.runs[instance.name, snapshot.run_id].snapshots
            for through in sorted(taken)[:-20]:
                del taken[through]
