"""The clause registry: the journal contract as data. Everything that cites a clause takes it from here.

A clause has an id, a level, the capability that it needs, the contract version since which it counts, one
rule, one reason, and one piece of advice for the author of an adapter that fails it. ``docs/contract.md`` is
generated from this file (``continuum-conformance clauses --markdown``), and a test fails when it is stale.

An ``s`` behind an id marks a SHOULD that stands within a MUST clause. ``note`` records a decision that the
project took where the contract is silent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from continuum_conformance.contract.capabilities import CORE

__all__ = ["CHAPTERS", "CLAUSES", "CONTRACT_VERSION", "Clause", "clause", "in_force", "select"]

CONTRACT_VERSION = "0.4"
"""The version of the contract that this kit checks. Clauses of a later version are printed but not judged."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One numbered clause of the contract."""

    id: str
    level: str
    """``MUST`` or ``SHOULD``. An unmet SHOULD is advice, never a failure."""
    capability: str
    """The capability that an adapter must declare for the clause to count; ``core`` always counts."""
    since: str
    rule: str
    reason: str
    advice: str
    note: str = ""

    @property
    def chapter(self) -> str:
        """The part of the id before the dash: ``FEN`` of ``FEN-5``."""
        return self.id.partition("-")[0]


CHAPTERS: dict[str, str] = {
    "CAP": "Capabilities",
    "RUN": "Starting and reading a run",
    "APP": "Appending",
    "LOD": "Loading",
    "FIN": "Suspend, complete, fail",
    "LEA": "Leases",
    "FEN": "Fencing",
    "SNP": "Snapshots",
    "TRM": "Durable terms",
    "ISO": "Isolation",
    "ATM": "Atomicity and errors",
    "CON": "Concurrency",
    "DUR": "Durability",
    "CLK": "Clocks",
}

MUST, SHOULD = "MUST", "SHOULD"
LEASES, SNAPSHOTS, DURABLE, CRASH_SAFE, RICH, OPAQUE = (
    "leases",
    "snapshots",
    "durable",
    "crash_safe",
    "rich_terms",
    "opaque_run_ids",
)
V1, V2, V3, V4 = "0.1", "0.2", "0.3", "0.4"

