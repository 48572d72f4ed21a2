"""The ledger as the admin API and the dashboard read it: one engine per control, so that neither
connections nor compiled statements are made anew for every request."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import file_mark, open_engine


@dataclass(slots=True)
class _Shared:
    """It is disposed of when its last user has left: a connection in use outlives a dispose()."""

    engine: AsyncEngine
    mark: tuple[int, int] | None
    users: int = 0
    retired: bool = False


class Readers:
    """Read-only and apart from the writer: on SQLite readers do not block the flush, and the loop
    waits for no query."""

    def __init__(self, url: str, nice: int = 0) -> None:
        self._url = url
        self._nice = nice
        self._shared: _Shared | None = None

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[AsyncEngine]:
        """Raises DatabaseUnusable. After an error of the database the next one is made anew."""
        shared = await self._current()
        shared.users += 1
        try:
            yield shared.engine
        except (SQLAlchemyError, OSError, sqlite3.Error):
            shared.retired = True
            raise
        finally:
            shared.users -= 1
            await self._leave(shared)

    async def _current(self) -> _Shared:
        """Connections to a file that was moved away would go on reading it: they are given up."""
        mark = file_mark(self._url)
        if self._shared is not None and mark != self._shared.mark:
            await self.close()
        if self._shared is None:
            engine = open_engine(self._url, read_only=True, nice=self._nice)
            self._shared = _Shared(engine, mark)
        return self._shared

    async def _leave(self, shared: _Shared) -> None:
        if shared.retired:
            if self._shared is shared:
                self._shared = None
            if shared.users == 0:
                await shared.engine.dispose()

    async def close(self) -> None:
        if self._shared is not None:
            self._shared.retired = True
            await self._leave(self._shared)
