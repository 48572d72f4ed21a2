"""The ledger as the demo looks at it: read-only, beside the running proxy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from db import reports
from db.engine import reader
from db.verify import verify
from proxy.cli_ledger import opened
from proxy.config import Config

Row = dict[str, Any]


class LedgerView:
    """What `tollkeeper report` and `tollkeeper verify` would print."""

    def __init__(self, engine: AsyncEngine, journal: Path) -> None:
        self._engine = engine
        self._journal = journal

    async def calls(self) -> list[Row]:
        """Every cost row so far, oldest first."""
        async with reader(self._engine).connect() as connection:
            return [call async for call in reports.calls(connection)]

    async def by_team(self) -> list[Row]:
        async with reader(self._engine).connect() as connection:
            return await reports.grouped(connection, ["team"])

    async def findings(self) -> list[str]:
        found = await verify(self._engine, journal_dir=self._journal)
        return [f"{finding.invariant}: {finding.message}" for finding in found]


@asynccontextmanager
async def ledger_view(config: Config) -> AsyncIterator[LedgerView]:
    async with opened(config) as engine:
        yield LedgerView(engine, Path(config.journal.dir))
