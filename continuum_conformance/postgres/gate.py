"""The gate: a proxy before a PostgreSQL through which each worker connects, and which can hold its statements.

    with Gate(server.dsn) as gate:
        adapter = connect(gate.dsn_for("A"))

A worker has a loopback listener of its own, and any number of connections through it, of any driver in any
language. `wire` reads the protocol; here are the sockets.

**Theory of operation.**

1. One thread at a time turns the gate: it waits for sockets that are ready and moves their bytes (`poll`). Most
   of the time that is a thread of the gate's own. Whoever explores takes its place (`driven`), so that a
   statement costs no hand-over between threads.
2. A worker is *passed through* or *controlled*. Passed through, all that arrives leaves at once. Controlled, each
   group that executes something is **held** until `Session.release`; others pass (see `wire.Nature`).
3. A session is held, **parked** (inside the server, see `parking`), **replied** (its answer is kept back),
   **busy** (the server has a group of its), or idle. All of that can be read from outside at any time between
   two polls; the gate decides nothing.
4. What is cut, is cut here: before a group, after it and before its reply, within the reply (`Gate.cut`).
5. What goes through can be taped (`Gate.taped`): each group with its answer, and when.

On a cancel request the gate lets everything of that session through until it is idle, then passes the request
on: a cancelled call is never held.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self, TypeVar

from . import dsn as dsns
from . import wire
from .server import PostgresUnavailable
from .tape import Park, Sent

__all__ = ["Cut", "Error", "Gate", "Session", "When"]

T = TypeVar("T")

When = Literal["before", "after", "mid-reply"]
"""Where a connection is cut: before a group reaches the server; when the server is done with it and the client
has heard nothing; when the client has half of the answer."""

PARKED = "continuum-parked: "
"""How a notice begins with which a session says that it is parked (see `parking`). Clients never see it."""

CONNECT_SECONDS = 5.0
PIECE = 1 << 18
"""Bytes that are read at once."""
PLENTY = 1 << 20
"""Bytes that may wait to be written before the other side is no longer read."""

_NO_ROOM = wire.error_response("53300", "sorry, too many clients already", severity="FATAL")
"""What a server says whose max_connections are in use."""


@dataclass
class Cut:
    """A connection loss that is to happen, or has happened.

    Attributes:
        worker: whose connection.
        when: where.
        nth: at which of the worker's groups from now on, from 1.
        every: whether groups that execute nothing (BEGIN, a Parse) count too.
        delay: seconds by which the group is delayed in place of a cut, infinite until `Gate.resume`; None for a cut.
        fired: set once it has happened.
        label: the group that was cut.
    """

    worker: str
    when: When
    nth: int = 1
    every: bool = False
    delay: float | None = None
    fired: threading.Event = field(default_factory=threading.Event)
    label: str = ""
    resume: Callable[[], None] | None = field(default=None, repr=False)
    """Sends a group on its way that is kept until then."""


@dataclass(frozen=True)
class Error:
    """An error that the server answered to a session, or, without an SQLSTATE, a client that hung up while held."""

    session: Session
    group: wire.Group | None
    sqlstate: str
    message: str


@dataclass
class _Flight:
    """A group that the server has: what it was, and how it will be cut."""

    group: wire.Group
    replies: int | None
    sent: Sent
    cut: Cut | None = None


class _Line:
    """A socket that never blocks, with what still has to be written to it."""

    def __init__(self, gate: Gate, sock: socket.socket, receive: Callable[[bytes], None]) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._gate = gate
        self._sock = sock
        self._receive = receive
        self._waiting = bytearray()
        self._events = selectors.EVENT_READ
        self.other: _Line | None = None
        self.open = True
        self._ending = False
        gate._selector.register(sock, self._events, self._ready)

    def send(self, data: bytes) -> None:
        """Write now what the system takes, the rest when it can."""
        if not self.open or not data:
            return
        sent = 0
        if not self._waiting:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                pass
            except OSError:
                return  # the reading side finds out
        if sent < len(data):
            self._waiting += memoryview(data)[sent:]
            self._watch()

    def end(self) -> None:
        """Close once everything is written."""
        self._ending = True
        if not self._waiting:
            self.close()

    def close(self, *, abruptly: bool = False) -> None:
        """Close now; ``abruptly`` with a reset, as when a machine is gone."""
        if not self.open:
            return
        self.open = False
        with contextlib.suppress(KeyError, ValueError):
            self._gate._selector.unregister(self._sock)
        if abruptly and self._sock.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def _watch(self) -> None:
        wanted = selectors.EVENT_WRITE if self._waiting else 0
        # A reader that is slow slows its writer.
        if self.other is None or len(self.other._waiting) < PLENTY:
            wanted |= selectors.EVENT_READ
        if wanted != self._events and self.open:
            self._events = wanted
            if wanted:
                try:
                    self._gate._selector.modify(self._sock, wanted, self._ready)
                except KeyError:
                    self._gate._selector.register(self._sock, wanted, self._ready)
            else:
                self._gate._selector.unregister(self._sock)

    def _ready(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE and self.open:
            try:
                sent = self._sock.send(self._waiting)
                del self._waiting[:sent]
            except BlockingIOError:
                pass
            except OSError:
                self._waiting.clear()
            if self._ending and not self._waiting:
                self.close()
                return
            self._watch()
            if self.other is not None:
                self.other._watch()
        if mask & selectors.EVENT_READ and self.open:
            try:
                data = self._sock.recv(PIECE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._receive(data)
            if self.other is not None and len(self.other._waiting) >= PLENTY:
                self._watch()


class Session:
    """A client's connection, and its connection to the server.

    Attributes:
        number: in the order in which clients connected.
        gate: the name of the worker whose listener it came through.
        worker: the worker that it serves; an explorer sets it where several share one listener.
        pid: the server's process, None until the server told.
        status: ``""`` before the session is open, then ``I`` idle, ``T`` in a transaction, ``E`` in a failed one.
        held: the group that waits for `release`.
        held_since: the place of the held group in the order of all that were ever held.
        parked: where in its statement it is parked; empty when it is not.
        keep_reply: whether the answer to the group under way is kept back.
        replied: whether a whole answer is kept back now.
        executed: how many groups of the present transaction executed something.
        latest: the last group that was forwarded and executes something.
        sent: that group on the tape.
        settings: the settings that the client asked for when it connected.
    """

    def __init__(self, gate: Gate, name: str, client: socket.socket, server: socket.socket) -> None:
        self._gate = gate
        self.number = next(gate._numbers)
        self.gate = self.worker = name
        self.pid: int | None = None
        self.status = ""
        self.held: wire.Group | None = None
        self.held_since = 0
        self.parked = ""
        self.keep_reply = False
        self.replied = False
        self.latest: wire.Group | None = None
        self.sent: Sent | None = None
        self.settings: dict[str, str] = {}
        self._kept: list[bytes] = []
        self._queue: deque[wire.Group] = deque()
        self._flight: deque[_Flight] = deque()
        self._described: deque[str] = deque()
        self.executed = 0
        self._overlooked = False  # the server takes a COPY's data, and overlooked the Sync before them
        self._skipping = False  # the server ignores everything up to the next Sync
        self._cancelled = False
        self._is_cancel = False
        self._delayed = False
        self._wire_in = wire.Client()
        self._wire_out = wire.Server()
        self._client = _Line(gate, client, self._from_client)
        self._server = _Line(gate, server, self._from_server)
        self._client.other, self._server.other = self._server, self._client

    def __repr__(self) -> str:
        return f"<session {self.number} of {self.worker}, pid {self.pid}, {self.state}>"

    @property
    def open(self) -> bool:
        """Whether both connections stand."""
        return self._client.open and self._server.open

    @property
    def busy(self) -> bool:
        """Whether the server has a group of this session and can go on with it."""
        return bool(self._flight) and not self.parked

    @property
    def state(self) -> str:
        """``held``, ``parked``, ``replied``, ``busy``, ``idle`` or ``gone``, for a reader."""
        if not self.open:
            return "gone"
        states = {"replied": self.replied, "parked": self.parked, "busy": self._flight, "held": self.held}
        return next((name for name, it_is in states.items() if it_is), "idle")

    @property
    def quiet(self) -> bool:
        """Whether nothing is under way, and no transaction is open."""
        return not (self._flight or self._queue or self.replied) and self.status in ("", "I")

    def unpark(self) -> None:
        """Say that it was let go from where it was parked; whoever parks does that."""
        self.parked = ""
        if self.sent is not None and self.sent.parks:
            self.sent.parks[-1].until = self._gate.clock()

    def keep(self, blockers: Collection[str] = ()) -> None:
        """Keep the answer to the group under way, which was found to wait for these workers."""
        self.keep_reply = True
        if self.sent is not None:
            self.sent.waited, self.sent.blockers = self._gate.clock(), tuple(blockers)

    def release(self) -> None:
        """Let the held group go to the server, or the kept answer to the client."""
        if self.replied:
            self._give_reply()
        elif self.held is not None:
            self._forward(self._queue.popleft())
            self.held = None
            self._advance()

    def drop(self) -> None:
        """Cut both connections now."""
        self._client.close(abruptly=True)
        self._server.close()
        self._gone()

    # -- from the client --

    def _from_client(self, data: bytes) -> None:
        if not data:
            self._client_left()
            return
        try:
            events = self._wire_in.receive(data)
        except wire.ProtocolError as error:
            self._client.send(wire.error_response("08P01", f"the gate: {error}", severity="FATAL"))
            self._client.end()
            self._server.close()
            self._gone()
            return
        for event in events:
            if isinstance(event, wire.Group):
                if self._overlooked and event.raw == wire.SYNC:
                    # The Sync behind the data is answered in the place of the one that was overlooked.
                    self._overlooked = False
                    self._server.send(event.raw)
                    continue
                if not self._queue and not self._flight and self.status == "I":
                    self.worker = self._gate._attribute(self)
                self._queue.append(event)
            elif isinstance(event, wire.Passed):
                self._server.send(event.raw)
            elif isinstance(event, wire.EncryptionAsked):
                self._client.send(wire.REFUSED)
            elif isinstance(event, wire.Startup):
                self._gate._seen.add(self.gate)
                if self._gate._refuses(self.gate):
                    self._client.send(_NO_ROOM)
                    self._client.end()
                    self._server.close()
                    self._gone()
                    return
                self.settings = dict(event.parameters)
                self._server.send(wire.startup_packet(event, self._gate._settings_for(event)))
            elif isinstance(event, wire.Cancel):
                self._is_cancel = True
                self._gate._cancelling(event.pid)
                self._server.send(event.raw)
            elif isinstance(event, wire.Terminate):
                self._server.send(event.raw)
        self._advance()

    def _client_left(self) -> None:
        if self.held is not None or self.replied or self.parked:
            self._gate.errors.append(
                Error(self, self.held or self.latest, "", "the client hung up while it was held")
            )
        if self._flight and self.pid is not None:
            self._gate.orphans.add(self.pid)
        self._server.end()
        self._client.close()
        self._gone()

    def _advance(self) -> None:
        """Forward what may go, in order, up to the first group that is held."""
        while self._queue and self.held is None and not self._delayed:
            group = self._queue[0]
            if group.nature is not wire.Nature.PASSES and self._controlled():
                if self._flight:
                    return  # what is under way decides what a COMMIT behind it does
                if self._does_something(group):
                    self.held = group
                    self.held_since = next(self._gate._numbers)
                    return
            self._queue.popleft()
            self._forward(group)

    def _controlled(self) -> bool:
        return self.worker in self._gate._controlled and not self._cancelled

    def _does_something(self, group: wire.Group) -> bool:
        if group.nature is wire.Nature.COMMITS:
            return self.executed > 0 and self.status == "T"
        return True

    def _forward(self, group: wire.Group, *, delayed: bool = False) -> None:
        cut = None
        if not delayed:
            executes = group.nature is not wire.Nature.PASSES and self._does_something(group)
            cut = self._gate._count(self.worker, executes)
            if cut is not None:
                cut.label = group.label
                if cut.delay is not None:
                    self._delay(group, cut)
                    return
                if cut.when == "before":
                    cut.fired.set()
                    self._tape(group).cut = cut.when
                    self._lose()
                    return
        sent = self._tape(group)
        if cut is not None:
            sent.cut = cut.when
        if group.nature is not wire.Nature.PASSES:
            self.executed += 1
            self.latest, self.sent = group, sent
        self._described.extend(group.described)
        if group.replies is None:
            self._skipping = False
            self._flight.append(_Flight(group, None, sent, cut))
        elif group.replies and not self._skipping:
            self._flight.append(_Flight(group, group.replies, sent, cut))
        self._server.send(group.raw)

    def _tape(self, group: wire.Group) -> Sent:
        sent = Sent(self, self.worker, group, self._gate.clock(), self.status == "I" and not self._flight)
        for tape in self._gate._tapes:
            tape.append(sent)
        return sent

    def _delay(self, group: wire.Group, cut: Cut) -> None:
        self._delayed = True

        def go() -> None:
            self._delayed = False
            if self.open:
                cut.fired.set()
                self._forward(group, delayed=True)
                self._advance()

        if cut.delay == math.inf:
            cut.resume = go
            cut.fired.set()
        else:
            self._gate._later(cut.delay or 0.0, go)

    # -- from the server --

    def _from_server(self, data: bytes) -> None:
        if not data:
            self._server_left()
            return
        try:
            events = self._wire_out.receive(data)
        except wire.ProtocolError:
            self.drop()
            return
        if self._is_cancel:
            self._client.send(data)
            return
        forwarded: list[bytes] = []
        for event in events:
            raw = self._seen(event)
            if self._flight and raw:
                self._flight[0].sent.heard(event)
            if isinstance(event, wire.CopyIn):
                # No answer yet: the client must hear this to send what the statement waits for.
                forwarded.extend([*self._kept, raw])
                self._kept = []
                continue
            cut = self._flight[0].cut if self._flight else None
            if cut is None:
                forwarded.append(raw)
            else:
                self._kept.append(raw)
            if isinstance(event, wire.Completed | wire.Failed | wire.Ready) and self._landed(event):
                if cut is not None:
                    self._cut_reply(cut)
                    return
                if self.keep_reply and not self._flight:
                    self.replied = True
        if forwarded:
            if self.keep_reply:
                self._kept.extend(forwarded)
            else:
                self._client.send(forwarded[0] if len(forwarded) == 1 else b"".join(forwarded))
        if self._queue and not self.replied:
            self._advance()

    def _seen(self, event: wire.ServerEvent) -> bytes:
        """Take note of what the server said; what the client is to hear of it."""
        if isinstance(event, wire.Ready):
            self.status = event.status
            self._skipping = self._overlooked = False
            if event.status == "I":
                self.executed, self._cancelled = 0, False
        elif isinstance(event, wire.Failed):
            self.parked = ""
            self._described.clear()
            group = self._flight[0].group if self._flight else None
            self._gate.errors.append(Error(self, group, event.sqlstate, event.message))
        elif isinstance(event, wire.Notice):
            if event.message.startswith(PARKED):
                self.parked = event.message.removeprefix(PARKED)
                if self.sent is not None:
                    self.sent.parks.append(Park(self.parked, self._gate.clock()))
                return b""
        elif isinstance(event, wire.Parameters):
            if self._described:
                self._wire_in.learn(self._described.popleft(), event.types)
        elif isinstance(event, wire.KeyData):
            self.pid = event.pid
        elif isinstance(event, wire.CopyIn):
            self._overlooked = bool(self._flight) and self._flight[0].group.ends_in_sync
        return event.raw

    def _landed(self, event: wire.Completed | wire.Failed | wire.Ready) -> bool:
        """Whether the group that is first under way is over with this."""
        if not self._flight:
            return False
        first = self._flight[0]
        if isinstance(event, wire.Ready):
            # Groups that ended in a Flush and were skipped because of an error go with it.
            while self._flight and self._answered().replies is not None:
                pass
            return True
        if first.replies is None:
            return False
        if isinstance(event, wire.Failed):
            self._skipping = True
            while self._flight and self._flight[0].replies is not None:
                self._answered()
            return True
        first.replies -= 1
        if first.replies:
            return False
        self._answered()
        return True

    def _answered(self) -> _Flight:
        """The group that was first under way has its answer."""
        flight = self._flight.popleft()
        flight.sent.answered, flight.sent.status = self._gate.clock(), self.status
        return flight

    def _server_left(self) -> None:
        self.parked = ""
        if self._kept and not any(flight.cut for flight in self._flight):
            self._client.send(b"".join(self._kept))
        self._client.end()
        self._server.close()
        self._gone()

    def _give_reply(self) -> None:
        kept, self._kept = b"".join(self._kept), []
        self.keep_reply = self.replied = False
        if self.sent is not None:
            self.sent.given = self._gate.clock()
        self._client.send(kept)
        self._advance()

    # -- losses --

    def _cut_reply(self, cut: Cut) -> None:
        cut.fired.set()
        if cut.when == "mid-reply":
            reply = b"".join(self._kept)
            self._client.send(reply[: max(1, len(reply) // 2)])
            # An orderly end: a reset would take what the client has not read yet with it.
            self._client.end()
        self._lose()

    def _lose(self) -> None:
        self._client.close(abruptly=True)
        self._server.close()
        self._gone()

    def _gone(self) -> None:
        self.held, self.parked, self.replied = None, "", False
        self._queue.clear()
        self._flight.clear()
        self._gate._sessions.pop(self.number, None)

    def _let_through(self) -> None:
        """The client has cancelled: nothing of this is held any more until the session is idle."""
        self._cancelled = self.status != "I" or bool(self._flight) or self.held is not None
        self._let_go()

    def _let_go(self) -> None:
        """Hold and keep nothing of what is here now."""
        if self.keep_reply and not any(flight.cut for flight in self._flight):
            self._give_reply()
        self.keep_reply = False
        self.release()


class Gate:
    """A proxy before one server, with a listener for each worker.

    Args:
        server_dsn: where the server is; what it says of user, password and database is passed on.

    Raises:
        PostgresUnavailable: the DSN cannot be read, or asks for TLS, which the gate does not speak.
    """

    def __init__(self, server_dsn: str) -> None:
        self.server_dsn = server_dsn
        self._address = dsns.read(server_dsn)
        if self._address.get("sslmode") in ("require", "verify-ca", "verify-full"):
            raise PostgresUnavailable(
                "the gate reads what is said on the wire, so it connects without TLS, and the DSN asks for "
                f"sslmode={self._address['sslmode']}: give a DSN that the server takes without"
            )
        self.errors: list[Error] = []
        """What went wrong while it was controlled, oldest first; whoever controls clears it."""
        self.orphans: set[int] = set()
        """Server processes whose client hung up while they were at work."""
        self.attribute: Callable[[Session], str] | None = None
        """Tells whose work begins on a session, for workers that share a listener."""
        self.settings: dict[str, str] = {}
        """Settings that each new session of the DSN's own user begins with."""
        self.clock: Callable[[], int] = itertools.count(1).__next__
        """Numbers what is taped, in one order with whatever else counts by it."""
        self._tapes: list[list[Sent]] = []
        self._selector = selectors.DefaultSelector()
        self._numbers = itertools.count(1)
        self._listeners: dict[str, socket.socket] = {}
        self._seen: set[str] = set()
        self._refusing: frozenset[str] = frozenset()
        self._full: dict[str, int] = {}
        self._controlled: frozenset[str] = frozenset()
        self._sessions: dict[int, Session] = {}
        self._cuts: list[Cut] = []
        self._groups: dict[tuple[str, bool], int] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ, self._woken)
        self._turn = threading.RLock()
        self._counting = threading.Lock()
        self._drivers = 0
        self._turner = 0
        self._asked: deque[Callable[[], None]] = deque()
        self._resume = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._pass_through, name="gate", daemon=True)
        self._thread.start()

    # -- what everybody uses --

    def dsn_for(self, worker: str) -> str:
        """The URI by which a worker connects through the gate; made at the first call, then always the same."""
        listener = self._listeners.get(worker) or self._do(lambda: self._listen(worker))
        address = self._address
        named = ("host", "hostaddr", "port", "user", "password", "dbname", "passfile", "service", "sslmode")
        kept = {
            key: value
            for key, value in address.items()
            if key not in named and not key.startswith(("ssl", "gss")) and key != "channel_binding"
        }
        return dsns.uri(
            host="127.0.0.1",
            port=listener.getsockname()[1],
            user=address.get("user", ""),
            password=address.get("password", ""),
            database=address.get("dbname", ""),
            options=kept,
        )

    def move(self, server_dsn: str) -> None:
        """Stand before another server from now on, of the same user and database. Connections to the last one are cut."""
        address = dsns.read(server_dsn)

        def act() -> None:
            self.server_dsn, self._address = server_dsn, address
            for session in self.sessions():
                session.drop()

        self._do(act)

    def sees_no_connection(self, worker: str) -> bool:
        """Whether nobody ever connected by this worker's DSN: a harness that kept one engine for all handles."""
        return worker not in self._seen

    def _listen(self, worker: str) -> socket.socket:
        listener = self._listeners.get(worker)
        if listener is None:
            made = listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            listener.setblocking(False)
            self._listeners[worker] = listener
            self._selector.register(made, selectors.EVENT_READ, lambda _mask: self._accept(worker, made))
        return listener

    def close(self) -> None:
        """Cut every connection and end the gate's thread. Closing twice does nothing."""
        with self.driven():
            if self._closed:
                return
            self._closed = True
            while self._asked:
                self._asked.popleft()()
            for session in self.sessions():
                session.drop()
            for listener in self._listeners.values():
                self._selector.unregister(listener)
                listener.close()
        self._wake()
        self._thread.join(CONNECT_SECONDS)
        self._selector.close()
        self._ear.close()
        self._mouth.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- faults --

    def cut(self, worker: str, when: When = "before", nth: int = 1, *, every: bool = False) -> Cut:
        """Lose a worker's connection at its ``nth`` group from now on.

        Args:
            worker: whose.
            when: ``before`` the group reaches the server; ``after`` the server is done and before the client
                hears of it; ``mid-reply``, when the client has half of the answer.
            nth: which group, from 1. Groups that execute something are counted, and effective commits.
            every: count those that pass, too: BEGIN, SET, ROLLBACK, a Parse.
        """
        return self._arm(Cut(worker, when, nth, every))

    def delay(self, worker: str, seconds: float, nth: int = 1, *, every: bool = False) -> Cut:
        """Keep a worker's ``nth`` group from the server for a while."""
        return self._arm(Cut(worker, "before", nth, every, delay=seconds))

    def hold(self, worker: str, nth: int = 1, *, every: bool = False) -> Cut:
        """Keep a worker's ``nth`` group from the server until `resume`; ``fired`` is set once it is kept."""
        return self._arm(Cut(worker, "before", nth, every, delay=math.inf))

    def resume(self, cut: Cut) -> None:
        """Send on its way what `hold` has kept."""
        if cut.resume is not None:
            self._do(cut.resume)
            cut.resume = None

    def no_room(self, worker: str, times: int) -> None:
        """Answer a worker's next so many new connections as a server does that has too many; 0 for room again."""
        self._full = {worker: times}

    def _refuses(self, worker: str) -> bool:
        left = self._full.get(worker, 0)
        self._full[worker] = max(0, left - 1)
        return left > 0

    def drop(self, worker: str) -> None:
        """Cut every connection that a worker has now."""

        def act() -> None:
            for session in self.sessions():
                if session.gate == worker:
                    session.drop()

        self._do(act)

    def no_cuts(self) -> None:
        """Forget the cuts and delays that have not happened."""
        self._do(self._cuts.clear)

    def groups(self, worker: str, *, every: bool = False) -> int:
        """How many groups of a worker have gone to the server so far: those that execute something, or all."""
        return self._groups.get((worker, every), 0)

    def _arm(self, cut: Cut) -> Cut:
        self._do(lambda: self._cuts.append(cut))
        return cut

    def _count(self, worker: str, executes: bool) -> Cut | None:
        """Count a group that is to be forwarded; the cut that hits it."""
        for every in (True, False) if executes else (True,):
            self._groups[worker, every] = self._groups.get((worker, every), 0) + 1
        hit = None
        for cut in self._cuts:
            if cut.worker == worker and (executes or cut.every):
                cut.nth -= 1
                if cut.nth == 0 and hit is None:
                    hit = cut
        if hit is not None:
            self._cuts.remove(hit)
        return hit

    # -- what is taped --

    @contextlib.contextmanager
    def taped(self) -> Iterator[list[Sent]]:
        """While this lasts, each group that goes to the server is added to the list, with its answer once it comes."""
        tape: list[Sent] = []
        self._tapes.append(tape)
        try:
            yield tape
        finally:
            self._tapes = [other for other in self._tapes if other is not tape]

    # -- what an explorer uses --

    @contextlib.contextmanager
    def driven(self) -> Iterator[None]:
        """While this lasts, the calling thread turns the gate, by `poll`; the gate's own thread rests."""
        with self._counting:
            self._drivers += 1
            self._resume.clear()
        self._wake()
        with self._turn:
            before, self._turner = self._turner, threading.get_ident()
            try:
                yield
            finally:
                self._turner = before
                with self._counting:
                    self._drivers -= 1
                    if not self._drivers:
                        self._resume.set()

    def poll(self, timeout: float | None) -> bool:
        """Move what can be moved, waiting up to ``timeout`` seconds for it; whether anything happened.

        Only within `driven`.
        """
        if self._timers:
            due = self._timers[0][0] - time.monotonic()
            timeout = max(0.0, due if timeout is None else min(timeout, due))
        events = self._selector.select(timeout)
        for key, mask in events:
            key.data(mask)
        while self._asked:
            self._asked.popleft()()
        while self._timers and self._timers[0][0] <= time.monotonic():
            self._timers.pop(0)[2]()
        return bool(events)

    def wake(self) -> None:
        """Let the `poll` that is waiting in another thread return. From any thread."""
        self._wake()

    def control(self, workers: Collection[str]) -> None:
        """Hold the groups of these workers and of no others. What was held of others goes on its way."""
        self._controlled = frozenset(workers)
        for session in self.sessions():
            if session.worker not in self._controlled:
                session._let_go()
                session._advance()

    def refuse(self, workers: Collection[str]) -> None:
        """Take no new connections of these workers, until called again."""
        self._refusing = frozenset(workers)

    def sessions(self) -> list[Session]:
        """The connections that stand, oldest first."""
        return list(self._sessions.values())

    # -- within --

    def _pass_through(self) -> None:
        while not self._closed:
            with self._turn:
                if not self._closed and not self._drivers:
                    self.poll(None)
            if self._drivers:
                self._resume.wait()

    def _do(self, act: Callable[[], T]) -> T:
        """Have something done by the thread that turns the gate."""
        if self._turner == threading.get_ident() or self._closed:
            return act()
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(act())
            except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
                done.set_exception(error)

        self._asked.append(run)
        self._wake()
        return done.result()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._mouth.send(b"\0")

    def _woken(self, _mask: int) -> None:
        with contextlib.suppress(OSError):
            while len(self._ear.recv(4096)) == 4096:
                pass

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._timers.append((time.monotonic() + seconds, next(self._numbers), act))
        self._timers.sort(key=lambda timer: timer[:2])

    def _attribute(self, session: Session) -> str:
        return self.attribute(session) if self.attribute is not None else session.gate

    def _settings_for(self, startup: wire.Startup) -> dict[str, str]:
        same = startup.parameters.get("user") == self._address.get("user")
        return self.settings if same and "replication" not in startup.parameters else {}

    def _accept(self, worker: str, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if worker in self._refusing:
                client.close()
                continue
            try:
                server = self._connect()
            except OSError:
                # As a server does that is not there, as far as one can who has accepted already.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                continue
            session = Session(self, worker, client, server)
            self._sessions[session.number] = session

    def _connect(self) -> socket.socket:
        host = self._address.get("hostaddr") or self._address.get("host") or "localhost"
        port = int(self._address.get("port") or 5432)
        if host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.settimeout(CONNECT_SECONDS)
            server.connect(f"{host}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((host, port), CONNECT_SECONDS)

    def _cancelling(self, pid: int) -> None:
        for session in self.sessions():
            if session.pid == pid:
                session._let_through()
