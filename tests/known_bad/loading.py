"""Wrong in loading (LOD), and in where a clock comes in (CLK)."""

from __future__ import annotations

import time

from continuum_adapters.in_memory import InMemoryJournal

from continuum_conformance.contract import LeaseMismatch, RunNotActive, RunState

from .registry import wrong


class _Reordering(InMemoryJournal):
    """Gives the history out in another order, with the seqs that were stored."""

    def _order(self, events):
        raise NotImplementedError

    def load(self, instance, run_id):
        return self._order(super().load(instance, run_id))

    def _events_after(self, run, snapshot):
        return self._order(super()._events_after(run, snapshot))


@wrong("LOD-1", message=r"the seqs read 0, 1, 10")
class OrderedByTextSeq(_Reordering):
    """The seq stands in a text column, where 10 comes before 2."""

    def _order(self, events):
        return sorted(events, key=lambda event: str(event["seq"]))


@wrong("LOD-1", message=r"the seqs read")
class OrderedByInsertion(_Reordering):
    """Each handle appends to a segment of its own, and load reads one segment after the other."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._store.__dict__.setdefault("writers", {})
        self._store.__dict__.setdefault("handles", []).append(id(self))

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        run = self._store.runs[instance.name, run_id]
        run.__dict__.setdefault("segments", []).append(self._store.handles.index(id(self)))

    def load(self, instance, run_id):
        run = self._store.runs.get(self._key(instance, run_id))
        loaded = super().load(instance, run_id)
        segments = getattr(run, "segments", [])
        return [event for _, event in sorted(zip(segments, loaded, strict=True), key=lambda pair: pair[0])]

    def _order(self, events):
        return events


@wrong("CLK-2", message=r"the seqs read", seen_in="https://github.com/reimagined/resolve/issues/1948")
class OrderedByClock(_Reordering):
    """ORDER BY created_at: it agrees with the seq until a clock is set back."""

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        run = self._store.runs[instance.name, run_id]
        run.__dict__.setdefault("times", []).append(time.time())
        self._store.__dict__["times"] = {
            **getattr(self._store, "times", {}),
            id(run.events): run.times,
        }

    def load(self, instance, run_id):
        run = self._store.runs.get(self._key(instance, run_id))
        loaded = super().load(instance, run_id)
        times = getattr(run, "times", [])
        return [loaded[place] for place in sorted(range(len(loaded)), key=lambda place: times[place])]

    def _order(self, events):
        return events


@wrong(
    "CLK-2",
    message=r"the seqs read|the history differs",
    seen_in="https://github.com/AxonIQ/AxonFramework/issues/1750",
)
class OrderedByTheCallersTime(_Reordering):
    """Events that carry a timestamp are sorted by it, since workers report late."""

    def _order(self, events):
        return sorted(events, key=lambda event: (str(event.get("timestamp", "")), event["seq"]))


@wrong("LOD-1", message=r"the history has fewer events than it must: 1000 instead of 1500")
class FirstPageOnly(_Reordering):
    """The store answers in pages of a thousand, and nobody asks for the second."""

    def _order(self, events):
        return events[:1000]


@wrong("LOD-2", message=r"load should have answered .*, but raised LeaseMismatch")
class LoadFenced(InMemoryJournal):
    """A run that somebody holds cannot be read: load takes part in the fencing."""

    def load(self, instance, run_id):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None and run.token is not None:
            raise LeaseMismatch("the run is leased")
        return super().load(instance, run_id)


@wrong("LOD-2", message=r"load should have answered .*, but raised RunNotActive")
class TerminalRunNotLoaded(InMemoryJournal):
    """load goes through the look-up of active runs, since only those are replayed."""

    def load(self, instance, run_id):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None and run.state.terminal:
            raise RunNotActive
        return super().load(instance, run_id)


@wrong("LOD-2", message=r"the run is running, but it must be suspended")
class LoadWakesTheRun(InMemoryJournal):
    """Who loads a run is about to work on it, so load sets a suspended one to running."""

    def load(self, instance, run_id):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None and run.state is RunState.SUSPENDED:
            run.state = RunState.RUNNING
        return super().load(instance, run_id)


@wrong("LOD-3", message=r"'forged'|forged|items became")
class AliasingOut(InMemoryJournal):
    """The stored lists and dicts themselves are handed out: copying seemed a waste."""

    def _give_out(self, term):
        return term


@wrong("LOD-3", message=r"forged|items became")
class ShallowCopyOut(InMemoryJournal):
    """dict(event) copies the event but shares what is nested in it."""

    def _give_out(self, term):
        return dict(term) if isinstance(term, dict) else term


@wrong("TRM-4", message=r"forged|items became")
class AliasingIn(InMemoryJournal):
    """The caller's own object is kept: it was encoded nowhere, so it is shared."""

    def _take_in(self, term, root):
        super()._take_in(term, root)
        return term

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        stored = self._store.runs[instance.name, run_id].events[-1]
        stored.update({key: value for key, value in event.items() if key != "seq"})


@wrong("TRM-4", "LOD-3", message=r"forged|items became")
class AliasingBoth(AliasingIn):
    """Neither the way in nor the way out copies; the journal is a dict of the engine's own objects."""

    def _give_out(self, term):
        return term


@wrong("LOD-4", message=r"key 'next' was added")
class AppendRewritesItsPredecessor(InMemoryJournal):
    """Events are a linked list: the one before is given the seq of the new one."""

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        events = self._store.runs[instance.name, run_id].events
        if len(events) > 1:
            events[-2]["next"] = len(events) - 1


@wrong("LOD-4", "LOD-1", message=r"the history has fewer events than it must")
class EqualEventsMerged(_Reordering):
    """Events that say the same are taken for a retry, and load gives only the first of them."""

    def _order(self, events):
        kept = []
        for event in events:
            said = {key: value for key, value in event.items() if key != "seq"}
            if not any(repr(said) == repr({k: v for k, v in e.items() if k != "seq"}) for e in kept):
                kept.append(event)
        return kept
