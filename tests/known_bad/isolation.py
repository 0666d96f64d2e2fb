"""Wrong in isolation (ISO)."""

from __future__ import annotations

import posixpath
import zlib

from continuum_adapters.in_memory import InMemoryJournal

from continuum_conformance.contract import RunState

from .registry import wrong


@wrong("ISO-1", message=r"get_run found a running run where there is none|but raised RunAlreadyExists")
class InstanceLeak(InMemoryJournal):
    """Run ids are unique anyway, so the instance is not a part of the key."""

    def _key(self, instance, run_id):
        return "", super()._key(instance, run_id)[1]


@wrong("ISO-1", message=r"get_run found a running run where there is none|but raised RunAlreadyExists")
class JoinedKey(InMemoryJournal):
    """The key is f"{instance}:{run_id}", and either may hold a colon."""

    def _key(self, instance, run_id):
        return "", ":".join(super()._key(instance, run_id))


@wrong("ISO-1", message=r"get_run found a running run where there is none|but raised RunAlreadyExists")
class InstancesFolded(InMemoryJournal):
    """Instance names are compared without case, as host names are."""

    def _key(self, instance, run_id):
        name, checked = super()._key(instance, run_id)
        return name.casefold(), checked


@wrong("ISO-1", message=r"LeaseHeld|LeaseMismatch|LeaseLost|RunNotActive|was accepted")
class LeasesByRunIdAlone(InMemoryJournal):
    """The table of leases was made before there were instances: its key is the run id."""

    def _namesakes(self, instance, run_id):
        return [run for (_, other), run in self._store.runs.items() if other == run_id]

    def acquire(self, instance, run_id, owner, ttl):
        lease = super().acquire(instance, run_id, owner, ttl)
        mine = self._store.runs[instance.name, run_id]
        for run in self._namesakes(instance, run_id):
            if not run.state.terminal:
                run.token, run.owner, run.expires_at = mine.token, mine.owner, mine.expires_at
                run.last_token = max(run.last_token, mine.token)
        return lease


class _Spilling(InMemoryJournal):
    """An operation on one run does something to others of its instance."""

    def _others(self, instance, run_id):
        return [
            r for (name, other), r in self._store.runs.items() if name == instance.name and other != run_id
        ]


@wrong("ISO-2", message=r"the run is suspended, but it must be running")
class SuspendWithoutWhere(_Spilling):
    """UPDATE runs SET state = 'suspended' WHERE instance = ...: the run's id was forgotten."""

    def suspend(self, instance, run_id, lease_token):
        super().suspend(instance, run_id, lease_token)
        for run in self._others(instance, run_id):
            if run.state is RunState.RUNNING:
                run.state = RunState.SUSPENDED


@wrong(
    "ISO-2",
    message=r"acquire was accepted, though LeaseHeld was due|but raised LeaseLost|but raised LeaseMismatch",
)
class ReleaseWithoutWhere(_Spilling):
    """A release frees every lease of its instance."""

    def release(self, instance, lease):
        super().release(instance, lease)
        for run in self._others(instance, lease.run_id):
            self._end_lease(run)


@wrong("ISO-3", message=r"the run is completed, but it must be (running|suspended)")
class EventTypeFinishesTheRun(InMemoryJournal):
    """An event of type "completed" sets the state, so that history and state agree."""

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        if event["type"] == "completed":
            self._store.runs[instance.name, run_id].state = RunState.COMPLETED


@wrong("ISO-3", message=r"was accepted, though LeaseMismatch was due|should have answered .* LeaseMismatch")
class ReaperOnRead(InMemoryJournal):
    """Whoever reads a run clears its lease when that has expired: no background job is needed."""

    def get_run(self, instance, run_id):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None and run.token is not None and run.expires_at <= self._clock():
            self._end_lease(run)
        return super().get_run(instance, run_id)


@wrong("ISO-3", message=r"was accepted, though Lease(Mismatch|Held) was due|but raised Lease(Mismatch|Lost)")
class SuspendReleasesTheLease(InMemoryJournal):
    """A suspended run needs no worker, so suspend gives the lease back."""

    def suspend(self, instance, run_id, lease_token):
        super().suspend(instance, run_id, lease_token)
        self._end_lease(self._store.runs[instance.name, run_id])


@wrong("ISO-3", message=r"the run is running, but it must be suspended")
class AcquireResumesTheRun(InMemoryJournal):
    """Who acquires a suspended run is going to work on it, so acquire sets it to running."""

    def acquire(self, instance, run_id, owner, ttl):
        lease = super().acquire(instance, run_id, owner, ttl)
        self._store.runs[instance.name, run_id].state = RunState.RUNNING
        return lease


@wrong("ISO-3", message=r"the history has more events than it must")
class AcquireWritesAnEvent(InMemoryJournal):
    """Who held a run when is good to know, so acquire writes it into the history."""

    def acquire(self, instance, run_id, owner, ttl):
        lease = super().acquire(instance, run_id, owner, ttl)
        run = self._store.runs[instance.name, run_id]
        run.events.append({"type": "lease_acquired", "seq": len(run.events), "owner": owner})
        return lease


@wrong(
    "ISO-1",
    message=r"get_run found a (running|completed) run where there is none|but raised RunAlreadyExists",
)
class InstanceByItsChecksum(InMemoryJournal):
    """The column for the instance is a number, so its name's CRC-32 is stored there."""

    def _key(self, instance, run_id):
        name, checked = super()._key(instance, run_id)
        return str(zlib.crc32(name.encode())), checked


@wrong(
    "RUN-8",
    message=r"get_run found a (running|completed) run where there is none|but raised RunAlreadyExists",
)
class AFolderForEachInstance(InMemoryJournal):
    """A run is the file instance/run_id, and a run called `..` is outside."""

    def _key(self, instance, run_id):
        name, checked = super()._key(instance, run_id)
        return "", posixpath.normpath(f"/{name.replace('/', '%2F')}/{checked}")


@wrong(
    "RUN-8",
    message=r"get_run found a (running|completed) run where there is none|but raised RunAlreadyExists",
)
class OneKeyOf500(InMemoryJournal):
    """Both names go into a key of their lengths and themselves, and the column cuts it."""

    def _key(self, instance, run_id):
        name, checked = super()._key(instance, run_id)
        return "", f"{len(name)}:{name}{checked}"[:500]


@wrong("ISO-1", message=r"the history differs")
class PayloadsByTheirBeginning(InMemoryJournal):
    """Large payloads are stored once for all that have one length and one beginning."""

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        stored = self._store.runs[instance.name, run_id].events[-1]
        payload = stored.get("payload")
        if type(payload) is str and len(payload) > 4096:
            blobs = self._store.__dict__.setdefault("blobs", {})
            stored["payload"] = blobs.setdefault((len(payload), payload[:4096]), payload)


@wrong("ISO-2", message=r"get_run found nothing, but the run .* exists and is completed")
class KeepsAHundredFinishedRuns(InMemoryJournal):
    """Retention by number: of the finished runs the last hundred stay."""

    def _finish(self, key, token, state, **answer):
        super()._finish(key, token, state, **answer)
        with self._store.lock:
            finished = self._store.__dict__.setdefault("finished", [])
            finished.append(key)
            if len(finished) > 100:
                self._store.runs.pop(finished.pop(0), None)
