"""`tollkeeper report`: cost rows, or sums of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import click

from db import reports
from db.engine import reader
from proxy.cli import Invocation, pass_invocation
from proxy.cli_ledger import opened
from proxy.cli_output import Row, format_option, print_rows
from proxy.config import Config

BATCH_ROWS = 1_000
BY_CALL = "call"
_CALL_COLUMNS = (
    "at",
    "team",
    "user",
    "key",
    "provider",
    "model",
    "route",
    "ending",
    "input_tokens",
    "output_tokens",
    "cost_usd",
)
# Columns of a table that are left out where the figure they go with is 0 everywhere.
_WHERE_ANY = {
    "original_usd": "adjustment_usd",
    "adjustment_usd": "adjustment_usd",
    "provider_cost_usd": "provider_cost_usd",
    "drift_usd": "provider_cost_usd",
}


class Pairs(click.ParamType[tuple[str, str]]):
    name = "DIMENSION=VALUE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        name, equals, wanted = value.partition("=")
        if not equals:
            self.fail(f"{value!r}: expected DIMENSION=VALUE, like team=acme/search", param, ctx)
        return name, wanted


@click.command()
@click.option(
    "--by",
    default="team",
    show_default=True,
    metavar="DIMENSIONS",
    help="`call`, or dimensions separated by commas: organization, team, project, user, key, "
    "provider, model, route, ending, hour, day, month, price_version, tag:NAME.",
)
@click.option("--since", help="Date, timestamp, or a span back from now such as 7d.")
@click.option("--until", help="Date (to its end), timestamp or span.")
@click.option("--where", type=Pairs(), multiple=True, help="Only these calls; repeatable.")
@format_option
@pass_invocation
def command(
    invocation: Invocation,
    by: str,
    since: str | None,
    until: str | None,
    where: tuple[tuple[str, str], ...],
    output: str,
) -> None:
    """What was spent: every call, or sums by any dimensions."""
    now_ms = time.time_ns() // 1_000_000
    filters = reports.Filters(*reports.parse_time_range(since, until, now_ms), dict(where))
    config = invocation.load()
    if by == BY_CALL:
        columns = _CALL_COLUMNS if output == "table" else reports.CALL_FIELDS
        with asyncio.Runner() as runner:
            rows = _batches(runner, _calls(config, filters))
            print_rows(rows, columns, output, empty="no calls")
        return
    dimensions = [name.strip() for name in by.split(",") if name.strip()]
    if not dimensions:
        raise click.BadParameter("name at least one dimension, or `call`", param_hint="--by")
    sums = asyncio.run(_grouped(config, dimensions, filters))
    shown = [*dimensions, *reports.GROUP_FIELDS]
    if output == "table":
        shown = [name for name in shown if name not in _WHERE_ANY or _has_any(sums, name)]
    print_rows(sums, shown, output, empty="no calls")


def _has_any(rows: list[dict[str, Any]], name: str) -> bool:
    return any(row[_WHERE_ANY[name]] != "0" for row in rows)


async def _grouped(
    config: Config, dimensions: list[str], filters: reports.Filters
) -> list[dict[str, Any]]:
    async with opened(config) as engine, reader(engine).connect() as connection:
        return await reports.grouped(connection, dimensions, filters)


async def _calls(config: Config, filters: reports.Filters) -> AsyncIterator[list[Row]]:
    """In batches: a report of a million rows is printed as it is read."""
    async with opened(config) as engine, reader(engine).connect() as connection:
        batch: list[Row] = []
        async for call in reports.calls(connection, filters):
            batch.append(call)
            if len(batch) == BATCH_ROWS:
                yield batch
                batch = []
        yield batch


def _batches(runner: asyncio.Runner, batches: AsyncIterator[list[Row]]) -> Iterator[Row]:
    async def following() -> list[Row] | None:
        return await anext(batches, None)

    while (batch := runner.run(following())) is not None:
        yield from batch
