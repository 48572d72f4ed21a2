"""`tollkeeper reconcile`: the ledger beside a provider's own cost export."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from db.engine import reader
from db.reconciliation import Comparison, Names, Tolerance, compare, store
from pricing.errors import ExportError
from pricing.exports import SOURCES, Export, read_export
from pricing.money import nano_from_usd, usd_from_nano
from proxy.cli import Failure, Invocation, pass_invocation
from proxy.cli_ledger import opened
from proxy.cli_output import Row, format_option, print_rows
from proxy.config import Config

COLUMNS = (
    "day", "model", "calls", "ledger_usd", "provider_usd", "drift_usd", "drift_percent", "status",
)  # fmt: skip


class Amount(click.ParamType[Decimal]):
    name = "NUMBER"

    def convert(self, value: Any, param: Any, ctx: Any) -> Decimal:
        try:
            amount = Decimal(value)
        except InvalidOperation:
            amount = Decimal("NaN")
        if not amount.is_finite() or amount < 0:
            self.fail(f"{value!r}: expected a number, 0 or more", param, ctx)
        return amount


class Pairs(click.ParamType[dict[str, str]]):
    name = "NAME=VALUE,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> dict[str, str]:
        pairs = dict(part.partition("=")[::2] for part in value.split(","))
        if not all(pairs) or not all(pairs.values()):
            self.fail(f"{value!r}: expected NAME=VALUE, several separated by commas", param, ctx)
        return {name.strip(): each.strip() for name, each in pairs.items()}


@click.command()
@click.argument("source", type=click.Choice(SOURCES))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--mapping",
    type=Pairs(),
    help="For csv, its columns: day=..., cost_usd=... or cost_cents=..., and model=... if any.",
)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    help="Configured provider whose calls the export bills; repeatable [default: those priced as "
    "SOURCE; for csv all].",
)
@click.option(
    "--alias",
    type=Pairs(),
    help="Models the ledger has under another name than the export: THEIRS=OURS,...",
)
@click.option(
    "--threshold",
    type=Amount(),
    default="1",
    show_default=True,
    help="Percent of the provider's figure that the ledger's may differ by.",
)
@click.option(
    "--minimum-usd",
    type=Amount(),
    default="0.01",
    show_default=True,
    help="Differences up to this are rounding.",
)
@format_option
@pass_invocation
def command(
    invocation: Invocation,
    /,
    source: str,
    file: Path,
    mapping: dict[str, str] | None,
    providers: tuple[str, ...],
    alias: dict[str, str] | None,
    threshold: Decimal,
    minimum_usd: Decimal,
    output: str,
) -> None:
    """Compare the ledger with a provider's own cost export, by day (UTC) and model.

    openai: the costs API's JSON, grouped by line_item. anthropic: the cost report's JSON, grouped
    by description. openrouter: the activity API's JSON, or the activity page's CSV. csv: any
    table. What is found is stored. Exit code 1 where a line drifts by more than the threshold.
    """
    config = invocation.load()
    data = file.read_bytes()
    try:
        export = read_export(source, data, mapping)
    except ExportError as exc:
        raise Failure(f"{file}: {exc}") from exc
    tolerance = Tolerance(threshold, nano_from_usd(minimum_usd))
    names = Names(alias or {})
    wanted = providers or _providers(config, source)
    digest = hashlib.sha256(data).hexdigest()
    found = asyncio.run(_reconcile(config, source, digest, export, wanted, tolerance, names))
    print_rows(map(_row, found), COLUMNS, output, empty="no costs on either side")
    _sum_up(found, tolerance)
    if any(each.exceeds for each in found):
        raise click.exceptions.Exit(1)


def _providers(config: Config, source: str) -> tuple[str, ...]:
    if source == "csv":
        return ()
    named = [name for name, each in config.providers.items() if (each.prices or name) == source]
    return tuple(named) or (source,)


async def _reconcile(
    config: Config,
    source: str,
    digest: str,
    export: Export,
    providers: Sequence[str],
    tolerance: Tolerance,
    names: Names,
) -> list[Comparison]:
    async with opened(config, read_only=False) as engine:
        async with reader(engine).connect() as connection:
            found = await compare(connection, export, providers, tolerance, names)
        async with engine.begin() as connection:
            await connection.run_sync(
                store,
                found,
                source=source,
                file_sha256=digest,
                tolerance=tolerance,
                now_ms=time.time_ns() // 1_000_000,
            )
    return found


def _row(each: Comparison) -> Row:
    return {
        "day": each.day.isoformat(),
        "model": each.model or "(all)",
        "calls": each.calls,
        "ledger_usd": usd_from_nano(each.ledger_nano),
        "provider_usd": usd_from_nano(each.provider_nano),
        "drift_usd": usd_from_nano(each.drift_nano),
        "drift_percent": _percent(each),
        "status": "drift" if each.exceeds else "ok",
    }


def _percent(each: Comparison) -> str | None:
    """None: of nothing."""
    if not each.provider_nano:
        return None
    return f"{Decimal(100 * each.drift_nano) / each.provider_nano:.2f}"


def _sum_up(found: Sequence[Comparison], tolerance: Tolerance) -> None:
    ours = sum(each.ledger_nano for each in found)
    theirs = sum(each.provider_nano for each in found)
    above = sum(each.exceeds for each in found)
    click.echo(
        f"ledger {usd_from_nano(ours)} USD, provider {usd_from_nano(theirs)} USD, "
        f"drift {usd_from_nano(ours - theirs)} USD; {above} of {len(found)} lines differ by more "
        f"than {tolerance.percent} %",
        err=True,
    )
