"""`tollkeeper report refusals`: how often calls were refused, and why."""

import asyncio
import time
from typing import Any

import click

from db.engine import reader
from db.refusals import DIMENSIONS
from proxy.cli import Invocation, pass_invocation
from proxy.cli_ledger import opened
from proxy.cli_output import format_option, print_rows
from proxy.cli_pairs import Pairs
from proxy.config import Config
from proxy.control.refused_rows import SINCE, columns_of, refused_rows

Times = tuple[str | None, str | None]


@click.command(name="refusals")
@click.option(
    "--by",
    default="code",
    show_default=True,
    metavar="DIMENSIONS",
    help=", ".join(DIMENSIONS),
)
@click.option("--since", default=SINCE, show_default=True, help="Date, timestamp, or a span back.")
@click.option("--until", help="Date (to its end), timestamp or span.")
@click.option("--where", type=Pairs(), multiple=True, help="Only these; repeatable.")
@format_option
@pass_invocation
def command(
    invocation: Invocation,
    by: str,
    since: str,
    until: str | None,
    where: tuple[tuple[str, str], ...],
    output: str,
) -> None:
    """Refused calls of every host, counted by whole hours (UTC) for 90 days.

    `*` stands for what was not told apart, because too many differed within an hour.
    """
    dimensions = [name.strip() for name in by.split(",") if name.strip()]
    rows = asyncio.run(_rows(invocation.load(), dimensions, (since, until), dict(where)))
    print_rows(rows, columns_of(dimensions), output, empty="no refused calls")


async def _rows(
    config: Config, by: list[str], times: Times, where: dict[str, str]
) -> list[dict[str, Any]]:
    now_ms = time.time_ns() // 1_000_000
    async with opened(config) as engine, reader(engine).connect() as connection:
        return await refused_rows(connection, by, times, where, now_ms)
