"""The ledger as the demo looks at it: read-only, beside the running proxy."""

from typing import Any

from db import reports
from db.engine import reader
from db.verify import verify
from proxy.cli_ledger import opened_unchecked
from proxy.config import Config


async def calls(config: Config) -> list[dict[str, Any]]:
    """Every cost row so far, oldest first."""
    async with (
        opened_unchecked(config, read_only=True) as engine,
        reader(engine).connect() as connection,
    ):
        return [call async for call in reports.calls(connection)]


async def by_team(config: Config) -> list[dict[str, Any]]:
    async with (
        opened_unchecked(config, read_only=True) as engine,
        reader(engine).connect() as connection,
    ):
        return await reports.grouped(connection, ["team"])


async def findings(config: Config) -> list[str]:
    """What `tollkeeper verify` finds."""
    async with opened_unchecked(config, read_only=True) as engine:
        return [str(finding) for finding in await verify(engine)]