_ALL = (
    Clause(
        "CAP-1",
        MUST,
        CORE,
        V1,
        "What an adapter does not declare it refuses clearly: the method is absent, or raises InvalidArgument or NotImplementedError; an undeclared rich term raises NotDurable or reads back exactly.",
        "An engine decides by the declared capabilities; a half-working feature that nobody tests loses data quietly.",
        "Remove the method, or raise InvalidArgument at its first line; or declare the capability and let it be tested.",
    ),
    # -- RUN --
    Clause(
        "RUN-1",
        MUST,
        CORE,
        V1,
        "A started run reads back: running, its workflow, its input, result and error None, no events.",
        "Everything else stands on a run that is there once start_run has returned.",
        "Write the run in one transaction that is committed before start_run returns, and read every column back.",
    ),
    Clause(
        "RUN-2",
        MUST,
        CORE,
        V1,
        "Starting an id that exists raises RunAlreadyExists, and the first run stays as it was, history included.",
        "A client that retries a start would otherwise wipe out a run that is under way.",
        "Insert under a unique key on (instance, run_id) and translate the violation; never upsert, never delete first.",
    ),
    Clause(
        "RUN-3",
        MUST,
        CORE,
        V1,
        "A terminal run cannot be started again either: nothing is resurrected.",
        "A finished payment that is started again pays twice.",
        "Keep finished runs under the same unique key; do not look at the state before refusing.",
    ),
    Clause(
        "RUN-4",
        MUST,
        CORE,
        V1,
        "get_run of an unknown run is None and load is []; reading creates nothing.",
        "An engine asks before it starts; a read that creates a run blocks the start.",
        "Look runs up without a default (no setdefault, no defaultdict).",
    ),
    Clause(
        "RUN-5",
        MUST,
        CORE,
        V1,
        "A run is born unleased.",
        "A lease that nobody asked for blocks the first worker, and no one can release it.",
        "Store no owner and no token with a new run.",
    ),
    Clause(
        "RUN-6",
        MUST,
        CORE,
        V1,
        "None is a legal input, result, error and payload, and differs from absence.",
        "A step that returned None has run; taken for absent, it runs again.",
        "Keep the encoded None apart from SQL NULL or a missing key, and test with `is`, not for truth.",
    ),
    Clause(
        "RUN-7",
        MUST,
        CORE,
        V1,
        "Names (run id, workflow, instance, owner) are strings of 1 to 255 characters without U+0000 and lone surrogates; anything else is InvalidArgument, for reads as for writes.",
        "Stores truncate, coerce or choke on the rest, and then two names meet or a driver's error leaks.",
        "Check every name at the top of every method, and make the column hold 255 characters of any width.",
    ),
    Clause(
        "RUN-8",
        MUST,
        CORE,
        V1,
        "With opaque_run_ids, ids that differ only in case, whitespace or normal form are different runs; without it only canonical UUID text is legal and anything else is InvalidArgument.",
        "Two orders that share a run because a collation calls their ids equal are one order lost.",
        "Compare ids byte by byte (a binary or C collation); without the capability refuse what str(UUID(text)) does not give back.",
    ),
    # -- APP --
    Clause(
        "APP-1",
        MUST,
        CORE,
        V1,
        "Without a seq, or with `None` for it, an event gets the next one; the first is 0; history is dense.",
        "A replay steps through the history by seq; a hole or a shift makes it diverge.",
        "Give the seq from the run's own counter, in the statement that inserts the event.",
    ),
    Clause(
        "APP-2",
        MUST,
        CORE,
        V1,
        "An explicit seq must be the next one: a duplicate, a gap or a negative one is SequenceConflict.",
        "The seq is the writer's claim of what it has seen; accepting another one overwrites or skips history.",
        "Compare the given seq with the run's next one inside the write, and refuse on any difference.",
    ),
    Clause(
        "APP-3",
        MUST,
        CORE,
        V1,
        "A seq that is no integer (bool, float, string) is InvalidArgument, and the journal goes on working.",
        "True would pass for 1 and 2.0 for 2, and one careless caller must not break the journal for all.",
        "Check `type(seq) is int` before touching the store.",
    ),
    Clause(
        "APP-4",
        MUST,
        CORE,
        V1,
        "An event that is no mapping, has no non-empty string type, or has a key that is no string, is InvalidArgument; nobody else's run is harmed.",
        "A malformed event that is stored breaks every later load of that run.",
        "Check the event's form before touching the store.",
        note="Where rich terms are undeclared, a key that is no string may be refused as NotDurable as well: both apply.",
    ),
    Clause(
        "APP-5",
        MUST,
        CORE,
        V1,
        "Appending to an unknown run raises RunNotFound, and no run appears.",
        "A phantom run has no workflow and no input; no worker can ever finish it.",
        "Make the insert depend on the run's row (a foreign key, or INSERT ... SELECT from it).",
        note="With a token, LeaseMismatch applies to an unknown run as well (its token is not the run's); the kit asks for RunNotFound where the token is None.",
    ),
    Clause(
        "APP-6",
        MUST,
        CORE,
        V1,
        "Appending to a terminal run raises RunNotActive: its history is final, for the holder of its last lease too.",
        "A result that was reported must be the result of the history that is stored.",
        "Put the state into the condition of the write, not only into a check before it.",
        note="Where the finish ended the lease or the token is not the run's, LeaseMismatch applies as well; a run that was finished unleased answers None with RunNotActive.",
    ),
    Clause(
        "APP-7",
        MUST,
        CORE,
        V1,
        "A suspended run accepts appends and stays suspended.",
        "Timers and signals arrive while a run sleeps; writing them down must not wake it by halves.",
        "Allow running and suspended in the condition, and do not set the state in append.",
    ),
    Clause(
        "APP-8",
        MUST,
        CORE,
        V1,
        "Appending changes nothing else: not the state, the record, the lease, or other runs.",
        "An append with a side effect makes the history depend on something that is not in it.",
        "Update only the run's counter, and bind every statement to (instance, run_id).",
    ),
    Clause(
        "APP-9",
        MUST,
        CORE,
        V1,
        "A rejected append leaves no trace, and the next accepted one gets the seq that the rejected one would have had.",
        "A seq that a refused write used up is a hole that every later replay falls into.",
        "Check before counting up, or roll the counter back with the event; a database sequence does not roll back.",
    ),
    Clause(
        "APP-10",
        MUST,
        CORE,
        V1,
        "Every acknowledged operation is seen by every later one, through any handle.",
        "The worker that takes over reads through another connection; what it misses it does again.",
        "Commit before returning, keep no cache per handle, and read from the primary.",
    ),
    # -- LOD --
    Clause(
        "LOD-1",
        MUST,
        CORE,
        V1,
        "load returns every event in seq order, whatever the clock or the insertion path said.",
        "Replay is only deterministic in the order in which things happened.",
        "ORDER BY seq as a number (not as text), and follow the store's pages to the end.",
    ),
    Clause(
        "LOD-2",
        MUST,
        CORE,
        V1,
        "load and get_run are never fenced: reading changes nothing and works in every state.",
        "Dashboards and supervisors read runs that others hold.",
        "Look at no lease in load and get_run, and write nothing in them.",
    ),
    Clause(
        "LOD-3",
        MUST,
        CORE,
        V1,
        "What is returned is the caller's own: changing it changes nothing in the journal.",
        "Engines decorate what they load; shared lists would rewrite history in place.",
        "Decode anew for every call, or copy deeply; a shallow copy shares what is nested.",
    ),
    Clause(
        "LOD-4",
        MUST,
        CORE,
        V1,
        "Every load is a prefix of every later load.",
        "An event that was seen was acted upon; it cannot go away or change.",
        "Never update or delete events; read from one place only.",
    ),
    Clause(
        "LOD-5",
        SHOULD,
        CORE,
        V1,
        "A run holds at least 10,000 events and 32 MiB.",
        "Long-running workflows get there; a limit met in production stops them for good.",
        "Store an event a row, without rewriting the history on every append.",
        note="Tried in the thorough profile only.",
    ),
    # -- FIN --
    Clause(
        "FIN-1",
        MUST,
        CORE,
        V1,
        "suspend takes a running or suspended run to suspended; suspending twice is no error.",
        "A worker that repeats a suspend after a lost reply must not be told that it failed.",
        "Accept both states in the condition of the update.",
    ),
    Clause(
        "FIN-2",
        MUST,
        CORE,
        V1,
        "complete takes a running or suspended run to completed with the result, error None; fail to failed with the error, result None.",
        "Whoever waits for the run reads exactly one of the two.",
        "Set state, result and error in one statement; do not reuse one column for both.",
    ),
    Clause(
        "FIN-3",
        MUST,
        CORE,
        V1,
        "Terminal is final: suspend, complete, fail and append raise RunNotActive, and the record stays as it was.",
        "A second finish replaces a result that others have already acted upon.",
        "Put `state IN ('running', 'suspended')` into the write and diagnose when it touched no row.",
        note="Where the finish ended the lease or the token is not the run's, LeaseMismatch applies as well.",
    ),
    Clause(
        "FIN-4",
        MUST,
        CORE,
        V1,
        "suspend, complete and fail of an unknown run raise RunNotFound, and no run appears.",
        "A finish that goes nowhere and says nothing looks like success.",
        "Check the number of rows that the update touched.",
    ),
    Clause(
        "FIN-5",
        MUST,
        CORE,
        V1,
        "The history is untouched by a transition.",
        "A transition is a fact about the run, not an event of it, and may not delete any.",
        "Write no event and delete none in suspend, complete and fail.",
    ),
    Clause(
        "FIN-6",
        MUST,
        CORE,
        V1,
        "Falsy and deep results and errors read back exactly as they were.",
        "`if result:` loses 0, False, the empty string and the empty list, all of them real results.",
        "Test for None with `is`, and keep an encoded None apart from NULL.",
    ),
    Clause(
        "FIN-7",
        MUST,
        LEASES,
        V1,
        "On a terminal run renew and release are refused (LeaseLost or RunNotActive); load_with_snapshot may answer any token with the pair or with LeaseMismatch, but None on a run that was finished unleased always gets the pair.",
        "A worker that renews the lease of a finished run goes on working for nothing.",
        "Put the state into the condition of renew and release.",
    ),
    # -- LEA --
    Clause(
        "LEA-1",
        MUST,
        LEASES,
        V1,
        "Acquiring an unleased or expired active run gives a lease with the caller's owner and a new token.",
        "This is how a run moves from a dead worker to a living one.",
        "Set owner, token and expiry in one conditional update and return what was set.",
    ),
    Clause(
        "LEA-2",
        MUST,
        LEASES,
        V1,
        "A live lease is LeaseHeld for everyone, its own holder included.",
        "Two threads of one worker are two writers; letting the owner in again makes them one lease.",
        "Do not compare the owner in acquire; who holds a lease renews it.",
    ),
    Clause(
        "LEA-3",
        MUST,
        LEASES,
        V1,
        "Acquiring an unknown run is RunNotFound and a terminal run RunNotActive (LeaseHeld is tolerated for both); neither is granted.",
        "A lease on a run that is not there keeps a worker waiting for ever.",
        "Diagnose an update that touched no row by reading the run.",
    ),
    Clause(
        "LEA-3s",
        SHOULD,
        LEASES,
        V1,
        "Acquiring an unknown or a terminal run should not be answered with LeaseHeld.",
        "LeaseHeld means try later; later is no better here.",
        "Read the run once the update touched no row, and tell the three cases apart.",
    ),
    Clause(
        "LEA-4",
        MUST,
        LEASES,
        V1,
        "Tokens of a run only grow: over release, expiry, restart and crash a token is never given twice, and of two acquires the later granted has the greater token.",
        "A token given twice lets the first holder write as the second.",
        "Keep the last token with the run for good, count it up in the granting statement, and never reset it on release.",
        note="Restart needs `durable`, crash needs `crash_safe`.",
    ),
    Clause(
        "LEA-5",
        MUST,
        LEASES,
        V1,
        "Renewing keeps the token and moves the expiry to now + ttl, for the holder alone: owner and token must both match, else LeaseLost, and nothing changes; a ttl of 0 is takeable at once.",
        "A renewal that looks only at the owner revives the lease of a worker that was fenced out.",
        "Put owner and token into the condition of the update; compare expiry with `<=`, so that a ttl of 0 has expired at once.",
    ),
    Clause(
        "LEA-6",
        MUST,
        LEASES,
        V1,
        "An expired lease that nobody took may be renewed and released and still writes: expiry makes a lease takeable, and only taking it fences.",
        "Otherwise a write is lost to a clock although no other worker exists.",
        "Do not look at the expiry anywhere but in acquire.",
    ),
    Clause(
        "LEA-7",
        MUST,
        LEASES,
        V1,
        "Releasing by the holder unleases the run; by anyone else it is LeaseLost, and the present holder keeps the lease.",
        "A late release by a fenced worker must not free the run under its successor.",
        "Put owner and token into the condition of the release.",
    ),
    Clause(
        "LEA-8",
        MUST,
        LEASES,
        V1,
        "After a release the old token is fenced for good.",
        "Whoever released has promised to write no more; a write in flight must not arrive.",
        "Clear the token of the run on release, and keep the counter.",
    ),
    Clause(
        "LEA-9",
        MUST,
        LEASES,
        V4,
        "A granted ttl counts from the moment of granting: an acquire or renew that waited behind a lock is not born expired or shortened.",
        "A lease that is born expired is taken over while its holder believes in it.",
        "Read the clock after the row is locked; in PostgreSQL use a locking sub-select before clock_timestamp(), never now().",
    ),
    Clause(
        "LEA-10",
        MUST,
        LEASES,
        V1,
        "A ttl that is negative, not finite, a bool or not a number is InvalidArgument.",
        "An infinite or garbled ttl makes a lease that no one can take over.",
        "Check with math.isfinite and refuse bool before the store sees it.",
    ),
    # -- FEN --
    Clause(
        "FEN-1",
        MUST,
        LEASES,
        V1,
        "The present token is accepted by append, suspend, complete, fail and load_with_snapshot.",
        "A holder that is refused cannot finish its work.",
        "Compare the token with the run's present one and nothing else.",
    ),
    Clause(
        "FEN-2",
        MUST,
        LEASES,
        V1,
        "An older, newer or forged token, and another run's unless the numbers are equal, is LeaseMismatch, and nothing changes.",
        "This is the fence: a paused worker that wakes up writes with an older token.",
        "Compare for equality (not `<` and not `>=`), inside the statement that writes.",
    ),
    Clause(
        "FEN-3",
        MUST,
        LEASES,
        V1,
        "None on a leased run is LeaseMismatch, also when the lease has expired and nobody took it; None on an unleased run is accepted.",
        "A caller without a token would walk around the fence.",
        "Compare tokens with IS NOT DISTINCT FROM; a None must not switch the check off.",
    ),
    Clause(
        "FEN-4",
        MUST,
        LEASES,
        V1,
        "A token on an unleased run is LeaseMismatch.",
        "The writer believes in a lease that it no longer has.",
        "Refuse a token where the run has none; do not ignore it.",
    ),
    Clause(
        "FEN-5",
        MUST,
        LEASES,
        V2,
        "Once an acquire, a release or a finish is acknowledged, no write that it shuts out takes effect, whenever that write began.",
        "Check and write are two moments; a takeover between them is the case that leases are for.",
        "Check the token inside the statement that writes, or under a lock on the run's row that acquire takes too.",
    ),
    Clause(
        "FEN-6",
        MUST,
        LEASES,
        V1,
        "A fenced-out worker cannot finish, suspend or extend the run, nor release its successor's lease.",
        "The worker that came back from a pause does all of these, in good faith.",
        "Fence every write in the same way; a helper that builds the condition helps.",
    ),
    Clause(
        "FEN-7",
        MUST,
        LEASES,
        V1,
        "A token that is neither None nor an integer (a bool is none) is InvalidArgument.",
        "True equals 1, and 1.0 equals 1: a garbled token would pass.",
        "Check `type(token) is int` before comparing.",
    ),
    Clause(
        "FEN-8",
        MUST,
        CORE,
        V1,
        "Without leases only None is accepted: a token is refused (InvalidArgument), never ignored.",
        "An engine that sends a token believes that it is protected.",
        "Raise InvalidArgument for any token that is not None.",
    ),
    # -- SNP --
    Clause(
        "SNP-1",
        MUST,
        CORE,
        V1,
        "Without a snapshot load_with_snapshot gives (None, all events).",
        "An engine loads in one way, whether there is a snapshot or not.",
        "Treat a missing snapshot as one before the first event (through_seq -1).",
    ),
    Clause(
        "SNP-2",
        MUST,
        SNAPSHOTS,
        V1,
        "With snapshots load_with_snapshot gives the one with the greatest through_seq, and exactly the events after it, in order.",
        "One event too many is applied twice, one too few never.",
        "Select events with seq > through_seq.",
    ),
    Clause(
        "SNP-3",
        MUST,
        SNAPSHOTS,
        V1,
        "Which snapshot is latest does not depend on the order or time of taking.",
        "Workers with skewed clocks take snapshots late and out of order.",
        "ORDER BY through_seq DESC as a number; never by taken_at or by insertion.",
    ),
    Clause(
        "SNP-4",
        MUST,
        SNAPSHOTS,
        V1,
        "With snapshots load still returns the whole history.",
        "A snapshot is a shortcut, not an archive.",
        "Delete no event when a snapshot is taken.",
    ),
    Clause(
        "SNP-5",
        MUST,
        SNAPSHOTS,
        V1,
        "A second snapshot for the same through_seq is no error when it is equal (taken_at apart; the first stays), and SnapshotConflict when it differs.",
        "Two workers snapshot the same point; if they disagree, one of them is wrong and must hear of it.",
        "Insert under a unique key on (instance, run_id, through_seq) and compare on conflict; never upsert.",
    ),
    Clause(
        "SNP-6",
        MUST,
        SNAPSHOTS,
        V1,
        "A snapshot of an unknown run is RunNotFound.",
        "It would lie in wait for a run that is started under that id later.",
        "Make the insert depend on the run's row.",
    ),
    Clause(
        "SNP-7",
        MUST,
        SNAPSHOTS,
        V1,
        "A through_seq that is no seq of the history (past its last event, or negative) is SnapshotConflict; the last event's own seq is legal.",
        "A snapshot ahead of the history hides the events that come later.",
        "Compare through_seq with the run's next seq inside the write: 0 <= through_seq < next.",
    ),
    Clause(
        "SNP-8",
        MUST,
        SNAPSHOTS,
        V1,
        "A snapshot's record reads back equal, keys and types of the steps included.",
        "JSON turns integer keys into strings, and then no step is found.",
        "Encode the steps with a format that keeps integer keys.",
    ),
    Clause(
        "SNP-9",
        MUST,
        SNAPSHOTS,
        V1,
        "Snapshots may be taken in every state, terminal included.",
        "Background compaction comes after the finish as well.",
        "Look at no state in take_snapshot.",
    ),
    Clause(
        "SNP-10",
        MUST,
        SNAPSHOTS,
        V2,
        "The pair that load_with_snapshot returns is from one moment: snapshot and events join without gap or overlap.",
        "Read in two statements, a snapshot taken between them makes events vanish or come twice.",
        "Read both in one statement, or in a repeatable-read transaction.",
    ),
    Clause(
        "SNP-11",
        MUST,
        CORE,
        V1,
        "load_with_snapshot of an unknown run is RunNotFound.",
        "A worker that is about to work on a run must know that there is none.",
        "Check the run before its events: an empty list is no answer here.",
    ),
    Clause(
        "SNP-12",
        MUST,
        SNAPSHOTS,
        V1,
        "Runs never see one another's snapshots.",
        "A foreign snapshot is a foreign customer's data.",
        "Key snapshots by (instance, run_id, through_seq).",
    ),
    Clause(
        "SNP-13",
        MUST,
        SNAPSHOTS,
        V1,
        "A through_seq or step key that is no integer (a bool is none), a naive taken_at or a version hash that is not bytes is InvalidArgument.",
        "Each of them is stored happily by some store and read back as something else.",
        "Check the snapshot's form before touching the store.",
    ),
    # -- TRM --
    Clause(
        "TRM-1",
        MUST,
        CORE,
        V1,
        "Required terms read back equal and of the same type: None, bool, int of any size, float, str, bytes, list, dict with str keys; nested, empty and large; also one that looks like the adapter's own encoding. What is too deep or too large is refused (NotDurable), never a crash or a hang.",
        "A replay compares what it computes with what was stored; a value that changed on the way diverges.",
        "Use a format that keeps these types apart (CBOR, MessagePack with care, tagged JSON with escaping), and limit depth before encoding.",
    ),
    Clause(
        "TRM-1s",
        SHOULD,
        CORE,
        V1,
        "The order of a dict's keys should be kept.",
        "Code that iterates over a dict is deterministic only when the order is.",
        "Use a text or binary column rather than jsonb, and do not sort keys.",
    ),
    Clause(
        "TRM-2",
        MUST,
        RICH,
        V1,
        "Rich terms read back equal and of the same type: tuple, set, frozenset, Decimal, datetimes (offset kept), date, time, timedelta, UUID, int and tuple keys.",
        "Declared means kept: a tuple that comes back as a list no longer compares equal.",
        "Tag each rich type in the encoding; do not convert times to UTC, nor decimals through float.",
        note="Aware times, fold, and nan within sets or keys are untested.",
    ),
    Clause(
        "TRM-3",
        MUST,
        CORE,
        V1,
        "Anything else (functions, locks, open files, instances of unknown classes, lone surrogates, containers that hold themselves) is NotDurable with the path of the first offender, and nothing is written.",
        "A value that is stored as its repr, or dropped, is lost without a word; the path finds it.",
        "Walk the term before writing and raise NotDurable(path=...), as in event.payload.owner[0].",
    ),
    Clause(
        "TRM-3s",
        SHOULD,
        CORE,
        V1,
        "Subclasses of allowed types (enums, named tuples, ordered dicts, str subclasses) should be refused rather than silently flattened.",
        "They come back as their base class, and the caller's methods are gone.",
        "Compare `type(value) is ...` rather than isinstance.",
    ),
    Clause(
        "TRM-4",
        MUST,
        CORE,
        V1,
        "What was stored is the value at the time of the call: changing the object afterwards changes nothing.",
        "Engines reuse their buffers; history would change under them.",
        "Encode or copy deeply before returning; in the async form before the first await.",
    ),
    Clause(
        "TRM-5",
        MUST,
        CORE,
        V1,
        "Loading never runs code from the stored bytes (no pickle and its like).",
        "Whoever can write a row could otherwise run code in every worker.",
        "Use a data format; do not call pickle, marshal, eval or yaml.load on what was stored.",
    ),
    # -- ISO --
    Clause(
        "ISO-1",
        MUST,
        CORE,
        V1,
        "The same run id in two instances is two runs, for reads, writes, leases and snapshots; two pairs (instance, run id) name one run only when both strings are equal, code point by code point.",
        "Tenants share a store; a collation or a joined key makes two of them one.",
        "Key every table on (instance, run_id) as two columns with a binary collation, and join no keys by a separator.",
    ),
    Clause(
        "ISO-2",
        MUST,
        CORE,
        V1,
        "Runs of one instance never touch one another.",
        "A statement without the run's id in its WHERE finishes all of them.",
        "Bind every statement to (instance, run_id).",
    ),
    Clause(
        "ISO-3",
        MUST,
        CORE,
        V1,
        "An operation changes only what its clauses name, and nothing changes without an operation: acquire, renew and release leave state and history alone, suspend leaves the lease, an expired lease that nobody took still counts as leased, and an event's type means nothing to the journal.",
        "What changes by itself cannot be reasoned about, nor replayed.",
        "No reaper, no trigger, no special event types.",
    ),
    # -- ATM --
    Clause(
        "ATM-1",
        MUST,
        CORE,
        V3,
        "Every operation happens once and whole, or not at all, also when its connection dies at any point, a wait ends or the disk is full.",
        "Half an operation is an event without its seq, or a payment made twice by a blind retry.",
        "One transaction per operation; retry inside only before COMMIT was sent.",
    ),
    Clause(
        "ATM-2",
        MUST,
        CORE,
        V1,
        "Any error from a rejected operation is a contract error; a driver's own error never leaks out raw.",
        "An engine decides by the error's name what to do next; an IntegrityError tells it nothing.",
        "Translate the driver's exceptions, in the adapter or in the harness's translate().",
    ),
    Clause(
        "ATM-3",
        MUST,
        CORE,
        V1,
        "After any error the same handle goes on working by itself, and no connection, lock or transaction is left behind.",
        "A pool that hands out an aborted transaction fails the next caller, who did nothing wrong.",
        "Roll back on every path out, and return connections in a finally.",
    ),
    Clause(
        "ATM-3s",
        SHOULD,
        CORE,
        V3,
        "After a server restart at most one call per handle fails once the server is back.",
        "A pool of dead connections fails as many calls as it has connections.",
        "Drop the whole pool at the first disconnect.",
    ),
    Clause(
        "ATM-4",
        MUST,
        CORE,
        V3,
        "When the outcome is unknown the error says so: JournalUnavailable with outcome_unknown=True.",
        "A caller that is told no and retries does it twice.",
        "Set outcome_unknown once COMMIT, or an autocommitted write, has been sent and no reply came.",
    ),
    Clause(
        "ATM-5",
        MUST,
        CORE,
        V4,
        "A cancelled call of the async form raises CancelledError; it is all or nothing, and the handle goes on working.",
        "Engines cancel what takes too long; a connection left in the middle of a protocol breaks the next call.",
        "Discard a connection whose call was cancelled, and never swallow CancelledError.",
    ),
    Clause(
        "ATM-5s",
        SHOULD,
        CORE,
        V4,
        "A call of the sync form that is ended by KeyboardInterrupt should be all or nothing, and the handle should go on working.",
        "Ctrl-C comes at any line.",
        "Return connections in a finally.",
    ),
    # -- CON --
    Clause(
        "CON-1",
        MUST,
        CORE,
        V2,
        "Concurrent operations on a run are linearizable against the sequential model, an instance's and the store's first use included.",
        "An engine reasons as if operations came one at a time.",
        "Let one statement or one lock decide each operation, and create the schema under a lock.",
    ),
    Clause(
        "CON-2",
        MUST,
        CORE,
        V2,
        "Of concurrent starts of one id exactly one succeeds; of concurrent acquires with a lasting ttl exactly one; of concurrent finishes exactly one.",
        "Two winners are two workers on one run.",
        "Let a unique key or a conditional update choose the winner.",
    ),
    Clause(
        "CON-3",
        MUST,
        CORE,
        V2,
        "Concurrent appends lose nothing, repeat nothing, leave no gap.",
        "max(seq) + 1 read by two writers is one event lost.",
        "Count the seq up in the run's row, in the statement that inserts.",
    ),
    Clause(
        "CON-4",
        MUST,
        CORE,
        V2,
        "Every set of concurrent operations ends, and contention is waited out or retried inside and never surfaces.",
        "A deadlock or a serialization failure is the store's matter, not the engine's.",
        "Lock in one order, retry 40001, 40P01 and 1213 (MySQL), and wait for a busy lock or an empty pool.",
    ),
    Clause(
        "CON-5",
        SHOULD,
        CORE,
        V2,
        "Operations on different runs do not wait for one another.",
        "One slow run would stop all.",
        "Lock the run's row, not the table.",
    ),
    # -- DUR --
    Clause(
        "DUR-1",
        MUST,
        DURABLE,
        V1,
        "What was acknowledged is read by a new process after a clean close.",
        "Workers are restarted at every deployment.",
        "Write to the store before returning, and keep nothing in memory that the next process needs.",
    ),
    Clause(
        "DUR-2",
        MUST,
        DURABLE,
        V3,
        "What was acknowledged is read by a new process after SIGKILL of the client.",
        "Most workers do not die politely.",
        "Commit before returning; leave nothing to close() or to atexit.",
    ),
    Clause(
        "DUR-3",
        MUST,
        CRASH_SAFE,
        V3,
        "What was acknowledged is there after SIGKILL of the server and its recovery.",
        "An acknowledgement is a promise that others act upon.",
        "Keep fsync on, and synchronous_commit at on for every operation: local and off lose to a standby what was acknowledged.",
    ),
    Clause(
        "DUR-4",
        MUST,
        DURABLE,
        V3,
        "What was not acknowledged is there whole or not at all.",
        "Recovery must not find half an operation.",
        "One transaction per operation.",
    ),
    Clause(
        "DUR-5",
        MUST,
        DURABLE,
        V3,
        "Leases and token order survive too.",
        "A token that is given again after a restart lets an old worker in.",
        "Store the token counter with the run, in the same transaction.",
    ),
    # -- CLK --
    Clause(
        "CLK-1",
        MUST,
        LEASES,
        V4,
        "Expiry is set and judged by one clock, the store's: a client whose clock is an hour off neither steals a live lease nor misses an expired one.",
        "Clocks of worker machines differ, and they jump.",
        "Compute and compare the expiry in the database.",
    ),
    Clause(
        "CLK-2",
        MUST,
        CORE,
        V1,
        "Event order never depends on a clock.",
        "Clocks go back; history does not.",
        "Order by seq alone.",
    ),
)

