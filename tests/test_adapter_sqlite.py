"""The SQLite journal: one file for many threads and processes, clocks that jump, disks that fill."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from continuum_adapters import sqlite
from continuum_adapters.sqlite import SQLiteHarness, SQLiteJournal

from continuum_conformance.contract import (
    Instance,
    Journal,
    JournalUnavailable,
    LeaseHeld,
    LeaseMismatch,
    SequenceConflict,
    Snapshot,
    SnapshotConflict,
)

HERE = Instance("here")
EVENT = {"type": "e"}


class Clock:
    """A wall clock that a test sets."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Any:
    journal = SQLiteJournal(tmp_path / "journal", clock=clock)
    journal.start_run(HERE, "run", "flow", None)
    yield journal
    journal.close()


def test_it_is_a_journal(journal: SQLiteJournal) -> None:
    assert isinstance(journal, Journal)


@pytest.mark.parametrize("jump", [0, 1e9, -1e9, -1.7e9, -4e9])
def test_a_ttl_of_0_is_takeable_whatever_the_clock_does(
    journal: SQLiteJournal, clock: Clock, jump: float
) -> None:
    first = journal.acquire(HERE, "run", "a", 0)
    clock.now += jump
    assert journal.acquire(HERE, "run", "b", 0).token > first.token


def test_a_lease_is_live_until_its_ttl_has_passed(journal: SQLiteJournal, clock: Clock) -> None:
    first = journal.acquire(HERE, "run", "a", 10)
    clock.now += 9.99
    with pytest.raises(LeaseHeld):
        journal.acquire(HERE, "run", "b", 10)
    clock.now += 0.02
    assert journal.acquire(HERE, "run", "b", 10).token > first.token


def test_every_commit_is_on_disk_before_it_is_acknowledged(journal: SQLiteJournal) -> None:
    with journal._reading() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**70, -(2**70), 10**400])
def test_numbers_that_sqlite_cannot_hold_are_wrong_like_others(journal: SQLiteJournal, number: int) -> None:
    journal.append(HERE, "run", EVENT, None)
    with pytest.raises(LeaseMismatch):
        journal.append(HERE, "run", EVENT, number)
    with pytest.raises(SequenceConflict):
        journal.append(HERE, "run", {**EVENT, "seq": number}, None)
    with pytest.raises(SnapshotConflict):
        journal.take_snapshot(HERE, Snapshot("run", number, b"v", datetime.now(UTC), {}))


def test_threads_lose_nothing_and_wait_for_an_empty_pool(journal: SQLiteJournal) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: journal.append(HERE, "run", EVENT, None), range(200)))
        tokens = list(pool.map(lambda _: journal.acquire(HERE, "run", "me", 0).token, range(50)))
        lengths = set(pool.map(lambda _: len(journal.load(HERE, "run")), range(50)))
    assert sorted(tokens) == list(range(1, 51))
    assert lengths == {200}


def work(directory: str, number: int) -> None:
    harness = SQLiteHarness()
    harness.directory = directory
    journal = harness.open()
    for _ in range(25):
        journal.append(HERE, "run", {"type": "e", "worker": number}, None)
    harness.close(journal)


