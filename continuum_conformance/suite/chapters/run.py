"""RUN: starting and reading a run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from continuum_conformance.contract.records import Instance, Lease, RunState, Snapshot
from continuum_conformance.suite.data import BAD_NAMES, FALSY, any_term, names
from continuum_conformance.suite.lab import HOUR, Lab
from continuum_conformance.suite.situations import TERMINAL, each, lease_kinds
from continuum_conformance.suite.testing import checks

_TAKEN_AT = datetime(2026, 1, 2, tzinfo=UTC)

LEGAL_NAMES = (
    "a",
    " ",
    "x" * 255,
    "\U0001f600" * 255,
    "é" * 255,
    "a b",
    "'; DROP TABLE runs; --",
    "%",
    "a/b\\c:d|e",
    "../../etc",
    "\n\t",
    "None",
    "0",
)
"""Names that are legal and awkward."""

SAME_HASH = (("plumless", "buckeroo"), ("Aa", "BB"))
"""Pairs that have one CRC-32, or one hash as Java's strings have it, whatever stands before them."""

NEAR = (
    ("Run", "run"),
    ("run", "run "),
    ("run", " run"),
    ("run", "run\t"),
    ("run", "run\n"),
    ("caf\u00e9", "cafe\u0301"),
    ("caf\u00e9", "cafe"),
    ("stra\u00dfe", "strasse"),
    ("I", "\u0131"),
    ("K", "\u212a"),
    ("a", "\uff41"),
    ("ab", "a\u200bb"),
    ("1", "01"),
    ("1", "1.0"),
    ("a_b", "axb"),
    ("a%", "ab"),
    ("a", "a/"),
    ("a", "a."),
    ("a\\", "a"),
    ("x" * 254 + "y", "x" * 254 + "z"),
    ("\u00e9" * 254 + "y", "\u00e9" * 254 + "z"),
    *SAME_HASH,
)
"""Pairs of names that some store takes for one."""

BAD_UUIDS = (
    "run-1",
    "12345678-1234-5678-1234-56781234567",
    "12345678123456781234567812345678",
    "{12345678-1234-5678-1234-567812345678}",
    "urn:uuid:12345678-1234-5678-1234-567812345678",
    "ABCDEF78-1234-5678-1234-567812345678",
    " 12345678-1234-5678-1234-567812345678",
    "12345678-1234-5678-1234-567812345678\n",
)


@checks(
    "RUN-1",
    given={"given": any_term, "workflow": lambda _: st.sampled_from(["checkout", "a b", "\U0001f600"])},
)
def a_started_run_reads_back(lab: Lab, given: Any, workflow: str) -> None:
    run = lab.run()
    run.start(workflow, given)
    run.look()


@checks("RUN-1", cases=each(pair=NEAR))
def workflows_that_are_nearly_equal_are_two(lab: Lab, pair: tuple[str, str]) -> None:
    runs = [lab.run() for _ in pair]
    for run, workflow in zip(runs, pair, strict=True):
        run.start(workflow, None)
    for run in runs:
        run.look()


@checks("RUN-2", cases=each(lease=lease_kinds, state=(RunState.RUNNING, RunState.SUSPENDED), on=("A", "B")))
def an_existing_id_is_refused_and_stays_as_it_was(
    lab: Lab, lease: str | None, state: RunState, on: str
) -> None:
    run = lab.started(events=2, state=state, lease=lease)
    run.start("another", {"other": 1}, on=on)
    run.look()
    run.start("checkout", None, on=on)
    run.append(token=run.token)
    run.look()


@checks("RUN-3", cases=each(lease=lease_kinds, state=TERMINAL, on=("A", "B")))
def a_terminal_run_cannot_be_started_again(lab: Lab, lease: str | None, state: RunState, on: str) -> None:
    run = lab.started(events=1, state=state, lease=lease)
    run.start("another", {"other": 1}, on=on)
    run.look()
    run.append(token=None)
    run.look()


@checks("RUN-4")
def reading_an_unknown_run_finds_nothing_and_creates_nothing(lab: Lab) -> None:
    known = lab.started(events=1)
    run = lab.run()
    for worker in ("A", "B"):
        run.get(on=worker)
        run.load(on=worker)
        run.get(on=worker)
        run.load_with_snapshot(on=worker)
        run.get(on=worker)
        lab.run(run.run_id, lab.fresh_instance()).get(on=worker)
    run.start("checkout", 1)
    run.look()
    known.look()


@checks("RUN-5")
def a_run_is_born_unleased(lab: Lab) -> None:
    with lab.arranging():
        run = lab.run()
        run.start()
    run.append(token=None)
    run.load_with_snapshot(None)
    if "leases" in lab.capabilities:
        run.acquire("alice")
        run.append(token=run.token)
    run.look()


@checks("RUN-6", cases=each(where=("input", "result", "error", "payload", "step")))
def none_differs_from_absence(lab: Lab, where: str) -> None:
    run = lab.run()
    if where == "input":
        run.start("checkout", None)
        other = lab.run()
        other.start("checkout", {"a": None})
        other.look()
    elif where == "payload":
        run = lab.started()
        run.append({"type": "step", "payload": None})
        run.append({"type": "step"})
        run.append({"type": "step", "payload": {"result": None}, "error": None})
    elif where == "step":
        run = lab.started(events=2)
        if "snapshots" in lab.capabilities:
            run.snapshot(1, {0: None, 1: {"a": None}})
    else:
        run = lab.started()
        if where == "result":
            run.complete(None)
        else:
            run.fail(None)
    run.look()