CLAUSES: dict[str, Clause] = {entry.id: entry for entry in _ALL}
"""All clauses by id, in the order of the contract."""


def clause(clause_id: str) -> Clause:
    """The clause with this id. Raises ``KeyError`` with the nearest ids when there is none."""
    try:
        return CLAUSES[clause_id]
    except KeyError:
        raise KeyError(f"no clause {clause_id!r}; `continuum-conformance clauses` lists them") from None


def in_force(entry: Clause) -> bool:
    """Whether the contract version of this kit includes the clause."""
    return _version(entry.since) <= _version(CONTRACT_VERSION)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def select(patterns: str, among: Iterable[Clause] = _ALL) -> list[str]:
    """The clause ids that a comma-separated list of ids and chapters names, as in ``FEN,APP-2``.

    Args:
        patterns: the list.
        among: the clauses to choose from, in order; by default those that a check judges.

    Raises:
        ValueError: a part that names neither, with what would.
    """
    every = list(among)
    chosen: set[str] = set()
    for part in filter(None, (piece.strip() for piece in patterns.split(","))):
        matches = [entry.id for entry in every if part.upper() in (entry.id.upper(), entry.chapter)]
        if not matches and part.upper().startswith("PRF"):
            raise ValueError(f"{part!r} is measured by `continuum-conformance bench`, and never checked")
        if not matches:
            raise ValueError(
                f"{part!r} is neither a clause nor a chapter; chapters are {', '.join(CHAPTERS)}, and clauses look like FEN-2"
            )
        chosen.update(matches)
    if not chosen:
        raise ValueError("no clause was named; write for example FEN,APP-2")
    return [entry.id for entry in every if entry.id in chosen]
