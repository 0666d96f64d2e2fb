"""etcd by its JSON gateway: a head whose revision each transaction compares, events as keys, and etcd's own leases.

A run is held as long as the key ``live`` is there, which is tied to an etcd lease; so time is the server's. The
token is a counter in the head. A ttl of 0 has no such key.
"""

from __future__ import annotations

import atexit
import base64
import http.client
import json
import math
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from continuum_conformance.contract import errors
from tests.unusual import codecs
from tests.unusual.rules import Rules, Sync, translate


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Gateway:
    """Requests of one handle, a connection for each thread."""

    def __init__(self, port: int) -> None:
        self.port, self.local = port, threading.local()

    def ask(self, path: str, body: dict) -> dict:
        connection = getattr(self.local, "connection", None)
        sent = False
        try:
            if connection is None:
                connection = self.local.connection = http.client.HTTPConnection(
                    "127.0.0.1", self.port, timeout=60
                )
                connection.connect()
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = json.dumps(body).encode()
            sent = True
            connection.request("POST", f"/v3/{path}", data)
            reply = connection.getresponse()
            answer = json.loads(reply.read())
        except BaseException as error:
            self.local.connection = None
            if connection is not None:
                connection.close()
            if isinstance(error, (OSError, http.client.HTTPException, ValueError)):
                raise errors.JournalUnavailable(str(error), outcome_unknown=sent) from error
            raise
        if reply.status != 200:
            # Some answers come while the server is leaving or finding a leader.
            raise errors.JournalUnavailable(str(answer), outcome_unknown=True)
        return answer

    def close(self) -> None:
        connection = getattr(self.local, "connection", None)
        if connection is not None:
            connection.close()
            self.local.connection = None


class Liveness(Rules):
    """Whether a lease lives is what the store says."""

    def _until(self, ttl):
        return ttl or None


class EtcdJournal(Sync):
    def __init__(self, port: int) -> None:
        self.gateway, self.rules = Gateway(port), Liveness(clock=lambda: 0.0)

    def close(self):
        self.gateway.close()

    @staticmethod
    def _names(key):
        prefix = codecs.pack(list(key))
        return prefix + b"/head", prefix + b"/live", prefix + b"/seq/"

    def read(self, key, since):
        head, _, log = self._names(key)
        first = 0
        while True:
            answer = self.gateway.ask("kv/txn", {"success": [
                {"requestRange": {"key": _text(head)}},
                {"requestRange": {
                    "key": _text(log + b"%020d" % first), "range_end": _text(log + b"~"),
                    "sort_target": "KEY", "sort_order": "ASCEND",
                }},
            ]})  # fmt: skip
            run, _ = _found(answer["responses"][0])
            start = None if run is None else since(run)
            if start is None:
                return run, []
            if start >= first:
                rows = answer["responses"][1]["response_range"].get("kvs", [])
                return run, [codecs.unpack(base64.b64decode(row["value"])) for row in rows][start - first :]
            first = start

    def write(self, key, change):
        head, live, log = self._names(key)
        while True:
            answer = self.gateway.ask("kv/txn", {"success": [
                {"requestRange": {"key": _text(head)}}, {"requestRange": {"key": _text(live)}},
            ]})  # fmt: skip
            run, version = _found(answer["responses"][0])
            alive = "kvs" in answer["responses"][1]["response_range"]
            seen = None if run is None else {**run, "until": math.inf if alive else None}
            after, event, done = change(seen)
            todo, lease = [], None
            if after["until"] is None:
                todo.append({"requestDeleteRange": {"key": _text(live)}})
            elif after["until"] != math.inf:
                # Never shorter than asked, and counted from before the grant: a second more.
                lease = self.gateway.ask("lease/grant", {"TTL": math.ceil(after["until"]) + 1})["ID"]
                todo.append({"requestPut": {"key": _text(live), "value": _text(b"1"), "lease": lease}})
            todo.append(
                {"requestPut": {"key": _text(head), "value": _text(codecs.pack({**after, "until": None}))}}
            )
            if event is not None:
                name = log + b"%020d" % run["length"]
                todo.append({"requestPut": {"key": _text(name), "value": _text(codecs.pack(event))}})
            same = {"key": _text(head), "target": "MOD", "result": "EQUAL", "mod_revision": version}
            if self.gateway.ask("kv/txn", {"compare": [same], "success": todo}).get("succeeded"):
                return done
            if lease is not None:
                self.gateway.ask("lease/revoke", {"ID": lease})


def _found(response):
    rows = response["response_range"].get("kvs")
    if not rows:
        return None, 0
    return codecs.unpack(base64.b64decode(rows[0]["value"])), rows[0]["mod_revision"]


class Server:
    """An etcd of one member on the loopback."""

    one: Server | None = None

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(
            prefix="unusual-etcd-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
        )
        self.port, self.peers = _free_port(), _free_port()
        self.owner = os.getpid()
        atexit.register(self.remove)
        self.start()

    @classmethod
    def given(cls) -> Server:
        cls.one = cls.one or cls()
        return cls.one

    def start(self):
        here, there = (f"http://127.0.0.1:{port}" for port in (self.port, self.peers))
        self.process = subprocess.Popen(
            [
                shutil.which("etcd"), "--data-dir", f"{self.folder}/data", "--max-request-bytes", str(1 << 25),
                "--listen-client-urls", here, "--advertise-client-urls", here, "--listen-peer-urls", there,
                "--initial-advertise-peer-urls", there, "--initial-cluster", f"default={there}",
                "--log-level", "error", "--logger", "zap", "--quota-backend-bytes", str(1 << 32),
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                Gateway(self.port).ask("kv/range", {"key": _text(b"x")})
                return
            except errors.JournalUnavailable:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.05)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def remove(self):
        if self.owner == os.getpid():
            self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class EtcdHarness:
    capabilities = {"leases", "snapshots", "durable", "crash_safe", "shared", "rich_terms", "opaque_run_ids"}

    def __init__(self):
        self.server = Server.given()
        self.port = self.server.port

    def __getstate__(self):
        return {"port": self.port}

    def open(self):
        return EtcdJournal(self.port)

    def close(self, journal):
        journal.close()

    def kill_server(self):
        self.server.kill()

    def start_server(self):
        self.server.start()

    translate = staticmethod(translate)
