"""memcached: a run is one item, swapped by its cas number. Shared by processes, gone with the server.

The clock is the server's, in whole seconds and behind by more while the server has no processor, so a lease is held
for up to three seconds more than asked.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import socket
import subprocess
import time

from continuum_conformance.contract import errors
from tests.unusual import codecs
from tests.unusual.rules import Rules, Sync, translate


class SecondsRules(Rules):
    def _until(self, ttl):
        return None if ttl == 0 else self.clock() + ttl + 3


class MemcachedJournal(Sync):
    def __init__(self, port: int) -> None:
        from pymemcache.client.base import PooledClient

        self.client = PooledClient(
            ("127.0.0.1", port), default_noreply=False, max_pool_size=64, timeout=60, no_delay=True
        )
        self.rules = SecondsRules(clock=lambda: float(self.client.stats()[b"time"]))

    def close(self):
        self.client.close()

    def _get(self, name):
        body, version = self.client.gets(name)
        return (None, b"", version) if body is None else (*codecs.unpack(body), version)

    def read(self, key, since):
        with Told():
            run, log, _ = self._get(_name(key))
        start = None if run is None else since(run)
        return run, codecs.unpack_all(log)[start:] if start is not None else []

    def write(self, key, change):
        name = _name(key)
        while True:
            with Told():
                run, log, version = self._get(name)
                after, event, answer = change(run)
            body = codecs.pack([after, log + (codecs.pack(event) if event is not None else b"")])
            with Told(unknown=True):
                if self.client.add(name, body) if run is None else self.client.cas(name, body, version):
                    return answer


class Told:
    def __init__(self, *, unknown=False) -> None:
        self.unknown = unknown

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        from pymemcache.exceptions import MemcacheError

        if isinstance(error, (OSError, MemcacheError)):
            raise errors.JournalUnavailable(str(error), outcome_unknown=self.unknown) from error


def _name(key) -> str:
    return hashlib.sha256(codecs.pack(list(key))).hexdigest()


class MemcachedHarness:
    """One server for this process; another one is told its port by the environment."""

    capabilities = {"leases", "snapshots", "shared", "rich_terms", "opaque_run_ids"}
    variable = "UNUSUAL_MEMCACHED_PORT"

    def __init__(self):
        if self.variable not in os.environ:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            user = ["-u", "nobody"] if os.geteuid() == 0 else []
            process = subprocess.Popen(
                [
                    shutil.which("memcached"),
                    *user,
                    "-l",
                    "127.0.0.1",
                    "-p",
                    str(port),
                    "-I",
                    "32m",
                    "-m",
                    "256",
                ],
                stdout=subprocess.DEVNULL,
            )
            owner = os.getpid()
            atexit.register(lambda: process.kill() if owner == os.getpid() else None)
            os.environ[self.variable] = str(port)
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.02)
        self.port = int(os.environ[self.variable])

    def open(self):
        return MemcachedJournal(self.port)

    def close(self, journal):
        journal.close()

    translate = staticmethod(translate)
