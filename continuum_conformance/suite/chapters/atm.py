"""ATM: errors are the contract's, and a handle survives them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from continuum_conformance.contract.records import Instance, Lease, RunState
from continuum_conformance.suite.lab import Lab, RunUnderTest
from continuum_conformance.suite.situations import each
from continuum_conformance.suite.testing import checks

PATIENCE = 24
"""More refusals in a row than a pool has connections."""

ROUNDS = 5
"""So many refusals times five are more than threads and pools that fill up slowly take."""
FILES = Path("/proc/self/fd")

Refusal = Callable[[Lab, RunUnderTest], Any]

CORE: dict[str, Refusal] = {
    "start an id that exists": lambda lab, run: run.start("again", 1),
    "start with a bad name": lambda lab, run: lab.do("start_run", run_id="a\0b", workflow="w", input=None),
    "start with a long name": lambda lab, run: lab.run().start("w" * 256, None),
    "start in a bad instance": lambda lab, run: lab.do(
        "start_run", instance=Instance("\ud800"), run_id="r", workflow="w", input=None
    ),
    "start with a function": lambda lab, run: lab.run().start("w", {"f": len}),
    "append to an unknown run": lambda lab, run: lab.run().append(),
    "append nothing": lambda lab, run: run.append([]),
    "append without a type": lambda lab, run: run.append({"kind": "x"}),
    "append a duplicate": lambda lab, run: run.append({"type": "x", "seq": 0}),
    "append after a gap": lambda lab, run: run.append({"type": "x", "seq": 9}),
    "append a huge seq": lambda lab, run: run.append({"type": "x", "seq": 2**70}),
    "append a seq of text": lambda lab, run: run.append({"type": "x", "seq": "1"}),
    "append a lone surrogate": lambda lab, run: run.append({"type": "x", "payload": "\ud800"}),
    "append an object": lambda lab, run: run.append({"type": "x", "payload": object()}),
    "append under a token of text": lambda lab, run: run.append({"type": "x"}, "1"),
    "append to a terminal run": lambda lab, run: lab.started(state=RunState.COMPLETED).append(),
    "suspend an unknown run": lambda lab, run: lab.run().suspend(),
    "complete an unknown run": lambda lab, run: lab.run().complete(1),
    "fail an unknown run": lambda lab, run: lab.run().fail(1),
    "complete with an object": lambda lab, run: run.complete({"a": [object()]}),
    "complete a terminal run": lambda lab, run: lab.started(state=RunState.FAILED).complete(2),
    "load_with_snapshot of an unknown run": lambda lab, run: lab.run().load_with_snapshot(),
    "load under a bad name": lambda lab, run: lab.do("load", run_id=None),
    "get_run under a bad name": lambda lab, run: lab.do("get_run", run_id="\0"),
}
LEASES: dict[str, Refusal] = {
    "append under a forged token": lambda lab, run: run.append({"type": "x"}, 12345),
    "append under a huge token": lambda lab, run: run.append({"type": "x"}, 2**70),
    "suspend under a forged token": lambda lab, run: run.suspend(12345),
    "load_with_snapshot under a forged token": lambda lab, run: run.load_with_snapshot(-1),
    "acquire a held run": lambda lab, run: lab.started(lease="live").acquire("eve"),
    "acquire an unknown run": lambda lab, run: lab.run().acquire("eve"),
    "acquire a terminal run": lambda lab, run: lab.started(state=RunState.COMPLETED).acquire("eve"),
    "acquire for nobody": lambda lab, run: run.acquire(""),
    "acquire for ever": lambda lab, run: run.acquire("eve", float("inf")),
    "renew what one does not hold": lambda lab, run: run.renew(Lease(run.run_id, "eve", 7)),
    "renew a huge token": lambda lab, run: run.renew(Lease(run.run_id, "eve", 2**70)),
    "release what one does not hold": lambda lab, run: run.release(Lease(run.run_id, "eve", 7)),
    "release of an unknown run": lambda lab, run: lab.run().release(Lease("nobody", "eve", 7)),
}
SNAPSHOTS: dict[str, Refusal] = {
    "snapshot of an unknown run": lambda lab, run: lab.run().snapshot(0, {}),
    "snapshot ahead of the history": lambda lab, run: run.snapshot(99, {}),
    "snapshot at a huge seq": lambda lab, run: run.snapshot(2**70, {}),
    "snapshot before the history": lambda lab, run: run.snapshot(-1, {}),
    "snapshot with a hash of text": lambda lab, run: run.snapshot(0, {}, version_hash="v"),
    "snapshot with an object": lambda lab, run: run.snapshot(0, {0: object()}),
}


def _refusals(capabilities: frozenset[str]) -> tuple[str, ...]:
    return (
        *CORE,
        *(LEASES if "leases" in capabilities else ()),
        *(SNAPSHOTS if "snapshots" in capabilities else ()),
    )


def _refuse(lab: Lab, run: RunUnderTest, how: str) -> None:
    {**CORE, **LEASES, **SNAPSHOTS}[how](lab, run)


@checks("ATM-2", cases=each(how=_refusals))
def a_rejected_operation_raises_a_contract_error(lab: Lab, how: str) -> None:
    run = lab.started(events=1)
    _refuse(lab, run, how)
    run.look()


@checks("ATM-3", cases=each(how=_refusals))
def the_same_handle_works_after_an_error(lab: Lab, how: str) -> None:
    lab.session.renew_handles()  # so that what is found here was done here
    run = lab.started(events=1)
    _refuse(lab, run, how)
    run.append({"type": "after"}, on="A")
    lab.look(run.key, on="A")
    _refuse(lab, run, how)
    lab.run().start("after", 1)
    run.append({"type": "after"}, on="B")
    run.look()


@checks("ATM-3")
def many_errors_in_a_row_use_nothing_up(lab: Lab) -> None:
    lab.session.renew_handles()
    run = lab.started(events=1)
    for how in _refusals(lab.capabilities):
        with lab.where_carried():
            _refuse(lab, run, how)
    kinds = [
        how
        for how in _refusals(lab.capabilities)
        if how.startswith(("append a dup", "start an id", "append to an unk"))
    ]
    kinds += [
        how
        for how in ("acquire a held run", "snapshot ahead of the history")
        if how in _refusals(lab.capabilities)
    ]
    for how in kinds:
        for _ in range(PATIENCE):
            _refuse(lab, run, how)
        run.append({"type": "after"})
    run.look()


def _plain_refusals(capabilities: frozenset[str]) -> tuple[str, ...]:
    leases = (
        ("append under a forged token", "renew what one does not hold") if "leases" in capabilities else ()
    )
    snapshots = ("snapshot ahead of the history",) if "snapshots" in capabilities else ()
    return ("append a duplicate", "append to an unknown run", "start an id that exists", *leases, *snapshots)


@checks("ATM-3", cases=each(how=_plain_refusals))
def refusals_leave_nothing_open(lab: Lab, how: str) -> None:
    run = lab.started(events=1)
    told = len(lab.steps)
    for _ in range(ROUNDS):
        before = _open_files()
        for _ in range(PATIENCE):
            _refuse(lab, run, how)
        if _open_files() - before < PATIENCE:
            return
        gc.collect()  # what is left to it is not left behind
        if _open_files() - before < PATIENCE:
            return
    del lab.steps[told + 1 :]  # one stands for all
    lab.fail(
        f"each of {ROUNDS * PATIENCE} refusals in a row, of which this is one, left a file or a connection open"
    )


def _open_files() -> int:
    """How many files and connections this process has open; always 0 where the system does not tell."""
    if not FILES.is_dir():
        return 0
    return len(list(FILES.iterdir()))
