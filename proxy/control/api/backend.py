"""What the endpoints work with: control, and the ledger to read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.engine import open_engine, reader
from proxy.control.control import Control
from proxy.control.identity import Authenticator

READS_MAX = 2  # at the same time
READ_S_MAX = 60.0
CHANGE_S_MAX = 20.0

T = TypeVar("T")


class Backend:
    def __init__(self, control: Control, explain: Callable[..., Any]) -> None:
        """`explain`: see `api.explain.Explain`."""
        self.control = control
        self.explain = explain
        self.authenticator = Authenticator(control.clock.monotonic)
        self._reads = asyncio.Semaphore(READS_MAX)

    @property
    def now_ms(self) -> int:
        return self.control.clock.now_ms()

    async def read(self, ask: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """One snapshot of the ledger, within a time limit. Raises TimeoutError and what the
        database raises."""
        async with self._reads, asyncio.timeout(READ_S_MAX), self.reading() as connection:
            return await ask(connection)

    async def read_engine(self, ask: Callable[[AsyncEngine], Awaitable[T]]) -> T:
        """The same for what takes several transactions."""
        async with self._reads, asyncio.timeout(READ_S_MAX), self.engine() as engine:
            return await ask(engine)

    async def change(self, work: Callable[[Connection], T]) -> T:
        """One transaction; workers know within a second. Raises TimeoutError and what `work` and
        the database raise: then nothing has changed, unless COMMIT itself failed."""
        engine = open_engine(self.control.config.database.url)
        try:
            async with asyncio.timeout(CHANGE_S_MAX), engine.begin() as connection:
                return await connection.run_sync(work)
        finally:
            await engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        async with self.engine() as engine, reader(engine).connect() as connection:
            yield connection

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[AsyncEngine]:
        """All requests share one. Raises OSError while the ledger is not open."""
        parts = self.control.parts
        if parts is None:
            raise OSError("the ledger is not open")
        async with parts.readers.engine() as engine:
            yield engine
