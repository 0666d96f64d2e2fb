"""Standing between this process's sockets and whatever they connect to, so that a connection can be lost at a message.

It sees what connects through Python's own ``socket``, with asyncio or without, under TLS or not. A driver that
connects in C (libpq, uvloop) goes past it: then nothing is seen, and nothing can be said.

**Theory of operation.** While `Sockets.watching` lasts, ``socket.socket.connect`` goes to a listener of ours in place
of the address that was asked for; a thread for each connection carries bytes both ways. No protocol is understood. A
*message* is what a client sends until its server answers, which is a request in every protocol of requests and
replies; a server that has begun to answer has had the request.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

__all__ = ["Sockets"]

PIECE = 1 << 16
"""Bytes that are read at once."""

CONNECT_SECONDS = 10.0
"""How long a store may take to accept a connection."""

When = Literal["before", "after", "mid-reply"]


class Sockets:
    """A gate before every store that this process connects to by TCP or a named socket.

    Attributes:
        connections: how many were carried.
        messages: how many were sent, of all connections.
        fired: whether a connection was lost as `cut` has asked.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.messages = 0
        self.fired = False
        self._cut: tuple[When, int] | None = None
        self._lock = threading.Lock()
        self._listeners: dict[tuple[int, Any], socket.socket] = {}
        self._carried: set[socket.socket] = set()
        self._closed = False
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._connect = socket.socket.connect
        self._connect_ex = socket.socket.connect_ex

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """While this lasts, connections of this process are made through here; they stay so afterwards."""
        connect, connect_ex = self._connect, self._connect_ex
        before = {name: vars(socket.socket).get(name) for name in ("connect", "connect_ex")}

        def through(sock: socket.socket, address: Any) -> None:
            connect(sock, self._in_place_of(sock, address))

        def through_ex(sock: socket.socket, address: Any) -> int:
            return connect_ex(sock, self._in_place_of(sock, address))

        socket.socket.connect = through  # type: ignore[method-assign,assignment]
        socket.socket.connect_ex = through_ex  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            for name, own in before.items():
                if own is None:  # it was inherited from _socket.socket
                    delattr(socket.socket, name)
                else:
                    setattr(socket.socket, name, own)

    def cut(self, when: When, number: int) -> None:
        """Lose a connection at the ``number``-th message from now on, from 1; 0 only counts.

        Args:
            when: ``before`` the message reaches the store; ``after`` the store has it and has begun to answer, and
                before the client hears of it; ``mid-reply``, when the client has half of what came first.
            number: which message.
        """
        with self._lock:
            self.messages, self.fired = 0, False
            self._cut = (when, number) if number else None

    def no_cut(self) -> None:
        """Lose none any more."""
        with self._lock:
            self._cut = None

    def close(self) -> None:
        """Close every connection that goes through here."""
        with self._lock:
            self._closed = True
            listeners, carried = list(self._listeners.values()), list(self._carried)
        for listener in listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes its thread
            listener.close()
        for end in carried:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        if self._folder is not None:
            self._folder.cleanup()

    # -- carrying --

    def _in_place_of(self, sock: socket.socket, address: Any) -> Any:
        """The address of a listener of ours that leads where the asked one does."""
        if sock.type != socket.SOCK_STREAM:
            return address
        if sock.family == socket.AF_UNIX:
            if not isinstance(address, str) or address.startswith("\0"):
                return address
        elif sock.family not in (socket.AF_INET, socket.AF_INET6):
            return address
        with self._lock:
            if self._closed:
                return address
            listener = self._listeners.get((sock.family, address))
            if listener is None:
                try:
                    listener = self._listen(sock.family)
                except OSError:
                    return address  # no loopback of this family
                self._listeners[sock.family, address] = listener
                threading.Thread(
                    target=self._accept, args=(listener, sock.family, address), name="sockets", daemon=True
                ).start()
            return listener.getsockname()

    def _listen(self, family: int) -> socket.socket:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if family == socket.AF_UNIX:
                self._folder = self._folder or tempfile.TemporaryDirectory(prefix="continuum-")
                listener.bind(str(Path(self._folder.name, str(len(self._listeners)))))
            else:
                listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
            listener.listen(128)
        except OSError:
            listener.close()
            raise
        return listener

    def _accept(self, listener: socket.socket, family: int, address: Any) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed
            threading.Thread(
                target=self._carry, args=(client, family, address), name="sockets", daemon=True
            ).start()

    def _carry(self, client: socket.socket, family: int, address: Any) -> None:
        store = socket.socket(family, socket.SOCK_STREAM)
        with client, store:
            try:
                store.settimeout(CONNECT_SECONDS)
                self._connect(store, address)
                store.settimeout(None)
                if family != socket.AF_UNIX:
                    for end in (client, store):
                        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                return  # which the client takes for a connection that was refused
            with self._lock:
                if self._closed:
                    return
                self.connections += 1
                self._carried |= {client, store}
            try:
                _Carried(self, client, store).relay()
            finally:
                with self._lock:
                    self._carried -= {client, store}

    def message(self) -> str:
        """Count a message; what is to happen to it, if anything."""
        with self._lock:
            self.messages += 1
            if self._cut is None or self._cut[1] != self.messages:
                return ""
            return self._cut[0]

    def has_fired(self) -> None:
        """Take note that a connection is about to be lost."""
        with self._lock:
            self.fired = True


class _Carried:
    """One connection: a thread for each direction, so that neither end has to wait until the other one reads."""

    def __init__(self, sockets: Sockets, client: socket.socket, store: socket.socket) -> None:
        self._sockets, self._client, self._store = sockets, client, store
        self._asking = False
        self._doomed = ""

    def relay(self) -> None:
        """Carry until both have ended, or one of them is lost."""
        answers = threading.Thread(target=self._guarded, args=(self._answers,), name="sockets", daemon=True)
        answers.start()
        self._guarded(self._requests)
        answers.join()

    def _guarded(self, carry: Callable[[], bool]) -> None:
        """Carry one direction. Unless it has come to a proper end, the connection ends with it."""
        try:
            ended = carry()
        except OSError:  # one of the two has gone
            ended = False
        if not ended:
            for end in (self._client, self._store):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _requests(self) -> bool:
        while piece := self._client.recv(PIECE):
            if not self._asking:
                self._asking = True
                self._doomed = self._sockets.message()
            if self._doomed == "before":
                self._sockets.has_fired()
                return False
            self._store.sendall(piece)
        self._store.shutdown(socket.SHUT_WR)
        return True

    def _answers(self) -> bool:
        while piece := self._store.recv(PIECE):
            if self._doomed:
                self._sockets.has_fired()
                if self._doomed == "mid-reply":
                    self._client.sendall(piece[: len(piece) // 2])
                return False
            self._asking = False  # before the client has it, and asks for more
            self._client.sendall(piece)
        return False
