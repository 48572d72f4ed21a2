"""`tollkeeper report exhaustion`: when budgets are spent."""

import asyncio
import time

import click

from db.engine import reader
from db.reports import budget_status
from proxy.cli import Invocation, pass_invocation
from proxy.cli_figures import figure, resets_at, starts_at
from proxy.cli_forecast import history_option
from proxy.cli_ledger import opened
from proxy.cli_output import Row, format_option, print_rows
from proxy.config import Config
from proxy.control.forecasting import exhaustion


@click.command(name="exhaustion")
@history_option
@format_option
@pass_invocation
def command(invocation: Invocation, history_days: int, output: str) -> None:
    """When each budget is expected to be spent, if calls go on as they were."""
    now_ms = time.time_ns() // 1_000_000
    rows = asyncio.run(_exhaustion(invocation.load(), history_days, now_ms))
    columns = (
        "scope", "unit", "period", "limit", "spent", "remaining", "exhausted_at", "because",
        "resets_at",
    )  # fmt: skip
    print_rows(rows, columns, output, empty="no budgets")


async def _exhaustion(config: Config, history_days: int, now_ms: int) -> list[Row]:
    now_s = now_ms / 1000
    rows: list[Row] = []
    async with opened(config) as engine, reader(engine).connect() as connection:
        for status in await budget_status(connection, lambda budget: starts_at(budget, now_s)):
            budget = status.budget
            at, because = await exhaustion(connection, status, now_ms, history_days)
            rows.append(
                {
                    "scope": budget.scope,
                    "unit": budget.unit,
                    "period": budget.period,
                    "limit": figure(budget.unit, status.limit),
                    "spent": figure(budget.unit, status.spent),
                    "remaining": figure(budget.unit, status.remaining),
                    "exhausted_at": at,
                    "because": because,
                    "resets_at": resets_at(budget, now_s),
                }
            )
    return rows
