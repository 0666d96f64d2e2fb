"""Wrong in durable terms (TRM): codecs that lose something, and what should have been refused."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import re
import unicodedata
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

from continuum_adapters.in_memory import InMemoryJournal

from continuum_conformance.contract import JournalUnavailable, NotDurable, Snapshot
from continuum_conformance.contract.arguments import check_event, check_snapshot
from continuum_conformance.contract.terms import copy_term

from .registry import wrong


class Lossy(InMemoryJournal):
    """Gives every value of a term out through `leaf`, and every container through `container`."""

    def leaf(self, value):
        return value

    def key(self, key):
        return key

    def container(self, kind, items):
        return kind(items)

    def _give_out(self, term):
        if isinstance(term, dict):
            return {self.key(key): self._give_out(value) for key, value in term.items()}
        if isinstance(term, (list, tuple)):
            return self.container(type(term), [self._give_out(value) for value in term])
        if isinstance(term, (set, frozenset)):
            return self.container(type(term), list(term))
        return self.leaf(term)

    def load_with_snapshot(self, instance, run_id, lease_token):
        snapshot, events = super().load_with_snapshot(instance, run_id, lease_token)
        if snapshot is not None:
            steps = {seq: self._give_out(step) for seq, step in snapshot.steps_by_seq.items()}
            snapshot = Snapshot(
                snapshot.run_id, snapshot.through_seq, snapshot.version_hash, snapshot.taken_at, steps
            )
        return snapshot, events


@wrong("TRM-1", message=r"\(bytes\) became .* \(str\)")
class BytesMadeText(Lossy):
    """JSON has no bytes, so they go in as base64 and come out as that."""

    def leaf(self, value):
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value


@wrong("TRM-1", message=r"-0\.0 became 0\.0")
class NegativeZeroLost(Lossy):
    """The number goes through a decimal column, where -0 is 0."""

    def leaf(self, value):
        return value + 0.0 if isinstance(value, float) else value


@wrong("TRM-1", message=r"\(int\) became .* \(float\)|became")
class BigIntsMadeFloats(Lossy):
    """A JSON parser reads integers beyond 2**53 as floats."""

    def leaf(self, value):
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
            return float(value) if abs(value) < 2**1000 else float("inf")
        return value


@wrong("TRM-1", message=r"(nan|inf) .*became None|(nan|inf) \(float\) became None")
class NoNumbersMadeNull(Lossy):
    """JSON has no nan and no infinity; the encoder writes null."""

    def leaf(self, value):
        if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
            return None
        return value


@wrong("TRM-1", message=r"\(float\) became .* \(int\)")
class WholeFloatsMadeInts(Lossy):
    """1.0 is written as 1, as JavaScript does."""

    def leaf(self, value):
        return int(value) if isinstance(value, float) and value == value and value.is_integer() else value


@wrong("TRM-1", message=r"became", seen_in="https://github.com/magda-io/magda/issues/3161")
class ZeroCharacterDropped(Lossy):
    """PostgreSQL's text cannot hold U+0000, so it is left out."""

    def leaf(self, value):
        return value.replace("\0", "") if isinstance(value, str) else value


@wrong("TRM-1", message=r"became")
class TextNormalised(Lossy):
    """Text is normalised to NFC on the way in."""

    def leaf(self, value):
        return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


@wrong("TRM-1", message=r"became")
class LargeTextCut(Lossy):
    """The column holds 64 KiB and cuts the rest."""

    def leaf(self, value):
        return value[:65535] if isinstance(value, (str, bytes)) else value


@wrong("TRM-1", message=r"\{'__bytes__': .*\} \(dict\) became b'.*' \(bytes\)")
class OwnEncodingTakenForATerm(InMemoryJournal):
    """Bytes are stored as {"__bytes__": ...} without escaping, so a dict of that form comes out as bytes."""

    def _give_out(self, term):
        given = super()._give_out(term)
        return self._decoded(given)

    def _decoded(self, term):
        if isinstance(term, dict):
            if list(term) == ["__bytes__"] and isinstance(term["__bytes__"], str):
                try:
                    return base64.b64decode(term["__bytes__"])
                except ValueError:
                    return term
            return {key: self._decoded(value) for key, value in term.items()}
        return [self._decoded(value) for value in term] if type(term) is list else term


