"""A log whose tail is torn: what the last operation wrote to it is there in part, and a new process opens the store.

What is a log is told by looking: a file to which an operation only appended, and nothing else of the store changed. In
such a state a crash in the middle of that operation leaves it. So the store must show all that was acknowledged before,
and the operation whole or not at all; and it must go on working. SQLite's write-ahead log is torn at its frames, with
its index (``-shm``) gone, which is rebuilt from the log; other logs at bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from continuum_conformance.contract.records import Instance
from continuum_conformance.harness import HarnessError
from continuum_conformance.model import Impossible, Operation, World
from continuum_conformance.postgres.directory import ScratchDirectory
from continuum_conformance.suite.faults.running import spread
from continuum_conformance.suite.lab import SECOND_PROCESS, Lab, RunUnderTest, Session
from continuum_conformance.suite.script import told_text
from continuum_conformance.suite.testing import Profile, Search, checks
from continuum_conformance.suite.violation import Step, Violation

WAL_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
WAL_HEADER, FRAME_HEADER = 32, 24
"""Bytes, from SQLite's file format; in the header the page's size is a big-endian number at byte 8."""

LARGE = {"type": "large", "data": b"\0\x01\x02\x03" * 4_000}
"""An event that takes more than one page of a store."""

POINTS = {"quick": 2, "standard": 6, "thorough": 10_000}
"""At how many points the log is torn for one operation, at most."""

Files = dict[str, bytes]


@dataclass(frozen=True)
class _Written:
    """An operation, and what the store's files held before it and after it."""

    step: Step
    before: Files
    after: Files
    worlds: tuple[World, World]
    """The model before and after it."""


@dataclass(frozen=True)
class _Tear:
    """What is left of a log: so many bytes, within those that an operation appended."""

    name: str
    size: int
    whole: int
    where: str

    def __str__(self) -> str:
        return f"of {self.name} {self.size} of {self.whole} bytes are left, {self.where}"


def _no_files(session: Session) -> str:
    """Why there is no file to be torn."""
    needs = session.subject.needs
    if "directory" not in needs or "postgres" in needs:
        return "the store is not in a directory of the kit's"
    return "" if "crash_safe" in session.capabilities else "`crash_safe` is not declared"


@checks("DUR-4", "ATM-1", program=True, needs="durable", when=_no_files)
def a_torn_log_loses_no_more_than_its_last_operation(
    session: Session, profile: Profile, seed: int, search: Search
) -> None:
    """A process is killed, the last thing that it wrote is torn, and another one opens what is left."""
    del seed
    subject = session.subject
    session.close_handles()
    directory = subject.directory
    try:
        with ScratchDirectory() as scratch:
            subject.directory = scratch
            lab = Lab(session, (), "torn log")
            for written in _written(lab, Path(scratch)):
                tears = _tears(written.before, written.after)
                for number in spread(len(tears), POINTS[profile.name]):
                    search.result.examples += 1
                    session.faults["logs torn"] += 1
                    found = _torn(lab, Path(scratch), written, tears[number - 1])
                    if found is not None:
                        search.result.violation = found
                        return
    finally:
        session.kill()
        subject.directory = directory
    if not search.result.examples:
        search.result.skipped = "none of its files is a log, to which operations only append"


def _written(lab: Lab, directory: Path) -> list[_Written]:
    """Have a process carry out one operation of each kind; what each of them wrote."""
    with lab.arranging():
        runs = [_started(lab) for _ in range(4)]
    found = []
    for act in _acts(lab, runs):
        before, world = _held(directory), lab.world
        act()
        found.append(_Written(lab.steps[-1], before, _held(directory), (world, lab.world)))
    lab.session.kill()
    lab.session.faults["clients killed"] += 1
    return found


def _started(lab: Lab) -> RunUnderTest:
    run = lab.run()
    run.start(on=SECOND_PROCESS)
    run.append(on=SECOND_PROCESS)
    return run


def _acts(lab: Lab, runs: list[RunUnderTest]) -> Iterator[Callable[[], object]]:
    plain, held, finished, failed = runs
    on = SECOND_PROCESS
    yield lambda: plain.append({"type": "last"}, on=on)
    yield lambda: plain.append(LARGE, on=on)
    yield lambda: plain.suspend(on=on)
    if "snapshots" in lab.capabilities:
        yield lambda: plain.snapshot(0, {0: LARGE}, on=on)
    if "leases" in lab.capabilities:
        yield lambda: held.acquire("alice", on=on)
        yield lambda: held.append(LARGE, held.token, on=on)
        yield lambda: held.renew(on=on)
        yield lambda: held.release(on=on)
        yield lambda: held.acquire("bob", ttl=0, on=on)
    yield lambda: finished.complete(LARGE, on=on)
    yield lambda: failed.fail({"why": "declined"}, on=on)
    yield lambda: lab.run().start(input=LARGE, on=on)


