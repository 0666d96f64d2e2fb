"""MariaDB, four ways: rows that are locked, guarded updates, a named lock (GET_LOCK), and coroutines with versions.

One server for this process, in a directory of its own; as root it runs as the user that Debian made for it.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextvars import ContextVar
from pathlib import Path

from continuum_conformance.contract import errors
from tests.unusual import codecs
from tests.unusual.coroutines import Async
from tests.unusual.maria_rows import AGAIN, GuardedJournal, LockingJournal, Pool
from tests.unusual.rules import Busy, Refusal, Rules, Sync, translate

NOW: ContextVar[float] = ContextVar("the server's time, read under the lock or with the version")
HEADS = """
CREATE TABLE IF NOT EXISTS heads (
  k VARBINARY(2100) PRIMARY KEY, version BIGINT NOT NULL, head LONGBLOB NOT NULL) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS log (
  k VARBINARY(2100) NOT NULL, seq BIGINT NOT NULL, body LONGBLOB NOT NULL, PRIMARY KEY (k, seq)) ENGINE=InnoDB
"""
LOOK = "SELECT head, version, UNIX_TIMESTAMP(SYSDATE(6)) FROM heads WHERE k = %s"
SINCE = "SELECT body FROM log WHERE k = %s AND seq >= %s ORDER BY seq"


class Server:
    """A mariadbd on the loopback, and what it needs to come back after a crash."""

    one: Server | None = None
    count = itertools.count()

    def __init__(self) -> None:
        shm = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="unusual-maria-", dir=shm if shm.is_dir() else None))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.owner, self.process = os.getpid(), None
        self.user = []
        if os.geteuid() == 0:
            shutil.chown(self.folder, "mysql")
            self.user = ["--user=mysql"]
        atexit.register(self.remove)
        self._run(
            "mariadb-install-db", f"--datadir={self.folder}/data", "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )  # fmt: skip
        self.start()

    @classmethod
    def given(cls) -> Server:
        cls.one = cls.one or cls()
        return cls.one

    def _run(self, program, *options):
        subprocess.run(
            [program, "--no-defaults", *self.user, *options],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self):
        self.process = subprocess.Popen(
            [
                shutil.which("mariadbd"), "--no-defaults", *self.user, f"--datadir={self.folder}/data",
                f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid", f"--port={self.port}",
                "--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-buffer-pool-size=32M",
                "--max-connections=500", "--max-allowed-packet=64M",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                connect(self.port).close()
                return
            except Exception:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.05)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def remove(self):
        if self.owner == os.getpid():
            if self.process is not None:
                self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)

    def database(self) -> str:
        name = f"unusual_{next(self.count)}"
        connection = connect(self.port)
        connection.cursor().execute(f"CREATE DATABASE {name}")
        connection.close()
        return name


def connect(port, database=None):
    import pymysql

    return pymysql.connect(host="127.0.0.1", port=port, user="root", database=database, autocommit=True)


class LockingHarness:
    """`SELECT … FOR UPDATE`, with the server's crash as the kit's to make."""

    capabilities = {"leases", "snapshots", "durable", "crash_safe", "shared", "rich_terms", "opaque_run_ids"}
    journal = LockingJournal

    def __init__(self):
        self.server = Server.given()
        self.port, self.database = self.server.port, self.server.database()

    def __getstate__(self):
        return {"port": self.port, "database": self.database}

    def open(self):
        return self.journal(self.database, self.port)

    def close(self, journal):
        journal.close()

    def kill_server(self):
        self.server.kill()

    def start_server(self):
        self.server.start()

    translate = staticmethod(translate)


class GuardedHarness(LockingHarness):
    journal = GuardedJournal


class NamedLockJournal(Sync):
    """A header and a log; who changes a run holds a named lock of the server's, on the connection that it writes by."""

    def __init__(self, database: str, port: int) -> None:
        self.rules = Rules(clock=NOW.get)
        self.pool = HeadPool(database, port)

    def close(self):
        self.pool.close()

    def read(self, key, since):
        packed = codecs.pack(list(key))
        with _named(), self.pool.borrowed() as connection, connection.cursor() as cursor:
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            cursor.execute(LOOK, (packed,))
            row = cursor.fetchone()
            run = None if row is None else codecs.unpack(row[0])
            start = None if run is None else since(run)
            events = []
            if start is not None:
                cursor.execute(SINCE, (packed, start))
                events = [codecs.unpack(body) for (body,) in cursor.fetchall()]
            cursor.execute("COMMIT")
            return run, events

    def write(self, key, change):
        packed = codecs.pack(list(key))
        lock = hashlib.sha256(packed).hexdigest()  # a name of at most 64 characters
        while True:
            try:
                return self._write(packed, lock, change)
            except Busy:
                pass

    def _write(self, packed, lock, change):
        sent: list[str] = []
        with _named(sent), self.pool.borrowed() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK(%s, 50)", (lock,))
            if cursor.fetchone() != (1,):
                raise Busy
            try:
                cursor.execute("START TRANSACTION")
                cursor.execute(LOOK, (packed,))
                row = cursor.fetchone()
                run = None if row is None else codecs.unpack(row[0])
                if row is not None:
                    NOW.set(float(row[2]))
                try:
                    after, event, answer = change(run)
                except Refusal as refusal:
                    refused = refusal
                    cursor.execute("ROLLBACK")
                else:
                    refused = None
                    self._put(cursor, packed, run, after, event)
                    sent.append("COMMIT")
                    cursor.execute("COMMIT")
            finally:
                # Where this fails the connection is lost, and the lock with it; what was committed was committed.
                with contextlib.suppress(Exception):
                    cursor.execute("DO RELEASE_LOCK(%s)", (lock,))
        if refused is not None:
            raise refused
        return answer

    def _put(self, cursor, packed, run, after, event):
        cursor.execute(
            "INSERT INTO heads VALUES (%s, 1, %s) ON DUPLICATE KEY UPDATE version = version + 1, head = VALUES(head)",
            (packed, codecs.pack(after)),
        )
        if event is not None:
            cursor.execute("INSERT INTO log VALUES (%s, %s, %s)", (packed, run["length"], codecs.pack(event)))