class Encoding(InMemoryJournal):
    """Stores terms as JSON text in an encoding of its own, which marks what JSON does not have."""

    MARK = "~kind"

    def pack(self, term):
        if type(term) is bytes:
            return {self.MARK: "bytes", "of": list(term)}
        if type(term) is tuple:
            return {self.MARK: "tuple", "of": [self.pack(item) for item in term]}
        if type(term) is list:
            return [self.pack(item) for item in term]
        if type(term) is dict and all(type(key) is str for key in term):
            return {key: self.pack(value) for key, value in term.items()}
        return term if type(term) in (bool, int, float, str, type(None)) else {self.MARK: "py", "of": term}

    def unpack(self, term):
        if type(term) is dict:
            kind = term.get(self.MARK)
            if kind == "bytes":
                return bytes(term["of"])
            if kind == "tuple":
                return tuple(self.unpack(item) for item in term["of"])
            if kind == "py":
                return copy_term(term["of"])
            return {key: self.unpack(value) for key, value in term.items()}
        return [self.unpack(item) for item in term] if type(term) is list else term

    def _take_in(self, term, root):
        return self.pack(super()._take_in(term, root))

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        events = self._store.runs[instance.name, run_id].events
        events[-1] = self.pack(events[-1])

    def _give_out(self, term):
        return self.unpack(super()._give_out(term))


@wrong("TRM-1", message=r"\(dict\) became .* \((bytes|tuple)\)")
class UnguessableEncodingTakenForATerm(Encoding):
    """As above, with a mark that nobody can guess: it must be found in the adapter's own store."""


@wrong("TRM-1", message=r"(RecursionError|did not come back|should have answered)")
class DeepNestingCrashes(InMemoryJournal):
    """The encoder calls itself for every level, and Python's stack ends."""

    def start_run(self, instance, run_id, workflow, input):
        self._walk(input)
        super().start_run(instance, run_id, workflow, input)

    def _walk(self, term):
        if isinstance(term, (list, tuple)):
            for item in term:
                self._walk(item)
        elif isinstance(term, dict):
            for item in term.values():
                self._walk(item)


@wrong("TRM-1", message=r"should have answered .*but raised NotDurable")
class ShallowLimit(InMemoryJournal):
    """The check of terms stops at 32 levels, which seemed plenty."""

    def _take_in(self, term, root):
        from continuum_conformance.contract.terms import check_durable

        check_durable(term, root, max_depth=32)
        return super()._take_in(term, root)


@wrong("TRM-1s", message=r"the keys .* came back as")
class KeyOrderLost(Lossy):
    """json.dumps(sort_keys=True), or a binary JSON column that sorts its keys."""

    def _give_out(self, term):
        given = super()._give_out(term)
        if isinstance(given, dict) and all(isinstance(key, str) for key in given):
            return dict(sorted(given.items()))
        return given


@wrong("TRM-2", message=r"\(tuple\) became .* \(list\)")
class TupleReadBackAsList(Lossy):
    """JSON has one kind of sequence."""

    def container(self, kind, items):
        return list(items) if kind is tuple else kind(items)


@wrong("TRM-2", message=r"\(set\) became .* \(list\)")
class SetReadBackAsList(Lossy):
    """default=list in json.dumps makes sets lists."""

    def container(self, kind, items):
        return items if kind is set else kind(items)


@wrong("TRM-2", message=r"\(frozenset\) became .* \(set\)")
class FrozensetReadBackAsSet(Lossy):
    """One tag serves both kinds of sets."""

    def container(self, kind, items):
        try:
            return set(items) if kind is frozenset else kind(items)
        except TypeError:
            return kind(items)


@wrong("TRM-2", message=r"Decimal\('.*'\) became Decimal")
class DecimalNormalised(Lossy):
    """The numeric column drops trailing zeros: 1.50 becomes 1.5."""

    def leaf(self, value):
        return value.normalize() if isinstance(value, Decimal) and value.is_finite() else value


@wrong("TRM-2", message=r"became (datetime|'?2|datetime\.datetime)")
class OffsetLost(Lossy):
    """timestamptz keeps the instant and forgets the offset: everything comes back in UTC."""

    def leaf(self, value):
        if isinstance(value, datetime) and value.tzinfo is not None:
            return value.astimezone(UTC)
        return value


@wrong("TRM-2", message=r"became datetime\.datetime")
class NaiveTakenForUtc(Lossy):
    """A datetime without a zone comes back as UTC."""

    def leaf(self, value):
        if isinstance(value, datetime) and value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value


