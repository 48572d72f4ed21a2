"""`tollkeeper report what-if`: the same usage at other models' prices."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click
from sqlalchemy import select

from db.engine import reader
from db.models import Organization, Team
from db.report_filters import Filters, parse_time_range
from db.whatif import Key, Repriced, what_if
from pricing.money import usd_from_nano
from proxy.cli import Invocation, pass_invocation
from proxy.cli_ledger import opened
from proxy.cli_output import Row, format_option, print_rows
from proxy.cli_pairs import Pairs
from proxy.cli_versions import CONFIGURED, find_version
from proxy.config import Config
from proxy.control.reporting import change

COLUMNS = (
    "at_model", "calls", "cost_usd", "priced", "priced_cost_usd", "what_if_usd", "change_usd",
    "change_percent", "estimated", "not_priced", "reasons",
)  # fmt: skip


@click.command(name="what-if")
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="PROVIDER/MODEL",
    help="The other model; repeatable.",
)
@click.option("--by", default="model", show_default=True, help="Dimensions, as of `report`.")
@click.option("--since", help="Date, timestamp, or a span back from now such as 7d.")
@click.option("--until", help="Date (to its end), timestamp or span.")
@click.option("--timezone", default="UTC", show_default=True, help="Whose days dates are.")
@click.option("--where", type=Pairs(), multiple=True, help="Only these calls; repeatable.")
@click.option(
    "--version", default=CONFIGURED, show_default=True, help="Price version, as of `prices`."
)
@format_option
@pass_invocation
def command(invocation: Invocation, /, output: str, by: str, **options: Any) -> None:
    """What the same calls would have cost at other models.

    Tokens are counted as they were. `priced_cost_usd` is what those calls cost that the other
    model has a price for; the others are counted in `not_priced`, with the reasons.
    """
    dimensions = tuple(name.strip() for name in by.split(",") if name.strip() not in ("", "total"))
    config, now_ms = invocation.load(), time.time_ns() // 1_000_000
    found = asyncio.run(_ask(config, dimensions, now_ms, options))
    rows = list(_rows(found, dimensions))
    print_rows(rows, (*dimensions, *COLUMNS), output, empty="no calls")


async def _ask(
    config: Config, by: tuple[str, ...], now_ms: int, options: Mapping[str, Any]
) -> dict[Key, Repriced]:
    times = parse_time_range(options["since"], options["until"], now_ms, options["timezone"])
    async with opened(config) as engine:
        async with reader(engine).connect() as connection:
            target = await find_version(connection, options["version"], config.pricing)
            names = select(Team.id, Organization.name, Team.name).join(
                Organization, Team.organization_id == Organization.id
            )
            teams = {id_: (org, team) for id_, org, team in await connection.execute(names)}
        filters = Filters(*times, dict(options["where"]))
        return await what_if(engine, target.book, options["models"], by, filters, now_ms, teams)


def _rows(found: Mapping[Key, Repriced], by: tuple[str, ...]) -> Iterator[Row]:
    """The dearest groups first, models in the order of their cost."""

    def order(item: tuple[Key, Repriced]) -> Any:
        key, sums = item
        return -sums.cost_nano, tuple(part or "" for part in key.group), sums.other_nano, key.model

    for key, sums in sorted(found.items(), key=order):
        difference = change(sums.other_nano, sums.priced_nano)
        reasons = [f"{count} {reason}" for reason, count in sums.not_priced.most_common()]
        yield {
            **dict(zip(by, key.group, strict=True)),
            "at_model": key.model,
            "calls": sums.calls,
            "cost_usd": usd_from_nano(sums.cost_nano),
            "priced": sums.priced,
            "priced_cost_usd": usd_from_nano(sums.priced_nano),
            "what_if_usd": usd_from_nano(sums.other_nano),
            "change_usd": difference["change_usd"],
            "change_percent": difference["change_percent"],
            "estimated": sums.estimated,
            "not_priced": sums.not_priced.total(),
            "reasons": reasons,
        }
