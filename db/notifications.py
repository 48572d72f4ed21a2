"""What one host tells the others at once, through PostgreSQL's LISTEN and NOTIFY.

A notification says only that there is something to look at: whoever misses it looks a little later
all the same. On SQLite there is nobody to tell.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, make_url, text

from db.errors import reason

log = logging.getLogger(__name__)

CHANNEL = "tollkeeper"
CATALOG = "catalog"  # keys, budgets or prices have changed
TICKETS = "tickets"  # a call waits for money of a shared window, or does not any more
EVERYTHING = "everything"  # connected anew: whatever was said meanwhile was missed
CONNECT_S = 10.0
AGAIN_S_MIN, AGAIN_S_MAX = 0.2, 5.0


def notify(connection: Connection, what: str) -> None:
    """Sent when the transaction commits, if it does."""
    if connection.dialect.name == "postgresql":
        connection.execute(
            text("SELECT pg_notify(:channel, :what)"), {"channel": CHANNEL, "what": what}
        )


class Listener:
    """Tells `heard` of every notification, and of EVERYTHING after each new connection.

    A connection of its own, outside the pool. One that is lost is made again; nothing depends on
    it but how soon changes are seen.
    """

    def __init__(self, url: str, heard: Callable[[str], None]) -> None:
        self._url = url
        self._heard = heard
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.connected = False

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        delay = AGAIN_S_MIN
        while True:
            try:
                await self._listen()
                delay = AGAIN_S_MIN
            except Exception as exc:
                log.debug("notifications: %s", reason(exc))
                delay = min(2 * delay, AGAIN_S_MAX)
            await asyncio.sleep(delay)

    async def _listen(self) -> None:
        """Until the connection is lost."""
        connection = await self._connect()
        self._lost.clear()
        connection.add_termination_listener(lambda _: self._lost.set())
        try:
            await connection.add_listener(CHANNEL, self._on_notification)
            self.connected = True
            self._heard(EVERYTHING)
            await self._lost.wait()
        finally:
            self.connected = False
            with contextlib.suppress(Exception):
                connection.terminate()

    async def _connect(self) -> Any:
        import asyncpg  # noqa: PLC0415 - only where the database is PostgreSQL

        url = make_url(self._url)
        _, options = url.get_dialect()().create_connect_args(url)
        return await asyncpg.connect(**options, timeout=CONNECT_S)

    def _on_notification(self, _connection: Any, _pid: int, _channel: str, what: object) -> None:
        self._heard(str(what))
