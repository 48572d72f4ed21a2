"""`tollkeeper prices diff`: what a new table would change, and how much spend that concerns."""

import asyncio
import time
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import click

from pricing.money import nano_from_usd, usd_from_nano
from pricing.names import canonical_provider, spellings
from pricing.sources.load import load_installed
from pricing.sources.merge import Entries, merge
from proxy.cli import Invocation, pass_invocation
from proxy.cli_output import Row, format_option, print_rows
from proxy.cli_prices_import import read_sources
from proxy.cli_tables import open_table, tables, today
from proxy.config import Config
from proxy.control.price_rows import differences

Spend = Mapping[tuple[str, str], int]  # by (provider, model) of the table, nano-USD


@click.command(name="diff")
@click.argument("old", required=False, default="")
@click.argument("new", required=False, default="")
@click.option("--spend/--no-spend", default=True, help="Read the affected spend from the ledger.")
@click.option("--since", default="30d", show_default=True, help="How far back spend is read.")
@format_option
@pass_invocation
def command(
    invocation: Invocation, old: str, new: str, spend: bool, since: str, output: str
) -> None:
    """What changes from table OLD to NEW; exit code 1 if anything does.

    Each is the id of a table, or the path or URL of a source. OLD defaults to the table in effect,
    NEW to what the installed sources would make of it. Models are added, removed, retired (kept
    with their last price) or changed; spend is that of the calls to each.
    """
    config = invocation.load()
    before = _entries(config, old)
    after = _entries(config, new) if new else _next(before)
    changes = list(differences(before, after))
    spent = asyncio.run(_spend(config, before, since)) if spend and changes else {}
    rows = [row | {"spend_usd": usd_from_nano(spent.get(_name(row), 0))} for row in changes]
    columns = ["provider", "model", "change", "key", "old", "new", "spend_usd"]
    print_rows(rows, columns, output, empty="no difference")
    if rows:
        affected = sum(spent.get(name, 0) for name in {_name(row) for row in changes})
        counts = {word: len({_name(r) for r in changes if r["change"] == word}) for word in _WORDS}
        said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        click.echo(f"{said}; spend on them since {since}: {usd_from_nano(affected)} USD", err=True)
        raise click.exceptions.Exit(1)


_WORDS = ("added", "removed", "retired", "changed")


def _name(row: Row) -> tuple[str, str]:
    return str(row["provider"]), str(row["model"])


def _next(before: Entries) -> Entries:
    return merge(load_installed(today()), before, today())


def _entries(config: Config, name: str) -> Entries:
    """The entries of a table named by id, or of a source named by path or URL."""
    known = {info.id for info in tables(config)}
    if name and name not in known and (Path(name).exists() or "://" in name):
        return read_sources((name,), today())[0].entries
    table = open_table(config, name or config.pricing.table)
    return {(provider, model): entry for provider, model, entry in table.items()}


async def _spend(config: Config, entries: Entries, since: str) -> Spend:
    """What was spent lately, by the entry a call's model leads to. Nothing where there is no
    ledger to ask."""
    from db.engine import reader  # noqa: PLC0415 - these take half a second
    from db.errors import DatabaseUnusable, SchemaMismatch  # noqa: PLC0415
    from db.reports import Filters, grouped, parse_time_range  # noqa: PLC0415
    from proxy.cli_ledger import opened  # noqa: PLC0415

    filters = Filters(*parse_time_range(since, None, time.time_ns() // 1_000_000))
    found: dict[tuple[str, str], int] = {}
    try:
        async with opened(config) as engine, reader(engine).connect() as connection:
            for row in await grouped(connection, ("provider", "model"), filters):
                name = _entry_of(config, entries, row["provider"], row["model"])
                found[name] = found.get(name, 0) + nano_from_usd(Decimal(row["cost_usd"]))
    except (DatabaseUnusable, SchemaMismatch) as exc:
        click.echo(f"tollkeeper: spend is not known: {exc}", err=True)
    return found


def _entry_of(config: Config, entries: Entries, provider: str, model: str) -> tuple[str, str]:
    declared = config.providers.get(provider)
    name = canonical_provider((declared.prices if declared else "") or provider)
    for spelling in spellings(model):
        if (name, spelling) in entries:
            return name, spelling
    return name, model
