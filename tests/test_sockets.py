"""Losing a connection at an exact message, over a protocol that nobody knows."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from continuum_conformance.faults.sockets import Sockets


class Echo(socketserver.StreamRequestHandler):
    """Answers each line, and goes on reading while its answers wait."""

    def handle(self):
        answers = queue.SimpleQueue()
        writer = threading.Thread(target=self.write, args=(answers,), daemon=True)
        writer.start()
        with contextlib.suppress(OSError):
            for line in self.rfile:
                self.server.heard.append(line)
                answers.put(b"you said " + line)
        answers.put(b"")
        writer.join()

    def write(self, answers):
        with contextlib.suppress(OSError):
            for answer in iter(answers.get, b""):
                self.wfile.write(answer)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@pytest.fixture(params=["tcp", "unix"])
def server(request, tmp_path) -> Iterator[socketserver.BaseServer]:
    made = Server(("127.0.0.1", 0), Echo) if request.param == "tcp" else UnixServer(str(tmp_path / "s"), Echo)
    made.heard = []
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets()
    yield made
    made.close()


def connected(sockets: Sockets, server) -> socket.socket:
    with sockets.watching():
        client = socket.socket(server.address_family)
        client.connect(server.server_address)
    client.settimeout(10)
    return client


def exchange(client: socket.socket, line: bytes) -> bytes:
    """What comes back for a line until there is a newline, or the connection is lost."""
    heard = b""
    try:
        client.sendall(line)
        while not heard.endswith(b"\n"):
            piece = client.recv(1 << 16)
            if not piece:
                break
            heard += piece
    except ConnectionError:
        pass
    return heard


def test_what_nobody_cuts_arrives_and_is_counted(sockets, server) -> None:
    with connected(sockets, server) as client:
        sockets.cut("before", 0)
        assert [exchange(client, b"%d\n" % n) for n in range(3)] == [b"you said %d\n" % n for n in range(3)]
    assert (sockets.connections, sockets.messages, sockets.fired) == (1, 3, False)


@pytest.mark.parametrize(
    ("when", "arrives", "comes_back"),
    [("before", False, b""), ("after", True, b""), ("mid-reply", True, b"you sa")],
)
def test_a_connection_is_lost_at_its_message(sockets, server, when, arrives, comes_back) -> None:
    with connected(sockets, server) as client:
        assert exchange(client, b"one\n") == b"you said one\n"
        sockets.cut(when, 2)
        assert exchange(client, b"two\n") == b"you said two\n"
        assert exchange(client, b"xyz\n") == comes_back
        assert sockets.fired
        assert exchange(client, b"lost\n") == b""
    assert server.heard == [b"one\n", b"two\n", *([b"xyz\n"] if arrives else [])]
    with connected(sockets, server) as client:  # it was lost once
        assert exchange(client, b"again\n") == b"you said again\n"


def test_a_message_in_pieces_is_one(sockets, server) -> None:
    with connected(sockets, server) as client:
        client.sendall(b"in ")
        client.sendall(b"pieces")
        assert exchange(client, b"\n") == b"you said in pieces\n"
    assert sockets.messages == 1


def test_neither_end_must_wait_until_the_other_one_reads(sockets, server) -> None:
    many = 40_000
    with connected(sockets, server) as client:
        client.sendall(b"a line of some length that is sent over and over again\n" * many)
        client.shutdown(socket.SHUT_WR)
        heard = b"".join(iter(lambda: client.recv(1 << 20), b""))
    assert heard.count(b"\n") == many


def test_connections_of_asyncio_go_through_it_too(sockets, server) -> None:
    async def talk() -> bytes:
        at = server.server_address
        opened = asyncio.open_connection(*at) if isinstance(at, tuple) else asyncio.open_unix_connection(at)
        reader, writer = await opened
        writer.write(b"one\n")
        heard = await reader.readline()
        writer.close()
        return heard

    with sockets.watching():
        assert asyncio.run(talk()) == b"you said one\n"
    assert sockets.messages == 1


def test_afterwards_sockets_connect_as_before(sockets, server) -> None:
    before = socket.socket.connect, socket.socket.connect_ex
    with sockets.watching():
        assert socket.socket.connect is not before[0]
    assert (socket.socket.connect, socket.socket.connect_ex) == before
    with socket.socket(server.address_family) as client:
        client.connect(server.server_address)
        assert client.getpeername() == server.server_address
    assert sockets.connections == 0


def test_who_cannot_be_reached_is_a_connection_that_is_lost(sockets) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()
    with sockets.watching(), socket.create_connection(nobody, 10) as client:
        assert exchange(client, b"hello\n") == b""
    assert sockets.connections == 0
