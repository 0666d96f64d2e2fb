"""The ledger with one mistake in one line. It looks right, it passes every test that one would think of, and it
lets a worker that lost its lease write into the work of its successor.

Find it with ``continuum-conformance check broken_ledger:BrokenLedgerHarness``.
"""

from __future__ import annotations

from ledger import Entry, Ledger, LedgerHarness


class BrokenLedger(Ledger):
    """Counts tokens up from the present one, as a column ``token = token + 1`` would."""

    def _new_token(self, entry: Entry) -> int:
        return (entry.token or 0) + 1


class BrokenLedgerHarness(LedgerHarness):
    """The harness of the broken ledger."""

    journal = BrokenLedger
