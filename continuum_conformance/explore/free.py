"""Free-running threads: no schedule, only a common start and frequent switches.

What is left where no scheduler can look inside: a foreign store, an adapter with threads of its own. It cannot
prove absence, and its finds are told as *seen*; what it judges alone is contention, which must never surface
(CON-4) and which no held worker may be blamed for.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from continuum_conformance.explore.schedule import Chooser, Execution

__all__ = ["FreeThreads"]

SWITCH_INTERVAL = 1e-5
"""Seconds after which Python hands the interpreter to another thread."""


class FreeThreads:
    """Starts all workers at once and waits for them; a worker that does not end in time is hung.

    Args:
        limit: seconds within which all workers must have ended.
    """

    level = "threads"

    def __init__(self, limit: float = 20.0) -> None:
        self._limit = limit
        self.clock: Callable[[], int] | None = None

    def run(self, workers: dict[str, Callable[[], None]], chooser: Chooser) -> Execution:  # noqa: ARG002
        """Run every worker's body to its end. There are no choice points."""
        execution = Execution()
        start = threading.Barrier(len(workers))

        def body(work: Callable[[], None]) -> None:
            start.wait()
            work()

        threads = {
            name: threading.Thread(target=body, args=(work,), name=f"worker-{name}", daemon=True)
            for name, work in workers.items()
        }
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL)
        try:
            for thread in threads.values():
                thread.start()
            for name, thread in threads.items():
                thread.join(self._limit)
                if thread.is_alive():
                    execution.hung[name] = f"no answer within {self._limit:g} s"
        finally:
            sys.setswitchinterval(interval)
        return execution
