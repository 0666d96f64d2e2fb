"""Leaving in time: a thread of an adapter's that hangs must not keep Python from ending.

At its end Python waits for every thread that is no daemon, for ever. The kit's own threads are daemons; those
that an adapter starts (an executor's, a driver's) may not be.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Collection

__all__ = ["leave_in_time", "threads_now"]

GRACE = 3.0
"""Seconds that the threads have to end once the main thread is done."""


def threads_now() -> frozenset[int]:
    """The threads that run now, by identity."""
    return frozenset(id(thread) for thread in threading.enumerate())


def leave_in_time(code: int, since: Collection[int]) -> None:
    """End the process with this exit code, should threads keep it once the main thread is done.

    Args:
        code: the exit code.
        since: threads that are no concern of ours, from `threads_now`.
    """
    left = [t for t in threading.enumerate() if not t.daemon and id(t) not in since and t.is_alive()]
    if left:
        threading.Thread(target=_watch, args=(code,), name="leave-in-time", daemon=True).start()


def _watch(code: int) -> None:
    main = threading.main_thread()
    while main.is_alive():
        time.sleep(0.05)
    time.sleep(GRACE)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    os._exit(code)
