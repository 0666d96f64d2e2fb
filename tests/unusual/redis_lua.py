"""Redis: a hash for the head with its version, a list for the history, and one Lua script that does the swap.

The client's own retries are off: one that comes after a lost reply would store an event twice.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import weakref

from continuum_conformance.contract import JournalUnavailable
from tests.unusual import codecs
from tests.unusual.rules import Rules, Sync, translate

SWAP = """
local version = redis.call('HGET', KEYS[1], 'version') or ''
if version ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'head', ARGV[3])
if ARGV[4] ~= '' then redis.call('RPUSH', KEYS[2], ARGV[4]) end
return 1
"""
LOOK = """
local head = redis.call('HMGET', KEYS[1], 'version', 'head')
if ARGV[1] == 'head' then return {head, {}} end
return {head, redis.call('LRANGE', KEYS[2], 0, -1)}
"""
CLOCK = "local t = redis.call('TIME') return t[1] .. '.' .. string.format('%06d', t[2])"


class RedisJournal(Sync):
    def __init__(self, port: int) -> None:
        self.client = self._connected(port)
        self.swap, self.look, self.clock = map(self.client.register_script, (SWAP, LOOK, CLOCK))
        self.rules = Rules(clock=lambda: float(self.clock()))  # the server's

    def _connected(self, port):
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return redis.Redis(port=port, retry=Retry(NoBackoff(), 0))

    def _keys(self, key):
        both = codecs.pack(list(key))
        return [b"run:" + both, b"log:" + both]

    def _look(self, key, what):
        (version, head), log = self.look(self._keys(key), [what])
        return version or b"", None if head is None else codecs.unpack(head), log

    def read(self, key, since):
        _, run, log = self._look(key, "all")
        start = None if run is None else since(run)
        return run, [codecs.unpack(body) for body in log[start:]] if start is not None else []

    def write(self, key, change):
        while True:
            version, run, _ = self._look(key, "head")
            after, event, answer = change(run)
            following = str(int(version or 0) + 1)
            body = codecs.pack(event) if event is not None else b""
            if self.swap(self._keys(key), [version, following, codecs.pack(after), body]):
                return answer

    def close(self):
        self.client.close()


class RedisHarness:
    """Starts a server of its own at the first open; it ends with this process."""

    capabilities = {"leases", "snapshots", "rich_terms", "opaque_run_ids"}
    server = None

    @classmethod
    def start(cls):
        program = shutil.which("redis-server")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            cls.port = probe.getsockname()[1]
        cls.folder = tempfile.mkdtemp(prefix="unusual-redis-")
        cls.server = subprocess.Popen(
            [program, "--port", str(cls.port), "--bind", "127.0.0.1", "--save", "", "--dir", cls.folder],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", cls.port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        import atexit

        atexit.register(cls.stop)
        return cls.server

    @classmethod
    def stop(cls):
        if cls.server is not None and cls.owner == os.getpid():
            cls.server.terminate()
            cls.server.wait(5)
            shutil.rmtree(cls.folder, ignore_errors=True)
            cls.server = None

    owner = os.getpid()

    def open(self):
        if RedisHarness.server is None:
            RedisHarness.start()
        return RedisJournal(RedisHarness.port)

    def close(self, journal):
        journal.close()

    @staticmethod
    def translate(error):
        import redis

        if isinstance(error, redis.RedisError):
            return JournalUnavailable(str(error), outcome_unknown=True)
        return translate(error)


class DurableRedisHarness(RedisHarness):
    """A server of its own that writes its log before it answers, and that the kit may kill."""

    capabilities = RedisHarness.capabilities | {"durable", "crash_safe", "shared"}
    log = ("--appendonly", "yes", "--appendfsync", "always")

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.folder = tempfile.mkdtemp(prefix="unusual-redis-")
        self.running = []
        self.start_server()
        weakref.finalize(self, _remove, self.running, self.folder)

    def __getstate__(self):
        return {"port": self.port}

    def start_server(self):
        program = shutil.which("redis-server")
        given = (
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            self.folder,
            *self.log,
        )
        self.running[:] = [subprocess.Popen([program, *given], stdout=subprocess.DEVNULL)]
        import redis

        client = redis.Redis(port=self.port)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                client.ping()
                break
            except (redis.ConnectionError, redis.BusyLoadingError):
                time.sleep(0.02)
        client.close()

    def kill_server(self):
        self.running[0].kill()
        self.running[0].wait()

    def open(self):
        return RedisJournal(self.port)


class RetryingRedisJournal(RedisJournal):
    def _connected(self, port):
        import redis

        return redis.Redis(port=port)


class RetryingRedisHarness(DurableRedisHarness):
    """Wrong: the client is as it comes, and tries again by itself after a lost reply."""

    def open(self):
        return RetryingRedisJournal(self.port)


class ForgetfulRedisHarness(DurableRedisHarness):
    """Wrong: it declares that it survives a crash of its server, which keeps everything in memory."""

    log = ()


def _remove(running, folder):
    for process in running:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
