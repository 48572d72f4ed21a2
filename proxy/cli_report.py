"""`tollkeeper report`: cost rows, or sums of them."""

import asyncio
import sys
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from typing import Any

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from db import reports
from db.engine import reader
from db.report_filters import parse_time_range
from db.report_periods import GRANULARITIES
from proxy.cli import Invocation, Subcommands, pass_invocation
from proxy.cli_ledger import opened
from proxy.cli_output import FORMATS, Row, print_rows, timestamp
from proxy.cli_pairs import Pairs
from proxy.config import Config
from proxy.control.parquet import write_parquet
from proxy.control.report_focus import focus
from proxy.control.reporting import Answer, Question, answer

BATCH_ROWS = 1_000
Ask = Callable[[AsyncConnection, Question, int], Awaitable[Answer]]
BY_CALL = "call"
FOCUS = "focus"
PARQUET = "parquet"
TOTAL = "total"  # of everything: no dimension
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


@click.group(
    cls=Subcommands,
    elsewhere={
        "what-if": "proxy.cli_whatif",
        "forecast": "proxy.cli_forecast",
        "exhaustion": "proxy.cli_exhaustion",
        "refusals": "proxy.cli_refusals",
    },
    invoke_without_command=True,
)
@click.option(
    "--by",
    metavar="DIMENSIONS",
    help="[default: team] `call`, `total`, or dimensions separated by commas: organization, team, "
    "project, user, key, customer, provider, model, route, ending, hour, day, month, "
    "price_version, tag:NAME.",
)
@click.option("--since", help="Date, timestamp, or a span back from now such as 7d.")
@click.option("--until", help="Date (to its end), timestamp or span.")
@click.option("--where", type=Pairs(), multiple=True, help="Only these calls; repeatable.")
@click.option("--granularity", type=click.Choice(GRANULARITIES), help="A row per period, too.")
@click.option(
    "--timezone", default="UTC", show_default=True, help="Whose days: of dates and of periods."
)
@click.option("--compare", is_flag=True, help="Beside the period before.")
@click.option("--trend", is_flag=True, help="Mean and slope of the periods of each group.")
@click.option(
    "--format",
    "output",
    type=click.Choice((*FORMATS, FOCUS, PARQUET)),
    default="table",
    show_default=True,
    help="How rows are printed; `focus` is CSV with the columns of FOCUS 1.2, per day.",
)
@pass_invocation
@click.pass_context
def command(
    ctx: click.Context,
    invocation: Invocation,
    /,
    by: str | None,
    where: tuple[tuple[str, str], ...],
    granularity: str | None,
    output: str,
    **options: Any,
) -> None:
    """What was spent: every call, or sums by any dimensions.

    The options are of the report itself; what-if, forecast, exhaustion and refusals have their own.
    """
    if ctx.invoked_subcommand is not None:
        return
    by = by if by is not None else TOTAL if output == FOCUS else "team"
    dimensions = [name.strip() for name in by.split(",") if name.strip()]
    if not dimensions:
        raise click.BadParameter("name at least one dimension, or `call`", param_hint="--by")
    question = Question(
        by=() if dimensions == [TOTAL] else dimensions,
        where=dict(where),
        granularity=granularity or "",
        **options,
    )
    now_ms = time.time_ns() // 1_000_000
    if by == BY_CALL and output != FOCUS:
        _print_calls(invocation.load(), question, now_ms, output)
    else:
        _print_groups(invocation.load(), question, now_ms, output)


def _print_calls(config: Config, question: Question, now_ms: int, output: str) -> None:
    if question.granularity or question.compare or question.trend:
        raise click.UsageError("calls have no periods: group them with --by to compare these")
    times = parse_time_range(question.since, question.until, now_ms, question.timezone)
    columns = _CALL_COLUMNS if output == "table" else reports.CALL_FIELDS
    with asyncio.Runner() as runner:
        rows = _batches(runner, _calls(config, reports.Filters(*times, question.where)))
        _print(rows, columns, output)


def _print_groups(config: Config, question: Question, now_ms: int, output: str) -> None:
    ask: Ask = focus if output == FOCUS else answer
    found = asyncio.run(_answer(config, question, now_ms, ask))
    columns = found.columns
    if output == "table":
        columns = [name for name in columns if _is_shown(found.rows, name)]
        if found.previous is not None:
            since, until = map(timestamp, found.previous)
            click.echo(f"compared with {since} to {until}", err=True)
    _print(found.rows, columns, output)


def _print(rows: Iterable[Row], columns: Sequence[str], output: str) -> None:
    if output == PARQUET:
        write_parquet(rows, columns, sys.stdout.buffer)
    else:
        print_rows(rows, columns, "csv" if output == FOCUS else output, empty="no calls")


def _is_shown(rows: Sequence[Row], name: str) -> bool:
    """In a table, where there is little room."""
    if name in _WHERE_ANY:
        return any(row[_WHERE_ANY[name]] != "0" for row in rows)
    if name == "partial":
        return any(row[name] for row in rows)
    return name not in ("period_start", "period_end")


async def _answer(config: Config, question: Question, now_ms: int, ask: Ask) -> Answer:
    async with opened(config) as engine, reader(engine).connect() as connection:
        return await ask(connection, question, now_ms)


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
