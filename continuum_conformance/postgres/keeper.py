"""The keeper: parent of one private PostgreSQL server, and its undertaker.

This file is not imported by the kit; it is run as a script (`python -I -S keeper.py`), so it uses the standard
library alone and stays cheap. Its owner holds the other end of its standard input:

- each line of input is a request, each line of output the answer to it (JSON both);
- the end of input means that the owner closed the server or died, however it died. Then the server is
  stopped and its directory removed, and the keeper exits.

The keeper is the *parent* of everything that it ends, so a process id is never reused under its hands, and
it makes the directory itself, so that no moment exists in which an owner's death could leave one behind.
It runs in a session of its own: Ctrl-C at the terminal reaches the owner only.
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

Account = tuple[int, int]
"""User id and group id that the server runs as."""

STOP_SECONDS = 2.0
"""An immediate shutdown takes some 20 ms; what is not gone after this is killed."""

READY = ("ready", "standby")
"""What a server's lock file says when it accepts connections; a hot standby takes those that only read."""

LINUX = sys.platform == "linux"

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


class Abandoned(Exception):
    """The owner has closed its end or died, or the keeper was told to end."""


def prctl(option: int, value: int) -> None:
    """Ask the kernel for something that is nice to have; elsewhere than on Linux, do nothing."""
    if LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def quit_with_parent() -> None:
    """In the server's process, before it starts: if even the keeper is killed, shut down at once."""
    prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def parents() -> dict[int, int]:
    """Return the parent of every process that can be seen."""
    found: dict[int, int] = {}
    if LINUX:
        for entry in os.listdir("/proc"):  # noqa: PTH208  (a third faster, and run while the server stands still)
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    status = Path("/proc", entry, "stat").read_text(errors="replace")
                    found[int(entry)] = int(status.rpartition(")")[2].split()[1])
        return found
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    for line in listing.stdout.splitlines():
        process, parent = line.split()
        found[int(process)] = int(parent)
    return found


def descendants(of: int) -> list[int]:
    """Return the ids of all processes below one."""
    children: dict[int, list[int]] = {}
    for process, parent in parents().items():
        children.setdefault(parent, []).append(process)
    found: list[int] = []
    waiting = [of]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def state(process: int) -> str:
    """Return the letter by which the system tells a process's state. Raises `FileNotFoundError` when it has none."""
    if LINUX:
        return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    told = subprocess.run(
        ["ps", "-o", "state=", "-p", str(process)], capture_output=True, text=True, check=False
    )
    if not told.stdout.strip():
        raise FileNotFoundError(process)
    return told.stdout.strip()[0]


def gone(process: int) -> bool:
    """Tell whether a process has ended; one that only waits to be reaped by a stranger has."""
    try:
        os.kill(process, 0)
        if LINUX:
            return state(process) in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return True
    except PermissionError:  # another user's: it lives
        return False
    return False