def test_processes_share_a_file_from_its_first_use_on(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    opener = SQLiteHarness()
    opener.directory = str(tmp_path)
    with ThreadPoolExecutor(8) as pool:  # raced creation within a process, too
        first, *others = pool.map(lambda _: opener.open(), range(8))
    for other in others:
        other.close()
    first.start_run(HERE, "run", "flow", None)
    workers = [spawn.Process(target=work, args=(str(tmp_path), number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert [event["seq"] for event in first.load(HERE, "run")] == list(range(100))
    first.close()


OPEN_AND_START = """
import sys
from continuum_adapters.sqlite import SQLiteJournal
from continuum_conformance.contract import Instance
print("ready", flush=True)
sys.stdin.readline()
journal = SQLiteJournal(sys.argv[1])
journal.start_run(Instance("here"), sys.argv[2], "flow", None)
journal.close()
"""


def test_processes_may_race_to_create_the_file(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_START, path, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )
        for number in range(6)
    ]
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.readline()
    for racer in racers:
        racer.communicate(b"\n")
    assert [racer.returncode for racer in racers] == [0] * 6
    journal = SQLiteJournal(path)
    assert all(journal.get_run(HERE, str(number)) for number in range(6))
    journal.close()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


KILLED = """
import os, signal, sys
from continuum_adapters.sqlite import SQLiteJournal
from continuum_conformance.contract import Instance
journal = SQLiteJournal(sys.argv[1])
here = Instance("here")
journal.start_run(here, "run", "flow", None)
print(journal.acquire(here, "run", "me", 0).token, flush=True)
journal.append(here, "run", {"type": "e"}, 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    killed = subprocess.run([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, env=environment())
    assert killed.returncode == -signal.SIGKILL
    journal = SQLiteJournal(path)
    assert journal.load(HERE, "run") == [{"type": "e", "seq": 0}]
    assert journal.acquire(HERE, "run", "me", 0).token == 2
    journal.close()


FILLED = """
import resource, signal, sys
from continuum_adapters.sqlite import SQLiteJournal
from continuum_conformance.contract import Instance, JournalUnavailable
journal = SQLiteJournal(sys.argv[1])
here = Instance("here")
journal.start_run(here, "run", "flow", None)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
acknowledged, unknown, failures = 0, 0, 0
while failures < 3:
    try:
        journal.append(here, "run", {"type": "e", "text": "x" * 20_000}, None)
        acknowledged += 1
    except JournalUnavailable as error:
        failures += 1
        unknown += error.outcome_unknown
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
count = len(journal.load(here, "run"))
assert acknowledged <= count <= acknowledged + unknown, (acknowledged, count, unknown)
journal.append(here, "run", {"type": "after"}, None)
assert [event["seq"] for event in journal.load(here, "run")] == list(range(count + 1))
"""


def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FILLED, str(tmp_path / "journal")], check=True, env=environment())


def test_another_process_s_lock_is_waited_out(journal: SQLiteJournal, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "journal", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    writer = threading.Thread(target=journal.append, args=(HERE, "run", EVENT, None))
    writer.start()
    assert journal.load(HERE, "run") == []  # reads wait for nobody
    time.sleep(0.1)
    other.execute("COMMIT")
    writer.join()
    other.close()
    assert len(journal.load(HERE, "run")) == 1


def test_who_waits_too_long_gives_up_and_did_nothing(
    journal: SQLiteJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "PATIENCE", 0.05)
    other = sqlite3.connect(tmp_path / "journal", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalUnavailable) as caught:
        journal.append(HERE, "run", EVENT, None)
    other.close()
    assert not caught.value.outcome_unknown
    journal.append(HERE, "run", EVENT, None)
    assert len(journal.load(HERE, "run")) == 1


def test_an_interrupted_write_is_rolled_back(journal: SQLiteJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "_change", interrupt)
        with pytest.raises(KeyboardInterrupt):
            journal.append(HERE, "run", EVENT, None)
    assert journal.load(HERE, "run") == []
    journal.append(HERE, "run", EVENT, None)
    assert len(journal.load(HERE, "run")) == 1


def test_closing_twice_harms_no_other_handle(tmp_path: Path) -> None:
    harness = SQLiteHarness()
    harness.directory = str(tmp_path)
    first, second = harness.open(), harness.open()
    harness.close(first)
    harness.close(first)
    second.start_run(HERE, "run", "flow", None)
    with pytest.raises(JournalUnavailable) as caught:
        first.get_run(HERE, "run")
    assert not caught.value.outcome_unknown
    harness.close(second)


def test_a_folder_that_is_not_there_is_an_error_of_the_contract(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable):
        SQLiteJournal(tmp_path / "nowhere" / "journal")
