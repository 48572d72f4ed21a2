"""`retention.keep_months` as a chore of control's, beside its turns: once a day, calls of months
that are not to be kept go, as with `tollkeeper db retain`.

It has a connection of its own and, on SQLite, a thread of low priority; between its batches others
find the lock free. Several hosts may do it at once: each batch is one host's.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from db.errors import reason
from db.partitions import month_start
from db.retention import Removed, retain
from db.threads import Threads
from db.transactions import is_retryable, open_transactions
from pricing.money import usd_from_nano
from proxy.control.clock import Due
from proxy.control.control import Control

log = logging.getLogger(__name__)

LOOK_S = 60.0  # and so long after a start: nothing of it is urgent
EVERY_S = 86_400.0


class Retaining:
    """`start`, `close`; or `step` by hand."""

    def __init__(
        self, control: Control, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._control = control
        self._sleep = sleep
        self._due = Due(control.clock)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._loop())

    async def close(self) -> None:
        """What is left goes another day."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _loop(self) -> None:
        while True:
            await self._sleep(LOOK_S)
            try:
                await self.step()
            except Exception as exc:
                trace = not is_retryable(exc)
                log.warning("old calls cannot be removed: %s", reason(exc), exc_info=trace)

    async def step(self) -> None:
        """Remove what is due, if it is time. Raises what the database raises."""
        control = self._control
        months = control.config.retention.keep_months
        if not months or control.outage or not self._due.now("retention", EVERY_S):
            return
        now_ms = control.clock.now_ms()
        horizon = month_start(datetime.fromtimestamp(now_ms / 1000, UTC), -months)
        removed = await self._remove(int(horizon.timestamp()) * 1000, now_ms)
        if removed.calls:
            text = f"calls before {horizon:%Y-%m-%d} removed"
            log.info(text, extra={"calls": removed.calls, "usd": str(usd_from_nano(removed.nano))})

    async def _remove(self, horizon_ms: int, now_ms: int) -> Removed:
        threads = Threads(self._control.ledger_nice)
        transactions = open_transactions(self._control.config.database.url, threads)
        try:
            return await retain(transactions, horizon_ms, now_ms, lambda _done, _of: None)
        finally:
            await transactions.close()
