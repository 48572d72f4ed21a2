"""`tollkeeper report forecast` and `report exhaustion`: what is to come."""

import asyncio
import time
from typing import Any

import click

from db.engine import reader
from proxy.cli import Invocation, pass_invocation
from proxy.cli_ledger import opened
from proxy.cli_output import format_option, print_rows
from proxy.cli_pairs import Pairs
from proxy.config import Config
from proxy.control.forecasting import (
    FIELDS,
    HISTORY_DAYS,
    HISTORY_DAYS_MAX,
    PERIODS,
    Outlook,
    period_end,
)

history_option = click.option(
    "--history-days",
    type=click.IntRange(1, HISTORY_DAYS_MAX),
    default=HISTORY_DAYS,
    show_default=True,
    help="How many days before today to learn from.",
)


@click.command(name="forecast")
@click.option("--by", default="total", show_default=True, help="Dimensions, as of `report`.")
@click.option("--where", type=Pairs(), multiple=True, help="Only these calls; repeatable.")
@click.option("--period", type=click.Choice(PERIODS), default="month", show_default=True)
@click.option("--timezone", default="UTC", show_default=True, help="Whose days and periods.")
@click.option(
    "--coverage",
    type=click.FloatRange(0.5, 0.99),
    default=0.8,
    show_default=True,
    help="How often the interval is to hold what comes.",
)
@history_option
@format_option
@pass_invocation
def command(
    invocation: Invocation,
    /,
    by: str,
    where: tuple[tuple[str, str], ...],
    output: str,
    **options: Any,
) -> None:
    """What will have been spent at the end of the current period, with an interval."""
    dimensions = tuple(name.strip() for name in by.split(",") if name.strip() not in ("", "total"))
    outlook = Outlook(by=dimensions, where=dict(where), **options)
    rows = asyncio.run(_forecast(invocation.load(), outlook, time.time_ns() // 1_000_000))
    print_rows(rows, (*dimensions, *FIELDS), output, empty="no calls")


async def _forecast(config: Config, outlook: Outlook, now_ms: int) -> list[dict[str, Any]]:
    async with opened(config) as engine, reader(engine).connect() as connection:
        return await period_end(connection, outlook, now_ms)
