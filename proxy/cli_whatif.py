"""`tollkeeper report what-if`: the same usage at other models' prices."""

import asyncio
import time
from typing import Any

import click

from proxy.cli import Invocation, pass_invocation
from proxy.cli_ledger import opened
from proxy.cli_output import Row, format_option, print_rows
from proxy.cli_pairs import Pairs
from proxy.config import Config
from proxy.control.versions import CONFIGURED
from proxy.control.what_if import COLUMNS, WhatIf, rows_of


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
def command(
    invocation: Invocation,
    /,
    output: str,
    by: str,
    where: tuple[tuple[str, str], ...],
    **options: Any,
) -> None:
    """What the same calls would have cost at other models.

    Tokens are counted as they were. `priced_cost_usd` is what those calls cost that the other
    model has a price for; the others are counted in `not_priced`, with the reasons.
    """
    dimensions = tuple(name.strip() for name in by.split(",") if name.strip() not in ("", "total"))
    config, now_ms = invocation.load(), time.time_ns() // 1_000_000
    rows = asyncio.run(_ask(config, WhatIf(by=dimensions, where=dict(where), **options), now_ms))
    print_rows(rows, (*dimensions, *COLUMNS), output, empty="no calls")


async def _ask(config: Config, asked: WhatIf, now_ms: int) -> list[Row]:
    async with opened(config) as engine:
        return list(await rows_of(engine, config.pricing, asked, now_ms))
