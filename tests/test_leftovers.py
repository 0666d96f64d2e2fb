"""Whoever owns processes and directories may end in any way and at any moment: nothing is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from continuum_conformance.postgres import binaries

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="asks the kernel for the parent's death signal"
)

STOPPED_WORKER = """
import sys
from continuum_conformance.harness import Subject
from continuum_conformance.suite.lab import Lab, Session
from continuum_conformance.suite.races.levels import own_files
from continuum_conformance.suite.stores import Stores
from continuum_conformance.model import Operation

subject = Subject("continuum_adapters.sqlite:SQLiteHarness")
stores = Stores()
stores.provide(subject)
session = Session(subject)
files = own_files(session.handle("A").journal, subject.harness)
worker = session.handle("Z")
lab = Lab(session)
arguments = {"instance": lab.instance, "run_id": "r", "workflow": "w", "input": None}
assert worker.stop_in(Operation("start_run", arguments, "Z"), files, 5) and worker.is_stopped
print(worker.pid, subject.directory, flush=True)
sys.stdin.read()
"""

LAGGING_PAIR = """
import sys
from continuum_conformance.postgres import Pair, programs

pair = Pair(programs())
pair.replicate(synchronous=True)
with pair.lagging():
    servers = pair._primary, pair._standby
    pids = [(s.directory / "data" / "postmaster.pid").read_text().split()[0] for s in servers]
    print(*pids, *(s.directory for s in servers), flush=True)
    sys.stdin.read()
"""


def _is_there(what: str) -> bool:
    if not what.isdigit():
        return Path(what).exists()
    try:
        return Path(f"/proc/{what}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _outlives(script: str, number: signal.Signals) -> list[str]:
    """What there is of an owner's that ended by a signal, after long enough."""
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    try:
        names = owner.stdout.readline().decode().split()
        assert names
        assert all(map(_is_there, names))
    finally:
        owner.send_signal(number)
        owner.communicate()
    deadline = time.monotonic() + 60
    while any(map(_is_there, names)) and time.monotonic() < deadline:
        time.sleep(0.01)  # between two looks
    return [name for name in names if _is_there(name)]


SIGNALS = pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)


@SIGNALS
def test_a_stopped_worker_and_the_store_end_with_their_owner(number):
    assert _outlives(STOPPED_WORKER, number) == []


@pytest.mark.skipif(binaries.embedded() is None and binaries.local() is None, reason="no PostgreSQL programs")
@SIGNALS
def test_two_servers_end_with_their_owner_while_replication_is_held(number):
    pytest.importorskip("psycopg")
    assert _outlives(LAGGING_PAIR, number) == []
