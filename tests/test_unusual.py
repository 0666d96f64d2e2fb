"""Correct adapters of unusual stores and styles, which the suite must never accuse (see tests/unusual).

By default the whole quick check runs on a few of them, and on the others the clauses that their oddity is about;
a second seed repeats what depends on one. CONTINUUM_UNUSUAL=full runs everything on all of them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest

from continuum_conformance.harness import Subject
from continuum_conformance.postgres import PostgresUnavailable
from continuum_conformance.suite.stores import Stores
from tests.unusual.drive import accusations, check

FULL = os.environ.get("CONTINUUM_UNUSUAL") == "full"
LEASES = ("LEA-4", "LEA-5", "FEN-4", "CLK-2")
REFUSALS = ("APP-2", "APP-5", "APP-6", "FIN-7", "LEA-3", "SNP-6", "SNP-7", "ATM-2")
SHAPES = ("RUN-1", "LEA-4", "LOD-3")
STORES = ("APP-10", "FEN-6", "SNP-3", "DUR-1")
WHOLE = None

ADAPTERS = {
    "minimal:MinimalHarness": WHOLE,
    "dicts:Oddest": (*REFUSALS, "RUN-7", "APP-9", "FEN-7", "APP-10"),
    "dicts:OddestPlain": ("APP-5", "SNP-6", "SNP-7", "APP-10"),
    "dicts:LastOfAll": REFUSALS,
    "dicts:FrozenHarness": (*SHAPES, "FEN-6", "SNP-8"),
    "dicts:ActorHarness": SHAPES,
    "dicts:KeepsTheLease": REFUSALS,
    "dicts:HeldForAll": REFUSALS,
    "dicts:ClockTokens": LEASES,
    "dicts:HugeTokens": LEASES,
    "dicts:GiantTokens": LEASES,
    "dicts:EdgeTokens": LEASES,
    "dicts:NegativeTokens": LEASES,
    "dicts:GlobalTokens": LEASES,
    "dicts:SortedKeys": ("RUN-1", "SNP-8"),
    "others:LiteralHarness": ("SNP-8", "SNP-5"),
    "others:HintedHarness": ("TRM-5",),
    "others:ManagedHarness": ("TRM-5",),
    "others:PartialHarness": SHAPES,
    "core:CoreJournal": ("CAP-1", "RUN-8"),
    "dicts:SlowStore": ("LEA-4",),
    "dicts:LeasesOnly": ("CAP-1", "RUN-8", "FEN-2"),
    "dicts:SnapshotsOnly": ("CAP-1", "RUN-8", "FEN-8", "SNP-2"),
    "dicts:NothingButOpaque": ("CAP-1", "RUN-8", "FEN-8"),
    "dicts:OneForAll": SHAPES,
    "dicts:ReopensOne": SHAPES,
    "dicts:ClassLevelStore": SHAPES,
    "dicts:StrangeHarness": SHAPES,
    "dicts:factory": SHAPES,
    "dicts:harness_instance": SHAPES,
    "dicts:journal_factory": SHAPES,
    "dicts:WholeJournal": SHAPES,
    "dicts:whole_journal": SHAPES,
    "coroutines:AsyncDictHarness": (*SHAPES, "TRM-4", "APP-10"),
    "coroutines:SyncOpenHarness": SHAPES,
    "coroutines:NeedsTheLoop": SHAPES,
    "coroutines:CountsItsOpens": SHAPES,
    "coroutines:OneAsyncForAll": SHAPES,
    "coroutines:ThreadedHarness": STORES,
    "coroutines:AioSqliteHarness": STORES,
    "sqlite_cas:CasHarness": STORES,
    "sqlite_cas:OneDurableHarness": STORES,
    "files:FileHarness": STORES,
    "key_values:DbmHarness": ("FEN-6", "DUR-1"),
    "key_values:LmdbHarness": STORES,
    "key_values:DuckHarness": ("FEN-6", "SNP-3"),
    "one_log:LogHarness": ("FEN-6", "DUR-1"),
    "maria:LockingHarness": ("FEN-6", "DUR-1", "DUR-3", "CLK-1"),
    "maria:GuardedHarness": STORES,
    "maria:NamedLockHarness": ("APP-1", "FEN-6"),
    "maria:AsyncVersionsHarness": ("FEN-6", "DUR-1", "ATM-5"),
    "etcd_leases:EtcdHarness": ("FEN-6", "LEA-5", "DUR-1", "ATM-4"),
    "memcached_cas:MemcachedHarness": ("FEN-6", "SNP-3", "ATM-4"),
    "redis_lua:RedisHarness": STORES,
    "redis_lua:DurableRedisHarness": ("ATM-4", "CLK-1", "DUR-2", "DUR-3", "DUR-5", "FEN-6"),
    "postgres_rows:SerializableHarness": ("SNP-5", "DUR-1", "ATM-3", "ATM-4"),
    "postgres_rows:AdvisoryHarness": ("FEN-6", "DUR-1"),
    "postgres_rows:ForUpdateHarness": ("APP-1", "DUR-1"),
    "postgres_rows:CopyHarness": ("SNP-10", "DUR-1", "ATM-3"),
    "postgres_rows:AsyncpgHarness": ("FEN-6", "DUR-1"),
    "styles:OptimisticHarness": ("CON-2", "DUR-1"),
    "styles:ClockTokensHarness": ("LEA-4", "FEN-6"),
    "styles:ExpiresWhenAskedHarness": ("LEA-1", "LEA-5", "LEA-6"),
    "styles:GroupCommitHarness": ("DUR-2", "APP-9"),
}
NEEDS = {
    "coroutines:AioSqliteHarness": "aiosqlite",
    "key_values:LmdbHarness": "lmdb",
    "key_values:DuckHarness": "duckdb",
    "maria:LockingHarness": "pymysql",
    "maria:GuardedHarness": "pymysql",
    "maria:NamedLockHarness": "pymysql",
    "maria:AsyncVersionsHarness": "aiomysql",
    "memcached_cas:MemcachedHarness": "pymemcache",
    "redis_lua:RedisHarness": "redis",
    "redis_lua:DurableRedisHarness": "redis",
    "postgres_rows:AsyncpgHarness": "asyncpg",
}
SERVERS = {
    "redis_lua": "redis-server",
    "maria": "mariadbd",
    "etcd_leases": "etcd",
    "memcached_cas": "memcached",
}


@pytest.fixture(scope="module")
def stores():
    with Stores("auto") as given:
        yield given


def _needs(adapter):
    driver = NEEDS.get(adapter)
    if driver and importlib.util.find_spec(driver) is None:
        pytest.skip(f"{driver} is not installed")
    server = SERVERS.get(adapter.partition(":")[0])
    if server and shutil.which(server) is None:
        pytest.skip(f"{server} is not installed")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_correct_adapter_is_not_accused(adapter, stores):
    _needs(adapter)
    target = f"tests.unusual.{adapter}"
    if "postgres" in Subject(target).needs:
        try:
            stores.provide(Subject(target))
        except PostgresUnavailable as error:
            pytest.skip(f"no PostgreSQL: {error}")
    clauses = WHOLE if FULL else ADAPTERS[adapter]
    said, judged, _, _ = check(target, stores, seed=1, only=clauses)
    assert accusations(judged) == []
    assert said == ("conforming" if clauses is WHOLE else "incomplete")
    _, judged, _, _ = check(target, stores, seed=2, seeded=not FULL, only=clauses)
    assert accusations(judged) == []


def test_only_advice_is_given_where_a_should_is_not_followed(stores):
    given = {}
    for adapter, clause in {"dicts:HeldForAll": "LEA-3s", "dicts:SortedKeys": "TRM-1s"}.items():
        _, judged, _, _ = check(f"tests.unusual.{adapter}", stores, only=(clause,))
        given[clause] = [one.clause.id for one in judged if one.verdict == "advice"]
        assert accusations(judged) == []
    assert given == {"LEA-3s": ["LEA-3s"], "TRM-1s": ["TRM-1s"]}


def test_a_client_that_tries_again_by_itself_is_told_from_one_that_does_not(stores):
    _needs("redis_lua:RedisHarness")
    for harness, wrong in {"DurableRedisHarness": False, "RetryingRedisHarness": True}.items():
        _, judged, _, session = check(f"tests.unusual.redis_lua:{harness}", stores, only=("ATM-1", "ATM-4"))
        assert bool(accusations(judged)) is wrong
        assert session.faults["connections cut"]