def can_enter(directory: str, account: Account) -> bool:
    """Tell whether an account reaches a directory, by trying."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(account[1])
            os.setuid(account[0])
            os.chdir(directory)
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


class Keeper:
    """One directory and at most one server in it."""

    def __init__(self) -> None:
        self.directory = ""
        self.account: Account | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self.told_to_end = False
        self.input = b""
        self.woken, waker = os.pipe()
        os.set_blocking(self.woken, False)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self.on_end)
        prctl(PR_SET_CHILD_SUBREAPER, 1)

    def on_end(self, *_: object) -> None:
        """Note a signal that asks the keeper to end; the loop sees it at once."""
        self.told_to_end = True

    # -- waiting: always for the input too, so that an owner's death is never slept through

    def wait(self, condition: Callable[[], bool], seconds: float, pause: float) -> bool:
        """Wait until a condition holds; look at least each `pause` seconds and whenever a child ends.

        Returns whether it held in time. Raises `Abandoned`.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.listen(min(pause, left))
        return True

    def listen(self, seconds: float | None) -> None:
        """Take what input there is, waiting for it or for a signal. Raises `Abandoned` at its end."""
        readable, _, _ = select.select([0, self.woken], [], [], seconds)
        if self.woken in readable:
            os.read(self.woken, 4096)
            if self.ended():
                reap()
        if self.told_to_end:
            raise Abandoned
        if 0 in readable:
            more = os.read(0, 65536)
            if not more:
                raise Abandoned
            self.input += more

    def requests(self) -> None:
        """Answer requests until the input ends."""
        while True:
            while b"\n" not in self.input:
                self.listen(None)
            line, _, self.input = self.input.partition(b"\n")
            try:
                answer = self.answer(json.loads(line))
            except (OSError, subprocess.SubprocessError) as error:
                answer = {"failed": f"{type(error).__name__}: {error}"}
            os.write(1, json.dumps(answer).encode() + b"\n")

    def answer(self, request: dict[str, object]) -> dict[str, object]:
        """Do what one request asks."""
        do = request.pop("do")
        match do:
            case "mkdir":
                return self.mkdir(**request)  # type: ignore[arg-type]
            case "run":
                return self.run(**request)  # type: ignore[arg-type]
            case "start":
                return self.start(**request)  # type: ignore[arg-type]
            case "kill":
                self.kill()
                return {}
            case "hold":
                return self.hold(**request)  # type: ignore[arg-type]
            case "let_go":
                return self.let_go(**request)  # type: ignore[arg-type]
        return {"failed": f"unknown request {do!r}"}

    # -- the requests

    def mkdir(self, parents: list[str], account: list[int] | None) -> dict[str, object]:
        """Make the server's directory in the first place that its account can enter."""
        self.account = (account[0], account[1]) if account else None
        for parent in parents:
            try:
                self.directory = tempfile.mkdtemp(prefix="continuum-postgres-", dir=parent)
            except OSError:
                continue
            if self.account is None:
                return {"directory": self.directory}
            os.chown(self.directory, *self.account)
            if can_enter(self.directory, self.account):
                return {"directory": self.directory}
            Path(self.directory).rmdir()
            self.directory = ""
        return {"failed": f"none of {', '.join(parents)} is a directory that the server's account can use"}

    def spawn(self, argv: list[str], output: str) -> "subprocess.Popen[bytes]":
        """Start a program as the server's account; its output is appended to a file of the directory."""
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "TZ": "UTC",
            "HOME": self.directory,
        }
        user, group = self.account or (None, None)
        with Path(self.directory, output).open("ab") as file:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=self.directory,
                env=environment,
                user=user,
                group=group,
                extra_groups=[] if self.account else None,
                umask=0o077,
                preexec_fn=quit_with_parent,
            )

    def run(self, argv: list[str], seconds: float) -> dict[str, object]:
        """Run a program to its end."""
        output = Path(self.directory, "output")
        output.unlink(missing_ok=True)
        self.child = self.spawn(argv, output.name)
        if not self.wait(lambda: self.ended(), seconds, seconds):
            self.kill()
            return {
                "failed": f"not finished after {seconds:g} s",
                "output": output.read_text(errors="replace"),
            }
        return {"status": self.child.returncode, "output": output.read_text(errors="replace")}

    def start(self, argv: list[str], data: str, seconds: float) -> dict[str, object]:
        """Start the server and wait until it accepts connections."""
        if not self.ended():
            return {}
        self.kill()  # whatever a server that ended by itself has left
        self.child = self.spawn(argv, "server.log")
        lock_file = Path(data, "postmaster.pid")

        def ready() -> bool:
            try:
                lines = lock_file.read_text().splitlines()
            except OSError:
                return False
            return len(lines) >= 8 and lines[0] == str(self.pid()) and lines[7].strip() in READY

        if not self.wait(lambda: self.ended() or ready(), seconds, 0.005):
            self.kill()
            return {"failed": f"not ready after {seconds:g} s"}
        if self.ended():
            return {"failed": f"the server ended with status {self.child.returncode}"}
        return {}

    def hold(self, process: int) -> dict[str, object]:
        """Stop one process of the server (SIGSTOP); it stands still when this returns."""
        if self.child is None or process not in descendants(self.child.pid):
            return {"failed": f"{process} is no process of this server"}
        os.kill(process, signal.SIGSTOP)
        if not self.wait(lambda: state(process) in "Tt", STOP_SECONDS, 0.001):
            return {"failed": f"process {process} did not stop"}
        return {}

    def let_go(self, process: int) -> dict[str, object]:
        """Let a process that was held go on (SIGCONT)."""
        if self.child is not None and process in descendants(self.child.pid):
            os.kill(process, signal.SIGCONT)
        return {}

    # -- the end of things

    def pid(self) -> int | None:
        """Return the id of the present or last child."""
        return self.child.pid if self.child else None

    def ended(self) -> bool:
        """Tell whether no child of the keeper runs."""
        return self.child is None or self.child.poll() is not None

    def kill(self) -> None:
        """End the server and everything below it with SIGKILL, as one event.

        The postmaster is stopped first. It can then neither start nor reap a process, so the list of its
        children stays complete and right while they are killed.
        """
        server = self.child
        victims: list[int] = []
        if server and server.poll() is None:
            server.send_signal(signal.SIGSTOP)
            _, status = os.waitpid(server.pid, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                victims = descendants(server.pid)
                end(victims)
                server.kill()
                server.wait()
            else:
                server.returncode = os.waitstatus_to_exitcode(status)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            orphans = descendants(os.getpid())  # as their reaper; on other systems there are none
            end(orphans)
            reap()
            if all(gone(process) for process in victims + orphans):
                return
            time.sleep(0.002)

    def bury(self) -> None:
        """Stop the server and remove every trace of it: processes, shared memory, directory."""
        if self.child and not self.ended():
            self.child.send_signal(signal.SIGQUIT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(STOP_SECONDS)
        self.kill()
        if self.directory:
            remove_shared_memory(Path(self.directory, "data", "postmaster.pid"))
            for _ in range(3):
                shutil.rmtree(self.directory, ignore_errors=True)
                if not Path(self.directory).exists():
                    break


def reap() -> None:
    """Collect what has ended below a server that is no more."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end(processes: list[int]) -> None:
    """Kill processes that are known to be ours."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def remove_shared_memory(lock_file: Path) -> None:
    """Remove the System V segment that a killed server leaves; a server that shut down removed it itself."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        segment = int(lock_file.read_text().splitlines()[6].split()[1])
        ctypes.CDLL(None).shmctl(segment, 0, None)  # IPC_RMID is 0 on Linux, macOS and the BSDs


def main() -> None:
    """Serve one owner, then clean up behind it."""
    keeper = Keeper()
    try:
        keeper.requests()
    except (Abandoned, BrokenPipeError):
        pass
    finally:
        keeper.bury()


if __name__ == "__main__":
    main()
