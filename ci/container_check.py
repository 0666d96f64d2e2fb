"""Checks `provide("container")` against a real engine; run by container_check.sh.

A server comes up and answers, committed rows survive a kill, the address stays, and nothing is left over – also
when the owner is killed. Exits 1 with a sentence at the first thing that is otherwise.
"""

import os
import signal
import subprocess
import sys
import time

import docker
import psycopg

from continuum_conformance.postgres import PostgresUnavailable, provide


def require(condition: object, sentence: str) -> None:
    if not condition:
        sys.exit(f"container_check: {sentence}")


def containers() -> set[str]:
    return {container.name for container in docker.from_env().containers.list(all=True)}


def query(dsn: str, statement: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(statement).fetchone()
    return row and row[0]


def check_server() -> None:
    before = containers()
    began = time.monotonic()
    with provide("container", settings={"application_name": "from settings"}) as server:
        print(f"{server.description}: up in {time.monotonic() - began:.1f} s")
        print(query(server.dsn, "SELECT version()"))
        require(len(containers() - before) == 1, "there is not exactly one new container")
        require(
            query(server.dsn, "SHOW application_name") == "from settings",
            "a setting did not reach the server",
        )
        with psycopg.connect(server.dsn) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        other = server.fresh_database()
        require(other != server.dsn, "a fresh database is the scratch database")
        dsn = server.dsn
        with psycopg.connect(dsn) as connection:
            server.kill()
            try:
                connection.execute("SELECT 1")
            except psycopg.OperationalError:
                print("killed: a session that was open is gone")
            else:
                require(False, "a session outlived the kill")
        began = time.monotonic()
        server.start()
        print(f"started again in {time.monotonic() - began:.1f} s")
        require(server.dsn == dsn, "the DSN changed")
        require(query(dsn, "SELECT one FROM kept") == 1, "a committed row is lost")
    require(containers() == before, "a container was left over after close")
    print("closed: no container is left")


def check_owner_killed() -> None:
    before = containers()
    owner = subprocess.Popen([sys.executable, __file__, "own"], stdout=subprocess.PIPE, text=True)
    if owner.stdout is None:
        raise RuntimeError("no pipe")
    require(owner.stdout.readline().strip() == "up", "the server of a second process did not come up")
    require(len(containers() - before) == 1, "there is not exactly one container of the second process")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 60
    while containers() != before:
        require(time.monotonic() < deadline, "a container was left over after its owner was killed")
        time.sleep(0.1)
    print("owner killed: no container is left")


def own() -> None:
    provide("container")
    print("up", flush=True)
    signal.pause()


def main() -> None:
    if sys.argv[1:] == ["own"]:
        own()
    try:
        check_server()
        check_owner_killed()
    except PostgresUnavailable as error:
        sys.exit(f"container_check: {error}")
    print(f"container_check: passed (engine {os.environ.get('DOCKER_HOST', 'of the default socket')})")


if __name__ == "__main__":
    main()
