"""A durable-execution engine in one screen: orders are reserved, charged and shipped, each step once in the history."""

from contextlib import suppress

from continuum_conformance.contract import (
    JournalUnavailable,
    LeaseHeld,
    LeaseLost,
    LeaseMismatch,
    RunNotActive,
    RunNotFound,
    SequenceConflict,
)

STEPS = ("reserve", "charge", "ship")
TTL = 30


class Lost(Exception):
    """The lease is no longer ours, or may not be."""


class Claim:
    """A lease in hand, and until when it can be trusted (by the machine's monotonic clock)."""

    def __init__(self, lease, until):
        self.lease, self.until, self.over = lease, until, False

    def trusted(self, node):
        """Whether nobody else can have it."""
        return not self.over and node.monotonic() < self.until


async def worker(node, heartbeat=None):
    """Take one run after the other."""
    while True:
        run_id = await node.next_run()
        asked = node.monotonic()
        try:
            lease = await node.journal.acquire(node.instance, run_id, node.name, TTL)
        except RunNotActive:
            node.done(run_id)
            continue
        except (LeaseHeld, RunNotFound, JournalUnavailable):
            continue  # the queue will offer it again
        claim = Claim(lease, asked + TTL)
        node.spawn(heartbeat or keep, node, claim)
        # Whoever holds the run next loads the history anew, and knows more than we do.
        with suppress(Lost, LeaseMismatch, RunNotActive, SequenceConflict, JournalUnavailable):
            await carry_out(node, claim)
        claim.over = True


async def keep(node, claim):
    """Renew a lease for as long as it is needed."""
    while not claim.over:
        await node.sleep(TTL / 3)
        asked = node.monotonic()
        try:
            await node.journal.renew(node.instance, claim.lease, TTL)
        except (LeaseLost, RunNotActive):
            claim.over = True
        except JournalUnavailable:
            pass  # nothing is known, so nothing is prolonged
        else:
            claim.until = asked + TTL


async def carry_out(node, claim):
    """Go on where the history ends, to the end of the run."""
    journal, run_id, token = node.journal, claim.lease.run_id, claim.lease.token
    _, events = await journal.load_with_snapshot(node.instance, run_id, token)
    for seq in range(len(events), len(STEPS)):
        await node.sleep(20)  # the step takes its time
        if not claim.trusted(node):
            raise Lost
        node.perform(run_id, STEPS[seq], claim.lease)
        await journal.append(node.instance, run_id, {"type": STEPS[seq], "seq": seq}, token)
    await journal.complete(node.instance, run_id, {"shipped": True}, token)
    node.done(run_id)
