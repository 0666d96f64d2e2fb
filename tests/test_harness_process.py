"""A second process over the same store: found by pickle or by name, undisturbed by what the adapter prints, outlived."""

import gc
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from continuum_adapters.sqlite import SQLiteHarness

from continuum_conformance.contract import Instance
from continuum_conformance.harness import HarnessError, SecondProcess, Subject
from continuum_conformance.harness.child import peers
from continuum_conformance.harness.nursery import ForkedProcess
from continuum_conformance.model import Kind, Operation

SHOP = Instance("shop")

MODULE = """
import os, sys, threading, time
from continuum_adapters.sqlite import SQLiteHarness, SQLiteJournal

PARENT = os.getppid() if os.environ.get("SECOND") else None

class Journal(SQLiteJournal):
    def get_run(self, instance, run_id):
        if run_id == "prints":
            print("noise on stdout")
            os.write(1, b"more noise")
            sys.stderr.write("x" * 1_000_000)
        if run_id == "dies":
            sys.stderr.write("out of memory\\n")
            sys.stderr.flush()
            os._exit(3)
        if run_id == "hangs":
            threading.Event().wait()
        if run_id == "exits":
            sys.exit(4)
        if run_id == "object":
            return super().get_run(instance, "r") or self
        return super().get_run(instance, run_id)

class Harness(SQLiteHarness):
    journal_class = Journal

    def open(self):
        return Journal(os.path.join(self.directory, "journal.db"))

class ClosesBadly(Harness):
    def close(self, journal):
        raise RuntimeError("the disk is full")

class Unpicklable(Harness):
    def __init__(self):
        self.lock = threading.Lock()

class NotThere(Harness):
    def open(self):
        if os.environ.get("SECOND"):
            raise RuntimeError("not in a second process")
        return super().open()

class Stuck(Harness):
    def open(self):
        if os.environ.get("SECOND"):
            threading.Event().wait()
        return super().open()

instance = Harness()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "second_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("second_mine", None)


def subject_for(target, **how):
    return Subject(target, directory=str(Path.cwd()), **how)


def start(run_id="r", given=None):
    return Operation("start_run", {"instance": SHOP, "run_id": run_id, "workflow": "w", "input": given})


def get(run_id="r"):
    return Operation("get_run", {"instance": SHOP, "run_id": run_id})


@pytest.mark.parametrize("target", ["second_mine:Harness", "second_mine:Unpicklable", "second_mine:instance"])
def test_both_processes_see_one_store(target):
    subject = subject_for(target)
    assert (subject.pickled is None) == ("Unpicklable" in target)
    handle = subject.open("A")
    given = {"tuple": (1, 2.5), "bytes": b"\0", "big": 2**70, "text": "é\0"}
    handle.call(start(given=given))
    with SecondProcess(subject) as second:
        assert second.pid != os.getpid()
        assert second.call(get()).value == handle.call(get()).value
        assert second.call(start("s")).ok
        assert second.call(start("s")).error == "RunAlreadyExists"
        second.close()
    assert handle.call(get("s")).ok
    handle.close()


def test_a_harness_class_that_was_given_as_such_is_found():
    with SecondProcess(subject_for(SQLiteHarness)) as second:
        assert second.call(get()).ok


def test_an_adapter_that_prints_disturbs_nothing():
    with SecondProcess(subject_for("second_mine:Harness")) as second:
        for _ in range(3):
            assert second.call(get("prints")).ok, "a megabyte on stderr would fill a pipe"
        second.close()


def test_a_large_argument_and_answer_pass():
    text = os.urandom(500_000).hex()
    with SecondProcess(subject_for("second_mine:Harness")) as second:
        assert second.call(start(given=text)).ok
        assert second.call(get()).value.input == text


def test_what_an_adapter_does_there_becomes_an_outcome():
    with SecondProcess(subject_for("second_mine:Harness")) as second:
        exits = second.call(get("exits"))
        assert (exits.kind, exits.error) == (Kind.RAW, "SystemExit")
        assert second.call(get("object")).kind is Kind.GARBAGE
        assert second.call(get()).ok


def test_a_process_that_dies_is_told_with_its_last_words():
    second = SecondProcess(subject_for("second_mine:Harness"))
    with pytest.raises(HarnessError, match="the second process has gone: exit code 3: out of memory"):
        second.call(get("dies"))
    with pytest.raises(HarnessError, match="has gone"):
        second.call(get())
    second.close()
    second.close()


def test_a_process_that_is_killed_is_told():
    second = SecondProcess(subject_for("second_mine:Harness"))
    os.kill(second.pid, signal.SIGKILL)
    with pytest.raises(HarnessError, match="exit code -9"):
        second.call(get())
    second.kill()


def test_a_call_that_hangs_there_is_an_outcome_and_the_process_still_closes():
    with SecondProcess(subject_for("second_mine:Harness", limit=2)) as hanging:
        outcome = hanging.call(get("hangs"))
        assert outcome.kind is Kind.HANG
        assert "in get_run" in outcome.detail
        hanging.close()


def test_a_process_that_stands_still_is_given_up():
    subject = subject_for("second_mine:Harness")
    with SecondProcess(subject) as second:
        os.kill(second.pid, signal.SIGSTOP)
        second._limit = 0.05
        with pytest.raises(HarnessError, match=r"gave no answer within 0\.1 s"):
            second.call(get())
        with pytest.raises(HarnessError, match="gave no answer"):
            second.call(start(given="x" + os.urandom(200_000).hex()))  # more than a pipe holds
        os.kill(second.pid, signal.SIGCONT)


def test_a_close_that_fails_there_is_told_and_the_process_ends():
    second = SecondProcess(subject_for("second_mine:ClosesBadly"))
    with pytest.raises(
        HarnessError, match=r"in a second process, close\(\) raised RuntimeError: the disk is full"
    ):
        second.close()
    with pytest.raises(ProcessLookupError):
        os.kill(second.pid, 0)


def test_an_open_that_fails_only_there_is_told(monkeypatch):
    subject = subject_for("second_mine:NotThere")
    assert subject.open("A").call(get()).ok
    monkeypatch.setenv("SECOND", "1")
    with pytest.raises(
        HarnessError, match=r"in a second process, open\(\) raised RuntimeError: not in a second process"
    ):
        SecondProcess(subject)


def test_an_open_that_hangs_only_there_is_told(monkeypatch):
    monkeypatch.setenv("SECOND", "1")
    with pytest.raises(HarnessError, match=r"did not come back|gave no answer"):
        SecondProcess(subject_for("second_mine:Stuck", limit=1))


def test_a_harness_that_another_process_cannot_find_is_told():
    class Local(SQLiteHarness):
        def __init__(self):
            self.lock = open(__file__)  # noqa: SIM115, PTH123

    subject = subject_for(Local)
    with pytest.raises(HarnessError, match="in a second process, "):
        SecondProcess(subject)
    subject.harness.lock.close()


def test_nothing_is_left_open(folder):
    def descriptors():
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for ended in (SecondProcess.close, SecondProcess.kill):
        subject = subject_for("second_mine:Harness")
        second = SecondProcess(subject)
        second.call(get())
        ended(second)
        subject.shutdown()
    assert descriptors() <= before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every worker is a new process")
def test_workers_are_forked_and_told_from_one_another(folder):
    subject = subject_for("second_mine:Harness")
    with SecondProcess(subject) as first, SecondProcess(subject) as second:
        assert subject.nursery is not None
        assert subject.nursery.ready
        assert isinstance(first._process, ForkedProcess)
        assert first.pid != second.pid
        first.kill()
        assert first._process.returncode == -signal.SIGKILL
        assert second.call(get()).ok
    subject.shutdown()


def test_an_adapter_whose_import_starts_threads_is_not_forked(folder, monkeypatch):
    monkeypatch.setenv(
        "TEST_PROCESS", str(os.getpid())
    )  # here a thread that never ends would disturb other tests
    Path("second_threads.py").write_text(
        "import os, threading\n"
        "if os.environ['TEST_PROCESS'] != str(os.getpid()):\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n" + MODULE
    )
    subject = subject_for("second_threads:Harness")
    with SecondProcess(subject) as second:
        assert subject.nursery is not None
        assert not subject.nursery.ready
        assert second.call(get()).ok
    subject.shutdown()


def test_looking_for_connections_leaves_nothing_open():
    files = Path("/proc/self/fd")
    if not files.is_dir():
        pytest.skip("the system does not tell what is open")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        before = len(list(files.iterdir()))
        assert server.getsockname() in peers()
        assert len(list(files.iterdir())) == before
