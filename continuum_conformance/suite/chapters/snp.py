"""SNP: snapshots."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from continuum_conformance.contract.records import RunState, Snapshot
from continuum_conformance.suite.data import BAD_SEQS, any_term
from continuum_conformance.suite.lab import Lab
from continuum_conformance.suite.situations import ACTIVE, TERMINAL, each, lease_kinds
from continuum_conformance.suite.testing import checks

LATER = 30
"""Snapshots: more than are kept where old ones are thrown away."""
NOON = datetime(2026, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)


@checks("SNP-1", cases=each(length=(0, 1, 3), lease=lease_kinds))
def without_a_snapshot_all_events_come(lab: Lab, length: int, lease: str | None) -> None:
    run = lab.started(events=length, lease=lease)
    run.load_with_snapshot(run.token)
    run.load_with_snapshot(run.token, on="B")
    run.look()


@checks("SNP-2", cases=each(length=(1, 3), through=(0, 1, 2), lease=lease_kinds, on=("A", "B")))
def the_snapshot_and_exactly_the_events_after_it(
    lab: Lab, length: int, through: int, lease: str | None, on: str
) -> None:
    if through >= length:
        return
    run = lab.started(events=length, lease=lease)
    run.snapshot(through, {seq: f"step {seq}" for seq in range(through + 1)})
    run.load_with_snapshot(run.token, on=on)
    run.append({"type": "after"}, run.token)
    run.load_with_snapshot(run.token, on=on)
    run.append({"type": "after"}, run.token, on="B")
    run.look()


@checks(
    "SNP-3", cases=each(order=((0, 1, 2), (2, 0, 1), (2, 1, 0), (1, 2, 0)), times=("with", "against", "same"))
)
def the_latest_is_the_one_that_reaches_furthest(lab: Lab, order: tuple[int, ...], times: str) -> None:
    run = lab.started(events=4)
    for number, through in enumerate(order):
        hours = {"with": through, "against": -through, "same": 0}[times]
        run.snapshot(through, {0: number}, taken_at=NOON + timedelta(hours=hours))
        run.look()
    run.append()
    run.look()


@checks("SNP-3")
def seq_ten_reaches_further_than_seq_nine(lab: Lab) -> None:
    run = lab.started(events=12)
    for through in (9, 10, 2):
        run.snapshot(through, {through: "x"})
        run.look()


@checks("SNP-4", cases=each(through=(0, 2), lease=lease_kinds))
def load_still_returns_everything(lab: Lab, through: int, lease: str | None) -> None:
    run = lab.started(events=3, lease=lease)
    run.snapshot(through, {0: "x"})
    run.load()
    run.load(on="B")
    run.append({"type": "after", "seq": 3}, run.token)
    run.snapshot(3, {0: "x"})
    run.load()
    run.look()


DIFFERENT = ("hash", "step", "missing step", "added step", "bool for int", "falsy")


@checks("SNP-5", cases=each(how=DIFFERENT, on=("A", "B"), later=(False, True)))
def a_different_snapshot_for_the_same_seq_is_a_conflict(lab: Lab, how: str, on: str, later: bool) -> None:
    run = lab.started(events=3)
    with lab.arranging():
        run.snapshot(1, {0: 1, 1: None}, version_hash=b"v1")
        if later:
            run.snapshot(2, {0: 1, 1: None, 2: "x"}, version_hash=b"v1")
    steps: dict[str, Any] = {
        "hash": {0: 1, 1: None},
        "step": {0: 2, 1: None},
        "missing step": {0: 1},
        "added step": {0: 1, 1: None, 2: 0},
        "bool for int": {0: True, 1: None},
        "falsy": {0: 1, 1: False},
    }
    run.snapshot(1, steps[how], version_hash=b"v2" if how == "hash" else b"v1", on=on)
    run.look()
    run.snapshot(1, {0: 1, 1: None}, version_hash=b"v1", on=on)
    run.look()


@checks("SNP-5", cases=each(on=("A", "B")))
def an_equal_snapshot_is_no_error_and_the_first_stays(lab: Lab, on: str) -> None:
    run = lab.started(events=2)
    with lab.arranging():
        run.snapshot(1, {0: {"a": [1, 2]}, 1: None}, taken_at=NOON)
    for hours in (1, -1):
        run.snapshot(1, {0: {"a": [1, 2]}, 1: None}, taken_at=NOON + timedelta(hours=hours), on=on)
        run.look()


@checks("SNP-5")
def the_first_snapshot_stays_whatever_came_after_it(lab: Lab) -> None:
    run = lab.started(events=LATER)
    for through in range(LATER):
        run.snapshot(through, {0: through})
    run.snapshot(0, {0: 0}, on="B")
    run.snapshot(0, {0: "another"})
    run.look()


@checks("SNP-6")
def a_snapshot_of_an_unknown_run_is_refused(lab: Lab) -> None:
    known = lab.started(events=2)
    for run in (lab.run(), lab.run(known.run_id, lab.fresh_instance())):
        run.snapshot(0, {0: "x"})
        run.look()
        run.start()
        run.append()
        run.append()
        run.look()
    known.look()


@checks("SNP-7", cases=each(length=(0, 1, 3), off=(0, 1, 1000, 2**31, 2**63, 2**70, -4, -(2**70))))
def a_seq_that_is_none_of_the_historys_is_refused(lab: Lab, length: int, off: int) -> None:
    run = lab.started(events=length)
    run.snapshot(length + off, {0: "x"})
    run.look()
    run.append()
    run.append()
    run.look()


@checks("SNP-7", cases=each(length=(1, 2, 5), lease=lease_kinds))
def the_last_events_own_seq_is_legal(lab: Lab, length: int, lease: str | None) -> None:
    run = lab.started(events=length, lease=lease)
    run.snapshot(length - 1, {0: "x"})
    run.look()
    run.append({"type": "after"}, run.token)
    run.look()


@checks(
    "SNP-8",
    given={
        "steps": lambda caps: st.dictionaries(st.integers(0, 4), any_term(caps), max_size=4),
        "version_hash": lambda _: st.binary(min_size=1, max_size=40),
        "taken_at": lambda _: st.datetimes(
            datetime(1970, 1, 2),  # noqa: DTZ001
            datetime(2200, 1, 1),  # noqa: DTZ001
            timezones=st.sampled_from(
                [UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-8))]
            ),
        ),
    },
)
def a_snapshot_reads_back_equal(
    lab: Lab, steps: dict[int, Any], version_hash: bytes, taken_at: datetime
) -> None:
    run = lab.started(events=5)
    run.snapshot(4, steps, version_hash=version_hash, taken_at=taken_at)
    run.look()


@checks("SNP-8", cases=each(version_hash=(b"", b"\x00", b"\xff\xfe", b"abc", bytes(range(256)))))
def the_version_hash_is_bytes(lab: Lab, version_hash: bytes) -> None:
    run = lab.started(events=11)
    run.snapshot(10, {0: "zero", 10: "ten", 2: "two"}, version_hash=version_hash)
    run.look()


FAR_KEYS = (0, -1, -(2**31), 2**31, 2**53 + 1, 2**62)
"""Step keys beyond a column's or a float's width, and below nought."""
FAR_TIMES = tuple(
    datetime(*date, 23, 59, 59, 999999, tzinfo=UTC)
    for date in ((1901, 1, 1), (1969, 12, 31), (2038, 1, 19), (2106, 2, 7), (2300, 1, 1))
)
"""Before 1970, and after what 31 and 32 bits of seconds and 63 bits of nanoseconds reach."""


@checks("SNP-8")
def step_keys_and_times_may_be_far_from_nought(lab: Lab) -> None:
    run = lab.started(events=len(FAR_TIMES))
    for through, taken_at in enumerate(FAR_TIMES):
        run.snapshot(through, dict.fromkeys(FAR_KEYS, "far"), taken_at=taken_at)
        run.load_with_snapshot(run.token)
    run.look()


@checks("SNP-9", cases=each(state=(*ACTIVE, *TERMINAL), lease=lease_kinds))
def a_snapshot_may_be_taken_in_every_state(lab: Lab, state: RunState, lease: str | None) -> None:
    run = lab.started(events=2, state=state, lease=lease)
    run.snapshot(1, {0: "a", 1: "b"})
    run.look()
    run.snapshot(0, {0: "a"}, on="B")
    run.look()


@checks("SNP-11", cases=each(on=("A", "B")))
def loading_an_unknown_run_with_its_snapshot_is_refused(lab: Lab, on: str) -> None:
    known = lab.started(events=1)
    lab.run().load_with_snapshot(None, on=on)
    elsewhere = lab.run(known.run_id, lab.fresh_instance())
    elsewhere.load_with_snapshot(None, on=on)
    elsewhere.look()


@checks("SNP-12", cases=each(where=("another run", "another instance")))
def runs_never_see_one_anothers_snapshots(lab: Lab, where: str) -> None:
    run = lab.started(events=3)
    if where == "another run":
        other = lab.started(events=3)
    else:
        other = lab.started(events=3, instance=lab.fresh_instance(), run_id=run.run_id)
    run.snapshot(1, {0: "mine"})
    other.look()
    run.look()
    other.snapshot(2, {0: "theirs"})
    run.look()
    other.look()
    other.snapshot(1, {0: "theirs"})
    run.look()
    other.look()


def _malformed(run_id: str, how: str) -> Snapshot:
    part, _, number = how.partition(" ")
    values: dict[str, Any] = {"through_seq": 1, "version_hash": b"v", "taken_at": NOON, "steps": {0: "x"}}
    values[part] = BAD_PARTS[part][int(number)]
    return Snapshot(
        run_id, values["through_seq"], values["version_hash"], values["taken_at"], values["steps"]
    )


BAD_PARTS: dict[str, tuple[Any, ...]] = {
    "through_seq": (*(bad for bad in BAD_SEQS if not isinstance(bad, list)), None),
    "version_hash": (None, "v", 1, ["v"], True),
    "taken_at": (None, datetime(2026, 1, 2), "2026-01-02T00:00:00Z", 0, NOON.date()),  # noqa: DTZ001
    "steps": ({True: "x"}, {"0": "x"}, {0.0: "x"}, {None: "x"}, {(0,): "x"}, {0: "x", "1": "y"}),
}


@checks("SNP-13", cases=each(how=[f"{part} {n}" for part, bad in BAD_PARTS.items() for n in range(len(bad))]))
def a_malformed_snapshot_is_refused(lab: Lab, how: str) -> None:
    run = lab.started(events=3)
    run.do("take_snapshot", snapshot=_malformed(run.run_id, how))
    run.look()
    run.snapshot(1, {0: "x"})
    run.look()
