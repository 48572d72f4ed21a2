"""Threads for what blocks: reading journals, syncing files, SQLite. One piece of work at a time.

Where calls and ledger share a core, each time slice of the ledger's would hold up a call by
milliseconds. So the ledger's thread has a lower priority, unless `hurry` says that somebody waits
for it or that it falls behind; then a thread of normal priority does the work. (A thread cannot
raise its own priority again, and what the loop's thread starts inherits that thread's.)
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """`nice` is the ledger's thread's, as of setpriority(2), when there is no hurry."""

    def __init__(self, nice: int = 0) -> None:
        self.hurry = False
        self._normal = ThreadPoolExecutor(1, "ledger")
        self._low = (
            ThreadPoolExecutor(1, "ledger-low", lower_priority, (nice,)) if nice else self._normal
        )

    async def run(self, work: Callable[[], T]) -> T:
        executor = self._normal if self.hurry else self._low
        return await asyncio.get_running_loop().run_in_executor(executor, work)

    def close(self) -> None:
        """What was begun is finished first."""
        self._low.shutdown()
        self._normal.shutdown()


def lower_priority(nice: int) -> None:
    """Of the calling thread, for good."""
    with suppress(PermissionError):  # it is lower already
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