def _held(directory: Path) -> Files:
    """What the files of a store hold, by their names below it, without indexes of logs."""
    files = {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    indexes = [f"{name.removesuffix('-wal')}-shm" for name, data in files.items() if _is_wal(name, data)]
    return {name: data for name, data in files.items() if name not in indexes}


def _is_wal(name: str, data: bytes) -> bool:
    return name.endswith("-wal") and data[:4] in WAL_MAGIC


def _tears(before: Files, after: Files) -> list[_Tear]:
    """Where the log can be torn that an operation has appended to; nowhere when it did anything else."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if len(changed) != 1 or changed[0] not in before or changed[0] not in after:
        return []
    (name,) = changed
    old, new = before[name], after[name]
    if not new.startswith(old):
        return []
    if not _is_wal(name, new):
        points = {len(old) + 1: "", (len(old) + len(new)) // 2: "", len(new) - 1: ""}
        return [_Tear(name, at, len(new), "in the middle of it") for at in points if len(old) < at < len(new)]
    frame = FRAME_HEADER + int.from_bytes(new[8:12], "big")
    tears = []
    for start in range(max(len(old), WAL_HEADER), len(new), frame):
        number = (start - WAL_HEADER) // frame + 1
        # At its start the frame is missing as a whole.
        for at, where in (
            (start, f"up to frame {number}"),
            (start + frame // 2, f"in the middle of frame {number}"),
        ):
            tears.append(_Tear(name, at, len(new), where))
    return tears


class _Left:
    """What is left of a store, in the eyes of new processes, and what it can be: without the last operation, or with it.

    Attributes:
        steps: the calls so far.
        message: what is wrong, once it can be neither.
    """

    def __init__(self, lab: Lab, worlds: tuple[World, World]) -> None:
        self._lab, self._before, self._after = lab, *worlds
        self._worlds = list(worlds)
        self.steps: list[Step] = []
        self.message = ""

    def do(self, name: str, key: tuple[str, str], **arguments: object) -> None:
        """Make a call, unless all is lost already. Raises `HarnessError`."""
        if self.message:
            return
        instance, run_id = key
        asked = Operation(
            name, {"instance": Instance(instance), "run_id": run_id, **arguments}, SECOND_PROCESS
        )
        session = self._lab.session
        outcome = session.handle(SECOND_PROCESS).call(asked)
        self.steps.append(Step(asked, outcome))
        verdicts = [session.specification.step(world, asked, outcome) for world in self._worlds]
        self._worlds = [world for world in verdicts if not isinstance(world, Impossible)]
        if not self._worlds:
            self.message = next(wrong.message for wrong in verdicts if isinstance(wrong, Impossible))

    def look(self) -> None:
        """Read everything. Raises `HarnessError`."""
        for key in self._after:
            known = (world.get(key) for world in (self._before, self._after))
            tokens = {run.lease.token for run in known if run is not None and run.lease is not None}
            self.do("get_run", key)
            self.do("load", key)
            for token in (*sorted(tokens), None):
                self.do("load_with_snapshot", key, lease_token=token)


def _torn(lab: Lab, directory: Path, written: _Written, tear: _Tear) -> Violation | None:
    """Open what is left in a new process, look, go on, and look again from another one; what is wrong."""
    session = lab.session
    session.kill()
    _put(directory, {**written.before, tear.name: written.after[tear.name][: tear.size]})
    left = _Left(lab, written.worlds)
    try:
        left.look()
        left.do("append", next(iter(written.worlds[0])), event={"type": "afterwards"}, lease_token=None)
        session.kill()
        left.look()
        message = left.message
    except HarnessError as error:
        message = f"what is left cannot be opened: {error}"
    finally:
        session.kill()
    return _violation(lab, written, tear, left.steps, message) if message else None


def _put(directory: Path, files: Files) -> None:
    """Make a directory hold these files alone; directories stay."""
    for path in directory.rglob("*"):
        if path.is_file():
            path.unlink()
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


def _violation(lab: Lab, written: _Written, tear: _Tear, steps: list[Step], message: str) -> Violation:
    struck = written.step
    earlier = lab.steps[: lab.steps.index(struck)]

    def told(step: Step, mark: str = "") -> str:
        return told_text(step, lab.salt, mark=mark, most=120)

    lines = [
        "worker P is a process of its own:",
        "",
        *map(told, earlier),
        told(struck, "   <- what it wrote is torn"),
        f"     --- worker P is killed (SIGKILL); {tear}; and another one opens the store ---",
        *map(told, steps),
    ]
    return Violation(
        ("DUR-4", "ATM-1"),
        f"{struck.operation.name}, its log torn ({tear}): {message}",
        (*earlier, struck, *steps),
        salt=lab.salt,
        test=lab.test,
        story="\n".join(lines) + "\n",
        race={"test": "a_torn_log_loses_no_more_than_its_last_operation", "fault": "whole"},
    )
