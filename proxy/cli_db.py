"""`tollkeeper db`: migrations, and removing calls of long ago."""

import asyncio
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

import click

from db import schema
from db.engine import reader
from db.errors import SchemaMismatch
from db.retention import KEEP_DAYS_MIN, Month, Removed, horizon_of, look, retain
from db.transactions import open_transactions
from pricing.money import usd_from_nano
from proxy.cli import Failure, Invocation, pass_invocation, subgroup
from proxy.cli_ledger import opened, opened_unchecked
from proxy.cli_output import Row, format_option, print_rows, with_progress
from proxy.config import Config

MONTH_FIELDS = ("month", "calls", "cost_usd", "open", "lost", "estimated", "unpriced")


@subgroup("Migrate the database, remove old calls.")
def command() -> None:
    pass


@command.command()
@click.argument("revision", default="head")
@pass_invocation
def upgrade(invocation: Invocation, revision: str) -> None:
    """Migrate up to REVISION [head]. `serve` does this by itself."""
    asyncio.run(_migrate(invocation, revision, up=True))


@command.command()
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Do not ask: what the revision lacks is dropped.")
@pass_invocation
def downgrade(invocation: Invocation, revision: str, yes: bool) -> None:
    """Migrate down to REVISION; `base` drops every table."""
    if not yes:
        click.confirm(f"Drop what revision {revision} does not have?", abort=True, err=True)
    asyncio.run(_migrate(invocation, revision, up=False))


@command.command()
@pass_invocation
def current(invocation: Invocation) -> None:
    """Print the database's revision; exit code 1 unless it is the one this version needs."""
    asyncio.run(_current(invocation))


class Days(click.ParamType[int]):
    name = "days"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        match = re.fullmatch(r"(\d{1,5})d", str(value))
        if match is None:
            self.fail(f"{value!r} is no number of days, like 400d", param, ctx)
        if int(match[1]) < KEEP_DAYS_MIN:
            self.fail(
                f"{value} is less than {KEEP_DAYS_MIN}d: so long a provider may still tell what an "
                "open call costs",
                param,
                ctx,
            )
        return int(match[1])


@command.command(name="retain")
@click.option("--keep", "keep_days", type=Days(), required=True, metavar="DAYS", help="E.g. 400d.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, remove nothing.")
@format_option
@pass_invocation
def retain_command(invocation: Invocation, keep_days: int, dry_run: bool, output: str) -> None:
    """Remove calls older than DAYS, whole months (UTC) of them, for good.

    Sums stay: reports of whole hours by organization, team, project, user, key, provider or model,
    and all budgets, are what they were. Single calls before are not there any more, so they cannot
    be listed, repriced or reconciled. Safe beside a running proxy; run again, it goes on.
    """
    config, now_ms = invocation.load(), time.time_ns() // 1_000_000
    horizon_ms = horizon_of(keep_days, now_ms)
    months = asyncio.run(_look(config, horizon_ms))
    day = f"{datetime.fromtimestamp(horizon_ms / 1000, UTC):%Y-%m-%d}"
    print_rows(map(_row, months), MONTH_FIELDS, output, empty=f"no calls before {day}")
    if dry_run or not months:
        return

    def work(progress: Callable[[int, int], None]) -> Removed:
        return asyncio.run(_retain(config, horizon_ms, now_ms, progress))

    removed = with_progress("removing", work)
    usd = usd_from_nano(removed.nano)
    click.echo(f"{removed.calls} calls of {usd} USD removed: those before {day}", err=True)


async def _look(config: Config, horizon_ms: int) -> list[Month]:
    async with opened(config) as engine, reader(engine).connect() as connection:
        return await look(connection, horizon_ms)


async def _retain(
    config: Config, horizon_ms: int, now_ms: int, progress: Callable[[int, int], None]
) -> Removed:
    transactions = open_transactions(config.database.url)
    try:
        return await retain(transactions, horizon_ms, now_ms, progress)
    finally:
        await transactions.close()


def _row(month: Month) -> Row:
    values = month._asdict()
    return values | {"cost_usd": usd_from_nano(values.pop("nano"))}


async def _migrate(invocation: Invocation, revision: str, *, up: bool) -> None:
    async with opened_unchecked(invocation.load(), read_only=False) as engine:
        await (schema.upgrade if up else schema.downgrade)(engine, revision)
        click.echo(await schema.current(engine) or "base")


async def _current(invocation: Invocation) -> None:
    async with opened_unchecked(invocation.load(), read_only=True) as engine:
        click.echo(await schema.current(engine) or "base")
        try:
            await schema.check(engine)
        except SchemaMismatch as exc:
            raise Failure(str(exc), 1) from exc
