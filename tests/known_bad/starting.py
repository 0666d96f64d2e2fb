"""Wrong in starting and reading a run (RUN)."""

from __future__ import annotations

import unicodedata

from continuum_adapters.in_memory import InMemoryHarness, InMemoryJournal, RunRecord

from continuum_conformance.contract import InvalidArgument, RunNotFound, RunState
from continuum_conformance.contract.arguments import check_name

from .registry import wrong


@wrong("RUN-1", message=r"the run is suspended, but it must be running")
class BornSuspended(InMemoryJournal):
    """A new run waits for its first worker, and the column's default says so: suspended."""

    def start_run(self, instance, run_id, workflow, input):
        super().start_run(instance, run_id, workflow, input)
        self._store.runs[instance.name, run_id].state = RunState.SUSPENDED


@wrong("RUN-1", message=r"the run's input changed: .* became \{\}")
class InputMustBeAnObject(InMemoryJournal):
    """The input column was made for JSON objects; what is none is replaced by an empty one."""

    def start_run(self, instance, run_id, workflow, input):
        super().start_run(instance, run_id, workflow, input if isinstance(input, dict) else {})


class _Overwriting(InMemoryJournal):
    def _may_overwrite(self, run: RunRecord) -> bool:
        raise NotImplementedError

    def start_run(self, instance, run_id, workflow, input):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None and self._may_overwrite(run):
            del self._store.runs[instance.name, run_id]
        super().start_run(instance, run_id, workflow, input)


@wrong("RUN-2", message=r"start_run was accepted, though RunAlreadyExists was due")
class RunOverwritten(_Overwriting):
    """Start is an upsert, so that a client may retry it; the retry wipes out the run that is under way."""

    def _may_overwrite(self, run):
        return not run.state.terminal


@wrong("RUN-3", message=r"start_run was accepted, though RunAlreadyExists was due")
class TerminalRunResurrected(_Overwriting):
    """The unique index covers active runs alone, so that an id may be used again once its run is done."""

    def _may_overwrite(self, run):
        return run.state.terminal


@wrong("RUN-2", message=r"the history has fewer events than it must: 0 instead of \d")
class RefusedStartClearsHistory(InMemoryJournal):
    """Leftover events of the id are deleted before the insert that then fails on the unique key."""

    def start_run(self, instance, run_id, workflow, input):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None:
            run.events.clear()
        super().start_run(instance, run_id, workflow, input)


@wrong("RUN-2", message=r"the run's (workflow|input) changed")
class RefusedStartReplacesInput(InMemoryJournal):
    """The row is written with ON CONFLICT DO UPDATE, and only then is it seen that it was there before."""

    def start_run(self, instance, run_id, workflow, input):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None:
            run.workflow = check_name(workflow, "workflow")
        super().start_run(instance, run_id, workflow, input)


@wrong("RUN-2", message=r"start_run was accepted, though RunAlreadyExists was due")
class IdempotentStart(InMemoryJournal):
    """ON CONFLICT DO NOTHING: a second start changes nothing, and its caller believes that the run is its own."""

    def start_run(self, instance, run_id, workflow, input):
        if self._key(instance, run_id) in self._store.runs:
            return
        super().start_run(instance, run_id, workflow, input)


@wrong("RUN-4", message=r"get_run found a running run where there is none")
class LoadCreatesRun(InMemoryJournal):
    """The runs are a defaultdict, so that load needs no special case."""

    def load(self, instance, run_id):
        with self._locked() as runs:
            runs.setdefault(self._key(instance, run_id), RunRecord("unknown", None))
        return super().load(instance, run_id)


@wrong("RUN-4", message=r"get_run should have answered None, but raised RunNotFound")
class UnknownRunRaises(InMemoryJournal):
    """get_run goes through the same look-up as the writes, which raises."""

    def get_run(self, instance, run_id):
        found = super().get_run(instance, run_id)
        if found is None:
            raise RunNotFound
        return found


@wrong("RUN-5", message=r"append should have answered None, but raised LeaseMismatch")
class BornLeased(InMemoryJournal):
    """The client that starts a run is expected to work on it, so start_run leases it at once."""

    def start_run(self, instance, run_id, workflow, input):
        super().start_run(instance, run_id, workflow, input)
        run = self._store.runs[instance.name, run_id]
        run.token, run.owner, run.expires_at = self._new_token(run), "starter", self._expiry(0)


