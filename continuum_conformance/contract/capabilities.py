"""Capabilities: what an adapter may declare. Declared means tested; undeclared means refused clearly (CAP-1)."""

from __future__ import annotations

__all__ = ["CAPABILITIES", "CORE", "EXTENSIONS"]

CORE = "core"
"""What every adapter has; it is not declared."""

CAPABILITIES: dict[str, str] = {
    "leases": "acquire, renew, release, and fencing tokens on every write",
    "snapshots": "take_snapshot, and load_with_snapshot that answers with one",
    "durable": "what was acknowledged survives a new process",
    "crash_safe": "what was acknowledged survives a killed server",
    "shared": "several processes may use one store at once",
    "rich_terms": "tuples, sets, decimals, datetimes, UUIDs, and keys of other types",
    "opaque_run_ids": "any string of 1 to 255 characters is a run id; without it only canonical UUID text is",
}
"""The capabilities with clauses of their own, each with a few words."""

EXTENSIONS: dict[str, str] = {
    "signals": "deliver to a run's mailbox",
    "ingress_keys": "an idempotency key per workflow",
    "start_leased": "start and lease in one step",
}
"""Optional extensions of later versions; declaring one is legal and tests nothing yet."""