def _roles(capabilities: frozenset[str]) -> tuple[str, ...]:
    leases = ("acquire", "renew", "release", "owner") if "leases" in capabilities else ()
    snapshots = ("take_snapshot",) if "snapshots" in capabilities else ()
    return (
        "start_run",
        "workflow",
        "append",
        "load",
        "load_with_snapshot",
        "suspend",
        "complete",
        "fail",
        "get_run",
        *leases,
        *snapshots,
    )


def _call(lab: Lab, operation: str, instance: Any, run_id: Any) -> None:
    """An operation on a run id, with all other arguments right."""
    lease = Lease(run_id, "alice", 1)
    snapshot = Snapshot(run_id, 0, b"v", _TAKEN_AT, {})
    arguments: dict[str, dict[str, Any]] = {
        "start_run": {"run_id": run_id, "workflow": "checkout", "input": None},
        "append": {"run_id": run_id, "event": {"type": "step"}, "lease_token": None},
        "load": {"run_id": run_id},
        "load_with_snapshot": {"run_id": run_id, "lease_token": None},
        "suspend": {"run_id": run_id, "lease_token": None},
        "complete": {"run_id": run_id, "result": None, "lease_token": None},
        "fail": {"run_id": run_id, "error": None, "lease_token": None},
        "get_run": {"run_id": run_id},
        "acquire": {"run_id": run_id, "owner": "alice", "ttl": HOUR},
        "renew": {"lease": lease, "ttl": HOUR},
        "release": {"lease": lease},
        "take_snapshot": {"snapshot": snapshot},
    }
    lab.do(operation, instance=instance, **arguments[operation])


@checks("RUN-7", cases=each(role=_roles, part=("run id", "instance")))
def a_bad_name_is_refused_by_reads_and_writes(lab: Lab, role: str, part: str) -> None:
    run = lab.started(events=1)
    for name in lab.carried(BAD_NAMES):
        if role == "workflow":
            lab.run().start(name, None)
        elif role == "owner":
            run.acquire(name)
        elif part == "run id":
            _call(lab, role, lab.instance, name)
        else:
            _call(lab, role, Instance(name), run.run_id)
    run.append()
    run.look()


@checks("RUN-7", cases=each(name=LEGAL_NAMES))
def an_awkward_legal_name_is_accepted(lab: Lab, name: str) -> None:
    fresh = name[: 255 - len(lab.salt)] + lab.salt
    run = lab.run(fresh if "opaque_run_ids" in lab.capabilities else None, Instance(fresh))
    run.start(name, None)
    run.append()
    if "leases" in lab.capabilities:
        run.acquire(name)
        run.renew()
        run.append(token=run.token)
    if "snapshots" in lab.capabilities:
        run.snapshot(0, {0: 1})
    run.look()


@checks("RUN-8", needs="opaque_run_ids", cases=each(pair=NEAR))
def ids_that_are_nearly_equal_are_different_runs(lab: Lab, pair: tuple[str, str]) -> None:
    runs = [lab.run(f"{lab.salt}{name}"[:255] if len(name) < 200 else name, lab.instance) for name in pair]
    for number, run in enumerate(runs):
        run.get()
        run.start(f"workflow-{number}", number)
        run.append({"type": "step", "number": number})
    runs[0].complete(0)
    for run in runs:
        run.look()
    lab.do("get_run", run_id=(runs[0].run_id + "?")[-255:])


@checks("RUN-8", without="opaque_run_ids", cases=each(role=_roles))
def only_canonical_uuids_are_ids(lab: Lab, role: str) -> None:
    run = lab.started()
    for name in BAD_UUIDS:
        if role not in ("workflow", "owner"):
            _call(lab, role, lab.instance, name)
    run.look()


@checks("RUN-6", "TRM-1", cases=each(term=lambda _: range(len(FALSY))))
def a_falsy_input_reads_back(lab: Lab, term: int) -> None:
    run = lab.run()
    run.start("checkout", FALSY[term])
    run.look()


@checks("RUN-7", given={"name": lambda _: names(), "owner": lambda _: names(), "workflow": lambda _: names()})
def any_legal_name_is_accepted(lab: Lab, name: str, owner: str, workflow: str) -> None:
    fresh = f"{lab.salt}{name}"
    run = lab.run(fresh if "opaque_run_ids" in lab.capabilities else None, Instance(fresh))
    run.start(workflow, None)
    run.append()
    if "leases" in lab.capabilities:
        run.acquire(owner)
        run.renew()
        run.append(token=run.token)
    run.look()


@checks("RUN-8", needs="opaque_run_ids", given={"first": lambda _: names(), "second": lambda _: names()})
def different_ids_are_different_runs(lab: Lab, first: str, second: str) -> None:
    ids = dict.fromkeys((f"{lab.salt}{first}", f"{lab.salt}{second}", f"{lab.salt}{second.swapcase()}"[:255]))
    for number, run_id in enumerate(ids):
        run = lab.run(run_id)
        run.get()
        run.start(f"workflow-{number}", number)
        run.append({"type": "step", "number": number})
    for run_id in ids:
        lab.run(run_id).look()