@wrong("TRM-2", message=r"became")
class MicrosecondsLost(Lossy):
    """Times are kept in milliseconds."""

    def leaf(self, value):
        if isinstance(value, (datetime, time)):
            return value.replace(microsecond=value.microsecond // 1000 * 1000)
        return value


@wrong("TRM-2", message=r"became")
class TimedeltaInSeconds(Lossy):
    """total_seconds() is a float, and a float does not hold a long time to the microsecond."""

    def leaf(self, value):
        if isinstance(value, timedelta):
            try:
                return timedelta(seconds=value.total_seconds())
            except OverflowError:
                return value
        return value


@wrong("TRM-2", message=r"datetime\.date\(.*\(date\) became datetime\.datetime\(.*\(datetime\)")
class DateReadBackAsDatetime(Lossy):
    """One column type for both."""

    def leaf(self, value):
        return datetime(value.year, value.month, value.day) if type(value) is date else value


@wrong("TRM-2", message=r"\(UUID\) became '.*' \(str\)")
class UuidReadBackAsText(Lossy):
    """default=str in json.dumps."""

    def leaf(self, value):
        return str(value) if isinstance(value, UUID) else value


@wrong("TRM-2", message=r"key .* became")
class IntKeysMadeText(Lossy):
    """json.dumps turns {1: "a"} into {"1": "a"} without a word."""

    def key(self, key):
        return str(key) if type(key) is int else key


@wrong("TRM-3", message=r"was accepted, though NotDurable was due")
class ReprStored(InMemoryJournal):
    """default=repr in json.dumps: what cannot be stored is described instead."""

    def _described(self, term):
        if type(term) is dict:
            return {key: self._described(value) for key, value in term.items()}
        if type(term) is list:
            return [self._described(value) for value in term]
        try:
            return super()._take_in(term, "")
        except NotDurable:
            return repr(term)

    def start_run(self, instance, run_id, workflow, input):
        try:
            super().start_run(instance, run_id, workflow, input)
        except NotDurable as error:
            if error.kind in ("lone surrogate", "too deep") or "itself" in str(error.kind):
                raise
            super().start_run(instance, run_id, workflow, self._described(input))


class _Refusing(InMemoryJournal):
    """Says something else about what it refuses."""

    def _told(self, error: NotDurable) -> Exception:
        raise NotImplementedError

    def _take_in(self, term, root):
        try:
            return super()._take_in(term, root)
        except NotDurable as error:
            raise self._told(error) from error

    def append(self, instance, run_id, event, lease_token):
        try:
            check_event(event)
        except NotDurable as error:
            raise self._told(error) from error
        super().append(instance, run_id, event, lease_token)

    def take_snapshot(self, instance, snapshot):
        try:
            check_snapshot(snapshot)
        except NotDurable as error:
            raise self._told(error) from error
        super().take_snapshot(instance, snapshot)


@wrong("TRM-3", message=r"NotDurable names the path None, but the first offender stands at")
class NotDurableWithoutPath(_Refusing):
    """The encoder says that something cannot be stored, not where."""

    def _told(self, error):
        return NotDurable(error.reason, kind=error.kind)


@wrong("TRM-3", message=r"NotDurable names the path '.*', but the first offender stands at '(event|input)")
class PathWithoutRoot(_Refusing):
    """The path begins below the argument: `payload.owner` for `event.payload.owner`."""

    def _told(self, error):
        return NotDurable(path=error.path.partition(".")[2], kind=error.kind)


@wrong("TRM-3", message=r"NotDurable names the path '.*', but the first offender stands at")
class PathOfTheContainer(_Refusing):
    """The path ends at the container: which of its items offends is not said."""

    def _told(self, error):
        path = error.path.rpartition("[")[0] if error.path.endswith("]") else error.path.rpartition(".")[0]
        return NotDurable(path=path or error.path, kind=error.kind)


@wrong("TRM-3", "ATM-2", message=r"an exception that is no contract error, TypeError")
class EncodersTypeErrorLeaks(_Refusing):
    """json.dumps raises TypeError, and the adapter lets it through."""

    def _told(self, error):
        return TypeError(f"Object of type {error.kind} is not JSON serializable")


@wrong("TRM-3", message=r"an exception that is no contract error, UnicodeEncodeError")
class LoneSurrogatesCrash(_Refusing):
    """text.encode() fails on a lone surrogate, and nobody thought of one."""

    def _told(self, error):
        if error.kind == "lone surrogate":
            try:
                "\ud800".encode()
            except UnicodeEncodeError as raw:
                return raw
        return error


@wrong("TRM-3", message=r"get_run found a running run where there is none")
class RunWrittenBeforeItsInput(InMemoryJournal):
    """The run's row is inserted first and its input stored after, in another transaction."""

    def start_run(self, instance, run_id, workflow, input):
        try:
            super().start_run(instance, run_id, workflow, input)
        except NotDurable:
            self._key(instance, run_id)
            super().start_run(instance, run_id, workflow, None)
            raise


@wrong("TRM-3s", message=r"became")
class SubclassesFlattened(InMemoryJournal):
    """isinstance() in the encoder: a named tuple becomes a tuple, an enum its number."""

    def _take_in(self, term, root):
        return super()._take_in(self._flat(term), root)

    def _flat(self, term):
        if type(term) is dict:
            return {key: self._flat(value) for key, value in term.items()}
        if type(term) is list:
            return [self._flat(value) for value in term] if term[:1] != [term] else term
        for base in (str, int, tuple):
            if isinstance(term, base) and type(term) not in (base, bool):
                return base(term)
        return dict(term) if type(term) is OrderedDict else term


@wrong("TRM-4", message=r"the journal changed the caller's own object|key 'seq'|forged")
class StampsTheCallersEvent(InMemoryJournal):
    """event["seq"] = next_seq, on the caller's own dict."""

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        if isinstance(event, dict):
            event["seq"] = len(self._store.runs[instance.name, run_id].events) - 1


@wrong("TRM-4", message=r"the journal changed the caller's own object")
class ConvertsTheCallersTermInPlace(InMemoryJournal):
    """The encoder puts the encoded form of a value into the caller's own container."""

    def _take_in(self, term, root):
        taken = super()._take_in(term, root)
        if type(term) is dict:
            for key, value in term.items():
                if type(value) is tuple:
                    term[key] = list(value)
        elif type(term) is list:
            term.sort(key=repr)
        return taken


@wrong(
    "TRM-5",
    message=r"loading called pickle\.loads in .*terms\.py, line \d+, which can run code",
    seen_in="https://github.com/rq/rq/issues/2389",
)
class Pickled(InMemoryJournal):
    """pickle stores anything, in one line."""

    def _take_in(self, term, root):
        return pickle.dumps(super()._take_in(term, root))

    def append(self, instance, run_id, event, lease_token):
        super().append(instance, run_id, event, lease_token)
        events = self._store.runs[instance.name, run_id].events
        events[-1] = pickle.dumps(events[-1])

    def _give_out(self, term):
        return pickle.loads(term) if isinstance(term, bytes) else term


@wrong("TRM-5", message=r"loading called builtins\.eval in .*terms\.py, line \d+, which can run code")
class Evaluated(InMemoryJournal):
    """repr() and eval() make a codec that knows every type."""

    def start_run(self, instance, run_id, workflow, input):
        super().start_run(instance, run_id, workflow, input)
        self._store.runs[instance.name, run_id].text = repr(input)

    def get_run(self, instance, run_id):
        run = self._store.runs.get(self._key(instance, run_id))
        if run is not None and len(run.text) < 200:
            try:
                eval(run.text, {"Decimal": Decimal, "UUID": UUID})
            except Exception:
                json.dumps(run.text)
        return super().get_run(instance, run_id)


class _ReadAs(InMemoryJournal):
    """What its reader makes of text, bytes and dicts."""

    def _read(self, term):
        raise NotImplementedError

    def _give_out(self, term):
        return self._walked(super()._give_out(term))

    def _walked(self, term):
        if type(term) is list:
            return [self._walked(item) for item in term]
        if type(term) is dict:
            return self._read({key: self._walked(value) for key, value in term.items()})
        return self._read(term)


@wrong("TRM-1", message=r"b'\\x1f\\x8b")
class UnpacksWhatLooksPacked(_ReadAs):
    """Large payloads are packed with gzip, and known by its first two bytes: the caller's own files come back unpacked."""

    def _read(self, term):
        packed = type(term) is bytes and term[:2] == b"\x1f\x8b"
        return gzip.decompress(term) if packed else term


@wrong("TRM-1", message=r"2026-01-02T03:04:05\.678Z")
class DatesOfJavaScript(_ReadAs):
    """A reviver makes a date of what toISOString() writes."""

    def _read(self, term):
        found = type(term) is str and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", term)
        return datetime.fromisoformat(term) if found else term


@wrong("TRM-1", message=r"uff0e|\uff0e")
class KeysWithoutDots(_ReadAs):
    """The store takes no dot in a key, so a full-width one is written, and a dot is made of each when it is read."""

    def _read(self, term):
        if type(term) is not dict:
            return term
        return {key.replace("\uff0e", ".") if type(key) is str else key: value for key, value in term.items()}


@wrong("APP-1", message=r"append should have answered None, but raised JournalUnavailable")
class NotifiesWithTheType(InMemoryJournal):
    """Every append sends a notification with the event's type, and those take 8,000 bytes at most."""

    def append(self, instance, run_id, event, lease_token):
        if isinstance(event, dict) and isinstance(event.get("type"), str) and len(event["type"]) >= 8000:
            raise JournalUnavailable("payload string too long")
        super().append(instance, run_id, event, lease_token)
