"""Threads for what blocks: reading journals, syncing files, SQLite. One piece of work at a time.

Where calls and ledger share a core, each time slice of the ledger's would hold up a call by
milliseconds. So the ledger's thread has a lower priority and pauses often, unless `hurry` says that
somebody waits for it or that it falls behind; then a thread of normal priority does the work. (A
thread cannot raise its own priority again, and what the loop's thread starts inherits that
thread's.)

On a host with more to do than cores, low priority means next to none. What would wait for the
ledger then must not: once a piece of work took suspiciously long, the next ones run at normal
priority for a while, or until there was nothing to do.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from db.pauses import take_pauses

T = TypeVar("T")

STARVED_S = 0.5  # for a piece of work, pauses and all: the cores are busy, or the disk is
RELIEF_S = 30.0  # how long the lower priority is given up then


class Threads:
    """`nice` is the ledger's thread's, as of setpriority(2), when there is no hurry."""

    def __init__(self, nice: int = 0, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.hurry = False
        self.nice = nice
        self._monotonic = monotonic
        self._relief_until = 0.0
        self._normal = ThreadPoolExecutor(1, "ledger")
        self._low = (
            ThreadPoolExecutor(1, "ledger-low", _yield_to_calls, (nice,)) if nice else self._normal
        )

    async def run(self, work: Callable[[], T]) -> T:
        loop, began = asyncio.get_running_loop(), self._monotonic()
        if self.hurry or began < self._relief_until:
            return await loop.run_in_executor(self._normal, work)
        try:
            return await loop.run_in_executor(self._low, work)
        finally:
            now = self._monotonic()
            if now - began > STARVED_S:
                self._relief_until = now + RELIEF_S

    def rested(self) -> None:
        """There was nothing to do: whatever made work slow has passed."""
        self._relief_until = 0.0

    def close(self) -> None:
        """What was begun is finished first."""
        self._low.shutdown()
        self._normal.shutdown()


def _yield_to_calls(nice: int) -> None:
    lower_priority(nice)
    take_pauses()


def lower_priority(nice: int) -> None:
    """Of the calling thread, for good."""
    with suppress(PermissionError):  # it is lower already
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
