"""`tollkeeper prices reprice`: past calls at another price version, as adjustments."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import click
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.engine import reader
from db.ledger import Ledger
from db.ledger_types import Adjusted
from db.models import Organization, Team
from db.report_dimensions import ids_of
from db.report_filters import parse_time_range
from db.repricing import Diff, Repricer, Sums, Wanted
from db.repricing_prices import NewPrices
from db.repricing_read import Selection
from db.retention import require_rows
from db.transactions import open_transactions
from pricing.money import usd_from_nano
from proxy.cli import Invocation, pass_invocation
from proxy.cli_ledger import opened
from proxy.cli_output import Row, format_option, print_rows, with_progress
from proxy.config import Config
from proxy.control.versions import CONFIGURED, find_version

HOST = "adjustments"  # whose rollups these are: no row is shared with a host at work
COLUMNS = (
    "team", "model", "calls", "changed", "unpriced", "estimated", "not_priced", "as_reported",
    "before_usd", "after_usd", "difference_usd",
)  # fmt: skip

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """The command's options."""

    since: str
    until: str | None
    version: str
    teams: tuple[str, ...]
    model: str
    restate: bool

    def words(self) -> dict[str, object]:
        """What finds this run again when it was killed."""
        return {
            "since": self.since,
            "until": self.until,
            "teams": sorted(self.teams),
            "model": self.model,
        }


@click.command(name="reprice")
@click.option("--since", required=True, help="Date, timestamp, or a span back from now: 30d.")
@click.option("--until", help="Date (to its end), timestamp or span [default: now].")
@click.option(
    "--version",
    required=True,
    metavar="VERSION",
    help=f"Id of a price table, a version rows refer to, or `{CONFIGURED}`.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, change nothing.")
@click.option("--team", "teams", multiple=True, help="Only calls of this team; repeatable.")
@click.option("--model", default="*", help="Only calls that requested this model (a glob).")
@click.option(
    "--restate-budgets/--keep-budgets",
    "restate",
    default=False,
    help="Charge the differences to the budgets of each call's own time, or leave those as they "
    "were [default: keep].",
)
@format_option
@pass_invocation
def command(invocation: Invocation, /, dry_run: bool, output: str, **options: Any) -> None:
    """Price past calls with another price version and book the differences.

    Prints what changes per team and model, then appends one adjustment to each call that does.
    The calls' own rows stay as they are. The same command goes on where it was interrupted, and
    changes nothing once all is booked.
    """
    asked, config = Asked(**options), invocation.load()
    # One instant for both passes.
    now_ms = time.time_ns() // 1_000_000

    def look(progress: Progress) -> list[Row]:
        return asyncio.run(_diff(config, asked, now_ms, progress))

    rows = with_progress("pricing", look)
    print_rows(rows, COLUMNS, output, empty="no calls")
    if dry_run:
        return

    def book(progress: Progress) -> Adjusted:
        return asyncio.run(_apply(config, asked, now_ms, progress))

    done = with_progress("booking", book)
    budgets = "restated" if asked.restate else "left as they were"
    difference = usd_from_nano(done.nano)
    click.echo(f"{done.calls} calls adjusted by {difference} USD, budgets {budgets}", err=True)


async def _diff(config: Config, asked: Asked, now_ms: int, progress: Progress) -> list[Row]:
    async with _repricer(config, asked, now_ms) as (engine, repricer, _):
        found = await repricer.diff(progress)
        async with reader(engine).connect() as connection:
            return list(_rows(found, await _team_names(connection)))


async def _apply(config: Config, asked: Asked, now_ms: int, progress: Progress) -> Adjusted:
    async with _repricer(config, asked, now_ms) as (_, repricer, prices):
        ledger = Ledger(
            open_transactions(config.database.url),
            host_id=HOST,
            describe_price=prices.describe,
            dead_letter=lambda *_: None,  # of drains, which are not made here
            now_ms=lambda: time.time_ns() // 1_000_000,
        )
        try:
            return await repricer.apply(ledger, asked.words(), progress)
        finally:
            await ledger.close()


@asynccontextmanager
async def _repricer(
    config: Config, asked: Asked, now_ms: int
) -> AsyncIterator[tuple[AsyncEngine, Repricer, NewPrices]]:
    async with opened(config) as engine:
        async with reader(engine).connect() as connection:
            wanted = await _wanted(connection, asked, now_ms)
            await require_rows(connection, wanted.selection.since_ms, "repricing")
            target = await find_version(connection, asked.version, config.pricing)
            prices = await NewPrices.load(connection, target, _price_names(config))
        yield engine, Repricer(engine, prices, wanted), prices


def _price_names(config: Config) -> Callable[[str], str]:
    names = {name: each.prices or name for name, each in config.providers.items()}
    return lambda provider: names.get(provider, provider)


async def _wanted(connection: AsyncConnection, asked: Asked, now_ms: int) -> Wanted:
    """Raises ReportError for times and teams that are none."""
    since_ms, until_ms = parse_time_range(asked.since, asked.until, now_ms)
    team_ids = [id_ for team in asked.teams for id_ in await ids_of(connection, "team", team)]
    selection = Selection(since_ms, until_ms or now_ms, tuple(sorted(team_ids)))
    return Wanted(selection, asked.restate, asked.model)


async def _team_names(connection: AsyncConnection) -> dict[int, str]:
    query = select(Team.id, Organization.name, Team.name).join(
        Organization, Team.organization_id == Organization.id
    )
    return {id_: f"{org}/{team}" for id_, org, team in await connection.execute(query)}


def _rows(diff: Diff, teams: Mapping[int, str]) -> Iterator[Row]:
    """The largest differences first."""

    def order(item: tuple[tuple[int, str], Sums]) -> Any:
        (team_id, model), sums = item
        return -abs(sums.after_nano - sums.before_nano), teams.get(team_id, ""), model

    for (team_id, model), sums in sorted(diff.sums.items(), key=order):
        yield {
            "team": teams.get(team_id, ""),
            "model": model,
            "calls": sums.calls,
            "changed": sums.changed,
            "unpriced": sums.unpriced,
            "estimated": sums.estimated,
            "not_priced": sums.not_priced,
            "as_reported": sums.as_reported,
            "before_usd": usd_from_nano(sums.before_nano),
            "after_usd": usd_from_nano(sums.after_nano),
            "difference_usd": usd_from_nano(sums.after_nano - sums.before_nano),
        }