class HeadPool(Pool):
    schema = HEADS


@contextlib.contextmanager
def _named(sent=()):
    import pymysql

    try:
        yield
    except pymysql.err.MySQLError as error:
        if error.args and error.args[0] in AGAIN:
            raise Busy from None
        raise errors.JournalUnavailable(str(error), outcome_unknown=bool(sent)) from error


class NamedLockHarness(LockingHarness):
    journal = NamedLockJournal


class AsyncVersionsJournal(Async):
    """The head's version, compared by the UPDATE; who loses reads again. No connection outlives its trouble."""

    def __init__(self, pool) -> None:
        self.pool, self.rules = pool, Rules(clock=NOW.get)

    async def read(self, key, since):
        packed = _bytes(list(key))

        async def work(cursor):
            run, _ = await self._look(cursor, packed)
            start = None if run is None else since(run)
            if start is None:
                return run, []
            await cursor.execute(SINCE.replace("k = %s", "k = UNHEX(%s)"), (packed, start))
            return run, [codecs.unpack(body) for (body,) in await cursor.fetchall()]

        return await self._transaction(work, " WITH CONSISTENT SNAPSHOT")

    async def write(self, key, change):
        packed = _bytes(list(key))

        async def work(cursor):
            run, version = await self._look(cursor, packed)
            after, event, answer = change(run)
            if run is None:
                await cursor.execute(
                    "INSERT IGNORE INTO heads VALUES (UNHEX(%s), 1, UNHEX(%s))", (packed, _bytes(after))
                )
            else:
                await cursor.execute(
                    "UPDATE heads SET version = version + 1, head = UNHEX(%s) WHERE k = UNHEX(%s) AND version = %s",
                    (_bytes(after), packed, version),
                )
            if cursor.rowcount != 1:
                raise Busy
            if event is not None:
                await cursor.execute(
                    "INSERT INTO log VALUES (UNHEX(%s), %s, UNHEX(%s))",
                    (packed, run["length"], _bytes(event)),
                )
            return answer

        while True:
            try:
                return await self._transaction(work)
            except Busy:
                pass

    async def _look(self, cursor, packed):
        await cursor.execute(LOOK.replace("k = %s", "k = UNHEX(%s)"), (packed,))
        row = await cursor.fetchone()
        if row is None:
            return None, 0
        NOW.set(float(row[2]))
        return codecs.unpack(row[0]), row[1]

    async def _transaction(self, work, how=""):
        import pymysql

        connection, sent = None, False
        try:
            connection = await self.pool.acquire()
            async with connection.cursor() as cursor:
                await cursor.execute("START TRANSACTION" + how)
                try:
                    answer = await work(cursor)
                except (Refusal, Busy):
                    await cursor.execute("ROLLBACK")
                    raise
                sent = not how
                await cursor.execute("COMMIT")
                return answer
        except (Refusal, Busy):
            raise
        except BaseException as error:
            if connection is not None:
                connection.close()
            if not isinstance(error, pymysql.err.MySQLError):
                raise
            if error.args and error.args[0] in AGAIN:
                raise Busy from None
            await self.pool.clear()
            raise errors.JournalUnavailable(str(error), outcome_unknown=sent) from error
        finally:
            if connection is not None:
                await self.pool.release(connection)


class AsyncVersionsHarness(LockingHarness):
    async def open(self):
        import aiomysql

        pool = await aiomysql.create_pool(
            host="127.0.0.1", port=self.port, user="root", db=self.database, autocommit=True, maxsize=8,
            init_command="SET time_zone = '+00:00'",
        )  # fmt: skip
        async with pool.acquire() as connection, connection.cursor() as cursor:
            for statement in HEADS.split(";"):
                await cursor.execute(statement)
        return AsyncVersionsJournal(pool)

    async def close(self, journal):
        journal.pool.close()
        await journal.pool.wait_closed()


def _bytes(value) -> str:
    """In hexadecimal: aiomysql's way of escaping bytes is one that PyMySQL has dropped."""
    return codecs.pack(value).hex()
