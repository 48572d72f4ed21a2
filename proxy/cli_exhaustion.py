"""`tollkeeper report exhaustion`: when budgets are spent."""

import asyncio
import time

import click

from db.engine import reader
from db.reports import budget_status
from proxy.cli import Invocation, pass_invocation
from proxy.cli_forecast import history_option
from proxy.cli_ledger import opened
from proxy.cli_output import Row, format_option, print_rows
from proxy.config import Config
from proxy.control.exhausting import COLUMNS, exhaustion_row
from proxy.control.figures import starts_at


@click.command(name="exhaustion")
@history_option
@format_option
@pass_invocation
def command(invocation: Invocation, history_days: int, output: str) -> None:
    """When each budget is expected to be spent, if calls go on as they were."""
    now_ms = time.time_ns() // 1_000_000
    rows = asyncio.run(_exhaustion(invocation.load(), history_days, now_ms))
    print_rows(rows, COLUMNS, output, empty="no budgets")


async def _exhaustion(config: Config, history_days: int, now_ms: int) -> list[Row]:
    async with opened(config) as engine, reader(engine).connect() as connection:
        statuses = await budget_status(connection, lambda budget: starts_at(budget, now_ms / 1000))
        return [
            await exhaustion_row(connection, status, now_ms, history_days) for status in statuses
        ]