@wrong("RUN-6", message=r"complete should have answered None, but raised InvalidArgument")
class NoneIsNoResult(InMemoryJournal):
    """A workflow that finishes without a result looked like a programming error."""

    def complete(self, instance, run_id, result, lease_token):
        if result is None:
            raise InvalidArgument("a result is required")
        super().complete(instance, run_id, result, lease_token)


@wrong("RUN-6", "TRM-1", message=r"key '(payload|error|result)' is missing")
class NonePayloadTakenForAbsence(InMemoryJournal):
    """Keys whose value is None are left out to save space, as API clients like to."""

    def append(self, instance, run_id, event, lease_token):
        if isinstance(event, dict):
            event = {key: value for key, value in event.items() if value is not None or key == "type"}
        super().append(instance, run_id, event, lease_token)


class _Unchecked(InMemoryJournal):
    """Takes names as they are."""

    def _key(self, instance, run_id):
        return instance.name, run_id


@wrong("RUN-7", message=r"was accepted, though InvalidArgument was due|should have raised InvalidArgument")
class NamesUnchecked(_Unchecked):
    """Names come from our own engine, so nobody checks them; the store coerces or chokes."""


@wrong("RUN-7", message=r"(load|get_run) was accepted, though InvalidArgument was due")
class NamesUncheckedInReads(InMemoryJournal):
    """Only writes check names: a read of a name that cannot exist finds nothing, which seems right."""

    def load(self, instance, run_id):
        return self._unless_bad(super().load, [], instance, run_id)

    def get_run(self, instance, run_id):
        return self._unless_bad(super().get_run, None, instance, run_id)

    def _unless_bad(self, read, nothing, instance, run_id):
        try:
            return read(instance, run_id)
        except InvalidArgument:
            return nothing


@wrong("RUN-7", message=r"was accepted, though InvalidArgument was due")
class LongNamesTruncated(InMemoryJournal):
    """The column is a VARCHAR(255) of a database that cuts what is longer instead of refusing it."""

    def _key(self, instance, run_id):
        return super()._key(instance, run_id[:255] if isinstance(run_id, str) else run_id)


@wrong("RUN-7", message=r"start_run should have answered None, but raised InvalidArgument")
class NamesMeasuredInBytes(InMemoryJournal):
    """The limit of 255 is taken for bytes of UTF-8, as the database's documentation counts them."""

    def _key(self, instance, run_id):
        name, checked = super()._key(instance, run_id)
        if len(name.encode()) > 255 or len(checked.encode()) > 255:
            raise InvalidArgument("a name is longer than 255 bytes")
        return name, checked


@wrong(
    "RUN-8",
    message=r"start_run should have answered None, but raised RunAlreadyExists|get_run found a",
    seen_in="https://github.com/pathosDev/actor-ts/issues/707",
)
class CaseInsensitiveRunIds(InMemoryJournal):
    """Ids are folded to lower case, as the database's default collation would."""

    def _key(self, instance, run_id):
        name, checked = super()._key(instance, run_id)
        return name, checked.lower()


@wrong("RUN-8", message=r"get_run found a running run where there is none")
class RunIdsStripped(InMemoryJournal):
    """Blanks around an id are a slip of the keyboard, so they are stripped."""

    def _key(self, instance, run_id):
        name, checked = super()._key(instance, run_id)
        return name, checked.strip() or checked


@wrong("RUN-8", message=r"get_run found a running run where there is none")
class RunIdsNormalised(InMemoryJournal):
    """Unicode names are normalised to NFC on the way in, as a style guide asks."""

    def _key(self, instance, run_id):
        name, checked = super()._key(instance, run_id)
        return name, unicodedata.normalize("NFC", checked)


@wrong("RUN-8", message=r"was accepted, though InvalidArgument was due", without={"opaque_run_ids"})
class AnyUuidTextAccepted(InMemoryJournal):
    """Does not declare opaque_run_ids, since its column is a UUID, but takes whatever text the driver takes."""


@wrong("APP-10", message=r"unknown to another|found nothing|where there is none")
class StorePerHandle(InMemoryJournal):
    """The harness builds a store for every handle: each test passed when it had only one."""

    class Harness(InMemoryHarness):
        """Opens unrelated handles."""

        def open(self):
            return StorePerHandle(self.clock)
