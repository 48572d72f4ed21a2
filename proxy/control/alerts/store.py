"""The database as alerts use it: connections of their own, so that neither calls nor the flush wait
for them. They are opened when first needed and again after an error."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.engine import open_engine, reader
from db.transactions import Transactions, open_transactions

T = TypeVar("T")


class Store:
    def __init__(self, url: str, nice: int = 0) -> None:
        self._url = url
        self._nice = nice
        self._engine: AsyncEngine | None = None
        self._transactions: Transactions | None = None

    async def read(self, ask: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Raises what the database raises."""
        if self._engine is None:
            self._engine = open_engine(self._url, read_only=True, nice=self._nice)
        try:
            async with reader(self._engine).connect() as connection:
                return await ask(connection)
        except BaseException:
            await self._close_engine()
            raise

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction. Raises what the database raises."""
        if self._transactions is None:
            # Not at a low priority: the flush would wait for whoever has SQLite's lock.
            self._transactions = open_transactions(self._url)
        return await self._transactions.run(work)

    async def close(self) -> None:
        await self._close_engine()
        transactions, self._transactions = self._transactions, None
        if transactions is not None:
            await transactions.close()

    async def _close_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()
