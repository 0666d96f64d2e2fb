"""CLK-1: clients whose clocks are off, in this process and in one of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from continuum_conformance.harness.clocks import RIGHT, ClientClock, faketime, wrong_clock
from continuum_conformance.suite.lab import HOUR, SECOND_PROCESS, Lab, RunUnderTest, Session
from continuum_conformance.suite.situations import each
from continuum_conformance.suite.testing import Untried, checks
from continuum_conformance.suite.violation import Violation

__all__: list[str] = []

AHEAD, BEHIND = ClientClock(3 * HOUR), ClientClock(-3 * HOUR)
"""Off by more than the ttl of an hour that the tests grant."""

EAST, WEST = ClientClock(zone="EAST-14"), ClientClock(zone="WEST+12")
"""The zones that are farthest from Greenwich, in POSIX's form, which needs no data base of zones."""


NO_LIBRARY = Untried(
    "a program's clock is set by libfaketime, which is not installed: install it (apt-get install libfaketime)"
)


def _no_server(session: Session) -> str:
    """Why the store's clock is the client's own."""
    return "" if session.has_server() else "the store is embedded, so its clock is its process's own"


def _fixed(session: Session) -> str:
    """Why the clock of the adapter cannot be set while it runs."""
    return session.subject.reach.clock


def _no_server_or_fixed(session: Session) -> str:
    return _no_server(session) or _fixed(session)


def _no_library(session: Session) -> str:
    """Why a process of the adapter cannot be started with a wrong clock."""
    if not session.subject.reach.clock or faketime(AHEAD):
        return ""
    return NO_LIBRARY


def _no_process(session: Session) -> str:
    missing = "" if "durable" in session.capabilities else "`durable` is not declared"
    return _no_server(session) or missing or _no_library(session)


@contextmanager
def _off(lab: Lab, clock: ClientClock) -> Iterator[None]:
    with wrong_clock(clock):
        lab.struck("clocks set wrong", f"the client's clock is now {clock}")
        yield
    lab.note("the client's clock is right again")


class _Leases:
    """Runs in every situation in which a clock could decide, and what a client with a wrong clock does to them."""

    def __init__(self, lab: Lab) -> None:
        self.held = lab.started(lease="live")
        self.lapsed = lab.started(lease="expired")
        self.free = lab.started()
        self.brief = lab.started()
        self.prolonged = lab.started(lease="expired")
        self.shortened = lab.started(lease="live")

    @property
    def all(self) -> tuple[RunUnderTest, ...]:
        return (self.held, self.lapsed, self.free, self.brief, self.prolonged, self.shortened)

    def use(self, on: str) -> None:
        """By a client whose clock is off: leases are judged, and set."""
        self.held.acquire("bob", on=on)
        self.lapsed.acquire("bob", on=on)
        self.free.acquire("bob", on=on)
        self.brief.acquire("bob", 0, on=on)
        self.prolonged.renew(on=on)
        self.shortened.renew(ttl=0, on=on)
        self.held.append(token=self.held.token, on=on)

    def use_again(self, on: str) -> None:
        """By a client whose clock is right: what the other one set is judged."""
        self.lapsed.acquire("carol", on=on)
        self.free.acquire("carol", on=on)
        self.brief.acquire("carol", on=on)
        self.prolonged.acquire("carol", on=on)
        self.shortened.acquire("carol", on=on)
        self.held.acquire("carol", on=on)
        for run in self.all:
            run.append(token=run.token, on=on)
            run.look()


def _right(lab: Lab, act: Callable[[Lab], None]) -> bool:
    """Whether all goes well with a right clock. What fails without any fault is for other tests to tell."""
    control = Lab(lab.session, (), lab.test)
    try:
        act(control)
    except Violation:
        return False
    return True


def _whole_use(on: str) -> Callable[[Lab], None]:
    def act(lab: Lab) -> None:
        leases = _Leases(lab)
        leases.use(on)
        leases.use_again("A")

    return act


@checks(
    "CLK-1",
    cases=each(clock=(AHEAD, BEHIND, EAST, WEST), handle=("open", "new")),
    when=_no_server_or_fixed,
    whole=True,
)
def a_client_whose_clock_is_off_changes_nothing(lab: Lab, clock: ClientClock, handle: str) -> None:
    """A client's clock jumps (or its zone is another), before or after it opens its handle, and comes back."""
    if not _right(lab, _whole_use("B")):
        return
    leases = _Leases(lab)
    with _off(lab, clock):
        if handle == "new":
            lab.session.reopen("B")
        leases.use("B")
    leases.use_again("A")
    if handle == "new":
        lab.session.reopen("B")


@checks("CLK-1", when=_no_server_or_fixed, cases=each(clock=(AHEAD, BEHIND)), whole=True)
def a_clock_that_jumps_under_a_lease_changes_nothing(lab: Lab, clock: ClientClock) -> None:
    """The clock of a holder jumps while it holds its leases, and stays so."""
    if not _right(lab, _whole_use("B")):
        return
    leases = _Leases(lab)
    leases.use("B")
    with _off(lab, clock):
        leases.use_again("B")


@checks("CLK-1", when=_no_process, cases=each(clock=(AHEAD, BEHIND, EAST, WEST)), whole=True)
def a_process_whose_clock_is_off_changes_nothing(lab: Lab, clock: ClientClock) -> None:
    """A process is started with a wrong clock, or in another zone."""
    session = lab.session
    if not _right(lab, _whole_use(SECOND_PROCESS)):
        return
    leases = _Leases(lab)
    try:
        session.close(SECOND_PROCESS)
        session.process_clock = clock
        lab.struck("clocks set wrong", f"worker P is a process whose clock is {clock}")
        leases.use(SECOND_PROCESS)
    finally:
        session.close(SECOND_PROCESS)
        session.process_clock = RIGHT
    leases.use_again("A")


def _take_and_release(lab: Lab, how: str) -> None:
    run = lab.started()
    for turn in range(6):
        hours = {"backwards": -turn, "forwards": turn, "back and forth": turn % 2}.get(how, 0)
        clock = ClientClock(hours * 3 * HOUR)
        with wrong_clock(clock, tick=how != "still") if how else nullcontext():
            if how:
                lab.struck("clocks set wrong", f"the clock is now {clock}")
            for _ in range(2):
                run.acquire("alice", on="AB"[turn % 2])
                run.append(token=run.token)
                run.release()
    run.look()


@checks(
    "CLK-1", cases=each(how=("backwards", "forwards", "still", "back and forth")), when=_fixed, whole=True
)
def no_token_is_given_twice_when_the_clock_jumps(lab: Lab, how: str) -> None:
    """Leases are taken and released while the wall clock of the process goes backwards, jumps, or stands still."""
    if _right(lab, lambda control: _take_and_release(control, "")):
        _take_and_release(lab, how)


@checks("LEA-5", cases=each(clock=(BEHIND, AHEAD), how=("acquire", "renew")), when=_fixed, whole=True)
def what_is_takeable_stays_so_whatever_a_clock_does(lab: Lab, clock: ClientClock, how: str) -> None:
    """A ttl of 0, and then the wall clock of the process jumps."""

    def act(lab: Lab, clock: ClientClock) -> None:
        run = lab.started()
        run.acquire("alice", 0 if how == "acquire" else HOUR)
        if how == "renew":
            run.renew(ttl=0)
        with _off(lab, clock) if clock is not RIGHT else nullcontext():
            run.acquire("bob", on="B")
        run.append(token=run.token)
        run.look()

    if _right(lab, lambda control: act(control, RIGHT)):
        act(lab, clock)
