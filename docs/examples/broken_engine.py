"""The engine of engine.py as it was first written: a renewal that fails is logged, and the heartbeat goes on."""

import logging

import engine

from continuum_conformance.contract import JournalError

log = logging.getLogger(__name__)


async def heartbeat(node, claim):
    """Renew a lease, or say that it could not be renewed."""
    while not claim.over:
        await node.sleep(engine.TTL / 3)
        try:
            await node.journal.renew(node.instance, claim.lease, engine.TTL)
        except JournalError as error:
            log.info("could not renew %s: %s", claim.lease.run_id, error)
        claim.until = node.monotonic() + engine.TTL


async def worker(node):
    """As in engine.py, with the heartbeat above."""
    await engine.worker(node, heartbeat)
